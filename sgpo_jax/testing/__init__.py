"""Test doubles: a tiny decoder and experiment, scripted rollouts, in-memory store.

For tests of code that uses this package, its own included: everything here runs in
milliseconds and needs no files.
"""

from sgpo_jax.testing.doubles import MemoryStore as MemoryStore
from sgpo_jax.testing.doubles import ScriptedRollouts as ScriptedRollouts
from sgpo_jax.testing.tiny import ARITHMETIC as ARITHMETIC
from sgpo_jax.testing.tiny import TINY as TINY
from sgpo_jax.testing.tiny import tiny_buckets as tiny_buckets
from sgpo_jax.testing.tiny import tiny_engine as tiny_engine
from sgpo_jax.testing.tiny import tiny_experiment as tiny_experiment
from sgpo_jax.testing.tiny import tiny_queries as tiny_queries
from sgpo_jax.training import MemoryLog as MemoryLog
