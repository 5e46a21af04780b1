"""Shapes and arrays of the decode program.

Its arrays have an axis `D`, over which lanes are split: every shard has lanes, work and
a loop of its own. Without a mesh there is one.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from sgpo_jax.models import DecoderConfig
from sgpo_jax.sampling import cache
from sgpo_jax.sampling.slots import Items, Slots, empty_entries, free_slots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The static shape of the decode program.

    Attributes:
      lanes: groups of slots that share prefixes.
      slots: samples decoded at once in a lane.
      prefixes_per_lane: prompts a lane can hold at once.
      prefix: longest prompt prefix, in tokens.
      response: longest response, in tokens.
      steps: most decode steps before the program returns.
    """

    lanes: int
    slots: int
    prefixes_per_lane: int
    prefix: int
    response: int
    steps: int


class State(NamedTuple):
    """State of the decode loop between two runs of its program.

    Attributes:
      entries: prompts the lanes hold.
      slots: what each slot is doing.
      prefixes: keys and values of those prompts.
      ring: keys and values of the slots' own tokens.
      column: next column of the ring to be written.
    """

    entries: Items
    slots: Slots
    prefixes: cache.Layers
    ring: cache.Layers
    column: Int[Array, " D"]


class TokenBuffer(NamedTuple):
    """Buffer of the tokens that every slot sampled at every step.

    A step appends one row, so no scatter is needed, and the size does not depend on
    how many samples were asked for.

    Attributes:
      id: rollout id, or FREE.
      token: sampled token.
      score: log-probability at the sampling temperature, at temperature 1, and the
        probability mass that was drawn from.
      steps: rows in use.
      cursor: next item of the queue.
    """

    id: Int[Array, "steps A S"]
    token: Int[Array, "steps A S"]
    score: Float[Array, "steps 3 A S"]
    steps: Int[Array, " D"]
    cursor: Int[Array, " D"]


class Queue(NamedTuple):
    """The work at hand.

    Attributes:
      items: portions of prompts.
      table: prefixes of those prompts.
      cursor: first item to take.
      staged: items there are.
      more: whether further items wait to be staged.
    """

    items: Items
    table: cache.Cache
    cursor: Int[Array, " D"]
    staged: Int[Array, " D"]
    more: Bool[Array, " D"]


class NoiseSeed(NamedTuple):
    """Seed of the noise, besides query, sample index and position."""

    seed: UInt32[Array, ""]
    step: UInt32[Array, ""]


def empty_state(config: DecoderConfig, grid: Grid, *, dtype: str, shards: int) -> State:
    """Return a grid without work."""
    g = grid
    return State(
        entries=empty_entries(g.lanes, g.prefixes_per_lane),
        slots=free_slots(g.lanes, g.slots),
        prefixes=cache.empty_layers(
            config, dtype, g.lanes, g.prefixes_per_lane * g.prefix
        ),
        ring=cache.empty_layers(config, dtype, g.lanes, g.slots, g.response),
        column=jnp.zeros(shards, jnp.int32),
    )


def empty_buffer(grid: Grid, lanes: int, cursor: Int[Array, " D"]) -> TokenBuffer:
    """Return an empty buffer."""
    shape = (grid.steps, lanes, grid.slots)
    return TokenBuffer(
        id=jnp.full(shape, -1, jnp.int32),
        token=jnp.zeros(shape, jnp.int32),
        score=jnp.zeros((grid.steps, 3, lanes, grid.slots), jnp.float32),
        steps=jnp.zeros(1, jnp.int32),
        cursor=cursor,
    )
