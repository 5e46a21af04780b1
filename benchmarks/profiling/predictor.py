"""Gaussian discriminant analysis of hidden states: success that was not sampled."""

import numpy as np

from sgpo_jax.profiling import (
    Given,
    Posterior,
    Predictor,
    auc,
    split_samples,
)
from sgpo_jax.theory import BetaMixture, fit_prior

from . import real

SEEDS, SAMPLES = 5, 8


def log_score(belief, k, n):
    return float(np.mean(belief.log_evidence(k, n)))


def calibration_error(predicted, k, n):
    """Mean |predicted - observed| over ten bins of equal size."""
    order = np.argsort(predicted)
    parts = np.array_split(order, 10)
    gaps = [abs(predicted[p].mean() - k[p].sum() / n[p].sum()) for p in parts]
    return float(np.mean(gaps))


def by_level(queries, fit, k, n):
    """Mean success of family and level in the profiled share: what metadata tells."""
    sums: dict = {}
    for row, solved, count in zip(fit, k, n, strict=True):
        key = (queries[row].family, queries[row].level)
        a, b = sums.get(key, (0, 0))
        sums[key] = (a + solved, b + count)
    total = k.sum() / n.sum()
    found = [sums.get((q.family, q.level), (0, 0)) for q in queries]
    return np.array([(a + total) / (b + 1) for a, b in found])


def run(folder):
    if folder is None:
        raise SystemExit("predictor needs --run FOLDER with a profile")
    whole, features, queries = real.load(folder)
    rows = []
    for share in (0.05, 0.1, 0.2, 0.4):
        scores = [one(whole, features, queries, share, seed) for seed in range(SEEDS)]
        for name in scores[0]:
            table = np.array([[*score[name].values()] for score in scores])
            keys = list(scores[0][name])
            mean, error = table.mean(0), table.std(0, ddof=1) / SEEDS**0.5
            rows.append(
                {
                    "share": share,
                    "predictor": name,
                    "queries": len(whole),
                    **dict(zip(keys, mean.tolist(), strict=True)),
                    **{
                        f"{k}_error": e
                        for k, e in zip(keys, error.tolist(), strict=True)
                    },
                }
            )
    return rows


def one(whole, features, queries, share, seed):
    """Fit on `share` of the queries at 8 samples; test on all samples of the others."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(whole))
    count = int(share * len(whole))
    fit, rest = order[:count], order[count:]
    seen, _ = split_samples(whole.rows(fit), SAMPLES, seed=seed)
    k, n = whole.successes[rest], whole.samples[rest]
    solved = k > 0
    predictor = Predictor.fit(features[fit], seen)
    beliefs = {
        "none (pool's prior)": fit_prior(seen.successes, seen.samples),
        "hidden states": predictor.belief(features[rest]),
    }
    level = by_level(queries, fit, seen.successes, seen.samples)[rest]
    level = np.clip(level, 1e-3, 1 - 1e-3)
    beliefs["family and level"] = BetaMixture(
        alpha=predictor.strength * level, beta=predictor.strength * (1 - level)
    )
    found = {}
    for name, belief in beliefs.items():
        mean = np.broadcast_to(belief.mean, len(rest))
        learnable = (k > 0) & (k / n <= 0.75)
        skipped = np.broadcast_to(belief.cdf(0.02) > 0.5, len(rest))
        # Two samples of the others, with the belief as prior.
        few, left = split_samples(whole.rows(rest), 2, seed=seed)
        after = Posterior.of(few, Given(mixture=belief))
        found[name] = {
            "auc_solved": auc(mean, solved),
            "auc_half": auc(mean, k / n > 0.5),
            "calibration_error": calibration_error(mean, k, n),
            "log_score": log_score(belief, k, n),
            "brier": float(np.mean((mean - k / n) ** 2)),
            "skipped": float(skipped.mean()),
            "skipped_learnable": float(
                (skipped & learnable).sum() / max(learnable.sum(), 1)
            ),
            "brier_two_samples": float(
                np.mean((after.mean - left.successes / left.samples) ** 2)
            ),
        }
    return found


def markdown(rows):
    lines = [
        "## Success predicted from hidden states",
        "",
        f"{rows[0]['queries']:,} questions of a real profile (32 samples each). A"
        f" share is profiled with {SAMPLES} samples; the others are predicted and"
        f" tested on all their samples. Means of {SEEDS} splits ± standard error."
        " skipped: would not be profiled, since the predictor is more than half sure of"
        " a rate up to 0.02; wrongly: share of all learnable questions among them.",
        "",
        "| share | predictor | AUC ever solved | AUC rate above half"
        " | calibration error | log score | Brier | with 2 samples | skipped"
        " | wrongly |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r['share']:.0%} | {r['predictor']} | {r['auc_solved']:.3f} ±"
            f" {r['auc_solved_error']:.3f} | {r['auc_half']:.3f} |"
            f" {r['calibration_error']:.3f} | {r['log_score']:.3f} | {r['brier']:.3f} |"
            f" {r['brier_two_samples']:.3f} | {r['skipped']:.1%} |"
            f" {r['skipped_learnable']:.1%} |"
        )
    return [*lines, ""]


def plot(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    names = list(dict.fromkeys(r["predictor"] for r in rows))
    for axes, key in zip(figure.subplots(1, 2), ("auc_solved", "brier"), strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        for name in names:
            mine = [r for r in rows if r["predictor"] == name]
            axes.errorbar(
                [100 * r["share"] for r in mine], [r[key] for r in mine],
                [r[f"{key}_error"] for r in mine], marker="o", label=name,
            )  # fmt: skip
        axes.set_xlabel("share of the questions profiled, %")
    figure.axes[0].set_ylabel("AUC: ever solved")
    figure.axes[1].set_ylabel("mean squared error of the rate")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
