"""Unscorable completions: counted and shown, never taken for zero."""

import collections
import dataclasses

SOLVED = 1.0
"""A completion solves its question if its reward is at least this."""


class VerifierError(ValueError):
    """A verifier does not exist, cannot be imported or has another signature."""


class UnscorableError(RuntimeError):
    """Not a single completion could be scored."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One completion without a reward.

    Attributes:
      kind: none, nan, type, exception, timeout or crash.
      query: id of the query.
      completion: its first 80 characters.
      detail: what happened.
    """

    kind: str
    query: str
    completion: str
    detail: str


@dataclasses.dataclass
class Problems:
    """Unscorable completions, counted, with examples.

    Attributes:
      counts: unscorable completions by kind.
      examples: the first three of each kind.
      scored: completions that have a reward.
    """

    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    examples: list[Problem] = dataclasses.field(default_factory=list)
    scored: int = 0

    def add(self, problem: Problem) -> None:
        """Count a problem and keep it if it is among the first of its kind."""
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= 3:
            self.examples.append(problem)

    def raise_if_nothing_scored(self) -> None:
        """Stop if not a single completion could be scored so far.

        Raises:
          UnscorableError: with the message of the verifier.
        """
        if self.counts and not self.scored:
            first = self.examples[0]
            raise UnscorableError(
                f"none of {self.counts.total()} completions could be scored"
                f" ({', '.join(f'{n} {kind}' for kind, n in self.counts.items())}):"
                f" query {first.query}: {first.detail}. Mend the reward function, or"
                " name another verifier"
            )

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        lines = [f"{count} unscorable: {kind}" for kind, count in self.counts.items()]
        lines += [
            f"  {it.kind}, query {it.query}: {it.detail} on {it.completion!r}"
            for it in self.examples
        ]
        return "\n".join(lines)
