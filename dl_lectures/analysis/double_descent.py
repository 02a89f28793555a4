"""Double descent: a test error that rises until the data are fitted, and falls.

With as many parameters N as examples n there is just one way to fit them all,
and mostly a wild one; with more there are many, of which the smallest is tame.

  Belkin, Hsu, Ma & Mandal, "Reconciling modern machine-learning practice and
  the classical bias-variance trade-off", PNAS 116 (2019).

Slides: deck 004, "Double descent".

Shapes: n examples, D numbers of each, N features, K outputs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.analysis.approximation import Hidden, apply, draw_hidden
from dl_lectures.ops import descent
from dl_lectures.types import Array, Key


class Errors(NamedTuple):
  """Mean squared errors of fits.

  Attributes:
    train: on the examples that were fitted.
    test: on others.
  """

  train: float
  test: float


def random_features(
  train: tuple[np.ndarray, np.ndarray],
  test: tuple[np.ndarray, np.ndarray],
  sizes: Sequence[int],
  random: np.random.Generator,
) -> list[Errors]:
  """Least squares on random ReLU features, in closed form.

  y = relu(x V + b) W, V and b drawn, W the smallest of those with the least
  squared error (the pseudo-inverse). Features are added one by one: the first
  of all sizes are the same.

  Args:
    train: (x [n, D], y [n, K]).
    test: likewise.
    sizes: N.
    random: what draws.
  """
  (x, y), (x_test, y_test) = train, test
  v = random.normal(size=(x.shape[1], max(sizes))) / np.sqrt(x.shape[1])
  b = random.normal(size=max(sizes))
  errors = []
  for size in sizes:
    phi, phi_test = (
      np.maximum(some @ v[:, :size] + b[:size], 0) for some in (x, x_test)
    )
    w, *_ = np.linalg.lstsq(phi, y, rcond=None)
    errors.append(
      Errors(
        float(np.mean((phi @ w - y) ** 2)),
        float(np.mean((phi_test @ w - y_test) ** 2)),
      )
    )
  return errors


def mlp(
  train: tuple[Array, Array],
  test: tuple[Array, Array],
  width: int,
  key: Key,
  *,
  steps: int,
  learning_rate: float,
) -> tuple[Array, Array]:
  """The errors of an MLP all of whose weights are learned: [], [].

  Args:
    train: (x [n, D], y [n]), all in one batch.
    test: likewise.
    width: W of the hidden layer; it has (D + 2) W + 1 parameters.
    key: consumed.
    steps: of Adam, so many that the least error is reached.
    learning_rate: at first.

  Returns:
    The mean squared errors on train and test.
  """

  def error(net: Hidden, part: tuple[Array, Array]) -> Array:
    x, y = part
    return jnp.mean(jnp.square(apply(net, x, jax.nn.relu) - y))

  net, _ = descent.adam(
    lambda net, progress: error(net, train),
    draw_hidden(key, train[0].shape[1], width),
    steps,
    learning_rate,
  )
  return error(net, train), error(net, test)


def teacher(random: np.random.Generator, inputs: int, width: int = 8) -> Hidden:
  """A small network that makes the targets of `mlp`."""
  return Hidden(
    random.normal(size=(inputs, width)) / np.sqrt(inputs),
    0.1 * random.normal(size=width),
    random.normal(size=width) / np.sqrt(width),
    np.float64(0),
  )


def peak(sizes: Sequence[int], errors: Sequence[float]) -> int:
  """The size at which the error is largest, of those beyond its first dip.

  The error of the smallest models is large too; it is not the peak that is
  meant.

  >>> peak([1, 2, 3, 4, 5], [9.0, 1.0, 2.0, 5.0, 1.0])
  4
  """
  rises = np.flatnonzero(np.diff(errors) > 0)
  first = int(rises[0]) if len(rises) else len(errors) - 1
  return int(sizes[first + int(np.argmax(errors[first:]))])
