"""SMILES-LSTM: what a molecule does in assays, read from its text.

Mayr et al., "Large-scale comparison of machine learning methods for drug target
prediction on ChEMBL", Chemical Science 9 (2018), its SmilesLSTM [M], with the
settings of its published program (ml-jku/lsc, lstm/models.py) [C]; SELU:
Klambauer et al., NeurIPS 2017. Slides: deck 002, "SmilesLSTM", screening.

    'CC(=O)Oc1cc...' ──> one-hot [T, V] ──> convolution of stride 2, SELU
                                                        │ [T / 2, filters]
      <── the second LSTM, on from the beginning <── LSTM, from the end
      │
      └──> last h, mean, maximum ──> SELU ──> K scores, one for each task

The first LSTM reads from the end to the beginning, the second what the first
one said, from the beginning to the end. Many tasks share the network. A blank
in the table is no label: it costs nothing. Both kinds of label of a task weigh
alike, however rare one is; a curve fitted to the molecules that are chosen by
makes a probability of the score.

  python -m experiments.smiles_lstm --workdir=runs/smiles_lstm
  python -m experiments.smiles_lstm --config.dataset=tox21.csv.gz
  python -m experiments.smiles_screen --model=runs/smiles_lstm --library=FILE

Beside it, on the same split: ridge and logistic regression on pieces of text
(`analysis.smiles_ngrams`), tuned on the same molecules.

Mean AUC over tasks on MoleculeNet's tables, random split 80 : 10 : 10, three
seeds, preset `laptop` (one to four minutes a seed on a busy core): Tox21 .810,
the better n-gram model .805, a tie; SIDER .610 and .642, counting wins; ClinTox
.979 and .986, but there the writing tells the label: with all molecules written
in one way (`--config.canonical=true`, RDKit) .872 and .926, counting wins.
[M]'s own figures are of ChEMBL's assays, which are not here.

MoleculeNet's table called Tox21 is not the data of the SELU paper or of the
Tox21 challenge, whose labels it changed: figures on one say nothing about the
other. Not here: the 551 descriptors that [C] learns as further outputs.
"""

import csv
import dataclasses
import functools
import json
import math
import os
import pathlib
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
from dl_lectures.analysis import (
  calibration,
  ranking,
  smiles_ngrams,
  statistics,
)
from dl_lectures.data import molecules
from dl_lectures.nets import convolution, mlp, recurrent
from dl_lectures.ops import selu
from dl_lectures.training import report

Array = jax.Array
State = types.TrainState

