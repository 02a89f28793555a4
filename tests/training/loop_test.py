"""The loop: the same run however often it is stopped, and orderly ends."""

import dataclasses
import itertools
import json
import os
import signal
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dl_lectures import training
from dl_lectures.training import Hook, checkpoint, logging, loop, sharding
from dl_lectures.types import UsageError

_MESH = sharding.make_mesh(1)
_NEVER = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  seed: int = 3
  learning_rate: float = 0.1


class Batch(NamedTuple):
  x: np.ndarray  # [B] float32
  y: np.ndarray  # [B] float32


def _loss(params: Any, net_state: Any, key: jax.Array, batch: Batch):
  noise = jax.random.normal(key, batch.x.shape)
  loss = jnp.mean((params['w'] * batch.x + 0.1 * noise - batch.y) ** 2)
  return loss, (net_state, {'noise': noise.mean()})


_OPTIMIZER = optax.adam(0.1)
_STEP = training.make_step(_loss, _OPTIMIZER)


def _init(key: jax.Array) -> Any:
  params = {'w': jax.random.normal(key, ())}
  return training.init_state(params, {}, _OPTIMIZER)


def _batches(step: int, poison: int = -1, size: int = 8):
  for i in itertools.count(step + 1):
    rng = np.random.default_rng(i)
    x, y = rng.normal(size=(2, size)).astype(np.float32)
    if i == poison:
      y[0] = np.nan
    yield Batch(x, y)


def _fit(workdir, num_steps: int = 20, **given: Any) -> training.FitResult:
  settings: dict[str, Any] = {
    'config': Config(),
    'batches': _batches,
    'mesh': _MESH,
    'save_every_seconds': _NEVER,
  } | given
  return training.fit(
    settings.pop('step_fn', _STEP),
    settings.pop('init_fn', _init),
    workdir=workdir,
    num_steps=num_steps,
    **settings,
  )


