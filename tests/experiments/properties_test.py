"""The table of properties: what is claimed of parts that are made up."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest

from dl_lectures import types
from dl_lectures.analysis import properties as analysis
from dl_lectures.data import text
from experiments import properties

CONFIG = properties.Config(models=('addition', 'rnn', 'convolution_16'))


def row(order, far, reach, error=1e-9):
  gradient = np.full(64, 0.5)
  gradient[-1] = far
  return analysis.Properties(
    order, gradient, np.zeros(3), properties.LAGS, reach, error, 1.0
  )._asdict()


def made_up():
  found: dict[str, Any] = {
    f'table/{name}': {
      'untrained': row(order, far, reach),
      'trained': row(order, far, reach),
      'lengths': {'1': 2.0, '8': None if name == 'rnn' else 3.0},
      'receptive_field': field,
    }
    for name, order, far, reach, field in (
      ('addition', 0.0, 1.0, 63, None),
      ('rnn', 0.3, 1e-13, 60, None),
      ('lstm_keeping', 0.2, 0.5, 63, None),
      ('convolution_16', 0.4, 0.0, 15, 16),
    )
  }
  for length in CONFIG.adding:
    for name in properties.ADDERS:
      score = 0.17 if name == 'rnn' else 0.02 if name == 'gru' else 0.001
      found[f'adding/{length}/{name}'] = {'score': score}
  for pairs in CONFIG.pairs:
    found[f'recall/{pairs}/attention'] = {'score': 1.0}
    found[f'recall/{pairs}/gru'] = {'score': 0.7}
  return found


def test_bars_are_met_or_missed():
  claims = {c.name: c for c in properties.make_claims(CONFIG, made_up())}

  def met(part):
    (claim,) = [c for name, c in claims.items() if part in name]
    return claim.met

  assert met('finite differences')
  assert met('shuffling the past')
  assert met('convolution_16: elements with a gradient')
  assert met('rnn: gradient at lag 63')
  assert met('lstm, forget bias 5: gradient at lag 63')
  assert met('adding problem of 100, rnn')
  assert met('adding problem of 200, attention')
  assert not met('adding problem of 100, gru')
  assert met('recall of 16 pairs, attention')
  assert not met('recall of 16 pairs, gru')
  assert met('recall of 8 pairs, gru') is None
  refused = claims[
    'rnn: loss on text at 8 times the length of the training, 64'
  ]
  assert (refused.value, refused.baseline) == ('refused', 2.0)
  # Every figure stands beside another one, or is exact.
  assert all(c.exact or c.baseline is not None for c in claims.values())


def test_a_convolution_that_sees_too_much_is_noticed():
  found = made_up()
  found['table/convolution_16']['trained'] = row(0.4, 0.0, 16)
  claims = properties.make_claims(CONFIG, found)
  (claim,) = [c for c in claims if 'elements with a gradient' in c.name]
  assert (claim.value, claim.bar, claim.met) == (17, 16, False)


def test_parts_are_kept_and_not_measured_again(tmp_path, monkeypatch):
  config = dataclasses.replace(
    CONFIG, models=('addition', 'rnn', 'lstm_keeping', 'convolution_16')
  )
  calls = []

  def parts(config, corpus):
    del config
    assert corpus.name == 'fox.txt'
    for name, result in made_up().items():

      def measure(key, name=name, result=result):
        calls.append((name, jax.random.key_data(key).tolist()))
        if len(calls) == 5:
          raise KeyboardInterrupt
        return result

      yield name, measure

  path = tmp_path / 'fox.txt'
  path.write_text('the quick brown fox. ' * 20)
  monkeypatch.setattr(properties, 'parts', parts)
  config = dataclasses.replace(config, text=str(path))
  workdir = str(tmp_path / 'run')
  with pytest.raises(KeyboardInterrupt):
    properties.train(config, workdir=workdir)
  metrics = properties.train(config, workdir=workdir)
  names = [name for name, _ in calls]
  # The one that was cut off is measured again, with the same key.
  assert names[:4] + names[5:] == list(made_up())
  assert calls[4] == calls[5]
  assert any('lstm_keeping' in line for line in metrics['table_trained'])
  summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
  assert len(summary['claims']) > 10
  assert (tmp_path / 'run' / 'figures' / 'properties.png').exists()
  with pytest.raises(types.UsageError):
    properties.train(dataclasses.replace(config, width=32), workdir=workdir)


def test_the_gru_is_as_large_as_attention():
  task = analysis.associative_recall(16)
  sizes = {
    name: properties.count(
      build(CONFIG, task.num_features, task.num_outputs), task.num_features
    )
    for name, build in properties.RECALLERS.items()
  }
  assert 0.97 * sizes['attention'] < sizes['gru'] <= sizes['attention']


def test_every_row_of_the_table_can_be_made():
  corpus = text.from_text('the quick brown fox. ' * 20)
  task = properties.reading(corpus, 6)
  x, target = task.draw(jax.random.key(0), 3)
  tokens = np.asarray(x).argmax(axis=-1)
  np.testing.assert_array_equal(tokens[:, 1:], target[:, :-1])
  size = corpus.vocabulary.size
  for build in properties.MODELS.values():
    model = build(CONFIG, size, size)
    assert properties.count(model, size) > size


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'width': 30}, r'config.width=30; the multiples of 4'),
    ({'length': 32}, r'config.length=32; at least 33'),
    ({'models': ('gru', 'lsmt')}, r"config.models: 'lsmt'; possible: trigram"),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(CONFIG, **changes)
