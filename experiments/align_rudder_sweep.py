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

import concurrent.futures
import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dl_lectures.analysis import statistics
from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.envs.rooms import Episodes, Rooms
from dl_lectures.systems import align_rudder
from dl_lectures.training import (
  checkpoint,
  progress,
  report,
  tabular,
  tabular_methods,
)
from dl_lectures.training.loop import check_writable
from dl_lectures.types import Array, Claim, Key, UsageError, at_least, at_most
from experiments import tool

DEMOS = (2, 5, 10, 50, 100)
# Every number of demonstrations is repeated to this many: one shape for all.
_MOST_DEMOS = 100
LEARNING_RATES = (0.015, 0.03, 0.06, 0.12, 0.25, 0.5)
# First values over what a failure is worth; None: N(1, .5), as published.
OPTIMISMS = (None, 0.01, 0.04, 0.16)
# Of the search for settings: seeds that all pairs run on, pairs that go on, and
# the most episodes of a run.
_FIRST_SEEDS, _FINALISTS, _TUNING_EPISODES = 2, 6, 2_000
# Of which the history remembers the set that has happened: 2^8 codes.
_MAX_EVENTS = 8
_FIRST_REPORT_SEED = 100
_BAR = 0.8
_SLIP = 0.01

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """What all cells of a workdir have in common."""

  variant: str = 'paper'
  tuning_seeds: int = 10
  report_seeds: int = 100
  max_episodes: int = 5_000
  seed: int = _FIRST_REPORT_SEED  # the first of those reported


class Prepared(NamedTuple):
  """What a method is given for one seed, besides the rooms: arrays only.

  Attributes:
    demos: 100 episodes, those that there are again and again.
    knowledge: of Align-RUDDER, what the demonstrations have in common.
    params: of RUDDER's return predictor.
  """

  demos: Episodes
  knowledge: Any = None
  params: Any = None


class Start(NamedTuple):
  """What a run begins with.

  Attributes:
    table: [C, 1, 4], first values.
    rate: of learning.
    published: whether demonstrations are cloned as published.
  """

  table: Array
  rate: Array
  published: bool


class Entry(NamedTuple):
  """A method of the comparison.

  Attributes:
    label: in tables and figures.
    build: what is learnt how.
    prepare: (rooms, demos, key) -> what `build` gets; of one seed.
    failed: what a failed episode is worth in the unit of what is learnt.
    needs_demos: whether it looks at demonstrations at all.
  """

  label: str
  build: Callable[[Rooms, Prepared, Start], tabular.Method]
  prepare: Callable[[Rooms, Episodes, Key], Prepared]
  failed: float = tabular_methods.FAILED_RETURN
  needs_demos: bool = True


def _repeat(rooms: Rooms, demos: Episodes, key: Key) -> Prepared:
  del rooms, key
  number = np.arange(_MOST_DEMOS) % len(demos.state)
  return Prepared(jax.tree.map(lambda x: np.asarray(x)[number], demos))


def _understand(rooms: Rooms, demos: Episodes, key: Key) -> Prepared:
  knowledge, _ = align_rudder.understand(
    demos, rooms.num_states, max_events=_MAX_EVENTS
  )
  return _repeat(rooms, demos, key)._replace(knowledge=knowledge)


def _predict(rooms: Rooms, demos: Episodes, key: Key) -> Prepared:
  given = _repeat(rooms, demos, key)
  params = tabular_methods.fit_predictor(rooms, given.demos, key)
  return given._replace(params=params)


def _credited(
  given: Prepared, start: Start, credit: tabular.Credit
) -> tabular.Method:
  return tabular_methods.credited(
    start.table, given.demos, credit, clone_returns=start.published
  )


