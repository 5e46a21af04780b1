"""Metrics to the trackers people use; TensorBoard and JSON lines are always written."""

import datetime
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

_MODULES = {"goodput": "ml_goodput_measurement"}


class Trackers:
    """Sends the numbers of each step to wandb, trackio or Cloud Logging's goodput.

    wandb and trackio share an interface; `goodput` is a :class:`GoodputLog`.

    Args:
      names: trackers; the module of each is imported only here.
      project: groups runs.
      run: names this one.
      folder: where a tracker may write.
      config: the resolved experiment.

    Raises:
      ValueError: if one is not installed; says how to.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        project: str,
        run: str,
        folder: pathlib.Path,
        config: Mapping[str, Any],
    ):
        check_trackers(names)
        self._runs = []
        for name in names:
            if name == "goodput":
                self._runs.append(GoodputLog(project, run))
                continue
            module = importlib.import_module(name)
            # trackio takes no folder; it keeps a database of its own.
            place = {"dir": str(folder)} if name == "wandb" else {}
            module.init(project=project, name=run, config=dict(config), **place)
            self._runs.append(module)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Send the numbers among the metrics."""
        numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
        for run in self._runs:
            run.log(numbers, step=step)

    def close(self) -> None:
        """Finish the runs."""
        for run in self._runs:
            run.finish()


class GoodputLog:
    """Writes when steps began to Google's Cloud Logging, for its goodput dashboards.

    The recorder of `ml-goodput-measurement` needs a project with credentials; without
    them it raises as it starts. The `goodput` among a run's metrics needs neither.

    Args:
      project: name of the log.
      run: name of the job.
      recorder: for tests; None for one that writes to Cloud Logging.
    """

    def __init__(self, project: str, run: str, *, recorder: Any = None):
        if recorder is None:
            module = importlib.import_module(_MODULES["goodput"] + ".src.goodput")
            recorder = module.GoodputRecorder(
                job_name=run, logger_name=project, logging_enabled=True
            )
        self._recorder = recorder
        self._recorder.record_job_start_time()

    def log(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Record a step that has just ended; the line of step 0 is an evaluation."""
        if "step_time_sec" not in numbers:
            return
        # Saving and evaluating come between the step and its line.
        outside = numbers.get("time/save", 0.0) + numbers.get("time/eval", 0.0)
        taken = datetime.timedelta(seconds=numbers["step_time_sec"] + outside)
        began = datetime.datetime.now(datetime.UTC) - taken
        self._recorder.record_step_start_time(step, began)

    def finish(self) -> None:
        """Record the end of the job."""
        self._recorder.record_job_end_time()


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError if a tracker is not installed."""
    for name in names:
        if importlib.util.find_spec(_MODULES.get(name, name)) is None:
            package = "ml-goodput-measurement" if name == "goodput" else name
            raise ValueError(
                f"log.trackers names {name}, which is not installed: pip install"
                f" {package}"
            )
