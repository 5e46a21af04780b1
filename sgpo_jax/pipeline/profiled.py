"""Profile and plan stages of a run."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

from sgpo_jax import data, methods, models, planning, rewards, sampling
from sgpo_jax.pipeline.display import Display
from sgpo_jax.pipeline.folder import RunFolder, UserError
from sgpo_jax.pipeline.manifest import Manifest, differences
from sgpo_jax.pipeline.run import Run
from sgpo_jax.profiling import Chunks, Flat, Profile, SamplingRule, measure_by
from sgpo_jax.session import Session

_ORDER_ONLY = ("lanes", "slots", "order")
"""Settings of the sampler that do not change what is drawn."""

_CLIENT = ("server", "model", "refresh", "weights", "client")
"""Settings of inference servers; addresses may change between a kill and the rest."""


def measured(
    session: Session,
    policy: models.Policy,
    queries: Sequence[data.Query],
    *,
    samples: int,
    chunks: Chunks,
    display: Display,
    rule: SamplingRule = Flat(),
) -> Profile:
    """Sample and score queries under a policy, and count successes.

    Args:
      session: sampler and verifiers.
      policy: on the session's mesh.
      queries: what to profile.
      samples: samples per query, in the mean.
      chunks: where finished chunks are kept.
      display: shows progress.
      rule: which queries get more.
    """
    with display.progress("profile", len(queries)) as advance:
        done = solved = scored = 0

        def on_chunk(now: int, total: int, chunk: Profile) -> None:
            nonlocal done, solved, scored
            del total
            done = now
            solved += int(chunk.successes.sum())
            scored += int(chunk.samples.sum())
            advance(done, f"success {solved / max(scored, 1):.3f}")

        def watch(now: sampling.SampleProgress) -> None:
            advance(done + now.ended // samples, str(now))

        return measure_by(
            rule,
            session.initial_rollouts.replace(watch=watch),
            policy.params,
            queries,
            samples=samples,
            chunks=chunks,
            on_round=lambda round_: display.say(str(round_)),
            source=made_from(session, policy, queries),
            on_chunk=on_chunk,
            solved_at=session.worker.solved_at,
        )


def made_from(
    session: Session, policy: models.Policy, queries: Sequence[data.Query]
) -> dict[str, object]:
    """Return what a profile depends on: policy, questions, sampling, verifiers."""
    sampler = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(session.sampler).items()
        if name not in (*_ORDER_ONLY, *_CLIENT)
    }
    if session.sampler.server:
        sampler["served"] = session.sampler.model
    verifiers = rewards.sources(query.verifier for query in queries)
    return {
        "policy": policy.identity,
        "questions": data.fingerprint(queries).short,
        "verifiers": verifiers,
        "seed": session.seed,
        **sampler,
    }


def profile(run: Run, initial: models.Policy) -> Profile:
    """Return the profile of the training questions under the initial policy.

    Raises:
      UserError: if the one in the folder cannot be used, saying why.
    """
    path, config = run.folder.profile, run.config.profile
    if run.hosts.broadcast(path.exists()):
        return saved_profile(run)
    texts = run.folder.path / "completions.parquet"
    chunks = Chunks(
        folder=run.folder.chunks,
        size=config.chunk,
        hosts=run.hosts,
        completions=texts if config.completions else None,
    )
    result = measured(
        run.session,
        initial,
        run.train,
        samples=config.samples,
        chunks=chunks,
        display=run.display,
        rule=config.sampling_rule,
    )

    def save() -> None:
        result.save(path)
        made = {"policy": initial.identity, "samples": config.samples}
        made |= {"questions": data.fingerprint(run.train).short}
        Manifest(run.folder.manifest).record("profile", made)

    run.hosts.on_main_process(save)
    return result


def saved_profile(run: Run) -> Profile:
    """Return the training questions of the profile in the folder.

    Raises:
      UserError: if it is damaged, or not of all training questions.
    """
    path = run.folder.profile
    try:
        found = Profile.load(path)
    except ValueError as error:
        raise UserError(f"{error}; delete it: its chunks are kept") from error
    missing = {query.id for query in run.train} - set(found.ids)
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of {len(run.train)} training questions,"
            f" {min(missing)!r} for one: put a profile of all there (sgpo profile"
            " --import FILE --data QUESTIONS matches them by their text), or delete it"
        )
    return found.select([query.id for query in run.train])


def plans(run: Run, known: Profile | None) -> dict[str, planning.Plan]:
    """Return the plans of all methods that make one, by label.

    A plan in the folder is used, also an edited one. One that was made from another
    profile or by other rules is made again.

    Raises:
      UserError: if a plan cannot be made or read, or was edited for other rules.
    """
    found = {}
    for label, method in run.config.methods.items():
        if isinstance(method.prompts, methods.Planned):
            assert known is not None
            found[label] = _plan(run, label, method.prompts, known)
    return found


def _plan(
    run: Run, label: str, sampler: methods.Planned, known: Profile
) -> planning.Plan:
    path, manifest = run.folder.plan(label), Manifest(run.folder.manifest)
    rules = {
        "profile": known.fingerprint(),
        "prompts": methods.to_json(run.config.methods[label])["prompts"],
        "seed": run.config.seed,
    }
    part = f"plan of {label}"
    if run.hosts.broadcast(path.exists() and _fits(run.folder, label, rules)):
        try:
            return planning.Plan.load(path, ids=[q.id for q in run.train])
        except ValueError as error:
            raise UserError(f"{error}; delete it: it is made again") from error
    try:
        result = sampler.plan(known, seed=run.config.seed)
    except ValueError as error:
        raise UserError(str(error)) from error

    def save() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.forget(part)  # a kill before the end is not taken for an edit
        result.save(path)
        manifest.record(part, rules | {"file": _digest(path)})

    run.hosts.on_main_process(save)
    return result


def _fits(folder: RunFolder, label: str, rules: Mapping[str, object]) -> bool:
    """Return whether a plan in the folder is to be used as it is."""
    path, manifest = folder.plan(label), Manifest(folder.manifest)
    old = manifest.made_from(f"plan of {label}")
    if old is None:
        return True  # someone put it there
    written = old["file"]
    old = {name: value for name, value in old.items() if name != "file"}
    if json.loads(json.dumps(rules)) == old:
        return True
    if _digest(path) != written or folder.method(label).exists():
        why = "was edited" if _digest(path) != written else "has been trained on"
        raise UserError(
            f"{path} {why}, and what it was made from has changed:"
            f" {differences(old, rules)}; delete it to plan again, or undo the change"
        )
    return False


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
