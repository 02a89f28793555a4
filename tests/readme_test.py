"""The README: its table is that of the results, and its code runs."""

import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from scripts import readme_table

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()

CLAIM = {
  'name': 'moves that keep the result',
  'value': 0.98765,
  'interval': [0.98, 0.995],
  'baseline': 0.4321,
  'baseline_name': 'random play',
  'paper': None,
  'bar': 0.98,
  'met': True,
  'exact': False,
}


def result(**changes: Any) -> dict[str, Any]:
  return {
    'command': 'python -m experiments.alphazero --seeds=0,1',
    'preset': 'laptop',
    'seeds': [0, 1],
    'device': '1 x cpu (2 cores)',
    'versions': {},
    'date': '2026-01-01',
    'minutes': 20.2,
    'claims': [CLAIM],
    **changes,
  }


def write(root: pathlib.Path, name: str, content: dict[str, Any]) -> None:
  (root / 'results').mkdir(exist_ok=True)
  (root / 'results' / name).write_text(json.dumps(content))


def test_the_tables_are_fresh() -> None:
  details = (ROOT / 'results' / 'README.md').read_text()
  assert readme_table.updated() == (README, details), (
    'stale: python -m scripts.readme_table'
  )


def test_a_changed_result_makes_them_stale(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'README.md').write_text(README)
  write(tmp_path, 'alphazero.json', result())
  filled, details = readme_table.updated(tmp_path)
  assert filled != README
  (tmp_path / 'README.md').write_text(filled)
  assert readme_table.updated(tmp_path) == (filled, details)
  changed = CLAIM | {'value': 0.5, 'met': False}
  write(tmp_path, 'alphazero.json', result(claims=[changed]))
  new_filled, new_details = readme_table.updated(tmp_path)
  assert new_filled != filled
  assert new_details != details


def cells(line: str) -> list[str]:
  return [cell.strip() for cell in line.strip('|').split(' | ')]


def test_a_result_tells_all(tmp_path: pathlib.Path) -> None:
  count = CLAIM | {
    'name': 'games',
    'value': 255168,
    'interval': None,
    'baseline': None,
    'baseline_name': '',
    'bar': 255168,
    'exact': True,
    'paper': 255168,
  }
  missed = CLAIM | {'name': 'wins', 'value': 0.5, 'interval': None}
  missed |= {'met': False}
  write(tmp_path, 'alphazero.json', result(claims=[CLAIM, count, missed]))
  paths = list((tmp_path / 'results').glob('*.json'))
  head, rule, row = readme_table.table(paths).splitlines()
  assert cells(head) == list(readme_table.HEADS)
  assert set(cells(rule)) == {'---'}
  system = readme_table.SYSTEMS['alphazero']
  assert cells(row) == [
    'AlphaZero',
    system.slide,
    system.paper,
    '`python -m experiments.alphazero --seeds=0,1` (2 seeds, 10 minutes each, '
    '1 x cpu (2 cores))',
    '**0.988** (0.98 to 0.995) moves that keep the result',
    '0.432 (random play)',
    '-',
    '2 of 3 met; **missed**: wins',
  ]
  lines = readme_table.details(paths).splitlines()
  assert 'python -m experiments.alphazero --seeds=0,1' in lines
  rows = [cells(line) for line in lines if line.startswith('|')]
  assert rows[0] == list(readme_table.CLAIM_HEADS)
  assert rows[2:] == [
    [
      'moves that keep the result',
      '**0.988** (0.98 to 0.995)',
      '0.432 (random play)',
      '0.98, met',
      '-',
    ],
    ['games', '**255,168**, exact', '-', '255,168, met', '255,168'],
    ['wins', '**0.5**', '0.432 (random play)', '0.98, **missed**', '-'],
  ]


def test_every_claim_has_its_baseline() -> None:
  for path in (ROOT / 'results').glob('*.json'):
    for claim in json.loads(path.read_text())['claims']:
      assert claim['exact'] or claim['baseline'] is not None, (
        f'{path.name}: {claim["name"]}'
      )


def test_no_result_yet() -> None:
  assert readme_table.table([]) == 'No result has been committed yet.'


def test_a_result_of_no_known_system() -> None:
  with pytest.raises(ValueError, match='add its system to SYSTEMS'):
    readme_table.table([pathlib.Path('results/unknown.json')])


def test_a_readme_without_markers() -> None:
  with pytest.raises(ValueError, match='the README needs'):
    readme_table.fill('text', 'table')


def blocks(language: str) -> list[str]:
  return re.findall(rf'^```{language}\n(.*?)^```', README, re.M | re.S)


def test_its_code_runs(
  capsys: pytest.CaptureFixture[str],
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  def init_fn(key: jax.Array) -> jax.Array:
    return jax.random.normal(key, ())

  def step_fn(state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
    return state + batch.mean(), {'mean': batch.mean()}

  rewards_code, writing_code, capture_code, search_code, sharding_code = blocks(
    'python'
  )
  exec(rewards_code, {})
  assert capsys.readouterr().out == '[[0. 2. 6.]]\n'
  exec(writing_code, {})
  assert capsys.readouterr().out == '(2, 6) (2, 6)\n'
  monkeypatch.chdir(tmp_path)
  exec(capture_code, {})
  assert '<input type="range"' in (tmp_path / 'game.html').read_text()
  exec(search_code, {})
  assert capsys.readouterr().out == '[1]\n'
  # The names that the text introduces.
  names: dict[str, Any] = {
    'init_fn': init_fn,
    'step_fn': step_fn,
    'key': jax.random.key(0),
    'batch': jnp.arange(16.0),
  }
  exec(sharding_code, names)
  assert len(names['mesh'].devices) == 8
  assert float(names['metrics']['mean']) == 7.5


def test_its_commands_exist() -> None:
  targets = set(
    re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M)
  )
  shell = '\n'.join(blocks('sh'))
  used = re.findall(r'\bmake (?:\w+=\S+ )?([a-z-]+)', README)
  assert {'run', 'test'} <= set(used) <= targets
  modules = re.findall(r'python -m ([\w.]+)', shell)
  assert modules
  for module in modules:
    assert (ROOT / module.replace('.', '/')).with_suffix('.py').exists(), module


def test_its_links_exist() -> None:
  links = re.findall(r'\]\(([^)#]+)\)', README)
  local = [link for link in links if '://' not in link]
  assert local
  assert not [link for link in local if not (ROOT / link).exists()]
