"""Many environments played side by side for a number of steps.

The environments are batched here and the policy is handed the whole batch, so
that one network call (or one tree search) serves all of them. Each lane draws
from a key of its own: a rollout that is divided over devices by
`sharding.per_device` is bit for bit the rollout on one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dl_lectures.types import Array, Environment, Key, TimeStep


class RolloutState(NamedTuple):
  """Where the lanes stand; B lanes.

  Attributes:
    env_state: the environments' states, [B, ...] each.
    time_step: what the policy acts on next, [B, ...] each. A discount of 0 says
      that an episode begins here: the observation is its first, the reward the
      last of the one before it.
    policy_state: the policy's own memory, `()` if it has none.
  """

  env_state: Any
  time_step: TimeStep
  policy_state: Any


class Trajectory(NamedTuple):
  """What happened, time-major; T steps, B lanes.

  The value that follows the last row is that of the final state's time step.

  Attributes:
    observation: [T, B, ...], what the policy saw.
    first: [T, B] bool, an episode begins with this row.
    action: [T, B, ...], what it did.
    reward: [T, B] float32, paid for this row's action.
    discount: [T, B] float32, after this row's action; 0 when it was the last.
    extras: [T, B, ...] each, what the policy wants to be kept.
  """

  observation: Any
  first: Array
  action: Array
  reward: Array
  discount: Array
  extras: Any


# (policy_state, time_step [B, ...], keys [B])
#   -> (action [B, ...], policy_state, extras [B, ...])
Policy = Callable[[Any, TimeStep, Key], tuple[Any, Any, Any]]


def auto_reset(environment: Environment) -> Environment:
  """The environment with the next episode following at once on the last.

  The step that ends an episode returns the next one's first observation, with
  the reward and the discount of 0 of the step; the last observation is not
  seen, and with that discount its value counts for nothing.

  Args:
    environment: ends its episodes with a discount of 0.

  Returns:
    An environment whose `step` may be called for ever.
  """

  def step(state: Any, action: Array, key: Key) -> tuple[Any, TimeStep]:
    step_key, reset_key = jax.random.split(key)
    state, time_step = environment.step(state, action, step_key)
    # Made at every step, because under vmap some lane may need it.
    new_state, new_time_step = environment.reset(reset_key)
    over = time_step.discount == 0
    state, observation = jax.tree.map(
      lambda new, old: jnp.where(over, new, old),
      (new_state, new_time_step.observation),
      (state, time_step.observation),
    )
    return state, time_step._replace(observation=observation)

  return environment._replace(step=step)


def start(
  environment: Environment, policy_state: Any, keys: Key
) -> RolloutState:
  """The beginning of an episode in every lane.

  Args:
    environment: the environment.
    policy_state: the policy's memory before its first step.
    keys: [B] keys, used up.

  Returns:
    The state of B lanes.
  """
  env_state, time_step = jax.vmap(environment.reset)(keys)
  return RolloutState(
    env_state,
    time_step._replace(
      reward=jnp.zeros_like(time_step.reward),
      discount=jnp.zeros_like(time_step.discount),
    ),
    policy_state,
  )


def rollout(
  environment: Environment,
  policy: Policy,
  state: RolloutState,
  keys: Key,
  length: int,
) -> tuple[RolloutState, Trajectory]:
  """Plays `length` steps in every lane, through the ends of episodes.

  Args:
    environment: the environment, without auto-reset of its own.
    policy: acts for all lanes at once, drawing from each lane's own key. One
      with a memory empties it where `time_step.discount == 0`.
    state: where the lanes stand, from `start` or the rollout before.
    keys: [B] keys, one for each lane, used up.
    length: T, the number of steps.

  Returns:
    The state after it, and the trajectory [T, B, ...].

  Walking right until 2 is passed, 1 point a step, in one lane:

  >>> def step(state, action, key):
  ...   state = state + action
  ...   return state, TimeStep(state, jnp.float32(1), jnp.float32(state <= 2))
  >>> def reset(key):
  ...   return jnp.int32(0), TimeStep(jnp.int32(0), jnp.float32(0),
  ...                                 jnp.float32(1))
  >>> walk = Environment(reset, step, num_actions=2, observation_shape=())
  >>> def policy(policy_state, time_step, keys):
  ...   return jnp.ones(keys.shape, jnp.int32), policy_state, ()
  >>> keys = jax.random.split(jax.random.key(0), 1)
  >>> state, trajectory = rollout(walk, policy, start(walk, (), keys), keys, 5)
  >>> trajectory.observation[:, 0].tolist()
  [0, 1, 2, 0, 1]
  >>> trajectory.discount[:, 0].tolist()
  [1.0, 1.0, 0.0, 1.0, 1.0]
  """
  env_step = jax.vmap(auto_reset(environment).step)

  def step(state: RolloutState, t: Array) -> tuple[RolloutState, Trajectory]:
    step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, t)
    policy_keys, env_keys = jax.vmap(jax.random.split, out_axes=1)(step_keys)
    action, policy_state, extras = policy(
      state.policy_state, state.time_step, policy_keys
    )
    env_state, time_step = env_step(state.env_state, action, env_keys)
    row = Trajectory(
      observation=state.time_step.observation,
      first=state.time_step.discount == 0,
      action=action,
      reward=time_step.reward,
      discount=time_step.discount,
      extras=extras,
    )
    return RolloutState(env_state, time_step, policy_state), row

  return jax.lax.scan(step, state, jnp.arange(length))
