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
      >>> form = matches.prepare("<think>.*</think>\\s*<answer>.*</answer>")
      >>> matches("<think>4+3</think>\n<answer>7</answer>", "", **form)
      1.0
      >>> matches("7", "", **form)
      0.0
    """
    text = completion.strip().encode("utf-8", "replace").decode("utf-8")
    return float(pattern.fullmatch(text) is not None)


def _compiled(pattern: str) -> dict[str, Any]:
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


matches.prepare = _compiled


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


def _schema(path: str = "") -> dict[str, Any]:
    if not path:
        raise ValueError("the schema is missing, as in json_schema:path=schema.json")
    try:
        import jsonschema
        import referencing
    except ImportError as error:
        raise ImportError(
            "JSON schemas need jsonschema: pip install 'sgpo_jax[verifiers]'"
        ) from error
    schema = json.loads(pathlib.Path(path).expanduser().read_text())
    kind = jsonschema.validators.validator_for(
        schema, default=jsonschema.Draft202012Validator
    )
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"{path} is no JSON schema: {error.message}") from error
    return {"path": kind(schema, registry=referencing.Registry())}


valid_json.prepare = _schema
