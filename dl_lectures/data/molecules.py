"""Molecules as SMILES, with what assays found of them: two ways to get them.

  load('made')          molecules made here, with rules for assays: on any
                        machine, nothing to fetch
  load('tox21.csv.gz')  a table of your own, compressed or not: a column
                        `smiles`, and one of 0, 1 or blank for each task. So
                        MoleculeNet publishes Tox21, SIDER, ClinTox and others.

A blank is a molecule that the assay was not run on: it says nothing, and is
neither learned from nor judged by. Columns that hold other things (names, ids)
are left alone.

SMILES (Weininger, 1988; opensmiles.org) writes a molecule as a walk through its
atoms: branches stand in parentheses, and a ring is cut at a bond whose two ends
bear the same number. Here its tokens are atoms (`C`, `Cl`, `[nH]`), bonds,
parentheses and numbers of rings (`1`, `%12`). A text is refused that is not
SMILES; whether there can be such a molecule, by its valences, is not asked.

RDKit (BSD; pip install 'dl_lectures[molecules]', 32 MB to fetch and 164 MB on
disk) is needed for three things alone: to split by scaffolds, and to write
molecules all in one way or each in another order. Slides: deck 002, screening.
"""

import collections
import contextlib
import csv
import gzip
import importlib.util
import io
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dl_lectures.types import UsageError

PAD, UNKNOWN = 0, 1
MISSING = -1
SPLITS = ('random', 'scaffold', 'time')
# How much is learned from, chosen by, tested on (MoleculeNet).
FRACTIONS = (0.8, 0.1, 0.1)

_ELEMENTS = re.findall(
  '[A-Z][a-z]?',
  'HHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTc'
  'RuRhPdAgCdInSnSbTeIXeCsBaLaCePrNdPmSmEuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPb'
  'BiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg',
)
# The longest first: `Cl` is no carbon.
_SYMBOLS = '|'.join(sorted(_ELEMENTS, key=lambda name: -len(name)))
_IN_BRACKETS = re.compile(
  rf'\[\d*(?:{_SYMBOLS}|se|as|te|[bcnops]|\*)'
  r'(?:@(?:@|TH[12]|AL[12]|SP[123]|TB\d\d?|OH\d\d?)?)?'
  r'(?:H\d*)?(?:\+{1,4}|-{1,4}|[+-]\d\d?)?(?::\d+)?\]'
)
# A backslash that was escaped twice is in published tables, and in no molecule.
_TOKEN = re.compile(
  r'\[[^\[\]]*\]|Br|Cl|%\d\d|%\(\d+\)|\\\\|->|<-|.', re.DOTALL
)

# What a token is, and after which others it may stand.
_ATOM, _BOND, _RING, _OPEN, _CLOSE, _DOT, _NOTHING = range(7)
_KINDS = (
  dict.fromkeys(['Br', 'Cl', *'BCNOPSFIbcnops*'], _ATOM)
  | dict.fromkeys('-=#$:/\\', _BOND)
  | dict.fromkeys('0123456789', _RING)
  | {'(': _OPEN, ')': _CLOSE, '.': _DOT, '\\\\': _BOND}
  # RDKit's own, for bonds of metals.
  | dict.fromkeys(['->', '<-'], _BOND)
)
_ENDED = frozenset((_ATOM, _RING, _CLOSE))
_AFTER = {
  _ATOM: frozenset(range(7)),
  _BOND: _ENDED | {_OPEN},
  _RING: _ENDED | {_BOND},
  _OPEN: _ENDED,
  _CLOSE: _ENDED,
  _DOT: _ENDED | {_OPEN},
}


class Table(NamedTuple):
  """Molecules, and what is known of them.

  Attributes:
    name: where they are from, for titles.
    smiles: N texts.
    tasks: the names of K tasks.
    labels: [N, K] int8, 1, 0 or MISSING.
    times: [N], by which they are ordered; None where nothing is told.
  """

  name: str
  smiles: tuple[str, ...]
  tasks: tuple[str, ...]
  labels: np.ndarray
  times: np.ndarray | None = None


