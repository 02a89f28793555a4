"""Cross-entropies of texts against loops over their tokens."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import types
from dl_lectures.analysis import language
from dl_lectures.data import text
from dl_lectures.nets import sequence
from dl_lectures.ops import ngram

CORPUS = text.from_text('she sells sea shells by the sea shore; ' * 12)
SIZE = CORPUS.vocabulary.size


@functools.cache
def gru():
  model = sequence.gru(4, SIZE, vocab_size=SIZE)
  tokens = jnp.zeros((1, 3), jnp.int32)
  return model, jax.jit(model.init)(jax.random.key(0), tokens)


def losses_of(model, weights, tokens):
  """Of one sequence from its beginning, [T - 1]."""
  logits = model.apply(weights, None, tokens[None, :-1])
  return language.cross_entropy(logits, jnp.asarray(tokens[None, 1:]))[0]


def table_model(table):
  """Predicts from the last token and from nothing else."""

  def apply(weights, key, x, reset=None, is_training=False):
    del key, reset, is_training
    return weights[x]

  model, _ = gru()
  weights: Any = jnp.asarray(table)
  return model._replace(apply=apply), weights


def test_counting_is_that_of_each_token_after_all_before():
  counted = language.ngram_losses(CORPUS, (1, 3))
  for order, loss in counted.items():
    model = ngram.fit(CORPUS.train, SIZE, order)
    held_out = CORPUS.held_out
    by_hand = [
      -math.log(ngram.distribution(model, held_out[:t])[token])
      for t, token in enumerate(held_out)
    ]
    assert loss == pytest.approx(np.mean(by_hand), rel=1e-9)
  assert counted[3] < counted[1]


def test_cross_entropy_of_known_probabilities():
  logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
  for target, nats in ((0, math.log(2)), (2, math.log(4))):
    got = language.cross_entropy(logits, jnp.array([target]))
    np.testing.assert_allclose(got, [nats], rtol=1e-6)


@pytest.mark.parametrize('batch_size', [1, 3, 64])
def test_every_window_counts_once(batch_size):
  draw = np.random.default_rng(0)
  tokens = draw.integers(0, SIZE, 44)
  model, table = table_model(draw.normal(size=(SIZE, SIZE)))
  losses = language.loss_by_position(model, table, tokens, 4, batch_size)
  log_p = np.asarray(jax.nn.log_softmax(table))
  by_hand = -log_p[tokens[:-1], tokens[1:]]
  # 43 predictions are ten windows of four; three are left out.
  by_hand = by_hand[:40].reshape(10, 4).mean(axis=0)
  np.testing.assert_allclose(losses, by_hand, rtol=1e-5)


def test_a_window_begins_with_nothing_known():
  model, weights = gru()
  tokens = CORPUS.test[:9]
  losses = language.loss_by_position(model, weights, tokens, 4)
  again = np.stack(
    [losses_of(model, weights, piece) for piece in (tokens[:5], tokens[4:9])]
  )
  np.testing.assert_allclose(losses, again.mean(axis=0), rtol=1e-5)


def test_a_stream_goes_on_with_what_it_remembers():
  model, weights = gru()
  tokens = CORPUS.held_out[:31]
  loss = language.loss_in_stream(model, weights, tokens, 5, lanes=2)
  by_hand = [
    losses_of(model, weights, lane) for lane in (tokens[:16], tokens[15:31])
  ]
  assert loss == pytest.approx(float(np.mean(by_hand)), rel=1e-5)
  # More lanes than there are pieces, and what remains of a lane.
  short = language.loss_in_stream(model, weights, tokens[:8], 5, lanes=9)
  by_hand = losses_of(model, weights, tokens[:6])
  assert short == pytest.approx(float(np.mean(by_hand)), rel=1e-5)


def test_all_alike_is_the_logarithm_of_their_number():
  model, table = table_model(np.zeros((SIZE, SIZE)))
  losses = language.loss_by_position(model, table, CORPUS.valid, 3)
  np.testing.assert_allclose(losses, math.log(SIZE), rtol=1e-6)
  assert language.bits(math.log(256)) == pytest.approx(8)


def test_what_is_refused():
  model, weights = gru()
  for measure in (language.loss_by_position, language.loss_in_stream):
    with pytest.raises(types.UsageError, match='text of 4 tokens for pieces'):
      measure(model, weights, np.zeros(4, np.int32), 4)
  for orders in ((), (0, 3)):
    with pytest.raises(types.UsageError, match=r'config.ngram_orders='):
      language.check_orders(orders)
