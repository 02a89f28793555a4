"""WaveNet: a sound, sample by sample, each from the thousand before it.

Van den Oord et al., "WaveNet: a generative model for raw audio", 2016 [W]; Le
Paine et al., "Fast WaveNet generation algorithm", 2016. Slides: deck 003,
"WaveNet".

    sound ──> mu-law: one of 256 levels a sample ──> vectors
                                                        |
              layer i sees the sample 2^i back:         v
                    tanh(W x) sigmoid(V x) ──> added to x, and to the output
                                                        |
                                                        v
                               p(level | the 1,024 before)   of all at once

    log p(sound) = sum over its samples of log p(level | before)     [W], eq. 1

In training all samples of a piece are predicted at once; a new sound is written
one sample after the other, each in a time that does not depend on the past: a
layer keeps what it will need again in a ring.

Beside it stand models without a network: all levels alike, how often each
occurs, n-grams of levels, and linear prediction, which is what telephones use.

  python -m experiments.wavenet --config.sound=voice.wav --config.rate=16000

Melodies of 8,000 samples a second, nats a sample of what is held out: 2.32
(three seeds); 5.55 with all levels alike, 5.21 by how often each occurs, 4.25
of 4-grams, 3.04 of linear prediction from 64 samples. [W] reports what
listeners say, not nats.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view

from dl_lectures import training, types
from dl_lectures.analysis import language
from dl_lectures.data import audio, text
from dl_lectures.nets import sequence
from dl_lectures.ops import ngram, sampling
from dl_lectures.training import generation, report

Array = jax.Array
State = types.TrainState
Batch = Array  # [B, T + 1] int32, levels

# Of linear prediction and of n-grams, of which the best is chosen.
_ORDERS = (1, 2, 4, 8, 16, 32, 64)
_NGRAM_ORDERS = (2, 3, 4)
# Samples written, and pieces of sound that they follow on.
_NUM_WRITTEN = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the values of [W]."""

  seed: int = 0  # of every random number but the melodies'
  sound: str = 'melodies'  # or the path of a WAV file; [W]: speech, music
  rate: int = 8000  # samples a second; [W]: 16,000
  seconds: float = 240.0  # of melodies; a file has its own
  doublings: int = 10  # dilations 1, 2, 4, ..., 2^(doublings - 1); [W]: 10
  repeats: int = 1  # of all of them; [W]: several, it does not say how many
  channels: int = 32  # of the residual path; [W] does not say
  skip_channels: int = 128  # of the output's path; [W] does not say
  length: int = 2048  # T, samples of a piece
  batch_size: int = 8  # pieces
  num_steps: int = 1000  # updates
  learning_rate: float = 5e-3  # of Adam, falling to 0
  clip: float = 1.0  # the longest gradient
  written_seconds: float = 3.0  # of sound for the report, and to listen to
  temperature: float = 0.9  # of its distribution; [W]: 1

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'doublings repeats channels skip_channels', 1)
    types.check_fields(self, 'length batch_size num_steps', 1)
    types.check_fields(self, 'rate', 2000)
    types.check_fields(self, 'learning_rate written_seconds', 0)
    for name in ('seconds', 'clip', 'temperature'):
      if getattr(self, name) <= 0:
        raise types.UsageError(
          f'config.{name}={getattr(self, name)}; more than 0 is possible'
        )


PRESETS = {
  'smoke': Config(
    rate=2000,
    seconds=4.0,
    doublings=5,
    channels=8,
    skip_channels=8,
    length=64,
    num_steps=20,
    written_seconds=0.2,
  ),
  'laptop': Config(),
  'paper': Config(
    rate=16_000,
    seconds=3600.0,
    repeats=3,
    channels=128,
    skip_channels=256,
    length=16_000,
    num_steps=200_000,
    learning_rate=1e-3,
    temperature=1.0,
  ),
}


def network(config: Config) -> sequence.SequenceModel:
  """Levels [B, T] to logits of the next ones [B, T, 256]."""
  return sequence.wavenet(
    config.channels,
    audio.LEVELS,
    rates=[2**i for i in range(config.doublings)] * config.repeats,
    skip_channels=config.skip_channels,
    vocab_size=audio.LEVELS,
  )


