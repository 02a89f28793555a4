"""Go on paper: game records (SGF), diagrams, pictures (SVG).

All of it works on the host. Points are named as in GTP, A1 at the bottom left
and no letter I (`go.action_name`, `go.parse_action`, `go.render`); an SGF file
has its own names, two letters from the top left, column first.

Example: a record is read, played through, and written again.

>>> record = read_sgf('(;GM[1]SZ[5]KM[24.5];B[cc];W[dc];B[db](;W[bc])(;W[ed]))')
>>> [go.action_name(5, action) for action in record.moves]
['C3', 'D3', 'D4', 'B3']
>>> game, state = replay(record)
>>> int(state.ply), game.action_name(int(state.last_action))
(4, 'B3')
>>> write_sgf(record)
'(;GM[1]FF[4]SZ[5]KM[24.5];B[cc];W[dc];B[db];W[bc])\\n'

Source: the formats, SGF FF[4], https://www.red-bean.com/sgf/; GTP version 2,
https://www.lysator.liu.se/~gunnar/gtp/.
"""

import html
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dl_lectures.envs import games, go
from dl_lectures.types import UsageError

_SGF_LETTERS = 'abcdefghijklmnopqrstuvwxyz'
_SIDES = 'BW'
# What writers call the players' names, the result and so on.
_TOLD = {'black_name': 'PB', 'white_name': 'PW', 'result': 'RE'}


class Record(NamedTuple):
  """A game as it was played.

  Attributes:
    board_size: the board's side.
    moves: actions of `go`, the players in turn; who plays twice in a row in
      the file has been passed to in between.
    komi: White's points, None where the file does not tell.
    black: cells with a black stone before the first move.
    white: cells with a white stone.
    to_play: who moves first, 0 Black, 1 White.
    result: as in the file: 'B+3.5', 'W+R' (resigned), '0' (a draw), ''.
    black_name: Black's name.
    white_name: White's name.
  """

  board_size: int
  moves: tuple[int, ...] = ()
  komi: float | None = None
  black: tuple[int, ...] = ()
  white: tuple[int, ...] = ()
  to_play: int = 0
  result: str = ''
  black_name: str = ''
  white_name: str = ''


Node = dict[str, list[str]]  # properties and their values

_TOKEN = re.compile(
  r'\s*(?:(?P<mark>[();])|(?P<name>[A-Za-z]+)|\[(?P<value>(?:\\.|[^\\\]])*)\])',
  re.DOTALL,
)


def _main_line(text: str) -> list[Node]:
  """Returns the nodes of the first game's first variation."""
  at = text.find('(')
  if at < 0:
    raise UsageError("SGF: no '(' that begins a game")
  nodes: list[Node] = []
  name, depth = '', 0
  # A variation that has been closed ends the main line; what follows, up to
  # the game's last ')', are other variations.
  ended = False
  while match := _TOKEN.match(text, at):
    at = match.end()
    mark = match['mark']
    if mark == '(':
      depth += 1
    elif mark == ')':
      ended, depth = True, depth - 1
      if not depth:
        if not nodes:
          raise UsageError('SGF: a game without a node')
        return nodes
    elif ended:
      continue
    elif mark == ';':
      nodes.append({})
      name = ''
    elif not nodes:
      raise UsageError(f"SGF: {match[0].strip()} before the first ';'")
    elif match['name']:
      # Old files write Black for B: small letters do not count.
      name = re.sub('[a-z]', '', match['name'])
      nodes[-1].setdefault(name, [])
    elif name:
      value = re.sub(r'\\\r?\n', '', match['value'])
      nodes[-1][name].append(re.sub(r'\\(.)', r'\1', value, flags=re.DOTALL))
    else:
      raise UsageError(
        f'SGF: node {len(nodes)}: a value without a property, {match[0]}'
      )
  if text[at:].strip():
    line = text.count('\n', 0, at) + 1
    raise UsageError(
      f'SGF: line {line}: neither a node nor a property: '
      f'{text[at:].split()[0][:20]!r}'
    )
  raise UsageError("SGF: the game's last ')' is missing")


def _points(name: str, value: str, size: int) -> Iterator[int]:
  """Yields the cells of a point 'cd' or a rectangle 'cd:ef'."""
  first, _, last = value.strip().partition(':')
  corners = [
    [_SGF_LETTERS[:size].find(letter) for letter in point]
    for point in (first, last or first)
  ]
  if any(len(x) != 2 or min(x) < 0 for x in corners):
    last = _SGF_LETTERS[size - 1]
    raise UsageError(
      f'SGF: {name}[{value}]: no point of a {size}x{size} board; '
      f'possible: aa to {last}{last}'
    )
  (left, top), (right, bottom) = corners
  for row in range(top, bottom + 1):
    yield from range(row * size + left, row * size + right + 1)


