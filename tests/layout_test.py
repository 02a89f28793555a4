"""The house keeps its order: storeys, names, docstrings, mirrored tests."""

import ast
import doctest
import importlib
import json
import pathlib
import re
import signal
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Imports point from a later line to an earlier one. Those on one line are
# strangers to each other.
STOREYS = (
  ('types',),
  ('ops',),
  ('search', 'nets', 'envs', 'data'),
  ('training', 'analysis'),
  ('systems',),
  ('experiments', 'colabs', 'benchmarks', 'scripts', 'doctor'),
)
STOREY = {name: i for i, names in enumerate(STOREYS) for name in names}

FORBIDDEN_NAMES = {'utils', 'common', 'misc', 'base', 'helpers', 'core'}

# Tests of more than one file, which mirror none; under tests/.
CROSS_CUTTING = {
  'layout',
  'nets/every_net',
  'notebooks',
  'packaging',
  'readme',
  'systems/every_system',
  'training/multiprocess',
}

# What tests run as a program or import; under tests/.
SUPPORT = {'experiments/line'}

# Files whose examples compile for several seconds: these run with the slow
# tests. What they show is tested among the others as well.
SLOW_EXAMPLES = {
  f'dl_lectures/{name}.py'
  for name in (
    'analysis/capture_films',
    'analysis/properties',
    'envs/capture_maps',
    'envs/capture_the_flag',
    'envs/chess_endgames',
    'envs/delayed',
    'envs/shogi_notation',
    'envs/skirmish',
    'nets/attention',
    'nets/distogram',
    'nets/encoder_decoder',
    'nets/entities',
    'nets/pixels',
    'ops/distogram',
    'ops/geometry',
    'ops/redistribution',
    'ops/structure_scores',
    'search/tree',
    'training/tabular',
  )
}

# Generous: it ends an example that hangs, not one on a busy machine.
DOCTEST_SECONDS = 120


def sources(*tops: str) -> list[pathlib.Path]:
  """Python files under these top folders, relative to the root."""
  return sorted(
    path.relative_to(ROOT)
    for top in tops
    for path in (ROOT / top).rglob('*.py')
  )


PACKAGE = sources('dl_lectures')
PROGRAMS = sources('benchmarks', 'experiments', 'scripts')


def module_name(path: pathlib.Path) -> str:
  parts = path.with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def room(module: str) -> str:
  """The part of the house a module is in; '' for the package itself."""
  parts = module.split('.')
  if parts[0] != 'dl_lectures':
    return parts[0]
  return parts[1] if len(parts) > 1 else ''


def allowed(importer: str, imported: str) -> bool:
  """Whether the arrow points down, or stays within one room."""
  here, there = room(importer), room(imported)
  if here == there:
    # Each system is read on its own.
    return here != 'systems' or importer == imported
  return STOREY.get(there, len(STOREYS)) < STOREY.get(here, -1)


def imports(tree: ast.AST, importer: str, is_package: bool) -> Iterator[str]:
  """Full names of what of this repository is imported, as written."""
  ours = {'dl_lectures', *STOREYS[-1]}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      stem = node.module or ''
      if node.level:
        parts = importer.split('.')
        parts = parts[: len(parts) - node.level + is_package]
        stem = '.'.join([*parts, stem]).rstrip('.')
      if (
        '.' in stem
        and (ROOT / stem.replace('.', '/')).with_suffix('.py').exists()
      ):
        names = [stem]  # names in a module
      else:
        names = [f'{stem}.{alias.name}' for alias in node.names]
    else:
      continue
    yield from (name for name in names if name.split('.')[0] in ours)


def notebook_code(path: pathlib.Path) -> str:
  """A notebook's code cells; the lines that speak to IPython do nothing."""
  cells = json.loads(path.read_text())['cells']
  code = '\n'.join(
    ''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code'
  )
  return re.sub(r'^( *)[%!].*', r'\1pass', code, flags=re.MULTILINE)


def test_imports_point_down() -> None:
  arrows = [
    (module_name(path), imported)
    for path in [*PACKAGE, *PROGRAMS]
    for imported in imports(
      ast.parse((ROOT / path).read_text()),
      module_name(path),
      path.name == '__init__.py',
    )
  ] + [
    (f'colabs.{path.stem}', imported)
    for path in sorted((ROOT / 'colabs').glob('*.ipynb'))
    for imported in imports(
      ast.parse(notebook_code(path)), f'colabs.{path.stem}', False
    )
  ]
  assert arrows
  wrong = [f'{a} imports {b}' for a, b in arrows if not allowed(a, b)]
  assert not wrong, f'{wrong[0]}: up or sideways ({len(wrong)} in all)'


