"""Classifiers: LeNet-5 counted, losses by hand, early stopping, resumption."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.systems import classifier
from dl_lectures.systems.classifier import Batch, Config, Data


def make_data(shape: tuple[int, ...], held_out: int = 0) -> Data:
  """Two classes of random images, one of them lighter."""
  draw = np.random.default_rng(0)
  label = np.arange(48, dtype=np.int32) % 2
  x = draw.integers(0, 150, (48, *shape)) + 60 * label.reshape(
    -1, *(1 for _ in shape)
  )
  x = x.astype(np.uint8)
  kept, train, test = (
    Batch(x[part], label[part])
    for part in (slice(held_out), slice(held_out, 32), slice(32, None))
  )
  return Data('noise', train, kept, test, 2, float(x.mean()), float(x.std()))


TINY = Config(
  hidden=(4,),
  batch_size=8,
  num_epochs=5,
  learning_rate=0.01,
  dropout=0.3,
  input_noise=0.1,
  norm='batch',
  held_out=0.25,
)
DATA = make_data((3, 3, 1), held_out=8)
NET = classifier.network(TINY, DATA)


@pytest.fixture(scope='module')
def begun() -> Any:
  step = jax.jit(classifier.make_step(TINY, DATA, NET))
  init = jax.jit(functools.partial(classifier.init, TINY, DATA, NET))
  return step, init(jax.random.key(0))


def run(step: Any, state: Any, first: int, last: int) -> tuple[Any, Any]:
  metrics = {}
  some = classifier.batches(TINY, DATA, first)
  for _, batch in zip(range(last - first), some, strict=False):
    state, metrics = step(state, batch, jax.random.key(1))
  return state, jax.device_get(metrics)


def test_it_resumes_bit_for_bit(begun):
  step, state = begun
  half, _ = run(step, state, 0, 10)
  whole, _ = run(step, half, 10, 20)
  at_once, _ = run(step, state, 0, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, at_once)
  resumed, _ = run(step, jax.tree.map(np.asarray, half), 10, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_an_epoch_has_every_example_once():
  some = classifier.batches(TINY, DATA, 0)
  epochs = [[next(some).x for _ in range(3)] for _ in range(2)]
  wanted = np.sort(DATA.train.x.reshape(24, -1), axis=0)
  for epoch in epochs:
    found = np.sort(np.concatenate(epoch).reshape(24, -1), axis=0)
    np.testing.assert_array_equal(found, wanted)
  assert not np.array_equal(epochs[0][0], epochs[1][0])
  later = next(classifier.batches(TINY, DATA, 4))
  np.testing.assert_array_equal(later.x, epochs[1][1])


def test_early_stopping_keeps_the_best_and_waits(begun):
  step, state = begun
  judge = jax.jit(functools.partial(classifier.judge, NET))
  best, waited = np.inf, 0
  some = classifier.batches(TINY, DATA, 0)
  for number in range(1, 40):
    before = state
    stopped = waited >= TINY.patience
    state, metrics = step(state, next(some), jax.random.key(1))
    assert metrics['stopped'] == stopped
    if stopped:
      jax.tree.map(
        np.testing.assert_array_equal,
        (state.learner.params, state.kept),
        (before.learner.params, before.kept),
      )
      break
    if number % 3 == 0:
      found = state.learner.params, state.learner.net_state
      now = judge(found, DATA.held_out)[0]
      waited = 0 if now < best else waited + 1
      if now < best:
        best = now
        jax.tree.map(np.testing.assert_array_equal, state.kept, found)
      if number == 9:
        # As if three epochs had been in vain.
        state = state._replace(kept_loss=jnp.float32(-1), waited=jnp.int32(3))
        best, waited = -1, 3
    assert state.learner.step == number
    assert state.waited == waited
  else:
    pytest.fail('it never stopped')
  assert classifier.chosen(state) is state.kept


def test_the_loss_by_hand():
  config = dataclasses.replace(
    TINY,
    norm='none',
    dropout=0.0,
    input_noise=0.0,
    penalty=0.1,
    power=3.0,
    activation='tanh',
  )
  net = classifier.network(config, DATA)

  @jax.jit
  def begin(batch):
    params, net_state = net.init(jax.random.key(0), batch.x, True)
    return params, classifier.loss(
      config, net, params, net_state, jax.random.key(1), batch
    )

  params, (found, (_, metrics)) = begin(DATA.train)
  x = (DATA.train.x.reshape(24, 9) - DATA.mean) / DATA.deviation
  (w1, b1), (w2, b2) = (
    (np.asarray(params[name]['w']), np.asarray(params[name]['b']))
    for name in ('linear', 'linear_1')
  )
  logits = np.tanh(x @ w1 + b1[None]) @ w2 + b2[None]
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  wanted = -np.log(p[np.arange(24), DATA.train.label]).mean()
  wanted += 0.1 * sum((np.abs(w) ** 3).sum() for w in (w1, w2))
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  right = logits.argmax(axis=1) == DATA.train.label
  np.testing.assert_allclose(metrics['accuracy'], right.mean(), rtol=1e-6)


def test_noise_and_dropout_are_for_learning_only(begun):
  _, state = begun
  found = state.learner.params, state.learner.net_state
  judge = jax.jit(functools.partial(NET.apply, *found), static_argnums=2)
  x = DATA.test.x
  draws = [judge(jax.random.key(k), x, True)[0] for k in (0, 1)]
  assert np.abs(draws[0] - draws[1]).max() > 0.01
  # Without a key nothing can be drawn.
  assert judge(None, x, False)[0].shape == (16, 2)


def test_lenet_has_the_published_number_of_weights():
  config = Config(model='lenet', connection_table=True)
  data = make_data((28, 28, 1))._replace(num_classes=10)
  net = classifier.network(config, data)
  params, _ = jax.eval_shape(
    functools.partial(net.init, learns=True), jax.random.key(0), data.train.x
  )
  counts = {
    name.split('/')[0]: sum(leaf.size for leaf in layer.values())
    for name, layer in params.items()
  }
  # Of C3 the table leaves 60 of 96 pairs of maps.
  counts['c3'] -= 25 * (96 - int(classifier.connection_table().sum()))
  assert counts == {
    'c1': 156,
    's2': 12,
    'c3': 1516,
    's4': 32,
    'c5': 48_120,
    'f6': 10_164,
    'output': 850,
  }
  # As published, whose output layer is fixed.
  assert sum(counts.values()) - 850 == 60_000


def test_a_map_sees_what_the_table_says():
  table = classifier.connection_table()
  assert np.flatnonzero(table[:, 0]).tolist() == [0, 1, 2]
  assert np.flatnonzero(table[:, 5]).tolist() == [0, 1, 5]
  assert np.flatnonzero(table[:, 6]).tolist() == [0, 1, 2, 3]
  assert np.flatnonzero(table[:, 12]).tolist() == [0, 1, 3, 4]
  assert np.flatnonzero(table[:, 14]).tolist() == [0, 2, 3, 5]
  assert table[:, 15].all()
  assert len({tuple(column) for column in table.T}) == 16

  def forward(x):
    return classifier._Maps(16, table, name='c3')(x)

  net = classifier.hk.without_apply_rng(classifier.hk.transform(forward))

  @jax.jit
  def slopes_at(x):
    params = net.init(jax.random.key(0), x)
    return jax.jacobian(lambda x: net.apply(params, x)[0, 0, 0])(x)

  slopes = slopes_at(jnp.ones((1, 5, 5, 6)))
  seen = np.abs(np.asarray(slopes)[:, 0]).sum(axis=(1, 2)) > 0
  np.testing.assert_array_equal(seen.T, table)


def test_lenet_pads_with_the_background():
  config = Config(model='lenet')
  data = make_data((28, 28, 1))
  net = classifier.network(config, data)
  x = data.train.x[:2]
  padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=x.min())

  @jax.jit
  def both(x, padded):
    found = net.init(jax.random.key(0), x, False)
    return [net.apply(*found, None, y, False)[0] for y in (x, padded)]

  small, large = both(x, padded)
  assert np.abs(small).max() > 0.1
  np.testing.assert_allclose(small, large, atol=1e-5)


def test_baselines_by_hand():
  x = np.array([[0.0, 0], [0, 2], [4, 0], [4, 2], [5, 1]], np.float32)
  train = Batch(x, np.array([0, 0, 1, 1, 1], np.int32))
  # Means (0, 1) and (13 / 3, 1).
  test = Batch(x[:4] + 1, np.array([0, 1, 1, 1], np.int32))
  data = Data('four', train, train, test, 2, 0.0, 1.0)
  assert classifier.baselines(data) == {
    'most frequent class': 0.75,
    'nearest class mean': 0.75,
  }


def test_examples_held_out_are_not_learned_from():
  data = classifier.load(Config(data='xor', held_out=0.2))
  sizes = [len(part.label) for part in (data.train, data.held_out, data.test)]
  assert sizes == [400, 100, 500]
  every = np.concatenate([data.train.x, data.held_out.x, data.test.x])
  assert len(np.unique(every, axis=0)) == 1000
  assert 0.4 < data.held_out.label.mean() < 0.6


def test_digits_are_split_by_the_seed_or_by_their_writers():
  drawn = [classifier.load(Config(seed=seed)) for seed in (0, 0, 1)]
  writers = classifier.load(Config(seed=1, other_writers=True))
  assert [len(data.test.label) for data in (*drawn, writers)] == [359] * 4
  np.testing.assert_array_equal(drawn[0].test.x, drawn[1].test.x)
  assert not np.array_equal(drawn[0].test.label, drawn[2].test.label)
  known = classifier.images.load('digits')
  np.testing.assert_array_equal(writers.test.x, known.test)
  for data in (*drawn, writers):
    total = sum(int(part.x.sum()) for part in (data.train, data.test))
    assert total == int(known.train.sum()) + int(known.test.sum())


def test_images_are_moved_whole():
  x = np.zeros((50, 5, 5, 1), np.uint8)
  x[:, 2, 1] = 9
  found = classifier.moved(x, 1, np.random.default_rng(0))
  _, rows, columns, _ = np.nonzero(found)
  assert found.sum() == x.sum()
  assert {*rows} == {1, 2, 3}
  assert {*columns} == {0, 1, 2}
  config = dataclasses.replace(TINY, shift=1)
  first, again = (next(classifier.batches(config, DATA, 4)) for _ in range(2))
  np.testing.assert_array_equal(first.x, again.x)
  still = next(classifier.batches(TINY, DATA, 4))
  assert not np.array_equal(first.x, still.x)
  np.testing.assert_array_equal(first.label, still.label)


def test_predictions_do_not_depend_on_how_many_there_are(begun, monkeypatch):
  _, state = begun
  monkeypatch.setattr(classifier, '_AT_ONCE', 5)
  p = classifier.predict(NET, classifier.chosen(state), DATA.test.x)
  assert p.shape == (16, 2)
  np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
  logits, _ = NET.apply(*classifier.chosen(state), None, DATA.test.x, False)
  np.testing.assert_allclose(p, jax.nn.softmax(logits), atol=1e-5)


def test_both_pictures_are_drawn(begun):
  _, state = begun
  found = classifier.chosen(state)
  p = classifier.predict(NET, found, DATA.test.x)
  records = [{'step': 1, 'train_loss': 1.0}, {'step': 2, 'train_loss': 0.5}]
  page = classifier.draw(TINY, DATA, NET, found, records, p)
  assert isinstance(page, Figure)
  config = Config(data='circle', model='softmax')
  data = classifier.load(config)
  net = classifier.network(config, data)
  weights: Any = {'linear': {'w': np.ones((2, 2)), 'b': np.zeros(2)}}, {}
  p = classifier.predict(net, weights, data.test.x)
  page = classifier.draw(config, data, net, weights, [], p)
  assert isinstance(page, Figure)


@pytest.mark.slow
@pytest.mark.parametrize('preset', classifier.PRESETS)
def test_every_preset_takes_a_step(preset):
  # Few examples for few updates; a preset's own are tens of thousands.
  config = dataclasses.replace(classifier.PRESETS[preset], batch_size=4)
  data = make_data((28, 28, 1))._replace(num_classes=10)
  if config.data in classifier.planar.SETS:
    data = classifier.load(config)
  net = classifier.network(config, data)
  state = classifier.init(config, data, net, jax.random.key(0))
  few = Batch(data.train.x[:4], data.train.label[:4])
  step = classifier.make_step(config, data, net)
  _, metrics = step(state, few, jax.random.key(1))
  assert np.isfinite(metrics['loss'])


@pytest.mark.slow
def test_a_run_reports(tmp_path):
  config = dataclasses.replace(
    classifier.PRESETS['spiral'], held_out=0.1, patience=100
  )
  metrics = classifier.train(config, workdir=str(tmp_path))
  assert metrics['test_accuracy'] > 0.9 > metrics['nearest class mean']
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert len({claim['name'] for claim in summary['claims']}) == 2
  assert (tmp_path / 'figures' / 'classifier.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model': 'alexnet'}, "config.model='alexnet'; possible: softmax, mlp"),
    ({'activation': 'gelu'}, "config.activation='gelu'; possible: relu"),
    ({'norm': 'group'}, "config.norm='group'; possible: none, batch, layer"),
    ({'dropout': 1.0}, r'config.dropout=1.0; 0 to 0.9'),
    ({'power': 0.5}, r'config.power=0.5; at least 1'),
    ({'hidden': (3, 0)}, r'config.hidden=\(3, 0\); widths of at least 1'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    Config(**changes)


def test_what_is_refused_of_the_data():
  with pytest.raises(types.UsageError, match=r"'moons' are unknown.*spiral"):
    classifier.load(Config(data='moons'))
  with pytest.raises(types.UsageError, match='xor has 500 examples'):
    classifier.load(Config(data='xor', batch_size=501))
  with pytest.raises(types.UsageError, match=r'config.shift=1 of points'):
    classifier.load(Config(data='xor', shift=1))
  with pytest.raises(types.UsageError, match=r'other_writers=true of mnist'):
    classifier.load(Config(data='mnist', other_writers=True))
  config = Config(model='lenet')
  net = classifier.network(config, DATA)
  with pytest.raises(types.UsageError, match=r'lenet for images of 3 x 3'):
    net.init(jax.random.key(0), DATA.train.x, True)
