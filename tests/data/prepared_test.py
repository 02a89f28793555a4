"""Preparing without TensorFlow; texts and images have tests of their own."""

import io
import socket
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from dl_lectures.data import prepared
from dl_lectures.types import UsageError


def test_without_network_one_line_says_how_to_go_on(tmp_path, monkeypatch):
  def offline(*_):
    raise OSError('no such host')

  monkeypatch.setattr(socket, 'getaddrinfo', offline)
  monkeypatch.setattr(urllib.request, 'getproxies', dict)
  with pytest.raises(
    UsageError, match=r'no such host.*: dl_lectures.data.go\(\)'
  ):
    prepared.load('mnist', ['train'], tmp_path, by_hand='go()')
  with pytest.raises(UsageError, match=r'mnst is not to be had'):
    prepared.load('mnst', ['train'], tmp_path, by_hand='go()')


def test_everything_is_put_back():
  from tensorflow_datasets.core import dataset_builder
  from tensorflow_datasets.core.features import image_feature
  from tensorflow_datasets.image_classification import mnist

  def seen():
    return (
      dataset_builder.importlib_resources,
      image_feature._ImageEncoder._encode_image,
      mnist.tf,
    )

  before = seen()
  with prepared._without_tensorflow(mnist.__name__):
    assert all(a is not b for a, b in zip(seen(), before, strict=True))
  assert all(a is b for a, b in zip(seen(), before, strict=True))
  assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize('channels', [1, 3])
def test_images_as_png(channels):
  draw = np.random.default_rng(0)
  image = draw.integers(0, 256, (5, 4, channels), np.uint8)
  content = prepared._encode_png(None, image)
  found = np.asarray(Image.open(io.BytesIO(content)))
  np.testing.assert_array_equal(found.reshape(image.shape), image)
