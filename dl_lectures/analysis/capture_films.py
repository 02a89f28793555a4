"""Films of capture the flag: a picture, a GIF, a page with a time slider.

What is drawn is a sequence of positions, as `envs.capture_bots.play` or a scan
of `step` returns them: [T, ...]. Beside the map, one agent's own view can be
shown, the pixels that it would get.

>>> from dl_lectures.envs import capture_bots
>>> rules = ctf.Rules(size=9, length=4)
>>> game = capture_bots.play(
...   rules, capture_bots.walker, capture_bots.tagger, jax.random.key(0)
... )
>>> frames(rules, game, agent=0).shape
(5, 216, 440, 3)
>>> page = replay(rules, game)
>>> '<input type="range"' in page, 'http' in page
(True, False)
"""

import functools
import json
import os
from typing import Any

import jax
import numpy as np

from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.envs.capture_the_flag import Rules, State
from dl_lectures.types import Array, UsageError

_CELL = 24
_GAP = 8
# Of the teams: floor of the base, player, flag.
_TEAMS = (
  ('#a6c8f0', '#26549a', '#1e96dc'),
  ('#f6beb4', '#be2c2c', '#f06e14'),
)
_FLOOR, _WALL, _LINE = '#ded9ce', '#4a4a52', '#fff'


def frames(rules: Rules, states: State, agent: int | None = None) -> np.ndarray:
  """Draws a game: [T, height, width, 3] uint8, RGB.

  Args:
    rules: of the game.
    states: [T, ...], its positions.
    agent: whose view is shown to the right of the map; None shows none.

  Raises:
    UsageError: there is no such agent.
  """
  from PIL import Image

  if agent is not None and not 0 <= agent < rules.agents:
    raise UsageError(f'agent {agent}; 0 to {rules.agents - 1} are possible')
  states = jax.device_get(states)
  height = _CELL * rules.size
  maps = [_map(rules, _at(states, t)) for t in range(len(states.time))]
  if agent is None:
    return np.stack([np.asarray(drawn) for drawn in maps])
  views = _views(rules, states)[:, agent]
  found = []
  for drawn, view in zip(maps, views, strict=True):
    frame = Image.new('RGB', (2 * height + _GAP, height), _LINE)
    frame.paste(drawn, (0, 0))
    # Whole cells of one size, without smoothing: they are the pixels it gets.
    picture = Image.fromarray(view).resize(
      (height, height), Image.Resampling.NEAREST
    )
    frame.paste(picture, (height + _GAP, 0))
    found.append(np.asarray(frame))
  return np.stack(found)


