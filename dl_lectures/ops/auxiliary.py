"""UNREAL's auxiliary tasks: what an agent can learn without any reward.

Jaderberg et al., "Reinforcement learning with unsupervised auxiliary tasks",
ICLR 2017, sections 3.1 (pixel control) and 3.2 (reward prediction). Slides:
deck 000, "Learning to Play Capture The Flag", where agents learn by them too.

Time-major: [T, B], T steps of B rows; N regions of what is seen.
"""

import functools

import jax
import jax.numpy as jnp

from dl_lectures.ops import returns
from dl_lectures.types import Array, UsageError


def cell_change(view: Array, regions: int = 3) -> Array:
  """How much of what is seen changes, in each region: [T, B, regions^2].

  The mean of the bits that change, as in the paper that of the pixels'
  differences; to bring it about is a task of its own in each region.

  Args:
    view: [T + 1, B, V, V] uint8, bits of cells.
    regions: to a side; it divides V.

  Raises:
    UsageError: it does not.

  >>> view = jnp.zeros((2, 1, 4, 4), jnp.uint8).at[1, 0, 0, 0].set(3)
  >>> cell_change(view, 2)[0, 0].tolist()  # 2 of 8 x 4 bits
  [0.0625, 0.0, 0.0, 0.0]
  """
  size = view.shape[-1]
  if regions < 1 or size % regions:
    raise UsageError(
      f'{regions} regions a side of {size} cells; the divisors of {size} are '
      'possible'
    )
  changed = jax.lax.population_count(view[1:] ^ view[:-1]).astype(jnp.float32)
  side = size // regions
  apart = changed.reshape(*changed.shape[:2], regions, side, regions, side)
  return jnp.mean(apart, axis=(3, 5)).reshape(*changed.shape[:2], -1) / 8


def duelling(value: Array, advantage: Array) -> Array:
  """Q [..., N, A] of a value [..., N] and advantages [..., N, A].

  Wang et al., "Dueling network architectures", ICML 2016, equation 9.

  >>> duelling(jnp.array([1.0]), jnp.array([[2.0, 4.0]])).tolist()
  [[0.0, 2.0]]
  """
  mean = jnp.mean(advantage, axis=-1, keepdims=True)
  return value[..., None] + advantage - mean


def control_loss(
  q: Array,
  action: Array,
  change: Array,
  discount_t: Array,
  lambda_: float = 0.9,
) -> Array:
  """Half the squared error of Q(lambda) in all regions, a mean: [].

  What follows the last step is not known: it is only bootstrapped from.

  Args:
    q: [T, B, N, A].
    action: [T, B] int32.
    change: [T, B, N], what the action changed.
    discount_t: [T, B] float32, 0 where the episode ended.
    lambda_: 1 is the paper's n-step return.
  """
  chosen = jnp.take_along_axis(q, action[..., None, None], axis=-1)[..., 0]
  best = jax.lax.stop_gradient(jnp.max(q, axis=-1))
  target = functools.partial(returns.lambda_returns, lambda_=lambda_)
  # Over the regions, then over the rows.
  target = jax.vmap(target, in_axes=(1, None, 1), out_axes=1)
  target = jax.vmap(target, in_axes=(1, 1, 1), out_axes=1)
  goal = target(change[:-1], discount_t[:-1], best[1:])
  return 0.5 * jnp.mean(jnp.square(goal - chosen[:-1]))


def reward_loss(logits: Array, reward: Array) -> Array:
  """Cross-entropy of a reward's sign, half of it of steps with none: [].

  The paper draws as many steps with a reward as without; here all are used, and
  weighted so.

  Args:
    logits: [T, B, 3], of none, above and below 0.
    reward: [T, B].

  >>> logits = jnp.zeros((2, 1, 3))
  >>> round(float(reward_loss(logits, jnp.array([[0.0], [2.0]]))), 4)
  1.0986
  """
  sort = jnp.where(reward > 0, 1, jnp.where(reward < 0, 2, 0))
  log_probs = jax.nn.log_softmax(logits)
  error = -jnp.take_along_axis(log_probs, sort[..., None], axis=-1)[..., 0]
  some = sort > 0
  halves = [
    jnp.sum(jnp.where(which, error, 0)) / jnp.maximum(jnp.sum(which), 1)
    for which in (some, ~some)
  ]
  return (halves[0] + halves[1]) / 2
