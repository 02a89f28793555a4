"""Tic-tac-toe: three in a row on nine cells.

A player's stones are nine bits of a uint32, the cells in reading order. Small
enough to be solved in a moment, and so the first game a search is tested on.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import games
from dl_lectures.types import Array, Key, UsageError

_SIZE = 3
_CELLS = _SIZE * _SIZE
_BIT = np.uint32(1) << np.arange(_CELLS, dtype=np.uint32)
_LINES = np.array(
  [0o007, 0o070, 0o700, 0o111, 0o222, 0o444, 0o421, 0o124], np.uint32
)


class State(NamedTuple):
  """A position.

  Attributes:
    stones: [2] uint32, the mover's and the opponent's.
    ply: [] int32, stones on the board; the mover is player ply % 2.
    last_action: [] int32, the cell just taken, -1 at the start.
    won: [] bool, the opponent's last stone made three in a row.
  """

  stones: Array
  ply: Array
  last_action: Array
  won: Array


def init(key: Key) -> State:
  """Returns the empty board; the key is not used."""
  del key
  return State(
    stones=jnp.zeros(2, jnp.uint32),
    ply=jnp.int32(0),
    last_action=jnp.int32(-1),
    won=jnp.bool_(False),
  )


def step(state: State, action: Array) -> State:
  """Puts the mover's stone on cell `action`, 0-8 in reading order.

  An illegal action (a taken cell, no cell, the game over) changes nothing.
  """
  action = jnp.asarray(action, jnp.int32)
  mover, opponent = state.stones[0], state.stones[1]
  inside = (action >= 0) & (action < _CELLS)
  stone = jnp.uint32(1) << jnp.where(inside, action, 0).astype(jnp.uint32)
  taken = ((mover | opponent) & stone) != 0
  playable = inside & ~taken & ~terminal(state)
  moved = mover | stone
  won = jnp.any(moved & _LINES == _LINES)
  return State(
    stones=jnp.where(playable, jnp.stack([opponent, moved]), state.stones),
    ply=state.ply + playable,
    last_action=jnp.where(playable, action, state.last_action),
    won=jnp.where(playable, won, state.won),
  )


def legal_mask(state: State) -> Array:
  """Returns [9] bool: the empty cells; none once the game is over."""
  return ((state.stones[0] | state.stones[1]) & _BIT == 0) & ~state.won


def observe(state: State) -> Array:
  """Returns [3, 3, 2] float32: the mover's stones, the opponent's."""
  bits = _BIT.reshape(_SIZE, _SIZE, 1)
  return (state.stones[None, None] & bits != 0).astype(jnp.float32)


def to_play(state: State) -> Array:
  """Returns [] int32: 0 for X, who began, 1 for O."""
  return state.ply % 2


def terminal(state: State) -> Array:
  """Returns [] bool: three in a row, or the board is full."""
  return state.won | (state.ply >= _CELLS)


def reward(state: State) -> Array:
  """Returns [2] float32: +1 and -1 for the winner and the loser, else 0."""
  first = state.won.astype(jnp.int32) * (2 * to_play(state) - 1)
  return jnp.stack([first, -first]).astype(jnp.float32)


def from_moves(moves: str) -> State:
  """Returns the position after the cells played, 1-9 in reading order.

  Args:
    moves: such as '519'; '' is the start.

  Raises:
    UsageError: a character that is no cell, a taken cell, a move after the
      end; the message names the move and its number.

  Example:

  >>> print(render(from_moves('51')))
  [O]2 3
   4 X 6
   7 8 9
  X to move
  """
  return games.play_moves(GAME, moves)


def render(state: State) -> str:
  """Returns the board as text: X began, a free cell shows its number."""
  planes = np.asarray(observe(state)).reshape(_CELLS, 2)
  player = int(to_play(state))
  cells = [str(cell + 1) for cell in range(_CELLS)]
  for cell in range(_CELLS):
    if planes[cell, player]:
      cells[cell] = 'X'
    elif planes[cell, 1 - player]:
      cells[cell] = 'O'
  lines = []
  last = int(state.last_action)
  for row in range(_SIZE):
    line = ''.join(f' {cell}' for cell in cells[_SIZE * row : _SIZE * row + 3])
    if last >= 0 and last // _SIZE == row:
      at = 2 * (last % _SIZE)
      line = f'{line} '
      line = f'{line[:at]}[{line[at + 1]}]{line[at + 3 :]}'.rstrip()
    lines.append(line)
  if bool(state.won):
    lines.append(f'{"XO"[1 - player]} wins')
  else:
    over = bool(terminal(state))
    lines.append('draw' if over else f'{"XO"[player]} to move')
  return '\n'.join(lines)


def action_name(action: int) -> str:
  """Returns '1' ... '9', cells in reading order."""
  return str(action + 1)


def parse_action(text: str) -> int:
  """Returns the cell 0-8 that a person calls 1-9."""
  text = text.strip()
  if text not in tuple('123456789'):
    raise UsageError(f'{text!r} is not a cell; possible: 1 to 9')
  return int(text) - 1


GAME = games.Game(
  name='tic_tac_toe',
  num_actions=_CELLS,
  observation_shape=(_SIZE, _SIZE, 2),
  max_plies=_CELLS,
  init=init,
  step=step,
  legal_mask=legal_mask,
  observe=observe,
  to_play=to_play,
  terminal=terminal,
  reward=reward,
  symmetries=games.square_symmetries(_SIZE),
  render=render,
  action_name=action_name,
  parse_action=parse_action,
  compact=lambda state: state,
)
