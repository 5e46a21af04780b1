"""Attention over packed rows whose responses share their group's prompt."""

from .adapters import attention_fn as attention_fn
from .api import Implementation as Implementation
from .api import shared_prefix_attention as shared_prefix_attention
from .layout import Layout as Layout
from .layout import from_lengths as from_lengths
from .layout import from_segments as from_segments
from .rows import pack as pack
from .rows import unpack as unpack
from .sharded import over_mesh as over_mesh
