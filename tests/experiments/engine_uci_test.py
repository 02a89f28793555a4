"""Dialogues with hosts of chess engines, the searcher being a stand-in."""

import time

import jax
import numpy as np
import pytest

from dl_lectures.envs import chess, chess_notation
from dl_lectures.types import UsageError
from experiments import engine_search, engine_uci
from experiments.engine_uci import Order, read_go

to_play = jax.jit(chess.to_play)
legal_mask = jax.jit(chess.legal_mask)
play_on = jax.jit(chess.play_on)


def position(text):
  start, _, moves = text.partition(' moves ')
  state = None
  if start.startswith('fen '):
    state = chess_notation.from_fen(start.removeprefix('fen '))
  elif start != 'startpos':
    raise UsageError(f'position {start!r}; possible: startpos, fen')
  return chess_notation.play(moves.split(), state)


DIALECT = engine_uci.Dialect(
  name='uci',
  ponder='Ponder',
  new_game='ucinewgame',
  nothing='0000',
  position=position,
  colour=lambda state: 'wb'[int(to_play(state))],
  move=chess_notation.move_name,
  step=play_on,
  stuck=lambda state: not np.asarray(legal_mask(state)).any(),
  render=chess_notation.text,
)


def first_legal(state):
  return int(np.argmax(np.asarray(legal_mask(state))))


# Plays the first legal move, and expects the first legal answer.
def read(tree):
  state, simulations = tree
  action = first_legal(state)
  after = play_on(state, action)
  answer = [first_legal(after)] if np.asarray(legal_mask(after)).any() else []
  return engine_search.Found([action, *answer], simulations, 0.5)


SEARCHER = engine_search.Searcher(
  begin=lambda state: (state, 0),
  extend=lambda tree: (tree[0], tree[1] + 10),
  read=read,
  slice=10,
  room=100,
)


class Host:
  """What a host sees of an engine."""

  def __init__(self):
    self.heard = []
    self.engine = engine_uci.Engine(
      DIALECT, SEARCHER, 30, 'dl_lectures', self.heard.append
    )

  def says(self, *lines):
    """Says lines; returns what is heard until the engine is quiet."""
    del self.heard[:]
    for line in lines:
      self.engine.obey(line)
    thread = self.engine._thread
    if thread is not None:
      thread.join(60)
    return list(self.heard)


@pytest.fixture
def host():
  made = Host()
  yield made
  made.engine.stop()


def test_the_introduction(host):
  heard = host.says('uci')
  assert heard[0] == 'id name dl_lectures'
  assert heard[-1] == 'uciok'
  assert any(line.startswith('option name Simulations type') for line in heard)
  assert host.says('isready') == ['readyok']


def test_a_move_is_legal_and_comes_with_the_expected_answer(host):
  *info, best = host.says('position startpos moves e2e4 e7e5', 'go')
  state = position('startpos moves e2e4 e7e5')
  word, move, ponder, answer = best.split()
  assert (word, ponder) == ('bestmove', 'ponder')
  action = chess_notation.parse_move(state, move)
  chess_notation.parse_move(play_on(state, action), answer)
  assert ' nodes 30 ' in info[-1]
  assert info[-1].endswith(f' pv {move} {answer}')
  assert ' score cp 111 ' in info[-1]


def test_nodes_and_the_option_limit_the_search(host):
  assert ' nodes 50 ' in host.says('go nodes 45')[-2]
  assert host.says('setoption name Simulations value 70') == []
  assert ' nodes 70 ' in host.says('go')[-2]


def test_who_is_mated_has_no_move(host):
  mate = 'position startpos moves f2f3 e7e5 g2g4 d8h4'
  assert host.says(mate, 'go') == ['bestmove 0000']


def test_mate_in_one_leaves_nothing_to_ponder(host):
  # The only legal move takes the queen that gives check, and stalemates.
  fen = 'fen 7k/8/8/8/8/8/6q1/7K w - - 0 1'
  best = host.says(f'position {fen}', 'go')[-1]
  assert best == 'bestmove h1g2'


def test_an_endless_search_ends_by_stop(host):
  host.engine.obey('go infinite')
  time.sleep(0.3)
  assert not any(line.startswith('bestmove') for line in host.heard)
  host.engine.obey('stop')
  assert host.heard[-1].startswith('bestmove ')


def test_pondering_ends_by_its_limits_after_the_hit(host):
  host.engine.obey('go ponder wtime 1000 btime 1000')
  time.sleep(0.3)
  assert not any(line.startswith('bestmove') for line in host.heard)
  assert host.says('ponderhit')[-1].startswith('bestmove ')


def test_a_ponder_that_misses_is_stopped(host):
  host.engine.obey('go ponder wtime 1000 btime 1000')
  heard = host.says('stop')
  assert [line.startswith('bestmove') for line in heard].count(True) == 1


@pytest.mark.parametrize(
  ('line', 'named'),
  [
    ('position startpos moves e2e5', 'e2e5'),
    ('position fen 8/8/8 w - - 0 1', 'placement'),
    ('position nowhere', 'nowhere'),
    ('go nodes many', "'many' is not a whole number"),
    ('go sideways', 'sideways'),
    ('setoption name Colour value red', 'Colour'),
    ('setoption name Simulations value 0', 'Simulations 0'),
    ('dance', 'unknown command'),
    ('ponderhit', 'without go ponder'),
  ],
)
def test_a_mistake_is_one_line_and_changes_nothing(host, line, named):
  host.says('position startpos moves d2d4')
  heard = host.says(line)
  assert len(heard) == 1
  assert heard[0].startswith('info string ')
  assert named in heard[0]
  moves = host.says('go')[-1]
  state = position('startpos moves d2d4')
  chess_notation.parse_move(state, moves.split()[1])


def test_a_host_that_goes_silent_ends_the_engine():
  host = Host()
  engine_uci.serve(host.engine, iter(['go infinite']))
  assert host.engine._thread is None


def test_nothing_after_quit():
  host = Host()
  engine_uci.serve(host.engine, iter(['quit', 'uci']))
  assert host.heard == []


def test_times_are_those_of_who_moves():
  text = 'wtime 60000 btime 10000 winc 1000 binc 0'
  assert read_go(text, 'w', 800).seconds == pytest.approx(60 / 25 + 0.75)
  assert read_go(text, 'b', 800).seconds == pytest.approx(10 / 25 - 0.05)
  assert read_go('wtime -20 btime 5', 'w', 800).seconds == 0
  usi = 'btime 0 wtime 0 byoyomi 3000'
  assert read_go(usi, 'b', 800).seconds == pytest.approx(2.95)
  assert read_go('movetime 500', 'w', 800) == Order(None, 0.45, False)
