"""Folds one protein: from what is believed of its distances to a structure.

The input says what is believed:

- `.a3m`, `.fasta` (or `.fa`, `.aln`), an alignment, or a sequence alone: a
  network says what it believes, one that `experiments.alphafold_train` has
  trained in the workdir that `--model` names. If that holds `seed_0`, `seed_1`
  and so on, all of them are asked, and averaged.
- `.npz`, a distogram of any network: `log_probs` or `probs` [L, L, 64], of 64
  bins from 2 to 22 angstrom; `sequence`, a text of L letters; and if there are
  any, `reference` [L, L, 64] (log-probabilities without the sequence),
  `torsion_mean` [L, 2] in radians and `torsion_kappa` [L, 2].
- `.pdb` or `.cif`, a self-test: the beliefs are made from the structure itself,
  blurred as the flags say, and the result is compared to it.

In the workdir it leaves `best.pdb` (the structure with the lowest potential,
N, CA, C, O and CB), `pool.npz` (all structures that were kept, with their
potentials), `maps.npz` (distances as predicted and as folded), `report.html`
and `summary.json`.
"""

import dataclasses
import os
import pathlib
import time
import zipfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.analysis import known_structures, structures
from dl_lectures.data import features, proteins
from dl_lectures.ops import (
  distogram,
  geometry,
  potentials,
  structure_scores,
)
from dl_lectures.systems import alphafold
from dl_lectures.training import loop, report
from dl_lectures.types import Claim, UsageError
from experiments import tool

ALIGNMENTS = ('.a3m', '.fasta', '.fa', '.aln')
STRUCTURES = ('.pdb', '.ent', '.cif', '.mmcif')

# A chain longer than that needs more memory than the splines are worth.
_LONGEST = 1024

_fold = jax.jit(alphafold.fold, static_argnums=0)
_make_potential = jax.jit(potentials.make_potential, static_argnums=0)
_coordinates = jax.jit(jax.vmap(potentials.coordinates, (None, 0)))
_scores = jax.jit(structure_scores.superposed)
_lddt = jax.jit(structure_scores.lddt)
_superpose = jax.jit(geometry.superpose)
_beta_carbons = jax.jit(geometry.beta_carbons)


class Problem(NamedTuple):
  """What is to be folded.

  Attributes:
    name: of the protein.
    sequence: L letters.
    number: [L], the residues' numbers.
    chain: padded.
    beliefs: padded.
    native: the structure, if it is known.
    truth: the same, padded.
  """

  name: str
  sequence: str
  number: np.ndarray
  chain: potentials.Chain
  beliefs: potentials.Beliefs
  native: proteins.Chain | None = None
  truth: known_structures.Truth | None = None


def main_fold(
  input: str,
  workdir: str,
  model: str,
  chain: str,
  seed: int,
  restarts: int,
  rounds: int,
  steps: int,
  polish: int,
  optimizer: str,
  staged: bool,
  blur: float,
) -> None:
  """Reads, folds, judges, draws."""
  loop.check_writable(workdir)
  config = alphafold.FoldConfig(
    seed=seed,
    restarts=restarts,
    rounds=rounds,
    pool=max(20, restarts) if rounds > 1 else restarts,
    steps=steps,
    polish=polish,
    optimizer=optimizer,
    staged=staged and optimizer == 'adam',
  )
  problem = read(input, chain, blur, seed, model)
  if _kind(input) in ALIGNMENTS:
    # As predictions are folded in training.
    config = dataclasses.replace(
      config,
      rama_weight=alphafold.PREDICTED.rama_weight,
      local_steps=alphafold.PREDICTED.local_steps,
    )
  elif not np.any(problem.beliefs.torsions.kappa):
    # Nothing else tells a chain from its mirror image, nor a start from any.
    config = dataclasses.replace(
      config, rama_weight=3.0, cutoff=distogram.FARTHEST, local_steps=500
    )
  start = time.monotonic()
  potential = _make_potential(config, problem.chain, problem.beliefs)
  found = jax.block_until_ready(_fold(config, potential, jax.random.key(seed)))
  minutes = (time.monotonic() - start) / 60
  write(problem, config, found, workdir, minutes)


def _kind(path: str) -> str:
  """The ending of a file's name, before .gz."""
  return os.path.splitext(path.removesuffix('.gz'))[1]


