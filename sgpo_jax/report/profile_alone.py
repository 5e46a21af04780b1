"""The report of a profile: what a policy can do, before anything is trained."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

import sgpo_jax
from sgpo_jax import planning
from sgpo_jax.data import Query
from sgpo_jax.planning import Plan, figures
from sgpo_jax.profiling import Posterior, Profile, calibration
from sgpo_jax.report import tables
from sgpo_jax.report.sections import (
    Block,
    Figure,
    Listing,
    Section,
    Tabular,
    Text,
    markdown,
    page,
)

SHOWN = 5
"""Questions shown of each class."""


def write_profile(
    folder: pathlib.Path,
    profile: Profile,
    *,
    plans: Mapping[str, Plan],
    queries: Sequence[Query] = (),
) -> pathlib.Path:
    """Write `report.md` with its figures and `report.html`; returns the latter's path.

    Args:
      folder: where they go.
      profile: what is reported.
      plans: made from it, by name.
      queries: the questions, for success by family and level; may be empty.
    """
    plots = folder / "figures"
    plots.mkdir(parents=True, exist_ok=True)
    belief = Posterior.of(profile)
    sections = [
        Section("", [Text(_summary(profile))]),
        Section("Profile", _profile(profile, plots, queries)),
        Section("Questions", _questions(belief)),
        *(
            Section(f"Plan {name}", _plan(name, profile, plan, plots))
            for name, plan in plans.items()
        ),
        Section("Allocators", _compared(belief, plots)),
    ]
    title = "Report of a profile"
    (folder / "report.md").write_text(markdown(title, sections))
    html = folder / "report.html"
    html.write_bytes(page(title, sections, folder).encode("utf-8", errors="replace"))
    return html


def _summary(profile: Profile) -> str:
    return (
        f"sgpo_jax {sgpo_jax.__version__}. {len(profile):,} questions,"
        f" {int(profile.drawn.sum()):,} samples. Nothing has been trained."
    )


def _profile(
    profile: Profile, plots: pathlib.Path, queries: Sequence[Query]
) -> list[Block]:
    profile.plot().figure.savefig(plots / "profile.png", dpi=110)
    parts: list[Block] = [
        Listing(str(profile)),
        Figure("profile", "Success rates and posterior means"),
    ]
    if known := [query for query in queries if query.id in profile.place]:
        own = profile.select([query.id for query in known])
        parts.append(Tabular(tables.profile_grid(own, known)))
    try:
        found = calibration(profile)
    except ValueError:
        return parts
    found.plot().figure.savefig(plots / "calibration.png", dpi=110)
    said = f"Posteriors from a part of the samples predict the others: {found}."
    return [*parts, Text(said), Figure("calibration", "Calibration")]


def _plan(name: str, profile: Profile, plan: Plan, plots: pathlib.Path) -> list[Block]:
    figures.save_plan(profile, plan, plots / f"plan_{name}.png")
    return [
        Tabular(tables.plan_grid(name, plan)),
        Listing(str(plan)),
        Figure(f"plan_{name}", f"Plan {name}"),
    ]


def _compared(belief: Posterior, plots: pathlib.Path) -> list[Block]:
    try:
        found = planning.compare(belief)
    except ValueError as error:
        return [Text(f"No plan: {error}.")]
    figures.save_comparison(found, plots / "allocators.png")
    return [
        Text("All allocators on this profile, with the filter of sGPO:"),
        Listing(str(found)),
        Figure("allocators", "Allocators"),
    ]


def _questions(belief: Posterior) -> list[Block]:
    """Return tables of questions: never solved, hardest learnable, always solved."""
    profile, mean = belief.profile, belief.mean
    rate = profile.success_rate
    found: list[Block] = []
    for title, mask in (
        ("Never solved", rate == 0),
        ("Solved now and then", (rate > 0) & (rate < 1)),
        ("Always solved", rate == 1),
    ):
        rows = np.flatnonzero(mask)
        if not rows.size:
            continue
        order = rows[np.argsort(mean[rows], kind="stable")][:SHOWN]
        cells = [
            [
                profile.ids[row],
                f"{profile.successes[row]} of {profile.samples[row]}",
                f"{mean[row]:.3f}",
                " ".join(profile.prompts[row].split())[:100].replace("|", "\\|"),
            ]
            for row in order.tolist()
        ]
        grid = tables.TextTable(
            f"{title}: {rows.size:,} questions",
            ["id", "solved", "posterior mean", "question"],
            cells,
        )
        found.append(Tabular(grid))
    return found
