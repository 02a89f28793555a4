"""Two processes of two devices each, on this machine: as one, and as ever.

Run as a program this file is what the processes run.
"""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dl_lectures import training
from dl_lectures.training import checkpoint, launch, sharding

STEPS, STOP, DEATH = 8, 4, 6
ADAM = optax.adam(1e-2)


class State(NamedTuple):  # of arrays, or of their shardings
  params: Any  # [4]
  opt_state: Any
  lanes: Any  # [8, 3], split over the devices
  keys: Any  # [8] keys, split over the devices
  step: Any  # [] int32


@dataclasses.dataclass(kw_only=True)
class Config:
  seed: int = 0


def _init(key):
  params = jax.random.normal(key, (4,))
  return State(
    params,
    ADAM.init(params),
    jnp.zeros((8, 3)),
    jax.random.split(key, 8),
    jnp.int32(0),
  )


def _loss(params, x):
  return jnp.mean(jnp.tanh(x @ params) ** 2)


def _step(state, batch, key):
  loss, grads = jax.value_and_grad(_loss)(state.params, batch)
  updates, opt_state = ADAM.update(grads, state.opt_state, state.params)
  keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.step)
  noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
  state = State(
    optax.apply_updates(state.params, updates),
    opt_state,
    state.lanes / 2 + noise,
    state.keys,
    state.step + 1,
  )
  return state, {'loss': loss}


def _batches(step):
  while True:
    yield np.random.default_rng(step).normal(size=(8, 4)).astype(np.float32)
    step += 1


def _layout(mesh):
  whole, split = sharding.replicated(mesh), sharding.split(mesh)
  return State(whole, whole, split, split, whole)


def _fit(workdir, num_steps, mesh, hooks=(), save_every_seconds=3600.0):
  return training.fit(
    _step,
    _init,
    config=Config(),
    workdir=workdir,
    num_steps=num_steps,
    batches=_batches,
    hooks=hooks,
    mesh=mesh,
    state_sharding=_layout(mesh),
    save_every_seconds=save_every_seconds,
  )


def _work(root: pathlib.Path, task: str) -> None:
  sharding.initialize_distributed(initialization_timeout=30)
  assert jax.process_count() == 2
  assert jax.device_count() == 4
  mesh = sharding.make_mesh()

  def die(step, state):
    if step == DEATH and jax.process_index() == 1:
      os.kill(os.getpid(), signal.SIGKILL)

  if task == 'begin':
    _fit(root / 'whole', STEPS, mesh)
    _fit(root / 'stopped', STOP, mesh)
    hooks = [training.Hook(die, every=1)]
    _fit(root / 'died', STEPS, mesh, hooks, save_every_seconds=0.0)
  else:
    _fit(root / 'stopped', STEPS, mesh)
    _fit(root / 'died', STEPS, mesh)


ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'JAX_NUM_CPU_DEVICES': '2',
  'PYTHONPATH': os.pathsep.join(sys.path),
}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return tmp_path_factory.mktemp('multiprocess')


def _launch(root, task):
  return subprocess.run(
    [
      *(sys.executable, '-m', 'dl_lectures.training.launch', '2'),
      *(sys.executable, __file__, str(root), task),
    ],
    env={**os.environ, **ENVIRONMENT},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


@pytest.fixture(scope='module')
def begun(root):
  """Three runs, of which the last ends with the death of a process."""
  return _launch(root, 'begin')


@pytest.fixture(scope='module')
def resumed(root, begun):
  """The runs that did not end, gone on with; one from a damaged checkpoint."""
  leaves = root / 'died' / 'checkpoints' / f'{DEATH - 1}' / 'leaves.1.json'
  leaves.write_text(leaves.read_text().replace('float32', 'float64', 1))
  return _launch(root, 'resume')


def _saved(workdir, devices=4):
  mesh = sharding.make_mesh(devices)
  abstract = jax.tree.map(
    lambda sharding, tree: jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    ),
    _layout(mesh),
    jax.eval_shape(_init, jax.random.key(0)),
  )
  checkpointer = checkpoint.Checkpointer.open(workdir / 'checkpoints')
  found = checkpointer.restore(abstract)
  assert found is not None
  step, state = found
  return step, state._replace(keys=jax.random.key_data(state.keys))


