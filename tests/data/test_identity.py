"""Fingerprints: equal for equal questions, and they name the part that differs."""

import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import pytest

from sgpo_jax.data import Fingerprint, Query, fingerprint, identity

texts = st.text(st.characters(exclude_categories=()), max_size=4)
# Built in the test: checked types draw random numbers, which a strategy must not.
fields = st.fixed_dictionaries(
    {
        "id": texts,
        "prompt": texts,
        "reference": texts,
        "verifier": texts,
        "family": texts,
        "level": st.none() | st.integers(1, 3),
        "metadata": st.dictionaries(st.sampled_from("ab"), st.integers(0, 2)),
        "messages": st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    }
)


@hypothesis.given(st.lists(fields, max_size=3), st.lists(fields, max_size=3))
@hypothesis.settings(max_examples=100)
def test_equal_fingerprints_are_equal_questions(one, two):
    pools = [[Query(**row) for row in rows] for rows in (one, two)]
    # A conversation stands for its prompt, which is derived from it.
    seen = [
        [dataclasses.replace(q, prompt="") if q.messages else q for q in pool]
        for pool in pools
    ]
    equal = fingerprint(pools[0]) == fingerprint(pools[1])
    assert equal == (seen[0] == seen[1])


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"id": "q9"}, "ids"),
        ({"prompt": "4+4="}, "prompts"),
        ({"messages": (("system", "x"), ("user", "4+3="))}, "prompts"),
        ({"reference": "8"}, "references"),
        ({"verifier": "integer"}, "verifiers"),
        ({"level": 2}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
    ],
)
def test_difference_names_the_part(changed, part):
    pool = [Query(id=f"q{n}", prompt=f"{n}+3=", reference=str(n)) for n in range(9)]
    other = [*pool[:4], dataclasses.replace(pool[4], **changed), *pool[5:]]
    assert fingerprint(pool).difference(fingerprint(other)) == part


def test_keys_of_metadata_have_no_order_and_a_manifest_keeps_it():
    one = Query(id="q", prompt="?", reference="!", metadata={"a": 1, "b": 2})
    two = dataclasses.replace(one, metadata={"b": 2, "a": 1})
    made = fingerprint([one])
    assert made == fingerprint([two])
    assert Fingerprint(**json.loads(json.dumps(made.to_json()))) == made


def test_no_two_sequences_of_chunks_meet(monkeypatch):
    monkeypatch.setattr(identity, "CHUNK", 2)
    pool = [Query(id=str(n), prompt="?", reference="!") for n in range(5)]
    seen = {fingerprint(pool[:n]).ids for n in range(6)}
    assert len(seen) == 6
