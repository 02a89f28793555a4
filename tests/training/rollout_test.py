"""Rollouts of a counting environment, by hand-computed numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dl_lectures.training import rollout, sharding
from dl_lectures.types import Environment, TimeStep

# The count begins at 0 and grows by the action; the reward is the new count,
# and the episode ends when it reaches 3.
COUNTING = Environment(
  reset=lambda key: (
    jnp.int32(0),
    TimeStep(jnp.zeros(1), jnp.float32(0), jnp.float32(1)),
  ),
  step=lambda count, action, key: (
    count + action,
    TimeStep(
      (count + action).astype(jnp.float32)[None],
      (count + action).astype(jnp.float32),
      (count + action < 3).astype(jnp.float32),
    ),
  ),
  num_actions=3,
  observation_shape=(1,),
)


def _lane_number_policy(memory, time_step, keys):
  """Lane b plays b + 1; the memory counts the steps of this episode."""
  memory = jnp.where(time_step.discount == 0, 0, memory) + 1
  return jnp.arange(1, 3), memory, {'age': memory}


@partial(jax.jit, static_argnums=2)
def _play(state, keys, length):
  return rollout.rollout(COUNTING, _lane_number_policy, state, keys, length)


def _keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def test_two_lanes_by_hand():
  keys = _keys(2)
  state = rollout.start(COUNTING, jnp.zeros(2, jnp.int32), keys)
  state, trajectory = _play(state, keys, 5)
  # Lane 0 counts 1 2 3 | 1 2, lane 1 counts 2 4 | 2 4 | 2.
  assert trajectory.observation[..., 0].T.tolist() == [
    [0, 1, 2, 0, 1],
    [0, 2, 0, 2, 0],
  ]
  assert trajectory.action.T.tolist() == [[1] * 5, [2] * 5]
  assert trajectory.reward.T.tolist() == [[1, 2, 3, 1, 2], [2, 4, 2, 4, 2]]
  assert trajectory.discount.T.tolist() == [[1, 1, 0, 1, 1], [1, 0, 1, 0, 1]]
  assert trajectory.first.T.tolist() == [
    [True, False, False, True, False],
    [True, False, True, False, True],
  ]
  assert trajectory.extras['age'].T.tolist() == [
    [1, 2, 3, 1, 2],
    [1, 2, 1, 2, 1],
  ]
  assert state.env_state.tolist() == [2, 2]
  assert state.time_step.observation.tolist() == [[2], [2]]
  assert state.time_step.discount.tolist() == [1, 1]


def test_one_long_rollout_is_two_short_ones():
  keys = _keys(2)
  start = rollout.start(COUNTING, jnp.zeros(2, jnp.int32), keys)
  end, whole = _play(start, keys, 6)
  middle, first = _play(start, keys, 3)
  final, second = _play(middle, keys, 3)
  both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
  assert jax.tree.all(jax.tree.map(np.array_equal, both, whole))
  assert jax.tree.all(jax.tree.map(np.array_equal, final, end))


def test_the_step_that_ends_an_episode_shows_the_next_one():
  environment = rollout.auto_reset(COUNTING)
  state, time_step = environment.step(jnp.int32(2), jnp.int32(2), _keys(1)[0])
  assert int(state) == 0
  assert time_step.observation.tolist() == [0]
  assert float(time_step.reward) == 4
  assert float(time_step.discount) == 0


# Begins anywhere, moves by chance: every part that draws, draws.
NOISY = Environment(
  reset=lambda key: (
    {'x': jax.random.uniform(key), 'key': key},
    TimeStep(jax.random.uniform(key), jnp.float32(0), jnp.float32(1)),
  ),
  step=lambda state, action, key: (
    {'x': state['x'] + jax.random.uniform(key), 'key': state['key']},
    TimeStep(
      state['x'], state['x'], (state['x'] + action < 2).astype(jnp.float32)
    ),
  ),
  num_actions=2,
  observation_shape=(),
)


def _random_policy(memory, time_step, keys):
  draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, 2))
  return draw(keys), memory, ()


def test_eight_devices_play_what_one_plays_bit_for_bit():
  def play(start_keys, keys):
    state = rollout.start(NOISY, (), start_keys)
    state, trajectory = rollout.rollout(NOISY, _random_policy, state, keys, 12)
    state.env_state['key'] = jax.random.key_data(state.env_state['key'])
    return state, trajectory

  arguments = _keys(16, 1), _keys(16, 2)
  alone = jax.jit(play)(*arguments)
  data = PartitionSpec('data')
  mesh = sharding.make_mesh(8)
  many = sharding.per_device(
    play, mesh, data, (data, PartitionSpec(None, 'data'))
  )
  shared = jax.jit(many)(*arguments)
  assert jax.tree.all(jax.tree.map(np.array_equal, shared, alone))
  ended = np.asarray(alone[1].discount == 0)
  assert ended.any(axis=0).all(), 'every lane sees the end of an episode'
  assert len(np.unique(alone[1].observation)) > 100
