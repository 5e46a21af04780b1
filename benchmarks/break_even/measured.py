"""What runs measured, beside what the model says of them."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.headline.analysis import FREE_SUFFIX, SHARES
from benchmarks.headline.controls import filtered_thin
from sgpo_jax import methods, planning, report, theory
from sgpo_jax.profiling import Posterior, Profile

from .model import GROUP, LONGER, VISITS, mixed_share, pool

PLACE = SHARES.index(0.9)
"""The share of the gain at which runs are compared."""
PAIRS = (
    ("grpo_token", "grpo_thin", False),
    ("grpo_thin", "filtered_thin", False),
    ("grpo_thin", "filtered_thin", True),
    ("grpo_thin", "drawn_flat", False),
    ("drawn_flat", "drawn", False),
    ("drawn_flat", "drawn", True),
    ("grpo_thin", "sgpo", False),
    ("grpo_thin", "sgpo", True),
)
"""Methods that are compared, and whether the profile of the second is for free."""

PLANNED = {
    "sgpo": functools.partial(methods.named, "sgpo"),
    "filtered_thin": filtered_thin,
}


def read_pools(work: pathlib.Path, headline: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of successes, and lengths, of the profiles that the runs began with."""
    found = {}
    for testbed in headline["testbeds"]:
        paths = sorted((work / testbed / "initial").glob("seed*/profile.parquet"))
        if not paths:
            continue
        profiles = [Profile.load(path) for path in paths]
        (samples,) = {int(n) for profile in profiles for n in profile.samples}
        counts = [np.bincount(p.successes, minlength=samples + 1) for p in profiles]
        length = np.mean([p.tokens.sum() / p.drawn.sum() for p in profiles])
        prompt = np.mean([p.prompt_tokens.mean() for p in profiles])
        found[testbed] = {
            "successes": np.mean(counts, axis=0).round().astype(int).tolist(),
            "prompt": round(float(prompt / length), 3),
        }
    return found


