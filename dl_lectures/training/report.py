"""What a run shows when it has ended: claims, figures, one page.

`report.html` is self-contained: it can be mailed. `summary.json` holds the
same for programs, and marks a run as finished. `aggregate` joins the summaries
of several seeds into what is committed under `results/`.
"""

import base64
import dataclasses
import datetime
import html
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dl_lectures.training.logging import to_json
from dl_lectures.types import Claim

_SUMMARY = 'summary.json'
_HEADS = ('Claim', 'Value', 'Bar', 'Result', '95%', 'Baseline', 'Paper')
_PACKAGES = ('dl_lectures', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy')


def write(
  workdir: str | os.PathLike[str] | None,
  *,
  title: str,
  config: Any,
  claims: Sequence[Claim],
  metrics: Mapping[str, Any],
  figures: Mapping[str, str],
  minutes: float,
) -> dict[str, Any]:
  """Writes `report.html` and `summary.json`: the run is finished.

  Args:
    workdir: the run's directory; None writes nothing.
    title: of the report.
    config: the dataclass of the run's settings, with a field `seed`.
    claims: the rows of the final table.
    metrics: the final metrics.
    figures: the name that `save_figure` got, or of a film `NAME.gif`, ->
      caption, in order.
    minutes: how long the run took (`FitResult.seconds / 60` and what followed).

  Returns:
    The content of `summary.json`: title, command, seeds, device, versions,
    date, minutes, claims, metrics, config.

  Example:
    >>> from dl_lectures.types import at_least
    >>> @dataclasses.dataclass
    ... class Config:
    ...   seed: int = 3
    >>> summary = write(
    ...   None, title='Coin', config=Config(), minutes=1.0, figures={},
    ...   claims=[at_least('heads', 0.51, 0.5)], metrics={'heads': 0.51},
    ... )
    >>> summary['seeds'], summary['claims'][0]['met']
    ([3], True)
  """
  summary = {
    'title': title,
    **about([config.seed], claims, minutes),
    'metrics': to_json(metrics),
    'config': _config(config),
  }
  if workdir is None or jax.process_index() > 0:
    return summary
  images = []
  for name, caption in figures.items():
    path = figure_path(workdir, name)
    kind = pathlib.Path(path).suffix[1:]
    with open(path, 'rb') as file:
      data = base64.b64encode(file.read()).decode()
    images.append((f'data:image/{kind};base64,{data}', caption))
  _replace(os.path.join(workdir, 'report.html'), _page(summary, images))
  # Last, because it says that all is there.
  _replace(
    os.path.join(workdir, _SUMMARY), json.dumps(summary, indent=2) + '\n'
  )
  return summary


def about(
  seeds: Sequence[int], claims: Sequence[Claim], minutes: float
) -> dict[str, Any]:
  """What every result says: what was claimed, and how it was found.

  Args:
    seeds: of the numbers claimed.
    claims: what was found.
    minutes: how long it took.

  Returns:
    command, seeds, device, versions, date, minutes, claims.
  """
  return {
    'command': command(),
    'seeds': list(seeds),
    'device': device(),
    'versions': versions(),
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'minutes': round(minutes, 2),
    'claims': [to_json(claim._asdict()) for claim in claims],
  }


def finished(
  workdir: str | os.PathLike[str], config: Any
) -> dict[str, Any] | None:
  """The summary of a run that has ended.

  Args:
    workdir: the run's directory.
    config: its settings.

  Returns:
    The summary, or None if no run with these settings has ended there.
  """
  try:
    with open(os.path.join(workdir, _SUMMARY), encoding='utf-8') as file:
      summary = json.load(file)
  except (FileNotFoundError, NotADirectoryError, ValueError):
    return None
  return summary if summary.get('config') == _config(config) else None


def save_figure(
  figure: Any, workdir: str | os.PathLike[str] | None, name: str
) -> None:
  """Writes a figure to `figures/NAME.png` under the workdir.

  Args:
    figure: a matplotlib figure. Made by `matplotlib.figure.Figure()` it needs
      no display and is freed with its last reference.
    workdir: the run's directory; None writes nothing.
    name: by which `write` finds it.
  """
  if workdir is None or jax.process_index() > 0:
    return
  path = figure_path(workdir, name)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  temporary = f'{path}.tmp'
  figure.savefig(temporary, format='png', dpi=144, bbox_inches='tight')
  os.replace(temporary, path)


def aggregate(
  summaries: Sequence[Mapping[str, Any]],
  command: str,
  preset: str | None = None,
) -> dict[str, Any]:
  """Joins the summaries of one system's seeds into one result.

  Of a claim that is a number it takes the mean over the seeds and Student's 95%
  interval of that mean, within [0, 1] for a share; a single seed keeps its own
  interval. Its bar is met if the mean meets it. Any other claim must be the
  same in all seeds, else it is the list of theirs, and its bar is met if every
  seed meets it.

  Args:
    summaries: of `write`, one per seed.
    command: the line that makes the result.
    preset: the preset that it runs.

  Returns:
    command, preset, seeds, device, versions, date, minutes (of all seeds
    together), claims.
  """
  first = summaries[0]
  by_name = [{c['name']: c for c in s['claims']} for s in summaries]
  return {
    'command': command,
    'preset': preset,
    'seeds': [seed for summary in summaries for seed in summary['seeds']],
    'device': first['device'],
    'versions': first['versions'],
    'date': max(summary['date'] for summary in summaries),
    'minutes': round(sum(summary['minutes'] for summary in summaries), 2),
    'claims': [
      _join([claims[name] for claims in by_name if name in claims])
      for name in by_name[0]
    ],
  }


def program() -> str:
  """The module that runs as a program; '' if it is not `python -m ...`."""
  spec = getattr(sys.modules.get('__main__'), '__spec__', None)
  return spec.name.removesuffix('.__main__') if spec is not None else ''


def command() -> str:
  """The line that started this program; '' if it is not `python -m ...`."""
  name = program()
  return shlex.join(['python', '-m', name, *sys.argv[1:]]) if name else ''


def device() -> str:
  """The devices of this process, in words: '1 x cpu (2 cores)'."""
  devices = jax.devices()
  cores = f' ({os.cpu_count()} cores)' if devices[0].platform == 'cpu' else ''
  return f'{len(devices)} x {devices[0].device_kind}{cores}'


def versions() -> dict[str, str]:
  """Of Python and of the packages that decide about a result."""
  found = {'python': platform.python_version()}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def to_text(summary: Mapping[str, Any]) -> str:
  """The claims for a terminal, two lines each.

  >>> from dl_lectures.types import at_least
  >>> claim = at_least('heads', 0.51, 0.5, interval=(0.4, 0.6), paper=0.5)
  >>> print(to_text({'claims': [claim._asdict()]}))
  met     heads
          0.51, bar >= 0.5, 95% 0.4 to 0.6, paper 0.5
  """
  lines = []
  for claim in summary['claims']:
    name, value, bar, verdict, *rest = _row(claim)
    parts = zip(('bar', '95%', 'baseline', 'paper'), (bar, *rest), strict=True)
    told = [f'{what} {text}' for what, text in parts if text != '-']
    lines += [f'{verdict:<8}{name}', ' ' * 8 + ', '.join([value, *told])]
  return '\n'.join(lines)


def _join(claims: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  joined = dict(claims[0])
  values = [claim['value'] for claim in claims]
  if len(claims) == 1:
    return joined
  verdicts = [claim['met'] for claim in claims]
  joined['met'] = None if None in verdicts else all(verdicts)
  joined['interval'] = None
  if all(_is_number(value) for value in values):
    mean = float(np.mean(values))
    if not joined['exact'] or len(set(values)) > 1:
      low, high = _student(values)
      if _is_share(claims):
        low, high = max(low, 0.0), min(high, 1.0)
      joined['value'], joined['interval'] = mean, [low, high]
    signs = {_sign(claim) for claim in claims} - {''}
    if joined['met'] is not None and len(signs) == 1:
      reached = mean >= joined['bar'], mean <= joined['bar']
      joined['met'] = reached[signs == {'<= '}]
  elif any(value != values[0] for value in values):
    joined['value'] = values
  baselines = [claim['baseline'] for claim in claims]
  if all(_is_number(baseline) for baseline in baselines):
    joined['baseline'] = float(np.mean(baselines))
  return joined


def _is_share(claims: Sequence[Mapping[str, Any]]) -> bool:
  """Whether a claim's numbers are shares that should be high: within [0, 1]."""
  numbers = []
  for claim in claims:
    numbers += [claim['value'], *(claim['interval'] or ())]
    # A share that has to reach nothing tells itself by its interval.
    if claim['bar'] is not None or claim['interval'] is None:
      numbers.append(claim['bar'])
  return all(_is_number(x) and 0 <= x <= 1 for x in numbers) and '<= ' not in {
    _sign(claim) for claim in claims
  }


def _student(values: Sequence[float]) -> tuple[float, float]:
  """The 95% interval of the mean of a few normal values."""
  from scipy import special

  n = len(values)
  half = special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n)
  mean = float(np.mean(values))
  return mean - float(half), mean + float(half)


def _sign(claim: Mapping[str, Any]) -> str:
  """From which side a claim's value is to reach its bar, by its verdict."""
  value, bar = claim['value'], claim['bar']
  if claim['met'] is None or not (_is_number(value) and _is_number(bar)):
    return ''
  if value == bar:
    return ''
  return '>= ' if (value > bar) == claim['met'] else '<= '


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _config(config: Any) -> dict[str, Any]:
  """The settings as JSON brings them back."""
  return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def figure_path(workdir: str | os.PathLike[str], name: str) -> str:
  """Where a figure is: `figures/NAME.png`, or as it is if it ends in `.gif`.

  Args:
    workdir: the run's directory.
    name: by which `write` finds it.

  >>> figure_path('run', 'curve'), figure_path('run', 'game.gif')
  ('run/figures/curve.png', 'run/figures/game.gif')
  """
  file = name if name.endswith('.gif') else f'{name}.png'
  return os.path.join(workdir, 'figures', file)


def _replace(path: str, text: str) -> None:
  temporary = f'{path}.tmp'
  with open(temporary, 'w', encoding='utf-8') as file:
    file.write(text)
  os.replace(temporary, path)


def _show(value: Any) -> str:
  """A value for people: four digits of a number, '-' for nothing.

  >>> [_show(x) for x in (None, True, 255168, 0.123456, [0.5, 1.0], 'much')]
  ['-', 'yes', '255,168', '0.1235', '0.5, 1', 'much']
  """
  if value is None or value == '':
    return '-'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, int):
    return f'{value:,}'
  if isinstance(value, float):
    return f'{value:.4g}' if abs(value) < 1e4 else f'{value:,.0f}'
  if isinstance(value, list | tuple):
    return ', '.join(map(_show, value))
  return str(value)


