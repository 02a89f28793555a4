"""The panels show what they are given."""

import numpy as np
from matplotlib.patches import Rectangle

from dl_lectures.analysis import matches, strength


def test_panels_show_their_numbers():
  standings = [
    matches.Standing('random', 0.0, 0.0, 0.1, 20),
    matches.Standing('raw network', 900.0, 40.0, 0.9, 20),
  ]
  page = strength.figure(
    [
      strength.accuracy_over_training(
        'late',
        [0, 60, 120],
        {'raw network': [0.3, 0.6, 0.7], '64 simulations': [0.8, 0.9, 0.95]},
        {'random moves': 0.31},
      ),
      strength.openings_over_training(
        [0, 120],
        np.array([[1 / 3, 1 / 3, 1 / 3], [0.1, 0.7, 0.2]]),
        [-1, 1, 0],
        'abc',
      ),
      strength.quality_by_search(
        [0, 64], {'late': [(0.7, 0.6, 0.8, 100), (0.9, 0.85, 0.95, 100)]}
      ),
      strength.elo(standings),
      strength.elo_by_search('chess', [0, 1024], standings),
      strength.first_move_over_training('C3', [0, 60], [0.1, 0.9], 0.04),
    ]
  )
  training, openings, search, elo, ladder, first = page.axes
  minutes, kept = np.asarray(training.lines[0].get_data())
  assert minutes.tolist() == [0, 1, 2]
  assert kept.tolist() == [0.3, 0.6, 0.7]
  # The winning move lies at the bottom of the stack, the losing one on top.
  assert [t.get_text() for t in openings.texts] == [
    'b (wins)',
    'c (draws)',
    'a (loses)',
  ]
  assert [t.get_text() for t in search.get_xticklabels()] == ['raw', '64']
  bars = [bar for bar in elo.patches if isinstance(bar, Rectangle)]
  assert [bar.get_width() for bar in bars] == [0, 900]
  assert [t.get_text() for t in ladder.get_xticklabels()] == ['raw', '1,024']
  assert np.asarray(ladder.lines[0].get_data()[1]).tolist() == [0, 900]
  assert np.asarray(first.lines[0].get_data()).tolist() == [[0, 1], [0.1, 0.9]]


def test_claims_stand_beside_the_simple_player():
  standings = [
    matches.Standing('random play', 0.0, 0.0, 0.1, 96),
    matches.Standing('100 games', 600.0, 20.0, 0.5, 96),
    matches.Standing('256 simulations', 1200.0, 30.0, 0.9, 96),
  ]
  (claim,) = strength.claims(standings, ['256 simulations'], '100 games')
  assert claim.name == 'Elo of 256 simulations above random play'
  assert (claim.value, claim.baseline) == (1200.0, 600.0)
  assert claim.interval == (1200 - 1.96 * 30, 1200 + 1.96 * 30)
