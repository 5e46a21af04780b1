"""Static shapes chosen from what is trained: slots of the sampler, packed rows."""

import math

from sgpo_jax.bounds import Count, Size, check_arguments
from sgpo_jax.config import PackConfig, SamplerConfig

SLOTS = 8
"""Samples of one prompt decoded at once."""

LANES = 32
"""Most prompts decoded at once; memory of the key-value cache grows with it."""

ROW = 2048
"""Longest packed row, unless one prompt with one response needs more."""

TOKENS = 16_384
"""Most tokens of a micro-batch."""


def sampler_for(
    rollouts: int, max_response: int, temperature: float = 1.0
) -> SamplerConfig:
    """Return a sampler that decodes the rollouts of a step at once, if they are few.

    >>> sampler = sampler_for(128, 64)
    >>> sampler.lanes, sampler.slots
    (16, 8)
    """
    check_arguments(rollouts=(rollouts, Count), max_response=(max_response, Size))
    slots = min(SLOTS, rollouts)
    return SamplerConfig(
        lanes=min(LANES, math.ceil(rollouts / slots)),
        slots=slots,
        max_response=max_response,
        temperature=temperature,
    )


def pack_for(rollouts: int, longest_prompt: int, max_response: int) -> PackConfig:
    """Return one bucket for the packed rows of a step.

    A row holds a prompt with eight responses of half the longest length, and a
    micro-batch all rollouts of that length, both within bounds.

    >>> pack_for(128, longest_prompt=20, max_response=64)
    PackConfig(row_length=384, rows=(12,), shortest_response=16)
    """
    half = max(1, max_response // 2)
    wanted = min(longest_prompt + 8 * half, ROW)
    row = _round_up(max(wanted, longest_prompt + max_response))
    groups = math.ceil(rollouts / SLOTS)
    tokens = groups * longest_prompt + rollouts * half
    rows = max(1, min(math.ceil(tokens / row), TOKENS // row))
    return PackConfig(
        row_length=row, rows=(rows,), shortest_response=max(1, max_response // 4)
    )


def _round_up(length: int) -> int:
    return math.ceil(length / 128) * 128
