"""Game records read, written and played; diagrams; pictures."""

import functools
import pathlib
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.envs import games, go, go_notation
from dl_lectures.types import UsageError

ARCHIVE = pathlib.Path(__file__).parents[2].parent / 'shared' / 'data' / 'go'


def names(record):
  size = record.board_size
  return [go.action_name(size, action) for action in record.moves]


def test_a_record_is_read():
  record = go_notation.read_sgf("""
    (;GM[1]FF[4]SZ[9]KM[6.5]PB[Ann \\[1d\\]]PW[Bo\\\\b]RE[W+R]
    C[a comment (with; all of [this\\])]
    ;B[ee];W[ia]C[top right];B[];W[tt]
    (;B[ai](;W[ab];B[ac])(;W[bb]))
    (;B[aa]))
    (;SZ[19];B[dd])
  """)
  assert names(record) == ['E5', 'J9', 'pass', 'pass', 'A1', 'A8', 'A7']
  assert record._replace(moves=()) == go_notation.Record(
    board_size=9,
    komi=6.5,
    result='W+R',
    black_name='Ann [1d]',
    white_name='Bo\\b',
  )


def test_what_is_not_told_has_the_usual_value():
  record = go_notation.read_sgf('(;B[aa])')
  assert record == go_notation.Record(board_size=19, moves=(0,))
  assert go_notation.read_sgf('(;KM[])').komi is None
  assert go_notation.read_sgf('(;KM[375])').komi == 7.5
  assert go_notation.read_sgf('(;KM[0])').komi == 0


def test_handicap_stones():
  record = go_notation.read_sgf('(;SZ[9]AB[cc][gg][gc:hd]AE[hd];W[ee];B[aa])')
  cells = [go.action_name(9, cell) for cell in record.black]
  assert cells == ['C7', 'G7', 'H7', 'G6', 'G3']
  assert record.to_play == 1
  assert names(record) == ['E5', 'A9']
  # Without a move or a word about it, White is to play.
  assert go_notation.read_sgf('(;SZ[9]AB[cc])').to_play == 1
  assert go_notation.read_sgf('(;SZ[9]AB[cc]AW[dd])').to_play == 0
  assert go_notation.read_sgf('(;SZ[9]AB[cc]PL[B])').to_play == 0


def test_who_moves_twice_has_been_passed_to():
  record = go_notation.read_sgf('(;SZ[5];B[aa];B[bb];W[cc];W[dd])')
  assert names(record) == ['A5', 'pass', 'B4', 'C3', 'pass', 'D2']


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', "SGF: no '(' that begins a game"),
    ('()', 'SGF: a game without a node'),
    ('(B[aa])', "SGF: B before the first ';'"),
    ('(;[aa])', 'SGF: node 1: a value without a property, [aa]'),
    ('(;SZ[9];B[aa]', "SGF: the game's last ')' is missing"),
    (
      '(;SZ[9]\n;B[aa] ?? )',
      "SGF: line 2: neither a node nor a property: '??'",
    ),
    ('(;GM[2])', 'SGF: GM[2]: not Go, which is GM[1]'),
    ('(;SZ[9:13])', 'SGF: SZ[9:13]: possible: 2 to 25, square'),
    ('(;SZ[26])', 'SGF: SZ[26]: possible: 2 to 25, square'),
    ('(;KM[six])', 'SGF: KM[six]: not a number'),
    ('(;PL[x])', 'SGF: PL[X]: possible: B, W'),
    (
      '(;SZ[9];B[aa];W[jj])',
      'SGF: move 2, W[jj]: no point of a 9x9 board; possible: aa to ii',
    ),
    ('(;SZ[9];B[aa:bb])', 'SGF: move 1, B[aa:bb]: a move is one point'),
    ('(;SZ[9];B)', 'SGF: move 1, B: no point'),
    (
      '(;SZ[9]AB[a])',
      'SGF: AB[a]: no point of a 9x9 board; possible: aa to ii',
    ),
    (
      '(;SZ[9];B[aa];AW[bb])',
      'SGF: node 3: AW after the first move; possible: before',
    ),
  ],
)
def test_what_is_malformed_is_told_in_one_line(text, message):
  with pytest.raises(UsageError) as error:
    go_notation.read_sgf(text)
  assert str(error.value) == message


