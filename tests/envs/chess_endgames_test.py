"""Endgames begun at random: legal, and alike in all symmetries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import chess_endgames, games

NAMES = list(chess_endgames.PIECES)
TURN = np.arange(64).reshape(8, 8)


@pytest.mark.parametrize('name', NAMES)
def test_games_begin_in_legal_positions_with_white_to_move(name):
  chess = pytest.importorskip('chess')
  from dl_lectures.envs import chess_notation

  game = chess_endgames.make(name)
  states = jax.jit(jax.vmap(game.init))(
    jax.random.split(jax.random.key(0), 100)
  )
  assert not jax.vmap(game.terminal)(states).any()
  fens = set()
  for i in range(100):
    state = jax.tree.map(lambda x, i=i: x[i], states)
    board = chess.Board(chess_notation.to_fen(state))
    assert board.is_valid()
    assert board.turn == chess.WHITE
    assert len(board.piece_map()) == 3
    fens.add(board.fen())
  assert len(fens) > 90


def test_squares_are_read_back_from_either_side():
  squares = jnp.array([42, 7, 26])
  for black_moves in (False, True):
    state = chess_endgames.position(
      chess_endgames.PIECES['chess_kqk'], squares, jnp.bool_(black_moves)
    )
    assert chess_endgames.squares_of(state).tolist() == squares.tolist()


@pytest.mark.parametrize(
  ('squares', 'black_moves', 'legal'),
  [
    ((60, 59, 4), False, True),
    ((60, 60, 4), False, False),  # two men on a square
    ((60, 0, 52), False, False),  # the kings touch
    ((60, 0, 4), False, False),  # Black is in check, and it is White's turn
    ((60, 0, 4), True, True),
    ((60, 4, 12), False, False),
  ],
)
def test_legality(squares, black_moves, legal):
  rook = chess_endgames.PIECES['chess_krk']
  found = chess_endgames.is_legal(
    rook, jnp.array(squares), jnp.bool_(black_moves)
  )
  assert bool(found) == legal


@pytest.mark.parametrize('number', range(1, 8))
def test_symmetries_carry_moves_as_they_carry_men(number):
  game = chess_endgames.make('chess_kqk')
  symmetry = game.symmetries[number]
  queen = chess_endgames.PIECES['chess_kqk']
  look = jax.jit(
    lambda squares, black: (
      game.observe(s := chess_endgames.position(queen, squares, black)),
      game.legal_mask(s),
    )
  )
  turned = symmetry.observation(jnp.asarray(TURN)[..., None])[..., 0]
  place = np.argsort(np.asarray(turned).reshape(-1))
  for squares in ([42, 7, 26], [0, 18, 63], [35, 36, 14]):
    observation, legal = look(jnp.array(squares), jnp.bool_(False))
    seen, moves = look(jnp.asarray(place[squares]), jnp.bool_(False))
    np.testing.assert_array_equal(symmetry.observation(observation), seen)
    np.testing.assert_array_equal(symmetry.policy(legal), moves)


def test_they_are_games_by_name():
  game = games.make('chess_krk')
  assert game is games.make('chess_krk')
  assert game.max_plies == 100
  assert len(game.symmetries) == 8


def test_an_endgame_lasts_a_hundred_plies_at_most():
  game = chess_endgames.make('chess_krk')
  step = jax.jit(game.step)
  mask = jax.jit(game.legal_mask)
  state = game.init(jax.random.key(3))
  draw = functools.partial(np.random.default_rng(1).choice)
  plies = 0
  while not bool(game.terminal(state)):
    state = step(state, int(draw(np.flatnonzero(mask(state)))))
    plies += 1
  assert plies <= 100
