"""Rows of Parquet and Arrow files, of the columns that are used."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sgpo_jax.bounds import concise

from . import files, values
from .collecting import Row
from .source import BadRow

BATCH = 65536  # rows decoded at a time
_MANY = 10_000_000  # values a column may always have
_PER_BYTE = 20  # and how many for each byte of the file beyond that

Choose = Callable[[Any], Sequence[str]]
"""From an empty row with the columns' names to the names of those to read."""


def read_parquet(path: str, choose: Choose) -> Iterator[Row]:
    """Yield (row number, dict) for each row, counted from 1.

    Text is decoded once for each distinct value of a batch, so a column that repeats
    a long one does not multiply it in memory.

    Args:
      path: of the file.
      choose: which columns to decode, by dotted names.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is a pipe or device, not Parquet, damaged, or claims more
        values than its size can hold.
    """
    import pyarrow.parquet as parquet  # takes 0.1 s, which scoring need not pay

    with files.open_regular(path) as raw, _readable(path, "Parquet"):
        with parquet.ParquetFile(raw) as file:
            schema, metadata = file.schema, file.metadata
            leaves = [schema.column(i).path for i in range(len(schema))]
            row = _template(file.schema_arrow)
            names = _present(path, row, choose(row))
            used = _used(leaves, names)
            _check_columns(file, used)
        raw.seek(0, 2)
        _check_size(path, metadata, used, raw.tell())
        raw.seek(0)
        with parquet.ParquetFile(
            raw,
            read_dictionary=leaves,
            page_checksum_verification=True,
        ) as file:
            number = 0
            for group in range(metadata.num_row_groups):
                # A batch of two groups has two dictionaries, which pyarrow does not
                # decode inside structs.
                for batch in file.iter_batches(BATCH, [group], names):
                    yield from _rows(batch, number)
                    number += batch.num_rows


def read_arrow(path: str, choose: Choose) -> Iterator[Row]:
    """Yield (row number, dict) for each row of an Arrow stream or file.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is a pipe or device, not Arrow, or damaged.
    """
    import pyarrow as pa

    with files.open_regular(path) as raw, _readable(path, "Arrow"):
        magic = raw.read(6)
        raw.seek(0)
        opened = pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream
        number = 0
        with opened(raw) as reader:
            row = _template(reader.schema)
            names = _present(path, row, choose(row))
            tops = [n for n in reader.schema.names if _starts(names, n)]
            batches = (
                map(reader.get_batch, range(reader.num_record_batches))
                if magic == b"ARROW1"
                else reader
            )
            for batch in batches:
                batch = batch.select(tops)
                batch.validate(full=True)
                yield from _rows(batch, number)
                number += batch.num_rows


def _present(path: str, row: Mapping[str, Any], names: Sequence[str]) -> Sequence[str]:
    """Return the names that there are; only data_source may be missing."""
    try:
        for name in names:
            if name != "data_source":
                values.cell(row, name)
    except BadRow as error:
        raise ValueError(concise(f"{path!r} has no usable row: {error}")) from None
    return [name for name in names if values.has(row, name)]


def _starts(names: Sequence[str], column: str) -> bool:
    return any(name == column or name.startswith(f"{column}.") for name in names)


def _used(leaves: Sequence[str], names: Sequence[str]) -> list[int]:
    return [
        i
        for i, leaf in enumerate(leaves)
        if any(leaf == name or leaf.startswith(f"{name}.") for name in names)
    ]


def _check_columns(file: Any, used: list[int]) -> None:
    """Raise if the description of a column is damaged; no value is decoded.

    `RowGroupMetaData.column` ends the process on such a column (a C++ exception that
    pyarrow does not catch). Its reader catches it; a batch of 0 rows decodes nothing,
    and only the reader behind `iter_batches` takes one.
    """
    for group in range(file.num_row_groups):
        probe = file.reader.iter_batches(
            0, row_groups=[group], column_indices=used, use_threads=False
        )
        next(probe, None)


def _check_size(path: str, metadata: Any, used: Sequence[int], size: int) -> None:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    values = max((sum(g.column(i).num_values for g in groups) for i in used), default=0)
    expanded = sum(g.column(i).total_uncompressed_size for g in groups for i in used)
    if values > max(_MANY, _PER_BYTE * size) or expanded > max(1 << 28, 500 * size):
        raise ValueError(
            f"{path!r} claims {values} values in {expanded} bytes but has only {size}"
            " bytes: it is no data set"
        )


@contextlib.contextmanager
def _readable(path: str, kind: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except GeneratorExit:
        raise
    # Damage shows as nearly anything; a message of several lines is cut.
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(f"{path!r} is not readable as {kind}: {reason}") from None


def _template(schema: Any) -> dict[str, Any]:
    """Return a row that has the columns of a schema and no values."""
    import pyarrow as pa

    def value(kind: Any) -> Any:
        if not pa.types.is_struct(kind):
            return None
        return {kind.field(i).name: value(kind.field(i).type) for i in range(len(kind))}

    return {field.name: value(field.type) for field in schema}


def _rows(batch: Any, number: int) -> Iterator[Row]:
    columns = [_values(column) for column in batch.columns]
    return enumerate(_dicts(batch.schema.names, columns), number + 1)


def _dicts(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """Return a dict for each row, or the first `BadRow` among its cells."""
    rows = zip(*columns, strict=True)
    if any(map(_has_bad, columns)):
        return (_bad(row) or dict(zip(names, row, strict=True)) for row in rows)
    return map(dict, map(zip, itertools.repeat(names), rows))


def _has_bad(cells: Sequence[Any]) -> bool:
    return BadRow in set(map(type, cells))


def _bad(cells: Sequence[Any]) -> BadRow | None:
    return next((cell for cell in cells if isinstance(cell, BadRow)), None)


def _values(column: Any) -> list[Any]:
    """Return a column as Python values; `BadRow` for text that is no UTF-8."""
    import numpy as np
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        indices = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        used, inverse = np.unique(indices, return_inverse=True)
        present = used[used >= 0]
        values = _values(column.dictionary.take(pa.array(present)))
        values = [None] * (len(used) - len(present)) + values
        return [values[i] for i in inverse.tolist()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(column)
    if pa.types.is_struct(kind):
        fields = [_values(column.field(i)) for i in range(kind.num_fields)]
        names = [kind.field(i).name for i in range(kind.num_fields)]
        rows = list(_dicts(names, fields)) if fields else [{} for _ in column]
        return _with_nulls(column, rows)
    try:
        return column.to_pylist()
    except (UnicodeDecodeError, ValueError, OverflowError):
        return [_scalar(item) for item in column]


def _with_nulls(column: Any, rows: list[Any]) -> list[Any]:
    if not column.null_count:
        return rows
    valid = column.is_valid().to_pylist()
    return [row if there else None for there, row in zip(valid, rows, strict=True)]


def _lists(column: Any) -> list[Any]:
    offsets = column.offsets.to_pylist()
    start = offsets[0] if offsets else 0
    # `values` keeps what lies before and behind a slice.
    values = _values(column.values.slice(start, offsets[-1] - start))
    ends = itertools.pairwise(offsets)
    rows: list[Any] = [values[i - start : j - start] for i, j in ends]
    if _has_bad(values):
        rows = [_bad(items) or items for items in rows]
    return _with_nulls(column, rows)


def _scalar(item: Any) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8: {error.reason} at byte {error.start}", "not UTF-8")
    except (ValueError, OverflowError) as error:
        return BadRow(f"a value of type {item.type} cannot be read: {error}"[:200])
