"""Texts as tokens: splits, vocabularies, pieces, and where texts are from."""

import hashlib
import itertools
import pathlib
import socket
import urllib.request
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dl_lectures import types
from dl_lectures.data import text

RAW = pathlib.Path(__file__).parents[2].parent / 'shared' / 'data' / 'text'
SHA256 = '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed'


@pytest.fixture(scope='module')
def python():
  return text.load('python')


def test_the_default_text_is_there_on_any_machine(python):
  whole = np.concatenate([python.train, python.held_out])
  assert len(whole) > 1_000_000
  assert python.train.dtype == np.int32
  # Printable ASCII, and the end of a line.
  symbols = python.vocabulary.symbols
  assert set(symbols) <= {'\n', '\t'} | {chr(c) for c in range(32, 127)}
  assert len(symbols) > 90
  # Of abc.py's class, read with no help of ours.
  import abc

  assert abc.ABC.__doc__ is not None
  start = abc.ABC.__doc__.split('\n')[0]
  assert start in text.decode(python.vocabulary, whole)


def test_files_come_in_the_order_of_their_names(tmp_path):
  for name in ('b.py', 'a/z.py', 'a/c.txt', 'test/t.py', 'a/b.py', 'a.py'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
  found = [str(p.relative_to(tmp_path)) for p in text._sources(tmp_path)]
  assert found == ['a/b.py', 'a/z.py', 'a.py', 'b.py']


def test_docstrings_come_in_the_order_of_the_source():
  source = '''
"""One."""
class A:
  """Two."""
  def f(self):
    """Three."""
    def g():
      """Four."""
def h():
  pass
'''
  found = list(text._docstrings(text.ast.parse(source)))
  assert found == ['One.', 'Two.', 'Three.', 'Four.']


@given(st.text(min_size=20, max_size=200))
def test_parts_make_the_whole_text(whole):
  whole = whole.encode('utf-8', 'replace').decode()
  for tokens in text.TOKENS:
    corpus = text.from_text(whole, tokens=tokens)
    assert len(corpus.train) > 0
    assert len(corpus.valid) > 0
    assert len(corpus.test) > 0
    parts = [corpus.train, corpus.valid, corpus.test]
    joined = np.concatenate(parts)
    assert text.decode(corpus.vocabulary, joined) == whole
    np.testing.assert_array_equal(joined[len(corpus.train) :], corpus.held_out)
    assert joined.max() < corpus.vocabulary.size


def test_splits_are_90_5_5():
  corpus = text.from_text('abcdefghij' * 100)
  assert [len(x) for x in (corpus.train, corpus.valid, corpus.test)] == [
    900,
    50,
    50,
  ]


def test_characters_are_numbered_in_their_order():
  vocabulary = text.characters('zebra äz')
  assert vocabulary.symbols == ' aberzä'
  assert vocabulary.size == 7
  assert text.encode(vocabulary, 'aä ').tolist() == [1, 6, 0]
  assert text.decode(vocabulary, np.array([5, 3])) == 'ze'
  assert text.encode(vocabulary, '').shape == (0,)


def test_bytes_need_no_vocabulary():
  tokens = text.encode(text.BYTES, 'ä€')
  assert tokens.tolist() == [0xC3, 0xA4, 0xE2, 0x82, 0xAC]
  assert text.decode(text.BYTES, tokens) == 'ä€'
  # Half of a character, as a model may stop.
  assert text.decode(text.BYTES, tokens[:1]) == '\ufffd'


def test_crops_are_pieces_of_the_text():
  tokens = np.arange(50) * 2
  batches = text.crops(tokens, length=4, batch_size=64, seed=1, step=0)
  first = next(batches)
  assert first.shape == (64, 5)
  assert first.dtype == np.int32
  np.testing.assert_array_equal(np.diff(first, axis=1), 2)
  # From anywhere, the first and last possible place included.
  starts = {
    int(x) for batch in itertools.islice(batches, 20) for x in batch[:, 0]
  }
  assert starts == set(range(0, 92, 2))


def test_crops_do_not_depend_on_where_a_run_resumed():
  tokens = np.arange(50)

  def batches(step, seed=1):
    return text.crops(tokens, length=4, batch_size=3, seed=seed, step=step)

  whole = list(itertools.islice(batches(0), 6))
  resumed = list(itertools.islice(batches(4), 2))
  np.testing.assert_array_equal(whole[4:], resumed)
  assert not np.array_equal(whole[0], whole[1])
  assert not np.array_equal(whole[0], next(batches(0, seed=2)))


def test_streams_read_on():
  tokens = np.arange(12)

  def batches(step):
    return text.streams(tokens, length=3, batch_size=2, step=step)

  whole = list(itertools.islice(batches(0), 5))
  assert whole[0].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
  for before, after in itertools.pairwise(whole):
    np.testing.assert_array_equal(before[:, -1], after[:, 0])
  # Each lane has read all after 12 / 3 batches.
  assert sorted(np.concatenate(whole[:4])[:, 1:].ravel()) == sorted(
    [*tokens] * 2
  )
  np.testing.assert_array_equal(
    whole[3:], list(itertools.islice(batches(3), 2))
  )


def test_a_file_of_ones_own(tmp_path):
  path = tmp_path / 'diary.txt'
  path.write_text('Today it rained: ä.\n' * 10, encoding='utf-8')
  corpus = text.load(str(path))
  assert corpus.name == 'diary.txt'
  assert len(corpus.train) == 180
  assert len(text.load(str(path), 'bytes').train) == 9 * 21


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: text.load('pyton'), r"text 'pyton' is not a file; possible: pyt"),
    (lambda: text.load('python', 'words'), r"tokens 'words'; possible: char"),
    (lambda: text.from_text(''), r'text: a text of 0 characters; at least 20'),
    (
      lambda: text.encode(text.characters('ab'), 'abc'),
      r"'c' is not in the vocabulary; possible: 'ab'",
    ),
    (
      lambda: text.decode(text.characters('ab'), np.array([0, 2])),
      r'token 2; 0 to 1 are',
    ),
    (lambda: text.decode(text.BYTES, np.array([-1])), r'token -1; 0 to 255'),
    (
      lambda: next(text.crops(np.arange(5), 5, 1, 0, 0)),
      r'a text of 5 tokens for pieces of 5; at most 4',
    ),
    (
      lambda: next(text.streams(np.arange(5), 9, 1, 0)),
      r'a text of 5 tokens for pieces of 9; at most 4',
    ),
    (
      lambda: text.prepare_tiny_shakespeare('/nowhere'),
      r'/nowhere: no input.txt',
    ),
  ],
)
def test_what_is_refused(call, message):
  with pytest.raises(types.UsageError, match=message):
    call()


