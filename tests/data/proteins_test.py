"""Structures and alignments: how they are read, the errors, the shipped set."""

import gzip
import pathlib
import sys

import numpy as np
import pytest

from dl_lectures.data import proteins
from dl_lectures.types import UsageError

SHARED = pathlib.Path(__file__).parents[2].parent / 'shared/data/proteins'


@pytest.fixture(scope='module')
def shipped():
  return proteins.load()


def atom(
  name: str,
  residue: str = 'ALA',
  number: int = 1,
  xyz: tuple[float, float, float] = (0.0, 0.0, 0.0),
  place: str = ' ',
  icode: str = ' ',
  occupancy: float = 1.0,
  chain: str = 'A',
  record: str = 'ATOM',
) -> str:
  x, y, z = xyz
  return (
    f'{record:<6}{1:5d}  {name:<3}{place}{residue:>3} {chain}{number:4d}{icode}'
    f'   {x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{0:6.2f}          '
    f'{name[0]:>2}'
  )


def residue(at: float, **told) -> list[str]:
  """N, CA and C of a residue on the x axis; C is 1.3 A before the next N."""
  return [
    atom(name, xyz=(at + shift, 0.0, 0.0), **told)
    for name, shift in (('N', 0.0), ('CA', 1.2), ('C', 2.4))
  ]


def chain_lines(letters: str, first: int = 1, **told) -> list[str]:
  return [
    line
    for i, letter in enumerate(letters)
    for line in residue(
      3.7 * i, residue=proteins.THREE[letter], number=first + i, **told
    )
  ]


def write(tmp_path: pathlib.Path, lines: list[str], name='x.pdb'):
  path = tmp_path / name
  path.write_text('\n'.join(lines) + '\n')
  return path


def test_a_chain_is_read(tmp_path):
  path = write(tmp_path, ['HEADER', *chain_lines('ACDGW', first=7), 'END'])
  chain = proteins.read_structure(path)
  assert chain.name == 'x'
  assert chain.sequence == 'ACDGW'
  assert chain.number.tolist() == [7, 8, 9, 10, 11]
  assert not chain.breaks.any()
  np.testing.assert_allclose(chain.backbone[1, :, 0], [3.7, 4.9, 6.1])
  # Without CB in the file it is where N, CA and C put it; glycine has CA.
  np.testing.assert_array_equal(chain.cb[3], chain.backbone[3, 1])


def test_packed_files_are_read(tmp_path):
  path = tmp_path / 'x.pdb.gz'
  path.write_bytes(gzip.compress('\n'.join(chain_lines('ACDE')).encode()))
  assert proteins.read_structure(path).sequence == 'ACDE'


def test_the_beta_carbon_of_the_file_is_taken(tmp_path):
  lines = chain_lines('AGDE')
  lines.insert(3, atom('CB', xyz=(1.0, 1.5, 0.0)))
  lines.insert(7, atom('CB', 'GLY', 2, xyz=(9.0, 9.0, 9.0)))  # of no meaning
  chain = proteins.read_structure(write(tmp_path, lines))
  np.testing.assert_allclose(chain.cb[0], [1.0, 1.5, 0.0])
  np.testing.assert_array_equal(chain.cb[1], chain.backbone[1, 1])


def test_of_alternate_locations_one_is_taken_whole(tmp_path):
  lines = chain_lines('ACDE')
  del lines[3:6]
  for place, occupancy, shift in (('A', 0.4, 0.0), ('B', 0.6, 0.5)):
    lines += [
      atom(
        name,
        'CYS',
        2,
        (3.7 + at + shift, 0, 0),
        place=place,
        # One atom alone is likelier elsewhere; it comes along all the same.
        occupancy=1 - occupancy if name == 'C' else occupancy,
      )
      for name, at in (('N', 0.0), ('CA', 1.2), ('C', 2.4))
    ]
  found = proteins.read_structure(write(tmp_path, lines))
  at = found.sequence.index('C')
  np.testing.assert_allclose(
    found.backbone[at, :, 0], [4.2, 5.4, 6.6], rtol=1e-5
  )


def test_of_equal_locations_the_first_is_taken_and_names_may_differ(tmp_path):
  lines = chain_lines('ACD')
  for place, name in (('A', 'SER'), ('B', 'THR')):
    lines += residue(11.1, residue=name, number=4, place=place, occupancy=0.5)
  assert proteins.read_structure(write(tmp_path, lines)).sequence == 'ACDS'


