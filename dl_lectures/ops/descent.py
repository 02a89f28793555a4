"""Descent on a function, by a given number of evaluations; for `jax.vmap`.

What is trained by batches has optax; here a function is whole, small and the
same at every step, and many starts descend side by side, such as the structures
of a protein on its potential (slides, deck 000, "Optimise potential with
gradient descent").
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from dl_lectures.types import Array


def adam(
  loss: Callable, start: Any, steps: int, learning_rate: float
) -> tuple[Any, Array]:
  """Adam with a rate that falls along a cosine to 0.

  Args:
    loss: (x, progress) -> []; progress is from 0 to 1, how far the descent is.
    start: x, a tree of arrays.
    steps: evaluations of the loss and its gradient.
    learning_rate: at first.

  Returns:
    The last x, and the loss along the way, [steps].

  >>> x, trace = adam(lambda x, _: (x - 3) ** 2, jnp.array(0.0), 100, 0.5)
  >>> bool(abs(x - 3) < 0.01), trace.shape
  (True, (100,))
  """
  schedule = optax.cosine_decay_schedule(learning_rate, steps)
  optimizer = optax.adam(schedule)

  def step(carry, i):
    x, state = carry
    value, gradient = jax.value_and_grad(loss)(x, (i + 1) / steps)
    change, state = optimizer.update(gradient, state)
    return (optax.apply_updates(x, change), state), value

  carry = start, optimizer.init(start)
  (x, _), trace = jax.lax.scan(step, carry, jnp.arange(steps))
  return x, trace


class _Lbfgs(NamedTuple):
  """Between two evaluations: the last good point, and what is tried next."""

  x: Array
  value: Array
  gradient: Array
  direction: Array
  rate: Array
  s: Array
  y: Array
  count: Array


_MEMORY = 10


def lbfgs(loss: Callable, start: Any, steps: int) -> tuple[Any, Array]:
  """L-BFGS with backtracking, one evaluation a step.

  Each step tries one point. If it is low enough (Armijo) it is taken, and the
  next direction is made; else the step is halved. So V never rises, a budget of
  steps is one of evaluations, and restarts side by side do not wait for each
  other's line searches.

  Args:
    loss: x -> [].
    start: x, a tree of arrays; no number of it moves by more than .5 at once.
    steps: evaluations of the loss and its gradient.

  Returns:
    The best x, and its loss after each evaluation, [steps].

  >>> x, trace = lbfgs(lambda x: jnp.sum((x - 3) ** 2), jnp.zeros(2), 20)
  >>> [round(v, 3) for v in x.tolist()], bool(jnp.all(jnp.diff(trace) <= 0))
  ([3.0, 3.0], True)
  """
  flat, unravel = jax.flatten_util.ravel_pytree(start)
  evaluate = jax.value_and_grad(lambda x: loss(unravel(x)))

  def direction(s, y, count, gradient):
    """Two-loop recursion (Nocedal, Mathematics of Computation 35, 1980)."""
    rho = 1 / jnp.sum(s * y, -1)
    used = jnp.arange(_MEMORY) >= _MEMORY - count
    pairs = s, y, rho, used

    def towards(q, pair):
      s, y, rho, used = pair
      alpha = jnp.where(used, rho * jnp.vdot(s, q), 0.0)
      return q - alpha * y, alpha

    def back(q, pair):
      s, y, rho, used, alpha = pair
      beta = rho * jnp.vdot(y, q)
      return q + jnp.where(used, alpha - beta, 0.0) * s, None

    q, alphas = jax.lax.scan(towards, gradient, pairs, reverse=True)
    scale = jnp.vdot(s[-1], y[-1]) / jnp.vdot(y[-1], y[-1])
    first = 1 / jnp.maximum(jnp.linalg.norm(gradient), 1.0)
    q = q * jnp.where(count > 0, scale, first)
    q, _ = jax.lax.scan(back, q, (*pairs, alphas))
    return -q

  def step(state: _Lbfgs, _):
    tried = state.x + state.rate * state.direction
    value, gradient = evaluate(tried)
    descent = state.rate * jnp.vdot(state.gradient, state.direction)
    good = value <= state.value + 1e-4 * descent
    s, y = tried - state.x, gradient - state.gradient
    curved = good & (jnp.vdot(s, y) > 1e-6 * jnp.vdot(y, y))
    s_list = jnp.where(curved, jnp.roll(state.s, -1, 0).at[-1].set(s), state.s)
    y_list = jnp.where(curved, jnp.roll(state.y, -1, 0).at[-1].set(y), state.y)
    count = jnp.minimum(state.count + curved, _MEMORY)
    # A search that has come to nothing starts over, downhill.
    lost = ~good & (state.rate < 1e-3)
    count = jnp.where(lost, 0, count)
    now = jnp.where(good, gradient, state.gradient)
    new = direction(s_list, y_list, count, now)
    longest = jnp.max(jnp.abs(new))
    new = new * jnp.minimum(1.0, 0.5 / longest)
    state = _Lbfgs(
      x=jnp.where(good, tried, state.x),
      value=jnp.where(good, value, state.value),
      gradient=now,
      direction=jnp.where(good | lost, new, state.direction),
      rate=jnp.where(good | lost, 1.0, state.rate / 2),
      s=s_list,
      y=y_list,
      count=count,
    )
    return state, state.value

  value, gradient = evaluate(flat)
  none = jnp.ones((_MEMORY, flat.size))
  state = _Lbfgs(
    x=flat,
    value=value,
    gradient=gradient,
    direction=-gradient / jnp.maximum(jnp.linalg.norm(gradient), 1.0),
    rate=jnp.float32(1),
    s=none,
    y=none,
    count=jnp.int32(0),
  )
  state, trace = jax.lax.scan(step, state, None, steps - 1)
  return unravel(state.x), jnp.concatenate([value[None], trace])
