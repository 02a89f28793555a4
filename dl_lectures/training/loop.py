"""The one Python loop in which everything is trained.

`fit` gives a pure step what a run needs around it: devices, compilation,
checkpoints, metrics, hooks, progress, and an orderly end whatever happens.
"""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from dl_lectures.training import checkpoint, logging, sharding
from dl_lectures.training.logging import MetricsWriter
from dl_lectures.training.progress import Progress, duration, say
from dl_lectures.types import Array, Key, Metrics, StepFn, UsageError

State = Any
Batch = Any


class Hook(NamedTuple):
  """Something done now and then: evaluate, draw, print.

  A hook keeps nothing of its own: after an interruption it is not told what it
  saw before (what it returned is in `logging.read`). The state it is given is
  donated to the next step, so it copies what it keeps.

  Attributes:
    call: (step, state) -> metrics to be logged under that step, or None.
      Arrays are allowed.
    every: called after each step that is a multiple of it; 0 for never.
    at_start: also before the first step of a fresh run, under step 0.
    at_end: also after the last step.
  """

  call: Callable[[int, State], Metrics | None]
  every: int
  at_start: bool = False
  at_end: bool = True


class FitResult(NamedTuple):
  """How a run ended.

  Attributes:
    state: the last state.
    metrics: those of the last step, hooks' included, as Python numbers.
    status: 'done', or 'interrupted' when the user stopped it: then return
      without a final evaluation, the same command goes on from here.
    step: the number of steps made, over all resumptions.
    seconds: of training, over all resumptions.
  """

  state: State
  metrics: dict[str, Any]
  status: str
  step: int
  seconds: float


class NonFiniteError(FloatingPointError):
  """A metric became NaN or infinite; the message says how to go on."""


