import importlib
import pathlib

import pytest

from benchmarks import timing

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(
  path.stem
  for path in (ROOT / 'benchmarks').glob('*.py')
  if path.stem not in {'__init__', 'timing'}
)


def test_cases_are_run_in_their_own_order():
  cases = ['go', 'chess', 'shogi']
  assert timing.cases_to_run('', cases, []) == cases
  assert timing.cases_to_run('', cases, ['shogi', 'go']) == ['go', 'shogi']


@pytest.mark.parametrize('given', ['draughts', '--games=go'])
def test_what_is_not_possible_is_told_in_one_line(given, capsys):
  with pytest.raises(SystemExit) as stopped:
    timing.cases_to_run('', ['go'], [given])
  assert stopped.value.code == 2
  assert capsys.readouterr().err == f'unknown: {given}; possible: go, --help\n'


@pytest.mark.parametrize('name', NAMES)
def test_every_benchmark_tells_what_it_measures(name, capsys, monkeypatch):
  pytest.importorskip('mctx')
  module = importlib.import_module(f'benchmarks.{name}')
  monkeypatch.setattr('sys.argv', [name, '--help'])
  with pytest.raises(SystemExit) as stopped:
    module.main()
  assert stopped.value.code == 0
  assert (module.__doc__ or '').splitlines()[0] in capsys.readouterr().out
