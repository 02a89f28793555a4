"""Scenes: captions and pictures agree, and what is held out is never seen."""

import numpy as np
import pytest

from dl_lectures.data import scenes

NOUNS = [f'{c} {s}' for c in scenes.COLOURS for s in scenes.SHAPES]


def nouns(caption: str) -> tuple[str, str]:
  words = caption.split()
  return ' '.join(words[:2]), ' '.join(words[-2:])


@pytest.fixture(scope='module')
def parts():
  return {
    name: [scenes.caption(number) for number in numbers]
    for name, numbers in scenes.split()._asdict().items()
  }


@pytest.fixture(scope='module')
def drawn():
  numbers = np.arange(scenes.NUM_CAPTIONS)
  return scenes.draw(numbers, np.random.default_rng(0))


def test_every_caption_is_in_one_part(parts):
  everything = [caption for part in parts.values() for caption in part]
  assert len(everything) == len(set(everything)) == scenes.NUM_CAPTIONS
  assert scenes.NUM_CAPTIONS == 24 * 4 * 24


def test_combinations_are_new_and_their_parts_are_not(parts):
  seen = {noun for caption in parts['seen'] for noun in nouns(caption)}
  new = {n for c in parts['new_object'] for n in nouns(c)} - seen
  assert len(seen) == 18
  assert seen | new == set(NOUNS)
  # Of each colour one, and of each shape one or two.
  assert {noun.split()[0] for noun in new} == set(scenes.COLOURS)
  assert {noun.split()[1] for noun in new} == set(scenes.SHAPES)
  assert all(set(nouns(c)) & new for c in parts['new_object'])
  assert not any(set(nouns(c)) & new for c in parts['new_combination'])
  # Both objects in both roles, and all relations, are in what is seen.
  for index in range(2):
    assert {nouns(c)[index] for c in parts['seen']} == seen
  words = {word for caption in parts['seen'] for word in caption.split()}
  assert words == set(scenes.WORDS)
  relations = {' '.join(c.split()[2:-2]) for c in parts['seen']}
  assert relations == set(scenes.RELATIONS)


def test_captions_as_tokens():
  for number in range(0, scenes.NUM_CAPTIONS, 97):
    caption = scenes.caption(number)
    tokens = scenes.encode(caption)
    assert len(tokens) <= scenes.MAX_WORDS
    assert scenes.decode(np.array([*tokens, scenes.STOP, 7])) == caption
  assert scenes.decode(np.array([scenes.START, scenes.PAD, 3])) == '? ? red'


def test_the_picture_is_what_the_caption_says(drawn):
  rows, columns = np.mgrid[: scenes.SIDE, : scenes.SIDE]
  for i in range(0, scenes.NUM_CAPTIONS, 7):
    caption = scenes.decode(drawn.caption[i, 1:])
    assert caption == scenes.caption(i)
    places, sizes = [], []
    for mask, noun in zip(drawn.mask[i], nouns(caption), strict=True):
      colour, shape = noun.split()
      found = drawn.image[i][mask].mean(axis=0)
      palette = np.array(list(scenes.COLOURS.values()))
      nearest = np.argmin(((found - 0.9 * palette) ** 2).sum(-1))
      assert list(scenes.COLOURS)[nearest] == colour
      box_rows, box_columns = rows[mask], columns[mask]
      places.append((np.ptp(box_rows), np.ptp(box_columns)))
      sizes.append(max(places[-1]) + 1)
      full = mask.sum() / (places[-1][0] + 1) / (places[-1][1] + 1)
      low, high = {
        'circle': (0.6, 0.95),
        'square': (0.99, 1.01),
        'triangle': (0.4, 0.7),
        'cross': (0.4, 0.8),
      }[shape]
      assert low <= full <= high, (caption, full)
      assert not (mask[0] | mask[-1] | mask[:, 0] | mask[:, -1]).any()
    # The larger one comes first, and they do not touch.
    assert sizes[0] > sizes[1]
    assert not (drawn.mask[i, 0] & drawn.mask[i, 1]).any()
    down, right = (
      np.array([grid[mask].mean() for mask in drawn.mask[i]])
      for grid in (rows, columns)
    )
    offset = down[0] - down[1], right[0] - right[1]
    named = scenes.RELATIONS[' '.join(caption.split()[2:-2])]
    assert np.dot(offset, named) > np.abs(np.dot(offset, named[::-1])) + 3


def test_scenes_of_one_caption_differ():
  some = scenes.draw(np.zeros(2, int), np.random.default_rng(1))
  assert (some.caption[0] == some.caption[1]).all()
  assert not (some.mask[0] == some.mask[1]).all()
  again = scenes.draw(np.zeros(2, int), np.random.default_rng(1))
  np.testing.assert_array_equal(some.image, again.image)
  assert some.image.dtype == np.float32
  assert some.image.min() >= 0
  assert some.image.max() <= 1