def _row(claim: Mapping[str, Any]) -> tuple[str, ...]:
  interval = claim['interval']
  baseline = _show(claim['baseline'])
  if claim['baseline'] is not None and claim['baseline_name']:
    baseline += f' ({claim["baseline_name"]})'
  verdict = {True: 'met', False: 'missed', None: '-'}[claim['met']]
  return (
    claim['name'],
    _show(claim['value']) + (' exactly' if claim['exact'] else ''),
    _sign(claim) + _show(claim['bar']),
    verdict,
    '-' if interval is None else ' to '.join(map(_show, interval)),
    baseline,
    _show(claim['paper']),
  )


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5d6677;
  --line: #e3e7ee; --card: #ffffff; --page: #f5f7fa; --good: #0f7a4d;
  --goodbg: #e2f5ec; --bad: #b3261e; --badbg: #fce8e6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef;
  --soft: #9aa4b5; --line: #2c3442; --card: #171c26; --page: #0f131a;
  --good: #6ddba5; --goodbg: #12372a; --bad: #ff9c94; --badbg: #451b18; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .8rem; }
p { margin: 0 0 .6rem; }
.soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th { text-align: left; font-weight: 600; color: var(--soft);
  font-size: .8rem; white-space: nowrap; }
th, td { padding: .6rem .9rem; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }
tr:last-child td { border-bottom: 0; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.value { font-weight: 650; }
td.name { min-width: 11rem; }
details td:first-child { width: 16rem; }
.mark { display: inline-block; padding: .05rem .6rem; border-radius: 1rem;
  font-size: .82rem; font-weight: 600; }
.met { color: var(--good); background: var(--goodbg); }
.missed { color: var(--bad); background: var(--badbg); }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; padding: .8rem; }
figure img { display: block; width: 100%; height: auto; background: #fff;
  border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9rem; padding: .6rem .2rem 0; }
