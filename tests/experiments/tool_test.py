"""The command line of programs that use a run: mistakes, help, exit codes."""

import os
import sys

import pytest

from dl_lectures.types import UsageError
from experiments import tool

FLAGS = (
  tool.Flag('workdir', 'the directory of a run'),
  tool.Flag('size', 'how many', 3, tool.whole_number(0, 9)),
  tool.Flag('first', 'who begins', 'you', tool.one_of('you', 'network')),
)


@pytest.fixture
def call(monkeypatch, capsys):
  """Runs a program in this process: (code, what it was given, out, err)."""

  def call(*argv, does=lambda **values: None):
    given = {}

    def main(**values):
      given.update(values)
      does(**values)

    monkeypatch.setattr(sys, 'argv', ['program', *argv])
    with pytest.raises(SystemExit) as ended:
      tool.run(main, flags=FLAGS, doc='Does it.', examples=('--size=4',))
    return ended.value.code, given, *capsys.readouterr()

  return call


def raising(error):
  def main(**values):
    raise error

  return main


def test_flags_are_parsed_and_have_defaults(call):
  assert call('--workdir=w')[:2] == (
    0,
    {'workdir': 'w', 'size': 3, 'first': 'you'},
  )
  given = call('--workdir', 'w', '--size=0', '--first=network')[1]
  assert given == {'workdir': 'w', 'size': 0, 'first': 'network'}


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    ([], '--workdir= is missing: the directory of a run; see --help'),
    (['--workdir='], '--workdir= is empty; it is the directory of a run'),
    (['--workdri=w'], 'possible: --workdir, --size, --first, --help; did you'),
    (['--workdri=w'], 'did you mean --workdir?'),
    (['--zzz'], '--zzz: there is no such flag'),
    (['w'], 'w is not a flag'),
    (['--workdir=w', '--size=x'], '--size=x: a whole number from 0 to 9 is'),
    (['--workdir=w', '--size=-1'], '--size=-1: a whole number from 0 to 9'),
    (['--workdir=w', '--size=10'], 'from 0 to 9 is expected'),
    (['--workdir=w', '--size=2.5'], 'a whole number'),
    (['--workdir=w', '--first=I'], '--first=I: possible: you, network'),
    (['--workdir=w', '--first=netwrk'], 'did you mean network?'),
  ],
)
def test_mistakes_are_told_in_one_line(call, argv, said):
  code, given, out, err = call(*argv)
  assert code == 2
  assert given == {}
  assert out == ''
  assert err.count('\n') == 1
  assert said in err


def test_help_tells_everything(call):
  code, given, out, _ = call('--zzz', '--help')
  assert code == 0
  assert given == {}
  for text in ('Does it.', '--workdir', 'how many; 3 by default', '--help'):
    assert text in out
  assert 'python -m experiments.tool_test --size=4' in out


@pytest.mark.parametrize(
  ('error', 'code', 'said'),
  [
    (UsageError('no run\nthere'), 2, 'no run there\n'),
    (OSError('disk full'), 1, 'disk full\n'),
    (KeyboardInterrupt(), 130, 'stopped\n'),
  ],
)
def test_exit_codes(call, error, code, said):
  found = call('--workdir=w', does=raising(error))
  assert (found[0], found[3]) == (code, said)


def test_a_reader_that_has_gone_is_no_traceback(call, monkeypatch, tmp_path):
  with open(tmp_path / 'out', 'w') as out:
    monkeypatch.setattr(sys, 'stdout', out)
    assert call('--workdir=w', does=raising(BrokenPipeError()))[0] == 1
    os.write(out.fileno(), b'nobody reads this')
  assert (tmp_path / 'out').read_text() == ''
