"""Proteins as angles and as points: torsions, backbones, superposition.

A backbone is [L, 3, 3]: of each residue the atoms N, CA and C, each x, y, z in
angstrom. Its torsions are [L, 3] in radians, as IUPAC has them: phi_i turns
about N-CA, psi_i about CA-C, omega_i about the bond from C_i to the next N. So
phi of a chain's first residue and psi and omega of its last one mean nothing.

Bonds hardly stretch: lengths and angles of `IDEAL` are enough to draw a chain
from its torsions alone, which is what AlphaFold at CASP13 descends on (Senior
et al., Nature 2020; slides, deck 000, "Folding Proteins with AlphaFold").

Everything is unbatched (`jax.vmap` does many chains) and differentiable.

>>> helix = jnp.deg2rad(jnp.tile(jnp.array([-57.0, -47.0, 180.0]), (10, 1)))
>>> chain = backbone(helix)
>>> turn = float(jnp.linalg.norm(chain[4, 1] - chain[0, 1]))  # 3.6 residues
>>> round(turn)
6
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array

# Engh and Huber's means, Acta Crystallographica A47 (1991): of the bonds that
# end in N, CA and C, and of the angles CA-C-N, C-N-CA and N-CA-C between them.
_LENGTHS = np.array([1.329, 1.458, 1.525], np.float32)
_ANGLES = np.deg2rad(np.array([117.2, 121.7, 111.0])).astype(np.float32)

# CB in the basis of b = CA - N, c = C - CA and b x c, for ideal angles.
_CB = (0.56802827, -0.54067466, -0.58273431)

# Longer than any C-N bond, shorter than any way around a missing residue.
_LONGEST_BOND = 2.0


class Bonds(NamedTuple):
  """What torsions leave open; column k is that of the k-th atom of a residue.

  Attributes:
    length: [L, 3] or [3], angstrom, of the bond that ends in the atom; of N
      the bond from the residue before.
    angle: [L, 3] or [3], radians, at the atom before it.
  """

  length: Array | np.ndarray
  angle: Array | np.ndarray


IDEAL = Bonds(_LENGTHS, _ANGLES)


class Rigid(NamedTuple):
  """A motion that keeps distances and handedness: x -> rotation x + shift.

  Attributes:
    rotation: [..., 3, 3].
    shift: [..., 3], angstrom.
  """

  rotation: Array
  shift: Array


def turn(rotation: Array, points: Array) -> Array:
  """Rotates points: [..., 3, 3], [..., 3] -> [..., 3]."""
  return jnp.sum(rotation * points[..., None, :], -1)


def move(rigid: Rigid, points: Array) -> Array:
  """Moves points, [N, 3], by one motion."""
  return points @ rigid.rotation.T + rigid.shift[None]


def backbone(
  torsions: Array,
  bonds: Bonds = IDEAL,
  breaks: Array | None = None,
  jumps: Array | None = None,
) -> Array:
  """Atoms from torsions: each bond is a frame, and frames are composed.

  The first N is the origin, the bond to its CA the x axis at most turned.

  Args:
    torsions: [L, 3], radians.
    bonds: lengths and angles.
    breaks: [L] bool, whether a residue hangs on no bond from the one before.
    jumps: [L, 6], needed with breaks: how such a residue lies in the frame of
      the C before it: shift in angstrom, and the imaginary part of a
      quaternion whose real part is 1.

  Returns:
    [L, 3, 3], angstrom.

  >>> stretched = backbone(jnp.full((3, 3), jnp.pi))
  >>> stretched.shape, round(float(jnp.linalg.norm(stretched[1, 0] -
  ...   stretched[0, 2])), 3)
  ((3, 3, 3), 1.329)
  """
  phi, psi, omega = torsions.T
  # The angle about the bond before N, before CA and before C.
  angles = jnp.roll(psi, 1), jnp.roll(omega, 1), phi
  to_n, to_ca, to_c = _bond_frames(angles, bonds)
  if breaks is not None:
    assert jumps is not None, 'breaks need jumps'
    to_n = jnp.where(breaks[None, None], _jump_frames(jumps), to_n)
  starts = np.arange(torsions.shape[0])[None, None] == 0
  to_n = jnp.where(starts, _STILL[..., None], to_n)
  return jnp.stack(place(to_n, to_ca, to_c)).transpose(2, 0, 1)


# Motions as matrices [3, 4], a rotation and a shift. Here they lie component by
# component, residues last: XLA's loops then run along the chain.
_STILL = np.eye(3, 4, dtype=np.float32)


def _compose(first: Array, second: Array) -> Array:
  """The motion that does the second one, then the first: [3, 4, ...] each."""
  product = _rotate(first, second)
  return jnp.concatenate(
    [product[:, :3], product[:, 3:] + first[:, 3:]], axis=1
  )


def _rotate(first: Array, second: Array) -> Array:
  """Rotation of motions, [3, 4, ...], times matrices, [3, K, ...]."""
  # Sums of products: XLA has no fast matrix product for many tiny matrices.
  x, y, z = (first[:, k, None] * second[k][None] for k in range(3))
  return x + y + z


@jax.custom_vjp
def place(to_n: Array, to_ca: Array, to_c: Array) -> tuple[Array, Array, Array]:
  """Where atoms are that hang on each other, each in the frame of the last.

  The gradient is mechanics: what moves an atom's frame moves all atoms after
  it, as one body. So its shift feels the sum of their forces, its rotation the
  sum of their moments, and both are sums along the chain; differentiation of
  the products would go through all of them once more.

  Args:
    to_n: [3, 4, L]: row, column (the last is the shift), residue.
    to_ca: likewise.
    to_c: likewise.

  Returns:
    [3, L] of each atom.

  >>> frames = jnp.tile(jnp.eye(3, 4)[..., None], (1, 1, 2)).at[0, 3].set(1.0)
  >>> [atom[0].tolist() for atom in place(frames, frames, frames)]
  [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
  """
  return _place(to_n, to_ca, to_c)[0]


def _place(to_n, to_ca, to_c):
  to_ca = _compose(to_n, to_ca)
  c = _products(_compose(to_ca, to_c))
  still = jnp.asarray(_STILL, c.dtype)[..., None]
  before = jnp.concatenate([still, c[..., :-1]], axis=-1)
  n, ca = _compose(before, to_n), _compose(before, to_ca)
  return (n[:, 3], ca[:, 3], c[:, 3]), (before, n, ca, c)


def _products(frames: Array) -> Array:
  """[3, 4, L] -> [3, 4, L]: of each frame and all before it.

  By doubling: after a round with step k each product is of 2 k frames.
  """
  length = frames.shape[-1]
  still = jnp.asarray(_STILL, frames.dtype)[..., None]
  step = 1
  while step < length:
    none = jnp.broadcast_to(still, (3, 4, step))
    before = jnp.concatenate([none, frames[..., :-step]], axis=-1)
    # Or XLA would work out all rounds anew in each of them.
    frames = jax.lax.optimization_barrier(_compose(before, frames))
    step *= 2
  return frames


def _place_backward(frames, forces):
  # Of each atom the force, and its moments about the origin.
  own = [
    jnp.concatenate([force[:, None], force[:, None] * frame[None, :, 3]], 1)
    for force, frame in zip(forces, frames[1:], strict=True)
  ]
  length = own[0].shape[-1]
  later = jnp.asarray(np.tril(np.ones((length, length)), -1), own[0].dtype)
  n, ca, c = own
  felt = ((n + ca + c).reshape(12, length) @ later).reshape(3, 4, length)
  gradients = []
  for atom in (2, 1, 0):
    felt += own[atom]
    before, frame = frames[atom : atom + 2]
    force, moment = felt[:, 0], felt[:, 1:]
    # About the atom itself; then in the frame that its own frame is given in.
    moment -= force[:, None] * frame[None, :, 3]
    back = before[:, :3].swapaxes(0, 1)
    turned = _rotate(_rotate(back, moment), frame[:, :3])
    shift = _rotate(back, force[:, None])
    gradients.append(jnp.concatenate([turned, shift], axis=1))
  return tuple(gradients[::-1])


place.defvjp(_place, _place_backward)


def _bond_frames(torsions: Sequence[Array], bonds: Bonds) -> list[Array]:
  """Frames of atoms in that of the atom before: x along the bond, z normal.

  Args:
    torsions: [L] each, about the bonds before N, CA and C.
    bonds: lengths and angles.

  Returns:
    [3, 4, L] each.
  """
  frames = []
  for atom, torsion in enumerate(torsions):
    length, angle = bonds.length[..., atom], bonds.angle[..., atom]
    cos, sin = jnp.cos(torsion), jnp.sin(torsion)
    flat, steep = jnp.cos(angle), jnp.sin(angle)
    # Columns: along the bond, across it in its plane, normal to the plane.
    x = [jnp.broadcast_to(-flat, cos.shape), steep * cos, steep * sin]
    y = [jnp.broadcast_to(-steep, cos.shape), -flat * cos, -flat * sin]
    z = [jnp.zeros_like(sin), -sin, cos]
    rows = zip(x, y, z, (length * along for along in x), strict=True)
    frames.append(jnp.stack([jnp.stack(row) for row in rows]))
  return frames


def _jump_frames(jumps: Array) -> Array:
  """[L, 6] -> [3, 4, L]; the quaternion (1, b, c, d), normalised."""
  x, y, z, b, c, d = jumps.T
  s = 2 / (1 + b * b + c * c + d * d)
  rows = [
    [1 - s * (c * c + d * d), s * (b * c - d), s * (b * d + c), x],
    [s * (b * c + d), 1 - s * (b * b + d * d), s * (c * d - b), y],
    [s * (b * d - c), s * (c * d + b), 1 - s * (b * b + c * c), z],
  ]
  return jnp.stack([jnp.stack(row) for row in rows])


def beta_carbons(chain: Array, glycine: Array | None = None) -> Array:
  """CB where its neighbours put it; CA in glycine, which has none.

  The distances of a distogram are those of these atoms.

  Args:
    chain: [..., L, 3, 3], a backbone.
    glycine: [L] bool; none is by default.

  Returns:
    [..., L, 3], angstrom.
  """
  n, ca, c = chain[..., 0, :], chain[..., 1, :], chain[..., 2, :]
  along, across = ca - n, c - ca
  normal = jnp.cross(along, across)
  cb = ca + _CB[0] * along + _CB[1] * across + _CB[2] * normal
  return cb if glycine is None else jnp.where(glycine[:, None], ca, cb)


def dihedral(a: Array, b: Array, c: Array, d: Array) -> Array:
  """The torsion about b-c, clockwise as seen along it: [..., 3] -> [...].

  Returns:
    Radians, -pi to pi. Its gradient is not finite where three are in line.

  >>> points = jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, -1]])
  >>> round(float(dihedral(*points)), 4)
  1.5708
  """
  axis = c - b
  first, second = jnp.cross(b - a, axis), jnp.cross(axis, d - c)
  length = jnp.sqrt(jnp.sum(axis * axis, -1))
  return jnp.arctan2(
    jnp.sum((b - a) * second, -1) * length, jnp.sum(first * second, -1)
  )


def torsions(chain: Array, breaks: Array | None = None) -> tuple[Array, Array]:
  """Torsions back from a backbone.

  Args:
    chain: [L, 3, 3].
    breaks: [L] bool; none by default.

  Returns:
    [L, 3] radians, 0 where there is none; and [L, 3] bool, whether there is:
    not phi of a first residue nor psi and omega of a last one, of the chain
    and of each piece of a broken one.
  """
  n, ca, c = chain[:, 0], chain[:, 1], chain[:, 2]
  starts = jnp.zeros(len(chain), bool) if breaks is None else breaks
  starts = starts.at[0].set(True)
  ends = jnp.roll(starts, -1)
  c_before = jnp.roll(c, 1, axis=0)
  n_after, ca_after = jnp.roll(n, -1, axis=0), jnp.roll(ca, -1, axis=0)
  found = jnp.stack(
    [
      dihedral(c_before, n, ca, c),
      dihedral(n, ca, c, n_after),
      dihedral(ca, c, n_after, ca_after),
    ],
    axis=-1,
  )
  known = jnp.stack([~starts, ~ends, ~ends], axis=-1)
  return jnp.where(known, found, 0.0), known


def bonds(chain: Array) -> Bonds:
  """Bond lengths and angles of a backbone, as `backbone` takes them.

  With its torsions they give back the chain, but for where it lies.

  Args:
    chain: [L, 3, 3].

  Returns:
    [L, 3] each; those of atoms with too few before them are ideal.
  """
  points = chain.reshape(-1, 3)
  steps = points[1:] - points[:-1]
  length = jnp.linalg.norm(steps, axis=-1)
  cosine = -jnp.sum(steps[1:] * steps[:-1], -1) / (length[1:] * length[:-1])
  shape = chain.shape[:2]
  ideal = jax.tree.map(lambda x: jnp.tile(x, (shape[0], 1)).ravel(), IDEAL)
  return Bonds(
    ideal.length.at[1:].set(length).reshape(shape),
    ideal.angle.at[2:].set(jnp.arccos(cosine)).reshape(shape),
  )


def jumps(chain: Array, torsions: Array, bonds: Bonds = IDEAL) -> Array:
  """How each residue lies in the frame of the C before it; see `backbone`.

  Args:
    chain: [L, 3, 3].
    torsions: [L, 3], those that `backbone` will be given, and
    bonds: likewise: at a break they say how the frame meets the atoms.

  Returns:
    [L, 6]; zeros of the first residue. Of half a turn there is no such
    quaternion, and near it numbers become large.
  """
  n, ca, c = chain[:, 0], chain[:, 1], chain[:, 2]
  x = _unit(c - ca)
  z = _unit(jnp.cross(ca - n, x))
  last = jnp.stack([x, jnp.cross(z, x), z], axis=-1)  # [L, 3, 3], of C
  omega = jnp.roll(torsions[:, 2], 1)
  _, *frames = _bond_frames([omega, omega, torsions[:, 0]], bonds)
  to_ca, to_c = (frame[:, :3].transpose(2, 0, 1) for frame in frames)
  first = last @ to_c.mT @ to_ca.mT  # of N
  rotation = last[:-1].mT @ first[1:]
  shift = turn(last[:-1].mT, n[1:] - c[:-1])
  twice = jnp.stack(
    [
      rotation[:, 2, 1] - rotation[:, 1, 2],
      rotation[:, 0, 2] - rotation[:, 2, 0],
      rotation[:, 1, 0] - rotation[:, 0, 1],
    ],
    axis=-1,
  )
  trace = jnp.trace(rotation, axis1=-2, axis2=-1)[:, None]
  found = jnp.concatenate([shift, twice / (1 + trace)], axis=-1)
  return jnp.concatenate([jnp.zeros((1, 6)), found])


def _unit(vectors: Array) -> Array:
  return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def chain_breaks(residue_index: Array, chain: Array | None = None) -> Array:
  """Where a chain is interrupted: [L] bool, before that residue.

  Atoms know better than numbers: with a backbone, a bond from C to N longer
  than 2 angstrom is a break and a jump of the numbering is not.

  Args:
    residue_index: [L] int, the residues' numbers.
    chain: [L, 3, 3].

  >>> chain_breaks(jnp.array([5, 6, 9, 10])).tolist()
  [False, False, True, False]
  """
  if chain is None:
    gaps = residue_index[1:] != residue_index[:-1] + 1
  else:
    gaps = (
      jnp.linalg.norm(chain[1:, 0] - chain[:-1, 2], axis=-1) > _LONGEST_BOND
    )
  return jnp.concatenate([jnp.zeros(1, bool), gaps])


def superpose(
  mobile: Array, fixed: Array, weights: Array | None = None
) -> Rigid:
  """The motion that brings points nearest to others, in the least squares.

  Kabsch, Acta Crystallographica A32 (1976): never a reflection, however much
  nearer the mirror image would come.

  Args:
    mobile: [N, 3].
    fixed: [N, 3].
    weights: [N], not negative, not all zero; equal by default.

  Returns:
    The motion; with `move` it is applied to the mobile points.

  >>> points = jnp.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
  >>> found = superpose(points, points + 5.0)
  >>> bool(jnp.allclose(found.shift, 5.0, atol=1e-4))
  True
  """
  weights = jnp.ones(mobile.shape[0]) if weights is None else weights
  weights = (weights / jnp.sum(weights))[:, None]
  centre_mobile = jnp.sum(weights * mobile, 0)
  centre_fixed = jnp.sum(weights * fixed, 0)
  spread = weights * (fixed - centre_fixed[None])
  covariance = (mobile - centre_mobile[None]).T @ spread
  u, _, vt = jnp.linalg.svd(covariance)
  # The axis of least spread pays for the handedness.
  sign = jnp.sign(jnp.linalg.det(u @ vt))
  rotation = (u.at[:, 2].multiply(sign) @ vt).T
  return Rigid(rotation, centre_fixed - rotation @ centre_mobile)


def rmsd(mobile: Array, fixed: Array, weights: Array | None = None) -> Array:
  """The least root mean square distance over all motions, [] in angstrom.

  Args:
    mobile: [N, 3].
    fixed: [N, 3].
    weights: [N]; equal by default.
  """
  weights = jnp.ones(mobile.shape[0]) if weights is None else weights
  moved = move(superpose(mobile, fixed, weights), mobile)
  square = jnp.sum((moved - fixed) ** 2, -1)
  return jnp.sqrt(jnp.sum(weights * square) / jnp.sum(weights))
