"""From losses of tokens to one number that has kept its denominator."""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sgpo_jax.bounds import Count, bounded
from sgpo_jax.losses.ratios import widened
from sgpo_jax.types import Weighted


class ResponseWeights(NamedTuple):
    """Weights of each response in the numerator and the denominator of the loss.

    The loss is sum_i token_i sum_t l_it / sum_i response_i. As every response carries
    its own share, any split of the responses, even through a group, adds up exactly.

    Attributes:
      token: weight of each token of the response in the numerator.
      response: weight of the response in the denominator.
    """

    token: Float[Array, " R"]
    response: Float[Array, " R"]


@runtime_checkable
class Aggregation(Protocol):
    """Loss aggregation: the weight of each token.

    Group sizes vary, so this also decides how much a query counts. For a query with G
    responses of L tokens each, its share of the loss is proportional to

    * `PerToken`: G L, so long answers and queries with large groups weigh more;
    * `PerSequence`: G, so queries with large groups do, the hard ones in sGPO;
    * `PerGroup`: 1, and within the query every response counts the same;
    * `PerPrompt`: 1, and within the query every token counts the same;
    * `Constant`: G L, and a token's share does not depend on its response's length.

    With `standardized` advantages of binary rewards the expected magnitude of a
    query's advantages per response is about 2 sqrt(p(1-p)), times these shares.
    """

    def weights(
        self, length: Float[Array, " R"], groups: "Groups | None"
    ) -> ResponseWeights:
        """Weigh responses of some length; groups is None if no ids were given."""
        ...


class Groups(NamedTuple):
    """The group of each response.

    Attributes:
      group_id: the group of each response, in any order; out of range in padding.
      num_groups: number of groups P.
    """

    group_id: Int[Array, " R"]
    num_groups: int

    def sum(self, values: Float[Array, " R"]) -> Float[Array, " R"]:
        """Sum within groups, at each response; 0 where the id is out of range."""
        inside = (self.group_id >= 0) & (self.group_id < self.num_groups)
        group_id = jnp.where(inside, self.group_id, self.num_groups)
        values = jnp.where(inside, values, 0)
        total = jax.ops.segment_sum(values, group_id, self.num_groups)
        return jnp.take(total, group_id, mode="fill", fill_value=0)


@dataclasses.dataclass(frozen=True)
class PerToken:
    """Every token counts the same: DAPO (arXiv:2503.14476)."""

    def weights(
        self, length: Float[Array, " R"], groups: Groups | None
    ) -> ResponseWeights:
        """Numerator: tokens; denominator: tokens."""
        return ResponseWeights(token=_one_if(length > 0), response=length)


@dataclasses.dataclass(frozen=True)
class PerSequence:
    """Every response counts the same: GRPO (arXiv:2402.03300), eq. 3."""

    def weights(
        self, length: Float[Array, " R"], groups: Groups | None
    ) -> ResponseWeights:
        """Numerator: means over tokens; denominator: responses."""
        return ResponseWeights(_inverse(length), _one_if(length > 0))


@dataclasses.dataclass(frozen=True)
class PerGroup:
    """Every group counts the same, and in it every response."""

    def weights(
        self, length: Float[Array, " R"], groups: Groups | None
    ) -> ResponseWeights:
        """Numerator: means over tokens and responses; denominator: groups."""
        share = _inverse(_required(groups, self).sum(_one_if(length > 0)))
        share = jnp.where(length > 0, share, 0)
        return ResponseWeights(token=share * _inverse(length), response=share)


@dataclasses.dataclass(frozen=True)
class PerPrompt:
    """Every group counts the same, and in it every token."""

    def weights(
        self, length: Float[Array, " R"], groups: Groups | None
    ) -> ResponseWeights:
        """Numerator: means over the tokens of a group; denominator: groups."""
        share = _inverse(_required(groups, self).sum(length))
        share = jnp.where(length > 0, share, 0)
        return ResponseWeights(token=share, response=share * length)


@dataclasses.dataclass(frozen=True)
@bounded
class Constant:
    """Every token counts 1 / length: Dr. GRPO (arXiv:2503.20783).

    Attributes:
      length: a constant number of tokens, usually the longest response allowed.
    """

    length: Count

    def weights(
        self, length: Float[Array, " R"], groups: Groups | None
    ) -> ResponseWeights:
        """Numerator: tokens / constant; denominator: responses."""
        counts = _one_if(length > 0)
        return ResponseWeights(token=counts / self.length, response=counts)


