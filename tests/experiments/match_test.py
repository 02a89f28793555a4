"""Matches: sides change, results add up, failures are told."""

import json
import os
import shutil
from typing import Any

import numpy as np
import pytest

from dl_lectures.envs import games
from dl_lectures.types import UsageError
from experiments import match, opponents
from tests.experiments.opponents_test import GTP, script

GNUGO = shutil.which('gnugo', path=f'{os.environ["PATH"]}:/usr/games')


@pytest.fixture(scope='module')
def rules():
  return match.rules_of(games.make('go', 5))


def player(name, choose, rules):
  def move(state, moves):
    del moves
    return rules.notation.name(
      state, choose(np.flatnonzero(rules.legal(state)))
    )

  return opponents.Opponent(name, lambda: None, move)


def test_who_fills_the_board_beats_who_passes(rules):
  black = player('first', lambda legal: legal[0], rules)
  white = player('passes', lambda legal: legal[-1], rules)
  moves, reward = match.play_game(rules, (black, white), [])
  assert moves[:2] == ['A5', 'pass']
  assert reward.tolist() == [1, -1]


def test_who_resigns_loses(rules):
  quitter = opponents.Opponent('q', lambda: None, lambda state, moves: 'resign')
  other = player('first', lambda legal: legal[0], rules)
  assert match.play_game(rules, (quitter, other), [])[1].tolist() == [-1, 1]
  moves, reward = match.play_game(rules, (other, quitter), [3, 4])
  assert moves == ['D5', 'E5', 'A5', 'resign']
  assert reward.tolist() == [1, -1]


def test_an_illegal_move_is_told(rules):
  cheat = opponents.Opponent('cheat', lambda: None, lambda state, moves: 'C3')
  with pytest.raises(
    UsageError, match="'cheat' moved illegally: 'C3' after C3"
  ):
    match.play_game(rules, (cheat, cheat), [])


def test_openings_are_legal_and_not_over(rules):
  opening = match.random_opening(rules, 6, np.random.default_rng(0))
  state = rules.start
  for action in opening:
    assert rules.legal(state)[action]
    state = rules.step(state, action)
  assert len(opening) == 6
  assert not rules.over(state)


def test_the_report_counts_points_and_sides():
  played = [
    match.Played(0, ['a'], 1.0),
    match.Played(1, ['a'], 0.5),
    match.Played(0, ['a'], 1.0),
    match.Played(1, ['a'], 0.0),
  ]
  all_games, first, second, elo = match.report('x', 'y', played).splitlines()
  assert all_games.startswith(
    'all: 4 games, 2 of them different, +2 =1 -1, score 0.625, 95% '
  )
  assert first.startswith('begun by the first: 2 games, 1 of them different, ')
  assert second.startswith(
    'begun by the second: 2 games, 1 of them different, +0 =1 -1, score 0.25'
  )
  assert elo.startswith("'x' is +89 Elo above 'y', 95% -")


def run(tmp_path, **flags: Any):
  usual: dict[str, Any] = {
    'game': 'go',
    'board_size': 5,
    'num_games': 2,
    'simulations': 0,
    'go': 'nodes 5',
    'opening_plies': 0,
    'side': 'both',
    'patience': 30,
    'output': str(tmp_path / 'games.jsonl'),
    'results': str(tmp_path / 'results.json'),
  }
  match.match(**(usual | flags))


def test_a_program_that_cheats_ends_the_match_in_one_line(tmp_path):
  toy = script(tmp_path, GTP)
  with pytest.raises(UsageError, match='moved illegally') as told:
    run(tmp_path, first=toy, second=toy)
  assert '\n' not in str(told.value)


def test_two_programs_need_a_game(tmp_path):
  with pytest.raises(UsageError, match='need --game'):
    run(tmp_path, first='a', second='b', game='')


@pytest.mark.skipif(GNUGO is None, reason='needs gnugo (apt install gnugo)')
def test_gnu_go_against_itself(tmp_path, capsys):
  program = f'{GNUGO} --mode gtp --level 1'
  run(tmp_path, first=program, second=program, opening_plies=2)
  out = capsys.readouterr().out
  assert out.startswith('all: 2 games, ')
  assert len((tmp_path / 'games.jsonl').read_text().splitlines()) == 2
  results = json.loads((tmp_path / 'results.json').read_text())
  began, answered = (claim['value'] for claim in results['claims'])
  assert f'score {(began + answered) / 2:.3f}' in out
