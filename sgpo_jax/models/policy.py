"""Policies: parameters, the shape they belong to, and their tokenizer."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from sgpo_jax import sharding, streams
from sgpo_jax.models import decoder
from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.decoder import Params
from sgpo_jax.models.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """A language model to sample from and to train.

    Attributes:
      config: shape of the decoder.
      tokenizer: text to tokens and back.
      identity: fingerprint of what the parameters are made from.
      reader: reads or draws the parameters into the shardings of a mesh; None is the
        default device.
      mesh: devices the parameters are placed on.
      published: the published `config.json`; empty for a random policy.
      source: what `models.load` reads these very parameters from; empty if nothing.
    """

    config: DecoderConfig
    tokenizer: Tokenizer = dataclasses.field(repr=False)
    identity: str
    reader: Callable[[Mesh | None], Params] = dataclasses.field(repr=False)
    mesh: Mesh | None = dataclasses.field(default=None, repr=False)
    published: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    source: str = ""

    @functools.cached_property
    def params(self) -> Params:
        """The parameters, read or drawn on first access."""
        return self.reader(self.mesh)

    def on(self, mesh: Mesh | None) -> "Policy":
        """Return the policy with its parameters on the devices of another mesh."""
        return dataclasses.replace(self, mesh=mesh)

    def with_params(self, params: Params, *, identity: str) -> "Policy":
        """Return the policy with other parameters, for example trained ones.

        Args:
          params: of the same shapes; kept where they are unless `on` moves them.
          identity: what they are.
        """

        def place(mesh: Mesh | None) -> Params:
            if mesh is None:
                return params
            return jax.tree.map(sharding.put, params, shardings(self.config, mesh))

        return dataclasses.replace(
            self, reader=place, mesh=None, identity=identity, source=""
        )


def shardings(config: DecoderConfig, mesh: Mesh | None) -> Any:
    """Return the sharding of every parameter on a mesh; None is the default device."""
    shapes = decoder.shapes(config)
    if mesh is None:
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(lambda _: one, shapes)
    axes = decoder.logical_axes(config)
    return sharding.tree_shardings(axes, shapes, sharding.Rules(), mesh)


def initializer(config: DecoderConfig, mesh: Mesh | None) -> Callable[[Array], Params]:
    """Return the jitted program that draws parameters into their shardings.

    Every device draws its own part, so no device holds the whole: the bits are those of
    one device, whatever the mesh.
    """
    devices = mesh.devices.flat if mesh is not None else jax.devices()
    # It runs once: LLVM would optimize for longer than the rest takes.
    unoptimized = {"xla_backend_optimization_level": 0}
    return jax.jit(
        lambda key: decoder.init(config, key=key),
        out_shardings=shardings(config, mesh),
        compiler_options=unoptimized if devices[0].platform == "cpu" else None,
    )


def initialize(
    config: DecoderConfig, tokenizer: Tokenizer, *, seed: int, mesh: Mesh | None = None
) -> Policy:
    """Return a randomly initialized policy, drawn directly into its shardings.

    Raises:
      ValueError: if the tokenizer has more tokens than the decoder.

    Example:
      >>> from sgpo_jax import models
      >>> shape = models.DecoderConfig(vocab_size=257, num_layers=2, embed_dim=16)
      >>> initialize(shape, models.ByteTokenizer(), seed=0).params["embedding"].shape
      (257, 16)
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the decoder only"
            f" {config.vocab_size}: raise vocab_size"
        )
    described = hashlib.sha256(f"{config} {tokenizer!r}".encode()).hexdigest()[:16]
    return Policy(
        config=config,
        tokenizer=tokenizer,
        identity=f"fresh:{described}:{seed}",
        reader=lambda mesh: initializer(config, mesh)(streams.parameters(seed)),
        mesh=mesh,
    )
