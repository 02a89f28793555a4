"""Protein chains and alignments: the files they come in, and a set that ships.

What is read of a structure, PDB or mmCIF, by these rules:

- The first model, and the chain asked for, else the first that has a residue.
- A residue is what has the atoms N, CA and C, whatever the record says. The
  name of a modified one is that of its parent (MSE is M); one that nobody knows
  is X. What lacks a backbone atom is left out, and the chain is broken there.
- Of alternate locations one is taken for all atoms of a residue: the one with
  the highest occupancy of N, CA and C together, of equals the first.
- Residues with insertion codes (52, 52A, 52B) are residues like others, in the
  order of the file; their number repeats.
- The chain is broken where C and the next N are more than 2 angstrom apart.

Of an alignment, A3M or FASTA: its columns are the residues of the first row,
the query, and all rows have as many. In A3M small letters are insertions, which
are counted and left out; in FASTA they are letters like others. `.` and `-` are
gaps; B, J, O, U, X and Z are the unknown residue X. A single row is an
alignment without homologues.

Any of these files may be packed (.gz).

>>> chains = load()
>>> chain = chains['1ubi_A']
>>> chain.sequence[:10], len(chain.sequence)
('MQIFVKTLTG', 76)
"""

import gzip
import importlib
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, NamedTuple

import jax
import numpy as np

from dl_lectures.ops import geometry
from dl_lectures.types import UsageError

# In the order of the published features; X and the gap follow.
LETTERS = 'ARNDCQEGHILKMFPSTWYVX-'
UNKNOWN, GAP = LETTERS.index('X'), LETTERS.index('-')

_NAMES = {
  'ALA': 'A', 'ARG': 'R', 'ASN': 'N', 'ASP': 'D', 'CYS': 'C', 'GLN': 'Q',
  'GLU': 'E', 'GLY': 'G', 'HIS': 'H', 'ILE': 'I', 'LEU': 'L', 'LYS': 'K',
  'MET': 'M', 'PHE': 'F', 'PRO': 'P', 'SER': 'S', 'THR': 'T', 'TRP': 'W',
  'TYR': 'Y', 'VAL': 'V',
}  # fmt: skip
THREE = {letter: name for name, letter in _NAMES.items()} | {'X': 'UNK'}

# Modified residues that are common in the PDB, and what they were made from.
_PARENTS = {
  'CME': 'C', 'CSD': 'C', 'CSO': 'C', 'CSS': 'C', 'CSX': 'C', 'OCS': 'C',
  'HIC': 'H', 'HID': 'H', 'HIE': 'H', 'HIP': 'H', 'HYP': 'P', 'KCX': 'K',
  'LLP': 'K', 'M3L': 'K', 'MLY': 'K', 'MLZ': 'K', 'FME': 'M', 'MSE': 'M',
  'PCA': 'E', 'CGU': 'E', 'PTR': 'Y', 'TYS': 'Y', 'SEP': 'S', 'TPO': 'T',
  'SEC': 'C', 'CYX': 'C', 'ASX': 'X', 'GLX': 'X',
}  # fmt: skip

_BACKBONE = ('N', 'CA', 'C')
_LONGEST_BOND = 2.0
_SHORTEST_CHAIN = 4


class Chain(NamedTuple):
  """A chain of L residues.

  Attributes:
    name: of the file or the entry.
    sequence: L letters.
    number: [L] int32, as in the file.
    backbone: [L, 3, 3] float32: N, CA and C, angstrom.
    cb: [L, 3] float32: CB; of glycine CA; where the file has none, where its
      neighbours put it.
    breaks: [L] bool, whether no bond leads here from the residue before.
  """

  name: str
  sequence: str
  number: np.ndarray
  backbone: np.ndarray
  cb: np.ndarray
  breaks: np.ndarray


class Alignment(NamedTuple):
  """An alignment of N rows over the L residues of its first.

  Attributes:
    query: L letters.
    rows: [N, L] int8, places in `LETTERS`; the first row is the query.
    deletions: [N, L] int32, letters left out before each column.
  """

  query: str
  rows: np.ndarray
  deletions: np.ndarray


