"""Small networks: built by hand, and found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.analysis import approximation
from dl_lectures.data import planar


def test_exclusive_or_by_the_slides_weights():
  points = planar.corners()
  logits = approximation.apply(
    approximation.XOR_BY_HAND, points.x, jax.nn.sigmoid
  )
  np.testing.assert_array_equal(logits > 0, points.label == 1)
  # One unit for each corner of class 1.
  net = approximation.XOR_BY_HAND
  hidden = jax.nn.sigmoid(points.x @ net.w + net.b[None])
  assert np.asarray(hidden > 0.5).tolist() == [
    [False, False],
    [True, False],
    [False, True],
    [False, False],
  ]


def test_exclusive_or_is_found_by_some_and_by_no_line():
  points = planar.corners(1.0)
  keys = jax.random.split(jax.random.key(0), 8)

  def found(width):
    return jax.vmap(
      lambda key: approximation.learn_xor(
        jnp.asarray(points.x),
        jnp.asarray(points.label),
        width,
        jax.nn.relu,
        key,
        steps=100,
        learning_rate=0.1,
      )
    )(keys)

  assert not jax.jit(found, static_argnums=0)(0).any()
  assert jax.jit(found, static_argnums=0)(6).sum() >= 6


@pytest.mark.parametrize('name', approximation.FUNCTIONS)
def test_more_bumps_less_error(name):
  function = approximation.FUNCTIONS[name]
  errors = [
    approximation.largest_error(
      function, approximation.bumps(function, number), approximation.sigmoid
    )
    for number in (4, 16, 64)
  ]
  assert errors[0] > errors[1] > errors[2]
  # A bump is off by the function's change over half of it.
  x = np.linspace(0, 1, 129)
  step = np.abs(np.diff(function(x))).max()
  assert 0.9 * step < errors[2] < 1.1 * step


def test_a_polyline_goes_through_its_points():
  function = approximation.FUNCTIONS['sine']
  for width in (8, 32):
    net = approximation.polyline(function, width)
    knots = np.linspace(0, 1, width + 1)
    np.testing.assert_allclose(
      approximation.apply(net, knots[:, None], approximation.relu),
      function(knots),
      atol=1e-12,
    )
    # |f''| h^2 / 8, the error of linear interpolation.
    error = approximation.largest_error(function, net, approximation.relu)
    assert 0.8 < error / ((2 * np.pi / width) ** 2 / 8) <= 1.001
  corner = approximation.FUNCTIONS['corner']
  net = approximation.polyline(corner, 2)
  assert approximation.largest_error(corner, net, approximation.relu) < 1e-12


def test_products_are_bilinear_and_not_an_mlp():
  random = np.random.default_rng(0)
  train, test = (approximation.products(random, 200, 3) for _ in range(2))
  np.testing.assert_allclose(
    train[1], (train[0][:, :3] * train[0][:, 3:]).sum(axis=1)
  )
  assert approximation.bilinear_error(train, test) < 1e-12
  error = jax.jit(
    lambda key: approximation.mlp_error(train, test, 8, key, steps=300)
  )(jax.random.key(0))
  assert 0.01 < error < 1
