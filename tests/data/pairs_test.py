"""Pairs as arrays, and orders that do not depend on where one begins."""

import itertools

import numpy as np
import pytest

from dl_lectures.data import pairs
from dl_lectures.types import UsageError

SOME = pairs.pack([[5], [6, 7], [8]] * 3 + [[9]], [[4, 4], [5], [6]] * 3 + [[]])


def test_nothing_is_lost_between_lists_and_arrays():
  sources, targets = [[5, 6, 7], [8]], [[9], [3, 4]]
  some = pairs.pack(sources, targets, (4, 3))
  assert some.source.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
  assert some.target.tolist() == [[1, 9, 2, 0, 0], [1, 3, 4, 2, 0]]
  assert some.lengths.tolist() == [3, 1]


def test_each_epoch_has_every_pair_once_in_an_order_of_its_own():
  batches = list(itertools.islice(pairs.shuffled(SOME, 5, 0, 0), 4))
  first, second = (
    [tuple(row) for batch in half for row in batch.target.tolist()]
    for half in (batches[:2], batches[2:])
  )
  everything = sorted(map(tuple, SOME.target.tolist()))
  assert sorted(first) == sorted(second) == everything
  assert first != second


def test_resumption_goes_on_where_it_was_left():
  whole = list(itertools.islice(pairs.shuffled(SOME, 3, 7, 0), 9))
  for step in (1, 3, 5):
    resumed = next(pairs.shuffled(SOME, 3, 7, step))
    for a, b in zip(resumed, whole[step], strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: pairs.pack([], []), 'an empty source; at least 1'),
    (lambda: pairs.pack([[3], []], [[3], [3]]), 'an empty source'),
    (
      lambda: pairs.pack([[3, 4]], [[3]], (1, 1)),
      'a source of 2 tokens; 1 to 1',
    ),
    (lambda: pairs.pack([[3]], [[3, 4]], (1, 1)), 'a target of 2 tokens'),
    (
      lambda: next(pairs.shuffled(SOME, 11, 0, 0)),
      'a batch of 11 of 10 pairs; 1 to 10',
    ),
  ],
)
def test_what_is_refused(call, message):
  with pytest.raises(UsageError, match=message):
    call()