class _Atom(NamedTuple):
  """A line of a file: of residue `key`, with its name and coordinates."""

  chain: str
  key: tuple[int, str]
  residue: str
  name: str
  place: str
  occupancy: float
  xyz: tuple[float, float, float]


def encode(sequence: str) -> np.ndarray:
  """Letters as numbers, [L] int8: places in `LETTERS`.

  >>> encode('ARX-').tolist()
  [0, 1, 20, 21]
  """
  return np.array([LETTERS.index(letter) for letter in sequence], np.int8)


def load() -> dict[str, Chain]:
  """The chains that ship with the library, by name.

  86 chains of 46 to 130 residues from the Protein Data Bank, whose coordinates
  are in the public domain (CC0), none of them broken, all unlike each other in
  sequence (`python -m scripts.pack_proteins` makes them;
  `tables/proteins_LICENSE.txt` says where each comes from).

  Returns:
    Chains; arrays of the caller's own.

  >>> len(load())
  86
  """
  path = resources.files('dl_lectures.data') / 'tables' / 'proteins.npz'
  with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
    return unpack({name: arrays[name] for name in arrays.files})


# Chains whose fold is that of a test chain: TM-align finds a score of .5 or
# more, by either length. Ferredoxins, thioredoxins, ubiquitins, cold-shock
# proteins, immunoglobulins, HPr, FKBP, repressors, and ferredoxin-like ones.
_ALIKE = frozenset((
  '1a7g_E', '1ayf_A', '1c9o_A', '1frd_A', '1hz6_A', '1lcd_A', '1lmb_3',
  '1lve_A', '1r69_A', '1ris_A', '1ubi_A', '2hpr_A', '2kl8_A', '2n2u_A',
  '2trx_A', '3bzd_A', '3o5r_A', '4cup_A', '5azu_A', '5hdn_C', '5zng_A',
  '6mrr_A', '7cfn_N', '7zkr_A',
))  # fmt: skip


def split(part: str) -> tuple[str, ...]:
  """The names of the shipped chains to learn from or to judge by.

  Args:
    part: 'train' (42 chains, none of which has the fold of a test chain),
      'test' (20) or 'alike' (24, of the folds of test chains).

  Raises:
    UsageError: it is none of these.
  """
  if part not in ('train', 'test', 'alike'):
    raise UsageError(f'part {part!r}; possible: train, test, alike')
  path = resources.files('dl_lectures.data') / 'tables' / 'proteins.npz'
  with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
    tested = dict(zip(arrays['name'].tolist(), arrays['is_test'], strict=True))

  def belongs(name: str) -> bool:
    if tested[name]:
      return part == 'test'
    return part == ('alike' if name in _ALIKE else 'train')

  return tuple(filter(belongs, tested))


def designs() -> dict[str, Alignment]:
  """Alignments of test chains that ship with the library, by the chain's name.

  Each is the chain's own sequence and 500 that Rosetta designed for its
  structure, the backbone moving: no natural homologues, but what physics allows
  (Ollikainen & Kortemme, PLoS Computational Biology 9, 2013; `python -m
  scripts.pack_designs` makes the table, `tables/designs_LICENSE.txt` says where
  it comes from).

  >>> made = designs()
  >>> len(made), made['1ctf_A'].rows.shape
  (19, (501, 68))
  """
  chains = load()
  path = resources.files('dl_lectures.data') / 'tables' / 'designs.npz'
  found = {}
  with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
    for name in arrays.files:
      query = chains[name].sequence
      rows = np.concatenate([encode(query)[None], arrays[name]])
      found[name] = Alignment(query, rows, np.zeros(rows.shape, np.int32))
  return found


def pack(chains: Mapping[str, Chain]) -> dict[str, np.ndarray]:
  """Chains as a few arrays, end to end, in hundredths of an angstrom."""
  every = list(chains.values())

  def joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.round(100 * np.concatenate(parts)).astype(np.int16)

  # Around its middle a chain fits into 16 bits.
  middles = [chain.backbone.mean((0, 1)) for chain in every]
  return {
    'name': np.array([chain.name for chain in every]),
    'sequence': np.array([chain.sequence for chain in every]),
    'number': np.concatenate([chain.number for chain in every]).astype(
      np.int16
    ),
    'breaks': np.concatenate([chain.breaks for chain in every]),
    'backbone': joined(
      [c.backbone - m for c, m in zip(every, middles, strict=True)]
    ),
    'cb': joined([c.cb - m for c, m in zip(every, middles, strict=True)]),
  }


def unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, Chain]:
  """The chains that `pack` has packed."""
  found = {}
  start = 0
  for name, sequence in zip(arrays['name'], arrays['sequence'], strict=True):
    here = slice(start, start + len(sequence))
    start = here.stop
    found[str(name)] = Chain(
      name=str(name),
      sequence=str(sequence),
      number=arrays['number'][here].astype(np.int32),
      backbone=arrays['backbone'][here].astype(np.float32) / 100,
      cb=arrays['cb'][here].astype(np.float32) / 100,
      breaks=arrays['breaks'][here],
    )
  return found


def read_structure(
  path: str | os.PathLike[str], chain: str | None = None
) -> Chain:
  """Reads one chain of a PDB (.pdb, .ent) or mmCIF file (.cif).

  Args:
    path: of the file; .gz is unpacked.
    chain: its identifier; the first one by default.

  Returns:
    The chain, by the rules above.

  Raises:
    UsageError: there is no such file or chain, it has no backbone, it is
      shorter than 4 residues, or mmCIF is read without the extra `folding`.
  """
  name = os.path.basename(os.fspath(path)).removesuffix('.gz')
  stem, kind = os.path.splitext(name)
  if kind in ('.cif', '.mmcif'):
    atoms = list(_mmcif_atoms(path))
  else:
    atoms = list(_pdb_atoms(path))
  return _chain_of(stem, os.fspath(path), atoms, chain)


def read_alignment(path: str | os.PathLike[str]) -> Alignment:
  """Reads an alignment: .a3m, or FASTA under any other name.

  Args:
    path: of the file; .gz is unpacked.

  Raises:
    UsageError: it is empty, has letters that are none, or rows of different
      lengths.
  """
  text = _text(path)
  name = os.fspath(path)
  inserted = name.removesuffix('.gz').endswith('.a3m')
  titles, rows = [], []
  for line in text.splitlines():
    line = line.strip()
    if line.startswith('>'):
      titles.append(line[1:].strip())
      rows.append('')
    elif line and not line.startswith('#'):
      if not rows:
        raise UsageError(f'{name}: no row begins with ">", it is no FASTA file')
      rows[-1] += line
  if not rows:
    raise UsageError(f'{name} is empty; an alignment has a row at least')
  encoded, deletions = [], []
  for i, (title, row) in enumerate(zip(titles, rows, strict=True)):
    told = f'{name}, row {i + 1} ({title.split()[0] if title else "no name"})'
    code, dropped = _encode_row(row, inserted, told)
    if encoded and len(code) != len(encoded[0]):
      raise UsageError(
        f'{told} has {len(code)} columns; the first row has {len(encoded[0])}'
      )
    encoded.append(code)
    deletions.append(dropped)
  query = ''.join(LETTERS[i] for i in encoded[0])
  if len(query.replace('-', '')) < _SHORTEST_CHAIN:
    raise UsageError(
      f'{name}: the first row has {len(query.replace("-", ""))} residues; at '
      f'least {_SHORTEST_CHAIN} are possible'
    )
  # The columns are the residues of the query.
  kept = np.array(encoded[0]) != GAP
  return Alignment(
    query=query.replace('-', ''),
    rows=np.array(encoded, np.int8)[:, kept],
    deletions=np.array(deletions, np.int32)[:, kept],
  )


