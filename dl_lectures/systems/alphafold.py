"""AlphaFold at CASP13: a potential of its own for each protein, and descent.

Senior et al., "Improved protein structure prediction using potentials from deep
learning", Nature 577 (2020) [R]; its inference code, google-deepmind/
deepmind-research, alphafold_casp13 [D]. Slides: deck 000, "Folding Proteins
with AlphaFold", "AlphaFold System", "Optimise potential with gradient descent".

      sequence, alignment ──> network ──> distogram, torsions
                                                |
      torsions <── corrupted best          potential V =
         |           ^                   distances - reference
         v           |                 + torsions + van der Waals
      backbone ──> descent on V, of all restarts side by side
                     |
                     └──> the structure with the lowest potential

This half of it, from beliefs to structures, stands on its own: `make_potential`
takes a distogram and laws of torsions, whoever made them, and `fold` descends.

  python -m experiments.alphafold_fold --input=1ubi.pdb --workdir=runs/1ubi
  python -m experiments.alphafold_selftest

The second folds 20 chains of 50 to 119 residues from beliefs made of the truth:
from exact distances and torsions that are 20 degrees off, the lowest of eight
restarts has a median TM-score of .985, the worst of 60 folds .87. Near pairs
are pulled first, which is ours. Where no torsions are predicted, starts are
fitted to near pairs (`fit_locally`), ours as well: distances alone then give
.974, without it and from any torsions .64.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures import types
from dl_lectures.data import proteins
from dl_lectures.ops import distogram, geometry

Array = jax.Array

OPTIMIZERS = ('adam', 'lbfgs')

# Shifts of a broken chain are angstrom where torsions are radians.
_JUMP_SCALE = np.array([10.0, 10.0, 10.0, 1.0, 1.0, 1.0], np.float32)

# Below these two atoms of residues that are not neighbours repel each other.
_CA_RADIUS, _CB_RADIUS = 3.8, 3.5
_VDW_SEPARATION = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldConfig:
  """How a potential is made and descended; comments give values of [R]."""

  seed: int = 0  # of every random number
  cutoff: float = 18.0  # V is constant beyond, angstrom; [R]: not told
  distance_weight: float = 1.0  # [R]: 1, no other was noticeably better
  torsion_weight: float = 1.0  # [R]: 1
  vdw_weight: float = 5.0  # of our stand-in for Rosetta's score2_smooth
  rama_weight: float = 0.0  # of a generic Ramachandran prior; [R]: none
  staged: bool = False  # near pairs in the sequence first; [R]: all at once
  local_steps: int = 0  # of `fit_locally` before a descent; [R]: none
  optimizer: str = 'adam'  # or lbfgs; [R]: L-BFGS
  learning_rate: float = 0.1  # Adam's, falling to 0 along a cosine
  steps: int = 800  # evaluations of V and its gradient; [R]: 1,200
  polish: int = 0  # evaluations of L-BFGS on the winner; [R]: none
  restarts: int = 8  # descents side by side
  rounds: int = 1  # of restarts; [R]: 5,000 descents in all
  pool: int = 20  # low-potential structures kept; [R]: 20
  noise: float = 30.0  # degrees, put on those that are descended again; [R]: 30
  fresh: float = 0.1  # share of restarts not taken from the pool; [R]: .1

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'steps restarts rounds pool', 1)
    weights = 'distance_weight torsion_weight vdw_weight rama_weight'
    types.check_fields(self, weights, 0)
    types.check_fields(self, 'learning_rate local_steps polish noise', 0)
    types.check_fields(self, 'fresh', 0, 1)
    types.check_fields(self, 'cutoff', 4, distogram.FARTHEST)
    if self.optimizer not in OPTIMIZERS:
      raise types.UsageError(
        f'config.optimizer={self.optimizer!r}; possible: '
        + ', '.join(OPTIMIZERS)
      )
    if self.staged and self.optimizer == 'lbfgs':
      raise types.UsageError(
        'config.staged=True; with config.optimizer=lbfgs only False is '
        'possible: V must not change under a line search'
      )


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


class Pose(NamedTuple):
  """What is descended on.

  Attributes:
    torsions: [L, 2], phi and psi in radians.
    jumps: [L, 6], see `geometry.backbone`; idle where the chain is whole.
  """

  torsions: Array
  jumps: Array


class Fold(NamedTuple):
  """What `fold` found: K structures, the lowest potential first.

  Attributes:
    poses: of [K, ...] arrays.
    energies: [K] float32.
    descents: [rounds, steps, restarts] float32, V along all descents.
    best: [rounds] float32, the lowest V after each round.
  """

  poses: Pose
  energies: Array
  descents: Array
  best: Array


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blur:
  """What a self-test does to the truth before it is believed; ours, not [R]'s.

  It shows what the potential and the descent can do, whatever the network.
  """

  noise: float = 0.0  # angstrom, of each distance's mean
  correlation: float = 0.0  # residues over which the noise is alike
  uninformative: float = 0.0  # share of long-range pairs of which is no belief
  distances: bool = True  # whether any distance is told
  contacts: bool = False  # told are only contacts, nearer than 8 angstrom
  torsions: bool = True  # whether any torsion is told
  torsion_error: float = 20.0  # degrees, of each torsion's mean

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(self, 'noise correlation torsion_error', 0)
    types.check_fields(self, 'uninformative', 0, 1)


class Truth(NamedTuple):
  """A known structure; padded with zeros.

  Attributes:
    cb: [L, 3], angstrom; CA of glycine.
    ca: [L, 3].
    torsions: [L, 2], phi and psi.
  """

  cb: Array
  ca: Array
  torsions: Array


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


def make_truth(protein: proteins.Chain, size: int) -> Truth:
  """The structure of a protein, padded to `size` residues."""
  pad = [(0, size - len(protein.sequence)), (0, 0)]
  atoms = jnp.asarray(np.pad(protein.backbone, [*pad, (0, 0)]))
  torsions, known = geometry.torsions(
    atoms, jnp.asarray(np.pad(protein.breaks, pad[0]))
  )
  return Truth(
    cb=jnp.asarray(np.pad(protein.cb, pad)),
    ca=atoms[:, 1],
    torsions=jnp.where(known, torsions, 0.0)[:, :2],
  )


# Far apart in the sequence.
_LONG_RANGE = 12

# Neighbours' distances are nearly the same in all proteins: less noise.
_NEIGHBOURS, _NEIGHBOUR_NOISE = 4, 0.25


def blurred_truth(blur: Blur, truth: Truth, key: types.Key) -> Beliefs:
  """Beliefs made from a structure that is known.

  Args:
    blur: how far from the truth they are.
    truth: the structure.
    key: consumed.
  """
  length = len(truth.cb)
  far, hidden, turned = jax.random.split(key, 3)
  apart = _separation(length)
  distance = distogram.pair_distances(truth.cb) + distance_noise(
    blur, length, far
  )
  believed = distogram.blurred(distance, max(0.5, blur.noise))
  if blur.contacts:
    believed = distogram.contacts_only(believed)
  told = jax.random.uniform(hidden, (length, length)) >= blur.uninformative
  told = jnp.triu(told, 1) | jnp.triu(told, 1).T | (apart < _LONG_RANGE)
  told &= blur.distances
  even = jnp.full_like(believed, -np.log(distogram.BINS))
  error = jnp.deg2rad(blur.torsion_error)
  mean = truth.torsions
  mean += error * jax.random.normal(turned, mean.shape)
  # The concentration of just this error.
  kappa = distogram.concentration(jnp.exp(-(error**2) / 2)) * blur.torsions
  return Beliefs(
    jnp.where(told[..., None], believed, even),
    None,
    distogram.VonMises(wrap(mean), jnp.full(mean.shape, kappa)),
  )


def distance_noise(blur: Blur, length: int, key: types.Key) -> Array:
  """[L, L] symmetric, angstrom; correlated along both of its axes."""
  noise = jax.random.normal(key, (length, length))
  noise = jnp.triu(noise, 1) + jnp.triu(noise, 1).T
  if blur.correlation:
    place = np.arange(length)
    near = np.exp(-(((place[:, None] - place) / blur.correlation) ** 2))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    smooth = jnp.asarray(near, jnp.float32)
    noise = smooth @ noise @ smooth.T
  neighbours = _separation(length) < _NEIGHBOURS
  return noise * jnp.where(
    neighbours, _NEIGHBOUR_NOISE * blur.noise, blur.noise
  )


def make_potential(
  config: FoldConfig, chain: Chain, beliefs: Beliefs
) -> Potential:
  """V_distance as splines, and the torsions' law ([R], Methods).

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
  radius, pairs = context
  overlap = jnp.maximum(radius - distance, 0.0) * pairs
  return overlap**2, -2 * overlap


