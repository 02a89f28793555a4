"""Pictures of proteins: distance maps, torsions, descents, chains in space.

The figures of one fold (Senior et al., Nature 577, 2020, figures 1 and 3;
slides, deck 000, "Folding Proteins with AlphaFold"), and a view for a web page
that one turns with the mouse: a page holds all that it needs.

>>> chain = np.cumsum(np.ones((5, 3)), axis=0)
>>> page = view({'model': chain})
>>> '<canvas' in page, 'http' in page
(True, False)
"""

import json
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Of chains side by side: the model, the truth, a runner-up.
_COLOURS = ('#2364aa', '#3a9d5d', '#d1495b')


def distance_maps(maps: Mapping[str, np.ndarray]) -> Figure:
  """Maps of distances side by side, on one scale.

  Args:
    maps: title -> [L, L], angstrom.
  """
  figure = Figure(figsize=(4.2 * len(maps), 3.9), layout='constrained')
  panels = np.atleast_1d(figure.subplots(1, len(maps)))
  for axes, (title, distance) in zip(panels, maps.items(), strict=True):
    image = axes.imshow(distance, cmap='viridis_r', vmin=2, vmax=22)
    axes.set_title(title)
    axes.set_xlabel('residue')
  panels[0].set_ylabel('residue')
  figure.colorbar(image, ax=list(panels), label='angstrom', shrink=0.8)
  return figure


def ramachandran(torsions: Mapping[str, np.ndarray]) -> Figure:
  """phi against psi, of several structures.

  Args:
    torsions: title -> [L, 2], radians; what is not finite is left out.
  """
  figure = Figure(figsize=(5, 5), layout='constrained')
  axes = figure.subplots()
  for (title, angles), colour in zip(torsions.items(), _COLOURS, strict=False):
    phi, psi = np.rad2deg(np.asarray(angles)).T
    area = 14 if len(phi) < 1000 else 2
    axes.scatter(phi, psi, s=area, alpha=0.6, label=title, color=colour)
  axes.set(xlim=(-180, 180), ylim=(-180, 180), aspect='equal')
  axes.set(xlabel='phi, degrees', ylabel='psi, degrees')
  axes.set_xticks(range(-180, 181, 90))
  axes.set_yticks(range(-180, 181, 90))
  axes.grid(alpha=0.3)
  axes.legend(loc='upper right')
  return figure


def descents(traces: np.ndarray) -> Figure:
  """The potential along all descents, and the best so far.

  Args:
    traces: [rounds, steps, restarts].
  """
  figure = Figure(figsize=(7, 3.6), layout='constrained')
  axes = figure.subplots()
  rounds, steps, restarts = traces.shape
  # A round begins anew: no line leads there from the one before.
  place = np.arange(rounds * steps).reshape(rounds, steps)
  for x, y in zip(place, traces, strict=True):
    axes.plot(x, y, lw=0.8, alpha=0.5, color=_COLOURS[0])
  joined = traces.reshape(rounds * steps, restarts)
  best = np.minimum.accumulate(np.nanmin(joined, axis=1))
  axes.plot(place.ravel(), best, lw=1.5, color='black', label='lowest so far')
  # The first steps undo clashes and would hide all else.
  high = np.percentile(joined, 90)
  axes.set_ylim(best[-1] - 0.05 * abs(high - best[-1]) - 1, high + 1)
  axes.set_xlabel(f'evaluations of each of {restarts} restarts side by side')
  axes.set_ylabel('potential, nats')
  axes.grid(alpha=0.3)
  axes.legend()
  return figure


def chains(points: Mapping[str, np.ndarray]) -> Figure:
  """Chains in space from two sides, the first coloured from N to C.

  Args:
    points: title -> [L, 3], CA atoms, superposed.
  """
  figure = Figure(figsize=(9, 4.6), layout='constrained')
  titles = list(points)
  for side, turn in enumerate((30, 120)):
    axes = figure.add_subplot(1, 2, side + 1, projection='3d')
    first = np.asarray(points[titles[0]])
    shades = matplotlib.colormaps['turbo'](np.linspace(0.05, 0.95, len(first)))
    for i in range(len(first) - 1):
      # The legend shows the first piece, and the chain first.
      label = titles[0] if i == 0 else None
      axes.plot(*first[i : i + 2].T, color=shades[i], lw=3, label=label)
    for title, colour in zip(titles[1:], _COLOURS[1:], strict=False):
      axes.plot(*np.asarray(points[title]).T, color=colour, lw=1, label=title)
    axes.view_init(elev=15, azim=turn)
    axes.set_box_aspect((1, 1, 1), zoom=1.5)
    axes.set_axis_off()
    if side == 0:
      figure.legend(*axes.get_legend_handles_labels(), loc='upper left')
  return figure


