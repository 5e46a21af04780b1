"""What cutting responses in training can save: variance of the gradient by position.

    python benchmarks/prefix_cuts.py --runs runs/headline/worked-steps/grpo_token/seed0

Training on a random prefix of each response, its tokens weighted by one over the
probability that the prefix reaches them, leaves the gradient unbiased (NAT,
arXiv:2603.06619). With g_t the gradient of the log-probability of token t, the
gradient of a response of advantage A is A (g_1 + ... + g_L). Given what stands before
it the mean of g_t over the policy is 0, so different positions are not correlated:
their variances add up, and those of a cut response are divided by the probabilities
p_1 >= p_2 >= ... of its tokens,

    noise(p) = sum_t n_t v_t / p_t,   v_t = E[A^2 |g_t|^2],

for n_t responses that reach position t. Where a gradient is nearly all noise, compute
is needed in proportion to cost(p) noise(p), and

    saving(p) = cost(1) noise(1) / (cost(p) noise(p)),   cost(p) = c + k sum_t n_t p_t.

With equal v_t no p saves anything (Cauchy-Schwarz): a cut pays only where late tokens
have smaller gradients. The best cut has the p that saves most; NAT's is uniform over
a response, whose first quarter is always kept here. "Uncorrelated" is the variance of
whole responses over the sum of those of their tokens: 1 without correlation.
Responses are those of groups with signal; on worked-steps they are shorter than most.

--runs are run folders with their policies, of `benchmarks.headline`. Writes
benchmarks/results/prefix_cuts.md and .json.
"""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sgpo_jax import ledger, losses, models, pipeline, rewards
from sgpo_jax.commands.options import experiment
from sgpo_jax.pipeline import saved

RESULTS = pathlib.Path(__file__).parent / "results"
GROUP = 8


@functools.partial(jax.jit, static_argnames="config")
def squares(params, config, tokens, positions, start, length):
    """Squared norms of the gradients of a response's tokens, and of their sum.

    Args:
      params: of the policy.
      config: of the policy.
      tokens: prompt and response, padded, [1, L].
      positions: of the tokens, [1, L].
      start: place of the first response token.
      length: tokens of the response.
    """

    def log_probs(params):
        hidden, _ = models.apply(params, config, tokens, positions, models.causal)
        found = losses.token_log_probs(
            hidden[0, :-1], models.unembedding(params, config), tokens[0, 1:]
        )
        place = jnp.arange(tokens.shape[1] - 1) - (start - 1)
        return jnp.where((place >= 0) & (place < length), found.log_prob, 0.0)

    value, pull = jax.vjp(log_probs, params)

    def norm(seed):
        (gradient,) = pull(seed)
        return sum(jnp.vdot(x, x) for x in jax.tree.leaves(gradient))

    each = jax.lax.map(norm, jnp.eye(len(value), dtype=value.dtype), batch_size=16)
    return each, norm(jnp.ones_like(value))


def variances(run, params, queries) -> dict:
    """Mean A^2 |g_t|^2 by position, how many responses get there, and costs."""
    session = run.session
    config, tokenizer = session.rollouts.config, session.tokenizer
    scored = session.rollouts(params, queries, [GROUP] * len(queries), step=1)
    drawn = scored.rollouts
    deviation = standardized(scored.rewards, drawn.request, len(queries))
    used = np.flatnonzero(deviation)
    prompts = [tokenizer.encode_prompt(query.turns) for query in queries]
    width = max(map(len, prompts)) + int(drawn.length.max())
    total, whole = np.zeros(int(drawn.length.max())), 0.0
    cut = {"tokens": 0.0, "variance": 0.0}
    params = jax.tree.map(np.asarray, params)
    for row in used.tolist():
        prompt, length = prompts[drawn.request[row]], int(drawn.length[row])
        line = np.zeros((1, width), np.int32)
        line[0, : len(prompt)] = prompt
        line[0, len(prompt) : len(prompt) + length] = drawn.tokens[row, :length]
        place = np.arange(width, dtype=np.int32)[None]
        each, both = squares(params, config, line, place, len(prompt), length)
        own = np.asarray(each, np.float64)[len(prompt) - 1 :][:length]
        total[:length] += deviation[row] ** 2 * own
        whole += deviation[row] ** 2 * float(both)
        cut["tokens"] += uniform(length).sum()
        cut["variance"] += deviation[row] ** 2 * float((own / uniform(length)).sum())
    lengths = drawn.length[used].astype(int)
    reach = (lengths[:, None] > np.arange(len(total))).sum(0)
    spent = scored.cost.flops * len(used) / len(drawn.length)
    spent += ledger.training_flops(
        config,
        tokens=sum(len(prompts[i]) for i in np.unique(drawn.request[used])),
        pairs=0,
        logits=0,
    )
    token = ledger.training_flops(config, tokens=1, pairs=0, logits=1)
    kept = reach > 0
    return {
        "responses": len(used),
        "mean_length": float(lengths.mean()),
        "reach": reach[kept].tolist(),
        "variance": (total[kept] / reach[kept]).tolist(),
        "uniform_cut": cut,
        "uncorrelated": whole / float(total.sum()),
        "fixed_flops": float(spent),
        "token_flops": float(token),
    }


