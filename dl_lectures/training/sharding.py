"""Many devices: one mesh, two shardings, one map over devices.

A learner is `jax.jit` with its state `replicated` and its batch `split`: the
loss code is the one-device code, and XLA sums the gradients. Loops whose
devices must not talk to each other (search, self-play, rollouts) go through
`per_device`. What `jax.pmap` did, these two do.
"""

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dl_lectures.types import UsageError

AXIS = 'data'


def make_mesh(num_devices: int | None = None) -> Mesh:
  """A mesh of one axis, 'data', over the first devices of all processes.

  Its axis is Auto: on the Explicit axes that `jax.make_mesh` makes by default
  Haiku's Embed and LSTM raise.

  Args:
    num_devices: how many; all of them if None.

  Returns:
    The mesh.

  Raises:
    UsageError: if there are not as many devices.

  >>> make_mesh(1).shape['data']
  1
  """
  devices = jax.devices()
  n = len(devices) if num_devices is None else num_devices
  if not 1 <= n <= len(devices):
    raise UsageError(
      f'{n} devices asked for; 1 to {len(devices)} are possible '
      f'({devices[0].platform})'
    )
  return jax.make_mesh(
    (n,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:n]
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole: parameters, states."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  """The sharding of what is divided over the devices on axis 0: batches."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


def check_divides(what: str, n: int, mesh: Mesh) -> None:
  """Refuses a batch that the devices do not divide, naming what they do.

  Args:
    what: its name, as the user knows it ('batch_size').
    n: its size.
    mesh: the devices.

  Raises:
    UsageError: if `n` is not a positive multiple of the mesh's size.

  >>> check_divides('batch_size', 6, make_mesh(1))
  """
  devices = mesh.size
  if n > 0 and n % devices == 0:
    return
  below = max(n, 0) // devices * devices
  near = [size for size in (below, below + devices) if size > 0]
  raise UsageError(
    f'{what} {n} cannot be split over {devices} devices; '
    f'possible are the multiples of {devices}, such as '
    + ' or '.join(str(size) for size in near)
  )


def per_device(
  fn: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
  """Runs `fn` on every device, each on its own part, none hearing the others.

  A tree search or a rollout left to `jax.jit` gets collectives inside its
  loops, and is many times slower than on one device. `fn` draws nothing from
  a key of its own device: split the keys outside and shard them, and n devices
  do what one does.

  A gradient that is averaged inside must be `pmean(grad(loss))` here. In a
  plain `jax.shard_map`, which tracks what varies over devices, that same line
  is n times too large.

  Args:
    fn: gets each argument's part on this device, returns its part.
    mesh: the devices.
    in_specs: per argument a PartitionSpec, or a tree prefix of them:
      `PartitionSpec('data')` for what is split on axis 0, `PartitionSpec()`
      for what every device gets whole.
    out_specs: the same for the results. What `PartitionSpec()` names must be
      equal on every device; nothing checks it.

  Returns:
    The function of whole arrays; to be jitted by its caller.

  >>> import jax.numpy as jnp
  >>> double = per_device(lambda x: 2 * x, make_mesh(1),
  ...                     PartitionSpec('data'), PartitionSpec('data'))
  >>> jax.jit(double)(jnp.array([1, 2])).tolist()
  [2, 4]
  """
  return jax.shard_map(
    fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
  )


def initialize_distributed(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  initialization_timeout: int = 300,
  heartbeat_timeout: int = 100,
) -> None:
  """Joins this process to the others; call it before anything else of JAX.

  Under Slurm, Open MPI, GKE, on a TPU pod and under `training.launch` it finds
  out everything by itself. Every process then runs the same program. One that
  waits long for the others says so. A peer that dies ends the others when its
  heartbeat has been missed, from within C++ and with exit code 134: start all
  of them again, and they go on from the last checkpoint.

  Args:
    coordinator_address: 'host:port' of process 0.
    num_processes: how many processes there are.
    process_id: which of them this is.
    initialization_timeout: seconds to wait for all of them to come.
    heartbeat_timeout: seconds after which a silent peer counts as dead.

  Raises:
    UsageError: if no cluster is found and none is described.
  """
  if jax.distributed.is_initialized():
    return
  if num_processes is None and 'JAX_NUM_PROCESSES' in os.environ:
    coordinator_address = os.environ['JAX_COORDINATOR_ADDRESS']
    num_processes = int(os.environ['JAX_NUM_PROCESSES'])
    process_id = int(os.environ['JAX_PROCESS_ID'])
  waiting = threading.Timer(
    min(10, initialization_timeout / 2),
    print,
    (
      f'waiting for the other processes ({num_processes or "?"} in all, at '
      f'{coordinator_address or "the address that the cluster gave"}); '
      f'giving up after {initialization_timeout} s',
    ),
    {'file': sys.stderr, 'flush': True},
  )
  waiting.daemon = True
  waiting.start()
  try:
    jax.distributed.initialize(
      coordinator_address=coordinator_address,
      num_processes=num_processes,
      process_id=process_id,
      initialization_timeout=initialization_timeout,
      heartbeat_timeout_seconds=heartbeat_timeout,
    )
  except ValueError as error:
    raise UsageError(
      'no cluster found (Slurm, Open MPI, GKE and TPU pods are known); '
      'give coordinator_address, num_processes and process_id'
    ) from error
  finally:
    waiting.cancel()
