"""WaveNet: baselines by hand, what it sees, resumption, devices, writing."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.data import audio, text
from dl_lectures.systems import wavenet

TINY = dataclasses.replace(
  wavenet.PRESETS['smoke'], doublings=2, num_steps=40, learning_rate=0.02
)
NET = wavenet.network(TINY)
SOUND = audio.load(rate=TINY.rate, seconds=TINY.seconds)


@pytest.fixture(scope='module')
def begun() -> Any:
  step = jax.jit(wavenet.make_step(TINY, NET))
  init = jax.jit(lambda key: wavenet.init(TINY, NET, key))
  return step, init(jax.random.key(0))


def run(step: Any, state: Any, first: int, last: int) -> tuple[Any, Any]:
  metrics = {}
  some = wavenet.batches(TINY, SOUND, first)
  for _, batch in zip(range(last - first), some, strict=False):
    state, metrics = step(state, batch, jax.random.key(1))
  return state, jax.device_get(metrics)


def test_it_learns_and_resumes_bit_for_bit(begun):
  step, state = begun
  half, _ = run(step, state, 0, 20)
  whole, last = run(step, half, 20, 40)
  assert last['loss'] < np.log(256) - 0.08
  resumed, _ = run(step, jax.tree.map(np.asarray, half), 20, 40)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_the_loss_is_that_of_each_sample_given_those_before(begun):
  _, state = begun
  weights = state.params, {}
  piece = jnp.asarray(SOUND.train[None, :6])
  found, _ = wavenet.loss(NET, state.params, {}, jax.random.key(0), piece)
  # Row t knows the first t + 1 alone.
  rows = np.tril(np.ones((5, 5), int)) * piece[:, :5]
  log_p = jax.nn.log_softmax(jax.jit(NET.apply)(weights, None, rows))
  costs = [-log_p[t, t, piece[0, t + 1]] for t in range(5)]
  np.testing.assert_allclose(found, np.mean(costs), rtol=1e-5)


def test_the_reach_is_the_receptive_field(begun):
  _, state = begun
  params = jax.tree.map(lambda x: 3 * x + 0.1, state.params)
  assert NET.receptive_field == 4
  assert wavenet.reach(NET, (params, {}), SOUND.test) == 4
  # What sees less is found out.
  blind = NET._replace(
    apply=lambda weights, key, x: NET.apply(weights, key, x[:, -2:])
  )
  assert wavenet.reach(blind, (params, {}), SOUND.test) == 2


def test_what_is_written_is_as_likely_as_it_is_said_to_be(begun):
  step, state = begun
  state, _ = run(step, state, 0, 5)
  written = wavenet.write_on(
    TINY, NET, (state.params, {}), SOUND.test, jax.random.key(3)
  )
  size = len(SOUND.test) // 2
  assert written.given.shape == (2, size // 3)
  assert written.new.shape == written.true.shape == (2, size - size // 3)
  pieces = np.concatenate([written.given, written.true], axis=1)
  np.testing.assert_array_equal(pieces.ravel(), SOUND.test[: 2 * size])
  assert not np.array_equal(written.new, written.true)
  assert written.new.min() >= 0
  assert written.new.max() < 256
  assert written.difference < 1e-4


def test_linear_prediction_by_hand():
  draw = np.random.default_rng(0)
  # x_t = .9 x_{t-1} and noise, in levels.
  x = np.zeros(4000)
  for t in range(1, len(x)):
    x[t] = 0.9 * x[t - 1] + 0.05 * draw.normal()
  levels = audio.encode(x)
  found = wavenet.fit_prediction(levels, 1)
  signal = audio.decode(levels).astype(float)
  slope = np.dot(signal[1:], signal[:-1]) / np.dot(signal[:-1], signal[:-1])
  np.testing.assert_allclose(found.taps, [slope], rtol=1e-4)
  # Nats of the first ones, one by one.
  total = 0.0
  for t in range(1, 5):
    centre = audio.encode(np.float32(slope) * signal[t - 1 : t])[0]
    shares = found.share[255 - centre : 511 - centre]
    total -= np.log(shares[levels[t]] / shares.sum())
  nats = wavenet.prediction_nats(found, levels[:5])
  np.testing.assert_allclose(nats, total / 4, rtol=1e-5)


def test_a_pure_tone_is_predicted_from_two():
  tone = audio.encode(0.9 * np.sin(0.3 * np.arange(3000)))
  two, one = (
    wavenet.prediction_nats(wavenet.fit_prediction(tone, n), tone)
    for n in (2, 1)
  )
  assert two < one - 0.5
  # What is left is the rounding to levels.
  assert two < 3


def test_baselines_are_of_the_test_part():
  draw = np.random.default_rng(0)
  # Noise of four levels, and in the test part of one of them alone.
  train, valid = (
    100 + draw.integers(0, 4, 20_000),
    100 + draw.integers(0, 4, 99),
  )
  sound = text.Corpus('noise', train, valid, np.full(99, 101), text.BYTES)
  found = wavenet.baselines(sound)
  assert len(found) == 4
  np.testing.assert_allclose(found['uniform'], np.log(256))
  for name, nats in found.items():
    if name != 'uniform':
      np.testing.assert_allclose(nats, np.log(4), atol=0.2, err_msg=name)


def test_the_paper_s_network():
  paper = wavenet.network(wavenet.PRESETS['paper'])
  assert paper.receptive_field == 1 + 3 * 1023
  shapes, _ = jax.eval_shape(
    paper.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32)
  )
  # 30 layers: two taps to twice the width, skip and residual products; the
  # last of these has no reader.
  residual = 128 * 128 + 128
  layer = 2 * 128 * 256 + 256 + 128 * 256 + 256 + residual
  ends = 256 * 128 + (256 * 256 + 256) * 2
  count = sum(x.size for x in jax.tree.leaves(shapes))
  assert count == 30 * layer - residual + ends == 3_607_680


@pytest.mark.slow
def test_a_run_leaves_sounds_and_a_report(tmp_path):
  config = wavenet.PRESETS['smoke']
  metrics = wavenet.train(config, workdir=str(tmp_path))
  assert metrics['receptive_field'] == 32
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert len({claim['name'] for claim in summary['claims']}) == 6
  assert (tmp_path / 'figures' / 'wavenet.png').exists()
  for name in ('held_out_1', 'held_out_2', 'written_1', 'written_2'):
    path = tmp_path / 'samples' / f'{name}.wav'
    assert len(audio.read_wav(path, config.rate)) == 200


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'rate': 100}, r'config.rate=100; at least 2000'),
    ({'doublings': 0}, r'config.doublings=0; at least 1'),
    ({'temperature': 0.0}, r'config.temperature=0.0; more than 0'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(wavenet.Config(), **changes)


def test_a_sound_that_is_too_short_is_refused():
  config = dataclasses.replace(TINY, seconds=0.5)
  with pytest.raises(types.UsageError, match='a text of 50 tokens for pieces'):
    wavenet.train(config, workdir=None)
