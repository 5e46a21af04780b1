"""Renders chat templates: the child process of `chat`, which needs only jinja2.

Reads one JSON object per line, writes one per line: `{"text": ...}`, or
`{"error": ...}` where the template refuses. Templates are published with weights, by
strangers: they run in a sandbox without attributes of Python, with little memory, and
are killed at a deadline.
"""

import datetime
import functools
import json
import resource
import sys
from typing import TYPE_CHECKING, Any

# jinja2 is imported where it is used: the module imports without it.
if TYPE_CHECKING:
    import jinja2

MEMORY = 1 << 30


class Refused(Exception):
    """Error raised by the template: it cannot render these messages."""


def raise_exception(message: str) -> None:
    """Raise an error of the template: messages are not as it expects."""
    raise Refused(message)


def strftime_now(form: str) -> str:
    """Return the current date, for templates."""
    return datetime.datetime.now().strftime(form)


def tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as models know it; jinja2's own filter is for HTML."""
    return json.dumps(
        x,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


@functools.cache
def environment() -> "jinja2.Environment":
    """Return the sandbox with what templates of published models call."""
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """Tag of templates around the assistant's turns, which changes no text."""

        tags = {"generation"}  # noqa: RUF012 as the base class declares it

        def parse(self, parser: Any) -> Any:
            """Read the statements between the marks."""
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            # A scope of its own, as transformers has it.
            return jinja2.nodes.Scope(body).set_lineno(line)

    Generation.tags = {"generation"}
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = strftime_now
    return made


@functools.lru_cache(maxsize=8)
def compiled(template: str) -> "jinja2.Template":
    """Return a template as a program; cached, since a run uses one."""
    return environment().from_string(template)


def render(request: dict) -> str:
    """Render the template of a request with its variables."""
    return compiled(request["template"]).render(**request["variables"])


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