code { font: .86rem/1.5 ui-monospace, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
pre { margin: 0; padding: .8rem 1rem; overflow-x: auto; }
details { margin-top: .8rem; }
summary { cursor: pointer; padding: .6rem .9rem; font-weight: 600; }
"""


def _page(summary: Mapping[str, Any], images: Sequence[tuple[str, str]]) -> str:
  title = html.escape(summary['title'])
  verdicts = [c['met'] for c in summary['claims'] if c['met'] is not None]
  facts = [
    f'{summary["minutes"]:.1f} minutes on {summary["device"]}',
    f'seed {_show(summary["seeds"])}',
    summary['date'],
  ]
  if verdicts:
    facts.insert(0, f'{sum(verdicts)} of {len(verdicts)} bars met')
  parts = [
    f'<h1>{title}</h1>',
    f'<p class="soft">{html.escape(" · ".join(facts))}</p>',
  ]
  if summary['claims']:
    parts += ['<h2>Claims</h2>', _claims_table(summary['claims'])]
  if images:
    figures = ''.join(
      f'<figure class="card"><img alt="{html.escape(caption)}" '
      f'src="{data}">'
      f'<figcaption>{html.escape(caption)}</figcaption></figure>'
      for data, caption in images
    )
    parts += ['<h2>Figures</h2>', f'<div class="figures">{figures}</div>']
  parts.append('<h2>The run</h2>')
  if summary['command']:
    line = html.escape(summary['command'])
    parts.append(f'<div class="card"><pre><code>{line}</code></pre></div>')
  for name in ('metrics', 'config', 'versions'):
    rows = {k: v for k, v in summary[name].items() if np.ndim(v) <= 1}
    parts.append(
      f'<details class="card"><summary>{name.capitalize()}</summary>'
      f'{_pairs_table(rows)}</details>'
    )
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{title}</title><style>{_STYLE}</style></head>\n'
    f'<body><main>\n{chr(10).join(parts)}\n</main></body></html>\n'
  )


def _claims_table(claims: Sequence[Mapping[str, Any]]) -> str:
  lines = [''.join(f'<th>{head}</th>' for head in _HEADS)]
  for claim in claims:
    name, value, bar, verdict, interval, baseline, paper = map(
      html.escape, _row(claim)
    )
    mark = '' if verdict == '-' else f' class="mark {verdict}"'
    lines.append(
      f'<td class="name">{name}</td><td class="number value">{value}</td>'
      f'<td class="number">{bar}</td><td><span{mark}>{verdict}</span></td>'
      f'<td class="number">{interval}</td><td>{baseline}</td><td>{paper}</td>'
    )
  return f'<div class="card">{_table(lines)}</div>'


def _pairs_table(pairs: Mapping[str, Any]) -> str:
  return _table(
    f'<td><code>{html.escape(name)}</code></td>'
    f'<td class="number">{html.escape(_show(value))}</td>'
    for name, value in pairs.items()
  )


def _table(lines: Iterable[str]) -> str:
  rows = '\n'.join(f'<tr>{line}</tr>' for line in lines)
  return f'<table>\n{rows}\n</table>'
