"""Sequence to sequence: losses by hand, resumption, and that it learns."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.data import arithmetic
from dl_lectures.systems import seq2seq

TINY = dataclasses.replace(
  seq2seq.PRESETS['smoke'], units=8, batch_size=16, num_steps=20
)
nets = seq2seq.networks(TINY)


@pytest.fixture(scope='module')
def begun() -> Any:
  step = jax.jit(seq2seq.make_step(TINY, nets))
  return step, seq2seq.init(TINY, nets, jax.random.key(0))


def run(step: Any, state: Any, first: int, last: int) -> tuple[Any, Any]:
  metrics = {}
  some = seq2seq.batches(TINY, first)
  for _, batch in zip(range(last - first), some, strict=False):
    state, metrics = step(state, batch, jax.random.key(1))
  return state, jax.device_get(metrics)


def test_padding_costs_nothing_and_each_network_its_own(begun):
  _, state = begun
  batch = arithmetic.pairs(np.array([99, 0, 50]), 1)
  total, (_, metrics) = seq2seq.loss(
    nets, state.params, {}, jax.random.key(0), batch
  )
  for name, net in nets.items():
    weights: Any = state.params[name]
    costs = []
    for source, length, target in zip(*batch, strict=True):
      memory = net.encode(weights, source[None, :length], np.array([length]))
      end = list(target).index(arithmetic.STOP)
      logits, _ = net.decoder.apply_from(
        weights.decoder, None, memory, target[None, :end]
      )
      log_p = jax.nn.log_softmax(logits[0])
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


def test_answers_are_judged_character_by_character(begun, monkeypatch):
  _, state = begun
  problems = arithmetic.pairs(np.arange(40), 1)
  wanted = problems.target[:, 1:]

  def almost(net, weights, part):
    tokens = part.target[:, 1:].copy()
    tokens[::2, 0] = 3 + (tokens[::2, 0] - 2) % 10
    return tokens

  monkeypatch.setattr(seq2seq, 'answer', almost)
  found = seq2seq.right(nets['attention'], state.params, problems)
  assert found.shape == (len(wanted),)
  assert found.tolist() == [False, True] * 20


@pytest.mark.slow
def test_sums_of_one_digit_are_learned(tmp_path):
  config = dataclasses.replace(
    seq2seq.PRESETS['smoke'], units=32, num_steps=1500, num_held_out=10
  )
  metrics = seq2seq.train(config, workdir=str(tmp_path))
  assert metrics['right_attention'] >= 0.8
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert (tmp_path / 'figures' / 'seq2seq.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'digits': 5}, 'sums of 5 digits'),
    ({'num_held_out': 10**6}, 'problems held out'),
    ({'units': 0}, r'config.units=0; at least 1'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(seq2seq.Config(), **changes)
