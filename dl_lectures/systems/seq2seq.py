"""Sequence to sequence: sums, and sentences in another language.

Sutskever, Vinyals & Le, NeurIPS 2014 [S]; Bahdanau, Cho & Bengio, ICLR 2015
[B]; sums: Zaremba & Sutskever, "Learning to execute", 2014. Slides: deck 003,
"Sequence to sequence", "Attention".

    '97+805' ──> encoder ──> one vector ──────────> decoder ──> '902'
                    └──────> all its vectors ─┐
                                              v
                    a second decoder, which looks ──> '902'

Both networks learn from the same pairs in one step, one beside the other;
nothing that they are judged on is among them. Lines of text are cut into
subwords, each language by its own. An answer to a problem counts if every
character of it is right; translations of text are judged by BLEU.

  python -m experiments.seq2seq --preset=laptop --workdir=runs/seq2seq
  python -m experiments.seq2seq --preset=numbers
  python -m experiments.seq2seq --preset=text --config.task=FOLDER

Sums of three digits that were held out, right with attention: 99.6% to 99.95%
in three seeds; through one vector: 35%, 87% and 98% (six minutes on a busy
core). Multi30k, German into English, four times through 25,000 pairs of lines
(17 minutes on a busy core): 34.2 BLEU with attention (33.8 to 34.6 in three
seeds); 6.9 through one vector, which has not learned to read yet; 20.5 if each
word is looked up in a dictionary of counts. Tested on its 1,014 validation
lines, with 5 beams. If what is looked at are the LSTMs' states alone, without
the words themselves, one seed in three has not found where to look by then.
"""

import collections
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.analysis import statistics
from dl_lectures.analysis import translation as trivial
from dl_lectures.data import arithmetic, subwords, translation
from dl_lectures.data import pairs as pairs_lib
from dl_lectures.nets import encoder_decoder
from dl_lectures.ops import bleu
from dl_lectures.training import generation, report

Array = jax.Array
State = types.TrainState
Batch = pairs_lib.Pairs
Nets = Mapping[str, encoder_decoder.EncoderDecoder]

