"""Linear pieces: lines of the plane, folds, and a grid that looks itself."""

import numpy as np
import pytest

from dl_lectures.analysis import linear_regions


def patterns_on_a_grid(layers, side, resolution=300):
  """Sign patterns seen by looking at points; some small ones are missed."""
  line = np.linspace(-side, side, resolution)
  x = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
  signs = []
  for w, b in layers:
    x = x @ w + b[None]
    signs.append(x > 0)
    x = np.maximum(x, 0)
  return {row.tobytes() for row in np.concatenate(signs, axis=1)}


def area(corners):
  x, y = corners.T
  return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


@pytest.mark.parametrize('units', [1, 2, 3, 7, 16])
def test_lines_in_general_position(units):
  layers = linear_regions.random_layers([units], np.random.default_rng(units))
  side = linear_regions.enclosing(layers) if units > 1 else 2.0
  wanted = 1 + units + units * (units - 1) // 2
  assert linear_regions.count(layers, side) == wanted
  assert linear_regions.most_of_lines(units) == wanted


def test_lines_in_special_position():
  parallel = np.array([[1.0, 1, 1], [0, 0, 0]]), np.array([0.0, 0.5, -0.5])
  assert linear_regions.count([parallel], 1.0) == 4
  through_one_point = np.array([[1.0, 0, 1], [0, 1, 1]]), np.zeros(3)
  assert linear_regions.count([through_one_point], 1.0) == 6
  twice_the_same = np.array([[1.0, 2], [0, 0]]), np.zeros(2)
  assert linear_regions.count([twice_the_same], 1.0) == 2
  never_on = np.zeros((2, 1)), np.array([-1.0])
  assert linear_regions.count([never_on], 1.0) == 1


@pytest.mark.parametrize('widths', [(6,), (4, 4), (5, 3, 4), (2, 6)])
def test_pieces_tile_the_square_and_are_those_of_a_grid(widths):
  layers = linear_regions.random_layers(widths, np.random.default_rng(1))
  found = linear_regions.pieces(layers, 3.0)
  sizes = np.array([area(piece.corners) for piece in found])
  np.testing.assert_allclose(sizes.sum(), 36, rtol=1e-9)
  assert sizes.min() > 0
  patterns = {piece.pattern.tobytes() for piece in found}
  seen = patterns_on_a_grid(layers, 3.0)
  assert seen <= patterns
  # What the grid misses is smaller than some of its cells.
  missed = [
    size
    for size, piece in zip(sizes, found, strict=True)
    if piece.pattern.tobytes() not in seen
  ]
  assert max(missed, default=0) < 20 * (6 / 300) ** 2
  assert len(found) <= linear_regions.upper_bound(widths)


def test_the_network_is_linear_on_a_piece():
  layers = linear_regions.random_layers([5, 4], np.random.default_rng(2))

  def network(x):
    for w, b in layers:
      x = np.maximum(x @ w + b[None], 0)
    return x

  for piece in linear_regions.pieces(layers, 2.0):
    middle = piece.corners.mean(axis=0, keepdims=True)
    mean = network(piece.corners).mean(axis=0)
    np.testing.assert_allclose(network(middle)[0], mean, atol=1e-9)


@pytest.mark.parametrize('depth', [1, 2, 4])
def test_folds(depth):
  layers = linear_regions.folding(depth)
  widths = [4] * depth
  found = linear_regions.count(layers, 1.0)
  assert found == 4**depth <= linear_regions.upper_bound(widths)


def test_bounds_by_hand():
  assert linear_regions.most_of_lines(5, 3) == 1 + 5 + 10 + 10
  assert linear_regions.upper_bound([1, 5]) == 2 * 6
  assert linear_regions.lower_bound([5, 4]) == 4 * 11
  assert linear_regions.lower_bound([6, 6, 3]) == 9 * 9 * 7
