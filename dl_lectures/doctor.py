"""Whether this machine can train: a report to paste into a bug.

`python -m dl_lectures.doctor` prints versions, devices and a timed train step.
Every problem gets one line with its mend, and then the exit status is 1.
"""

import importlib.metadata
import math
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from packaging.requirements import Requirement

# Nothing above needs JAX: a broken installation is what a doctor is for.

_OLDEST, _NEWEST = (3, 11), (3, 13)
_FREE_BYTES = 1 << 30
_REINSTALL = 'rm -rf .venv && make venv'


class Finding(NamedTuple):
  """What one check saw.

  Attributes:
    facts: lines of the report.
    problems: one line each, what is wrong and what mends it.
  """

  facts: Sequence[str]
  problems: Sequence[str] = ()


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
  """The interpreter and the system.

  >>> check_python((3, 9, 1)).problems[0].partition(':')[0]
  'Python 3.9.1 is not one of 3.11 to 3.13'
  """
  name = '.'.join(map(str, version))
  facts = [
    f'Python {name} ({platform.python_implementation()})',
    f'{platform.platform()}, {os.cpu_count()} cores',
  ]
  if _OLDEST <= version[:2] <= _NEWEST:
    return Finding(facts)
  return Finding(
    facts,
    [
      f'Python {name} is not one of 3.11 to 3.13: '
      'rm -rf .venv && make PYTHON=python3.12 venv'
    ],
  )


