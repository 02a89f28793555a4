"""Classification: softmax regression, multilayer perceptrons, LeNet-5.

LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86 (1998) [L]. Slides: deck 001, "MNIST";
deck 004, "Neural networks: one hidden layer, deep, practical issues".

    images or points ──> less the mean, by the deviation ──> noise
                                                               |
      softmax regression:   linear <───────────────────────────┤
      MLP:      (linear, norm, activation, dropout)*, linear <─┤
      LeNet-5:  32 x 32 ──> C1 6 @ 28 x 28 ──> S2 6 @ 14 x 14 <┘
                  ──> C3 16 @ 10 x 10 ──> S4 16 @ 5 x 5 ──> C5 120 ──> F6 84
                |
              logits ──> E = -log softmax(logits)[label] + penalty sum |w|^p

What should be found in other examples too is regularised: by a penalty on the
weights, dropout, noise on the inputs, images moved by a pixel, or by keeping
the weights of the epoch at which the loss on examples held out was lowest
(early stopping).

  python -m experiments.classifier --preset=lenet --workdir=runs/lenet

Beside each result stand the most frequent class and the class with the nearest
mean, which learn in one pass.

MNIST's test images: 99.3% of LeNet-5 with images moved by a pixel, eight
epochs, two minutes of a core (published: 99.05% without, and 99.2% with images
distorted more); 92.6% of softmax regression, 82.0% of the nearest mean. Digits
of 8 x 8, an MLP: 99.2% (90.7%) of a fifth drawn by the seed, 95.6% (85.0%) of
the last fifth, which other writers wrote (`results/classifier*.json`).
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.data import images, planar
from dl_lectures.nets import convolution
from dl_lectures.training import report

Array = jax.Array
Activation = Callable[[Array], Array]

# Examples that are judged at once.
_AT_ONCE = 500
# Points of a set in the plane; the first half is learned from.
_POINTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the values of [L]."""

  seed: int = 0  # of every random number
  # digits, mnist, fashion_mnist, a folder with MNIST's four files, or points of
  # a plane: circle, xor, gauss, spiral; [L]: mnist
  data: str = 'digits'
  # of digits: whether those that are judged are the last fifth, by other
  # writers, instead of a fifth that the seed draws
  other_writers: bool = False
  noise: float = 0.5  # by which points of a plane are moved
  model: str = 'mlp'  # softmax, mlp or lenet; [L]: all three
  hidden: tuple[int, ...] = (256,)  # widths of the MLP; [L]: 300 or 300,100
  activation: str = 'relu'  # of the MLP: relu, tanh or sigmoid; [L]: tanh
  norm: str = 'none'  # of the MLP's layers: none, batch or layer; [L]: none
  # whether a map of LeNet-5's C3 sees some maps of S2, by [L]'s table, not all
  connection_table: bool = False
  penalty: float = 0.0  # on the weights, times the sum of |w|^power; [L]: 0
  power: float = 2.0  # of the penalty, at least 1
  dropout: float = 0.0  # share of hidden units that are 0 at an update; [L]: 0
  # deviation of what is added to inputs of deviation 1 at an update; [L]: 0
  input_noise: float = 0.0
  # pixels by which an image is moved at most, down and across, at an update;
  # [L]: 0, and in its last experiment more than that
  shift: int = 0
  # share of the training examples for early stopping; 0: it is not used
  held_out: float = 0.0
  # epochs without a lower loss on those held out after which learning stops
  patience: int = 5
  batch_size: int = 32  # examples; [L]: 1
  num_epochs: int = 60  # passes over the training examples; [L]: 20
  learning_rate: float = (
    1e-3  # of Adam, falling to 0; [L]: of SGD, 5e-4 to 1e-5
  )

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'noise penalty input_noise shift learning_rate', 0)
    types.check_fields(self, 'power patience batch_size num_epochs', 1)
    types.check_fields(self, 'dropout held_out', 0, 0.9)
    for field, options in (
      ('model', MODELS),
      ('activation', ACTIVATIONS),
      ('norm', NORMS),
    ):
      if (given := getattr(self, field)) not in options:
        raise types.UsageError(
          f'config.{field}={given!r}; possible: {", ".join(options)}'
        )
    if any(width < 1 for width in self.hidden):
      raise types.UsageError(
        f'config.hidden={self.hidden}; widths of at least 1 are possible'
      )


