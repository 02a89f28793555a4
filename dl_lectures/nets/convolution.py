"""Convolutions that are fast inside loops on the CPU too, and residual towers.

XLA:CPU has a fast kernel for a convolution whose arrays lie as [N, H, W, C] and
a naive one, 30 times slower, for any other order. A convolution's gradients are
convolutions with batch and channels exchanged. At the top level of a program
XLA transposes them for the fast kernel; inside a loop (`lax.scan`, `lax.map`,
`fori_loop`) it does not. `convolve` has gradients of its own that are already
in order, so that a training step is written once and may be scanned, mapped or
sharded. Accelerators keep XLA's own gradients.

Shapes: N batch, H height, W width, C input channels, D output channels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.nets.linear import product
from dl_lectures.types import Array, UsageError

Padding = str | Sequence[tuple[int, int]]
Normalise = Callable[[Array, bool], Array]

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
# Keeps the signal's size through a ReLU (He et al. 2015, equation 10).
_he_normal = hk.initializers.VarianceScaling(2.0)


class _Window(NamedTuple):
  """How a kernel moves: hashable, so that it may be a static argument."""

  stride: tuple[int, int]
  rate: tuple[int, int]
  pads: tuple[tuple[int, int], tuple[int, int]]


def convolve(
  inputs: Array,
  kernel: Array,
  *,
  stride: int | tuple[int, int] = 1,
  rate: int | tuple[int, int] = 1,
  padding: Padding = 'SAME',
) -> Array:
  """Convolves images with a kernel.

  Differentiable in reverse mode, and in either mode after that (`jax.hessian`);
  `jax.jvp` of it alone raises. On the CPU a population, kernels with an axis of
  their own, is best mapped: `vmap` makes one grouped convolution of it, for
  which XLA:CPU takes 4 times as long as `lax.map`.

  >>> images, kernel = jnp.ones([1, 3, 3, 1]), jnp.ones([3, 3, 1, 1])
  >>> convolve(images, kernel)[0, :, :, 0].tolist()
  [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]

  Args:
    inputs: [N, H, W, C].
    kernel: [height, width, C, D], of the inputs' dtype.
    stride: steps of the window, in pixels.
    rate: distance of the kernel's taps, in pixels (dilation; 1 is dense).
    padding: 'SAME', 'VALID', or (before, after) for height and for width:
      ((2, 0), (2, 0)) makes a 3x3 kernel causal.

  Returns:
    [N, H', W', D].

  Raises:
    UsageError: the padding is none of these.
  """
  stride, rate = _pair(stride), _pair(rate)
  if padding in ('SAME', 'VALID'):
    extents = [
      (k - 1) * r + 1 for k, r in zip(kernel.shape[:2], rate, strict=True)
    ]
    padding = lax.padtype_to_pads(inputs.shape[1:3], extents, stride, padding)
  elif isinstance(padding, str):
    raise UsageError(
      f"padding {padding!r} is unknown: possible are 'SAME', 'VALID' and"
      ' (before, after) for height and for width.'
    )
  height, width = padding
  window = _Window(stride, rate, (tuple(height), tuple(width)))
  if kernel.shape[:2] == stride == (1, 1) and not any((*height, *width)):
    # A matrix product, and so are its gradients.
    return product(inputs, kernel[0, 0])
  return _convolve(window, inputs, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: _Window, inputs: Array, kernel: Array) -> Array:
  return _xla_convolve(window, inputs, kernel)


def _xla_convolve(window: _Window, inputs: Array, kernel: Array) -> Array:
  return lax.conv_general_dilated(
    inputs,
    kernel,
    window_strides=window.stride,
    padding=window.pads,
    rhs_dilation=window.rate,
    dimension_numbers=_LAYOUT,
  )


def _forward(window, inputs, kernel):
  return _xla_convolve(window, inputs, kernel), (inputs, kernel)


def _backward(window, residuals, gradient):
  inputs, kernel = residuals
  # The choice is made when the program is lowered, so a program that is placed
  # on the CPU of a machine with a GPU gets the CPU's gradient.
  return lax.platform_dependent(
    inputs,
    kernel,
    gradient,
    cpu=functools.partial(_cpu_gradients, window),
    default=functools.partial(_xla_gradients, window),
  )


def _xla_gradients(window, inputs, kernel, gradient):
  _, pullback = jax.vjp(
    functools.partial(_xla_convolve, window), inputs, kernel
  )
  return pullback(gradient)


def _cpu_gradients(window, inputs, kernel, gradient):
  return (
    _input_gradient(window, inputs.shape, kernel, gradient),
    _kernel_gradient(window, inputs, kernel, gradient),
  )


def _input_gradient(window, shape, kernel, gradient):
  """Convolves the spread-out gradient with the flipped kernel: [N, H, W, C]."""
  stride, rate, pads = window
  spread = [(0, 0, 0)]
  for axis in (0, 1):
    before = (kernel.shape[axis] - 1) * rate[axis] - pads[axis][0]
    length = (gradient.shape[axis + 1] - 1) * stride[axis] + 1
    after = shape[axis + 1] - length + pads[axis][0]
    spread.append((before, after, stride[axis] - 1))
  # Spread here and not by the convolution: lhs_dilation has no fast kernel.
  gradient = lax.pad(
    gradient, jnp.zeros((), gradient.dtype), [*spread, (0, 0, 0)]
  )
  flipped = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
  dense = _Window((1, 1), rate, ((0, 0), (0, 0)))
  return _xla_convolve(dense, gradient, flipped)


def _kernel_gradient(window, inputs, kernel, gradient):
  """Convolves the inputs with the gradient, over the batch: [.., .., C, D].

  Channels stand as the batch, the batch as channels, and the gradient as the
  kernel, whose taps lie a stride apart and which moves by the rate.
  """
  stride, rate, pads = window

  def cover(axis: int) -> tuple[int, int]:
    before, length = pads[axis][0], inputs.shape[axis + 1]
    taps = (kernel.shape[axis] - 1) * rate[axis]
    extent = (gradient.shape[axis + 1] - 1) * stride[axis] + 1
    return before, taps + extent - before - length

  channels_first = jnp.transpose(inputs, (3, 1, 2, 0))
  as_kernel = jnp.transpose(gradient, (1, 2, 0, 3))
  moved = _Window(rate, stride, (cover(0), cover(1)))
  gradient = _xla_convolve(moved, channels_first, as_kernel)
  return jnp.transpose(gradient, (1, 2, 0, 3))


_convolve.defvjp(_forward, _backward)


class Conv2D(hk.Module):
  """A convolution of images [N, H, W, C] -> [N, H', W', D]; see `convolve`.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: Conv2D(8, 3)(x)))
  >>> images = jnp.zeros([2, 6, 7, 3])
  >>> net.apply(net.init(jax.random.key(0), images), images).shape
  (2, 6, 7, 8)
  """

  def __init__(
    self,
    output_channels: int,
    kernel_shape: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    rate: int | tuple[int, int] = 1,
    padding: Padding = 'SAME',
    with_bias: bool = True,
    w_init: hk.initializers.Initializer | None = None,
    b_init: hk.initializers.Initializer | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      output_channels: D.
      kernel_shape: height and width of the kernel.
      stride: as for `convolve`.
      rate: as for `convolve`.
      padding: as for `convolve`.
      with_bias: whether a bias per output channel is added.
      w_init: initialiser of the kernel [height, width, C, D]; truncated normal
        with variance 1 / fan-in by default.
      b_init: initialiser of the bias [D]; zeros by default.
      name: the module's name.
    """
    super().__init__(name=name)
    self.output_channels = output_channels
    self.kernel_shape = _pair(kernel_shape)
    self.stride, self.rate, self.padding = stride, rate, padding
    self.with_bias = with_bias
    self.w_init = w_init or hk.initializers.VarianceScaling(1.0)
    self.b_init = b_init or jnp.zeros

  def __call__(self, inputs: Array) -> Array:
    shape = (*self.kernel_shape, inputs.shape[-1], self.output_channels)
    kernel = hk.get_parameter('w', shape, inputs.dtype, init=self.w_init)
    outputs = convolve(
      inputs,
      kernel,
      stride=self.stride,
      rate=self.rate,
      padding=self.padding,
    )
    if self.with_bias:
      bias = hk.get_parameter('b', shape[-1:], inputs.dtype, init=self.b_init)
      outputs += bias[None, None, None, :]
    return outputs


