"""The shipped designs are what the script packs."""

import pathlib

import numpy as np
import pytest

from scripts import pack_designs

SHARED = pathlib.Path(__file__).parents[2].parent / 'shared/data/proteins'


def test_the_table_is_made_again(tmp_path, monkeypatch):
  if not SHARED.exists():
    pytest.skip(f'no {SHARED}')
  shipped = pack_designs.TABLES
  monkeypatch.setattr(pack_designs, 'TABLES', tmp_path)
  pack_designs.main(str(SHARED))
  with (
    np.load(shipped / 'designs.npz') as old,
    np.load(tmp_path / 'designs.npz') as new,
  ):
    assert old.files == new.files
    for name in old.files:
      np.testing.assert_array_equal(old[name], new[name])
  notice = 'designs_LICENSE.txt'
  assert (tmp_path / notice).read_text() == (shipped / notice).read_text()
