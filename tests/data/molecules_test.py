"""Molecules: SMILES against the grammar and RDKit, tables, splits, mistakes."""

import gzip
import importlib.util
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lectures.data import molecules
from dl_lectures.types import UsageError

SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'molecules'

needs_rdkit = pytest.mark.skipif(
  importlib.util.find_spec('rdkit') is None,
  reason='RDKit is not installed: pip install rdkit',
)


@pytest.mark.parametrize(
  ('smiles', 'tokens'),
  [
    ('CCl', 'C Cl'),
    ('BrCN=[N+]=[N-]', 'Br C N = [N+] = [N-]'),
    ('c1cc%12ccc1C%12', 'c 1 c c %12 c c c 1 C %12'),
    ('[nH]1cccc1', '[nH] 1 c c c c 1'),
    ('[13CH3:2]/C=C\\[C@@H](F)O', '[13CH3:2] / C = C \\ [C@@H] ( F ) O'),
    # As in MoleculeNet's ClinTox.
    ('F/C=C\\\\F', 'F / C = C \\ F'),
    ('[Na+].[O-]C', '[Na+] . [O-] C'),
    ('C%(123)CC%(123)', 'C %(123) C C %(123)'),
    ('C1CC%01', 'C 1 C C %01'),
    ('C=1CCCCC1', 'C = 1 C C C C C 1'),
    ('C1CC1C1CC1', 'C 1 C C 1 C 1 C C 1'),
    ('C#N->[Co]', 'C # N -> [Co]'),
    ('*[Fe++][se]', '* [Fe++] [se]'),
  ],
)
def test_tokens(smiles, tokens):
  assert molecules.tokenize(smiles) == tokens.split()


@pytest.mark.parametrize(
  ('smiles', 'reason'),
  [
    ('', 'an atom is missing at the end'),
    ('C=', 'an atom is missing at the end'),
    ('CC.', 'an atom is missing at the end'),
    ('C1CC', 'ring 1 is opened and not closed'),
    ('C%12CC%13', 'ring 12 is opened'),
    ('C11', "character 3, '1', joins an atom to itself"),
    ('CC(', '1 of its parentheses are not closed'),
    ('C(=O', '1 of its parentheses are not closed'),
    ('C)C', "character 2, ')', closes nothing"),
    ('(C)', "character 1, '(', cannot stand there"),
    ('C()C', "character 3, ')', cannot stand there"),
    ('C-=C', "character 3, '=', cannot stand there"),
    ('=C', "character 1, '=', cannot stand there"),
    ('CClH', "character 4, 'H', is not SMILES"),
    ('C[Xx]', "character 2, '[Xx]', is not SMILES"),
    ('C[C', "character 2, '[', is not SMILES"),
    ('C%1C', "character 2, '%', is not SMILES"),
    ('C C', "character 2, ' ', is not SMILES"),
    ('Cé', "character 2, 'é', is not SMILES"),
    ('C' * 80 + '(', 'C...'),
  ],
)
def test_what_is_not_smiles(smiles, reason):
  with pytest.raises(UsageError) as refused:
    molecules.tokenize(smiles)
  assert reason in str(refused.value)
  assert len(str(refused.value)) < 140


@st.composite
def grammar(draw, depth=2):
  """A molecule by the grammar of SMILES: a chain with branches and rings."""
  atoms = st.sampled_from(['C', 'Cl', 'n', '[nH]', '[O-]', 'Br', '[C@@H]'])
  parts: list[str] = []
  for ring in range(draw(st.integers(1, 4))):
    bond = draw(st.sampled_from(['', '', '=', '#'])) if parts else ''
    parts.append(bond + draw(atoms))
    if draw(st.booleans()) and ring + depth * 4 < 10:
      number = str(ring + depth * 4)
      parts.append(f'{number}{draw(atoms)}{draw(atoms)}{number}')
    if depth and draw(st.booleans()):
      parts.append(f'({draw(grammar(depth=depth - 1))})')
  return ''.join(parts)


@settings(max_examples=60, deadline=None)
@given(smiles=grammar(), cut=st.integers(0, 60))
def test_what_the_grammar_writes_is_read_and_nothing_is_lost(smiles, cut):
  assert ''.join(molecules.tokenize(smiles)) == smiles
  # Of unequal parentheses nothing may be made.
  broken = f'{smiles[: cut % len(smiles)]}({smiles[cut % len(smiles) :]}'
  with pytest.raises(UsageError):
    molecules.tokenize(broken)


def test_vocabulary_and_arrays():
  some = ['CCO', 'CN', 'CCCl']
  vocabulary = molecules.learn(some, 4)
  assert vocabulary == molecules.Vocabulary(('C', 'Cl'))
  assert vocabulary.size == 4
  tokens, lengths = molecules.encode(
    vocabulary, [molecules.tokenize(text) for text in some], 3
  )
  assert tokens.tolist() == [[2, 2, 1], [2, 1, 0], [2, 2, 3]]
  assert lengths.tolist() == [3, 2, 3]
  cut, lengths = molecules.encode(vocabulary, [['C', 'Cl', 'C']], 2)
  assert cut.tolist() == [[2, 3]]
  assert lengths.tolist() == [2]
  with pytest.raises(UsageError, match='a vocabulary of 2 tokens'):
    molecules.learn(some, 2)