class Parts(NamedTuple):
  """The numbers of the molecules of each part."""

  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray


class Vocabulary(NamedTuple):
  """What tokens stand for: PAD, UNKNOWN, then the symbols."""

  symbols: tuple[str, ...]

  @property
  def size(self) -> int:
    """V, the number of tokens."""
    return 2 + len(self.symbols)


def tokenize(smiles: str) -> list[str]:
  """A molecule as its symbols.

  Raises:
    UsageError: it is not SMILES, and where.

  >>> tokenize('C[C@@H](Cl)c1cc%10ccc1CC%10')
  ['C', '[C@@H]', '(', 'Cl', ')', 'c', '1', 'c', 'c', '%10', 'c', 'c', 'c', \
'1', 'C', 'C', '%10']
  >>> tokenize('C1CC(=O)N')
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: SMILES 'C1CC(=O)N': ring 1 is opened and not \
closed
  """
  tokens = _TOKEN.findall(smiles)
  before, depth = _NOTHING, 0
  rings: dict[str, int] = {}
  atoms = 0
  for number, token in enumerate(tokens):
    kind = _KINDS.get(token)
    if kind is None:
      kind = _other_kind(smiles, tokens, number)
    if before not in _AFTER[kind]:
      raise _wrong(smiles, tokens, number, 'cannot stand there')
    if kind == _ATOM:
      atoms += 1
    elif kind == _OPEN:
      depth += 1
    elif kind == _CLOSE:
      depth -= 1
      if depth < 0:
        raise _wrong(smiles, tokens, number, 'closes nothing')
    elif kind == _RING:
      # %01 and %(1) are 1.
      name = token.lstrip('%(0').rstrip(')') or '0'
      if rings.get(name) == atoms:
        raise _wrong(smiles, tokens, number, 'joins an atom to itself')
      if name in rings:
        del rings[name]
      else:
        rings[name] = atoms
    before = kind
  if depth:
    raise _refused(smiles, f'{depth} of its parentheses are not closed')
  if rings:
    raise _refused(smiles, f'ring {min(rings)} is opened and not closed')
  if before not in _ENDED:
    raise _refused(smiles, 'an atom is missing at the end')
  if '\\\\' in smiles:
    return [token.replace('\\\\', '\\') for token in tokens]
  return tokens


def _other_kind(smiles: str, tokens: Sequence[str], number: int) -> int:
  """Of atoms in brackets and of rings from 10 on."""
  token = tokens[number]
  if token[0] == '%' and len(token) > 1:
    return _RING
  if len(token) > 1 and _IN_BRACKETS.fullmatch(token):
    return _ATOM
  raise _wrong(smiles, tokens, number, 'is not SMILES')


def _wrong(
  smiles: str, tokens: Sequence[str], number: int, reason: str
) -> UsageError:
  place = 1 + sum(map(len, tokens[:number]))
  return _refused(smiles, f'character {place}, {tokens[number]!r}, {reason}')


def _refused(smiles: str, reason: str) -> UsageError:
  shown = smiles if len(smiles) <= 60 else f'{smiles[:57]}...'
  return UsageError(f'SMILES {shown!r}: {reason}')


def learn(smiles: Iterable[str], size: int) -> Vocabulary:
  """The most frequent symbols of some molecules.

  Args:
    smiles: the molecules.
    size: V; `size - 2` symbols at most.

  >>> learn(['CCO', 'CN'], size=4).symbols
  ('C', 'N')
  """
  if size < 3:
    raise UsageError(f'a vocabulary of {size} tokens; at least 3 are possible')
  counts: collections.Counter[str] = collections.Counter()
  for text in smiles:
    counts.update(tokenize(text))
  ranked = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
  return Vocabulary(tuple(ranked[: size - 2]))


