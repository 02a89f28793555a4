"""Says what a trained AlphaZero thinks of positions.

A line of the file of positions holds the moves played so far, the columns 1-7
without anything between them; what follows a blank is ignored. So an empty line
is the start of the game. Each line gives one line of JSON, in order:

  {"position": "4453", "move": 4, "visits": [0, 3, ...], "prior": [0.01, ...],
   "value": 0.31}

move and value are the search's, visits its simulations through each column;
without simulations move and value are the network's and visits are 0. prior is
the network's own distribution over columns. value is for the player to move: 1
is won, -1 lost. A position that is illegal or over has an "error" instead.
"""

import contextlib
import functools
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.types import UsageError
from experiments import tool

# Positions that are searched together; their trees, so many nodes at most.
_MOST_POSITIONS = 256
_MOST_NODES = 1 << 18


class Positions(NamedTuple):
  """The positions read, of which some can be thought of.

  Attributes:
    texts: [N], the moves of each as given.
    errors: [N], what is wrong with each, '' where nothing is.
    states: of those without an error, [n, ...].
  """

  texts: Sequence[str]
  errors: Sequence[str]
  states: Any


def analyse(
  workdir: str, positions: str, simulations: int, output: str
) -> None:
  """Reads positions, and writes what the newest player of a run thinks.

  Args:
    workdir: the run's.
    positions: a file; '-' is the standard input.
    simulations: of a move; 0 is the raw network.
    output: a file, which is written whole or not at all; '-' is the standard
      output.
  """
  _check_output(output)
  texts = _read(positions)
  trained = alphazero.load(workdir)
  found = replay(trained.game, texts)
  start = time.monotonic()
  with _writing(output) as file:
    for line in think(trained, found, simulations):
      file.write(json.dumps(line) + '\n')
  wrong = sum(map(bool, found.errors))
  print(
    f'{len(texts)} positions'
    + (f', {wrong} of them with an error' if wrong else '')
    + f', {simulations} simulations a move, step {trained.step} of {workdir}, '
    f'{time.monotonic() - start:.1f} s',
    file=sys.stderr,
  )


def replay(game: games.Game, texts: Sequence[str]) -> Positions:
  """Plays the moves of all positions at once.

  Args:
    game: one that calls each action by a digit.
    texts: [N], such as '4453'.

  Raises:
    UsageError: the game is another.
  """
  names = [game.action_name(action) for action in range(game.num_actions)]
  if any(len(name) > 1 or not name.isdigit() for name in names):
    raise UsageError(
      f'positions of {game.name} cannot be written as a digit a move; those of '
      'connect_four and tic_tac_toe can'
    )
  # One move more than a game can have is one that is illegal.
  longest = game.max_plies + 1
  # Few shapes, so that most are found compiled.
  moves = np.full((_round_up(len(texts)), longest), -1)
  for row, text in zip(moves, texts, strict=False):
    played = [names.index(c) if c in names else -1 for c in text[:longest]]
    row[: len(played)] = played
  reached = jax.device_get(_replay(game, moves))
  errors = [
    _complaint(text, names, *row)
    for text, *row in zip(texts, *reached[1:], strict=False)
  ]
  good = np.flatnonzero([not error for error in errors])
  return Positions(texts, errors, alphazero.take(reached[0], good))


@functools.partial(jax.jit, static_argnums=0)
def _replay(game: games.Game, moves: jax.Array):
  """Plays moves [N, T] until the first that is illegal.

  Returns states, the number of moves played [N], whether the game is over [N],
  and the legal moves [N, A].
  """

  def play(moves):
    def ply(carry, move):
      state, played, going = carry
      going &= (move >= 0) & game.legal_mask(state)[move]
      after = game.step(state, move)
      state = jax.tree.map(lambda a, b: jnp.where(going, a, b), after, state)
      return (state, played + going, going), None

    start = (game.init(jax.random.key(0)), jnp.int32(0), jnp.bool_(True))
    (state, played, _), _ = jax.lax.scan(ply, start, moves)
    return state, played, game.terminal(state), game.legal_mask(state)

  return jax.vmap(play)(moves)


def _complaint(
  text: str, names: Sequence[str], played: int, over: bool, legal: np.ndarray
) -> str:
  """What is wrong with a position, '' if nothing is."""
  if played == len(text):
    return f'the game is over after move {played}' if over else ''
  move = f'move {played + 1}, {text[played]!r}'
  if text[played] not in names:
    return f'{move}: no such move; possible: {names[0]} to {names[-1]}'
  if over:
    return f'{move}: the game is over after move {played}'
  possible = ', '.join(names[int(action)] for action in np.flatnonzero(legal))
  return f'{move}: illegal here; possible: {possible}'