@st.composite
def records(draw):
  size = draw(st.integers(2, 25))
  cells = draw(st.sets(st.integers(0, size**2 - 1), max_size=6))
  black = draw(st.sets(st.sampled_from(sorted(cells)))) if cells else set()
  text = st.text(st.sampled_from('ab []\\;():é'), max_size=8)
  return go_notation.Record(
    board_size=size,
    moves=tuple(draw(st.lists(st.integers(0, size**2), max_size=12))),
    komi=draw(st.one_of(st.none(), st.integers(-40, 40).map(lambda x: x / 2))),
    black=tuple(sorted(black)),
    white=tuple(sorted(cells - black)),
    to_play=draw(st.integers(0, 1)),
    result=draw(st.sampled_from(['', 'B+3.5', 'W+R', '0'])),
    black_name=draw(text).strip(),
    white_name=draw(text).strip(),
  )


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(records())
def test_what_is_written_is_read_back(record):
  assert go_notation.read_sgf(go_notation.write_sgf(record)) == record


def test_replay_takes_komi_setup_and_moves():
  record = go_notation.read_sgf(
    '(;SZ[5]KM[0]AB[bb]AW[ba][ab][cb]PL[W];W[bc];B[];W[])'
  )
  game, state = go_notation.replay(record)
  assert game.terminal(state)
  assert state.margin == -25  # B4 was taken, and Black has nothing
  assert game.reward(state).tolist() == [-1, 1]
  suicide = record._replace(moves=(7, 0))
  with pytest.raises(UsageError, match='move 2, A5: illegal here; possible: '):
    go_notation.replay(suicide._replace(black=(6,), moves=(11, 0)))


def test_diagrams():
  with pytest.raises(UsageError) as error:
    go_notation.read_diagram('. X\n. . O')
  assert str(error.value) == (
    'diagram: rows of 2, 3 points; possible: a square of . X O'
  )
  with pytest.raises(UsageError) as error:
    go_notation.read_diagram('nothing')
  assert str(error.value) == ('diagram: no row; possible: a square of . X O')
  rules = go.rules(25)
  black, white = (0, 24, 300, 624), (1, 312)
  text = go.render(go.setup(rules, black, white))
  assert go_notation.read_diagram(text) == (25, black, white)


def test_svg_draws_what_is_there():
  game = go.make(5)
  state = games.play_moves(game, ['C3', 'A1', 'E5'])
  drawn = ET.fromstring(go_notation.svg(state, {12: 1, 20: 2, 3: 7}))

  def parts(name):
    return [x for x in drawn if x.tag == '{http://www.w3.org/2000/svg}' + name]

  stones = [x for x in parts('circle') if float(x.attrib['r']) > 10]
  where = {(x.get('cx'), x.get('cy')): x.get('fill') for x in stones}
  assert where == {
    ('84', '84'): '#111',  # C3
    ('28', '140'): '#fafafa',  # A1: left, at the bottom
    ('140', '28'): '#111',
  }
  dots = [
    (x.get('cx'), x.get('cy')) for x in parts('circle') if x not in stones
  ]
  assert dots == [('140', '28')]  # the last stone, which has no number
  written = [x.text for x in parts('text')]
  assert [x for x in written if x and x in 'ABCDE'] == [*'AABBCCDDEE']
  inside = [x.text for x in parts('text') if x.get('fill')]
  assert inside == ['7', '1', '2']
  assert [x.text for x in parts('title')] == ['White to move']


@functools.partial(jax.jit, static_argnums=0)
def play_all(game, actions):
  def ply(state, action):
    legal = state.legal[action]
    return game.step(state, action), legal

  def play(actions):
    return jax.lax.scan(ply, game.init(jax.random.key(0)), actions)

  return jax.vmap(play)(actions)


@pytest.mark.skipif(not ARCHIVE.is_dir(), reason='no ../shared/data/go')
@pytest.mark.parametrize('every', [pytest.param(1, marks=pytest.mark.slow), 10])
def test_the_games_of_the_archive_replay_legally(every):
  """355 games of masters and programs, 19x19, under positional superko.

  None of them ends in two passes: they were resigned, or the players agreed
  which stones were dead. So no result can be compared.
  """
  read = [
    go_notation.read_sgf(path.read_text('utf-8', 'replace'))
    for path in sorted(ARCHIVE.rglob('*'))
    if path.suffix.lower() == '.sgf'
  ]
  assert len(read) == 355
  assert {(x.board_size, x.komi, x.black) for x in read} == {
    (19, 7.5, ()),
    (19, None, ()),
  }
  assert not any(x.moves[-2:] == (361, 361) for x in read)
  read = read[::every]
  longest = max(len(x.moves) for x in read)
  actions = np.full((len(read), longest), 361, np.int32)
  for row, record in zip(actions, read, strict=True):
    row[: len(record.moves)] = record.moves
    written = go_notation.write_sgf(record)
    assert go_notation.read_sgf(written) == record
  _, legal = play_all(go.make(19), actions)
  for row, record in zip(np.asarray(legal), read, strict=True):
    assert row[: len(record.moves)].all()
