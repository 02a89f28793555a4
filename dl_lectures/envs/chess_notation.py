"""Chess as people and programs write it: FEN, UCI, SAN, PGN; text and SVG.

All of it works on one concrete state, on the host, and none of it is to be
traced. Squares have their usual names here, whoever moves.

Source: the PGN standard (Edwards, 1994), sections 8.2.3 (SAN) and 16.1 (FEN);
the UCI protocol (Huber and Meyer-Kahlen, 2000).
"""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from dl_lectures.envs import bits, chess, drawing
from dl_lectures.types import UsageError

START = 'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1'
_LETTERS = '.PNK?BRQ'  # by code
_CODES = {letter: code for code, letter in enumerate(_LETTERS) if code != 4}
_FILES = 'abcdefgh'
_KNIGHT_PLANE, _UNDER_PLANE = 56, 64
_LARGEST = 9999  # of the two numbers of a FEN

_ENDINGS = {
  chess.STALEMATE: 'stalemate',
  chess.MATERIAL: 'insufficient material',
  chess.FIFTY_MOVES: 'fifty moves',
  chess.REPETITION: 'threefold repetition',
  chess.LENGTH: f'{chess.MAX_PLIES} half moves',
}

# One position at a time, compiled once for all that is written here.
_set_up = jax.jit(chess.set_up)
_init = jax.jit(chess.init)
_play_on = jax.jit(chess.play_on)
_packed_moves = jax.jit(chess.packed_moves)


# Positions.


def from_fen(text: str) -> chess.State:
  """Returns the position of a FEN, without a past.

  Args:
    text: six fields; the last two, half moves without progress and number of
      the move, may be left out together (they are 0 and 1 then). The en
      passant square may be told after any double step; the state keeps it
      where the capture is legal.

  Raises:
    UsageError: one line that names the field and what is wrong with it.

  Example:

  >>> state = from_fen('4k3/8/8/8/8/8/4P3/4K3 w - - 0 1')
  >>> len(legal_moves(state))
  6
  """
  fields = text.split()
  if len(fields) not in (4, 6):
    raise UsageError(f'FEN: {len(fields)} fields; possible: 4 or 6')
  placement, side, castling, passing, *numbers = fields
  board = _parse_placement(placement)
  if side not in ('w', 'b'):
    raise UsageError(f'FEN side to move: {side!r}; possible: w, b')
  rights = _parse_castling(castling, board)
  double_step = _parse_passing(passing, side, board)
  clock, number = (
    _parse_number(name, least, value)
    for name, least, value in zip(
      ('half-move clock', 'move number'),
      (0, 1),
      numbers or ('0', '1'),
      strict=True,
    )
  )
  black = side == 'b'
  counts = [np.int32(value) for value in (clock, black, number)]
  nothing = np.zeros(4, bool), np.int32(-1)
  waiting = _set_up(_encode(board, not black), *nothing, *counts)
  if bool(waiting.check):
    raise UsageError(
      f'FEN placement: {"White" if black else "Black"} is in check, and it is '
      "the other side's move"
    )
  rights = rights[[2, 3, 0, 1]] if black else rights
  return _set_up(_encode(board, black), rights, np.int32(double_step), *counts)


def to_fen(state: chess.State) -> str:
  """Returns the FEN; en passant is told where the capture is legal.

  Example:

  >>> to_fen(play(['e4', 'e5']))
  'rnbqkbnr/pppp1ppp/8/4p3/4P3/8/PPPP1PPP/RNBQKBNR w KQkq - 0 2'
  """
  rows = (''.join(row) for row in _letters(state))
  placement = '/'.join(
    re.sub(r'\.+', lambda empty: str(len(empty[0])), row) for row in rows
  )
  black = int(state.ply) % 2
  rights = np.asarray(state.castling)
  rights = rights[[2, 3, 0, 1]] if black else rights
  castling = ''.join(
    letter
    for letter, right in zip('KQkq', rights[[1, 0, 3, 2]], strict=True)
    if right
  )
  file = int(state.en_passant)
  passing = f'{_FILES[file]}{3 if black else 6}' if file >= 0 else '-'
  number = int(state.first_move) + int(state.ply) // 2
  return (
    f'{placement} {"wb"[black]} {castling or "-"} {passing} '
    f'{int(state.clock)} {number}'
  )


