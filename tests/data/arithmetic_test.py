"""Sums as characters: every problem is itself, and none is on both sides."""

import numpy as np
import pytest

from dl_lectures.data import arithmetic, pairs
from dl_lectures.types import UsageError


def test_problems_are_what_their_numbers_say():
  draw = np.random.default_rng(0)
  numbers = draw.integers(0, 10**6, 200)
  some = arithmetic.pairs(numbers, 3)
  assert some.source.shape == (200, 7)
  assert some.target.shape == (200, 6)
  for number, source, length, target in zip(numbers, *some, strict=True):
    problem = arithmetic.decode(source[:length])
    a, b = map(int, problem.split('+'))
    assert (a, b) == divmod(number, 1000)
    assert (source[length:] == pairs.PAD).all()
    assert target[0] == pairs.START
    assert arithmetic.decode(target[1:]) == str(a + b)
  largest = arithmetic.pairs(np.array([999_999]), 3)
  assert arithmetic.decode(largest.target[0][1:]) == '1998'


def test_what_is_held_out_is_never_learned_from():
  learned, held_out = arithmetic.split(1, 30)
  assert len(held_out) == 30
  assert sorted([*learned, *held_out]) == list(range(100))
  again = arithmetic.split(1, 30)
  np.testing.assert_array_equal(learned, again[0])


def test_an_answer_that_is_not_one_is_shown_as_it_is():
  tokens = np.array([3, pairs.START, pairs.PAD, pairs.STOP])
  assert arithmetic.decode(tokens) == '0??'


@pytest.mark.parametrize(
  ('digits', 'held_out', 'message'),
  [
    (5, 10, 'sums of 5 digits; 1 to 4'),
    (1, 100, '100 problems held out; 1 to 99'),
    (1, 0, '0 problems held out'),
  ],
)
def test_what_is_refused(digits, held_out, message):
  with pytest.raises(UsageError, match=message):
    arithmetic.split(digits, held_out)
