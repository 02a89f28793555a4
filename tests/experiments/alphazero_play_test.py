"""alphazero_play: games typed line by line, and what is shown of them."""

import io
import pathlib
import subprocess
import sys

import jax
import pytest

from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.types import UsageError
from experiments import alphazero_play

ROOT = pathlib.Path(__file__).parents[2]
SIMULATIONS = 48


def untrained(game_name: str) -> alphazero.Trained:
  """A small network that knows nothing."""
  config = alphazero.Config(
    game=game_name,
    channels=4,
    blocks=1,
    policy_channels=2,
    value_channels=1,
    head_width=4,
    lanes=2,
    batch_size=2,
  )
  game = games.make(game_name)
  net = alphazero.network(config, game)
  observation = game.observe(game.init(jax.random.key(0)))[None]
  init = jax.jit(net.init, static_argnums=2)
  weights = init(jax.random.key(1), observation, True)
  return alphazero.Trained(config, game, net, weights, 7)


@pytest.fixture(scope='module')
def table():
  return alphazero_play.lay(untrained('tic_tac_toe'), SIMULATIONS)


@pytest.fixture
def match(table):
  return alphazero_play.Match((table.start,), 0)


@pytest.fixture
def play(table, monkeypatch, capsys):
  """Runs the program in this process: (exit code, stdout, stderr)."""
  monkeypatch.setattr(alphazero_play, 'lay', lambda trained, n: table)
  monkeypatch.setattr(alphazero, 'load', lambda w: untrained('tic_tac_toe'))

  def call(text, *flags):
    monkeypatch.setattr(sys, 'stdin', io.StringIO(text))
    monkeypatch.setattr(sys, 'argv', ['program', '--workdir=w', *flags])
    with pytest.raises(SystemExit) as ended:
      alphazero_play.main()
    return ended.value.code, *capsys.readouterr()

  return call


def moved(table, match, *actions):
  """The match after these moves, whoever makes them."""
  for action in actions:
    match = match._replace(past=(*match.past, table.step(match.now, action)))
  return match


def told(table, match, order, capsys):
  """The match after an order, and what was printed."""
  capsys.readouterr()
  match = alphazero_play.obey(table, match, order)
  return match, capsys.readouterr().out


def test_a_game_is_played_to_its_end(play):
  code, out, err = play('\n'.join('123456789' * 2))
  assert (code, err) == (0, '')
  assert out.startswith('tic_tac_toe, w at step 7, 256 simulations a move\n')
  results = ('You win.', 'You lose.', 'A draw.')
  assert sum(out.count(f'\n{result}') for result in results) == 1
  assert out.endswith('> \nThank you for the game.\n')


def test_every_reply_shows_the_board_and_what_was_thought(play, table, match):
  _, out, _ = play('5\nquit\n')
  asked = moved(table, match, 4).now
  thought = table.think(asked)
  replied = table.step(asked, thought.action)
  assert f'> 5\n\nThe network plays {thought.action + 1}, after ' in out
  assert (
    alphazero_play.to_text(table.game, thought)
    + f'\n\n{table.game.render(replied.state)}\n> quit\nThank you'
  ) in out


def test_the_network_begins_if_it_is_asked_to(play, table):
  _, out, _ = play('', '--first=network')
  best = table.think(table.start).action
  assert out.index(f'The network plays {best + 1}') < out.index('> ')
  assert 'O to move\n> ' in out


def test_swap_hands_over_the_move(play):
  _, out, _ = play('swap\n')
  assert '> swap\nYou are the second player now.\n\nThe network plays' in out


@pytest.mark.parametrize('text', ['', '5\n', 'q', 'exit\n', '/quit\n'])
def test_the_end_is_polite(play, text):
  code, out, err = play(text)
  assert (code, err) == (0, '')
  assert out.endswith('\nThank you for the game.\n')


