"""Where sequences stand that go on from call to call, and begin anew inside.

Every element has a number, counted from the first that a carry has seen, the
same in all lanes, and every lane knows the number its own sequence began with.
The one is a place in a cache or a ring, the other says what is forgotten.

Shapes: B batch, T time.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from dl_lectures.types import Array


class Clock(NamedTuple):
  """Before the next element.

  Attributes:
    number: [] int32, elements seen so far by each lane, resets or not.
    start: [B] int32, the number of the first element of each lane's sequence.
  """

  number: Array
  start: Array


def zero(batch_size: int) -> Clock:
  """Before the first element of `batch_size` lanes."""
  return Clock(jnp.int32(0), jnp.zeros(batch_size, jnp.int32))


def advance(
  clock: Clock, length: int, reset: Array | None = None
) -> tuple[Array, Array, Clock]:
  """Counts further elements.

  >>> reset = jnp.array([[False, False, True, False]])
  >>> numbers, start, clock = advance(zero(1), 4, reset)
  >>> numbers.tolist(), start.tolist(), clock.start.tolist()
  ([0, 1, 2, 3], [[0, 0, 2, 2]], [2])

  Args:
    clock: before them.
    length: T.
    reset: [B, T] bool, where it is true a new sequence begins.

  Returns:
    Their numbers [T], the number each one's sequence began with [B, T], and the
    clock after them.
  """
  numbers = clock.number + jnp.arange(length)
  start = jnp.broadcast_to(clock.start[:, None], (clock.start.shape[0], length))
  if reset is not None:
    begun = jnp.where(reset, numbers[None], 0)
    start = lax.cummax(jnp.maximum(begun, start), axis=1)
  return numbers, start, Clock(clock.number + length, start[:, -1])
