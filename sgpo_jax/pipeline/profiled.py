"""What is known of the questions before training: the profile, and the plan."""

import numpy as np

from sgpo_jax import planning, sampling
from sgpo_jax.pipeline.display import Display
from sgpo_jax.pipeline.folder import RunFolder, UserError, write_json
from sgpo_jax.pipeline.policy import fingerprint, warmup
from sgpo_jax.pipeline.setup import Setup
from sgpo_jax.profiling import Chunks, Profile, measure


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

        result, costs = measure(
            setup.rollouts.adapted(watch=watch),
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
        try:
            return planning.Plan.load(folder.plan)
        except ValueError as error:
            raise UserError(f"{error}; delete it: it is made again") from error
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