def gif(
  rules: Rules,
  states: State,
  path: str | os.PathLike[str],
  agent: int | None = None,
  milliseconds: int = 120,
) -> None:
  """Writes a game as an animated GIF.

  Args:
    rules: of the game.
    states: [T, ...], its positions.
    path: of the file.
    agent: whose view is shown beside the map; None shows none.
    milliseconds: each position is shown.
  """
  from PIL import Image

  film = frames(rules, states, agent)
  # One palette for all, so that nothing flickers.
  palette = Image.fromarray(np.concatenate(film[:: max(1, len(film) // 8)]))
  palette = palette.quantize(64)
  pictures = [
    Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
    for frame in film
  ]
  pictures[0].save(
    path,
    save_all=True,
    append_images=pictures[1:],
    duration=milliseconds,
    loop=0,
  )


def replay(rules: Rules, states: State, title: str = 'Capture the flag') -> str:
  """A part of a web page, or a page by itself: a game with a time slider.

  It plays, stops, goes step by step, shows who carries and who is out, and what
  any agent sees.

  Args:
    rules: of the game.
    states: [T, ...], its positions.
    title: the headline.

  Returns:
    HTML with its own script; nothing is fetched.
  """
  states = jax.device_get(states)
  world = jax.tree.map(lambda x: x[0], states.world)
  told: dict[str, Any] = {
    'title': title,
    'size': rules.size,
    'players': rules.players,
    'view': rules.view,
    'walls': world.walls.astype(int).reshape(-1).tolist(),
    'base': world.base.tolist(),
    'views': _seen(rules, states).tolist(),
    'colours': [
      '#{:02x}{:02x}{:02x}'.format(*ctf.COLOURS[name]) for name in _IN_VIEW
    ],
  }
  for name in ('place', 'heading', 'out', 'carries', 'flag', 'score'):
    told[name] = getattr(states, name).astype(int).tolist()
  # A title may hold what would end the script.
  data = json.dumps(told, separators=(',', ':')).replace('<', '\\u003c')
  return _REPLAY.replace('"GAME"', data)


_IN_VIEW = (
  'wall',
  'mate',
  'opponent',
  'own flag',
  'their flag',
  'own base',
  'their base',
  'unseen',
  'floor',
)


def _at(states: State, t: int) -> State:
  return jax.tree.map(lambda x: x[t], states)


@functools.partial(jax.jit, static_argnums=0)
def _seen(rules: Rules, states: State) -> Array:
  """[T, A, V * V] uint8, the views' bits."""
  view = jax.vmap(functools.partial(ctf.observe, rules))(states).view
  return view.reshape(*view.shape[:2], -1)


def _views(rules: Rules, states: State) -> np.ndarray:
  """[T, A, V * 8, V * 8, 3] uint8, what agents get as pixels."""
  seen = _seen(rules, states)
  shape = (*seen.shape[:2], rules.view, rules.view)
  return np.asarray(ctf.pixels(seen.reshape(shape), 8))


def _map(rules: Rules, state: State) -> Any:
  """Draws one position from above, as a PIL image."""
  from PIL import Image, ImageDraw

  size = rules.size
  drawn = Image.new('RGB', (_CELL * size, _CELL * size), _FLOOR)
  pen = ImageDraw.Draw(drawn)

  def corner(cell: Any) -> tuple[int, int]:
    row, column = divmod(int(cell), size)
    return _CELL * column, _CELL * row

  def square(cell: Any, colour: str) -> None:
    x, y = corner(cell)
    pen.rectangle((x, y, x + _CELL - 1, y + _CELL - 1), fill=colour)

  for cell in np.flatnonzero(state.world.walls):
    square(cell, _WALL)
  for team, (floor, _, _) in enumerate(_TEAMS):
    square(state.world.base[team], floor)
  for agent, cell in enumerate(state.place):
    if state.out[agent] > 0:
      continue
    x, y = corner(cell)
    r = _CELL / 2 - 3
    # A triangle that points where the player looks.
    turn = np.pi / 2 * state.heading[agent] + np.array([0, 2.4, -2.4])
    corners = np.stack(
      [x + _CELL / 2 + r * np.sin(turn), y + _CELL / 2 - r * np.cos(turn)], 1
    )
    colour = _TEAMS[agent // rules.players][1]
    pen.polygon([tuple(c) for c in corners], fill=colour, outline=_LINE)
  for team, (_, _, colour) in enumerate(_TEAMS):
    x, y = corner(state.flag[team])
    pen.line((x + 15, y + 2, x + 15, y + 14), fill='#222', width=2)
    pen.polygon(
      [(x + 16, y + 2), (x + 23, y + 5), (x + 16, y + 9)],
      fill=colour,
      outline='#222',
    )
  return drawn


_REPLAY = """
<style>
.ctf { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; }
.ctf canvas { image-rendering: pixelated; max-width: 100%; }
.ctf .row { display: flex; gap: 16px; flex-wrap: wrap; align-items: flex-start }
.ctf .bar { display: flex; gap: 10px; align-items: center; margin: .6rem 0 }
.ctf input[type=range] { flex: 1 }
.ctf button { font: inherit; min-width: 4.5em }
</style>
<div class="ctf">
<h2 id="ctf-title"></h2>
<div class="row">
<canvas id="ctf-map" aria-label="the map from above"></canvas>
<div><canvas id="ctf-view" aria-label="what one agent sees"></canvas>
<div><label>seen by <select id="ctf-agent"></select></label></div></div>
</div>
<div class="bar"><button id="ctf-play">play</button>
<input type="range" id="ctf-time" min="0" value="0" aria-label="time">
<span id="ctf-told"></span></div>
<div>Arrow keys on the slider go step by step. A triangle points where a player
looks; who is out is not drawn.</div>
</div>
<script>
(() => {
  const g = "GAME";
  const by = id => document.getElementById('ctf-' + id);
  const teams = TEAMS;
  const cell = Math.max(12, Math.min(36, Math.floor(480 / g.size)));
  const map = by('map'), view = by('view'), slider = by('time');
  map.width = map.height = cell * g.size;
  const part = Math.floor(300 / g.view);
  view.width = view.height = part * g.view;
  by('title').textContent = g.title;
  slider.max = g.place.length - 1;
  g.place[0].forEach((_, i) => by('agent').add(new Option(
    'player ' + (i % g.players + 1) + ' of ' +
    (i < g.players ? 'blue' : 'red'), i)));
  const pen = map.getContext('2d'), eye = view.getContext('2d');
  const corner = c => [cell * (c % g.size), cell * Math.floor(c / g.size)];
  const square = (c, colour) => {
    const [x, y] = corner(c);
    pen.fillStyle = colour; pen.fillRect(x, y, cell, cell);
  };
  const polygon = (points, colour, edge) => {
    pen.beginPath();
    points.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
    pen.closePath(); pen.fillStyle = colour; pen.fill();
    pen.strokeStyle = edge; pen.stroke();
  };
  const draw = () => {
    const t = +slider.value;
    g.walls.forEach((w, c) => square(c, w ? '#4a4a52' : '#ded9ce'));
    g.base.forEach((c, k) => square(c, teams[k][0]));
    g.place[t].forEach((c, i) => {
      if (g.out[t][i]) return;
      const [x, y] = corner(c), r = cell / 2 - 2;
      polygon([0, 2.4, -2.4].map(a => {
        const turn = Math.PI / 2 * g.heading[t][i] + a;
        return [x + cell / 2 + r * Math.sin(turn),
                y + cell / 2 - r * Math.cos(turn)];
      }), teams[i < g.players ? 0 : 1][1], '#fff');
    });
    g.flag[t].forEach((c, k) => {
      const [x, y] = corner(c), s = cell / 24;
      pen.fillStyle = '#222';
      pen.fillRect(x + 14 * s, y + 2 * s, 2 * s, 13 * s);
      polygon([[16, 2], [23, 5.5], [16, 9]].map(
        ([a, b]) => [x + a * s, y + b * s]), teams[k][2], '#222');
    });
    const agent = +by('agent').value;
    g.views[t][agent].forEach((bits, n) => {
      const x = part * (n % g.view), y = part * Math.floor(n / g.view);
      const fill = (k, a, b, w) => {
        eye.fillStyle = g.colours[k];
        eye.fillRect(x + a * part, y + b * part, w * part, w * part);
      };
      const ground = [0, 6, 5].find(k => bits >> k & 1);
      fill(ground === undefined ? 8 : ground, 0, 0, 1);
      for (const k of [1, 2]) if (bits >> k & 1) fill(k, .25, .25, .5);
      for (const k of [3, 4]) if (bits >> k & 1) fill(k, .5, 0, .5);
      if (bits >> 7 & 1) fill(7, 0, 0, 1);
    });
    eye.strokeStyle = '#222'; eye.lineWidth = 2;
    eye.strokeRect(part * Math.floor(g.view / 2) + 2, part * (g.view - 2) + 2,
                   part - 4, part - 4);
    const [a, b] = g.score[t];
    const out = g.out[t].map((o, i) => o ? by('agent').options[i].text : '')
      .filter(x => x);
    by('told').textContent = 'step ' + t + ', blue ' + a + ' : ' + b + ' red' +
      (out.length ? ', out: ' + out.join(', ') : '');
  };
  let timer = null;
  const stop = () => {
    clearInterval(timer); timer = null; by('play').textContent = 'play';
  };
  by('play').onclick = () => {
    if (timer) return stop();
    if (+slider.value >= +slider.max) slider.value = 0;
    by('play').textContent = 'stop';
    timer = setInterval(() => {
      slider.value = +slider.value + 1; draw();
      if (+slider.value >= +slider.max) stop();
    }, 120);
  };
  slider.oninput = draw;
  by('agent').onchange = draw;
  // A link to a moment: page.html#t=40
  const at = /t=(\\d+)/.exec(location.hash);
  if (at) slider.value = at[1];
  draw();
})();
</script>
""".replace('TEAMS', json.dumps(_TEAMS))
