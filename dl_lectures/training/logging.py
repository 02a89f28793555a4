"""Metrics on disk: one JSON line per step, and TensorBoard events.

`metrics.jsonl` is the record, the events are a view of it. A line holds
`step`, `seconds` (of training so far, over all resumptions) and the metrics of
that step; arrays are lists, and a number that is not finite is null.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

_FILE = 'metrics.jsonl'


class MetricsWriter:
  """Writes metrics under a workdir, one record per step, steps rising.

  Example:
    >>> import tempfile
    >>> workdir = tempfile.mkdtemp()
    >>> writer = MetricsWriter(workdir)
    >>> writer.write(1, {'loss': 2.0})
    >>> writer.write(2, {'loss': 1.0, 'per_class': np.array([0.5, 0.25])})
    >>> writer.close()
    >>> MetricsWriter(workdir, resume_step=1).close()
    >>> read(workdir)
    [{'step': 1, 'loss': 2.0}]
  """

  def __init__(self, workdir: str, resume_step: int | None = None):
    """Opens the files, and forgets what was written after `resume_step`.

    Args:
      workdir: an existing directory.
      resume_step: the step that training goes on from; later lines, left by a
        run that was killed, are removed, so that no step is there twice. None
        for a fresh start, which removes them all.
    """
    self._path = os.path.join(workdir, _FILE)
    self._events_directory = workdir
    self._resume_step = resume_step
    self._events: Any = None
    kept = -1 if resume_step is None else resume_step
    lines = [r for r in read(workdir) if r['step'] <= kept]
    temporary = self._path + '.tmp'
    with open(temporary, 'w', encoding='utf-8') as file:
      file.writelines(json.dumps(line) + '\n' for line in lines)
    os.replace(temporary, self._path)
    self._file = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Appends one record.

    Args:
      step: larger than that of the last record.
      metrics: name -> number, or an array of any shape.
    """
    record = {'step': step, **{k: to_json(v) for k, v in metrics.items()}}
    self._file.write(json.dumps(record) + '\n')
    self._file.flush()
    if self._events is None:
      # Takes a second to import.
      from tensorboardX import SummaryWriter

      # A purge step hides what a killed run wrote after it.
      purge = None if self._resume_step is None else self._resume_step + 1
      self._events = SummaryWriter(self._events_directory, purge_step=purge)
    for name, value in record.items():
      if isinstance(value, int | float) and name != 'step':
        self._events.add_scalar(name, value, step)

  def sync(self) -> None:
    """Brings everything to the disk: before a checkpoint that relies on it."""
    self._file.flush()
    os.fsync(self._file.fileno())
    if self._events is not None:
      self._events.flush()

  def close(self) -> None:
    """Brings everything to the disk and closes the files."""
    self.sync()
    self._file.close()
    if self._events is not None:
      self._events.close()


def read(workdir: str) -> list[dict[str, Any]]:
  """The records of a run, in order of their steps.

  Args:
    workdir: the run's directory; without a metrics file there are no records.

  Returns:
    One dict per step. A last line that a crash cut short is left out.
  """
  try:
    with open(os.path.join(workdir, _FILE), encoding='utf-8') as file:
      lines = file.read().splitlines()
  except FileNotFoundError:
    return []
  records = []
  for line in lines:
    try:
      record = json.loads(line)
    except ValueError:
      continue
    if isinstance(record, dict) and isinstance(record.get('step'), int):
      records.append(record)
  return records


def to_json(value: Any) -> Any:
  """A value as JSON knows it: arrays as lists, NaN and infinities as null.

  >>> to_json({'a': np.float32(0.5), 'b': (np.int32(1), float('nan'))})
  {'a': 0.5, 'b': [1, None]}
  """
  if isinstance(value, Mapping):
    return {str(name): to_json(v) for name, v in value.items()}
  if isinstance(value, list | tuple):
    return [to_json(v) for v in value]
  if isinstance(value, np.ndarray | np.generic) or hasattr(value, 'tolist'):
    return to_json(np.asarray(value).tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
