"""Tasks whose reward comes late, for credit assignment over long delays.

  watch_repair  one decision at the start, its consequences 50 steps later, in
                the noise of everything that happens in between
  trace_back    go out, take the treasure home, and be paid when the day is over
  charge        charge before you discharge; all is accounted for at the end
  line          thirteen places in a row, one of them holds a coin

`watch_repair` is the official demonstration of RUDDER, figure by figure; `line`
is the task of its official tutorial. The code of the paper's own artificial
tasks was never published: `trace_back` and `charge` are our reconstructions of
what they are said to test, and their figures are not the paper's.

A `Task` is a NamedTuple of pure functions of one state. `environment` turns it
into the protocol of `dl_lectures.types`, one step at a time with a key each.
`episodes` plays whole episodes: all random numbers are drawn before the loop,
which on a CPU is what most of the time of small environments goes to.

>>> import jax
>>> task = watch_repair(horizon=10)
>>> batch = episodes(task, jax.random.key(0), uniform_policy, 64)
>>> batch.observation.shape, batch.action.shape, batch.reward.shape
((64, 11, 8), (64, 10), (64, 10))

Sources: Arjona-Medina et al., "RUDDER: Return Decomposition for Delayed
Rewards", NeurIPS 2019; the demonstration github.com/ml-jku/
rudder-demonstration-code and the tutorial github.com/widmi/
rudder-a-practical-tutorial. Slides: deck 002, "RUDDER".
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, Environment, Key, TimeStep, UsageError

# (row [] int32, legal [A] bool, uniform [2]) -> action [] int32
Policy = Callable[[Array, Array, Array], Array]


class Chance(NamedTuple):
  """All that is random in an episode, drawn before it begins.

  Attributes:
    start: [] in [0, 1), how it begins.
    uniform: [T, 2] in [0, 1).
    normal: [T], standard normal.
  """

  start: Array
  uniform: Array
  normal: Array


class Episode(NamedTuple):
  """An episode of T actions, and of T + 1 states: the last one is its end.

  Attributes:
    observation: [T + 1, F] float32.
    row: [T + 1] int32, the states as rows of a table.
    action: [T] int32.
    reward: [T] float32, paid for each action.
    score: [] float32, 1 for an episode without a mistake.
  """

  observation: Array
  row: Array
  action: Array
  reward: Array
  score: Array


class Task(NamedTuple):
  """A task with delayed reward; every function takes ONE state.

  Attributes:
    name: what it is called.
    horizon: T, the number of actions of every episode.
    num_actions: A.
    num_features: F.
    num_rows: the number of states as a table tells them apart.
    best_return: the expected return of the best policy.
    begin: start [] -> state.
    advance: (state, action, Chance of one step) -> (state, reward []).
    observe: state -> [F] float32.
    row: state -> [] int32.
    legal: row -> [A] bool; at least one action is.
    score: (state at the end, first action, return) -> [] float32 in [0, 1].
    rollout: (policy, Chance, uniform [T, 2]) -> Episode.
  """

  name: str
  horizon: int
  num_actions: int
  num_features: int
  num_rows: int
  best_return: float
  begin: Callable[[Array], Any]
  advance: Callable[[Any, Array, Chance], tuple[Any, Array]]
  observe: Callable[[Any], Array]
  row: Callable[[Any], Array]
  legal: Callable[[Any], Array]
  score: Callable[[Any, Array, Array], Array]
  rollout: Callable[[Policy, Chance, Array], Episode]


def draw(task: Task, key: Key, shape: tuple[int, ...]) -> Chance:
  """Draws what is random in many episodes; consumes the key.

  Args:
    task: gives the horizon T.
    key: consumed.
    shape: of the batch, such as (B,).

  Returns:
    start [*shape], uniform [*shape, T, 2], normal [*shape, T].
  """
  start, uniform, normal = jax.random.split(key, 3)
  return Chance(
    jax.random.uniform(start, shape),
    jax.random.uniform(uniform, (*shape, task.horizon, 2)),
    jax.random.normal(normal, (*shape, task.horizon)),
  )


def episodes(task: Task, key: Key, policy: Policy, n: int) -> Episode:
  """Plays n episodes side by side.

  Args:
    task: what is played.
    key: consumed.
    policy: (row [], legal [A], uniform [2]) -> action []; closes over a table.
    n: B, the number of episodes.

  Returns:
    An Episode of [B, ...] arrays.

  >>> import jax
  >>> batch = episodes(charge(4), jax.random.key(0), uniform_policy, 3)
  >>> batch.row.shape
  (3, 5)
  """
  world, own = jax.random.split(key)
  uniform = jax.random.uniform(own, (n, task.horizon, 2))
  play = functools.partial(task.rollout, policy)
  return jax.vmap(play)(draw(task, world, (n,)), uniform)


def environment(task: Task) -> Environment:
  """A task by the protocol of all environments: reset and step, a key each.

  >>> import jax
  >>> env = environment(charge(2))
  >>> state, seen = env.reset(jax.random.key(0))
  >>> for action in (0, 1):  # charge, discharge
  ...   state, seen = env.step(state, action, jax.random.key(1))
  >>> float(seen.reward), float(seen.discount)
  (10.0, 0.0)
  """

  def reset(key: Key) -> tuple[Any, TimeStep]:
    state = task.begin(jax.random.uniform(key))
    return state, TimeStep(task.observe(state), jnp.float32(0), jnp.float32(1))

  def step(state: Any, action: Array, key: Key) -> tuple[Any, TimeStep]:
    one = draw(task._replace(horizon=1), key, ())
    chance = Chance(one.start, one.uniform[0], one.normal[0])
    state, reward = task.advance(state, jnp.asarray(action, jnp.int32), chance)
    discount = jnp.float32(state.time < task.horizon)
    return state, TimeStep(task.observe(state), reward, discount)

  return Environment(reset, step, task.num_actions, (task.num_features,))


def pick(allowed: Array, uniform: Array) -> Array:
  """One of the allowed actions, each as likely as the others.

  Args:
    allowed: [A] bool, at least one.
    uniform: [] in [0, 1).

  >>> import jax.numpy as jnp
  >>> [int(pick(jnp.array([True, False, True]), u)) for u in (0.3, 0.7)]
  [0, 2]
  """
  rank = jnp.cumsum(allowed, dtype=jnp.int32)
  wanted = (uniform * rank[-1]).astype(jnp.int32)
  return jnp.sum(rank <= wanted, dtype=jnp.int32)


def uniform_policy(row: Array, legal: Array, uniform: Array) -> Array:
  """Every legal action is as likely as the others."""
  del row
  return pick(legal, uniform[1])


def greedy_policy(table: Array, epsilon: float | Array) -> Policy:
  """The best action of a table, ties broken at random; sometimes any.

  Args:
    table: [rows, A], the values of the actions.
    epsilon: how often the action is any legal one.
  """

  def policy(row: Array, legal: Array, uniform: Array) -> Array:
    values = jnp.where(legal, table[row], -jnp.inf)
    best = legal & (values >= jnp.max(values))
    explores = uniform[0] < epsilon
    return pick(jnp.where(explores, legal, best), uniform[1])

  return policy


def _rollout(
  task: Task, policy: Policy, chance: Chance, uniform: Array
) -> Episode:
  """Plays an episode step by step."""

  def step(state: Any, noise: tuple[Chance, Array]):
    one, uniform = noise
    row = task.row(state)
    action = policy(row, task.legal(row), uniform)
    after, reward = task.advance(state, action, one)
    return after, (task.observe(state), row, action, reward)

  start = jnp.broadcast_to(chance.start, (task.horizon,))
  steps = (Chance(start, chance.uniform, chance.normal), uniform)
  end, (seen, row, action, reward) = jax.lax.scan(
    step, task.begin(chance.start), steps
  )
  return Episode(
    jnp.concatenate([seen, task.observe(end)[None]]),
    jnp.concatenate([row, task.row(end)[None]]),
    action,
    reward,
    task.score(end, action[0], jnp.sum(reward)),
  )


def _check_horizon(name: str, horizon: int, least: int) -> None:
  if horizon < least:
    raise UsageError(
      f'{name} of {horizon} steps; at least {least} are possible'
    )


# ------------------------------------------------------------- watch repair

BRANDS = 4
PRICE = np.array([18.0, 28.0, 31.0, 59.0], np.float32)
REPAIR_MEAN = np.array([1.0, 4.0, 5.0, 24.5], np.float32)
REPAIR_SD = np.array([2.0, 2.0, 2.0, 1.0], np.float32)
DELIVERY_MEAN = np.array([0.5, 2.5, 4.5, 18.0], np.float32)
DELIVERY_SD = 1.5
EVENT_COST = np.array([0.1, 7.0], np.float32)  # a traffic jam, a flat tyre
EVENTS = np.array([5.0, 2.5], np.float32)  # of a journey, on average


class Watch(NamedTuple):
  """A watch on its way.

  Attributes:
    brand: [] int32, 0 to 3.
    repaired: [] int32, 0 or 1.
    events: [2] int32, traffic jams and flat tyres so far.
    time: [] int32, steps made.
  """

  brand: Array
  repaired: Array
  events: Array
  time: Array


def margins() -> np.ndarray:
  """What repairing a watch of each brand earns on average, [4].

  >>> margins().tolist()
  [-1.5, 3.5, 3.5, -1.5]
  """
  return PRICE - REPAIR_MEAN - DELIVERY_MEAN - np.sum(EVENTS * EVENT_COST)


def watch_repair(horizon: int = 50) -> Task:
  """Is a watch of this brand worth repairing?

  A watch of one of four brands, each as likely, is repaired (action 0) or not
  (action 1) before its journey; after that there is nothing to decide, only to
  wait (1). Repairing costs N(1, 4, 5, 24.5; sd 2, 2, 2, 1). A repaired watch
  is sold at the end for 18, 28, 31, 59, less N(.5, 2.5, 4.5, 18; sd 1.5) for
  delivery, .1 for every traffic jam (chance .1 a step) and 7 for every flat
  tyre (chance .05). So repairing pays off for the brands 1 and 2. A watch that
  is not repaired earns nothing. (The demonstration's text speaks of variances,
  its code takes the same numbers as standard deviations; so do we.)

  A journey costs 18 on average. At horizons other than the published 50 the
  chances are scaled by 50 / horizon, so that it still does, and very nearly
  with the same variance: what is varied is the delay alone.

  Observed: repaired, jams, flat tyres, brand (one of four), time / T.

  Args:
    horizon: T, at least 5.

  Raises:
    UsageError: a horizon of less.
  """
  _check_horizon('watch repair', horizon, 5)
  chances = EVENTS / np.float32(horizon)
  # Counts beyond eight standard deviations share the last row of the table.
  most = np.ceil(EVENTS + 8 * np.sqrt(EVENTS) + 1).clip(max=horizon)
  most = most.astype(np.int32)
  sizes = (horizon + 1, 2, BRANDS, int(most[0]) + 1, int(most[1]) + 1)
  wanted = margins() > 0

  def begin(start: Array) -> Watch:
    brand = (start * BRANDS).astype(jnp.int32)
    return Watch(brand, jnp.int32(0), jnp.zeros(2, jnp.int32), jnp.int32(0))

  def advance(
    state: Watch, action: Array, chance: Chance
  ) -> tuple[Watch, Array]:
    first = state.time == 0
    repaired = jnp.where(first, (action == 0).astype(jnp.int32), state.repaired)
    happens = chance.uniform < chances
    events = state.events + happens.astype(jnp.int32)
    after = Watch(state.brand, repaired, events, state.time + 1)
    reward = first * repair_cost(state.brand, chance.normal)
    last = after.time == horizon
    reward += last * sale(state.brand, events, chance.normal)
    return after, repaired * reward

  def repair_cost(brand: Array, normal: Array) -> Array:
    return (
      -jnp.asarray(REPAIR_MEAN)[brand]
      - normal * (jnp.asarray(REPAIR_SD)[brand])
    )

  def sale(brand: Array, events: Array, normal: Array) -> Array:
    delivery = jnp.asarray(DELIVERY_MEAN)[brand] + DELIVERY_SD * normal
    return jnp.asarray(PRICE)[brand] - delivery - jnp.sum(events * EVENT_COST)

  def observe(state: Watch) -> Array:
    return jnp.concatenate(
      [
        state.repaired[None].astype(jnp.float32),
        state.events.astype(jnp.float32),
        jax.nn.one_hot(state.brand, BRANDS),
        (state.time / horizon)[None],
      ]
    )

  def row(state: Watch) -> Array:
    place = state.time * sizes[1] + state.repaired
    place = place * sizes[2] + state.brand
    for size, count in zip(sizes[3:], state.events, strict=True):
      place = place * size + jnp.minimum(count, size - 1)
    return place

  def legal(row: Array) -> Array:
    # Rows are ordered by time.
    return jnp.stack([row < math.prod(sizes[1:]), jnp.bool_(True)])

  def score(end: Watch, first: Array, total: Array) -> Array:
    del total
    return jnp.float32((first == 0) == jnp.asarray(wanted)[end.brand])

  def rollout(policy: Policy, chance: Chance, uniform: Array) -> Episode:
    # The same as step by step, but all at once: after the first action the
    # states do not depend on what the policy does.
    state = begin(chance.start)
    place = row(state)
    first = policy(place, legal(place), uniform[0])
    repaired = (first == 0).astype(jnp.int32)
    events = jnp.cumsum(chance.uniform < chances[None], axis=0, dtype=jnp.int32)
    after = Watch(
      jnp.broadcast_to(state.brand, (horizon,)),
      jnp.broadcast_to(repaired, (horizon,)),
      events,
      jnp.arange(1, horizon + 1, dtype=jnp.int32),
    )
    states = jax.tree.map(
      lambda a, b: jnp.concatenate([a[None], b]), state, after
    )
    reward = jnp.zeros(horizon)
    reward = reward.at[0].set(repair_cost(state.brand, chance.normal[0]))
    reward = reward.at[-1].set(sale(state.brand, events[-1], chance.normal[-1]))
    action = jnp.ones(horizon, jnp.int32).at[0].set(first)
    reward = repaired * reward
    end = jax.tree.map(lambda x: x[-1], states)
    return Episode(
      jax.vmap(observe)(states),
      jax.vmap(row)(states),
      action,
      reward,
      score(end, first, jnp.sum(reward)),
    )

  return Task(
    name='watch repair',
    horizon=horizon,
    num_actions=2,
    num_features=8,
    num_rows=math.prod(sizes),
    best_return=float(np.maximum(margins(), 0).mean()),
    begin=begin,
    advance=advance,
    observe=observe,
    row=row,
    legal=legal,
    score=score,
    rollout=rollout,
  )


# --------------------------------------------------------------- trace back

TREASURE = 50.0
TOLL, TOLL_CHANCE = 10.0, 0.1
_REACH = 2  # places in each direction
_MOVES = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])  # up, right, down, left


class Walker(NamedTuple):
  """Where a walker is, and what it has.

  Attributes:
    place: [2] int32, x and y, each from -2 to 2.
    stage: [] int32: 0 on the way, 1 with the treasure, 2 back home with it.
    tolls: [] int32, tolls so far.
    time: [] int32.
  """

  place: Array
  stage: Array
  tolls: Array
  time: Array


def trace_back(horizon: int = 12) -> Task:
  """Find the treasure with the first two moves, and trace the way back home.

  A walker moves up, right, down or left (actions 0 to 3) on a board of five by
  five, beginning in its middle; moves that would leave it do nothing. If its
  first two moves are up and then right, it finds a treasure, and if it ever
  comes home with it, it is paid 50: at the end of the day, T steps later,
  less 10 for each toll that was due on the way (chance .1 a step, seen when it
  happens, whatever the walker does). Four moves decide, and all others are the
  delay.

  Our reconstruction. What we know of task (III) of the paper is that early
  moves have to be traced back, that the reward is delayed by 6 to 25 steps,
  and that shaping by potentials fails; its code is not public.

  Observed: x / 2, y / 2, the stage (one of three), tolls, time / T.

  Args:
    horizon: T, at least 4.

  Raises:
    UsageError: a horizon of less.
  """
  _check_horizon('trace back', horizon, 4)
  side = 2 * _REACH + 1
  # The tolls say nothing of what is to be done: a table need not know them.
  sizes = (horizon + 1, 3, side, side)

  def begin(start: Array) -> Walker:
    del start
    return Walker(
      jnp.zeros(2, jnp.int32), jnp.int32(0), jnp.int32(0), jnp.int32(0)
    )

  def advance(
    state: Walker, action: Array, chance: Chance
  ) -> tuple[Walker, Array]:
    place = state.place + jnp.asarray(_MOVES, jnp.int32)[action]
    place = jnp.clip(place, -_REACH, _REACH)
    # (1, 1) is two moves away in two orders; the second move tells which.
    finds = (state.time == 1) & jnp.all(place == 1) & (action == 1)
    home = (state.stage == 1) & jnp.all(place == 0)
    stage = jnp.where(finds, 1, jnp.where(home, 2, state.stage))
    tolls = state.tolls + (chance.uniform[0] < TOLL_CHANCE)
    after = Walker(place, stage, tolls, state.time + 1)
    paid = TREASURE * (stage == 2) - TOLL * tolls
    return after, (after.time == horizon) * paid

  def observe(state: Walker) -> Array:
    return jnp.concatenate(
      [
        state.place / _REACH,
        jax.nn.one_hot(state.stage, 3),
        state.tolls[None].astype(jnp.float32),
        (state.time / horizon)[None],
      ]
    )

  def row(state: Walker) -> Array:
    x, y = state.place + _REACH
    return ((state.time * 3 + state.stage) * side + x) * side + y

  task = Task(
    name='trace back',
    horizon=horizon,
    num_actions=4,
    num_features=7,
    num_rows=math.prod(sizes),
    best_return=TREASURE - TOLL * TOLL_CHANCE * horizon,
    begin=begin,
    advance=advance,
    observe=observe,
    row=row,
    legal=lambda row: jnp.ones(4, bool),
    score=lambda end, first, total: (end.stage == 2).astype(jnp.float32),
    rollout=lambda policy, chance, uniform: _rollout(
      task, policy, chance, uniform
    ),
  )
  return task


# ------------------------------------------------------------------- charge


class Battery(NamedTuple):
  """A battery, and what it will be paid for at the end.

  Attributes:
    charged: [] int32, 0 or 1.
    earned: [] float32, not seen.
    time: [] int32.
  """

  charged: Array
  earned: Array
  time: Array


def charge(horizon: int = 12) -> Task:
  """Charge first, discharge then: the accounts are settled at the end.

  Action 0 charges a battery, which earns nothing, 1 discharges it, which earns
  10 if it was charged and 1 if not. All that was earned in T steps is paid
  with the last one. The best policy takes turns and earns 10 in two steps.

  Our reconstruction of the task called charge-discharge in early versions of
  the paper, whose code is not public.

  Observed: one of discharged and charged, time / T.

  Args:
    horizon: T, at least 1.

  Raises:
    UsageError: a horizon of less.
  """
  _check_horizon('charge', horizon, 1)
  best = 10.0 * (horizon // 2) + horizon % 2

  def begin(start: Array) -> Battery:
    del start
    return Battery(jnp.int32(0), jnp.float32(0), jnp.int32(0))

  def advance(
    state: Battery, action: Array, chance: Chance
  ) -> tuple[Battery, Array]:
    del chance
    gain = jnp.where(state.charged == 1, 10.0, 1.0)
    earned = state.earned + jnp.where(action == 1, gain, 0.0)
    after = Battery((action == 0).astype(jnp.int32), earned, state.time + 1)
    return after, (after.time == horizon) * earned

  def observe(state: Battery) -> Array:
    return jnp.concatenate(
      [jax.nn.one_hot(state.charged, 2), (state.time / horizon)[None]]
    )

  task = Task(
    name='charge',
    horizon=horizon,
    num_actions=2,
    num_features=3,
    num_rows=2 * (horizon + 1),
    best_return=best,
    begin=begin,
    advance=advance,
    observe=observe,
    row=lambda state: 2 * state.time + state.charged,
    legal=lambda row: jnp.ones(2, bool),
    score=lambda end, first, total: total / best,
    rollout=lambda policy, chance, uniform: _rollout(
      task, policy, chance, uniform
    ),
  )
  return task


# --------------------------------------------------------------------- line

_PLACES, _START, _COIN = 13, 6, 8


class Position(NamedTuple):
  """A place on the line, and what was collected.

  Attributes:
    place: [] int32, 0 to 12; 6 is the start, 8 holds the coin.
    coins: [] float32, not seen.
    time: [] int32.
  """

  place: Array
  coins: Array
  time: Array


def line(horizon: int = 50) -> Task:
  """Thirteen places in a row; the visits to one of them are paid at the end.

  The task of the official tutorial: one begins in the middle, goes left
  (action 0) or right (1), and stays where there is no further place. A coin is
  earned for each of the T steps that begins two places right of the start. All
  coins are paid with the last step. The best policy goes to and fro and earns
  (T - 1) // 2 of them.

  Observed: the place, one of thirteen.

  Args:
    horizon: T, at least 3.

  Raises:
    UsageError: a horizon of less.
  """
  _check_horizon('line', horizon, 3)
  best = float((horizon - 1) // 2)

  def begin(start: Array) -> Position:
    del start
    return Position(jnp.int32(_START), jnp.float32(0), jnp.int32(0))

  def advance(
    state: Position, action: Array, chance: Chance
  ) -> tuple[Position, Array]:
    del chance
    coins = state.coins + (state.place == _COIN)
    place = jnp.clip(state.place + 2 * action - 1, 0, _PLACES - 1)
    after = Position(place, coins, state.time + 1)
    return after, (after.time == horizon) * coins

  task = Task(
    name='line',
    horizon=horizon,
    num_actions=2,
    num_features=_PLACES,
    num_rows=_PLACES * (horizon + 1),
    best_return=best,
    begin=begin,
    advance=advance,
    observe=lambda state: jax.nn.one_hot(state.place, _PLACES),
    row=lambda state: _PLACES * state.time + state.place,
    legal=lambda row: jnp.ones(2, bool),
    score=lambda end, first, total: total / best,
    rollout=lambda policy, chance, uniform: _rollout(
      task, policy, chance, uniform
    ),
  )
  return task


TASKS: dict[str, Callable[[int], Task]] = {
  'watch_repair': watch_repair,
  'trace_back': trace_back,
  'charge': charge,
  'line': line,
}


def make(name: str, horizon: int) -> Task:
  """Returns the task of that name and horizon.

  Args:
    name: one of `TASKS`.
    horizon: T, the number of actions of an episode, and so the delay.

  Raises:
    UsageError: no task has this name, or the horizon is too short for it.

  >>> make('charge', 10).best_return
  50.0
  """
  if name not in TASKS:
    raise UsageError(f'unknown task {name!r}; possible: {", ".join(TASKS)}')
  return TASKS[name](horizon)
