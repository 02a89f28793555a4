"""What every test stands on: eight CPU devices and no silent broadcasting.

Warnings are turned into errors in pyproject.toml, where pytest applies them.
"""

import gc
import os
import resource
import signal

# Tests are small, so most of their time is XLA's: it optimises no more than it
# must, and its older emitters of loops make two programs in the time of one.
# Here, before jax is imported, so that programs they start do the same.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')

import jax
import pytest

from dl_lectures.training import host

# A shell that runs tests in the background ignores Ctrl-C, and programs that
# they start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before the first use of a device: neither can be changed afterwards. A test
# says what the CPU does, also on a machine with an accelerator.
jax.config.update('jax_platforms', os.environ.get('JAX_PLATFORMS', 'cpu'))
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
host.tune_allocator()
host.enable_compile_cache()

# Of a process of tests. Compiled programs are kept for as long as it lives, and
# two processes of all tests would take ten gigabytes.
_MOST_BYTES = 1_500_000_000


@pytest.fixture(scope='module', autouse=True)
def few_programs():
  """Forgets compiled programs after a file of tests, where they are many."""
  yield
  if _resident_bytes() > _MOST_BYTES:
    jax.clear_caches()
    gc.collect()


def _resident_bytes() -> int:
  try:
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * resource.getpagesize()
  except OSError:  # not Linux: the most it ever was
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
