"""What a run's training is made of: settings, progress, and where both are kept."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

from sgpo_jax import ledger
from sgpo_jax.planning.schedules import State
from sgpo_jax.training.state import TrainState

Metrics = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long to train, and on how much at a time.

    Attributes:
      steps: updates from fresh rollouts.
      rollouts: rollouts sampled per step.
      epochs: updates on the rollouts of one step; more than one makes the later
        updates off-policy, which is what clipping is for.
      eval_every: steps between evaluations and checkpoints.
      max_skipped: updates skipped in a row for a non-finite loss or gradient before
        the run goes back to its last checkpoint.
      max_rollbacks: how often it may go back before it gives up.
    """

    steps: int = 100
    rollouts: int = 256
    epochs: int = 1
    eval_every: int = 10
    max_skipped: int = 3
    max_rollbacks: int = 3

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lowest = 0 if field.name in ("max_rollbacks", "steps") else 1
            if value < lowest:
                raise ValueError(f"{field.name} must be at least {lowest}, got {value}")


@dataclasses.dataclass(kw_only=True)
class Progress:
    """What changes while a run goes on; all of it is in every checkpoint.

    Attributes:
      train: parameters and optimizer.
      schedule: cursors or beliefs of the schedule.
      ledger: compute spent so far.
      rollbacks: times the run went back; changes the noise that follows.
      logged: lines of metrics written so far.
      pending: metrics of the last step, if it is yet to be evaluated and logged; so a
        checkpoint is written before the evaluation, which may be cut short.
      best: step and held-out success of the best evaluation so far.
    """

    train: TrainState
    schedule: State
    ledger: ledger.Ledger
    rollbacks: int = 0
    logged: int = 0
    pending: Metrics | None = None
    best: list[float] | None = None

    def copy(self) -> "Progress":
        """Return what stays as it is while a step changes the original."""
        spent = ledger.Ledger(self.ledger.to_json())
        return dataclasses.replace(self, ledger=spent)


@runtime_checkable
class Store(Protocol):
    """Keeps the progress of a run; see `ProgressStore`."""

    def save(self, step: int, progress: Progress) -> None:
        """Write a checkpoint of a step."""
        ...

    def check(self) -> None:
        """Raise if a checkpoint could not be written."""
        ...

    def restore(self) -> tuple[int, Progress]:
        """Return the newest checkpoint."""
        ...


@runtime_checkable
class Log(Protocol):
    """Takes the metrics of steps; see `MetricsWriter`."""

    def write(self, step: int, metrics: Metrics) -> None:
        """Append a line."""
        ...

    def rewind(self, lines: int) -> None:
        """Drop all but the first lines: their steps will be done again."""
        ...
