"""The stages of a run, each a function over the same folder.

Every stage returns at once if its result is there, and goes on where it was killed.
"""

import functools
from collections.abc import Sequence

from sgpo_jax import models, training
from sgpo_jax.pipeline.display import Display
from sgpo_jax.pipeline.folder import RunFolder, write_json
from sgpo_jax.pipeline.methods import train as train
from sgpo_jax.pipeline.policy import fingerprint as fingerprint
from sgpo_jax.pipeline.policy import warmup as warmup
from sgpo_jax.pipeline.profiled import plans as plans
from sgpo_jax.pipeline.profiled import profile as profile
from sgpo_jax.pipeline.setup import Setup


def evaluate(
    names: Sequence[str], setup: Setup, folder: RunFolder, display: Display
) -> dict[str, training.Evaluation]:
    """Evaluate the initial policy and the trained ones, greedily too.

    A method with averaging has a second one, NAME.averaged.
    """
    results = {}
    wanted = ["initial"]
    for name in names:
        averaged = setup.config.methods[name].averaging > 0
        wanted += [name, f"{name}.averaged"] if averaged else [name]
    with display.progress("evaluate", len(wanted)) as advance:
        for done, name in enumerate(wanted, start=1):
            path = folder.evaluation(name)
            if setup.hosts.tell(path.exists()):
                results[name] = training.Evaluation.load(path)
            else:
                results[name] = training.evaluate(
                    setup.session.rollouts,
                    _trained_params(name, setup, folder, display),
                    setup.held_out,
                    samples=setup.config.eval.final_samples,
                    greedy=True,
                )
                content = results[name].to_json()
                setup.hosts.lead(functools.partial(write_json, path, content))
            advance(done, f"{name} {results[name].mean:.3f}")
    return results


def _trained_params(
    name: str, setup: Setup, folder: RunFolder, display: Display
) -> models.Params:
    if name == "initial":
        return warmup(setup, folder, display)
    label, _, kept = name.partition(".")
    progress = train(label, setup, folder, display)
    if kept:
        return training.with_copy(progress.train, progress.copies[kept])
    return progress.train.params
