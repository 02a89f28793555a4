"""PixelRNN: an image, pixel by pixel, each from all the pixels before it.

Van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel recurrent neural networks",
ICML 2016 [P]. Slides: deck 003, "PixelRNN".

    image ──> masked convolution, which does not see the pixel itself
                 |
              layers: masked convolutions (PixelCNN), row LSTM or
                 |    diagonal BiLSTM, each added to what it is given
                 v
              1 x 1, 1 x 1 ──> p(level | pixels before)   for all pixels at once

    log p(image) = sum over its pixels, and colours, of log p(level | before)

In training all pixels are predicted at once; to draw an image, one after the
other.

  python -m experiments.pixel_rnn --config.model=diagonal_bilstm

Two minutes, or less, of a core. Digits of 8 x 8 in two levels, nats per test
image: 18.5 of PixelCNN, 18.7 of the diagonal BiLSTM, 19.1 of the row LSTM;
beside them 20.0 of the training images, each with noise, and 24.1 of pixels
that know nothing of each other (`results/pixel_rnn*.json`). MNIST of 28 x 28,
made binary by chance (`--preset=mnist`, ten minutes): 91.7 of PixelCNN, 182
and 206 of the two others. Published there: 81.3 of PixelCNN, 79.2 with seven
layers of diagonal BiLSTM.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy import special

from dl_lectures import training, types
from dl_lectures.data import images
from dl_lectures.nets import pixels
from dl_lectures.training import report

Array = jax.Array
State = types.TrainState
Batch = np.ndarray  # [B, H, W, C] int32

# Images that are judged at once.
_AT_ONCE = 128
# Images that neighbours are sought for; of each to all of them.
_JUDGED = 1000
# Shares of pixels that differ from a training image, of which one is chosen.
_NOISE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the values of [P] for MNIST."""

  seed: int = 0  # of every random number
  model: str = 'pixel_cnn'  # or row_lstm, diagonal_bilstm
  images: str = 'digits'  # or mnist, or a folder with its files; [P]: MNIST
  levels: int = 2  # of a pixel; [P]: 2
  sampled: bool = False  # 0 or 1 drawn, a grey pixel either; [P]: True
  layers: int = 3  # [P]: 7
  channels: int = 32  # of each layer, for each colour; [P]: 16
  first_kernel: int = 5  # of the first convolution; [P]: 7
  batch_size: int = 32  # images; [P]: 16
  num_steps: int = 1500  # updates
  learning_rate: float = 2e-3  # of Adam, falling to 0; [P]: RMSProp
  num_drawn: int = 24  # images of the report

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'layers channels first_kernel batch_size', 1)
    types.check_fields(self, 'num_steps', 1)
    types.check_fields(self, 'learning_rate num_drawn', 0)
    types.check_fields(self, 'levels', 2, 256)
    if self.sampled and self.levels != 2:
      raise types.UsageError(
        f'config.sampled with config.levels={self.levels}; 2 is possible'
      )
    if self.model not in MODELS:
      raise types.UsageError(
        f'config.model={self.model!r}; possible: {", ".join(MODELS)}'
      )


