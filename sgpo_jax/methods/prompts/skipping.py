"""Shuffled passes that skip prompts by what training has seen of them."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import numpy as np

from sgpo_jax import streams
from sgpo_jax.bounds import TINY, Count, Finite, GroupSize, Range, Share, bounded
from sgpo_jax.methods.prompts.order import shuffled
from sgpo_jax.methods.prompts.pool import (
    Draw,
    History,
    PromptPool,
    State,
)
from sgpo_jax.methods.prompts.shuffled import Passes

_CHUNK = 8192


def take_kept(
    cursor: int,
    keep: Callable[[np.ndarray], np.ndarray],
    count: int,
    *,
    total: int,
    pass_seeds: tuple[int, ...],
    seed: int,
) -> tuple[np.ndarray, int]:
    """Next prompts of the shuffled passes, each kept by chance.

    Looks at every prompt at most once; so it may return fewer than `count`.

    Args:
      cursor: prompts looked at so far.
      keep: of rows [N], the probability with which each is kept, [N].
      count: prompts wanted.
      total: prompts there are.
      pass_seeds: identify the passes; the number of the pass is added.
      seed: of the chances of this step.

    Returns:
      Rows, distinct, and the new cursor.
    """
    rng = streams.generator(seed)
    found: list[np.ndarray] = []
    wanted, looked = count, 0
    while wanted and looked < total:
        epoch, place = divmod(cursor, total)
        stop = place + min(_CHUNK, total - looked)
        rows = shuffled(total, place, stop, seeds=(*pass_seeds, epoch))
        chance = rng.random(len(rows)) < keep(rows)
        if found:  # one pass runs into the next
            chance &= ~np.isin(rows, np.concatenate(found))
        places = np.flatnonzero(chance)[:wanted]
        used = int(places[-1]) + 1 if len(places) == wanted else len(rows)
        found.append(rows[places])
        wanted -= len(places)
        looked, cursor = looked + used, cursor + used
    return np.concatenate(found) if found else np.zeros(0, np.int64), cursor


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class SkipZeroVariance:
    r"""Shuffled passes that mostly skip prompts whose groups had equal rewards: GRESO.

    .. math:: P(\mathrm{keep}) = \max(p_c^{\,n}, p_{min})

    with n the visits in a row whose rewards were all equal, and a base p_c for prompts
    last answered right (mean at least `easy_from`) and one for those answered wrong (at
    most `hard_to`). After each step a base moves by `change` towards the target share
    of its kind among the groups of that step: down if there were more, up if fewer.
    GRESO (arXiv:2506.02177), section 4 and its reference code, whose defaults these
    are.

    Attributes:
      group_size: rollouts per prompt.
      target: share of groups of equal rewards aimed at; a third of it easy ones.
      start: both bases at first.
      change: how much a base moves per step.
      lowest: smallest base.
      highest: largest base.
      floor: smallest probability of keeping a prompt.
      easy_from: mean reward from which on equal rewards are easy.
      hard_to: mean reward up to which equal rewards are hard.
    """

    group_size: GroupSize = 8
    target: Share = 0.25
    start: Share = 0.5
    change: Share = 0.01
    lowest: Annotated[float, Range(TINY, 1)] = 0.05
    highest: Share = 0.95
    floor: Annotated[float, Range(TINY, 1)] = 0.01
    easy_from: Finite = 0.98
    hard_to: Finite = 0.11

    def __post_init__(self):
        if not self.lowest <= self.start <= self.highest:
            raise ValueError(
                "bases need lowest <= start <= highest, got"
                f" {self.lowest}, {self.start} and {self.highest}"
            )

    phased = False

    def init(self, pool: PromptPool) -> State:
        """Return a cursor at zero and both bases at the start."""
        del pool
        return {
            "cursor": np.zeros((), np.int64),
            "base": np.full(2, self.start, np.float64),
            "step": np.zeros((), np.int64),
        }

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Take the next prompts that are kept."""
        del progress
        last = int(pool.history.last_step.max())
        base = state["base"]
        if last > state["step"]:
            base = self._moved(base, pool.history, last)

        def keep(rows: np.ndarray) -> np.ndarray:
            return self.keep(pool.history.of(rows), base)

        rows, cursor = take_kept(
            int(state["cursor"]),
            keep,
            -(-budget // self.group_size),
            total=pool.count,
            pass_seeds=streams.passes(pool.seed),
            seed=seed,
        )
        if not len(rows):  # few prompts, all skipped by chance: the likeliest one
            rows = np.array([int(self.keep(pool.history, base).argmax())])
        after = {
            "cursor": np.asarray(cursor, np.int64),
            "base": base,
            "step": np.asarray(last, np.int64),
        }
        return Draw(rows, np.full(len(rows), self.group_size)), after

    def keep(self, history: History, base: np.ndarray) -> np.ndarray:
        """Probability with which each prompt is kept, [Q]."""
        easy, hard = self._kinds(history)
        power = np.maximum(base[np.where(easy, 0, 1)] ** history.streak, self.floor)
        return np.where(easy | hard, power, 1.0)

    def _kinds(self, history: History) -> tuple[np.ndarray, np.ndarray]:
        equal = history.streak > 0
        return (
            equal & (history.last_mean >= self.easy_from),
            equal & (history.last_mean <= self.hard_to),
        )

    def _moved(self, base: np.ndarray, history: History, last: int) -> np.ndarray:
        seen = np.flatnonzero(history.last_step == last)
        kinds = self._kinds(history.of(seen))
        share = np.array([kind.mean() for kind in kinds])
        target = self.target * np.array([1 / 3, 2 / 3])
        moved = base + np.where(share > target, -self.change, self.change)
        return np.clip(moved, self.lowest, self.highest)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class DropSolved(Passes):
    """Shuffled passes without prompts that were answered right throughout.

    A prompt leaves for good after `after` visits in a row whose mean reward reached
    `solved_from`. The eviction of Pilot-Commit (arXiv:2605.26606).

    Attributes:
      group_size: rollouts per prompt.
      solved_from: mean reward of a visit from which on a prompt counts as solved.
      after: such visits in a row before it is dropped.
    """

    group_size: GroupSize = 8
    solved_from: Finite = 1.0
    after: Count = 1

    def draw(
        self,
        pool: PromptPool,
        state: State,
        *,
        budget: int,
        progress: float,
        seed: int,
    ) -> tuple[Draw, State]:
        """Take the next prompts that are left.

        Raises:
          ValueError: if none is left.
        """
        del progress
        history = pool.history

        def left(rows: np.ndarray) -> np.ndarray:
            solved = history.last_mean[rows] >= self.solved_from
            return ~(solved & (history.streak[rows] >= self.after))

        rows, cursor = take_kept(
            int(state["cursor"]),
            left,
            -(-budget // self.group_size),
            total=pool.count,
            pass_seeds=streams.passes(pool.seed),
            seed=seed,
        )
        if not len(rows):
            raise ValueError(
                f"all {pool.count} prompts were answered right {self.after} times in a"
                " row and are dropped: train fewer steps, give more prompts, or raise"
                " prompts.after"
            )
        return (
            Draw(rows, np.full(len(rows), self.group_size)),
            {"cursor": np.asarray(cursor, np.int64)},
        )
