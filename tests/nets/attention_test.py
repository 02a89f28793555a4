"""Attention against loops in NumPy, and its masks by counting."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import attention, clock
from dl_lectures.types import UsageError


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def by_hand(q, k, v, mask):
  """One query, one head at a time."""
  out = np.zeros(q.shape)
  for b, t, h in np.ndindex(*q.shape[:3]):
    seen = np.flatnonzero(mask[b % len(mask), t])
    weights = softmax(k[b, seen, h] @ q[b, t, h] / np.sqrt(q.shape[-1]))
    out[b, t, h] = weights @ v[b, seen, h]
  return out


@pytest.fixture(scope='module')
def qkv():
  draw = np.random.default_rng(0)
  q, k, v = np.asarray(draw.normal(size=(3, 2, 5, 3, 4)), np.float32)
  return q, k, v


def test_weighted_means_of_what_is_seen(qkv):
  q, k, v = qkv
  causal = np.tril(np.ones((1, 5, 5), bool))
  close = functools.partial(np.testing.assert_allclose, atol=1e-5)
  close(attention.attend(q, k, v), by_hand(q, k, v, causal))
  mask = np.random.default_rng(1).random((2, 5, 5)) < 0.5
  mask |= np.eye(5, dtype=bool)[None]
  expected = by_hand(q, k, v, mask)
  mask = jnp.asarray(mask)
  close(attention.attend(q, k, v, mask), expected)
  # One query is added up in another way.
  for t in range(5):
    one = attention.attend(q[:, t : t + 1], k, v, mask[:, t : t + 1])
    close(one, expected[:, t : t + 1])


def test_half_precision_is_added_up_in_full(qkv):
  halves = [jnp.asarray(x, jnp.bfloat16) for x in qkv]
  found = attention.attend(*halves)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    np.float32(found), attention.attend(*qkv), atol=0.05
  )


@pytest.mark.parametrize('lengths', [(1,) * 9, (3, 1, 5), (9,), (4, 4, 1)])
def test_who_sees_whom_through_a_full_ring_and_resets(lengths):
  size = 4
  reset = np.zeros((2, 9), bool)
  reset[1, [2, 6]] = True
  now, at = clock.zero(2), 0
  ring = np.full(size, -1)  # the elements' numbers, as a cache would hold them
  for length in lengths:
    part = jnp.asarray(reset[:, at : at + length])
    sight, now = attention.look_back(now, length, size, part)
    assert sight.mask is not None
    new = np.arange(at, at + length)
    keys = np.concatenate([ring, new])
    for slot, number in zip(np.asarray(sight.slots), new, strict=True):
      ring[slot] = number
    if length == 1:
      keys = ring
    for lane in range(2):
      for i, t in enumerate(new):
        start = max(np.flatnonzero(reset[lane, : t + 1]), default=0)
        expected = (keys <= t) & (keys >= max(start, t - size + 1))
        expected &= keys >= 0
        np.testing.assert_array_equal(sight.mask[lane, i], expected)
        assert sight.position[lane, i] == t - start
    at += length


def test_a_set_is_attended_to_in_no_order():
  """With a mask of its own and no positions: permuted in, permuted out."""

  def forward(x):
    everything = jnp.ones((1, x.shape[1], x.shape[1]), bool)
    sight = attention.Sight(jnp.zeros((1, x.shape[1]), int), everything)
    return attention.TransformerBlock(2)(x, sight)[0]

  net = hk.without_apply_rng(hk.transform(forward))
  x = jnp.float32(np.random.default_rng(0).normal(size=(2, 6, 8)))
  params = jax.jit(net.init)(jax.random.key(0), x)
  apply = jax.jit(net.apply)
  order = np.array([3, 0, 5, 1, 4, 2])
  np.testing.assert_allclose(
    apply(params, x[:, order]), apply(params, x)[:, order], atol=1e-6
  )


def test_queries_keys_and_values_lie_as_in_gpt_2():
  """Three blocks of columns, in each a head's side by side."""

  def forward(x):
    sight = attention.look(x.shape[1])
    return attention.MultiHeadAttention(2)(x, sight)[0]

  net = hk.without_apply_rng(hk.transform(forward))
  draw = np.random.default_rng(0)
  x = np.float32(draw.normal(size=(1, 3, 4)))
  shapes = jax.eval_shape(net.init, jax.random.key(0), x)
  params = jax.tree.map(lambda w: np.float32(draw.normal(size=w.shape)), shapes)
  p = params['multi_head_attention/qkv']
  q, k, v = np.split(x @ p['w'] + p['b'], 3, axis=-1)
  heads = [
    by_hand(
      q[:, :, None, c],
      k[:, :, None, c],
      v[:, :, None, c],
      np.tril(np.ones((1, 3, 3))),
    )
    for c in (slice(0, 2), slice(2, 4))
  ]
  y = np.concatenate([head[:, :, 0] for head in heads], axis=-1)
  p = params['multi_head_attention/out']
  np.testing.assert_allclose(
    net.apply(params, x), y @ p['w'] + p['b'], atol=1e-5
  )


def test_the_additive_score_by_hand():
  draw = np.random.default_rng(0)
  query, keys = draw.normal(size=(2, 3)), draw.normal(size=(2, 5, 4))
  mask = np.array([[True] * 5, [True, False, True, False, False]])
  both = hk.without_apply_rng(
    hk.transform(
      lambda *x: (
        attention.AdditiveAttention(6)(x[0], x[1], x[1], x[2]),
        attention.Pointer(6)(*x),
      )
    )
  )
  given = jnp.float32(query), jnp.float32(keys), mask
  shapes = jax.eval_shape(both.init, jax.random.key(0), *given)
  params = jax.tree.map(lambda w: np.float32(draw.normal(size=w.shape)), shapes)
  (context, weights), logits = both.apply(params, *given)
  for name, found in (
    ('additive_attention', weights),
    ('pointer', jax.nn.softmax(logits)),
  ):
    q, k, v = (params[f'{name}/scores/linear{end}'] for end in ('', '_1', '_2'))
    for b in range(2):
      hidden = np.tanh(query[b] @ q['w'] + q['b'] + keys[b] @ k['w'])
      expected = np.zeros(5)
      expected[mask[b]] = softmax((hidden @ v['w'])[mask[b], 0])
      np.testing.assert_allclose(found[b], expected, atol=1e-6)
  np.testing.assert_allclose(
    context, np.einsum('bs,bsf->bf', weights, keys), atol=1e-6
  )


def test_what_a_block_adds_starts_small():
  def forward(x):
    sight = attention.look(x.shape[1])
    return attention.TransformerBlock(2, depth=8)(x, sight)[0]

  net = hk.without_apply_rng(hk.transform(forward))
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 2, 64)))
  deviation = {
    name: float(jnp.std(params[f'transformer_block/{name}']['w']))
    for name in ('attention/qkv', 'attention/out', 'mlp_in', 'mlp_out')
  }
  expected = (0.02, 0.005, 0.02, 0.005)
  np.testing.assert_allclose([*deviation.values()], expected, rtol=0.05)


def test_mistakes_are_named():
  net = hk.transform(
    lambda x: attention.MultiHeadAttention(3)(x, attention.look(2))[0]
  )
  with pytest.raises(UsageError, match='3 heads of width 8; its divisors'):
    net.init(jax.random.key(0), jnp.zeros((1, 2, 8)))
