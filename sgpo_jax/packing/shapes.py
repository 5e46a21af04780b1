"""Static shapes of packed micro-batches, and buckets of them."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Shape:
    """Static shape of one micro-batch; the training step compiles once per shape.

    Attributes:
      row_length: tokens per packed row, L.
      response_length: longest response in tokens (EOS included), T.
      targets: response tokens per row, M; at most `row_length`.
      slots: responses per row; the micro-batch has R = rows x slots of them.
      rows: packed rows, N.
    """

    row_length: int
    response_length: int
    targets: int
    slots: int
    rows: int

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} of {self} must be positive")
        if self.targets > self.row_length:
            raise ValueError(f"targets of {self} must not exceed its row_length")

    @property
    def responses(self) -> int:
        """Response slots of the micro-batch, R."""
        return self.rows * self.slots


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Shape buckets of a run: at most one compiled program for each.

    All shapes are sorted; a batch takes the shortest row length that holds each of its
    groups, and as many rows as it needs, in micro-batches of the largest `rows` of that
    length and a last one of the smallest `rows` that suffices.
    """

    shapes: tuple[Shape, ...]

    def __post_init__(self):
        if not self.shapes:
            raise ValueError("buckets need at least one shape")
        if list(self.shapes) != sorted(set(self.shapes)):
            raise ValueError("the shapes of buckets must be sorted and distinct")

    def for_batch(self, *, group: int, response: int) -> tuple[Shape, ...]:
        """Return the shapes (by ascending rows) for a batch.

        Args:
          group: prefix plus longest single response of any group, in tokens; a group
            larger than a row is split, so only this sum has to fit.
          response: longest response in tokens.

        Raises:
          ValueError: if no bucket is long enough.
        """
        fitting = [
            shape
            for shape in self.shapes
            if shape.row_length >= group
            and shape.response_length >= response
            and shape.targets >= response
        ]
        if not fitting:
            raise ValueError(
                f"a prompt with one response takes {group} tokens (response {response})"
                f" but the longest shape is {self.shapes[-1]}; add a longer row to the"
                " buckets or shorten prompts and responses"
            )
        first = dataclasses.replace(fitting[0], rows=1)
        return tuple(s for s in fitting if dataclasses.replace(s, rows=1) == first)


def make_buckets(
    *,
    row_lengths: Sequence[int],
    rows: Sequence[int],
    response_length: int,
    shortest_response: int = 4,
) -> Buckets:
    """Return buckets: the product of row lengths and numbers of rows.

    Args:
      row_lengths: tokens per row; each is a bucket.
      rows: rows per micro-batch; the largest is the usual one, smaller ones take what
        is left at the end of a batch.
      response_length: longest response the sampler may produce, in tokens.
      shortest_response: sizes the number of response slots of a row, which is
        row_length / shortest_response; shorter responses may leave a row unfilled.

    >>> make_buckets(row_lengths=[64], rows=[2, 8], response_length=8).shapes[0].slots
    16
    """
    return Buckets(
        tuple(
            sorted(
                Shape(
                    row_length=length,
                    response_length=min(response_length, length),
                    targets=length,
                    slots=max(1, length // shortest_response),
                    rows=count,
                )
                for length in set(row_lengths)
                for count in set(rows)
            )
        )
    )
