"""Plays a board game against a trained AlphaZero, in the terminal.

A move is typed as the board names it; undo, swap, hint, new and quit do what
they say, and help tells more. After each of its moves the network shows what it
thought of every move: its prior, which is the network's at first sight, and the
visits and the value of the search, which made the choice.
"""

import difflib
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.types import Array, UsageError
from experiments import tool

COMMANDS = {
  'undo': 'takes back your last move, and the answer to it',
  'swap': 'changes sides',
  'hint': 'shows what the network would play in your place',
  'new': 'begins another game',
  'help': 'shows this',
  'quit': 'ends; so do Ctrl-C and Ctrl-D',
}

# Of games with more moves only the best are shown.
_MOST_ROWS = 10
_BAR = 20


class Position(NamedTuple):
  """A position, and what the rules say of it.

  Attributes:
    state: the game's.
    player: 0 or 1, whose turn it is.
    legal: [A] bool.
    over: whether nobody may move.
    reward: [2], each player's result.
  """

  state: Any
  player: int
  legal: np.ndarray
  over: bool
  reward: np.ndarray


class Row(NamedTuple):
  """What is thought of one move.

  Attributes:
    action: the move.
    prior: how likely the network plays it without search.
    visits: how many simulations went through it; 0 without search.
    value: for whoever makes the move, what the search found it to be worth;
      where it did not go, what the network says of the position that follows.
  """

  action: int
  prior: float
  visits: int
  value: float


class Thought(NamedTuple):
  """What is thought of a position.

  Attributes:
    action: the move to play.
    rows: of the legal moves, or the best of many.
    left_out: the number of legal moves without a row.
    value: of the position for the player to move, after the search.
  """

  action: int
  rows: Sequence[Row]
  left_out: int
  value: float


class Match(NamedTuple):
  """A game so far, and who plays it.

  Attributes:
    past: every position of it; the last is on the board.
    person: 0 or 1, the player that is a person.
  """

  past: tuple[Position, ...]
  person: int

  @property
  def now(self) -> Position:
    """The position on the board."""
    return self.past[-1]


class Table(NamedTuple):
  """Where a match is played, with everything compiled.

  Attributes:
    game: the rules.
    start: the first position.
    step: the position after an action.
    think: what the network makes of a position.
  """

  game: games.Game
  start: Position
  step: Callable[[Position, int], Position]
  think: Callable[[Position], Thought]


def play(workdir: str, simulations: int, first: str) -> None:
  """Plays until the person has had enough.

  Args:
    workdir: of the run whose newest player is met.
    simulations: of a move; 0 is the raw network.
    first: who begins, 'you' or 'network'.
  """
  try:
    trained = alphazero.load(workdir)
    how = f'{simulations} simulations a move' if simulations else 'no search'
    print(f'{trained.game.name}, {workdir} at step {trained.step}, {how}')
    print('compiling ...', flush=True)
    table = lay(trained, simulations)
    table.think(table.start)
    print('Type a move, or help.')
    match = Match((table.start,), 0 if first == 'you' else 1)
    show(table, match)
    while True:
      if not match.now.over and match.now.player != match.person:
        match = answer(table, match)
        continue
      try:
        order = read(table.game, ask())
        if order == 'quit':
          break
        match = obey(table, match, order)
      except UsageError as error:
        print(error)
  except (EOFError, KeyboardInterrupt):
    print()
  print('Thank you for the game.')


def lay(trained: alphazero.Trained, simulations: int) -> Table:
  """Prepares a table for matches against a player."""
  game = trained.game

  @jax.jit
  def rules(state):
    return (
      game.to_play(state),
      game.legal_mask(state),
      game.terminal(state),
      game.reward(state),
    )

  def look(state: Any) -> Position:
    player, legal, over, reward = jax.device_get(rules(state))
    return Position(state, int(player), legal, bool(over), reward)

  step = jax.jit(game.step)
  return Table(
    game,
    look(game.init(jax.random.key(0))),
    lambda position, action: look(step(position.state, action)),
    make_thinker(trained, simulations),
  )


