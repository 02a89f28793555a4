"""A method in the rooms: its budget, how it is tuned, that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import rooms
from dl_lectures.training import tabular
from experiments import rooms_trial


def test_every_method_has_a_cell_of_its_own_file():
  every = tuple(rooms_trial.METHODS)
  todo = rooms_trial.tasks('paper', (4, 8), (2, 10), (0.01, 0.2), every)
  names = [task.name for task in todo]
  # Q-learning sees no demonstrations: it is one cell of each world.
  assert len(names) == len({*names}) == 2 * 2 * (2 * 8 + 1)
  assert '4-10-align_rudder' in names
  assert '8-0-slip_0.2-q_learning' in names
  assert len(every) == 9


def test_every_method_has_the_same_budget():
  every = tuple(rooms_trial.METHODS)
  todo = rooms_trial.tasks('paper', (4,), (2,), (0.01,), every)
  settings = todo[0].settings
  assert len({*settings}) == len(settings) == 24
  assert all(task.settings == settings for task in todo)
  # 24 on two seeds, six on eight more, one on those that are reported.
  rules = rooms_trial.Rules()
  assert {rooms_trial.num_runs(task, rules) for task in todo} == {48 + 48 + 100}


def test_the_published_rules_have_the_published_rates():
  every = tuple(rooms_trial.METHODS)
  todo = rooms_trial.tasks('official', (4,), (2,), (0.01,), every)
  assert [task.name for task in todo] == [
    '4-2-align_rudder-0.1',
    '4-2-bc_q-0.01',
    '4-2-bc_q-0.1',
    '4-2-dqfd-0.01',
    '4-2-rudder-0.01',
  ]
  assert todo[1].settings == [rooms_trial.Setting(0.01, None)]
  assert rooms_trial.num_runs(todo[1], rooms_trial.Rules()) == 100


class Table:
  """In place of a Runner: episodes and last returns of settings by seed."""

  def __init__(self, episodes, last=None):
    self.episodes, self.ran = episodes, []
    self.last = last or {}

  def run(self, task, seeds, settings, max_episodes, tell):
    del task
    self.ran.append((list(seeds), list(settings), max_episodes))
    tell(len(seeds) * len(settings))
    return np.array(
      [
        [(self.episodes(seed, s), 1, self.last.get(s, 0.0)) for s in settings]
        for seed in seeds
      ],
      float,
    )


def test_tuning_is_in_two_rounds():
  task = rooms_trial.Task(4, 2, 0.01, 'bc_q')
  good, lucky = task.settings[3], task.settings[20]

  def episodes(seed, setting):
    if setting == lucky:
      return 10 if seed < 2 else 2000
    return 100 if setting == good else 1000

  table, told = Table(episodes), []
  chosen, means = rooms_trial.tune(
    table.run, task, rooms_trial.Rules(), told.append
  )
  assert chosen == good
  assert means[good.text] == 100
  assert means[lucky.text] == (2 * 10 + 8 * 2000) / 10
  (seeds, first, cap), (more, second, _) = table.ran
  assert (seeds, len(first), cap) == ([0, 1], 24, 2000)
  assert (more, len(second)) == ([*range(2, 10)], 6)
  assert second[:2] == [lucky, good]
  assert sum(told) == 48 + 48


def test_of_equals_the_one_that_came_nearest_is_chosen():
  task = rooms_trial.Task(4, 2, 0.01, 'bc_q')
  near = task.settings[17]
  table = Table(lambda *_: 2000, {near: 1.5})
  assert (
    rooms_trial.tune(table.run, task, rooms_trial.Rules(), lambda _: None)[0]
    == near
  )


WORLD = rooms.make(4)
DEMOS = rooms.demonstrations(WORLD, jax.random.key(0), 2)


@pytest.mark.slow
@pytest.mark.parametrize('name', rooms_trial.METHODS)
def test_every_method_learns(name):
  entry = rooms_trial.METHODS[name]
  given = entry.prepare(WORLD, DEMOS, jax.random.key(1))
  table = tabular.random_table(jax.random.key(2), WORLD.num_states)
  protocol = tabular.Protocol(max_episodes=10)

  @jax.jit
  def run(given, table):
    start = rooms_trial.Start(table, jnp.float32(0.1), False)
    method = entry.build(WORLD, given, start)
    outcome = tabular.learn(
      WORLD, method, 0.1, jax.random.key(3), 99.0, protocol
    )
    return method.table, outcome.table

  before, after = run(given, table)
  assert np.isfinite(after).all()
  assert np.abs(np.asarray(after) - np.asarray(before)).max() > 0.01
  remembers = name in ('align_rudder', 'history')
  assert before.shape[1] == (256 if remembers else 1)
