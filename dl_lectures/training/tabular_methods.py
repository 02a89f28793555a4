"""Ways of giving credit, ready to be compared: what `tabular.learn` is given.

Each function makes a `tabular.Method` of a table of first values and of
demonstrations. What they have in common is `tabular.learn`: they act, are
evaluated and are stopped alike.

    q_learning    the rewards as they are; sees no demonstration
    cloned        behaviour cloning, then Q-learning ("BC+Q")
    rehearsed     the same, and demonstrations again and again (DQfD)
    shaped        Q-learning on rewards that are shaped by the progress of the
                  demonstrations
    credited      any redistribution of the return: uniform, an LSTM's
                  (`predicted_credit`), Align-RUDDER's
    remembering   any of them, with the set of past events in what it sees

First values matter as much as the method: what is tried, found wanting and left
must look a little better than a failure. What a failed episode is worth depends
on what is learnt, the return or the redistributed rewards of some steps:
`FAILED_RETURN` or `FAILED_WINDOW`; and so does what a demonstration is worth.

The return predictor of RUDDER is fitted here (`fit_predictor`) to the
demonstrations and as many episodes at random.

Sources: Watkins, "Learning from Delayed Rewards", 1989; Hester et al., "Deep
Q-learning from Demonstrations", 2018; Ng et al., "Policy invariance under
reward transformations", 1999; Arjona-Medina et al., "RUDDER", 2019; Patil et
al., "Align-RUDDER", 2020, section 4, and its code, of which the window of 20
steps and the settings of the return predictor are.
"""

import functools
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.envs.rooms import Episodes, Rooms
from dl_lectures.nets import recurrent
from dl_lectures.ops import redistribution
from dl_lectures.training import tabular
from dl_lectures.training.tabular import Credit, Method
from dl_lectures.types import Array, Key

# As published: the redistributed rewards of so many steps are summed.
WINDOW = 20
# What a failed episode is worth to who learns the return, and to who learns the
# next rewards of a return that is given out evenly.
FAILED_RETURN = rooms_lib.TIMEOUT_RETURN
FAILED_WINDOW = rooms_lib.TIMEOUT_RETURN * WINDOW / rooms_lib.HORIZON
# Passes of DQfD over the demonstrations before the first episode.
PASSES = 20
# Of the return predictor, as published.
UNITS, UPDATES, BATCH = 16, 1000, 8
AUX_WEIGHT = 0.5


def first_values(
  drawn: Array, level: Array | float, spread: Array | float
) -> Array:
  """First values of another mean and spread, from the same draw.

  Args:
    drawn: of `tabular.random_table`, N(1, .5).
    level: their mean.
    spread: their standard deviation.

  >>> first_values(jnp.array([1.0, 1.5]), 3.0, 0.25).tolist()
  [3.0, 3.25]
  """
  return level + spread * (drawn - 1) / 0.5


def q_learning(table: Array) -> Method:
  """Q-learning alone.

  Args:
    table: [S, 1, A], first values.
  """
  return Method(table)


def cloned(table: Array, demos: Episodes) -> Method:
  """Behaviour cloning, then Q-learning.

  Args:
    table: [S, 1, A], first values.
    demos: N demonstrations.

  >>> world = rooms_lib.make(4)
  >>> demos = rooms_lib.demonstrations(world, jax.random.key(0), 2)
  >>> table = jnp.zeros((world.num_states, 1, 4))
  >>> method = cloned(table, demos)
  >>> bool(method.table.max() > 2.5)
  True
  """
  return Method(tabular.clone(table, demos))


def rehearsed(
  table: Array, demos: Episodes, learning_rate: Array | float
) -> Method:
  """Deep Q-learning from demonstrations, with a table.

  Args:
    table: [S, 1, A], first values.
    demos: N demonstrations.
    learning_rate: of the passes over them before the first episode.
  """
  return Method(
    tabular.rehearse(table, demos, learning_rate, PASSES),
    after=tabular.replay(demos),
  )


def shaped(table: Array, demos: Episodes) -> Method:
  """BC+Q, rewarded for progress as the demonstrations made it.

  It differs from BC+Q with first values higher by the potential in what it
  acts by alone (Wiewiora, "Potential-based shaping and Q-value initialization
  are equivalent", 2003).

  Args:
    table: [S, 1, A], first values.
    demos: N demonstrations.
  """
  potential = tabular.progress(demos, table.shape[0])
  return cloned(table, demos)._replace(potential=potential)


