"""Character language models: any model of sequences, reading a text on and on.

Mikolov et al., "Recurrent neural network based language model", Interspeech
2010 [M]; Karpathy, "The unreasonable effectiveness of recurrent neural
networks", 2015 [K]; truncated backpropagation: Williams & Peng, Neural
Computation 2 (1990). Slides: deck 003, all models from "N-grams" to
"Transformer".

      text ──> lanes that begin at equal distances ──> pieces of T, in order
                                                         |
      carry of the piece before ──> model ──> carry ──> the next piece
        (no gradient goes back)       |
                                      v
                       logits ──> -log p(next token) ──> AdamW

A model remembers from piece to piece, in training as in the evaluation: a
recurrent network its state, a convolution its last inputs, a transformer the
keys and values of the last `memory` tokens (as Transformer-XL, 2019).

All models get the same number of parameters: the width is the largest that
fits. n-grams of the same text stand beside each of them.

  python -m experiments.char_lm --config.model=gru

On tiny Shakespeare (--config.text=tiny_shakespeare), with the parameters and
the updates of `gpt`'s laptop preset, the LSTM reaches 1.617 nats a character on
the last tenth, and 1.706 where it forgets every 64 characters (three seeds,
8 to 12 minutes each on a busy core; `results/char_lm*.json`), the GRU 1.569.
With --config.learning_rate=3e-3 and one seed: RNN 1.639, dilated convolutions
1.685, WaveNet 1.733, a transformer of one layer 1.934. Kneser-Ney of order 8
has 1.519. Addition cannot read on and on: its sums grow, and its loss with them
(hundreds of nats after 100 updates).
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.analysis import language
from dl_lectures.data import text
from dl_lectures.nets import recurrent, sequence
from dl_lectures.ops import sampling
from dl_lectures.training import generation, report

Array = jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give the values of [K]."""

  seed: int = 0  # of every random number
  # rnn, gru, lstm, addition, ngram, dilated, wavenet or transformer; [K]: lstm
  model: str = 'lstm'
  # python (docstrings), tiny_shakespeare, or the path of a text; [K]:
  # tiny_shakespeare
  text: str = 'python'
  tokens: str = 'characters'  # or bytes; [K]: characters
  parameters: int = 804_096  # at most; the width follows; [K]: 240,321
  layers: int = 1  # of recurrent networks and transformers; [K]: 2
  heads: int = 4  # of a transformer
  kernel: int = 2  # taps of convolutions; of an ngram its n
  rates: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # dilations of convolutions
  forget_bias: float = 1.0  # of an LSTM at first; [K]: 1
  dropout: float = 0.0  # between layers; [K]: 0
  length: int = 64  # T, tokens that a gradient goes back; [K]: 50
  memory: int = 64  # tokens that a transformer keeps from before
  batch_size: int = 12  # lanes; [K]: 50
  steps: int = 2000  # updates; [K]: about 21,000
  # the highest; [K]: 2e-3, RMSProp. Of 1e-3, 3e-3, 1e-2 and 2e-2 the best for
  # an LSTM; 3e-3 is for rnn and transformer
  learning_rate: float = 2e-2
  warmup: int = 100  # updates until the highest; [K]: 0
  weight_decay: float = 0.1  # of matrices; [K]: 0
  clip: float = 1.0  # the longest gradient; [K]: each component to 5
  evaluate_every: int = 500  # updates
  ngram_orders: tuple[int, ...] = (1, 5, 8)  # of the n-grams beside it
  sample: int = 400  # tokens written for the report
  temperature: float = 0.8  # of their distribution

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'parameters layers heads kernel length memory', 1)
    types.check_fields(self, 'batch_size steps', 1)
    types.check_fields(self, 'warmup weight_decay evaluate_every sample', 0)
    types.check_fields(self, 'dropout', 0, 1)
    for name in ('learning_rate', 'clip', 'temperature'):
      if getattr(self, name) <= 0:
        raise types.UsageError(
          f'config.{name}={getattr(self, name)}; more than 0 is possible'
        )
    if self.model not in MODELS:
      raise types.UsageError(
        f'config.model={self.model!r}; possible: {", ".join(MODELS)}'
      )
    if self.tokens not in text.TOKENS:
      raise types.UsageError(
        f'config.tokens={self.tokens!r}; possible: {", ".join(text.TOKENS)}'
      )
    if not self.rates or min(self.rates) < 1:
      raise types.UsageError(
        f'config.rates={",".join(map(str, self.rates))}; one or more, each at '
        'least 1, are possible'
      )
    language.check_orders(self.ngram_orders)


def _lstm(config: Config, width: int, size: int) -> sequence.SequenceModel:
  wiring = recurrent.STANDARD._replace(
    forget_gate=recurrent.Gate(bias=config.forget_bias)
  )
  return sequence.lstm(
    width,
    size,
    vocab_size=size,
    num_layers=config.layers,
    dropout=config.dropout,
    wiring=wiring,
  )


