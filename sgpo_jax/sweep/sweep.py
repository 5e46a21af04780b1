"""A sweep: trials as run folders, at equal compute, several at a time."""

import dataclasses
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sgpo_jax.artefacts import read_json, write_json
from sgpo_jax.hosts import RESTART, Stopped
from sgpo_jax.pipeline import Display, RunFolder, UserError
from sgpo_jax.sweep import objective, process, study
from sgpo_jax.sweep.space import Space
from sgpo_jax.training import read_metrics

if TYPE_CHECKING:
    import optuna

AGAIN = frozenset({RESTART, 130, 134, 137, -2, -6, -9, -15})
"""Exit codes of a process that was stopped; the same command goes on."""
ATTEMPTS = 3
"""Times a stopped trial goes on, and failures in a row that end the sweep."""
STRETCH = 2
"""Longest trial, in steps of the default with as many rollouts.

A setting that leaves much out needs more steps for its compute.
"""


class TrialError(Exception):
    """Trials fail, and the sweep cannot go on; the message says where to look."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A search for the best options of one method.

    Attributes:
      folder: of the sweep.
      space: its hyper-parameters.
      options: of `sgpo run`, the same for every trial.
      default: the options' text without a search, by name: trial 0.
      label: of the method.
      steps: of the default.
      rollouts: of the default, per step.
      eval_every: steps between the default's evaluations.
      planned: whether what a step draws depends on the number of steps.
      shared: files of a run folder that all trials have in common.
      trials: how many.
      jobs: trials at a time.
      sampler: name of a sampler.
      pruner: name of a pruner.
      objective: name of an objective.
      budget: total compute of a trial; 0 for that of trial 0.
      seed: root of the sampler's randomness.
      command: what trains, before its options.
    """

    folder: pathlib.Path
    space: Space
    options: tuple[str, ...]
    default: Mapping[str, str]
    label: str
    steps: int
    rollouts: int
    eval_every: int
    planned: bool = False
    shared: tuple[str, ...] = ()
    trials: int
    jobs: int = 1
    sampler: str = "gp"
    pruner: str = "median"
    objective: str = "area"
    budget: float = 0.0
    seed: int = 0
    command: Sequence[str] = dataclasses.field(default_factory=process.trainer)

    def open(self) -> "optuna.Study":
        """Return the study of the folder, made if it is not there.

        Raises:
          UserError: if the folder holds a sweep of other settings.
        """
        path = self.folder / "sweep.json"
        settings = {
            "search": [repr(one) for one in self.space],
            "options": list(self.options),
            "objective": self.objective,
            "budget": self.budget,
            "seed": self.seed,
        }
        if path.exists():
            saved = read_json(path)
            for name, value in settings.items():
                if saved.get(name) != value:
                    raise UserError(
                        f"{self.folder} holds a sweep with another {name}:"
                        f" {saved.get(name)}, not {value}; use another --out, or"
                        " delete the folder"
                    )
        write_json(path, settings)
        found = study.open_study(self.folder, self.pruner)
        if not found.get_trials(deepcopy=False):
            values = {one.name: one.value(self.default[one.name]) for one in self.space}
            found.enqueue_trial(values)
        return found

    def trial_folder(self, number: int) -> pathlib.Path:
        """Run folder of a trial."""
        return self.folder / "trials" / f"{number:03d}"

    def lines(self, number: int) -> list[dict[str, Any]]:
        """Metrics of a trial so far."""
        folder = RunFolder(self.trial_folder(number)).method(self.label)
        return read_metrics(folder / "metrics.jsonl", sound=True)

    def arguments(self, number: int, options: Mapping[str, str]) -> list[str]:
        """Return the options of a trial, evaluated as often as the default per rollout.

        Args:
          number: of the trial; the default, 0, is trained as it is.
          options: those that are searched.
        """
        steps, every = self.steps, self.eval_every
        if number:
            share = self.rollouts / int(options.get("train.rollouts", self.rollouts))
            stretch = 1 if self.planned else STRETCH
            steps = math.ceil(steps * share * stretch)
            every = max(1, round(every * share))
        return [
            *without(self.options, "--train.steps", "--train.eval-every", *options),
            *(f"--{name}={text}" for name, text in options.items()),
            *("--train.steps", str(steps), "--train.eval-every", str(every)),
            *("--out", str(self.trial_folder(number))),
        ]

    def total_compute(self, found: "optuna.Study") -> float:
        """Return the compute of a trial; 0 until trial 0 has shown it."""
        return self.budget or found.user_attrs.get("budget", 0.0)

    def run(
        self,
        found: "optuna.Study",
        *,
        display: Display,
        asked: Callable[[], str] = str,
        on_trial: Callable[[], object] = lambda: None,
        poll: float = 1.0,
    ) -> None:
        """Run the trials that are missing.

        Args:
          found: the study.
          display: shows progress.
          asked: returns the signal that asked to stop, "" for none.
          on_trial: called after each trial.
          poll: seconds between two looks at the trials.

        Raises:
          Stopped: by a signal; trials have saved their work.
          TrialError: if trials fail.
        """
        live: list[_LiveTrial] = []
        waiting = study.resumed(found)
        try:
            with display.progress("sweep", self.trials) as advance:
                while True:
                    if name := asked():
                        raise Stopped(name)
                    allowed = self.jobs if self.total_compute(found) else 1
                    while len(live) < allowed and (one := self._next(found, waiting)):
                        live.append(one)
                    if not live:
                        return
                    time.sleep(poll)
                    for one in tuple(live):
                        if said := self._look(found, one):
                            live.remove(one)
                            display.say(said)
                            on_trial()
                    ended = [x.state.is_finished() for x in found.get_trials(False)]
                    advance(sum(ended), _progress(found, live))
        finally:
            for one in live:
                one.process.ask_to_stop()
            for one in live:
                one.process.stop()

    def _next(
        self, found: "optuna.Study", waiting: list["optuna.Trial"]
    ) -> "_LiveTrial | None":
        """Start a trial, one that was stopped first; None if there is none left."""
        from optuna.trial import TrialState

        while True:
            if waiting:
                trial = waiting.pop(0)
            else:
                states = [x.state for x in found.get_trials(deepcopy=False)]
                if len(states) - states.count(TrialState.WAITING) >= self.trials:
                    return None
                trial = study.ask(
                    found, self.space, sampler=self.sampler, seed=self.seed
                )
            options = study.suggest(trial, self.space)
            if not self._repeats(found, trial):
                break
        folder = self.trial_folder(trial.number)
        for name in self.shared if trial.number else ():
            process.link(self.trial_folder(0) / name, folder / name)
        # The CPU is shared; an accelerator has threads enough beside it.
        threads = max(1, (os.cpu_count() or 1) // self.jobs) if self.jobs > 1 else 0
        known = found.get_trials(deepcopy=False)[trial.number].intermediate_values
        one = _LiveTrial(
            trial=trial,
            options=options,
            reported=frozenset(known),
            process=process.TrialProcess(
                folder=folder,
                arguments=self.arguments(trial.number, options),
                command=self.command,
                threads=threads,
            ),
        )
        one.process.start()
        return one

    def _repeats(self, found: "optuna.Study", trial: "optuna.Trial") -> bool:
        """Give a trial the result of an earlier one with the same values, if any.

        Runs are reproducible bit for bit: it would have the same again.
        """
        from optuna.trial import TrialState

        for one in found.get_trials(
            deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)
        ):
            if one.params == trial.params:
                for tenth, value in one.intermediate_values.items():
                    trial.report(value, tenth)
                trial.set_user_attr("same as", one.number)
                if one.state == TrialState.COMPLETE:
                    found.tell(trial, one.value)
                else:
                    found.tell(trial, state=TrialState.PRUNED)
                return True
        return False

    def _look(self, found: "optuna.Study", one: "_LiveTrial") -> str:
        """Look at a running trial; return what became of it, "" while it runs."""
        from optuna.trial import TrialState

        code, number = one.process.code, one.trial.number
        if code in AGAIN and one.attempts < ATTEMPTS:
            one.attempts += 1
            one.process.start()
            return ""
        if code and not number:
            raise TrialError(
                f"trial 0, the default, failed with {code}: {one.process.last_words}"
                f" (all of it: {one.process.folder / 'log.txt'})"
            )
        lines = self.lines(number)
        if code == 0 and not self.total_compute(found):
            # A duplicate of its last evaluation would not change it.
            spent = [x["total_flops"] for x in lines if "eval/success" in x]
            found.set_user_attr("budget", spent[-1])
        if not (budget := self.total_compute(found)):
            return ""
        values = objective.values(self.objective, lines, budget, ended=code == 0)
        # One by one, so that the same trials are pruned whenever this process looks.
        for value in values[one.tenths :]:
            one.report(value)
            if number and one.tenths < objective.TENTHS and one.trial.should_prune():
                return self._end(found, one, TrialState.PRUNED, "pruned")
        if one.tenths == objective.TENTHS:
            return self._end(found, one, TrialState.COMPLETE, "done")
        if not code:
            return ""
        one.trial.set_user_attr("exit code", code)
        # One that diverged before the first tenth has at least begun.
        begun = objective.values(self.objective, lines, budget, ended=True)
        if begun and not one.tenths:
            one.report(begun[0])
        state = TrialState.PRUNED if begun else TrialState.FAIL
        said = self._end(found, one, state, f"failed with {code}")
        self._check_failures(found, one)
        return said

    def _end(
        self, found: "optuna.Study", one: "_LiveTrial", state: Any, what: str
    ) -> str:
        """Stop a trial and tell the study; return what became of it.

        Checkpoints of all but the best are deleted.
        """
        one.process.stop()
        whole = state.name == "COMPLETE"
        found.tell(one.trial, one.values[-1] if whole else None, state=state)
        best = _best(found)
        for trial in found.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number != best:
                folder = RunFolder(self.trial_folder(trial.number)).method(self.label)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        options = ", ".join(
            f"{name.rpartition('.')[2]} {text}" for name, text in one.options.items()
        )
        share = "" if whole else f" at {one.tenths / objective.TENTHS:.0%}"
        value = f", {self.objective} {one.values[-1]:.3f}" if one.values else ""
        return f"trial {one.trial.number} ({options}): {what}{share}{value}"

    def _check_failures(self, found: "optuna.Study", one: "_LiveTrial") -> None:
        """Give up after several trials in a row without a single evaluation."""
        from optuna.trial import TrialState

        last = found.get_trials(deepcopy=False)[-ATTEMPTS:]
        if len(last) == ATTEMPTS and all(x.state == TrialState.FAIL for x in last):
            raise TrialError(
                f"{ATTEMPTS} trials in a row failed, the last with"
                f" {one.process.last_words} (all of it:"
                f" {one.process.folder / 'log.txt'}); the same command goes on"
            )


