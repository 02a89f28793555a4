"""Noise of distances; what is believed of it is tested where it is folded."""

import jax
import numpy as np
import pytest

from dl_lectures.analysis import known_structures

SIZE = 32


@pytest.mark.parametrize('correlation', [0.0, 3.0])
def test_distances_are_off_as_told(correlation):
  blur = known_structures.Blur(noise=2.0, correlation=correlation)
  keys = jax.random.split(jax.random.key(2), 20)
  draw = jax.jit(
    jax.vmap(lambda key: known_structures.distance_noise(blur, SIZE, key))
  )
  off: np.ndarray = np.array(draw(keys), float)
  np.testing.assert_allclose(off, off.swapaxes(1, 2), atol=1e-5)
  apart = np.abs(np.arange(SIZE)[:, None] - np.arange(SIZE))
  far = apart > 8
  assert np.std(off[:, far]) == pytest.approx(2, rel=0.15)
  assert np.std(off[:, apart == 2]) < 1
  pairs = far[:, 1:] & far[:, :-1]
  first, second = off[:, :, 1:][:, pairs], off[:, :, :-1][:, pairs]
  alike = np.corrcoef(first.ravel(), second.ravel())[0, 1]
  # A Gaussian kernel met by itself: exp(-1 / (2 * 3 ** 2)).
  expected = np.exp(-1 / 18) if correlation else 0.0
  assert alike == pytest.approx(expected, abs=0.05)
