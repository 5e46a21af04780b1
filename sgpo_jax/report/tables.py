"""The tables of a run as rows of text, for the terminal and for the report."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table

from sgpo_jax.data import Query
from sgpo_jax.ledger import LIVE, PHASES, WITHOUT_PREFIX_SHARING, Ledger
from sgpo_jax.planning import Plan
from sgpo_jax.planning.show import trained_on
from sgpo_jax.profiling import Profile
from sgpo_jax.report.curves import CostComparison
from sgpo_jax.rewards import ALARM, SIGNS
from sgpo_jax.training import Evaluation

_GAP = 3
"""Blanks after a column of a terminal's table."""


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table that can be shown on a terminal or written as Markdown.

    Attributes:
      title: above it.
      columns: their headers.
      rows: a cell for each column.
      labels: first columns that name the row; they are text, others numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1

    def rich(self, width: int = 80) -> Group:
        """Return tables for a terminal.

        No word is cut: columns that do not fit in a width go to a further table, with
        the labels again.
        """
        parts = enumerate(self._blocks(width))
        return Group(*(self._table(part, width, first=not i) for i, part in parts))

    def _blocks(self, width: int) -> list[list[int]]:
        """Columns of each table."""
        wide = [self._wide(i) for i in range(len(self.columns))]
        labels = list(range(self.labels))
        free = room = width - sum(wide[i] + _GAP for i in labels)
        blocks = [labels.copy()]
        for i in range(self.labels, len(self.columns)):
            if wide[i] + _GAP > room and len(blocks[-1]) > self.labels:
                blocks.append(labels.copy())
                room = free
            blocks[-1].append(i)
            room -= wide[i] + _GAP
        return blocks

    def _wide(self, column: int) -> int:
        """Width of the longest cell, and of the longest word of the header."""
        words = self.columns[column].split()
        return max(map(len, [*words, *(row[column] for row in self.rows)]), default=0)

    def _table(self, columns: Sequence[int], width: int, *, first: bool) -> Table:
        table = Table(
            title=self.title if first else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 2, 0, 0),
        )
        # Widths of our own: where headers are long, rich's may cut the shortest column.
        spare = max(width - sum(self._wide(i) + _GAP for i in columns), 0)
        for i in columns:
            justify, wide = "left" if i < self.labels else "right", self._wide(i)
            more = min(spare, max(len(self.columns[i]) - wide, 0))
            spare -= more
            table.add_column(self.columns[i], justify=justify, width=wide + more)
        for row in self.rows:
            table.add_row(*(row[i] for i in columns))
        return table

    def markdown(self) -> str:
        """Return a Markdown table under its title."""
        lines = [f"**{self.title}**", "", "| " + " | ".join(self.columns) + " |"]
        numbers = len(self.columns) - self.labels
        lines.append("|---" * self.labels + "|---:" * numbers + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines)


def profile_grid(profile: Profile, queries: Sequence[Query]) -> TextTable:
    """Success rate of the initial policy by family and level."""
    rate = dict(zip(profile.ids, profile.success_rate.tolist(), strict=True))
    levels = sorted({query.level or 0 for query in queries})
    if levels == [0]:
        levels = []  # then the mean is all there is
    rows = []
    for family in sorted({query.family for query in queries}):
        members = [query for query in queries if query.family == family]
        cells = []
        for level in levels:
            here = [rate[q.id] for q in members if (q.level or 0) == level]
            cells.append(f"{np.nanmean(here):.2f}" if here else "")
        mean = np.nanmean([rate[query.id] for query in members])
        own = np.isin(profile.ids, [query.id for query in members])
        samples = max(int(profile.samples[own].sum()), 1)
        reward = f"{profile.reward_sum[own].sum() / samples:.2f}"
        rows.append([family, str(len(members)), *cells, f"{mean:.2f}", reward])
    names = [f"level {level}" if level else "no level" for level in levels]
    title = "Success of the initial policy on training questions"
    if "solved_at" in profile.source:
        title += f" (a reward of at least {profile.source['solved_at']:g})"
    columns = ["family", "questions", *names, "mean" if levels else "success", "reward"]
    return TextTable(title, columns, rows)


