"""GSM8K from a folder: grade-school word problems with whole-number answers."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from sgpo_jax.bounds import concise

from . import files, values
from .collecting import collect
from .queries import Query, content_id
from .records import open_table
from .source import BadRow, Loaded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gsm8k:
    """Cobbe et al. 2021 (arXiv:2110.14168), as `train.jsonl` and `test.jsonl`.

    The hub's layout, `main/train-*.parquet` and `main/test-*.parquet`, is read too.
    The level of a question is the number of lines of its worked solution; the reference
    is the final number.

    Attributes:
      path: the folder.
      strict: raise at the first bad line instead of reporting it.
    """

    path: str
    strict: bool = False

    def load(self) -> Loaded:
        """Read both files; the test questions are the held-out set.

        Raises:
          OSError: if a file is missing.
          ValueError: if the folder has no test file or, under `strict`, at the first
            bad line.
        """
        found = files.find(self.path)
        if not found.test:
            raise ValueError(
                f"{self.path!r} has no train and test files, such as train.jsonl and"
                " test.jsonl: name the folder that has both"
            )
        train, test = map(self._read, (found.train, found.test))
        return train.with_held_out(test)

    def _read(self, names: tuple[str, ...]) -> Loaded:
        columns = ("question", "answer")
        loaded = collect(
            ((name, open_table(name)(lambda row: columns)) for name in names),
            functools.partial(query, solution="answer"),
            strict=self.strict,
        )
        if not loaded.queries:
            first = loaded.problems[0] if loaded.problems else "it has no rows"
            raise ValueError(concise(f"{self.path!r} has no usable row: {first}"))
        return dataclasses.replace(
            loaded, reading="prompt from 'question', answer behind '####' of 'answer'"
        )


def query(row: Mapping[str, Any], *, solution: str) -> Query:
    r"""Make a query of a question and its worked solution.

    Args:
      row: with columns `question` and the one named by `solution`.
      solution: column with the worked solution, ending in "#### 72".

    Raises:
      BadRow: if a column is missing or the solution has no final answer.

    Example:
      >>> row = {"question": "2 and 70?", "answer": "2+70 = <<2+70=72>>72\n#### 72"}
      >>> query(row, solution="answer").reference
      '72'
    """
    prompt = values.text(values.cell(row, "question"), "question")
    worked, mark, final = values.text(values.cell(row, solution), solution).rpartition(
        "####"
    )
    if not mark or not final.strip():
        raise BadRow(f"{solution!r} has no final answer after '####'")
    steps = [line for line in worked.splitlines() if line.strip()]
    return Query(
        id=content_id("gsm8k", prompt),
        prompt=prompt,
        reference=final.strip().replace(",", ""),
        verifier="gsm8k",
        family="gsm8k",
        level=len(steps) or None,
    )
