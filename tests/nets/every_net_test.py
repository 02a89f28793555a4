"""What holds for every module of the model layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import nets
from dl_lectures.nets import attention, convolution, pixels, recurrent


class Case(NamedTuple):
  make: Callable[[], Callable[..., Any]]
  shape: tuple[int, ...]
  count: int
  with_norm: bool = False


# Arrays are NumPy's where nothing is differentiated: each of JAX's operations
# outside a compiled function is a program of its own to compile.
class Net(NamedTuple):
  apply: Callable[..., Any]
  step: Callable[..., Any]
  compiled_apply: Callable[..., Any]
  compiled_step: Callable[..., Any]
  params: Any
  inputs: np.ndarray
  count: int


def norm():
  return hk.BatchNorm(True, True, 0.9)


def looking(module):
  """Of whole sequences."""
  return lambda x: module(x, attention.look(x.shape[1]))[0]


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
  'bottleneck tower': Case(
    lambda: convolution.BottleneckTower(4, 2, rates=(1, 2)),
    (4, 6, 7, 3),
    (9 * 3 * 4 + 4)
    + 2 * ((4 * 2 + 2) + (9 * 2 * 2 + 2) + (2 * 4 + 4))
    + (9 * 4 * 4 + 4),
  ),
  'bottleneck tower with norm': Case(
    lambda: convolution.BottleneckTower(4, 1, norm),
    (4, 6, 7, 3),
    9 * 3 * 4 + (8 + 4 * 2) + (4 + 9 * 2 * 2) + (4 + 2 * 4) + (8 + 9 * 4 * 4),
    True,
  ),
  'mlp': Case(
    lambda: nets.MLP([8, 5], jax.nn.tanh), (4, 6), (6 * 8 + 8) + (8 * 5 + 5)
  ),
  'residual mlp': Case(
    lambda: nets.ResidualMLP(5, 2), (4, 6), (6 * 5 + 5) + 4 * (5 * 5 + 5)
  ),
  'selu mlp': Case(
    lambda: nets.SeluMLP([8, 5]), (4, 6), (6 * 8 + 8) + (8 * 5 + 5)
  ),
  'lstm': Case(lambda: nets.LSTM(5), (4, 6, 3), 4 * (3 * 5 + 5 * 5 + 5)),
  "lstm, RUDDER's": Case(
    lambda: nets.LSTM(5, recurrent.RUDDER), (4, 6, 3), 3 * 5 + 5 * 5 + 2 * 5
  ),
  'rnn': Case(lambda: nets.RNN(5), (4, 6, 3), 3 * 5 + 5 * 5 + 5),
  'gru': Case(lambda: nets.GRU(5), (4, 6, 3), 3 * (3 * 5 + 5 * 5 + 5)),
  'causal convolution': Case(
    lambda: lambda x: convolution.CausalConv1D(5, 3, 2)(x)[0],
    (4, 6, 3),
    3 * 3 * 5 + 5,
  ),
  'attention': Case(
    lambda: looking(attention.MultiHeadAttention(2)),
    (4, 6, 8),
    (8 * 24 + 24) + (8 * 8 + 8),
  ),
  'block of a transformer': Case(
    lambda: looking(attention.TransformerBlock(2, rotary=True)),
    (4, 6, 8),
    12 * 8 * 8 + 13 * 8,
  ),
  'additive attention': Case(
    lambda: lambda x: attention.AdditiveAttention(7)(x[:, 0], x, x)[0],
    (4, 6, 3),
    (3 * 7 + 7) + 3 * 7 + 7,
  ),
  'pointer': Case(
    lambda: lambda x: attention.Pointer(7)(x[:, 0], x),
    (4, 6, 3),
    (3 * 7 + 7) + 3 * 7 + 7,
  ),
  'masked convolution': Case(
    lambda: pixels.MaskedConv2D(6, 3, sees_itself=True, colours=3),
    (4, 5, 4, 3),
    9 * 3 * 6 + 6,
  ),
  'row LSTM': Case(
    lambda: pixels.RowLSTM(5),
    (4, 5, 4, 3),
    (3 * 3 * 20 + 20) + 3 * 5 * 20,
  ),
  'diagonal LSTM': Case(
    lambda: pixels.DiagonalBiLSTM(5),
    (4, 5, 4, 3),
    2 * ((3 * 20 + 20) + 2 * 5 * 20),
  ),
  'policy and value of no board': Case(
    lambda: nets.PolicyValueHead(7), (4, 6), (6 * 7 + 7) + (6 + 1)
  ),
  'policy and value': Case(
    lambda: nets.PolicyValueHead(7, 3, 2, hidden=8),
    (4, 6, 7, 5),
    (5 * 3 + 3) + (126 * 7 + 7) + (5 * 2 + 2) + (84 * 8 + 8) + (8 + 1),
  ),
  'policy by planes, and value': Case(
    lambda: nets.PolicyValueHead(42 * 3, 0, 2, hidden=8),
    (4, 6, 7, 5),
    (9 * 5 * 5 + 5) + (5 * 3 + 3) + (5 * 2 + 2) + (84 * 8 + 8) + (8 + 1),
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
  """A network, its compiled functions, and its number of parameters."""
  case = CASES[request.param]
  args = (True,) if case.with_norm else ()
  transformed = hk.transform_with_state(lambda x: case.make()(x, *args))
  draw = np.random.default_rng(0)
  inputs = draw.normal(size=case.shape).astype(np.float32)
  shapes, state = jax.eval_shape(transformed.init, jax.random.key(1), inputs)
  # Not as they start: a block's last convolution would be zero.
  params = jax.tree.map(
    lambda x: np.float32(draw.normal(scale=0.2, size=x.shape)), shapes
  )
  state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)

  def apply(params, inputs):
    return transformed.apply(params, state, None, inputs)[0]

  def loss(params, inputs):
    outputs = jax.tree.leaves(apply(params, inputs))
    return sum(jnp.sum(x**2) for x in outputs)

  step = jax.value_and_grad(loss)
  compiled = jax.jit(apply), jax.jit(step)
  return Net(apply, step, *compiled, params, inputs, case.count)


def close(a, b, tolerance=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      np.float32(x), np.float32(y), rtol=tolerance, atol=tolerance
    ),
    a,
    b,
  )


def test_parameters_are_counted_by_hand(net):
  assert sum(x.size for x in jax.tree.leaves(net.params)) == net.count


def test_compiled_equals_eager(net):
  close(
    net.compiled_apply(net.params, net.inputs),
    net.apply(net.params, net.inputs),
  )


def test_every_gradient_is_finite_and_none_is_cut_off(net):
  _, gradients = net.compiled_step(net.params, net.inputs)
  for gradient in jax.tree.leaves(gradients):
    assert np.isfinite(gradient).all()
    assert np.any(gradient)


def test_a_population_equals_its_members(net):
  first, second = net.params, jax.tree.map(lambda x: x / 2, net.params)
  members = jax.tree.map(lambda *x: np.stack(x), first, second)
  together = jax.jit(jax.vmap(net.step, (0, None)))(members, net.inputs)
  together = jax.device_get(together)
  for index, member in enumerate((first, second)):
    mine = jax.tree.map(lambda x, i=index: x[i], together)
    close(mine, net.compiled_step(member, net.inputs), 1e-4)


def test_bfloat16_in_is_bfloat16_out(net):
  halves = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), (net.params, net.inputs)
  )
  outputs = jax.tree.leaves(net.compiled_apply(*halves))
  full = jax.tree.leaves(net.compiled_apply(net.params, net.inputs))
  for half, expected in zip(outputs, full, strict=True):
    assert half.dtype == jnp.bfloat16
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
      np.float32(half), expected, atol=0.05 * scale, rtol=0
    )
