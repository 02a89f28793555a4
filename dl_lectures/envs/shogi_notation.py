"""How shogi is written: SFEN and USI, records in CSA, boards as SVG.

All of it is for people and programs to read, works on the host, and is never
traced. Squares are named as on the board: file 1-9 from Black's right, rank
a-i from White's side, whoever moves.

>>> state = position('startpos moves 7g7f 3c3d')
>>> sfen(state)
'lnsgkgsnl/1r5b1/pppppp1pp/6p2/9/2P6/PP1PPPPPP/1B5R1/LNSGKGSNL b - 3'
>>> [usi(move, 0) for move in legal_actions(state)][:3]
['7f7e', '9g9f', '8g8f']

Source: "The Universal Shogi Interface" (T. Romstad, 2007) for SFEN and moves;
"CSA standard kifu file format" (Computer Shogi Association) for records.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from dl_lectures.envs import drawing, shogi
from dl_lectures.types import UsageError

START = 'lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1'
_HAND_ORDER = 'RBGSNLP'  # as SFEN writes it


def sfen(state: shogi.State) -> str:
  """Returns the position as SFEN: board, mover, hands, number of the move.

  >>> sfen(shogi.init(jax.random.key(0))) == START
  True
  """
  rows = []
  for row in shogi.squares(state):
    text = ''.join(piece or '.' for piece in row)
    rows.append(re.sub(r'\.+', lambda empty: str(len(empty[0])), text))
  held = ''
  for color, hand in enumerate(shogi.hand_counts(state)):
    for piece in _HAND_ORDER:
      number = int(hand[shogi.HAND.index(piece)])
      if number:
        letter = piece.lower() if color else piece
        held += f'{number if number > 1 else ""}{letter}'
  mover = 'bw'[int(state.color)]
  return f'{"/".join(rows)} {mover} {held or "-"} {int(state.ply) + 1}'


def from_sfen(text: str) -> shogi.State:
  """Returns the position of an SFEN; what came before it is unknown.

  The number of the move may be left out, and counts towards the 512 plies.

  Raises:
    UsageError: the text is malformed, or no game leads to it: too many pieces,
      a side without its king, a pawn or lance that cannot move, two pawns on
      a file, the side that waits in check. The message names the field.
  """
  fields = text.split()
  if not 3 <= len(fields) <= 4:
    raise UsageError(
      f'SFEN {text!r}: {len(fields)} fields; possible: board, mover, hands '
      'and the number of the move'
    )
  board = _board(fields[0])
  if fields[1] not in ('b', 'w'):
    raise UsageError(f'SFEN mover {fields[1]!r}; possible: b, w')
  color = 'bw'.index(fields[1])
  hands = _hands(fields[2])
  number = fields[3] if len(fields) == 4 else '1'
  if not re.fullmatch('[0-9]{1,4}', number) or not (
    1 <= int(number) <= shogi.MAX_PLIES
  ):
    raise UsageError(
      f'SFEN move number {number!r}; possible: 1 to {shogi.MAX_PLIES}'
    )
  _check(board, hands)
  letters = np.array(
    [shogi.PIECES.find(x[-1:].upper()) + 1 if x else 0 for x in board]
  )
  promoted = np.array([x.startswith('+') for x in board])
  black = np.array([x.isupper() for x in board])
  codes = letters + shogi.PROMOTED * promoted
  mine = black if color == 0 else ~black & (codes > 0)
  if color:
    codes, mine, hands = codes[::-1], mine[::-1], hands[::-1]
  # If the one who waits were to move, would he be in check?
  if bool(_in_check(_seen_by_other(codes, mine, hands))):
    waiting = 'Black' if color else 'White'
    raise UsageError(f'SFEN board: {waiting} is in check and not to move')
  return shogi.start(codes, mine, hands, color, int(number) - 1)


_in_check = jax.jit(shogi.in_check)


def _seen_by_other(codes, mine, hands) -> shogi.State:
  theirs = (~mine & (codes > 0))[::-1]
  return shogi.start(codes[::-1], theirs, hands[::-1], 0, 0)


def _board(text: str) -> list[str]:
  """Returns 81 pieces as of `shogi.squares`, in reading order."""
  rows = text.split('/')
  if len(rows) != shogi.SIZE:
    raise UsageError(f'SFEN board: {len(rows)} ranks; possible: 9')
  board = []
  for rank, row in zip('abcdefghi', rows, strict=True):
    tokens = re.findall(r'\+?[A-Za-z]|[1-9]|.', row)
    cells = []
    for token in tokens:
      if token in '123456789':
        cells += [''] * int(token)
      elif re.fullmatch(r'\+?[PLNSBRplnsbr]|[GKgk]', token):
        cells.append(token)
      else:
        raise UsageError(
          f'SFEN board, rank {rank}: {token!r}; possible: 1-9 and '
          'PLNSBRGK or plnsbrgk, + before PLNSBR or plnsbr'
        )
    if len(cells) != shogi.SIZE:
      raise UsageError(
        f'SFEN board, rank {rank}: {len(cells)} squares; possible: 9'
      )
    board += cells
  return board


def _hands(text: str) -> np.ndarray:
  """Returns [2, 7] counts, Black's and White's."""
  hands = np.zeros((2, len(shogi.HAND)), int)
  if text == '-':
    return hands
  if not re.fullmatch(r'(?:(?:[1-9][0-9]?)?[PLNSBRGplnsbrg])+', text):
    raise UsageError(
      f'SFEN hands {text!r}; possible: - or counts and pieces, as 2P3g'
    )
  for number, piece in re.findall(r'([0-9]*)([A-Za-z])', text):
    index = shogi.HAND.index(piece.upper())
    hands[int(piece.islower()), index] += int(number or 1)
  return hands


def _check(board: list[str], hands: np.ndarray) -> None:
  """Raises UsageError for a position that no game leads to."""
  for index, (piece, most) in enumerate(
    zip(shogi.HAND, shogi.MOST_IN_HAND, strict=True)
  ):
    on_board = sum(x[-1:].upper() == piece for x in board)
    found = on_board + int(hands[:, index].sum())
    if found > most:
      raise UsageError(
        f'SFEN board and hands: {found} of {piece}; possible: {most}'
      )
  for king, name in (('K', 'Black'), ('k', 'White')):
    if board.count(king) != 1:
      raise UsageError(
        f'SFEN board: {board.count(king)} kings of {name}; possible: 1'
      )
  for color in (0, 1):
    seen = board[::-1] if color else board
    pawn, lance, knight = 'pln' if color else 'PLN'
    for piece, rows in ((pawn, 1), (lance, 1), (knight, 2)):
      if piece in seen[: rows * shogi.SIZE]:
        raise UsageError(f'SFEN board: a {piece} that can never move')
    for column in range(shogi.SIZE):
      if seen[column :: shogi.SIZE].count(pawn) > 1:
        raise UsageError(f'SFEN board: two {pawn} on one file')


def usi(action: int, color: int) -> str:
  """Returns a move as USI writes it, '7g7f', '2b3a+', 'P*5e'.

  Args:
    action: as the mover sees the board.
    color: who moves, 0 Black, 1 White.

  >>> usi(shogi.parse_action('7g7f'), 1)
  '3c3d'
  """
  name = shogi.action_name(action)
  return _rotated(name) if color else name


def parse_usi(text: str, color: int) -> int:
  """Returns the action of a move in USI; `usi` tells the arguments.

  Raises:
    UsageError: no move of any piece is written so.
  """
  try:
    return shogi.parse_action(_rotated(text) if color else text)
  except UsageError:
    return shogi.parse_action(text)  # tell what was given, not its rotation


_OTHER_SIDE = str.maketrans('123456789abcdefghi', '987654321ihgfedcba')


def _rotated(name: str) -> str:
  return name.translate(_OTHER_SIDE)


_legal_mask = jax.jit(shogi.legal_mask)


def legal_actions(state: shogi.State) -> list[int]:
  """Returns the legal actions; `usi` names them."""
  return [int(action) for action in np.flatnonzero(_legal_mask(state))]


def position(text: str) -> shogi.State:
  """Returns the position of USI's command: 'startpos moves 7g7f 3c3d'.

  Args:
    text: 'startpos' or 'sfen ...', then perhaps 'moves' and the moves; the
      word 'position' may stand before.

  Raises:
    UsageError: what is malformed, or the first illegal move and its number.
  """
  words = text.split()
  words = words[1:] if words[:1] == ['position'] else words
  cut = words.index('moves') if 'moves' in words else len(words)
  if words[:cut] == ['startpos']:
    state = from_sfen(START)
  elif words[:1] == ['sfen']:
    state = from_sfen(' '.join(words[1:cut]))
  else:
    raise UsageError(
      f'position {text!r}; possible: startpos or sfen, then moves'
    )
  return play(state, words[cut + 1 :])


def play(state: shogi.State, moves: Sequence[str]) -> shogi.State:
  """Plays moves in USI.

  Raises:
    UsageError: a word that is no move, an illegal move, one after the end;
      the message names the move and its number.
  """
  for number, move in enumerate(moves, start=1):
    color = int(state.color)
    if bool(shogi.terminal(state)):
      raise UsageError(f'move {number}, {move}: the game was over before')
    try:
      action = parse_usi(move, color)
    except UsageError as error:
      raise UsageError(f'move {number}: {error}') from None
    possible = legal_actions(state)
    if action not in possible:
      names = ', '.join(usi(other, color) for other in possible)
      raise UsageError(
        f'move {number}, {move}: illegal here; possible: {names}'
      )
    state = _step(state, action)
  return state


_step = jax.jit(shogi.step)


class Record(NamedTuple):
  """A game as it was played.

  Attributes:
    black: the name of who began, '' if it is not told.
    white: the other's.
    moves: in USI.
    end: how it ended, such as 'TORYO' (resigned), 'SENNICHITE', 'KACHI'
      (declared the entering king), 'ILLEGAL_MOVE', 'TIME_UP'; '' if not told.
  """

  black: str
  white: str
  moves: tuple[str, ...]
  end: str


_CSA = ('FU', 'KY', 'KE', 'GI', 'KA', 'HI', 'KI', 'OU')
_CSA_PROMOTED = ('TO', 'NY', 'NK', 'NG', 'UM', 'RY')


def read_csa(text: str) -> Record:
  """Reads a game in CSA's format, from the usual start.

  Moves are not judged: an illegal one, with which some games end, is read as
  the others.

  Raises:
    UsageError: a line that is not understood, and its number.
  """
  names, moves, end = {'+': '', '-': ''}, [], ''
  board = {
    _csa_square(row, column): piece
    for row, rank in enumerate(_START_ROWS)
    for column, piece in enumerate(rank)
  }
  for number, line in enumerate(text.lstrip('\ufeff').splitlines(), start=1):
    line = line.strip()
    move = re.fullmatch(r'([+-])(\d\d)(\d\d)([A-Z]{2})', line)
    if move:
      moves.append(_csa_move(board, number, line, *move.groups()[1:]))
    elif line[:2] in ('N+', 'N-'):
      names[line[1]] = line[2:]
    elif line.startswith('%'):
      end = line[1:].lstrip('+-')
    elif line in ('', '+', 'PI') or line[0] in "'V$TE":
      continue
    else:
      raise UsageError(
        f'CSA line {number}, {line!r}; possible: a game from the usual start '
        '(PI, +), its moves as +7776FU, names, times, comments and its end'
      )
  return Record(names['+'], names['-'], tuple(moves), end)


_START_ROWS = [
  ['L', 'N', 'S', 'G', 'K', 'G', 'S', 'N', 'L'],
  ['', 'R', '', '', '', '', '', 'B', ''],
  ['P'] * 9,
  *[[''] * 9] * 3,
  ['P'] * 9,
  ['', 'B', '', '', '', '', '', 'R', ''],
  ['L', 'N', 'S', 'G', 'K', 'G', 'S', 'N', 'L'],
]


def _csa_square(row: int, column: int) -> str:
  return f'{shogi.SIZE - column}{row + 1}'


def _csa_move(board, number, line, origin, target, piece) -> str:
  """Plays a move on the board of letters and returns it in USI."""

  def square(digits: str) -> str:
    return digits[0] + 'abcdefghi'[int(digits[1]) - 1]

  known = piece in _CSA or piece in _CSA_PROMOTED
  if '0' in target or not known or ('0' in origin and origin != '00'):
    raise UsageError(f'CSA line {number}, {line!r}: no such square or piece')
  promoted = piece in _CSA_PROMOTED
  letter = shogi.PIECES[(_CSA_PROMOTED if promoted else _CSA).index(piece)]
  if origin == '00':
    board[target] = letter
    return f'{letter}*{square(target)}'
  promotes = promoted and not board[origin].startswith('+')
  board[origin], board[target] = '', ('+' if promoted else '') + letter
  return f'{square(origin)}{square(target)}{"+" if promotes else ""}'


_KANJI = dict(zip('PLNSBRGK', '歩香桂銀角飛金玉', strict=True))
_KANJI |= {f'+{x}': y for x, y in zip('PLNSBR', 'と杏圭全馬龍', strict=True)}
_NUMBERS = ('', *'一二三四五六七八九')


def svg(state: shogi.State) -> str:
  """Returns the board as an SVG picture, as Black sees it.

  White's pieces stand upside down, promoted ones are red, the last move's
  target is marked; the hands and who moves are written below.

  >>> svg(from_sfen(START)).startswith('<svg ')
  True
  """
  pieces = {}
  for row, rank in enumerate(shogi.squares(state)):
    for column, piece in enumerate(rank):
      if piece:
        pieces[row, column] = drawing.Piece(
          sign=_KANJI[piece.upper()],
          fill='#b00' if piece.startswith('+') else '#111',
          turned=bool(piece.islower()),
        )
  hands = []
  for name, hand in zip('☗☖', shogi.hand_counts(state), strict=True):
    held = (
      f'{_KANJI[piece]}{number if number > 1 else ""}'
      for piece, number in zip(shogi.HAND, hand, strict=True)
      if number
    )
    hands.append(f'{name} {" ".join(held) or "-"}')
  last = shogi.last_target(state)
  return drawing.board(
    pieces,
    columns='987654321',
    rows=_NUMBERS[1:],
    marked=() if last is None else (last,),
    chequered=False,
    caption=['   '.join(hands), shogi.render(state).splitlines()[-1]],
  )