def read(
  path: str, chain: str, blur: float, seed: int, model: str = ''
) -> Problem:
  """The problem that a file holds.

  Args:
    path: of the file.
    chain: of a structure; '' is the first.
    blur: of a self-test, angstrom.
    seed: of the blur.
    model: a workdir, for an alignment; '' is none.
  """
  stem, kind = os.path.splitext(os.path.basename(path).removesuffix('.gz'))
  if kind in ALIGNMENTS:
    return _read_alignment(path, stem, model)
  if kind == '.npz':
    return _read_distogram(path, stem)
  if kind not in STRUCTURES:
    raise UsageError(
      f'{path}: {kind or "no ending"} is not known; possible: .a3m, '
      '.fasta (an alignment), .npz (a distogram), .pdb, .cif'
    )
  native = proteins.read_structure(path, chain or None)
  size = _size(path, len(native.sequence))
  truth = known_structures.make_truth(native, size)
  told = known_structures.Blur(noise=blur)
  beliefs = known_structures.blurred_truth(told, truth, jax.random.key(seed))
  return Problem(
    native.name,
    native.sequence,
    native.number,
    potentials.make_chain(native.sequence, native.breaks, size),
    beliefs,
    native,
    truth,
  )


def _read_alignment(path: str, stem: str, model: str) -> Problem:
  """A problem from an alignment, and what networks say of it."""
  made = proteins.read_alignment(path)
  size = _size(path, len(made.query))
  if not model:
    raise UsageError(
      f'{path} is an alignment, which takes a trained network: --model=WORKDIR '
      'of experiments.alphafold_train'
    )
  models = load_models(model)
  read = features.features(made, models[0].config.couplings)
  return Problem(
    stem,
    made.query,
    np.arange(1, len(made.query) + 1),
    potentials.make_chain(made.query, np.zeros(len(made.query), bool), size),
    alphafold.believe(models, read, made.query, size),
  )


def load_models(workdir: str) -> list[alphafold.Model]:
  """The network that a workdir holds, or those of its seeds."""
  seeds = sorted(pathlib.Path(workdir).glob('seed_*/config.json'))
  if not seeds:
    return [alphafold.load(workdir)]
  models = [alphafold.load(str(path.parent)) for path in seeds]
  if len({model.config.couplings for model in models}) > 1:
    raise UsageError(
      f'{workdir}: some of its networks read couplings and some do not; only '
      'those with the same features can be averaged'
    )
  return models


def _size(path: str, length: int) -> int:
  if length > _LONGEST:
    raise UsageError(
      f'{path} has {length} residues; at most {_LONGEST} are possible'
    )
  return potentials.padded_size(length)


def _read_distogram(path: str, stem: str) -> Problem:
  """A problem from a .npz file; every array is checked."""
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
    reason = getattr(error, 'strerror', None) or 'it is no .npz file'
    raise UsageError(f'{path} cannot be read: {reason}') from error
  if 'sequence' not in arrays:
    raise UsageError(f'{path} has no array `sequence`; it has {_has(arrays)}')
  sequence = str(arrays['sequence']).upper()
  strange = {*sequence} - {*proteins.LETTERS[: proteins.GAP]}
  if strange or len(sequence) < 4:
    raise UsageError(
      f'{path}: sequence {sequence[:20]!r}; at least 4 letters of '
      f'{proteins.LETTERS[: proteins.GAP]} are possible'
    )
  length = len(sequence)
  shape = (length, length, distogram.BINS)
  if 'log_probs' in arrays:
    log_probs = _array(path, arrays, 'log_probs', shape)
  elif 'probs' in arrays:
    probs = _array(path, arrays, 'probs', shape)
    if (probs < 0).any():
      raise UsageError(f'{path}: probs has numbers below 0')
    log_probs = np.log(np.maximum(probs, 1e-9))
  else:
    raise UsageError(
      f'{path} has no array `log_probs` or `probs`; it has {_has(arrays)}'
    )
  size = _size(path, length)
  pad = (0, size - length)

  def padded(values: np.ndarray, axes: int) -> jax.Array:
    widths = [pad] * axes + [(0, 0)] * (values.ndim - axes)
    return jnp.asarray(np.pad(values, widths), jnp.float32)

  mean = kappa = np.zeros((length, 2))
  if 'torsion_mean' in arrays or 'torsion_kappa' in arrays:
    mean = _array(path, arrays, 'torsion_mean', (length, 2))
    kappa = _array(path, arrays, 'torsion_kappa', (length, 2))
  reference = None
  if 'reference' in arrays:
    reference = padded(_array(path, arrays, 'reference', shape), 2)
  beliefs = potentials.Beliefs(
    jax.nn.log_softmax(padded(log_probs, 2)),
    reference,
    distogram.VonMises(padded(mean, 1), padded(np.maximum(kappa, 0), 1)),
  )
  return Problem(
    stem,
    sequence,
    np.arange(1, length + 1),
    potentials.make_chain(sequence, np.zeros(length, bool), size),
    beliefs,
  )