def _convolve(config: Config, colours: int, x: Array) -> Array:
  """[P], figure 5, left: a residual block of PixelCNN."""
  width = x.shape[-1]
  conv = functools.partial(
    pixels.MaskedConv2D, sees_itself=True, colours=colours
  )
  y = conv(max(colours, width // 2), 1)(jax.nn.relu(x))
  y = conv(max(colours, width // 2), 3)(jax.nn.relu(y))
  return x + conv(width, 1)(jax.nn.relu(y))


def _row(config: Config, colours: int, x: Array) -> Array:
  """[P], figure 5, right: LSTM, 1 x 1 convolution, and the input added."""
  y = pixels.RowLSTM(config.channels * colours, colours)(x)
  return x + pixels.MaskedConv2D(
    x.shape[-1], 1, sees_itself=True, colours=colours
  )(y)


def _diagonal(config: Config, colours: int, x: Array) -> Array:
  y = pixels.DiagonalBiLSTM(config.channels * colours, colours)(x)
  return x + pixels.MaskedConv2D(
    x.shape[-1], 1, sees_itself=True, colours=colours
  )(y)


MODELS: Mapping[str, Callable[[Config, int, Array], Array]] = {
  'pixel_cnn': _convolve,
  'row_lstm': _row,
  'diagonal_bilstm': _diagonal,
}

PRESETS = {
  'smoke': Config(
    layers=1, channels=4, first_kernel=3, num_steps=30, num_drawn=2
  ),
  'laptop': Config(),
  'mnist': Config(
    images='mnist',
    sampled=True,
    layers=5,
    first_kernel=7,
    num_steps=6000,
  ),
  'paper': Config(
    model='diagonal_bilstm',
    images='mnist',
    sampled=True,
    layers=7,
    channels=16,
    first_kernel=7,
    batch_size=16,
    num_steps=200_000,
    learning_rate=1e-3,
  ),
}


def network(config: Config, levels: int) -> hk.Transformed:
  """Pixels [N, H, W, C] to logits [N, H, W, C, levels].

  Args:
    config: the settings.
    levels: K.
  """

  def forward(image: Array) -> Array:
    colours = image.shape[-1]
    width = config.channels * colours
    x = 2.0 * image / (levels - 1) - 1
    x = pixels.MaskedConv2D(
      width, config.first_kernel, sees_itself=False, colours=colours
    )(x)
    for _ in range(config.layers):
      x = MODELS[config.model](config, colours, x)
    conv = functools.partial(
      pixels.MaskedConv2D, kernel_shape=1, sees_itself=True, colours=colours
    )
    x = conv(width)(jax.nn.relu(x))
    x = conv(levels * colours)(jax.nn.relu(x))
    return x.reshape(*image.shape, levels)

  return hk.without_apply_rng(hk.transform(forward))


def log_prob(net: hk.Transformed, params: Any, image: Array) -> Array:
  """log p of whole images, nats: [N, H, W, C] to [N]."""
  logits = net.apply(params, image)
  each = -optax.softmax_cross_entropy_with_integer_labels(logits, image)
  return jnp.sum(each, axis=(1, 2, 3))


def draw_images(
  net: hk.Transformed, params: Any, shape: Sequence[int], key: types.Key
) -> Array:
  """Draws images, one pixel and colour after the other: [N, H, W, C] int32.

  Args:
    net: of `network`.
    params: its parameters.
    shape: N, H, W, C.
    key: consumed.
  """
  count, *size = shape
  places = jnp.stack(
    jnp.meshgrid(*map(jnp.arange, size), indexing='ij'), axis=-1
  ).reshape(-1, 3)

  def place(image: Array, given: tuple[Array, types.Key]) -> tuple[Array, None]:
    (row, column, colour), key = given
    logits = net.apply(params, image)[:, row, column, colour]
    level = jax.random.categorical(key, logits)
    return image.at[:, row, column, colour].set(level), None

  keys = jax.random.split(key, len(places))
  start = jnp.zeros((count, *size), jnp.int32)
  return jax.lax.scan(place, start, (places, keys))[0]


def loss(
  net: hk.Transformed, params: Any, net_state: Any, key: types.Key, batch: Any
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """The mean of -log p(image), nats."""
  del key
  return -jnp.mean(log_prob(net, params, batch)), (net_state, {})


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam; the rate falls to 0 along a cosine."""
  rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
  return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))


def init(
  config: Config, net: hk.Transformed, shape: Sequence[int], key: types.Key
) -> State:
  """The state before the first update; consumes the key."""
  params = net.init(key, jnp.zeros((1, *shape), jnp.int32))
  return training.init_state(params, {}, optimizer(config))


def make_step(config: Config, net: hk.Transformed) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update."""
  return training.make_step(functools.partial(loss, net), optimizer(config))


def batches(config: Config, image: np.ndarray, step: int) -> Iterator[Batch]:
  """Images drawn for each update, from update `step` on."""
  while True:
    draw = np.random.default_rng((config.seed, step))
    yield image[draw.integers(len(image), size=config.batch_size)]
    step += 1


def evaluate(net: hk.Transformed, params: Any, image: np.ndarray) -> np.ndarray:
  """-log p of each image, nats: [N]."""
  judge, found = jax.jit(functools.partial(log_prob, net)), []
  for start in range(0, len(image), _AT_ONCE):
    which = np.arange(start, start + _AT_ONCE) % len(image)
    found.append(-np.asarray(judge(params, image[which])))
  return np.concatenate(found)[: len(image)]


def independent(train: np.ndarray, test: np.ndarray, levels: int) -> float:
  """Nats per image of pixels that know nothing of each other.

  Of each pixel how often it has each level, one of each added.

  >>> train = np.array([0, 0, 0, 1])[:, None, None, None]
  >>> round(independent(train, train[:1], 2), 4)  # log(6 / 4)
  0.4055
  """
  share = np.stack([(train == k).sum(0) + 1 for k in range(levels)], -1)
  log_p = np.log(share / (len(train) + levels))
  each = np.take_along_axis(log_p[None], test[..., None], axis=-1)
  return -float(each.sum() / len(test))


def noisy_neighbours(
  train: np.ndarray, test: np.ndarray, levels: int
) -> tuple[float, float]:
  """Nats per image of the training images, each with noise, in equal parts.

  A pixel keeps its level but for a share e, which is spread over the others; e
  is chosen on the last tenth of the training images.

  Returns:
    The nats, and e.
  """

  size = train[0].size

  def equal_pixels(kept: np.ndarray, asked: np.ndarray) -> np.ndarray:
    # Of each asked, by each kept: sums of 0 and 1, exact in 32 bits.
    same = np.zeros((len(asked), len(kept)), np.float32)
    for level in range(levels):
      one, other = (
        (x.reshape(len(x), -1) == level).astype(np.float32)
        for x in (asked, kept)
      )
      same += one @ other.T
    return same

  def nats(same: np.ndarray, e: float) -> float:
    log_odds = np.log((1 - e) * (levels - 1) / e)
    scaled = special.logsumexp(same * log_odds, axis=1)
    each = scaled + size * np.log(e / (levels - 1)) - np.log(same.shape[1])
    return -float(each.mean())

  count = len(train) - len(train) // 10
  held_out = train[count:][:_JUDGED]
  same = equal_pixels(train[:count], held_out)
  e = min(_NOISE, key=lambda e: nats(same, e))
  return nats(equal_pixels(train, test), e), e


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns images, draws some, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  data = images.load(config.images)
  if config.sampled:  # the same images for all seeds
    seen = images.binarise(data.train, data.levels, seed=0)
    unseen = images.binarise(data.test, data.levels, seed=1)
  else:
    seen, unseen = (
      images.quantise(x, data.levels, config.levels)
      for x in (data.train, data.test)
    )
  net = network(config, config.levels)
  few = unseen[:256]

  def examine(step: int, state: State) -> types.Metrics:
    del step
    return {'test_nats': jnp.float32(evaluate(net, state.params, few).mean())}

  result = training.fit(
    make_step(config, net),
    functools.partial(init, config, net, seen.shape[1:]),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    batches=functools.partial(batches, config, seen),
    hooks=[
      training.Hook(examine, max(1, config.num_steps // 10)),
      *hooks,
    ],
    log_every=20,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, data.name, net, seen, unseen, result, workdir)


def conclude(
  config: Config,
  name: str,
  net: hk.Transformed,
  seen: np.ndarray,
  unseen: np.ndarray,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Judges the test images, draws new ones, and reports."""
  start = time.monotonic()
  params = result.state.params
  nats = evaluate(net, params, unseen)
  alone = independent(seen, unseen, config.levels)
  near, noise = noisy_neighbours(seen, unseen[:_JUDGED], config.levels)
  drawn = np.zeros((0, *seen.shape[1:]))
  if config.num_drawn:
    draw = jax.jit(functools.partial(draw_images, net), static_argnums=1)
    shape = config.num_drawn, *seen.shape[1:]
    drawn = np.asarray(draw(params, shape, jax.random.key(config.seed)))
  records = training.logging.read(workdir) if workdir else []
  figure = draw_report(config, records, alone, near, seen, drawn)
  report.save_figure(figure, workdir, 'pixel_rnn')
  metrics = {
    'nats': float(nats.mean()),
    'independent_nats': alone,
    'neighbour_nats': near,
    'neighbour_noise': noise,
  }
  report.write(
    workdir,
    title=f'{config.model} on {name}',
    config=config,
    claims=make_claims(config, name, nats, alone, near),
    metrics=metrics,
    figures={'pixel_rnn': 'How it learns; images given, and images drawn.'},
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def make_claims(
  config: Config, name: str, nats: np.ndarray, alone: float, near: float
) -> list[types.Claim]:
  """Nats per test image, beside two models without a network."""
  mean = float(nats.mean())
  spread = 1.96 * float(nats.std() / np.sqrt(len(nats)))
  return [
    types.at_most(
      f'{config.model}, {name} in {config.levels} levels: nats per image, less '
      f'than {what}',
      mean,
      bar,
      interval=(mean - spread, mean + spread),
      baseline=bar,
      baseline_name=what,
      paper='79.2 to 81.3 on binarised MNIST of 28 x 28',
    )
    for bar, what in (
      (near, 'the training images, each with noise'),
      (alone, 'independent pixels'),
    )
  ]


def draw_report(
  config: Config,
  records: Sequence[Mapping[str, Any]],
  alone: float,
  near: float,
  seen: np.ndarray,
  drawn: np.ndarray,
) -> Figure:
  """The nats over training; training images above, drawn ones below."""
  figure = Figure(figsize=(11, 3.6))
  axes, left, right = figure.subplots(1, 3)
  points = [(r['step'], r['test_nats']) for r in records if 'test_nats' in r]
  if points:
    axes.plot(*zip(*points, strict=True), 'o-', label=config.model)
  axes.axhline(alone, color='C3', linestyle=':', label='independent pixels')
  axes.axhline(near, color='C1', linestyle=':', label='noisy neighbours')
  axes.set(xlabel='updates', ylabel='nats per test image')
  axes.legend(fontsize='small')
  for cell, some, title in (
    (left, seen[: len(drawn)], 'given'),
    (right, drawn, 'drawn'),
  ):
    cell.set_title(title)
    cell.axis('off')
    if len(some):
      cell.imshow(_tiled(some) / (config.levels - 1), cmap='gray', vmin=0)
  return figure


def _tiled(some: np.ndarray) -> np.ndarray:
  """Images [N, H, W, C] as one, six in a row, with lines between."""
  rows = -(-len(some) // 6)
  framed = np.pad(some, ((0, 6 * rows - len(some)), (1, 1), (1, 1), (0, 0)))
  _, height, width, colours = framed.shape
  grid = framed.reshape(rows, 6, height, width, colours)
  whole = grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, 6 * width, -1)
  return whole[..., 0] if colours == 1 else whole
