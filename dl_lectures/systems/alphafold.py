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

Both halves stand on their own: `predict` reads an alignment, natural or drawn;
`ops/potentials` makes V of a distogram and laws of torsions, whoever made them
(`analysis/known_structures`: of the truth), and `fold` descends. The network
learns from alignments that are drawn for 42 known structures
(`data/coevolution`); none of these has the fold of a chain that it is judged
on. It reads all couplings of the alignment, as the published one of 21 million
weights does, which is the preset `paper`.

  python -m experiments.alphafold_train --preset=laptop
  python -m experiments.alphafold_fold --input=family.a3m --model=WORKDIR
  python -m experiments.alphafold_fold --input=1ubi.pdb --workdir=runs/1ubi
  python -m experiments.alphafold_selftest

The first takes about twelve minutes of a busy core, a third of them to judge
what was learned (20 test chains, means over three seeds): from alignments of
1,024 sequences 2.90 nats per pair, where separation and length alone give 3.47;
of the best L contacts .82 are right, of mean-field DCA's .62; folded from these
predictions the chains have a median TM-score of .60, from torsions alone .16.
With sizes of couplings alone (`--config.couplings=false --config.alignments=1
--config.variants=4 --config.num_steps=1200`) 3.04 nats, .73 and .38 were
reached. Published, on test chains of its own with natural alignments: a mean
TM-score of .641.

The last folds 20 chains of 50 to 119 residues from beliefs made of the truth:
from exact distances and torsions that are 20 degrees off, the lowest of eight
restarts has a median TM-score of .985, the worst of 60 folds .87. Near pairs
are pulled first, which is ours. Where no torsions are predicted, starts are
fitted to near pairs (`fit_locally`), ours as well: distances alone then give
.974.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.analysis import distograms, known_structures
from dl_lectures.data import coevolution, proteins
from dl_lectures.data import features as inputs
from dl_lectures.nets import distogram as nets
from dl_lectures.ops import (
  descent,
  distogram,
  geometry,
  potentials,
  residue_labels,
  structure_scores,
)
from dl_lectures.ops.potentials import Beliefs, Pose, Potential
from dl_lectures.training import report

Array = jax.Array
State = types.TrainState

OPTIMIZERS = ('adam', 'lbfgs')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """How a network is trained; comments give values of [R]."""

  seed: int = 0  # of every random number
  alignments: int = 5  # drawn for each chain; [R]: one, for 29,427 domains
  variants: int = 1  # thinned from each, and read; [R]: 10
  depth: int = 1024  # rows that are drawn
  shallowest: int = 16  # rows of a variant, at least; [R]: half of all
  couplings: bool = True  # read as such, not only their size; [R]: yes
  # That couplings of (i, j) are squeezed into; [R]: 0, not, and those of crops
  # on the diagonal are read as well.
  coupling_channels: int = 8
  crop: int = 64  # residues along a side; [R]: 64
  # Blocks and channels, of one tower after the other; the towers of [R], of 28
  # and 192 layers, have as many blocks less their first and last layer.
  towers: tuple[int, ...] = (8, 32)  # [R]: 26, 256, 190, 128
  residue_channels: int = 16  # that residues are squeezed into; [R]: 0, not
  batch_norm: bool = False  # [R]: yes; without, blocks start as the identity
  dropout: float = 0.0  # share of a block's channels; [R]: .15
  reference_towers: tuple[int, ...] = (2, 16)  # without sequence; [R]: as above
  batch_size: int = 4  # crops; [R]: 32
  num_steps: int = 1800  # updates; [R]: 600,000
  learning_rate: float = 3e-3  # Adam's, along a cosine; [R]: SGD, .06, halved
  torsion_weight: float = 0.1  # of its loss, beside 1 of the distogram
  structure_weight: float = 0.05  # [R]: .005
  surface_weight: float = 0.02  # of ten classes of burial; [R]: .001, of area
  stride: int = 32  # residues between crops that are averaged; [D]: 32
  test_chains: int = 20  # that are judged, and folded
  test_depth: int = 1024  # rows of their alignments
  depths: tuple[int, ...] = (16, 64, 256, 1024, 4096)  # of the curve
  curve_chains: int = 8  # that are judged at all of these
  fold_rounds: int = 3  # of 8 restarts; 0 for no folding; [R]: 5,000 in all

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    names = 'alignments variants batch_size num_steps stride test_chains'
    types.check_fields(self, names, 1)
    names = 'learning_rate torsion_weight structure_weight surface_weight'
    sizes = 'coupling_channels residue_channels fold_rounds'
    types.check_fields(self, f'{names} {sizes}', 0)
    types.check_fields(self, 'curve_chains', 0, self.test_chains)
    types.check_fields(self, 'depth shallowest test_depth', 2)
    types.check_fields(self, 'crop', 8)
    types.check_fields(self, 'dropout', 0, 0.9)
    if self.shallowest > self.depth:
      raise types.UsageError(
        f'config.shallowest={self.shallowest}; at most config.depth='
        f'{self.depth} is possible'
      )
    if 2 * self.stride > self.crop:
      raise types.UsageError(
        f'config.stride={self.stride}; at most half of config.crop='
        f'{self.crop} is possible: nothing may be left out'
      )
    if not self.depths or min(self.depths) < 2:
      raise types.UsageError(
        f'config.depths={self.depths}; one or more, from 2 on, are possible'
      )
    for name in ('towers', 'reference_towers'):
      sizes = getattr(self, name)
      if (
        not sizes
        or len(sizes) % 2
        or min(sizes) < 1
        or any(channels % 2 for channels in sizes[1::2])
      ):
        raise types.UsageError(
          f'config.{name}={",".join(map(str, sizes))}; possible are pairs of '
          'blocks and channels, the latter even, such as 8,32'
        )


