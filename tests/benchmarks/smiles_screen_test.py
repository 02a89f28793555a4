"""Both arms of the screening benchmark rank the same molecules."""

import dataclasses

import pytest

from benchmarks import smiles_screen as benchmark
from dl_lectures.systems import smiles_lstm

# They compile a network, and start Python several times.
pytestmark = pytest.mark.slow

TINY = dataclasses.replace(
  smiles_lstm.PRESETS['smoke'], longest=32, units=(4, 4)
)


def test_speed_is_of_both_on_the_same_molecules():
  line = benchmark.speed(TINY, (500, 100_000), rounds=1)
  assert line['ours'] > 0 < line['peer_value']
  assert 15 < line['tokens'] < 40
  assert line['met'] == (line['ours'] >= line['bar'])


def test_memory_does_not_grow_with_the_library():
  line = benchmark.memory(TINY, (5000, 50_000))
  assert line['ratio'] == pytest.approx(
    max(line['ours']) / min(line['ours']), abs=0.01
  )
  # What ten times the lines would take, if they were kept.
  assert line['ours'][1] - line['ours'][0] < 20
