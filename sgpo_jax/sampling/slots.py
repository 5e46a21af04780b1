"""The static grid of lanes and slots, and how free slots get work.

A lane has the key-value prefixes of a few prompts in its *entries*; each of its *slots*
decodes one sample of a prompt held by the lane. Work arrives as :class:`Items`: a
prompt and a range of its samples. How many samples a prompt gets is the length of that
range, never a shape. After every token, a free slot takes the next sample of an entry
of its lane; when the entries have none left, an unread one takes the next item.
(Infinite Sampling's micro groups and continuous sampling, arXiv:2506.22950, over many
prompts at once; two entries let the next prompt start while the last samples of the
previous one are still running.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from sgpo_jax import streams

FREE = -1


class Items(NamedTuple):
    """Prompts and ranges of their samples: a queue [I], or the entries of lanes [A, B].

    Attributes:
      row: row of the prefix table.
      prefix: prompt tokens before the last one.
      token: last prompt token, the first input of every sample.
      key: the query's key.
      next: rollout id of the next sample to start.
      end: rollout id after the last sample.
      offset: sample index minus rollout id.
      budget: most response tokens.
      thinking: tokens after which thinking is ended by force.
    """

    row: Int[Array, "*n"]
    prefix: Int[Array, "*n"]
    token: Int[Array, "*n"]
    key: UInt32[Array, "*n"]
    next: Int[Array, "*n"]
    end: Int[Array, "*n"]
    offset: Int[Array, "*n"]
    budget: Int[Array, "*n"]
    thinking: Int[Array, "*n"]


class Slots(NamedTuple):
    """State of each slot.

    Attributes:
      id: rollout id, or FREE.
      entry: entry of the lane that has the prompt.
      prefix: prompt tokens before the last one.
      token: next input token.
      age: response tokens sampled so far.
      budget: most response tokens.
      thinking: tokens after which thinking is ended by force.
      thought: state of the automaton that finds the end of thinking.
      stopping: state of the automaton that finds stop strings.
      key: the sample's key data.
    """

    id: Int[Array, "A S"]
    entry: Int[Array, "A S"]
    prefix: Int[Array, "A S"]
    token: Int[Array, "A S"]
    age: Int[Array, "A S"]
    budget: Int[Array, "A S"]
    thinking: Int[Array, "A S"]
    thought: Int[Array, "A S"]
    stopping: Int[Array, "A S"]
    key: UInt32[Array, "A S 2"]


def empty_entries(lanes: int, entries: int) -> Items:
    """Return empty entries."""
    zeros = jnp.zeros((lanes, entries), jnp.int32)
    fields = dict.fromkeys(Items._fields, zeros)
    return Items(**{**fields, "key": zeros.astype(jnp.uint32)})


def free_slots(lanes: int, slots: int) -> Slots:
    """Return slots without work."""
    zeros = jnp.zeros((lanes, slots), jnp.int32)
    fields = dict.fromkeys(Slots._fields, zeros)
    key = jnp.zeros((lanes, slots, 2), jnp.uint32)
    return Slots(**{**fields, "id": jnp.full_like(zeros, FREE), "key": key})


def sample_key(
    base: Array, query: UInt32[Array, "*n"], sample: Int[Array, "*n"]
) -> UInt32[Array, "*n 2"]:
    """Fold (query key, sample index) into the key of (seed, step)."""

    def fold(query: Array, sample: Array) -> Array:
        return jax.random.key_data(streams.sample(base, query, sample))

    flat = jax.vmap(fold)(query.reshape(-1), sample.reshape(-1))
    return flat.reshape(*query.shape, 2)


def start_samples(slots: Slots, entries: Items, base: Array) -> tuple[Slots, Items]:
    """Give each free slot the next pending sample of its lane, entry by entry."""
    free = slots.id == FREE
    rank = jnp.cumsum(free, axis=1) - 1
    pending = entries.end - entries.next
    upto = jnp.cumsum(pending, axis=1)
    before = upto - pending
    # The r-th free slot takes the r-th pending sample of its lane.
    take = free & (rank < upto[:, -1:])
    chosen = jnp.sum(rank[:, :, None] >= upto[:, None, :], axis=2)
    entry = jnp.where(take, jnp.minimum(chosen, pending.shape[1] - 1), slots.entry)

    def of_entry(values: Array) -> Array:
        return jnp.take_along_axis(values, entry, axis=1)

    ids = of_entry(entries.next) + rank - of_entry(before)
    fresh = Slots(
        id=ids,
        entry=entry,
        prefix=of_entry(entries.prefix),
        token=of_entry(entries.token),
        age=jnp.zeros_like(ids),
        budget=of_entry(entries.budget),
        thinking=of_entry(entries.thinking),
        thought=jnp.zeros_like(ids),
        stopping=jnp.zeros_like(ids),
        key=sample_key(base, of_entry(entries.key), ids + of_entry(entries.offset)),
    )
    started = jnp.sum(free, axis=1, keepdims=True)
    following = entries.next + jnp.clip(started - before, 0, pending)
    slots = jax.tree.map(
        lambda new, old: jnp.where(
            jnp.expand_dims(take, tuple(range(2, new.ndim))), new, old
        ),
        fresh,
        slots,
    )
    return slots, entries._replace(next=following)


def idle_entries(slots: Slots, entries: Items) -> Bool[Array, "A B"]:
    """Return the entries to overwrite, in lanes that have no sample to start."""
    index = jnp.arange(entries.row.shape[1])[None, :, None]
    reads = (slots.entry[:, None, :] == index) & (slots.id[:, None, :] != FREE)
    idle = ~jnp.any(reads, axis=2) & (entries.next == entries.end)
    return idle & jnp.any(slots.id == FREE, axis=1, keepdims=True)