_PAPER = Config(
  coupling_channels=0,
  alignments=10,
  variants=4,
  depth=4096,
  towers=(26, 256, 190, 128),
  residue_channels=0,
  batch_norm=True,
  dropout=0.15,
  reference_towers=(26, 256, 190, 128),
  batch_size=32,
  num_steps=600_000,
  torsion_weight=0.01,
  structure_weight=0.005,
  surface_weight=0.001,
)

PRESETS = {
  'smoke': Config(
    alignments=1,
    couplings=False,
    depth=24,
    crop=32,
    stride=16,
    towers=(1, 8),
    residue_channels=4,
    reference_towers=(1, 4),
    batch_size=2,
    num_steps=20,
    test_chains=2,
    test_depth=24,
    depths=(16, 24),
    curve_chains=2,
    fold_rounds=0,
  ),
  'laptop': Config(),
  'small': dataclasses.replace(
    _PAPER,
    couplings=False,
    depth=1024,
    towers=(20, 64),
    reference_towers=(4, 32),
    batch_size=16,
    num_steps=20_000,
  ),
  'paper': _PAPER,
}


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


class Example(NamedTuple):
  """One alignment of a chain, read.

  Attributes:
    features: of the alignment.
    background: what the reference network reads.
    labels: what is true.
  """

  features: inputs.Features
  background: inputs.Features
  labels: inputs.Labels


class Batch(NamedTuple):
  """N crops of S x S pairs.

  Attributes:
    crop: of features.
    background: the same of what the reference network reads.
    distances: [N, S, S] int32, bins; -1 where there is nothing to say.
    rows: [N, 3, S] int32, torsions, structure, surface of i; -1 likewise.
    columns: [N, 3, S] int32, of j.
  """

  crop: nets.Crop
  background: nets.Crop
  distances: np.ndarray
  rows: np.ndarray
  columns: np.ndarray


class Said(NamedTuple):
  """What a network says of a whole chain.

  Attributes:
    log_probs: [L, L, 64], symmetric.
    heads: probabilities, [L, ...] each; None of a network without heads.
  """

  log_probs: np.ndarray
  heads: nets.Heads | None


class Model(NamedTuple):
  """A trained network and its reference.

  Attributes:
    config: its settings.
    params: both networks' parameters.
    net_state: likewise.
    step: how long it was trained.
  """

  config: Config
  params: Any
  net_state: Any
  step: int


