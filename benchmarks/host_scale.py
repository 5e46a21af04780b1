"""The host's part of a run over a million questions: seconds and memory of each stage.

    python benchmarks/host_scale.py [--questions 100000 1000000] [--steps 10000]

Reads JSON lines, Parquet and verl's layout, splits, tokenizes, keeps a profile, plans,
draws, credits and writes checkpoints of the schedule's state; every stage at each size,
so that what is not linear shows. What happens in every step is compared with a step of
Qwen3 8B. Then a tiny policy is trained for many steps, with real updates, log and
checkpoints and scripted rollouts, and its resident memory is read on the way.
"""

import argparse
import contextlib
import gc
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax import chips, data, ledger, methods, models, planning, testing, training
from sgpo_jax.ahead_of_time import public
from sgpo_jax.profiling import Profile
from sgpo_jax.training import Prompts

RESULTS = pathlib.Path(__file__).parent / "results" / "host_scale.json"
GROUPS, GROUP, PROMPT, RESPONSE = 512, 8, 200, 1000
SLICE = "v5p-128"
IN_EVERY_STEP = ("draw, sGPO", "draw, by belief", "credit and bookkeeping")


def resident(name: str = "VmRSS") -> float:
    """Return resident memory in MB, by its name in /proc."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) * 1024 / 1e6


def peak_from_now() -> None:
    """Begin to count the peak of resident memory, "VmHWM", anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


class Clock:
    """CPU-seconds of all threads, growth and peak of resident memory of each stage."""

    def __init__(self):
        self.stages: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def stage(self, name: str, times: int = 1):
        gc.collect()
        pa.default_memory_pool().release_unused()
        peak_from_now()
        before, begin = resident(), time.process_time()
        yield
        seconds = (time.process_time() - begin) / times
        grown, peak = resident() - before, resident("VmHWM") - before
        self.stages[name] = [seconds, grown, peak]


def row(n: int) -> dict[str, Any]:
    text = f"Question {n}: what is {n} + {n * 7 % 1000} in the ring of {n % 97}?"
    return {"prompt": text, "answer": str(n), "level": n % 5}


def verl_row(n: int) -> dict[str, Any]:
    plain = row(n)
    return {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": plain["prompt"]}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": plain["answer"]},
        "extra_info": {"split": "train", "index": n},
    }


def write_rows(path: pathlib.Path, count: int) -> None:
    with path.open("w") as file:
        for n in range(count):
            file.write(json.dumps(row(n)) + "\n")


def write_parquet(path: pathlib.Path, count: int, make: Callable) -> None:
    some = 50_000  # rows of a group
    with contextlib.ExitStack() as held:
        writer = None
        for first in range(0, count, some):
            rows = [make(n) for n in range(first, min(first + some, count))]
            table = pa.Table.from_pylist(rows)
            writer = writer or held.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)


def profile_of(queries: tuple, rng: np.random.Generator) -> Profile:
    count = len(queries)
    return Profile(
        ids=tuple(query.id for query in queries),
        samples=np.full(count, 8),
        successes=rng.integers(0, 9, size=count),
        tokens=np.full(count, 8 * RESPONSE),
    )


def step(
    prompts: Prompts, clock: Clock, name: str, times: int = 5
) -> training.PromptState:
    with clock.stage(f"state of the schedule, {name}"):
        state = prompts.init()
    draw, state = prompts.draw(state, budget=GROUPS * GROUP, progress=0.0, seed=0)
    with clock.stage(f"draw, {name}", times):
        for seed in range(times):
            draw, state = prompts.draw(
                state, budget=GROUPS * GROUP, progress=0.5, seed=seed + 1
            )
    group = np.repeat(np.arange(len(draw.rows)), draw.sizes)
    rewards = (np.arange(len(group)) % 2).astype(np.float64)
    with clock.stage("credit and bookkeeping", times):
        for number in range(times):
            prompts.groups(
                state,
                draw,
                group=group,
                rewards=rewards,
                length=np.full(len(group), RESPONSE),
                max_length=RESPONSE,
            )
            state = prompts.observe(
                state, draw, group=group, rewards=rewards, step=number + 1
            )
    return state


def stages(count: int, folder: pathlib.Path) -> Clock:
    clock, rng = Clock(), np.random.default_rng(0)
    for name, make in (("Parquet", row), ("Parquet in verl's layout", verl_row)):
        path = folder / "rows.parquet"
        write_parquet(path, count, make)
        with clock.stage(f"load, {name}"):
            loaded = data.parse_source(str(path)).load()
        del loaded
    path = folder / "rows.jsonl"
    write_rows(path, count)
    with clock.stage("load, JSON lines"):
        source = data.parse_source(str(path))
        loaded = source.load()
    with clock.stage("split"):
        train, held_out = data.divide(loaded, held_out=1000, seed=0)
    del held_out
    tokenizer = models.load("tiny:layers=1,width=32").tokenizer
    with clock.stage("longest prompt in tokens"):
        max(len(tokenizer.encode_prompt(query.turns)) for query in train)
    with clock.stage("profile"):
        known = profile_of(train, rng)
    with clock.stage("profile, written"):
        known.save(folder / "profile.parquet")
    with clock.stage("profile, read and checked"):
        known = Profile.load(folder / "profile.parquet")
    with clock.stage("profile in the order of the questions"):
        known = known.select([query.id for query in train])
    with clock.stage("plan"):
        plan = planning.make_plan(known, seed=0)
    with clock.stage("plan, written"):
        plan.save(folder / "plan.json")
    with clock.stage("plan, read and checked"):
        planning.Plan.load(folder / "plan.json", ids=[query.id for query in train])
    del plan
    chosen = {"sGPO": methods.named("sgpo"), "by belief": methods.named("tracked")}
    for name, method in chosen.items():
        prompts = Prompts(method=method, count=len(train), profile=known)
        state = step(prompts, clock, name)
    checkpoints = training.Checkpoints(folder / "checkpoints")
    arrays = jax.tree.map(np.asarray, state)
    with clock.stage("checkpoint of the schedule"):
        checkpoints.save(1, arrays, {"step": 1})
        checkpoints.wait()
    checkpoints.close()
    return clock


