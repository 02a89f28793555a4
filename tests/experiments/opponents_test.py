"""Programs as opponents: those that answer, and those that fail."""

import shlex
import sys
import textwrap

import pytest

from dl_lectures.types import UsageError
from experiments import opponents


def script(tmp_path, text):
  """The command line of a small program."""
  path = tmp_path / 'program.py'
  path.write_text(textwrap.dedent(text))
  return f'{shlex.quote(sys.executable)} -u {shlex.quote(str(path))}'


GTP = """
import sys
for line in sys.stdin:
  if line.startswith('quit'):
    break
  if line.startswith('genmove'):
    print('= C3\\n', flush=True)
  elif line.startswith('play b Z9'):
    print('? illegal move\\n', flush=True)
  else:
    print('=\\n', flush=True)
"""

UCI = """
import sys
for line in sys.stdin:
  if line.startswith('quit'):
    break
  if line.startswith('uci\\n'):
    print('id name toy\\nuciok', flush=True)
  elif line.startswith('isready'):
    print('readyok', flush=True)
  elif line.startswith('go nodes 5'):
    print('info depth 1\\nbestmove e7e5 ponder g1f3', flush=True)
"""


def test_a_program_that_speaks_gtp(tmp_path):
  with opponents.running(script(tmp_path, GTP), 30) as program:
    player = opponents.speaks_gtp(program, 5, 24.5)
    player.begin()
    assert player.move(None, ['B2']) == 'C3'
    with pytest.raises(UsageError, match=r"'play b Z9' by '\? illegal move'"):
      player.move(None, ['B2', 'C3', 'Z9'])


def test_a_program_that_speaks_uci(tmp_path):
  with opponents.running(script(tmp_path, UCI), 30) as program:
    player = opponents.speaks_uci(program, 'uci', 'nodes 5')
    player.begin()
    assert player.move(None, ['e2e4']) == 'e7e5'


def test_one_that_is_killed_is_told(tmp_path):
  command = script(tmp_path, 'print("hello"); input()')
  with opponents.running(command, 30) as program:
    assert program.hear() == 'hello'
    program._process.kill()
    with pytest.raises(
      UsageError, match="has ended; its last line was 'hello'"
    ):
      program.hear()


def test_one_that_says_nothing_is_told(tmp_path):
  silent = opponents.running(script(tmp_path, 'input()'), 0.2)
  told = pytest.raises(UsageError, match=r'was silent for 0\.2 s')
  with silent as program, told:
    program.hear()


def test_one_that_chatters_without_an_answer_is_told(tmp_path):
  loop = 'import time\nwhile True: print("info"); time.sleep(0.01)'
  told = pytest.raises(UsageError, match="its last line was 'info'")
  with opponents.running(script(tmp_path, loop), 1) as program, told:
    program.wait_for('bestmove')


@pytest.mark.parametrize('command', ['no-such-program --fast', '', '"'])
def test_one_that_is_not_there_is_told(command):
  with pytest.raises(UsageError, match='cannot be started'):
    opponents.Program(command, 1)


def test_a_program_that_does_not_go_is_ended(tmp_path):
  stubborn = 'import time\nwhile True: time.sleep(1)'
  with opponents.running(script(tmp_path, stubborn), 1) as program:
    process = program._process
  assert process.poll() is not None
