"""Dialogues with referees of Go, the searcher being a stand-in."""

import jax
import numpy as np
import pytest

from dl_lectures.envs import games
from experiments import engine_gtp, engine_search

SIZE = 5
GAME = games.make('go', SIZE)
legal_mask, step = jax.jit(GAME.legal_mask), jax.jit(GAME.step)


def legal(state):
  return np.asarray(legal_mask(state))


RULES = engine_gtp.Rules(
  GAME,
  SIZE,
  GAME.init(jax.random.key(0)),
  step,
  legal,
  lambda state: bool(GAME.terminal(state)),
  lambda state: 3,
)
# Plays the first legal move; a tree is a position and its simulations.
SEARCHER = engine_search.Searcher(
  begin=lambda state: (state, 0),
  extend=lambda tree: (tree[0], tree[1] + 10),
  read=lambda tree: engine_search.Found(
    [int(np.argmax(legal(tree[0])))], tree[1], 0.0
  ),
  slice=10,
  room=100,
)


@pytest.fixture
def ask():
  engine = engine_gtp.Engine(RULES, SEARCHER, 20, 7.5, '1.0')
  return engine.answer


def board(answer):
  """The rows of stones that `showboard` prints, the top first."""
  rows = answer.splitlines()
  return [
    ''.join(c for c in row if c in '.XO')
    for row in rows
    if row.strip()[:1].isdigit()
  ]


def test_answers_have_the_form_of_the_protocol(ask):
  assert ask('protocol_version') == '= 2\n\n'
  assert ask('17 name\n') == '=17 dl_lectures AlphaZero\n\n'
  assert ask('3 known_command genmove # really?') == '=3 true\n\n'
  assert ask('known_command dance') == '= false\n\n'
  assert ask('komi\t6.5\r\n') == '=\n\n'
  assert ask('') is ask('# a remark') is None
  commands = ask('list_commands').removeprefix('= ').split()
  assert {'play', 'genmove', 'undo', 'quit', 'final_score'} <= set(commands)


def test_what_cannot_be_done_is_told(ask):
  assert ask('5 dance') == '?5 unknown command\n\n'
  assert ask('boardsize 9').startswith('? unacceptable size')
  assert ask('play black') == '? syntax error\n\n'
  assert ask('play green C3').startswith("? invalid color 'green'")
  assert ask('play black Z9').startswith('? invalid vertex')
  assert ask('undo') == '? cannot undo\n\n'
  assert ask('komi plenty').startswith('? syntax error')
  assert ask('7') == '?7 a number without a command\n\n'
  ask('play b C3')
  assert ask('play w C3') == '? illegal move\n\n'


def test_a_game_is_played_and_taken_back(ask):
  ask('boardsize 5')
  assert ask('play B C3') == '=\n\n'
  assert ask('genmove w') == '= A5\n\n'
  assert board(ask('showboard'))[0][0] == 'O'
  assert ask('undo') == '=\n\n'
  assert board(ask('showboard')) == ['.....', '.....', '..X..', *['.....'] * 2]
  assert ask('reg_genmove w') == '= A5\n\n'
  assert board(ask('showboard'))[0] == '.....'
  ask('clear_board')
  assert board(ask('showboard'))[2] == '.....'


def test_who_is_asked_out_of_turn_moves_after_a_pass(ask):
  ask('play b C3')
  ask('play b C4')
  assert board(ask('showboard'))[1:3] == ['..X..', '..X..']
  ask('play w pass')
  # The game would end by a second pass in a row.
  assert ask('play w pass').startswith('? illegal move')


def test_two_passes_end_the_game_until_one_is_taken_back(ask):
  ask('play b pass')
  ask('play w pass')
  assert ask('genmove b').startswith('? illegal move; the game is over')
  assert ask('undo') == '=\n\n'
  assert ask('genmove w') == '= A5\n\n'


def test_the_score_is_the_area_less_komi(ask):
  assert ask('final_score') == '= W+4.5\n\n'
  ask('komi 0.5')
  assert ask('final_score') == '= B+2.5\n\n'
  ask('komi 3')
  assert ask('final_score') == '= 0\n\n'


def test_time_is_kept(ask):
  assert ask('time_settings 0 1 1') == '=\n\n'
  assert ask('time_left b 30 0') == '=\n\n'
  assert ask('genmove b') == '= A5\n\n'
  assert ask('time_left b soon 0').startswith('? syntax error')
  assert ask('time_settings 0 1 0') == '=\n\n'  # no limit
  assert ask('genmove w') == '= B5\n\n'


def test_the_dialogue_ends_with_quit_or_with_the_partner():
  heard = []
  engine = engine_gtp.Engine(RULES, SEARCHER, 20, 7.5, '1.0')
  engine_gtp.serve(engine, ['name\n', '4 quit\n', 'name\n'], heard.append)
  assert heard == ['= dl_lectures AlphaZero\n\n', '=4\n\n']
  engine_gtp.serve(engine, [], heard.append)
