"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import jax
import numpy as np
import tqdm

# Seconds between plain lines: soon at first, rarely later.
_FIRST_PAUSE, _LAST_PAUSE = 2.0, 30.0


class Progress:
  """Tells on stderr how far a run is, how fast it goes and when it ends.

  Example:
    >>> progress = Progress(num_steps=2, step=0)
    >>> progress.update(1, {'loss': 0.5})
    >>> progress.close()
  """

  def __init__(self, num_steps: int, step: int):
    """Begins the clock, so make it when everything is compiled.

    Args:
      num_steps: the step at which the run ends.
      step: the step it starts from.
    """
    self._quiet = jax.process_index() > 0
    self._num_steps = num_steps
    self._first_step = step
    self._start = time.monotonic()
    self._next_line = self._start
    self._pause = _FIRST_PAUSE
    self._bar = None
    if sys.stderr.isatty() and not self._quiet:
      sized = _has_size(sys.stderr)
      self._bar = tqdm.tqdm(
        total=num_steps,
        initial=step,
        unit='step',
        dynamic_ncols=sized,
        ncols=None if sized else 80,
        nrows=None if sized else 24,
      )

  def update(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Shows a step that is done; plain lines only now and then.

    Args:
      step: the number of steps done.
      metrics: the numbers of that step, of which the first few are shown.
    """
    if self._bar is not None:
      self._bar.set_postfix_str(summary(metrics), refresh=False)
      self._bar.update(step - self._bar.n)
      return
    now = time.monotonic()
    if self._quiet or (now < self._next_line and step < self._num_steps):
      return
    self._next_line = now + self._pause
    self._pause = min(2 * self._pause, _LAST_PAUSE)
    rate = (step - self._first_step) / max(now - self._start, 1e-9)
    left = (self._num_steps - step) / rate if rate else float('inf')
    say(
      f'step {step}/{self._num_steps} '
      f'({100 * step // max(self._num_steps, 1)}%), {speed(rate)}, '
      f'{duration(left)} left, {summary(metrics)}'
    )

  def close(self) -> None:
    """Leaves the bar as it is and the terminal to others."""
    if self._bar is not None:
      self._bar.close()


def _has_size(terminal: TextIO) -> bool:
  """Whether a terminal knows its size; those of containers often do not."""
  try:
    return all(os.get_terminal_size(terminal.fileno()))
  except OSError:
    return False


def say(line: str) -> None:
  """Prints a line on stderr, above the bar if there is one.

  Of many processes the first one speaks.
  """
  if jax.process_index() > 0:
    return
  tqdm.tqdm.write(line, file=sys.stderr)
  sys.stderr.flush()


def summary(metrics: Mapping[str, Any], count: int = 4) -> str:
  """The first few numbers of the metrics, in a line.

  >>> summary({'loss': 0.51234, 'visits': np.ones(7), 'accuracy': 1})
  'loss 0.5123, accuracy 1'
  """
  numbers = [
    f'{name} {float(value):.4g}'
    for name, value in metrics.items()
    if value is not None and np.ndim(value) == 0
  ]
  return ', '.join(numbers[:count])


def speed(rate: float) -> str:
  """A rate in steps a second, or in seconds a step if they are long.

  >>> speed(12.345), speed(0.25)
  ('12.3 steps/s', '4.0 s/step')
  """
  if rate >= 1 or not rate:
    return f'{rate:.1f} steps/s'
  return f'{1 / rate:.1f} s/step'


def duration(seconds: float) -> str:
  """A time as people read it.

  >>> duration(7.25), duration(42), duration(65), duration(3 * 3600 + 120)
  ('7.2 s', '42 s', '1:05', '3:02:00')
  """
  if seconds == float('inf'):
    return 'unknown time'
  if seconds < 9.95:
    return f'{seconds:.1f} s'
  if seconds < 59.5:
    return f'{seconds:.0f} s'
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02d}:{seconds:02d}'
  return f'{minutes}:{seconds:02d}'
