"""The playground: a small network on points of a plane, to look into.

Smilkov, Carter, Sculley, Viegas & Wattenberg, "Direct-manipulation
visualization of deep networks", 2017, arXiv 1708.03788 [S]; its page is
playground.tensorflow.org. Slides: deck 004, "Playground".

    points of the plane ──> features: x1, x2, x1^2, x2^2, x1 x2, sin x1, sin x2
                                |
                            hidden layers, each of a few neurons
                                |
                            one number: class 1 if above 0, or the value itself

    loss = cross entropy, or the squared error     + rate * (|w|, or w^2 / 2)
    gradient descent, batch by batch; an epoch sees every training point once

A picture is what the output, or a neuron, says at every point of the plane.
This file holds what is computed; the page is `experiments/playground.html`:

  python -m experiments.playground

Shapes: N points, F features, G the side of a picture.
"""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures.data import planar
from dl_lectures.types import Array, Key, UsageError

# Side of the output's picture in cells, and of a neuron's.
OUTPUT_SIDE, NEURON_SIDE = 60, 20
POINTS = 400

# The plane [..., 2] to one feature. Squares and products are divided, so that
# each is of a coordinate's size.
FEATURES: Mapping[str, Callable[[Array], Array]] = {
  'x1': lambda x: x[..., 0],
  'x2': lambda x: x[..., 1],
  'x1^2': lambda x: x[..., 0] ** 2 / planar.SIDE,
  'x2^2': lambda x: x[..., 1] ** 2 / planar.SIDE,
  'x1 x2': lambda x: x[..., 0] * x[..., 1] / planar.SIDE,
  'sin x1': lambda x: jnp.sin(x[..., 0]),
  'sin x2': lambda x: jnp.sin(x[..., 1]),
}

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
  'tanh': jnp.tanh,
  'ReLU': jax.nn.relu,
  'sigmoid': jax.nn.sigmoid,
  'SELU': jax.nn.selu,
  'linear': lambda x: x,
}

REGULARISATIONS: Mapping[str, Callable[[Array], Array]] = {
  'none': lambda w: jnp.zeros(()),
  'L1': lambda w: jnp.sum(jnp.abs(w)),
  'L2': lambda w: jnp.sum(w**2) / 2,
}


def _plane(x: np.ndarray) -> np.ndarray:
  return x.sum(axis=-1) / (2 * planar.SIDE)


def _hills(x: np.ndarray) -> np.ndarray:
  """Three hills on one diagonal, three hollows on the other."""
  value = np.zeros(x.shape[:-1])
  for u, v, sign in (
    *((-4, 2.5, 1), (0, 2.5, -1), (4, 2.5, 1)),
    *((-4, -2.5, -1), (0, -2.5, 1), (4, -2.5, -1)),
  ):
    square = (x[..., 0] - u) ** 2 + (x[..., 1] - v) ** 2
    value += sign * np.exp(-square / 2)
  return value


# Points [..., 2] to values from -1 to 1.
SURFACES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
  'plane': _plane,
  'hills': _hills,
}

# What there is to choose from, by the problem.
DATA: Mapping[str, tuple[str, ...]] = {
  'classification': tuple(planar.SETS),
  'regression': tuple(SURFACES),
}

