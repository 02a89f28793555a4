"""The self-test: plan, resumption, claims of made-up folds."""

import json

import numpy as np
import pytest

from experiments import alphafold_selftest


@pytest.fixture
def settings():
  return alphafold_selftest.Settings(
    seed=0, seeds=(0, 1), chains=3, steps=8, restarts=2
  )


@pytest.fixture
def judged(monkeypatch):
  """Folds that cost nothing; what was asked for."""
  asked = []

  def fold(settings, condition, protein, seed):
    del settings
    asked.append((condition, protein.name, seed))
    place = [*alphafold_selftest.CONDITIONS].index(condition)
    return {
      'tm': 0.99 - 0.02 * place - 0.01 * seed,
      'drawn_tm': 0.2,
      'seconds': 1.0,
    }

  def mirror(settings, condition, protein, seed):
    del settings
    asked.append((condition, protein.name, seed))
    return {'tm': 1.0, 'seconds': 1.0}

  monkeypatch.setattr(alphafold_selftest, 'fold', fold)
  monkeypatch.setattr(alphafold_selftest, 'mirror', mirror)
  return asked


def test_what_has_a_bar_is_run_with_every_seed(settings, judged, tmp_path):
  found = alphafold_selftest.run(settings, tmp_path / 'folds.jsonl')
  conditions = alphafold_selftest.CONDITIONS
  assert {*found} == {*conditions, 'random', 'mirror'}
  for name, how in conditions.items():
    seeds = [0, 0, 0] if how.bar is None else [0, 0, 0, 1, 1, 1]
    assert [row['seed'] for row in found[name]] == seeds
  assert judged[0][0] == 'true'
  # Starts of the folds from distances only.
  assert [row['tm'] for row in found['random']] == [0.2] * 6


def test_what_is_kept_is_not_folded_again(settings, judged, tmp_path):
  kept = tmp_path / 'folds.jsonl'
  first = alphafold_selftest.run(settings, kept)
  count = len(judged)
  # A line that was torn by a kill is made again, and it alone.
  kept.write_text(kept.read_text()[:-20])
  again = alphafold_selftest.run(settings, kept)
  assert len(judged) == count + 1
  assert again == first


def test_other_settings_are_folded_anew(settings, judged, tmp_path):
  kept = tmp_path / 'folds.jsonl'
  alphafold_selftest.run(settings, kept)
  count = len(judged)
  other = alphafold_selftest.Settings(
    seed=0, seeds=(0, 1), chains=3, steps=9, restarts=2
  )
  alphafold_selftest.run(other, kept)
  assert len(judged) == 2 * count


def test_claims_and_report(settings, judged, tmp_path, capsys):
  results = tmp_path / 'results.json'
  alphafold_selftest.selftest(
    str(tmp_path), settings.seeds, 3, 8, 2, str(results)
  )
  assert len(judged) > 0
  told = json.loads(results.read_text())
  assert told['seeds'] == [0, 1]
  claims = {claim['name']: claim for claim in told['claims']}
  (true,) = [
    c
    for n, c in claims.items()
    if 'median' in n and 'true dist' in n and '20 degrees' in n
  ]
  assert true['value'] == pytest.approx(0.985)
  assert true['bar'] == 0.95
  assert true['met']
  assert true['baseline_name'] == 'torsions only'
  (worst,) = [
    c for n, c in claims.items() if 'worst' in n and '20 degrees' in n
  ]
  assert worst['value'] == pytest.approx(0.98)
  assert all(claim['baseline'] is not None for claim in told['claims'])
  assert 'TM-score' in capsys.readouterr().out
  for name in ('conditions', 'curves'):
    assert (tmp_path / 'figures' / f'{name}.png').exists()
    assert (tmp_path / f'results_{name}.png').exists()


def test_the_interval_is_over_chains():
  # Many seeds of few chains tell no more than the chains do.
  rows = [{'chain': str(i), 'tm': i / 10} for i in range(5) for _ in range(50)]
  low, high = alphafold_selftest.interval(rows)
  assert low <= 0.1
  assert high >= 0.3


@pytest.mark.slow
def test_a_chain_is_folded(settings):
  from dl_lectures.data import proteins

  protein = proteins.load()['1guu_A']
  line = alphafold_selftest.fold(settings, 'true', protein, 0)
  assert 0 < line['tm'] < 1
  again = alphafold_selftest.fold(settings, 'true', protein, 0)
  assert again['tm'] == line['tm']
  other = alphafold_selftest.mirror(settings, 'mirror', protein, 0)
  assert other['tm'] == (other['native'] < other['mirror'])
  assert np.isfinite(other['native'])
