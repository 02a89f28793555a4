"""AlphaZero: targets by hand, devices, resumption, and that it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import search, types
from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.training import sharding

TINY = alphazero.Config(
  game='tic_tac_toe',
  channels=8,
  blocks=1,
  width=16,
  lanes=16,
  plies_per_step=4,
  num_simulations=8,
  temperature_plies=4,
  opening_plies=3,
  window=1024,
  batch_size=32,
  updates_per_step=4,
  num_steps=4,
  wrong_resignations=0.05,
)


@functools.cache
def run_of(num_devices):
  """A compiled step on so many devices, and its first state."""
  game = games.make(TINY.game)
  net = alphazero.network(TINY, game)
  mesh = sharding.make_mesh(num_devices)
  step = jax.jit(alphazero.make_step(TINY, game, net, mesh))
  init = jax.jit(lambda key: alphazero.init(TINY, game, net, key))
  # Where steps leave it: else the second step would be compiled anew.
  return step, jax.device_put(
    init(jax.random.key(3)), alphazero.state_sharding(mesh)
  )


def rows(value, player, reward, done, off_policy):
  n = len(value)
  position = alphazero.Position(
    jnp.zeros(n),
    jnp.zeros((n, 0), jnp.int32),
    jnp.zeros((n, 2)),
    jnp.array(value, jnp.float32),
  )
  return alphazero.Row(
    position,
    jnp.array(player),
    jnp.array(reward, jnp.float32),
    jnp.array(done, bool),
    jnp.array(off_policy, bool),
    jnp.zeros(n, bool),
  )


def test_a_policy_keeps_its_likeliest_moves():
  few = jax.nn.softmax(jax.random.normal(jax.random.key(0), (3, 64)))
  np.testing.assert_array_equal(
    alphazero.spread(*alphazero.likeliest(few), 64), few
  )
  visits = jnp.zeros((2, 200)).at[:, 60:110].set(jnp.arange(1.0, 51.0)[None])
  policy = visits / jnp.sum(visits, axis=-1, keepdims=True)
  moves, shares = alphazero.likeliest(policy)
  assert moves.shape == shares.shape == (2, 64)
  np.testing.assert_allclose(
    alphazero.spread(moves, shares, 200), policy, rtol=1e-6
  )
  broad = jnp.full((1, 128), 1 / 128)
  kept = alphazero.spread(*alphazero.likeliest(broad), 128)
  assert (np.asarray(kept) > 0).sum() == 64
  assert float(kept.sum()) == pytest.approx(1)


def test_results_flow_back_with_the_sign_of_the_mover():
  game = rows(
    value=[0.1, 0.2, 0.3, 0.4, 0.5],
    player=[0, 1, 0, 0, 1],
    reward=[0, 0, 1, 0, 0],
    done=[0, 0, 1, 0, 0],
    off_policy=[0, 0, 0, 0, 0],
  )
  target, known = alphazero.value_targets(game, 1.0)
  assert known.tolist() == [True, True, True, False, False]
  assert target[:3].tolist() == [1, -1, 1]


def test_nothing_flows_back_past_an_exploratory_move():
  game = rows(
    value=[0.1, 0.2, 0.3, 0.4],
    player=[0, 1, 0, 1],
    reward=[0, 0, 0, 1],
    done=[0, 0, 0, 1],
    off_policy=[0, 1, 0, 0],
  )
  target, known = alphazero.value_targets(game, 1.0)
  assert known.all()
  # The move of ply 1 was exploratory: its position is worth what the search
  # said, and so is the one before it, seen from the other side.
  np.testing.assert_allclose(target, [-0.2, 0.2, -1, 1], rtol=1e-6)


def test_lambda_mixes_the_search_values_in():
  game = rows([0.5, 0.6, 0.1], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0])
  target, _ = alphazero.value_targets(game, 0.5)
  # z_2 = 1; z_1 = -(.5 * .1 + .5 * 1); z_0 = -(.5 * .6 + .5 * z_1).
  np.testing.assert_allclose(target, [-0.025, -0.55, 1], rtol=1e-6)


def test_a_discount_shrinks_what_comes_later():
  game = rows([0.5, 0.6, 0.1], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0])
  target, _ = alphazero.value_targets(game, 1.0, 0.9)
  np.testing.assert_allclose(target, [0.81, -0.9, 1], rtol=1e-6)


def test_the_value_is_that_of_the_policy_found_not_of_moves_tried_and_dropped():
  payoff = jnp.array([-1.0, 1.0, -1.0, -1.0])

  def bandit(params, key, action, embedding):
    del key
    nothing = jnp.zeros(action.shape)
    logits = jnp.zeros((*action.shape, 4))
    return search.RecurrentFnOutput(
      params[action], nothing, logits, nothing
    ), embedding

  root = search.RootFnOutput(
    jnp.array([[0.0, 0.0, 0.0, -1e9]]), jnp.zeros(1), jnp.zeros(1)
  )
  found = search.gumbel_muzero_policy(
    payoff, jax.random.key(0), root, bandit, 12, jnp.arange(4)[None] == 3
  )
  # Half of the simulations went to moves that lose; the policy is sure.
  weights = np.asarray(found.action_weights[0])
  expected = weights[1] - weights[0] - weights[2]
  value = float(alphazero.improved_value(found)[0])
  assert value == pytest.approx(expected, abs=1e-6)
  assert value > 0.9 > 0.5 > float(found.search_tree.summary().value[0])


def test_the_threshold_moves_towards_the_tolerated_share():
  def ended(audited, wrong):
    zero = jnp.zeros(())
    return alphazero.Ended(
      zero, zero, zero, jnp.float32(audited), jnp.float32(wrong)
    )

  below = jnp.float32(-0.9)
  adapt = functools.partial(alphazero.adapt_resignation, TINY, below)
  np.testing.assert_allclose(adapt(ended(10, 0)), -0.895, rtol=1e-6)
  np.testing.assert_allclose(adapt(ended(10, 1)), -0.905, rtol=1e-6)
  assert adapt(ended(0, 0)) == below


@pytest.mark.slow
def test_every_known_position_enters_its_ring_once():
  step, state = run_of(1)
  done = 0
  for _ in range(3):
    state, metrics = step(state, None, jax.random.key(0))
    done += 4 * 16
    waiting = int(jnp.sum(~state.pending.used))
    # All that was played is in a ring or waits for the end of its game.
    assert int(state.rings.size.sum()) + waiting == done
  assert metrics['positions'] == state.rings.size.sum()
  policy = state.rings.items.policy[0, : int(state.rings.size[0])]
  np.testing.assert_allclose(policy.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.slow
def test_eight_devices_learn_what_one_learns():
  states = []
  for devices in (1, 8):
    step, state = run_of(devices)
    for _ in range(2):
      state, _ = step(state, None, jax.random.key(0))
    states.append(
      jax.device_get((state.lanes, state.rings.size, state.average))
    )
  one, eight = states
  # The games are the same to the last move, the sums nearly.
  assert (one[0].ply == eight[0].ply).all()
  assert (one[1] == eight[1]).all()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    one[2],
    eight[2],
  )


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
  class Stop(Exception):
    pass

  def stop(step, state):
    if step == 2:
      raise Stop

  def last(workdir):
    trained = alphazero.load(workdir)
    return trained.step, jax.tree.leaves(trained.weights)

  whole, parts = str(tmp_path / 'whole'), str(tmp_path / 'parts')
  alphazero.train(TINY, workdir=whole)
  hook = alphazero.training.Hook(stop, 1)
  with pytest.raises(Stop):
    alphazero.train(TINY, workdir=parts, hooks=[hook])
  alphazero.train(TINY, workdir=parts)
  for a, b in zip(last(whole)[1], last(parts)[1], strict=True):
    np.testing.assert_array_equal(a, b)


def solve_tic_tac_toe():
  """Every position of tic-tac-toe with the moves that keep its result."""
  lines = [
    (0, 1, 2),
    (3, 4, 5),
    (6, 7, 8),
    (0, 3, 6),
    (1, 4, 7),
    (2, 5, 8),
    (0, 4, 8),
    (2, 4, 6),
  ]

  @functools.cache
  def value(mine, theirs):
    if any(all(c in theirs for c in line) for line in lines):
      return -1
    free = set(range(9)) - mine - theirs
    return max((-value(theirs, mine | {c}) for c in free), default=0)

  found = {}

  def visit(moves, mine, theirs):
    if (mine, theirs) in found or (
      value(mine, theirs) == -1
      and any(all(c in theirs for c in line) for line in lines)
    ):
      return
    free = sorted(set(range(9)) - mine - theirs)
    if not free:
      return
    after = {c: -value(theirs, mine | {c}) for c in free}
    best = max(after.values())
    found[mine, theirs] = moves, [c for c in free if after[c] == best]
    for c in free:
      visit((*moves, c), theirs, mine | {c})

  visit((), frozenset(), frozenset())
  return [
    (moves, keep)
    for moves, keep in found.values()
    if len(keep) < 9 - len(moves)
  ]


def kept(config, weights, positions):
  """The share of decisive positions whose result the raw network keeps."""
  game = games.make('tic_tac_toe')
  actions = jnp.full((len(positions), 9), -1)
  for i, (moves, _) in enumerate(positions):
    actions = actions.at[i, : len(moves)].set(jnp.array(moves, jnp.int32))

  def play(actions):
    def ply(state, action):
      after = game.step(state, jnp.maximum(action, 0))
      return jax.tree.map(
        lambda a, b: jnp.where(action >= 0, a, b), after, state
      ), None

    return jax.lax.scan(ply, game.init(jax.random.key(0)), actions)[0]

  states = jax.jit(jax.vmap(play))(actions)
  net = alphazero.network(config, game)
  moves = alphazero.think(config, game, net, 0)(weights, states).action
  return np.mean([m in k for m, (_, k) in zip(moves, positions, strict=True)])


def test_tic_tac_toe_is_learned_from_its_rules():
  config = alphazero.dataclasses.replace(
    TINY,
    channels=64,
    width=64,
    lanes=32,
    plies_per_step=8,
    num_simulations=16,
    updates_per_step=16,
    batch_size=64,
    window=4096,
    num_steps=40,
    learning_rate=3e-3,
    opening_plies=6,
  )
  positions = solve_tic_tac_toe()[::4]
  game = games.make(config.game)
  net = alphazero.network(config, game)
  mesh = sharding.make_mesh(1)
  step = jax.jit(alphazero.make_step(config, game, net, mesh))
  init = jax.jit(lambda key: alphazero.init(config, game, net, key))
  state = jax.device_put(
    init(jax.random.key(0)), alphazero.state_sharding(mesh)
  )
  before = kept(config, alphazero.playing(state), positions)
  for _ in range(config.num_steps):
    state, _ = step(state, None, jax.random.key(1))
  after = kept(config, alphazero.playing(state), positions)
  assert before < 0.65
  assert after > 0.85


@pytest.mark.parametrize(
  ('preset', 'planes', 'cells', 'actions'),
  [
    ('paper', 119, 64, 4672),
    ('paper_shogi', 362, 81, 11_259),
    ('paper_go', 17, 361, 362),
  ],
)
def test_the_published_networks_and_one_step_of_them_by_shape(
  preset, planes, cells, actions
):
  config = alphazero.PRESETS[preset]
  game = games.make(config.game, config.board_size or None)
  net = alphazero.network(config, game)
  mesh = sharding.make_mesh(8)
  key = jax.random.key(0)
  state = jax.eval_shape(
    lambda key: alphazero.init(config, game, net, key), key
  )
  c = 256
  norm = 2 * c
  stem = 9 * planes * c + norm
  tower = 19 * 2 * (9 * c * c + norm)
  if config.policy_channels:  # AGZ's head
    policy = 2 * c + 2 * 2 + 2 * cells * actions + actions
  else:
    kinds = actions // cells
    policy = 9 * c * c + norm + c * kinds + kinds
  value = c + 2 + cells * 256 + 256 + 256 + 1
  count = sum(x.size for x in jax.tree.leaves(state.average))
  assert count == stem + tower + policy + value
  after, metrics = jax.eval_shape(
    alphazero.make_step(config, game, net, mesh), state, None, key
  )
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert metrics['loss'].shape == ()


def test_mistakes_are_told_in_one_line():
  with pytest.raises(types.UsageError, match=r'config\.window=100; at least'):
    alphazero.train(
      alphazero.dataclasses.replace(TINY, window=100), workdir=None
    )
  with pytest.raises(types.UsageError, match=r'config\.batch_size=33'):
    alphazero.dataclasses.replace(TINY, batch_size=33)
  with pytest.raises(types.UsageError, match='tic_tac_toe'):
    alphazero.train(
      alphazero.dataclasses.replace(TINY, game='tik_tak_toe'), workdir=None
    )


def test_the_raw_network_sees_a_board_and_its_mirror_image_alike():
  config = alphazero.dataclasses.replace(TINY, game='connect_four', window=4096)
  game = games.make('connect_four')
  net = alphazero.network(config, game)
  init = jax.jit(lambda key: alphazero.init(config, game, net, key))
  state = init(jax.random.key(5))
  boards = [games.play_moves(game, moves) for moves in ('1223', '7665')]
  states = jax.tree.map(lambda *x: jnp.stack(x), *boards)
  # Untrained heads say next to nothing: let them speak up.
  params = jax.tree.map(lambda x: 30 * x, state.average)
  weights = (params, state.train.net_state)
  one, other = alphazero.ensemble_prior(game, net, weights, states)
  np.testing.assert_allclose(one, other[::-1], atol=1e-5)
  assert np.ptp(one) > 0.01