def _parse_placement(text: str) -> np.ndarray:
  """Returns [8, 8] letters, rank 8 first, '.' where nobody stands."""
  what = 'FEN placement'
  ranks = text.split('/')
  if len(ranks) != 8:
    raise UsageError(f'{what}: {len(ranks)} ranks; possible: 8')
  board = []
  for rank, row in zip('87654321', ranks, strict=True):
    wrong = re.search(r'[^1-8pnbrqkPNBRQK]', row)
    if wrong:
      raise UsageError(
        f'{what}: {wrong[0]!r} in rank {rank}; possible: PNBRQK, pnbrqk, 1 to 8'
      )
    squares = re.sub(r'\d', lambda digit: '.' * int(digit[0]), row)
    if len(squares) != 8:
      raise UsageError(
        f'{what}: rank {rank} has {len(squares)} squares; possible: 8'
      )
    board.append(list(squares))
  letters = np.array(board)
  for king, name in (('K', 'White'), ('k', 'Black')):
    count = int((letters == king).sum())
    if count != 1:
      raise UsageError(f'{what}: {name} has {count} kings; possible: 1')
  apart = np.argwhere(letters == 'K') - np.argwhere(letters == 'k')
  if np.abs(apart).max() <= 1:
    raise UsageError(f'{what}: the kings stand side by side')
  if np.isin(letters[[0, 7]], ['P', 'p']).any():
    raise UsageError(f'{what}: a pawn on the first or the last rank')
  return letters


def _parse_castling(text: str, board: np.ndarray) -> np.ndarray:
  """Returns [4] bool: White's to the left, to the right, Black's likewise."""
  what = f'FEN castling: {text!r}'
  if not re.fullmatch(r'-|K?Q?k?q?', text):
    raise UsageError(f'{what}; possible: - or some of KQkq, in this order')
  rights = np.array([letter in text for letter in 'QKqk'])
  for index, right in enumerate(rights):
    row = 7 if index < 2 else 0
    king, rook = ('K', 'R') if index < 2 else ('k', 'r')
    corner = 7 if index % 2 else 0
    if right and (board[row, 4] != king or board[row, corner] != rook):
      raise UsageError(
        f'{what}: no {king} on e{8 - row} or no {rook} on '
        f'{_FILES[corner]}{8 - row}'
      )
  return rights


def _parse_passing(text: str, side: str, board: np.ndarray) -> int:
  """Returns the file of the pawn that made a double step, or -1."""
  if text == '-':
    return -1
  rank = '6' if side == 'w' else '3'
  if not re.fullmatch(f'[a-h]{rank}', text):
    raise UsageError(
      f'FEN en passant: {text!r}; possible: - or a square of rank {rank}'
    )
  file = _FILES.index(text[0])
  # Where the pawn came from, what it passed, where it stands.
  rows = (1, 2, 3) if side == 'w' else (6, 5, 4)
  pawn = 'p' if side == 'w' else 'P'
  if ''.join(board[row, file] for row in rows) != '..' + pawn:
    raise UsageError(f'FEN en passant: {text!r}, where no pawn has just passed')
  return file


def _parse_number(name: str, least: int, text: str) -> int:
  if not re.fullmatch(r'\d{1,4}', text) or int(text) < least:
    raise UsageError(f'FEN {name}: {text!r}; possible: {least} to {_LARGEST}')
  return int(text)


def _encode(board: np.ndarray, black: bool) -> np.ndarray:
  """Returns [8, 8] letters as a board seen by White or Black."""
  seen = (board[::-1] if black else board).reshape(-1)
  codes = np.array([_CODES[letter.upper()] for letter in seen])
  mine = np.array([letter.isupper() != black for letter in seen])
  return chess.encode(codes, mine)


def _letters(state: chess.State) -> np.ndarray:
  """Returns [8, 8] letters, rank 8 first: White's are capitals."""
  sets = np.asarray(state.boards)[0].T  # [2, 4]
  mine, *code_bits = np.asarray(bits.members(sets)).T  # [64] each
  codes = sum(bit.astype(int) << i for i, bit in enumerate(code_bits))
  black = int(state.ply) % 2 == 1
  letters = np.array(list(_LETTERS))[codes]
  letters = np.where(mine != black, letters, np.char.lower(letters))
  letters = letters.reshape(8, 8)
  return letters[::-1] if black else letters


