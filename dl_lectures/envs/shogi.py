"""Shogi: exact rules on bitboards, in AlphaZero's encoding.

The board is always seen by the mover, who moves up: cell 9 * row + column, row
0 is the far side, column 0 the left one (file 9, rank a, when Black moves). A
set of cells is three uint32 words of 27 bits, three rows each: `[3]`. So the
promotion zone is the first word, and turning the board is a reversal of bits.

No move is ever tried. From the king outwards and from the sliders inwards one
parallel fill gives checks, pins and attacked squares, for both sides; a move
is legal if its target and its mover's pin allow it.

      sliders --fill--> attacked squares --+-> the king's own moves
                   \\                       |
      kings --fill--> rays: checks, pins --+-> legal origins [3, 139], one
                                           |   set of cells for each of
      pawn's drop --fill--> its captors ---+   AlphaZero's 139 move planes

A move is `origin * 139 + plane`. Planes 0-63 are the queen's moves, direction
* 8 + distance - 1 (directions clockwise from straight ahead); 64, 65 the
knight's jumps, left and right; 66-131 the same with promotion; 132-138 drops
on the "origin" of a pawn, lance, knight, silver, bishop, rook, gold.

What the rules leave to a program, and what is decided here:

- A position (board, hands, mover) that occurs for the fourth time ends the
  game. It is a draw (sennichite), unless between the first and the fourth
  occurrence every move of one side, and not every move of the other, gave
  check: that side loses. Repetitions are looked for in the last 64 plies.
- Entering king, the 27-point rule of computer shogi (CSA): a mover who is not
  in check, whose king and at least ten other pieces stand in the promotion
  zone, and who has 28 points (Black) or 27 (White) there and in hand, wins.
  A rook or bishop counts five, any other piece one, the king nothing. It is
  declared for the mover as soon as it is possible.
- Who has no legal move loses, also without a check.
- 512 plies are a draw, as in AlphaZero's games.
- Mate by a dropped pawn is illegal, a mate by another drop is not.

Source: Silver et al., "A general reinforcement learning algorithm that masters
chess, shogi, and Go through self-play", Science 2018, tables S1 and S2, for
the encoding; slides, deck 000, "AlphaZero: One Algorithm, Three Games"; the
rules of the Computer Shogi Association for repetition and entering kings.
"""

import functools
import operator
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import bits, games
from dl_lectures.types import Array, Key, UsageError

SIZE = 9
CELLS = SIZE * SIZE
MAX_PLIES = 512
WINDOW = 64  # plies in which a repetition is noticed; even, see `_repeated`

# A piece's code: 1-7 as in a hand, 8 the king, 9-14 the first six promoted.
PIECES = 'PLNSBRGK'
PAWN, LANCE, KNIGHT, SILVER, BISHOP, ROOK, GOLD, KING = range(1, 9)
PROMOTED = 8
HAND = PIECES[:7]
MOST_IN_HAND = (18, 4, 4, 4, 2, 2, 4)

_WORDS, _BITS = 3, 27
_FULL = np.uint32((1 << _BITS) - 1)
_ONES = np.uint32(0xFFFFFFFF)
_ROW = np.uint32((1 << SIZE) - 1)
_ROW_SHIFT = SIZE * np.arange(3, dtype=np.uint32)

# Clockwise from straight ahead; the opposite of direction d is d + 4.
_DIRECTIONS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_DIRECTIONS += ((-1, -1),)
_JUMPS = ((-2, -1), (-2, 1))
_STEPS = np.array(_DIRECTIONS + _JUMPS)  # [10, 2]
_REACH = SIZE - 1
_QUEEN = 8 * _REACH
_MOVES = _QUEEN + len(_JUMPS)
_DROPS = 2 * _MOVES
PLANES = _DROPS + len(HAND)
# [139, 2]: (rows, columns) from origin to target.
_OFFSETS = np.concatenate(
  [
    (_STEPS[:8, None] * np.arange(1, _REACH + 1)[:, None]).reshape(_QUEEN, 2),
    _STEPS[8:],
  ]
)
_OFFSETS = np.concatenate([_OFFSETS, _OFFSETS, np.zeros((len(HAND), 2), int)])
_DELTA = (_OFFSETS @ (SIZE, 1)).astype(np.int32)

NO_MOVE, DECLARED, REPEATED, MOVER_CHECKED, OTHER_CHECKED, TOO_LONG = range(
  1, 7
)


class State(NamedTuple):
  """A position; 632 bytes.

  Attributes:
    board: [5, 3] uint32, sets of cells: the four bits of a piece's code, low
      bit first, and the mover's pieces.
    hands: [2] uint32, the mover's and the opponent's, four bits a count: gold
      lowest, then R, B, S, N, L, and the pawns in the eight highest.
    color: [] int32, who moves: 0 Black, who began, or 1 White.
    ply: [] int32, moves played.
    records: [7] uint32, the last moves, newest first, with what takes them
      back; 0 where there was none.
    hashes: [64, 2] uint32, of the position after ply p at p % 64.
    checks: [2] int32, how many of the last moves in succession gave check,
      the mover's own and the opponent's.
    repetitions: [] int32, how often the position had occurred before.
    ending: [] int32, 0 while the game goes on, then why it ended: NO_MOVE,
      DECLARED, REPEATED, MOVER_CHECKED or OTHER_CHECKED (perpetually),
      TOO_LONG; mover and other are those of this state.
  """

  board: Array
  hands: Array
  color: Array
  ply: Array
  records: Array
  hashes: Array
  checks: Array
  repetitions: Array
  ending: Array


