"""Compares nine learners in the rooms, all under the same rules.

Four rooms and eight rooms, with 2 to 100 demonstrations: how many episodes does
a method need until its mean return reaches the bar? The bar is 0.8 times what
can be attained at all (by dynamic programming), it must be reached in 20
episodes and again in 100 fresh ones, and it is the same for all. So are the
demonstrations of a seed, the exploration, and the search for settings. Runs
that reach the cap count as the cap.

Every method is given a learning rate and first values: N(1, .5), as published,
or little noise around a bit more than what a failed episode is worth in the
unit of what it learns. All 24 pairs run on seeds 0 and 1, the best six also on
2 to 9, up to 2,000 episodes each; the best one then runs once on seeds 100-199.

Align-RUDDER, alone and without its history of events, is beside seven others:
RUDDER with an LSTM, cloning and Q-learning (BC+Q) with and without that
history, DQfD, uniform redistribution, shaping, and Q-learning.

--variant=official is another question: do we get the published curves? The
rooms are as published, with their bugs, and so are learning rates, first values
and bars (0.8 times the mean return of the demonstrations, the first crossing
counts). Each method is run as published; BC+Q also at the learning rate of
Align-RUDDER.

--slip=0.05,0.1,0.2,0.4 is a third one: how does the lead of Align-RUDDER change
if steps go astray? It ends with a figure over the probability.

Each finished cell is kept in --workdir; the same command goes on where it
stopped. It ends with a table, bar charts, report.html and summary.json.

Source: Patil et al., "Align-RUDDER", 2020, section 4; slides, deck 002, the bar
charts.
"""

import dataclasses
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.training import checkpoint, progress, report, tabular
from dl_lectures.training.loop import check_writable
from dl_lectures.types import UsageError
from experiments import rooms_figures, rooms_trial, tool


def sweep(
  workdir: str,
  variant: str,
  rooms: tuple[int, ...],
  demos: tuple[int, ...],
  methods: tuple[str, ...],
  tuning_seeds: int,
  report_seeds: int,
  max_episodes: int,
  slip: tuple[float, ...],
  results: str,
) -> None:
  """Runs what is missing in the workdir, and tells the result of all."""
  tabular.one_kernel_a_loop()
  rules = rooms_trial.Rules(
    variant=variant,
    tuning_seeds=tuning_seeds,
    report_seeds=report_seeds,
    max_episodes=max_episodes,
  )
  todo = rooms_trial.tasks(
    variant, rooms, demos, slip, methods or tuple(rooms_trial.METHODS)
  )
  if not todo:
    names = dict.fromkeys(name for name, _ in rooms_trial.OFFICIAL)
    raise UsageError(
      f'--methods={",".join(methods)}: not published; {", ".join(names)} are'
    )
  directory = pathlib.Path(workdir, 'cells')
  check_writable(directory)
  checkpoint.check_config(workdir, rules)
  if results:
    check_writable(os.path.dirname(os.path.abspath(results)))
  directory.mkdir(parents=True, exist_ok=True)
  _write(pathlib.Path(workdir, 'config.json'), dataclasses.asdict(rules))
  cells = _run_all(rules, todo, directory)

  rows = rooms_figures.summarise(cells)
  text = rooms_figures.table_text(rows)
  print(text)
  pathlib.Path(workdir, 'table.txt').write_text(text + '\n')
  figures = {}
  if len(slip) > 1:
    report.save_figure(
      rooms_figures.draw_slip(rows, max_episodes), workdir, 'slip'
    )
    figures['slip'] = (
      f'Median episodes of {report_seeds} seeds, with 40% and 60% quantiles'
    )
  for number in rooms if len(slip) == 1 else ():
    name = f'{rooms_figures.WORDS[number]}_rooms'
    report.save_figure(
      rooms_figures.draw(rows, number, max_episodes), workdir, name
    )
    figures[name] = (
      f'{rooms_figures.WORDS[number].capitalize()} rooms: median episodes of '
      f'{report_seeds} seeds, with 40% and 60% quantiles'
    )
  summary = report.write(
    workdir,
    title=f'Align-RUDDER compared, rooms as in {variant!r}',
    config=rules,
    claims=rooms_figures.claims(cells, variant),
    metrics={f'{row.task.name}/median_episodes': row.median for row in rows},
    figures=figures,
    minutes=sum(cell['seconds'] for cell in cells) / 60,
  )
  print(report.to_text(summary))
  if results:
    pathlib.Path(results).parent.mkdir(parents=True, exist_ok=True)
    joined = report.aggregate([summary], report.command(), variant)
    seeds = range(rules.seed, rules.seed + report_seeds)
    joined |= {
      'seeds': list(seeds),
      'cpu_minutes': round(sum(cell['cpu_seconds'] for cell in cells) / 60, 2),
      'table': [_plain(row) for row in rows],
    }
    _write(pathlib.Path(results), joined)
    for name in figures:
      picture = pathlib.Path(workdir, 'figures', f'{name}.png')
      target = pathlib.Path(results).with_suffix('')
      shutil.copyfile(picture, f'{target}_{name}.png')


