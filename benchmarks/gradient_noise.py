"""Signal to noise of a step's gradient, per method and per unit of compute.

    python benchmarks/gradient_noise.py --run runs/headline/strategies/grpo_token/seed0

From one policy many batches are drawn and none is learned from: every step begins at
the same parameters, and an optimizer that only subtracts the gradient shows it. With
gradients g_1, ..., g_n of n steps, mean mu and total variance V,

    |mu|^2 = sum_{i != j} g_i . g_j / (n (n - 1)),   V = sum_i |g_i|^2 / n - |mu|^2

is unbiased, and |mu|^2 / V is the signal to noise of a step. Where it is far below 1 a
method needs compute in proportion to (cost of a step) / (signal to noise) to know its
direction as well as another, which predicts a saving; it knows nothing of step sizes or
of how the policy changes. The cosine is that of the mean gradient with the baseline's,
over pairs of different steps: 1 for the same direction. A dash: the signal is not twice
its error, so more --steps are needed. Profiles are charged in neither.

--run is a run folder with the policies, of `benchmarks.headline`, whose savings are
shown beside the prediction. Writes benchmarks/results/gradient_noise.md and .json.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax

from sgpo_jax import methods, models, pipeline, rewards, training
from sgpo_jax.commands.options import experiment
from sgpo_jax.config import tuned_methods
from sgpo_jax.ledger import LIVE, Ledger
from sgpo_jax.pipeline import saved
from sgpo_jax.pipeline.methods import make_learner
from sgpo_jax.profiling import Profile

RESULTS = pathlib.Path(__file__).parent / "results"
CONTROLS = "benchmarks.headline.controls"
METHODS = (
    *("grpo_token", f"{CONTROLS}:grpo_16", "grpo_thin", f"{CONTROLS}:screened_thin"),
    *("dapo", f"{CONTROLS}:dapo_thin", "pods", "sgpo"),
)
LEFT_OUT = ", dead groups left out"


@dataclasses.dataclass(frozen=True)
class Descent:
    """Gradient descent with step size 1: what it changes is the gradient."""

    def make(self) -> optax.GradientTransformation:
        return optax.sgd(1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradients:
    """Gradients of many steps from one policy, and what a step costs.

    Attributes:
      each: one flat gradient per step, [N, P].
      flops: operations of a step, mean.
      flops_live: the same without a backward pass for responses of advantage 0.
      no_signal: share of groups without an advantage.
      trained: share of rollouts trained on.
    """

    each: np.ndarray
    flops: float
    flops_live: float
    no_signal: float
    trained: float


def draw(
    learner: training.Learner, params: models.Params, steps: int
) -> tuple[np.ndarray, Ledger, list[training.Metrics]]:
    """Return the gradients of steps that all begin at the same parameters."""
    progress = learner.start(learner.programs.init(params))
    first = jax.tree.map(np.asarray, progress.train.params)
    each, lines = [], []
    for step in range(1, steps + 1):
        lines.append(learner.step(progress, step))
        after = progress.train.params
        change = jax.tree.map(lambda a, b: np.ravel(a - np.asarray(b)), first, after)
        each.append(np.concatenate(jax.tree.leaves(change)))
        progress.train = learner.programs.init(params)
    return np.stack(each), progress.ledger, lines


def measure(learner: training.Learner, params: models.Params, steps: int) -> Gradients:
    """Draw gradients of one method."""
    each, ledger, lines = draw(learner, params, steps)
    whole = ledger.total.flops
    saved_training = ledger["training"].flops - ledger[LIVE].flops
    return Gradients(
        each=each,
        flops=whole / steps,
        flops_live=(whole - saved_training) / steps,
        no_signal=float(np.mean([line["frac_no_signal"] for line in lines])),
        trained=sum(line["trained"] for line in lines)
        / sum(line["rollouts"] for line in lines),
    )


def signal(gram: np.ndarray) -> tuple[float, float]:
    """Return |mu|^2 and V from the inner products of gradients, [N, N].

    >>> signal(np.array([[5.0, 1.0], [1.0, 3.0]]))
    (1.0, 3.0)
    """
    count = len(gram)
    mean = (gram.sum() - np.trace(gram)) / (count * (count - 1))
    return float(mean), float(np.trace(gram) / count - mean)


def signal_to_noise(each: np.ndarray) -> tuple[float, float]:
    """Return the signal to noise of one step and its jackknife standard error."""
    gram = each.astype(np.float64) @ each.astype(np.float64).T
    count, (mean, noise) = len(gram), signal(gram)
    # Without one of them: its row and column of the products.
    own = np.diag(gram)
    fewer = (count - 1) * (count - 2)
    means = (gram.sum() - own.sum() - 2 * (gram.sum(0) - own)) / fewer
    noises = (own.sum() - own) / (count - 1) - means
    ratios = means / noises
    error = np.sqrt((count - 1) * np.mean((ratios - ratios.mean()) ** 2))
    return mean / noise, float(error)


def cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the cosine of two mean gradients, without pairs of the same step."""
    product = ours.astype(np.float64) @ theirs.astype(np.float64).T
    across, _ = signal(product)
    lengths = [signal(x.astype(np.float64) @ x.T)[0] for x in (ours, theirs)]
    return float(across / np.sqrt(np.prod(lengths)))


