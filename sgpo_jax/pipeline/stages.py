"""The stages of a run: each takes what those before it made, and keeps its own.

Every stage returns at once if the folder holds its result, and goes on where it was
killed.
"""

import functools
from collections.abc import Callable, Iterator

from sgpo_jax import data, models, training
from sgpo_jax.pipeline.folder import write_json
from sgpo_jax.pipeline.initial import fingerprint as fingerprint
from sgpo_jax.pipeline.initial import initial_policy as initial_policy
from sgpo_jax.pipeline.manifest import Manifest
from sgpo_jax.pipeline.methods import finished as finished
from sgpo_jax.pipeline.methods import train as train
from sgpo_jax.pipeline.profiled import plans as plans
from sgpo_jax.pipeline.profiled import profile as profile
from sgpo_jax.pipeline.run import Run


def evaluate(
    run: Run, name: str, params: Callable[[], models.Params]
) -> training.Evaluation:
    """Evaluate a policy on the held-out questions, greedily too.

    Args:
      run: the experiment.
      name: "initial", the label of a method, or NAME.averaged.
      params: gives its parameters, where the folder has no evaluation.
    """
    path = run.folder.evaluation(name)
    if run.hosts.broadcast(path.exists()):
        return training.Evaluation.load(path)
    session = run.session
    rollouts = session.initial_rollouts if name == "initial" else session.rollouts
    with run.display.progress(f"evaluate {name}", 1) as advance:
        found = training.evaluate(
            rollouts,
            params(),
            run.held_out,
            samples=run.config.eval.final_samples,
            greedy=True,
        )
        run.hosts.on_main_process(functools.partial(_keep, run, name, found))
        advance(1, f"{found.mean:.3f}")
    return found


def _keep(run: Run, name: str, found: training.Evaluation) -> None:
    write_json(run.folder.evaluation(name), found.to_json())
    made: dict[str, object] = {
        "questions": data.fingerprint(run.held_out).short,
        "samples": run.config.eval.final_samples,
    }
    if name != "initial":
        made["steps"] = run.config.train.steps
    Manifest(run.folder.manifest).record(f"evaluation of {name}", made)


def policies(
    run: Run, label: str, progress: Callable[[], training.TrainProgress]
) -> Iterator[tuple[str, Callable[[], models.Params]]]:
    """Yield name and parameters of a method's policies: the last one, and the average.

    Args:
      run: the experiment.
      label: of the method.
      progress: gives the method's, at its end.
    """

    def averaged() -> models.Params:
        last = progress()
        return training.with_copy(last.train, last.copies["averaged"])

    yield label, lambda: progress().train.params
    if run.config.methods[label].averaging:
        yield f"{label}.averaged", averaged
