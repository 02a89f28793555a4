import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import nets


def apply(params, x, **options):
  net = hk.without_apply_rng(
    hk.transform(lambda x: nets.MLP([2, 1], **options)(x))
  )
  return net.apply(params, x)


def test_a_hand_computed_network():
  params = {
    'mlp/linear': {
      'w': jnp.array([[1.0, -1.0], [2.0, 0.5]]),
      'b': jnp.array([0.0, 1.0]),
    },
    'mlp/linear_1': {'w': jnp.array([[3.0], [-2.0]]), 'b': jnp.array([-9.0])},
  }
  x = jnp.array([[1.0, 2.0], [2.0, -2.0]])
  # Hidden (5, 1) and (-2, -2), after the ReLU (5, 1) and (0, 0).
  np.testing.assert_array_equal(apply(params, x), [[4.0], [-9.0]])
  rectified = apply(params, x, activate_final=True)
  np.testing.assert_array_equal(rectified, [[4.0], [0.0]])
  linear = apply(params, x, activation=lambda h: h)
  np.testing.assert_array_equal(linear, [[4.0], [-11.0]])


@pytest.mark.parametrize('sizes', [[400, 400], [400, 400, 400, 400]])
def test_depth_keeps_the_signals_size(sizes):
  net = hk.without_apply_rng(
    hk.transform(lambda x: nets.MLP(sizes, activate_final=True)(x))
  )
  x = jax.random.normal(jax.random.key(0), [64, 400])
  hidden = net.apply(net.init(jax.random.key(1), x), x)
  assert 0.8 < jnp.mean(hidden**2) / jnp.mean(x**2) < 1.2


def test_a_residual_network_starts_as_its_first_layer():
  x = jax.random.normal(jax.random.key(0), [4, 6])
  net = hk.without_apply_rng(hk.transform(lambda x: nets.ResidualMLP(5, 2)(x)))
  params = net.init(jax.random.key(1), x)
  first = jax.device_get(params['residual_mlp/linear'])
  np.testing.assert_allclose(
    net.apply(params, x),
    np.maximum(np.asarray(x) @ first['w'] + first['b'], 0),
    rtol=1e-6,
  )


def test_a_hand_computed_residual_block():
  eye, zero = jnp.eye(2), jnp.zeros(2)
  params = {
    'residual_mlp/linear': {'w': eye, 'b': zero},
    'residual_mlp/block_0/linear': {
      'w': jnp.array([[1.0, 0.0], [1.0, -1.0]]),
      'b': zero,
    },
    'residual_mlp/block_0/linear_1': {
      'w': -2 * eye,
      'b': jnp.array([1.0, 9.0]),
    },
  }
  net = hk.without_apply_rng(hk.transform(lambda x: nets.ResidualMLP(2, 1)(x)))
  # x = (1, 2); inside (3, 0) after the ReLU; then (1 - 6 + 1, 2 + 9).
  np.testing.assert_array_equal(
    net.apply(params, jnp.array([[1.0, 2.0]])), [[0.0, 11.0]]
  )


def test_a_deep_self_normalising_network_stays_normalised():
  net = hk.transform(
    lambda x, train: nets.SeluMLP([256] * 32, 0.1, True)(x, train)
  )
  x = jax.random.normal(jax.random.key(0), [512, 256])
  params = net.init(jax.random.key(1), x, False)
  for is_training in (False, True):
    y = net.apply(params, jax.random.key(2), x, is_training)
    assert abs(y.mean()) < 0.1
    assert 0.8 < y.var() < 1.25


def test_lecun_normal_weights():
  net = hk.transform(lambda x: nets.SeluMLP([400])(x))
  params = net.init(jax.random.key(0), jnp.zeros([1, 900]))
  w = np.asarray(params['selu_mlp/linear']['w'])
  assert abs(w.var() * 900 - 1) < 0.01
  # Normal and not truncated: some are beyond two standard deviations.
  assert abs(np.mean(np.abs(w) > 2 / 30) - 0.0455) < 0.003
