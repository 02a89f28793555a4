"""The report: what a page holds, what ends a run, how seeds are joined."""

import base64
import dataclasses
import html.parser
import json
import os
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from dl_lectures.training import report
from dl_lectures.types import Claim, at_least, at_most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  seed: int = 0
  rates: tuple[float, ...] = (0.1, 0.2)


def _write(workdir, **changes: Any) -> dict[str, Any]:
  given: dict[str, Any] = {
    'title': 'A <title>',
    'config': Config(),
    'claims': [],
    'metrics': {},
    'figures': {},
    'minutes': 1.5,
  } | changes
  return report.write(workdir, **given)


class _Page(html.parser.HTMLParser):
  """The cells of the tables, the images, and whatever a page would fetch."""

  def __init__(self, text: str):
    super().__init__()
    self.cells: list[str] = []
    self.images: list[str] = []
    self.fetched: list[str] = []
    self.text = ''
    self._in_cell = False
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    for name, value in attrs:
      if name in ('src', 'href', 'srcset'):
        embedded = value.startswith('data:image/png;base64,')
        (self.images if embedded else self.fetched).append(value)
    if tag in ('script', 'link', 'iframe'):
      self.fetched.append(tag)
    if tag in ('td', 'th'):
      self._in_cell = True
      self.cells.append('')

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self._in_cell = False

  def handle_data(self, data):
    self.text += data
    if self._in_cell:
      self.cells[-1] += data


def _page(workdir) -> _Page:
  return _Page((workdir / 'report.html').read_text(encoding='utf-8'))


def test_the_page_holds_everything(tmp_path):
  figure = Figure(figsize=(2, 1))
  figure.add_subplot().plot([1, 3, 2])
  report.save_figure(figure, tmp_path, 'curve')
  _write(
    tmp_path,
    claims=[
      at_least(
        'accuracy <raw>',
        0.81234,
        0.8,
        interval=(0.79, 0.83),
        baseline=0.41,
        baseline_name='random play',
        paper='superhuman',
      ),
      at_most('test error', 0.3, 0.2),
      Claim('games', 255168, exact=True),
    ],
    metrics={'loss': jnp.array(0.25), 'visits': np.arange(3)},
    figures={'curve': 'A "curve" & more'},
  )
  page = _page(tmp_path)
  assert page.fetched == []
  png = (tmp_path / 'figures' / 'curve.png').read_bytes()
  assert png.startswith(b'\x89PNG')
  assert [base64.b64decode(i.partition(',')[2]) for i in page.images] == [png]
  assert page.cells[7:28] == [
    *('accuracy <raw>', '0.8123', '>= 0.8', 'met', '0.79 to 0.83'),
    *('0.41 (random play)', 'superhuman'),
    *('test error', '0.3', '<= 0.2', 'missed', '-', '-', '-'),
    *('games', '255,168 exactly', '-', '-', '-', '-', '-'),
  ]
  for text in ('A <title>', '1 of 2 bars met', '1.5 minutes', '"curve" & more'):
    assert text in page.text
  rows = dict(zip(page.cells[28::2], page.cells[29::2], strict=True))
  assert rows['loss'] == '0.25'
  assert rows['visits'] == '0, 1, 2'
  assert rows['rates'] == '0.1, 0.2'
  assert 'jax' in rows


def test_the_summary_has_the_fields_of_the_design(tmp_path):
  claims = [at_least('heads', 0.51, 0.5, interval=(0.4, 0.6))]
  metrics = {'loss': jnp.array(0.25), 'bad': float('nan')}
  summary = _write(tmp_path, claims=claims, metrics=metrics)
  stored = json.loads((tmp_path / 'summary.json').read_text())
  assert stored == summary
  assert {
    'title': 'A <title>',
    'seeds': [0],
    'minutes': 1.5,
    'metrics': {'loss': 0.25, 'bad': None},
    'config': {'seed': 0, 'rates': [0.1, 0.2]},
    'claims': [
      {
        'name': 'heads',
        'value': 0.51,
        'interval': [0.4, 0.6],
        'baseline': None,
        'baseline_name': '',
        'paper': None,
        'bar': 0.5,
        'met': True,
        'exact': False,
      }
    ],
  }.items() <= stored.items()
  assert stored.keys() - {'title', 'seeds', 'minutes', 'metrics'} == {
    *('command', 'device', 'versions', 'date', 'claims', 'config')
  }
  assert '8 x cpu' in stored['device']
  assert {'python', 'jax', 'dm-haiku'} <= stored['versions'].keys()
  assert sorted(os.listdir(tmp_path)) == ['report.html', 'summary.json']


