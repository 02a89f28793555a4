"""The playground: features and losses by hand, descent, what is seen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.systems import playground
from dl_lectures.types import UsageError

TINY = playground.Settings(
  layers=(2,), train_share=0.1, regularisation='L2', regularisation_rate=0.1
)


@pytest.fixture(scope='module')
def begun():
  return playground.begin(TINY)


def test_features_by_hand():
  at = jnp.array([3.0, -2.0])
  found = {name: float(f(at)) for name, f in playground.FEATURES.items()}
  assert found == pytest.approx(
    {
      'x1': 3,
      'x2': -2,
      'x1^2': 9 / 6,
      'x2^2': 4 / 6,
      'x1 x2': -1,
      'sin x1': np.sin(3),
      'sin x2': np.sin(-2),
    },
    rel=1e-6,
  )


def test_points_are_divided_and_mixed():
  train, test = playground.draw_points(TINY)
  assert (len(train.x), len(test.x)) == (40, 360)
  assert set(train.y) == set(test.y) == {-1.0, 1.0}
  again, _ = playground.draw_points(TINY)
  np.testing.assert_array_equal(train.x, again.x)
  other, _ = playground.draw_points(dataclasses.replace(TINY, seed=1))
  assert np.any(other.x != train.x)


@pytest.mark.parametrize('data', playground.DATA['regression'])
def test_surfaces_and_their_noise(data):
  settings = playground.Settings(problem='regression', data=data)
  clean, _ = playground.draw_points(settings)
  assert np.abs(clean.y).max() <= 1
  assert np.ptp(clean.y) > 1
  noisy, _ = playground.draw_points(dataclasses.replace(settings, noise=2.0))
  np.testing.assert_array_equal(clean.x, noisy.x)
  assert np.std(noisy.y - clean.y) == pytest.approx(0.2, rel=0.2)


def test_point_losses_by_hand():
  output, y = jnp.array([2.0, -1.0]), jnp.array([1.0, 1.0])
  found = playground.point_losses('classification', output, y)
  np.testing.assert_allclose(
    found, -np.log([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))]), rtol=1e-6
  )
  np.testing.assert_allclose(
    playground.point_losses('regression', output, y), [1, 4]
  )


def test_an_epoch_is_its_steps_of_gradient_descent(begun):
  training = dataclasses.replace(begun)
  ((epoch, losses),) = playground.advance(training, 1)
  assert epoch == training.epoch == 1
  # Anew, in NumPy, with the gradient by the chain rule.
  train = begun.points[0]
  first, last = (
    jax.tree.map(np.float64, begun.params[name])
    for name in sorted(begun.params)
  )
  order = np.random.default_rng((0, 0)).permutation(40).reshape(4, 10)
  for which in order:
    x, y = np.float64(train.x[which]), np.float64(train.y[which])
    hidden = np.tanh(x @ first['w'] + first['b'])
    output = (hidden @ last['w'] + last['b'])[:, 0]
    delta = (-y / (1 + np.exp(y * output)) / 10)[:, None]
    below = delta @ last['w'].T * (1 - hidden**2)
    last = {
      'w': last['w'] - 0.03 * (hidden.T @ delta + 0.1 * last['w']),
      'b': last['b'] - 0.03 * delta.sum(0),
    }
    first = {
      'w': first['w'] - 0.03 * (x.T @ below + 0.1 * first['w']),
      'b': first['b'] - 0.03 * below.sum(0),
    }
  for name, layer in zip(sorted(training.params), (first, last), strict=True):
    for kind in ('w', 'b'):
      np.testing.assert_allclose(
        training.params[name][kind], layer[kind], rtol=1e-4, atol=1e-5
      )
  output = np.tanh(train.x @ first['w'] + first['b']) @ last['w'] + last['b']
  margins = train.y * output[:, 0]
  assert losses.train == pytest.approx(np.log1p(np.exp(-margins)).mean(), 1e-4)
  assert losses.train_error == pytest.approx(np.mean(margins <= 0), abs=1e-6)


def test_epochs_may_be_made_in_parts(begun):
  whole, parts = dataclasses.replace(begun), dataclasses.replace(begun)
  made = playground.advance(whole, 4)
  assert made == playground.advance(parts, 1) + playground.advance(parts, 3)
  jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)


def test_pictures_are_what_the_network_says(begun):
  seen = playground.view(begun)
  assert seen.output.shape == (60, 60)
  assert seen.neurons.shape == (2 + 2, 20, 20)
  # x1 rises to the right, x2 upwards.
  np.testing.assert_allclose(
    seen.neurons[0, 3], np.clip(np.linspace(-5.7, 5.7, 20), -1, 1), atol=1e-6
  )
  np.testing.assert_allclose(
    seen.neurons[1], seen.neurons[0].T[::-1], atol=1e-6
  )
  corner = np.array([-5.9, 5.9])
  hidden = np.tanh(corner @ seen.weights[0] + seen.biases[0])
  output = hidden @ seen.weights[1] + seen.biases[1]
  assert seen.output[0, 0] == pytest.approx(float(np.tanh(output[0] / 2)), 1e-4)


def test_settings_that_share_a_program_compile_it_once(begun):
  other = dataclasses.replace(TINY, data='xor', noise=1.0, learning_rate=1.0)
  assert playground.program(other) is playground.program(begun.settings)
  wider = dataclasses.replace(TINY, layers=(3,))
  assert playground.program(wider) is not playground.program(begun.settings)


def test_the_same_field_twice_or_none_at_all():
  with pytest.raises(UsageError, match='features: each at most once'):
    playground.Settings(features=('x1', 'x1'))
  assert playground.read_settings({}) == playground.Settings()