class Fold(NamedTuple):
  """What `fold` found: K structures, the lowest potential first.

  Attributes:
    poses: of [K, ...] arrays.
    energies: [K] float32.
    descents: [rounds, steps, restarts] float32, V along all descents.
    best: [rounds] float32, the lowest V after each round.
    winners: its pose, of [rounds, ...] arrays.
  """

  poses: Pose
  energies: Array
  descents: Array
  best: Array
  winners: Pose


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
  table = potentials.splines_of(potential, first, last)
  table *= together[..., None, None]

  def values(torsions: Array) -> Array:
    """[L, 4]: V of the pair of each residue and the one d after it."""
    atoms = potentials.coordinates(chain, start._replace(torsions=torsions))
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
    jax.vmap(potentials.sample_torsions, (None, 0))(
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
    potentials.wrap(pose.torsions + np.deg2rad(config.noise) * noise),
    pose.jumps,
  )


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
    return potentials.energy(config, potential, pose, progress)

  if config.optimizer == 'adam':
    pose, trace = descent.adam(loss, start, config.steps, config.learning_rate)
  else:
    pose, trace = descent.lbfgs(loss, start, config.steps)
  return Descent(pose, loss(pose), trace)


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
    sample = functools.partial(potentials.sample_pose, law, chain)
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
    winner = jax.tree.map(lambda x: x[0], pool)
    return (pool, energies), (found.trace.T, energies[0], winner)

  length = len(chain.mask)
  empty = Pose(jnp.zeros((size, length, 2)), jnp.zeros((size, length, 6)))
  (pool, energies), (traces, best, winners) = jax.lax.scan(
    one_round, (empty, jnp.full(size, jnp.inf)), jnp.arange(config.rounds)
  )
  if config.polish:

    def loss(pose: Pose) -> Array:
      return potentials.energy(config, potential, pose, 1.0)

    winner = jax.tree.map(lambda x: x[0], pool)
    pose, trace = descent.lbfgs(loss, winner, config.polish)
    pool = jax.tree.map(lambda a, b: a.at[0].set(b), pool, pose)
    energies = energies.at[0].set(trace[-1])
  return Fold(pool, energies, traces, best, winners)


# Of phi times psi, of coil, helix and strand, of burial.
_HEADS = (
  inputs.TORSION_BINS**2,
  len(residue_labels.STATES),
  residue_labels.SURFACE_CLASSES,
)

# Streams of random numbers: what is drawn to be judged is never learned from.
_TRAIN, _TEST = 0, 1


def networks(config: Config) -> dict[str, hk.TransformedWithState]:
  """The network, and the reference that knows no sequence; by name."""

  def made(sizes: Sequence[int], **rest: Any) -> hk.TransformedWithState:
    towers = [nets.Tower(*sizes[i : i + 2]) for i in range(0, len(sizes), 2)]
    norm = functools.partial(hk.BatchNorm, True, True, 0.999)
    return hk.transform_with_state(
      lambda crop, is_training: nets.DistogramNet(
        towers,
        bins=distogram.BINS,
        norm=norm if config.batch_norm else None,
        dropout=config.dropout,
        **rest,
      )(crop, is_training)
    )

  return {
    'network': made(
      config.towers,
      heads=_HEADS,
      residue_channels=config.residue_channels,
      pair_channels=config.coupling_channels,
    ),
    'reference': made(config.reference_towers),
  }


def optimizer(config: Config) -> optax.GradientTransformation:
  """Adam for each network on its own, after a short rise falling to 0."""
  rate = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, config.num_steps // 20, config.num_steps
  )
  one = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
  names = ('network', 'reference')
  return optax.multi_transform(
    {name: one for name in names}, {name: name for name in names}
  )


