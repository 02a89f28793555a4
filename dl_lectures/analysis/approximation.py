"""What networks of one hidden layer can and cannot represent.

  xor        two hidden units are enough; are they found by gradient descent?
  bumps      two sigmoids side by side make a bump, and bumps any function
             (Cybenko 1989; Hornik 1991): the picture of the slides, built
  corners    ReLUs make any polyline, so that the error falls as 1 / width^2
  products   <x, z> is one multiplicative unit, and no finite MLP
             (Jayakumar et al. 2020)

Slides: deck 004, "XOR", "Universal approximation theorem", "Multiplicative
interactions".

Shapes: N examples, D numbers of each, W hidden units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures.ops import descent
from dl_lectures.types import Array, Key

Function = Callable[[np.ndarray], np.ndarray]

# On [0, 1]: smooth, with a corner, with an infinite slope.
FUNCTIONS: dict[str, Function] = {
  'sine': lambda x: np.sin(2 * np.pi * x),
  'corner': lambda x: np.abs(2 * x - 1),
  'root': np.sqrt,
}


class Hidden(NamedTuple):
  """A network of one hidden layer, y = f(x W + b) v + c, of JAX or of NumPy.

  Attributes:
    w: [D, W].
    b: [W].
    v: [W].
    c: [].
  """

  w: Any
  b: Any
  v: Any
  c: Any


def apply(net: Hidden, x: Any, activation: Callable[[Any], Any]) -> Any:
  """The network's outputs, [N, D] to [N]."""
  return activation(x @ net.w + net.b[None]) @ net.v + net.c


def draw_hidden(key: Key, inputs: int, width: int) -> Hidden:
  """Weights of variance 1 / fan-in, small biases; consumes the key."""
  first, second, third = jax.random.split(key, 3)
  return Hidden(
    jax.random.normal(first, (inputs, width)) * inputs**-0.5,
    0.1 * jax.random.normal(second, (width,)),
    jax.random.normal(third, (width,)) * width**-0.5,
    jnp.float32(0),
  )


# The slides' solution of exclusive or: one unit for each of the two corners of
# class 1, so far out that a sigmoid is nearly a step.
XOR_BY_HAND = Hidden(
  jnp.array([[-1.0, 1.0], [1.0, -1.0]]),
  jnp.array([-4.0, -4.0]),
  jnp.array([1.0, 1.0]),
  jnp.float32(-0.5),
)


def learn_xor(
  x: Array,
  label: Array,
  width: int,
  activation: Callable[[Array], Array],
  key: Key,
  *,
  steps: int = 2000,
  learning_rate: float = 0.05,
) -> Array:
  """Whether gradient descent finds a network that is right everywhere, [].

  Adam on the cross entropy of all points.

  Args:
    x: [N, 2].
    label: [N], 0 or 1.
    width: W; 0 for logistic regression.
    activation: f.
    key: consumed.
    steps: updates.
    learning_rate: at first.
  """

  def logit(net: Hidden) -> Array:
    return apply(net, x, activation if width else lambda y: y)

  def loss(net: Hidden, progress: Array) -> Array:
    del progress
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logit(net), label))

  net = draw_hidden(key, x.shape[1], width or 1)
  net, _ = descent.adam(loss, net, steps, learning_rate)
  return jnp.all((logit(net) > 0) == (label > 0))


def bumps(function: Function, number: int, steepness: float = 100.0) -> Hidden:
  """A network of sigmoids whose pairs are bumps, [0, 1] to a function's values.

  Bump k is s(a (x - l_k)) - s(a (x - r_k)), 1 between its two borders, as high
  as the function is in its middle; nothing is learned.

  Args:
    function: to be represented.
    number: of bumps of equal width; two hidden units each.
    steepness: a, in widths of a bump.

  >>> net = bumps(np.sqrt, 4)
  >>> x = np.array([[0.1], [0.9]])
  >>> apply(net, x, sigmoid).round(3).tolist()  # roots of .125 and .875
  [0.354, 0.935]
  """
  borders = np.linspace(0, 1, number + 1)
  middles = (borders[:-1] + borders[1:]) / 2
  # The first and the last go on, so that no border is at 0 or 1.
  borders[0], borders[-1] = -1, 2
  slope = steepness * number
  height = function(middles)
  edges = np.concatenate([borders[:-1], borders[1:]])
  return Hidden(
    np.full((1, 2 * number), slope),
    -slope * edges,
    np.concatenate([height, -height]),
    np.float64(0),
  )


def polyline(function: Function, width: int) -> Hidden:
  """A network of ReLUs through a function's values at W + 1 points of [0, 1].

  >>> net = polyline(np.sqrt, 4)
  >>> apply(net, np.array([[0.25], [1.0]]), relu).tolist()
  [0.5, 1.0]
  """
  knots = np.linspace(0, 1, width + 1)
  slopes = np.diff(function(knots)) * width
  return Hidden(
    np.ones((1, width)),
    -knots[:-1],
    np.diff(slopes, prepend=0.0),
    function(knots[:1])[0],
  )


def relu(x: np.ndarray) -> np.ndarray:
  """max(x, 0), in NumPy's 64 bits."""
  return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
  """1 / (1 + exp(-x)), in NumPy's 64 bits."""
  return (1 + np.tanh(x / 2)) / 2


def largest_error(
  function: Function, net: Hidden, activation: Callable, points: int = 10_001
) -> float:
  """The largest |f(x) - y(x)| on [0, 1]."""
  x = np.linspace(0, 1, points)
  return float(np.abs(apply(net, x[:, None], activation) - function(x)).max())


def products(
  random: np.random.Generator, number: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of normal vectors side by side [N, 2 D], and <x, z> [N]."""
  x, z = random.normal(size=(2, number, size))
  return np.concatenate([x, z], axis=1), np.sum(x * z, axis=1)


def bilinear_error(train: tuple, test: tuple) -> float:
  """The largest error of x W z, with W [D, D] by least squares.

  Args:
    train: (pairs [N, 2 D], targets [N]), at least D^2 of them.
    test: likewise.
  """

  def features(pairs: np.ndarray) -> np.ndarray:
    x, z = np.split(pairs, 2, axis=1)
    return (x[:, :, None] * z[:, None, :]).reshape(len(x), -1)

  w, *_ = np.linalg.lstsq(features(train[0]), train[1], rcond=None)
  return float(np.abs(features(test[0]) @ w - test[1]).max())


def mlp_error(
  train: tuple,
  test: tuple,
  width: int,
  key: Key,
  *,
  steps: int,
  learning_rate: float = 0.01,
) -> Array:
  """The mean squared error of an MLP on new pairs, by the targets' variance.

  Args:
    train: (x [N, D], y [N]), all in one batch.
    test: likewise.
    width: of its hidden layer.
    key: consumed.
    steps: of Adam.
    learning_rate: at first.

  Returns:
    [], 1 for who always says the mean.
  """

  def error(net: Hidden, x: Array, y: Array) -> Array:
    return jnp.mean(jnp.square(apply(net, x, jax.nn.relu) - y))

  (x, y), (x_test, y_test) = (map(jnp.float32, part) for part in (train, test))
  net, _ = descent.adam(
    lambda net, progress: error(net, x, y),
    draw_hidden(key, x.shape[1], width),
    steps,
    learning_rate,
  )
  return error(net, x_test, y_test) / jnp.var(y_test)