def make_thinker(
  trained: alphazero.Trained, simulations: int
) -> Callable[[Position], Thought]:
  """The player of a run, with a look at the positions that may follow."""
  game, weights = trained.game, trained.weights
  search, glance = (
    alphazero.think(trained.config, game, trained.net, n)
    for n in (simulations, 0)
  )

  @jax.jit
  def after(state: Any, actions: Array):
    states = jax.vmap(game.step, (None, 0))(state, actions)
    mover = game.to_play(state)
    return (
      states,
      jax.vmap(game.to_play)(states) == mover,
      jax.vmap(game.terminal)(states),
      jax.vmap(game.reward)(states)[:, mover],
    )

  def think(position: Position) -> Thought:
    states = jax.tree.map(lambda x: x[None], position.state)
    found = jax.device_get(search(weights, states))
    visits, prior = found.visits[0], found.prior[0]
    best = np.lexsort((-prior, -visits))
    best = best[position.legal[best]]
    shown = np.sort(best) if len(best) <= _MOST_ROWS else best[:_MOST_ROWS]
    # One shape whatever the number of moves, so that this compiles once.
    actions = np.resize(shown, min(game.num_actions, _MOST_ROWS))
    states, same, over, result = after(position.state, actions)
    seen = glance(weights, states).value
    values = np.where(over, result, np.where(same, seen, -seen))
    searched = found.visits[0][actions] > 0
    values = np.where(searched, found.qvalues[0][actions], values)
    rows = [
      Row(int(a), float(prior[a]), int(visits[a]), float(value))
      for a, value in zip(shown, values, strict=False)
    ]
    left_out = len(best) - len(shown)
    return Thought(int(found.action[0]), rows, left_out, float(found.value[0]))

  return think


def answer(table: Table, match: Match) -> Match:
  """Lets the network move, and shows what it thought."""
  start = time.monotonic()
  thought = table.think(match.now)
  seconds = time.monotonic() - start
  after = table.step(match.now, thought.action)
  name = table.game.action_name(thought.action)
  print(f'\nThe network plays {name}, after {seconds:.1f} s.\n')
  print(to_text(table.game, thought))
  match = match._replace(past=(*match.past, after))
  show(table, match)
  return match


def ask() -> str:
  """One line that the person types."""
  text = input('> ')
  if not sys.stdin.isatty():
    print(text)  # what is piped in is not seen otherwise
  return text


def read(game: games.Game, text: str) -> str | int:
  """A command or an action.

  A move that is called like a command is the move, and /command the command.

  Raises:
    UsageError: the text is neither.
  """
  word = text.strip().lower()
  if not word:
    raise UsageError('type a move, or help')
  try:
    return game.parse_action(text)
  except UsageError as error:
    word = {'q': 'quit', 'exit': 'quit'}.get(word, word.removeprefix('/'))
    if word in COMMANDS:
      return word
    near = difflib.get_close_matches(word, COMMANDS, 1, 0.5)
    raise UsageError(
      f'{error}, or {", ".join(COMMANDS)}'
      + (f'; did you mean {near[0]}?' if near else '')
    ) from None


def obey(table: Table, match: Match, order: str | int) -> Match:
  """Does what the person asks for.

  Args:
    table: where the match is played.
    match: with the person to move, or over.
    order: one of `COMMANDS` but 'quit', or an action.

  Raises:
    UsageError: it cannot be done; nothing has changed.
  """
  now = match.now
  if now.over and (order == 'hint' or isinstance(order, int)):
    raise UsageError('the game is over; possible: new, undo, swap, quit')
  if isinstance(order, int):
    if not now.legal[order]:
      raise UsageError(
        f'{table.game.action_name(order)} is illegal here; possible: '
        + _some_names(table.game, np.flatnonzero(now.legal).tolist())
      )
    match = match._replace(past=(*match.past, table.step(now, order)))
    if match.now.over or match.now.player == match.person:
      show(table, match)
  elif order == 'undo':
    mine = [p.player == match.person for p in match.past[:-1]]
    if not any(mine):
      raise UsageError('there is no move of yours to take back')
    last = len(mine) - mine[::-1].index(True)
    match = match._replace(past=match.past[:last])
    show(table, match)
  elif order == 'swap':
    match = match._replace(person=1 - match.person)
    which = ('first', 'second')[match.person]
    print(f'You are the {which} player now.')
  elif order == 'hint':
    thought = table.think(now)
    print(f'\nIt would play {table.game.action_name(thought.action)}.\n')
    print(to_text(table.game, thought))
  elif order == 'new':
    match = match._replace(past=(table.start,))
    show(table, match)
  else:
    print(instructions(table.game))
  return match


