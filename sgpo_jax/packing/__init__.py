"""Packing of variable groups into static shapes, and the way back."""

from sgpo_jax.packing.pack import Group as Group
from sgpo_jax.packing.pack import Packed as Packed
from sgpo_jax.packing.pack import Waste as Waste
from sgpo_jax.packing.pack import gather_hidden as gather_hidden
from sgpo_jax.packing.pack import pack as pack
from sgpo_jax.packing.pack import unpack as unpack
from sgpo_jax.packing.pack import waste as waste
from sgpo_jax.packing.shapes import Buckets as Buckets
from sgpo_jax.packing.shapes import Shape as Shape
from sgpo_jax.packing.shapes import make_buckets as make_buckets
