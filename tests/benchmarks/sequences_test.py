"""The peers compute what the library does."""

import json

import pytest

from benchmarks import sequences

TINY = sequences.gpt.Config(length=8, layers=1, heads=2, width=8, batch_size=2)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'sizes'),
  [
    ('lstm', {'units': 4, 'length': 3, 'lanes': 2}),
    ('gru', {'units': 4, 'length': 3, 'lanes': 2}),
    ('gpt_step', {'config': TINY}),
    ('generate_1', {'new': 4, 'config': TINY}),
  ],
)
def test_all_arms_do_the_same(name, sizes):
  lines = [*sequences.measure(name, rounds=1, **sizes)]
  assert len(lines) == len(sequences.CASES[name][1])
  for line in lines:
    json.dumps(line)
    if line['ratio'] is None:
      assert not sequences.HAS_TORCH
      assert 'dl_lectures[benchmarks]' in line['peer']
      continue
    assert line['ratio'] > 0
    assert line['met'] in (None, line['ratio'] >= (line['bar'] or 0))
    if name != 'gru':
      assert line['largest_difference'] < 1e-5
