"""The initial policy of a run: made, kept, and found again."""

import contextlib
import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax import data, ledger, models, sharding, training
from sgpo_jax.pipeline.display import Display
from sgpo_jax.pipeline.folder import RunFolder, UserError, flatten
from sgpo_jax.pipeline.setup import Setup

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
        key["weights"] = setup.policy.identity
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
    if not config.steps:
        params = jax.tree.map(lambda x: jnp.asarray(sharding.fetch(x)), like)
        cost = ledger.Entry().__dict__
        return params, {"fingerprint": fingerprint(params), "cost": cost, "losses": []}
    demonstrations = data.Demonstrations(
        noise=config.noise, errors=config.errors, hidden=config.hidden
    )
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
    programs = setup.fine_tuning_programs()
    losses_seen: list[jax.Array] = []
    with display.progress("warm-up", config.steps) as advance:

        def on_step(step: int, loss: jax.Array) -> None:
            losses_seen.append(loss)
            text = f"loss {float(losses_seen[-2]):.3f}" if step % 10 == 0 else ""
            advance(step, text)
            if step == 1 or step % MEET_EVERY == 0:
                setup.hosts.gather(bytes)

        state, cost = training.imitate(
            programs,
            programs.init(like),
            setup.encode_pairs(pairs),
            steps=config.steps,
            batch_size=config.batch_size,
            ladder=setup.session.buckets,
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
