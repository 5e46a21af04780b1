"""Families of reasoning-gym: deterministic, distinct, and the unsafe ones refused."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from sgpo_jax.data import Generator, ReasoningGym, normalize, parse_source, split
from sgpo_jax.data.reasoning_gym import DENIED, create, import_package

installed = importlib.util.find_spec("reasoning_gym") is not None
needs_package = pytest.mark.skipif(not installed, reason="reasoning-gym is absent")

FAMILIES = {
    "chain_sum": {"min_digits": 1, "max_digits": 2},
    "products": {"max_digits": 2},
    "gcd": {"max_value": 50},
    "lcm": {"max_value": 50},
    "count_bits": {"max_n": 1000},
    "letter_counting": {"max_words": 6},
    "leg_counting": {"max_animals": 4},
    "simple_equations": {"max_terms": 3},
    "spell_backward": {"max_word_len": 5},
    "syllogism": {},
}


def _generator(family, size=20, **knobs):
    return Generator(family=family, size=size, knobs=tuple(knobs.items()))


HASHED = ("ransom_note isomorphic_strings word_ladder quantum_lock futoshiki").split()


@needs_package
def test_queries_are_plain_json_and_the_same_every_time():
    generators = tuple(_generator(family, **FAMILIES[family]) for family in FAMILIES)
    loaded = ReasoningGym(generators=generators, seed=4).load()
    assert loaded == ReasoningGym(generators=generators, seed=4).load()
    assert loaded.held_out is None
    assert {query.family for query in loaded.queries} == set(FAMILIES)
    for query in loaded.queries:
        assert json.loads(json.dumps(query.metadata)) == query.metadata
        assert query.level == 1


@needs_package
def test_every_process_gets_the_same_questions():
    """Families that go through sets, in processes of other hash seeds."""
    text = "reasoning-gym:" + ";".join(f"{family},size=2" for family in HASHED)
    code = (
        "from sgpo_jax.data import parse_source, fingerprint\n"
        f"print(fingerprint(parse_source({text!r}).load().queries))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(said) == 1


@needs_package
def test_small_space_is_kept_once_and_said():
    source = parse_source("reasoning-gym:count_bits,min_n=1,max_n=15,size=100")
    loaded = source.load()
    prompts = [normalize(query.prompt) for query in loaded.queries]
    assert len(set(prompts)) == len(prompts) <= 15
    (problem,) = loaded.problems
    assert f"only {len(prompts)} new distinct questions of 100" in problem


@needs_package
def test_same_family_with_other_knobs_has_levels_and_no_question_twice():
    text = "reasoning-gym:chain_sum,max_digits=1,max_terms=2;chain_sum;gcd,level=7"
    loaded = parse_source(text).load()
    assert {(q.family, q.level) for q in loaded.queries} == {
        ("chain_sum", 1), ("chain_sum", 2), ("gcd", 7)
    }  # fmt: skip
    assert len({query.id for query in loaded.queries}) == len(loaded.queries)
    train, test = split(loaded.queries, held_out=0.2, seed=0)
    questions = {normalize(query.prompt) for query in train}
    assert test and questions.isdisjoint(normalize(query.prompt) for query in test)


@pytest.mark.parametrize("family", DENIED)
def test_denied_family_is_refused_with_the_reason(family):
    with pytest.raises(ValueError, match=f"{family!r} is refused: it"):
        Generator(family=family)
    with pytest.raises(ValueError, match="is refused"):
        create(family, {"size": 1})


@needs_package
def test_denied_families_exist():
    assert set(DENIED) <= set(import_package().factory.DATASETS)


@needs_package
@pytest.mark.parametrize(
    ("generator", "match"),
    [
        (_generator("chain_summ"), "did you mean chain_sum"),
        (_generator("no such thing at all"), "no family 'no such thing at all'"),
        (_generator("gcd", digits=2), "gcd has no knob 'digits'; it has min_numbers"),
        (_generator("chain_sum", min_digits=3, max_digits=1), "max_digits must be >="),
        (_generator("chain_sum", min_digits="few"), "chain_sum refuses"),
    ],
)
def test_wrong_family_or_knob_names_the_remedy(generator, match):
    with pytest.raises(ValueError, match=match):
        ReasoningGym(generators=(generator,)).load()


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r"pip install 'sgpo_jax\[reasoning-gym\]'"):
        import_package()
