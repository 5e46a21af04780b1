"""Scale and soft cap of attention scores."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Logits are `cap(scale * q . k)`, with cap(x) = soft_cap * tanh(x / soft_cap)."""

    scale: float
    soft_cap: float | None = None

    def __post_init__(self):
        if self.soft_cap is not None and not self.soft_cap > 0:
            raise ValueError(f"soft_cap must be positive, got {self.soft_cap}")

    def cap(self, x: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Bound the logits, if a cap was asked for."""
        if self.soft_cap is None:
            return x
        return self.soft_cap * jnp.tanh(x / self.soft_cap)

    def slope(self, logits: Float[Array, "*s"]) -> Float[Array, "*s"] | float:
        """Return d logits / d (q . k), given the capped logits."""
        if self.soft_cap is None:
            return self.scale
        return self.scale * (1.0 - jnp.square(logits / self.soft_cap))
