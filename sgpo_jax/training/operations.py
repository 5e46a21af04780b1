"""Operational metrics: step time by phase, and model FLOPs utilization.

All of it is read from clocks the loop has anyway; nothing here waits for a device.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator

import jax

from sgpo_jax import chips
from sgpo_jax.ledger import Entry


def rates(
    *, sampling: Entry, training: Entry, devices: int, kind: str
) -> dict[str, float]:
    r"""Return tokens per second and model FLOP utilisation of sampling and training.

    .. math:: \mathrm{MFU} = \frac{\text{operations on real tokens}}
              {\text{seconds} \cdot \text{devices} \cdot \text{peak}}

    Rematerialisation and padding are no use to anybody and do not count
    (arXiv:2204.02311, appendix B). A prompt counts as often as it is encoded, once per
    group and row: sharing it lowers the operations and the seconds alike, so that the
    utilisation says how busy the chips are, and not how much work sharing saved. That
    is `prefix_sharing`, tokens without sharing over tokens with it.

    Args:
      sampling: what sampling cost.
      training: what the updates of all epochs cost.
      devices: how many did it.
      kind: `device_kind` of one; utilisation is left out if its peak is not known.

    >>> chip = Entry(flops=197e12, tokens=50, seconds=4.0)
    >>> rates(sampling=chip, training=chip, devices=1, kind="TPU v5 lite")["mfu/train"]
    0.25
    """
    chip = chips.of_kind(kind)
    found = {}
    for name, cost in (("sample", sampling), ("train", training)):
        if not cost.seconds:
            continue
        found[f"tokens_per_sec/{name}"] = cost.tokens / cost.seconds
        if chip is not None:
            peak = cost.seconds * devices * chip.peak_tflops * 1e12
            found[f"mfu/{name}"] = cost.flops / peak
    return found


class Goodput:
    """Share of the time since the start that went into steps that still count.

    Compilation outside steps, evaluation, saving and steps that were rolled back are
    the rest.

    >>> clock = iter([0.0, 10.0, 20.0]).__next__
    >>> goodput = Goodput(clock)
    >>> goodput.add(1, 8.0), goodput.add(1, 8.0)  # the first was rolled back
    (0.8, 0.4)
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._begun = clock()
        self._seconds: dict[int, float] = {}

    def add(self, step: int, seconds: float) -> float:
        """Take the seconds of a step just done; return the goodput so far."""
        kept = {s: t for s, t in self._seconds.items() if s < step}
        self._seconds = {**kept, step: seconds}
        return sum(self._seconds.values()) / (self._clock() - self._begun)


class Trace:
    """Profiles some steps; open the result with XProf or TensorBoard's profile tab."""

    def __init__(self, folder: pathlib.Path, steps: range):
        self.folder, self.steps = folder, steps
        self._running = False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Surround a step; a run that goes on in the middle traces what is left."""
        if step not in self.steps:
            yield
            return
        if not self._running:
            jax.profiler.start_trace(str(self.folder))
            self._running = True
        try:
            with jax.profiler.StepTraceAnnotation("step", step_num=step):
                yield
        except BaseException:
            self._stop()
            raise
        if step == self.steps[-1]:
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False


def parse_steps(text: str, *, most: int) -> range:
    """Return the steps `A:B`, both included; none for an empty string.

    Args:
      text: what the user wrote.
      most: the last step of the run.

    Raises:
      ValueError: if that is no range of the run's steps.

    >>> list(parse_steps("3:5", most=10)), list(parse_steps("", most=10))
    ([3, 4, 5], [])
    """
    if not text:
        return range(0)
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise ValueError(f"profile_steps must be A:B, such as 3:5, got {text!r}")
    if not 1 <= int(first) <= int(last) <= most:
        raise ValueError(f"profile_steps needs 1 <= A <= B <= {most}, got {text!r}")
    return range(int(first), int(last) + 1)
