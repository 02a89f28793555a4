"""The command line, driven by the tiny system in line.py."""

import dataclasses
import importlib.util
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import pytest

from dl_lectures.training import logging
from experiments import cli


def _load(name: str) -> Any:
  """The module beside this file; tests are no packages."""
  path = pathlib.Path(__file__).with_name(f'{name}.py')
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  spec.loader.exec_module(module)
  return module


line = _load('line')
_SLOWLY = ('--config.num_steps=60', '--config.pause=0.05')
_EXAMPLES = ('first example', 'second example', 'third example')


class Outcome(NamedTuple):
  code: int
  out: str
  err: str


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
  """Runs a command line in an empty directory, as if from a shell."""
  monkeypatch.chdir(tmp_path)
  calls: list[str] = []
  monkeypatch.setattr(cli.host, 'tune_allocator', lambda: calls.append('t'))
  monkeypatch.setattr(cli.host, 'enable_compile_cache', lambda: None)
  handler = signal.getsignal(signal.SIGTERM)

  def call(*argv: str, train=line.train) -> Outcome:
    monkeypatch.setattr(sys, 'argv', ['line', *argv])
    with pytest.raises(SystemExit) as exit_:
      cli.run(
        train,
        config=line.Config,
        presets=line.PRESETS,
        doc=line.__doc__ or '',
        examples=_EXAMPLES,
      )
    code = exit_.value.code
    assert isinstance(code, int)
    return Outcome(code, *capsys.readouterr())

  yield call
  signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def parse(command):
  """The config and workdir that a command line asks for."""

  def call(*argv: str) -> tuple[Any, str]:
    seen: list[Any] = []

    def spy(config, *, workdir):
      seen.append((config, workdir))
      return {}

    outcome = command(*argv, train=spy)
    assert outcome.code == 0, outcome.err
    return seen[0]

  return call


def test_help_lists_all_and_exits_with_0(command):
  outcome = command('--help')
  assert (outcome.code, outcome.err) == (0, '')
  lines = outcome.out.splitlines()
  first = 'Fits a line: the smallest system, which drives the loop and the CLI.'
  assert lines[0] == first
  assert 'second paragraph' not in outcome.out
  entries = {
    name.strip(): meaning.strip()
    for name, meaning in itertools.pairwise(lines)
    if name.startswith('  --')
  }
  assert entries['--workdir'].endswith('runs/line-PRESET by default')
  assert {
    '--preset=smoke': 'num_steps=10',
    '--preset=laptop': 'the default',
    '--preset=paper': 'num_steps=1000, batch_size=64, line=1.0',
    '--config.seed=0  (int)': 'of every random number',
    '--config.num_steps=30  (int)': 'of gradient descent',
    '--config.batch_size=8  (int)': 'points a step; Gauss: all of them',
    '--config.learning_rate=0.1  (float)': 'of SGD',
    '--config.line=2.0,-1.0  (tuple[float, ...])': (
      "The line's own two numbers, slope first."
    ),
    '--config.noisy=true  (bool)': 'whether the points lie beside the line',
    '--config.name=line  (str)': 'what the report calls it',
    '--config.clip=none  (float | None)': 'largest gradient norm',
    '--config.pause=0.0  (float)': 'seconds slept after a step',
  }.items() <= entries.items()
  assert '  --config.poison=0  (int)' in lines
  assert lines[-3:] == [f'  {example}' for example in _EXAMPLES]


def test_help_shows_the_values_of_a_preset(command):
  outcome = command('--preset=paper', '-h', '--config.nonsense=1')
  assert outcome.code == 0
  assert '--config.num_steps=1000  (int)' in outcome.out


def test_comments_above_beside_and_below_a_field():
  @dataclasses.dataclass(kw_only=True)
  class Base:
    # Not about anything.

    first: int = 1  # one

  @dataclasses.dataclass(kw_only=True)
  class Derived(Base):
    # Above,
    # in two lines.
    second: str = '# no comment'
    third: tuple[int, ...] = (
      1,  # inside
      2,
    )  # beside
    # Above the fourth.
    fourth: int = 4
    fifth: int = 5  # goes on
    # below
    sixth: int = 6  # six

    @property
    def seventh(self) -> int:
      local: int = 7  # of no field
      return local

  assert cli.field_comments(Derived) == {
    'first': 'one',
    'second': 'Above, in two lines.',
    'third': 'inside beside',
    'fourth': 'Above the fourth.',
    'fifth': 'goes on below',
    'sixth': 'six',
  }


