"""Inference servers as the sampler of a run: what they can do, and their client."""

import pathlib
from collections.abc import Mapping

from sgpo_jax import models, sampling
from sgpo_jax.config import SamplerConfig
from sgpo_jax.methods import Method


def check(
    sampler: SamplerConfig,
    methods: Mapping[str, Method],
    *,
    lora: bool,
    processes: int = 1,
) -> None:
    """Refuse what servers cannot do for a run, before any work is done.

    Args:
      sampler: how completions are sampled.
      methods: what is trained, by label.
      lora: whether adapters are trained.
      processes: of the run.

    Raises:
      ValueError: naming the setting and the remedy.
    """
    if not sampler.server:
        return
    sampler.client.headers()
    if processes > 1:
        raise ValueError(
            f"sampler.server has one client, and the run {processes} processes: run in"
            " one process, or drop sampler.server"
        )
    if not sampler.refreshed:
        return
    if sampler.refresh == "vllm-lora" and not lora:
        raise ValueError(
            "sampler.refresh=vllm-lora gives servers new adapters, and the policy has"
            " none: give model.lora_rank, or take servers of SGLang"
        )
    for label, method in methods.items():
        if method.correction is None:
            raise ValueError(
                f"{label} takes rollouts for the policy's own, and other software than"
                " the trainer's samples them: give a correction, for example"
                f" --methods.{label}.correction.high 2, or drop sampler.refresh: the"
                " profile is sampled by the servers then, and training samples here"
            )


def client(sampler: SamplerConfig, tokenizer: models.Tokenizer) -> sampling.Server:
    """Return the client of the servers.

    Raises:
      ValueError: if its access token is not in the environment.
    """
    extra: dict[str, object] = {"logprobs": 1, "return_token_ids": True}
    if sampler.stop:
        extra["stop"] = list(sampler.stop)
    limits = sampler.client
    return sampling.Server(
        sampler.server,
        model=sampler.model,
        tokenizer=tokenizer,
        max_response=sampler.max_response,
        concurrency=limits.concurrency,
        retry=sampling.Retry(attempts=limits.attempts, timeout=limits.timeout),
        headers=limits.headers(),
        extra=extra,
    )


def weights(
    sampler: SamplerConfig, server: sampling.Server, policy: models.Policy
) -> sampling.ServedWeights | None:
    """Return what gives servers new weights; None if nothing does.

    Raises:
      ValueError: if there is no folder for them.
    """
    if sampler.refresh == "none":
        return None
    if not sampler.weights:
        raise ValueError(
            "sampler.refresh needs a folder that the servers see: give sampler.weights"
        )
    return sampling.ServedWeights(
        server,
        refresh=sampler.refresh,
        folder=pathlib.Path(sampler.weights),
        policy=policy,
    )