def _aligned(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
  del rooms
  return _credited(given, start, align_rudder.credit(given.knowledge))


def _predicted(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
  credit = tabular_methods.predicted_credit(rooms, given.params)
  return _credited(given, start, credit)


def _uniform(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
  del rooms
  return _credited(given, start, tabular.uniform_credit)


def _cloned(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
  del rooms
  return tabular_methods.cloned(start.table, given.demos)


def _shaped(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
  del rooms
  return tabular_methods.shaped(start.table, given.demos)


def _rehearsed(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
  del rooms
  return tabular_methods.rehearsed(start.table, given.demos, start.rate)


def _q_learning(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
  del rooms, given
  return tabular_methods.q_learning(start.table)


def _remembering(build: Callable[..., tabular.Method]):
  """The same with the set of events that have happened in its state."""

  def built(rooms: Rooms, given: Prepared, start: Start) -> tabular.Method:
    event = given.knowledge.event
    method = build(rooms, given, start)
    return tabular_methods.remembering(method, event, _MAX_EVENTS)

  return built


_WINDOW = tabular_methods.FAILED_WINDOW
METHODS: Mapping[str, Entry] = {
  'align_rudder': Entry(
    'Align-RUDDER', _remembering(_aligned), _understand, _WINDOW
  ),
  'align_no_history': Entry(
    'Align-RUDDER, no history', _aligned, _understand, _WINDOW
  ),
  'rudder': Entry('RUDDER (LSTM)', _predicted, _predict, _WINDOW),
  'bc_q': Entry('BC+Q', _cloned, _repeat),
  'dqfd': Entry('DQfD-style', _rehearsed, _repeat),
  'uniform': Entry('uniform redistribution', _uniform, _repeat, _WINDOW),
  'shaping': Entry('shaping', _shaped, _repeat),
  'history': Entry('BC+Q with history', _remembering(_cloned), _understand),
  'q_learning': Entry('Q-learning', _q_learning, _repeat, needs_demos=False),
}


class Setting(NamedTuple):
  """What is tuned.

  Attributes:
    rate: of learning.
    optimism: one of OPTIMISMS.
  """

  rate: float
  optimism: float | None

  @property
  def text(self) -> str:
    """For tables and files."""
    first = 'N(1, .5)' if self.optimism is None else f'+{self.optimism:g}'
    return f'{self.rate:g} {first}'


class Task(NamedTuple):
  """One cell of the comparison: a method on one kind of problem.

  Attributes:
    rooms: how many.
    demos: how many.
    slip: the probability that a step is a random one.
    method: a name of METHODS.
    rate: of learning, as published; None: tuned.
  """

  rooms: int
  demos: int
  slip: float
  method: str
  rate: float | None = None

  @property
  def name(self) -> str:
    """Of its file."""
    rate = f'-{self.rate:g}' if self.rate else ''
    slip = f'-slip_{self.slip:g}' if self.slip != _SLIP else ''
    return f'{self.rooms}-{self.demos}{slip}-{self.method}{rate}'

  @property
  def settings(self) -> list[Setting]:
    """Those that it may have."""
    if self.rate:
      return [Setting(self.rate, None)]
    return [Setting(r, o) for o in OPTIMISMS for r in LEARNING_RATES]


# Published learning rates, and BC+Q at that of Align-RUDDER.
_OFFICIAL = (
  ('align_rudder', 0.1),
  ('bc_q', 0.01),
  ('bc_q', 0.1),
  ('dqfd', 0.01),
  ('rudder', 0.01),
)


def tasks(
  variant: str,
  rooms: Sequence[int],
  demos: Sequence[int],
  slips: Sequence[float],
  methods: Sequence[str],
) -> list[Task]:
  """The cells of a sweep; what needs no demonstrations is one for all."""
  if variant == 'official':
    rows = [(name, rate) for name, rate in _OFFICIAL if name in methods]
  else:
    rows = [(name, None) for name in METHODS if name in methods]
  return [
    Task(number, count, slip, name, rate)
    for number in rooms
    for slip in slips
    for name, rate in rows
    for count in (demos if METHODS[name].needs_demos else (0,))
  ]


class Runner:
  """Runs the methods, and keeps what has been compiled."""

  def __init__(self, rules: Rules):
    """Has made no world yet."""
    self._rules = rules
    self._official = rules.variant == 'official'
    self._protocol = tabular.Protocol(
      max_episodes=rules.max_episodes,
      num_evaluations=40 if self._official else 20,
      num_confirmations=0 if self._official else 100,
    )
    self._world = functools.cache(self._make_world)
    self._learner = functools.cache(self._make_learner)

  def run(
    self,
    task: Task,
    seeds: Sequence[int],
    settings: Sequence[Setting],
    max_episodes: int,
    tell: Callable[[int], None],
  ) -> np.ndarray:
    """Runs every setting on every seed.

    Args:
      task: the cell.
      seeds: S of them.
      settings: K of them.
      max_episodes: the cap.
      tell: called with the number of runs that are done.

    Returns:
      [S, K, 3]: episodes, whether the bar was reached, and the mean return of
      the last evaluation.
    """
    one = functools.partial(self._run_seed, task, settings, max_episodes)
    found = [one(seeds[0])]  # alone, so that it compiles for all
    tell(len(settings))
    # Python waits while compiled code runs, so threads fill the cores.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      for row in pool.map(one, seeds[1:]):
        found.append(row)
        tell(len(settings))
    return np.array(found)

  def _make_world(self, rooms: int, slip: float) -> tuple[Rooms, float]:
    """The rooms, and the bar."""
    world = rooms_lib.make(rooms, self._rules.variant, slip)
    return world, _BAR * rooms_lib.attainable(world)

  def _run_seed(
    self,
    task: Task,
    settings: Sequence[Setting],
    max_episodes: int,
    seed: int,
  ) -> list[tuple[int, bool, float]]:
    (world, bar), entry = (
      self._world(task.rooms, task.slip),
      METHODS[task.method],
    )
    demos_key, table_key, learn_key, prepare_key = jax.random.split(
      jax.random.key(seed), 4
    )
    demos = rooms_lib.demonstrations(world, demos_key, max(task.demos, 1))
    given = jax.device_put(entry.prepare(world, demos, prepare_key))
    if self._official:
      bar = _BAR * float(demos.reward.sum(1).mean())
    drawn = tabular.random_table(table_key, world.num_states)
    learn = self._learner(task.rooms, task.slip, task.method)
    found = []
    for rate, optimism in settings:
      level, spread = 1.0, 0.5
      if optimism is not None:
        level, spread = entry.failed + optimism, optimism / 30
      numbers = np.array([rate, level, spread, bar], np.float32)
      cap = np.int32(max_episodes)
      episodes, solved, last = learn(given, drawn, learn_key, numbers, cap)
      found.append((int(episodes), bool(solved), float(last)))
    return found

  def _make_learner(self, rooms: int, slip: float, method: str) -> Any:
    """Compiled once for all numbers of demonstrations, settings and seeds."""
    world, build = self._world(rooms, slip)[0], METHODS[method].build

    @jax.jit
    def learn(
      given: Prepared, drawn: Array, key: Key, numbers: Array, cap: Array
    ) -> tuple[Array, Array, Array]:
      rate, level, spread, bar = numbers
      table = tabular_methods.first_values(drawn, level, spread)
      outcome = tabular.learn(
        world,
        build(world, given, Start(table, rate, self._official)),
        rate,
        key,
        bar,
        self._protocol,
        cap,
      )
      last = outcome.returns[outcome.episodes // self._protocol.block - 1]
      return outcome.episodes, outcome.solved, last

    return learn


def tune(
  run: Callable[..., np.ndarray],
  task: Task,
  rules: Rules,
  tell: Callable[[int], None],
) -> tuple[Setting, dict[str, float]]:
  """Searches for a setting, in two rounds.

  Args:
    run: `Runner.run`.
    task: the cell.
    rules: how many seeds.
    tell: called with the number of runs that are done.

  Returns:
    The setting of the fewest mean episodes, of equals that with the highest
    return at the end, and the mean episodes of all that got into the second
    round.
  """
  settings, cap = task.settings, min(rules.max_episodes, _TUNING_EPISODES)
  if len(settings) == 1:
    return settings[0], {}
  first = min(_FIRST_SEEDS, rules.tuning_seeds)
  found = run(task, range(first), settings, cap, tell)
  best = _ranked(found)[:_FINALISTS]
  settings, found = [settings[i] for i in best], found[:, best]
  if first < rules.tuning_seeds:
    seeds = range(first, rules.tuning_seeds)
    more = run(task, seeds, settings, cap, tell)
    found = np.concatenate([found, more])
  means = found[..., 0].mean(0).tolist()
  told = {s.text: m for s, m in zip(settings, means, strict=True)}
  return settings[_ranked(found)[0]], told


def _ranked(found: np.ndarray) -> list[int]:
  """The settings, the best one first; of `Runner.run`."""
  episodes, _, last = np.moveaxis(found.mean(0), -1, 0)
  return np.lexsort((-last, episodes)).tolist()


def run_cell(
  runner: Runner, task: Task, rules: Rules, tell: Callable[[int], None]
) -> dict[str, Any]:
  """Tunes a method on its own seeds, and runs it once on others.

  Args:
    runner: of the rules.
    task: the cell.
    rules: how many seeds.
    tell: called with the number of runs that are done.

  Returns:
    What is written to the cell's file: the task, the setting, the episodes of
    each seed, how many were capped, and the mean episodes while tuning.
  """
  start, cpu = time.monotonic(), time.process_time()
  setting, tuning = tune(runner.run, task, rules, tell)
  seeds = range(rules.seed, rules.seed + rules.report_seeds)
  found = runner.run(task, seeds, (setting,), rules.max_episodes, tell)[:, 0]
  return {
    'task': task._asdict(),
    'setting': setting._asdict(),
    'tuning': tuning,
    'episodes': found[:, 0].astype(int).tolist(),
    'capped': int((found[:, 1] == 0).sum()),
    'seconds': round(time.monotonic() - start, 1),
    'cpu_seconds': round(time.process_time() - cpu, 1),
  }


def _num_runs(task: Task, rules: Rules) -> int:
  pairs = len(task.settings)
  if pairs == 1:
    return rules.report_seeds
  first = min(_FIRST_SEEDS, rules.tuning_seeds)
  later = rules.tuning_seeds - first
  return pairs * first + _FINALISTS * later + rules.report_seeds


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
    xlabel=f'demonstrations of the {_WORDS[rooms]} rooms environment',
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
      title=f'{_WORDS[rooms]} rooms, {demos} demonstrations',
      xlabel='probability of a random step',
      ylabel='episodes until the bar',
      yscale='log',
    )
    axis.legend(fontsize=8)
  return drawn


_WORDS = {4: 'four', 8: 'eight'}


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
  where = f'{_WORDS[rooms]} rooms, {demos} demonstrations'
  if slip != _SLIP:
    where += f', slip {slip:g}'
  told = []
  if 'bc_q' in others:
    ratio, interval = statistics.median_ratio(others['bc_q'], ours)
    told.append(
      at_least(
        f'{where}: episodes of BC+Q, in those of Align-RUDDER',
        ratio,
        2.0 if (rooms, demos, slip) == (8, 2, _SLIP) else 1.0,
        interval=interval,
        baseline=1.0,
        baseline_name='no difference',
        paper=_published_ratio(rooms, demos) if slip == _SLIP else None,
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
    if cell := found.get(Task(4, demos, _SLIP, 'align_rudder', 0.1)):
      name = f'four rooms, {demos} demonstrations: episodes of Align-RUDDER'
      median = float(np.median(cell['episodes']))
      told.append(at_most(name, median, bar, paper=paper))
  for demos, paper in ((10, 3900), (2, 8700)):
    if cell := found.get(Task(4, demos, _SLIP, 'bc_q', 0.01)):
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
  rules = Rules(
    variant=variant,
    tuning_seeds=tuning_seeds,
    report_seeds=report_seeds,
    max_episodes=max_episodes,
  )
  todo = tasks(variant, rooms, demos, slip, methods or tuple(METHODS))
  if not todo:
    names = dict.fromkeys(name for name, _ in _OFFICIAL)
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

  rows = summarise(cells)
  text = table_text(rows)
  print(text)
  pathlib.Path(workdir, 'table.txt').write_text(text + '\n')
  figures = {}
  if len(slip) > 1:
    report.save_figure(draw_slip(rows, max_episodes), workdir, 'slip')
    figures['slip'] = (
      f'Median episodes of {report_seeds} seeds, with 40% and 60% quantiles'
    )
  for number in rooms if len(slip) == 1 else ():
    name = f'{_WORDS[number]}_rooms'
    report.save_figure(draw(rows, number, max_episodes), workdir, name)
    figures[name] = (
      f'{_WORDS[number].capitalize()} rooms: median episodes of '
      f'{report_seeds} seeds, with 40% and 60% quantiles'
    )
  summary = report.write(
    workdir,
    title=f'Align-RUDDER compared, rooms as in {variant!r}',
    config=rules,
    claims=claims(cells, variant),
    metrics={f'{row.task.name}/median_episodes': row.median for row in rows},
    figures=figures,
    minutes=sum(cell['seconds'] for cell in cells) / 60,
  )
  print(report.to_text(summary))
  if results:
    pathlib.Path(results).parent.mkdir(parents=True, exist_ok=True)
    joined = report.aggregate([summary], report.command(), variant)
    seeds = range(rules.seed, rules.seed + report_seeds)
    joined |= {'seeds': list(seeds), 'table': [_plain(row) for row in rows]}
    _write(pathlib.Path(results), joined)
    for name in figures:
      picture = pathlib.Path(workdir, 'figures', f'{name}.png')
      target = pathlib.Path(results).with_suffix('')
      shutil.copyfile(picture, f'{target}_{name}.png')


def _run_all(
  rules: Rules, todo: Sequence[Task], directory: Any
) -> list[dict[str, Any]]:
  """The cells, from their files or run now, in order."""
  paths = [directory / f'{task.name}.json' for task in todo]
  sizes = [_num_runs(task, rules) for task in todo]
  missing = [not path.exists() for path in paths]
  done = sum(n for n, m in zip(sizes, missing, strict=True) if not m)
  bar = progress.Progress(sum(sizes), done)
  runner = Runner(rules)
  medians: dict[str, float] = {}

  def tell(count: int) -> None:
    nonlocal done
    done += count
    bar.update(done, medians)

  for task, path, absent in zip(todo, paths, missing, strict=True):
    if absent:
      cell = run_cell(runner, task, rules, tell)
      _write(path, cell)
      median = float(np.median(cell['episodes']))
      medians = {f'{task.name} median': median}
      progress.say(
        f'{task.name}: {Setting(**cell["setting"]).text}, median {median:.0f} '
        f'episodes, {cell["capped"]} capped, {cell["seconds"]:.0f} s, of the '
        f'CPU {cell["cpu_seconds"]:.0f}'
      )
  bar.close()
  return [json.loads(path.read_text()) for path in paths]


def _plain(row: Row) -> dict[str, Any]:
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
        f'numbers of demonstrations, 1 to {_MOST_DEMOS}',
        DEMOS,
        _list_of(count(1, _MOST_DEMOS)),
      ),
      tool.Flag(
        'methods',
        f'some of {", ".join(METHODS)}; all by default',
        (),
        _list_of(tool.one_of(*METHODS)),
      ),
      tool.Flag('tuning_seeds', 'to choose learning rates', 10, count(1, 100)),
      tool.Flag('report_seeds', 'from 100 on', 100, count(2, 10_000)),
      tool.Flag('max_episodes', 'the cap', 5_000, _tens),
      tool.Flag(
        'slip',
        'probabilities of a random step',
        (_SLIP,),
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