def _encode_row(
  row: str, inserted: bool, told: str
) -> tuple[list[int], list[int]]:
  """A row's letters as numbers, and how many were left out before each."""
  code, dropped = [], []
  skipped = 0
  for letter in row:
    if inserted and (letter.islower() or letter == '.'):
      skipped += letter != '.'
      continue
    upper = '-' if letter == '.' else letter.upper()
    if upper in 'BJOUZ':
      upper = 'X'
    if upper not in LETTERS:
      raise UsageError(
        f'{told}: {letter!r} is no residue; possible: '
        f'{LETTERS[:UNKNOWN]}, BJOUXZ for unknown ones, - and . for gaps'
      )
    code.append(LETTERS.index(upper))
    dropped.append(skipped)
    skipped = 0
  return code, dropped


def _text(path: str | os.PathLike[str]) -> str:
  """The content of a file; told in one line where there is none."""
  name = os.fspath(path)
  try:
    if name.endswith('.gz'):
      with gzip.open(name, 'rt', encoding='utf-8', errors='replace') as file:
        return file.read()
    with open(name, encoding='utf-8', errors='replace') as file:
      return file.read()
  except (OSError, EOFError) as error:
    reason = getattr(error, 'strerror', None) or str(error)
    raise UsageError(f'{name} cannot be read: {reason}') from error


def _pdb_atoms(path: str | os.PathLike[str]) -> Iterator[_Atom]:
  """The atoms of a PDB file's first model, by the columns of its format."""
  for count, line in enumerate(_text(path).splitlines(), 1):
    if line.startswith('ENDMDL'):
      return
    if not line.startswith(('ATOM  ', 'HETATM')):
      continue
    try:
      yield _Atom(
        chain=line[21].strip(),
        key=(int(line[22:26]), line[26].strip()),
        residue=line[17:20].strip(),
        name=line[12:16].strip(),
        place=line[16].strip(),
        occupancy=float(line[54:60].strip() or 1),
        xyz=(float(line[30:38]), float(line[38:46]), float(line[46:54])),
      )
    except (ValueError, IndexError):
      raise UsageError(
        f'{os.fspath(path)}, line {count} is no atom of a PDB file: {line!r}'
      ) from None


def _mmcif_atoms(path: str | os.PathLike[str]) -> Iterator[_Atom]:
  """The atoms of an mmCIF file's first model; gemmi reads it."""
  try:
    gemmi: Any = importlib.import_module('gemmi')
  except ImportError:
    raise UsageError(
      f'{os.fspath(path)}: mmCIF needs gemmi, pip install '
      "'dl_lectures[folding]'; a PDB file needs nothing"
    ) from None
  try:
    structure = gemmi.make_structure_from_block(
      gemmi.cif.read_string(_text(path)).sole_block()
    )
  except (RuntimeError, ValueError) as error:
    raise UsageError(f'{os.fspath(path)} is no mmCIF file: {error}') from error
  if not len(structure):
    return
  for chain in structure[0]:
    for residue in chain:
      for atom in residue:
        yield _Atom(
          chain=chain.name,
          key=(residue.seqid.num or 0, residue.seqid.icode.strip()),
          residue=residue.name,
          name=atom.name,
          place=atom.altloc.replace('\0', ''),
          occupancy=atom.occ,
          xyz=(atom.pos.x, atom.pos.y, atom.pos.z),
        )


def _chain_of(
  name: str, path: str, atoms: list[_Atom], wanted: str | None
) -> Chain:
  """The chain that atoms make up."""
  residues: dict[str, dict[tuple[int, str], list[_Atom]]] = {}
  for atom in atoms:
    residues.setdefault(atom.chain, {}).setdefault(atom.key, []).append(atom)
  if wanted is not None and wanted not in residues:
    raise UsageError(
      f'{path} has no chain {wanted!r}; it has '
      + (', '.join(map(repr, residues)) or 'no atoms')
    )
  chosen = residues if wanted is None else {wanted: residues[wanted]}
  found: list[tuple[tuple[int, str], dict[str, _Atom]]] = []
  for members in chosen.values():
    settled = [(key, _settle(several)) for key, several in members.items()]
    found = [(key, one) for key, one in settled if {*_BACKBONE} <= one.keys()]
    if found:
      break
  else:
    raise UsageError(
      f'{path}: no residue has the backbone atoms N, CA and C'
      + (f' in chain {wanted!r}' if wanted is not None else '')
    )
  if len(found) < _SHORTEST_CHAIN:
    raise UsageError(
      f'{path}: {len(found)} residues have a backbone; at least '
      f'{_SHORTEST_CHAIN} are possible'
    )
  backbone = np.array(
    [[one[name].xyz for name in _BACKBONE] for _, one in found],
    np.float32,
  )
  sequence = ''.join(_letter(one['CA'].residue) for _, one in found)
  cb = _ideal_cb(backbone)
  for i, (_, one) in enumerate(found):
    if sequence[i] == 'G':
      cb[i] = backbone[i, 1]
    elif 'CB' in one:
      cb[i] = one['CB'].xyz
  bond = np.linalg.norm(backbone[1:, 0] - backbone[:-1, 2], axis=-1)
  return Chain(
    name=name,
    sequence=sequence,
    number=np.array([key[0] for key, _ in found], np.int32),
    backbone=backbone,
    cb=cb,
    breaks=np.concatenate([[False], bond > _LONGEST_BOND]),
  )