CSV = """mol_id,smiles,toxic,Binds,year
a,CCO,1,0,2019-05-31
b,"CC(C)Cl",,1,2001-01-01
"c, the third",c1ccccc1,0,,2010-12-31
"""


@pytest.mark.parametrize('packed', [False, True])
def test_a_table_is_read(tmp_path, packed):
  # The content tells whether it is compressed, not the name.
  path = tmp_path / 'assays.csv'
  path.write_bytes(gzip.compress(CSV.encode()) if packed else CSV.encode())
  table = molecules.load(str(path), time_column='year')
  assert table.name == 'assays'
  assert table.smiles == ('CCO', 'CC(C)Cl', 'c1ccccc1')
  assert table.tasks == ('toxic', 'Binds')
  assert table.labels.tolist() == [[1, 0], [-1, 1], [0, -1]]
  assert table.times is not None
  assert np.argsort(table.times).tolist() == [1, 2, 0]
  only = molecules.load(str(path), tasks=('Binds',))
  assert only.labels.tolist() == [[0], [1], [-1]]
  assert only.times is None


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('', 'no column smiles in its header; it has nothing'),
    ('mol,toxic\nC,1\n', 'no column smiles in its header; it has mol, toxic'),
    ('smiles,t\n', 'holds no molecule'),
    ('smiles,t,t\nC,1,0\n', "two columns are called 't'"),
    ('smiles,t\nC,1\nC(C,0\n', "line 3: SMILES 'C(C': 1 of its parentheses"),
    ('smiles,t\nC,1\n,0\n', "line 3: SMILES '': an atom is missing"),
    ('smiles,t,e\nC,1,\nCC,0,\n', "column 'e' is empty"),
    ('smiles,t\nC,1\nCC,0\nN,2\n', "line 4, column 't': '2'; 0, 1 or nothing"),
    ('smiles,t\nC,1\nCC,1\n', "column 't' says 1 everywhere"),
    ('smiles,t\nC,one\nCC,two\n', 'no column of 0, 1 and blanks; it has t'),
    ('smiles,t\nC,1\nCC\n', 'line 3: 1 fields; as many as the header has, 2'),
    ('smiles,t\nC,1\n"CC,0\n', 'line 3 is broken: unexpected end of data'),
  ],
)
def test_a_table_that_cannot_be_read(tmp_path, text, reason):
  path = tmp_path / 'bad.csv'
  path.write_text(text)
  with pytest.raises(UsageError, match=r'bad\.csv') as refused:
    molecules.load(str(path))
  assert reason in str(refused.value)
  assert '\n' not in str(refused.value)


def test_files_that_are_not_there_or_torn(tmp_path):
  with pytest.raises(
    UsageError, match=r'none\.csv cannot be read: No such file'
  ):
    molecules.load('none.csv')
  with pytest.raises(UsageError, match='cannot be read: Is a directory'):
    molecules.load(str(tmp_path))
  torn = tmp_path / 'torn.csv.gz'
  torn.write_bytes(gzip.compress(CSV.encode())[:-12])
  with pytest.raises(UsageError, match=r'torn.csv.gz cannot be read: .*ended'):
    molecules.load(str(torn))
  binary = tmp_path / 'binary.csv'
  binary.write_bytes(b'smiles,t\n\xff\xfe,1\n')
  with pytest.raises(UsageError, match=r'binary.csv cannot be read'):
    molecules.load(str(binary))


@pytest.mark.parametrize(
  ('given_', 'reason'),
  [
    ({'tasks': ('nothing',)}, "no column 'nothing'; possible: mol_id, smiles"),
    ({'tasks': ('mol_id',)}, "line 2, column 'mol_id': 'a'; 0, 1 or nothing"),
    ({'time_column': 'when'}, "no column 'when'"),
    ({'time_column': 'mol_id'}, "line 2: time 'a'; a number or a date"),
  ],
)
def test_columns_that_are_not_what_they_are_named(tmp_path, given_, reason):
  path = tmp_path / 'assays.csv'
  path.write_text(CSV)
  with pytest.raises(UsageError) as refused:
    molecules.load(str(path), **given_)
  assert reason in str(refused.value)


