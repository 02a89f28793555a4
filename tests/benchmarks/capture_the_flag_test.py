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


@pytest.mark.slow  # It compiles a whole update, and its parts.
def test_training_is_beside_games_that_python_steps():
  line = benchmark.training(rounds=1)
  assert line['ratio'] == pytest.approx(line['ours'] / line['peer_value'])
  assert line['ratio'] > 1
  assert line['met'] == (line['ratio'] >= benchmark.TRAINING_BAR)