def _number(root: Node, name: str) -> float | None:
  text = root.get(name, [''])[0].strip()
  if not text:
    return None
  try:
    return float(text)
  except ValueError:
    raise UsageError(f'SGF: {name}[{text}]: not a number') from None


def read_sgf(text: str) -> Record:
  """Returns the main line of the first game in an SGF file.

  Komi of 100 and more is read as hundredths of a Chinese stone, two points,
  as some servers write it (375 for 7.5).

  Args:
    text: the file.

  Raises:
    UsageError: what is malformed, in one line, with the number of the move or
      the node: a game that is not Go, an impossible board size or point,
      stones set up after the first move, a file that ends too early.
  """
  nodes = _main_line(text)
  root = nodes[0]
  if root.get('GM', ['1'])[0].strip() not in ('1', ''):
    raise UsageError(f'SGF: GM[{root["GM"][0]}]: not Go, which is GM[1]')
  size_text = root.get('SZ', ['19'])[0].strip()
  if not size_text.isdecimal() or not 2 <= int(size_text) <= go.MAX_BOARD_SIZE:
    raise UsageError(
      f'SGF: SZ[{size_text}]: possible: 2 to {go.MAX_BOARD_SIZE}, square'
    )
  size = int(size_text)
  komi = _number(root, 'KM')
  if komi is not None and abs(komi) >= 100:
    komi /= 50
  stones: dict[int, int] = {}
  to_play = -1  # not told yet
  moves: list[int] = []
  for number, node in enumerate(nodes, start=1):
    for name in ('AB', 'AW', 'AE'):
      for value in node.get(name, ()):
        if moves:
          raise UsageError(
            f'SGF: node {number}: {name} after the first move; possible: before'
          )
        for cell in _points(name, value, size):
          stones.pop(cell, None)
          if name != 'AE':
            stones[cell] = ('AB', 'AW').index(name)
    told = node.get('PL', [''])[0].strip().upper()[:1]
    if told and not moves:
      if told not in _SIDES:
        raise UsageError(f'SGF: PL[{told}]: possible: B, W')
      to_play = _SIDES.index(told)
    for side, name in enumerate(_SIDES):
      if name not in node:
        continue
      if not node[name]:
        raise UsageError(f'SGF: move {len(moves) + 1}, {name}: no point')
      value = node[name][0].strip()
      if not moves:
        to_play = side
      elif (to_play + len(moves)) % 2 != side:
        moves.append(size * size)
      if not value or (value == 'tt' and size <= 19):
        moves.append(size * size)
        continue
      cell, *others = _points(f'move {len(moves) + 1}, {name}', value, size)
      if others:
        raise UsageError(
          f'SGF: move {len(moves) + 1}, {name}[{value}]: a move is one point'
        )
      moves.append(cell)
  black, white = (
    tuple(sorted(cell for cell, x in stones.items() if x == side))
    for side in (0, 1)
  )
  if to_play < 0:
    to_play = int(bool(black) and not white)  # a handicap game
  return Record(
    board_size=size,
    moves=tuple(moves),
    komi=komi,
    black=black,
    white=white,
    to_play=to_play,
    **{field: root.get(name, [''])[0].strip() for field, name in _TOLD.items()},
  )


def _sgf_point(size: int, action: int) -> str:
  if action == size * size:
    return ''
  row, column = divmod(action, size)
  return _SGF_LETTERS[column] + _SGF_LETTERS[row]


def write_sgf(record: Record) -> str:
  """Returns the record as an SGF file, which `read_sgf` reads back."""
  size = record.board_size
  parts = ['(;GM[1]FF[4]', f'SZ[{size}]']
  if record.komi is not None:
    parts.append(f'KM[{record.komi:g}]')
  for field, name in _TOLD.items():
    if value := getattr(record, field):
      escaped = re.sub(r'([\\\]])', r'\\\1', value)
      parts.append(f'{name}[{escaped}]')
  for name, cells in (('AB', record.black), ('AW', record.white)):
    if cells:
      points = ''.join(f'[{_sgf_point(size, cell)}]' for cell in cells)
      parts.append(name + points)
  if record.black or record.white or record.to_play:
    parts.append(f'PL[{_SIDES[record.to_play]}]')
  for number, action in enumerate(record.moves):
    side = _SIDES[(record.to_play + number) % 2]
    parts.append(f';{side}[{_sgf_point(size, action)}]')
  return ''.join(parts) + ')\n'


