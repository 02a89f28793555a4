"""Compares Align-RUDDER with seven other methods, all under the same rules.

Four rooms and eight rooms, with 2 to 100 demonstrations: how many episodes does
a method need until its mean return reaches the bar? The bar is 0.8 times what
can be attained at all (by dynamic programming), it must be reached in 20
episodes and again in 100 fresh ones, and it is the same for all. So are the
table to begin with, the demonstrations of a seed, the exploration, and the
search for a learning rate: every method gets the one of the grid that does best
on seeds 0-9, and is then run once on seeds 100-199. Runs that reach the cap
count as the cap.

--variant=official is another question: do we get the published curves? The
rooms are as published, with their bugs, and so are learning rates and bars (0.8
times the mean return of the demonstrations, the first crossing counts). Each
method is run as published; BC+Q also at the learning rate of Align-RUDDER.

Each finished cell is kept in --workdir; the same command goes on where it
stopped. It ends with a table, two bar charts, report.html and summary.json.

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

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.envs.rooms import Episodes, Rooms
from dl_lectures.nets import recurrent
from dl_lectures.ops import redistribution
from dl_lectures.systems import align_rudder
from dl_lectures.training import checkpoint, progress, report, tabular
from dl_lectures.training.loop import check_writable
from dl_lectures.types import Array, Claim, Key, UsageError, at_least, at_most
from experiments import tool

DEMOS = (2, 5, 10, 50, 100)
# Every number of demonstrations is repeated to this many: one shape for all.
_MOST_DEMOS = 100
LEARNING_RATES = (0.015, 0.03, 0.06, 0.12, 0.25, 0.5)
# As published: the redistributed rewards of so many steps are summed.
_WINDOW = 20
# Of which the history remembers the set that has happened: 2^8 codes.
_MAX_EVENTS = 8
# Passes of DQfD over the demonstrations before the first episode.
_PASSES = 20
# Of the return predictor, as published.
_LSTM_UNITS, _LSTM_UPDATES, _LSTM_BATCH = 16, 1000, 8
_FIRST_REPORT_SEED = 100
_BAR = 0.8

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
  slip: float = 0.01
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


class Entry(NamedTuple):
  """A method of the comparison.

  Attributes:
    label: in tables and figures.
    build: (rooms, prepared, table [C, 4], learning rate) -> what is learnt.
    prepare: (rooms, demos, key) -> what `build` gets; of one seed.
    needs_demos: whether it looks at demonstrations at all.
  """

  label: str
  build: Callable[[Rooms, Prepared, Array, Array], tabular.Method]
  prepare: Callable[[Rooms, Episodes, Key], Prepared]
  needs_demos: bool = True


def _prepare_demos(rooms: Rooms, demos: Episodes, key: Key) -> Prepared:
  del rooms, key
  return Prepared(_repeat(demos))


def _prepare_events(rooms: Rooms, demos: Episodes, key: Key) -> Prepared:
  del key
  knowledge, _ = align_rudder.understand(
    demos, rooms.num_states, max_events=_MAX_EVENTS
  )
  return Prepared(_repeat(demos), knowledge=knowledge)


def _prepare_predictor(rooms: Rooms, demos: Episodes, key: Key) -> Prepared:
  """Fits the LSTM to the demonstrations and as many random episodes."""
  play_key, fit_key = jax.random.split(key)
  at_random = np.full((rooms.num_states, 4), 0.25)
  lost = rooms_lib.play(rooms, at_random, play_key, len(demos.state))
  both = jax.tree.map(
    lambda x, y: jnp.concatenate([x, y]), _repeat(demos), _repeat(lost)
  )
  return Prepared(
    _repeat(demos), params=_fit(rooms_lib.features(rooms), both, fit_key)
  )


def _repeat(demos: Episodes) -> Episodes:
  number = np.arange(_MOST_DEMOS) % len(demos.state)
  return jax.tree.map(lambda x: np.asarray(x)[number], demos)


def _cloned(rooms: Rooms, given: Prepared, table: Array) -> tabular.Method:
  del rooms
  return tabular.Method(tabular.clone(table, given.demos))


def _q_learning(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rooms, given, rate
  return tabular.Method(table)


def _bc_q(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rate
  return _cloned(rooms, given, table)


def _dqfd(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rooms
  return tabular.Method(
    tabular.rehearse(table, given.demos, rate, _PASSES),
    after=tabular.replay(given.demos),
  )


def _shaping(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rate
  potential = tabular.progress(given.demos, rooms.num_states)
  return _cloned(rooms, given, table)._replace(potential=potential)


def _credited(
  rooms: Rooms, given: Prepared, table: Array, credit: tabular.Credit
) -> tabular.Method:
  """All redistributions learn in the same way: what is paid soon is summed."""
  after = tabular.redistributed(credit, _WINDOW, bootstrap=False)
  return _cloned(rooms, given, table)._replace(online=False, after=after)


def _uniform(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rate
  return _credited(rooms, given, table, tabular.uniform_credit)


def _rudder(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rate
  features = rooms_lib.features(rooms)

  def predict(batch: redistribution.Trajectory) -> Array:
    seen = _encode(features, batch.observation, batch.action)
    return _predictor().apply(given.params, seen)

  def credit(
    states: Array, actions: Array, rewards: Array, mask: Array
  ) -> Array:
    one = redistribution.Trajectory(states[:-1], actions, rewards, mask)
    batch = jax.tree.map(lambda x: x[None], one)
    return redistribution.redistribute(
      batch, predict, correction='uniform'
    ).reward[0]

  return _credited(rooms, given, table, credit)


def _remembering(given: Prepared, method: tabular.Method) -> tabular.Method:
  """The method with the set of events that have happened in its state."""
  history, codes = tabular.visited(given.knowledge.event, _MAX_EVENTS)
  table = jnp.repeat(method.table, codes, axis=1)
  return method._replace(history=history, table=table)


def _history(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rate
  return _remembering(given, _cloned(rooms, given, table))


def _align_rudder(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  method = _align_without_history(rooms, given, table, rate)
  return _remembering(given, method)


def _align_without_history(
  rooms: Rooms, given: Prepared, table: Array, rate: Array
) -> tabular.Method:
  del rate
  credit = align_rudder.credit(given.knowledge)
  return _credited(rooms, given, table, credit)


METHODS: Mapping[str, Entry] = {
  'align_rudder': Entry('Align-RUDDER', _align_rudder, _prepare_events),
  'align_no_history': Entry(
    'Align-RUDDER, no history', _align_without_history, _prepare_events
  ),
  'rudder': Entry('RUDDER (LSTM)', _rudder, _prepare_predictor),
  'bc_q': Entry('BC+Q', _bc_q, _prepare_demos),
  'dqfd': Entry('DQfD-style', _dqfd, _prepare_demos),
  'uniform': Entry('uniform redistribution', _uniform, _prepare_demos),
  'shaping': Entry('shaping', _shaping, _prepare_demos),
  'history': Entry('BC+Q with history', _history, _prepare_events),
  'q_learning': Entry('Q-learning', _q_learning, _prepare_demos, False),
}


@functools.cache
def _predictor() -> hk.Transformed:
  """RUDDER's return predictor: [B, T, F] -> [B, T]."""

  def forward(sequence: Array) -> Array:
    memory = recurrent.LSTM(_LSTM_UNITS, recurrent.RUDDER)(sequence)
    return hk.Linear(1)(memory)[..., 0]

  return hk.without_apply_rng(hk.transform(forward))


