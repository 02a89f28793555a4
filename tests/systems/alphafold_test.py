"""AlphaFold: the potential against finite differences, descent, the pool."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training
from dl_lectures.analysis import known_structures
from dl_lectures.data import coevolution, proteins
from dl_lectures.data import features as inputs
from dl_lectures.nets import distogram as nets
from dl_lectures.ops import descent, distogram, potentials, structure_scores
from dl_lectures.systems import alphafold
from dl_lectures.types import UsageError

SIZE, LENGTH = 32, 28
# One for all tests of `fold`: it is compiled once.
CONFIG = alphafold.FoldConfig(
  steps=200, restarts=4, rounds=2, pool=6, polish=40, noise=5.0, fresh=0.0
)
TRUTH = known_structures.Blur()

make_potential = jax.jit(potentials.make_potential, static_argnums=0)
energy = jax.jit(potentials.energy, static_argnums=0)
slope = jax.jit(jax.grad(potentials.energy, argnums=2), static_argnums=0)
blurred_truth = jax.jit(known_structures.blurred_truth, static_argnums=0)
coordinates = jax.jit(potentials.coordinates)
fold = jax.jit(alphafold.fold, static_argnums=0)
tm = jax.jit(functools.partial(structure_scores.superposed, starts=8))


class Native:
  """A piece of ribosomal protein L7/L12: helix, turn, strand; padded."""

  def __init__(self):
    whole = proteins.load()['1ctf_A']
    piece = whole._replace(
      sequence=whole.sequence[:LENGTH],
      backbone=whole.backbone[:LENGTH],
      cb=whole.cb[:LENGTH],
      breaks=whole.breaks[:LENGTH],
    )
    self.chain = potentials.make_chain(piece.sequence, piece.breaks, SIZE)
    self.truth = known_structures.make_truth(piece, SIZE)

  def beliefs(self, blur=TRUTH):
    return blurred_truth(blur, self.truth, jax.random.key(0))

  def potential(self, config=CONFIG, chain=None):
    chain = self.chain if chain is None else chain
    return make_potential(config, chain, self.beliefs())

  def pose(self, seed=None):
    torsions = self.truth.torsions
    if seed is not None:
      noise = jax.random.normal(jax.random.key(seed), torsions.shape)
      torsions += 0.5 * noise
    return potentials.Pose(torsions, jnp.zeros((SIZE, 6)))


@pytest.fixture(scope='module')
def native():
  return Native()


@pytest.fixture(scope='module')
def folded(native):
  return fold(CONFIG, native.potential(), jax.random.key(1))


FULL = dataclasses.replace(CONFIG, rama_weight=1.0, staged=True)


def test_gradient_is_that_of_finite_differences(native):
  potential, pose = native.potential(), native.pose(3)
  gradient = slope(FULL, potential, pose, 0.7)
  step = 2e-3
  for at in [(1, 0), (0, 1), (9, 0), (14, 1), (26, 0)]:
    up, down = (
      float(
        energy(
          FULL,
          potential,
          pose._replace(torsions=pose.torsions.at[at].add(shift)),
          0.7,
        )
      )
      for shift in (step, -step)
    )
    expected = (up - down) / (2 * step)
    assert float(gradient.torsions[at]) == pytest.approx(
      expected, rel=0.02, abs=1.0
    )


def test_parts_of_the_potential_by_hand(native):
  """Of two atoms 3 A apart that repel below 3.8 A: .8 squared."""
  points = jnp.array([[0.0, 0, 0], [3, 0, 0]])
  clash = potentials.pair_sum(
    potentials._repulsion, points, (3.8, jnp.ones((1, 2)))
  )
  assert float(clash) == pytest.approx(0.64, rel=1e-4)
  # Torsions alone: -sum kappa cos(0) at their mean.
  only = dataclasses.replace(CONFIG, distance_weight=0.0, vdw_weight=0.0)
  potential = native.potential(config=only)
  mean = potentials.Pose(potential.torsions.mean, jnp.zeros((SIZE, 6)))
  kappa = float(potential.torsions.kappa.max())
  value = float(energy(only, potential, mean, 1.0))
  # Two of each residue, but for the first phi and the last psi.
  assert value == pytest.approx(-kappa * (2 * LENGTH - 2), rel=1e-5)
  assert kappa == pytest.approx(1 / np.deg2rad(20) ** 2, rel=0.1)


def test_a_reference_is_subtracted(native):
  beliefs = native.beliefs()
  same = beliefs._replace(reference=beliefs.distances)
  table = make_potential(CONFIG, native.chain, same).table
  np.testing.assert_allclose(table, 0, atol=1e-6)


def test_either_half_of_a_distogram_counts(native):
  beliefs = native.beliefs()
  lower = beliefs._replace(distances=jnp.swapaxes(beliefs.distances, 0, 1))
  table, again = (
    np.asarray(make_potential(CONFIG, native.chain, some).table)
    for some in (beliefs, lower)
  )
  np.testing.assert_allclose(table, again, atol=1e-5)
  pairs = potentials.pairs_of(SIZE)
  there = pairs.once & (pairs.second < LENGTH)
  assert (np.abs(table).sum(axis=(-1, -2))[there] > 0).mean() > 0.9
  assert not table[~there].any()


def test_padding_does_not_count(native):
  potential = native.potential()
  pose = native.pose(1)
  moved = pose._replace(torsions=pose.torsions.at[LENGTH:].set(2.0))
  values = [float(energy(CONFIG, potential, p, 1.0)) for p in (pose, moved)]
  assert values[0] == values[1]


def test_terminal_torsions_do_not_count(native):
  potential, pose = native.potential(), native.pose(1)
  value = float(energy(FULL, potential, pose, 1.0))
  for at in ((0, 0), (LENGTH - 1, 1)):
    turned = pose._replace(torsions=pose.torsions.at[at].add(1.0))
    again = float(energy(FULL, potential, turned, 1.0))
    assert again == pytest.approx(value, rel=1e-4), at
  inside = pose._replace(torsions=pose.torsions.at[9, 1].add(1.0))
  assert float(energy(FULL, potential, inside, 1.0)) > value + 10


def test_glycine_is_measured_at_its_alpha_carbon(native):
  # With all residues glycine the potential's minimum is in CA distances.
  chain = native.chain._replace(glycine=native.chain.mask)
  truth = native.truth._replace(cb=native.truth.ca)
  beliefs = blurred_truth(TRUTH, truth, jax.random.key(0))
  right = make_potential(CONFIG, chain, beliefs)
  wrong = right._replace(chain=native.chain)
  first, second = (
    float(energy(CONFIG, p, native.pose(), 1.0)) for p in (right, wrong)
  )
  assert first < second


def test_the_mirror_image_has_the_higher_potential(native):
  pose = native.pose()
  mirror = pose._replace(torsions=-pose.torsions)
  potential = native.potential()
  values = [float(energy(CONFIG, potential, p, 1.0)) for p in (pose, mirror)]
  assert values[0] < values[1] - 100


def test_starts_follow_their_law(native):
  law = distogram.VonMises(
    jnp.full((SIZE, 2), 3.0), jnp.full((SIZE, 2), 4.0).at[1].set(0.0)
  )
  law = law._replace(kappa=law.kappa.at[2, 0].set(0.0))
  keys = jax.random.split(jax.random.key(0), 400)
  draw = jax.jit(jax.vmap(potentials.sample_pose, (None, None, 0)))
  drawn = draw(law, native.chain, keys).torsions
  found = jnp.mean(jnp.exp(1j * drawn), axis=0)
  # I1(4) / I0(4) = .8635.
  assert float(jnp.mean(jnp.abs(found[3:]))) == pytest.approx(0.8635, abs=0.01)
  assert float(jnp.angle(jnp.mean(found[3:]))) == pytest.approx(3, abs=0.02)
  # Of one of the two nothing is known: any angle.
  assert jnp.abs(found[2, 0]) < 0.15
  assert float(jnp.abs(found[2, 1])) == pytest.approx(0.8635, abs=0.05)


def right_torsions(poses, native):
  """The share of residues within 60 degrees of the truth, but for the ends."""
  off = jnp.abs(potentials.wrap(poses.torsions - native.truth.torsions[None]))
  return float(jnp.mean((off < np.deg2rad(60)).all(-1)[:, 1 : LENGTH - 1]))


LOCAL = dataclasses.replace(CONFIG, local_steps=400)
fit_locally = jax.jit(
  jax.vmap(functools.partial(alphafold.fit_locally, LOCAL), (None, 0, 0))
)


def test_near_pairs_alone_find_the_torsions(native):
  beliefs = native.beliefs(known_structures.Blur(torsions=False))
  potential = make_potential(LOCAL, native.chain, beliefs)
  keys = jax.random.split(jax.random.key(5), 8)
  draw = jax.jit(jax.vmap(potentials.sample_pose, (None, None, 0)))
  starts = draw(potential.torsions, native.chain, keys)
  found = fit_locally(potential, starts, keys)
  assert right_torsions(starts, native) < 0.5
  assert right_torsions(found, native) > 0.7
  np.testing.assert_array_equal(found.jumps, starts.jumps)
  # No belief, no change but new draws from the same law.
  empty = potential._replace(table=jnp.zeros_like(potential.table))
  again = fit_locally(empty, starts, keys)
  assert right_torsions(again, native) < 0.5


def test_metropolis_keeps_what_the_pairs_around_call_for(native, monkeypatch):
  """At temperature 0 no step may raise V of the near pairs."""
  monkeypatch.setattr(alphafold, '_LOCAL_TEMPERATURES', (1e-6, 1e-6))
  potential = native.potential()
  pairs = potentials.pairs_of(SIZE)
  near = jnp.asarray((pairs.second - pairs.first <= 4) * 1.0)
  banded = potential._replace(table=potential.table * near[..., None, None])
  only = dataclasses.replace(
    CONFIG, torsion_weight=0.0, vdw_weight=0.0, local_steps=3
  )
  fit = jax.jit(functools.partial(alphafold.fit_locally, only))
  pose = native.pose(3)
  values = [float(energy(only, banded, pose, 1.0))]
  for key in jax.random.split(jax.random.key(0), 12):
    pose = fit(potential, pose, key)
    values.append(float(energy(only, banded, pose, 1.0)))
  assert (np.diff(values) <= 0.05).all()
  assert values[-1] < values[0] - 50


def test_pieces_of_a_broken_chain_are_fitted_each(native):
  chain = native.chain._replace(breaks=jnp.arange(SIZE) == 14)
  potential = native.potential(chain=chain)
  poses = jax.tree.map(lambda x: jnp.tile(x, (8, 1, 1)), native.pose(3))
  jumps = jnp.arange(8.0)[:, None, None] * jnp.ones((8, SIZE, 6))
  keys = jax.random.split(jax.random.key(0), 8)
  found = fit_locally(
    potential, poses._replace(jumps=jumps), jnp.tile(keys[:1], 8)
  )
  # How the pieces lie changes nothing.
  for other in found.torsions[1:]:
    np.testing.assert_allclose(other, found.torsions[0], atol=1e-4)


def test_noise_is_as_large_as_told(native):
  moved = [
    alphafold.corrupt(CONFIG, native.pose(), key).torsions
    - native.truth.torsions
    for key in jax.random.split(jax.random.key(0), 10)
  ]
  off = potentials.wrap(jnp.stack(moved))
  assert float(jnp.std(off)) == pytest.approx(np.deg2rad(5), rel=0.1)


def test_blur_hides_what_it_is_told_to(native):
  def beliefs(**blur):
    return native.beliefs(known_structures.Blur(**blur))

  apart = np.abs(np.arange(SIZE)[:, None] - np.arange(SIZE))
  even = jnp.ptp(beliefs(uninformative=0.5).distances, axis=-1) < 1e-6
  assert float(jnp.mean(even[apart >= 12])) == pytest.approx(0.5, abs=0.1)
  assert not even[apart < 12].any()
  assert (beliefs(distances=False).distances[0, 0] == -np.log(64)).all()
  assert not beliefs(torsions=False).torsions.kappa.any()
  blunt = beliefs(contacts=True).distances
  touching = distogram.contact_probability(beliefs().distances) > 0.9
  assert jnp.ptp(blunt[touching][:, 6:19], axis=-1).max() < 0.05
  error = potentials.wrap(beliefs().torsions.mean - native.truth.torsions)
  assert float(jnp.std(error)) == pytest.approx(np.deg2rad(20), rel=0.3)


def test_descent_finds_the_fold(native, folded):
  found = coordinates(native.chain, jax.tree.map(lambda x: x[0], folded.poses))
  assert float(tm(found[:, 1], native.truth.ca, native.chain.mask).tm) > 0.85
  # And it is as low as the native torsions, or lower.
  value = energy(CONFIG, native.potential(), native.pose(), 1.0)
  assert folded.energies[0] < value


def test_the_pool_only_gets_better(folded):
  assert folded.descents.shape == (2, 200, 4)
  assert folded.poses.torsions.shape == (6, SIZE, 2)
  assert (jnp.diff(folded.best) <= 0).all()
  assert (jnp.diff(folded.energies) >= 0).all()
  # Adam's last values are far below its first ones.
  first, last = folded.descents[0, 0], folded.descents[0, -1]
  assert (last < first - 100).all()
  # The second round begins with structures of the pool, hardly disturbed.
  assert folded.descents[1, 0].max() < folded.descents[0, 0].min()


def test_a_polish_never_raises_the_potential(folded):
  assert folded.energies[0] <= folded.best[-1]


def test_kept_energies_are_those_of_the_kept_poses(native, folded):
  potential = native.potential()
  values = [
    energy(
      CONFIG, potential, jax.tree.map(lambda x, i=i: x[i], folded.poses), 1.0
    )
    for i in range(6)
  ]
  np.testing.assert_allclose(values, folded.energies, rtol=1e-3)


def test_lbfgs_never_rises(native):
  config = dataclasses.replace(CONFIG, optimizer='lbfgs', steps=100)
  descend = jax.jit(alphafold.descend, static_argnums=0)
  found = descend(config, native.potential(), native.pose(7))
  assert found.trace.shape == (100,)
  assert (jnp.diff(found.trace) <= 1e-2).all()
  assert found.trace[-1] < found.trace[0] - 500


def test_lbfgs_on_a_quadratic():
  scales = jnp.array([1.0, 10.0, 100.0])

  def loss(x):
    return jnp.sum(scales * (x - 1.0) ** 2)

  x, trace = descent.lbfgs(loss, jnp.zeros(3), 40)
  np.testing.assert_allclose(x, 1, atol=1e-3)
  assert trace.shape == (40,)
  assert (jnp.diff(trace) <= 0).all()


def test_a_broken_chain_folds(native):
  chain = native.chain._replace(breaks=jnp.arange(SIZE) == 14)
  found = fold(CONFIG, native.potential(chain=chain), jax.random.key(1))
  atoms = coordinates(chain, jax.tree.map(lambda x: x[0], found.poses))
  score = float(tm(atoms[:, 1], native.truth.ca, chain.mask).tm)
  assert score > 0.8
  # Where the chain is whole, nothing has moved the idle parameters.
  start, end = found.poses.jumps[0, 14], found.poses.jumps[0, 10]
  assert jnp.abs(start - end).max() > 0.1


def test_the_same_key_gives_the_same_fold(native, folded):
  again = fold(CONFIG, native.potential(), jax.random.key(1))
  np.testing.assert_array_equal(again.energies, folded.energies)
  other = fold(CONFIG, native.potential(), jax.random.key(2))
  assert (other.energies != folded.energies).any()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'steps': 0}, 'config.steps=0; at least 1 is possible'),
    ({'local_steps': -1}, 'config.local_steps=-1; at least 0 is possible'),
    ({'cutoff': 30.0}, r'config.cutoff=30.0; 4 to 22.0 is possible'),
    ({'fresh': 2.0}, 'config.fresh=2.0; 0 to 1 is possible'),
    ({'optimizer': 'sgd'}, "config.optimizer='sgd'; possible: adam, lbfgs"),
    (
      {'optimizer': 'lbfgs', 'staged': True},
      'config.staged=True; with config.optimizer=lbfgs only False is possible',
    ),
  ],
)
def test_what_cannot_be_is_told(settings, message):
  with pytest.raises(UsageError, match=message):
    alphafold.FoldConfig(**settings)


# From an alignment to beliefs.

TINY = alphafold.Config(
  alignments=1,
  couplings=False,
  depth=16,
  crop=16,
  stride=8,
  towers=(1, 8),
  residue_channels=4,
  reference_towers=(1, 4),
  batch_size=2,
  num_steps=20,
)


@pytest.fixture(scope='module')
def example():
  whole = proteins.load()['1ctf_A']
  piece = whole._replace(
    sequence=whole.sequence[:LENGTH],
    backbone=whole.backbone[:LENGTH],
    cb=whole.cb[:LENGTH],
    breaks=whole.breaks[:LENGTH],
  )
  made = coevolution.alignment(piece, 16, np.random.default_rng(0))
  return alphafold.Example(
    inputs.features(made),
    inputs.background(piece.sequence),
    inputs.labels(piece),
  )


@pytest.fixture(scope='module')
def begun(example):
  """Networks, a batch, and the state in which a run begins."""
  both = alphafold.networks(TINY)
  batch = next(alphafold.batches(TINY, [example], 0))
  init = jax.jit(functools.partial(alphafold.init, TINY, both))
  return both, batch, init(batch, jax.random.key(0))


@pytest.fixture(scope='module')
def model(begun):
  state = begun[-1]
  random = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: jnp.float32(random.normal(scale=0.3, size=x.shape)), state.params
  )
  return alphafold.Model(TINY, params, state.net_state, 0)


def shapes(config, pairs, residues, around=None):
  """Of the network's parameters, for so many features."""
  size = config.crop

  def some(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct((1, *shape), dtype)

  crop = nets.Crop(
    some(size, size, pairs),
    *(some(size, size, around or pairs),) * 2,
    *(some(size, residues),) * 2,
    *(some(size, dtype=bool),) * 2,
    some(dtype=jnp.int32),
  )
  net = alphafold.networks(config)['network']
  params, _ = jax.eval_shape(
    lambda key, crop: net.init(key, crop, True), jax.random.key(0), crop
  )
  return params


@pytest.mark.slow
def test_the_published_network_has_21_million_weights():
  paper = alphafold.PRESETS['paper']
  # 1,878 inputs: 486 features of a pair thrice, 204 of a residue twice, and
  # 12 of places, of which 2 are in our pairs and 10 in our residues.
  params = shapes(paper, 486, 209)
  kernels = sum(
    leaf['w'].size
    for name, leaf in params.items()
    if 'conv2_d' in name or name.endswith('distogram')
  )
  assert round(kernels / 1e6, 1) == 21.0
  # Norms, biases and heads are not counted there.
  everything = sum(x.size for x in jax.tree.leaves(params))
  assert round(everything / 1e6, 1) == 21.5
  laptop = alphafold.PRESETS['laptop']
  alone = shapes(dataclasses.replace(laptop, couplings=False), 3, 53)
  assert sum(x.size for x in jax.tree.leaves(alone)) == 140_957
  coupled = shapes(laptop, 445, 74, 4)
  # A fourth score thrice, eight channels of couplings and the layer that makes
  # them, fields that the residues' layer reads.
  more = 9 * (3 + 8) * 32 + (441 * 8 + 8) + 21 * 16
  assert sum(x.size for x in jax.tree.leaves(coupled)) == 140_957 + more


def test_crops_are_drawn_by_the_step(example):
  first = alphafold.batches(TINY, [example], 0)
  later = alphafold.batches(TINY, [example], 2)
  next(first), next(first)
  jax.tree.map(np.testing.assert_array_equal, next(first), next(later))
  batch = next(first)
  assert batch.crop.pairs.shape == (2, 16, 16, 3)
  assert batch.distances.shape == (2, 16, 16)
  assert batch.rows.shape == (2, 3, 16)
  assert (batch.distances < 0).mean() < 0.7


def test_cross_entropy_of_a_loop():
  random = np.random.default_rng(2)
  logits = random.normal(size=(5, 4)).astype(np.float32)
  labels = np.array([0, 3, -1, 2, -1])
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  expected = -np.mean([log_p[i, labels[i]] for i in (0, 1, 3)])
  loss = alphafold.cross_entropy(jnp.asarray(logits), labels)
  assert loss == pytest.approx(expected, rel=1e-5)
  assert alphafold.cross_entropy(jnp.asarray(logits), labels * 0 - 1) == 0


def test_it_learns_and_resumes_bit_for_bit(example, begun):
  both, _, state = begun
  step = jax.jit(alphafold.make_step(TINY, both))

  def run(state, first, last):
    metrics = []
    some = alphafold.batches(TINY, [example], first)
    for _, batch in zip(range(last - first), some, strict=False):
      state, told = step(state, batch, jax.random.key(1))
      metrics.append(jax.device_get(told))
    return state, metrics

  half, before = run(state, 0, 10)
  whole, after = run(half, 10, 20)
  for name in ('nll', 'nll of reference'):
    assert after[-1][name] < before[0][name] - 0.1
  copied = jax.tree.map(np.asarray, half)
  resumed, _ = run(copied, 10, 20)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_the_reference_learns_nothing_of_the_sequence(begun):
  both, batch, state = begun

  def judged(params, batch):
    _, (_, metrics) = alphafold.loss(
      TINY, both, params, state.net_state, jax.random.key(0), batch
    )
    return metrics['nll of reference']

  other = batch._replace(crop=jax.tree.map(lambda x: x * 0, batch.crop))
  judged = jax.jit(judged)
  assert judged(state.params, batch) == judged(state.params, other)


def test_tiles_are_averaged_with_weights_that_fall_from_the_centre(
  example, model
):
  said = alphafold.predict([model], example.features)
  assert said.heads is not None
  # The same with loops over crops and pixels.
  size, stride = TINY.crop, TINY.stride
  net = alphafold.networks(TINY)['network']
  apply = jax.jit(
    lambda crop: net.apply(
      model.params['network'],
      model.net_state['network'],
      None,
      jax.tree.map(lambda x: jnp.asarray(x)[None], nets.Crop(*crop)),
      False,
    )[0]
  )
  total = np.zeros((LENGTH, LENGTH, 64))
  weight = np.zeros((LENGTH, LENGTH))
  structure, counted = np.zeros((LENGTH, 3)), np.zeros(LENGTH)
  half = (size - 1) / 2

  def pyramid(k):
    return 1 - abs(k - half) / (half + 1)

  for a in range(-size // 2, LENGTH - size // 2, stride):
    for b in range(-size // 2, LENGTH - size // 2, stride):
      crop = inputs.crop(
        example.features, a + np.arange(size), b + np.arange(size)
      )
      told = apply(crop)
      p = np.asarray(jax.nn.softmax(told.distogram[0]))
      rows = np.asarray(jax.nn.softmax(told.rows.structure[0]))
      columns = np.asarray(jax.nn.softmax(told.columns.structure[0]))
      for k in range(size):
        if 0 <= a + k < LENGTH:
          structure[a + k] += pyramid(k) * rows[k]
          counted[a + k] += pyramid(k)
        if 0 <= b + k < LENGTH:
          structure[b + k] += pyramid(k) * columns[k]
          counted[b + k] += pyramid(k)
        for m in range(size):
          if 0 <= a + k < LENGTH and 0 <= b + m < LENGTH:
            total[a + k, b + m] += pyramid(k) * pyramid(m) * p[k, m]
            weight[a + k, b + m] += pyramid(k) * pyramid(m)
  mean = total / weight[..., None]
  mean = (mean + mean.swapaxes(0, 1)) / 2
  np.testing.assert_allclose(np.exp(said.log_probs), mean, rtol=1e-3, atol=1e-6)
  np.testing.assert_allclose(
    said.heads.structure, structure / counted[:, None], rtol=1e-4
  )
  np.testing.assert_allclose(said.heads.torsions.sum(1), 1, rtol=1e-5)


def test_models_are_averaged(example, model):
  other = model._replace(params=jax.tree.map(lambda x: -x, model.params))
  one, two, both = (
    np.exp(alphafold.predict(some, example.features).log_probs)
    for some in ([model], [other], [model, other])
  )
  np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-4, atol=1e-8)


def test_torsions_are_the_marginals_of_what_is_predicted(example):
  bins = inputs.TORSION_BINS
  angles = np.asarray(inputs.TORSION_CENTRES)
  phi, psi = np.exp(4 * np.cos(angles - 1)), np.exp(2 * np.cos(angles + 2))
  joint = np.multiply.outer(phi / phi.sum(), psi / psi.sum())
  torsions = jnp.tile(joint.reshape(1, bins * bins), (LENGTH, 1))
  other = jnp.ones((LENGTH, 1))
  log_probs = np.full((LENGTH, LENGTH, 64), -np.log(64), np.float32)
  said = alphafold.Said(log_probs, nets.Heads(torsions, other, other))
  beliefs = alphafold.beliefs_of(said, log_probs, SIZE)
  assert beliefs.distances.shape == (SIZE, SIZE, 64)
  law = beliefs.torsions
  np.testing.assert_allclose(law.mean[0], [1, -2], atol=0.02)
  np.testing.assert_allclose(law.kappa[0], [4, 2], rtol=0.02)
  assert not law.kappa[LENGTH:].any()


def test_a_trained_network_is_read_again(tmp_path, example, monkeypatch):
  monkeypatch.setattr(alphafold, 'prepare', lambda config: [example])
  monkeypatch.setattr(
    alphafold, 'evaluate', lambda *_: pytest.skip('not reached')
  )
  with pytest.raises(UsageError, match=r'holds no run \(no config.json\)'):
    alphafold.load(str(tmp_path))
  (tmp_path / 'config.json').write_text('{"seed": 0, "depht": 3}')
  with pytest.raises(
    UsageError, match=r'is not the config of experiments.alphafold_train'
  ):
    alphafold.load(str(tmp_path))


@pytest.mark.slow
def test_a_run_reports_and_folds(tmp_path):
  config = dataclasses.replace(
    alphafold.PRESETS['smoke'],
    batch_size=8,  # of which each of the test's devices has its share
    test_chains=1,
    curve_chains=1,
    fold_rounds=1,
  )
  metrics = alphafold.train(config, workdir=str(tmp_path))
  assert 0 < metrics['test, 24 rows: tm'] < 1
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  names = [claim['name'] for claim in summary['claims']]
  assert len(names) == len({*names})
  for name in ('maps', 'depths'):
    assert (tmp_path / 'figures' / f'{name}.png').exists()
  model = alphafold.load(str(tmp_path))
  assert model.step == config.num_steps


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'stride': 40}, 'config.stride=40; at most half of config.crop=64'),
    ({'towers': (8,)}, r'config.towers=8; possible are pairs'),
    ({'towers': (8, 33)}, r'config.towers=8,33; possible are pairs'),
    ({'depth': 8}, 'config.shallowest=16; at most config.depth=8'),
    ({'depths': ()}, r'config.depths=\(\); one or more'),
    ({'curve_chains': 21}, 'config.curve_chains=21; 0 to 20'),
  ],
)
def test_settings_of_training_that_are_refused(changes, message):
  with pytest.raises(UsageError, match=message):
    dataclasses.replace(alphafold.Config(), **changes)
