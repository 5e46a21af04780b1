"""The profile: how often the initial policy solves each query."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax import theory

_METADATA, _CHECKSUM = b"sgpo_jax", b"sgpo_jax.fingerprint"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """One row per query; counts, so that profiles of the same policy add up.

    Attributes:
      ids: query ids, distinct.
      samples: scored samples n.
      successes: samples whose reward reached the threshold, k.
      unscorable: samples that gave no reward; they are not among `samples`.
      tokens: response tokens over all samples, scored or not.
      truncated: samples cut by the token budget.
      source: what was profiled (policy, seed, temperature, ...), as plain JSON.
    """

    ids: tuple[str, ...]
    samples: Any
    successes: Any
    unscorable: Any
    tokens: Any
    truncated: Any
    source: dict[str, object] = dataclasses.field(default_factory=dict)

    COUNTS: ClassVar = ("samples", "successes", "unscorable", "tokens", "truncated")

    def __post_init__(self):
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("a profile must not name a query twice")
        for name in self.COUNTS:
            column = np.asarray(getattr(self, name), np.int64)
            if column.shape != (len(self.ids),) or (column < 0).any():
                raise ValueError(f"{name} must hold one count >= 0 per query")
            object.__setattr__(self, name, column)
        if (self.successes > self.samples).any():
            raise ValueError("a query has more successes than samples")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def success_rate(self) -> np.ndarray:
        """Estimate k / n per query; NaN where nothing could be scored."""
        with np.errstate(invalid="ignore"):
            return np.where(self.samples > 0, self.successes / self.samples, np.nan)

    @property
    def mean_length(self) -> dict[str, float]:
        """Mean response length by query id, of the queries that were sampled."""
        drawn = self.samples + self.unscorable
        return {
            id_: float(tokens / count)
            for id_, tokens, count in zip(self.ids, self.tokens, drawn, strict=True)
            if count
        }

    def posterior(self, prior: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each query's Beta posterior.

        See `theory.posterior_mean`. With n = 8 and Jeffreys' prior, a query never
        solved has mean 0.056 rather than 0: eight failures do not prove that it is
        unsolvable.

        >>> one = Profile(ids=("q",), samples=[8], successes=[0], unscorable=[0],
        ...               tokens=[24], truncated=[0])
        >>> float(one.posterior()[0].round(3)[0])
        0.056
        """
        return (
            theory.posterior_mean(self.successes, self.samples, prior=prior),
            theory.posterior_std(self.successes, self.samples, prior=prior),
        )

    def merge(self, other: "Profile") -> "Profile":
        """Add the counts of further samples, or of further queries.

        Raises:
          ValueError: if the two come from different sources.
        """
        if self.source != other.source:
            raise ValueError(
                f"profiles of different sources do not add up: {self.source} and"
                f" {other.source}"
            )
        ids = tuple(dict.fromkeys([*self.ids, *other.ids]))
        place = {id_: i for i, id_ in enumerate(ids)}
        columns = {}
        for name in self.COUNTS:
            column = np.zeros(len(ids), np.int64)
            for part in (self, other):
                column[[place[id_] for id_ in part.ids]] += getattr(part, name)
            columns[name] = column
        return Profile(ids=ids, source=self.source, **columns)

    def select(self, ids: Sequence[str]) -> "Profile":
        """Return the rows of `ids`, in that order; KeyError if one is missing."""
        place = {id_: i for i, id_ in enumerate(self.ids)}
        rows = [place[id_] for id_ in ids]
        columns = {name: getattr(self, name)[rows] for name in self.COUNTS}
        return Profile(ids=tuple(ids), source=self.source, **columns)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that identify the content."""
        digest = hashlib.sha256(json.dumps(self.source, sort_keys=True).encode())
        digest.update(json.dumps(self.ids).encode())
        for name in self.COUNTS:
            digest.update(getattr(self, name).astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: pathlib.Path) -> None:
        """Write a Parquet file; whole or not at all."""
        columns = {name: getattr(self, name) for name in self.COUNTS}
        table = pa.table({"id": list(self.ids), **columns})
        source = json.dumps(self.source, sort_keys=True).encode()
        notes = {_METADATA: source, _CHECKSUM: self.fingerprint().encode()}
        table = table.replace_schema_metadata(notes)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        pq.write_table(table, temporary)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Profile":
        """Read a profile.

        Raises:
          ValueError: if the file is not a profile, or not as it was written.
        """
        try:
            table = pq.read_table(path)
            columns = {
                name: table.column(name).to_numpy(zero_copy_only=False)
                for name in cls.COUNTS
            }
            ids = tuple(table.column("id").to_pylist())
        except FileNotFoundError:
            raise
        # pyarrow reports some damages as OSError.
        except (pa.ArrowException, KeyError, OSError) as error:
            raise ValueError(f"{path} is not a profile: {error}") from error
        notes = table.schema.metadata or {}
        source = json.loads(notes.get(_METADATA, b"{}"))
        found = cls(ids=ids, source=source, **columns)
        if notes.get(_CHECKSUM) != found.fingerprint().encode():
            raise ValueError(f"{path} is not a profile as it was written (checksum)")
        return found
