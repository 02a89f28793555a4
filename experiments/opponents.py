"""Players of a match: networks of ours, and programs that speak GTP, UCI, USI.

A program is started once, told the moves of every game, and given up when it
dies, says nothing for too long or makes a move that is not legal: each is told
in one line, with what it said last.
"""

import contextlib
import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from dl_lectures.types import UsageError


class Opponent(NamedTuple):
  """Who plays.

  Attributes:
    name: as reports call it.
    begin: () -> None, before every game.
    move: (state, names of the moves so far) -> the name of the next one.
  """

  name: str
  begin: Callable[[], None]
  move: Callable[[Any, Sequence[str]], str]


class Program:
  """A process that answers lines with lines."""

  def __init__(self, command: str, patience: float):
    """Starts it.

    Args:
      command: as one types it; no shell reads it.
      patience: seconds that it may be silent.

    Raises:
      UsageError: there is no such program.
    """
    self.name, self._patience = command, patience
    try:
      self._process = subprocess.Popen(
        shlex.split(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
      )
    except (OSError, ValueError, IndexError) as error:
      raise UsageError(f'{command!r} cannot be started: {error}') from None
    self._lines: queue.Queue[str | None] = queue.Queue()
    self._last = 'nothing'
    self._listener = threading.Thread(target=self._listen, daemon=True)
    self._listener.start()

  def _listen(self) -> None:
    out = self._process.stdout
    assert out is not None
    with contextlib.suppress(ValueError):  # it was closed
      for line in out:
        self._lines.put(line.rstrip('\r\n'))
    self._lines.put(None)

  def say(self, line: str) -> None:
    """Sends a line."""
    pipe = self._process.stdin
    assert pipe is not None
    try:
      pipe.write(line + '\n')
      pipe.flush()
    except OSError:
      raise UsageError(self._gone()) from None

  def hear(self, deadline: float | None = None) -> str:
    """Waits for the next line.

    Raises:
      UsageError: it died, or was silent for too long.
    """
    left = self._patience if deadline is None else deadline - time.monotonic()
    try:
      line = self._lines.get(timeout=max(left, 0.0))
    except queue.Empty:
      raise UsageError(
        f'{self.name!r} was silent for {self._patience:g} s; its last line was '
        f'{self._last!r}'
      ) from None
    if line is None:
      raise UsageError(self._gone())
    self._last = line
    return line

  def wait_for(self, word: str) -> str:
    """Waits for a line that begins with a word."""
    deadline = time.monotonic() + self._patience
    while True:
      line = self.hear(deadline)
      if line.split()[:1] == [word]:
        return line

  def _gone(self) -> str:
    return f'{self.name!r} has ended; its last line was {self._last!r}'

  def close(self) -> None:
    """Ends it, by force if it does not go."""
    with contextlib.suppress(UsageError):
      self.say('quit')
    try:
      self._process.wait(2)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._listener.join()
    for pipe in (self._process.stdin, self._process.stdout):
      assert pipe is not None
      with contextlib.suppress(OSError):
        pipe.close()


@contextlib.contextmanager
def running(command: str, patience: float) -> Iterator[Program]:
  """A program for as long as it is needed."""
  program = Program(command, patience)
  try:
    yield program
  finally:
    program.close()


def speaks_gtp(program: Program, board_size: int, komi: float) -> Opponent:
  """A program that plays Go over GTP."""
  told: list[str] = []

  def ask(command: str) -> str:
    program.say(command)
    line = program.hear()
    while not line:
      line = program.hear()
    answer = line
    while line:
      line = program.hear()
    if not answer.startswith('='):
      raise UsageError(f'{program.name!r} answered {command!r} by {answer!r}')
    return answer[1:].strip()

  def begin() -> None:
    told.clear()
    ask(f'boardsize {board_size}')
    ask('clear_board')
    ask(f'komi {komi:g}')

  def move(state: Any, moves: Sequence[str]) -> str:
    del state
    for number in range(len(told), len(moves)):
      ask(f'play {"bw"[number % 2]} {moves[number]}')
      told.append(moves[number])
    found = ask(f'genmove {"bw"[len(moves) % 2]}')
    told.append(found)
    return found

  return Opponent(program.name, begin, move)


def speaks_uci(
  program: Program, protocol: str, go: str, options: Sequence[str] = ()
) -> Opponent:
  """A program that plays chess over UCI, or shogi over USI.

  Args:
    program: running.
    protocol: 'uci' or 'usi'.
    go: what follows `go`: 'nodes 100', 'movetime 50'.
    options: such as 'Skill Level=0'.
  """
  program.say(protocol)
  program.wait_for(f'{protocol}ok')
  for option in options:
    name, _, value = option.partition('=')
    program.say(f'setoption name {name} value {value}')

  def begin() -> None:
    program.say(f'{protocol}newgame')
    program.say('isready')
    program.wait_for('readyok')

  def move(state: Any, moves: Sequence[str]) -> str:
    del state
    played = f' moves {" ".join(moves)}' if moves else ''
    program.say(f'position startpos{played}')
    program.say(f'go {go}')
    words = program.wait_for('bestmove').split()
    return words[1] if len(words) > 1 else ''

  return Opponent(program.name, begin, move)
