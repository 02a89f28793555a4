"""alphazero_scaling: pairs, going on after a stop, what is claimed."""

import dataclasses
import json
from typing import Any

import pytest

from dl_lectures.analysis import matches
from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.types import UsageError
from experiments import alphazero_scaling
from tests.experiments.alphazero_analyse_test import untrained


@pytest.fixture(scope='module')
def trained() -> alphazero.Trained:
  return untrained('tic_tac_toe')[0]


def settings(**changes) -> alphazero_scaling.Settings:
  usual: dict[str, Any] = {
    'workdir': 'w',
    'step': 3,
    'simulations': (0, 1, 16, 64),
    'num_games': 40,
    'opening_plies': 2,
  }
  return alphazero_scaling.Settings(**usual | changes)


def test_neighbours_meet_and_what_was_played_is_kept(trained, tmp_path):
  kept = tmp_path / 'pairs.jsonl'
  points = alphazero_scaling.play(trained, settings(), kept)
  lines = [json.loads(line) for line in kept.read_text().splitlines()]
  pairs = [(0, 1), (0, 16), (1, 16), (1, 64), (16, 64)]
  assert [tuple(line['pair']) for line in lines] == pairs
  met = points + points.T
  assert met[0, 3] == 0
  assert met[0, 1] == met[2, 3] == 40
  # With search even an untrained network is the better player.
  assert points[2, 0] > 24
  assert points[3, 1] > 24

  # Once more: nothing is played, and a line cut short is nothing.
  lines[0]['points'] = 7.0
  whole = ''.join(json.dumps(line) + '\n' for line in lines)
  kept.write_text(whole + '{"pair": [0, 1], "poi')
  again = alphazero_scaling.play(trained, settings(), kept)
  assert again[0, 1] == 7
  assert again[1, 0] == 33
  assert (again[1:, 1:] == points[1:, 1:]).all()


def test_other_settings_are_played_anew(trained, tmp_path):
  kept = tmp_path / 'pairs.jsonl'
  few = settings(simulations=(0, 1))
  alphazero_scaling.play(trained, few, kept)
  fewer = dataclasses.replace(few, num_games=20)
  alphazero_scaling.play(trained, fewer, kept)
  assert len(kept.read_text().splitlines()) == 2


def test_claims_tell_a_step_that_leads_down():
  def standing(name, elo):
    return matches.Standing(name, elo, 10.0, 0.5, 100)

  game = games.make('tic_tac_toe')
  ladder = [standing(n, e) for n, e in (('1', 0), ('2', 90), ('3', 70))]
  height, order = alphazero_scaling.claims(game, ladder)
  assert height.value == 70
  assert height.interval == (50.4, 89.6)
  # 20 Elo down, within 1.96 * sqrt(200) = 27.7.
  assert order.value == 1
  assert order.met
  ladder[2] = standing('3', 50)
  order = alphazero_scaling.claims(game, ladder)[1]
  assert order.value == 0.5
  assert not order.met


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'simulations': (4, 4)}, 'two numbers at least'),
    ({'num_games': 3}, '--num_games=3 is odd'),
  ],
)
def test_what_cannot_be_is_told(
  changes, message, trained, tmp_path, monkeypatch
):
  monkeypatch.setattr(alphazero, 'load', lambda workdir: trained)
  usual: dict[str, Any] = {
    'workdir': str(tmp_path),
    'simulations': (0, 1),
    'num_games': 2,
    'opening_plies': 2,
    'output': '',
    'results': '',
  }
  with pytest.raises(UsageError, match=message):
    alphazero_scaling.scaling(**usual | changes)
