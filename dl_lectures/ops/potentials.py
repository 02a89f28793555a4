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
    table: [H, L, 64, 2], splines of the distance, each pair once as in
      `pairs_of`; 0 for those that do not count.
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
  pairs = pairs_of(values.shape[0])
  values = values[pairs.first, pairs.second]
  values -= values[..., -1:]
  table = distogram.spline(values, config.cutoff)
  table *= _are_there(pairs, chain.mask)[..., None, None]
  kappa = beliefs.torsions.kappa * known_torsions(chain)
  return Potential(
    config.distance_weight * table,
    distogram.VonMises(beliefs.torsions.mean, kappa),
    chain,
  )


def splines_of(potential: Potential, first: Array, second: Array) -> Array:
  """Splines of some pairs, [...] each, the first before the second.

  Returns:
    [..., 64, 2]; 0 of the last residue with itself.
  """
  rows, length = potential.table.shape[:2]
  own = first < rows
  return potential.table[
    jnp.where(own, first, length - 1 - first),
    jnp.where(own, second, length - 1 - second),
  ]


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


class Pairs(NamedTuple):
  """Every pair of L residues once, in a rectangle: H = L / 2 rows, rounded up.

  Of L rows the lower half is turned by 180 degrees, and fills what the upper
  half has below the diagonal:

      01 02 03             33 01 02 03
         12 13    ──>      23 22 12 13     the rest counts nothing
            23

  Attributes:
    first: [H, L] int32, i of (i, j).
    second: [H, L] int32, j.
    own: [H, L] bool, those that are in their own row: j stands where it did.
    once: [H, L] bool, false of a residue with itself, and of what is there
      twice, as the middle row of an odd number is.
  """

  first: np.ndarray
  second: np.ndarray
  own: np.ndarray
  once: np.ndarray


@functools.cache
def pairs_of(length: int) -> Pairs:
  """The pairs of a chain.

  >>> pairs = pairs_of(4)
  >>> pairs.first.tolist(), pairs.second.tolist()
  ([[3, 0, 0, 0], [2, 2, 1, 1]], [[3, 1, 2, 3], [3, 2, 2, 3]])
  """
  row = np.arange(-(-length // 2), dtype=np.int32)[:, None]
  column = np.arange(length, dtype=np.int32)[None]
  own = column > row
  first = np.where(own, row, length - 1 - row)
  second = np.where(own, column, length - 1 - column)
  twice = ~own & (2 * row == length - 1)
  return Pairs(first, second, own, (first < second) & ~twice)


def _are_there(pairs: Pairs, mask: Array) -> Array:
  """[H, L] bool: pairs of residues that are there."""
  return mask[pairs.first] & mask[pairs.second] & pairs.once


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def pair_sum(curve: Callable, points: Array, context: Any) -> Array:
  """Sum over pairs of a curve of their distance, with its forces.

  The forces come with the values, as products of matrices: differentiation of
  the distances would read every table twice.

  Args:
    curve: (distances [H, L], context) -> their values and slopes, [H, L] each,
      of each pair once as in `pairs_of`.
    points: [L, 3].
    context: arrays for the curve; no gradient reaches them.
  """
  return _pair_sum(curve, points, context)[0]


def _pair_sum(curve, points, context):
  length = points.shape[0]
  pairs, rows = pairs_of(length), -(-length // 2)

  def apart(x):
    return x[:rows, None] - x[None]

  x, y, z = (jnp.where(pairs.own, apart(x), apart(x[::-1])) for x in points.T)
  distance = jnp.sqrt(x * x + y * y + z * z + 1e-6)
  value, slope = curve(distance, context)
  # Or XLA would work the curve out anew for each of the products that follow.
  pull = jax.lax.optimization_barrier(
    jnp.where(pairs.once, slope / distance, 0.0)
  )
  centred = points - jnp.mean(points, axis=0, keepdims=True)
  moments = jnp.concatenate([centred, jnp.ones_like(points[:, :1])], axis=-1)

  def felt(pull, moments):
    """By residues of the rows, and by those of the columns."""
    below = jnp.pad(pull @ moments, [(0, length - rows), (0, 0)])
    return below + pull.T @ moments[:rows]

  sums = felt(jnp.where(pairs.own, pull, 0.0), moments)
  sums += felt(jnp.where(pairs.own, 0.0, pull), moments[::-1])[::-1]
  forces = centred * sums[:, 3:] - sums[:, :3]
  return jnp.sum(jnp.where(pairs.once, value, 0.0)), forces


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
  v, dv = _distance_curve(distance, believed)
  w, dw = _repulsion(distance, bumping)
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
  pairs = pairs_of(len(beta))
  apart = pairs.second - pairs.first
  weight = (
    stage_weights(apart, chain.mask, progress)
    if config.staged
    else jnp.ones((1, 1))
  )
  believed = potential.table, weight
  if config.vdw_weight:
    bumping = _are_there(pairs, chain.mask) & (apart >= _VDW_SEPARATION)
    bumping = config.vdw_weight * bumping
    total = pair_sum(_both, beta, (believed, (_CB_RADIUS, bumping)))
    total += pair_sum(_repulsion, atoms[:, 1], (_CA_RADIUS, bumping))
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
