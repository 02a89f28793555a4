"""Several processes of one program on one machine.

    python -m dl_lectures.training.launch 2 python -m experiments.alphazero ...

Each finds the others by `sharding.initialize_distributed()`. On a cluster
`srun` or `mpirun` does this job. What this one adds is a clear end: processes
that lose a peer fail too, with long traces about sockets. Here they are stopped
at once, and one line says which was the first, and how to go on.
"""

import argparse
import collections
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

# Between the death of a process and that of those who talk to it.
_SECONDS_BEHIND = 0.5


class ProcessDiedError(RuntimeError):
  """One of the processes died and the others were stopped.

  Attributes:
    exit_code: its own, or 128 + the signal's number.
  """

  def __init__(self, message: str, exit_code: int):
    super().__init__(message)
    self.exit_code = exit_code


def launch(
  command: Sequence[str],
  num_processes: int,
  environment: Mapping[str, str] | None = None,
) -> None:
  """Runs a command in several processes, and waits for all of them.

  What they write to stderr comes half a second late, so that nothing comes of
  those who only lost a peer. Ctrl-C reaches every one of them, as it would the
  program alone; a second one ends them.

  Args:
    command: the program and its arguments, the same for all.
    num_processes: how many.
    environment: variables besides those of this process.

  Raises:
    ProcessDiedError: when one ends with anything but 0; the message says which,
      how, and how to go on.
  """
  shared = {
    **os.environ,
    'GRPC_VERBOSITY': 'ERROR',
    **(environment or {}),
    'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{free_port()}',
    'JAX_NUM_PROCESSES': str(num_processes),
  }
  children = [
    _Child(command, {**shared, 'JAX_PROCESS_ID': str(i)})
    for i in range(num_processes)
  ]
  interrupts = 0
  try:
    while True:
      try:
        if dead := _first_dead(children):
          dead.say(behind=0)
          code = dead.process.returncode
          raise ProcessDiedError(
            f'process {children.index(dead)} of {num_processes} {_how(code)}; '
            'the others were stopped. The same command goes on from the last '
            'checkpoint',
            code if code > 0 else 128 - code,
          )
        for child in children:
          child.say(_SECONDS_BEHIND)
        if all(child.process.poll() == 0 for child in children):
          for child in children:
            child.say(behind=0)
          return
        time.sleep(0.05)
      except KeyboardInterrupt:
        interrupts += 1
        if interrupts == 2:
          raise
  finally:
    for child in children:
      child.stop()


def free_port() -> int:
  """A port on which nobody listens at this moment."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


class _Child:
  """A process, and the lines of its stderr that were not yet shown."""

  def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
    self.process = subprocess.Popen(
      command,
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
      errors='replace',
    )
    self._lines: collections.deque[tuple[float, str]] = collections.deque()
    assert self.process.stderr is not None
    self._reader = threading.Thread(
      target=self._read, args=(self.process.stderr,), daemon=True
    )
    self._reader.start()

  def say(self, behind: float) -> None:
    """Shows the lines that are older than `behind` seconds."""
    if behind == 0:
      self._reader.join(timeout=1)
    while self._lines and self._lines[0][0] <= time.monotonic() - behind:
      print(self._lines.popleft()[1], end='', file=sys.stderr, flush=True)

  def stop(self) -> None:
    """Ends it: one that waits for a lost peer hears nothing but a kill."""
    self.process.kill()
    self.process.wait()
    self._reader.join(timeout=1)

  def _read(self, stream: IO[str]) -> None:
    with stream:
      for line in stream:
        self._lines.append((time.monotonic(), line))


def _first_dead(children: Sequence[_Child]) -> _Child | None:
  dead = [child for child in children if child.process.poll()]
  if not dead:
    return None
  # A process that is killed takes the others with it, at times before anybody
  # looks; they end by themselves, with an error or an abort.
  time.sleep(_SECONDS_BEHIND / 2)
  for child in children:
    code = child.process.poll()
    if code is not None and code < 0 and code != -signal.SIGABRT:
      return child
  return dead[0]


def _how(code: int) -> str:
  if code > 0:
    return f'ended with exit code {code}'
  return f'was killed by {signal.Signals(-code).name}'


def main() -> int:
  """The command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m dl_lectures.training.launch',
    description='Runs a command in several processes on this machine.',
  )
  parser.add_argument('num_processes', type=int, metavar='N')
  parser.add_argument('command', nargs=argparse.REMAINDER)
  arguments = parser.parse_args()
  if not arguments.command or arguments.num_processes < 1:
    parser.error('a number of processes and a command are needed')
  try:
    launch(arguments.command, arguments.num_processes)
  except ProcessDiedError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  except KeyboardInterrupt:
    return 130
  return 0


if __name__ == '__main__':
  sys.exit(main())
