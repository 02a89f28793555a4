"""Chess endgames of three men, begun at random: games with a known result.

King and queen, or king and rook, against the bare king: White, who has the
piece, moves first and wins with best play, unless Black takes the piece at
once. By the fifty-move rule such a game lasts a hundred plies at most, for
nothing but the loss of the piece resets the count.

Where the mover's men stand is known, so a move need not tell it. Of the 4,672
moves of chess 64 are left, still from the mover's side: which man, and by which
of AlphaZero's planes it goes,

    8 * (n - 1) + d    the piece goes n = 1 ... 7 squares in direction d
    56 + d             the king goes one square in direction d

Without pawns and castling the board has all eight symmetries of the square.

Source: the games of `envs.chess`; slides, deck 000, "AlphaZero: One Algorithm,
Three Games".
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import bits, chess, games
from dl_lectures.types import Array, Key, UsageError

# The piece that White has, by the game's name.
PIECES = {'chess_kqk': chess.QUEEN, 'chess_krk': chess.ROOK}
MAX_PLIES = 100
NUM_ACTIONS = 64
_KING_STEPS = 56  # the first of them
_CANDIDATES = 24
_LETTERS = {chess.QUEEN: 'Q', chess.ROOK: 'R'}
_WAYS = ('n', 'ne', 'e', 'se', 's', 'sw', 'w', 'nw')


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


def holds(name: str, state: chess.State) -> bool:
  """Whether a position is one of the endgame of that name (host)."""
  kings, others, mine = _men(state)
  piece = PIECES[name]
  codes = np.asarray(state.boards[0, 1:])
  has = [bits.squares(np.asarray(others) & code) for code in codes]
  white_moves = int(state.ply) % 2 == 0
  return (
    len(bits.squares(others)) == 1
    and len(bits.squares(others & mine)) == white_moves
    and len(bits.squares(kings)) == 2
    and all(bool(h) == bool(piece >> bit & 1) for bit, h in enumerate(has))
  )


def _men(state: chess.State) -> tuple[Array, Array, Array]:
  """Returns the kings, the other men and the mover's men, sets [2]."""
  mine, low, middle, high = state.boards[0]
  kings = low & middle & ~high
  return kings, (low | middle | high) & ~kings, mine


def legal_mask(state: chess.State) -> Array:
  """Returns [64] bool; all False once the game is over."""
  kings, others, mine = _men(state)
  sets = jnp.where(
    chess.terminal(state), np.uint32(0), chess.packed_moves(state)
  )
  piece = sets[:, :_KING_STEPS] & (others & mine)[:, None]
  king = sets[:, : NUM_ACTIONS - _KING_STEPS] & (kings & mine)[:, None]
  return bits.union(jnp.concatenate([piece, king], axis=1), axis=0) != 0


def to_chess(state: chess.State, action: Array) -> Array:
  """Returns a legal move [] as `chess` numbers it.

  >>> state = position(chess.ROOK, jnp.array([42, 0, 26]), jnp.bool_(False))
  >>> chess.action_name(int(to_chess(state, parse_action('R', 'Re4'))))
  'a8e8'
  """
  kings, others, mine = _men(state)
  by_king = action >= _KING_STEPS
  man = bits.members(jnp.where(by_king, kings, others) & mine)
  plane = action - jnp.where(by_king, _KING_STEPS, 0)
  return (jnp.argmax(man) * chess.NUM_PLANES + plane).astype(jnp.int32)


def from_chess(state: chess.State, move: Array) -> Array:
  """Returns the action [] of a legal move as `chess` numbers it."""
  kings, _, _ = _men(state)
  by_king = bits.members(kings)[move // chess.NUM_PLANES]
  return move % chess.NUM_PLANES + jnp.where(by_king, _KING_STEPS, 0)


def step(state: chess.State, action: Array) -> chess.State:
  """Plays a legal action; a finished game stays as it is."""
  return chess.step(state, to_chess(state, action))


def observe(state: chess.State) -> Array:
  """Returns [8, 8, 5] float32: what of chess's planes matters with three men.

  The mover's king and piece, the opponent's king and piece, and the half moves
  without progress / 100.
  """
  kings, others, mine = _men(state)
  men = [kings & mine, others & mine, kings & ~mine, others & ~mine]
  there = bits.members(jnp.stack(men, axis=1)).reshape(8, 8, 4)
  clock = jnp.broadcast_to(state.clock / MAX_PLIES, (8, 8, 1))
  return jnp.concatenate([there, clock], axis=-1).astype(jnp.float32)


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

  # Turned, what goes in one direction goes in another.
  source = np.arange(NUM_ACTIONS)
  for direction, vector in enumerate(chess.COMPASS):
    turned = chess.COMPASS.index(on_vector(vector))
    source[turned::8] = np.arange(direction, NUM_ACTIONS, 8)

  def on_policy(policy):
    return jnp.take(policy, source, axis=-1)

  return games.Symmetry(on_board, on_policy)


def action_name(letter: str, action: int) -> str:
  """Returns man, direction as the mover sees it, and how far: 'Re4', 'Knw1'.

  >>> action_name('R', 26)
  'Re4'
  """
  by_king = action >= _KING_STEPS
  distance, way = divmod(action - _KING_STEPS * by_king, 8)
  return f'{"K" if by_king else letter}{_WAYS[way]}{distance + 1}'


def parse_action(letter: str, text: str) -> int:
  """Returns the action of that name; letters of either case."""
  found = re.fullmatch(r'(.)(ne|nw|se|sw|n|e|s|w)([1-7])', text.strip().lower())
  man, way, distance = found.groups() if found else ('', '', '1')
  if man not in ('k', letter.lower()) or (man == 'k' and distance != '1'):
    raise UsageError(
      f'{text!r} is no move; possible: the king one square (Kn1, Kne1 ...), '
      f'the piece up to seven ({letter}n7)'
    )
  first = _KING_STEPS if man == 'k' else 8 * (int(distance) - 1)
  return first + _WAYS.index(way)


@functools.cache
def make(name: str) -> games.Game:
  """Returns the game of that name, one of `PIECES`.

  >>> game = make('chess_krk')
  >>> state = game.init(jax.random.key(0))
  >>> int(game.to_play(state)), bool(game.terminal(state))
  (0, False)
  """
  letter = _LETTERS[PIECES[name]]
  return chess.GAME._replace(
    name=name,
    num_actions=NUM_ACTIONS,
    init=functools.partial(init, PIECES[name]),
    step=step,
    legal_mask=legal_mask,
    observe=observe,
    observation_shape=(8, 8, 5),
    max_plies=MAX_PLIES,
    symmetries=symmetries(),
    action_name=functools.partial(action_name, letter),
    parse_action=functools.partial(parse_action, letter),
  )
