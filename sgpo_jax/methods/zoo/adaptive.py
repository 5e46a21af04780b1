"""Methods that decide by past rewards what to sample, how often, and what to train on.

Sizes are those of a small budget: groups of 8 where papers sample 16 to 64.
"""

from sgpo_jax import advantages, losses
from sgpo_jax.methods.advantage import (
    BaselineRelative,
    Downsampled,
    PosteriorRelative,
    Standardized,
)
from sgpo_jax.methods.continuation import ContinueMixed, UntilBalanced
from sgpo_jax.methods.method import Method, Refill
from sgpo_jax.methods.objective import ClippedSurrogate
from sgpo_jax.methods.penalty import KL
from sgpo_jax.methods.prompts import (
    ByBelief,
    DropSolved,
    KnapsackAllocation,
    Shuffled,
    SkipZeroVariance,
    ThompsonSampling,
)
from sgpo_jax.methods.subsample import (
    DropZeroAdvantage,
    LargestAdvantage,
    RussianRoulette,
)


def spo() -> Method:
    r"""Single-stream Policy Optimization (arXiv:2509.13232).

    .. math:: A = \mathrm{whiten}(R - a / (a + b)), \quad
              \rho = \mathrm{clip}(2^{-D / 0.06}, 0.875, 0.96), \\
              P(q) \propto \sqrt{m (1 - m)} + 0.05

    One response per prompt, a Beta tracker started from a profile of 8 responses at a
    strength of 8, advantages centered and scaled over the batch; clipping at 0.2 and
    0.28, 10 for negative advantages; no KL penalty.

    Deviations: D is the movement of the policy since the prompt's last visit, summed
    over updates, not the change on its own last response (`AdaptiveBetaTracker`); one
    update per batch.
    """
    return Method(
        prompts=ByBelief(group_size=1, floor=0.05),
        baseline=advantages.AdaptiveBetaTracker(),
        advantage=BaselineRelative(center=True),
        objective=ClippedSurrogate(low=0.2, high=0.28, dual=10.0),
    )


def greso() -> Method:
    r"""GRPO with Efficient Selective Rollout (GRESO, arXiv:2506.02177).

    .. math:: P(\mathrm{keep}) = \max(p_c^{\,n}, 0.01)

    for a prompt whose last n visits in a row had equal rewards; the bases p of easy and
    hard prompts start at 0.5 and follow a share of 0.25 of such groups. On DAPO's loss
    and refill, as there.

    Deviations: a streak counts equal rewards of either kind, its kind is that of the
    last visit; the further rounds are as large as the share of live groups in this step
    asks for, without the paper's factor of 1.25 and floor of 64.
    """
    return Method(prompts=SkipZeroVariance(), refill=Refill())


def speed() -> Method:
    r"""Selective prompting by a screening phase (SPEED-RL, arXiv:2506.09016).

    4 rollouts per prompt; 4 more where they are neither all right nor all wrong, the
    others are left out and refilled. RLOO, one of the losses it was shown with, is
    replaced by DAPO's; thresholds 0 and 1 as there.

    Deviations: screening and continuation are two calls of the sampler, not one call
    that screens the next batch beside the continuation of this one; no buffer between
    steps, the screened groups of a step are trained on in it.
    """
    return Method(
        prompts=Shuffled(group_size=4),
        continuation=ContinueMixed(more=4, growth=2.0),
        refill=Refill(max_rounds=3),
    )


def mopps() -> Method:
    r"""Model Predictive Prompt Selection (MoPPS, arXiv:2507.04632).

    .. math:: \gamma_q \sim \mathrm{Beta}(a_q, b_q), \quad
              \min |\gamma_q - 0.5|, \quad
              a \leftarrow \lambda a + (1 - \lambda) a_0 + s

    Thompson sampling of success rates among 8 times as many candidates, uniform prior.

    Deviations: lambda is 0.5 for every task where the paper tunes it; GRPO's token-mean
    loss.
    """
    return Method(
        prompts=ThompsonSampling(), baseline=advantages.DiscountedBetaTracker()
    )


def reinforce_ada() -> Method:
    r"""Adaptive sampling until groups are balanced (Reinforce-Ada, arXiv:2510.04996).

    .. math:: A_i = R_i - \bar R_{\mathrm{all\ drawn}}

    Rounds of 4 rollouts until a prompt has 2 right and 2 wrong ones, at most 4 rounds;
    then 4 responses, balanced where possible, are trained on with the baseline of all
    that were drawn, without division by the deviation. Clipping at 0.2 and 0.28.

    Deviations: of equal rewards the first are kept instead of random ones; the loss is
    averaged over all drawn responses, which scales the gradient.
    """
    return Method(
        prompts=Shuffled(group_size=4),
        continuation=UntilBalanced(),
        advantage=Downsampled(keep=4, over="group", standardize=False),
        subsample=DropZeroAdvantage(),
    )


