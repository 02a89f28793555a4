"""Fast and slow memories, against their LSTMs unrolled by hand."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import nets
from dl_lectures.nets import hierarchy
from dl_lectures.types import UsageError

B, T, F, H, Z, BLOCK = 2, 8, 3, 5, 4, 2


def forward(x, memory, noise, period, gradient, number=0):
  core = hierarchy.TemporalHierarchy(H, Z, BLOCK)
  return core(x, memory, noise, period, gradient, number)


net = hk.without_apply_rng(hk.transform(forward))
apply = jax.jit(net.apply)
DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.normal(size=(B, T, F)), jnp.float32)
NOISE = jnp.asarray(DRAW.normal(size=(B, T, Z)), jnp.float32)
ONE = jnp.float32(1)
zero = hierarchy.zero(B, H)
params = jax.jit(net.init)(jax.random.key(0), X, zero, NOISE, 1, ONE)


def cell(name):
  """The LSTM of this name alone: (x [B, F], state) -> (h, state)."""
  one = hk.without_apply_rng(
    hk.transform(lambda x, state: nets.LSTM(H, name=name).step(x, state))
  )
  own = {name: params[f'temporal_hierarchy/{name}']}
  return lambda x, state: one.apply(own, x, state)


@pytest.mark.parametrize('period', [1, 3])
def test_the_slow_memory_goes_on_every_period(period):
  thought, memory = apply(params, X, zero, NOISE, jnp.int32(period), ONE)
  slow, fast, y = zero.slow, zero.fast, []
  for t in range(T):
    if t % (BLOCK * period) == 0:
      _, slow = cell('slow')(fast.hidden, slow)
    x = jnp.concatenate([X[:, t], slow.hidden], axis=-1)
    h, fast = cell('fast')(x, fast)
    y.append(h)
  np.testing.assert_allclose(thought.fast, jnp.stack(y, 1), atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    memory,
    hierarchy.Memory(slow, fast),
  )
  expected = [t % (BLOCK * period) == 0 for t in range(T)]
  assert thought.ticks.tolist() == expected
  z = thought.posterior.mean + thought.posterior.deviation * NOISE
  np.testing.assert_allclose(thought.z, z, atol=1e-6)


def test_steps_one_by_one_are_the_unroll():
  period = jnp.int32(2)
  whole, after = apply(params, X, zero, NOISE, period, ONE)
  memory, z = zero, []
  for t in range(T):
    one = X[:, t : t + 1], memory, NOISE[:, t : t + 1]
    thought, memory = apply(params, *one, period, ONE, jnp.int32(t))
    z.append(thought.z)
  np.testing.assert_allclose(whole.z, jnp.concatenate(z, 1), atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), memory, after
  )


def test_the_gradient_to_the_slow_memory_has_its_share():
  """All of what reaches the slow weights through the fast memory once."""

  def loss(params, gradient):
    # One period only: gradients of a slow step do not come back to itself.
    thought, _ = net.apply(params, X, zero, NOISE, jnp.int32(4), gradient)
    return jnp.sum(jnp.square(thought.fast))

  grad = jax.jit(jax.grad(loss))
  whole, half, none = (
    grad(params, jnp.float32(share))['temporal_hierarchy/slow']['b']
    for share in (1, 0.5, 0)
  )
  assert float(jnp.abs(whole).sum()) > 0.01
  np.testing.assert_allclose(half, whole / 2, rtol=1e-5)
  np.testing.assert_array_equal(none, 0)


def test_divergence_is_the_mean_of_the_log_ratio():
  of = hierarchy.Gaussian(jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0]))
  other = hierarchy.Gaussian(jnp.array([0.0, 1.0]), jnp.array([1.0, 1.5]))
  found = hierarchy.divergence(of, other)
  of, other = jax.device_get((of, other))
  drawn = DRAW.normal(size=(200_000, 2)) * of.deviation + of.mean

  def log_density(x, g):
    return -(((x - g.mean) / g.deviation) ** 2) / 2 - np.log(g.deviation)

  ratio = (log_density(drawn, of) - log_density(drawn, other)).sum(axis=1)
  np.testing.assert_allclose(found, ratio.mean(), atol=0.02)


def test_lengths_that_do_not_fit_are_refused():
  with pytest.raises(UsageError, match='7 steps in blocks of 2'):
    jax.eval_shape(
      net.apply, params, X[:, :7], zero, NOISE[:, :7], jnp.int32(1), ONE
    )
