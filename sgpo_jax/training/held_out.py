"""Metrics of an evaluation in the middle of training, and a line of them."""

from collections.abc import Callable, Sequence

from sgpo_jax.data import Query
from sgpo_jax.rollouts import RewardedRollouts, SampleAndScore
from sgpo_jax.training.copies import with_copy
from sgpo_jax.training.evaluation import evaluate, evaluate_exact
from sgpo_jax.training.exact import ReferenceScorer
from sgpo_jax.training.progress import Metrics, TrainProgress


def held_out_metrics(
    rollouts: SampleAndScore,
    queries: Sequence[Query],
    progress: TrainProgress,
    *,
    samples: int,
    keep: Callable[[Sequence[Query], RewardedRollouts], None] | None = None,
    scorer: ReferenceScorer | None = None,
) -> Metrics:
    """Evaluate on held-out queries; the cost stands apart from the method's.

    Args:
      rollouts: sampler and verifiers.
      queries: held-out queries; without any, only the compute spent is returned.
      progress: what was trained; its ledger takes the cost.
      samples: samples per query.
      keep: is given the queries and their scored samples; None for nothing.
      scorer: of these queries, for their exact success rates in place of samples.
    """
    found: Metrics = {}
    if queries:
        params = progress.train.params
        if scorer is not None:
            result = evaluate_exact(scorer, params)
        else:
            result = evaluate(rollouts, params, queries, samples=samples, keep=keep)
        progress.ledger.add("evaluation", result.cost)
        found = {
            "eval/success": result.mean,
            "eval/reward": result.reward,
            "eval/low": result.low,
            "eval/high": result.high,
        }
        if "averaged" in progress.copies:
            params = with_copy(progress.train, progress.copies["averaged"])
            if scorer is not None:
                other = evaluate_exact(scorer, params)
            else:
                other = evaluate(rollouts, params, queries, samples=samples)
            progress.ledger.add("evaluation", other.cost)
            found["eval/success_averaged"] = other.mean
    return found | compute_spent(progress)


def compute_spent(progress: TrainProgress) -> Metrics:
    """Compute so far as metrics: the ledger, its total, and two totals beside it."""
    spent = progress.ledger
    return {
        "ledger": spent.to_json(),
        "total_flops": spent.total.flops,
        "total_flops_repeated": spent.total_repeated,
        "total_flops_live": spent.total_live,
    }


def headline(metrics: Metrics) -> str:
    """One line of a step's metrics, for progress bars.

    >>> headline({"reward": 0.5, "frac_no_signal": 0.25, "eval/success": 0.4})
    'reward 0.500 no signal 0.25 held-out 0.400'
    """
    words = []
    if "reward" in metrics:
        words.append(f"reward {metrics['reward']:.3f}")
        words.append(f"no signal {metrics['frac_no_signal']:.2f}")
    if "eval/success" in metrics:
        words.append(f"held-out {metrics['eval/success']:.3f}")
    return " ".join(words)
