"""PixelRNN: a distribution over images, causal, and it learns."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.systems import pixel_rnn

TINY = dataclasses.replace(
  pixel_rnn.PRESETS['smoke'], batch_size=16, num_steps=20, learning_rate=0.02
)


def made(model: str, levels: int, shape: tuple[int, ...]) -> Any:
  config = dataclasses.replace(TINY, model=model, levels=levels)
  net = pixel_rnn.network(config, levels)
  params = jax.jit(net.init)(
    jax.random.key(0), jnp.zeros((1, *shape), jnp.int32)
  )
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [
    x + 0.5 * jax.random.normal(k, x.shape)
    for x, k in zip(leaves, keys, strict=True)
  ]
  return net, jax.tree.unflatten(tree, moved)


@pytest.mark.parametrize('model', pixel_rnn.MODELS)
def test_probabilities_of_all_images_sum_to_1(model):
  net, params = made(model, 2, (2, 2, 1))
  every = np.array(list(itertools.product(range(2), repeat=4)))
  image = jnp.asarray(every.reshape(-1, 2, 2, 1))
  log_p = jax.jit(lambda x: pixel_rnn.log_prob(net, params, x))(image)
  np.testing.assert_allclose(jnp.exp(log_p).sum(), 1, atol=1e-5)
  assert np.asarray(log_p).std() > 0.1


def test_probabilities_of_all_coloured_pixels_sum_to_1():
  net, params = made('pixel_cnn', 3, (1, 1, 3))
  every = np.array(list(itertools.product(range(3), repeat=3)))
  judge = jax.jit(lambda x: pixel_rnn.log_prob(net, params, x))
  log_p = judge(jnp.asarray(every.reshape(-1, 1, 1, 3)))
  np.testing.assert_allclose(jnp.exp(log_p).sum(), 1, atol=1e-5)


def test_drawn_images_are_as_frequent_as_their_probabilities():
  net, params = made('pixel_cnn', 2, (2, 2, 1))
  count = 4096
  drawn = jax.jit(
    lambda key: pixel_rnn.draw_images(net, params, (count, 2, 2, 1), key)
  )(jax.random.key(2))
  number = np.asarray(drawn).reshape(count, 4) @ [8, 4, 2, 1]
  every = np.array(list(itertools.product(range(2), repeat=4)))
  image = jnp.asarray(every.reshape(-1, 2, 2, 1))
  expected = count * np.exp(np.asarray(pixel_rnn.log_prob(net, params, image)))
  found = np.bincount(number, minlength=16)
  assert (np.abs(found - expected) < 5 * np.sqrt(expected) + 3).all()


def test_baselines_by_hand():
  train = np.array([[0, 0], [0, 0], [0, 1], [1, 1]])[:, None, :, None]
  test = np.array([[0, 1]])[:, None, :, None]
  # Of the first pixel 3 + 1 of 4 + 2 are 0, of the second 2 + 1 are 1.
  nats = pixel_rnn.independent(train, test, 2)
  np.testing.assert_allclose(nats, -np.log(4 / 6 * 3 / 6))
  many = np.repeat(train, 10, axis=0)
  nats, e = pixel_rnn.noisy_neighbours(many, test, 2)
  kept = [(1 - e) * e] * 20 + [(1 - e) ** 2] * 10 + [e * (1 - e)] * 10
  np.testing.assert_allclose(nats, -np.log(np.mean(kept)))


def test_it_learns_and_resumes_bit_for_bit():
  draw = np.random.default_rng(0)
  # Every row is one of two.
  image = np.repeat(draw.integers(0, 2, (64, 4, 1, 1)), 4, axis=2)
  net = pixel_rnn.network(TINY, 2)
  step = jax.jit(pixel_rnn.make_step(TINY, net))
  init = jax.jit(lambda key: pixel_rnn.init(TINY, net, (4, 4, 1), key))
  state = init(jax.random.key(0))

  def run(state, first, last):
    metrics: Any = {}
    some = pixel_rnn.batches(TINY, image, first)
    for _, batch in zip(range(last - first), some, strict=False):
      state, metrics = step(state, batch, jax.random.key(1))
    return state, jax.device_get(metrics)

  _, before = run(state, 0, 1)
  half, _ = run(state, 0, 10)
  whole, after = run(half, 10, 20)
  assert after['loss'] < before['loss'] - 0.5
  copied = jax.tree.map(np.asarray, half)
  resumed, _ = run(copied, 10, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  judged = pixel_rnn.evaluate(net, whole.params, image)
  assert judged.shape == (64,)
  log_p = pixel_rnn.log_prob(net, whole.params, jnp.asarray(image))
  np.testing.assert_allclose(judged, -log_p, rtol=1e-5)


@pytest.mark.slow
def test_a_run_reports(tmp_path):
  config = dataclasses.replace(
    TINY, channels=16, layers=2, num_steps=400, batch_size=32
  )
  metrics = pixel_rnn.train(config, workdir=str(tmp_path))
  assert metrics['nats'] < metrics['independent_nats']
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert len({claim['name'] for claim in summary['claims']}) == 2
  assert (tmp_path / 'figures' / 'pixel_rnn.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model': 'pixelcnn'}, r"config.model='pixelcnn'; possible: pixel_cnn"),
    ({'levels': 1}, r'config.levels=1; 2 to 256'),
    ({'sampled': True, 'levels': 3}, r'config.sampled with config.levels=3'),
    ({'layers': 0}, r'config.layers=0; at least 1'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(pixel_rnn.Config(), **changes)
