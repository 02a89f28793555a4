"""The benchmark of a population measures what it says."""

import dataclasses
import json

import pytest

from benchmarks import population as benchmark
from dl_lectures.systems import ftw


@pytest.mark.slow  # Three programs to compile.
def test_lines_say_what_was_measured():
  tiny = dataclasses.replace(ftw.PRESETS['smoke'], members=4)
  members, generation = benchmark.measure(1, tiny)
  json.dumps([members, generation])
  assert members['ratio'] > 1
  assert members['met'] == (members['ratio'] <= 8.3)
  assert 0 < generation['ours'] < 1
