"""What every game owes its users, and the exact size of our games' trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.envs import connect_four, games, go, tic_tac_toe
from dl_lectures.types import UsageError

ONE_STONE_A_PLY = ('connect_four', 'tic_tac_toe')
ONLY_IN_THE_SLOW_SUITE = (
  'pgx_animal_shogi',
  'pgx_chess',
  'pgx_connect_four',
  'pgx_gardner_chess',
  'pgx_go_19x19',
  'pgx_go_9x9',
  'pgx_othello',
  'pgx_shogi',
  'pgx_tic_tac_toe',
)


def legal_action(game, state, choice):
  """The choice-th legal action, counted round and round."""
  legal = game.legal_mask(state)
  nth = choice % jnp.maximum(legal.sum(), 1) + 1
  return jnp.argmax(jnp.cumsum(legal) == nth).astype(jnp.int32)


def differ(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return functools.reduce(jnp.logical_or, [jnp.any(x != y) for x, y in pairs])


def seen(game, state):
  return (
    game.observe(state),
    game.legal_mask(state),
    game.to_play(state),
    game.terminal(state),
    game.reward(state),
  )


@functools.partial(jax.jit, static_argnums=0)
def violations(game, choices):
  """Plays as `choices` [n] say (-1: waits); what broke, and the last state."""

  def play(state, choice):
    _, legal, to_play, over, reward = seen(game, state)
    moving = (choice >= 0) & ~over
    action = legal_action(game, state, choice)
    compact = game.compact(state)
    after = game.step(state, action)
    found = {
      'a live game has a move, a finished one none': legal.any() == over,
      'a finished game stays as it is': over & differ(state, after),
      'the result sums to zero': reward.sum() != 0,
      'the result is told at the end': ~over & jnp.any(reward != 0),
      'two players': (to_play != 0) & (to_play != 1),
      'compact tells the same': differ(seen(game, state), seen(game, compact)),
      'compact steps the same': moving
      & differ(seen(game, after), seen(game, game.step(compact, action))),
    }
    state = jax.tree.map(lambda a, b: jnp.where(moving, a, b), after, state)
    return state, (jnp.where(moving, action, -1), seen(game, state), found)

  start = game.init(jax.random.key(0))
  final, (actions, trajectory, found) = jax.lax.scan(play, start, choices)

  def mirrored(image):
    def mirror(state, action):
      after = game.step(state, image[action])
      after = jax.tree.map(
        lambda a, b: jnp.where(action >= 0, a, b), after, state
      )
      return after, seen(game, after)

    return jax.lax.scan(mirror, start, actions)[1]

  eye = jnp.eye(game.num_actions)
  images = jnp.stack([jnp.argmax(s.policy(eye), -1) for s in game.symmetries])
  observation, legal, *rest = trajectory
  by_rules = jax.vmap(mirrored)(images)  # one compilation for all of them
  for number, symmetry in enumerate(game.symmetries):
    mapped = (symmetry.observation(observation), symmetry.policy(legal), *rest)
    found[f'symmetry {number} commutes with the rules'] = differ(
      mapped, jax.tree.map(lambda x, k=number: x[k], by_rules)
    )
  return {name: jnp.any(bad) for name, bad in found.items()}, final


def broken(game, choices):
  found, _ = violations(game, choices)
  return [name for name, bad in found.items() if bad]


def plies(game):
  """Choices of a game of any length, shrinking to short and simple ones."""
  choice = st.integers(0, 2 * game.num_actions)
  lists = st.lists(choice, max_size=game.max_plies)
  return lists.map(
    lambda some: np.array(
      some + [-1] * (game.max_plies + 1 - len(some)), np.int32
    )
  )


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(plies(connect_four.GAME))
def test_connect_four_keeps_the_protocol(choices):
  assert broken(connect_four.GAME, choices) == []


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(plies(tic_tac_toe.GAME))
def test_tic_tac_toe_keeps_the_protocol(choices):
  assert broken(tic_tac_toe.GAME, choices) == []


@pytest.mark.parametrize(
  ('name', 'board_size'),
  [
    ('connect_four', None),
    ('tic_tac_toe', None),
    ('go', 4),
    ('pgx_hex', None),
    pytest.param('pgx_go', 4, marks=pytest.mark.slow),
    *(
      pytest.param(x, None, marks=pytest.mark.slow)
      for x in ONLY_IN_THE_SLOW_SUITE
    ),
  ],
)
def test_random_games_keep_the_protocol(name, board_size):
  game = games.make(name, board_size)
  rng = np.random.default_rng(1)
  for _ in range(1 if name in ONLY_IN_THE_SLOW_SUITE else 16):
    choices = rng.integers(0, 1 << 20, game.max_plies + 1, np.int32)
    found, final = violations(game, choices)
    assert [what for what, bad in found.items() if bad] == []
    assert game.terminal(final)  # within max_plies


@pytest.mark.parametrize(
  'name', [name for name in games.names() if name not in ONLY_IN_THE_SLOW_SUITE]
)
def test_shapes_are_as_announced(name):
  game = games.make(name)
  state = jax.eval_shape(game.init, jax.random.key(0))
  observation = jax.eval_shape(game.observe, state)
  assert observation.shape == game.observation_shape
  assert observation.dtype == jnp.float32
  legal = jax.eval_shape(game.legal_mask, state)
  assert legal.shape == (game.num_actions,)
  assert legal.dtype == jnp.bool_
  reward = jax.eval_shape(game.reward, state)
  assert (reward.shape, reward.dtype) == ((2,), jnp.float32)
  to_play = jax.eval_shape(game.to_play, state)
  assert (to_play.shape, to_play.dtype) == ((), jnp.int32)
  action = jax.ShapeDtypeStruct((), jnp.int32)
  after = jax.eval_shape(game.step, state, action)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  kinds = [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
  assert [(x.shape, x.dtype) for x in jax.tree.leaves(after)] == kinds


@pytest.mark.parametrize('name', ONE_STONE_A_PLY)
def test_the_next_mover_sees_the_planes_swapped_and_one_new_stone(name):
  game = games.make(name)

  def play(state, choice):
    after = game.step(state, legal_action(game, state, choice))
    return after, (state, after)

  @jax.jit
  def pairs(choices):
    start = game.init(jax.random.key(0))
    before, after = jax.lax.scan(play, start, choices)[1]
    see = jax.vmap(game.observe)
    return see(before), see(after), jax.vmap(game.terminal)(before)

  choices = np.random.default_rng(0).integers(0, 1 << 20, game.max_plies)
  before, after, over = pairs(choices)
  live = ~np.asarray(over)
  assert live.sum() >= 5
  before, after = np.asarray(before)[live], np.asarray(after)[live]
  np.testing.assert_array_equal(after[..., 0], before[..., 1])
  new = after[..., 1] - before[..., 0]
  assert new.min() == 0
  np.testing.assert_array_equal(new.sum(axis=(1, 2)), 1)


# The whole tree, level by level: equal positions are merged, with the number
# of ways to reach them, so that millions of games cost thousands of steps.

CHUNK = 1 << 13


@functools.partial(jax.jit, static_argnums=0)
def expand(game, states):
  """Steps states [CHUNK] by every action; what there is to know of each."""
  actions = jnp.arange(game.num_actions)
  children = jax.vmap(lambda s: jax.vmap(lambda a: game.step(s, a))(actions))(
    states
  )
  every = jax.vmap(jax.vmap(game.observe))(children)
  return (
    children,
    jax.vmap(game.legal_mask)(states),
    every.astype(bool).reshape(*every.shape[:2], -1),
  )


@functools.partial(jax.jit, static_argnums=0)
def results(game, states):
  return jax.vmap(game.terminal)(states), jax.vmap(game.reward)(states)


def levels(game, depth):
  """Yields (states, how many ways lead to each) by ply, distinct positions."""
  states = jax.tree.map(
    lambda x: np.asarray(x)[None], game.init(jax.random.key(0))
  )
  ways = np.ones(1, np.int64)
  yield states, ways
  for _ in range(depth):
    level = []
    for start in range(0, len(ways), CHUNK):
      part = jax.tree.map(lambda x, s=start: x[s : s + CHUNK], states)
      count = len(jax.tree.leaves(part)[0])
      padded = jax.tree.map(
        lambda x, n=count: np.concatenate([x, np.repeat(x[:1], CHUNK - n, 0)]),
        part,
      )
      children, legal, planes = jax.device_get(expand(game, padded))
      legal = legal & (np.arange(CHUNK) < count)[:, None]
      level.append(
        (
          jax.tree.map(lambda x, k=legal: x[k], children),
          np.packbits(planes[legal], axis=-1),
          np.repeat(ways[start : start + count], legal[:count].sum(axis=-1)),
        )
      )
    merged = jax.tree.map(lambda *parts: np.concatenate(parts), *level)
    children, keys, reached = merged
    keys = np.ascontiguousarray(keys)
    keys = keys.view(np.dtype((np.void, keys.shape[-1])))[:, 0]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    ways = np.zeros(len(first), np.int64)
    np.add.at(ways, which, reached)
    states = jax.tree.map(lambda x, f=first: x[f], children)
    yield states, ways


def test_tic_tac_toe_has_255168_games():
  game = tic_tac_toe.GAME
  perft, distinct = [], 0
  by_result = {1.0: 0, -1.0: 0, 0.0: 0}
  for states, ways in levels(game, 9):
    perft.append(int(ways.sum()))
    distinct += len(ways)
    over, reward = jax.device_get(results(game, states))
    for result in by_result:
      by_result[result] += int(ways[over & (reward[:, 0] == result)].sum())
  assert perft == [1, 9, 72, 504, 3024, 15120, 54720, 148176, 200448, 127872]
  assert distinct == 5478
  assert by_result == {1.0: 131184, -1.0: 77904, 0.0: 46080}
  assert sum(by_result.values()) == 255168


def test_connect_four_counts_positions_and_lines_of_play():
  # Both were counted again by the independent rules of connect_four_test.
  counts = [
    (len(ways), int(ways.sum())) for _, ways in levels(connect_four.GAME, 8)
  ]
  distinct, perft = zip(*counts, strict=True)
  assert perft == (1, 7, 49, 343, 2401, 16807, 117649, 823536, 5673234)
  assert distinct == (1, 7, 49, 238, 1120, 4263, 16422, 54859, 184275)


def test_make_returns_the_same_object_for_the_same_name():
  assert games.make('connect_four') is games.make('connect_four')
  assert games.make('connect_four') is connect_four.GAME
  assert games.make('go') is games.make('go', 9) is go.make(komi=7.5)
  assert games.make('go', 5) is not games.make('go')


@pytest.mark.parametrize(
  ('name', 'board_size', 'words'),
  [
    ('connect4', None, ("'connect4'", "'connect_four'", 'tic_tac_toe')),
    ('pgx_ches', None, ("'pgx_ches'", "'pgx_chess'")),
    ('zzz', None, ("unknown game 'zzz'; possible: chess, ",)),
    ('connect_four', 8, ('connect_four', 'board_size')),
    ('pgx_hex', 8, ('pgx_hex', 'board_size')),
    ('go', 26, ('go', '26', '2 to 25')),
    ('pgx_go', 20, ('pgx_go', '20', '2 to 19')),
  ],
)
def test_make_tells_what_is_possible(name, board_size, words):
  with pytest.raises(UsageError) as error:
    games.make(name, board_size)
  message = str(error.value)
  assert '\n' not in message
  assert [word for word in words if word not in message] == []


# Of shogi's actions many lead off the board and are no moves.
@pytest.mark.parametrize(
  'name', [*(name for name in games.OURS if name != 'shogi'), 'pgx_go']
)
def test_action_names_are_read_back(name):
  game = games.make(name, 4 if name == 'pgx_go' else None)
  names = [game.action_name(action) for action in range(game.num_actions)]
  assert len(set(names)) == game.num_actions
  assert [game.parse_action(x) for x in names] == list(range(game.num_actions))
  with pytest.raises(UsageError, match="'z9' is no"):
    game.parse_action('z9')


def test_the_eight_symmetries_move_plane_and_policy_alike():
  symmetries = games.square_symmetries(3, extra_actions=1)
  policy = jnp.arange(10.0)
  images = set()
  for symmetry in symmetries:
    moved = np.asarray(symmetry.policy(policy))
    board = np.asarray(symmetry.observation(policy[:9].reshape(3, 3, 1)))
    np.testing.assert_array_equal(moved[:9], board.reshape(9))
    assert moved[9] == 9
    images.add(tuple(moved))
  assert len(images) == 8
  np.testing.assert_array_equal(symmetries[0].policy(policy), policy)
  # A quarter turn against the clock: the top right corner goes top left.
  turned = symmetries[1].observation(jnp.arange(9).reshape(1, 3, 3, 1))
  np.testing.assert_array_equal(
    turned[0, ..., 0], [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
  )