def _same(a: Any, b: Any) -> bool:
  return jax.tree.structure(a) == jax.tree.structure(b) and all(
    x.dtype == y.dtype and np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def _records(workdir) -> list[dict[str, Any]]:
  """All but the clock, after a look at it."""
  records = logging.read(str(workdir))
  seconds = [record.pop('seconds') for record in records]
  assert seconds == sorted(seconds)
  return records


def _at(step: int, do) -> Hook:
  return Hook(lambda s, _: do() if s == step else None, 1, at_end=False)


def _raise() -> None:
  raise RuntimeError('power cut')


def _interrupt() -> None:
  signal.raise_signal(signal.SIGINT)


def _slope(step: int, state: Any) -> dict[str, Any]:
  return {'slope': state.params['w'], 'twice': [2 * step]}


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> tuple[training.FitResult, list[dict[str, Any]]]:
  """The run of 20 steps that every stopped one must equal."""
  workdir = tmp_path_factory.mktemp('whole')
  result = _fit(workdir, hooks=[Hook(_slope, 4, at_start=True)])
  return result, _records(workdir)


def test_fit_is_the_plain_loop(whole):
  init_key, key = jax.random.split(jax.random.key(3))
  state, step = _init(init_key), jax.jit(_STEP)
  losses = []
  for batch in itertools.islice(_batches(0), 20):
    state, metrics = step(state, batch, key)
    losses.append(float(metrics['loss']))
  result, records = whole
  assert _same(result.state, state)
  assert [record['loss'] for record in records[1:]] == losses
  assert (result.status, result.step) == ('done', 20)
  assert result.metrics['loss'] == losses[-1]


def test_stopped_and_resumed_is_bit_for_bit_the_whole_run(tmp_path, whole):
  hooks = [Hook(_slope, 4, at_start=True, at_end=False)]
  half = _fit(tmp_path, 10, hooks=hooks)
  assert (half.status, half.step) == ('done', 10)
  rest = _fit(tmp_path, 20, hooks=[Hook(_slope, 4, at_start=True)])
  assert _same(rest.state, whole[0].state)
  assert rest.metrics == whole[0].metrics
  assert _records(tmp_path) == whole[1]


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_finishes_the_step_and_saves(tmp_path, whole, capsys, name):
  slope = Hook(_slope, 4, at_start=True)
  signum = signal.Signals[name]
  before = signal.getsignal(signum)
  stop = _at(7, lambda: signal.raise_signal(signum))
  result = _fit(tmp_path, hooks=[slope, stop])
  assert (result.status, result.step) == ('interrupted', 7)
  assert signal.getsignal(signum) == before
  assert 'saved step 7; the same command continues' in capsys.readouterr().err
  assert checkpoint.Checkpointer.open(tmp_path / 'checkpoints').steps() == [7]
  result = _fit(tmp_path, hooks=[slope])
  assert result.status == 'done'
  assert 'resumed from step 7' in capsys.readouterr().err
  assert _same(result.state, whole[0].state)
  assert _records(tmp_path) == whole[1]


def test_a_second_ctrl_c_aborts(tmp_path):
  def twice() -> None:
    _interrupt()
    _interrupt()

  with pytest.raises(KeyboardInterrupt, match='at once'):
    _fit(tmp_path, hooks=[_at(5, twice)])
  assert checkpoint.Checkpointer.open(tmp_path / 'checkpoints').steps() == []
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_crash_leaves_no_duplicated_step(tmp_path, whole):
  slope = Hook(_slope, 4, at_start=True)
  _fit(tmp_path, 10, hooks=[slope._replace(at_end=False)])
  with pytest.raises(RuntimeError, match='power cut'):
    _fit(tmp_path, hooks=[slope, _at(15, _raise)])
  assert [r['step'] for r in _records(tmp_path)] == list(range(15))
  with open(tmp_path / 'metrics.jsonl', 'a', encoding='utf-8') as file:
    file.write('{"step": 15, "los')
  assert _same(_fit(tmp_path, hooks=[slope]).state, whole[0].state)
  assert _records(tmp_path) == whole[1]


def test_a_crash_before_the_first_checkpoint_starts_afresh(tmp_path, whole):
  slope = Hook(_slope, 4, at_start=True)
  with pytest.raises(RuntimeError, match='power cut'):
    _fit(tmp_path, hooks=[slope, _at(3, _raise)])
  assert [r['step'] for r in _records(tmp_path)] == [0, 1, 2]
  assert _same(_fit(tmp_path, hooks=[slope]).state, whole[0].state)
  assert _records(tmp_path) == whole[1]


def test_the_clock_goes_on_from_the_checkpoint(tmp_path, monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(loop.time, 'monotonic', lambda: now[0])

  def wait(step: int, state: Any) -> None:
    now[0] += 10.0

  hook = Hook(wait, 1, at_end=False)
  assert _fit(tmp_path, 2, hooks=[hook]).seconds == 20.0
  with pytest.raises(RuntimeError, match='power cut'):
    _fit(tmp_path, 4, hooks=[hook, _at(4, _raise)])
  now[0] += 500.0
  # The step that was lost is not counted twice.
  assert _fit(tmp_path, 4, hooks=[hook]).seconds == 40.0
  assert _fit(tmp_path, 4).seconds == 40.0


def test_checkpoints_come_by_the_clock(tmp_path):
  with pytest.raises(RuntimeError):
    _fit(tmp_path, save_every_seconds=0.0, keep=3, hooks=[_at(6, _raise)])
  steps = checkpoint.Checkpointer.open(tmp_path / 'checkpoints').steps()
  assert steps == [3, 4, 5]


def test_run_again_after_the_end_trains_nothing(tmp_path, capsys):
  hooks = [Hook(_slope, 4)]
  first = _fit(tmp_path, 6, hooks=hooks)
  records = _records(tmp_path)
  capsys.readouterr()
  again = _fit(tmp_path, 6, hooks=[Hook(lambda s, _: _raise(), 1)])
  assert _same(again.state, first.state)
  assert (again.metrics, again.status) == (first.metrics, 'done')
  assert _records(tmp_path) == records
  err = capsys.readouterr().err
  assert 'all 6 steps are done' in err
  assert 'compiling' not in err


def test_hooks_are_called_when_they_are_due(tmp_path):
  calls = []

  def noting(name: str, metrics=None):
    def call(step: int, state: Any):
      assert int(state.step) == step
      calls.append((name, step))
      return metrics

    return call

  _fit(
    tmp_path,
    7,
    log_every=5,
    hooks=[
      Hook(noting('a'), 3),
      Hook(noting('b', {'b': np.arange(2)}), 6, at_start=True, at_end=False),
      Hook(noting('c'), 0),
    ],
  )
  assert calls == [
    ('b', 0),
    ('a', 3),
    ('a', 6),
    ('b', 6),
    ('a', 7),
    ('c', 7),
  ]
  records = _records(tmp_path)
  # Multiples of log_every, what hooks gave, and the last step.
  assert [r['step'] for r in records] == [0, 5, 6, 7]
  assert records[0] == {'step': 0, 'b': [0, 1]}
  assert list(records[2]) == ['step', 'loss', 'grad_norm', 'noise', 'b']
  assert records[2]['b'] == [0, 1]


def test_a_nan_stops_the_run_and_keeps_the_checkpoint_and_the_batch(
  tmp_path, whole
):
  drawn = []

  def poisoned(step: int):
    for batch in _batches(step, poison=7):
      drawn.append(batch)
      yield batch

  for _ in range(2):  # the second time resumed, with the same message
    with pytest.raises(training.NonFiniteError) as error:
      _fit(tmp_path, batches=poisoned, save_every_seconds=0.0)
    message = str(error.value)
    path = tmp_path / 'debug' / 'step_00000007'
    for part in (
      'step 7 is not finite (loss nan, grad_norm nan)',
      f'{path}.npz',
      'goes on from step 6',
      'JAX_DEBUG_NANS=1',
    ):
      assert part in message
    assert '\n' not in message
    assert checkpoint.Checkpointer.open(tmp_path / 'checkpoints').steps() == [
      5,
      6,
    ]
    assert [r['step'] for r in _records(tmp_path)] == [1, 2, 3, 4, 5, 6]
  with np.load(f'{path}.npz') as batch:
    np.testing.assert_array_equal(batch['x'], drawn[6].x)
    np.testing.assert_array_equal(batch['y'], drawn[6].y)
  noted = json.loads((path.parent / 'step_00000007.json').read_text())
  assert (noted['step'], noted['last_checkpoint']) == (7, 6)
  assert noted['metrics']['loss'] == 'nan'
  assert noted['config'] == {'seed': 3, 'learning_rate': 0.1}
  # With the data mended, the same command goes on as if nothing had been.
  assert _same(_fit(tmp_path).state, whole[0].state)


def test_a_nan_is_found_one_step_late():
  drawn = []

  def poisoned(step: int):
    for batch in _batches(step, poison=3):
      drawn.append(batch)
      yield batch

  with pytest.raises(training.NonFiniteError, match='step 3 is not finite'):
    _fit(None, batches=poisoned, log_every=100)
  # Step 4 ran and the batch of step 5 was drawn before step 3 was looked at.
  assert len(drawn) == 5


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
  def overflow(state: Any, batch: Any, key: jax.Array):
    del batch, key
    w = state.params['w'] * 1e20
    state = state._replace(params={'w': w}, step=state.step + 1)
    return state, {'loss': jnp.array(0.0)}

  with pytest.raises(training.NonFiniteError, match=r'step 2 .*parameters'):
    _fit(
      tmp_path,
      step_fn=overflow,
      init_fn=lambda key: training.init_state(
        {'w': jnp.array(1.0)}, {}, optax.sgd(0.0)
      ),
      batches=None,
      save_every_seconds=0.0,
    )
  assert checkpoint.Checkpointer.open(tmp_path / 'checkpoints').steps() == [1]


def test_debug_nans_names_the_operation(tmp_path):
  def root(state: Any, batch: Any, key: jax.Array):
    del batch, key
    x = jnp.sqrt(1.0 - state.step.astype(jnp.float32))
    return state._replace(step=state.step + 1), {'x': x}

  with (
    jax.debug_nans(True),
    pytest.raises(FloatingPointError, match='sqrt') as error,
  ):
    _fit(None, step_fn=root, batches=None)
  assert not isinstance(error.value, training.NonFiniteError)


def test_the_first_lines_say_what_runs(tmp_path, capsys):
  _fit(tmp_path, 1)
  out, err = capsys.readouterr()
  assert out == ''
  lines = err.splitlines()
  assert lines[:7] == [
    'devices    1 x cpu (cpu)',
    'precision  float32, matmul precision default',
    'seed       3',
    'parameters 1',
    f'workdir    {tmp_path}',
    'start      fresh',
    'compiling ... (the first time this may take a minute)',
  ]
  assert lines[7].startswith('compiled in ')
  assert lines[-1].startswith('1 steps done in ')
  _fit(tmp_path, 2)
  assert 'start      resumed from step 1' in capsys.readouterr().err


def test_a_step_that_compiles_again_is_told(capsys):
  def batches(step: int):
    for i, batch in enumerate(_batches(step)):
      yield Batch(*(a[:4] for a in batch)) if i == 2 else batch

  _fit(None, 6, batches=batches)
  err = capsys.readouterr().err
  assert err.count('compiles again') == 1
  assert 'was x float32[8], y float32[8] and is x float32[4]' in err


def test_without_a_workdir_nothing_is_written(tmp_path, monkeypatch, whole):
  monkeypatch.chdir(tmp_path)
  result = _fit(None, hooks=[Hook(_slope, 4), _at(11, _interrupt)])
  assert result.status == 'interrupted'
  result = _fit(None, hooks=[Hook(_slope, 4)])
  assert result.metrics == whole[0].metrics
  assert os.listdir(tmp_path) == []


def test_mistakes_are_told_in_a_line_and_change_nothing(tmp_path):
  eight = sharding.make_mesh()
  (tmp_path / 'file').write_text('')
  cases: list[tuple[Any, dict[str, Any], str]] = [
    (tmp_path / 'new', {'num_steps': 0}, 'num_steps=0; at least 1'),
    (
      tmp_path / 'new',
      {'mesh': eight, 'batches': lambda s: _batches(s, size=12)},
      'batch size 12 cannot be split over 8 devices.*8 or 16',
    ),
    (tmp_path / 'file', {}, 'file is not a directory'),
    (tmp_path / 'file' / 'x' / 'y', {}, 'file is not a directory'),
    ('/proc/new', {}, '/proc.* (cannot be written|not writable)'),
  ]
  for workdir, settings, message in cases:
    with pytest.raises(UsageError, match=message) as error:
      _fit(workdir, **settings)
    assert '\n' not in str(error.value)
    assert os.listdir(tmp_path) == ['file']


def test_another_config_is_refused(tmp_path):
  _fit(tmp_path, 1)
  before = (tmp_path / 'metrics.jsonl').read_text()
  with pytest.raises(UsageError, match=r'learning_rate 0.1 -> 0.2'):
    _fit(tmp_path, 2, config=Config(learning_rate=0.2))
  assert (tmp_path / 'metrics.jsonl').read_text() == before
  assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 3


def test_a_workdir_belongs_to_one_run(tmp_path):
  def second() -> None:
    with pytest.raises(UsageError, match='in use by another run'):
      _fit(tmp_path, 2)

  result = _fit(tmp_path, 4, hooks=[_at(3, second)])
  assert result.status == 'done'
  assert [r['step'] for r in _records(tmp_path)] == [1, 2, 3, 4]


def test_all_devices_do_what_one_does(whole):
  eight = _fit(None, mesh=sharding.make_mesh())
  np.testing.assert_allclose(
    eight.state.params['w'], whole[0].state.params['w'], atol=1e-5
  )
  assert len(eight.state.params['w'].sharding.device_set) == 8


def test_a_part_of_the_state_may_be_split(tmp_path):
  class State(NamedTuple):
    lanes: jax.Array  # [8]
    ring: dict[str, jax.Array]  # [8, 2]
    params: jax.Array  # []
    step: jax.Array

  def step(state: State, batch: None, key: jax.Array):
    assert batch is None
    key = jax.random.fold_in(key, state.step)
    lanes = state.lanes + jax.random.normal(key, (8,))
    ring = {'x': state.ring['x'].at[:, state.step % 2].set(lanes)}
    params = state.params + lanes.mean()
    return State(lanes, ring, params, state.step + 1), {'mean': lanes.mean()}

  def init(key: jax.Array) -> State:
    lanes = jax.random.normal(key, (8,))
    ring = {'x': jnp.zeros((8, 2))}
    return State(lanes, ring, jnp.zeros(()), jnp.zeros((), jnp.int32))

  mesh = sharding.make_mesh()
  split, whole = sharding.split(mesh), sharding.replicated(mesh)

  def run(workdir, num_steps: int, **settings) -> Any:
    return _fit(
      workdir,
      num_steps,
      step_fn=step,
      init_fn=init,
      batches=None,
      **settings,
    ).state

  layout = {
    'mesh': mesh,
    'state_sharding': State(split, split, whole, whole),  # type: ignore
  }
  run(tmp_path, 3, **layout)
  state = run(tmp_path, 5, **layout)
  assert state.ring['x'].sharding.is_equivalent_to(split, 2)
  assert len(state.lanes.addressable_shards[0].data) == 1
  alone = run(None, 5)
  np.testing.assert_array_equal(state.lanes, alone.lanes)
  np.testing.assert_array_equal(state.ring['x'], alone.ring['x'])


def test_a_step_that_does_not_count_is_refused(tmp_path):
  def stuck(state: Any, batch: Any, key: jax.Array):
    new, metrics = _STEP(state, batch, key)
    return new._replace(step=state.step), metrics

  with pytest.raises(ValueError, match='counter of the state is 0'):
    _fit(tmp_path, 3, step_fn=stuck)


def test_batches_that_end_too_soon_are_refused():
  few = lambda step: itertools.islice(_batches(step), 2)  # noqa: E731
  assert _fit(None, 2, batches=few).step == 2
  with pytest.raises(ValueError, match='batches ended'):
    _fit(None, 3, batches=few)


def test_fit_runs_in_a_thread_where_signals_cannot_be_caught():
  results = []
  thread = threading.Thread(target=lambda: results.append(_fit(None, 2)))
  thread.start()
  thread.join()
  assert results[0].status == 'done'


def test_check_writable_makes_nothing(tmp_path):
  loop.check_writable(tmp_path / 'a' / 'b')
  assert os.listdir(tmp_path) == []
