"""Metrics to the trackers people use; TensorBoard and JSON lines are always written."""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


class Trackers:
    """Sends the numbers of each step to wandb or trackio, which share an interface.

    Args:
      names: modules, each imported only here.
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


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError if a tracker is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"log.trackers names {name}, which is not installed: pip install {name}"
            )
