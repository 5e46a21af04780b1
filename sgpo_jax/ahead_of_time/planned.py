"""Shapes of a planned run: rehearsal of its packing, from profile and plan."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from sgpo_jax import packing, rewards, streams
from sgpo_jax.config import Experiment
from sgpo_jax.methods.advantage import evaluate, pad_groups
from sgpo_jax.models import DecoderConfig
from sgpo_jax.pipeline import Run, RunFolder, UserError, folder, open_run
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.pipeline.profiled import plans
from sgpo_jax.profiling import Profile
from sgpo_jax.training.update import minibatches


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """Settings and profile of a run folder.

    Attributes:
      run: its settings and questions.
      profile: its profile.
    """

    run: Run
    profile: Profile

    @property
    def config(self) -> Experiment:
        """The settings."""
        return self.run.config

    @property
    def decoder(self) -> DecoderConfig:
        """Shape of the policy."""
        return self.run.decoder

    def rehearse(
        self, buckets: packing.Buckets, *, steps: int = 16
    ) -> dict[str, collections.Counter[packing.Shape]]:
        """Return how often each method would use each shape, in so many of its steps.

        Prompt samplers, subsamples and minibatches are those of the run; continued
        groups have the size of their growth, dead groups are not refilled.
        Responses are right as often as in the profile, and as long as a query's were on
        average; those cut short have the longest length.
        """
        return {name: self._rehearse(name, buckets, steps) for name in self._methods}

    @property
    def _methods(self) -> tuple[str, ...]:
        return tuple(self.config.methods)

    def _rehearse(
        self, name: str, buckets: packing.Buckets, steps: int
    ) -> collections.Counter[packing.Shape]:
        queries, encode = self.run.train, self.run.tokenizer.encode_prompt
        known = self.profile.select([q.id for q in queries])
        rate = np.nan_to_num(known.success_rate)
        method = self.config.methods[name]
        plan = plans(self.run, self.profile).get(name)
        prompts = make_learner(self.run, name, known, plan).prompts
        growth = method.continuation.growth if method.continuation else 1.0
        state, used = prompts.init(), collections.Counter()
        for step in range(steps):
            rng = streams.rehearsal(self.config.seed, step)
            draw, state = prompts.draw(
                state,
                budget=int(np.ceil(self.config.train.rollouts / growth)),
                progress=step / steps,
                seed=step,
            )
            draw = draw._replace(sizes=np.rint(growth * draw.sizes).astype(int))
            group = np.repeat(np.arange(len(draw.rows)), draw.sizes)
            rows = draw.rows[group]
            solved = (rng.random(len(rows)) < rate[rows]).astype(np.float64)
            lengths = _lengths(known, rows, self.config.sampler.max_response, rng)
            rewarded = prompts.groups(
                state,
                draw,
                group=group,
                rewards=solved,
                length=lengths,
                max_length=self.config.sampler.max_response,
            )
            advantage = evaluate(method.advantage, pad_groups(rewarded), len(rows))
            keep = method.subsample(advantage, rewarded, seed=step) != 0
            state = prompts.observe(
                state, draw, group=group, rewards=solved, step=step + 1
            )
            groups = [
                packing.Group(
                    prompt=encode(queries[row].turns),
                    responses=[[0] * n for n in lengths[keep & (group == place)]],
                    ids=np.flatnonzero(keep & (group == place)).tolist(),
                )
                for place, row in enumerate(draw.rows)
                if (keep & (group == place)).any()
            ]
            for part in minibatches(groups, method.minibatches):
                used.update(_shapes(packing.pack(part, buckets), buckets))
        return used


def _shapes(
    packed: Sequence[packing.Packed], buckets: packing.Buckets
) -> list[packing.Shape]:
    """Shape of each micro-batch."""
    known = {(shape.rows, shape.row_length): shape for shape in buckets.shapes}
    return [known[one.tokens.shape] for one in packed]


def _lengths(
    known: Profile, rows: np.ndarray, longest: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a length for a response to each query."""
    samples = np.maximum(known.samples + known.unscorable, 1)
    cut = rng.random(len(rows)) < (known.truncated / samples)[rows]
    whole = np.maximum(samples - known.truncated, 1)
    mean = (known.tokens - known.truncated * longest) / whole
    return np.where(cut, longest, np.clip(np.rint(mean[rows]), 1, longest)).astype(int)


def read(path: pathlib.Path) -> PlannedRun:
    """Read a run folder.

    Raises:
      ValueError: if it has no settings, or no finished profile.
    """
    files = RunFolder(path.expanduser())
    for file in (files.config, files.profile):
        if not file.exists():
            raise ValueError(
                f"{path} has no {file.name}: give a run folder after `sgpo profile`"
            )
    try:
        run = open_run(folder.read_experiment(path), rewards.Worker())
    except UserError as error:
        raise ValueError(str(error)) from error
    return PlannedRun(run=run, profile=Profile.load(files.profile))
