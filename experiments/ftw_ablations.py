"""What each part of FTW adds, at equal steps.

Five populations of four, from members that only play themselves and see nothing
but captures, to all of FTW (Jaderberg et al., Science 364, 2019, have the same
five). Each has the same games, members and agent-steps:

  self-play            an LSTM, captures alone are worth something
  fixed rewards        all events are, by our hand, the same for all members
  PBT                  learning rates and costs evolve
  PBT of rewards too   so do the rewards: FTW without the slow memory
  FTW                  with the slow memory and the latent variables

A member is rated by games against bots that no training meets, on the scale on
which the random one has 0; the member is chosen by the games of training. Arms
that are done are kept in the workdir: the same command continues.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dl_lectures import training, types
from dl_lectures.analysis import capture_matches
from dl_lectures.systems import ftw
from dl_lectures.training import population, report
from experiments import cli
from experiments import parts as kept_parts

ARMS: Mapping[str, Mapping[str, Any]] = {
  'self-play': {'slow': False, 'shaped': False, 'evolves': 'nothing'},
  'fixed rewards': {'slow': False, 'evolves': 'nothing'},
  'PBT': {'slow': False, 'evolves': 'settings'},
  'PBT of rewards too': {'slow': False},
  'FTW': {},
}
# What each arm has that the one before it lacks.
PARTS = {
  'fixed rewards': 'rewards for all events',
  'PBT': 'evolving rates and costs',
  'PBT of rewards too': 'evolving rewards',
  'FTW': 'the slow memory',
}
BOTS = 'bots'
_MARK_GAMES = 512  # between any two bots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of all five populations."""

  seed: int = 0  # of every random number
  base: str = 'laptop'  # the preset of experiments.ftw that they all have
  agent_steps: int = 6_000_000  # of all members of a population
  num_games: int = 512  # of each match of the evaluation

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    if self.base not in ftw.PRESETS:
      raise types.UsageError(
        f'config.base={self.base}; possible: {", ".join(ftw.PRESETS)}'
      )
    for arm in ARMS:
      self.of_arm(arm)

  def of_arm(self, arm: str) -> ftw.Config:
    """The settings of one population."""
    return dataclasses.replace(
      ftw.PRESETS[self.base],
      seed=self.seed,
      agent_steps=self.agent_steps,
      num_games=self.num_games,
      **ARMS[arm],
    )


PRESETS = {
  'smoke': Config(base='smoke', agent_steps=20_000, num_games=128),
  'laptop': Config(),
  # Walls hide, and no compass tells where flags are.
  'in_sight': Config(base='in_sight', agent_steps=10_000_000),
}


def train(config: Config, *, workdir: str) -> Mapping[str, Any]:
  """Trains and rates the five populations, and reports.

  Args:
    config: the settings.
    workdir: where the runs are kept and resumed from.

  Returns:
    The final metrics.
  """
  found = kept_parts.measure(config, workdir, parts(config, workdir))
  points = np.array(found.pop(BOTS)['points'])
  elo = {
    name: rate(points, arm['best'], config.num_games)
    for name, arm in found.items()
  }
  report.save_figure(draw(points, found), workdir, 'ftw_ablations')
  metrics = {f'elo/{name}': value for name, (value, _) in elo.items()}
  for name, arm in found.items():
    metrics |= {
      f'tagger, median member/{name}': arm['median']['tagger'],
      f'copies/{name}': arm['copies'],
      f'minutes/{name}': arm['seconds'] / 60,
    }
  report.write(
    workdir,
    title='FTW: what each part adds',
    config=config,
    claims=make_claims(elo, found, config.num_games),
    metrics=metrics,
    figures={
      'ftw_ablations': 'Ratings by games with two bots of the member that is '
      'best by the games of training, 95%, over the steps of all members.'
    },
    minutes=kept_parts.minutes(found),
  )
  return metrics


def parts(
  config: Config, workdir: str
) -> Iterator[tuple[str, Callable[[types.Key], Mapping[str, Any]]]]:
  """Matches between bots, and each population."""
  rules = config.of_arm('FTW').rules()

  def bots(key: types.Key) -> Mapping[str, Any]:
    return {'points': capture_matches.bot_points(rules, key, _MARK_GAMES)}

  yield BOTS, bots
  for name in ARMS:
    folder = os.path.join(workdir, 'runs', name.replace(' ', '_'))
    yield name, functools.partial(run, config.of_arm(name), folder)


