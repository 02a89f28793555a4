"""How the benchmarks time: all arms in one process, in turn, medians."""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np


def interleave(
  arms: Mapping[str, Callable[[], Any]],
  rounds: int,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
  """Times functions against each other on a machine that is not quiet.

  Args:
    arms: by name, functions that return arrays.
    rounds: in each, every arm is called twice. The first call is not timed: it
      also pays for the memory that the arm before it frees.
    clock: returns seconds; `time.process_time` where others use the machine.

  Returns:
    The median milliseconds of each arm.
  """
  times = {name: [] for name in arms}
  for _ in range(rounds):
    for name, arm in arms.items():
      jax.block_until_ready(arm())
      start = clock()
      jax.block_until_ready(arm())
      times[name].append(1e3 * (clock() - start))
  return {name: float(np.median(values)) for name, values in times.items()}


def interleave_cpu(
  arms: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = 0.02
) -> dict[str, float]:
  """The same by CPU time, which others on the machine disturb less.

  Args:
    arms: by name, functions that return arrays, compiled.
    rounds: in each, every arm has its turn.
    seconds: how long a turn is about to take; short arms are called often.

  Returns:
    The median CPU seconds of a call of each arm.
  """
  calls, times = {}, {name: [] for name in arms}
  for name, arm in arms.items():
    jax.block_until_ready(arm())
    calls[name] = max(3, int(seconds / _cpu_seconds(arm, 3)))
  for _ in range(rounds):
    for name, arm in arms.items():
      jax.block_until_ready(arm())
      times[name].append(_cpu_seconds(arm, calls[name]))
  return {name: float(np.median(values)) for name, values in times.items()}


def _cpu_seconds(arm: Callable[[], Any], calls: int) -> float:
  start = time.process_time()
  for _ in range(calls):
    jax.block_until_ready(arm())
  return (time.process_time() - start) / calls


def on_one_core() -> None:
  """Keeps this process on the last of its cores, where the system can.

  To be called before jax is first used: XLA:CPU then makes no threads that
  hand operations to each other, whose waiting would count as CPU time.
  """
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cases_to_run(
  description: str | None,
  cases: Iterable[str] = (),
  args: Sequence[str] | None = None,
) -> list[str]:
  """Reads a benchmark's command line, which names the cases to run.

  Args:
    description: the benchmark's docstring, which --help prints.
    cases: the names that are possible; none where it is run as a whole.
    args: the command line without the program; None for this process's own.

  Returns:
    The cases named, in the order of `cases`; all of them if none is named.

  Raises:
    SystemExit: 0 after --help; 2 after one line about what is not possible.

  >>> cases_to_run('Two games.', ['go', 'chess'], ['chess'])
  ['chess']
  """
  possible = list(cases)
  parser = argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.usage = '%(prog)s [--help]'
  if possible:
    parser.usage += ' [CASE ...]'
    parser.add_argument(
      'cases', nargs='*', metavar='CASE', help=', '.join(possible)
    )
  given, unknown = parser.parse_known_args(args)
  named = getattr(given, 'cases', [])
  unknown += [name for name in named if name not in possible]
  if unknown:
    parser.exit(
      2,
      f'unknown: {" ".join(unknown)}; '
      f'possible: {", ".join([*possible, "--help"])}\n',
    )
  return [name for name in possible if name in named or not named]


def show(line: Mapping[str, Any]) -> None:
  """Prints one measurement as one JSON line."""
  print(json.dumps(line), flush=True)
