"""Medians: intervals that hold them, ratios, ranks."""

import itertools

import numpy as np
import pytest

from dl_lectures.analysis import statistics


def test_an_interval_is_that_of_order_statistics():
  low, high = statistics.median_interval(np.arange(1.0, 100.0))
  # Of rank n/2 -+ 1.96 sqrt(n)/2.
  assert low == pytest.approx(40, abs=3)
  assert high == pytest.approx(60, abs=3)
  narrow = statistics.median_interval(np.arange(1.0, 100.0), 0.5)
  assert low < narrow[0] < 50 < narrow[1] < high


def test_the_bootstrap_of_a_mean_is_its_normal_interval():
  values = np.random.default_rng(1).normal(3, 2, size=400)
  low, high = statistics.bootstrap(lambda which: values[which].mean(), 400)
  spread = 1.96 * values.std() / 20
  assert low == pytest.approx(values.mean() - spread, abs=0.03)
  assert high == pytest.approx(values.mean() + spread, abs=0.03)


def test_intervals_hold_the_median_as_often_as_they_say():
  draw = np.random.default_rng(0)
  held = [
    low <= np.log(2) <= high
    for low, high in (
      statistics.median_interval(draw.exponential(size=60), 0.9)
      for _ in range(200)
    )
  ]
  assert 0.82 < np.mean(held) < 0.97


def test_what_is_always_the_same_has_no_width():
  assert statistics.median_interval([5, 5, 5]) == (5, 5)
  ratio, interval = statistics.median_ratio([6, 6], [3, 3, 3])
  assert (ratio, interval) == (2, (2, 2))


def test_a_ratio_does_not_depend_on_the_order_of_runs():
  more = np.random.default_rng(0).exponential(size=50)
  # Resamples of one are not those of the other, also if they are the same.
  ratio, (low, high) = statistics.median_ratio(more, more)
  assert ratio == 1
  assert low < 0.9
  assert high > 1.1
  shuffled = np.random.default_rng(1).permutation(more)
  _, other = statistics.median_ratio(shuffled, more)
  np.testing.assert_allclose(other, (low, high), rtol=0.1)


def test_ranks_against_all_orders():
  """Every way to deal out five numbers is as likely as any other."""
  numbers = [1.0, 2.0, 3.5, 7.0, 9.0]
  first, second = [1.0, 2.0], [3.5, 7.0, 9.0]

  def below(chosen):
    rest = [x for x in numbers if x not in chosen]
    return sum(a < b for a in chosen for b in rest)

  all_ways = [below(c) for c in itertools.combinations(numbers, 2)]
  far = abs(below(first) - 3)
  expected = np.mean([abs(count - 3) >= far for count in all_ways])
  assert statistics.rank_sum(first, second) == pytest.approx(expected)
