"""Group Adam and Adagrad: against the equations, against optax, and as optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgpo_jax.optimizers import SparseGroupLasso, group_adagrad, group_adam

LASSO = SparseGroupLasso(l1=0.02, l2=0.03, l21=0.05)
# The z of Adagrad starts at -D x, so it takes more to prune.
STRONG = SparseGroupLasso(l1=2.0, l2=0.03, l21=4.0)
BOTH = {"adam": group_adam, "adagrad": group_adagrad}
over_both = pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)


def schedule(count):
    return 0.1 / (1.0 + jnp.asarray(count, jnp.float32))


def problem(rng, steps=12):
    """Weights and a fixed sequence of gradients, so that nothing else can differ."""
    x = rng.normal(size=(5, 3)).astype(np.float32)
    grads = rng.normal(size=(steps, 5, 3)).astype(np.float32)
    grads *= np.array([1, 1, 0.1, 0.01, 0], np.float32)[:, None]
    return x, grads


def run(optimizer, x, grads):
    """All weights after each step."""

    def step(carry, g):
        x, state = carry
        updates, state = optimizer.update(g, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    @jax.jit
    def scan(x, grads):
        return jax.lax.scan(step, (x, optimizer.init(x)), grads)

    return scan(jnp.asarray(x), jnp.asarray(grads))


def solve(z, d, lasso):
    """The proximal step, one group and one weight at a time."""
    x = np.zeros_like(z)
    for g in range(z.shape[0]):
        s = [-np.sign(v) * max(abs(v) - lasso.l1, 0.0) for v in z[g]]
        norm = sum(v * v for v in s) ** 0.5
        threshold = lasso.l21 * len(s) ** 0.5
        if norm > threshold:
            for i, v in enumerate(s):
                x[g, i] = v * (1 - threshold / norm) / (d[g, i] + 2 * lasso.l2)
    return x


def adam_by_hand(x, grads, lasso, rate, b1=0.9, b2=0.999, eps=1e-8):
    x = x.astype(np.float64)
    m, v, z, d = (np.zeros_like(x) for _ in range(4))
    for t, g in enumerate(grads.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        new = (np.sqrt(v / (1 - b2**t)) + eps) / rate(t - 1)
        z = z + m / (1 - b1**t) - (new - d) * x
        d = new
        x = solve(z, d, lasso)
        yield x


def adagrad_by_hand(x, grads, lasso, rate, n0=0.1, eps=1e-7):
    x = x.astype(np.float64)
    n = np.full_like(x, n0)
    d = np.sqrt(n + eps) / rate(0)
    z = -d * x
    for t, g in enumerate(grads.astype(np.float64)):
        n = n + g * g
        new = np.sqrt(n + eps) / rate(t)
        z = z + g - (new - d) * x
        d = new
        x = solve(z, d, lasso)
        yield x


@pytest.mark.parametrize("rate", [0.1, schedule], ids=["constant", "schedule"])
@pytest.mark.parametrize(
    ("make", "by_hand", "lasso"),
    [(group_adam, adam_by_hand, LASSO), (group_adagrad, adagrad_by_hand, STRONG)],
    ids=BOTH,
)
def test_equals_a_transcription_of_the_equations(make, by_hand, lasso, rate, rng):
    x, grads = problem(rng)
    function = rate if callable(rate) else lambda _: rate
    expected = np.stack(list(by_hand(x, grads, lasso, function)))
    _, actual = run(make(rate, lasso), x, grads)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=2e-5)
    # The penalty did prune: a group without gradient, and single weights.
    zero = np.asarray(actual) == 0
    assert zero[-1, 4].all()
    assert (zero.any(axis=-1) & ~zero.all(axis=-1)).any()
    assert not zero[-1].all()


@pytest.mark.parametrize("rate", [0.1, schedule], ids=["constant", "schedule"])
@pytest.mark.parametrize(
    ("make", "plain"), [(group_adam, optax.adam), (group_adagrad, optax.adagrad)]
)
def test_without_penalty_it_is_the_plain_optimizer(make, plain, rate, rng):
    x, grads = problem(rng)
    with jax.numpy_dtype_promotion("standard"):  # inside optax
        _, expected = run(plain(rate), x, grads)
    _, actual = run(make(rate), x, grads)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_solve_by_hand():
    """s = (3, 4) has norm 5, against a threshold of 2 sqrt(2)."""
    lasso = SparseGroupLasso(l1=1.0, l2=0.5, l21=2.0)
    z = jnp.array([[-4.0, -5.0], [2.0, 2.0]])
    shrink = 1 - 2 * 2**0.5 / 5
    np.testing.assert_allclose(
        lasso.solve(z, jnp.full((2, 2), 3.0)),
        [[3 * shrink / 4, 4 * shrink / 4], [0, 0]],
        rtol=1e-6,
    )


def test_solution_is_the_minimum(rng):
    """No nearby point is better, under the penalty as documented."""
    lasso = SparseGroupLasso(l1=0.3, l2=0.2, l21=0.4)
    z = rng.normal(size=(4, 3)) * 2
    d = np.full((4, 3), 1.7)  # a constant scale, where the closed form is exact

    def objective(x):
        group = lasso.l21 * 3**0.5 * np.sqrt(1.0) * np.linalg.norm(x, axis=-1)
        rest = lasso.l1 * np.abs(x) + z * x + (d / 2 + lasso.l2) * x**2
        return group.sum() + rest.sum()

    best = np.asarray(
        lasso.solve(jnp.asarray(z, jnp.float32), jnp.asarray(d, jnp.float32))
    ).astype(np.float64)
    for _ in range(300):
        assert objective(best) <= objective(best + rng.normal(size=z.shape) * 0.01)


def test_axis_chooses_the_groups(rng):
    z = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    rows = SparseGroupLasso(l21=0.5, axis=-1).solve(z, jnp.ones((4, 3)))
    columns = SparseGroupLasso(l21=0.5, axis=0).solve(z.T, jnp.ones((3, 4)))
    np.testing.assert_array_equal(rows, columns.T)


@over_both
def test_scalars_and_vectors_and_nested_trees(make):
    params = {"a": jnp.ones(3), "b": [jnp.ones(()), jnp.ones((2, 2))]}
    grads = jax.tree.map(jnp.ones_like, params)
    optimizer = make(0.1, LASSO)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert all((u < 0).all() for u in jax.tree.leaves(updates))


@over_both
def test_state_keeps_structure_shapes_and_dtypes(make):
    """As optax demands of a transformation that runs in a loop."""
    params = {"w": jnp.ones((4, 2), jnp.bfloat16)}
    optimizer = make(0.1, LASSO)
    state = optimizer.init(params)
    updates, after = jax.jit(optimizer.update)(params, state, params)
    describe = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert describe(state) == describe(after)
    assert updates["w"].dtype == jnp.bfloat16
    assert all(
        leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(after)
    )


@over_both
def test_pruned_groups_of_bfloat16_weights_are_exactly_zero(make, rng):
    params = jnp.asarray(rng.normal(size=(6, 4)), jnp.bfloat16)
    optimizer = make(0.1, SparseGroupLasso(l21=1e3))
    updates, _ = optimizer.update(jnp.ones_like(params), optimizer.init(params), params)
    np.testing.assert_array_equal(optax.apply_updates(params, updates), 0)


@over_both
def test_works_masked_in_a_chain_and_injected(make):
    params = {"embedding": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.zeros_like, params)
    lasso = make(0.1, SparseGroupLasso(l21=1e6))
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(lasso, {"embedding": True, "bias": False}),
    )
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(after["embedding"], 0)
    np.testing.assert_array_equal(after["bias"], 1)


@pytest.mark.parametrize(("make", "rate"), [(group_adam, 0.05), (group_adagrad, 1.0)])
def test_group_lasso_recovers_the_support(make, rate, rng):
    """Least squares with two of six groups in use."""
    truth = np.zeros((6, 3), np.float32)
    truth[[1, 4]] = rng.normal(size=(2, 3)) + 2
    design = rng.normal(size=(200, 18)).astype(np.float32)
    target = design @ truth.reshape(-1)
    optimizer = make(rate, SparseGroupLasso(l21=10.0))

    @jax.jit
    def fit(x):
        def step(carry, _):
            x, state = carry
            grad = (design.T @ (design @ x.reshape(-1) - target) / 200).reshape(6, 3)
            updates, state = optimizer.update(grad, state, x)
            return (optax.apply_updates(x, updates), state), None

        return jax.lax.scan(step, (x, optimizer.init(x)), length=400)[0][0]

    x = fit(jnp.zeros((6, 3)))
    np.testing.assert_array_equal((np.asarray(x) != 0).any(axis=-1), truth.any(axis=-1))


@over_both
def test_missing_params_raise(make):
    optimizer = make(0.1)
    state = optimizer.init(jnp.ones(2))
    with pytest.raises(ValueError, match="params"):
        optimizer.update(jnp.ones(2), state)


def test_negative_strengths_raise():
    with pytest.raises(ValueError, match="l1 must be a number from 0"):
        SparseGroupLasso(l1=-1.0)
