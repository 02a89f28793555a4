"""The single-loss step against numbers worked out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures import training


def _square(params: Any, net_state: Any, key: jax.Array, batch: jax.Array):
  """(w x - 1)^2, counting calls in the network's state."""
  del key
  loss = jnp.mean((params['w'] * batch - 1.0) ** 2)
  counted: Any = {'count': {'calls': net_state['count']['calls'] + 1}}
  return loss, (counted, {'twice': 2 * loss})


def _start(w, optimizer):
  net_state: Any = {'count': {'calls': jnp.array(0)}}
  return training.init_state({'w': w}, net_state, optimizer)


def test_one_step_of_momentum_by_hand():
  optimizer = optax.sgd(0.1, momentum=0.5)
  step = training.make_step(_square, optimizer)
  state = _start(jnp.array(3.0), optimizer)
  batch = jnp.array([1.0, 1.0])
  # d/dw = 2 (w - 1): 4, then w = 2.6 and 3.2; momentum 4, then 3.2 + 2 = 5.2.
  state, metrics = step(state, batch, jax.random.key(0))
  np.testing.assert_allclose(metrics['loss'], 4.0)
  np.testing.assert_allclose(metrics['grad_norm'], 4.0)
  np.testing.assert_allclose(metrics['twice'], 8.0)
  np.testing.assert_allclose(state.params['w'], 2.6, rtol=1e-6)
  state, _ = step(state, batch, jax.random.key(0))
  np.testing.assert_allclose(state.params['w'], 2.6 - 0.52, rtol=1e-6)
  assert int(state.step) == 2
  assert state.step.dtype == jnp.int32
  assert int(state.net_state['count']['calls']) == 2


def test_metrics_keep_their_order_and_the_loss_may_override():
  def loss_fn(params, net_state, key, batch):
    del key, batch
    return params['w'] ** 2, (net_state, {'loss': jnp.array(7.0)})

  optimizer = optax.sgd(0.1)
  state = training.init_state({'w': jnp.array(3.0)}, {}, optimizer)
  _, metrics = training.make_step(loss_fn, optimizer)(
    state, None, jax.random.key(0)
  )
  assert list(metrics) == ['loss', 'grad_norm']
  assert float(metrics['loss']) == 7.0


def test_each_step_draws_anew_and_a_resumed_one_draws_the_same():
  def loss_fn(params, net_state, key, batch):
    del batch
    noise = jax.random.normal(key)
    return params['w'] * noise, (net_state, {'noise': noise})

  optimizer = optax.sgd(0.0)
  step = jax.jit(training.make_step(loss_fn, optimizer))
  start = training.init_state({'w': jnp.array(1.0)}, {}, optimizer)
  key = jax.random.key(5)
  middle, first = step(start, None, key)
  _, second = step(middle, None, key)
  _, again = step(start._replace(step=jnp.array(1, jnp.int32)), None, key)
  assert float(first['noise']) != float(second['noise'])
  assert float(again['noise']) == float(second['noise'])


def test_the_same_step_scans_and_vmaps():
  optimizer = optax.adam(0.1)
  step = training.make_step(_square, optimizer)
  key = jax.random.key(0)
  batches = jnp.linspace(0.5, 2.0, 12).reshape(3, 4)

  def scan(state):
    return jax.lax.scan(lambda s, b: step(s, b, key), state, batches)[0]

  members = jnp.array([3.0, -1.0])
  together = jax.jit(jax.vmap(lambda w: scan(_start(w, optimizer))))(members)
  jitted = jax.jit(step)
  for i, w in enumerate(members):
    state = _start(w, optimizer)
    for batch in batches:
      state, _ = jitted(state, batch, key)
    alone: Any = state.params
    np.testing.assert_allclose(together.params['w'][i], alone['w'], rtol=1e-6)
    assert int(together.step[i]) == 3