def _equal(a, b):
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_two_processes_do_what_one_does(begun, root, tmp_path):
  step, two = _saved(root / 'whole')
  one = _fit(tmp_path, STEPS, sharding.make_mesh(4)).state
  assert step == STEPS
  # Nothing is summed over devices in these: equal bit for bit.
  assert np.array_equal(two.lanes, one.lanes)
  assert np.array_equal(two.keys, jax.random.key_data(one.keys))
  np.testing.assert_allclose(two.params, one.params, rtol=0, atol=1e-6)
  assert not _equal(two.params, _init(jax.random.key(0)).params)


def test_what_two_processes_saved_one_reads_on_any_number_of_devices(
  begun, root
):
  step, on_four = _saved(root / 'stopped')
  assert step == STOP
  for devices in (1, 8):
    assert _equal(_saved(root / 'stopped', devices), (step, on_four))


def test_a_killed_peer_is_one_line_and_no_trace(begun):
  assert begun.returncode == 128 + signal.SIGKILL
  assert begun.stderr.endswith(
    'process 1 of 2 was killed by SIGKILL; the others were stopped. '
    'The same command goes on from the last checkpoint\n'
  )
  assert 'Traceback' not in begun.stderr


def test_stopped_and_resumed_is_bit_identical(resumed, root):
  assert resumed.returncode == 0, resumed.stderr
  whole = _saved(root / 'whole')
  assert whole[0] == STEPS
  assert _equal(_saved(root / 'stopped'), whole)


def test_after_a_death_and_a_damaged_checkpoint_too(resumed, root):
  assert resumed.stderr.count('is damaged') == 1, 'one process tells it'
  corrupt = root / 'died' / 'checkpoints' / f'{DEATH - 1}.corrupt'
  assert corrupt.is_dir(), 'it went on from the checkpoint before'
  assert _equal(_saved(root / 'died'), _saved(root / 'whole'))
  records = training.logging.read(str(root / 'died'))
  assert [record['step'] for record in records] == list(range(1, STEPS + 1))


LONELY = f"""
import os
from dl_lectures.training import sharding
from dl_lectures.types import UsageError
try:
  sharding.initialize_distributed()
except UsageError as error:
  print(error, flush=True)
os.environ |= {{
  'JAX_COORDINATOR_ADDRESS': '127.0.0.1:{launch.free_port()}',
  'JAX_NUM_PROCESSES': '2',
  'JAX_PROCESS_ID': '0',
}}
sharding.initialize_distributed(initialization_timeout=2)
"""


def test_without_a_cluster_or_without_the_others_it_says_so():
  done = subprocess.run(
    [sys.executable, '-c', LONELY],
    env={**os.environ, **ENVIRONMENT},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert done.returncode != 0
  assert done.stdout.startswith('no cluster found (Slurm,')
  assert done.stdout.count('\n') == 1
  assert 'waiting for the other processes (2 in all, at 127.' in done.stderr


def test_a_process_that_fails_at_its_start_is_one_line():
  command = [sys.executable, '-c', 'import os; os._exit(3)']
  with pytest.raises(launch.ProcessDiedError, match=r'ended with exit code 3'):
    launch.launch(command, 2, ENVIRONMENT)


def test_the_command_line_says_the_line_and_nothing_else(monkeypatch, capfd):
  program = [sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)']
  monkeypatch.setattr(sys, 'argv', ['launch', '2', *program])
  assert launch.main() == 137
  captured = capfd.readouterr()
  assert captured.out == ''
  assert captured.err.count('\n') == 1
  assert 'was killed by SIGKILL' in captured.err


if __name__ == '__main__':
  _work(pathlib.Path(sys.argv[1]), sys.argv[2])
