"""Self-normalising networks: deep ones that need no layer that normalises.

Klambauer, Unterthiner, Mayr & Hochreiter, "Self-normalizing neural networks",
NeurIPS 2017, arXiv 1706.02515 [K], figure 1; its settings are those of
github.com/bioinf-jku/SNNs, figure1/. Slides: deck 002, "Self-normalizing
networks".

    image ──> each pixel with mean 0 and variance 1
                 |
              8, 16 or 32 x    SELU        selu(W x + b)
                 |             ReLU        relu(W x + b)
                 |             BatchNorm   relu(norm over the batch(W x + b))
                 |             LayerNorm   relu(norm over the layer(W x + b))
                 v
              linear ──> p(class)            gradient descent, no momentum

The weights are normal, of variance 1 / fan-in with SELU and 2 / fan-in with
ReLU. All networks see the same batches, as often. Each has several learning
rates, and the one is judged with which it is best on a tenth of the training
images, kept apart. A step that is not finite is not made, so that a rate may be
too high for some. Softmax regression stands beside them.

[K] has one rate for all, 1e-5 of the sum over a batch of 128, and normalises
behind the ReLU; here BatchNorm and LayerNorm come before it, as they were
published.

  python -m experiments.self_normalizing --config.images=mnist

Five minutes a seed on a busy core, three seeds, of MNIST less than one epoch
(`results/self_normalizing.json`). Test errors in percent:

               SELU    ReLU   BatchNorm   LayerNorm     softmax regression: 8.7
  8 layers      5.7     7.1         5.6         6.2
  16 layers     6.3     9.6         6.4         9.0
  32 layers     8.3    47          34          42

So SELU trains at a depth where the others do not yet. At 8 and 16 layers it and
BatchNorm cannot be told apart, in test error or training loss: BatchNorm
bears, and takes, a rate of .3, the highest there is, with which SELU diverges.
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

from dl_lectures import nets, training, types
from dl_lectures.data import images
from dl_lectures.training import population, report

Array = jax.Array
State = types.TrainState  # its trees: network -> a leading axis of R rates

# Images that are judged at once, and how many of the training images are.
_AT_ONCE, _JUDGED = 500, 10_000
# What a loss counts that is above it or no number: 'diverged'.
_HIGHEST = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the values of [K], figure 1."""

  seed: int = 0  # of every random number
  # digits, mnist, fashion_mnist, or a folder with MNIST's four files; [K]:
  # MNIST
  images: str = 'digits'
  depths: tuple[int, ...] = (8, 16, 32)  # hidden layers; [K]: the same
  width: int = 64  # of each; [K]: 784
  batch_size: int = 128  # [K]: 128
  num_steps: int = 400  # updates; [K]: 2,000 epochs
  # of the mean over a batch, the best for each network; [K]: 1.28e-3 for all
  learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'width batch_size num_steps', 1)
    for name, low in (('depths', 1), ('learning_rates', 0)):
      values = getattr(self, name)
      if not values or len({*values}) < len(values) or min(values) < low:
        raise types.UsageError(
          f'config.{name}={",".join(map(str, values))}; different values of at '
          f'least {low} are possible'
        )


PRESETS = {
  'smoke': Config(
    depths=(3,), width=16, batch_size=32, num_steps=30, learning_rates=(0.1,)
  ),
  'laptop': Config(),
  # figure1/README.md and run.py: 2,000 epochs of 60,000 images; the rate is
  # that of a sum over the batch there.
  'paper': Config(
    images='mnist', width=784, num_steps=937_500, learning_rates=(1.28e-3,)
  ),
}


class Batch(NamedTuple):
  """Images, each pixel with mean 0 and variance 1, and what they show.

  Attributes:
    x: [B, D] float32.
    label: [B] int32.
  """

  x: np.ndarray | Array
  label: np.ndarray | Array


class Data(NamedTuple):
  """The images of a run: to learn from, to choose the rate by, to judge."""

  name: str
  train: Batch
  valid: Batch
  test: Batch


class Net(NamedTuple):
  """One of the networks that are compared.

  Attributes:
    arm: of `ARMS`; 'linear' is softmax regression.
    depth: hidden layers; 0 for softmax regression.
  """

  arm: str
  depth: int

  def __str__(self) -> str:
    return f'{self.arm}, {self.depth} layers' if self.depth else self.arm