def standardized(rewards_: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Standardized rewards of groups, 0 in dead ones, [R]."""
    mean = np.bincount(group, rewards_, count) / np.bincount(group, minlength=count)
    centred = rewards_ - mean[group]
    square = np.bincount(group, centred**2, count)
    deviation = np.sqrt(square / np.bincount(group, minlength=count))[group]
    return np.where(deviation > 0, centred / np.where(deviation > 0, deviation, 1), 0)


def saving(found: dict, tokens: float, variance: float) -> float:
    """Compute for a signal over that with fewer tokens and more variance."""
    n, v = np.array(found["reach"]), np.array(found["variance"])
    c, k = found["fixed_flops"], found["token_flops"]
    return float((c + k * n.sum()) * (n @ v) / ((c + k * tokens) * variance))


def decreasing(n: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Root mean variances of blocks, pooled until they do not increase.

    For each price of a token the best probabilities under p_1 >= p_2 >= ... are
    these times a factor, cut at 1.

    >>> decreasing(np.array([1, 1, 1]), np.array([1.0, 9.0, 4.0])).tolist()
    [2.23606797749979, 2.23606797749979, 2.0]
    """
    blocks: list[list[float]] = []
    for count, value in zip(n, v, strict=True):
        blocks.append([count, count * value, 1])
        while len(blocks) > 1 and (
            blocks[-2][1] / blocks[-2][0] < blocks[-1][1] / blocks[-1][0]
        ):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    return np.concatenate(
        [np.full(int(size), np.sqrt(total / count)) for count, total, size in blocks]
    )


def best(found: dict) -> tuple[float, np.ndarray]:
    """The largest saving, and its probabilities."""
    n, v = np.array(found["reach"]), np.array(found["variance"])
    root = decreasing(n, v)
    factors = np.geomspace(1 / root.max(), 1 / root[root > 0].min(), 400)
    tried = [np.clip(root * factor, 1e-3, 1.0) for factor in factors]
    savings = [saving(found, n @ p, n @ (v / p)) for p in tried]
    where = int(np.argmax(savings))
    return savings[where], tried[where]


def uniform(length: int) -> np.ndarray:
    """Probabilities that a uniform cut after the first quarter leaves each token.

    >>> uniform(4).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    always = -(-length // 4)
    place = np.arange(1, length + 1)
    return np.minimum((length + 1 - place) / (length + 1 - always), 1.0)


def row(name: str, found: dict) -> str:
    n, v = np.array(found["reach"]), np.array(found["variance"])
    middle = round(found["mean_length"] / 2)
    early = n[:middle] @ v[:middle] / (n @ v)
    gain, p = best(found)
    cut = found["uniform_cut"]
    return (
        f"| {name} | {found['responses']} | {found['mean_length']:.1f} |"
        f" {found['uncorrelated']:.2f} | {early:.2f} |"
        f" {gain:.2f} ({n @ p / n.sum():.2f}) |"
        f" {saving(found, **cut):.2f} ({cut['tokens'] / n.sum():.2f}) |"
    )


def page(found: dict) -> str:
    text = (__doc__ or "").replace("--runs are", "`--runs` are").strip()
    title, _, rest = text.partition("\n")
    lines = [
        "| policy | responses | mean length | uncorrelated | variance before half"
        " of the mean length | saving of the best cut (tokens kept) | of NAT's |",
        "|---" + "|---:" * 6 + "|",
        *(row(name, one) for name, one in found["policies"].items()),
    ]
    parts = [f"# {title.rstrip('.')}", rest.strip("\n"), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def measured(folders: Sequence[pathlib.Path], prompts: int) -> dict:
    """Measure the policies of run folders."""
    policies = {}
    for folder in folders:
        known = experiment("run", ["--out", str(folder)])
        with rewards.Worker() as worker:
            run = pipeline.open_run(known, worker)
            for name in ("initial", next(iter(known.methods))):
                params = saved.saved_params(run, name)
                label = f"{folder.parent.parent.name}, {name}"
                policies[label] = variances(run, params, run.train[:prompts])
                print(row(label, policies[label]), flush=True)
    return {"prompts": prompts, "policies": policies}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/prefix_cuts.py")
    parser.add_argument("--runs", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--prompts", type=int, default=96)
    args = parser.parse_args()
    out = RESULTS / "prefix_cuts.json"
    if args.runs:
        out.write_text(json.dumps(measured(args.runs, args.prompts), indent=1) + "\n")
    out.with_suffix(".md").write_text(page(json.loads(out.read_text())))


if __name__ == "__main__":
    sys.exit(main())
