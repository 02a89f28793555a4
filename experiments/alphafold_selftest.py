"""Folds proteins from what is true of them: what the potential can do.

For each chain of the test split a distogram and laws of torsions are made from
the known structure, blurred in known ways, and folded: so one sees what a
network would have to know. Judged is the structure of the lowest potential.
Beside it stand chains that were not folded at all, folded from torsions only,
and from contacts instead of distances (slides, deck 000, "Folding Proteins with
AlphaFold": distances tell more than contacts).

Folds that are done are kept in the workdir: the same command goes on where it
was stopped.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from matplotlib.figure import Figure

from dl_lectures.analysis import known_structures
from dl_lectures.data import proteins
from dl_lectures.ops import potentials, structure_scores
from dl_lectures.systems import alphafold
from dl_lectures.training import loop, report
from dl_lectures.types import Claim, at_least
from experiments import tool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What decides about the result."""

  seed: int
  seeds: tuple[int, ...]
  chains: int
  steps: int
  restarts: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
  """One way of blurring and folding.

  Attributes:
    title: in words.
    blur: what is believed.
    settings: of the fold, other than the usual ones.
    bar: of the median TM-score; with one it is run with all seeds.
  """

  title: str
  blur: known_structures.Blur
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  bar: float | None = None


_STAGED = {'staged': True}
_UNINFORMATIVE = (0.2, 0.35, 0.5)

CONDITIONS = {
  'true': Condition(
    title='true distances, torsions 20 degrees off',
    blur=known_structures.Blur(),
    settings=_STAGED,
    bar=0.95,
  ),
  **{
    f'noise_{noise}': Condition(
      title=f'distances {noise} A off',
      blur=known_structures.Blur(noise=float(noise)),
      settings=_STAGED,
      bar=bar,
    )
    for noise, bar in ((1, 0.95), (2, 0.90), (3, 0.82))
  },
  'distances': Condition(
    title='true distances only, no torsions',
    blur=known_structures.Blur(torsions=False),
    settings={
      **_STAGED,
      'rama_weight': 3.0,
      'cutoff': 22.0,
      'local_steps': 500,
    },
    bar=0.82,
  ),
  'torsions': Condition(
    title='torsions only, no distances',
    blur=known_structures.Blur(distances=False),
    settings=_STAGED,
  ),
  'contacts': Condition(
    title='contacts (8 A) instead of distances',
    blur=known_structures.Blur(contacts=True),
    settings=_STAGED,
  ),
  'at_once': Condition(
    title='true distances, all pairs at once as published',
    blur=known_structures.Blur(),
  ),
  **{
    f'correlated_{noise}': Condition(
      title=f'distances {noise} A off, alike over 4 residues',
      blur=known_structures.Blur(noise=float(noise), correlation=4.0),
      settings=_STAGED,
    )
    for noise in (1, 2, 3)
  },
  **{
    f'uninformative_{round(100 * share)}': Condition(
      title=f'distances 1 A off, {share:.0%} of the long-range ones untold',
      blur=known_structures.Blur(noise=1.0, uninformative=share),
      settings=_STAGED,
    )
    for share in _UNINFORMATIVE
  },
}

_MIRROR = Condition(
  title='mirror images', blur=known_structures.Blur(), bar=1.0
)

_fold = jax.jit(alphafold.fold, static_argnums=0)
_make_potential = jax.jit(potentials.make_potential, static_argnums=0)
_energy = jax.jit(potentials.energy, static_argnums=0)
_coordinates = jax.jit(potentials.coordinates)
_descend = jax.jit(alphafold.descend, static_argnums=0)
_scores = jax.jit(functools.partial(structure_scores.superposed, starts=8))
_sample = jax.jit(potentials.sample_pose)


