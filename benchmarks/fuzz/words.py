"""Text that is no file: names of rewards, command lines, answers of servers."""

import contextlib
import io
import json
import pathlib
import random
from collections.abc import Sequence
from typing import Any

from sgpo_jax import models
from sgpo_jax.commands import options
from sgpo_jax.rewards import names
from sgpo_jax.sampling import completions

from . import mutations

ANSWER = {
    "id": "cmpl-1",
    "choices": [
        {
            "index": 0,
            "text": "12",
            "finish_reason": "stop",
            "stop_reason": 0,
            "token_ids": [2, 3, 0],
            "logprobs": {
                "tokens": ["token_id:2", "token_id:3", "token_id:0"],
                "token_logprobs": [-0.5, -0.25, -1.5],
            },
        }
    ],
    "usage": {"prompt_tokens": 4, "completion_tokens": 3},
}


LLAMA = {
    "choices": [
        {
            "text": "12",
            "finish_reason": "length",
            "logprobs": {
                "content": [
                    {"id": 2, "token": "1", "logprob": -0.5},
                    {"id": 3, "token": "2", "logprob": -0.25},
                ]
            },
        }
    ],
}


def read_answer(path: pathlib.Path) -> Any:
    """Return what the client makes of a server's answer; nothing impossible in it."""
    from sgpo_jax.sampling.exchange import RefusedError

    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RefusedError("no JSON", str(error)[:100]) from None
    if not isinstance(content, dict):
        raise RefusedError("no completion")
    tokenizer = models.CharTokenizer("0123456789")
    found = completions.parse(content, tokenizer, most_tokens=4)
    assert all(0 <= token < tokenizer.vocab_size for token in found.tokens)
    assert all(not value > 0 for value in found.log_prob)
    assert len(found.log_prob) in (0, len(found.tokens))
    return [list(found.tokens), found.text]


SPECS = (
    "exact",
    "numeric:tolerance=1e-3,percent=true,unit=km",
    "choice:letters=ABCD",
    "format:[0-9]+",
    "0.8*gsm8k + 0.2*format:a+b",
    "sgpo_jax.rewards.verifiers:exact",
    "trl:sgpo_jax.rewards.verifiers:exact",
)


def of_text(text: str, chance: random.Random, others: Sequence[str]) -> str:
    """Mutate text as bytes."""
    made = mutations.of_bytes(text.encode(), chance, [o.encode() for o in others])
    return made.decode(errors="replace")


def read_spec(text: str) -> Any:
    """Return the terms of a verifier by name, each found."""
    if any(word in text for word in ("command", "import")):
        raise ValueError("not run here: a command line of anybody's")
    return [repr(names.find(part)) for _, part in names.terms(text)]


OPTIONS = [
    *("--out", "runs/fuzz", "--seed", "3", "--train.steps", "7"),
    *("--sampler.temperature", "0.7", "--methods.sgpo.optimizer.learning-rate", "1e-3"),
    *(
        "--pack.rows",
        "4",
        "6",
        "--reward.deadline",
        "5",
        "--methods.sgpo.averaging",
        "0.1",
    ),
    *("--split.held-out", "0.25", "--data", "procedural:families=bits"),
]


def read_options(words: list[str]) -> Any:
    """Return the experiment of a command line."""
    # Printing help ends a process; that is no fault.
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            return repr(options.experiment("run", list(words)))
        except SystemExit as error:
            if error.code:
                raise
            return "help"
