"""Work and traffic per device of the training step, from 4 to 1,024 TPU chips.

    python benchmarks/scaling.py --out benchmarks/results/scaling

Every point is the optimised program of a real layout (that of `sgpo aot`), compiled
without a TPU. The model has few layers: they are scanned, so what a layer adds is the
same for each, and `sgpo_jax.ahead_of_time.hlo` counts the loop as often as it runs.
More than 256 v5e chips are several slices, joined along the mesh's data axis.

Weak scaling keeps the rows per device; strong scaling keeps the rows of the whole batch
(accumulating over micro-batches where the devices are few).
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys

SIZES = (4, 16, 64, 256, 1024)


def measure(chips: int, options: argparse.Namespace) -> dict:
    from sgpo_jax import sharding
    from sgpo_jax.ahead_of_time import facts, public
    from sgpo_jax.commands.aot import Aot

    slices = max(1, chips // 256)
    shape = public.find(options.model)
    public.PUBLIC["few layers"] = dataclasses.replace(shape, num_layers=options.layers)
    workload = Aot(
        topology=f"v5e-{chips // slices}",
        num_slices=slices,
        model="few layers",
        mesh=sharding.MeshShape(fsdp=chips // slices),
        row_length=(options.row_length,),
    ).workload()
    found = facts.compile_job(workload.step_jobs()[0], workload.mesh)
    if found.counts is None:
        return {"chips": chips, "problem": found.problem}
    sent: dict[str, float] = {}
    for one in found.counts.collectives:
        sent[one.kind] = sent.get(one.kind, 0) + one.wire_bytes
    return {
        "chips": chips,
        "slices": slices,
        "tflop": found.counts.flops / 1e12,
        "hbm_gb": found.counts.bytes / 1e9,
        "sent_mb": {kind: size / 1e6 for kind, size in sorted(sent.items())},
        "temporaries_gib": found.temporaries / 2**30,
        "compile_cpu_s": found.seconds,
    }


def table(points: list[dict], options: argparse.Namespace) -> str:
    lines = [
        f"# Training step of {options.model}, {options.layers} layers, on v5e",
        "",
        f"Made by `{' '.join(['python benchmarks/scaling.py', *sys.argv[1:]])}`: one"
        f" row of {options.row_length} tokens per device, parameters split over all"
        " devices of a slice, slices joined along `data`. Per device and micro-batch,"
        " counted in the optimised programs of the TPU compiler; nothing was run.",
        "",
        "Weak scaling:",
        "",
        "| chips | slices | TFLOP | HBM GB | sent MB | of it gathers | reductions"
        " | permutes | temporaries GiB | compile CPU s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for p in points:
        if "problem" in p:
            lines.append(f"| {p['chips']} | {p['problem']} | | | | | | | | |")
            continue
        sent = p["sent_mb"]
        reduced = sent.get("all-reduce", 0) + sent.get("reduce-scatter", 0)
        lines.append(
            f"| {p['chips']} | {p['slices']} | {p['tflop']:.3f} | {p['hbm_gb']:.1f}"
            f" | {sum(sent.values()):.0f} | {sent.get('all-gather', 0):.0f}"
            f" | {reduced:.0f} | {sent.get('collective-permute', 0):.0f}"
            f" | {p['temporaries_gib']:.2f} | {p['compile_cpu_s']:.0f} |"
        )
    good = [p for p in points if "problem" not in p]
    most = max((p["chips"] for p in good), default=0)
    lines += [
        "",
        f"Strong scaling: a batch of {most} rows, one row per device and micro-batch.",
        "",
        "| chips | micro-batches | TFLOP | HBM GB | sent MB |",
        "|---:|---:|---:|---:|---:|",
    ]
    for p in good:
        times = most // p["chips"]
        lines.append(
            f"| {p['chips']} | {times} | {times * p['tflop']:.3f}"
            f" | {times * p['hbm_gb']:.1f} | {times * sum(p['sent_mb'].values()):.0f} |"
        )
    return "\n".join(lines) + "\n"


def figure(points: list[dict], path: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    good = [p for p in points if "problem" not in p]
    chips, most = [p["chips"] for p in good], good[-1]["chips"]
    series = {
        "TFLOP": [p["tflop"] for p in good],
        "HBM, GB": [p["hbm_gb"] for p in good],
        "sent, GB": [sum(p["sent_mb"].values()) / 1e3 for p in good],
    }
    _, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, layout="constrained")
    for name, values in series.items():
        axes[0].plot(chips, values, "o-", label=name)
        strong = [v * most / c for v, c in zip(values, chips, strict=True)]
        axes[1].plot(chips, strong, "o-", label=name)
    for axis, title in zip(axes, ("weak: one row per device", "strong"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="chips", title=title)
        axis.set_xticks(chips, [str(c) for c in chips])
        axis.minorticks_off()
    axes[0].set_ylabel("per device")
    axes[0].legend()
    plt.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--row-length", type=int, default=2048)
    parser.add_argument("--out", default="benchmarks/results/scaling")
    parser.add_argument("--one", type=int, default=0, help="measure this size only")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    points = []
    for chips in SIZES:
        # A process each: the compiler aborts its process on an error of its own.
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(chips)]
        done = subprocess.run(command, capture_output=True, text=True)
        last = (done.stdout or done.stderr).strip().splitlines()[-1]
        failed = {"chips": chips, "problem": last[:120]}
        points.append(json.loads(last) if not done.returncode else failed)
        print(points[-1], flush=True)
    out = pathlib.Path(options.out)
    out.with_suffix(".md").write_text(table(points, options))
    figure(points, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
