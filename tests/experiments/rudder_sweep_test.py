"""The sweep over delays: what it chooses, tells and keeps."""

import json

import numpy as np
import pytest

from dl_lectures import types
from experiments import rudder_sweep as sweep

RULES = sweep.Rules(tasks=('trace_back',), tuning_seeds=2, report_seeds=3)


def rows_of(medians):
  """Rows of three seeds: (task, horizon, method) -> median."""
  spread = np.array([0.5, 1.0, 2.0])
  return [
    sweep.Row(task, horizon, method, 0.1, spread * median, 0)
    for (task, horizon, method), median in medians.items()
  ]


def test_every_method_has_the_same_budget():
  cells = sweep.tuning(RULES)
  assert len(cells) == len(set(cells)) == 4 * 3 * 4
  assert len({cell.name for cell in cells}) == len(cells)
  counts = {
    method: sorted(
      (cell.horizon, cell.rate, cell.first_seed, cell.seeds)
      for cell in cells
      if cell.method == method
    )
    for method in sweep.METHODS
  }
  assert counts['rudder'] == counts['td'] == counts['mc']
  tuned = {c.first_seed + i for c in cells for i in range(c.seeds)}
  assert max(tuned) < sweep.FIRST_REPORTED


def test_the_rate_of_the_fewest_episodes_is_chosen():
  cells = [
    sweep.Cell('trace_back', 6, method, rate, 0, 2)
    for method in ('td', 'mc')
    for rate in (0.03, 0.1, 0.3)
  ]
  # Geometric means: 200, 100, 141; then equal ones.
  episodes = [[100, 400], [100, 100], [10, 2000], [50, 50], [50, 50], [60, 50]]
  results = [{'episodes': e} for e in episodes]
  assert sweep.choose(cells, results) == {
    ('trace_back', 6, 'td'): 0.1,
    ('trace_back', 6, 'mc'): 0.03,
  }


def test_growth_is_between_delays_of_one_to_four():
  for task, (short, long) in sweep.FOURFOLD.items():
    assert long == 4 * short
    assert {short, long} <= set(sweep.DELAYS[task])
  rows = rows_of(
    {
      ('trace_back', 6, 'rudder'): 100,
      ('trace_back', 12, 'rudder'): 900,
      ('trace_back', 24, 'rudder'): 150,
      ('trace_back', 6, 'td'): 100,
      ('trace_back', 24, 'td'): 700,
    }
  )
  assert sweep.growth(rows, 'trace_back', 'rudder') == 1.5
  assert sweep.growth(rows, 'trace_back', 'mc') is None
  claim = sweep.make_claims(rows)[0]
  assert (claim.value, claim.bar, claim.met) == (1.5, 2.0, True)
  assert claim.baseline == 7
  worse = rows_of(
    {
      ('watch_repair', 25, 'rudder'): 100,
      ('watch_repair', 100, 'rudder'): 201,
    }
  )
  assert sweep.make_claims(worse)[0].met is False


def test_a_table_and_a_figure():
  rows = rows_of(
    {
      (task, horizon, method): 10 * horizon
      for task, delays in sweep.DELAYS.items()
      for horizon in delays
      for method in sweep.METHODS
    }
  )
  rows[0] = rows[0]._replace(capped=2)
  lines = sweep.to_table(rows).splitlines()
  assert len(lines) == 1 + len(rows)
  assert lines[1].split() == [
    'watch_repair', '10', 'RUDDER', '0.1', '100', '90', '120', '2/3',
  ]  # fmt: skip
  page = sweep.draw(rows)
  assert [axes.get_title() for axes in page.axes] == [
    'watch repair',
    'trace back',
  ]
  assert all(len(axes.lines) == 3 for axes in page.axes)


def test_budgets_may_be_shorter():
  for task, delays in sweep.DELAYS.items():
    for horizon in delays:
      whole = sweep.settings(task, horizon, 1)
      short = sweep.settings(task, horizon, 20)
      assert short.horizon == whole.horizon == horizon
      assert short.task == whole.task == task
      assert short.max_episodes * 20 == whole.max_episodes
  assert (
    sweep.settings('watch_repair', 50, 1) == (sweep.rudder.PRESETS['laptop'])
  )


def test_cells_are_kept_and_not_run_again(tmp_path, monkeypatch):
  ran = []

  def run(cell, shorter):
    assert shorter == 1
    ran.append(cell)
    if len(ran) == 2:
      raise KeyboardInterrupt
    return {'episodes': [float(len(ran))] * 3, 'capped': 0}

  monkeypatch.setattr(sweep, 'run', run)
  cells = sweep.tuning(RULES)[:3]
  with pytest.raises(KeyboardInterrupt):
    sweep.work(cells, RULES, tmp_path)
  results = sweep.work(cells, RULES, tmp_path)
  assert ran == [cells[0], cells[1], cells[1], cells[2]]
  assert [r['episodes'][0] for r in results] == [1, 3, 4]
  assert sweep.work(cells, RULES, tmp_path) == results


def test_the_sweep_ends_with_a_result(tmp_path, monkeypatch, capsys):
  def run(cell, shorter):
    del shorter
    base = {'rudder': 100, 'td': 20 * cell.horizon, 'mc': 50}[cell.method]
    episodes = [base * (1 + cell.rate)] * cell.seeds
    return {'episodes': episodes, 'capped': 0, 'cpu_seconds': 5.0}

  monkeypatch.setattr(sweep, 'run', run)
  results = tmp_path / 'out' / 'sweep.json'

  def call(report_seeds):
    sweep.sweep(
      workdir=str(tmp_path / 'work'),
      tasks=('trace_back', 'watch_repair'),
      tuning_seeds=2,
      report_seeds=report_seeds,
      shorter=1,
      results=str(results),
    )

  call(3)
  found = json.loads(results.read_text())
  assert found['seeds'] == [100, 101, 102]
  assert found['claims'][0]['value'] == 1
  assert found['claims'][0]['baseline'] == 4
  assert all(claim['baseline'] is not None for claim in found['claims'])
  # Two tasks at four delays by three methods: four rates tuned, one reported.
  assert found['minutes'] == 2 * 4 * 3 * (4 + 1) * 5 / 60
  assert results.with_suffix('.png').exists()
  assert (tmp_path / 'work' / 'report.html').exists()
  assert 'watch_repair' in capsys.readouterr().out
  with pytest.raises(types.UsageError, match='report_seeds'):
    call(4)


@pytest.mark.parametrize(
  'method', [pytest.param('rudder', marks=pytest.mark.slow), 'td', 'mc']
)
def test_a_cell_runs(method):
  cell = sweep.Cell('trace_back', 6, method, 0.1, 100, 2)
  result = sweep.run(cell, 20)
  assert len(result['episodes']) == 2
  assert 25 <= min(result['episodes']) <= max(result['episodes']) <= 5_000
