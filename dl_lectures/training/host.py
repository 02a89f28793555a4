"""The host's two speed traps: page faults and compile times.

Both functions are for programs, not for libraries: a binary calls them before
JAX computes anything.

>>> tune_allocator()
True
"""

import ctypes
import hashlib
import os
import pathlib
import platform

import jax
import jaxlib

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def tune_allocator() -> bool:
  """Keeps freed memory in the process, for XLA:CPU's temporaries.

  XLA:CPU allocates its temporaries at every call, and glibc gives blocks of
  this size back to the system at once: every call then pays the page faults
  again. Harmless to call twice; nothing happens where the C library is not
  glibc.

  Returns:
    Whether the C library took the settings.
  """
  if platform.libc_ver()[0] != 'glibc':
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):
    return False
  settings = {
    # One heap for all threads: a thread's own heaps are limited to 64 MB, and
    # what does not fit is mapped anew at every call, whatever the thresholds.
    _M_ARENA_MAX: 1,
    _M_MMAP_THRESHOLD: 1 << 30,
    _M_TRIM_THRESHOLD: (1 << 31) - 1,
    _M_TOP_PAD: 64 << 20,
  }
  return all([mallopt(*setting) == 1 for setting in settings.items()])


def enable_compile_cache() -> pathlib.Path | None:
  """Keeps compiled programs in the user's cache directory.

  One directory per processor and version of jaxlib, since compiled code may
  use any instruction of the machine it was made on. It is readable by its
  owner alone, because loading a program from it runs it.

  Returns:
    The directory; None where none could be made, and then nothing is cached.
  """
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  directory = pathlib.Path(home) / 'dl_lectures' / 'xla' / _machine()
  try:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
  except OSError:
    return None
  jax.config.update('jax_compilation_cache_dir', str(directory))
  return directory


def _machine() -> str:
  """Names what compiled code depends on."""
  features = [platform.machine(), jax.__version__, jaxlib.__version__]
  try:
    with open('/proc/cpuinfo') as lines:
      features += [
        line for line in lines if line.startswith(('model name', 'flags'))
      ]
  except OSError:
    features.append(platform.processor())
  return hashlib.sha256('\n'.join(sorted(set(features))).encode()).hexdigest()[
    :16
  ]