def knapsack() -> Method:
    r"""Exploration budgets as a knapsack (Knapsack RL, arXiv:2509.25849).

    .. math:: \max \sum_q (1 - p^{N_q} - (1 - p)^{N_q})\, p (1 - p)^2, \quad
              \sum_q N_q = B

    with p the last pass rate; 2 to 32 rollouts of a prompt, 8 on average (the paper: up
    to 128).

    Deviations: prompts not yet visited have the mean value over all rates.
    """
    return Method(prompts=KnapsackAllocation())


def pods() -> Method:
    r"""Policy Optimization with Down-Sampling (PODS, arXiv:2504.13818).

    .. math:: S = \arg\max_{|S| = m} \mathrm{Var}(R_S), \quad
              A_i = (R_i - \bar R_S) / \sigma_S

    16 rollouts per prompt of which 4 are trained on (the paper: 64 and 16), the best
    and the worst; advantages from those kept.

    Deviations: the loss is averaged over all 16, which scales the gradient; kept groups
    of equal rewards get no backward pass.
    """
    return Method(
        prompts=Shuffled(group_size=16),
        advantage=Downsampled(keep=4),
        subsample=DropZeroAdvantage(),
        objective=ClippedSurrogate(low=0.2, high=0.2),
        aggregation=losses.PerSequence(),
    )


def pilot_commit() -> Method:
    r"""Pilots first, rollouts for prompts worth them (Pilot-Commit, arXiv:2605.26606).

    .. math:: 0.125 \le \bar R_{\mathrm{pilot}} \le 0.75

    4 pilots per prompt, 12 more where their mean is within the bounds, in the paper's
    ratio of 16 to 48; the others are dropped and refilled. A prompt whose pilots are
    all right twice in a row is dropped; the others return in the next pass.

    Deviations: no buffer across steps, hence no stale rollouts; twice in a row, since 4
    pilots are less informative than 16; a prompt set aside is deferred as a hard one
    is; every response is trained on, not a subset of largest variance.
    """
    return Method(
        prompts=DropSolved(group_size=4, after=2),
        continuation=ContinueMixed(more=12, low=0.125, high=0.75, growth=4.0),
        refill=Refill(max_rounds=3),
    )


def cppo() -> Method:
    r"""Completion Pruning Policy Optimization (CPPO, arXiv:2503.22342).

    .. math:: k = \lfloor G (1 - P) \rfloor

    Groups of 16, advantages from the whole group (1e-4 added to the deviation), only
    the 8 of largest magnitude are trained on; GRPO's loss with clipping at 0.2 and a KL
    penalty of 0.04, 2 updates per batch.

    Deviations: the room of pruned responses is not filled with further prompts; groups
    of equal rewards keep their first 8, for the KL penalty alone.
    """
    return Method(
        prompts=Shuffled(group_size=16),
        advantage=Standardized(eps=1e-4),
        subsample=LargestAdvantage(rate=0.5),
        objective=ClippedSurrogate(low=0.2, high=0.2),
        kl=KL(coef=0.04),
        aggregation=losses.PerSequence(),
        updates_per_batch=2,
    )


def tracked_posterior() -> Method:
    """`tracked_flat` with the other responses of the group in the baseline.

    The mean of the posterior without the response it judges: `PosteriorRelative`.
    """
    return Method(
        prompts=ByBelief(group_size=4),
        baseline=advantages.BetaTracker(profile_weight=0.0),
        advantage=PosteriorRelative(),
        subsample=RussianRoulette(),
    )


def belief_thin() -> Method:
    """Groups of 8 drawn by a tracked success rate, thinned without bias.

    The group's own standardized advantages; the tracker only chooses prompts. No
    profile.
    """
    return Method(
        prompts=ByBelief(group_size=8),
        baseline=advantages.BetaTracker(profile_weight=0.0),
        subsample=RussianRoulette(keep_above=1.5),
    )


METHODS = (
    spo,
    greso,
    speed,
    mopps,
    reinforce_ada,
    knapsack,
    pods,
    pilot_commit,
    cppo,
    tracked_posterior,
    belief_thin,
)