# Molecules that are scored at once.
AT_ONCE = 256
# Tokens for which a program of its own is worth its compilation.
_SHORTEST = 16
# Batches among which molecules are ordered by length.
_POOL = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run; the comments give values of [C]."""

  seed: int = 0  # of every random number, and of a random split
  # made (here, by rules); or a CSV file, compressed or not, with a column
  # smiles and columns of 0, 1 and blanks
  dataset: str = 'made'
  tasks: tuple[str, ...] = ()  # columns to learn; by default all of 0, 1, blank
  split: str = 'random'  # random, scaffold (needs RDKit), or time
  time_column: str = ''  # of a split by time: numbers or dates
  # whether RDKit writes all molecules anew, in one way; see data.molecules
  canonical: bool = False
  # texts of each molecule to learn from, in other orders; 0 for the one that is
  # given; needs RDKit; [C]: a new one each time
  randomised: int = 0
  vocabulary: int = 64  # tokens, padding among them; [C]: 36
  longest: int = 128  # tokens of a molecule, the rest is cut; [C]: 350
  one_hot: float = 8.0  # the 1 of a one-hot; [C]: 1 / 35
  filters: int = 64  # of each convolution; [C]: 32
  convolutions: int = 1  # of stride 2; [C]: 2
  kernel: int = 4  # tokens that a filter sees; [C]: 4
  units: tuple[int, int] = (64, 64)  # of the LSTMs; [C]: 128, 512
  # what is read out beside the last h: mean and maximum over the molecule
  pooled: bool = True  # [C]: no
  hidden: tuple[int, ...] = (64,)  # SELU layers before the outputs; [C]: none
  # dropped of the tokens, after each convolution, after each LSTM
  dropout: tuple[float, float, float] = (0.1, 0.2, 0.2)  # [C]: .1, .5, .1
  alpha_dropout: float = 0.1  # of SELU layers
  balanced: bool = True  # both kinds of label weigh alike; [C]: no
  batch_size: int = 64  # molecules
  epochs: int = 12  # times through the molecules
  learning_rate: float = 3e-3  # at first, falling to 0; [C]: .001, constant
  clip: float = 0.1  # of each number of a gradient; [C]: .1
  weight_decay: float = 1e-4  # of AdamW; [C]: 1e-9, of the outputs

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'batch_size epochs filters kernel', 1)
    types.check_fields(self, 'learning_rate clip one_hot weight_decay', 0)
    types.check_fields(self, 'alpha_dropout', 0, 0.99)
    types.check_fields(self, 'randomised', 0, 1000)
    types.check_fields(self, 'convolutions', 1, 4)
    types.check_fields(self, 'vocabulary', 3, 4096)
    types.check_fields(self, 'longest', 8, 4096)
    for name in ('units', 'hidden'):
      if min(getattr(self, name), default=1) < 1:
        raise types.UsageError(
          f'config.{name}={",".join(map(str, getattr(self, name)))}; at least '
          '1 each is possible'
        )
    if not all(0 <= rate < 1 for rate in self.dropout):
      raise types.UsageError(
        f'config.dropout={",".join(map(str, self.dropout))}; 0 to less than 1 '
        'each is possible'
      )
    if self.split not in molecules.SPLITS:
      raise types.UsageError(
        f'config.split={self.split}; possible: {", ".join(molecules.SPLITS)}'
      )


PRESETS = {
  'smoke': Config(
    longest=64, filters=8, units=(8, 8), hidden=(8,), epochs=1, batch_size=128
  ),
  'laptop': Config(),
  'paper': Config(
    randomised=50,
    vocabulary=36,
    longest=352,
    one_hot=1 / 35,
    filters=32,
    convolutions=2,
    units=(128, 512),
    pooled=False,
    hidden=(),
    dropout=(0.1, 0.5, 0.1),
    balanced=False,
    batch_size=128,
    epochs=200,
    learning_rate=1e-3,
    weight_decay=1e-9,
  ),
}


class Batch(NamedTuple):
  """Molecules to learn from.

  Attributes:
    tokens: [B, T] int16.
    lengths: [B] int32.
    labels: [B, K] int8, 1, 0 or MISSING.
    weights: [B, K] float32, what each label counts for; 0 for a blank.
  """

  tokens: np.ndarray
  lengths: np.ndarray
  labels: np.ndarray
  weights: np.ndarray


class Data(NamedTuple):
  """A table, divided and encoded.

  Attributes:
    table: N molecules, K tasks.
    parts: the numbers of those of each part.
    vocabulary: of those that are learned from.
    tokens: [N, R, T] int16; of each molecule R texts, all its own but the first
      of one that is learned from.
    lengths: [N, R] int32.
    weights: [K, 2], of a 0 and of a 1.
  """

  table: molecules.Table
  parts: molecules.Parts
  vocabulary: molecules.Vocabulary
  tokens: np.ndarray
  lengths: np.ndarray
  weights: np.ndarray


class Model(NamedTuple):
  """A trained network, and what it takes to read and to be read.

  Attributes:
    config: its settings.
    tasks: names of its K outputs.
    vocabulary: its tokens.
    curves: of each output, from a score to a probability.
    params: its weights.
  """

  config: Config
  tasks: tuple[str, ...]
  vocabulary: molecules.Vocabulary
  curves: tuple[calibration.Curve, ...]
  params: Any


def make_data(config: Config) -> Data:
  """Reads the table, divides it and encodes it.

  Raises:
    UsageError: it is not there or not as it should be, or RDKit is needed and
      is not there.
  """
  table = molecules.load(config.dataset, config.tasks, config.time_column)
  if config.canonical:
    table = table._replace(smiles=tuple(molecules.canonical(table.smiles)))
  parts = molecules.split(table, config.split, config.seed)
  if len(parts.train) < config.batch_size:
    raise types.UsageError(
      f'{table.name}: {len(parts.train)} molecules to learn from for batches '
      f'of {config.batch_size}; a smaller config.batch_size is possible'
    )
  texts = [[smiles] for smiles in table.smiles]
  if config.randomised:
    others = molecules.randomised(
      [table.smiles[i] for i in parts.train], config.randomised, config.seed
    )
    for i, some in zip(parts.train, others, strict=True):
      texts[i] = some
  vocabulary = molecules.learn(
    (text for i in parts.train for text in texts[i]), config.vocabulary
  )
  count = max(map(len, texts))
  every = [
    molecules.tokenize(some[i % len(some)])
    for some in texts
    for i in range(count)
  ]
  tokens, lengths = molecules.encode(vocabulary, every, config.longest)
  shape = len(texts), count
  weights = np.ones((len(table.tasks), 2), np.float32)
  if config.balanced:
    weights = molecules.class_weights(table.labels[parts.train])
  return Data(
    table,
    parts,
    vocabulary,
    tokens.reshape(*shape, -1).astype(np.int16),
    lengths.reshape(shape),
    weights,
  )


def batches(config: Config, data: Data, step: int) -> Iterator[Batch]:
  """Molecules in a new order each epoch; batch i depends on (seed, i).

  A batch holds molecules of about the same length: what its longest does not
  need is not computed.
  """
  size, count = config.batch_size, len(data.parts.train)
  each = count // size
  while True:
    epoch, place = divmod(step, each)
    draw = np.random.default_rng((config.seed, epoch))
    order = draw.permutation(data.parts.train)[: each * size]
    which = draw.integers(data.tokens.shape[1], size=len(data.tokens))
    lengths = data.lengths[np.arange(len(which)), which]
    pools = np.array_split(order, math.ceil(each / _POOL))
    order = np.concatenate([p[np.argsort(lengths[p])] for p in pools])
    rows = draw.permutation(order.reshape(each, size))
    for chosen in rows[place:]:
      labels = data.table.labels[chosen]
      kinds = np.where(labels == 1, data.weights[:, 1], data.weights[:, 0])
      yield Batch(
        data.tokens[chosen, which[chosen]],
        lengths[chosen],
        labels,
        np.where(labels == molecules.MISSING, 0, kinds).astype(np.float32),
      )
      step += 1


def network(config: Config, num_tasks: int) -> hk.Transformed:
  """(tokens [B, T], lengths [B], is_training) -> scores [B, K], log-odds.

  T is a multiple of `stride(config)`.
  """

  def forward(
    tokens: Array, lengths: Array, is_training: bool = False
  ) -> Array:
    def dropped(rate: float, x: Array) -> Array:
      return hk.dropout(hk.next_rng_key(), rate, x) if is_training else x

    # Padding is no symbol: zeros, which a convolution without bias keeps.
    x = config.one_hot * jax.nn.one_hot(
      tokens.astype(jnp.int32) - 1, config.vocabulary - 1
    )
    x = dropped(config.dropout[0], x)
    for _ in range(config.convolutions):
      x = convolution.Conv2D(
        config.filters, (config.kernel, 1), (2, 1), with_bias=False
      )(x[:, :, None])[:, :, 0]
      x = dropped(config.dropout[1], selu.selu(x))
      lengths = (lengths + 1) // 2
    mask = jnp.arange(x.shape[1])[None] < lengths[:, None]
    first, second = (recurrent.LSTM(units) for units in config.units)
    # From the end: padding comes first, and leaves the state as it is.
    x = first(x[:, ::-1], mask=mask[:, ::-1])[:, ::-1]
    outputs, last = second.unroll(dropped(config.dropout[2], x), mask=mask)
    x = last.hidden
    if config.pooled:
      # A masked output is the last one again, so that it is no new maximum.
      mean = jnp.where(mask[:, :, None], outputs, 0).sum(1) / lengths[:, None]
      x = jnp.concatenate([x, mean, outputs.max(1)], axis=-1)
    x = dropped(config.dropout[2], x)
    head = mlp.SeluMLP((*config.hidden, num_tasks), config.alpha_dropout)
    return head(x, is_training)

  return hk.transform(forward)


def stride(config: Config) -> int:
  """Tokens that become one."""
  return 2**config.convolutions


def room(config: Config) -> tuple[int, ...]:
  """Lengths of which a program is made, each a multiple of the stride."""
  step = stride(config)
  wanted = (config.longest / 4, config.longest / 2, config.longest)
  least = min(_SHORTEST, config.longest)
  return tuple(
    sorted({step * math.ceil(max(size, least) / step) for size in wanted})
  )


def scores(
  config: Config,
  net: hk.Transformed,
  params: Any,
  key: types.Key | None,
  tokens: Array | np.ndarray,
  lengths: Array | np.ndarray,
  is_training: bool = False,
) -> Array:
  """The network's scores [B, K], in the shortest program that has room."""
  sizes = room(config)
  tokens = jnp.pad(tokens, ((0, 0), (0, sizes[-1] - tokens.shape[1])))

  def cut(size: int):
    return lambda: net.apply(
      params, key, tokens[:, :size], lengths, is_training
    )

  needed = jnp.searchsorted(jnp.array(sizes), jnp.max(lengths))
  return jax.lax.switch(needed, [cut(size) for size in sizes])


