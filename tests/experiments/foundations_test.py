"""The foundations: what is refused, and a small run that reports."""

import dataclasses

import pytest

from dl_lectures import training, types
from experiments import foundations


@pytest.mark.slow
def test_a_small_run_reports(tmp_path):
  config = foundations.PRESETS['smoke']
  metrics = foundations.train(config, workdir=str(tmp_path))
  assert metrics['xor_by_hand'] == 4
  assert metrics['bilinear_error'] < 1e-10
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  claims = {claim['name']: claim for claim in summary['claims']}
  assert len(claims) == len(summary['claims'])
  exact = [claim for claim in claims.values() if claim['exact']]
  assert len(exact) == 4
  assert all(claim['met'] for claim in exact)
  assert (tmp_path / 'figures' / 'foundations.png').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'xor_seeds': 0}, 'config.xor_seeds=0; at least 1'),
    ({'widths': ()}, r'config.widths=\(\); one or more numbers above 0'),
    ({'depths': (2, 0)}, r'config.depths=\(2, 0\); one or more'),
    ({'product_examples': 63}, 'product_examples=63; at least 64'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(foundations.Config(), **changes)


def test_the_interval_of_a_share():
  low, high = foundations._wilson(0.5, 100)
  assert low == pytest.approx(0.4038, abs=1e-3)
  assert low + high == pytest.approx(1)
  assert foundations._wilson(0.0, 10)[0] == pytest.approx(0, abs=1e-12)
