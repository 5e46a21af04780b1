"""Verifiers of form: a regular expression in linear time, and a JSON schema."""

import json
import pathlib
import re
from typing import Any

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL)


def matches(completion: str, reference: str, *, pattern: Any) -> float:
    r"""Format: 1 if the whole completion matches a regular expression, else 0.

    RE2's syntax, `.` matching line ends: its time is linear in the completion, whatever
    the expression. White space at the ends is passed over.

    Example:
      >>> form = compiled("<think>.*</think>\\s*<answer>.*</answer>")
      >>> matches("<think>4+3</think>\n<answer>7</answer>", "", **form)
      1.0
      >>> matches("7", "", **form)
      0.0
    """
    text = completion.strip().encode("utf-8", "replace").decode("utf-8")
    return float(pattern.fullmatch(text) is not None)


def compiled(pattern: str) -> dict[str, Any]:
    """Options of `matches` for an expression.

    Raises:
      ImportError: if google-re2 is not installed.
      ValueError: if it is no expression of RE2.
    """
    try:
        import re2
    except ImportError as error:
        raise ImportError(
            "regular expressions need google-re2: pip install 'sgpo_jax[verifiers]'"
        ) from error
    choice = re2.Options()
    choice.dot_nl, choice.log_errors = True, False
    try:
        return {"pattern": re2.compile(pattern, choice)}
    except re2.error as error:
        raise ValueError(f"{pattern!r} is no expression of RE2: {error}") from error


def valid_json(completion: str, reference: str, *, path: Any) -> float:
    """JSON: 1 if the completion is JSON that a schema allows, else 0.

    The JSON is the last block fenced by ```json, or else the whole completion. NaN and
    infinity are no JSON. References of the schema to other addresses are not followed.
    """
    blocks = _FENCE.findall(completion)
    try:
        value = json.loads(blocks[-1] if blocks else completion, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    try:
        return float(path.is_valid(value))
    except RecursionError:
        return 0.0


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def schema(path: str = "") -> dict[str, Any]:
    """Options of `valid_json` for the file of a schema.

    Raises:
      ImportError: if jsonschema is not installed.
      OSError: if the file cannot be read.
      ValueError: if it holds no schema.
    """
    if not path:
        raise ValueError("the schema is missing, as in json_schema:path=schema.json")
    try:
        import jsonschema
        import referencing
        from jsonschema.validators import validator_for
    except ImportError as error:
        raise ImportError(
            "JSON schemas need jsonschema: pip install 'sgpo_jax[verifiers]'"
        ) from error
    found = json.loads(pathlib.Path(path).expanduser().read_text())
    kind = validator_for(found, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(found)
    except jsonschema.SchemaError as error:
        raise ValueError(f"{path} is no JSON schema: {error.message}") from error
    return {"path": kind(found, registry=referencing.Registry())}