def run(config: ftw.Config, workdir: str, key: types.Key) -> Mapping[str, Any]:
  """Trains and evaluates one population.

  Args:
    config: its settings.
    workdir: where it is kept and resumed from.
    key: of the games of the evaluation.

  Returns:
    'best' and 'median': by bot, the share of games won, draws as half, by the
    member that is best by the games of training, and by the median one;
    'curve': records of the best one's shares of few games, with their step;
    'copies': how often one took over from another.
  """
  net = ftw.network(config)
  match = ftw.make_match(config, net)
  result = ftw.populate(config, net, match, workdir=workdir)
  if result.status != 'done':
    raise KeyboardInterrupt
  state = result.state
  shares = [
    ftw.shares_won(match, ftw.player(state, i), key, config.num_games)
    for i in range(config.members)
  ]
  curve = []
  for record in training.logging.read(workdir):
    if 'elo' in record:
      best = int(np.argmax(record['elo']))
      won = {
        name: record[capture_matches.share_name(name)][best]
        for name in ftw.MARKS
      }
      millions = record['step'] * ftw.millions_of_a_step(config)
      curve.append({'millions': millions, **won})
  lineage = population.read(os.path.join(workdir, ftw.LINEAGE))
  return {
    'best': shares[int(jnp.argmax(state.elo))],
    'median': {
      name: float(np.median([share[name] for share in shares]))
      for name in shares[0]
    },
    'curve': curve,
    'copies': sum(line.parent is not None for line in lineage),
  }


def rate(
  points: np.ndarray, shares: Mapping[str, float], games: int
) -> tuple[float, float]:
  """The rating of one player by games with bots, and 1.96 of its errors."""
  rated = capture_matches.rate(points, [shares], games)
  return float(rated.elo[-1]), 1.96 * float(rated.error[-1])


def make_claims(
  elo: Mapping[str, tuple[float, float]], found: kept_parts.Found, games: int
) -> list[types.Claim]:
  """Ratings, what each part adds to them, and games won against the tagger.

  Args:
    elo: by population, of its best member, and 1.96 of the rating's errors.
    found: by population, what `run` returns.
    games: of a match.
  """
  first = next(iter(elo))
  claims = [
    types.Claim(
      f'Elo of the best member, {name}; the random bot has 0',
      value,
      interval=(value - error, value + error),
      baseline=elo[first][0],
      baseline_name=first,
    )
    for name, (value, error) in elo.items()
  ]
  claims += [
    types.Claim(
      f'Elo added by {PARTS[name]}',
      elo[name][0] - elo[before][0],
      baseline=0.0,
      baseline_name=before,
    )
    for before, name in itertools.pairwise(elo)
  ]
  lone = found['fixed rewards']['best']['tagger']
  for name, arm in found.items():
    won = arm['best']['tagger']
    # Draws count half, so that this is wider than it need be.
    half = 1.96 * np.sqrt(won * (1 - won) / games)
    claims.append(
      types.Claim(
        f'games won against the tagger, best member, {name}',
        won,
        interval=(max(won - half, 0.0), min(won + half, 1.0)),
        baseline=lone,
        baseline_name='fixed rewards',
      )
    )
  return claims


def draw(points: np.ndarray, found: kept_parts.Found) -> Figure:
  """Ratings over the steps, a line for each population."""
  figure = Figure(figsize=(7, 4.5))
  axes = figure.subplots()
  for name, arm in found.items():
    looks = arm['curve']
    steps = [look['millions'] for look in looks]
    rated = np.array(
      [
        rate(points, {bot: look[bot] for bot in ftw.MARKS}, ftw.FEW)
        for look in looks
      ]
    )
    (line,) = axes.plot(steps, rated[:, 0], '.-', label=name)
    axes.fill_between(
      steps,
      rated[:, 0] - rated[:, 1],
      rated[:, 0] + rated[:, 1],
      color=line.get_color(),
      alpha=0.1,
      lw=0,
    )
  marks = capture_matches.rate(points, [], _MARK_GAMES).elo
  for bot, mark in zip(capture_matches.BOTS, marks, strict=True):
    axes.axhline(mark, color='0.7', linestyle=':', zorder=0)
    axes.text(
      1.01, mark, bot, va='center', transform=axes.get_yaxis_transform()
    )
  axes.set(
    xlabel='agent-steps of all members, millions',
    ylabel='Elo by games with bots',
  )
  axes.legend(fontsize='small', loc='lower right')
  figure.tight_layout()
  return figure


if __name__ == '__main__':
  cli.run(
    train,
    config=Config,
    presets=PRESETS,
    doc=__doc__ or '',
    examples=(
      'python -m experiments.ftw_ablations --workdir=runs/ftw_ablations',
      'python -m experiments.ftw_ablations --seeds=0,1,2 '
      '--results=results/ftw_ablations.json',
      'python -m experiments.ftw_ablations --preset=in_sight',
    ),
  )
