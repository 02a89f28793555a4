"""Deck 003's table of properties, measured for every model of sequences.

The slides tick boxes: does order matter, are lengths free, is it
differentiable, does it relate pairs, does it preserve what was long ago. This
program measures them (`dl_lectures.analysis.properties`), untrained and after
training on a text; lets the models add two numbers that are far apart and look
up what belongs to a key; and reads on beyond the length of the training.

Every part is kept in the workdir as soon as it is done: the same command goes
on where it was stopped.
"""

import bisect
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dl_lectures import types
from dl_lectures.analysis import language, properties
from dl_lectures.data import text
from dl_lectures.nets import recurrent, sequence
from dl_lectures.training import report
from dl_lectures.training.progress import say
from experiments import cli
from experiments import parts as kept_parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run."""

  seed: int = 0  # of every random number
  # python (docstrings), tiny_shakespeare, or the path of a text
  text: str = 'python'
  models: tuple[str, ...] = ()  # rows of the table, by name; all by default
  width: int = 64  # of every layer
  length: int = 64  # of the training on text, and of the table's sequences
  contexts: int = 64  # sequences that are averaged over
  text_steps: int = 400  # updates on the text
  text_batch: int = 16  # sequences of an update
  text_learning_rate: float = 3e-3  # Adam's
  adding: tuple[int, ...] = (100, 200)  # lengths of the adding problem
  # updates, as a share of those that each model has in ADDERS
  adding_share: float = 1.0
  adding_batch: int = 50  # sequences of an update
  pairs: tuple[int, ...] = (4, 8, 16)  # of associative recall
  recall_steps: int = 1000  # updates
  recall_batch: int = 64  # sequences of an update
  recall_learning_rate: float = 3e-3  # Adam's

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'width contexts text_batch', 2)
    types.check_fields(self, 'text_steps recall_steps', 1)
    types.check_fields(self, 'adding_share', 0)
    types.check_fields(self, 'adding_batch recall_batch', 1)
    types.check_fields(self, 'length', 1 + max(LAGS))
    if self.width % HEADS:
      raise types.UsageError(
        f'config.width={self.width}; the multiples of {HEADS} are possible'
      )
    for name in self.models:
      if name not in MODELS:
        raise types.UsageError(
          f'config.models: {name!r}; possible: {", ".join(MODELS)}'
        )


# Steps back at which pairs are looked at.
LAGS = (2, 8, 32)
HEADS = 4

Build = Callable[[Config, int, int], sequence.SequenceModel]


def _lstm(forget_bias: float) -> Build:
  wiring = recurrent.STANDARD._replace(
    forget_gate=recurrent.Gate(bias=forget_bias)
  )
  return lambda config, features, outputs: sequence.lstm(
    config.width, outputs, wiring=wiring
  )


def _lasting(
  config: Config, features: int, outputs: int
) -> sequence.SequenceModel:
  """An LSTM that at first forgets in as many steps as a sequence has.

  Tallec & Ollivier, "Can recurrent neural networks warp time?", ICLR 2018,
  equation 16: a forget gate's bias is the logarithm of a number from 1 to
  T - 1, an input gate's minus such a logarithm.
  """

  def bias(shape, dtype):
    steps = hk.initializers.RandomUniform(1, max(2, *config.adding) - 1)
    return jnp.log(steps(shape, dtype))

  wiring = recurrent.STANDARD._replace(
    forget_gate=recurrent.Gate(bias=bias),
    input_gate=recurrent.Gate(bias=lambda shape, dtype: -bias(shape, dtype)),
  )
  return sequence.lstm(config.width, outputs, wiring=wiring)


def _convolution(*rates: int, kernel_size: int = 2) -> Build:
  return lambda config, features, outputs: sequence.dilated(
    config.width, outputs, rates=rates, kernel_size=kernel_size
  )


def _attention(positions: str) -> Build:
  return lambda config, features, outputs: sequence.transformer(
    config.width,
    outputs,
    num_layers=2,
    num_heads=HEADS,
    positions=positions,
    max_length=config.length if positions == 'learned' else None,
  )


# The rows of the table: (config, F, D) -> model.
MODELS: dict[str, Build] = {
  'trigram': _convolution(1, kernel_size=3),
  'addition': lambda config, features, outputs: sequence.addition(
    config.width, outputs, num_inputs=features, tokens=False
  ),
  'rnn': lambda config, features, outputs: sequence.rnn(config.width, outputs),
  'lstm': _lstm(1.0),
  'lstm_keeping': _lstm(5.0),
  'gru': lambda config, features, outputs: sequence.gru(config.width, outputs),
  'convolution_16': _convolution(1, 2, 4, 8),
  'convolution_64': _convolution(1, 2, 4, 8, 16, 32),
  'wavenet_64': lambda config, features, outputs: sequence.wavenet(
    config.width, outputs, rates=(1, 2, 4, 8, 16, 32)
  ),
  'attention_learned': _attention('learned'),
  'attention_sinusoidal': _attention('sinusoidal'),
  'attention_rotary': _attention('rotary'),
  'attention_none': _attention('none'),
}


class Adder(NamedTuple):
  """A model of the adding problem, and how it learns.

  Attributes:
    build: (config, F, D) -> model.
    learning_rate: Adam's, chosen at T = 100 on a seed that is not reported.
    steps: updates.
  """

  build: Build
  learning_rate: float
  steps: int


# Convolutions see 256 elements.
ADDERS = {
  'rnn': Adder(MODELS['rnn'], 1e-2, 1000),
  'lstm': Adder(_lasting, 1e-2, 1000),
  'gru': Adder(MODELS['gru'], 1e-2, 1000),
  'convolution': Adder(_convolution(1, 2, 4, 8, 16, 32, 64, 128), 3e-3, 600),
  'attention': Adder(MODELS['attention_none'], 3e-3, 800),
}


def _one_head(
  config: Config, features: int, outputs: int
) -> sequence.SequenceModel:
  return sequence.transformer(
    config.width, outputs, num_layers=1, num_heads=1, positions='none'
  )


def _gru_of_equal_size(
  config: Config, features: int, outputs: int
) -> sequence.SequenceModel:
  """The widest GRU with no more parameters than attention has."""
  most = count(_one_head(config, features, outputs), features)
  fitting = bisect.bisect_right(
    range(1, 8 * config.width),
    most,
    key=lambda width: count(sequence.gru(width, outputs), features),
  )
  return sequence.gru(fitting, outputs)


RECALLERS: dict[str, Build] = {
  'attention': _one_head,
  'gru': _gru_of_equal_size,
}

PRESETS = {
  'smoke': Config(
    models=('addition', 'rnn'),
    width=8,
    length=40,
    contexts=4,
    text_steps=1,
    text_batch=2,
    adding=(4,),
    adding_share=0.0,
    adding_batch=2,
    pairs=(2,),
    recall_steps=1,
    recall_batch=2,
  ),
  'laptop': Config(),
}


def count(model: sequence.SequenceModel, features: int) -> int:
  """How many parameters a model has; nothing is computed."""
  x = jax.ShapeDtypeStruct((1, 2, features), jnp.float32)
  params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
  return sum(w.size for w in jax.tree.leaves(params))


def reading(corpus: text.Corpus, length: int) -> properties.Task:
  """The text as a task of one-hot vectors: what comes next?"""
  size = corpus.vocabulary.size
  tokens = jnp.asarray(corpus.train)

  def draw(key, batch_size):
    start = jax.random.randint(key, (batch_size, 1), 0, tokens.size - length)
    piece = tokens[start + jnp.arange(length + 1)[None]]
    return jax.nn.one_hot(piece[:, :-1], size), piece[:, 1:]

  def loss(y, target):
    return jnp.mean(language.cross_entropy(y, target))

  return properties.Task(draw, loss, loss, size, size, float(np.log(size)))


def measure_model(
  config: Config, corpus: text.Corpus, name: str, key: types.Key
) -> dict[str, Any]:
  """A model's rows, untrained and trained, and its losses by length."""
  size = corpus.vocabulary.size
  model = MODELS[name](config, size, size)
  x_key, init_key, learn_key, measure_key = jax.random.split(key, 4)
  held_out = corpus.held_out
  start = jax.random.randint(
    x_key, (config.contexts, 1), 0, len(held_out) - config.length
  )
  at = np.asarray(start) + np.arange(config.length)
  x = jax.nn.one_hot(held_out[at], size)
  weights = jax.jit(model.init)(init_key, x)
  measure = functools.partial(
    properties.properties, model, x=x, key=measure_key, lags=LAGS
  )
  untrained = measure(weights)
  weights = properties.learn(
    model,
    reading(corpus, config.length),
    learn_key,
    steps=config.text_steps,
    batch_size=config.text_batch,
    learning_rate=config.text_learning_rate,
  )
  lengths = properties.loss_by_length(
    properties.on_tokens(model, size), weights, held_out, config.length
  )
  return {
    'untrained': untrained._asdict(),
    'trained': measure(weights)._asdict(),
    'lengths': lengths,
    'receptive_field': model.receptive_field,
    'parameters': count(model, size),
  }


