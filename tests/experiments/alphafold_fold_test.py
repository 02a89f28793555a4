"""Folding one file: what it writes, and what it says of wrong ones."""

import functools
import json

import jax
import numpy as np
import pytest

from dl_lectures.data import proteins
from dl_lectures.ops import distogram
from dl_lectures.systems import alphafold
from dl_lectures.types import UsageError
from experiments import alphafold_fold

LENGTH = 12
SETTINGS = {
  'model': '',
  'chain': '',
  'seed': 0,
  'restarts': 2,
  'rounds': 1,
  'steps': 4,
  'polish': 0,
  'optimizer': 'adam',
  'staged': True,
  'blur': 0.5,
}


def fold(path, workdir):
  alphafold_fold.main_fold(input=str(path), workdir=str(workdir), **SETTINGS)


@pytest.fixture(scope='module')
def piece():
  whole = proteins.load()['1crn_A']
  return whole._replace(
    sequence=whole.sequence[:LENGTH],
    number=whole.number[:LENGTH] + 100,
    backbone=whole.backbone[:LENGTH],
    cb=whole.cb[:LENGTH],
    breaks=whole.breaks[:LENGTH],
  )


@pytest.fixture(scope='module')
def structure(piece, tmp_path_factory):
  path = tmp_path_factory.mktemp('input') / 'piece.pdb'
  text = proteins.to_pdb(piece.sequence, piece.backbone, piece.number)
  path.write_text(text)
  return path


@pytest.fixture(scope='module')
def beliefs(piece):
  distance = distogram.pair_distances(piece.cb)
  return {
    'sequence': piece.sequence,
    'log_probs': np.asarray(distogram.blurred(distance, 0.5)),
  }


@pytest.mark.slow
def test_a_self_test_leaves_all_that_is_promised(
  structure, piece, tmp_path, capsys
):
  fold(structure, tmp_path)
  best = proteins.read_structure(tmp_path / 'best.pdb')
  assert best.sequence == piece.sequence
  np.testing.assert_array_equal(best.number, piece.number)
  with np.load(tmp_path / 'pool.npz') as pool:
    assert pool['backbone'].shape == (2, LENGTH, 3, 3)
    assert (np.diff(pool['energy']) >= 0).all()
    np.testing.assert_allclose(pool['backbone'][0], best.backbone, atol=1e-3)
  with np.load(tmp_path / 'maps.npz') as maps:
    folded = np.linalg.norm(best.cb[:, None] - best.cb[None], axis=-1)
    np.testing.assert_allclose(maps['folded'], folded, atol=0.01)
    truth = np.linalg.norm(piece.cb[:, None] - piece.cb[None], axis=-1)
    near = (truth > 4) & (truth < 20)
    off = np.abs(maps['predicted'] - truth)[near]
    assert np.median(off) < 0.7
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert 0 < summary['metrics']['tm'] <= 1
  assert summary['claims'][0]['baseline'] == summary['metrics']['drawn_tm']
  page = (tmp_path / 'report.html').read_text()
  assert page.count('<canvas') == 1
  assert page.index('<canvas') < page.index('<h2>Figures</h2>')
  assert 'src="http' not in page
  for name in ('distances', 'descent', 'ramachandran', 'structure'):
    assert (tmp_path / 'figures' / f'{name}.png').stat().st_size > 5000
  told = capsys.readouterr().out
  assert 'tm ' in told
  assert 'best.pdb' in told


def test_a_distogram_is_folded(beliefs, piece, tmp_path):
  path = tmp_path / 'x.npz'
  np.savez(path, **beliefs)
  problem = alphafold_fold.read(str(path), '', 0.0, 0)
  assert problem.truth is None
  assert problem.sequence == piece.sequence
  assert not problem.beliefs.torsions.kappa.any()
  believed = problem.beliefs.distances[:LENGTH, :LENGTH]
  np.testing.assert_allclose(believed, beliefs['log_probs'], atol=1e-4)
  # Probabilities say the same, but for what is nearly impossible.
  np.savez(
    path,
    sequence=piece.sequence,
    probs=np.exp(beliefs['log_probs']),
    torsion_mean=np.zeros((LENGTH, 2)),
    torsion_kappa=np.full((LENGTH, 2), 3.0),
  )
  again = alphafold_fold.read(str(path), '', 0.0, 0).beliefs
  likely = beliefs['log_probs'] > -8
  np.testing.assert_allclose(
    np.asarray(again.distances)[:LENGTH, :LENGTH][likely],
    beliefs['log_probs'][likely],
    atol=1e-2,
  )
  assert float(again.torsions.kappa[3, 1]) == 3


