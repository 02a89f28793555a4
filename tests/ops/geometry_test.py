"""Geometry: round trips, hand-made chains, biotite's dihedrals, gradients."""

import biotite.structure as biotite
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.ops import geometry

SIZE = 24
ANGLES = st.integers(0, 2**32 - 1).map(
  lambda seed: (
    np.random.default_rng(seed)
    .uniform(-np.pi, np.pi, (SIZE, 3))
    .astype(np.float32)
  )
)

build = jax.jit(geometry.backbone)
measure = jax.jit(geometry.torsions)
measure_jumps = jax.jit(geometry.jumps)
rmsd = jax.jit(geometry.rmsd)
superpose = jax.jit(geometry.superpose)


def random_torsions(seed: int = 0, size: int = SIZE) -> jax.Array:
  random = np.random.default_rng(seed)
  return jnp.asarray(random.uniform(-np.pi, np.pi, (size, 3)), jnp.float32)


def random_rotation(seed: int) -> np.ndarray:
  q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
  return (q * np.linalg.det(q)).astype(np.float32)


def around(difference):
  """Differences of angles, without whole turns."""
  return np.abs((np.asarray(difference) + np.pi) % (2 * np.pi) - np.pi)


@settings(deadline=None, max_examples=20)
@given(ANGLES)
def test_torsions_come_back(torsions):
  found, known = measure(build(torsions))
  assert around(found - torsions)[np.asarray(known)].max() < 1e-4


def test_terminal_torsions_are_unknown():
  found, known = measure(build(random_torsions()))
  expected = np.ones((SIZE, 3), bool)
  expected[0, 0] = expected[-1, 1:] = False
  np.testing.assert_array_equal(known, expected)
  assert found[0, 0] == found[-1, 1] == found[-1, 2] == 0


def test_bonds_are_as_given():
  lengths, angles = geometry.bonds(build(random_torsions()))
  np.testing.assert_allclose(
    lengths, np.tile(geometry.IDEAL.length, (SIZE, 1)), atol=1e-4
  )
  np.testing.assert_allclose(
    angles, np.tile(geometry.IDEAL.angle, (SIZE, 1)), atol=1e-4
  )


def test_a_flat_chain_by_hand():
  # All torsions are 180 degrees: a zigzag in the plane z = 0, every bond turned
  # by 180 - angle, once to the left and once to the right.
  chain = np.asarray(build(jnp.full((2, 3), jnp.pi)))
  turns = np.pi - geometry.IDEAL.angle[[1, 2, 0, 1, 2]]
  heading = np.cumsum(turns * np.array([1, -1, 1, -1, 1]))
  steps = geometry.IDEAL.length[[1, 2, 0, 1, 2]]
  expected = np.cumsum(
    steps[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1), 0
  )
  flat = chain.reshape(-1, 3)[1:]
  side = np.sign(flat[0, 1]) * np.sign(expected[0, 1])
  np.testing.assert_allclose(flat[:, 2], 0, atol=1e-5)
  np.testing.assert_allclose(flat[:, :2], expected * [1, side], atol=1e-5)


def test_an_alpha_helix_has_its_pitch():
  # Pauling, Corey and Branson 1951: 3.6-3.7 residues a turn, 1.5 A each.
  helix = build(
    jnp.deg2rad(jnp.tile(jnp.array([-57.8, -47.0, 180.0]), (37, 1)))
  )
  ca = np.asarray(helix[:, 1])
  centred = ca - ca.mean(0)
  axis = np.linalg.svd(centred)[2][0]
  axis *= np.sign(axis @ (ca[-1] - ca[0]))
  rise = np.diff(ca @ axis).mean()
  assert rise == pytest.approx(1.5, abs=0.1)
  across = centred - np.outer(centred @ axis, axis)
  normals = np.cross(across[:-1], across[1:]) @ axis
  assert (normals > 0).all()  # right-handed
  cosines = (across[:-1] * across[1:]).sum(-1)
  turn = np.arctan2(normals, cosines)[5:-5].mean()
  assert 2 * np.pi / turn == pytest.approx(3.6, abs=0.1)