def _encode(features: np.ndarray, states: Array, actions: Array) -> Array:
  """[..., F]: row, column, room and action, each one-hot, of length 1."""
  acted = jax.nn.one_hot(actions, 4)
  seen = jnp.concatenate([jnp.asarray(features)[states], acted], -1)
  return seen / 2


@jax.jit
def _fit(features: np.ndarray, episodes: Episodes, key: Key) -> hk.Params:
  """Mean squared error of the last prediction, and half of that of all."""
  net, optimizer = _predictor(), optax.adamw(1e-2, weight_decay=1e-5)
  init_key, draw_key = jax.random.split(key)
  sequence = _encode(features, episodes.state[:, :-1], episodes.action)
  total = episodes.reward.sum(1)
  params = net.init(init_key, sequence[:1])
  last = episodes.mask.sum(1) - 1

  def loss(params: hk.Params, number: Array) -> Array:
    mask = episodes.mask[number]
    predicted = net.apply(params, sequence[number])
    error = jnp.square(predicted - total[number][:, None])
    final = jnp.take_along_axis(error, last[number][:, None], 1).mean()
    return final + 0.5 * (error * mask).sum() / mask.sum()

  def update(carry: Any, number: Array) -> tuple[Any, None]:
    params, opt_state = carry
    gradient = jax.grad(loss)(params, number)
    change, opt_state = optimizer.update(gradient, opt_state, params)
    return (optax.apply_updates(params, change), opt_state), None

  shape = _LSTM_UPDATES, _LSTM_BATCH
  numbers = jax.random.randint(draw_key, shape, 0, len(total))
  carry = params, optimizer.init(params)
  return jax.lax.scan(update, carry, numbers)[0][0]


