"""Predictions against simulated training, the ledger of the theory, and by hand."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from sgpo_jax import ledger, models, planning, theory
from sgpo_jax.planning import figures
from sgpo_jax.profiling import Posterior, Profile


def published(g2, g4, g8, unsolved, trivial=0):
    successes = np.repeat([4, 2, 1, 0, 8], [g2, g4, g8, unsolved, trivial])
    return Profile(
        ids=tuple(f"q{i}" for i in range(len(successes))),
        samples=np.full(len(successes), 8),
        successes=successes,
    )


@pytest.mark.parametrize(
    ("counts", "group", "ratios"),
    [
        ((3564, 1499, 2517, 9544, 746), 16, (3.80, 4.69, 5.09, 5.46)),
        ((3564, 1499, 2517, 9544, 746), 8, (1.90, 2.35, 2.55, 2.73)),
        ((227, 288, 326, 159), 16, (2.65, 3.06, 3.22, 3.36)),
        ((227, 288, 326, 159), 8, (1.33, 1.53, 1.61, 1.68)),
    ],
)
def test_published_profiles_give_the_ledgers_ratios(counts, group, ratios):
    """Training on every group, 4 rollout units each, as the ledger counts."""
    profile = published(*counts)
    plan = planning.make_plan(profile)
    for passes, ratio in zip((1, 2, 3, 5), ratios, strict=True):
        found = planning.predict(
            plan,
            profile,
            setting=planning.Setting(passes=float(passes), drop_dead=False),
            against=planning.Baseline(group=group),
        )
        assert abs(found.saving - ratio) < 0.011
        assert found.baseline_units == len(profile) * group * passes * 5
    expected = 46_622 if len(profile) > 5000 else 4_437
    assert abs(found.rollouts - expected) <= 14


def test_the_dead_share_is_what_simulation_finds():
    rng = np.random.default_rng(0)
    rate = np.where(rng.random(4000) < 0.3, 0.0, rng.beta(1, 1, 4000))
    profile = Profile(
        ids=tuple(f"q{i}" for i in range(4000)),
        samples=np.full(4000, 8),
        successes=rng.binomial(8, rate),
    )
    plan = planning.make_plan(profile)
    for phase in plan.phases:
        mine = rate[[profile.place[id_] for id_ in phase.ids]]
        solved = rng.binomial(np.array(phase.sizes), mine)
        dead = (solved == 0) | (solved == phase.sizes)
        # Three standard errors of the share.
        bound = 3 * np.sqrt(0.25 / len(phase.ids))
        assert abs(dead.mean() - phase.dead) < bound


MODEL = models.DecoderConfig(
    vocab_size=11, num_layers=2, embed_dim=8, num_heads=2, num_kv_heads=1, head_dim=4,
    mlp_dim=16,
)  # fmt: skip


def test_operations_are_the_ledgers():
    """Equal lengths: the sum over groups by the ledger's own formulas."""
    profile = Profile(
        ids=("a", "b"), samples=[4, 4], successes=[2, 2], tokens=[24, 24],
        prompt_tokens=[5, 5], longest=[6, 6],
    )  # fmt: skip
    plan = planning.make_plan(
        profile, allocate=planning.Fixed(size=3), curriculum=planning.Mixed()
    )
    setting = planning.Setting(model=MODEL, drop_dead=False, passes=2.0, rollouts=2)
    (cost,) = planning.predict(plan, profile, setting=setting).phases
    lengths = [6, 6, 6]
    forward = ledger.forward_flops(
        MODEL, tokens=5 + 15, pairs=ledger.sample_pairs(5, lengths), logits=18
    )
    backward = ledger.training_flops(
        MODEL, tokens=5 + 18, pairs=ledger.packed_pairs(5, lengths), logits=18
    )
    assert cost.flops == pytest.approx(2 * 2 * (forward + backward))
    assert cost.steps == 6
    assert cost.tokens == 2 * 36
    assert cost.memory > ledger.matmul_parameters(MODEL) * 16
    dropped = dataclasses.replace(setting, drop_dead=True)
    (less,) = planning.predict(plan, profile, setting=dropped).phases
    assert less.flops < cost.flops


def test_a_plan_keeps_its_prediction_until_it_is_edited(tmp_path):
    profile = published(20, 10, 10, 10)
    plan = planning.make_plan(profile)
    whole = planning.with_prediction(plan, planning.predict(plan, profile))
    assert whole.hash == plan.hash
    path = tmp_path / "plan.json"
    whole.save(path)
    again = planning.Plan.load(path)
    assert again == whole
    found = planning.Prediction.from_json(again.prediction)
    assert found == planning.predict(plan, profile)
    assert "times less than grpo,group=8" in str(again)
    path.write_text(
        path.read_text().replace('"sizes": [\n    2,', '"sizes": [\n    4,')
    )
    assert planning.Plan.load(path).prediction is None
    assert plan.plot().get_xlabel() == "phase"
    assert len(plan.to_arrow()) == sum(len(p.ids) for p in plan.phases)


