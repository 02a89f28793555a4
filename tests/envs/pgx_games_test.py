"""pgx behind our protocol: which games, exact counts, and what it says."""

import functools
import sys

import jax
import numpy as np
import pgx
import pytest

from dl_lectures.envs import games, pgx_games
from dl_lectures.types import UsageError

# Not two players, or chance or hidden cards.
LEFT_OUT = {
  '2048',
  'backgammon',
  'kuhn_poker',
  'leduc_holdem',
  'minatar-asterix',
  'minatar-breakout',
  'minatar-freeway',
  'minatar-seaquest',
  'minatar-space_invaders',
  'sparrow_mahjong',
}


def test_every_board_game_of_pgx_is_here():
  board_games = set(pgx.available_envs()) - LEFT_OUT
  assert set(pgx_games.NAMES) == {f'pgx_{x}' for x in (*board_games, 'go')}


@functools.partial(jax.jit, static_argnums=0)
def step_all(game, states, actions):
  return jax.vmap(game.step)(states, actions)


def perft(game, depth):
  """Counts the lines of play of 1 ... depth plies."""
  states = jax.tree.map(lambda x: x[None], game.init(jax.random.key(0)))
  counts = []
  for _ in range(depth):
    # The adapter calls nothing legal once a game is over.
    legal = np.asarray(jax.vmap(game.legal_mask)(states))
    counts.append(int(legal.sum()))
    parent, action = np.nonzero(legal)
    if len(counts) == depth:
      return counts
    count = len(parent)
    # One size for all plies: one compilation.
    parent = np.pad(parent, (0, -count % 512))
    action = np.pad(action, (0, -count % 512))
    states = step_all(
      game, jax.tree.map(lambda x, p=parent: x[p], states), action
    )
    states = jax.tree.map(lambda x, n=count: x[:n], states)
  return counts


def test_chess_has_8902_lines_of_three_plies():
  assert perft(games.make('pgx_chess'), 3) == [20, 400, 8902]


@pytest.mark.slow
def test_shogi_has_25470_lines_of_three_plies():
  assert perft(games.make('pgx_shogi'), 3) == [30, 900, 25470]


def test_a_compact_chess_state_is_small():
  game = games.make('pgx_chess')
  state = game.init(jax.random.key(0))
  with jax.numpy_rank_promotion('allow'):
    theirs = jax.eval_shape(pgx.make('chess').init, jax.random.key(0))

  def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

  assert size(game.compact(state)) < size(theirs) / 6
  np.testing.assert_array_equal(
    game.legal_mask(game.compact(state)), game.legal_mask(state)
  )


def test_go_captures_passes_and_scores():
  game = games.make('pgx_go', 3)
  # Black takes the white stone in the corner, then both pass.
  state = games.play_moves(game, ['a2', 'a1', 'b1', 'pass', 'pass'])
  assert game.render(state).split('\n') == [
    '   a b c',
    ' 1 . X .',
    ' 2 X . .',
    ' 3 . . .',
    'player 0 wins',
  ]
  np.testing.assert_array_equal(game.reward(state), [1, -1])


def test_a_second_name_for_go_takes_other_boards():
  assert games.make('pgx_go', 5).observation_shape == (5, 5, 17)
  assert games.make('pgx_go').num_actions == 82


def test_without_pgx_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pgx', None)
  with pytest.raises(UsageError, match=r'dl_lectures\[pgx\]') as error:
    pgx_games.make('pgx_chess')
  assert 'pgx_chess' in str(error.value)
  assert '\n' not in str(error.value)


def test_our_games_need_no_pgx(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pgx', None)
  make_again = games._make.__wrapped__
  assert make_again('tic_tac_toe', None).num_actions == 9
