"""Process of a trial: `sgpo train` in a run folder of its own."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

CODE = """
from sgpo_jax.rewards import reaping
reaping.end_with_parent({parent})
from sgpo_jax.cli import main
main()
"""
PATIENCE = 300.0
"""Seconds that a trial may take to save its work before it is killed."""


def trainer() -> tuple[str, ...]:
    """Return the command of a trial, which ends when this process does (on Linux)."""
    return sys.executable, "-c", CODE.format(parent=os.getpid()), "train"


def environment(threads: int) -> dict[str, str]:
    """Variables of a run on so many threads of the CPU; 0 leaves them to jax."""
    found = dict(os.environ)
    if threads:
        found["NPROC"] = str(threads)  # the size of XLA's thread pools
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            found[name] = str(threads)
    if threads == 1:
        flags = f"{found.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        found["XLA_FLAGS"] = flags.strip()
    return found


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """Share a file or a folder with another run: hard links, copies where none can be.

    What is there already stays; a half-made folder never has the name.
    """
    if not source.exists() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    if source.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary, copy_function=_link_or_copy)
    else:
        temporary.unlink(missing_ok=True)
        _link_or_copy(str(source), str(temporary))
    temporary.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@dataclasses.dataclass(kw_only=True)
class TrialProcess:
    """One trial's process.

    Attributes:
      folder: the run folder; what the process prints goes to `log.txt` there.
      arguments: of the command.
      command: what trains, before its arguments.
      threads: of the CPU; 0 for all.
    """

    folder: pathlib.Path
    arguments: Sequence[str]
    command: Sequence[str]
    threads: int = 0

    def __post_init__(self):
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, or go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command, *self.arguments],
                env=environment(self.threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ask_to_stop(self) -> None:
        """Send SIGTERM, upon which a run saves its work."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End it: by SIGTERM, and by SIGKILL if it does not."""
        self.ask_to_stop()
        if self._process is not None:
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def last_words(self) -> str:
        """The last line that it printed."""
        path = self.folder / "log.txt"
        text = path.read_text(errors="replace") if path.exists() else ""
        return (text.strip().splitlines() or ["nothing was printed"])[-1]
