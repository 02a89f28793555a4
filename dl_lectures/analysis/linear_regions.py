"""How many linear pieces a ReLU network has, counted exactly in the plane.

Each hidden unit is on or off, and where no unit changes the network is linear.
The sign pattern of a one-layer network changes at n lines; n lines in general
position cut the plane into 1 + n + C(n, 2) pieces (Zaslavsky 1975). In a deeper
network a unit's border is bent where a unit below has its own; piece by piece
it is a line still, so pieces are cut layer by layer, polygon by polygon.

  one layer of n units:     at most sum over j <= d of C(n, j), reached
  layers n_1, ..., n_L:     at most the product of that over the layers
                            (Raghu et al. 2017, theorem 1; Montufar 2017)
  some such network has     product over l < L of floor(n_l / d)^d, times
                            sum over j <= d of C(n_L, j)
                            (Montufar, Pascanu, Cho & Bengio 2014, theorem 5)

Slides: deck 004, "Number of linear regions", depth against width.

A piece here is one sign pattern, as in Hanin & Rolnick (2019); neighbours might
still have the same linear function, where a unit's output is not used.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Of a piece's size: a corner nearer to a border than that lies on it.
_ON_THE_BORDER = 1e-10

# (W [I, O], b [O]) of each hidden layer, in float64.
Layers = Sequence[tuple[np.ndarray, np.ndarray]]


class Piece(NamedTuple):
  """A convex polygon with one sign pattern.

  Attributes:
    corners: [V, 2], in order.
    pattern: [number of hidden units] bool, whether a unit is on.
  """

  corners: np.ndarray
  pattern: np.ndarray


def pieces(layers: Layers, side: float) -> list[Piece]:
  """The linear pieces of a ReLU network of two inputs, in a square.

  Args:
    layers: the hidden layers, y = relu(x W + b).
    side: the square is from -side to side.

  Returns:
    All pieces of positive area; they tile the square.

  >>> line = np.array([[1.0], [0.0]]), np.array([0.0])
  >>> [piece.pattern.tolist() for piece in pieces([line], 1.0)]
  [[False], [True]]
  """
  square = side * np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
  # Of each polygon: its corners, its signs so far, and the affine function
  # x A + c that the layers below are there.
  found = [(square, np.zeros(0, bool), np.eye(2), np.zeros(2))]
  for w, b in layers:
    below, found = found, []
    for corners, pattern, a, c in below:
      slope, offset = a @ w, c @ w + b
      for part, signs in _cut(corners, slope, offset, side):
        on = signs.astype(float)
        found.append(
          (
            part,
            np.concatenate([pattern, signs]),
            slope * on[None],
            offset * on,
          )
        )
  return [Piece(corners, pattern) for corners, pattern, _, _ in found]


def _cut(
  corners: np.ndarray, slope: np.ndarray, offset: np.ndarray, side: float
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Cuts a polygon by the lines x slope + offset = 0, [2, n] and [n]."""
  parts = [(corners, np.zeros(0, bool))]
  for w, b in zip(slope.T, offset, strict=True):
    # What is constant in this polygon borders on nothing.
    tolerance = _ON_THE_BORDER * (side * np.abs(w).sum() + abs(b))
    after = []
    for corners, signs in parts:
      height = corners @ w + b
      above, below = height > tolerance, height < -tolerance
      if above.any() and below.any():
        for sign, part in (
          (False, _half(corners, -height, tolerance)),
          (True, _half(corners, height, tolerance)),
        ):
          after.append((part, np.append(signs, sign)))
      else:
        after.append((corners, np.append(signs, bool(above.any()))))
    parts = after
  return parts


def _half(
  corners: np.ndarray, height: np.ndarray, tolerance: float
) -> np.ndarray:
  """The part of a convex polygon where a height is positive."""
  kept = []
  for i in range(len(corners)):
    here, there = height[i - 1], height[i]
    if (here > tolerance and there < -tolerance) or (
      here < -tolerance and there > tolerance
    ):
      share = here / (here - there)
      kept.append(corners[i - 1] + share * (corners[i] - corners[i - 1]))
    if there >= -tolerance:
      kept.append(corners[i])
  return np.array(kept)


def count(layers: Layers, side: float) -> int:
  """How many linear pieces a ReLU network of two inputs has in a square."""
  return len(pieces(layers, side))


def most_of_lines(units: int, inputs: int = 2) -> int:
  """The most pieces of one layer, reached in general position.

  >>> [most_of_lines(n) for n in (1, 2, 3, 4)]
  [2, 4, 7, 11]
  """
  return sum(math.comb(units, j) for j in range(inputs + 1))


def upper_bound(widths: Sequence[int], inputs: int = 2) -> int:
  """What no network of these hidden layers exceeds.

  A layer of fewer units than inputs leaves no more dimensions than it has.

  >>> upper_bound([4, 4])
  121
  """
  bound = 1
  for width in widths:
    inputs = min(inputs, width)
    bound *= most_of_lines(width, inputs)
  return bound


def lower_bound(widths: Sequence[int], inputs: int = 2) -> int:
  """What some network of these hidden layers reaches.

  >>> lower_bound([4, 4])
  44
  """
  *first, last = widths
  folds = math.prod((width // inputs) ** inputs for width in first)
  return folds * most_of_lines(last, inputs)


def folding(depth: int) -> Layers:
  """A network that folds the square from -1 to 1 onto itself, over and over.

  Of each layer's four units two make |x| of the first coordinate and two of the
  second; the next layer begins with 2 |x| - 1, which again covers -1 to 1. So L
  layers of four units have 4^L pieces, where one layer of 4 L units has at most
  1 + 4 L + C(4 L, 2).

  >>> [count(folding(depth), 1.0) for depth in (1, 2, 3)]
  [4, 16, 64]
  """
  signs = np.array([[1.0, -1, 0, 0], [0, 0, 1, -1]])
  # |x| is the sum of a pair of units.
  absolute = np.abs(signs)
  layers = [(signs, np.zeros(4))]
  for _ in range(depth - 1):
    layers.append((2 * absolute.T @ signs, -np.ones(2) @ signs))
  return layers


def random_layers(
  widths: Sequence[int], random: np.random.Generator, inputs: int = 2
) -> Layers:
  """Hidden layers as they are drawn: normal, variances 2 / fan-in and 1/10.

  Args:
    widths: of the layers.
    random: what draws.
    inputs: of the first layer.
  """
  layers = []
  for width in widths:
    w = random.normal(size=(inputs, width)) * np.sqrt(2 / inputs)
    layers.append((w, random.normal(size=width) * np.sqrt(0.1)))
    inputs = width
  return layers


def enclosing(layers: Layers) -> float:
  """Half the side of a square that holds all crossings of one layer's lines.

  Outside of it nothing but rays goes on: the square has as many pieces as the
  whole plane.

  >>> lines = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([3.0, 0.0])
  >>> enclosing([lines])
  6.0
  """
  ((w, b),) = layers
  first, second = np.triu_indices(len(b), 1)
  matrices = np.stack([w.T[first], w.T[second]], axis=1)
  crossings = np.linalg.solve(
    matrices, -np.stack([b[first], b[second]], -1)[..., None]
  )
  return 2 * max(1.0, float(np.abs(crossings).max()))
