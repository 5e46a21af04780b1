"""Metrics of a trainer: kept in memory, as a table, as a figure."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sgpo_jax.training.progress import Metrics, TrainProgress


@dataclasses.dataclass
class MemoryLog:
    """Metrics kept in memory: a `training.Log`.

    Attributes:
      lines: step and metrics of every line.
    """

    lines: list[tuple[int, dict[str, Any]]] = dataclasses.field(default_factory=list)

    def write(self, step: int, metrics: Metrics) -> None:
        """Append a line."""
        self.lines.append((step, metrics))

    def rewind(self, lines: int) -> None:
        """Drop all but the first lines."""
        del self.lines[lines:]


class NoStore:
    """No checkpoints: a `training.Store` for runs that are not to be resumed."""

    def save(self, step: int, progress: TrainProgress) -> None:
        """Keep nothing."""

    def check(self) -> None:
        """Nothing can go wrong."""

    def restore(self) -> tuple[int, TrainProgress]:
        """Raise: there is nothing to go back to.

        Raises:
          FloatingPointError: always, since going back is asked for when updates are not
            finite.
        """
        raise FloatingPointError(
            "updates were not finite several times in a row, and without checkpoints"
            " there is nothing to go back to: lower the learning rate of"
            " Method(optimizer=AdamW(learning_rate=...)), or look at the rewards"
        )


def metrics_table(lines: Sequence[tuple[int, dict[str, Any]]]) -> pa.Table:
    """Return the numbers of the metrics, a row per line and a column per name.

    >>> metrics_table([(1, {"reward": 0.5}), (2, {"reward": 1.0, "kl": 0.1})]).num_rows
    2
    """
    names = dict.fromkeys(
        name
        for _, metrics in lines
        for name, value in metrics.items()
        if isinstance(value, int | float)
    )
    columns: dict[str, Any] = {"step": pa.array([step for step, _ in lines])}
    for name in names:
        values = [metrics.get(name) for _, metrics in lines]
        whole = all(isinstance(x, int) for x in values if x is not None)
        columns[name] = pa.array(values, pa.int64() if whole else pa.float64())
    return pa.table(columns)


def plot_metrics(lines: Sequence[tuple[int, dict[str, Any]]], axes: Any = None) -> Any:
    """Draw the mean reward of each step, and held-out success where evaluated."""
    from sgpo_jax.profiling.show import new_axes

    axes = new_axes(axes)
    for name, label, color, style in (
        ("reward", "mean reward of the step's rollouts", "#9bb8d3", "-"),
        ("eval/success", "held-out success", "#d95f02", "o-"),
        ("eval/success_averaged", "averaged parameters", "#1b9e77", "o-"),
    ):
        points = [(step, m[name]) for step, m in lines if name in m]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("reward, success")
    if lines:
        axes.legend(frameon=False)
    return axes