def _some_names(game: games.Game, actions: Sequence[int]) -> str:
  names = [game.action_name(action) for action in actions]
  return ', '.join(names[:20]) + (' ...' if len(names) > 20 else '')


def instructions(game: games.Game) -> str:
  """What may be typed."""
  names = [game.action_name(action) for action in range(game.num_actions)]
  lines = [f'  {names[0]} ... {names[-1]:<6} plays a move'] + [
    f'  {command:<12} {meaning}' for command, meaning in COMMANDS.items()
  ]
  clash = [name for name in names if name in COMMANDS]
  lines += [f'  /{c:<11} the command, where {c} is a move' for c in clash]
  lines += [
    'Of each move are shown: value, what the search found it to be worth, or',
    'the network at first sight where the search did not go; prior, how likely',
    'the network plays it without search; visits, how often the search went',
    'there. A value of +1 is a win, -1 a loss, for whoever makes the move.',
  ]
  return '\n'.join(lines)


def show(table: Table, match: Match) -> None:
  """Prints the board, and of a game that is over who won it."""
  print(f'\n{decorate(table.game.render(match.now.state))}')
  if match.now.over:
    result = np.sign(match.now.reward[match.person])
    said = {1: 'You win', 0: 'A draw', -1: 'You lose'}[int(result)]
    print(f'{said}. Possible: new, undo, swap, quit.')


def to_text(game: games.Game, thought: Thought) -> str:
  """What was thought of every move, as a table."""
  searched = sum(row.visits for row in thought.rows)
  names = [game.action_name(row.action) for row in thought.rows]
  width = max(map(len, ['move', *names]))
  line = f'  {"move":>{width}}  value  {"prior":<{_BAR + 6}}'
  lines = [line + '  visits' * bool(searched)]
  for name, row in zip(names, thought.rows, strict=True):
    mark = '>' if row.action == thought.action else ' '
    line = f'{mark} {name:>{width}}  {_signed(row.value)}'
    line += f'  {row.prior:>5.0%} {_bar(row.prior):<{_BAR}}'
    if searched:
      line += f'  {row.visits:>6} {_bar(row.visits / searched)}'
    lines.append(line)
  if thought.left_out:
    lines.append(f'  and {thought.left_out} more')
  lines.append(f'  the position is worth {_signed(thought.value)}')
  return '\n'.join(line.rstrip() for line in lines)


def _signed(value: float) -> str:
  """A value with its sign, without a negative zero.

  >>> _signed(-0.001), _signed(0.5)
  ('+0.00', '+0.50')
  """
  return f'{round(float(value), 2) + 0.0:+.2f}'


def _bar(share: float) -> str:
  """A share as a bar.

  >>> _bar(0.0), len(_bar(1.0))
  ('', 20)
  """
  return ('█' if _has_blocks() else '#') * round(_BAR * float(share))


def _has_blocks() -> bool:
  return 'utf' in (getattr(sys.stdout, 'encoding', None) or '').lower()


def decorate(board: str) -> str:
  """Stones in colour, on a terminal that shows them."""
  plain = (
    not sys.stdout.isatty()
    or os.environ.get('NO_COLOR')
    or os.environ.get('TERM') == 'dumb'
  )
  if plain:
    return board
  stones = {'X': ('33', '●'), 'O': ('31', '○')}

  def paint(found: re.Match[str]) -> str:
    colour, stone = stones[found[0]]
    return f'\033[1;{colour}m{stone if _has_blocks() else found[0]}\033[0m'

  return re.sub(r'\b[XO]\b', paint, board)


def main() -> None:
  """Runs the program."""
  tool.run(
    play,
    doc=__doc__,
    flags=(
      tool.Flag('workdir', 'the directory of a run'),
      tool.Flag(
        'simulations',
        'of a move; 0 is the network without search',
        256,
        tool.whole_number(0, 100_000),
      ),
      tool.Flag(
        'first',
        'who begins: you or network',
        'you',
        tool.one_of('you', 'network'),
      ),
    ),
    examples=(
      '--workdir=runs/alphazero',
      '--workdir=runs/alphazero --simulations=1000 --first=network',
      '--workdir=runs/alphazero --simulations=0',
    ),
  )


if __name__ == '__main__':
  main()