def loss(
  config: Config,
  both: Mapping[str, hk.TransformedWithState],
  params: Any,
  net_state: Any,
  key: types.Key,
  batch: Batch,
) -> tuple[Array, tuple[Any, types.Metrics]]:
  """Cross-entropies, nats: of the distograms' bins, and of the heads' labels.

  [R], Methods: the heads are auxiliary, their losses have small weights.
  """
  keys = dict(zip(both, jax.random.split(key), strict=True))
  seen = {'network': batch.crop, 'reference': batch.background}
  said, state = {}, {}
  for name, net in both.items():
    said[name], state[name] = net.apply(
      params[name], net_state[name], keys[name], seen[name], True
    )
  heads = jax.tree.map(
    lambda a, b: jnp.concatenate([a, b], axis=1),
    said['network'].rows,
    said['network'].columns,
  )
  truth = jnp.concatenate([batch.rows, batch.columns], axis=2)
  torsions, structure, surface = jnp.moveaxis(truth, 1, 0)
  metrics = {
    'nll': cross_entropy(said['network'].distogram, batch.distances),
    'nll of reference': cross_entropy(
      said['reference'].distogram, batch.distances
    ),
    'torsions': cross_entropy(heads.torsions, torsions),
    'structure': cross_entropy(heads.structure, structure),
    'surface': cross_entropy(heads.surface, surface),
  }
  total = metrics['nll'] + metrics['nll of reference']
  for name in ('torsion', 'structure', 'surface'):
    head = 'torsions' if name == 'torsion' else name
    total += getattr(config, f'{name}_weight') * metrics[head]
  return total, (state, metrics)


def cross_entropy(logits: Array, labels: ArrayLike) -> Array:
  """Mean over the labels that are not negative, [] nats; 0 of none.

  >>> labels = jnp.array([1, -1])
  >>> round(float(cross_entropy(jnp.zeros((2, 4)), labels)), 4)  # log 4
  1.3863
  """
  labels = jnp.asarray(labels)
  known = labels >= 0
  each = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  return jnp.sum(each * known) / jnp.maximum(jnp.sum(known), 1)


def prepare(config: Config) -> list[Example]:
  """What is learned from: for each training chain, alignments of all depths."""
  chains = proteins.load()
  found = []
  for number, name in enumerate(proteins.split('train')):
    chain = chains[name]
    background = inputs.background(chain.sequence)
    labels = inputs.labels(chain)
    for copy in range(config.alignments):
      random = np.random.default_rng((config.seed, _TRAIN, number, copy))
      made = coevolution.alignment(chain, config.depth, random)
      for _ in range(config.variants):
        # As often between 16 and 32 as between 256 and 512.
        ends = np.log([config.shallowest, config.depth])
        rows = round(np.exp(random.uniform(*ends)))
        some = coevolution.thinned(made, rows, random)
        features = inputs.features(some, config.couplings)
        found.append(Example(features, background, labels))
  return found


def batches(
  config: Config, examples: Sequence[Example], step: int
) -> Iterator[Batch]:
  """Crops drawn for each update, from update `step` on."""
  while True:
    random = np.random.default_rng((config.seed, step))
    which = random.integers(len(examples), size=config.batch_size)
    crops = [cut(config, examples[i], random) for i in which]
    crop, background, *labels = jax.tree.map(lambda *x: np.stack(x), *crops)
    yield Batch(nets.Crop(*crop), nets.Crop(*background), *labels)
    step += 1


def cut(config: Config, example: Example, random: np.random.Generator) -> tuple:
  """A crop at random places, up to a quarter of it outside the chain."""
  length, size = len(example.labels.torsions), config.crop
  low, high = sorted((0, length - size))
  edge = size // 4
  first = random.integers(low - edge, high + edge + 1, size=2)
  rows, columns = (np.arange(at, at + size) for at in first)
  return (
    crop_of(config, example.features, rows, columns),
    crop_of(config, example.background, rows, columns),
    *inputs.crop_labels(example.labels, rows, columns),
  )


def crop_of(
  config: Config, of: inputs.Features, rows: np.ndarray, columns: np.ndarray
) -> inputs.Crop:
  """What the networks read of rows i and columns j."""
  around = inputs.SCORES if config.coupling_channels else None
  return inputs.crop(of, rows, columns, around)