# The least and the most of every number.
RANGES: Mapping[str, tuple[float, float]] = {
  'noise': (0, 3),
  'train_share': (0.1, 0.9),
  'regularisation_rate': (0, 10),
  'learning_rate': (1e-5, 10),
  'batch_size': (1, 30),
  'seed': (0, 2**32 - 1),
}
MOST_LAYERS, MOST_NEURONS = 6, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """All that is chosen before training; the comments give the range."""

  problem: str = 'classification'  # or regression
  data: str = 'circle'  # of `DATA`, by the problem
  noise: float = 0.0  # deviation of each coordinate, or of a tenth of a value
  train_share: float = 0.5  # of the points; the others are for the test
  features: tuple[str, ...] = ('x1', 'x2')  # of `FEATURES`, one at least
  layers: tuple[int, ...] = (4, 2)  # neurons of each hidden layer
  activation: str = 'tanh'  # of `ACTIVATIONS`
  regularisation: str = 'none'  # of `REGULARISATIONS`, of weights
  regularisation_rate: float = 0.0
  learning_rate: float = 0.03
  batch_size: int = 10
  seed: int = 0  # of the points, the weights and the order

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    for name, options in (
      ('problem', DATA),
      ('activation', ACTIVATIONS),
      ('regularisation', REGULARISATIONS),
    ):
      _check_choice(name, getattr(self, name), options)
    _check_choice('data', self.data, DATA[self.problem])
    for name in RANGES:
      check_range(name, getattr(self, name))
    if not self.features or len({*self.features}) < len(self.features):
      raise UsageError('features: each at most once, and one at least')
    for name in self.features:
      _check_choice('features', name, FEATURES)
    if len(self.layers) > MOST_LAYERS:
      raise UsageError(
        f'layers: {len(self.layers)}; at most {MOST_LAYERS} are possible'
      )
    for size in self.layers:
      if not 1 <= size <= MOST_NEURONS:
        raise UsageError(
          f'layers: {size} neurons; 1 to {MOST_NEURONS} in each are possible'
        )


def _check_choice(name: str, value: str, options: Any) -> None:
  if value not in options:
    known = {option.lower(): option for option in options}
    near = difflib.get_close_matches(value.lower(), known, 1, 0.5)
    raise UsageError(
      f'{name}: {value!r:.40}; possible: {", ".join(options)}'
      + (f'; did you mean {known[near[0]]}?' if near else '')
    )


def check_range(name: str, value: float) -> None:
  """Refuses a number outside of `RANGES`."""
  low, high = RANGES[name]
  if not low <= value <= high:
    raise UsageError(f'{name}: {value}; {low} to {high} is possible')


def read_settings(fields: Any) -> Settings:
  """Settings from an object of JSON.

  Raises:
    UsageError: a field is unknown, or its value of another type or range.

  >>> read_settings({'layers': [8], 'noise': 1}).layers
  (8,)
  >>> read_settings({'layer': [8]})
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: layer: no such field; did you mean layers?
  """
  if not isinstance(fields, Mapping):
    raise UsageError('an object of settings is expected')
  kinds = typing.get_type_hints(Settings)
  read = {}
  for name, value in fields.items():
    if name not in kinds:
      near = difflib.get_close_matches(name, kinds, 1, 0.5)
      hint = (
        f'did you mean {near[0]}?' if near else f'possible: {", ".join(kinds)}'
      )
      raise UsageError(f'{name}: no such field; {hint}')
    read[name] = read_value(name, value, kinds[name])
  return Settings(**read)


_NAMES = {int: 'a whole number', float: 'a number', str: 'a text'}


def read_value(name: str, value: Any, kind: Any) -> Any:
  """One value of JSON as int, float, str or a tuple of one of these.

  Raises:
    UsageError: it is of another type, or not finite.
  """
  if typing.get_origin(kind) is tuple:
    inner = typing.get_args(kind)[0]
    if not isinstance(value, list):
      raise UsageError(f'{name}: a list is expected, each {_NAMES[inner]}')
    return tuple(read_value(name, one, inner) for one in value)
  fits = isinstance(value, (int, float) if kind is float else kind)
  if not fits or isinstance(value, bool):
    raise UsageError(f'{name}: {_NAMES[kind]} is expected, not {value!r:.40}')
  # A whole number of JSON may be larger than any float.
  if kind is not str and not abs(value) < 1e300:
    raise UsageError(f'{name}: {_NAMES[kind]} of a usual size is expected')
  return kind(value)


# --------------------------------------------------------------------- points


class Points(NamedTuple):
  """Points and what is to be said of them.

  Attributes:
    x: [N, 2] float32.
    y: [N] float32: -1 or 1 of a class, or a value.
  """

  x: np.ndarray
  y: np.ndarray


