"""Matches with bots: scores, and ratings on the bots' scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.analysis import capture_matches
from dl_lectures.envs import capture_games
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.types import UsageError

RULES = ctf.Rules(size=9, length=48)


def test_a_score_by_hand():
  score = capture_matches.summarise(np.array([[1, 0]] * 3 + [[2, 2]]))
  assert score.share == 0.875
  assert (score.wins, score.draws, score.num_games) == (3, 1, 4)
  half = 1.96 * np.std([1, 1, 1, 0.5]) / 2
  assert score.interval == pytest.approx((0.875 - half, 1.0))
  assert score.captures == 1.25
  assert score.against == 0.5


def test_ratings_are_on_the_scale_of_the_bots():
  points = np.zeros((4, 4))
  for i in range(4):
    for j in range(i):
      points[i, j], points[j, i] = 96, 32
  marks = capture_matches.rate(points, [], 128)
  equal = {'path follower': 0.5}
  rated = capture_matches.rate(points, [equal, {'tagger': 0.9}], 128)
  assert rated.elo[0] == 0
  np.testing.assert_allclose(rated.elo[:4], marks.elo, atol=40)
  np.testing.assert_allclose(rated.elo[4], rated.elo[1], atol=1)
  assert rated.elo[5] > rated.elo[2] + 200


@pytest.mark.slow
def test_matches_know_the_better_bot():
  match = capture_matches.make_match(
    RULES,
    lambda number: capture_games.bot(RULES, capture_matches._numbered(number)),
  )
  walker, key = jnp.int32(1), jax.random.key(0)
  captures = capture_matches.evaluate(match, walker, key, 128, ['random'])
  score = capture_matches.summarise(captures['random'])
  assert score.share > 0.8
  np.testing.assert_array_equal(captures['random'][:, 1], 0)
  with pytest.raises(
    UsageError, match='a match of 100 games; multiples of 128'
  ):
    match(walker, 'random', key, 100)
