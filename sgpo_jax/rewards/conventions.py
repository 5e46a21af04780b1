"""Calling conventions of reward functions, inferred from the signature.

* `(completion, reference)` or `(completion, query)`: one completion. Columns of the
  metadata are passed by name where the function has parameters of those names. The
  parameters may also be called prompt, completion, reference and so on, in any order.
* TRL: a parameter `completions`. Called once with the whole batch:
  `(prompts, completions, completion_ids=..., **columns) -> list`; conversational where
  it reads `completions[0][0]["content"]`.
* verl: `compute_score(data_source, solution_str, ground_truth, extra_info)`, or with
  plural names, called once with the whole batch. A struct as ground truth stays one.

Each may be a coroutine function. A prefix in the name of the verifier settles it:
`plain:`, `query:`, `trl:`, `trl_chat:`, `verl:` or `verl_batch:`.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

CONVENTIONS = ("plain", "query", "trl", "trl_chat", "verl", "verl_batch")

_ALIASES = {
    "prompt": "prompt question problem",
    "completion": "completion response solution_str output text generation",
    "reference": "reference answer ground_truth gold target label solution expected",
    "query": "query",
}
_MEANING = {alias: key for key, text in _ALIASES.items() for alias in text.split()}


class Item(NamedTuple):
    """One completion to score.

    Attributes:
      query: the fields of its query.
      completion: what the policy answered.
      tokens: its token ids, if they are known.
    """

    query: Mapping[str, Any]
    completion: str
    tokens: list[int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardFunction:
    """A verifier as the scoring processes call it.

    Attributes:
      score: items -> one value each; one item at a time unless `whole_batch`.
      whole_batch: whether all completions of a batch belong into one call.
      trusted: whether it is a pure function that leaves its process as it was.
      convention: how it is called.
    """

    score: Callable[[Sequence[Item]], Sequence[Any]]
    whole_batch: bool = False
    trusted: bool = False
    convention: str = "plain"


def adapt(
    function: Callable[..., Any], convention: str = "", **options: Any
) -> RewardFunction:
    """Return a reward function as a `RewardFunction`.

    Args:
      function: in one of the conventions.
      convention: one of `CONVENTIONS`; empty to go by the signature.
      **options: keyword arguments that are always passed.

    Raises:
      ValueError: if the signature fits none of the conventions.

    Example:
      >>> def compute_score(data_source, solution_str, ground_truth, extra_info=None):
      ...     return {"score": float(solution_str == ground_truth)}
      >>> call = adapt(compute_score)
      >>> call.convention, call.score([Item({"reference": "7"}, "7")])
      ('verl', [{'score': 1.0}])
    """
    if not callable(function):
        raise ValueError(f"{function!r} is no function")
    if options:
        function = functools.partial(function, **options)
    parameters = _parameters(function)
    chosen = [convention or _detect(parameters)]
    if chosen == ["trl"] and not convention:
        chosen.append("trl_chat")
    convention = chosen[0]
    wrap = _awaited if _is_async(function) else lambda score: score
    made, *others = [wrap(_MAKERS[name](function, parameters)) for name in chosen]
    if others:
        made = functools.partial(_either, made, others[0])
    batch = convention.startswith("trl") or convention == "verl_batch"
    return RewardFunction(score=made, whole_batch=batch, convention=convention)


def _parameters(function: Callable) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY)
            for name in ("completion", "reference")
        ]


def _detect(parameters: Sequence[inspect.Parameter]) -> str:
    names = [parameter.name for parameter in parameters]
    keywords = {parameter.kind for parameter in parameters}
    if "completions" in names or keywords == {inspect.Parameter.VAR_KEYWORD}:
        return "trl"
    if {"solution_strs", "ground_truths"} <= set(names):
        return "verl_batch"
    if {"solution_str", "ground_truth"} <= set(names):
        return "verl"
    places = [p for p in parameters if p.kind in _POSITIONAL]
    if len(places) >= 2:
        second = places[1]
        note = getattr(second.annotation, "__name__", str(second.annotation))
        if second.name == "query" or note.split(".")[-1].strip("'\"") == "Query":
            return "query"
    return "plain"


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    # An object that is called has the coroutine function in its class.
    call = vars(type(function)).get("__call__")
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _awaited(score: Callable) -> Callable:
    import asyncio  # as much as all else here, and every scorer is a fork of it

    async def gathered(values: Sequence[Any]) -> list[Any]:
        return list(await asyncio.gather(*values))

    def call(items: Sequence[Item]) -> Sequence[Any]:
        values = score(items)
        if inspect.isawaitable(values):
            return asyncio.run(_one(values))
        return asyncio.run(gathered(values))

    return call


async def _one(value: Any) -> Any:
    return await value


def _wanted(
    parameters: Sequence[inspect.Parameter], taken: int
) -> tuple[frozenset[str], bool]:
    """Return the names that may be passed by keyword, and whether any may."""
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    places = [p for p in parameters if p.kind in _POSITIONAL]
    names = {p.name for p in places[taken:]}
    names |= {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return frozenset(names), open_ended


def _plain(function: Callable, parameters: Sequence[inspect.Parameter]) -> Callable:
    places = [p for p in parameters if p.kind in _POSITIONAL]
    many = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    if not places and not many:
        raise ValueError(
            "takes no completion: a reward is (completion, reference),"
            " (completion, query), TRL's (prompts, completions, **columns) or verl's"
            " (data_source, solution_str, ground_truth, extra_info)"
        )
    by_name = all(p.name in _MEANING for p in places) and not any(
        p.kind is inspect.Parameter.POSITIONAL_ONLY for p in places
    )
    meanings = [(p.name, _MEANING[p.name]) for p in places] if by_name else []
    if len({meaning for _, meaning in meanings}) == len(meanings) > 0:
        names, anything = _wanted(parameters, len(places))
        return functools.partial(_by_name, function, meanings, names, anything)
    taken = 1 if len(places) == 1 and not many else 2
    names, anything = _wanted(parameters, taken)
    return functools.partial(_by_place, function, taken, names, anything)


def _columns(query: Mapping[str, Any], names: frozenset[str], anything: bool) -> dict:
    metadata = query.get("metadata") or {}
    if anything:
        return dict(metadata)
    return {key: value for key, value in metadata.items() if key in names}


def _by_place(function, taken, names, anything, items: Sequence[Item]) -> list:
    values = []
    for query, completion, _ in items:
        given = (completion, query.get("reference", ""))[:taken]
        if names or anything:
            values.append(function(*given, **_columns(query, names, anything)))
        else:
            values.append(function(*given))
    return values


def _by_name(function, meanings, names, anything, items: Sequence[Item]) -> list:
    values = []
    for item in items:
        whole = {"completion": item.completion, "query": None, **item.query}
        given = {name: whole.get(meaning, "") for name, meaning in meanings}
        if any(meaning == "query" for _, meaning in meanings):
            query = _query(item.query)
            given |= {name: query for name, m in meanings if m == "query"}
        if names or anything:
            extra = _columns(item.query, names, anything)
            given = {k: v for k, v in extra.items() if k not in given} | given
        values.append(function(**given))
    return values


def _query(fields: Mapping[str, Any]) -> Any:
    from sgpo_jax.data import Query

    turns = tuple(tuple(turn) for turn in fields.get("messages", ()))
    return Query(**{**fields, "messages": turns})


def _with_query(function: Callable, parameters: Sequence) -> Callable:
    def call(items: Sequence[Item]) -> list:
        return [function(item.completion, _query(item.query)) for item in items]

    return call


def _verl(
    function: Callable, parameters: Sequence[inspect.Parameter], *, batch: bool = False
) -> Callable:
    names = {p.name for p in parameters}
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)

    def call(items: Sequence[Item]) -> Any:
        rows = [_verl_arguments(item) for item in items]
        if batch:
            columns = {key: [row[key] for row in rows] for key in rows[0]}
            rows = [{_PLURAL.get(key, key): column for key, column in columns.items()}]
        if not anything:
            rows = [{k: v for k, v in row.items() if k in names} for row in rows]
        return function(**rows[0]) if batch else [function(**row) for row in rows]

    return call


_PLURAL = {
    "data_source": "data_sources",
    "solution_str": "solution_strs",
    "ground_truth": "ground_truths",
    "extra_info": "extra_infos",
}


def _verl_arguments(item: Item) -> dict[str, Any]:
    query, found = item.query, dict(item.query.get("metadata") or {})
    extra = found.get("extra_info")
    return {
        "data_source": found.get("data_source", query.get("family", "")),
        "solution_str": item.completion,
        "ground_truth": found.get("ground_truth", query.get("reference", "")),
        "extra_info": dict(extra) if isinstance(extra, Mapping) else found,
    }


def _trl(function, parameters, *, chat: bool = False) -> Callable:
    for p in parameters:
        if p.name in _OF_THE_TRAINER and p.default is inspect.Parameter.empty:
            raise ValueError(
                f"needs {p.name}, which only TRL's trainer has: here a reward is the"
                " same at every step, so that a profile holds; give it a default"
            )
    names, anything = _wanted(parameters, 0)

    def call(items: Sequence[Item]) -> Any:
        columns = _table(items, chat)
        if not anything:
            columns = {key: v for key, v in columns.items() if key in names}
        return function(**columns)

    return call


_OF_THE_TRAINER = ("trainer_state", "log_extra", "log_metric")


def _either(plain: Callable, chat: Callable, items: Sequence[Item]) -> Any:
    """Pass strings, or conversations to what reads `completion[0]["content"]`."""
    try:
        return plain(items)
    except (AttributeError, IndexError, TypeError) as error:
        # An empty completion has no first turn, and text no turns to ask for a role.
        if not _TAKEN_FOR_TURNS.search(str(error)):
            raise
        first = error
    try:
        return chat(items)
    except Exception:
        raise first from None


_TAKEN_FOR_TURNS = re.compile(r"string ind|'str' object has no attribute")


_REFERENCES = "solution solutions answer answers ground_truth reference".split()


def _table(items: Sequence[Item], chat: bool) -> dict[str, list]:
    """Return the columns TRL passes: metadata, reference, prompts, completions."""
    keys = dict.fromkeys(
        key for item in items for key in item.query.get("metadata") or {}
    )
    columns: dict[str, list] = {
        key: [(item.query.get("metadata") or {}).get(key) for item in items]
        for key in keys
    }
    references = [item.query.get("reference", "") for item in items]
    for alias in _REFERENCES:
        if alias == "reference" or alias not in columns:
            columns[alias] = references
    prompts = [item.query.get("prompt", "") for item in items]
    for alias in ("question", "problem"):
        columns.setdefault(alias, prompts)
    completions = [item.completion for item in items]
    columns["completion_ids"] = [item.tokens or [] for item in items]
    if not chat:
        return columns | {"prompts": prompts, "completions": completions}
    turns = [
        item.query.get("messages") or [("user", text)]
        for item, text in zip(items, prompts, strict=True)
    ]
    return columns | {
        "prompts": [[{"role": r, "content": t} for r, t in turn] for turn in turns],
        "completions": [[{"role": "assistant", "content": t}] for t in completions],
    }


_MAKERS = {
    "plain": _plain,
    "query": _with_query,
    "trl": _trl,
    "trl_chat": functools.partial(_trl, chat=True),
    "verl": _verl,
    "verl_batch": functools.partial(_verl, batch=True),
}
