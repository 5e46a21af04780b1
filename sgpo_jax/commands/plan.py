"""`sgpo plan --profile FILE`: a plan of a profile, without model, device and data."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgpo_jax.bounds import Count, NonNegative, Positive, Seed, bounded
from sgpo_jax.commands.options import parse_dataclass

if TYPE_CHECKING:
    from sgpo_jax import planning
    from sgpo_jax.profiling import Posterior, Profile

EXAMPLES = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class PlanOptions:
    """Plan training from a profile: which queries, group sizes, order, and the cost.

    Needs no model, no accelerator and no data. Rules are a name and settings, as in
    knapsack,mean=6,maximum=64; a wrong one is answered with what there is.

    Attributes:
      profile: the profile: a file, or the folder of a run.
      out: where plan.json and plan.png are written; the profile's folder if empty.
      filter: drop-trivial, keep-all, confident or signal.
      allocate: fixed, inverse, exact-inverse, best-advantage, knapsack, neyman, vip or
        hora.
      curriculum: easy-to-hard, hard-to-easy, replay, by-difficulty, random or mixed.
      prior: fitted (empirical Bayes with point masses at 0 and 1) or jeffreys.
      against: the baseline of the predicted compute: grpo or grpo_nonzero, and its
        group size.
      compare: put all allocators side by side instead, in allocators.json and .png.
      model: shape of the policy, for operations and memory: hf:FOLDER or gguf:FILE,
        whose weights are not read; without one neither is predicted.
      rollouts: rollouts of a training step.
      passes: passes over each phase.
      train_dead: groups with equal rewards are trained on too.
      training: cost of training on a response, in generations of one.
      seed: decides which unsolved queries are kept.
    """

    profile: str
    out: str = ""
    filter: str = "drop-trivial"
    allocate: str = "inverse"
    curriculum: str = "easy-to-hard"
    prior: str = "fitted"
    against: str = "grpo,group=8"
    compare: bool = False
    model: str = ""
    rollouts: Count = 256
    passes: Positive = 1.0
    train_dead: bool = False
    training: NonNegative = 4.0
    seed: Seed = 0


def main(args: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    from sgpo_jax.pipeline import UserError

    try:
        print(run(parse_dataclass(PlanOptions, args, prog="sgpo plan --profile FILE")))
    except (UserError, ValueError) as error:
        print(f"sgpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sgpo: cannot write the plan: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: PlanOptions) -> str:
    """Write the plan, or the comparison; return what is printed.

    Raises:
      UserError: if there is no such profile, or another command works on the folder.
      ValueError: naming a rule or a setting that is wrong.
    """
    from sgpo_jax.commands import profile_files
    from sgpo_jax.pipeline.saved import exclusive
    from sgpo_jax.profiling import Posterior

    rules = parse_rules(options)
    profile, folder = profile_files.open_profile(options.profile)
    belief = Posterior.of(profile, rules.prior)
    setting = dataclasses.replace(rules.setting, model=_shape(options.model))
    rules = dataclasses.replace(rules, setting=setting)
    out = pathlib.Path(options.out).expanduser() if options.out else folder
    out.mkdir(parents=True, exist_ok=True)
    make = compare if options.compare else plan
    with exclusive(out):
        return make(belief, rules, out, seed=options.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanRules:
    """The parts of a plan, parsed."""

    filter: "planning.Filter"
    allocate: "planning.Allocator"
    curriculum: "planning.Curriculum"
    prior: "planning.Prior"
    setting: "planning.Setting"
    against: "planning.Baseline"


def parse_rules(options: PlanOptions) -> PlanRules:
    """Parse the rules of a plan, before anything is read.

    Raises:
      ValueError: naming what is wrong.
    """
    from sgpo_jax import planning

    return PlanRules(
        filter=planning.rule(options.filter, planning.FILTERS, kind="filter"),
        allocate=planning.rule(options.allocate, planning.ALLOCATORS, kind="allocator"),
        curriculum=planning.rule(
            options.curriculum, planning.CURRICULA, kind="curriculum"
        ),
        prior=planning.rule(options.prior, planning.PRIORS, kind="prior"),
        setting=planning.Setting(
            rollouts=options.rollouts,
            passes=options.passes,
            drop_dead=not options.train_dead,
            training=options.training,
        ),
        against=planning.Baseline.parse(options.against),
    )


def plan(belief: "Posterior", rules: PlanRules, out: pathlib.Path, *, seed: int) -> str:
    """Write plan.json and plan.png; return them as text."""
    from sgpo_jax import planning
    from sgpo_jax.planning import figures
    from sgpo_jax.profiling import nothing_solved

    made = planning.make_plan(
        belief,
        seed=seed,
        filter=rules.filter,
        allocate=rules.allocate,
        curriculum=rules.curriculum,
    )
    nothing = nothing_solved(belief.profile)
    if not nothing:  # nothing is learned by any rule then, for more or less compute
        found = planning.predict(
            made, belief, setting=rules.setting, against=rules.against
        )
        made = planning.with_prediction(made, found)
    made.save(out / "plan.json")
    figures.save_plan(belief.profile, made, out / "plan.png")
    lines = [str(made), *filter(None, [nothing]), *examples(made, belief.profile)]
    return "\n".join([*lines, f"written: {out / 'plan.json'}, {out / 'plan.png'}"])


def compare(
    belief: "Posterior", rules: PlanRules, out: pathlib.Path, *, seed: int
) -> str:
    """Write allocators.json and allocators.png; return them as text."""
    from sgpo_jax import planning
    from sgpo_jax.planning import figures

    known = {**planning.ALLOCATORS}
    if rules.allocate not in known.values():
        known = {"yours": rules.allocate, **known}
    found = planning.compare(
        belief,
        allocators=known,
        filter=rules.filter,
        setting=rules.setting,
        against=rules.against,
        seed=seed,
    )
    rows = found.to_arrow().to_pylist()
    content = {"baseline": found.baseline, "allocators": rows}
    (out / "allocators.json").write_text(json.dumps(content, indent=1) + "\n")
    figures.save_comparison(found, out / "allocators.png")
    return f"{found}\nwritten: {out / 'allocators.json'}, {out / 'allocators.png'}"


def examples(made: "planning.Plan", profile: "Profile") -> list[str]:
    """Return questions of each phase, with success and group size."""
    lines = []
    for number, phase in enumerate(made.phases, start=1):
        for id_, size in [*zip(phase.ids, phase.sizes, strict=True)][:EXAMPLES]:
            row = profile.place[id_]
            text = " ".join(profile.prompts[row].split()) or "(text unknown)"
            lines.append(
                f"phase {number}, {profile.successes[row]} of {profile.samples[row]},"
                f" group of {size}: {id_} {text[:60]}"
            )
    return lines


def _shape(source: str):
    """Return the shape of a published policy; no weight is read."""
    if not source:
        return None
    from sgpo_jax.models import pretrained

    return pretrained.open_source(source).config
