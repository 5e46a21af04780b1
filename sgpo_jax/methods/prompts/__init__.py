"""Prompt samplers: which prompts a step samples, and how many rollouts of each."""

from sgpo_jax.methods.prompts.belief import ByBelief as ByBelief
from sgpo_jax.methods.prompts.planned import Planned as Planned
from sgpo_jax.methods.prompts.planned import ShuffledPhases as ShuffledPhases
from sgpo_jax.methods.prompts.pool import Draw as Draw
from sgpo_jax.methods.prompts.pool import History as History
from sgpo_jax.methods.prompts.pool import PromptPool as PromptPool
from sgpo_jax.methods.prompts.pool import PromptSampler as PromptSampler
from sgpo_jax.methods.prompts.pool import State as State
from sgpo_jax.methods.prompts.pool import as_sampler as as_sampler
from sgpo_jax.methods.prompts.posterior import KnapsackAllocation as KnapsackAllocation
from sgpo_jax.methods.prompts.posterior import ThompsonSampling as ThompsonSampling
from sgpo_jax.methods.prompts.replanned import Replanned as Replanned
from sgpo_jax.methods.prompts.shuffled import Shuffled as Shuffled
from sgpo_jax.methods.prompts.skipping import DropSolved as DropSolved
from sgpo_jax.methods.prompts.skipping import SkipZeroVariance as SkipZeroVariance
from sgpo_jax.methods.prompts.weighted import draw_by_weight as draw_by_weight
