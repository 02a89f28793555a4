"""The rooms: tables against a step in words, exact values, demonstrations."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import rooms
from dl_lectures.training import rollout
from dl_lectures.types import UsageError

CASES = [(n, variant) for n in (4, 8) for variant in rooms.VARIANTS]
WORLDS = {case: rooms.make(*case) for case in CASES}


@jax.jit
def step_all(world, state, action, uniform):
  lucks = jax.vmap(rooms.luck, (None, 0))(world, uniform)
  return jax.vmap(rooms.step, (None, 0, 0, 0))(world, state, action, lucks)


class Oracle:
  """The rules told cell by cell, with walls and doors and no tables."""

  def __init__(self, num_rooms, official):
    draw = np.random.RandomState(2)
    walls = ['NWES'[draw.randint(4)] for _ in range(20)]
    self.exits = [{wall} for wall in walls]
    self.chain = num_rooms - 1
    for i in range(self.chain):
      last = i == self.chain - 1
      self.exits.append({'N'} if last else {'N', 'EW'[i % 2]})
    self.walls = walls
    self.official = official
    self.num_rooms = num_rooms

  def is_floor(self, cell):
    row, column, room = cell
    if 1 <= row <= 4 and 1 <= column <= 4:
      return True
    door = {(0, 3): 'N', (5, 3): 'S', (3, 0): 'W', (3, 5): 'E'}
    return door.get((row, column)) in self.exits[room]

  def through(self, room, action, u):
    """Where a door leads: (room, wall entered by), None if it is shut."""
    doors = {'N': (0, 3), 'S': (5, 3), 'W': (3, 0), 'E': (3, 5)}
    if room < 20:
      if self.official and action == 'E':
        return None
      return (*doors['N'], 20)
    if action != 'N':
      return (*doors['N'], room + 1)
    if room == 20:
      few = 15 if self.official and self.num_rooms == 4 else 20
      first = int(u * few)
      return (*doors[self.walls[first]], first)
    if self.official and self.num_rooms == 8 and room == 21:
      return None
    return (*doors['EW'[(room - 21) % 2]], room - 1)

  def step(self, cell, action, slip, u):
    # In float32, as the tables see it.
    if u < slip:
      u = u / np.float32(slip) * 4
      action = int(u)
      u -= action
    else:
      u = (u - np.float32(slip)) / np.float32(1 - slip)
    name = 'NSWE'[action]
    row, column, room = cell
    door = {(0, 3): 'N', (5, 3): 'S', (3, 0): 'W', (3, 5): 'E'}
    if door.get((row, column)) == name:
      return self.through(room, name, u) or cell
    down, right = {'N': (-1, 0), 'S': (1, 0), 'W': (0, -1), 'E': (0, 1)}[name]
    beside = (row + down, column + right, room)
    return beside if self.is_floor(beside) else cell


@pytest.mark.parametrize(('num_rooms', 'variant'), CASES)
def test_tables_say_what_the_rules_say_30000_times(num_rooms, variant):
  world = WORLDS[num_rooms, variant]._replace(slip=0.25)
  oracle = Oracle(num_rooms, variant == 'official')
  draw = np.random.default_rng(0)
  n = 30_000
  # A third at doors, where the rules are.
  edge = (world.position[:, :2] % 5 == 0).any(1)
  state = draw.integers(world.num_states, size=n)
  state[: n // 3] = draw.choice(np.flatnonzero(edge), n // 3)
  action = draw.integers(4, size=n)
  uniform = draw.random(n, np.float32)
  found = step_all(world, state, action, uniform)
  cells = world.position.tolist()
  expected = [
    oracle.step(tuple(cells[s]), a, 0.25, u)
    for s, a, u in zip(state, action, uniform, strict=True)
  ]
  assert [tuple(cells[s]) for s in found.tolist()] == expected


@pytest.mark.parametrize(
  ('num_rooms', 'variant', 'solvable', 'mean'),
  [
    (4, 'paper', 20, 3.160),
    (8, 'paper', 20, 3.030),
    (4, 'official', 16, 2.728),
    (8, 'official', 16, 2.624),
  ],
)
def test_attainable_returns(num_rooms, variant, solvable, mean):
  """The numbers that a breadth-first search of the published code gave."""
  world = WORLDS[num_rooms, variant]._replace(slip=0.0)
  distance = breadth_first(world)
  steps = distance[world.starts]
  assert np.isfinite(steps).sum() == solvable
  lengths = set(steps[np.isfinite(steps)])
  assert lengths == ({21, 22} if num_rooms == 4 else {47, 48})
  assert rooms.attainable(world) == pytest.approx(mean, abs=5e-4)
  by_search = np.where(
    np.isfinite(steps), 3 + 53.32 / 200 - steps / 200, 1.0
  ).mean()
  assert rooms.attainable(world) == pytest.approx(by_search, abs=1e-9)


def breadth_first(world):
  """[C] steps to the goal; inf where no way leads there. No way back counts."""
  before = collections.defaultdict(set)
  for state in range(world.num_states):
    for action in range(4):
      after = int(world.next_state[state, action])
      if after != rooms.BY_CHANCE:
        before[after].add(state)
  distance = np.full(world.num_states, np.inf)
  distance[world.goal] = 0
  queue = collections.deque([world.goal])
  while queue:
    state = queue.popleft()
    for other in before[state]:
      if distance[other] == np.inf:
        distance[other] = distance[state] + 1
        queue.append(other)
  return distance


def test_the_values_of_a_slippery_world_are_those_of_playing():
  world = WORLDS[4, 'paper']._replace(slip=0.1)
  values, actions = rooms.optimal(world)
  assert values.shape == (201, 393)
  # In this world the best actions depend on the time at its very end only.
  episodes = rooms.play(world, np.eye(4)[actions[0]], jax.random.key(1), 4000)
  returns = np.asarray(episodes.reward.sum(1))
  error = returns.std() / np.sqrt(4000)
  assert abs(returns.mean() - rooms.attainable(world)) < 4 * error
  assert rooms.attainable(world) < rooms.attainable(WORLDS[4, 'paper'])


def test_an_episode_ends_at_the_goal_or_with_one_after_200_steps():
  world = WORLDS[4, 'paper']._replace(slip=0.0)
  north = np.tile([1.0, 0, 0, 0], (world.num_states, 1))
  lost = rooms.play(world, north, jax.random.key(0), 40)
  assert lost.mask.all()
  assert (np.asarray(lost.reward[:, -1]) == 1).all()
  assert not lost.reward[:, :-1].any()
  policy = np.eye(4)[rooms.optimal(world)[1][0]]
  found = rooms.play(world, policy, jax.random.key(0), 40)
  length = np.asarray(found.mask.sum(1))
  np.testing.assert_array_equal(found.mask, np.arange(200) < length[:, None])
  np.testing.assert_allclose(
    found.reward.sum(1), 3 + 53.32 / 200 - length / 200, rtol=1e-6
  )
  assert (found.state[:, -1] == world.goal).all()
  assert not np.asarray(found.action)[~np.asarray(found.mask)].any()


@pytest.mark.parametrize(
  ('num_rooms', 'length', 'returns'), [(4, 27.6, 3.129), (8, 61.5, 2.959)]
)
def test_demonstrations_are_like_the_published_ones(num_rooms, length, returns):
  world = WORLDS[num_rooms, 'official']
  demos = rooms.demonstrations(world, jax.random.key(0), 300)
  assert demos.state.shape == (300, 201)
  assert abs(demos.mask.sum(1).mean() - length) < 0.1 * length
  assert abs(demos.reward.sum(1).mean() - returns) < 0.03
  assert (demos.state[:, -1] == world.goal).all()
  # No start behind an east door.
  assert len(np.unique(demos.state[:, 0])) == 16


def test_a_noiseless_demonstration_takes_the_shortest_way():
  world = WORLDS[8, 'paper']._replace(slip=0.0)
  demos = rooms.demonstrations(world, jax.random.key(0), 5, noise=0.0)
  assert set(demos.mask.sum(1).tolist()) <= {47, 48}


def test_the_environment_steps_through_the_same_tables():
  world = WORLDS[4, 'paper']._replace(slip=0.0)
  env = rooms.environment(world)
  path = rooms.demonstrations(world, jax.random.key(3), 1, noise=0.0)
  length = int(path.mask.sum())
  reset, step = jax.jit(env.reset), jax.jit(env.step)
  state, time_step = reset(jax.random.key(0))
  assert int(state.cell) in world.starts
  state = state._replace(cell=jnp.int32(path.state[0, 0]))
  for t in range(length):
    assert time_step.discount == 1
    state, time_step = step(state, path.action[0, t], jax.random.key(t))
    assert state.cell == path.state[0, t + 1]
    assert time_step.reward == path.reward[0, t]
  assert time_step.discount == 0
  row, column, room = world.position[int(state.cell)]
  seen = np.flatnonzero(time_step.observation)
  assert seen.tolist() == [row, 6 + column, 12 + room]


def test_the_environment_ends_by_time_and_rolls_out():
  env = rooms.environment(WORLDS[8, 'paper'])

  def policy(state, time_step, keys):
    del time_step
    return jnp.zeros(keys.shape, jnp.int32), state, ()

  keys = jax.random.split(jax.random.key(0), 2)
  state = rollout.start(env, (), keys)
  _, played = jax.jit(
    lambda state, keys: rollout.rollout(env, policy, state, keys, 201)
  )(state, keys)
  assert played.observation.shape == (201, 2, 39)
  assert played.discount[199].tolist() == [0, 0]
  assert played.reward[199].tolist() == [1, 1]
  assert not played.reward[:199].any()
  assert played.first[200].all()


def test_the_picture_shows_the_path():
  world = WORLDS[8, 'paper']
  demos = rooms.demonstrations(world, jax.random.key(0), 1)
  picture = rooms.draw(world, demos.state[0])
  points = sum(
    len(line.get_xdata())
    for axis in picture.axes
    for line in axis.lines
    if line.get_color() == 'tab:blue'
  )
  assert len(picture.axes) == 27
  assert points == 201


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((5,), '5 rooms; there are 4 or 8'),
    ((4, 'papers'), "variant 'papers'; possible: paper, official"),
    ((4, 'paper', 1.5), 'slip 1.5; it is a probability, from 0 to 1'),
  ],
)
def test_what_is_no_world(arguments, message):
  with pytest.raises(UsageError, match=message):
    rooms.make(*arguments)


def test_no_demonstrations():
  with pytest.raises(UsageError, match='0 demonstrations; at least one'):
    rooms.demonstrations(WORLDS[4, 'paper'], jax.random.key(0), 0)