def credited(
  table: Array, demos: Episodes, credit: Credit, clone_returns: bool = False
) -> Method:
  """All redistributions learn in the same way: what is paid soon is summed.

  Args:
    table: [S, 1, A], first values.
    demos: N demonstrations.
    credit: the redistribution, such as `tabular.uniform_credit`.
    clone_returns: whether what was shown begins with its return, as published;
      else with what will be learnt of it.
  """
  after = tabular.redistributed(credit, WINDOW, bootstrap=False)
  if clone_returns:
    table = tabular.clone(table, demos)
  else:
    table = tabular.clone_credit(table, demos, credit, WINDOW)
  return Method(table, online=False, after=after)


def remembering(method: Method, event: Array, num_events: int) -> Method:
  """The method, with the set of events that have happened in its state.

  Args:
    method: one without a history.
    event: [S] int32, the event that a cell stands for.
    num_events: K; the table grows with 2^K.

  >>> method = q_learning(jnp.zeros((3, 1, 4)))
  >>> remembering(method, jnp.array([-1, 0, 1]), 2).table.shape
  (3, 4, 4)
  """
  history, codes = tabular.visited(event, num_events)
  table = jnp.repeat(method.table, codes, axis=1)
  return method._replace(history=history, table=table)


def fit_predictor(rooms: Rooms, demos: Episodes, key: Key) -> hk.Params:
  """RUDDER's return predictor, from demonstrations and random episodes.

  Args:
    rooms: the world.
    demos: N demonstrations; N random episodes are added.
    key: consumed.

  Returns:
    The parameters, for `predicted_credit`.
  """
  play_key, fit_key = jax.random.split(key)
  at_random = np.full((rooms.num_states, 4), 0.25)
  lost = rooms_lib.play(rooms, at_random, play_key, len(demos.state))
  both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), demos, lost)
  return _fit(rooms_lib.features(rooms), both, fit_key)


def predicted_credit(rooms: Rooms, params: hk.Params) -> Credit:
  """RUDDER's redistribution by its LSTM; what it misses is paid evenly.

  Args:
    rooms: the world.
    params: of `fit_predictor`; may be traced.
  """
  features = rooms_lib.features(rooms)

  def predict(batch: redistribution.Trajectory) -> Array:
    seen = encode(features, batch.observation, batch.action)
    return predictor().apply(params, seen)

  def credit(
    states: Array, actions: Array, rewards: Array, mask: Array
  ) -> Array:
    one = redistribution.Trajectory(states[:-1], actions, rewards, mask)
    batch = jax.tree.map(lambda x: x[None], one)
    return redistribution.redistribute(
      batch, predict, correction='uniform'
    ).reward[0]

  return credit


@functools.cache
def predictor() -> hk.Transformed:
  """The network: what `encode` gives, [B, T, F] -> [B, T]."""

  def forward(sequence: Array) -> Array:
    memory = recurrent.LSTM(UNITS, recurrent.RUDDER)(sequence)
    return hk.Linear(1)(memory)[..., 0]

  return hk.without_apply_rng(hk.transform(forward))


def encode(features: np.ndarray, states: Array, actions: Array) -> Array:
  """[..., F]: row, column, room and action, each one-hot, of length 1.

  Args:
    features: [S, F - 4], of `rooms.features`.
    states: int32, cells.
    actions: int32, of the same shape.
  """
  acted = jax.nn.one_hot(actions, 4)
  seen = jnp.concatenate([jnp.asarray(features)[states], acted], -1)
  return seen / 2


@jax.jit
def _fit(features: np.ndarray, episodes: Episodes, key: Key) -> hk.Params:
  """Mean squared error of the last prediction, and half of that of all."""
  net, optimizer = predictor(), optax.adamw(1e-2, weight_decay=1e-5)
  init_key, draw_key = jax.random.split(key)
  sequence = encode(features, episodes.state[:, :-1], episodes.action)
  total = episodes.reward.sum(1)
  params = net.init(init_key, sequence[:1])

  def loss(params: hk.Params, number: Array) -> Array:
    error = redistribution.prediction_error(
      net.apply(params, sequence[number]), total[number], episodes.mask[number]
    )
    return error.final + AUX_WEIGHT * error.running

  def update(carry: Any, number: Array) -> tuple[Any, None]:
    params, opt_state = carry
    gradient = jax.grad(loss)(params, number)
    change, opt_state = optimizer.update(gradient, opt_state, params)
    return (optax.apply_updates(params, change), opt_state), None

  numbers = jax.random.randint(draw_key, (UPDATES, BATCH), 0, len(total))
  carry = params, optimizer.init(params)
  return jax.lax.scan(update, carry, numbers)[0][0]
