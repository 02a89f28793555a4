"""FEN, UCI, SAN and PGN against python-chess, real games and by hand."""

import pathlib
import re
from xml.etree import ElementTree

import chess as python_chess
import jax
import pytest

from dl_lectures.envs import chess_notation
from dl_lectures.types import UsageError

DATA = pathlib.Path(__file__).parents[2].parent / 'shared' / 'data' / 'chess'
START = chess_notation.START

# Several men to one square, in files, in ranks, in both; pins; promotion with
# check and mate; en passant; castling with check.
POSITIONS = [
  START,
  'r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq - 0 1',
  'r2q1rk1/pP1p2pp/Q4n2/bbp1p3/Np6/1B3NBn/pPPP1PPP/R3K2R b KQ - 0 1',
  '8/8/8/1Q1Q4/6k1/1Q6/8/K7 w - - 0 1',
  '8/8/1k6/R7/4Q2Q/8/8/R2K3Q w - - 0 1',
  '4k3/8/8/2N1N3/8/2N1N3/8/b3K3 w - - 3 7',
  'n1n5/PPPk4/8/8/8/8/4Kppp/5N1N b - - 0 1',
  '4k3/8/8/1b6/4pP2/8/8/R3K2R b KQ f3 0 1',
  '5k2/8/8/8/8/8/8/R3K2R w KQ - 0 1',
]


def test_fen_there_and_back():
  for fen in POSITIONS:
    state = chess_notation.from_fen(fen)
    assert chess_notation.to_fen(state) == fen
  short = chess_notation.from_fen('4k3/8/8/8/8/8/4P3/4K3 b - -')
  assert chess_notation.to_fen(short) == '4k3/8/8/8/8/8/4P3/4K3 b - - 0 1'
  late = '4k3/8/8/8/8/8/4P3/4K3 b - - 17 300'
  assert chess_notation.to_fen(chess_notation.from_fen(late)) == late
  # Not after every double step, but where the capture is legal.
  useless = chess_notation.from_fen(
    'rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq e3 0 1'
  )
  assert chess_notation.to_fen(useless).split()[3] == '-'


@pytest.mark.parametrize(
  ('fen', 'message'),
  [
    ('', 'FEN: 0 fields; possible: 4 or 6'),
    (START + ' 7', 'FEN: 7 fields; possible: 4 or 6'),
    ('8/8/8/8/8/8/8 w - -', 'FEN placement: 7 ranks; possible: 8'),
    (
      '4k3/8/8/8/4x3/8/8/4K3 w - -',
      "FEN placement: 'x' in rank 4; possible: PNBRQK, pnbrqk, 1 to 8",
    ),
    (
      '4k3/8/8/8/8/9/8/4K3 w - -',
      "FEN placement: '9' in rank 3; possible: PNBRQK, pnbrqk, 1 to 8",
    ),
    (
      '4k4/8/8/8/8/8/8/4K3 w - -',
      'FEN placement: rank 8 has 9 squares; possible: 8',
    ),
    (
      '4k3/8/8/8/8/8/8/4Q3 w - -',
      'FEN placement: White has 0 kings; possible: 1',
    ),
    (
      '4k2k/8/8/8/8/8/8/4K3 w - -',
      'FEN placement: Black has 2 kings; possible: 1',
    ),
    (
      '4k2p/8/8/8/8/8/8/4K3 w - -',
      'FEN placement: a pawn on the first or the last rank',
    ),
    (
      '4k3/8/8/8/8/8/4R3/4K3 w - -',
      "FEN placement: Black is in check, and it is the other side's move",
    ),
    (
      '4k3/4r3/8/8/8/8/8/4K3 b - -',
      "FEN placement: White is in check, and it is the other side's move",
    ),
    (
      '8/8/8/8/4k3/3K4/8/8 w - -',
      'FEN placement: the kings stand side by side',
    ),
    ('4k3/8/8/8/8/8/8/4K3 W - -', "FEN side to move: 'W'; possible: w, b"),
    (
      '4k3/8/8/8/8/8/8/4K3 w qK -',
      "FEN castling: 'qK'; possible: - or some of KQkq, in this order",
    ),
    (
      '4k3/8/8/8/8/8/8/4K3 w K -',
      "FEN castling: 'K': no K on e1 or no R on h1",
    ),
    (
      '3k3r/8/8/8/8/8/8/4K3 w k -',
      "FEN castling: 'k': no k on e8 or no r on h8",
    ),
    (
      '4k3/8/8/8/8/8/8/4K3 w - e3',
      "FEN en passant: 'e3'; possible: - or a square of rank 6",
    ),
    (
      '4k3/8/8/8/8/8/8/4K3 w - e6',
      "FEN en passant: 'e6', where no pawn has just passed",
    ),
    (
      '4k3/3p4/8/3p4/8/8/8/4K3 w - d6',
      "FEN en passant: 'd6', where no pawn has just passed",
    ),
    (
      '4k3/8/8/8/8/8/8/4K3 w - - x 1',
      "FEN half-move clock: 'x'; possible: 0 to 9999",
    ),
    (
      '4k3/8/8/8/8/8/8/4K3 w - - 0 0',
      "FEN move number: '0'; possible: 1 to 9999",
    ),
  ],
)
def test_a_malformed_fen_is_told_by_its_field(fen, message):
  with pytest.raises(UsageError) as error:
    chess_notation.from_fen(fen)
  assert str(error.value) == message


