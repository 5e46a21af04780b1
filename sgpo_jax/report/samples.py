"""Samples of completions: what training changed on the same held-out questions."""

import dataclasses
import html
import pathlib
from collections.abc import Mapping, Sequence

from sgpo_jax.training import Evaluation, Example

EACH = 4
"""Questions shown of each kind."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Completions of questions by several policies.

    Attributes:
      heading: what the questions have in common.
      questions: those shown; for each, its completions by the name of the policy.
      total: how many questions there are of the kind.
    """

    heading: str
    questions: Sequence[Mapping[str, Example]]
    total: int

    def markdown(self) -> str:
        """Return nothing: they are for the HTML page."""
        return ""

    def html(self, folder: pathlib.Path) -> str:
        """Return one card per question."""
        del folder
        cards = "".join(_card(question) for question in self.questions)
        shown = f"{len(self.questions)} of {self.total} questions"
        return (
            f"<h3>{html.escape(self.heading)} <small>{shown}</small></h3>"
            f'<div class="cards">{cards}</div>'
        )


def _card(question: Mapping[str, Example]) -> str:
    one = next(iter(question.values()))
    lines = [
        f"<dt>{html.escape(name)}</dt>{_verdict(example.solved)}"
        f"<dd><pre>{html.escape(example.completion) or '(empty)'}</pre></dd>"
        for name, example in question.items()
    ]
    return (
        f'<div class="sample"><pre>{html.escape(one.prompt)}</pre><dl>'
        "<dt>right answer</dt><dd></dd>"
        f"<dd><pre>{html.escape(one.reference)}</pre></dd>"
        + "".join(lines)
        + "</dl></div>"
    )


def _verdict(solved: bool) -> str:
    word = "right" if solved else "wrong"
    return f'<dd class="{word}">{word}</dd>'


def samples(results: Mapping[str, Evaluation]) -> list[Samples]:
    """Return questions by what training did to them, of policies that share them.

    Args:
      results: evaluations by policy; the initial one is called "initial".
    """
    shown = {
        name: {example.query: example for example in it.examples}
        for name, it in results.items()
        if it.examples
    }
    if "initial" not in shown:
        return []
    kinds: dict[str, list[Mapping[str, Example]]] = {}
    for query, before in shown["initial"].items():
        question = {n: seen[query] for n, seen in shown.items() if query in seen}
        kinds.setdefault(_kind(before, question), []).append(question)
    return [
        Samples(kind, kinds[kind][:EACH], len(kinds[kind]))
        for kind in KINDS
        if kind in kinds
    ]


KINDS = (
    "Learnt: wrong before training, right after it by one method at least",
    "Lost: right before training, wrong after it by one method at least",
    "Wrong before and after training",
    "Right before and after training",
)


def _kind(before: Example, question: Mapping[str, Example]) -> str:
    after = [example.solved for name, example in question.items() if name != "initial"]
    if before.solved:
        return KINDS[3] if all(after) else KINDS[1]
    return KINDS[0] if any(after) else KINDS[2]
