"""One interface for all models of sequences: whole, in pieces, step by step.

Slides: deck 003, all of its models: addition, RNN, LSTM, GRU, dilated
convolutions, WaveNet, transformers.

A `SequenceModel` is a handful of functions. `apply` runs sequences whole from
their beginning; `apply_from` runs a piece from a carry to a carry (truncated
backpropagation, a prompt); `step` does the same with one element. For every
model a scan of `step` gives what `apply` gives, resets inside included.

A carry is a tree whose leaves are [B, ...], or scalars that all lanes share.
So a batch of carries can be picked from, as beam search does.

Shapes: B batch, T time, F features, D outputs (for a language model logits of
the next token, D = V its vocabulary).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jax import lax

from dl_lectures.nets import attention, clock, embedding, recurrent
from dl_lectures.nets.convolution import CausalConv1D
from dl_lectures.nets.linear import Linear
from dl_lectures.types import Array, UsageError

Weights = tuple[hk.Params, hk.MutableState]


class SequenceModel(NamedTuple):
  """Functions of weights and sequences, pure and not jitted.

  `is_training` is a Python bool. A key may be None where nothing is dropped.

  >>> model = gru(8, 5, vocab_size=5)
  >>> tokens = jnp.array([[0, 3, 1], [4, 4, 2]])
  >>> weights = model.init(jax.random.key(0), tokens)
  >>> model.apply(weights, None, tokens).shape
  (2, 3, 5)
  >>> y, carry = model.step(weights, model.initial_state(2, 3), tokens[:, 0])
  >>> y.shape
  (2, 5)

  Attributes:
    init: (key, x) -> weights, which are (params, net_state).
    apply: (weights, key, x, reset=None, is_training=False) -> y [B, T, D]; x is
      [B, T] integers or [B, T, F]. Where reset [B, T] is true, all that came
      before is forgotten.
    apply_from: (weights, key, carry, x, reset=None, is_training=False) ->
      (y, carry).
    step: (weights, carry, x, reset=None) -> (y [B, D], carry); x is [B] or
      [B, F], reset [B].
    initial_state: (batch_size, length) -> carry. Of a longer past than `length`
      a transformer sees the last part; others do not use it.
    receptive_field: the number of elements, its own included, that an output
      can depend on; None for all of them.
    vocab_size: V of the tokens that it reads; None for one of features.
  """

  init: Callable[..., Weights]
  apply: Callable[..., Array]
  apply_from: Callable[..., tuple[Array, Any]]
  step: Callable[..., tuple[Array, Any]]
  initial_state: Callable[[int, int], Any]
  receptive_field: int | None
  vocab_size: int | None


def from_forward(
  forward: Callable[..., tuple[Array, Any]],
  initial_state: Callable[[int, int], Any],
  receptive_field: int | None = None,
  vocab_size: int | None = None,
) -> SequenceModel:
  """A model from one Haiku function.

  Args:
    forward: (x, carry, reset, is_training) -> (y, carry); a carry of None is
      the beginning. It is called with T = 1 for a step.
    initial_state: as of the model.
    receptive_field: as of the model.
    vocab_size: of integers x, for which unknown ones are refused; None for
      floats.
  """
  net = hk.transform_with_state(forward)

  def check(x: Array, rank: int) -> None:
    rank -= vocab_size is not None
    if jnp.ndim(x) != rank:
      shapes = '[B, T], [B] of a step'
      if vocab_size is None:
        shapes = '[B, T, F], [B, F] of a step'
      raise UsageError(
        f'a sequence model was given {list(jnp.shape(x))}; {shapes} is possible'
      )
    if vocab_size is not None:
      embedding.check_tokens(x, vocab_size)

  def init(key, x):
    check(x, 3)
    return net.init(key, x, None, None, False)

  def run(weights, key, x, carry, reset, is_training):
    check(x, 3)
    if reset is not None and reset.shape != x.shape[:2]:
      raise UsageError(
        f'a reset of {list(reset.shape)}; {list(x.shape[:2])} is possible'
      )
    params, net_state = weights
    return net.apply(params, net_state, key, x, carry, reset, is_training)[0]

  def apply(weights, key, x, reset=None, is_training=False):
    return run(weights, key, x, None, reset, is_training)[0]

  def apply_from(weights, key, carry, x, reset=None, is_training=False):
    return run(weights, key, x, carry, reset, is_training)

  def step(weights, carry, x, reset=None):
    check(x, 2)
    reset = None if reset is None else reset[:, None]
    y, carry = run(weights, None, x[:, None], carry, reset, False)
    return y[:, 0], carry

  return SequenceModel(
    init, apply, apply_from, step, initial_state, receptive_field, vocab_size
  )


def rnn(
  hidden_size: int,
  output_size: int,
  *,
  vocab_size: int | None = None,
  num_layers: int = 1,
  dropout: float = 0.0,
) -> SequenceModel:
  """Layers of `recurrent.RNN` and a linear head.

  Args:
    hidden_size: H, and the width of the embedding.
    output_size: D.
    vocab_size: V of tokens [B, T]; None for features [B, T, F].
    num_layers: one upon the other.
    dropout: share of each layer's outputs that is dropped in training
      (Zaremba et al. 2014: not of what a layer tells itself).
  """
  return _recurrent(
    lambda: recurrent.RNN(hidden_size),
    lambda batch_size: jnp.zeros((batch_size, hidden_size)),
    hidden_size,
    output_size,
    vocab_size,
    num_layers,
    dropout,
  )


def gru(
  hidden_size: int,
  output_size: int,
  *,
  vocab_size: int | None = None,
  num_layers: int = 1,
  dropout: float = 0.0,
) -> SequenceModel:
  """Layers of `recurrent.GRU` and a linear head; arguments as of `rnn`."""
  return _recurrent(
    lambda: recurrent.GRU(hidden_size),
    lambda batch_size: jnp.zeros((batch_size, hidden_size)),
    hidden_size,
    output_size,
    vocab_size,
    num_layers,
    dropout,
  )


def lstm(
  hidden_size: int,
  output_size: int,
  *,
  vocab_size: int | None = None,
  num_layers: int = 1,
  dropout: float = 0.0,
  wiring: recurrent.Wiring = recurrent.STANDARD,
) -> SequenceModel:
  """Layers of `recurrent.LSTM` and a linear head; arguments as of `rnn`.

  >>> slow_to_forget = recurrent.STANDARD._replace(
  ...   forget_gate=recurrent.Gate(bias=5.0))
  >>> model = lstm(8, 3, wiring=slow_to_forget)
  """

  def initial_state(batch_size: int) -> hk.LSTMState:
    zeros = jnp.zeros((batch_size, hidden_size))
    return hk.LSTMState(zeros, zeros)

  return _recurrent(
    lambda: recurrent.LSTM(hidden_size, wiring),
    initial_state,
    hidden_size,
    output_size,
    vocab_size,
    num_layers,
    dropout,
  )


def _recurrent(
  make, state_of, hidden_size, output_size, vocab_size, num_layers, dropout
):
  def forward(x, carry, reset, is_training):
    x = _embed(x, vocab_size, hidden_size)
    carry = carry or [None] * num_layers
    states = []
    for state in carry:
      x, state = make().unroll(x, state, reset=reset)
      x = attention.drop(x, dropout, is_training)
      states.append(state)
    return Linear(output_size, name='head')(x), tuple(states)

  def initial_state(batch_size, length):
    del length
    return tuple(state_of(batch_size) for _ in range(num_layers))

  return from_forward(forward, initial_state, None, vocab_size)


def addition(
  width: int, output_size: int, *, num_inputs: int, tokens: bool = True
) -> SequenceModel:
  """The sum of the elements' vectors, and a linear head: order cannot matter.

  Counts are added up before they become vectors, so that the order does not
  matter to the last bit.

  Args:
    width: of the vectors.
    output_size: D.
    num_inputs: V of tokens, or F of features.
    tokens: whether inputs are tokens [B, T], or features [B, T, F].
  """

  def forward(x, carry, reset, is_training):
    del is_training
    counts = jax.nn.one_hot(x, num_inputs) if tokens else x

    def add(total, inputs):
      x, reset = inputs
      total = total if reset is None else jnp.where(reset, 0, total)
      return total + x, total + x

    if carry is None:
      carry = jnp.zeros(counts.shape[::2], counts.dtype)
    if reset is not None:
      reset = reset.T[:, :, None]
    time_major = jnp.swapaxes(counts, 0, 1)
    carry, totals = lax.scan(add, carry, (time_major, reset))
    vectors = Linear(width, with_bias=False, name='embedding')
    y = vectors(jnp.swapaxes(totals, 0, 1))
    return Linear(output_size, name='head')(y), carry

  def initial_state(batch_size, length):
    del length
    return jnp.zeros((batch_size, num_inputs))

  vocab_size = num_inputs if tokens else None
  return from_forward(forward, initial_state, None, vocab_size)


class RingState(NamedTuple):
  """What convolutions remember.

  Attributes:
    clock: where the sequences stand.
    rings: of each layer [B, (kernel_size - 1) rate, C].
  """

  clock: clock.Clock
  rings: tuple[Array, ...]


def dilated(
  channels: int,
  output_size: int,
  *,
  rates: Sequence[int] = (1, 2, 4, 8),
  kernel_size: int = 2,
  vocab_size: int | None = None,
) -> SequenceModel:
  """A stack of causal convolutions, x <- x + relu(conv(x)), and a linear head.

  With rates (1,) and a kernel of n it is a neural n-gram model: it sees n
  elements and nothing else.

  Args:
    channels: of every layer, and the width of the embedding.
    output_size: D.
    rates: the layers' dilations.
    kernel_size: taps of each.
    vocab_size: V of tokens [B, T]; None for features [B, T, F].
  """

  def layers(x, convolve):
    x = _embed(x, vocab_size, channels, linear=True)
    for rate in rates:
      x = x + jax.nn.relu(
        convolve(CausalConv1D(channels, kernel_size, rate), x)
      )
    return Linear(output_size, name='head')(x)

  return _convolutional(layers, channels, rates, kernel_size, vocab_size)


def wavenet(
  channels: int,
  output_size: int,
  *,
  rates: Sequence[int] = (1, 2, 4, 8),
  kernel_size: int = 2,
  skip_channels: int | None = None,
  vocab_size: int | None = None,
) -> SequenceModel:
  """WaveNet: gated convolutions with residual and skip connections.

  Van den Oord et al., "WaveNet: a generative model for raw audio", 2016,
  equation 2 and figure 4. One element more costs the same however long the
  past: the rings of Le Paine et al., "Fast WaveNet generation algorithm", 2016.

  Args:
    channels: of the residual path, and the width of the embedding.
    output_size: D.
    rates: the layers' dilations; the paper's: 1, 2, 4, ..., 512, repeated.
    kernel_size: taps of each.
    skip_channels: of the sum that the output is made of; `channels` by default.
    vocab_size: V of tokens [B, T]; None for features [B, T, F].
  """
  skip_channels = skip_channels or channels

  def layers(x, convolve):
    x = _embed(x, vocab_size, channels, linear=True)
    total = jnp.zeros((*x.shape[:2], skip_channels), x.dtype)
    for i, rate in enumerate(rates):
      sums = convolve(CausalConv1D(2 * channels, kernel_size, rate), x)
      content, gate = jnp.split(sums, 2, axis=-1)
      y = jnp.tanh(content) * jax.nn.sigmoid(gate)
      total += Linear(skip_channels, name='skip')(y)
      if i + 1 < len(rates):  # what nobody reads would never be trained
        x += Linear(channels, name='residual')(y)
    y = Linear(skip_channels, name='hidden')(jax.nn.relu(total))
    return Linear(output_size, name='head')(jax.nn.relu(y))

  return _convolutional(layers, channels, rates, kernel_size, vocab_size)


def _convolutional(layers, channels, rates, kernel_size, vocab_size):
  """`layers` (x, convolve) -> y; convolve(module, x) keeps the rings."""

  def forward(x, carry, reset, is_training):
    del is_training
    before = clock.zero(x.shape[0]) if carry is None else carry.clock
    numbers, start, after = clock.advance(before, x.shape[1], reset)
    position = numbers[None] - start
    if carry is None and reset is None:
      position = None  # all begin here, and nothing need be masked
    left = iter([None] * len(rates) if carry is None else carry.rings)
    rings = []

    def convolve(module, x):
      y, ring = module(x, position, next(left), before.number)
      rings.append(ring)
      return y

    y = layers(x, convolve)
    return y, None if carry is None else RingState(after, tuple(rings))

  def initial_state(batch_size, length):
    del length
    lengths = [(kernel_size - 1) * rate for rate in rates]
    return RingState(
      clock.zero(batch_size),
      tuple(jnp.zeros((batch_size, n, channels)) for n in lengths),
    )

  reach = 1 + (kernel_size - 1) * sum(rates)
  return from_forward(forward, initial_state, reach, vocab_size)


class CacheState(NamedTuple):
  """What a transformer remembers.

  Attributes:
    clock: where the sequences stand.
    layers: the keys and values of each.
  """

  clock: clock.Clock
  layers: tuple[attention.Cache, ...]


POSITIONS = ('learned', 'sinusoidal', 'rotary', 'none')


def transformer(
  width: int,
  output_size: int,
  *,
  num_layers: int,
  num_heads: int,
  vocab_size: int | None = None,
  positions: str = 'learned',
  max_length: int | None = None,
  with_bias: bool = True,
  tied: bool = False,
  dropout: float = 0.0,
) -> SequenceModel:
  """GPT-2's transformer: embeddings, pre-LN blocks, a norm, a linear head.

  Radford et al., "Language models are unsupervised multitask learners", 2019.
  The published weights fit, name for name: see `systems/gpt.py`.

  Args:
    width: of the embedding and of every layer.
    output_size: D.
    num_layers: blocks.
    num_heads: heads of each, a divisor of the width.
    vocab_size: V of tokens [B, T]; None for features [B, T, F].
    positions: of `POSITIONS`.
    max_length: the positions that are learned; needed for 'learned' alone.
    with_bias: whether products and norms have biases; GPT-2's have.
    tied: whether the head is the embedding, as GPT-2's; D = V then.
    dropout: share that is dropped in training, of the embedding and of what
      each half of a block adds.

  Raises:
    UsageError: settings that do not fit, or a sequence longer than max_length.
  """
  if positions not in POSITIONS:
    raise UsageError(
      f'positions {positions!r}; possible: {", ".join(POSITIONS)}'
    )
  if (positions == 'learned') != (max_length is not None):
    raise UsageError(
      f'positions {positions!r} with max_length={max_length}; a max_length '
      "with 'learned', and none with others, is possible"
    )
  if width % num_heads:
    raise UsageError(
      f'{num_heads} heads of width {width}; its divisors are possible'
    )
  if tied and output_size != vocab_size:
    raise UsageError(
      f'a tied head of {output_size} outputs and a vocabulary of {vocab_size}; '
      'the same is possible'
    )
  longest = math.inf if max_length is None else max_length

  def check_length(length: int) -> None:
    if length > longest:
      raise UsageError(
        f'a sequence of {length} for a model with {longest} learned positions; '
        f'1 to {longest} are possible'
      )

  def forward(x, carry, reset, is_training):
    check_length(x.shape[1])
    after = None
    if carry is None:
      sight = attention.look(x.shape[1], reset)
    else:
      size = carry.layers[0].keys.shape[2]
      sight, after = attention.look_back(carry.clock, x.shape[1], size, reset)
    tokens = embedding.Embedding(vocab_size or 0, width, name='embedding')
    x = Linear(width, name='features')(x) if vocab_size is None else tokens(x)
    if positions == 'learned':
      table = embedding.Embedding(max_length, width, name='positions')
      x += table(sight.position)
    elif positions == 'sinusoidal':
      x += embedding.sinusoidal(sight.position, width).astype(x.dtype)
    x = attention.drop(x, dropout, is_training)
    layers = []
    for i in range(num_layers):
      block = attention.TransformerBlock(
        num_heads,
        rotary=positions == 'rotary',
        with_bias=with_bias,
        dropout=dropout,
        depth=num_layers,
        name=f'block_{i}',
      )
      cache = None if carry is None else carry.layers[i]
      x, cache = block(x, sight, cache, is_training)
      layers.append(cache)
    x = attention.norm('norm', with_bias)(x)
    if tied:
      y = tokens.logits(x)
    else:
      normal = hk.initializers.RandomNormal(0.02)
      y = Linear(output_size, False, w_init=normal, name='head')(x)
    return y, None if after is None else CacheState(after, tuple(layers))

  def initial_state(batch_size, length):
    check_length(length)
    shape = batch_size, num_heads, length, width // num_heads
    return CacheState(
      clock.zero(batch_size),
      tuple(
        attention.Cache(jnp.zeros(shape), jnp.zeros(shape))
        for _ in range(num_layers)
      ),
    )

  return from_forward(forward, initial_state, None, vocab_size)


def _embed(x, vocab_size, width, linear=False):
  """Tokens as vectors; features as they are, or made as wide."""
  if vocab_size is not None:
    return embedding.Embedding(vocab_size, width, name='embedding')(x)
  return Linear(width, name='embedding')(x) if linear else x