def encode(
  vocabulary: Vocabulary, molecules: Sequence[Sequence[str]], longest: int
) -> tuple[np.ndarray, np.ndarray]:
  """Molecules as tokens.

  Args:
    vocabulary: V tokens.
    molecules: the symbols of each of N, from `tokenize`.
    longest: T; of a longer molecule the first T symbols are kept.

  Returns:
    [N, T] int32, padded on the right, and lengths [N] int32.

  >>> tokens, lengths = encode(Vocabulary(('C', 'N')), [['C', 'N', 'O']], 4)
  >>> tokens.tolist(), lengths.tolist()
  ([[2, 3, 1, 0]], [3])
  """
  known = {symbol: 2 + i for i, symbol in enumerate(vocabulary.symbols)}
  tokens = np.full((len(molecules), longest), PAD, np.int32)
  lengths = np.zeros(len(molecules), np.int32)
  for i, symbols in enumerate(molecules):
    kept = symbols[:longest]
    tokens[i, : len(kept)] = [known.get(symbol, UNKNOWN) for symbol in kept]
    lengths[i] = len(kept)
  return tokens, lengths


def load(
  source: str = 'made',
  tasks: Sequence[str] = (),
  time_column: str = '',
) -> Table:
  """Molecules by the name of their set, or by the path of their table.

  Args:
    source: 'made', or a CSV file whose header has a column `smiles`,
      compressed by gzip or not.
    tasks: the columns to learn; by default all that hold 0, 1 and blanks.
    time_column: what a split by time goes by, a number or a date such as
      2019-05-31 in each row; '' for none.

  Raises:
    UsageError: no such file, or something in it that is not as it should be,
      with its line.

  >>> table = load()
  >>> table.tasks, table.labels.shape
  (('pyridine', 'either', 'halogens'), (3000, 3))
  """
  if source == 'made':
    if tasks or time_column:
      raise UsageError(
        'the molecules that are made have neither tasks to '
        'choose from nor times; a file may have both'
      )
    return made()
  return read(source, tasks, time_column)


def read(
  path: str | os.PathLike[str],
  tasks: Sequence[str] = (),
  time_column: str = '',
) -> Table:
  """A table of molecules; see `load`."""
  where = os.fspath(path)
  with open_text(where) as file:
    rows = _rows(file, where)
    _, header = next(rows, (0, []))
    smiles_at, time_at = _columns(where, header, tasks, time_column)
    numbers, cells = [], []
    for number, row in rows:
      numbers.append(number)
      cells.append(row)
  if not cells:
    raise UsageError(f'{where} holds no molecule')
  columns = {
    name: [row[i].strip() for row in cells]
    for i, name in enumerate(header)
    if i not in (smiles_at, time_at)
  }
  smiles = tuple(row[smiles_at].strip() for row in cells)
  for number, text in zip(numbers, smiles, strict=True):
    with _line_of(where, number):
      tokenize(text)
  chosen = tasks or _find_tasks(where, columns)
  labels = [_labels(where, name, columns[name], numbers) for name in chosen]
  times = None
  if time_at is not None:
    times = _times(where, [row[time_at].strip() for row in cells], numbers)
  return Table(
    pathlib.Path(where).name.removesuffix('.gz').removesuffix('.csv'),
    smiles,
    tuple(chosen),
    np.stack(labels, axis=-1),
    times,
  )


def _columns(
  where: str, header: Sequence[str], tasks: Sequence[str], time_column: str
) -> tuple[int, int | None]:
  """Where the SMILES are, and the times; all that is named is there."""
  lowered = [name.lower() for name in header]
  if 'smiles' not in lowered:
    raise UsageError(
      f'{where}: no column smiles in its header; it has '
      f'{", ".join(header[:8]) or "nothing"}'
    )
  twice = [name for name in header if header.count(name) > 1]
  if twice:
    raise UsageError(f'{where}: two columns are called {twice[0]!r}')
  for name in (*tasks, *([time_column] if time_column else [])):
    if name not in header:
      raise UsageError(
        f'{where}: no column {name!r}; possible: {", ".join(header)}'
      )
  return lowered.index('smiles'), (
    header.index(time_column) if time_column else None
  )