def test_what_is_no_text_is_refused(tmp_path):
  path = tmp_path / 'picture'
  path.write_bytes(b'\xff\xfe\xfd' * 20)
  with pytest.raises(types.UsageError, match='cannot be read'):
    text.load(str(path))


def test_without_network_one_line_says_how_to_go_on(tmp_path, monkeypatch):
  def offline(*_):
    raise OSError('no such host')

  monkeypatch.setattr(socket, 'getaddrinfo', offline)
  monkeypatch.setattr(urllib.request, 'getproxies', dict)
  with pytest.raises(
    types.UsageError, match=r'no such host.*prepare_tiny_shakespeare\(FOLDER\)'
  ):
    text.tiny_shakespeare(tmp_path)


def test_a_wrong_file_is_noticed(tmp_path):
  (tmp_path / 'input.txt').write_text('To be or not to be')
  with pytest.raises(types.UsageError, match='wrong checksum'):
    text.prepare_tiny_shakespeare(tmp_path, tmp_path / 'data')


@pytest.mark.skipif(not RAW.exists(), reason='../shared/data/text is absent')
def test_tiny_shakespeare_is_prepared_from_its_file(tmp_path):
  prepared = text.prepare_tiny_shakespeare(RAW, tmp_path)
  # Found again, without the file.
  assert text.tiny_shakespeare(tmp_path) == prepared
  assert hashlib.sha256(prepared.encode()).hexdigest() == SHA256
  corpus = text.from_text(prepared)
  assert corpus.vocabulary.size == 65
  assert len(corpus.train) == 1_003_854
  assert len(corpus.held_out) == 111_540
  # tensorflow-datasets, after preparation, without our help.
  import tensorflow_datasets as tfds

  splits: Any = tfds.data_source(
    'tiny_shakespeare', data_dir=tmp_path, download=False
  )
  for split, part in (
    ('train', corpus.train),
    ('validation', corpus.valid),
    ('test', corpus.test),
  ):
    whole = splits[split][0]['text'].decode()
    assert whole == text.decode(corpus.vocabulary, part)
