"""The decode loop: one program that steps all slots and refills them.

Runs once per shard of lanes, so an axis `D` of its arguments has length one here.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgpo_jax import models, streams
from sgpo_jax.models import DecoderConfig
from sgpo_jax.sampling import cache
from sgpo_jax.sampling.ending import Ending, is_one_of
from sgpo_jax.sampling.grid import (
    Grid,
    NoiseSeed,
    Queue,
    State,
    TokenBuffer,
    empty_buffer,
)
from sgpo_jax.sampling.methods import DecodingStrategy, choose
from sgpo_jax.sampling.slots import FREE, idle_entries, start_samples


def refill(
    state: State, queue: Queue, cursor: Int[Array, " D"], base: Array
) -> tuple[State, Int[Array, " D"]]:
    """Give free slots work, loading items into idle entries as needed.

    Args:
      state: the grid.
      queue: the work.
      cursor: next item of the queue.
      base: key of (seed, step).

    Returns:
      The grid and the cursor.
    """

    def start(state: State) -> State:
        slots, entries = start_samples(state.slots, state.entries, base)
        return state._replace(slots=slots, entries=entries)

    def can_load(carry: tuple[State, Array]) -> Array:
        state, cursor = carry
        return has_idle_slot(state) & (cursor[0] < queue.staged[0])

    def load(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, cursor = carry
        state, loaded = _load_items(state, queue, cursor)
        return start(state), cursor + loaded

    return jax.lax.while_loop(can_load, load, (start(state), cursor))


def has_idle_slot(state: State) -> Bool[Array, ""]:
    """Return whether a slot is free and its lane could take an item for it."""
    return jnp.any(idle_entries(state.slots, state.entries))


def _load_items(
    state: State, queue: Queue, cursor: Int[Array, " D"]
) -> tuple[State, Int[Array, ""]]:
    """Load the next items, one per lane that has a use for one."""
    idle = idle_entries(state.slots, state.entries)
    wants = jnp.any(idle, axis=1)
    entry = jnp.argmax(idle, axis=1).astype(jnp.int32)
    item = cursor + jnp.cumsum(wants, dtype=jnp.int32) - 1
    gets = wants & (item < queue.staged)
    into = gets[:, None] & (entry[:, None] == jnp.arange(idle.shape[1])[None])
    items = jax.tree.map(lambda x: x.at[item].get(mode="clip"), queue.items)
    entries = jax.tree.map(
        lambda new, old: jnp.where(into, new[:, None], old), items, state.entries
    )
    loaded = jnp.sum(gets, dtype=jnp.int32)
    lanes = jnp.argsort(~gets, stable=True)  # those that load, first

    def copy(i: Array, prefixes: cache.Layers) -> cache.Layers:
        lane = lanes[i]
        row = entries.row[lane, entry[lane]]
        return cache.copy_prefix(prefixes, queue.table, row, lane, entry[lane])

    # Work in proportion to the prompts that change, not to the lanes there are.
    prefixes = jax.lax.fori_loop(0, loaded, copy, state.prefixes)
    return state._replace(entries=entries, prefixes=prefixes), loaded


def step(
    params: models.Params,
    state: State,
    ending: Ending,
    *,
    config: DecoderConfig,
    grid: Grid,
    strategy: DecodingStrategy,
) -> tuple[State, Int[Array, "A S"], Float[Array, "3 A S"]]:
    """Feed every slot its next token; free the slots whose sample ended.

    Args:
      params: the policy, as from `models.unstack`.
      state: the grid.
      ending: what ends a sample.
      config: shape of the decoder.
      grid: shape of the grid.
      strategy: how tokens are chosen.

    Returns:
      The grid, the tokens sampled, and what `choose` says about them.
    """
    slots, column = state.slots, state.column[0]
    attend = cache.attend_to_caches(
        state.prefixes,
        state.ring,
        cache.prefix_distance(slots, grid.prefixes_per_lane, grid.prefix),
        cache.ring_distance(slots.age, column, grid.response),
    )
    hidden, new = models.apply_unstacked(
        params,
        config,
        slots.token.reshape(-1, 1),
        (slots.prefix + slots.age).reshape(-1, 1),
        attend,
    )
    logits = models.logits(params, config, hidden[:, 0])
    forced = ending.force(slots.thought, slots.age, slots.thinking)
    token, score = choose(
        logits,
        slots.key.reshape(-1, 2),
        slots.age.reshape(-1),
        strategy,
        None if forced is None else forced.reshape(-1),
    )
    token, score = token.reshape(slots.age.shape), score.reshape(3, *slots.age.shape)

    ended = (slots.age + 1 >= slots.budget) | is_one_of(token, ending.tokens)
    if ending.thought is not None:
        slots = slots._replace(thought=ending.thought.after(slots.thought, token))
    if ending.strings is not None:
        stopping = ending.strings.after(slots.stopping, token)
        slots = slots._replace(stopping=stopping)
        ended |= stopping == ending.strings.found
    left = jnp.where(ended, FREE, slots.id)
    slots = slots._replace(id=left, token=token, age=slots.age + 1)
    # XLA updates an array in place if all that reads it is known to come before, that
    # is, if the update depends on it: so the place depends on the tokens (none is < 0).
    place = column + jnp.minimum(jnp.min(token), 0)
    ring = cache.write_column(state.ring, new, place)
    column = (state.column + 1) % grid.response
    return state._replace(slots=slots, ring=ring, column=column), token, score


def decode(
    params: models.Params,
    state: State,
    queue: Queue,
    noise: NoiseSeed,
    ending: Ending,
    *,
    config: DecoderConfig,
    grid: Grid,
    strategy: DecodingStrategy,
) -> tuple[State, TokenBuffer]:
    """Decode until the work is done, the buffer is full, or more items are needed.

    Args:
      params: the policy.
      state: the grid.
      queue: the work.
      noise: what decides the noise.
      ending: what ends a sample.
      config: shape of the decoder.
      grid: shape of the grid.
      strategy: how tokens are chosen.

    Returns:
      The grid and the buffer.
    """
    base = streams.sampling(noise.seed, noise.step)

    def go_on(carry: tuple[State, TokenBuffer]) -> Array:
        state, buffer = carry
        starved = has_idle_slot(state) & queue.more[0]
        busy = jnp.any(state.slots.id != FREE)
        return busy & ~starved & (buffer.steps[0] < grid.steps)

    def body(carry: tuple[State, TokenBuffer]) -> tuple[State, TokenBuffer]:
        state, buffer = carry
        ids = state.slots.id
        state, token, score = step(
            models.unstack(params, config),
            state,
            ending,
            config=config,
            grid=grid,
            strategy=strategy,
        )

        def append(into: Array, row: Array) -> Array:
            return jax.lax.dynamic_update_index_in_dim(into, row, buffer.steps[0], 0)

        state, cursor = refill(state, queue, buffer.cursor, base)
        return state, TokenBuffer(
            id=append(buffer.id, ids),
            token=append(buffer.token, token),
            score=append(buffer.score, score),
            steps=buffer.steps + 1,
            cursor=cursor,
        )

    state, cursor = refill(state, queue, queue.cursor, base)
    buffer = empty_buffer(grid, state.slots.id.shape[0], cursor)
    return jax.lax.while_loop(go_on, body, (state, buffer))
