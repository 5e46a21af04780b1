"""Rows of JSON lines, plain or compressed by gzip, and of one JSON array."""

import decimal
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from . import files
from .collecting import Row
from .source import BadRow

LONGEST_LINE = 16 * 2**20  # bytes
LARGEST_ARRAY = 64 * 2**20  # bytes of a file that is one JSON array
_BUFFER = 1 << 20

# A number with a point keeps the digits it is written with.
_DECODER = json.JSONDecoder(parse_float=decimal.Decimal)


def read_jsonl(path: str) -> Iterator[Row]:
    """Yield (line number, object) for each line that is not blank.

    A line that is no JSON object, no UTF-8, or longer than 16 MiB gives a `BadRow` in
    place of the object. If the file is one JSON array, its items are numbered.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is a pipe or device, damaged, or of another format.
    """
    with files.open_regular(path) as raw:
        file = _decompressed(raw, path)
        try:
            head = file.peek(64)[:64]
            if (kind := files.foreign(head)) is not None:
                raise ValueError(f"{path!r} is {kind}")
            if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
                yield from _array(file, path)
            else:
                yield from _lines(file, 0)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path!r} is damaged gzip: {error}") from None


def _decompressed(raw: BinaryIO, path: str) -> io.BufferedReader:
    magic = raw.read(2)
    raw.seek(0)
    if magic != b"\x1f\x8b":
        return cast(io.BufferedReader, raw)
    inner = cast(io.BufferedIOBase, gzip.GzipFile(fileobj=raw))
    below = cast(io.BufferedIOBase, raw)
    return io.BufferedReader(files.Bounded(inner, below, path), _BUFFER)


def _array(file: io.BufferedIOBase, path: str) -> Iterator[Row]:
    data = file.read(LARGEST_ARRAY + 1)
    if len(data) <= LARGEST_ARRAY:
        try:
            items = _DECODER.decode(data.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list) and (not items or isinstance(items[0], dict)):
            for i, item in enumerate(items):
                yield i + 1, _object(item)
            return
    elif not data.split(b"\n", 1)[0].rstrip().endswith(b"]"):
        raise ValueError(
            f"{path!r} is one JSON array of more than {LARGEST_ARRAY} bytes: write one"
            " object per line, as `jq -c '.[]'` does"
        )
    yield from _lines(io.BytesIO(data), 0)
    if len(data) > LARGEST_ARRAY:
        raise ValueError(f"{path!r} begins as a JSON array and is none")


def _lines(file: io.BufferedIOBase, number: int) -> Iterator[Row]:
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            # The rest is read in pieces, so memory stays bounded.
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
            reason = f"the line is longer than {LONGEST_LINE} bytes"
            yield number, BadRow(reason, "line too long")
        elif not line.isspace():
            yield number, _parse(line, first=number == 1)


def _parse(line: bytes, *, first: bool) -> dict[str, Any] | BadRow:
    try:
        # Most lines are an object and an end of line, with nothing around them.
        text = line.decode()
        row, end = _DECODER.raw_decode(text)
        if type(row) is dict and end >= len(text) - 1 and text[end:] in ("\n", ""):
            return row
    except (ValueError, RecursionError, decimal.DecimalException):
        pass
    try:
        return _object(_DECODER.decode(line.decode("utf-8-sig" if first else "utf-8")))
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8: {error.reason} at byte {error.start}", "not UTF-8")
    except RecursionError:
        return BadRow("not JSON: nested too deep", "not JSON")
    except json.JSONDecodeError as error:
        return BadRow(
            f"not JSON: {error.msg} at character {error.pos}: write one object a line",
            "not JSON",
        )
    except (ValueError, decimal.DecimalException):
        # Python refuses whole numbers of more than 4,300 digits.
        return BadRow("not JSON: a number has too many digits: write it as text")


def _object(row: Any) -> dict[str, Any] | BadRow:
    if isinstance(row, dict):
        return row
    return BadRow(
        f"a JSON {type(row).__name__}, not an object: write"
        ' {"prompt": ..., "answer": ...}',
        "not an object",
    )
