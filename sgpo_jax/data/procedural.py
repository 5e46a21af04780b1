"""Procedural questions as a source: families and levels in equal shares."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from sgpo_jax import streams

from .families import FAMILIES, LEVELS, SHORT, TaskFamily
from .queries import Query
from .source import Loaded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """Families and levels in equal shares.

    Attributes:
      families: names, keys of `FAMILIES`; by default those with short answers.
      levels: difficulties, from 1 to 5.
      count: distinct questions of each family and level.
    """

    families: tuple[str, ...] = tuple(family.name for family in SHORT)
    levels: tuple[int, ...] = LEVELS
    count: int = 40

    def __post_init__(self):
        for name in self.families:
            if name not in FAMILIES:
                raise ValueError(
                    f"unknown family {name!r}; known: {', '.join(FAMILIES)}"
                )
        if not self.families or not self.levels or not set(self.levels) <= set(LEVELS):
            raise ValueError(
                f"families and levels must not be empty and levels lie in 1 to 5, "
                f"got {self.families} and {self.levels}"
            )
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")

    def make(self, seed: int) -> tuple[Query, ...]:
        """Draw the questions; all prompts differ.

        Every family and level has its own stream, so adding one leaves the others as
        they were. A space smaller than `count` (there are 100 additions of one digit)
        gives what it has; `Procedural.load` names it.

        Example:
          >>> pool = Mixture(families=("addition", "gcd"), levels=(1, 2)).make(seed=0)
          >>> len(pool), len({query.prompt for query in pool})
          (160, 160)
        """
        found: dict[str, Query] = {}
        for name in self.families:
            for level in self.levels:
                rng = streams.questions(seed, name, level)
                drawn = _distinct(rng, FAMILIES[name], level, self.count)
                found.update({query.id: query for query in drawn})
        return tuple(found.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Procedural:
    """The mixture as a source.

    Attributes:
      mixture: families, levels and counts.
      seed: of the draws.
    """

    mixture: Mixture = Mixture()
    seed: int = 0

    def load(self) -> Loaded:
        """Draw the questions; the problems name the spaces smaller than the count."""
        queries = self.mixture.make(self.seed)
        drawn = collections.Counter((q.family, q.level) for q in queries)
        problems = tuple(
            f"{family} level {level} has only {count} distinct questions "
            f"of {self.mixture.count} asked"
            for (family, level), count in drawn.items()
            if count < self.mixture.count
        )
        return Loaded(queries, problems=problems)


def _distinct(
    rng: np.random.Generator, family: TaskFamily, level: int, count: int
) -> Sequence[Query]:
    """Draw until `count` are found or 1,000 draws in a row bring nothing new."""
    found: dict[str, Query] = {}
    misses = 0
    while len(found) < count and misses < 1000:
        query = family.query(rng, level)
        misses = misses + 1 if query.id in found else 0
        found.setdefault(query.id, query)
    return tuple(found.values())
