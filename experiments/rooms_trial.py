"""One method in the rooms: tuned on some seeds, run once on others.

What `align_rudder_sweep` is made of: the methods (`METHODS`), what a cell of
the comparison is (`Task`), and how it is run (`run_cell`). All methods have the
same budget: 24 pairs of a learning rate and first values on two seeds, the best
six on the other tuning seeds too, the best one on the seeds that are reported.
"""

import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dl_lectures.envs import rooms as rooms_lib
from dl_lectures.envs.rooms import Episodes, Rooms
from dl_lectures.systems import align_rudder
from dl_lectures.training import tabular, tabular_methods
from dl_lectures.types import Array, Key

# Every number of demonstrations is repeated to this many: one shape for all.
MOST_DEMOS = 100
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
SLIP = 0.01


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
  number = np.arange(MOST_DEMOS) % len(demos.state)
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
    slip = f'-slip_{self.slip:g}' if self.slip != SLIP else ''
    return f'{self.rooms}-{self.demos}{slip}-{self.method}{rate}'

  @property
  def settings(self) -> list[Setting]:
    """Those that it may have."""
    if self.rate:
      return [Setting(self.rate, None)]
    return [Setting(r, o) for o in OPTIMISMS for r in LEARNING_RATES]


# Published learning rates, and BC+Q at that of Align-RUDDER.
OFFICIAL = (
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
    rows = [(name, rate) for name, rate in OFFICIAL if name in methods]
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


def num_runs(task: Task, rules: Rules) -> int:
  """How many runs `run_cell` makes."""
  pairs = len(task.settings)
  if pairs == 1:
    return rules.report_seeds
  first = min(_FIRST_SEEDS, rules.tuning_seeds)
  later = rules.tuning_seeds - first
  return pairs * first + _FINALISTS * later + rules.report_seeds