# ------------------------------------------------------------------- networks


def _selu(width: int, x: Array, is_training: bool) -> Array:
  return nets.SeluMLP([width], activate_final=True)(x, is_training)


def _linear(width: int, x: Array) -> Array:
  he_normal = hk.initializers.VarianceScaling(2.0, 'fan_in', 'normal')
  return hk.Linear(width, w_init=he_normal)(x)


def _relu(width: int, x: Array, is_training: bool) -> Array:
  del is_training
  return jax.nn.relu(_linear(width, x))


def _batch_norm(width: int, x: Array, is_training: bool) -> Array:
  norm = hk.BatchNorm(True, True, decay_rate=0.9)
  return jax.nn.relu(norm(_linear(width, x), is_training))


def _layer_norm(width: int, x: Array, is_training: bool) -> Array:
  del is_training
  norm = hk.LayerNorm(-1, True, True)
  return jax.nn.relu(norm(_linear(width, x)))


# (width, x [B, D], is_training) -> [B, width]: one hidden layer.
ARMS: Mapping[str, Callable[[int, Array, bool], Array]] = {
  'SELU': _selu,
  'ReLU': _relu,
  'BatchNorm': _batch_norm,
  'LayerNorm': _layer_norm,
}
LINEAR = Net('linear', 0)


def networks(config: Config) -> list[Net]:
  """All that are compared: softmax regression, and each arm at each depth."""
  return [LINEAR, *(Net(arm, d) for d in config.depths for arm in ARMS)]


class Network(NamedTuple):
  """Functions of one network.

  Attributes:
    init: (x [B, D], key) -> weights: params and net_state, each of the first
      layer, of the hidden ones behind it [depth - 1, ...], and of the last.
    apply: (params, net_state, x [B, D], is_training) -> logits [B, C],
      moments [depth, 2] and the new net_state. The moments are mean and
      variance of each hidden layer's activations, over its units and the batch.
  """

  init: Callable[..., tuple[Any, Any]]
  apply: Callable[..., tuple[Array, Array, Any]]


def network(net: Net, width: int, classes: int) -> Network:
  """The network of an arm and a depth.

  Its hidden layers are of one shape and run in a scan, so that a deep network
  takes no longer to compile than a shallow one.
  """
  last = hk.without_apply_rng(
    hk.transform(lambda x: nets.SeluMLP([classes])(x))
  )
  if not net.depth:
    return Network(
      lambda x, key: ({'last': last.init(key, x)}, {}),
      lambda params, net_state, x, is_training: (
        last.apply(params['last'], x),
        jnp.zeros((0, 2)),
        net_state,
      ),
    )
  layer = hk.transform_with_state(functools.partial(ARMS[net.arm], width))

  def init(x: Array, key: types.Key) -> tuple[Any, Any]:
    keys = jax.random.split(key, net.depth + 1)
    first = layer.init(keys[0], x, True)
    inside = jnp.zeros((len(x), width))
    hidden = jax.vmap(lambda key: layer.init(key, inside, True))(keys[1:-1])
    output = last.init(keys[-1], inside)
    return (
      {'first': first[0], 'hidden': hidden[0], 'last': output},
      {'first': first[1], 'hidden': hidden[1]},
    )

  def apply(
    params: Any, net_state: Any, x: Array, is_training: bool
  ) -> tuple[Array, Array, Any]:
    def through(x, weights):
      x, new = layer.apply(*weights, None, x, is_training)
      return x, (jnp.stack([x.mean(), x.var()]), new)

    x, (moment, first) = through(x, (params['first'], net_state['first']))
    x, (moments, hidden) = jax.lax.scan(
      through, x, (params['hidden'], net_state['hidden'])
    )
    moments = jnp.concatenate([moment[None], moments])
    logits = last.apply(params['last'], x)
    return logits, moments, {'first': first, 'hidden': hidden}

  return Network(init, apply)


# ------------------------------------------------------------------- learning


