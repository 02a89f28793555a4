"""Checkpoints that are whole or absent, and that notice every flipped bit.

A checkpoint of step 12 is the directory `12`, made as `12.tmp` and renamed
when it is complete, so that a kill at any moment leaves the ones before it:

    12/state/        the arrays, written by orbax
    12/leaves.0.json each leaf's dtype, shape and the sha256 of its bytes
    12/SHA256SUMS    the sha256 of every file (`sha256sum -c SHA256SUMS`)

The files' sums are compared before anything is read, the leaves' after it: the
first notice what a disk did, the second what happened between the program's
memory and the file. A state is saved whole, whatever the number of devices, and
comes back onto any other.

With several processes the directory must be one that all of them see.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from dl_lectures.types import UsageError

_SUMS = 'SHA256SUMS'
_Config = TypeVar('_Config')


class Checkpointer:
  """The checkpoints of one run.

  Opening a directory to read changes nothing in it, so a run may be looked at
  while it goes on. The first `save` removes what a killed run left unfinished,
  so only one run may save into a directory at a time.

  >>> import tempfile
  >>> state = {'w': jnp.ones((2, 3)), 'key': jax.random.key(0)}
  >>> with tempfile.TemporaryDirectory() as workdir:
  ...   checkpointer = Checkpointer.open(workdir, keep=2)
  ...   print(checkpointer.restore(state))
  ...   checkpointer.save(7, state)
  ...   step, restored = checkpointer.restore(state)
  ...   checkpointer.close()
  None
  >>> step, restored['w'].tolist()
  (7, [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
  """

  def __init__(self, directory: pathlib.Path, keep: int):
    self._directory = directory
    self._keep = keep
    self._thread: threading.Thread | None = None
    self._error: OSError | None = None
    self._writing = False

  @classmethod
  def open(
    cls, directory: str | os.PathLike[str], keep: int = 2
  ) -> 'Checkpointer':
    """Opens the directory, which need not exist.

    Args:
      directory: where the checkpoints are.
      keep: how many of them to keep, the newest; at least 1.

    Returns:
      The checkpointer; `close` it.
    """
    if keep < 1:
      raise UsageError(f'keep={keep} checkpoints; at least 1 is possible')
    return cls(pathlib.Path(directory).absolute(), keep)

  def steps(self) -> list[int]:
    """The steps that have a checkpoint, in order."""
    return sorted(int(name) for name in self._names() if name.isdigit())

  def save(self, step: int, state: Any, wait: bool = False) -> None:
    """Saves a state; a step that is there already is left as it is.

    Returns when the state is copied to the host's memory, so that the next
    step may overwrite (donate) it, and writes behind the program's back; if the
    write before this one is still going on, waits for its end. With several
    processes all of them must call it, and it returns when all is written.

    Args:
      step: the number of steps made.
      state: a tree of arrays; typed PRNG keys are arrays too.
      wait: returns only when the checkpoint is on disk.

    Raises:
      UsageError: if the directory cannot be made.
      TypeError: if a leaf is not an array.
      OSError: if this save with `wait`, or the save before it, failed.
    """
    self.wait()
    self._begin_writing()
    if step in self.steps():
      return
    names, leaves, _ = _flatten(state)
    for leaf in leaves:
      if isinstance(leaf, jax.Array) and not _is_key(leaf):
        leaf.copy_to_host_async()
    specs = dict(zip(names, map(_spec, leaves), strict=True))
    arrays = dict(zip(names, map(_to_host, leaves), strict=True))
    if jax.process_count() > 1:
      # Barriers in a thread would mix with the step's own collectives.
      self._write(step, specs, arrays)
      return
    self._thread = threading.Thread(
      target=self._write_and_tell, args=(step, specs, arrays)
    )
    self._thread.start()
    if wait:
      self.wait()

  def wait(self) -> None:
    """Waits until everything that was saved is on disk.

    Raises:
      OSError: if it could not be written.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      error, self._error = self._error, None
      raise error

  def close(self) -> None:
    """Waits; nothing is to be saved after it."""
    self.wait()

  def restore(self, abstract_state: Any) -> tuple[int, Any] | None:
    """The newest intact checkpoint.

    One that is damaged is renamed to `<step>.corrupt` and named in one line on
    stderr, and the one before it is tried.

    Args:
      abstract_state: a tree of `jax.ShapeDtypeStruct` (or of arrays, of which
        only shape, dtype and sharding are used). A leaf goes to the devices of
        its `sharding`, without one to the default device; `np.ndarray` gives
        `np.ndarray`.

    Returns:
      The step and the state, or None if the directory holds nothing.

    Raises:
      UsageError: if a leaf is missing, unknown or of another shape or dtype (it
        is never cast), or if the directory holds something but nothing intact.
    """
    self.wait()
    names, leaves, treedef = _flatten(abstract_state)
    wanted = dict(zip(names, map(_spec, leaves), strict=True))
    found, damaged = None, set()
    # Listed anew each time: a run that goes on has newer ones meanwhile.
    while found is None and (steps := {*self.steps()} - damaged):
      step = max(steps)
      try:
        found = step, self._read(step, wanted)
      except _DamagedError as damage:
        damaged.add(step)
        self._put_aside(step, str(damage))
    self._agree(-1 if found is None else found[0])
    if found is None:
      if rest := sorted(self._names()):
        raise UsageError(
          f'no intact checkpoint in {self._directory}, which holds '
          f'{", ".join(rest[:4])}{", ..." if len(rest) > 4 else ""}; '
          'to start afresh remove that directory or choose another workdir'
        )
      return None
    step, arrays = found
    return step, treedef.unflatten(
      _place(arrays.get(name), leaf)
      for name, leaf in zip(names, leaves, strict=True)
    )

  def _names(self) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
      for entry in self._directory.iterdir():
        if not entry.name.startswith('.') and entry.suffix != '.tmp':
          yield entry.name

  def _begin_writing(self) -> None:
    if self._writing:
      return
    if jax.process_index() == 0:
      try:
        self._directory.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise UsageError(
          f'cannot save into {self._directory}: {error.strerror}'
        ) from error
      for half_written in self._directory.glob('*.tmp'):
        shutil.rmtree(half_written)
    _barrier('open')
    self._writing = True

  def _write_and_tell(self, step: int, specs: Any, arrays: Any) -> None:
    try:
      self._write(step, specs, arrays)
    except Exception as error:
      shutil.rmtree(self._directory / f'{step}.tmp', ignore_errors=True)
      lines = str(error).strip().splitlines() or [type(error).__name__]
      self._error = OSError(
        f'checkpoint {step} could not be written to {self._directory}: '
        f'{lines[0]}'
      )
      self._error.__cause__ = error

  def _write(
    self, step: int, specs: dict[str, Any], arrays: dict[str, Any]
  ) -> None:
    final = self._directory / str(step)
    temporary = self._directory / f'{step}.tmp'
    if jax.process_index() == 0:
      shutil.rmtree(temporary, ignore_errors=True)
      temporary.mkdir()
    _barrier(f'begin {step}')
    leaves = {
      name: {
        **specs[name],
        'sha256': {_text(index): _digest(x) for index, x in _shards(array)},
      }
      for name, array in arrays.items()
    }
    leaves_file = temporary / f'leaves.{jax.process_index()}.json'
    leaves_file.write_text(json.dumps(leaves, indent=1) + '\n')
    with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
      # Orbax refuses arrays without an element.
      writer.save(
        temporary / 'state', {k: x for k, x in arrays.items() if x.size}
      )
    _barrier(f'written {step}')
    if jax.process_index() == 0:
      (temporary / _SUMS).write_bytes(_sums(temporary))
      for path in (*temporary.glob('leaves.*.json'), temporary / _SUMS):
        _sync(path)
      _sync(temporary)
      temporary.rename(final)
      _sync(self._directory)
      for old in self.steps()[: -self._keep]:
        # Never half a checkpoint under a checkpoint's name.
        doomed = self._directory / f'{old}.tmp'
        (self._directory / str(old)).rename(doomed)
        shutil.rmtree(doomed)
    _barrier(f'saved {step}')

  def _read(self, step: int, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays by name; _DamagedError, or UsageError if they do not fit."""
    directory = self._directory / str(step)
    try:
      expected, actual = (directory / _SUMS).read_bytes(), _sums(directory)
      if not expected or actual != expected:
        raise _DamagedError(_first_difference(expected, actual))
      parts = [
        json.loads(path.read_text())
        for path in sorted(directory.glob('leaves.*.json'))
      ]
    except PermissionError as error:
      raise UsageError(f'cannot read {error.filename}: permission') from error
    except OSError as error:
      if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise
      raise _DamagedError(f'{error.strerror}: {error.filename}') from error
    _check_fits(f'checkpoint {directory}', parts[0], wanted)
    kept = [name for name, leaf in parts[0].items() if 0 not in leaf['shape']]
    # Every process reads for itself, and waits for nobody.
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(),
      active_processes={jax.process_index()},
      barrier_sync_key_prefix=f'read{jax.process_index()}',
    )
    with (
      _quiet(),
      ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        multiprocessing_options=alone,
      ) as reader,
    ):
      stored = reader.restore(
        directory / 'state',
        restore_args={
          name: ocp.RestoreArgs(restore_type=np.ndarray) for name in kept
        },
      )
    for part in parts:
      for name in kept:
        for index, digest in part[name]['sha256'].items():
          if _digest(stored[name][_index(index)]) != digest:
            raise _DamagedError(f'leaf {name} differs from its sha256')
    return stored

  def _put_aside(self, step: int, reason: str) -> None:
    if jax.process_index() != 0:
      return
    corrupt = self._directory / f'{step}.corrupt'
    kept = f'kept as {corrupt}'
    try:
      shutil.rmtree(corrupt, ignore_errors=True)
      (self._directory / str(step)).rename(corrupt)
    except FileNotFoundError:
      return  # its run removed it meanwhile: it was old, not damaged
    except OSError as error:
      kept = f'left in {self._directory}: {error.strerror}'
    older = [s for s in self.steps() if s < step]
    print(
      f'checkpoint {step} is damaged ({reason}); {kept}, '
      + (f'trying step {older[-1]}' if older else 'and no older one is left'),
      file=sys.stderr,
    )

  def _agree(self, step: int) -> None:
    if jax.process_count() > 1:
      steps = multihost_utils.process_allgather(np.int32(step))
      if len(set(steps.tolist())) > 1:
        raise UsageError(
          f'the processes found different checkpoints in {self._directory} '
          f'(steps {steps.tolist()}); it must be a directory that all see'
        )


def check_config(workdir: str | os.PathLike[str], config: Any) -> None:
  """Refuses to go on with a run under another configuration than its own.

  Args:
    workdir: the run's directory; without a `config.json` everything fits.
    config: the dataclass that the run is asked to go on with.

  Raises:
    UsageError: naming every field that differs, the run's own value -> the new.
  """
  path = pathlib.Path(workdir) / 'config.json'
  if not path.exists():
    return
  try:
    old = dict(_fields(json.loads(path.read_text())))
  except (ValueError, AttributeError) as error:
    raise UsageError(f'{path} is not a configuration: {error}') from error
  new = json.loads(json.dumps(dataclasses.asdict(config), default=str))
  new = dict(_fields(new))
  differences = [
    f'{name} {old.get(name, "(absent)")!r} -> {new.get(name, "(absent)")!r}'
    for name in {**old, **new}
    if name not in old or name not in new or old[name] != new[name]
  ]
  if differences:
    raise UsageError(
      f'{workdir} holds a run with another config: {", ".join(differences)}; '
      'take its values or another workdir'
    )


def read_config(
  workdir: str | os.PathLike[str], cls: Callable[..., _Config], binary: str
) -> _Config:
  """The configuration that a run was begun with, to load what it learned.

  Args:
    workdir: the run's directory.
    cls: the dataclass of its settings; lists of the file are tuples in it.
    binary: of `experiments`, which trains one.

  Raises:
    UsageError: there is no run, or it is of another system.
  """
  path = pathlib.Path(workdir) / 'config.json'
  if not path.exists():
    raise UsageError(
      f'{workdir} holds no run (no config.json); train one with '
      f'python -m experiments.{binary} --workdir={workdir}'
    )
  try:
    fields = json.loads(path.read_text())
    listed = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
    return cls(**fields | listed)
  except (TypeError, AttributeError, json.JSONDecodeError) as error:
    raise UsageError(
      f'{path} is not the config of experiments.{binary}: {error}'
    ) from error


def _fields(
  tree: dict[str, Any], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  for name, value in tree.items():
    if isinstance(value, dict) and value:
      yield from _fields(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


class _DamagedError(Exception):
  """A checkpoint is not what was saved; the message says where."""


def _flatten(tree: Any) -> tuple[list[str], list[Any], Any]:
  paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
  names = [jax.tree_util.keystr(path) for path, _ in paths]
  leaves = [leaf for _, leaf in paths]
  for name, leaf in zip(names, leaves, strict=True):
    dtype = getattr(leaf, 'dtype', None)
    if dtype is None or (isinstance(dtype, np.dtype) and dtype.kind in 'OSU'):
      raise TypeError(
        f'leaf {name} is {type(leaf).__name__}; a state holds arrays of numbers'
      )
  return names, leaves, treedef


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _spec(leaf: Any) -> dict[str, Any]:
  return {'dtype': str(leaf.dtype), 'shape': list(leaf.shape)}


def _text_of(spec: dict[str, Any]) -> str:
  return f'{spec["dtype"]}{spec["shape"]}'


def _check_fits(
  what: str, stored: dict[str, Any], wanted: dict[str, Any]
) -> None:
  problems = [
    f'{name} is {_text_of(spec)} there and {_text_of(wanted[name])} here'
    for name, spec in stored.items()
    if name in wanted and _text_of(spec) != _text_of(wanted[name])
  ]
  problems += [
    f'{name} is missing there' for name in wanted if name not in stored
  ]
  problems += [
    f'{name} is unknown here' for name in stored if name not in wanted
  ]
  if problems:
    more = f' (and {len(problems) - 4} more)' if len(problems) > 4 else ''
    raise UsageError(
      f'{what} does not fit this program: {"; ".join(problems[:4])}{more}'
    )


def _to_host(leaf: Any) -> Any:
  """A copy in the host's memory, of what other processes do not hold too."""
  if not isinstance(leaf, jax.Array):
    return np.array(leaf)
  if _is_key(leaf):
    leaf = jax.random.key_data(leaf)
  if leaf.is_fully_addressable or leaf.is_fully_replicated:
    return np.array(leaf)
  return leaf


def _place(array: np.ndarray | None, leaf: Any) -> Any:
  """An array where and as the abstract leaf says; None is one of size 0."""
  if isinstance(leaf, np.ndarray | np.generic):
    return np.zeros(leaf.shape, leaf.dtype) if array is None else array
  if array is None:
    return jnp.zeros(leaf.shape, leaf.dtype)
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    placed = jnp.array(array)
  else:
    placed = jax.make_array_from_callback(
      array.shape, sharding, array.__getitem__
    )
  if _is_key(leaf):
    impl = jax.random.key_impl(jnp.zeros((), leaf.dtype))
    placed = jax.random.wrap_key_data(placed, impl=impl)
  return placed


def _shards(array: Any) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
  """What of an array this process answers for, each part by one process."""
  if isinstance(array, jax.Array):
    for shard in array.addressable_shards:
      if shard.replica_id == 0:
        yield shard.index, np.asarray(shard.data)
  elif jax.process_index() == 0:
    yield (slice(None),) * array.ndim, array


def _text(index: tuple[slice, ...]) -> str:
  return ','.join(
    f'{s.start or 0}:{"" if s.stop is None else s.stop}' for s in index
  )


def _index(text: str) -> tuple[slice, ...]:
  pairs = [part.split(':') for part in text.split(',') if part]
  return tuple(slice(int(a), int(b) if b else None) for a, b in pairs)


def _digest(array: np.ndarray) -> str:
  flat = np.ascontiguousarray(array).reshape(-1)
  return hashlib.sha256(flat.view(np.uint8).data).hexdigest()


def _sums(directory: pathlib.Path) -> bytes:
  """The text of SHA256SUMS for the files as they are now."""
  lines = []
  for path in sorted(directory.rglob('*')):
    if path.is_file() and path.name != _SUMS and not path.name.startswith('.'):
      with path.open('rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
      lines.append(f'{digest}  {path.relative_to(directory).as_posix()}\n')
  return ''.join(lines).encode()


def _first_difference(expected: bytes, actual: bytes) -> str:
  changed = sorted({*expected.splitlines()} ^ {*actual.splitlines()})
  names = {line.split(b'  ')[-1].decode(errors='replace') for line in changed}
  return f'{min(names)} differs from its sha256' if names else f'{_SUMS} is cut'


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _barrier(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'checkpoint {name}')


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
  """Keeps orbax's own log lines, not its exceptions, off the terminal."""

  def keep(record: logging.LogRecord) -> bool:
    return '/orbax/' not in record.pathname or record.levelno >= logging.ERROR

  logger = logging.getLogger('absl')
  logger.addFilter(keep)
  try:
    yield
  finally:
    logger.removeFilter(keep)
