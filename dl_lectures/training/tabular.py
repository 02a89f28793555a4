"""One tabular learner for every way of giving credit; methods are functions.

    block of 10 episodes -> evaluation -> bar reached? -> fresh confirmation
         ^                                   | no
         +-----------------------------------+

All methods act, are evaluated and are stopped by the same code. What makes one
different is a `Method`: its table to begin with, what it sees beside the cell,
whether it learns within the episode, and what it learns after it.

**Credit.** What is learnt after an episode is told by a function

    credit(states [T + 1], actions [T], rewards [T], mask [T]) -> rewards [T]

of one episode, left-aligned: `states` int32 cells, the last one repeated after
the end; `actions` int32; `rewards` float32 as paid; `mask` bool, true for the
steps that happened. It returns what each step is to be paid instead, float32;
what it says of steps that did not happen counts for nothing. It is jittable and
unbatched. A causal one gives to step t what follows from the steps up to t (a
correction at the last step is what makes it return-equivalent). It may close
over arrays, also over traced ones: a profile, the weights of a network.

**History.** The table is [states, codes, actions]. The code is what the agent
remembers of the episode, kept by

    history(code [], next_state []) -> code []

It starts with history(0, first state), and `no_history` keeps 0. `visited`
makes one of it that remembers which events have happened.

Everything is jittable, and a NamedTuple of arrays and functions goes into
`jax.jit` by closure, so that runs with other profiles compile once:

>>> from dl_lectures.envs import rooms
>>> world = rooms.make(4)
>>> demos = rooms.demonstrations(world, jax.random.key(0), 20)
>>> protocol = Protocol(max_episodes=20)
>>> @jax.jit
... def run(demos, key):
...   table = random_table(key, world.num_states)
...   method = Method(clone(table, demos))
...   return learn(world, method, 0.1, key, 2.5, protocol)
>>> outcome = run(demos, jax.random.key(1))
>>> outcome.table.shape, outcome.returns.shape
((393, 1, 4), (2,))

Sources: Watkins, "Learning from Delayed Rewards", 1989, for Q-learning; Patil
et al., "Align-RUDDER", 2020, section 4, for the protocol (blocks of 10
episodes, exploration 0.2, evaluation at 0.1), with one bar for all methods and
the confirmation added here; Hester et al., "Deep Q-learning from
Demonstrations", 2018, equations 1-4, for `replay`; Ng et al., "Policy
invariance under reward transformations", 1999, for `shaping`.
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.envs.rooms import HORIZON, Episodes, Rooms
from dl_lectures.types import Array, Key

# (states [T + 1], actions [T], rewards [T], mask [T]) -> rewards [T]
Credit = Callable[[Array, Array, Array, Array], Array]
# (code [], next_state []) -> code []
History = Callable[[Array, Array], Array]


class Episode(NamedTuple):
  """One episode with what was remembered of it; T = 200 steps.

  Attributes:
    state: [T + 1] int32; the last one is repeated after the end.
    code: [T + 1] int32, the history's code at each state.
    action: [T] int32.
    reward: [T] float32, as paid.
    mask: [T] bool, true for the steps that happened.
  """

  state: Array
  code: Array
  action: Array
  reward: Array
  mask: Array


# (table [S, H, A], episode, learning rate, key) -> table
After = Callable[[Array, Episode, Array | float, Key], Array]


def no_history(code: Array, next_state: Array) -> Array:
  """Remembers nothing: the code stays what it is."""
  del next_state
  return code


class Method(NamedTuple):
  """What makes one method differ from another.

  Attributes:
    table: [S, H, A] float32, the action values to begin with: S cells, H
      codes of the history.
    history: what is remembered within an episode; its codes are below H.
    online: whether it learns within the episode, by Q-learning on the rewards
      as they are paid.
    potential: [S, H] float32, if given what `online` adds to the rewards:
      phi(next) - phi(now), with 0 at the end of the episode.
    after: what it learns after an episode.
  """

  table: Array
  history: History = no_history
  online: bool = True
  potential: Array | None = None
  after: After | None = None


class Protocol(NamedTuple):
  """What is the same for all methods: plain numbers.

  Attributes:
    block: episodes between evaluations.
    num_evaluations: episodes of an evaluation.
    num_confirmations: fresh episodes once the bar is reached, whose mean must
      reach it too; 0: the first crossing counts.
    max_episodes: the cap; a multiple of `block`.
    epsilon: probability of a random action while learning.
    evaluation_epsilon: the same in evaluations.
  """

  block: int = 10
  num_evaluations: int = 40
  num_confirmations: int = 100
  max_episodes: int = 10_000
  epsilon: float = 0.2
  evaluation_epsilon: float = 0.1


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    episodes: [] int32, episodes played until the bar was reached and
      confirmed; the cap if it never was.
    solved: [] bool, whether it was.
    returns: [max_episodes // block] float32, the mean return of each
      evaluation; NaN after the end.
    table: [S, H, A], the action values at the end.
  """

  episodes: Array
  solved: Array
  returns: Array
  table: Array


