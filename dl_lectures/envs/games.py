"""Board games as pure functions: one protocol, and `make` to get one by name.

A `Game` is a NamedTuple of functions of one state, unbatched. Whoever plays
many games at once uses `jax.vmap`, and whoever plays game after game selects
`init` over the finished ones: nothing here resets itself.

Example: all games of one random player against another, 64 at a time.

>>> import jax, jax.numpy as jnp
>>> from dl_lectures.envs import games
>>> game = games.make('connect_four')
>>> def ply(state, key):
...   logits = jnp.where(game.legal_mask(state), 0.0, -1e9)
...   return game.step(state, jax.random.categorical(key, logits)), None
>>> def play(key):
...   keys = jax.random.split(key, game.max_plies)
...   return jax.lax.scan(ply, game.init(key), keys)[0]
>>> final = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 64))
>>> bool(jax.vmap(game.terminal)(final).all())
True

Source: the rules are what AlphaZero is given and all it is given (Silver et
al., "A general reinforcement learning algorithm that masters chess, shogi and
Go through self-play", Science 2018); slides, deck 000, "AlphaZero: One
Algorithm, Three Games".
"""

import difflib
import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, Key, UsageError

State = Any  # a pytree of the game's own

# By name, the modules of this package that have them.
OURS = {
  'chess': 'chess',
  'chess_kqk': 'chess_endgames',
  'chess_krk': 'chess_endgames',
  'connect_four': 'connect_four',
  'go': 'go',
  'shogi': 'shogi',
  'tic_tac_toe': 'tic_tac_toe',
}


class Symmetry(NamedTuple):
  """One symmetry of the board, told twice: for what is seen and what is done.

  If g maps cells to cells, `observation` carries the plane value of a cell x
  to the cell g(x), and `policy` the weight of an action to the action that
  means the same on the mapped board. Both take any leading axes.

  Attributes:
    observation: [..., H, W, C] -> [..., H, W, C].
    policy: [..., A] -> [..., A]; logits, probabilities, masks alike.
  """

  observation: Callable[[Array], Array]
  policy: Callable[[Array], Array]


IDENTITY = Symmetry(observation=lambda x: x, policy=lambda x: x)


def square_symmetries(
  size: int, extra_actions: int = 0
) -> tuple[Symmetry, ...]:
  """Returns the eight symmetries of a square board, the identity first.

  Args:
    size: the board's side; action i is the cell i in reading order.
    extra_actions: actions after these that no symmetry moves (a pass).
  """

  def on_board(board: Array, turns: int, mirrored: bool) -> Array:
    board = jnp.rot90(board, turns, axes=(-3, -2))
    return board[..., ::-1, :] if mirrored else board

  def on_policy(policy: Array, turns: int, mirrored: bool) -> Array:
    cells = policy[..., : size * size]
    board = cells.reshape(*cells.shape[:-1], size, size, 1)
    moved = on_board(board, turns, mirrored).reshape(cells.shape)
    if not extra_actions:
      return moved
    return jnp.concatenate([moved, policy[..., size * size :]], axis=-1)

  others = (
    Symmetry(
      functools.partial(on_board, turns=turns, mirrored=mirrored),
      functools.partial(on_policy, turns=turns, mirrored=mirrored),
    )
    for mirrored in (False, True)
    for turns in range(4)
    if mirrored or turns
  )
  return (IDENTITY, *others)


class Game(NamedTuple):
  """The rules of a two-player zero-sum game of perfect information.

  Every function is pure and takes ONE state; `jax.vmap` them for many. Those
  marked "host" work on concrete states and are not to be traced.

  Attributes:
    name: the name `make` knows it by.
    num_actions: A, the number of actions, legal or not.
    observation_shape: (H, W, C).
    max_plies: no game is longer.
    init: key -> state at the start. The key is consumed (drawn from where
      the start is random; most games ignore it).
    step: (state, action [] int32) -> state after the mover's action. On a
      terminal state it is the identity. The action must be legal: what an
      illegal one does is told by each game.
    legal_mask: state -> [A] bool. All False once the game is over.
    observe: state -> [H, W, C] float32, planes as the mover sees the board.
    to_play: state -> [] int32, 0 or 1, whose turn it is; 0 moves first. Once
      the game is over, whose turn it would be.
    terminal: state -> [] bool.
    reward: state -> [2] float32, the result for player 0 and for player 1
      (+1 won, -1 lost, 0 drawn), zeros until the end. Sums to zero.
    symmetries: the board's symmetries; the first is the identity.
    render: host, state -> text to print, a few lines.
    action_name: host, action -> its name, as a person types it.
    parse_action: host, name -> action; UsageError for what is no name.
    compact: state -> state without what can be computed again from the rest,
      for those who store many (a search tree). Every other function takes
      both. The identity where there is nothing to leave out.
  """

  name: str
  num_actions: int
  observation_shape: tuple[int, ...]
  max_plies: int
  init: Callable[[Key], State]
  step: Callable[[State, Array], State]
  legal_mask: Callable[[State], Array]
  observe: Callable[[State], Array]
  to_play: Callable[[State], Array]
  terminal: Callable[[State], Array]
  reward: Callable[[State], Array]
  symmetries: tuple[Symmetry, ...]
  render: Callable[[State], str]
  action_name: Callable[[int], str]
  parse_action: Callable[[str], int]
  compact: Callable[[State], State]


