"""The shape of a decoder."""

import dataclasses
from typing import Annotated, Literal, get_args

from sgpo_jax.bounds import TINY, Count, Layers, Natural, Positive, Range, Size, bounded
from sgpo_jax.models.lora import Lora
from sgpo_jax.models.rope import RopeScaling, YarnScaling

Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "everything", "offload"]
"""Rematerialization policy; offload keeps layer inputs in host memory."""
Activation = Literal["silu", "gelu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class DecoderConfig:
    """Shape of a decoder-only transformer; the defaults are Llama's layout.

    Grouped-query attention, rotary positions, gated MLP, RMS norms before each block.
    The options below cover Llama, SmolLM2, Mistral, Qwen2, Qwen3, Gemma 2 and Gemma 3;
    `models.families` lists which family uses which.

    Attributes:
      vocab_size: rows of the embedding table.
      num_layers: stacked and scanned layers.
      embed_dim: width of the residual stream.
      num_heads: query heads.
      num_kv_heads: key and value heads; divides `num_heads`.
      head_dim: width of one head (even, for rotary pairs).
      mlp_dim: hidden width of the gated MLP.
      rope_base: base of the rotary frequencies.
      rope_scaling: how frequencies are stretched for long contexts; None for not.
      local_rope_base: base in layers with a window, unscaled; None for the same.
      norm_eps: epsilon inside the RMS norms.
      norm_offset: scales of norms are stored as their distance from one.
      sandwich_norms: further norms behind attention and MLP.
      qkv_bias: biases of queries, keys and values.
      qk_norm: RMS norms over the width of each query and key, before rotation.
      query_scale: factor of q . k; None for 1 / sqrt(head_dim).
      attention_soft_cap: bound of the attention logits; None for none.
      final_soft_cap: bound of the output logits; None for none.
      window: positions that layers with a window read, the own one included.
      global_layers: layers that read everything although there is a window.
      activation: of the gate; gelu is the tanh approximation.
      scale_embeddings: multiply embeddings by sqrt(embed_dim).
      tie_embeddings: use the embedding table as the unembedding too.
      dtype: dtype of activations; norms, softmax and log-probabilities are float32.
      param_dtype: dtype parameters are kept in.
      remat: what the backward pass of a layer recomputes; "offload" keeps the inputs of
        layers in the host's memory and recomputes the rest.
      lora: train low-rank adapters instead of the parameters; None for full training.
    """

    vocab_size: Annotated[int, Range(1, 2**24)]
    num_layers: Layers = 3
    embed_dim: Size = 128
    num_heads: Size = 4
    num_kv_heads: Size = 4
    head_dim: Size = 32
    mlp_dim: Size = 384
    rope_base: Annotated[float, Range(TINY, 1e15)] = 10_000.0
    rope_scaling: RopeScaling | None = None
    local_rope_base: Annotated[float, Range(TINY, 1e15)] | None = None
    norm_eps: Annotated[float, Range(0, 1)] = 1e-5
    norm_offset: bool = False
    sandwich_norms: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    query_scale: Positive | None = None
    attention_soft_cap: Positive | None = None
    final_soft_cap: Positive | None = None
    window: Count | None = None
    global_layers: tuple[Natural, ...] = ()
    activation: Activation = "silu"
    scale_embeddings: bool = False
    tie_embeddings: bool = True
    dtype: Dtype = "float32"
    param_dtype: Dtype = "float32"
    remat: Remat = "none"
    lora: Lora | None = None

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} must divide"
                f" num_heads={self.num_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for RoPE, got {self.head_dim}")
        self._check_windows()
        for field, allowed in (
            ("dtype", Dtype),
            ("param_dtype", Dtype),
            ("remat", Remat),
            ("activation", Activation),
        ):
            if getattr(self, field) not in get_args(allowed):
                raise ValueError(
                    f"{field} must be one of {', '.join(get_args(allowed))}, got"
                    f" {getattr(self, field)!r}"
                )

    def _check_windows(self):
        positive = (
            *("window", "attention_soft_cap", "final_soft_cap", "query_scale"),
            *("rope_base", "local_rope_base", "norm_eps"),
        )
        for field in positive:
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise ValueError(f"{field} must be positive, got {value}")
        if self.window is None and (self.global_layers or self.local_rope_base):
            raise ValueError("global_layers and local_rope_base need a window")
        if self.local_rope_base and isinstance(self.rope_scaling, YarnScaling):
            raise ValueError(
                "YaRN in some layers only (local_rope_base) is not supported"
            )
        if isinstance(self.rope_scaling, YarnScaling) and self.rope_base <= 1:
            raise ValueError(f"rope_base must exceed 1 for YaRN, got {self.rope_base}")
        if not all(0 <= layer < self.num_layers for layer in self.global_layers):
            raise ValueError(
                f"global_layers {self.global_layers} must be in"
                f" 0..{self.num_layers - 1}"
            )

    @property
    def scale(self) -> float:
        """Factor of the products of queries and keys, YaRN's included."""
        own = self.head_dim**-0.5 if self.query_scale is None else self.query_scale
        if isinstance(self.rope_scaling, YarnScaling):
            return own * self.rope_scaling.attention_factor**2
        return own