def init(
  config: Config,
  both: Mapping[str, hk.TransformedWithState],
  batch: Batch,
  key: types.Key,
) -> State:
  """The state before the first update; consumes the key."""
  seen = {'network': batch.crop, 'reference': batch.background}
  params, net_state = {}, {}
  for own, (name, net) in zip(jax.random.split(key), both.items(), strict=True):
    crop = jax.tree.map(jnp.asarray, seen[name])
    params[name], net_state[name] = net.init(own, crop, True)
  return training.init_state(params, net_state, optimizer(config))


def make_step(
  config: Config, both: Mapping[str, hk.TransformedWithState]
) -> types.StepFn:
  """(state, batch, key) -> (state, metrics): an update of both networks."""
  return training.make_step(
    functools.partial(loss, config, both), optimizer(config)
  )


def predict(
  models: Sequence[Model], of: inputs.Features, name: str = 'network'
) -> Said:
  """The distogram of a whole chain, of all models on average.

  [R], Methods, and [D]: crops at a stride, from half a crop before the chain
  to half a crop behind it, are averaged with weights that fall from a crop's
  centre to its edges; so are the models' probabilities; then what is said of
  (i, j) and of (j, i).

  Args:
    models: one or more, with the same features.
    of: features of the chain, of L residues.
    name: 'network', or 'reference' with the features of the background.
  """
  length = len(of.residues)
  pairs = np.zeros((length, length, distogram.BINS))
  pair_weights = np.zeros((length, length, 1))
  singles: list[Any] = []
  for model in models:
    size, stride = model.config.crop, model.config.stride
    side = 1 - np.abs(np.arange(size) - (size - 1) / 2) / (size / 2 + 0.5)
    starts = range(-(size // 2), length - size // 2, stride)
    places = [(i, j) for i in starts for j in starts]
    apply = _applier(model.config, name)
    for k in range(0, len(places), model.config.batch_size):
      # The last group is filled up with what then is not looked at.
      group = places[k : k + model.config.batch_size]
      filled = (group * model.config.batch_size)[: model.config.batch_size]
      crops = [
        crop_of(model.config, of, i + np.arange(size), j + np.arange(size))
        for i, j in filled
      ]
      crop = nets.Crop(*jax.tree.map(lambda *x: np.stack(x), *crops))
      said = jax.device_get(
        apply(model.params[name], model.net_state[name], crop)
      )
      for n, place in enumerate(group):
        here, there = (slice(max(at, 0), at + size) for at in place)
        # Of the crop, what lies within the chain.
        rows, columns = (
          slice(max(-at, 0), min(length - at, size)) for at in place
        )
        weights = side[rows, None, None] * side[None, columns, None]
        pairs[here, there] += weights * said.distogram[n, rows, columns]
        pair_weights[here, there] += weights
        if said.rows is not None:
          singles.append((here, side[rows], _one(said.rows, n, rows)))
          singles.append((there, side[columns], _one(said.columns, n, columns)))
  mean = pairs / pair_weights
  mean = (mean + np.swapaxes(mean, 0, 1)) / 2
  log_probs = np.log(np.maximum(mean, 1e-9)).astype(np.float32)
  if not singles:
    return Said(log_probs, None)
  zeros: list[Any] = [np.zeros((length, size)) for size in _HEADS]
  sums = nets.Heads(*zeros)
  total = np.zeros((length, 1))
  for here, weights, said in singles:
    total[here] += weights[:, None]
    for whole, part in zip(sums, said, strict=True):
      whole[here] += weights[:, None] * part
  return Said(log_probs, jax.tree.map(lambda x: x / total, sums))


def _one(heads: Any, crop: int, places: slice) -> Any:
  return jax.tree.map(lambda x: x[crop, places], heads)


@functools.cache
def _applier(config: Config, name: str) -> Callable:
  """(params, net_state, crop) -> probabilities; compiled once."""
  net = networks(config)[name]

  @jax.jit
  def apply(params, net_state, crop):
    said, _ = net.apply(params, net_state, None, crop, False)
    return jax.tree.map(jax.nn.softmax, said)

  return apply


def believe(
  models: Sequence[Model], features: inputs.Features, sequence: str, size: int
) -> Beliefs:
  """What the networks say of a chain, as `make_potential` takes it.

  Args:
    models: trained.
    features: of the chain's alignment.
    sequence: L letters.
    size: what all arrays are padded to.
  """
  said = predict(models, features)
  blind = predict(models, inputs.background(sequence), 'reference')
  return beliefs_of(said, blind.log_probs, size)


def beliefs_of(said: Said, reference: np.ndarray, size: int) -> Beliefs:
  """Distances, and torsions as von Mises distributions ([R], Methods).

  Args:
    said: of L residues.
    reference: [L, L, 64] log-probabilities.
    size: what all arrays are padded to.
  """
  assert said.heads is not None
  length = len(reference)
  bins = inputs.TORSION_BINS
  both = said.heads.torsions.reshape(length, bins, bins)
  each = np.stack([both.sum(axis=2), both.sum(axis=1)], axis=1)
  law = distogram.fit_von_mises(
    jnp.log(jnp.asarray(each + 1e-9, jnp.float32)),
    jnp.asarray(inputs.TORSION_CENTRES)[None, None],
  )
  pad = (0, size - length)
  return Beliefs(
    jnp.asarray(np.pad(said.log_probs, [pad, pad, (0, 0)])),
    jnp.asarray(np.pad(reference, [pad, pad, (0, 0)])),
    jax.tree.map(lambda x: jnp.pad(x, [pad, (0, 0)]), law),
  )


def load(workdir: str) -> Model:
  """Reads the newest network of a run, which may still be going on.

  Raises:
    UsageError: there is no run, or nothing of it is kept yet.
  """
  config = training.checkpoint.read_config(workdir, Config, 'alphafold_train')
  abstract = jax.eval_shape(
    lambda key: init(config, networks(config), _blank(config), key),
    jax.random.key(0),
  )
  found = training.checkpoint.Checkpointer.open(
    pathlib.Path(workdir, 'checkpoints')
  ).restore(abstract)
  if found is None:
    raise types.UsageError(f'{workdir} holds no checkpoint yet; wait a minute')
  return Model(config, found[1].params, found[1].net_state, found[0])


def _blank(config: Config) -> Batch:
  """A batch of the right shapes, of a chain of alanine."""
  sequence = 'A' * 8
  rows = proteins.encode(sequence)[None]
  alone = proteins.Alignment(sequence, rows, np.zeros(rows.shape, np.int32))
  nothing = np.full(8, inputs.UNKNOWN, np.int32)
  example = Example(
    inputs.features(alone, config.couplings),
    inputs.background(sequence),
    inputs.Labels(np.zeros((8, 8), np.uint8), nothing, nothing, nothing),
  )
  return next(batches(config, [example], 0))


def evaluate(
  config: Config, model: Model, workdir: str | None
) -> dict[str, list[dict[str, Any]]]:
  """Judges a network on the test chains, at all depths, and on designs.

  It takes as long as training. What has been judged is kept in the workdir, so
  that a run that is stopped goes on from there.

  Args:
    config: how many chains, how deep.
    model: what is judged.
    workdir: of the run; None keeps nothing.

  Returns:
    A row for each chain and alignment: 'test' those drawn at `test_depth`, with
    what `fold_chain` says; 'curve' those of all depths; 'designed' those of
    `proteins.designs`.
  """
  chains = proteins.load()
  labels = [inputs.labels(chains[name]) for name in proteins.split('train')]
  told = distograms.fit_separations([known.distances for known in labels])
  structure = np.concatenate([known.structure for known in labels])
  usual = int(np.bincount(structure).argmax())
  kept = pathlib.Path(workdir, 'judged.jsonl') if workdir else None
  lines = kept.read_text().splitlines() if kept and kept.exists() else []
  rows: dict[str, list[dict[str, Any]]] = {
    'test': [],
    'curve': [],
    'designed': [],
  }
  for number, name in enumerate(proteins.split('test')[: config.test_chains]):
    if number < len(lines):
      found = json.loads(lines[number])
    else:
      found = evaluate_chain(config, model, number, chains[name], told, usual)
      if kept:
        with kept.open('a', encoding='utf-8') as file:
          file.write(json.dumps(found) + '\n')
    for kind, some in found.items():
      rows[kind] += some
  return rows


def evaluate_chain(
  config: Config,
  model: Model,
  number: int,
  chain: proteins.Chain,
  told: distograms.Separations,
  usual: int,
) -> dict[str, list[dict[str, Any]]]:
  """The rows of one chain; see `evaluate`."""
  labels = inputs.labels(chain)
  designs = proteins.designs()
  random = np.random.default_rng((config.seed, _TEST, number))
  depths = config.depths if number < config.curve_chains else ()
  made = coevolution.alignment(chain, max((config.test_depth, *depths)), random)
  blind = predict(
    [model], inputs.background(chain.sequence), 'reference'
  ).log_probs
  separation = distograms.by_separation(told, len(chain.sequence))
  simple = {
    'separation': distograms.judge(separation, labels.distances),
    'reference': distograms.judge(blind, labels.distances),
    'contacts': _share_of_contacts(labels),
    'majority': float(np.mean(labels.structure == usual)),
  }

  def judge(some: proteins.Alignment) -> tuple[dict[str, Any], Said]:
    features = inputs.features(some, config.couplings)
    said = predict([model], features)
    assert said.heads is not None
    structure = np.argmax(said.heads.structure, axis=1)
    return {
      'chain': chain.name,
      'rows': len(some.rows),
      'network': distograms.judge(said.log_probs, labels.distances),
      'dca': distograms.precisions(features.pairs[..., 0], labels.distances),
      'q3': float(np.mean(structure == labels.structure)),
      **simple,
    }, said

  row, said = judge(coevolution.thinned(made, config.test_depth, random))
  if config.fold_rounds:
    row |= fold_chain(config, chain, said, blind)
  curve = [
    judge(coevolution.thinned(made, depth, random))[0] for depth in depths
  ]
  designed = [judge(designs[chain.name])[0]] if chain.name in designs else []
  return {'test': [row], 'curve': curve, 'designed': designed}


def _share_of_contacts(labels: inputs.Labels) -> float:
  """What the precision of pairs drawn at random would be."""
  i, j = np.triu_indices(len(labels.torsions), distograms.NEAREST)
  return float(np.mean(labels.distances[i, j] < distogram.CONTACT_BINS))


def fold_chain(
  config: Config, protein: proteins.Chain, said: Said, reference: np.ndarray
) -> dict[str, Any]:
  """Folds what is predicted of a known chain, and scores the lowest potential.

  Returns:
    'tm' and 'potential' of the lowest potential of all rounds, the same of the
    first round, 'torsions_tm' of a fold without distances.
  """
  size = potentials.padded_size(len(protein.sequence))
  chain = potentials.make_chain(protein.sequence, protein.breaks, size)
  truth = known_structures.make_truth(protein, size)
  beliefs = beliefs_of(said, reference, size)
  key = jax.random.fold_in(jax.random.key(config.seed), len(protein.sequence))
  found = {}
  for name, rounds, weight in (
    ('torsions', 1, 0.0),
    ('', config.fold_rounds, 1.0),
  ):
    how = dataclasses.replace(PREDICTED, rounds=rounds)
    potential = _jit_make_potential(
      dataclasses.replace(how, distance_weight=weight), chain, beliefs
    )
    fold = _jit_fold(how, potential, key)
    for at in {0, rounds - 1}:
      winner = jax.tree.map(lambda x, at=at: x[at], fold.winners)
      atoms = _jit_coordinates(chain, winner)
      scores = _jit_scores(atoms[:, 1], truth.ca, chain.mask)
      found[name, at] = float(scores.tm), float(fold.best[at])
  (tm, potential), (first_tm, first_potential) = (
    found['', at] for at in (config.fold_rounds - 1, 0)
  )
  return {
    'tm': tm,
    'potential': potential,
    'first_tm': first_tm,
    'first_potential': first_potential,
    'torsions_tm': found['torsions', 0][0],
  }


# How predicted distograms are folded. Near pairs first and a generic
# Ramachandran prior are ours; they keep chains from being mirrored where
# torsions are known vaguely.
PREDICTED = FoldConfig(staged=True, rama_weight=3.0, pool=8)

_jit_fold = jax.jit(fold, static_argnums=0)
_jit_make_potential = jax.jit(potentials.make_potential, static_argnums=0)
_jit_coordinates = jax.jit(potentials.coordinates)
_jit_scores = jax.jit(functools.partial(structure_scores.superposed, starts=8))


def train(
  config: Config,
  *,
  workdir: str | None,
  hooks: Sequence[training.Hook] = (),
) -> Mapping[str, Any]:
  """Learns distograms from alignments, folds with them, and reports.

  Args:
    config: the settings.
    workdir: where the run is kept and resumed from; None keeps nothing.
    hooks: called beside the system's own.

  Returns:
    The final metrics.
  """
  both = networks(config)
  result = training.fit(
    make_step(config, both),
    functools.partial(init, config, both, _blank(config)),
    config=config,
    workdir=workdir,
    num_steps=config.num_steps,
    batches=lambda step: batches(config, prepare(config), step),
    hooks=hooks,
    log_every=20,
  )
  if result.status != 'done':
    return result.metrics
  start = time.monotonic()
  model = Model(
    config, result.state.params, result.state.net_state, result.step
  )
  rows = evaluate(config, model, workdir)
  report.save_figure(distograms.draw_depths(rows['curve']), workdir, 'depths')
  report.save_figure(draw_maps(config, model), workdir, 'maps')
  metrics = distograms.summarise(rows)
  seconds = result.seconds + time.monotonic() - start
  report.write(
    workdir,
    title='AlphaFold: from alignments to distograms',
    config=config,
    claims=make_claims(config, rows),
    metrics=metrics,
    figures={
      'maps': 'Distances of two test chains: true, predicted from drawn and '
      'from designed alignments (means of the distograms), and contact scores '
      'of mean-field DCA.',
      'depths': 'What more sequences tell, means of the first '
      f'{config.curve_chains} test chains.',
    },
    minutes=seconds / 60,
  )
  return metrics


def make_claims(
  config: Config, rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[types.Claim]:
  """The rows of the report."""
  test = rows['test']
  told = f'alignments of {config.test_depth} sequences'
  claims = distograms.distogram_claims(test, told, 0.5)
  claims += [distograms.gain_claim(test, told), distograms.q3_claim(test)]
  told = 'alignments designed by Rosetta, never learned from'
  if rows['designed']:
    claims += distograms.distogram_claims(rows['designed'], told)
    claims.append(distograms.gain_claim(rows['designed'], told))
  if config.fold_rounds:
    claims += distograms.fold_claims(
      test,
      f'folded from predictions, {config.test_depth} sequences',
      config.fold_rounds,
    )
  for depth in config.depths if rows['curve'] else ():
    some = [row for row in rows['curve'] if row['rows'] == depth]
    claims += distograms.distogram_claims(some, f'{depth} sequences')
  return claims


def draw_maps(config: Config, model: Model, depth: int = 256) -> Figure:
  """Two test chains: true distances, predicted ones, DCA."""
  chains, designs = proteins.load(), proteins.designs()
  rows = {}
  for number, name in enumerate(('1ten_A', '1ctf_A')):
    chain = chains[name]
    random = np.random.default_rng((config.seed, _TEST, 1000 + number))
    distance = distogram.pair_distances(jnp.asarray(chain.cb))
    rows[name] = {'true': np.asarray(distance)}
    for title, made in (
      (f'{depth} drawn', coevolution.alignment(chain, depth, random)),
      ('500 designed', designs[name]),
    ):
      features = inputs.features(made, config.couplings)
      said = predict([model], features)
      centres = distogram.CENTRES.reshape(1, 1, -1)
      rows[name][title] = np.sum(np.exp(said.log_probs) * centres, axis=-1)
      rows[name][f'{title}: DCA'] = features.pairs[..., 0]
  return distograms.draw_maps(rows)
