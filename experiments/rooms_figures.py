"""What was found in the rooms: the table, the charts and the claims."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dl_lectures.analysis import statistics
from dl_lectures.types import Claim, at_least, at_most
from experiments.rooms_trial import METHODS, SLIP, Setting, Task

DEMOS = (2, 5, 10, 50, 100)
WORDS = {4: 'four', 8: 'eight'}

# Of the published figures, by eye: mean episodes of 100 trials (facts of the
# project page, assets/results); None where the bar is on the axis.
PUBLISHED: Mapping[tuple[int, str], tuple[float | None, ...]] = {
  (4, 'align_rudder'): (1500, 1150, 800, None, None),
  (4, 'bc_q'): (7100, 5000, 2000, None, None),
  (4, 'dqfd'): (7800, 5000, 4800, None, None),
  (4, 'rudder'): (11100, 9100, 5700, 200, None),
  (8, 'align_rudder'): (4400, 1750, 2150, None, None),
  (8, 'bc_q'): (10700, 8300, 5200, None, None),
  (8, 'dqfd'): (14200, 10300, 20000, None, None),
  (8, 'rudder'): (31800, 31600, 23700, 450, None),
}


class Row(NamedTuple):
  """A line of the table.

  Attributes:
    task: the cell.
    label: of the method.
    setting: learning rate and first values.
    median: of the episodes.
    middle: their 40% and 60% quantiles.
    interval: 90%, of the median, by the bootstrap.
    capped: how many runs never reached the bar.
    versus: two-sided p of the rank-sum test against Align-RUDDER; None for
      itself, and where it was not run.
  """

  task: Task
  label: str
  setting: str
  median: float
  middle: tuple[float, float]
  interval: tuple[float, float]
  capped: int
  versus: float | None


def summarise(cells: Sequence[Mapping[str, Any]]) -> list[Row]:
  """The table of some cells, as `run_cell` gives them."""
  align = {
    task[:3]: cell
    for task, cell in by_task(cells).items()
    if task.method == 'align_rudder'
  }
  rows = []
  for task, cell in by_task(cells).items():
    episodes = np.array(cell['episodes'])
    other, versus = align.get(task[:3]), None
    if other is not None and other is not cell:
      versus = statistics.rank_sum(other['episodes'], episodes)
    low, median, high = np.quantile(episodes, (0.4, 0.5, 0.6))
    label = METHODS[task.method].label
    if task.rate:
      label += f', rate {task.rate:g}'
    rows.append(
      Row(
        task,
        label,
        Setting(**cell['setting']).text,
        float(median),
        (float(low), float(high)),
        statistics.median_interval(episodes, 0.9),
        cell['capped'],
        versus,
      )
    )
  return rows


def by_task(
  cells: Sequence[Mapping[str, Any]],
) -> dict[Task, Mapping[str, Any]]:
  """The cells by what they are about."""
  return {Task(**cell['task']): cell for cell in cells}


def table_text(rows: Sequence[Row]) -> str:
  """The table for a terminal."""
  heads = 'rooms', 'demos', 'slip', 'method', 'setting', 'median', '40-60%'
  heads = (*heads, '90% of median', 'capped', 'p')
  lines = [heads]
  for row in rows:
    middle, interval = (
      '-'.join(f'{x:.0f}' for x in pair) for pair in (row.middle, row.interval)
    )
    lines.append(
      (
        str(row.task.rooms),
        str(row.task.demos or 'any'),
        f'{row.task.slip:g}',
        row.label,
        row.setting,
        f'{row.median:.0f}',
        middle,
        interval,
        str(row.capped),
        '-' if row.versus is None else f'{row.versus:.1g}',
      )
    )
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      text.ljust(w) for text, w in zip(line, widths, strict=True)
    ).rstrip()
    for line in lines
  )


def draw(rows: Sequence[Row], rooms: int, max_episodes: int) -> Any:
  """The slides' bar chart of one number of rooms: a matplotlib figure.

  Bars are medians, lines the 40% and 60% quantiles, crosses what was published
  (means, read off the figure).
  """
  from matplotlib import colormaps, figure

  here = [row for row in rows if row.task.rooms == rooms]
  labels = list(dict.fromkeys(row.label for row in here))
  demos = sorted({row.task.demos for row in here if row.task.demos})
  drawn = figure.Figure(figsize=(9, 4.2), layout='constrained')
  axis = drawn.subplots()
  width = 0.84 / max(len(labels), 1)
  for i, label in enumerate(labels):
    mine = [row for row in here if row.label == label]
    colour = colormaps['tab10'](i)
    if not mine[0].task.demos:
      axis.axhline(mine[0].median, color=colour, linestyle='--', label=label)
      continue
    x = [demos.index(row.task.demos) + (i + 0.5) * width - 0.42 for row in mine]
    median = [row.median for row in mine]
    error = np.abs(np.array([row.middle for row in mine]).T - median)
    axis.bar(x, median, width, color=colour, label=label, yerr=error)
    published = PUBLISHED.get((rooms, mine[0].task.method))
    if published:
      known = [
        published[DEMOS.index(row.task.demos)]
        if row.task.demos in DEMOS
        else None
        for row in mine
      ]
      points = [(a, b) for a, b in zip(x, known, strict=True) if b]
      axis.plot(*zip(*points, strict=True), 'kx', markersize=5)
  axis.axhline(max_episodes, color='0.7', linewidth=0.8)
  axis.set(
    yscale='log',
    ylabel='episodes until the bar',
    xlabel=f'demonstrations of the {WORDS[rooms]} rooms environment',
    xticks=range(len(demos)),
    xticklabels=demos,
  )
  axis.legend(fontsize=8, ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1))
  return drawn


def draw_slip(rows: Sequence[Row], max_episodes: int) -> Any:
  """Medians over the slip, a panel for each kind of problem."""
  from matplotlib import colormaps, figure

  kinds = list(dict.fromkeys(row.task[:2] for row in rows if row.task.demos))
  labels = list(dict.fromkeys(row.label for row in rows))
  size = 4.2 * len(kinds), 3.8
  drawn = figure.Figure(figsize=size, layout='constrained')
  panels = drawn.subplots(1, len(kinds), squeeze=False)[0]
  for axis, (rooms, demos) in zip(panels, kinds, strict=True):
    for i, label in enumerate(labels):
      mine = [
        row
        for row in rows
        if row.label == label
        and row.task.rooms == rooms
        and row.task.demos in (demos, 0)
      ]
      slips = [row.task.slip for row in mine]
      low, high = np.array([row.middle for row in mine]).T
      colour = colormaps['tab10'](i)
      median = [row.median for row in mine]
      axis.plot(slips, median, 'o-', color=colour, label=label)
      axis.fill_between(slips, low, high, color=colour, alpha=0.25, lw=0)
    axis.axhline(max_episodes, color='0.7', linewidth=0.8)
    axis.set(
      title=f'{WORDS[rooms]} rooms, {demos} demonstrations',
      xlabel='probability of a random step',
      ylabel='episodes until the bar',
      yscale='log',
    )
    axis.legend(fontsize=8)
  return drawn


def claims(cells: Sequence[Mapping[str, Any]], variant: str) -> list[Claim]:
  """What the sweep says: of each problem, by how much Align-RUDDER leads."""
  found = by_task(cells)
  if variant == 'official':
    return _official_claims(found)
  return [
    claim
    for task in found
    if task.method == 'align_rudder'
    for claim in _leads(found, task)
  ]


def _leads(found: Mapping[Task, Mapping[str, Any]], align: Task) -> list[Claim]:
  """Over BC+Q, and over the best of all that do not align."""
  rooms, demos, slip = align[:3]
  ours = found[align]['episodes']
  others = {
    task.method: np.array(cell['episodes'])
    for task, cell in found.items()
    if (task.rooms, task.slip) == (rooms, slip)
    and task.demos in (demos, 0)
    and not task.method.startswith('align')
  }
  where = f'{WORDS[rooms]} rooms, {demos} demonstrations'
  if slip != SLIP:
    where += f', slip {slip:g}'
  told = []
  if 'bc_q' in others:
    ratio, interval = statistics.median_ratio(others['bc_q'], ours)
    told.append(
      at_least(
        f'{where}: episodes of BC+Q, in those of Align-RUDDER',
        ratio,
        2.0 if (rooms, demos, slip) == (8, 2, SLIP) else 1.0,
        interval=interval,
        baseline=1.0,
        baseline_name='no difference',
        paper=_published_ratio(rooms, demos) if slip == SLIP else None,
      )
    )
  if set(others) - {'bc_q'}:
    best = min(others, key=lambda name: np.median(others[name]))
    ratio, interval = statistics.median_ratio(others[best], ours)
    told.append(
      at_least(
        f'{where}: episodes of the best other method, in those of Align-RUDDER',
        ratio,
        1.0,
        interval=interval,
        baseline=1.0,
        baseline_name=f'no difference; the best other is {METHODS[best].label}',
      )
    )
  return told


def _official_claims(found: Mapping[Task, Mapping[str, Any]]) -> list[Claim]:
  told = []
  for demos, bar, paper in ((100, 20, 'about 10'), (10, 800, 'about 800')):
    if cell := found.get(Task(4, demos, SLIP, 'align_rudder', 0.1)):
      name = f'four rooms, {demos} demonstrations: episodes of Align-RUDDER'
      median = float(np.median(cell['episodes']))
      told.append(at_most(name, median, bar, paper=paper))
  for demos, paper in ((10, 3900), (2, 8700)):
    if cell := found.get(Task(4, demos, SLIP, 'bc_q', 0.01)):
      median = float(np.median(cell['episodes']))
      told.append(
        Claim(
          f'four rooms, {demos} demonstrations: episodes of BC+Q at rate 0.01',
          median,
          paper=f'{paper} in a port of the published code',
          bar=f'{paper // 2} to {paper * 2}',
          met=paper / 2 <= median <= paper * 2,
        )
      )
  return told


def _published_ratio(rooms: int, demos: int) -> float | None:
  if demos not in DEMOS:
    return None
  clone, align = (
    PUBLISHED[rooms, name][DEMOS.index(demos)]
    for name in ('bc_q', 'align_rudder')
  )
  return round(clone / align, 1) if clone and align else None
