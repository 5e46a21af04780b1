"""Sections of a report that set a profile and its plans against a run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgpo_jax import planning
from sgpo_jax.config import Experiment
from sgpo_jax.methods import KeepAll
from sgpo_jax.models import DecoderConfig
from sgpo_jax.pipeline import RunFolder
from sgpo_jax.planning import Plan, measured
from sgpo_jax.profiling import Profile
from sgpo_jax.report import tables
from sgpo_jax.report.sections import Tabular, Text


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
    folder = RunFolder.of(config)
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
