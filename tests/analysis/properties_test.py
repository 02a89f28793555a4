"""Properties: of models whose answers are known, and of those that are ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import types
from dl_lectures.analysis import properties
from dl_lectures.nets import recurrent, sequence

SIZE, LENGTH = 64, 64
KEEPING = recurrent.STANDARD._replace(forget_gate=recurrent.Gate(bias=5.0))


@functools.cache
def inputs():
  tokens = jax.random.randint(jax.random.key(0), (8, LENGTH), 0, SIZE)
  return jax.nn.one_hot(tokens, SIZE)


def made_up(apply):
  """A model of one function of x, [B, T, F] to [B, T, D]."""
  model = sequence.gru(4, SIZE)
  return model._replace(
    apply=lambda weights, key, x, reset=None, is_training=False: apply(
      weights[0]['a']['w'], x
    ),
    receptive_field=None,
  ), ({'a': {'w': jnp.array([2.0, 3.0])}}, {})


def total(w, x):
  return w[0] * jnp.cumsum(x, axis=1)


def product(w, x):
  """The last element times the one 8 before it."""
  before = jnp.pad(x, ((0, 0), (8, 0), (0, 0)))[:, :-8]
  return w[0] * x * before


@functools.cache
def measured(name):
  model = {
    'addition': sequence.addition(16, SIZE, num_inputs=SIZE, tokens=False),
    'rnn': sequence.rnn(64, SIZE),
    'lstm': sequence.lstm(64, SIZE, wiring=KEEPING),
    'convolution': sequence.dilated(16, SIZE, rates=(1, 2, 4, 8)),
  }[name]
  weights = jax.jit(model.init)(jax.random.key(1), inputs())
  return properties.properties(
    model, weights, inputs(), jax.random.key(2), lags=(2, 32)
  )


def test_of_a_sum_no_order_counts_and_nothing_interacts():
  row = measured('addition')
  assert row.order == 0
  assert (row.pairs < 1e-5).all()
  np.testing.assert_allclose(row.gradient, 1, rtol=1e-5)
  assert row.reach == LENGTH - 1
  assert row.error < 1e-6


@pytest.mark.slow
def test_gradients_vanish_in_an_rnn_and_are_kept_by_an_lstm():
  rnn, lstm = measured('rnn'), measured('lstm')
  assert rnn.gradient[63] < 1e-10
  assert lstm.gradient[63] > 1e-2
  assert rnn.order > 0.01
  assert rnn.error < 1e-6
  assert lstm.live > 0.9


def test_a_convolution_sees_its_receptive_field_and_nothing_else():
  row = measured('convolution')
  assert row.reach == 15
  assert (row.gradient[:16] > 0).all()
  assert (row.gradient[16:] == 0).all()
  assert row.pairs[0] > 0.01
  assert row.pairs[1] == 0


def test_order_of_a_model_that_is_known():
  # Sees the element before the last alone: a 1 at one place of T - 1.
  def apply(w, x):
    del w
    before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return 1000 * jnp.concatenate([before, 1 - before], axis=-1)

  model, weights = made_up(apply)
  x = jnp.zeros((2000, 11, 1)).at[:, -2].set(1)
  moved = properties.order_sensitivity(model, weights, x, jax.random.key(0))
  # Shuffled, it is elsewhere nine times out of ten.
  assert float(moved) == pytest.approx(0.9, abs=0.03)


def test_gradients_of_models_that_are_known():
  x = inputs()
  model, weights = made_up(total)
  gradient = properties.gradient_by_lag(model, weights, x, jax.random.key(0))
  np.testing.assert_allclose(gradient, gradient[0], rtol=1e-5)
  noise = jax.random.normal(jax.random.key(0), (8, SIZE))
  expected = 2 * jnp.linalg.norm(noise, axis=1).mean()
  assert float(gradient[0]) == pytest.approx(float(expected), rel=1e-5)
  model, weights = made_up(product)
  gradient = properties.gradient_by_lag(model, weights, x, jax.random.key(0))
  assert np.flatnonzero(gradient).tolist() == [0, 8]


def test_interactions_of_models_that_are_known():
  x = jax.random.uniform(jax.random.key(3), (8, LENGTH, 3))
  other = jnp.roll(x, 1, axis=0)
  lags = jnp.array([7, 8])
  model, weights = made_up(total)
  none = properties.interaction_by_lag(model, weights, x, other, lags)
  assert (none < 1e-5).all()
  model, weights = made_up(product)
  got = properties.interaction_by_lag(model, weights, x, other, lags)
  assert float(got[0]) == 0
  change = other[:, -1] - x[:, -1]
  before, past_change = x[:, -9], other[:, -9] - x[:, -9]
  mixed = jnp.linalg.norm(change * past_change, axis=1).mean()
  effect = jnp.linalg.norm(change * before, axis=1).mean()
  assert float(got[1]) == pytest.approx(float(mixed / effect), rel=1e-4)


def test_a_wrong_gradient_is_noticed():
  @jax.custom_jvp
  def squared(w):
    return w**2

  # Right would be 2 w.
  squared.defjvp(lambda primals, tangents: (primals[0] ** 2, tangents[0]))
  for function, low, high in (
    (lambda w, x: w[0] ** 2 * x, 0, 1e-8),
    (lambda w, x: squared(w[0]) * x, 0.1, np.inf),
  ):
    model, weights = made_up(function)
    error = properties.finite_difference_error(
      model, weights, inputs(), jax.random.key(0)
    )
    assert low <= error < high


def test_steps_carry_no_relu_over_its_kink():
  model = sequence.wavenet(32, 8, rates=[1, 2, 4, 8], skip_channels=32)
  x = jax.nn.one_hot(jax.random.randint(jax.random.key(1), (2, 64), 0, 8), 8)
  weights = jax.jit(model.init)(jax.random.key(0), x)
  for key in jax.random.split(jax.random.key(2), 3):
    error = properties.finite_difference_error(model, weights, x, key)
    assert error < 1e-6


def test_parameters_that_nothing_depends_on():
  model, weights = made_up(total)  # of two weights one is used
  live = properties.live_share(model, weights, inputs(), jax.random.key(0))
  assert float(live) == 0.5


def test_models_that_read_tokens():
  model = sequence.gru(4, SIZE)
  tokens = jnp.array([[0, 4, 2]])
  seen = jax.nn.one_hot(tokens, SIZE)
  weights = jax.jit(model.init)(jax.random.key(0), seen)
  reads = properties.on_tokens(model, SIZE)
  y = model.apply(weights, None, seen)
  np.testing.assert_array_equal(reads.apply(weights, None, tokens), y)
  carry = reads.initial_state(1, 3)
  steps = []
  for t in range(3):
    one, carry = reads.step(weights, carry, tokens[:, t])
    steps.append(one)
  np.testing.assert_allclose(jnp.stack(steps, 1), y, atol=1e-5)


def test_losses_beyond_the_length_of_the_training():
  def apply(weights, key, x):
    del weights, key
    if x.shape[1] > 16:
      raise types.UsageError('too long')
    # Surer of what comes next the longer it has read.
    right = jax.nn.one_hot((x + 1) % SIZE, SIZE)
    return 0.2 * jnp.arange(x.shape[1])[None, :, None] * right

  model = sequence.gru(4, SIZE)._replace(apply=apply)
  tokens = np.arange(200) % SIZE
  found = properties.loss_by_length(model, None, tokens, 8, (1, 2, 4))
  sure = np.exp(0.2 * np.arange(16))
  nats = -np.log(sure / (sure + SIZE - 1))
  assert found[1] == pytest.approx(nats[4:8].mean(), rel=1e-4)
  assert found[2] == pytest.approx(nats[12:16].mean(), rel=1e-4)
  assert found[4] is None
  with pytest.raises(types.UsageError, match='for windows of 256'):
    properties.loss_by_length(model, None, tokens, 8, (32,))


def test_paths_through_convolutions():
  rates = (1, 2, 4, 8)
  # Every lag has one way with two taps: its binary digits.
  for lag in range(16):
    expected = bin(lag).count('1')
    assert properties.fewest_layers(rates, 2, lag) == expected
  assert properties.fewest_layers(rates, 2, 16) is None
  assert properties.fewest_layers((1, 3), 3, 8) == 2
  assert properties.fewest_layers((1, 3), 3, 6) == 1


def test_the_listing_of_the_slides_is_the_gradient():
  def last(h, weight, steps):
    for _ in range(steps):
      h = jnp.tanh(weight * h)
    return h

  for weight in (0.5, 2.0):
    got = properties.chain_gradients(weight, 0.5, 6)
    for t in (1, 3, 6):
      expected = jax.grad(last)(0.5, weight, t)
      assert got[t - 1] == pytest.approx(float(expected), rel=1e-4)
  assert properties.chain_gradients(1.0, 0.5, 50)[-1] < 0.05


def test_adding_problems():
  task = properties.adding(10)
  x, target = task.draw(jax.random.key(0), 4000)
  marked = np.asarray(x[..., 1])
  assert (marked.sum(axis=1) == 2).all()
  assert (marked[:, :5].sum(axis=1) == 1).all()
  np.testing.assert_allclose(
    (x[..., 0] * marked).sum(axis=1), target, rtol=1e-5
  )
  always = jnp.ones((4000, 10, 1))
  score = float(task.score(always, target))
  assert score == pytest.approx(task.baseline, abs=0.01)
  with pytest.raises(types.UsageError, match='adding problem of 5'):
    properties.adding(5)


def test_recall_can_be_looked_up():
  task = properties.associative_recall(4, num_keys=6, num_values=3)
  x, target = (np.asarray(v) for v in task.draw(jax.random.key(0), 50))
  assert x.shape == (50, 8, 6 + 3 + 1)
  keys = x[..., :6].argmax(axis=-1)
  for row in range(50):
    values = dict(zip(keys[row, :4], x[row, :4, 6:9].argmax(-1), strict=True))
    assert len(values) == 4
    assert [values[k] for k in keys[row, 4:]] == target[row].tolist()
  assert (x[:, 4:, 6:9] == 0).all()
  assert (x[:, :, 9] == np.array([0, 0, 0, 0, 1, 1, 1, 1])).all()
  right = jnp.zeros((50, 8, 3)).at[:, 4:].set(jnp.eye(3)[target])
  assert float(task.score(right, target)) == 1
  assert float(task.score(-right, target)) == 0
  with pytest.raises(types.UsageError, match='7 pairs; 1 to 6'):
    properties.associative_recall(7, num_keys=6)


@pytest.mark.slow
def test_attention_learns_to_look_up():
  task = properties.associative_recall(3, num_keys=4, num_values=3)
  model = sequence.transformer(
    16, task.num_outputs, num_layers=1, num_heads=1, positions='none'
  )
  weights = properties.learn(
    model,
    task,
    jax.random.key(0),
    steps=300,
    batch_size=32,
    learning_rate=1e-2,
    chunk=100,
  )
  score = properties.evaluate(model, weights, task, jax.random.key(1))
  assert score > 0.95
  assert task.baseline == pytest.approx(1 / 3)


def test_tables_are_told():
  row = properties.Properties(
    order=0.25,
    gradient=np.array([1, 1, 3e-13]),
    pairs=np.array([12.0]),
    lags=(1,),
    reach=2,
    error=2e-9,
    live=0.5,
  )
  shown = properties.table({'rnn': row, 'gru': row._replace(reach=0)})
  head, first, second = shown.split('\n')
  assert head.split()[:4] == ['model', 'order', 'grad@1', 'grad@2']
  assert first.split() == [
    *('rnn', '.250', '1', '3e-13', '12', '2', '2e-09', '50%')
  ]
  assert second.split()[5] == '0'


def test_sequences_too_short_are_refused():
  model = sequence.gru(4, SIZE)
  for x in (inputs()[:1], inputs()[:, :32]):
    with pytest.raises(types.UsageError, match='two or more, of at least 33'):
      properties.properties(model, None, x, jax.random.key(0))