class CausalConv1D(hk.Module):
  """A convolution of sequences that sees the past: [B, T, C] -> [B, T, D].

  y_t = b + sum over taps j of W_j x_{t - j rate}: one matrix product of the
  taps side by side, whose gradients are products too. Before the beginning of
  a sequence there are zeros.

  >>> net = hk.without_apply_rng(
  ...   hk.transform(lambda x: CausalConv1D(8, 2, rate=4)(x)[0]))
  >>> sequences = jnp.zeros([2, 20, 3])
  >>> params = net.init(jax.random.key(0), sequences)
  >>> net.apply(params, sequences).shape, params['causal_conv1_d']['w'].shape
  ((2, 20, 8), (2, 3, 8))
  """

  def __init__(
    self,
    output_channels: int,
    kernel_size: int,
    rate: int = 1,
    with_bias: bool = True,
    w_init: hk.initializers.Initializer | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      output_channels: D.
      kernel_size: the number of taps.
      rate: their distance (dilation).
      with_bias: whether a bias per output channel is added.
      w_init: of the taps [kernel_size, C, D], the last one that of the present;
        truncated normal with variance 1 / fan-in by default.
      name: the module's name.
    """
    super().__init__(name=name)
    self.output_channels, self.with_bias = output_channels, with_bias
    self.kernel_size, self.rate = kernel_size, rate
    self.w_init = w_init or hk.initializers.VarianceScaling(1.0)

  def __call__(
    self,
    x: Array,
    position: Array | None = None,
    ring: Array | None = None,
    number: Array | int = 0,
  ) -> tuple[Array, Array | None]:
    """Convolves.

    Args:
      x: [B, T, C].
      position: [B, T] int32, elements since the beginning of the sequence; None
        for sequences that all begin with x. Needed with a ring.
      ring: [B, (kernel_size - 1) rate, C], what came before: element n in slot
        n modulo its length.
      number: [] int32, that of x's first element.

    Returns:
      [B, T, D], and the ring with x in it. A single element is added in a time
      that does not depend on the ring's length.
    """
    shape = self.kernel_size, x.shape[-1], self.output_channels
    w = hk.get_parameter('w', shape, x.dtype, init=self.w_init)
    length, reach = x.shape[1], (self.kernel_size - 1) * self.rate
    delays = [j * self.rate for j in reversed(range(self.kernel_size))]
    if ring is None or not reach:
      past = jnp.pad(x, ((0, 0), (reach, 0), (0, 0)))
      taps = [past[:, reach - d : reach - d + length] for d in delays]
    elif length == 1:
      slots = [(number - d) % reach for d in delays[:-1]]
      taps = [lax.dynamic_slice_in_dim(ring, slot, 1, 1) for slot in slots]
      taps.append(x)
      new = x.astype(ring.dtype)
      ring = lax.dynamic_update_slice_in_dim(ring, new, slots[0], 1)
    else:
      past = jnp.roll(ring, -number % reach, axis=1)
      past = jnp.concatenate([past, x.astype(ring.dtype)], axis=1)
      taps = [past[:, reach - d : reach - d + length] for d in delays]
      ring = jnp.roll(past[:, length:], (number + length) % reach, axis=1)
    if position is not None:
      taps = [
        jnp.where(position[:, :, None] >= d, tap, 0) if d else tap
        for d, tap in zip(delays, taps, strict=True)
      ]
    both = jnp.concatenate(taps, axis=-1)
    y = product(both, w.reshape(-1, self.output_channels))
    if self.with_bias:
      b = hk.get_parameter('b', shape[-1:], x.dtype, init=jnp.zeros)
      y += b[None, None]
    return y, ring


class ResidualTower(hk.Module):
  """A 3x3 convolution and residual blocks of two: [N, H, W, C] -> [.., D].

  The tower of AlphaGo Zero (Silver et al. 2017, Methods, "Neural network
  architecture"): convolution, norm, ReLU, and `num_blocks` times

    x <- relu(x + norm(conv(relu(norm(conv(x))))))

  Without a norm the last convolution of every block starts at zero, as in
  Fixup (Zhang et al. 2019, section 3): each block is the identity at first, so
  that depth neither explodes nor kills the signal.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: ResidualTower(8, 2)(x)))
  >>> boards = jnp.zeros([2, 6, 7, 3])
  >>> net.apply(net.init(jax.random.key(0), boards), boards).shape
  (2, 6, 7, 8)
  """

  def __init__(
    self,
    channels: int,
    num_blocks: int,
    norm: Callable[[], Normalise] | None = None,
    rates: Sequence[int] = (1,),
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      channels: D, of every convolution.
      num_blocks: the number of residual blocks (a paper's "20 blocks" may count
        the first convolution too).
      norm: makes a module that is called with (activations, is_training), such
        as `lambda: hk.BatchNorm(True, True, 0.99)`; None for none.
      rates: dilations, taken by the blocks in turn: (1, 2, 4, 8) for AlphaFold.
      name: the module's name.
    """
    super().__init__(name=name)
    self.channels, self.num_blocks = channels, num_blocks
    self.norm, self.rates = norm, tuple(rates)

  def __call__(self, inputs: Array, is_training: bool | None = None) -> Array:
    """Applies the tower; `is_training` is the norm's and needed with one."""
    convolution = functools.partial(
      Conv2D, self.channels, 3, with_bias=self.norm is None
    )
    normalise = functools.partial(
      apply_norm, self.norm, is_training=is_training
    )
    last_init = jnp.zeros if self.norm is None else _he_normal
    with hk.name_scope('stem'):
      x = convolution(w_init=_he_normal)(inputs)
      x = jax.nn.relu(normalise(x))
    for block in range(self.num_blocks):
      rate = self.rates[block % len(self.rates)]
      with hk.name_scope(f'block_{block}'):
        y = convolution(rate=rate, w_init=_he_normal)(x)
        y = jax.nn.relu(normalise(y))
        y = convolution(rate=rate, w_init=last_init)(y)
        x = jax.nn.relu(x + normalise(y))
    return x


