"""Clocks against counting lane by lane."""

import jax.numpy as jnp
import numpy as np

from dl_lectures.nets import clock


def test_numbers_and_starts_go_on_from_call_to_call():
  draw = np.random.default_rng(0)
  reset = draw.random((3, 12)) < 0.3
  now, numbers, starts = clock.zero(3), [], []
  for piece in (slice(0, 5), slice(5, 6), slice(6, 12)):
    part = None if piece.start == 5 else jnp.asarray(reset[:, piece])
    n, s, now = clock.advance(now, piece.stop - piece.start, part)
    numbers.append(n)
    starts.append(s)
  reset[:, 5] = False  # None was given
  assert np.concatenate(numbers).tolist() == list(range(12))
  expected = np.zeros((3, 12), int)
  for lane in range(3):
    start = 0
    for t in range(12):
      start = t if reset[lane, t] else start
      expected[lane, t] = start
  np.testing.assert_array_equal(np.concatenate(starts, axis=1), expected)
  assert int(now.number) == 12
  np.testing.assert_array_equal(now.start, expected[:, -1])