def measure_task(
  config: Config,
  task: properties.Task,
  build: Build,
  steps: int,
  batch_size: int,
  learning_rate: float,
  key: types.Key,
) -> dict[str, Any]:
  """A model's score on a task that it was trained on."""
  model = build(config, task.num_features, task.num_outputs)
  learn_key, test_key = jax.random.split(key)
  weights = properties.learn(
    model,
    task,
    learn_key,
    steps=steps,
    batch_size=batch_size,
    learning_rate=learning_rate,
  )
  return {
    'score': properties.evaluate(model, weights, task, test_key),
    'parameters': count(model, task.num_features),
  }


def parts(
  config: Config, corpus: text.Corpus
) -> Iterator[tuple[str, Callable[[types.Key], dict[str, Any]]]]:
  """All that is to be measured: (name, key -> result)."""
  for name in config.models or MODELS:
    yield (
      f'table/{name}',
      functools.partial(measure_model, config, corpus, name),
    )
  for pairs in config.pairs:
    for name, build in RECALLERS.items():
      yield (
        f'recall/{pairs}/{name}',
        functools.partial(
          measure_task,
          config,
          properties.associative_recall(pairs),
          build,
          config.recall_steps,
          config.recall_batch,
          config.recall_learning_rate,
        ),
      )
  for length in config.adding:
    for name, adder in ADDERS.items():
      yield (
        f'adding/{length}/{name}',
        functools.partial(
          measure_task,
          config,
          properties.adding(length),
          adder.build,
          max(1, round(config.adding_share * adder.steps)),
          config.adding_batch,
          adder.learning_rate,
        ),
      )


