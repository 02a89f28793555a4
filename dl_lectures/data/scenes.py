"""Drawn scenes with exact captions, such as 'red circle left of blue square'.

A scene has two objects, one larger than the other. Its caption names the larger
one first, and then where it lies as seen from the smaller one, so that there is
one right caption. What a caption says is a combination of five parts: two
colours, two shapes, a relation. Some are held out:

- an object that is never seen: of each colour one shape occurs in no scene that
  is learned from, though the colour and the shape do, with others;
- a combination that is never seen: of the captions with none of these objects
  every fifth, though both objects and the relation do occur, with others.

Positions, sizes, shades and noise are drawn for each scene. The split is the
same for every seed. Slides: deck 003, "Image captioning".

Shapes: N scenes, S the side of an image, T words of a caption.
"""

from typing import NamedTuple

import numpy as np

COLOURS = {
  'red': (0.9, 0.15, 0.15),
  'green': (0.15, 0.7, 0.2),
  'blue': (0.2, 0.3, 0.9),
  'yellow': (0.95, 0.85, 0.2),
  'purple': (0.6, 0.2, 0.75),
  'white': (0.95, 0.95, 0.95),
}
SHAPES = ('circle', 'square', 'triangle', 'cross')
# Of the larger one as seen from the smaller one: towards (down, right).
RELATIONS = {
  'left of': (0, -1),
  'right of': (0, 1),
  'above': (-1, 0),
  'below': (1, 0),
}
PAD, START, STOP = range(3)
WORDS = (*COLOURS, *SHAPES, 'left', 'right', 'above', 'below', 'of')
NUM_TOKENS = 3 + len(WORDS)
MAX_WORDS = 6
SIDE = 32  # pixels

_SIZES = len(COLOURS), len(SHAPES), len(RELATIONS), len(COLOURS), len(SHAPES)
NUM_CAPTIONS = int(np.prod(_SIZES))


class Scenes(NamedTuple):
  """Images and what they show.

  Attributes:
    image: [N, S, S, 3] float32, from 0 to 1.
    caption: [N, T + 2] int32: START, the words, STOP, then PAD.
    mask: [N, 2, S, S] bool, the pixels of the objects, the larger one first.
  """

  image: np.ndarray
  caption: np.ndarray
  mask: np.ndarray


class Split(NamedTuple):
  """Numbers of captions.

  Attributes:
    seen: those to learn from.
    new_combination: of seen objects.
    new_object: with an object that no seen caption has.
  """

  seen: np.ndarray
  new_combination: np.ndarray
  new_object: np.ndarray


def split() -> Split:
  """What is learned from, and what is held out.

  >>> [len(part) for part in split()]
  [1036, 260, 1008]
  """
  colour, shape, _, other_colour, other_shape = np.unravel_index(
    np.arange(NUM_CAPTIONS), _SIZES
  )
  new_object = _is_new(colour, shape) | _is_new(other_colour, other_shape)
  order = np.random.default_rng(0).permutation(np.flatnonzero(~new_object))
  every_fifth = np.arange(len(order)) % 5 == 0
  return Split(
    np.sort(order[~every_fifth]),
    np.sort(order[every_fifth]),
    np.flatnonzero(new_object),
  )


def _is_new(colour: np.ndarray, shape: np.ndarray) -> np.ndarray:
  return shape == colour % len(SHAPES)


def caption(number: int) -> str:
  """A caption by its number, from 0 to `NUM_CAPTIONS` - 1.

  >>> caption(0), caption(NUM_CAPTIONS - 1)
  ('red circle left of red circle', 'white cross below white cross')
  """
  colour, shape, relation, other_colour, other_shape = np.unravel_index(
    number, _SIZES
  )
  colours, relations = list(COLOURS), list(RELATIONS)
  return (
    f'{colours[colour]} {SHAPES[shape]} {relations[relation]} '
    f'{colours[other_colour]} {SHAPES[other_shape]}'
  )


def encode(words: str) -> list[int]:
  """Words as tokens.

  >>> encode('red circle left of blue square')
  [3, 9, 13, 17, 5, 10]
  """
  return [3 + WORDS.index(word) for word in words.split()]


def decode(tokens: np.ndarray) -> str:
  """Tokens as words, up to STOP.

  >>> decode(np.array([3, 9, STOP, PAD]))
  'red circle'
  """
  words = []
  for token in tokens:
    if token == STOP:
      break
    words.append(WORDS[token - 3] if token >= 3 else '?')
  return ' '.join(words)


def draw(numbers: np.ndarray, random: np.random.Generator) -> Scenes:
  """Draws a scene for each caption.

  >>> some = draw(np.array([5, 7]), np.random.default_rng(0))
  >>> some.image.shape, decode(some.caption[0, 1:])
  ((2, 32, 32, 3), 'red circle left of green square')

  Args:
    numbers: [N], of captions.
    random: of all that a caption leaves open.
  """
  count = len(numbers)
  parts = np.unravel_index(numbers, _SIZES)
  tokens = np.full((count, MAX_WORDS + 2), PAD, np.int32)
  for i, number in enumerate(np.asarray(numbers).tolist()):
    words = [START, *encode(caption(number)), STOP]
    tokens[i, : len(words)] = words

  # Half of their sides, in pixels.
  sizes = random.uniform((5.0, 3.0), (6.5, 4.0), (count, 2))
  centres = _places(np.array(list(RELATIONS.values()))[parts[2]], random)
  grid = np.moveaxis(np.mgrid[:SIDE, :SIDE], 0, -1) + 0.5
  palette = np.array(list(COLOURS.values()))
  image = random.uniform(0, 0.25, (count, 1, 1, 1))
  image = np.tile(image, (1, SIDE, SIDE, 3))
  masks = []
  for i, (colour, shape) in enumerate((parts[:2], parts[3:])):
    place = (grid - centres[:, i, None, None]) / sizes[:, i, None, None, None]
    inside = np.stack([is_in(*np.moveaxis(place, -1, 0)) for is_in in _INSIDE])
    mask = inside[shape, np.arange(count)]
    shade = palette[colour] * random.uniform(0.8, 1, (count, 1))
    image = np.where(mask[..., None], shade[:, None, None], image)
    masks.append(mask)
  image = image + random.normal(0, 0.03, image.shape)
  image = np.clip(image, 0, 1).astype(np.float32)
  return Scenes(image, tokens, np.stack(masks, axis=1))


def _places(towards: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """Centres of both objects, [N, 2, 2] as (down, right).

  Along the relation they are 11 to 16 pixels apart, across it at most 5; so
  they never touch, and it is clear which relation it is.
  """
  count = len(towards)
  along = random.uniform(11, 16, (count, 1)) * towards
  across = random.uniform(-5, 5, (count, 1)) * towards[:, ::-1]
  offset = along + across
  # Anywhere in the image, no object cut off.
  low = np.maximum(7, 5 + offset)
  high = np.minimum(SIDE - 7, SIDE - 5 + offset)
  larger = random.uniform(low, high)
  return np.stack([larger, larger - offset], axis=1)


# Of each shape, whether places (down, right) from -1 to 1 are in it.
_INSIDE = (
  lambda y, x: y**2 + x**2 <= 1,
  lambda y, x: np.maximum(np.abs(y), np.abs(x)) <= 0.9,
  lambda y, x: (np.abs(x) <= (y + 1) / 2) & (y <= 1),
  lambda y, x: (
    (np.minimum(np.abs(y), np.abs(x)) <= 0.35)
    & (np.maximum(np.abs(y), np.abs(x)) <= 1)
  ),
)
