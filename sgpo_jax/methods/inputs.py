"""Inputs of the parts of a method: reward groups on one side, responses on the other.

`RewardGroups` is what an advantage or a subsample reads, one number per response.
`Responses` is what an objective reads, one number per token, inside the training step.
Optional inputs are there only for parts that ask for them (`methods.needs`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int

from sgpo_jax.methods.needs import provided


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardGroups:
    """Rewards of a step with the group of each; padded, so that few shapes occur.

    Attributes:
      rewards: one per response, [R]; NaN in padding and where unscorable.
      id: the group of each response, [R], in [0, count).
      length: response tokens, [R]; 0 in padding.
      size: responses sampled in the group of each, [R]; 0 in padding.
      count: number of groups, an upper bound; a static integer.
      max_length: longest response allowed, in tokens; a static integer.
      optional: further inputs by name; read them through the properties.
    """

    rewards: Float[Any, " R"]
    id: Int[Any, " R"]
    length: Float[Any, " R"]
    size: Float[Any, " R"]
    count: int = dataclasses.field(metadata={"static": True})
    max_length: int = dataclasses.field(default=0, metadata={"static": True})
    optional: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def baseline(self) -> Float[Array, " R"]:
        """Expected reward of each response's prompt before this step, [R]."""
        return provided(self.optional.get("baseline"), "groups.baseline", "baseline")

    @property
    def baseline_weight(self) -> Float[Array, " R"]:
        """Rewards that the baseline of each is worth, [R]; needs "baseline_weight"."""
        return provided(
            self.optional.get("baseline_weight"),
            "groups.baseline_weight",
            "baseline_weight",
        )

    @property
    def profile_success(self) -> Float[Array, " R"]:
        """Success rate of each response's prompt in the profile, [R]."""
        return provided(
            self.optional.get("profile"), "groups.profile_success", "profile"
        )

    def replace(self, **changes: Any) -> "RewardGroups":
        """Copy with other values."""
        return dataclasses.replace(self, **changes)

    def restricted(self, needs: frozenset[str]) -> "RewardGroups":
        """Copy with only the optional inputs that a part needs."""
        kept = {name: x for name, x in self.optional.items() if name in needs}
        return dataclasses.replace(self, optional=kept)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Responses:
    r"""Responses of a micro-batch as arrays, inside the training step.

    Attributes:
      log_prob: log pi(token) under the parameters being trained, [R, T].
      log_ratio: log pi - log pi_old, [R, T]; exactly 0 on the first update of a batch.
      advantage: one per response, [R].
      reward: one per response, [R]; NaN in empty slots.
      mask: tokens that exist and were sampled, [R, T].
      entropy: of the distribution at each token, in nats, [R, T].
      optional: further inputs by name; read them through the properties.
    """

    log_prob: Float[Array, "R T"]
    log_ratio: Float[Array, "R T"]
    advantage: Float[Array, " R"]
    reward: Float[Array, " R"]
    mask: Bool[Array, "R T"]
    entropy: Float[Array, "R T"]
    optional: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def reference_log_prob(self) -> Float[Array, "R T"]:
        """Log-probability under the reference policy, [R, T]; needs "reference"."""
        return self._provided("reference_log_prob", "reference")

    @property
    def sampler_log_prob(self) -> Float[Array, "R T"]:
        r"""Log-probability with which each token was drawn; needs "sampler_log_probs".

        The sampler's log pi(token) minus the log of the mass that truncation left.
        """
        return self._provided("sampler_log_prob", "sampler_log_probs")

    @property
    def residual_mean(self) -> Float[Array, " R"]:
        """Mean over the group of `objective.residual`, [R]; needs "residual_mean"."""
        return self._provided("residual_mean", "residual_mean")

    @property
    def log_z(self) -> Float[Array, " R"]:
        """Learnt log-normalizer of each prompt, [R]; needs "log_z"."""
        return self._provided("log_z", "log_z")

    def _provided(self, name: str, need: str) -> Any:
        return provided(self.optional.get(name), f"responses.{name}", need)

    def restricted(self, needs: frozenset[str]) -> "Responses":
        """Copy with only the optional inputs that a part needs."""
        names = {INPUT_OF[need] for need in needs if need in INPUT_OF}
        kept = {name: x for name, x in self.optional.items() if name in names}
        return dataclasses.replace(self, optional=kept)


INPUT_OF: Mapping[str, str] = {
    "reference": "reference_log_prob",
    "sampler_log_probs": "sampler_log_prob",
    "residual_mean": "residual_mean",
    "log_z": "log_z",
}
"""The optional input of `Responses` that each need brings."""

IN_BATCH: Mapping[str, int] = {
    "reference_log_prob": 2,
    "sampler_log_prob": 2,
    "residual_mean": 1,
}
"""Number of axes of the optional inputs of a micro-batch."""