def selftest(
  workdir: str,
  seeds: Sequence[int],
  chains: int,
  steps: int,
  restarts: int,
  results: str,
) -> None:
  """Folds, judges, draws and reports."""
  loop.check_writable(workdir)
  settings = Settings(
    seed=seeds[0],
    seeds=tuple(seeds),
    chains=chains,
    steps=steps,
    restarts=restarts,
  )
  start = time.monotonic()
  found = run(settings, pathlib.Path(workdir, 'folds.jsonl'))
  report.save_figure(draw_conditions(found), workdir, 'conditions')
  report.save_figure(draw_curves(found), workdir, 'curves')
  summary = report.write(
    workdir,
    title='AlphaFold: folding from known structures',
    config=settings,
    claims=claims(found),
    metrics={
      name: float(np.median([row['tm'] for row in rows]))
      for name, rows in found.items()
    },
    figures={
      'conditions': 'TM-score of every chain; the line is the median.',
      'curves': 'What noise costs, and what is not known of long-range pairs.',
    },
    minutes=sum(r['seconds'] for rows in found.values() for r in rows) / 60,
  )
  if results:
    joined = report.aggregate([summary], report.command())
    joined['seeds'] = list(seeds)
    pathlib.Path(results).write_text(json.dumps(joined, indent=2) + '\n')
    target = pathlib.Path(results).with_suffix('')
    for name in ('conditions', 'curves'):
      picture = pathlib.Path(workdir, 'figures', f'{name}.png')
      shutil.copyfile(picture, f'{target}_{name}.png')
  print(report.to_text(summary))
  print(f'{(time.monotonic() - start) / 60:.1f} minutes')
  print(f'report: {os.path.join(workdir, "report.html")}')


def run(
  settings: Settings, kept: pathlib.Path
) -> dict[str, list[dict[str, Any]]]:
  """All folds by condition; those in the file are not made again."""
  kept.parent.mkdir(parents=True, exist_ok=True)
  told = {'steps': settings.steps, 'restarts': settings.restarts}
  known = {
    (line['condition'], line['chain'], line['seed']): line
    for line in _lines(kept)
    if line['settings'] == told
  }
  shipped = proteins.load()
  names = proteins.split('test')[: settings.chains]
  # What has a bar is run with all seeds and comes first, the rest with one.
  every = {**CONDITIONS, 'mirror': _MIRROR}
  ordered = sorted(every, key=lambda name: every[name].bar is None)
  plan = [
    (condition, name, seed)
    for i, seed in enumerate(settings.seeds)
    for condition in ordered
    for name in names
    if i == 0 or every[condition].bar is not None
  ]
  found: dict[str, list[dict[str, Any]]] = {}
  for condition, name, seed in tqdm.tqdm(plan, unit=' folds', disable=None):
    line = known.get((condition, name, seed))
    if line is None:
      judge = mirror if condition == 'mirror' else fold
      line = {
        'condition': condition,
        'chain': name,
        'seed': seed,
        'settings': told,
        **judge(settings, condition, shipped[name], seed),
      }
      with open(kept, 'a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')
    found.setdefault(condition, []).append(line)
  # Without torsions a start is drawn as those of any protein are.
  found['random'] = [
    {**row, 'tm': row['drawn_tm']} for row in found['distances']
  ]
  return found


def fold(
  settings: Settings, condition: str, protein: proteins.Chain, seed: int
) -> dict[str, Any]:
  """One fold, judged."""
  how = CONDITIONS[condition]
  config = alphafold.FoldConfig(
    steps=settings.steps,
    restarts=settings.restarts,
    pool=settings.restarts,
    **how.settings,
  )
  chain, truth, key = _problem(protein, seed)
  beliefs = known_structures.blurred_truth(how.blur, truth, key)
  potential = _make_potential(config, chain, beliefs)
  start = time.monotonic()
  found = jax.block_until_ready(_fold(config, potential, key))
  seconds = time.monotonic() - start

  def judge(pose):
    atoms = _coordinates(chain, pose)
    return _scores(atoms[:, 1], truth.ca, chain.mask)

  judged = judge(jax.tree.map(lambda x: x[0], found.poses))
  drawn = judge(_sample(potential.torsions, chain, key))
  return {
    'tm': round(float(judged.tm), 4),
    'gdt_ts': round(float(judged.gdt_ts), 2),
    'rmsd': round(float(judged.rmsd), 3),
    'drawn_tm': round(float(drawn.tm), 4),
    'seconds': round(seconds, 2),
  }


