"""Interrupted, extended and sharded profiles are the profile measured at once."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from sgpo_jax import data
from sgpo_jax.profiling import Chunks, measure, merge
from tests.profiling.scripted import Bernoulli

QUERIES = tuple(
    data.Query(id=f"{a}+{b}", prompt=f"{a}+{b}=", reference=str(a + b))
    for a in range(5)
    for b in range(4)
)
RATE = {q.id: i / len(QUERIES) for i, q in enumerate(QUERIES)}
SOURCE = {"policy": "p", "seed": 0, "sampling": {"temperature": 1.0}}


def run(folder, queries=QUERIES, samples=8, rollouts=None, **keywords):
    keywords = {"source": SOURCE, "size": 6} | keywords
    chunks = Chunks(
        folder=folder,
        size=keywords.pop("size"),
        completions=keywords.pop("completions", None),
    )
    rollouts = rollouts or Bernoulli(RATE)
    return measure(rollouts, None, queries, samples=samples, chunks=chunks, **keywords)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


def test_sums_are_those_of_the_samples(tmp_path, whole):
    path = tmp_path / "completions.parquet"
    assert run(tmp_path, completions=path) == whole
    table = pq.read_table(path).to_pylist()
    assert len(table) == len(QUERIES) * 8
    assert {row["completion"] for row in table} == {
        f"{q.id}/{s}" for q in QUERIES for s in range(8)
    }
    for row, id_ in enumerate(whole.ids):
        mine = [r for r in table if r["id"] == id_]
        rewards = [r["reward"] for r in mine if r["reward"] is not None]
        assert whole.samples[row] == len(rewards)
        assert whole.unscorable[row] == 8 - len(rewards)
        assert whole.successes[row] == sum(r >= 1 for r in rewards)
        np.testing.assert_allclose(whole.reward_sum[row], sum(rewards), atol=1e-6)
        assert whole.longest[row] == max(r["tokens"] for r in mine)
        assert whole.tokens[row] == sum(r["tokens"] for r in mine)
        assert whole.truncated[row] == sum(r["truncated"] for r in mine)
        assert whole.prompt_tokens[row] == len(
            Bernoulli.tokenizer.encode_prompt(QUERIES[row].prompt)
        )


@pytest.mark.parametrize("killed", [0, 1, 3])
def test_an_interrupted_profile_resumes_and_samples_nothing_twice(
    tmp_path, whole, killed
):
    first, second = Bernoulli(RATE, fail_after=killed), Bernoulli(RATE)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rollouts=first)
    assert run(tmp_path, rollouts=second) == whole
    assert first.samples + second.samples == len(QUERIES) * 8


def test_more_samples_later_are_the_same_as_at_once(tmp_path, whole):
    early = run(tmp_path, samples=3)
    late = run(tmp_path, samples=[range(3, 8)] * len(QUERIES))
    both = early.merge(late)
    assert both == whole
    for name in ("reward_sum", "reward_squares"):
        np.testing.assert_array_equal(getattr(both, name), getattr(whole, name))
    with pytest.raises(ValueError, match="do not follow each other"):
        both.merge(early)
    with pytest.raises(ValueError, match=r"samples 0 to 2 and 4 to 4 of query '0\+0'"):
        early.merge(run(tmp_path, samples=[range(4, 5)] * len(QUERIES)))


def test_shards_by_index_merge_to_the_whole(tmp_path, whole):
    shards = [run(tmp_path, QUERIES[i::3], source={**SOURCE, "data": f"shard {i}"})
              for i in range(3)]  # fmt: skip
    assert merge(shards) == whole
    assert merge(shards[::-1]) == whole


def test_some_queries_get_more_samples(tmp_path):
    ranges = [range(8 if i % 2 else 0) for i in range(len(QUERIES))]
    some = run(tmp_path, samples=ranges)
    assert some.ids == tuple(q.id for q in QUERIES[1::2])
    rest = run(tmp_path, samples=[range(8 - len(r)) for r in ranges])
    assert rest.merge(some) == run(tmp_path)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"policy": "other"}, "policy: 'p' and 'other'"),
        ({"sampling": {"temperature": 0.7}}, r"sampling.temperature: 1.0 and 0.7"),
        ({"verifier": "mine:f"}, "verifier: None and 'mine:f'"),
    ],
)
def test_what_differs_is_named(tmp_path, whole, changed, name):
    other = run(tmp_path, source=SOURCE | changed, samples=[range(8, 9)] * len(QUERIES))
    with pytest.raises(ValueError, match=name):
        whole.merge(other)
    told = name.split(":")[0]
    assert whole.merge(other, ignore=[told]).drawn[0] == 9


def test_a_threshold_counts_partial_rewards(tmp_path, whole):
    some = run(tmp_path, solved_at=0.2)
    assert (some.successes >= whole.successes).all()
    assert some.successes.sum() > whole.successes.sum()
    with pytest.raises(ValueError, match=r"solved_at: 1.0 and 0.2"):
        whole.merge(some)


def test_another_prompt_under_the_same_id_is_refused(tmp_path, whole):
    changed = data.Query(id=QUERIES[0].id, prompt="1+1=", reference="2")
    other = run(tmp_path, [changed], samples=[range(8, 16)])
    with pytest.raises(ValueError, match="another prompt"):
        whole.merge(other)


def test_a_verifier_that_always_fails_is_told_after_the_first_chunk(tmp_path):
    broken = Bernoulli(RATE, unscorable=1.0)
    with pytest.raises(ValueError, match="none of the first 48 samples"):
        run(tmp_path, rollouts=broken)
    assert broken.calls == 1
