"""The arms of the benchmark play, with and without the peer."""

import json

import pytest

from benchmarks import capture_the_flag as benchmark


@pytest.mark.slow  # Three loops to compile.
def test_lines_say_what_was_measured():
  lines = list(benchmark.measure(rounds=1))
  assert [line['what'] for line in lines] == [*benchmark.CASES, 'reset']
  for line in lines[:-1]:
    json.dumps(line)
    assert line['ours'] > 0
    if line['peer'] == benchmark.EXTRA:
      assert line['met'] is line['ratio'] is None
    elif line['bar']:
      assert line['met'] == (line['ratio'] >= line['bar'])
  assert 0 < lines[-1]['ours'] < 1
