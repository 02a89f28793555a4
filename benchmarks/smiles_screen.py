"""Screening a library: molecules a second and core, and memory.

speed: CPU seconds of `experiments.smiles_screen` on a library, less those on a
shorter one, so that neither its start nor its compilation counts: the whole way
of a line, from the file to the best of all. The network has the size of
`laptop` and has learned nothing. The peer, in turn with it, is logistic
regression on pieces of text by scikit-learn, on the same molecules, which are
in memory already.

memory: the most that it had resident, over libraries of 10^4, 10^5 and 10^6
lines, compressed. The network has the size of `smoke`, so that it takes
minutes; what is kept of a line does not depend on it.

  python -m benchmarks.smiles_screen speed
"""

import contextlib
import dataclasses
import gzip
import itertools
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

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
  config: smiles_lstm.Config, sizes: tuple[int, int], rounds: int
) -> dict[str, Any]:
  """One line: both arms, in turn, on libraries of two sizes."""
  few, many = sizes
  some = [line.split()[0] for line in lines(many - few)]
  counter: Any = text.CountVectorizer(
    analyzer='char', ngram_range=(1, smiles_ngrams.LONGEST), lowercase=False
  )
  model = linear_model.LogisticRegression(solver='liblinear')
  model.fit(counter.fit_transform(some[:500]), np.arange(500) % 2)
  ours, peer = [], []
  with tempfile.TemporaryDirectory() as folder:
    untrained(config, folder)
    libraries = [
      write(os.path.join(folder, f'{size}.smi.gz'), size) for size in sizes
    ]
    screen(folder, libraries[0])  # compiles
    for _ in range(rounds):
      short, long = (screen(folder, library).seconds for library in libraries)
      ours.append((many - few) / (long - short))
      start = time.process_time()
      model.decision_function(counter.transform(some))
      peer.append(len(some) / (time.process_time() - start))
  lengths = [len(molecules.tokenize(smiles)) for smiles in some[:10_000]]
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
  used = []
  with tempfile.TemporaryDirectory() as folder:
    untrained(config, folder)
    for size in sizes:
      library = write(os.path.join(folder, f'{size}.smi.gz'), size)
      used.append(screen(folder, library))
  most = [each.mebibytes for each in used]
  ratio = max(most) / min(most)
  return {
    'name': 'most memory of a screen',
    'unit': 'MiB',
    'lines': list(sizes),
    'cpu_seconds': [round(each.seconds, 1) for each in used],
    'ours': [round(value, 1) for value in most],
    'peer': None,
    'peer_value': None,
    'ratio': round(ratio, 3),
    'bar': SPREAD,
    'met': ratio <= SPREAD,
  }


class Used(NamedTuple):
  """What a process used: CPU seconds, and the most memory at once."""

  seconds: float
  mebibytes: float


def screen(model: str, library: str) -> Used:
  """Screens a library in a process of its own."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  child = subprocess.Popen(
    [
      *(sys.executable, '-m', 'experiments.smiles_screen'),
      *(f'--model={model}', f'--library={library}', '--top=1000'),
      f'--output={model}/out.csv',
    ],
    cwd=ROOT,
    stderr=subprocess.DEVNULL,
  )
  # Its most memory by itself: what `getrusage` says of a child is at least what
  # its parent had.
  most = 0.0
  while child.poll() is None:
    with contextlib.suppress(OSError, StopIteration):
      status = pathlib.Path(f'/proc/{child.pid}/status').read_text()
      line = next(x for x in status.splitlines() if x.startswith('VmHWM'))
      most = float(line.split()[1]) / 1024
    time.sleep(0.02)
  if child.returncode:
    raise RuntimeError(f'{library}: the screen ended with {child.returncode}')
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return Used(used, most)


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
    laptop = smiles_lstm.PRESETS['laptop']
    timing.show(speed(laptop, (4096, 20 * 4096), rounds=3))
  if 'memory' in cases:
    smoke = dataclasses.replace(smiles_lstm.PRESETS['smoke'], longest=64)
    timing.show(memory(smoke, (10**4, 10**5, 10**6)))


if __name__ == '__main__':
  main()
