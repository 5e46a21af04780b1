"""The scorers of reasoning-gym, as a verifier."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from sgpo_jax.data.reasoning_gym import create, entry_of, marks
from sgpo_jax.data.reasoning_gym import import_package as import_package


def score(
    completion: str,
    reference: str,
    prompt: str,
    *,
    dataset: str,
    config: Mapping[str, Any],
    entry: Mapping[str, Any],
) -> float:
    """Full marks of a family's scorer: 1 if it gives them, else 0.

    Its partial marks go to nonsense too (0.01 for any text in some families), so they
    count as nothing. A completion over which it raises is wrong: that it accepts the
    right answer was tried when the question was drawn.

    Args:
      completion: scored without white space at its ends.
      reference: the answer.
      prompt: the question.
      dataset: name of the family.
      config: of the data set, with size and seed.
      entry: the record of the family.
    """
    data = _create(dataset, json.dumps(config, sort_keys=True))
    whole = {"question": prompt, "answer": reference, "metadata": entry}
    return float(marks(data, completion.strip(), entry_of(dataset, whole)) == 1.0)


@functools.lru_cache(maxsize=64)
def _create(dataset: str, config: str) -> Any:
    return create(dataset, json.loads(config))