class Batch(NamedTuple):
  """Examples.

  Attributes:
    x: [B, H, W, C] uint8, images; or [B, 2] float32, points.
    label: [B] int32.
  """

  x: np.ndarray
  label: np.ndarray


class Data(NamedTuple):
  """Examples in their three parts.

  Attributes:
    name: of where they are from.
    train: to learn from.
    held_out: kept from that for early stopping; may be none.
    test: to be judged by, once.
    num_classes: labels are from 0 to num_classes - 1.
    mean: of all numbers of the training examples.
    deviation: of the same.
  """

  name: str
  train: Batch
  held_out: Batch
  test: Batch
  num_classes: int
  mean: float
  deviation: float


class State(NamedTuple):
  """What a run continues from.

  Attributes:
    learner: the network as it learns.
    kept: (params, net_state) of the lowest loss on the examples held out; ()
      without early stopping.
    kept_loss: [] float32, that loss.
    waited: [] int32, epochs since.
  """

  learner: types.TrainState
  kept: Any
  kept_loss: Array
  waited: Array


def load(config: Config) -> Data:
  """The examples that the settings name.

  Raises:
    UsageError: there are none of that name.
  """
  if config.data in planar.SETS:
    points = planar.draw(config.data, _POINTS, noise=config.noise)
    half = _POINTS // 2
    train, test = (
      Batch(points.x[part], points.label[part])
      for part in (slice(half), slice(half, None))
    )
    name, num_classes = config.data, 2
    if config.shift:
      raise types.UsageError(
        f'config.shift={config.shift} of points; 0 is possible'
      )
  else:
    if config.other_writers and config.data != 'digits':
      raise types.UsageError(
        f'config.other_writers=true of {config.data}; of digits it is possible'
      )
    try:
      found = images.load(config.data)
    except types.UsageError as error:
      raise types.UsageError(f'{error}, or {", ".join(planar.SETS)}') from None
    train = Batch(found.train, found.train_label)
    test = Batch(found.test, found.test_label)
    if config.data == 'digits' and not config.other_writers:
      train, test = _split_anew(train, test, config.seed)
    name, num_classes = found.name, int(found.train_label.max()) + 1
    if config.other_writers:
      name += ' of other writers'
  order = np.random.default_rng(0).permutation(len(train.label))
  count = round(config.held_out * len(order))
  held_out, train = (
    Batch(train.x[part], train.label[part])
    for part in (np.sort(order[:count]), np.sort(order[count:]))
  )
  if len(train.label) < config.batch_size:
    raise types.UsageError(
      f'config.batch_size={config.batch_size}; {name} has {len(train.label)} '
      'examples to learn from'
    )
  mean, deviation = float(train.x.mean()), float(train.x.std())
  return Data(name, train, held_out, test, num_classes, mean, deviation)


def _split_anew(train: Batch, test: Batch, seed: int) -> tuple[Batch, Batch]:
  """As many examples in either part, but drawn by the seed."""
  x, label = map(np.concatenate, zip(train, test, strict=True))
  order = np.random.default_rng(seed).permutation(len(label))
  parts = np.split(order, [len(train.label)])
  first, second = (Batch(x[part], label[part]) for part in map(np.sort, parts))
  return first, second


# --- Networks: (config, x, number of classes, whether it learns) -> logits.


def _softmax(config: Config, x: Array, num_classes: int, learns: bool) -> Array:
  del config, learns
  return hk.Linear(num_classes, w_init=jnp.zeros)(hk.Flatten()(x))


def _mlp(config: Config, x: Array, num_classes: int, learns: bool) -> Array:
  x = hk.Flatten()(x)
  for width in config.hidden:
    he_normal = hk.initializers.VarianceScaling(2.0)
    x = hk.Linear(width, w_init=he_normal)(x)
    x = NORMS[config.norm](x, learns)
    x = ACTIVATIONS[config.activation](x)
    x = _drop(config, x, learns)
  return hk.Linear(num_classes)(x)


