"""How many episodes the delay of a reward costs: RUDDER, TD and Monte Carlo.

Two tasks, each at four delays: watch repair, where one decision is drowned in
noise, and tracing back, where four moves are, and little noise. Every method
has the same exploration, the same bar and the same budget to choose a learning
rate for its table: every rate of --rates, on the seeds from 0 on. It is then
run once on the seeds from 100 on; those figures are reported. A run that does
not reach the bar counts at its cap.

The seeds of a cell run side by side. Cells that are done are kept in the
workdir: the same command continues. It ends with a table, a figure, report.html
and summary.json.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dl_lectures import types
from dl_lectures.analysis import statistics
from dl_lectures.envs import delayed
from dl_lectures.systems import rudder
from dl_lectures.training import checkpoint, loop, progress, report
from experiments import tool

METHODS = ('rudder', 'td', 'mc')
NAMES = {'rudder': 'RUDDER', 'td': 'TD', 'mc': 'MC'}
RATES = (0.03, 0.1, 0.3, 1.0)
FIRST_REPORTED = 100
# The delays of each task, the shortest first, and between which two of them it
# grows fourfold.
DELAYS = {'watch_repair': (10, 25, 50, 100), 'trace_back': (6, 12, 18, 24)}
FOURFOLD = {'watch_repair': (25, 100), 'trace_back': (6, 24)}
MOST_GROWTH = 2.0


class Cell(NamedTuple):
  """A run of one method at one delay, of several seeds side by side."""

  task: str
  horizon: int
  method: str
  rate: float
  first_seed: int
  seeds: int

  @property
  def name(self) -> str:
    """The name of its file."""
    return (
      f'{self.task}-{self.horizon}-{self.method}-{self.rate:g}-'
      f'{self.first_seed}-{self.seeds}'
    )


class Row(NamedTuple):
  """A row of the table: what one method needs at one delay.

  Attributes:
    task: its name.
    horizon: the delay.
    method: its name.
    rate: the learning rate that was chosen.
    episodes: of each reported seed; at the cap where the bar was not reached.
    capped: how many were not.
  """

  task: str
  horizon: int
  method: str
  rate: float
  episodes: np.ndarray
  capped: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """What a workdir's cells have in common."""

  seed: int = 0  # the first of those that tune
  tasks: tuple[str, ...] = tuple(DELAYS)
  rates: tuple[float, ...] = RATES
  tuning_seeds: int = 10
  report_seeds: int = 20
  shorter: int = 1  # every delay, cap and window is divided by it


