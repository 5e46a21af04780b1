"""Requests and answers of OpenAI's completions interface, as Python values."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sgpo_jax.models import Tokenizer
from sgpo_jax.sampling.ending import Finish
from sgpo_jax.sampling.methods import Greedy, Method, MinP, TopK, TopP


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
    method: Method, prompt: str | Sequence[int], **fields: Any
) -> dict[str, Any]:
    """Return the JSON body that asks for one sample.

    What the method does not truncate is switched off by name: left out, llama.cpp
    takes top-k 40, top-p 0.95 and min-p 0.05, and vLLM what the model's files say.

    >>> payload(TopK(5, temperature=0.5), "1+1=", seed=7)
    {'prompt': '1+1=', 'temperature': 0.5, 'top_k': 5, 'top_p': 1.0, 'min_p': 0.0,
     'seed': 7}
    """
    choice: dict[str, Any] = {"temperature": method.temperature}
    choice |= {"top_k": -1, "top_p": 1.0, "min_p": 0.0}
    match method:
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


def parse(answer: Mapping[str, Any], tokenizer: Tokenizer) -> Completion:
    """Read the answer to a request for one sample.

    Token ids are taken as the server gives them: `logprobs.content` (llama.cpp),
    `token_ids` (vLLM's `return_token_ids`) or tokens spelled "token_id:7"
    (`return_tokens_as_token_ids`). Without any the text is tokenized again, which need
    not give the tokens that were sampled; log-probabilities are then kept only if their
    number agrees. Servers that drop the EOS token get it put back, with an unknown
    log-probability, unless they say or show that a stop string ended the response.

    Raises:
      ValueError: if there is no completion in the answer.

    >>> from sgpo_jax.models import CharTokenizer
    >>> answer = {"choices": [{"text": "12", "finish_reason": "stop"}]}
    >>> parse(answer, CharTokenizer("0123456789")).tokens
    [2, 3, 0]
    """
    try:
        choice = answer["choices"][0]
        text, reason = choice["text"], choice["finish_reason"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no completion in {str(answer)[:200]}") from error
    report = choice.get("logprobs") or {}
    content = report.get("content") or []
    spelled = report.get("tokens") or []
    known = report.get("token_logprobs") or []
    if content:
        tokens = [int(entry["id"]) for entry in content]
        known = [entry.get("logprob") for entry in content]
    elif choice.get("token_ids"):
        tokens = list(choice["token_ids"])
    elif spelled and all(re.fullmatch(r"token_id:\d+", token) for token in spelled):
        tokens = [int(token.removeprefix("token_id:")) for token in spelled]
    else:
        tokens = tokenizer.encode(text)
    log_prob = [math.nan] * len(tokens)
    if len(known) == len(tokens):
        log_prob = [math.nan if value is None else float(value) for value in known]
    finish = Finish.TOKEN if reason == "stop" else Finish.LENGTH
    if finish and tokens[-1:] != [tokenizer.eos_id]:
        # `content` lists the EOS token; `stop_reason` is vLLM's name of the string.
        if content or isinstance(choice.get("stop_reason"), str):
            finish = Finish.STRING
        else:
            tokens, log_prob = [*tokens, tokenizer.eos_id], [*log_prob, math.nan]
    prompt_tokens = int((answer.get("usage") or {}).get("prompt_tokens") or 0)
    return Completion(tokens, log_prob, finish, text, prompt_tokens)
