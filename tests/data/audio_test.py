"""Sound: mu-law by its formula, melodies, WAV files of all kinds, mistakes."""

import struct
import wave
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dl_lectures.data import audio, text
from dl_lectures.types import UsageError


def pcm(path, frames: bytes, width: int, channels: int = 1, rate: int = 8000):
  """Written by the standard library."""
  with wave.open(str(path), 'wb') as file:
    file.setnchannels(channels)
    file.setsampwidth(width)
    file.setframerate(rate)
    file.writeframes(frames)
  return path


def test_levels_by_the_formula():
  for x in (-1.0, -0.5, -0.001, 0.0, 0.2, 1.0):
    y = np.sign(x) * np.log(1 + 255 * abs(x)) / np.log(256)
    expected = int((y + 1) / 2 * 255 + 0.5)
    assert audio.encode(np.array([x]))[0] == expected
  assert audio.encode(np.array([-7.0, 7.0])).tolist() == [0, 255]


def test_every_level_comes_back():
  levels = np.arange(256)
  signal = audio.decode(levels)
  assert signal.dtype == np.float32
  assert (np.diff(signal) > 0).all()
  np.testing.assert_array_equal(audio.encode(signal), levels)


@given(st.floats(-1, 1))
def test_rounding_is_small_beside_the_sample(x):
  again = float(audio.decode(audio.encode(np.array([x])))[0])
  # Half a level of the logarithm.
  assert abs(again - x) <= (abs(x) + 1 / 255) * (256 ** (1 / 255) - 1)


def test_melodies_are_the_same_everywhere():
  signal = audio.melodies(2.0, 4000)
  assert signal.shape == (8000,)
  assert 0.2 < np.abs(signal).max() <= 1
  np.testing.assert_array_equal(signal, audio.melodies(2.0, 4000))
  assert not np.array_equal(signal, audio.melodies(2.0, 4000, seed=1))
  # A longer one begins alike, up to its last note here.
  longer = audio.melodies(3.0, 4000)
  np.testing.assert_array_equal(signal[:4000], longer[:4000])


def test_a_note_is_its_harmonics():
  rate, pitch = 8000, 250.0
  note = audio._note(pitch, 4000, rate, 0.5, 1e9, np.zeros(12))
  size = np.abs(np.fft.rfft(note))
  peaks = np.arange(1, 13) * 125  # bins of 2 Hz
  assert (size[peaks] ** 2).sum() > 0.95 * (size**2).sum()
  np.testing.assert_allclose(size[peaks[1:]] / size[peaks[:-1]], 0.5, 0.02)
  # None beyond what the rate can carry.
  high = audio._note(1500.0, 4000, rate, 0.5, 1e9, np.zeros(12))
  assert np.abs(np.fft.rfft(high))[1601:].max() < 0.05 * size.max()


def test_a_sound_is_split_in_its_order():
  signal = np.linspace(-1, 1, 1000)
  sound = audio.from_signal(signal, 'ramp')
  assert [len(part) for part in sound[1:4]] == [900, 50, 50]
  joined = np.concatenate([sound.train, sound.held_out])
  np.testing.assert_array_equal(joined, audio.encode(signal))
  assert sound.vocabulary == text.BYTES


WAVES = np.array([-1.0, -0.5, 0.0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize('width', [1, 2, 3, 4])
@pytest.mark.parametrize('channels', [1, 2])
def test_wav_files_of_all_widths(tmp_path, width, channels):
  whole = np.round(WAVES * 2 ** (8 * width - 1)).astype(int)
  if width == 1:
    frames = bytes((whole + 128).tolist())
  else:
    frames = b''.join(
      int(x).to_bytes(width, 'little', signed=True) for x in whole
    )
  path = pcm(tmp_path / 'a.wav', frames, width, channels)
  # Of two channels samples come in turns, and their mean is taken.
  expected = WAVES.reshape(-1, channels).mean(axis=1)
  np.testing.assert_allclose(audio.read_wav(path, 8000), expected, atol=1e-7)


def test_a_wav_file_of_floats_with_a_title(tmp_path):
  data = WAVES.astype('<f4').tobytes()
  parts = [
    (b'fmt ', struct.pack('<HHIIHH', 3, 1, 8000, 32000, 4, 32)),
    (b'LIST', b'INFOINAM\4\0\0\0hum\0'),
    (b'data', data),
  ]
  body = b''.join(n + struct.pack('<I', len(d)) + d for n, d in parts)
  path = tmp_path / 'floats.wav'
  head = b'RIFF' + struct.pack('<I', len(body) + 4) + b'WAVE'
  path.write_bytes(head + body)
  np.testing.assert_allclose(audio.read_wav(path, 8000), WAVES)


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / 'new' / 'b.wav'
  audio.write_wav(path, WAVES, 11_025)
  with wave.open(str(path)) as file:
    assert file.getparams()[:4] == (1, 2, 11_025, len(WAVES))
  signal = audio.read_wav(path, 11_025)
  np.testing.assert_allclose(signal, WAVES, atol=1e-4)
  long = tmp_path / 'long.wav'
  audio.write_wav(long, np.tile(WAVES, 10), 4000)
  sound = audio.load(str(long), 4000)
  assert sound.name == 'long.wav'
  assert len(sound.train) == 54


def test_what_is_refused(tmp_path):
  quiet = pcm(tmp_path / 'quiet.wav', bytes(100), 2, rate=44_100)
  none = tmp_path / 'text.wav'
  none.write_text('no sound at all')
  cut = tmp_path / 'cut.wav'
  cut.write_bytes(quiet.read_bytes()[:30])
  cases: Any = [
    ((str(quiet), 8000), r'quiet.wav has 44100 samples a second and 8000 were'),
    ((str(quiet), 44_100, 0), None),
    (
      (str(tmp_path / 'nowhere.wav'), 8000),
      r"nowhere.wav' is not a file; 'mel",
    ),
    ((str(none), 8000), r'text.wav cannot be read as WAV'),
    ((str(cut), 8000), r'cut.wav cannot be read as WAV'),
    (('melodies', 1000), r'1000 samples a second; at least 2000'),
    (('melodies', 8000, 0.0), r'a melody of 0.0 seconds; more than 0'),
    (('melodies', 8000, 0.001), r'a sound of 8 samples; at least 20'),
  ]
  for arguments, message in cases:
    if message is None:
      audio.load(*arguments)
      continue
    with pytest.raises(UsageError, match=message) as caught:
      audio.load(*arguments)
    assert '\n' not in str(caught.value)
  with pytest.raises(UsageError, match='a sound of 0 samples'):
    audio.load(str(pcm(tmp_path / 'empty.wav', b'', 2)), 8000)
