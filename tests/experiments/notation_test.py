"""Moves as programs write them to each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import chess_endgames, games
from dl_lectures.types import UsageError
from experiments import notation


@pytest.mark.parametrize(
  ('name', 'protocol', 'moves', 'none'),
  [
    ('go', 'gtp', ['E5', 'C3', 'pass'], 'Z99'),
    ('chess', 'uci', ['e2e4', 'e7e5', 'g1f3'], 'e2e5'),
    ('shogi', 'usi', ['7g7f', '3c3d', '8h2b+'], '1a'),
  ],
)
def test_moves_are_read_and_written_from_either_side(
  name, protocol, moves, none
):
  game = games.make(name)
  write = notation.of(game)
  assert write.protocol == protocol
  step, legal_mask = jax.jit(game.step), jax.jit(game.legal_mask)
  state = game.init(jax.random.key(0))
  for move in moves:
    action = write.parse(state, move)
    assert legal_mask(state)[action]
    assert write.name(state, action).lower() == move.lower()
    state = step(state, np.int32(action))
  with pytest.raises(UsageError, match=none):
    write.parse(state, none)


def test_endgames_are_written_as_chess_is():
  game = games.make('chess_krk')
  write = notation.of(game)
  state = chess_endgames.position(
    chess_endgames.PIECES['chess_krk'], jnp.array([42, 0, 26]), jnp.bool_(False)
  )
  for move in ('a8e8', 'c5b6', 'c3c4', 'b6a7'):
    action = write.parse(state, move)
    assert game.legal_mask(state)[action]
    assert write.name(state, action) == move
    state = game.step(state, jnp.int32(action))


def test_a_game_without_notation_is_told():
  with pytest.raises(UsageError, match='connect_four; possible: go'):
    notation.of(games.make('connect_four'))