@contextlib.contextmanager
def open_text(path: str) -> Iterator[io.TextIOWrapper]:
  """A text file, compressed by gzip or not: its content tells, not its name.

  Raises:
    UsageError: it cannot be read, at first or further on.
  """
  try:
    with (
      open_bytes(path) as file,
      io.TextIOWrapper(file, encoding='utf-8-sig', newline='') as text,
    ):
      yield text
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or str(error)
    raise UsageError(f'{path} cannot be read: {reason}') from error


def open_bytes(path: str) -> Any:
  """The bytes of a file, decompressed where it begins as gzip does."""
  with open(path, 'rb') as file:
    is_gzip = file.read(2) == b'\x1f\x8b'
  return gzip.open(path, 'rb') if is_gzip else open(path, 'rb')


def _rows(
  file: io.TextIOWrapper, where: str
) -> Iterator[tuple[int, list[str]]]:
  """The rows with their lines' numbers; each as long as the first."""
  reader = csv.reader(file, strict=True)
  width = 0
  try:
    for row in reader:
      width = width or len(row)
      if not row:
        continue
      if len(row) != width:
        raise UsageError(
          f'{where}, line {reader.line_num}: {len(row)} fields; as many as the '
          f'header has, {width}, are possible'
        )
      yield reader.line_num, row
  except csv.Error as error:
    raise UsageError(
      f'{where}, line {reader.line_num} is broken: {error}'
    ) from error


@contextlib.contextmanager
def _line_of(where: str, number: int) -> Iterator[None]:
  """Says in which line a mistake is."""
  try:
    yield
  except UsageError as error:
    raise UsageError(f'{where}, line {number}: {error}') from None


_LABELS = {'0': 0, '1': 1, '0.0': 0, '1.0': 1, '': MISSING}


def _find_tasks(where: str, columns: dict[str, list[str]]) -> list[str]:
  """The columns most of whose cells are labels."""
  found = []
  for name, cells in columns.items():
    told = [cell for cell in cells if cell]
    if not told:
      raise UsageError(
        f'{where}: column {name!r} is empty; remove it, or name the columns to '
        'be learned (config.tasks)'
      )
    if 2 * sum(cell in _LABELS for cell in told) > len(told):
      found.append(name)
  if not found:
    raise UsageError(
      f'{where}: no column of 0, 1 and blanks; it has {", ".join(columns)}'
    )
  return found


def _labels(
  where: str, name: str, cells: Sequence[str], numbers: Sequence[int]
) -> np.ndarray:
  for number, cell in zip(numbers, cells, strict=True):
    if cell not in _LABELS:
      raise UsageError(
        f'{where}, line {number}, column {name!r}: {cell!r}; 0, 1 or nothing '
        'is possible'
      )
  labels = np.array([_LABELS[cell] for cell in cells], np.int8)
  there = {*labels.tolist()} - {MISSING}
  if len(there) < 2:
    what = f'says {there.pop()} everywhere' if there else 'is empty'
    raise UsageError(
      f'{where}: column {name!r} {what}; both 0 and 1 are needed to learn it'
    )
  return labels


def _times(
  where: str, cells: Sequence[str], numbers: Sequence[int]
) -> np.ndarray:
  """Numbers, or dates as days."""
  times = np.zeros(len(cells))
  for i, cell in enumerate(cells):
    try:
      times[i] = (
        np.datetime64(cell, 'D').astype(int)
        if re.fullmatch(r'\d{4}-\d\d(-\d\d)?', cell)
        else float(cell)
      )
    except ValueError:
      times[i] = np.nan
    if not np.isfinite(times[i]):
      raise UsageError(
        f'{where}, line {numbers[i]}: time {cell!r}; a number or a date such '
        'as 2019-05-31 is possible'
      )
  return times


