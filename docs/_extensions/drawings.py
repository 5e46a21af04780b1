"""Pictures of the concepts, drawn from the package's own functions and results.

A page writes `{drawing} NAME` with `:alt:` and a caption; the picture is drawn for a
light and for a dark page, as SVG, when the site is built. `python drawings.py` draws
all of them.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import ClassVar

import matplotlib

matplotlib.use("Agg")

import diagrams
import matplotlib.pyplot as plt
import mirrored
import plots
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

DRAWINGS: Mapping[str, Callable[[], None]] = {
    "savings": plots.savings,
    "signal": plots.signal,
    "sizes": plots.sizes,
    "packing": plots.packing,
    "belief": plots.belief,
    "ledger": plots.ledger,
    "life_of_a_query": diagrams.life_of_a_query,
    "log_probs": diagrams.log_probs,
    "stages": diagrams.stages,
    "every_method": plots.every_method,
} | {
    f"method_{name}": functools.partial(plots.method, name)
    for name, measured in plots.zoo().items()
    if "curve" in measured
}
FOLDER = mirrored.DOCS / "_static" / "drawings"
WIDTHS = {"drawn-wide": 540, "drawn-medium": 460}
"""Points from which a drawing scrolls on a phone instead of being shrunk, by class."""
LIGHT = {"text": "#1f2328", "edge": "#57606a", "cycle": plots.LIGHT_CYCLE}
DARK = {"text": "#e6edf3", "edge": "#9ea7b3", "cycle": plots.DARK_CYCLE}


def settings(theme: Mapping[str, object]) -> dict[str, object]:
    """Settings of matplotlib for a page of a colour."""
    text, edge = theme["text"], theme["edge"]
    return {
        "axes.edgecolor": edge,
        "axes.labelcolor": text,
        "axes.titlecolor": text,
        "axes.prop_cycle": plt.cycler(color=theme["cycle"]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "font.size": 11,
        "legend.frameon": False,
        "savefig.transparent": True,
        "svg.fonttype": "path",
        "svg.hashsalt": "sgpo_jax",
        "text.color": text,
        "xtick.color": edge,
        "ytick.color": edge,
        "xtick.labelcolor": text,
        "ytick.labelcolor": text,
    }


@functools.cache
def draw(name: str) -> None:
    """Draw a picture twice, for light and dark pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for theme, colors in (("light", LIGHT), ("dark", DARK)):
        with plt.rc_context(settings(colors)):
            DRAWINGS[name]()
            plt.savefig(
                FOLDER / f"{name}-{theme}.svg",
                bbox_inches="tight",
                metadata={"Date": None},
            )
            plt.close("all")


def _width(name: str) -> float:
    """Width of a drawing in points."""
    text = (FOLDER / f"{name}-light.svg").read_text()[:2000]
    found = re.search(r'<svg[^>]*? width="([\d.]+)pt"', text, re.DOTALL)
    assert found is not None, f"{name}: an SVG without a width"
    return float(found[1])


class Drawing(SphinxDirective):
    """A picture by name, with an alternative text and a caption."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"alt": str}

    def run(self) -> list[nodes.Node]:
        """Return the two images, of which a page shows one, and the caption."""
        name = self.arguments[0]
        if name not in DRAWINGS:
            raise self.error(f"unknown drawing {name!r}; known: {', '.join(DRAWINGS)}")
        draw(name)
        width = _width(name)
        wide = [style for style, least in WIDTHS.items() if width > least][:1]
        figure = nodes.figure(align="center")
        for theme in ("light", "dark"):
            image = nodes.image(
                uri=f"/_static/drawings/{name}-{theme}.svg",
                alt=self.options.get("alt", ""),
                classes=[f"drawn-{theme}", *wide],
            )
            figure += image
        caption, _ = self.parse_inline(" ".join(self.content), lineno=self.lineno)
        if caption:
            figure += nodes.caption("", "", *caption)
        return [figure]


def setup(app):
    """Connect to Sphinx."""
    app.add_directive("drawing", Drawing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for each in DRAWINGS:
        draw(each)
