"""Sets to profile next: a flow network against simple choices."""

import time

import numpy as np
from scipy import special

from sgpo_jax.profiling import (
    BatchFlow,
    GreedyInformation,
    LogitModel,
    MostUncertain,
    RandomBatch,
    Stratified,
    auc,
)

from . import real

SEEDS, POOL, SIZES = 8, 100, (8, 16)
FLOW = BatchFlow()
CHOICES = {
    "random": RandomBatch(),
    "stratified": Stratified(),
    "most uncertain": MostUncertain(),
    "greedy information": GreedyInformation(),
}


def world(seed):
    """Clusters of unequal size in 8 dimensions; log-odds drawn from the model."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(12, 8))
    home = rng.choice(12, size=POOL, p=rng.dirichlet(np.full(12, 0.7)))
    features = centers[home] + 0.3 * rng.normal(size=(POOL, 8))
    # A rough guess of each log-odds, as another policy's profile would give.
    prior = rng.normal(scale=1.0, size=12)[home] + rng.normal(scale=0.5, size=POOL)
    model = LogitModel.of(features, mean=prior, std=1.5)
    root = np.linalg.cholesky(model.covariance + 1e-9 * np.eye(POOL))
    rate = special.expit(model.mean + root @ rng.normal(size=POOL))
    return model, rate, rng.binomial(model.samples, rate)


def real_world(folder):
    profile, features, _ = real.load(folder)
    # The leading directions; 2 D of them are noise to a kernel.
    x = features - features.mean(0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    x = x @ axes[:8].T
    known = profile.successes.sum() / profile.samples.sum()

    def make(seed):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(profile))[:POOL]
        model = LogitModel.of(x[rows], mean=float(special.logit(known)), std=2.5)
        k, n = profile.successes[rows], profile.samples[rows]
        seen = rng.hypergeometric(k, n - k, model.samples)
        return model, (k - seen) / (n - model.samples), seen

    return make


def one(rows, seconds, made):
    """Score a set by its information and by what it tells of the other queries."""
    model, rate, counts = made
    rest = np.setdiff1d(np.arange(POOL), rows)
    mean, variance = model.posterior(rows, counts[rows])
    predicted = model.rate(mean, variance)[rest]
    true = rate[rest]
    loss = -(true * np.log(predicted) + (1 - true) * np.log1p(-predicted)).mean()
    return {
        "information": model.information(rows),
        "log_loss": loss,
        "error": np.abs(predicted - true).mean(),
        "auc_half": auc(predicted, true > 0.5),
        "seconds": seconds,
    }


def sets(made, size, seed):
    """Return the sets of all choices, with their seconds; the flow is trained once."""
    model = made[0]
    found = {}
    for name, choice in CHOICES.items():
        start = time.perf_counter()
        rows = choice(model, size, seed=seed)
        found[name] = (rows, time.perf_counter() - start)
    start = time.perf_counter()
    flow = FLOW.train(model, size, seed=seed)
    drawn, information = FLOW.draw(flow, model, size, FLOW.draws, seed=seed)
    seconds = time.perf_counter() - start
    found["flow network, one draw"] = (drawn[0], seconds)
    best = drawn[information.argmax()]
    found[f"flow network, best of {FLOW.draws}"] = (best, seconds)
    return found


def run(folder):
    worlds = {"simulated": world}
    if folder is not None:
        worlds["real profile"] = real_world(folder)
    rows = []
    for place, make in worlds.items():
        for size in SIZES:
            scores: dict = {}
            for seed in range(SEEDS):
                made = make(seed)
                for name, (chosen, seconds) in sets(made, size, seed).items():
                    scores.setdefault(name, []).append(one(chosen, seconds, made))
            for name, found in scores.items():
                table = np.array([[*f.values()] for f in found])
                error = table.std(0, ddof=1) / SEEDS**0.5
                rows.append(
                    {
                        "world": place,
                        "size": size,
                        "choice": name,
                        **dict(zip(found[0], table.mean(0).tolist(), strict=True)),
                        **{
                            f"{key}_error": value
                            for key, value in zip(found[0], error.tolist(), strict=True)
                        },
                    }
                )
    return rows


def markdown(rows):
    lines = [
        "## Which queries to profile next",
        "",
        f"Sets out of {POOL} queries, 8 samples each; the others are predicted by the"
        f" logistic-normal model (Laplace). Means of {SEEDS} worlds ± standard error."
        " information: joint mutual information of the set's outcomes and all log-odds,"
        " nats. log loss, absolute error and AUC are of the queries outside the set.",
        "",
        "| world | set | choice | information | log loss | error"
        " | AUC rate above half | seconds |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r['world']} | {r['size']} | {r['choice']} | {r['information']:.2f} ±"
            f" {r['information_error']:.2f} | {r['log_loss']:.4f} ±"
            f" {r['log_loss_error']:.4f} | {r['error']:.4f} | {r['auc_half']:.3f} |"
            f" {r['seconds']:.2f} |"
        )
    return [*lines, ""]


def plot(rows, path):
    from matplotlib.figure import Figure

    worlds = list(dict.fromkeys(r["world"] for r in rows))
    figure = Figure(figsize=(5.5 * len(worlds), 3.9), layout="constrained")
    axes_of = figure.subplots(1, len(worlds), squeeze=False)[0]
    for axes, place in zip(axes_of, worlds, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        for size, marker in zip(SIZES, "os", strict=True):
            mine = [r for r in rows if (r["world"], r["size"]) == (place, size)]
            for i, r in enumerate(mine):
                label = r["choice"] if size == SIZES[0] else None
                axes.errorbar(
                    r["information"], r["log_loss"], r["log_loss_error"],
                    r["information_error"], marker=marker, color=f"C{i}", label=label,
                )  # fmt: skip
        axes.set_title(f"{place}: sets of {SIZES[0]} (circles) and {SIZES[1]}")
        axes.set_xlabel("joint mutual information, nats")
    axes_of[0].set_ylabel("log loss of the other queries")
    figure.legend(
        *axes_of[0].get_legend_handles_labels(),
        loc="outside lower center", ncols=3, frameon=False, fontsize=8,
    )  # fmt: skip
    figure.savefig(path, dpi=110)