def test_figures_have_room_for_their_legend():
    """Above the highest bar, also where it is of the smallest groups."""
    known = Profile(ids=tuple("abcde"), samples=[8] * 5, successes=[4, 4, 4, 4, 1])
    plan = planning.make_plan(known)
    first, second = plan.phases
    assert first.rollouts == second.rollouts == 8
    assert plan.plot().get_ylim()[1] > 1.15 * 8
    axes = Figure().subplots()
    figures.plot_sizes(known, plan, axes)
    assert axes.get_ylim()[1] > 1.15 * 4


def test_comparison_of_all_allocators():
    profile = published(60, 40, 40, 60, 20)
    found = planning.compare(profile)
    assert [row.name for row in found.rows] == list(planning.ALLOCATORS)
    by_name = {row.name: row for row in found.rows}
    assert by_name["fixed"].rollouts == by_name["knapsack"].rollouts
    # Each is best at what it maximizes, among those that spend the same.
    equal = [by_name[name] for name in ("fixed", "knapsack", "neyman", "vip", "hora")]
    assert max(equal, key=lambda row: row.hits).name == "hora"
    belief = Posterior.of(profile)
    plan = planning.make_plan(
        belief, allocate=planning.Fixed(), curriculum=planning.Mixed()
    )
    (phase,) = plan.phases
    mine = belief.rows(np.array([profile.place[i] for i in phase.ids]))
    hits = mine.expect(lambda p: theory.probability_any_success(p, 8))[mine.index].sum()
    assert by_name["fixed"].hits == pytest.approx(hits)
    assert "hora" in str(found)
    assert found.to_arrow().num_rows == len(planning.ALLOCATORS)
    assert found.plot().get_ylabel() == "group size"


@pytest.mark.parametrize("text", ["ppo", "grpo,size=3", "grpo,group=0", "grpo,group=x"])
def test_an_unknown_baseline_is_refused(text):
    with pytest.raises(ValueError, match="a baseline"):
        planning.Baseline.parse(text)
    assert planning.Baseline.parse("grpo_nonzero,group=16").drop_dead


def test_impossible_settings_are_refused():
    for bad in ({"rollouts": 0}, {"passes": float("nan")}, {"training": float("inf")}):
        with pytest.raises(ValueError, match="must be"):
            planning.Setting(**bad)


def learnable_and_not(learnable, unsolved, trivial=0, **columns):
    """Profile of 16 samples: half right, never right, always right."""
    successes = np.repeat([8, 0, 16], [learnable, unsolved, trivial])
    count = len(successes)
    return Profile(
        ids=tuple(f"q{i}" for i in range(count)),
        samples=np.full(count, 16),
        successes=successes,
        **columns,
    )


def test_a_profile_pays_after_the_visits_of_the_theory():
    """Prompts twice as long as responses; half of the pool left out."""
    profile = learnable_and_not(
        200, 150, 50, tokens=[16 * 5] * 400, prompt_tokens=[10] * 400
    )
    belief = Posterior.of(profile)
    plan = planning.make_plan(belief, filter=planning.DropTrivial(unsolved_share=0.0))
    found = planning.pays_after(plan, belief)
    q, kept = (
        1 - belief.rows(np.arange(n)).dead(np.full(n, 8)).mean() for n in (400, 200)
    )
    per_visit, price = (2 + 8), (2 + 16)
    expected = price / per_visit / (1 - q / kept)
    np.testing.assert_allclose(found["grpo_nonzero"], expected, rtol=1e-6)
    # GRPO pays for training on what is dead as well: 5 a visit, not 1 + 4 q.
    saved = 5 - (q / kept + 4 * q)
    np.testing.assert_allclose(found["grpo"], price / per_visit / saved, rtol=1e-6)
    assert found["belief_thin"] is None or found["belief_thin"] > expected


def test_a_profile_that_leaves_nothing_out_never_pays():
    belief = Posterior.of(learnable_and_not(300, 0))
    plan = planning.make_plan(belief)
    setting = planning.Setting(drop_dead=False)
    assert set(planning.pays_after(plan, belief, setting=setting).values()) == {None}
    # One group of 8 in 128 is dead; not to train on those needs no profile.
    found = planning.pays_after(plan, belief)
    assert found["grpo"] > 50
    assert found["grpo_nonzero"] is found["belief_thin"] is None


def test_the_verdict_is_in_the_plan_and_its_file(tmp_path):
    profile = learnable_and_not(100, 100)
    plan = planning.make_plan(profile)
    setting = planning.Setting(passes=3.0)
    found = planning.predict(plan, profile, setting=setting)
    found = dataclasses.replace(found, pays_after=found.pays_after | {"never": None})
    planning.with_prediction(plan, found).save(tmp_path / "plan.json")
    again = planning.Plan.load(tmp_path / "plan.json")
    assert planning.Prediction.from_json(again.prediction) == found
    first = found.pays_after["grpo"]
    line = (
        f"signal, profiling pays after visits per question: {first:.1f} against grpo, "
    )
    assert line in str(again)
    assert "never against never; 3 planned" in str(again)
