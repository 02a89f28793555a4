"""Encoder and decoder: step = whole, padding and what is not looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import encoder_decoder as lib
from dl_lectures.nets.embedding import Embedding
from dl_lectures.nets.recurrent import LSTM

SOURCE = jnp.array([[3, 1, 4, 0, 0], [2, 4, 4, 1, 3]])
LENGTHS = jnp.array([3, 5])
TARGET = jnp.array([[1, 6, 2, 5], [1, 5, 5, 3]])


def looking_first():
  """The encoder of the others, and a decoder that looks before its step."""

  def read(source, lengths):
    x = Embedding(5, 8)(source)
    mask = jnp.arange(source.shape[1])[None] < lengths[:, None]
    h, state = LSTM(8).unroll(x, mask=mask)
    return lib.Memory(jnp.concatenate([h, x], axis=-1), mask, state)

  return lib.with_reader(
    read, 8, vector_size=16, target_size=7, looks_first=True
  )


MAKE = {
  'attention': lambda: lib.encoder_decoder(8, source_size=5, target_size=7),
  'one vector': lambda: lib.encoder_decoder(
    8, source_size=5, target_size=7, attention=False
  ),
  'looking first': looking_first,
}


@pytest.fixture(params=MAKE, scope='module')
def net(request):
  made = MAKE[request.param]()
  weights = jax.jit(made.init)(jax.random.key(0), SOURCE, LENGTHS, TARGET)
  decoder = made.decoder._replace(
    apply_from=jax.jit(made.decoder.apply_from), step=jax.jit(made.decoder.step)
  )
  return made._replace(encode=jax.jit(made.encode), decoder=decoder), weights


def test_a_step_at_a_time_is_the_whole(net):
  made, weights = net
  memory = made.encode(weights, SOURCE, LENGTHS)
  whole, after = made.decoder.apply_from(weights.decoder, None, memory, TARGET)
  carry, rows = memory, []
  for t in range(TARGET.shape[1]):
    row, carry = made.decoder.step(weights.decoder, carry, TARGET[:, t])
    rows.append(row)
  np.testing.assert_allclose(jnp.stack(rows, axis=1), whole, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carry, after
  )


def test_a_reset_forgets_what_was_written(net):
  made, weights = net
  memory = made.encode(weights, SOURCE, LENGTHS)
  reset = jnp.array([[False, False, True, False]] * 2)
  whole, _ = made.decoder.apply_from(
    weights.decoder, None, memory, TARGET, reset
  )
  zero = jax.tree.map(jnp.zeros_like, memory.state)
  anew, _ = made.decoder.apply_from(
    weights.decoder, None, memory._replace(state=zero), TARGET[:, 2:]
  )
  np.testing.assert_allclose(whole[:, 2:], anew, atol=1e-5)


def test_padding_is_not_read(net):
  made, weights = net
  alone = made.encode(weights, SOURCE[:1, :3], LENGTHS[:1])
  other = SOURCE.at[0, 3:].set(jnp.array([2, 3]))
  among = made.encode(weights, other, LENGTHS)
  np.testing.assert_allclose(alone.vectors, among.vectors[:1, :3], atol=1e-6)
  one, _ = made.decoder.apply_from(weights.decoder, None, alone, TARGET[:1])
  two, _ = made.decoder.apply_from(weights.decoder, None, among, TARGET)
  np.testing.assert_allclose(one[0], two[0], atol=1e-6)


def test_the_source_changes_what_is_written(net):
  made, weights = net
  for position in range(3):
    memory = made.encode(weights, SOURCE, LENGTHS)
    other = made.encode(weights, SOURCE.at[0, position].set(2), LENGTHS)
    a, _ = made.decoder.apply_from(weights.decoder, None, memory, TARGET)
    b, _ = made.decoder.apply_from(weights.decoder, None, other, TARGET)
    assert jnp.abs(a[0] - b[0]).max() > 0
    np.testing.assert_array_equal(a[1], b[1])


def test_where_it_looks_sums_to_1_and_is_not_padding():
  made = lib.encoder_decoder(8, source_size=5, target_size=7)
  weights = jax.jit(made.init)(jax.random.key(0), SOURCE, LENGTHS, TARGET)
  memory = jax.jit(made.encode)(weights, SOURCE, LENGTHS)
  assert made.look is not None
  looks = jax.jit(made.look)(weights, memory, TARGET)
  np.testing.assert_allclose(looks.sum(-1), 1, atol=1e-6)
  assert (looks[0, :, 3:] == 0).all()
  assert (looks[0, :, :3] > 0).all()
  # Without attention only the state passes.
  plain = lib.encoder_decoder(8, source_size=5, target_size=7, attention=False)
  assert plain.look is None
  weights = jax.jit(plain.init)(jax.random.key(0), SOURCE, LENGTHS, TARGET)
  memory = jax.jit(plain.encode)(weights, SOURCE, LENGTHS)
  blind = memory._replace(vectors=jnp.zeros_like(memory.vectors))
  decode = jax.jit(plain.decoder.apply_from)
  a, _ = decode(weights.decoder, None, memory, TARGET)
  b, _ = decode(weights.decoder, None, blind, TARGET)
  np.testing.assert_array_equal(a, b)
