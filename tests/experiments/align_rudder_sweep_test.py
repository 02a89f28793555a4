"""The comparison: cells, statistics, and a tiny sweep that goes on."""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import rooms
from dl_lectures.training import tabular
from dl_lectures.types import UsageError
from experiments import align_rudder_sweep as sweep

TINY: dict[str, Any] = {
  'variant': 'paper',
  'rooms': (4,),
  'demos': (2,),
  'methods': ('bc_q',),
  'tuning_seeds': 1,
  'report_seeds': 2,
  'max_episodes': 20,
  'slip': (0.01,),
  'results': '',
}


def cell_of(method, episodes, rooms=8, demos=2, rate=None, capped=0, slip=0.01):
  task = sweep.Task(rooms, demos, slip, method, rate)
  return {
    'task': task._asdict(),
    'setting': {'rate': rate or 0.1, 'optimism': None if rate else 0.04},
    'tuning': {},
    'episodes': list(episodes),
    'capped': capped,
    'seconds': 6.0,
    'cpu_seconds': 5.0,
  }


ALIGN = cell_of('align_rudder', range(10, 1010, 10))
CLONE = cell_of('bc_q', range(40, 4040, 40))
BEST = cell_of('dqfd', range(5, 505, 5), capped=3)


def test_every_method_has_a_cell_of_its_own_file():
  every = tuple(sweep.METHODS)
  todo = sweep.tasks('paper', (4, 8), (2, 10), (0.01, 0.2), every)
  names = [task.name for task in todo]
  # Q-learning sees no demonstrations: it is one cell of each world.
  assert len(names) == len({*names}) == 2 * 2 * (2 * 8 + 1)
  assert '4-10-align_rudder' in names
  assert '8-0-slip_0.2-q_learning' in names
  assert len(every) == 9


def test_every_method_has_the_same_budget():
  every = tuple(sweep.METHODS)
  todo = sweep.tasks('paper', (4,), (2,), (0.01,), every)
  settings = todo[0].settings
  assert len({*settings}) == len(settings) == 24
  assert all(task.settings == settings for task in todo)
  # 24 on two seeds, six on eight more, one on those that are reported.
  rules = sweep.Rules()
  assert {sweep._num_runs(task, rules) for task in todo} == {48 + 48 + 100}


def test_the_published_rules_have_the_published_rates():
  every = tuple(sweep.METHODS)
  todo = sweep.tasks('official', (4,), (2,), (0.01,), every)
  assert [task.name for task in todo] == [
    '4-2-align_rudder-0.1',
    '4-2-bc_q-0.01',
    '4-2-bc_q-0.1',
    '4-2-dqfd-0.01',
    '4-2-rudder-0.01',
  ]
  assert todo[1].settings == [sweep.Setting(0.01, None)]
  assert sweep._num_runs(todo[1], sweep.Rules()) == 100


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
  task = sweep.Task(4, 2, 0.01, 'bc_q')
  good, lucky = task.settings[3], task.settings[20]

  def episodes(seed, setting):
    if setting == lucky:
      return 10 if seed < 2 else 2000
    return 100 if setting == good else 1000

  table, told = Table(episodes), []
  chosen, means = sweep.tune(table.run, task, sweep.Rules(), told.append)
  assert chosen == good
  assert means[good.text] == 100
  assert means[lucky.text] == (2 * 10 + 8 * 2000) / 10
  (seeds, first, cap), (more, second, _) = table.ran
  assert (seeds, len(first), cap) == ([0, 1], 24, 2000)
  assert (more, len(second)) == ([*range(2, 10)], 6)
  assert second[:2] == [lucky, good]
  assert sum(told) == 48 + 48


def test_of_equals_the_one_that_came_nearest_is_chosen():
  task = sweep.Task(4, 2, 0.01, 'bc_q')
  near = task.settings[17]
  table = Table(lambda *_: 2000, {near: 1.5})
  assert sweep.tune(table.run, task, sweep.Rules(), lambda _: None)[0] == near


def test_the_table_has_the_quantiles_and_the_tests():
  align, clone, best = sweep.summarise([ALIGN, CLONE, BEST])
  assert (align.median, align.versus) == (505, None)
  np.testing.assert_allclose(align.middle, (406, 604))
  assert align.interval[0] < 505 < align.interval[1]
  assert align.interval[0] > 350
  assert align.interval[1] < 660
  assert clone.median == 4 * align.median
  assert clone.versus is not None
  assert clone.versus < 1e-10
  assert (best.label, best.capped) == ('DQfD-style', 3)
  lines = sweep.table_text([align, clone, best]).splitlines()
  assert lines[1].split()[:4] == ['8', '2', '0.01', 'Align-RUDDER']
  assert lines[1].split()[4:7] == ['0.1', '+0.04', '505']
  assert lines[3].split()[-2] == '3'


def test_equal_methods_are_not_told_apart():
  same = cell_of('bc_q', range(15, 1015, 10))
  _, row = sweep.summarise([ALIGN, same])
  assert row.versus is not None
  assert row.versus > 0.5


def test_claims_say_where_it_leads_and_where_not():
  lead, against_best = sweep.claims([ALIGN, CLONE, BEST], 'paper')
  assert lead.value == 4
  assert lead.bar == 2
  assert lead.met
  assert lead.interval is not None
  assert lead.interval[0] < 4 < lead.interval[1]
  assert lead.paper == 2.4  # 10,700 to 4,400
  assert against_best.value == 0.5
  assert not against_best.met
  assert 'DQfD' in against_best.baseline_name


