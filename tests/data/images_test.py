"""Images: digits, MNIST's files, and files that are none."""

import gzip
import pathlib

import numpy as np
import pytest

from dl_lectures.data import images, prepared
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
  with pytest.raises(UsageError, match=r"'mnst' are unknown; possible: dig"):
    images.load('mnst')
  with pytest.raises(UsageError, match=r'mnist, fashion_mnist or a folder'):
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


def small_files(folder: pathlib.Path, seed: int) -> images.Images:
  """Files named as MNIST's, of 5 and 3 images."""
  folder.mkdir()
  draw, parts = np.random.default_rng(seed), []
  for part, count in (('train', 5), ('t10k', 3)):
    image = draw.integers(0, 256, (count, 28, 28), np.uint8)
    label = draw.integers(0, 10, count, np.int32)
    for kind, array in (('images-idx3', image), ('labels-idx1', label)):
      path = folder / f'{part}-{kind}-ubyte.gz'
      path.write_bytes(gzip.compress(idx(array)))
    parts += [image[..., None], label]
  return images.Images(folder.name, *parts, levels=256)


def pairs(found: images.Images) -> list[list[bytes]]:
  """Each image with its label, in order of their bytes: train and test."""
  parts = (found.train, found.train_label), (found.test, found.test_label)
  return [
    sorted(x.tobytes() + bytes([y]) for x, y in zip(image, label, strict=True))
    for image, label in parts
  ]


def same(found: images.Images, expected: images.Images) -> None:
  """In whatever order the images are."""
  assert found.train.shape == expected.train.shape
  assert found.train.dtype == np.uint8
  assert found.train_label.dtype == np.int32
  assert pairs(found) == pairs(expected)


def test_datasets_with_files_of_the_same_names_are_kept_apart(
  tmp_path, monkeypatch
):
  """As MNIST's and Fashion-MNIST's are: the one was once read for the other."""
  from tensorflow_datasets.core.download import checksums
  from tensorflow_datasets.image_classification import mnist

  monkeypatch.setattr(mnist, '_TRAIN_EXAMPLES', 5)
  monkeypatch.setattr(mnist, '_TEST_EXAMPLES', 3)
  builders = {'mnist': mnist.MNIST, 'fashion_mnist': mnist.FashionMNIST}
  with prepared._without_tensorflow(mnist.__name__):
    published = {name: builder.url_infos for name, builder in builders.items()}
  expected = {}
  for name, builder in builders.items():
    folder = tmp_path / name
    expected[name] = small_files(folder, len(expected))
    infos = {
      url: checksums.compute_url_info(folder / info.filename)
      for url, info in published[name].items()
    }
    monkeypatch.setattr(builder, 'url_infos', infos)
  data_dir = tmp_path / 'data'
  for name in expected:
    same(images.prepare(name, tmp_path / name, data_dir), expected[name])
  monkeypatch.undo()
  for name in expected:
    found = images._prepared(name, data_dir, None)
    assert found.name == name
    same(found, expected[name])


def test_a_file_of_another_checksum_is_refused(tmp_path):
  small_files(tmp_path / 'mnist', 0)
  with pytest.raises(UsageError, match='wrong checksum'):
    images.prepare('mnist', tmp_path / 'mnist', tmp_path / 'data')


def test_what_cannot_be_prepared(tmp_path):
  with pytest.raises(UsageError, match=r"dataset 'digits'; possible: mnist, f"):
    images.prepare('digits', tmp_path)
  with pytest.raises(
    UsageError, match=r'no train-images-idx3-ubyte\.gz is there'
  ):
    images.prepare('mnist', tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason='no ../shared/data/mnist')
def test_mnist_is_prepared_from_its_files(tmp_path):
  found = images.prepare('mnist', MNIST, tmp_path)
  assert found.name == 'mnist'
  same(found, images.load(str(MNIST)))


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


def test_drawn_levels_are_as_often_1_as_pixels_are_bright():
  pixels = np.tile(np.array([0, 64, 255], np.uint8), (2000, 1))
  drawn = images.binarise(pixels, 256, seed=3)
  low, middle, high = drawn.mean(0)
  assert (low, high) == (0, 1)
  share = 64 / 255
  assert abs(middle - share) < 4 * np.sqrt(share * (1 - share) / 2000)
  np.testing.assert_array_equal(drawn, images.binarise(pixels, 256, seed=3))
