"""Two processes sample a share each; one meeting makes it whole."""

import dataclasses

import jax
import numpy as np
import pytest

from sgpo_jax import data, models, rewards, sampling
from sgpo_jax.hosts import SingleProcess
from sgpo_jax.rollouts import DistributedRollouts, RolloutGenerator
from sgpo_jax.sampling import orders
from tests.rollouts.test_generator import CONFIG, TOKENIZER


@dataclasses.dataclass(frozen=True)
class Keys:
    """An order that remembers how many prompts its engine was given."""

    prompts: list = dataclasses.field(default_factory=list, hash=False)

    def __call__(self, seen: orders.LengthStats) -> np.ndarray:
        if not self.prompts:
            self.prompts.append(len(seen.prompt))
        return np.zeros(len(seen.prompt))


class OtherIsWaiting(Exception):
    """This process has brought its part."""


@dataclasses.dataclass(frozen=True)
class OneOfTwo(SingleProcess):
    """A process that comes to meetings after the other has left its part there."""

    index: int = 0
    count: int = 2
    table: dict = dataclasses.field(default_factory=dict)
    meetings: list = dataclasses.field(default_factory=list)

    def gather(self, work):
        self.meetings.append(self.index)
        self.table[self.index] = work()
        if len(self.table) < 2:
            raise OtherIsWaiting
        return [self.table[0], self.table[1]]


@pytest.fixture
def worker():
    with rewards.Worker() as worker:
        yield worker


def source(order, worker) -> RolloutGenerator:
    engine = sampling.Engine(
        CONFIG,
        lanes=2,
        slots=2,
        max_prompt=4,
        max_response=6,
        stop_tokens=(0,),
        order=order,
    )
    return RolloutGenerator(
        engine=engine,
        config=CONFIG,
        tokenizer=TOKENIZER,
        worker=worker,
        seed=3,
    )


@pytest.mark.slow
def test_two_processes_draw_what_one_draws_and_meet_once(worker):
    params = models.init(CONFIG, key=jax.random.key(0))
    queries = [
        data.Query(id=str(i), prompt=f"{i}+1=", reference=str(i + 1)) for i in range(5)
    ]
    samples = [3, 1, 4, 2, 2]
    whole = source(Keys(), worker)(params, queries, samples, step=2, version=7)
    table, meetings, seen = {}, [], []
    for index in (1, 0):
        order = Keys()
        shared = DistributedRollouts(
            local=source(order, worker),
            hosts=OneOfTwo(index=index, table=table, meetings=meetings),
            place=lambda params: params,
        )
        try:
            merged = shared(params, queries, samples, step=2, version=7)
        except OtherIsWaiting:
            assert index == 1
        seen += order.prompts
    # Every process gave its own lanes a part of the prompts, and all met once.
    assert sum(seen) == 5
    assert min(seen) > 0
    assert meetings == [1, 0]
    for name in ("request", "sample", "tokens", "length", "finish", "version"):
        np.testing.assert_array_equal(
            getattr(merged.rollouts, name), getattr(whole.rollouts, name), err_msg=name
        )
    np.testing.assert_allclose(
        merged.rollouts.log_prob, whole.rollouts.log_prob, rtol=1e-6
    )
    np.testing.assert_array_equal(merged.rewards, whole.rewards)
    assert merged.texts == whole.texts