def draw_points(settings: Settings) -> tuple[Points, Points]:
  """The points for training and for the test."""
  if settings.problem == 'classification':
    x, label = planar.draw(
      settings.data, POINTS, noise=settings.noise, seed=settings.seed
    )
    y = 2.0 * label - 1
  else:
    random = np.random.default_rng(settings.seed)
    x = random.uniform(-planar.SIDE, planar.SIDE, (POINTS, 2))
    y = SURFACES[settings.data](x)
    y = y + settings.noise / 10 * random.normal(size=POINTS)
  x, y = x.astype(np.float32), y.astype(np.float32)
  count = round(settings.train_share * POINTS)
  return Points(x[:count], y[:count]), Points(x[count:], y[count:])


def plane(side: int) -> np.ndarray:
  """The middles of the cells of a picture: [side * side, 2], x2 falling.

  >>> plane(2).tolist()
  [[-3.0, 3.0], [3.0, 3.0], [-3.0, -3.0], [3.0, -3.0]]
  """
  line = planar.SIDE * (2 * np.arange(side) + 1 - side) / side
  x1, x2 = np.meshgrid(line, -line)
  return np.stack([x1.ravel(), x2.ravel()], axis=1).astype(np.float32)


# -------------------------------------------------------------------- network


class Layers(NamedTuple):
  """What a network says at N points.

  Attributes:
    features: [N, F].
    hidden: of each hidden layer [N, neurons].
    output: [N], before any squashing.
  """

  features: Array
  hidden: list[Array]
  output: Array


def network(settings: Settings) -> hk.Transformed:
  """Points [N, 2] to `Layers`."""
  activation = ACTIVATIONS[settings.activation]

  def forward(x: Array) -> Layers:
    features = jnp.stack([FEATURES[f](x) for f in settings.features], axis=-1)
    y, hidden = features, []
    for size in settings.layers:
      y = activation(hk.Linear(size)(y))
      hidden.append(y)
    return Layers(features, hidden, hk.Linear(1)(y)[..., 0])

  return hk.without_apply_rng(hk.transform(forward))


def point_losses(problem: str, output: Array, y: Array) -> Array:
  """Cross entropy, nats, or the squared error, of each point.

  >>> y = jnp.array([-1.0, 1.0])
  >>> losses = point_losses('classification', jnp.zeros(2), y)
  >>> [round(x, 4) for x in losses.tolist()]  # log 2
  [0.6931, 0.6931]
  """
  if problem == 'classification':
    return jax.nn.softplus(-y * output)
  return (output - y) ** 2


def squash(problem: str, output: Array) -> Array:
  """The output as a number from -1 to 1: p(1) - p(-1), or what is nearest."""
  if problem == 'classification':
    return jnp.tanh(output / 2)
  return jnp.clip(output, -1, 1)


class Losses(NamedTuple):
  """The mean loss of points for training and for the test, and wrong classes.

  Attributes:
    train: nats, or the squared error.
    test: likewise.
    train_error: share of wrong classes; 0 in regression.
    test_error: likewise.
  """

  train: Array
  test: Array
  train_error: Array
  test_error: Array


class Program(NamedTuple):
  """The compiled functions of a kind of network.

  Attributes:
    init: key -> params.
    epoch: (params, train, order [steps, batch], rate, regularisation rate) ->
      params; all points of an epoch, in that order.
    judge: (params, train, test) -> Losses.
    picture: params -> output [G * G] and neurons [features and neurons, g * g],
      from -1 to 1.
  """

  init: Callable[[Key], hk.Params]
  epoch: Callable[..., hk.Params]
  judge: Callable[..., Losses]
  picture: Callable[[hk.Params], tuple[Array, Array]]


def program(settings: Settings) -> Program:
  """The functions for these settings, compiled once for all that share them."""
  # What is no part of the program must not make another one.
  same = Settings(
    problem=settings.problem,
    data=DATA[settings.problem][0],
    features=settings.features,
    layers=settings.layers,
    activation=settings.activation,
    regularisation=settings.regularisation,
  )
  return _program(same)


