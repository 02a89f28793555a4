"""Writes the tables of results from the files under results/.

`python -m scripts.readme_table` after a result has changed. The README gets a
row for each, results/README.md all that was claimed. The numbers come from
results/*.json, each written by the command that it names; only what no run can
know (where a system is taught, who published it) stands here.
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
  'Result (95% interval)',
  'Trivial baseline',
  "Paper's result",
  'Bars',
)
CLAIM_HEADS = (
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
  'char_lm': System(
    'Character models',
    'Recurrent neural networks, WaveNet, transformers',
    '[Hochreiter & Schmidhuber 1997](https://doi.org/10.1162/neco.1997.9.8.1735)',
  ),
  'gpt': System(
    'GPT-2',
    'Transformers: GPT-2',
    '[Radford et al. 2019](https://openai.com/index/better-language-models/)',
  ),
  'properties': System(
    'Properties of sequence models',
    'The table of properties',
    '[Hochreiter & Schmidhuber 1997](https://doi.org/10.1162/neco.1997.9.8.1735)',
  ),
  'seq2seq': System(
    'Sequence to sequence',
    'Sequence to sequence, attention',
    '[Bahdanau et al., ICLR 2015](https://arxiv.org/abs/1409.0473)',
  ),
  'captioning': System(
    'Captions with attention',
    'Image captioning',
    '[Xu et al., ICML 2015](https://arxiv.org/abs/1502.03044)',
  ),
  'wavenet': System(
    'WaveNet',
    'WaveNet',
    '[van den Oord et al. 2016](https://arxiv.org/abs/1609.03499)',
  ),
  'pixel_rnn': System(
    'PixelRNN',
    'PixelRNN',
    '[van den Oord et al., ICML 2016](https://arxiv.org/abs/1601.06759)',
  ),
  'alphastar': System(
    'AlphaStar',
    'AlphaStar: policies as sequences',
    '[Vinyals et al., Nature 2019](https://doi.org/10.1038/s41586-019-1724-z)',
  ),
  'alphafold': System(
    'AlphaFold at CASP13',
    'Folding Proteins with AlphaFold',
    '[Senior et al., Nature 2020](https://doi.org/10.1038/s41586-019-1923-7)',
  ),
  'impala': System(
    'IMPALA',
    'Learning to Play Capture The Flag',
    '[Espeholt et al., ICML 2018](https://arxiv.org/abs/1802.01561)',
  ),
  'ftw': System(
    'FTW',
    'Learning to Play Capture The Flag',
    '[Jaderberg et al., Science 2019](https://doi.org/10.1126/science.aau6249)',
  ),
  'pbt': System(
    'PBT',
    'Learning to Play Capture The Flag: population based training',
    '[Jaderberg et al. 2017](https://arxiv.org/abs/1711.09846)',
  ),
  'foundations': System(
    'Foundations',
    'What neural networks represent',
    '[Cybenko 1989](https://doi.org/10.1007/BF02551274)',
  ),
  'classifier': System(
    'Classifiers',
    'Neural networks as computational graphs',
    '[LeCun et al. 1998](https://doi.org/10.1109/5.726791)',
  ),
  'self_normalizing': System(
    'Self-normalising networks',
    'Self-normalising networks',
    '[Klambauer et al., NeurIPS 2017](https://arxiv.org/abs/1706.02515)',
  ),
  'smiles_lstm': System(
    'SMILES-LSTM',
    'Drug screening, SMILES-LSTM',
    '[Mayr et al., Chemical Science 2018](https://doi.org/10.1039/C8SC00148K)',
  ),
  'smiles_screen': System(
    'SMILES-LSTM',
    'Drug screening, SMILES-LSTM',
    '[Mayr et al., Chemical Science 2018](https://doi.org/10.1039/C8SC00148K)',
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


def bars(claims: Iterable[Mapping[str, Any]]) -> str:
  """How many bars were met, and which were not.

  >>> bars([{'name': 'speed', 'met': False}, {'name': 'size', 'met': True}])
  '1 of 2 met; **missed**: speed'
  """
  judged = [claim for claim in claims if claim['met'] is not None]
  missed = [show(claim['name']) for claim in judged if not claim['met']]
  if not judged:
    return '-'
  if not missed:
    return f'{len(judged)} of {len(judged)} met'
  met = len(judged) - len(missed)
  return f'{met} of {len(judged)} met; **missed**: {"; ".join(missed)}'


def how(result: Mapping[str, Any]) -> str:
  """The seeds, the time and the device of a result."""
  seeds = len(result['seeds'])
  minutes = f'{result["minutes"] / seeds:.0f}'
  return (
    f'{seeds} seed{"s" if seeds > 1 else ""}, '
    f'{minutes} minute{"" if minutes == "1" else "s"} each, '
    f'{show(result["device"])}'
  )


def row(path: pathlib.Path) -> list[str]:
  """A result as a row of the README: its first claim, and how the bars went."""
  system = SYSTEMS[system_of(path)]
  result = json.loads(path.read_text(encoding='utf-8'))
  name, value, baseline, _, paper = claim_cells(result['claims'][0])
  return [
    system.title,
    system.slide,
    system.paper,
    f'`{result["command"]}` ({how(result)})',
    f'{value} {name}',
    baseline,
    paper,
    bars(result['claims']),
  ]


def section(path: pathlib.Path) -> str:
  """A result with all of its claims, for results/README.md."""
  system = SYSTEMS[system_of(path)]
  result = json.loads(path.read_text(encoding='utf-8'))
  versions = ', '.join(f'{k} {v}' for k, v in result['versions'].items())
  return '\n'.join(
    [
      f'## {system.title}: [{path.name}]({path.name})',
      '',
      f'{system.paper}. {how(result)}, {result["date"]}; {versions}.',
      '',
      '```sh',
      result['command'],
      '```',
      '',
      markdown(CLAIM_HEADS, map(claim_cells, result['claims'])),
    ]
  )


def markdown(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
  """A table."""
  heads = list(heads)
  return '\n'.join(
    f'| {" | ".join(cells)} |'
    for cells in [heads, ['---'] * len(heads), *lines]
  )


def in_order(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Result files in the order of SYSTEMS."""
  order = list(SYSTEMS)
  return sorted(paths, key=lambda p: (order.index(system_of(p)), p.stem))


def table(paths: Iterable[pathlib.Path]) -> str:
  """The README's table of these result files."""
  lines = [row(path) for path in in_order(paths)]
  return (
    markdown(HEADS, lines) if lines else 'No result has been committed yet.'
  )


def details(paths: Iterable[pathlib.Path]) -> str:
  """The content of results/README.md."""
  head = """\
# Results

Made by `python -m scripts.readme_table` from the files beside it, each written
by the command that it names. Bars that were missed say so."""
  return '\n\n'.join([head, *map(section, in_order(paths))]) + '\n'


def fill(readme: str, content: str) -> str:
  """The README with `content` between its two markers."""
  before, _, rest = readme.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not end:
    raise ValueError(f'the README needs {BEGIN!r} and {END!r}')
  return f'{before}{BEGIN}\n{content}\n{END}{after}'


def updated(root: pathlib.Path = ROOT) -> tuple[str, str]:
  """The README and results/README.md as they should be."""
  readme = (root / 'README.md').read_text(encoding='utf-8')
  paths = list((root / 'results').glob('*.json'))
  return fill(readme, table(paths)), details(paths)


if __name__ == '__main__':
  readme, results = updated()
  (ROOT / 'README.md').write_text(readme, encoding='utf-8')
  (ROOT / 'results' / 'README.md').write_text(results, encoding='utf-8')
