"""Shuffled passes over all prompts with a fixed group size."""

import dataclasses

import numpy as np

from sgpo_jax import streams
from sgpo_jax.bounds import GroupSize, bounded
from sgpo_jax.methods.prompts.order import shuffled
from sgpo_jax.methods.prompts.pool import Draw, PromptPool, State


def take(
    cursor: int, sizes: np.ndarray, *, budget: int, seeds: tuple[int, ...]
) -> tuple[np.ndarray, int]:
    """Next items of the shuffled passes until their sizes reach the budget.

    A step never holds one item twice: it ends early instead, where one pass runs into
    the next.

    Args:
      cursor: items taken so far.
      sizes: rollouts of each item, [N].
      budget: rollouts wanted.
      seeds: identify the passes; the number of the pass is added.

    Returns:
      The items, and the new cursor.
    """
    count = len(sizes)
    epoch, place = divmod(cursor, count)
    # A group has at least one rollout.
    order = shuffled(count, place, place + budget, seeds=(*seeds, epoch))
    items, used = _until(order, sizes, budget)
    if used < budget:
        following = shuffled(count, 0, budget - used, seeds=(*seeds, epoch + 1))
        fresh = ~np.isin(following, items)
        end = len(fresh) if fresh.all() else int(np.argmin(fresh))
        more, _ = _until(following[:end], sizes, budget - used)
        items = np.concatenate([items, more])
    return items, cursor + len(items)


def _until(order: np.ndarray, sizes: np.ndarray, budget: int) -> tuple[np.ndarray, int]:
    total = np.cumsum(sizes[order])
    count = min(int(np.searchsorted(total, budget)) + 1, len(total))
    return order[:count], int(total[count - 1]) if count else 0


class Passes:
    """State of a sampler that goes through the prompts in shuffled passes."""

    phased = False

    def init(self, pool: PromptPool) -> State:
        """Return a cursor at zero: prompts looked at so far."""
        del pool
        return {"cursor": np.zeros((), np.int64)}


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Shuffled(Passes):
    """Shuffled passes over all prompts: the data order of GRPO.

    Attributes:
      group_size: rollouts per prompt.
    """

    group_size: GroupSize = 8

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Take the next prompts of the shuffled passes."""
        del progress, seed  # the order depends on the cursor alone
        sizes = np.broadcast_to(np.int64(self.group_size), pool.count)
        rows, cursor = take(
            int(state["cursor"]), sizes, budget=budget, seeds=streams.passes(pool.seed)
        )
        return Draw(rows, sizes[rows]), {"cursor": np.asarray(cursor, np.int64)}
