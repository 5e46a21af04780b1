"""Pack groups of responses into rows for the model; unpack for the mathematics.

A row is `[prefix_1 r_11 .. r_1g | prefix_2 r_21 .. | padding]`. The model sees rows;
the losses see `[R, T]` arrays of responses. In between stand only gather indices.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpo_jax.kernels import Layout
from sgpo_jax.kernels.shared_prefix_attention import from_lengths
from sgpo_jax.packing.shapes import Buckets, Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """One prompt and the responses sampled for it.

    Attributes:
      prompt: token ids; at least one, since its last position predicts first tokens.
      responses: token ids of each response, EOS included; none may be empty.
      ids: index of each response in the caller's own arrays.
    """

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]
    ids: Sequence[int]

    def __post_init__(self):
        if not len(self.prompt):
            raise ValueError("a group needs a prompt of at least one token")
        if len(self.responses) != len(self.ids):
            raise ValueError(f"{len(self.responses)} responses, {len(self.ids)} ids")
        if any(not len(response) for response in self.responses):
            raise ValueError("a response needs at least one token (EOS counts)")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """One micro-batch: rows for the model and indices back to responses.

    Attributes:
      tokens: token ids; 0 where padding.
      layout: attention mask and positions: each response restarts at the
        length of its prompt.
      predictor_index: per target, the position in the row that predicts it: the token
        before, or the last of the prefix for the first token of every response.
      target: token id of each target; 0 where padding.
      target_mask: True where a target is real.
      gather: for response r and its token t, an index into targets of all rows.
      mask: True where response r has a token t.
      response: the caller's id of response r; -1 where the slot is empty.
    """

    tokens: Int[Any, "N L"]
    layout: Layout
    predictor_index: Int[Any, "N M"]
    target: Int[Any, "N M"]
    target_mask: Bool[Any, "N M"]
    gather: Int[Any, "R T"]
    mask: Bool[Any, "R T"]
    response: Int[Any, " R"]


def gather_hidden(
    hidden: Float[Array, "N L D"], packed: Packed
) -> Float[Array, "N M D"]:
    """Return the hidden states that predict response tokens; prompts are left out."""
    return jnp.take_along_axis(
        hidden, jnp.asarray(packed.predictor_index)[:, :, None], axis=1
    )


def unpack(per_target: Float[Array, "N M"], packed: Packed) -> Float[Array, "R T"]:
    """Turn one number per target into responses x tokens, 0 where there is none."""
    values = per_target.reshape(-1)[packed.gather]
    return jnp.where(packed.mask, values, 0.0)


@dataclasses.dataclass
class _Row:
    """A row being filled: pieces of groups and the room left."""

    tokens: int
    targets: int
    slots: int
    pieces: list[Group] = dataclasses.field(default_factory=list)

    def room_for(self, piece: Group) -> bool:
        targets = sum(map(len, piece.responses))
        return (
            self.tokens >= len(piece.prompt) + targets
            and self.targets >= targets
            and self.slots >= len(piece.ids)
        )

    def add(self, piece: Group) -> None:
        targets = sum(map(len, piece.responses))
        self.tokens -= len(piece.prompt) + targets
        self.targets -= targets
        self.slots -= len(piece.ids)
        self.pieces.append(piece)


def _split(group: Group, shape: Shape) -> list[Group]:
    """Cut a group into pieces that each fit an empty row, repeating its prefix."""
    room = min(shape.row_length - len(group.prompt), shape.targets)
    pieces: list[Group] = []
    start, used = 0, 0
    for end, response in enumerate(group.responses):
        if used + len(response) > room or end - start == shape.slots:
            pieces.append(_piece(group, start, end))
            start, used = end, 0
        used += len(response)
    pieces.append(_piece(group, start, len(group.responses)))
    return pieces


def _piece(group: Group, start: int, end: int) -> Group:
    return Group(
        prompt=group.prompt,
        responses=group.responses[start:end],
        ids=group.ids[start:end],
    )


def _first_fit(groups: Sequence[Group], shape: Shape) -> list[_Row]:
    """First-fit decreasing: largest pieces first, each into the first row with room."""
    pieces = [piece for group in groups if group.ids for piece in _split(group, shape)]
    pieces.sort(key=lambda p: -(len(p.prompt) + sum(map(len, p.responses))))
    rows: list[_Row] = []
    for piece in pieces:
        row = next((row for row in rows if row.room_for(piece)), None)
        if row is None:
            row = _Row(shape.row_length, shape.targets, shape.slots)
            rows.append(row)
        row.add(piece)
    return rows


def _fill(rows: Sequence[_Row], shape: Shape) -> Packed:
    n, length, m = shape.rows, shape.row_length, shape.targets
    r, t = shape.responses, shape.response_length

    def zeros(*size: int) -> np.ndarray:
        return np.zeros(size, np.int32)

    lengths = [
        [(len(p.prompt), [*map(len, p.responses)]) for p in x.pieces] for x in rows
    ]
    layout = from_lengths([*lengths, *[[]] * (n - len(rows))], length=length)
    tokens = zeros(n, length)
    predictor_index, target, gather = zeros(n, m), zeros(n, m), zeros(r, t)
    target_mask, mask = np.zeros((n, m), bool), np.zeros((r, t), bool)
    response_id = np.full(r, -1, np.int32)

    for i, row in enumerate(rows):
        at, target_offset, slot = 0, 0, i * shape.slots
        for piece in row.pieces:
            begin, at = at, at + len(piece.prompt)
            tokens[i, begin:at] = piece.prompt
            for ids, response in zip(piece.ids, piece.responses, strict=True):
                k = len(response)
                token_span, targets = (
                    slice(at, at + k),
                    slice(target_offset, target_offset + k),
                )
                tokens[i, token_span] = response
                predictor_index[i, targets] = layout.parent[i, token_span]
                target[i, targets] = response
                gather[slot, :k] = i * m + np.arange(target_offset, target_offset + k)
                mask[slot, :k] = True
                response_id[slot] = ids
                at, target_offset, slot = at + k, target_offset + k, slot + 1
        target_mask[i, :target_offset] = True

    return Packed(
        tokens=tokens,
        layout=layout,
        predictor_index=predictor_index,
        target=target,
        target_mask=target_mask,
        gather=gather,
        mask=mask,
        response=response_id,
    )


def pack(groups: Sequence[Group], buckets: Buckets) -> list[Packed]:
    """Pack groups into micro-batches of bucketed shapes.

    A group's prefix appears once in a row; a group too large for a row is split and its
    prefix repeated. Rows are filled first-fit decreasing, so the result depends on the
    groups only, not on chance.

    Args:
      groups: prompts with their responses; groups without responses are left out.
      buckets: the shapes allowed.

    Returns:
      Micro-batches, numpy arrays on the host. Every response is in exactly one.

    Raises:
      ValueError: if a prompt with its longest response fits no bucket.
    """
    groups = [group for group in groups if group.ids]
    if not groups:
        return []
    longest = [max(map(len, group.responses)) for group in groups]
    for_batch = buckets.for_batch(
        group=max(len(g.prompt) + k for g, k in zip(groups, longest, strict=True)),
        response=max(longest),
    )
    rows = _first_fit(groups, for_batch[-1])
    batches = []
    while rows:
        shape = next((s for s in for_batch if s.rows >= len(rows)), for_batch[-1])
        batches.append(_fill(rows[: shape.rows], shape))
        rows = rows[shape.rows :]
    return batches


@dataclasses.dataclass(frozen=True)
class Waste:
    """Padding waste of a batch.

    Attributes:
      tokens: real tokens, prefixes counted once per row they stand in.
      padded: token positions computed, padding included.
      dense: tokens that one row per response would take, without padding.
    """

    tokens: int
    padded: int
    dense: int

    @property
    def share(self) -> float:
        """Share of computed positions that are padding."""
        return 1 - self.tokens / self.padded if self.padded else 0.0


def waste(groups: Sequence[Group], batches: Sequence[Packed]) -> Waste:
    """Measure the padding of `batches`, made from `groups`."""
    return Waste(
        tokens=sum(int(np.sum(batch.layout.real)) for batch in batches),
        padded=sum(batch.tokens.size for batch in batches),
        dense=sum(len(g.prompt) + len(r) for g in groups for r in g.responses),
    )
