"""Profile queries with a few samples of the initial policy."""

from sgpo_jax.profiling.measure import SUCCESS as SUCCESS
from sgpo_jax.profiling.measure import Chunks as Chunks
from sgpo_jax.profiling.measure import measure as measure
from sgpo_jax.profiling.measure import summarize as summarize
from sgpo_jax.profiling.profile import Profile as Profile
from sgpo_jax.profiling.scored import RolloutSource as RolloutSource
from sgpo_jax.profiling.scored import SampleAndScore as SampleAndScore
from sgpo_jax.profiling.scored import Scored as Scored
from sgpo_jax.profiling.shared import SharedRollouts as SharedRollouts
