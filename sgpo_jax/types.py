"""Types shared by every stage."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Weighted(NamedTuple):
    """A sum that has kept its denominator.

    Sums over micro-batches, devices and buckets add both parts, so the mean of a split
    batch equals the mean of the whole batch exactly:

    >>> a = Weighted(jnp.float32(6.0), jnp.float32(3.0))
    >>> b = Weighted(jnp.float32(2.0), jnp.float32(1.0))
    >>> float((a + b).mean())
    2.0

    Attributes:
      total: weighted sum, a scalar.
      weight: sum of the weights, a scalar; zero if nothing counted.
    """

    total: Any
    weight: Any

    def __add__(self, other: "Weighted") -> "Weighted":  # pyright: ignore[reportIncompatibleMethodOverride] tuples concatenate
        return Weighted(self.total + other.total, self.weight + other.weight)

    def mean(self) -> Float[Array, ""]:
        """Return total / weight, or exactly 0 (with gradient 0) if nothing counted."""
        safe = jnp.where(self.weight > 0, self.weight, 1.0)
        return jnp.where(self.weight > 0, self.total / safe, 0.0)
