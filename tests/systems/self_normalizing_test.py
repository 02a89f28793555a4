"""Self-normalising networks: layers and steps by hand, resumption, claims."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.data import images
from dl_lectures.systems import self_normalizing
from dl_lectures.systems.self_normalizing import Judged, Net, Scores

TINY = dataclasses.replace(
  self_normalizing.PRESETS['smoke'],
  depths=(2,),
  width=8,
  num_steps=20,
  learning_rates=(0.1, 1e30),
)
DATA = self_normalizing.standardise(images.load(), 0)


@pytest.fixture(scope='module')
def begun() -> Any:
  state = jax.jit(lambda key: self_normalizing.init(TINY, 64, 10, key))(
    jax.random.key(0)
  )
  return jax.jit(self_normalizing.make_step(TINY, 10)), state


def run(step: Any, state: Any, first: int, last: int) -> tuple[Any, Any]:
  metrics = {}
  some = self_normalizing.batches(TINY, DATA.train, first)
  for _, batch in zip(range(last - first), some, strict=False):
    state, metrics = step(state, batch, jax.random.key(1))
  return state, jax.device_get(metrics)


def test_pixels_are_standardised_by_what_is_learned_from():
  assert (len(DATA.train.x), len(DATA.valid.x), len(DATA.test.x)) == (
    *(1295, 143),
    359,
  )
  mean, variance = DATA.train.x.mean(0), DATA.train.x.var(0)
  np.testing.assert_allclose(mean, 0, atol=1e-5)
  assert np.all(np.isclose(variance, 1, atol=1e-4) | (variance == 0))
  assert np.abs(DATA.test.x.mean(0)).max() > 1e-3
  # Another seed keeps other images apart.
  other = self_normalizing.standardise(images.load(), 1)
  assert np.any(other.valid.label != DATA.valid.label)


def test_it_learns_and_resumes_bit_for_bit(begun):
  step, state = begun
  _, first = run(step, state, 0, 1)
  half, _ = run(step, state, 0, 10)
  whole, last = run(step, half, 10, 20)
  for net in self_normalizing.networks(TINY):
    assert last[f'loss, {net}'][0] < first[f'loss, {net}'][0]
  resumed, _ = run(step, jax.tree.map(np.asarray, half), 10, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_step_that_is_not_finite_is_not_made(begun):
  step, state = begun
  after, metrics = run(step, state, 0, 20)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
  for net in self_normalizing.networks(TINY):
    losses = metrics[f'loss, {net}']
    assert losses.shape == (2,)
    assert losses.max() <= 10
  # With a rate of 1e30 the first step is finite, and what it leads to is not.
  assert metrics['loss, ReLU, 2 layers'][1] == 10


def test_a_step_of_softmax_regression_by_hand(begun):
  step, state = begun
  after, _ = run(step, state, 0, 1)
  batch = next(self_normalizing.batches(TINY, DATA.train, 0))
  before: Any = jax.tree.map(lambda x: np.float64(x[0]), state.params['linear'])
  (layer,) = before['last'].values()
  logits = batch.x @ layer['w'] + layer['b']
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  delta = (p - np.eye(10)[batch.label]) / len(batch.x)
  (found,) = after.params['linear']['last'].values()
  np.testing.assert_allclose(
    found['w'][0], layer['w'] - 0.1 * batch.x.T @ delta, rtol=1e-4, atol=1e-6
  )
  np.testing.assert_allclose(
    found['b'][0], layer['b'] - 0.1 * delta.sum(0), rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize('arm', self_normalizing.ARMS)
def test_layers_by_hand(arm):
  function = self_normalizing.network(Net(arm, 3), 8, 10)
  x = DATA.train.x[:32]
  weights = jax.jit(function.init)(x, jax.random.key(0))
  apply = jax.jit(function.apply, static_argnums=3)
  logits, moments, _ = apply(*weights, x, True)
  params: Any = jax.device_get(weights[0])
  layers = [params['first']] + [
    jax.tree.map(lambda x, i=i: x[i], params['hidden']) for i in range(2)
  ]
  y = x
  for layer, moment in zip(layers, moments, strict=True):
    (linear,) = (one for one in layer.values() if 'w' in one)
    y = y @ linear['w'] + linear['b']
    if arm in ('BatchNorm', 'LayerNorm'):
      axis = 0 if arm == 'BatchNorm' else 1
      mean, variance = (f(axis, keepdims=True) for f in (y.mean, y.var))
      y = (y - mean) / np.sqrt(variance + 1e-5)
    below = 1.7580993408473766 * np.expm1(np.minimum(y, 0))
    above = np.maximum(y, 0)
    y = 1.0507009873554805 * above + below if arm == 'SELU' else above
    np.testing.assert_allclose(moment, [y.mean(), y.var()], rtol=1e-3)
  (last,) = params['last'].values()
  np.testing.assert_allclose(
    logits, y @ last['w'] + last['b'], rtol=1e-3, atol=1e-4
  )


def test_parameters_of_the_paper_are_counted_by_hand():
  config = self_normalizing.PRESETS['paper']
  state = jax.eval_shape(
    lambda key: self_normalizing.init(config, 784, 10, key), jax.random.key(0)
  )
  params: Any = state.params
  square, out = 784 * 784 + 784, 784 * 10 + 10
  for depth in (8, 16, 32):
    for arm, extra in (('SELU', 0), ('ReLU', 0), ('LayerNorm', 2 * 784)):
      count = sum(x.size for x in jax.tree.leaves(params[str(Net(arm, depth))]))
      assert count == depth * (square + extra) + out
  assert sum(x.size for x in jax.tree.leaves(params['linear'])) == out


def test_scores_are_of_all_images_and_no_other(begun):
  _, state = begun
  net = Net('SELU', 2)
  function = self_normalizing.network(net, TINY.width, 10)
  weights = self_normalizing.weights_of(state, net)
  part = first_of(DATA.test, 7)
  (scores,) = self_normalizing.score(function, weights, part)
  one = jax.tree.map(lambda x: x[0], weights)
  logits, _, _ = jax.jit(function.apply, static_argnums=3)(*one, part.x, False)
  p = np.asarray(jax.nn.softmax(logits))
  loss = -np.log(p[np.arange(7), part.label]).mean()
  assert scores.loss[0] == pytest.approx(loss, rel=1e-4)
  assert scores.error[0] == np.float32(np.mean(p.argmax(1) != part.label))


def first_of(batch: Any, count: int) -> Any:
  return self_normalizing.Batch(*(x[:count] for x in batch))


def test_claims_say_where_selu_does_not_win():
  def judged(error: float, loss: float) -> Judged:
    scores = Scores(np.array([9.0, loss]), np.array([0.9, error]))
    return Judged(1, scores, scores, scores)

  config = dataclasses.replace(TINY, depths=(8, 16))
  found = {
    Net('linear', 0): judged(0.08, 0.3),
    Net('SELU', 8): judged(0.03, 0.1),
    Net('ReLU', 8): judged(0.02, 0.2),
    Net('BatchNorm', 8): judged(0.04, 0.2),
    Net('LayerNorm', 8): judged(0.05, 0.2),
    Net('SELU', 16): judged(0.02, 0.2),
    Net('ReLU', 16): judged(0.5, 0.1),
    Net('BatchNorm', 16): judged(0.03, 0.1),
    Net('LayerNorm', 16): judged(0.03, 0.1),
  }
  moments = {arm: np.ones((2, 16, 2)) for arm in self_normalizing.ARMS}
  claims = self_normalizing.make_claims(config, DATA, found, moments)
  verdicts = {
    claim.name.removeprefix('digits, '): (claim.value, claim.met)
    for claim in claims
    if claim.bar is not None
  }
  best, norm = 'test error of SELU less that of the best', 'training loss of'
  for depth, what, value, met in (
    (8, best, 0.01, False),
    (8, norm, -0.1, True),
    (16, best, -0.01, True),
    (16, norm, 0.1, False),
  ):
    ((found_value, found_met),) = (
      verdict
      for name, verdict in verdicts.items()
      if name.startswith(f'{depth} layers: {what}')
    )
    assert found_value == pytest.approx(value)
    assert found_met is met
  # Each arm at each depth is told, beside softmax regression.
  told = {claim.name for claim in claims if claim.baseline == 0.08}
  assert len(told) == 8


@pytest.mark.slow
def test_a_run_reports(tmp_path):
  config = dataclasses.replace(TINY, depths=(1, 3), learning_rates=(0.1,))
  metrics = self_normalizing.train(config, workdir=str(tmp_path))
  assert 0 <= metrics['test error, SELU, 3 layers'] <= 1
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert (tmp_path / 'figures' / 'self_normalizing.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'width': 0}, r'config.width=0; at least 1'),
    ({'depths': ()}, r'config.depths=; different values'),
    ({'depths': (0, 8)}, r'config.depths=0,8; different values of at least 1'),
    ({'learning_rates': (0.1, 0.1)}, r'config.learning_rates=0.1,0.1; diff'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(self_normalizing.Config(), **changes)
