"""Who sees whom, pixel by pixel and colour by colour; recurrences by hand."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import pixels
from dl_lectures.types import UsageError

H, W = 4, 3


def transform(forward):
  return hk.without_apply_rng(hk.transform(forward))


def draw_like(shapes, seed=0):
  draw = np.random.default_rng(seed)
  return jax.tree.map(
    lambda w: jnp.float32(draw.normal(scale=0.5, size=w.shape)), shapes
  )


def seen(forward, colours):
  """[outputs, inputs] bool in raster order, R, G, B within a pixel."""
  net = transform(forward)
  x = jnp.float32(np.random.default_rng(1).normal(size=(1, H, W, colours)))
  params = draw_like(jax.eval_shape(net.init, jax.random.key(0), x))
  jacobian = jax.jit(jax.jacrev(net.apply, argnums=1))(params, x)
  return np.asarray(jacobian).reshape(H * W * colours, H * W * colours) != 0


def first(x, colours):
  return pixels.MaskedConv2D(
    2 * colours, 5, sees_itself=False, colours=colours
  )(x)


def last(x, colours):
  convolution = pixels.MaskedConv2D(
    colours, 1, sees_itself=True, colours=colours
  )
  return convolution(jnp.tanh(x))


@pytest.mark.parametrize('colours', [1, 3])
@pytest.mark.parametrize('kind', ['convolution', 'row', 'diagonal'])
def test_the_future_is_not_seen_nor_the_colour_itself(kind, colours):
  def forward(x):
    x = first(x, colours)
    if kind == 'row':
      x = pixels.RowLSTM(2 * colours, colours)(x)
    elif kind == 'diagonal':
      x = pixels.DiagonalBiLSTM(2 * colours, colours)(x)
    return last(x, colours)

  found = seen(forward, colours)
  before = np.tril(np.ones_like(found), -1)
  assert not found[~before].any()
  if kind == 'diagonal':
    # Nothing that was before is out of sight.
    np.testing.assert_array_equal(found, before)
  # The colours before, of the same pixel; the pixel before.
  at = (H - 1) * W * colours + colours
  assert found[at + colours - 1, at : at + colours - 1].all()
  assert found[at, at - colours : at].all()


def test_a_row_lstm_sees_a_triangle():
  """Its own row as far as the convolution, one pixel more for each row up."""
  found = seen(lambda x: pixels.RowLSTM(2)(x)[..., :1], 1)
  found = found.reshape(H, W, H, W)
  for i, j, y, x in np.ndindex(H, W, H, W):
    # Row y's sums see x - 1 and x, and rows up 1 to the side each.
    rise = i - y
    reach = rise >= 0 and j - rise - 1 <= x <= j + rise
    assert found[i, j, y, x] == reach, (i, j, y, x)


def test_a_diagonal_lstm_by_loops_over_pixels():
  net = transform(lambda x: pixels.DiagonalBiLSTM(2)(x))
  draw = np.random.default_rng(0)
  x = draw.normal(size=(1, H, W, 3))
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.float32(x))
  params = jax.tree.map(np.asarray, draw_like(shapes))

  def sigmoid(z):
    return 1 / (1 + np.exp(-z))

  def run(x, side):
    name = f'diagonal_bi_lstm/{side}'
    conv = params[f'{name}/input_to_state']
    u = params[name]['state_to_state']
    sums = x[0] @ conv['w'][0, 0] + conv['b']
    h, c = np.zeros((2, H + 1, W + 1, 2))  # with a border above and left
    for i, j in np.ndindex(H, W):
      z = np.concatenate([h[i, j + 1], h[i + 1, j]]) @ u + sums[i, j]
      a, g, f, o = np.split(z, 4)
      memory = sigmoid(f + 1) * c[i + 1, j] + sigmoid(a) * np.tanh(g)
      c[i + 1, j + 1] = memory
      h[i + 1, j + 1] = sigmoid(o) * np.tanh(memory)
    return h

  left = run(x, 'from_left')[1:, 1:]
  right = run(x[:, :, ::-1], 'from_right')[:-1, 1:][:, ::-1]
  np.testing.assert_allclose(
    jax.jit(net.apply)(params, jnp.float32(x))[0], left + right, atol=1e-5
  )


def test_masks_by_hand():
  one = pixels.visible((3, 3), 1, 1, 1, False)[:, :, 0, 0]
  np.testing.assert_array_equal(one, [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
  centre = pixels.visible((3, 3), 6, 3, 3, True)[1, 1]
  # R's two features, G's two, B's two, to R, G, B.
  expected = [[1, 1, 1]] * 2 + [[0, 1, 1]] * 2 + [[0, 0, 1]] * 2
  np.testing.assert_array_equal(centre, expected)
  centre = pixels.visible((3, 3), 3, 3, 3, False)[1, 1]
  np.testing.assert_array_equal(centre, [[0, 1, 1], [0, 0, 1], [0, 0, 0]])


def test_mistakes_are_named():
  with pytest.raises(UsageError, match=r'kernel of \[2, 3\]; odd'):
    transform(
      lambda x: pixels.MaskedConv2D(1, (2, 3), sees_itself=True)(x)
    ).init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
  with pytest.raises(UsageError, match='4 to 6 channels of 3 colours'):
    pixels.visible((1, 1), 4, 6, 3, True)
