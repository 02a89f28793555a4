"""Captions of images: a convolutional encoder, and a decoder that looks.

Vinyals et al., "Show and tell", CVPR 2015 [V]; Xu et al., "Show, attend and
tell", ICML 2015 [X]. Slides: deck 003, "Image captioning", "Attention".

    image ──> convolutions ──> 8 x 8 vectors ──> one vector ──> decoder: 'red
                                    |            |               circle left of
                                    |            v               blue square'
                                    └─> a second decoder, which looks at all of
                                        them before each word

The one vector says how much there is of each feature, and where on average.

Scenes are drawn, so that each has one right caption (`data.scenes`). Colours,
shapes and relations are all learned from, some of their combinations never:
they are what is judged. A caption counts if every word of it is right.

Does the decoder look at what it names? Its weights at the step that writes a
colour or a shape are enlarged from 8 x 8 linearly to the image's pixels. Of
these the k highest are taken, k being the number of pixels of the object that
is named, and compared with the object's:

    IoU = pixels in both / pixels in either

Chance is the same with the weights of another scene: looking at where objects
usually are.

  python -m experiments.captioning --workdir=runs/captioning

Three minutes of a core. Combinations that were never seen, of objects that
were: 98% of the captions right with attention (97% to 99% over three seeds),
35% through one vector (22% to 61%). With an object that was never seen, a
colour in a shape that it never had: 19% and 0%; what was never said is hard to
say. IoU of attention and the object named: .45, by chance .08.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.data import scenes
from dl_lectures.nets import convolution, encoder_decoder
from dl_lectures.training import generation, report

Array = jax.Array
State = types.TrainState
Batch = scenes.Scenes
Nets = Mapping[str, encoder_decoder.EncoderDecoder]

NAMES = ('attention', 'one vector')
# What is held out, and how often each caption of it is drawn.
HELD_OUT = {'new combination': 4, 'new object': 1}
# Seeds of scenes that are not learned from, which are drawn by (seed, step).
_JUDGED, _WATCHED = (0, 0, 1), (0, 0, 2)
# Scenes that are captioned at once.
_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give values of [X]."""

  seed: int = 0  # of every random number but those of the scenes judged
  channels: int = 32  # of the convolutions; [X]: 512, of a ready-made network
  blocks: int = 2  # of the residual tower on 8 x 8 places; [X]: 14 x 14 places
  units: int = 128  # of each LSTM; [X]: 1,800
  # share of the words written so far that the decoder is not told in training,
  # so that it looks instead of guessing (Bowman et al. 2016)
  word_dropout: float = 0.5
  batch_size: int = 32  # scenes; [X]: 64
  num_steps: int = 3000  # updates
  learning_rate: float = 2e-3  # of Adam, falling to 0; [X]: Adam too
  clip: float = 1.0  # norm of a network's gradient

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'channels units batch_size num_steps', 1)
    types.check_fields(self, 'blocks learning_rate', 0)
    types.check_fields(self, 'word_dropout', 0, 1)
    if self.clip <= 0:
      raise types.UsageError(
        f'config.clip={self.clip}; more than 0 is possible'
      )


PRESETS = {
  'smoke': Config(channels=4, blocks=0, units=8, batch_size=8, num_steps=20),
  'laptop': Config(),
  'paper': Config(
    channels=512,
    units=1800,
    word_dropout=0.0,
    batch_size=64,
    num_steps=200_000,
  ),
}


