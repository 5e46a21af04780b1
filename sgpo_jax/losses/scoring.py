"""Log-probabilities and entropies of tokens, without logits for the whole batch."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class TokenLogProbs(NamedTuple):
    """Log-probabilities and entropies of targets, both in float32.

    Attributes:
      log_prob: log-probability of each target.
      entropy: entropy of the distribution at each position, in nats.
    """

    log_prob: Float[Array, "*tokens"]
    entropy: Float[Array, "*tokens"]


class Head(NamedTuple):
    """Language-model head: temperature and soft cap of log-probabilities; static.

    Attributes:
      temperature: logits are divided by it, after the soft cap.
      soft_cap: logits are bounded by soft_cap * tanh(logits / soft_cap).
    """

    temperature: float
    soft_cap: float | None


def token_log_probs(
    hidden: Float[Array, "*tokens D"],
    unembedding: Float[Array, "D V"],
    targets: Int[Array, "*tokens"],
    *,
    mask: Bool[Array, "*tokens"] | None = None,
    temperature: float = 1.0,
    soft_cap: float | None = None,
    chunk_size: int = 1024,
) -> TokenLogProbs:
    r"""Log-probability of each target and entropy of its position.

    .. math:: \log \pi(y) = z_y - \log \sum_v e^{z_v}, \quad
              H = -\sum_v \pi(v) \log \pi(v), \quad
              z = c \tanh(h^\top W / c) / \tau

    Logits exist for one chunk of positions at a time, forward and backward, so the
    peak memory is that of [chunk_size, V] whatever the number of tokens. Products of
    bfloat16 inputs accumulate in float32, the gradient of the unembedding too.
    Each chunk takes positions evenly from the whole batch, so that if the first axis
    is sharded, every device works on every chunk.

    The same function scores and trains: use the temperature of sampling for both.
    Differentiable in reverse mode with respect to `hidden` and `unembedding`.

    Args:
      hidden: final hidden states at the positions that predict the targets.
      unembedding: output matrix; for tied embeddings, the transpose of the table.
      targets: the tokens to score, in [0, V).
      mask: positions that count; the others are 0 in the result and contribute to no
        gradient, whatever `hidden` holds there. None for all.
      temperature: logits are divided by it.
      soft_cap: bound c of the logits, before temperature; None for no bound.
      chunk_size: the most positions whose logits exist at once.

    Returns:
      Log-probabilities and entropies of the shape of `targets`, in float32.

    Raises:
      ValueError: temperature, soft_cap or chunk_size is not positive.

    Example:
      Equal logits for four tokens:

      >>> hidden, unembedding = jnp.zeros((1, 2)), jnp.ones((2, 4))
      >>> out = token_log_probs(hidden, unembedding, jnp.array([3]))
      >>> out.log_prob, out.entropy
      (Array([-1.3862944], dtype=float32), Array([1.3862944], dtype=float32))
    """
    if temperature <= 0 or chunk_size <= 0 or (soft_cap is not None and soft_cap <= 0):
        raise ValueError(
            "temperature, chunk_size and soft_cap must be positive, "
            f"got {temperature}, {chunk_size}, {soft_cap}"
        )
    mask = jnp.ones(targets.shape, bool) if mask is None else mask
    count = targets.size
    num_chunks = max(1, -(-count // chunk_size))
    split = functools.partial(_split, num_chunks=num_chunks)
    out = _score(
        Head(temperature, soft_cap),
        split(jnp.where(mask[..., None], hidden, 0).reshape(count, -1)),
        unembedding,
        split(targets.reshape(count)),
        split(mask.reshape(count)),
    )
    return TokenLogProbs(*(_join(x)[:count].reshape(targets.shape) for x in out))


def _split(x: Array, num_chunks: int) -> Array:
    """Deal [N, ...] into [chunks, N / chunks, ...], padding with 0.

    Chunk j holds positions j, j + chunks, j + 2 chunks, ...: the axis that may be
    sharded stays the axis within a chunk, and the scan is over one that is not.
    """
    padding = -x.shape[0] % num_chunks
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    return jnp.swapaxes(x.reshape(-1, num_chunks, *x.shape[1:]), 0, 1)


def _join(x: Array) -> Array:
    """Undo `_split`, padding aside."""
    return jnp.swapaxes(x, 0, 1).reshape(-1)


def _score_chunks(
    head: Head,
    hidden: Float[Array, "chunks N D"],
    unembedding: Float[Array, "D V"],
    targets: Int[Array, "chunks N"],
    mask: Bool[Array, "chunks N"],
) -> TokenLogProbs:
    """Score chunk after chunk."""

    def chunk(args):
        hidden, targets, mask = args
        logits, _ = _logits(head, hidden, unembedding)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        # A sum, not a gather: it stays local if the vocabulary is sharded.
        target = jnp.where(_is_target(targets, logits), log_probs, 0).sum(axis=-1)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return TokenLogProbs(jnp.where(mask, target, 0), jnp.where(mask, entropy, 0))

    return jax.lax.map(chunk, (hidden, targets, mask))


def _score_forward(head, hidden, unembedding, targets, mask):
    out = _score_chunks(head, hidden, unembedding, targets, mask)
    return out, (hidden, unembedding, targets, mask, out.entropy)


def _score_backward(head, residuals, cotangents):
    hidden, unembedding, targets, mask, entropy = residuals

    def chunk(total, args):
        hidden, targets, mask, entropy, cotangents = args
        d_log_prob = jnp.where(mask, cotangents.log_prob, 0)[:, None]
        d_entropy = jnp.where(mask, cotangents.entropy, 0)[:, None]
        logits, slope = _logits(head, hidden, unembedding)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        # d log pi(y) / dz = 1_y - pi  and  dH / dz = -pi (log pi + H).
        d_logits = jnp.where(_is_target(targets, logits), d_log_prob, 0)
        d_logits -= jnp.exp(log_probs) * (
            d_log_prob + d_entropy * (log_probs + entropy[:, None])
        )
        d_logits = (d_logits * slope).astype(hidden.dtype)
        d_hidden = _matmul(d_logits, unembedding, contract=(1, 1))
        total = total + _matmul(hidden, d_logits, contract=(0, 0))
        return total, d_hidden.astype(hidden.dtype)

    zero = jnp.zeros(unembedding.shape, _accumulator(unembedding.dtype))
    total, d_hidden = jax.lax.scan(
        chunk, zero, (hidden, targets, mask, entropy, cotangents)
    )
    return d_hidden, total.astype(unembedding.dtype), None, None


# The derivative is written out: tracing would keep the logits of every chunk, and add
# up the gradient of the unembedding in its own dtype, bfloat16.
_score = jax.custom_vjp(_score_chunks, nondiff_argnums=(0,))
_score.defvjp(_score_forward, _score_backward)


def _logits(
    head: Head, hidden: Float[Array, "N D"], unembedding: Float[Array, "D V"]
) -> tuple[Float[Array, "N V"], Float[Array, "N V"] | Float[Array, ""]]:
    """Return the logits and their derivative by the plain product."""
    logits = _matmul(hidden, unembedding, contract=(1, 0))
    slope = jnp.asarray(1 / head.temperature, logits.dtype)
    if head.soft_cap is not None:
        bounded = jnp.tanh(logits / head.soft_cap)
        logits, slope = head.soft_cap * bounded, slope * (1 - bounded**2)
    return logits / head.temperature, slope


def _is_target(
    targets: Int[Array, " N"], logits: Float[Array, "N V"]
) -> Bool[Array, "N V"]:
    vocabulary = jnp.arange(logits.shape[-1], dtype=targets.dtype)
    return vocabulary[None, :] == targets[:, None]


def _matmul(x: Array, y: Array, *, contract: tuple[int, int]) -> Array:
    """Contract one axis of each, accumulating in at least float32."""
    axes = ((contract[:1], contract[1:]), ((), ()))
    return jax.lax.dot_general(x, y, axes, preferred_element_type=_accumulator(x.dtype))


def _accumulator(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype
