"""The checklist as a command: presets, and a report."""

import dataclasses

import pytest

from dl_lectures import training, types
from dl_lectures.systems import classifier
from experiments import diagnose


def test_presets_are_the_classifiers():
  assert {*diagnose.PRESETS} == {*classifier.PRESETS}
  config = diagnose.PRESETS['lenet']
  assert config.model == 'lenet'
  assert config.sample == 32
  with pytest.raises(types.UsageError, match=r'config.sample=1; at least 2'):
    dataclasses.replace(config, sample=1)


@pytest.mark.slow
def test_a_sound_and_a_broken_one(tmp_path):
  config = diagnose.PRESETS['smoke']
  metrics = diagnose.train(config, workdir=str(tmp_path / 'sound'))
  assert metrics['passed'] == metrics['checks'] == 9
  summary = training.report.finished(tmp_path / 'sound', config)
  assert summary is not None
  assert all(claim['met'] for claim in summary['claims'])
  broken = dataclasses.replace(config, learning_rate=100.0)
  assert diagnose.train(broken, workdir=None)['passed'] < 9
