"""SGLang's own interface, `/generate`, in the words of OpenAI's completions.

Its completions in OpenAI's form name tokens by their text, and a text has several
spellings in tokens; `/generate` gives ids and log-probabilities as they were sampled,
and names the weights that gave them.
"""

from collections.abc import Mapping
from typing import Any

from sgpo_jax.sampling.exchange import RefusedError

PATH = "/generate"


def request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request of a completion, without its model and further fields.

    >>> asked = request({"prompt": [5], "max_tokens": 3, "seed": 1, "temperature": 1.0})
    >>> asked["input_ids"], asked["sampling_params"]["max_new_tokens"]
    ([5], 3)
    """
    names = {
        "temperature": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "stop": "stop",
        "max_tokens": "max_new_tokens",
        "seed": "sampling_seed",
    }
    prompt = body["prompt"]
    return {
        ("text" if isinstance(prompt, str) else "input_ids"): prompt,
        "sampling_params": {
            new: body[old] for old, new in names.items() if old in body
        },
        "return_logprob": True,
    }


def completion(answer: Mapping[str, Any], *, version: str = "") -> dict[str, Any]:
    """Return an answer of `/generate` as one of OpenAI's completions.

    Args:
      answer: the JSON object.
      version: the weights that must have given it; empty for any.

    Raises:
      RefusedError: if other weights gave it, or it is no answer.
    """
    meta = answer.get("meta_info")
    if not isinstance(meta, dict):
        raise RefusedError("no completion", f"meta_info in {str(answer)[:200]}")
    if version and meta.get("weight_version") != version:
        found = str(meta.get("weight_version"))[:60]
        raise RefusedError("other weights", f"{found}, not {version}")
    ended, listed = meta.get("finish_reason"), meta.get("output_token_logprobs")
    if not isinstance(ended, dict) or not isinstance(listed, list):
        raise RefusedError("no completion", f"meta_info is {str(meta)[:200]}")
    if not all(isinstance(entry, list) and len(entry) >= 2 for entry in listed):
        raise RefusedError("no completion", "output_token_logprobs is no list of pairs")
    choice = {
        "text": answer.get("text"),
        "finish_reason": ended.get("type"),
        "matched_stop": ended.get("matched"),
        "token_ids": [entry[1] for entry in listed],
        "logprobs": {"token_logprobs": [entry[0] for entry in listed]},
    }
    return {
        "choices": [choice],
        "usage": {"prompt_tokens": meta.get("prompt_tokens")},
    }
