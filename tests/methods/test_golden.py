"""One step of GRPO in numbers, which only a change of its mathematics may move."""

import numpy as np
import pytest

from sgpo_jax import methods
from tests.methods.cases import make_learner, params_of

GOLDEN = {
    "reward": 0.666667,
    "success": 0.583333,
    "unscorable": 0.125,
    "frac_reward_zero_std": 0.0,
    "completions/mean_length": 2.70833,
    "trained": 21.0,
    "loss": -0.0276524,
    "grad_norm": 2.45009,
    "entropy": 1.9634,
    "kl": 0.214238,
    "kl_old": 0.214238,
    "clip_ratio/high": 0.226415,
    "norm of the embedding": 4.03873,
    "norm of the queries": 4.07084,
}
MESSAGE = (
    "one step of GRPO is not what it was. Refactoring, other packing and other kernels"
    " must not do that. If the mathematics was meant to change (loss, advantage,"
    " optimizer, order of draws), say so in CHANGELOG.md and put these numbers here:\n"
)


@pytest.mark.slow
def test_one_step_of_grpo():
    method = methods.named("grpo").replace(updates_per_batch=2)
    learner = make_learner(method, steps=1)
    progress = learner.start(learner.programs.init(params_of()))
    logged = learner.step(progress, 1)
    params = progress.train.params
    names = (
        "reward",
        "success",
        "unscorable",
        "frac_reward_zero_std",
        "completions/mean_length",
        "trained",
        "loss",
        "grad_norm",
        "entropy",
        "kl",
        "kl_old",
        "clip_ratio/high",
    )
    found = {name: float(logged[name]) for name in names}
    found["norm of the embedding"] = float(np.linalg.norm(params["embedding"]))
    query = np.asarray(params["layers"]["query"])
    found["norm of the queries"] = float(np.linalg.norm(query))
    same = found.keys() == GOLDEN.keys() and np.allclose(
        list(found.values()), [GOLDEN[name] for name in found], rtol=1e-4, atol=1e-7
    )
    rounded = {name: float(f"{value:.6g}") for name, value in found.items()}
    assert same, f"{MESSAGE}{rounded}"
