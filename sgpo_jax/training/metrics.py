"""Metrics of a run: JSON lines to read back, TensorBoard events to look at."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import tensorboardX

from sgpo_jax.artefacts import DamagedError, line_seal, open_line, seal_line
from sgpo_jax.bounds import shown


class MetricsWriter:
    """Writes each step's metrics to `metrics.jsonl` and to event files.

    The lines on disk may be ahead of the checkpoint a run goes on from: `rewind` drops
    what belongs to lost or abandoned steps before they are written again.
    """

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / "metrics.jsonl"
        self._seal = _last_seal(read_metrics(self._path, sound=True))
        self._lines = self._path.open("a")
        self._events: tensorboardX.SummaryWriter | None = None

    def rewind(self, lines: int) -> None:
        """Keep the first `lines` lines, and begin the event file anew after them.

        Raises:
          DamagedError: if there are fewer.
        """
        kept = read_metrics(self._path, sound=True)
        if len(kept) < lines:
            raise DamagedError(
                f"{self._path} holds {len(kept)} sound lines, the checkpoint counts"
                f" {lines}; put the file back, or start over in another folder"
            )
        self.close()
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(sealed_lines(kept[:lines]))
        temporary.replace(self._path)
        self._seal = _last_seal(kept[:lines])
        self._lines = self._path.open("a")
        self._events = self._new_events(kept[lines - 1]["step"] + 1 if lines else 0)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line; numbers also go to TensorBoard."""
        line = {"step": step, **metrics}
        self._lines.write(seal_line(line, self._seal) + "\n")
        self._seal = line_seal(line, self._seal)
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


def read_metrics(path: pathlib.Path, *, sound: bool = False) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`, or that of a folder; a line cut by a kill is left out.

    Args:
      path: of the file or its folder.
      sound: return the lines before the first damaged one instead of raising.

    Raises:
      DamagedError: naming the file and the line that is not what was written.
    """
    if path.is_dir():
        path = path / "metrics.jsonl"
    if not path.exists():
        return []
    *whole, cut = path.read_bytes().split(b"\n")
    texts = whole if _is_cut(cut) else [*whole, cut]
    lines: list[dict[str, Any]] = []
    seal = ""
    for number, text in enumerate(texts, start=1):
        try:
            line, seal = open_line(text.decode(), seal)
            step = line.get("step")
            if type(step) is not int or not 0 <= step < 2**63:
                raise ValueError(f"its step is {shown(step)}")
        except ValueError as error:
            if sound:
                break
            raise DamagedError(
                f"{path} line {number} is damaged: {error}; put the file back, or"
                " train again in another folder"
            ) from None
        lines.append(line)
    return lines


def _is_cut(text: bytes) -> bool:
    """Return whether what follows the last line break is no whole line."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


def sealed_lines(lines: Iterable[dict[str, Any]]) -> str:
    """Return lines as the text of `metrics.jsonl`."""
    texts, seal = [], ""
    for line in lines:
        texts.append(seal_line(line, seal) + "\n")
        seal = line_seal(line, seal)
    return "".join(texts)


def _last_seal(lines: Iterable[dict[str, Any]]) -> str:
    seal = ""
    for line in lines:
        seal = line_seal(line, seal)
    return seal