def standardise(data: images.Images, seed: int) -> Data:
  """Pixels with mean 0 and variance 1; a tenth of the training images apart.

  A pixel that is the same in all training images is left at mean 0.
  """
  train, test = (
    x.reshape(len(x), -1).astype(np.float32) / (data.levels - 1)
    for x in (data.train, data.test)
  )
  order = np.random.default_rng(seed).permutation(len(train))
  kept, learned = np.split(order, [len(order) // 10])
  mean, deviation = train[learned].mean(0), train[learned].std(0)
  deviation = np.where(deviation > 0, deviation, 1)

  def batch(x, label):
    return Batch((x - mean) / deviation, label)

  return Data(
    data.name,
    batch(train[learned], data.train_label[learned]),
    batch(train[kept], data.train_label[kept]),
    batch(test, data.test_label),
  )


def num_classes(data: Data) -> int:
  """C."""
  return int(data.train.label.max()) + 1


def losses(logits: Array, label: Any) -> tuple[Array, Array]:
  """The mean of -log p(class), nats, and the share of wrong classes."""
  each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return jnp.mean(each), jnp.mean(logits.argmax(-1) != label)


def descend(
  network: Network, params: Any, net_state: Any, rate: Array, batch: Batch
) -> tuple[Any, Any, types.Metrics]:
  """One step of gradient descent of one network; none that is not finite."""

  def loss(params):
    logits, _, new = network.apply(params, net_state, batch.x, True)
    value, error = losses(logits, batch.label)
    return value, (error, new)

  (value, (error, new)), gradient = jax.value_and_grad(loss, has_aux=True)(
    params
  )
  is_finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
  keep = functools.partial(
    jax.tree.map, functools.partial(jnp.where, is_finite)
  )
  changed = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
  metrics = {'loss': _capped(value), 'error': error}
  return keep(changed, params), keep(new, net_state), metrics


def _capped(loss: Array) -> Array:
  return jnp.nan_to_num(jnp.minimum(loss, _HIGHEST), nan=_HIGHEST)


def init(config: Config, size: int, classes: int, key: types.Key) -> State:
  """The state before the first update; consumes the key.

  Args:
    config: the settings.
    size: D, pixels of an image.
    classes: C.
    key: gives all rates of a network the same weights.
  """
  params, net_states = {}, {}
  for i, net in enumerate(networks(config)):
    one = network(net, config.width, classes).init(
      jnp.zeros((1, size)), jax.random.fold_in(key, i)
    )
    params[str(net)], net_states[str(net)] = jax.tree.map(
      lambda x: jnp.stack([x] * len(config.learning_rates)), one
    )
  return State(params, net_states, {}, jnp.zeros((), jnp.int32))


def make_step(config: Config, classes: int) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update of every network.

  The metrics are each network's loss and error, [R].
  """
  rates = jnp.array(config.learning_rates)

  def step(state: State, batch: Batch, key: types.Key):
    del key  # nothing is drawn
    params, net_states, metrics = {}, {}, {}
    trees: Any = state.params
    for net in networks(config):
      name = str(net)
      update = functools.partial(
        descend, network(net, config.width, classes), batch=batch
      )
      params[name], net_states[name], found = population.mapped(update)(
        trees[name], state.net_state[name], rates
      )
      metrics |= {f'{what}, {name}': x for what, x in found.items()}
    return State(params, net_states, {}, state.step + 1), metrics

  return step


def batches(config: Config, data: Batch, step: int) -> Iterator[Batch]:
  """Images drawn for each update, from update `step` on."""
  while True:
    random = np.random.default_rng((config.seed, step))
    which = random.integers(len(data.x), size=config.batch_size)
    yield Batch(data.x[which], data.label[which])
    step += 1


# -------------------------------------------------------------------- judging


class Scores(NamedTuple):
  """Of one network on some images, with each rate: [R].

  Attributes:
    loss: the mean of -log p(class), nats; at most 10.
    error: the share of wrong classes.
  """

  loss: np.ndarray
  error: np.ndarray


class Judged(NamedTuple):
  """What there is to say of a network at the end.

  Attributes:
    best: index of the rate with the lowest error on the validation images.
    train: on (at most 10,000) training images.
    valid: on the validation images.
    test: on the test images.
  """

  best: int
  train: Scores
  valid: Scores
  test: Scores


def score(function: Network, weights: Any, *parts: Batch) -> list[Scores]:
  """Judges a network with each of its rates on several sets of images."""

  @jax.jit
  def run(weights: Any, x: Array) -> Array:
    return population.mapped(
      lambda params, net_state: function.apply(params, net_state, x, False)[0]
    )(*weights)

  scores = []
  for part in parts:
    found = []
    for start in range(0, len(part.x), _AT_ONCE):
      which = np.arange(start, start + _AT_ONCE) % len(part.x)
      found.append(np.asarray(run(weights, part.x[which])))
    logits = jnp.asarray(np.concatenate(found, axis=1)[:, : len(part.x)])
    loss, error = jax.vmap(losses, (0, None))(logits, jnp.asarray(part.label))
    scores.append(Scores(np.asarray(_capped(loss)), np.asarray(error)))
  return scores


def judge(config: Config, data: Data, state: State) -> dict[Net, Judged]:
  """Judges all networks with all of their rates."""
  some = Batch(*(x[:_JUDGED] for x in data.train))
  judged = {}
  for net in networks(config):
    train, valid, test = score(
      network(net, config.width, num_classes(data)),
      weights_of(state, net),
      *(some, data.valid, data.test),
    )
    # Of equal errors the lower loss.
    best = int(np.lexsort((valid.loss, valid.error))[0])
    judged[net] = Judged(best, train, valid, test)
  return judged


def weights_of(state: State, net: Net) -> tuple[Any, Any]:
  """Parameters and state of a network, [R, ...] each."""
  params: Any = state.params
  return params[str(net)], state.net_state[str(net)]


def moments_by_layer(
  config: Config,
  data: Data,
  judged: Mapping[Net, Judged],
  states: Sequence[State],
) -> dict[str, np.ndarray]:
  """Activations of the deepest networks on a batch of test images.

  Returns:
    Arm -> [states, depth, 2], mean and variance; with the best rate, and with
    the statistics of the batch where a layer normalises over it.
  """
  x, found = jnp.asarray(data.test.x[:_AT_ONCE]), {}
  for arm in ARMS:
    net = Net(arm, max(config.depths))
    function = network(net, config.width, num_classes(data))
    run = jax.jit(lambda weights, f=function: f.apply(*weights, x, True)[1])
    found[arm] = np.stack(
      [
        run(
          population.take(weights_of(state, net), jnp.int32(judged[net].best))
        )
        for state in states
      ]
    )
  return found


# ------------------------------------------------------------------ the whole


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Trains all networks on the same batches, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  data = standardise(images.load(config.images), config.seed)
  classes = num_classes(data)
  begin = functools.partial(init, config, data.train.x.shape[1], classes)
  result = training.fit(
    make_step(config, classes),
    begin,
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    batches=functools.partial(batches, config, data.train),
    hooks=hooks,
    log_every=max(1, config.num_steps // 500),
  )
  if result.status != 'done':
    return result.metrics
  # The key that `fit` has begun with.
  key, _ = jax.random.split(jax.random.key(config.seed))
  return conclude(config, data, jax.jit(begin)(key), result, workdir)


def conclude(
  config: Config,
  data: Data,
  first: State,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Judges all networks, draws, and reports."""
  start = time.monotonic()
  judged = judge(config, data, result.state)
  moments = moments_by_layer(config, data, judged, (first, result.state))
  records = training.logging.read(workdir) if workdir else []
  figure = draw(config, len(data.train.x), records, judged, moments)
  report.save_figure(figure, workdir, 'self_normalizing')
  metrics = {}
  for net, found in judged.items():
    metrics |= {
      f'test error, {net}': float(found.test.error[found.best]),
      f'training loss, {net}': float(found.train.loss[found.best]),
      f'learning rate, {net}': config.learning_rates[found.best],
    }
  report.write(
    workdir,
    title=f'Self-normalising networks on {data.name}',
    config=config,
    claims=make_claims(config, data, judged, moments),
    metrics=metrics,
    figures={
      'self_normalizing': 'Above, the loss in training, each network with its '
      'best rate. Below, the test error with every rate, and the variance of '
      "the deepest networks' activations, layer by layer."
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def make_claims(
  config: Config,
  data: Data,
  judged: Mapping[Net, Judged],
  moments: Mapping[str, np.ndarray],
) -> list[types.Claim]:
  """SELU beside the others at each depth, and each beside none at all."""

  def test_error(net: Net) -> float:
    return float(judged[net].test.error[judged[net].best])

  def train_loss(net: Net) -> float:
    return float(judged[net].train.loss[judged[net].best])

  claims = []
  for depth in sorted(config.depths, reverse=True):
    ours, norm = Net('SELU', depth), Net('BatchNorm', depth)
    others = [Net(arm, depth) for arm in ARMS if arm != 'SELU']
    best = min(test_error(net) for net in others)
    claims += [
      types.at_most(
        f'{data.name}, {depth} layers: test error of SELU less that of the '
        'best of the others',
        test_error(ours) - best,
        0.0,
        baseline=test_error(LINEAR) - best,
        baseline_name='softmax regression, less the same',
      ),
      types.at_most(
        f'{data.name}, {depth} layers: training loss of SELU less that of '
        'BatchNorm, nats',
        train_loss(ours) - train_loss(norm),
        0.0,
        baseline=train_loss(LINEAR) - train_loss(norm),
        baseline_name='softmax regression, less the same',
        paper='below 0 (figure 1)',
      ),
    ]
  for i, when in enumerate(('before', 'after')):
    claims.append(
      types.Claim(
        f'variance in the last of {max(config.depths)} layers of SELU, {when} '
        'training',
        float(moments['SELU'][i, -1, 1]),
        baseline=float(moments['ReLU'][i, -1, 1]),
        baseline_name='ReLU',
      )
    )
  for net in networks(config)[1:]:
    claims += [
      types.Claim(
        f'{data.name}: test error, {net}',
        test_error(net),
        baseline=test_error(LINEAR),
        baseline_name='softmax regression',
      ),
      types.Claim(
        f'{data.name}: training loss, {net}, nats',
        train_loss(net),
        baseline=train_loss(LINEAR),
        baseline_name='softmax regression',
      ),
    ]
  return claims


def draw(
  config: Config,
  num_images: int,
  records: Sequence[Mapping[str, Any]],
  judged: Mapping[Net, Judged],
  moments: Mapping[str, np.ndarray],
) -> Figure:
  """Losses in training by depth; test errors by rate; variances by layer."""
  columns = len(config.depths)
  figure = Figure(figsize=(3.6 * (columns + 1), 6.6), layout='constrained')
  axes = figure.subplots(2, columns + 1, squeeze=False)
  steps = np.array([r['step'] for r in records], float)
  for (above, below), depth in zip(axes.T, config.depths, strict=False):
    above.sharey(axes[0, 0])
    below.sharey(axes[1, 0])
    for i, arm in enumerate(ARMS):
      net = Net(arm, depth)
      found, color = judged[net], f'C{i}'
      label = f'{arm}, rate {config.learning_rates[found.best]:g}'
      if records:
        loss = np.array([r[f'loss, {net}'][found.best] for r in records])
        # Some fifty points, each the mean of as many batches.
        parts = np.array_split(np.arange(len(loss)), min(50, len(loss)))
        epochs = [
          steps[p].mean() * config.batch_size / num_images for p in parts
        ]
        means = [loss[p].mean() for p in parts]
        above.semilogy(epochs, means, color=color, label=label)
      below.loglog(config.learning_rates, found.test.error, 'o-', color=color)
    plain = judged[LINEAR].test.error
    below.loglog(config.learning_rates, plain, 'o:', color='0.6')
    above.set(title=f'{depth} layers', xlabel='epoch')
    below.set(xlabel='learning rate')
    if above.lines:
      above.legend(fontsize='small')
  axes[0, 0].set_ylabel('training loss, nats')
  axes[1, 0].set_ylabel('test error (dotted: softmax regression)')
  deepest = max(config.depths)
  for when, cell in enumerate(axes[:, -1]):
    for i, arm in enumerate(ARMS):
      variance = moments[arm][when, :, 1]
      layers = np.arange(1, deepest + 1)
      cell.semilogy(layers, variance, color=f'C{i}', label=arm)
    cell.axhline(1, color='0.6', linestyle=':')
    cell.set(
      title=f'variance {("before", "after")[when]} training', xlabel='layer'
    )
  axes[0, -1].legend(fontsize='small')
  return figure
