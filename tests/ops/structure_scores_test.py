"""Scores against hand-made cases, biotite, tmtools and a blind search."""

import biotite.structure as biotite
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from dl_lectures.ops import distogram, geometry, structure_scores

SIZE = 40

superposed = jax.jit(structure_scores.superposed)
lddt = jax.jit(structure_scores.lddt)
build = jax.jit(geometry.backbone)
precision = jax.jit(
  structure_scores.contact_precision,
  static_argnames=('divisor', 'nearest', 'farthest'),
)


def compact(seed: int = 0) -> jax.Array:
  """CA atoms of a chain of helices, strands and turns."""
  random = np.random.default_rng(seed)
  kinds = np.deg2rad([[-60, -45, 180], [-120, 130, 180], [60, 40, 180]])
  torsions = np.repeat(kinds[random.integers(3, size=SIZE // 5)], 5, 0)
  return build(jnp.asarray(torsions, jnp.float32))[:, 1]


def wobbled(points: jax.Array, scale: float, seed: int = 1) -> jax.Array:
  random = np.random.default_rng(seed)
  walk = np.cumsum(random.normal(size=points.shape), 0) * scale
  return points + jnp.asarray(walk, jnp.float32)


def test_scale_by_hand():
  # L = 42: 1.24 * 3 - 1.8; up to 21 residues or so it is not below .5.
  assert float(structure_scores.tm_scale(jnp.array(42))) == pytest.approx(1.92)
  assert float(structure_scores.tm_scale(jnp.array(10))) == 0.5


def test_the_same_chain_anywhere_is_perfect():
  native = compact()
  rotation = Rotation.from_euler('xyz', [1, 2, 3]).as_matrix()
  moved = native @ jnp.asarray(rotation, jnp.float32) + 7.0
  scores = superposed(moved, native)
  assert float(scores.tm) == pytest.approx(1, abs=1e-4)
  assert float(scores.gdt_ts) == pytest.approx(100)
  assert float(scores.rmsd) == pytest.approx(0, abs=1e-3)
  assert float(lddt(moved, native)) == 1


def test_half_right_is_a_half():
  # Two halves of which only one can be superposed: what is left is far.
  native = compact()
  model = native.at[SIZE // 2 :].add(1000.0)
  scores = superposed(model, native)
  assert float(scores.tm) == pytest.approx(0.5, abs=1e-4)
  assert float(scores.gdt_ts) == pytest.approx(50)


def test_gdt_has_a_superposition_for_each_cutoff():
  # A half is exact, a half 3 A off: fitted to one half, 1/2 is within 1 and
  # within 2 A and all within 4 A; fitted between them, none is within 1 A.
  native = compact(3)
  model = native.at[SIZE // 2 :, 0].add(3.0)
  assert (
    float(superposed(model, native).gdt_ts) >= 100 * (1 / 2 + 1 / 2 + 2) / 4
  )


def test_a_mirror_image_is_not_the_same_but_for_lddt():
  native = compact()
  mirror = native * jnp.array([[1.0, 1.0, -1.0]])
  assert superposed(mirror, native).tm < 0.6
  assert float(lddt(mirror, native)) == 1


def test_padding_does_not_count():
  native = compact()
  model = wobbled(native, 0.5)
  mask = jnp.arange(SIZE) < 30
  first = superposed(model.at[30:].set(0.0), native, mask)
  second = superposed(model.at[30:].add(50.0), native.at[30:].set(9.0), mask)
  np.testing.assert_allclose(first, second, rtol=1e-4)
  rmsd = geometry.rmsd(model[:30], native[:30])
  assert float(first.rmsd) == pytest.approx(float(rmsd), rel=1e-4)
  alone = lddt(model[:30], native[:30])
  assert float(lddt(model, native, mask)) == pytest.approx(float(alone))


@pytest.mark.parametrize('scale', [0.3, 1.0])
def test_no_blind_search_finds_more(scale):
  native = np.asarray(compact(), float)
  model = np.asarray(wobbled(compact(), scale), float)
  model, native = model - model.mean(0), native - native.mean(0)
  scale = float(structure_scores.tm_scale(jnp.array(SIZE)))

  def lost(motion):
    moved = Rotation.from_rotvec(motion[:3]).apply(model) + motion[3:]
    square = ((moved - native) ** 2).sum(-1)
    return -np.mean(1 / (1 + square / scale**2))

  starts = Rotation.random(30, rng=np.random.default_rng(0)).as_rotvec()
  best = max(
    -minimize(lost, np.concatenate([start, np.zeros(3)])).fun
    for start in starts
  )
  found = superposed(
    jnp.asarray(model, jnp.float32), jnp.asarray(native, jnp.float32)
  ).tm
  assert float(found) == pytest.approx(best, abs=3e-3)


@pytest.mark.parametrize('scale', [0.2, 0.5, 1.0])
def test_tm_score_is_that_of_tmtools(scale):
  tmtools = pytest.importorskip('tmtools')
  native = compact(2)
  model = wobbled(native, scale, 2)
  name = 'A' * SIZE
  expected = tmtools.tm_align(
    np.asarray(model, float),
    np.asarray(native, float),
    name,
    name,
    alignment=(name, name),
  ).tm_norm_chain2
  found = float(superposed(model, native).tm)
  # Where hardly anything fits, its search stops short of ours.
  assert found > expected - 1e-3
  assert found < expected + (1e-3 if expected > 0.5 else 1e-2)


@pytest.mark.parametrize('scale', [0.2, 1.0])
def test_lddt_is_that_of_biotite(scale):
  native = compact(4)
  model = wobbled(native, scale, 4)
  atoms = biotite.AtomArray(SIZE)
  atoms.coord = np.array(native)
  atoms.res_id = np.arange(SIZE)
  atoms.atom_name = np.full(SIZE, 'CA')
  expected = biotite.lddt(atoms, np.array(model))
  found = float(lddt(model, native))
  assert found == pytest.approx(expected, abs=1e-4)


def test_precision_by_hand():
  size = 10
  score = jnp.zeros((size, size))
  ranked = [(0, 9), (1, 9), (0, 8), (2, 9), (0, 3)]
  for i, (row, column) in enumerate(ranked):
    score = score.at[row, column].set(10.0 - i)
  contact = jnp.zeros((size, size), bool).at[0, 9].set(True).at[0, 8].set(True)
  contact = contact.at[9, 1].set(True)  # the lower triangle is not read

  def of(**options):
    return float(precision(score, contact, **options))

  assert of(divisor=5) == 0.5  # (0, 9) and (1, 9)
  assert of(divisor=3) == pytest.approx(2 / 3)  # and (0, 8)
  assert of(divisor=10, farthest=8) == 0  # (1, 9) leads
  # Ten pairs are at least 6 apart: four and three and two and one.
  assert of(divisor=1) == pytest.approx(2 / 10)
  assert of(divisor=1, nearest=9) == 1  # there is but one pair
  mask = jnp.arange(size) < 9
  assert of(divisor=5, mask=mask) == 1  # of 9 residues one pair: (0, 8)


def test_distances_of_the_truth_are_the_best_prediction():
  points = np.random.default_rng(0).normal(size=(SIZE, 3), scale=8)
  distance = distogram.pair_distances(jnp.asarray(points, jnp.float32))
  contact = distance < 8
  assert jnp.triu(contact, 6).sum() > SIZE // 5
  assert float(precision(-distance, contact, divisor=5)) == 1
  assert float(precision(distance, contact, divisor=5)) == 0
