"""Queries written whole, with their split: what a saved trainer was given."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from sgpo_jax.bounds import shown

from .queries import Query
from .source import Loaded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """Training and held-out queries as `save_queries` wrote them: no other split.

    Attributes:
      path: the file, JSON lines.
    """

    path: str

    def load(self) -> Loaded:
        """Read the file.

        Raises:
          OSError: if it cannot be read.
          ValueError: naming the line that is no query.
        """
        path, sides = pathlib.Path(self.path).expanduser(), ([], [])
        with path.open() as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    turns = tuple(tuple(turn) for turn in row.pop("messages"))
                    side = sides[bool(row.pop("held_out"))]
                    side.append(Query(**row, messages=turns))
                except (
                    *(ValueError, TypeError, KeyError),
                    *(AttributeError, RecursionError),
                ) as error:
                    raise ValueError(
                        f"{path} line {number} is not a saved query:"
                        f" {shown(error, 200)}"
                    ) from None
        return Loaded(tuple(sides[0]), held_out=tuple(sides[1]))


def save_queries(
    path: pathlib.Path, queries: Sequence[Query], held_out: Sequence[Query] = ()
) -> None:
    """Write queries with all their fields, to be read as `saved:PATH`.

    Raises:
      ValueError: if metadata are not plain JSON.

    Example:
      >>> import tempfile
      >>> query = Query(id="a", prompt="1+1=", reference="2", level=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "queries.jsonl"
      ...     save_queries(path, [query])
      ...     Saved(path=str(path)).load().queries == (query,)
      True
    """
    lines = []
    for side, some in enumerate((queries, held_out)):
        for query in some:
            fields = {
                field.name: getattr(query, field.name)
                for field in dataclasses.fields(Query)
            }
            fields["metadata"] = dict(fields["metadata"])
            try:
                lines.append(json.dumps({**fields, "held_out": bool(side)}) + "\n")
            except TypeError as error:
                raise ValueError(f"query {query.id}: metadata: {error}") from None
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(lines))
    temporary.replace(path)
