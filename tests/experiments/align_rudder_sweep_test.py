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
  'slip': 0.01,
  'results': '',
}


def cell_of(method, episodes, rooms=8, demos=2, rate=0.1, capped=0):
  rates = sweep.LEARNING_RATES
  task = sweep.Task(rooms, demos, method, rates)
  return {
    **task._asdict(),
    'rate': rate,
    'tuning': {},
    'episodes': list(episodes),
    'capped': capped,
    'seconds': 6.0,
  }


ALIGN = cell_of('align_rudder', range(10, 1010, 10))
CLONE = cell_of('bc_q', range(40, 4040, 40))
BEST = cell_of('dqfd', range(5, 505, 5), capped=3)


def test_every_method_has_a_cell_of_its_own_file():
  todo = sweep.tasks('paper', (4, 8), (2, 10), tuple(sweep.METHODS))
  names = [task.name for task in todo]
  # Q-learning sees no demonstrations: it is one cell of each world.
  assert len(names) == len({*names}) == 2 * (2 * 8 + 1)
  assert '4-10-align_rudder' in names
  assert '8-0-q_learning' in names
  assert {task.rates for task in todo} == {sweep.LEARNING_RATES}


def test_the_published_rules_have_the_published_rates():
  todo = sweep.tasks('official', (4,), (2,), tuple(sweep.METHODS))
  assert [task.name for task in todo] == [
    '4-2-align_rudder-0.1',
    '4-2-bc_q-0.01',
    '4-2-bc_q-0.1',
    '4-2-dqfd-0.01',
    '4-2-rudder-0.01',
  ]


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
  assert lines[1].split()[:5] == ['8', '2', 'Align-RUDDER', '0.1', '505']
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


def test_official_claims_are_about_published_numbers():
  cells = [
    cell_of('align_rudder', [10] * 4, rooms=4, demos=100),
    cell_of('align_rudder', [900] * 4, rooms=4, demos=10),
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
  assert [*cell['tuning']] == [f'{rate:g}' for rate in sweep.LEARNING_RATES]
  assert cell['rate'] in sweep.LEARNING_RATES
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
    method = entry.build(WORLD, given, table, jnp.float32(0.1))
    outcome = tabular.learn(
      WORLD, method, 0.1, jax.random.key(3), 99.0, protocol
    )
    return method.table, outcome.table

  before, after = run(given, table)
  assert np.isfinite(after).all()
  assert np.abs(np.asarray(after) - np.asarray(before)).max() > 0.01
  remembers = name in ('align_rudder', 'history')
  assert before.shape[1] == (256 if remembers else 1)


@pytest.mark.slow
def test_rudder_predicts_the_returns_it_was_shown():
  entry = sweep.METHODS['rudder']
  given = entry.prepare(WORLD, DEMOS, jax.random.key(1))
  seen = sweep._encode(
    rooms.features(WORLD), jnp.asarray(DEMOS.state[:, :-1]), DEMOS.action
  )
  predicted = sweep._predictor().apply(given.params, seen)
  last = np.asarray(DEMOS.mask).sum(1)[:, None] - 1
  found = np.take_along_axis(np.asarray(predicted), last, 1)[:, 0]
  np.testing.assert_allclose(found, DEMOS.reward.sum(1), atol=0.3)
