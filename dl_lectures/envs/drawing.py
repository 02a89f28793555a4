"""A board game's position as a small SVG picture that needs nothing else.

Pieces are characters, so any game whose men have a sign can be drawn: chess by
Unicode's chessmen, shogi by its kanji, Go by circles.
"""

import html
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

_SQUARE = 40
_MARGIN = 24
_LINE = 20  # of the caption


class Piece(NamedTuple):
  """What stands on a square.

  Attributes:
    sign: the character or two to draw.
    fill: its colour.
    outline: the colour of a thin line round it, '' for none.
    turned: it is drawn upside down, as the far side's men in shogi.
  """

  sign: str
  fill: str = '#111'
  outline: str = ''
  turned: bool = False


def board(
  pieces: Mapping[tuple[int, int], Piece],
  *,
  columns: Sequence[str],
  rows: Sequence[str],
  marked: Collection[tuple[int, int]] = (),
  chequered: bool = True,
  caption: Sequence[str] = (),
) -> str:
  """Returns a position as SVG.

  Args:
    pieces: what stands where, by (row, column); row 0 is the top.
    columns: the names of the columns, from the left.
    rows: the names of the rows, from the top.
    marked: squares to mark, such as those of the last move.
    chequered: every other square is dark, the top left one light.
    caption: lines of text below.

  Example:

  >>> picture = board({(0, 1): Piece('K')}, columns='ab', rows='21')
  >>> picture.startswith('<svg '), picture.count('<rect '), 'K' in picture
  (True, 5, True)
  """
  width = len(columns) * _SQUARE + 2 * _MARGIN
  height = len(rows) * _SQUARE + 2 * _MARGIN + _LINE * len(caption)
  drawn = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
    f'height="{height}" viewBox="0 0 {width} {height}" '
    'font-family="sans-serif" text-anchor="middle">',
    f'<rect width="{width}" height="{height}" fill="#fff"/>',
  ]
  for row in range(len(rows)):
    for column in range(len(columns)):
      dark = chequered and (row + column) % 2 == 1
      if (row, column) in marked:
        colour = '#c9c04a' if dark else '#f2ea8a'
      else:
        colour = '#b58863' if dark else '#f0d9b5'
      drawn.append(
        f'<rect x="{_MARGIN + column * _SQUARE}" y="{_MARGIN + row * _SQUARE}" '
        f'width="{_SQUARE}" height="{_SQUARE}" fill="{colour}" '
        'stroke="#6b4f3a" stroke-width="0.5"/>'
      )
  for (row, column), piece in pieces.items():
    drawn.append(_piece(row, column, piece))
  for column, name in enumerate(columns):
    x = _MARGIN + (column + 0.5) * _SQUARE
    for y in (_MARGIN - 8, _MARGIN + len(rows) * _SQUARE + 16):
      drawn.append(_text(x, y, 12, name))
  for row, name in enumerate(rows):
    y = _MARGIN + (row + 0.5) * _SQUARE + 4
    for x in (_MARGIN / 2, width - _MARGIN / 2):
      drawn.append(_text(x, y, 12, name))
  below = len(rows) * _SQUARE + 2 * _MARGIN
  for number, line in enumerate(caption):
    drawn.append(_text(width / 2, below + 14 + number * _LINE, 14, line))
  return '\n'.join([*drawn, '</svg>', ''])


def _piece(row: int, column: int, piece: Piece) -> str:
  x = _MARGIN + (column + 0.5) * _SQUARE
  y = _MARGIN + (row + 0.5) * _SQUARE
  # A sign of two characters is set smaller, to stay on its square.
  size = 0.8 * _SQUARE / max(1, len(piece.sign.rstrip('\ufe0e')))
  more = f' fill="{piece.fill}"'
  if piece.outline:
    # Beneath the fill, or it would cover what is fine in a sign.
    more += f' stroke="{piece.outline}" stroke-width="2" paint-order="stroke"'
  if piece.turned:
    more += f' transform="rotate(180 {x:g} {y:g})"'
  return _text(x, y + 0.36 * size, size, piece.sign, more)


def _text(x: float, y: float, size: float, text: str, more: str = '') -> str:
  return (
    f'<text x="{x:g}" y="{y:g}" font-size="{size:g}"{more}>'
    f'{html.escape(text)}</text>'
  )