def test_ctrl_c_is_polite(play, monkeypatch):
  def interrupted(prompt):
    raise KeyboardInterrupt

  monkeypatch.setattr('builtins.input', interrupted)
  code, out, err = play('')
  assert (code, err) == (0, '')
  assert out.endswith('\n\nThank you for the game.\n')


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('', 'type a move, or help'),
    ('0', "'0' is not a cell; possible: 1 to 9, or undo, swap, hint, new, "),
    ('udno', '; did you mean undo?'),
    ('undo', 'there is no move of yours to take back'),
  ],
)
def test_bad_input_gets_one_line(play, text, said):
  _, out, _ = play(f'{text}\nquit\n')
  after = out.partition(f'> {text}\n')[2]
  line, end, _ = after.partition('\n> quit\n')
  assert end
  assert '\n' not in line
  assert said in line


def test_a_move_that_is_taken(table, match):
  match = moved(table, match, 4, 0)
  with pytest.raises(UsageError, match='1 is illegal here; possible: 2, 3, 4'):
    alphazero_play.obey(table, match, 0)


def test_undo_takes_back_a_move_and_its_answer(table, match, capsys):
  # X: 5, 1; O: 2, 9; X is the person and to move.
  now = moved(table, match, 4, 1, 0, 8)
  back, out = told(table, now, 'undo', capsys)
  assert back == moved(table, match, 4, 1)._replace(past=now.past[:3])
  assert out == f'\n{table.game.render(back.now.state)}\n'
  back, _ = told(table, back, 'undo', capsys)
  assert back == match
  # O's first move is all that O can take back, and X's stands before it.
  second = now._replace(person=1, past=now.past[:4])
  back, _ = told(table, second, 'undo', capsys)
  assert back.past == now.past[:2]
  with pytest.raises(UsageError, match='no move of yours'):
    alphazero_play.obey(table, back, 'undo')


def test_a_game_that_is_over(table, match, capsys):
  match = moved(table, match, 0, 3, 1, 4)
  won, out = told(table, match, 2, capsys)
  assert 'X wins\nYou win. Possible: new, undo, swap, quit.\n' in out
  for order in (5, 'hint'):
    with pytest.raises(UsageError, match='the game is over; possible: new'):
      alphazero_play.obey(table, won, order)
  assert told(table, won, 'undo', capsys)[0] == match
  other, _ = told(table, won, 'swap', capsys)
  assert other.person == 1
  alphazero_play.show(table, other)
  assert 'You lose.' in capsys.readouterr().out
  assert told(table, other, 'new', capsys)[0].past == (table.start,)


def test_a_draw(table, match, capsys):
  alphazero_play.show(table, moved(table, match, 0, 1, 2, 4, 3, 5, 7, 6, 8))
  assert 'draw\nA draw. Possible' in capsys.readouterr().out


def test_a_hint_is_what_the_network_would_play(table, match, capsys):
  # X has 1 and 2: any search sees 3.
  match = moved(table, match, 0, 3, 1, 7)
  same, out = told(table, match, 'hint', capsys)
  assert same is match
  assert '\nIt would play 3.\n' in out
  assert alphazero_play.to_text(table.game, table.think(match.now)) in out


@pytest.mark.parametrize('simulations', [0, SIMULATIONS])
def test_it_is_the_player_that_is_judged(table, match, simulations):
  trained = untrained('tic_tac_toe')
  judged = alphazero.think(
    trained.config, trained.game, trained.net, simulations
  )
  if simulations == 0:
    table = alphazero_play.lay(trained, simulations)
  for actions in ((), (4,), (0, 3, 1, 7)):
    position = moved(table, match, *actions).now
    thought = table.think(position)
    states = jax.tree.map(lambda x: x[None], position.state)
    expected = alphazero.take(judged(trained.weights, states), 0)
    assert thought.action == expected.action
    assert thought.value == pytest.approx(float(expected.value), abs=1e-6)
    free = [action for action in range(9) if action not in actions]
    assert [row.action for row in thought.rows] == free
    for row in thought.rows:
      assert row.visits == expected.visits[row.action]
      assert row.prior == pytest.approx(float(expected.prior[row.action]))
      if row.visits:
        assert row.value == pytest.approx(float(expected.qvalues[row.action]))
    assert sum(row.visits for row in thought.rows) == simulations


def test_values_are_those_of_the_positions_that_follow(table, match):
  trained = untrained('tic_tac_toe')
  # X wins with 3; after 6 O is to move, and what O expects X does not.
  match = moved(table, match, 0, 3, 1, 7)
  values = {row.action: row.value for row in table.think(match.now).rows}
  assert values[2] == 1
  state = jax.tree.map(lambda x: x[None], moved(table, match, 5).now.state)
  evaluated = alphazero.evaluate_positions(
    trained.game, trained.net, trained.weights, state
  )
  assert values[5] == pytest.approx(-float(evaluated.value[0]), abs=1e-6)
  assert values[5] != 0


