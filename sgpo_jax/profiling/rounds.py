"""Measuring by a rule: all samples at once, or rounds under a budget."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sgpo_jax.data import Query
from sgpo_jax.profiling.adaptive import Flat, Round, SamplingRule, profile_adaptively
from sgpo_jax.profiling.completions import read_completions, write_completions
from sgpo_jax.profiling.measure import Chunks, measure
from sgpo_jax.profiling.profile import Profile
from sgpo_jax.rollouts.generator import SampleAndScore


def measure_by(
    rule: SamplingRule,
    rollouts: SampleAndScore,
    params: Any,
    queries: Sequence[Query],
    *,
    samples: int,
    chunks: Chunks,
    on_round: Callable[[Round], None] = lambda _: None,
    **options: Any,
) -> Profile:
    """Profile by a rule, with a mean of `samples` per query as its budget.

    Chunks of every round are kept, so that an interrupted profile resumes. The samples
    of a query are the first ones a flat profile would draw.

    Args:
      rule: which queries get more; `Flat` takes `samples` of each.
      rollouts: sampler and verifiers.
      params: the policy; None where the sampler has it.
      queries: what to profile.
      samples: mean number of samples per query.
      chunks: where finished parts are kept.
      on_round: told of each round before it is paid for.
      **options: source, on_chunk and solved_at, as of `measure`.
    """
    if isinstance(rule, Flat):
        return measure(
            rollouts, params, queries, samples=samples, chunks=chunks, **options
        )
    kept = chunks.completions
    texts = []

    def draw(ranges: Sequence[range]) -> Profile:
        path = kept and kept.with_name(f".{kept.name}.{len(texts)}")
        texts.append(path)
        part = dataclasses.replace(chunks, completions=path)
        return measure(
            rollouts, params, queries, samples=ranges, chunks=part, **options
        )

    ids = tuple(query.id for query in queries)
    found = profile_adaptively(
        draw, ids, rule=rule, budget=samples * len(queries), on_round=on_round
    )
    if kept is not None:
        chunks.hosts.on_main_process(lambda: _join([p for p in texts if p], kept))
    return found


def _join(paths: Sequence[Any], target: Any) -> None:
    """Write the completions of all rounds as one file."""
    write_completions((read_completions(path) for path in paths), target)
    for path in paths:
        path.unlink()