NAMES = ('attention', 'one vector')
# Pairs that are answered at once, and tokens of a source that is drawn.
_AT_ONCE = 500
_READABLE = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give values of [S]."""

  seed: int = 0  # of every random number
  # sums; numbers (in German and English words); a folder of aligned lines
  # (train.de, train.en, ...); or a corpus of tensorflow-datasets
  task: str = 'sums'
  digits: int = 3  # of the largest summand of sums
  num_held_out: int = 2000  # sums that nothing is learned from
  languages: tuple[str, str] = ('de', 'en')  # from which and into which
  # tokens of each language at most; [S]: 160,000 and 80,000 words
  vocabulary: int = 4000
  longest: int = 30  # tokens of a line that is learned from, and written
  units: int = 128  # of each LSTM; [S]: 1,000 in 4 layers
  batch_size: int = 128  # pairs; [S]: 128
  num_steps: int = 4000  # updates
  learning_rate: float = 3e-3  # at first, falling to 0; [S]: SGD, .7
  clip: float = 5.0  # norm of a network's gradient; [S]: 5
  dropout: float = 0.0  # of what LSTMs read and write; [S]: 0
  beams: int = 1  # beginnings of an answer that are kept; [S]: 2, 12

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'units batch_size num_steps longest beams', 1)
    types.check_fields(self, 'learning_rate clip', 0)
    types.check_fields(self, 'dropout', 0, 1)
    arithmetic.split(self.digits, self.num_held_out)


PRESETS = {
  'smoke': Config(
    digits=1, units=16, batch_size=32, num_steps=60, num_held_out=20
  ),
  'laptop': Config(),
  'numbers': Config(task='numbers', vocabulary=64, longest=60, num_steps=2000),
  'text': Config(
    task='FOLDER',
    vocabulary=3000,
    longest=24,
    units=192,
    batch_size=64,
    num_steps=1500,
    dropout=0.2,
    beams=5,
  ),
  'paper': Config(units=1000, num_steps=20_000, beams=12),
}


class Task(NamedTuple):
  """What is learned, and what answers to it are worth.

  Attributes:
    title: what is counted, for reports.
    sizes: tokens of the source, and of the target.
    batches: (step) -> pairs to learn from, from update `step` on.
    valid: pairs that are looked at while it learns, and what is wanted.
    test: pairs that it is judged on, and what is wanted.
    read: tokens of an answer, up to STOP -> what it says.
    spell: the same of a source, and of an answer, token by token.
    longest: T, tokens of an answer.
    score: (answers, wanted) -> [] and its 95% interval.
    trivial: of no network, name -> answers to the test.
    bar: of attention's score.
    ahead: how far it is to be ahead of one vector.
  """

  title: str
  sizes: tuple[int, int]
  batches: Callable[[int], Iterator[Batch]]
  valid: tuple[Batch, Sequence[str]]
  test: tuple[Batch, Sequence[str]]
  read: Callable[[np.ndarray], str]
  spell: tuple[Callable[[np.ndarray], list[str]], ...]
  longest: int
  score: Callable[[Sequence[str], Sequence[str]], 'Score']
  trivial: Mapping[str, Sequence[str]]
  bar: float | None = None
  ahead: float | None = None


class Score(NamedTuple):
  """A value, and an interval that holds it in 95% of all test sets."""

  value: float
  interval: tuple[float, float]


def make_task(config: Config) -> Task:
  """The task that is named.

  Raises:
    UsageError: there is none of that name, or too little of it.
  """
  return sums(config) if config.task == 'sums' else lines(config)


def sums(config: Config) -> Task:
  """Sums of numbers, as characters."""
  learned, held_out = arithmetic.split(config.digits, config.num_held_out)

  def batches(step: int) -> Iterator[Batch]:
    while True:
      draw = np.random.default_rng((config.seed, step))
      some = draw.choice(learned, config.batch_size)
      yield arithmetic.pairs(some, config.digits)
      step += 1

  def spell(tokens: np.ndarray) -> list[str]:
    return list(arithmetic.decode(tokens))

  size = 10**config.digits
  usual, _ = collections.Counter(
    (learned // size + learned % size).tolist()
  ).most_common(1)[0]

  def exam(numbers: np.ndarray) -> tuple[Batch, list[str]]:
    right = (numbers // size + numbers % size).tolist()
    return arithmetic.pairs(numbers, config.digits), list(map(str, right))

  return Task(
    f'sums of {config.digits} digits right',
    (arithmetic.NUM_TOKENS, arithmetic.NUM_TOKENS),
    batches,
    valid=exam(held_out[:_AT_ONCE]),
    test=exam(held_out),
    read=arithmetic.decode,
    spell=(spell, spell),
    longest=config.digits + 2,
    score=share_right,
    trivial={'the most frequent sum': [str(usual)] * len(held_out)},
    bar=0.995,
  )


def lines(config: Config) -> Task:
  """Lines of two languages, as subwords."""
  corpus = translation.load(config.task, config.languages)
  vocabularies = [
    subwords.learn(some, config.vocabulary) for some in corpus.train
  ]

  def cut(some: translation.Lines) -> Iterator[tuple[list[int], list[int]]]:
    tokens = (
      subwords.encode(vocabulary, part)
      for vocabulary, part in zip(vocabularies, some, strict=True)
    )
    return zip(*tokens, strict=True)

  def exam(some: translation.Lines) -> tuple[Batch, tuple[str, ...]]:
    return pairs_lib.pack(*zip(*cut(some), strict=True)), some.target

  # STOP is a token too.
  short = [
    pair for pair in cut(corpus.train) if max(map(len, pair)) < config.longest
  ]
  if len(short) < config.batch_size:
    raise types.UsageError(
      f'{corpus.name}: {len(short)} pairs of less than {config.longest} tokens '
      f'for batches of {config.batch_size}; a larger config.longest or a '
      'smaller config.batch_size is possible'
    )
  train = pairs_lib.pack(*zip(*short, strict=True))
  few = translation.Lines(*(part[:_AT_ONCE] for part in corpus.valid))
  meanings = trivial.dictionary(*corpus.train)
  is_text = config.task != 'numbers'
  return Task(
    f'BLEU on {corpus.name}' if is_text else 'numbers in words right',
    (vocabularies[0].size, vocabularies[1].size),
    lambda step: pairs_lib.shuffled(
      train, config.batch_size, config.seed, step
    ),
    valid=exam(few),
    test=exam(corpus.test),
    read=functools.partial(subwords.decode, vocabularies[1]),
    spell=tuple(
      functools.partial(subwords.split, vocabulary)
      for vocabulary in vocabularies
    ),
    longest=config.longest,
    score=bleu_score if is_text else share_right,
    trivial={
      'word by word': [
        trivial.word_by_word(meanings, line) for line in corpus.test.source
      ],
      'copied': corpus.test.source,
      'the most frequent line': [trivial.most_frequent(corpus.train.target)]
      * len(corpus.test.source),
    },
    ahead=5.0 if is_text else None,
  )


def share_right(answers: Sequence[str], wanted: Sequence[str]) -> Score:
  """The share of answers of which every character is right."""
  right = np.array([a == b for a, b in zip(answers, wanted, strict=True)])
  share = float(right.mean())
  spread = 1.96 * math.sqrt(share * (1 - share) / len(right))
  return Score(share, (max(0.0, share - spread), min(1.0, share + spread)))


def bleu_score(answers: Sequence[str], wanted: Sequence[str]) -> Score:
  """BLEU of the whole; its interval is of lines drawn with replacement."""
  counts = bleu.count(answers, wanted)
  return Score(
    bleu.score(counts.sum(0)).value,
    statistics.bootstrap(
      lambda which: bleu.score(counts[which].sum(0)).value, len(counts)
    ),
  )


def networks(config: Config, sizes: tuple[int, int]) -> Nets:
  """The two that are compared, by name; sizes as of the task."""
  return {
    name: encoder_decoder.encoder_decoder(
      config.units,
      source_size=sizes[0],
      target_size=sizes[1],
      attention=name == 'attention',
      dropout=config.dropout,
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
  nets: Nets, params: Any, net_state: Any, key: types.Key, batch: Batch
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """The sum of the networks' losses: mean -log p of a token, nats."""
  given, wanted = batch.target[:, :-1], batch.target[:, 1:]
  counts = wanted != pairs_lib.PAD
  metrics = {}
  for name, net in nets.items():
    reading, writing, key = jax.random.split(key, 3)
    memory = net.encode(
      params[name],
      batch.source,
      batch.lengths,
      key=reading,
      is_training=True,
    )
    logits, _ = net.decoder.apply_from(
      params[name].decoder, writing, memory, given, is_training=True
    )
    each = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
    metrics[f'loss of {name}'] = jnp.sum(each * counts) / jnp.sum(counts)
  return sum(metrics.values(), jnp.float32(0)), (net_state, metrics)


