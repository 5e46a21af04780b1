"""A step of policy-gradient training: draw, sample, score, subsample, pack, update."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sgpo_jax import ledger, methods, packing, sharding, streams
from sgpo_jax.data import Query
from sgpo_jax.methods import Method
from sgpo_jax.methods.advantage import evaluate, pad_groups
from sgpo_jax.methods.shaping import shape
from sgpo_jax.planning import Plan
from sgpo_jax.profiling import Profile
from sgpo_jax.rollouts import SampleAndScore
from sgpo_jax.training import collapse, copies
from sgpo_jax.training.batch import by_response, make_groups, only_sampled, scoring_cost
from sgpo_jax.training.collect import Collected, collect, collected
from sgpo_jax.training.completions import CompletionLog
from sgpo_jax.training.operations import Trace, rates
from sgpo_jax.training.progress import Metrics, PromptState, TrainConfig, TrainProgress
from sgpo_jax.training.prompts import Prompts
from sgpo_jax.training.state import TrainState
from sgpo_jax.training.step import TrainPrograms
from sgpo_jax.training.update import learn, make_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """One method on one set of queries: everything that does not change.

    Attributes:
      programs: jitted training programs.
      rollouts: sampler and verifiers.
      queries: the training queries, in the order of the pool's rows.
      method: the algorithm.
      buckets: shapes of packed rows.
      config: length and sizes.
      seed: root of the draws.
      profile: rows in the order of the queries; None if the method needs none.
      plan: a plan from a file, in place of the method's own; None for none.
      trace: which steps are profiled; None for none.
      completions: keeps some completions of each step.
      on_compile: called in the middle of a step, when it had to wait for a compilation;
        may raise `Stopped`, on all processes or none.
    """

    programs: TrainPrograms
    rollouts: SampleAndScore
    queries: Sequence[Query]
    method: Method
    buckets: packing.Buckets
    config: TrainConfig
    seed: int
    profile: Profile | None = None
    plan: Plan | None = None
    trace: Trace | None = None
    completions: CompletionLog = dataclasses.field(default_factory=CompletionLog)
    on_compile: Callable[[], object] = lambda: None

    @property
    def prompts(self) -> Prompts:
        """Prompt sampler and baseline over the queries."""
        return Prompts(
            method=self.method,
            count=len(self.queries),
            seed=self.seed,
            profile=self.profile,
            plan=self.plan,
        )

    def start(self, train: TrainState) -> TrainProgress:
        """Return the progress of a run that has not begun."""
        return TrainProgress(
            train=train,
            prompts=self.prompts.init(),
            ledger=ledger.Ledger(),
            copies=copies.first_copies(self.method, train),
            pending={},  # the initial policy is evaluated too
        )

    def step(self, progress: TrainProgress, step: int) -> Metrics:
        """Do one step (counted from 1), changing `progress`, and return metrics."""
        with self.trace.step(step) if self.trace else contextlib.nullcontext():
            return self._step(progress, step)

    def _step(self, progress: TrainProgress, step: int) -> Metrics:
        started = time.perf_counter()
        everything, prompts = self._collect(progress, step)
        self.completions.train(step, everything.queries, everything)
        progress.ledger.add("generation", everything.cost)
        progress.ledger.add("rewards", ledger.Entry(seconds=everything.scoring_seconds))
        metrics = rollout_metrics(everything) | self._against_profile(everything)
        taken = everything
        if self.method.refill is not None:
            taken = everything.only(everything.live)
        if len(taken.rewards):
            metrics |= self._learn(progress, prompts, taken, step)
        else:
            metrics |= {"trained": 0, "padding": 0.0}
        groups, kept = len(everything.queries), len(taken.queries)
        silent = groups - kept + kept * metrics.get("frac_advantage_zero", 1.0)
        metrics["frac_no_signal"] = silent / groups
        progress.prompts = self.prompts.observe(
            prompts,
            everything.draw,
            group=everything.group,
            rewards=everything.rewards,
            step=step,
        )
        if "policy_drift" in metrics:
            drift = np.float32(progress.prompts.drift + metrics["policy_drift"])
            progress.prompts = progress.prompts._replace(drift=np.asarray(drift))
        metrics["step_time_sec"] = time.perf_counter() - started
        return metrics

    def _against_profile(self, taken: Collected) -> Metrics:
        """Return the initial policy's success on the prompts of a step, if known."""
        if self.profile is None:
            return {}
        return collapse.training_metrics(
            taken.rewards,
            taken.solved_at,
            self.profile.success_rate[taken.draw.rows],
            taken.group,
        )

    def _collect(
        self, progress: TrainProgress, step: int
    ) -> tuple[Collected, PromptState]:
        """Sample the rollouts of a step."""
        params, version = self._behavior(progress)
        prompts = progress.prompts

        def draw(number: int, budget: int) -> methods.Draw:
            nonlocal prompts
            chosen, prompts = self.prompts.draw(
                prompts,
                budget=budget,
                progress=min((step - 1) / self.config.steps, 1.0),
                seed=streams.draw_seed(self.seed, number),
            )
            return chosen

        def sample(number: int, chosen: methods.Draw) -> Collected:
            queries = [self.queries[row] for row in chosen.rows]
            scored = self.rollouts(
                params, queries, chosen.sizes.tolist(), step=number, version=version
            )
            scored.rollouts.check_version(
                int(progress.train.step), max_staleness=self.method.max_staleness
            )
            return collected(queries, chosen, scored)

        taken = collect(
            self.method,
            draw,
            sample,
            budget=self.config.rollouts,
            # After going back, the same draws would only lead to the same place.
            numbers=iter(streams.rounds(step, progress.rollbacks)),
        )
        return taken, prompts

    def _behavior(self, progress: TrainProgress) -> tuple[dict, int]:
        """Return the sampler's parameters and their version, refreshed when due."""
        version = int(progress.train.step)
        if "behavior" not in progress.copies:
            return progress.train.params, version
        if version - progress.behavior_version > self.method.max_staleness:
            progress.copies["behavior"] = copies.trained_copy(progress.train)
            progress.behavior_version = version
        params = copies.with_copy(progress.train, progress.copies["behavior"])
        return params, progress.behavior_version

    def _learn(
        self, progress: TrainProgress, prompts: PromptState, taken: Collected, step: int
    ) -> Metrics:
        started = time.perf_counter()
        rollouts = taken.rollouts
        encode = self.rollouts.tokenizer.encode_prompt
        tokens = [encode(query.turns) for query in taken.queries]
        rewards, penalties = self._penalized(progress, taken, tokens)
        groups = self.prompts.groups(
            prompts,
            taken.draw,
            group=taken.group,
            rewards=rewards,
            length=rollouts.length,
            max_length=self.buckets.shapes[-1].response_length,
        )
        if self.method.shaping is not None:
            rewards = shape(self.method.shaping, groups)
            groups = groups.replace(rewards=rewards)
        advantage = evaluate(self.method.advantage, pad_groups(groups), len(rewards))
        factor = self.method.subsample(
            advantage,
            groups.restricted(methods.needs_of(self.method.subsample)),
            seed=streams.subsample_seed(self.seed, step, progress.rollbacks),
        )
        # What could not be scored is neither right nor wrong.
        factor = np.where(np.isfinite(rewards), factor, 0)
        taken = dataclasses.replace(taken, rewards=rewards)
        batch = make_batch(
            self.method, self.buckets, tokens, taken, advantage=advantage, factor=factor
        )
        dead = np.bincount(taken.group, advantage != 0, minlength=len(tokens)) == 0
        logged: Metrics = penalties | {"frac_advantage_zero": float(dead.mean())}
        if batch is None:
            return logged | {"trained": 0, "padding": 0.0}
        logged["time/pack"] = time.perf_counter() - started
        logged |= learn(
            self.programs,
            self.method,
            progress,
            batch,
            taken,
            on_compile=self.on_compile,
        )
        logged |= rates(
            sampling=taken.cost,
            training=ledger.Entry(
                flops=logged.pop("training_flops"),
                tokens=logged.pop("training_tokens"),
                seconds=logged["time/train"],
            ),
            devices=jax.device_count()
            if self.programs.mesh is None
            else self.programs.mesh.size,
            kind=jax.devices()[0].device_kind,
        )
        return logged | {"trained": int((factor != 0).sum())}

    def _penalized(
        self, progress: TrainProgress, taken: Collected, tokens: Sequence[Sequence[int]]
    ) -> tuple[np.ndarray, Metrics]:
        r"""Rewards less the KL penalty, if it belongs there.

        .. math:: R_i - \beta \sum_t (\log \pi_{sampler} - \log \pi_{ref})
        """
        kl = self.method.kl
        if kl is None or not kl.in_reward:
            return taken.rewards, {}
        started = time.perf_counter()
        scored = np.isfinite(taken.rewards)
        groups = make_groups(tokens, taken.rollouts, scored)
        params = copies.with_copy(progress.train, progress.copies["reference"])
        packed = [
            only_sampled(rows, taken.rollouts)
            for rows in packing.pack(groups, self.buckets)
        ]
        found = []
        for rows in packed:
            reference = sharding.fetch(
                self.programs.score(params, self.programs.put(rows))
            )
            width = min(reference.shape[1], taken.rollouts.tokens.shape[1])
            drawn = taken.rollouts.log_prob[rows.response, :width]
            gap = np.where(rows.mask[:, :width], drawn - reference[:, :width], 0)
            found.append(gap.sum(axis=1).astype(np.float32))
        total = by_response(packed, found, len(taken.rewards))
        seconds = time.perf_counter() - started
        cost = scoring_cost(self.programs.config, groups, seconds)
        progress.ledger.add("scoring", cost)
        logged = {"kl": float(total[scored].mean()) if scored.any() else 0.0}
        return taken.rewards - kl.coef * total, logged


def rollout_metrics(taken: Collected) -> Metrics:
    """Describe the rollouts of a step; names follow TRL's where it has them."""
    rollouts, rewards = taken.rollouts, taken.rewards
    known = np.isfinite(rewards)
    return {
        "reward": float(rewards[known].mean()) if known.any() else 0.0,
        "success": float((rewards >= taken.solved_at).mean()),
        "unscorable": float((~known).mean()),
        "frac_reward_zero_std": float((~taken.live).mean()),
        "completions/mean_length": float(rollouts.length.mean()),
        "completions/clipped_ratio": float((~rollouts.finished).mean()),
        "rollouts": len(rewards),
        "queries": len(taken.draw.rows),
        "phase": taken.draw.phase,
        "rounds": taken.rounds,
        "time/sample": taken.cost.seconds,
        "time/score": taken.scoring_seconds,
        "sampler/occupancy": rollouts.stats.occupancy,
        "queue/sample": rollouts.stats.queue,
        "queue/score": taken.scoring_queue,
        **taken.watch.metrics,
    }
