r"""Low-rank adapters (LoRA, arXiv:2106.09685): train little, keep the rest as it is.

.. math:: y = W x + \frac{\alpha}{r} B A x

Adapters are parameters of the decoder under the name `adapters`, declared and placed as
all others, so that checkpoints, shardings and the training step need no second path:
`trainable` splits off what is trained, `merge` adds the products to the matrices. The
forward pass multiplies with A and B instead of merging first, which saves the gradient
of W, a third of the work of a backward pass.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sgpo_jax.bounds import Positive, Range, bounded

# Letters of each matrix: inputs and outputs. d: embed, h/k: heads, c: width, f: hidden.
LETTERS: Mapping[str, tuple[str, str]] = {
    "query": ("d", "hc"),
    "key": ("d", "kc"),
    "value": ("d", "kc"),
    "output": ("hc", "d"),
    "gate": ("d", "f"),
    "up": ("d", "f"),
    "down": ("f", "d"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Lora:
    """Configuration of low-rank adapters: rank, scale, target matrices.

    Attributes:
      rank: rank r of the products.
      alpha: the products are multiplied by alpha / rank.
      targets: matrices with an adapter.
      rslora: multiply by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732), which
        keeps the size of gradients when the rank grows.
    """

    rank: Annotated[int, Range(1, 2**16)] = 16
    alpha: Positive = 32.0
    targets: tuple[str, ...] = tuple(LETTERS)
    rslora: bool = False

    def __post_init__(self):
        if not self.targets or set(self.targets) - set(LETTERS):
            raise ValueError(
                f"LoRA targets must be some of {', '.join(LETTERS)}, got {self.targets}"
            )

    @property
    def factor(self) -> float:
        """Factor of the products."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def _contract(
    x: Float[Array, "N L *i"], matrix: Float[Array, "..."], inputs: int
) -> Float[Array, "N L *o"]:
    """Contract the last `inputs` dimensions of x with the first ones of the matrix."""
    return jnp.tensordot(x, matrix, axes=inputs)


def _product_forward(x, matrix, inputs):
    return _contract(x, matrix, inputs), (x, matrix)


def _product_backward(inputs, residuals, dy):
    # What autodiff derives computes the gradient of the matrix transposed, for which
    # XLA copies dy on CPU: 6 % of the layers' time.
    x, matrix = residuals
    outputs = matrix.ndim - inputs
    over = range(2, 2 + outputs), range(inputs, matrix.ndim)
    return (
        jax.lax.dot_general(dy, matrix, (over, ((), ()))),
        jax.lax.dot_general(x, dy, (((0, 1), (0, 1)), ((), ()))),
    )


_product = jax.custom_vjp(_contract, nondiff_argnums=(2,))
_product.defvjp(_product_forward, _product_backward)


def project(
    name: str,
    x: Float[Array, "N L *i"],
    weights: Mapping[str, Array],
    adapters: Mapping[str, Mapping[str, Array]],
    lora: Lora | None,
) -> Float[Array, "N L *o"]:
    """Return x times the matrix called `name`, plus its adapter's share if it has one.

    Args:
      name: key of `LETTERS`.
      x: inputs, in the dtype to compute in.
      weights: matrices of one layer, by name.
      adapters: A ("a") and B ("b") of one layer, by name of the matrix.
      lora: the factor of the products.
    """
    inputs, outputs = LETTERS[name]
    matrix = weights[name].astype(x.dtype)
    y = _product(x, matrix, len(inputs))
    if lora is None or name not in adapters:
        return y
    a, b = (adapters[name][part].astype(x.dtype) for part in ("a", "b"))
    low = jnp.einsum(f"nl{inputs},{inputs}r->nlr", x, a)
    return y + jnp.einsum(f"nlr,r{outputs}->nl{outputs}", low, b) * lora.factor


def trainable(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is trained and what is frozen; `{**trained, **frozen}` is all.

    >>> trainable({"embedding": 1, "adapters": 2})
    ({'adapters': 2}, {'embedding': 1})
    >>> trainable({"embedding": 1})
    ({'embedding': 1}, {})
    """
    if "adapters" not in params:
        return params, {}
    frozen = {name: x for name, x in params.items() if name != "adapters"}
    return {"adapters": params["adapters"]}, frozen


def merge(params: dict[str, Any], lora: Lora) -> PyTree[Array]:
    """Return parameters without adapters that compute the same; float32 sums."""

    def add(name: str, matrix: Array) -> Array:
        if name not in params["adapters"]:
            return matrix
        inputs, outputs = LETTERS[name]
        a, b = (params["adapters"][name][part] for part in ("a", "b"))
        product = jnp.einsum(f"z{inputs}r,zr{outputs}->z{inputs}{outputs}", a, b)
        summed = matrix.astype(jnp.float32) + product * lora.factor
        return summed.astype(matrix.dtype)

    _, frozen = trainable(params)
    layers = {name: add(name, matrix) for name, matrix in params["layers"].items()}
    return jax.tree.map(lambda x: x, {**frozen, "layers": layers})
