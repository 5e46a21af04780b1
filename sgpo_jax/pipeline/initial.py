"""The initial policy of a run: made, kept, and found again."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sgpo_jax import data, ledger, methods, models, sharding, training
from sgpo_jax.pipeline.folder import UserError, flatten
from sgpo_jax.pipeline.manifest import Manifest, differences
from sgpo_jax.pipeline.run import Run

MEET_EVERY = 10
"""Fine-tuning steps between two looks whether to stop: all processes meet for one."""

PART = "initial policy"
"""Its entry in the manifest."""

# Fields of the experiment that decide the initial policy; the shapes of packed rows
# do so by the order of sums.
_POLICY_FIELDS = (
    *("seed", "data", "split", "model", "sft", "pack"),
    "sampler.max_response",
)


def fingerprint(params: models.Params) -> str:
    """Return 16 hexadecimal digits that identify parameters bit for bit.

    Every process of a run calls it at the same time. Leaves are gathered one at a time:
    a host never holds more than the largest, nor, with several processes, does a device
    beside its own share.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        if leaf.is_fully_addressable:
            # An array keeps what was fetched of it while it lives; a copy is dropped.
            leaf = jax.device_put(leaf, leaf.sharding, may_alias=False)
        digest.update(sharding.fetch(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


def initial_policy(run: Run) -> models.Policy:
    """Return the initial policy, in the sharding of training.

    One that the folder holds is read when its parameters are asked for, once.
    """
    with contextlib.closing(_kept(run)) as kept:
        run.display.lines(kept.problems)
        if kept.latest() is not None:
            _check_taught(run)
            name = kept.plain(0)["fingerprint"]
            return _unread(run, functools.partial(_read, run, name), name)
        manifest = Manifest(run.folder.manifest)
        run.hosts.on_main_process(lambda: manifest.record(PART, _taught(run)))
        params, note = _cached(run)
        kept.save(0, params, note)
    run.display.say(f"initial policy {note['fingerprint']} in {run.folder.policy}")
    return _unread(run, lambda: params, note["fingerprint"])


def _kept(run: Run) -> training.Checkpoints:
    return training.Checkpoints(run.folder.policy, keep=1, hosts=run.hosts)


def _unread(
    run: Run, reader: Callable[[], models.Params], identity: str
) -> models.Policy:
    """Return the policy whose parameters a function reads, once, onto any mesh."""
    once, mesh = functools.cache(reader), run.session.mesh

    def place(mesh: jax.sharding.Mesh | None) -> models.Params:
        return jax.tree.map(sharding.put, once(), models.shardings(run.decoder, mesh))

    return dataclasses.replace(
        run.policy, reader=place, identity=identity, source="", mesh=mesh
    )


def _read(run: Run, expected: str) -> models.Params:
    with contextlib.closing(_kept(run)) as kept:
        params, _ = kept.restore(0, run.session.abstract_params)
    if fingerprint(params) != expected:
        raise UserError(
            f"the initial policy in {run.folder.policy} is damaged; delete it"
        )
    return params


def _cached(run: Run) -> tuple[models.Params, dict]:
    """Make the policy, or take it from this machine's cache."""
    # The cache is each machine's own, so processes could disagree on what is in it.
    if not run.config.cache or run.hosts.count > 1:
        return _make(run)
    path = pathlib.Path(run.config.cache).expanduser() / "policies" / cache_key(run)
    with contextlib.closing(training.Checkpoints(path, keep=1)) as cache:
        run.display.lines(cache.problems)
        if cache.latest() is None:
            params, note = _make(run)
            cache.save(0, params, note)
            return params, note
        run.display.say(f"initial policy from the cache, {path}")
        return cache.restore(0, run.session.abstract_params)


def cache_key(run: Run) -> str:
    """Return the name of a policy in the cache: a hash of all that it depends on."""
    flat = flatten(run.config)
    key = {k: v for k, v in flat.items() if k.startswith(_POLICY_FIELDS)}
    key |= {"weights": run.policy.identity, "jax": jax.__version__}
    key |= {"devices": jax.device_count(), "questions": _taught(run)}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _taught(run: Run) -> dict[str, dict]:
    """Return what identifies the questions that fine-tuning reads or leaves out."""
    if not run.config.sft.steps:
        return {}
    parts = {"demonstrated": run.questions.demonstrated, "held-out": run.held_out}
    return {k: dict(data.fingerprint(part).to_json()) for k, part in parts.items()}


def _check_taught(run: Run) -> None:
    """Refuse a policy that was fine-tuned on other demonstrations than these."""
    old = Manifest(run.folder.manifest).made_from(PART)
    if old is None:
        return
    if changed := differences(old, json.loads(json.dumps(_taught(run)))):
        raise UserError(
            f"the initial policy in {run.folder.policy} was fine-tuned on other"
            f" questions: {changed}; put them back as they were, or use another --out"
        )


def _make(run: Run) -> tuple[models.Params, dict]:
    """Read or draw the policy, and fine-tune it on demonstrations if asked to."""
    if not run.config.sft.steps:
        params = run.policy.params
        cost, losses = ledger.Entry(), []
    else:
        params, cost, losses = _fine_tuned(run)
    note = {"fingerprint": fingerprint(params), "cost": cost.__dict__, "losses": losses}
    return params, note


def _demonstrations(run: Run) -> Sequence[tuple[models.Prompt, str]]:
    config = run.config.sft
    made = data.Demonstrations(
        noise=config.noise,
        errors=config.errors,
        excluded_families=config.excluded_families,
    )
    count, seed = config.demonstrations, run.config.seed
    if isinstance(run.source, data.Procedural):
        mixture = run.source.mixture
        return made.make(mixture, count, seed=seed, exclude=run.held_out)
    return made.over(run.questions.demonstrated, count, seed=seed)


def _encoded(
    run: Run, pairs: Sequence[tuple[models.Prompt, str]]
) -> list[tuple[list[int], list[int]]]:
    """Encode demonstrations; responses end in EOS and fit the longest allowed."""
    tokenizer, longest = run.tokenizer, run.config.sampler.max_response
    return [
        (
            tokenizer.encode_prompt(prompt),
            [*tokenizer.encode(answer), tokenizer.eos_id][:longest],
        )
        for prompt, answer in pairs
    ]


def _fine_tuned(run: Run) -> tuple[models.Params, ledger.Entry, list[float]]:
    config = run.config.sft
    optimizer = methods.AdamW(
        learning_rate=config.learning_rate,
        warmup_steps=min(20, config.steps // 2),
        decay_steps=config.steps,
    )
    loss = methods.TokenLoss(objective=methods.SupervisedLoss())
    programs = run.session.programs(loss, optimizer)
    losses: list[jax.Array] = []
    with run.display.progress("fine-tuning", config.steps) as advance:

        def on_step(step: int, loss: jax.Array) -> None:
            losses.append(loss)
            text = f"loss {float(losses[-2]):.3f}" if step % 10 == 0 else ""
            advance(step, text)
            if step == 1 or step % MEET_EVERY == 0:
                run.hosts.gather(bytes)

        state, cost = training.fine_tune(
            programs,
            programs.init(run.policy.params),
            _encoded(run, _demonstrations(run)),
            steps=config.steps,
            batch_size=config.batch_size,
            buckets=run.session.buckets,
            seed=run.config.seed,
            on_step=on_step,
        )
    return state.params, cost, [round(float(loss), 5) for loss in losses]
