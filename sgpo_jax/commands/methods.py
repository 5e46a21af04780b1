"""`sgpo methods`: the algorithms that can be trained."""

import inspect
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from sgpo_jax.methods import ZOO, Method, named, to_json

USAGE = "usage: sgpo methods [NAME...]   with names: equation, defaults, parts"


def main(argv: Sequence[str]) -> int:
    """List the named methods, or describe some: names, or package.module:function."""
    if any(name in ("-h", "--help") for name in argv):
        print(USAGE)
        return 0
    try:
        found = [(name, named(name)) for name in argv]
    except ValueError as error:
        print(f"sgpo: error: {error}", file=sys.stderr)
        return 2
    for name, method in found:
        print(describe(name, method))
    if not argv:
        table = Table(title="methods (sgpo methods NAME: equation, defaults, parts)")
        for column in ("name", "what it is", "needs"):
            table.add_column(column, no_wrap=column == "name")
        for name, make in ZOO.items():
            needs = ", ".join(sorted(make().needs))
            table.add_row(name, headline(make), needs)
        Console().print(table)
    return 0


def describe(name: str, method: Method) -> str:
    """Docstring of a method, what it needs, and its parts unlike the default's."""
    lines = [name, ""]
    if name in ZOO:
        lines += [inspect.getdoc(ZOO[name]) or "", ""]
    lines.append(f"needs: {', '.join(sorted(method.needs)) or 'nothing'}")
    return "\n".join([*lines, *parts(method), ""])


def headline(make: Callable[[], Method]) -> str:
    """First line of a method's docstring: what it is, and its paper."""
    return (inspect.getdoc(make) or "").partition("\n")[0]


def parts(method: Method) -> list[str]:
    """Parts that differ from those of the default method, a line each."""
    plain, given = to_json(Method()), to_json(method)
    changed = [name for name in given if given[name] != plain[name]]
    return [f"{name}: {getattr(method, name)}" for name in changed]
