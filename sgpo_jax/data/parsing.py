"""Sources from one line of text, for the command line."""

import dataclasses
import json
import pathlib
import re
import typing
from collections.abc import Sequence
from typing import Any

from sgpo_jax.bounds import shown

from .files import SUFFIXES
from .gsm8k import Gsm8k
from .procedural import Mixture, Procedural
from .reasoning_gym import Generator, ReasoningGym
from .records import Records, unknown
from .saved import Saved
from .source import Source
from .tfds import Tfds

SYNTAX = """\
procedural[:OPTION,...]                families=addition+gcd levels=1+2+3 count seed
reasoning-gym:FAMILY[,KNOB=VALUE,...][;FAMILY...]        also size, level, seed
PATH[,OPTION,...]       .jsonl .json .parquet .arrow, .gz; a folder; a pattern *.jsonl
                      prompt answer id level metadata=a+b verifier family max_chars
                      held_out=PATH strict; columns dotted, as reward_model.ground_truth
jsonl:PATH, parquet:PATH               the same for other names
gsm8k:FOLDER[,strict=true]             with train and test, JSON lines or Parquet
tfds:NAME/SPLIT[,OPTION,...]           held_out directory download prompt answer \
verifier strict
saved:PATH                             queries.jsonl of a trainer's folder"""
"""Syntax of data sources, as `sgpo --help` prints it."""


LONGEST = 2_000
"""Most characters of a source."""


def parse_source(text: str) -> Source:
    """Make a source of its description; see `SYNTAX`.

    Raises:
      ValueError: naming what is wrong and what would be right.

    Example:
      >>> parse_source("jsonl:questions.jsonl,answer=solution").answer
      'solution'
      >>> gym = parse_source("reasoning-gym:chain_sum,max_digits=2,size=50;gcd")
      >>> [generator.family for generator in gym.generators]
      ['chain_sum', 'gcd']
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"data {shown(text)} has {len(text):,} characters, {LONGEST:,} are allowed:"
            " give a folder in place of many files"
        )
    kind, _, rest = text.partition(":")
    if kind not in _PARSERS:
        place = text.partition(",")[0]
        folder = bool(place) and pathlib.Path(place).expanduser().is_dir()
        if not (place.endswith(SUFFIXES) or folder):
            raise ValueError(f"data {shown(text, 200)} {_no_source(text)}")
        kind, rest = "jsonl", text
    try:
        return _PARSERS[kind](rest)
    except ValueError as error:
        raise ValueError(f"data {shown(text, 200)}: {error}") from None


def _no_source(text: str) -> str:
    """Return why a text names no source, with the remedy for what it seems to be."""
    place = text.partition(",")[0]
    if pathlib.Path(text).expanduser().exists() and "," in text:
        return "has a comma in its path, where options begin: rename it"
    if pathlib.Path(place).expanduser().is_file():
        return f"names a file that is not read: {unknown(place)}"
    if re.fullmatch(r"(hf:)?[\w.-]+/[\w.-]+", place):
        name = place.removeprefix("hf:")
        return (
            "is no file or folder. If it is a data set of the hub, fetch it, by `hf"
            f" download --repo-type dataset {name} --local-dir FOLDER`, and give FOLDER"
        )
    return f"is none of\n{SYNTAX}"


def _procedural(rest: str) -> Source:
    options = _options(rest.split(",") if rest else [])
    seed = _build(Procedural, {"seed": options.pop("seed", "0")}).seed
    return Procedural(mixture=_build(Mixture, options), seed=seed)


def _gym(rest: str) -> Source:
    generators = []
    seed = 0
    for part in rest.split(";"):
        family, *pairs = part.split(",")
        if not family:
            raise ValueError("a family is missing, as in reasoning-gym:chain_sum")
        options = _options(pairs)
        seed = _build(
            ReasoningGym, {"seed": options.pop("seed", str(seed))}, generators=()
        ).seed
        own = {key: options.pop(key) for key in ("size", "level") if key in options}
        knobs = tuple((key, _value(value)) for key, value in options.items())
        generators.append(_build(Generator, own, family=family, knobs=knobs))
    return ReasoningGym(generators=tuple(generators), seed=seed)


def _records(rest: str) -> Source:
    path, *pairs = rest.split(",")
    return _build(Records, _options(pairs, may_be_empty=("answer",)), path=path)


def _gsm8k(rest: str) -> Source:
    path, *pairs = rest.split(",")
    if not path:
        raise ValueError("the folder is missing, as in gsm8k:data/gsm8k")
    return _build(Gsm8k, _options(pairs), path=path)


def _tfds(rest: str) -> Source:
    place, *pairs = rest.split(",")
    name, _, split = place.rpartition("/")
    if not name or not split:
        raise ValueError("name and split are missing, as in tfds:gsm8k/train")
    return _build(Tfds, _options(pairs), name=name, split=split)


_PARSERS = {
    "procedural": _procedural,
    "reasoning-gym": _gym,
    "jsonl": _records,
    "parquet": _records,
    "gsm8k": _gsm8k,
    "tfds": _tfds,
    "saved": lambda rest: Saved(path=rest),
}


def _options(
    pairs: Sequence[str], *, may_be_empty: Sequence[str] = ()
) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals or not (value or key in may_be_empty):
            raise ValueError(f"option {shown(pair)} is not of the form name=value")
        if key in options:
            raise ValueError(f"option {shown(key)} is given twice")
        options[key] = value
    return options


def _build(cls: type, options: dict[str, str], **given: Any) -> Any:
    """Make a dataclass of text options, by the types of its fields."""
    types = {
        field.name: field.type
        for field in dataclasses.fields(cls)
        if field.name not in given
    }
    values = {}
    for key, value in options.items():
        if key not in types:
            raise ValueError(
                f"no option {shown(key)}; there are {', '.join(sorted(types))}"
            )
        values[key] = _cast(key, value, types[key])
    return cls(**given, **values)


def _cast(key: str, value: str, wanted: Any) -> Any:
    if typing.get_origin(wanted) is tuple:
        part = typing.get_args(wanted)[0]
        return tuple(_cast(key, item, part) for item in value.split("+"))
    if wanted is str or wanted == str | None:
        return value
    parsed = _value(value)
    allowed = (typing.get_args(wanted) or (wanted,))[0]
    if type(parsed) is not allowed:
        raise ValueError(
            f"option {shown(key)} must be {allowed.__name__}, got {shown(value)}"
        )
    return parsed


def _value(value: str) -> Any:
    """Return a number, true or false, where the text is one."""
    try:
        return json.loads(value)
    except ValueError:
        return value
