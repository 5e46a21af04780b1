"""What a run will cost, before it is started."""

import dataclasses

import numpy as np
from rich.table import Table

from sgpo_jax import ledger
from sgpo_jax.pipeline.folder import flatten
from sgpo_jax.pipeline.run import Run


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Predicted rollouts and operations of one part of a run."""

    part: str
    rollouts: int
    flops: float


def predict(run: Run) -> list[Predicted]:
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
        parts.append(Predicted("profile", n * samples, spent))
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
        parts.append(Predicted(label, rollouts, spent))
    return parts


def print_prediction(run: Run) -> None:
    """Print the resolved experiment and what it will cost."""
    for name, value in flatten(run.config).items():
        print(f"{name} = {value}")
    table = Table(title="predicted cost")
    for column in ("part", "rollouts", "TFLOP"):
        table.add_column(column, justify="right")
    for part in predict(run):
        table.add_row(part.part, f"{part.rollouts:,}", f"{part.flops / 1e12:.2f}")
    run.display.console.print(table)