def view(points: Mapping[str, np.ndarray]) -> str:
  """A part of a web page: chains that one turns, and shows one by one.

  Args:
    points: title -> [L, 3], CA atoms, superposed. The first is coloured from N
      to C.

  Returns:
    HTML with its own script; nothing is fetched.
  """
  first = np.asarray(next(iter(points.values())))
  middle = first.mean(axis=0)
  radius = float(np.linalg.norm(first - middle, axis=-1).max()) + 3
  data = [
    {
      'title': title,
      'colour': '' if i == 0 else _COLOURS[i % len(_COLOURS)],
      'points': np.round((np.asarray(chain) - middle) / radius, 4).tolist(),
    }
    for i, (title, chain) in enumerate(points.items())
  ]
  # A title may hold what would end the script.
  told = json.dumps(data).replace('<', '\\u003c')
  return _VIEW.replace('"CHAINS"', told)


_VIEW = """
<h2>In space</h2>
<div class="card" style="padding:.8rem">
<canvas id="space" width="900" height="600" tabindex="0"
  aria-label="the chains; drag to turn, scroll to zoom"
  style="width:100%;touch-action:none;cursor:grab"></canvas>
<div id="chains"></div>
<p class="soft">Drag to turn, scroll to zoom.</p>
</div>
<script>
(() => {
  const chains = "CHAINS";
  const canvas = document.getElementById('space');
  const pen = canvas.getContext('2d');
  const shown = chains.map(() => true);
  let yaw = 0.6, pitch = 0.3, zoom = 1, held = null, idle = true;
  const smooth = p => {
    // Catmull-Rom: a curve through the atoms, four pieces a residue.
    const out = [];
    for (let i = 0; i + 1 < p.length; i++) {
      const q = [p[Math.max(i - 1, 0)], p[i], p[i + 1],
                 p[Math.min(i + 2, p.length - 1)]];
      for (let k = 0; k < 4; k++) {
        const t = k / 4;
        out.push([0, 1, 2].map(a => q[1][a] + t / 2 * (q[2][a] - q[0][a] +
          t * (2 * q[0][a] - 5 * q[1][a] + 4 * q[2][a] - q[3][a] +
          t * (3 * (q[1][a] - q[2][a]) + q[3][a] - q[0][a])))));
      }
    }
    out.push(p[p.length - 1]);
    return out;
  };
  const curves = chains.map(c => smooth(c.points));
  const draw = () => {
    const w = canvas.width, h = canvas.height, size = 0.48 * h * zoom;
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw),
                              Math.cos(pitch), Math.sin(pitch)];
    const parts = [];
    curves.forEach((curve, n) => {
      if (!shown[n]) return;
      const seen = curve.map(([x, y, z]) => {
        const a = cy * x + sy * z, b = cy * z - sy * x;
        return [a, cp * y - sp * b, cp * b + sp * y];
      });
      for (let i = 0; i + 1 < seen.length; i++) {
        const hue = 250 * (1 - i / seen.length);
        parts.push([seen[i], seen[i + 1], n, hue]);
      }
    });
    parts.sort((a, b) => a[0][2] - b[0][2]);
    pen.clearRect(0, 0, w, h);
    pen.lineCap = 'round';
    for (const [a, b, n, hue] of parts) {
      const near = 1 + 0.35 * a[2];
      const light = 38 + 14 * a[2];
      pen.strokeStyle = chains[n].colour || `hsl(${hue} 75% ${light}%)`;
      pen.globalAlpha = n ? 0.75 : 1;
      pen.lineWidth = (n ? 4 : 9) * near * Math.sqrt(zoom);
      pen.beginPath();
      pen.moveTo(w / 2 + size * a[0] * near, h / 2 - size * a[1] * near);
      pen.lineTo(w / 2 + size * b[0] * near, h / 2 - size * b[1] * near);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  };
  canvas.addEventListener('pointerdown', e => {
    held = [e.clientX, e.clientY]; idle = false;
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener('pointermove', e => {
    if (!held) return;
    yaw += (e.clientX - held[0]) / 150;
    pitch += (e.clientY - held[1]) / 150;
    held = [e.clientX, e.clientY];
    draw();
  });
  canvas.addEventListener('pointerup', () => { held = null; });
  canvas.addEventListener('wheel', e => {
    e.preventDefault();
    zoom = Math.min(4, Math.max(0.4, zoom * Math.exp(-e.deltaY / 600)));
    draw();
  }, {passive: false});
  chains.forEach((chain, n) => {
    const label = document.createElement('label');
    const box = document.createElement('input');
    box.type = 'checkbox'; box.checked = true;
    box.onchange = () => { shown[n] = box.checked; draw(); };
    label.append(box, ' ' + chain.title);
    label.style.marginRight = '1.2rem';
    if (chain.colour) label.style.color = chain.colour;
    document.getElementById('chains').append(label);
  });
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const turn = () => {
    if (!idle || still) return;
    yaw += 0.006; draw(); requestAnimationFrame(turn);
  };
  draw(); turn();
})();
</script>
"""
