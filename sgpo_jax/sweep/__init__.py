"""Hyper-parameter search over run folders.

Optuna prunes trials and keeps them. A trial is `sgpo train` in a folder of its own, and
all trials spend equal total compute.
"""

from sgpo_jax.sweep.objective import OBJECTIVES as OBJECTIVES
from sgpo_jax.sweep.objective import area as area
from sgpo_jax.sweep.objective import final as final
from sgpo_jax.sweep.proposals import Observations as Observations
from sgpo_jax.sweep.space import Choices as Choices
from sgpo_jax.sweep.space import Interval as Interval
from sgpo_jax.sweep.space import Parameter as Parameter
from sgpo_jax.sweep.space import Space as Space
from sgpo_jax.sweep.space import parse as parse
from sgpo_jax.sweep.study import PRUNERS as PRUNERS
from sgpo_jax.sweep.study import SAMPLERS as SAMPLERS
from sgpo_jax.sweep.study import Proposer as Proposer
from sgpo_jax.sweep.summary import write as write
from sgpo_jax.sweep.sweep import Sweep as Sweep
from sgpo_jax.sweep.sweep import TrialError as TrialError
