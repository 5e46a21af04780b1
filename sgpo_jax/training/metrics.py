"""Metrics of a run: JSON lines to read back, TensorBoard events to look at."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tensorboardX


class MetricsWriter:
    """Writes each step's metrics to `metrics.jsonl` and to event files.

    The lines on disk may be ahead of the checkpoint a run goes on from: `rewind` drops
    what belongs to lost or abandoned steps before they are written again.
    """

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / "metrics.jsonl"
        self._lines = self._path.open("a")
        self._events: tensorboardX.SummaryWriter | None = None

    def rewind(self, lines: int) -> None:
        """Keep the first `lines` lines, and begin the event file anew after them.

        Raises:
          ValueError: if there are fewer.
        """
        kept = read_metrics(self._path)
        if len(kept) < lines:
            raise ValueError(
                f"{self._path} holds {len(kept)} sound lines, the checkpoint counts"
                f" {lines}; put the file back, or start over in another folder"
            )
        self.close()
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(x) + "\n" for x in kept[:lines]))
        temporary.replace(self._path)
        self._lines = self._path.open("a")
        self._events = self._new_events(kept[lines - 1]["step"] + 1 if lines else 0)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line; numbers also go to TensorBoard."""
        self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
        self._lines.flush()
        if self._events is None:
            self._events = self._new_events(step)
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._events.add_scalar(name, value, step)

    def _new_events(self, purge_step: int) -> tensorboardX.SummaryWriter:
        """Begin an event file, in place of what earlier ones hold from a step on."""
        return tensorboardX.SummaryWriter(
            str(self._folder / "tensorboard"),
            purge_step=purge_step,
            write_to_disk=True,
        )

    def close(self) -> None:
        """Flush and close both files."""
        self._lines.close()
        if self._events is not None:
            self._events.close()


class Discard:
    """Writes nothing: the log of every process but the first."""

    def rewind(self, lines: int) -> None:
        """Do nothing."""

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`, or that of a folder; a line cut by a kill is left out."""
    if path.is_dir():
        path = path / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
