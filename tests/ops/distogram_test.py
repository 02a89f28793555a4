"""Distograms: bins, the 7.94 A rule, splines against scipy, von Mises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.interpolate import CubicSpline

from dl_lectures.ops import distogram

evaluate = jax.jit(distogram.evaluate)
blurred = jax.jit(distogram.blurred)
spline = jax.jit(distogram.spline, static_argnames='cutoff')


def random_values(seed: int = 0, shape: tuple[int, ...] = (5, 64)) -> jax.Array:
  return jnp.asarray(
    np.random.default_rng(seed).normal(size=shape), jnp.float32
  )


def test_bins_are_those_published():
  # alphafold_casp13's README: 64 equal bins, np.linspace(0, 20, 65)[1:-1] + 2.
  np.testing.assert_allclose(
    distogram.EDGES, np.linspace(0, 20, 65)[1:-1] + 2, rtol=1e-6
  )
  assert distogram.CENTRES[0] == pytest.approx(2.15625)
  assert distogram.CENTRES[-1] == pytest.approx(21.84375)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 40, width=32))
def test_a_distance_is_within_its_bin(distance):
  index = int(distogram.bin_index(jnp.float32(distance)))
  if index > 0:
    assert distance >= distogram.EDGES[index - 1]
  if index < 63:
    assert distance < distogram.EDGES[index]


def test_contact_means_below_7_94():
  # 19 whole bins, of .3125 A from 2 A.
  assert distogram.CONTACT_BINS == 19
  certain = jax.nn.one_hot(jnp.array([0, 18, 19, 63]), 64)
  near = distogram.contact_probability(jnp.log(certain))
  assert near.tolist() == [1, 1, 0, 0]
  index = distogram.bin_index(jnp.array([7.93, 7.95, 7.99]))
  assert (index < distogram.CONTACT_BINS).tolist() == [True, False, False]
  even = jnp.full(64, -jnp.log(64.0))
  probability = distogram.contact_probability(even)
  assert float(probability) == pytest.approx(19 / 64)


def test_distances_by_hand_and_without_nan():
  points = jnp.array([[0.0, 0, 0], [0, 3, 4], [0, 3, 4]])
  distance = distogram.pair_distances(points)
  np.testing.assert_allclose(distance, [[0, 5, 5], [5, 0, 0], [5, 0, 0]])
  gradient = jax.grad(lambda x: distogram.pair_distances(x).sum())(points)
  assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize('sigma', [0.5, 2.0])
def test_blurred_is_a_distribution_around_its_distance(sigma):
  distance = jnp.array([4.0, 12.0, 20.0])
  p = jnp.exp(blurred(distance, sigma))
  np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-4)
  mode = distogram.CENTRES[np.asarray(p.argmax(-1))]
  np.testing.assert_allclose(mode, distance, atol=distogram.WIDTH)
  # A tail of 5% and 3 A: what is 6 sigma off is unlikely, not impossible.
  assert p[1, 32 - 12] > 1e-4 or sigma > 1
  # Without a tail it is scipy's normal.
  bare = blurred(distance, sigma, tail=1e-9)[1]
  expected = stats.norm.logpdf(distogram.CENTRES, 12.0, sigma)
  near = np.abs(distogram.CENTRES - 12.0) < 2 * sigma
  difference = np.asarray(bare - bare.max()) - (expected - expected.max())
  assert np.ptp(difference[near]) < 0.02


def test_blurred_is_as_wide_as_it_is_told_pair_by_pair():
  distance = jnp.full((2, 2), 10.0)
  sigma = jnp.array([[0.5, 1.0], [2.0, 0.5]])
  together = blurred(distance, sigma)
  for at in np.ndindex(2, 2):
    alone = blurred(distance[at], float(sigma[at]))
    np.testing.assert_allclose(together[at], alone, rtol=1e-5, atol=1e-5)


def test_contacts_only_keeps_the_contacts_and_nothing_else():
  believed = blurred(jnp.array([5.0, 6.0, 17.0, 18.0]), 0.3)
  blunt = distogram.contacts_only(believed)
  np.testing.assert_allclose(jnp.exp(blunt).sum(-1), 1, rtol=1e-4)
  near = distogram.contact_probability(believed)
  kept = distogram.contact_probability(blunt)
  np.testing.assert_allclose(kept, 0.95 * near + 0.05 * (1 - near), atol=1e-3)
  # All contacts look alike but for their probability, and so does the rest.
  certain = distogram.contacts_only(
    jnp.log(jnp.array([[1.0] + 63 * [0.0], 63 * [0.0] + [1.0]]) + 1e-9)
  )
  assert jnp.ptp(certain[0, 6:19]) < 1e-4
  assert jnp.ptp(certain[1, 19:]) < 1e-4
  # And something pulls from wherever an atom is.
  assert (jnp.diff(certain[0, 18:]) < -0.05).all()
  assert (jnp.diff(certain[1, :20]) > 0.05).all()


@pytest.mark.parametrize('cutoff', [22.0, 18.0])
def test_spline_is_that_of_scipy(cutoff):
  values = random_values()
  knots = int((cutoff >= distogram.CENTRES).sum())
  distance = np.random.default_rng(1).uniform(2.2, 17.8, 5).astype(np.float32)
  value, slope = evaluate(spline(values, cutoff=cutoff), jnp.asarray(distance))
  for i in range(5):
    curve = CubicSpline(
      distogram.CENTRES[:knots], values[i, :knots], bc_type='clamped'
    )
    assert float(value[i]) == pytest.approx(curve(distance[i]), abs=1e-4)
    assert float(slope[i]) == pytest.approx(curve(distance[i], 1), abs=1e-3)


def test_spline_passes_through_its_values():
  values = random_values(2)
  table = spline(values)
  for k in (0, 31, 62):
    at = jnp.full(5, distogram.CENTRES[k])
    value, _ = evaluate(table, at)
    np.testing.assert_allclose(value, values[:, k], atol=1e-5)


def test_spline_is_constant_outside():
  values = random_values(3)
  table = spline(values, cutoff=18.0)
  last = int(np.searchsorted(distogram.CENTRES, 18.0)) - 1
  for distance, k in ((0.0, 0), (2.0, 0), (18.5, last), (50.0, last)):
    value, slope = evaluate(table, jnp.full(5, distance))
    np.testing.assert_allclose(value, values[:, k], atol=1e-6)
    np.testing.assert_array_equal(slope, 0)


def test_slope_is_the_derivative():
  table = spline(random_values(4))
  distance = jnp.asarray(
    np.random.default_rng(4).uniform(3, 21, 5), jnp.float32
  )
  _, slope = evaluate(table, distance)
  derivative = jax.jit(jax.grad(lambda d: evaluate(table, d)[0].sum()))
  np.testing.assert_allclose(slope, derivative(distance), rtol=1e-3, atol=1e-4)
  step = 1e-2
  up, down = (evaluate(table, distance + s)[0] for s in (step, -step))
  np.testing.assert_allclose(slope, (up - down) / (2 * step), atol=2e-2)


def test_a_reference_is_subtracted():
  # Where the network believes what everybody does, nothing pulls.
  believed = blurred(jnp.array([9.0]), 2.0)
  table = spline(-believed + believed)
  value, slope = evaluate(table, jnp.array([7.0]))
  assert float(value[0]) == float(slope[0]) == 0


@pytest.mark.parametrize('kappa', [0.2, 1.0, 4.0, 20.0])
def test_concentration_is_that_of_scipy(kappa):
  resultant = stats.vonmises.expect(np.cos, args=(kappa,))
  found = float(distogram.concentration(jnp.float32(resultant)))
  assert found == pytest.approx(kappa, rel=1e-2)


def test_von_mises_fit_and_cap():
  angles = jnp.deg2rad(jnp.arange(-175.0, 180.0, 10.0))
  logits = 6.0 * jnp.cos(angles - 2.9)  # near the seam
  fit = distogram.fit_von_mises(jax.nn.log_softmax(logits), angles)
  assert float(fit.mean) == pytest.approx(2.9, abs=1e-3)
  assert float(fit.kappa) == pytest.approx(6, rel=2e-2)
  certain = jnp.log(jax.nn.one_hot(5, 36) + 1e-30)
  assert float(distogram.fit_von_mises(certain, angles, most=30).kappa) == 30


def test_von_mises_density_is_that_of_scipy():
  law = distogram.VonMises(jnp.float32(0.5), jnp.float32(3.0))
  for angle in (-3.0, 0.0, 0.5, 2.0):
    expected = -stats.vonmises.logpdf(angle, 3.0, loc=0.5)
    found = distogram.von_mises_nll(jnp.float32(angle), law)
    assert float(found) == pytest.approx(expected, abs=1e-4)
