"""Every sequence model: whole = in pieces = step by step, resets inside."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dl_lectures.nets import sequence
from dl_lectures.nets.sequence import SequenceModel
from dl_lectures.types import UsageError

B, T, V, D = 2, 9, 5, 4

transformer = functools.partial(
  sequence.transformer, 8, D, num_layers=2, num_heads=2
)
MODELS = {
  'rnn': sequence.rnn(6, D, vocab_size=V, num_layers=2),
  'lstm': sequence.lstm(6, D, vocab_size=V, num_layers=2),
  'gru': sequence.gru(6, D, vocab_size=V, num_layers=2),
  'addition': sequence.addition(6, D, num_inputs=V),
  'dilated': sequence.dilated(
    6, D, rates=(1, 2, 3), kernel_size=3, vocab_size=V
  ),
  'bigram': sequence.dilated(6, D, rates=(1,), kernel_size=1, vocab_size=V),
  'wavenet': sequence.wavenet(6, D, rates=(1, 2, 4), vocab_size=V),
  'transformer, learned': transformer(vocab_size=V, max_length=T),
  'transformer, sinusoidal': transformer(
    vocab_size=V, positions='sinusoidal', with_bias=False
  ),
  'transformer, rotary': transformer(vocab_size=V, positions='rotary'),
  'transformer, none': transformer(vocab_size=V, positions='none'),
}
# Of features instead of tokens.
FEATURES = {
  'gru of features': sequence.gru(6, D),
  'addition of features': sequence.addition(6, D, num_inputs=V, tokens=False),
  'wavenet of features': sequence.wavenet(6, D, rates=(1, 2)),
  'transformer of features': transformer(positions='rotary'),
}


class Case(NamedTuple):
  model: SequenceModel
  weights: sequence.Weights
  x: jax.Array
  reset: jax.Array


def random_weights(model, x, seed=0):
  """Not as they start: then much is zero."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), x)
  draw = np.random.default_rng(seed)
  return jax.tree.map(
    lambda w: jnp.float32(draw.normal(scale=0.5, size=w.shape)), shapes
  )


@pytest.fixture(params=[*MODELS, *FEATURES], scope='module')
def case(request):
  draw = np.random.default_rng(1)
  if request.param in MODELS:
    model = MODELS[request.param]
    x = jnp.asarray(draw.integers(V, size=(B, T)))
  else:
    model = FEATURES[request.param]
    x = jnp.float32(draw.normal(size=(B, T, V)))
  # In one lane at the beginning and in the middle, in the other one twice in a
  # row.
  reset = np.zeros((B, T), bool)
  reset[0, [0, 4]] = reset[1, [6, 7]] = True
  return Case(model, random_weights(model, x), x, jnp.asarray(reset))


def close(a, b, tolerance=1e-5):
  np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def scan_of_steps(model, weights, x, reset):
  def step(carry, inputs):
    x, reset = inputs
    y, carry = model.step(weights, carry, x, reset)
    return carry, y

  xs = jnp.swapaxes(x, 0, 1), None if reset is None else reset.T
  _, y = lax.scan(step, model.initial_state(x.shape[0], x.shape[1]), xs)
  return jnp.swapaxes(y, 0, 1)


def in_pieces(model, weights, x, reset, ends):
  carry, outputs = model.initial_state(x.shape[0], x.shape[1]), []
  for start, end in itertools.pairwise((0, *ends, x.shape[1])):
    part = None if reset is None else reset[:, start:end]
    y, carry = model.apply_from(weights, None, carry, x[:, start:end], part)
    outputs.append(y)
  return jnp.concatenate(outputs, axis=1)


def test_steps_and_pieces_equal_the_whole(case):
  model = case.model

  @jax.jit
  def all_ways(weights, x, reset):
    plain = model.apply(weights, None, x)
    whole = model.apply(weights, None, x, reset)
    return {
      'plain': plain,
      'whole': whole,
      'steps': scan_of_steps(model, weights, x, reset),
      'pieces': in_pieces(model, weights, x, reset, [5]),
      'plain pieces': in_pieces(model, weights, x, None, [T - 1]),
      'mapped': jax.vmap(lambda x: model.apply(weights, None, x))(x[:, None]),
    }

  y = all_ways(case.weights, case.x, case.reset)
  assert y['plain'].shape == (B, T, D)
  close(y['steps'], y['whole'])
  close(y['pieces'], y['whole'])
  close(y['plain pieces'], y['plain'])
  close(y['mapped'][:, 0], y['plain'])
  # What a reset divides is what it would be alone.
  close(y['whole'][0, :4], y['plain'][0, :4])
  close(y['whole'][1, :6], y['plain'][1, :6])
  alone = all_ways(case.weights, jnp.roll(case.x, -4, axis=1), case.reset)
  close(y['whole'][0, 4:], alone['plain'][0, : T - 4])
  alone = all_ways(case.weights, jnp.roll(case.x, -6, axis=1), case.reset)
  close(y['whole'][1, 6], alone['plain'][1, 0])


