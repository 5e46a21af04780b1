"""Verifiers that do what verifiers must not do; imported in the scoring process."""

import os
import signal
import sys
import time

import numpy as np


def obey(completion: str, reference: str, **metadata):
    """Do what the completion says."""
    return _ACTS[completion](reference)


def slow(completion: str, reference: str):
    """Take as many seconds as the completion says."""
    time.sleep(float(completion))
    return 1.0


def meet(completion: str, reference: str):
    """Wait for another process that scores at the same time (a folder to meet in)."""
    here = os.path.join(completion, str(os.getpid()))
    open(here, "w").close()
    due = time.monotonic() + 30.0
    while len(os.listdir(completion)) < int(reference) and time.monotonic() < due:
        time.sleep(0.01)
    return float(len(os.listdir(completion)) >= int(reference))


def metadata(completion: str, reference: str, *, text: str, numbers: list):
    """Check that everything arrived unchanged."""
    return text == completion and numbers == [1, 2.5, None]


def columns(prompts, completions, *, reference, bonus, **_):
    """Reward function in the style of TRL."""
    return [
        None if c == "?" else float(p + c == r) + b
        for p, c, r, b in zip(prompts, completions, reference, bonus, strict=True)
    ]


def unfork(completion: str, reference: str):
    """Leave a process behind that writes the file named by the completion."""
    if os.fork() == 0:
        time.sleep(1.0)
        open(completion, "w").close()
        os._exit(0)
    return 1.0


def count_calls(completion: str, reference: str):
    """Poison: change what later calls return."""
    _CALLS.append(completion)
    return float(len(_CALLS))


def wear_out(completion: str, reference: str):
    """Raise after calls with another completion in this process."""
    time.sleep(0.02)  # that more than one process is at work
    _CALLS.append(completion)
    if {*_CALLS} != {completion}:
        raise OSError("Too many open files")
    return 1.0


def wear_out_together(completions, reference, **_):
    """Likewise, in TRL's convention."""
    return [wear_out(*pair) for pair in zip(completions, reference, strict=True)]


def poison(completion: str, reference: str):
    """Have built-in verifiers reject everything in this process."""
    from sgpo_jax.rewards import verifiers

    verifiers.read_quantity = None
    return 1.0


def has_module(completion: str, reference: str):
    """Whether the scoring process has imported the module."""
    return completion in sys.modules


_CALLS: list[str] = []


def _spin(_):
    while True:
        pass


def _raise(error):
    raise error


_ACTS = {
    "right": lambda r: 1.0,
    "true": lambda r: True,
    "numpy": lambda r: np.float32(0.5),
    "none": lambda r: None,
    "nan": lambda r: float("nan"),
    "inf": lambda r: float("inf"),
    "text": lambda r: "1.0",
    "list": lambda r: [1.0],
    "huge": lambda r: 10**400,
    "raise": lambda r: _raise(KeyError("a" * 1_000_000)),
    "surrogate": lambda r: _raise(ValueError("\ud800")),
    "exit": lambda r: sys.exit(3),
    "interrupt": lambda r: _raise(KeyboardInterrupt()),
    "recursion": lambda r: _ACTS["recursion"](r),
    "memory": lambda r: bytearray(1 << 40),
    "grow": lambda r: [np.empty(1 << 21) for _ in range(1 << 20)],
    "print": lambda r: float(print("x" * (1 << 20)) is None),
    "stderr": lambda r: float(os.write(2, b"x" * (1 << 20)) > 0),
    "hang": _spin,
    "segfault": lambda r: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": lambda r: os.abort(),
    "quit": lambda r: os._exit(0),
    "close": lambda r: os.closerange(0, 64),
}
