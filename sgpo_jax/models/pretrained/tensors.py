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

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Return rows `start` to `stop` of a tensor, in floating point."""
        ...

    def sample(self, name: str, row: int) -> np.ndarray:
        """Return a row as it is stored, for a fingerprint."""
        ...


class Entry(NamedTuple):
    """Where a tensor lies in a file."""

    path: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


DTYPES: Mapping[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_LONGEST_HEADER = 100_000_000


class SafeTensors:
    """The tensors of one or several safetensors files.

    The format is a length, a JSON header and the data, so reading it needs no package;
    what matters is that nothing of the header is believed before it is checked, and
    that rows are read from the file when they are asked for.
    """

    def __init__(self, paths: Sequence[pathlib.Path]):
        self.entries: dict[str, Entry] = {}
        for path in paths:
            for name, entry in read_header(path).items():
                if name in self.entries:
                    raise ValueError(
                        f"tensor {name!r} is in {self.entries[name].path.name} and in"
                        f" {path.name}"
                    )
                self.entries[name] = entry

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Return rows `start` to `stop` of a tensor."""
        entry = self.entries[name]
        width = math.prod(entry.shape[1:])
        count = (rows.stop - rows.start) * width
        begin = entry.offset + rows.start * width * entry.dtype.itemsize
        data = np.fromfile(entry.path, entry.dtype, count, offset=begin)
        if data.size != count:
            raise ValueError(f"{entry.path} is cut short within {name!r}")
        return data.reshape(-1, *entry.shape[1:])

    def sample(self, name: str, row: int) -> np.ndarray:
        """Return a row as it is stored."""
        return self.read(name, slice(row, row + 1))


def read_header(path: pathlib.Path) -> dict[str, Entry]:
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
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
        if entry.offset != end:
            raise ValueError(f"{path}: {name!r} begins at {entry.offset}, not at {end}")
        end += math.prod(entry.shape) * entry.dtype.itemsize
    if end != size:
        raise ValueError(f"{path}: tensors end at {end}, the file at {size}")
    return entries


def _entry(path: pathlib.Path, start: int, name: str, spec: Any) -> Entry:
    shape, (begin, end) = spec["shape"], spec["data_offsets"]
    if spec["dtype"] not in DTYPES:
        raise ValueError(f"{name!r} is {spec['dtype']}; there are {', '.join(DTYPES)}")
    dtype = DTYPES[spec["dtype"]]
    numbers = [*shape, begin, end]
    if any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
        raise ValueError(f"{name!r} has shape {shape} and offsets {begin}, {end}")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} of shape {shape} does not take {end - begin} bytes")
    return Entry(path, dtype, tuple(shape), start + begin)


def _no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def open_folder(folder: pathlib.Path) -> SafeTensors:
    """Return the tensors of a folder with `*.safetensors`, in parts or whole.

    Raises:
      ValueError: if there are none, or the index does not fit the files.
      FileNotFoundError: if a file of the index is missing.
    """
    index = folder / "model.safetensors.index.json"
    whole = folder / "model.safetensors"
    if whole.exists() or not index.exists():
        if not whole.exists():
            _refuse_pickle(folder)
        return SafeTensors([whole])
    try:
        places = json.loads(index.read_text())["weight_map"]
        names = sorted(set(places.values()))
        if any(pathlib.PurePath(name).name != name for name in names):
            raise ValueError(f"{names} are no plain file names")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: {error}") from None
    tensors = SafeTensors([folder / name for name in names])
    for name, place in places.items():
        if name not in tensors.entries or tensors.entries[name].path.name != place:
            raise ValueError(f"{index} promises {name!r} in {place}; it is not there")
    return tensors


def _refuse_pickle(folder: pathlib.Path) -> None:
    pickles = [
        path.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
        for path in sorted(folder.glob(pattern))
    ]
    if pickles:
        raise ValueError(
            f"{folder} holds {pickles[0]}, a pickle: loading one runs the code in it,"
            " so none is read; convert it to safetensors first"
        )
    raise ValueError(f"{folder} holds no model.safetensors")
