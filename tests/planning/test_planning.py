import itertools

import numpy as np
import pytest

from sgpo_jax import planning
from sgpo_jax.profiling import Posterior, Profile


def make_profile(successes, samples=8):
    successes = np.asarray(successes)
    zeros = np.zeros_like(successes)
    return Profile(
        ids=tuple(f"q{i:03d}" for i in range(len(successes))),
        samples=np.broadcast_to(samples, successes.shape).copy(),
        successes=successes,
        unscorable=zeros,
        tokens=zeros,
        truncated=zeros,
        source={"policy": "x"},
    )


EVERY_COUNT = make_profile(np.repeat(np.arange(9), 20))
BELIEF = Posterior.of(EVERY_COUNT)
FILTERS = [
    *planning.FILTERS.values(),
    planning.DropTrivial(unsolved_share=0.5, trivial_share=0.3),
]
ALLOCATORS = [
    *planning.ALLOCATORS.values(),
    planning.InverseSuccess(estimate="mean"),
    planning.Knapsack(mean=3.7, minimum=1),
    planning.HitMaximizing(mean=5.0, maximum=9),
]
CURRICULA = list(planning.CURRICULA.values())
ORDER = np.random.default_rng(0).permutation(len(EVERY_COUNT))


@pytest.mark.parametrize("filter", FILTERS)
def test_filters(filter):
    """Deterministic; a permutation of the rows permutes the result."""
    kept = filter(BELIEF, rng=np.random.default_rng(3))
    assert kept.dtype == bool
    assert kept.shape == (len(BELIEF),)
    again = filter(BELIEF.rows(ORDER), rng=np.random.default_rng(3))
    np.testing.assert_array_equal(again, kept[ORDER])


@pytest.mark.parametrize("allocate", ALLOCATORS)
def test_allocators(allocate):
    """Whole, at least 1, within bounds, permutation-equivariant; budgets are spent."""
    sizes = allocate(BELIEF)
    assert sizes.dtype == np.int64
    assert sizes.min() >= getattr(allocate, "minimum", 1)
    assert sizes.max() <= getattr(allocate, "maximum", 16)
    np.testing.assert_array_equal(allocate(BELIEF.rows(ORDER)), sizes[ORDER])
    np.testing.assert_array_equal(allocate(BELIEF), sizes)
    if hasattr(allocate, "budget"):
        assert sizes.sum() == allocate.budget(len(BELIEF))


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_curricula(curriculum):
    """Every row has a phase; without replay only unsolved ones have several."""
    sizes = planning.InverseSuccess()(BELIEF)
    phases = curriculum(BELIEF, sizes)
    rows, counts = np.unique(np.concatenate(phases), return_counts=True)
    np.testing.assert_array_equal(rows, np.arange(len(EVERY_COUNT)))
    assert all(len(set(phase.tolist())) == len(phase) > 0 for phase in phases)
    if not getattr(curriculum, "replay", 0):
        assert (EVERY_COUNT.successes[rows[counts > 1]] == 0).all()
    shuffled = curriculum(BELIEF.rows(ORDER), sizes[ORDER])
    for phase, again in zip(phases, shuffled, strict=True):
        assert set(ORDER[again].tolist()) == set(phase.tolist())


def test_the_rule_of_sgpo_by_hand():
    """arXiv:2606.08854: buckets, the trivial cut and a tenth of the unsolved."""
    plan = planning.make_plan(EVERY_COUNT, seed=0)
    # k = 1 -> 8; 2 -> 4; 3..6 -> 2; 7, 8 trivial; 2 of 20 unsolved in every phase.
    assert [(len(p.ids), set(p.sizes)) for p in plan.phases] == [
        (82, {2}),
        (22, {4}),
        (22, {8}),
    ]
    assert plan.trivial == 40
    assert plan.unsolved == 20
    unsolved = {f"q{i:03d}" for i in range(20)}
    kept = [set(phase.ids) & unsolved for phase in plan.phases]
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 2


def test_published_profiles_give_the_expected_rollouts():
    """Counts per bucket of two profiles a re-implementation published."""
    for counts, expected in (
        # (G2, G4, G8, unsolved): rollouts of a pass; the unsolved tenth in each phase.
        ((3564, 1499, 2517, 9544), 46_622),
        ((227, 288, 326, 159), 4_437),
    ):
        g2, g4, g8, unsolved = counts
        successes = np.repeat([4, 2, 1, 0], [g2, g4, g8, unsolved])
        plan = planning.make_plan(make_profile(successes), seed=0)
        tenth = unsolved / 10
        rollouts = sum(phase.rollouts for phase in plan.phases)
        # Rounded up to whole queries in each phase.
        assert abs(rollouts - expected) <= 14 * (np.ceil(tenth) - tenth) + 1


def test_a_plan_survives_a_file(tmp_path):
    plan = planning.make_plan(EVERY_COUNT, seed=1)
    plan.save(tmp_path / "plan.json")
    again = planning.Plan.load(tmp_path / "plan.json")
    assert again == plan
    assert again.hash == plan.hash
    assert planning.make_plan(EVERY_COUNT, seed=2).hash != plan.hash
    (tmp_path / "junk.json").write_text('{"phases": 3}')
    with pytest.raises(ValueError, match="is not a plan"):
        planning.Plan.load(tmp_path / "junk.json")


def test_a_plan_without_queries_says_why():
    with pytest.raises(ValueError, match="keeps none of 3 queries"):
        planning.make_plan(make_profile([8, 8, 8]), seed=0)
    with pytest.raises(ValueError, match="the policy solved none of them in 24"):
        planning.make_plan(
            make_profile([0, 0, 0]),
            filter=planning.DropTrivial(unsolved_share=0.0),
        )
    with pytest.raises(ValueError, match="not one sample could be scored"):
        planning.make_plan(make_profile([0], 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: planning.Fixed(size=0), "from 1 to 4096, got 0"),
        (lambda: planning.InverseSuccess(minimum=4, maximum=2), "minimum <= maximum"),
        (lambda: planning.DropTrivial(trivial_above=1.5), "from 0 to 1, got 1.5"),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_filters_allocators_and_curricula_combine():
    """Every pair of a filter and an allocator, and of these each with a curriculum."""
    pairs = itertools.product(FILTERS, ALLOCATORS)
    for (filter, allocate), curriculum in zip(
        pairs, itertools.cycle(CURRICULA), strict=False
    ):
        plan = planning.make_plan(
            EVERY_COUNT,
            seed=0,
            filter=filter,
            allocate=allocate,
            curriculum=curriculum,
        )
        assert all(len(p.ids) == len(p.sizes) for p in plan.phases)
        assert all(0 <= p.dead <= 1 for p in plan.phases)
