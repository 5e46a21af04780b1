"""Training settings, training state, and the store of both."""

import dataclasses
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import PyTree

from sgpo_jax import ledger
from sgpo_jax.bounds import Count, Natural, Range, bounded
from sgpo_jax.methods import History
from sgpo_jax.training.state import TrainState

Metrics = dict[str, Any]
"""Metrics of a step by name, see `METRICS`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class TrainConfig:
    """Settings of the training loop.

    Attributes:
      steps: updates from fresh rollouts.
      rollouts: rollouts sampled per step.
      eval_every: steps between evaluations and checkpoints.
      max_skipped: updates skipped in a row for a non-finite loss or gradient before
        the run goes back to its last checkpoint.
      max_rollbacks: how often it may go back before it gives up.
      stop_on_collapse: end with code 3 when success is less than half the initial
        policy's, by 4 standard errors or more; it is said and recorded in any case.
    """

    steps: Natural = 100
    rollouts: Annotated[int, Range(1, 10**7)] = 256
    eval_every: Count = 10
    max_skipped: Count = 3
    max_rollbacks: Natural = 3
    stop_on_collapse: bool = False


class PromptState(NamedTuple):
    """Prompt state of a method: sampler, history and baseline.

    Attributes:
      sampler: state of the prompt sampler.
      history: what training has seen of each prompt.
      baseline: state of the baseline tracker; empty without one.
      drift: movement of the policy so far, if the tracker reads it: mean absolute
        change of log-probabilities, summed over steps.
    """

    sampler: Any
    history: History
    baseline: Any
    drift: Any = np.zeros((), np.float32)


@dataclasses.dataclass(kw_only=True)
class TrainProgress:
    """Training state that changes; all of it is in every checkpoint.

    Attributes:
      train: parameters and optimizer.
      prompts: cursors, history and baselines of the prompts.
      copies: further copies of the trained parameters by name: "reference" (of the KL
        penalty), "averaged", "behavior" (of the sampler, if it may be stale).
      behavior_version: updates the sampler's parameters have seen.
      ledger: compute spent so far.
      rollbacks: times the run went back; changes the noise that follows.
      logged: lines of metrics written so far.
      pending: metrics of the last step, if it is yet to be evaluated and logged; so a
        checkpoint is written before the evaluation, which may be cut short.
      best: step and held-out success of the best evaluation so far.
      initial: held-out success of the initial policy, and its standard error.
    """

    train: TrainState
    prompts: PromptState
    ledger: ledger.Ledger
    copies: dict[str, PyTree] = dataclasses.field(default_factory=dict)
    behavior_version: int = 0
    rollbacks: int = 0
    logged: int = 0
    pending: Metrics | None = None
    best: list[float] | None = None
    initial: list[float] | None = None

    def copy(self) -> "TrainProgress":
        """Return what stays as it is while a step changes the original."""
        spent = ledger.Ledger(self.ledger.to_json())
        return dataclasses.replace(self, ledger=spent, copies=dict(self.copies))

    def record(self, step: int, metrics: Metrics) -> None:
        """Note that the pending metrics of a step were evaluated and logged."""
        self.logged += 1
        self.pending = None
        success = metrics.get("eval/success")
        if success is not None and (self.best is None or success > self.best[1]):
            self.best = [float(step), float(success)]

    @property
    def arrays(self) -> tuple[TrainState, PromptState, dict[str, PyTree]]:
        """Everything that a checkpoint stores as arrays."""
        return self.train, self.prompts, self.copies


@runtime_checkable
class Store(Protocol):
    """Keeps the progress of a run; see `ProgressStore`."""

    def save(self, step: int, progress: TrainProgress) -> None:
        """Write a checkpoint of a step."""
        ...

    def check(self) -> None:
        """Raise if a checkpoint could not be written."""
        ...

    def restore(self) -> tuple[int, TrainProgress]:
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
