"""Cells to text: prompts, conversations and answers, by rule."""

import decimal
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .queries import Turn
from .source import BadRow

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
LONGEST_NUMBER = 400  # digits of a number written out
_MISSING = object()
_REMEDIES = {
    **dict.fromkeys(
        ("prompt", "question", "problem"),
        ": name that of the questions (prompt=COLUMN)",
    ),
    "answer": ": name that of the right answers (answer=COLUMN), or none (answer=) for"
    " a reward that needs no answer",
}


def cell(row: Mapping[str, Any], column: str) -> Any:
    """Return a cell by the name of its column, dots leading into structs.

    Raises:
      BadRow: if there is none.

    Example:
      >>> cell({"reward_model": {"ground_truth": "72"}}, "reward_model.ground_truth")
      '72'
    """
    value = row.get(column, _MISSING)
    if value is _MISSING:
        value = _nested(row, column)
    if value is _MISSING:
        names = ", ".join(map(repr, paths(row)))
        remedy = _REMEDIES.get(column, "")
        raise BadRow(
            f"no column {column!r}; there are {names}{remedy}", f"no column {column!r}"
        )
    return value


def has(row: Mapping[str, Any], column: str) -> bool:
    """Return whether a row has a column, dots leading into structs."""
    return column in row or _nested(row, column) is not _MISSING


