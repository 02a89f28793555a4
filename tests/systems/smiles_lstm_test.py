"""SMILES-LSTM: the network in NumPy, losses by hand, resumption, a run."""

import csv
import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.data import molecules
from dl_lectures.systems import smiles_lstm

TINY = dataclasses.replace(
  smiles_lstm.PRESETS['smoke'],
  longest=16,
  vocabulary=12,
  filters=6,
  units=(5, 7),
  hidden=(6,),
  batch_size=64,
  randomised=0,
)
NET = smiles_lstm.network(TINY, 3)
NUM_STEPS = 40


@pytest.fixture(scope='module')
def data() -> smiles_lstm.Data:
  return smiles_lstm.make_data(TINY)


@pytest.fixture(scope='module')
def begun() -> Any:
  loss = functools.partial(smiles_lstm.loss, TINY, NET)
  optimizer = smiles_lstm.optimizer(TINY, NUM_STEPS)
  step = jax.jit(training.make_step(loss, optimizer))
  return step, smiles_lstm.init(TINY, NET, NUM_STEPS, jax.random.key(0))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def plain_lstm(weights, rows):
  """The outputs after each row, by the equations, in NumPy."""
  units = weights['w_h'].shape[0]
  h = c = np.zeros(units)
  found = []
  for row in rows:
    sums = row @ weights['w_x'] + h @ weights['w_h'] + weights['b']
    i, g, f, o = np.split(sums, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    found.append(h)
  return np.array(found)


def plain_network(params, tokens):
  """The scores of one molecule, without padding, in NumPy."""

  def selu(x):
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))

  params = jax.tree.map(lambda x: np.asarray(x, float), params)
  kernel = params['conv2_d']['w'][:, 0]
  x = np.zeros((len(tokens) + 4, TINY.vocabulary - 1))
  x[1 + np.arange(len(tokens)), tokens - 1] = TINY.one_hot
  x = selu(
    np.array(
      [
        np.einsum('kv,kvd->d', x[at : at + 4], kernel)
        for at in range(0, len(tokens), 2)
      ]
    )
  )
  x = plain_lstm(params['lstm'], x[::-1])[::-1]
  x = plain_lstm(params['lstm_1'], x)
  x = np.concatenate([x[-1], x.mean(0), x.max(0)])
  hidden, outputs = params['selu_mlp/linear'], params['selu_mlp/linear_1']
  return selu(x @ hidden['w'] + hidden['b']) @ outputs['w'] + outputs['b']


def test_the_network_is_what_its_equations_say_whatever_the_padding(begun):
  _, state = begun
  draw = np.random.default_rng(0)
  lengths = np.array([1, 2, 7, 16, 15, 8])
  tokens = np.zeros((6, 16), np.int16)
  for row, length in zip(tokens, lengths, strict=True):
    row[:length] = draw.integers(1, 12, length)
  found = smiles_lstm.predict(TINY, NET, state.params, tokens, lengths)
  for row, length, scores in zip(tokens, lengths, found, strict=True):
    expected = plain_network(state.params, row[:length])
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_programs_of_any_length_say_the_same(begun):
  _, state = begun
  longer = dataclasses.replace(TINY, longest=64)
  assert smiles_lstm.room(TINY) == (16,)
  assert smiles_lstm.room(longer) == (16, 32, 64)
  assert smiles_lstm.room(smiles_lstm.PRESETS['paper']) == (88, 176, 352)
  tokens = np.zeros((4, 64), np.int16)
  tokens[:, :10] = np.random.default_rng(0).integers(1, 12, (4, 10))
  short = smiles_lstm.scores(
    TINY, NET, state.params, None, tokens[:, :16], np.full(4, 10)
  )
  # One that is longer sends all of them to the longest program.
  tokens[3, :40] = 1
  long = smiles_lstm.scores(
    longer, NET, state.params, None, tokens, np.array([10, 10, 10, 40])
  )
  np.testing.assert_allclose(short[:3], long[:3], atol=1e-5)


def test_blanks_cost_nothing_and_both_kinds_weigh_alike(begun, data):
  _, state = begun
  still = dataclasses.replace(TINY, dropout=(0, 0, 0), alpha_dropout=0)
  net = smiles_lstm.network(still, 3)
  batch = next(smiles_lstm.batches(still, data, 0))
  found, _ = smiles_lstm.loss(
    still, net, state.params, {}, jax.random.key(0), batch
  )
  scores = smiles_lstm.predict(TINY, NET, state.params, *batch[:2])
  costs = [
    data.weights[task, label]
    * np.log1p(np.exp(score if label == 0 else -score))
    for row, labels in zip(scores, batch.labels, strict=True)
    for task, (score, label) in enumerate(zip(row, labels, strict=True))
    if label != molecules.MISSING
  ]
  assert len(costs) < batch.labels.size
  assert found == pytest.approx(np.mean(costs), rel=1e-4)
  train = data.table.labels[data.parts.train]
  for weights, column in zip(data.weights, train.T, strict=True):
    totals = [weights[c] * (column == c).sum() for c in (0, 1)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)


