"""Pages of the API: each public name of each package, from its docstring."""

import ast
import importlib
import importlib.util
import inspect
import itertools
import pathlib
import re
import textwrap
from typing import TypeVar

import mirrored

PACKAGES = {
    "sgpo_jax": "Front door",
    "sgpo_jax.methods": "Methods and their parts",
    "sgpo_jax.advantages": "Advantages and tracked baselines",
    "sgpo_jax.losses": "Losses and aggregation",
    "sgpo_jax.theory": "Theory: signal, estimation, cost",
    "sgpo_jax.optimizers": "Optimizers",
    "sgpo_jax.kernels": "Shared-prefix attention",
    "sgpo_jax.kernels.shared_prefix_attention": "Shared-prefix attention: layouts",
    "sgpo_jax.packing": "Packing",
    "sgpo_jax.models": "Models and tokenizers",
    "sgpo_jax.models.pretrained": "Published checkpoints",
    "sgpo_jax.data": "Data",
    "sgpo_jax.rewards": "Rewards and verifiers",
    "sgpo_jax.sampling": "Sampling",
    "sgpo_jax.rollouts": "Rollouts with rewards",
    "sgpo_jax.profiling": "Profiling",
    "sgpo_jax.planning": "Planning",
    "sgpo_jax.training": "Training",
    "sgpo_jax.ledger": "Compute ledger",
    "sgpo_jax.config": "Configuration of a run",
    "sgpo_jax.presets": "Presets",
    "sgpo_jax.session": "Session",
    "sgpo_jax.fleet": "Inference servers of a run",
    "sgpo_jax.hosts": "Processes of a run",
    "sgpo_jax.sharding": "Sharding",
    "sgpo_jax.chips": "Chips",
    "sgpo_jax.report": "Report",
    "sgpo_jax.sweep": "Sweep",
    "sgpo_jax.testing": "Testing",
    "sgpo_jax.bounds": "Ranges of settings",
    "sgpo_jax.artefacts": "Files that are checked",
    "sgpo_jax.streams": "Random streams",
    "sgpo_jax.types": "Types",
}


def public_names(module: str) -> list[str]:
    """Public names of a module, in its order.

    Of a package what it imports to be imported from it (`import x as x`); of a module
    of its own what it defines without an underscore.
    """
    found = importlib.import_module(module)
    assert found.__file__ is not None
    path = pathlib.Path(found.__file__)
    tree = ast.parse(path.read_text())
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [a.name for a in node.names if a.asname == a.name]
    if path.name != "__init__.py":
        for node in tree.body:
            names += _defined(node)
    return [
        name
        for name in dict.fromkeys(names)
        if not name.startswith("_")
        and not inspect.ismodule(getattr(found, name))
        and not isinstance(getattr(found, name), TypeVar)
    ]


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def kind(value: object) -> str:
    """Return "class", "function" or "data"; what is defined elsewhere is data."""
    own = str(getattr(value, "__module__", "")).startswith("sgpo_jax")
    if isinstance(value, type) and own:
        return "class"
    return "function" if own and hasattr(value, "__name__") else "data"


def owner(module: str, name: str) -> str:
    """First of the packages that makes a class or a function public."""
    value = getattr(importlib.import_module(module), name)
    if kind(value) == "data":
        return module
    return next(
        there
        for there in PACKAGES
        if there == module
        or (
            name in public_names(there)
            and getattr(importlib.import_module(there), name) is value
        )
    )


def comment(module: str, name: str) -> str:
    """Text below the definition of a constant or an alias; empty if there is none."""
    found = importlib.import_module(module)
    tree = ast.parse(inspect.getsource(found))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and name in [a.asname for a in node.names]:
            start = "." * node.level + (node.module or "")
            return comment(importlib.util.resolve_name(start, found.__package__), name)
    for node, after in itertools.pairwise(tree.body):
        if name in _defined(node) and isinstance(after, ast.Expr):
            text = ast.literal_eval(after.value)
            return inspect.cleandoc(text) if isinstance(text, str) else ""
    return ""