def one_kernel_a_loop() -> None:
  """Asks XLA:CPU for loops of small steps as one kernel each, for this process.

  By default only loops that touch less than a kilobyte a step are; others pay
  for starting kernels, which is most of the time here: the alignment of an
  episode takes ten times as long. To be called before jax has computed
  anything; later it does nothing. Where XLA_FLAGS say something of the kind
  already, they are left.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if 'xla_backend_extra_options' not in flags:
    wanted = 'xla_cpu_small_while_loop_byte_threshold=16384'
    os.environ['XLA_FLAGS'] = (
      f'{flags} --xla_backend_extra_options={wanted}'.strip()
    )


def learn(
  rooms: Rooms,
  method: Method,
  learning_rate: Array | float,
  key: Key,
  bar: Array | float,
  protocol: Protocol,
  max_episodes: Array | int | None = None,
) -> Outcome:
  """Learns until the bar, or the cap; to be jitted, and vmapped over seeds.

  Under `vmap` what has finished stays as it is until the last one ends. On a
  CPU one seed at a time is as fast and wastes nothing.

  Args:
    rooms: the world.
    method: what to learn how.
    learning_rate: of all of the method's updates.
    key: consumed.
    bar: the mean return to be reached.
    protocol: how to measure it.
    max_episodes: a lower cap than the protocol's; it may be traced.

  Returns:
    The outcome.

  The module's docstring has an example.
  """
  num_blocks = protocol.max_episodes // protocol.block
  cap = protocol.max_episodes if max_episodes is None else max_episodes

  def unfinished(carry: Any) -> Array:
    block, _, solved, _ = carry
    return (block < num_blocks) & (block * protocol.block < cap) & ~solved

  def play_block(carry: Any) -> Any:
    block, table, _, returns = carry
    keys = jax.random.split(jax.random.fold_in(key, block), 3)
    table = _learn_block(rooms, method, table, learning_rate, keys[0], protocol)
    mean = evaluate(
      rooms,
      method,
      table,
      keys[1],
      protocol.num_evaluations,
      protocol.evaluation_epsilon,
    )
    solved = mean >= bar
    if protocol.num_confirmations:
      solved &= bar <= evaluate(
        rooms,
        method,
        table,
        keys[2],
        protocol.num_confirmations,
        protocol.evaluation_epsilon,
        needed=solved,
      )
    return block + 1, table, solved, returns.at[block].set(mean)

  block, table, solved, returns = jax.lax.while_loop(
    unfinished,
    play_block,
    (
      jnp.int32(0),
      method.table,
      jnp.bool_(False),
      jnp.full(num_blocks, jnp.nan),
    ),
  )
  return Outcome(block * protocol.block, solved, returns, table)


def evaluate(
  rooms: Rooms,
  method: Method,
  table: Array,
  key: Key,
  count: int,
  epsilon: float,
  needed: Array | bool = True,
) -> Array:
  """The mean return of acting by a table, with some exploration: [] float32.

  Args:
    rooms: the world.
    method: for its history.
    table: [S, H, A], action values.
    key: consumed.
    count: episodes.
    epsilon: probability of a random action.
    needed: where false, 0 is returned, and next to no time is spent.

  Example:

  >>> world = rooms_lib.make(4)
  >>> table = jnp.zeros((393, 1, 4))
  >>> mean = evaluate(world, Method(table), table, jax.random.key(0), 5, 0.1)
  >>> float(mean)  # all go north and run out of time
  1.0
  """
  rows = table.reshape(-1, table.shape[-1])
  codes = table.shape[1]
  remember = jax.vmap(method.history)

  def draw() -> tuple[Array, Array]:
    start_key, step_key = jax.random.split(key)
    start = jax.random.choice(start_key, jnp.asarray(rooms.starts), (count,))
    return start, chances(rooms, step_key, (HORIZON, count), epsilon)

  def skip() -> tuple[Array, Array]:
    nothing = jnp.zeros((HORIZON, count), jnp.int32)
    return jnp.zeros(count, rooms.starts.dtype), nothing

  start, chance = jax.lax.cond(needed, draw, skip)

  def move(carry: Any) -> Any:
    t, state, code, over, total = carry
    row = state * codes + code
    explored, luck = chance[t] & 7, chance[t] >> 3
    _, best = _best([_at(rows, row, a) for a in range(rows.shape[1])])
    action = jnp.where(explored > 0, explored - 1, best)
    after = rooms_lib.step(rooms, state, action, luck)
    paid = rooms_lib.reward(rooms, after, t + 1)
    total = total + jnp.where(over, 0.0, paid)
    over |= (after == rooms.goal) | (t + 1 >= HORIZON)
    return t + 1, after, remember(code, after), over, total

  zeros = jnp.zeros(count, jnp.int32)
  *_, total = jax.lax.while_loop(
    lambda carry: ~carry[3].all(),
    move,
    (
      jnp.int32(0),
      start,
      remember(zeros, start),
      jnp.broadcast_to(~jnp.asarray(needed), (count,)),
      jnp.zeros(count),
    ),
  )
  return total.mean()


def chances(
  rooms: Rooms, key: Key, shape: tuple[int, ...], epsilon: float
) -> Array:
  """All that is random in steps, a whole number each: int32 of the shape.

  The lowest three bits are the exploratory action plus one, or 0; the others
  are `rooms.luck`. Unpacked they would be more to load than a step has to do.

  Args:
    rooms: the world.
    key: consumed.
    shape: of the steps.
    epsilon: probability of a random action.
  """
  # In one row: four times as fast as with a short last axis.
  uniform = jax.random.uniform(key, (math.prod(shape),))
  explores, rest = rooms_lib.split(uniform, epsilon)
  action, after_action = rooms_lib.pick(rest, 4)
  luck = rooms_lib.luck(rooms, jnp.where(explores, after_action, rest))
  return (jnp.where(explores, action + 1, 0) | luck << 3).reshape(shape)


def _at(table: Array, *index: Array | int) -> Array:
  """An entry that is there: what need not be checked costs nothing."""
  return table.at[index].get(
    mode='promise_in_bounds', wrap_negative_indices=False
  )


def _best(values: Sequence[Array]) -> tuple[Array, Array]:
  """The highest of some values, and its number, the first of equals.

  By twos: XLA's argmax is a loop of its own in the loop over the steps.
  """
  found = [(value, jnp.int32(i)) for i, value in enumerate(values)]
  while len(found) > 1:
    pairs = zip(found[::2], found[1::2], strict=False)
    joined = [
      (jnp.where(b > a, b, a), jnp.where(b > a, j, i))
      for (a, i), (b, j) in pairs
    ]
    found = joined + found[2 * len(joined) :]
  return found[0]


def _learn_block(
  rooms: Rooms,
  method: Method,
  table: Array,
  learning_rate: Array | float,
  key: Key,
  protocol: Protocol,
) -> Array:
  start_key, step_key, after_key = jax.random.split(key, 3)
  starts = jax.random.choice(
    start_key, jnp.asarray(rooms.starts), (protocol.block,)
  )
  steps = protocol.block, HORIZON
  drawn = chances(rooms, step_key, steps, protocol.epsilon)
  after_keys = jax.random.split(after_key, protocol.block)

  def play(table: Array, x: tuple[Array, Array, Key]) -> tuple[Array, None]:
    start, chance, after_key = x
    table, episode = _play(rooms, method, table, learning_rate, start, chance)
    if method.after is not None:
      table = method.after(table, episode, learning_rate, after_key)
    return table, None

  return jax.lax.scan(play, table, (starts, drawn, after_keys))[0]


def _play(
  rooms: Rooms,
  method: Method,
  table: Array,
  learning_rate: Array | float,
  start: Array,
  chance: Array,
) -> tuple[Array, Episode]:
  """Plays one episode, and learns within it if the method does."""
  shape = table.shape
  codes, num_actions = shape[1:]

  def values_of(rows: Array, row: Array) -> list[Array]:
    return [_at(rows, row, a) for a in range(num_actions)]

  def move(carry: Any, x: tuple[Array, Array]) -> Any:
    rows, state, code, over = carry
    t, chance = x
    explored, luck = chance & 7, chance >> 3
    row = state * codes + code
    values = values_of(rows, row)
    action = jnp.where(explored > 0, explored - 1, _best(values)[1])
    after = rooms_lib.step(rooms, state, action, luck)
    after = jnp.where(over, state, after)
    after_code = jnp.where(over, code, method.history(code, after))
    paid = rooms_lib.reward(rooms, after, t + 1)
    ends = (after == rooms.goal) | (t + 1 >= HORIZON)
    if method.online:
      target = paid
      if method.potential is not None:
        later = jnp.where(ends, 0.0, method.potential[after, after_code])
        target += later - method.potential[state, code]
      best, _ = _best(values_of(rows, after * codes + after_code))
      target += jnp.where(ends, 0.0, best)
      old = functools.reduce(
        lambda found, a: jnp.where(action == a, values[a], found),
        range(1, num_actions),
        values[0],
      )
      new = jnp.where(over, old, old + learning_rate * (target - old))
      rows = rows.at[row, action].set(
        new, mode='promise_in_bounds', wrap_negative_indices=False
      )
    seen = after, after_code, action, paid, ~over
    return (rows, after, after_code, over | ends), seen

  code = method.history(jnp.int32(0), start)
  (rows, *_), (state, codes_seen, action, paid, mask) = jax.lax.scan(
    move,
    (table.reshape(-1, shape[-1]), start, code, jnp.bool_(False)),
    (jnp.arange(HORIZON), chance),
  )
  episode = Episode(
    jnp.concatenate([start[None], state]),
    jnp.concatenate([code[None], codes_seen]),
    action,
    jnp.where(mask, paid, 0.0),
    mask,
  )
  return rows.reshape(shape), episode


def random_table(key: Key, num_states: int, num_codes: int = 1) -> Array:
  """Action values to begin with, N(1, 0.5): [num_states, num_codes, 4].

  The same for every code of the history, as published: what is new about a
  history is learnt, not drawn.
  """
  drawn = 1 + 0.5 * jax.random.normal(key, (num_states, 1, 4))
  return jnp.repeat(drawn, num_codes, axis=1)


def clone(table: Array, demos: Episodes) -> Array:
  """Writes demonstrations into a table.

  Where a demonstration was in a cell, each action taken there gets its mean
  return from then on, times how often it was the one taken. Other entries, and
  all differences between histories, are left.

  Args:
    table: [S, H, A], action values.
    demos: N episodes.

  Returns:
    [S, H, A].

  Example, of one step that paid 3:

  >>> demo = Episodes(jnp.array([[0, 1]]), jnp.array([[2]]),
  ...                 jnp.array([[3.0]]), jnp.array([[True]]))
  >>> clone(jnp.ones((2, 1, 4)), demo)[:, 0].tolist()
  [[1.0, 1.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
  """
  num_states, _, num_actions = table.shape
  value = jnp.cumsum(demos.reward[:, ::-1], 1)[:, ::-1]
  entry = demos.state[:, :-1] * num_actions + demos.action
  count, total = (
    jax.ops.segment_sum(
      jnp.where(demos.mask, x, 0.0).ravel(),
      entry.ravel(),
      num_states * num_actions,
    ).reshape(num_states, 1, num_actions)
    for x in (1.0, value)
  )
  # Mean times frequency: the action's own count cancels.
  cloned = total / jnp.maximum(count.sum(-1, keepdims=True), 1)
  return jnp.where(count > 0, cloned, table)


def clone_credit(
  table: Array, demos: Episodes, credit: Credit, num_steps: int
) -> Array:
  """The same in the unit of what `redistributed` learns without bootstrap.

  Each action that was shown gets its mean sum of the next rewards,
  redistributed, times how often it was the one shown.

  Args:
    table: [S, H, A], action values.
    demos: N episodes.
    credit: the redistribution.
    num_steps: n, the steps whose rewards are summed.

  Returns:
    [S, H, A].

  Example, of two steps, of which the second paid 3:

  >>> demo = Episodes(jnp.array([[0, 1, 2]]), jnp.array([[2, 2]]),
  ...                 jnp.array([[0.0, 3.0]]), jnp.array([[True, True]]))
  >>> table = clone_credit(jnp.zeros((3, 1, 4)), demo, uniform_credit, 1)
  >>> table[:, 0, 2].tolist()
  [1.5, 1.5, 0.0]
  """
  paid = jax.vmap(credit)(*demos)
  steps = paid.shape[1]
  total = jnp.pad(jnp.cumsum(paid, axis=1), ((0, 0), (1, 0)))
  later = jnp.minimum(jnp.arange(steps + 1) + num_steps, steps)
  ahead = total[:, later] - total
  # `clone` sums to the end: it gets the rewards that sum to this.
  return clone(table, demos._replace(reward=-jnp.diff(ahead, axis=1)))


def progress(demos: Episodes, num_states: int) -> Array:
  """A potential from demonstrations, for shaping: [S, 1] float32.

  How far the demonstrations were, on average, when they were in a cell, as a
  share of their mean return; 0 where they never were.

  Args:
    demos: N episodes.
    num_states: S.

  Example, of two steps that paid 3:

  >>> demo = Episodes(jnp.array([[0, 1, 2]]), jnp.array([[2, 2]]),
  ...                 jnp.array([[0.0, 3.0]]), jnp.array([[True, True]]))
  >>> progress(demo, 4).ravel().tolist()
  [0.0, 1.5, 0.0, 0.0]
  """
  steps = jnp.arange(demos.mask.shape[1])
  share = steps[None] / demos.mask.sum(1, keepdims=True)
  count, total = (
    jax.ops.segment_sum(
      jnp.where(demos.mask, x, 0.0).ravel(),
      demos.state[:, :-1].ravel(),
      num_states,
    )
    for x in (1.0, share)
  )
  mean_return = demos.reward.sum(1).mean()
  return (mean_return * total / jnp.maximum(count, 1))[:, None]


def visited(event: Array, num_events: int) -> tuple[History, int]:
  """A history that remembers the set of events that have happened.

  Args:
    event: [S] int32, the event that a cell stands for; below 0, or from
      `num_events` on, none that is remembered.
    num_events: K; the table grows with 2^K.

  Returns:
    The history, and its number of codes, 2^K.

  Example:

  >>> history, codes = visited(jnp.array([-1, 0, 1]), 2)
  >>> codes, int(history(history(0, 2), 0))
  (4, 2)
  """

  def history(code: Array, next_state: Array) -> Array:
    bit = jnp.asarray(event)[next_state]
    counts = (bit >= 0) & (bit < num_events)
    return jnp.where(counts, code | 1 << jnp.clip(bit, 0), code)

  return history, 2**num_events


def uniform_credit(
  states: Array, actions: Array, rewards: Array, mask: Array
) -> Array:
  """The return in equal parts for all steps that happened: a `Credit`.

  >>> uniform_credit(jnp.zeros(4), jnp.zeros(3), jnp.array([0., 4., 9.]),
  ...                jnp.array([True, True, False])).tolist()
  [2.0, 2.0, 0.0]
  """
  del states, actions
  total = jnp.where(mask, rewards, 0.0).sum()
  return jnp.where(mask, total / jnp.maximum(mask.sum(), 1), 0.0)


def redistributed(
  credit: Credit, num_steps: int = 1, bootstrap: bool = True
) -> After:
  """Learning from an episode whose rewards have been given out anew.

  Args:
    credit: what each step is to be paid.
    num_steps: n, the steps whose rewards are summed.
    bootstrap: whether the best value n steps later is added. Without it, and
      with the credit given by an exact redistribution, n = 1 estimates the
      advantage; Align-RUDDER's code sums n = 20.

  Returns:
    For `Method.after`.
  """

  def after(
    table: Array, episode: Episode, learning_rate: Array | float, key: Key
  ) -> Array:
    del key
    credited = credit(
      episode.state, episode.action, episode.reward, episode.mask
    )
    return _sweep(
      table, episode, credited, learning_rate, ((num_steps, bootstrap),)
    )

  return after


def replay(demos: Episodes, num_steps: int = 10, margin: float = 0.8) -> After:
  """What DQfD learns from its own episode and from a demonstration.

  From both the error of n steps (that of one step is learnt within the
  episode), from the demonstration also the error of one step, and the large
  margin: the action shown is to be better by `margin` than any other.

  Args:
    demos: N episodes, of which one is drawn after each episode.
    num_steps: n.
    margin: between the action shown and the others.

  Returns:
    For `Method.after`; of a method without history.
  """
  both = ((1, True), (num_steps, True))

  def after(
    table: Array, episode: Episode, learning_rate: Array | float, key: Key
  ) -> Array:
    table = _sweep(table, episode, episode.reward, learning_rate, both[1:])
    number = jax.random.randint(key, (), 0, len(demos.state))
    demo = _remembered(demos, number)
    return _sweep(table, demo, demo.reward, learning_rate, both, margin)

  return after


def rehearse(
  table: Array,
  demos: Episodes,
  learning_rate: Array | float,
  passes: int,
  num_steps: int = 10,
  margin: float = 0.8,
) -> Array:
  """DQfD before its first episode: passes over the demonstrations.

  Args:
    table: [S, 1, A], action values.
    demos: N episodes.
    learning_rate: as in `learn`.
    passes: how many times all are learnt from.
    num_steps: as in `replay`.
    margin: as in `replay`.

  Returns:
    [S, 1, A].
  """
  both = ((1, True), (num_steps, True))

  def one(table: Array, number: Array) -> tuple[Array, None]:
    demo = _remembered(demos, number)
    return _sweep(table, demo, demo.reward, learning_rate, both, margin), None

  numbers = jnp.tile(jnp.arange(len(demos.state)), passes)
  return jax.lax.scan(one, table, numbers)[0]


def _remembered(demos: Episodes, number: Array) -> Episode:
  """One demonstration as an episode without history."""
  demo = jax.tree.map(lambda x: jnp.asarray(x)[number], demos)
  code = jnp.zeros_like(demo.state)
  return Episode(demo.state, code, demo.action, demo.reward, demo.mask)


def _sweep(
  table: Array,
  episode: Episode,
  rewards: Array,
  learning_rate: Array | float,
  targets: tuple[tuple[int, bool], ...],
  margin: float | None = None,
) -> Array:
  """Learns from an episode, step by step from its beginning.

  Args:
    table: [S, H, A], action values.
    episode: what happened.
    rewards: [T], what each step is paid.
    learning_rate: as in `learn`.
    targets: each is (n, whether to bootstrap); their errors are summed.
    margin: of the large-margin loss; None has none of it.
  """
  shape = table.shape
  row = episode.state * shape[1] + episode.code
  mask = episode.mask
  length = mask.sum()
  earned = jnp.cumsum(jnp.where(mask, rewards, 0.0))
  earned = jnp.concatenate([jnp.zeros(1), earned])
  t = jnp.arange(HORIZON)
  xs = [t, row[:-1], episode.action, mask]
  for num_steps, _ in targets:
    later = jnp.minimum(t + num_steps, length)
    xs += [earned[later] - earned[jnp.minimum(t, length)], row[later]]

  def update(rows: Array, x: Any) -> tuple[Array, None]:
    t, here, action, happened, *parts = x
    values = rows[here]
    error = jnp.float32(0)
    for i, (num_steps, bootstrap) in enumerate(targets):
      target, there = parts[2 * i : 2 * i + 2]
      if bootstrap:
        goes_on = t + num_steps < length
        target += jnp.where(goes_on, rows[there].max(), 0.0)
      error += target - values[action]
    rate = jnp.where(happened, learning_rate, 0.0)
    shown = jnp.arange(shape[-1]) == action
    change = jnp.where(shown, error, 0.0)
    if margin is not None:
      rival = jnp.argmax(values + jnp.where(shown, 0.0, margin))
      change += shown.astype(jnp.float32)
      change -= (jnp.arange(shape[-1]) == rival).astype(jnp.float32)
    # The row is written once: a second time would cost a copy of the table.
    return rows.at[here].set(values + rate * change), None

  rows, _ = jax.lax.scan(update, table.reshape(-1, shape[-1]), tuple(xs))
  return rows.reshape(shape)
