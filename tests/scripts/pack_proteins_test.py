"""The shipped chains are what the script packs."""

import pathlib

import numpy as np
import pytest

from dl_lectures.data import proteins
from scripts import pack_proteins

SHARED = pathlib.Path(__file__).parents[2].parent / 'shared/data/proteins'


def test_the_table_is_made_again(tmp_path, monkeypatch):
  if not SHARED.exists():
    pytest.skip(f'no {SHARED}')
  shipped = pack_proteins.TABLES
  monkeypatch.setattr(pack_proteins, 'TABLES', tmp_path)
  pack_proteins.main(str(SHARED))
  with (
    np.load(shipped / 'proteins.npz') as old,
    np.load(tmp_path / 'proteins.npz') as new,
  ):
    assert {*old.files} == {*new.files}
    for name in old.files:
      np.testing.assert_array_equal(old[name], new[name])
  notice = 'proteins_LICENSE.txt'
  assert (tmp_path / notice).read_text() == (shipped / notice).read_text()


def test_what_no_carrier_allows_is_left_out(tmp_path, monkeypatch):
  shipped = proteins.load()
  monkeypatch.setattr(pack_proteins, 'TABLES', tmp_path)
  (tmp_path / 'structures').mkdir()
  lines = [
    'id,carrier_permissive,suggested_split,source_repo,source_path,sequence'
  ]
  for name, allowed in (('1crn_A', 'yes'), ('1ctf_A', 'no')):
    chain = shipped[name]
    (tmp_path / 'structures' / f'{name}.pdb').write_text(
      proteins.to_pdb(chain.sequence, chain.backbone)
    )
    lines.append(f'{name},{allowed},test,some/where,a/path,{chain.sequence}')
  (tmp_path / 'structures.csv').write_text('\n'.join(lines) + '\n')
  pack_proteins.main(str(tmp_path))
  with np.load(tmp_path / 'proteins.npz') as arrays:
    assert arrays['name'].tolist() == ['1crn_A']
  notice = (tmp_path / 'proteins_LICENSE.txt').read_text()
  assert '1crn_A  some/where: a/path' in notice
  assert '1ctf_A' not in notice
