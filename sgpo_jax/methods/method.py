"""An RLVR algorithm as a value: the parts of a method, and what they need."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

from sgpo_jax import advantages, losses
from sgpo_jax.bounds import Decay, NonNegative, Range, bounded
from sgpo_jax.methods import continuation as continuing
from sgpo_jax.methods.advantage import Advantage, Standardized, check_advantage
from sgpo_jax.methods.loss import TokenLoss, metric_names
from sgpo_jax.methods.needs import needs_of
from sgpo_jax.methods.objective import ClippedSurrogate, Objective
from sgpo_jax.methods.optimizer import AdamW, Optimizer
from sgpo_jax.methods.penalty import KL, Correction
from sgpo_jax.methods.prompts import Draw, PromptSampler, Shuffled
from sgpo_jax.methods.shaping import Shaping
from sgpo_jax.methods.subsample import KeepAll, Subsample
from sgpo_jax.streams import ROUNDS


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Refill:
    """Dynamic sampling: dead groups are replaced by fresh ones (DAPO).

    Groups whose rewards are all equal are dropped and more prompts are sampled until
    the step has its budget of rollouts in live groups, or `max_rounds` further rounds
    are used up; then the step trains on what it has. Live groups are all trained on,
    also those beyond the budget. DAPO (arXiv:2503.14476), section 3.2.

    Attributes:
      max_rounds: further rounds of sampling per step.
    """

    max_rounds: Annotated[int, Range(1, 15)] = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Method:
    """An RLVR algorithm: what is sampled, what a response is worth, what is minimized.

    Every part is a frozen dataclass with one method, or a plain function of the same
    signature. `methods.named` has those of the literature.

    Attributes:
      prompts: prompts of a step and rollouts of each.
      baseline: expected reward per prompt, tracked over steps; None for none.
      refill: replacement of dead groups; None for none.
      continuation: further rollouts of a group, by the rewards of those before; None
        for groups of the size that was drawn.
      shaping: what is added to the rewards before the advantage; None for nothing.
      advantage: rewards of groups to advantages, [R].
      subsample: responses that get a backward pass.
      objective: loss per token, [R, T].
      correction: importance weights between sampler and trainer; None for none.
      kl: penalty to the initial policy; None for none.
      aggregation: weight of each token in the loss.
      entropy_bonus: subtracted from the loss, per nat.
      optimizer: from gradients to updates.
      averaging: decay of averaged parameters, which are in every checkpoint and
        evaluated beside the raw ones while training; 0 for none.
      updates_per_batch: passes over the rollouts of a step.
      minibatches: updates per pass, over whole groups.
      max_staleness: updates the sampler's parameters may be behind the trainer's.

    Example:
      >>> method = Method(prompts=Shuffled(group_size=16), kl=KL(coef=0.04))
      >>> sorted(method.needs)
      ['reference']
    """

    prompts: PromptSampler | Callable[..., Draw] = Shuffled()
    baseline: advantages.Tracker | None = None
    refill: Refill | None = None
    continuation: continuing.Continuation | None = None
    shaping: Shaping | None = None
    advantage: Advantage = Standardized()
    subsample: Subsample = KeepAll()
    objective: Objective = ClippedSurrogate()
    correction: Correction | None = None
    kl: KL | None = None
    aggregation: losses.Aggregation = losses.PerToken()
    entropy_bonus: NonNegative = 0.0
    optimizer: Optimizer = AdamW()
    averaging: Decay = 0.0
    updates_per_batch: Annotated[int, Range(1, 10**4)] = 1
    minibatches: Annotated[int, Range(1, 10**4)] = 1
    max_staleness: Annotated[int, Range(0, 10**4)] = 0

    def __post_init__(self):
        if {"baseline", "baseline_weight"} & self.needs and self.baseline is None:
            raise ValueError(
                "the prompt sampler or the advantage reads a tracked baseline: give"
                " one, for example baseline=advantages.BetaTracker()"
            )
        if self.max_staleness and self.correction is None:
            raise ValueError(
                f"max_staleness={self.max_staleness} trains on rollouts of older"
                " parameters: give a correction, for example correction=Truncated()"
            )
        if self.rounds > ROUNDS:
            raise ValueError(
                f"refill and continuation may take {self.rounds} rounds of sampling a"
                f" step, at most {ROUNDS} are possible: lower refill.max_rounds or"
                " continuation.max_rounds"
            )
        thinned = not isinstance(self.subsample, KeepAll)
        if thinned and hasattr(self.objective, "residual"):
            raise ValueError(
                f"{self.objective} reads means over whole groups, {self.subsample}"
                " leaves some of their responses out: use KeepAll()"
            )
        drops = getattr(self.subsample, "drops_zero_advantage", False)
        if drops and (self.entropy_bonus or (self.kl and not self.kl.in_reward)):
            raise ValueError(
                f"{self.subsample} leaves out responses of advantage 0, whose KL"
                " penalty or entropy bonus is not 0: use KeepAll(), kl.in_reward or"
                " RussianRoulette(floor=0.1)"
            )
        if drops and not getattr(self.objective, "zero_without_advantage", True):
            raise ValueError(
                f"{self.subsample} leaves out responses of advantage 0, which count in"
                f" {self.objective}: use KeepAll()"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Union of what the parts read beyond their standard inputs."""
        return needs_of(
            self.prompts,
            self.baseline,
            self.shaping,
            self.advantage,
            self.subsample,
            self.continuation,
            self.objective,
            self.correction,
            self.kl,
        )

    @property
    def rounds(self) -> int:
        """Rounds of sampling a step may take at most."""
        further = self.continuation.max_rounds if self.continuation else 0
        return (1 + (self.refill.max_rounds if self.refill else 0)) * (1 + further)

    @property
    def scoring_passes(self) -> float:
        """Forward passes over the rollouts of a step besides those of training.

        For the reference, for the policy before later minibatches, for means of
        residuals before each pass, and for the drift of the policy.

        >>> Method().scoring_passes, Method(kl=KL(), minibatches=4).scoring_passes
        (0.0, 1.75)
        """
        passes = ("reference" in self.needs) + ("drift" in self.needs)
        if "residual_mean" in self.needs:
            passes += self.updates_per_batch
        return passes + 1 - 1 / self.minibatches

    @property
    def loss(self) -> TokenLoss:
        """The loss of each token: objective, correction, KL penalty, entropy bonus."""
        return TokenLoss(
            objective=self.objective,
            correction=self.correction,
            kl=self.kl,
            entropy_bonus=self.entropy_bonus,
        )

    def check(self) -> None:
        """Trace advantage and loss on shapes alone, before anything is sampled.

        Raises:
          ValueError: if one of them fails, or returns what it should not.
        """
        check_advantage(self.advantage)
        metric_names(self.loss)

    def replace(self, **parts: object) -> "Method":
        """Copy with other parts.

        >>> Method().replace(minibatches=4).minibatches
        4
        """
        return dataclasses.replace(self, **parts)  # pyright: ignore[reportArgumentType]
