"""Work and traffic per device of the training step, from 4 to 1,024 TPU chips.

    python benchmarks/scaling.py --out benchmarks/results/scaling

Every point is the optimised program of a real layout (that of `sgpo aot`), compiled
without a TPU, in a process of its own. Points are kept in a JSON file beside the table:
a run that was stopped goes on, and `--one CHIPS` makes one point and draws what is
there. The model has few layers: they are scanned, so what a layer adds is the same for
each, and the counts take the loop as often as it runs.

More than 256 v5e chips are several slices, joined along the mesh's data axis; the same
number of v5p chips is one slice.

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
MIB, GIB = 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all points have in common; a file of points belongs to one of these."""

    model: str
    chip: str
    layers: int
    row_length: int

    def slices(self, chips: int) -> int:
        return max(1, chips // 256) if self.chip in ("v5e", "v6e") else 1

    def slice_name(self, chips: int) -> str:
        cores = 2 if self.chip in ("v5p", "tpu7x") else 1
        return f"{self.chip}-{chips // self.slices(chips) * cores}"


def measure(chips: int, settings: Settings) -> dict:
    from sgpo_jax import sharding
    from sgpo_jax.ahead_of_time import compile_report, public
    from sgpo_jax.ahead_of_time.programs import device_bytes
    from sgpo_jax.commands.aot import Aot

    slices = settings.slices(chips)
    shape = public.find(settings.model)
    public.PUBLIC["few layers"] = dataclasses.replace(shape, num_layers=settings.layers)
    workload, _ = Aot(
        topology=settings.slice_name(chips),
        num_slices=slices,
        model="few layers",
        mesh=sharding.MeshShape(fsdp=chips // slices),
        row_length=(settings.row_length,),
    ).workload()
    found = compile_report.compile_job(workload.step_jobs()[0])
    state = workload.state()
    if found.counts is None:
        return {"chips": chips, "problem": found.problem}
    return {
        "chips": chips,
        "slices": slices,
        "topology": f"{slices} x {settings.slice_name(chips)}",
        "tflop": found.counts.flops / 1e12,
        "hbm_gb": found.counts.bytes / 1e9,
        "state_mib": device_bytes(state) / MIB,
        "copies_mib": sum(
            one.mib
            for one in compile_report.copies({"state": state.params}, workload.mesh)
        ),
        "temporaries_gib": found.temporaries / GIB,
        "collectives": [
            dataclasses.asdict(one) | {"sent": one.wire_bytes}
            for one in found.counts.collectives
        ],
        "compile_cpu_s": found.seconds,
    }


def sent(point: dict, over: str, *kinds: str) -> float:
    """Return MB that a device sends over a network, in collectives of some kinds."""
    return sum(
        one["sent"] / 1e6
        for one in point["collectives"]
        if one["over"] == over and (not kinds or one["kind"] in kinds)
    )


def table(points: list[dict], settings: Settings, command: str) -> str:
    lines = [
        f"# Training step of {settings.model}, {settings.layers} layers, on"
        f" {settings.chip}",
        "",
        f"Made by `{command}`: one row of {settings.row_length} tokens per device,"
        " parameters split over all devices of a slice, slices joined along `data`. Per"
        " device and micro-batch, counted in the optimised programs of the TPU"
        " compiler; nothing was run.",
        "",
        "Weak scaling:",
        "",
        "| chips | slices | TFLOP | HBM GB | state MiB | of it whole | temporaries GiB"
        " | sent within a slice, MB | gathers | sums | permutes | sent between slices,"
        " MB | compile CPU s |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for p in points:
        if "problem" in p:
            lines.append(f"| {p['chips']} | {p['problem']} |" + " |" * 11)
            continue
        lines.append(
            f"| {p['chips']} | {p['topology']} | {p['tflop']:.3f} | {p['hbm_gb']:.1f}"
            f" | {p['state_mib']:.1f} | {p['copies_mib']:.2f}"
            f" | {p['temporaries_gib']:.2f} | {sent(p, 'ici'):.0f}"
            f" | {sent(p, 'ici', 'all-gather'):.0f}"
            f" | {sent(p, 'ici', 'all-reduce', 'reduce-scatter'):.0f}"
            f" | {sent(p, 'ici', 'collective-permute'):.0f} | {sent(p, 'dcn'):.1f}"
            f" | {p['compile_cpu_s']:.0f} |"
        )
    good = [p for p in points if "problem" not in p]
    most = max((p["chips"] for p in good), default=0)
    lines += [
        "",
        f"Strong scaling: a batch of {most} rows, one row per device and micro-batch.",
        "",
        "| chips | micro-batches | TFLOP | HBM GB | sent within a slice, MB"
        " | sent between slices, MB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for p in good:
        times = most // p["chips"]
        lines.append(
            f"| {p['chips']} | {times} | {times * p['tflop']:.3f}"
            f" | {times * p['hbm_gb']:.1f} | {times * sent(p, 'ici'):.0f}"
            f" | {times * sent(p, 'dcn'):.1f} |"
        )
    return "\n".join(lines) + "\n"


def figure(points: list[dict], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    good = [p for p in points if "problem" not in p]
    if not good:
        return
    chips, most = [p["chips"] for p in good], good[-1]["chips"]
    series = {
        "TFLOP": [p["tflop"] for p in good],
        "HBM, GB": [p["hbm_gb"] for p in good],
        "state, GiB": [p["state_mib"] / 1024 for p in good],
        "sent within a slice, GB": [sent(p, "ici") / 1e3 for p in good],
        "sent between slices, GB": [sent(p, "dcn") / 1e3 or None for p in good],
    }
    _, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, layout="constrained")
    for name, values in series.items():
        axes[0].plot(chips, values, "o-", label=name)
        strong = [v and v * most / c for v, c in zip(values, chips, strict=True)]
        if not name.startswith("state"):
            axes[1].plot(chips, strong, "o-", label=name)
        else:
            axes[1].plot(chips, values, "o-", label=name)
    titles = "weak: one row per device", f"strong: {most} rows in all"
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xscale="log", yscale="log", xlabel="chips", title=title)
        axis.set_xticks(chips, [str(c) for c in chips])
        axis.minorticks_off()
    axes[0].set_ylabel("per device")
    axes[0].legend(fontsize=7)
    plt.savefig(path, dpi=120)


def load(path: pathlib.Path, settings: Settings) -> dict[int, dict]:
    """Return the points of a file by chips; refuses those of other settings."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    if content["settings"] != dataclasses.asdict(settings):
        raise SystemExit(
            f"{path} holds points of {content['settings']}; give another --out, or"
            " delete it"
        )
    return {point["chips"]: point for point in content["points"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="qwen3-8b")
    parser.add_argument("--chip", default="v5e")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--row-length", type=int, default=2048)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", default="benchmarks/results/scaling")
    parser.add_argument("--one", type=int, default=0, help="make this point only")
    parser.add_argument("--print", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = Settings(options.model, options.chip, options.layers, options.row_length)
    if options.print:
        print(json.dumps(measure(options.one, settings)))
        return
    out = pathlib.Path(options.out)
    points = load(out.with_suffix(".json"), settings)
    for chips in [options.one] if options.one else options.sizes:
        if chips in points:
            continue
        # A process each: the compiler aborts its process on an error of its own.
        command = [sys.executable, __file__, *sys.argv[1:], "--print"]
        done = subprocess.run(
            [*command, "--one", str(chips)], capture_output=True, text=True
        )
        last = (done.stdout or done.stderr).strip().splitlines()[-1]
        failed = {"chips": chips, "problem": last[:120]}
        points[chips] = json.loads(last) if not done.returncode else failed
        print(points[chips], flush=True)
        content = {
            "settings": dataclasses.asdict(settings),
            "points": [points[chips] for chips in sorted(points)],
        }
        out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    ordered = [points[chips] for chips in sorted(points)]
    kept = [arg for arg in sys.argv[1:] if arg != "--one" and arg != str(options.one)]
    text = table(ordered, settings, " ".join(["python benchmarks/scaling.py", *kept]))
    out.with_suffix(".md").write_text(text)
    figure(ordered, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
