"""Values and identities of losses with a ratio per response."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgpo_jax import losses

MASK = jnp.array([[True, True, False], [True, True, True]])
LOG_RATIO = jnp.array([[0.3, 0.1, jnp.nan], [-0.3, 0.0, -0.6]])
ADVANTAGE = jnp.array([2.0, -1.0])


def close(actual, expected, rtol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-7)


def value_and_grad(loss, log_ratio):
    def mean(log_ratio):
        clean = losses.log_ratio(log_ratio, jnp.zeros_like(log_ratio), MASK)
        return losses.aggregate(
            loss(clean), MASK, aggregation=losses.PerSequence()
        ).mean()

    return jax.jit(jax.value_and_grad(mean))(log_ratio)


def test_sequence_clipped_surrogate():
    """Mean log-ratios 0.2 and -0.3."""
    loss = losses.sequence_clipped_surrogate(
        LOG_RATIO, ADVANTAGE, MASK, low=0.5, high=0.5
    )
    up, down = -2 * np.exp(0.2), np.exp(-0.3)
    close(loss, [[up, up, 0], [down] * 3])
    loss = losses.sequence_clipped_surrogate(
        LOG_RATIO, ADVANTAGE, MASK, low=0.1, high=0.1
    )
    close(loss, [[-2.2, -2.2, 0], [0.9] * 3])


def test_luspo_is_gspo_times_length():
    gspo = losses.sequence_clipped_surrogate(LOG_RATIO, ADVANTAGE, MASK)
    luspo = losses.luspo(LOG_RATIO, ADVANTAGE, MASK)
    close(luspo, gspo * jnp.array([[2.0], [3.0]]))


def test_gmpo():
    """Clipped in log space at 0.4; a negative advantage clips at the lower side."""
    loss = losses.gmpo(
        jnp.array([[0.1, 0.9, jnp.nan], [-0.9, 0.9, 0.0]]), ADVANTAGE, MASK
    )
    up, down = -2 * np.exp((0.1 + 0.4) / 2), np.exp((-0.4 + 0.9) / 3)
    close(loss, [[up, up, 0], [down] * 3])


@pytest.mark.parametrize("bound", [0.05, 1.0])
def test_token_level_equals_sequence_level_for_constant_advantage(bound):
    """Value and gradient, clipped and unclipped."""
    bounds = {"low": bound, "high": bound}
    args = (ADVANTAGE, MASK)
    sequence = value_and_grad(
        lambda x: losses.sequence_clipped_surrogate(x, *args, **bounds), LOG_RATIO
    )
    token = value_and_grad(
        lambda x: losses.token_level_sequence_surrogate(x, *args, **bounds), LOG_RATIO
    )
    close(token[0], sequence[0])
    close(token[1], sequence[1])
    assert (np.asarray(sequence[1]) != 0).any() == (bound == 1.0)


def test_token_level_weighs_tokens_by_their_own_advantage():
    advantage = jnp.array([[1.0, 3.0, 0.0], [0.0, 0.0, -1.0]])
    _, grad = value_and_grad(
        lambda x: losses.token_level_sequence_surrogate(
            x, advantage, MASK, low=1.0, high=1.0
        ),
        LOG_RATIO,
    )
    s = np.exp([[0.2], [-0.3]])
    close(grad, -s * np.asarray(advantage) / np.array([[2], [3]]) / 2)


def test_equals_torch_autograd_of_the_textbook_formula(rng):
    torch = pytest.importorskip("torch")
    log_ratio = rng.normal(0, 0.5, (2, 3)).astype(np.float32)
    mask = np.asarray(MASK)
    x = torch.tensor(log_ratio, requires_grad=True)
    m = torch.tensor(mask.astype(np.float32))
    a = torch.tensor(np.asarray(ADVANTAGE))
    s = torch.exp((x * m).sum(1) / m.sum(1))
    gspo = -torch.min(s * a, torch.clamp(s, 0.9, 1.1) * a).mean()
    gspo.backward()
    value, grad = value_and_grad(
        lambda x: losses.sequence_clipped_surrogate(
            x, ADVANTAGE, MASK, low=0.1, high=0.1
        ),
        jnp.asarray(log_ratio),
    )
    close(value, gspo.detach().numpy(), rtol=1e-5)
    close(grad, x.grad.numpy(), rtol=1e-4)

    x = torch.tensor(log_ratio, requires_grad=True)
    sign = torch.sign(a)[:, None]
    z = sign * torch.min(sign * x, sign * torch.clamp(x, -0.4, 0.4))
    gmpo = -(a * torch.exp((z * m).sum(1) / m.sum(1))).mean()
    gmpo.backward()
    value, grad = value_and_grad(
        lambda x: losses.gmpo(x, ADVANTAGE, MASK), jnp.asarray(log_ratio)
    )
    close(value, gmpo.detach().numpy(), rtol=1e-5)
    close(grad, x.grad.numpy(), rtol=1e-4)
