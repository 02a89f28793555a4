"""Screening a library: molecules a second and core, and memory.

speed: CPU seconds of the whole way of a line, from the file to the heap of the
best, with a network of the laptop's size, untrained. The peer, in turn with it,
is logistic regression on pieces of text by scikit-learn, from lists that are in
memory already.

memory: the most that `experiments.smiles_screen` had resident, over libraries
of 10^4, 10^5 and 10^6 lines, compressed. The network has the size of `smoke`,
so that it takes minutes; what is kept of a line does not depend on it.

  python -m benchmarks.smiles_screen speed
"""

import dataclasses
import gzip
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import sklearn
from sklearn import linear_model
from sklearn.feature_extraction import text

from benchmarks import timing
from dl_lectures import training
from dl_lectures.analysis import calibration, smiles_ngrams
from dl_lectures.data import molecules
from dl_lectures.systems import smiles_lstm
from dl_lectures.training import host
from experiments import smiles_screen

ROOT = pathlib.Path(__file__).parents[1]
BAR = 2000.0  # molecules a second and core
SPREAD = 1.05  # of the most memory to the least
PEER = f'scikit-learn {sklearn.__version__}, logistic regression on n-grams'


def untrained(config: smiles_lstm.Config, workdir: str) -> smiles_lstm.Model:
  """Keeps a network that has learned nothing, as a run does."""
  tasks = molecules.made(1).tasks
  net = smiles_lstm.network(config, len(tasks))
  state = smiles_lstm.init(config, net, 1, jax.random.key(0))
  keeper = training.checkpoint.Checkpointer.open(
    os.path.join(workdir, 'checkpoints')
  )
  keeper.save(1, state, wait=True)
  vocabulary = molecules.learn(molecules.made(500).smiles, config.vocabulary)
  curves = [calibration.Curve(1.0, 0.0)] * len(tasks)
  smiles_lstm.keep(workdir, config, tasks, vocabulary, curves)
  return smiles_lstm.load(workdir)


def lines(count: int) -> Iterator[str]:
  """Molecules with names, as a library has them."""
  some = molecules.made(10_000).smiles
  for i, smiles in zip(range(count), itertools.cycle(some), strict=False):
    yield f'{smiles} molecule{i}\n'


def speed(
  config: smiles_lstm.Config, library: str, rounds: int
) -> dict[str, Any]:
  """One line: both arms on parts of the library, in turn."""
  with tempfile.TemporaryDirectory() as folder:
    screen = smiles_screen.Screen(untrained(config, folder), ())
    place = smiles_screen.Place(0, 0, 0, 0, [])
    errors = pathlib.Path(folder, 'errors.csv')
    wrong = smiles_screen.Wrong(errors, place)
    parts = smiles_screen.run(screen, library, 1000, place, wrong)
    shape, _ = smiles_screen.read_format(library)
    some = []
    with gzip.open(library) as file:
      for line in itertools.islice(file, smiles_screen.PART * (rounds + 2)):
        some.append(smiles_screen.read_line(line, shape)[0])
    counter: Any = text.CountVectorizer(
      analyzer='char', ngram_range=(1, smiles_ngrams.LONGEST), lowercase=False
    )
    model = linear_model.LogisticRegression(solver='liblinear')
    model.fit(counter.fit_transform(some[:500]), np.arange(500) % 2)
    ours, peer = [], []
    # The place it starts from, and a part that compiles.
    before = (next(parts), next(parts))[-1].scored
    for i in range(rounds):
      start = time.process_time()
      place = next(parts)
      ours.append((place.scored - before) / (time.process_time() - start))
      before = place.scored
      part = some[i * smiles_screen.PART :][: smiles_screen.PART]
      start = time.process_time()
      model.decision_function(counter.transform(part))
      peer.append(len(part) / (time.process_time() - start))
    parts.close()
    wrong.close()
  lengths = [len(molecules.tokenize(smiles)) for smiles in some]
  rate, other = float(np.median(ours)), float(np.median(peer))
  return {
    'name': 'molecules a CPU second',
    'tokens': round(float(np.mean(lengths)), 1),
    'units': list(config.units),
    'ours': round(rate),
    'peer': PEER,
    'peer_value': round(other),
    'ratio': round(rate / other, 2),
    'bar': BAR,
    'met': rate >= BAR,
  }


def memory(
  config: smiles_lstm.Config, sizes: tuple[int, ...]
) -> dict[str, Any]:
  """One line: the most memory of whole screens."""
  most, seconds = [], []
  with tempfile.TemporaryDirectory() as folder:
    untrained(config, folder)
    for size in sizes:
      library = write(os.path.join(folder, f'{size}.smi.gz'), size)
      start = time.monotonic()
      child = subprocess.Popen(
        [
          *(sys.executable, '-m', 'experiments.smiles_screen'),
          *(f'--model={folder}', f'--library={library}', '--top=1000'),
          f'--output={folder}/out.csv',
        ],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
      )
      _, status, used = os.wait4(child.pid, 0)
      child.returncode = os.waitstatus_to_exitcode(status)
      if child.returncode:
        raise RuntimeError(f'a screen of {size} lines ended with {status}')
      most.append(round(used.ru_maxrss / 1024, 1))
      seconds.append(round(time.monotonic() - start, 1))
  ratio = max(most) / min(most)
  return {
    'name': 'most memory of a screen',
    'unit': 'MiB',
    'lines': list(sizes),
    'seconds': seconds,
    'ours': most,
    'peer': None,
    'peer_value': None,
    'ratio': round(ratio, 3),
    'bar': SPREAD,
    'met': ratio <= SPREAD,
  }


def write(path: str, size: int) -> str:
  """Writes a library, and returns its path."""
  with gzip.open(path, 'wt', compresslevel=1) as file:
    file.writelines(lines(size))
  return path


def main() -> None:
  """Prints one line a case."""
  cases = timing.cases_to_run(__doc__, ('speed', 'memory'))
  host.tune_allocator()
  host.enable_compile_cache()
  if 'speed' in cases:
    with tempfile.TemporaryDirectory() as folder:
      size = smiles_screen.PART * 9
      library = write(os.path.join(folder, 'library.smi.gz'), size)
      laptop = smiles_lstm.PRESETS['laptop']
      timing.show(speed(laptop, library, rounds=7))
  if 'memory' in cases:
    smoke = dataclasses.replace(smiles_lstm.PRESETS['smoke'], longest=64)
    timing.show(memory(smoke, (10**4, 10**5, 10**6)))


if __name__ == '__main__':
  main()