def mirror(
  settings: Settings, condition: str, protein: proteins.Chain, seed: int
) -> dict[str, Any]:
  """The potential of a native, relaxed, and that of its mirror image.

  And where a descent from the mirror image ends.
  """
  del condition
  how = _MIRROR
  config = alphafold.FoldConfig(steps=settings.steps)
  chain, truth, key = _problem(protein, seed)
  beliefs = known_structures.blurred_truth(how.blur, truth, key)
  potential = _make_potential(config, chain, beliefs)
  start = time.monotonic()
  native = potentials.Pose(truth.torsions, jnp.zeros((len(chain.mask), 6)))
  native = _descend(config, potential, native).pose
  image = native._replace(torsions=-native.torsions)
  energies = [
    float(_energy(config, potential, pose, 1.0)) for pose in (native, image)
  ]
  back = _coordinates(chain, _descend(config, potential, image).pose)[:, 1]
  return {
    'descended_tm': float(_scores(back, truth.ca, chain.mask).tm),
    'native': energies[0],
    'mirror': energies[1],
    'tm': float(energies[0] < energies[1]),
    'seconds': round(time.monotonic() - start, 2),
  }


def _problem(protein: proteins.Chain, seed: int):
  size = potentials.padded_size(len(protein.sequence))
  chain = potentials.make_chain(protein.sequence, protein.breaks, size)
  key = jax.random.key(seed)
  for letter in protein.name.encode():
    key = jax.random.fold_in(key, letter)
  return chain, known_structures.make_truth(protein, size), key


