"""Tests of the Connect Four solver and of the script that labels the table."""

import functools
import importlib.util
import pathlib
import random
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from dl_lectures.data import connect_four

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SOLVED = _ROOT.parent / 'shared' / 'data' / 'connect4'

# By path: `scripts` is no package, and a folder of the tests has its name.
_spec = importlib.util.spec_from_file_location(
  'label_connect_four', _ROOT / 'scripts' / 'label_connect_four.py'
)
assert _spec is not None
assert _spec.loader is not None
label = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = label
_spec.loader.exec_module(label)


_ALMOST_DRAWN = '35365471643345633445665152147622211221777'


# The oracle: boards as seven strings of 'x' and 'o' from the bottom up, and
# nothing shared with the solver, neither bitboards nor null windows.

Columns = tuple[str, ...]


def _place(columns: Columns, column: int) -> Columns:
  stone = 'xo'[sum(map(len, columns)) % 2]
  return (
    *columns[:column],
    columns[column] + stone,
    *columns[column + 1 :],
  )


def _legal(columns: Columns) -> list[int]:
  return [c for c in (3, 2, 4, 1, 5, 0, 6) if len(columns[c]) < 6]


def _wins(columns: Columns, column: int) -> bool:
  """Whether the topmost stone of `column` is one of four in a row."""
  row = len(columns[column]) - 1

  def run(dc: int, dr: int) -> int:
    length, c, r = 0, column + dc, row + dr
    while 0 <= c < 7 and 0 <= r < len(columns[c]):
      if columns[c][r] != columns[column][row]:
        break
      length, c, r = length + 1, c + dc, r + dr
    return length

  directions = ((0, 1), (1, 0), (1, 1), (1, -1))
  return any(run(dc, dr) + run(-dc, -dr) >= 3 for dc, dr in directions)


@functools.cache
def _value(columns: Columns, alpha: int, beta: int) -> int:
  """Fail-soft alpha-beta; no four is on the board."""
  ply = sum(map(len, columns))
  if ply == 42:
    return 0
  afters = [(_place(columns, column), column) for column in _legal(columns)]
  if any(_wins(after, column) for after, column in afters):
    return (43 - ply) // 2
  best = -100
  for after, _ in afters:
    best = max(best, -_value(after, -beta, -max(alpha, best)))
    if best >= beta:
      break
  return best


