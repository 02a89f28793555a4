"""Positions by the formulas; tokens that do not exist."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import embedding
from dl_lectures.types import UsageError


def test_sinusoidal_positions_by_the_formula():
  table = embedding.sinusoidal(jnp.arange(50).reshape(2, 25), 6)
  assert table.shape == (2, 25, 6)
  for p in (0, 7, 49):
    for i in range(3):
      angle = p / 10000 ** (2 * i / 6)
      np.testing.assert_allclose(
        table.reshape(50, 6)[p, 2 * i : 2 * i + 2],
        [np.sin(angle), np.cos(angle)],
        atol=1e-5,
      )


def test_rotary_products_depend_on_the_distance_alone():
  draw = np.random.default_rng(0)
  q, k = jnp.float32(draw.normal(size=(2, 8)))

  def product(at, to):
    turned = (
      embedding.rotary(q, jnp.int32(at)),
      embedding.rotary(k, jnp.int32(to)),
    )
    return float(turned[0] @ turned[1])

  assert product(5, 2) == pytest.approx(product(45, 42), abs=1e-4)
  assert product(3, 3) == pytest.approx(float(q @ k), abs=1e-5)
  assert abs(product(5, 2) - product(5, 4)) > 1e-2
  # Feature 1 with feature 5, by 10000^(-2/8) a step.
  x = jnp.zeros(8).at[1].set(1.0)
  turned = np.asarray(embedding.rotary(x, jnp.int32(3)))
  angle = 3 * 10000 ** (-2 / 8)
  np.testing.assert_allclose(
    turned[[1, 5]], [np.cos(angle), np.sin(angle)], atol=1e-6
  )
  assert not turned[[0, 2, 3, 4, 6, 7]].any()


def test_tokens_and_the_tied_head():
  def forward(tokens):
    table = embedding.Embedding(5, 3)
    x = table(tokens)
    return x, table.logits(x)

  net = hk.without_apply_rng(hk.transform(forward))
  tokens = jnp.array([[4, 0], [2, 2]])
  params = jax.jit(net.init)(jax.random.key(0), tokens)
  w = np.asarray(params['embedding']['w'])
  assert abs(w.std() / 0.02 - 1) < 0.5
  x, logits = net.apply(params, tokens)
  np.testing.assert_array_equal(x, w[np.asarray(tokens)])
  np.testing.assert_allclose(logits, x @ w.T, rtol=1e-5)
  # Inside jit an unknown token cannot be refused, but it does not go unseen.
  x, _ = jax.jit(net.apply)(params, tokens + 1)
  assert np.isnan(x[0, 0]).all()
  assert np.isfinite(x[1]).all()


def test_mistakes_are_named():
  embedding.check_tokens(np.array([0, 4]), 5)
  jax.jit(lambda x: embedding.check_tokens(x, 5))(jnp.array([9]))
  with pytest.raises(UsageError, match='token 5; 0 to 4'):
    embedding.check_tokens(np.array([[1, 5], [-1, 0]]), 5)
  with pytest.raises(UsageError, match='type float32; integers'):
    embedding.check_tokens(jnp.ones(2), 5)
  with pytest.raises(UsageError, match='width 7; even'):
    embedding.sinusoidal(jnp.arange(2), 7)
  with pytest.raises(UsageError, match='width 7; even'):
    embedding.rotary(jnp.ones((2, 7)), jnp.arange(2))
