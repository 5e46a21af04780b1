"""Success in training as a profile: what the rollouts of a run say of each query."""

from collections.abc import Sequence

import numpy as np

from sgpo_jax.data import Query
from sgpo_jax.methods import History
from sgpo_jax.profiling import Profile


def training_profile(
    queries: Sequence[Query], history: History, *, method: str
) -> Profile:
    """Return the counts of a run, under the ids of the profile it began with.

    They mix the policies of all steps. A success is a reward of 1; rewards between 0
    and 1 count in part, rounded per query.

    Args:
      queries: the training queries, in the order of the history.
      history: what training has seen of each.
      method: label of the method.
    """
    total = np.asarray(history.total, np.float64)
    samples = np.asarray(history.rollouts, np.int64)
    return Profile(
        ids=tuple(query.id for query in queries),
        prompts=tuple(query.prompt for query in queries),
        samples=samples,
        successes=np.clip(np.round(total), 0, samples).astype(np.int64),
        reward_sum=total,
        source={"policy": f"training of {method}"},
    )
