"""Four rooms and eight rooms: a reward that comes once, after many doors.

An episode begins in the middle of one of 20 first rooms, and each of them has
its door in another wall. Every door leads into room 2; from there the rooms are
a chain, and the goal is a corner of the last one:

    20 first rooms      room 2        room 3        room 4
     . . . .            . D . .       . D . .       . D . .
     . . . .            . . . .       . . . .       . . . .
     . . @ D  ------>   . . . D  -->  D . . .  -->  . . . .
     . . . .            . . . .       . . . .       . . . G

A step moves to the north, south, west or east. On a door, the step through it
leads to the door of the next room, and the step back through an entry to the
room before (from room 2 to any first room, by chance). With probability `slip`
the step is a random one. The goal pays 3 + 53.32/200 - steps/200 and ends the
episode; after 200 steps it ends with 1. Nothing else is paid, so an agent that
never finds the goal cannot tell a good step from a bad one.

The world is a table, so that a step is a look-up: nothing is drawn here. All
that chance does to a step is one whole number, its `luck`, which whoever steps
makes of a uniform number outside of the loop.

Two variants:
  paper: as meant, every start leads to the goal.
  official: as published. The doors in east walls do not open (their column is
    stored as -1 and looked up as 5), so 4 of the 20 starts cannot be solved;
    the way back from room 2 leads to the first 15 rooms only, if there are
    four; and the entry of room 3 is a wall from inside, if there are eight.

>>> import jax
>>> rooms = make(4)
>>> rooms.next_state.shape, round(attainable(rooms._replace(slip=0.0)), 3)
((393, 4), 3.16)
>>> demos = demonstrations(rooms, jax.random.key(0), 2)
>>> demos.state.shape, bool((demos.reward.sum(1) > 2.5).all())
((2, 201), True)

Source: Patil et al., "Align-RUDDER: Learning From Few Demonstrations by Reward
Redistribution", 2020, section 4, and the environments FourRooms-v0 and
EightRooms-v0 of its code, which this follows where the two differ; slides, deck
002, the bar charts of Align-RUDDER.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, Environment, Key, TimeStep, UsageError

HORIZON = 200
TIMEOUT_RETURN = 1.0
NUM_STARTS = 20
VARIANTS = ('paper', 'official')
BY_CHANCE = -1

_WIDTH = 6
_NORTH, _SOUTH, _WEST, _EAST = range(4)
ACTIONS = 'NSWE'
_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
# Where a wall has its door.
_DOOR = {_NORTH: (0, 3), _SOUTH: (5, 3), _WEST: (3, 0), _EAST: (3, 5)}
# np.random.seed(2), then randint(4) a first room: 0 N, 1 W, 2 E, 3 S.
_FIRST_WALLS = 'NSWNESESNSEWSSWSSSEN'


class Rooms(NamedTuple):
  """A world of C cells as tables: a pytree, as `jit` and `vmap` take them.

  Attributes:
    next_state: [C, 4] int32, the cell that an action leads to; `BY_CHANCE` of
      the one step that leads to any of `back`.
    back: [D] int32, the doors behind the way back from room 2, each as likely.
    position: [C, 3] int32, (row, column, room) of a cell; rooms from 0, the 20
      first ones first.
    starts: [20] int32, the cells where episodes begin.
    goal: the cell where they end.
    slip: probability that a random action replaces the one chosen.
  """

  next_state: np.ndarray
  back: np.ndarray
  position: np.ndarray
  starts: np.ndarray
  goal: int
  slip: float

  @property
  def num_states(self) -> int:
    """C, the number of cells."""
    return len(self.position)


class Episodes(NamedTuple):
  """Episodes of at most T = 200 steps, left-aligned; N of them.

  Attributes:
    state: [N, T + 1] int32, cells; the last one is repeated after the end.
    action: [N, T] int32, as chosen (a slip is not seen); 0 after the end.
    reward: [N, T] float32; 0 after the end.
    mask: [N, T] bool, true for the steps that happened.
  """

  state: Array
  action: Array
  reward: Array
  mask: Array


def make(
  num_rooms: int = 4, variant: str = 'paper', slip: float = 0.01
) -> Rooms:
  """Returns the rooms as tables.

  Args:
    num_rooms: 4 or 8, rooms on the way from a start to the goal.
    variant: 'paper' or 'official'; the module tells what differs.
    slip: probability of a random action; published were 1% to 40%.

  Raises:
    UsageError: no such number, variant or probability.

  Example:

  >>> make(8).num_states
  465
  """
  if num_rooms not in (4, 8):
    raise UsageError(f'{num_rooms} rooms; there are 4 or 8')
  if variant not in VARIANTS:
    raise UsageError(f'variant {variant!r}; possible: {", ".join(VARIANTS)}')
  if not 0 <= slip <= 1:
    raise UsageError(f'slip {slip}; it is a probability, from 0 to 1')
  official = variant == 'official'
  walls, links = _doors(num_rooms, official)
  cells = [
    (row, column, room)
    for room, doors in enumerate(walls)
    for row in range(_WIDTH)
    for column in range(_WIDTH)
    if (0 < row < _WIDTH - 1 and 0 < column < _WIDTH - 1)
    or (row, column) in {_DOOR[wall] for wall in doors}
  ]
  number = {cell: i for i, cell in enumerate(cells)}
  next_state = np.zeros((len(cells), 4), np.int32)
  back = np.zeros(0, np.int32)
  for i, (row, column, room) in enumerate(cells):
    for action, (down, right) in enumerate(_MOVES):
      beside = number.get((row + down, column + right, room), i)
      to = [beside]
      if (row, column) == _DOOR[action] and (room, action) in links:
        to = [
          number.get((*_DOOR[wall], there), i)
          for there, wall in links[room, action]
        ]
      next_state[i, action] = to[0]
      if len(to) > 1:
        next_state[i, action] = BY_CHANCE
        back = np.array(to, np.int32)
  return Rooms(
    next_state,
    back,
    np.array(cells, np.int32),
    np.array([number[3, 3, room] for room in range(NUM_STARTS)], np.int32),
    number[4, 4, len(walls) - 1],
    slip,
  )


def _doors(
  num_rooms: int, official: bool
) -> tuple[list[list[int]], dict[tuple[int, int], list[tuple[int, int]]]]:
  """The walls with a door of each room, and where the doors lead.

  A link is (room, wall) -> the (room, wall) of the doors behind it.
  """
  first = [ACTIONS.index(wall) for wall in _FIRST_WALLS]
  walls = [[wall] for wall in first]
  links = {}
  second = NUM_STARTS
  for room, wall in enumerate(first):
    if not (official and wall == _EAST):
      links[room, wall] = [(second, _NORTH)]
  back = NUM_STARTS - 5 if official and num_rooms == 4 else NUM_STARTS
  links[second, _NORTH] = [(room, first[room]) for room in range(back)]
  last = second + num_rooms - 2
  for room in range(second, last):
    out = (_EAST, _WEST)[(room - second) % 2]
    walls.append([_NORTH, out])
    links[room, out] = [(room + 1, _NORTH)]
    links[room + 1, _NORTH] = [(room, out)]
  walls.append([_NORTH])
  if official and num_rooms == 8:
    del links[second + 1, _NORTH]
  return walls, links


def goal_return(steps: Any) -> Any:
  """What the goal pays when it is reached with step number `steps`.

  >>> float(goal_return(np.float64(20)))
  3.1666
  """
  return 3 + 53.32 / HORIZON - steps / HORIZON


def reward(rooms: Rooms, next_state: Array, steps: Array) -> Array:
  """What a step pays: float32 of the arguments' shape.

  Args:
    rooms: the world.
    next_state: int32, the cell that it led to.
    steps: int32, the number of steps with this one, from 1.
  """
  at_goal = next_state == rooms.goal
  late = jnp.where(steps >= HORIZON, TIMEOUT_RETURN, 0.0)
  steps = jnp.asarray(steps, jnp.float32)
  return jnp.where(at_goal, goal_return(steps), late)


def split(uniform: Array, probability: float | Array) -> tuple[Array, Array]:
  """Whether something happens, and a number that does not know of it.

  One number of 23 bits is enough for several rare things in turn.

  Args:
    uniform: float32 from [0, 1).
    probability: of what may happen.

  Returns:
    bool, and float32 from [0, 1), uniform whether or not it happens.

  >>> happens, rest = split(jnp.array([0.125, 0.5]), 0.25)
  >>> happens.tolist(), [f"{x:.3f}" for x in rest]
  ([True, False], ['0.500', '0.333'])
  """
  happens = uniform < probability
  inside = uniform / jnp.maximum(probability, 1e-9)
  beyond = (uniform - probability) / jnp.maximum(1 - probability, 1e-9)
  return happens, jnp.where(happens, inside, beyond)


def pick(uniform: Array, count: int) -> tuple[Array, Array]:
  """One of so many, each as likely, and a number that does not know which.

  Args:
    uniform: float32 from [0, 1).
    count: how many there are.

  Returns:
    int32 from [0, count), and float32 from [0, 1).

  >>> which, rest = pick(jnp.float32(0.8125), 4)
  >>> int(which), float(rest)
  (3, 0.25)
  """
  # Rounding may have made a 1 of a number just below.
  which = jnp.minimum(jnp.int32(uniform * count), count - 1)
  return which, uniform * count - which


def luck(rooms: Rooms, uniform: Array) -> Array:
  """What chance does to a step, as one whole number: int32.

  Its lowest three bits are the action of a slip plus one, or 0; the others are
  the cell that the way back from room 2 leads to. It is below 2^13.

  Args:
    rooms: the world.
    uniform: float32 from [0, 1).
  """
  slips, rest = split(uniform, rooms.slip)
  action, after_slip = pick(rest, 4)
  door, _ = pick(jnp.where(slips, after_slip, rest), len(rooms.back))
  slipped = jnp.where(slips, action + 1, 0)
  return slipped | jnp.asarray(rooms.back)[door] << 3


def step(rooms: Rooms, state: Array, action: Array, luck: Array) -> Array:
  """Returns the cell after a step; any leading axes, the same in all.

  Args:
    rooms: the world.
    state: int32, the cell.
    action: int32, 0 north, 1 south, 2 west, 3 east.
    luck: int32, of `luck`.

  Example:

  >>> rooms = make(4)
  >>> state = step(rooms, jnp.int32(rooms.starts[0]), 3, luck(rooms, 0.5))
  >>> rooms.position[state].tolist()
  [3, 4, 0]
  """
  slipped = luck & 7
  moved = jnp.where(slipped > 0, slipped - 1, action)
  # Always within the table: not to check it saves a tenth of a step.
  after = (
    jnp.asarray(rooms.next_state)
    .reshape(-1)
    .at[state * 4 + moved]
    .get(mode='promise_in_bounds', wrap_negative_indices=False)
  )
  return jnp.where(after == BY_CHANCE, luck >> 3, after)


def optimal(rooms: Rooms) -> tuple[np.ndarray, np.ndarray]:
  """Exact values of acting best, by dynamic programming backwards in time.

  What is paid depends on the time, so values do: there is one for every cell
  and number of steps made.

  Args:
    rooms: the world.

  Returns:
    values [201, C], of standing in a cell after that many steps (the last row
    is what a time-out pays), and actions [200, C], the best ones, the first of
    equals.

  Example:

  >>> rooms = make(4, slip=0.0)
  >>> values, _ = optimal(rooms)
  >>> round(float(values[0, rooms.starts[0]]), 4)  # 22 steps
  3.1566
  """
  values = np.full((HORIZON + 1, rooms.num_states), TIMEOUT_RETURN)
  actions = np.zeros((HORIZON, rooms.num_states), np.int32)
  by_chance = rooms.next_state == BY_CHANCE
  for t in reversed(range(HORIZON)):
    after = values[t + 1].copy()
    after[rooms.goal] = goal_return(np.float64(t + 1))
    q = after[rooms.next_state]
    q[by_chance] = after[rooms.back].mean()
    q = (1 - rooms.slip) * q + rooms.slip * q.mean(-1, keepdims=True)
    # Sums in another order must not decide between equals.
    actions[t] = np.argmax(np.round(q, 9), -1)
    values[t] = q.max(-1)
  return values, actions


def attainable(rooms: Rooms) -> float:
  """The mean return of acting best, over the 20 starts.

  >>> round(attainable(make(8, 'official', slip=0.0)), 3)
  2.624
  """
  return float(optimal(rooms)[0][0, rooms.starts].mean())


def demonstrations(
  rooms: Rooms, key: Key, count: int, noise: float = 0.2
) -> Episodes:
  """Episodes of a noisy optimal policy that reached the goal.

  The published demonstrations were about a quarter longer than the shortest
  way; a random action in every fifth step gives the same (27.6 steps of mean
  length in four rooms, where 22 are needed).

  Args:
    rooms: the world.
    key: consumed.
    count: N, how many.
    noise: probability of a random action, other than by slipping.

  Raises:
    UsageError: none was asked for.

  Example:

  >>> rooms = make(4)
  >>> demos = demonstrations(rooms, jax.random.key(0), 3)
  >>> last = np.take_along_axis(demos.state, demos.mask.sum(1)[:, None], 1)
  >>> bool((last == rooms.goal).all())
  True
  """
  if count < 1:
    raise UsageError(f'{count} demonstrations; at least one is needed')
  _, actions = optimal(rooms)
  policy = np.eye(4)[actions[0]]
  found: list[Episodes] = []
  while sum(len(part.state) for part in found) < count:
    key, part_key = jax.random.split(key)
    # More than enough at once, and the same number for few and many.
    part = play(rooms, policy, part_key, 2 * max(count, 16), noise)
    part = jax.tree.map(np.asarray, part)
    solved = part.state[:, -1] == rooms.goal
    found.append(jax.tree.map(lambda x, keep=solved: x[keep], part))
  return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)


def play(
  rooms: Rooms, policy: np.ndarray, key: Key, count: int, noise: float = 0.0
) -> Episodes:
  """Plays episodes by a fixed policy, many side by side.

  Args:
    rooms: the world.
    policy: [C, 4], probabilities of the actions.
    key: consumed.
    count: N, episodes.
    noise: probability that a random action replaces the policy's.

  Example:

  >>> at_random = np.full((393, 4), 0.25)
  >>> play(make(4), at_random, jax.random.key(0), 5).reward.shape
  (5, 200)
  """
  limits = np.cumsum((1 - noise) * policy + noise / 4, -1)
  return _play(rooms, jnp.asarray(limits[:, :3], jnp.float32), key, count)


@functools.partial(jax.jit, static_argnums=3)
def _play(rooms: Rooms, limits: Array, key: Key, count: int) -> Episodes:
  """Plays N episodes; `limits` [C, 3] are where one action ends in [0, 1)."""
  start_key, step_key = jax.random.split(key)
  start = jax.random.choice(start_key, jnp.asarray(rooms.starts), (count,))
  choices, lucks = jax.random.uniform(step_key, (2, HORIZON, count))

  def move(carry: tuple[Array, Array], x: tuple[Array, ...]) -> Any:
    state, over = carry
    t, choice, chance = x
    action = (choice[:, None] >= limits[state]).sum(-1)
    action = jnp.where(over, 0, action)
    after = jnp.where(over, state, step(rooms, state, action, chance))
    paid = jnp.where(over, 0.0, reward(rooms, after, t + 1))
    carry = after, over | (after == rooms.goal)
    return carry, (after, action, paid, ~over)

  carry = start, jnp.zeros(count, bool)
  steps = jnp.arange(HORIZON), choices, luck(rooms, lucks)
  _, (state, action, paid, mask) = jax.lax.scan(move, carry, steps)
  state = jnp.concatenate([start[None], state])
  return Episodes(state.T, action.T, paid.T, mask.T)


def features(rooms: Rooms) -> np.ndarray:
  """What a network sees of each cell: [C, 12 + R] float32, R rooms in all.

  Row, column and room, each one-hot.
  """
  row, column, room = np.asarray(rooms.position).T
  count = room.max() + 1
  parts = (np.eye(_WIDTH)[row], np.eye(_WIDTH)[column], np.eye(count)[room])
  return np.concatenate(parts, -1).astype(np.float32)


class State(NamedTuple):
  """Where an episode of `environment` stands.

  Attributes:
    cell: [] int32.
    steps: [] int32, the number of steps made.
  """

  cell: Array
  steps: Array


def environment(rooms: Rooms) -> Environment:
  """The rooms as any other environment; observed is a row of `features`.

  A tabular learner takes the tables instead: they are an order of magnitude
  faster, because `step` here splits a key.

  Example:

  >>> env = environment(make(4))
  >>> state, time_step = env.reset(jax.random.key(0))
  >>> state, time_step = env.step(state, 0, jax.random.key(1))
  >>> env.num_actions, time_step.observation.shape, float(time_step.discount)
  (4, (35,), 1.0)
  """
  table = jnp.asarray(features(rooms))

  def reset(key: Key) -> tuple[State, TimeStep]:
    cell = jax.random.choice(key, jnp.asarray(rooms.starts))
    start = TimeStep(table[cell], jnp.float32(0), jnp.float32(1))
    return State(cell, jnp.int32(0)), start

  def step_by_key(
    state: State, action: Array, key: Key
  ) -> tuple[State, TimeStep]:
    chance = luck(rooms, jax.random.uniform(key))
    cell = step(rooms, state.cell, action, chance)
    steps = state.steps + 1
    over = (cell == rooms.goal) | (steps >= HORIZON)
    time_step = TimeStep(
      observation=table[cell],
      reward=reward(rooms, cell, steps),
      discount=jnp.where(over, 0.0, 1.0),
    )
    return State(cell, steps), time_step

  return Environment(reset, step_by_key, 4, table.shape[1:])


def draw(rooms: Rooms, path: Sequence[int] | Array = ()) -> Any:
  """Draws the first rooms above and the chain below, with a path in it.

  Args:
    rooms: the world.
    path: cells one after another, such as a row of `Episodes.state`.

  Returns:
    A matplotlib figure.

  Example:

  >>> rooms = make(4)
  >>> demos = demonstrations(rooms, jax.random.key(0), 1)
  >>> len(draw(rooms, demos.state[0]).axes)
  23
  """
  from matplotlib import figure

  count = int(rooms.position[-1, 2]) + 1
  chain = count - NUM_STARTS
  drawn = figure.Figure(figsize=(10, 4.4), layout='constrained')
  halves: Any = drawn.subfigures(2, 1, height_ratios=(2, 1.6))
  above, below = halves
  axes = [
    *above.subplots(2, NUM_STARTS // 2).flat,
    *np.ravel(below.subplots(1, chain)),
  ]
  path_cells = rooms.position[np.asarray(path, int)]
  for room, axis in enumerate(axes):
    inside = rooms.position[rooms.position[:, 2] == room]
    plan = np.zeros((_WIDTH, _WIDTH))
    plan[inside[:, 0], inside[:, 1]] = 1
    axis.imshow(plan, cmap='gray', vmin=-0.6, vmax=1)
    axis.set(xticks=[], yticks=[])
    if room < NUM_STARTS:
      axis.plot(3, 3, 'o', color='tab:gray', markersize=3)
    else:
      axis.set_title(f'room {room - NUM_STARTS + 2}', fontsize=8)
    here = path_cells[path_cells[:, 2] == room]
    axis.plot(here[:, 1], here[:, 0], '-o', color='tab:blue', markersize=2.5)
  row, column, _ = rooms.position[rooms.goal]
  axes[-1].plot(column, row, '*', color='tab:orange', markersize=14)
  return drawn
