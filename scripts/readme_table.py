"""Writes the README's table of results from the files under results/.

`python -m scripts.readme_table` after a result has changed. The numbers come
from results/*.json, each written by the command that it names; only what no
run can know (where a system is taught, who published it) stands here.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
BEGIN = '<!-- results: made by `python -m scripts.readme_table` -->'
END = '<!-- end of results -->'
HEADS = (
  'System',
  'Slide',
  'Paper',
  'Command',
  'What is measured',
  'Result (95% interval)',
  'Trivial baseline',
  'Bar',
  "Paper's result",
)


class System(NamedTuple):
  """What the table says of a system before any result.

  Attributes:
    title: its name.
    slide: the lecture and the slides.
    paper: Markdown, with a link.
  """

  title: str
  slide: str
  paper: str


# By the name of its file in dl_lectures/systems/, in the table's order.
SYSTEMS = {
  'alphazero': System(
    'AlphaZero',
    'AlphaZero: One Algorithm, Three Games',
    '[Silver et al., Science 2018](https://doi.org/10.1126/science.aar6404)',
  ),
  'rudder': System(
    'RUDDER',
    'RUDDER: Return Decomposition for Delayed Rewards',
    '[Arjona-Medina et al., NeurIPS 2019](https://arxiv.org/abs/1806.07857)',
  ),
  'align_rudder': System(
    'Align-RUDDER',
    'Align-RUDDER: Learning from Few Demonstrations',
    '[Patil et al., ICML 2022](https://arxiv.org/abs/2009.14108)',
  ),
}


def system_of(path: pathlib.Path) -> str:
  """The system whose result a file holds: results/<system>*.json.

  >>> system_of(pathlib.Path('results/alphazero_go_9x9.json'))
  'alphazero'
  """
  matches = [name for name in SYSTEMS if path.stem.startswith(name)]
  if not matches:
    raise ValueError(f'{path}: add its system to SYSTEMS')
  return max(matches, key=len)


def show(value: Any) -> str:
  """A value as a table's cell.

  >>> [show(v) for v in (None, '', 255168, 0.98765, [0.5, 1.0], 'a|b')]
  ['-', '-', '255,168', '0.988', '0.5 to 1', 'a\\\\|b']
  """
  if value is None or value == '':
    return '-'
  if isinstance(value, list):
    return ' to '.join(map(show, value))
  if isinstance(value, float):
    return f'{value:.3g}' if abs(value) < 1000 else f'{value:,.0f}'
  if isinstance(value, int):
    return f'{value:,}'
  return str(value).replace('|', r'\|')


def claim_cells(claim: Mapping[str, Any]) -> list[str]:
  """What is measured, result, baseline, bar and the paper's result."""
  result = f'**{show(claim["value"])}**'
  if claim['interval'] is not None:
    result += f' ({show(claim["interval"])})'
  if claim['exact']:
    result += ', exact'
  baseline = show(claim['baseline'])
  if claim['baseline_name']:
    baseline += f' ({show(claim["baseline_name"])})'
  bar = show(claim['bar'])
  if claim['met'] is not None:
    bar += ', met' if claim['met'] else ', **missed**'
  return [show(claim['name']), result, baseline, bar, show(claim['paper'])]


def rows(path: pathlib.Path) -> Iterable[list[str]]:
  """One row per claim; the first of them says what they are claims about."""
  system = SYSTEMS[system_of(path)]
  result = json.loads(path.read_text(encoding='utf-8'))
  seeds = len(result['seeds'])
  command = (
    f'`{result["command"]}` ({seeds} seed{"s" if seeds > 1 else ""}, '
    f'{result["minutes"] / seeds:.0f} minutes each, {show(result["device"])})'
  )
  about = [system.title, system.slide, system.paper, command]
  for claim in result['claims']:
    yield about + claim_cells(claim)
    about = [''] * len(about)


def table(paths: Iterable[pathlib.Path]) -> str:
  """The table of these result files, in the order of SYSTEMS."""
  order = list(SYSTEMS)
  ordered = sorted(paths, key=lambda p: (order.index(system_of(p)), p.stem))
  lines = [row for path in ordered for row in rows(path)]
  if not lines:
    return 'No result has been committed yet.'
  return '\n'.join(
    f'| {" | ".join(cells)} |'
    for cells in [list(HEADS), ['---'] * len(HEADS), *lines]
  )


def fill(readme: str, content: str) -> str:
  """The README with `content` between its two markers."""
  before, _, rest = readme.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not end:
    raise ValueError(f'the README needs {BEGIN!r} and {END!r}')
  return f'{before}{BEGIN}\n{content}\n{END}{after}'


def updated(root: pathlib.Path = ROOT) -> str:
  """The README as it should be."""
  readme = (root / 'README.md').read_text(encoding='utf-8')
  return fill(readme, table((root / 'results').glob('*.json')))


if __name__ == '__main__':
  content = updated()
  (ROOT / 'README.md').write_text(content, encoding='utf-8')
