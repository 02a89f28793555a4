import functools
import re

import haiku as hk
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dl_lectures import nets
from dl_lectures.types import UsageError


def by_xla(inputs, kernel, *, stride=(1, 1), rate=(1, 1), padding='SAME'):
  return lax.conv_general_dilated(
    inputs,
    kernel,
    stride,
    padding,
    rhs_dilation=rate,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def by_loops(inputs, kernel, weights, stride, rate, padding):
  """The output, and the gradients of sum(output * weights), in float64."""
  padded = np.pad(np.float64(inputs), ((0, 0), *padding, (0, 0)))
  output = np.zeros(weights.shape)
  to_padded, to_kernel = np.zeros_like(padded), np.zeros(kernel.shape)
  for i, j, row, column in np.ndindex(*kernel.shape[:2], *output.shape[1:3]):
    seen = (
      slice(None),
      row * stride[0] + i * rate[0],
      column * stride[1] + j * rate[1],
    )
    output[:, row, column] += padded[seen] @ kernel[i, j]
    to_kernel[i, j] += padded[seen].T @ weights[:, row, column]
    to_padded[seen] += weights[:, row, column] @ kernel[i, j].T
  (top, _), (left, _) = padding
  height, width = inputs.shape[1:3]
  to_inputs = to_padded[:, top : top + height, left : left + width]
  return output, to_inputs, to_kernel


def integers(shape, seed):
  """Whole numbers so small that every sum is exact, in whatever order."""
  return jnp.float32(np.random.default_rng(seed).integers(-3, 4, shape))


def gradients(convolve, inputs, kernel):
  """Output, and gradients of a sum that weights every output differently."""
  output, pullback = jax.vjp(convolve, inputs, kernel)
  weights = integers(output.shape, 9)
  return output, *pullback(weights.astype(output.dtype))


@pytest.mark.parametrize(
  ('kernel_shape', 'stride', 'rate', 'padding'),
  [
    ((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    ((3, 2), (2, 3), (1, 1), ((2, 1), (0, 3))),
    ((2, 3), (3, 1), (2, 3), ((1, 2), (3, 2))),
    ((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
    ((1, 1), (2, 2), (1, 1), ((0, 0), (0, 0))),
  ],
)
def test_equals_loops_exactly(kernel_shape, stride, rate, padding):
  inputs, kernel = integers([2, 7, 8, 3], 0), integers([*kernel_shape, 3, 4], 1)
  convolve = functools.partial(
    nets.convolve, stride=stride, rate=rate, padding=padding
  )
  output, to_inputs, to_kernel = gradients(convolve, inputs, kernel)
  expected = by_loops(
    inputs, kernel, integers(output.shape, 9), stride, rate, padding
  )
  np.testing.assert_array_equal(output, expected[0])
  np.testing.assert_array_equal(to_inputs, expected[1])
  np.testing.assert_array_equal(to_kernel, expected[2])


_pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@hypothesis.settings(max_examples=8, derandomize=True, deadline=None)
@hypothesis.given(
  kernel_shape=_pair,
  stride=_pair,
  rate=_pair,
  padding=st.sampled_from(['SAME', 'VALID', ((2, 0), (4, -1))]),
)
def test_gradients_equal_xlas(kernel_shape, stride, rate, padding):
  draw = np.random.default_rng(0)
  inputs = jnp.float32(draw.normal(size=[3, 11, 9, 2]))
  kernel = jnp.float32(draw.normal(size=[*kernel_shape, 2, 5]))

  @jax.jit
  def both(inputs, kernel):
    options = dict(stride=stride, rate=rate, padding=padding)
    ours, xlas = (
      gradients(functools.partial(convolve, **options), inputs, kernel)
      for convolve in (nets.convolve, by_xla)
    )
    return ours, xlas

  for a, b in zip(*both(inputs, kernel), strict=True):
    scale = float(jnp.max(jnp.abs(b)))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * scale)


def orders_in_a_loop(convolve):
  """How the arrays lie in each convolution that is compiled in a scan."""

  @jax.jit
  def train(kernel, images):
    def step(kernel, inputs):
      hidden = convolve(inputs, kernel)
      loss = lambda k: jnp.sum(convolve(hidden, k) ** 2)  # noqa: E731
      both = lambda i: jnp.sum(convolve(jnp.sin(i), kernel) ** 2)  # noqa: E731
      towards = jnp.sum(jax.grad(both)(inputs))
      return kernel - 1e-3 * jax.grad(loss)(kernel) + 1e-6 * towards, None

    return lax.scan(step, kernel, images)[0]

  images, kernel = jnp.ones([4, 8, 6, 7, 4]), jnp.ones([3, 3, 4, 4])
  program = train.lower(kernel, images).compile().as_text()
  assert program is not None
  return set(re.findall(r' convolution\(.*dim_labels=([^ ,]*)', program))


def test_every_convolution_in_a_loop_has_a_fast_kernel():
  # The only order that XLA:CPU has a fast kernel for. The second line sees to
  # it that the first one could fail.
  assert orders_in_a_loop(nets.convolve) == {'b01f_01io->b01f'}
  assert len(orders_in_a_loop(by_xla)) > 1


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
def test_accelerators_get_xlas_own_gradients(platform):
  def orders(convolve):
    def loss(inputs, kernel):
      return jnp.sum(convolve(inputs, kernel) ** 2)

    program = jax.jit(jax.grad(loss, (0, 1))).trace(
      jnp.ones([2, 6, 7, 3]), jnp.ones([3, 3, 3, 4])
    )
    text = program.lower(lowering_platforms=(platform,)).as_text()
    return re.findall(r'dim_numbers = (\S+)', text.replace(', ', ','))

  assert len(orders(by_xla)) == 3
  assert orders(nets.convolve) == orders(by_xla)


@pytest.mark.parametrize('over', ['images', 'kernels', 'both'])
def test_mapped_equals_one_by_one(over):
  inputs, kernel = integers([2, 2, 5, 6, 3], 0), integers([2, 3, 2, 3, 4], 1)
  axes = (None if over == 'kernels' else 0, None if over == 'images' else 0)
  convolve = functools.partial(nets.convolve, stride=(1, 2), rate=(2, 1))
  one = functools.partial(gradients, convolve)
  all_at_once = jax.jit(jax.vmap(one, axes))(
    inputs if axes[0] == 0 else inputs[0], kernel if axes[1] == 0 else kernel[0]
  )
  for member in (0, 1):
    chosen = [
      x[member if axis == 0 else 0]
      for x, axis in zip((inputs, kernel), axes, strict=True)
    ]
    for got, expected in zip(all_at_once, one(*chosen), strict=True):
      np.testing.assert_array_equal(got[member], expected)


def test_bfloat16_stays_and_is_exact_on_small_integers():
  inputs, kernel = integers([2, 5, 6, 3], 0), integers([3, 3, 3, 4], 1)
  exact = gradients(nets.convolve, inputs, kernel)
  halves = gradients(
    nets.convolve, inputs.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
  )
  for a, b in zip(halves, exact, strict=True):
    assert a.dtype == jnp.bfloat16
    np.testing.assert_array_equal(a, b.astype(jnp.bfloat16))


def test_second_derivatives_equal_xlas():
  inputs, kernel = integers([2, 4, 5, 2], 0), integers([2, 2, 2, 1], 1)

  def curvature(convolve):
    loss = lambda k: jnp.sum(convolve(inputs, k) ** 3)  # noqa: E731
    hessian = jax.hessian(loss)(kernel)  # Forward over reverse.
    slope = lambda k: jnp.sum(jax.grad(loss)(k) ** 2)  # noqa: E731
    return hessian, jax.grad(slope)(kernel)  # Reverse over reverse.

  both = jax.jit(lambda: (curvature(nets.convolve), curvature(by_xla)))()
  for ours, xlas in zip(*both, strict=True):
    np.testing.assert_allclose(ours, xlas, rtol=1e-6)


def test_a_batch_split_over_devices_gives_the_same_gradients():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  inputs, kernel = integers([16, 5, 6, 3], 0), integers([3, 3, 3, 4], 1)
  split = NamedSharding(mesh, PartitionSpec('data'))
  whole = jax.jit(functools.partial(gradients, nets.convolve))
  expected = whole(inputs, kernel)
  for got, want in zip(
    whole(jax.device_put(inputs, split), kernel), expected, strict=True
  ):
    np.testing.assert_array_equal(got, want)


def test_padding_before_alone_is_causal():
  inputs = jnp.ones([1, 6, 1, 1])
  padding = ((4, 0), (0, 0))

  def at(row, inputs):
    kernel = jnp.ones([3, 1, 1, 1])
    return nets.convolve(inputs, kernel, rate=2, padding=padding)[0, row, 0, 0]

  seen = [
    jax.grad(functools.partial(at, row))(inputs)[0, :, 0, 0] for row in (1, 5)
  ]
  assert seen[0].tolist() == [0, 1, 0, 0, 0, 0]
  assert seen[1].tolist() == [0, 1, 0, 1, 0, 1]


def test_an_unknown_padding_is_told_in_one_line():
  with pytest.raises(UsageError, match="'CAUSAL' is unknown: possible are 'S"):
    nets.convolve(
      jnp.ones([1, 3, 3, 1]), jnp.ones([1, 1, 1, 1]), padding='CAUSAL'
    )


def tower(num_blocks, norm=None, rates=(1,)):
  return hk.transform_with_state(
    lambda x, *args: nets.ResidualTower(3, num_blocks, norm, rates)(x, *args)
  )


def batch_norm():
  return hk.BatchNorm(True, True, 0.9)


def test_a_tower_without_norm_starts_as_its_first_convolution():
  boards, key = jax.random.normal(jax.random.key(0), [2, 6, 7, 2]), None
  params, _ = jax.jit(tower(4).init)(jax.random.key(1), boards)
  stem = {k: v for k, v in params.items() if '/stem/' in k}
  deep, _ = tower(4).apply(params, {}, key, boards)
  flat, _ = tower(0).apply(stem, {}, key, boards)
  assert jnp.max(flat) > 0
  np.testing.assert_array_equal(deep, flat)


def test_blocks_take_their_dilations_in_turn():
  pixels = jnp.zeros([1, 1, 41, 1]).at[0, 0, 20, 0].set(1.0)
  net = tower(3, rates=(1, 4))
  params, _ = jax.eval_shape(net.init, jax.random.key(0), pixels)
  ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
  reached = (
    net.apply(ones, {}, None, pixels)[0]
    - net.apply(ones, {}, None, jnp.zeros_like(pixels))[0]
  )
  columns = jnp.nonzero(reached[0, 0, :, 0])[0]
  # The first convolution 1, the blocks 2, 8 and 2 pixels to either side.
  assert (columns.min(), columns.max()) == (20 - 13, 20 + 13)


def test_batch_norm_learns_its_averages_in_training_only():
  boards = jax.random.normal(jax.random.key(0), [4, 6, 7, 2])
  net = tower(1, batch_norm)
  params, state = net.init(jax.random.key(1), boards, True)
  _, trained = net.apply(params, state, None, 2 * boards, True)
  _, tested = net.apply(params, state, None, 2 * boards, False)
  assert len(state) == 2 * 3  # Two averages after each of three convolutions.
  assert not any(name.endswith('/b') for name in params)
  same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), state, tested)
  assert all(jax.tree.leaves(same))
  moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state, trained)
  assert all(jax.tree.leaves(moved))


def test_a_norm_needs_to_know_whether_it_trains():
  boards = jnp.ones([1, 6, 7, 2])
  with pytest.raises(UsageError, match='without is_training'):
    tower(1, batch_norm).init(jax.random.key(0), boards)
