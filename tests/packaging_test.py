"""What is shipped, what it needs, what it must never load; and the set-up."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
LOCK = (ROOT / 'requirements.lock').read_text()

SHIPPED = ('dl_lectures', 'experiments')
TREES = {
  path.relative_to(ROOT): ast.parse(path.read_text())
  for top in (*SHIPPED, 'benchmarks', 'scripts')
  for path in sorted((ROOT / top).rglob('*.py'))
}


# --- Metadata and lock -------------------------------------------------------


def requirements(extra: str | None = None) -> list[Requirement]:
  """What the project asks for, its own extras resolved."""
  texts = PROJECT['dependencies']
  if extra is not None:
    texts = PROJECT['optional-dependencies'][extra]
  found = []
  for requirement in map(Requirement, texts):
    if requirement.name == PROJECT['name']:
      found += [r for name in requirement.extras for r in requirements(name)]
    else:
      found.append(requirement)
  return found


def test_metadata() -> None:
  assert PROJECT['requires-python'] == '>=3.11'
  named = {r.name: r.specifier for r in requirements()}
  # The cap: a release of jax that nobody has tried breaks Haiku.
  for name in ('jax', 'jaxlib'):
    assert {spec.operator for spec in named[name]} == {'>=', '<'}
  assert all(specifier for specifier in named.values())
  assert {
    *('cuda12', 'cuda13', 'tpu', 'pgx', 'folding', 'molecules'),
    *('benchmarks', 'test', 'colab'),
  } == set(PROJECT['optional-dependencies'])


def test_mctx_is_for_tests_only() -> None:
  extras = PROJECT['optional-dependencies']
  users = [extra for extra in extras if 'mctx' in str(requirements(extra))]
  assert users == ['test']
  assert 'mctx' not in str(requirements())


def test_the_lock_covers_the_project() -> None:
  pins = re.findall(r'^([\w.-]+)==(\S+)', LOCK, re.MULTILINE)
  for requirement in [*requirements(), *requirements('test')]:
    name = requirement.name.lower().replace('_', '-')
    versions = [Version(version) for pin, version in pins if pin == name]
    assert versions, f'{name} is not locked: sh scripts/lock.sh'
    for version in versions:
      assert version in requirement.specifier, f'{name}: sh scripts/lock.sh'


def test_the_lock_is_hashed_and_names_no_place() -> None:
  blocks = re.split(r'\n(?=\S)', LOCK)
  pins = [block for block in blocks if re.match(r'[\w.-]+==', block)]
  assert len(pins) > 50
  assert all('--hash=sha256:' in pin for pin in pins)
  assert not re.search(r'://|--index|--find-links|file:|(^|\s)/', LOCK)


def test_tensorflow_and_clu_are_not_locked() -> None:
  names = set(re.findall(r'^([\w.-]+)==', LOCK, re.MULTILINE))
  assert not names & {'tensorflow', 'tensorflow-cpu', 'tf-nightly', 'clu'}


# --- The wheel ---------------------------------------------------------------


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The wheel, built without the network and away from the checkout."""
  source = tmp_path_factory.mktemp('source')
  unshipped = ('benchmarks', 'colabs', 'results', 'scripts', 'tests')
  for top in (*SHIPPED, *unshipped):
    if (ROOT / top).exists():
      shutil.copytree(
        ROOT / top, source / top, ignore=shutil.ignore_patterns('__pycache__')
      )
  for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  target = tmp_path_factory.mktemp('wheel')
  build = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-index']
  build += ['--no-deps', '--no-build-isolation', '-w', str(target), str(source)]
  done = subprocess.run(build, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  (path,) = target.glob('*.whl')
  return path


def test_wheel_holds_the_package_and_its_tables(wheel: pathlib.Path) -> None:
  names = set(zipfile.ZipFile(wheel).namelist())
  tops = {name.split('/')[0] for name in names}
  info = f'dl_lectures-{PROJECT["version"]}.dist-info'
  assert tops == {*SHIPPED, info}
  assert f'{info}/licenses/LICENSE' in names
  shipped = {
    str(path.relative_to(ROOT))
    for top in SHIPPED
    for path in (ROOT / top).rglob('*')
    if path.suffix in ('.py', '.npz', '.txt', '.typed', '.html')
  }
  assert 'dl_lectures/data/tables/connect_four.npz' in shipped
  assert shipped == {name for name in names if not name.startswith(info)}


def test_wheel_reads_its_tables_where_it_is_installed(
  wheel: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  zipfile.ZipFile(wheel).extractall(tmp_path)
  program = (
    'import dl_lectures; from dl_lectures.data import connect_four; '
    'print(dl_lectures.__file__, len(connect_four.load().ply))'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
  )
  assert done.returncode == 0, done.stderr
  path, positions = done.stdout.split()
  assert pathlib.Path(path).is_relative_to(tmp_path)
  assert int(positions) > 0


# --- What is imported --------------------------------------------------------


def test_importing_everything_loads_nothing_heavy() -> None:
  modules = [
    '.'.join(path.with_suffix('').parts).removesuffix('.__init__')
    for path in TREES
    if path.parts[0] in SHIPPED
  ]
  unwanted = ['tensorflow', 'clu', 'tensorflow_datasets', 'mctx', 'pgx']
  program = (
    f'import importlib, sys\nfor name in {modules}:\n'
    '  importlib.import_module(name)\n'
    f'print([name for name in {unwanted} if name in sys.modules])\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == '[]\n'


def names(tree: ast.AST) -> Iterator[str]:
  """Full names of what is imported, and of attributes reached by dots."""
  aliases = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name
        if alias.asname:
          aliases[alias.asname] = alias.name
    elif isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        yield f'{node.module}.{alias.name}'
        aliases[alias.asname or alias.name] = f'{node.module}.{alias.name}'
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute):
      parts = [node.attr]
      inner = node.value
      while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
      if isinstance(inner, ast.Name):
        parts.append(aliases.get(inner.id, inner.id))
        yield '.'.join(reversed(parts))


def users(*wanted: str) -> set[pathlib.Path]:
  """The files that reach for one of these names or for what is in them."""
  return {
    path
    for path, tree in TREES.items()
    if any(
      name == prefix or name.startswith(f'{prefix}.')
      for name in names(tree)
      for prefix in wanted
    )
  }


def test_names_are_found_however_they_are_reached() -> None:
  code = """
import jax
import jax.numpy as jnp
from jax import core as c
jax.lax.scan
jnp.linalg.norm
c.Tracer
"""
  assert {
    'jax.numpy',
    'jax.core',
    'jax.lax.scan',
    'jax.numpy.linalg.norm',
    'jax.core.Tracer',
  } <= set(names(ast.parse(code)))


@pytest.mark.parametrize(
  'name',
  [
    'jax._src',
    'jax.core',
    'jax.interpreters',
    'jax.pmap',
    'clu',
    'distrax',
    'tensorflow',
    'pickle',
    'cloudpickle',
    'dill',
    'joblib',
    'marshal',
    'shelve',
  ],
)
def test_nobody_uses(name: str) -> None:
  assert not users(name)


def test_flags_are_read_in_experiments_only() -> None:
  found = users('absl.flags', 'absl.app', 'ml_collections')
  assert {path.parts[0] for path in found} <= {'experiments'}


def test_rlax_has_one_importer() -> None:
  assert len(users('rlax')) <= 1


def test_datasets_are_imported_late_and_in_data_only() -> None:
  for path in users('tensorflow_datasets'):
    assert path.parts[:2] == ('dl_lectures', 'data')
    at_import = ast.Module(
      [
        n
        for n in TREES[path].body
        if isinstance(n, ast.Import | ast.ImportFrom)
      ],
      [],
    )
    assert 'tensorflow_datasets' not in set(names(at_import))


def test_arrays_are_loaded_without_unpickling() -> None:
  wrong = [
    f'{path}:{node.value.lineno}'
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.keyword) and node.arg == 'allow_pickle'
    if not (isinstance(node.value, ast.Constant) and node.value.value is False)
  ]
  assert not wrong


def test_the_package_knows_nothing_outside_itself() -> None:
  for path in TREES:
    if path.parts[0] in SHIPPED:
      assert '../shared' not in (ROOT / path).read_text(), path


# --- The set-up --------------------------------------------------------------

TOOLS = (
  'awk',
  'cat',
  'cksum',
  'cp',
  'dirname',
  'mkdir',
  'rm',
  'sed',
  'sh',
  'touch',
)

# A python3 that installs nothing: it writes down what it is asked for.
FAKE_PYTHON = r"""#!/bin/sh
case "$*" in
  *'(3, 11) <='*) exit {supported} ;;
  *ensurepip*) exit {has_venv} ;;
  *python_version*) echo 3.9.2 ;;
  *version_info*) echo '(3, 12)' ;;
  --version) echo Python 3.12.0 ;;
  '-m venv .venv') mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  *'pip install'*) echo "$*" >>pip.log; [ ! -e offline ] ;;
esac
"""


class Clone:
  """A checkout with a python3 of its own and without uv or the network."""

  def __init__(self, root: pathlib.Path) -> None:
    self.root = root
    self.venv = root / '.venv'
    (root / 'scripts').mkdir()
    (root / 'bin').mkdir()
    shutil.copy(ROOT / 'scripts' / 'venv.sh', root / 'scripts')
    (root / 'requirements.lock').write_text('jax==1\nsetuptools==80 \\\n  -x\n')
    for tool in TOOLS:
      found = shutil.which(tool)
      assert found
      (root / 'bin' / tool).symlink_to(found)

  def python(
    self, name: str, *, supported: bool = True, has_venv: bool = True
  ) -> None:
    path = self.root / 'bin' / name
    path.write_text(
      FAKE_PYTHON.replace('{supported}', str(int(not supported))).replace(
        '{has_venv}', str(int(not has_venv))
      )
    )
    path.chmod(0o755)

  def make_venv(self, python: str = '') -> subprocess.CompletedProcess[str]:
    return subprocess.run(
      ['sh', 'scripts/venv.sh'],
      cwd=self.root,
      env={'PATH': str(self.root / 'bin'), 'PYTHON': python},
      capture_output=True,
      text=True,
    )

  def installs(self) -> list[str]:
    log = self.root / 'pip.log'
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


@pytest.fixture
def clone(tmp_path: pathlib.Path) -> Clone:
  return Clone(tmp_path)


def test_set_up_and_nothing_the_second_time(clone: Clone) -> None:
  clone.python('python3')
  assert clone.make_venv().returncode == 0
  build, packages, editable = clone.installs()
  assert build.endswith('--require-hashes -r .venv/build-requirements.lock')
  pins = (clone.venv / 'build-requirements.lock').read_text()
  assert pins == 'setuptools==80 \\\n  -x\n'
  assert '--require-hashes' in packages
  assert packages.endswith('-r requirements.lock')
  assert '--no-deps --no-build-isolation --editable .' in editable

  again = clone.make_venv()
  assert again.returncode == 0
  assert again.stdout == ''
  assert not clone.installs()


def test_an_interrupted_set_up_is_made_anew(clone: Clone) -> None:
  clone.python('python3')
  (clone.root / 'offline').touch()
  failed = clone.make_venv()
  assert failed.returncode == 1
  assert 'type the same command again' in failed.stderr
  leftover = clone.venv / 'half-written'
  leftover.touch()
  (clone.root / 'offline').unlink()
  assert clone.make_venv().returncode == 0
  assert not leftover.exists()
  assert (clone.venv / 'complete').exists()


def test_a_new_lock_is_installed_into_the_same_venv(clone: Clone) -> None:
  clone.python('python3')
  clone.make_venv()
  clone.installs()
  kept = clone.venv / 'kept'
  kept.touch()
  (clone.root / 'requirements.lock').write_text('jax==2\nsetuptools==81\n')
  assert clone.make_venv().returncode == 0
  assert kept.exists()
  assert len(clone.installs()) == 3


def test_the_first_suitable_python_is_taken(clone: Clone) -> None:
  clone.python('python3', supported=False)
  clone.python('python3.13', has_venv=False)
  clone.python('python3.12')
  assert clone.make_venv().returncode == 0
  made_by = (clone.venv / 'bin' / 'python').read_text()
  assert made_by == (clone.root / 'bin' / 'python3.12').read_text()


def test_an_old_python_gets_one_sentence(clone: Clone) -> None:
  clone.python('python3', supported=False)
  done = clone.make_venv()
  assert done.returncode == 1
  assert done.stderr == (
    'dl_lectures needs Python 3.11, 3.12 or 3.13, and python3 is 3.9.2: '
    'install one and name it, for example: make PYTHON=python3.12 run\n'
  )
  assert not clone.venv.exists()


def test_a_python_that_is_not_there_gets_one_sentence(clone: Clone) -> None:
  clone.python('python3')
  done = clone.make_venv(python='python3.12')
  assert done.returncode == 1
  assert 'python3.12 was not found' in done.stderr
  assert done.stderr.count('\n') == 1


def test_a_python_without_venv_gets_one_sentence(clone: Clone) -> None:
  clone.python('python3', has_venv=False)
  done = clone.make_venv()
  assert done.returncode == 1
  assert done.stderr == (
    'python3 has no venv module: install it (on Debian and Ubuntu: sudo apt '
    'install python3-venv) and type the same command again.\n'
  )
