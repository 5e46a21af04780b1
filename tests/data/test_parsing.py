"""One line of text gives a source, or an error that says what would."""

import pytest

from sgpo_jax.data import (
    Generator,
    Gsm8k,
    Mixture,
    Procedural,
    ReasoningGym,
    Records,
    Tfds,
    parse_source,
)
from sgpo_jax.data.source import Source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("procedural", Procedural()),
        (
            "procedural:families=addition+gcd,levels=1+3,count=7,seed=5",
            Procedural(
                mixture=Mixture(families=("addition", "gcd"), levels=(1, 3), count=7),
                seed=5,
            ),
        ),
        (
            "reasoning-gym:chain_sum,min_digits=1,max_digits=2,size=50,seed=3;gcd,level=4",
            ReasoningGym(
                generators=(
                    Generator(
                        family="chain_sum",
                        size=50,
                        knobs=(("min_digits", 1), ("max_digits", 2)),
                    ),
                    Generator(family="gcd", level=4),
                ),
                seed=3,
            ),
        ),
        (
            "reasoning-gym:basic_arithmetic,allow_negation=false,weight=0.5,style=x",
            ReasoningGym(
                generators=(
                    Generator(
                        family="basic_arithmetic",
                        knobs=(
                            ("allow_negation", False),
                            ("weight", 0.5),
                            ("style", "x"),
                        ),
                    ),
                )
            ),
        ),
        ("jsonl:a/b.jsonl", Records(path="a/b.jsonl")),
        ("a/b.parquet", Records(path="a/b.parquet")),
        (
            "b.jsonl,prompt=q,id=key,metadata=a+b,strict=true",
            Records(
                path="b.jsonl", prompt="q", id="key", metadata=("a", "b"), strict=True
            ),
        ),
        (
            "b.jsonl,answer=,verifier=my.py:score",
            Records(path="b.jsonl", answer="", verifier="my.py:score"),
        ),
        ("a/*.jsonl.gz,held_out=b", Records(path="a/*.jsonl.gz", held_out="b")),
        (
            "a.parquet,answer=reward_model.ground_truth",
            Records(path="a.parquet", answer="reward_model.ground_truth"),
        ),
        ("gsm8k:data/gsm8k,strict=true", Gsm8k(path="data/gsm8k", strict=True)),
        (
            "tfds:gsm8k/train,held_out=test,directory=/d",
            Tfds(name="gsm8k", split="train", held_out="test", directory="/d"),
        ),
        ("tfds:a/b/train[:10%]", Tfds(name="a/b", split="train[:10%]")),
    ],
)
def test_source(text, source):
    assert parse_source(text) == source
    assert isinstance(source, Source)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "none of\nprocedural"),
        ("procedral", "'procedral' is none of"),
        ("questions.csv", "none of"),
        ("procedural:families=adition", "unknown family 'adition'; known: addition"),
        ("procedural:level=1", "no option 'level'; there are count, families, levels"),
        ("procedural:levels=one", "'levels' must be int, got 'one'"),
        ("procedural:count=1.5", "'count' must be int, got '1.5'"),
        ("procedural:count=0", "at least 1, got 0"),
        ("procedural:count", "'count' is not of the form name=value"),
        ("procedural:count=", "not of the form"),
        ("jsonl:q.jsonl,prompt=", "not of the form"),
        ("procedural:count=1,count=2", "'count' is given twice"),
        ("reasoning-gym:", "a family is missing"),
        ("reasoning-gym:gcd;", "a family is missing"),
        ("reasoning-gym:countdown", "'countdown' is refused: its scorer evaluates"),
        ("reasoning-gym:gcd,size=0", "size of gcd must be at least 1"),
        ("reasoning-gym:gcd,size=few", "'size' must be int"),
        ("jsonl:questions.csv", r"ends in none of \.jsonl"),
        ("a.jsonl,strict=1", "'strict' must be bool, got '1'"),
        ("jsonl:", "the path is missing"),
        ("a.jsonl,max_chars=-1", "max_chars must not be negative"),
        ("a.jsonl,metadata=a.x+b.x", "end in the same name"),
        ("gsm8k:", "the folder is missing"),
        ("gsm8k", "the folder is missing"),
        ("tfds:gsm8k", "name and split are missing, as in tfds:gsm8k/train"),
        ("tfds:gsm8k/train,path=x", "no option 'path'"),
    ],
)
def test_bad_description_names_value_and_remedy(text, match):
    with pytest.raises(ValueError, match=match) as error:
        parse_source(text)
    assert repr(text) in str(error.value)
