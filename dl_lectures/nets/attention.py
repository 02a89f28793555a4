"""Attention: multi-head with a cache, additive, pointers; the pre-LN block.

Vaswani et al., "Attention is all you need", 2017; Radford et al., "Language
models are unsupervised multitask learners" (GPT-2), 2019; Bahdanau, Cho &
Bengio, "Neural machine translation by jointly learning to align and translate",
2015; Vinyals, Fortunato & Jaitly, "Pointer networks", 2015.
Slides: deck 003, "Attention", "Transformer"; deck 002, "AlphaStar: policy".

Elements are numbered (`clock`). One rule then says who sees whom, in training,
in a prompt and in generation, through resets and through a cache that is full:

    number the query's sequence began with <= the key's <= the query's

Shapes: B batch, T time, S keys, N slots of the cache, D width, H heads, K = D/H
of each.
"""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dl_lectures.nets import clock as clock_lib
from dl_lectures.nets import embedding
from dl_lectures.nets.linear import Linear
from dl_lectures.types import Array, UsageError

# Large enough that its exponential is 0, and no infinity minus infinity.
_NEVER = -1e30


class Cache(NamedTuple):
  """The keys and values of one layer, a ring.

  Heads come first: so a product with one query needs nothing moved, and takes
  a tenth of the time on the CPU.

  Attributes:
    keys: [B, H, N, K]; element n is in slot n mod N.
    values: [B, H, N, K].
  """

  keys: Array
  values: Array


class Sight(NamedTuple):
  """Who sees whom in one call; the same for all layers.

  Attributes:
    position: [B or 1, T] int32, since the beginning of the sequence.
    mask: [B or 1, T, S] bool, the keys that each query sees; None for all those
      up to itself.
    slots: [T] int32, where in the cache the elements go; None without one.
  """

  position: Array
  mask: Array | None = None
  slots: Array | None = None


def look(length: int, reset: Array | None = None) -> Sight:
  """The sight of whole sequences, without a cache.

  >>> sight = look(3, jnp.array([[False, False, True]]))
  >>> sight.position.tolist(), sight.mask[0].astype(int).tolist()
  ([[0, 1, 0]], [[1, 0, 0], [1, 1, 0], [0, 0, 1]])

  Args:
    length: T.
    reset: [B, T] bool, a new sequence begins.
  """
  if reset is None:
    return Sight(jnp.arange(length)[None])
  zero = clock_lib.zero(reset.shape[0])
  numbers, start, _ = clock_lib.advance(zero, length, reset)
  return Sight(numbers[None] - start, _between(start, numbers, numbers))


def look_back(
  clock: clock_lib.Clock,
  length: int,
  num_slots: int,
  reset: Array | None = None,
) -> tuple[Sight, clock_lib.Clock]:
  """The sight of what follows on a cache, and the clock after it.

  Keys are the cache's and then the new ones; with a single new one the cache's
  alone, it being written before.

  Args:
    clock: before it.
    length: T.
    num_slots: N. Of a longer past the last N elements are seen.
    reset: [B, T] bool, a new sequence begins.
  """
  numbers, start, after = clock_lib.advance(clock, length, reset)
  last = clock.number - (length > 1)  # the newest that the ring holds
  keys = last - (last - jnp.arange(num_slots)) % num_slots
  if length > 1:
    keys = jnp.concatenate([keys, numbers])
  first = jnp.maximum(start, numbers[None] - num_slots + 1)
  mask = _between(first, keys, numbers)
  return Sight(numbers[None] - start, mask, numbers % num_slots), after


def _between(first: Array, keys: Array, queries: Array) -> Array:
  """[B, T, S] from [B, T], [S] and [T]."""
  keys = keys[None, None]
  return (first[:, :, None] <= keys) & (keys <= queries[None, :, None])


def attend(
  query: Array, key: Array, value: Array, mask: Array | None = None
) -> Array:
  """softmax(q k / sqrt(K)) v of each head: [B, T, H, K].

  Vaswani et al. 2017, equation 1.

  Args:
    query: [B, T, H, K].
    key: [B, S, H, K].
    value: [B, S, H, K].
    mask: [B or 1, T, S] bool, the keys that are seen; None for those up to the
      query, S = T.
  """
  if jax.default_backend() != 'cpu':
    return jax.nn.dot_product_attention(
      query,
      key,
      value,
      mask=None if mask is None else mask[:, None],
      is_causal=mask is None,
    )
  if mask is None:
    ones = np.ones((1, query.shape[1], key.shape[1]), bool)
    mask = jnp.asarray(np.tril(ones))
  scores = jnp.einsum('bthk,bshk->bhts', query, key) / query.shape[-1] ** 0.5
  weights = _softmax(scores, mask[:, None], axis=-1)
  return jnp.einsum('bhts,bshk->bthk', weights, value)


