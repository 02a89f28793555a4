"""Sets of squares as words, against Python's sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import bits

COMPASS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
LEAPS = ((-2, 1), (-1, 2), (1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1))
# Side of the board, bits of a word.
BOARDS = ((8, 32), (9, 27))


def step(square, move, side):
  row, column = divmod(square, side)
  row, column = row + move[0], column + move[1]
  inside = 0 <= row < side and 0 <= column < side
  return side * row + column if inside else None


def reach(start, move, side):
  moved = [step(square, move, side) for square in sorted(start)]
  return [square for square in moved if square is not None]


def slide(start, through, move, side):
  found = set()
  for square in start:
    square = step(square, move, side)
    while square is not None:
      found.add(square)
      square = step(square, move, side) if square in through else None
  return sorted(found)


@pytest.mark.parametrize(('side', 'width'), BOARDS)
def test_steps_and_rays(side, width):
  """100 random sets on boards from empty to crowded, each way."""
  size, cases = side * side, 100
  queen = bits.directions(COMPASS, side, side, width)
  leaps = bits.directions(LEAPS, side, side, width)

  @jax.jit
  @jax.vmap
  def all_of(words, through):
    return (
      bits.steps(words[:, None], queen),
      bits.steps(words[:, None], bits.opposite(queen)),
      bits.steps(words[:, None], leaps),
      bits.rays(words[:, None], through[:, None], queen),
    )

  rng = np.random.default_rng(0)
  members = rng.random((cases, 2, size)) < rng.random((cases, 2, 1))
  members[::2, 1] |= rng.random((cases // 2, size)) < 0.9  # long rays
  words = bits.pack(members.reshape(-1, size).T, width).T.reshape(cases, 2, -1)
  found = jax.device_get(all_of(words[:, 0], words[:, 1]))
  for case in range(cases):
    start, through = (set(np.flatnonzero(m).tolist()) for m in members[case])
    moved, back, leapt, seen = (set_of[case] for set_of in found)
    for lane, move in enumerate(COMPASS):
      turned = (-move[0], -move[1])
      assert bits.squares(moved[:, lane], width) == reach(start, move, side)
      assert bits.squares(back[:, lane], width) == reach(start, turned, side)
      expected = slide(start, through, move, side)
      assert bits.squares(seen[:, lane], width) == expected
    for lane, move in enumerate(LEAPS):
      assert bits.squares(leapt[:, lane], width) == reach(start, move, side)


@pytest.mark.parametrize(('side', 'width'), BOARDS)
def test_squares_there_and_back(side, width):
  size = side * side
  rng = np.random.default_rng(0)
  members = rng.random((size, 3)) < 0.4
  words = bits.pack(members, width)
  assert words.dtype == np.uint32
  assert words.shape == (-(-size // width), 3)
  assert (words < 1 << width).all()
  np.testing.assert_array_equal(
    bits.members(jnp.asarray(words), width)[:size], members
  )


def test_words_by_hand():
  np.testing.assert_array_equal(bits.place([0, 31, 33], 64), [0x80000001, 2])
  np.testing.assert_array_equal(bits.place([26, 27], 81, 27), [1 << 26, 1, 0])
  square = jax.jit(bits.square)
  for number in (-1, 0, 31, 32, 63, 64):
    expected = [number] if 0 <= number < 64 else []
    found = square(number)
    assert bits.squares(found) == expected


def test_shift_carries_between_words_and_loses_what_leaves_them():
  words = jnp.asarray(bits.place([0, 31, 32, 63], 64))[:, None]
  by = np.array([1, -1, 36, 32, -33, 31, 64])
  moved = np.asarray(jax.jit(lambda w: bits.shift(w, by))(words))
  for lane, amount in enumerate(by):
    kept = [s + amount for s in (0, 31, 32, 63) if 0 <= s + amount < 64]
    assert bits.squares(moved[:, lane]) == kept


def test_union_and_settle():
  words = jnp.asarray([[1, 2], [4, 0xF0000000]], jnp.uint32)
  np.testing.assert_array_equal(bits.settle(words), words)
  np.testing.assert_array_equal(bits.union(words), [3, 0xF0000004])
  np.testing.assert_array_equal(bits.union(words, axis=0), [5, 0xF0000002])