def loss(
  config: Config,
  net: hk.Transformed,
  params: Any,
  net_state: Any,
  key: types.Key,
  batch: Batch,
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """The mean cross entropy of the labels that there are, weighted; nats."""
  logits = scores(
    config, net, params, key, batch.tokens, batch.lengths, is_training=True
  )
  labels = jnp.maximum(batch.labels, 0).astype(jnp.float32)
  each = optax.sigmoid_binary_cross_entropy(logits, labels)
  told = jnp.sum(batch.labels != molecules.MISSING)
  total = jnp.sum(batch.weights * each)
  return total / jnp.maximum(told, 1), (net_state, {})


def optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
  """AdamW on gradients of which no number is large, falling to 0."""
  rate = optax.cosine_decay_schedule(config.learning_rate, num_steps)
  return optax.chain(
    optax.clip(config.clip),
    optax.adamw(rate, weight_decay=config.weight_decay),
  )


def init(
  config: Config, net: hk.Transformed, num_steps: int, key: types.Key
) -> State:
  """The state before the first update; consumes the key."""
  some = jnp.zeros((1, room(config)[0]), jnp.int16)
  params = net.init(key, some, jnp.ones(1, jnp.int32))
  return training.init_state(params, {}, optimizer(config, num_steps))


def predict(
  config: Config,
  net: hk.Transformed,
  params: Any,
  tokens: np.ndarray,
  lengths: np.ndarray,
) -> np.ndarray:
  """Scores of any number of molecules, [N, K] float32.

  Args:
    config: the settings.
    net: the network.
    params: its weights.
    tokens: [N, T].
    lengths: [N].
  """
  # Those of one length together, so that the short ones are soon done.
  order = np.argsort(lengths, kind='stable')
  found = []
  for start in range(0, len(order), AT_ONCE):
    some = order[start : start + AT_ONCE]
    # Of one size, so that one program does for all.
    rows = np.resize(some, AT_ONCE)
    part = _scores(config, net, params, tokens[rows], lengths[rows])
    found.append(np.asarray(part)[: len(some)])
  joined = np.concatenate(found)
  return joined[np.argsort(order, kind='stable')]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scores(config, net, params, tokens, lengths):
  return scores(config, net, params, None, tokens, lengths)


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns the tasks, is judged on molecules held out, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  data = make_data(config)
  net = network(config, len(data.table.tasks))
  num_steps = config.epochs * (len(data.parts.train) // config.batch_size)

  def examine(step: int, state: State) -> types.Metrics:
    del step
    found = of_part(config, net, state.params, data, data.parts.valid)
    labels = data.table.labels[data.parts.valid]
    auc = ranking.mean_auc(found, labels)
    return {'AUC of valid': jnp.float32(0.5 if math.isnan(auc) else auc)}

  result = training.fit(
    training.make_step(
      functools.partial(loss, config, net),
      optimizer(config, num_steps),
    ),
    functools.partial(init, config, net, num_steps),
    config=config,
    workdir=workdir,
    num_steps=num_steps,
    batches=functools.partial(batches, config, data),
    hooks=[training.Hook(examine, max(1, num_steps // 10)), *hooks],
    log_every=20,
  )
  if result.status != 'done':
    return result.metrics
  return conclude(config, data, net, result, workdir)


def of_part(
  config: Config, net: hk.Transformed, params: Any, data: Data, part: np.ndarray
) -> np.ndarray:
  """Scores of molecules as they are written in the table, [N', K]."""
  tokens, lengths = molecules.encode(
    data.vocabulary,
    [molecules.tokenize(data.table.smiles[i]) for i in part],
    config.longest,
  )
  return predict(config, net, params, tokens.astype(np.int16), lengths)


def conclude(
  config: Config,
  data: Data,
  net: hk.Transformed,
  result: training.FitResult,
  workdir: str | None,
) -> Mapping[str, Any]:
  """Judges the network beside its baselines, keeps it, and reports."""
  start = time.monotonic()
  table, params = data.table, result.state.params
  valid, test = data.parts.valid, data.parts.test
  chosen_by = of_part(config, net, params, data, valid)
  curves = fit_curves(chosen_by, table.labels[valid])
  found = {'SMILES-LSTM': of_part(config, net, params, data, test)}
  texts = [[table.smiles[i] for i in part] for part in data.parts]
  found |= {
    kind: smiles_ngrams.scores(
      kind,
      texts[0],
      table.labels[data.parts.train],
      texts[1],
      table.labels[valid],
      texts[2],
    )
    for kind in smiles_ngrams.KINDS
  }
  labels = table.labels[test]
  judged = {name: judge(some, labels) for name, some in found.items()}
  p = np.stack(
    [
      calibration.probability(curve, column)
      for curve, column in zip(curves, found['SMILES-LSTM'].T, strict=True)
    ],
    axis=-1,
  )
  losses = {
    'SMILES-LSTM': calibration.log_loss(p, labels),
    'share of actives': calibration.log_loss(
      np.broadcast_to(shares(table.labels[data.parts.train]), p.shape), labels
    ),
  }
  if workdir is not None:
    keep(workdir, config, table.tasks, data.vocabulary, curves)
    write_held_out(workdir, table, test)
  records = training.logging.read(workdir) if workdir else []
  figure = draw(table.tasks, records, judged, p, labels)
  report.save_figure(figure, workdir, 'smiles_lstm')
  metrics = {
    **{f'AUC of {name}': some.mean_auc for name, some in judged.items()},
    **{f'log loss of {name}': value for name, value in losses.items()},
    'tasks': list(table.tasks),
    'AUC of each task': judged['SMILES-LSTM'].aucs,
    'cut at the longest': float((data.lengths[:, 0] == config.longest).mean()),
    'randomised texts': config.randomised or 'off',
  }
  report.write(
    workdir,
    title=f'SMILES-LSTM: {table.name}',
    config=config,
    claims=make_claims(config, table, judged, losses, found, labels),
    metrics=metrics,
    figures={
      'smiles_lstm': 'Valid AUC over training; each task; what was said to be '
      'likely and what was so.'
    },
    minutes=(result.seconds + time.monotonic() - start) / 60,
  )
  return metrics


class Judged(NamedTuple):
  """What scores of held-out molecules are worth: means over tasks.

  Attributes:
    aucs: of each task, NaN where one kind of label is missing.
    mean_auc: their mean.
    enrichment: at 1%.
    bedroc: with alpha 20.
  """

  aucs: list[float]
  mean_auc: float
  enrichment: float
  bedroc: float


def judge(scores: np.ndarray, labels: np.ndarray) -> Judged:
  """Judges scores [N, K] by labels [N, K]."""
  aucs = [
    ranking.roc_auc(*pair) for pair in zip(scores.T, labels.T, strict=True)
  ]
  figures = ranking.roc_auc, ranking.enrichment, ranking.bedroc
  return Judged(
    aucs,
    *(ranking.mean_over_tasks(each, scores, labels) for each in figures),
  )


def fit_curves(
  scores: np.ndarray, labels: np.ndarray
) -> tuple[calibration.Curve, ...]:
  """From scores to probabilities, for each task; [N, K] both."""
  return tuple(
    calibration.platt(*pair)
    if (pair[1] != molecules.MISSING).any()
    else calibration.Curve(1.0, 0.0)
    for pair in zip(scores.T, labels.T, strict=True)
  )


def shares(labels: np.ndarray) -> np.ndarray:
  """The share of actives of each task, [K]."""
  counts = np.stack([(labels == c).sum(0) for c in (0, 1)])
  return (counts[1] + 1) / (counts.sum(0) + 2)


def make_claims(
  config: Config,
  table: molecules.Table,
  judged: Mapping[str, Judged],
  losses: Mapping[str, float],
  found: Mapping[str, np.ndarray],
  labels: np.ndarray,
) -> list[types.Claim]:
  """The rows of the report."""
  ours, *others = judged
  what = f'{table.name}, {config.split} split'
  if config.canonical:
    what += ', written in one way'
  best = max(others, key=lambda name: judged[name].mean_auc)
  better = f'the better of {" and ".join(others)} on n-grams'

  def interval(figure: Any, name: str = ours) -> tuple[float, float]:
    """Of molecules drawn with replacement; some draws hold no active."""
    value = ranking.mean_over_tasks(figure, found[name], labels)

    def drawn(which: np.ndarray) -> float:
      again = ranking.mean_over_tasks(figure, found[name][which], labels[which])
      return value if math.isnan(again) else again

    return statistics.bootstrap(drawn, len(labels))

  by_chance = float(np.mean([*map(ranking.bedroc_by_chance, shares(labels))]))
  return [
    types.Claim(
      f'{what}: mean AUC over {len(table.tasks)} tasks',
      judged[ours].mean_auc,
      interval=interval(ranking.roc_auc),
      baseline=judged[best].mean_auc,
      baseline_name=f'{better}; majority .5',
    ),
    types.at_least(
      f'{what}: mean AUC, gain over the better n-gram model',
      judged[ours].mean_auc - judged[best].mean_auc,
      0.0,
      baseline=0.0,
      baseline_name=better,
    ),
    types.Claim(
      f'{what}: log loss of its probabilities, nats',
      losses[ours],
      baseline=losses['share of actives'],
      baseline_name='share of actives',
    ),
    types.Claim(
      f'{what}: enrichment of the first 1%, mean over tasks',
      judged[ours].enrichment,
      baseline=judged[best].enrichment,
      baseline_name=f'{better}; chance 1',
    ),
    types.Claim(
      f'{what}: BEDROC (alpha 20), mean over tasks',
      judged[ours].bedroc,
      interval=interval(ranking.bedroc),
      baseline=judged[best].bedroc,
      baseline_name=f'{better}; chance {by_chance:.2f}',
    ),
    *(
      types.Claim(
        f'{what}: mean AUC of {name} on n-grams',
        judged[name].mean_auc,
        interval=interval(ranking.roc_auc, name),
        baseline=0.5,
        baseline_name='majority',
      )
      for name in others
    ),
  ]


def draw(
  tasks: Sequence[str],
  records: Sequence[Mapping[str, Any]],
  judged: Mapping[str, Judged],
  p: np.ndarray,
  labels: np.ndarray,
) -> Figure:
  """AUC over training, AUC of each task, and the probabilities."""
  figure = Figure(figsize=(12, 4.2), layout='constrained')
  over, each, said = figure.subplots(1, 3, width_ratios=(1, 1.5, 1))
  points = [
    (r['step'], r['AUC of valid']) for r in records if 'AUC of valid' in r
  ]
  if points:
    over.plot(*zip(*points, strict=True), 'o-')
  over.set(xlabel='updates', ylabel='mean AUC of valid')
  order = np.argsort(np.nan_to_num(judged['SMILES-LSTM'].aucs))
  for (name, some), mark in zip(judged.items(), 'o|x', strict=True):
    each.plot(np.array(some.aucs)[order], range(len(order)), mark, label=name)
  each.axvline(0.5, color='grey', linewidth=0.8)
  each.set_yticks(
    range(len(order)), [_short(tasks[i]) for i in order], fontsize=7
  )
  each.set(xlabel='AUC of test')
  each.legend(fontsize=7)
  mean, active, _ = calibration.reliability(p, labels)
  said.plot([0, 1], [0, 1], color='grey', linewidth=0.8)
  said.plot(mean, active, 'o-')
  top = 1.05 * max(mean.max(), active.max())
  said.set(
    xlabel='probability said',
    ylabel='share active',
    xlim=(0, top),
    ylim=(0, top),
  )
  return figure


def _short(name: str) -> str:
  return name if len(name) <= 28 else f'{name[:25]}...'


def keep(
  workdir: str,
  config: Config,
  tasks: Sequence[str],
  vocabulary: molecules.Vocabulary,
  curves: Sequence[calibration.Curve],
) -> None:
  """Writes `model.json`: what `load` needs beside the weights."""
  path = pathlib.Path(workdir, 'model.json')
  text = json.dumps(
    {
      'tasks': list(tasks),
      'symbols': list(vocabulary.symbols),
      'curves': [list(curve) for curve in curves],
      'config': dataclasses.asdict(config),
    },
    indent=1,
  )
  temporary = path.with_suffix('.tmp')
  temporary.write_text(f'{text}\n', encoding='utf-8')
  os.replace(temporary, path)


def write_held_out(
  workdir: str, table: molecules.Table, test: np.ndarray
) -> None:
  """Writes `held_out.csv`: molecules to screen, which it has not seen."""
  path = pathlib.Path(workdir, 'held_out.csv')
  with open(path, 'w', encoding='utf-8', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(['smiles', *table.tasks])
    for i in test:
      labels = ['' if x < 0 else int(x) for x in table.labels[i]]
      rows.writerow([table.smiles[i], *labels])


def load(workdir: str) -> Model:
  """Reads the network of a run that has ended.

  Raises:
    UsageError: there is none.
  """
  path = pathlib.Path(workdir, 'model.json')
  try:
    kept = json.loads(path.read_text(encoding='utf-8'))
    fields = kept['config']
    listed = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
    config = Config(**fields | listed)
    tasks = tuple(kept['tasks'])
    vocabulary = molecules.Vocabulary(tuple(kept['symbols']))
    curves = tuple(calibration.Curve(*curve) for curve in kept['curves'])
  except (FileNotFoundError, NotADirectoryError):
    raise types.UsageError(
      f'{workdir} holds no run that has ended (no model.json); train one with '
      f'python -m experiments.smiles_lstm --workdir={workdir}'
    ) from None
  except (TypeError, KeyError, json.JSONDecodeError) as error:
    raise types.UsageError(
      f'{path} is not of a SMILES-LSTM: {error}'
    ) from error
  # The schedule's length is no shape.
  abstract = jax.eval_shape(
    lambda key: init(config, network(config, len(tasks)), 1, key),
    jax.random.key(0),
  )
  found = training.checkpoint.Checkpointer.open(
    path.parent / 'checkpoints'
  ).restore(abstract)
  if found is None:
    raise types.UsageError(f'{workdir} holds no checkpoint')
  return Model(config, tasks, vocabulary, curves, found[1].params)
