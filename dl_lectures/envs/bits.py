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

Source: rays in three doublings are Kogge-Stone's parallel prefix (IEEE Trans.
Comp. C-22, 1973), as the Chess Programming Wiki describes them for sliding
pieces.
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
  return jnp.stack(_shift(list(words), np.asarray(by), bits))


# Word by word, and joined at the end: where words were rows of one array, an
# element would depend on its neighbour at every shift, and XLA:CPU computes
# what is shared once for each that depends on it.


def _shift(words: list[Array], by: np.ndarray, bits: int) -> list[Array]:
  return [_word(words, by - word * bits, bits) for word in range(len(words))]


def _word(words: list[Array], by: np.ndarray, bits: int) -> Array:
  """Returns the first word after a shift that may bring any other into it."""
  total = None
  for number, word in enumerate(words):
    up = by + number * bits
    for left in (True, False):
      # Amounts stay within 0 ... 31, where the machine's own shift needs no
      # guard.
      amount = up if left else -up
      used = (amount < bits) & (amount >= 0 if left else amount > 0)
      if not used.any():
        continue
      shape = (*(1,) * (word.ndim - 1), len(by))
      amount = np.where(used, amount, 0).astype(np.uint32).reshape(shape)
      moved = word << amount if left else word >> amount
      if not used.all():
        moved &= np.where(used, _ALL, np.uint32(0)).reshape(shape)
      total = moved if total is None else total | moved
  if total is None:
    return jnp.zeros((*words[0].shape[:-1], len(by)), jnp.uint32)
  return total & np.uint32((1 << bits) - 1) if bits < 32 else total


def steps(words: Array, ways: Directions) -> Array:
  """Moves each set one step: [W, ..., 1 or D] -> [W, ..., D]."""
  return jnp.stack(_steps(list(words), ways))


def rays(words: Array, through: Array, ways: Directions) -> Array:
  """Returns the squares that sliders attack, up to eight away.

  Args:
    words: [W, ..., 1 or D] where the sliders stand.
    through: [W, ..., 1 or D] squares that do not stop them; where they stand
      themselves need not be among them.
    ways: one direction per set of the last axis.

  Returns:
    [W, ..., D], settled: all squares on the way and the one that stops it.
  """
  filled = list(words)
  through_it = [
    word & _aligned(onto, word.ndim)
    for word, onto in zip(through, ways.onto, strict=True)
  ]
  for distance in (1, 2, 4):
    by = ways.by * distance
    reached = _shift(filled, by, ways.bits)
    filled = [
      old | free & new
      for old, free, new in zip(filled, through_it, reached, strict=True)
    ]
    if distance < 4:
      before = _shift(through_it, by, ways.bits)
      through_it = [a & b for a, b in zip(through_it, before, strict=True)]
  return jnp.stack([settle(word) for word in _steps(filled, ways)])


def _steps(words: list[Array], ways: Directions) -> list[Array]:
  return [
    word & _aligned(onto, word.ndim)
    for word, onto in zip(
      _shift(words, ways.by, ways.bits), ways.onto, strict=True
    )
  ]


def _aligned(onto: np.ndarray, ndim: int) -> np.ndarray:
  """Returns [D] as [1, ..., D]."""
  return onto.reshape(*(1,) * (ndim - 1), -1)


def union(words: Array, axis: int | tuple[int, ...] = -1) -> Array:
  """Returns the union of the sets along axes; also a fusion barrier."""
  axes = (axis,) if isinstance(axis, int) else axis
  axes = tuple(each % words.ndim for each in axes)
  return lax.reduce(words, words.dtype.type(0), lax.bitwise_or, axes)


def settle(words: Array) -> Array:
  """Returns its argument (unsigned), computed once however often it is used.

  XLA:CPU computes a fused producer again for every element of every consumer,
  and `lax.optimization_barrier` does not keep it from that; a reduction does.
  Put it on what is dear and read in many places: the packed moves before they
  are spread over the board took 33 us without and 3 us with it.
  """
  every = np.iinfo(words.dtype).max
  pair = np.array([every, 1], words.dtype).reshape(*(1,) * words.ndim, 2)
  return union(words[..., None] & pair)
