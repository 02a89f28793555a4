"""Double descent: where the peak is, and what is fitted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.analysis import approximation, double_descent


def linear(random, number, w):
  x = random.normal(size=(number, 6))
  return x, x @ w + 0.3 * random.normal(size=(number, 1))


def test_random_features_peak_where_there_are_as_many_as_examples():
  random = np.random.default_rng(0)
  w = random.normal(size=(6, 1))
  train, test = linear(random, 60, w), linear(random, 400, w)
  sizes = [6, 15, 30, 45, 54, 60, 66, 80, 120, 300]
  errors = double_descent.random_features(train, test, sizes, random)
  assert double_descent.peak(sizes, [e.test for e in errors]) == 60
  # With as many features all is fitted, with fewer it is not.
  assert errors[3].train > 1e-4
  assert max(e.train for e in errors[5:]) < 1e-15
  assert errors[-1].test < errors[5].test / 5


def test_the_smallest_of_the_fits_is_taken():
  random = np.random.default_rng(1)
  x, y = np.array([[1.0]]), np.array([[2.0]])
  (error,) = double_descent.random_features(
    (x, y), (2 * x, y), [50], np.random.default_rng(1)
  )
  v = random.normal(size=(1, 50))
  b = random.normal(size=50)
  phi = np.maximum(x @ v + b, 0)
  asked = np.maximum(2 * x @ v + b, 0)
  wanted = (asked @ phi.T / (phi @ phi.T) * 2 - 2) ** 2
  np.testing.assert_allclose(error.test, wanted[0, 0], rtol=1e-8)


@pytest.mark.slow
def test_a_wide_mlp_fits_what_a_narrow_one_cannot():
  random = np.random.default_rng(0)
  x = random.normal(size=(24, 3))
  y = np.sin(3 * x[:, 0]) + random.normal(size=24)
  part = jnp.float32(x), jnp.float32(y)

  @jax.jit
  def errors(key):
    return [
      double_descent.mlp(
        part,
        part,
        width,
        jnp.tanh,
        key,
        steps=200,
        learning_rate=0.03,
        polish=20,
      )[0]
      for width in (1, 40)
    ]

  narrow, wide = errors(jax.random.key(0))
  assert narrow > 0.3 * y.var()
  assert wide < 0.1 * y.var()


def test_the_peak_is_not_the_smallest_models():
  assert double_descent.peak([1, 2, 3, 4], [9.0, 2.0, 3.0, 1.0]) == 3
  assert double_descent.peak([1, 2, 3], [3.0, 2.0, 1.0]) == 3
  net = double_descent.teacher(np.random.default_rng(0), 5)
  y = approximation.apply(net, np.ones((2, 5)), approximation.relu)
  assert y.shape == (2,)


def test_levenberg_and_marquardt_solve_what_is_linear_and_what_is_not():
  random = np.random.default_rng(0)
  a, x = random.normal(size=(6, 4)), random.normal(size=4)

  @jax.jit
  def solve(start):
    linear = double_descent.levenberg_marquardt(
      lambda z: jnp.float32(a) @ z - jnp.float32(a @ x), start, 30
    )
    # Rosenbrock's valley, whose only root is (1, 1).
    bent = double_descent.levenberg_marquardt(
      lambda z: jnp.stack([10 * (z[1] - z[0] ** 2), 1 - z[0]]),
      jnp.array([-1.2, 1.0]),
      80,
    )
    return linear, bent

  linear, bent = solve(jnp.zeros(4))
  np.testing.assert_allclose(linear, x, atol=1e-4)
  np.testing.assert_allclose(bent, 1, atol=1e-3)
