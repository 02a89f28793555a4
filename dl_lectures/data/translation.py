"""Lines in two languages, for models that translate: three ways to get them.

  load('numbers')   numbers from 0 to 999,999 in German and English words, made
                    here: on any machine, nothing to fetch
  load('FOLDER')    files of lines that belong together, one for each language:
                    train.de and train.en, val.de and val.en, test.de and
                    test.en, or all of them with .gz. So Multi30k is published.
  load('ted_hrlr_translate/pt_to_en', ('pt', 'en'))
                    a corpus that tensorflow-datasets has prepared

In German the units come before the tens, in one word: 97 is siebenundneunzig.
A translator has to cut the word, and to read it out of order.

Where there is no test set, the validation set is tested on, and as many pairs
from the end of the training set are held out to choose by.

Slides: deck 003, "Sequence to sequence", "Attention".
"""

import gzip
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dl_lectures.types import UsageError

# The first name of each part is ours; others are those of published files.
_PARTS = {
  'train': ('train',),
  'valid': ('valid', 'val', 'dev', 'validation'),
  'test': ('test', 'test_2016_flickr', 'test2016'),
}
# Of the numbers: how many pairs each part has.
_SIZES = {'train': 20_000, 'valid': 1000, 'test': 1000}
_LARGEST = 999_999


class Lines(NamedTuple):
  """Lines in two languages: source[i] and target[i] say the same."""

  source: tuple[str, ...]
  target: tuple[str, ...]


class Corpus(NamedTuple):
  """Lines to learn from, to choose by, and to test on.

  Attributes:
    name: where they are from, for titles.
    train: most of them.
    valid: nothing is learned from these.
    test: nor from these, and nothing is chosen by them.
  """

  name: str
  train: Lines
  valid: Lines
  test: Lines


def load(
  source: str = 'numbers', languages: tuple[str, str] = ('de', 'en')
) -> Corpus:
  """Lines by the name of their corpus, or by the folder of their files.

  Args:
    source: 'numbers', a folder, or a corpus of tensorflow-datasets.
    languages: from which and into which; the ends of the files' names.

  Raises:
    UsageError: no such corpus, files that do not belong together, or none.

  >>> corpus = load()
  >>> corpus.train.source[0], corpus.train.target[0]
  ('neunhundertneunundfünfzigtausendzweihundertdreiunddreißig', \
'nine hundred and fifty-nine thousand two hundred and thirty-three')
  """
  if len(set(languages)) != 2:
    raise UsageError(
      f'languages {",".join(languages)}; two different ones are possible'
    )
  if source == 'numbers':
    return _numbers(languages)
  if pathlib.Path(source).is_dir():
    return _divide(
      pathlib.Path(source).resolve().name,
      {
        part: _read_part(pathlib.Path(source), names, languages)
        for part, names in _PARTS.items()
      },
    )
  return _prepared(source, languages)


def german(number: int) -> str:
  """A number from 0 to 999,999 in German words.

  >>> german(97), german(1101)
  ('siebenundneunzig', 'eintausendeinhunderteins')
  """
  _check_number(number)
  thousands, rest = divmod(number, 1000)
  # Before another word, eins loses its s.
  before = _german_hundreds(thousands).removesuffix('s')
  if thousands % 100 != 1:
    before = _german_hundreds(thousands)
  words = f'{before}tausend' if thousands else ''
  return words + _german_hundreds(rest) or 'null'


_GERMAN = (
  '', 'eins', 'zwei', 'drei', 'vier', 'fünf', 'sechs', 'sieben', 'acht', 'neun',
  'zehn', 'elf', 'zwölf', 'dreizehn', 'vierzehn', 'fünfzehn', 'sechzehn',
  'siebzehn', 'achtzehn', 'neunzehn',
)  # fmt: skip
_GERMAN_TENS = (
  '', '', 'zwanzig', 'dreißig', 'vierzig', 'fünfzig', 'sechzig', 'siebzig',
  'achtzig', 'neunzig',
)  # fmt: skip


def _german_hundreds(number: int) -> str:
  hundreds, rest = divmod(number, 100)
  words = ''
  if hundreds:
    words = f'{"ein" if hundreds == 1 else _GERMAN[hundreds]}hundert'
  if rest < len(_GERMAN):
    return words + _GERMAN[rest]
  tens, units = divmod(rest, 10)
  if units:
    words += f'{"ein" if units == 1 else _GERMAN[units]}und'
  return words + _GERMAN_TENS[tens]


def english(number: int) -> str:
  """A number from 0 to 999,999 in English words.

  >>> english(97), english(1101)
  ('ninety-seven', 'one thousand one hundred and one')
  """
  _check_number(number)
  thousands, rest = divmod(number, 1000)
  words = [f'{_english_hundreds(thousands)} thousand'] if thousands else []
  if thousands and 0 < rest < 100:
    words.append('and')
  words.append(_english_hundreds(rest))
  return ' '.join(words).strip() or 'zero'


