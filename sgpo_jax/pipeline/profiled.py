"""What is known of the questions before training: the profile, and the plan."""

import numpy as np

from sgpo_jax import methods, planning, sampling
from sgpo_jax.pipeline.display import Display
from sgpo_jax.pipeline.folder import RunFolder, UserError
from sgpo_jax.pipeline.policy import fingerprint, warmup
from sgpo_jax.pipeline.setup import Setup
from sgpo_jax.profiling import Chunks, Profile, measure_by


def profile(setup: Setup, folder: RunFolder, display: Display) -> Profile:
    """Return the profile of the training queries under the initial policy."""
    if setup.hosts.tell(folder.profile.exists()):
        try:
            return Profile.load(folder.profile)
        except ValueError as error:
            raise UserError(f"{error}; delete it: its chunks are kept") from error
    params = warmup(setup, folder, display)
    config = setup.config
    source = {
        "policy": fingerprint(params),
        "data": config.data,
        "seed": config.seed,
        "temperature": config.sampler.temperature,
    }
    with display.progress("profile", len(setup.train)) as advance:
        done = 0

        def on_chunk(now: int, total: int, chunk: Profile) -> None:
            nonlocal done
            del total
            done = now
            advance(done, f"success {np.nanmean(chunk.success_rate):.3f}")

        def watch(now: sampling.Progress) -> None:
            advance(done + now.ended // config.profile.samples, str(now))

        kept = folder.path / "completions.parquet"
        result = measure_by(
            config.profile.sampling_rule,
            setup.session.rollouts.adapted(watch=watch),
            params,
            setup.train,
            samples=config.profile.samples,
            chunks=Chunks(
                folder=folder.chunks,
                size=config.profile.chunk,
                hosts=setup.hosts,
                completions=kept if config.profile.completions else None,
            ),
            on_round=lambda round_: display.say(str(round_)),
            source=source,
            on_chunk=on_chunk,
            solved_at=config.reward.solved_at,
        )

    setup.hosts.lead(lambda: result.save(folder.profile))
    return result


def plan(
    label: str, setup: Setup, folder: RunFolder, display: Display
) -> planning.Plan | None:
    """Return the plan of a method, made from the profile; None if it makes none."""
    sampler = setup.config.methods[label].prompts
    if not isinstance(sampler, methods.Planned):
        return None
    path = folder.plan(label)
    if setup.hosts.tell(path.exists()):
        try:
            return planning.Plan.load(path, ids=[q.id for q in setup.train])
        except ValueError as error:
            raise UserError(f"{error}; delete it: it is made again") from error
    try:
        result = sampler.plan(profile(setup, folder, display), seed=setup.config.seed)
    except ValueError as error:
        raise UserError(str(error)) from error

    def save() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        result.save(path)

    setup.hosts.lead(save)
    return result


def plans(
    setup: Setup, folder: RunFolder, display: Display
) -> dict[str, planning.Plan]:
    """Return the plans of all methods that make one, by label."""
    made = {
        label: plan(label, setup, folder, display) for label in setup.config.methods
    }
    return {label: plan for label, plan in made.items() if plan is not None}