@functools.lru_cache(maxsize=32)
def _program(settings: Settings) -> Program:
  net = network(settings)
  penalty = REGULARISATIONS[settings.regularisation]
  losses = functools.partial(point_losses, settings.problem)

  def loss(params, x, y, rate):
    weights = [layer['w'] for layer in params.values()]
    return jnp.mean(losses(net.apply(params, x).output, y)) + rate * sum(
      map(penalty, weights)
    )

  @jax.jit
  def epoch(params, train, order, learning_rate, regularisation_rate):
    def step(params, which):
      gradient = jax.grad(loss)(
        params, train.x[which], train.y[which], regularisation_rate
      )
      return optax.apply_updates(
        params, jax.tree.map(lambda g: -learning_rate * g, gradient)
      ), None

    return jax.lax.scan(step, params, order)[0]

  @jax.jit
  def judge(params, train, test):
    outputs = [net.apply(params, part.x).output for part in (train, test)]
    errors = [
      jnp.mean(out * part.y <= 0) * (settings.problem == 'classification')
      for out, part in zip(outputs, (train, test), strict=True)
    ]
    means = [
      jnp.mean(losses(out, part.y))
      for out, part in zip(outputs, (train, test), strict=True)
    ]
    return Losses(*means, *errors)

  @jax.jit
  def picture(params):
    output = net.apply(params, jnp.asarray(plane(OUTPUT_SIDE))).output
    small = net.apply(params, jnp.asarray(plane(NEURON_SIDE)))
    neurons = jnp.concatenate([small.features, *small.hidden], axis=1).T
    return jax.tree.map(
      jnp.nan_to_num,
      (squash(settings.problem, output), jnp.clip(neurons, -1, 1)),
    )

  init = jax.jit(lambda key: net.init(key, jnp.zeros((1, 2))))
  return Program(init, epoch, judge, picture)


# ------------------------------------------------------------------- training


@dataclasses.dataclass
class Training:
  """A network in training.

  Attributes:
    settings: from which it began; the two rates may have changed since.
    points: for training and for the test.
    params: of the network.
    epoch: how many have been made.
    losses: of the last epoch.
    diverged: whether a loss is no longer finite; it goes on no further.
  """

  settings: Settings
  points: tuple[Points, Points]
  params: hk.Params
  epoch: int
  losses: Losses
  diverged: bool = False


def begin(settings: Settings) -> Training:
  """Points, first weights and first losses of a training."""
  points = draw_points(settings)
  functions = program(settings)
  params = functions.init(jax.random.key(settings.seed))
  losses = jax.device_get(functions.judge(params, *points))
  return Training(settings, points, params, 0, losses)


def advance(training: Training, epochs: int) -> list[tuple[int, Losses]]:
  """Trains on, changes the training, and returns its losses by epoch.

  Points beyond the last whole batch of an epoch wait for another epoch.
  """
  settings, functions = training.settings, program(training.settings)
  count = len(training.points[0].x)
  batch = min(settings.batch_size, count)
  made = []
  for _ in range(epochs):
    if training.diverged:
      break
    random = np.random.default_rng((settings.seed, training.epoch))
    order = random.permutation(count)[: count // batch * batch]
    params = functions.epoch(
      training.params,
      training.points[0],
      order.reshape(-1, batch),
      settings.learning_rate,
      settings.regularisation_rate,
    )
    losses = jax.device_get(functions.judge(params, *training.points))
    if not all(map(math.isfinite, losses)):
      training.diverged = True
      break
    training.params, training.losses = params, losses
    training.epoch += 1
    made.append((training.epoch, losses))
  return made


class View(NamedTuple):
  """What there is to see of a network.

  Attributes:
    output: [G, G], from -1 to 1; x1 rises to the right, x2 upwards.
    neurons: [features and neurons, g, g], likewise.
    weights: of each layer [inputs, outputs], the output's last.
    biases: of each layer [outputs].
  """

  output: np.ndarray
  neurons: np.ndarray
  weights: list[np.ndarray]
  biases: list[np.ndarray]


def view(training: Training) -> View:
  """The pictures and weights of a network."""
  output, neurons = program(training.settings).picture(training.params)
  layers = jax.device_get(list(training.params.values()))
  return View(
    np.asarray(output).reshape(OUTPUT_SIDE, OUTPUT_SIDE),
    np.asarray(neurons).reshape(-1, NEURON_SIDE, NEURON_SIDE),
    [layer['w'] for layer in layers],
    [layer['b'] for layer in layers],
  )
