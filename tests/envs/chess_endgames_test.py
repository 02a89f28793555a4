"""Endgames begun at random: legal, and alike in all symmetries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import chess, chess_endgames, games
from dl_lectures.types import UsageError

NAMES = list(chess_endgames.PIECES)
TURN = np.arange(64).reshape(8, 8)

# Compiled once for all tests, and at once: operation by operation takes longer.
position = jax.jit(chess_endgames.position, static_argnums=0)
is_legal = jax.jit(chess_endgames.is_legal, static_argnums=0)


@pytest.mark.parametrize('name', NAMES)
def test_games_begin_in_legal_positions_with_white_to_move(name):
  python_chess = pytest.importorskip('chess')
  from dl_lectures.envs import chess_notation

  game = chess_endgames.make(name)
  states = jax.jit(jax.vmap(game.init))(
    jax.random.split(jax.random.key(0), 100)
  )
  assert not jax.jit(jax.vmap(game.terminal))(states).any()
  states = jax.device_get(states)
  fens = set()
  for i in range(100):
    state = jax.tree.map(lambda x, i=i: x[i], states)
    board = python_chess.Board(chess_notation.to_fen(state))
    assert board.is_valid()
    assert board.turn == python_chess.WHITE
    assert len(board.piece_map()) == 3
    fens.add(board.fen())
  assert len(fens) > 90


def test_squares_are_read_back_from_either_side():
  squares = jnp.array([42, 7, 26])
  for black_moves in (False, True):
    state = position(
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
  found = is_legal(rook, jnp.array(squares), jnp.bool_(black_moves))
  assert bool(found) == legal


@jax.jit
def look_at_queen(squares):
  queen = chess_endgames.PIECES['chess_kqk']
  state = chess_endgames.position(queen, squares, jnp.bool_(False))
  return chess_endgames.observe(state), chess_endgames.legal_mask(state)


@pytest.mark.parametrize('number', range(1, 8))
def test_symmetries_carry_moves_as_they_carry_men(number):
  game = chess_endgames.make('chess_kqk')
  symmetry = game.symmetries[number]
  turned = symmetry.observation(jnp.asarray(TURN)[..., None])[..., 0]
  place = np.argsort(np.asarray(turned).reshape(-1))
  for squares in ([42, 7, 26], [0, 18, 63], [35, 36, 14]):
    observation, legal = look_at_queen(jnp.array(squares))
    seen, moves = look_at_queen(jnp.asarray(place[squares]))
    np.testing.assert_array_equal(symmetry.observation(observation), seen)
    np.testing.assert_array_equal(symmetry.policy(legal), moves)


@pytest.mark.parametrize('name', NAMES)
def test_the_moves_are_those_of_chess(name):
  piece = chess_endgames.PIECES[name]

  @jax.jit
  def look(squares, black_moves):
    state = chess_endgames.position(piece, squares, black_moves)
    every = jnp.arange(chess_endgames.NUM_ACTIONS)
    moves = jax.vmap(lambda a: chess_endgames.to_chess(state, a))(every)
    back = jax.vmap(lambda m: chess_endgames.from_chess(state, m))(moves)
    legal = chess_endgames.is_legal(piece, squares, black_moves)
    mine = chess_endgames.legal_mask(state)
    return legal, mine, moves, back, chess.legal_mask(state)

  draw = np.random.default_rng(4)
  seen = 0
  for ply in range(60):
    squares = draw.choice(64, 3, replace=False).astype(np.int32)
    found = jax.device_get(look(squares, jnp.bool_(ply % 2)))
    possible, mine, moves, back, theirs = found
    if possible:
      seen += 1
      assert set(moves[mine].tolist()) == set(np.flatnonzero(theirs).tolist())
      np.testing.assert_array_equal(back[mine], np.flatnonzero(mine))
  assert seen > 20


def test_observation_by_hand():
  # White: king c3, rook a8; Black: king c5, who sees the ranks from his side.
  rook, squares = chess_endgames.PIECES['chess_krk'], jnp.array([42, 0, 26])
  for black_moves, planes in (
    (False, [42, 0, 26, None]),
    (True, [34, None, 18, 56]),
  ):
    state = position(rook, squares, jnp.bool_(black_moves))
    seen = np.asarray(
      chess_endgames.observe(state._replace(clock=jnp.int32(7)))
    )
    assert seen.shape == (8, 8, 5)
    np.testing.assert_allclose(seen[..., 4], 0.07)
    for plane, square in enumerate(planes):
      found = np.flatnonzero(seen[..., plane])
      assert found.tolist() == ([] if square is None else [square])


def test_moves_have_names():
  game = chess_endgames.make('chess_krk')
  names = [game.action_name(action) for action in range(game.num_actions)]
  assert (names[0], names[55], names[56]) == ('Rn1', 'Rnw7', 'Kn1')
  assert [game.parse_action(name.upper()) for name in names] == list(range(64))
  for text in ('', 'Rn8', 'Kn2', 'Qn1', 'Rx1', 'e4'):
    with pytest.raises(UsageError, match='is no move'):
      game.parse_action(text)


def test_which_positions_are_of_an_endgame():
  rook, squares = chess_endgames.PIECES['chess_krk'], jnp.array([42, 0, 26])
  for black_moves in (False, True):
    state = position(rook, squares, jnp.bool_(black_moves))
    assert chess_endgames.holds('chess_krk', state)
    assert not chess_endgames.holds('chess_kqk', state)
    # The rook is Black's.
    turned = state._replace(ply=1 - state.ply)
    assert not chess_endgames.holds('chess_krk', turned)
  assert not chess_endgames.holds('chess_krk', chess.init(jax.random.key(0)))


def test_they_are_games_by_name():
  game = games.make('chess_krk')
  assert game is games.make('chess_krk')
  assert game.max_plies == 100
  assert len(game.symmetries) == 8


def test_an_endgame_lasts_a_hundred_plies_at_most():
  game = chess_endgames.make('chess_krk')
  step = jax.jit(game.step)
  mask = jax.jit(game.legal_mask)
  state = jax.jit(game.init)(jax.random.key(3))
  draw = functools.partial(np.random.default_rng(1).choice)
  plies = 0
  while not bool(game.terminal(state)):
    state = step(state, int(draw(np.flatnonzero(mask(state)))))
    plies += 1
  assert plies <= 100
