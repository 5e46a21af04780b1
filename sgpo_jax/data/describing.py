"""Summary of a loaded source, in three lines."""

import collections
import statistics
from collections.abc import Mapping, Sequence

from .queries import Query
from .source import Loaded

OUTLIER = 10  # times the median prompt


def describe(loaded: Loaded) -> tuple[str, str, str]:
    """Return three lines: questions and repeats, lengths of prompts, what is left out.

    Example:
      >>> query = Query(id="q1", prompt="4+3=", reference="7")
      >>> for line in describe(Loaded((query,), repeats={"same question": 2})):
      ...     print(line)
      1 question, verifier exact; repeats: 2 of the same question
      prompts: median 4 characters, longest 4
      left out: nothing
    """
    return _questions(loaded), _prompts(loaded.queries), _left_out(loaded)


def _questions(loaded: Loaded) -> str:
    verifiers = collections.Counter(query.verifier for query in loaded.queries)
    parts = [f"{len(loaded.queries):,} question{_s(loaded.queries)}"]
    if loaded.held_out is not None:
        parts.append(f"{len(loaded.held_out):,} held out")
    if loaded.reading:
        parts.append(loaded.reading)
    if len(verifiers) <= 3:
        parts.append(f"verifier {', '.join(verifiers)}")
    kinds = loaded.repeats.items()
    repeats = "; ".join(f"{count:,} of the {kind}" for kind, count in kinds if count)
    return f"{', '.join(parts)}; repeats: {repeats or 'none'}"


def _s(things: Sequence) -> str:
    return "" if len(things) == 1 else "s"


def _prompts(queries: Sequence[Query]) -> str:
    if not queries:
        return "prompts: none"
    lengths = [_length(query) for query in queries]
    median = int(statistics.median(lengths))
    longest = max(lengths)
    line = f"prompts: median {median:,} characters, longest {longest:,}"
    beyond = sum(length > OUTLIER * max(median, 1) for length in lengths)
    if beyond:
        query = queries[lengths.index(longest)]
        line += (
            f" (id {query.id}), {beyond:,} beyond {OUTLIER} times the median:"
            " max_chars=N of the source or --split.max-prompt N (tokens) leaves them"
            " out"
        )
    return line


def _length(query: Query) -> int:
    if query.messages:
        return sum(len(content) for _, content in query.messages)
    return len(query.prompt)


def _left_out(loaded: Loaded) -> str:
    total = sum(loaded.left_out.values())
    if not total:
        # Generators report here what they could not make.
        return f"left out: {'; '.join(loaded.problems[:3]) or 'nothing'}"
    kinds = _ranked(loaded.left_out)
    shown = "; ".join(f"{count:,} {kind}" for kind, count in kinds[:5])
    more = f"; {len(kinds) - 5} more reasons" if len(kinds) > 5 else ""
    first = f"; first: {loaded.problems[0]}" if loaded.problems else ""
    return f"left out: {total:,} row{'s' * (total != 1)}: {shown}{more}{first}"


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])