# Sets of cells.


class _Shift(NamedTuple):
  """A move of sets of cells, lane by lane: turn each word, mask, combine.

  Attributes:
    left, right: [*lanes] uint32, the two halves of a rotation of 27 bits.
    keep: [3, 3, *lanes] uint32, the bits that arrive in word i from word j;
      who would leave the board arrives nowhere.
  """

  left: np.ndarray
  right: np.ndarray
  keep: np.ndarray


def _shift(offsets: np.ndarray) -> _Shift:
  """Returns the shift by offsets [*lanes, 2] (rows, columns)."""
  lanes = offsets.shape[:-1]
  turn = (offsets @ (SIZE, 1) % _BITS).astype(np.uint32)
  keep = np.zeros((_WORDS, _WORDS, *lanes), np.uint32)
  for lane in np.ndindex(*lanes):
    down, right = offsets[lane]
    for cell in range(CELLS):
      row, column = cell // SIZE + down, cell % SIZE + right
      if 0 <= row < SIZE and 0 <= column < SIZE:
        word, bit = divmod(row * SIZE + column, _BITS)
        keep[(word, cell // _BITS, *lane)] |= np.uint32(1 << bit)
  return _Shift(turn, np.uint32(_BITS) - turn, keep)


def _shifted(words, shift: _Shift) -> list:
  turned = [word << shift.left | word >> shift.right for word in words]
  return [
    functools.reduce(
      operator.or_,
      [
        word & keep
        for word, keep in zip(turned, keeps, strict=True)
        if keep.any()
      ],
      jnp.uint32(0),
    )
    for keeps in shift.keep
  ]


def _stack(words: list) -> Array:
  # One word at a time: they are computed from one another.
  return jnp.stack([bits.settle(word) for word in words])


def _settled_bytes(x: Array) -> Array:
  """As `bits.settle`, of uint8."""
  pair = np.array([255, 1], np.uint8).reshape((1,) * x.ndim + (2,))
  return bits.union(x[..., None] & pair)


def _turned(board: Array) -> Array:
  """Returns the sets [..., 3] as seen from the other side."""
  x = board[..., ::-1]
  for size, mask in (
    (1, 0x55555555),
    (2, 0x33333333),
    (4, 0x0F0F0F0F),
    (8, 0x00FF00FF),
  ):
    mask = np.uint32(mask)
    x = (x >> size) & mask | (x & mask) << size
  return (x >> 16 | x << 16) >> (32 - _BITS)


def _lanes(*on: int) -> np.ndarray:
  """Returns [1, 1, 10] uint32: all ones in these lanes."""
  mask = np.zeros((1, 1, len(_STEPS)), np.uint32)
  mask[..., list(on)] = _ONES
  return mask


_STRAIGHT, _DIAGONAL = _lanes(0, 2, 4, 6), _lanes(1, 3, 5, 7)
_AHEAD, _AROUND, _JUMP = _lanes(0), _lanes(*range(8)), _lanes(8, 9)
_AS_SILVER, _AS_GOLD = _lanes(0, 1, 3, 5, 7), _lanes(0, 1, 2, 4, 6, 7)

# The five sets that are filled together, and who looks: what the mover's
# pieces reach, what the opponent's do, and the rays from the mover's king,
# from a pawn dropped before the opponent's king, from the opponent's king.
_SIDES = np.array([1, -1, 1, 1, -1])
_STEP = _shift(_SIDES[:, None, None] * _STEPS)  # [5, 10]
_SLIDE = _shift(_SIDES[:, None, None] * _STEPS[:8])  # [5, 8]
_SLIDE_TWO = _shift(_SIDES[:, None, None] * _STEPS[:8] * 2)
_BELOW = _shift(np.array([1, 0]))
_BACK = _shift(-_OFFSETS[:_MOVES])  # [66]


def _fill(sliders: Array, free: Array) -> Array:
  """Returns [3, 5, 8]: what sliders [3, 5, 8] reach over free [3, 5, 1]."""
  # Kogge and Stone's doubling: reach 1, 3, 5, 7 cells, and the last step.
  once = [f & s for f, s in zip(free, _shifted(free, _SLIDE), strict=True)]
  reached = [
    g | f & s
    for g, f, s in zip(sliders, free, _shifted(sliders, _SLIDE), strict=True)
  ]
  for _ in range(3):
    reached = [
      g | f & s
      for g, f, s in zip(
        reached, once, _shifted(reached, _SLIDE_TWO), strict=True
      )
    ]
  return _stack(_shifted(reached, _SLIDE))


# The mover's moves.


def _zone(plane_rows: np.ndarray, last_row: int) -> np.ndarray:
  """Returns [3, planes]: origins whose target's row is at most `last_row`."""
  rows = np.arange(CELLS)[:, None] // SIZE + plane_rows
  cells = ((rows >= 0) & (rows <= last_row)).reshape(_WORDS, _BITS, -1)
  weights = (1 << np.arange(_BITS))[:, None]
  return (cells * weights).sum(axis=1).astype(np.uint32)


_ROWS = _OFFSETS[:_MOVES, 0]
_TO_ZONE = _zone(_ROWS, 2) | _zone(0 * _ROWS, 2)
_TO_LAST = _zone(_ROWS, 0)
_TO_LAST_TWO = _zone(_ROWS, 1)
# [8, 8]: steps before the k-th, on which a slider's way must be free.
_BEFORE = np.tril(np.full((_REACH, _REACH), _ONES), -1)
_FIRST = np.eye(1, _REACH, dtype=np.uint32) * _ONES  # [1, 8]


class _Moves(NamedTuple):
  """All that is asked of a position.

  Attributes:
    origins: [3, 139] uint32, for each plane the cells it may start from.
    checked: [] bool, the mover's king is attacked.
  """

  origins: Array
  checked: Array


def _moves(board: Array, hands: Array) -> _Moves:
  low, middle, high, extra, mine = board  # each [3]
  occupied = low | middle | high | extra
  plain = ~extra & _FULL
  pawn = low & ~middle & ~high & plain
  lance = ~low & middle & ~high & plain
  knight = low & middle & ~high & plain
  silver = ~low & ~middle & high & plain
  bishop = low & ~middle & high
  rook = ~low & middle & high
  gold = (low & middle & high) | (extra & (low ^ middle) & ~high)
  gold = gold | (extra & (low & middle) & ~high)
  gold = gold | (extra & ~low & ~middle & high)
  king = extra & ~low & ~middle & ~high
  whose = jnp.stack([mine, occupied & ~mine], axis=1)  # [3, 2]

  def by_lane(pieces, lanes):
    return (pieces[:, None] & whose)[..., None] & lanes  # [3, 2, 10]

  sliders = (
    by_lane(rook, _STRAIGHT)
    | by_lane(bishop, _DIAGONAL)
    | by_lane(lance, _AHEAD)
  )
  steppers = (
    by_lane(pawn, _AHEAD)
    | by_lane(knight, _JUMP)
    | by_lane(silver, _AS_SILVER)
    | by_lane(gold, _AS_GOLD)
    | by_lane(bishop & extra, _STRAIGHT)
    | by_lane(rook & extra, _DIAGONAL)
  )
  sliders, steppers = bits.settle(sliders[..., :8]), bits.settle(steppers)

  my_king, their_king = king & mine, king & ~mine
  dropped = _stack(_shifted(their_king, _BELOW))
  empty = ~occupied & _FULL
  without_drop = empty & ~dropped
  starts = jnp.stack([my_king, dropped, their_king], axis=1)[..., None]
  # A king does not shield the cells behind it, and the pawn is on the board.
  free = jnp.stack(
    [without_drop | their_king, empty | my_king, empty, empty, without_drop],
    axis=1,
  )
  reached = _fill(
    jnp.concatenate([sliders, starts & _AROUND[..., :8]], axis=1),
    free[..., None],
  )
  kings = jnp.stack([my_king, their_king], axis=1)[..., None] & _AROUND
  near = _stack(
    _shifted(
      jnp.concatenate(
        [steppers | kings, jnp.broadcast_to(starts, (3, 3, 10))], axis=1
      ),
      _STEP,
    )
  )
  attacked = bits.union(reached[:, :2], 2) | bits.union(
    near[:, :2], 2
  )  # [3, 2]

  # Who attacks the king, and who could take the dropped pawn.
  from_afar = reached[:, 2:4] & sliders[:, 1:]  # [3, 2, 8]
  from_near = near[:, 2:4] & steppers[:, 1:]  # [3, 2, 10]
  through = reached[:, 1::-1] & reached[:, 2::2] & whose[..., None]
  through = bits.settle(through)  # [3, 2, 8]: pinned, mine and theirs
  pinned = bits.union(through, 2)
  attackers = bits.union(from_afar, 2) | bits.union(from_near, 2)  # [3, 2]
  checkers = _popcount(attackers[:, 0])
  lines = jnp.where(bits.union(from_afar[:, 0], 0) != 0, _ONES, 0)  # [8]
  block = bits.union(reached[:, 2] & lines[None], 1)
  block = block | bits.union(from_near[:, 0], 1)
  allowed = jnp.where(checkers == 0, _FULL, jnp.where(checkers == 1, block, 0))

  # Origins: a target's set, moved back along each plane.
  target = ~mine & _FULL & allowed
  back = _stack(
    _shifted(jnp.stack([target, occupied], axis=1)[..., None], _BACK_TWO)
  )  # [3, 2, 66]
  onto = back[:, 0]
  ahead = back[:, 1, :_QUEEN].reshape(_WORDS, 8, 1, _REACH)
  blocked = bits.union(ahead & _BEFORE[None, None], 3)  # [3, 8, 8]
  axis = bits.union(through[:, 0].reshape(_WORDS, 2, 4), 1)
  axis = jnp.concatenate([axis, axis], axis=1)  # [3, 8]
  unpinned = ~pinned[:, :1]
  movable = unpinned | axis
  sliding = (sliders[:, 0] & movable)[..., None]
  stepping = (steppers[:, 0, :8] & movable)[..., None] & _FIRST[None]
  queen = (sliding & ~blocked | stepping).reshape(_WORDS, _QUEEN)
  jumps = steppers[:, 0, 8:] & unpinned
  movers = jnp.concatenate([queen, jumps], axis=1) & onto
  safe = near[:, 2, :8] & (~mine & ~attacked[:, 1])[:, None]
  escapes = jnp.where(bits.union(safe, 0) != 0, _ONES, 0)  # [8]
  king_moves = my_king[:, None, None] & escapes[None, :, None] & _FIRST[None]
  movers = bits.settle(movers)
  forward = (pawn | lance)[:, None]
  plain_moves = (
    movers & ~(forward & _TO_LAST) & ~(knight[:, None] & _TO_LAST_TWO)
  )
  king_moves = jnp.pad(
    king_moves.reshape(_WORDS, _QUEEN), ((0, 0), (0, len(_JUMPS)))
  )
  promotable = (pawn | lance | knight | silver) | (bishop | rook) & ~extra
  promoting = movers & promotable[:, None] & _TO_ZONE

  # Drops.
  escape = near[:, 4, :8] & (mine | empty)[:, None] & ~attacked[:, :1]
  escape = bits.union(escape, 1)
  captor = attackers[:, 1] & ~pinned[:, 1]
  mates = ~jnp.any((escape | captor) != 0)
  pawns = pawn & mine
  files = bits.union(pawns, 0)
  files = (files | files >> SIZE | files >> 2 * SIZE) & _ROW
  files = files * np.uint32(1 | 1 << SIZE | 1 << 2 * SIZE)
  onto_pawn = ~files & ~jnp.where(mates, dropped, 0)
  drops = jnp.where(_counts(hands[0]) > 0, _ONES, 0)[None] & _DROPPABLE
  drops = drops & (empty & allowed)[:, None]
  is_pawn = np.arange(len(HAND)) == 0
  drops = jnp.where(is_pawn[None], drops & onto_pawn[:, None], drops)

  origins = jnp.concatenate([plain_moves | king_moves, promoting, drops], 1)
  return _Moves(bits.settle(origins), checkers > 0)


_BACK_TWO = _Shift(_BACK.left[None], _BACK.right[None], _BACK.keep[:, :, None])
_DROPPABLE = np.full((_WORDS, len(HAND)), _FULL)
_DROPPABLE[0, :2] = _FULL & ~_ROW
_DROPPABLE[0, 2] = _FULL & ~(_ROW | _ROW << SIZE)


def _popcount(cells: Array) -> Array:
  """Returns [] int32: the size of a set [3]."""
  return jax.lax.population_count(cells).astype(jnp.int32).sum()


_COUNT_SHIFT = (28 - 4 * np.arange(1, 8)).astype(np.uint32)
_COUNT_MASK = np.array([31, *[15] * 6], np.uint32)


def _counts(hand: Array) -> Array:
  """Returns [..., 7] int32: pieces of each kind in a hand [...]."""
  shape = (1,) * hand.ndim + (7,)
  shift, mask = _COUNT_SHIFT.reshape(shape), _COUNT_MASK.reshape(shape)
  return (hand[..., None] >> shift & mask).astype(jnp.int32)


# The protocol of games.


def init(key: Key) -> State:
  """Returns the start; the key is not used."""
  del key
  return jax.tree.map(jnp.asarray, _BEGIN)


def start(
  codes: np.ndarray, mine: np.ndarray, hands: np.ndarray, color: int, ply: int
) -> State:
  """Returns a position with nothing before it (host).

  Args:
    codes: [81] pieces' codes, 0 empty, in cells as the mover sees them.
    mine: [81] bool, the mover's pieces.
    hands: [2, 7] counts, the mover's and the opponent's, in order of `HAND`.
    color: 0 if Black moves, 1 if White.
    ply: moves played before.
  """
  return _judged(_unjudged(codes, mine, hands, color, ply))


def _unjudged(codes, mine, hands, color: int, ply: int) -> State:
  codes = np.asarray(codes)
  values = codes | (np.asarray(mine) & (codes > 0)) << 4
  code_bits = values.reshape(_WORDS, _BITS) >> np.arange(5)[:, None, None] & 1
  board = (code_bits << np.arange(_BITS)).sum(-1).astype(np.uint32)
  packed = (np.asarray(hands) << _COUNT_SHIFT.astype(int)).sum(-1)
  packed = packed.astype(np.uint32)
  hashes = np.zeros((WINDOW, 2), np.uint32)
  hashes[ply % WINDOW] = _hash(np.concatenate([board.reshape(-1), packed]))
  # On the host: importing this module touches no device.
  fields: Any = {
    'board': board,
    'hands': packed,
    'color': np.int32(color),
    'ply': np.int32(ply),
    'records': np.zeros(7, np.uint32),
    'hashes': hashes,
    'checks': np.zeros(2, np.int32),
    'repetitions': np.int32(0),
    'ending': np.int32(0),
  }
  return State(**fields)


@jax.jit
def _judged(state: State) -> State:
  moves = _moves(state.board, state.hands)
  return state._replace(ending=_ending(state, moves))


def _begin() -> State:
  rows = ['lnsgkgsnl', '.r.....b.', 'ppppppppp', *['.........'] * 3]
  rows += ['PPPPPPPPP', '.B.....R.', 'LNSGKGSNL']
  pieces = ''.join(rows)
  codes = [PIECES.find(piece.upper()) + 1 for piece in pieces]
  mine = [piece.isupper() for piece in pieces]
  return _unjudged(codes, mine, np.zeros((2, 7), int), 0, 0)


# A record: origin 7 bits, target 7, captured code 4, moved code 4, whether it
# was a drop 1, whether there is a move 1, how often the position before the
# move had occurred 2. A drop has its target as origin, and moved the type.
_TARGET, _CAPTURED, _MOVED, _DROP, _EXISTS, _TIMES = 7, 14, 18, 22, 23, 24


def step(state: State, action: Array) -> State:
  """Plays `origin * 139 + plane`, as the mover sees the board.

  An illegal action leads to a position that means nothing.
  """
  over = terminal(state)
  action = jnp.asarray(action, jnp.int32)
  origin, plane = action // PLANES, action % PLANES
  target = origin + jnp.asarray(_DELTA)[plane]
  is_drop = plane >= _DROPS
  promotes = (plane >= _MOVES) & ~is_drop
  ends = jnp.stack(
    [bits.square(origin, _WORDS, _BITS), bits.square(target, _WORDS, _BITS)]
  )  # [2, 3]
  there = bits.union(ends[:, None] & state.board[None, :4], 2) != 0  # [2, 4]
  weights = np.array([[1, 2, 4, 8]], np.int32)
  codes = (there * weights).sum(axis=1)
  moved = jnp.where(is_drop, plane - (_DROPS - 1), codes[0])
  captured = codes[1]
  placed = moved + jnp.where(promotes, PROMOTED, 0) + 16
  code_bits = placed >> np.arange(5, dtype=np.int32) & 1
  left = state.board & ~(ends[:1] | ends[1:])
  board = _turned(left | jnp.where(code_bits[:, None] == 1, ends[1:], 0))
  occupied = bits.union(board[:4], 0)
  is_mine = np.arange(5)[:, None] == 4
  board = jnp.where(is_mine, occupied[None] & ~board, board)

  def one(code):
    return jnp.uint32(1) << (28 - 4 * (code & 7)).astype(jnp.uint32)

  gained = jnp.where(captured > 0, one(captured), 0)
  spent = jnp.where(is_drop, one(moved), 0)
  hands = jnp.stack([state.hands[1], state.hands[0] + gained - spent])
  record = (
    origin
    | target << _TARGET
    | captured << _CAPTURED
    | moved << _MOVED
    | is_drop << _DROP
    | 1 << _EXISTS
    | state.repetitions << _TIMES
  )
  records = jnp.concatenate(
    [record.astype(jnp.uint32)[None], state.records[:-1]]
  )
  # What is over stays, and before anything is concluded from the position:
  # then `legal_mask` asks what was asked here, and is not computed again.
  board = jnp.where(over, state.board, bits.settle(board))
  hands = jnp.where(over, state.hands, hands)
  moves = _moves(board, hands)
  digest = _hash(jnp.concatenate([board.reshape(-1), hands]))
  ply = state.ply + 1
  repetitions, since = _repeated(state.hashes, digest, ply)
  slot = np.arange(WINDOW) == ply % WINDOW
  after = State(
    board=board,
    hands=hands,
    color=1 - state.color,
    ply=ply,
    records=records,
    hashes=jnp.where(slot[:, None], digest[None], state.hashes),
    checks=jnp.stack(
      [state.checks[1], jnp.where(moves.checked, state.checks[0] + 1, 0)]
    ),
    repetitions=jnp.minimum(repetitions, 3),
    ending=jnp.int32(0),
  )
  after = after._replace(ending=_ending(after, moves, since))
  after = jax.tree.map(lambda x, old: jnp.where(over, old, x), after, state)
  return after._replace(board=board, hands=hands)


def _hash(words):
  """Returns [2] uint32 of [17], numpy's or jax's; nearly never two alike."""
  x = (words[None] ^ _SALT) * np.uint32(0x9E3779B1)
  x = (x ^ x >> 15) * np.uint32(0x85EBCA77)
  x = (x ^ x >> 13) * _ODD
  return (x ^ x >> 16).sum(axis=1, dtype=np.uint32)


_rng = np.random.default_rng(0)
_SALT = _rng.integers(0, 1 << 32, (2, 17), np.uint32)
_ODD = _rng.integers(0, 1 << 32, (2, 17), np.uint32) | np.uint32(1)
_BEGIN = _begin()


def _repeated(hashes: Array, digest: Array, ply: Array) -> tuple[Array, Array]:
  """Returns how often this position occurred, and how many plies ago first."""
  ago = (ply - 1 - np.arange(WINDOW)) % WINDOW + 1  # same slots, other plies
  # After an even number of plies it is the same player's turn.
  same = jnp.all(hashes == digest[None], axis=1) & (ago % 2 == 0)
  same = same & (ago <= ply)
  return same.sum(), jnp.max(jnp.where(same, ago, 0))


def _ending(state: State, moves: _Moves, since: Array | int = 0) -> Array:
  in_zone = state.board[:, 0]
  low, middle, high, extra, mine = in_zone
  king = extra & ~low & ~middle & ~high & mine
  big = high & (low ^ middle) & mine
  count = jax.lax.population_count
  others = count(mine & ~king).astype(jnp.int32)
  points = others + 4 * count(big).astype(jnp.int32)
  worth = np.array([5 if x in 'BR' else 1 for x in HAND], np.int32)
  points = points + (_counts(state.hands[0]) * worth).sum()
  declared = (
    (king != 0) & ~moves.checked & (others >= 10) & (points >= 28 - state.color)
  )
  # Each player has made half of the moves since.
  always = state.checks >= since // 2
  repeated = jnp.where(
    always[0] == always[1],
    REPEATED,
    jnp.where(always[0], MOVER_CHECKED, OTHER_CHECKED),
  )
  return jnp.select(
    [
      ~jnp.any(moves.origins != 0),
      state.repetitions >= 3,
      declared,
      state.ply >= MAX_PLIES,
    ],
    [jnp.int32(NO_MOVE), repeated, jnp.int32(DECLARED), jnp.int32(TOO_LONG)],
    jnp.int32(0),
  )


def legal_mask(state: State) -> Array:
  """Returns [11259] bool; none once the game is over."""
  origins = _moves(state.board, state.hands).origins
  origins = jnp.where(terminal(state), 0, origins)
  rows = origins[:, None] >> _ROW_SHIFT[None, :, None]  # [3, 3, 139]
  # Bytes, the ninth column apart: XLA:CPU makes vector code of this, and of
  # one comparison with all the bits a loop ten times as slow.
  eight = _settled_bytes(rows.astype(jnp.uint8))
  ninth = _settled_bytes((rows >> 8).astype(jnp.uint8))
  columns = np.uint8(1) << np.arange(8, dtype=np.uint8)
  mask = jnp.concatenate(
    [
      eight.reshape(SIZE, 1, PLANES) & columns[None, :, None] != 0,
      ninth.reshape(SIZE, 1, PLANES) & np.uint8(1) != 0,
    ],
    axis=1,
  )
  return mask.reshape(-1)


def in_check(state: State) -> Array:
  """Returns [] bool: the mover's king is attacked."""
  return _moves(state.board, state.hands).checked


def to_play(state: State) -> Array:
  """Returns [] int32: 0 for Black, who began, 1 for White."""
  return state.color


def terminal(state: State) -> Array:
  """Returns [] bool: see `State.ending`."""
  return state.ending != 0


def reward(state: State) -> Array:
  """Returns [2] float32: +1 and -1 for the winner and the loser, else 0."""
  ending = state.ending
  lost = (ending == NO_MOVE) | (ending == MOVER_CHECKED)
  won = (ending == DECLARED) | (ending == OTHER_CHECKED)
  first = (won.astype(jnp.int32) - lost) * (1 - 2 * state.color)
  return jnp.stack([first, -first]).astype(jnp.float32)


_STEPS_SEEN = 8
_FEATURES = 2 * 14 + 3 + 2 * len(HAND)
OBSERVATION_PLANES = _STEPS_SEEN * _FEATURES + 2
_TYPES = np.arange(1, 15)
# What a cell must hold for each of the 45 features; 255 is held by none.
_HELD = np.full(_FEATURES, 255, np.uint8)
_HELD[:14], _HELD[14:28] = _TYPES + 16, _TYPES


def observe(state: State) -> Array:
  """Returns [9, 9, 362] float32, the last eight boards and two planes more.

  For each board, the present one first, 45 planes, all as the present mover
  sees them: the mover's P L N S B R G K +P +L +N +S +B +R, the opponent's,
  three that say that the position had occurred once, twice, three times
  before, the mover's hand (P L N S B R G, as a part of all there are), the
  opponent's. Boards before the first are zeros. Then: whether White moves,
  and the plies played, as a part of 512.
  """
  weights = (np.uint32(1) << np.arange(5, dtype=np.uint32))[:, None, None]
  shifts = np.arange(_BITS, dtype=np.uint32)[None, None]
  held = ((state.board[..., None] >> shifts & 1) * weights).sum(axis=0)
  held = bits.settle(held.reshape(CELLS, 1))
  # [7] each, of the last moves; of the very last the opponent is the player.
  record = state.records
  mine = np.arange(_STEPS_SEEN - 1, dtype=np.uint32) % 2
  exists = record >> _EXISTS & 1
  drop = record >> _DROP & 1
  captured, moved = record >> _CAPTURED & 15, record >> _MOVED & 15
  ends = jnp.stack([record & 127, record >> _TARGET & 127])
  ends = jnp.where(mine[None] == 1, ends, CELLS - 1 - ends)
  before = jnp.stack(
    [
      jnp.where(drop == 1, 0, moved + 16 * mine),
      jnp.where(captured > 0, captured + 16 * (1 - mine), 0),
    ]
  )
  ends, before = bits.settle(jnp.stack([ends, before]))
  cells = np.arange(CELLS, dtype=np.uint32)[:, None]
  boards = jnp.broadcast_to(held, (CELLS, _STEPS_SEEN))
  ago = np.arange(_STEPS_SEEN, dtype=np.uint32)[None]
  for move in range(_STEPS_SEEN - 1):
    undone = ago > move
    for end in (1, 0):  # the origin last: a drop's target is its origin
      there = undone & (cells == ends[end, move])
      boards = jnp.where(there, before[end, move], boards)
  exist = jnp.concatenate([jnp.ones(1, jnp.uint32), exists])
  boards = bits.settle(jnp.where(exist[None] == 1, boards, 0))

  one = jnp.where(drop == 1, moved, captured)
  one = jnp.where(one > 0, jnp.uint32(1) << (28 - 4 * (one & 7)), 0)
  change = jnp.where(drop == 1, one, -one)[:, None] * _PLAYER  # [7, 2]
  undone = (ago[:, :-1] < ago.T)[..., None]  # [8, 7, 1]
  hands = state.hands[None] + jnp.where(undone, change[None], 0).sum(axis=1)
  counts = _counts(jnp.where(exist[:, None] == 1, hands, 0))
  most = np.array(MOST_IN_HAND, np.float32).reshape(1, 1, -1)
  times = jnp.concatenate(
    [state.repetitions.astype(jnp.uint32)[None], record >> _TIMES & 3]
  )
  level = np.arange(1, 4, dtype=np.uint32)[None]
  scalars = jnp.concatenate(
    [
      jnp.zeros((_STEPS_SEEN, 28)),
      (times[:, None] >= level).astype(jnp.float32),
      (counts / most).reshape(_STEPS_SEEN, -1),
    ],
    axis=1,
  )
  last = jnp.stack([state.color, state.ply / MAX_PLIES]).astype(jnp.float32)
  scalars = jnp.concatenate([scalars.reshape(-1), last])
  # In bytes first, then one sum: a sixth of the time of building floats.
  boards = _settled_bytes(boards.astype(jnp.uint8))[..., None]
  planes = _settled_bytes((boards == _HELD[None, None]).astype(jnp.uint8))
  planes = jnp.concatenate(
    [planes.reshape(CELLS, -1), jnp.zeros((CELLS, 2), jnp.uint8)], axis=1
  )
  planes = _settled_bytes(planes).astype(jnp.float32) + scalars[None]
  return planes.reshape(SIZE, SIZE, OBSERVATION_PLANES)


_PLAYER = np.arange(_STEPS_SEEN - 1, dtype=np.uint32)[:, None] % 2
_PLAYER = np.concatenate([_PLAYER, 1 - _PLAYER], axis=1)


# For people.


def squares(state: State) -> np.ndarray:
  """Returns the board as Black sees it (host).

  Returns:
    [9, 9] str: '' or a piece as SFEN writes it, 'P' Black's pawn, '+p' White's
    promoted one; rank a and file 9 first.
  """
  board = np.asarray(state.board)
  code_bits = board[..., None] >> np.arange(_BITS, dtype=np.uint32) & 1
  held = (
    (code_bits * (1 << np.arange(5))[:, None, None]).sum(axis=0).reshape(-1)
  )
  color = int(state.color)
  names = [_piece(int(x) & 15, color ^ 1 ^ int(x) >> 4) for x in held]
  cells = np.array(names, dtype='<U2').reshape(SIZE, SIZE)
  return cells[::-1, ::-1] if color else cells


def _piece(code: int, color: int) -> str:
  if code == 0:
    return ''
  promoted = code > PROMOTED
  letter = PIECES[code - promoted * PROMOTED - 1]
  return '+' * promoted + (letter.lower() if color else letter)


def hand_counts(state: State) -> np.ndarray:
  """Returns [2, 7] int: Black's and White's hand, in order of `HAND` (host)."""
  counts = np.asarray(_counts(jnp.asarray(state.hands)))
  return counts[::-1] if int(state.color) else counts


def last_target(state: State) -> tuple[int, int] | None:
  """Returns (row, column) of the last move as Black sees it, or None (host)."""
  record = int(state.records[0])
  if not record >> _EXISTS & 1:
    return None
  target = record >> _TARGET & 127
  # The move's player is not the one who moves now.
  target = target if int(state.color) else CELLS - 1 - target
  return divmod(target, SIZE)


_ENDINGS = {
  NO_MOVE: '{other} wins: {mover} has no legal move',
  DECLARED: '{mover} wins: entering king',
  REPEATED: 'draw: fourth repetition',
  MOVER_CHECKED: '{other} wins: perpetual check by {mover}',
  OTHER_CHECKED: '{mover} wins: perpetual check by {other}',
  TOO_LONG: f'draw: {MAX_PLIES} plies',
}


def render(state: State) -> str:
  """Returns the board as text, as Black sees it.

  White's pieces are small letters, + is promoted, * the last move.

  Example:

  >>> print(render(from_moves('7g7f 7g7f')))
    9  8  7  6  5  4  3  2  1
    l  n  s  g  k  g  s  n  l  a
    .  r  .  .  .  .  .  b  .  b
    p  p  p  p  p  p  .  p  p  c
    .  .  .  .  .  .  p* .  .  d
    .  .  .  .  .  .  .  .  .  e
    .  .  P  .  .  .  .  .  .  f
    P  P  .  P  P  P  P  P  P  g
    .  B  .  .  .  .  .  R  .  h
    L  N  S  G  K  G  S  N  L  i
  in hand: Black -, White -
  Black to move
  """
  mover, other = ('Black', 'White')[:: -1 if int(state.color) else 1]
  cells, last = squares(state), last_target(state)
  lines = [''.join(f'{SIZE - column:3}' for column in range(SIZE))]
  for row in range(SIZE):
    marks = [' '] * SIZE
    if last is not None and last[0] == row:
      marks[last[1]] = '*'
    pieces = [
      f'{piece or ".":>2}{mark}'
      for piece, mark in zip(cells[row], marks, strict=True)
    ]
    lines.append(f' {"".join(pieces)} {"abcdefghi"[row]}')
  held = [
    ' '.join(
      f'{x}{n if n > 1 else ""}' for x, n in zip(HAND, hand, strict=True) if n
    )
    for hand in hand_counts(state)
  ]
  lines.append(f'in hand: Black {held[0] or "-"}, White {held[1] or "-"}')
  end = _ENDINGS.get(int(state.ending), '{mover} to move')
  lines.append(end.format(mover=mover, other=other))
  return '\n'.join(lines)


def _square(cell: int) -> str:
  return f'{SIZE - cell % SIZE}{"abcdefghi"[cell // SIZE]}'


def action_name(action: int) -> str:
  """Returns a move in USI's letters, as if Black made it.

  An action does not know who plays it: White's 3c3d is here 7g7f, the same
  move as the mover sees it. `shogi_notation.usi` writes the true one. An
  action that would leave the board is called 'off' and its number.
  """
  origin, plane = divmod(int(action), PLANES)
  row, column = np.divmod(origin, SIZE) + _OFFSETS[plane]
  if not (0 <= row < SIZE and 0 <= column < SIZE):
    return f'off{action}'
  target = _square(row * SIZE + column)
  if plane >= _DROPS:
    return f'{HAND[plane - _DROPS]}*{target}'
  return f'{_square(origin)}{target}{"+" if plane >= _MOVES else ""}'


def parse_action(text: str) -> int:
  """Returns the action of a name: '7g7f', '2b3a+', 'P*5e'; as if Black moved.

  Raises:
    UsageError: no move of any piece is written so.
  """
  name = text.strip()
  drop = _DROP_NAME.fullmatch(name)
  if drop:
    piece, target = drop.groups()
    return _cell(target) * PLANES + _DROPS + HAND.index(piece)
  move = _MOVE_NAME.fullmatch(name)
  if move:
    origin, target = _cell(move[1]), _cell(move[2])
    offset = np.subtract(divmod(target, SIZE), divmod(origin, SIZE))
    planes = np.flatnonzero((_OFFSETS[:_MOVES] == offset).all(axis=1))
    if len(planes):
      promotes = _MOVES if move[3] else 0
      return origin * PLANES + int(planes[0]) + promotes
  # No move, but the name of an action: `action_name` gives it.
  number = name.removeprefix('off')
  if number.isdigit() and int(number) < CELLS * PLANES:
    action = int(number)
    if action_name(action) == name:
      return action
  raise UsageError(
    f'{name!r} is not a move; possible: as 7g7f, 2b3a+ (promoting) or P*5e '
    "(dropped), along a line or a knight's jump"
  )


_MOVE_NAME = re.compile(r'([1-9][a-i])([1-9][a-i])(\+?)')
_DROP_NAME = re.compile(r'([PLNSBRG])\*([1-9][a-i])')


def _cell(square: str) -> int:
  return 'abcdefghi'.index(square[1]) * SIZE + SIZE - int(square[0])


def from_moves(moves: str) -> State:
  """Returns the position after these moves, each as its mover sees it.

  Args:
    moves: names as of `parse_action` with blanks between; '' is the start.

  Raises:
    UsageError: a word that is no move, an illegal one, one after the end.
  """
  return games.play_moves(GAME, moves.split())


GAME = games.Game(
  name='shogi',
  num_actions=CELLS * PLANES,
  observation_shape=(SIZE, SIZE, OBSERVATION_PLANES),
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
  compact=lambda state: state,
)