# Moves.


class _Move(NamedTuple):
  """A move by its real squares.

  Attributes:
    action: its number.
    man: the letter of what moves, a capital.
    source: its square, such as 'e2'.
    target: likewise.
    becomes: what a pawn becomes, a capital, or ''.
    captures: something is captured.
  """

  action: int
  man: str
  source: str
  target: str
  becomes: str
  captures: bool


def legal_moves(state: chess.State) -> dict[str, int]:
  """Returns the legal moves, UCI -> action; none once the game is over."""
  return {_uci(move): move.action for move in _moves(state)}


def move_name(state: chess.State, action: int) -> str:
  """Returns the UCI name of an action, whoever moves: 'e7e5', 'a2a1q'."""
  return _uci(_move(_letters(state), int(state.ply) % 2 == 1, int(action)))


def san(state: chess.State, action: int) -> str:
  """Returns the SAN of a legal action: 'Nbd7', 'exd6', 'a1=Q+', 'O-O', 'Qh7#'.

  Raises:
    UsageError: the action is not legal here.
  """
  moves = _moves(state)
  found = [move for move in moves if move.action == int(action)]
  if not found:
    raise UsageError(f'action {int(action)} is not legal here')
  after = _play_on(state, np.int32(action))
  mate = int(after.ending) == chess.CHECKMATE
  return _san(found[0], moves) + ('#' if mate else '+' * bool(after.check))


def parse_move(state: chess.State, text: str) -> int:
  """Returns the legal action that a name in UCI or SAN means.

  SAN may lack its signs of check, or have more ('!', '?', 'e.p.', '0-0').

  Raises:
    UsageError: no legal move has the name, or several have.

  Example:

  >>> state = play(['e4', 'e5', 'Nf3'])
  >>> parse_move(state, 'Nc6') == parse_move(state, 'b8c6')
  True
  """
  moves = _moves(state)
  name = text.strip()
  for move in moves:
    if name.lower() == _uci(move):
      return move.action
  found = _match_san(name, moves)
  if len(found) == 1:
    return found[0].action
  names = ', '.join(_san(move, moves) for move in found or moves)
  if found:
    raise UsageError(f'{name!r} can mean {names}')
  if not moves:
    raise UsageError(f'{name!r} cannot be played: the game is over')
  raise UsageError(f'{name!r} is not legal here; possible: {names}')


def play(moves: Iterable[str], state: chess.State | None = None) -> chess.State:
  """Returns the state after moves in UCI or SAN.

  Args:
    moves: in order, such as ['e2e4', 'e5', 'Nf3'].
    state: where they begin; the start of a game if None.

  Raises:
    UsageError: a move that is not legal; the message has its number.
  """
  if state is None:
    state = _init(jax.random.key(0))
  for number, move in enumerate(moves, start=1):
    try:
      action = parse_move(state, move)
    except UsageError as error:
      raise UsageError(f'half move {number}: {error}') from None
    state = _play_on(state, np.int32(action))
  return state


