"""Every two-player board game of pgx behind our protocol.

pgx (Koyamada et al., "Pgx: Hardware-accelerated parallel game simulators for
reinforcement learning", NeurIPS 2023) is an extra and is imported when a game
of it is made: `pip install 'dl_lectures[pgx]'`. A game is named 'pgx_' and
pgx's own name, so that 'chess', 'go' and 'shogi' stay free for rules of our
own; 'pgx_go' takes any board from 2x2 to 19x19.

What differs from pgx: player 0 always moves first, no action is legal after
the end, a step after the end changes nothing (the result stays), observations
are float32 and computed when asked for, an illegal action is not noticed (pgx
makes it lose; look at the legal mask). The rules are pgx's, with its gaps:
no repetition rule in shogi, a repeated Go position loses, chess ends at the
fifty-move rule, threefold repetition and 512 plies.

Known cost: pgx tries every move in chess and shogi, about 0.07 and 0.8 ms a
step and state on one CPU core.
"""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import games
from dl_lectures.types import Array, Key, UsageError

PREFIX = 'pgx_'


class State(NamedTuple):
  """A position.

  Attributes:
    position: pgx's state without its observation and its legal masks.
    legal: [A] bool; in a compact state the same as [ceil(A / 8)] uint8 bits.
  """

  position: Any
  legal: Array


class _Board(NamedTuple):
  """What pgx does not tell about a game.

  Attributes:
    max_plies: where pgx ends it, or a bound that follows from its rules.
    pieces: the mover's first observation planes, a letter each.
    opponent_plane: where the opponent's begin.
    other_action: what the action after the board's cells is called, '' if
      there is none, None if actions are no cells.
    symmetries: as in `Game`.
  """

  max_plies: int
  pieces: tuple[str, ...] = ('X',)
  opponent_plane: int = 1
  other_action: str | None = None
  symmetries: tuple[games.Symmetry, ...] = (games.IDENTITY,)


def _go(size: int) -> _Board:
  return _Board(
    max_plies=2 * size * size,
    other_action='pass',
    symmetries=games.square_symmetries(size, extra_actions=1),
  )


_CHESSMEN = tuple('PNBRQK')
_SHOGI = ('P', 'L', 'N', 'S', 'B', 'R', 'G', 'K')
_SHOGI += ('+P', '+L', '+N', '+S', '+B', '+R')

_BOARDS = {
  'animal_shogi': _Board(256, tuple('CEGLH'), 5),
  'chess': _Board(512, _CHESSMEN, 6),
  'connect_four': _Board(42),
  'gardner_chess': _Board(256, _CHESSMEN, 6),
  'go_19x19': _go(19),
  'go_9x9': _go(9),
  'hex': _Board(122, other_action='swap'),
  'othello': _Board(121, other_action='pass'),
  'shogi': _Board(512, _SHOGI, 31),
  'tic_tac_toe': _Board(
    9, other_action='', symmetries=games.square_symmetries(3)
  ),
}

NAMES = tuple(PREFIX + name for name in (*_BOARDS, 'go'))


def make(name: str, board_size: int | None = None) -> games.Game:
  """Returns a game of pgx; `games.make` is the door to it.

  Args:
    name: one of `NAMES`.
    board_size: for 'pgx_go' alone, 2 to 19, 9 unless told.

  Raises:
    UsageError: pgx is not installed, or the game has no such board.
  """
  pgx_name = name.removeprefix(PREFIX)
  if pgx_name != 'go' and board_size is not None:
    raise UsageError(f'{name} has one board only: leave out board_size')
  size = 9 if board_size is None else board_size
  if not 2 <= size <= 19:
    raise UsageError(f'{name}: board_size {size}; possible: 2 to 19')
  try:
    pgx: Any = importlib.import_module('pgx')
  except ImportError as error:
    raise UsageError(
      f'{name} needs pgx, which is not here ({error}): '
      "pip install 'dl_lectures[pgx]'"
    ) from None
  # pgx broadcasts freely, and a caller may have made that an error.
  with jax.numpy_rank_promotion('allow'):
    if pgx_name == 'go':
      go: Any = importlib.import_module('pgx.go')
      return _adapt(name, go.Go(size=size, komi=7.5), _go(size))
    return _adapt(name, pgx.make(pgx_name), _BOARDS[pgx_name])


