"""The plain loops compute what the library does."""

import pytest

from benchmarks import redistribution

# They compile for 16 seeds.
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
  ('name', 'sizes', 'tolerance'),
  [
    pytest.param('lstm_updates', {'updates': 2}, 1e-5, marks=SLOW),
    # XLA may fuse a product and a sum: a single rounding.
    pytest.param('rooms_steps', {'episodes': 1}, 2**-23, marks=SLOW),
    ('profile_alignment', {'episodes': 2, 'length': 12, 'columns': 4}, 1e-5),
  ],
)
def test_both_arms_do_the_same(name, sizes, tolerance):
  lines = list(redistribution.measure(name, rounds=1, **sizes))
  assert 'numpy' in lines[0]['peer']
  for line in lines:
    if line['ratio'] is None:
      assert line['met'] is None
      assert 'pip install' in line['peer']
      continue
    assert line['largest_difference'] <= tolerance
    assert line['met'] == (line['ratio'] >= line['bar'])
    assert line['ratio'] > 0
