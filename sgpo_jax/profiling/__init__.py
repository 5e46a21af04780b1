"""Profiles: how often a policy solves each query, and what follows from that."""

from sgpo_jax.profiling.adaptive import Decision as Decision
from sgpo_jax.profiling.adaptive import Flat as Flat
from sgpo_jax.profiling.adaptive import Round as Round
from sgpo_jax.profiling.adaptive import SamplingRule as SamplingRule
from sgpo_jax.profiling.adaptive import Sequential as Sequential
from sgpo_jax.profiling.adaptive import profile_adaptively as profile_adaptively
from sgpo_jax.profiling.calibration import Calibration as Calibration
from sgpo_jax.profiling.calibration import calibration as calibration
from sgpo_jax.profiling.calibration import split_samples as split_samples
from sgpo_jax.profiling.imports import from_rates as from_rates
from sgpo_jax.profiling.imports import read_rates as read_rates
from sgpo_jax.profiling.measure import Chunks as Chunks
from sgpo_jax.profiling.measure import measure as measure
from sgpo_jax.profiling.measure import summarize as summarize
from sgpo_jax.profiling.merging import merge as merge
from sgpo_jax.profiling.posterior import Fitted as Fitted
from sgpo_jax.profiling.posterior import Given as Given
from sgpo_jax.profiling.posterior import Posterior as Posterior
from sgpo_jax.profiling.posterior import Prior as Prior
from sgpo_jax.profiling.profile import Profile as Profile
from sgpo_jax.profiling.scored import RolloutSource as RolloutSource
from sgpo_jax.profiling.scored import SampleAndScore as SampleAndScore
from sgpo_jax.profiling.scored import Scored as Scored
from sgpo_jax.profiling.shared import SharedRollouts as SharedRollouts
