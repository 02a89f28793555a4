"""Lines that belong together: numbers in words, files, and what is refused."""

import gzip
import pathlib

import pytest

from dl_lectures import types
from dl_lectures.data import translation

RAW = pathlib.Path('../shared/data/multi30k')


@pytest.mark.parametrize(
  ('number', 'german', 'english'),
  [
    (0, 'null', 'zero'),
    (1, 'eins', 'one'),
    (12, 'zwölf', 'twelve'),
    (16, 'sechzehn', 'sixteen'),
    (30, 'dreißig', 'thirty'),
    (21, 'einundzwanzig', 'twenty-one'),
    (76, 'sechsundsiebzig', 'seventy-six'),
    (100, 'einhundert', 'one hundred'),
    (101, 'einhunderteins', 'one hundred and one'),
    (219, 'zweihundertneunzehn', 'two hundred and nineteen'),
    (1000, 'eintausend', 'one thousand'),
    (1001, 'eintausendeins', 'one thousand and one'),
    (2100, 'zweitausendeinhundert', 'two thousand one hundred'),
    (17_000, 'siebzehntausend', 'seventeen thousand'),
    (21_030, 'einundzwanzigtausenddreißig', 'twenty-one thousand and thirty'),
    (
      101_101,
      'einhunderteintausendeinhunderteins',
      'one hundred and one thousand one hundred and one',
    ),
    (
      999_999,
      'neunhundertneunundneunzigtausendneunhundertneunundneunzig',
      'nine hundred and ninety-nine thousand nine hundred and ninety-nine',
    ),
  ],
)
def test_numbers_in_words(number, german, english):
  assert translation.german(number) == german
  assert translation.english(number) == english


def test_no_two_numbers_are_called_the_same():
  some = [*range(2000), *range(2000, 10**6, 997)]
  for speak in (translation.german, translation.english):
    assert len({speak(number) for number in some}) == len(some)


def test_parts_of_the_numbers_share_none():
  corpus = translation.load()
  parts = [set(part.source) for part in corpus[1:]]
  assert [len(part) for part in parts] == [20_000, 1000, 1000]
  assert len(set.union(*parts)) == 22_000
  back = translation.load('numbers', ('en', 'de'))
  assert back.test == corpus.test[::-1]


def write(folder, **files):
  for name, lines in files.items():
    name = name.replace('_', '.')
    content = ''.join(f'{line}\n' for line in lines).encode()
    path = folder / name
    if name.endswith('.gz'):
      content = gzip.compress(content)
    path.write_bytes(content)


def test_a_folder_of_files(tmp_path):
  write(
    tmp_path,
    train_de_gz=['Ein Hund\u2028bellt', '', 'Eins', 'Zwei'],
    train_en=[' A dog barks ', 'Nothing', 'One', 'Two'],
    val_de=['Drei'],
    val_en=['Three'],
  )
  corpus = translation.load(str(tmp_path))
  # The empty line is gone; without a test set, validation is tested on.
  assert corpus.train == (
    ('Ein Hund\u2028bellt', 'Eins'),
    ('A dog barks', 'One'),
  )
  assert corpus.valid == (('Zwei',), ('Two',))
  assert corpus.test == (('Drei',), ('Three',))
  write(tmp_path, test_de=['Vier'], test_en=['Four'])
  corpus = translation.load(str(tmp_path), ('en', 'de'))
  assert corpus.test == (('Four',), ('Vier',))
  assert corpus.valid == (('Three',), ('Drei',))
  assert len(corpus.train.source) == 3


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({}, 'no lines to learn from'),
    ({'train_de': ['a'], 'train_en': ['b']}, 'no lines to test on'),
    ({'train_de': ['a']}, 'train in one language of de, en; both'),
    ({'train_de': ['a'], 'train_en': []}, 'no lines to learn from'),
    ({'train_de': ['a', 'b'], 'train_en': ['c']}, 'train of 2 and of 1 lines'),
    (
      {k: ['a'] for k in ('train_de', 'train_en', 'val_de', 'val_en')},
      '1 pairs to learn from; more than the 1 that are held out',
    ),
  ],
)
def test_files_that_are_refused(tmp_path, files, message):
  write(tmp_path, **files)
  with pytest.raises(types.UsageError, match=message):
    translation.load(str(tmp_path))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: translation.load('numbers', ('de', 'de')), 'languages de,de; two'),
    (
      lambda: translation.load('numbers', ('de', 'fr')),
      "language 'fr'; possib",
    ),
    (lambda: translation.german(10**6), 'number 1000000; 0 to 999999'),
    (lambda: translation.english(-1), 'number -1; 0 to'),
  ],
)
def test_what_is_refused(call, message):
  with pytest.raises(types.UsageError, match=message):
    call()


def test_what_is_no_text_is_refused(tmp_path):
  (tmp_path / 'train.de').write_bytes(b'\xff\xfe')
  (tmp_path / 'train.en').write_text('a')
  with pytest.raises(types.UsageError, match=r'train\.de cannot be read'):
    translation.load(str(tmp_path))


def test_a_corpus_that_is_not_there_is_told_in_one_line(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(types.UsageError, match="lines 'multi31k': possible are"):
    translation.load('multi31k')


@pytest.mark.skipif(not RAW.exists(), reason=f'{RAW} is absent')
def test_multi30k():
  corpus = translation.load(str(RAW))
  assert corpus.name == 'multi30k'
  assert [len(part.source) for part in corpus[1:]] == [27_986, 1014, 1014]
  assert corpus.test.target[1] == 'A man sleeping in a green room on a couch.'
