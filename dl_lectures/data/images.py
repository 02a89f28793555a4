"""Small images for models of images.

  load('digits')          1,797 digits of 8 x 8 in 17 grey levels, which come
                          with scikit-learn: on any machine, nothing to fetch
  load('mnist')           70,000 digits of 28 x 28 in 256 grey levels, through
                          tensorflow-datasets, without TensorFlow
  load('fashion_mnist')   as many pieces of clothing, likewise
  load('FOLDER')          MNIST, or what else has its four files (their names
                          end in -ubyte or -ubyte.gz)

The digits stay in their order, and the last fifth of them is the test set.
tensorflow-datasets fetches what it needs where there is a network, and puts
the images into an order of its own. Where there is none, but the files are
(their checksums are verified):

  python -c "from dl_lectures.data import images; \\
    images.prepare('mnist', 'FOLDER/OF/THE/FILES')"

Slides: deck 003, "PixelRNN"; deck 001, "MNIST".
"""

import gzip
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dl_lectures.data import prepared
from dl_lectures.types import UsageError

PREPARED = ('mnist', 'fashion_mnist')
_PARTS = ('train', 't10k')


class Images(NamedTuple):
  """Images and what they show.

  Attributes:
    name: where they are from, for titles.
    train: [N, H, W, C] uint8.
    train_label: [N] int32.
    test: [M, H, W, C] uint8.
    test_label: [M] int32.
    levels: pixels are from 0 to levels - 1.
  """

  name: str
  train: np.ndarray
  train_label: np.ndarray
  test: np.ndarray
  test_label: np.ndarray
  levels: int


def load(source: str = 'digits') -> Images:
  """Images by their name, or by the folder of their files.

  Args:
    source: 'digits', 'mnist', 'fashion_mnist', or a folder with MNIST's four
      files.

  Raises:
    UsageError: there are no such images, they cannot be fetched, or a folder's
      files are not such files.

  >>> load().train.shape
  (1438, 8, 8, 1)
  """
  if source == 'digits':
    return _digits()
  if source in PREPARED:
    return _prepared(source, None, None)
  folder = pathlib.Path(source)
  if not folder.is_dir():
    raise UsageError(
      f'images {source!r} are unknown; possible: digits, '
      f"{', '.join(PREPARED)} or a folder with MNIST's four files"
    )
  parts = []
  for part in _PARTS:
    image = _read_idx(_find(folder, f'{part}-images-idx3-ubyte'), 3)
    label = _read_idx(_find(folder, f'{part}-labels-idx1-ubyte'), 1)
    if len(image) != len(label):
      raise UsageError(
        f'{folder}: {len(image)} images and {len(label)} labels of {part!r}; '
        'as many of both are possible'
      )
    parts += [image[..., None], label.astype(np.int32)]
  return Images(folder.name, *parts, levels=256)


def prepare(
  name: str,
  folder: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None = None,
) -> Images:
  """Prepares a dataset from files that are there already; no network.

  Args:
    name: of `PREPARED`.
    folder: of its four files, as they are published.
    data_dir: where tensorflow-datasets keeps what it has prepared; by default
      $TFDS_DATA_DIR or ~/tensorflow_datasets, where `load` finds it.

  Returns:
    The images.

  Raises:
    UsageError: no such dataset, no such file, or one of another checksum.
  """
  if name not in PREPARED:
    raise UsageError(f'dataset {name!r}; possible: {", ".join(PREPARED)}')
  for part in _PARTS:
    for kind in ('images-idx3', 'labels-idx1'):
      file = pathlib.Path(folder, f'{part}-{kind}-ubyte.gz')
      if not file.is_file():
        raise UsageError(f'{os.fspath(folder)}: no {file.name} is there')
  return _prepared(name, data_dir, folder)


def _prepared(
  name: str,
  data_dir: str | os.PathLike[str] | None,
  folder: str | os.PathLike[str] | None,
) -> Images:
  splits = prepared.load(
    name,
    ('train', 'test'),
    data_dir,
    folder,
    by_hand=f'images.prepare({name!r}, FOLDER)',
  )
  parts = []
  for split in splits:
    examples = list(split)
    image = np.stack([example['image'] for example in examples])
    label = np.array([example['label'] for example in examples], np.int32)
    parts += [image, label]
  return Images(name, *parts, levels=256)


def quantise(pixels: np.ndarray, levels: int, wanted: int) -> np.ndarray:
  """Pixels in fewer levels, of equal width.

  >>> quantise(np.array([0, 7, 9, 16]), 17, 2).tolist()
  [0, 0, 1, 1]

  Args:
    pixels: from 0 to levels - 1.
    levels: of them.
    wanted: from 2 to levels.
  """
  if not 2 <= wanted <= levels:
    raise UsageError(f'{wanted} levels of a pixel; 2 to {levels} are possible')
  return (pixels.astype(np.int64) * wanted // levels).astype(np.int32)


def binarise(pixels: np.ndarray, levels: int, seed: int) -> np.ndarray:
  """Pixels drawn to be 0 or 1, the brighter the more often 1.

  So MNIST is made binary in work on densities, once for all: Salakhutdinov &
  Murray, "On the quantitative analysis of deep belief networks", 2008. Images
  that are cut at a level (`quantise`) have less noise, and fewer nats.

  >>> binarise(np.array([0, 255, 255]), 256, seed=0).tolist()
  [0, 1, 1]

  Args:
    pixels: from 0 to levels - 1.
    levels: of them.
    seed: of the draw.
  """
  draw = np.random.default_rng(seed)
  share = draw.random(pixels.shape, np.float32)
  return (share * (levels - 1) < pixels).astype(np.int32)


def _digits() -> Images:
  # Takes a second to import.
  from sklearn import datasets

  found: Any = datasets.load_digits()
  image = found.images.astype(np.uint8)[..., None]
  label = found.target.astype(np.int32)
  count = len(image) - len(image) // 5
  return Images(
    'digits',
    image[:count],
    label[:count],
    image[count:],
    label[count:],
    levels=17,
  )


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  raise UsageError(f'{folder}: no {name} or {name}.gz is there')


def _read_idx(path: str | os.PathLike[str], rank: int) -> np.ndarray:
  """An array of bytes in MNIST's format: a magic number, sizes, data."""
  path = pathlib.Path(path)
  try:
    content = path.read_bytes()
    if path.suffix == '.gz':
      content = gzip.decompress(content)
  except (OSError, EOFError) as error:
    raise UsageError(f'{path} cannot be read: {error}') from error
  head = 4 * (rank + 1)
  if content[:4] != bytes([0, 0, 8, rank]) or len(content) < head:
    raise UsageError(f'{path} is not an IDX file of {rank} dimensions')
  shape = np.frombuffer(content[4:head], '>u4').astype(int)
  if len(content) - head != shape.prod():
    raise UsageError(
      f'{path} has {len(content) - head} bytes of data; its head tells of '
      f'{shape.prod()}'
    )
  return np.frombuffer(content[head:], np.uint8).reshape(shape)
