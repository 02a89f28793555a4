"""Generation against one token at a time, enumeration, and its own score."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import sequence
from dl_lectures.ops import sampling
from dl_lectures.training import generation
from dl_lectures.types import UsageError

V, N = 5, 5

MODELS = {
  'gru': sequence.gru(8, V, vocab_size=V),
  'wavenet': sequence.wavenet(6, V, rates=(1, 2), vocab_size=V),
  'transformer': sequence.transformer(
    8,
    V,
    num_layers=1,
    num_heads=2,
    vocab_size=V,
    positions='learned',
    max_length=9,
  ),
}
PROMPT = np.array([[1, 2, 3], [4, 4, 0]])
GRU = MODELS['gru']
SMALL = sequence.gru(4, 3, vocab_size=3)


@functools.cache
def weights_of(name):
  draw = np.random.default_rng(0)
  model = MODELS[name]
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(PROMPT))
  return jax.tree.map(
    lambda w: jnp.float32(draw.normal(scale=0.7, size=w.shape)), shapes
  )


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', MODELS)
def test_what_is_sampled_is_what_is_scored_cached_or_not(name):
  model, weights = MODELS[name], weights_of(name)
  processors = sampling.temperature(8.0), sampling.top_k(4)
  run = functools.partial(
    generation.generate, model, weights, PROMPT, N, processors=processors
  )
  new = run(key=jax.random.key(1))
  assert new.tokens.shape == new.log_probs.shape == (2, N)
  assert new.lengths.tolist() == [N, N]
  assert len(np.unique(new.tokens)) > 2
  uncached = run(key=jax.random.key(1), cache=False)
  np.testing.assert_array_equal(new.tokens, uncached.tokens)
  close(new.log_probs, uncached.log_probs)
  whole = np.concatenate([PROMPT, new.tokens], axis=1)
  scored = generation.score(model, weights, whole, processors=processors)
  close(scored[:, 2:], new.log_probs)


@pytest.mark.parametrize('cache', [True, False])
@pytest.mark.parametrize('name', ['gru', 'transformer'])
def test_prompts_of_different_lengths(name, cache):
  """Greedy and its scores, against sequences that begin on the left."""
  model, weights = MODELS[name], weights_of(name)
  prompts = [[3], [1, 2, 3], [4, 0]]
  tokens, lengths = generation.pad(prompts)
  new = generation.generate(
    model, weights, tokens, N, method='greedy', cache=cache, lengths=lengths
  )
  whole = [[*p, *n] for p, n in zip(prompts, new.tokens.tolist(), strict=True)]
  score = functools.partial(generation.score, model, weights)
  tokens, all_lengths = generation.pad(whole)
  scored = score(tokens, lengths=all_lengths)
  # Of the best alone: 0 for it, minus infinity for others.
  best = score(tokens, lengths=all_lengths, processors=(sampling.top_k(1),))
  for row, n in enumerate(lengths):
    close(new.log_probs[row], scored[row, n - 1 : n - 1 + N])
    assert not np.any(best[row, n - 1 :])


def test_scores_of_padded_sequences():
  tokens, lengths = generation.pad([[3, 1, 2, 0], [1, 2]])
  weights = weights_of('gru')
  scored = generation.score(GRU, weights, tokens, lengths=lengths)
  assert scored.shape == (2, 3)
  alone = generation.score(GRU, weights, tokens[1:, :2])
  close(scored[1, :1], alone[0])
  assert scored[1, 1:].tolist() == [0, 0]
  # By hand, of the second one.
  logits = GRU.apply(weights, None, jnp.array([[1]]))[0, 0]
  close(alone[0, 0], jax.nn.log_softmax(logits)[2])


def test_a_stop_token_ends_a_lane():
  weights = weights_of('gru')
  run = functools.partial(
    generation.generate, GRU, weights, np.repeat(PROMPT, 4, axis=0), 12
  )
  free = run(key=jax.random.key(3))
  new = run(key=jax.random.key(3), stop_token=2)
  assert len(set(new.lengths.tolist())) > 2
  for row in range(len(free.tokens)):
    n = int(new.lengths[row])
    mine = new.tokens[row].tolist()
    assert mine[:n] == free.tokens[row, :n].tolist()
    assert 2 not in mine[: n - 1]
    assert n == 12 or mine[n - 1 :] == [2] * (13 - n)
    close(new.log_probs[row, :n], free.log_probs[row, :n])
    assert not np.any(new.log_probs[row, n:])
  streamed = generation.stream(
    GRU,
    weights,
    np.repeat(PROMPT, 4, axis=0),
    12,
    key=jax.random.key(3),
    stop_token=2,
  )
  streamed = np.stack([*streamed], axis=1)
  assert streamed.shape[1] == int(np.max(new.lengths))
  np.testing.assert_array_equal(streamed, new.tokens[:, : streamed.shape[1]])


def endings(stop, longest):
  """All sequences of 3 tokens that end with the stop token or are cut off."""
  for n in range(1, longest + 1):
    for tokens in itertools.product(range(3), repeat=n):
      if stop not in tokens[:-1] and (n == longest or tokens[-1] == stop):
        yield tokens


@pytest.mark.parametrize('length_power', [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all(length_power):
  model, stop, longest = SMALL, 0, 4
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray([[1]]))
  sequences = [[1, *tokens] for tokens in endings(stop, longest)]
  tokens, lengths = generation.pad(sequences)
  found = set()
  for seed in range(8):
    draw = np.random.default_rng(seed)
    weights = jax.tree.map(
      lambda w, d=draw: jnp.float32(d.normal(scale=1.5, size=w.shape)), shapes
    )
    scores = generation.score(model, weights, tokens, lengths=lengths)
    scores = np.sum(scores, axis=1) / (lengths - 1) ** length_power
    best = int(np.argmax(scores))
    new = generation.generate(
      model,
      weights,
      np.array([[1]]),
      longest,
      method='beam',
      stop_token=stop,
      num_beams=27,
      length_power=length_power,
    )
    n = int(new.lengths[0])
    assert new.tokens[0, :n].tolist() == sequences[best][1:]
    close(float(np.sum(new.log_probs)) / n**length_power, scores[best])
    found.add(n)
  assert len(found) > 1


def test_beams():
  weights = weights_of('gru')
  run = functools.partial(generation.generate, GRU, weights, PROMPT, N)
  greedy, one, many, uncached = (
    run(method='greedy'),
    run(method='beam', num_beams=1),
    run(method='beam', num_beams=8),
    run(method='beam', num_beams=8, cache=False),
  )
  np.testing.assert_array_equal(one.tokens, greedy.tokens)
  close(one.log_probs, greedy.log_probs)
  gained = np.sum(many.log_probs, 1) - np.sum(greedy.log_probs, 1)
  assert gained.min() > -1e-5
  assert gained.max() > 0.1
  np.testing.assert_array_equal(many.tokens, uncached.tokens)
  whole = np.concatenate([PROMPT, many.tokens], axis=1)
  scored = generation.score(GRU, weights, whole)
  close(scored[:, 2:], many.log_probs)


@pytest.mark.parametrize(
  ('method', 'cache'), [('beam', True), ('greedy', False)]
)
def test_a_carry_goes_on(method, cache):
  weights = weights_of('gru')
  _, carry = GRU.apply_from(
    weights, None, GRU.initial_state(2, 0), jnp.asarray(PROMPT[:, :2])
  )
  run = functools.partial(
    generation.generate, GRU, weights, max_new=4, method=method, cache=cache
  )
  whole = run(PROMPT)
  rest = run(PROMPT[:, 2:], carry=carry)
  np.testing.assert_array_equal(rest.tokens, whole.tokens)
  scored = generation.score(
    GRU,
    weights,
    np.concatenate([PROMPT[:, 2:], rest.tokens], axis=1),
    carry=carry,
  )
  close(scored, rest.log_probs)


def test_mistakes_are_named():
  model, weights = MODELS['transformer'], weights_of('transformer')
  run = functools.partial(generation.generate, model, weights)
  with pytest.raises(UsageError, match='10 for a model with 9 learned pos'):
    run(PROMPT, N + 2, method='greedy')
  with pytest.raises(UsageError, match='token 5; 0 to 4'):
    run(PROMPT + 1, N, method='greedy')
  with pytest.raises(UsageError, match=r'shape \[2, 0\]; \[B, T\]'):
    run(PROMPT[:, :0], N, method='greedy')
  with pytest.raises(UsageError, match="'samples'; possible: sample, greedy"):
    run(PROMPT, N, method='samples')
  with pytest.raises(UsageError, match="'sample' without a key"):
    run(PROMPT, N)
  with pytest.raises(UsageError, match='0 new tokens'):
    run(PROMPT, 0)
  with pytest.raises(UsageError, match='length of 4; 1 to 3'):
    run(PROMPT, N, method='greedy', lengths=np.array([4, 1]))
  with pytest.raises(UsageError, match=r'shape \[3\]; \[2\]'):
    run(PROMPT, N, method='greedy', lengths=np.array([1, 1, 1]))
  with pytest.raises(UsageError, match='an empty prompt'):
    generation.pad([[1], []])
  with pytest.raises(UsageError, match='a model of features'):
    generation.generate(sequence.gru(8, V), weights, PROMPT, N)
  with pytest.raises(UsageError, match='1 token to be scored'):
    generation.score(model, weights, PROMPT[:, :1])
