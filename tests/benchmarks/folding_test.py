"""Both arms of the folding benchmark descend the same potential."""

import pytest

from benchmarks import folding

# They compile two descents and scipy's gradient.
pytestmark = pytest.mark.slow


def test_arms_count_the_same_evaluations():
  line = folding.speed(size=24, steps=20, restarts=2, rounds=1)
  assert line['evaluations'] == 40
  assert 20 <= line['peer_evaluations'] <= 44
  assert line['met'] == (line['ratio'] >= line['bar'])
  for found in ('lowest', 'median'):
    # Twenty steps from the same starts: neither is far ahead.
    ours, peer = (line[found][arm] for arm in ('lbfgs', 'peer'))
    assert ours < 0.5 * peer < 0


def test_cost_grows_with_the_length():
  line = folding.growth((24, 96), steps=4, restarts=2, rounds=3)
  assert len(line['ours']) == 2
  assert line['exponent'] > 0
