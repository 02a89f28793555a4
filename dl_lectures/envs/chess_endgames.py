"""Chess endgames of three men, begun at random: games with a known result.

King and queen, or king and rook, against the bare king: White, who has the
piece, moves first and wins with best play, unless Black takes the piece at
once. By the fifty-move rule such a game lasts a hundred plies at most, for
nothing but the loss of the piece resets the count.

Without pawns and castling the board has all eight symmetries of the square.

Source: the games of `envs.chess`; slides, deck 000, "AlphaZero: One Algorithm,
Three Games".
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import bits, chess, games
from dl_lectures.types import Array, Key

# The piece that White has, by the game's name.
PIECES = {'chess_kqk': chess.QUEEN, 'chess_krk': chess.ROOK}
MAX_PLIES = 100
_CANDIDATES = 24


def position(piece: int, squares: Array, black_moves: Array) -> chess.State:
  """Returns a position of three men.

  Args:
    piece: White's, `chess.QUEEN` or `chess.ROOK`.
    squares: [3] int32 of White's king, White's piece and Black's king, each 0
      (a8) to 63 (h1), all different.
    black_moves: [] bool, whether it is Black's turn.

  Returns:
    The state, of use only if it is legal: see `is_legal`.

  >>> state = position(chess.ROOK, jnp.array([42, 0, 26]), jnp.bool_(True))
  >>> int(state.ending), bool(state.check)
  (0, False)
  """
  # Black sees the ranks the other way round: a8 is 56.
  squares = jnp.where(black_moves, squares ^ 56, squares)
  men = jnp.stack([bits.square(square) for square in squares])
  king, man, bare = men
  mine = jnp.where(black_moves, bare, king | man)
  codes = [
    jnp.where(chess.KING >> bit & 1, king | bare, jnp.zeros_like(king))
    | jnp.where(piece >> bit & 1, man, jnp.zeros_like(man))
    for bit in range(3)
  ]
  return chess.set_up(
    jnp.stack([mine, *codes]),
    castling=jnp.zeros(4, bool),
    double_step=jnp.int32(-1),
    clock=jnp.int32(0),
    ply=black_moves.astype(jnp.int32),
    first_move=jnp.int32(1),
  )


def is_legal(piece: int, squares: Array, black_moves: Array) -> Array:
  """Whether three men may stand so: [] bool.

  No two on one square, the kings apart, and who is not to move not in check.
  """
  wk, man, bk = squares
  rows, columns = squares // 8, squares % 8
  apart = (jnp.abs(rows[0] - rows[2]) > 1) | (
    jnp.abs(columns[0] - columns[2]) > 1
  )
  different = (wk != man) & (man != bk) & (wk != bk)
  checked = position(piece, squares, jnp.bool_(True)).check
  return different & apart & (black_moves | ~checked)


def init(piece: int, key: Key) -> chess.State:
  """Returns a random legal position, White to move; the key is consumed."""
  drawn = jax.random.randint(key, (_CANDIDATES, 3), 0, 64)
  legal = jax.vmap(lambda s: is_legal(piece, s, jnp.bool_(False)))(drawn)
  # About half are legal. Where by a rare chance none is, a fixed one is.
  fixed = jnp.array([60, 59, 4])
  squares = jnp.where(jnp.any(legal), drawn[jnp.argmax(legal)], fixed)
  return position(piece, squares, jnp.bool_(False))


def observe(state: chess.State) -> Array:
  """Returns [8, 8, 13] float32: what of chess's planes matters with three men.

  The present position's twelve kinds of men, the mover's first, and the half
  moves without progress / 100.
  """
  return chess.observe(state)[..., np.r_[0:12, 118]]


def squares_of(state: chess.State) -> Array:
  """Returns the squares [3] of the three men, as `position` takes them.

  A man that is not there, because it was taken, is at 0.
  """
  mine, low, middle, high = state.boards[0]
  black_moves = state.ply % 2 == 1
  white = jnp.where(black_moves, (low | middle | high) & ~mine, mine)
  kings = low & middle & ~high
  men = [kings & white, white & ~kings, kings & ~white]
  there = bits.members(jnp.stack(men, axis=1))
  square = jnp.argmax(there, axis=0).astype(jnp.int32)
  return jnp.where(black_moves, square ^ 56, square)


@functools.cache
def symmetries() -> tuple[games.Symmetry, ...]:
  """Returns the eight symmetries of a board without pawns, identity first."""
  return tuple(
    _symmetry(turns, mirrored) if turns or mirrored else games.IDENTITY
    for mirrored in (False, True)
    for turns in range(4)
  )


def _symmetry(turns: int, mirrored: bool) -> games.Symmetry:
  def on_board(board):
    board = jnp.rot90(board, turns, axes=(-3, -2))
    return board[..., ::-1, :] if mirrored else board

  def on_vector(vector: tuple[int, int]) -> tuple[int, int]:
    row, column = vector
    for _ in range(turns):
      row, column = -column, row
    return (row, -column) if mirrored else (row, column)

  cells = np.arange(64).reshape(8, 8)
  cells = np.rot90(cells, turns)
  cells = cells[:, ::-1] if mirrored else cells
  # The cell x of the turned board shows the cell cells[x] of this one.
  planes = np.arange(chess.NUM_PLANES)
  for direction, vector in enumerate(chess.COMPASS):
    turned = chess.COMPASS.index(on_vector(vector))
    planes[turned:56:8] = np.arange(direction, 56, 8)
  for leap, vector in enumerate(chess.LEAPS):
    planes[56 + chess.LEAPS.index(on_vector(vector))] = 56 + leap
  # Pawns that promote, of which there are none, stay as they are.
  source = cells.reshape(64, 1) * chess.NUM_PLANES + planes

  def on_policy(policy):
    return jnp.take(policy, source.reshape(-1), axis=-1)

  return games.Symmetry(on_board, on_policy)


@functools.cache
def make(name: str) -> games.Game:
  """Returns the game of that name, one of `PIECES`.

  >>> game = make('chess_krk')
  >>> state = game.init(jax.random.key(0))
  >>> int(game.to_play(state)), bool(game.terminal(state))
  (0, False)
  """
  return chess.GAME._replace(
    name=name,
    init=functools.partial(init, PIECES[name]),
    observe=observe,
    observation_shape=(8, 8, 13),
    max_plies=MAX_PLIES,
    symmetries=symmetries(),
  )
