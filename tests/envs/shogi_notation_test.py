"""SFEN, USI, CSA and pictures of shogi: there and back, and what is wrong."""

import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest

from dl_lectures.envs import shogi, shogi_notation
from dl_lectures.types import UsageError

MIDDLE = (
  'l6nl/5+P1gk/2np1S3/p1p4Pp/3P2Sp1/1PPb2P1P/P5GS1/R8/LN4bKL w RGgsn5p 32'
)


@pytest.mark.parametrize(
  'sfen',
  [
    shogi_notation.START,
    MIDDLE,
    'R8/2K1S1SSk/4B4/9/9/9/9/9/1L1L1L3 b RBGSNLP3g3n17p 1',
    '4k4/9/9/9/9/9/9/9/4K4 w 18P4l 512',
  ],
)
def test_sfen_returns(sfen):
  assert shogi_notation.sfen(shogi_notation.from_sfen(sfen)) == sfen


def test_the_start_is_the_start():
  for ours, parsed in zip(
    shogi.init(jax.random.key(0)),
    shogi_notation.from_sfen(shogi_notation.START),
    strict=True,
  ):
    np.testing.assert_array_equal(ours, parsed)


KINGS = '4k4/9/9/9/9/9/9/9/4K4'


@pytest.mark.parametrize(
  ('sfen', 'message'),
  [
    ('', "SFEN '': 0 fields; possible"),
    (f'{KINGS} b', '2 fields; possible'),
    (f'{KINGS} b - 1 x', '5 fields; possible'),
    ('9/9 b - 1', 'SFEN board: 2 ranks; possible: 9'),
    ('4k4/9/9/9/10/9/9/9/4K4 b - 1', "SFEN board, rank e: '0'; possible"),
    ('4k4/9/9/9/8/9/9/9/4K4 b - 1', 'SFEN board, rank e: 8 squares'),
    ('4k4/9/9/9/9P/9/9/9/4K4 b - 1', 'SFEN board, rank e: 10 squares'),
    ('4k4/9/9/9/4x4/9/9/9/4K4 b - 1', "SFEN board, rank e: 'x'; possible"),
    ('4k4/9/9/9/4+G4/9/9/9/4K4 b - 1', "SFEN board, rank e: '\\+G'"),
    ('4k4/9/9/9/4+/9/9/9/4K4 b - 1', "SFEN board, rank e: '\\+'"),
    (f'{KINGS} x - 1', "SFEN mover 'x'; possible: b, w"),
    (f'{KINGS} b K 1', "SFEN hands 'K'; possible"),
    (f'{KINGS} b P2 1', "SFEN hands 'P2'; possible"),
    (f'{KINGS} b 0P 1', "SFEN hands '0P'; possible"),
    (f'{KINGS} b 19P 1', 'SFEN board and hands: 19 of P; possible: 18'),
    (f'{KINGS} b 2R1r 1', 'SFEN board and hands: 3 of R; possible: 2'),
    (f'{KINGS} b - 0', "SFEN move number '0'; possible: 1 to 512"),
    (f'{KINGS} b - 513', "SFEN move number '513'; possible: 1 to 512"),
    (f'{KINGS} b - x', "SFEN move number 'x'; possible: 1 to 512"),
    ('9/9/9/9/9/9/9/9/4K4 b - 1', 'SFEN board: 0 kings of White'),
    ('4k4/9/9/9/9/9/9/K8/4K4 b - 1', 'SFEN board: 2 kings of Black'),
    ('P3k4/9/9/9/9/9/9/9/4K4 b - 1', 'SFEN board: a P that can never move'),
    ('4k4/9/9/9/9/9/9/n8/4K4 b - 1', 'SFEN board: a n that can never move'),
    ('4k4/9/9/P8/P8/9/9/9/4K4 b - 1', 'SFEN board: two P on one file'),
    ('4k4/4P4/9/9/9/9/9/9/4K4 b - 1', 'White is in check and not to move'),
    ('4k4/9/9/9/9/9/9/4p4/4K4 w - 1', 'Black is in check and not to move'),
  ],
)
def test_a_malformed_sfen_names_its_field(sfen, message):
  with pytest.raises(UsageError, match=message) as error:
    shogi_notation.from_sfen(sfen)
  assert '\n' not in str(error.value)


