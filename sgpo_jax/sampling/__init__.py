"""Samples of prompts: one prefill per prompt, slots that never idle."""

from sgpo_jax.sampling.ending import Finish as Finish
from sgpo_jax.sampling.ending import StopStrings as StopStrings
from sgpo_jax.sampling.engine import Engine as Engine
from sgpo_jax.sampling.methods import Greedy as Greedy
from sgpo_jax.sampling.methods import Method as Method
from sgpo_jax.sampling.methods import MinP as MinP
from sgpo_jax.sampling.methods import Temperature as Temperature
from sgpo_jax.sampling.methods import TopK as TopK
from sgpo_jax.sampling.methods import TopP as TopP
from sgpo_jax.sampling.orders import AsGiven as AsGiven
from sgpo_jax.sampling.orders import Learned as Learned
from sgpo_jax.sampling.orders import LongestFirst as LongestFirst
from sgpo_jax.sampling.orders import Order as Order
from sgpo_jax.sampling.orders import ShortestFirst as ShortestFirst
from sgpo_jax.sampling.orders import Told as Told
from sgpo_jax.sampling.requests import Progress as Progress
from sgpo_jax.sampling.requests import Request as Request
from sgpo_jax.sampling.requests import Rollouts as Rollouts
from sgpo_jax.sampling.requests import Stats as Stats
from sgpo_jax.sampling.sampler import Local as Local
from sgpo_jax.sampling.sampler import Sampler as Sampler
from sgpo_jax.sampling.server import IncompleteError as IncompleteError
from sgpo_jax.sampling.server import Retry as Retry
from sgpo_jax.sampling.server import Server as Server
