"""Bitboards: sets of squares as words of uint32, and how they move.

A set of squares is a uint32 array [W, ...] of W words, x64 being off; square s
is bit s % bits of word s // bits, with `bits` of each word in use (chess: 2
words of 32; shogi: 3 of 27). Axes after the first hold many sets at once, the
last one usually a set per direction, so that all directions move in one
operation:

  squares  [W, 1]  one set       steps(squares, QUEEN)  [W, 8]  moved one step
                                                         in each direction

&, | and ~ are intersection, union and complement. Nothing here is batched:
`jax.vmap` does that.

Source: fills in O(log n) are Kogge-Stone's parallel prefix (IEEE Trans. Comp.
C-22, 1973), as the Chess Programming Wiki describes them for sliding pieces.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from dl_lectures.types import Array

_ALL = np.uint32(0xFFFFFFFF)


class Directions(NamedTuple):
  """D ways to step over a board; constants, never traced.

  Attributes:
    by: [D] int, what a step adds to the number of a square.
    onto: [W, D] uint32, the squares a step can arrive on; others would be
      reached over an edge.
    bits: bits in use of a word.
  """

  by: np.ndarray
  onto: np.ndarray
  bits: int


def directions(
  moves: Sequence[tuple[int, int]], major: int, minor: int, bits: int = 32
) -> Directions:
  """Returns the steps (d_major, d_minor) over squares major * minor_size + ...

  Args:
    moves: of each direction, what it adds to the two coordinates of a square.
    major: the board's length along the coordinate that numbers squares in
      leaps of `minor`.
    minor: its length along the other one.
    bits: bits in use of a word.

  Example: a knight's leap in the corner of a chess board.

  >>> leap = directions([(2, 1)], 8, 8)
  >>> corner = jnp.asarray(place([0], 64))
  >>> squares(steps(corner[:, None], leap)[:, 0])
  [17]
  """
  first, second = np.divmod(np.arange(major * minor), minor)
  onto = [
    (first - a >= 0)
    & (first - a < major)
    & (second - b >= 0)
    & (second - b < minor)
    for a, b in moves
  ]
  by = np.array([a * minor + b for a, b in moves])
  return Directions(by, pack(np.array(onto).T, bits), bits)


def opposite(ways: Directions) -> Directions:
  """Returns every direction turned round, in the same order.

  Each must have its opposite among them.
  """
  order = [int(np.flatnonzero(ways.by == -by)[0]) for by in ways.by]
  return Directions(ways.by[order], ways.onto[:, order], ways.bits)


def pack(members: np.ndarray, bits: int = 32) -> np.ndarray:
  """Returns sets as words: [squares, ...] bool -> [W, ...] uint32 (numpy)."""
  words = -(-len(members) // bits)
  padded = np.zeros((words * bits, *members.shape[1:]), bool)
  padded[: len(members)] = members
  padded = padded.reshape(words, bits, *members.shape[1:])
  weights = np.uint32(1) << np.arange(bits, dtype=np.uint32)
  return np.tensordot(weights, padded.astype(np.uint32), axes=(0, 1)).astype(
    np.uint32
  )


def place(numbers: Sequence[int], size: int, bits: int = 32) -> np.ndarray:
  """Returns the set of these squares of `size`, [W] uint32 (numpy)."""
  members = np.zeros(size, bool)
  members[list(numbers)] = True
  return pack(members, bits)


def squares(words: Array | np.ndarray, bits: int = 32) -> list[int]:
  """Returns the squares of one set [W] in order (host)."""
  numbers = np.arange(bits, dtype=np.uint32)
  found = np.asarray(words)[:, None] >> numbers & np.uint32(1)
  return [int(number) for number in np.flatnonzero(found)]


def members(words: Array, bits: int = 32) -> Array:
  """Returns [W, ...] uint32 sets as [W * bits, ...] bool."""
  numbers = np.arange(bits, dtype=np.uint32).reshape(
    1, bits, *(1,) * (words.ndim - 1)
  )
  found = (words[:, None] >> numbers & np.uint32(1)) != 0
  return found.reshape(words.shape[0] * bits, *words.shape[1:])


def square(number: Array, words: int = 2, bits: int = 32) -> Array:
  """Returns the set of one square, [W] uint32; none for a number outside.

  Args:
    number: [] int32.
    words: W.
    bits: bits in use of a word.
  """
  offset = number - np.arange(words) * bits
  inside = (offset >= 0) & (offset < bits)
  amount = jnp.where(inside, offset, 0).astype(jnp.uint32)
  return inside.astype(jnp.uint32) << amount


def shift(words: Array, by: np.ndarray, bits: int = 32) -> Array:
  """Adds `by` to the number of every square: [W, ..., 1 or D] -> [W, ..., D].

  Squares that leave the words are lost; those that leave the board over an
  edge are for the caller to mask (`steps` does).

  Args:
    words: the sets.
    by: [D] int, constants.
    bits: bits in use of a word.
  """
  num_words, by = words.shape[0], np.asarray(by)
  total = None
  for carry in range(1 - num_words, num_words):
    # What word w takes from word w - carry. Constants [W, D]; amounts stay
    # within 0 ... 31, where the machine's own shift needs no guard.
    word = np.arange(num_words)[:, None]
    here = (word - carry >= 0) & (word - carry < num_words)
    up = by[None] - carry * bits
    for left in (True, False):
      amount = up if left else -up
      used = here & (amount < bits) & (amount >= 0 if left else amount > 0)
      if not used.any():
        continue
      shape = (num_words, *(1,) * (words.ndim - 2), len(by))
      amount = np.where(used, amount, 0).astype(np.uint32).reshape(shape)
      source = jnp.roll(words, carry, axis=0) if carry else words
      moved = source << amount if left else source >> amount
      if not used.all():
        moved &= np.where(used, _ALL, np.uint32(0)).reshape(shape)
      total = moved if total is None else total | moved
  if total is None:
    raise ValueError(f'a shift by {by} leaves every word')
  if bits < 32:
    total &= np.uint32((1 << bits) - 1)
  return total


def steps(words: Array, ways: Directions) -> Array:
  """Moves each set one step: [W, ..., 1 or D] -> [W, ..., D]."""
  return shift(words, ways.by, ways.bits) & _aligned(ways.onto, words.ndim)


def fill(words: Array, through: Array, ways: Directions) -> Array:
  """Adds to each set the squares its members slide over, up to seven each.

  Args:
    words: [W, ..., 1 or D] where the sliders stand.
    through: [W, ..., 1 or D] squares that do not stop them (`words` need not
      be among them).
    ways: one direction per set of the last axis.

  Returns:
    [W, ..., D]; a `steps` of it is all that the sliders attack.
  """
  through = through & _aligned(ways.onto, through.ndim)
  for distance in (1, 2, 4):
    by = ways.by * distance
    words = words | through & shift(words, by, ways.bits)
    if distance < 4:
      through &= shift(through, by, ways.bits)
  return words


def union(words: Array, axis: int = -1) -> Array:
  """Returns the union of the sets along an axis; also a fusion barrier."""
  axis %= words.ndim
  return lax.reduce(words, np.uint32(0), lax.bitwise_or, (axis,))


def settle(words: Array) -> Array:
  """Returns its argument, computed once however often it is used.

  XLA:CPU computes a fused producer again for every element of every consumer,
  and `lax.optimization_barrier` does not keep it from that; a reduction does.
  Put it on what is dear and read in many places: the packed moves before they
  are spread over the board took 33 us without and 3 us with it.
  """
  pair = words[..., None] & np.array([0xFFFFFFFF, 1], np.uint32).reshape(
    *(1,) * words.ndim, 2
  )
  return union(pair)


def _aligned(onto: np.ndarray, ndim: int) -> np.ndarray:
  return onto.reshape(onto.shape[0], *(1,) * (ndim - 2), onto.shape[1])
