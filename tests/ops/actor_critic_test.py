"""Losses of an actor-critic, against policy gradients written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.ops import actor_critic

T, B, A = 5, 3, 4
DRAW = np.random.default_rng(0)
LOGITS = jnp.asarray(DRAW.normal(size=(T, B, A)), jnp.float32)
VALUE = jnp.asarray(DRAW.normal(size=(T + 1, B)), jnp.float32)
ACTION = jnp.asarray(DRAW.integers(A, size=(T, B)), jnp.int32)
REWARD = jnp.asarray(DRAW.normal(size=(T, B)), jnp.float32)
DISCOUNT = jnp.asarray(DRAW.choice([0.0, 0.9], size=(T, B)), jnp.float32)


def log_prob(logits):
  every = jax.nn.log_softmax(logits)
  return jnp.take_along_axis(every, ACTION[..., None], axis=-1)[..., 0]


def monte_carlo():
  """Returns of the policy that acted, bootstrapped at the end."""
  target, after = np.zeros((T, B)), np.asarray(VALUE[-1])
  for t in reversed(range(T)):
    after = np.asarray(REWARD[t] + DISCOUNT[t] * after)
    target[t] = after
  return target


def test_on_policy_it_is_the_policy_gradient_of_normalised_returns():
  behaviour = log_prob(LOGITS)
  mask = jnp.asarray(DRAW.random((T, B)) < 0.7)

  def policy(logits):
    return actor_critic.losses(
      logits, VALUE, ACTION, behaviour, REWARD, DISCOUNT, mask=mask
    ).policy

  target = monte_carlo()
  advantage = target - np.asarray(VALUE[:-1])
  kept = advantage[np.asarray(mask)]
  advantage = jnp.asarray((advantage - kept.mean()) / kept.std())

  def by_hand(logits):
    gain = jnp.where(mask, log_prob(logits) * advantage, 0)
    return -jnp.sum(gain) / jnp.sum(mask)

  np.testing.assert_allclose(
    jax.grad(policy)(LOGITS), jax.grad(by_hand)(LOGITS), atol=1e-6
  )


def test_values_move_towards_returns():
  found = actor_critic.losses(
    LOGITS, VALUE, ACTION, log_prob(LOGITS), REWARD, DISCOUNT
  )
  error = 0.5 * np.mean((monte_carlo() - np.asarray(VALUE[:-1])) ** 2)
  np.testing.assert_allclose(found.value, error, rtol=1e-5)


@pytest.mark.parametrize('sign', [1, -1])
def test_an_action_is_not_pushed_beyond_the_bound(sign):
  """Where it is more likely already, a good one has no gradient any more."""
  logits = jnp.zeros((2, 1, A)).at[..., 0].set(1.0)
  behaviour = jnp.full((2, 1), jnp.log(0.25))

  def policy(logits):
    return actor_critic.losses(
      logits,
      jnp.zeros((3, 1)),
      jnp.array([[0], [1]]),
      behaviour,
      sign * jnp.array([[1.0], [-1.0]]),
      jnp.zeros((2, 1)),
    ).policy

  moves = np.abs(jax.grad(policy)(logits)).sum(axis=-1)[:, 0]
  # The first is likelier than it was, the second less likely.
  assert (moves > 0).tolist() == ([False, False] if sign == 1 else [True, True])


def test_no_mask_no_division_by_zero():
  found = actor_critic.losses(
    LOGITS,
    VALUE,
    ACTION,
    log_prob(LOGITS),
    REWARD,
    DISCOUNT,
    mask=jnp.zeros((T, B), bool),
  )
  assert found.policy == found.entropy == 0
