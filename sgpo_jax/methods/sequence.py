"""Policy-gradient objectives with an importance ratio per response.

They return the loss of the response at each of its tokens; use `losses.PerSequence`.
"""

import dataclasses
import math
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax import losses
from sgpo_jax.bounds import NonNegative, Range, bounded
from sgpo_jax.methods.inputs import Responses
from sgpo_jax.methods.objective import clip_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class _Sequence:
    """Bounds of the length-normalized importance ratio of a response.

    Attributes:
      low: distance of the lower bound of the ratio from 1.
      high: distance of the upper bound.
    """

    low: Annotated[float, Range(0, 1, below=True)] = 3e-4
    high: NonNegative = 4e-4

    loss = staticmethod(losses.sequence_clipped_surrogate)

    def __call__(self, responses: Responses, /) -> Float[Array, "R T"]:
        """Return the class's loss of each response at its tokens."""
        return self.loss(
            responses.log_ratio,
            responses.advantage,
            responses.mask,
            low=self.low,
            high=self.high,
        )

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """Clipped shares of tokens, divergence from the old policy (k3)."""
        ratio = losses.mean_log_ratio(responses.log_ratio, responses.mask)
        ratio = jnp.broadcast_to(ratio[:, None], responses.mask.shape)
        return clip_metrics(responses, ratio, low=self.low, high=self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceClipped(_Sequence):
    r"""Clipped surrogate of the length-normalized ratio: GSPO (arXiv:2507.18071).

    .. math:: \ell_i = -\min(s_i A_i, \mathrm{clip}(s_i) A_i), \quad
              s_i = \exp\Big(\frac{1}{|y_i|} \sum_t \log r_{i,t}\Big)
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceClippedPerToken(_Sequence):
    r"""GSPO with the gradient of each token: GSPO-token (arXiv:2507.18071).

    .. math:: s_{i,t} = \mathrm{sg}[s_i] \pi_\theta / \mathrm{sg}[\pi_\theta]
    """

    loss = staticmethod(losses.token_level_sequence_surrogate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Luspo(_Sequence):
    r"""GSPO with each response weighted by its length: LUSPO.

    .. math:: \ell_i = |y_i|\, \ell_i^{GSPO}
    """

    loss = staticmethod(losses.luspo)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Gmpo(_Sequence):
    r"""Geometric mean of clipped token ratios: GMPO (arXiv:2507.20673).

    .. math:: \ell_i = -A_i \exp\Big(\frac{1}{|y_i|} \sum_t z_{i,t}\Big)

    for the log-ratio z, clipped against the sign of the advantage.

    Attributes:
      low: distance of the lower bound of the log-ratio from 0.
      high: distance of the upper bound.
    """

    low: NonNegative = 0.4
    high: NonNegative = 0.4

    loss = staticmethod(losses.gmpo)

    def metrics(self, responses: Responses, /) -> dict[str, Float[Array, "R T"]]:
        """Clipped shares of tokens, divergence from the old policy (k3)."""
        low, high = -math.expm1(-self.low), math.expm1(self.high)
        return clip_metrics(responses, responses.log_ratio, low=low, high=high)
