"""Ratings against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dl_lectures.ops import ratings


def test_two_players_have_a_closed_form():
  # 3 : 1 is odds of 3, so 400 log10(3) points.
  rated = ratings.bradley_terry(np.array([[0, 10], [30, 0]]), prior_games=0)
  np.testing.assert_allclose(rated.elo, [0, 400 * np.log10(3)], atol=1e-6)
  # The information of n games at odds p is n p (1 - p).
  error = ratings.ELO_PER_NAT / np.sqrt(40 * 0.75 * 0.25)
  np.testing.assert_allclose(rated.error, [0, error], rtol=1e-6)


def test_a_clean_sweep_is_finite_and_an_even_score_is_even():
  rated = ratings.bradley_terry(np.array([[0.0, 0, 5], [20, 0, 0], [5, 0, 0]]))
  assert 400 < rated.elo[1] < 800
  assert abs(rated.elo[2]) < 1e-6


@given(st.lists(st.integers(-800, 800), min_size=2, max_size=5))
def test_expected_points_give_the_ratings_back(elo):
  elo = np.array([0, *elo], float)
  games = 100 * (1 - np.eye(len(elo)))
  points = games * ratings.expected_score(elo[:, None] - elo[None, :])
  rated = ratings.bradley_terry(points, prior_games=0)
  np.testing.assert_allclose(rated.elo, elo, atol=1e-3)


def test_strangers_have_no_common_scale():
  points = np.zeros((4, 4))
  points[0, 1] = points[2, 3] = 1
  with pytest.raises(ValueError, match='never met'):
    ratings.bradley_terry(points)


def test_wilson_interval_contains_the_share_and_stays_a_share():
  for successes, trials in ((0, 5), (5, 5), (320, 400)):
    low, high = ratings.wilson_interval(successes, trials)
    assert -1e-12 <= low <= successes / trials <= high <= 1 + 1e-12
  # Newcombe 1998, table I, 81 of 263.
  low, high = ratings.wilson_interval(81, 263)
  np.testing.assert_allclose([low, high], [0.2553, 0.3662], atol=1e-4)
