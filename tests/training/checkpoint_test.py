"""Checkpoints: all comes back, nothing is lost, no damage goes unnoticed."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.training import checkpoint, sharding
from dl_lectures.training import logging as metrics_logging
from dl_lectures.types import UsageError


class State(NamedTuple):
  params: dict
  opt_state: tuple
  key: jax.Array
  step: jax.Array


def _state(step: int = 0) -> State:
  return State(
    params={
      'net/~/linear': {'w': jnp.arange(6.0).reshape(2, 3) + step},
      'net': {'~/linear': {'b': jnp.array([np.nan, -0.0, np.inf])}},
      'half': jnp.full((3,), 1 / 3, jnp.bfloat16),
      'board': jnp.arange(-4, 4, dtype=jnp.int8),
      'mask': jnp.array([True, False]),
      'nothing': jnp.zeros((0, 3), jnp.float16),
    },
    opt_state=(jnp.uint32(7), np.arange(3, dtype=np.int32), {}, None),
    key=jax.random.split(jax.random.key(step, impl='rbg'), 2),
    step=jnp.int32(step),
  )


def _bits(tree) -> list[tuple]:
  """Everything that makes two trees the same, bit for bit."""

  def leaf(x):
    dtype = str(x.dtype)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.random.key_data(x)
    return dtype, x.shape, np.asarray(x).tobytes()

  return [
    (jax.tree_util.keystr(path), *leaf(x))
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  ]


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'run' / 'checkpoints'


@contextlib.contextmanager
def _open(directory, keep=2):
  checkpointer = checkpoint.Checkpointer.open(directory, keep)
  with contextlib.closing(checkpointer):
    yield checkpointer


def _save(directory, *steps, keep=9):
  with _open(directory, keep) as checkpointer:
    for step in steps:
      checkpointer.save(step, _state(step))


def _found(checkpointer, abstract_state):
  found = checkpointer.restore(abstract_state)
  assert found is not None
  return found


def _restore(directory):
  with _open(directory) as checkpointer:
    return _found(checkpointer, _state())


def test_everything_comes_back_bit_for_bit(directory):
  state = _state(5)
  with _open(directory) as checkpointer:
    assert checkpointer.restore(state) is None
    checkpointer.save(5, state)
    step, restored = _found(checkpointer, jax.eval_shape(lambda: state))
  assert step == 5
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  assert _bits(restored) == _bits(state)
  draw = jax.vmap(jax.random.uniform)
  assert np.array_equal(draw(restored.key), draw(state.key))


def test_numpy_stays_numpy(directory):
  with _open(directory) as checkpointer:
    checkpointer.save(0, {'x': np.arange(3), 'y': np.float64(0.1)})
    _, restored = _found(checkpointer, {'x': np.arange(3), 'y': np.float64(0)})
  assert isinstance(restored['x'], np.ndarray)
  assert restored['x'].dtype == np.int64
  assert restored['y'].dtype == np.float64
  assert float(restored['y']) == 0.1


def test_a_state_donated_right_after_its_save_is_saved_as_it_was(directory):
  overwrite = jax.jit(lambda x: x + 1, donate_argnums=0)
  state = jnp.zeros(1 << 20)
  with _open(directory, keep=5) as checkpointer:
    for step in range(3):
      checkpointer.save(step, state)
      state = overwrite(state)
    jax.block_until_ready(state)
    checkpointer.wait()
    assert checkpointer.steps() == [0, 1, 2]
    for step in (2, 1, 0):
      found, restored = _found(checkpointer, jax.eval_shape(lambda: state))
      assert found == step
      assert np.array_equal(restored, np.full(1 << 20, step, np.float32))
      shutil.rmtree(directory / str(step))


def test_a_restored_state_may_be_donated(directory):
  mesh = sharding.make_mesh(8)
  state = jnp.arange(1024.0)
  abstract = jax.ShapeDtypeStruct(
    (1024,), jnp.float32, sharding=sharding.replicated(mesh)
  )
  with _open(directory) as checkpointer:
    checkpointer.save(1, state, wait=True)
    _, first = _found(checkpointer, abstract)
    after = jax.jit(lambda x: 2 * x, donate_argnums=0)(first)
    _, second = _found(checkpointer, abstract)
  assert first.is_deleted()
  assert np.array_equal(after, 2 * np.arange(1024.0))
  assert np.array_equal(second, np.arange(1024.0))


def test_saving_a_step_again_changes_nothing(directory):
  _save(directory, 3)
  before = {p: p.read_bytes() for p in directory.rglob('*') if p.is_file()}
  with _open(directory) as checkpointer:
    checkpointer.save(3, _state(8), wait=True)
  after = {p: p.read_bytes() for p in directory.rglob('*') if p.is_file()}
  assert after == before


def test_keeps_the_newest(directory):
  _save(directory, 1, 2, 10, 9, keep=2)
  assert sorted(os.listdir(directory)) == ['10', '9']
  with pytest.raises(UsageError, match='at least 1'):
    checkpoint.Checkpointer.open(directory, keep=0)


def test_a_relative_directory_is_this_one(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with _open('checkpoints') as checkpointer:
    monkeypatch.chdir('/')
    checkpointer.save(4, _state(4), wait=True)
  assert os.listdir(tmp_path / 'checkpoints') == ['4']


def test_restores_onto_any_mesh(directory):
  data = {
    'lanes': jnp.arange(48.0).reshape(16, 3),
    'keys': jax.random.split(jax.random.key(0), 16),
    'params': jnp.arange(5.0),
  }

  def layout(devices):
    mesh = sharding.make_mesh(devices)
    split, whole = sharding.split(mesh), sharding.replicated(mesh)
    return {'lanes': split, 'keys': split, 'params': whole}

  for saved_on, restored_on in [(8, 1), (1, 8), (8, 4), (2, 8)]:
    with _open(directory / f'{saved_on}{restored_on}') as checkpointer:
      checkpointer.save(1, jax.device_put(data, layout(saved_on)))
      want = layout(restored_on)
      abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        data,
        want,
      )
      _, restored = _found(checkpointer, abstract)
    assert _bits(restored) == _bits(data)
    for name, leaf in restored.items():
      assert leaf.sharding.is_equivalent_to(want[name], leaf.ndim)
      assert leaf.sharding.num_devices == restored_on


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda: {'w': jnp.zeros((2, 3), jnp.bfloat16)},
      r"\['w'\] is float32\[2, 3\] there and bfloat16\[2, 3\] here",
    ),
    (
      lambda: {'w': jnp.zeros((3, 2))},
      r'is float32\[2, 3\] there and float32\[3, 2\] here',
    ),
    (
      lambda: {'w': jnp.ones((2, 3)), 'v': jnp.ones(1)},
      r"\['v'\] is missing there",
    ),
    (
      lambda: {'v': jnp.ones(1)},
      r"\['v'\] is missing there; \['w'\] is unknown here",
    ),
    (lambda: {'w': jax.random.key(0)}, r'there and key<fry>\[\] here'),
  ],
  ids=['dtype', 'shape', 'missing', 'extra', 'key'],
)
def test_another_program_s_state_is_refused(directory, capfd, change, message):
  with _open(directory) as checkpointer:
    checkpointer.save(2, {'w': jnp.ones((2, 3))})
    with pytest.raises(UsageError, match=message) as refusal:
      checkpointer.restore(change())
  assert '\n' not in str(refusal.value)
  assert os.listdir(directory) == ['2']
  assert capfd.readouterr().err == ''


def test_what_is_no_array_is_refused_by_name(directory):
  with _open(directory) as checkpointer:
    for leaf in ('adam', 3, np.array(['x'])):
      with pytest.raises(TypeError, match=r"leaf \['x'\] is (str|int|ndarray)"):
        checkpointer.save(0, {'x': leaf})


# Damage.


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in directory.rglob('*') if p.is_file())


def _flip(path: pathlib.Path, rng: random.Random) -> None:
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(bytes(data))


def test_60_of_60_flipped_bits_are_noticed(directory, tmp_path, capfd):
  _save(directory, 1, 2)
  rng = random.Random(0)
  files = [p.relative_to(directory) for p in _files(directory / '2')]
  assert len(files) > 6
  noticed = 0
  for i in range(60):
    copy = tmp_path / f'{i}'
    shutil.copytree(directory, copy)
    # Every file in turn, the smallest as often as the largest.
    _flip(copy / files[i % len(files)], rng)
    step, restored = _restore(copy)
    error = capfd.readouterr().err
    assert step == 1
    assert _bits(restored) == _bits(_state(1))
    assert error.count('\n') == 1
    assert (
      f'2 is damaged ({files[i % len(files)].relative_to("2")}' in error
      or ('differs' in error or 'SHA256SUMS' in error)
    )
    assert sorted(os.listdir(copy)) == ['1', '2.corrupt']
    name = files[i % len(files)].relative_to('2')
    if name.name != 'SHA256SUMS':
      assert f'checkpoint 2 is damaged ({name} differs' in error
    noticed += 1
  assert noticed == 60


def _cut(path, size):
  with path.open('r+b') as file:
    file.truncate(size)


@pytest.mark.parametrize(
  'damage',
  [
    lambda d: _cut(max(_files(d / 'state'), key=lambda p: p.stat().st_size), 9),
    lambda d: _cut(d / 'SHA256SUMS', 0),
    lambda d: (d / 'SHA256SUMS').unlink(),
    lambda d: (d / 'leaves.0.json').unlink(),
    lambda d: shutil.rmtree(d / 'state'),
    lambda d: (shutil.rmtree(d), d.mkdir()),
    lambda d: (shutil.rmtree(d), d.mkdir(), (d / 'SHA256SUMS').touch()),
    lambda d: (shutil.rmtree(d), d.write_text('')),
  ],
  ids=[
    'cut',
    'no sums',
    'sums',
    'leaves',
    'state',
    'empty',
    'hollow',
    'a file',
  ],
)
def test_other_damage_falls_back_too(directory, capfd, damage):
  _save(directory, 1, 2)
  damage(directory / '2')
  step, restored = _restore(directory)
  error = capfd.readouterr().err
  assert step == 1
  assert _bits(restored) == _bits(_state(1))
  assert error.startswith('checkpoint 2 is damaged (')
  assert error.endswith('trying step 1\n')
  assert error.count('\n') == 1
  assert _restore(directory)[0] == 1
  assert capfd.readouterr().err == ''


def test_a_leaf_is_compared_with_what_was_in_memory(directory, capfd):
  """Files that agree with their sums, but not with the state that was saved."""
  _save(directory, 1, 2)
  shutil.rmtree(directory / '2' / 'state')
  shutil.copytree(directory / '1' / 'state', directory / '2' / 'state')
  sums = ''.join(
    f'{hashlib.sha256(p.read_bytes()).hexdigest()}  '
    f'{p.relative_to(directory / "2")}\n'
    for p in _files(directory / '2')
    if p.name != 'SHA256SUMS'
  )
  (directory / '2' / 'SHA256SUMS').write_text(sums)
  assert _restore(directory)[0] == 1
  assert 'differs from its sha256' in capfd.readouterr().err


def test_the_sums_are_those_of_sha256sum(directory):
  if shutil.which('sha256sum') is None:
    pytest.skip('no sha256sum here')
  _save(directory, 1)
  done = subprocess.run(
    ['sha256sum', '--strict', '--quiet', '-c', 'SHA256SUMS'],
    cwd=directory / '1',
    check=False,
  )
  assert done.returncode == 0


def test_with_nothing_intact_it_does_not_start_from_scratch(directory, capfd):
  _save(directory, 1, 2)
  for step in '12':
    (directory / step / 'leaves.0.json').unlink()
  for held in ('1.corrupt, 2.corrupt', '1.corrupt, 2.corrupt'):
    with pytest.raises(UsageError, match='no intact checkpoint in') as refusal:
      _restore(directory)
    assert held in str(refusal.value)
    assert '\n' not in str(refusal.value)
  lines = capfd.readouterr().err.splitlines()
  assert [line.split(' is ')[0] for line in lines] == [
    'checkpoint 2',
    'checkpoint 1',
  ]


def test_a_step_damaged_twice_leaves_one_corrupt(directory):
  _save(directory, 1, 2)
  for _ in range(2):
    (directory / '2' / 'SHA256SUMS').write_text('')
    assert _restore(directory)[0] == 1
    _save(directory, 2)
  assert sorted(os.listdir(directory)) == ['1', '2', '2.corrupt']
  assert _restore(directory)[0] == 2


# Others in the same directory, and failures.


def test_a_half_written_one_is_no_checkpoint_and_goes_at_the_next_save(
  directory,
):
  stale = directory / '7.tmp' / 'state'
  stale.mkdir(parents=True)
  with _open(directory) as checkpointer:
    assert checkpointer.restore(_state()) is None
  assert stale.exists(), 'reading changes nothing: its run may be alive'
  _save(directory, 1)
  assert os.listdir(directory) == ['1']


def test_a_run_that_goes_on_may_be_read(directory):
  with _open(directory) as run, _open(directory) as reader:
    for step in range(1, 5):
      run.save(step, _state(step), wait=True)
      assert _found(reader, _state())[0] == step
    assert reader.steps() == run.steps() == [3, 4]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    _open(tmp_path / 'file' / 'checkpoints') as checkpointer,
    pytest.raises(UsageError, match=r'cannot save into .*: Not a directory'),
  ):
    checkpointer.save(0, _state())


def test_a_write_that_failed_is_told_at_the_next_call(directory):
  checkpointer = checkpoint.Checkpointer.open(directory)
  checkpointer.save(1, _state(1), wait=True)
  shutil.rmtree(directory)
  checkpointer.save(2, _state(2))
  with pytest.raises(
    OSError, match='checkpoint 2 could not be written'
  ) as told:
    checkpointer.save(3, _state(3))
  assert '\n' not in str(told.value)
  checkpointer.close()


def test_quiet(directory, capfd):
  seen = []

  class Handler(logging.Handler):
    def emit(self, record):
      seen.append(record.getMessage())

  logger, handler = logging.getLogger('absl'), Handler()
  level = logger.level
  logger.addHandler(handler)
  logger.setLevel(logging.DEBUG)
  try:
    _save(directory, 1, 2, 3, keep=1)
    assert _restore(directory)[0] == 3
    logger.info('ours')
  finally:
    logger.removeHandler(handler)
    logger.setLevel(level)
  assert seen == ['ours']
  captured = capfd.readouterr()
  assert captured.out == ''
  assert captured.err == '' or captured.err.count('\n') == 1  # 'ours'


# Configurations.


@dataclasses.dataclass(kw_only=True)
class Config:
  seed: int = 0
  learning_rate: float = 1e-3
  widths: tuple[int, ...] = (8, 8)
  search: dict[str, int] = dataclasses.field(
    default_factory=lambda: {'simulations': 32, 'depth': 8}
  )


def test_a_run_goes_on_under_its_own_config_only(tmp_path):
  checkpoint.check_config(tmp_path, Config())
  record = dataclasses.asdict(Config())
  (tmp_path / 'config.json').write_text(json.dumps(record))
  checkpoint.check_config(tmp_path, Config())
  with pytest.raises(UsageError) as refusal:
    checkpoint.check_config(
      tmp_path,
      Config(seed=3, widths=(8,), search={'simulations': 64, 'depth': 8}),
    )
  message = str(refusal.value)
  assert (
    'seed 0 -> 3, widths [8, 8] -> [8], search.simulations 32 -> 64; '
  ) in message
  assert 'learning_rate' not in message
  assert '\n' not in message


def test_a_field_that_came_or_went_is_named(tmp_path):
  (tmp_path / 'config.json').write_text(
    '{"seed": 0, "momentum": 0.9, "widths": [8, 8], '
    '"search": {"simulations": 32, "depth": 8}}'
  )
  with pytest.raises(UsageError) as refusal:
    checkpoint.check_config(tmp_path, Config())
  assert "momentum 0.9 -> '(absent)'" in str(refusal.value)
  assert "learning_rate '(absent)' -> 0.001" in str(refusal.value)


# Kill -9. A nursery imports everything once and forks one life after another.


class Life(NamedTuple):
  resumed: int  # the step it found
  durable: int  # the last step of which it was told that it is on disk
  digest: str  # of its state, if it reached the end
  half_written: bool  # what it left on disk


@pytest.mark.parametrize(
  'kills', [20, pytest.param(200, marks=pytest.mark.slow)]
)
def test_kills_at_random_moments_lose_nothing(tmp_path, kills):
  done = subprocess.run(
    [sys.executable, __file__, str(tmp_path / 'run'), str(kills)],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    timeout=300 + 10 * kills,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  *lives, last, reference = [
    Life(*life) for life in json.loads(done.stdout.splitlines()[-1])
  ]
  assert len(lives) == kills
  assert last.digest == reference.digest != ''
  durable = 0
  for life in [*lives, last]:
    if life.resumed >= 0:  # else it was killed before it had looked
      assert life.resumed >= durable
    durable = max(durable, life.durable)
  assert sum(life.durable > life.resumed for life in lives) >= kills / 5
  assert sum(life.half_written for life in lives) >= kills / 5
  # Two are kept, the temporary directories of the killed are gone.
  end = last.durable
  checkpoints = tmp_path / 'run' / 'checkpoints'
  assert {*os.listdir(checkpoints)} == {f'{end - 1}', f'{end}'}
  records = metrics_logging.read(str(tmp_path / 'run'))
  assert [record['step'] for record in records] == list(range(1, end + 1))


def _live(workdir: pathlib.Path | None, end: int | None, tell) -> None:
  @jax.jit
  def init():
    return {
      'w': jnp.zeros((256, 256)),
      'key': jax.random.key(0),
      'step': jnp.int32(0),
    }

  @functools.partial(jax.jit, donate_argnums=0)
  def advance(state):
    draw = jax.random.fold_in(state['key'], state['step'])
    w = 0.9 * state['w'] + jax.random.normal(draw, state['w'].shape)
    return {'w': w, 'key': state['key'], 'step': state['step'] + 1}, jnp.sum(w)

  state, step = init(), 0
  if workdir is None:
    for _ in range(end or 0):
      state, _ = advance(state)
  else:
    checkpointer = checkpoint.Checkpointer.open(workdir / 'checkpoints')
    found = checkpointer.restore(state)
    if found is not None:
      step, state = found
    tell(f'resumed {step}')
    writer = metrics_logging.MetricsWriter(str(workdir), step)
    while end is None or step < end:
      (state, total), step = advance(state), step + 1
      writer.write(step, {'total': total})
      writer.sync()
      checkpointer.save(step, state)
      # This one is on its way, so the one before has arrived.
      tell(f'durable {step - 1}')
    checkpointer.close()
    writer.close()
    tell(f'durable {step}')
  tell(f'digest {hashlib.sha256(repr(_bits(state)).encode()).hexdigest()}')


def _fork(
  workdir: pathlib.Path | None, end: int | None, rng: random.Random | None
) -> Life:
  """One life; with `rng` it is killed at a random moment."""
  out, into = os.pipe()
  child = os.fork()
  if child == 0:
    try:
      _live(workdir, end, lambda text: os.write(into, f'{text}\n'.encode()))
    except BaseException:
      traceback.print_exc()
    finally:
      os._exit(0)
  os.close(into)
  told = []
  with os.fdopen(out) as lines:
    if rng is not None:
      # Counted from what it has done, a busy machine delays it like the kill.
      told += itertools.islice(lines, rng.randrange(4))
      time.sleep(rng.uniform(0, 0.1))
      os.kill(child, signal.SIGKILL)
    told += lines
  os.waitpid(child, 0)
  said = dict(line.split() for line in told)
  resumed = int(said.get('resumed', -1))
  return Life(
    resumed=resumed,
    durable=int(said.get('durable', resumed)),
    digest=said.get('digest', ''),
    half_written=workdir is not None and any(workdir.rglob('*.tmp')),
  )


def _nursery(workdir: pathlib.Path, kills: int) -> None:
  import tensorboardX  # noqa: F401 - once for all lives

  workdir.mkdir()
  rng = random.Random(kills)
  lives = [_fork(workdir, None, rng) for _ in range(kills)]
  end = max(life.durable for life in lives) + 5
  lives += [_fork(workdir, end, None), _fork(None, end, None)]
  print(json.dumps(lives))


if __name__ == '__main__':
  _nursery(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
