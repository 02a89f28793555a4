"""The engine as other programs meet it: over pipes, with real partners."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from dl_lectures import training
from dl_lectures.envs import games
from dl_lectures.search import single
from dl_lectures.systems import alphazero
from dl_lectures.types import UsageError
from experiments import engine, engine_search, match, notation, opponents

ROOT = pathlib.Path(__file__).parents[2]
PATH = f'{os.environ["PATH"]}:/usr/games'
GNUGO = shutil.which('gnugo', path=PATH) or ''
STOCKFISH = shutil.which('stockfish', path=PATH) or ''
COMMAND = f'{shlex.quote(sys.executable)} -m experiments.engine'


def untrained(game, board_size=0):
  """A small network that knows nothing, and the state it is part of."""
  config = alphazero.Config(
    game=game,
    board_size=board_size,
    channels=4,
    blocks=1,
    width=8,
    lanes=1,
    batch_size=1,
    window=600,
  )
  rules = games.make(game, board_size or None)
  net = alphazero.network(config, rules)
  init = jax.jit(lambda key: alphazero.init(config, rules, net, key))
  state = init(jax.random.key(1))
  weights = alphazero.playing(state)
  return alphazero.Trained(config, rules, net, weights, 0), state


@pytest.fixture(scope='module')
def go_workdir(tmp_path_factory):
  return make_workdir(('go', 5), tmp_path_factory)


@pytest.fixture(scope='module')
def chess_workdir(tmp_path_factory):
  return make_workdir(('chess', 0), tmp_path_factory)


def make_workdir(game, tmp_path_factory):
  """A run whose training changed nothing."""
  workdir = str(tmp_path_factory.mktemp(game[0]))
  player, state = untrained(*game)
  training.fit(
    lambda state, batch, key: (state._replace(step=state.step + 1), {}),
    lambda key: state,
    config=player.config,
    workdir=workdir,
    num_steps=1,
    count_params=lambda state: state.average,
  )
  return workdir


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
  monkeypatch.chdir(ROOT)


def test_the_network_of_an_endgame_takes_only_its_men():
  game = games.make('chess_krk')
  dialect = engine._chess(notation.of(game), game)
  state = dialect.position('fen 8/8/8/2k5/8/2K5/8/R7 w - - 0 1 moves a1a8')
  assert dialect.colour(state) == 'b'
  assert not dialect.stuck(state)
  for fen in (
    '8/8/8/2k5/8/2K5/8/Q7 w - - 0 1',
    '8/8/8/2k5/8/2K5/8/8 w - - 0 1',
  ):
    with pytest.raises(UsageError, match='chess_krk has no such men'):
      dialect.position(f'fen {fen}')


def test_the_search_keeps_its_tree_when_the_game_goes_on():
  player, _ = untrained('go', 5)
  searcher = engine.make_searcher(player)
  step = jax.jit(player.game.step)
  state = player.game.init(jax.random.key(0))
  tree = searcher.begin(state)
  for _ in range(4):
    tree = searcher.extend(tree)
  found = searcher.read(tree)
  assert found.simulations == 4 * searcher.slice
  assert searcher.begin(state) is tree
  for action in found.line[:2]:
    state = step(state, np.int32(action))
  first, second = found.line[:2]
  reply = single.child(tree, first)
  assert reply is not None
  assert searcher.begin(state) is single.child(reply, second)
  # Somewhere else nothing is known.
  elsewhere = step(player.game.init(jax.random.key(0)), np.int32(25))
  assert searcher.begin(elsewhere).visits == 1


def test_it_is_the_player_that_is_judged():
  player, _ = untrained('go', 5)
  searcher = engine.make_searcher(player)._replace(slice=1)
  state = player.game.init(jax.random.key(0))
  found = engine_search.think(searcher, state, engine_search.Task(32, None))
  legal = np.asarray(player.game.legal_mask(state))
  assert legal[found.line[0]]
  assert -1 <= found.value <= 1


@pytest.mark.slow
def test_a_match_of_two_engines_over_pipes(go_workdir, capsys):
  ours = f'{COMMAND} --protocol=gtp --workdir={go_workdir} --simulations=1'
  match.match(
    first=ours,
    second=ours,
    game='go',
    board_size=5,
    num_games=2,
    simulations=0,
    go='',
    opening_plies=2,
    side='both',
    patience=120,
    output='',
    results='',
  )
  assert capsys.readouterr().out.startswith('all: 2 games, ')


@pytest.mark.skipif(not GNUGO, reason='needs gnugo (apt install gnugo)')
def test_a_match_with_gnu_go(go_workdir, capsys):
  match.match(
    first=go_workdir,
    second=f'{GNUGO} --mode gtp --level 1',
    game='',
    board_size=0,
    num_games=2,
    simulations=0,
    go='',
    opening_plies=0,
    side='both',
    patience=60,
    output='',
    results='',
  )
  assert 'begun by the first: 1 games' in capsys.readouterr().out


def test_python_chess_hosts_it(chess_workdir):
  chess = pytest.importorskip('chess.engine').chess
  command = shlex.split(
    f'{COMMAND} --protocol=uci --workdir={chess_workdir} --simulations=32'
  )
  with chess.engine.SimpleEngine.popen_uci(command, timeout=120) as ours:
    assert ours.id['name'].startswith('dl_lectures')
    ours.configure({'Simulations': 33})
    board = chess.Board()
    for _ in range(3):
      played = ours.play(board, chess.engine.Limit(nodes=32))
      assert played.move in board.legal_moves
      board.push(played.move)
    info = ours.analyse(board, chess.engine.Limit(time=0.5))
    assert info['nodes'] >= 32
    assert info['pv'][0] in board.legal_moves
    board = chess.Board('8/8/8/8/8/5k2/6q1/7K w - - 0 1')
    assert ours.play(board, chess.engine.Limit(nodes=32)).move is None


@pytest.mark.skipif(
  not STOCKFISH, reason='needs stockfish (apt install stockfish)'
)
def test_moves_against_stockfish_are_legal_on_both_sides(chess_workdir):
  player = alphazero.load(chess_workdir)
  rules = match.rules_of(player.game)
  with opponents.running(STOCKFISH, 60) as program:
    weak = opponents.speaks_uci(
      program, 'uci', 'nodes 5', ['Skill Level=0', 'Threads=1']
    )
    ours = match.network(player, rules, 0, 'ours')
    moves, reward = match.play_game(rules, (ours, weak), [])
  assert len(moves) > 4
  assert reward.sum() == 0
  assert notation.of(player.game).protocol == 'uci'


def test_a_partner_that_is_killed_ends_it(go_workdir):
  process = subprocess.Popen(
    shlex.split(f'{COMMAND} --protocol=gtp --workdir={go_workdir}'),
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdin is not None
  assert process.stdout is not None
  process.stdin.write('name\n')
  process.stdin.flush()
  assert process.stdout.readline() == '= dl_lectures AlphaZero\n'
  # The partner's ends of the pipes vanish with it.
  process.stdout.close()
  process.stdin.close()
  assert process.wait(30) in (0, 1)


def test_the_wrong_protocol_is_told(go_workdir):
  with pytest.raises(UsageError, match='plays go: gtp is possible'):
    engine.serve('uci', go_workdir, 10)
