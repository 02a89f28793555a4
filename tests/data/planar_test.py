"""Sets of the plane: where their classes lie, and what noise does."""

import numpy as np
import pytest

from dl_lectures.data import planar
from dl_lectures.types import UsageError


@pytest.mark.parametrize('name', planar.SETS)
def test_what_all_have(name):
  points = planar.draw(name, 500, noise=0.1, seed=3)
  assert points.x.shape == (500, 2)
  assert points.x.dtype == np.float32
  assert points.label.dtype == np.int32
  assert points.label.sum() == 250
  assert np.abs(points.x).max() < planar.SIDE
  again = planar.draw(name, 500, noise=0.1, seed=3)
  np.testing.assert_array_equal(points.x, again.x)
  other = planar.draw(name, 500, noise=0.1, seed=4)
  assert not np.array_equal(points.x, other.x)


def test_the_disc_lies_within_the_ring():
  points = planar.draw('circle', 2000)
  radius = np.linalg.norm(points.x, axis=1)
  inside = points.label == 1
  assert radius[inside].max() <= 2.5 < 3.5 <= radius[~inside].min()
  assert radius.max() <= 5
  # All around: the four quadrants have a fourth each.
  quadrant = (points.x > 0) @ [1, 2]
  assert np.bincount(quadrant).min() > 400


def test_quadrants():
  points = planar.draw('xor', 2000)
  same = np.prod(points.x, axis=1) > 0
  np.testing.assert_array_equal(same, points.label)
  assert np.abs(points.x).min() >= 0.3
  quadrant = (points.x > 0) @ [1, 2]
  assert np.bincount(quadrant).min() > 400


def test_clouds():
  points = planar.draw('gauss', 20_000)
  for label, centre in ((0, -2), (1, 2)):
    cloud = points.x[points.label == label]
    np.testing.assert_allclose(cloud.mean(axis=0), centre, atol=0.03)
    np.testing.assert_allclose(cloud.std(axis=0), 0.7, atol=0.02)


def test_arms_are_half_a_turn_apart():
  points = planar.draw('spiral', 2000)
  radius = np.linalg.norm(points.x, axis=1)
  angle = np.arctan2(points.x[:, 0], points.x[:, 1])
  wanted = 1.75 * 2 * np.pi * radius / 5 + np.pi * points.label
  off = np.angle(np.exp(1j * (angle - wanted)))
  assert np.abs(off[radius > 0.1]).max() < 1e-3


def test_noise_moves_points_and_keeps_classes():
  clean, noisy = (planar.draw('xor', 5000, noise=x) for x in (0.0, 1.5))
  moved = noisy.x - clean.x
  np.testing.assert_allclose(moved.std(axis=0), 1.5, atol=0.05)
  np.testing.assert_array_equal(noisy.label, clean.label)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('moons', 4, 0.0), "set 'moons' is unknown; possible: circle, xor"),
    (('xor', 0, 0.0), '0 points; at least 1'),
    (('xor', 4, -1.0), 'noise of -1.0; at least 0'),
    (('xor', 4, float('nan')), 'noise of nan'),
  ],
)
def test_what_is_refused(arguments, message):
  name, number, noise = arguments
  with pytest.raises(UsageError, match=message):
    planar.draw(name, number, noise=noise)