def energy(
  config: FoldConfig, potential: Potential, pose: Pose, progress: Array | float
) -> Array:
  """V = V_distance + V_torsion + V_vdw, [] nats ([R], Methods).

  Args:
    config: the weights.
    potential: of the protein.
    pose: one structure.
    progress: 0 to 1, how far the descent is; matters where it is staged.
  """
  chain = potential.chain
  atoms = coordinates(chain, pose)
  beta = geometry.beta_carbons(atoms, chain.glycine)
  apart = _separation(len(beta))
  weight = (
    stage_weights(apart, chain.mask, progress)
    if config.staged
    else jnp.ones((1, 1))
  )
  total = pair_sum(_distance_curve, beta, (potential.table, weight))
  if config.vdw_weight:
    pairs = chain.mask[:, None] & chain.mask[None] & (apart >= _VDW_SEPARATION)
    pairs = pairs.astype(jnp.float32)
    clash = pair_sum(_repulsion, atoms[:, 1], (_CA_RADIUS, pairs))
    clash += pair_sum(_repulsion, beta, (_CB_RADIUS, pairs))
    total += config.vdw_weight * clash
  if config.torsion_weight:
    law = potential.torsions
    total -= config.torsion_weight * jnp.sum(
      law.kappa * jnp.cos(pose.torsions - law.mean)
    )
  if config.rama_weight:
    known = known_torsions(chain).all(-1)
    total += config.rama_weight * jnp.sum(known * rama(pose.torsions))
  return total


