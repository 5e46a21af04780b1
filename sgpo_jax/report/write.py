"""Write `report.md` with its figures and `report.html`, and print the tables."""

import dataclasses
import pathlib
import sys
import webbrowser
from collections.abc import Mapping, Sequence

from sgpo_jax.data import Query
from sgpo_jax.ledger import Ledger
from sgpo_jax.pipeline import Display, Run, UserError
from sgpo_jax.planning import Plan
from sgpo_jax.profiling import Profile
from sgpo_jax.report import figures, tables
from sgpo_jax.report.about import about
from sgpo_jax.report.curves import Curve, compare
from sgpo_jax.report.profiled import against_run
from sgpo_jax.report.samples import samples
from sgpo_jax.report.sections import Figure, Section, Tabular, Text, markdown, page
from sgpo_jax.report.verdict import unsolved, verdict
from sgpo_jax.training import Evaluation, Metrics, alarm, read_metrics


def print_profile(profile: Profile, queries: Sequence[Query], display: Display) -> None:
    """Print success by family and level."""
    display.console.print(
        tables.profile_grid(profile, queries).rich(display.console.width)
    )
    if text := unsolved(profile):
        display.say(text)


def print_plan(label: str, plan: Plan, display: Display) -> None:
    """Print the phases of a method's plan."""
    _show(tables.plan_grid(label, plan), display)


def print_evaluations(results: Mapping[str, Evaluation], display: Display) -> None:
    """Print held-out accuracies."""
    _show(tables.evaluation_grid(results), display)
    display.lines(tables.alarms(results))


def _show(grid: tables.TextTable, display: Display) -> None:
    display.console.print(grid.rich(display.console.width))


def open_page(path: pathlib.Path) -> None:
    """Show a page in the browser, where there is one."""
    if not webbrowser.open(path.resolve().as_uri()):
        print(f"sgpo: no browser to open {path} with", file=sys.stderr)


def check(run: Run) -> None:
    """Refuse a report of a run whose methods are not trained.

    Raises:
      UserError: naming the first of them.
    """
    for name in run.config.methods:
        lines = read_metrics(run.folder.method(name) / "metrics.jsonl")
        if len(Curve.from_metrics(lines).steps) < 2:
            raise UserError(f"{name} has no evaluation yet; run sgpo train first")
        if lines[-1]["step"] < run.config.train.steps:
            raise UserError(
                f"the metrics of {name} end at step {lines[-1]['step']} of"
                f" {run.config.train.steps}; run sgpo train first"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResults:
    """Results of a run: metrics, profile, plans and evaluations.

    Attributes:
      metrics: lines of the metrics file of each method, the baseline first.
      profile: None if no method reads one.
      plans: by method.
      evaluations: by policy.
    """

    metrics: Mapping[str, list[Metrics]]
    profile: Profile | None
    plans: Mapping[str, Plan]
    evaluations: Mapping[str, Evaluation]


def write(
    run: Run,
    profile: Profile | None,
    plans: Mapping[str, Plan],
    results: Mapping[str, Evaluation],
) -> None:
    """Write the report of a run whose methods are trained and evaluated."""
    folder, display = run.folder, run.display
    metrics = {
        name: read_metrics(folder.method(name) / "metrics.jsonl")
        for name in run.config.methods
    }
    found = RunResults(
        metrics=metrics, profile=profile, plans=plans, evaluations=results
    )
    curves = {name: Curve.from_metrics(lines) for name, lines in metrics.items()}
    ledgers = {
        name: Ledger([x for x in lines if "ledger" in x][-1]["ledger"])
        for name, lines in metrics.items()
    }
    baseline, *others = metrics
    comparisons = {name: compare(curves[baseline], curves[name]) for name in others}

    plots = folder.path / "figures"
    if found.profile is not None:
        planned = next(iter(plans.values()), None)
        figures.success_histogram(found.profile, planned, plots / "profile.png")
    figures.accuracy_by_compute(curves, plots / "accuracy.png")
    figures.dead_groups(metrics, plans, plots / "dead_groups.png")
    figures.padding_and_compiles(metrics, plots / "padding.png")

    evaluation = tables.evaluation_grid(found.evaluations)
    collapses = _collapses(metrics)
    alarms = tables.alarms(found.evaluations)
    hacking = tables.hacking_grid(found.evaluations)
    cost = tables.comparison_grid(baseline, comparisons)
    spent = tables.ledger_grid(ledgers)
    lines = verdict(found.evaluations, comparisons, baseline)
    sections = [
        Section("", [Text(line) for line in lines]),
        Section("What was run", about(run)),
        Section(
            "Held-out accuracy",
            [
                Tabular(evaluation),
                *(Text(line) for line in collapses),
                Figure("accuracy", "Held-out success against total compute"),
                *([Tabular(cost), Text(_explanation(baseline))] if others else []),
            ],
        ),
        *_profiled(found, run),
        Section(
            "Signal", [Figure("dead_groups", "Groups without signal, step by step")]
        ),
        Section(
            "Signs of reward hacking", [Tabular(hacking), *(Text(x) for x in alarms)]
        ),
        Section("Samples", samples(found.evaluations)),
        Section(
            "Compute",
            [
                Tabular(spent),
                Figure("padding", "Padding of training rows, and programs compiled"),
            ],
        ),
    ]
    folder.report.write_text(markdown("Report", sections))
    html = folder.report.with_suffix(".html")
    title = f"{folder.path.resolve().name}: report of a run"
    content = page(title, sections, folder.path)
    # What a model writes need not be valid text.
    html.write_bytes(content.encode("utf-8", errors="replace"))
    for grid in (spent, evaluation, hacking, *([cost] if others else [])):
        _show(grid, display)
    display.lines([*lines, *collapses, *alarms])
    display.say(f"report: {folder.report} and {html.name}")


def _collapses(metrics: Mapping[str, list[Metrics]]) -> list[str]:
    """Return a line on the last collapse of each method that had one."""
    found = []
    for name, lines in metrics.items():
        alarms = [text for line in lines if (text := alarm(line["step"], line))]
        if alarms:
            found.append(f"{name}: {len(alarms)} times, last at {alarms[-1]}")
    return found


def _profiled(found: RunResults, run: Run) -> list[Section]:
    if found.profile is None:
        return []
    plans = [
        Tabular(tables.plan_grid(label, plan)) for label, plan in found.plans.items()
    ]
    measured = against_run(
        found.profile,
        found.plans,
        found.metrics,
        config=run.config,
        model=run.decoder,
    )
    return [
        Section(
            "Profile",
            [
                Tabular(tables.profile_grid(found.profile, run.train)),
                Figure("profile", "Success rates of the initial policy, group sizes"),
            ],
        ),
        Section("Plan against measurement", [*plans, *measured]),
    ]


def _explanation(baseline: str) -> str:
    return (
        f"Costs are where the smoothed curves (mean of three evaluations) first reach a"
        f" share of the gain of {baseline}, from the initial policy to its best point."
        " They count profiling, generation and training on real tokens. Every method"
        " here encodes a prompt once per group and row; the last column compares with"
        f" {baseline} as it is usually run, with the prompt encoded for every response:"
        " the same updates for more operations. Where the first lines call that gain"
        " within noise, these ratios are noise, too."
    )