def fit(
  step_fn: StepFn,
  init_fn: Callable[[Key], State],
  *,
  config: Any,
  workdir: str | os.PathLike[str] | None,
  num_steps: int,
  batches: Callable[[int], Iterator[Batch]] | None = None,
  hooks: Sequence[Hook] = (),
  mesh: jax.sharding.Mesh | None = None,
  state_sharding: Any = None,
  get_step: Callable[[State], Array] = lambda state: state.step,
  count_params: Callable[[State], Any] = lambda state: state.params,
  log_every: int = 1,
  save_every_seconds: float = 60.0,
  keep: int = 2,
) -> FitResult:
  """Trains to `num_steps`, from the start or from where the run was stopped.

  A run that was stopped and resumed is bit for bit the uninterrupted one,
  because the state holds everything and both keys are functions of the seed:
  `init_key, step_key = jax.random.split(jax.random.key(config.seed))`.

  Args:
    step_fn: pure (state, batch, key) -> (state, metrics). It is jitted here,
      its state is donated. Every metric must be finite: the loop stops where
      one is not, and finds that out while the next step runs.
    init_fn: pure, key -> state.
    config: a dataclass with a field `seed`, written to `config.json`.
    workdir: where the run is kept and resumed from; None writes nothing.
    num_steps: the step to stop at, in all.
    batches: given the number of steps done, an iterator over the batches that
      follow; the i-th batch must not depend on where the run was resumed.
      Every process yields the whole batch and keeps its own part. None for a
      step that makes its own data; it then gets None.
    hooks: called after steps, in this order.
    mesh: the devices, one axis 'data'; all of them by default.
    state_sharding: a NamedSharding, or a tree prefix of the state of them;
      replicated by default.
    get_step: the counter within the state.
    count_params: the parameters within the state: counted at the start, and
      required to be finite in every checkpoint.
    log_every: steps between two lines of metrics.
    save_every_seconds: seconds between two checkpoints.
    keep: how many checkpoints are kept.

  Returns:
    The state, metrics and status ('done' or 'interrupted').

  Raises:
    UsageError: if the workdir cannot be written or holds a run with another
      config, or the devices do not divide the batch; nothing was written.
    NonFiniteError: if a metric or, at a checkpoint, a parameter is not
      finite. The last checkpoint is from before it, and the batch is in
      `debug/` under the workdir.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> from dl_lectures.training.sharding import make_mesh
    >>> from dl_lectures.training.step import init_state, make_step
    >>> def loss_fn(params, net_state, key, batch):
    ...   return jnp.mean((params['w'] - batch) ** 2), (net_state, {})
    >>> def batches(step):
    ...   while True:
    ...     yield np.full(8, 3.0, np.float32)
    >>> @dataclasses.dataclass(kw_only=True)
    ... class Config:
    ...   seed: int = 0
    >>> sgd = optax.sgd(0.5)
    >>> result = fit(
    ...   make_step(loss_fn, sgd),
    ...   lambda key: init_state({'w': jnp.array(0.0)}, {}, sgd),
    ...   config=Config(), workdir=None, num_steps=1, batches=batches,
    ... )
    >>> result.status, result.step, float(result.state.params['w'])
    ('done', 1, 3.0)
  """
  if num_steps < 1:
    raise UsageError(f'num_steps={num_steps}; at least 1 is possible')
  disk = _Disk(workdir, config, keep)
  mesh = sharding.make_mesh() if mesh is None else mesh
  replicated = sharding.replicated(mesh)
  state_sharding = replicated if state_sharding is None else state_sharding
  init_key, step_key = jax.jit(
    lambda: tuple(jax.random.split(jax.random.key(config.seed))),
    out_shardings=replicated,
  )()
  abstract_state = _with_sharding(
    jax.eval_shape(init_fn, init_key), state_sharding
  )
  with contextlib.ExitStack() as stack:
    stop_asked = stack.enter_context(_stop_signals())
    stack.callback(disk.close)
    restored = disk.restore(abstract_state)
    step = 0 if restored is None else restored[0]
    feed = _place(batches, step, mesh)
    batch, placed = next(feed) if step < num_steps else (None, None)
    disk.begin(None if restored is None else step)
    _say_header(mesh, config, count_params(abstract_state), workdir, restored)
    if restored is not None and step >= num_steps:
      say(f'nothing to train: all {num_steps} steps are done')
      return FitResult(
        restored[1], disk.last_metrics(), 'done', step, disk.seconds()
      )

    say('compiling ... (the first time this may take a minute)')
    start = time.monotonic()
    if restored is None:
      state = jax.jit(init_fn, out_shardings=state_sharding)(init_key)
    else:
      state = restored[1]
    step_jit, names = _jit_step(step_fn, mesh, state_sharding)
    step_jit.lower(state, placed, step_key).compile()
    finite_params = jax.jit(
      lambda state: _all_finite(count_params(state)), out_shardings=replicated
    )
    say(f'compiled in {duration(time.monotonic() - start)}')

    if restored is None:
      at_start = _call_hooks([h for h in hooks if h.at_start], 0, state)
      if at_start:
        disk.log(0, at_start)
    progress = Progress(num_steps, step)
    stack.callback(progress.close)
    last_save = time.monotonic()
    running: _Running | None = None
    metrics: dict[str, Any] = {}
    end = stop = False
    while not (end or stop):
      previous = running
      state, values, finite = step_jit(state, placed, step_key)
      step += 1
      running = _Running(
        step, dict(zip(names, values, strict=True)), finite, batch
      )
      end = step == num_steps
      if not end:
        batch, placed = next(feed)

      # While this step runs, the one before it is looked at.
      if previous is not None:
        disk.check(previous)
        if previous.step % log_every == 0:
          metrics = _to_host(previous)
          disk.log(previous.step, metrics)
          progress.update(previous.step, metrics)

      due = [
        hook
        for hook in hooks
        if (hook.every and step % hook.every == 0) or (end and hook.at_end)
      ]
      hooked: dict[str, Any] = {}
      if due:
        disk.check(running)
        hooked = _call_hooks(due, step, state)
      stop, save = _agree(
        stop_asked(), time.monotonic() - last_save >= save_every_seconds
      )
      if not (due or end or stop or save):
        continue
      disk.check(running)
      metrics = _to_host(running) | hooked
      if end or hooked or step % log_every == 0:
        disk.log(step, metrics)
      progress.update(step, metrics)
      if end or stop or save:
        if int(get_step(state)) != step:
          raise ValueError(
            f'after {step} steps the counter of the state is '
            f'{int(get_step(state))}; step_fn must add 1 to it'
          )
        disk.check(running._replace(finite=finite_params(state)))
        disk.save(step, state, wait=end or stop)
        last_save = time.monotonic()
      running = None

    progress.close()
    if end:
      say(f'{step} steps done in {duration(disk.seconds())}')
    elif workdir is None:
      say(f'stopped after step {step}; without a workdir nothing is kept')
    else:
      say(f'saved step {step}; the same command continues from there')
    status = 'done' if end else 'interrupted'
    return FitResult(state, metrics, status, step, disk.seconds())