def test_usi_is_as_the_board_is_named():
  for text in ('7g7f', '2b3a+', 'P*5e', '8h2b', '1i1a+'):
    for color in (0, 1):
      action = shogi_notation.parse_usi(text, color)
      assert shogi_notation.usi(action, color) == text
  white = shogi_notation.parse_usi('3c3d', 1)
  assert white == shogi_notation.parse_usi('7g7f', 0)
  with pytest.raises(UsageError, match="'3c5f' is not a move"):
    shogi_notation.parse_usi('3c5f', 1)


def test_positions_of_usi():
  state = shogi_notation.position(
    'position startpos moves 7g7f 3c3d 8h2b+ 3a2b B*5e'
  )
  assert shogi_notation.sfen(state) == (
    'lnsgkg1nl/1r5s1/pppppp1pp/6p2/4B4/2P6/PP1PPPPPP/7R1/LNSGKGSNL w b 6'
  )
  state = shogi_notation.position(f'sfen {MIDDLE} moves G*3b')
  assert shogi_notation.sfen(state).endswith(' b RGsn5p 33')
  assert int(state.color) == 0


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', "position ''; possible: startpos or sfen"),
    ('startpos 7g7f', 'possible: startpos or sfen'),
    ('startpos moves 7g7f 3c', "move 2: '3c' is not a move"),
    ('startpos moves 7g7f 7f7e', 'move 2, 7f7e: illegal here; possible: '),
    ('sfen 9/9 b - 1', 'SFEN board: 2 ranks'),
    (
      'sfen 7lk/9/7GP/9/9/9/9/9/4K4 b - 1 moves 1c1b 1a1b',
      'move 2, 1a1b: the game was over before',
    ),
  ],
)
def test_a_wrong_position_is_told(text, message):
  with pytest.raises(UsageError, match=message):
    shogi_notation.position(text)


CSA = """V2.2
N+first
N-second
PI
+
+7776FU
T1
-3334FU
+8822UM
-3122GI
+0055KA
-5142OU
+5522UM
-8222HI
%TORYO
"""


def test_a_csa_record():
  record = shogi_notation.read_csa('\ufeff' + CSA)
  assert record == (
    'first',
    'second',
    ('7g7f', '3c3d', '8h2b+', '3a2b', 'B*5e', '5a4b', '5e2b+', '8b2b'),
    'TORYO',
  )


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('PI82HI', "CSA line 16, 'PI82HI'; possible"),
    ('+7776XX', "CSA line 16, '\\+7776XX': no such square or piece"),
    ('+7706FU', "CSA line 16, '\\+7706FU': no such square or piece"),
    ('+7076FU', "CSA line 16, '\\+7076FU': no such square or piece"),
    ('hello', "CSA line 16, 'hello'; possible"),
  ],
)
def test_a_wrong_csa_record_is_told(line, message):
  with pytest.raises(UsageError, match=message):
    shogi_notation.read_csa(CSA + line)


def test_a_picture_has_every_piece():
  svg = shogi_notation.svg(
    shogi_notation.position('startpos moves 7g7f 3c3d 8h2b+')
  )
  texts = ET.fromstring(svg).findall('.//{http://www.w3.org/2000/svg}text')
  signs = [text.text for text in texts]
  assert signs.count('歩') == 18
  assert signs.count('馬') == 1
  turned = [text for text in texts if 'rotate(180' in text.get('transform', '')]
  assert len(turned) == 19
  assert signs[-2:] == ['☗ 角   ☖ -', 'White to move']