def _has(arrays: dict[str, np.ndarray]) -> str:
  return ', '.join(arrays) or 'none'


def _array(
  path: str, arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
  """One of the arrays, if it is as it should be."""
  if name not in arrays:
    raise UsageError(f'{path} has no array `{name}`; it has {_has(arrays)}')
  value = arrays[name]
  if value.shape != shape:
    raise UsageError(
      f'{path}: {name} is {list(value.shape)}; with a sequence of {shape[0]} '
      f'letters {list(shape)} is possible'
    )
  if value.dtype.kind not in 'fiu' or not np.isfinite(value).all():
    raise UsageError(f'{path}: {name} has what is no finite number')
  return value


def write(
  problem: Problem,
  config: alphafold.FoldConfig,
  found: alphafold.Fold,
  workdir: str,
  minutes: float,
) -> None:
  """All that a fold leaves in its workdir."""
  length = len(problem.sequence)
  # With few restarts the pool is not full.
  kept = int(np.isfinite(found.energies).sum())
  poses = jax.tree.map(lambda x: x[:kept], found.poses)
  atoms = np.asarray(_coordinates(problem.chain, poses))[:, :length]
  breaks = np.asarray(problem.chain.breaks)[:length]
  root = pathlib.Path(workdir)
  root.mkdir(parents=True, exist_ok=True)
  (root / 'best.pdb').write_text(
    proteins.to_pdb(problem.sequence, atoms[0], problem.number, breaks)
  )
  energies = np.asarray(found.energies)[:kept]
  np.savez_compressed(root / 'pool.npz', backbone=atoms, energy=energies)
  maps = _maps(problem, found)
  np.savez_compressed(
    root / 'maps.npz', predicted=maps['predicted'], folded=maps['folded']
  )
  metrics: dict[str, Any] = {
    'potential': float(energies[0]),
    'pool': energies.tolist(),
  }
  claims = []
  if problem.truth is not None:
    judged = _judge(problem, problem.truth, found)
    metrics |= judged
    claims.append(
      Claim(
        f'{problem.name}: TM-score of the lowest potential',
        judged['tm'],
        baseline=judged['drawn_tm'],
        baseline_name='torsions as drawn',
      )
    )
  drawn = _chains(problem, atoms)
  angles = {'folded': np.asarray(found.poses.torsions[0])[:length]}
  if problem.truth is not None:
    angles['truth'] = np.asarray(problem.truth.torsions)[:length]
  angles = {name: _inner(values, breaks) for name, values in angles.items()}
  for name, figure in (
    ('distances', structures.distance_maps(maps)),
    ('descent', structures.descents(np.asarray(found.descents))),
    ('ramachandran', structures.ramachandran(angles)),
    ('structure', structures.chains(drawn)),
  ):
    report.save_figure(figure, workdir, name)
  report.write(
    workdir,
    title=f'AlphaFold: {problem.name}',
    config=config,
    claims=claims,
    metrics=metrics,
    figures={
      'structure': 'The lowest potential, from N (blue) to C (red).',
      'distances': 'Distances of CB atoms: the mean of the belief, as folded.',
      'descent': 'The potential along all descents.',
      'ramachandran': 'Torsions of the backbone.',
    },
    minutes=minutes,
  )
  _insert(root / 'report.html', structures.view(drawn))
  for name in ('potential', 'tm', 'gdt_ts', 'lddt', 'rmsd', 'drawn_tm'):
    if name in metrics:
      print(f'{name:<10}{metrics[name]:.4g}')
  print(f'structure: {root / "best.pdb"}')
  print(f'report: {root / "report.html"}')


def _inner(angles: np.ndarray, breaks: np.ndarray) -> np.ndarray:
  """Of residues that have both torsions, within -180 and 180 degrees."""
  starts = breaks.copy()
  starts[0] = True
  ends = np.append(starts[1:], True)
  inner = angles[~starts & ~ends]
  return (inner + np.pi) % (2 * np.pi) - np.pi


def _maps(problem: Problem, found: alphafold.Fold) -> dict[str, np.ndarray]:
  """Distances as believed, as folded and as they are; [L, L], angstrom."""
  length = len(problem.sequence)
  p = jnp.exp(problem.beliefs.distances)
  centres = distogram.CENTRES.reshape(1, 1, -1)
  p = (p + jnp.swapaxes(p, 0, 1)) / 2
  best = _coordinates(
    problem.chain, jax.tree.map(lambda x: x[:1], found.poses)
  )[0]
  folded = distogram.pair_distances(_beta_carbons(best, problem.chain.glycine))
  maps = {'predicted': jnp.sum(p * centres, -1), 'folded': folded}
  if problem.truth is not None:
    maps['truth'] = distogram.pair_distances(problem.truth.cb)
  return {
    name: np.asarray(values)[:length, :length] for name, values in maps.items()
  }


def _judge(
  problem: Problem, truth: known_structures.Truth, found: alphafold.Fold
) -> dict[str, float]:
  """Scores of the lowest potential, and of a start."""
  chain = problem.chain
  start = potentials.sample_pose(
    problem.beliefs.torsions, chain, jax.random.key(0)
  )
  poses = jax.tree.map(lambda a, b: jnp.stack([a[0], b]), found.poses, start)
  atoms = _coordinates(chain, poses)[:, :, 1]
  best = _scores(atoms[0], truth.ca, chain.mask)
  return {
    'tm': float(best.tm),
    'gdt_ts': float(best.gdt_ts),
    'rmsd': float(best.rmsd),
    'lddt': float(_lddt(atoms[0], truth.ca, chain.mask)),
    'drawn_tm': float(_scores(atoms[1], truth.ca, chain.mask).tm),
  }


def _chains(problem: Problem, atoms: np.ndarray) -> dict[str, np.ndarray]:
  """CA atoms of the best, of the truth and of the runner-up, superposed."""
  best = atoms[0, :, 1]
  others = {}
  if problem.native is not None:
    others['truth'] = problem.native.backbone[:, 1]
  if len(atoms) > 1:
    others['second lowest'] = atoms[1, :, 1]
  drawn = {'lowest potential': best}
  for title, points in others.items():
    rigid = _superpose(jnp.asarray(points), jnp.asarray(best))
    drawn[title] = np.asarray(geometry.move(rigid, jnp.asarray(points)))
  return drawn


def _insert(page: pathlib.Path, part: str) -> None:
  """Puts a part into a report, before its figures."""
  text = page.read_text(encoding='utf-8')
  head, mark, rest = text.partition('<h2>Figures</h2>')
  page.write_text(head + part + mark + rest, encoding='utf-8')


def _angstrom(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = -1.0
  if not 0 <= value <= 20:
    raise ValueError('a number from 0 to 20 is expected')
  return value


def main() -> None:
  """Runs the program."""
  number = tool.whole_number
  tool.run(
    main_fold,
    doc=__doc__,
    flags=(
      tool.Flag('input', 'a file, .a3m, .fasta, .npz, .pdb or .cif'),
      tool.Flag('workdir', 'a directory', 'runs/fold'),
      tool.Flag('model', 'the workdir of a trained network', ''),
      tool.Flag('chain', "of a structure; '' is the first", ''),
      tool.Flag('seed', 'of the restarts', 0, number(0, 2**32 - 1)),
      tool.Flag('restarts', 'side by side', 8, number(1, 1000)),
      tool.Flag('rounds', 'of restarts', 1, number(1, 10_000)),
      tool.Flag('steps', 'of a descent', 800, number(1, 100_000)),
      tool.Flag(
        'polish', 'steps of L-BFGS on the winner', 0, number(0, 10_000)
      ),
      tool.Flag(
        'optimizer',
        'of the descents',
        'adam',
        tool.one_of(*alphafold.OPTIMIZERS),
      ),
      tool.Flag(
        'staged',
        'Adam pulls pairs near in the sequence first; ours, not published',
        True,
        lambda text: tool.one_of('true', 'false')(text) == 'true',
      ),
      tool.Flag('blur', 'of a self-test, angstrom', 0.0, _angstrom),
    ),
    examples=(
      '--input=1ubi.pdb --workdir=runs/1ubi',
      '--input=family.a3m --model=runs/alphafold --rounds=4',
      '--input=1ubi.cif --chain=B --blur=2 --rounds=4',
      '--input=distogram.npz --restarts=32 --optimizer=lbfgs',
    ),
  )


if __name__ == '__main__':
  main()