def test_finished_means_this_run_has_ended(tmp_path):
  assert report.finished(tmp_path / 'nowhere', Config()) is None
  assert report.finished(tmp_path, Config()) is None
  summary = _write(tmp_path)
  assert report.finished(tmp_path, Config()) == summary
  assert report.finished(tmp_path, Config(seed=1)) is None
  assert report.finished(tmp_path / 'summary.json', Config()) is None
  (tmp_path / 'summary.json').write_text('{"config":')
  assert report.finished(tmp_path, Config()) is None


def test_without_a_workdir_nothing_is_written(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  report.save_figure(Figure(), None, 'nothing')
  summary = _write(None, figures={'nothing': ''})
  assert summary['seeds'] == [0]
  assert os.listdir(tmp_path) == []


def test_a_figure_that_was_not_saved_ends_no_run(tmp_path):
  with pytest.raises(FileNotFoundError, match='forgotten'):
    _write(tmp_path, figures={'forgotten': 'a caption'})
  assert report.finished(tmp_path, Config()) is None


def _joined(*claims: Claim) -> dict[str, Any]:
  summaries = [
    _write(None, config=Config(seed=seed), claims=[claim])
    for seed, claim in enumerate(claims)
  ]
  (joined,) = report.aggregate(summaries, 'a command')['claims']
  return joined


def test_seeds_are_joined_by_mean_and_students_interval():
  joined = _joined(
    *(at_least('a', v, 0.8, baseline=v / 2) for v in (0.79, 0.83, 0.84))
  )
  # The mean is .82; the deviation sqrt((9 + 1 + 4) / 2) / 100 = .026458; with
  # 2 degrees of freedom t = 4.302653, so half the interval is .065725.
  assert joined['value'] == pytest.approx(0.82)
  assert joined['interval'] == pytest.approx([0.754275, 0.885725], abs=1e-6)
  assert joined['baseline'] == pytest.approx(0.41)
  # One seed missed it; the mean has it.
  assert joined['met'] is True


@pytest.mark.parametrize(
  ('claims', 'met'),
  [
    ([at_least('a', 0.7, 0.8), at_least('a', 0.85, 0.8)], False),
    ([at_most('a', 0.7, 0.8), at_most('a', 0.85, 0.8)], True),
    ([at_most('a', 0.7, 0.8), at_most('a', 0.95, 0.8)], False),
    ([at_least('a', 0.8, 0.8), at_least('a', 0.8, 0.8)], True),
    ([at_most('a', 0.8, 0.8), at_most('a', 0.7, 0.8)], True),
    ([Claim('a', 0.8), Claim('a', 0.9)], None),
    ([Claim('a', 'yes', met=True), Claim('a', 'no', met=False)], False),
  ],
)
def test_a_joined_bar_is_met_if_the_mean_meets_it(claims, met):
  assert _joined(*claims)['met'] is met


def test_counts_and_words_are_joined_as_they_are():
  exact = _joined(*[Claim('perft', 8902, exact=True, met=True)] * 2)
  assert (exact['value'], exact['interval']) == (8902, None)
  same = _joined(*[Claim('first move', 'centre')] * 3)
  assert (same['value'], same['interval']) == ('centre', None)
  other = _joined(Claim('first move', 'centre'), Claim('first move', 'edge'))
  assert other['value'] == ['centre', 'edge']


def test_the_interval_of_a_share_stays_between_0_and_1():
  # Student's would be .333 +- 1.434.
  shares = _joined(*(at_least('a', v, 0.5) for v in (0.0, 0.0, 1.0)))
  assert shares['interval'] == [0, 1]
  # A loss may be 1.7 though each of the seeds had less than 1.
  losses = _joined(*(at_most('a', v, 0.5) for v in (0.0, 0.0, 1.0)))
  assert losses['interval'] == pytest.approx([-1.100884, 1.767551], abs=1e-6)
  elo = _joined(*(at_least('a', v, 0.5) for v in (0.0, 0.0, 20.0)))
  assert elo['interval'][1] > 20


def test_one_seed_keeps_its_own_interval():
  joined = _joined(at_least('a', 0.8, 0.7, interval=(0.6, 0.9)))
  assert (joined['value'], joined['interval']) == (0.8, [0.6, 0.9])


def test_the_result_names_command_preset_and_seeds():
  summaries = [
    _write(None, config=Config(seed=seed), minutes=2.25) for seed in (4, 7)
  ]
  result = report.aggregate(summaries, 'python -m x', 'laptop')
  assert list(result) == [
    *('command', 'preset', 'seeds', 'device', 'versions', 'date', 'minutes'),
    'claims',
  ]
  assert result['command'] == 'python -m x'
  assert result['preset'] == 'laptop'
  assert result['seeds'] == [4, 7]
  assert result['minutes'] == 4.5
