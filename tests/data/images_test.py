"""Images: digits, MNIST's files, and files that are none."""

import gzip
import pathlib

import numpy as np
import pytest

from dl_lectures.data import images
from dl_lectures.types import UsageError

MNIST = pathlib.Path(__file__).parents[2].parent / 'shared' / 'data' / 'mnist'


def idx(array: np.ndarray) -> bytes:
  head = bytes([0, 0, 8, array.ndim])
  head += b''.join(size.to_bytes(4, 'big') for size in array.shape)
  return head + array.astype(np.uint8).tobytes()


def write(folder: pathlib.Path, count: int = 3) -> None:
  draw = np.random.default_rng(0)
  for part in ('train', 't10k'):
    image = draw.integers(0, 256, (count, 4, 5))
    label = draw.integers(0, 10, count)
    name = folder / f'{part}-images-idx3-ubyte.gz'
    name.write_bytes(gzip.compress(idx(image)))
    (folder / f'{part}-labels-idx1-ubyte').write_bytes(idx(label))


def test_digits_need_nothing():
  found = images.load()
  assert found.train.shape == (1438, 8, 8, 1)
  assert found.test.shape == (359, 8, 8, 1)
  assert found.train.max() == found.levels - 1 == 16
  assert set(found.train_label) == set(found.test_label) == set(range(10))
  # As scikit-learn gives them: the first one is a zero.
  assert found.train[0, 0, :, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
  assert found.train_label[0] == 0


def test_files_of_mnist_are_read(tmp_path):
  write(tmp_path)
  found = images.load(str(tmp_path))
  draw = np.random.default_rng(0)
  np.testing.assert_array_equal(
    found.train[..., 0], draw.integers(0, 256, (3, 4, 5))
  )
  np.testing.assert_array_equal(found.train_label, draw.integers(0, 10, 3))
  assert found.test.shape == (3, 4, 5, 1)
  assert found.levels == 256


@pytest.mark.skipif(not MNIST.exists(), reason='no ../shared/data/mnist')
def test_mnist_itself():
  found = images.load(str(MNIST))
  assert found.train.shape == (60_000, 28, 28, 1)
  assert found.test_label[:5].tolist() == [7, 2, 1, 0, 4]
  # Its published mean and deviation.
  assert round(float(found.train.mean() / 255), 4) == 0.1307
  assert round(float(found.train.std() / 255), 4) == 0.3081


def test_what_is_no_such_file(tmp_path):
  with pytest.raises(UsageError, match="'digits' or a folder is possible"):
    images.load(str(tmp_path / 'nowhere'))
  with pytest.raises(UsageError, match='no train-images-idx3-ubyte'):
    images.load(str(tmp_path))
  write(tmp_path)
  labels = tmp_path / 'train-labels-idx1-ubyte'
  labels.write_bytes(idx(np.zeros(2)))
  with pytest.raises(UsageError, match=r"3 images and 2 labels of 'train'"):
    images.load(str(tmp_path))
  labels.write_bytes(idx(np.zeros(3))[:-1])
  with pytest.raises(UsageError, match='2 bytes of data; its head tells of 3'):
    images.load(str(tmp_path))
  labels.write_bytes(b'P5 text')
  with pytest.raises(UsageError, match='not an IDX file of 1 dimensions'):
    images.load(str(tmp_path))
  (tmp_path / 'train-images-idx3-ubyte.gz').write_bytes(b'cut short')
  with pytest.raises(UsageError, match='cannot be read'):
    images.load(str(tmp_path))


def test_levels_are_of_equal_width():
  pixels = np.arange(256)
  for wanted in (2, 3, 16, 256):
    found = images.quantise(pixels, 256, wanted)
    counts = np.bincount(found)
    assert len(counts) == wanted
    assert counts.max() - counts.min() <= 1
    assert (np.diff(found) >= 0).all()
  with pytest.raises(UsageError, match='1 levels of a pixel; 2 to 17'):
    images.quantise(pixels[:17], 17, 1)
