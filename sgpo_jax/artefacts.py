"""Files of a run that are checked when they are read: JSON with a checksum in it.

A file is what was written, or it is refused by its name. What a person may edit (a
plan) is checked by rules instead, see `planning.read_plan`.
"""

import hashlib
import json
import os
import pathlib
import zlib
from typing import Any

CHECKSUM = "checksum"
"""Last entry of a sealed object: SHA-256 of the others, 16 hexadecimal digits."""
LINE_CHECKSUM = "crc"
"""Last entry of a sealed line: CRC-32 of the others and of the lines before."""


class DamagedError(ValueError):
    """A file is not what was written; the message names it and the remedy."""


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write an object with its checksum as JSON; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    sealed = {**content, CHECKSUM: digest(content)}
    temporary.write_text(json.dumps(sealed, indent=1) + "\n")
    os.replace(temporary, path)


def read_json(path: pathlib.Path, *, remedy: str = "put the file back") -> Any:
    """Read an object that `write_json` wrote, without its checksum.

    An object without a checksum, of an earlier version or by another hand, is returned
    as it is: the rules of its reader apply.

    Args:
      path: of the file.
      remedy: what to do about damage; ends the error.

    Raises:
      DamagedError: naming the file, if it is not JSON, or not what was written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "eval.json"
      ...     write_json(path, {"mean": 0.5})
      ...     found = read_json(path)
      ...     _ = path.write_text(path.read_text().replace("0.5", "0.7"))
      ...     try:
      ...         read_json(path)
      ...     except DamagedError as error:
      ...         print(found, str(error)[-53:])
      {'mean': 0.5} is not what was written (checksum); put the file back
    """
    try:
        content = _parsed(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(f"{path} is damaged: not JSON: {reason}; {remedy}") from None
    if not isinstance(content, dict):
        raise DamagedError(f"{path} is damaged: it holds no object; {remedy}")
    given = content.pop(CHECKSUM, None)
    if given is not None and given != digest(content):
        raise DamagedError(f"{path} is not what was written (checksum); {remedy}")
    return content


def _parsed(text: str) -> Any:
    return json.loads(text, parse_int=_whole_number)


def _whole_number(text: str) -> int:
    """Parse an integer; no run counts beyond 64 bits, and no float is that exact."""
    if len(text) > 20 or abs(int(text)) >= 2**64:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def digest(content: dict[str, Any]) -> str:
    """Return the checksum of an object, whatever the order of its entries."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def seal_line(content: dict[str, Any], after: str = "") -> str:
    """Return an object as one line of JSON with its checksum, without a line break.

    Args:
      content: the object.
      after: seal of the line before, so that no line can be lost between two others.

    >>> seal_line({"step": 1, "reward": 0.5})
    '{"step": 1, "reward": 0.5, "crc": "05a3040b"}'
    """
    return json.dumps({**content, LINE_CHECKSUM: line_seal(content, after)})


def open_line(text: str, after: str = "") -> tuple[dict[str, Any], str]:
    """Return the object of a line, and its seal, "" if it has none.

    Raises:
      ValueError: saying what is wrong with it.

    >>> open_line('{"step": 1, "reward": 0.7, "crc": "05a3040b"}')
    Traceback (most recent call last):
    ValueError: it is not what was written after the line before (checksum)
    """
    try:
        content = _parsed(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    given = content.pop(LINE_CHECKSUM, "")
    if not isinstance(given, str) or (given and given != line_seal(content, after)):
        raise ValueError("it is not what was written after the line before (checksum)")
    if after and not given:
        raise ValueError("it has no checksum, the line before has one")
    return content, given


def line_seal(content: dict[str, Any], after: str = "") -> str:
    """Return the checksum of a line and of all before it, 8 hexadecimal digits."""
    text = after + json.dumps(content)
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