class Task(NamedTuple):
  """One cell of the comparison: a method on one kind of problem.

  Attributes:
    rooms: how many.
    demos: how many.
    method: a name of METHODS.
    rates: the learning rates that it may have.
  """

  rooms: int
  demos: int
  method: str
  rates: tuple[float, ...]

  @property
  def name(self) -> str:
    """Of its file."""
    rate = f'-{self.rates[0]:g}' if len(self.rates) == 1 else ''
    return f'{self.rooms}-{self.demos}-{self.method}{rate}'


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
  methods: Sequence[str],
) -> list[Task]:
  """The cells of a sweep; what needs no demonstrations is one for all."""
  if variant == 'official':
    rows = [(name, (rate,)) for name, rate in _OFFICIAL if name in methods]
  else:
    rows = [(name, LEARNING_RATES) for name in METHODS if name in methods]
  return [
    Task(number, count, name, rates)
    for number in rooms
    for name, rates in rows
    for count in (demos if METHODS[name].needs_demos else (0,))
  ]


class Runner:
  """Runs the methods, and keeps what has been compiled."""

  def __init__(self, rules: Rules, rooms: Sequence[int]):
    """Makes the worlds of the sweep."""
    self._rules = rules
    self._worlds = {
      number: rooms_lib.make(number, rules.variant, rules.slip)
      for number in rooms
    }
    self._bars = {
      number: _BAR * rooms_lib.attainable(world)
      for number, world in self._worlds.items()
    }
    official = rules.variant == 'official'
    self._protocol = tabular.Protocol(
      max_episodes=rules.max_episodes,
      num_evaluations=40 if official else 20,
      num_confirmations=0 if official else 100,
    )
    self._compiled: dict[tuple[int, str], Any] = {}

  def run(
    self,
    task: Task,
    seeds: Sequence[int],
    rates: Sequence[float],
    tell: Callable[[int], None],
  ) -> np.ndarray:
    """Runs every rate on every seed.

    Args:
      task: the cell.
      seeds: S of them.
      rates: R learning rates.
      tell: called with the number of runs that are done.

    Returns:
      [S, R, 2] int: episodes, and whether the bar was reached.
    """
    one = functools.partial(self._run_seed, task, rates)
    found = [one(seeds[0])]  # alone, so that it compiles for all
    tell(len(rates))
    # Python waits while compiled code runs, so threads fill the cores.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      for row in pool.map(one, seeds[1:]):
        found.append(row)
        tell(len(rates))
    return np.array(found)

  def _run_seed(
    self, task: Task, rates: Sequence[float], seed: int
  ) -> list[tuple[int, bool]]:
    world, entry = self._worlds[task.rooms], METHODS[task.method]
    demos_key, table_key, learn_key, prepare_key = jax.random.split(
      jax.random.key(seed), 4
    )
    demos = rooms_lib.demonstrations(world, demos_key, max(task.demos, 1))
    given = entry.prepare(world, demos, prepare_key)
    bar = self._bars[task.rooms]
    if self._rules.variant == 'official':
      bar = _BAR * float(demos.reward.sum(1).mean())
    table = tabular.random_table(table_key, world.num_states)
    learn = self._learner(task.rooms, task.method)
    found = []
    for rate in rates:
      numbers = np.float32(rate), np.float32(bar)
      episodes, solved = learn(given, table, learn_key, *numbers)
      found.append((int(episodes), bool(solved)))
    return found

  def _learner(self, rooms: int, method: str) -> Any:
    """Compiled once for all numbers of demonstrations, rates and seeds."""
    if (rooms, method) not in self._compiled:
      world, build = self._worlds[rooms], METHODS[method].build

      def learn(
        given: Prepared, table: Array, key: Key, rate: Array, bar: Array
      ) -> tuple[Array, Array]:
        outcome = tabular.learn(
          world,
          build(world, given, table, rate),
          rate,
          key,
          bar,
          self._protocol,
        )
        return outcome.episodes, outcome.solved

      self._compiled[rooms, method] = jax.jit(learn)
    return self._compiled[rooms, method]


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
    What is written to the cell's file: rate, episodes of each seed, how many
    were capped, and the mean episodes of each rate while tuning.
  """
  start = time.monotonic()
  rate, tuning = task.rates[0], {}
  if len(task.rates) > 1:
    seeds = range(rules.tuning_seeds)
    found = runner.run(task, seeds, task.rates, tell)
    means = found[..., 0].mean(0)
    tuning = {
      f'{r:g}': float(m) for r, m in zip(task.rates, means, strict=True)
    }
    rate = task.rates[int(np.argmin(means))]
  seeds = range(rules.seed, rules.seed + rules.report_seeds)
  episodes, solved = runner.run(task, seeds, (rate,), tell)[:, 0].T
  return {
    **task._asdict(),
    'rate': rate,
    'tuning': tuning,
    'episodes': episodes.tolist(),
    'capped': int((solved == 0).sum()),
    'seconds': round(time.monotonic() - start, 1),
  }


def _num_runs(task: Task, rules: Rules) -> int:
  tuned = rules.tuning_seeds * len(task.rates) if len(task.rates) > 1 else 0
  return tuned + rules.report_seeds


class Row(NamedTuple):
  """A line of the table.

  Attributes:
    task: the cell.
    label: of the method.
    rate: its learning rate.
    median: of the episodes.
    middle: their 40% and 60% quantiles.
    interval: 90%, of the median, by the bootstrap.
    capped: how many runs never reached the bar.
    versus: two-sided p of the rank-sum test against Align-RUDDER; None for
      itself, and where it was not run.
  """

  task: Task
  label: str
  rate: float
  median: float
  middle: tuple[float, float]
  interval: tuple[float, float]
  capped: int
  versus: float | None


def summarise(cells: Sequence[Mapping[str, Any]]) -> list[Row]:
  """The table of some cells, as `run_cell` gives them."""
  from scipy import stats

  by_key = {(c['rooms'], c['demos'], c['method']): c for c in cells}
  rows = []
  for cell in cells:
    task = Task(*(cell[field] for field in Task._fields))
    episodes = np.array(cell['episodes'])
    align = by_key.get((task.rooms, task.demos, 'align_rudder'))
    versus = None
    if align is not None and align is not cell:
      test = stats.mannwhitneyu(align['episodes'], episodes)
      versus = float(test.pvalue)
    resampled = np.median(_resample(episodes), -1)
    low, median, high = np.quantile(episodes, (0.4, 0.5, 0.6))
    label = METHODS[task.method].label
    if len(task.rates) == 1:
      label += f', rate {cell["rate"]:g}'
    rows.append(
      Row(
        task,
        label,
        cell['rate'],
        float(median),
        (float(low), float(high)),
        tuple(np.quantile(resampled, (0.05, 0.95)).tolist()),
        cell['capped'],
        versus,
      )
    )
  return rows


def _resample(values: np.ndarray) -> np.ndarray:
  """[2000, N], drawn with replacement; always the same draws."""
  draw = np.random.default_rng(0)
  return values[draw.integers(len(values), size=(2000, len(values)))]


def table_text(rows: Sequence[Row]) -> str:
  """The table for a terminal."""
  heads = 'rooms', 'demos', 'method', 'rate', 'median', '40-60%'
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
        row.label,
        f'{row.rate:g}',
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


_WORDS = {4: 'four', 8: 'eight'}


def claims(cells: Sequence[Mapping[str, Any]], variant: str) -> list[Claim]:
  """What the sweep says: of each problem, by how much Align-RUDDER leads."""
  by_key = {
    (cell['rooms'], cell['demos'], cell['method'], cell['rate']): cell
    for cell in cells
  }
  if variant == 'official':
    return _official_claims(by_key)
  found = []
  for (rooms, demos, method, _), align in by_key.items():
    if method != 'align_rudder':
      continue
    others = {
      name: np.array(cell['episodes'])
      for (a, b, name, _), cell in by_key.items()
      if a == rooms and b in (demos, 0) and not name.startswith('align')
    }
    where = f'{_WORDS[rooms]} rooms, {demos} demonstrations: '
    if 'bc_q' in others:
      ratio, interval = _ratio(others['bc_q'], align['episodes'])
      bar = 2.0 if (rooms, demos) == (8, 2) else 1.0
      found.append(
        at_least(
          f'{where}episodes of BC+Q, in those of Align-RUDDER',
          ratio,
          bar,
          interval=interval,
          baseline=1.0,
          baseline_name='no difference',
          paper=_published_ratio(rooms, demos),
        )
      )
    if others:
      best = min(others, key=lambda name: np.median(others[name]))
      ratio, interval = _ratio(others[best], align['episodes'])
      found.append(
        at_least(
          f'{where}episodes of the best other method, in those of Align-RUDDER',
          ratio,
          1.0,
          interval=interval,
          baseline=1.0,
          baseline_name=f'no difference; the best other is '
          f'{METHODS[best].label}',
        )
      )
  return found


def _official_claims(by_key: Mapping[Any, Mapping[str, Any]]) -> list[Claim]:
  found = []
  for demos, bar, paper in ((100, 20, 'about 10'), (10, 800, 'about 800')):
    if cell := by_key.get((4, demos, 'align_rudder', 0.1)):
      name = f'four rooms, {demos} demonstrations: episodes of Align-RUDDER'
      median = float(np.median(cell['episodes']))
      found.append(at_most(name, median, bar, paper=paper))
  for demos, paper in ((10, 3900), (2, 8700)):
    if cell := by_key.get((4, demos, 'bc_q', 0.01)):
      median = float(np.median(cell['episodes']))
      found.append(
        Claim(
          f'four rooms, {demos} demonstrations: episodes of BC+Q at rate 0.01',
          median,
          paper=f'{paper} in a port of the published code',
          bar=f'{paper // 2} to {paper * 2}',
          met=paper / 2 <= median <= paper * 2,
        )
      )
  return found


def _published_ratio(rooms: int, demos: int) -> float | None:
  if demos not in DEMOS:
    return None
  clone, align = (
    PUBLISHED[rooms, name][DEMOS.index(demos)]
    for name in ('bc_q', 'align_rudder')
  )
  return round(clone / align, 1) if clone and align else None


def _ratio(
  more: Sequence[int] | np.ndarray, fewer: Sequence[int] | np.ndarray
) -> tuple[float, tuple[float, float]]:
  """Of the medians, with its 95% interval by the bootstrap."""
  more, fewer = np.asarray(more), np.asarray(fewer)
  # Other draws for the other method: their seeds are paired, resamples not.
  ratios = np.median(_resample(more), -1) / np.median(
    _resample(fewer)[::-1], -1
  )
  low, high = np.quantile(ratios, (0.025, 0.975))
  return float(np.median(more) / np.median(fewer)), (float(low), float(high))


def sweep(
  workdir: str,
  variant: str,
  rooms: tuple[int, ...],
  demos: tuple[int, ...],
  methods: tuple[str, ...],
  tuning_seeds: int,
  report_seeds: int,
  max_episodes: int,
  slip: float,
  results: str,
) -> None:
  """Runs what is missing in the workdir, and tells the result of all."""
  rules = Rules(
    variant=variant,
    tuning_seeds=tuning_seeds,
    report_seeds=report_seeds,
    max_episodes=max_episodes,
    slip=slip,
  )
  todo = tasks(variant, rooms, demos, methods or tuple(METHODS))
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
  cells = _run_all(rules, rooms, todo, directory)

  rows = summarise(cells)
  text = table_text(rows)
  print(text)
  pathlib.Path(workdir, 'table.txt').write_text(text + '\n')
  figures = {}
  for number in rooms:
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
  rules: Rules, rooms: Sequence[int], todo: Sequence[Task], directory: Any
) -> list[dict[str, Any]]:
  """The cells, from their files or run now, in order."""
  paths = [directory / f'{task.name}.json' for task in todo]
  sizes = [_num_runs(task, rules) for task in todo]
  missing = [not path.exists() for path in paths]
  done = sum(n for n, m in zip(sizes, missing, strict=True) if not m)
  bar = progress.Progress(sum(sizes), done)
  runner = Runner(rules, rooms)
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
        f'{task.name}: rate {cell["rate"]:g}, median {median:.0f} episodes, '
        f'{cell["capped"]} capped, {cell["seconds"]:.0f} s'
      )
  bar.close()
  return [json.loads(path.read_text()) for path in paths]


def _plain(row: Row) -> dict[str, Any]:
  rest = row._asdict()
  task = rest.pop('task')
  return {'rooms': task.rooms, 'demos': task.demos} | rest


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
      tool.Flag('slip', 'probability of a random step', 0.01, _probability),
      tool.Flag('results', 'a JSON file for the claims; none by default', ''),
    ),
    examples=(
      '--results=results/align_rudder_sweep.json',
      '--rooms=4 --demos=2,10 --report_seeds=10 --workdir=/tmp/small',
      '--variant=official --max_episodes=40000 --workdir=runs/official',
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
