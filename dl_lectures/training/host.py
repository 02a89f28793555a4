"""The host's three speed traps: page faults, idle cores and compile times.

These functions are for programs, not for libraries: a binary calls them before
JAX computes anything, because they settle how its threads get memory, on what
they run and whether its first program is looked up.

>>> tune_allocator() in (True, False)
True
"""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import platform
import warnings
import zlib

import jax
import jaxlib

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_SETTINGS = {
  # One heap for all threads. A thread's own heaps end at 64 MB, and what does
  # not fit is mapped anew at every call, whatever the thresholds.
  _M_ARENA_MAX: 1,
  # Blocks up to 1 GiB come from the heap ...
  _M_MMAP_THRESHOLD: 1 << 30,
  # ... which grows by 64 MiB and does not shrink before 2 GiB lie free.
  _M_TOP_PAD: 64 << 20,
  _M_TRIM_THRESHOLD: (1 << 31) - 1,
}


def tune_allocator() -> bool:
  """Keeps freed memory in the process, for XLA:CPU's temporaries.

  XLA:CPU allocates its temporaries at every call, and glibc gives blocks of
  this size back to the system at once: every call then pays the page faults
  again, up to half of its time. Calling it twice is harmless; where the C
  library is not glibc nothing happens.

  Returns:
    Whether the C library took the settings.
  """
  if platform.libc_ver()[0] != 'glibc':
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):
    return False
  return all([mallopt(*setting) == 1 for setting in _SETTINGS.items()])


def one_device_per_core(divided: int) -> None:
  """Makes the CPU several devices, for programs that divide their work.

  XLA:CPU offers the pieces of each operation to all cores, and where operations
  are small (a search, a network for a small board) handing them over costs what
  it gains: two cores are then hardly faster than one. As a device of its own
  each core has work that it need not share. There are 8 devices at most, and
  what the user has set in the environment stays.

  Args:
    divided: the devices have to divide this, the lanes of self-play.

  >>> one_device_per_core(divided=3)  # cannot be halved: all stays as it is
  """
  given = ('JAX_NUM_CPU_DEVICES', 'JAX_NUM_PROCESSES', 'PJRT_NPROC')
  flags = os.environ.get('XLA_FLAGS', '')
  if any(name in os.environ for name in given) or 'device_count' in flags:
    return
  cores = _cores()
  n = 1
  while 2 * n <= min(cores, 8) and divided % (2 * n) == 0:
    n *= 2
  if n > 1:
    jax.config.update('jax_num_cpu_devices', n)
    os.environ['PJRT_NPROC'] = '1'  # threads of each device


def _cores() -> int:
  """The cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def enable_compile_cache() -> pathlib.Path | None:
  """Keeps compiled programs in the user's cache directory.

  Under $XDG_CACHE_HOME or ~/.cache, with one directory per processor, number of
  threads and version of JAX, since compiled code may use any instruction of the
  machine it was made on. Its owner alone may enter it, because loading a
  program from it runs it. A directory that the user has given to JAX is left
  alone.

  Returns:
    The directory; None where none could be made, and then nothing is cached.
  """
  if given := jax.config.values['jax_compilation_cache_dir']:
    return pathlib.Path(given)
  try:
    directory = _cache_home() / 'dl_lectures' / 'xla' / _machine()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # No getuid on Windows, where every st_uid is 0.
    if directory.stat().st_uid != getattr(os, 'getuid', int)():
      return None
    directory.chmod(0o700)
  except (OSError, RuntimeError):
    return None
  with contextlib.suppress(OSError):
    _drop_torn_entries(directory)
  # Another process may be writing what this one reads. It is compiled then.
  warnings.filterwarnings(
    'ignore', 'Error (reading|writing) persistent compilation cache'
  )
  jax.config.update('jax_compilation_cache_dir', str(directory))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
  return directory


def _cache_home() -> pathlib.Path:
  given = pathlib.Path(os.environ.get('XDG_CACHE_HOME', ''))
  # The XDG specification: a relative path is to be ignored.
  return given if given.is_absolute() else pathlib.Path.home() / '.cache'


def _drop_torn_entries(directory: pathlib.Path) -> None:
  """Removes what a kill or a full disk left half written.

  JAX neither writes an entry at once nor replaces one that it cannot read: the
  program would be compiled at every start. What was whole once is not read
  again: the stamp's time says what has been seen.
  """
  stamp = directory / 'checked'
  seen = stamp.stat().st_mtime if stamp.exists() else 0.0
  # Before the entries are read: one that is written meanwhile is for next time.
  stamp.touch()
  for entry in directory.glob('*-cache'):
    if entry.stat().st_mtime < seen:
      continue
    content = entry.read_bytes()
    if content and content[:1] != b'x':
      continue  # Compressed by zstandard, which JAX prefers where installed.
    try:
      zlib.decompress(content)
    except zlib.error:
      entry.unlink(missing_ok=True)


def _machine() -> str:
  """Names what compiled code depends on: processor, threads, and compiler."""
  # XLA:CPU cuts operations up for as many threads as it has when it compiles,
  # and JAX does not tell such programs apart.
  threads = os.environ.get('PJRT_NPROC') or str(_cores())
  parts = {platform.machine(), platform.processor(), f'threads {threads}'}
  try:
    with open('/proc/cpuinfo') as lines:
      for line in lines:
        # 'flags' and 'model name' on x86, the others on Arm.
        if line.startswith(('flags', 'model name', 'Features', 'CPU ')):
          parts.add(line)
  except OSError:
    pass
  digest = hashlib.sha256(''.join(sorted(parts)).encode()).hexdigest()
  return f'jax-{jax.__version__}-{jaxlib.__version__}-{digest[:16]}'
