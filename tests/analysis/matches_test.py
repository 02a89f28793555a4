"""Matches whose results are known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.analysis import matches
from dl_lectures.envs import games

GAME = games.make('tic_tac_toe')


def first_free(states, key):
  del key
  return jnp.argmax(jax.vmap(GAME.legal_mask)(states), axis=-1)


def test_a_player_scores_even_with_itself():
  points = matches.play_match(
    GAME, first_free, first_free, jax.random.key(0), 20
  )
  assert points == 10


def test_first_free_beats_last_free_as_both_sides():
  # From the empty board 0, 1, 2 is a row, and 8, 7, 6 is one a ply later: the
  # side that begins wins, so that each wins its own opening.
  def last_free(states, key):
    del key
    legal = jax.vmap(GAME.legal_mask)(states)
    return GAME.num_actions - 1 - jnp.argmax(legal[:, ::-1], axis=-1)

  points = matches.play_match(
    GAME, first_free, last_free, jax.random.key(0), 2, random_plies=0
  )
  assert points == 1


def test_rollouts_beat_random_play_and_are_rated_so():
  standings = matches.round_robin(
    GAME,
    {
      'random': matches.random_player(GAME),
      'rollouts': matches.rollout_player(GAME, 50),
    },
    jax.random.key(1),
    40,
  )
  assert [s.name for s in standings] == ['random', 'rollouts']
  assert standings[0].elo == 0
  assert standings[1].score > 0.8
  assert standings[1].elo - 1.96 * standings[1].error > 0


def test_random_games_are_worth_what_they_are_worth():
  # The share of random games that player 0 wins from the empty board is known
  # exactly: 0.585, and player 1 wins 0.288.
  model = matches.rollout_model(GAME)
  n = 4000
  state = GAME.init(jax.random.key(0))
  states = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), state)
  actions = jax.random.randint(jax.random.key(2), (n,), 0, 9)
  output, _ = jax.jit(model)(None, jax.random.key(3), actions, states)
  np.testing.assert_allclose(
    -float(output.value.mean()), 0.5850 - 0.2881, atol=0.05
  )