def _layered(
  build: Callable[..., sequence.SequenceModel],
) -> Callable[[Config, int, int], sequence.SequenceModel]:
  return lambda config, width, size: build(
    width,
    size,
    vocab_size=size,
    num_layers=config.layers,
    dropout=config.dropout,
  )


def _dilated(
  build: Callable[..., sequence.SequenceModel],
) -> Callable[[Config, int, int], sequence.SequenceModel]:
  return lambda config, width, size: build(
    width,
    size,
    vocab_size=size,
    rates=config.rates,
    kernel_size=config.kernel,
  )


# By name: (config, width, V) -> model.
MODELS: dict[str, Callable[[Config, int, int], sequence.SequenceModel]] = {
  'rnn': _layered(sequence.rnn),
  'gru': _layered(sequence.gru),
  'lstm': _lstm,
  'addition': lambda config, width, size: sequence.addition(
    width, size, num_inputs=size
  ),
  'ngram': lambda config, width, size: sequence.dilated(
    width, size, vocab_size=size, rates=(1,), kernel_size=config.kernel
  ),
  'dilated': _dilated(sequence.dilated),
  'wavenet': _dilated(sequence.wavenet),
  # Rotary positions: a text that is read on has no first token.
  'transformer': lambda config, width, size: sequence.transformer(
    width,
    size,
    num_layers=config.layers,
    num_heads=config.heads,
    vocab_size=size,
    positions='rotary',
    with_bias=False,
    dropout=config.dropout,
  ),
}


PRESETS = {
  'smoke': Config(
    parameters=3000,
    length=16,
    memory=16,
    batch_size=8,
    steps=30,
    warmup=5,
    rates=(1, 2),
    evaluate_every=0,
    ngram_orders=(1, 3),
    sample=40,
  ),
  'laptop': Config(),
  # [K], github.com/karpathy/char-rnn as it is called without arguments.
  'paper': Config(
    text='tiny_shakespeare',
    parameters=240_321,
    layers=2,
    length=50,
    memory=50,
    batch_size=50,
    steps=21_150,
    learning_rate=2e-3,
    warmup=0,
    weight_decay=0.0,
    clip=5.0,
  ),
}

State = types.TrainState  # its net_state: {'net': ..., 'carry': of B lanes}
Batch = Array  # [B, T + 1] int32


def network(config: Config, vocab_size: int) -> sequence.SequenceModel:
  """The model of the largest width that has no more than the parameters.

  Args:
    config: the settings.
    vocab_size: V.

  Returns:
    [B, T] tokens to logits [B, T, V].

  Raises:
    UsageError: not even the narrowest fits.
  """
  build = MODELS[config.model]
  # Rows of eight numbers; and a transformer's heads of a size that is even.
  unit = 2 * config.heads if config.model == 'transformer' else 8

  def count(units: int) -> int:
    return count_parameters(build(config, unit * units, vocab_size))

  if count(1) > config.parameters:
    raise types.UsageError(
      f'config.parameters={config.parameters}; at least {count(1)} is possible '
      f'for model {config.model!r} and {vocab_size} tokens'
    )
  fits, too_large = 1, 2
  while count(too_large) <= config.parameters:
    fits, too_large = too_large, 2 * too_large
  while too_large - fits > 1:
    middle = (fits + too_large) // 2
    if count(middle) <= config.parameters:
      fits = middle
    else:
      too_large = middle
  return build(config, unit * fits, vocab_size)


def count_parameters(net: sequence.SequenceModel) -> int:
  """How many numbers a model has; nothing is computed."""
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  params, _ = jax.eval_shape(net.init, jax.random.key(0), tokens)
  return sum(x.size for x in jax.tree.leaves(params))


def optimizer(config: Config) -> optax.GradientTransformation:
  """AdamW with warm-up and cosine down to a tenth; vectors do not decay."""
  rate = optax.warmup_cosine_decay_schedule(
    init_value=config.learning_rate / (config.warmup + 1),
    peak_value=config.learning_rate,
    warmup_steps=config.warmup,
    decay_steps=max(config.steps, config.warmup + 1),
    end_value=config.learning_rate / 10,
  )
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(
      rate,
      b2=0.99,
      weight_decay=config.weight_decay,
      mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    ),
  )