@dataclasses.dataclass(kw_only=True)
class _LiveTrial:
    """A trial whose process runs."""

    trial: "optuna.Trial"
    options: dict[str, str]
    process: process.TrialProcess
    reported: frozenset[int] = frozenset()
    attempts: int = 0
    values: list[float] = dataclasses.field(default_factory=list)

    @property
    def tenths(self) -> int:
        """Shares of the budget that it has spent."""
        return len(self.values)

    def report(self, value: float) -> None:
        """Report the value of the next tenth."""
        self.values.append(value)
        if self.tenths not in self.reported:
            self.trial.report(value, self.tenths)


def without(words: Sequence[str], *names: str) -> list[str]:
    """Leave options with their values out of a command line.

    >>> without(["--seed", "1", "--data=x", "--lr", "2"], "--seed", "data")
    ['--lr', '2']
    """
    sought = {name.removeprefix("--") for name in names}
    kept, skip = [], False
    for word in words:
        name, equals, _ = word.removeprefix("--").partition("=")
        if skip:
            skip = False
        elif word.startswith("--") and name.replace("_", "-") in sought:
            skip = not equals
        else:
            kept.append(word)
    return kept


def _best(found: "optuna.Study") -> int | None:
    """Number of the best whole trial; None if there is none."""
    try:
        return found.best_trial.number
    except ValueError:
        return None


def _progress(found: "optuna.Study", live: Sequence[_LiveTrial]) -> str:
    best = _best(found)
    known = "" if best is None else f"best {found.best_value:.3f} (trial {best}) "
    shares = ", ".join(
        f"{one.trial.number}: {one.tenths / objective.TENTHS:.0%}" for one in live
    )
    return f"{known}{shares}".strip()
