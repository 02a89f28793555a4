"""Tasks of delayed reward: plain Python, closed forms, programming."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import types
from dl_lectures.envs import delayed

TASKS = {
  'watch_repair': 12,
  'trace_back': 9,
  'charge': 7,
  'line': 11,
}


@functools.cache
def task_of(name):
  return delayed.make(name, TASKS[name])


@functools.cache
def batch_of(name, n=256):
  """Random episodes, and the chance that they were played with."""
  task = task_of(name)
  world, own = jax.random.split(jax.random.key(5))
  chance = delayed.draw(task, world, (n,))
  uniform = jax.random.uniform(own, (n, task.horizon, 2))
  play = functools.partial(task.rollout, delayed.uniform_policy)
  batch = jax.jit(jax.vmap(play))(chance, uniform)
  return jax.tree.map(np.asarray, (batch, chance))


# Each oracle: (start, uniform [T, 2], normal [T], actions [T]) -> observations
# [T + 1], rewards [T], score; in plain Python, from the tasks' descriptions.


def plain_watch(start, uniform, normal, actions):
  horizon = len(actions)
  brand = int(start * 4)
  price = [18, 28, 31, 59][brand]
  repair = ([1, 4, 5, 24.5][brand], [2, 2, 2, 1][brand])
  delivery = [0.5, 2.5, 4.5, 18][brand]
  repaired, jams, flats = 0, 0, 0
  seen, rewards = [], []

  def look(t):
    one_hot = [float(brand == b) for b in range(4)]
    seen.append([repaired, jams, flats, *one_hot, t / horizon])

  look(0)
  for t, action in enumerate(actions):
    reward = 0.0
    if t == 0 and action == 0:
      repaired = 1
      reward -= repair[0] + repair[1] * normal[t]
    jams += uniform[t][0] < 5 / horizon
    flats += uniform[t][1] < 2.5 / horizon
    if t == horizon - 1 and repaired:
      reward += price - (delivery + 1.5 * normal[t]) - 0.1 * jams - 7 * flats
    rewards.append(reward)
    look(t + 1)
  return seen, rewards, float((actions[0] == 0) == (brand in (1, 2)))


def plain_trace(start, uniform, normal, actions):
  del start, normal
  horizon = len(actions)
  x, y, stage, tolls = 0, 0, 0, 0
  seen, rewards = [], []

  def look(t):
    stages = [float(stage == s) for s in range(3)]
    seen.append([x / 2, y / 2, *stages, tolls, t / horizon])

  look(0)
  for t, action in enumerate(actions):
    dx, dy = {0: (0, 1), 1: (1, 0), 2: (0, -1), 3: (-1, 0)}[int(action)]
    x, y = min(max(x + dx, -2), 2), min(max(y + dy, -2), 2)
    if t == 1 and list(actions[:2]) == [0, 1]:
      stage = 1
    elif stage == 1 and (x, y) == (0, 0):
      stage = 2
    tolls += uniform[t][0] < 0.1
    last = t == horizon - 1
    rewards.append((50.0 * (stage == 2) - 10 * tolls) if last else 0.0)
    look(t + 1)
  return seen, rewards, float(stage == 2)


def plain_charge(start, uniform, normal, actions):
  del start, uniform, normal
  horizon = len(actions)
  charged, earned = False, 0
  seen, rewards = [[1.0, 0.0, 0.0]], []
  for t, action in enumerate(actions):
    if action == 1:
      earned += 10 if charged else 1
    charged = action == 0
    rewards.append(earned if t == horizon - 1 else 0)
    seen.append([float(not charged), float(charged), (t + 1) / horizon])
  best = 10 * (horizon // 2) + horizon % 2
  return seen, rewards, earned / best


def plain_line(start, uniform, normal, actions):
  del start, uniform, normal
  horizon = len(actions)
  place, coins = 0, 0
  seen, rewards = [], []
  for t, action in enumerate(actions):
    seen.append([float(place == p) for p in range(-6, 7)])
    coins += place == 2
    place = min(max(place + (1 if action else -1), -6), 6)
    rewards.append(coins if t == horizon - 1 else 0)
  seen.append([float(place == p) for p in range(-6, 7)])
  return seen, rewards, coins / ((horizon - 1) // 2)


PLAIN = {
  'watch_repair': plain_watch,
  'trace_back': plain_trace,
  'charge': plain_charge,
  'line': plain_line,
}


@pytest.mark.parametrize('name', TASKS)
def test_episodes_equal_plain_python(name):
  task = task_of(name)
  batch, chance = batch_of(name)
  assert batch.observation.shape == (256, task.horizon + 1, task.num_features)
  for i in range(256):
    seen, rewards, score = PLAIN[name](
      chance.start[i], chance.uniform[i], chance.normal[i], batch.action[i]
    )
    np.testing.assert_allclose(batch.observation[i], seen, atol=1e-5)
    np.testing.assert_allclose(batch.reward[i], rewards, atol=2e-4)
    assert float(batch.score[i]) == pytest.approx(score)
  assert len(np.unique(batch.action)) == task.num_actions


@pytest.mark.parametrize('name', TASKS)
def test_rollout_equals_the_steps(name):
  task = task_of(name)
  batch, chance = batch_of(name)

  def step(state, noise):
    one, action = noise
    after, reward = task.advance(state, action, one)
    return after, (task.observe(state), task.row(state), reward)

  def play(chance, action):
    start = jnp.broadcast_to(chance.start, (task.horizon,))
    steps = delayed.Chance(start, chance.uniform, chance.normal)
    return jax.lax.scan(step, task.begin(chance.start), (steps, action))[1]

  seen, row, reward = jax.jit(jax.vmap(play))(chance, batch.action)
  np.testing.assert_allclose(batch.observation[:, :-1], seen, atol=1e-6)
  np.testing.assert_array_equal(batch.row[:, :-1], row)
  np.testing.assert_allclose(batch.reward, reward, atol=1e-5)


@pytest.mark.parametrize('name', TASKS)
def test_rows_tell_states_apart(name):
  task = task_of(name)
  batch, _ = batch_of(name)
  assert batch.row.min() >= 0
  assert batch.row.max() < task.num_rows
  rows = batch.row.reshape(-1)
  seen = batch.observation.reshape(rows.size, -1)
  if name == 'trace_back':
    seen = np.delete(seen, 5, axis=1)  # tolls
  if name == 'line':
    time = np.tile(np.arange(task.horizon + 1), len(batch.row))
    seen = np.concatenate([seen, time[:, None]], axis=1)
  pairs = np.unique(np.column_stack([rows, seen]), axis=0)
  assert len(pairs) == len(np.unique(rows)) == len(np.unique(seen, axis=0))


@pytest.mark.parametrize('horizon', [5, 50])
def test_expected_margins_of_watches(horizon):
  # Worked out from the published figures; a journey costs 18.
  expected = np.array([-1.5, 3.5, 3.5, -1.5])
  np.testing.assert_allclose(delayed.margins(), expected, atol=1e-5)
  task = delayed.watch_repair(horizon)
  assert task.best_return == pytest.approx(7 / 4)
  n = 20_000

  def repair(row, legal, uniform):
    del row, legal, uniform
    return jnp.int32(0)

  batch = jax.jit(lambda key: delayed.episodes(task, key, repair, n))(
    jax.random.key(horizon)
  )
  brand = np.argmax(batch.observation[:, 0, 3:7], axis=-1)
  total = np.asarray(batch.reward.sum(axis=1))
  for b in range(4):
    mine = total[brand == b]
    error = mine.std() / np.sqrt(len(mine))
    assert abs(mine.mean() - expected[b]) < 4 * error
    assert error < 0.3
  assert np.bincount(brand).min() > n / 4 - 4 * np.sqrt(n * 3 / 16)
  events = np.asarray(batch.observation[:, -1, 1:3]).mean(axis=0)
  np.testing.assert_allclose(events, [5.0, 2.5], atol=0.08)


def test_a_watch_that_is_not_repaired_earns_nothing():
  task = task_of('watch_repair')
  batch, _ = batch_of('watch_repair')
  left = batch.action[:, 0] == 1
  assert left.any()
  assert not left.all()
  assert (batch.reward[left] == 0).all()
  assert (batch.action[:, 1:] == 1).all()
  assert task.legal(batch.row[0, 0]).tolist() == [True, True]
  assert task.legal(batch.row[0, 1]).tolist() == [False, True]


def best_by_programming(task, states):
  """The best return from `begin`, over all action sequences of a task.

  Every action sequence is tried, one step at a time, and histories in the same
  state are merged: backward induction needs no more.
  """
  still = delayed.Chance(jnp.float32(0), jnp.ones(2), jnp.float32(0))
  advance = jax.jit(lambda state, action: task.advance(state, action, still))
  layers, state = {}, task.begin(jnp.float32(0))
  layers[states(state)] = state
  best = {}
  for _ in range(task.horizon):
    following = {}
    for state in layers.values():
      for action in range(task.num_actions):
        after, reward = advance(state, jnp.int32(action))
        name = states(after)
        best[name] = float(reward)
        following[name] = after
    layers = following
  return max(best[name] for name in layers)


@pytest.mark.parametrize('name', ['charge', 'line'])
@pytest.mark.parametrize('horizon', [3, 6])
def test_best_returns(name, horizon):
  task = delayed.make(name, horizon)

  def whole(state):
    return tuple(float(x) for x in state)

  assert best_by_programming(task, whole) == task.best_return


def test_best_return_of_tracing_back():
  task = delayed.trace_back(5)

  def whole(state):
    return (*state.place.tolist(), int(state.stage), int(state.time))

  # Without tolls; ten for each that is due, one step in ten.
  assert best_by_programming(task, whole) == 50.0
  assert task.best_return == pytest.approx(50 - 5)


def test_the_treasure_is_found_in_one_way_only():
  task = delayed.trace_back(4)

  def play(actions):
    state = task.begin(jnp.float32(0))
    still = delayed.Chance(jnp.float32(0), jnp.ones(2), jnp.float32(0))
    rewards = []
    for action in actions:
      state, reward = task.advance(state, jnp.int32(action), still)
      rewards.append(float(reward))
    return rewards[-1]

  up, right, down, left = range(4)
  assert play([up, right, down, left]) == 50
  assert play([up, right, left, down]) == 50
  assert play([right, up, left, down]) == 0
  assert play([up, right, up, down]) == 0


@pytest.mark.parametrize('name', TASKS)
def test_the_protocol(name):
  task = task_of(name)
  env = delayed.environment(task)
  reset, step = jax.jit(env.reset), jax.jit(env.step)
  state, seen = reset(jax.random.key(1))
  discounts = []
  for key in jax.random.split(jax.random.key(2), task.horizon):
    assert seen.observation.shape == env.observation_shape
    state, seen = step(state, jnp.int32(1), key)
    discounts.append(float(seen.discount))
  assert discounts == [1.0] * (task.horizon - 1) + [0.0]
  assert env.num_actions == task.num_actions


def test_the_protocol_draws_anew_at_every_step():
  env = delayed.environment(delayed.watch_repair(5))
  keys = jax.random.split(jax.random.key(3), 2_000)
  state, _ = env.reset(jax.random.key(0))
  after, _ = jax.vmap(lambda key: env.step(state, jnp.int32(0), key))(keys)
  # Chances of a jam 1, of a flat tyre .5 a step.
  np.testing.assert_allclose(after.events.mean(axis=0), [1, 0.5], atol=0.05)
  starts, _ = jax.vmap(env.reset)(keys)
  assert np.bincount(starts.brand).min() > 420


def test_picking():
  allowed = jnp.array([False, True, False, True, True])
  uniform = np.linspace(0, 1, 3_000, endpoint=False, dtype=np.float32)
  picked = jax.vmap(delayed.pick, (None, 0))(allowed, jnp.asarray(uniform))
  counts = np.bincount(picked, minlength=5)
  assert counts.tolist() == [0, 1000, 0, 1000, 1000]


def test_greedy_policies():
  table = jnp.array([[1.0, 3.0, 3.0], [5.0, 0.0, 0.0]])
  policy = delayed.greedy_policy(table, 0.25)
  uniform = jax.random.uniform(jax.random.key(0), (8_000, 2))

  def shares(row, legal):
    act = jax.vmap(policy, (None, None, 0))
    actions = act(jnp.int32(row), jnp.array(legal), uniform)
    return np.bincount(actions, minlength=3) / len(uniform)

  ways = [True, True, True]
  np.testing.assert_allclose(
    shares(0, ways),
    [0.25 / 3, 0.75 / 2 + 0.25 / 3, 0.75 / 2 + 0.25 / 3],
    atol=0.02,
  )
  np.testing.assert_allclose(
    shares(1, [False, True, True]), [0, 0.5, 0.5], atol=0.02
  )


def test_what_is_refused():
  with pytest.raises(types.UsageError, match=r"unknown task 'watches'"):
    delayed.make('watches', 50)
  for name, least in (
    ('watch_repair', 5),
    ('trace_back', 4),
    ('charge', 1),
    ('line', 3),
  ):
    delayed.make(name, least)
    with pytest.raises(types.UsageError, match=f'at least {least} are'):
      delayed.make(name, least - 1)