def _attend_cached(query, key, value, mask):
  """`attend` with keys and values as they lie in a cache, [B, H, S, K]."""
  scores = jnp.einsum('bthk,bhsk->bhts', query, key) / query.shape[-1] ** 0.5
  weights = _softmax(scores, mask[:, None], axis=-1)
  return jnp.einsum('bhts,bhsk->bthk', weights, value)


def _softmax(scores: Array, mask: Array, axis: int) -> Array:
  # Halves are added up in 32 bits.
  wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
  masked = jnp.where(mask, wide, _NEVER)
  return jax.nn.softmax(masked, axis=axis).astype(scores.dtype)


class MultiHeadAttention(hk.Module):
  """Self-attention with one product for queries, keys and values.

  Laid out as GPT-2's: w [D, 3 D] of queries, keys and values in this order,
  head h the h-th K columns of each.

  >>> def forward(x):
  ...   return MultiHeadAttention(4)(x, look(x.shape[1]))[0]
  >>> net = hk.without_apply_rng(hk.transform(forward))
  >>> x = jnp.zeros([2, 10, 32])
  >>> net.apply(net.init(jax.random.key(0), x), x).shape
  (2, 10, 32)
  """

  def __init__(
    self,
    num_heads: int,
    *,
    rotary: bool = False,
    with_bias: bool = True,
    w_init: hk.initializers.Initializer | None = None,
    out_init: hk.initializers.Initializer | None = None,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      num_heads: H, a divisor of D.
      rotary: whether queries and keys are turned by their positions.
      with_bias: whether the two products have biases.
      w_init: of the first product.
      out_init: of the second one.
      name: the module's name.
    """
    super().__init__(name=name)
    self.num_heads, self.rotary = num_heads, rotary
    self.with_bias, self.w_init, self.out_init = with_bias, w_init, out_init

  def __call__(
    self, x: Array, sight: Sight, cache: Cache | None = None
  ) -> tuple[Array, Cache | None]:
    """Attends.

    Args:
      x: [B, T, D].
      sight: from `look`, or from `look_back` with a cache; for a set of which
        all see all, a `Sight` with a mask of its own.
      cache: of what came before.

    Returns:
      [B, T, D], and the cache with x in it.
    """
    width = x.shape[-1]
    if width % self.num_heads:
      raise UsageError(
        f'{self.num_heads} heads of width {width}; its divisors are possible'
      )
    shape = *x.shape[:-1], 3, self.num_heads, width // self.num_heads
    fused = Linear(3 * width, self.with_bias, w_init=self.w_init, name='qkv')(x)
    query, key, value = jnp.moveaxis(fused.reshape(shape), 2, 0)
    if self.rotary:
      position = sight.position[:, :, None]
      query = embedding.rotary(query, position)
      key = embedding.rotary(key, position)
    if cache is None:
      y = attend(query, key, value, sight.mask)
    else:
      key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
      cache, key, value = _remember(cache, sight.slots, key, value)
      y = _attend_cached(query, key, value, sight.mask)
    out = Linear(width, self.with_bias, w_init=self.out_init, name='out')
    return out(y.reshape(x.shape)), cache


def _remember(cache, slots, key, value):
  """The cache with new elements, and the keys and values to be seen."""
  length, size = key.shape[2], cache.keys.shape[2]
  new = Cache(key.astype(cache.keys.dtype), value.astype(cache.values.dtype))
  if length == 1:
    cache = jax.tree.map(
      lambda ring, one: lax.dynamic_update_slice_in_dim(
        ring, one, slots[0], axis=2
      ),
      cache,
      new,
    )
    return cache, *cache
  seen = jax.tree.map(
    lambda ring, some: jnp.concatenate([ring, some], axis=2), cache, new
  )
  kept = slots[-min(length, size) :]
  cache = jax.tree.map(
    lambda ring, some: ring.at[:, :, kept].set(some[:, :, -size:]), cache, new
  )
  return cache, *seen


class TransformerBlock(hk.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)): GPT-2's, norms first.

  >>> def forward(x):
  ...   return TransformerBlock(4)(x, look(x.shape[1]))[0]
  >>> net = hk.without_apply_rng(hk.transform(forward))
  >>> x = jnp.zeros([2, 10, 32])
  >>> params = net.init(jax.random.key(0), x)
  >>> net.apply(params, x).shape, sum(w.size for w in jax.tree.leaves(params))
  ((2, 10, 32), 12704)
  """

  def __init__(
    self,
    num_heads: int,
    *,
    rotary: bool = False,
    with_bias: bool = True,
    dropout: float = 0.0,
    depth: int = 1,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      num_heads: H, a divisor of D.
      rotary: as for `MultiHeadAttention`.
      with_bias: whether products and norms have biases.
      dropout: share of each branch's outputs that is dropped in training.
      depth: blocks of the network; what each adds starts smaller by the root of
        twice that (GPT-2, section 2.3).
      name: the module's name.
    """
    super().__init__(name=name)
    self.num_heads, self.rotary = num_heads, rotary
    self.with_bias, self.dropout, self.depth = with_bias, dropout, depth

  def __call__(
    self,
    x: Array,
    sight: Sight,
    cache: Cache | None = None,
    is_training: bool = False,
  ) -> tuple[Array, Cache | None]:
    """As `MultiHeadAttention`; in training dropout needs a key."""
    normal = hk.initializers.RandomNormal
    inner, outer = normal(0.02), normal(0.02 / (2 * self.depth) ** 0.5)
    attention = MultiHeadAttention(
      self.num_heads,
      rotary=self.rotary,
      with_bias=self.with_bias,
      w_init=inner,
      out_init=outer,
      name='attention',
    )
    y, cache = attention(norm('norm_1', self.with_bias)(x), sight, cache)
    x += drop(y, self.dropout, is_training)
    y = norm('norm_2', self.with_bias)(x)
    width = x.shape[-1]
    y = Linear(4 * width, self.with_bias, w_init=inner, name='mlp_in')(y)
    y = jax.nn.gelu(y, approximate=True)
    y = Linear(width, self.with_bias, w_init=outer, name='mlp_out')(y)
    return x + drop(y, self.dropout, is_training), cache


def norm(name: str, with_bias: bool = True) -> hk.LayerNorm:
  """GPT-2's layer norm."""
  return hk.LayerNorm(-1, True, with_bias, eps=1e-5, name=name)


def drop(x: Array, rate: float, is_training: bool) -> Array:
  """Dropout, in training; it takes a key of the transform's then."""
  if rate and is_training:
    return hk.dropout(hk.next_rng_key(), rate, x)
  return x


class AdditiveScores(hk.Module):
  """v tanh(W q + U k): how well each key fits a query, [..., S].

  Bahdanau et al. 2015, appendix A.1.2; Vinyals et al. 2015, equation 3.
  """

  def __init__(self, hidden_size: int, name: str | None = None):
    """Makes the module; `hidden_size` is the length of v."""
    super().__init__(name=name)
    self.hidden_size = hidden_size

  def __call__(self, query: Array, keys: Array) -> Array:
    """Scores keys [..., S, F] for a query [..., G]."""
    hidden = jnp.expand_dims(Linear(self.hidden_size)(query), -2)
    hidden += Linear(self.hidden_size, with_bias=False)(keys)
    return Linear(1, with_bias=False)(jnp.tanh(hidden))[..., 0]


class AdditiveAttention(hk.Module):
  """The mean of values, each weighted by how well its key fits.

  Bahdanau et al. 2015, equations 5 and 6.

  >>> def forward(query, keys):
  ...   return AdditiveAttention(8)(query, keys, keys)
  >>> net = hk.without_apply_rng(hk.transform(forward))
  >>> query, keys = jnp.ones([2, 3]), jnp.ones([2, 5, 4])
  >>> params = net.init(jax.random.key(0), query, keys)
  >>> context, weights = net.apply(params, query, keys)
  >>> context.shape, weights.shape, weights.sum(-1).round(2).tolist()
  ((2, 4), (2, 5), [1.0, 1.0])
  """

  def __init__(self, hidden_size: int, name: str | None = None):
    """Makes the module; `hidden_size` as for `AdditiveScores`."""
    super().__init__(name=name)
    self.hidden_size = hidden_size

  def __call__(
    self, query: Array, keys: Array, values: Array, mask: Array | None = None
  ) -> tuple[Array, Array]:
    """Attends.

    Args:
      query: [..., G].
      keys: [..., S, F].
      values: [..., S, E].
      mask: [..., S] bool, the keys that there are.

    Returns:
      The context [..., E], and the weights [..., S], which sum to 1.
    """
    scores = AdditiveScores(self.hidden_size, name='scores')(query, keys)
    mask = jnp.ones(scores.shape, bool) if mask is None else mask
    weights = _softmax(scores, mask, axis=-1)
    return jnp.sum(weights[..., None] * values, axis=-2), weights


class Pointer(hk.Module):
  """Logits over the elements of an input: [..., S].

  Vinyals et al. 2015, section 2.3: the output's vocabulary is the input.

  >>> net = hk.without_apply_rng(hk.transform(lambda *x: Pointer(8)(*x)))
  >>> inputs = jnp.ones([3]), jnp.ones([5, 4]), jnp.arange(5) < 2
  >>> logits = net.apply(net.init(jax.random.key(0), *inputs), *inputs)
  >>> jax.nn.softmax(logits).tolist()
  [0.5, 0.5, 0.0, 0.0, 0.0]
  """

  def __init__(self, hidden_size: int, name: str | None = None):
    """Makes the module; `hidden_size` as for `AdditiveScores`."""
    super().__init__(name=name)
    self.hidden_size = hidden_size

  def __call__(
    self, query: Array, keys: Array, mask: Array | None = None
  ) -> Array:
    """Logits of keys [..., S, F] for a query [..., G].

    Where mask [..., S] is false the probability is 0, unless it is everywhere.
    """
    scores = AdditiveScores(self.hidden_size, name='scores')(query, keys)
    return scores if mask is None else jnp.where(mask, scores, _NEVER)
