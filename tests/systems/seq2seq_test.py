"""Sequence to sequence: losses by hand, resumption, and that it learns."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
from scipy import special

from dl_lectures import training, types
from dl_lectures.data import arithmetic, pairs
from dl_lectures.systems import seq2seq

TINY = dataclasses.replace(
  seq2seq.PRESETS['smoke'], units=8, batch_size=16, num_steps=20
)
TASK = seq2seq.make_task(TINY)
nets = seq2seq.networks(TINY, TASK.sizes)


@pytest.fixture(scope='module')
def begun() -> Any:
  step = jax.jit(seq2seq.make_step(TINY, nets))
  init = jax.jit(lambda key: seq2seq.init(TINY, nets, key))
  return step, init(jax.random.key(0))


def run(step: Any, state: Any, first: int, last: int) -> tuple[Any, Any]:
  metrics = {}
  some = TASK.batches(first)
  for _, batch in zip(range(last - first), some, strict=False):
    state, metrics = step(state, batch, jax.random.key(1))
  return state, jax.device_get(metrics)


def test_padding_costs_nothing_and_each_network_its_own(begun):
  _, state = begun
  batch = arithmetic.pairs(np.array([99, 0, 50]), 1)
  loss = jax.jit(functools.partial(seq2seq.loss, nets))
  total, (_, metrics) = loss(state.params, {}, jax.random.key(0), batch)
  for name, net in nets.items():
    weights: Any = state.params[name]
    encode, decode = jax.jit(net.encode), jax.jit(net.decoder.apply_from)
    costs = []
    for source, length, target in zip(*batch, strict=True):
      memory = encode(weights, source[None, :length], np.array([length]))
      end = list(target).index(pairs.STOP)
      logits, _ = decode(weights.decoder, None, memory, target[None, :end])
      log_p = special.log_softmax(logits[0], axis=-1)
      costs += [-log_p[t, target[t + 1]] for t in range(end)]
    found = metrics[f'loss of {name}']
    np.testing.assert_allclose(found, np.mean(costs), rtol=1e-4)
  np.testing.assert_allclose(total, sum(metrics.values()), rtol=1e-6)


def test_it_learns_and_resumes_bit_for_bit(begun):
  step, state = begun
  _, first = run(step, state, 0, 1)
  half, _ = run(step, state, 0, 10)
  whole, last = run(step, half, 10, 20)
  assert last['loss'] < first['loss'] - 0.15
  copied = jax.tree.map(np.asarray, half)
  resumed, _ = run(step, copied, 10, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_answers_are_judged_character_by_character():
  score = seq2seq.share_right(['12', '1', '21', '3'], ['12', '12', '12', '3'])
  assert score.value == 0.5
  assert score.interval == pytest.approx((0.01, 0.99))


def test_answers_are_those_of_each_source_alone(begun, monkeypatch):
  _, state = begun
  net, weights = nets['attention'], state.params['attention']
  some = pairs.pick(TASK.test[0], slice(5))
  monkeypatch.setattr(seq2seq, '_AT_ONCE', 3)
  for beams in (1, 2):
    found = seq2seq.answer(net, weights, some.source, some.lengths, 4, beams)
    assert found.shape == (5, 4)
    for i in range(5):
      (alone,) = seq2seq.answer(
        net, weights, some.source[i:][:1], some.lengths[i:][:1], 4, beams
      )
      np.testing.assert_array_equal(found[i], alone)


def test_translations_are_judged_by_bleu():
  lines = ['a man is on a red bike', 'the dog barks at a small cat']
  assert seq2seq.bleu_score(lines, lines).value == pytest.approx(100)
  score = seq2seq.bleu_score(lines, [lines[0], 'the dog sees a small cat'])
  low, high = score.interval
  assert low < score.value < high == pytest.approx(100)


@pytest.fixture
def folder(tmp_path):
  """Four words that change places."""
  words = {'ein': 'a', 'Hund': 'dog', 'Kind': 'child', 'rot': 'red'}
  draw = np.random.default_rng(0)
  for name, count in (('train', 60), ('val', 10)):
    some = [draw.choice(list(words), 3).tolist() for _ in range(count)]
    source = [' '.join(line) for line in some]
    target = [' '.join(words[w] for w in line[::-1]) for line in some]
    (tmp_path / f'{name}.de').write_text('\n'.join(source))
    (tmp_path / f'{name}.en').write_text('\n'.join(target))
  return tmp_path


@pytest.mark.slow
def test_a_folder_of_lines_is_a_task(folder):
  config = dataclasses.replace(
    TINY,
    task=str(folder),
    vocabulary=40,
    longest=12,
    num_steps=2,
    dropout=0.2,
    beams=2,
  )
  task = seq2seq.make_task(config)
  some, wanted = task.test
  assert list(wanted) == (folder / 'val.en').read_text().splitlines()
  assert [task.read(row[1:]) for row in some.target] == list(wanted)
  assert next(task.batches(0)).source.shape[0] == 16
  # Word by word all is right but the order.
  for found, line in zip(task.trivial['word by word'], wanted, strict=True):
    assert found.split() == line.split()[::-1]
  workdir = str(folder / 'run')
  metrics = seq2seq.train(config, workdir=workdir)
  assert {'score_attention', 'score_one vector', 'score_copied'} <= {*metrics}
  assert len(metrics['examples']) == 15
  summary = training.report.finished(workdir, config)
  assert summary is not None
  assert summary['claims'][-1]['bar'] == 5.0


@pytest.mark.slow
def test_sums_of_one_digit_are_learned(tmp_path):
  config = dataclasses.replace(
    seq2seq.PRESETS['smoke'], units=32, num_steps=1500, num_held_out=10
  )
  metrics = seq2seq.train(config, workdir=str(tmp_path))
  assert metrics['score_attention'] >= 0.8
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert (tmp_path / 'figures' / 'seq2seq.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'digits': 5}, 'sums of 5 digits'),
    ({'num_held_out': 10**6}, 'problems held out'),
    ({'units': 0}, r'config.units=0; at least 1'),
    ({'dropout': 2.0}, 'config.dropout=2.0; 0 to 1'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(seq2seq.Config(), **changes)