class _Running(NamedTuple):
  """A step that may still be running on the devices."""

  step: int
  metrics: Metrics
  finite: Array  # [] bool
  batch: Batch


class _Disk:
  """A run's workdir. Without one, everything here but `check` does nothing."""

  def __init__(
    self, workdir: str | os.PathLike[str] | None, config: Any, keep: int
  ):
    self._workdir = None if workdir is None else os.path.abspath(workdir)
    self._config = config
    self._writer: MetricsWriter | None = None
    self._lock: int | None = None
    self._checkpointer: checkpoint.Checkpointer | None = None
    self._start = time.monotonic()
    if self._workdir is None:
      return
    check_writable(self._workdir)
    checkpoint.check_config(self._workdir, config)
    self._checkpointer = checkpoint.Checkpointer.open(
      os.path.join(self._workdir, 'checkpoints'), keep
    )

  def restore(self, abstract_state: State) -> tuple[int, State] | None:
    """The newest intact checkpoint; makes no directory."""
    if self._checkpointer is None:
      return None
    return self._checkpointer.restore(abstract_state)

  def begin(self, step: int | None) -> None:
    """Makes what is missing, and forgets metrics later than `step`."""
    if self._workdir is None or jax.process_index() > 0:
      return
    try:
      os.makedirs(self._workdir, exist_ok=True)
      self._claim()
      path = os.path.join(self._workdir, 'config.json')
      _write_json(path, dataclasses.asdict(self._config))
      self._writer = MetricsWriter(self._workdir, step)
    except OSError as error:
      raise _unwritable(self._workdir, error.strerror) from error
    records = logging.read(self._workdir)
    if records:
      self._start -= records[-1].get('seconds', 0.0)

  def seconds(self) -> float:
    """Spent in `fit` so far, over all resumptions."""
    return time.monotonic() - self._start

  def log(self, step: int, metrics: Mapping[str, Any]) -> None:
    if self._writer is not None:
      seconds = round(self.seconds(), 3)
      self._writer.write(step, {'seconds': seconds, **metrics})

  def last_metrics(self) -> dict[str, Any]:
    records = [] if self._workdir is None else logging.read(self._workdir)
    last = records[-1] if records else {}
    return {k: v for k, v in last.items() if k not in ('step', 'seconds')}

  def check(self, running: _Running) -> None:
    """Raises NonFiniteError where a step went wrong, and keeps its batch."""
    if bool(running.finite):
      return
    metrics = _to_host(running)
    bad = [name for name, value in metrics.items() if not _is_finite(value)]
    what = ', '.join(f'{name} {metrics[name]}' for name in bad)
    message = f'step {running.step} is not finite ({what or "parameters"})'
    if self._workdir is None or self._checkpointer is None:
      raise NonFiniteError(f'{message}; without a workdir nothing is kept')
    path = os.path.join(self._workdir, 'debug', f'step_{running.step:08d}')
    self._checkpointer.wait()
    steps = self._checkpointer.steps()
    since = f'step {max(steps)}' if steps else 'the start'
    if jax.process_index() == 0:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      np.savez(f'{path}.npz', **_named(running.batch))
      _write_json(
        f'{path}.json',
        {
          'step': running.step,
          'metrics': {k: repr(v) for k, v in metrics.items()},
          'last_checkpoint': max(steps) if steps else None,
          'config': dataclasses.asdict(self._config),
        },
      )
    raise NonFiniteError(
      f'{message}; its batch is in {path}.npz. The same command goes on from '
      f'{since} and meets it again; begin it with JAX_DEBUG_NANS=1 to see '
      'which operation it is'
    )

  def save(self, step: int, state: State, wait: bool) -> None:
    if self._checkpointer is None:
      return
    # A checkpoint never knows more steps than the metrics.
    if self._writer is not None:
      self._writer.sync()
    self._checkpointer.save(step, state, wait=wait)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()
    if self._lock is not None:
      os.close(self._lock)
    if self._checkpointer is not None:
      self._checkpointer.close()

  def _claim(self) -> None:
    """Keeps a second run out: it would rewrite the metrics of this one."""
    assert self._workdir is not None
    self._lock = os.open(self._workdir, os.O_RDONLY)
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UsageError(
        f'workdir {self._workdir} is in use by another run; let it end or '
        'choose another one'
      ) from None
    except OSError:
      pass  # a file system without locks


