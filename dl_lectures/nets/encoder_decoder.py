"""One sequence into another: an encoder, a decoder, and what passes between.

Sutskever, Vinyals & Le, "Sequence to sequence learning with neural networks",
NeurIPS 2014 [S]: the source becomes one vector, from which the target is
written. Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning
to align and translate", ICLR 2015 [B]: every vector of the source is kept, and
each output looks at those that it needs. Slides: deck 003, "Sequence to
sequence", "Attention".

    source ──> LSTM forth, LSTM back ──> vectors [B, S, 3 H] ──┐
                         | last states                         | attention
                         v                                     v
    target so far ──> LSTM ───────────────────────> h ──> what comes next

The decoder is a `SequenceModel` whose carry holds what the encoder said:
`training.generation` writes with it as with any other. What is read need not be
a sequence: `with_reader` makes a decoder for whatever becomes vectors.

Unlike [B], the decoder looks after its step rather than before it (Luong, Pham
& Manning, "Effective approaches to attention-based neural machine translation",
EMNLP 2015): in training all steps then look at once. With `looks_first` it is
[B]'s own order: the LSTM reads what it sees, and so remembers it.

Shapes: B batch, S source, T target, H units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from dl_lectures.nets.attention import AdditiveAttention, drop
from dl_lectures.nets.embedding import Embedding
from dl_lectures.nets.linear import Linear
from dl_lectures.nets.recurrent import LSTM
from dl_lectures.nets.sequence import SequenceModel, Weights, from_forward
from dl_lectures.types import Array, Key


class Memory(NamedTuple):
  """The carry of a decoder.

  Attributes:
    vectors: [B, S, F], of the source; F = 3 H of two LSTMs and the words.
    mask: [B, S] bool, those that there are.
    state: of the decoder's LSTM.
  """

  vectors: Array
  mask: Array
  state: hk.LSTMState


class Both(NamedTuple):
  """The weights of an encoder and of its decoder."""

  encoder: Weights
  decoder: Weights


class EncoderDecoder(NamedTuple):
  """Functions of weights and sequences, pure and not jitted.

  >>> net = encoder_decoder(8, source_size=5, target_size=7)
  >>> source, lengths = jnp.array([[3, 1, 0], [2, 4, 4]]), jnp.array([2, 3])
  >>> target = jnp.array([[1, 6], [1, 5]])
  >>> weights = net.init(jax.random.key(0), source, lengths, target)
  >>> memory = net.encode(weights, source, lengths)
  >>> logits, _ = net.decoder.apply_from(weights.decoder, None, memory, target)
  >>> logits.shape, net.look(weights, memory, target).shape
  ((2, 2, 7), (2, 2, 3))

  Attributes:
    init: (key, *source, target [B, T]) -> weights; a sequence as a source is
      tokens [B, S] and lengths [B].
    encode: (weights, *source, key=None, is_training=False) -> the decoder's
      first carry; the key is for what is dropped.
    decoder: a model of the target, for weights.decoder.
    look: (weights, memory, target) -> [B, T, S], at what each step looks; None
      for a decoder that does not look.
  """

  init: Callable[..., Both]
  encode: Callable[..., Memory]
  decoder: SequenceModel
  look: Callable[..., Array] | None


def encoder_decoder(
  hidden_size: int,
  *,
  source_size: int,
  target_size: int,
  attention: bool = True,
  dropout: float = 0.0,
) -> EncoderDecoder:
  """LSTMs of H units; with attention, or through one vector.

  Args:
    hidden_size: H, and the width of the embeddings.
    source_size: tokens of the source.
    target_size: tokens of the target.
    attention: whether the decoder sees all of the source, or only its end.
    dropout: share that is dropped in training, of what the LSTMs read and of
      what words are chosen by (Zaremba et al. 2014: not of what an LSTM tells
      itself).
  """

  def read(source: Array, lengths: Array, is_training: bool = False) -> Memory:
    x = Embedding(source_size, hidden_size, name='source')(source)
    x = drop(x, dropout, is_training)
    mask = jnp.arange(source.shape[1])[None] < lengths[:, None]
    forth, last = LSTM(hidden_size, name='forth').unroll(x, mask=mask)
    # Padding comes first in this direction: it passes the zero state on.
    back, first = LSTM(hidden_size, name='back').unroll(
      x[:, ::-1], mask=mask[:, ::-1]
    )
    # The words themselves too: what is looked for is then there before the
    # LSTMs have learned to pass it on, and attention finds it sooner.
    vectors = jnp.concatenate([forth, back[:, ::-1], x], axis=-1)
    ends = jnp.concatenate([last.hidden, first.hidden], axis=-1)
    state = hk.LSTMState(
      jnp.tanh(Linear(hidden_size, name='hidden')(ends)),
      Linear(hidden_size, name='cell')(ends),
    )
    return Memory(vectors, mask, state)

  return with_reader(
    read,
    hidden_size,
    vector_size=3 * hidden_size,
    target_size=target_size,
    attention=attention,
    dropout=dropout,
  )


def with_reader(
  read: Callable[..., Memory],
  hidden_size: int,
  *,
  vector_size: int,
  target_size: int,
  attention: bool = True,
  looks_first: bool = False,
  dropout: float = 0.0,
) -> EncoderDecoder:
  """A decoder, an LSTM of H units, for what a reader makes of a source.

  Args:
    read: a Haiku function, (*source) -> the decoder's first carry.
    hidden_size: H, and the width of the embedding.
    vector_size: F of the memory's vectors.
    target_size: tokens of the target.
    attention: whether the decoder sees the vectors, or only its first state.
    looks_first: whether it looks before each step of its LSTM, or after it.
    dropout: share that is dropped in training; `read` is then also told
      is_training.
  """

  def write(
    x: Array, memory: Memory, reset: Array | None, is_training: bool
  ) -> Any:
    x = Embedding(target_size, hidden_size, name='target')(x)
    x = drop(x, dropout, is_training)
    lstm, weights = LSTM(hidden_size), None
    attend = AdditiveAttention(hidden_size, name='attention')

    def look_and_step(state, inputs):
      x, reset = inputs
      before = state.hidden
      if reset is not None:
        before = jnp.where(reset, 0, before)
      vectors = memory.vectors
      context, weights = attend(before, vectors, vectors, memory.mask)
      x = jnp.concatenate([x, context], axis=-1)[:, None]
      h, state = lstm.unroll(x, state, reset=reset)
      return state, (jnp.concatenate([h[:, 0], context], axis=-1), weights)

    if attention and looks_first:
      times = (
        jnp.swapaxes(x, 0, 1),
        None if reset is None else reset.T[..., None],
      )
      state, seen = hk.scan(look_and_step, memory.state, times)
      h, weights = (jnp.swapaxes(y, 0, 1) for y in seen)
    else:
      h, state = lstm.unroll(x, memory.state, reset=reset)
      if attention:
        vectors = memory.vectors[:, None]
        context, weights = attend(h, vectors, vectors, memory.mask[:, None])
        h = jnp.concatenate([h, context], axis=-1)
    h = jnp.tanh(Linear(hidden_size, name='mix')(h))
    h = drop(h, dropout, is_training)
    logits = Linear(target_size, name='head')(h)
    return logits, memory._replace(state=state), weights

  def forward(x, carry, reset, is_training):
    carry = nothing(x.shape[0], 1) if carry is None else carry
    return write(x, carry, reset, is_training)[:2]

  def nothing(batch_size: int, length: int) -> Memory:
    zeros = jnp.zeros((batch_size, hidden_size))
    return Memory(
      jnp.zeros((batch_size, length, vector_size)),
      jnp.ones((batch_size, length), bool),
      hk.LSTMState(zeros, zeros),
    )

  reader = hk.transform(read)
  looker = hk.without_apply_rng(
    hk.transform(lambda x, memory: write(x, memory, None, False)[2])
  )
  decoder = from_forward(forward, nothing, None, target_size)

  def init(key: Key, *inputs: Array) -> Both:
    *source, target = inputs
    encoder_key, decoder_key = jax.random.split(key)
    params = reader.init(encoder_key, *source)
    return Both((params, {}), decoder.init(decoder_key, target))

  def encode(
    weights: Both,
    *source: Array,
    key: Key | None = None,
    is_training: bool = False,
  ) -> Memory:
    params, _ = weights.encoder
    told = {'is_training': is_training} if dropout else {}
    return reader.apply(params, key, *source, **told)

  def look(weights: Both, memory: Memory, target: Array) -> Array:
    return looker.apply(weights.decoder[0], target, memory)

  return EncoderDecoder(init, encode, decoder, look if attention else None)
