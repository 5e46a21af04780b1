"""Signs of reward hacking against plain definitions; references that are refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpo_jax.data import Query
from sgpo_jax.rewards import (
    HackingSigns,
    VerifierError,
    Worker,
    check_references,
    hacking,
    watch,
)


@given(
    st.text("ab c", min_size=30, max_size=120),
    st.integers(0, 100),
    st.integers(20, 60),
    st.text("xy", max_size=5),
)
def test_an_echo_is_forty_characters_of_the_prompt(prompt, start, length, around):
    text = around + prompt[start : start + length] + around
    asked, body = " ".join(prompt.split()), " ".join(text.split())
    wanted = any(asked[i : i + 40] in body for i in range(len(asked) - 39))
    assert hacking.is_echo(text, prompt) == wanted


@given(st.lists(st.sampled_from([0.0, 0.3, 1.0, math.nan]), max_size=20))
def test_only_rewarded_completions_are_looked_at(values):
    rewards = np.array(values, np.float64)
    found = watch(
        [""] * len(rewards),
        rewards,
        prompts=["4+3="] * len(rewards),
        finished=np.zeros(len(rewards), bool),
        solved=0.3,
    )
    rewarded = sum(value >= 0.3 for value in values)
    assert found.looked_at == rewarded
    assert found.counts["empty"] == found.counts["over_long"] == rewarded
    assert found.counts["echo"] == 0
    share = found.metrics["reward/hacking_empty"]
    assert share == float(rewarded > 0)


def _watched(texts):
    return watch(
        texts,
        np.ones(len(texts)),
        prompts=["say it"] * len(texts),
        finished=np.ones(len(texts), bool),
        parts={"exact": np.array([1.0, np.nan] * len(texts))[: len(texts)]},
    )


@given(st.lists(st.sampled_from(["", "seven", "a b c d " * 9]), min_size=2))
def test_parts_of_a_step_add_up(texts):
    whole = _watched(texts)
    half = len(texts) // 2 // 2 * 2
    parts = _watched(texts[:half]) + _watched(texts[half:])
    assert (whole.looked_at, whole.counts) == (parts.looked_at, parts.counts)
    assert whole.examples == parts.examples and whole.metrics == parts.metrics
    assert HackingSigns(**whole.to_json()) == whole == whole + HackingSigns()


def test_many_rewarded_completions_are_sampled_evenly():
    chosen = hacking.looked_at(np.ones(10_000), 1.0)
    assert len(chosen) == hacking.MOST
    assert chosen[0] == 0 and chosen[-1] == 9_999
    assert len(set(np.diff(chosen))) <= 2


def test_a_second_verifier_disputes_rewards():
    asked = Query(id="q", prompt="", reference="7", verifier="gsm8k")
    texts = ["#### 7", "7", "8"]
    with Worker(workers=1) as worker:
        assert worker.second_opinion(texts, [asked] * 3, np.ones(3)) is None
        worker.judge(cross_check="exact")
        worker.check([asked])
        rewards = worker.score(texts, [asked] * 3)
        second = worker.second_opinion(texts, [asked] * 3, rewards)
        np.testing.assert_array_equal(second, [0, 1, np.nan])
        with pytest.raises(ValueError, match="finite"):
            worker.judge(solved_at=math.nan)
        worker.judge(cross_check="nonsense:missing")
        with pytest.raises(VerifierError, match="nonsense"):
            worker.check([asked])


@pytest.mark.parametrize(
    ("verifier", "good", "bad"),
    [
        ("gsm8k", "1,250", "(3, 4)"),
        ("numeric:tolerance=0.1", "-3/4", "3, 4 or 5"),
        ("integer", "007", "7.5"),
        ("choice:letters=AB", "B", "C"),
        ("exact", "a", "  "),
        ("math", "(3, 4)", ""),
        ("math", "\\boxed{5}", "so it is \\boxed{}"),
        ("math", "\\infty", "\\boxed{ \\, }"),
        ("math", "10^{9}", "9^{9^{9}}"),
        ("exact", "\\boxed{}", ""),
        ("0.5*gsm8k + 0.5*format:.*", "12", "twelve"),
    ],
)
def test_a_reference_that_cannot_be_compared_is_refused(verifier, good, bad):
    def ask(id, reference):
        return Query(id=id, prompt="", reference=reference, verifier=verifier)

    check_references([ask("a", good)])
    both = [ask("a", good), ask("b", bad), ask("c", bad)]
    with pytest.raises(VerifierError, match=r"^my.jsonl:2: .*2 of 3 references"):
        check_references(both, {"b": "my.jsonl:2", "c": "my.jsonl:3"})
    with pytest.raises(VerifierError, match=r"^query b: "):
        check_references(both)