class BottleneckTower(hk.Module):
  """Residual blocks that are narrow inside: [N, H, W, C] -> [.., D].

  The towers of AlphaFold's network of 2018 (Senior et al. 2020, Methods; its
  code, two_dim_resnet): a 3x3 convolution, `num_blocks` times

    x <- x + 1x1(f(3x3 dilated(f(1x1(f(x))))))    D -> D/2 -> D/2 -> D

  where f is norm and ELU, and after another f a last 3x3 convolution. A tower
  of n layers as they are counted there has n - 2 blocks. Without a norm the
  last convolution of every block starts at zero, as in `ResidualTower`.

  >>> def forward(x):
  ...   return BottleneckTower(8, 2)(x)
  >>> net = hk.without_apply_rng(hk.transform(forward))
  >>> maps = jnp.zeros([2, 16, 16, 3])
  >>> net.apply(net.init(jax.random.key(0), maps), maps).shape
  (2, 16, 16, 8)
  """

  def __init__(
    self,
    channels: int,
    num_blocks: int,
    norm: Callable[[], Normalise] | None = None,
    rates: Sequence[int] = (1, 2, 4, 8),
    dropout: float = 0.0,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      channels: D, an even number.
      num_blocks: the number of residual blocks.
      norm: as for `ResidualTower`.
      rates: dilations, taken by the blocks in turn.
      dropout: the share of a block's channels that are put out in training,
        whole maps (Tompson et al. 2015), which needs few random numbers.
      name: the module's name.
    """
    super().__init__(name=name)
    self.channels, self.num_blocks = channels, num_blocks
    self.norm, self.rates, self.dropout = norm, tuple(rates), dropout

  def __call__(self, inputs: Array, is_training: bool | None = None) -> Array:
    """Applies the tower; `is_training` is the norm's and dropout's."""
    with_bias = self.norm is None
    last_init = jnp.zeros if self.norm is None else _he_normal

    def f(x: Array) -> Array:
      return jax.nn.elu(apply_norm(self.norm, x, is_training=is_training))

    def convolution(channels: int, size: int, **how) -> Conv2D:
      how = {'w_init': _he_normal, **how}
      return Conv2D(channels, size, with_bias=with_bias, **how)

    with hk.name_scope('stem'):
      x = convolution(self.channels, 3)(inputs)
    for block in range(self.num_blocks):
      rate = self.rates[block % len(self.rates)]
      with hk.name_scope(f'block_{block}'):
        y = convolution(self.channels // 2, 1)(f(x))
        y = f(convolution(self.channels // 2, 3, rate=rate)(f(y)))
        if self.dropout and is_training:
          y = _drop_channels(y, self.dropout)
        x += convolution(self.channels, 1, w_init=last_init)(y)
    with hk.name_scope('last'):
      return convolution(self.channels, 3)(f(x))


def _drop_channels(x: Array, rate: float) -> Array:
  """Puts out whole maps of [N, H, W, C], and makes the others louder."""
  shape = x.shape[0], 1, 1, x.shape[-1]
  kept = jax.random.bernoulli(hk.next_rng_key(), 1 - rate, shape)
  return x * (kept / (1 - rate)).astype(x.dtype)


def apply_norm(
  norm: Callable[[], Normalise] | None, x: Array, is_training: bool | None
) -> Array:
  """Makes and applies a norm inside a module; None is the identity.

  Raises:
    UsageError: there is a norm and is_training is None.
  """
  if norm is None:
    return x
  if is_training is None:
    raise UsageError(
      'a network with a norm was called without is_training: give True or'
      ' False.'
    )
  return norm()(x, is_training)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
  if isinstance(value, tuple):
    return value
  return (value, value)
