"""Checkpoints: everything a run needs to go on bit for bit."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from sgpo_jax import hosts as processes
from sgpo_jax.ledger import Ledger
from sgpo_jax.training import manifest
from sgpo_jax.training.progress import TrainProgress

_TIMEOUT = 10 * 365 * 86_400
"""Seconds: Orbax measures by a clock that may jump by days, and one that does must not
end a save. What stands still is noticed by the run's own watch."""


class CheckpointError(Exception):
    """A checkpoint could not be written or read."""


class Checkpoints:
    """Numbered checkpoints in a folder: the newest `keep` of them, and the best.

    A checkpoint holds a tree of arrays and a dict of plain JSON. It appears in the
    folder only when it is whole, with a checksum of every file. Only a step whose
    checksums hold is ever read; newer ones that do not are put aside under another
    name, and `problems` says what was wrong with them.

    Args:
      folder: where they are.
      keep: how many of the newest are kept.
      hosts: the processes of the run; all of them call the same methods.

    Attributes:
      problems: one line for each step that was put aside.
      best: a step that is kept however old it gets.

    Raises:
      CheckpointError: from any method, if the folder cannot be written; what was being
        written in the background reports at the next call.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        keep: int = 2,
        hosts: processes.ProcessGroup = processes.SingleProcess(),
    ):
        self._folder = folder.resolve()  # Orbax wants absolute paths.
        self._hosts = hosts
        self._writing: int | None = None
        self.problems: list[str] = []
        self.best: int | None = None
        self._newest = self._search()
        with self._reporting():
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    create=True,
                    preservation_policy=_Preserve(self, keep),
                    async_options=ocp.AsyncOptions(
                        timeout_secs=_TIMEOUT, post_finalization_callback=self._seal
                    ),
                ),
            )

    def latest(self) -> int | None:
        """Return the newest sound step, or None."""
        return self._newest

    def save(self, step: int, arrays: PyTree, plain: dict[str, Any]) -> None:
        """Start writing a checkpoint; the arrays may be donated afterwards."""
        with self._reporting():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            self._writing = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),  # pyright: ignore[reportCallIssue] dataclass made by orbax
                    plain=ocp.args.JsonSave(plain),  # pyright: ignore[reportCallIssue] dataclass made by orbax
                ),
            )
        self._newest = step

    def restore(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Read a checkpoint into the shapes, dtypes and shardings of `like`."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(jax.tree.map(_like, like)),  # pyright: ignore[reportCallIssue] dataclass made by orbax
                plain=ocp.args.JsonRestore(),
            ),
        )
        return restored["arrays"], restored["plain"]

    def plain(self, step: int) -> dict[str, Any]:
        """Read the plain JSON of a checkpoint, and no array."""
        args = ocp.args.Composite(plain=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["plain"]

    def check(self) -> None:
        """Raise if writing in the background has failed."""
        with self._reporting():
            self._manager.check_for_errors()

    def reload(self) -> int | None:
        """Wait, then look again which step is the newest sound one."""
        self.wait()
        self._newest = self._search()
        self._manager.reload()
        return self._newest

    def wait(self) -> None:
        """Wait for what is being written."""
        with self._reporting():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Wait for what is being written, then close."""
        try:
            self.wait()
        finally:
            with self._reporting():
                self._manager.close()

    def _search(self) -> int | None:
        """Find the newest sound step; process 0 looks, and puts newer ones aside."""

        def look() -> list[Any]:
            found = manifest.search(self._folder)
            lines = []
            for step, problem in found.unsound.items():
                name = manifest.put_aside(self._folder, step).name
                lines.append(
                    f"checkpoint {step} in {self._folder} is not used: {problem}; it is"
                    f" now called {name}"
                )
            return [found.newest, lines]

        with self._reporting():
            found = look() if self._hosts.index == 0 else None
            newest, lines = self._hosts.broadcast(found)
        self.problems += lines
        return newest

    def _seal(self) -> None:
        """Write the manifest into the folder that Orbax is about to rename."""
        if self._hosts.index == 0:
            (folder,) = self._folder.glob(f"{self._writing}.orbax-checkpoint-tmp*")
            manifest.write(folder)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Say in one line what went wrong with the folder.

        Orbax and TensorStore raise many types; all of them mean that nothing newer
        than the newest sound step can be relied on.
        """
        try:
            yield
        except (processes.Stopped, processes.LostPeer):
            raise
        except Exception as error:
            if processes.is_lost_peer(error):
                raise  # no fault of the folder, and worth another try
            text = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"cannot write checkpoints in {self._folder}: {type(error).__name__}:"
                f" {text}. Steps saved before are untouched; make room or make it"
                " writable, and give the same command again"
            ) from error


@dataclasses.dataclass(frozen=True)
class _Preserve(checkpoint_managers.PreservationPolicy):
    """Keeps the newest few and the best."""

    checkpoints: Checkpoints
    keep: int

    def should_preserve(
        self,
        checkpoints: Sequence[Any],
        *,
        context: Any,
    ) -> Sequence[bool]:
        del context
        newest = {info.step for info in checkpoints[-self.keep :]}
        kept = newest | {self.checkpoints.best}
        return [info.step in kept for info in checkpoints]


class ProgressStore:
    """Checkpoints of a run's progress.

    Args:
      checkpoints: where they are kept.
      beginning: progress at the start; saved as step `start` if nothing is there, so
        that there is always something to go back to.
      identity: what the run is (method, policy, plan, profile, ...); a checkpoint of
        another identity is refused.
      topology: what it runs on; a checkpoint written on another one is resharded, and
        `problems` says so.
      start: steps that `beginning` has done.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        beginning: TrainProgress,
        identity: dict[str, str],
        topology: dict[str, Any] | None = None,
        *,
        start: int = 0,
    ):
        self._checkpoints = checkpoints
        self._identity, self._topology = identity, topology or {}
        # Shapes only: updates donate the arrays themselves.
        self._like = jax.tree.map(_like, beginning.arrays)
        if checkpoints.latest() is None:
            self.save(start, beginning)

    @property
    def problems(self) -> list[str]:
        """Problems of the checkpoints found, in words."""
        return self._checkpoints.problems

    def save(self, step: int, progress: TrainProgress) -> None:
        """Write a checkpoint of a step; nothing to do if it is the newest already."""
        if step == self._checkpoints.latest():
            return
        plain = {
            "identity": self._identity,
            "topology": self._topology,
            "ledger": progress.ledger.to_json(),
            "rollbacks": progress.rollbacks,
            "logged": progress.logged,
            "pending": progress.pending,
            "best": progress.best,
            "initial": progress.initial,
            "behavior_version": progress.behavior_version,
        }
        if progress.best is not None:
            self._checkpoints.best = int(progress.best[0])
        self._checkpoints.save(step, progress.arrays, plain)

    def check(self) -> None:
        """Raise if writing in the background has failed."""
        self._checkpoints.check()

    def wait(self) -> None:
        """Wait until everything is written."""
        self._checkpoints.wait()

    def restore(self) -> tuple[int, TrainProgress]:
        """Return the newest sound step and its progress.

        Raises:
          ValueError: if it belongs to another run.
          CheckpointError: if no step is sound.
        """
        step = self._checkpoints.reload()
        if step is None:
            raise CheckpointError("; ".join(["no sound checkpoint", *self.problems]))
        (train, prompts, copies), plain = self._checkpoints.restore(step, self._like)
        if plain["identity"] != self._identity:
            raise ValueError(
                f"checkpoint {step} belongs to another run:"
                f" {_differences(plain['identity'], self._identity)}; use another"
                " folder, or undo what changed"
            )
        if plain["topology"] != self._topology:
            self.problems.append(
                f"checkpoint {step} was written on {_words(plain['topology'])} and goes"
                f" on on {_words(self._topology)}: same state, resharded; what follows"
                " equals an uninterrupted run up to the order of float sums"
            )
        return step, TrainProgress(
            train=train,
            prompts=prompts,
            copies=copies,
            behavior_version=plain["behavior_version"],
            ledger=Ledger(plain["ledger"]),
            rollbacks=plain["rollbacks"],
            logged=plain["logged"],
            pending=plain["pending"],
            best=plain["best"],
            initial=plain.get("initial"),
        )


def _differences(old: dict[str, str], new: dict[str, str]) -> str:
    """Name what differs between two identities."""
    return ", ".join(
        f"its {name} is {old.get(name)}, here it is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def _words(topology: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in topology.items())


def _like(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return np.zeros_like(x)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