def settings(task: str, horizon: int, shorter: int) -> rudder.Config:
  """The system's settings for a task at a delay."""
  preset = 'laptop' if task == 'watch_repair' else task
  config = rudder.PRESETS[preset]
  if shorter == 1:
    return dataclasses.replace(config, horizon=horizon)
  return dataclasses.replace(
    config,
    horizon=horizon,
    first_lesson=config.first_lesson // shorter,
    first_updates=config.first_updates // shorter,
    updates_per_step=max(1, config.updates_per_step // shorter),
    window=config.episodes_per_step,
    max_episodes=config.max_episodes // shorter,
    baseline_episodes=config.baseline_episodes // shorter,
    lessons=config.lessons // shorter,
  )


def run(cell: Cell, shorter: int) -> dict[str, Any]:
  """Runs a cell; its content as JSON keeps it."""
  config = settings(cell.task, cell.horizon, shorter)
  task = delayed.make(config.task, config.horizon)
  seeds = jnp.arange(cell.first_seed, cell.first_seed + cell.seeds)
  keys = jax.vmap(jax.random.key)(seeds)
  learn = _compiled(config, cell.method)
  start = time.process_time()
  solved, _ = jax.block_until_ready(learn(jnp.float32(cell.rate), keys))
  return {
    'episodes': np.asarray(
      rudder.counted(config, cell.method, np.asarray(solved))
    ).tolist(),
    'capped': int(np.sum(np.asarray(solved) == 0)),
    'rows': task.num_rows,
    'cpu_seconds': round(time.process_time() - start, 2),
  }


@functools.cache
def _compiled(config: rudder.Config, method: str) -> Any:
  """(rate, keys) -> (solved, scores); once for all rates."""
  task = delayed.make(config.task, config.horizon)
  if method == 'rudder':
    net = rudder.network(config)
    return jax.jit(functools.partial(rudder.learn_rudder, config, task, net))
  return jax.jit(functools.partial(rudder.learn_baseline, config, task, method))


def tuning(rules: Rules) -> list[Cell]:
  """The cells that choose learning rates, the cheap ones first."""
  return [
    Cell(task, horizon, method, rate, rules.seed, rules.tuning_seeds)
    for task in sorted(rules.tasks)
    for horizon in DELAYS[task]
    for method in METHODS
    for rate in rules.rates
  ]


def choose(cells: Sequence[Cell], results: Sequence[Mapping[str, Any]]):
  """Of each method at each delay the rate of the fewest episodes.

  The mean of their logarithms decides, so that no single seed does.

  Args:
    cells: of `tuning`.
    results: theirs, in order.

  Returns:
    (task, horizon, method) -> the rate; the smaller one of equals.
  """
  best: dict[tuple[str, int, str], tuple[float, float]] = {}
  for cell, result in zip(cells, results, strict=True):
    cost = float(np.mean(np.log(result['episodes'])))
    key = cell.task, cell.horizon, cell.method
    best[key] = min(best.get(key, (np.inf, 0.0)), (cost, cell.rate))
  return {key: rate for key, (_, rate) in best.items()}


def growth(rows: Sequence[Row], task: str, method: str) -> float | None:
  """How many times the median grows while the delay grows fourfold."""
  medians = {
    row.horizon: float(np.median(row.episodes))
    for row in rows
    if (row.task, row.method) == (task, method)
  }
  short, long = FOURFOLD[task]
  if short not in medians or long not in medians:
    return None
  return medians[long] / medians[short]


def make_claims(rows: Sequence[Row]) -> list[types.Claim]:
  """Growth with the delay, and the medians of all rows."""
  claims = []
  for task in dict.fromkeys(row.task for row in rows):
    short, long = FOURFOLD[task]
    words = f'{task.replace("_", " ")}, delay {short} to {long}'
    grows = {method: growth(rows, task, method) for method in METHODS}
    if grows['rudder'] is not None:
      claims.append(
        types.at_most(
          f'{words}: RUDDER needs so many times the episodes',
          grows['rudder'],
          MOST_GROWTH,
          baseline=grows['td'],
          baseline_name='TD',
        )
      )
    if grows['mc'] is not None:
      claims.append(
        types.Claim(
          f'{words}: MC', grows['mc'], baseline=grows['td'], baseline_name='TD'
        )
      )
  by = {(row.task, row.horizon, row.method): row for row in rows}
  for row in rows:
    capped = f', {row.capped} at the cap' if row.capped else ''
    peer = 'rudder' if row.method == 'td' else 'td'
    beside = by.get((row.task, row.horizon, peer))
    claims.append(
      types.Claim(
        f'{row.task.replace("_", " ")}, delay {row.horizon}, '
        f'{NAMES[row.method]}: median episodes to the bar of '
        f'{len(row.episodes)} seeds{capped}',
        float(np.median(row.episodes)),
        interval=statistics.median_interval(row.episodes),
        baseline=None if beside is None else float(np.median(beside.episodes)),
        baseline_name=NAMES[peer],
      )
    )
  return claims


def to_table(rows: Sequence[Row]) -> str:
  """The table for a terminal."""
  lines = [
    f'{"task":<14}{"delay":>6}  {"method":<8}{"rate":>6}{"median":>10}'
    f'{"40%":>10}{"60%":>10}{"capped":>8}'
  ]
  for row in rows:
    low, mid, high = np.quantile(row.episodes, [0.4, 0.5, 0.6])
    lines.append(
      f'{row.task:<14}{row.horizon:>6}  {NAMES[row.method]:<8}{row.rate:>6g}'
      f'{mid:>10,.0f}{low:>10,.0f}{high:>10,.0f}'
      f'{row.capped:>4}/{len(row.episodes)}'
    )
  return '\n'.join(lines)


def draw(rows: Sequence[Row]) -> Figure:
  """Medians against the delay, with 40% and 60% quantiles; a panel a task."""
  tasks = list(dict.fromkeys(row.task for row in rows))
  page = Figure(figsize=(5.2 * len(tasks), 3.9), layout='constrained')
  colors = {'rudder': '#08519c', 'td': '#d95f0e', 'mc': '#7a7a7a'}
  panels = np.atleast_1d(page.subplots(1, len(tasks)))
  for axes, task in zip(panels, tasks, strict=True):
    axes.spines[['top', 'right']].set_visible(False)
    for method in METHODS:
      mine = [r for r in rows if (r.task, r.method) == (task, method)]
      delays = [row.horizon for row in mine]
      low, mid, high = np.array(
        [np.quantile(row.episodes, [0.4, 0.5, 0.6]) for row in mine]
      ).T
      axes.loglog(delays, mid, 'o-', color=colors[method], label=NAMES[method])
      axes.fill_between(
        delays, low, high, color=colors[method], alpha=0.25, lw=0
      )
    axes.set(
      title=task.replace('_', ' '),
      xlabel='delay, steps',
      ylabel='episodes to the bar',
    )
    axes.set_xticks(DELAYS[task], [str(x) for x in DELAYS[task]], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False)
  return page


def work(
  cells: Sequence[Cell], rules: Rules, directory: pathlib.Path
) -> list[dict[str, Any]]:
  """The results of all cells; runs those that are not yet kept."""
  directory.mkdir(parents=True, exist_ok=True)
  paths = [directory / f'{cell.name}.json' for cell in cells]
  done = sum(path.exists() for path in paths)
  bar = progress.Progress(len(cells), done)
  try:
    for cell, path in zip(cells, paths, strict=True):
      if path.exists():
        continue
      result = run(cell, rules.shorter)
      checkpoint_path = path.with_suffix('.tmp')
      checkpoint_path.write_text(json.dumps(result) + '\n')
      checkpoint_path.replace(path)
      done += 1
      bar.update(done, {'median': np.median(result['episodes'])})
      progress.say(f'{cell.name}: {result}')
  finally:
    bar.close()
  return [json.loads(path.read_text()) for path in paths]


def sweep(
  workdir: str,
  tasks: tuple[str, ...],
  tuning_seeds: int,
  report_seeds: int,
  shorter: int,
  results: str,
) -> None:
  """Tunes, runs and reports; see the module's docstring.

  Args:
    workdir: where cells are kept.
    tasks: those to run.
    tuning_seeds: how many seeds choose the learning rates.
    report_seeds: how many are reported.
    shorter: divides all budgets; 1 for figures that mean something.
    results: a JSON file for the claims; '' for none.

  Raises:
    UsageError: the workdir holds cells of other settings.
  """
  rules = Rules(
    tasks=tuple(sorted(tasks)),
    tuning_seeds=tuning_seeds,
    report_seeds=report_seeds,
    shorter=shorter,
  )
  loop.check_writable(workdir)
  checkpoint.check_config(workdir, rules)
  path = pathlib.Path(workdir)
  path.mkdir(parents=True, exist_ok=True)
  (path / 'config.json').write_text(
    json.dumps(dataclasses.asdict(rules), indent=2) + '\n'
  )
  cells = path / f'cells-{_fingerprint(rules)}'
  candidates = tuning(rules)
  progress.say(f'choosing learning rates: {len(candidates)} cells')
  tuned = work(candidates, rules, cells)
  rates = choose(candidates, tuned)
  final = [
    Cell(task, horizon, method, rate, FIRST_REPORTED, report_seeds)
    for (task, horizon, method), rate in rates.items()
  ]
  progress.say(f'reporting: {len(final)} cells')
  reported = work(final, rules, cells)
  rows = [
    Row(
      cell.task,
      cell.horizon,
      cell.method,
      cell.rate,
      np.asarray(result['episodes'], float),
      result['capped'],
    )
    for cell, result in zip(final, reported, strict=True)
  ]
  print(to_table(rows))
  report.save_figure(draw(rows), workdir, 'rudder_sweep')
  summary = report.write(
    workdir,
    title='Episodes against delay',
    config=rules,
    claims=make_claims(rows),
    metrics={'cells': len(candidates) + len(final)},
    figures={'rudder_sweep': 'Medians; the bands are 40% and 60% quantiles.'},
    # Of the CPU, of all cells: those of earlier calls count too.
    minutes=sum(cell['cpu_seconds'] for cell in tuned + reported) / 60,
  )
  print(report.to_text(summary), file=sys.stderr)
  if results:
    summary['seeds'] = list(
      range(FIRST_REPORTED, FIRST_REPORTED + report_seeds)
    )
    joined = report.aggregate([summary], report.command(), 'sweep')
    os.makedirs(os.path.dirname(os.path.abspath(results)), exist_ok=True)
    pathlib.Path(results).write_text(json.dumps(joined, indent=2) + '\n')
    shutil.copyfile(
      path / 'figures' / 'rudder_sweep.png',
      pathlib.Path(results).with_suffix('.png'),
    )


def _fingerprint(rules: Rules) -> str:
  """Of all settings of the system: cells of others are not mixed with them."""
  told = [
    dataclasses.asdict(settings(task, DELAYS[task][0], rules.shorter))
    for task in rules.tasks
  ]
  return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]