def test_an_epoch_has_every_molecule_once_and_batches_of_like_length(data):
  each = len(data.parts.train) // TINY.batch_size
  some = smiles_lstm.batches(TINY, data, 0)
  epoch = [next(some) for _ in range(each)]
  first = next(some)
  again = next(smiles_lstm.batches(TINY, data, each))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  middle = next(smiles_lstm.batches(TINY, data, 5))
  jax.tree.map(np.testing.assert_array_equal, epoch[5], middle)

  def rows(tokens):
    return sorted(map(bytes, tokens))

  seen = rows(np.concatenate([batch.tokens for batch in epoch]))
  there = rows(data.tokens[data.parts.train, 0])
  assert len(seen) == each * TINY.batch_size
  assert not {*seen} - {*there}
  spread = np.mean([np.ptp(batch.lengths) for batch in epoch])
  assert spread < np.ptp(data.lengths) / 2


def test_it_learns_and_resumes_bit_for_bit(begun, data):
  step, state = begun

  def run(state, first, last):
    metrics = []
    some = smiles_lstm.batches(TINY, data, first)
    for _, batch in zip(range(last - first), some, strict=False):
      state, found = step(state, batch, jax.random.key(1))
      metrics.append(float(found['loss']))
    return state, metrics

  half, first = run(state, 0, 20)
  whole, last = run(half, 20, NUM_STEPS)
  assert np.mean(last[-5:]) < np.mean(first[:5]) - 0.02
  resumed, _ = run(jax.tree.map(np.asarray, half), 20, NUM_STEPS)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_the_published_network_has_its_number_of_weights():
  paper = smiles_lstm.PRESETS['paper']
  net = smiles_lstm.network(paper, 10)
  shapes = jax.eval_shape(
    lambda key: smiles_lstm.init(paper, net, 1, key), jax.random.key(0)
  )
  count = sum(x.size for x in jax.tree.leaves(shapes.params))
  convolutions = 4 * 35 * 32 + 4 * 32 * 32
  lstms = 4 * 128 * (32 + 128 + 1) + 4 * 512 * (128 + 512 + 1)
  assert count == convolutions + lstms + (512 + 1) * 10


@pytest.mark.slow
def test_a_run_from_a_table_to_a_model_that_is_kept(tmp_path):
  table = molecules.made(400)
  path = tmp_path / 'assays.csv'
  with open(path, 'w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(['smiles', 'id', *table.tasks])
    for i, (text, labels) in enumerate(
      zip(table.smiles, table.labels, strict=True)
    ):
      rows.writerow([text, f'm{i}', *['' if x < 0 else x for x in labels]])
  config = dataclasses.replace(TINY, dataset=str(path), tasks=('either',))
  workdir = str(tmp_path / 'run')
  metrics = smiles_lstm.train(config, workdir=workdir)
  assert 0 <= metrics['AUC of SMILES-LSTM'] <= 1
  summary = training.report.finished(workdir, config)
  assert summary is not None
  assert [claim['met'] is None for claim in summary['claims']].count(False) == 1
  assert summary['claims'][0]['baseline'] > 0.5
  assert (tmp_path / 'run' / 'figures' / 'smiles_lstm.png').exists()

  model = smiles_lstm.load(workdir)
  assert model.tasks == ('either',)
  held_out = molecules.load(str(tmp_path / 'run' / 'held_out.csv'))
  assert len(held_out.smiles) == 40
  tokens, lengths = molecules.encode(
    model.vocabulary,
    [molecules.tokenize(text) for text in held_out.smiles],
    config.longest,
  )
  net = smiles_lstm.network(config, 1)
  found = smiles_lstm.predict(config, net, model.params, tokens, lengths)
  judged = smiles_lstm.judge(found, held_out.labels)
  assert judged.mean_auc == pytest.approx(metrics['AUC of SMILES-LSTM'])

  kept = json.loads((tmp_path / 'run' / 'model.json').read_text())
  (tmp_path / 'run' / 'model.json').write_text(json.dumps(kept['config']))
  with pytest.raises(types.UsageError, match=r'model\.json is not of a SMILES'):
    smiles_lstm.load(workdir)
  with pytest.raises(types.UsageError, match='holds no run that has ended'):
    smiles_lstm.load(str(tmp_path))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'units': (0, 8)}, r'config\.units=0,8; at least 1 each'),
    (
      {'dropout': (0.1, 1.0, 0.1)},
      r'config\.dropout=0\.1,1\.0,0\.1; 0 to less',
    ),
    ({'split': 'age'}, r'config\.split=age; possible: random, scaffold, time'),
    ({'epochs': 0}, r'config\.epochs=0; at least 1'),
    ({'vocabulary': 2}, r'config\.vocabulary=2; 3 to'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(smiles_lstm.Config(), **changes)


def test_more_in_a_batch_than_there_is_to_learn_from():
  config = dataclasses.replace(TINY, batch_size=4096)
  with pytest.raises(types.UsageError, match='2400 molecules to learn from'):
    smiles_lstm.make_data(config)