def init(config: Config, nets: Nets, key: types.Key) -> State:
  """The state before the first update; consumes the key."""
  some = pairs_lib.pack([[0]], [[0]])
  keys = jax.random.split(key, len(nets))
  params = {
    name: net.init(k, some.source, some.lengths, some.target)
    for k, (name, net) in zip(keys, nets.items(), strict=True)
  }
  return training.init_state(params, {}, optimizer(config))


def make_step(config: Config, nets: Nets) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update of both."""
  return training.make_step(functools.partial(loss, nets), optimizer(config))


def answer(
  net: encoder_decoder.EncoderDecoder,
  weights: Any,
  sources: np.ndarray,
  lengths: np.ndarray,
  longest: int,
  beams: int = 1,
) -> np.ndarray:
  """The likeliest answers, [N, T].

  Args:
    net: one of the networks.
    weights: its weights.
    sources: [N, S].
    lengths: [N].
    longest: T.
    beams: beginnings that are kept; of the sequences that they find the
      likeliest a token is taken. With 1 the likeliest token each time.
  """
  total, found = len(sources), []
  for start in range(0, total, _AT_ONCE):
    # The last part begins anew, so that one program does for all.
    which = np.arange(start, start + _AT_ONCE) % total
    memory = jax.jit(net.encode)(weights, sources[which], lengths[which])
    new = generation.generate(
      net.decoder,
      weights.decoder,
      np.full((len(which), 1), pairs_lib.START, np.int32),
      longest,
      method='beam' if beams > 1 else 'greedy',
      num_beams=beams,
      length_power=1.0,
      stop_token=pairs_lib.STOP,
      carry=memory,
    )
    found.append(np.asarray(new.tokens))
  return np.concatenate(found)[:total]


def answers(
  task: Task,
  net: encoder_decoder.EncoderDecoder,
  weights: Any,
  some: Batch,
  beams: int = 1,
) -> list[str]:
  """What a network says of sources, read."""
  tokens = answer(net, weights, some.source, some.lengths, task.longest, beams)
  return [task.read(row) for row in tokens]


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns the task with both networks, judges them, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  task = make_task(config)
  nets = networks(config, task.sizes)

  def examine(step: int, state: State) -> types.Metrics:
    del step
    params: Any = state.params
    some, wanted = task.valid
    return {
      f'score of {name}': jnp.float32(
        task.score(answers(task, net, params[name], some), wanted).value
      )
      for name, net in nets.items()
    }

  result = training.fit(
    make_step(config, nets),
    functools.partial(init, config, nets),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    batches=task.batches,
    hooks=[
      training.Hook(examine, max(1, config.num_steps // 10)),
      *hooks,
    ],
    log_every=20,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, task, nets, result, workdir)


def conclude(
  config: Config,
  task: Task,
  nets: Nets,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Judges both on pairs that were held out, and reports."""
  start = time.monotonic()
  params = result.state.params
  some, wanted = task.test
  said = {
    name: answers(task, net, params[name], some, config.beams)
    for name, net in nets.items()
  }
  scores = {name: task.score(said[name], wanted) for name in NAMES}
  plain = {
    name: task.score(them, wanted).value for name, them in task.trivial.items()
  }
  records = training.logging.read(workdir) if workdir else []
  figure = draw(task, records, nets['attention'], params['attention'])
  report.save_figure(figure, workdir, 'seq2seq')
  metrics = {
    **{f'score_{name}': found.value for name, found in scores.items()},
    **{f'score_{name}': value for name, value in plain.items()},
    'examples': [
      f'{name}: {them[i]}'
      for i in range(min(5, len(wanted)))
      for name, them in [('wanted', wanted), *said.items()]
    ],
  }
  report.write(
    workdir,
    title='Sequence to sequence',
    config=config,
    claims=make_claims(task, scores, plain),
    metrics=metrics,
    figures={
      'seq2seq': 'Right answers over training; where the decoder looks.'
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


def make_claims(
  task: Task, scores: Mapping[str, Score], plain: Mapping[str, float]
) -> list[types.Claim]:
  """The rows of the report."""
  best = max(plain, key=lambda name: plain[name])
  others = [
    f'{name} {value:.3g}' for name, value in plain.items() if name != best
  ]
  beside = {
    'baseline': plain[best],
    'baseline_name': '; '.join([best, *others]),
  }
  claims = []
  for name, found in scores.items():
    bar = task.bar if name == 'attention' else None
    claims.append(
      types.Claim(
        f'{task.title}, {name}',
        found.value,
        interval=found.interval,
        bar=bar,
        met=None if bar is None else found.value >= bar,
        **beside,
      )
    )
  if task.ahead is not None:
    first, second = (scores[name].value for name in NAMES)
    claims.append(
      types.at_least(
        f'{task.title}, points of attention over one vector',
        first - second,
        task.ahead,
        baseline=0.0,
        baseline_name='one vector',
      )
    )
  return claims


def draw(
  task: Task,
  records: Sequence[Mapping[str, Any]],
  net: encoder_decoder.EncoderDecoder,
  weights: Any,
) -> Figure:
  """Scores over training, and where the decoder looks in a few pairs."""
  figure = Figure(figsize=(11, 4.5), layout='constrained')
  halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.6))
  left, right_side = halves
  axes = left.subplots()
  for name in NAMES:
    points = [
      (r['step'], r[f'score of {name}'])
      for r in records
      if f'score of {name}' in r
    ]
    if points:
      axes.plot(*zip(*points, strict=True), 'o-', label=name)
  axes.set(xlabel='updates', ylabel=task.title, ylim=(0, None))
  if axes.lines:
    axes.legend()
  draw_looks(right_side, task, net, weights)
  return figure


def draw_looks(
  figure: Any,
  task: Task,
  net: encoder_decoder.EncoderDecoder,
  weights: Any,
) -> None:
  """Where the decoder looks: four pairs of the test that are short enough."""
  every, _ = task.test
  short = np.flatnonzero(every.lengths <= _READABLE)[:4]
  some = pairs_lib.pick(every, short)
  memory = net.encode(weights, some.source, some.lengths)
  assert net.look is not None
  looks = np.asarray(net.look(weights, memory, some.target[:, :-1]))
  cells = figure.subplots(2, 2).flat
  for look, source, length, target, cell in zip(
    looks, *some, cells, strict=False
  ):
    given = task.spell[0](source[:length])
    found = [*task.spell[1](target[1:]), 'end']
    cell.imshow(
      look[: len(found), : len(given)], cmap='Blues', vmin=0, aspect='auto'
    )
    cell.set_xticks(range(len(given)), given, fontsize=7)
    cell.set_yticks(range(len(found)), found, fontsize=7)
    if max(map(len, given)) > 1:
      cell.tick_params('x', rotation=90)
