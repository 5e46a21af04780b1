"""Scorers of reasoning-gym: full marks or none, in the scoring process."""

import importlib.util

import numpy as np
import pytest

from sgpo_jax.data import parse_source
from sgpo_jax.data.reasoning_gym import DENIED, import_package
from sgpo_jax.rewards import Worker

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is absent"
)

FEW = (
    "chain_sum letter_counting simple_equations spell_backward ransom_note arc_agi"
    " prime_factorization game_of_life futoshiki"
).split()


def _draw(families, size):
    text = ";".join(f"{family},size={size}" for family in families)
    return parse_source(f"reasoning-gym:{text}").load()


@pytest.fixture(scope="module")
def queries():
    loaded = _draw(FEW, 4)
    assert not [problem for problem in loaded.problems if "left out" in problem]
    return loaded.queries


@pytest.fixture(scope="module")
def worker():
    # Some make their data set first, 0.3 s of CPU, which a busy machine stretches.
    with Worker(deadline=60.0) as worker:
        yield worker


def test_the_answer_scores_one(worker, queries):
    values = worker.score([f" {query.reference}\n" for query in queries], queries)
    np.testing.assert_array_equal(values, np.ones(len(queries)))


NONSENSE = ("", "banana", "nan", "٣٤", "9" * 6000, "-", "{}", "None", "<answer>")


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_scores_nothing(worker, queries, text):
    values = worker.score([text] * len(queries), queries)
    np.testing.assert_array_equal(values, np.zeros(len(queries)))


def test_partial_marks_count_as_none(worker, queries):
    words = [
        q for q in queries if q.family == "spell_backward" and len(q.reference) > 3
    ]
    near = [query.reference[:-1] + "zz" for query in words]
    np.testing.assert_array_equal(worker.score(near, words), np.zeros(len(words)))


def test_model_text_is_not_executed(worker, queries, tmp_path):
    mark = tmp_path / "executed"
    text = f"__import__('os').system('touch {mark}')"
    worker.score([text] * len(queries), queries)
    assert not mark.exists()


@pytest.mark.slow
def test_every_family_that_is_not_refused(tmp_path):
    """Its answer scores 1, another's answer, nonsense and code 0, without effect."""
    families = sorted(set(import_package().factory.DATASETS) - set(DENIED))
    loaded = _draw(families, 3)
    assert not [problem for problem in loaded.problems if "left out" in problem]
    queries = loaded.queries
    assert {query.family for query in queries} == set(families)

    # Some make their data set in a second, for the first of their questions.
    with Worker(deadline=60.0) as worker:
        _check_scores(worker, queries, tmp_path / "executed")


def _check_scores(worker, queries, mark):
    def score(texts):
        return worker.score(texts, queries)

    one, zero = np.ones(len(queries)), np.zeros(len(queries))
    np.testing.assert_array_equal(score([query.reference for query in queries]), one)
    answers = {(query.family, query.reference) for query in queries}
    for text in (*NONSENSE, f"__import__('os').system('touch {mark}')"):
        wanted = [float((query.family, text) in answers) for query in queries]
        np.testing.assert_array_equal(score([text] * len(queries)), wanted)
    assert not mark.exists()
    others = [
        [q.reference for q in queries if q.family == query.family][place % 3 - 1]
        for place, query in enumerate(queries)
    ]
    same = [a == query.reference for a, query in zip(others, queries, strict=True)]
    np.testing.assert_array_equal(np.where(same, 0, score(others)), zero)
