"""Judging distograms: by hand, and against loops."""

import numpy as np
import pytest

from dl_lectures.analysis import distograms
from dl_lectures.ops import distogram

LENGTH = 20


@pytest.fixture(scope='module')
def bins():
  random = np.random.default_rng(0)
  bins = random.integers(64, size=(LENGTH, LENGTH))
  return np.triu(bins) + np.triu(bins, 1).T


def test_nll_of_a_loop(bins):
  random = np.random.default_rng(1)
  log_probs = np.log(random.dirichlet(np.ones(64), (LENGTH, LENGTH)))
  every = [
    -log_probs[i, j, bins[i, j]]
    for i in range(LENGTH)
    for j in range(i + 1, LENGTH)
  ]
  assert distograms.nll(log_probs, bins) == pytest.approx(np.mean(every))


def test_precision_of_a_loop(bins):
  random = np.random.default_rng(2)
  score = random.random((LENGTH, LENGTH))
  pairs = [(i, j) for i in range(LENGTH) for j in range(i + 6, LENGTH)]
  pairs.sort(key=lambda pair: -score[pair])
  found = distograms.precisions(score, bins)
  for name, count in (('L', LENGTH), ('L/2', 10), ('L/5', 4)):
    hits = [bins[pair] < distogram.CONTACT_BINS for pair in pairs[:count]]
    assert found[name] == pytest.approx(np.mean(hits))


def test_the_truth_has_no_nats_and_full_precision(bins):
  sure = np.full((LENGTH, LENGTH, 64), -30.0)
  np.put_along_axis(sure, bins[..., None], 0.0, axis=-1)
  judged = distograms.judge(sure, bins)
  assert judged['nll'] == 0
  assert judged['L/5'] == 1


def test_separations_are_counted():
  # Chains in which the bin is the separation, but for long ones.
  def chain(length, shift):
    place = np.arange(length)
    return np.minimum(np.abs(place[:, None] - place[None]) + shift, 63)

  told = distograms.fit_separations([chain(50, 0), chain(60, 0), chain(120, 5)])
  short = distograms.by_separation(told, 55)
  long = distograms.by_separation(told, 130)
  np.testing.assert_allclose(np.exp(short).sum(-1), 1, rtol=1e-5)
  np.testing.assert_array_equal(short, short.swapaxes(0, 1))
  for apart in (1, 3, 6):
    assert short[0, apart].argmax() == apart
    assert long[0, apart].argmax() == apart + 5
  # By hand: 49 + 59 pairs of neighbours in short chains, 119 in long ones, of
  # which 64 are mixed in.
  every = (108 + 1 / 64) / (108 + 119 + 1)
  expected = (108 + 64 * every) / (108 + 64)
  assert np.exp(short[0, 1, 1]) == pytest.approx(expected, rel=1e-3)
  # Farther apart than anything seen.
  assert np.isfinite(distograms.by_separation(told, 200)).all()


def test_pictures_are_drawn(bins):
  figure = distograms.draw_maps({'a': {'true': bins / 3.0, 'DCA': bins - 30.0}})
  titles = [axes.get_title() for axes in figure.axes]
  assert titles[:2] == ['true', 'DCA']
  simple = {'nll': 3.6, 'L': 0.1}
  rows = [
    {
      'chain': name,
      'rows': depth,
      'network': {'nll': 4 - depth / 64, 'L': depth / 64},
      'dca': {'L': 0.3},
      'separation': simple,
      'reference': simple,
      'contacts': 0.05,
      'q3': 0.7,
    }
    for depth in (16, 64)
    for name in ('a', 'b')
  ]
  figure = distograms.draw_depths(rows)
  left, right = figure.axes
  assert left.get_xscale() == 'log'
  for axes, values in ((left, [3.75, 3.0]), (right, [0.25, 1.0])):
    drawn = np.asarray(axes.lines[0].get_ydata())
    np.testing.assert_allclose(drawn, values)
  means = distograms.summarise({'curve': rows})
  assert means['curve, 64 rows: nll of network'] == 3.0
  assert means['curve, 16 rows: q3'] == pytest.approx(0.7)


def test_claims_of_distograms_by_hand():
  rows = [
    {
      'network': {'nll': nats, 'L': share},
      'dca': {'L': dca},
      'separation': {'nll': 3.6},
    }
    for nats, share, dca in ((3.0, 0.7, 0.6), (3.2, 0.6, 0.4))
  ]
  nats, precision = distograms.distogram_claims(rows, 'here', 0.5)
  assert nats.value == pytest.approx(3.1)
  assert nats.bar == pytest.approx(3.1)
  assert nats.interval == pytest.approx((3.0, 3.2))
  assert precision.value == pytest.approx(0.65)
  assert precision.baseline == pytest.approx(0.5)
  assert precision.met is None
  assert distograms.distogram_claims(rows, 'here', 0.6)[0].met is False
  gain = distograms.gain_claim(rows, 'here')
  assert gain.value == pytest.approx(0.15)
  assert gain.interval == pytest.approx((0.1, 0.2))
  assert gain.met


def test_claims_of_folds_by_hand():
  rows = [
    {
      'tm': tm,
      'potential': -10.0,
      'first_tm': tm - 0.01,
      'first_potential': first,
      'torsions_tm': 0.2,
    }
    for tm, first in ((0.4, -10.0), (0.6, -8.0), (0.5, -4.0))
  ]
  claims = distograms.fold_claims(rows, 'here', 3)
  over, median, right, raised, lower, gain = claims
  assert over.value == pytest.approx(0.3)
  assert over.met
  assert median.value == pytest.approx(0.5)
  assert right.value == pytest.approx(2 / 3)
  assert raised.value == 0
  assert raised.met
  assert lower.value == pytest.approx(2.0)
  assert gain.value == pytest.approx(0.01)
  worse = [{**rows[0], 'potential': -9.0}]
  assert distograms.fold_claims(worse, 'here', 3)[3].met is False
