"""How moves are written between programs: GTP, UCI and USI, by game.

Unlike `Game.action_name` these know the position: UCI writes Black's moves as
Black's, and tells a promotion.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from dl_lectures.envs import chess_endgames, games
from dl_lectures.types import UsageError


class Notation(NamedTuple):
  """The moves of a game as programs write them to each other.

  Attributes:
    protocol: 'gtp', 'uci' or 'usi'.
    name: (state, action) -> text.
    parse: (state, text) -> action; UsageError for what is no legal move.
  """

  protocol: str
  name: Callable[[Any, int], str]
  parse: Callable[[Any, str], int]


def of(game: games.Game) -> Notation:
  """Returns the notation of a game.

  Raises:
    UsageError: programs have none for it.

  >>> of(games.make('go', 5)).protocol
  'gtp'
  """
  if game.name.startswith('go'):
    return Notation(
      'gtp',
      lambda state, action: game.action_name(action),
      lambda state, text: game.parse_action(text),
    )
  if game.name in chess_endgames.PIECES:
    from dl_lectures.envs import chess_notation

    def chess_name(state: Any, action: int) -> str:
      move = chess_endgames.to_chess(state, jnp.int32(action))
      return chess_notation.move_name(state, int(move))

    def parse_chess(state: Any, text: str) -> int:
      move = jnp.int32(chess_notation.parse_move(state, text))
      return int(chess_endgames.from_chess(state, move))

    return Notation('uci', chess_name, parse_chess)
  if game.name == 'chess':
    from dl_lectures.envs import chess_notation

    return Notation('uci', chess_notation.move_name, chess_notation.parse_move)
  if game.name == 'shogi':
    from dl_lectures.envs import shogi, shogi_notation

    def name(state: Any, action: int) -> str:
      return shogi_notation.usi(action, int(shogi.to_play(state)))

    def parse(state: Any, text: str) -> int:
      return shogi_notation.parse_usi(text, int(shogi.to_play(state)))

    return Notation('usi', name, parse)
  raise UsageError(
    f'programs have no notation for {game.name}; possible: go, chess, shogi'
  )
