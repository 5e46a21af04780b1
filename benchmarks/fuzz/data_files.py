"""Data files and sources of questions, with sound inputs."""

import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax import data, testing
from sgpo_jax.data import saved

from .harness import read_back

ROWS = [
    {"prompt": f"What is {n}+{n}?", "answer": str(2 * n), "level": n % 3}
    for n in range(12)
]


QUIET = {"held_out": 0, "verbose": False}


def lines() -> bytes:
    """Data as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as a Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def questions(path: pathlib.Path) -> Any:
    """Return the questions of a data file."""
    found, held = data.load(str(path), **QUIET)
    return [(q.prompt, q.reference) for q in (*found, *held)]


def saved_seeds(folder: pathlib.Path) -> list[bytes]:
    """Queries as a saved trainer writes them."""
    queries = testing.tiny_queries(8)
    path = folder / "queries.jsonl"
    return [read_back(path, lambda p: saved.save_queries(p, queries[:6], queries[6:]))]


def read_saved(path: pathlib.Path) -> Any:
    """Return the queries of a saved trainer."""
    found = saved.Saved(path=str(path)).load()
    return [repr(found.queries), repr(found.held_out)]


SOURCES = (
    "procedural:families=bits+reversal,levels=1+2+3,count=12",
    "questions.jsonl,prompt=question,answer=solution,verifier=math",
    "gsm8k:/nonexistent",
    "tfds:gsm8k/train,prompt=question",
)
