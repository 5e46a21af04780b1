import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import models, sampling
from sgpo_jax.sampling import schedule

COUNTS = st.lists(st.integers(0, 70), max_size=12)


def make_requests(counts):
    return [
        sampling.Request(key=i, prompt=[1], samples=n) for i, n in enumerate(counts)
    ]


@given(COUNTS, st.integers(1, 5), st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=60)
def test_portions_cover_every_sample_once(counts, lanes, least, most):
    requests = make_requests(counts)
    portions = schedule.portions(
        requests, range(len(counts)), lanes=lanes, least=least, most=most
    )
    found = [(p.request, p.first + i) for p in portions for i in range(p.count)]
    assert found == [(i, j) for i, n in enumerate(counts) for j in range(n)]


@given(COUNTS, st.integers(1, 5), st.integers(1, 9), st.randoms())
@settings(max_examples=60)
def test_a_backlog_stages_every_sample_once_whatever_the_ranks(
    counts, lanes, most, random
):
    waiting = np.arange(len(counts))
    backlog = schedule.Backlog(
        make_requests(counts), waiting, lanes=lanes, least=1, capacity=most
    )
    found, places = [], []
    while len(backlog.waiting):
        rank = np.array([random.choice([0.0, 1.0, np.inf]) for _ in counts])
        lowest = min((rank[i] for i in backlog.waiting if counts[i]), default=None)
        stage = backlog.take(rank)
        assert len(stage) <= most
        places.append({p.request for p in stage})
        found += [(p.request, p.first + i) for p in stage for i in range(p.count)]
        assert not stage or rank[stage[0].request] == lowest
        # Nothing to do is not waited for.
        assert all(counts[i] for i in backlog.waiting)
    assert sorted(found) == [(i, j) for i, n in enumerate(counts) for j in range(n)]
    # The portions of a request lie in one stage, so its prompt is encoded once.
    assert sum(map(len, places)) == len(set().union(*places))


@given(COUNTS, st.integers(1, 5))
@settings(max_examples=60)
def test_shares_are_balanced(counts, shards):
    requests = make_requests(counts)
    shares = schedule.shares(requests, range(len(counts)), shards)
    assert sorted(i for share in shares for i in share) == list(range(len(counts)))
    load = [sum(counts[i] for i in share) for share in shares]
    assert max(load) - min(load) <= max(counts, default=0)


def heavy_tailed(rng, n, longest):
    """Budgets with a mean of about a quarter of the longest."""
    return np.clip(np.round(rng.lognormal(2.3, 0.9, n)), 1, longest).astype(int)


def test_decode_steps_are_near_the_lower_bound(rng):
    """Slots never idle: steps within 10 % of tokens / slots, for ragged lengths."""
    config = models.DecoderConfig(
        vocab_size=5, num_layers=1, embed_dim=4, mlp_dim=4, num_heads=1,
        num_kv_heads=1, head_dim=2,
    )  # fmt: skip
    longest, slots = 64, 16
    budgets = heavy_tailed(rng, 900, longest)
    assert 0.2 < budgets.mean() / longest < 0.3
    engine = sampling.Engine(
        config,
        lanes=4,
        slots=4,
        prefixes_per_lane=4,
        max_prompt=2,
        max_response=longest,
        stop_tokens=(),
        cache_dtype="bfloat16",
    )
    params = models.init(config, key=jax.random.key(0))

    def steps(expected):
        requests = [
            sampling.Request(
                key=i,
                prompt=[1],
                samples=1,
                budget=int(budget),
                expected_length=float(budget) if expected else 1.0,
            )
            for i, budget in enumerate(budgets)
        ]
        rollouts = engine.sample(params, requests, seed=0, step=0)
        np.testing.assert_array_equal(rollouts.length, budgets)
        return rollouts.stats.decode_steps

    bound = budgets.sum() / slots
    # Sixteen at a time, each batch as long as its longest.
    static = np.resize(budgets, (57, slots)).max(axis=1).sum()
    unsorted, longest_first = steps(False), steps(True)
    assert bound <= longest_first <= 1.05 * bound
    assert longest_first < unsorted <= 1.1 * bound
    assert static >= 2 * unsorted