def directive(module: str, name: str) -> list[str]:
    """Lines of reStructuredText that document a name."""
    there = owner(module, name)
    if there != module:
        return [f"See :py:obj:`{there}.{name}`.", ""]
    sort = kind(getattr(importlib.import_module(module), name))
    if sort == "class":
        return [f".. autoclass:: {name}", "   :members:", ""]
    if sort == "function":
        return [f".. autofunction:: {name}", ""]
    text = textwrap.indent(comment(module, name), "   ")
    return [f".. py:data:: {name}", "", text, ""]


def page(module: str, title: str) -> str:
    """Page of a module."""
    lines = [title, "=" * len(title), "", f".. currentmodule:: {module}", ""]
    lines += [f".. automodule:: {module}", "   :no-members:", "   :no-index:", ""]
    for name in public_names(module):
        lines += directive(module, name)
    return "\n".join(lines)


def write() -> None:
    """Write the pages."""
    folder = mirrored.DOCS / "api"
    for module, title in PACKAGES.items():
        mirrored.write(folder / f"{module}.rst", page(module, title))
    listed = "\n".join(f"   {module}" for module in PACKAGES)
    text = (
        "API reference\n=============\n\nOne page per package, made of docstrings."
        f"\n\n.. toctree::\n   :maxdepth: 1\n\n{listed}\n"
    )
    mirrored.write(folder / "index.rst", text)


def check(app, env) -> None:
    """Warn of public names that no page documents."""
    documented = env.get_domain("py").objects
    for module in PACKAGES:
        for name in public_names(module):
            if f"{owner(module, name)}.{name}" not in documented:
                _logger().warning("not documented: %s.%s", module, name)


def _logger():
    from sphinx.util import logging

    return logging.getLogger(__name__)


def _short(text: str) -> str:
    """Write array types as they are imported, and `Annotated[int, ...]` as int.

    Objects in defaults are written as calls, without an address in memory.

    >>> _short("(n: Annotated[int, ~a.Range(low=1)] = 2, m: ~jaxlib._jax.Array)")
    '(n: int = 2, m: Array)'
    """
    while found := re.search(r"~?(?:typing\.)?Annotated\[", text):
        inner = found.end()
        comma = _level(text, inner, ",")
        end = _level(text, comma, "]")
        text = text[: found.start()] + text[inner:comma] + text[end + 1 :]
    text = re.sub(r"<(?:\w+\.)*(\w+) object at 0x\w+>", r"\1()", text)
    return re.sub(r"~?jaxlib\._jax\.Array", "Array", text)


def _level(text: str, start: int, wanted: str) -> int:
    """Position of the first character of a kind outside of brackets from there."""
    depth = 0
    for i in range(start, len(text)):
        if depth == 0 and text[i] == wanted:
            return i
        depth += (text[i] in "[(") - (text[i] in "])")
    raise ValueError(f"no {wanted!r} in {text[start:]!r}")


def shorten(app, what, name, obj, options, signature, returns):
    """Write types in signatures as they are imported; protocols are not called."""
    del app, what, name, obj, options
    if signature == "(*args, **kwargs)":
        signature = ""
    return tuple(text and _short(text) for text in (signature, returns))


def shorten_types(app, what, name, obj, options, lines):
    """The same in the lists of fields."""
    del app, what, name, obj, options
    for i, line in enumerate(lines):
        if found := re.match(r":(?:var|r)?type[^:]*:", line):
            types = re.sub(
                r"(?<![\w.~])(?=(?:[A-Za-z_]\w*\.)+\w)", "~", line[found.end() :]
            )
            lines[i] = found[0] + _short(types).replace("*", r"\*")


def guard(app, what, name, obj, options, lines):
    """Keep napoleon from reading the start of a property's sentence as its type."""
    del app, name, obj, options
    if what == "property" and ":" in lines[0]:
        lines.insert(0, "")


def skip(app, what, name, obj, skipped, options):
    """Leave out fields of named tuples, which the class describes already."""
    del app, what, name, options
    return True if type(obj).__name__ == "_tuplegetter" else skipped


def setup(app):
    """Connect to Sphinx."""
    from sphinx.domains.python import PyObject

    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Fields"
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", guard, priority=100)
    app.connect("autodoc-process-docstring", shorten_types, priority=900)
    app.connect("autodoc-skip-member", skip)
    app.connect("builder-inited", lambda _: write())
    app.connect("env-updated", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