def replay(
  record: Record, superko: str = 'positional'
) -> tuple[games.Game, go.State]:
  """Plays a record through and returns the game and its last position.

  Args:
    record: the game.
    superko: as in `go.make`.

  Raises:
    UsageError: a position that cannot be set up, an illegal move.
  """
  rules = go.rules(record.board_size, record.komi, superko)
  longest = max(rules.max_plies, len(record.moves))
  rules = rules._replace(max_plies=longest)
  game = go.make(*rules)
  start = go.setup(rules, record.black, record.white, record.to_play)
  moves = [game.action_name(action) for action in record.moves]
  return game, games.play_moves(game, moves, start)


def read_diagram(text: str) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
  """Returns (board size, Black's cells, White's cells) of a diagram.

  Args:
    text: rows of '.', 'X' (Black) and 'O' (White) from the top; blanks,
      brackets, coordinates and what is below the board are skipped, so that
      the text of `go.render` can be read.

  Raises:
    UsageError: the board is not square.

  Example:

  >>> read_diagram('''
  ...  . X
  ...  O .''')
  (2, (1,), (2,))
  """
  rows = []
  for line in text.splitlines():
    cells = re.sub(r'[\s\d\[\]]', '', line)
    if cells and not cells.strip('.XO'):
      rows.append(cells)
  if not rows or any(len(row) != len(rows) for row in rows):
    widths = ', '.join(str(x) for x in sorted({len(row) for row in rows}))
    what = f'rows of {widths} points' if len(rows) > 1 else 'no row'
    raise UsageError(f'diagram: {what}; possible: a square of . X O')
  cells = ''.join(rows)
  black, white = (
    tuple(i for i, x in enumerate(cells) if x == colour) for colour in 'XO'
  )
  return len(rows), black, white


_CELL = 28
_STARS = {9: (2, 4, 6), 13: (3, 6, 9), 19: (3, 9, 15)}


def svg(state: go.State, numbers: Mapping[int, int] | None = None) -> str:
  """Returns the position as an SVG picture; the last stone has a dot.

  Args:
    state: the position.
    numbers: a number to write on a cell's stone, or on the empty cell, such
      as that of the move: `{action: ply for ply, action in ...}`.

  Example:

  >>> state = games.play_moves(go.make(9), ['E5', 'C3'])
  >>> svg(state).count('<circle')  # two stones, a dot, three star points
  6
  """
  colours = np.sign(np.asarray(state.chains))
  size = round(len(colours) ** 0.5)
  numbers = numbers or {}
  first, last = _CELL, _CELL * size
  edge = last + _CELL
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{edge}" height="{edge}" '
    f'viewBox="0 0 {edge} {edge}" font-family="sans-serif" font-size="11" '
    'text-anchor="middle">',
    f'<title>{html.escape(go.render(state).splitlines()[-1])}</title>',
    f'<rect width="{edge}" height="{edge}" fill="#e6bf72"/>',
  ]
  lines = ''.join(
    f'M{first} {x}H{last}M{x} {first}V{last}'
    for x in range(first, last + 1, _CELL)
  )
  parts.append(f'<path d="{lines}" stroke="#444" fill="none"/>')
  for i in range(size):
    x, letter = _CELL * (i + 1), go.action_name(size, i)[0]
    for y in (11, edge - 4):
      parts.append(f'<text x="{x}" y="{y}">{letter}</text>')
    for y in (8, edge - 8):
      parts.append(f'<text x="{y}" y="{x + 4}">{size - i}</text>')
  stars = _STARS.get(size, ())
  for cell, colour in enumerate(colours):
    row, column = divmod(cell, size)
    x, y = _CELL * (column + 1), _CELL * (row + 1)
    ink = '#fff' if colour > 0 else '#000'
    if colour:
      fill = '#111' if colour > 0 else '#fafafa'
      parts.append(
        f'<circle cx="{x}" cy="{y}" r="{_CELL * 0.47:.1f}" fill="{fill}" '
        'stroke="#111"/>'
      )
    elif (
      row in stars
      and column in stars
      and (size == 19 or (2 * row + 1 == size) == (2 * column + 1 == size))
    ):
      parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="#444"/>')
    if cell in numbers:
      if not colour:  # the lines would run through it
        parts.append(
          f'<rect x="{x - 9}" y="{y - 8}" width="18" height="16" '
          'fill="#e6bf72"/>'
        )
      parts.append(
        f'<text x="{x}" y="{y + 4}" fill="{ink}">{numbers[cell]}</text>'
      )
    elif cell == int(state.last_action):
      parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{ink}"/>')
  return '\n'.join([*parts, '</svg>'])
