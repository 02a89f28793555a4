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
  sequence.transformer, 8, D, num_layers=1, num_heads=2
)
MODELS = {
  'rnn': sequence.rnn(6, D, vocab_size=V),
  'lstm': sequence.lstm(6, D, vocab_size=V),
  'gru': sequence.gru(6, D, vocab_size=V, num_layers=2),
  'addition': sequence.addition(6, D, num_inputs=V),
  'dilated': sequence.dilated(6, D, rates=(1, 2), kernel_size=3, vocab_size=V),
  'unigram': sequence.dilated(6, D, rates=(1,), kernel_size=1, vocab_size=V),
  'wavenet': sequence.wavenet(6, D, rates=(1, 2), vocab_size=V),
  'transformer, learned': transformer(vocab_size=V, max_length=T, num_layers=2),
  'transformer, sinusoidal': transformer(
    vocab_size=V, positions='sinusoidal', with_bias=False
  ),
  'transformer, rotary': transformer(vocab_size=V, positions='rotary'),
}
# Of features instead of tokens.
FEATURES = {
  'gru of features': sequence.gru(6, D),
  'addition of features': sequence.addition(6, D, num_inputs=V, tokens=False),
  'transformer of features': transformer(positions='none'),
}


class Case(NamedTuple):
  model: SequenceModel
  weights: sequence.Weights
  x: jax.Array
  plain: jax.Array
  whole: jax.Array
  steps: jax.Array
  pieces: jax.Array


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
  # Lanes 0 and 1 have resets: in one at the beginning and in the middle, in the
  # other twice in a row. Lanes 2 and 3 begin where these begin anew. In the
  # others one element of lane 0 is another one.
  reset = np.zeros((4 + T, T), bool)
  reset[0, [0, 4]] = reset[1, [6, 7]] = True
  moved = (x[0] + 1) % V if x.ndim == 2 else x[0] + 1
  moved = jnp.repeat(x[:1], T, axis=0).at[np.arange(T), np.arange(T)].set(moved)
  begun = jnp.stack([jnp.roll(x[0], -4, axis=0), jnp.roll(x[1], -6, axis=0)])
  x = jnp.concatenate([x, begun, moved])

  @jax.jit
  def run(weights, x, reset):
    return (
      model.apply(weights, None, x),
      model.apply(weights, None, x, reset),
      scan_of_steps(model, weights, x, reset),
      in_pieces(model, weights, x, reset, [5]),
    )

  weights = random_weights(model, x)
  return Case(model, weights, x, *run(weights, x, jnp.asarray(reset)))


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
  assert case.whole.shape == (4 + T, T, D)
  close(case.steps, case.whole)
  close(case.pieces, case.whole)
  close(case.plain[2:], case.whole[2:])


def test_what_a_reset_divides_is_what_it_is_alone(case):
  close(case.whole[0, :4], case.plain[0, :4])
  close(case.whole[0, 4:], case.plain[2, : T - 4])
  close(case.whole[1, :6], case.plain[1, :6])
  close(case.whole[1, 6], case.plain[3, 0])


def test_the_future_is_not_seen_nor_what_lies_too_far_back(case):
  at = T - 2
  base, moved = case.plain[0, at], case.plain[4:, at]
  for t in range(T):
    changed = bool(jnp.any(moved[t] != base))
    assert changed == visible(case.model, at, t), t


def test_compiled_equals_eager(case):
  close(case.model.apply(case.weights, None, case.x), case.plain)


def test_a_population_equals_its_members(case):
  other = jax.tree.map(lambda w: np.asarray(w) / 2, case.weights)
  members = jax.tree.map(lambda *w: np.stack(w), case.weights, other)
  apply = jax.jit(lambda weights: case.model.apply(weights, None, case.x))
  first, second = jax.jit(jax.vmap(apply))(members)
  close(first, case.plain, 1e-4)
  close(second, apply(other), 1e-4)


def test_bfloat16_in_is_bfloat16_out(case):
  def half(x):
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    return np.asarray(x, jnp.bfloat16) if floats else x

  weights, x = jax.tree.map(half, (case.weights, case.x))
  y = jax.jit(lambda w, x: case.model.apply(w, None, x))(weights, x)
  # Addition counts its tokens, and not every count is a bfloat16.
  counts = case.model is MODELS['addition']
  assert y.dtype == (jnp.float32 if counts else jnp.bfloat16)
  scale = np.abs(case.plain).max()
  np.testing.assert_allclose(np.float32(y), case.plain, atol=0.05 * scale)


def visible(model, at, t):
  reach = T if model.receptive_field is None else model.receptive_field
  return at - reach < t <= at


def test_receptive_fields_are_counted():
  assert MODELS['dilated'].receptive_field == 1 + 2 * (1 + 2)
  assert MODELS['unigram'].receptive_field == 1
  rates = [2**i for i in range(10)]
  assert sequence.wavenet(4, 2, rates=rates).receptive_field == 1024
  assert MODELS['rnn'].receptive_field is None


def test_a_full_cache_keeps_the_last_elements():
  """Then a transformer of one layer sees that many, and no more."""
  model = MODELS['transformer, rotary']
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