_ENGLISH = (
  '', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine',
  'ten', 'eleven', 'twelve', 'thirteen', 'fourteen', 'fifteen', 'sixteen',
  'seventeen', 'eighteen', 'nineteen',
)  # fmt: skip
_ENGLISH_TENS = (
  '', '', 'twenty', 'thirty', 'forty', 'fifty', 'sixty', 'seventy', 'eighty',
  'ninety',
)  # fmt: skip


def _english_hundreds(number: int) -> str:
  hundreds, rest = divmod(number, 100)
  words = [_ENGLISH[hundreds], 'hundred'] if hundreds else []
  if hundreds and rest:
    words.append('and')
  if rest < len(_ENGLISH):
    words.append(_ENGLISH[rest])
  else:
    tens, units = divmod(rest, 10)
    words.append(
      f'{_ENGLISH_TENS[tens]}-{_ENGLISH[units]}'
      if units
      else _ENGLISH_TENS[tens]
    )
  return ' '.join(words).strip()


def _check_number(number: int) -> None:
  if not 0 <= number <= _LARGEST:
    raise UsageError(f'number {number}; 0 to {_LARGEST} is possible')


def _numbers(languages: tuple[str, str]) -> Corpus:
  """Different numbers in each part, the same for every seed."""
  speak = {'de': german, 'en': english}
  for language in languages:
    if language not in speak:
      raise UsageError(
        f'numbers in language {language!r}; possible: {", ".join(speak)}'
      )
  order = np.random.default_rng(0).permutation(_LARGEST + 1).tolist()
  parts = {}
  for part, size in _SIZES.items():
    numbers, order = order[:size], order[size:]
    parts[part] = Lines(
      *(tuple(map(speak[language], numbers)) for language in languages)
    )
  return Corpus('numbers', **parts)


def _read_part(
  folder: pathlib.Path, names: Iterable[str], languages: tuple[str, str]
) -> Lines | None:
  """A part's lines, without empty ones; None where it has no files."""
  for name in names:
    paths = [_find(folder, f'{name}.{language}') for language in languages]
    if not any(paths):
      continue
    if not all(paths):
      raise UsageError(
        f'{folder}: {name} in one language of {", ".join(languages)}; both are '
        'needed'
      )
    first, second = (_read(path) for path in paths if path)
    if len(first) != len(second):
      raise UsageError(
        f'{folder}: {name} of {len(first)} and of {len(second)} lines; as many '
        'in both languages are possible'
      )
    return _lines(zip(first, second, strict=True))
  return None


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  return None


def _read(path: pathlib.Path) -> list[str]:
  try:
    content = path.read_bytes()
    if path.suffix == '.gz':
      content = gzip.decompress(content)
    text = content.decode()
  except (OSError, EOFError, UnicodeDecodeError) as error:
    raise UsageError(f'{path} cannot be read: {error}') from error
  # Not splitlines(), which cuts at more than ends of lines.
  return text.removesuffix('\n').split('\n')


def _lines(both: Iterable[tuple[str, str]]) -> Lines:
  kept = [(a.strip(), b.strip()) for a, b in both if a.strip() and b.strip()]
  first, second = zip(*kept, strict=True) if kept else ((), ())
  return Lines(first, second)


def _prepared(name: str, languages: tuple[str, str]) -> Corpus:
  """A corpus of tensorflow-datasets, read without TensorFlow."""
  # Takes seconds to import.
  import tensorflow_datasets as tfds

  try:
    splits: Any = tfds.data_source(name, download=False)
    found = {
      part: _lines(
        tuple(pair[language].decode() for language in languages)
        for split in split_names
        if split in splits
        for pair in splits[split]
      )
      for part, split_names in _PARTS.items()
    }
  except Exception as error:
    # What follows is a list of all that there are.
    reason = str(error).split('. ')[0].split('\n')[0] or type(error).__name__
    raise UsageError(
      f"lines {name!r}: possible are 'numbers', a folder, or a corpus that "
      f'tensorflow-datasets has prepared ({reason})'
    ) from error
  return _divide(name, found)


def _divide(name: str, parts: Mapping[str, Lines | None]) -> Corpus:
  """A corpus, if there is something to learn from and to test on."""
  train, valid, test = (parts[part] for part in _PARTS)
  if train is None or not train.source:
    raise UsageError(
      f'{name}: no lines to learn from; files such as train.de and train.en '
      'are possible'
    )
  test = test if test and test.source else None
  valid = valid if valid and valid.source else None
  if test is None and valid is None:
    raise UsageError(
      f'{name}: no lines to test on; files such as val.de and val.en, or '
      'test.de and test.en, are possible'
    )
  if test is None or valid is None:
    test = test or valid
    assert test is not None
    held_out = len(test.source)
    if held_out >= len(train.source):
      raise UsageError(
        f'{name}: {len(train.source)} pairs to learn from; more than the '
        f'{held_out} that are held out of them are possible'
      )
    valid = Lines(*(lines[-held_out:] for lines in train))
    train = Lines(*(lines[:-held_out] for lines in train))
  return Corpus(name, train, valid, test)
