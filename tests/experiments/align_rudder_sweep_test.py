"""The comparison: a tiny sweep that goes on, and mistakes that are told."""

import json
import sys
from typing import Any

import pytest

from dl_lectures.types import UsageError
from experiments import align_rudder_sweep as sweep
from experiments import rooms_trial

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


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sweep')
  results = str(folder / 'results' / 'rooms.json')
  sweep.sweep(workdir=str(folder / 'run'), **(TINY | {'results': results}))
  return folder


def test_a_sweep_leaves_all_that_is_promised(swept):
  cell = json.loads((swept / 'run/cells/4-2-bc_q.json').read_text())
  assert len(cell['tuning']) == 6
  assert cell['setting']['rate'] in rooms_trial.LEARNING_RATES
  assert cell['setting']['optimism'] in rooms_trial.OPTIMISMS
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

  monkeypatch.setattr(rooms_trial, 'run_cell', refuse)
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
