"""Names of metrics and what each one measures."""

from collections.abc import Iterable

METRICS = {
    # What was sampled.
    "reward": "mean reward of the step's scored rollouts",
    "success": "share of rollouts that solve their query",
    "success_initial": "success of the initial policy on the prompts, by the profile",
    "collapse": "standard errors below that; only where success has collapsed",
    "unscorable": "share of rollouts without a reward; they are not trained on",
    "frac_reward_zero_std": "share of groups whose rewards are all equal",
    "frac_advantage_zero": "share of trained groups whose advantages are all 0",
    "frac_no_signal": "share of sampled groups dropped, or of advantage 0 throughout",
    "completions/mean_length": "mean response length, tokens",
    "completions/clipped_ratio": "share of responses cut by the token budget",
    "rollouts": "rollouts sampled",
    "queries": "groups sampled",
    "trained": "rollouts with a backward pass",
    "phase": "phase of the curriculum, from 0",
    "rounds": "rounds of sampling, more than 1 where groups were refilled",
    "reward/hacking_": "share of solved completions that look hacked, by sign",
    "reward/": "mean of one verifier of a weighted sum",
    # The update; means over the step's updates.
    "loss": "objective, KL penalty and entropy bonus",
    "grad_norm": "global norm of the gradient before clipping",
    "skipped": "updates skipped in a row because something was not finite",
    "entropy": "entropy of the policy per token, nats",
    "kl": "divergence from the reference policy, nats, by the method's estimator",
    "kl_old": "divergence from the policy before the step, nats per token (k3)",
    "clip_ratio/low": "share of tokens below the lower clipping bound",
    "clip_ratio/high": "share of tokens above the upper clipping bound",
    "correction/": "importance weights between sampler and trainer",
    "sampler_gap": "mean |log-probability in training - in sampling| per token, nats",
    "policy_drift": "mean |change of log-probability| by the step, nats per token",
    "log_z": "mean learnt log-normalizer of the prompts, nats",
    # Shapes and compilation.
    "padding": "share of padding among packed tokens",
    "prefix_sharing": "tokens without prefix sharing over tokens with it",
    "compiles": "training programs compiled so far",
    # Seconds and throughput.
    "step_time_sec": "seconds of the step, without evaluation and saving",
    "time/": "seconds of a part of the step",
    "tokens_per_sec/": "tokens per second of sampling or training",
    "mfu/": "share of the devices' peak operations, where the peak is known",
    "sampler/occupancy": "share of slot-steps of the sampler that gave a token",
    "queue/sample": "samples that waited for a slot, mean over decode steps",
    "queue/score": "completions that waited for a verifier, mean over the scoring",
    "goodput": "share of the run's wall time spent in steps that were kept",
    # Evaluation.
    "eval/success": "held-out success at the sampler's temperature",
    "eval/reward": "mean held-out reward",
    "eval/low": "lower end of the 95 % interval of held-out success",
    "eval/high": "upper end of that interval",
    "eval/collapse": "standard errors below the initial policy, where it has collapsed",
    "eval/success_averaged": "held-out success of the averaged parameters",
    "ledger": "compute spent so far by phase, as `ledger.Ledger` writes it",
    "total_flops": "operations so far, profiling included, evaluation not",
    "total_flops_repeated": "the same, had training encoded the prompt per response",
    "total_flops_live": "the same, had training left out responses of advantage 0",
}
"""Meaning of each metric; a name that ends in / or _ stands for those it begins."""


def undocumented(names: Iterable[str]) -> list[str]:
    """Return the names that `METRICS` does not explain.

    >>> undocumented(["reward", "time/pack", "rewrad"])
    ['rewrad']
    """
    families = tuple(name for name in METRICS if name.endswith(("/", "_")))
    return sorted(x for x in names if x not in METRICS and not x.startswith(families))
