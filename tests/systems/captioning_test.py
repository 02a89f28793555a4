"""Captioning: judged word by word, IoU by hand, resumption, devices."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
from scipy import special

from dl_lectures import training, types
from dl_lectures.data import scenes
from dl_lectures.systems import captioning

TINY = dataclasses.replace(
  captioning.PRESETS['smoke'], num_steps=20, learning_rate=0.01
)
NETS = captioning.networks(TINY)
SCENES = scenes.draw(np.arange(6) * 100, np.random.default_rng(0))


@pytest.fixture(scope='module')
def begun() -> Any:
  step = jax.jit(captioning.make_step(TINY, NETS))
  init = jax.jit(lambda key: captioning.init(TINY, NETS, key))
  return step, init(jax.random.key(0))


def run(step: Any, state: Any, first: int, last: int) -> tuple[Any, Any]:
  metrics = {}
  some = captioning.batches(TINY, first)
  for _, batch in zip(range(last - first), some, strict=False):
    state, metrics = step(state, batch, jax.random.key(1))
  return state, jax.device_get(metrics)


def test_it_learns_and_resumes_bit_for_bit(begun):
  step, state = begun
  _, first = run(step, state, 0, 1)
  half, _ = run(step, state, 0, 10)
  whole, last = run(step, half, 10, 20)
  assert last['loss'] < first['loss'] - 0.1
  resumed, _ = run(step, jax.tree.map(np.asarray, half), 10, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_padding_costs_nothing_and_each_network_its_own(begun):
  _, state = begun
  config = dataclasses.replace(TINY, word_dropout=0.0)
  loss = jax.jit(functools.partial(captioning.loss, config, NETS))
  total, (_, metrics) = loss(state.params, {}, jax.random.key(0), SCENES)
  for name, net in NETS.items():
    weights: Any = state.params[name]
    encode, decode = jax.jit(net.encode), jax.jit(net.decoder.apply_from)
    costs = []
    for image, caption in zip(SCENES.image, SCENES.caption, strict=True):
      memory = encode(weights, image[None])
      end = list(caption).index(scenes.STOP)
      logits, _ = decode(weights.decoder, None, memory, caption[None, :end])
      log_p = special.log_softmax(logits[0], axis=-1)
      costs += [-log_p[t, caption[t + 1]] for t in range(end)]
    found = metrics[f'loss of {name}']
    np.testing.assert_allclose(found, np.mean(costs), rtol=1e-4)
  np.testing.assert_allclose(total, sum(metrics.values()), rtol=1e-6)


def test_words_that_are_dropped_are_not_read(begun):
  _, state = begun
  config = dataclasses.replace(TINY, word_dropout=1.0)
  # The image alone decides.
  nothing = np.full_like(SCENES.caption[:, :-1], scenes.PAD)
  memory = NETS['attention'].encode(state.params['attention'], SCENES.image)
  logits, _ = NETS['attention'].decoder.apply_from(
    state.params['attention'].decoder, None, memory, nothing
  )
  log_p = jax.nn.log_softmax(logits)
  wanted = SCENES.caption[:, 1:]
  costs = -np.take_along_axis(np.asarray(log_p), wanted[..., None], 2)[..., 0]
  _, (_, metrics) = captioning.loss(
    config, NETS, state.params, {}, jax.random.key(0), SCENES
  )
  np.testing.assert_allclose(
    metrics['loss of attention'], costs[wanted != scenes.PAD].mean(), rtol=1e-4
  )


def test_only_seen_captions_are_learned_from():
  seen = {scenes.caption(number) for number in scenes.split().seen}
  some = captioning.batches(TINY, 0)
  for _, batch in zip(range(20), some, strict=False):
    assert {scenes.decode(x[1:]) for x in batch.caption} <= seen
  for part in captioning.HELD_OUT:
    batch = captioning.held_out(part)
    assert not {scenes.decode(x[1:]) for x in batch.caption} & seen
    again = captioning.held_out(part)
    np.testing.assert_array_equal(batch.image, again.image)


def test_captions_are_the_likeliest_words(begun, monkeypatch):
  step, state = begun
  state, _ = run(step, state, 0, 5)
  monkeypatch.setattr(captioning, '_AT_ONCE', 4)
  net, weights = NETS['attention'], state.params['attention']
  found = captioning.describe(net, weights, SCENES.image)
  assert len(found) == 6
  for image, said in zip(SCENES.image, found, strict=True):
    tokens = [scenes.START]
    memory = net.encode(weights, image[None])
    while len(tokens) < scenes.MAX_WORDS + 2 and tokens[-1] != scenes.STOP:
      logits, _ = net.decoder.apply_from(
        weights.decoder, None, memory, np.array([tokens])
      )
      tokens.append(int(logits[0, -1].argmax()))
    assert said == scenes.decode(np.array(tokens[1:]))


def test_overlap_by_hand():
  maps = np.zeros((3, 4, 4))
  maps[:, 1:3, 1:3] = 1
  mask = np.zeros((3, 4, 4), bool)
  mask[0, 1:3, 1:3] = mask[1, 1:3, 2:4] = mask[2, 0, :] = True
  np.testing.assert_allclose(captioning.overlap(maps, mask), [1, 2 / 6, 0])


def test_looks_are_compared_with_the_object_that_is_named():
  numbers = np.array([0, 40, 2000])  # of five and of six words
  batch = scenes.draw(numbers, np.random.default_rng(0))
  assert {int(np.sum(c > scenes.STOP)) for c in batch.caption} == {5, 6}
  maps = np.zeros((3, scenes.MAX_WORDS + 1, scenes.SIDE, scenes.SIDE))
  for i, caption in enumerate(batch.caption):
    words = int(np.sum(caption > scenes.STOP))
    maps[i, :2] = batch.mask[i, 0]
    maps[i, words - 2 : words] = batch.mask[i, 1]
  looks = captioning.judge_looks(maps, batch)
  np.testing.assert_array_equal(looks.iou, 1)
  assert looks.chance.mean() < 0.5
  # The other way round nothing is covered.
  swapped = captioning.judge_looks(
    maps, batch._replace(mask=batch.mask[:, ::-1])
  )
  assert swapped.iou.max() < 0.2


def test_maps_are_enlarged_in_place(begun):
  _, state = begun
  net = NETS['attention']
  places = scenes.SIDE // 4
  maps = np.zeros((1, 1, places, places))
  maps[0, 0, 1, 6] = 1
  found = np.asarray(captioning._enlarge(maps.reshape(1, 1, -1)))[0, 0]
  row, column = np.unravel_index(found.argmax(), found.shape)
  assert 4 <= row < 8
  assert 24 <= column < 28
  looks = captioning.look_at(net, state.params['attention'], SCENES)
  assert looks.shape == (6, scenes.MAX_WORDS + 1, scenes.SIDE, scenes.SIDE)
  np.testing.assert_allclose(looks.sum((2, 3)), 16, rtol=0.2)


@pytest.mark.slow
def test_a_run_reports(tmp_path):
  config = dataclasses.replace(TINY, num_steps=60)
  metrics = captioning.train(config, workdir=str(tmp_path))
  assert 0 <= metrics['iou, new object'] <= 1
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert len({claim['name'] for claim in summary['claims']}) == 6
  assert (tmp_path / 'figures' / 'captioning.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'units': 0}, r'config.units=0; at least 1'),
    ({'word_dropout': 2.0}, r'config.word_dropout=2.0; 0 to 1'),
    ({'blocks': -1}, r'config.blocks=-1; at least 0'),
    ({'clip': 0.0}, r'config.clip=0.0; more than 0'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(captioning.Config(), **changes)
