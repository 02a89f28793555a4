"""Parts of a potential by hand; as a whole it is tested where it is folded."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.ops import distogram, potentials


@pytest.mark.parametrize('length', [1, 2, 3, 8, 9])
def test_every_pair_is_there_once(length):
  pairs = potentials.pairs_of(length)
  assert pairs.first.shape == (-(-length // 2), length)
  found = zip(pairs.first[pairs.once], pairs.second[pairs.once], strict=True)
  expected = list(itertools.combinations(range(length), 2))
  assert sorted(map(tuple, np.array([*found]).tolist())) == [*expected]
  # And it is found again.
  each = 10.0 * pairs.first + pairs.second
  table = jnp.asarray(np.where(pairs.once, each, 0)[..., None, None])
  nothing: Any = None
  first, second = np.array([*expected, (length - 1, length - 1)]).T
  splines = potentials.splines_of(
    potentials.Potential(table, nothing, nothing), first, second
  )
  expected_splines = np.where(first < second, 10 * first + second, 0)
  np.testing.assert_array_equal(splines[:, 0, 0], expected_splines)


@pytest.mark.parametrize('length', [8, 9])
def test_forces_are_those_of_autodiff(length):
  points = np.random.default_rng(0).normal(size=(length, 3)).astype('f') * 4

  def curve(distance, weight):
    return weight * distance**3, weight * 3 * distance**2

  def plain(points):
    square = jnp.sum((points[:, None] - points[None]) ** 2, -1) + 1e-6
    return jnp.sum(2.0 * square**1.5) / 2

  @jax.jit
  def ours(points):
    return potentials.pair_sum(curve, points, 2.0)

  value, forces = jax.value_and_grad(ours)(points)
  expected, gradient = jax.jit(jax.value_and_grad(plain))(points)
  assert float(value) == pytest.approx(float(expected), rel=1e-5)
  np.testing.assert_allclose(forces, gradient, rtol=1e-3, atol=0.05)
  # Neither turning nor moving changes anything.
  rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
  again = ours(points @ rotation.astype('f') + 10.0)
  assert float(again) == pytest.approx(float(value), rel=1e-4)


def test_known_torsions_of_a_broken_chain():
  chain = potentials.Chain(
    mask=jnp.arange(6) < 5,
    glycine=jnp.zeros(6, bool),
    breaks=jnp.arange(6) == 2,
  )
  known = potentials.known_torsions(chain)
  assert known[:, 0].tolist() == [False, True, False, True, True, False]
  assert known[:, 1].tolist() == [True, False, True, True, False, False]


def test_near_pairs_come_first():
  apart = jnp.arange(100)[None]
  mask = jnp.ones(100, bool)
  weights = potentials.stage_weights(
    apart, mask, jnp.array([[0.0], [0.25], [0.5]])
  )
  assert weights[0, 1] > 0.7
  assert weights[0, 12] < 0.05
  assert weights[1, 20] > 0.9
  assert weights[1, 60] < 0.05
  assert weights[2, :95].min() > 0.9


def test_rama_prefers_what_proteins_do():
  places = jnp.deg2rad(jnp.array([[-63.0, -42.0], [-120, 135], [80, -120]]))
  rama = jax.jit(potentials.rama)
  helix, strand, nowhere = rama(places)
  assert max(helix, strand) + 3 < nowhere
  # A density: it sums to one over all angles.
  grid = jnp.deg2rad(jnp.arange(-180.0, 180.0, 5.0))
  every = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(-1, 2)
  total = jnp.sum(jnp.exp(-rama(every))) * jnp.deg2rad(5.0) ** 2
  assert float(total) == pytest.approx(1, abs=1e-3)


def test_torsions_of_which_nothing_is_known_are_those_of_any_protein():
  law = distogram.VonMises(jnp.full((2000, 2), 2.0), jnp.zeros((2000, 2)))
  drawn = jax.jit(potentials.sample_torsions)(law, jax.random.key(0))
  helix = np.deg2rad([-63, -42])
  off = np.abs(np.asarray(potentials.wrap(drawn - helix[None])))
  # Nine of twenty are helices, all of them within 60 degrees.
  assert np.mean((off < np.deg2rad(60)).all(-1)) == pytest.approx(
    0.45, abs=0.04
  )
  # Likelier than any angles at all.
  any_angle = jax.random.uniform(
    jax.random.key(1), (2000, 2), minval=-np.pi, maxval=np.pi
  )
  rama = jax.jit(potentials.rama)
  assert jnp.mean(rama(drawn)) < jnp.mean(rama(any_angle)) - 3