def _lines(kept: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of a file that may not exist or end in the middle of one."""
  if not kept.exists():
    return []
  found = []
  for line in kept.read_text(encoding='utf-8').splitlines():
    try:
      found.append(json.loads(line))
    except ValueError:
      continue
  return found


def _values(rows: Sequence[Mapping[str, Any]], name: str = 'tm') -> np.ndarray:
  return np.array([row[name] for row in rows])


def interval(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
  """95% of the median TM-score, by bootstrap over the chains.

  Seeds of a chain are drawn together: they share its difficulty.

  >>> rows = [{'chain': str(i), 'tm': i / 10} for i in range(11)]
  >>> low, high = interval(rows)
  >>> low < 0.5 < high
  True
  """
  chains: dict[str, list[float]] = {}
  for row in rows:
    chains.setdefault(row['chain'], []).append(row['tm'])
  every = list(chains.values())
  random = np.random.default_rng(0)
  medians = [
    np.median(np.concatenate([every[i] for i in drawn]))
    for drawn in random.integers(len(every), size=(2000, len(every)))
  ]
  low, high = np.percentile(medians, [2.5, 97.5])
  return float(low), float(high)


def claims(found: Mapping[str, list[dict[str, Any]]]) -> list[Claim]:
  """What the folds say, each beside something simple."""
  drawn = float(np.median(_values(found['true'], 'drawn_tm')))
  torsions = float(np.median(_values(found['torsions'])))
  told = []
  for name, how in CONDITIONS.items():
    rows = found[name]
    simple: dict[str, Any] = {
      'baseline': torsions,
      'baseline_name': 'torsions only',
    }
    if name == 'torsions':
      simple = {'baseline': drawn, 'baseline_name': 'torsions as drawn'}
    if name == 'distances':
      anew = float(np.median(_values(found['random'])))
      simple = {'baseline': anew, 'baseline_name': 'random torsions'}
    chains = len({row['chain'] for row in rows})
    text = f'TM-score, median of {chains} chains: {how.title}'
    value = float(np.median(_values(rows)))
    if how.bar is None:
      told.append(Claim(text, value, interval=interval(rows), **simple))
    else:
      told.append(
        at_least(text, value, how.bar, interval=interval(rows), **simple)
      )
    if how.bar is not None or name == 'at_once':
      text = f'TM-score, worst of all: {how.title}'
      worst = float(_values(rows).min())
      other = 'random' if name == 'distances' else 'torsions'
      simple['baseline'] = float(_values(found[other]).min())
      told.append(
        at_least(text, worst, 0.85, **simple)
        if name == 'true'
        else Claim(text, worst, **simple)
      )
  told.append(
    at_least(
      'chains whose mirror image has the higher potential',
      float(_values(found['mirror']).mean()),
      1.0,
      baseline=0.5,
      baseline_name='without torsions nothing tells them apart',
    )
  )
  return told


def draw_conditions(found: Mapping[str, list[dict[str, Any]]]) -> Figure:
  """A strip of points for each condition."""
  figure = Figure(figsize=(9, 5.5), layout='constrained')
  axes = figure.subplots()
  titles = {name: how.title for name, how in CONDITIONS.items()}
  titles['random'] = 'no descent: random torsions'
  names = [name for name in titles if name in found]
  for i, name in enumerate(names):
    values = _values(found[name])
    wobble = np.random.default_rng(i).uniform(-0.25, 0.25, len(values))
    axes.scatter(values, i + wobble, s=12, alpha=0.5, color='tab:blue')
    axes.plot([np.median(values)] * 2, [i - 0.35, i + 0.35], color='black')
  axes.set_yticks(range(len(names)), [titles[n] for n in names])
  axes.invert_yaxis()
  axes.set_xlim(0, 1.02)
  axes.set_xlabel('TM-score of the lowest potential')
  axes.grid(axis='x', alpha=0.3)
  return figure


def draw_curves(found: Mapping[str, list[dict[str, Any]]]) -> Figure:
  """TM-score against noise, and against what is not told."""
  figure = Figure(figsize=(9, 3.6), layout='constrained')
  left, right = figure.subplots(1, 2, sharey=True)

  def draw(axes, places, names, label):
    quarters = np.array(
      [np.percentile(_values(found[name]), [25, 50, 75]) for name in names]
    )
    axes.plot(places, quarters[:, 1], marker='o', label=label)
    axes.fill_between(places, quarters[:, 0], quarters[:, 2], alpha=0.2)

  for kind, label in (
    ('noise', 'each pair on its own'),
    ('correlated', 'alike over 4 residues'),
  ):
    draw(left, range(4), ['true', *(f'{kind}_{n}' for n in (1, 2, 3))], label)
  left.set_xlabel('distances off by, angstrom')
  left.set_ylabel('TM-score, median and quartiles')
  left.legend()
  shares = [f'uninformative_{round(100 * share)}' for share in _UNINFORMATIVE]
  draw(right, [0, *_UNINFORMATIVE], ['noise_1', *shares], 'distances')
  contacts = np.median(_values(found['contacts']))
  right.axhline(contacts, color='gray', ls='--', label='contacts, all told')
  right.set_xlabel('share of long-range pairs that are not told')
  right.legend()
  for axes in (left, right):
    axes.grid(alpha=0.3)
  return figure


def _seeds(text: str) -> tuple[int, ...]:
  number = tool.whole_number(0, 2**32 - 1)
  try:
    return tuple(number(part) for part in text.split(','))
  except ValueError:
    raise ValueError(
      'whole numbers with commas between are expected, such as 0,1,2'
    ) from None


def main() -> None:
  """Runs the program."""
  tool.run(
    selftest,
    doc=__doc__,
    flags=(
      tool.Flag('workdir', 'a directory', 'runs/alphafold_selftest'),
      tool.Flag('seeds', 'of noise and of restarts', (0, 1, 2), _seeds),
      tool.Flag('chains', 'how many', 20, tool.whole_number(2, 20)),
      tool.Flag('steps', 'of a descent', 800, tool.whole_number(1, 100_000)),
      tool.Flag('restarts', 'side by side', 8, tool.whole_number(1, 1000)),
      tool.Flag('results', 'a JSON file for the claims', ''),
    ),
    examples=(
      '--results=results/alphafold_selftest.json',
      '--chains=3 --seeds=0 --steps=200 --workdir=/tmp/selftest',
    ),
  )


if __name__ == '__main__':
  main()
