"""Tests of the table of solved Connect Four positions and of its loader."""

import numpy as np
import pytest

from dl_lectures.data import connect_four

_ILLEGAL = connect_four.ILLEGAL
_LINES = [  # every four squares (column, row) in a line
  [(c + i * dc, r + i * dr) for i in range(4)]
  for c in range(7)
  for r in range(6)
  for dc, dr in ((0, 1), (1, 0), (1, 1), (1, -1))
  if 0 <= c + 3 * dc < 7 and 0 <= r + 3 * dr < 6
]
_LINE_COLUMNS = np.array([[c for c, _ in line] for line in _LINES])
_LINE_ROWS = np.array([[r for _, r in line] for line in _LINES])


@pytest.fixture(scope='module')
def table():
  return connect_four.load()


@pytest.fixture(scope='module')
def boards(table):
  """[N, 2, 7, 6] bool: the stones of the mover and of his opponent."""
  result = np.zeros((len(table.moves), 2, 7, 6), bool)
  for board, moves in zip(result, table.moves, strict=True):
    height = [0] * 7
    for i, column in enumerate(int(move) - 1 for move in moves):
      board[(len(moves) - i) % 2, column, height[column]] = True
      height[column] += 1
  return result


def _has_four(stones: np.ndarray) -> np.ndarray:
  """[..., 7, 6] bool -> [...] bool."""
  return np.asarray(stones[..., _LINE_COLUMNS, _LINE_ROWS].all(-1).any(-1))


def _toy(scores) -> connect_four.ConnectFourTable:
  scores = np.array(scores, np.int8)
  n = len(scores)
  return connect_four.ConnectFourTable(
    moves=np.array([''] * n),
    ply=np.zeros(n, np.int32),
    style=np.zeros(n, np.int32),
    scores=scores,
    result=np.sign(scores),
  )


def test_there_are_69_lines():
  assert len(_LINES) == 69


def test_counts(table):
  decisive = connect_four.is_decisive(table)
  cells = {
    (int(style), int(ply)): int(
      decisive[(table.style == style) & (table.ply == ply)].sum()
    )
    for style, ply in zip(table.style, table.ply, strict=True)
  }
  assert cells == {
    (style, ply): 225 for style in (0, 1) for ply in (8, 10, 12, 15, 19, 24)
  }
  assert len(table.moves) == 4659


def test_shapes_and_types(table):
  n = len(table.moves)
  assert table.moves.shape == table.ply.shape == table.style.shape == (n,)
  assert table.scores.shape == table.result.shape == (n, 7)
  assert table.moves.dtype.kind == 'U'
  assert table.ply.dtype == table.style.dtype == np.int32
  assert table.scores.dtype == table.result.dtype == np.int8
  assert np.unique(table.result).tolist() == [-1, 0, 1]


def test_moves_are_as_long_as_the_ply_and_the_game_goes_on(table, boards):
  np.testing.assert_array_equal(np.strings.str_len(table.moves), table.ply)
  np.testing.assert_array_equal(boards.sum((1, 2, 3)), table.ply)
  assert not _has_four(boards).any()
  # No game went on after a four either: none is on the board now.


def test_a_full_column_and_only_it_is_illegal(table, boards):
  full = boards.any(1).all(-1)
  np.testing.assert_array_equal(table.scores == _ILLEGAL, full)
  assert full.any()


def test_positions_of_a_cell_are_distinct_up_to_the_mirror(table, boards):
  names = set()
  for style, ply, board in zip(table.style, table.ply, boards, strict=True):
    one = min(board.tobytes(), board[:, ::-1].tobytes())
    names.add((int(style), int(ply), one))
  assert len(names) == len(table.moves)


def test_wins_at_once_and_losses_at_once_have_their_scores(table, boards):
  """What one and two plies of search say, said by the table everywhere."""
  height = boards.any(1).sum(-1)  # [N, 7]
  legal = height < 6
  n = len(height)
  everyone = np.arange(n)
  wins = np.zeros((n, 7), bool)
  loses = np.zeros((n, 7), bool)
  for column in range(7):
    after = boards.copy()
    row = np.minimum(height[:, column], 5)
    after[everyone, 0, column, row] |= legal[:, column]
    wins[:, column] = legal[:, column] & _has_four(after[:, 0])
    for reply in range(7):
      top = height[:, reply] + (reply == column)
      stones = after[:, 1].copy()
      stones[everyone, reply, np.minimum(top, 5)] |= top < 6
      loses[:, column] |= legal[:, column] & _has_four(stones)
  loses &= ~wins
  assert wins.sum() > 500
  assert loses.sum() > 500
  win, loss = (43 - table.ply) // 2, -((42 - table.ply) // 2)
  np.testing.assert_array_equal(wins, table.scores == win[:, None])
  np.testing.assert_array_equal(loses, table.scores == loss[:, None])


def test_keeps_result_and_is_decisive_by_hand():
  table = _toy(
    [
      [-2, -1, 0, 1, 0, -1, -2],  # the empty board: the centre alone wins
      [3, 1, 2, 0, -4, 5, _ILLEGAL],  # a slower win is a win
      [-1, -3, 0, 0, _ILLEGAL, -9, -2],  # two draws
      [-1, -3, -5, -7, _ILLEGAL, -9, -2],  # all is lost
      [_ILLEGAL, _ILLEGAL, 4, _ILLEGAL, _ILLEGAL, _ILLEGAL, _ILLEGAL],
      [0, 0, 0, _ILLEGAL, 0, 0, 0],
    ]
  )
  np.testing.assert_array_equal(
    connect_four.keeps_result(table).astype(int),
    [
      [0, 0, 0, 1, 0, 0, 0],
      [1, 1, 1, 0, 0, 1, 0],
      [0, 0, 1, 1, 0, 0, 0],
      [1, 1, 1, 1, 0, 1, 1],
      [0, 0, 1, 0, 0, 0, 0],
      [1, 1, 1, 0, 1, 1, 1],
    ],
  )
  assert connect_four.is_decisive(table).tolist() == (
    [True, True, True, False, False, False]
  )


def test_every_position_has_a_move_that_keeps_its_result(table):
  assert connect_four.keeps_result(table).any(1).all()


def test_a_uniform_random_move_keeps_about_a_third(table):
  decisive = connect_four.is_decisive(table)
  keeps = connect_four.keeps_result(table)[decisive]
  legal = (table.scores != _ILLEGAL)[decisive]
  share = (keeps.sum(1) / legal.sum(1)).mean()
  assert 0.30 < share < 0.40