def check_writable(workdir: str | os.PathLike[str]) -> None:
  """Refuses a workdir that cannot be made or written, and makes nothing.

  Args:
    workdir: a directory that exists or is to be made.

  Raises:
    UsageError: naming what is in the way.
  """
  path = os.path.abspath(workdir)
  while not os.path.lexists(path):
    path = os.path.dirname(path)
  if not os.path.isdir(path):
    reason = f'{path} is not a directory'
  elif not os.access(path, os.W_OK | os.X_OK):
    reason = f'{path} is not writable'
  else:
    return
  raise _unwritable(workdir, reason)


def _unwritable(
  workdir: str | os.PathLike[str], reason: str | None
) -> UsageError:
  return UsageError(
    f'workdir {os.fspath(workdir)} cannot be written: {reason}; give a '
    'directory of your own, such as runs/first'
  )


@contextlib.contextmanager
def _stop_signals() -> Generator[Callable[[], bool]]:
  """Catches SIGINT and SIGTERM; yields whether one has come."""
  asked: list[int] = []

  def ask(signum: int, frame: Any) -> None:
    del frame
    if signal.SIGINT in asked and signum == signal.SIGINT:
      raise KeyboardInterrupt('stopped at once')
    if not asked:
      # A handler may interrupt a write to stderr, which is not reentrant.
      os.write(2, b'\nfinishing this step (Ctrl-C again aborts) ...\n')
    asked.append(signum)

  if threading.current_thread() is not threading.main_thread():
    yield lambda: False
    return
  before = {
    signum: signal.signal(signum, ask)
    for signum in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield lambda: bool(asked)
  finally:
    for signum, handler in before.items():
      signal.signal(signum, handler)


def _place(
  batches: Callable[[int], Iterator[Batch]] | None,
  step: int,
  mesh: jax.sharding.Mesh,
) -> Iterator[tuple[Batch, Batch]]:
  """The batches that follow a step: on the host, and split over devices."""
  if batches is None:
    yield from itertools.repeat((None, None))
    return
  split = sharding.split(mesh)

  def place(leaf: Any) -> Array:
    sharding.check_divides('batch size', leaf.shape[0], mesh)
    if jax.process_count() == 1:
      return jax.device_put(leaf, split)
    return jax.make_array_from_callback(leaf.shape, split, leaf.__getitem__)

  for batch in batches(step):
    yield batch, jax.tree.map(place, batch)
  raise ValueError('the batches ended before the run; they must repeat')


def _jit_step(
  step_fn: StepFn, mesh: jax.sharding.Mesh, state_sharding: Any
) -> tuple[Any, list[str]]:
  """The jitted step, and the metrics' names, known once it is compiled.

  It returns the state, the metrics' values, and whether all are finite. JAX
  sorts the names of a dict; a person wants them in their author's order.
  """
  replicated = sharding.replicated(mesh)
  seen: list[str] = []
  names: list[str] = []

  def step(
    state: State, batch: Batch, key: Key
  ) -> tuple[State, tuple[Array, ...], Array]:
    # Runs once per compilation.
    shapes = ', '.join(
      f'{name} {leaf.dtype}{list(leaf.shape)}'
      for name, leaf in _named(batch).items()
    )
    if seen:
      say(
        'warning: the step compiles again, which takes time: the batch was '
        f'{seen[-1]} and is {shapes}'
      )
    seen.append(shapes)
    state, metrics = step_fn(state, batch, key)
    names[:] = metrics
    return state, tuple(metrics.values()), _all_finite(metrics)

  # A donated state is gone when jax_debug_nans looks for the operation.
  donate = () if _setting('jax_debug_nans') else (0,)
  step_jit = jax.jit(
    step,
    in_shardings=(state_sharding, sharding.split(mesh), replicated),
    out_shardings=(state_sharding, replicated, replicated),
    donate_argnums=donate,
  )
  return step_jit, names


def _agree(*flags: bool) -> tuple[bool, ...]:
  """The flags, raised where any process has raised them."""
  if jax.process_count() == 1:
    return flags
  every = multihost_utils.process_allgather(np.array(flags))
  return tuple(bool(flag) for flag in every.any(axis=0))


def _call_hooks(
  hooks: Sequence[Hook], step: int, state: State
) -> dict[str, Any]:
  metrics: dict[str, Any] = {}
  for hook in hooks:
    metrics |= hook.call(step, state) or {}
  return logging.to_json(metrics)


def _to_host(running: _Running) -> dict[str, Any]:
  """The metrics as Python numbers and lists."""
  # As a list: JAX would sort the names of a dict.
  values = jax.device_get(list(running.metrics.values()))
  return {
    name: np.asarray(value).tolist()
    for name, value in zip(running.metrics, values, strict=True)
  }


def _is_finite(value: Any) -> bool:
  return bool(np.all(np.isfinite(value)))


def _all_finite(tree: Any) -> Array:
  leaves = [
    jnp.isfinite(leaf).all()
    for leaf in map(jnp.asarray, jax.tree.leaves(tree))
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.array(leaves, bool))


def _with_sharding(shapes: Any, prefix: Any) -> Any:
  """Gives each leaf of the shapes its sharding out of a tree prefix."""
  return jax.tree.map(
    lambda placed, subtree: jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=placed
      ),
      subtree,
    ),
    prefix,
    shapes,
  )


