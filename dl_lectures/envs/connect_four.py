"""Connect Four: seven columns of six cells, four in a row wins.

A player's stones are a bitboard: one bit a cell, seven bits a column, the
lowest cell first, the seventh bit a sentinel that is never set, so that no row
of four runs from one column's top into the next one's bottom. x64 stays off:
the board is two uint32 words, columns 1-4 in the low 28 bits of the first and
columns 5-7 in the low 21 bits of the second.

     column   1   2   3   4  |  5   6   7
     top      5  12  19  26  |  5  12  19
              .   .   .   .  |  .   .   .
     bottom   0   7  14  21  |  0   7  14

Dropping a stone is one addition (the carry runs up the filled cells), and four
in a row two shifts and ands per direction.

Source: Victor Allis, "A Knowledge-based Approach of Connect-Four", 1988, for
the game; the layout is John Tromp's (Fhourstones benchmark), here in halves.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import games
from dl_lectures.types import Array, Key, UsageError

_ROWS, _COLUMNS = 6, 7
_BITS = _ROWS + 1  # a column with its sentinel
_LOW_COLUMNS = 4
_LOW_BITS = _LOW_COLUMNS * _BITS

_COLUMN = np.arange(_COLUMNS)
_IS_LOW = _COLUMN < _LOW_COLUMNS
_SHIFT = (_COLUMN % _LOW_COLUMNS * _BITS).astype(np.uint32)
_TOP = np.uint32(1) << (_SHIFT + np.uint32(_ROWS - 1))
# [42]: where a cell has its bit, and in which word; row by row from the top.
_CELL_SHIFT = np.concatenate([_SHIFT + row for row in range(_ROWS)][::-1])
_CELL_IS_LOW = np.tile(_IS_LOW, _ROWS)


class State(NamedTuple):
  """A position.

  Attributes:
    stones: [2, 2] uint32, (mover, opponent) x (low word, high word).
    ply: [] int32, stones on the board; the mover is player ply % 2.
    last_action: [] int32, the column just played, -1 at the start.
    won: [] bool, the opponent's last stone made four in a row.
  """

  stones: Array
  ply: Array
  last_action: Array
  won: Array


def init(key: Key) -> State:
  """Returns the empty board; the key is not used."""
  del key
  return State(
    stones=jnp.zeros((2, 2), jnp.uint32),
    ply=jnp.int32(0),
    last_action=jnp.int32(-1),
    won=jnp.bool_(False),
  )


def step(state: State, action: Array) -> State:
  """Drops the mover's stone into column `action`, 0-6.

  An illegal action (a full column, no column, the game over) changes nothing.
  """
  action = jnp.asarray(action, jnp.int32)
  mover, opponent = state.stones[0], state.stones[1]
  filled = mover | opponent
  column = action % _LOW_COLUMNS * _BITS
  bottom = jnp.uint32(1) << column.astype(jnp.uint32)
  in_low = action < _LOW_COLUMNS
  cells = bottom * jnp.uint32((1 << _ROWS) - 1)
  bottom = jnp.stack(
    [
      jnp.where(in_low, bottom, 0),
      jnp.where(in_low, 0, bottom),
    ]
  )
  stone = (filled + bottom) & ~filled & cells
  playable = (
    (action >= 0)
    & (action < _COLUMNS)
    & ~terminal(state)
    & ((stone[0] | stone[1]) != 0)
  )
  moved = mover | stone
  return State(
    stones=jnp.where(playable, jnp.stack([opponent, moved]), state.stones),
    ply=state.ply + playable,
    last_action=jnp.where(playable, action, state.last_action),
    won=jnp.where(playable, _has_four(moved[0], moved[1]), state.won),
  )


def _has_four(low: Array, high: Array) -> Array:
  four = jnp.uint32(0)
  for shift in (1, _BITS - 1, _BITS, _BITS + 1):  # |, \, -, /
    # What the high word lends to the low word's unused bits is masked by it.
    pair_low = low & (low >> shift | high << (_LOW_BITS - shift))
    pair_high = high & high >> shift
    four |= pair_low & (
      pair_low >> 2 * shift | pair_high << (_LOW_BITS - 2 * shift)
    )
    four |= pair_high & pair_high >> 2 * shift
  return four != 0


def legal_mask(state: State) -> Array:
  """Returns [7] bool: the columns with room; none once the game is over."""
  filled = state.stones[0] | state.stones[1]
  word = jnp.where(_IS_LOW, filled[0], filled[1])
  return (word & _TOP == 0) & ~state.won


def observe(state: State) -> Array:
  """Returns [6, 7, 2] float32: mover's, opponent's stones; row 0 is the top."""
  # One flat vector a player and one stack: XLA:CPU takes half the time that
  # it needs for the same bits computed in their final shape.
  planes = [
    jnp.where(_CELL_IS_LOW, low, high) >> _CELL_SHIFT & 1
    for low, high in state.stones
  ]
  cells = jnp.stack(planes, axis=-1).astype(jnp.float32)
  return cells.reshape(_ROWS, _COLUMNS, 2)


def to_play(state: State) -> Array:
  """Returns [] int32: 0 for X, who began, 1 for O."""
  return state.ply % 2


def terminal(state: State) -> Array:
  """Returns [] bool: four in a row, or the board is full."""
  return state.won | (state.ply >= _ROWS * _COLUMNS)


def reward(state: State) -> Array:
  """Returns [2] float32: +1 and -1 for the winner and the loser, else 0."""
  first = state.won.astype(jnp.int32) * (2 * to_play(state) - 1)
  return jnp.stack([first, -first]).astype(jnp.float32)


def from_moves(moves: str) -> State:
  """Returns the position after the columns played, 1-7 from left to right.

  Args:
    moves: such as '4455'; '' is the start.

  Raises:
    UsageError: a character that is no column, a full column, a move after the
      end; the message names the move and its number.

  Example:

  >>> print(render(from_moves('444')))
   1 2 3 4 5 6 7
   . . . . . . .
   . . . . . . .
   . . . . . . .
   . . .[X]. . .
   . . . O . . .
   . . . X . . .
  O to move
  """
  return games.play_moves(GAME, moves)


def render(state: State) -> str:
  """Returns the board as text: X began, the last stone stands in brackets."""
  planes = np.asarray(observe(state))
  player = int(to_play(state))
  stones = np.full((_ROWS, _COLUMNS), '.')
  stones[planes[..., player] == 1] = 'X'
  stones[planes[..., 1 - player] == 1] = 'O'
  lines = [''.join(f' {column + 1}' for column in range(_COLUMNS))]
  lines += [''.join(f' {stone}' for stone in row) for row in stones]
  last = int(state.last_action)
  if last >= 0:
    row = int(np.argmax(stones[:, last] != '.'))
    line = lines[row + 1] + ' '
    at = 2 * last
    marked = f'{line[:at]}[{line[at + 1]}]{line[at + 3 :]}'
    lines[row + 1] = marked.rstrip()
  if bool(state.won):
    lines.append(f'{"XO"[1 - player]} wins')
  else:
    over = bool(terminal(state))
    lines.append('draw' if over else f'{"XO"[player]} to move')
  return '\n'.join(lines)


def action_name(action: int) -> str:
  """Returns '1' ... '7', columns from left to right."""
  return str(action + 1)


def parse_action(text: str) -> int:
  """Returns the column 0-6 that a person calls 1-7."""
  text = text.strip()
  if text not in tuple('1234567'):
    raise UsageError(f'{text!r} is not a column; possible: 1 to 7')
  return int(text) - 1


MIRROR = games.Symmetry(
  observation=lambda observation: observation[..., ::-1, :],
  policy=lambda policy: policy[..., ::-1],
)

GAME = games.Game(
  name='connect_four',
  num_actions=_COLUMNS,
  observation_shape=(_ROWS, _COLUMNS, 2),
  max_plies=_ROWS * _COLUMNS,
  init=init,
  step=step,
  legal_mask=legal_mask,
  observe=observe,
  to_play=to_play,
  terminal=terminal,
  reward=reward,
  symmetries=(games.IDENTITY, MIRROR),
  render=render,
  action_name=action_name,
  parse_action=parse_action,
  compact=lambda state: state,
)