def networks(config: Config) -> Nets:
  """The two that are compared, by name."""

  def read(image: Array) -> encoder_decoder.Memory:
    convolve = functools.partial(
      convolution.Conv2D, config.channels, 3, stride=2
    )
    x = jax.nn.relu(convolve()(image - 0.5))
    x = jax.nn.relu(convolve()(x))
    x = convolution.ResidualTower(config.channels, config.blocks)(x)
    # Each vector also knows where it is.
    line = jnp.linspace(-1, 1, x.shape[1])
    where = jnp.stack(jnp.meshgrid(line, line), axis=-1)
    where = jnp.broadcast_to(where[None], (*x.shape[:3], 2))
    vectors = jnp.concatenate([x, where], axis=-1)
    vectors = vectors.reshape(len(x), -1, vectors.shape[-1])
    # How much there is of each feature, and where it is on average.
    ones = jnp.ones((*x.shape[:3], 1))
    moments = jnp.einsum(
      'bhwc,bhwk->bck', x, jnp.concatenate([ones, where], axis=-1)
    )
    mean = moments.reshape(len(x), -1) / vectors.shape[1]
    state = hk.LSTMState(
      jnp.tanh(hk.Linear(config.units, name='hidden')(mean)),
      hk.Linear(config.units, name='cell')(mean),
    )
    mask = jnp.ones(vectors.shape[:2], bool)
    return encoder_decoder.Memory(vectors, mask, state)

  return {
    name: encoder_decoder.with_reader(
      read,
      config.units,
      vector_size=config.channels + 2,
      target_size=scenes.NUM_TOKENS,
      attention=name == 'attention',
      looks_first=True,
    )
    for name in NAMES
  }


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam for each network on its own, falling to 0."""
  rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
  one = optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate))
  labels = {name: name for name in NAMES}
  return optax.multi_transform({name: one for name in NAMES}, labels)


def loss(
  config: Config,
  nets: Nets,
  params: Any,
  net_state: Any,
  key: types.Key,
  batch: Batch,
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """The sum of the networks' losses: mean -log p of a word, nats.

  Args:
    config: the settings.
    nets: the networks, which add their losses.
    params: of each.
    net_state: of nothing.
    key: consumed; of the words that the decoders are not told.
    batch: scenes.
  """
  given, wanted = batch.caption[:, :-1], batch.caption[:, 1:]
  counts = wanted != scenes.PAD
  dropped = jax.random.bernoulli(key, config.word_dropout, given.shape)
  given = jnp.where(dropped, scenes.PAD, given)
  metrics = {}
  for name, net in nets.items():
    memory = net.encode(params[name], batch.image)
    logits, _ = net.decoder.apply_from(
      params[name].decoder, None, memory, given
    )
    each = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
    metrics[f'loss of {name}'] = jnp.sum(each * counts) / jnp.sum(counts)
  return sum(metrics.values(), jnp.float32(0)), (net_state, metrics)


def init(config: Config, nets: Nets, key: types.Key) -> State:
  """The state before the first update; consumes the key."""
  some = scenes.draw(np.arange(1), np.random.default_rng(0))
  keys = jax.random.split(key, len(nets))
  params = {
    name: net.init(k, some.image, some.caption)
    for k, (name, net) in zip(keys, nets.items(), strict=True)
  }
  return training.init_state(params, {}, optimizer(config))


def make_step(config: Config, nets: Nets) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update of both."""
  return training.make_step(
    functools.partial(loss, config, nets), optimizer(config)
  )


def batches(config: Config, step: int) -> Iterator[Batch]:
  """Scenes drawn for each update, from update `step` on."""
  seen = scenes.split().seen
  while True:
    random = np.random.default_rng((config.seed, step))
    yield scenes.draw(random.choice(seen, config.batch_size), random)
    step += 1


def held_out(name: str) -> Batch:
  """The scenes of `HELD_OUT` that are judged, the same for every seed."""
  numbers = getattr(scenes.split(), name.replace(' ', '_'))
  random = np.random.default_rng(_JUDGED)
  return scenes.draw(np.repeat(numbers, HELD_OUT[name]), random)


def describe(
  net: encoder_decoder.EncoderDecoder, weights: Any, image: np.ndarray
) -> list[str]:
  """The likeliest words one after the other, for each of N images."""
  encode, total, captions = jax.jit(net.encode), len(image), []
  for start in range(0, total, _AT_ONCE):
    which = np.arange(start, start + _AT_ONCE) % total
    new = generation.generate(
      net.decoder,
      weights.decoder,
      np.full((_AT_ONCE, 1), scenes.START, np.int32),
      scenes.MAX_WORDS + 1,
      method='greedy',
      stop_token=scenes.STOP,
      carry=encode(weights, image[which]),
    )
    captions += [scenes.decode(tokens) for tokens in np.asarray(new.tokens)]
  return captions[:total]


