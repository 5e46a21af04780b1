"""Decoders, and the tokenizers that go with them."""

from sgpo_jax.models.attend import Attend as Attend
from sgpo_jax.models.attend import Layer as Layer
from sgpo_jax.models.attend import causal as causal
from sgpo_jax.models.config import DecoderConfig as DecoderConfig
from sgpo_jax.models.config import Remat as Remat
from sgpo_jax.models.decoder import Decoder as Decoder
from sgpo_jax.models.decoder import Params as Params
from sgpo_jax.models.decoder import apply as apply
from sgpo_jax.models.decoder import apply_unstacked as apply_unstacked
from sgpo_jax.models.decoder import init as init
from sgpo_jax.models.decoder import logical_axes as logical_axes
from sgpo_jax.models.decoder import logits as logits
from sgpo_jax.models.decoder import module as module
from sgpo_jax.models.decoder import shapes as shapes
from sgpo_jax.models.decoder import unembedding as unembedding
from sgpo_jax.models.decoder import unstack as unstack
from sgpo_jax.models.lora import Lora as Lora
from sgpo_jax.models.lora import merge as merge
from sgpo_jax.models.lora import trainable as trainable
from sgpo_jax.models.memory import check_offload as check_offload
from sgpo_jax.models.pieces import token_pieces as token_pieces
from sgpo_jax.models.rope import LinearScaling as LinearScaling
from sgpo_jax.models.rope import Llama3Scaling as Llama3Scaling
from sgpo_jax.models.tokenizer import ByteTokenizer as ByteTokenizer
from sgpo_jax.models.tokenizer import CharTokenizer as CharTokenizer
from sgpo_jax.models.tokenizer import Tokenizer as Tokenizer
