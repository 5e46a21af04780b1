"""Sharing prompts and allocating groups, by the ledger's formulas."""

import pathlib

import numpy as np

from benchmarks import prefix_allocation
from sgpo_jax import theory
from sgpo_jax.ahead_of_time import public

MODEL = public.find("qwen3-0.6b")


def test_the_page_has_what_the_formulas_say():
    page = prefix_allocation.OUT.read_text()
    for ratio, share, plan, both in prefix_allocation.factors():
        product = share * plan
        row = f"| {ratio:g} | {share:.2f} | {plan:.2f} | {both:.2f} | {product:.2f} |"
        assert row in page
    assert pathlib.Path(prefix_allocation.__file__).name in page


def test_sharing_saves_less_than_its_tokens_say_and_nothing_in_groups_of_one():
    def cost(size, shared, prompt=4 * prefix_allocation.RESPONSE):
        sizes, live = np.full(10, size), np.full(10, 0.5)
        return prefix_allocation.operations(
            MODEL, sizes, live, prompt=prompt, shared=shared
        )

    assert cost(1, True) == cost(1, False)
    # Generation shares prompts anyway, so the whole saves less than training alone.
    saved = cost(8, False) / cost(8, True)
    assert 1.5 < saved < theory.prefix_sharing_ratio(4.0, 8)
