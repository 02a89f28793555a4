"""Shogi against perft, pgx's rules, and positions made by hand."""

import jax
import numpy as np
import pytest

from dl_lectures.envs import shogi, shogi_notation

WIDTH = 32  # positions at a time, so that everything compiles once


@jax.jit
@jax.vmap
def play(state, action):
  after = shogi.step(state, action)
  return after, look(after)


def look(state):
  return (
    shogi.legal_mask(state),
    shogi.terminal(state),
    shogi.reward(state),
  )


look_all = jax.jit(jax.vmap(look))


def in_parts(function, *args):
  """Applies a function of WIDTH rows to any number of them, on the host."""
  count = len(jax.tree.leaves(args)[0])
  parts = []
  for first in range(0, count, WIDTH):
    rows = np.minimum(np.arange(first, first + WIDTH), count - 1)
    part = function(*jax.tree.map(lambda x, rows=rows: x[rows], args))
    here = min(WIDTH, count - first)
    parts.append(jax.tree.map(lambda x, n=here: np.asarray(x)[:n], part))
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def one(state):
  """A batch of one; on the host."""
  return jax.tree.map(lambda x: np.asarray(x)[None], state)


def legal(state):
  """The names of the legal moves, as the mover sees them."""
  mask = in_parts(look_all, one(state))[0][0]
  return {shogi.action_name(int(action)) for action in np.flatnonzero(mask)}


def after(state, *moves):
  """Plays USI moves, each of which must be legal."""
  for move in moves:
    action = shogi_notation.parse_usi(move, int(state.color))
    assert shogi.action_name(action) in legal(state), move
    state, _ = in_parts(play, one(state), np.array([action], np.int32))
    state = jax.tree.map(lambda x: x[0], state)
  return state


def perft(depth):
  states = one(shogi.init(jax.random.key(0)))
  mask = in_parts(look_all, states)[0]
  counts = []
  for left in range(depth, 0, -1):
    position, action = np.nonzero(mask)
    counts.append(len(action))
    if left > 1:
      parents = jax.tree.map(lambda x, p=position: x[p], states)
      states, (mask, _, _) = in_parts(play, parents, action.astype(np.int32))
  return counts


def test_perft():
  assert perft(3) == [30, 900, 25_470]


@pytest.mark.slow
def test_perft_deeper():
  states = one(shogi.init(jax.random.key(0)))
  count = jax.jit(jax.vmap(lambda s, a: play_count(s, a)))
  mask = in_parts(look_all, states)[0]
  for _ in range(2):
    position, action = np.nonzero(mask)
    parents = jax.tree.map(lambda x, p=position: x[p], states)
    states, (mask, _, _) = in_parts(play, parents, action.astype(np.int32))
  position, action = np.nonzero(mask)
  total = 0
  for first in range(0, len(action), 1024):
    rows = slice(first, first + 1024)
    parents = jax.tree.map(lambda x, r=rows: x[position[r]], states)
    total += int(in_parts(count, parents, action[rows].astype(np.int32)).sum())
  assert total == 719_731


def play_count(state, action):
  return shogi.legal_mask(shogi.step(state, action)).sum()


def in_pgx():
  """[11259] our actions as pgx's direction * 81 + target; -1 off the board."""
  pgx_direction = [0, 2, 4, 7, 5, 6, 3, 1, 8, 9]
  steps = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
  steps += [(-1, -1), (-2, -1), (-2, 1)]
  table = np.full((81, 139), -1)
  for origin in range(81):
    for plane in range(139):
      row, column = divmod(origin, 9)
      if plane >= 132:
        direction = 20 + plane - 132
      else:
        way, far = divmod(plane % 66, 8)
        if plane % 66 >= 64:
          way, far = 8 + plane % 66 - 64, 0
        row += (far + 1) * steps[way][0]
        column += (far + 1) * steps[way][1]
        direction = pgx_direction[way] + 10 * (plane >= 66)
      if 0 <= row < 9 and 0 <= column < 9:
        table[origin, plane] = direction * 81 + (8 - column) * 9 + row
  return table.reshape(-1)


def random_games_equal_pgx(count, plies, seed):
  """Plays both rules side by side; returns how many positions were live."""
  pgx = pytest.importorskip('pgx')
  with jax.numpy_rank_promotion('allow'):
    env = pgx.make('shogi')
    start = jax.jit(jax.vmap(env.init))
    theirs = start(jax.random.split(jax.random.key(0), count))

    @jax.jit
    @jax.vmap
    def play_theirs(state, action):
      # The rules alone: pgx's observation costs more than its move.
      state = env._step(state, action, None)
      return state, (state.legal_action_mask, state.terminated, state.rewards)

    table = in_pgx()
    rng = np.random.default_rng(seed)
    ours = jax.tree.map(
      lambda x: np.repeat(np.asarray(x)[None], count, 0),
      shogi.init(jax.random.key(0)),
    )
    mask = in_parts(look_all, ours)[0]
    black = np.asarray(theirs.current_player)  # pgx draws who begins
    live, compared = np.ones(count, bool), 0
    for _ in range(plies):
      choice = rng.random(mask.shape) * mask
      action = choice.argmax(axis=1).astype(np.int32)
      ours, (mask, over, reward) = in_parts(play, ours, action)
      theirs, (their_mask, their_over, their_reward) = play_theirs(
        theirs, np.maximum(table[action], 0).astype(np.int32)
      )
      # Repetitions and entering kings are unknown to pgx.
      shared = np.isin(ours.ending, (0, shogi.NO_MOVE))
      live &= shared
      mapped = np.zeros((count, 81 * 27), bool)
      game, move = np.nonzero(mask)
      assert (table[move] >= 0).all()
      mapped[game, table[move]] = True
      np.testing.assert_array_equal(mapped.sum(1), mask.sum(1))
      their_mask = np.array(their_mask)
      their_mask[np.asarray(their_over)] = False
      np.testing.assert_array_equal(mapped[live], their_mask[live])
      np.testing.assert_array_equal(over[live], np.asarray(their_over)[live])
      by_color = np.take_along_axis(
        np.asarray(their_reward), np.stack([black, 1 - black], 1), 1
      )
      np.testing.assert_array_equal(reward[live], by_color[live])
      compared += int(live.sum())
      live &= ~over
    return compared


def test_random_games_equal_pgx():
  assert random_games_equal_pgx(WIDTH, 12, seed=0) == 12 * WIDTH


@pytest.mark.slow
def test_5000_positions_of_random_games_equal_pgx():
  assert random_games_equal_pgx(WIDTH, 250, seed=1) >= 5000
