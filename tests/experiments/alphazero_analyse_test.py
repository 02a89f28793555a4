"""alphazero_analyse: lines, thoughts, mistakes, what is left on disk."""

import io
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from dl_lectures import training
from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.training import sharding
from dl_lectures.types import UsageError
from experiments import alphazero_analyse

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ROOT.parent / 'shared' / 'data' / 'connect4'

SIMULATIONS = 48

# Every line that a file may hold, and what is wrong with it.
LINES = {
  '4453': None,
  '': None,
  ' 4453': None,  # all of it is ignored
  '32164625 11': None,
  '123\tabc': None,
  '444444': None,
  '4444444': "move 7, '4': illegal here; possible: 1, 2, 3, 5, 6, 7",
  '48': "move 2, '8': no such move; possible: 1 to 7",
  '4x5': "move 2, 'x': no such move; possible: 1 to 7",
  '1212121': 'the game is over after move 7',
  '12121213': "move 8, '3': the game is over after move 7",
  '1' * 1000: "move 7, '1': illegal here; possible: 2, 3, 4, 5, 6, 7",
}
GOOD = [line for line, error in LINES.items() if error is None]


def untrained(game_name: str) -> tuple[alphazero.Trained, alphazero.State]:
  """A small network that knows nothing, and the state it is part of."""
  config = alphazero.Config(
    game=game_name,
    channels=4,
    blocks=1,
    policy_channels=2,
    value_channels=1,
    head_width=4,
    lanes=2,
    batch_size=2,
    window=160,
  )
  game = games.make(game_name)
  net = alphazero.network(config, game)
  init = jax.jit(lambda key: alphazero.init(config, game, net, key))
  state = init(jax.random.key(1))
  weights = alphazero.playing(state)
  return alphazero.Trained(config, game, net, weights, 0), state


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run whose training changed nothing: its workdir and its player."""
  workdir = str(tmp_path_factory.mktemp('run'))
  player, state = untrained('connect_four')
  training.fit(
    lambda state, batch, key: (state._replace(step=state.step + 1), {}),
    lambda key: state,
    config=player.config,
    workdir=workdir,
    num_steps=1,
    count_params=lambda state: state.average,
    mesh=sharding.make_mesh(1),
  )
  return workdir, player


@pytest.fixture
def analyse(trained, tmp_path, monkeypatch, capsys):
  """Runs the program in this process: (exit code, lines, stderr)."""

  def call(*flags, text=None, output=None):
    (tmp_path / 'positions').write_text(text or '')
    flags = [
      f'--workdir={trained[0]}',
      f'--positions={tmp_path / "positions"}',
      f'--output={output or tmp_path / "out.jsonl"}',
      *flags,
    ]
    monkeypatch.setattr(sys, 'argv', ['program', *flags])
    with pytest.raises(SystemExit) as ended:
      alphazero_analyse.main()
    out, err = capsys.readouterr()
    if (tmp_path / 'out.jsonl').exists():
      out = (tmp_path / 'out.jsonl').read_text()
    lines = [json.loads(line) for line in out.splitlines()]
    return ended.value.code, lines, err

  return call


def moves_of(line: str) -> str:
  return line.partition(' ')[0].partition('\t')[0]


@pytest.mark.parametrize('simulations', [0, SIMULATIONS])
def test_lines_in_order_with_the_thoughts_of_each(
  analyse, trained, simulations, monkeypatch
):
  # Parts of four: the last one is not full.
  monkeypatch.setattr(alphazero_analyse, '_MOST_POSITIONS', 4)
  code, lines, err = analyse(
    f'--simulations={simulations}', text='\n'.join(LINES) + '\n'
  )
  assert code == 0
  assert f'{len(LINES)} positions, 6 of them with an error' in err
  assert [line['position'] for line in lines] == [*map(moves_of, LINES)]
  assert [line.get('error') for line in lines] == [*LINES.values()]

  # The oracle: every position alone, played move by move.
  _, player = trained
  think = alphazero.think(player.config, player.game, player.net, simulations)
  states = [games.play_moves(player.game, moves_of(line)) for line in GOOD]
  states = jax.tree.map(lambda *x: np.stack(x), *states)
  thought = jax.device_get(think(player.weights, states))
  good = [line for line in lines if 'error' not in line]
  for name in ('visits', 'prior', 'value'):
    found = np.array([line[name] for line in good])
    np.testing.assert_allclose(found, getattr(thought, name), atol=1e-6)
  assert [line['move'] for line in good] == (thought.action + 1).tolist()
  assert set(good[0]) == {'position', 'move', 'visits', 'prior', 'value'}


def test_moves_and_values_are_the_movers(analyse):
  # X wins with 4 at once; then O, to move, cannot stop both 1 and 5.
  text = '112233\n22334\n\n\n'
  _, lines, _ = analyse(f'--simulations={SIMULATIONS}', text=text)
  win, lost = lines[:2]
  assert win['move'] == 4
  assert win['value'] > 0.5
  assert sum(win['visits']) == SIMULATIONS
  assert win['visits'][3] == max(win['visits'])
  assert lost['value'] < -0.2


def test_full_columns_are_never_thought_of(analyse):
  _, (line,), _ = analyse('--simulations=0', text='444444')
  assert line['prior'][3] == 0
  assert sum(line['prior']) == pytest.approx(1, abs=1e-5)
  assert line['visits'] == [0] * 7
  assert line['move'] == 1 + np.argmax(line['prior'])


def test_an_empty_file_gives_an_empty_file(analyse):
  assert analyse('--simulations=0', text='')[:2] == (0, [])


def test_nothing_but_errors(analyse):
  code, lines, _ = analyse('--simulations=0', text='8\n9\n')
  assert code == 0
  assert ['error' in line for line in lines] == [True, True]


def test_standard_input_and_output(analyse, monkeypatch):
  monkeypatch.setattr(sys, 'stdin', io.StringIO('44 5\r\n45'))
  code, lines, _ = analyse('--simulations=0', '--positions=-', output='-')
  assert code == 0
  assert [line['position'] for line in lines] == ['44', '45']


def test_bytes_that_are_no_text_are_an_error_in_their_line(analyse, tmp_path):
  (tmp_path / 'bytes').write_bytes(b'\xef\xbb\xbf44\n4\xff\n45')
  code, lines, _ = analyse('--simulations=0', f'--positions={tmp_path}/bytes')
  assert code == 0
  assert ['error' in line for line in lines] == [False, True, False]


def test_an_interrupted_program_leaves_the_old_output(
  analyse, tmp_path, monkeypatch
):
  def stop(*_):
    yield {'position': '4'}
    raise KeyboardInterrupt

  out = tmp_path / 'out.jsonl'
  out.write_text('{"old": 1}\n')
  monkeypatch.setattr(alphazero_analyse, 'think', stop)
  code, lines, err = analyse('--simulations=0', text='4')
  assert (code, lines, err) == (130, [{'old': 1}], 'stopped\n')
  assert {p.name for p in tmp_path.iterdir()} == {'positions', 'out.jsonl'}


def test_a_device_is_written_to_not_replaced(analyse):
  assert analyse('--simulations=0', text='4', output='/dev/null')[0] == 0
  assert pathlib.Path('/dev/null').is_char_device()


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--simulations=-1', '--simulations=-1: a whole number from 0 to'),
    ('--simulation=3', 'did you mean --simulations?'),
    ('--workdir=/nowhere', '/nowhere holds no run'),
    ('--positions=/nowhere', 'cannot be read: No such file'),
    ('--positions=/', '--positions=/ cannot be read: Is a directory'),
    ('--output=/', '--output=/ cannot be written: it is a directory'),
    ('--output=/nowhere/x', 'there is no directory /nowhere'),
  ],
)
def test_mistakes_are_told_in_one_line(analyse, tmp_path, flag, said):
  code, lines, err = analyse(flag, text='4')
  assert (code, lines) == (2, [])
  assert err.count('\n') == 1
  assert said in err
  assert [p.name for p in tmp_path.iterdir()] == ['positions']


def test_another_game_whose_moves_are_digits():
  player, _ = untrained('tic_tac_toe')
  found = alphazero_analyse.replay(player.game, ['519', '55'])
  good, wrong = alphazero_analyse.think(player, found, 0)
  assert good['move'] in (2, 3, 4, 6, 7, 8)
  assert len(good['visits']) == len(good['prior']) == 9
  assert wrong['error'].startswith("move 2, '5': illegal here; possible: 1,")


def test_a_game_whose_moves_are_no_digits_is_told_in_one_line():
  game = games.make('tic_tac_toe')._replace(
    name='chess', action_name=lambda action: f'a{action}'
  )
  with pytest.raises(UsageError, match='positions of chess cannot be written'):
    alphazero_analyse.replay(game, ['a1'])


def plain_rules(moves: str) -> str:
  """Connect Four in plain Python: what is wrong with the moves, or nothing."""
  columns = [[] for _ in range(7)]
  over = False
  for ply, move in enumerate(moves):
    if move not in '1234567':
      return 'no such move'
    column = int(move) - 1
    if over:
      return 'over'
    if len(columns[column]) == 6:
      return 'illegal'
    columns[column].append(ply % 2)

    def stone(x, y):
      inside = 0 <= x < 7 and 0 <= y < len(columns[x])
      return columns[x][y] if inside else None

    over = ply == 41 or any(
      {stone(x + i * dx, y + i * dy) for i in range(4)} == {ply % 2}
      for x in range(7)
      for y in range(6)
      for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1))
    )
  return 'over' if over else ''


def test_random_lines_are_judged_as_plain_rules_judge_them():
  rng = np.random.default_rng(0)
  texts = [
    ''.join(
      rng.choice(list('12345678'), rng.integers(45), p=[0.142] * 7 + [0.006])
    )
    for _ in range(300)
  ]
  found = alphazero_analyse.replay(games.make('connect_four'), texts)
  kinds = [plain_rules(text) for text in texts]
  assert {*kinds} == {'', 'over', 'illegal', 'no such move'}
  for text, error, kind in zip(texts, found.errors, kinds, strict=True):
    assert bool(error) == bool(kind), text
    assert kind in error
  assert found.states.ply.tolist() == [
    len(text) for text, kind in zip(texts, kinds, strict=True) if not kind
  ]


def test_the_published_positions_are_all_legal(analyse):
  if not SHARED.exists():
    pytest.skip('the published positions are not here')
  path = SHARED / 'Test_L1_R1'
  code, lines, _ = analyse('--simulations=0', f'--positions={path}')
  assert code == 0
  assert [line['position'] for line in lines] == [
    line.split()[0] for line in path.read_text().splitlines()
  ]
  assert all(1 <= line['move'] <= 7 for line in lines)


def test_the_exit_code_is_the_processes(tmp_path):
  command = [sys.executable, '-m', 'experiments.alphazero_analyse']
  command += [f'--workdir={tmp_path}', f'--positions={__file__}']
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert ended.returncode == 2
  assert ended.stdout == ''
  assert ended.stderr.count('\n') == 1
  assert 'holds no run' in ended.stderr