def loss(
  net: sequence.SequenceModel,
  params: Any,
  net_state: Any,
  key: types.Key,
  batch: Batch,
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """The mean of -log p(sample | before), nats: [W], equation 1."""
  del key
  logits = net.apply((params, net_state), None, batch[:, :-1])
  total = jnp.mean(language.cross_entropy(logits, batch[:, 1:]))
  return total, (net_state, {})


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam; the rate falls to 0 along a cosine."""
  rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
  return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate))


def init(config: Config, net: sequence.SequenceModel, key: types.Key) -> State:
  """The state before the first update; consumes the key."""
  params, net_state = net.init(key, jnp.zeros((1, 2), jnp.int32))
  return training.init_state(params, net_state, optimizer(config))


def make_step(config: Config, net: sequence.SequenceModel) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update."""
  return training.make_step(functools.partial(loss, net), optimizer(config))


def batches(
  config: Config, sound: text.Corpus, step: int
) -> Iterator[np.ndarray]:
  """Pieces from anywhere, from update `step` on."""
  return text.crops(
    sound.train, config.length, config.batch_size, config.seed, step
  )


def evaluate(
  config: Config,
  net: sequence.SequenceModel,
  weights: Any,
  levels: np.ndarray,
) -> float:
  """-log p of a sound that is heard whole, nats a sample."""
  return language.loss_in_stream(net, weights, levels, config.length, lanes=8)


class Prediction(NamedTuple):
  """Linear prediction with a residual in levels.

  Attributes:
    taps: [order], of the samples before, the oldest first.
    share: [511], of the differences -255 to 255 between a level and the one
      that was predicted.
  """

  taps: np.ndarray
  share: np.ndarray


def fit_prediction(levels: np.ndarray, order: int) -> Prediction:
  """Fits x_t = sum of a_k x_{t-k} by least squares, and counts what is left.

  >>> levels = audio.encode(np.sin(np.arange(500)))
  >>> fit_prediction(levels, 2).taps.round(1).tolist()  # -1, 2 cos(1)
  [-1.0, 1.1]

  Args:
    levels: [N] integers.
    order: how many samples before are seen.
  """
  windows = sliding_window_view(
    audio.decode(levels).astype(np.float64), order + 1
  )
  # Of a long sound all windows at once would be gigabytes.
  pieces = range(0, len(windows), 1 << 16)
  gram = sum(w.T @ w for w in (windows[i : i + (1 << 16)] for i in pieces))
  gram = gram + 1e-9 * np.trace(gram) * np.eye(order + 1)
  taps = np.linalg.solve(gram[:-1, :-1], gram[:-1, -1])
  rest = levels[order:] - _predicted(taps, levels)
  counts = np.bincount(rest + audio.LEVELS - 1, minlength=2 * audio.LEVELS - 1)
  return Prediction(taps, (counts + 1) / (counts + 1).sum())


def prediction_nats(prediction: Prediction, levels: np.ndarray) -> float:
  """Nats a sample, of those that have enough before them.

  The shares of the differences that lead to a level are made to sum to 1.
  """
  centre = _predicted(prediction.taps, levels)
  first = audio.LEVELS - 1 - centre  # the difference that leads to level 0
  below = np.concatenate([[0], np.cumsum(prediction.share)])
  possible = below[first + audio.LEVELS] - below[first]
  share = prediction.share[first + levels[len(prediction.taps) :]]
  return float(np.mean(np.log(possible) - np.log(share)))


def _predicted(taps: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """The levels predicted, from that after the first `order` on."""
  before = sliding_window_view(audio.decode(levels), len(taps))[:-1]
  return audio.encode(before @ taps.astype(np.float32))


def baselines(sound: text.Corpus) -> dict[str, float]:
  """Nats a sample of the test part, by models without a network.

  Fitted to the training part; orders are chosen on the validation part.
  """

  def counted(order: int, levels: np.ndarray) -> float:
    model = ngram.fit(sound.train, audio.LEVELS, order)
    return float(-ngram.log_prob(model, levels).mean())

  order = min(_NGRAM_ORDERS, key=lambda n: counted(n, sound.valid))
  predictions = [
    fit_prediction(sound.train, n) for n in _ORDERS if n < len(sound.valid)
  ]
  best = min(predictions, key=lambda p: prediction_nats(p, sound.valid))
  return {
    'uniform': float(np.log(audio.LEVELS)),
    'how often each level occurs': counted(1, sound.test),
    f'{order}-grams of levels': counted(order, sound.test),
    f'linear prediction from {len(best.taps)}': prediction_nats(
      best, sound.test
    ),
  }


def reach(net: sequence.SequenceModel, weights: Any, levels: np.ndarray) -> int:
  """The number of samples that a prediction depends on, as measured.

  Each of the samples up to a few beyond the receptive field is changed, one at
  a time, in several ways; the farthest that makes a difference counts.

  Args:
    net: with a receptive field R.
    weights: its weights.
    levels: [N], N at least R + 4.
  """
  longest = (net.receptive_field or 0) + 4
  base = np.asarray(levels[:longest])

  @jax.jit
  def last(some: Array) -> Array:
    return net.apply(weights, None, some)[:, -1]

  alone = np.asarray(last(base[None]))
  # The farthest ones, and among them those that should do nothing.
  for lag in reversed(range(longest)):
    moved = np.repeat(base[None], 8, axis=0)
    moved[:, longest - 1 - lag] = np.arange(8) * 32 + 1
    if np.any(np.asarray(last(moved)) != alone):
      return lag + 1
  return 0


class Written(NamedTuple):
  """Sounds that go on where others stop.

  Attributes:
    given: [N, P] int32, what was heard.
    true: [N, S], what followed.
    new: [N, S], what was written instead.
    difference: the largest one between the log-probabilities of the writing,
      step by step, and those of all samples at once.
  """

  given: np.ndarray
  true: np.ndarray
  new: np.ndarray
  difference: float


def write_on(
  config: Config,
  net: sequence.SequenceModel,
  weights: Any,
  levels: np.ndarray,
  key: types.Key,
) -> Written:
  """Hears the beginnings of pieces of a sound, and goes on by itself.

  Args:
    config: the settings.
    net: the model.
    weights: its weights.
    levels: [N], of which equal pieces are taken; a third of each is heard.
    key: consumed.
  """
  size = len(levels) // _NUM_WRITTEN
  size = min(size, round(1.5 * config.written_seconds * config.rate))
  heard = max(1, size // 3)
  starts = np.arange(_NUM_WRITTEN) * (len(levels) // _NUM_WRITTEN)
  pieces = levels[starts[:, None] + np.arange(size)].astype(np.int32)
  given, true = pieces[:, :heard], pieces[:, heard:]
  processors = (sampling.temperature(config.temperature),)
  made = generation.generate(
    net, weights, given, true.shape[1], key=key, processors=processors
  )
  new = np.asarray(made.tokens)
  whole = np.concatenate([given, new], axis=1)
  at_once = generation.score(net, weights, whole, processors=processors)
  difference = np.abs(at_once[:, heard - 1 :] - made.log_probs).max()
  return Written(given, true, new, float(difference))


def save_sounds(written: Written, rate: int, workdir: str) -> None:
  """Leaves what was heard and written as WAV files in `samples/`."""
  for i, (given, true, new) in enumerate(zip(*written[:3], strict=True), 1):
    for name, follows in (('held_out', true), ('written', new)):
      audio.write_wav(
        os.path.join(workdir, 'samples', f'{name}_{i}.wav'),
        audio.decode(np.concatenate([given, follows])),
        rate,
      )


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns a sound, measures itself beside simpler models, writes, reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  sound = audio.load(config.sound, config.rate, config.seconds)
  text.check_length(sound.valid, config.length)
  net = network(config)

  def examine(step: int, state: State) -> Mapping[str, Any]:
    del step
    weights = state.params, state.net_state
    return {'valid_loss': evaluate(config, net, weights, sound.valid)}

  result = training.fit(
    make_step(config, net),
    functools.partial(init, config, net),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    batches=functools.partial(batches, config, sound),
    hooks=[training.Hook(examine, max(1, config.num_steps // 10)), *hooks],
    log_every=10,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, sound, net, result, workdir)


def conclude(
  config: Config,
  sound: text.Corpus,
  net: sequence.SequenceModel,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Measures on the last twentieth, writes, and reports."""
  start = time.monotonic()
  weights = result.state.params, result.state.net_state
  nats = evaluate(config, net, weights, sound.test)
  simple = baselines(sound)
  seen = reach(net, weights, sound.test)
  written = write_on(
    config, net, weights, sound.test, jax.random.key(config.seed)
  )
  if workdir is not None and jax.process_index() == 0:
    save_sounds(written, config.rate, workdir)
  records = training.logging.read(workdir) if workdir else []
  figure = draw(config, records, simple, written)
  report.save_figure(figure, workdir, 'wavenet')
  metrics = {
    'nats': nats,
    'bits': language.bits(nats),
    **{f'{name}, nats': value for name, value in simple.items()},
    'receptive_field': seen,
    'difference': written.difference,
  }
  report.write(
    workdir,
    title=f'WaveNet on {sound.name}',
    config=config,
    claims=make_claims(sound.name, nats, simple, net, seen, written),
    metrics=metrics,
    figures={
      'wavenet': 'How it learns; the sound that is held out, and what is '
      'written from where the line is. To be heard: samples/*.wav in the '
      "run's folder."
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def make_claims(
  name: str,
  nats: float,
  simple: Mapping[str, float],
  net: sequence.SequenceModel,
  seen: int,
  written: Written,
) -> list[types.Claim]:
  """The rows of the report."""
  best_first = sorted(simple.items(), key=lambda pair: pair[1])
  return [
    types.at_most(
      f'{name}, held out: nats a sample, less than {other}',
      nats,
      value,
      baseline=value,
      baseline_name=other,
    )
    for other, value in best_first
  ] + [
    types.Claim(
      'samples that a prediction depends on, measured',
      seen,
      bar=net.receptive_field,
      met=seen == net.receptive_field,
      exact=True,
    ),
    types.at_most(
      'log-probabilities of writing, step by step, and of all at once: the '
      'largest difference',
      written.difference,
      1e-3,
      exact=True,
    ),
  ]


def draw(
  config: Config,
  records: Sequence[Mapping[str, Any]],
  simple: Mapping[str, float],
  written: Written,
) -> Figure:
  """Losses in training; waves; spectrograms of sounds given and written."""
  figure = Figure(figsize=(11, 7), layout='constrained')
  panels = figure.subplot_mosaic(
    [['loss', 'wave'], ['true', 'new']], height_ratios=(3, 2)
  )
  axes = panels['loss']
  for name, color in (('loss', '#9ecae1'), ('valid_loss', '#08519c')):
    points = [(r['step'], r[name]) for r in records if name in r]
    if points:
      axes.plot(*zip(*points, strict=True), color=color, label=name)
  for i, (name, value) in enumerate(simple.items()):
    axes.axhline(value, color=f'C{i + 1}', ls=':', label=name)
  axes.set(xlabel='updates', ylabel='nats a sample')
  axes.legend(fontsize='small', frameon=False)

  given, true, new, _ = written
  before = min(given.shape[1], round(0.01 * config.rate))
  after = min(true.shape[1], round(0.03 * config.rate))
  time = np.arange(-before, after) / config.rate * 1000
  axes = panels['wave']
  for follows, color, label in (
    (true, '#7a7a7a', 'held out'),
    (new, '#d95f0e', 'written'),
  ):
    levels = np.concatenate([given[0, -before:], follows[0, :after]])
    axes.plot(time, audio.decode(levels), color=color, label=label, lw=1)
  axes.axvline(0, color='k', lw=0.8)
  axes.set(xlabel='milliseconds', ylabel='sound')
  axes.legend(fontsize='small', frameon=False)

  window = min(256, (given.shape[1] + true.shape[1]) // 2)
  for panel, follows, title in (
    ('true', true, 'held out'),
    ('new', new, 'written from the line on'),
  ):
    axes = panels[panel]
    levels = np.concatenate([given[0], follows[0]])
    # No sound at all would be minus infinity.
    signal = audio.decode(levels) + 1e-5 * np.cos(np.arange(len(levels)))
    axes.specgram(
      signal,
      NFFT=window,
      Fs=config.rate,
      noverlap=window // 2,
      cmap='magma',
      vmin=-120,
      vmax=-20,
    )
    axes.axvline(given.shape[1] / config.rate, color='w', lw=0.8)
    axes.set(title=title, xlabel='seconds', ylabel='Hz')
  return figure
