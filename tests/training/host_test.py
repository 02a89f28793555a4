import json
import os
import pathlib
import platform
import subprocess
import sys
import warnings
import zlib

import jax
import pytest

from dl_lectures.training import host

ROOT = pathlib.Path(__file__).parents[2]


# In a program of its own, as `tune_allocator` is meant to be called: glibc
# counts its heaps at the first thread that wants one, and pytest has had those.
FAULTS = """
import ctypes, resource, threading
from dl_lectures.training import host

assert host.tune_allocator()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size, faults = 96 << 20, []

def compute():
  for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    ctypes.memset(block, 1, size)
    libc.free(block)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    faults.append(after - before)

thread = threading.Thread(target=compute)
thread.start()
thread.join()
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs glibc')
def test_freed_memory_is_not_faulted_in_again_by_a_thread():
  done = subprocess.run(
    [sys.executable, '-c', FAULTS],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  # A page has 4 kB: 24,576 faults a round, if the block were mapped anew.
  assert int(done.stdout) < 1000


DEVICES = """
import os, sys
cores, divided = map(int, sys.argv[1:])
os.sched_getaffinity = lambda pid: set(range(cores))
import jax
from dl_lectures.training import host
host.one_device_per_core(divided)
print(jax.device_count(), os.environ.get('PJRT_NPROC'))
"""


@pytest.mark.parametrize(
  ('cores', 'divided', 'given', 'expected'),
  [
    (1, 128, {}, '1 None'),
    (7, 128, {}, '4 1'),
    (8, 12, {}, '4 1'),
    (8, 128, {'JAX_NUM_CPU_DEVICES': '3'}, '3 None'),
  ],
)
def test_cores_become_devices(cores, divided, given, expected):
  clean = {
    name: value
    for name, value in os.environ.items()
    if name not in ('JAX_NUM_CPU_DEVICES', 'PJRT_NPROC', 'XLA_FLAGS')
  }
  done = subprocess.run(
    [sys.executable, '-c', DEVICES, str(cores), str(divided)],
    cwd=ROOT,
    env={**clean, 'JAX_PLATFORMS': 'cpu', **given},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == expected


def test_tuning_twice_is_harmless():
  assert host.tune_allocator() == host.tune_allocator()


def test_other_c_libraries_are_left_alone(monkeypatch):
  monkeypatch.setattr(host.platform, 'libc_ver', lambda: ('', ''))
  assert host.tune_allocator() is False


@pytest.fixture
def no_cache():
  """JAX as it is before a cache is chosen; the suite's own cache afterwards."""
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: jax.config.values[name] for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  with warnings.catch_warnings():
    yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_the_cache_is_the_users_alone(no_cache, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  directory = host.enable_compile_cache()
  assert directory is not None
  assert directory.parent == tmp_path / 'dl_lectures' / 'xla'
  assert directory.stat().st_mode & 0o777 == 0o700
  assert jax.config.values['jax_compilation_cache_dir'] == str(directory)
  directory.chmod(0o777)
  jax.config.update('jax_compilation_cache_dir', None)
  assert host.enable_compile_cache() == directory
  assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('given', ['', 'relative'])
def test_without_an_absolute_cache_home_it_is_in_the_home(
  no_cache, tmp_path, monkeypatch, given
):
  monkeypatch.setenv('XDG_CACHE_HOME', given)
  monkeypatch.setenv('HOME', str(tmp_path))
  directory = host.enable_compile_cache()
  assert directory is not None
  assert directory.parent == tmp_path / '.cache' / 'dl_lectures' / 'xla'


def test_without_a_directory_nothing_is_cached(no_cache, tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  assert host.enable_compile_cache() is None
  assert jax.config.values['jax_compilation_cache_dir'] is None


@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='needs users')
def test_another_users_directory_is_not_trusted(
  no_cache, tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert host.enable_compile_cache() is not None
  jax.config.update('jax_compilation_cache_dir', None)
  someone = os.getuid() + 1
  monkeypatch.setattr(os, 'getuid', lambda: someone)
  assert host.enable_compile_cache() is None


def test_a_cache_given_to_jax_stays(no_cache, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'given'))
  assert host.enable_compile_cache() == tmp_path / 'given'
  assert not (tmp_path / 'dl_lectures').exists()


def test_processors_versions_and_threads_do_not_share(monkeypatch):
  here = host._machine()
  monkeypatch.setattr(host.platform, 'machine', lambda: 'another')
  elsewhere = host._machine()
  monkeypatch.setattr(jax, '__version__', '99')
  later = host._machine()
  monkeypatch.setenv('PJRT_NPROC', '77')
  assert len({here, elsewhere, later, host._machine()}) == 4


def test_torn_entries_are_removed(no_cache, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  directory = host.enable_compile_cache()
  assert directory is not None
  whole = zlib.compress(bytes(1000))
  entries = {
    'whole-cache': whole,
    'torn-cache': whole[:-3],
    'empty-cache': b'',
    'zstandard-cache': b'(\xb5/\xfd torn or not',
    'other': b'',
  }
  for name, content in entries.items():
    (directory / name).write_bytes(content)
  jax.config.update('jax_compilation_cache_dir', None)
  host.enable_compile_cache()
  assert {path.name for path in directory.iterdir()} == {
    'whole-cache',
    'zstandard-cache',
    'other',
    'checked',
  }


_PROGRAM = """
import json, hashlib
from dl_lectures.training import host
host.tune_allocator()
host.enable_compile_cache()
import jax, jax.numpy as jnp, numpy as np
from dl_lectures import nets
hits = []
jax.monitoring.register_event_listener(
  lambda name, **_: hits.append(name) if name.endswith('cache_hits') else None)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
@jax.jit
def train(kernel):
  loss = lambda k: jnp.sum(jnp.tanh(nets.convolve(jnp.sin(kernel), k)) ** 2)
  step = lambda k, _: (k - 0.1 * jax.grad(loss)(k), None)
  return jax.lax.scan(step, kernel, length=5)[0]
kernel = train(np.linspace(-1, 1, 3 * 3 * 4 * 4, dtype=np.float32).reshape(
  3, 3, 4, 4))
print(json.dumps([hashlib.sha256(np.asarray(kernel)).hexdigest(), len(hits)]))
"""


def test_a_loaded_program_gives_the_same_bits_in_silence(tmp_path):
  environment = {
    **os.environ,
    'XDG_CACHE_HOME': str(tmp_path),
    'PYTHONPATH': str(ROOT),
    'JAX_PLATFORMS': 'cpu',
  }
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)

  def run():
    done = subprocess.run(
      [sys.executable, '-W', 'error', '-c', _PROGRAM],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    return json.loads(done.stdout)

  digest, hits = run()
  assert hits == 0
  assert run() == [digest, 1]