def train(config: Config, *, workdir: str) -> Mapping[str, Any]:
  """Measures everything, prints the table, and reports.

  Args:
    config: the settings.
    workdir: where parts are kept.

  Returns:
    The final metrics.
  """
  corpus = text.load(config.text)
  found = kept_parts.measure(config, workdir, parts(config, corpus))
  tables = {
    when: properties.table(rows_of(found, when))
    for when in ('untrained', 'trained')
  }
  for when, shown in tables.items():
    say(f'{when}\n{shown}')
  report.save_figure(draw(config, found), workdir, 'properties')
  metrics = {
    f'table_{when}': shown.split('\n') for when, shown in tables.items()
  }
  report.write(
    workdir,
    title='Properties of models of sequences',
    config=config,
    claims=make_claims(config, found),
    metrics=metrics,
    figures={
      'properties': 'What is long ago, beyond the training, and looked up.'
    },
    minutes=kept_parts.minutes(found),
  )
  return metrics


def rows_of(
  found: Mapping[str, Mapping[str, Any]], when: str
) -> dict[str, properties.Properties]:
  """The table's rows, read from the parts."""
  return {
    name.removeprefix('table/'): properties.Properties(**result[when])
    for name, result in found.items()
    if name.startswith('table/')
  }


def make_claims(
  config: Config, found: Mapping[str, Mapping[str, Any]]
) -> list[types.Claim]:
  """The rows of the report."""
  untrained, trained = (
    rows_of(found, when) for when in ('untrained', 'trained')
  )
  claims = []
  every = [*untrained.values(), *trained.values()]
  worst = max(row.error for row in every)
  claims.append(
    types.at_most(
      'gradients against finite differences, the largest relative error',
      worst,
      1e-4,
      exact=True,
    )
  )
  if 'addition' in trained:
    moved = max(rows['addition'].order for rows in (untrained, trained))
    others = min(
      row.order for name, row in trained.items() if name != 'addition'
    )
    claims.append(
      types.at_most(
        'addition: how far shuffling the past moves its prediction',
        moved,
        0.0,
        baseline=others,
        baseline_name='the least of the others',
        exact=True,
      )
    )
  for name, result in found.items():
    field = result.get('receptive_field')
    model = name.removeprefix('table/')
    if field is None or field > config.length or model not in trained:
      continue
    reach = 1 + max(rows[model].reach for rows in (untrained, trained))
    claims.append(
      types.Claim(
        f'{model}: elements with a gradient',
        reach,
        bar=field,
        met=reach == field,
        exact=True,
      )
    )
  far = config.length - 1
  gradients = {name: row.gradient[far] for name, row in untrained.items()}
  name = f'gradient at lag {far} by that at lag 1, untrained'
  if 'rnn' in gradients:
    claims.append(
      types.at_most(
        f'rnn: {name}',
        gradients['rnn'],
        1e-10,
        baseline=1.0,
        baseline_name='lag 1',
      )
    )
  if {'rnn', 'lstm_keeping'} <= {*gradients}:
    claims.append(
      types.at_least(
        f'lstm, forget bias 5: {name}',
        gradients['lstm_keeping'],
        1e-2,
        baseline=gradients['rnn'],
        baseline_name='rnn',
      )
    )
  claims += [*_task_claims(config, found), *_length_claims(config, found)]
  return claims


