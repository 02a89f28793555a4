"""Pictures of proteins: what is drawn is what was given."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from dl_lectures.analysis import structures


@pytest.fixture
def chain():
  return np.cumsum(np.random.default_rng(0).normal(size=(12, 3)), axis=0) * 2


def test_distance_maps_share_a_scale():
  near = np.full((5, 5), 4.0)
  figure = structures.distance_maps({'predicted': near, 'folded': near + 6})
  first, second, _ = figure.axes
  assert first.images[0].get_clim() == second.images[0].get_clim() == (2, 22)
  np.testing.assert_array_equal(first.images[0].get_array(), near)
  assert second.get_title() == 'folded'


def test_ramachandran_is_in_degrees():
  figure = structures.ramachandran({'model': np.deg2rad([[-60.0, -45.0]])})
  (points,) = figure.axes[0].collections
  offsets = np.array(points.get_offsets(), float)
  np.testing.assert_allclose(offsets, [[-60, -45]])


def test_descents_show_the_lowest_so_far():
  traces = np.array([[[5.0, 7.0], [3.0, 8.0]], [[9.0, 4.0], [2.0, 6.0]]])
  *_, best = structures.descents(traces).axes[0].lines
  assert np.array(best.get_ydata()).tolist() == [5, 3, 3, 2]


def test_chains_are_drawn_whole(chain):
  figure = structures.chains({'model': chain, 'truth': chain + 1})
  assert len(figure.axes) == 2
  # Eleven pieces of the model, and the truth.
  assert len(figure.axes[0].lines) == 12
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.texts] == ['model', 'truth']


def test_a_view_is_self_contained(chain):
  page = structures.view({'model': chain, '</script> truth': chain})
  assert page.count('</script>') == 1
  assert not re.search(r'https?:|src=', page)
  (told,) = re.findall(r'const chains = (.*);', page)
  data = json.loads(told)
  assert [d['title'] for d in data] == ['model', '</script> truth']
  points = np.array(data[0]['points'])
  # Around the middle of the model, within the unit sphere, and to scale.
  np.testing.assert_allclose(points.mean(0), 0, atol=1e-3)
  assert np.linalg.norm(points, axis=-1).max() < 1
  steps = np.linalg.norm(np.diff(points, axis=0), axis=-1)
  expected = np.linalg.norm(np.diff(chain, axis=0), axis=-1)
  np.testing.assert_allclose(
    steps / steps[0], expected / expected[0], rtol=1e-2
  )


@pytest.mark.skipif(shutil.which('node') is None, reason='no node')
def test_the_script_of_a_view_is_one(chain, tmp_path):
  page = structures.view({'model': chain})
  (script,) = re.findall(r'<script>(.*)</script>', page, re.DOTALL)
  path = tmp_path / 'view.js'
  path.write_text(script)
  subprocess.run(['node', '--check', str(path)], check=True)
