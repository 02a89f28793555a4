"""Makes the table of solved Connect Four positions that judges a player.

  python -m scripts.label_connect_four

compiles `connect_four_solver.c` (in this folder) with the system's C compiler,
samples positions, labels every legal move of each with its exact score, and
writes `dl_lectures/data/tables/connect_four.npz`. The same seed gives the same
table on any machine: the positions come from `random.Random(seed).random()`,
whose sequence Python guarantees, and the labels are exact.

Positions are sampled cell by cell. A cell is a style of play and a number of
stones on the board; it grows until `DECISIVE` of its positions have a legal
move that throws the result away, and keeps the others that it met. Within a
cell no position occurs twice, nor together with its mirror image.

The styles:
  0, random play: each move uniform among the legal ones;
  1, semi-strong play: a win at once if there is one, else the block of a
    threat if there is one, else a column with weights 1 2 3 4 3 2 1.
Games that end before the cell's number of stones are thrown away.

The whole takes about twenty minutes of one core, nearly all of it at 8 and 10
stones; `--plies=15,19,24` takes a quarter of a minute.
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dl_lectures.data.connect_four import ILLEGAL

SEED = 0
STYLES = (0, 1)  # random play, semi-strong play
PLIES = (8, 10, 12, 15, 19, 24)
DECISIVE = 225

_HERE = pathlib.Path(__file__).resolve().parent
SOLVER = _HERE / 'connect_four_solver.c'
TABLE = _HERE.parent / 'dl_lectures' / 'data' / 'tables' / 'connect_four.npz'

_WIDTH, _HEIGHT = 7, 6
_CENTRE_WEIGHTS = (1, 2, 3, 4, 3, 2, 1)

Solver = Callable[[str], tuple[int, ...]]


class Position(NamedTuple):
  """A position: square (column, row) is bit 7 * column + row.

  Attributes:
    mover: the stones of the player to move.
    other: the stones of his opponent.
  """

  mover: int = 0
  other: int = 0


def _has_four(stones: int) -> bool:
  for shift in (1, _HEIGHT, _HEIGHT + 1, _HEIGHT + 2):
    pairs = stones & stones >> shift
    if pairs & pairs >> 2 * shift:
      return True
  return False


def _square(position: Position, column: int) -> int:
  """The square a stone in `column` falls to, as a bit; 0 if it is full."""
  filled = (position.mover | position.other) >> column * (_HEIGHT + 1)
  height = (filled & (1 << _HEIGHT) - 1).bit_count()
  return 0 if height == _HEIGHT else 1 << column * (_HEIGHT + 1) + height


def _weights(position: Position, style: int) -> list[int]:
  """How often the style plays each column, as unnormalised weights."""
  squares = [_square(position, column) for column in range(_WIDTH)]
  if style == 1:
    for stones in position:  # a win of the mover, else one of the opponent
      wins = [bool(s) and _has_four(stones | s) for s in squares]
      if any(wins):
        return [int(win) for win in wins]
    return [
      w if s else 0 for w, s in zip(_CENTRE_WEIGHTS, squares, strict=True)
    ]
  return [int(bool(s)) for s in squares]


def sample_game(rng: random.Random, style: int, ply: int) -> str | None:
  """Plays `ply` moves; None if the game is over by then.

  Args:
    rng: the source of the moves; only its `random()` is used.
    style: 0, random play; 1, semi-strong play.
    ply: the number of stones to play, below 42.

  Returns:
    The columns played, as digits 1-7.
  """
  position, moves = Position(), ''
  for _ in range(ply):
    weights = _weights(position, style)
    threshold = rng.random() * sum(weights)
    column = next(
      c
      for c, total in enumerate(itertools.accumulate(weights))
      if total > threshold
    )
    stones = position.mover | _square(position, column)
    if _has_four(stones):
      return None
    position, moves = Position(position.other, stones), moves + str(column + 1)
  return moves


def sample_positions(style: int, ply: int, seed: int) -> Iterator[str]:
  """Endless distinct positions of a cell, no two of them mirror images."""
  rng = random.Random(1000 * seed + 10 * ply + style)
  seen = set()
  while True:
    moves = sample_game(rng, style, ply)
    if moves is None:
      continue
    # The order of the moves does not matter to what is on the board.
    columns = [
      [str(i % 2) for i, m in enumerate(moves) if m == c] for c in '1234567'
    ]
    board = tuple(''.join(column) for column in columns)
    board = min(board, board[::-1])
    if board not in seen:
      seen.add(board)
      yield moves


@contextlib.contextmanager
def solver(table_bits: int = 22) -> Iterator[Solver]:
  """Compiles and runs the solver.

  Args:
    table_bits: its table has 2^table_bits entries of eight bytes.

  Yields:
    A function from the columns played (digits 1-7) to the exact scores of the
    seven columns for the player to move, `ILLEGAL` for a full one; or, where a
    '?' follows, to the position's own score, in a tuple of one. It raises
    ValueError for a position that is illegal or over.

  Raises:
    RuntimeError: if there is no C compiler (`$CC`, else `cc`) or it fails.
  """
  compiler = os.environ.get('CC', 'cc')
  with tempfile.TemporaryDirectory() as folder:
    binary = pathlib.Path(folder) / 'solver'
    command = [compiler, '-O3', '-march=native', '-o', str(binary), str(SOLVER)]
    try:
      subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
      raise RuntimeError(
        f'cannot compile {SOLVER.name} with {compiler!r} (set CC): '
        f'{getattr(error, "stderr", None) or error}'
      ) from error
    process = subprocess.Popen(
      [binary, str(table_bits)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    questions, answers = process.stdin, process.stdout

    def solve(moves: str) -> tuple[int, ...]:
      questions.write(moves + '\n')
      questions.flush()
      answer = answers.readline().strip()
      if not answer:
        raise RuntimeError(f'the solver died at position {moves!r}')
      if answer.startswith('error'):
        raise ValueError(f'position {moves!r}: {answer}')
      return tuple(int(score) for score in answer.split())

    try:
      yield solve
    finally:
      process.kill()
      process.communicate()


def is_decisive(scores: Sequence[int]) -> bool:
  """Whether a legal move of seven scored ones throws the result away."""
  results = {(s > 0) - (s < 0) for s in scores if s != ILLEGAL}
  return len(results) > 1


def make_table(
  solve: Solver,
  *,
  plies: Sequence[int] = PLIES,
  decisive: int = DECISIVE,
  seed: int = SEED,
) -> dict[str, np.ndarray]:
  """Samples and labels every cell; the arrays of the table.

  Args:
    solve: what `solver` yields.
    plies: the numbers of stones to sample.
    decisive: the number of decisive positions in each cell.
    seed: of the sampling.

  Returns:
    `moves` [N] str, `ply` [N] int32, `style` [N] int32, `scores` [N, 7] int8,
    ordered by style, then ply, then as sampled.
  """
  cells = {}
  for ply, style in itertools.product(sorted(plies, reverse=True), STYLES):
    start = time.monotonic()
    rows, found = [], 0
    for moves in sample_positions(style, ply, seed):
      scores = solve(moves)
      rows.append((moves, ply, style, scores))
      found += is_decisive(scores)
      if found == decisive:
        break
    cells[style, ply] = rows
    seconds = time.monotonic() - start
    print(
      f'style {style} ply {ply}: {len(rows)} positions, {found} decisive, '
      f'{seconds:.1f} s',
      file=sys.stderr,
      flush=True,
    )
  rows = [row for cell in sorted(cells) for row in cells[cell]]
  moves, ply, style, scores = zip(*rows, strict=True)
  return {
    'moves': np.array(moves),
    'ply': np.array(ply, np.int32),
    'style': np.array(style, np.int32),
    'scores': np.array(scores, np.int8),
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--plies',
    type=lambda text: [int(ply) for ply in text.split(',')],
    default=PLIES,
    help='comma-separated numbers of stones; default 8,10,12,15,19,24',
  )
  parser.add_argument('--output', type=pathlib.Path, default=TABLE)
  flags = parser.parse_args()
  with solver() as solve:
    table = make_table(solve, plies=flags.plies)
  np.savez_compressed(flags.output, allow_pickle=False, **table)
  print(f'{flags.output}: {len(table["moves"])} positions')


if __name__ == '__main__':
  main()