def _lenet(config: Config, x: Array, num_classes: int, learns: bool) -> Array:
  """LeNet-5 ([L], section II.B), with a softmax for its radial basis units."""
  if (side := x.shape[1]) != x.shape[2] or side not in (28, 32):
    raise types.UsageError(
      f'config.model=lenet for images of {x.shape[1]} x {x.shape[2]}; 28 x 28 '
      'and 32 x 32 are possible'
    )
  if side == 28:
    # What is added around an image is as dark as its darkest corner.
    edge = jnp.min(x)
    around = ((0, 0), (2, 2), (2, 2), (0, 0))
    x = jnp.pad(x - edge, around) + edge
  seen = connection_table() if config.connection_table else None
  x = squash(_Maps(6, name='c1')(x))
  x = squash(_Pool(name='s2')(x))
  x = squash(_Maps(16, seen, name='c3')(x))
  x = squash(_Pool(name='s4')(x))
  x = squash(_Maps(120, name='c5')(x))
  x = squash(hk.Linear(84, name='f6')(hk.Flatten()(x)))
  return hk.Linear(num_classes, name='output')(_drop(config, x, learns))


def squash(x: Array) -> Array:
  """[L]'s scaled tanh: f(1) = 1, f(-1) = -1, steepest between ([L], app. A).

  >>> squash(jnp.array([-1.0, 0.0, 1.0])).round(3).tolist()
  [-1.0, 0.0, 1.0]
  """
  return 1.7159 * jnp.tanh(2 * x / 3)


def connection_table() -> np.ndarray:
  """[6, 16] bool, which maps of S2 each map of C3 sees ([L], table I).

  Three neighbours each, then four neighbours, then two pairs, then all.

  >>> connection_table().sum(axis=0).tolist()
  [3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 6]
  """
  sees = [
    *(range(first, first + 3) for first in range(6)),
    *(range(first, first + 4) for first in range(6)),
    *((first, first + 1, first + 3, first + 4) for first in range(3)),
    range(6),
  ]
  table = np.zeros((6, 16), bool)
  for column, maps in enumerate(sees):
    table[[m % 6 for m in maps], column] = True
  return table


class _Maps(hk.Module):
  """A convolution of 5 x 5, of some of the maps or of all."""

  def __init__(self, maps: int, seen: np.ndarray | None = None, *, name: str):
    super().__init__(name=name)
    self._maps, self._seen = maps, seen

  def __call__(self, x: Array) -> Array:
    shape = 5, 5, x.shape[-1], self._maps
    seen = np.ones(shape[2:], bool) if self._seen is None else self._seen

    def draw(shape, dtype):
      # Variance 1 / fan-in, of the inputs that each unit has.
      deviation = 1 / np.sqrt(25 * seen.sum(axis=0))
      normal = hk.initializers.RandomNormal()(shape, dtype)
      return normal * jnp.asarray(deviation, dtype)[None, None, None]

    w = hk.get_parameter('w', shape, init=draw)
    w = w * jnp.asarray(seen, w.dtype)[None, None]
    b = hk.get_parameter('b', shape[-1:], init=jnp.zeros)
    return convolution.convolve(x, w, padding='VALID') + b[None, None, None]