def test_claims_know_the_slip():
  cells = [
    cell_of('align_rudder', [100] * 3, slip=0.2),
    cell_of('bc_q', [300] * 3, slip=0.2),
    cell_of('bc_q', [500] * 3, slip=0.4),
  ]
  (claim,) = sweep.claims(cells, 'paper')
  assert claim.value == 3
  assert (claim.bar, claim.paper) == (1, None)
  assert 'slip 0.2' in claim.name


def test_the_slip_is_drawn():
  cells = [
    cell_of(method, [10 * (i + 1)] * 3, slip=slip)
    for method in ('align_rudder', 'bc_q')
    for i, slip in enumerate((0.01, 0.2))
  ]
  (axis,) = sweep.draw_slip(sweep.summarise(cells), 5000).axes
  lines = [line for line in axis.lines if len(line.get_xdata()) == 2]
  assert lines[0].get_xdata().tolist() == [0.01, 0.2]
  assert lines[0].get_ydata().tolist() == [10, 20]


def test_official_claims_are_about_published_numbers():
  cells = [
    cell_of('align_rudder', [10] * 4, rooms=4, demos=100, rate=0.1),
    cell_of('align_rudder', [900] * 4, rooms=4, demos=10, rate=0.1),
    cell_of('bc_q', [5000] * 4, rooms=4, demos=10, rate=0.01),
    cell_of('bc_q', [100] * 4, rooms=4, demos=2, rate=0.01),
  ]
  found = sweep.claims(cells, 'official')
  assert [claim.met for claim in found] == [True, False, True, False]


def test_the_chart_has_a_bar_of_each_cell():
  rows = sweep.summarise([ALIGN, CLONE, BEST])
  rows += sweep.summarise([cell_of('q_learning', [5000] * 3, demos=0)])
  axis = sweep.draw(rows, 8, 5000).axes[0]
  heights = [patch.get_height() for patch in axis.patches]
  assert heights == [505, 2020, 252.5]
  assert axis.get_yscale() == 'log'


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sweep')
  results = str(folder / 'results' / 'rooms.json')
  sweep.sweep(workdir=str(folder / 'run'), **(TINY | {'results': results}))
  return folder


def test_a_sweep_leaves_all_that_is_promised(swept):
  cell = json.loads((swept / 'run/cells/4-2-bc_q.json').read_text())
  assert len(cell['tuning']) == 6
  assert cell['setting']['rate'] in sweep.LEARNING_RATES
  assert cell['setting']['optimism'] in sweep.OPTIMISMS
  assert len(cell['episodes']) == 2
  assert max(cell['episodes']) <= 20
  for name in ('figures/four_rooms.png', 'report.html', 'table.txt'):
    assert (swept / 'run' / name).stat().st_size > 100
  results = json.loads((swept / 'results/rooms.json').read_text())
  assert results['seeds'] == [100, 101]
  assert results['table'][0]['label'] == 'BC+Q'
  assert (swept / 'results/rooms_four_rooms.png').exists()


def test_a_finished_cell_is_not_run_again(swept, monkeypatch, capsys):
  def refuse(*_):
    raise AssertionError('it ran')

  monkeypatch.setattr(sweep, 'run_cell', refuse)
  sweep.sweep(workdir=str(swept / 'run'), **TINY)
  assert 'BC+Q' in capsys.readouterr().out


def test_other_rules_need_another_workdir(swept):
  with pytest.raises(UsageError, match='report_seeds 2 -> 3'):
    sweep.sweep(workdir=str(swept / 'run'), **(TINY | {'report_seeds': 3}))


def test_what_was_not_published_is_told(tmp_path):
  with pytest.raises(UsageError, match='--methods=history: not published'):
    sweep.sweep(
      workdir=str(tmp_path),
      **(TINY | {'variant': 'official', 'methods': ('history',)}),
    )


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--methods=bcq', 'did you mean bc_q?'),
    ('--demos=2,2', 'one is named twice'),
    ('--rooms=6', '4 and 8 are possible'),
    ('--max_episodes=15', 'a multiple of 10 is expected'),
    ('--slip=2', 'a number from 0 to 1 is expected'),
  ],
)
def test_mistakes_are_one_line(flag, message, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['sweep', flag])
  with pytest.raises(SystemExit) as stop:
    sweep.main()
  told = capsys.readouterr().err
  assert stop.value.code == 2
  assert message in told
  assert told.count('\n') == 1


def test_the_help_helps(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['sweep', '--help'])
  with pytest.raises(SystemExit) as stop:
    sweep.main()
  assert stop.value.code == 0
  shown = capsys.readouterr().out
  assert '--variant=official' in shown
  assert 'align_rudder, ' in shown


WORLD = rooms.make(4)
DEMOS = rooms.demonstrations(WORLD, jax.random.key(0), 2)


@pytest.mark.slow
@pytest.mark.parametrize('name', sweep.METHODS)
def test_every_method_learns(name):
  entry = sweep.METHODS[name]
  given = entry.prepare(WORLD, DEMOS, jax.random.key(1))
  table = tabular.random_table(jax.random.key(2), WORLD.num_states)
  protocol = tabular.Protocol(max_episodes=10)

  @jax.jit
  def run(given, table):
    start = sweep.Start(table, jnp.float32(0.1), False)
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
