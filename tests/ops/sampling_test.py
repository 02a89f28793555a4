"""Processors and draws by hand, and that draws have the right frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.ops import sampling
from dl_lectures.types import UsageError

LOGITS = np.log(np.array([0.05, 0.4, 0.25, 0.2, 0.1], np.float32))


def kept(processor, logits=LOGITS):
  return np.flatnonzero(np.isfinite(processor(jnp.asarray(logits)))).tolist()


def test_what_is_kept():
  assert kept(sampling.top_k(1)) == [1]
  assert kept(sampling.top_k(3)) == [1, 2, 3]
  assert kept(sampling.top_k(99)) == [0, 1, 2, 3, 4]
  # .4, then .65, then .85 are enough.
  assert kept(sampling.nucleus(0.3)) == [1]
  assert kept(sampling.nucleus(0.5)) == [1, 2]
  assert kept(sampling.nucleus(0.7)) == [1, 2, 3]
  assert kept(sampling.nucleus(1.0)) == [0, 1, 2, 3, 4]
  # Equals stay together.
  equal = np.zeros(4, np.float32)
  assert kept(sampling.top_k(2), equal) == [0, 1, 2, 3]


def test_what_is_kept_stays_as_it_is():
  y = sampling.process(
    (sampling.temperature(0.5), sampling.top_k(2)), jnp.asarray(LOGITS)
  )
  np.testing.assert_allclose(y[1:3], 2 * LOGITS[1:3], rtol=1e-6)
  # Of the others the same proportions, squared.
  share = jax.nn.softmax(y)
  np.testing.assert_allclose(share[1], 0.16 / (0.16 + 0.0625), rtol=1e-5)


def test_one_setting_is_one_function():
  """So what was compiled for it is found again."""
  assert sampling.nucleus(0.9) is sampling.nucleus(0.9)
  assert sampling.top_k(3) is not sampling.top_k(4)


def test_draws_are_as_frequent_as_they_should_be():
  """Exactly: of evenly spaced numbers each token gets its share."""
  uniforms = (jnp.arange(2000) + 0.5) / 2000
  drawn = jax.jit(jax.vmap(sampling.draw, (None, 0)))(LOGITS, uniforms)
  counts = np.bincount(drawn, minlength=5)
  np.testing.assert_array_equal(counts, [100, 800, 500, 400, 200])


@settings(max_examples=100, deadline=None)
@given(
  st.lists(
    st.one_of(st.just(-np.inf), st.floats(-30, 30, width=32)),
    min_size=6,
    max_size=6,
  ),
  st.floats(0, 1, width=32, exclude_max=True),
)
def test_what_is_impossible_is_never_drawn(logits, uniform):
  logits[2] = 0.0
  token = int(draw(jnp.float32(np.array(logits)), jnp.float32(uniform)))
  assert 0 <= token < 6
  assert logits[token] > -np.inf


draw = jax.jit(sampling.draw)


def test_the_ends_of_the_unit_interval():
  logits = jnp.array([-jnp.inf, 0.0, 0.0, -jnp.inf])
  assert int(draw(logits, jnp.float32(0))) == 1
  assert int(draw(logits, jnp.float32(1 - 2**-24))) == 2


def test_bad_settings_are_named():
  with pytest.raises(UsageError, match='temperature of 0; more than 0'):
    sampling.temperature(0)
  with pytest.raises(UsageError, match='the best 0; at least 1'):
    sampling.top_k(0)
  with pytest.raises(UsageError, match=r'nucleus of 1.5; more than 0'):
    sampling.nucleus(1.5)


def test_the_most_likely_is_the_first_of_the_largest():
  draw = np.random.default_rng(0)
  logits = jnp.float32(draw.integers(-3, 3, size=(50, 4, 7)))
  logits = logits.at[0].set(-jnp.inf)
  found = sampling.most_likely(logits)
  np.testing.assert_array_equal(found, np.argmax(logits, axis=-1))
  assert found.dtype == jnp.int32
