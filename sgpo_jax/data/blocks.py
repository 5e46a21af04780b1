"""Columns of many rows at once: queries of rows that need no rule but the common ones.

`Columns.query` states what a row becomes. Here the same is done column by column. A
block with a cell that is wrong, or not readable this way, raises `NotPlainError`; it is
then converted row by row, with an error for each.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from . import values
from .source import BadRow

Cells = list[Any]
Rows = Sequence[Any]


class NotPlainError(Exception):
    """A block that has to be converted row by row."""


def cells(rows: Rows, column: str) -> Cells:
    """Return the cells of a column, dots leading into structs, as `values.cell` does.

    Raises:
      NotPlainError: if a row is no plain dict, or has no such column.

    Example:
      >>> cells([{"a": {"b": 1}}, {"a": {"b": 2}}], "a.b")
      [1, 2]
    """
    try:
        if not _all(rows, dict):
            raise NotPlainError
        if "." not in column or column in rows[0]:
            return [row[column] for row in rows]
        if any(column in row for row in rows):
            raise NotPlainError
        found: Rows = rows
        for part in column.split("."):
            if not _all(found, dict):
                raise NotPlainError
            found = [value[part] for value in found]
        return list(found)
    except KeyError:
        raise NotPlainError from None


def _all(things: Rows, kind: type) -> bool:
    return set(map(type, things)) == {kind}


def texts(column: Cells) -> list[str]:
    """Return cells that all hold text, as `values.text` takes it.

    Raises:
      NotPlainError: if one is no text, empty, or not valid Unicode.
    """
    if not _all(column, str) or not all(column) or any(map(str.isspace, column)):
        raise NotPlainError
    try:
        for text in itertools.filterfalse(str.isascii, column):
            text.encode()
    except UnicodeEncodeError:
        raise NotPlainError from None
    return column


def scalars(column: Cells, name: str) -> list[str]:
    """Return the texts of single values, as `values.scalar` makes them.

    Raises:
      NotPlainError: if one is not a single value.
    """
    if _all(column, str):
        if any(text[:1] == "[" for text in column):
            return each(values.scalar, column, name)
        return texts(column)
    return each(values.scalar, column, name)


def each(rule: Callable[[Any, str], Any], column: Cells, name: str) -> Cells:
    """Return what a rule of `values` makes of each cell.

    Raises:
      NotPlainError: if it refuses one.
    """
    try:
        return list(map(rule, column, itertools.repeat(name)))
    except BadRow:
        raise NotPlainError from None


def user_turns(column: Cells) -> list[str] | None:
    """Return the contents of conversations that are one turn of the user each.

    None if one of them is more than that.

    Example:
      >>> user_turns([[{"role": "user", "content": "4+3="}]])
      ['4+3=']
    """
    if not _all(column, list) or set(map(len, column)) != {1}:
        return None
    messages = list(map(operator.itemgetter(0), column))
    try:
        roles = set(cells(messages, "role"))
        if not roles <= _USER:
            return None
        return texts(cells(messages, "content"))
    except (NotPlainError, TypeError):
        return None


_USER = {name for name, role in values.ROLES.items() if role == "user"}