def _run_all(
  rules: rooms_trial.Rules, todo: Sequence[rooms_trial.Task], directory: Any
) -> list[dict[str, Any]]:
  """The cells, from their files or run now, in order."""
  paths = [directory / f'{task.name}.json' for task in todo]
  sizes = [rooms_trial.num_runs(task, rules) for task in todo]
  missing = [not path.exists() for path in paths]
  done = sum(n for n, m in zip(sizes, missing, strict=True) if not m)
  bar = progress.Progress(sum(sizes), done)
  runner = rooms_trial.Runner(rules)
  medians: dict[str, float] = {}

  def tell(count: int) -> None:
    nonlocal done
    done += count
    bar.update(done, medians)

  for task, path, absent in zip(todo, paths, missing, strict=True):
    if absent:
      cell = rooms_trial.run_cell(runner, task, rules, tell)
      _write(path, cell)
      median = float(np.median(cell['episodes']))
      medians = {f'{task.name} median': median}
      setting = rooms_trial.Setting(**cell['setting']).text
      progress.say(
        f'{task.name}: {setting}, median {median:.0f} episodes, '
        f'{cell["capped"]} capped, {cell["seconds"]:.0f} s, of the CPU '
        f'{cell["cpu_seconds"]:.0f}'
      )
  bar.close()
  return [json.loads(path.read_text()) for path in paths]


def _plain(row: rooms_figures.Row) -> dict[str, Any]:
  rest = row._asdict()
  task = rest.pop('task')
  where = {'rooms': task.rooms, 'demos': task.demos, 'slip': task.slip}
  return where | rest


def _write(path: pathlib.Path, content: Any) -> None:
  """Whole or not at all."""
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(content, indent=2) + '\n')
  os.replace(temporary, path)


def _list_of(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
  """Parses several of a kind, separated by commas, none of them twice."""

  def parse_all(text: str) -> tuple[Any, ...]:
    values = tuple(parse(part) for part in text.split(','))
    if len({*values}) < len(values):
      raise ValueError('one is named twice')
    return values

  return parse_all


def _probability(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value <= 1:
    raise ValueError('a number from 0 to 1 is expected')
  return value


def main() -> None:
  """Runs the program."""
  count = tool.whole_number
  tool.run(
    sweep,
    doc=__doc__ or '',
    flags=(
      tool.Flag('workdir', 'where cells are kept', 'runs/align_rudder_sweep'),
      tool.Flag(
        'variant',
        'of the rooms and of the rules: paper or official',
        'paper',
        tool.one_of(*rooms_lib.VARIANTS),
      ),
      tool.Flag('rooms', '4, 8 or both', (4, 8), _list_of(_rooms)),
      tool.Flag(
        'demos',
        f'numbers of demonstrations, 1 to {rooms_trial.MOST_DEMOS}',
        rooms_figures.DEMOS,
        _list_of(count(1, rooms_trial.MOST_DEMOS)),
      ),
      tool.Flag(
        'methods',
        f'some of {", ".join(rooms_trial.METHODS)}; all by default',
        (),
        _list_of(tool.one_of(*rooms_trial.METHODS)),
      ),
      tool.Flag('tuning_seeds', 'to choose learning rates', 10, count(1, 100)),
      tool.Flag('report_seeds', 'from 100 on', 100, count(2, 10_000)),
      tool.Flag('max_episodes', 'the cap', 5_000, _tens),
      tool.Flag(
        'slip',
        'probabilities of a random step',
        (rooms_trial.SLIP,),
        _list_of(_probability),
      ),
      tool.Flag('results', 'a JSON file for the claims; none by default', ''),
    ),
    examples=(
      '--results=results/align_rudder_sweep.json',
      '--rooms=4 --demos=2,10 --report_seeds=10 --workdir=/tmp/small',
      '--variant=official --max_episodes=40000 --workdir=runs/official',
      '--slip=0.05,0.1,0.2,0.4 --methods=align_rudder,bc_q --workdir=runs/slip',
    ),
  )


def _rooms(text: str) -> int:
  if text not in ('4', '8'):
    raise ValueError('4 and 8 are possible')
  return int(text)


def _tens(text: str) -> int:
  value = tool.whole_number(10, 1_000_000)(text)
  if value % 10:
    raise ValueError('a multiple of 10 is expected')
  return value


if __name__ == '__main__':
  main()
