"""The potential of one protein: what is believed of it, summed over a backbone.

V = V_distance + V_torsion + V_vdw (Senior et al., Nature 577, 2020, Methods):
the believed distances of CB atoms as splines of -log P, less those of any
protein; the believed torsions as von Mises distributions; a repulsion of atoms
that stands for Rosetta's. It is a function of the torsions, and differentiable.
Slides: deck 000, "AlphaFold System", "Optimise potential with gradient
descent".

>>> chain = make_chain('GAG', np.zeros(3, bool), 4)
>>> known_torsions(chain).astype(int).tolist()  # no first phi, no last psi
[[0, 1], [1, 1], [1, 0], [0, 0]]
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.ops import distogram, geometry
from dl_lectures.types import Array, Key


class Weights(Protocol):
  """How the parts of V are weighed: settings with these names."""

  @property
  def cutoff(self) -> float:
    """Where V_distance becomes constant, angstrom."""

  @property
  def distance_weight(self) -> float:
    """Of V_distance."""

  @property
  def torsion_weight(self) -> float:
    """Of V_torsion."""

  @property
  def vdw_weight(self) -> float:
    """Of the repulsion."""

  @property
  def rama_weight(self) -> float:
    """Of `rama`."""

  @property
  def staged(self) -> bool:
    """Whether near pairs come first, see `stage_weights`."""


class Chain(NamedTuple):
  """What is known of a chain beforehand; padded to L residues.

  Attributes:
    mask: [L] bool, the residues that are there.
    glycine: [L] bool.
    breaks: [L] bool, no bond leads here from the residue before.
  """

  mask: Array
  glycine: Array
  breaks: Array


class Pose(NamedTuple):
  """What is descended on.

  Attributes:
    torsions: [L, 2], phi and psi in radians.
    jumps: [L, 6], see `geometry.backbone`; idle where the chain is whole.
  """

  torsions: Array
  jumps: Array


class Beliefs(NamedTuple):
  """What a network says, or a self-test.

  Attributes:
    distances: [L, L, 64] log-probabilities.
    reference: [L, L, 64] log-probabilities of any protein's; or None.
    torsions: of phi and psi, [L, 2]; kappa 0 where nothing is known.
  """

  distances: Array
  reference: Array | None
  torsions: distogram.VonMises


class Potential(NamedTuple):
  """V of one protein.

  Attributes:
    table: [L, L, 64, 2], splines of the distance; 0 for pairs that do not
      count.
    torsions: of phi and psi, [L, 2].
    chain: the chain.
  """

  table: Array
  torsions: distogram.VonMises
  chain: Chain


def padded_size(length: int) -> int:
  """A few sizes for all lengths, so that programs are compiled for a few.

  >>> [padded_size(length) for length in (40, 96, 97, 300)]
  [96, 96, 128, 320]
  """
  return max(
    96, -(-length // 32) * 32 if length <= 128 else -(-length // 64) * 64
  )


def make_chain(sequence: str, breaks: np.ndarray, size: int) -> Chain:
  """What is known of a protein beforehand, padded to `size` residues."""
  pad = (0, size - len(sequence))
  glycine = np.array([letter == 'G' for letter in sequence])
  return Chain(
    mask=jnp.arange(size) < len(sequence),
    glycine=jnp.asarray(np.pad(glycine, pad)),
    breaks=jnp.asarray(np.pad(breaks, pad)),
  )


def make_potential(
  config: Weights, chain: Chain, beliefs: Beliefs
) -> Potential:
  """V_distance as splines, and the torsions' law (Methods).

  V_distance = -sum log P(d_ij | S, MSA) + sum log P(d_ij | length), over pairs
  i < j; what is said of (i, j) and of (j, i) is averaged.

  Args:
    config: the cutoff and the weight of distances.
    chain: padded to L residues.
    beliefs: of L residues.
  """
  values = -beliefs.distances
  if beliefs.reference is not None:
    values += beliefs.reference
  # Either half of the table is the whole belief.
  values = (values + jnp.swapaxes(values, 0, 1)) / 2
  values -= values[..., -1:]
  apart = 1 - jnp.eye(values.shape[0])
  pairs = chain.mask[:, None] * chain.mask[None, :] * apart
  table = distogram.spline(values, config.cutoff) * pairs[..., None, None]
  kappa = beliefs.torsions.kappa * known_torsions(chain)
  return Potential(
    config.distance_weight * table,
    distogram.VonMises(beliefs.torsions.mean, kappa),
    chain,
  )


def known_torsions(chain: Chain) -> Array:
  """[L, 2] bool: phi and psi that move anything and mean anything."""
  starts = chain.breaks.at[0].set(True)
  ends = jnp.roll(starts | ~chain.mask, -1)
  return jnp.stack([~starts & chain.mask, ~ends & chain.mask], axis=-1)


def coordinates(chain: Chain, pose: Pose) -> Array:
  """The backbone of a pose, [L, 3, 3]; omega is 180 degrees throughout."""
  omega = jnp.full_like(pose.torsions[:, :1], jnp.pi)
  return geometry.backbone(
    jnp.concatenate([pose.torsions, omega], axis=-1),
    breaks=chain.breaks,
    jumps=pose.jumps * _JUMP_SCALE[None],
  )


# Shifts of a broken chain are angstrom where torsions are radians.
_JUMP_SCALE = np.array([10.0, 10.0, 10.0, 1.0, 1.0, 1.0], np.float32)


# Below these two atoms of residues that are not neighbours repel each other.
_CA_RADIUS, _CB_RADIUS = 3.8, 3.5


_VDW_SEPARATION = 3


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def pair_sum(curve: Callable, points: Array, context: Any) -> Array:
  """Sum over pairs of a curve of their distance, with its forces.

  The forces come with the values, as one product of matrices: differentiation
  of the [L, L] distances would read every table twice.

  Args:
    curve: (distance [L, L], context) -> its value and slope, [L, L] each and
      symmetric.
    points: [L, 3].
    context: arrays for the curve; no gradient reaches them.
  """
  return _pair_sum(curve, points, context)[0]


def _pair_sum(curve, points, context):
  x, y, z = (points[:, k][:, None] - points[:, k][None] for k in range(3))
  distance = jnp.sqrt(x * x + y * y + z * z + 1e-6)
  value, slope = curve(distance, context)
  pull = slope / distance
  centred = points - jnp.mean(points, axis=0, keepdims=True)
  sums = pull @ jnp.concatenate([centred, jnp.ones_like(points[:, :1])], -1)
  return jnp.sum(value) / 2, centred * sums[:, 3:] - sums[:, :3]


def _pair_sum_backward(curve, forces, gradient):
  del curve
  return gradient * forces, None


pair_sum.defvjp(_pair_sum, _pair_sum_backward)


def _distance_curve(distance: Array, context) -> tuple[Array, Array]:
  table, weight = context
  value, slope = distogram.evaluate(table, distance)
  return weight * value, weight * slope


def _repulsion(distance: Array, context) -> tuple[Array, Array]:
  radius, weight = context
  overlap = jnp.maximum(radius - distance, 0.0)
  return weight * overlap**2, -2 * weight * overlap


def _both(distance: Array, context) -> tuple[Array, Array]:
  believed, bumping = context
  (v, dv), (w, dw) = (
    _distance_curve(distance, believed),
    _repulsion(distance, bumping),
  )
  return v + w, dv + dw


def energy(
  config: Weights, potential: Potential, pose: Pose, progress: Array | float
) -> Array:
  """V = V_distance + V_torsion + V_vdw, [] nats (Methods).

  Args:
    config: the weights.
    potential: of the protein.
    pose: one structure.
    progress: 0 to 1, how far the descent is; matters where it is staged.
  """
  chain = potential.chain
  atoms = coordinates(chain, pose)
  beta = geometry.beta_carbons(atoms, chain.glycine)
  apart = separation(len(beta))
  weight = (
    stage_weights(apart, chain.mask, progress)
    if config.staged
    else jnp.ones((1, 1))
  )
  believed = potential.table, weight
  if config.vdw_weight:
    pairs = chain.mask[:, None] & chain.mask[None] & (apart >= _VDW_SEPARATION)
    pairs = config.vdw_weight * pairs
    total = pair_sum(_both, beta, (believed, (_CB_RADIUS, pairs)))
    total += pair_sum(_repulsion, atoms[:, 1], (_CA_RADIUS, pairs))
  else:
    total = pair_sum(_distance_curve, beta, believed)
  if config.torsion_weight:
    law = potential.torsions
    total -= config.torsion_weight * jnp.sum(
      law.kappa * jnp.cos(pose.torsions - law.mean)
    )
  if config.rama_weight:
    known = known_torsions(chain).all(-1)
    total += config.rama_weight * jnp.sum(known * rama(pose.torsions))
  return total


def separation(length: int) -> np.ndarray:
  """|i - j|, [L, L]."""
  place = np.arange(length)
  return np.abs(place[:, None] - place[None])


def stage_weights(apart, mask, progress) -> Array:
  """How much each pair counts: near ones at first, all from the middle on.

  Ours, not published: without torsions it keeps halves of a chain from winding
  up as each other's mirror images.
  """
  reach = 4 + jnp.sum(mask) * jnp.minimum(2 * progress, 1.0) ** 2
  return jax.nn.sigmoid((reach - apart) / 2)


# Ramachandran's regions: right-handed helix, strand, polyproline, left-handed
# helix; shares and directions in round numbers.
_RAMA_SHARES = np.array([0.45, 0.25, 0.22, 0.08])


_RAMA_MEANS = np.deg2rad([[-63, -42], [-120, 135], [-68, 145], [60, 40]])


_RAMA_KAPPA = np.array([[12, 10], [5, 7], [10, 8], [8, 6]])


def rama(torsions: Array) -> Array:
  """-log density of (phi, psi) in proteins in general: [L, 2] -> [L] nats."""
  law = distogram.VonMises(
    jnp.asarray(_RAMA_MEANS, jnp.float32)[None],
    jnp.asarray(_RAMA_KAPPA, jnp.float32)[None],
  )
  nll = jnp.sum(distogram.von_mises_nll(torsions[:, None], law), axis=-1)
  shares = jnp.asarray(np.log(_RAMA_SHARES), jnp.float32)[None]
  return -jax.nn.logsumexp(shares - nll, axis=-1)


def sample_pose(law: distogram.VonMises, chain: Chain, key: Key) -> Pose:
  """A start: torsions drawn from their laws, pieces of the chain anywhere."""
  own, far = jax.random.split(key)
  jumps = jax.random.normal(far, (len(chain.mask), 6))
  return Pose(sample_torsions(law, own), jumps)


def sample_torsions(law: distogram.VonMises, key: Key) -> Array:
  """Torsions from their laws, [L, 2]; of residues without, as in any protein.

  Normal numbers stand for von Mises': as far from their mean on average.

  Args:
    law: of phi and psi, [L, 2].
    key: consumed.
  """
  own, which = jax.random.split(key)
  shares = jnp.asarray(np.log(_RAMA_SHARES), jnp.float32)
  region = jax.random.categorical(which, shares, shape=law.mean.shape[:1])
  unknown = jnp.all(law.kappa == 0, axis=-1, keepdims=True)
  mean = jnp.where(
    unknown, jnp.asarray(_RAMA_MEANS, jnp.float32)[region], law.mean
  )
  kappa = jnp.where(
    unknown, jnp.asarray(_RAMA_KAPPA, jnp.float32)[region], law.kappa
  )
  resultant = jax.scipy.special.i1e(kappa) / jax.scipy.special.i0e(kappa)
  spread = jnp.sqrt(-2 * jnp.log(jnp.maximum(resultant, 1e-6)))
  return wrap(mean + spread * jax.random.normal(own, mean.shape))


def wrap(angle: Array) -> Array:
  """The same angle within -pi and pi."""
  return jnp.arctan2(jnp.sin(angle), jnp.cos(angle))
