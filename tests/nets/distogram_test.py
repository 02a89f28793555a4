"""The network of crops: what it sees, and what it does not."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.nets import distogram as nets

SIZE, PAIRS, RESIDUES, BINS = 8, 2, 3, 5
HEADS = (9, 3, 4)


def forward(crop, is_training=False):
  return nets.DistogramNet(
    [nets.Tower(2, 8)], bins=BINS, heads=HEADS, num_biases=4
  )(crop, is_training)


@pytest.fixture(scope='module')
def crop():
  random = np.random.default_rng(0)

  def draw(*shape):
    return jnp.float32(random.normal(size=(2, *shape)))

  there = jnp.asarray(np.arange(SIZE)[None] >= [[0], [3]])
  return nets.Crop(
    pairs=draw(SIZE, SIZE, PAIRS),
    row_pairs=draw(SIZE, SIZE, PAIRS),
    column_pairs=draw(SIZE, SIZE, PAIRS),
    rows=draw(SIZE, RESIDUES),
    columns=draw(SIZE, RESIDUES),
    row_mask=there,
    column_mask=jnp.ones((2, SIZE), bool),
    offset=jnp.array([0, 50]),
  )


@pytest.fixture(scope='module')
def net(crop):
  made = hk.without_apply_rng(hk.transform(forward))
  shapes = jax.eval_shape(made.init, jax.random.key(0), crop)
  random = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: jnp.float32(random.normal(scale=0.3, size=x.shape)), shapes
  )
  return jax.jit(made.apply), params


def test_parameters_are_counted_by_hand(net):
  inputs = 3 * PAIRS + 2 * RESIDUES + 2
  block = (8 * 4 + 4) + (9 * 4 * 4 + 4) + (4 * 8 + 8)
  tower = (9 * inputs * 8 + 8) + 2 * block + (9 * 8 * 8 + 8)
  heads = sum(16 * size + size for size in HEADS)
  expected = tower + (8 * BINS + BINS) + 4 * BINS + heads
  assert sum(x.size for x in jax.tree.leaves(net[1])) == expected


def test_the_bias_is_of_the_separation_and_the_last_is_repeated(net, crop):
  apply, params = net
  before = apply(params, crop).distogram
  biases = params['distogram_net']['biases']
  for which in (1, 3):
    changed = biases.at[which].add(1.0)
    after = apply(
      {**params, 'distogram_net': {'biases': changed}}, crop
    ).distogram
    gain = np.asarray(after - before)[..., 0]
    place = np.arange(SIZE)
    apart = np.abs(place[None] - place[:, None])
    hit = apart == which if which < 3 else apart >= 3
    np.testing.assert_allclose(gain[0], hit, atol=1e-4)
    # The second crop lies 50 residues off: all of it has the last bias.
    np.testing.assert_allclose(gain[1], float(which == 3), atol=1e-4)


def test_what_lies_beyond_the_chain_changes_nothing(net, crop):
  apply, params = net
  beyond = crop._replace(
    rows=crop.rows.at[1, 0].add(5.0), pairs=crop.pairs.at[1, 1].add(5.0)
  )
  for a, b in zip(
    jax.tree.leaves(apply(params, crop)),
    jax.tree.leaves(apply(params, beyond)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_both_axes_are_read_by_the_same_layers(net, crop):
  apply, params = net
  said = apply(params, crop)
  assert said.rows.torsions.shape == (2, SIZE, HEADS[0])
  assert said.columns.surface.shape == (2, SIZE, HEADS[2])
  name = 'distogram_net/structure'
  silent = {**params, name: jax.tree.map(jnp.zeros_like, params[name])}
  for heads in (apply(silent, crop).rows, apply(silent, crop).columns):
    assert not heads.structure.any()
    assert heads.torsions.any()


def test_diagonal_crops_are_seen(net, crop):
  apply, params = net
  before = apply(params, crop).distogram
  for name in ('row_pairs', 'column_pairs', 'pairs'):
    moved = crop._replace(**{name: getattr(crop, name) + 1.0})
    after = apply(params, moved).distogram
    assert float(jnp.abs(after - before).max()) > 1e-3


def test_what_is_squeezed_counts(crop):
  def forward(crop):
    return nets.DistogramNet([nets.Tower(1, 8)], bins=BINS, pair_channels=2)(
      crop
    ).distogram

  crop = crop._replace(
    pairs=jnp.concatenate([crop.pairs, crop.pairs + 1], axis=-1)
  )
  made = hk.without_apply_rng(hk.transform(forward))
  params = made.init(jax.random.key(0), crop)
  # The last features alone are squeezed, to two.
  assert params['distogram_net/pairs']['w'].shape == (PAIRS, 2)
  inputs = PAIRS + 2 + 2 * PAIRS + 2 * RESIDUES + 2
  stem = params['distogram_net/bottleneck_tower/stem/conv2_d']['w']
  assert stem.shape == (3, 3, inputs, 8)
  moved = crop._replace(pairs=crop.pairs.at[..., -1].add(1.0))
  apart = made.apply(params, crop) - made.apply(params, moved)
  assert float(jnp.abs(apart).max()) > 1e-3


def test_dropout_is_for_training_alone(crop):
  def forward(crop, is_training):
    return nets.DistogramNet([nets.Tower(1, 8)], bins=BINS, dropout=0.5)(
      crop, is_training
    ).distogram

  made = hk.transform(forward)
  shapes = jax.eval_shape(
    lambda key: made.init(key, crop, True), jax.random.key(0)
  )
  params = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), shapes)
  keys = jax.random.key(1), jax.random.key(2)
  one, two = (made.apply(params, key, crop, True) for key in keys)
  assert float(jnp.abs(one - two).max()) > 1e-3
  one, two = (made.apply(params, key, crop, False) for key in keys)
  np.testing.assert_array_equal(one, two)