def split(table: Table, kind: str = 'random', seed: int = 0) -> Parts:
  """Divides the molecules, 80 : 10 : 10.

  What is written alike is in one part. By time it is as old as its first.

  Args:
    table: N molecules, 10 at least.
    kind: 'random', by the seed; 'scaffold', by ring systems (Bemis & Murcko,
      1996), the largest groups first, so that the rarest are tested on (RDKit
      is needed); 'time', the oldest first.
    seed: of a random split; the others have none.

  Raises:
    UsageError: no such split of this table.

  >>> parts = split(load(), 'random', seed=0)
  >>> [len(part) for part in parts]
  [2400, 300, 300]
  """
  if kind not in SPLITS:
    raise UsageError(f'split {kind!r}; possible: {", ".join(SPLITS)}')
  if len(table.smiles) < 10:
    raise UsageError(
      f'{table.name}: {len(table.smiles)} molecules; at least 10 can be split'
    )
  names = _scaffolds(table.smiles) if kind == 'scaffold' else [*table.smiles]
  groups: dict[str, list[int]] = {}
  for i, name in enumerate(names):
    groups.setdefault(name, []).append(i)
  members = list(groups.values())
  if kind == 'random':
    order = np.random.default_rng((0x5417, seed)).permutation(len(members))
    members = [members[i] for i in order]
  elif kind == 'scaffold':
    members.sort(key=lambda group: (-len(group), group[0]))
  else:
    times = table.times
    if times is None:
      raise UsageError(
        f'{table.name} has no times to split by; name their column '
        '(config.time_column), or possible: random, scaffold'
      )
    members.sort(key=lambda group: min(times[i] for i in group))
  return _fill(members, len(names))


def _fill(groups: Sequence[Sequence[int]], count: int) -> Parts:
  """Groups in their order; each is where its first molecule would be."""
  bounds = np.cumsum(FRACTIONS[:2]) * count
  parts: tuple[list[int], ...] = ([], [], [])
  done = 0
  for group in groups:
    parts[int(np.searchsorted(bounds, done + 0.5))].extend(group)
    done += len(group)
  if not all(parts):
    raise UsageError(
      'a part of this split is empty, as some molecules belong together; '
      'possible: random'
    )
  return Parts(*(np.array(part) for part in parts))


def class_weights(labels: np.ndarray) -> np.ndarray:
  """What an inactive and an active count for, if both are to count alike.

  n / (2 n_c), so that the mean weight of a label is 1.

  Args:
    labels: [N, K], 1, 0 or MISSING.

  Returns:
    [K, 2] float32: of a 0 and of a 1 of each task; 1 where one does not occur.

  >>> class_weights(np.array([[1], [0], [0], [0], [MISSING]])).round(3).tolist()
  [[0.6669999957084656, 2.0]]
  """
  counts = np.stack([(labels == c).sum(0) for c in (0, 1)], axis=-1)
  total = counts.sum(-1, keepdims=True)
  weights = total / np.maximum(2 * counts, 1)
  return np.where((counts > 0).all(-1, keepdims=True), weights, 1).astype(
    np.float32
  )


def has_rdkit() -> bool:
  """Whether RDKit is installed."""
  return importlib.util.find_spec('rdkit') is not None


def _rdkit(module: str, what: str) -> Any:
  try:
    return importlib.import_module(module)
  except ImportError:
    raise UsageError(
      f'{what} needs RDKit, which is not installed: pip install '
      "'dl_lectures[molecules]'"
    ) from None


def _scaffolds(smiles: Sequence[str]) -> list[str]:
  """The ring systems of molecules; of what RDKit cannot read, its text."""
  scaffold = _rdkit('rdkit.Chem.Scaffolds.MurckoScaffold', 'a scaffold split')
  chem = _rdkit('rdkit.Chem', 'a scaffold split')
  names = []
  with _rdkit('rdkit.rdBase', 'a scaffold split').BlockLogs():
    for text in smiles:
      molecule = chem.MolFromSmiles(text)
      names.append(
        text
        if molecule is None
        else scaffold.MurckoScaffoldSmiles(mol=molecule)
      )
  return names


