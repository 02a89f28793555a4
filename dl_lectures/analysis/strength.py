"""Pictures of how a player of a board game became strong.

Each function draws one panel on axes that it is given, from plain numbers, so
that a report shows panels one by one or side by side. After the figures of
Silver et al. 2018 (figure 1, "Training AlphaZero"; figure 2, "Scalability with
thinking time"; table 2, openings). Slides: deck 000, "Discovering Chess Opening
Theory", "Amount of Search per Decision".
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dl_lectures.analysis.matches import Standing
from dl_lectures.types import Claim

Panel = Callable[[Axes], None]

# One colour per amount of search, light to dark, in every panel.
_SEARCH_COLOURS = ('#9ecae1', '#6baed6', '#3182bd', '#08519c', '#041f3d')
_OUTCOME_COLOURS = {1: '#1a9850', 0: '#999999', -1: '#d73027'}
_OUTCOME_NAMES = {1: 'wins', 0: 'draws', -1: 'loses'}


def figure(panels: Sequence[Panel], columns: int = 3) -> Figure:
  """Draws panels side by side.

  >>> figure([lambda axes: None, lambda axes: None]).axes.__len__()
  2
  """
  columns = min(columns, len(panels))
  rows = -(-len(panels) // columns)
  page = Figure(figsize=(5.6 * columns, 3.9 * rows), layout='constrained')
  for i, panel in enumerate(panels):
    axes = page.add_subplot(rows, columns, i + 1)
    axes.spines[['top', 'right']].set_visible(False)
    panel(axes)
  return page


def accuracy_over_training(
  title: str,
  seconds: Sequence[float],
  kept: Mapping[str, Sequence[float]],
  baselines: Mapping[str, float],
) -> Panel:
  """The share of positions whose result is kept, against training time.

  Args:
    title: of the panel.
    seconds: [n], of training at each evaluation.
    kept: [n] for each player, the least search first.
    baselines: shares that do not change, drawn dotted.
  """

  def draw(axes: Axes) -> None:
    minutes = np.asarray(seconds) / 60
    for (name, values), colour in zip(
      kept.items(), _SEARCH_COLOURS, strict=False
    ):
      axes.plot(minutes, values, 'o-', ms=3, color=colour, label=name)
    for name, value in baselines.items():
      axes.axhline(value, ls=':', color='0.4', lw=1)
      axes.annotate(
        name,
        (0.5, value),
        xycoords=('axes fraction', 'data'),
        ha='center',
        va='bottom',
        fontsize=8,
        color='0.3',
      )
    axes.set(
      title=title,
      xlabel='minutes of training',
      ylabel='result kept',
      ylim=(min([0.2, *baselines.values()]), 1.02),
    )
    axes.legend(fontsize=8, loc='lower right')

  return draw


def openings_over_training(
  seconds: Sequence[float],
  frequencies: np.ndarray,
  outcomes: Sequence[int],
  names: Sequence[str],
) -> Panel:
  """How often each first move is chosen, against training time.

  Args:
    seconds: [n].
    frequencies: [n, A], shares that sum to 1.
    outcomes: [A], what perfect play makes of each move: 1, 0 or -1.
    names: [A].
  """

  def draw(axes: Axes) -> None:
    minutes = np.asarray(seconds) / 60
    order = np.argsort([-o for o in outcomes], kind='stable')
    seen: dict[int, int] = {}
    layers = []
    for a in order:
      nth = seen[outcomes[a]] = seen.get(outcomes[a], 0) + 1
      layers.append((_OUTCOME_COLOURS[outcomes[a]], 1.05 - 0.17 * nth))
    stack = axes.stackplot(
      minutes, frequencies[:, order].T, edgecolor='white', linewidth=0.4
    )
    for band, (colour, alpha) in zip(stack, layers, strict=True):
      band.set_facecolor(colour)
      band.set_alpha(alpha)
    middle = np.cumsum(frequencies[-1, order]) - frequencies[-1, order] / 2
    for a, height, share in zip(
      order, middle, frequencies[-1, order], strict=True
    ):
      if share > 0.04:
        axes.annotate(
          f'{names[a]} ({_OUTCOME_NAMES[outcomes[a]]})',
          (1, height),
          xycoords=('axes fraction', 'data'),
          xytext=(-4, 0),
          textcoords='offset points',
          ha='right',
          va='center',
          fontsize=8,
        )
    axes.set(
      title='the first move, as self-play discovers it',
      xlabel='minutes of training',
      ylabel='share of prior',
      ylim=(0, 1),
      xlim=(minutes[0], minutes[-1]),
    )

  return draw


def first_move_over_training(
  name: str, seconds: Sequence[float], prior: Sequence[float], uniform: float
) -> Panel:
  """How likely one first move is, against training time.

  Args:
    name: of the move.
    seconds: [n].
    prior: [n], its share of the network's prior.
    uniform: its share where nothing is known, drawn dotted.
  """

  def draw(axes: Axes) -> None:
    minutes = np.asarray(seconds) / 60
    axes.plot(minutes, prior, 'o-', ms=3, color=_SEARCH_COLOURS[3])
    axes.axhline(uniform, ls=':', color='0.4', lw=1)
    axes.set(
      title=f'{name} as the first move, as self-play discovers it',
      xlabel='minutes of training',
      ylabel='share of prior',
      ylim=(0, 1.02),
    )

  return draw


def quality_by_search(
  simulations: Sequence[int],
  kept: Mapping[str, Sequence[tuple[float, float, float, int]]],
) -> Panel:
  """The share of results kept against simulations a move, with intervals.

  Args:
    simulations: [n]; 0 is the raw network.
    kept: [n] for each kind of position: share, low, high, number judged.
  """

  def draw(axes: Axes) -> None:
    x = np.arange(len(simulations))
    for (name, values), colour in zip(
      kept.items(), _SEARCH_COLOURS[1::2], strict=False
    ):
      share, low, high, _ = np.array(values).T
      axes.errorbar(
        x,
        share,
        [share - low, high - share],
        fmt='o-',
        ms=4,
        capsize=2,
        color=colour,
        label=name,
      )
    axes.set_xticks(x, ['raw' if s == 0 else str(s) for s in simulations])
    axes.set(
      title='the amount of search per decision',
      xlabel='simulations a move',
      ylabel='result kept',
    )
    axes.legend(fontsize=8, loc='lower right')

  return draw


def elo_by_search(
  game: str, simulations: Sequence[int], standings: Sequence[Standing]
) -> Panel:
  """Ratings with 95% intervals against simulations a move.

  Args:
    game: its name.
    simulations: [n], ascending; 0 is the raw network.
    standings: [n], of these amounts of search.
  """

  def draw(axes: Axes) -> None:
    axes.errorbar(
      range(len(simulations)),
      [s.elo for s in standings],
      [1.96 * s.error for s in standings],
      fmt='o-',
      ms=4,
      capsize=2,
      color=_SEARCH_COLOURS[3],
    )
    names = ['raw' if n == 0 else f'{n:,}' for n in simulations]
    axes.set_xticks(range(len(simulations)), names)
    axes.set(
      title=f'{game}: the amount of search per decision',
      xlabel='simulations a move',
      ylabel=f'Elo above {standings[0].name}',
    )

  return draw


def elo(standings: Sequence[Standing]) -> Panel:
  """Ratings with 95% intervals, the weakest at the bottom."""

  def draw(axes: Axes) -> None:
    ranked = sorted(standings, key=lambda s: s.elo)
    y = np.arange(len(ranked))
    axes.barh(
      y,
      [s.elo for s in ranked],
      xerr=[1.96 * s.error for s in ranked],
      color='#6baed6',
      ecolor='0.3',
      capsize=2,
      height=0.6,
    )
    axes.set_yticks(y, [s.name for s in ranked], fontsize=8)
    axes.set(
      title='Elo, against a fixed pool', xlabel=f'Elo above {standings[0].name}'
    )

  return draw


def claims(
  standings: Sequence[Standing], names: Sequence[str], baseline: str
) -> list[Claim]:
  """Ratings as claims, beside that of a simple player.

  Args:
    standings: of a pool whose first player is the scale's zero.
    names: of the players that are claimed to be strong.
    baseline: the name of the simple one.
  """
  by_name = {standing.name: standing for standing in standings}
  return [
    Claim(
      f'Elo of {who.name} above {standings[0].name}',
      who.elo,
      interval=(who.elo - 1.96 * who.error, who.elo + 1.96 * who.error),
      baseline=by_name[baseline].elo,
      baseline_name=baseline,
    )
    for who in (by_name[name] for name in names)
  ]
