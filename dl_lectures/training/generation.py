"""Sequences out of a sequence model: sampled, greedy, by beam search; scored.

    prompt ──apply_from──> carry, logits ──process, choose──> token
                             ^                                  │
                             └───────────── step <──────────────┘

The prompt is read at once, then each token costs one step, all in one compiled
program. What the tokens are (characters, pixels, samples of sound, actions) is
of no matter.

Prompts of different lengths: give them right-padded with their lengths (`pad`
does both). They are read left-padded, so that all end together, and each lane
is reset where its own prompt begins: whatever stands before is forgotten, and a
prompt among others gives what it gives alone.

Probabilities are always those after the processors, in `generate` as in
`score`, and the one reports what the other finds.

Shapes: B lanes, T tokens of a prompt, N new ones, V vocabulary, K beams.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dl_lectures.nets import embedding
from dl_lectures.nets.sequence import SequenceModel, Weights
from dl_lectures.ops import sampling
from dl_lectures.types import Array, Key, UsageError

METHODS = ('sample', 'greedy', 'beam')


class Generated(NamedTuple):
  """What follows on the prompts.

  Attributes:
    tokens: [B, N] int32, the stop token where a lane has ended.
    log_probs: [B, N] float32, of each token given all before; 0 after the end.
    lengths: [B] int32, tokens up to the first stop token and with it.
  """

  tokens: Array
  log_probs: Array
  lengths: Array


def pad(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
  """Prompts of different lengths as one array.

  >>> tokens, lengths = pad([[5, 6, 7], [8]])
  >>> tokens.tolist(), lengths.tolist()
  ([[5, 6, 7], [8, 8, 8]], [3, 1])

  Args:
    prompts: B sequences of tokens, none of them empty.

  Returns:
    [B, T] int32, padded on the right with their last tokens, and the lengths
    [B] int32.
  """
  lengths = np.array([len(prompt) for prompt in prompts], np.int32)
  if not lengths.size or not lengths.all():
    raise UsageError('an empty prompt; at least 1 token is possible')
  longest = int(lengths.max())
  rows = [[*p, *[p[-1]] * (longest - len(p))] for p in prompts]
  return np.array(rows, np.int32), lengths


def generate(
  model: SequenceModel,
  weights: Weights,
  prompt: Array | np.ndarray,
  max_new: int,
  *,
  key: Key | None = None,
  method: str = 'sample',
  processors: Sequence[sampling.Processor] = (),
  stop_token: int | None = None,
  lengths: Array | np.ndarray | None = None,
  carry: Any = None,
  num_beams: int = 4,
  length_power: float = 0.0,
  cache: bool = True,
) -> Generated:
  """Continues prompts, as one compiled program.

  Beam search keeps the K likeliest beginnings and returns the best sequence by
  log-probability / length^length_power, those that are cut off by max_new among
  them; it ends when no beam can become better than one that has ended.

  >>> from dl_lectures.nets import sequence
  >>> model = sequence.gru(8, 5, vocab_size=5)
  >>> prompt = jnp.array([[1, 2], [3, 4]])
  >>> weights = model.init(jax.random.key(0), prompt)
  >>> new = generate(model, weights, prompt, 6, key=jax.random.key(1))
  >>> new.tokens.shape, new.lengths.tolist()
  ((2, 6), [6, 6])

  Args:
    model: of tokens; its outputs are logits.
    weights: its weights.
    prompt: [B, T] integers, T at least 1.
    max_new: N.
    key: used up by 'sample'; others draw nothing.
    method: one of `METHODS`.
    processors: of the logits, see `ops.sampling`.
    stop_token: the token that ends a sequence; None for all to have length N.
    lengths: [B], of right-padded prompts; None for all of T. Not with a carry.
    carry: of B lanes, from which the prompt goes on, with room for T + N; by
      default that of the beginning.
    num_beams: K.
    length_power: 0 for sums of log-probabilities, 1 for means.
    cache: False to run the model on the whole sequence for each token.

  Raises:
    UsageError: an argument is not possible.
  """
  if method not in METHODS:
    raise UsageError(f'method {method!r}; possible: {", ".join(METHODS)}')
  if num_beams < 1:
    raise UsageError(f'{num_beams} beams; at least 1 is possible')
  if length_power < 0:
    raise UsageError(f'length_power={length_power}; at least 0 is possible')
  prompt, lengths = _check(model, prompt, max_new, lengths, carry)
  if method == 'beam':
    return _beam(
      model,
      weights,
      prompt,
      lengths,
      carry,
      max_new=max_new,
      processors=tuple(processors),
      stop_token=stop_token,
      num_beams=num_beams,
      length_power=length_power,
      cache=cache,
    )
  return _generate(
    model,
    weights,
    prompt,
    lengths,
    carry,
    _uniforms(method, key, max_new, prompt.shape[0]),
    max_new=max_new,
    processors=tuple(processors),
    stop_token=stop_token,
    cache=cache,
  )


def stream(
  model: SequenceModel,
  weights: Weights,
  prompt: Array | np.ndarray,
  max_new: int,
  *,
  key: Key | None = None,
  method: str = 'sample',
  processors: Sequence[sampling.Processor] = (),
  stop_token: int | None = None,
  lengths: Array | np.ndarray | None = None,
  carry: Any = None,
) -> Iterator[np.ndarray]:
  """The tokens of `generate`, each as soon as it is there.

  Args:
    model: as for `generate`, and so are the others.
    weights: its weights.
    prompt: [B, T].
    max_new: N at most.
    key: used up by 'sample'; the same key gives the same tokens.
    method: 'sample' or 'greedy'.
    processors: of the logits.
    stop_token: the stream ends when all lanes have.
    lengths: [B], of right-padded prompts.
    carry: from which the prompt goes on; it is kept.

  Yields:
    [B] int32, up to N times.
  """
  if method not in ('sample', 'greedy'):
    raise UsageError(f'method {method!r} of a stream; possible: sample, greedy')
  prompt, lengths = _check(model, prompt, max_new, lengths, carry)
  uniforms = _uniforms(method, key, max_new, prompt.shape[0])
  # What the loop gives away is not to be the caller's.
  carry = jax.tree.map(jnp.copy, carry)
  logits, state = _start(model, weights, prompt, lengths, carry, max_new, True)
  done = np.zeros(prompt.shape[0], bool)
  for t in range(max_new):
    uniform = None if uniforms is None else uniforms[t]
    token, logits, state = _one(
      model, weights, tuple(processors), logits, state, uniform
    )
    token = np.asarray(token)
    if stop_token is not None:
      token = np.where(done, np.int32(stop_token), token)
      done |= token == stop_token
    yield token
    if done.all():
      return


def score(
  model: SequenceModel,
  weights: Weights,
  tokens: Array | np.ndarray,
  *,
  lengths: Array | np.ndarray | None = None,
  processors: Sequence[sampling.Processor] = (),
  carry: Any = None,
) -> Array:
  """The log-probability of each token given all before, all at once.

  Args:
    model: as for `generate`.
    weights: its weights.
    tokens: [B, T], T at least 2.
    lengths: [B], of right-padded sequences.
    processors: of the logits.
    carry: from which the tokens go on.

  Returns:
    [B, T - 1] float32, for the tokens from the second one on; 0 for padding.
  """
  tokens, lengths = _check(model, tokens, 1, lengths)
  if tokens.shape[1] < 2:
    raise UsageError('1 token to be scored; at least 2 are possible')
  return _score(model, weights, tokens, lengths, carry, tuple(processors))


def _check(model, tokens, max_new, lengths, carry=None):
  """Arrays, if they can be used."""
  if model.vocab_size is None:
    raise UsageError(
      'a model of features was given tokens; one with a vocab_size is possible'
    )
  if jnp.ndim(tokens) != 2 or not jnp.shape(tokens)[1]:
    raise UsageError(
      f'tokens of shape {list(jnp.shape(tokens))}; [B, T] with T of at least 1 '
      'is possible'
    )
  embedding.check_tokens(tokens, model.vocab_size)
  if max_new < 1:
    raise UsageError(f'{max_new} new tokens; at least 1 is possible')
  tokens = jnp.asarray(tokens, jnp.int32)
  if lengths is None:
    return tokens, None
  if carry is not None:
    raise UsageError(
      'prompts of different lengths and a carry; prompts of one length are '
      'possible, as padding would change what the carry holds'
    )
  if jnp.shape(lengths) != tokens.shape[:1]:
    raise UsageError(
      f'lengths of shape {list(jnp.shape(lengths))}; [{tokens.shape[0]}] is '
      'possible'
    )
  try:
    known = np.asarray(lengths)
  except jax.errors.TracerArrayConversionError:
    known = np.ones(1)
  wrong = known[(known < 1) | (known > tokens.shape[1])]
  if wrong.size:
    raise UsageError(
      f'a length of {wrong[0]}; 1 to {tokens.shape[1]} is possible'
    )
  return tokens, jnp.asarray(lengths, jnp.int32)


def _uniforms(method, key, max_new, lanes):
  """[N, B], drawn before any loop; None where nothing is drawn."""
  if method != 'sample':
    return None
  if key is None:
    raise UsageError("method 'sample' without a key; jax.random.key(0) is one")
  return jax.random.uniform(key, (max_new, lanes))


# What a model has in mind between two tokens: (logits [B, V], state). The
# state's leaves are [B, ...] or scalars, as a carry's are.


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _start(model, weights, prompt, lengths, carry, max_new, cache):
  """After the prompt."""
  lanes, length = prompt.shape
  reset = None
  if lengths is not None:
    column = jnp.arange(length)[None]
    shift = (length - lengths)[:, None]
    prompt = jnp.take_along_axis(prompt, (column - shift) % length, axis=1)
    reset = column == shift
  if cache:
    if carry is None:
      carry = model.initial_state(lanes, length + max_new)
    y, carry = model.apply_from(weights, None, carry, prompt, reset)
    return y[:, -1], carry
  prompt = jnp.pad(prompt, ((0, 0), (0, max_new)))
  if reset is not None:
    reset = jnp.pad(reset, ((0, 0), (0, max_new)))
  state = prompt, reset, jnp.int32(length), carry
  return _whole(model, weights, state)[:, length - 1], state


def _whole(model, weights, state):
  tokens, reset, _, carry = state
  if carry is None:
    return model.apply(weights, None, tokens, reset)
  return model.apply_from(weights, None, carry, tokens, reset)[0]


def _next(model, weights, cache, state, token):
  """After one more token [B]."""
  if cache:
    return model.step(weights, state, token)
  tokens, reset, at, carry = state
  tokens = lax.dynamic_update_slice_in_dim(tokens, token[:, None], at, 1)
  state = tokens, reset, at + 1, carry
  y = _whole(model, weights, state)
  return lax.dynamic_index_in_dim(y, at, 1, keepdims=False), state


def _choose(processors, logits, uniform):
  """Tokens [B], and their log-probabilities."""
  logits = sampling.process(processors, jnp.asarray(logits, jnp.float32))
  if uniform is None:
    token = sampling.most_likely(logits)
  else:
    token = jax.vmap(sampling.draw)(logits, uniform)
  return token, _pick(jax.nn.log_softmax(logits), token)


def _pick(log_probs, tokens):
  return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]


@functools.partial(jax.jit, static_argnums=(0, 2), donate_argnums=4)
def _one(model, weights, processors, logits, state, uniform):
  token, _ = _choose(processors, logits, uniform)
  return token, *_next(model, weights, True, state, token)


@functools.partial(
  jax.jit,
  static_argnames=('model', 'max_new', 'processors', 'stop_token', 'cache'),
)
def _generate(
  model,
  weights,
  prompt,
  lengths,
  carry,
  uniforms,
  *,
  max_new,
  processors,
  stop_token,
  cache,
):
  lanes = prompt.shape[0]
  logits, state = _start(model, weights, prompt, lengths, carry, max_new, cache)

  def running(loop):
    t, _, _, done, *_ = loop
    return (t < max_new) & ~jnp.all(done)

  def step(loop):
    t, logits, state, done, tokens, log_probs = loop
    uniform = None if uniforms is None else uniforms[t]
    token, log_prob = _choose(processors, logits, uniform)
    if stop_token is not None:
      token = jnp.where(done, stop_token, token)
      log_prob = jnp.where(done, 0, log_prob)
      done |= token == stop_token
    logits, state = _next(model, weights, cache, state, token)
    tokens, log_probs = tokens.at[t].set(token), log_probs.at[t].set(log_prob)
    return t + 1, logits, state, done, tokens, log_probs

  end = 0 if stop_token is None else stop_token
  _, _, _, _, tokens, log_probs = lax.while_loop(
    running,
    step,
    (
      jnp.int32(0),
      logits,
      state,
      jnp.zeros(lanes, bool),
      jnp.full((max_new, lanes), end, jnp.int32),
      jnp.zeros((max_new, lanes)),
    ),
  )
  return _generated(tokens.T, log_probs.T, stop_token)


def _generated(tokens, log_probs, stop_token):
  before = jnp.zeros(tokens.shape, bool)
  if stop_token is not None:
    ended = jnp.cumsum(tokens == stop_token, axis=1)
    before = ended - (tokens == stop_token) > 0
  return Generated(tokens, log_probs, jnp.sum(~before, axis=1, dtype=jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 5))
def _score(model, weights, tokens, lengths, carry, processors):
  inputs = tokens[:, :-1]
  if carry is None:
    y = model.apply(weights, None, inputs)
  else:
    y, _ = model.apply_from(weights, None, carry, inputs)
  logits = sampling.process(processors, jnp.asarray(y, jnp.float32))
  log_probs = _pick(jax.nn.log_softmax(logits), tokens[:, 1:])
  if lengths is None:
    return log_probs
  real = jnp.arange(1, tokens.shape[1])[None] < lengths[:, None]
  return jnp.where(real, log_probs, 0)


class _Beams(NamedTuple):
  """Beginnings, and the best that has ended.

  Attributes:
    logits: [B K, V], what the model says next.
    state: [B K, ...] each, or scalars.
    tokens: [B, K, N].
    log_probs: [B, K, N].
    total: [B, K], their sums.
    best: of those that have ended (tokens, log_probs) [B, N] each.
    best_score: [B], -inf before.
  """

  logits: Array
  state: Any
  tokens: Array
  log_probs: Array
  total: Array
  best: tuple[Array, Array]
  best_score: Array


@functools.partial(
  jax.jit,
  static_argnames=(
    'model',
    'max_new',
    'processors',
    'stop_token',
    'num_beams',
    'length_power',
    'cache',
  ),
)
def _beam(
  model,
  weights,
  prompt,
  lengths,
  carry,
  *,
  max_new,
  processors,
  stop_token,
  num_beams,
  length_power,
  cache,
):
  lanes = prompt.shape[0]
  logits, state = _start(model, weights, prompt, lengths, carry, max_new, cache)
  vocabulary = logits.shape[-1]
  end = 0 if stop_token is None else stop_token

  def pick(tree, index):
    """Lanes, of what has lanes."""
    return jax.tree.map(lambda x: x[index] if jnp.ndim(x) else x, tree)

  def running(loop):
    t, beams = loop
    # Each token more makes a sum smaller, and length at best the mean larger.
    bound = jnp.max(beams.total, axis=1) / max_new**length_power
    return (t < max_new) & jnp.any(bound > beams.best_score)

  def extend(beams, t, parent, token, log_prob):
    """Beginnings [B, K, N] with one token more."""
    tokens, log_probs = (
      jnp.take_along_axis(x, parent[:, :, None], axis=1)
      for x in (beams.tokens, beams.log_probs)
    )
    return tokens.at[:, :, t].set(token), log_probs.at[:, :, t].set(log_prob)

  def step(loop):
    t, beams = loop
    each = sampling.process(processors, jnp.asarray(beams.logits, jnp.float32))
    each = jax.nn.log_softmax(each).reshape(lanes, num_beams * vocabulary)
    total = jnp.repeat(beams.total, vocabulary, axis=1) + each
    # Each beam can end in one way: of 2 K candidates K at least go on.
    total, index = lax.top_k(total, min(2 * num_beams, total.shape[1]))
    parent, token = index // vocabulary, (index % vocabulary).astype(jnp.int32)
    log_prob = jnp.take_along_axis(each, index, axis=1)

    best, best_score = beams.best, beams.best_score
    if stop_token is not None:
      ends = token == stop_token
      scores = jnp.where(ends, total / (t + 1) ** length_power, -jnp.inf)
      chosen = jnp.argmax(scores, axis=1)[:, None]
      ended = [
        x[:, 0]
        for x in extend(
          beams,
          t,
          *(
            jnp.take_along_axis(x, chosen, axis=1)
            for x in (parent, token, log_prob)
          ),
        )
      ]
      scores = jnp.max(scores, axis=1)
      better = scores > best_score
      best = tuple(
        jnp.where(better[:, None], new, old)
        for new, old in zip(ended, best, strict=True)
      )
      best_score = jnp.maximum(scores, best_score)
      total = jnp.where(ends, -jnp.inf, total)
    total, kept = lax.top_k(total, num_beams)
    parent, token, log_prob = (
      jnp.take_along_axis(x, kept, axis=1) for x in (parent, token, log_prob)
    )
    tokens, log_probs = extend(beams, t, parent, token, log_prob)
    parent += num_beams * jnp.arange(lanes)[:, None]
    state = pick(beams.state, parent.reshape(-1))
    logits, state = _next(model, weights, cache, state, token.reshape(-1))
    return t + 1, _Beams(
      logits, state, tokens, log_probs, total, best, best_score
    )

  copies = jnp.repeat(jnp.arange(lanes), num_beams)
  nothing = jnp.full((lanes, num_beams, max_new), end, jnp.int32)
  # All beams are one at first.
  first = jnp.where(jnp.arange(num_beams) == 0, 0.0, -jnp.inf)
  beams = _Beams(
    logits=logits[copies],
    state=pick(state, copies),
    tokens=nothing,
    log_probs=jnp.zeros(nothing.shape),
    total=jnp.broadcast_to(first, nothing.shape[:2]),
    best=(nothing[:, 0], jnp.zeros((lanes, max_new))),
    best_score=jnp.full(lanes, -jnp.inf),
  )
  _, beams = lax.while_loop(running, step, (jnp.int32(0), beams))
  cut_off = beams.total[:, 0] / max_new**length_power > beams.best_score
  tokens, log_probs = (
    jnp.where(cut_off[:, None], live[:, 0], best)
    for live, best in zip(
      (beams.tokens, beams.log_probs), beams.best, strict=True
    )
  )
  return _generated(tokens, log_probs, stop_token)