def _settle(atoms: list[_Atom]) -> dict[str, _Atom]:
  """A residue's atoms by name, of one alternate location."""
  weights: dict[str, float] = {}
  for atom in atoms:
    if atom.place:
      weights.setdefault(atom.place, 0.0)
      if atom.name in _BACKBONE:
        weights[atom.place] += atom.occupancy
  # The first of equals; `max` takes it.
  place = max(weights, key=weights.__getitem__) if weights else ''
  found: dict[str, _Atom] = {}
  for atom in atoms:
    if atom.place in ('', place):
      found.setdefault(atom.name, atom)
  return found


def _letter(residue: str) -> str:
  return _NAMES.get(residue) or _PARENTS.get(residue, 'X')


_place_cb = jax.jit(geometry.beta_carbons)


def _ideal_cb(backbone: np.ndarray) -> np.ndarray:
  """CB of a backbone, [L, 3]; padded, so that few programs are compiled."""
  length = len(backbone)
  padded = np.pad(backbone, [(0, -length % 128), (0, 0), (0, 0)])
  return np.array(_place_cb(padded))[:length]


def to_pdb(
  sequence: str,
  backbone: np.ndarray,
  number: np.ndarray | None = None,
  breaks: np.ndarray | None = None,
  scores: np.ndarray | None = None,
) -> str:
  """A backbone as the text of a PDB file, with O and CB in their places.

  Args:
    sequence: L letters.
    backbone: [L, 3, 3], angstrom.
    number: [L] int, from 1 by default.
    breaks: [L] bool; no O is drawn before one.
    scores: [L], for the column of temperature factors.

  >>> print(to_pdb('G', np.zeros((1, 3, 3))).splitlines()[0][:54])
  ATOM      1  N   GLY A   1       0.000   0.000   0.000
  """
  length = len(sequence)
  number = np.arange(1, length + 1) if number is None else number
  breaks = np.zeros(length, bool) if breaks is None else breaks
  scores = np.zeros(length) if scores is None else scores
  cb = _ideal_cb(np.asarray(backbone, np.float32))
  lines = []
  for i, letter in enumerate(sequence):
    atoms = dict(zip(_BACKBONE, backbone[i], strict=True))
    if i + 1 < length and not breaks[i + 1]:
      atoms['O'] = _oxygen(backbone[i], backbone[i + 1, 0])
    if letter != 'G':
      atoms['CB'] = cb[i]
    for name, (x, y, z) in atoms.items():
      lines.append(
        f'ATOM  {len(lines) + 1:5d}  {name:<3} {THREE[letter]:>3} A'
        f'{number[i]:4d}    {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{scores[i]:6.2f}'
        f'          {name[0]:>2}'
      )
  return '\n'.join([*lines, 'TER', 'END', ''])


def _oxygen(residue: np.ndarray, next_n: np.ndarray) -> np.ndarray:
  """O lies opposite to CA and the next N, in their plane, 1.23 A from C."""
  _, ca, c = residue
  first, second = (x / np.linalg.norm(x) for x in (c - ca, c - next_n))
  away = first + second
  return c + 1.23 * away / np.linalg.norm(away)
