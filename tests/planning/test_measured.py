"""Predictions beside a simulated run that behaves as predicted, and another."""

import numpy as np
import pytest

from sgpo_jax import planning
from sgpo_jax.models import DecoderConfig
from sgpo_jax.profiling import Posterior, Profile

MODEL = DecoderConfig(vocab_size=32, num_layers=2, embed_dim=16, mlp_dim=32)


def test_a_run_as_predicted_has_no_error_and_another_has(rng):
    rate = rng.beta(1, 1, 400)
    profile = Profile(
        ids=tuple(f"q{i}" for i in range(400)),
        samples=[16] * 400,
        successes=rng.binomial(16, rate),
        tokens=[160] * 400,
        prompt_tokens=[12] * 400,
    )
    belief = Posterior.of(profile)
    plan = planning.make_plan(belief)
    setting = planning.Setting(model=MODEL, drop_dead=False)
    predicted = planning.predict(plan, belief, setting=setting)
    lines, spent = [], 0.0
    for number, phase in enumerate(plan.phases):
        rows = [profile.place[id_] for id_ in phase.ids]
        for _ in range(40):
            k = rng.binomial(phase.sizes, rate[rows])
            dead = (k == 0) | (k == np.array(phase.sizes))
            cost = predicted.phases[number]
            assert cost.flops is not None
            spent += cost.flops
            lines.append(
                {
                    "phase": number,
                    "queries": len(rows),
                    "rollouts": phase.rollouts,
                    "frac_reward_zero_std": dead.mean(),
                    "completions/mean_length": 10.0,
                    "ledger": {
                        "generation": {"flops": spent / 4},
                        "training": {"flops": 3 * spent / 4},
                        "profiling": {"flops": 1e30},
                    },
                }
            )
    found = planning.compare_with_run(plan, predicted, lines)
    assert {row.phase for row in found} == {0, 1, 2, 3}
    for row in found:
        # Shares are off by what 16 samples of 40 queries leave open.
        assert abs(row.error) < (0.12 if row.is_share else 1e-6), row
    for line in lines:
        line["completions/mean_length"] = 20.0
    off = planning.compare_with_run(plan, predicted, lines)
    errors = [row.error for row in off if row.quantity == "tokens per response"]
    assert errors == pytest.approx([-0.5] * 3)


def test_phases_that_were_not_reached_are_left_out():
    profile = Profile(ids=("a", "b"), samples=[8, 8], successes=[4, 1])
    plan = planning.make_plan(profile)
    predicted = planning.predict(plan, profile)
    line = {"phase": 0, "queries": 1, "rollouts": 2, "frac_reward_zero_std": 1.0}
    found = planning.compare_with_run(plan, predicted, [line, {"step": 0}])
    assert {row.phase for row in found} == {1}
    assert found[0].measured == 1.0
