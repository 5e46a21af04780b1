"""Front door: `Trainer`, `profile` and `plan`."""

from sgpo_jax.trainer.front import plan as plan
from sgpo_jax.trainer.front import profile as profile
from sgpo_jax.trainer.trainer import Trainer as Trainer
