"""Solved Connect Four positions: an exact judge of a player's moves.

Each position comes with the exact score of every move, so that a player's
strength is a share of positions and not a rating against other players: among
the positions in which at least one legal move throws the result away
(`is_decisive`), how often does the chosen move keep it (`keeps_result`)?

  >>> table = load()
  >>> keeps = keeps_result(table)[is_decisive(table)]
  >>> centre_first = keeps[:, 3].mean()  # of a player who only knows column 4
"""

from importlib import resources
from typing import NamedTuple

import numpy as np

ILLEGAL = -100

# The empty board: the centre alone wins, with the very last stone (that it
# wins: Allis, "A Knowledge-based Approach of Connect-Four", 1988). The solver
# proves all seven scores by 1.6e9 positions; a slow test does it again.
EMPTY_BOARD_SCORES = (-2, -1, 0, 1, 0, -1, -2)


class ConnectFourTable(NamedTuple):
  """N solved positions, none of them over.

  Attributes:
    moves: [N] str, the columns played so far, as digits 1-7.
    ply: [N] int32, the number of stones on the board.
    style: [N] int32, 0 reached by random play, 1 by semi-strong play.
    scores: [N, 7] int8, each column's score for the player to move: 0 a draw,
      +k a win with the k-th stone from his last (21 the soonest, 1 the
      latest), -k a loss likewise, `ILLEGAL` for a full column.
    result: [N, 7] int8, the sign of the score: 1 win, 0 draw, -1 loss or
      illegal.
  """

  moves: np.ndarray
  ply: np.ndarray
  style: np.ndarray
  scores: np.ndarray
  result: np.ndarray


def load() -> ConnectFourTable:
  """Loads the table that ships with the library.

  It is made by `python -m scripts.label_connect_four` with seed 0: for either
  style and each number of stones, positions are sampled until 225 of them are
  decisive, and all that were met are kept, without repeats or mirror images:

    stones            8   10   12   15   19   24
    random play     346  368  407  387  420  349
    semi-strong     361  388  389  431  403  410

  so 4,659 positions, 2,700 of them decisive. Every score is exact, from an
  alpha-beta search to the end of the game (`connect_four_solver.c` beside the
  script). A semi-strong player wins at once if he can, else blocks a threat if
  there is one, else plays a column with weights 1 2 3 4 3 2 1.

  Returns:
    The table; arrays of the caller's own.

  >>> table = load()
  >>> str(table.moves[0]), table.scores[0].tolist()
  ('24573434', [-17, -17, -17, -5, -17, -17, -17])
  """
  path = resources.files('dl_lectures.data') / 'tables' / 'connect_four.npz'
  with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
    scores = arrays['scores']
    return ConnectFourTable(
      moves=arrays['moves'],
      ply=arrays['ply'],
      style=arrays['style'],
      scores=scores,
      result=np.sign(scores),
    )


def keeps_result(table: ConnectFourTable) -> np.ndarray:
  """The moves after which best play still gives what it gave before.

  Args:
    table: N positions.

  Returns:
    [N, 7] bool; at least one True in each row, never for an illegal move. In
    a lost position every legal move is True, in a won one every win, however
    slow.

  >>> table = load()
  >>> table.scores[8].tolist()
  [-3, -3, 3, 3, 0, -2, -3]
  >>> keeps_result(table)[8].tolist()
  [False, False, True, True, False, False, False]
  """
  # A full column's score is below every other, so it is never the best.
  best = table.scores.max(axis=1, keepdims=True)
  legal = table.scores != ILLEGAL
  return legal & (table.result == np.sign(best))


def is_decisive(table: ConnectFourTable) -> np.ndarray:
  """The positions in which at least one legal move throws the result away.

  Args:
    table: N positions.

  Returns:
    [N] bool.

  >>> int(is_decisive(load()).sum())
  2700
  """
  legal = table.scores != ILLEGAL
  return (legal & ~keeps_result(table)).any(axis=1)
