"""Profiles as tables and figures."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sgpo_jax.profiling.calibration import Calibration
    from sgpo_jax.profiling.profile import Profile


def as_text(table: Table, width: int = 100) -> str:
    """Render a rich table as plain text."""
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(table)
    return file.getvalue().rstrip()


def new_axes(axes: Any = None) -> Any:
    """Return the axes, or new ones of a figure that no window shows."""
    if axes is not None:
        return axes
    from matplotlib.figure import Figure

    axes = Figure(figsize=(6.4, 3.8), layout="constrained").subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def nothing_solved(profile: "Profile") -> str:
    """Sentence for a profile in which nothing was solved; empty for any other.

    Example:
      >>> from sgpo_jax.profiling import Profile
      >>> nothing_solved(Profile(ids=("a", "b"), samples=[8, 8], successes=[0, 0]))
      'None of the 16 samples solved its question: there is nothing to learn from.'
    """
    if profile.successes.any():
        return ""
    return (
        f"None of the {int(profile.samples.sum())} samples solved its question: there"
        " is nothing to learn from."
    )


def profile_table(profile: "Profile") -> Table:
    """Return the profile's sums and the classes its posterior sees."""
    from sgpo_jax.profiling.posterior import Posterior

    drawn = int(profile.drawn.sum())
    title = f"profile {profile.fingerprint()}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")

    def row(name: str, value: str) -> None:
        table.add_row(name, value)

    row("queries", f"{len(profile):,}")
    row("samples (unscorable)", f"{drawn:,} ({int(profile.unscorable.sum()):,})")
    if not len(profile) or not profile.samples.any():
        row("success rate", "nothing could be scored")
        return table
    row("success rate", f"{profile.successes.sum() / profile.samples.sum():.3f}")
    row("mean reward", f"{profile.reward_sum.sum() / profile.samples.sum():.3f}")
    if said := nothing_solved(profile):
        row("", said)
    belief = Posterior.of(profile)
    for name, chance in (
        ("trivial (rate above 0.75)", belief.trivial()),
        ("learnable", belief.learnable()),
        ("unsolvable (rate up to 0.01)", belief.unsolvable()),
    ):
        row(name, f"{chance.sum():,.0f} expected, {(chance > 0.9).sum():,} clear")
    low, high = belief.interval(0.9)
    row("mean width of 90 % intervals", f"{(high - low).mean():.3f}")
    if profile.tokens.any():
        mean = profile.tokens.sum() / drawn
        row(
            "response tokens, mean and longest",
            f"{mean:.1f}, {profile.longest.max():,}",
        )
        row("truncated", f"{profile.truncated.sum() / drawn:.1%}")
    if profile.seconds.any():
        row("seconds", f"{profile.seconds.sum():,.1f}")
    for name, value in profile.source.items():
        row(name, str(value))
    return table


def plot_profile(profile: "Profile", axes: Any = None) -> Any:
    """Draw the histogram of success rates, and the fitted posterior mean above it."""
    from sgpo_jax.profiling.posterior import Posterior

    axes = new_axes(axes)
    rate = profile.success_rate
    known = ~np.isnan(rate)
    most = max(int(profile.samples.max(initial=1)), 1)
    edges = (np.arange(min(most, 40) + 2) - 0.5) / min(most, 40)
    axes.hist(rate[known], bins=edges, rwidth=0.85, color="#9bb8d3", label="k / n")
    mean = Posterior.of(profile).mean[known]
    axes.hist(
        mean, bins=edges, histtype="step", color="#d95f02", label="posterior mean"
    )
    axes.set_title(f"Success of {int(known.sum()):,} questions", loc="left")
    axes.set_xlabel("success rate in the profile")
    axes.set_ylabel("questions")
    axes.legend(frameon=False)
    return axes


def plot_calibration(found: "Calibration", axes: Any = None) -> Any:
    """Draw observed against predicted success of held-out samples."""
    axes = new_axes(axes)
    axes.plot([0, 1], [0, 1], color="#999999", lw=0.8)
    axes.scatter(
        found.predicted, found.observed, s=4 * np.sqrt(found.queries), color="#1b6ca8"
    )
    axes.set_title("Samples that the posteriors have not seen", loc="left")
    axes.set_xlabel("predicted success rate")
    axes.set_ylabel("success rate of held-out samples")
    return axes