def _separation(length: int) -> np.ndarray:
  place = np.arange(length)
  return np.abs(place[:, None] - place[None])


def stage_weights(apart, mask, progress) -> Array:
  """How much each pair counts: near ones at first, all from the middle on.

  Ours, not [R]'s: without torsions it keeps halves of a chain from winding up
  as each other's mirror images.
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


def sample_pose(law: distogram.VonMises, chain: Chain, key: types.Key) -> Pose:
  """A start: torsions drawn from their laws, pieces of the chain anywhere."""
  own, far = jax.random.split(key)
  jumps = jax.random.normal(far, (len(chain.mask), 6))
  return Pose(sample_torsions(law, own), jumps)


def sample_torsions(law: distogram.VonMises, key: types.Key) -> Array:
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


# Pairs up to so far apart fix the torsions between them, all but their hand.
_LOCAL = 4

# Of the first and of the last step of `fit_locally`.
_LOCAL_TEMPERATURES = 3.0, 1.0


def fit_locally(
  config: FoldConfig, potential: Potential, start: Pose, key: types.Key
) -> Pose:
  """Draws torsions anew until near pairs agree; ours, not [R]'s.

  A descent moves atoms by angstrom, and hardly ever turns a torsion from strand
  to helix: the distances of a sharp distogram are in its way. So Metropolis'
  rule does it: every fifth residue is given torsions from their law, and keeps
  them with the probability that V of the pairs around it, at most 4 apart,
  calls for. It ends with draws from law times exp(-V).

  Args:
    config: how many steps.
    potential: of the protein.
    start: torsions to begin with.
    key: consumed.
  """
  chain = potential.chain
  length = len(chain.mask)
  first = jnp.arange(length)[:, None]
  offset = jnp.arange(1, _LOCAL + 1)[None]
  last = jnp.minimum(first + offset, length - 1)
  # Nothing is said of how pieces of a broken chain lie.
  piece = jnp.cumsum(chain.breaks)
  together = piece[first] == piece[last]
  table = potential.table[first, last] * together[..., None, None]

  def values(torsions: Array) -> Array:
    """[L, 4]: V of the pair of each residue and the one d after it."""
    atoms = coordinates(chain, start._replace(torsions=torsions))
    beta = geometry.beta_carbons(atoms, chain.glycine)
    square = jnp.sum((beta[last] - beta[first]) ** 2, axis=-1)
    return distogram.evaluate(table, jnp.sqrt(square + 1e-6))[0]

  def within(marks: Array) -> Array:
    """[L] -> [L, 4]: the sum between the residues of each pair, and at them."""
    sums = jnp.pad(jnp.cumsum(marks), (1, 0))
    return sums[last + 1] - sums[first]

  def around(pairs: Array) -> Array:
    """[L, 4] -> [L]: the sum over all pairs that a residue is within."""
    sums = jnp.pad(jnp.cumsum(pairs, axis=0), [(1, 0), (0, 0)])
    begin = jnp.maximum(first - offset, 0)
    return jnp.sum(sums[1:] - jnp.take_along_axis(sums, begin, 0), axis=-1)

  def step(carry, inputs):
    torsions, old = carry
    drawn, chance, phase, temperature = inputs
    # So far apart that no pair has two of them within.
    turned = first[:, 0] % (_LOCAL + 1) == phase
    proposed = jnp.where(turned[:, None], drawn, torsions)
    new = values(proposed)
    kept = turned & (jnp.log(chance) * temperature < around(old - new))
    torsions = jnp.where(kept[:, None], proposed, torsions)
    return (torsions, jnp.where(within(kept) > 0, new, old)), None

  steps = config.local_steps
  drawing, chance, phase = jax.random.split(key, 3)
  inputs = (
    jax.vmap(sample_torsions, (None, 0))(
      potential.torsions, jax.random.split(drawing, steps)
    ),
    jax.random.uniform(chance, (steps, length)),
    jax.random.randint(phase, (steps,), 0, _LOCAL + 1),
    jnp.geomspace(*_LOCAL_TEMPERATURES, steps),
  )
  carry = start.torsions, values(start.torsions)
  (torsions, _), _ = jax.lax.scan(step, carry, inputs)
  return start._replace(torsions=torsions)


def corrupt(config: FoldConfig, pose: Pose, key: types.Key) -> Pose:
  """A pose with noise on its torsions: where the next descent starts."""
  noise = jax.random.normal(key, pose.torsions.shape)
  return Pose(
    wrap(pose.torsions + np.deg2rad(config.noise) * noise), pose.jumps
  )


def wrap(angle: Array) -> Array:
  """The same angle within -pi and pi."""
  return jnp.arctan2(jnp.sin(angle), jnp.cos(angle))


class Descent(NamedTuple):
  """One restart's end.

  Attributes:
    pose: the last one.
    energy: [], its V.
    trace: [steps], V along the way.
  """

  pose: Pose
  energy: Array
  trace: Array


def descend(config: FoldConfig, potential: Potential, start: Pose) -> Descent:
  """Descends from one start; `jax.vmap` does many side by side."""

  def loss(pose: Pose, progress: Array | float = 1.0) -> Array:
    return energy(config, potential, pose, progress)

  if config.optimizer == 'adam':
    pose, trace = adam(loss, start, config.steps, config.learning_rate)
  else:
    pose, trace = lbfgs(loss, start, config.steps)
  return Descent(pose, loss(pose), trace)


def adam(
  loss: Callable, start: Pose, steps: int, learning_rate: float
) -> tuple[Pose, Array]:
  """Adam with a rate that falls along a cosine: the pose, and V [steps]."""
  schedule = optax.cosine_decay_schedule(learning_rate, steps)
  optimizer = optax.adam(schedule)

  def step(carry, i):
    pose, state = carry
    value, gradient = jax.value_and_grad(loss)(pose, (i + 1) / steps)
    change, state = optimizer.update(gradient, state)
    return (optax.apply_updates(pose, change), state), value

  carry = start, optimizer.init(start)
  (pose, _), trace = jax.lax.scan(step, carry, jnp.arange(steps))
  return pose, trace


class _Lbfgs(NamedTuple):
  """Between two evaluations: the last good point, and what is tried next."""

  x: Array
  value: Array
  gradient: Array
  direction: Array
  rate: Array
  s: Array
  y: Array
  count: Array


_MEMORY = 10


def lbfgs(loss: Callable, start: Any, steps: int) -> tuple[Any, Array]:
  """L-BFGS with backtracking, one evaluation a step.

  Each step tries one point. If it is low enough (Armijo) it is taken, and the
  next direction is made; else the step is halved. So V never rises, a budget of
  steps is one of evaluations, and restarts side by side do not wait for each
  other's line searches.
  """
  flat, unravel = jax.flatten_util.ravel_pytree(start)
  evaluate = jax.value_and_grad(lambda x: loss(unravel(x)))

  def direction(s, y, count, gradient):
    """Two-loop recursion (Nocedal, Mathematics of Computation 35, 1980)."""
    rho = 1 / jnp.sum(s * y, -1)
    used = jnp.arange(_MEMORY) >= _MEMORY - count
    pairs = s, y, rho, used

    def towards(q, pair):
      s, y, rho, used = pair
      alpha = jnp.where(used, rho * jnp.vdot(s, q), 0.0)
      return q - alpha * y, alpha

    def back(q, pair):
      s, y, rho, used, alpha = pair
      beta = rho * jnp.vdot(y, q)
      return q + jnp.where(used, alpha - beta, 0.0) * s, None

    q, alphas = jax.lax.scan(towards, gradient, pairs, reverse=True)
    scale = jnp.vdot(s[-1], y[-1]) / jnp.vdot(y[-1], y[-1])
    first = 1 / jnp.maximum(jnp.linalg.norm(gradient), 1.0)
    q = q * jnp.where(count > 0, scale, first)
    q, _ = jax.lax.scan(back, q, (*pairs, alphas))
    return -q

  def step(state: _Lbfgs, _):
    tried = state.x + state.rate * state.direction
    value, gradient = evaluate(tried)
    descent = state.rate * jnp.vdot(state.gradient, state.direction)
    good = value <= state.value + 1e-4 * descent
    s, y = tried - state.x, gradient - state.gradient
    curved = good & (jnp.vdot(s, y) > 1e-6 * jnp.vdot(y, y))
    s_list = jnp.where(curved, jnp.roll(state.s, -1, 0).at[-1].set(s), state.s)
    y_list = jnp.where(curved, jnp.roll(state.y, -1, 0).at[-1].set(y), state.y)
    count = jnp.minimum(state.count + curved, _MEMORY)
    # A search that has come to nothing starts over, downhill.
    lost = ~good & (state.rate < 1e-3)
    count = jnp.where(lost, 0, count)
    now = jnp.where(good, gradient, state.gradient)
    new = direction(s_list, y_list, count, now)
    # No torsion turns by more than half a radian at once.
    longest = jnp.max(jnp.abs(new))
    new = new * jnp.minimum(1.0, 0.5 / longest)
    state = _Lbfgs(
      x=jnp.where(good, tried, state.x),
      value=jnp.where(good, value, state.value),
      gradient=now,
      direction=jnp.where(good | lost, new, state.direction),
      rate=jnp.where(good | lost, 1.0, state.rate / 2),
      s=s_list,
      y=y_list,
      count=count,
    )
    return state, state.value

  value, gradient = evaluate(flat)
  none = jnp.ones((_MEMORY, flat.size))
  state = _Lbfgs(
    x=flat,
    value=value,
    gradient=gradient,
    direction=-gradient / jnp.maximum(jnp.linalg.norm(gradient), 1.0),
    rate=jnp.float32(1),
    s=none,
    y=none,
    count=jnp.int32(0),
  )
  state, trace = jax.lax.scan(step, state, None, steps - 1)
  return unravel(state.x), jnp.concatenate([value[None], trace])


def fold(
  config: FoldConfig,
  potential: Potential,
  key: types.Key,
  sample: Callable[[types.Key], Pose] | None = None,
) -> Fold:
  """Repeated gradient descent: rounds of restarts, the best kept in a pool.

  [R], Methods: starts are drawn from the predicted torsions; later nine of ten
  are structures of the pool with noise of 30 degrees. Jit it with `config` and
  `sample` static.

  Args:
    config: how long, how often.
    potential: of the protein.
    key: consumed.
    sample: key -> a start; by default drawn from the potential's torsions.
  """
  law, chain = potential.torsions, potential.chain
  if sample is None:
    sample = functools.partial(sample_pose, law, chain)
  size = config.pool
  descents = jax.vmap(functools.partial(descend, config, potential))

  def start(key, pool, energies, first):
    anew, which, noise, choice, near = jax.random.split(key, 5)
    known = jnp.sum(jnp.isfinite(energies))
    member = jax.random.randint(which, (), 0, jnp.maximum(known, 1))
    old = jax.tree.map(lambda x: x[member], pool)
    fresh = first | (jax.random.uniform(choice) < config.fresh)
    new = sample(anew)
    if config.local_steps:
      new = fit_locally(config, potential, new, near)
    return jax.tree.map(
      lambda a, b: jnp.where(fresh, a, b), new, corrupt(config, old, noise)
    )

  def one_round(carry, number):
    pool, energies = carry
    keys = jax.random.split(jax.random.fold_in(key, number), config.restarts)
    starts = jax.vmap(start, (0, None, None, None))(
      keys, pool, energies, number == 0
    )
    found = descents(starts)
    every = jnp.concatenate([energies, found.energy])
    order = jnp.argsort(every)[:size]
    pool = jax.tree.map(
      lambda a, b: jnp.concatenate([a, b])[order], pool, found.pose
    )
    energies = every[order]
    return (pool, energies), (found.trace.T, energies[0])

  length = len(chain.mask)
  empty = Pose(jnp.zeros((size, length, 2)), jnp.zeros((size, length, 6)))
  (pool, energies), (traces, best) = jax.lax.scan(
    one_round, (empty, jnp.full(size, jnp.inf)), jnp.arange(config.rounds)
  )
  if config.polish:

    def loss(pose: Pose) -> Array:
      return energy(config, potential, pose, 1.0)

    winner = jax.tree.map(lambda x: x[0], pool)
    pose, trace = lbfgs(loss, winner, config.polish)
    pool = jax.tree.map(lambda a, b: a.at[0].set(b), pool, pose)
    energies = energies.at[0].set(trace[-1])
  return Fold(pool, energies, traces, best)