def test_what_was_thought_as_a_table():
  rows = [
    alphazero_play.Row(0, 0.25, 20, -0.004),
    alphazero_play.Row(2, 0.75, 60, 0.5),
    alphazero_play.Row(8, 0.0, 0, -1.0),
  ]
  thought = alphazero_play.Thought(2, rows, 0, -0.125)
  game = games.make('tic_tac_toe')
  assert (
    alphazero_play.to_text(game, thought)
    == """\
  move  value  prior                       visits
     1  +0.00    25% █████                     20 █████
>    3  +0.50    75% ███████████████           60 ███████████████
     9  -1.00     0%                            0
  the position is worth -0.12"""
  )
  rows = [row._replace(visits=0) for row in rows]
  raw = alphazero_play.Thought(2, rows, 4, -0.125)
  assert (
    alphazero_play.to_text(game, raw)
    == """\
  move  value  prior
     1  +0.00    25% █████
>    3  +0.50    75% ███████████████
     9  -1.00     0%
  and 4 more
  the position is worth -0.12"""
  )


def test_of_many_moves_the_best_are_shown(match, monkeypatch):
  monkeypatch.setattr(alphazero_play, '_MOST_ROWS', 4)
  table = alphazero_play.lay(untrained('tic_tac_toe'), SIMULATIONS)
  thought = table.think(match.now)
  assert thought.left_out == 5
  visits = [row.visits for row in thought.rows]
  assert visits == sorted(visits, reverse=True)
  assert visits[-1] * 5 >= SIMULATIONS - sum(visits)
  assert thought.rows[0].action == thought.action
  # Two moves are left, and four rows are there for them.
  late = table.think(moved(table, match, 0, 1, 2, 4, 3, 5, 7).now)
  assert [row.action for row in late.rows] == [6, 8]
  assert late.left_out == 0


def test_a_move_may_be_called_like_a_command(table):
  game = table.game._replace(
    action_name=lambda action: 'swap' if action == 8 else str(action + 1),
    parse_action=lambda text: {'swap': 8}[text],
  )
  assert alphazero_play.read(game, 'swap') == 8
  assert '/swap' in alphazero_play.instructions(game)
  assert alphazero_play.read(table.game, '/swap') == 'swap'
  assert '/swap' not in alphazero_play.instructions(table.game)


def test_help_names_every_command(play):
  _, out, _ = play('help\n')
  for command in alphazero_play.COMMANDS:
    assert f'\n  {command:<12} ' in out


def test_stones_are_coloured_on_a_terminal_alone(monkeypatch):
  class Terminal(io.StringIO):
    encoding = 'utf-8'

    def isatty(self):
      return True

  shown = '[X]. O\nX to move'
  assert alphazero_play.decorate(shown) == shown
  monkeypatch.setattr(sys, 'stdout', Terminal())
  monkeypatch.delenv('NO_COLOR', raising=False)
  monkeypatch.setenv('TERM', 'xterm')
  x, o = '\033[1;33m●\033[0m', '\033[1;31m○\033[0m'
  assert alphazero_play.decorate(shown) == f'[{x}]. {o}\n{x} to move'
  monkeypatch.setenv('NO_COLOR', '1')
  assert alphazero_play.decorate(shown) == shown


def test_mistakes_are_told_in_one_line_by_the_process(tmp_path):
  command = [sys.executable, '-m', 'experiments.alphazero_play']
  command += [f'--workdir={tmp_path}']
  ended = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, input=''
  )
  assert ended.returncode == 2
  assert ended.stdout == ''
  assert ended.stderr.count('\n') == 1
  assert 'holds no run' in ended.stderr


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--first=me', '--first=me: possible: you, network'),
    ('--simulations=many', '--simulations=many: a whole number from 0 to'),
  ],
)
def test_mistakes_are_told_in_one_line(play, flag, said):
  code, out, err = play('', flag)
  assert (code, out) == (2, '')
  assert said in err
