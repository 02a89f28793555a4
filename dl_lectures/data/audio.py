"""Sound as tokens: one of 256 levels for each sample.

  load('melodies')          melodies that are computed here: on any machine,
                            nothing to fetch
  load('voice.wav')         a file of your own: PCM of 8, 16, 24 or 32 bits, or
                            floats; of several channels the mean is taken

A level is the sample on the mu-law scale, fine where it is quiet and coarse
where it is loud (ITU-T G.711; van den Oord et al., "WaveNet", 2016, section
2.2):

    f(x) = sign(x) ln(1 + 255 |x|) / ln 256,    -1 <= x <= 1

A sound is thus a text of 256 symbols (`data.text.Corpus`), split in its own
order into 90%, 5% and 5%, and all that reads, counts or measures texts works on
it. Slides: deck 003, "WaveNet".
"""

import os
import pathlib
import warnings

import numpy as np
from scipy.io import wavfile

from dl_lectures.data import text
from dl_lectures.types import UsageError

LEVELS = 256
_MU = LEVELS - 1

# A minor pentatonic scale in semitones, two octaves upwards from A of 220 Hz.
_SCALE = (0, 3, 5, 7, 10, 12, 15, 17, 19, 22, 24)
_LOWEST = 220.0
_BEAT = 0.125  # seconds
_EDGE = 0.005  # seconds in which a note sets in, and in which it is cut off


def encode(signal: np.ndarray) -> np.ndarray:
  """Samples as levels.

  >>> encode(np.array([-1.0, -0.01, 0.0, 0.01, 1.0])).tolist()
  [0, 98, 128, 157, 255]

  Args:
    signal: [N], from -1 to 1; what lies beyond becomes the nearest of them.

  Returns:
    [N] int32, from 0 to 255.
  """
  x = np.clip(signal, -1, 1)
  y = np.sign(x) * np.log1p(_MU * np.abs(x)) / np.log1p(_MU)
  return np.floor((y + 1) / 2 * _MU + 0.5).astype(np.int32)


def decode(levels: np.ndarray) -> np.ndarray:
  """Levels as samples, which `encode` brings back.

  >>> encode(decode(np.array([0, 17, 128, 255]))).tolist()
  [0, 17, 128, 255]

  Args:
    levels: [N] integers from 0 to 255.

  Returns:
    [N] float32, from -1 to 1.
  """
  y = 2 * np.asarray(levels) / _MU - 1
  x = np.sign(y) * np.expm1(np.abs(y) * np.log1p(_MU)) / _MU
  return x.astype(np.float32)


def load(
  source: str = 'melodies', rate: int = 8000, seconds: float = 240.0
) -> text.Corpus:
  """A sound by its name, or by its path.

  Args:
    source: 'melodies', or the path of a WAV file.
    rate: samples a second. A file must have it: nothing is resampled.
    seconds: the length of the melodies; a file has its own.

  Returns:
    The levels, split.

  Raises:
    UsageError: no such file, one that is no WAV file, one of another rate, or
      a sound of less than 20 samples.

  >>> corpus = load(seconds=2)
  >>> [len(part) for part in corpus[1:4]], corpus.vocabulary.size
  ([14400, 800, 800], 256)
  """
  if source == 'melodies':
    return from_signal(melodies(seconds, rate), source)
  return from_signal(read_wav(source, rate), pathlib.Path(source).name)


