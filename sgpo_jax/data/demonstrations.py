"""Noisy demonstrations of procedural questions, to warm a policy up with."""

import dataclasses
import re
import string
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from sgpo_jax import streams

from .families import FAMILIES, LETTERS, TaskFamily
from .procedural import Mixture
from .queries import Prompt, Query, normalize

Errors = Literal["random", "systematic"]


def demonstrate(
    rng: np.random.Generator, query: Query, noise: float, errors: Errors = "random"
) -> str:
    """Answer a question, wrongly with probability `noise`.

    * Random errors: a wrong number has one digit replaced or is off by 1 to 3; a wrong
      word has two neighbours swapped or one symbol replaced. Whether an answer is a
      the family or, for questions from elsewhere, by its form.
    * Systematic errors: the answer of the family's one wrong way, which now and then is
      right; families without one err at random.
    * Chains of steps: every step is wrong with probability `noise`, at random, and the
      the following steps continue from the wrong value.

    Example:
      >>> query = FAMILIES["reversal"].query(np.random.default_rng(0), 2)
      >>> demonstrate(np.random.default_rng(0), query, noise=0.0) == query.reference
      True
      >>> demonstrate(np.random.default_rng(0), query, noise=1.0) == query.reference
      False
      >>> query.prompt, demonstrate(np.random.default_rng(0), query, 1.0, "systematic")
      ('rev(gfe)=', 'gfe')
    """
    family = FAMILIES.get(query.family)
    if family and family.work:

        def slip(value: int) -> int:
            wrong = rng.random() < noise
            return int(_miscalculate(rng, str(value))) if wrong else value

        return family.work(query.prompt, slip)
    if rng.random() >= noise:
        return query.reference
    if errors == "systematic" and family and family.systematic:
        return family.systematic(query.prompt)
    looks_numeric = _NUMBER.fullmatch(query.reference) is not None
    numeric = family.numeric if family else looks_numeric
    return (_miscalculate if numeric else _misspell)(rng, query.reference)


_NUMBER = re.compile("-?[0-9]{1,18}")


def _miscalculate(rng: np.random.Generator, answer: str) -> str:
    if len(answer) > 1 and rng.random() < 0.5:
        return _replace(rng, answer)
    step = int(rng.integers(1, 4)) * (1 if rng.random() < 0.5 else -1)
    value = int(answer)
    # Only a negative answer may have negative neighbours.
    return str(value - step if value >= 0 > value + step else value + step)


def _misspell(rng: np.random.Generator, answer: str) -> str:
    unlike = [i for i in range(len(answer) - 1) if answer[i] != answer[i + 1]]
    if not unlike or rng.random() < 0.5:
        return _replace(rng, answer)
    i = int(rng.choice(unlike))
    return answer[:i] + answer[i + 1] + answer[i] + answer[i + 2 :]


def _replace(rng: np.random.Generator, answer: str) -> str:
    i = int(rng.choice([i for i, symbol in enumerate(answer) if symbol != "-"]))
    alphabet = string.digits if answer[i] in string.digits else LETTERS
    others = alphabet.replace(answer[i], "")
    return answer[:i] + others[int(rng.integers(len(others)))] + answer[i + 1 :]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Noisy answers to warm a policy up with.

    A policy imitating clean answers solves a question always or never. Answers that
    are wrong more often the harder the level leave it a skill hidden in noise, like
    a pre-trained model, so that success rates spread and there is something to gain.

    Attributes:
      noise: probability of a wrong answer at levels 1, 2, ..., or of a wrong step where
        answers are chains of steps; levels past the end are never shown.
      errors: at random, so that the most likely answer is still right, or one wrong way
        per family, so that it is wrong where the noise is above a half.
      excluded_families: families without demonstrations.
    """

    noise: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    errors: Errors = "random"
    excluded_families: tuple[str, ...] = ()

    def over(
        self, pool: Sequence[Query], count: int, *, seed: int
    ) -> tuple[tuple[Prompt, str], ...]:
        """Draw `count` pairs (prompt, noisy answer) from a pool of any source.

        Questions without a level count as level 1. For the embedded mixture prefer
        `make`, whose questions are fresh.

        Raises:
          ValueError: if the pool has no question that may be shown.
        """
        levels = [query.level or 1 for query in pool]
        shown = [
            (query, self.noise[level - 1])
            for query, level in zip(pool, levels, strict=True)
            if 1 <= level <= len(self.noise)
            and query.family not in self.excluded_families
        ]
        if not shown:
            raise ValueError(f"{self} shows none of {len(pool)} questions")
        rng = streams.demonstrations(seed)
        drawn = (shown[i] for i in rng.integers(len(shown), size=count))
        return tuple(
            (q.turns, demonstrate(rng, q, noise, self.errors)) for q, noise in drawn
        )

    def make(
        self,
        mixture: Mixture,
        count: int,
        *,
        seed: int,
        exclude: Collection[Query] = (),
    ) -> tuple[tuple[str, str], ...]:
        """Draw `count` pairs (prompt, noisy answer), fresh questions each time.

        Args:
          mixture: families and levels to draw from, uniformly.
          count: number of pairs; prompts may repeat, with fresh noise.
          seed: of the draws.
          exclude: questions that must not be shown, such as the held-out set.

        Raises:
          ValueError: if the mixture has no family and level that may be shown, or
            `exclude` leaves nothing of one.
        """
        shown = [
            (FAMILIES[name], level)
            for name in mixture.families
            for level in mixture.levels
            if level <= len(self.noise) and name not in self.excluded_families
        ]
        if not shown:
            raise ValueError(f"{self} shows no family and level of {mixture}")
        rng = streams.demonstrations(seed)
        unseen = {normalize(query.prompt) for query in exclude}
        pairs = []
        for _ in range(count):
            family, level = shown[int(rng.integers(len(shown)))]
            query = _outside(rng, family, level, unseen)
            noise = self.noise[level - 1]
            answer = demonstrate(rng, query, noise, self.errors)
            pairs.append((query.prompt, answer))
        return tuple(pairs)


def _outside(
    rng: np.random.Generator, family: TaskFamily, level: int, unseen: Collection[str]
) -> Query:
    for _ in range(1000):
        query = family.query(rng, level)
        if normalize(query.prompt) not in unseen:
            return query
    raise ValueError(f"every question of {family.name} level {level} is excluded")
