"""Plays matches between networks and programs, and rates them.

--first and --second each name a run's directory, or a program that speaks GTP
(Go), UCI (chess) or USI (shogi), as one types it: --second='gnugo --mode gtp'.
Openings are a few random plies, each played twice with sides changed. Printed
are wins, draws and losses of the first player, for each side too, and its Elo
above the second with a 95% interval; --output keeps the games, --results what
they say.

A program that dies, is silent too long or moves illegally ends the match with
one line; what was played until then is printed.
"""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from dl_lectures.envs import games
from dl_lectures.ops import ratings
from dl_lectures.systems import alphazero
from dl_lectures.training import report as reports
from dl_lectures.types import Claim, UsageError
from experiments import notation, opponents, tool


class Rules(NamedTuple):
  """A game with everything compiled, for one board at a time on the host."""

  game: games.Game
  notation: notation.Notation
  start: Any
  step: Callable[[Any, int], Any]
  legal: Callable[[Any], np.ndarray]
  over: Callable[[Any], bool]
  reward: Callable[[Any], np.ndarray]


class Played(NamedTuple):
  """One game.

  Attributes:
    first_is: 0 if the first player began, else 1.
    moves: by name.
    points: of the first player: 1, 1/2 or 0.
  """

  first_is: int
  moves: Sequence[str]
  points: float


def rules_of(game: games.Game) -> Rules:
  """Compiles a game for play one move at a time."""
  compiled = {
    name: jax.jit(getattr(game, name))
    for name in ('init', 'step', 'legal_mask', 'terminal', 'reward')
  }
  return Rules(
    game,
    notation.of(game),
    compiled['init'](jax.random.key(0)),
    lambda state, action: compiled['step'](state, np.int32(action)),
    lambda state: np.asarray(compiled['legal_mask'](state)),
    lambda state: bool(compiled['terminal'](state)),
    lambda state: np.asarray(compiled['reward'](state)),
  )


def network(
  trained: alphazero.Trained, rules: Rules, simulations: int, name: str
) -> opponents.Opponent:
  """A network of ours as a player."""
  think = alphazero.think(
    trained.config, trained.game, trained.net, simulations
  )

  def move(state: Any, moves: Sequence[str]) -> str:
    del moves
    states = jax.tree.map(lambda x: x[None], state)
    action = int(think(trained.weights, states).action[0])
    return rules.notation.name(state, action)

  return opponents.Opponent(name, lambda: None, move)


def play_game(
  rules: Rules, players: Sequence[opponents.Opponent], opening: Sequence[int]
) -> tuple[list[str], np.ndarray]:
  """Plays one game; returns the moves by name and each side's reward.

  Args:
    rules: of the game.
    players: who begins, and the other.
    opening: the first actions, chosen for both.

  Raises:
    UsageError: a program failed, or moved illegally.
  """
  state, moves = rules.start, []
  for player in players:
    player.begin()
  for action in opening:
    moves.append(rules.notation.name(state, action))
    state = rules.step(state, action)
  while not rules.over(state):
    side = int(rules.game.to_play(state))
    player = players[side]
    name = player.move(state, moves)
    if name.lower() == 'resign':
      return [*moves, name], np.array([-1.0, 1.0] if side == 0 else [1.0, -1.0])
    try:
      action = rules.notation.parse(state, name)
    except UsageError:
      action = None
    if action is None or not rules.legal(state)[action]:
      before = ' '.join(moves) or 'nothing'
      raise UsageError(
        f'{player.name!r} moved illegally: {name!r} after {before}'
      )
    moves.append(name)
    state = rules.step(state, action)
  return moves, rules.reward(state)


def random_opening(
  rules: Rules, plies: int, draw: np.random.Generator
) -> list[int]:
  """Some legal plies at random, after which the game is not over."""
  while True:
    state, actions = rules.start, []
    for _ in range(plies):
      actions.append(int(draw.choice(np.flatnonzero(rules.legal(state)))))
      state = rules.step(state, actions[-1])
      if rules.over(state):
        break
    else:
      return actions


def match(
  first: str,
  second: str,
  game: str,
  board_size: int,
  num_games: int,
  simulations: int,
  go: str,
  opening_plies: int,
  side: str,
  patience: int,
  output: str,
  results: str,
) -> None:
  """Plays the match that the flags describe."""
  start = time.monotonic()
  trained = {
    name: alphazero.load(name)
    for name in (first, second)
    if (pathlib.Path(name) / 'config.json').exists()
  }
  chosen = _common_game(trained, game, board_size)
  rules = rules_of(chosen)
  played: list[Played] = []
  with contextlib.ExitStack() as stack:
    players = [
      network(trained[name], rules, simulations, name)
      if name in trained
      else _program(
        stack.enter_context(opponents.running(name, patience)), rules, go
      )
      for name in (first, second)
    ]
    failure = None
    try:
      for one in _play(rules, players, num_games, opening_plies, side):
        played.append(one)
    except UsageError as error:
      failure = error
  if output:
    lines = [json.dumps(one._asdict()) + '\n' for one in played]
    pathlib.Path(output).write_text(''.join(lines))
  if played:
    print(report(first, second, played))
  if failure is not None:
    raise failure
  if results:
    seeds = sorted({t.config.seed for t in trained.values()}) or [0]
    found = claims(chosen.name, second, played)
    minutes = (time.monotonic() - start) / 60
    about = {'preset': None, **reports.about(seeds, found, minutes)}
    pathlib.Path(results).write_text(json.dumps(about, indent=2) + '\n')


