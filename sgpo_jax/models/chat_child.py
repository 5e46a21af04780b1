"""Renders chat templates: the child process of `chat`, which imports only jinja2.

Reads one JSON object per line, writes one per line: `{"text": ...}`, or
`{"error": ...}` where the template refuses. Templates come with weights, from
strangers: they run in a sandbox without attributes of Python, with little memory, and
are killed at a deadline.
"""

import datetime
import json
import resource
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

MEMORY = 1 << 30


class Refused(Exception):
    """The template itself says that it cannot render these messages."""


def raise_exception(message: str) -> None:
    """What templates call when messages are not as they expect."""
    raise Refused(message)


def render(request: dict) -> str:
    """Render the template of a request with its variables."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(
        x, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(
        form
    )
    template = environment.from_string(request["template"])
    return template.render(**request["variables"])


def main() -> None:
    """Serve until the input ends, which it does when the parent dies."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        try:
            answer = {"text": render(json.loads(line))}
        # Whatever a template does wrong is an answer, not the end of the process.
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
