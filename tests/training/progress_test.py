"""What is seen of a run: a bar on a terminal, few lines elsewhere."""

import fcntl
import io
import os
import pty
import re
import struct
import termios

import pytest

from dl_lectures.training import progress


class _Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


@pytest.fixture
def clock(monkeypatch):
  """Seconds that pass only when the test says so."""
  now = [100.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def test_plain_lines_tell_rate_and_time_left(clock, capsys):
  shown = progress.Progress(num_steps=40, step=10)
  clock[0] += 5.0
  shown.update(20, {'loss': 0.25})
  shown.close()
  assert capsys.readouterr() == (
    '',
    'step 20/40 (50%), 2.0 steps/s, 10 s left, loss 0.25\n',
  )


def test_plain_lines_are_rare_and_the_last_step_is_told(clock, capsys):
  shown = progress.Progress(num_steps=3600, step=0)
  for step in range(1, 3601):
    clock[0] += 1.0
    shown.update(step, {})
  shown.close()
  steps = [int(n) for n in re.findall(r'step (\d+)/', capsys.readouterr().err)]
  # 2, 4, 8 and 16 seconds apart, then every 30.
  assert steps[:6] == [1, 3, 7, 15, 31, 61]
  assert steps[-1] == 3600
  assert len(steps) < 130


def test_a_terminal_gets_a_bar_with_rate_and_eta(monkeypatch):
  terminal = _Terminal()
  monkeypatch.setattr('sys.stderr', terminal)
  shown = progress.Progress(num_steps=30, step=10)
  shown.update(25, {'loss': 0.125})
  progress.say('above the bar')
  shown.close()
  text = terminal.getvalue()
  # The bar starts where the run was resumed, and is redrawn in place.
  assert '33%' in text
  assert '25/30' in text
  assert 'step/s' in text
  assert 'loss 0.125' in text
  assert 'above the bar\n' in text
  assert '\r' in text


@pytest.mark.parametrize('size', [(0, 0), (24, 0), (0, 100), (24, 100)])
def test_a_terminal_that_does_not_know_its_size_gets_a_bar(monkeypatch, size):
  ours, theirs = pty.openpty()
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', *size, 0, 0))
  with os.fdopen(theirs, 'w') as terminal:
    monkeypatch.setattr('sys.stderr', terminal)
    shown = progress.Progress(num_steps=30, step=0)
    shown.update(15, {'loss': 0.125})
    shown.close()
    terminal.flush()
    written = b''
    # A terminal hands over what was written piece by piece.
    while not written.endswith(b'\n'):
      written += os.read(ours, 1000)
  os.close(ours)
  text = written.decode()
  assert '15/30' in text
  assert 'loss 0.125' in text


def test_a_rate_of_zero_has_no_end(clock, capsys):
  shown = progress.Progress(num_steps=10, step=5)
  shown.update(5, {})
  assert 'unknown time left' in capsys.readouterr().err