def test_insertion_codes_are_residues(tmp_path):
  lines = residue(0.0, number=52) + residue(3.7, number=52, icode='A')
  lines += residue(7.4, number=52, icode='B') + residue(11.1, number=53)
  chain = proteins.read_structure(write(tmp_path, lines))
  assert chain.sequence == 'AAAA'
  assert chain.number.tolist() == [52, 52, 52, 53]
  assert not chain.breaks.any()


def test_modified_residues_have_their_parents_letter(tmp_path):
  lines = residue(0.0, residue='MSE', number=1, record='HETATM')
  lines += residue(3.7, residue='SEP', number=2, record='HETATM')
  lines += residue(7.4, residue='XYZ', number=3)
  lines += residue(11.1, residue='TRP', number=4)
  lines.append(atom('O', 'HOH', 5, record='HETATM'))
  assert proteins.read_structure(write(tmp_path, lines)).sequence == 'MSXW'


def test_a_missing_atom_breaks_the_chain(tmp_path):
  lines = chain_lines('ACDEFG')
  del lines[7]  # CA of D
  chain = proteins.read_structure(write(tmp_path, lines))
  assert chain.sequence == 'ACEFG'
  assert chain.breaks.tolist() == [False, False, True, False, False]


def test_a_jump_of_the_numbers_alone_breaks_nothing(tmp_path):
  lines = chain_lines('AC', first=1)
  lines += residue(7.4, number=30) + residue(11.1, number=31)
  chain = proteins.read_structure(write(tmp_path, lines))
  assert chain.number.tolist() == [1, 2, 30, 31]
  assert not chain.breaks.any()


def test_the_first_model_and_the_chain_asked_for(tmp_path):
  lines = ['MODEL        1', atom('O', 'HOH', 9, chain='W')]
  lines += chain_lines('ACDE', chain='B')
  lines += chain_lines('GGGGG', chain='C')
  lines += ['ENDMDL', 'MODEL        2', *chain_lines('WWWW', chain='B')]
  path = write(tmp_path, lines)
  assert proteins.read_structure(path).sequence == 'ACDE'
  assert proteins.read_structure(path, chain='C').sequence == 'GGGGG'
  with pytest.raises(UsageError, match=r"no chain 'D'; it has 'W', 'B', 'C'"):
    proteins.read_structure(path, chain='D')


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    ([], 'no residue has the backbone atoms N, CA and C'),
    ([atom('CA', number=i) for i in range(9)], 'no residue has the backbone'),
    (chain_lines('A'), '1 residues have a backbone; at least 4 are possible'),
    (['ATOM  nonsense'], "line 1 is no atom of a PDB file: 'ATOM  nonsense'"),
  ],
)
def test_what_is_no_structure_is_told(tmp_path, lines, message):
  with pytest.raises(UsageError, match=message) as told:
    proteins.read_structure(write(tmp_path, lines))
  assert 'x.pdb' in str(told.value)
  assert '\n' not in str(told.value)


def test_a_missing_file_is_told(tmp_path):
  with pytest.raises(UsageError, match=r'none\.pdb cannot be read: No such'):
    proteins.read_structure(tmp_path / 'none.pdb')
  path = tmp_path / 'torn.pdb.gz'
  path.write_bytes(b'this is not packed')
  with pytest.raises(UsageError, match=r'torn\.pdb\.gz cannot be read'):
    proteins.read_structure(path)


MMCIF = """data_TEST
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
"""


def mmcif(lines: list[str]) -> str:
  rows = []
  for i, line in enumerate(lines):
    name, letters = line[12:16].strip(), line[17:20]
    number, x = line[22:26].strip(), line[30:38]
    place, icode = line[16].strip() or '.', line[26].strip() or '?'
    rows.append(
      f'ATOM {i + 1} {name[0]} {name} {place} {letters} A {number} {icode} '
      f'{x} 0.0 0.0 {line[54:60]} {number} A 1'
    )
  return MMCIF + '\n'.join(rows) + '\n'