def _oracle(moves: str) -> tuple[int, ...]:
  columns, _ = _replay(moves)
  scores = []
  for column in range(7):
    if len(columns[column]) == 6:
      scores.append(-100)
    elif _wins(after := _place(columns, column), column):
      scores.append((43 - len(moves)) // 2)
    else:
      scores.append(-_value(after, -100, 100))
  _value.cache_clear()
  return tuple(scores)


def _replay(moves: str) -> tuple[Columns, bool]:
  """The board after `moves`, and whether the game ended on the way."""
  columns, over = ('',) * 7, False
  for move in moves:
    columns = _place(columns, int(move) - 1)
    over = over or _wins(columns, int(move) - 1)
  return columns, over


def _late_games(count: int, fewest: int) -> list[str]:
  """Games of both styles that go on, of `fewest` to `fewest` + 9 stones."""
  rng = random.Random(1)
  games = []
  while len(games) < count:
    moves = label.sample_game(
      rng, len(games) % 2, rng.randrange(fewest, fewest + 10)
    )
    if moves is not None:
      games.append(moves)
  return games


@pytest.fixture(scope='module')
def solve():
  try:
    running = label.solver(table_bits=20)
    function = running.__enter__()
  except RuntimeError as error:
    pytest.skip(f'no C compiler: {error}')
  yield function
  running.__exit__(None, None, None)


@pytest.mark.parametrize('name', ['Test_L1_R1', 'Test_L2_R1', 'Test_L3_R1'])
def test_solver_gives_the_published_score_of_a_thousand_positions(solve, name):
  path = _SOLVED / name
  if not path.exists():
    pytest.skip(f'{path} is absent')
  lines = [line.split() for line in path.read_text().splitlines()]
  assert len(lines) == 1000
  wrong = [
    (moves, int(score), found)
    for moves, score in lines
    if (found := solve(moves + '?')) != (int(score),)
  ]
  assert wrong == []


def test_solver_scores_every_move_as_brute_force_does(solve):
  for moves in _late_games(150, fewest=26):
    assert solve(moves) == _oracle(moves), moves


def test_score_of_a_position_is_the_greatest_of_its_moves(solve):
  for moves in _late_games(100, fewest=18):
    assert solve(moves + '?') == (max(solve(moves)),), moves


def test_solver_does_not_mind_the_mirror(solve):
  for moves in _late_games(40, fewest=18):
    mirror = moves.translate(str.maketrans('1234567', '7654321'))
    assert solve(mirror) == solve(moves)[::-1], moves


def test_scores_of_hand_made_positions(solve):
  # The mover has three in column 4: his 4th stone is the 18th from his last.
  assert solve('414141')[3] == 18
  # His opponent, to move before that, must take it, or loses to that stone.
  scores = solve('41414')
  assert [s == -18 for s in scores] == [True] * 3 + [False] + [True] * 3
  # One square is left and makes no four: a draw with the very last stone.
  assert solve(_ALMOST_DRAWN) == (-100,) * 6 + (0,)


@pytest.mark.parametrize(
  ('moves', 'reason'),
  [
    ('4444444', 'column is full'),
    ('1212121', 'game is over'),
    ('12121213', 'after the end'),
    ('48', 'not in 1-7'),
    ('4 4', 'not in 1-7'),
  ],
)
def test_solver_refuses_what_is_no_position(solve, moves, reason):
  with pytest.raises(ValueError, match=reason):
    solve(moves)
  assert solve('414141')[3] == 18  # and goes on


def test_without_a_compiler_the_error_names_it(monkeypatch):
  monkeypatch.setenv('CC', 'no-such-compiler')
  with (
    pytest.raises(RuntimeError, match="'no-such-compiler'"),
    label.solver(),
  ):
    pass


@hypothesis.given(st.integers(0, 2**32), st.integers(1, 30))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_semi_strong_play_wins_at_once_and_blocks_at_once(seed, ply):
  moves = label.sample_game(random.Random(seed), 1, ply)
  hypothesis.assume(moves is not None)
  assert moves is not None
  columns: Columns = ('',) * 7
  for move in moves:
    column = int(move) - 1
    legal = _legal(columns)
    # A game that goes on never had a win to take.
    assert not any(_wins(_place(columns, c), c) for c in legal)
    stone = 'ox'[sum(map(len, columns)) % 2]  # the opponent's
    threats = [
      c
      for c in legal
      if _wins((*columns[:c], columns[c] + stone, *columns[c + 1 :]), c)
    ]
    assert column in (threats or legal)
    columns = _place(columns, column)


@pytest.mark.parametrize(
  ('style', 'weights'),
  [(0, (1, 1, 1, 1, 1, 1, 1)), (1, (1, 2, 3, 4, 3, 2, 1))],
)
def test_first_moves_follow_the_weights(style, weights):
  rng = random.Random(0)
  games = [label.sample_game(rng, style, 1) for _ in range(4000)]
  shares = np.array([games.count(c) for c in '1234567']) / 4000
  expected = np.array(weights) / sum(weights)
  error = np.sqrt(expected * (1 - expected) / 4000)
  assert (np.abs(shares - expected) < 4 * error).all()


def test_a_full_column_is_never_played():
  rng = random.Random(3)
  for moves in filter(
    None, (label.sample_game(rng, 0, 30) for _ in range(100))
  ):
    assert max(map(moves.count, '1234567')) <= 6


def test_table_keeps_all_it_met_until_enough_are_decisive():
  decisive = (-1, 0, 1, -100, -1, -1, -1)
  settled = (-2, -1, -3, -100, -1, -1, -1)
  answers = iter([settled, decisive, settled, settled, decisive] * 4)
  table = label.make_table(
    lambda moves: next(answers), plies=(4, 6), decisive=2
  )
  assert table['ply'].tolist() == ([4] * 5 + [6] * 5) * 2
  assert table['style'].tolist() == [0] * 10 + [1] * 10
  assert table['scores'].dtype == np.int8
  assert [len(moves) for moves in table['moves']] == table['ply'].tolist()
  per_cell = [settled, decisive, settled, settled, decisive]
  np.testing.assert_array_equal(table['scores'], per_cell * 4)


def test_samples_of_a_cell_are_distinct_up_to_the_mirror():
  # Three stones have 7 x 7 x 7 orders but few boards: repeats must be met.
  samples = label.sample_positions(0, 3, seed=0)
  boards = [_replay(next(samples))[0] for _ in range(100)]
  canonical = {min(board, board[::-1]) for board in boards}
  assert len(canonical) == 100


def test_the_committed_table_is_what_the_script_samples():
  table = connect_four.load()
  for style in label.STYLES:
    for ply in label.PLIES:
      cell = table.moves[(table.style == style) & (table.ply == ply)]
      samples = label.sample_positions(style, ply, label.SEED)
      assert [next(samples) for _ in cell] == cell.tolist()


def test_the_committed_table_is_what_the_script_labels(solve):
  table = connect_four.load()
  made = label.make_table(solve, plies=(19, 24), decisive=40)
  for style in label.STYLES:
    for ply in (19, 24):
      ours = (made['style'] == style) & (made['ply'] == ply)
      cell = (table.style == style) & (table.ply == ply)
      count = ours.sum()
      assert made['moves'][ours].tolist() == table.moves[cell][:count].tolist()
      np.testing.assert_array_equal(
        made['scores'][ours], table.scores[cell][:count]
      )


def _check_labels(rows: np.ndarray) -> None:
  table = connect_four.load()
  assert len(rows) > 0
  for row in rows:
    moves = str(table.moves[row])
    assert tuple(table.scores[row].tolist()) == _oracle(moves), moves


def test_labels_of_late_positions_equal_brute_force():
  table = connect_four.load()
  late = np.flatnonzero(table.ply == 24)
  _check_labels(np.random.RandomState(0).choice(late, 30, replace=False))


@pytest.mark.slow
@pytest.mark.usefixtures('solve')  # skips without a compiler
def test_the_centre_alone_wins_the_empty_board():
  # About 1.6e9 positions, four minutes of one core, and half a GiB.
  expected = connect_four.EMPTY_BOARD_SCORES
  with label.solver(table_bits=26) as solve_far:
    for column in (3, 2, 1, 0):
      assert solve_far(f'{column + 1}?') == (-expected[column],)
    assert solve_far('') == expected


@pytest.mark.slow
def test_labels_of_many_positions_equal_brute_force():
  table = connect_four.load()
  rng = np.random.RandomState(1)
  late, middle = (np.flatnonzero(table.ply == ply) for ply in (24, 19))
  _check_labels(rng.choice(late, 300, replace=False))
  _check_labels(rng.choice(middle, 20, replace=False))