def rows(found: Mapping[str, Gradients], baseline: str) -> list[dict]:
    """Return the lines of a table: per method, and the baseline without dead groups."""
    base, base_error = signal_to_noise(found[baseline].each)
    made = []
    for name, x in found.items():
        ratio, error = signal_to_noise(x.each)
        seen = ratio > 2 * error and base > 2 * base_error
        costs = {name: x.flops}
        if name == baseline:
            costs[name + LEFT_OUT] = x.flops_live
        made += [
            {
                "method": label,
                "no_signal": x.no_signal,
                "trained": x.trained,
                "flops": flops,
                "signal_to_noise": ratio,
                "error": error,
                "predicted": ratio / base * found[baseline].flops / flops
                if seen
                else None,
                "cosine": cosine(x.each, found[baseline].each) if seen else None,
            }
            for label, flops in costs.items()
        ]
    return made


def table(made: Sequence[Mapping], measured: Mapping[str, float | None]) -> str:
    """Markdown of the lines, beside the savings that runs have shown."""
    lines = [
        "| method | groups without signal | rollouts trained on | MFLOP of a step |"
        " signal to noise of a step | predicted saving | measured at 50 % | cosine |",
        "|---" + "|---:" * 7 + "|",
    ]
    for row in made:
        last = (row["predicted"], measured.get(row["method"]), row["cosine"])
        shown = " | ".join("-" if x is None else f"{x:.2f}" for x in last)
        lines.append(
            f"| {row['method']} | {row['no_signal']:.2f} | {row['trained']:.2f} |"
            f" {row['flops'] / 1e6:.0f} | {row['signal_to_noise']:.3f} ±"
            f" {row['error']:.3f} | {shown} |"
        )
    return "\n".join(lines)


def gradients(args: argparse.Namespace) -> dict[str, list[dict]]:
    """Measure all methods at all policies of the run."""
    known = experiment("run", ["--out", str(args.run)])
    with rewards.Worker() as worker:
        run = pipeline.open_run(known, worker)
        starts = {name: saved.saved_params(run, name) for name in args.policies}
    chosen = {
        label: method.replace(optimizer=Descent())
        for label, method in tuned_methods(args.methods, {"": 1.0}).items()
    }
    config = dataclasses.replace(known, methods=chosen)
    profile = Profile.load(args.run / "profile.parquet")
    found: dict[str, list[dict]] = {}
    with rewards.Worker() as worker:
        run = pipeline.open_run(config, worker)
        for policy, params in starts.items():
            each = {}
            for label, method in chosen.items():
                plan = None
                if isinstance(method.prompts, methods.Planned):
                    plan = method.prompts.plan(profile, seed=config.seed)
                learner = make_learner(run, label, profile, plan)
                each[label] = measure(learner, params, args.steps)
                print(policy, label, flush=True)
            found[policy] = rows(each, next(iter(chosen)))
            print(table(found[policy], {}), flush=True)
    return found


def page(found: Mapping) -> str:
    """Markdown of everything, with the savings that `benchmarks.headline` has seen."""
    headline = json.loads((RESULTS / "headline.json").read_text())
    shares = headline["testbeds"][found["testbed"]]["savings"]
    savings = {
        name: shares.get(f"{name}, profile for free", seen)[0]["value"]
        for name, seen in shares.items()
    }
    text = (__doc__ or "").replace("--run is", "`--run` is").strip()
    title, _, rest = text.partition("\n")
    parts = [f"# {title.rstrip('.')}", rest.strip("\n")]
    parts.append(f"`{found['command']}`: {found['steps']} steps of each.")
    for policy, made in found["policies"].items():
        parts += [f"## From the policy `{policy}`", table(made, savings)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/gradient_noise.py")
    parser.add_argument("--run", type=pathlib.Path, help="none: only make the page")
    parser.add_argument("--testbed", default="strategies", help="for its savings")
    parser.add_argument("--policies", nargs="+", default=["initial", "grpo_token"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--steps", type=int, default=64)
    args = parser.parse_args()
    out = RESULTS / "gradient_noise.json"
    if args.run:
        found = {
            "command": "python benchmarks/gradient_noise.py --run RUN",
            "testbed": args.testbed,
            "steps": args.steps,
            "policies": gradients(args),
        }
        out.write_text(json.dumps(found, indent=1) + "\n")
    out.with_suffix(".md").write_text(page(json.loads(out.read_text())))


if __name__ == "__main__":
    sys.exit(main())