@dataclasses.dataclass(frozen=True)
class Measured:
    """Runs of one testbed, and the model of them.

    Attributes:
      result: the testbed's part of the headline.
      runs: members of the comparison, by method.
      pool: counts of successes, and prompt over response, by `read_pools`.
    """

    result: Mapping[str, Any]
    runs: Mapping[str, Sequence[Mapping[str, Any]]]
    pool: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, headline: Mapping[str, Any], pool: Mapping[str, Any]):
        result = headline["testbeds"][name]
        runs: dict[str, list[Mapping[str, Any]]] = {}
        for run in headline["runs"]:
            if run["testbed"] == name and run["seed"] in result["seeds"]:
                runs.setdefault(run["method"], []).append(run)
        return cls(result, runs, pool)

    @functools.cached_property
    def belief(self) -> Posterior:
        """Posterior of a profile with these counts."""
        counts = self.pool["successes"]
        successes = np.repeat(np.arange(len(counts)), counts)
        ids = tuple(map(str, range(len(successes))))
        samples = np.full(len(ids), self.samples)
        return Posterior.of(Profile(ids=ids, samples=samples, successes=successes))

    @property
    def samples(self) -> int:
        """N of the profile."""
        return len(self.pool["successes"]) - 1

    @functools.cached_property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Success rates that stand for the pool, and their shares."""
        profile = self.belief.profile
        return theory.fit_prior(profile.successes, profile.samples).nodes()

    def mean(self, method: str, value: Callable[[Any], float]) -> float:
        """Mean of a number over a method's runs."""
        return float(np.mean([value(run) for run in self.runs[method]]))

    def visits(self, method: str) -> float:
        """Groups of 8 per question, in a whole run."""
        rollouts = self.mean(method, lambda x: x["ledger"]["generation"]["rollouts"])
        return rollouts / GROUP / len(self.belief)

    def visits_to_target(self, method: str) -> float:
        """Groups per question where a method without a profile reaches the target."""
        flops, success = (
            np.mean([run[key] for run in self.runs[method]], axis=0)
            for key in ("flops", "eval/success")
        )
        curve = report.Curve(
            steps=np.arange(len(flops)),
            flops=flops,
            repeated=flops,
            success=success,
            low=None,
            high=None,
        )
        spent = curve.cost_of(self.result["targets"][PLACE]) / flops[-1]
        return spent * self.visits(method)

    def cost(self, method: str) -> theory.GroupCost:
        """Cost of a group, training as the method's ledger has it."""
        spent = {
            phase: self.mean(method, lambda x, p=phase: x["ledger"][p]["flops"])
            for phase in ("training", "generation")
        }
        live = 1 - self.mean(method, lambda x: x["no_signal"])
        return theory.GroupCost(
            group_size=GROUP,
            prompt=self.pool["prompt"],
            training=spent["training"]
            / spent["generation"]
            / (1 if method == "grpo_token" else live),
        )

    def predict(self, method: str, *, free: bool = False) -> theory.Progress:
        """Progress by the model."""
        rate, share = self.rates
        mixed = mixed_share(rate, share)
        cost = self.cost(method)
        if method in ("grpo_token", "grpo_thin"):
            return theory.drawn_uniformly(
                VISITS, mixed, cost=cost, drop_dead=method == "grpo_thin"
            )
        if method in PLANNED:
            prompts = PLANNED[method]().prompts
            plan = planning.make_plan(
                self.belief,
                filter=prompts.filter,
                allocate=prompts.allocate,
                curriculum=prompts.curriculum,
            )
            kept = {int(id_) for phase in plan.phases for id_ in phase.ids}
            rows = np.array(sorted(kept))
            dead = self.belief.rows(rows).dead(np.full(len(rows), GROUP)).mean()
            made = theory.drawn_from_profile(
                LONGER, mixed, 1 - float(dead), cost=cost, samples=self.samples
            )
        else:
            samples = self.samples if method == "drawn" else 0
            made = theory.drawn_by_belief(
                VISITS, rate, share, cost=cost, samples=samples
            )
        if not free:
            return made
        return dataclasses.replace(made, units=made.units - made.units[0])

    def live(self) -> list[dict[str, Any]]:
        """Share of groups with signal over a whole run, predicted and measured."""
        rows = []
        for method in ("grpo_token", "drawn_flat", "drawn"):
            made, visits = self.predict(method), self.visits(method)
            rows.append(
                {
                    "method": method,
                    "visits": visits,
                    "predicted": np.interp(visits, made.visits, made.signal) / visits,
                    "measured": 1 - self.mean(method, lambda x: x["no_signal"]),
                }
            )
        return rows

    def factors(self) -> list[dict[str, Any]]:
        """Compute of one method over that of another, predicted and measured."""
        savings, rows = self.result["savings"], []
        for before, after, free in PAIRS:
            name = after + FREE_SUFFIX if free else after
            if not {before, name} <= savings.keys():
                continue  # not run on this testbed
            first, second = (savings[x][PLACE]["value"] for x in (before, name))
            visits = self.visits_to_target(before)
            saving = self.predict(after, free=free).saving_over(self.predict(before))
            rows.append(
                {
                    "before": before,
                    "after": name,
                    "visits": visits,
                    "predicted": np.interp(visits, VISITS[1:], saving[1:]),
                    "measured": second / first if second else None,
                }
            )
        return rows


def check(headline: Mapping[str, Any], pools: Mapping[str, Any]) -> dict[str, Any]:
    """Predictions against measurements on every testbed."""
    found = {}
    for name, counts in pools.items():
        testbed = Measured.of(name, headline, counts)
        rate, share = testbed.rates
        mixed = mixed_share(rate, share)
        found[name] = {
            # The share without signal of a pool of the map with as many mixed groups.
            "dead": 1 - mixed / mixed_share(*pool(0.0)),
            "visits": testbed.visits("grpo_thin"),
            "live": testbed.live(),
            "factors": testbed.factors(),
        }
    return json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 4))


def errors(checked: Mapping[str, Any], part: str) -> np.ndarray:
    """Logarithms of predicted over measured."""
    rows = [row for testbed in checked.values() for row in testbed[part]]
    return np.array(
        [math.log(x["predicted"] / x["measured"]) for x in rows if x["measured"]]
    )
