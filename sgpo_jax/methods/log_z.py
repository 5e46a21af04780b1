"""Learnt log-normalizer of a prompt: what trajectory balance and FlowRL regress with.

An objective that needs "log_z" has an attribute `log_z: LogZ`. The training step then
trains the head beside the policy, with a step size of its own, and hands its value to
the objective as `responses.log_z`. Parameters and optimizer state of the head are in
the training state, hence in every checkpoint; the policy that is sampled, evaluated and
exported never holds them.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from sgpo_jax.bounds import Range, Rate, bounded


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class LogZ:
    r"""A small network on the hidden state that predicts the first response token.

    Blocks of a linear map, GELU and layer normalization, then a linear map to one
    number, after FlowRL (arXiv:2509.15207), which reads the mean hidden state of the
    prompt and uses dropout of 0.1. No gradient flows into the policy. The last map
    starts at 0, so log Z does too.

    Attributes:
      width: of the hidden layers.
      layers: linear maps, the last included.
      learning_rate: step size of Adam for the head.
    """

    width: Annotated[int, Range(1, 2**16)] = 64
    layers: Annotated[int, Range(1, 100)] = 3
    learning_rate: Rate = 1e-2

    def init(self, key: PRNGKeyArray, *, embed_dim: int) -> PyTree:
        """Draw the parameters, float32."""
        params: dict[str, dict[str, Array]] = {}
        sizes = [embed_dim, *[self.width] * (self.layers - 1)]
        keys = jax.random.split(key, self.layers)
        for number, rows in enumerate(sizes[:-1]):
            scale = 1 / jnp.sqrt(jnp.float32(rows))
            weight = jax.random.normal(keys[number], (rows, self.width)) * scale
            params[f"hidden_{number}"] = {
                "weight": weight,
                "bias": jnp.zeros(self.width),
            }
        params["out"] = {"weight": jnp.zeros((sizes[-1], 1)), "bias": jnp.zeros(1)}
        return params

    def axes(self) -> PyTree:
        """Logical axes of the parameters; only the width of the model is ever split."""
        first = "hidden_0" if self.layers > 1 else "out"
        names = [f"hidden_{number}" for number in range(self.layers - 1)] + ["out"]
        return {
            name: {
                "weight": ("embed" if name == first else None, None),
                "bias": (None,),
            }
            for name in names
        }

    def make_optimizer(self) -> optax.GradientTransformation:
        """Return Adam with the step size of the head."""
        return optax.adam(self.learning_rate)

    def __call__(
        self, params: PyTree, hidden: Float[Array, "R D"]
    ) -> Float[Array, " R"]:
        """Return log Z of each prompt.

        >>> head = LogZ(width=4)
        >>> params = head.init(jax.random.key(0), embed_dim=2)
        >>> head(params, jnp.ones((3, 2)))
        Array([0., 0., 0.], dtype=float32)
        """
        x = jax.lax.stop_gradient(hidden).astype(jnp.float32)
        for number in range(self.layers - 1):
            layer = params[f"hidden_{number}"]
            x = jax.nn.gelu(_linear(x, layer))
            x = _normalized(x)
        return _linear(x, params["out"])[:, 0]


def _linear(x: Float[Array, "R D"], layer: PyTree) -> Float[Array, "R E"]:
    return x @ layer["weight"] + layer["bias"][None, :]


def _normalized(x: Float[Array, "R D"]) -> Float[Array, "R D"]:
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered**2).mean(axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + 1e-5)