def test_torsions_are_those_of_biotite():
  chain = np.asarray(build(random_torsions(3)))
  atoms = biotite.AtomArray(3 * SIZE)
  atoms.coord = chain.reshape(-1, 3)
  atoms.atom_name = np.tile(['N', 'CA', 'C'], SIZE)
  atoms.res_id = np.repeat(np.arange(1, SIZE + 1), 3)
  atoms.res_name = np.full(3 * SIZE, 'ALA')
  atoms.chain_id = np.full(3 * SIZE, 'A')
  expected = np.stack(biotite.dihedral_backbone(atoms), -1)
  found, known = measure(jnp.asarray(chain))
  np.testing.assert_array_equal(known, ~np.isnan(expected))
  assert around(found - expected)[np.asarray(known)].max() < 1e-4


def one_by_one(*frames):
  """Frames composed by autodiff's rules, atom after atom."""
  rotation, shift, points = jnp.eye(3), jnp.zeros(3), ([], [], [])
  for residue in range(frames[0].shape[-1]):
    for local, placed in zip(frames, points, strict=True):
      shift = shift + rotation @ local[:, 3, residue]
      rotation = rotation @ local[:, :3, residue]
      placed.append(shift)
  return [jnp.stack(placed, axis=-1) for placed in points]


@pytest.mark.parametrize('length', [1, 2, 7])
def test_forces_and_moments_are_the_gradient_of_products(length):
  random = np.random.default_rng(length)
  turns = np.linalg.qr(random.normal(size=(3, length, 3, 3)))[0]
  turns *= np.linalg.det(turns)[..., None, None]
  shifts = random.normal(size=(3, length, 3, 1))
  frames = np.concatenate([turns, shifts], -1).transpose(0, 2, 3, 1)
  weights = random.normal(size=(3, 3, length))

  def gradient(place):
    return jax.value_and_grad(
      lambda frames: jnp.sum(weights * jnp.stack(place(*frames)) ** 2)
    )

  with jax.enable_x64(True):
    found, slow = (
      jax.jit(gradient(place))(tuple(jnp.asarray(frames)))
      for place in (geometry.place, one_by_one)
    )
  np.testing.assert_allclose(found[0], slow[0], rtol=1e-10)
  np.testing.assert_allclose(found[1], slow[1], rtol=1e-9, atol=1e-9)


def test_native_bonds_give_back_a_chain_that_is_not_ideal():
  random = np.random.default_rng(5)
  chain = np.asarray(build(random_torsions(5))) + random.normal(
    size=(SIZE, 3, 3), scale=0.1
  )
  chain = jnp.asarray(chain, jnp.float32)
  again = build(measure(chain)[0], geometry.bonds(chain))
  points, fixed = again.reshape(-1, 3), chain.reshape(-1, 3)
  assert rmsd(points, fixed) < 1e-3
  # Ideal bonds alone do not: the torsions of a native are not enough.
  ideal = build(measure(chain)[0]).reshape(-1, 3)
  assert rmsd(ideal, fixed) > 0.3


def test_a_broken_chain_comes_back():
  torsions = random_torsions(2)
  breaks = jnp.zeros(SIZE, bool).at[jnp.array([7, 15])].set(True)
  jumps = np.random.default_rng(2).normal(size=(SIZE, 6))
  jumps = jnp.asarray(jumps * [5, 5, 5, 1, 1, 1], jnp.float32)
  chain = build(torsions, breaks=breaks, jumps=jumps)
  found, known = measure(chain, breaks)
  assert not known[7, 0]
  assert not known[6, 1:].any()
  assert known[8, 0]
  again = build(found, breaks=breaks, jumps=measure_jumps(chain, found))
  assert rmsd(again.reshape(-1, 3), chain.reshape(-1, 3)) < 1e-3
  # The pieces do not depend on each other.
  bent = build(torsions.at[3].add(1.0), breaks=breaks, jumps=jumps)
  piece = bent[7:15].reshape(-1, 3), chain[7:15].reshape(-1, 3)
  assert rmsd(*piece) < 1e-3
  assert rmsd(bent[:7, 1], chain[:7, 1]) > 0.1


