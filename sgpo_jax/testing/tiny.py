"""The smallest decoder, tokenizer, sampler, buckets and experiment that do everything.

One decoder for all tests: programs of equal shapes compile once per process.
"""

import dataclasses
from typing import Any

from sgpo_jax.config import (
    EvalConfig,
    Experiment,
    ModelConfig,
    PackConfig,
    ProfileConfig,
    SamplerConfig,
    SftConfig,
)
from sgpo_jax.data import Query
from sgpo_jax.models import CharTokenizer, DecoderConfig
from sgpo_jax.packing import Buckets, make_buckets
from sgpo_jax.sampling import Engine
from sgpo_jax.training import TrainConfig

ARITHMETIC = CharTokenizer("0123456789+=")
"""Character tokenizer of sums: 12 characters and an end of sequence, 13 tokens."""

TINY = DecoderConfig(
    vocab_size=ARITHMETIC.vocab_size,
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=24,
)
"""Decoder of two layers with grouped-query attention: 2,960 parameters."""


def tiny_queries(count: int = 12) -> tuple[Query, ...]:
    """Return sums of small numbers with their answers, in the words of `ARITHMETIC`.

    >>> tiny_queries(2)[1]
    Query(id='1+0', prompt='1+0=', reference='1', ...)
    """
    pairs = [divmod(i, 10)[::-1] for i in range(count)]
    return tuple(
        Query(id=f"{a}+{b}", prompt=f"{a}+{b}=", reference=str(a + b)) for a, b in pairs
    )


def tiny_buckets(*, rows: int = 8, row_length: int = 64) -> Buckets:
    """Return one packed shape: responses of at most 4 tokens."""
    return make_buckets(
        row_lengths=[row_length], rows=[rows], response_length=4, shortest_response=2
    )


def tiny_engine(**changes: Any) -> Engine:
    """Return a sampler of `TINY`: 3 lanes of 2 slots, responses of at most 6 tokens.

    Args:
      changes: other arguments of `Engine`.

    >>> tiny_engine(lanes=2).lanes
    2
    """
    settings = {
        "lanes": 3,
        "slots": 2,
        "max_prompt": 7,
        "max_response": 6,
        "stop_tokens": (ARITHMETIC.eos_id,),
    }
    return Engine(TINY, **{**settings, **changes})


def tiny_experiment(out: str, *, cache: str = "", **changes: Any) -> Experiment:
    """Return an experiment of six steps per method: every stage, in seconds.

    Args:
      out: the run folder.
      cache: folder of initial policies and compiled programs; empty for none.
      changes: other fields of `Experiment`.

    >>> tiny_experiment("runs/tiny", seed=3).seed
    3
    """
    tiny = Experiment(
        out=out,
        cache=cache,
        data="procedural:families=bits+reversal,levels=1+2+3,count=12",
        model=ModelConfig(
            num_layers=1,
            embed_dim=32,
            num_heads=2,
            num_kv_heads=2,
            head_dim=16,
            mlp_dim=64,
        ),
        sft=SftConfig(steps=60, batch_size=64, demonstrations=2000),
        sampler=SamplerConfig(lanes=8),
        pack=PackConfig(row_length=64, rows=(8,)),
        profile=ProfileConfig(chunk=16),
        train=TrainConfig(steps=6, rollouts=32, eval_every=2),
        eval=EvalConfig(samples=2, final_samples=4),
    )
    return dataclasses.replace(tiny, **changes)
