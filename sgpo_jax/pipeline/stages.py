"""The stages of a run, each a function over the same folder.

Every stage returns at once if its result is there, and goes on where it was killed.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax import advantages, data, losses, models, planning, sharding, training
from sgpo_jax.config import MethodConfig, MethodName
from sgpo_jax.ledger import Entry, Ledger
from sgpo_jax.pipeline.display import Advance, Display
from sgpo_jax.pipeline.folder import (
    RunFolder,
    UserError,
    flatten,
    read_json,
    write_json,
)
from sgpo_jax.pipeline.setup import Setup
from sgpo_jax.profiling import Chunks, Profile, measure

MEET_EVERY = 10
"""Warm-up steps between two looks whether to stop: all processes meet for one."""

# Fields of the experiment that decide the initial policy; the shapes of packed rows
# do so by the order of sums.
_POLICY_FIELDS = (
    *("seed", "data", "split", "model", "warmup", "pack"),
    "sampler.max_response",
)


def fingerprint(params: models.Params) -> str:
    """Return 16 hexadecimal digits that identify parameters bit for bit."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def warmup(setup: Setup, folder: RunFolder, display: Display) -> models.Params:
    """Return the initial policy: from the run, from the cache, or freshly made."""
    like = setup.initial_params()
    with contextlib.closing(
        training.Checkpoints(folder.policy, keep=1, hosts=setup.hosts)
    ) as run:
        display.lines(run.problems)
        if run.latest() is None:
            params, note = _cached_policy(setup, like, display)
            run.save(0, _portable(params, setup), note)
        else:
            params, note = run.restore(0, _portable(like, setup))
    params = jax.tree.map(jnp.asarray, params)
    if fingerprint(params) != note["fingerprint"]:
        raise UserError(f"the initial policy in {folder.policy} is damaged; delete it")
    return params


def _portable(params: models.Params, setup: Setup) -> models.Params:
    """Bring to the host what many processes save: each has it on its own devices."""
    return params if setup.hosts.count == 1 else jax.tree.map(np.asarray, params)


def _cached_policy(
    setup: Setup, like: models.Params, display: Display
) -> tuple[models.Params, dict]:
    # The cache is each machine's own, so processes could disagree on what is in it.
    if not setup.config.cache or setup.hosts.count > 1:
        return _make_policy(setup, like, display)
    flat = flatten(setup.config)
    key = {k: v for k, v in flat.items() if k.startswith(_POLICY_FIELDS)}
    if setup.pretrained is not None:
        key["weights"] = setup.pretrained.identity
    key |= {"jax": jax.__version__, "devices": jax.device_count()}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = pathlib.Path(setup.config.cache).expanduser() / "policies" / name
    with contextlib.closing(training.Checkpoints(path, keep=1)) as cache:
        display.lines(cache.problems)
        if cache.latest() is None:
            params, note = _make_policy(setup, like, display)
            cache.save(0, params, note)
            return params, note
        display.say(f"initial policy from the cache, {path}")
        return cache.restore(0, like)


def _make_policy(
    setup: Setup, like: models.Params, display: Display
) -> tuple[models.Params, dict]:
    config = setup.config.warmup
    demonstrations = data.Demonstrations(noise=config.noise, hidden=config.hidden)
    if isinstance(setup.source, data.Procedural):
        pairs = demonstrations.make(
            setup.source.mixture,
            config.demonstrations,
            seed=setup.config.seed,
            exclude=setup.held_out,
        )
    else:
        pairs = demonstrations.over(
            setup.questions.demonstrated, config.demonstrations, seed=setup.config.seed
        )
    programs = setup.imitation_programs()
    losses_seen: list[jax.Array] = []
    with display.progress("warm-up", config.steps) as advance:

        def on_step(step: int, loss: jax.Array) -> None:
            losses_seen.append(loss)
            text = f"loss {float(losses_seen[-2]):.3f}" if step % 10 == 0 else ""
            advance(step, text)
            if step % MEET_EVERY == 0:
                setup.hosts.gather(bytes)

        state, cost = training.imitate(
            programs,
            programs.init(like),
            setup.encode_pairs(pairs),
            steps=config.steps,
            batch_size=config.batch_size,
            ladder=setup.ladder,
            seed=setup.config.seed,
            on_step=on_step,
        )
    # One device holds it: each method places its own copy.
    params = jax.tree.map(lambda x: jnp.asarray(sharding.fetch(x)), state.params)
    note = {
        "fingerprint": fingerprint(params),
        "cost": cost.__dict__,
        "losses": [round(float(loss), 5) for loss in losses_seen],
    }
    return params, note


