"""Datasets of tensorflow-datasets, without TensorFlow and without a network.

tensorflow-datasets prepares a dataset once (fetches, checks, converts) and then
reads it without TensorFlow. Only the preparation reaches for TensorFlow, in a
few places, and only to read and write files and to encode images: there
something smaller stands in for it. The files need not be fetched: those that
are there already are taken, their checksums verified.
"""

import contextlib
import importlib
import io
import os
import pathlib
import socket
import sys
import types as python_types
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dl_lectures.types import UsageError


def load(
  name: str,
  splits: Sequence[str],
  data_dir: str | os.PathLike[str] | None = None,
  manual_dir: str | os.PathLike[str] | None = None,
  *,
  by_hand: str,
) -> list[Any]:
  """The splits of a dataset, prepared if it is not yet.

  Args:
    name: of the dataset.
    splits: such as 'train'.
    data_dir: where tensorflow-datasets keeps what it has prepared; by default
      $TFDS_DATA_DIR or ~/tensorflow_datasets.
    manual_dir: the folder of the original files; None to fetch them.
    by_hand: how to prepare it from files, for the error's message.

  Returns:
    Of each split a sequence of examples, dictionaries.

  Raises:
    UsageError: it is not prepared and cannot be, and why.
  """
  # Takes seconds to import.
  import tensorflow_datasets as tfds

  try:
    with _without_tensorflow(tfds.builder_cls(name).__module__):
      # Its own annotations are in the way.
      builder: Any = tfds.builder(
        name, data_dir=data_dir, file_format='array_record'
      )
      if not builder.is_prepared():
        # Directories of its own: extracted files are kept by their names
        # alone, and one dataset would get those of another.
        work = pathlib.Path(builder.data_path).parent / 'downloads'
        if manual_dir is None:
          _check_network(builder.url_infos)
        builder.download_and_prepare(
          download_dir=work,
          download_config=tfds.download.DownloadConfig(
            manual_dir=manual_dir,
            extract_dir=work / 'extracted',
            try_download_gcs=False,
          ),
        )
      return [builder.as_data_source(split) for split in splits]
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UsageError(
      f'{name} is not to be had from tensorflow-datasets ({reason}); with its '
      f'files at hand: dl_lectures.data.{by_hand}'
    ) from error


def _check_network(urls: Iterable[str]) -> None:
  """Fails at once where tensorflow-datasets would try for many minutes."""
  if not urllib.request.getproxies():
    for host in {urllib.parse.urlparse(url).hostname for url in urls}:
      socket.getaddrinfo(host, 443)


@contextlib.contextmanager
def _without_tensorflow(module: str) -> Iterator[None]:
  """Lets tensorflow-datasets prepare a dataset where TensorFlow is not.

  It reads and writes files through TensorFlow in a few modules, by name; there
  the name means the operating system's own files, for as long as this lasts.

  Args:
    module: that of the dataset's builder.
  """
  if 'tensorflow' in sys.modules:
    yield
    return
  from tensorflow_datasets.core import dataset_builder
  from tensorflow_datasets.core.download import downloader, extractor
  from tensorflow_datasets.core.features import image_feature

  files = python_types.SimpleNamespace(
    GFile=open, isdir=os.path.isdir, exists=os.path.exists
  )
  stand_in = python_types.SimpleNamespace(
    io=python_types.SimpleNamespace(gfile=files),
    compat=python_types.SimpleNamespace(as_text=os.fspath),
    errors=python_types.SimpleNamespace(UnimplementedError=NotImplementedError),
  )
  resources = python_types.SimpleNamespace(
    abc=importlib.import_module('importlib.resources.abc')
  )
  # `importlib_resources` is undeclared by tensorflow-datasets on this Python,
  # whose own library has what it needs of it.
  replaced: list[tuple[Any, str, Any]] = [
    (dataset_builder, 'importlib_resources', resources),
    (image_feature._ImageEncoder, '_encode_image', _encode_png),
  ] + [
    (owner, 'tf', stand_in)
    for owner in (importlib.import_module(module), downloader, extractor)
    if hasattr(owner, 'tf')
  ]
  before = [getattr(owner, field) for owner, field, _ in replaced]
  try:
    for owner, field, new in replaced:
      setattr(owner, field, new)
    yield
  finally:
    for (owner, field, _), old in zip(replaced, before, strict=True):
      setattr(owner, field, old)


def _encode_png(encoder: Any, image: np.ndarray) -> bytes:
  """[H, W, C] as PNG."""
  del encoder
  # Comes with matplotlib.
  from PIL import Image

  content = io.BytesIO()
  one_channel = image.shape[-1] == 1
  Image.fromarray(image[..., 0] if one_channel else image).save(content, 'png')
  return content.getvalue()
