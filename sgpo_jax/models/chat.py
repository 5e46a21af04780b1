"""Chat templates, rendered in a child process that is killed at a deadline."""

import atexit
import importlib.util
import json
import os
import pathlib
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]

LONGEST = 16 << 20
"""Most bytes a template may write."""


class _Child:
    """One renderer, started when needed, and again after it was killed."""

    def __init__(self):
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def request(self, request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        with self._lock:
            try:
                return self._ask(request, deadline)
            # A deadline, an end of the child, an interrupt: its state is unknown.
            except BaseException:
                self.stop()
                raise

    def _ask(self, request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        # An interrupt in the terminal reaches the child as well.
        if self._process is None or self._process.poll() is not None:
            self.stop()
            path = pathlib.Path(__file__).with_name("chat_child.py")
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            # Starting it takes a while, which is not the template's fault.
            self._exchange({"template": "", "variables": {}}, 60.0)
        return self._exchange(request, deadline)

    def _exchange(self, request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        process = self._process
        assert process and process.stdin and process.stdout
        end = time.monotonic() + deadline
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        answer = b""
        while not answer.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise ValueError(f"the chat template takes longer than {deadline} s")
            part = os.read(process.stdout.fileno(), 1 << 16)
            answer += part
            if not part or len(answer) > LONGEST:
                raise ValueError("the chat template ended its process, or writes on")
        return json.loads(answer)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process = None


_CHILD = _Child()
atexit.register(_CHILD.stop)


def render(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    variables: Mapping[str, Any] | None = None,
    deadline: float = 5.0,
) -> str:
    """Return the text a chat template makes of messages.

    Args:
      template: in the language of jinja2.
      messages: with "role" and "content" each.
      add_generation_prompt: end where the assistant begins.
      variables: what else the template may read, such as `bos_token` or `tools`.
      deadline: seconds it may take.

    Raises:
      ValueError: if the template fails, refuses, or takes too long.

    Example:
      >>> render("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}",
      ...        [{"role": "user", "content": "Hi"}])
      'user: Hi'
    """
    if importlib.util.find_spec("jinja2") is None:
        raise ValueError("chat templates need jinja2: pip install 'sgpo_jax[hf]'")
    given = {
        # Templates test whether they are none; an undefined one is not.
        "tools": None,
        "documents": None,
        **(variables or {}),
        "messages": list(messages),
        "add_generation_prompt": add_generation_prompt,
    }
    answer = _CHILD.request({"template": template, "variables": given}, deadline)
    if "error" in answer:
        raise ValueError(f"the chat template fails: {answer['error']}")
    return answer["text"]