def loss(
  net: sequence.SequenceModel,
  params: Any,
  memory: Any,
  key: types.Key,
  batch: Batch,
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """The mean of -log p(next token) of a piece, nats; the carry goes on.

  What the carry was made from is not differentiated: that is the truncation.
  """
  logits, carry = net.apply_from(
    (params, memory['net']),
    key,
    memory['carry'],
    batch[:, :-1],
    is_training=True,
  )
  total = jnp.mean(language.cross_entropy(logits, batch[:, 1:]))
  return total, (memory | {'carry': carry}, {})


def init(
  config: Config, net: sequence.SequenceModel, key: types.Key
) -> types.TrainState:
  """The state before the first update; consumes the key."""
  params, net_state = net.init(key, jnp.zeros((1, config.length), jnp.int32))
  carry = net.initial_state(config.batch_size, config.memory)
  memory: Any = {'net': net_state, 'carry': carry}
  return training.init_state(params, memory, optimizer(config))


def make_step(config: Config, net: sequence.SequenceModel) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update."""
  return training.make_step(functools.partial(loss, net), optimizer(config))


def batches(
  config: Config, corpus: text.Corpus, step: int
) -> Iterator[np.ndarray]:
  """The pieces of the lanes in order, from update `step` on.

  Where a lane reaches the end of the text it goes on at its beginning, with
  what it remembers of the end.
  """
  return text.streams(corpus.train, config.length, config.batch_size, step)


def evaluate(
  config: Config, net: sequence.SequenceModel, weights: Any, tokens: np.ndarray
) -> float:
  """The loss of a text that is read on and on, nats a token."""
  return language.loss_in_stream(
    net, weights, tokens, config.length, memory=config.memory
  )


def continue_text(
  config: Config,
  net: sequence.SequenceModel,
  weights: Any,
  prompt: np.ndarray,
  count: int,
  key: types.Key,
) -> np.ndarray:
  """Writes on, with the memory of the training: [P] to [N] tokens."""
  new = generation.generate(
    net,
    weights,
    prompt[None],
    count,
    key=key,
    processors=(sampling.temperature(config.temperature),),
    carry=net.initial_state(1, config.memory),
  )
  return np.asarray(new.tokens[0])


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns a text, measures itself beside n-grams, writes, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  corpus = text.load(config.text, config.tokens)
  text.check_length(corpus.valid, config.length)
  net = network(config, corpus.vocabulary.size)

  def valid_loss(step: int, state: State) -> Mapping[str, Any]:
    del step
    weights = weights_of(state)
    return {'valid_loss': evaluate(config, net, weights, corpus.valid)}

  result = training.fit(
    make_step(config, net),
    functools.partial(init, config, net),
    config=config,
    workdir=workdir,
    num_steps=config.steps,
    batches=functools.partial(batches, config, corpus),
    hooks=[training.Hook(valid_loss, config.evaluate_every), *hooks],
    log_every=10,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, corpus, net, result, workdir)


def weights_of(state: State) -> Any:
  """What the model takes."""
  return state.params, state.net_state['net']


def conclude(
  config: Config,
  corpus: text.Corpus,
  net: sequence.SequenceModel,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Measures on the last tenth, counts n-grams, writes, and reports."""
  start = time.monotonic()
  weights = weights_of(result.state)
  total = evaluate(config, net, weights, corpus.held_out)
  positions = language.loss_by_position(
    net, weights, corpus.held_out, config.length
  )
  counted = language.ngram_losses(corpus, config.ngram_orders)
  best = min(counted, key=lambda order: counted[order])
  written = ''
  if config.sample:
    tokens = continue_text(
      config,
      net,
      weights,
      corpus.held_out[: config.length],
      config.sample,
      jax.random.key(config.seed),
    )
    written = text.decode(corpus.vocabulary, tokens)
  parameters = count_parameters(net)
  records = training.logging.read(workdir) if workdir else []
  report.save_figure(
    draw(config, corpus, records, total, positions, counted, written),
    workdir,
    'char_lm',
  )
  metrics = {
    'loss': total,
    'forgetful_loss': float(positions.mean()),
    'ngram_loss': counted[best],
    'ngram_order': best,
    'bits': language.bits(total),
    'parameters': parameters,
    'sample': written,
  }
  report.write(
    workdir,
    title=f'{config.model} on {corpus.name}',
    config=config,
    claims=make_claims(config, total, positions, counted, parameters),
    metrics=metrics,
    figures={
      'char_lm': 'How it learns, what context is worth, and what it writes.'
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def make_claims(
  config: Config,
  total: float,
  positions: np.ndarray,
  counted: Mapping[int, float],
  parameters: int,
) -> list[types.Claim]:
  """The rows of the report."""
  best = min(counted, key=lambda order: counted[order])
  beside = {
    'baseline': counted[best],
    'baseline_name': f'Kneser-Ney, order {best}',
  }
  return [
    types.Claim(
      f'{config.model}: loss on the last tenth, read on and on, nats a token',
      total,
      **beside,
    ),
    types.Claim(
      f'{config.model}: the same where all is forgotten every {config.length} '
      'tokens',
      float(positions.mean()),
      **beside,
    ),
    types.Claim(f'{config.model}: parameters', parameters, exact=True),
  ]


def draw(
  config: Config,
  corpus: text.Corpus,
  records: Sequence[Mapping[str, Any]],
  total: float,
  positions: np.ndarray,
  counted: Mapping[int, float],
  written: str,
) -> Figure:
  """Losses in training and by position, n-grams beside; the text below."""
  page = Figure(figsize=(9.6, 6.4), layout='constrained')
  learning, context, sample = page.subplot_mosaic(
    [['learning', 'positions'], ['sample', 'sample']], height_ratios=(3, 2)
  ).values()
  language.draw_losses(learning, records, counted)
  learning.set(title=f'{config.model} on {corpus.name}')
  language.draw_positions(context, positions, counted, total)
  language.draw_text(sample, written)
  return page
