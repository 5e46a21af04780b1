"""The sparse group lasso, in the form adaptive optimizers solve at every step."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgpo_jax.bounds import NonNegative, Range, bounded


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class SparseGroupLasso:
    r"""A penalty that sets single weights and whole groups of weights to 0.

    .. math:: \lambda_1 \|x\|_1 + \lambda_{21} \sum_g \sqrt{d_g} \|D^{1/2} x_g\|_2
              + \lambda_2 \|x\|_2^2

    where D is the adaptive optimizer's scale and d_g the width of group g. Yue et al.
    2021 (arXiv:2107.14432). `l1` alone is the lasso, `l21` alone the group lasso.

    Attributes:
      l1: strength on single weights.
      l2: strength of the ridge.
      l21: strength on groups.
      axis: the axis along which a group's weights lie. -1 makes every row of an
        embedding table a group, and a vector one group.
    """

    l1: NonNegative = 0.0
    l2: NonNegative = 0.0
    l21: NonNegative = 0.0
    axis: Annotated[int, Range(-8, 7)] = -1

    def solve(
        self, z: Float[Array, "*weights"], scale: Float[Array, "*weights"]
    ) -> Float[Array, "*weights"]:
        r"""Minimize z x + D x^2 / 2 plus the penalty.

        .. math:: s = \mathrm{clip}(z, \pm \lambda_1) - z, \quad
                  x_g = \max\Big(0, 1 - \frac{\lambda_{21} \sqrt{d_g}}{\|s_g\|_2}\Big)
                        \frac{s_g}{D + 2 \lambda_2}

        Args:
          z: accumulated gradients.
          scale: the diagonal of D, above 0.

        Returns:
          The weights; groups at or below the threshold are exactly 0.

        Example:
          >>> lasso = SparseGroupLasso(l1=1.0, l21=1.0)
          >>> z = jnp.array([[-4.0, 0.5], [-2.0, -1.0]])
          >>> lasso.solve(z, jnp.ones((2, 2))).round(1)
          Array([[1.6, 0. ],
                 [0. , 0. ]], dtype=float32)
        """
        s = jnp.clip(z, -self.l1, self.l1) - z
        axis = self.axis if s.ndim else None
        width = s.shape[self.axis] if s.ndim else 1
        norm = jnp.sqrt(jnp.sum(s**2, axis=axis, keepdims=True))
        threshold = self.l21 * width**0.5
        # The inner where keeps 0 / 0 out; the outer makes pruned groups exactly 0.
        shrink = 1 - threshold / jnp.where(norm > threshold, norm, 1)
        shrink = jnp.where(norm > threshold, shrink, 0)
        return s * shrink / (scale + 2 * self.l2)
