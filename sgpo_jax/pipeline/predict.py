"""Predicted compute, time, memory and disk of a run."""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.table import Table

from sgpo_jax import chips, ledger
from sgpo_jax.pipeline.folder import flatten
from sgpo_jax.pipeline.run import Run
from sgpo_jax.training import copy_names


@dataclasses.dataclass(frozen=True)
class PredictedCost:
    """Predicted rollouts and operations of one part of a run."""

    part: str
    rollouts: int
    flops: float


def predict(run: Run) -> list[PredictedCost]:
    """Predict rollouts and operations of each part.

    Prompts have their mean length and responses half the longest allowed; no group is
    taken to be dead, so training costs at most about what is said here.
    """
    c = run.config
    encode = run.tokenizer.encode_prompt
    prompt = int(np.mean([len(encode(query.turns)) for query in run.train]))
    response = max(1, c.sampler.max_response // 2)

    def cost(
        queries: float, group: int, *, passes: int = 0, scoring: float = 0.0
    ) -> float:
        lengths = [response] * group
        forward = ledger.forward_flops(
            run.decoder,
            tokens=prompt + sum(lengths) - group,
            pairs=ledger.sample_pairs(prompt, lengths),
            logits=sum(lengths),
        )
        packed = {
            "tokens": prompt + sum(lengths),
            "pairs": ledger.packed_pairs(prompt, lengths),
            "logits": sum(lengths),
        }
        trained = ledger.training_flops(run.decoder, **packed)
        scored = ledger.forward_flops(run.decoder, **packed)
        return queries * (forward + trained * passes + scored * scoring)

    n = len(run.train)
    samples, parts = c.profile.samples, []
    if any("profile" in method.needs for method in c.methods.values()):
        spent = cost(float(n), samples)
        parts.append(PredictedCost("profile", n * samples, spent))
    for label, method in c.methods.items():
        group = getattr(method.prompts, "group_size", 4)
        if method.continuation is not None:
            group = round(group * method.continuation.growth)
        rollouts = c.train.steps * c.train.rollouts
        spent = cost(
            rollouts / group,
            group,
            passes=method.updates_per_batch,
            scoring=method.scoring_passes,
        )
        parts.append(PredictedCost(label, rollouts, spent))
    return parts


def print_prediction(run: Run) -> None:
    """Print the resolved experiment and what it will cost."""
    for name, value in flatten(run.config).items():
        if name != "methods":
            print(f"{name} = {value}")
    for label, method in run.config.methods.items():
        for part in dataclasses.fields(method):
            if (value := getattr(method, part.name)) is not None:
                print(f"methods.{label}.{part.name} = {value}")
    parts, rate = predict(run), operations_per_second()
    table = Table(title="predicted cost", box=box.SIMPLE_HEAD)
    for column in ("part", "rollouts", "GFLOP", "seconds"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part in parts:
        table.add_row(
            part.part,
            f"{part.rollouts:,}",
            f"{part.flops / 1e9:,.1f}",
            _about(part.flops / rate),
        )
    run.display.console.print(table)
    run.display.say(
        f"about {_about(sum(part.flops for part in parts) / rate)} s of sampling and"
        f" training at {rate / 1e9:,.0f} GFLOP/s, without compilation and evaluations;"
        f" {_size(memory(run))} of memory; {_size(disk(run))} of disk"
    )


EFFICIENCY = 0.25
"""Share of a matrix product's speed that sampling and training reach together; 0.2 to
0.35 on the runs of `benchmarks/results`, padding not counted."""


def operations_per_second() -> float:
    """Operations per second that a run may reach on all devices together.

    A quarter of the chip's peak where that is known, else of a product of matrices that
    is timed here, which takes a fraction of a second.
    """
    devices = jax.devices()
    chip = chips.of_kind(devices[0].device_kind)
    if chip is not None:
        return EFFICIENCY * chip.peak_tflops * 1e12 * len(devices)
    size = 512
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()
    fastest = math.inf
    for _ in range(20):  # the least disturbed one
        begin = time.perf_counter()
        product(a).block_until_ready()
        fastest = min(fastest, time.perf_counter() - begin)
    return EFFICIENCY * 2 * size**3 / fastest


def state_bytes(run: Run) -> tuple[int, int, int]:
    """Bytes of the parameters, of what is trained, and of the optimizer's state."""
    decoder = run.decoder
    parameters = ledger.matmul_parameters(decoder)
    parameters += decoder.vocab_size * decoder.embed_dim
    trained = ledger.adapter_parameters(decoder) or parameters
    width = jnp.dtype(decoder.param_dtype).itemsize
    return parameters * width, trained * width, trained * 8


def memory(run: Run) -> int:
    """Bytes of the state with gradients, and of keys and values or a micro-batch."""
    decoder, c = run.decoder, run.config
    parameters, trained, moments = state_bytes(run)
    width = jnp.dtype(decoder.dtype).itemsize
    positions = run.session.longest_prompt + c.sampler.max_response
    slots = min(c.sampler.lanes * c.sampler.slots, c.train.rollouts)
    cache = 2 * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim * width
    kept = decoder.num_layers * (12 * decoder.embed_dim + 3 * decoder.mlp_dim) * width
    tokens = max(c.pack.rows) * max(c.pack.row_length, positions)
    logits = slots * decoder.vocab_size * 4
    copies = max(len(copy_names(method)) for method in c.methods.values())
    state = parameters + (2 + copies) * trained + moments
    return state + max(slots * positions * cache + logits, tokens * kept)


def disk(run: Run) -> int:
    """Bytes of the run folder: the initial policy, three checkpoints per method."""
    parameters, trained, moments = state_bytes(run)
    c, total = run.config, 0
    for method in c.methods.values():
        copied = len(copy_names(method)) * trained
        total += 3 * (parameters + moments + copied)
        # Metrics of a step, and events of TensorBoard.
        total += c.train.steps * 6_000
    questions = len(run.train) + len(run.held_out)
    return total + parameters + questions * 500 + 2_000_000


def _about(seconds: float) -> str:
    """Two significant digits of seconds: nothing here is known better.

    >>> _about(0.0123), _about(1234.0)
    ('0.012', '1,200')
    """
    if seconds <= 0:
        return "0"
    digits = 1 - math.floor(math.log10(seconds))
    return f"{round(seconds, digits):,.{max(digits, 0)}f}"


def _size(count: int) -> str:
    """Bytes in words.

    >>> _size(5_300_000), _size(17_000_000_000)
    ('5.3 MB', '17 GB')
    """
    unit = "GB" if count >= 1e9 else "MB"
    return f"{_about(count / (1e9 if unit == 'GB' else 1e6))} {unit}"
