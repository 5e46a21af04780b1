"""Held-out sets by content, so that no question is on both sides."""

import collections
import math
from collections.abc import Mapping, Sequence

from .queries import Query, content_ids, normalize
from .source import Loaded


def split(
    queries: Sequence[Query], *, held_out: float | int, seed: int
) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """Split into a training and a held-out set by the content of prompts.

    A hash of `seed` and the normalized prompt puts each question at a place u in
    [0, 1); in every stratum (family, level) the questions with the smallest u are
    held out. Spellings that `normalize` makes equal go together. Order is kept.

    * A share f holds out u < f, so a question stays on its side when the pool grows.
      Strata with at least two questions give at least one to each side; only there
      may the question at the edge change sides.
    * A number k holds out k questions, shared over the strata in proportion to
      their sizes (largest remainder).

    Args:
      queries: the pool.
      held_out: share in (0, 1) or number of questions in [1, distinct questions).
      seed: of the hash.

    Returns:
      The train and the held-out queries.

    Raises:
      ValueError: if nothing would be left on one side.

    Example:
      >>> pool = [Query(id=str(n), prompt=f"{n}+1=", reference="") for n in range(10)]
      >>> train, test = split(pool, held_out=3, seed=0)
      >>> len(train), len(test)
      (7, 3)
    """
    keys = [normalize(query.prompt) for query in queries]
    strata = _strata(queries, keys, seed)
    total = sum(len(places) for places in strata.values())
    whole = isinstance(held_out, int)
    if not (1 <= held_out < total if whole else 0 < held_out < 1):
        allowed = f"a number from 1 to {total - 1}" if whole else "a share in (0, 1)"
        raise ValueError(f"held_out must be {allowed}, got {held_out}")
    if total < 2:
        raise ValueError(f"cannot split {total} distinct questions in two")
    counts = (
        _in_proportion(strata, held_out)
        if isinstance(held_out, int)
        else {key: _below(places, held_out) for key, places in strata.items()}
    )
    chosen = {
        question
        for key, places in strata.items()
        for _, question in places[: counts[key]]
    }
    aside = [key in chosen for key in keys]
    train = tuple(q for q, out in zip(queries, aside, strict=True) if not out)
    return train, tuple(q for q, out in zip(queries, aside, strict=True) if out)


def divide(
    loaded: Loaded, *, held_out: float | int, seed: int
) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """Return a train and a held-out set that share no question.

    A source's own held-out set is taken as it is, and its questions leave the train
    set; without one this is `split`.

    Args:
      loaded: what a source gave.
      held_out: see `split`; 0 holds nothing out, the source's own set neither.
      seed: see `split`.

    Example:
      >>> pool = [Query(id=str(n), prompt=f"{n}+1=", reference="") for n in range(3)]
      >>> own = Loaded(tuple(pool), held_out=(pool[0],))
      >>> [query.prompt for query in divide(own, held_out=0.5, seed=0)[0]]
      ['1+1=', '2+1=']
    """
    if held_out == 0:
        return loaded.queries, ()
    if loaded.held_out is None:
        return split(loaded.queries, held_out=held_out, seed=seed)
    asked = {normalize(query.prompt) for query in loaded.held_out}
    train = [q for q in loaded.queries if normalize(q.prompt) not in asked]
    return tuple(train), loaded.held_out


Stratum = tuple[str, int]
Places = list[tuple[str, str]]
"""Hash and text of questions; hashes of one length have the order of their values."""


def _strata(
    queries: Sequence[Query], keys: Sequence[str], seed: int
) -> dict[Stratum, Places]:
    """Return the distinct questions of each stratum, sorted by their place."""
    home: dict[str, Stratum] = {}
    for query, question in zip(queries, keys, strict=True):
        here = (query.family, -1 if query.level is None else query.level)
        # The smallest stratum, so that the order of the pool does not matter.
        if home.setdefault(question, here) > here:
            home[question] = here
    strata: dict[Stratum, Places] = collections.defaultdict(list)
    places = content_ids(str(seed), home)
    for (question, stratum), place in zip(home.items(), places, strict=True):
        strata[stratum].append((place, question))
    return {key: sorted(places) for key, places in sorted(strata.items())}


def _below(places: Places, share: float) -> int:
    count = sum(int(place, 16) / 16**16 < share for place, _ in places)
    if len(places) < 2:
        return count
    return min(max(count, 1), len(places) - 1)


def _in_proportion(strata: Mapping[Stratum, Places], count: int) -> dict[Stratum, int]:
    total = sum(len(places) for places in strata.values())
    quota = {key: count * len(places) / total for key, places in strata.items()}
    counts = {key: math.floor(value) for key, value in quota.items()}
    by_remainder = sorted(quota, key=lambda key: (counts[key] - quota[key], key))
    for key in by_remainder[: count - sum(counts.values())]:
        counts[key] += 1
    return counts
