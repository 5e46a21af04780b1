"""Names of tensors in Hugging Face checkpoints, one table for all families."""

from sgpo_jax.models.config import DecoderConfig

# Tensors of a layer under "model.layers.N.", and of the whole.
_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "query": "self_attn.q_proj.weight",
    "key": "self_attn.k_proj.weight",
    "value": "self_attn.v_proj.weight",
    "output": "self_attn.o_proj.weight",
    "query_bias": "self_attn.q_proj.bias",
    "key_bias": "self_attn.k_proj.bias",
    "value_bias": "self_attn.v_proj.bias",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
_MLP_NORM = {"mlp_norm": "post_attention_layernorm.weight"}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "post_mlp_norm": "post_feedforward_layernorm.weight",
}
WHOLE = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "unembedding": "lm_head.weight",
}


def layer_names(config: DecoderConfig) -> dict[str, str]:
    """Return the published name of each parameter of a layer, behind its prefix."""
    return _LAYER | (_SANDWICH if config.sandwich_norms else _MLP_NORM)


def layer_prefix(layer: int) -> str:
    """Return what the names of a layer's tensors begin with."""
    return f"model.layers.{layer}."
