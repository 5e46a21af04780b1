"""The layouts that checkpoints are saved in, under one set of names.

People save the decoder by itself ("layers.0..."), inside a causal model
("model.layers.0..."), or wrapped by a compiler or a trainer
("_orig_mod.model.layers.0..."); tied embeddings as the table, as the output matrix, or
as both; and buffers, other heads and towers beside it.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from sgpo_jax.models.config import DecoderConfig
from sgpo_jax.models.pretrained.names import WHOLE
from sgpo_jax.models.pretrained.tensors import Tensors

HEAD = WHOLE["unembedding"]
_TABLE = WHOLE["embedding"]
_DECODER = "model."
_PARTS = ("layers.", "embed_tokens.", "norm.")
_ANCHOR = "layers.0.input_layernorm.weight"
# Buffers that old checkpoints carry and nobody reads.
_BUFFERS = ("rotary_emb.inv_freq",)


@dataclasses.dataclass(frozen=True)
class Renamed:
    """Tensors under other names.

    Attributes:
      inner: the tensors.
      names: their names by the new ones.
    """

    inner: Tensors
    names: Mapping[str, str]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor."""
        shapes = self.inner.shapes
        return {new: shapes[old] for new, old in self.names.items() if old in shapes}

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Dtypes of further tensors."""
        dtypes = self.inner.unreadable
        return {new: dtypes[old] for new, old in self.names.items() if old in dtypes}

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Return rows `start` to `stop` of a tensor."""
        return self.inner.read(self.names[name], rows)

    def sample(self, name: str, row: int) -> np.ndarray:
        """Return a row as it is stored."""
        return self.inner.sample(self.names[name], row)

    def where(self, name: str) -> str:
        """Return what to call a tensor in an error."""
        return self.inner.where(self.names.get(name, name))


def causal_model(tensors: Tensors, config: DecoderConfig) -> Tensors:
    """Return the tensors of a causal model's decoder under their usual names.

    Args:
      tensors: as they were saved.
      config: the decoder's shape, with whether embeddings are tied.

    Raises:
      ValueError: if there are two decoders.
    """
    known = [*tensors.shapes, *tensors.unreadable]
    prefixes = sorted(
        name.removesuffix(_ANCHOR)
        for name in known
        if name == _ANCHOR or name.endswith(f".{_ANCHOR}")
    )
    if len(prefixes) > 1:
        both = " and ".join(tensors.where(prefix + _ANCHOR) for prefix in prefixes[:2])
        raise ValueError(f"there are two decoders, with {both}: keep one")
    # Without the anchor nothing is renamed, and a missing one is reported by its name.
    prefix = prefixes[0] if prefixes else _DECODER
    names = {
        _DECODER + name.removeprefix(prefix): name
        for name in known
        if name.startswith(prefix)
        and name.removeprefix(prefix).startswith(_PARTS)
        and not name.endswith(_BUFFERS)
    }
    # The head is beside the decoder, whatever both are wrapped in.
    outer = prefix.removesuffix(_DECODER)
    heads = [name for name in (outer + HEAD, prefix + HEAD, HEAD) if name in known]
    if heads:
        names[HEAD] = heads[0]
        if config.tie_embeddings:
            names.setdefault(_TABLE, heads[0])
    if config.tie_embeddings and names.get(_TABLE) == names.get(HEAD):
        names.pop(HEAD, None)
    return Renamed(tensors, names)
