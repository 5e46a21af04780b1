"""The compute ledger: what a run spent, and on what.

Floating-point operations are counted from the model's shape and the tokens really
processed; what padding added is listed apart. A multiply-add counts as two.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax

from sgpo_jax import models
from sgpo_jax.models import DecoderConfig

PHASES = ("profiling", "generation", "rewards", "scoring", "training")
"""Phases that add up to the total."""
WITHOUT_PREFIX_SHARING = "training, prompts repeated"
"""Training cost without prefix sharing; not part of the total."""
LIVE = "training, nonzero advantage only"
"""Training cost without responses of advantage 0; not part of the total."""


def matmul_parameters(config: DecoderConfig) -> int:
    """Return the parameters of one layer stack that every token is multiplied with."""
    d = config.embed_dim
    attention = d * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    matrices = config.num_layers * (attention + 3 * d * config.mlp_dim)
    return matrices + adapter_parameters(config)


def adapter_parameters(config: DecoderConfig) -> int:
    """Return the parameters of low-rank adapters, 0 without."""
    if config.lora is None:
        return 0
    shapes = jax.tree.leaves(models.shapes(config)["adapters"])
    return sum(math.prod(shape.shape) for shape in shapes)


def forward_flops(
    config: DecoderConfig, *, tokens: int, pairs: int, logits: int
) -> float:
    r"""Return the operations of a forward pass.

    .. math:: 2 N_{mm} \cdot tokens + 4 L H C \cdot pairs + 2 D V \cdot logits

    Args:
      config: shape of the model.
      tokens: positions pushed through the layers.
      pairs: (query, key) pairs attended, per layer and head.
      logits: positions whose logits are computed.

    Rematerialization is not counted, because it buys memory, not progress.

    >>> config = DecoderConfig(vocab_size=10, num_layers=1, embed_dim=4, num_heads=1,
    ...                        num_kv_heads=1, head_dim=4, mlp_dim=8)
    >>> forward_flops(config, tokens=1, pairs=1, logits=1)
    416.0
    """
    return float(
        2 * matmul_parameters(config) * tokens
        + 4 * config.num_layers * config.num_heads * config.head_dim * pairs
        + 2 * config.embed_dim * config.vocab_size * logits
    )


def training_flops(
    config: DecoderConfig, *, tokens: int, pairs: int, logits: int
) -> float:
    """Return the operations of a forward and a backward pass.

    Three times those of a forward pass; with adapters, matrices that stay as they are
    need no gradient of their own, which is a third of their share.
    """
    whole = 3 * forward_flops(config, tokens=tokens, pairs=pairs, logits=logits)
    if config.lora is None:
        return whole
    frozen = matmul_parameters(config) - adapter_parameters(config)
    return whole - 2.0 * (
        frozen * tokens + config.embed_dim * config.vocab_size * logits
    )


def sample_pairs(prompt: int, lengths: list[int]) -> int:
    """Return the attended pairs of one prompt and its sampled responses.

    The last sampled token is not fed back, so a response of k tokens runs k - 1 decode
    steps after the prefill, whose last position gives the first token.
    """
    decode = sum((k - 1) * prompt + (k - 1) * k // 2 for k in lengths)
    return prompt * (prompt + 1) // 2 + decode


def packed_pairs(prompt: int, lengths: list[int]) -> int:
    """Return the attended pairs of one prompt and its responses in a packed row."""
    return prompt * (prompt + 1) // 2 + sum(
        k * prompt + k * (k + 1) // 2 for k in lengths
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """Compute of one phase.

    Attributes:
      flops: operations on real tokens.
      padded_flops: further operations spent on padding.
      rollouts: responses sampled, or trained on.
      tokens: real tokens processed.
      padded_tokens: padding positions processed.
      seconds: wall-clock time, compilation included.
    """

    flops: float = 0.0
    padded_flops: float = 0.0
    rollouts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Entry") -> "Entry":
        return Entry(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            }
        )


class Ledger(Mapping[str, Entry]):
    """Sums of entries per phase. The total is that of `PHASES`; others are not in it.

    Supervised fine-tuning and evaluation are the same for every method: they are listed
    but not in the total that methods are compared by.

    >>> ledger = Ledger()
    >>> ledger.add("profiling", Entry(flops=2.0, rollouts=8))
    >>> ledger.add("evaluation", Entry(flops=5.0))
    >>> ledger.total.flops
    2.0
    """

    def __init__(self, entries: Mapping[str, Mapping[str, float]] | None = None):
        self._entries = {
            name: Entry(**values)  # pyright: ignore[reportArgumentType] JSON numbers
            for name, values in (entries or {}).items()
        }

    def add(self, phase: str, entry: Entry) -> None:
        """Add an entry to a phase."""
        self._entries[phase] = self[phase] + entry

    def update(self, other: "Ledger") -> None:
        """Add every entry of another ledger."""
        for phase, entry in other.items():
            self.add(phase, entry)

    def __getitem__(self, phase: str) -> Entry:
        return self._entries.get(phase, Entry())

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def total_repeated(self) -> float:
        """Operations in total, had training encoded the prompt of every response."""
        return (
            self.total.flops
            - self["training"].flops
            + self[WITHOUT_PREFIX_SHARING].flops
        )

    @property
    def total_live(self) -> float:
        """Operations in total, had responses of advantage 0 been left out of training.

        Where nothing but the advantage gives a gradient (no KL penalty in the loss, no
        entropy bonus), the updates are the same and the saving is exact.
        """
        return self.total.flops - self["training"].flops + self[LIVE].flops

    @property
    def total(self) -> Entry:
        """Sum over the phases that methods are compared by."""
        return sum((self[phase] for phase in PHASES), Entry())

    def to_json(self) -> dict[str, dict[str, float]]:
        """Return plain numbers; `Ledger(ledger.to_json())` is an equal ledger."""
        return {name: dataclasses.asdict(entry) for name, entry in self.items()}
