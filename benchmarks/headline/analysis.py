"""Compute to a target, accuracy at equal compute, paired bootstrap, power.

Curves are averaged over seeds, at equal steps, before anything is read off them: the
ratio of two noisy crossings is far noisier than the crossing of two means. A bootstrap
replicate draws seeds with replacement and, within each, held-out questions; all methods
share the draw, since they start from the same policy and answer the same questions.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sgpo_jax import report

SHARES = report.SHARES
AVERAGED_SUFFIX = ", averaged parameters"
"""Marks the runs of a method, averages of its parameters evaluated in their place."""
LIVE_SUFFIX = ", dead groups left out"
"""Marks the runs of a method, charged without responses of advantage 0."""
ORACLE_SUFFIX = ", no dead group sampled"
"""Marks the runs of a method, charged without the rollouts of groups without signal."""
FREE_SUFFIX = ", profile for free"
"""Marks the runs of a method, charged without the profile: as if one was at hand."""
NORMAL = 1.96


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of one method on one testbed, a seed each, evaluated at the same steps.

    Attributes:
      flops: total compute at each evaluation, [S, E].
      success: success of each held-out question, [S, E, Q].
    """

    flops: np.ndarray
    success: np.ndarray

    def __post_init__(self):
        if self.flops.shape != self.success.shape[:2]:
            raise ValueError(
                f"flops {self.flops.shape} and success {self.success.shape} must agree"
                " in seeds and evaluations"
            )

    def curve(self, draw: "Draw | None" = None) -> report.Curve:
        """Mean curve over seeds and questions, or over a bootstrap draw of them."""
        if draw is None:
            flops, success = self.flops.mean(0), self.success.mean((0, 2))
        else:
            flops = self.flops[draw.seeds].mean(0)
            parts = zip(draw.seeds, draw.weights, strict=True)
            each = [self.success[seed] @ weight for seed, weight in parts]
            success = np.mean(each, axis=0)
        return report.Curve(
            steps=np.arange(len(flops)),
            flops=flops,
            repeated=flops,
            success=success,
            low=None,
            high=None,
        )

    def seed(self, s: int) -> "Runs":
        """Runs of one seed alone."""
        return Runs(flops=self.flops[s : s + 1], success=self.success[s : s + 1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """A bootstrap draw: seeds [S], and a weight per question of each [S, Q]."""

    seeds: np.ndarray
    weights: np.ndarray


def draws(
    shape: tuple[int, int], count: int, *, seed: int = 0, fixed_seeds: bool = False
) -> Iterator[Draw]:
    """Bootstrap draws for S seeds of Q questions; of questions only, if so asked."""
    rng = np.random.default_rng(seed)
    seeds, questions = shape
    for _ in range(count):
        drawn = rng.integers(seeds, size=seeds)
        yield Draw(
            seeds=np.arange(seeds) if fixed_seeds else drawn,
            weights=rng.multinomial(
                questions, np.full(questions, 1 / questions), size=seeds
            )
            / questions,
        )


def costs(curves: Mapping[str, report.Curve], baseline: str) -> dict[str, np.ndarray]:
    """Compute at which each method reaches the shares of the baseline's gain.

    NaN if the baseline gained nothing, infinite where a method never gets there.
    """
    smooth = curves[baseline].smooth()
    gain = smooth.max() - smooth[0]
    targets = [smooth[0] + share * gain for share in SHARES]
    return {
        name: np.array([curve.cost_of(t) if gain > 0 else np.nan for t in targets])
        for name, curve in curves.items()
    }


def at_equal_compute(baseline: report.Curve, other: report.Curve) -> float:
    """Success of the other less that of the baseline, where the first of them ends."""
    where = min(baseline.flops[-1], other.flops[-1])
    ours, theirs = (
        np.interp(where, curve.flops, curve.smooth()) for curve in (other, baseline)
    )
    return float(ours - theirs)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Compute over compute; 0 where the denominator's method never gets there.

    Where only the numerator's method fails it is infinite; where both do, 1.
    """
    both = np.isinf(above) & np.isinf(below)
    with np.errstate(invalid="ignore"):
        return np.where(both, 1.0, above / below)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95 % percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, replicates: Sequence[float]) -> "Interval":
        x = np.asarray(replicates)
        # Infinities sort as they should; interpolation between them would not.
        low, high = np.nanpercentile(x, [2.5, 97.5], method="nearest")
        return cls(value=float(value), low=float(low), high=float(high))

    @property
    def excludes_one(self) -> bool:
        return self.low > 1 or self.high < 1


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Costs and equal-compute differences of all methods, with their replicates."""

    runs: Mapping[str, Runs]
    baseline: str
    count: int = 1000
    fixed_seeds: bool = False

    @functools.cached_property
    def curves(self) -> dict[str, report.Curve]:
        return {name: runs.curve() for name, runs in self.runs.items()}

    @functools.cached_property
    def _replicates(self) -> list[dict[str, report.Curve]]:
        seeds, _, questions = self.runs[self.baseline].success.shape
        drawn = draws((seeds, questions), self.count, fixed_seeds=self.fixed_seeds)
        return [
            {name: runs.curve(draw) for name, runs in self.runs.items()}
            for draw in drawn
        ]

    @functools.cached_property
    def _costs(self) -> list[dict[str, np.ndarray]]:
        return [costs(curves, self.baseline) for curves in self._replicates]

    def saving(self, before: str, after: str) -> list[Interval]:
        """Compute of `before` over that of `after` at each share of the gain."""
        value = costs(self.curves, self.baseline)
        ratio = _ratio(value[before], value[after])
        each = np.array([_ratio(x[before], x[after]) for x in self._costs])
        return [Interval.of(r, each[:, i]) for i, r in enumerate(ratio)]

    def difference(self, name: str) -> Interval:
        """Success less the baseline's at equal compute."""
        return Interval.of(
            at_equal_compute(self.curves[self.baseline], self.curves[name]),
            [at_equal_compute(x[self.baseline], x[name]) for x in self._replicates],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Power:
    """Noise of the log of a saving, and what resolves a factor.

    Attributes:
      total: standard deviation between seeds, pooled over methods.
      questions: the part of it that the choice of questions makes, for one seed.
      count: questions of a seed.
      degrees: degrees of freedom of `total`.
    """

    total: float
    questions: float
    count: int
    degrees: int

    def half_width(self, seeds: int) -> float:
        """Half of the 95 % interval of the log of a saving, over so many seeds."""
        return NORMAL * self.total / seeds**0.5

    def seeds(self, factor: float, questions: int | None = None) -> int:
        """Seeds whose interval is no wider than a factor, with so many questions."""
        count = questions or self.count
        run = max(self.total**2 - self.questions**2, 0.0)
        variance = run + self.questions**2 * self.count / count
        return max(2, int(np.ceil(NORMAL**2 * variance / np.log(factor) ** 2)))


def power(
    runs: Mapping[str, Runs], baseline: str, *, place: int = 1, count: int = 200
) -> Power | None:
    """Estimate the noise of a saving at one of `SHARES`; None from a single seed."""
    seeds, _, questions = runs[baseline].success.shape
    if seeds < 2:
        return None
    between: list[float] = []
    within: list[float] = []
    for name in runs.keys() - {baseline}:
        pair = {key: runs[key] for key in (baseline, name)}
        logs = []
        for s in range(seeds):
            alone = {key: value.seed(s) for key, value in pair.items()}
            booted = Bootstrap(alone, baseline, count=count, fixed_seeds=True)
            value = costs(booted.curves, baseline)
            with np.errstate(divide="ignore", invalid="ignore"):
                logs.append(np.log(value[baseline][place] / value[name][place]))
                each = [
                    np.log(x[baseline][place] / x[name][place]) for x in booted._costs
                ]
            each = np.array(each)[np.isfinite(each)]
            if len(each) > count // 2:
                within.append(float(np.var(each)))
        if np.isfinite(logs).all():
            between.append(float(np.var(logs, ddof=1)))
    if not between or not within:
        return None
    return Power(
        total=float(np.mean(between)) ** 0.5,
        questions=float(np.median(within)) ** 0.5,
        count=questions,
        degrees=len(between) * (seeds - 1),
    )
