"""Questions from the generators of reasoning-gym.

The package is an extra: it brings two dozen others and takes seconds to import, so it
is imported where questions are made and nowhere else.
"""

import dataclasses
import difflib
import json
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .queries import Query, content_id, normalize
from .source import Loaded

_EVALUATES = "its scorer evaluates the completion as Python code"
_NO_ANSWER = "it has no answer that its scorer could be tried with"
DENIED: Mapping[str, str] = {
    "binary_matrix": _EVALUATES,
    "countdown": _EVALUATES,
    "intermediate_integration": _EVALUATES,
    "n_queens": _EVALUATES,
    "polynomial_multiplication": _EVALUATES,
    "puzzle24": _EVALUATES,
    "simple_integration": _EVALUATES,
    "spiral_matrix": _EVALUATES,
    "string_insertion": _EVALUATES,
    "coin_flip": "its scorer accepts any prefix of the answer",
    "complex_arithmetic": "its scorer gives full marks to 'nan'",
    "game_of_life_halting": "its scorer gives full marks to any text",
    "boxnet": _NO_ANSWER,
    "graph_color": _NO_ANSWER,
    "propositional_logic": _NO_ANSWER,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
    "composite": "its parts have to be named one by one",
    "list_functions": "it draws other questions in every process",
    "knight_swap": "it takes a second to make one question",
}

# Their scorers compare grids as tuples, which JSON has not.
_TUPLES = frozenset(("arc_1d", "arc_agi", "rearc"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """One family with its knobs.

    Attributes:
      family: name of a reasoning-gym data set, such as "chain_sum".
      size: questions to draw; small spaces give fewer distinct ones.
      level: written into `Query.level`.
      knobs: options of the data set, such as (("max_digits", 2),).
    """

    family: str
    size: int = 200
    level: int | None = None
    knobs: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self):
        _refuse(self.family)
        if self.size < 1:
            raise ValueError(
                f"size of {self.family} must be at least 1, got {self.size}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """A mixture of families.

    A family given several times with other parameters has levels 1, 2, ... in the
    order given, unless they are set.

    Attributes:
      generators: families and knobs.
      seed: of the generators.
    """

    generators: tuple[Generator, ...]
    seed: int = 0

    def load(self) -> Loaded:
        """Draw the questions; equal prompts are kept once.

        The verifier is "reasoning_gym": it asks the family's scorer about the entry in
        the metadata, with full marks or none. Questions are drawn once, in a process of
        their own with a fixed hash seed, so that every process gets the same.

        Raises:
          ImportError: if reasoning-gym is not installed.
          ValueError: if a family or a knob does not exist or is out of range.
        """
        found: dict[str, Query] = {}
        problems = []
        levels = self._levels()
        drawn = _draw_apart(self.generators, self.seed)
        for generator, level, entries in zip(
            self.generators, levels, drawn, strict=True
        ):
            before, wrong = len(found), entries.count(None)
            for query in _queries(generator, level, self.seed, entries):
                found.setdefault(normalize(query.prompt), query)
            if wrong:
                problems.append(
                    f"{generator.family} level {level}: {wrong} questions are left out,"
                    " whose own answer their scorer does not accept"
                )
            if (new := len(found) - before) < generator.size - wrong:
                problems.append(
                    f"{generator.family} level {level} has only {new} new distinct "
                    f"questions of {generator.size} asked"
                )
        return Loaded(tuple(found.values()), problems=tuple(problems))

    def _levels(self) -> Sequence[int]:
        names = [generator.family for generator in self.generators]
        return [
            names[: i + 1].count(generator.family)
            if generator.level is None
            else generator.level
            for i, generator in enumerate(self.generators)
        ]


def _config(generator: Generator, seed: int) -> dict[str, Any]:
    return dict(generator.knobs) | {"size": generator.size, "seed": seed}


Entries = list[dict[str, Any] | None]


def _draw_apart(generators: Sequence[Generator], seed: int) -> list[Entries]:
    """Draw the questions of all families in another process."""
    request = [(generator.family, _config(generator, seed)) for generator in generators]
    try:
        body = json.dumps(request)
    except TypeError as error:
        raise ValueError(f"knobs must be plain JSON: {error}") from None
    done = subprocess.run(
        [sys.executable, "-P", "-m", f"{__package__}.reasoning_gym_draw"],
        input=body,
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    lines = done.stdout.splitlines()
    found = []
    for line in lines:
        answer = json.loads(line)
        if "error" in answer:
            kind = ImportError if answer["kind"] == "ImportError" else ValueError
            raise kind(answer["error"])
        found.append(answer["entries"])
    if done.returncode or len(found) < len(generators):
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        family = generators[min(len(found), len(generators) - 1)].family
        raise ValueError(f"reasoning-gym cannot draw {family}: {said}")
    return found


def _queries(
    generator: Generator, level: int, seed: int, entries: Entries
) -> Iterator[Query]:
    family, config = generator.family, _config(generator, seed)
    for index, entry in enumerate(entries):
        if entry is not None:
            metadata = {"dataset": family, "config": config, "index": index}
            yield Query(
                # Draws of one question differ in nothing that matters.
                id=content_id(family, normalize(entry["question"])),
                prompt=entry["question"],
                reference=entry["answer"],
                verifier="reasoning_gym",
                family=family,
                level=level,
                metadata=metadata | {"entry": entry["metadata"]},
            )


def entry_of(family: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry that has been through JSON as the family's scorer wants it."""
    metadata = entry["metadata"]
    return {**entry, "metadata": _tuples(metadata) if family in _TUPLES else metadata}


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def marks(data: Any, completion: str, entry: Mapping[str, Any]) -> float:
    """Return the marks of a family's scorer; 0 where it raises over the completion."""
    try:
        return float(data.score_answer(completion, entry))
    except Exception:
        return 0.0


def create(family: str, config: Mapping[str, Any]) -> Any:
    """Return the reasoning-gym data set of that name and configuration.

    Raises:
      ImportError: if reasoning-gym is not installed.
      ValueError: if the family is unknown or refused, or the configuration is wrong.
    """
    _refuse(family)
    package = import_package()
    if family not in package.factory.DATASETS:
        near = difflib.get_close_matches(family, package.factory.DATASETS)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"reasoning-gym has no family {family!r}{hint}")
    _, config_class = package.factory.DATASETS[family]
    known = [field.name for field in dataclasses.fields(config_class)]
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(
            f"{family} has no knob {unknown[0]!r}; it has {', '.join(known)}"
        )
    try:
        return package.create_dataset(family, **config)
    # Its validation asserts, and compares knobs of the wrong type.
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{family} refuses {dict(config)}: {error}") from error


def _refuse(family: str) -> None:
    if family in DENIED:
        raise ValueError(
            f"reasoning-gym family {family!r} is refused: {DENIED[family]}"
        )


def import_package() -> types.ModuleType:
    """Import reasoning-gym, which takes seconds.

    Raises:
      ImportError: if it is not installed, with the command that installs it.
    """
    with warnings.catch_warnings():
        # Its dependencies warn when they are compiled.
        warnings.simplefilter("ignore")
        try:
            import reasoning_gym
        except ImportError as error:
            raise ImportError(
                "reasoning-gym is not installed: pip install 'sgpo_jax[reasoning-gym]'"
            ) from error
    return reasoning_gym