def table(count, copies=1):
  return molecules.Table(
    't',
    tuple('C' * (1 + i // copies) for i in range(count)),
    ('a',),
    np.zeros((count, 1), np.int8),
    np.arange(count)[::-1].astype(float),
  )


@pytest.mark.parametrize('kind', ['random', 'time'])
@pytest.mark.parametrize('copies', [1, 4])
def test_parts_are_disjoint_and_what_is_alike_is_together(kind, copies):
  some = table(200, copies)
  parts = molecules.split(some, kind, seed=3)
  assert sorted(np.concatenate(parts).tolist()) == list(range(200))
  for size, part in zip((160, 20, 20), parts, strict=True):
    assert abs(len(part) - size) < copies
  texts = [{some.smiles[i] for i in part} for part in parts]
  assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_a_split_by_time_tests_on_the_youngest():
  some = table(50)
  parts = molecules.split(some, 'time')
  assert some.times is not None
  ages = [some.times[part] for part in parts]
  assert ages[0].max() < ages[1].min()
  assert ages[1].max() < ages[2].min()


def test_a_random_split_is_the_seeds():
  some = table(100)
  first, again, other = (molecules.split(some, seed=i) for i in (0, 0, 1))
  np.testing.assert_array_equal(first.test, again.test)
  assert {*first.test.tolist()} != {*other.test.tolist()}


def test_what_cannot_be_split(monkeypatch):
  with pytest.raises(UsageError, match="split 'age'; possible: random, scaf"):
    molecules.split(table(20), 'age')
  with pytest.raises(UsageError, match='t: 9 molecules; at least 10'):
    molecules.split(table(9))
  with pytest.raises(UsageError, match='has no times to split by'):
    molecules.split(table(20)._replace(times=None), 'time')
  with pytest.raises(UsageError, match='a part of this split is empty'):
    molecules.split(table(20, copies=20))

  def missing(name):
    raise ImportError(name)

  monkeypatch.setattr(importlib, 'import_module', missing)
  with pytest.raises(UsageError, match='a scaffold split needs RDKit'):
    molecules.split(table(20), 'scaffold')
  with pytest.raises(UsageError, match='another order needs RDKit'):
    molecules.randomised(['CC'], 1, 0)
  with pytest.raises(UsageError, match='in one way needs RDKit'):
    molecules.canonical(['CC'])


def test_class_weights_by_hand():
  labels = np.array([[1, 1], [0, 1], [0, -1], [0, 1], [-1, -1]])
  weights = molecules.class_weights(labels)
  np.testing.assert_allclose(weights, [[4 / 6, 2], [1, 1]], rtol=1e-6)
  # Both classes weigh the same, and a label 1 in the mean.
  assert 3 * weights[0, 0] == pytest.approx(weights[0, 1])


def test_molecules_that_are_made_follow_their_rules():
  some = molecules.load()
  assert len(some.smiles) == 3000
  assert len({*some.smiles}) > 2800
  for text, row in zip(some.smiles, some.labels, strict=True):
    tokens = molecules.tokenize(text)
    halogens = sum(token in ('F', 'Cl', 'Br') for token in tokens)
    rules = 'n' in tokens, ('Cl' in tokens) != ('(=O)' in text), halogens >= 3
    for label, rule in zip(row, rules, strict=True):
      assert label in (molecules.MISSING, rule)
  assert (some.labels == molecules.MISSING).mean() == pytest.approx(
    0.2, abs=0.02
  )


@needs_rdkit
def test_other_texts_are_of_the_same_molecule():
  chem = importlib.import_module('rdkit.Chem')
  some = molecules.made(20).smiles
  texts = molecules.randomised([*some, 'F(F)F'], 3, seed=1)
  assert texts == molecules.randomised([*some, 'F(F)F'], 3, seed=1)
  assert texts != molecules.randomised([*some, 'F(F)F'], 3, seed=2)
  # A valence that cannot be.
  assert texts.pop() == ['F(F)F'] * 3
  assert sum(len({*others}) for others in texts) > 2 * len(texts)
  for text, others in zip(some, texts, strict=True):
    same = {chem.CanonSmiles(other) for other in others}
    assert same == {chem.CanonSmiles(text)}
    assert all(map(molecules.tokenize, others))


@needs_rdkit
def test_all_are_written_in_one_way():
  alike = ['c1ccccc1O', 'OC1=CC=CC=C1', 'C1=CC(O)=CC=C1']
  first, *others = molecules.canonical([*alike, 'F(F)F'])
  assert others == [first, first, 'F(F)F']


@needs_rdkit
def test_scaffolds_are_together():
  rings = [f'C1C{"C" * size}1' for size in range(1, 11)]
  smiles = tuple(f'{chain}{ring}' for ring in rings for chain in ('O', 'NO'))
  some = molecules.Table('t', smiles, ('a',), np.zeros((20, 1), np.int8))
  parts = molecules.split(some, 'scaffold')
  assert [len(part) for part in parts] == [16, 2, 2]
  names = [{smiles[i].lstrip('NO') for i in part} for part in parts]
  assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]


@pytest.mark.parametrize(
  ('name', 'shape', 'actives'),
  [
    ('tox21', (8014, 12), 310),
    ('sider', (1427, 27), 743),
    ('clintox', (1491, 2), 1397),
  ],
)
def test_published_tables_are_read(name, shape, actives):
  path = SHARED / f'{name}.csv.gz'
  if not path.exists():
    pytest.skip('the published tables are not here')
  some = molecules.load(str(path))
  assert some.labels.shape == shape
  assert (some.labels[:, 0] == 1).sum() == actives
