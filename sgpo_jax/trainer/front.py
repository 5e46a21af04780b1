"""`profile` and `plan`: what a policy can do before training, and what follows."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from sgpo_jax import data, models, planning, rewards
from sgpo_jax.bounds import Seed, check_arguments
from sgpo_jax.config import PackConfig, ProfileConfig, RewardConfig, SamplerConfig
from sgpo_jax.data import Query
from sgpo_jax.pipeline import Display
from sgpo_jax.pipeline.profiled import measured
from sgpo_jax.profiling import Chunks, Profile, nothing_solved
from sgpo_jax.session import Session, cache_programs, make_worker
from sgpo_jax.trainer.sizes import pack_for, sampler_for

Reward = Callable[..., Any] | str | None
"""A reward function in any convention of `rewards.conventions`, the name of a verifier,
or None: each query names its own."""


def as_queries(questions: Any, reward: Reward = None) -> tuple[Query, ...]:
    """Return queries of anything `data.load` takes; queries themselves as they are.

    Rows need no answer where the reward is a function.

    Raises:
      ValueError: if there is none, or both parts of `data.load` are given.
    """
    if isinstance(questions, tuple) and any(map(_are_queries, questions)):
        raise ValueError(
            "queries are a pair, as data.load returns it: take its parts apart,"
            " train, held_out = data.load(...)"
        )
    if _are_queries(questions):
        found = tuple(questions)
    else:
        columns: dict[str, Any] = {}
        function = callable(reward) or ":" in (reward or "")
        if function and not isinstance(questions, str | data.Source):
            columns["verifier"] = "reward:function"  # `rewarded` puts its name there
        found, _ = data.load(questions, held_out=0, verbose=False, **columns)
    if not found:
        raise ValueError("there is no question: queries is empty")
    return found


def _are_queries(part: Any) -> bool:
    return isinstance(part, tuple | list) and all(isinstance(q, Query) for q in part)


def rewarded(
    queries: Sequence[Query], reward: Reward, worker: rewards.Worker
) -> tuple[Query, ...]:
    """Return the queries with a reward as their verifier.

    Raises:
      ValueError: if the function refers to what cannot be sent to the scorers.
    """
    if reward is None:
        return tuple(queries)
    name = reward if isinstance(reward, str) else worker.register(reward)
    return tuple(dataclasses.replace(query, verifier=name) for query in queries)


def longest_prompt(tokenizer: models.Tokenizer, queries: Sequence[Query]) -> int:
    """Return the length of the longest prompt in tokens."""
    return max(len(tokenizer.encode_prompt(query.turns)) for query in queries)


def make_session(
    policy: models.Policy,
    queries: Sequence[Query],
    worker: rewards.Worker,
    *,
    sampler: SamplerConfig,
    rollouts: int,
    pack: PackConfig | None = None,
    **options: Any,
) -> Session:
    """Return the programs of a policy, sized for some queries."""
    cache_programs()
    longest = longest_prompt(policy.tokenizer, queries)
    return Session(
        decoder=policy.config,
        tokenizer=policy.tokenizer,
        worker=worker,
        sampler=sampler,
        pack=pack or pack_for(rollouts, longest, sampler.max_response),
        longest_prompt=longest,
        published=policy.published,
        **options,
    )


def profile(  # noqa: PLR0913 settings of the sampler and of the profile
    policy: models.Policy,
    queries: Any,
    *,
    reward: Reward = None,
    samples: int = 8,
    max_response: int = 256,
    temperature: float = 1.0,
    seed: int = 0,
    folder: str | pathlib.Path | None = None,
    completions: str | pathlib.Path | None = None,
) -> Profile:
    r"""Success profile of a policy: how often it solves each query.

    .. math:: \hat p_q = k_q / n_q, \quad k_q = \#\{i : r(y_{q,i}) \ge 1\},
       \quad y_{q,i} \sim \pi(\cdot \mid q)

    Args:
      policy: the initial policy.
      queries: queries, or anything `data.load` takes.
      reward: a function, the name of a verifier, or None for each query's own.
      samples: samples per query N.
      max_response: longest response in tokens.
      temperature: of sampling.
      seed: of the noise; `Trainer` with the same seed samples other responses.
      folder: keeps finished chunks, so that an interrupted profile resumes; None for
        none.
      completions: Parquet file that all responses are written to, with their rewards:
        `profiling.read_completions`; None for none.

    Returns:
      The profile, which prints, plots, and turns into Arrow or pandas.

    Raises:
      ValueError: if a setting is impossible or nothing could be scored.

    Source: arXiv:2606.08854, section 3.

    Example:
      >>> from sgpo_jax import models
      >>> rows = [{"prompt": f"{n}+1=", "answer": n + 1} for n in range(4)]
      >>> policy = models.load("tiny:layers=1,width=32")
      >>> found = profile(policy, rows, samples=2, max_response=4)
      >>> len(found), int(found.drawn.sum())
      (4, 8)
    """
    ProfileConfig(samples=samples)
    SamplerConfig(max_response=max_response, temperature=temperature)
    check_arguments(seed=(seed, Seed))
    asked = as_queries(queries, reward)
    with make_worker(RewardConfig()) as worker:
        asked = rewarded(asked, reward, worker)
        worker.check(asked)
        rollouts = min(samples * len(asked), 256)
        session = make_session(
            policy,
            asked,
            worker,
            sampler=sampler_for(rollouts, max_response, temperature),
            rollouts=rollouts,
            seed=seed,
        )
        with tempfile.TemporaryDirectory() as temporary:
            place = pathlib.Path(folder or temporary).expanduser()
            texts = pathlib.Path(completions).expanduser() if completions else None
            return measured(
                session,
                policy.on(session.mesh),
                asked,
                samples=samples,
                chunks=Chunks(folder=place, completions=texts),
                display=Display(),
            )


def plan(
    known: Profile,
    *,
    filter: planning.Filter = planning.DropTrivial(),
    allocate: planning.Allocator = planning.InverseSuccess(),
    curriculum: planning.Curriculum = planning.EasyToHard(),
    rollouts: int = 128,
    seed: int = 0,
) -> planning.Plan:
    """Training plan of a profile: which queries, how many rollouts, in which order.

    The defaults are the rule of sGPO: drop trivial queries, keep a tenth of the
    unsolved, group sizes near 1 / success rate, easy queries first.

    Args:
      known: the profile.
      filter: which queries are trained on.
      allocate: rollouts of each.
      curriculum: phases, in order.
      rollouts: rollouts per step, for the prediction.
      seed: decides which unsolved queries are kept.

    Returns:
      The plan with its prediction (none where nothing was solved), which prints, plots,
      and is saved as JSON.

    Raises:
      ValueError: if no query is left, saying why.

    Source: arXiv:2606.08854, sections 3 and 4.

    Example:
      >>> known = Profile(ids=("a", "b"), samples=[8, 8], successes=[4, 1])
      >>> [phase.sizes for phase in plan(known).phases]
      [(2,), (8,)]
    """
    setting = planning.Setting(rollouts=rollouts)
    check_arguments(seed=(seed, Seed))
    made = planning.make_plan(
        known, seed=seed, filter=filter, allocate=allocate, curriculum=curriculum
    )
    if nothing_solved(known):
        return made
    return planning.with_prediction(
        made, planning.predict(made, known, setting=setting)
    )
