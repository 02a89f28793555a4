"""Matchmaking: everybody plays once, equals meet, ratings are found."""

import functools

import hypothesis
import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.ops import matchmaking, ratings
from dl_lectures.types import UsageError


@functools.cache
def compiled(players):
  draw = functools.partial(matchmaking.draw_games, players=players)
  return jax.jit(draw)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
  some.integers(0, 2**31 - 1),
  some.lists(some.floats(-4000, 4000, width=32), min_size=12, max_size=12),
  some.sampled_from((1, 2, 4, 12)),
)
def test_each_agent_plays_exactly_once_a_round(seed, elo, players):
  games = compiled(players)(jax.random.key(seed), jnp.array(elo, jnp.float32))
  assert games.shape == (12 // players, players)
  assert games.dtype == jnp.int32
  assert sorted(np.asarray(games).reshape(-1)) == list(range(12))


def test_who_meets_whom_is_drawn_by_the_weights():
  # Agent 0 first or not: among two games of two, the pairings are three.
  elo = jnp.array([0.0, 100.0, 250.0, 300.0])
  keys = jax.random.split(jax.random.key(0), 20000)
  games = np.asarray(
    jax.jit(jax.vmap(lambda key: matchmaking.draw_games(key, elo, 2)))(keys)
  )
  mate_of_0 = np.array(
    [int(row[row != 0][0]) for game in games for row in game if 0 in row]
  )
  share = np.bincount(mate_of_0, minlength=4) / len(keys)
  chance = np.asarray(ratings.expected_score(np.subtract.outer(elo, elo)))
  weight = np.exp(-((chance - 0.5) ** 2) * 18)
  np.fill_diagonal(weight, 0)
  pick = weight / weight.sum(1, keepdims=True)
  # Whoever is first picks its rival; the other two are left.
  expected = np.zeros(4)
  for first in range(4):
    for rival in range(4):
      if rival != first:
        pair = {first, rival}
        if 0 not in pair:
          pair = set(range(4)) - pair
        expected[(pair - {0}).pop()] += pick[first, rival] / 4
  np.testing.assert_allclose(share, expected, atol=0.015)


def test_seats_are_drawn():
  keys = jax.random.split(jax.random.key(1), 4000)
  elo = jnp.zeros(4)
  games = jax.jit(jax.vmap(lambda key: matchmaking.draw_games(key, elo, 4)))
  seats = np.asarray(games(keys))[:, 0]
  for agent in range(4):
    counts = (seats == agent).mean(0)
    np.testing.assert_allclose(counts, 0.25, atol=0.03)


def test_expected_scores_are_those_of_the_ratings():
  elo = np.linspace(-800, 800, 9)
  ours = matchmaking.win_probability(jnp.array(elo, jnp.float32), jnp.zeros(9))
  np.testing.assert_allclose(ours, ratings.expected_score(elo), atol=1e-6)


def test_planted_ratings_are_found_by_teams():
  planted = jnp.array([-300.0, -200, -100, 0, 0, 100, 200, 300])

  @jax.jit
  def play(elo, key):
    def one_round(elo, key):
      game_key, win_key, rate = key[0], key[1], 12.0
      games = matchmaking.draw_games(game_key, elo, 4)
      teams = planted[games].reshape(-1, 2, 2).mean(2)
      chance = matchmaking.win_probability(teams[:, 0], teams[:, 1])
      won = jax.random.uniform(win_key, chance.shape) < chance
      elo = matchmaking.updated_ratings(
        elo, games, won.astype(jnp.float32), rate
      )
      return elo, elo

    return jax.lax.scan(one_round, elo, jax.random.split(key, (4000, 2)))[1]

  path = np.asarray(play(jnp.zeros(8), jax.random.key(0)))
  found = path[2000:].mean(0)
  np.testing.assert_allclose(found, planted, atol=60)
  # What one gains another loses.
  np.testing.assert_allclose(path.sum(1), 0, atol=0.1)


@pytest.mark.parametrize(('members', 'players'), [(6, 4), (2, 4), (4, 0)])
def test_a_population_that_cannot_be_split_is_told(members, players):
  with pytest.raises(UsageError, match=f'a population of {members}') as error:
    matchmaking.draw_games(jax.random.key(0), jnp.zeros(members), players)
  assert '\n' not in str(error.value)


def test_a_game_without_two_teams_is_told():
  with pytest.raises(UsageError, match='games of 3'):
    matchmaking.updated_ratings(
      jnp.zeros(3), jnp.array([[0, 1, 2]]), jnp.ones(1)
    )
