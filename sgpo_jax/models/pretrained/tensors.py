"""Tensors of files: what there is, and a few rows of it at a time."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np


@runtime_checkable
class Tensors(Protocol):
    """Named tensors under the names of Hugging Face checkpoints."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor."""
        ...

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Dtypes of further tensors, which hold no floating-point numbers we read."""
        ...

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Return rows `start` to `stop` of a tensor, in floating point."""
        ...

    def sample(self, name: str, row: int) -> np.ndarray:
        """Return a row as it is stored, for a fingerprint."""
        ...

    def where(self, name: str) -> str:
        """Return what to call a tensor in an error: its name, and file or folder."""
        ...


class TensorEntry(NamedTuple):
    """Location of a tensor in a file: dtype, shape and byte offset.

    Attributes:
      path: the file.
      name: what the file calls it.
      label: its dtype as the file spells it; `DTYPES` has those that can be read.
      shape: its sizes.
      offset: of its first byte in the file.
      size: its bytes.
    """

    path: pathlib.Path
    name: str
    label: str
    shape: tuple[int, ...]
    offset: int
    size: int


DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_LONGEST_HEADER = 100_000_000


class SafeTensors:
    """The tensors of one or several safetensors files.

    The format is a length, a JSON header and the data, so reading it needs no package;
    what matters is that nothing of the header is believed before it is checked, and
    that rows are read from the file on access.

    Attributes:
      entries: where each tensor lies.
      place: their file or folder.
    """

    def __init__(self, entries: Mapping[str, TensorEntry], place: pathlib.Path):
        self.entries, self.place = dict(entries), place

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor that holds floating-point numbers."""
        return {n: e.shape for n, e in self.entries.items() if e.label in DTYPES}

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Dtype of each tensor that does not."""
        return {n: e.label for n, e in self.entries.items() if e.label not in DTYPES}

    def where(self, name: str) -> str:
        """Return what to call a tensor in an error."""
        if name not in self.entries:
            return f"{name!r} of {self.place}"
        entry = self.entries[name]
        return f"{entry.name!r} of {entry.path}"

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Return rows `start` to `stop` of a tensor."""
        entry = self.entries[name]
        dtype, width = DTYPES[entry.label], math.prod(entry.shape[1:])
        count = (rows.stop - rows.start) * width
        begin = entry.offset + rows.start * width * dtype.itemsize
        data = np.fromfile(entry.path, dtype, count, offset=begin)
        if data.size != count:
            raise ValueError(f"{entry.path} is cut short within {name!r}")
        return data.reshape(-1, *entry.shape[1:])

    def sample(self, name: str, row: int) -> np.ndarray:
        """Return a row as it is stored."""
        return self.read(name, slice(row, row + 1))


def read_header(path: pathlib.Path) -> dict[str, TensorEntry]:
    """Read and check the header of a safetensors file.

    Raises:
      ValueError: naming the file and what is wrong: sizes that do not fit the file,
        overlapping or unknown tensors, duplicates.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path}: a header of {length} bytes does not fit {size}")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
        header.pop("__metadata__", None)
        entries = {
            str(name): _entry(path, 8 + length, name, spec)
            for name, spec in header.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: bad header: {error}") from None
    end, last = 8 + length, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
        if entry.offset != end:
            raise ValueError(f"{path}: {name!r} begins at {entry.offset}, not at {end}")
        end, last = end + entry.size, repr(name)
    if end > size:
        raise ValueError(
            f"{path} is cut short: {last} ends at {end}, the file at {size}"
        )
    if end < size:
        raise ValueError(f"{path}: {last} ends at {end}, the file at {size}")
    return entries


def _entry(path: pathlib.Path, start: int, name: str, spec: Any) -> TensorEntry:
    shape, (begin, end), label = spec["shape"], spec["data_offsets"], spec["dtype"]
    if type(label) is not str:
        raise ValueError(f"{name!r} has dtype {label!r}")
    numbers = [*shape, begin, end]
    if any(type(n) is not int or not 0 <= n < 2**48 for n in numbers) or end < begin:
        raise ValueError(f"{name!r} has shape {shape} and offsets {begin}, {end}")
    if label in DTYPES and end - begin != math.prod(shape) * DTYPES[label].itemsize:
        raise ValueError(f"{name!r} of shape {shape} does not take {end - begin} bytes")
    return TensorEntry(path, name, label, tuple(shape), start + begin, end - begin)


def _no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)
