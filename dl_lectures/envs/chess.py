"""Chess on bitboards: exact, set-wise, without trying a single move.

Squares are numbered as the mover looks at the board and in reading order, 0
the far left corner (White's a8), 63 the near right one (White's h1), so that
row 0 of an observation is the far rank. After every move the board is turned
for the other side.

     0  1  2 ...  7    far rank: 8 for White, 1 for Black
     8  9 10 ... 15
    ...
    56 57 58 ... 63    near rank

A board is four sets of squares (`bits`): the mover's men, and the three bits
of a code per square. Sliders have bit 2, of which bit 0 tells diagonals and
bit 1 straight lines, the queen both:

    pawn 001   knight 010   king 011   bishop 101   rook 110   queen 111

Legal moves come out of one pass over whole sets: what the opponent attacks
with my king lifted off, the squares that answer a check, the men that are
pinned and along which line. Only en passant, where two men leave one rank, is
looked at with the men taken off, in the same call that looks out from the
king.

Moves are AlphaZero's 8 x 8 x 73, from the mover's side: action = 73 * square
+ plane, where the square is left and the plane tells how,

    8 * (n - 1) + d    n = 1 ... 7 squares in direction d, clockwise from
                       ahead: N NE E SE S SW W NW. A king's n = 2 castles; a
                       pawn that arrives at the far rank becomes a queen.
    56 + k             a knight's leap, clockwise from one right, two ahead
    64 + 3 * p + d     a pawn becomes a knight, bishop or rook (p), going ahead
                       left, straight or right (d)

How a game ends:
  mate, stalemate; a mate on the hundredth half move is a mate.
  Fifty moves of each side without capture or pawn move: a draw at once, no
    claim needed.
  Third occurrence of a position: a draw at once. The same position means the
    same moves: castling rights count, and en passant counts where the capture
    is legal (FIDE 9.2.3), not after every double step.
  Bare kings, one minor piece, or only bishops on squares of one colour: a
    draw at once. Positions that no play can win for another reason go on.
  512 half moves: a draw, as AlphaZero was trained.

Source: Silver et al., "A general reinforcement learning algorithm that masters
chess, shogi and Go through self-play", Science 2018, tables S1 and S2; FIDE
Laws of Chess 2023; slides, deck 000, "AlphaZero: One Algorithm, Three Games".
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from dl_lectures.envs import bits, games
from dl_lectures.types import Array, Key

PAWN, KNIGHT, KING, BISHOP, ROOK, QUEEN = 1, 2, 3, 5, 6, 7
PLAYING, CHECKMATE, STALEMATE, MATERIAL, FIFTY_MOVES, REPETITION, LENGTH = (
  range(7)
)
MAX_PLIES = 512
NUM_PLANES = 73
NUM_ACTIONS = 64 * NUM_PLANES
_HISTORY = 8
_NO_PROGRESS = 100
# XLA:CPU reduces more than 32 at once by a slow detour: 4 x 26 is counted.
_COLUMNS = 4 * 26

N, NE, E, SE, S, SW, W, NW = range(8)
COMPASS = (
  (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1),
)  # fmt: skip
LEAPS = (
  (-2, 1), (-1, 2), (1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1),
)  # fmt: skip
_QUEEN = bits.directions(COMPASS, 8, 8)
_BACK = bits.opposite(_QUEEN)
_KNIGHT = bits.directions(LEAPS, 8, 8)
_KNIGHT_BACK = bits.opposite(_KNIGHT)
_NORTH = bits.directions(COMPASS[:1], 8, 8)
_SOUTH = bits.directions(COMPASS[S : S + 1], 8, 8)

# [73]: what a plane adds to the square, and what a pawn becomes (0: as usual).
_DELTA = np.concatenate(
  [n * _QUEEN.by for n in range(1, 8)] + [_KNIGHT.by, np.tile([-9, -8, -7], 3)]
).astype(np.int32)
_BECOMES = np.repeat([0, KNIGHT, BISHOP, ROOK], [64, 3, 3, 3]).astype(np.int32)
_DOUBLE_STEP, _CASTLE_E, _CASTLE_W = 8 + N, 8 + E, 8 + W


def _lanes(*ways: int) -> np.ndarray:
  """Returns [1, 8] uint32, all ones in the lanes of these directions."""
  mask = np.zeros((1, 8), np.uint32)
  mask[0, list(ways)] = 0xFFFFFFFF
  return mask


def _row(row: int) -> np.ndarray:
  return bits.place(range(8 * row, 8 * row + 8), 64)


_DIAGONAL, _STRAIGHT = _lanes(NE, SE, SW, NW), _lanes(N, E, S, W)
_LIGHT = bits.place([s for s in range(64) if (s // 8 + s % 8) % 2 == 0], 64)
_A8, _H8, _A1, _E1, _H1 = 0, 7, 56, 60, 63
# [2, 4]: a move from or onto these squares ends the right to castle: the
# mover's on the left and on the right side, the opponent's likewise.
_RIGHTS = np.stack(
  [bits.place(s, 64) for s in ((_A1, _E1), (_H1, _E1), (_A8,), (_H8,))], axis=1
)
# [2, 2]: what has to be empty, and what must not be attacked; left, right.
_CASTLE_EMPTY = np.stack(
  [bits.place(s, 64) for s in ((57, 58, 59), (61, 62))], axis=1
)
_CASTLE_SAFE = np.stack(
  [bits.place(s, 64) for s in ((58, 59, 60), (60, 61, 62))], axis=1
)


class State(NamedTuple):
  """A position and what of its past the rules and the network look at.

  Attributes:
    boards: [8, 4, 2] uint32, this position and the seven before it, each as
      its own mover saw it; zeros before the start. The four sets of a board:
      the mover's men, and bits 0, 1, 2 of the codes.
    repeats: [8] uint8, how often each had occurred before.
    keys: [2, 104] uint32, the two halves of the hashes of the positions since
      the last capture or pawn move, the one at half-move clock c, 0 to 100, in
      column c; columns beyond the clock are stale.
    legal: [2, 73] uint32, the legal moves: for each plane the set of squares
      it may be played from. Not emptied when a rule ends the game, only when
      there is no move. None in a compact state.
    castling: [4] bool, rights to castle: the mover's to the left and to the
      right of the board as White sees it (queen's side, king's side), the
      opponent's likewise.
    en_passant: [] int32, the file 0-7 of a pawn that may be captured en
      passant by a legal move, else -1.
    clock: [] int32, half moves since the last capture or pawn move.
    ply: [] int32, half moves played; White moves when it is even. A game that
      is set up with Black to move begins at 1.
    first_move: [] int32, the number of the move at which it was set up, 1.
    last_action: [] int32, the action that led here, from the other side; -1
      at the start.
    check: [] bool, the mover's king is attacked.
    ending: [] int32, PLAYING or how the game ended.
  """

  boards: Array
  repeats: Array
  keys: Array
  legal: Array | None
  castling: Array
  en_passant: Array
  clock: Array
  ply: Array
  first_move: Array
  last_action: Array
  check: Array
  ending: Array


def init(key: Key) -> State:
  """Returns the start of a game; the key is not used."""
  del key
  back = (ROOK, KNIGHT, BISHOP, QUEEN, KING, BISHOP, KNIGHT, ROOK)
  codes = np.zeros(64, np.int32)
  codes[:16], codes[48:] = (*back, *[PAWN] * 8), (*[PAWN] * 8, *back)
  board = encode(codes, np.arange(64) >= 48)
  # The twenty moves by hand: a search for them would be compiled into every
  # program that starts a game.
  legal = np.zeros((2, NUM_PLANES), np.uint32)
  legal[:, N] = legal[:, 8 + N] = _row(6)
  legal[:, 56] = legal[:, 63] = bits.place((57, 62), 64)
  castling = jnp.ones(4, bool)
  boards = np.zeros((_HISTORY, 4, 2), np.uint32)
  boards[0] = board
  key_0 = _hash(jnp.asarray(board), castling, jnp.int32(-1), jnp.int32(0))
  return State(
    boards=jnp.asarray(boards),
    repeats=jnp.zeros(_HISTORY, jnp.uint8),
    keys=jnp.zeros((2, _COLUMNS), jnp.uint32).at[:, 0].set(key_0),
    legal=jnp.asarray(legal),
    castling=castling,
    en_passant=jnp.int32(-1),
    clock=jnp.int32(0),
    ply=jnp.int32(0),
    first_move=jnp.int32(1),
    last_action=jnp.int32(-1),
    check=jnp.bool_(False),
    ending=jnp.int32(PLAYING),
  )


def encode(codes: np.ndarray, mine: np.ndarray) -> np.ndarray:
  """Returns the four sets of a board, [4, 2] uint32 (host).

  Args:
    codes: [64] PAWN ... QUEEN, 0 on an empty square.
    mine: [64] bool, the mover's men; ignored on empty squares.
  """
  return np.stack(
    [bits.pack(mine & (codes > 0))]
    + [bits.pack(codes >> bit & 1 == 1) for bit in range(3)]
  )


def set_up(
  board: Array,
  castling: Array,
  double_step: Array,
  clock: Array,
  ply: Array,
  first_move: Array,
) -> State:
  """Returns a position without a past.

  Args:
    board: [4, 2] uint32 as `encode` gives it, one king a side, the opponent's
      not attacked.
    castling: [4] bool, as in `State`; kings and rooks stand where it says so.
    double_step: [] int32, the file of the pawn that has just made a double
      step, -1 if none has.
    clock: [] int32, half moves without capture or pawn move.
    ply: [] int32, 0 with White to move, 1 with Black.
    first_move: [] int32, the number of the move.
  """
  return _arrive(
    State(
      boards=jnp.zeros((_HISTORY, 4, 2), jnp.uint32).at[0].set(board),
      repeats=jnp.zeros(_HISTORY, jnp.uint8),
      keys=jnp.zeros((2, _COLUMNS), jnp.uint32),
      legal=None,
      castling=castling,
      en_passant=double_step,
      clock=clock,
      ply=ply,
      first_move=first_move,
      last_action=jnp.int32(-1),
      check=jnp.bool_(False),
      ending=jnp.int32(PLAYING),
    )
  )


def step(state: State, action: Array) -> State:
  """Plays a legal action; a finished game stays as it is.

  An action that is not legal leads to a position that means nothing.
  """
  return _play(state, action, frozen=terminal(state))


def play_on(state: State, action: Array) -> State:
  """Plays a legal action even if the game was drawn by a rule.

  For those who count or check moves: `legal` is there after a draw too.
  """
  return _play(state, action, frozen=jnp.bool_(False))


def _play(state: State, action: Array, frozen: Array) -> State:
  action = jnp.asarray(action, jnp.int32)
  board, castling, double_step, irreversible = _move(state, action)
  # What is left as it was makes all that is computed from it stay as it was.
  moved = ~frozen

  def keep(new, old):
    return jnp.where(frozen, old, new)

  boards = jnp.concatenate([board[None], state.boards[:-1]])
  repeats = jnp.concatenate([state.repeats[:1], state.repeats[:-1]])
  clock = jnp.where(irreversible, 0, state.clock + 1)
  return _arrive(
    state._replace(
      boards=keep(boards, state.boards),
      repeats=keep(repeats, state.repeats),
      castling=keep(castling, state.castling),
      en_passant=keep(double_step, state.en_passant),
      clock=keep(clock, state.clock),
      ply=state.ply + moved,
      last_action=keep(action, state.last_action),
    )
  )


def _move(state: State, action: Array) -> tuple[Array, Array, Array, Array]:
  """Returns board, rights, double step's file for the next mover, and whether
  a man was captured or a pawn moved."""
  source, plane = action // NUM_PLANES, action % NUM_PLANES
  target = source + jnp.asarray(_DELTA)[plane]
  left, onto = bits.square(source), bits.square(target)
  board = state.boards[0]
  mine, codes = board[0], board[1:]
  theirs = (codes[0] | codes[1] | codes[2]) & ~mine

  has = bits.union(codes & left[None]) != 0  # [3], the bits of the code
  code = jnp.sum(jnp.where(has, np.array([1, 2, 4], np.int32), 0))
  pawn, king = code == PAWN, code == KING
  becomes = jnp.asarray(_BECOMES)[plane]
  becomes = jnp.where(pawn & (target < 8) & (becomes == 0), QUEEN, becomes)
  code = jnp.where(becomes > 0, becomes, code)

  passing = pawn & (target == _en_passant_target(state.en_passant))
  passed = bits.square(jnp.where(passing, target + 8, -1))
  castles_e = king & (plane == _CASTLE_E)
  castles_w = king & (plane == _CASTLE_W)
  corner = jnp.where(castles_e, _H1, jnp.where(castles_w, _A1, -1))
  rook_from = bits.square(corner)
  rook_to = bits.square(
    jnp.where(castles_e, _H1 - 2, jnp.where(castles_w, _A1 + 3, -1))
  )

  gone = left | onto | passed | rook_from
  # A mover's man has the code 1 + 2 * code over all four sets.
  put = -(1 + 2 * code >> np.arange(4) & 1).astype(jnp.uint32)
  rook = -(1 + 2 * ROOK >> np.arange(4) & 1).astype(np.uint32)
  after = (
    board & ~gone[None]
    | put[:, None] & onto[None]
    | rook[:, None] & rook_to[None]
  )
  touched = bits.union((left | onto)[:, None] & _RIGHTS, axis=0)
  castling = state.castling & (touched == 0)
  captures = bits.union(theirs & onto) != 0
  double_step = jnp.where(pawn & (plane == _DOUBLE_STEP), source % 8, -1)
  return (
    bits.settle(_turn(after)),
    jnp.roll(castling, 2),
    double_step,
    pawn | captures,
  )


def _turn(board: Array) -> Array:
  """Returns boards [..., 4, 2] as the other side sees them."""
  x = board[..., ::-1]
  x = (x << 16) | (x >> 16)
  mask = np.uint32(0x00FF00FF)
  x = ((x & mask) << 8) | (x >> 8 & mask)
  mine, codes = x[..., :1, :], x[..., 1:, :]
  theirs = bits.union(codes, axis=-2)[..., None, :] & ~mine
  return jnp.concatenate([theirs, codes], axis=-2)


def _en_passant_target(file: Array) -> Array:
  return jnp.where(file >= 0, 16 + file, -1)


def _arrive(state: State) -> State:
  """Completes a state whose board, rights, clock and ply are those reached.

  Its `en_passant` is the file of a double step, whether or not the pawn can be
  captured.
  """
  board = state.boards[0]
  moves = _moves(board, state.castling, state.en_passant)
  en_passant = jnp.where(moves.passes, state.en_passant, -1)
  key = _hash(board, state.castling, en_passant, state.ply)
  number = np.arange(_COLUMNS)
  same = (state.keys[0] == key[0]) & (state.keys[1] == key[1])
  same &= number < state.clock
  repeats = jnp.sum(jnp.sum(same.reshape(4, -1).astype(jnp.int32), axis=0))
  keys = jnp.where((number == state.clock)[None], key[:, None], state.keys)

  stuck = ~moves.some
  ending = jnp.select(
    [
      stuck & moves.check,
      stuck,
      _insufficient(board),
      state.clock >= _NO_PROGRESS,
      repeats >= 2,
      state.ply >= MAX_PLIES,
    ],
    [CHECKMATE, STALEMATE, MATERIAL, FIFTY_MOVES, REPETITION, LENGTH],
    PLAYING,
  ).astype(jnp.int32)
  first = np.arange(_HISTORY) == 0
  return state._replace(
    legal=moves.legal,
    en_passant=en_passant,
    keys=keys,
    repeats=jnp.where(first, repeats.astype(jnp.uint8), state.repeats),
    check=moves.check,
    ending=ending,
  )


class _Moves(NamedTuple):
  legal: Array  # [2, 73] uint32
  some: Array  # [] bool, there is a legal move
  check: Array  # [] bool
  passes: Array  # [] bool, some en passant capture is legal


def _moves(board: Array, castling: Array, double_step: Array) -> _Moves:
  """All legal moves at once: sets are [2], or [2, 8] for eight directions."""
  mine, low, middle, high = board
  occupied = low | middle | high
  theirs, empty = occupied & ~mine, ~occupied
  pawns = low & ~middle & ~high
  knights = middle & ~low & ~high
  kings = low & middle & ~high
  sliders = (high & low)[:, None] & _DIAGONAL
  sliders |= (high & middle)[:, None] & _STRAIGHT
  king = kings & mine
  their_sliders = sliders & theirs[:, None]

  # En passant to the left (NW) and to the right (NE): who captures, and how
  # the board would look.
  target = bits.square(_en_passant_target(double_step))
  passed = bits.square(jnp.where(double_step >= 0, 24 + double_step, -1))
  capturers = bits.shift(passed[:, None], np.array([1, -1]))
  capturers &= (mine & pawns & _row(3))[:, None]  # [2, 2]
  empty_then = (empty | passed)[:, None] | capturers
  empty_then &= ~target[:, None]

  # Rays from my king, now and after either capture: [2, 3, 8].
  through = jnp.concatenate([empty[:, None], empty_then], axis=1)
  views = bits.rays(king[:, None, None], through[:, :, None], _QUEEN)
  seen_by = bits.union(views & their_sliders[:, None], axis=0) != 0  # [3, 8]
  view = views[:, 0]
  next_to_king = bits.steps(king[:, None], _QUEEN)
  contact = bits.union(next_to_king & _lanes(NE, NW)) & pawns & theirs
  contact |= bits.union(bits.steps(king[:, None], _KNIGHT)) & knights & theirs

  # What answers a check: capture of the man that gives it, or a step between.
  lines = bits.union(jnp.where(seen_by[0], view, 0))
  num_checks = jnp.sum(seen_by[0]) + jnp.sum(lax.population_count(contact))
  answers = jnp.where(num_checks == 0, np.uint32(0xFFFFFFFF), lines | contact)
  answers = jnp.where(num_checks > 1, np.uint32(0), answers)

  # What they attack with my king lifted off: [2, 8], a lane a direction.
  rays = bits.rays(their_sliders, (empty | king)[:, None], _QUEEN)
  men = (kings & theirs)[:, None] | (pawns & theirs)[:, None] & _lanes(SE, SW)
  danger = bits.union(rays | bits.steps(men, _QUEEN))
  danger |= bits.union(bits.steps((knights & theirs)[:, None], _KNIGHT))

  # A man of mine is pinned where the king's view meets an attack head-on;
  # it keeps the moves along that line.
  pinned = view & mine[:, None] & jnp.roll(rays, 4, axis=1)
  free = ~bits.union(pinned)
  free_along = free[:, None] | pinned | jnp.roll(pinned, 4, axis=1)
  free_along = bits.settle(free_along)

  # From where a target is one step away: for sliders, the king and pawns.
  onto = ~mine & answers
  pawn_onto = (theirs & answers)[:, None] & _lanes(NW, NE)
  pawn_onto |= (empty & answers)[:, None] & _lanes(N)
  king_onto = ~mine & ~danger
  every = np.full((1, 8), 0xFFFFFFFF, np.uint32)
  near = bits.steps(
    jnp.stack(
      [onto[:, None] & every, king_onto[:, None] & every, pawn_onto], axis=1
    ),
    _BACK,
  )
  my_sliders = sliders & mine[:, None] & free_along
  my_pawns = (pawns & mine)[:, None] & free_along
  passing = _passing(capturers, seen_by[1:], contact & ~passed)
  pawn_steps = my_pawns & near[:, 2] | passing
  reach = near[:, 0]
  planes = [my_sliders & reach | king[:, None] & near[:, 1] | pawn_steps]
  for _ in range(6):
    reach = bits.steps(reach & empty[:, None], _BACK)
    planes.append(my_sliders & reach)

  # Two squares at once: pawns, and the king that castles.
  two_ahead = bits.steps((empty & answers)[:, None], _SOUTH) & empty[:, None]
  two_ahead = bits.steps(two_ahead, _SOUTH) & _row(6)[:, None]
  planes[1] |= my_pawns & two_ahead & _lanes(N)
  blocked = occupied[:, None] & _CASTLE_EMPTY | danger[:, None] & _CASTLE_SAFE
  castles = castling[:2] & (bits.union(blocked, axis=0) == 0)  # [2] left, right
  castles = -castles.astype(jnp.uint32)
  planes[1] |= king[:, None] & (
    castles[None, :1] & _lanes(W) | castles[None, 1:] & _lanes(E)
  )

  leaps = bits.steps(onto[:, None], _KNIGHT_BACK)
  leaps &= (knights & mine & free)[:, None]
  promotes = pawn_steps & _row(1)[:, None]
  promotes = jnp.concatenate([promotes[:, NW:], promotes[:, : NE + 1]], axis=1)
  some = functools.reduce(jnp.bitwise_or, [*planes, leaps])
  legal = jnp.concatenate([*planes, leaps] + 3 * [promotes], axis=1)
  return _Moves(
    legal=legal,
    some=bits.union(some, axis=(0, 1)) != 0,
    check=num_checks > 0,
    passes=bits.union(passing, axis=(0, 1)) != 0,
  )


def _passing(capturers: Array, seen_by: Array, contact: Array) -> Array:
  """Returns [2, 8]: from where, and in which lane, en passant is legal.

  Args:
    capturers: [2, 2] who would capture, to the left and to the right.
    seen_by: [2, 8] bool, directions of a slider that would attack my king.
    contact: [2] other men that give check, without the pawn in question.
  """
  lawful = ~jnp.any(seen_by, axis=1) & (bits.union(contact) == 0)
  capturers = jnp.where(lawful, capturers, 0)
  return capturers[:, :1] & _lanes(NW) | capturers[:, 1:] & _lanes(NE)


def _insufficient(board: Array) -> Array:
  _, low, middle, high = board
  occupied = low | middle | high
  kings = low & middle & ~high
  knights = middle & ~low & ~high
  bishops = low & high & ~middle
  minor = knights | bishops
  only_minor = bits.union(occupied & ~kings & ~minor) == 0
  single = jnp.sum(lax.population_count(minor)) <= 1
  one_colour = (bits.union(bishops & _LIGHT) == 0) | (
    bits.union(bishops & ~_LIGHT) == 0
  )
  return only_minor & (single | (bits.union(knights) == 0) & one_colour)


def _mixed(x: Array) -> Array:
  x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


# [9, 2]: what sets the nine words and the two halves of a hash apart.
_SALT = np.random.default_rng(64).integers(0, 1 << 32, (9, 2), dtype=np.uint32)


def _hash(
  board: Array, castling: Array, en_passant: Array, ply: Array
) -> Array:
  """Returns [2] uint32, 64 bits of the position with its mover."""
  weights = np.array([1, 2, 4, 8], np.int32)
  rest = jnp.sum(jnp.where(castling, weights, 0))
  rest += 16 * (en_passant + 1) + 256 * (ply % 2)
  words = jnp.concatenate(
    [jnp.reshape(board, -1), rest.astype(jnp.uint32)[None]]
  )
  # A mix of each word, then of their sum: murmur's finalizer, which is a
  # bijection, so two boards that differ in one word never share a hash.
  return _mixed(jnp.sum(_mixed(words[:, None] ^ _SALT), axis=0))


def packed_moves(state: State) -> Array:
  """Returns `state.legal`, computed again where a compact state lacks it."""
  if state.legal is not None:
    return state.legal
  return _moves(state.boards[0], state.castling, state.en_passant).legal


def legal_mask(state: State) -> Array:
  """Returns [4672] bool; all False once the game is over."""
  sets = jnp.where(terminal(state), np.uint32(0), packed_moves(state))
  # Row by row as bytes, four times as many to a machine instruction. A stack
  # of columns, because XLA:CPU is slow where a reshape joins uneven axes of
  # what it still has to compute (2.0 us a state instead of 0.3).
  rows = sets[:, None] >> np.array([0, 8, 16, 24], np.uint32).reshape(1, 4, 1)
  rows = bits.settle(rows.reshape(8, NUM_PLANES).astype(jnp.uint8))
  columns = [rows & np.uint8(1 << column) != 0 for column in range(8)]
  return jnp.stack(columns, axis=1).reshape(NUM_ACTIONS)


def observe(state: State) -> Array:
  """Returns [8, 8, 119] float32, AlphaZero's planes as the mover sees them.

  14 for each of the last eight positions, the present one first: the mover's
  pawns, knights, bishops, rooks, queens, king, the opponent's, then whether it
  came up for the first time, and whether it had come up before (all 14 are
  zeros before the start). Then 7 that are the same everywhere: Black moves,
  half moves / 512, the mover's rights to castle on the queen's and the king's
  side, the opponent's, half moves without progress / 100.
  """
  # [8, 4, 2], all from the present mover's side: it was the other one's turn
  # at every other position, which is known without looking.
  boards = jnp.stack([state.boards[::2], _turn(state.boards[1::2])], axis=1)
  boards = boards.reshape(_HISTORY, 4, 2)
  shifts = np.arange(32, dtype=np.uint32)
  weights = np.array([8, 1, 2, 4], np.uint32)
  on = boards[..., None] >> shifts.reshape(1, 1, 1, 32) & np.uint32(1)
  codes = bits.union(on * weights.reshape(1, 4, 1, 1), axis=1)  # [8, 2, 32]
  there = bits.union(boards, axis=(1, 2)) != 0
  new = jnp.where(state.repeats == 0, np.uint32(16), np.uint32(32))
  codes |= jnp.where(there, new, 0)[:, None, None]
  codes = bits.settle(codes.reshape(_HISTORY, 64).T)  # [64, 8]
  planes = [
    (codes[:, past, None] & _SEEN_BITS == _SEEN_VALUE).astype(jnp.float32)
    for past in range(_HISTORY)
  ]
  same = jnp.concatenate(
    [
      jnp.stack([state.ply % 2, state.ply / MAX_PLIES]).astype(jnp.float32),
      state.castling.astype(jnp.float32),
      jnp.reshape(state.clock / _NO_PROGRESS, 1).astype(jnp.float32),
    ]
  )
  same = jnp.broadcast_to(same[None], (64, 7))
  return jnp.concatenate([*planes, same], axis=1).reshape(8, 8, 119)


_MEN = (PAWN, KNIGHT, BISHOP, ROOK, QUEEN, KING)
# [1, 14]: a plane is 1 where these bits of the code have this value.
_SEEN_BITS = np.array([15] * 12 + [16, 32], np.uint32).reshape(1, 14)
_SEEN_VALUE = np.array(
  [8 + man for man in _MEN] + [*_MEN, 16, 32], np.uint32
).reshape(1, 14)


def to_play(state: State) -> Array:
  """Returns [] int32: 0 for White, 1 for Black."""
  return state.ply % 2


def terminal(state: State) -> Array:
  """Returns [] bool."""
  return state.ending != PLAYING


def reward(state: State) -> Array:
  """Returns [2] float32, for White and Black: +1, -1 after a mate, else 0."""
  white = jnp.where(state.ending == CHECKMATE, 2 * to_play(state) - 1, 0)
  return jnp.stack([white, -white]).astype(jnp.float32)


def compact(state: State) -> State:
  """Returns the state without its packed moves, a third of its bytes."""
  return state._replace(legal=None)


def render(state: State) -> str:
  """Returns the board as text, White below; see `chess_notation.text`."""
  # Here, not above: notations are written in terms of these rules.
  from dl_lectures.envs import chess_notation

  return chess_notation.text(state)


def action_name(action: int) -> str:
  """Returns the squares in UCI's way as the mover numbers them: 'e2e4'.

  For White that is UCI. Black's moves are named as if the board were turned
  round (a7a5 is 'a2a4'), and a new queen is not told ('e7e8'): neither can be
  known without the position. `chess_notation.move_name` has it and tells.
  """
  from dl_lectures.envs import chess_notation

  return chess_notation.stateless_name(action)


def parse_action(text: str) -> int:
  """Returns the action of a name as `action_name` gives it."""
  from dl_lectures.envs import chess_notation

  return chess_notation.parse_stateless(text)


GAME = games.Game(
  name='chess',
  num_actions=NUM_ACTIONS,
  observation_shape=(8, 8, 119),
  max_plies=MAX_PLIES,
  init=init,
  step=step,
  legal_mask=legal_mask,
  observe=observe,
  to_play=to_play,
  terminal=terminal,
  reward=reward,
  symmetries=(games.IDENTITY,),
  render=render,
  action_name=action_name,
  parse_action=parse_action,
  compact=compact,
)
