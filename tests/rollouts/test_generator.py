"""What a source of rollouts hands to the sampler, and what it hears from it."""

import dataclasses
import time

import jax
import numpy as np
import pytest

from sgpo_jax import data, models, rewards, sampling
from sgpo_jax.rollouts import RolloutGenerator
from sgpo_jax.sampling import orders

TOKENIZER = models.CharTokenizer("0123456789+=")
CONFIG = models.DecoderConfig(
    vocab_size=TOKENIZER.vocab_size, num_layers=1, embed_dim=8, mlp_dim=8, num_heads=2,
    num_kv_heads=1, head_dim=4,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Recording:
    """An order that remembers what it was told."""

    told: list = dataclasses.field(default_factory=list, hash=False)

    def __call__(self, seen: orders.LengthStats) -> np.ndarray:
        self.told.append(seen.expected)
        return np.zeros(len(seen.prompt))


def tiny(**settings) -> sampling.Engine:
    return sampling.Engine(
        CONFIG, lanes=2, slots=2, max_prompt=4, max_response=6, stop_tokens=(0,),
        steps=2, **settings,
    )  # fmt: skip


@pytest.fixture
def worker():
    with rewards.Worker() as worker:
        yield worker


def test_lengths_and_thinking_reach_the_sampler_and_progress_comes_back(
    worker, monkeypatch
):
    order = Recording()
    engine = tiny(end_of_thinking=(3, 4), order=order)
    seen, polls, sent = [], [], []
    send = rewards.RewardBatch.send
    monkeypatch.setattr(
        rewards.RewardBatch, "send", lambda b: (sent.append(len(seen)), send(b))[1]
    )
    source = RolloutGenerator(
        engine=engine,
        config=CONFIG,
        tokenizer=TOKENIZER,
        worker=worker,
        seed=0,
    ).replace(
        thinking=1,
        expected={"b": 4.5},
        watch=seen.append,
        poll=lambda: polls.append(len(seen)),
    )
    queries = [
        data.Query(id="a", prompt="1+1=", reference="2"),
        data.Query(id="b", prompt="2+1=", reference="3"),
    ]
    params = models.init(CONFIG, key=jax.random.key(0))
    scored = source(params, queries, [3, 2], step=0)
    np.testing.assert_array_equal(order.told[0], [np.nan, 4.5])
    # The second token is forced, unless the first has ended the response or thinking.
    forced = (scored.rollouts.support_mass == 0) & (
        np.arange(6) < scored.rollouts.length[:, None]
    )
    assert forced[:, 1].any()
    assert seen[-1].ended == seen[-1].total == 5
    # The first completions are with the scorers while others are sampled.
    assert sent[0] < len(seen) - 1 and len(sent) > 1
    # Asked before the first run of the program, before each word, and at the end.
    assert polls == [0, *range(len(seen)), len(seen)]


MARKING = """
import pathlib, time, uuid

def mark(completion, reference):
    time.sleep(0.1)
    (pathlib.Path(reference) / uuid.uuid4().hex).touch()
    return 1.0
"""


@pytest.mark.slow
def test_slow_verifiers_hide_behind_sampling(tmp_path):
    """All that has ended is scored before the sampler goes on, which here waits."""
    (tmp_path / "my_reward.py").write_text(MARKING)
    marks = tmp_path / "marks"
    marks.mkdir()
    engine = tiny()
    in_time = []

    def wait(now):
        due = time.monotonic() + 30.0
        while len(list(marks.iterdir())) < now.ended and time.monotonic() < due:
            time.sleep(0.01)
        in_time.append(len(list(marks.iterdir())) == now.ended)

    query = data.Query(
        id="a",
        prompt="1+1=",
        reference=str(marks),
        verifier=f"{tmp_path}/my_reward.py:mark",
    )
    params = models.init(CONFIG, key=jax.random.key(0))
    with rewards.Worker(workers=1) as worker:
        source = RolloutGenerator(
            engine=engine,
            config=CONFIG,
            tokenizer=TOKENIZER,
            worker=worker,
            seed=0,
            watch=wait,
        )
        scored = source(params, [query], [16], step=0)
    assert len(in_time) > 4 and all(in_time)
    assert scored.rewards.sum() == 16
    # What `time/score` reports; all 16 take 1.6 s.
    assert scored.scoring_seconds < 0.8