def test_mmcif_is_read_like_pdb(tmp_path):
  pytest.importorskip('gemmi')
  lines = chain_lines('ACDE') + residue(14.8, number=4, icode='A')
  for place, share in (('A', 0.3), ('B', 0.7)):
    lines += residue(18.5, number=5, place=place, occupancy=share)
  expected = proteins.read_structure(write(tmp_path, lines))
  path = tmp_path / 'x.cif'
  path.write_text(mmcif(lines))
  found = proteins.read_structure(path)
  assert found.sequence == expected.sequence == 'ACDEAA'
  np.testing.assert_array_equal(found.number, expected.number)
  np.testing.assert_allclose(found.backbone, expected.backbone, atol=1e-3)
  path.write_text('no mmCIF at all')
  with pytest.raises(UsageError, match='is no mmCIF file'):
    proteins.read_structure(path)


def test_mmcif_without_gemmi_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'gemmi', None)
  with pytest.raises(UsageError, match=r"pip install 'dl_lectures\[folding\]'"):
    proteins.read_structure(write(tmp_path, [], 'x.cif'))


def test_what_is_written_is_read_again(tmp_path, shipped):
  chain = shipped['1ctf_A']
  text = proteins.to_pdb(
    chain.sequence, chain.backbone, chain.number, chain.breaks
  )
  path = tmp_path / 'again.pdb'
  path.write_text(text)
  again = proteins.read_structure(path)
  assert again.sequence == chain.sequence
  np.testing.assert_array_equal(again.number, chain.number)
  np.testing.assert_allclose(again.backbone, chain.backbone, atol=1e-3)
  # CB, which was not given, is near the true one.
  off = np.linalg.norm(again.cb - chain.cb, axis=-1)
  assert np.median(off) < 0.2


def test_oxygens_are_where_they_should_be(shipped):
  chain = shipped['1ctf_A']
  oxygens = {
    int(line[22:26]): [float(line[k : k + 8]) for k in (30, 38, 46)]
    for line in proteins.to_pdb(chain.sequence, chain.backbone).splitlines()
    if line[12:16].strip() == 'O'
  }
  assert len(oxygens) == len(chain.sequence) - 1  # the last has no next N
  for i in (0, 10, 40):
    c, ca = chain.backbone[i, 2], chain.backbone[i, 1]
    bond = oxygens[i + 1] - c
    assert np.linalg.norm(bond) == pytest.approx(1.23, abs=2e-3)
    cosine = bond @ (ca - c) / np.linalg.norm(ca - c) / 1.23
    assert np.rad2deg(np.arccos(cosine)) == pytest.approx(121, abs=5)


def test_shipped_chains_are_whole_and_apart(shipped):
  parts = [proteins.split(part) for part in ('train', 'test', 'alike')]
  assert [len(part) for part in parts] == [42, 20, 24]
  assert {name for part in parts for name in part} == {*shipped}
  for chain in shipped.values():
    length = len(chain.sequence)
    assert 46 <= length <= 130
    assert chain.backbone.shape == (length, 3, 3)
    assert not chain.breaks.any()
    steps = np.linalg.norm(np.diff(chain.backbone[:, 1], axis=0), axis=-1)
    # 3.8 A from CA to CA; 2.9 A across a cis peptide.
    assert steps.min() > 2.6
    assert steps.max() < 4.3
    bond = np.linalg.norm(chain.cb - chain.backbone[:, 1], axis=-1)
    glycine = np.array([letter == 'G' for letter in chain.sequence])
    np.testing.assert_allclose(bond[glycine], 0, atol=0.02)
    np.testing.assert_allclose(bond[~glycine], 1.53, atol=0.15)
  words = [
    {c.sequence[i : i + 8] for i in range(len(c.sequence) - 7)}
    for c in shipped.values()
  ]
  shared = [len(a & b) for i, a in enumerate(words) for b in words[:i]]
  assert max(shared) <= 8


def test_packing_loses_nothing_to_speak_of(shipped):
  some = {name: shipped[name] for name in ('1crn_A', '1ctf_A')}
  again = proteins.unpack(proteins.pack(some))
  for name, chain in some.items():
    assert again[name].sequence == chain.sequence
    np.testing.assert_array_equal(again[name].number, chain.number)
    middle = chain.backbone.mean((0, 1))
    moved = again[name].backbone + middle
    np.testing.assert_allclose(moved, chain.backbone, atol=0.006)