def plan_grid(label: str, plan: Plan) -> TextTable:
    """Phases of the plan."""
    rows = [
        [
            str(number),
            str(len(phase.ids)),
            ", ".join(map(str, sorted(set(phase.sizes)))),
            str(phase.rollouts),
            f"{phase.dead:.2f}",
        ]
        for number, phase in enumerate(plan.phases, start=1)
    ]
    title = f"Plan of {label} ({plan.hash}); {trained_on(plan)}"
    columns = ["phase", "questions", "group", "rollouts a pass", "predicted dead"]
    return TextTable(title, columns, rows)


def evaluation_grid(results: Mapping[str, Evaluation]) -> TextTable:
    """Held-out accuracy of each policy."""
    rows = [
        [
            name,
            f"{it.mean:.3f}",
            f"{it.low:.3f} to {it.high:.3f}",
            gained(it, results["initial"]) if name != "initial" else "",
            "" if it.greedy is None else f"{it.greedy:.3f}",
            "" if it.reward is None else f"{it.reward:.3f}",
        ]
        for name, it in results.items()
    ]
    columns = ["policy", "success at T", "95 % interval", "gain", "greedy", "reward"]
    at = next(iter(results.values())).solved_at
    title = f"Held-out accuracy (success: a reward of at least {at:g})"
    return TextTable(title, columns, rows)


def gained(evaluation: Evaluation, initial: Evaluation) -> str:
    """Change of the mean success, with its interval over the questions of both."""
    change = evaluation.change_from(initial)
    return f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})"


def hacking_grid(results: Mapping[str, Evaluation]) -> TextTable:
    """Share of rewarded held-out completions that show a sign of reward hacking."""
    signs = [
        sign
        for sign in SIGNS
        if any(sign in it.watch.counts for it in results.values())
    ]
    rows = [
        [name, str(it.watch.looked_at)]
        + [f"{it.watch.shares.get(sign, 0.0):.1%}" for sign in signs]
        for name, it in results.items()
    ]
    columns = ["policy", "looked at", *(sign.replace("_", " ") for sign in signs)]
    return TextTable("Rewarded completions that look wrong", columns, rows)


def alarms(results: Mapping[str, Evaluation]) -> list[str]:
    """Return a line with an example for each frequent sign of reward hacking."""
    return [
        f"{name}: {share:.1%} of rewarded completions are suspicious, {sign}:"
        f" {SIGNS[sign]}; for example {it.watch.examples[sign][0][:80]!r}"
        for name, it in results.items()
        for sign, share in it.watch.shares.items()
        if share >= ALARM
    ]


def ledger_grid(ledgers: Mapping[str, Ledger]) -> TextTable:
    """Compute spent by each method in each phase."""
    rows = []
    for name, ledger in ledgers.items():
        for phase in (*PHASES, "total", WITHOUT_PREFIX_SHARING, LIVE, "evaluation"):
            entry = ledger.total if phase == "total" else ledger[phase]
            rows.append(
                [
                    name if phase == PHASES[0] else "",
                    phase.removeprefix("training, "),
                    f"{entry.flops / 1e9:.1f}",
                    f"{entry.padded_flops / 1e9:.1f}",
                    f"{entry.rollouts:,}",
                    f"{entry.tokens:,}",
                    f"{entry.padded_tokens:,}",
                    f"{entry.seconds:.1f}",
                ]
            )
    columns = [
        "method",
        "phase",
        "GFLOP",
        "on padding",
        "rollouts",
        "tokens",
        "padding",
        "seconds",
    ]
    title = "Compute ledger (what follows the total is not in it)"
    return TextTable(title, columns, rows, labels=2)


def comparison_grid(
    baseline: str, comparisons: Mapping[str, Sequence[CostComparison]]
) -> TextTable:
    """Cost of equal held-out accuracy."""
    rows = []
    for name, points in comparisons.items():
        if not points:
            rows.append([name, f"{baseline} gained nothing", *[""] * 5])
        for i, point in enumerate(points):
            reached = np.isfinite(point.other)
            rows.append(
                [
                    "" if i else name,
                    f"{point.share:.0%}",
                    f"{point.target:.3f}",
                    f"{point.baseline / 1e9:.1f}",
                    f"{point.other / 1e9:.1f}" if reached else "not reached",
                    f"{point.ratio:.2f}x" if reached else "",
                    f"{point.ratio_repeated:.2f}x" if reached else "",
                ]
            )
    columns = [
        "method",
        f"share of {baseline}'s gain",
        "success",
        f"{baseline} GFLOP",
        "its GFLOP",
        "less compute",
        "less than without shared prompts",
    ]
    title = f"Total compute at the held-out accuracy of {baseline}"
    return TextTable(title, columns, rows, labels=2)
