"""Films of capture the flag: what is drawn is what was played."""

import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

from dl_lectures.analysis import capture_films
from dl_lectures.envs import capture_bots
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.types import UsageError

RULES = ctf.Rules(size=9, length=12, line_of_sight=True)


@functools.cache
def game():
  play = jax.jit(
    functools.partial(
      capture_bots.play, RULES, capture_bots.walker, capture_bots.tagger
    )
  )
  return jax.device_get(play(jax.random.key(3)))


def test_a_frame_shows_walls_players_and_the_view():
  film = capture_films.frames(RULES, game(), agent=1)
  assert film.shape == (13, 216, 440, 3)
  walls = game().world.walls[0]
  middles = film[0, 12:216:24, 12:216:24]
  np.testing.assert_array_equal((middles == [74, 74, 82]).all(-1), walls)
  for agent, cell in enumerate(game().place[0]):
    row, column = divmod(int(cell), 9)
    colour = middles[row, column]
    assert colour[0] < colour[2] if agent < 2 else colour[0] > colour[2]
  seen = jax.jit(ctf.observe, static_argnums=0)(
    RULES, jax.tree.map(lambda x: x[5], game())
  )
  expected = np.asarray(ctf.pixels(seen.view[1], 24))
  shown = film[5, :, 224:]
  # At the middle of each cell.
  np.testing.assert_array_equal(shown[12::24, 12::24], expected[12::24, 12::24])


def test_a_gif_holds_all_positions(tmp_path):
  path = tmp_path / 'game.gif'
  capture_films.gif(RULES, game(), path, agent=0, milliseconds=100)
  with Image.open(path) as film:
    assert film.size == (440, 216)
    # Positions that look alike may be one frame that lasts longer.
    shown = [one.info['duration'] for one in ImageSequence.Iterator(film)]
  assert len(shown) > 1
  assert sum(shown) == 1300


def test_a_replay_holds_the_game_and_nothing_else():
  title = '</script><b>'
  page = capture_films.replay(RULES, game(), title)
  assert page.count('</script>') == 1
  for outside in ('http', 'src=', '@import'):
    assert outside not in page
  start = page.index('const g = ') + len('const g = ')
  told, _ = json.JSONDecoder().raw_decode(page[start:])
  assert told['title'] == title
  assert told['place'] == game().place.tolist()
  assert told['score'] == game().score.tolist()
  assert np.shape(told['views']) == (13, 4, 81)


def test_no_such_agent_is_told_in_one_line():
  with pytest.raises(UsageError, match='agent 4; 0 to 3'):
    capture_films.frames(RULES, game(), agent=4)
