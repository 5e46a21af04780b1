"""Layout of packed rows: the attention mask of a forest of segments, as data."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int


class Layout(NamedTuple):
    """A batch of packed rows, each a forest of token segments in depth-first order.

    A segment is a run of tokens that continues one earlier segment of its row, or none.
    A group is a prefix that its responses continue; a conversation that branches at
    several turns is a deeper tree. Written depth first, everything that continues a
    token, directly or not, stands right behind it in one run, so one integer per key
    says who reads it: query i reads key j of the same row iff

        j <= i < end[j].

    Any forest is one shape: only the values differ. Masks given by columns are due to
    FlashMask (Wang et al. 2024, arXiv:2410.01359), of which this is a special case.

    Args:
      end: one past the last token of the subtree under the token's segment; 0 at
        padding, which reads nothing and is read by nothing.
      position: number of tokens before it in its own sequence, for rotary embeddings
        and sliding windows; 0 at padding.
      parent: index in the row of the token before it in its own sequence, the one whose
        output predicts it; -1 for the first of a sequence and at padding.
    """

    end: Int[Array | np.ndarray, "N L"]
    position: Int[Array | np.ndarray, "N L"]
    parent: Int[Array | np.ndarray, "N L"]

    @property
    def real(self) -> Bool[Array | np.ndarray, "N L"]:
        """False at padding."""
        return self.end > 0


Group = tuple[int, Sequence[int]]
"""Length of the prefix, length of each response."""

Segment = tuple[int, int]
"""Length, and which segment of the row it continues; -1 begins a sequence."""


def from_lengths(rows: Sequence[Sequence[Group]], *, length: int) -> Layout:
    """Lay out the groups of every row one after the other.

    Args:
      rows: the groups of each row.
      length: tokens per row; the rest of a row is padding.

    Raises:
      ValueError: if the groups of a row take more than `length` tokens.

    Example:
      >>> layout = from_lengths([[(2, [1, 2])]], length=6)
      >>> layout.end[0]
      array([5, 5, 3, 5, 5, 0], dtype=int32)
      >>> layout.position[0]
      array([0, 1, 2, 2, 3, 0], dtype=int32)
      >>> layout.parent[0]
      array([-1,  0,  1,  1,  3, -1], dtype=int32)
    """
    return from_segments([list(_segments(groups)) for groups in rows], length=length)


def from_segments(rows: Sequence[Sequence[Segment]], *, length: int) -> Layout:
    """Lay out the segments of every row one after the other.

    Args:
      rows: the segments of each row, depth first: all that continues a segment, then
        the next one beside it.
      length: tokens per row; the rest of a row is padding.

    Raises:
      ValueError: if the segments of a row take more than `length` tokens, or are not
        listed depth first.

    Example:
      A prompt of two tokens, a turn of one, two answers to it, another turn:

      >>> segments = [(2, -1), (1, 0), (1, 1), (2, 1), (1, 0)]
      >>> from_segments([segments], length=8).end[0]
      array([7, 7, 6, 4, 6, 6, 7, 0], dtype=int32)
    """
    shape = len(rows), length
    end, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    parent = np.full(shape, -1, np.int32)
    for row, segments in enumerate(rows):
        spans = _spans(row, segments)
        used = int(spans.size.sum())
        if used > length:
            raise ValueError(f"row {row} needs {used} tokens but has {length}")
        index = np.arange(used, dtype=np.int32)
        end[row, :used] = np.repeat(spans.stop, spans.size)
        position[row, :used] = index + np.repeat(spans.before - spans.start, spans.size)
        parent[row, :used] = index - 1
        some = spans.size > 0
        parent[row, spans.start[some]] = spans.last[some]
    return Layout(end, position, parent)


def _segments(groups: Sequence[Group]) -> Iterator[Segment]:
    count = 0
    for prefix, responses in groups:
        yield prefix, -1
        yield from ((response, count) for response in responses)
        count += 1 + len(responses)


class _Spans(NamedTuple):
    """One number per segment of a row."""

    size: Int[np.ndarray, " S"]
    start: Int[np.ndarray, " S"]
    stop: Int[np.ndarray, " S"]  # of its subtree
    before: Int[np.ndarray, " S"]  # tokens before it in its sequence
    last: Int[np.ndarray, " S"]  # index of the last of those


def _spans(row: int, segments: Sequence[Segment]) -> _Spans:
    starts, befores, lasts, stops = [], [], [], [0] * len(segments)
    path: list[int] = []  # from a root to the segment before
    at = 0
    for index, (size, parent) in enumerate(segments):
        while path and path[-1] != parent:
            stops[path.pop()] = at
        if parent >= 0 and not path:
            raise ValueError(
                f"segment {index} of row {row} continues segment {parent}, which is "
                "no ancestor of the one before: list segments depth first"
            )
        before, last = 0, -1
        if path:
            length = segments[parent][0]
            before = befores[parent] + length
            last = starts[parent] + length - 1 if length else lasts[parent]
        starts.append(at)
        befores.append(before)
        lasts.append(last)
        path.append(index)
        at += size
    for index in path:
        stops[index] = at
    sizes = [size for size, _ in segments]
    columns = sizes, starts, stops, befores, lasts
    return _Spans(*(np.array(column, np.int32) for column in columns))
