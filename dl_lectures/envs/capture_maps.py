"""Maps for capture the flag: drawn anew for each game, fair to both teams.

A map is a square of S x S cells with walls round it. Cell (row, column) has the
number row * S + column, so that turning the map by 180 degrees takes cell c to
S * S - 1 - c, and every map is the same after that turn: what one team meets,
the other meets. An indoor map and an outdoor one:

    # # # # # # # # # # #      # # # # # # # # # # # #
    # # # # . . a # a # #      # . . # # a # a # . # #
    # # # # . # . A . # #      # . . # . . A . . . . #
    # . . # . . . . . . #      # # . . # . . . . # # #
    # . . # . . . . . . #      # # # . . . . . . . . #
    # . . . . . . . . . #      # # # . . . . . # # . #
    # . . . . . . # . . #      # . # # . . . . . # # #
    # . . . . . . # . . #      # . . . . . . . . # # #
    # # . B . # . # # # #      # # # . . . . # . . # #
    # # b # b . . # # # #      # . . . . B . . # . . #
    # # # # # # # # # # #      # # . # b # b # # . . #
                               # # # # # # # # # # # #

A base (A, B) is open to three sides at least, and can be reached whichever of
them is blocked: were there one cell only from which to reach it, an agent that
stands there could not be beaten, and to do nothing else would be the best that
a team can do. The players of a team begin, and begin again, on pads (a, b)
behind their base, which are left but never entered. A winding path without
walls joins the bases; every other cell that can be reached is part of the map,
and the rest is made wall.

Source: the slides, deck 000, "Learning to Play Capture The Flag": indoor and
outdoor maps, another one in each game (Jaderberg et al., "Human-level
performance in 3D multiplayer games with population-based reinforcement
learning", Science 364, 2019).

>>> import jax
>>> world = draw(jax.random.key(0), size=12)
>>> bool((world.walls == world.walls[::-1, ::-1]).all())
True
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, Key, UsageError

MIN_SIZE = 9
# The share of cells that are rocks outdoors, of wall cells that are doors
# indoors, and how far apart walls are there.
_ROCKS, _DOORS, _ROOM = 0.22, 0.3, 5
UNREACHABLE = np.int16(2**14)


class Map(NamedTuple):
  """Where a game is played. A cell's number is row * S + column.

  Attributes:
    walls: [S, S] bool.
    base: [2] int32, the cell of each team's base.
    pad: [2 n] int32, where each agent begins; team 0's first.
  """

  walls: Array
  base: Array
  pad: Array


def check(size: int, players: int) -> None:
  """Refuses a map that cannot be.

  Args:
    size: S, rows and columns.
    players: n, of a team.

  Raises:
    UsageError: it is too small, or a team has nobody.

  >>> check(7, 2)
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: a map of 7 x 7 cells for 2 against 2; at least \
9 x 9 is possible
  """
  if players < 1:
    raise UsageError(f'teams of {players}; at least 1 is possible')
  least = max(MIN_SIZE, 2 * _reach(players) + 3)
  if size < least:
    raise UsageError(
      f'a map of {size} x {size} cells for {players} against {players}; '
      f'at least {least} x {least} is possible'
    )


def draw(
  key: Key, size: int = 11, players: int = 2, indoor: float | Array = 0.5
) -> Map:
  """Draws a map.

  Args:
    key: consumed.
    size: S, rows and columns; odd or even.
    players: n, of a team.
    indoor: the probability of rooms with doors; else it is a field with rocks.

  Raises:
    UsageError: no such map can be.
  """
  check(size, players)
  # All from one draw: each costs time to compile.
  drawn = jax.random.uniform(key, (size * size + size + 4,))
  noise, aside = drawn[: size * size], drawn[size * size : -4]
  style, *places = drawn[-4:]
  reach = _reach(players)
  home = 1 + reach + jnp.int32(places[0] * (size - 2 - 2 * reach))
  first = [jnp.int32(place * _ROOM) for place in places[1:]]

  row, column = np.divmod(np.arange(size * size), size)
  in_line = ((row - first[0]) % _ROOM == 0) | ((column - first[1]) % _ROOM == 0)
  rooms = in_line & (noise > _DOORS)
  walls = jnp.where(style < indoor, rooms, noise < _ROCKS)

  # The other half is this one turned.
  half = (size * size) // 2
  walls = jnp.concatenate([walls[: size * size - half], walls[:half][::-1]])
  # What stays free: round the base, and the path from there to the middle.
  beside = jnp.abs(column - home)
  keep = (row <= 2) & (beside <= reach) & ((row > 1) | (beside > 0))
  keep |= (row > 2) & (row <= 4) & (beside <= 1)
  behind = (row == 1) & (beside == 0)
  low, high = _path(aside, home, size)
  keep |= (low[row] <= column) & (column <= high[row])
  walls &= ~(keep | keep[::-1])
  walls |= (row % (size - 1) == 0) | (column % (size - 1) == 0)
  walls |= behind | behind[::-1]

  ways = np.arange(players) // 2 + 1
  pad = size + home + np.where(np.arange(players) % 2, ways, -ways)
  base, pad = _both(2 * size + home[None], size), _both(pad, size)
  world = Map(walls.reshape(size, size), base, pad)
  reached = _reached(_free(world), 3 * size + home, size)
  ends = jnp.zeros(size * size, bool).at[base].set(True).at[pad].set(True)
  walls = (~(reached | ends)).reshape(size, size)
  return Map(walls, base.astype(jnp.int32), pad.astype(jnp.int32))


def distances(world: Map) -> Array:
  """Steps from each cell (row) to each other (column): [S * S, S * S] int16.

  A way may end on a base or a pad, and leads through none; who stands on one
  looks at the cells next to it. UNREACHABLE stands where there is no way.

  Args:
    world: a map.

  >>> world = draw(jax.random.key(0))
  >>> steps = distances(world)
  >>> int(steps[world.base[0] + 11, world.base[0]])
  1
  """
  size = world.walls.shape[0]
  at_once = np.eye(size * size, dtype=bool).reshape(size, size, -1)
  start = jnp.where(at_once & ~world.walls[..., None], 0, UNREACHABLE)
  start = start.astype(jnp.int16)
  inner = slice(1, -1)
  free = _free(world).reshape(size, size)[inner, inner, None]

  def nearer(carry):
    steps, _ = carry
    above, below = steps[:-2, inner], steps[2:, inner]
    left, right = steps[inner, :-2], steps[inner, 2:]
    beside = jnp.minimum(jnp.minimum(above, below), jnp.minimum(left, right))
    old = steps[inner, inner]
    new = jnp.minimum(old, beside + jnp.int16(1))
    new = jnp.where(free, new, start[inner, inner])
    return steps.at[inner, inner].set(new), jnp.any(new != old)

  steps, _ = jax.lax.while_loop(
    lambda carry: carry[1], nearer, (start, jnp.bool_(True))
  )
  return steps.reshape(size * size, size * size)


def to_text(world: Map) -> str:
  """The map for people: # walls, A and B bases, a and b pads.

  >>> print(to_text(draw(jax.random.key(2), size=9)).splitlines()[0])
  # # # # # # # # #
  """
  signs = np.where(np.asarray(world.walls), '#', '.').reshape(-1)
  for cells, letters in ((world.base, 'AB'), (world.pad, 'ab')):
    cells = np.asarray(cells)
    for team, own in enumerate(cells.reshape(2, -1)):
      signs[own] = letters[team]
  return '\n'.join(' '.join(line) for line in signs.reshape(world.walls.shape))


def _free(world: Map) -> Array:
  """[S * S] bool, cells that one can walk through: no walls, bases or pads."""
  free = ~world.walls.reshape(-1)
  return free.at[world.base].set(False).at[world.pad].set(False)


def _reach(players: int) -> int:
  """How many cells the pads reach to each side of the base."""
  return (players + 1) // 2


def _both(cells: Array, size: int) -> Array:
  """Team 0's cells, then the same of team 1."""
  return jnp.concatenate([cells, size * size - 1 - cells])


