"""Descent on functions whose minima are known."""

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.ops import descent


def rosenbrock(x, progress=1.0):
  del progress
  return (1 - x['a']) ** 2 + 5 * (x['b'] - x['a'] ** 2) ** 2


def test_both_find_the_bottom_of_a_valley():
  start = {'a': jnp.array(-1.0), 'b': jnp.array(1.0)}
  by_adam, trace = jax.jit(lambda x: descent.adam(rosenbrock, x, 500, 0.1))(
    start
  )
  assert trace.shape == (500,)
  assert trace[0] == 4
  np.testing.assert_allclose([by_adam['a'], by_adam['b']], 1, atol=0.05)
  found, trace = jax.jit(lambda x: descent.lbfgs(rosenbrock, x, 60))(start)
  assert trace.shape == (60,)
  assert (jnp.diff(trace) <= 0).all()
  np.testing.assert_allclose([found['a'], found['b']], 1, atol=1e-3)
  assert float(trace[-1]) == float(rosenbrock(found))


def test_progress_runs_to_one():
  _, trace = descent.adam(
    lambda x, progress: 0 * x + progress, jnp.array(0.0), 4, 0.1
  )
  np.testing.assert_allclose(trace, [0.25, 0.5, 0.75, 1.0])


def test_starts_side_by_side_are_starts_alone():
  def loss(x):
    return jnp.sum((x - jnp.array([1.0, -2.0])) ** 4)

  starts = jnp.array([[0.0, 0.0], [3.0, 1.0]])
  run = jax.jit(lambda x: descent.lbfgs(loss, x, 30)[0])
  together = jax.jit(jax.vmap(lambda x: descent.lbfgs(loss, x, 30)[0]))(starts)
  for one, start in zip(together, starts, strict=True):
    np.testing.assert_allclose(one, run(start), atol=1e-3)