def test_every_move_is_named_as_by_python_chess():
  kinds = set()
  for fen in POSITIONS:
    state, board = chess_notation.from_fen(fen), python_chess.Board(fen)
    moves = chess_notation.legal_moves(state)
    assert set(moves) == {move.uci() for move in board.legal_moves}
    for uci, action in moves.items():
      name = chess_notation.san(state, action)
      assert name == board.san(python_chess.Move.from_uci(uci))
      assert chess_notation.move_name(state, action) == uci
      assert chess_notation.parse_move(state, name) == action
      assert chess_notation.parse_move(state, uci) == action
      kinds.add(re.sub('[a-h]', 'f', re.sub('[1-8]', 'r', name)))
  # Each way to write a move has come up.
  assert {
    'fr', 'fxfr', 'fr=Q', 'fr=N+', 'fxfr=B+', 'Nffr', 'Nrfr', 'Rrfr', 'Qfrfr',
    'Bxfr', 'O-O', 'O-O-O', 'O-O+', 'Qfr#', 'Kxfr',
  } <= kinds  # fmt: skip


def test_san_is_read_leniently():
  state = chess_notation.from_fen(POSITIONS[1])
  for lenient, strict in (
    ('0-0', 'O-O'),
    ('Qxf6!?', 'Qxf6'),
    ('Qf6', 'Qxf6'),
    ('Nxd7+', 'Nxd7'),
    ('e1g1', 'O-O'),
    (' E1C1 ', 'O-O-O'),
  ):
    assert chess_notation.parse_move(state, lenient) == (
      chess_notation.parse_move(state, strict)
    )
  promotes = chess_notation.from_fen('8/P6k/8/8/8/8/8/K7 w - -')
  assert chess_notation.parse_move(promotes, 'a8R') == (
    chess_notation.parse_move(promotes, 'a7a8r')
  )


@pytest.mark.parametrize(
  ('fen', 'move', 'message'),
  [
    (
      '4k3/8/8/8/8/8/8/4K2R b - -',
      'Kd9',
      "'Kd9' is not legal here; possible: Ke7, Kf7, Kf8, Kd8, Kd7",
    ),
    (POSITIONS[5], 'Nd5', "'Nd5' can mean "),
    ('8/P6k/8/8/8/8/8/K7 w - -', 'a8', "'a8' is not legal here; possible: "),
    (
      '8/8/4k3/8/8/3K4/8/8 w - -',
      'Kd4',
      "'Kd4' cannot be played: the game is over",
    ),
  ],
)
def test_a_wrong_move_is_told(fen, move, message):
  with pytest.raises(UsageError, match='^' + re.escape(message)):
    chess_notation.parse_move(chess_notation.from_fen(fen), move)


def test_a_wrong_move_of_a_line_is_told_with_its_number():
  with pytest.raises(UsageError, match=r"^half move 3: 'Ke3' is not legal"):
    chess_notation.play(['e4', 'e5', 'Ke3'])
  state = chess_notation.from_fen(START)
  with pytest.raises(UsageError, match=r'^action 5 is not legal here'):
    chess_notation.san(state, 5)
  with pytest.raises(UsageError, match=r'^action 1 leaves the board'):
    chess_notation.move_name(state, 1)


def test_pgn_by_hand():
  text = """
[Event "a \\"b\\""]
[Result "1/2-1/2"]

% not read
1.e4 e5 2. Nf3 $1 {a comment (with
brackets)} Nc6 (2... d6 3. d4 (3. Bc4 Be7)) 3.O-O?! ; to the end of the line
0-0-0 4. e8=Q+ exd8=N# 5. Nbd7 1/2-1/2

1... c5 *
"""
  first, second = chess_notation.parse_pgn(text)
  assert first.tags == {'Event': 'a "b"', 'Result': '1/2-1/2'}
  assert first.moves == [
    'e4', 'e5', 'Nf3', 'Nc6', 'O-O', '0-0-0', 'e8=Q', 'exd8=N', 'Nbd7',
  ]  # fmt: skip
  assert first.result == '1/2-1/2'
  assert second == chess_notation.Pgn({}, ['c5'], '*')
  with pytest.raises(UsageError, match='no result after e5, move 2'):
    chess_notation.parse_pgn('1. e4 e5')


