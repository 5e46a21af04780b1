"""A verifier that is a program: for code, with a sandbox of one's own."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any


def run(completion: str, query: Mapping[str, Any], *, command: Any) -> float:
    """External command: the number it prints.

    It reads one JSON object on standard input, with the completion, prompt, reference
    and metadata, and prints the reward as the last line of its output. Anything else,
    an exit status other than 0 included, is unscorable. It is ended with the scorer's
    deadline. It is the place for a sandbox: nothing here confines it.

    Raises:
      RuntimeError: if it failed or printed no number.
    """
    keys = ("prompt", "reference", "metadata")
    body = {"completion": completion, **{key: query.get(key) for key in keys}}
    done = subprocess.run(command, input=json.dumps(body).encode(), capture_output=True)
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip()[-150:]
        raise RuntimeError(f"{command[0]} exited with {done.returncode}: {tail}")
    lines = done.stdout.decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    try:
        return float(last)
    except ValueError:
        raise RuntimeError(f"{command[0]} printed {last[:80]!r}, no number") from None


def prepared(command: str) -> dict[str, Any]:
    """Options of `run` for a command line.

    Raises:
      ValueError: if there is no such program.
    """
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None:
        raise ValueError(f"there is no program {words[0] if words else command!r}")
    return {"command": words}
