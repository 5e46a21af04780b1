"""`sgpo methods`: the algorithms that can be trained."""

import inspect
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from sgpo_jax.methods import ZOO, Method, to_json


def main(argv: Sequence[str]) -> int:
    """Print the named methods with paper, parts that differ from the default, needs."""
    if argv:
        print("usage: sgpo methods")
        return 0 if argv[0] in ("-h", "--help") else 2
    table = Table(title="methods", show_lines=True)
    for column in ("name", "what it is", "parts", "needs"):
        table.add_column(column, overflow="fold")
    for name, make in ZOO.items():
        method = make()
        table.add_row(
            name, headline(make), parts(method), ", ".join(sorted(method.needs))
        )
    Console().print(table)
    return 0


def headline(make: Callable[[], Method]) -> str:
    """First line of a method's docstring: what it is, and its paper."""
    return (inspect.getdoc(make) or "").partition("\n")[0]


def parts(method: Method) -> str:
    """Parts that differ from those of the default method."""
    plain, given = to_json(Method()), to_json(method)
    changed = [name for name in given if given[name] != plain[name]]
    return "\n".join(f"{name}={getattr(method, name)}" for name in changed)