def test_breaks_are_found():
  chain = build(random_torsions(4))
  numbers = jnp.arange(SIZE).at[10:].add(3)
  by_number = np.flatnonzero(geometry.chain_breaks(numbers))
  assert by_number.tolist() == [10]
  # The bond holds whatever the numbers say; and it may be missing.
  assert not geometry.chain_breaks(numbers, chain).any()
  apart = chain.at[12:].add(4.0)
  by_bond = np.flatnonzero(geometry.chain_breaks(jnp.arange(SIZE), apart))
  assert by_bond.tolist() == [12]


def test_beta_carbon_is_where_an_l_amino_acid_has_it():
  # Bonded to CA by 1.53 A, 110 degrees from N and C, and seen from H (which is
  # opposite to N, C and CB) CO, R and N read clockwise: the CORN rule.
  chain = build(random_torsions(6))
  n, ca, c = np.moveaxis(np.asarray(chain), 1, 0)
  cb = np.asarray(geometry.beta_carbons(chain))
  np.testing.assert_allclose(np.linalg.norm(cb - ca, axis=-1), 1.53, atol=0.02)
  for other in (n, c):
    cosine = ((cb - ca) * (other - ca)).sum(-1) / 1.53
    cosine /= np.linalg.norm(other - ca, axis=-1)
    np.testing.assert_allclose(np.rad2deg(np.arccos(cosine)), 110, atol=2)
  hand = (np.cross(c - ca, cb - ca) * (n - ca)).sum(-1)
  assert (hand > 0).all()


def test_glycine_has_its_alpha_carbon():
  chain = build(random_torsions(6))
  glycine = jnp.zeros(SIZE, bool).at[3].set(True)
  cb = geometry.beta_carbons(chain, glycine)
  np.testing.assert_array_equal(cb[3], chain[3, 1])
  assert jnp.linalg.norm(cb[4] - chain[4, 1]) > 1


@pytest.mark.parametrize('seed', range(3))
def test_superposition_undoes_a_motion(seed):
  random = np.random.default_rng(seed)
  points = random.normal(size=(20, 3)).astype(np.float32)
  rotation, shift = random_rotation(seed), random.normal(size=3)
  moved = points @ rotation.T + shift
  found = superpose(jnp.asarray(points), jnp.asarray(moved))
  np.testing.assert_allclose(found.rotation, rotation, atol=1e-5)
  np.testing.assert_allclose(found.shift, shift, atol=1e-5)


def test_superposition_is_no_reflection():
  points = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
  mirror = jnp.asarray(points * np.array([1, 1, -1], np.float32))
  found = superpose(jnp.asarray(points), mirror)
  assert jnp.linalg.det(found.rotation) == pytest.approx(1, abs=1e-5)
  assert rmsd(jnp.asarray(points), mirror) > 0.3


def test_superposition_is_that_of_biotite():
  random = np.random.default_rng(7)
  fixed = random.normal(size=(30, 3)).astype(np.float32) * 5
  mobile = fixed @ random_rotation(7) + random.normal(size=(30, 3))
  mobile = mobile.astype(np.float32)
  fitted, _ = biotite.superimpose(fixed, mobile)
  expected = biotite.rmsd(fixed, fitted)
  found = rmsd(jnp.asarray(mobile), jnp.asarray(fixed))
  assert float(found) == pytest.approx(expected, rel=1e-5)


def test_weights_leave_points_out():
  points = jnp.asarray(
    np.random.default_rng(8).normal(size=(6, 3)), jnp.float32
  )
  spoiled = points.at[5].add(100.0)
  weights = jnp.ones(6).at[5].set(0)
  assert rmsd(points, spoiled, weights) < 1e-4


def test_gradient_is_that_of_finite_differences():
  torsions = random_torsions(9)
  weights = np.random.default_rng(9).normal(size=(SIZE, 3, 3))
  weights = jnp.asarray(weights, jnp.float32)
  gradient = jax.jit(jax.grad(lambda t: jnp.sum(weights * build(t))))(torsions)
  step = 1e-2
  for at in [(0, 1), (3, 0), (7, 2), (12, 1), (SIZE - 1, 0), (SIZE - 1, 1)]:
    moved = (build(torsions.at[at].add(s)) for s in (step, -step))
    up, down = (float(jnp.sum(weights * chain)) for chain in moved)
    slope = (up - down) / (2 * step)
    assert float(gradient[at]) == pytest.approx(slope, rel=1e-2, abs=2e-2)
