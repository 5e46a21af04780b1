"""Sample and score: rollouts with their rewards, the stage that others share."""

from sgpo_jax.rollouts.distributed import DistributedRollouts as DistributedRollouts
from sgpo_jax.rollouts.generator import RewardedRollouts as RewardedRollouts
from sgpo_jax.rollouts.generator import RolloutGenerator as RolloutGenerator
from sgpo_jax.rollouts.generator import SampleAndScore as SampleAndScore
from sgpo_jax.rollouts.served import ServerRollouts as ServerRollouts
