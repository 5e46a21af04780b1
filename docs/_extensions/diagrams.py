"""Diagrams of boxes and arrows."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch


def _canvas(width: float, height: float):
    _, axes = plt.subplots(figsize=(width, height))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return axes


def _box(axes, x, y, width, height, title, text, color):
    edge = plt.rcParams["axes.prop_cycle"].by_key()["color"][color]
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor=edge,
            edgecolor="none",
            alpha=0.16,
        )
    )
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor="none",
            edgecolor=edge,
            lw=1.2,
        )
    )
    axes.text(
        x + 0.1, y + height - 0.12, title, va="top", fontsize=11, fontweight="bold"
    )
    axes.text(x + 0.1, y + height - 0.42, text, va="top", fontsize=9.5, linespacing=1.3)


def _arrow(axes, start, end, text="", shift=(0.0, 0.12)):
    color = plt.rcParams["axes.edgecolor"]
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.3}
    )
    if text:
        axes.text(
            (start[0] + end[0]) / 2 + shift[0],
            (start[1] + end[1]) / 2 + shift[1],
            text,
            ha="center",
            fontsize=9,
        )


def life_of_a_query() -> None:
    """From a line of a file to an update, with the shapes on the way."""
    axes = _canvas(9.6, 3.8)
    top, low, height = 2.35, 0.2, 1.25
    upper = [
        ("Query", "prompt, reference,\nverifier; known by\nits content", 3),
        ("Prompt sampler", "which prompts,\nhow many rollouts\nof each: G(q)", 0),
        ("Engine", "prompt encoded\nonce; G responses,\nlog-probabilities", 0),
        ("Verifier", "reward per response\n[R], in a process\nthat can be killed", 2),
    ]
    lower = [
        ("Update", "gradient of the sum,\ndivided once;\noptimizer", 1),
        ("Loss", "log-ratio per token\n[R, T]; clipped,\naggregated", 1),
        ("Packing", "groups into static\nrows [N, L]; prompt\nread, not repeated", 0),
        ("Advantage", "within its group [R];\nequal rewards: 0;\nno backward pass", 2),
    ]
    for n, (title, text, color) in enumerate(upper):
        _box(axes, 0.1 + 2.4 * n, top, 2.1, height, title, text, color)
        if n:
            _arrow(axes, (2.4 * n - 0.18, top + 0.6), (2.4 * n + 0.08, top + 0.6))
    for n, (title, text, color) in enumerate(lower):
        _box(axes, 0.1 + 2.4 * n, low, 2.1, height, title, text, color)
        if n:
            _arrow(axes, (2.4 * n + 0.08, low + 0.6), (2.4 * n - 0.18, low + 0.6))
    _arrow(axes, (8.35, top - 0.04), (8.35, low + height + 0.04))
    _arrow(
        axes,
        (1.15, low + height + 0.04),
        (3.4, top - 0.04),
        "parameters, success per question",
        shift=(1.35, -0.16),
    )


def log_probs() -> None:
    """Which parameters give which log-probabilities, and who reads them."""
    axes = _canvas(9.6, 4.2)
    rows = [
        (
            "sampler",
            "the engine's parameters\nwhile a token is drawn",
            "importance correction,\nDPPO, the gap that is logged",
            0,
        ),
        (
            "old",
            "parameters at the start\nof the step: free at\nfirst, else a pass",
            "importance ratio\n(clipping)",
            1,
        ),
        (
            "reference",
            "the initial policy; with\nadapters, the same tree\nwithout them",
            "KL, REBEL, FlowRL,\ntrajectory balance",
            2,
        ),
    ]
    for n, (name, made, used, color) in enumerate(rows):
        y = 2.85 - 1.35 * n
        _box(axes, 0.1, y, 3.1, 1.2, f"{name} log-probability", made, color)
        _box(axes, 6.3, y, 3.1, 1.2, "read by", used, color)
        _arrow(axes, (3.28, y + 0.6), (6.22, y + 0.6), "[R, T]")


def stages() -> None:
    """Stages of a run and what each leaves."""
    axes = _canvas(9.6, 1.75)
    names = [
        ("sft", "policy/"),
        ("profile", "profile\n.parquet"),
        ("plan", "plans/\nNAME.json"),
        ("train", "methods/\nNAME/"),
        ("eval", "eval/\nNAME.json"),
        ("report", "report.md\nreport.html"),
    ]
    for n, (name, left) in enumerate(names):
        optional = name in ("sft", "profile", "plan")
        _box(axes, 0.05 + 1.6 * n, 0.35, 1.3, 1.2, name, left, 4 if optional else 0)
        if n:
            _arrow(axes, (1.6 * n - 0.22, 0.95), (1.6 * n + 0.03, 0.95))
    axes.text(0.05, 0.02, "Yellow: only where a method needs it.", fontsize=9)
