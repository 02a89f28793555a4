"""A measurement of many parts, each kept as soon as it is done.

The same command goes on where it was stopped.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from dl_lectures import types
from dl_lectures.training import checkpoint, logging, loop
from dl_lectures.training.progress import say

Found = dict[str, dict[str, Any]]


def measure(
  config: Any,
  workdir: str | None,
  parts: Iterable[tuple[str, Callable[[types.Key], Mapping[str, Any]]]],
) -> Found:
  """Measures what is not measured yet.

  Args:
    config: the dataclass of the settings, with a field `seed`.
    workdir: where parts are kept; None keeps nothing.
    parts: (name, key -> result), in an order that never changes: part i gets
      the i-th key of the seed. Names are different, and a slash in them is a
      dash in the file's.

  Returns:
    Name -> the result as JSON gives it back, with `seconds`.

  Raises:
    UsageError: the workdir cannot be written, or is of other settings.
  """
  if workdir is None:
    with tempfile.TemporaryDirectory() as folder:
      return measure(config, folder, parts)
  loop.check_writable(workdir)
  checkpoint.check_config(workdir, config)
  folder = pathlib.Path(workdir, 'parts')
  folder.mkdir(parents=True, exist_ok=True)
  pathlib.Path(workdir, 'config.json').write_text(
    json.dumps(dataclasses.asdict(config), indent=2) + '\n'
  )
  found: Found = {}
  for i, (name, part) in enumerate(parts):
    path = folder / f'{name.replace("/", "-")}.json'
    if not path.exists():
      start = time.monotonic()
      say(f'{name} ...')
      key = jax.random.fold_in(jax.random.key(config.seed), i)
      result = logging.to_json(part(key))
      result['seconds'] = time.monotonic() - start
      temporary = path.with_suffix('.tmp')
      temporary.write_text(json.dumps(result) + '\n')
      os.replace(temporary, path)
    found[name] = json.loads(path.read_text())
  return found


def minutes(found: Found) -> float:
  """How long all parts took together."""
  return sum(result['seconds'] for result in found.values()) / 60