def _adapt(name: str, env: Any, board: _Board) -> games.Game:
  start = _start(env)
  num_actions = start.legal.shape[0]
  height, width, _ = shape = jax.eval_shape(env.observe, start.position).shape

  def init(key: Key) -> State:
    del key
    return jax.tree.map(jnp.asarray, start)

  def step(state: State, action: Array) -> State:
    before = state.position
    before_masked = _with_masks(before, jnp.ones(num_actions, bool))
    with jax.numpy_rank_promotion('allow'):
      after = env.step(before_masked, jnp.asarray(action, jnp.int32))
    # pgx takes the result back when a finished game is stepped.
    rewards = jnp.where(before.terminated, before.rewards, after.rewards)
    return _strip(after.replace(rewards=rewards))

  def legal_mask(state: State) -> Array:
    if state.legal.dtype == jnp.bool_:
      return state.legal
    return jnp.unpackbits(state.legal, count=num_actions).astype(bool)

  def observe(state: State) -> Array:
    with jax.numpy_rank_promotion('allow'):
      return env.observe(state.position).astype(jnp.float32)

  def compact(state: State) -> State:
    return state._replace(legal=jnp.packbits(legal_mask(state)))

  def render(state: State) -> str:
    return _render(state, np.asarray(observe(state)), board)

  def action_name(action: int) -> str:
    if board.other_action is None:
      return str(action)
    if action == height * width:
      return board.other_action
    return f'{chr(ord("a") + action % width)}{action // width + 1}'

  actions = {action_name(action): action for action in range(num_actions)}

  def parse_action(text: str) -> int:
    action = actions.get(text.strip().lower())
    if action is None:
      raise UsageError(
        f'{text!r} is not an action of {name}; possible: {action_name(0)}, '
        f'{action_name(1)} ... {action_name(num_actions - 1)}'
      )
    return action

  return games.Game(
    name=name,
    num_actions=num_actions,
    observation_shape=shape,
    max_plies=board.max_plies,
    init=init,
    step=step,
    legal_mask=legal_mask,
    observe=observe,
    to_play=lambda state: state.position.current_player,
    terminal=lambda state: state.position.terminated,
    reward=lambda state: state.position.rewards,
    symmetries=board.symmetries,
    render=render,
    action_name=action_name,
    parse_action=parse_action,
    compact=compact,
  )


def _start(env: Any) -> State:
  """Returns the start, on the host, with player 0 to move.

  pgx draws which of its player ids begins and nothing else, so the first draw
  with id 0 makes its ids ours.
  """
  init = jax.jit(lambda seed: _strip(env.init(jax.random.key(seed))))
  seed = 0
  while int(init(seed).position.current_player) != 0:
    seed += 1
  return jax.device_get(init(seed))


def _strip(position: Any) -> State:
  legal = position.legal_action_mask & ~position.terminated
  return State(_with_masks(position.replace(observation=None), None), legal)


def _with_masks(position: Any, mask: Array | None) -> Any:
  """Puts `mask` where pgx keeps its one or two copies of the legal mask."""
  rules: Any = getattr(position, '_x', None)
  if hasattr(rules, 'legal_action_mask'):
    position = position.replace(_x=rules._replace(legal_action_mask=mask))
  return position.replace(legal_action_mask=mask)


def _render(state: State, observation: np.ndarray, board: _Board) -> str:
  """Draws the first planes of the observation, as the mover sees the board."""
  height, width, _ = observation.shape
  player = int(state.position.current_player)
  cells = np.full((height, width), ' .', dtype='<U2')
  for first, owner in ((0, player), (board.opponent_plane, 1 - player)):
    for plane, piece in enumerate(board.pieces, start=first):
      if board.pieces == ('X',):
        piece = 'XO'[owner]
      elif owner == 1:
        piece = piece.lower()
      cells[observation[..., plane] == 1] = f'{piece:>2}'
  lines = [''.join(row) for row in cells]
  if board.other_action is not None:
    letters = ''.join(f' {chr(ord("a") + column)}' for column in range(width))
    lines = [f'{row + 1:2}{line}' for row, line in enumerate(lines)]
    lines.insert(0, '  ' + letters)
  if not bool(state.position.terminated):
    lines.append(f'player {player} to move')
  elif float(state.position.rewards[0]) == 0:
    lines.append('draw')
  else:
    lines.append(f'player {int(np.argmax(state.position.rewards))} wins')
  return '\n'.join(lines)
