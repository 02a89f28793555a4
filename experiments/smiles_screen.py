"""Ranks a library of molecules by what a trained SMILES-LSTM says of them.

The library is a file of any length, compressed by gzip or not: a CSV file whose
header has a column `smiles`, or lines of a SMILES and what belongs to it (a
name), with a blank between. It is read once, line by line, and never held in
memory. A line that is no molecule is told with its number, and the screen goes
on; all of them are listed in OUTPUT.errors.csv.

The output is a CSV file, the best first:

  rank, line, smiles, name, score, probability

`score` is the network's log-odds, of several tasks their mean; `probability` is
what the curve that was fitted on molecules held out of training makes of it (of
several tasks the mean). Of molecules with the same score the earlier is first.

A screen that was stopped or killed goes on with the same command, from
OUTPUT.state, and ends with the same file.
"""

import contextlib
import csv
import hashlib
import heapq
import itertools
import json
import os
import pathlib
import time
import zlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import numpy as np
import tqdm

from dl_lectures.analysis import calibration
from dl_lectures.data import molecules
from dl_lectures.systems import smiles_lstm
from dl_lectures.training import loop, progress
from dl_lectures.types import UsageError
from experiments import tool

# Lines of a part. A part is scored whole, so that its scores do not depend on
# where a screen was stopped.
PART = 4096
# Seconds between two records of how far it is, and between two lines that tell
# it where there is no bar.
_SAVE_EVERY = 5.0
_TELL_EVERY = 30.0
# Wrong lines that are told, of all that are listed.
_TOLD = 10
# What is no molecule by its length: a file without ends of lines.
_LONGEST_LINE = 1 << 16

HEADER = ('rank', 'line', 'smiles', 'name', 'score', 'probability')


class Found(NamedTuple):
  """A molecule that is among the best so far; the least is first in a heap."""

  score: float
  minus_line: int
  probability: float
  smiles: str
  name: str


class Place(NamedTuple):
  """How far a screen is; all that it takes to go on.

  Attributes:
    line: lines that were read.
    offset: bytes that were read, after decompression.
    scored: molecules.
    wrong: lines that are no molecule.
    best: the best so far, a heap.
  """

  line: int
  offset: int
  scored: int
  wrong: int
  best: list[Found]


class Format(NamedTuple):
  """How a library's lines are read.

  Attributes:
    width: fields of a CSV line; 0 for lines of a SMILES and a name.
    smiles: the field that holds it.
    name: the field that holds its name; None without one.
  """

  width: int = 0
  smiles: int = 0
  name: int | None = None