def without(name):
  return lambda arrays: {k: v for k, v in arrays.items() if k != name}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (without('sequence'), 'has no array `sequence`; it has log_probs'),
    (without('log_probs'), 'no array `log_probs` or `probs`; it has sequence'),
    (lambda a: a | {'sequence': 'AB1'}, "sequence 'AB1'; at least 4 letters"),
    (
      lambda a: a | {'sequence': 'ACDEF'},
      r'log_probs is \[12, 12, 64\]; with a sequence of 5 letters \[5, 5, 64\]',
    ),
    (
      lambda a: a | {'log_probs': a['log_probs'] * np.nan},
      'log_probs has what is no finite number',
    ),
    (
      lambda a: a | {'torsion_mean': np.zeros((12, 2))},
      'has no array `torsion_kappa`',
    ),
    (
      lambda a: without('log_probs')(a) | {'probs': -np.exp(a['log_probs'])},
      'probs has numbers below 0',
    ),
  ],
)
def test_what_is_no_distogram_is_told(beliefs, tmp_path, change, message):
  path = tmp_path / 'x.npz'
  np.savez(path, **change(beliefs))
  with pytest.raises(UsageError, match=message) as told:
    alphafold_fold.read(str(path), '', 0.0, 0)
  assert '\n' not in str(told.value)


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('x.a3m', '>a\nMKVLAT\n', 'is an alignment, which takes a trained network'),
    ('x.a3m', '>a\nMK1LAT\n', "'1' is no residue"),
    ('x.fasta', '>a\nM\n', 'the first row has 1 residues'),
    ('x.pdb', 'END\n', 'no residue has the backbone atoms'),
    ('x.npz', 'not packed', 'cannot be read: it is no .npz file'),
    ('x.txt', '', r'\.txt is not known; possible: \.a3m'),
    ('x', '', 'no ending is not known'),
  ],
)
def test_a_wrong_file_is_told(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_text(content)
  with pytest.raises(UsageError, match=message) as told:
    alphafold_fold.read(str(path), '', 0.0, 0)
  assert '\n' not in str(told.value)


def test_an_alignment_is_asked_of_all_networks_of_a_workdir(
  tmp_path, monkeypatch
):
  path = tmp_path / 'x.a3m'
  path.write_text('>a\nMKVLAT\n>b\nMKcV-AT\n')
  with pytest.raises(UsageError, match=r'holds no run \(no config.json\)'):
    alphafold_fold.read(str(path), '', 0.0, 0, str(tmp_path))
  for seed in (0, 1):
    (tmp_path / f'seed_{seed}').mkdir()
    (tmp_path / f'seed_{seed}' / 'config.json').write_text('{}')
  config = alphafold.Config(
    crop=8, stride=4, towers=(1, 4), reference_towers=(1, 4)
  )
  both = alphafold.networks(config)
  init = jax.jit(functools.partial(alphafold.init, config, both))
  state = init(alphafold._blank(config), jax.random.key(0))
  asked = []

  def load(workdir):
    asked.append(workdir)
    return alphafold.Model(config, state.params, state.net_state, 0)

  monkeypatch.setattr(alphafold, 'load', load)
  problem = alphafold_fold.read(str(path), '', 0.0, 0, str(tmp_path))
  assert [name[-6:] for name in asked] == ['seed_0', 'seed_1']
  assert problem.sequence == 'MKVLAT'
  said = np.exp(problem.beliefs.distances[:6, :6])
  np.testing.assert_allclose(said.sum(-1), 1, rtol=1e-4)
  np.testing.assert_allclose(said, said.swapaxes(0, 1), rtol=1e-5)
  assert problem.beliefs.reference is not None
  assert problem.beliefs.torsions.kappa[:6].all()


def test_a_missing_file_is_told(tmp_path):
  for name in ('none.npz', 'none.pdb'):
    with pytest.raises(UsageError, match=f'{name} cannot be read: No such'):
      alphafold_fold.read(str(tmp_path / name), '', 0.0, 0)


def test_too_long_a_chain_is_told(tmp_path):
  path = tmp_path / 'long.npz'
  np.savez(path, sequence='A' * 2000, log_probs=np.zeros((1, 1, 64)))
  with pytest.raises(UsageError, match='log_probs is'):
    alphafold_fold.read(str(path), '', 0.0, 0)
  with pytest.raises(UsageError, match='has 2000 residues; at most 1024'):
    alphafold_fold._size('x.pdb', 2000)


def test_a_workdir_that_cannot_be_is_told_first(structure, tmp_path):
  blocked = tmp_path / 'file'
  blocked.write_text('')
  with pytest.raises(UsageError, match='is not a directory'):
    fold(structure, blocked)


def test_only_residues_with_both_torsions_are_drawn():
  angles = np.arange(10.0).reshape(5, 2)
  breaks = np.array([False, False, True, False, False])
  inner = alphafold_fold._inner(angles, breaks)
  # Of pieces of two and three residues, but the middle of the second.
  expected = (angles[3:4] + np.pi) % (2 * np.pi) - np.pi
  np.testing.assert_allclose(inner, expected)