def test_shipped_chains_are_those_of_the_files(shipped):
  if not SHARED.exists():
    pytest.skip(f'no {SHARED}')
  for name in ('1ten_A', '1ubi_A', '1lve_A'):
    chain = proteins.read_structure(SHARED / 'structures' / f'{name}.pdb')
    centred = chain.backbone - chain.backbone.mean((0, 1))
    np.testing.assert_allclose(shipped[name].backbone, centred, atol=0.006)


def test_an_alignment_by_hand(tmp_path):
  path = tmp_path / 'x.a3m'
  path.write_text('>query\nMKVL\nAT\n>second\nMRaaVLgA-\n>third\n.-.---wBU\n')
  found = proteins.read_alignment(path)
  assert found.query == 'MKVLAT'
  letters = [''.join(proteins.LETTERS[i] for i in row) for row in found.rows]
  assert letters == ['MKVLAT', 'MRVLA-', '----XX']
  assert found.deletions.tolist() == [
    [0, 0, 0, 0, 0, 0],
    [0, 0, 2, 0, 1, 0],
    [0, 0, 0, 0, 1, 0],
  ]


def test_columns_where_the_query_has_a_gap_are_dropped(tmp_path):
  path = tmp_path / 'x.fasta'
  path.write_text('>q\nMK-VL\n>r\nmrwvl\n')
  found = proteins.read_alignment(path)
  assert found.query == 'MKVL'
  assert found.rows.shape == (2, 4)
  assert found.rows[1].tolist() == proteins.encode('MRVL').tolist()


def test_a_single_row_is_an_alignment(tmp_path):
  path = tmp_path / 'x.fasta'
  path.write_text('>alone\nMKVLAT\n')
  assert proteins.read_alignment(path).rows.shape == (1, 6)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'is empty; an alignment has a row'),
    ('MKVL\n', 'no row begins with ">"'),
    (
      '>a\nMKVL\n>b c\nMKV\n',
      r'row 2 \(b\) has 3 columns; the first',
    ),
    ('>a\nMK1L\n', r"row 1 \(a\): '1' is no residue; possible: ARNDC"),
    ('>a\nM\n', 'the first row has 1 residues; at least 4 are possible'),
  ],
)
def test_what_is_no_alignment_is_told(tmp_path, text, message):
  path = tmp_path / 'x.fasta'
  path.write_text(text)
  with pytest.raises(UsageError, match=message) as told:
    proteins.read_alignment(path)
  assert '\n' not in str(told.value)


def test_real_alignments_are_read():
  if not SHARED.exists():
    pytest.skip(f'no {SHARED}')
  natural = proteins.read_alignment(SHARED / 'msa' / 'T1055.a3m.gz')
  assert natural.rows.shape == (28, 148)
  assert natural.deletions.sum() > 0
  designed = proteins.read_alignment(
    SHARED / 'msa' / 'designed_1ten_A.fasta.gz'
  )
  assert designed.rows.shape == (500, 89)
  assert (designed.rows < proteins.UNKNOWN).all()


def test_a_split_that_is_none_is_refused():
  with pytest.raises(UsageError, match="part 'dev'; possible: train, test"):
    proteins.split('dev')


@pytest.mark.slow
def test_no_training_chain_has_the_fold_of_a_test_chain(shipped):
  tmtools = pytest.importorskip('tmtools')

  def alike(first, second):
    a, b = shipped[first], shipped[second]
    found = tmtools.tm_align(
      a.backbone[:, 1].astype(float),
      b.backbone[:, 1].astype(float),
      a.sequence,
      b.sequence,
    )
    return max(found.tm_norm_chain1, found.tm_norm_chain2)

  test = proteins.split('test')
  for name in proteins.split('train'):
    assert max(alike(name, other) for other in test) < 0.5
  for name in proteins.split('alike'):
    assert max(alike(name, other) for other in test) >= 0.5


def test_designs_are_of_test_chains_and_all_differ(shipped):
  made = proteins.designs()
  assert {*made} < {*proteins.split('test')}
  for name, design in made.items():
    assert design.query == shipped[name].sequence
    assert design.rows.shape == (501, len(design.query))
    assert design.rows.min() >= 0
    assert design.rows.max() < 20
    assert len(np.unique(design.rows, axis=0)) > 490
