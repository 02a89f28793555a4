"""The Universal Chess Interface and its twin for shogi, USI.

The host may say `stop`, `ponderhit` or `quit` at any time, so that a search
runs in a thread of its own, and only one at a time. What cannot be obeyed is
told in an `info string` line, and the position stays what it was.
Specifications: UCI, Meyer-Kahlen 2006; USI, http://hgm.nubati.net/usi.html
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dl_lectures.types import UsageError
from experiments import engine_search


class Dialect(NamedTuple):
  """What distinguishes the two protocols.

  Attributes:
    name: 'uci' or 'usi'; also the first command.
    ponder: the option by which a host says that it lets engines ponder.
    new_game: the command before another game.
    nothing: the move of who has none.
    position: the words after `position` -> the state.
    colour: state -> 'w' or 'b', who is to move.
    move: (state, action) -> the move's name.
    step: (state, action) -> state.
    stuck: state -> whether there is no move.
    render: state -> text.
  """

  name: str
  ponder: str
  new_game: str
  nothing: str
  position: Callable[[str], Any]
  colour: Callable[[Any], str]
  move: Callable[[Any, int], str]
  step: Callable[[Any, int], Any]
  stuck: Callable[[Any], bool]
  render: Callable[[Any], str]


class Order(NamedTuple):
  """What `go` asks for.

  Attributes:
    simulations: or None.
    seconds: or None.
    ponder: whether the limits begin to count with `ponderhit`.
  """

  simulations: int | None
  seconds: float | None
  ponder: bool


# The words of `go`, and which of them a number follows.
_NUMBERED = ('wtime', 'btime', 'winc', 'binc', 'movestogo', 'byoyomi')
_NUMBERED += ('movetime', 'nodes', 'depth', 'mate')
_GO = (*_NUMBERED, 'infinite', 'ponder')
_MOST_SIMULATIONS = 1_000_000


class Engine:
  """A position and who searches it: what the host's commands act on."""

  def __init__(
    self,
    dialect: Dialect,
    searcher: engine_search.Searcher,
    simulations: int,
    name: str,
    write: Callable[[str], None],
  ):
    """Makes an engine at the start of a game.

    Args:
      dialect: which of the two protocols it speaks.
      searcher: finds moves.
      simulations: of a move, where no time is set.
      name: of this program.
      write: takes a line, from any thread.
    """
    self._dialect, self._searcher = dialect, searcher
    self._simulations, self._name, self._write = simulations, name, write
    self._state = dialect.position('startpos')
    self._task: engine_search.Task | None = None
    self._order = Order(simulations, None, False)
    self._thread: threading.Thread | None = None

  def obey(self, line: str) -> bool:
    """Does what a line says; False once it was `quit`."""
    word, _, rest = line.strip().partition(' ')
    rest = rest.strip()
    dialect = self._dialect
    try:
      if word == 'quit':
        self.stop()
        return False
      if word == dialect.name:
        self._introduce()
      elif word == 'isready':
        self._write('readyok')
      elif word == 'setoption':
        self._set_option(rest)
      elif word in (dialect.new_game, 'gameover'):
        self.stop()
      elif word == 'position':
        self.stop()
        self._state = dialect.position(rest)
      elif word == 'go':
        self.stop()
        colour = dialect.colour(self._state)
        self._go(read_go(rest, colour, self._simulations))
      elif word == 'stop':
        self.stop()
      elif word == 'ponderhit':
        self._ponderhit()
      elif word == 'd':
        for row in dialect.render(self._state).splitlines():
          self._write(f'info string {row}')
      elif word not in ('', 'debug', 'register'):
        self._tell(
          f'unknown command {word!r}; possible: {dialect.name}, isready, '
          f'setoption, {dialect.new_game}, position, go, stop, ponderhit, d, '
          'quit'
        )
    except UsageError as error:
      self._tell(str(error))
    return True

  def stop(self) -> None:
    """Ends the search, if there is one, and waits for its move."""
    if self._task is not None:
      self._task.stopped.set()
    if self._thread is not None:
      self._thread.join()
    self._task = self._thread = None

  def _tell(self, text: str) -> None:
    self._write(f'info string {text}')

  def _introduce(self) -> None:
    self._write(f'id name {self._name}')
    self._write('id author the authors of dl_lectures')
    self._write(
      f'option name Simulations type spin default {self._simulations} '
      f'min 1 max {_MOST_SIMULATIONS}'
    )
    self._write(f'option name {self._dialect.ponder} type check default false')
    self._write(f'{self._dialect.name}ok')

  def _set_option(self, text: str) -> None:
    name, _, value = text.removeprefix('name ').partition(' value ')
    if name.lower() == 'simulations':
      self._simulations = _whole(name, value, 1, _MOST_SIMULATIONS)
    elif name.lower() != self._dialect.ponder.lower():
      raise UsageError(
        f'no option {name!r}; possible: Simulations, {self._dialect.ponder}'
      )

  def _go(self, order: Order) -> None:
    self._order = order
    state = self._state
    if self._dialect.stuck(state):
      self._write(f'bestmove {self._dialect.nothing}')
      return
    limits = (None, None) if order.ponder else order[:2]
    self._task = task = engine_search.Task(*limits)

    def search() -> None:
      found = engine_search.think(self._searcher, state, task, report)
      names = self._names(state, found.line[:2])
      self._write(' ponder '.join([f'bestmove {names[0]}', *names[1:]]))

    def report(found: engine_search.Found, seconds: float) -> None:
      speed = found.simulations / max(seconds, 1e-3)
      self._write(
        f'info depth {len(found.line)} nodes {found.simulations} '
        f'time {seconds * 1000:.0f} nps {speed:.0f} '
        f'score cp {centipawns(found.value)} '
        f'pv {" ".join(self._names(state, found.line))}'
      )

    self._thread = threading.Thread(target=search, daemon=True)
    self._thread.start()

  def _names(self, state: Any, line: Sequence[int]) -> list[str]:
    names = []
    for action in line:
      names.append(self._dialect.move(state, action))
      state = self._dialect.step(state, action)
    return names

  def _ponderhit(self) -> None:
    if self._task is None or not self._order.ponder:
      raise UsageError('ponderhit without go ponder')
    self._task.limit(*self._order[:2])


