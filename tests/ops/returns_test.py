"""Returns: by hand, against loops of NumPy, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.ops import returns
from dl_lectures.types import UsageError

T = 6


def sequences(seed=0):
  """r_t, discount_t, v [T + 1], lambda_, rho_tm1; an episode ends at 3."""
  draw = np.random.default_rng(seed)
  r_t, lambda_ = draw.normal(size=T), draw.random(T)
  discount_t = np.where(np.arange(T) == 3, 0, draw.uniform(0.5, 1, size=T))
  v, rho = draw.normal(size=T + 1), draw.uniform(0.2, 2, size=T)
  return [x.astype(np.float32) for x in (r_t, discount_t, v, lambda_, rho)]


@jax.jit
def all_of_them(r_t, discount_t, v, lambda_, rho):
  return {
    'mc': returns.mc_returns(r_t, discount_t, v[-1]),
    'mc, ended': returns.mc_returns(r_t, discount_t),
    'lambda': returns.lambda_returns(r_t, discount_t, v[1:], lambda_),
    'one': returns.lambda_returns(r_t, discount_t, v[1:]),
    'zero': returns.lambda_returns(r_t, discount_t, v[1:], 0.0),
    '1 step': returns.n_step_returns(r_t, discount_t, v[1:], 1),
    '3 steps': returns.n_step_returns(r_t, discount_t, v[1:], 3),
    'all steps': returns.n_step_returns(r_t, discount_t, v[1:], T),
    'more steps': returns.n_step_returns(r_t, discount_t, v[1:], T + 9),
    'gae': returns.gae(r_t, discount_t, v, lambda_),
    'vtrace': returns.vtrace(
      r_t, discount_t, v[:-1], v[1:], rho, lambda_, 1.2, 0.9
    ),
    'on policy': returns.vtrace(
      r_t, discount_t, v[:-1], v[1:], jnp.ones(T), lambda_
    ),
  }


def test_against_loops():
  r, d, v, lam, rho = sequences()
  given = all_of_them(r, d, v, lam, rho)

  def backwards(step, last):
    out, after = np.zeros(T), last
    for t in reversed(range(T)):
      out[t] = after = step(t, after)
    return out

  def same(name, expected):
    np.testing.assert_allclose(given[name], expected, atol=1e-5, err_msg=name)

  same('mc', backwards(lambda t, g: r[t] + d[t] * g, v[-1]))
  same('mc, ended', backwards(lambda t, g: r[t] + d[t] * g, 0.0))

  def mixed(t, g):
    return r[t] + d[t] * ((1 - lam[t]) * v[t + 1] + lam[t] * g)

  same('lambda', backwards(mixed, v[-1]))

  def n_steps(n):
    out = np.zeros(T)
    for t in range(T):
      end = min(t + n, T)
      out[t] = v[end]
      for k in reversed(range(t, end)):
        out[t] = r[k] + d[k] * out[t]
    return out

  same('3 steps', n_steps(3))

  def advantage(t, a):
    return r[t] + d[t] * v[t + 1] - v[t] + d[t] * lam[t] * a

  same('gae', backwards(advantage, 0.0))

  def v_trace(t, excess):  # G - v
    delta = min(1.2, rho[t]) * (r[t] + d[t] * v[t + 1] - v[t])
    return delta + d[t] * lam[t] * min(1, rho[t]) * excess

  excess = backwards(v_trace, 0.0)
  np.testing.assert_allclose(given['vtrace'].v_tm1, v[:-1] + excess, atol=1e-5)
  after = np.append(excess[1:], 0)
  np.testing.assert_allclose(
    given['vtrace'].advantage_tm1,
    np.minimum(0.9, rho) * (r + d * (v[1:] + lam * after) - v[:-1]),
    atol=1e-5,
  )


def test_they_reduce_to_each_other():
  r, d, v, lam, rho = sequences(1)
  given = all_of_them(r, d, v, lam, rho)

  def same(a, b):
    np.testing.assert_allclose(given[a], b, atol=1e-5, err_msg=a)

  same('one', given['mc'])
  same('all steps', given['mc'])
  same('more steps', given['mc'])
  same('zero', r + d * v[1:])
  same('1 step', given['zero'])
  same('gae', given['lambda'] - v[:-1])
  np.testing.assert_allclose(
    given['on policy'].v_tm1, given['lambda'], atol=1e-5
  )
  np.testing.assert_allclose(
    given['on policy'].advantage_tm1, given['gae'], atol=1e-5
  )


def test_what_follows_an_episode_is_not_seen():
  r, d, v, lam, rho = sequences()
  before = all_of_them(r, d, v, lam, rho)
  # The episode's last step is the fourth.
  r[4:], v[5:], lam[4:], rho[4:] = 9, 9, 0.3, 0.4
  after = all_of_them(r, d, v, lam, rho)
  for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    np.testing.assert_array_equal(x[:4], y[:4])
    assert not np.allclose(x[4:], y[4:])


def test_targets_are_constants():
  r, d, v, lam, rho = sequences()

  @jax.jit
  @jax.grad
  def gradient(v):
    return sum(
      jnp.sum(x) for x in jax.tree.leaves(all_of_them(r, d, v, lam, rho))
    )

  assert not np.any(gradient(v))


def test_whole_numbers_are_numbers():
  given = returns.mc_returns(jnp.array([1, 2]), jnp.array([1, 1]))
  assert given.dtype == jnp.float32
  assert given.tolist() == [3, 2]


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda x: returns.mc_returns(x[None], x[None]),
      r'r_t of shape \[1, 3\]; \[T\]',
    ),
    (
      lambda x: returns.mc_returns(x, x[:2]),
      r'discount_t of shape \[2\]; \[3\]',
    ),
    (lambda x: returns.mc_returns(x[:0], x[:0]), r'r_t of shape \[0\]; \[T\]'),
    (lambda x: returns.mc_returns(x, x, x), r'v_end of shape \[3\]; \[\]'),
    (
      lambda x: returns.lambda_returns(x, x, x, x[:2]),
      r'lambda_ of shape \[2\]',
    ),
    (lambda x: returns.n_step_returns(x, x, x, 0), 'n=0 steps; at least 1'),
    (
      lambda x: returns.gae(x, x, x, 1.0),
      r'v of shape \[3\].*\[4\] is possible',
    ),
    (lambda x: returns.vtrace(x, x, x, x, x[:1]), r'rho_tm1 of shape \[1\]'),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(UsageError, match=message):
    call(np.ones(3, np.float32))
