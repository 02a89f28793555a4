"""The five populations: what they differ in, and what is claimed of them."""

import dataclasses
import itertools
import pathlib

import jax
import numpy as np
import pytest

from dl_lectures import types
from dl_lectures.analysis import capture_matches
from dl_lectures.systems import ftw
from experiments import ftw_ablations

WON = {'self-play': 0.1, 'fixed rewards': 0.5, 'PBT': 0.5}


def made_up():
  def arm(name):
    shares = dict.fromkeys(capture_matches.BOTS, WON.get(name, 0.7))
    look = {'path follower': 0.5, 'tagger': shares['tagger']}
    curve = [{'millions': float(i), **look} for i in range(3)]
    both = {'best': shares, 'median': shares}
    return {**both, 'curve': curve, 'copies': 3, 'seconds': 60.0}

  return {name: arm(name) for name in ftw_ablations.ARMS}


def test_each_arm_has_one_part_more_than_the_one_before():
  configs = [
    ftw_ablations.PRESETS['laptop'].of_arm(name) for name in ftw_ablations.ARMS
  ]
  fields = [field.name for field in dataclasses.fields(ftw.Config)]
  differ = [
    [name for name in fields if getattr(a, name) != getattr(b, name)]
    for a, b in itertools.pairwise(configs)
  ]
  assert differ == [['shaped'], ['evolves'], ['evolves'], ['slow']]
  # The last one is FTW as it is trained elsewhere.
  steps = configs[-1].agent_steps
  assert configs[-1] == dataclasses.replace(
    ftw.PRESETS['laptop'], agent_steps=steps
  )


def test_what_a_part_adds_is_a_difference_of_ratings():
  found = made_up()
  points = np.full((4, 4), 256.0)
  elo = {
    name: ftw_ablations.rate(points, arm['best'], 512)
    for name, arm in found.items()
  }
  # Half of all games against equals: as good as they are.
  assert elo['PBT'][0] == pytest.approx(0, abs=1)
  # Seven of ten: 400 log10(7 / 3), but for the games that a prior adds.
  assert elo['FTW'][0] == pytest.approx(400 * np.log10(7 / 3), abs=5)
  claims = {c.name: c for c in ftw_ablations.make_claims(elo, found, 512)}
  assert claims['Elo added by evolving rates and costs'].value == 0
  assert claims['Elo added by the slow memory'].value == 0
  shaped = claims['Elo added by rewards for all events']
  assert shaped.value == pytest.approx(
    elo['fixed rewards'][0] - elo['self-play'][0]
  )
  lost = claims['games won against the tagger, best member, self-play']
  assert (lost.value, lost.baseline) == (0.1, 0.5)
  # 1.96 of sqrt(.1 x .9 / 512).
  assert lost.interval == pytest.approx((0.074, 0.126), abs=1e-3)
  (axes,) = ftw_ablations.draw(points, found).axes
  assert [line.get_label() for line in axes.lines[:5]] == list(found)


def test_a_base_that_is_no_preset_is_told():
  with pytest.raises(types.UsageError, match='possible: smoke, laptop'):
    ftw_ablations.Config(base='large')


def test_a_run_is_kept_and_reported(tmp_path, monkeypatch):
  found = made_up()
  asked = []

  def run(config, workdir, key):
    del key
    name = pathlib.Path(workdir).name.replace('_', ' ')
    asked.append(config)
    return found[name]

  monkeypatch.setattr(ftw_ablations, 'run', run)
  monkeypatch.setattr(
    capture_matches, 'bot_points', lambda *_: np.full((4, 4), 256.0)
  )
  config = ftw_ablations.PRESETS['smoke']
  metrics = ftw_ablations.train(config, workdir=str(tmp_path))
  assert asked == [config.of_arm(name) for name in ftw_ablations.ARMS]
  assert set(metrics) >= {f'elo/{name}' for name in ftw_ablations.ARMS}
  assert metrics['copies/FTW'] == 3
  assert metrics['tagger, median member/FTW'] == 0.7
  assert (tmp_path / 'report.html').exists()
  again = ftw_ablations.train(config, workdir=str(tmp_path))
  assert len(asked) == len(ftw_ablations.ARMS)
  assert again['elo/FTW'] == metrics['elo/FTW']


@pytest.mark.slow
def test_a_population_is_trained_and_meets_the_bots(tmp_path):
  config = dataclasses.replace(
    ftw.PRESETS['smoke'], size=9, length=16, unroll=8, agent_steps=2_000
  )
  found = ftw_ablations.run(config, str(tmp_path), jax.random.key(0))
  assert set(found['best']) == set(capture_matches.BOTS)
  assert found['curve'][0]['millions'] == 0
  assert found['curve'][-1]['millions'] >= 0.002
  assert all(0 <= look['tagger'] <= 1 for look in found['curve'])
