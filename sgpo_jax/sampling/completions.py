"""Requests and answers of OpenAI's completions interface, as Python values."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sgpo_jax.models import Tokenizer
from sgpo_jax.sampling.ending import Finish
from sgpo_jax.sampling.exchange import RefusedError
from sgpo_jax.sampling.methods import DecodingStrategy, Greedy, MinP, TopK, TopP


@dataclasses.dataclass(frozen=True)
class Completion:
    """One response.

    Attributes:
      tokens: response tokens, EOS included if it was reached.
      log_prob: log-probability of each token at temperature 1; NaN where unknown.
      finish: why the response ended.
      text: the response as the server spells it, EOS and stop string left out.
      prompt_tokens: what the server counted; 0 if it did not say.
    """

    tokens: Sequence[int]
    log_prob: Sequence[float]
    finish: Finish
    text: str
    prompt_tokens: int


def payload(
    strategy: DecodingStrategy, prompt: str | Sequence[int], **fields: Any
) -> dict[str, Any]:
    """Return the JSON body that asks for one sample.

    What the strategy does not truncate is switched off by name: left out, llama.cpp
    takes top-k 40, top-p 0.95 and min-p 0.05, and vLLM what the model's files say.

    >>> payload(TopK(5, temperature=0.5), "1+1=", seed=7)
    {'prompt': '1+1=', 'temperature': 0.5, 'top_k': 5, 'top_p': 1.0, 'min_p': 0.0,
     'seed': 7}
    """
    choice: dict[str, Any] = {"temperature": strategy.temperature}
    choice |= {"top_k": -1, "top_p": 1.0, "min_p": 0.0}
    match strategy:
        case Greedy():
            choice["temperature"] = 0.0
        case TopK(k=k):
            choice["top_k"] = k
        case TopP(p=p):
            choice["top_p"] = p
        case MinP(p=p):
            choice["min_p"] = p
    ids = prompt if isinstance(prompt, str) else [int(token) for token in prompt]
    return {"prompt": ids, **choice, **fields}


def parse(
    answer: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    most_tokens: int | None = None,
    stop_strings: bool = False,
    any_token: bool = False,
) -> Completion:
    """Read the answer to a request for one sample; nothing in it is believed.

    Token ids are taken as the server gives them: `logprobs.content` (llama.cpp),
    `token_ids` (vLLM's `return_token_ids`) or tokens spelled "token_id:7"
    (`return_tokens_as_token_ids`). Without any the text is tokenized again, which need
    not give the tokens that were sampled; log-probabilities are then kept only if their
    number agrees.

    What ended it is what the server names, in `stop_reason` (vLLM) or `matched_stop`
    (SGLang): a token, whichever of several, or a string. Servers that drop the token
    get it put back, with an unknown log-probability: the one they name, else the
    tokenizer's own unless they say, show or may mean that a stop string ended it.

    Args:
      answer: the JSON object.
      tokenizer: of the server's model.
      most_tokens: tokens that were asked for; None for any number.
      stop_strings: whether strings were to end it too.
      any_token: take ids that the tokenizer lacks, where only the text is wanted.

    Raises:
      RefusedError: if it is no completion to learn from: another finish reason than
        `stop` and `length`, impossible tokens, more than were asked for,
        log-probabilities above 0, or no tokens.

    >>> from sgpo_jax.models import CharTokenizer
    >>> answer = {"choices": [{"text": "12", "finish_reason": "stop"}]}
    >>> parse(answer, CharTokenizer("0123456789")).tokens
    [2, 3, 0]
    """
    choice = _choice(answer)
    vocab = None if any_token else tokenizer.vocab_size
    tokens, log_prob, listed = _tokens(choice, tokenizer, vocab)
    if most_tokens is not None and len(tokens) > most_tokens:
        raise RefusedError("too many tokens", f"{len(tokens)} of {most_tokens}")
    finish = Finish.TOKEN if choice["finish_reason"] == "stop" else Finish.LENGTH
    if finish:
        finish, end = _end(choice, tokens, tokenizer, stop_strings, listed)
        if end is not None:
            if vocab is not None and end >= vocab:
                raise RefusedError("impossible token", f"{end} of {vocab}")
            tokens, log_prob = [*tokens, end], [*log_prob, math.nan]
    if not tokens:
        raise RefusedError("no tokens", "an empty completion")
    usage = answer.get("usage")
    counted = usage.get("prompt_tokens") if isinstance(usage, dict) else 0
    prompt_tokens = counted if type(counted) is int and 0 <= counted < 2**31 else 0
    return Completion(tokens, log_prob, finish, choice["text"], prompt_tokens)


def _choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one choice, with a text and a reason that are what they should be."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise RefusedError("no completion", f"choices in {str(answer)[:200]}")
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        raise RefusedError("no completion", f"text in {str(answer)[:200]}")
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length"):
        raise RefusedError(f"finish reason {str(reason)[:40]!r}")
    return choice


def _tokens(
    choice: Mapping[str, Any], tokenizer: Tokenizer, vocab: int | None
) -> tuple[list[int], list[float], bool]:
    """Return tokens, their log-probabilities, and whether these list the end token."""
    report = choice.get("logprobs")
    report = report if isinstance(report, dict) else {}
    content, spelled = _list(report, "content"), _list(report, "tokens")
    known, given = _list(report, "token_logprobs"), _list(choice, "token_ids")
    exact = True
    if content:
        if not all(isinstance(entry, dict) for entry in content):
            raise RefusedError(
                "no completion", "logprobs.content is no list of objects"
            )
        tokens = [entry.get("id") for entry in content]
        known = [entry.get("logprob") for entry in content]
    elif given:
        tokens = given
    elif spelled and all(
        isinstance(token, str) and re.fullmatch(r"token_id:[0-9]{1,9}", token)
        for token in spelled
    ):
        tokens = [int(token.removeprefix("token_id:")) for token in spelled]
    else:
        tokens, exact = _encode(tokenizer, choice["text"]), False
    for token in tokens:
        if type(token) is not int or not 0 <= token < (vocab or 2**31):
            raise RefusedError("impossible token", f"{str(token)[:40]} of {vocab}")
    if known and exact and len(known) != len(tokens):
        raise RefusedError(
            "no completion", f"{len(tokens)} tokens, {len(known)} log-probabilities"
        )
    log_prob = [math.nan] * len(tokens)
    if len(known) == len(tokens):
        log_prob = [_log_prob(value) for value in known]
    return tokens, log_prob, bool(content)


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return tokenizer.encode(text)
    except ValueError as error:
        raise RefusedError("impossible text", str(error)[:200]) from None


def _list(owner: Mapping[str, Any], key: str) -> list[Any]:
    value = owner.get(key)
    if value is not None and not isinstance(value, list):
        raise RefusedError("no completion", f"{key} is {str(value)[:40]!r}, no list")
    return value or []


# Rounding may leave the log-probability of a certain token above 0.
_ROUNDING = 1e-3


def _log_prob(value: Any) -> float:
    """Return a log-probability; NaN if it is not known."""
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not -1e4 <= value <= _ROUNDING:
        raise RefusedError("impossible log-probability", str(value)[:40])
    return min(float(value), 0.0)


def _end(
    choice: Mapping[str, Any],
    tokens: Sequence[int],
    tokenizer: Tokenizer,
    stop_strings: bool,
    listed: bool,
) -> tuple[Finish, int | None]:
    """Return what ended a completion, and the end token if it was dropped."""
    named = choice.get("stop_reason")
    if named is None:
        named = choice.get("matched_stop")
    if isinstance(named, str):
        return Finish.STRING, None
    if type(named) is int and named >= 0:
        return Finish.TOKEN, None if tokens[-1:] == [named] else named
    if named is not None:
        raise RefusedError("impossible token", f"stop_reason {str(named)[:40]}")
    if tokens and tokens[-1] in tokenizer.stop_ids:
        return Finish.TOKEN, None
    # vLLM's null says that it was the end-of-sequence token.
    if listed or (stop_strings and "stop_reason" not in choice):
        return Finish.STRING, None
    return Finish.TOKEN, tokenizer.eos_id
