"""The questions of a run: training, held-out, and for demonstrations only."""

import dataclasses

from sgpo_jax import data
from sgpo_jax.config import Experiment, SplitConfig
from sgpo_jax.models import Tokenizer
from sgpo_jax.pipeline.folder import UserError
from sgpo_jax.rewards import check_references

Queries = tuple[data.Query, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions by use; no question has two.

    Attributes:
      train: for profiling and training.
      held_out: for evaluation.
      demonstrated: for supervised fine-tuning; empty if it makes fresh ones.
      problems: what was understood of the source, and what was left out.
    """

    train: Queries
    held_out: Queries
    demonstrated: Queries
    problems: tuple[str, ...]


def load(source: data.Source, config: Experiment, tokenizer: Tokenizer) -> Questions:
    """Load and split the questions of an experiment.

    Raises:
      UserError: if the source cannot be read, a part is left without questions, or
        fine-tuning without answers.
    """
    split = config.split
    try:
        loaded = source.load()
    except (OSError, ImportError) as error:
        raise UserError(f"data {config.data!r}: {error}") from error
    check_references((*loaded.queries, *(loaded.held_out or ())), loaded.places)
    problems = list(data.describe(loaded))
    if isinstance(source, data.Saved):
        return Questions(
            train=loaded.queries,
            held_out=loaded.held_out or (),
            demonstrated=(),
            problems=tuple(problems),
        )
    share = split.held_out if split.held_out < 1 else int(split.held_out)
    train, held_out = data.divide(loaded, held_out=share, seed=config.seed)
    train = _short(train, split, tokenizer, problems)
    held_out = _short(held_out, split, tokenizer, problems)
    demonstrated: Queries = ()
    if split.demonstrated and not isinstance(source, data.Procedural):
        train, demonstrated = data.split(
            train, held_out=split.demonstrated, seed=config.seed + 1
        )
    if config.sft.steps and (bare := sum(not q.reference for q in demonstrated)):
        raise UserError(
            f"{bare} of {len(demonstrated)} questions for supervised fine-tuning have"
            " no right answer to imitate: bring a policy (model.source), or set"
            " sft.steps to 0"
        )
    train = _some(train, split.max_train, config.seed + 2)
    held_out = _some(held_out, split.max_held_out, config.seed + 2)
    if not train or (split.held_out and not held_out):
        raise UserError(
            f"data {config.data!r} gives {len(train)} training and {len(held_out)}"
            " held-out questions; both must have some, unless split.held_out is 0"
        )
    return Questions(
        train=train,
        held_out=held_out,
        demonstrated=demonstrated,
        problems=tuple(problems),
    )


def _short(
    queries: Queries, split: SplitConfig, tokenizer: Tokenizer, problems: list[str]
) -> Queries:
    """Leave out prompts that are too long, and say how many."""
    if not split.max_prompt:
        return queries
    kept = tuple(
        query
        for query in queries
        if len(tokenizer.encode_prompt(query.turns)) <= split.max_prompt
    )
    if len(kept) < len(queries):
        problems.append(
            f"{len(queries) - len(kept)} of {len(queries)} prompts are longer than"
            f" {split.max_prompt} tokens and left out"
        )
    return kept


def _some(queries: Queries, most: int, seed: int) -> Queries:
    """Take at most `most` questions (0: all), in proportion to family and level."""
    if not most or most >= len(queries):
        return queries
    return data.split(queries, held_out=most, seed=seed)[1]