def _named(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by their paths; 'batch' for a tree of one leaf."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='.') or 'batch': leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _say_header(
  mesh: jax.sharding.Mesh,
  config: Any,
  params: Any,
  workdir: str | os.PathLike[str] | None,
  restored: tuple[int, State] | None,
) -> None:
  leaves = jax.tree.leaves(params)
  count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
  kinds = ', '.join(sorted({str(leaf.dtype) for leaf in leaves}))
  matmul = _setting('jax_default_matmul_precision') or 'default'
  device = mesh.devices.flat[0]
  processes = jax.process_count()
  for name, value in {
    'devices': f'{mesh.size} x {device.device_kind} ({device.platform})'
    + (f' in {processes} processes' if processes > 1 else ''),
    'precision': f'{kinds}, matmul precision {matmul}',
    'seed': config.seed,
    'parameters': f'{count:,}',
    'workdir': workdir or 'none, nothing is kept',
    'start': f'resumed from step {restored[0]}' if restored else 'fresh',
  }.items():
    say(f'{name:<11}{value}')


def _setting(name: str) -> Any:
  """One of JAX's settings; their type does not list them."""
  return getattr(jax.config, name)


def _write_json(path: str, value: Any) -> None:
  temporary = f'{path}.tmp'
  with open(temporary, 'w', encoding='utf-8') as file:
    json.dump(value, file, indent=2, default=str)
    file.write('\n')
  os.replace(temporary, path)
