"""Texts for language models, cut into tokens: three ways to get one.

  load('python')            docstrings of the Python that runs this: 1.7 million
                            characters, on any machine, nothing to fetch
  load('tiny_shakespeare')  1.1 million characters of plays, through
                            tensorflow-datasets, without TensorFlow
  load('notes/diary.txt')   a file of your own

A text is split in its own order: the first 90% to learn from, then 5% to
choose by and 5% to test on, as tensorflow-datasets splits tiny Shakespeare.
Published figures on tiny Shakespeare are of the last tenth, both together:
`held_out`.

tensorflow-datasets fetches tiny Shakespeare itself where there is a network.
Where there is none, but the file is (input.txt of karpathy/char-rnn, its
checksum is verified):

  python -c "from dl_lectures.data import text; \\
    text.prepare_tiny_shakespeare('FOLDER/OF/input.txt')"

Slides: deck 003, whose every language model reads such a text.
"""

import ast
import os
import pathlib
import sysconfig
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dl_lectures.data import prepared
from dl_lectures.types import UsageError

TOKENS = ('characters', 'bytes')
NAMES = ('python', 'tiny_shakespeare')

# Of the standard library: what is no library, or not there everywhere.
_LEFT_OUT = {
  '__pycache__', 'dist-packages', 'ensurepip', 'idle_test', 'lib2to3',
  'site-packages', 'test', 'tests', 'turtledemo',
}  # fmt: skip


class Vocabulary(NamedTuple):
  """What the tokens stand for.

  Attributes:
    symbols: token i is the i-th of these characters; None for bytes: token i
      is byte i of the text in UTF-8.
  """

  symbols: str | None

  @property
  def size(self) -> int:
    """V, the number of tokens."""
    return 256 if self.symbols is None else len(self.symbols)


BYTES = Vocabulary(None)


class Corpus(NamedTuple):
  """A text as tokens.

  Attributes:
    name: where it is from, for titles.
    train: [N] uint8 or int32, the first 90%.
    valid: [about N / 18], the 5% after it.
    test: the last 5%.
    vocabulary: of the whole text.
  """

  name: str
  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray
  vocabulary: Vocabulary

  @property
  def held_out(self) -> np.ndarray:
    """The last 10%, on which published figures are: valid, then test."""
    return np.concatenate([self.valid, self.test])


def load(source: str = 'python', tokens: str = 'characters') -> Corpus:
  """A text by its name, or by its path.

  Args:
    source: 'python', 'tiny_shakespeare', or the path of a text file in UTF-8.
    tokens: 'characters', those that occur; or 'bytes', always 256 of them.

  Returns:
    The corpus.

  Raises:
    UsageError: no such text, an empty or tiny one, or one that cannot be read.

  >>> load('pithon')
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: text 'pithon' is not a file; possible: python, \
tiny_shakespeare or a path
  """
  if tokens not in TOKENS:
    raise UsageError(f'tokens {tokens!r}; possible: {", ".join(TOKENS)}')
  if source == 'python':
    text = python_docstrings()
  elif source == 'tiny_shakespeare':
    text = tiny_shakespeare()
  else:
    text = _read(source)
  return from_text(text, pathlib.Path(source).name, tokens)


def from_text(
  text: str, name: str = 'text', tokens: str = 'characters'
) -> Corpus:
  """Splits a text and cuts it into tokens.

  Args:
    text: 20 characters or more, so that no part is empty.
    name: for titles.
    tokens: 'characters' or 'bytes'.

  Returns:
    The corpus.

  Raises:
    UsageError: a shorter text.

  >>> corpus = from_text('to be or not to be, ' * 5)
  >>> [len(part) for part in corpus[1:4]], corpus.vocabulary.symbols
  ([90, 5, 5], ' ,benort')
  """
  if len(text) < 20:
    raise UsageError(
      f'{name}: a text of {len(text)} characters; at least 20 are possible'
    )
  vocabulary = BYTES if tokens == 'bytes' else characters(text)
  last = len(text) - int(len(text) * 0.9)
  first = len(text) - last
  second = first + int(last * 0.5)
  return Corpus(
    name,
    train=encode(vocabulary, text[:first]),
    valid=encode(vocabulary, text[first:second]),
    test=encode(vocabulary, text[second:]),
    vocabulary=vocabulary,
  )