def _path(noise: Array, home: Array, size: int) -> tuple[Array, Array]:
  """[S] first and last column of the path in each row of the upper half.

  It goes down from the base, up to two columns to a side in each row, and
  along the middle to where the other team's path comes up. `noise` is [S].
  """
  middle = (size - 1) // 2
  aside = jnp.int32(noise * 5) - 2
  down = np.arange(size)
  aside = jnp.where((down > 3) & (down < middle), aside, 0)

  def walk(column, step):
    column = jnp.clip(column + step, 1, size - 2)
    return column, column

  _, column = jax.lax.scan(walk, home, aside)
  before = jnp.concatenate([home[None], column[:-1]])
  turned = jnp.where(down == middle, size - 1 - column, before)
  low, high = jnp.minimum(turned, column), jnp.maximum(turned, column)
  on = (down >= 3) & (down <= middle)
  return jnp.where(on, low, size), jnp.where(on, high, -1)


def _reached(free: Array, start: Array, size: int) -> Array:
  """[S * S] bool, the free cells that can be reached from one."""

  def spread(carry):
    found, _ = carry
    more = found
    for by in (1, -1, size, -size):
      more |= jnp.roll(found, by)
    more &= free
    return more, jnp.any(more != found)

  found = jnp.arange(size * size) == start
  found, _ = jax.lax.while_loop(
    lambda carry: carry[1], spread, (found, jnp.bool_(True))
  )
  return found