def _task_claims(
  config: Config, found: Mapping[str, Mapping[str, Any]]
) -> Iterator[types.Claim]:
  for length in config.adding:
    beside = {'baseline': 1 / 6, 'baseline_name': 'always 1'}
    for name in ADDERS:
      score = found[f'adding/{length}/{name}']['score']
      title = f'adding problem of {length}, {name}: mean squared error'
      if name == 'rnn':
        yield types.at_least(title, score, 0.15, **beside)
      else:
        yield types.at_most(title, score, 0.01, **beside)
  for pairs in config.pairs:
    scores = {
      name: found[f'recall/{pairs}/{name}']['score'] for name in RECALLERS
    }
    chance = properties.associative_recall(pairs).baseline
    title = f'associative recall of {pairs} pairs'
    bars: dict[str, Any] = {'attention': 0.95, 'gru': 0.6}
    for name, score in scores.items():
      beside = {'baseline': chance, 'baseline_name': 'chance'}
      full = f'{title}, {name}: share right'
      if pairs != 16:
        yield types.Claim(full, score, **beside)
      elif name == 'attention':
        yield types.at_least(full, score, bars[name], **beside)
      else:
        yield types.at_most(full, score, bars[name], **beside)


def _length_claims(
  config: Config, found: Mapping[str, Mapping[str, Any]]
) -> Iterator[types.Claim]:
  for name, result in found.items():
    if not name.startswith('table/'):
      continue
    lengths = {int(n): loss for n, loss in result['lengths'].items()}
    factor = max(lengths)
    loss = lengths[factor]
    yield types.Claim(
      f'{name.removeprefix("table/")}: loss on text at {factor} times the '
      f'length of the training, {config.length}',
      'refused' if loss is None else loss,
      baseline=lengths[min(lengths)],
      baseline_name='at that length',
    )


def draw(config: Config, found: Mapping[str, Mapping[str, Any]]) -> Figure:
  """Gradients against lag, losses beyond the training, recall of pairs."""
  page = Figure(figsize=(10.4, 7.6), layout='constrained')
  axes = page.subplots(2, 2)
  styles = {  # ten colours, and then the same with dashes
    name: {'color': f'C{i % 10}', 'ls': ('-', '--')[i // 10 % 2], 'lw': 1}
    for i, name in enumerate(rows_of(found, 'trained'))
  }
  for panel, when in zip(axes[0], ('untrained', 'trained'), strict=True):
    for name, row in rows_of(found, when).items():
      gradient = np.asarray(row.gradient)
      lag = np.arange(len(gradient))
      seen = (gradient > 0) & (lag > 0)
      panel.loglog(lag[seen], gradient[seen], label=name, **styles[name])
    panel.set(
      title=f'what an element counts, {when}',
      xlabel='steps back',
      ylabel='gradient by that 1 step back',
      ylim=(1e-14, 1e2),
    )
  axes[0, 0].legend(frameon=False, fontsize=6, ncols=2)
  beyond, recall = axes[1]
  for name, style in styles.items():
    lengths = found[f'table/{name}']['lengths']
    known = [(int(n), loss) for n, loss in lengths.items() if loss is not None]
    beyond.plot(*zip(*known, strict=True), marker='o', ms=3, **style)
  beyond.set_xscale('log', base=2)
  beyond.set(
    title='beyond the length of the training',
    xlabel='times that length',
    ylabel='nats a token at the end',
  )
  for name in RECALLERS:
    scores = [
      found[f'recall/{pairs}/{name}']['score'] for pairs in config.pairs
    ]
    recall.plot(config.pairs, scores, 'o-', label=name)
  recall.set(
    title='recall', xlabel='pairs', ylabel='share right', ylim=(0, 1.03)
  )
  recall.legend(frameon=False)
  for panel in axes.ravel():
    panel.spines[['top', 'right']].set_visible(False)
  return page


if __name__ == '__main__':
  cli.run(
    train,
    config=Config,
    presets=PRESETS,
    doc=__doc__ or '',
    examples=(
      'python -m experiments.properties --workdir=runs/properties',
      'python -m experiments.properties --config.models=gru,attention_rotary',
      'python -m experiments.properties --preset=smoke --workdir=/tmp/smoke',
    ),
  )
