"""Named methods: each algorithm of the literature as a value, one function per name.

The docstring of each gives paper, equation, defaults, and where we deviate. One module
per family; a module lists its functions in `METHODS`.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping

from sgpo_jax.methods.method import Method
from sgpo_jax.methods.serialize import locate
from sgpo_jax.methods.zoo import (
    adaptive,
    group_relative,
    profiled,
    regression,
    sequence,
    surrogate,
)

_FAMILIES = (group_relative, surrogate, sequence, regression, adaptive, profiled)

ZOO: Mapping[str, Callable[[], Method]] = {
    make.__name__: make for family in _FAMILIES for make in family.METHODS
}
"""Every named method by its name."""


def named(name: str) -> Method:
    """Method of a name, or of "package.module:function" outside the package.

    Raises:
      ValueError: if there is none, with the names there are.
    """
    if name in ZOO:
        return ZOO[name]()
    if ":" not in name:
        close = difflib.get_close_matches(name, ZOO, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(
            f"unknown method {name!r}; {hint}known: {', '.join(ZOO)}, or a function of"
            " your own as package.module:function"
        )
    found = locate(name)
    made = found() if inspect.isfunction(found) else found
    if not isinstance(made, Method):
        raise ValueError(
            f"{name} is {type(made).__name__}; it must be a methods.Method, or a"
            " function without arguments that returns one"
        )
    return made


def label_of(name: str) -> str:
    """Label of a method in a run: its name, or that of its function.

    >>> label_of("my_lab.algorithms:mine")
    'mine'
    """
    return name.rpartition(":")[2].rpartition(".")[2]