def test_the_games_of_1997_are_read_and_played():
  path = DATA / 'kasparov-deep-blue-1997.pgn'
  if not path.exists():
    pytest.skip(f'{path} is not here')
  games = chess_notation.parse_pgn(path.read_text())
  assert [game.result for game in games] == [
    '1-0', '1-0', '1/2-1/2', '1/2-1/2', '1/2-1/2', '1-0',
  ]  # fmt: skip
  signs = re.findall(r'[KQRBNa-hO][-\w=]*([+#])', path.read_text())
  checks = 0
  for game in games:
    assert len(game.moves) == int(game.tags['PlyCount'])
    state, board = chess_notation.from_fen(START), python_chess.Board()
    for move in game.moves:
      state = chess_notation.play([move], state)
      board.push_san(move)
      checks += int(state.check)
    assert chess_notation.to_fen(state) == board.fen()
  assert checks == len(signs) > 0


@pytest.mark.slow
def test_the_best_moves_of_1500_positions_have_the_same_names():
  path = DATA / 'STS1-STS15_LAN_v3.epd'
  if not path.exists():
    pytest.skip(f'{path} is not here')
  lines = path.read_text().splitlines()
  for line in lines:
    fen = ' '.join(line.split()[:4])
    state = jax.device_get(chess_notation.from_fen(fen))
    [sans], [ucis] = (
      re.findall('c7 "(.*?)"', line),
      re.findall('c9 "(.*?)"', line),
    )
    for san, uci in zip(sans.split(), ucis.split(), strict=True):
      # Some of the file's moves lack their sign of check.
      action = chess_notation.parse_move(state, san)
      assert chess_notation.move_name(state, action) == uci.lower()
  assert len(lines) == 1500


def test_text_marks_the_last_move_and_tells_the_state():
  assert chess_notation.text(chess_notation.from_fen(START)).split('\n') == [
    '8 r n b q k b n r',
    '7 p p p p p p p p',
    '6 . . . . . . . .',
    '5 . . . . . . . .',
    '4 . . . . . . . .',
    '3 . . . . . . . .',
    '2 P P P P P P P P',
    '1 R N B Q K B N R',
    '  a b c d e f g h',
    'White to move',
  ]
  state = chess_notation.play(['a3', 'h5'])
  lines = chess_notation.text(state).split('\n')
  assert lines[1] == '7 p p p p p p p[.]'
  assert lines[3] == '5 . . . . . . .[p]'
  state = chess_notation.play(['e4', 'f5', 'Qh5'])
  assert chess_notation.text(state).endswith('Black to move, in check')


@pytest.mark.parametrize(
  ('fen', 'status'),
  [
    ('7k/6Q1/6K1/8/8/8/8/8 b - -', 'White wins by checkmate'),
    ('7K/6q1/6k1/8/8/8/8/8 w - -', 'Black wins by checkmate'),
    ('7k/5Q2/6K1/8/8/8/8/8 b - -', 'draw by stalemate'),
    ('7k/8/6K1/8/8/8/8/8 b - -', 'draw by insufficient material'),
    ('7k/8/6K1/8/8/8/P7/8 b - - 100 90', 'draw by fifty moves'),
  ],
)
def test_how_a_game_ended(fen, status):
  assert chess_notation.status(chess_notation.from_fen(fen)) == status


def test_svg_draws_every_man_and_marks_the_last_move():
  state = chess_notation.play(['e4', 'd5', 'exd5'])
  svg = '{http://www.w3.org/2000/svg}'
  root = ElementTree.fromstring(chess_notation.svg(state))
  texts = [text.text or '' for text in root.findall(f'{svg}text')]
  men = ''.join(texts).replace('\ufe0e', '')
  counts = {sign: men.count(sign) for sign in '♚♛♜♝♞♟'}
  assert counts == {'♚': 2, '♛': 2, '♜': 4, '♝': 4, '♞': 4, '♟': 15}
  assert texts[-1] == 'Black to move'
  colours = [r.get('fill') for r in root.findall(f'{svg}rect')[1:]]
  usual = [colours[0], colours[1]]
  marked = [i for i, colour in enumerate(colours) if colour not in usual]
  assert marked == [8 * 3 + 3, 8 * 4 + 4]  # d5 and e4
  assert len(set(usual)) == 2
  black = [t for t in root.findall(f'{svg}text') if t.get('fill') == '#111']
  assert len(black) == 15