@pytest.mark.parametrize(
  ('importer', 'imported', 'is_allowed'),
  [
    ('dl_lectures.systems.gpt', 'dl_lectures.nets', True),
    ('dl_lectures.systems.gpt', 'dl_lectures.types.Key', True),
    ('dl_lectures.systems.gpt', 'dl_lectures.systems.alphazero', False),
    ('dl_lectures.nets.mlp', 'dl_lectures.nets.heads', True),
    ('dl_lectures.nets.mlp', 'dl_lectures.ops.losses', True),
    ('dl_lectures.nets.mlp', 'dl_lectures.envs.games', False),
    ('dl_lectures.ops.losses', 'dl_lectures.nets', False),
    ('dl_lectures.training.loop', 'dl_lectures.analysis', False),
    ('dl_lectures.types', 'dl_lectures.ops.losses', False),
    ('dl_lectures', 'dl_lectures.nets', False),
    ('dl_lectures.nets', 'dl_lectures', False),
    ('dl_lectures.nets', 'dl_lectures.cellar', False),
    ('dl_lectures.cellar', 'dl_lectures.types', False),
    ('experiments.gpt', 'experiments.cli', True),
    ('experiments.gpt', 'dl_lectures.systems.gpt', True),
    ('experiments.gpt', 'benchmarks.search', False),
    ('dl_lectures.systems.gpt', 'experiments.cli', False),
  ],
)
def test_arrows(importer: str, imported: str, is_allowed: bool) -> None:
  assert allowed(importer, imported) is is_allowed


def test_imports_are_read_in_all_their_forms() -> None:
  code = """
import dl_lectures.nets.mlp as mlp, numpy
from dl_lectures import search, types
from dl_lectures.types import Key
from . import loop
from .loop import fit
def late():
  from ..ops import losses
"""
  found = imports(ast.parse(code), 'dl_lectures.training.step', False)
  assert list(found) == [
    'dl_lectures.nets.mlp',
    'dl_lectures.search',
    'dl_lectures.types',
    'dl_lectures.types',
    'dl_lectures.training.loop',
    'dl_lectures.training.loop',
    'dl_lectures.ops.losses',
  ]


def test_names_say_what_is_inside() -> None:
  paths = [*PACKAGE, *PROGRAMS, *sources('tests')]
  wrong = [
    str(path)
    for path in paths
    if FORBIDDEN_NAMES
    & {part.removesuffix('.py').removesuffix('_test') for part in path.parts}
  ]
  assert not wrong


def test_modules_are_documented() -> None:
  wrong = [
    str(path)
    for path in [*PACKAGE, *PROGRAMS]
    if not ast.get_docstring(ast.parse((ROOT / path).read_text()))
  ]
  assert not wrong


def undocumented(tree: ast.Module) -> Iterator[str]:
  """Public classes, functions and methods without a docstring."""
  for node in tree.body:
    members = node.body if isinstance(node, ast.ClassDef) else []
    for definition in [node, *members]:
      if (
        isinstance(definition, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith('_')  # pyrefly: ignore[missing-attribute]
        and not definition.name.startswith('_')
        and not ast.get_docstring(definition)
      ):
        yield f'{definition.name}, line {definition.lineno}'


def test_public_names_are_documented() -> None:
  missing = [
    f'{path}: {name}'
    for path in PACKAGE
    for name in undocumented(ast.parse((ROOT / path).read_text()))
  ]
  assert not missing


def test_a_missing_docstring_is_noticed() -> None:
  code = """
def f(): ...
def _g(): ...
class A:
  '''Documented.'''
  def method(self): ...
class _B:
  def method(self): ...
"""
  assert list(undocumented(ast.parse(code))) == [
    'f, line 2',
    'method, line 6',
  ]


def has_examples(path: pathlib.Path) -> bool:
  return '>>> ' in (ROOT / path).read_text()


@pytest.mark.parametrize(
  'path',
  [
    pytest.param(
      p, id=str(p), marks=[pytest.mark.slow] * (str(p) in SLOW_EXAMPLES)
    )
    for p in [*PACKAGE, *PROGRAMS]
    if has_examples(p)
  ],
)
def test_examples_run(path: pathlib.Path) -> None:
  def hangs(*_: object) -> None:
    raise TimeoutError(f'{path}: an example took {DOCTEST_SECONDS} s')

  module = importlib.import_module(module_name(path))
  before = signal.signal(signal.SIGALRM, hangs)
  signal.alarm(DOCTEST_SECONDS)
  try:
    outcome = doctest.testmod(module)
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
  assert outcome.attempted > 0
  assert outcome.failed == 0


def mirrors(test: pathlib.Path) -> bool:
  """Whether a file under tests/ is in its place; relative to tests/."""
  subject = test.with_stem(test.stem.removesuffix('_test'))
  if str(test.with_suffix('')) in {'conftest', *SUPPORT}:
    return True
  return test.stem.endswith('_test') and (
    str(subject.with_suffix('')) in CROSS_CUTTING
    or (ROOT / 'dl_lectures' / subject).exists()
    or (ROOT / subject).exists()
  )


def test_tests_mirror_sources() -> None:
  tests = [path.relative_to('tests') for path in sources('tests')]
  assert not [str(test) for test in tests if not mirrors(test)]


@pytest.mark.parametrize(
  ('test', 'in_place'),
  [
    ('layout_test.py', True),
    ('types_test.py', True),
    ('training/loop_test.py', True),
    ('scripts/readme_table_test.py', True),
    ('training/layout_test.py', False),
    ('training/lop_test.py', False),
    ('training/loop.py', False),
    ('loop_test.py', False),
  ],
)
def test_places_of_tests(test: str, in_place: bool) -> None:
  assert mirrors(pathlib.Path(test)) is in_place
