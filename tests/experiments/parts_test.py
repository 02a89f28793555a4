"""Parts are measured once, and kept."""

import dataclasses
import functools

import jax
import pytest

from dl_lectures import types
from experiments import parts


@dataclasses.dataclass(frozen=True)
class Config:
  seed: int = 3


def test_what_is_kept_is_not_measured_again(tmp_path):
  calls = []

  def part(name, key):
    calls.append(name)
    return {'value': jax.random.uniform(key), 'name': name}

  both = [(name, functools.partial(part, name)) for name in ('a/1', 'b')]
  first = parts.measure(Config(), str(tmp_path), both)
  (tmp_path / 'parts' / 'b.json').unlink()
  second = parts.measure(Config(), str(tmp_path), both)
  assert calls == ['a/1', 'b', 'b']
  assert first['a/1'] == second['a/1']
  assert first['b']['value'] == second['b']['value'] != first['a/1']['value']
  assert 0 <= parts.minutes(first) < 1
  assert (tmp_path / 'parts' / 'a-1.json').exists()
  assert (
    parts.measure(Config(), None, both)['b']['value'] == (first['b']['value'])
  )


def test_other_settings_need_another_workdir(tmp_path):
  parts.measure(Config(), str(tmp_path), [])
  with pytest.raises(types.UsageError, match='another config'):
    parts.measure(Config(seed=4), str(tmp_path), [])