def installed_version(package: str) -> str | None:
  """The version of an installed distribution, None if there is none."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _requires(package: str) -> list[str]:
  if installed_version(package) is None:
    return []
  return importlib.metadata.requires(package) or []


def check_packages(
  version: Callable[[str], str | None] = installed_version,
  requires: Callable[[str], Sequence[str]] = _requires,
) -> Finding:
  """Every dependency, and whether all of them fit together.

  Args:
    version: of an installed package, None if it is not installed.
    requires: what a package asks for.

  Returns:
    All versions; a problem for each package that is missing or unfit.
  """
  wanted = [('dl_lectures', text) for text in requires('dl_lectures')]
  direct = [Requirement(text) for _, text in wanted]
  for package in direct:
    if package.marker is None:
      wanted += [(package.name, text) for text in requires(package.name)]
  facts, problems = [f'dl_lectures {version("dl_lectures")}'], []
  if not wanted:
    problems.append(f'dl_lectures is not installed here: {_REINSTALL}')
  seen = set()
  for dependent, text in wanted:
    need = Requirement(text)
    if need.marker is not None and not need.marker.evaluate({'extra': ''}):
      continue
    found = version(need.name)
    if dependent == 'dl_lectures':
      facts.append(f'  {need.name} {found}')
    fits = found is not None and need.specifier.contains(
      found, prereleases=True
    )
    if not fits and need.name not in seen:
      seen.add(need.name)
      problems.append(
        f'{need.name} is {found or "missing"}, {dependent} needs '
        f'{need.name}{need.specifier}: {_REINSTALL}'
      )
  return Finding(facts, problems)


def _accelerators() -> list[str]:
  """What the machine has, whatever JAX sees: 'gpu', 'tpu'."""
  found = ['tpu'] if list(pathlib.Path('/dev').glob('accel[0-9]*')) else []
  if shutil.which('nvidia-smi'):
    listing = subprocess.run(
      ['nvidia-smi', '--list-gpus'], capture_output=True, text=True, timeout=30
    )
    if listing.returncode == 0 and listing.stdout.strip():
      found.append('gpu')
  return found


def check_devices(
  accelerators: Sequence[str] | None = None,
  environment: Mapping[str, str] = os.environ,
) -> Finding:
  """What JAX computes on, and whether it overlooks an accelerator.

  Args:
    accelerators: of the machine, 'gpu' or 'tpu'; looked up if None.
    environment: of the process.

  Returns:
    The devices; a problem if there is an accelerator and JAX is on the CPU.
  """
  import jax

  try:
    devices = jax.devices()
  except RuntimeError as error:
    asked = environment.get('JAX_PLATFORMS')
    return Finding(
      [],
      [
        f'JAX finds no device ({_first_line(error)}): '
        + (f'unset JAX_PLATFORMS, now {asked}' if asked else _REINSTALL)
      ],
    )
  backend = jax.default_backend()
  facts = [
    f'JAX on {len(devices)} x {devices[0].device_kind} ({backend}), '
    f'{jax.process_count()} process(es)'
  ]
  facts += [
    f'{name}={environment[name]}'
    for name in ('JAX_PLATFORMS', 'XLA_FLAGS', 'CUDA_VISIBLE_DEVICES')
    if name in environment
  ]
  if accelerators is None:
    accelerators = _accelerators()
  if backend != 'cpu' or not accelerators:
    return Finding(facts)
  name = accelerators[0]
  if environment.get('JAX_PLATFORMS'):
    mend = 'unset JAX_PLATFORMS'
  elif environment.get('CUDA_VISIBLE_DEVICES') == '' and name == 'gpu':
    mend = 'unset CUDA_VISIBLE_DEVICES'
  else:
    extra = {'gpu': 'cuda13', 'tpu': 'tpu'}[name]
    mend = f".venv/bin/pip install '.[{extra}]'"
    if name == 'gpu':
      mend += ' (cuda12 for a driver older than 580)'
  return Finding(
    facts, [f'there is a {name.upper()}, but JAX is on the CPU: {mend}']
  )


def check_host() -> Finding:
  """The allocator and the compile cache, as every binary sets them."""
  from dl_lectures.training import host

  tuned = 'tuned' if host.tune_allocator() else 'as the system has it'
  directory = host.enable_compile_cache()
  if directory is None:
    return Finding(
      [f'allocator {tuned}, no compile cache'],
      [
        'the compile cache cannot be written, every start compiles anew: '
        'set XDG_CACHE_HOME to a directory of yours'
      ],
    )
  files = [f for f in directory.rglob('*') if f.is_file()]
  size = sum(f.stat().st_size for f in files)
  return Finding(
    [
      f'allocator {tuned}, compile cache {directory} '
      f'({len(files)} files, {size / 1e6:.0f} MB)'
    ]
  )


def check_disk(free: Callable[[str], int] | None = None) -> Finding:
  """Room for checkpoints here.

  Args:
    free: path -> bytes; asks the system if None.
  """
  here = os.getcwd()
  room = shutil.disk_usage(here).free if free is None else free(here)
  facts = [f'{room / 1e9:.1f} GB free in {here}']
  if room >= _FREE_BYTES:
    return Finding(facts)
  return Finding(
    facts, [f'{room / 1e9:.1f} GB free in {here}: make room for checkpoints']
  )


def check_train_step(seconds: float = 1.0) -> Finding:
  """Trains a small residual network, and sees its loss fall.

  Args:
    seconds: how long, after compiling.

  Returns:
    Compile time and milliseconds a step; a problem if nothing is learned.
  """
  import haiku as hk
  import jax
  import jax.numpy as jnp
  import optax

  from dl_lectures import nets, training

  def network(boards: jax.Array) -> jax.Array:  # [B, H, W, C] -> [B]
    features = nets.ResidualTower(16, num_blocks=1)(boards)
    return hk.Linear(1)(features.reshape(len(boards), -1))[:, 0]

  model = hk.transform_with_state(network)

  def loss_fn(params, net_state, key, batch):
    boards, targets = batch
    values, net_state = model.apply(params, net_state, key, boards)
    return jnp.mean((values - targets) ** 2), (net_state, {})

  optimizer = optax.adam(1e-3)
  init_key, data_key, step_key = jax.random.split(jax.random.key(0), 3)
  boards = jax.random.normal(data_key, (64, 6, 7, 2))
  batch = boards, boards.mean(axis=(1, 2, 3))
  state = jax.jit(
    lambda key: training.init_state(*model.init(key, boards), optimizer)
  )(init_key)
  step = jax.jit(training.make_step(loss_fn, optimizer), donate_argnums=0)

  start = time.perf_counter()
  state, metrics = step(state, batch, step_key)
  first = last = float(metrics['loss'])
  compiled = time.perf_counter()
  steps = 0
  while (elapsed := time.perf_counter() - compiled) < seconds:
    state, metrics = step(state, batch, step_key)
    last = float(metrics['loss'])
    steps += 1
  facts = [
    f'train step: compiled in {compiled - start:.1f} s, '
    f'{1e3 * elapsed / max(steps, 1):.2f} ms a step, '
    f'loss {first:.3g} -> {last:.3g} in {steps} steps'
  ]
  if math.isfinite(last) and last < first:
    return Finding(facts)
  return Finding(
    facts,
    [f'training does not learn (loss {first:.3g} -> {last:.3g}): {_REINSTALL}'],
  )


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [''])[0]


def examine(checks: Sequence[Callable[[], Finding]]) -> Finding:
  """All findings in one; a check that fails is a problem of its own.

  >>> examine([lambda: Finding(['fine']), lambda: Finding([], ['not'])])
  Finding(facts=['fine'], problems=['not'])
  """
  facts, problems = [], []
  for check in checks:
    try:
      finding = check()
    except Exception as error:  # whatever it is, the report goes on
      mend = 'report it, with all of this'
      if isinstance(error, ImportError):
        mend = _REINSTALL
      problems.append(
        f'{check.__name__} fails ({type(error).__name__}: '
        f'{_first_line(error)}): {mend}'
      )
    else:
      facts += finding.facts
      problems += finding.problems
  return Finding(facts, problems)


def main() -> int:
  """Prints the report; the exit status says whether all is well."""
  facts, problems = examine(
    [
      check_python,
      check_packages,
      check_host,
      check_devices,
      check_disk,
      check_train_step,
    ]
  )
  print('\n'.join(facts))
  for problem in problems:
    print(f'PROBLEM  {problem}')
  print(f'{len(problems)} problem(s) found.' if problems else 'All is well.')
  return 1 if problems else 0


if __name__ == '__main__':
  sys.exit(main())