def test_the_future_is_not_seen_nor_what_lies_too_far_back(case):
  model, at = case.model, T - 2
  moved = jnp.repeat(case.x[:1], T + 1, axis=0)
  others = (case.x[0] + 1) % V if case.x.ndim == 2 else case.x[0] + 1
  moved = moved.at[jnp.arange(T), jnp.arange(T)].set(others)
  y = jax.jit(model.apply)(case.weights, None, moved)[:, at]
  for t in range(T):
    assert bool(jnp.any(y[t] != y[T])) == visible(model, at, t), t


def visible(model, at, t):
  reach = T if model.receptive_field is None else model.receptive_field
  return at - reach < t <= at


def test_receptive_fields_are_counted():
  assert MODELS['dilated'].receptive_field == 1 + 2 * (1 + 2 + 3)
  assert MODELS['bigram'].receptive_field == 1
  rates = [2**i for i in range(10)]
  assert sequence.wavenet(4, 2, rates=rates).receptive_field == 1024
  assert MODELS['rnn'].receptive_field is None


def test_a_full_cache_keeps_the_last_elements():
  """Then a transformer of one layer sees that many, and no more."""
  model = sequence.transformer(
    8, D, num_layers=1, num_heads=2, vocab_size=V, positions='rotary'
  )
  whole = model.initial_state
  model = model._replace(initial_state=lambda lanes, length: whole(lanes, 4))
  x = jnp.asarray(np.random.default_rng(3).integers(V, size=(1, T)))
  weights = random_weights(model, x)

  @jax.jit
  def run(weights, x):
    # Each window a lane.
    last = jax.vmap(lambda t: lax.dynamic_slice(x[0], [t], [4]))(
      jnp.arange(T - 3)
    )
    return (
      scan_of_steps(model, weights, x, None)[0],
      in_pieces(model, weights, x, None, [3])[0],
      model.apply(weights, None, last)[:, -1],
    )

  steps, pieces, windows = run(weights, x)
  close(steps[3:], windows)
  close(pieces, steps)


def test_order_cannot_matter_to_addition():
  model = MODELS['addition']
  x = jnp.array([[0, 3, 1, 1, 4], [1, 4, 0, 1, 3]])
  y = model.apply(random_weights(model, x), None, x)[:, -1]
  np.testing.assert_array_equal(y[0], y[1])


def test_dropout_is_for_training():
  model = sequence.lstm(6, D, vocab_size=V, dropout=0.5)
  x = jnp.zeros((B, T), int)
  weights = random_weights(model, x)
  key, other = jax.random.split(jax.random.key(1))
  run = jax.jit(model.apply, static_argnames='is_training')
  dropped = run(weights, key, x, is_training=True)
  assert jnp.mean(dropped != run(weights, other, x, is_training=True)) > 0.9
  np.testing.assert_array_equal(dropped, run(weights, key, x, is_training=True))
  np.testing.assert_array_equal(run(weights, key, x), run(weights, other, x))


def test_mistakes_are_named():
  model = MODELS['transformer, learned']
  x = jnp.zeros((B, T), int)
  weights = random_weights(model, x)
  with pytest.raises(UsageError, match='10 for a model with 9 learned'):
    model.apply(weights, None, jnp.zeros((B, T + 1), int))
  with pytest.raises(UsageError, match='10 for a model with 9 learned'):
    model.initial_state(B, T + 1)
  with pytest.raises(UsageError, match='token 5; 0 to 4'):
    model.apply(weights, None, x + 5)
  with pytest.raises(UsageError, match='token -1; 0 to 4'):
    model.apply(weights, None, x - 1)
  with pytest.raises(UsageError, match=r'given \[2, 9, 1\]; \[B, T\]'):
    model.apply(weights, None, x[:, :, None])
  with pytest.raises(UsageError, match=r'reset of \[9, 2\]; \[2, 9\]'):
    model.apply(weights, None, x, x.T == 0)
  with pytest.raises(UsageError, match="'learnt'; possible: learned, "):
    transformer(positions='learnt')
  with pytest.raises(UsageError, match="'learned' with max_length=None"):
    transformer()
  with pytest.raises(UsageError, match='3 heads of width 8'):
    sequence.transformer(8, 4, num_layers=1, num_heads=3, positions='none')
  with pytest.raises(UsageError, match=r'head of 4 outputs and a voc.* of 5'):
    transformer(positions='none', vocab_size=5, tied=True)