@functools.cache
def _stateless() -> tuple[list[str], dict[str, int]]:
  names = []
  for action in range(chess.NUM_ACTIONS):
    source, plane = divmod(action, chess.NUM_PLANES)
    target = target_of(source, plane)
    name = str(action)  # it leaves the board, and is never legal
    if target is not None:
      name = _square(source, False) + _square(target, False)
      if plane >= _UNDER_PLANE:
        name += 'nbr'[(plane - _UNDER_PLANE) // 3]
    names.append(name)
  return names, {name: action for action, name in enumerate(names)}


def stateless_name(action: int) -> str:
  """Returns a name that needs no position; see `chess.action_name`."""
  return _stateless()[0][int(action)]


def parse_stateless(text: str) -> int:
  """Returns the action of such a name; a 'q' at the end may be told.

  Raises:
    UsageError: no action has the name.
  """
  name = text.strip().lower()
  numbers = _stateless()[1]
  if name not in numbers and re.fullmatch('[a-h]7[a-h]8q', name):
    name = name[:-1]
  if name not in numbers:
    raise UsageError(
      f'{text!r} is no move; possible: two squares as the mover counts them, '
      'such as e2e4, and n, b or r after a7a8 for a new man'
    )
  return numbers[name]


def target_of(source: int, plane: int) -> int | None:
  """Returns the square that a plane leads to, None if off the board."""
  row, column = divmod(source, 8)
  if plane < _KNIGHT_PLANE:
    far, way = plane // 8 + 1, chess.COMPASS[plane % 8]
  elif plane < _UNDER_PLANE:
    far, way = 1, chess.LEAPS[plane - _KNIGHT_PLANE]
  else:
    far, way = 1, (-1, (plane - _UNDER_PLANE) % 3 - 1)
    if row != 1:
      return None
  row, column = row + far * way[0], column + far * way[1]
  return 8 * row + column if 0 <= row < 8 and 0 <= column < 8 else None


def _square(number: int, black: bool) -> str:
  row, column = divmod(number, 8)
  return f'{_FILES[column]}{row + 1 if black else 8 - row}'


def _row_column(square: str) -> tuple[int, int]:
  return 8 - int(square[1]), _FILES.index(square[0])


def _moves(state: chess.State) -> list[_Move]:
  if int(state.ending) != chess.PLAYING:
    return []
  legal = np.asarray(bits.members(_packed_moves(state)))
  board, black = _letters(state), int(state.ply) % 2 == 1
  return [
    _move(board, black, int(action))
    for action in np.flatnonzero(legal.reshape(-1))
  ]


def _move(board: np.ndarray, black: bool, action: int) -> _Move:
  number, plane = divmod(action, chess.NUM_PLANES)
  target_number = target_of(number, plane)
  if target_number is None:
    raise UsageError(f'action {action} leaves the board')
  source, target = _square(number, black), _square(target_number, black)
  man = board[_row_column(source)].upper()
  becomes = ''
  if plane >= _UNDER_PLANE:
    becomes = 'NBR'[(plane - _UNDER_PLANE) // 3]
  elif man == 'P' and target_number < 8:
    becomes = 'Q'
  taken = board[_row_column(target)] != '.'
  captures = taken or (man == 'P' and source[0] != target[0])
  return _Move(action, str(man), source, target, becomes, bool(captures))


def _uci(move: _Move) -> str:
  return move.source + move.target + move.becomes.lower()


def _castles(move: _Move) -> str:
  if move.man != 'K' or move.source[0] != 'e' or move.target[0] not in 'cg':
    return ''
  return 'O-O' if move.target[0] == 'g' else 'O-O-O'


def _san(move: _Move, moves: list[_Move]) -> str:
  """Without signs of check. The rivals are among the legal moves."""
  if _castles(move):
    return _castles(move)
  takes = 'x' * move.captures
  if move.man == 'P':
    name = (move.source[0] + takes if takes else '') + move.target
    return name + ('=' + move.becomes if move.becomes else '')
  rivals = [
    other.source
    for other in moves
    if (other.man, other.target) == (move.man, move.target)
    and other.source != move.source
  ]
  which = ''
  if rivals:
    file, rank = move.source
    if file not in {rival[0] for rival in rivals}:
      which = file
    elif rank not in {rival[1] for rival in rivals}:
      which = rank
    else:
      which = move.source
  return move.man + which + takes + move.target


def _match_san(text: str, moves: list[_Move]) -> list[_Move]:
  name = re.sub(r'(\s*e\.p\.)?[+#!?]*$', '', text).replace('0', 'O')
  if name in ('O-O', 'O-O-O'):
    return [move for move in moves if _castles(move) == name]
  parts = re.fullmatch(
    '([NBRQK]?)([a-h]?)([1-8]?)x?([a-h][1-8])(?:=?([NBRQ]))?', name
  )
  if not parts:
    return []
  man, file, rank, target, becomes = parts.groups(default='')
  return [
    move
    for move in moves
    if (move.man, move.target, move.becomes) == (man or 'P', target, becomes)
    and file in ('', move.source[0])
    and rank in ('', move.source[1])
    and not _castles(move)
  ]


# Games.


class Pgn(NamedTuple):
  """A game as it was written down.

  Attributes:
    tags: such as {'White': 'Garry Kasparov', 'Result': '1-0'}.
    moves: SAN, in order, without comments and variations.
    result: '1-0', '0-1', '1/2-1/2' or '*', as it stands after the moves.
  """

  tags: dict[str, str]
  moves: list[str]
  result: str


def parse_pgn(text: str) -> list[Pgn]:
  """Returns the games of a PGN file; nothing is checked against the rules.

  Raises:
    UsageError: moves of the last game that no result ends.

  Example:

  >>> parse_pgn('[White "A"] 1. e4 {best} e5 (1... c5 2. Nf3) 2. Ke2? *')
  [Pgn(tags={'White': 'A'}, moves=['e4', 'e5', 'Ke2'], result='*')]
  """
  games, tags, moves, depth = [], {}, [], 0
  for token in re.finditer(
    r'\[\s*(?P<tag>\w+)\s+"(?P<value>(?:[^"\\]|\\.)*)"\s*\]'
    r'|\{[^}]*\}|;[^\n]*|^%[^\n]*|\$\d+'
    r'|(?P<bracket>[()])'
    r'|(?P<result>1-0|0-1|1/2-1/2|\*)'
    r'|\d+\.*(?=[\s\w({]|$)(?![-/])'
    r'|(?P<move>[A-Za-z0][-\w=]*)',
    text,
    re.MULTILINE,
  ):
    if token['tag']:
      tags[token['tag']] = re.sub(r'\\(.)', r'\1', token['value'])
    elif token['bracket']:
      depth += 1 if token['bracket'] == '(' else -1
    elif depth == 0 and token['move']:
      moves.append(token['move'])
    elif depth == 0 and token['result']:
      games.append(Pgn(tags, moves, token['result']))
      tags, moves = {}, []
  if moves:
    raise UsageError(f'PGN: no result after {moves[-1]}, move {len(moves)}')
  return games


# Boards.


def status(state: chess.State) -> str:
  """Returns who is to move or how the game ended, in words."""
  ending = int(state.ending)
  mover, other = ('White', 'Black')[:: 1 - 2 * (int(state.ply) % 2)]
  if ending == chess.CHECKMATE:
    return f'{other} wins by checkmate'
  if ending != chess.PLAYING:
    return f'draw by {_ENDINGS[ending]}'
  return f'{mover} to move' + ', in check' * bool(state.check)


def text(state: chess.State) -> str:
  """Returns the board as text, White below, the last move in brackets.

  Example:

  >>> print(text(play(['e4'])))
  8 r n b q k b n r
  7 p p p p p p p p
  6 . . . . . . . .
  5 . . . . . . . .
  4 . . . .[P]. . .
  3 . . . . . . . .
  2 P P P P[.]P P P
  1 R N B Q K B N R
    a b c d e f g h
  Black to move
  """
  marked = _last_squares(state)
  lines = []
  for row, letters in enumerate(_letters(state)):
    line = list(f'{8 - row} ' + ' '.join(letters) + ' ')
    for column in range(8):
      if (row, column) in marked:
        line[2 * column + 1], line[2 * column + 3] = '[', ']'
    lines.append(''.join(line).rstrip())
  return '\n'.join([*lines, '  ' + ' '.join(_FILES), status(state)])


def svg(state: chess.State) -> str:
  """Returns the board as SVG, White below, the last move marked."""
  pieces = {}
  for (row, column), letter in np.ndenumerate(_letters(state)):
    if letter != '.':
      # The filled signs for both: the outlined ones vanish on light squares.
      # U+FE0E asks for text where a font has a coloured picture.
      sign = '♚♛♜♝♞♟'['KQRBNP'.index(letter.upper())] + '\ufe0e'
      white = letter.isupper()
      pieces[row, column] = drawing.Piece(
        sign, '#fff' if white else '#111', '#111' if white else '#fff'
      )
  return drawing.board(
    pieces,
    columns=_FILES,
    rows='87654321',
    marked=_last_squares(state),
    caption=[status(state)],
  )


def _last_squares(state: chess.State) -> set[tuple[int, int]]:
  action = int(state.last_action)
  if action < 0:
    return set()
  source, plane = divmod(action, chess.NUM_PLANES)
  black = int(state.ply) % 2 == 0  # who has moved
  target = target_of(source, plane)
  return {
    _row_column(_square(square, black))
    for square in (source, target)
    if square is not None
  }
