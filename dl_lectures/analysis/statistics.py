"""Runs that are told apart: by the bootstrap and by ranks.

How long a learner takes has a long tail, and a run that is stopped has no end:
medians and ranks bear both. Resamples are always the same draws, so that what
is printed twice is the same twice.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapters
6 and 13; Mann & Whitney, "On a test of whether one of two random variables is
stochastically larger than the other", 1947.
"""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000


def median_interval(
  values: Sequence[float] | np.ndarray, level: float = 0.95
) -> tuple[float, float]:
  """An interval of the median, by the bootstrap's percentiles.

  Args:
    values: of N runs, one at least.
    level: how much of it the interval holds, from 0 to 1.

  >>> low, high = median_interval(range(100))
  >>> 35 < low < 49.5 < high < 65
  True
  """
  return _percentiles(_medians(values), level)


def median_ratio(
  more: Sequence[float] | np.ndarray,
  fewer: Sequence[float] | np.ndarray,
  level: float = 0.95,
) -> tuple[float, tuple[float, float]]:
  """The ratio of two medians, with its interval by the bootstrap.

  Args:
    more: of the runs whose median is divided.
    fewer: of those by whose median it is.
    level: how much of it the interval holds.

  >>> more, fewer = range(40, 4040, 40), range(10, 1010, 10)
  >>> ratio, (low, high) = median_ratio(more, fewer)
  >>> ratio, low < 4 < high
  (4.0, True)
  """
  # Other draws for the other runs: seeds may be paired, resamples are not.
  ratios = _medians(more) / _medians(fewer)[::-1]
  ratio = float(np.median(more) / np.median(fewer))
  return ratio, _percentiles(ratios, level)


def bootstrap(
  statistic: Callable[[np.ndarray], float], size: int, level: float = 0.95
) -> tuple[float, float]:
  """An interval of what is not a mean, by the bootstrap's percentiles.

  Args:
    statistic: of those that are drawn, given by their numbers [N].
    size: N, how many there are.
    level: how much of it the interval holds.

  >>> values = np.arange(100)
  >>> low, high = bootstrap(lambda which: values[which].mean(), 100)
  >>> 40 < low < 49.5 < high < 60
  True
  """
  draw = np.random.default_rng(0)
  found = [statistic(draw.integers(size, size=size)) for _ in range(RESAMPLES)]
  return _percentiles(np.array(found), level)


def rank_sum(
  first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> float:
  """The two-sided p of Mann and Whitney's test.

  How likely two sets of runs are to differ so much in their ranks if they are
  alike.

  Args:
    first: of some runs.
    second: of others.

  >>> rank_sum(range(50), range(50)) > 0.9
  True
  >>> rank_sum(range(9), range(8, 17)) < 0.01
  True
  """
  from scipy import stats

  return float(stats.mannwhitneyu(first, second).pvalue)


def _medians(values: Sequence[float] | np.ndarray) -> np.ndarray:
  """[2000], each of N draws with replacement."""
  values = np.asarray(values)
  draw = np.random.default_rng(0)
  numbers = draw.integers(len(values), size=(RESAMPLES, len(values)))
  return np.median(values[numbers], axis=-1)


def _percentiles(found: np.ndarray, level: float) -> tuple[float, float]:
  tail = (1 - level) / 2
  low, high = np.quantile(found, (tail, 1 - tail))
  return float(low), float(high)