def from_signal(signal: np.ndarray, name: str = 'sound') -> text.Corpus:
  """Splits a sound and makes levels of it.

  Args:
    signal: [N] from -1 to 1, N at least 20, so that no part is empty.
    name: for titles.

  Raises:
    UsageError: a shorter one.
  """
  if len(signal) < 20:
    raise UsageError(
      f'{name}: a sound of {len(signal)} samples; at least 20 are possible'
    )
  last = len(signal) - int(len(signal) * 0.9)
  first = len(signal) - last
  parts = np.split(encode(signal), [first, first + last // 2])
  return text.Corpus(name, *parts, vocabulary=text.BYTES)


def melodies(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
  """Notes of a scale, one after the other, of ever other instruments.

  A melody wanders up and down a minor pentatonic scale. After every sixteen
  notes there is another instrument: how its harmonics fade upwards, how fast a
  note dies away. There is no noise, and no two notes begin alike: each harmonic
  has a phase of its own.

  Args:
    seconds: the length.
    rate: samples a second, at least 2,000.
    seed: the same gives the same melody everywhere.

  Returns:
    [N] float32, from -1 to 1.

  Raises:
    UsageError: a rate that is too low, or no length.
  """
  if rate < 2000:
    raise UsageError(f'{rate} samples a second; at least 2000 are possible')
  if not seconds > 0:
    raise UsageError(f'a melody of {seconds} seconds; more than 0 is possible')
  draw = np.random.default_rng(seed)
  total = round(seconds * rate)
  signal = np.zeros(total, np.float32)
  at, count, place = 0, 0, len(_SCALE) // 2
  fade = fall = 0.5
  while at < total:
    if count % 16 == 0:
      fade, fall = draw.uniform(0.2, 0.8), draw.uniform(0.1, 0.6)
    place = int(np.clip(place + draw.integers(-3, 4), 0, len(_SCALE) - 1))
    beats = int(draw.choice([1, 1, 2, 2, 4]))
    length = min(round(beats * _BEAT * rate), total - at)
    loudness = draw.uniform(0.3, 0.9)
    pitch = _LOWEST * 2 ** (_SCALE[place] / 12)
    phases = draw.uniform(0, 2 * np.pi, 12)
    signal[at : at + length] = loudness * _note(
      pitch, length, rate, fade, fall, phases
    )
    at, count = at + length, count + 1
  return signal


def _note(
  pitch: float,
  length: int,
  rate: int,
  fade: float,
  fall: float,
  phases: np.ndarray,
) -> np.ndarray:
  """One note, [N]: harmonics below half the rate, under an envelope."""
  time = np.arange(length) / rate
  numbers = np.arange(1, len(phases) + 1)
  numbers = numbers[numbers * pitch < 0.45 * rate]
  share = fade ** (numbers - 1)
  waves = np.sin(
    2 * np.pi * pitch * numbers[:, None] * time + phases[: len(numbers), None]
  )
  sets_in = np.minimum(time / _EDGE, 1)
  cut_off = np.minimum((length / rate - time) / _EDGE, 1)
  envelope = sets_in * cut_off * np.exp(-time / fall)
  return envelope * (share @ waves) / share.sum()


def read_wav(path: str | os.PathLike[str], rate: int) -> np.ndarray:
  """The samples of a WAV file; of several channels their mean.

  Args:
    path: PCM of 8 (unsigned), 16, 24 or 32 bits, or floats.
    rate: samples a second that it must have.

  Returns:
    [N] float32; of PCM from -1 to below 1.

  Raises:
    UsageError: there is none, it is no WAV file, or it has another rate.
  """
  name = os.fspath(path)
  try:
    with warnings.catch_warnings():
      # Of parts that are no sound, such as titles.
      warnings.simplefilter('ignore', wavfile.WavFileWarning)
      found, samples = wavfile.read(name)
  except FileNotFoundError:
    raise UsageError(
      f"sound {name!r} is not a file; 'melodies' or the path of a WAV file is "
      'possible'
    ) from None
  # Of a broken file scipy says all sorts of things.
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise UsageError(f'{name} cannot be read as WAV: {reason}') from error
  if found != rate:
    raise UsageError(
      f'{name} has {found} samples a second and {rate} were asked for; a rate '
      f'of {found}, or a converted file, is possible'
    )
  if samples.dtype == np.uint8:
    signal = samples / 128.0 - 1
  elif samples.dtype.kind == 'i':
    # 24 bits come as the upper ones of 32.
    signal = samples / -float(np.iinfo(samples.dtype).min)
  else:
    signal = samples
  if signal.ndim == 2:
    signal = signal.mean(axis=1)
  return np.nan_to_num(signal).astype(np.float32)


def write_wav(
  path: str | os.PathLike[str], signal: np.ndarray, rate: int
) -> None:
  """Writes a sound as PCM of 16 bits, one channel.

  Args:
    path: of the file; its folder is made.
    signal: [N], from -1 to 1.
    rate: samples a second.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  samples = np.round(np.clip(signal, -1, 1) * 32767).astype(np.int16)
  wavfile.write(path, rate, samples)