def step_seconds() -> float:
    """Seconds of training and sampling one step of Qwen3 8B on a slice at 40 % MFU."""
    decoder, piece = public.find("qwen3-8b"), chips.parse_slice(SLICE)
    lengths = [RESPONSE] * GROUP
    spent = ledger.training_flops(
        decoder,
        tokens=PROMPT + sum(lengths),
        pairs=ledger.packed_pairs(PROMPT, lengths),
        logits=sum(lengths),
    )
    spent += ledger.forward_flops(
        decoder,
        tokens=PROMPT + sum(lengths) - GROUP,
        pairs=ledger.sample_pairs(PROMPT, lengths),
        logits=sum(lengths),
    )
    return GROUPS * spent / (0.4 * piece.chips * piece.chip.peak_tflops * 1e12)


def soak(steps: int, folder: pathlib.Path, limit: float) -> dict:
    """Train a tiny policy; return resident memory at tenths of the steps."""
    method = methods.Method(prompts=methods.Shuffled(group_size=3))
    programs = training.TrainPrograms(
        config=testing.TINY, loss=method.loss, optimizer=method.optimizer.make()
    )
    queries = testing.tiny_queries()
    learner = training.Learner(
        programs=programs,
        rollouts=testing.ScriptedRollouts(),
        queries=queries,
        method=method,
        buckets=testing.tiny_buckets(),
        config=training.TrainConfig(steps=steps, rollouts=12, eval_every=500),
        seed=0,
    )
    params = models.init(testing.TINY, key=jax.random.key(0))
    progress = learner.start(programs.init(params))
    found, began = [], time.perf_counter()
    with (
        contextlib.closing(training.Checkpoints(folder / "soak")) as checkpoints,
        contextlib.closing(training.MetricsWriter(folder / "log")) as log,
    ):
        store = training.ProgressStore(checkpoints, progress, {"run": "soak"})
        made = training.steps(
            learner,
            progress,
            start=0,
            stop=steps,
            store=store,
            log=log,
            evaluate=lambda progress: {},
        )
        for number, now, _ in made:
            learner.rollouts.steps.clear()
            progress = now
            if number and number % (steps // 10) == 0:
                gc.collect()
                found.append([number, round(resident(), 1)])
            if time.perf_counter() - began > limit:
                break
    return {"steps": number, "seconds": time.perf_counter() - began, "resident": found}


def page(result: dict) -> str:
    sizes = sorted(result["stages"], key=int)
    small, large = sizes[0], sizes[-1]
    ratio = int(large) / int(small)
    lines = [
        "# The host's part of a run over a million questions",
        "",
        "`python benchmarks/host_scale.py`: CPU-seconds and growth of resident memory",
        f"of {int(small):,} and {int(large):,} questions ({ratio:g} times as many).",
        "Two cores that other work shared, so that ratios are rough. Peak: of resident",
        "memory while the stage ran, above what there was before.",
        "",
        f"| stage | CPU-seconds at {int(small):,} | at {int(large):,} | times | MB at"
        f" {int(large):,} | peak MB | bytes per question |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (seconds, grown, peak) in result["stages"][large].items():
        before = result["stages"][small][name][0]
        per, times = max(grown, 0) * 1e6 / int(large), seconds / max(before, 1e-6)
        lines.append(
            f"| {name} | {before:.3f} | {seconds:.3f} | {times:.1f}"
            f" | {max(grown, 0):.0f} | {max(peak, 0):.0f} | {per:.0f} |"
        )
    whole = result["step_seconds"]
    each = sum(result["stages"][large][name][0] for name in IN_EVERY_STEP[1:])
    lines += [
        "",
        f"A step of Qwen3 8B, {GROUPS} groups of {GROUP} with {PROMPT} + {RESPONSE}"
        f" tokens on {SLICE} at 40 % MFU, takes {whole:.0f} s by its operations."
        f" Drawing (by belief, the dearer of the two) and credit take {each:.3f} s,"
        f" {each / whole:.2%} of it.",
    ]
    if result.get("soak"):
        found = result["soak"]
        lines += [
            "",
            f"{found['steps']:,} steps of a tiny policy (real updates, log and"
            f" checkpoints, scripted rollouts) in {found['seconds']:.0f} s; resident"
            " memory in MB: "
            + ", ".join(f"{mb:.0f} at {step:,}" for step, mb in found["resident"])
            + ".",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--questions", type=int, nargs="*", default=[100_000, 1_000_000]
    )
    parser.add_argument(
        "--steps", type=int, default=10_000, help="of the soak; 0: none"
    )
    parser.add_argument("--limit", type=float, default=420, help="seconds of the soak")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.out.exists() else {"stages": {}}
    result["step_seconds"] = step_seconds()
    for count in args.questions:
        with tempfile.TemporaryDirectory() as folder:
            result["stages"][str(count)] = stages(count, pathlib.Path(folder)).stages
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.steps:
        with tempfile.TemporaryDirectory() as folder:
            result["soak"] = soak(args.steps, pathlib.Path(folder), args.limit)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