def _tasks(text: str) -> tuple[str, ...]:
  names = tuple(part.strip() for part in text.split(','))
  if not set(names) <= set(DELAYS) or len(set(names)) < len(names):
    raise ValueError(f'some of {",".join(DELAYS)} are expected')
  return names


def main() -> None:
  """Runs the program."""
  tool.run(
    sweep,
    doc=__doc__ or '',
    flags=(
      tool.Flag('workdir', 'where cells are kept', 'runs/rudder_sweep'),
      tool.Flag('tasks', 'both by default', tuple(DELAYS), _tasks),
      tool.Flag(
        'tuning_seeds', 'from 0 on', 10, tool.whole_number(1, FIRST_REPORTED)
      ),
      tool.Flag(
        'report_seeds', 'from 100 on', 20, tool.whole_number(2, 10_000)
      ),
      tool.Flag(
        'shorter', 'divides all budgets, to try it', 1, tool.whole_number(1, 20)
      ),
      tool.Flag('results', 'a JSON file for the claims; none by default', ''),
    ),
    examples=(
      '--results=results/rudder_sweep.json',
      '--tasks=trace_back --report_seeds=100 --workdir=runs/trace_back',
      '--shorter=20 --tuning_seeds=2 --report_seeds=2 --workdir=/tmp/sweep',
    ),
  )


if __name__ == '__main__':
  main()
