"""How the benchmarks time: all arms in one process, in turn, medians."""

import json
import time
from collections.abc import Callable, Mapping
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
    arms: by name, functions that return arrays; each is called once before.
    rounds: in each, every arm is called once.
    clock: returns seconds; `time.process_time` where others use the machine.

  Returns:
    The median milliseconds of each arm.
  """
  times = {name: [] for name in arms}
  for arm in arms.values():
    jax.block_until_ready(arm())
  for _ in range(rounds):
    for name, arm in arms.items():
      start = clock()
      jax.block_until_ready(arm())
      times[name].append(1e3 * (clock() - start))
  return {name: float(np.median(values)) for name, values in times.items()}


def show(line: Mapping[str, Any]) -> None:
  """Prints one measurement as one JSON line."""
  print(json.dumps(line), flush=True)
