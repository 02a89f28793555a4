"""Double descent: a test error that rises until the data are fitted, and falls.

With as many parameters N as examples n there is just one way to fit them all,
and mostly a wild one; with more there are many, of which the smallest is tame.

  Belkin, Hsu, Ma & Mandal, "Reconciling modern machine-learning practice and
  the classical bias-variance trade-off", PNAS 116 (2019).

Slides: deck 004, "Double descent".

Shapes: n examples, D numbers of each, N features, K outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.flatten_util
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
  activation: Callable[[Array], Array],
  key: Key,
  *,
  steps: int,
  learning_rate: float,
  polish: int,
) -> tuple[Array, Array]:
  """The errors of an MLP all of whose weights are learned: [], [].

  Adam, then Levenberg and Marquardt's method: near the peak Adam alone would
  not fit the examples in any time, and so not find the peak in its place.

  Args:
    train: (x [n, D], y [n]), all in one batch.
    test: likewise.
    width: W of the hidden layer; it has (D + 2) W + 1 parameters.
    activation: of it. Units of ReLUs die, and a ReLU's input may be scaled up
      and its output down: such a network has fewer parameters than it counts.
    key: consumed.
    steps: of Adam.
    learning_rate: at first.
    polish: steps of Levenberg and Marquardt.

  Returns:
    The mean squared errors on train and test.
  """

  def residuals(net: Hidden, part: tuple[Array, Array]) -> Array:
    x, y = part
    return apply(net, x, activation) - y

  def error(net: Hidden, part: tuple[Array, Array]) -> Array:
    return jnp.mean(jnp.square(residuals(net, part)))

  net, _ = descent.adam(
    lambda net, progress: error(net, train),
    draw_hidden(key, train[0].shape[1], width),
    steps,
    learning_rate,
  )
  net = levenberg_marquardt(lambda net: residuals(net, train), net, polish)
  return error(net, train), error(net, test)


def levenberg_marquardt(
  residuals: Callable[[Any], Array], start: Any, steps: int
) -> Any:
  """Least squares by linearisation: for a few hundred numbers, not for more.

  x <- x - J^T (J J^T + damping)^-1 r, taken where the error falls; then the
  damping falls too, else it rises (Levenberg 1944, Marquardt 1963).

  Args:
    residuals: x -> r [n].
    start: x, a tree of arrays.
    steps: evaluations of J.

  Returns:
    The last x.

  >>> root = levenberg_marquardt(lambda x: jnp.array([x**2 - 2]), 1.0, 8)
  >>> round(float(root), 4)
  1.4142
  """
  x, unravel = jax.flatten_util.ravel_pytree(start)

  def f(x: Array) -> Array:
    return residuals(unravel(x))

  def step(carry: tuple[Array, Array], _: None) -> tuple[Any, None]:
    x, damping = carry
    r, jacobian = f(x), jax.jacrev(f)(x)
    gram = jacobian @ jacobian.T
    scale = damping * jnp.trace(gram) / len(r)
    change = jacobian.T @ jnp.linalg.solve(gram + scale * jnp.eye(len(r)), r)
    better = jnp.sum(jnp.square(f(x - change))) < jnp.sum(jnp.square(r))
    x = jnp.where(better, x - change, x)
    damping = jnp.where(better, damping / 3, damping * 5)
    return (x, jnp.clip(damping, 1e-7, 1e3)), None

  (x, _), _ = jax.lax.scan(step, (x, jnp.float32(1e-2)), None, steps)
  return unravel(x)


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