class _Pool(hk.Module):
  """The mean of 2 x 2, times a coefficient, plus a bias, both of the map."""

  def __call__(self, x: Array) -> Array:
    n, height, width, maps = x.shape
    tiles = x.reshape(n, height // 2, 2, width // 2, 2, maps)
    coefficient = hk.get_parameter('coefficient', (maps,), init=jnp.ones)
    b = hk.get_parameter('b', (maps,), init=jnp.zeros)
    means = jnp.mean(tiles, axis=(2, 4))
    return means * coefficient[None, None, None] + b[None, None, None]


def _drop(config: Config, x: Array, learns: bool) -> Array:
  if not (learns and config.dropout):
    return x
  return hk.dropout(hk.next_rng_key(), config.dropout, x)


def _batch_norm(x: Array, learns: bool) -> Array:
  return hk.BatchNorm(True, True, 0.9)(x, is_training=learns)


def _layer_norm(x: Array, learns: bool) -> Array:
  del learns
  return hk.LayerNorm(-1, True, True)(x)


MODELS = {'softmax': _softmax, 'mlp': _mlp, 'lenet': _lenet}
ACTIVATIONS: Mapping[str, Activation] = {
  'relu': jax.nn.relu,
  'tanh': jnp.tanh,
  'sigmoid': jax.nn.sigmoid,
}
NORMS: Mapping[str, Callable[[Array, bool], Array]] = {
  'none': lambda x, learns: x,
  'batch': _batch_norm,
  'layer': _layer_norm,
}

_MNIST = Config(data='mnist', batch_size=100, num_epochs=20)
PRESETS = {
  # Seconds: shows that everything runs.
  'smoke': Config(hidden=(16,), num_epochs=2),
  # An MLP on digits of 8 x 8: half a minute. Wide: the best of widths from 256
  # to 2,048 where fifths of the training digits, by other writers, were judged.
  'laptop': Config(hidden=(2048,), dropout=0.3, input_noise=0.5),
  'softmax': dataclasses.replace(_MNIST, model='softmax', num_epochs=10),
  'lenet': dataclasses.replace(
    _MNIST, model='lenet', learning_rate=2e-3, num_epochs=8, shift=1
  ),
  'spiral': Config(
    data='spiral',
    noise=0.2,
    hidden=(32, 32),
    num_epochs=150,
    learning_rate=1e-2,
  ),
  # But for its optimiser and its output.
  'paper': dataclasses.replace(
    _MNIST, model='lenet', connection_table=True, batch_size=1
  ),
}


def network(config: Config, data: Data) -> hk.TransformedWithState:
  """(x of a Batch, whether it learns) to logits [B, K]."""

  def forward(x: Array, learns: bool) -> Array:
    x = (x - data.mean) / data.deviation
    if learns and config.input_noise:
      noise = jax.random.normal(hk.next_rng_key(), x.shape)
      x += config.input_noise * noise
    return MODELS[config.model](config, x, data.num_classes, learns)

  return hk.transform_with_state(forward)


def penalty(params: Any, power: float) -> Array:
  """The sum of |w|^power over the weights; biases and norms are free, [].

  >>> params = {'linear': {'w': jnp.array([[1.0, -2.0]]), 'b': jnp.ones(2)}}
  >>> penalty(params, 2.0).item(), penalty(params, 1.0).item()
  (5.0, 3.0)
  """
  weights = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == 'w'
  ]
  each = (jnp.sum(jnp.abs(w) ** power) for w in weights)
  return sum(each, jnp.float32(0))


def loss(
  config: Config,
  net: hk.TransformedWithState,
  params: Any,
  net_state: Any,
  key: types.Key,
  batch: Batch,
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """The mean cross entropy, nats, and the penalty.

  Args:
    config: the settings.
    net: of `network`.
    params: its parameters.
    net_state: its state.
    key: consumed; of noise and dropout.
    batch: examples.
  """
  logits, net_state = net.apply(params, net_state, key, batch.x, True)
  entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
  right = jnp.argmax(logits, axis=-1) == batch.label
  total = jnp.mean(entropy)
  if config.penalty:
    total += config.penalty * penalty(params, config.power)
  return total, (net_state, {'accuracy': jnp.mean(right)})


def num_steps(config: Config, data: Data) -> tuple[int, int]:
  """Updates of an epoch, and of the run."""
  epoch = len(data.train.label) // config.batch_size
  return epoch, epoch * config.num_epochs


def optimizer(config: Config, data: Data) -> optax.GradientTransformation:
  """Adam; the rate falls to 0 along a cosine."""
  steps = num_steps(config, data)[1]
  return optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))


