import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from dl_lectures.ops import selu
from dl_lectures.types import UsageError


def test_the_activation_is_the_known_one():
  x = jnp.linspace(-200, 200, 4001)
  np.testing.assert_allclose(selu.selu(x), jax.nn.selu(x), rtol=1e-6, atol=1e-6)
  slopes = jax.vmap(jax.grad(selu.selu))(x)
  assert jnp.all(jnp.isfinite(slopes))
  np.testing.assert_allclose(
    selu.selu(x, selu.Selu(2.0, 0.0)), 2 * jax.nn.relu(x)
  )


def test_the_published_constants():
  scale, alpha = selu.fixed_point(0.0, 1.0)
  assert abs(scale - 1.0507009873554805) < 1e-14
  assert abs(alpha - 1.6732632423543772) < 1e-14


def by_quadrature(m, v, constants):
  """Mean and variance of selu(z), z ~ N(m, v), without the closed form."""
  far = 9 * np.sqrt(v)
  edges = np.array(sorted({m - far, m, m + far, min(max(0, m - far), m + far)}))
  nodes, weights = np.polynomial.legendre.leggauss(60)
  half = np.diff(edges)[:, None] / 2
  z = (edges[:-1, None] + half * (nodes + 1)).ravel()
  mass = (half * weights).ravel() * stats.norm.pdf(z, m, np.sqrt(v))
  y = constants.scale * np.where(z > 0, z, constants.alpha * np.expm1(z))
  mean = mass @ y
  return mean, mass @ (y - mean) ** 2


@settings(max_examples=40, deadline=None)
@given(
  mean=st.floats(-3, 3),
  variance=st.floats(0.05, 9),
  omega=st.floats(-1, 1),
  tau=st.floats(0.5, 2),
  alpha=st.floats(0, 3),
)
def test_moments_are_those_of_quadrature(mean, variance, omega, tau, alpha):
  constants = selu.Selu(1.2, alpha)
  found = selu.moments(mean, variance, omega, tau, constants)
  expected = by_quadrature(mean * omega, variance * tau, constants)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_moments_are_those_of_a_layer():
  draw = np.random.default_rng(0)
  z = draw.normal(0.02, np.sqrt(1.3), 1_000_000)
  y = np.asarray(selu.selu(jnp.float32(z)), float)
  found = selu.moments(0.2, 1.3, 0.1, 1.0)
  assert abs(found.mean - y.mean()) < 0.005
  assert abs(found.variance - y.var()) < 0.01


def test_moments_far_out_are_finite():
  grid = np.array([-1e4, -50.0, 0.0, 50.0, 1e4])
  means, variances = np.meshgrid(grid, [1e-6, 1.0, 1e4])
  found = selu.moments(means, variances, 1.0)
  assert np.all(np.isfinite(found.mean))
  # Far above 0 the activation is a line, far below it a constant.
  up, down = selu.moments(1e4, 1.0, 1.0), selu.moments(-1e4, 1.0, 1.0)
  np.testing.assert_allclose(up.mean, selu.STANDARD.scale * 1e4)
  np.testing.assert_allclose(
    down.mean, -selu.STANDARD.scale * selu.STANDARD.alpha
  )


@settings(max_examples=60, deadline=None)
@given(
  mean=st.floats(-1, 1),
  variance=st.floats(0.1, 5),
  tau=st.floats(0.5, 2),
)
def test_any_fixed_point_is_one_to_1e_9(mean, variance, tau):
  # Of a given mean, the least variance is that of one side of the activation
  # alone: a ReLU, or the exponential.
  side = selu.Selu(1.0, 0.0) if mean > 0 else selu.Selu(1e-12, 1e12)
  alone = selu.moments(0.0, variance, 0.0, tau, side)
  least = alone.variance * (mean / alone.mean) ** 2
  assume(abs(least - variance) > 1e-6)
  if least > variance:
    with pytest.raises(UsageError, match='no SELU'):
      selu.fixed_point(mean, variance, 0.0, tau)
    return
  constants = selu.fixed_point(mean, variance, 0.0, tau)
  assert constants.scale > 0
  assert constants.alpha >= 0
  found = selu.moments(mean, variance, 0.0, tau, constants)
  assert abs(found.mean - mean) < 1e-9
  assert abs(found.variance - variance) < 1e-9


def test_what_cannot_be_a_fixed_point():
  with pytest.raises(UsageError, match=r'no SELU .*mean 5\.0, variance 0\.1'):
    selu.fixed_point(5.0, 0.1)
  with pytest.raises(UsageError, match='more than 0'):
    selu.fixed_point(0.0, 0.0)


def test_the_map_contracts():
  # The domain of theorem 1 of the paper, with its constants.
  means = np.linspace(-0.1, 0.1, 5)
  variances = np.linspace(0.8, 1.5, 5)
  for omega in (-0.1, 0.0, 0.1):
    for tau in (0.95, 1.0, 1.1):
      grid = np.meshgrid(means, variances)
      new = selu.moments(*grid, omega, tau)
      assert np.all(np.abs(new.mean) < 0.1)
      assert np.all((new.variance > 0.8) & (new.variance < 1.5))
      for mean in means:
        for variance in variances:
          assert selu.slope(mean, variance, omega, tau) < 1
  # From anywhere nearby the map leads back to (0, 1).
  at = selu.Moments(np.array(0.8), np.array(3.0))
  for _ in range(60):
    at = selu.moments(at.mean, at.variance)
  np.testing.assert_allclose(at, (0.0, 1.0), atol=1e-6)


def test_the_slope_of_a_linear_layer():
  # alpha = 1 at tiny variance is a line of slope `scale`: the mean is carried
  # by omega and the variance by tau.
  assert abs(selu.slope(5e-5, 1e-4, 0.3, 0.5, selu.Selu(1.0, 1.0)) - 0.5) < 0.05


@pytest.mark.parametrize('rate', [0.05, 0.2, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(rate):
  x = selu.selu(jax.random.normal(jax.random.key(0), [400_000]))
  y = selu.alpha_dropout(jax.random.key(1), rate, x)
  assert abs(y.mean()) < 0.01
  assert abs(y.var() - 1) < 0.02
  # All that are dropped share one value, and they are as many as asked for.
  values, counts = np.unique(np.asarray(y), return_counts=True)
  assert abs(counts.max() / y.size - rate) < 0.005
  keep, limit = 1 - rate, -1.7580993408473766
  spread = (keep + limit**2 * keep * rate) ** -0.5
  expected = spread * limit - spread * rate * limit
  np.testing.assert_allclose(values[counts.argmax()], expected, rtol=1e-5)


def test_no_dropout_is_the_identity():
  x = jnp.array([-1.5, 0.0, 2.0])
  np.testing.assert_array_equal(
    selu.alpha_dropout(jax.random.key(0), 0.0, x), x
  )
