"""Every check passes a sound network and catches a broken one."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dl_lectures.analysis import diagnose

STEPS = 150
LABEL = np.arange(16, dtype=np.int32) % 4
X = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)


def look(forward, optimizer=None):
  net = hk.transform_with_state(forward)
  findings, watch = diagnose.diagnose(
    net,
    X,
    LABEL,
    4,
    optimizer or optax.adam(0.03),
    jax.random.key(0),
    steps=STEPS,
  )
  return {finding.name: finding for finding in findings}, watch


def hidden(x):
  return jax.nn.relu(hk.Linear(32)(x))


def sound(x, learns):
  del learns
  return hk.Linear(4)(hidden(x))


def of_one_rank_too_many(x, learns):
  return sound(x, learns)[:, None]


def mixing(x, learns):
  return sound(x - jnp.mean(x, axis=0, keepdims=True), learns)


def too_sure(x, learns):
  return 100 * sound(x, learns)


def infinite(x, learns):
  # The slope of a root is infinite at 0, and 0 times that is no number.
  return sound(x, learns) + jnp.sqrt(hk.Linear(4)(0 * x))


def cut_off(x, learns):
  del learns
  return hk.Linear(4)(jax.lax.stop_gradient(hidden(x)))


def dead(x, learns):
  del learns
  x = hk.Linear(32, b_init=hk.initializers.Constant(-100.0))(x)
  return hk.Linear(4)(jax.nn.relu(x))


def twice(x, learns):
  return jax.nn.softmax(sound(x, learns))


def test_a_sound_network_passes_all():
  found, watch = look(sound)
  assert len(found) == 9
  assert watch is not None
  assert [name for name, finding in found.items() if not finding.passed] == []
  assert watch.loss.shape == watch.weight_norm.shape == (STEPS,)
  assert watch.loss[-1] < watch.loss[0] / 10
  # The first loss is what it says.
  ratio = found['first loss by log(number of classes)'].value
  np.testing.assert_allclose(ratio * np.log(4), watch.loss[0], rtol=1e-3)
  assert diagnose.draw(watch, 4).axes


@pytest.mark.parametrize(
  ('forward', 'optimizer', 'caught'),
  [
    (of_one_rank_too_many, None, 'shape of the logits'),
    pytest.param(
      mixing,
      None,
      'change of logits by the other examples',
      marks=pytest.mark.slow,
    ),
    pytest.param(
      too_sure,
      None,
      'first loss by log(number of classes)',
      marks=pytest.mark.slow,
    ),
    (infinite, None, 'numbers that are not finite'),
    pytest.param(
      cut_off, None, 'parameters without a gradient', marks=pytest.mark.slow
    ),
    (dead, None, 'share of dead units'),
    pytest.param(
      sound, optax.adam(100.0), 'growth of the weights', marks=pytest.mark.slow
    ),
    pytest.param(
      sound,
      optax.sgd(-0.1),
      'share of 16 examples learned by heart',
      marks=pytest.mark.slow,
    ),
    (twice, None, 'their last loss by log(number of classes)'),
  ],
)
def test_a_broken_one_is_caught(forward, optimizer, caught):
  found, _ = look(forward, optimizer)
  assert not found[caught].passed, found[caught]
  if forward is cut_off:
    # Haiku names layers in the order in which they are made.
    assert found[caught].value == 'linear_1/b, linear_1/w'