def centipawns(value: float) -> int:
  """A value in [-1, 1] on the scale that hosts expect.

  >>> centipawns(0.0), centipawns(0.5), centipawns(-0.5)
  (0, 111, -111)
  """
  cp = 111.7 * math.tan(1.5620688 * min(max(value, -1.0), 1.0))
  return round(min(max(cp, -12800), 12800))


def read_go(text: str, colour: str, simulations: int) -> Order:
  """Reads what follows `go`.

  Args:
    text: such as 'wtime 60000 btime 60000' or 'nodes 100'.
    colour: 'w' or 'b', whose time is meant.
    simulations: of a move, where nothing limits it.

  Raises:
    UsageError: a word that is none, or what is no number.

  >>> read_go('nodes 7', 'w', 800)
  Order(simulations=7, seconds=None, ponder=False)
  >>> read_go('infinite', 'w', 800)
  Order(simulations=None, seconds=None, ponder=False)
  """
  given: dict[str, int] = {}
  words = iter(text.split())
  for word in words:
    if word == 'searchmoves':
      raise UsageError('go searchmoves is not supported')
    if word not in _GO:
      raise UsageError(f'go: unknown word {word!r}; possible: {", ".join(_GO)}')
    given[word] = 1
    if word in _NUMBERED:
      given[word] = _whole(word, next(words, ''), 0)
  ponder = 'ponder' in given
  if 'infinite' in given:
    return Order(None, None, ponder)
  nodes = given.get('nodes')
  if 'movetime' in given:
    seconds = max(given['movetime'] / 1000 - engine_search.OVERHEAD, 0.0)
    return Order(nodes, seconds, ponder)
  time, increment = f'{colour}time', f'{colour}inc'
  if time in given or 'byoyomi' in given:
    clock = engine_search.Clock(
      given.get(time, 0) / 1000,
      given.get(increment, 0) / 1000,
      given.get('movestogo', 0),
      given.get('byoyomi', 0) / 1000,
    )
    return Order(nodes, engine_search.seconds_for(clock), ponder)
  return Order(nodes or simulations, None, ponder)


def _whole(name: str, text: str, low: int, high: int = 1 << 40) -> int:
  try:
    value = int(text)
  except ValueError:
    raise UsageError(f'{name}: {text!r} is not a whole number') from None
  # Hosts send negative times when a flag has just fallen.
  if name.endswith('time') and value < 0:
    return 0
  if not low <= value <= high:
    raise UsageError(f'{name} {value}: {low} to {high} is possible')
  return value


def serve(engine: Engine, lines: Iterable[str]) -> None:
  """Obeys lines until `quit`, or until there are no more: the host has gone."""
  for line in lines:
    if not engine.obey(line):
      return
  engine.stop()