def names() -> tuple[str, ...]:
  """Returns the names of all games that `make` knows, ours first."""
  from dl_lectures.envs import pgx_games

  return (*OURS, *sorted(pgx_games.NAMES))


def make(name: str, board_size: int | None = None) -> Game:
  """Returns the game of that name.

  Args:
    name: one of `names()`: 'chess', 'go', 'shogi', 'connect_four' and others
      of ours, and with the extra [pgx] 'pgx_hex', 'pgx_othello' and so on.
    board_size: the board's side, for the games that have several: 'go' from 2
      to 25, 9 unless told. `go.make` has more to choose: komi, superko.

  Returns:
    The game; the same object for the same arguments, so that functions jitted
    over it are compiled once.

  Raises:
    UsageError: no game has this name, it has no such board, or it needs an
      extra that is not installed.

  Example:

  >>> make('connect_four').num_actions
  7
  """
  return _make(name, board_size)


@functools.cache
def _make(name: str, board_size: int | None) -> Game:
  if name not in names():
    near = difflib.get_close_matches(name, names(), n=1)
    meant = f', did you mean {near[0]!r}?' if near else ''
    raise UsageError(
      f'unknown game {name!r}{meant}; possible: {", ".join(names())}'
    )
  # Here, not above: the games are written in terms of this module, and who
  # plays one need not import the others.
  if name not in OURS:
    from dl_lectures.envs import pgx_games

    return pgx_games.make(name, board_size)
  module: Any = importlib.import_module(f'dl_lectures.envs.{OURS[name]}')
  if name == 'go':
    return module.make() if board_size is None else module.make(board_size)
  if board_size is not None:
    raise UsageError(f'{name} has one board only: leave out board_size')
  return module.GAME if name == OURS[name] else module.make(name)


def play_moves(
  game: Game, moves: Iterable[str], start: State | None = None
) -> State:
  """Plays named moves and returns the state reached (host).

  Args:
    game: any game whose start is not random.
    moves: names of actions, as `game.parse_action` takes them.
    start: the state to begin with; the game's own start unless told.

  Raises:
    UsageError: a name that is none, a move that is illegal, or one after the
      end of the game; the message names the move and its number.

  Example:

  >>> state = play_moves(make('connect_four'), '4455')
  >>> int(state.ply)
  4
  """
  moves = list(moves)
  actions = []
  for ply, move in enumerate(moves, start=1):
    try:
      actions.append(game.parse_action(move))
    except UsageError as error:
      raise UsageError(f'move {ply}: {error}') from None
  # One length whatever the number of moves, so that this compiles once.
  padded = np.full(max(game.max_plies, len(actions)), -1, np.int32)
  padded[: len(actions)] = actions
  if start is None:
    start = game.init(jax.random.key(0))
  state, played = _replay(game, start, padded)
  played = int(played)
  if played == len(actions):
    return state
  what = f'move {played + 1}, {moves[played]}'
  if bool(game.terminal(state)):
    raise UsageError(f'{what}: the game was over after move {played}')
  possible = np.flatnonzero(jax.jit(game.legal_mask)(state))
  legal = [game.action_name(int(action)) for action in possible]
  names = ', '.join(
    legal if len(legal) <= 12 else [*legal[:10], '...', legal[-1]]
  )
  raise UsageError(f'{what}: illegal here; possible: {names}')


@functools.partial(jax.jit, static_argnums=0)
def _replay(game: Game, start: State, actions: Array) -> tuple[State, Array]:
  """Plays until the first action that is illegal; -1 ends the sequence."""

  def play(carry, action):
    state, played, going = carry
    going &= (action >= 0) & game.legal_mask(state)[action]
    after = game.step(state, action)
    state = jax.tree.map(lambda a, b: jnp.where(going, a, b), after, state)
    return (state, played + going, going), None

  carry = (start, jnp.int32(0), jnp.bool_(True))
  (state, played, _), _ = jax.lax.scan(play, carry, actions)
  return state, played