def think(
  trained: alphazero.Trained, positions: Positions, simulations: int
) -> Iterator[dict[str, Any]]:
  """Thinks of many positions, some at a time.

  Args:
    trained: the player.
    positions: of its game.
    simulations: of a move; 0 is the raw network.

  Yields:
    A line of the output for each position, in order.
  """
  thoughts = _thoughts(trained, positions, simulations)
  for text, error in zip(positions.texts, positions.errors, strict=True):
    if error:
      yield {'position': text, 'error': error}
      continue
    thought = next(thoughts)
    yield {
      'position': text,
      'move': int(trained.game.action_name(int(thought.action))),
      'visits': [int(n) for n in thought.visits],
      'prior': [_shortest(p) for p in thought.prior],
      'value': _shortest(thought.value),
    }


def _thoughts(
  trained: alphazero.Trained, positions: Positions, simulations: int
) -> Iterator[alphazero.Thought]:
  """A thought for each position without an error; a bar on a terminal."""
  total = jax.tree.leaves(positions.states)[0].shape[0]
  if not total:
    return
  most = max(1, min(_MOST_POSITIONS, _MOST_NODES // (simulations + 1)))
  size = min(_round_up(total), most)
  player = alphazero.think(
    trained.config, trained.game, trained.net, simulations
  )
  parts = alphazero.think_in_parts(
    player, trained.weights, positions.states, size
  )
  with tqdm.tqdm(
    total=total, unit=' positions', disable=None, dynamic_ncols=True
  ) as bar:
    for part in parts:
      bar.update(len(part.action))
      for i in range(len(part.action)):
        yield alphazero.take(part, i)


def _round_up(count: int) -> int:
  """The next power of two."""
  return 1 << (count - 1).bit_length()


def _shortest(x: Any) -> float:
  """The shortest decimal that is this float32."""
  return float(str(x))


def _read(positions: str) -> list[str]:
  """The moves of each line."""
  try:
    # Bytes that are no text become an error in their line.
    with (
      contextlib.nullcontext(sys.stdin)
      if positions == '-'
      else open(positions, encoding='utf-8', errors='replace') as file
    ):
      lines = [line.rstrip('\n').removeprefix('\ufeff') for line in file]
  except OSError as error:
    raise UsageError(
      f'--positions={positions} cannot be read: {error.strerror}'
    ) from error
  # Up to the first blank, which may be the line's beginning.
  return [f'{line} '.replace('\t', ' ').partition(' ')[0] for line in lines]


def _check_output(output: str) -> None:
  """Refuses what cannot be written, before anything is thought."""
  if output == '-':
    return
  folder = os.path.dirname(os.path.realpath(output))
  if os.path.isdir(output):
    reason = 'it is a directory'
  elif not os.path.isdir(folder):
    reason = f'there is no directory {folder}'
  elif not os.access(folder, os.W_OK | os.X_OK):
    reason = f'{folder} is not writable'
  else:
    return
  raise UsageError(f'--output={output} cannot be written: {reason}')


@contextlib.contextmanager
def _writing(output: str) -> Iterator[TextIO]:
  """Opens a file that takes its name when it is whole."""
  if output == '-':
    yield sys.stdout
    return
  final = os.path.realpath(output)
  if os.path.exists(final) and not stat.S_ISREG(os.stat(final).st_mode):
    with open(final, 'w', encoding='utf-8') as file:  # /dev/null, a pipe
      yield file
    return
  temporary = f'{final}.{os.getpid()}.tmp'
  try:
    with open(temporary, 'w', encoding='utf-8') as file:
      yield file
    os.replace(temporary, final)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.remove(temporary)
    raise


def main() -> None:
  """Runs the program."""
  tool.run(
    analyse,
    doc=__doc__,
    flags=(
      tool.Flag('workdir', 'the directory of a run'),
      tool.Flag('positions', 'a file of positions; - is the standard input'),
      tool.Flag(
        'simulations',
        'of a move; 0 is the network without search',
        256,
        tool.whole_number(0, 100_000),
      ),
      tool.Flag('output', 'a file; - is the standard output', '-'),
    ),
    examples=(
      '--workdir=runs/alphazero --positions=games.txt --output=games.jsonl',
      '--workdir=runs/alphazero --positions=games.txt --simulations=0',
      '--workdir=runs/alphazero --positions=- < games.txt',
    ),
  )


if __name__ == '__main__':
  main()
