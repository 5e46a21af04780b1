"""Data files: which ones a path names, and opening them safely."""

import dataclasses
import glob
import io
import os
import pathlib
import re
import stat
from collections.abc import Sequence
from typing import BinaryIO

SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow", ".jsonl.gz", ".json.gz")
IN_FOLDERS = (".jsonl", ".jsonl.gz", ".parquet", ".arrow")
SUBFOLDERS = ("data", "main", "default")  # of the hub's layouts
TRAIN, TEST = ("train",), ("test", "validation", "valid", "val", "dev", "eval")
_SPLIT = re.compile(rf"({'|'.join(TRAIN + TEST)})(?:[-_.].*)?", re.IGNORECASE)

_BLANK = 64 * 2**20  # bytes a compressed file may always expand to
_RATIO = 500  # and how many times its size beyond that

# What files begin with that are no JSON lines.
_SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "a Parquet file: name it .parquet"),
    (b"ARROW1", "an Arrow file: name it .arrow"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: decompress it, or use gzip"),
    (b"BZh", "compressed by bzip2: decompress it, or use gzip"),
    (b"\xfd7zXZ", "compressed by xz: decompress it, or use gzip"),
    (b"PK\x03\x04", "a ZIP archive: unpack it"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch it by `git lfs pull`"),
    (b"<!DOCTYPE", "a web page: download the file itself"),
    (b"<html", "a web page: download the file itself"),
    (b"SQLite format", "an SQLite database: export it as JSON lines"),
    (b"\xff\xfe\x00\x00", "in UTF-32: convert it by `iconv -f UTF-32 -t UTF-8`"),
    (b"\x00\x00\xfe\xff", "in UTF-32: convert it by `iconv -f UTF-32 -t UTF-8`"),
    (b"\xff\xfe", "in UTF-16: convert it by `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "in UTF-16: convert it by `iconv -f UTF-16 -t UTF-8`"),
)


@dataclasses.dataclass(frozen=True)
class Files:
    """Files that make one data set.

    Attributes:
      train: of the questions, in order of their names.
      test: of the held-out set; empty if there are none.
      ignored: of further splits.
    """

    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def find(path: str) -> Files:
    """Return the files of a path: a file, a pattern, or a folder.

    In a folder, `train*` are the questions and `test*` the held-out set, or the first
    that there is of validation, valid, val, dev and eval; if no name begins with train,
    every file has questions. Files in `data` or `main` count if the
    folder itself has no data files. A folder written by `datasets` has its own list.

    Raises:
      OSError: if nothing is there.
      ValueError: if a folder has no data files, or files of several formats.
    """
    place = pathlib.Path(path).expanduser()
    if not place.exists() and any(mark in path for mark in "*?["):
        found = sorted(glob.glob(str(place), recursive=True))
        if not found:
            raise FileNotFoundError(f"no file matches {path!r}")
        return Files(tuple(found))
    if not place.exists():
        raise FileNotFoundError(f"there is no file {path!r}")
    if not place.is_dir():
        return Files((str(place),))
    for folder in (place, *(place / name for name in SUBFOLDERS)):
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            return _saved(folder)
        names = _data_files(folder)
        if names:
            return _by_split(folder, names)
    raise ValueError(
        f"the folder {path!r} has no file that ends in {', '.join(IN_FOLDERS)}"
    )


def _data_files(folder: pathlib.Path) -> Sequence[str]:
    if not folder.is_dir():
        return []
    names = sorted(
        name
        for name in os.listdir(folder)
        if name.endswith(IN_FOLDERS) and not name.startswith((".", "_"))
    )
    kinds = sorted({_suffix(name) for name in names})
    if len(kinds) > 1:
        raise ValueError(
            f"the folder {str(folder)!r} has files ending in {' and '.join(kinds)}:"
            f" choose by a pattern, such as {str(folder / ('*' + kinds[0]))!r}"
        )
    return names


def _suffix(name: str) -> str:
    return pathlib.PurePath(name.removesuffix(".gz")).suffix


def _by_split(folder: pathlib.Path, names: Sequence[str]) -> Files:
    splits: dict[str, list[str]] = {}
    for name in names:
        match = _SPLIT.fullmatch(name)
        splits.setdefault(match[1].lower() if match else "", []).append(
            str(folder / name)
        )
    train = splits.pop("train", None)
    if train is None:
        return Files(tuple(str(folder / name) for name in names))
    test = next((splits.pop(name) for name in TEST if name in splits), [])
    ignored = tuple(name for group in splits.values() for name in group)
    return Files(tuple(train), tuple(test), ignored)


def _saved(folder: pathlib.Path) -> Files:
    """Return the files of a folder that `datasets` saved."""
    if (folder / "state.json").exists():
        return Files(tuple(map(str, sorted(folder.glob("*.arrow")))))
    splits = {
        inner.name: tuple(map(str, sorted(inner.glob("*.arrow"))))
        for inner in sorted(folder.iterdir())
        if (inner / "state.json").exists()
    }
    if "train" not in splits:
        raise ValueError(
            f"the folder {str(folder)!r} has the splits {', '.join(splits) or '(none)'}"
            " and no train: name the folder of one"
        )
    train = splits.pop("train")
    test = next((splits.pop(name) for name in TEST if name in splits), ())
    rest = (name for group in splits.values() for name in group)
    return Files(train, test, tuple(rest))


def open_regular(path: str) -> BinaryIO:
    """Open a file for reading in binary; pipes, devices and sockets are refused.

    Raises:
      OSError: if it cannot be opened.
      ValueError: if it is no regular file.
    """
    _require_regular(path, os.stat(path).st_mode)
    # What it is may change in between; a pipe without a writer must not block.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(file).st_mode)
    except ValueError:
        os.close(file)
        raise
    return os.fdopen(file, "rb")


def _require_regular(path: str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next(
        name
        for test, name in (
            (stat.S_ISFIFO, "a pipe"),
            (stat.S_ISSOCK, "a socket"),
            (stat.S_ISDIR, "a folder"),
            (lambda mode: True, "a device"),
        )
        if test(mode)
    )
    raise ValueError(f"{path!r} is {kind}: write the rows to a file and name that")


def foreign(head: bytes) -> str | None:
    """Return what a file is that is no JSON lines, with the remedy; None if it may be.

    Example:
      >>> foreign(b"PAR1...")
      'a Parquet file: name it .parquet'
    """
    for sign, name in _SIGNS:
        if head.startswith(sign):
            return name
    if head[1:2] == b"\0" or head[:1] == b"\0":
        return "in UTF-16, or no text: convert it by `iconv -f UTF-16 -t UTF-8`"
    return None


class Bounded(io.RawIOBase):
    """A decompressed stream that refuses to expand without end.

    Args:
      inner: gives decompressed bytes.
      compressed: the file below it, whose position is what was read.
      name: of the file, for the error.
    """

    def __init__(
        self, inner: io.BufferedIOBase, compressed: io.BufferedIOBase, name: str
    ):
        self._inner, self._compressed, self._name = inner, compressed, name
        self._count = 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer) -> int:
        """Fill a buffer.

        Raises:
          ValueError: if the file expands more than 500 times.
        """
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._count > max(_BLANK, _RATIO * self._compressed.tell()):
            raise ValueError(
                f"{self._name!r} expands to more than {_RATIO} times its size: it is"
                " no data set; decompress it yourself if it is one"
            )
        return len(data)
