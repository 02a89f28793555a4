"""Layers that read an image as a sequence: row by row, and red, green, blue.

Van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel recurrent neural networks",
2016 [P]. Slides: deck 003, "PixelRNN".

    masked convolution      row LSTM            diagonal BiLSTM
        x x x               x x x x x           x x x x x
        x o .               . x x x .           x x x x x
        . . .               . . o . .           x x o . .

x is what o sees. The features of a layer are divided among the colours, R's
first: those of a colour see the colours before it in their own pixel, and their
own colour too in all layers but the first.

Shapes: N images, H height, W width, C input channels, D output channels.
"""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dl_lectures.nets.convolution import convolve
from dl_lectures.types import Array, UsageError


class MaskedConv2D(hk.Module):
  """A convolution that sees the pixels before it: [N, H, W, C] -> [.., D].

  [P], section 3.4 and figure 2.

  >>> def forward(x):
  ...   return MaskedConv2D(6, 7, sees_itself=False, colours=3)(x)
  >>> net = hk.without_apply_rng(hk.transform(forward))
  >>> images = jnp.zeros([2, 8, 8, 3])
  >>> net.apply(net.init(jax.random.key(0), images), images).shape
  (2, 8, 8, 6)
  """

  def __init__(
    self,
    output_channels: int,
    kernel_shape: int | tuple[int, int],
    *,
    sees_itself: bool,
    colours: int = 1,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      output_channels: D, a multiple of the colours.
      kernel_shape: height and width, odd.
      sees_itself: whether a colour of a pixel sees the inputs of that colour:
        False in the first layer (mask A of [P]), True in all others (mask B).
      colours: 1 or 3; C is a multiple of it.
      name: the module's name.
    """
    super().__init__(name=name)
    if isinstance(kernel_shape, int):
      kernel_shape = kernel_shape, kernel_shape
    if not all(size % 2 for size in kernel_shape):
      raise UsageError(
        f'a masked kernel of {list(kernel_shape)}; odd sizes are possible'
      )
    self.output_channels, self.kernel_shape = output_channels, kernel_shape
    self.sees_itself, self.colours = sees_itself, colours

  def __call__(self, x: Array) -> Array:
    mask = visible(
      self.kernel_shape,
      x.shape[-1],
      self.output_channels,
      self.colours,
      self.sees_itself,
    )
    # Of the inputs that are seen.
    fan_in = max(1.0, float(mask.sum()) / self.output_channels)
    w_init = hk.initializers.TruncatedNormal(fan_in**-0.5)
    w = hk.get_parameter('w', mask.shape, x.dtype, init=w_init)
    b = hk.get_parameter('b', mask.shape[-1:], x.dtype, init=jnp.zeros)
    return convolve(x, w * mask.astype(x.dtype)) + b[None, None, None]


def visible(
  kernel_shape: tuple[int, int],
  inputs: int,
  outputs: int,
  colours: int,
  sees_itself: bool,
) -> np.ndarray:
  """Where a masked kernel is not zero, [height, width, C, D] bool.

  >>> visible((1, 3), 3, 3, 3, False)[0, :, 0].astype(int).tolist()  # of red
  [[1, 1, 1], [0, 1, 1], [0, 0, 0]]

  Args:
    kernel_shape: height and width.
    inputs: C, those of each colour side by side.
    outputs: D, likewise.
    colours: their number.
    sees_itself: as for `MaskedConv2D`.
  """
  if inputs % colours or outputs % colours:
    raise UsageError(
      f'{inputs} to {outputs} channels of {colours} colours; multiples of '
      f'{colours} are possible'
    )
  height, width = kernel_shape
  mask = np.zeros((height, width, inputs, outputs), bool)
  mask[: height // 2] = True
  mask[height // 2, : width // 2] = True
  source = np.arange(inputs) // (inputs // colours)
  target = np.arange(outputs) // (outputs // colours)
  before = source[:, None] < target[None] + sees_itself
  mask[height // 2, width // 2] = before
  return mask


class RowLSTM(hk.Module):
  """An LSTM that goes down the rows: [N, H, W, C] -> [N, H, W, D].

  [P], section 3.1 and equation 3: a pixel's memory is made of those of the
  three pixels above it, so it sees a triangle. Input to state, a masked 1 x 3
  convolution of all rows at once.

  >>> net = hk.without_apply_rng(hk.transform(lambda x: RowLSTM(4)(x)))
  >>> images = jnp.zeros([2, 8, 8, 3])
  >>> net.apply(net.init(jax.random.key(0), images), images).shape
  (2, 8, 8, 4)
  """

  def __init__(
    self, hidden_size: int, colours: int = 1, name: str | None = None
  ):
    """Makes the module; D is `hidden_size`, `colours` as for `MaskedConv2D`."""
    super().__init__(name=name)
    self.hidden_size, self.colours = hidden_size, colours

  def __call__(self, x: Array) -> Array:
    sums = _input_to_state(x, self.hidden_size, (1, 3), self.colours)
    w = _state_to_state(3, self.hidden_size, x.dtype)

    def step(state, sums):
      h, c = state
      wide = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
      around = [wide[:, :-2], h, wide[:, 2:]]
      state = _cell(sums + jnp.concatenate(around, axis=-1) @ w, c)
      return state, state[0]

    zeros = jnp.zeros((x.shape[0], x.shape[2], self.hidden_size), x.dtype)
    _, h = lax.scan(step, (zeros, zeros), jnp.moveaxis(sums, 1, 0))
    return jnp.moveaxis(h, 0, 1)


class DiagonalBiLSTM(hk.Module):
  """LSTMs along the diagonals, from both sides: [N, H, W, C] -> [N, H, W, D].

  [P], section 3.2 and figure 3: a pixel's memory is made of those of the pixel
  above and the one beside it. So it sees everything above and to the left, and
  from the other side, one row up, everything above and to the right. A skewed
  image has its diagonals as columns, and a column is one step. (Above a first
  layer that does not see its own pixel, the last pixel of a row is out of sight
  of the next row's beginning, unless that layer's kernel reaches it.)

  >>> net = hk.without_apply_rng(hk.transform(lambda x: DiagonalBiLSTM(4)(x)))
  >>> images = jnp.zeros([2, 8, 8, 3])
  >>> net.apply(net.init(jax.random.key(0), images), images).shape
  (2, 8, 8, 4)
  """

  def __init__(
    self, hidden_size: int, colours: int = 1, name: str | None = None
  ):
    """Makes the module; D is `hidden_size`, `colours` as for `MaskedConv2D`."""
    super().__init__(name=name)
    self.hidden_size, self.colours = hidden_size, colours

  def __call__(self, x: Array) -> Array:
    layer = functools.partial(_DiagonalLSTM, self.hidden_size, self.colours)
    from_left = layer('from_left')(x)
    from_right = layer('from_right')(jnp.flip(x, axis=2))
    # What lies to the right of a pixel is not known before the next row.
    above = jnp.flip(from_right, axis=2)[:, :-1]
    return from_left + jnp.pad(above, ((0, 0), (1, 0), (0, 0), (0, 0)))


class _DiagonalLSTM(hk.Module):
  """From the left side."""

  def __init__(self, hidden_size: int, colours: int, name: str):
    super().__init__(name=name)
    self.hidden_size, self.colours = hidden_size, colours

  def __call__(self, x: Array) -> Array:
    sums = _input_to_state(x, self.hidden_size, (1, 1), self.colours)
    w = _state_to_state(2, self.hidden_size, x.dtype)
    inside = skew(jnp.ones((1, *x.shape[1:3], 1), bool))

    def step(state, inputs):
      sums, inside = inputs
      h, c = state  # of the diagonal before: the pixels on the left
      above = jnp.pad(h[:, :-1], ((0, 0), (1, 0), (0, 0)))
      new = _cell(sums + jnp.concatenate([above, h], axis=-1) @ w, c)
      new = tuple(jnp.where(inside, x, 0) for x in new)
      return new, new[0]

    zeros = jnp.zeros((*x.shape[:2], self.hidden_size), x.dtype)
    columns = jax.tree.map(
      functools.partial(jnp.moveaxis, source=2, destination=0),
      (skew(sums), inside),
    )
    _, h = lax.scan(step, (zeros, zeros), columns)
    return unskew(jnp.moveaxis(h, 0, 2))


def _input_to_state(x, units, kernel_shape, colours):
  """The four sums [N, H, W, 4 D], each with the colours' features in order."""
  convolution = MaskedConv2D(
    4 * units,
    kernel_shape,
    sees_itself=True,
    colours=colours,
    name='input_to_state',
  )
  sums = convolution(x).reshape(*x.shape[:3], colours, 4, units // colours)
  return jnp.swapaxes(sums, 3, 4).reshape(*x.shape[:3], 4 * units)


def _state_to_state(taps, units, dtype):
  """[taps D, 4 D]: what is before is seen whole, in all its colours."""
  w_init = hk.initializers.TruncatedNormal((taps * units) ** -0.5)
  shape = taps * units, 4 * units
  return hk.get_parameter('state_to_state', shape, dtype, init=w_init)


def _cell(sums, c):
  i, g, f, o = jnp.split(sums, 4, axis=-1)
  # The 1 keeps most of what is remembered at first, as in our other LSTMs.
  c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(c), c


def skew(x: Array) -> Array:
  """Moves each row one pixel further to the right than the one above it.

  >>> image = jnp.array([[1, 2], [3, 4], [5, 6]])
  >>> skew(image[None, :, :, None])[0, :, :, 0].tolist()
  [[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]]

  Args:
    x: [N, H, W, C].

  Returns:
    [N, H, W + H - 1, C].
  """
  n, height, width, channels = x.shape
  # With H zeros behind each row, a row of H + W - 1 begins one earlier.
  x = jnp.pad(x, ((0, 0), (0, 0), (0, height), (0, 0)))
  x = x.reshape(n, height * (width + height), channels)[:, :-height]
  return x.reshape(n, height, width + height - 1, channels)


def unskew(x: Array) -> Array:
  """Undoes `skew`: [N, H, W + H - 1, C] to [N, H, W, C].

  >>> image = jnp.arange(6).reshape(1, 2, 3, 1)
  >>> bool(jnp.all(unskew(skew(image)) == image))
  True
  """
  n, height, wide, channels = x.shape
  x = x.reshape(n, height * wide, channels)
  x = jnp.pad(x, ((0, 0), (0, height), (0, 0)))
  return x.reshape(n, height, wide + 1, channels)[:, :, : wide + 1 - height]
