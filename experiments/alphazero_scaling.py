"""Measures what search is worth: Elo against simulations a move.

One trained player meets itself with other amounts of search, each pair in games
from the same random openings with sides changed; one rating scale explains all
results. After Silver et al. 2018, figure 2, "Scalability of AlphaZero with
thinking time"; slides, deck 000, "Amount of Search per Decision".

Pairs that have been played are kept in the output directory: the same command
goes on where it was stopped.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import tqdm

from dl_lectures.analysis import matches, strength
from dl_lectures.envs import games
from dl_lectures.systems import alphazero
from dl_lectures.training import loop, report
from dl_lectures.types import Claim, UsageError, at_least
from experiments import tool

# A pair so far apart in the list is played: more would be won by one side.
_REACH = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What decides about the result; `seed` is that of the openings."""

  workdir: str
  step: int
  simulations: tuple[int, ...]
  num_games: int
  opening_plies: int
  seed: int = 0


def scaling(
  workdir: str,
  simulations: Sequence[int],
  num_games: int,
  opening_plies: int,
  output: str,
  results: str,
) -> None:
  """Plays every pair of neighbours, rates them, draws and reports."""
  trained = alphazero.load(workdir)
  output = output or os.path.join(workdir, 'scaling')
  loop.check_writable(output)
  settings = Settings(
    workdir=workdir,
    step=trained.step,
    simulations=tuple(sorted(set(simulations))),
    num_games=num_games,
    opening_plies=opening_plies,
  )
  if len(settings.simulations) < 2:
    raise UsageError('--simulations needs two numbers at least')
  if num_games % 2:
    raise UsageError(f'--num_games={num_games} is odd; both sides are played')
  start = time.monotonic()
  points = play(trained, settings, pathlib.Path(output, 'pairs.jsonl'))
  names = [alphazero.named(n) for n in settings.simulations]
  standings = matches.standings(names, points)
  report.save_figure(
    strength.figure(
      [
        strength.elo_by_search(
          trained.game.name, settings.simulations, standings
        )
      ]
    ),
    output,
    'alphazero_scaling',
  )
  summary = report.write(
    output,
    title=f'What search is worth in {trained.game.name}',
    config=settings,
    claims=claims(trained.game, standings),
    metrics={s.name: s.elo for s in standings},
    figures={'alphazero_scaling': 'Elo against simulations a move.'},
    minutes=(time.monotonic() - start) / 60,
  )
  if results:
    joined = report.aggregate([summary], report.command())
    pathlib.Path(results).write_text(json.dumps(joined, indent=2) + '\n')
  print(report.to_text(summary))
  print(f'report: {os.path.join(output, "report.html")}')


def play(
  trained: alphazero.Trained, settings: Settings, kept: pathlib.Path
) -> np.ndarray:
  """The points [n, n] that each amount of search took from each other.

  Args:
    trained: the player.
    settings: of the match.
    kept: a file of the pairs played so far, a line of JSON each.
  """
  told = json.loads(json.dumps(dataclasses.asdict(settings)))
  del told['simulations']
  known = {
    tuple(line['pair']): line['points']
    for line in _lines(kept)
    if line['settings'] == told
  }

  def player(num_simulations: int) -> matches.Player:
    think = alphazero.think(
      trained.config, trained.game, trained.net, num_simulations
    )
    return lambda states, key: think(trained.weights, states).action

  amounts = settings.simulations
  players = {n: player(n) for n in amounts}
  pairs = [
    (a, b) for i, a in enumerate(amounts) for b in amounts[i + 1 :][:_REACH]
  ]
  points = np.zeros((len(amounts), len(amounts)))
  kept.parent.mkdir(parents=True, exist_ok=True)
  for a, b in tqdm.tqdm(pairs, unit=' pairs', disable=None):
    won = known.get((a, b))
    if won is None:
      won = matches.play_match(
        trained.game,
        players[a],
        players[b],
        jax.random.fold_in(jax.random.key(settings.seed), a * 65_537 + b),
        settings.num_games,
        settings.opening_plies,
      )
      line = {'pair': [a, b], 'points': won, 'settings': told}
      with open(kept, 'a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')
    i, j = amounts.index(a), amounts.index(b)
    points[i, j], points[j, i] = won, settings.num_games - won
  return points


def _lines(kept: pathlib.Path) -> list[Mapping]:
  """The lines of a file that may not exist or end in the middle of one."""
  if not kept.exists():
    return []
  found = []
  for line in kept.read_text(encoding='utf-8').splitlines():
    try:
      found.append(json.loads(line))
    except ValueError:
      continue
  return found


def claims(
  game: games.Game, standings: Sequence[matches.Standing]
) -> list[Claim]:
  """What the ladder says: its height, and whether a step leads down.

  Args:
    game: the rules.
    standings: the least search first.
  """
  least, most = standings[0], standings[-1]
  gains = [
    (above.elo - below.elo, 1.96 * np.hypot(above.error, below.error))
    for below, above in itertools.pairwise(standings)
  ]
  return [
    Claim(
      f'{game.name}: Elo of {most.name} above {least.name}',
      most.elo,
      interval=(most.elo - 1.96 * most.error, most.elo + 1.96 * most.error),
      baseline=0.0,
      baseline_name=least.name,
    ),
    at_least(
      f'{game.name}: steps from {least.name} to {most.name} that do not lead '
      'down, within their 95% intervals',
      sum(gain + error >= 0 for gain, error in gains) / len(gains),
      1.0,
      baseline=0.5,
      baseline_name='steps at random',
    ),
  ]


def _amounts(text: str) -> tuple[int, ...]:
  amount = tool.whole_number(0, 100_000)
  try:
    return tuple(amount(part) for part in text.split(','))
  except ValueError:
    raise ValueError(
      'whole numbers with commas between are expected, such as 1,4,16'
    ) from None


def main() -> None:
  """Runs the program."""
  tool.run(
    scaling,
    doc=__doc__,
    flags=(
      tool.Flag('workdir', 'the directory of a run'),
      tool.Flag(
        'simulations',
        'amounts of search; 0 is the network without any',
        (1, 4, 16, 64, 256, 1024),
        _amounts,
      ),
      tool.Flag(
        'num_games', 'of each pair; even', 200, tool.whole_number(2, 100_000)
      ),
      tool.Flag('opening_plies', 'random ones', 4, tool.whole_number(0, 100)),
      tool.Flag('output', 'a directory; without, WORKDIR/scaling', ''),
      tool.Flag('results', 'a JSON file for the claims', ''),
    ),
    examples=(
      '--workdir=runs/alphazero',
      '--workdir=runs/go_7x7 --simulations=0,1,8,64 --num_games=100',
    ),
  )


if __name__ == '__main__':
  main()