def right(captions: Sequence[str], batch: Batch) -> np.ndarray:
  """[N] bool, whether every word of a caption is right.

  >>> batch = scenes.draw(np.arange(2), np.random.default_rng(0))
  >>> right([scenes.caption(0), 'red'], batch).tolist()
  [True, False]
  """
  wanted = [scenes.decode(tokens[1:]) for tokens in batch.caption]
  return np.array([a == b for a, b in zip(captions, wanted, strict=True)])


class Looks(NamedTuple):
  """How well weights of attention cover the objects that are named.

  Attributes:
    iou: [4, N], of the larger one's colour and shape, of the smaller one's.
    chance: [4, N], with the weights of another scene.
  """

  iou: np.ndarray
  chance: np.ndarray


def look_at(
  net: encoder_decoder.EncoderDecoder, weights: Any, batch: Batch
) -> np.ndarray:
  """Where the decoder looks for each word, enlarged: [N, T, S, S].

  The words are those of the right caption; the first step writes the first.
  """
  assert net.look is not None
  given = batch.caption[:, :-1]
  encode, look, maps = jax.jit(net.encode), jax.jit(net.look), []
  for start in range(0, len(given), _AT_ONCE):
    which = np.arange(start, start + _AT_ONCE) % len(given)
    memory = encode(weights, batch.image[which])
    maps.append(_enlarge(look(weights, memory, given[which])))
  return np.concatenate(maps)[: len(given)]


@jax.jit
def _enlarge(weights: Array) -> Array:
  """[N, T, places] to [N, T, S, S], linearly."""
  side = round(weights.shape[-1] ** 0.5)
  maps = weights.reshape(*weights.shape[:-1], side, side)
  size = *weights.shape[:-1], scenes.SIDE, scenes.SIDE
  return jax.image.resize(maps, size, 'linear')


