"""Points of a plane in two classes: what a small network draws a border in.

The four sets of the playground (Smilkov et al., "Direct-manipulation
visualization of deep networks", 2017; playground.tensorflow.org), in its plane,
where a coordinate goes from -6 to 6:

  circle   a disc of radius 2.5, which is class 1, in a ring from 3.5 to 5
  xor      the four quadrants, to 5 on each side; 1 where the signs are equal
  gauss    two clouds about (2, 2) and (-2, -2), of deviation .7
  spiral   two arms that turn around each other, 1.75 times each

Linear are the borders of none but gauss. Slides: deck 004, "What can a network
of one hidden layer do", "Playground"; deck 001, "Classification".

Shapes: N points.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from dl_lectures.types import UsageError

# The side of the plane to draw is from -SIDE to SIDE.
SIDE = 6.0
_RADIUS = 5.0  # within which all points are, but for noise and clouds
_GAP = 0.3  # between a quadrant and the axes
_TURNS = 1.75 * 2 * np.pi  # of an arm, in radians


class Points(NamedTuple):
  """Points and their classes.

  Attributes:
    x: [N, 2] float32.
    label: [N] int32, 0 or 1; every other point is of class 1.
  """

  x: np.ndarray
  label: np.ndarray


def draw(
  name: str, number: int, *, noise: float = 0.0, seed: int = 0
) -> Points:
  """Points of a set, independent of each other but for their classes.

  Any part of them has both classes alike, give or take one: the first half may
  be learned from and the second half judged.

  Args:
    name: of `SETS`.
    number: N, at least 1.
    noise: the standard deviation by which each coordinate is moved, after the
      class has been given; .5 to 1 makes classes overlap.
    seed: of everything drawn.

  Raises:
    UsageError: there is no such set, or a number is out of range.

  >>> points = draw('xor', 4)
  >>> points.label.tolist(), (points.x.prod(axis=1) > 0).astype(int).tolist()
  ([0, 1, 0, 1], [0, 1, 0, 1])
  """
  if name not in SETS:
    raise UsageError(f'set {name!r} is unknown; possible: {", ".join(SETS)}')
  if number < 1:
    raise UsageError(f'{number} points; at least 1 is possible')
  if not 0 <= noise < np.inf:
    raise UsageError(f'noise of {noise}; at least 0 is possible')
  random = np.random.default_rng(seed)
  label = np.arange(number) % 2
  x = SETS[name](label, random)
  x = x + noise * random.normal(size=x.shape)
  return Points(x.astype(np.float32), label.astype(np.int32))


def corners(side: float = 4.0) -> Points:
  """The four points of exclusive or: class 1 where exactly one is positive.

  The classes are those of logic, the other way round than in `draw`, whose
  class 1 is where the signs are equal.

  Args:
    side: their coordinates are -side and side.

  >>> corners(1).x.tolist()
  [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
  >>> corners().label.tolist()
  [0, 1, 1, 0]
  """
  signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
  label = (signs.prod(axis=1) < 0).astype(np.int32)
  return Points(signs * np.float32(side), label)


def _circle(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
  # The disc is class 1. Its radii are uniform, so its middle is dense.
  low, high = np.where(label, 0.0, 0.7), np.where(label, 0.5, 1.0)
  radius = _RADIUS * random.uniform(low, high)
  angle = random.uniform(0, 2 * np.pi, len(label))
  return _polar(radius, angle)


def _xor(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
  size = random.uniform(_GAP, _RADIUS, (len(label), 2))
  sign = random.choice([-1, 1], len(label))
  return size * np.stack([sign, sign * (2 * label - 1)], axis=1)


def _gauss(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
  centre = 2.0 * (2 * label - 1)[:, None]
  return centre + 0.7 * random.normal(size=(len(label), 2))


def _spiral(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
  along = random.uniform(0, 1, len(label))
  return _polar(_RADIUS * along, _TURNS * along + np.pi * label)


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
  return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


# (labels [N], random) -> points [N, 2], before the noise.
SETS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
  'circle': _circle,
  'xor': _xor,
  'gauss': _gauss,
  'spiral': _spiral,
}
