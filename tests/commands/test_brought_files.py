"""Files as verl, TRL and the hub's GSM8K have them: loaded, and their answers paid."""

import pathlib

import numpy as np
import pytest

from sgpo_jax import data
from sgpo_jax.rewards import Worker

from ..data.conftest import gsm8k_folder

CASES = pathlib.Path(__file__).parents[1] / "data" / "cases"
REAL = gsm8k_folder()
BROUGHT = {
    "verl": f"{CASES}/verl.parquet",
    "trl": f"{CASES}/trl_conv.parquet,answer=solution",
    "hub": f"gsm8k:{CASES}/gsm8k_hf",
}
if REAL is not None:
    BROUGHT["gsm8k"] = f"gsm8k:{REAL}"


@pytest.mark.parametrize("name", BROUGHT)
def test_answers_of_brought_files_are_worth_one(name):
    train, held_out = data.load(BROUGHT[name], held_out=4, verbose=False)
    asked = [*train[:20], *held_out[:4]]
    with Worker(workers=1) as worker:
        worker.check(asked)
        right = worker.score([query.reference for query in asked], asked)
        wrong = worker.score(["no idea"] * len(asked), asked)
    np.testing.assert_array_equal(right, np.ones(len(asked)))
    np.testing.assert_array_equal(wrong, np.zeros(len(asked)))
