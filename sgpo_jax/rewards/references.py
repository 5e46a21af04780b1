"""References that a verifier cannot compare with, found before anything is scored."""

import functools
from collections.abc import Mapping, Sequence

from sgpo_jax.data import Query

from .answers import final_answer
from .mathematics import comparable
from .names import BUILT_IN, options, terms
from .numbers import read_reference
from .problems import VerifierError


def check_references(
    queries: Sequence[Query], places: Mapping[str, str] | None = None
) -> None:
    """Refuse queries whose reference their verifier cannot compare with.

    Args:
      queries: what will be scored.
      places: file and row of each, by id; see `data.Loaded`.

    Raises:
      VerifierError: naming the first of them, its reference and the remedy.

    Example:
      >>> asked = Query(id="q1", prompt="roots?", reference="3, 4", verifier="gsm8k")
      >>> check_references([asked], {"q1": "my.jsonl:1"})
      Traceback (most recent call last):
      ...
      sgpo_jax.rewards.problems.VerifierError: my.jsonl:1: reference '3, 4': gsm8k ...
    """
    bad = [
        (query, why)
        for query in queries
        if (why := reference_problem(query.verifier, query.reference)) is not None
    ]
    if bad:
        query, why = bad[0]
        place = (places or {}).get(query.id) or f"query {query.id}"
        others = f" ({len(bad):,} of {len(queries):,} references)"
        raise VerifierError(
            f"{place}: reference {query.reference[:60]!r}: {why}, or correct the"
            f" reference{others if len(bad) > 1 else ''}"
        )


@functools.lru_cache(maxsize=1024)
def _names(verifier: str) -> tuple[str, ...]:
    return tuple(name for _, name in terms(verifier))


def reference_problem(verifier: str, reference: str) -> str | None:
    """Return why a verifier cannot compare a reference; None if it can.

    Known of the built-in verifiers; a function of one's own is tried by `Worker.check`.

    Example:
      >>> reference_problem("gsm8k", "(3, 4)")
      'gsm8k compares single numbers, and this is none: name the verifier math'
      >>> reference_problem("gsm8k", "1,250") is None
      True
    """
    for name in _names(verifier):
        kind, _, rest = name.partition(":")
        if kind in ("gsm8k", "numeric"):
            plain = reference.isascii() and reference.isdigit()
            if not plain and read_reference(reference) is None:
                why = (
                    "compares single numbers, and this is none: name the verifier math"
                )
                return f"{kind} {why}"
        if kind in ("integer", "choice"):
            try:
                BUILT_IN[kind]("", reference, **options(rest))
            except (TypeError, ValueError) as error:
                return f"{kind}: {error}"
        if kind == "exact" and not reference.strip():
            return f"{kind} has nothing to compare with: leave the row out"
        if kind == "math" and not comparable(final_answer(reference)):
            return f"{kind} cannot read its answer: leave the row out"
    return None
