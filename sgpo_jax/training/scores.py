"""Log-probabilities of packed responses; over a mesh, each device scores its rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from sgpo_jax import kernels, losses, models, packing, sharding
from sgpo_jax.kernels import shared_prefix_attention
from sgpo_jax.kernels.shared_prefix_attention import Implementation


def over_mesh(
    mesh: Mesh, rules: sharding.Rules = sharding.Rules()
) -> Callable[..., losses.TokenLogProbs]:
    """Return `losses.token_log_probs` for hidden states whose first axis is `rows`.

    The unembedding is gathered over the axes of `rows` once for all chunks, and what
    the chunks give it as gradient is added up on the device before the devices' parts
    are summed and scattered, once. A compiler left to itself does both for every chunk.
    Words that are split stay so: the gathering is over one part of them, the compiler
    sees to the rest.

    Args:
      mesh: the devices.
      rules: over which of its axes rows and the width of the model are split.

    Example:
      >>> import numpy as np
      >>> mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
      >>> hidden, matrix = jax.numpy.zeros((2, 3, 4)), jax.numpy.ones((4, 8))
      >>> targets = jax.numpy.zeros((2, 3), int)
      >>> over_mesh(mesh)(hidden, matrix, targets).entropy.shape
      (2, 3)
    """
    rows = (rules.rows,) if isinstance(rules.rows, str) else rules.rows
    if rows is None or all(mesh.shape[axis] == 1 for axis in rows):
        return losses.token_log_probs

    others = set(mesh.axis_names) - set(rows)

    def score(
        hidden: Any, unembedding: Any, targets: Any, mask: Any = None, **options: Any
    ) -> losses.TokenLogProbs:
        width = sharding.dividing(mesh, rules.embed, unembedding.shape[0])
        words = sharding.dividing(mesh, rules.vocab, unembedding.shape[1])
        width = width if width in rows else None

        def whole(part: Any) -> Any:
            return jax.lax.all_gather(part, width, tiled=True)

        if words in others:  # left to itself, the compiler gathers the words first
            whole = jax.shard_map(
                whole,
                in_specs=PartitionSpec(None, words),
                out_specs=PartitionSpec(None, words),
                axis_names=others,
                check_vma=False,
            )

        def local(hidden, unembedding, targets, mask):
            if width is not None:
                unembedding = whole(unembedding)
            return losses.token_log_probs(
                hidden, unembedding, targets, mask=mask, **options
            )

        split = PartitionSpec(rows)
        scored = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(split, PartitionSpec(width), split, split),
            out_specs=split,
            axis_names=set(rows),
            check_vma=False,
        )
        return scored(hidden, unembedding, targets, mask)

    return score


def log_probs(
    params: models.Params,
    config: models.DecoderConfig,
    packed: packing.Packed,
    *,
    temperature: float = 1.0,
    mesh: Mesh | None = None,
    rules: sharding.Rules = sharding.Rules(),
    implementation: Implementation | None = None,
) -> losses.TokenLogProbs:
    """Score every response token of a packed micro-batch.

    The prompt of a group is encoded once; the result equals scoring each
    prompt + response by itself (arXiv:2506.05433). `implementation` is that of
    `shared_prefix_attention`.

    Returns:
      Log-probability and entropy per response token, [R, T], 0 where there is none.
    """
    return scored(
        params,
        config,
        jax.tree.map(jnp.asarray, packed),
        temperature=temperature,
        mesh=mesh,
        rules=rules,
        implementation=implementation,
    )[0]


def scored(
    params: models.Params,
    config: models.DecoderConfig,
    packed: packing.Packed,
    *,
    temperature: float,
    mesh: Mesh | None,
    rules: sharding.Rules,
    implementation: Implementation | None,
) -> tuple[losses.TokenLogProbs, Float[Array, "N M D"]]:
    """Return the scores of `log_probs` and the hidden states that predict targets."""
    attention, score = shared_prefix_attention, losses.token_log_probs
    if mesh is not None and mesh.size > 1:
        score = over_mesh(mesh, rules)
        split = config.num_kv_heads % mesh.shape[rules.kv_heads or "tensor"] == 0
        heads = rules.kv_heads if split else None
        attention = kernels.over_mesh(mesh, rows=rules.rows, heads=heads)

    def attend(layer, q, k, v, carry):
        out = attention(
            q,
            k,
            v,
            packed.layout,
            scale=layer.scale,
            window=layer.window,
            soft_cap=layer.soft_cap,
            implementation=implementation,
        )
        return out, carry

    with sharding.activations(mesh, rules):
        positions = jnp.asarray(packed.layout.position)
        hidden, _ = models.apply(params, config, packed.tokens, positions, attend)
        predictors = packing.gather_hidden(hidden, packed)
        out = score(
            predictors,
            models.unembedding(params, config),
            packed.target,
            mask=packed.target_mask,
            temperature=temperature,
            soft_cap=config.final_soft_cap,
        )
    found = losses.TokenLogProbs(
        packing.unpack(out.log_prob, packed), packing.unpack(out.entropy, packed)
    )
    return found, predictors