def canonical(smiles: Sequence[str]) -> list[str]:
  """The same molecules, all written in one way: RDKit's own.

  Tables that were put together from several sources may write those of each in
  another way, so that the writing tells the label: in MoleculeNet's ClinTox no
  drug that failed has aromatic (small) letters, and three of four others do.

  Args:
    smiles: N molecules.

  Returns:
    N texts; of what RDKit cannot read (a valence that cannot be) its own.

  Raises:
    UsageError: RDKit is not installed.
  """
  what = 'writing molecules in one way'
  chem = _rdkit('rdkit.Chem', what)
  with _rdkit('rdkit.rdBase', what).BlockLogs():
    found = map(chem.MolFromSmiles, smiles)
    return [
      text if molecule is None else chem.MolToSmiles(molecule) or text
      for text, molecule in zip(smiles, found, strict=True)
    ]


def randomised(smiles: Sequence[str], count: int, seed: int) -> list[list[str]]:
  """Other texts of the same molecules, each a walk from another atom.

  Bjerrum, "SMILES enumeration as data augmentation", 2017.

  Args:
    smiles: N molecules.
    count: texts of each.
    seed: of the walks.

  Returns:
    `count` texts of each, some of them alike where a molecule is small; of what
    RDKit cannot read (a valence that cannot be) its own text.

  Raises:
    UsageError: RDKit is not installed.
  """
  what = 'writing molecules in another order'
  chem = _rdkit('rdkit.Chem', what)
  found = []
  with _rdkit('rdkit.rdBase', what).BlockLogs():
    for number, text in enumerate(smiles):
      molecule = chem.MolFromSmiles(text)
      if molecule is None or not molecule.GetNumAtoms():
        found.append([text] * count)
        continue
      # A seed of 0 would be taken for none.
      own = (seed * 1_000_003 + number) % (2**31 - 1) + 1
      found.append(list(chem.MolToRandomSmilesVect(molecule, count, own)))
  return found


# Pieces of the molecules that are made, and how often each is taken.
_PIECES = {
  'C': 6.0, 'N': 1.5, 'O': 1.5, 'C(C)': 2.0, 'c1ccc(cc1)': 1.0,
  'c1cnc(cc1)': 0.6, 'C(Cl)': 0.6, 'C(=O)': 0.9, 'C(F)': 0.7, 'C(Br)': 0.5,
  'C1CCC(CC1)': 0.6,
}  # fmt: skip


def made(count: int = 3000) -> Table:
  """Chains of pieces, and three rules that one may learn of them.

  `pyridine`: it has such a ring; a piece of text tells. `either`: it has
  chlorine or a carbonyl, and not both; no sum over pieces of text tells.
  `halogens`: three or more, which is rare. The rules do not depend on the order
  in which a molecule is written. A fifth of the labels is blank. The molecules
  are the same for every seed.
  """
  draw = np.random.default_rng(0)
  pieces, odds = list(_PIECES), np.array(list(_PIECES.values()))
  smiles = []
  for length in draw.integers(4, 11, count):
    chosen = draw.choice(len(pieces), length, p=odds / odds.sum())
    # An atom at either end, so that no piece begins or ends with a branch.
    smiles.append(f'C{"".join(pieces[i] for i in chosen)}C')
  rules = {
    'pyridine': ['cnc' in text for text in smiles],
    'either': [('Cl' in text) != ('(=O)' in text) for text in smiles],
    'halogens': [
      sum(map(text.count, ('F', 'Cl', 'Br'))) >= 3 for text in smiles
    ],
  }
  labels = np.array(list(rules.values()), np.int8).T
  labels[draw.random(labels.shape) < 0.2] = MISSING
  return Table('made', tuple(smiles), tuple(rules), labels)
