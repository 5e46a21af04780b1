"""`sgpo profile --predict SOURCE`: success of questions that nobody has sampled."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sgpo_jax.bounds import Natural, Seed, Size, bounded
from sgpo_jax.commands import profile_files
from sgpo_jax.profiling import Screen

if TYPE_CHECKING:
    import numpy as np

    from sgpo_jax import data, models, theory
    from sgpo_jax.profiling import Profile

POOL = 2000
"""Most questions that a choice of sets compares with one another."""


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class PredictOptions:
    """Predict the success rate of new questions from a run's profile.

    Gaussian discriminant analysis of the policy's hidden states on the prompts: one
    forward pass per question and no sampling. Writes a table with pass_rate, its 90 %
    interval, and whether the question is worth profiling.

    Attributes:
      predict: source of the questions, as in --data.
      out: run folder with the initial policy and its profile.
      to: Parquet file to write; predicted.parquet in the folder if empty.
      screen: which questions are not worth profiling.
      next: number of questions to profile next, marked in the table.
      choice: how they are chosen: by joint information, greedily or by a flow network;
        uncertain, stratified and random are controls.
      samples: samples that each of them would be given.
      seed: of folds and choices.
    """

    predict: str
    out: str = "runs/default"
    to: str = ""
    screen: Screen = Screen()
    next: Natural = 0
    choice: Literal["greedy", "flow", "uncertain", "stratified", "random"] = "greedy"
    samples: Size = 8
    seed: Seed = 0


def run(options: PredictOptions) -> str:
    """Write the table; return what is printed.

    Raises:
      UserError: if the run, its profile or the questions cannot be had.
      ValueError: if the profile leaves nothing to learn from.
    """
    from sgpo_jax.pipeline.saved import exclusive
    from sgpo_jax.profiling import Predictor, cross_validation

    screen = options.screen
    profile, folder = profile_files.open_profile(options.out)
    queries = profile_files.questions(folder, options.predict)
    policy = _policy(folder, profile)
    asked = profile_files.match(profile, profile_files.questions(folder))
    known, features = _features(policy, asked), _features(policy, queries)
    profile = profile.select([query.id for query in asked])
    quality = cross_validation(known, profile, screen=screen, seed=options.seed)
    belief = Predictor.fit(known, profile, seed=options.seed).belief(features)
    out = screen(belief)
    chosen = _chosen(options, features, belief, out)
    target = pathlib.Path(options.to or folder / "predicted.parquet").expanduser()
    with exclusive(folder):
        _write(target, options, queries, belief, profile=~out, next=chosen)
    lines = [
        str(quality),
        f"{len(queries):,} questions: predicted success {belief.mean.mean():.3f},"
        f" {out.mean():.1%} not worth profiling",
        _cost(policy, profile, queries, out, options.samples),
    ]
    if options.next:
        lines.append(f"{chosen.sum()} chosen to be profiled next ({options.choice})")
    return "\n".join([*lines, f"written: {target}"])


def _policy(folder: pathlib.Path, profile: "Profile") -> "models.Policy":
    """Return the initial policy of a run folder."""
    from sgpo_jax import rewards
    from sgpo_jax.hosts import start_backends
    from sgpo_jax.pipeline import UserError, open_run, saved
    from sgpo_jax.pipeline.folder import read_experiment
    from sgpo_jax.session import cache_programs

    start_backends()
    config = read_experiment(folder)
    cache_programs(config.cache)
    run = open_run(config, rewards.Worker())
    policy = saved.saved_initial_policy(run)
    made_with = profile.source.get("policy", policy.identity)
    if made_with != policy.identity:
        raise UserError(
            f"the profile of {folder} was made with another policy ({made_with}) than"
            f" the folder's ({policy.identity}); predict in the folder it came from"
        )
    return policy


def _features(policy: "models.Policy", queries: Sequence["data.Query"]) -> "np.ndarray":
    from sgpo_jax.profiling import hidden_states

    return hidden_states(policy.params, policy.config, policy.tokenizer, queries)


def _chosen(
    options: PredictOptions,
    features: "np.ndarray",
    belief: "theory.BetaMixture",
    out: "np.ndarray",
) -> "np.ndarray":
    """Return which questions are to be profiled next, [Q]."""
    import numpy as np
    from scipy import special

    from sgpo_jax import profiling, streams

    chosen, rows = np.zeros(len(out), bool), np.flatnonzero(~out)
    if not options.next:
        return chosen
    if len(rows) > POOL:
        rows = np.sort(streams.generator(options.seed).choice(rows, POOL, False))
    if options.next > len(rows):
        raise ValueError(
            f"next is {options.next}, but only {len(rows)} questions are worth"
            f" profiling (of {POOL} compared at most)"
        )
    choices: dict[str, profiling.BatchChoice] = {
        "greedy": profiling.GreedyInformation(),
        "flow": profiling.BatchFlow(),
        "uncertain": profiling.MostUncertain(),
        "stratified": profiling.Stratified(),
        "random": profiling.RandomBatch(),
    }
    # The leading directions: among as many as the policy has, all are far apart.
    x = features[rows].astype(np.float64)
    x = x - x.mean(0)
    axes = np.linalg.svd(x[:POOL], full_matrices=False)[2][:8]
    model = profiling.LogitModel.of(
        x @ axes.T, mean=special.logit(belief.mean[rows]), samples=options.samples
    )
    found = choices[options.choice](model, options.next, seed=options.seed)
    chosen[rows[found]] = True
    return chosen


def _write(
    target: pathlib.Path,
    options: PredictOptions,
    queries: Sequence["data.Query"],
    belief: "theory.BetaMixture",
    **marks: "np.ndarray",
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": [query.id for query in queries],
            "prompt": [query.prompt for query in queries],
            "pass_rate": belief.mean,
            "low": belief.quantile(0.05),
            "high": belief.quantile(0.95),
            "unsolvable": belief.cdf(options.screen.unsolvable),
            "trivial": 1 - belief.cdf(options.screen.trivial),
            **marks,
        }
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target)


def _cost(
    policy: "models.Policy",
    profile: "Profile",
    queries: Sequence["data.Query"],
    out: "np.ndarray",
    samples: int,
) -> str:
    """Return what was computed, and what sampling all questions would compute."""
    from sgpo_jax.ledger import forward_flops, sample_pairs

    length = max(round(float(profile.tokens.sum() / profile.samples.sum())), 1)
    spent = whole = left = 0.0
    for query, skipped in zip(queries, out, strict=True):
        prompt = len(policy.tokenizer.encode_prompt(query.turns))
        spent += forward_flops(
            policy.config, tokens=prompt, pairs=prompt * (prompt + 1) // 2, logits=0
        )
        sampled = forward_flops(
            policy.config,
            tokens=prompt + samples * (length - 1),
            pairs=sample_pairs(prompt, [length] * samples),
            logits=samples * length,
        )
        whole += sampled
        left += 0.0 if skipped else sampled
    return (
        f"reading the prompts took {spent / 1e9:.3g} GFLOP; {samples} samples of each"
        f" would take {whole / 1e9:.3g}, without the skipped ones {left / 1e9:.3g}"
        f" ({1 - (spent + left) / whole:.1%} less, reading included)"
    )