def profile(setup: Setup, folder: RunFolder, display: Display) -> Profile:
    """Return the profile of the training queries under the initial policy."""
    if setup.hosts.tell(folder.profile.exists()):
        return Profile.load(folder.profile)
    params = warmup(setup, folder, display)
    config = setup.config
    source = {
        "policy": fingerprint(params),
        "data": config.data,
        "seed": config.seed,
        "temperature": config.sampler.temperature,
    }
    with display.progress("profile", len(setup.train)) as advance:

        def on_chunk(done: int, total: int, chunk: Profile) -> None:
            del total
            advance(done, f"success {np.nanmean(chunk.success_rate):.3f}")

        result, costs = measure(
            setup.rollouts,
            params,
            setup.train,
            samples=config.profile.samples,
            chunks=Chunks(
                folder=folder.chunks, size=config.profile.chunk, hosts=setup.hosts
            ),
            source=source,
            on_chunk=on_chunk,
        )

    def save() -> None:
        write_json(folder.profile_cost, costs.to_json())
        result.save(folder.profile)

    setup.hosts.lead(save)
    return result


def plan(setup: Setup, folder: RunFolder, display: Display) -> planning.Plan:
    """Return the plan made from the profile."""
    if setup.hosts.tell(folder.plan.exists()):
        return planning.Plan.load(folder.plan)
    config = setup.config.plan
    curriculum = planning.EasyToHard() if config.order == "easy-to-hard" else None
    try:
        result = planning.make_plan(
            profile(setup, folder, display),
            seed=setup.config.seed,
            filter=planning.DropTrivial(
                trivial_above=config.trivial_above, unsolved_share=config.unsolved_share
            ),
            allocate=planning.InverseSuccess(
                minimum=config.min_group, maximum=config.max_group
            ),
            curriculum=curriculum or planning.Mixed(),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    setup.hosts.lead(lambda: result.save(folder.plan))
    return result


def schedule(
    name: MethodName, setup: Setup, folder: RunFolder, display: Display
) -> planning.Schedule:
    """Return which queries a method samples, and what responses are worth to it."""
    config, queries = setup.config.method, setup.train
    if name in ("grpo", "grpo-live"):
        everything = np.arange(len(queries)), np.full(len(queries), config.group)
        return planning.Epochs(phases=(everything,), seed=setup.config.seed)
    if name == "sgpo":
        place = {query.id: row for row, query in enumerate(queries)}
        phases = tuple(
            (np.array([place[id_] for id_ in phase.ids]), np.array(phase.sizes))
            for phase in plan(setup, folder, display).phases
        )
        return planning.Epochs(phases=phases, seed=setup.config.seed)
    counts = np.zeros(len(queries), np.int64)
    successes, samples = counts, counts
    if name == "tracked":
        known = profile(setup, folder, display).select([q.id for q in queries])
        successes, samples = known.successes, known.samples
    return planning.Tracked(
        successes=successes,
        samples=samples,
        tracker=advantages.BetaTracker(forgetting=config.forgetting),
        size=config.tracked_group,
        floor=config.floor,
    )


def selection(name: MethodName, config: MethodConfig) -> training.Selection:
    """Return which responses a method trains on."""
    if name == "grpo":
        return training.Everything()
    if name in ("grpo-live", "sgpo"):
        return training.NonZero()
    return training.Thinned(certain=config.certain)


def train(
    name: MethodName, setup: Setup, folder: RunFolder, display: Display
) -> training.Progress:
    """Train one method to the end, from its newest checkpoint if there is one."""
    config = setup.config
    params = warmup(setup, folder, display)
    learner = training.Learner(
        programs=setup.programs(name),
        rollouts=setup.rollouts,
        queries=setup.train,
        schedule=schedule(name, setup, folder, display),
        ladder=setup.ladder,
        select=selection(name, config.method),
        by=losses.PerToken(),
        config=config.train,
        seed=config.seed,
        trace=training.Trace(folder.method(name) / "trace", setup.traced_steps),
    )
    beginning = learner.start(learner.programs.init(params))
    if name in ("sgpo", "tracked"):
        beginning.ledger.update(Ledger(read_json(folder.profile_cost)))
    checkpoints = training.Checkpoints(
        folder.method(name) / "checkpoints", hosts=setup.hosts
    )
    with contextlib.closing(checkpoints), _log(name, setup, folder) as log:
        try:
            store = training.ProgressStore(
                checkpoints,
                beginning,
                _identity(name, params, setup, folder),
                _topology(setup),
            )
            start, progress = store.restore()
            if setup.hosts.tell(_finished(folder.method(name), config.train.steps)):
                return progress
            log.rewind(progress.logged)
        except ValueError as error:
            raise UserError(str(error)) from error
        finally:
            display.lines(checkpoints.problems)
        with display.progress(name, config.train.steps, start=start) as advance:
            return training.train(
                learner,
                progress,
                start=start,
                store=store,
                log=_Shown(log, advance),
                evaluate=lambda progress: held_out(setup, progress),
            )


@contextlib.contextmanager
def _log(name: str, setup: Setup, folder: RunFolder) -> Iterator[training.Log]:
    """Open the metrics of a method; process 0 writes them."""
    if setup.hosts.index:
        yield training.Discard()
        return
    path, config = folder.method(name), setup.config
    trackers = training.Trackers(
        config.log.trackers,
        project=config.log.project,
        run=f"{folder.path.name}-{name}",
        folder=path,
        config=flatten(config),
    )
    with (
        contextlib.closing(training.MetricsWriter(path)) as writer,
        contextlib.closing(trackers),
    ):
        yield _Tracked(writer, trackers, training.Goodput())


@dataclasses.dataclass(frozen=True)
class _Tracked:
    """Metrics to files and to trackers, with the share of time that was useful."""

    writer: training.MetricsWriter
    trackers: training.Trackers
    goodput: training.Goodput

    def write(self, step: int, metrics: training.Metrics) -> None:
        if "step_time_sec" in metrics:
            metrics["goodput"] = self.goodput.add(step, metrics["step_time_sec"])
        self.writer.write(step, metrics)
        self.trackers.write(step, metrics)

    def rewind(self, lines: int) -> None:
        self.writer.rewind(lines)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A log whose lines also move the progress bar."""

    log: training.Log
    advance: Advance

    def write(self, step: int, metrics: training.Metrics) -> None:
        self.log.write(step, metrics)
        self.advance(step, _headline(metrics))

    def rewind(self, lines: int) -> None:
        self.log.rewind(lines)


def _finished(path: pathlib.Path, steps: int) -> bool:
    """Return whether the line of the last step, evaluation included, is there."""
    lines = training.read_metrics(path / "metrics.jsonl")
    return bool(lines) and lines[-1]["step"] == steps


def _identity(
    name: str, params: models.Params, setup: Setup, folder: RunFolder
) -> dict[str, str]:
    """Return what a method's checkpoints depend on, besides the run's settings."""
    identity = {"method": name, "policy": fingerprint(params)}
    identity["seed"] = str(setup.config.seed)
    if name in ("sgpo", "tracked"):
        identity["profile"] = Profile.load(folder.profile).fingerprint()
    if name == "sgpo":
        identity["plan"] = planning.Plan.load(folder.plan).hash
    return identity


def _topology(setup: Setup) -> dict[str, Any]:
    """Return what a run's sums are ordered by."""
    mesh = setup.mesh
    return {
        "processes": setup.hosts.count,
        "platform": mesh.devices.flat[0].platform,
        **{axis: int(size) for axis, size in mesh.shape.items()},
    }


def held_out(setup: Setup, progress: training.Progress) -> training.Metrics:
    """Evaluate on held-out questions; the cost stands apart from the method's."""
    result = training.evaluate(
        setup.rollouts,
        progress.train.params,
        setup.held_out,
        samples=setup.config.eval.samples,
    )
    progress.ledger.add("evaluation", result.cost)
    return {
        "eval/success": result.mean,
        "eval/low": result.low,
        "eval/high": result.high,
        "ledger": progress.ledger.to_json(),
        "total_flops": progress.ledger.total.flops,
        "total_flops_repeated": progress.ledger.total_repeated,
    }


def evaluate(
    names: Sequence[str], setup: Setup, folder: RunFolder, display: Display
) -> dict[str, training.Evaluation]:
    """Evaluate the initial policy and the trained ones, greedily too."""
    results = {}
    wanted = ("initial", *names)
    with display.progress("evaluate", len(wanted)) as advance:
        for done, name in enumerate(wanted, start=1):
            path = folder.evaluation(name)
            if setup.hosts.tell(path.exists()):
                saved = read_json(path)
                cost = Entry(**saved.pop("cost"))
                results[name] = training.Evaluation(cost=cost, **saved)
            else:
                results[name] = training.evaluate(
                    setup.rollouts,
                    _trained_params(name, setup, folder, display),
                    setup.held_out,
                    samples=setup.config.eval.final_samples,
                    greedy=True,
                )
                content = dict(results[name].__dict__)
                content |= {"cost": results[name].cost.__dict__}
                setup.hosts.lead(functools.partial(write_json, path, content))
            advance(done, f"{name} {results[name].mean:.3f}")
    return results


def _trained_params(
    name: str, setup: Setup, folder: RunFolder, display: Display
) -> models.Params:
    if name == "initial":
        return warmup(setup, folder, display)
    return train(name, setup, folder, display).train.params  # pyright: ignore[reportArgumentType] checked by the caller


def _headline(metrics: training.Metrics) -> str:
    if "reward" not in metrics:
        return f"held-out {metrics['eval/success']:.3f}"
    text = f"reward {metrics['reward']:.3f} dead {metrics['frac_reward_zero_std']:.2f}"
    if "eval/success" in metrics:
        text += f" held-out {metrics['eval/success']:.3f}"
    return text
