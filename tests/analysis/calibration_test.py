"""Calibration: the likeliest curve, its limits, and what it is worth."""

import math

import numpy as np
import pytest

from dl_lectures.analysis import calibration
from dl_lectures.types import UsageError


def drawn(count=4000, slope=2.0, offset=-1.0):
  draw = np.random.default_rng(0)
  scores = draw.normal(size=count)
  p = calibration.probability(calibration.Curve(slope, offset), scores)
  return scores, (draw.random(count) < p).astype(int)


def test_the_curve_that_drew_the_labels_is_found():
  scores, labels = drawn()
  curve = calibration.platt(scores, labels)
  assert curve.slope == pytest.approx(2, abs=0.2)
  assert curve.offset == pytest.approx(-1, abs=0.15)


def test_it_is_scikit_learns_where_labels_are_many():
  from sklearn import linear_model

  scores, labels = drawn(20_000)
  free = linear_model.LogisticRegression(C=np.inf, tol=1e-8)
  free.fit(scores[:, None], labels)
  curve = calibration.platt(scores, labels)
  assert curve.slope == pytest.approx(free.coef_[0, 0], rel=2e-3)
  assert curve.offset == pytest.approx(free.intercept_[0], rel=2e-3)


def test_blanks_say_nothing_and_units_do_not_matter():
  scores, labels = drawn(500)
  curve = calibration.platt(scores, labels)
  more = calibration.platt(
    np.append(scores, [99.0, -99.0]), np.append(labels, [-1, -1])
  )
  assert more == curve
  scaled = calibration.platt(1000 * scores + 7, labels)
  assert scaled.slope == pytest.approx(curve.slope / 1000)


@pytest.mark.parametrize(
  ('scores', 'labels', 'p'),
  [
    # Platt's targets: one more of either kind has been seen.
    ([1.0, 2.0, 3.0], [0, 0, 0], 1 / 5),
    ([1.0, 2.0, 3.0], [1, 1, 1], 4 / 5),
    # The same score for all, and the wrong way round.
    ([1.0, 1.0], [0, 1], 1 / 2),
    ([1.0, 2.0], [1, 0], 1 / 2),
  ],
)
def test_where_scores_say_nothing_the_curve_is_flat(scores, labels, p):
  curve = calibration.platt(np.array(scores), np.array(labels))
  assert curve.slope == 0
  found = calibration.probability(curve, np.array([-5.0, 5.0]))
  np.testing.assert_allclose(found, p, atol=1e-9)


def test_a_few_that_are_told_apart_are_not_certain():
  curve = calibration.platt(np.arange(6.0), np.array([0, 0, 0, 1, 1, 1]))
  p = calibration.probability(curve, np.arange(6.0))
  assert np.all(np.diff(p) > 0)
  # The mean target of either kind is Platt's.
  np.testing.assert_allclose(p.sum(), 3, atol=1e-6)
  assert p[-1] < 0.999


def test_log_loss_by_hand():
  p, labels = np.array([[0.8, 0.5], [0.4, 0.1]]), np.array([[1, -1], [0, 1]])
  expected = -(math.log(0.8) + math.log(0.6) + math.log(0.1)) / 3
  assert calibration.log_loss(p, labels) == pytest.approx(expected)
  assert math.isnan(calibration.log_loss(p, labels * 0 - 1))


def test_calibrated_scores_cost_less_and_say_what_is_so():
  scores, labels = drawn()
  half = len(scores) // 2
  curve = calibration.platt(scores[:half], labels[:half])
  rest, so = scores[half:], labels[half:]
  p = calibration.probability(curve, rest)
  raw = calibration.probability(calibration.Curve(1.0, 0.0), rest)
  assert calibration.log_loss(p, so) < calibration.log_loss(raw, so) - 0.02
  said, active, count = calibration.reliability(p, so, 5)
  np.testing.assert_allclose(said, active, atol=0.06)
  assert count.tolist() == [400] * 5


def test_nothing_to_fit():
  with pytest.raises(UsageError, match='no label to fit a curve to'):
    calibration.platt(np.zeros(3), np.full(3, -1))
