"""The Go Text Protocol, version 2: an engine for graphical boards and referees.

Commands come one a line, and each is answered before the next one is read:
`= text` or `? what is wrong`, then an empty line. Specification:
https://www.lysator.liu.se/~gunnar/gtp/gtp2-spec-draft2/gtp2-spec.html
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from dl_lectures.envs import games
from dl_lectures.types import UsageError
from experiments import engine_search


class Rules(NamedTuple):
  """Go on one board, with everything compiled.

  Attributes:
    game: the rules.
    board_size: the side.
    start: the empty board.
    step: (state, action) -> state.
    legal: state -> [A] bool.
    over: state -> whether two passes have ended the game.
    black_area: state -> Black's area less White's, as the board stands.
  """

  game: games.Game
  board_size: int
  start: Any
  step: Callable[[Any, int], Any]
  legal: Callable[[Any], np.ndarray]
  over: Callable[[Any], bool]
  black_area: Callable[[Any], int]


class Engine:
  """A game of Go and who plays it: what GTP's commands act on."""

  def __init__(
    self,
    rules: Rules,
    searcher: engine_search.Searcher,
    simulations: int,
    komi: float,
    version: str,
  ):
    """Makes an engine at the empty board.

    Args:
      rules: of the board that the network knows.
      searcher: finds moves.
      simulations: of a move, where no time is set.
      komi: the points that White gets.
      version: of this program.
    """
    self._rules, self._searcher = rules, searcher
    self._simulations, self._komi, self._version = simulations, komi, version
    self._past = [rules.start]
    # By colour: main time is over when its time is 0; stones of the period.
    self._settings: tuple[float, float, int] | None = None
    self._left: dict[int, engine_search.Clock] = {}
    self._commands = {
      name.removeprefix('_do_'): getattr(self, name)
      for name in dir(self)
      if name.startswith('_do_')
    }

  def answer(self, line: str) -> str | None:
    """The whole answer to a line; None to one that asks nothing."""
    line = re.sub(r'[\x00-\x08\x0b-\x1f\x7f]', '', line.replace('\t', ' '))
    words = line.partition('#')[0].split()
    if not words:
      return None
    number = words.pop(0) if words[0].isdigit() else ''
    if not words:
      return f'?{number} a number without a command\n\n'
    name, *arguments = words
    if name not in self._commands:
      return f'?{number} unknown command\n\n'
    try:
      said = self._commands[name](*arguments)
    except UsageError as error:
      return f'?{number} {error}\n\n'
    except TypeError:
      return f'?{number} syntax error\n\n'
    return f'={number} {said or ""}'.rstrip() + '\n\n'

  @property
  def _state(self) -> Any:
    return self._past[-1]

  def _to_play(self, state: Any) -> int:
    return int(self._rules.game.to_play(state))

  def _do_protocol_version(self) -> str:
    return '2'

  def _do_name(self) -> str:
    return 'dl_lectures AlphaZero'

  def _do_version(self) -> str:
    return self._version

  def _do_known_command(self, name: str) -> str:
    return str(name in self._commands).lower()

  def _do_list_commands(self) -> str:
    return '\n'.join(sorted(self._commands))

  def _do_quit(self) -> None:
    """The loop ends after it."""

  def _do_boardsize(self, size: str) -> None:
    if _number(size, int) != self._rules.board_size:
      raise UsageError(
        f'unacceptable size; the network knows {self._rules.board_size} only'
      )
    self._do_clear_board()

  def _do_clear_board(self) -> None:
    self._past = [self._rules.start]
    self._left = {}

  def _do_komi(self, komi: str) -> None:
    self._komi = _number(komi, float)

  def _do_play(self, colour: str, vertex: str) -> None:
    player = _player(colour)
    try:
      action = self._rules.game.parse_action(vertex)
    except UsageError as error:
      raise UsageError(f'invalid vertex; {error}') from None
    past = self._past_with_turn_of(player)
    if not self._rules.legal(past[-1])[action]:
      raise UsageError('illegal move')
    self._past = [*past, self._rules.step(past[-1], action)]

  def _do_undo(self) -> None:
    if len(self._past) == 1:
      raise UsageError('cannot undo')
    self._past = self._past[:-1]

  def _do_genmove(self, colour: str) -> str:
    player = _player(colour)
    past = self._past_with_turn_of(player)
    action = self._choose(past[-1], player)
    self._past = [*past, self._rules.step(past[-1], action)]
    return self._name_of(action)

  def _do_reg_genmove(self, colour: str) -> str:
    player = _player(colour)
    past = self._past_with_turn_of(player)
    return self._name_of(self._choose(past[-1], player))

  def _do_time_settings(self, main: str, byoyomi: str, stones: str) -> None:
    settings = (
      _number(main, float),
      _number(byoyomi, float),
      _number(stones, int),
    )
    # The specification's way to say that there is no limit.
    no_limit = settings[1] > 0 and settings[2] == 0
    self._settings = None if no_limit else settings
    self._left = {}

  def _do_time_left(self, colour: str, seconds: str, stones: str) -> None:
    left, moves = _number(seconds, float), _number(stones, int)
    self._left[_player(colour)] = engine_search.Clock(left, moves=moves)

  def _do_final_score(self) -> str:
    margin = self._rules.black_area(self._state) - self._komi
    return f'{"B" if margin > 0 else "W"}+{abs(margin):g}' if margin else '0'

  def _do_showboard(self) -> str:
    return '\n' + self._rules.game.render(self._state)

  def _past_with_turn_of(self, player: int) -> list[Any]:
    """The states so far; where the other would move, it has passed."""
    if self._rules.over(self._state):
      raise UsageError('illegal move; the game is over')
    if self._to_play(self._state) == player:
      return self._past
    pass_move = self._rules.board_size**2
    state = self._rules.step(self._state, pass_move)
    if self._rules.over(state):
      raise UsageError('illegal move; after two passes the game is over')
    return [*self._past, state]

  def _choose(self, state: Any, player: int) -> int:
    clock = self._left.get(player)
    if clock is None and self._settings is not None:
      main, period, stones = self._settings
      clock = engine_search.Clock(main or period, moves=0 if main else stones)
    seconds = None if clock is None else engine_search.seconds_for(clock)
    # The time that is left is enough for fewer simulations, never for more.
    task = engine_search.Task(self._simulations, seconds)
    return engine_search.think(self._searcher, state, task).line[0]

  def _name_of(self, action: int) -> str:
    return self._rules.game.action_name(action)


def serve(
  engine: Engine, lines: Iterable[str], write: Callable[[str], None]
) -> None:
  """Answers lines until `quit`, or until there are no more."""
  for line in lines:
    said = engine.answer(line)
    if said is None:
      continue
    write(said)
    if 'quit' in line.partition('#')[0].split()[:2] and said.startswith('='):
      return


def _player(colour: str) -> int:
  players = {'b': 0, 'black': 0, 'w': 1, 'white': 1}
  if colour.lower() not in players:
    raise UsageError(f'invalid color {colour!r}; possible: black, white')
  return players[colour.lower()]


def _number(text: str, kind: Callable[[str], Any]) -> Any:
  try:
    value = kind(text)
  except ValueError:
    value = None
  if value is None or not np.isfinite(value):
    raise UsageError(f'syntax error; {text!r} is not a number')
  return value