def _nested(row: Mapping[str, Any], column: str) -> Any:
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def paths(row: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of columns, structs by the dotted names of their fields.

    Example:
      >>> paths({"prompt": "?", "reward_model": {"ground_truth": "72"}})
      ['prompt', 'reward_model.ground_truth']
    """
    found = []
    for key, value in row.items():
        if isinstance(value, Mapping) and value:
            found += [f"{key}.{inner}" for inner in value]
        else:
            found.append(str(key))
    return found[:40]


def text(value: Any, column: str) -> str:
    """Return a cell that must hold text.

    Raises:
      BadRow: if it is empty, no text, or not valid Unicode.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise BadRow(
                f"{column!r} is not UTF-8: {error.reason}", f"{column!r} is not UTF-8"
            ) from None
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise BadRow(
            f"{column!r} is {kind}, not text: name another column, or convert it",
            f"{column!r} is {kind}",
        )
    if not value or value.isspace():
        raise BadRow(f"{column!r} is empty", f"{column!r} is empty")
    if not value.isascii():
        _check_unicode(value, column)
    return value


def _check_unicode(value: str, column: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(
            f"{column!r} holds half a surrogate pair, which is no Unicode",
            f"{column!r} is no Unicode",
        ) from None


def scalar(value: Any, column: str) -> str:
    """Return the text of an answer, an id or another single value.

    * Text is taken as it is, but for the JSON text of a list of strings, which counts
      as that list. `[1, 2]` is mathematics and stays.
    * A whole number has no point: 36.0 is `36`. Others have the shortest digits that
      give the number back, never an exponent: 1e-05 is `0.00001`, 1.50 is `1.5`.
    * Null, NaN and infinity are a missing value.
    * A list of one value is that value.

    Raises:
      BadRow: if the value is missing or none of these, such as true or a longer list.

    Example:
      >>> [scalar(value, "answer") for value in (36.0, 1e16, -0.0, ["7"], '["7"]')]
      ['36', '10000000000000000', '0', '7', '7']
    """
    if isinstance(value, str):
        if value[:2] in ("['", '["') or (value[:1] == "[" and '"' in value):
            value = _listed(value)
        else:
            return text(value, column)
    if isinstance(value, list | tuple):
        if len(value) > 1:
            shown = json.dumps(value, default=str)[:60]
            raise BadRow(
                f"{column!r} is a list of {len(value)} values, {shown}: name one"
                " answer, or join them into the text your verifier expects",
                f"{column!r} is a list of several values",
            )
        return scalar(value[0] if value else None, column)
    if isinstance(value, str | bytes):
        return text(value, column)
    return _number(_item(value), column)


def _listed(value: str) -> Any:
    """Return the list whose JSON text this is, if it is one of strings."""
    try:
        items = json.loads(value)
    except (ValueError, RecursionError):
        return value
    strings = isinstance(items, list) and all(isinstance(item, str) for item in items)
    return items if strings else value


def _item(value: Any) -> Any:
    """Return a Python number for one of NumPy."""
    return value.item() if getattr(value, "shape", None) == () else value


def _number(value: Any, column: str) -> str:
    finite = value.is_finite if isinstance(value, decimal.Decimal) else None
    if isinstance(value, float):
        finite = functools.partial(math.isfinite, value)
    if value is None or (finite and not finite()):
        shown = "null" if value is None else str(value)
        raise BadRow(
            f"{column!r} is {shown}, a missing value: fill it in, or leave the row out",
            f"{column!r} is missing",
        )
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal):
        kind = type(value).__name__
        fields = ""
        if isinstance(value, Mapping):
            fields = f" with fields {', '.join(map(str, value))}: name one, as in"
            fields += f" {column}.{next(iter(value), 'FIELD')}"
        raise BadRow(
            f"{column!r} is {kind}{fields or ', neither text nor number: write it as'}"
            f"{'' if fields else ' the text your verifier expects'}",
            f"{column!r} is {kind}",
        )
    if isinstance(value, int):
        if abs(value) >= 10**LONGEST_NUMBER:  # Python writes no more than 4,300
            raise _too_many_digits("a whole number")
        return str(value)
    if isinstance(value, float):
        value = decimal.Decimal(repr(value))
    return positional(value)


def positional(value: decimal.Decimal) -> str:
    """Return a decimal number in digits, without exponent or needless zeros.

    Raises:
      BadRow: if it has more than 400 of them.

    Example:
      >>> positional(decimal.Decimal("1.50")), positional(decimal.Decimal("1e3"))
      ('1.5', '1000')
    """
    if abs(value.adjusted()) > LONGEST_NUMBER or len(value.as_tuple().digits) > 4000:
        raise _too_many_digits(f"the number {value!s:.60}")
    digits = format(value, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits in ("-0", "") else digits


def _too_many_digits(what: str) -> BadRow:
    return BadRow(
        f"{what} has more than {LONGEST_NUMBER} digits: write it as text",
        "a number of too many digits",
    )


def conversation(value: Any, column: str) -> tuple[Turn, ...]:
    """Return the turns of a list of messages.

    Messages have "role" and "content" (or "from" and "value"); content is text or a
    list of text parts. The last turn is the user's, and a system turn is the first.

    Raises:
      BadRow: naming what is wrong.

    Example:
      >>> conversation([{"role": "user", "content": "4+3="}], "prompt")
      (('user', '4+3='),)
    """
    where = functools.partial("{!r}, message {}".format, column)
    if not isinstance(value, list | tuple) or not value:
        raise BadRow(
            f"{column!r} is {_kind(value)}, neither text nor a list of messages",
            f"{column!r} is {_kind(value)}",
        )
    turns = tuple(_turn(one, where(i + 1)) for i, one in enumerate(value))
    roles = [role for role, _ in turns]
    if roles[-1] != "user":
        raise BadRow(
            f"{column!r} ends with a turn of the {roles[-1]}; the last must be the"
            " user's: drop the turns behind it, an answer needs its own column",
            f"{column!r} does not end with the user's turn",
        )
    if "system" in roles[1:]:
        raise BadRow(
            f"{column!r} has a system turn that is not the first: join them into one",
            f"{column!r} has a system turn that is not the first",
        )
    return turns


def holds_turns(value: str) -> bool:
    """Return whether text is a list of messages that was written as text."""
    return value[:2] == "[{" and ("role" in value or "from" in value)


def turns_of_text(value: str, column: str) -> Any:
    """Return the list of messages whose JSON text this is.

    Raises:
      BadRow: if it is another spelling of one.

    Example:
      >>> turns_of_text('[{"role": "user", "content": "4+3="}]', "prompt")
      [{'role': 'user', 'content': '4+3='}]
    """
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow(
            f"{column!r} is a list of messages written as text, {value[:30]!r}, and not"
            " JSON: write it as a list, or by json.dumps",
            f"{column!r} is a list written as text",
        ) from None


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise BadRow(
            f"{where} is {_kind(message)}, not an object with role and content",
            "a message that is no object",
        )
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(
            f"{where} has the role {role!r:.40}; roles are system, user and assistant",
            "a message of another role",
        )
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if ROLES[role] == "system" and content == "":
        return "system", ""  # in place of the template's own
    return ROLES[role], text(content, f"{where}: content")


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
    raise BadRow(
        f"{where} holds a part of type {kind!r:.40}; only text can be read",
        "a message with a part that is no text",
    )


def _kind(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "an empty list"
    return "null" if value is None else type(value).__name__


def plain(value: Any, column: str) -> Any:
    """Return a cell as plain JSON, for metadata.

    Raises:
      BadRow: if it holds what JSON does not.
    """
    try:
        return json.loads(json.dumps(value, default=_default, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(
            f"metadata {column!r}: {error}", f"metadata {column!r} is not plain JSON"
        ) from None


def _default(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: leave the column out")
