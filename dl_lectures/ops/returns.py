"""Returns and advantages: what a value or a policy is fitted to.

The only module that imports rlax; the library takes these from here. Sutton &
Barto, "Reinforcement Learning: An Introduction" (2018), chapters 7 and 12.
Slides: deck 002, "RUDDER", TD and Monte Carlo as what it is compared with.

Unbatched, [T]; `jax.vmap` gives the rest. A transition leads from time t-1 to
time t, and the names say which end of it they belong to:

    v_tm1 --- a_tm1 ---> r_t, discount_t, v_t

`discount_t` is gamma, and 0 where the episode has ended, so episodes may follow
each other in one sequence. Everything returned is a target: no gradient flows
back through it. TD(lambda) learns v_tm1 by the error
`lambda_returns(...) - v_tm1`.

All of them raise UsageError for arrays of other shapes.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import rlax

from dl_lectures.types import Array, UsageError


class VTrace(NamedTuple):
  """What an actor-critic learns from experience of an older policy.

  Attributes:
    v_tm1: [T] float32, targets of the values.
    advantage_tm1: [T] float32, of the actions, with their clipped weights.
  """

  v_tm1: Array
  advantage_tm1: Array


def mc_returns(
  r_t: Array, discount_t: Array, v_end: Array | float = 0.0
) -> Array:
  """Monte Carlo returns, G_{t-1} = r_t + discount_t G_t.

  Args:
    r_t: [T].
    discount_t: [T].
    v_end: [], the value after the last step, where an episode is cut off.

  Returns:
    [T] float32, at times t-1.

  >>> mc_returns(jnp.array([1.0, 0.0, 4.0]), jnp.full(3, 0.5)).tolist()
  [2.0, 2.0, 4.0]
  """
  r_t, discount_t = _sequences(r_t=r_t, discount_t=discount_t)
  v_end = jnp.asarray(v_end, jnp.float32)
  if v_end.ndim:
    raise UsageError(f'v_end of shape {list(v_end.shape)}; [] is possible')
  return _constant(rlax.discounted_returns(r_t, discount_t, v_end))


def lambda_returns(
  r_t: Array, discount_t: Array, v_t: Array, lambda_: Array | float = 1.0
) -> Array:
  """The targets of TD(lambda), from the end back.

    G_{t-1} = r_t + discount_t ((1 - lambda) v_t + lambda G_t)

  0 bootstraps after every step, as TD(0) does; 1 at the end alone.

  Args:
    r_t: [T].
    discount_t: [T].
    v_t: [T], the values of what each step led to; of the best action there, for
      a Q(lambda) that is not cut at exploratory actions.
    lambda_: [] or [T], in [0, 1].

  Returns:
    [T] float32, at times t-1.

  >>> r_t, v_t = jnp.array([1.0, 0.0]), jnp.array([2.0, 4.0])
  >>> lambda_returns(r_t, jnp.ones(2), v_t, 0.5).tolist()
  [4.0, 4.0]
  """
  r_t, discount_t, v_t = _sequences(r_t=r_t, discount_t=discount_t, v_t=v_t)
  returns = rlax.lambda_returns(r_t, discount_t, v_t, _mixing(lambda_, r_t))
  return _constant(returns)


def n_step_returns(r_t: Array, discount_t: Array, v_t: Array, n: int) -> Array:
  """n rewards and then a value; fewer rewards where the sequence ends.

    G_{t-1} = r_t + discount_t (r_{t+1} + ... discount_{t+n-1} v_{t+n-1})

  Args:
    r_t: [T].
    discount_t: [T].
    v_t: [T].
    n: at least 1, which is TD(0).

  Returns:
    [T] float32, at times t-1.

  >>> r_t, v_t = jnp.array([1.0, 0.0, 2.0]), jnp.array([5.0, 6.0, 7.0])
  >>> n_step_returns(r_t, jnp.ones(3), v_t, 2).tolist()
  [7.0, 9.0, 9.0]
  """
  if n < 1:
    raise UsageError(f'returns of n={n} steps; at least 1 is possible')
  r_t, discount_t, v_t = _sequences(r_t=r_t, discount_t=discount_t, v_t=v_t)
  return _constant(rlax.n_step_bootstrapped_returns(r_t, discount_t, v_t, n))


def gae(
  r_t: Array, discount_t: Array, v: Array, lambda_: Array | float
) -> Array:
  """Generalised advantage estimates.

  Schulman et al., "High-dimensional continuous control using generalized
  advantage estimation", ICLR 2016, equation 16:

    delta_t = r_t + discount_t v_t - v_{t-1}
    A_{t-1} = delta_t + discount_t lambda A_t

  Args:
    r_t: [T].
    discount_t: [T].
    v: [T + 1], the values at times 0 to T.
    lambda_: [] or [T], in [0, 1].

  Returns:
    [T] float32, at times t-1.

  >>> r_t, v = jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0, 4.0])
  >>> gae(r_t, jnp.ones(2), v, 0.5).tolist()
  [3.0, 2.0]
  """
  r_t, discount_t = _sequences(r_t=r_t, discount_t=discount_t)
  v = jnp.asarray(v, jnp.float32)
  if v.shape != (len(r_t) + 1,):
    raise UsageError(
      f'v of shape {list(v.shape)} with r_t of {list(r_t.shape)}; '
      f'[{len(r_t) + 1}] is possible, one more'
    )
  return _constant(
    rlax.truncated_generalized_advantage_estimation(
      r_t, discount_t, _mixing(lambda_, r_t), v
    )
  )


def vtrace(
  r_t: Array,
  discount_t: Array,
  v_tm1: Array,
  v_t: Array,
  rho_tm1: Array,
  lambda_: Array | float = 1.0,
  clip_rho: float = 1.0,
  clip_advantage_rho: float = 1.0,
) -> VTrace:
  """V-trace targets and advantages.

  Espeholt et al., "IMPALA", ICML 2018, equation 1 and section 4.2:

    delta_t = min(clip_rho, rho_{t-1}) (r_t + discount_t v_t - v_{t-1})
    G_{t-1} = v_{t-1} + delta_t
              + discount_t lambda min(1, rho_{t-1}) (G_t - v_t)
    A_{t-1} = min(clip_advantage_rho, rho_{t-1})
              (r_t + discount_t (lambda G_t + (1 - lambda) v_t) - v_{t-1})

  Args:
    r_t: [T].
    discount_t: [T].
    v_tm1: [T].
    v_t: [T]; v_tm1 one step later, but for the last one.
    rho_tm1: [T], pi(a) / mu(a) of each action.
    lambda_: [] or [T], in [0, 1].
    clip_rho: above 0; what value is learned depends on it.
    clip_advantage_rho: above 0.

  Returns:
    Targets and advantages, at times t-1.

  >>> r_t, v = jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0, 4.0])
  >>> ones = jnp.ones(2)
  >>> given = vtrace(r_t, ones, v[:-1], v[1:], 0.5 * ones)
  >>> given.v_tm1.tolist(), given.advantage_tm1.tolist()
  ([2.5, 3.0], [1.5, 1.0])
  """
  r_t, discount_t, v_tm1, v_t, rho_tm1 = _sequences(
    r_t=r_t, discount_t=discount_t, v_tm1=v_tm1, v_t=v_t, rho_tm1=rho_tm1
  )
  given = rlax.vtrace_td_error_and_advantage(
    v_tm1,
    v_t,
    r_t,
    discount_t,
    rho_tm1,
    _mixing(lambda_, r_t),
    clip_rho,
    clip_advantage_rho,
  )
  return VTrace(
    v_tm1=_constant(given.errors + v_tm1),
    advantage_tm1=_constant(given.pg_advantage),
  )


def _constant(x: chex.Array) -> Array:
  return jax.lax.stop_gradient(jnp.asarray(x))


def _sequences(**named: Array) -> tuple[Array, ...]:
  """All as float32 [T] of one T, or an error that names the first other."""
  arrays = {name: jnp.asarray(x, jnp.float32) for name, x in named.items()}
  r_t = arrays['r_t']
  for name, x in arrays.items():
    if x.ndim != 1 or x.shape != r_t.shape or not x.size:
      like = '[T]' if r_t.ndim != 1 or not r_t.size else list(r_t.shape)
      raise UsageError(
        f'{name} of shape {list(x.shape)}; {like} is possible (jax.vmap for '
        'batches)'
      )
  return tuple(arrays.values())


def _mixing(lambda_: Array | float, r_t: Array) -> Array:
  lambda_ = jnp.asarray(lambda_, jnp.float32)
  if lambda_.shape not in ((), r_t.shape):
    raise UsageError(
      f'lambda_ of shape {list(lambda_.shape)}; [] and {list(r_t.shape)} are '
      'possible'
    )
  return jnp.broadcast_to(lambda_, r_t.shape)
