"""The solved endgames: known counts, python-chess, and games by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.analysis import endgames
from dl_lectures.envs import chess_endgames


# Legal positions with White and with Black to move, and the longest mate of
# each endgame in moves: as every table of them since Thompson's has it.
@pytest.mark.parametrize(
  ('name', 'counts', 'moves'),
  [
    ('chess_kqk', (144_508, 223_944), 10),
    pytest.param('chess_krk', (175_168, 223_944), 16, marks=pytest.mark.slow),
  ],
)
def test_counts_and_longest_mates(name, counts, moves):
  found = endgames.solve(name)
  assert found.counts == counts
  white = found.plies[0][found.legal[0]]
  # White to move wins all of them.
  assert white.max() == 2 * moves - 1
  black = found.plies[1][found.legal[1]]
  assert black[black < endgames.NEVER].max() == 2 * moves
  # Black takes the piece, or is stalemated.
  assert (black == endgames.NEVER).any()


@pytest.mark.parametrize(
  'name', ['chess_kqk', pytest.param('chess_krk', marks=pytest.mark.slow)]
)
def test_each_position_is_worth_what_follows_it(name):
  chess = pytest.importorskip('chess')
  piece = chess.QUEEN if name == 'chess_kqk' else chess.ROOK
  found = endgames.solve(name)
  plies = found.plies.reshape(2, -1)
  row_of = jax.jit(endgames.row_of)

  def value(board):
    men = board.pieces(piece, chess.WHITE)
    if not men:
      return endgames.NEVER
    # python-chess counts from a1, we from a8.
    squares = [board.king(chess.WHITE), *men, board.king(chess.BLACK)]
    squares = np.array([square ^ 56 for square in squares])
    return plies[int(board.turn == chess.BLACK), int(row_of(squares))]

  draw = np.random.default_rng(0)
  seen = 0
  while seen < 60:
    wk, man, bk = draw.choice(64, 3, replace=False)
    board = chess.Board(None)
    board.set_piece_at(wk, chess.Piece(chess.KING, chess.WHITE))
    board.set_piece_at(man, chess.Piece(piece, chess.WHITE))
    board.set_piece_at(bk, chess.Piece(chess.KING, chess.BLACK))
    board.turn = bool(draw.integers(2))
    if not board.is_valid():
      continue
    seen += 1
    after = []
    for move in board.legal_moves:
      board.push(move)
      after.append(value(board))
      board.pop()
    if board.is_checkmate():
      expected = 0
    elif board.is_stalemate():
      expected = endgames.NEVER
    else:
      expected = 1 + (min if board.turn == chess.WHITE else max)(after)
    assert value(board) == min(expected, endgames.NEVER)


def test_the_perfect_player_mates_in_time_and_a_random_one_does_not():
  found = endgames.solve('chess_kqk')
  game = chess_endgames.make('chess_kqk')
  legal_mask = jax.jit(jax.vmap(game.legal_mask))
  step = jax.jit(jax.vmap(game.step, (None, 0)))

  def perfect(states):
    actions = []
    for i in range(len(states.ply)):
      state = jax.tree.map(lambda x, i=i: x[i], states)
      moves = np.flatnonzero(jax.jit(game.legal_mask)(state))
      if not len(moves):  # the game is over
        actions.append(0)
        continue
      after = step(state, jnp.asarray(np.resize(moves, 35)))
      plies = endgames.plies_to_mate(found, after)
      actions.append(moves[np.argmin(plies) % len(moves)])
    return np.array(actions)

  best = endgames.judge(found, perfect, jax.random.key(1), 6)
  assert (best.games, best.won, best.spoiled) == (6, 6, 0)
  assert best.plies == best.best_plies

  draw = np.random.default_rng(0)

  def random(states):
    mask = np.asarray(legal_mask(states)) + 1e-9
    return (np.log(mask) + draw.gumbel(size=mask.shape)).argmax(1)

  worst = endgames.judge(found, random, jax.random.key(1), 24)
  assert worst.won < 5
  assert worst.spoiled > 12


def test_who_lets_positions_come_back_gives_the_win_away():
  found = endgames.solve('chess_kqk')
  game = chess_endgames.make('chess_kqk')
  legal_mask = jax.jit(jax.vmap(game.legal_mask))

  def to_and_fro(states):
    # The king's steps come last: he goes back where he came from.
    mask = np.asarray(legal_mask(states))
    first = mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
    back = 56 + (np.asarray(states.ply) // 2 % 2 * 4 + 2) % 8
    return np.where(mask[np.arange(len(mask)), back], back, first)

  verdict = endgames.judge(found, to_and_fro, jax.random.key(1), 24)
  assert verdict.won == 0
  assert verdict.spoiled > 12


def test_what_is_claimed_is_what_was_found():
  found = endgames.examine(
    'chess_kqk', {0: lambda states: np.zeros(len(states.ply), int)}, every=100
  )
  assert found['won/0'].kept == 0
  assert found['won/0'].positions == 4
  quality = found['won/0']
  good = {'won/0': quality._replace(kept=0.995), 'kept/0': quality}
  won, kept = endgames.claims('chess_kqk', good, found, np.zeros(1))
  assert (won.value, won.bar, won.met, won.baseline) == (0.995, 0.99, True, 0)
  assert (kept.met, kept.baseline) == (False, found['kept/0'].kept)
