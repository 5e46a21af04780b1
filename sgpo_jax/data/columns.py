"""Columns of a row, and the query they make."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import blocks, values
from .queries import Prompt, Query, content_id, content_ids, queries_of
from .source import BadRow

PROMPTS = ("prompt", "question", "problem")
ANSWERS = ("answer", "reward_model.ground_truth")
"""Columns that are looked for, in this order, where none is named."""

_VERL = "reward_model.ground_truth"
DATA_SOURCES = {
    "openai/gsm8k": "gsm8k",
    "lighteval/MATH": "math",
    "DigitalLearningGmbH/MATH-lighteval": "math",
    "HuggingFaceH4/MATH-500": "math",
    "math_dapo": "math",
    "math": "math",
}
"""Verifiers of the data sources that verl has functions for, by its names of them."""

_MARKS = {"####": "gsm8k", "\\boxed{": "math"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Column mapping of queries; see `Records` for the attributes."""

    prompt: str | None = None
    answer: str | None = None
    id: str | None = None
    level: str | None = None
    metadata: tuple[str, ...] = ()
    verifier: str | None = None
    family: str = ""
    max_chars: int = 0

    def __post_init__(self):
        if self.max_chars < 0:
            raise ValueError(f"max_chars must not be negative, got {self.max_chars}")
        names = [_last(column) for column in self.metadata]
        if len(set(names)) < len(names):
            raise ValueError(f"metadata columns end in the same name: {self.metadata}")

    def chosen(self, row: Mapping[str, Any]) -> "Columns":
        """Return the columns for rows like this one, missing names filled in."""
        prompt = self.prompt or _first(PROMPTS, row)
        answer = self.answer
        if answer is None:
            answer = _first(ANSWERS, row)
            if self._own_verifier and not values.has(row, answer):
                answer = ""
        metadata = self.metadata
        if not metadata and answer == _VERL and self._own_verifier:
            # What verl's reward functions are called with.
            metadata = tuple(
                name for name in ("data_source", "extra_info") if name in row
            )
        return dataclasses.replace(
            self, prompt=prompt, answer=answer, metadata=metadata
        )

    def used(self) -> tuple[str, ...]:
        """Return the names of the columns that `query` reads."""
        named = (self.prompt, self.answer, self.id, self.level, *self.metadata)
        by_source = ("data_source",) if self._by_source else ()
        return tuple(name for name in (*named, *by_source) if name)

    def note(self, row: Mapping[str, Any]) -> str:
        """Return that a row's data source has no verifier here, if it is so."""
        source = row.get("data_source") if self._by_source else None
        if source is None or self._verifier(row, "") != "exact":
            return ""
        return f"data_source {source!r:.60} says none (give verifier=NAME)"

    @property
    def _own_verifier(self) -> bool:
        """Rewards from a function of one's own, which needs no answer."""
        return ":" in (self.verifier or "")

    @property
    def _by_source(self) -> bool:
        return self.verifier is None and self.answer == _VERL

    def query(self, row: Mapping[str, Any]) -> Query:
        """Make a query of a row.

        Raises:
          BadRow: naming the column, what is wrong and the remedy.
        """
        assert self.prompt and self.answer is not None
        value = values.cell(row, self.prompt)
        prompt, messages = _prompt(value, self.prompt)
        if self.max_chars and len(prompt) > self.max_chars:
            raise BadRow(
                f"{self.prompt!r} has {len(prompt)} characters, more than max_chars",
                f"{self.prompt!r} longer than {self.max_chars} characters",
            )
        if self.id:
            id = values.scalar(values.cell(row, self.id), self.id)
        else:
            parts = (part for turn in messages for part in turn)
            id = content_id(self.family, prompt, *parts)
        reference, structure = self._reference(row)
        metadata = {
            _last(key): values.plain(values.cell(row, key), key)
            for key in self.metadata
        }
        return Query(
            id=id,
            prompt=prompt,
            reference=reference,
            verifier=self.verifier or self._verifier(row, reference),
            family=self.family,
            level=_level(values.cell(row, self.level), self.level)
            if self.level
            else None,
            metadata=metadata | structure,
            messages=messages,
        )

    def _reference(self, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the reference, and what a verifier of one's own gets of a struct."""
        if not self.answer:
            return "", {}
        value = values.cell(row, self.answer)
        if self._own_verifier and isinstance(value, Mapping):
            value = values.plain(value, self.answer)
            return json.dumps(value), {_last(self.answer): value}
        return values.scalar(value, self.answer), {}

    def queries(self, rows: Sequence[Any]) -> list[Query] | None:
        """Make the queries of a block of rows, column by column.

        The same as `query` of each, in a third of the time; None if a row has to be
        looked at by itself, because it is wrong for instance.
        """
        try:
            return self._queries(rows)
        except blocks.NotPlainError:
            return None

    def _queries(self, rows: Sequence[Any]) -> list[Query]:
        if not self.prompt or self.answer is None:  # no row had names of columns yet
            raise blocks.NotPlainError
        count, repeat = len(rows), itertools.repeat
        prompts, messages = self._prompts(blocks.cells(rows, self.prompt))
        if self.max_chars and max(map(len, prompts)) > self.max_chars:
            raise blocks.NotPlainError
        if self.id:
            ids = blocks.scalars(blocks.cells(rows, self.id), self.id)
        elif messages is None:
            ids = content_ids(self.family, prompts)
        else:
            turns = ([part for turn in turns for part in turn] for turns in messages)
            both = zip(prompts, turns, strict=True)
            ids = [content_id(self.family, prompt, *parts) for prompt, parts in both]
        levels = repeat(None)
        if self.level:
            levels = blocks.cells(rows, self.level)
            if set(map(type, levels)) != {int}:
                levels = blocks.each(_level, levels, self.level)
        references = [""] * count
        if self.answer:
            references = blocks.scalars(blocks.cells(rows, self.answer), self.answer)
        verifiers = repeat(self.verifier)
        if self.verifier is None:
            verifiers = map(self._verifier, rows, references)
        fields = {
            "id": ids,
            "prompt": prompts,
            "reference": references,
            "verifier": verifiers,
            "family": repeat(self.family),
            "level": levels,
            "metadata": self._metadata(rows),
            "messages": repeat(()) if messages is None else messages,
        }
        return queries_of(count, fields)

    def _prompts(self, column: list[Any]) -> tuple[list[str], list[tuple] | None]:
        """Return the questions, and conversations if some are more than a question."""
        assert self.prompt
        if set(map(type, column)) == {str} and not any(map(values.holds_turns, column)):
            return blocks.texts(column), None
        asked = blocks.user_turns(column)
        if asked is not None:
            return asked, None
        pairs = blocks.each(_prompt, column, self.prompt)
        return [prompt for prompt, _ in pairs], [turns for _, turns in pairs]

    def _metadata(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{} for _ in rows]
        for key in self.metadata:
            column, name = blocks.cells(rows, key), _last(key)
            for fields, value in zip(
                found, blocks.each(values.plain, column, key), strict=True
            ):
                fields[name] = value
        return found

    def _verifier(self, row: Mapping[str, Any], reference: str) -> str:
        """Return the verifier of a data source, else that of a solution's mark."""
        if self.answer == _VERL and (source := row.get("data_source")) is not None:
            if str(source).startswith("aime"):
                return "math"
            if (known := DATA_SOURCES.get(str(source))) is not None:
                return known
        for mark, name in _MARKS.items():
            if mark in reference:
                return name
        return "exact"

    def __str__(self) -> str:
        answer = f"answer from {self.answer!r}" if self.answer else "no answers"
        return f"prompt from {self.prompt!r}, {answer}"


def _prompt(value: Any, column: str) -> tuple[str, tuple]:
    """Return the question as text, and the turns if it is more than a user's one."""
    if isinstance(value, bytes):
        value = values.text(value, column)
    if isinstance(value, str):
        if not values.holds_turns(value):
            return values.text(value, column), ()
        value = values.turns_of_text(value, column)
    turns: Prompt = values.conversation(value, column)
    asked = [turn for turn in turns if turn[0] != "system"]
    prompt = "\n\n".join(content for _, content in asked)
    return prompt, () if len(turns) == 1 else turns


def _first(names: tuple[str, ...], row: Mapping[str, Any]) -> str:
    return next((name for name in names if values.has(row, name)), names[0])


def _last(column: str) -> str:
    return column.rpartition(".")[2]


def _level(value: Any, column: str) -> int:
    value = values.scalar(value, column)
    try:
        return int(value.lower().removeprefix("level"))
    except ValueError:
        raise BadRow(
            f"{column!r} is {value[:20]!r}, not a whole number",
            f"{column!r} is not a whole number",
        ) from None