def _play(rules, players, number, opening_plies, side):
  draw = np.random.default_rng(0)
  sides = {'both': (0, 1), 'first': (0,), 'second': (1,)}[side]
  opening: list[int] = []
  for i in tqdm.trange(number, unit=' games', disable=None):
    if i % len(sides) == 0:
      opening = random_opening(rules, opening_plies, draw)
    first_is = sides[i % len(sides)]
    seats = players if first_is == 0 else players[::-1]
    moves, reward = play_game(rules, seats, opening)
    yield Played(first_is, moves, float(1 + reward[first_is]) / 2)


def _common_game(
  trained: dict[str, alphazero.Trained], game: str, board_size: int
) -> games.Game:
  found = {t.game.name: t.game for t in trained.values()}
  if game:
    made = games.make(game, board_size or None)
    found[made.name] = made
  sizes = {g.observation_shape for g in found.values()}
  if not found:
    raise UsageError('two programs need --game: go, chess or shogi is possible')
  if len(found) > 1 or len(sizes) > 1:
    raise UsageError(f'the players know different games: {", ".join(found)}')
  return next(iter(found.values()))


def _program(
  program: opponents.Program, rules: Rules, go: str
) -> opponents.Opponent:
  if rules.notation.protocol == 'gtp':
    size = rules.game.observation_shape[0]
    from dl_lectures.envs import go as go_rules

    komi = go_rules.KOMI.get(size, go_rules.USUAL_KOMI)
    return opponents.speaks_gtp(program, size, komi)
  return opponents.speaks_uci(program, rules.notation.protocol, go)


def by_side(played: Sequence[Played]) -> dict[str, list[Played]]:
  """The games in which the first player began, and the others."""
  found = {
    'begun by the first': [p for p in played if p.first_is == 0],
    'begun by the second': [p for p in played if p.first_is == 1],
  }
  return {name: some for name, some in found.items() if some}


def different(played: Sequence[Played]) -> int:
  """How many of the games are not the same as another."""
  return len({(p.first_is, *p.moves) for p in played})


def claims(game: str, second: str, played: Sequence[Played]) -> list[Claim]:
  """The first player's share of points on each side, beside an equal's."""
  found = []
  for name, some in by_side(played).items():
    points = sum(p.points for p in some)
    found.append(
      Claim(
        f'{game} against {second!r}, {name}: share of points in {len(some)} '
        f'games, {different(some)} of them different',
        points / len(some),
        interval=ratings.wilson_interval(points, len(some)),
        baseline=0.5,
        baseline_name='an equal player',
      )
    )
  return found


def report(first: str, second: str, played: Sequence[Played]) -> str:
  """What a match says, in lines."""
  lines = []
  for name, some in {'all': list(played), **by_side(played)}.items():
    points = [p.points for p in some]
    wins, draws = points.count(1.0), points.count(0.5)
    low, high = ratings.wilson_interval(sum(points), len(points))
    lines.append(
      f'{name}: {len(some)} games, {different(some)} of them different, '
      f'+{wins} ={draws} -{len(some) - wins - draws}, '
      f'score {sum(points) / len(some):.3f}, 95% {low:.3f} to {high:.3f}'
    )
  score = sum(p.points for p in played) / len(played)
  low, high = ratings.wilson_interval(score * len(played), len(played))
  elo = [_elo(share) for share in (score, low, high)]
  lines.append(
    f'{first!r} is {elo[0]:+.0f} Elo above {second!r}, '
    f'95% {elo[1]:+.0f} to {elo[2]:+.0f}'
  )
  return '\n'.join(lines)


def _elo(share: float) -> float:
  """The rating difference that explains a share of points.

  >>> round(_elo(0.75)), round(_elo(0.5))
  (191, 0)
  """
  if not 0 < share < 1:
    return math.inf if share > 0.5 else -math.inf
  return 400 * math.log10(share / (1 - share))


def main() -> None:
  """Runs the program."""
  tool.run(
    match,
    doc=__doc__,
    flags=(
      tool.Flag('first', "a run's directory, or a program"),
      tool.Flag('second', "a run's directory, or a program"),
      tool.Flag('game', 'needed between two programs', ''),
      tool.Flag(
        'board_size', 'of Go; 0 is its usual one', 0, tool.whole_number(0, 25)
      ),
      tool.Flag(
        'num_games', 'how many are played', 20, tool.whole_number(1, 100_000)
      ),
      tool.Flag(
        'simulations',
        'of a move of ours; 0 is the network without search',
        256,
        tool.whole_number(0, 100_000),
      ),
      tool.Flag('go', 'what programs of chess and shogi are told', 'nodes 100'),
      tool.Flag('opening_plies', 'random ones', 2, tool.whole_number(0, 100)),
      tool.Flag(
        'side',
        'which the first player has: first, second or both in turn',
        'both',
        tool.one_of('first', 'second', 'both'),
      ),
      tool.Flag(
        'patience',
        'seconds that a program may be silent',
        60,
        tool.whole_number(1, 86_400),
      ),
      tool.Flag('output', 'a file for the games, one JSON a line', ''),
      tool.Flag('results', 'a JSON file for the shares of points', ''),
    ),
    examples=(
      "--first=runs/go_5x5 --second='gnugo --mode gtp --level 10'",
      '--first=runs/new --second=runs/old --num_games=100',
      "--first=stockfish --second=runs/chess --go='nodes 20' --num_games=10",
    ),
  )


if __name__ == '__main__':
  main()