class Screen:
  """A network, and the tasks by which it ranks."""

  def __init__(self, model: smiles_lstm.Model, tasks: Sequence[str]):
    """Raises UsageError for a task that the model does not have."""
    for task in tasks:
      if task not in model.tasks:
        raise UsageError(
          f'--tasks={",".join(tasks)}: the model has no task {task!r}; '
          f'possible: {", ".join(model.tasks)}'
        )
    self._model = model
    self._net: hk.Transformed = smiles_lstm.network(
      model.config, len(model.tasks)
    )
    self._which = [model.tasks.index(task) for task in tasks or model.tasks]

  def read(self, smiles: str) -> list[str]:
    """The symbols of a molecule, as the model was given them.

    Raises:
      UsageError: it is no SMILES.
    """
    symbols = molecules.tokenize(smiles)
    if self._model.config.canonical:
      (smiles,) = molecules.canonical([smiles])
      symbols = molecules.tokenize(smiles)
    return symbols

  def score(
    self, symbols: Sequence[Sequence[str]]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Scores and probabilities of molecules, [N] each."""
    config = self._model.config
    tokens, lengths = molecules.encode(
      self._model.vocabulary, symbols, config.longest
    )
    scores = smiles_lstm.predict(
      config, self._net, self._model.params, tokens.astype(np.int16), lengths
    )[:, self._which]
    p = [
      calibration.probability(self._model.curves[task], column)
      for task, column in zip(self._which, scores.T, strict=True)
    ]
    return scores.mean(-1), np.mean(p, axis=0)


def main_screen(
  model: str, library: str, top: int, tasks: tuple[str, ...], output: str
) -> None:
  """Screens, from the start or from where it was stopped."""
  _check_output(output)
  trained = smiles_lstm.load(model)
  screen = Screen(trained, tasks)
  if trained.config.canonical:
    molecules.canonical([])  # tells at once if RDKit is missing
  told = {
    'model': _digest(trained),
    'library': _stamp(library),
    'top': top,
    'tasks': list(tasks or trained.tasks),
    'part': PART,
  }
  state = pathlib.Path(f'{output}.state')
  errors = pathlib.Path(f'{output}.errors.csv')
  start = read_state(state, told)
  if start.line:
    progress.say(f'going on after line {start.line:,}')
  begin = time.monotonic()
  damage = ''
  with contextlib.closing(Wrong(errors, start)) as wrong:
    place = start
    saved = begin
    try:
      for place in run(screen, library, top, start, wrong):
        if time.monotonic() - saved > _SAVE_EVERY:
          write_state(state, told, place, wrong)
          saved = time.monotonic()
    except KeyboardInterrupt:
      write_state(state, told, place, wrong)
      raise
    except _DamagedError as error:
      damage = f'{error}; what came before it is ranked in {output}'
  if not place.scored:
    raise UsageError(
      damage or f'{library} holds no molecule; {place.wrong:,} lines are none'
    )
  write_output(output, place.best)
  state.unlink(missing_ok=True)
  if not place.wrong:
    errors.unlink(missing_ok=True)
  seconds = time.monotonic() - begin
  rate = (place.scored - start.scored) / seconds
  progress.say(
    f'{place.scored:,} molecules, {rate:,.0f} a second, '
    f'{progress.duration(seconds)}'
    + (f'; {place.wrong:,} lines are none: {errors}' if place.wrong else '')
    + f'; the best {len(place.best):,}: {output}'
  )
  if damage:
    raise OSError(damage)


def run(
  screen: Screen, library: str, top: int, place: Place, wrong: 'Wrong'
) -> Generator[Place]:
  """Goes through the library from a place to its end, part by part."""
  shape, first = read_format(library)
  place = place if place.line else first
  yield place
  size = max(1, os.path.getsize(library))
  with (
    _opened(library) as file,
    tqdm.tqdm(
      total=size, unit='B', unit_scale=True, disable=None, dynamic_ncols=True
    ) as bar,
  ):
    with _readable(library, place.line):
      file.seek(place.offset)
    begin, before, told = time.monotonic(), place.scored, time.monotonic()
    start = _position(file)
    lines = _lines(file, library, place.line)
    while part := list(itertools.islice(lines, PART)):
      place = _score_part(screen, part, shape, top, place, wrong)
      yield place
      now, at = time.monotonic(), _position(file)
      rate = (place.scored - before) / max(now - begin, 1e-9)
      so_far = f'{place.scored:,} molecules, {rate:,.0f}/s'
      bar.set_postfix_str(so_far, refresh=False)
      bar.update(at - bar.n)
      if bar.disable and now - told > _TELL_EVERY:
        left = (now - begin) * (size - at) / max(at - start, 1)
        progress.say(
          f'{100 * at // size}%, {so_far}, {progress.duration(left)} left'
        )
        told = now


def _score_part(
  screen: Screen,
  part: Sequence[tuple[int, int, bytes]],
  shape: Format,
  top: int,
  place: Place,
  wrong: 'Wrong',
) -> Place:
  """Scores the molecules of some lines, and keeps the best of all."""
  symbols, texts = [], []
  for number, _, line in part:
    try:
      smiles, name = read_line(line, shape)
      symbols.append(screen.read(smiles))
      texts.append((number, smiles, name))
    except UsageError as error:
      wrong.tell(number, str(error))
  best = list(place.best)
  if symbols:
    for (number, smiles, name), score, p in zip(
      texts, *screen.score(symbols), strict=True
    ):
      new = Found(float(score), -number, float(p), smiles, name)
      if len(best) < top:
        heapq.heappush(best, new)
      elif new > best[0]:
        heapq.heapreplace(best, new)
  number, offset, _ = part[-1]
  return Place(number, offset, place.scored + len(symbols), wrong.count, best)


def read_line(line: bytes, shape: Format) -> tuple[str, str]:
  """The SMILES and the name in a line.

  Raises:
    UsageError: it cannot be read.

  >>> read_line(b'CCO ethanol', Format())
  ('CCO', 'ethanol')
  >>> read_line(b'7,"C(C)O",x', Format(3, smiles=1, name=0))
  ('C(C)O', '7')
  """
  if len(line) > _LONGEST_LINE:
    raise UsageError(f'a line of more than {_LONGEST_LINE} characters')
  try:
    text = line.decode().rstrip('\r\n')
  except UnicodeDecodeError:
    raise UsageError('it is no text in UTF-8') from None
  if not shape.width:
    smiles, _, name = text.strip().replace('\t', ' ').partition(' ')
    return smiles, name.strip()
  try:
    (row,) = csv.reader([text], strict=True)
  except (csv.Error, ValueError) as error:
    raise UsageError(f'it is broken: {error}') from None
  if len(row) != shape.width:
    raise UsageError(
      f'{len(row)} fields; as many as the header has, {shape.width}, are '
      'possible'
    )
  name = '' if shape.name is None else row[shape.name].strip()
  return row[shape.smiles].strip(), name


def read_format(library: str) -> tuple[Format, Place]:
  """How the lines are to be read, and where the first molecule is."""
  with _opened(library) as file, _readable(library, 0):
    line = file.readline(_LONGEST_LINE)
  start = Place(0, 0, 0, 0, [])
  try:
    (header,) = csv.reader([line.decode('utf-8-sig').rstrip('\r\n')])
  except (csv.Error, ValueError):
    return Format(), start
  lowered = [name.strip().lower() for name in header]
  if 'smiles' not in lowered:
    if not line.strip():
      raise UsageError(f'{library} is empty, or its first line is')
    if len(header) > 1 and ' ' not in line.decode().strip():
      raise UsageError(
        f'{library}: no column smiles in its header; it has '
        f'{", ".join(header[:8])}'
      )
    return Format(), start
  names = [
    i
    for i, name in enumerate(lowered)
    if name in ('name', 'id') or name.endswith('_id')
  ]
  shape = Format(
    len(header), lowered.index('smiles'), names[0] if names else None
  )
  return shape, start._replace(line=1, offset=len(line))


def _lines(
  file: Any, library: str, number: int
) -> Iterator[tuple[int, int, bytes]]:
  """(number, where it ends, line) of all lines but empty ones, from 1 on."""
  while True:
    with _readable(library, number):
      line = rest = file.readline(_LONGEST_LINE + 1)
      # What is left of one too long is passed over, not kept.
      while len(rest) > _LONGEST_LINE and not rest.endswith(b'\n'):
        rest = file.readline(_LONGEST_LINE + 1)
      end = file.tell()
    if not line:
      return
    number += 1
    if line.strip():
      yield number, end, line


class _DamagedError(Exception):
  """The library cannot be read on; the message says from where."""


@contextlib.contextmanager
def _readable(library: str, number: int) -> Iterator[None]:
  try:
    yield
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, 'strerror', None) or str(error)
    raise _DamagedError(
      f'{library} cannot be read after line {number}: {reason}'
    ) from error


@contextlib.contextmanager
def _opened(library: str) -> Iterator[Any]:
  try:
    file = molecules.open_bytes(library)
  except OSError as error:
    raise UsageError(
      f'--library={library} cannot be read: {error.strerror}'
    ) from error
  with file:
    yield file


def _position(file: Any) -> int:
  """Bytes that were read of the file as it is on disk."""
  raw = getattr(file, 'fileobj', None)
  return (raw or file).tell()


class Wrong:
  """The lines that are no molecule: the first are told, all are listed."""

  def __init__(self, path: pathlib.Path, place: Place):
    """Opens the list, as long as it was at that place."""
    self.count = place.wrong
    kept: list[str] = []
    if place.wrong:
      with (
        contextlib.suppress(FileNotFoundError),
        open(path, encoding='utf-8', newline='') as file,
      ):
        kept = list(itertools.islice(file, 1 + place.wrong))
    self._file = open(path, 'w', encoding='utf-8', newline='')  # noqa: SIM115
    self._rows = csv.writer(self._file, lineterminator='\n')
    if kept:
      self._file.writelines(kept)
    else:
      self._rows.writerow(('line', 'reason'))

  def tell(self, number: int, reason: str) -> None:
    """Lists a line, and tells it if it is one of the first."""
    reason = ' '.join(reason.split())
    self._rows.writerow((number, reason))
    self.count += 1
    if self.count <= _TOLD:
      progress.say(f'line {number}: {reason}')
    elif self.count == _TOLD + 1:
      progress.say(f'further lines that are none: {self._file.name}')

  def sync(self) -> None:
    """Returns when all is on disk."""
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the list."""
    self._file.close()


def read_state(path: pathlib.Path, told: dict[str, Any]) -> Place:
  """Where the screen was stopped; the beginning without a record.

  Raises:
    UsageError: the record is of another screen.
  """
  try:
    kept = json.loads(path.read_text(encoding='utf-8'))
    differing = [name for name in told if kept['told'].get(name) != told[name]]
    place = Place(*kept['place'])
  except FileNotFoundError:
    return Place(0, 0, 0, 0, [])
  except (ValueError, KeyError, TypeError) as error:
    raise UsageError(f'{path} is no record of a screen; remove it') from error
  if differing:
    raise UsageError(
      f'{path} is of a screen with another {differing[0]}; end that one with '
      'its own command, remove the file, or give another --output'
    )
  return place._replace(best=[Found(*row) for row in place.best])


def write_state(
  path: pathlib.Path, told: dict[str, Any], place: Place, wrong: Wrong
) -> None:
  """Records a place, whole or not at all."""
  # The record never knows of more wrong lines than their list.
  wrong.sync()
  temporary = path.with_name(f'{path.name}.tmp')
  with open(temporary, 'w', encoding='utf-8') as file:
    json.dump({'told': told, 'place': place}, file)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def write_output(output: str, best: Sequence[Found]) -> None:
  """Writes the best, in order, whole or not at all."""
  temporary = f'{output}.tmp'
  with open(temporary, 'w', encoding='utf-8', newline='') as file:
    rows = csv.writer(file, lineterminator='\n')
    rows.writerow(HEADER)
    for rank, found in enumerate(sorted(best, reverse=True), 1):
      rows.writerow(
        (
          rank,
          -found.minus_line,
          found.smiles,
          found.name,
          f'{found.score:.6g}',
          f'{found.probability:.6g}',
        )
      )
  os.replace(temporary, output)


def _digest(model: smiles_lstm.Model) -> str:
  """Names a model by all that it says."""
  digest = hashlib.sha256(repr(model[:-1]).encode())
  for leaf in jax.tree.leaves(model.params):
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()


def _stamp(library: str) -> list[Any]:
  """Names a file by its place, its length and its time."""
  try:
    found = os.stat(library)
  except OSError as error:
    raise UsageError(
      f'--library={library} cannot be read: {error.strerror}'
    ) from error
  return [os.path.realpath(library), found.st_size, found.st_mtime_ns]


def _check_output(output: str) -> None:
  """Refuses what cannot be written, before anything is read."""
  if os.path.isdir(output):
    raise UsageError(f'--output={output} is a directory; a file is possible')
  loop.check_writable(os.path.dirname(os.path.abspath(output)))
  os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)


def _names(text: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in text.split(',') if name.strip())


def main() -> None:
  """Runs the program."""
  tool.run(
    main_screen,
    doc=__doc__,
    flags=(
      tool.Flag('model', 'the workdir of experiments.smiles_lstm'),
      tool.Flag('library', 'a file of molecules'),
      tool.Flag(
        'top', 'how many are kept', 1000, tool.whole_number(1, 1_000_000)
      ),
      tool.Flag(
        'tasks',
        'outputs to rank by, with commas between; all of them unless given',
        (),
        _names,
      ),
      tool.Flag('output', 'a CSV file', 'screen.csv'),
    ),
    examples=(
      '--model=runs/tox21/seed_0 --library=library.smi.gz --top=30000',
      '--model=runs/tox21/seed_0 --library=library.csv --tasks=SR-MMP,SR-p53',
      '--model=runs/tox21/seed_0 --library=runs/tox21/seed_0/held_out.csv',
    ),
  )


if __name__ == '__main__':
  main()
