"""Progress display of a run: bars on a terminal, lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from sgpo_jax.rewards import Problems

Advance = Callable[[int, str], None]


class Display:
    """Progress bars on a terminal, a line now and then elsewhere."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        every: float = 10.0,
        quiet: bool = False,
    ):
        self.console = console or Console(stderr=True, quiet=quiet)
        self._every = every

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False)

    def lines(self, texts: list[str]) -> None:
        """Print lines once: they are taken out of the list."""
        while texts:
            self.say(texts.pop(0))

    def problems(self, problems: Problems) -> None:
        """Print what could not be scored, if anything."""
        if problems:
            self.say(str(problems))

    @contextlib.contextmanager
    def progress(self, name: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        """Show progress; call the result with (done, text), "" keeps the last text."""
        show = self._bar if self.console.is_terminal else self._lines
        with show(name, total, start) as advance:
            yield advance

    @contextlib.contextmanager
    def _bar(self, name: str, total: int, start: int) -> Iterator[Advance]:
        # What does not fit is cut off the text, never off name, bar, step and time.
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns = (
            TextColumn("{task.description}", table_column=Column(max_width=17)),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[text]}", table_column=rest),
        )
        with Progress(*columns, console=self.console, expand=True) as bars:
            kept = ""
            task = bars.add_task(name, total=total, completed=start, text="")

            def advance(done: int, text: str) -> None:
                nonlocal kept
                kept = text or kept
                bars.update(task, completed=done, text=kept)

            yield advance

    @contextlib.contextmanager
    def _lines(self, name: str, total: int, start: int) -> Iterator[Advance]:
        del start
        began = last = time.monotonic()
        kept = ""

        def advance(done: int, text: str) -> None:
            nonlocal last, kept
            kept = text or kept
            now = time.monotonic()
            if now - last >= self._every or done == total:
                last = now
                self.say(f"{name} {done}/{total} {now - began:.0f}s {kept}")

        yield advance
