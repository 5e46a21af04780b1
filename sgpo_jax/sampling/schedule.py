"""Scheduling of samples into the decode program, in portions of prompts."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from sgpo_jax.sampling.requests import Request


@dataclasses.dataclass(frozen=True)
class Portion:
    """A range of the samples of one request.

    Attributes:
      request: index into the requests.
      first: ordinal of the first sample among those of the request.
      count: how many.
    """

    request: int
    first: int
    count: int


def portions(
    requests: Sequence[Request],
    order: Sequence[int],
    *,
    lanes: int,
    least: int,
    most: int,
) -> Iterator[Portion]:
    """Cut requests into portions, large ones first.

    A portion is loaded into one lane. Large portions load a prefix seldom; small ones
    leave no lane alone with the rest of the work. So a portion takes at most half of an
    even share of what is left (guided self-scheduling, Polychronopoulos and Kuck 1987).

    Args:
      requests: what was asked.
      order: indices of the requests in the order they should start.
      lanes: lanes of the grid.
      least: fewest samples worth a prefix of a lane.
      most: most portions of one request.

    Yields:
      The portions, in the order they should start.

    >>> three = [Request(key=i, prompt=[1], samples=n) for i, n in enumerate([8, 2, 8])]
    >>> [p.count for p in portions(three, range(3), lanes=2, least=1, most=8)]
    [4, 3, 1, 2, 2, 1, 1, 1, 1, 1, 1]
    """
    left = sum(requests[i].samples for i in order)
    for i in order:
        first = 0
        fewest = max(least, -(-requests[i].samples // most))
        while first < requests[i].samples:
            share = max(fewest, left // (2 * lanes))
            count = min(share, requests[i].samples - first)
            yield Portion(i, first, count)
            first += count
            left -= count


def shares(
    requests: Sequence[Request], order: Sequence[int], shards: int
) -> list[list[int]]:
    """Divide requests among shards: each goes to the one with the fewest samples.

    >>> four = [Request(key=0, prompt=[1], samples=n) for n in (9, 2, 3, 5)]
    >>> shares(four, range(4), 2)
    [[0], [1, 2, 3]]
    """
    result: list[list[int]] = [[] for _ in range(shards)]
    load = [0] * shards
    for i in order:
        least = load.index(min(load))
        result[least].append(i)
        load[least] += requests[i].samples
    return result


def next_stage(portions: Iterable[Portion], capacity: int) -> list[Portion]:
    """Return the first portions, at most `capacity`.

    The portions of a request stay together, so that its prompt is encoded once.
    """
    stage: list[Portion] = []
    for _, group in itertools.groupby(portions, key=lambda portion: portion.request):
        together = list(group)
        if stage and len(stage) + len(together) > capacity:
            break
        stage += together
    return stage


@dataclasses.dataclass
class Backlog:
    """The requests of one shard that wait to be staged.

    Attributes:
      requests: what was asked.
      waiting: indices of those that wait.
      lanes: lanes of the shard.
      least: fewest samples worth a bank of a lane.
      capacity: most portions of a stage.
    """

    requests: Sequence[Request]
    waiting: Int[np.ndarray, " M"]
    lanes: int
    least: int
    capacity: int

    def take(self, rank: Float[np.ndarray, " Q"]) -> list[Portion]:
        """Remove and return the next stage; the lowest rank goes first.

        Requests of no samples leave with the first.
        """
        order = np.sort(self.waiting)
        order = order[np.argsort(rank[order], kind="stable")].tolist()
        cut = portions(
            self.requests,
            order,
            lanes=self.lanes,
            least=self.least,
            most=self.capacity,
        )
        stage = next_stage(cut, self.capacity)
        staged = {portion.request for portion in stage}
        self.waiting = np.array(
            [i for i in order if i not in staged and self.requests[i].samples],
            np.int64,
        )
        return stage


class Written:
    """Rollouts as far as they are sampled, one row each.

    Attributes:
      tokens: token ids, 0 beyond `length`.
      scores: log-probability at the sampling temperature, at temperature 1, and the
        probability mass that was drawn from.
      length: tokens so far.

    >>> written = Written(2, 3)
    >>> written.append(np.array([1, 0, 1]), np.array([7, 8, 9]), np.zeros((3, 3)))
    >>> written.append(np.array([0]), np.array([5]), np.zeros((1, 3)))
    >>> written.tokens, written.length
    (array([[8, 5, 0],
            [7, 9, 0]], dtype=int32), array([2, 2]))
    """

    def __init__(self, rollouts: int, width: int):
        self.tokens = np.zeros((rollouts, width), np.int32)
        self.scores = np.zeros((rollouts, width, 3), np.float32)
        self.length = np.zeros(rollouts, np.int64)

    def append(self, ids: np.ndarray, token: np.ndarray, score: np.ndarray) -> None:
        """Add what the slots wrote, in step order, to the rollouts `ids`."""
        order = np.argsort(ids, kind="stable")
        rows = ids[order]
        count = np.bincount(rows, minlength=len(self.length))
        place = np.arange(len(rows)) - (np.cumsum(count) - count)[rows]
        column = self.length[rows] + place
        self.tokens[rows, column] = token[order]
        self.scores[rows, column] = score[order]
        self.length += count