def init(
  config: Config, data: Data, net: hk.TransformedWithState, key: types.Key
) -> State:
  """The state before the first update; consumes the key."""
  params, net_state = net.init(key, data.train.x[:2], True)
  learner = training.init_state(params, net_state, optimizer(config, data))
  kept: Any = (params, net_state) if len(data.held_out.label) else ()
  # Copies: the loop gives its state away, and nothing twice.
  kept = jax.tree.map(jnp.array, kept)
  return State(learner, kept, jnp.float32(jnp.inf), jnp.int32(0))


def make_step(
  config: Config, data: Data, net: hk.TransformedWithState
) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update.

  At the end of an epoch the loss on the examples held out decides what is
  kept. Who has waited in vain for longer than the patience learns no more.
  """
  learn = training.make_step(
    functools.partial(loss, config, net), optimizer(config, data)
  )
  every, held_out = num_steps(config, data)[0], data.held_out

  def look(state: State) -> State:
    found = state.learner.params, state.learner.net_state
    now, _ = judge(net, found, held_out)
    better = now < state.kept_loss
    kept = jax.tree.map(functools.partial(jnp.where, better), found, state.kept)
    waited = jnp.where(better, 0, state.waited + 1)
    return State(state.learner, kept, jnp.minimum(now, state.kept_loss), waited)

  def step(
    state: State, batch: Batch, key: types.Key
  ) -> tuple[State, types.Metrics]:
    learner, metrics = learn(state.learner, batch, key)
    if not len(held_out.label):
      return state._replace(learner=learner), metrics
    stopped = state.waited >= config.patience
    frozen = state.learner._replace(step=learner.step)
    learner = jax.tree.map(
      functools.partial(jnp.where, stopped), frozen, learner
    )
    state = state._replace(learner=learner)
    ends = (learner.step % every == 0) & ~stopped
    state = jax.lax.cond(ends, look, lambda state: state, state)
    return state, {**metrics, 'stopped': stopped.astype(jnp.float32)}

  return step


def chosen(state: State) -> Any:
  """(params, net_state) that a run ends with."""
  return state.kept or (state.learner.params, state.learner.net_state)


def judge(
  net: hk.TransformedWithState, found: Any, batch: Batch
) -> tuple[Array, Array]:
  """The mean cross entropy, and the share right: [], [].

  Args:
    net: of `network`.
    found: (params, net_state).
    batch: examples, all at once.
  """
  logits, _ = net.apply(*found, None, batch.x, False)
  entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
  return jnp.mean(entropy), jnp.mean(jnp.argmax(logits, -1) == batch.label)


def batches(config: Config, data: Data, step: int) -> Iterator[Batch]:
  """All examples in a new order in each epoch, from update `step` on."""
  every = num_steps(config, data)[0]
  while True:
    epoch, first = divmod(step, every)
    draw = np.random.default_rng((config.seed, epoch))
    order = draw.permutation(len(data.train.label))
    for number in range(first, every):
      which = order[number * config.batch_size :][: config.batch_size]
      x = data.train.x[which]
      if config.shift:
        draw = np.random.default_rng((config.seed, epoch, number))
        x = moved(x, config.shift, draw)
      yield Batch(x, data.train.label[which])
    step = (epoch + 1) * every


def moved(x: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
  """Images moved by up to so many pixels; what comes in is as dark as can be.

  Args:
    x: [B, H, W, C].
    most: pixels, down or up, and across.
    random: what draws.

  >>> x = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
  >>> moved(x, 1, np.random.default_rng(0))[0, :, :, 0].tolist()
  [[2, 3], [0, 0]]
  """
  count, height, width, _ = x.shape
  around = ((0, 0), (most, most), (most, most), (0, 0))
  wide = np.pad(x, around, constant_values=x.min())
  down, across = random.integers(2 * most + 1, size=(2, count, 1))
  rows, columns = down + np.arange(height), across + np.arange(width)
  which = np.arange(count)[:, None, None]
  return wide[which, rows[:, :, None], columns[:, None, :]]


def predict(
  net: hk.TransformedWithState, found: Any, x: np.ndarray
) -> np.ndarray:
  """The probabilities of the classes, [N, K]."""

  def forward(found: Any, x: Array) -> Array:
    return jax.nn.softmax(net.apply(*found, None, x, False)[0])

  run, parts = jax.jit(forward), []
  for start in range(0, len(x), _AT_ONCE):
    which = np.arange(start, start + _AT_ONCE) % len(x)
    parts.append(np.asarray(run(found, x[which])))
  return np.concatenate(parts)[: len(x)]


def baselines(data: Data) -> dict[str, float]:
  """The shares right of who always says the same, and of the nearest mean."""
  (x, label), test = data.train, data.test
  counts = np.bincount(label, minlength=data.num_classes)
  x = x.reshape(len(x), -1).astype(np.float64)
  means = np.stack([x[label == k].mean(axis=0) for k in np.flatnonzero(counts)])
  # |x - m|^2 less what is the same for all means.
  asked = test.x.reshape(len(test.x), -1).astype(np.float64)
  distance = np.sum(means**2, axis=1)[None] - 2 * asked @ means.T
  nearest = np.flatnonzero(counts)[distance.argmin(axis=1)]
  return {
    'most frequent class': float(np.mean(test.label == counts.argmax())),
    'nearest class mean': float(np.mean(test.label == nearest)),
  }


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns to classify, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  data = load(config)
  net = network(config, data)
  every, steps = num_steps(config, data)
  # As many examples of either kind, to see one loss leave the other behind.
  watched = {
    name: Batch(*(part[:_AT_ONCE] for part in batch))
    for name, batch in (('train', data.train), ('test', data.test))
  }
  look = jax.jit(functools.partial(judge, net))

  def examine(step: int, state: State) -> types.Metrics:
    del step
    found = state.learner.params, state.learner.net_state
    losses = {k: look(found, batch)[0] for k, batch in watched.items()}
    return {f'{name}_loss': value for name, value in losses.items()}

  result = training.fit(
    make_step(config, data, net),
    functools.partial(init, config, data, net),
    config=config,
    workdir=workdir,
    num_steps=steps,
    batches=functools.partial(batches, config, data),
    hooks=[
      training.Hook(examine, every * max(1, config.num_epochs // 20)),
      *hooks,
    ],
    get_step=lambda state: state.learner.step,
    count_params=lambda state: state.learner.params,
    log_every=max(20, steps // 500),
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, data, net, result, workdir)


def conclude(
  config: Config,
  data: Data,
  net: hk.TransformedWithState,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Judges the test examples, and reports."""
  start = time.monotonic()
  found = chosen(result.state)
  p = predict(net, found, data.test.x)
  right = p.argmax(axis=1) == data.test.label
  train_right = (
    predict(net, found, data.train.x).argmax(axis=1) == data.train.label
  )
  records = training.logging.read(workdir) if workdir else []
  report.save_figure(
    draw(config, data, net, found, records, p), workdir, 'classifier'
  )
  metrics = {
    'test_accuracy': float(right.mean()),
    'train_accuracy': float(train_right.mean()),
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(found[0])),
    **baselines(data),
  }
  if len(data.held_out.label):
    p_held_out = predict(net, found, data.held_out.x)
    held_out_right = p_held_out.argmax(axis=1) == data.held_out.label
    metrics['held_out_accuracy'] = float(held_out_right.mean())
  report.write(
    workdir,
    title=f'{config.model} on {data.name}',
    config=config,
    claims=make_claims(config, data, right),
    metrics=metrics,
    figures={
      'classifier': 'The loss over training; what was taken for what, or the '
      'border in the plane; the test examples that it is surest about and '
      'wrong.'
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


# (data, model) -> the share right that is to be reached.
BARS = {
  ('digits', 'mlp'): 0.97,
  ('digits of other writers', 'mlp'): 0.97,
  ('mnist', 'softmax'): 0.92,
  ('mnist', 'lenet'): 0.99,
}
# The slides; [L], section III.C, of LeNet-5 without distortions.
PUBLISHED = {
  ('mnist', 'softmax'): 'about 0.92 (slides)',
  ('mnist', 'lenet'): 0.9905,
}


def make_claims(
  config: Config, data: Data, right: np.ndarray
) -> list[types.Claim]:
  """The share of test examples right, beside two baselines."""
  share = float(right.mean())
  spread = 1.96 * float(np.sqrt(share * (1 - share) / len(right)))
  about = data.name, config.model
  bar = BARS.get(about)
  return [
    types.Claim(
      f'{config.model}, {data.name}: share of test examples right, against '
      f'{name}',
      share,
      interval=(max(0.0, share - spread), min(1.0, share + spread)),
      baseline=baseline,
      baseline_name=name,
      paper=PUBLISHED.get(about),
      bar=bar,
      met=None if bar is None else share >= bar,
    )
    for name, baseline in baselines(data).items()
  ]


def draw(
  config: Config,
  data: Data,
  net: hk.TransformedWithState,
  found: Any,
  records: Sequence[Mapping[str, Any]],
  p: np.ndarray,
) -> Figure:
  """Losses over training, confusions or the border, and what is wrong."""
  figure = Figure(figsize=(13, 4), layout='constrained')
  parts: Any = figure.subfigures(1, 3, width_ratios=(1.1, 1, 1.3))
  axes = parts[0].subplots()
  for name in ('train_loss', 'test_loss'):
    points = [(r['step'], r[name]) for r in records if name in r]
    if points:
      axes.plot(*zip(*points, strict=True), label=name.replace('_', ' '))
  axes.set(xlabel='updates', ylabel='cross entropy, nats', yscale='log')
  if axes.lines:
    axes.legend(frameon=False)
  axes.spines[['top', 'right']].set_visible(False)
  axes = parts[1].subplots()
  said = p.argmax(axis=1)
  if data.test.x.ndim == 2:
    _draw_border(axes, data, functools.partial(predict, net, found))
    parts[2].suptitle('probability of class 1')
    each = parts[2].subplots()
    each.hist([p[data.test.label == k, 1] for k in (0, 1)], bins=20)
    each.set(xlabel='p(1)', ylabel='test points of class 0, 1')
    return figure
  counts = np.zeros((data.num_classes, data.num_classes))
  np.add.at(counts, (data.test.label, said), 1)
  axes.imshow(np.sqrt(counts), cmap='Blues')
  for i, j in np.argwhere(counts):
    dark = counts[i, j] > counts.max() / 3
    axes.text(
      j,
      i,
      f'{counts[i, j]:.0f}',
      ha='center',
      va='center',
      fontsize=6,
      color='w' if dark else 'k',
    )
  axes.set(xlabel='said', ylabel='is')
  axes.set_xticks(range(data.num_classes))
  axes.set_yticks(range(data.num_classes))
  cells = parts[2].subplots(3, 6)
  wrong = np.flatnonzero(said != data.test.label)
  surest = wrong[np.argsort(-p[wrong].max(axis=1))]
  for cell in cells.flat:
    cell.axis('off')
  for cell, i in zip(cells.flat, surest, strict=False):
    cell.imshow(data.test.x[i].squeeze(), cmap='gray_r')
    cell.set_title(f'{data.test.label[i]}, said {said[i]}', fontsize=8)
  return figure


def _draw_border(
  axes: Any, data: Data, predict: Callable[[np.ndarray], np.ndarray]
) -> None:
  line = np.linspace(-planar.SIDE, planar.SIDE, 121, dtype=np.float32)
  grid = np.stack(np.meshgrid(line, line), axis=-1)
  p = predict(grid.reshape(-1, 2))[:, 1].reshape(grid.shape[:2])
  axes.contourf(
    line, line, p, levels=np.linspace(0, 1, 11), cmap='RdBu', alpha=0.7
  )
  axes.contour(line, line, p, levels=[0.5], colors='k')
  x, label = data.test
  axes.scatter(*x.T, c=label, cmap='RdBu', s=16, edgecolors='w', linewidths=0.4)
  axes.set(title=f'{data.name}: test points', aspect='equal')