def response_weights(
    mask: Bool[Array, "R T"],
    *,
    aggregation: Aggregation = PerToken(),
    group_id: Int[Array, " R"] | None = None,
    num_groups: int = 0,
) -> ResponseWeights:
    """Weigh the responses of a batch, before it is split into micro-batches.

    Only needed when a micro-batch may hold part of a group and the aggregation is
    `PerGroup` or `PerPrompt`; otherwise call `aggregate`.

    Args:
      mask: the response tokens that count.
      aggregation: how much each token counts.
      group_id: the group of each response; out of range in padding.
      num_groups: number of groups P.

    Returns:
      Weights to slice along with the responses and give to `weighted_sum`.

    Example:
      >>> mask = jnp.array([[True, True], [True, False]])
      >>> response_weights(mask, aggregation=PerSequence())
      ResponseWeights(token=Array([0.5, 1. ], dtype=float32),
                      response=Array([1., 1.], dtype=float32))
    """
    groups = None if group_id is None else Groups(group_id, num_groups)
    return aggregation.weights(mask.sum(axis=-1).astype(jnp.float32), groups)


def weighted_sum(
    per_token: Float[Array, "R T"], mask: Bool[Array, "R T"], weights: ResponseWeights
) -> Weighted:
    """Sum losses of tokens with weights computed earlier; see `response_weights`.

    Args:
      per_token: loss of each token; masked cells may hold anything.
      mask: the response tokens that count.
      weights: numerator and denominator share of each response.

    Returns:
      The weighted sum and its denominator, in float32.
    """
    # Zero where masked before any product: 0 * NaN is NaN.
    by_response = jnp.where(mask, widened(per_token), 0).sum(axis=-1)
    return Weighted((weights.token * by_response).sum(), weights.response.sum())


def aggregate(
    per_token: Float[Array, "R T"],
    mask: Bool[Array, "R T"],
    *,
    aggregation: Aggregation = PerToken(),
    group_id: Int[Array, " R"] | None = None,
    num_groups: int = 0,
) -> Weighted:
    """Sum losses of tokens and keep the denominator.

    Add results of micro-batches, devices or buckets, then take `Weighted.mean`: that
    equals the loss of the whole batch. (Under `PerGroup` and `PerPrompt` a
    micro-batch must hold whole groups; if not, see `response_weights`.)

    The mask alone decides what is in the denominator. A response that could not be
    scored belongs out of it. One of a group that is not `is_live` has loss 0 either
    way: masked in, it counts in the denominator (GRPO); masked out, it does not (DAPO).

    Args:
      per_token: loss of each token; masked cells may hold anything. For a loss per
        response [R], give `loss[:, None]` and `mask[:, None]`.
      mask: the response tokens that count.
      aggregation: how much each token counts.
      group_id: the group of each response, in any order; out of range in padding.
        Needed by `PerGroup` and `PerPrompt`.
      num_groups: number of groups P.

    Returns:
      The weighted sum and its denominator, in float32. Both 0 if nothing counted.

    Raises:
      ValueError: the aggregation needs group ids and got none.

    Example:
      >>> per_token = jnp.array([[1.0, 2.0], [6.0, jnp.nan]])
      >>> mask = jnp.array([[True, True], [True, False]])
      >>> float(aggregate(per_token, mask).mean())
      3.0
      >>> float(aggregate(per_token, mask, aggregation=PerSequence()).mean())
      3.75
    """
    weights = response_weights(
        mask, aggregation=aggregation, group_id=group_id, num_groups=num_groups
    )
    return weighted_sum(per_token, mask, weights)


def _required(groups: Groups | None, by: Aggregation) -> Groups:
    if groups is None:
        raise ValueError(f"{type(by).__name__} needs group_id and num_groups")
    return groups


def _one_if(condition: Bool[Array, " R"]) -> Float[Array, " R"]:
    return condition.astype(jnp.float32)


def _inverse(x: Float[Array, " R"]) -> Float[Array, " R"]:
    """1 / x, and 0 where x is 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)
