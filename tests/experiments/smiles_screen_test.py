"""smiles_screen: ranks, lines that are wrong, kills, files of all kinds."""

import csv
import dataclasses
import gzip
import sys

import jax
import numpy as np
import pytest

from dl_lectures import training
from dl_lectures.analysis import calibration
from dl_lectures.data import molecules
from dl_lectures.systems import smiles_lstm
from dl_lectures.training import sharding
from dl_lectures.types import UsageError
from experiments import smiles_screen

CONFIG = dataclasses.replace(
  smiles_lstm.PRESETS['smoke'],
  longest=16,
  vocabulary=12,
  filters=4,
  units=(4, 4),
  hidden=(),
)
TASKS = ('a', 'b')
TABLE = molecules.made(150)
# Some are there twice: with the same score the earlier is first.
SMILES = (*TABLE.smiles, *TABLE.smiles[:10])


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A run that learned nothing: its workdir and what `load` makes of it."""
  workdir = str(tmp_path_factory.mktemp('run'))
  net = smiles_lstm.network(CONFIG, 2)
  training.fit(
    lambda state, batch, key: (state._replace(step=state.step + 1), {}),
    lambda key: smiles_lstm.init(CONFIG, net, 1, key),
    config=CONFIG,
    workdir=workdir,
    num_steps=1,
    mesh=sharding.make_mesh(1),
  )
  curves = calibration.Curve(2.0, -1.0), calibration.Curve(0.5, 0.0)
  vocabulary = molecules.learn(TABLE.smiles, CONFIG.vocabulary)
  smiles_lstm.keep(workdir, CONFIG, TASKS, vocabulary, curves)
  return workdir, smiles_lstm.load(workdir)


@pytest.fixture
def screen(model, tmp_path, monkeypatch, capsys):
  """Runs the program here: (exit code, rows of the output, stderr)."""
  monkeypatch.setattr(smiles_screen, 'PART', 32)
  monkeypatch.setattr(smiles_lstm, 'AT_ONCE', 32)
  output = tmp_path / 'out.csv'

  def call(library, *flags, name='library'):
    path = tmp_path / name
    if library is not None:
      path.write_bytes(library)
    flags = [
      f'--model={model[0]}',
      f'--library={path}',
      f'--output={output}',
      *flags,
    ]
    monkeypatch.setattr(sys, 'argv', ['program', *flags])
    with pytest.raises(SystemExit) as ended:
      smiles_screen.main()
    rows = []
    if output.exists():
      with open(output, newline='') as file:
        rows = list(csv.DictReader(file))
    return ended.value.code, rows, capsys.readouterr().err

  return call


def plain(model, which=(0, 1)):
  """(score, probability) of each molecule, worked out one by one."""
  _, kept = model
  net = smiles_lstm.network(CONFIG, 2)
  apply = jax.jit(net.apply)
  found = []
  for text in SMILES:
    tokens, lengths = molecules.encode(
      kept.vocabulary, [molecules.tokenize(text)], CONFIG.longest
    )
    (scores,) = np.asarray(apply(kept.params, None, tokens, lengths))
    p = [
      1 / (1 + np.exp(-(slope * score + offset)))
      for score, (slope, offset) in zip(scores, kept.curves, strict=True)
    ]
    found.append((scores[list(which)].mean(), np.mean([p[i] for i in which])))
  return np.array(found)


LINES = ''.join(f'{text} m{i}\n' for i, text in enumerate(SMILES, 1)).encode()
CSV = (
  'mol_id,x,SMILES\n'
  + ''.join(f'm{i},"1,5",{text}\n' for i, text in enumerate(SMILES, 2))
).encode()


@pytest.mark.parametrize(
  ('library', 'first'),
  [(LINES, 1), (gzip.compress(LINES), 1), (CSV, 2), (gzip.compress(CSV), 2)],
  ids=['lines', 'lines.gz', 'csv', 'csv.gz'],
)
def test_the_best_of_a_library(screen, model, library, first):
  code, rows, err = screen(library, '--top=20')
  assert code == 0, err
  assert '160 molecules' in err
  expected = plain(model)
  order = np.lexsort((np.arange(160), -expected[:, 0].round(4)))[:20]
  assert [int(row['rank']) for row in rows] == list(range(1, 21))
  np.testing.assert_allclose(
    [[float(row['score']), float(row['probability'])] for row in rows],
    expected[order],
    atol=1e-4,
  )
  for row in rows:
    line = int(row['line'])
    assert row['smiles'] == SMILES[line - first]
    assert row['name'] == f'm{line}'
  twice = [int(r['line']) for r in rows if SMILES.count(r['smiles']) == 2]
  assert twice == [] or min(twice) < 160


def test_one_of_the_tasks(screen, model):
  _, rows, _ = screen(LINES, '--top=1', '--tasks=b')
  expected = plain(model, which=(1,))
  assert float(rows[0]['score']) == pytest.approx(
    expected[:, 0].max(), abs=1e-4
  )


def test_wrong_lines_are_told_and_the_screen_goes_on(screen, tmp_path):
  good, *_ = screen(LINES, '--top=500')
  lines = LINES.splitlines()
  lines[2:2] = [b'C1CC lost', b'', b'\xff\xfe', b'C' * 70_000, b'CC(=O']
  code, rows, err = screen(b'\n'.join(lines), '--top=500')
  assert code == good == 0
  assert len(rows) == 160
  assert "line 3: SMILES 'C1CC': ring 1 is opened and not closed" in err
  assert 'line 5: it is no text in UTF-8' in err
  assert 'line 6: a line of more than' in err
  assert '4 lines are none' in err
  with open(tmp_path / 'out.csv.errors.csv', newline='') as file:
    listed = list(csv.reader(file))
  assert [row[0] for row in listed] == ['line', '3', '5', '6', '7']
  assert {int(row['line']) for row in rows} == {1, 2, *range(8, 166)}


def test_broken_lines_of_a_table(screen):
  table = b'smiles,id\nCCO,1\nCC\n"CCN,3\nCCC,4\n'
  code, rows, err = screen(table)
  assert code == 0
  assert [row['name'] for row in sorted(rows, key=lambda r: r['line'])] == [
    '1',
    '4',
  ]
  assert 'line 3: 1 fields; as many as the header has, 2' in err
  assert 'line 4: it is broken' in err


class KilledError(BaseException):
  """What a kill leaves undone."""


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('parts', [1, 3])
def test_a_screen_that_was_killed_ends_with_the_same_file(
  screen, tmp_path, monkeypatch, packed, parts
):
  lines = LINES.splitlines()
  lines[40:40] = [b'C1CC lost']
  lines[120:120] = [b'C(', b'[']
  library = b'\n'.join(lines)
  library = gzip.compress(library) if packed else library
  screen(library, '--top=30')
  files = 'out.csv', 'out.csv.errors.csv'
  whole = [(tmp_path / name).read_bytes() for name in files]
  (tmp_path / 'out.csv').unlink()
  monkeypatch.setattr(smiles_screen, '_SAVE_EVERY', -1.0)
  score, scored = smiles_screen.Screen.score, []

  def killed(self, symbols):
    scored.append(len(symbols))
    if len(scored) > parts:
      raise KilledError
    return score(self, symbols)

  monkeypatch.setattr(smiles_screen.Screen, 'score', killed)
  with pytest.raises(KilledError):
    screen(None, '--top=30')
  assert not (tmp_path / 'out.csv').exists()
  monkeypatch.setattr(smiles_screen.Screen, 'score', score)
  code, _, err = screen(None, '--top=30')
  assert code == 0, err
  assert f'going on after line {parts * 32}' in err
  assert [(tmp_path / name).read_bytes() for name in files] == whole
  assert not (tmp_path / 'out.csv.state').exists()


def test_a_record_of_another_screen_is_refused(screen, tmp_path, model):
  path = tmp_path / 'out.csv.state'
  path.write_text('{"told": {"top": 7}, "place": [0, 0, 0, 0, []]}')
  code, _, err = screen(LINES)
  assert code == 2
  assert 'is of a screen with another model' in err
  path.write_text('{')
  code, _, err = screen(LINES)
  assert code == 2
  assert 'is no record of a screen; remove it' in err


def test_a_library_that_is_torn_is_ranked_as_far_as_it_goes(screen):
  draw = np.random.default_rng(0)
  # Incompressible, so that half of the file is half of the lines.
  names = draw.integers(0, 2**63, len(SMILES))
  lines = ''.join(f'{s} {n}\n' for s, n in zip(SMILES, names, strict=True))
  packed = gzip.compress(lines.encode())
  code, rows, err = screen(packed[: len(packed) // 2], '--top=500')
  assert code == 1
  assert 20 < len(rows) < 160
  assert 'cannot be read after line' in err
  assert 'what came before it is ranked in' in err


@pytest.mark.parametrize(
  ('library', 'flags', 'message'),
  [
    (b'', (), 'is empty'),
    (b'id,x\n1,CCO\n', (), 'no column smiles in its header; it has id, x'),
    (b'nothing\nat all\n', (), 'holds no molecule; 2 lines are none'),
    (b'C\n', ('--tasks=a,c',), "no task 'c'; possible: a, b"),
    (b'C\n', ('--top=0',), 'a whole number from 1'),
    (b'C\n', ('--library=none.smi',), '--library=none.smi cannot be read: No'),
    (b'C\n', ('--model=none',), 'none holds no run that has ended'),
    (b'C\n', ('--output=/',), '--output=/ is a directory'),
  ],
)
def test_what_is_refused_in_one_line(screen, library, flags, message):
  code, rows, err = screen(library, *flags)
  assert code == 2
  assert message in err
  assert not rows


def test_lines_are_read_as_they_are_written():
  shape = smiles_screen.Format(2, smiles=1, name=0)
  assert smiles_screen.read_line(
    b' CC\tan ethane \r\n', shape._replace(width=0)
  )
  with pytest.raises(UsageError, match='it is broken'):
    smiles_screen.read_line(b'"a,b', shape)
