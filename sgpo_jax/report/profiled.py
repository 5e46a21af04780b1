"""The report of a profile: what a policy can do, before anything is trained."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import sgpo_jax
from sgpo_jax import planning
from sgpo_jax.config import Experiment
from sgpo_jax.data import Query
from sgpo_jax.methods import KeepAll
from sgpo_jax.models import DecoderConfig
from sgpo_jax.pipeline import RunFolder
from sgpo_jax.planning import Plan, figures, measured
from sgpo_jax.profiling import Posterior, Profile, calibration
from sgpo_jax.report import tables
from sgpo_jax.report.sections import Tabular, Text

SHOWN = 5
"""Questions shown of each class."""


def write_profile(
    folder: pathlib.Path,
    profile: Profile,
    *,
    plans: Mapping[str, Plan],
    queries: Sequence[Query] = (),
) -> pathlib.Path:
    """Write `report.md` and its figures from a profile alone; returns its path.

    Args:
      folder: where they go.
      profile: what is reported.
      plans: made from it, by name.
      queries: the questions, for success by family and level; may be empty.
    """
    plots = folder / "figures"
    plots.mkdir(parents=True, exist_ok=True)
    belief = Posterior.of(profile)
    _save(profile, plots / "profile.png")
    sections = [
        "# Report of a profile",
        f"sgpo_jax {sgpo_jax.__version__}. {len(profile):,} questions,"
        f" {int(profile.drawn.sum()):,} samples. Nothing has been trained.",
        f"```\n{profile}\n```",
        "![Success rates and posterior means](figures/profile.png)",
    ]
    known = [query for query in queries if query.id in profile.place]
    if known:
        own = profile.select([query.id for query in known])
        sections.append(tables.profile_grid(own, known).markdown())
    sections += [*_calibrated(profile, plots), *_questions(belief)]
    for name, plan in plans.items():
        figures.save_plan(profile, plan, plots / f"plan_{name}.png")
        sections += [
            tables.plan_grid(name, plan).markdown(),
            f"```\n{plan}\n```",
            f"![Plan {name}](figures/plan_{name}.png)",
        ]
    sections += _compared(belief, plots)
    path = folder / "report.md"
    path.write_text("\n\n".join(sections) + "\n")
    return path


def _save(profile: Profile, path: pathlib.Path) -> None:
    profile.plot().figure.savefig(path, dpi=110)


def _calibrated(profile: Profile, plots: pathlib.Path) -> list[str]:
    try:
        found = calibration(profile)
    except ValueError:
        return []
    found.plot().figure.savefig(plots / "calibration.png", dpi=110)
    return [
        f"Posteriors from a part of the samples predict the others: {found}.",
        "![Calibration](figures/calibration.png)",
    ]


def _compared(belief: Posterior, plots: pathlib.Path) -> list[str]:
    try:
        found = planning.compare(belief)
    except ValueError as error:
        return [f"No plan: {error}."]
    figures.save_comparison(found, plots / "allocators.png")
    return [
        "All allocators on this profile, with the filter of sGPO:",
        f"```\n{found}\n```",
        "![Allocators](figures/allocators.png)",
    ]


def _questions(belief: Posterior) -> list[str]:
    """Return tables of questions: never solved, hardest learnable, always solved."""
    profile, mean = belief.profile, belief.mean
    rate = profile.success_rate
    found = []
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
        found.append(grid.markdown())
    return found


def measured_grid(
    label: str, plan: Plan, found: Sequence[measured.PredictedVsMeasured]
) -> tables.TextTable:
    """A plan's predictions beside what the run measured."""
    rows = [
        [
            row.quantity,
            str(row.phase) if row.phase else "all",
            _amount(row.predicted),
            _amount(row.measured),
            f"{row.error:+.3f}" if row.is_share else f"{row.error:+.1%}",
        ]
        for row in found
    ]
    title = f"Plan of {label} ({plan.hash}): predicted and measured"
    columns = ["quantity", "phase", "predicted", "measured", "error"]
    return tables.TextTable(title, columns, rows)


def _amount(value: float) -> str:
    """Four digits; operations, which are many, in units of 10**9.

    >>> _amount(0.12345), _amount(2.3194e12)
    ('0.1235', '2,319.4e9')
    """
    return f"{value:.4g}" if abs(value) < 1e6 else f"{value / 1e9:,.1f}e9"


def against_run(
    profile: Profile | None,
    plans: Mapping[str, Plan],
    metrics: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    config: Experiment,
    model: DecoderConfig,
) -> list[Tabular | Text]:
    """Return the predictions of plans and profile against the measurements of a run.

    Args:
      profile: of the training questions; None without one.
      plans: by label of the method.
      metrics: lines of each method, by label.
      config: the experiment.
      model: shape of the policy.
    """
    if profile is None:
        return []
    found: list[Tabular | Text] = []
    for label, plan in plans.items():
        setting = planning.Setting(
            rollouts=config.train.rollouts,
            drop_dead=not isinstance(config.methods[label].subsample, KeepAll),
            model=model,
        )
        predicted = planning.predict(plan, profile, setting=setting)
        rows = planning.compare_with_run(plan, predicted, metrics[label])
        found.append(Tabular(measured_grid(label, plan, rows)))
    return [*found, *_drifts(profile, metrics, config)]


def _drifts(
    profile: Profile,
    labels: Iterable[str],
    config: Experiment,
) -> list[Tabular | Text]:
    """Return a table of the profile against the rollouts of each method."""
    folder = RunFolder(pathlib.Path(config.out).expanduser())
    rows = []
    for label in labels:
        path = folder.method(label) / "seen.parquet"
        try:
            drift = planning.drift(profile, Profile.load(path))
        except (OSError, ValueError):
            continue
        rows.append(
            [
                label,
                f"{drift.queries:,}",
                f"{drift.first:.3f}",
                f"{drift.later:.3f}",
                f"{drift.correlation:.2f} ({drift.low:.2f} to {drift.high:.2f})",
                f"{drift.unchanged:.2f}",
                "changed" if drift.changed else "as before",
            ]
        )
    if not rows:
        return []
    columns = ["method", "questions", "in the profile", "in training"]
    columns += ["rank correlation", "by noise alone", "order"]
    return [
        Tabular(
            tables.TextTable("Success in the profile and in training", columns, rows)
        ),
        Text(
            "The rank correlation of success by question says whether hard questions"
            " stayed hard. Samples are few, so noise alone would leave it below 1; the"
            " order has changed where its 95 % interval lies below that. Training mixes"
            " the policies of all steps."
        ),
    ]
