"""Front door: questions from anything that holds them."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .columns import Columns
from .describing import describe
from .parsing import parse_source
from .queries import Query
from .records import Records, Rows
from .source import Loaded, Source
from .splitting import divide

TESTS = ("test", "validation", "valid", "val", "dev", "eval")
Queries = tuple[Query, ...]


def load(
    source: Any,
    *,
    held_out: Any = 0.25,
    seed: int = 0,
    strict: bool = False,
    verbose: bool = True,
    **columns: Any,
) -> tuple[Queries, Queries]:
    """Training and held-out questions of a data set.

    Args:
      source: a line of text as in `SYNTAX`, the path of a file or folder, dicts,
        queries, a table of pyarrow or pandas, a `datasets.Dataset` or `DatasetDict`,
        or a `Source`.
      held_out: share (below 1) or number of questions to hold out, by content; 0 for
        none; or a source of held-out questions of its own, in any form of `source`.
        A test set that the source has is taken as it is, unless this is 0.
      seed: of the split.
      strict: raise at the first bad row.
      verbose: print what was understood, in three lines.
      **columns: prompt, answer, id, level, metadata, verifier, family, max_chars, as
        in `Records`; for rows, tables, files and `datasets` objects.

    Returns:
      The training and the held-out queries, which share no question.

    Raises:
      OSError: if a file cannot be read.
      ValueError: naming what is wrong with the source, a column or `held_out`.

    Example:
      >>> rows = [{"prompt": f"{n}+1=", "answer": n + 1} for n in range(8)]
      >>> train, test = load(rows, held_out=2)
      8 questions, prompt from 'prompt', answer from 'answer', verifier exact; repeats:
        none
      prompts: median 4 characters, longest 4
      left out: nothing
      >>> len(train), len(test)
      (6, 2)
    """
    known = {field.name for field in dataclasses.fields(Columns)}
    if unknown := sorted(set(columns) - known):
        raise ValueError(
            f"no option {unknown[0]!r}; there are {', '.join(sorted(known))},"
            " held_out, seed, strict and verbose"
        )
    if isinstance(columns.get("metadata"), list):
        columns["metadata"] = tuple(columns["metadata"])
    loaded = _loaded(source, columns, strict)
    if isinstance(held_out, int | float) and not isinstance(held_out, bool):
        share = held_out
    else:
        test = _loaded(held_out, columns, strict)
        loaded = dataclasses.replace(loaded, held_out=None).with_held_out(test)
        share = 0.25
    if verbose:
        print("\n".join(describe(loaded)))
    return divide(loaded, held_out=share, seed=seed)


def _loaded(source: Any, columns: Mapping[str, Any], strict: bool) -> Loaded:
    if isinstance(source, os.PathLike):
        return Records(path=os.fspath(source), strict=strict, **columns).load()
    if isinstance(source, str):
        parsed = parse_source(source)
        if columns:
            if not isinstance(parsed, Records):
                raise ValueError(
                    f"{source!r} has its own columns: {', '.join(columns)} are for"
                    " files and rows"
                )
            parsed = dataclasses.replace(parsed, **columns)
        if strict and hasattr(parsed, "strict"):
            parsed = dataclasses.replace(parsed, strict=True)  # type: ignore[type-var]
        return parsed.load()
    if isinstance(source, Source):
        return source.load()
    given = Columns(**{"family": "rows", **columns})
    if type(source).__module__.partition(".")[0] == "datasets":
        return _dataset(source, given, strict)
    source = _rows_of_table(source)
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise ValueError(
            f"cannot load questions from {type(source).__name__}: give a source as"
            " text, a path, dicts, queries, a table or a datasets object"
        )
    items = source if isinstance(source, Sequence) else list(source)
    if items and all(isinstance(item, Query) for item in items):
        return _queries(items, columns)
    return Rows(rows=items, columns=given, strict=strict).load()


def _rows_of_table(source: Any) -> Any:
    """Return the rows of a table of pyarrow or pandas; other objects as they are.

    Without importing the package; what pandas has as missing is None.
    """
    package = type(source).__module__.partition(".")[0]
    if package == "pyarrow" and hasattr(source, "to_pylist"):
        return source.to_pylist()
    if package == "pandas" and hasattr(source, "columns"):
        return source.astype(object).where(source.notna(), None).to_dict("records")
    return source


def _queries(items: Sequence[Query], columns: Mapping[str, Any]) -> Loaded:
    if columns:
        raise ValueError(f"queries have no columns: {', '.join(columns)} are for rows")
    if len({query.id for query in items}) < len(items):
        raise ValueError("queries have the same id twice: data.content_id makes ids")
    return Loaded(tuple(items))


def _dataset(source: Any, columns: Columns, strict: bool) -> Loaded:
    """Read an object of `datasets`, without importing the package."""
    if not isinstance(source, Mapping):
        rows = _dataset_rows(source, columns)
        return Rows(rows=rows, columns=columns, strict=strict, name="dataset").load()
    splits = dict(source)
    if "train" not in splits:
        raise ValueError(
            f"the DatasetDict has the splits {', '.join(splits) or '(none)'} and no"
            " train: pass one of them"
        )
    test = next((splits[name] for name in TESTS if name in splits), None)
    return Rows(
        rows=_dataset_rows(splits["train"], columns),
        columns=columns,
        held_out=None if test is None else _dataset_rows(test, columns),
        strict=strict,
        name="dataset",
    ).load()


def _dataset_rows(dataset: Any, columns: Columns) -> Iterable[Mapping[str, Any]]:
    names = getattr(dataset, "column_names", None)
    if names is None or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"{type(dataset).__name__} has no known length: take some rows, as in"
            " list(dataset.take(1000))"
        )
    if not len(dataset):
        return
    plain = dataset.with_format(None)
    used = [f"{name}." for name in columns.chosen(plain[0]).used()]
    tops = [name for name in names if any(u.startswith(f"{name}.") for u in used)]
    # All columns if one is missing, so that the error can name them.
    known = all(u.startswith(tuple(f"{name}." for name in tops)) for u in used)
    part = plain.select_columns(tops) if known else plain
    for batch in part.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))