def judge_looks(maps: np.ndarray, batch: Batch) -> Looks:
  """Compares maps [N, T, S, S] with the objects that the words name."""
  every = np.arange(len(maps))
  num_words = np.sum(batch.caption > scenes.STOP, axis=1)
  found, chance = [], []
  for step, which in (
    (0 * num_words, 0),
    (0 * num_words + 1, 0),
    (num_words - 2, 1),
    (num_words - 1, 1),
  ):
    named, mask = maps[every, step], batch.mask[:, which]
    found.append(overlap(named, mask))
    chance.append(overlap(np.roll(named, len(named) // 2, axis=0), mask))
  return Looks(np.stack(found), np.stack(chance))


def overlap(maps: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """IoU of an object with as many of the highest pixels of a map.

  >>> maps = np.array([[[0.4, 0.3], [0.2, 0.1]]])
  >>> mask = np.array([[[True, False], [True, False]]])
  >>> overlap(maps, mask).round(3).tolist()  # 1 of 3
  [0.333]

  Args:
    maps: [N, S, S].
    mask: [N, S, S] bool, an object of at least one pixel.

  Returns:
    [N], from 0 to 1.
  """
  maps, mask = maps.reshape(len(maps), -1), mask.reshape(len(mask), -1)
  rank = np.argsort(np.argsort(-maps, axis=1, kind='stable'), axis=1)
  size = mask.sum(axis=1)
  both = np.sum((rank < size[:, None]) & mask, axis=1)
  return both / (2 * size - both)


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns to describe scenes, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  nets = networks(config)
  # Other scenes than those of the claims, of captions that are learned from.
  some = np.random.default_rng(_WATCHED)
  few = scenes.draw(some.choice(scenes.split().seen, _AT_ONCE), some)

  def examine(step: int, state: State) -> types.Metrics:
    del step
    params: Any = state.params
    shares = {
      name: right(describe(net, params[name], few.image), few).mean()
      for name, net in nets.items()
    }
    return {f'right with {k}': jnp.float32(x) for k, x in shares.items()}

  result = training.fit(
    make_step(config, nets),
    functools.partial(init, config, nets),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    batches=functools.partial(batches, config),
    hooks=[training.Hook(examine, max(1, config.num_steps // 10)), *hooks],
    log_every=20,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, nets, result, workdir)


def conclude(
  config: Config, nets: Nets, result: training.FitResult, workdir: str | None
) -> Mapping[str, Any]:
  """Judges both on the combinations held out, and reports."""
  start = time.monotonic()
  params = result.state.params
  judged = {name: held_out(name) for name in HELD_OUT}
  captions = {
    (part, name): describe(net, params[name], batch.image)
    for part, batch in judged.items()
    for name, net in nets.items()
  }
  shares = {
    (part, name): right(said, judged[part])
    for (part, name), said in captions.items()
  }
  maps = {
    part: look_at(nets['attention'], params['attention'], batch)
    for part, batch in judged.items()
  }
  looks = {part: judge_looks(maps[part], judged[part]) for part in HELD_OUT}
  records = training.logging.read(workdir) if workdir else []
  part = 'new combination'
  figure = draw(records, judged[part], captions[part, 'attention'], maps[part])
  report.save_figure(figure, workdir, 'captioning')
  metrics = {
    **{
      f'right, {part}, {name}': x.mean() for (part, name), x in shares.items()
    },
    **{f'iou, {part}': x.iou.mean() for part, x in looks.items()},
    **{f'chance, {part}': x.chance.mean() for part, x in looks.items()},
  }
  metrics = {name: float(value) for name, value in metrics.items()}
  report.write(
    workdir,
    title='Captions of scenes',
    config=config,
    claims=make_claims(judged, shares, looks),
    metrics=metrics,
    figures={
      'captioning': 'Right captions over training; scenes of combinations that '
      'were never seen, and where the decoder looks for each word.'
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def make_claims(
  judged: Mapping[str, Batch],
  shares: Mapping[tuple[str, str], np.ndarray],
  looks: Mapping[str, Looks],
) -> list[types.Claim]:
  """The rows of the report."""
  claims = []
  for (part, name), found in shares.items():
    share, bar = float(found.mean()), 0.95 if name == 'attention' else None
    spread = 1.96 * float(np.sqrt(share * (1 - share) / len(found)))
    _, counts = np.unique(judged[part].caption, axis=0, return_counts=True)
    claims.append(
      types.Claim(
        f'captions right in every word, {part}, {name}',
        share,
        interval=(max(0.0, share - spread), min(1.0, share + spread)),
        baseline=float(counts.max() / counts.sum()),
        baseline_name='always the most frequent one of those asked',
        bar=bar,
        met=None if bar is None else share >= bar,
      )
    )
  for part, (iou, chance) in looks.items():
    each, usual = iou.mean(axis=0), float(chance.mean())
    spread = 1.96 * float(each.std() / np.sqrt(len(each)))
    claims.append(
      types.at_least(
        f'IoU of attention and the object named, {part}',
        float(each.mean()),
        3 * usual,
        interval=(float(each.mean()) - spread, float(each.mean()) + spread),
        baseline=usual,
        baseline_name='attention in another scene',
      )
    )
  return claims


def draw(
  records: Sequence[Mapping[str, Any]],
  batch: Batch,
  captions: Sequence[str],
  maps: np.ndarray,
) -> Figure:
  """Right captions over training, and scenes with attention, word by word."""
  figure = Figure(figsize=(13, 5.4), layout='constrained')
  halves: Any = figure.subfigures(1, 2, width_ratios=(1, 2.2))
  axes = halves[0].subplots()
  for name in NAMES:
    points = [
      (r['step'], r[f'right with {name}'])
      for r in records
      if f'right with {name}' in r
    ]
    if points:
      axes.plot(*zip(*points, strict=True), 'o-', label=name)
  axes.set(
    xlabel='updates', ylabel='right captions of seen kinds', ylim=(0, 1.02)
  )
  if axes.lines:
    axes.legend()
  rows = np.linspace(0, len(batch.image) - 1, 4).astype(int)
  cells = halves[1].subplots(len(rows), scenes.MAX_WORDS + 1)
  for cell in cells.flat:
    cell.axis('off')
  for row, i in zip(cells, rows, strict=True):
    row[0].imshow(batch.image[i])
    wanted = scenes.decode(batch.caption[i, 1:])
    row[0].set_title('right' if captions[i] == wanted else 'wrong', fontsize=9)
    dim = 0.5 * batch.image[i].mean(axis=-1, keepdims=True)
    for t, word in enumerate(wanted.split()):
      light = maps[i, t][..., None] / maps[i, t].max()
      row[t + 1].imshow(dim + (batch.image[i] - dim) * light, vmin=0, vmax=1)
      row[t + 1].set_title(word, fontsize=9)
  return figure
