"""What holds for every module of the model layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import nets


class Case(NamedTuple):
  make: Callable[[], Callable[..., Any]]
  shape: tuple[int, ...]
  count: int
  with_norm: bool = False


def norm():
  return hk.BatchNorm(True, True, 0.9)


CASES = {
  'convolution': Case(
    lambda: nets.Conv2D(5, (3, 2), stride=2), (4, 6, 7, 3), 3 * 2 * 3 * 5 + 5
  ),
  'convolution, dilated and without bias': Case(
    lambda: nets.Conv2D(5, 3, rate=2, with_bias=False), (4, 6, 7, 3), 9 * 3 * 5
  ),
  'tower': Case(
    lambda: nets.ResidualTower(4, 2, rates=(1, 2)),
    (4, 6, 7, 3),
    (9 * 3 * 4 + 4) + 2 * 2 * (9 * 4 * 4 + 4),
  ),
  'tower with norm': Case(
    lambda: nets.ResidualTower(4, 1, norm),
    (4, 6, 7, 3),
    (9 * 3 * 4 + 8) + 2 * (9 * 4 * 4 + 8),
    True,
  ),
  'mlp': Case(
    lambda: nets.MLP([8, 5], jax.nn.tanh), (4, 6), (6 * 8 + 8) + (8 * 5 + 5)
  ),
  'policy and value': Case(
    lambda: nets.PolicyValueHead(7, 3, 2, hidden=8),
    (4, 6, 7, 5),
    (5 * 3 + 3) + (126 * 7 + 7) + (5 * 2 + 2) + (84 * 8 + 8) + (8 + 1),
  ),
  'policy and value with norm': Case(
    lambda: nets.PolicyValueHead(7, 3, 2, hidden=8, norm=norm),
    (4, 6, 7, 5),
    (5 * 3 + 6) + (126 * 7 + 7) + (5 * 2 + 4) + (84 * 8 + 8) + (8 + 1),
    True,
  ),
}


@pytest.fixture(params=CASES, scope='module')
def net(request):
  """(apply(params, inputs) -> output, params, inputs, expected count)."""
  case = CASES[request.param]
  args = (True,) if case.with_norm else ()
  transformed = hk.transform_with_state(lambda x: case.make()(x, *args))
  draw = np.random.default_rng(0)
  inputs = jnp.float32(draw.normal(size=case.shape))
  shapes, state = jax.eval_shape(transformed.init, jax.random.key(1), inputs)
  # Not as they start: a block's last convolution would be zero.
  params = jax.tree.map(
    lambda x: jnp.float32(draw.normal(scale=0.2, size=x.shape)), shapes
  )
  state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)

  def apply(params, inputs):
    return transformed.apply(params, state, None, inputs)[0]

  return apply, params, inputs, case.count


def close(a, b, tolerance=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      np.float32(x), np.float32(y), rtol=tolerance, atol=tolerance
    ),
    a,
    b,
  )


def loss(apply, params, inputs):
  return sum(jnp.sum(x**2) for x in jax.tree.leaves(apply(params, inputs)))


def test_parameters_are_counted_by_hand(net):
  _, params, _, count = net
  assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_compiled_equals_eager(net):
  apply, params, inputs, _ = net
  close(jax.jit(apply)(params, inputs), apply(params, inputs))


def test_every_gradient_is_finite_and_none_is_cut_off(net):
  apply, params, inputs, _ = net
  gradients = jax.jit(jax.grad(lambda p: loss(apply, p, inputs)))(params)
  for gradient in jax.tree.leaves(gradients):
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.any(gradient != 0)


def test_a_population_equals_its_members(net):
  apply, params, inputs, _ = net
  members = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), params)
  step = jax.value_and_grad(lambda p: loss(apply, p, inputs))
  together = jax.jit(jax.vmap(step))(members)
  alone = jax.jit(step)
  for member in (0, 1):
    expected = alone(jax.tree.map(lambda x, m=member: x[m], members))
    close(jax.tree.map(lambda x, m=member: x[m], together), expected, 1e-4)


def test_bfloat16_in_is_bfloat16_out(net):
  apply, params, inputs, _ = net
  params_16, inputs_16 = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), (params, inputs)
  )
  outputs = jax.jit(apply)(params_16, inputs_16)
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(outputs))
  full = jax.jit(apply)(params, inputs)
  scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(full))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      np.float32(a), b, atol=0.05 * scale, rtol=0
    ),
    outputs,
    full,
  )