def characters(text: str) -> Vocabulary:
  """All characters of a text, in ascending order.

  >>> characters('banana')
  Vocabulary(symbols='abn')
  """
  return Vocabulary(''.join(sorted(set(text))))


def encode(vocabulary: Vocabulary, text: str) -> np.ndarray:
  """A text as tokens.

  Args:
    vocabulary: of characters, or `BYTES`.
    text: [N] characters.

  Returns:
    [N] int32 of characters; of bytes as many as UTF-8 needs.

  Raises:
    UsageError: a character that the vocabulary does not have.

  >>> encode(characters('banana'), 'nab').tolist(), encode(BYTES, 'é').tolist()
  ([2, 0, 1], [195, 169])
  """
  if vocabulary.symbols is None:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
  codes = np.frombuffer(text.encode('utf-32-le'), np.uint32)
  known = np.frombuffer(vocabulary.symbols.encode('utf-32-le'), np.uint32)
  tokens = np.minimum(np.searchsorted(known, codes), len(known) - 1)
  unknown = np.flatnonzero(known[tokens] != codes)
  if unknown.size:
    raise UsageError(
      f'{text[unknown[0]]!r} is not in the vocabulary; possible: '
      f'{vocabulary.symbols!r}'
    )
  return tokens.astype(np.int32)


def decode(vocabulary: Vocabulary, tokens: np.ndarray) -> str:
  """Tokens as a text.

  Args:
    vocabulary: of characters, or `BYTES`.
    tokens: [N] integers in [0, V).

  Returns:
    The text; bytes that are not UTF-8, which a model may well write, are
    shown as U+FFFD.

  Raises:
    UsageError: a token out of range.

  >>> decode(characters('banana'), np.array([2, 0, 1]))
  'nab'
  """
  tokens = np.asarray(tokens)
  wrong = tokens[(tokens < 0) | (tokens >= vocabulary.size)]
  if wrong.size:
    raise UsageError(
      f'token {wrong[0]}; 0 to {vocabulary.size - 1} are possible'
    )
  if vocabulary.symbols is None:
    return tokens.astype(np.uint8).tobytes().decode(errors='replace')
  return ''.join(vocabulary.symbols[token] for token in tokens)


def crops(
  tokens: np.ndarray, length: int, batch_size: int, seed: int, step: int
) -> Iterator[np.ndarray]:
  """Pieces from anywhere in a text, for as long as one asks.

  Args:
    tokens: [N], N >= length + 1.
    length: T; a piece has T + 1 tokens, T to read and T to predict.
    batch_size: B.
    seed: of the places.
    step: the batches before this one are left out, not drawn: batch i is a
      function of (seed, i), wherever a run resumes.

  Yields:
    [B, T + 1] int32.

  Raises:
    UsageError: a text that is too short.

  >>> next(crops(np.arange(100), length=4, batch_size=2, seed=0, step=7)).shape
  (2, 5)
  """
  check_length(tokens, length)
  while True:
    draw = np.random.default_rng((seed, step))
    start = draw.integers(0, len(tokens) - length, batch_size)
    yield tokens[start[:, None] + np.arange(length + 1)].astype(np.int32)
    step += 1


def streams(
  tokens: np.ndarray, length: int, batch_size: int, step: int
) -> Iterator[np.ndarray]:
  """A text read on and on, by readers who begin at equal distances.

  Batch i continues where batch i - 1 ended, lane by lane, for truncated
  backpropagation through time with a carry. At the end of the text a lane goes
  on at its beginning.

  Args:
    tokens: [N], N >= length + 1.
    length: T; a piece has T + 1 tokens, its last is the next one's first.
    batch_size: B readers.
    step: how many batches were read before.

  Yields:
    [B, T + 1] int32.

  Raises:
    UsageError: a text that is too short.

  >>> lanes = streams(np.arange(10), length=3, batch_size=2, step=0)
  >>> next(lanes).tolist(), next(lanes).tolist()
  ([[0, 1, 2, 3], [5, 6, 7, 8]], [[3, 4, 5, 6], [8, 9, 0, 1]])
  """
  check_length(tokens, length)
  start = np.arange(batch_size) * len(tokens) // batch_size
  while True:
    at = start[:, None] + step * length + np.arange(length + 1)
    yield tokens[at % len(tokens)].astype(np.int32)
    step += 1


