"""Files of a run folder, with sound inputs made by the package itself."""

import json
import pathlib
import random
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

import sgpo_jax
from sgpo_jax import artefacts, methods, planning, profiling, testing, training
from sgpo_jax.config import Experiment
from sgpo_jax.ledger import Entry
from sgpo_jax.pipeline import folder as folders
from sgpo_jax.profiling import Profile
from sgpo_jax.report.curves import Curve
from sgpo_jax.training import manifest

from . import mutations
from .harness import read_back


def known() -> Profile:
    """A profile of twelve queries."""
    count = np.arange(12)
    return Profile(
        ids=tuple(f"q{n}" for n in range(12)),
        samples=np.full(12, 8),
        successes=count % 9,
        tokens=100 + count,
        seconds=count / 10,
        source={"policy": "abc", "seed": 0, "solved_at": 1.0},
        cost={"profiling": {"flops": 1e9, "seconds": 3.5, "rollouts": 96}},
    )


def config_seeds(folder: pathlib.Path) -> list[bytes]:
    """`config.json` of the default and of the tiny experiment."""
    made = [Experiment(), testing.tiny_experiment("runs/tiny")]
    path = folder / "config.json"
    write = artefacts.write_json
    return [read_back(path, lambda p, c=c: write(p, folders.flatten(c))) for c in made]


def read_settings(path: pathlib.Path) -> Any:
    """Return the settings of `config.json`, as a later command reads them."""
    flat = folders.read_json(path) | {"out": "runs/x"}
    return folders.flatten(folders.unflatten(Experiment(), flat))


def completion_seeds(folder: pathlib.Path) -> list[bytes]:
    """Completions of a step of training, as a run keeps them."""
    queries = testing.tiny_queries(4)
    scored = testing.ScriptedRollouts()(None, queries, [3] * 4, step=1)
    table = profiling.completion_table(
        queries, scored, part="train", method="mine", step=1
    )

    def write(path: pathlib.Path) -> None:
        profiling.write_completions([table], path)

    return [read_back(folder / "completions.parquet", write)]


def read_kept(path: pathlib.Path) -> Any:
    """Return all kept completions."""
    return profiling.read_completions(path).to_pylist()


def unsealed(seeds: Any) -> Any:
    """Return seeds without their checksum: damage that keeps it right."""

    def made(folder: pathlib.Path) -> list[bytes]:
        found = []
        for text in seeds(folder):
            content = json.loads(text)
            content.pop(artefacts.CHECKSUM)
            found.append(json.dumps(content).encode())
        return found

    return made


def plan_seeds(folder: pathlib.Path) -> list[bytes]:
    """A plan as sGPO makes it, and one with its prediction."""
    made = [planning.make_plan(known()), sgpo_jax.plan(known())]
    return [read_back(folder / "plan.json", plan.save) for plan in made]


def read_plan(path: pathlib.Path) -> Any:
    """Return a plan, its ids checked."""
    plan = planning.Plan.load(path, ids=known().ids)
    return [plan.hash, plan.rollouts, str(plan)]


def profile_parsed(path: pathlib.Path) -> Any:
    """Return all columns of a profile, its source and its cost."""
    found = Profile.load(path)
    return [found.to_arrow().to_pylist(), found.source, found.cost]


def metrics_seeds(folder: pathlib.Path) -> list[bytes]:
    """`metrics.jsonl` of seven steps with three evaluations."""

    def write(path: pathlib.Path) -> None:
        writer = training.MetricsWriter(path.parent)
        for step in range(7):
            line = {"reward": step / 7, "loss": -0.1, "rollouts": 32, "phase": "a"}
            if step % 3 == 0:
                line |= {"eval/success": 0.2, "eval/low": 0.1, "eval/high": 0.3}
                line |= {"total_flops": 1e9 * step, "total_flops_repeated": 2e9 * step}
                line |= {"ledger": {"training": {"flops": 1.5e9, "rollouts": 7}}}
            writer.write(step, line)
        writer.close()

    found = read_back(folder / "metrics.jsonl", write)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    return [found]


def read_log(path: pathlib.Path) -> Any:
    """Return metrics, and what the report makes of them."""
    found = training.read_metrics(path)
    if len(found) < 7:  # as `MetricsWriter.rewind` and the report do
        raise ValueError(f"{path} holds {len(found)} lines, the checkpoint counts 7")
    curve = Curve.from_metrics(found)
    return [found, curve.steps.tolist(), curve.success.tolist()]


def unsealed_metrics(folder: pathlib.Path) -> list[bytes]:
    """Metrics of lines without checksums."""
    texts = [json.loads(line) for line in metrics_seeds(folder)[0].splitlines()]
    for line in texts:
        line.pop(artefacts.LINE_CHECKSUM)
    return ["".join(json.dumps(line) + "\n" for line in texts).encode()]


def whole_lines(lines: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Mutate JSON lines, but leave a last line that was cut by a kill alone."""
    found = mutations.of_json_lines(lines, chance, others)
    # The last line without its break is what a kill leaves: dropped by design.
    return found if found.endswith(b"\n") else found + b"\n"


def evaluation_seeds(folder: pathlib.Path) -> list[bytes]:
    """A final evaluation."""
    made = training.Evaluation(
        rates=(0.25, 0.5, 0.75),
        greedy=0.55,
        unscorable=0.0,
        reward=0.5,
        cost=Entry(flops=1e9, rollouts=64, tokens=700, seconds=1.5),
    )
    path = folder / "eval.json"
    return [read_back(path, lambda p: artefacts.write_json(p, made.to_json()))]


def read_method(path: pathlib.Path) -> Any:
    """Return a method of its canonical JSON."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {str(error)[:100]}") from None
    return repr(methods.from_json(content))


def manifest_seeds(folder: pathlib.Path) -> list[bytes]:
    """The manifest of a checkpoint's step."""
    step = folder / "step"
    (step / "arrays").mkdir(parents=True, exist_ok=True)
    (step / "arrays" / "data").write_bytes(b"0123456789")
    manifest.write(step)
    return [(step / manifest.NAME).read_bytes()]


def read_manifest(path: pathlib.Path) -> Any:
    """Return that a step is sound; refused is what has a fault."""
    step = path.parent / "step"
    (step / manifest.NAME).write_bytes(path.read_bytes())
    fault = manifest.fault(step)
    if fault is not None:
        raise ValueError(fault)
    return "sound"
