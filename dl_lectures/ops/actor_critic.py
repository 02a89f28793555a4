"""What an actor-critic learns from: policy gradient, values, entropy.

Espeholt et al., "IMPALA: Scalable distributed deep-RL with importance weighted
actor-learner architectures", ICML 2018, section 4.2; Schulman et al., "Proximal
policy optimization algorithms", 2017, equation 7.

Time-major: [T, B], T steps of B rows. A value has one row more, of what follows
the last step.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dl_lectures.ops import returns
from dl_lectures.types import Array


class Losses(NamedTuple):
  """To be added with weights; all are means, to be made small.

  Attributes:
    policy: [], minus what the advantages promise.
    value: [], half the squared error.
    entropy: [], of the policy, in nats; to be subtracted.
  """

  policy: Array
  value: Array
  entropy: Array


def losses(
  logits: Array,
  value: Array,
  action: Array,
  behaviour: Array,
  r_t: Array,
  discount_t: Array,
  *,
  lambda_: Array | float = 1.0,
  clip: float = 0.2,
  mask: Array | None = None,
) -> Losses:
  """V-trace's values, and the policy's clipped gain with its advantages.

    policy = -mean min(rho A, clipped rho A),   rho = pi(a) / mu(a)

  While pi is mu, its gradient is the policy gradient A d log pi(a); where an
  action has become more or less likely by more than `clip`, it is not pushed
  further. Advantages have mean 0 and variance 1: what a game is worth changes
  by orders of magnitude while it is learned.

  Args:
    logits: [T, B, A], of the policy that learns, pi.
    value: [T + 1, B].
    action: [T, B] int32.
    behaviour: [T, B], log mu(a), of the policy that acted.
    r_t: [T, B] float32, paid for the action.
    discount_t: [T, B] float32, 0 where the episode ended with it.
    lambda_: of V-trace.
    clip: above 0.
    mask: [T, B] bool, where the action mattered; all by default.

  >>> shape = 2, 1
  >>> found = losses(
  ...   jnp.zeros((*shape, 4)), jnp.zeros((3, 1)), jnp.zeros(shape, jnp.int32),
  ...   jnp.full(shape, -jnp.log(4.0)), jnp.array([[0.0], [1.0]]),
  ...   jnp.array([[1.0], [0.0]]),
  ... )
  >>> float(found.value), round(float(found.entropy), 4)
  (0.5, 1.3863)
  """
  mask = jnp.ones(action.shape, bool) if mask is None else mask
  all_log_probs = jax.nn.log_softmax(logits)
  log_prob = jnp.take_along_axis(all_log_probs, action[..., None], axis=-1)
  rho = jnp.exp(log_prob[..., 0] - behaviour)
  # The weight of an action stands in the gain below, so not in its advantage.
  learn = functools.partial(returns.vtrace, lambda_=lambda_)
  constant = jax.lax.stop_gradient(value)
  target = jax.vmap(learn, in_axes=1, out_axes=1)(
    r_t, discount_t, constant[:-1], constant[1:], jax.lax.stop_gradient(rho)
  )
  weight = jnp.minimum(1.0, jax.lax.stop_gradient(rho))
  advantage = normalised(target.advantage_tm1 / weight, mask)
  clipped = jnp.clip(rho, 1 - clip, 1 + clip)
  gain = jnp.minimum(rho * advantage, clipped * advantage)
  entropy = -jnp.sum(jnp.exp(all_log_probs) * all_log_probs, axis=-1)
  return Losses(
    policy=-_mean(gain, mask),
    value=0.5 * jnp.mean(jnp.square(target.v_tm1 - value[:-1])),
    entropy=_mean(entropy, mask),
  )


def normalised(x: Array, mask: Array) -> Array:
  """Mean 0 and variance 1 where the mask is true."""
  x = x - _mean(x, mask)
  return x / jnp.maximum(jnp.sqrt(_mean(jnp.square(x), mask)), 1e-6)


def _mean(x: Array, mask: Array) -> Array:
  return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(jnp.sum(mask), 1)
