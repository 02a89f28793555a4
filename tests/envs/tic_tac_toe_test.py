"""Tic-tac-toe by hand; the size of its tree is in games_test."""

import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import tic_tac_toe
from dl_lectures.types import UsageError


@pytest.mark.parametrize(
  ('moves', 'reward', 'lines'),
  [
    ('', [0, 0], [' 1 2 3', ' 4 5 6', ' 7 8 9', 'X to move']),
    ('51', [0, 0], ['[O]2 3', ' 4 X 6', ' 7 8 9', 'X to move']),
    ('357', [0, 0], [' 1 2 X', ' 4 O 6', '[X]8 9', 'O to move']),
    ('17283', [1, -1], [' X X[X]', ' 4 5 6', ' O O 9', 'X wins']),
    ('152347', [-1, 1], [' X X O', ' X O 6', '[O]8 9', 'O wins']),
    ('13579', [1, -1], [' X 2 O', ' 4 X 6', ' O 8[X]', 'X wins']),
    ('123547698', [0, 0], [' X O X', ' X O X', ' O[X]O', 'draw']),
  ],
)
def test_games(moves, reward, lines):
  state = tic_tac_toe.from_moves(moves)
  assert tic_tac_toe.render(state).split('\n') == lines
  np.testing.assert_array_equal(tic_tac_toe.reward(state), reward)
  over = len(moves) == 9 or reward != [0, 0]
  assert bool(tic_tac_toe.terminal(state)) == over


def test_observation_shows_the_mover_first():
  state = tic_tac_toe.from_moves('513')  # O is to move
  mine, others = np.moveaxis(np.asarray(tic_tac_toe.observe(state)), -1, 0)
  np.testing.assert_array_equal(mine, [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
  np.testing.assert_array_equal(others, [[0, 0, 1], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize('action', [-1, 4, 9, 40])
def test_an_illegal_action_changes_nothing(action):
  state = tic_tac_toe.from_moves('5')
  after = tic_tac_toe.step(state, jnp.int32(action))
  for before, now in zip(state, after, strict=True):
    np.testing.assert_array_equal(before, now)


@pytest.mark.parametrize(
  ('moves', 'message'),
  [
    ('55', 'move 2, 5: illegal here; possible: 1, 2, 3, 4, 6, 7, 8, 9'),
    ('172839', 'move 6, 9: the game was over after move 5'),
    ('10', "move 2: '0' is not a cell; possible: 1 to 9"),
  ],
)
def test_from_moves_tells_what_is_wrong(moves, message):
  with pytest.raises(UsageError) as error:
    tic_tac_toe.from_moves(moves)
  assert str(error.value) == message
