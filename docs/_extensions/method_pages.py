"""The method index: every named method, from its docstring and its value."""

import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import mirrored
import plots

from sgpo_jax import methods
from sgpo_jax.commands.methods import parts
from sgpo_jax.methods import zoo

FAMILIES = {
    "group_relative": "Group-relative policy gradients",
    "surrogate": "Other surrogates",
    "sequence": "Sequence ratios",
    "regression": "Regression and partition functions",
    "adaptive": "Choice of prompts and rollouts while training",
    "profiled": "From a profile",
}
PAPER = re.compile(r"(?:arXiv:)?(?<![\d.])(\d{4}\.\d{5})(?!\d)")


def page() -> str:
    """The page, as reStructuredText."""
    lines = [
        *title("Method index", "="),
        "Made from the values themselves when this site is built. Parts that are not"
        " listed are those of ``methods.Method()``: groups of 8, standardized"
        " advantages, PPO clipping at 0.2 and 0.28, token mean, AdamW. The same text"
        " in a terminal: ``sgpo methods NAME``.",
        "",
        "Measured is held-out success after equal rollouts on a mixture of tasks from"
        " one initial policy, one seed, one step size for all but a few; the interval"
        f" is :math:`\\pm` {interval():.3f}, so most differences say nothing. The table"
        " is :doc:`here </_repository/benchmarks/results/zoo>`; what it lacks is"
        " not measured yet. Curves are of the rollouts a method trains on: where it"
        " chooses questions by their difficulty, its curve shows that choice too.",
        "",
        ".. drawing:: every_method",
        "   :alt: Scatter plot of held-out success over total compute of all methods.",
        "",
        "   Further left is cheaper. The band is the 95 % interval of ``grpo_token``.",
        "",
        *overview(),
    ]
    for module, name in FAMILIES.items():
        lines += title(name, "-")
        for make in getattr(zoo, module).METHODS:
            lines += entry(make.__name__)
    return "\n".join(lines)


def title(text: str, mark: str) -> list[str]:
    """A heading."""
    return [text, mark * len(text), ""]


def overview() -> list[str]:
    """One line per method."""
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 20 50 18 12",
        "",
        "   * - name",
        "     - what it is",
        "     - needs",
        "     - success",
    ]
    found = results()
    for name, make in methods.ZOO.items():
        success = f"{found[name]['mean']:.3f}" if name in found else "-"
        lines += [
            f"   * - `{name} <#{anchor(name)}>`__",
            f"     - {linked((inspect.getdoc(make) or '').partition(chr(10))[0])}",
            f"     - {', '.join(sorted(make().needs))}",
            f"     - {success}",
        ]
    return [*lines, ""]


def anchor(name: str) -> str:
    """Anchor of a method's heading."""
    return name.replace("_", "-")


def entry(name: str) -> list[str]:
    """A method: docstring, needs, parts, measurement, command."""
    make = methods.ZOO[name]
    method = make()
    needs = ", ".join(f"``{need}``" for need in sorted(method.needs))
    needs = f"Needs {needs}." if needs else "Needs nothing but rewards."
    lines = title(name, "~")
    lines += [linked(inspect.getdoc(make) or ""), "", needs, ""]
    changed = parts(method)
    if changed:
        lines += [".. code-block:: text", ""]
        for part in changed:
            lines += textwrap.wrap(
                part,
                78,
                initial_indent="   ",
                subsequent_indent="       ",
                break_long_words=False,
            )
        lines += [""]
    names = " ".join(dict.fromkeys(("grpo_token", name)))
    lines += [
        ".. code-block:: sh",
        "",
        f"   sgpo run --methods {names}",
        f"   python benchmarks/zoo.py --names {name}  # what was measured",
        "",
        measured(name),
        "",
    ]
    if "curve" in results().get(name, {}):
        lines += [
            f".. drawing:: method_{name}",
            f"   :alt: Success of the training rollouts of {name} over rollouts.",
            "",
        ]
    return lines


def linked(text: str) -> str:
    """Text with its papers as links."""
    return PAPER.sub(
        lambda m: f"`arXiv:{m[1]} <https://arxiv.org/abs/{m[1]}>`__",
        text,
    )


def results() -> Mapping[str, Mapping[str, Any]]:
    """Measurements by name."""
    return plots.zoo()


def interval() -> float:
    """Half the width of the interval of a success."""
    return max((m["high"] - m["low"]) / 2 for m in results().values())


def measured(name: str) -> str:
    """A line on what was measured."""
    found = results()
    if name not in found:
        return "Not measured yet."
    m = found[name]
    return (
        f"Measured: success {found['initial']['mean']:.3f} to {m['mean']:.3f}, greedy"
        f" {m['greedy']:.3f}, {m['total_gflop']:.0f} GFLOP in all,"
        f" {m['rollouts']:,} rollouts of which {m['trained']:,} were trained on,"
        f" {m['no_signal']:.0%} of groups without signal."
    )


def setup(app):
    """Connect to Sphinx."""
    path = mirrored.DOCS / "_generated" / "methods.rst"
    app.connect("builder-inited", lambda _: mirrored.write(path, page()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
