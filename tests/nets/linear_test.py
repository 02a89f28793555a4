"""Linear layers against Haiku's and autodiff's."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import linear


@pytest.mark.parametrize('shape', [(3,), (4, 3), (2, 5, 3), (2, 1, 4, 3)])
@pytest.mark.parametrize('width', [2, 7])
def test_product_and_gradients_are_autodiffs(shape, width):
  draw = np.random.default_rng(0)
  x, w = draw.normal(size=shape), draw.normal(size=(3, width))
  x, w = jnp.float32(x), jnp.float32(w)

  def loss(multiply):
    return lambda x, w: jnp.sum(jnp.sin(multiply(x, w)))

  ours = jax.jit(jax.value_and_grad(loss(linear.product), (0, 1)))(x, w)
  theirs = jax.jit(jax.value_and_grad(loss(jnp.matmul), (0, 1)))(x, w)
  for mine, other in zip(
    jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True
  ):
    np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_a_population_has_each_its_own_weights():
  draw = np.random.default_rng(0)
  x = jnp.float32(draw.normal(size=(3, 2, 5, 6)))
  w = jnp.float32(draw.normal(size=(3, 6, 4)))
  gradient = jax.grad(lambda w, x: jnp.sum(linear.product(x, w) ** 2))
  together = jax.jit(jax.vmap(gradient))(w, x)
  for i in range(3):
    np.testing.assert_allclose(together[i], gradient(w[i], x[i]), rtol=1e-5)


@pytest.mark.parametrize('with_bias', [True, False])
def test_layer_is_haikus(with_bias):
  x = jnp.float32(np.random.default_rng(0).normal(size=(2, 5, 3)))
  nets = [
    hk.without_apply_rng(hk.transform(lambda x, of=of: of(4, with_bias)(x)))
    for of in (linear.Linear, hk.Linear)
  ]
  ours, theirs = (net.init(jax.random.key(1), x) for net in nets)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  y, other = (net.apply(ours, x) for net in nets)
  np.testing.assert_allclose(y, other, rtol=1e-6)


def test_halves_stay_halves():
  x, w = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((4, 2), jnp.bfloat16)
  gradients = jax.grad(lambda *xw: linear.product(*xw).sum(), (0, 1))(x, w)
  assert [g.dtype for g in gradients] == [jnp.bfloat16] * 2