def check_length(tokens: np.ndarray, length: int) -> None:
  """Refuses a text shorter than a piece and its last prediction.

  Raises:
    UsageError: it is.
  """
  if len(tokens) <= length:
    raise UsageError(
      f'a text of {len(tokens)} tokens for pieces of {length}; at most '
      f'{max(len(tokens) - 1, 0)} are possible'
    )


def python_docstrings() -> str:
  """The docstrings of the standard library, in the order of its files.

  Only ASCII characters: what else there is becomes '?'. The text depends on
  the version of Python, and on nothing else.

  Returns:
    About 1.7 million characters.

  Raises:
    UsageError: a Python that came without its sources.
  """
  root = pathlib.Path(sysconfig.get_paths()['stdlib'])
  found: list[str] = []
  for path in _sources(root):
    with warnings.catch_warnings():
      # Of the library's own old escapes.
      warnings.simplefilter('ignore')
      try:
        found += _docstrings(ast.parse(path.read_bytes()))
      except (SyntaxError, ValueError):
        continue
  if not found:
    raise UsageError(
      f'no Python sources under {root}; give a text file of your own'
    )
  return '\n\n'.join(found).encode('ascii', 'replace').decode()


def _sources(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  for path in sorted(folder.iterdir()):
    if path.is_dir() and path.name not in _LEFT_OUT:
      yield from _sources(path)
    elif path.suffix == '.py':
      yield path


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.stmt):
  """Of a definition and those in it, in the order of the source."""
  if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
    docstring = ast.get_docstring(node)
    if docstring:
      yield docstring
    for inner in node.body:
      yield from _docstrings(inner)


def _read(path: str) -> str:
  try:
    return pathlib.Path(path).read_text(encoding='utf-8')
  except FileNotFoundError:
    raise UsageError(
      f'text {path!r} is not a file; possible: {", ".join(NAMES)} or a path'
    ) from None
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(f'text {path!r} cannot be read: {error}') from error


def tiny_shakespeare(data_dir: str | os.PathLike[str] | None = None) -> str:
  """Forty thousand lines of Shakespeare (Karpathy, 2015).

  Args:
    data_dir: where tensorflow-datasets keeps what it has prepared; by default
      $TFDS_DATA_DIR or ~/tensorflow_datasets.

  Returns:
    1,115,394 characters, 65 different ones.

  Raises:
    UsageError: it is not prepared yet and cannot be fetched.
  """
  return _tiny_shakespeare(data_dir, None)


def prepare_tiny_shakespeare(
  raw: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None = None,
) -> str:
  """Prepares the dataset from a file that is there already; no network.

  Args:
    raw: the directory of input.txt, or the file.
    data_dir: as of `tiny_shakespeare`, which then finds it.

  Returns:
    The text.

  Raises:
    UsageError: there is no such file, or its checksum is another one.
  """
  folder = pathlib.Path(raw)
  folder = folder.parent if folder.is_file() else folder
  if not (folder / 'input.txt').is_file():
    raise UsageError(f'{os.fspath(raw)}: no input.txt is there')
  return _tiny_shakespeare(data_dir, folder)


def _tiny_shakespeare(
  data_dir: str | os.PathLike[str] | None, manual_dir: pathlib.Path | None
) -> str:
  splits = prepared.load(
    'tiny_shakespeare',
    ('train', 'validation', 'test'),
    data_dir,
    manual_dir,
    by_hand='text.prepare_tiny_shakespeare(FOLDER)',
  )
  return ''.join(split[0]['text'].decode() for split in splits)
