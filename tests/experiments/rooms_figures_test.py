"""What is told of the rooms: quantiles, tests, claims, charts."""

import numpy as np

from experiments import rooms_figures
from experiments.rooms_trial import Task


def cell_of(method, episodes, rooms=8, demos=2, rate=None, capped=0, slip=0.01):
  task = Task(rooms, demos, slip, method, rate)
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


def test_the_table_has_the_quantiles_and_the_tests():
  align, clone, best = rooms_figures.summarise([ALIGN, CLONE, BEST])
  assert (align.median, align.versus) == (505, None)
  np.testing.assert_allclose(align.middle, (406, 604))
  assert align.interval[0] < 505 < align.interval[1]
  assert align.interval[0] > 350
  assert align.interval[1] < 660
  assert clone.median == 4 * align.median
  assert clone.versus is not None
  assert clone.versus < 1e-10
  assert (best.label, best.capped) == ('DQfD-style', 3)
  lines = rooms_figures.table_text([align, clone, best]).splitlines()
  assert lines[1].split()[:4] == ['8', '2', '0.01', 'Align-RUDDER']
  assert lines[1].split()[4:7] == ['0.1', '+0.04', '505']
  assert lines[3].split()[-2] == '3'


def test_equal_methods_are_not_told_apart():
  same = cell_of('bc_q', range(15, 1015, 10))
  _, row = rooms_figures.summarise([ALIGN, same])
  assert row.versus is not None
  assert row.versus > 0.5


def test_claims_say_where_it_leads_and_where_not():
  lead, against_best = rooms_figures.claims([ALIGN, CLONE, BEST], 'paper')
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
  (claim,) = rooms_figures.claims(cells, 'paper')
  assert claim.value == 3
  assert (claim.bar, claim.paper) == (1, None)
  assert 'slip 0.2' in claim.name


def test_the_slip_is_drawn():
  cells = [
    cell_of(method, [10 * (i + 1)] * 3, slip=slip)
    for method in ('align_rudder', 'bc_q')
    for i, slip in enumerate((0.01, 0.2))
  ]
  (axis,) = rooms_figures.draw_slip(rooms_figures.summarise(cells), 5000).axes
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
  found = rooms_figures.claims(cells, 'official')
  assert [claim.met for claim in found] == [True, False, True, False]


def test_the_chart_has_a_bar_of_each_cell():
  rows = rooms_figures.summarise([ALIGN, CLONE, BEST])
  rows += rooms_figures.summarise([cell_of('q_learning', [5000] * 3, demos=0)])
  axis = rooms_figures.draw(rows, 8, 5000).axes[0]
  heights = [patch.get_height() for patch in axis.patches]
  assert heights == [505, 2020, 252.5]
  assert axis.get_yscale() == 'log'