def test_values_of_every_type(parse):
  config, workdir = parse(
    '--preset=smoke',
    '--config.seed=7',
    '--config.learning_rate=1e-3',
    '--config.line=1,-2.5,3',
    '--config.noisy=false',
    '--config.name=a b=c',
    '--config.clip=0.5',
  )
  assert config == line.Config(
    num_steps=10,
    seed=7,
    learning_rate=1e-3,
    line=(1.0, -2.5, 3.0),
    noisy=False,
    name='a b=c',
    clip=0.5,
  )
  assert workdir == 'runs/line-smoke'
  config, workdir = parse(
    '--noconfig.noisy', '--config.line=', '--config.clip=none', '--workdir=w'
  )
  assert (config.noisy, config.line, config.clip) == (False, (), None)
  assert config.num_steps == 30
  assert workdir == 'w'
  assert parse('--config.noisy')[0].noisy is True


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    ('--lr=3', ['--lr=3', '--preset', 'mean --config.learning_rate=3?']),
    ('--learning_rate=3', ['did you mean --config.learning_rate=3?']),
    ('--seed=3', ['--seed=3', 'did you mean --config.seed=3?']),
    ('--workdr=x', ['--workdr=x', 'did you mean --workdir=x?']),
    ('--config.lrr=3', ['possible: seed, num_', '--config.learning_rate=3?']),
    ('--config.nois', ['--config.nois', 'did you mean --config.noisy?']),
    ('--config.seed=abc', ['--config.seed=abc', 'a whole number']),
    ('--config.seed=1.5', ['--config.seed=1.5', 'a whole number']),
    ('--config.seed=-1', ['seed -1', '0 to 4294967295']),
    ('--config.learning_rate=x', ['learning_rate=x', 'a number is expected']),
    ('--config.learning_rate=nan', ['learning_rate=nan', 'a number']),
    ('--config.learning_rate=0', ['learning_rate=0', 'positive']),
    ('--config.noisy=maybe', ['--config.noisy=maybe', 'true or false']),
    ('--config.line=1,x', ['--config.line=1,x', 'a number is expected']),
    ('--config.clip=much', ['--config.clip=much', 'a number is expected']),
    ('--config.seed', ['config.seed']),
    ('--preset=lapto', ['lapto', 'smoke, laptop, paper', '=laptop?']),
    ('--config.batch_size=12', ['12', '8 devices', '8 or 16']),
    ('--config.num_steps=0', ['num_steps=0', 'at least 1']),
    ('--workdir=file', ['workdir file', 'is not a directory', 'runs/']),
    ('--workdir=file/a', ['workdir file/a', 'is not a directory']),
    ('--workdir=/proc/none', ['/proc', 'runs/']),
    ('--workdir=', ['--workdir=', 'a path is expected']),
    ('--results=file/a.json', ['is not a directory']),
    ('--results=.', ['--results=.', 'is a directory']),
    ('--seeds=0,x', ['--seeds=0,x', 'a whole number']),
    ('--seeds=1,2,1', ['--seeds=1,2,1', 'twice']),
    ('--seeds=1 --config.seed=2', ['--seeds', '--config.seed']),
    ('train', ['train is not a flag', '--config.field=value']),
  ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
  command, tmp_path, argv, said
):
  (tmp_path / 'file').write_text('')
  outcome = command(*argv.split())
  assert outcome.code == 2
  assert outcome.out == ''
  assert outcome.err.count('\n') == 1
  for part in said:
    assert part in outcome.err
  assert os.listdir(tmp_path) == ['file']


def test_a_run_prints_one_json_line_and_again_its_result(command, tmp_path):
  argv = ('--preset=smoke', '--workdir=w', '--results=results/line.json')
  first = command(*argv)
  assert first.code == 0
  metrics = json.loads(first.out)
  assert set(metrics) == {'loss', 'slope'}
  assert first.out.count('\n') == 1
  for part in (
    'start      fresh',
    'this line goes to stderr',
    'met     error of the slope',
    'report: w/report.html',
  ):
    assert part in first.err
  files = sorted(os.listdir('w'))
  assert files[:2] == ['checkpoints', 'config.json']
  assert files[3:] == ['metrics.jsonl', 'report.html', 'summary.json']
  result = json.loads((tmp_path / 'results' / 'line.json').read_text())
  assert result['command'] == 'python -m experiments.line ' + ' '.join(argv)
  assert (result['preset'], result['seeds']) == ('smoke', [0])

  def refuse(config, *, workdir):
    raise AssertionError('trained again')

  again = command(*argv, train=refuse)
  assert (again.code, again.out) == (0, first.out)
  assert 'this run ended on' in again.err
  assert 'error of the slope' in again.err
  other = command(*argv, '--config.learning_rate=0.3')
  assert other.code == 2
  assert 'learning_rate 0.1 -> 0.3' in other.err


