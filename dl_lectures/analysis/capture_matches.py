"""What a player of capture the flag is worth: matches against bots.

Games are on new maps from ordinary starts, and a draw is half a win. A share of
won games alone deceives here: who only guards its flag draws all games with a
bot that cannot take it, and has .5. So captures are told beside it.

>>> score = summarise(np.array([[3, 0], [1, 1], [0, 2], [2, 0]]))
>>> score.share, score.wins, score.draws, score.captures, score.against
(0.625, 2, 1, 1.5, 0.75)

Source: the slides, deck 000, "Learning to Play Capture The Flag": agents are
rated against bots and people.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import capture_bots, capture_games
from dl_lectures.envs.capture_the_flag import Rules, State
from dl_lectures.ops import ratings
from dl_lectures.types import Array, Key, UsageError

# The marks of the scale, from poor to good; the first has Elo 0.
BOTS: Mapping[str, capture_bots.Bot] = {
  'random': capture_bots.at_random,
  'path follower': capture_bots.walker,
  'tagger': capture_bots.tagger,
  'roles': capture_bots.team,
}
# Games of one call.
_AT_ONCE = 128


class Score(NamedTuple):
  """The result of a match.

  Attributes:
    share: of the games, a draw as half.
    interval: 95% of it, normal.
    wins: games.
    draws: games.
    num_games: in all.
    captures: a game.
    against: captures of the other side, a game.
  """

  share: float
  interval: tuple[float, float]
  wins: int
  draws: int
  num_games: int
  captures: float
  against: float


def summarise(captures: np.ndarray) -> Score:
  """A score from the captures of both sides, [games, 2]."""
  captures = np.asarray(captures)
  lead = np.sign(captures[:, 0] - captures[:, 1])
  points = (lead + 1) / 2
  share = float(points.mean())
  spread = 1.96 * float(points.std()) / np.sqrt(len(points))
  return Score(
    share,
    (max(0.0, share - float(spread)), min(1.0, share + float(spread))),
    int((lead > 0).sum()),
    int((lead == 0).sum()),
    len(points),
    *(float(mean) for mean in captures.mean(axis=0)),
  )


# (parameters, a name of BOTS, key, games) -> captures of both, [games, 2]
Match = Callable[[Any, str, Key, int], np.ndarray]


def make_match(
  rules: Rules, side: Callable[[Any], capture_games.Side]
) -> Match:
  """Prepares matches; whatever the parameters and the bot, it is one program.

  Args:
    rules: of the games.
    side: parameters -> who plays team 0.

  Returns:
    (parameters, a name of BOTS, key, games) -> the captures of both,
    [games, 2]; every other game is on an indoor map, beginning with the second.
    The number of games is a multiple of 128; it consumes the key.
  """

  @jax.jit
  def some(params: Any, number: Array, key: Key) -> Array:
    start_key, key = jax.random.split(key)
    indoor = jnp.arange(_AT_ONCE) % 2.0
    start = capture_games.starts(rules, start_key, indoor)
    other = capture_games.bot(rules, _numbered(number))
    after, _ = capture_games.play(rules, side(params), other, start, key)
    return after.score

  def against(params: Any, name: str, key: Key, games: int) -> np.ndarray:
    if games < 1 or games % _AT_ONCE:
      raise UsageError(
        f'a match of {games} games; multiples of {_AT_ONCE} are possible'
      )
    keys = jax.random.split(key, games // _AT_ONCE)
    number = jnp.int32(list(BOTS).index(name))
    return np.concatenate([some(params, number, key) for key in keys])

  return against


def _numbered(number: Array) -> capture_bots.Bot:
  """The bot of this number in BOTS."""

  def choose(rules: Rules, state: State, steps: Array, key: Key) -> Array:
    decide = [functools.partial(bot, rules) for bot in BOTS.values()]
    return jax.lax.switch(number, decide, state, steps, key)

  return choose


def evaluate(
  match: Match, params: Any, key: Key, games: int, names: Iterable[str] = BOTS
) -> dict[str, np.ndarray]:
  """Plays each bot: captures [games, 2] by its name.

  Args:
    match: of `make_match`.
    params: of the player.
    key: consumed.
    games: of each match, a multiple of 128.
    names: of BOTS.
  """
  names = list(names)
  keys = jax.random.split(key, len(names))
  return {
    name: match(params, name, one, games)
    for name, one in zip(names, keys, strict=True)
  }


def share_name(bot: str) -> str:
  """What the games won against a bot are logged as.

  >>> share_name('path follower')
  'share_path_follower'
  """
  return f'share_{bot.replace(" ", "_")}'


def metrics(captures: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Shares won, draws, and captures of either side, of each match by bot.

  Args:
    captures: of `evaluate`.

  >>> sorted(metrics({'roles': np.array([[2, 1]])}))
  ['against_roles', 'captures_roles', 'draws_roles', 'share_roles']
  """
  found = {}
  for bot, score in ((bot, summarise(x)) for bot, x in captures.items()):
    name = bot.replace(' ', '_')
    found |= {
      share_name(bot): score.share,
      f'draws_{name}': score.draws / score.num_games,
      f'captures_{name}': score.captures,
      f'against_{name}': score.against,
    }
  return found


def film(
  rules: Rules, first: capture_games.Side, second: capture_games.Side, key: Key
) -> State:
  """One game, [length + 1, ...], for `analysis/capture_films`.

  Args:
    rules: of the game.
    first: plays team 0.
    second: plays team 1.
    key: consumed.
  """

  @jax.jit
  def game(key: Key) -> State:
    start_key, key = jax.random.split(key)
    start = capture_games.starts(rules, start_key, jnp.full(1, rules.indoor))
    play = functools.partial(capture_games.play, rules, first, second)
    return play(start, key, watch=lambda state: state)[1]

  return jax.tree.map(lambda x: x[:, 0], jax.device_get(game(key)))


def bot_points(rules: Rules, key: Key, games: int) -> np.ndarray:
  """What each bot takes from each other: [4, 4] points, in the order of BOTS.

  Args:
    rules: of the games.
    key: consumed.
    games: of each pair, a multiple of 128.
  """
  match = make_match(
    rules, lambda number: capture_games.bot(rules, _numbered(number))
  )
  points = np.zeros((len(BOTS), len(BOTS)))
  for i in range(len(BOTS)):
    for j, name in enumerate(list(BOTS)[:i]):
      key, match_key = jax.random.split(key)
      captures = match(jnp.int32(i), name, match_key, games)
      points[i, j] = summarise(captures).share * games
      points[j, i] = games - points[i, j]
  return points


def rate(
  points: np.ndarray, shares: Sequence[Mapping[str, float]], games: int
) -> ratings.Ratings:
  """Rates players by their matches with bots, on the bots' scale.

  Args:
    points: of `bot_points`.
    shares: of the games that each player won, draws as half, by the bot's name;
      of some bots or all.
    games: of each match.

  Returns:
    The ratings of the bots, in the order of BOTS, and of the players. The
    random bot has 0.
  """
  names, count = list(BOTS), len(BOTS) + len(shares)
  table = np.zeros((count, count))
  table[: len(names), : len(names)] = points
  for player, by_name in enumerate(shares, len(names)):
    for name, share in by_name.items():
      table[player, names.index(name)] = share * games
      table[names.index(name), player] = (1 - share) * games
  return ratings.bradley_terry(table)
