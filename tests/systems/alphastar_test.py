"""AlphaStar's policy: commands, likelihoods, devices, and that it learns."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.envs import skirmish
from dl_lectures.nets import entities
from dl_lectures.systems import alphastar
from dl_lectures.training import rollout, sharding

TINY = dataclasses.replace(
  alphastar.PRESETS['smoke'], imitation_steps=40, num_steps=60
)
net = alphastar.network(TINY)


@pytest.fixture(scope='module')
def steps() -> dict[int, Any]:
  """Compiled steps by the number of devices, and their first states."""
  found = {}
  for count in (1, 8):
    mesh = sharding.make_mesh(count)
    whole: Any = sharding.replicated(mesh)
    split: Any = sharding.split(mesh)
    layout = alphastar.State(whole, whole, split, whole)
    state = jax.jit(
      lambda key: alphastar.init(TINY, net, key), out_shardings=layout
    )(jax.random.key(0))
    step = jax.jit(
      alphastar.make_step(TINY, net),
      in_shardings=(layout, None, None),
      out_shardings=(layout, None),
    )
    found[count] = step, state
  return found


def run(step: Any, state: Any, count: int) -> tuple[Any, Any]:
  metrics = {}
  for _ in range(count):
    state, metrics = step(state, None, jax.random.key(1))
  return state, jax.device_get(metrics)


def test_a_command_is_a_sequence_and_back():
  said = skirmish.Command(
    jnp.array([2, 0]),
    jnp.array([[True, False, True, True, False], [False] * 5]),
    jnp.array([7, 0]),
    jnp.array([3, 0]),
  )
  action = alphastar.as_action(said)
  assert action.picks.tolist() == [[0, 2, 3, 5, 5], [5, 5, 5, 5, 5]]
  jax.tree.map(np.testing.assert_array_equal, alphastar.command(action), said)
  turned = action._replace(picks=jnp.array([[3, 0, 2, 5, 5], [5] * 5]))
  jax.tree.map(np.testing.assert_array_equal, alphastar.command(turned), said)


@pytest.mark.slow
def test_what_is_learned_from_is_what_was_played(steps):
  """The learner's probabilities are the player's, through ends of games."""
  _, state = steps[1]
  lanes, played = jax.jit(
    lambda lanes, keys: rollout.rollout(
      alphastar.advised(),
      alphastar.policy(net, state.train.params, False),
      lanes,
      keys,
      40,
    )
  )(state.lanes, jax.random.split(jax.random.key(3), TINY.lanes))
  action, behaviour = played.extras
  assert (played.discount == 0).any()
  seen, given, reset = jax.tree.map(
    lambda x: jnp.swapaxes(x, 0, 1),
    (played.observation.seen, action, played.first),
  )
  thought, memory = jax.jit(net.apply)(
    state.train.params, seen, state.lanes.policy_state, reset, given
  )
  log_prob = thought.decision.log_prob.reshape(reset.shape).T
  np.testing.assert_allclose(log_prob, behaviour, atol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    memory,
    lanes.policy_state,
  )


def test_values_learn_by_hand(steps):
  """Of a game that is won with the last turn and certain weights of 1."""
  config = dataclasses.replace(TINY, discount=0.5, lambda_=1.0, value_cost=1.0)
  lanes, length = 1, 3
  seen = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (length, lanes, *x.shape)),
    skirmish.observe(skirmish.reset(jax.random.key(0)), 0),
  )
  action = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (length, *x.shape)),
    alphastar.as_action(jax.tree.map(lambda x: x[None], skirmish.nothing())),
  )
  told = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (length, lanes, *x.shape)),
    skirmish.nothing(),
  )
  played = rollout.Trajectory(
    alphastar.Advised(seen, told),
    jnp.zeros((length, lanes), bool),
    told.kind,
    jnp.array([[0.0], [0.0], [1.0]]),
    jnp.array([[1.0], [1.0], [0.0]]),
    (action, jnp.zeros((length, lanes))),
  )
  last = types.TimeStep(
    jax.tree.map(lambda x: x[0], played.observation),
    jnp.ones(lanes),
    jnp.zeros(lanes),
  )
  params = steps[1][1].train.params
  before = alphastar.carry(TINY, lanes)
  rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), seen)
  reset = jnp.zeros((lanes, length), bool)
  thought, _ = jax.jit(net.apply)(params, rows, before, reset)
  loss = jax.jit(functools.partial(alphastar.loss, config, net))
  _, metrics = loss(jnp.bool_(True), params, before, played, last)
  targets = np.array([0.25, 0.5, 1.0])
  error = 0.5 * np.mean((targets - np.asarray(thought.value)) ** 2)
  np.testing.assert_allclose(metrics['value_loss'], error, rtol=1e-5)
  assert metrics['won'] == 1


@pytest.mark.slow
def test_eight_devices_learn_what_one_learns(steps):
  one, eight = (run(step, state, 4)[0] for step, state in (steps[1], steps[8]))
  np.testing.assert_array_equal(
    one.lanes.env_state.health, eight.lanes.env_state.health
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    jax.device_get(one.train.params),
    jax.device_get(eight.train.params),
  )


def test_the_script_is_imitated_and_the_run_resumes_bit_for_bit(steps):
  step, state = steps[1]
  state, first = run(step, state, 1)
  half, last = run(step, state, 39)
  assert last['likelihood'] > first['likelihood'] + 1
  # The copy is made of the weights with which imitation ends.
  jax.tree.map(np.testing.assert_array_equal, half.clone, half.train.params)
  whole, _ = run(step, half, 4)
  jax.tree.map(np.testing.assert_array_equal, half.clone, whole.clone)
  copied = jax.tree.map(jnp.asarray, jax.device_get(half))
  resumed, _ = run(step, copied, 4)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


@pytest.mark.slow
def test_a_run_reports(tmp_path):
  config = dataclasses.replace(TINY, num_games=10)
  metrics = alphastar.train(config, workdir=str(tmp_path))
  assert 0.4 < metrics['share_teacher'] < 0.6
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert len(summary['claims']) == 2
  for name in ('strength', 'game'):
    assert (tmp_path / 'figures' / f'{name}.png').exists()


def test_parameters_of_the_large_network():
  config = alphastar.PRESETS['paper']
  model = alphastar.network(config)
  seen = jax.eval_shape(
    lambda: skirmish.observe(skirmish.reset(jax.random.key(0)), 0)
  )
  seen = jax.tree.map(lambda x: jnp.zeros((1, 1, *x.shape), x.dtype), seen)
  params = jax.eval_shape(
    model.init,
    jax.random.key(0),
    seen,
    alphastar.carry(config, 1),
    jnp.ones((1, 1), bool),
  )
  count = {
    name: sum(x.size for x in jax.tree.leaves(tree))
    for name, tree in params.items()
  }
  blocks = sum(n for name, n in count.items() if '/transformer_block' in name)
  # Twelve squares of the width, biases, and two norms, in each of three.
  assert blocks == 3 * (12 * 256**2 + 13 * 256)
  # Four sums of an input and a recurrence.
  assert count['lstm'] == 4 * (2 * 384**2 + 384)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'heads': 3}, r'config.heads=3; the divisors of config.width=32'),
    ({'discount': 2.0}, r'config.discount=2.0; 0 to 1'),
    ({'lanes': 0}, r'config.lanes=0; at least 1'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(alphastar.Config(), **changes)


def test_a_part_is_drawn_from_noise_of_the_right_length():
  assert entities.noise_size(5, 64) == alphastar.NOISE == 3 + 5 * 6 + 5 + 64