def test_several_seeds_are_joined(command):
  outcome = command('--preset=smoke', '--seeds=3,5', '--results=line.json')
  assert outcome.code == 0
  with open('line.json', encoding='utf-8') as file:
    result = json.load(file)
  assert result['seeds'] == [3, 5]
  parts = []
  for seed in (3, 5):
    directory = pathlib.Path('runs', 'line-smoke', f'seed_{seed}')
    assert json.loads((directory / 'config.json').read_text())['seed'] == seed
    parts.append(json.loads((directory / 'summary.json').read_text()))
  slopes = [part['metrics']['slope'] for part in parts]
  assert slopes[0] != slopes[1]
  metrics = json.loads(outcome.out)
  assert metrics['seeds'] == [3, 5]
  assert metrics['slope'] == pytest.approx(sum(slopes) / 2)
  errors = [part['claims'][0]['value'] for part in parts]
  assert result['claims'][0]['value'] == pytest.approx(sum(errors) / 2)
  assert 'run 2 of 2' in outcome.err


def _stopping(monkeypatch, at: int, signals: int) -> None:
  """Raises SIGINT while the batch of step `at` is made."""
  original = line.batches

  def batches(config, step):
    for i, batch in enumerate(original(config, step), step + 1):
      for _ in range(signals if i == at else 0):
        signal.raise_signal(signal.SIGINT)
      yield batch

  monkeypatch.setattr(line, 'batches', batches)


def test_an_interrupted_run_is_no_result(command, monkeypatch):
  argv = ('--preset=smoke', '--seeds=0,1', '--results=line.json')
  with monkeypatch.context() as patch:
    _stopping(patch, at=5, signals=1)
    outcome = command(*argv)
  assert (outcome.code, outcome.out) == (0, '')
  assert 'saved step 4; the same command continues' in outcome.err
  assert not os.path.exists('line.json')
  assert os.listdir('runs/line-smoke') == ['seed_0']
  outcome = command(*argv)
  assert outcome.code == 0
  assert 'resumed from step 4' in outcome.err
  assert os.path.exists('line.json')


def test_a_second_ctrl_c_aborts(command, monkeypatch):
  _stopping(monkeypatch, at=5, signals=2)
  outcome = command('--preset=smoke')
  assert (outcome.code, outcome.out) == (130, '')
  assert outcome.err.splitlines()[-1] == 'aborted: stopped at once'


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_signals_outside_of_fit_are_no_traceback(command, name):
  def train(config, *, workdir):
    signal.raise_signal(signal.Signals[name])

  outcome = command(train=train)
  assert (outcome.code, outcome.out) == (0, '')
  assert outcome.err.endswith('stopped; the same command continues\n')


def test_a_nan_is_told_in_a_line(command):
  outcome = command('--config.poison=5', '--workdir=w')
  assert (outcome.code, outcome.out) == (1, '')
  message = outcome.err.splitlines()[-1]
  assert message.startswith('step 5 is not finite (loss nan, grad_norm nan)')
  assert 'debug/step_00000005.npz' in message
  assert os.path.exists('w/debug/step_00000005.npz')
  assert not os.path.exists('w/summary.json')


def _start(workdir: pathlib.Path) -> subprocess.Popen[str]:
  return subprocess.Popen(
    [
      *(sys.executable, line.__file__, f'--workdir={workdir}'),
      *_SLOWLY,
    ],
    env=os.environ
    | {
      'PYTHONPATH': str(pathlib.Path(cli.__file__).parents[1]),
      'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': str(jax.device_count()),
      'XDG_CACHE_HOME': str(workdir.parent / 'cache'),
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _stop(process, workdir: pathlib.Path, step: int, signum: int) -> Outcome:
  """Sends a signal once a step is logged; what the process then says."""
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline and process.poll() is None:
    records = logging.read(str(workdir))
    if records and records[-1]['step'] >= step:
      process.send_signal(signum)
      break
    time.sleep(0.02)
  out, err = process.communicate(timeout=400)
  return Outcome(process.returncode, out, err)


def _records(workdir: pathlib.Path) -> list[dict[str, Any]]:
  return [
    {name: value for name, value in record.items() if name != 'seconds'}
    for record in logging.read(str(workdir))
  ]


def test_a_process_stopped_twice_ends_as_one_never_stopped(command, tmp_path):
  workdir = tmp_path / 'stopped'
  first = _stop(_start(workdir), workdir, 10, signal.SIGINT)
  assert (first.code, first.out) == (0, '')
  assert 'start      fresh' in first.err
  assert 'Traceback' not in first.err
  saved = int(first.err.rpartition('saved step ')[2].partition(';')[0])
  assert 10 <= saved < 60
  second = _stop(_start(workdir), workdir, saved + 5, signal.SIGTERM)
  assert (second.code, second.out) == (0, '')
  assert f'resumed from step {saved}\n' in second.err
  assert 'finishing this step' in second.err
  saved = int(second.err.rpartition('saved step ')[2].partition(';')[0])
  third = command(f'--workdir={workdir}', *_SLOWLY)
  assert third.code == 0
  assert f'resumed from step {saved}\n' in third.err

  config = line.Config(num_steps=60)
  metrics = line.train(config, workdir=str(tmp_path / 'whole'))
  assert json.loads(third.out) == metrics
  assert _records(workdir) == _records(tmp_path / 'whole')
  assert [r['step'] for r in _records(workdir)] == list(range(61))
