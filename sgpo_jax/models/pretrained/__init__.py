"""Checkpoints people use, in and out: a folder, a hub id, a GGUF file.

Imports `gguf`, `tokenizers`, `jinja2` and `huggingface_hub` only where they are used.
"""

from sgpo_jax.models.pretrained.adapters import (
    adapters_identity as adapters_identity,
)
from sgpo_jax.models.pretrained.adapters import load_adapters as load_adapters
from sgpo_jax.models.pretrained.adapters import read_lora as read_lora
from sgpo_jax.models.pretrained.adapters import save_adapters as save_adapters
from sgpo_jax.models.pretrained.gguf_tokenizer import read_tokenizer as read_tokenizer
from sgpo_jax.models.pretrained.load import check as check
from sgpo_jax.models.pretrained.load import load_params as load_params
from sgpo_jax.models.pretrained.read import read_config as read_config
from sgpo_jax.models.pretrained.save import save as save
from sgpo_jax.models.pretrained.source import Pretrained as Pretrained
from sgpo_jax.models.pretrained.source import open_source as open_source
from sgpo_jax.models.pretrained.source import open_tokenizer as open_tokenizer
from sgpo_jax.models.pretrained.write import write_config as write_config
