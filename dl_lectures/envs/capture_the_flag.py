"""Capture the flag: two teams, a new map in each game, seen from within.

Each team has a base with a flag. Who walks onto the other team's flag carries
it, and who brings it to the own base while the own flag is there has captured
it: one point, and the flag goes home. Who is tagged is out for some steps and
begins again behind the own base; a flag that it carried lies where it was
tagged, until an own player touches it or time has passed, and then is home
again. A game has a fixed length; most captures win. The own base is entered
only with the other team's flag, or to pick it up there: who could stand on it
for ever would win no game and lose none.

      # # # # # # # # #
      # . a # . . . . #      a, b   players, four headings each
      # . A . . . # . #      A, B   bases, with their flags
      # . . . b . . . #      .      free cells, # walls
      # # . . # . . # #
      # . . . . a . . #      A step: all turn, then all move, then all tag at
      # . # . . . B . #      once; then flags are dropped, returned, picked up
      # . . . . # b . #      and captured.
      # # # # # # # # #

Nobody has an advantage by number: a move is not made if its cell is taken, or
wanted by another, or a pad. So turned by 180 degrees and with the teams
exchanged it is the same game, bit for bit, in what happens and in what is seen.
Nothing is drawn at random but maps and first positions.

How it is fast: all that is on the map is one number of 8 bits a cell, and what
agents see is one gather from it; it stays uint8 until a network takes it. Games
have one length, so that many are played in lock-step and none is ever reset
within a loop.

  state = reset(rules, key)                       once a game, with a new map
  state, events = step(rules, state, actions)     rules.length times
  observation = observe(rules, state)             planes(...) for a network,
                                                  pixels(...) as a picture

Source: the slides, deck 000, "Learning to Play Capture The Flag", and Jaderberg
et al., "Human-level performance in 3D multiplayer games with population-based
reinforcement learning", Science 364, 2019, of which this keeps the rules, the
new map in each game, the 13 events that rewards are made of, actions of several
parts and the view of one's own.

>>> rules = Rules(size=11)
>>> environment = game(rules)
>>> state, time_step = environment.reset(jax.random.key(0))
>>> time_step.observation.view.shape, time_step.observation.scalars.shape
((4, 9, 9), (4, 9))
>>> noop = jnp.zeros(4, jnp.int32)
>>> state, time_step = environment.step(state, noop, jax.random.key(1))
>>> planes(time_step.observation.view).shape
(4, 9, 9, 8)
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.envs import capture_maps
from dl_lectures.envs.capture_maps import Map
from dl_lectures.types import Array, Environment, Key, TimeStep, UsageError

# What an agent may do with one number, and the same in parts.
ACTIONS = (
  'nothing',
  'forward',
  'back',
  'left',
  'right',
  'turn left',
  'turn right',
  'tag',
)
NOTHING, FORWARD, BACK, LEFT, RIGHT, TURN_LEFT, TURN_RIGHT, TAG = range(8)
# The parts: turn (1 right, 2 left), step aside (1 right, 2 left), step (1
# forward, 2 back), tag (1). All may be done in one step.
PARTS = (3, 3, 3, 2)
_PARTS_OF = np.array(
  [
    (0, 0, 0, 0),
    (0, 0, 1, 0),
    (0, 0, 2, 0),
    (0, 2, 0, 0),
    (0, 1, 0, 0),
    (2, 0, 0, 0),
    (1, 0, 0, 0),
    (0, 0, 0, 1),
  ],
  np.int32,
)
# Headings; one more is a turn to the right.
NORTH, EAST, SOUTH, WEST = range(4)

# What happened to an agent in a step. 'mate' is any of its team but itself.
EVENTS = (
  'i captured',
  'i picked up',
  'i returned',
  'mate captured',
  'mate picked up',
  'mate returned',
  'opponent captured',
  'opponent picked up',
  'opponent returned',
  'i tagged a carrier',
  'i tagged another',
  'was tagged with the flag',
  'was tagged without',
)

# The bits of a cell as an agent sees it, from the lowest.
PLANES = (
  'wall',
  'mate',
  'opponent',
  'own flag',
  'their flag',
  'own base',
  'their base',
  'unseen',
)
_WALL, _PLAYER, _FLAG, _BASE, _UNSEEN = 1, 2, 8, 32, 128  # of team 0; << 1 of 1
_OF_TEAM_0 = _PLAYER | _FLAG | _BASE

# What is seen, in RGB.
COLOURS = {
  'floor': (222, 217, 206),
  'wall': (74, 74, 82),
  'unseen': (20, 20, 24),
  'mate': (38, 84, 170),
  'opponent': (190, 44, 44),
  'own flag': (30, 150, 220),
  'their flag': (240, 110, 20),
  'own base': (166, 200, 240),
  'their base': (246, 190, 180),
}

# The numbers an agent knows besides, all from -1 to 1 but the score.
SCALARS = (
  'carries',
  'is alive',
  'cannot tag yet',
  'own flag home',
  'own flag carried',
  'their flag home',
  'their flag carried',
  'time',
  'score',
)
COMPASS = ('own base', 'their base', 'own flag', 'their flag', 'mate')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """What a game is; hashable, so that it can be static under `jit`.

  Raises:
    UsageError: no such game can be.

  >>> Rules(view=4)
  Traceback (most recent call last):
   ...
  dl_lectures.types.UsageError: a view of 4 x 4 cells; odd numbers from 3 on \
are possible
  """

  size: int = 11  # S: the map has S x S cells
  players: int = 2  # n, of a team
  length: int = 128  # steps of a game
  indoor: float = 0.5  # probability of an indoor map
  view: int = 9  # V: an agent sees V x V cells
  line_of_sight: bool = False  # what is behind walls is not seen
  compass: bool = False  # where bases, flags and a mate are, among the scalars
  tag_range: int = 5  # cells ahead
  tag_cooldown: int = 3  # steps until one may tag again
  respawn: int = 8  # steps for which a tagged player is out
  return_after: int = 40  # steps for which a dropped flag lies
  instant_return: bool = False  # a flag whose carrier is tagged is home at once

  def __post_init__(self):
    capture_maps.check(self.size, self.players)
    for name in ('length', 'tag_range', 'respawn', 'return_after'):
      if getattr(self, name) < 1:
        raise UsageError(
          f'{name}={getattr(self, name)}; at least 1 is possible'
        )
    if self.tag_cooldown < 0:
      raise UsageError(f'tag_cooldown={self.tag_cooldown}; at least 0')
    if self.view < 3 or self.view % 2 == 0:
      raise UsageError(
        f'a view of {self.view} x {self.view} cells; odd numbers from 3 on are '
        'possible'
      )
    if not 0 <= self.indoor <= 1:
      raise UsageError(f'indoor={self.indoor}; a probability, from 0 to 1')

  @property
  def agents(self) -> int:
    """A, the number of agents: the players of team 0, then those of team 1."""
    return 2 * self.players


class State(NamedTuple):
  """A position. Agents: A = 2 n, team 0's first. A flag has its team's number.

  Attributes:
    world: the map.
    ground: [S * S] uint8, the bits of what never moves: walls and bases.
    place: [A] int32, cells; of who is out, its pad.
    heading: [A] int32, NORTH, EAST, SOUTH or WEST.
    out: [A] int32, steps until it is back; 0 for who plays.
    cooldown: [A] int32, steps until it may tag; 0 if it may.
    carries: [A] bool, whether it carries the other team's flag.
    flag: [2] int32, the flags' cells.
    lies: [2] int32, steps until a dropped flag goes home; 0 if it is home or
      carried.
    score: [2] int32, captures.
    time: [] int32, steps played.
  """

  world: Map
  ground: Array
  place: Array
  heading: Array
  out: Array
  cooldown: Array
  carries: Array
  flag: Array
  lies: Array
  score: Array
  time: Array


class Observation(NamedTuple):
  """What each agent sees and knows.

  Attributes:
    view: [A, V, V] uint8, cells round the agent, which stands in the last row
      but one, in the middle, and looks upwards. Bit k of a cell is PLANES[k].
    scalars: [A, 9] float32, SCALARS; with the compass [A, 29]: for each of
      COMPASS how far it is ahead and to the right, in fives of cells, at most
      2, and the signs of both.
  """

  view: Array
  scalars: Array


def reset(
  rules: Rules, key: Key, random_start: float = 0.0, carried: float = 0.3
) -> State:
  """Begins a game on a new map.

  Args:
    rules: of the game.
    key: consumed.
    random_start: the probability that all begin anywhere, looking anywhere, and
      not on their pads. A learner meets every part of a game so; none is
      evaluated with it.
    carried: the probability that a flag is then carried by an opponent.
  """
  map_key, start_key = jax.random.split(key)
  world = capture_maps.draw(map_key, rules.size, rules.players, rules.indoor)
  return begin(rules, world, start_key, random_start, carried)


def begin(
  rules: Rules,
  world: Map,
  key: Key,
  random_start: float = 0.0,
  carried: float = 0.3,
) -> State:
  """Begins a game on a given map; the arguments are those of `reset`.

  >>> world = capture_maps.draw(jax.random.key(0), 9)
  >>> begin(Rules(size=9), world, jax.random.key(1)).score.tolist()
  [0, 0]
  """
  agents, cells = rules.agents, rules.size**2
  ground = jnp.where(world.walls.reshape(-1), _WALL, 0).astype(jnp.uint8)
  ground = ground.at[world.base].add(np.array([_BASE, 2 * _BASE], np.uint8))

  # All from one draw: each costs time to compile.
  drawn = jax.random.uniform(key, (cells + agents + 5,))
  noise, looks = drawn[:cells], drawn[cells : cells + agents]
  chance, held, who = drawn[-5], drawn[-4:-2], drawn[-2:]
  anywhere = chance < random_start
  noise = jnp.where(world.walls.reshape(-1), -1.0, noise)
  _, found = jax.lax.top_k(noise.at[world.pad].set(-1.0), agents)
  place = jnp.where(anywhere, found, world.pad).astype(jnp.int32)
  heading = jnp.where(anywhere, jnp.int32(4 * looks), _facing(rules))
  carrier = jnp.int32(who * rules.players)[:, None]
  carries = carrier == np.arange(rules.players)[None]
  carries = (carries & (held < carried)[:, None]).reshape(-1) & anywhere
  zeros = jnp.zeros(agents, jnp.int32)
  return State(
    world=world,
    ground=ground,
    place=place,
    heading=heading,
    out=zeros,
    cooldown=zeros,
    carries=carries,
    flag=_carried_to(world.base, carries, place),
    lies=jnp.zeros(2, jnp.int32),
    score=jnp.zeros(2, jnp.int32),
    time=jnp.int32(0),
  )


def step(rules: Rules, state: State, action: Array) -> tuple[State, Array]:
  """Plays a step of all agents.

  Args:
    rules: of the game.
    state: any.
    action: [A] int32, numbers of ACTIONS, or [A, 4] int32, their PARTS.

  Returns:
    The state after it, and [A, 13] uint8, 1 for each of EVENTS that happened.
  """
  parts = action if action.ndim == 2 else jnp.asarray(_PARTS_OF)[action]
  turn, aside, ahead, tag = parts.T
  plays = state.out == 0
  heading = jnp.where(plays, (state.heading + _signed(turn)) % 4, state.heading)
  forward, right = _ahead(rules, heading), _ahead(rules, heading + 1)
  wanted = state.place + _signed(ahead) * forward + _signed(aside) * right
  wanted = jnp.where(plays, wanted, state.place)
  place = _moved(rules, state, wanted)

  fires = plays & (tag == 1) & (state.cooldown == 0)
  tags = targets(rules, state.ground, place, heading, plays) & fires[:, None]
  tagged = jnp.any(tags, axis=0)
  tags_carrier = jnp.any(tags & state.carries[None], axis=1)
  out = jnp.where(tagged, rules.respawn, jnp.maximum(state.out - 1, 0))
  cooldown = jnp.maximum(state.cooldown - 1, 0)
  cooldown = jnp.where(fires, rules.tag_cooldown, cooldown)

  present = plays & ~tagged
  flags = _flags(rules, state, place, present, tags_carrier)
  after = State(
    world=state.world,
    ground=state.ground,
    place=jnp.where(tagged, state.world.pad, place),
    heading=jnp.where(tagged, _facing(rules), heading),
    out=out,
    cooldown=cooldown,
    carries=flags.carries,
    flag=flags.flag,
    lies=flags.lies,
    score=state.score + jnp.any(flags.captures, axis=1),
    time=state.time + 1,
  )
  events = [
    *_flag_events(flags.captures, flags.picks, flags.returns),
    tags_carrier,
    jnp.any(tags, axis=1) & ~tags_carrier,
    tagged & state.carries,
    tagged & ~state.carries,
  ]
  return after, jnp.stack(events, axis=1).astype(jnp.uint8)


def observe(rules: Rules, state: State) -> Observation:
  """What each agent sees and knows.

  Args:
    rules: of the game.
    state: any. Who is out sees what is round its pad.
  """
  down, along = _frame(state.heading)  # [A], of one step ahead
  row, column = state.place // rules.size, state.place % rules.size
  ahead, aside = (x[None] for x in _cells_of_view(rules.view))
  rows = row[:, None] + ahead * down[:, None] + aside * along[:, None]
  columns = column[:, None] + ahead * along[:, None] - aside * down[:, None]
  # The border is wall, and so is all beyond it.
  rows = jnp.clip(rows, 0, rules.size - 1)
  columns = jnp.clip(columns, 0, rules.size - 1)
  view = _bits(state)[rows * rules.size + columns]  # [A, V * V]
  theirs = view[rules.players :]
  swapped = ((theirs & _OF_TEAM_0) << 1) | ((theirs >> 1) & _OF_TEAM_0)
  swapped |= theirs & _WALL
  view = jnp.concatenate([view[: rules.players], swapped])
  if rules.line_of_sight:
    walls = (view & _WALL).astype(jnp.float32)
    hidden = walls @ _between(rules.view).T >= 1
    view = jnp.where(hidden, np.uint8(_UNSEEN), view)
  # It does not see itself: it would count as a mate.
  itself = (ahead == 0) & (aside == 0)
  view &= np.where(itself, ~np.uint8(_PLAYER), np.uint8(255))
  view = view.reshape(rules.agents, rules.view, rules.view)
  scalars = _scalars(rules, state)
  if rules.compass:
    scalars = jnp.concatenate([scalars, _compass(rules, state)], axis=1)
  return Observation(view, scalars)


def targets(
  rules: Rules, ground: Array, place: Array, heading: Array, plays: Array
) -> Array:
  """[A, A] bool, whom (column) each agent (row) would tag.

  That is the first opponent ahead; mates do not stop a tag, walls do.

  Args:
    rules: of the game.
    ground: as in the state.
    place: [A] int32, cells.
    heading: [A] int32.
    plays: [A] bool, who can be tagged.
  """
  cells = rules.size**2
  reach = np.arange(1, rules.tag_range + 1, dtype=np.int32)
  beam = place[:, None] + _ahead(rules, heading)[:, None] * reach[None]
  # Beyond the border is behind a wall.
  wall = (ground[jnp.clip(beam, 0, cells - 1)] & _WALL) > 0
  clear = jnp.cumsum(wall, axis=1) == 0
  side = np.arange(rules.agents) // rules.players
  foe = (side[:, None] != side[None]) & plays[None]
  there = (beam[:, :, None] == place[None, None]) & foe[:, None]
  there &= clear[:, :, None]
  met = jnp.cumsum(jnp.any(there, axis=2), axis=1)
  first = there & (met == 1)[:, :, None]
  return jnp.any(first, axis=1)


def planes(view: Array) -> Array:
  """A view's bits as planes [..., V, V, 8] uint8, in the order of PLANES.

  >>> planes(jnp.uint8([[1, 6]])).tolist()
  [[[1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]]]
  """
  shift = np.arange(8, dtype=np.uint8).reshape((1,) * view.ndim + (8,))
  return (view[..., None] >> shift) & 1


def flat(rules: Rules, seen: Observation) -> Array:
  """Observations for a network without convolutions, [..., F] float32.

  Args:
    rules: of the game; without line of sight nothing is unseen, and that plane
      is left out.
    seen: with leading axes [...].
  """
  bits = planes(seen.view)
  if not rules.line_of_sight:
    bits = bits[..., :-1]
  bits = bits.reshape(*bits.shape[:-3], -1).astype(jnp.float32)
  return jnp.concatenate([bits, seen.scalars], axis=-1)


def is_alive(seen: Observation) -> Array:
  """[...] bool, who plays and is not out."""
  return seen.scalars[..., SCALARS.index('is alive')] > 0


def pixels(view: Array, scale: int = 4) -> Array:
  """A view as a picture [..., V * scale, V * scale, 3] uint8, RGB.

  Args:
    view: [..., V, V] uint8.
    scale: pixels a cell, at least 3.

  Raises:
    UsageError: too few pixels to tell things apart.

  >>> pixels(jnp.zeros((9, 9), jnp.uint8)).shape
  (36, 36, 3)
  """
  drawn = jnp.asarray(sprites(scale))[view]  # [..., V, V, scale, scale, 3]
  drawn = jnp.swapaxes(drawn, -4, -3)
  *rest, rows, _, columns, _, _ = drawn.shape
  return drawn.reshape(*rest, rows * scale, columns * scale, 3)


@functools.cache
def sprites(scale: int) -> np.ndarray:
  """What each of the 256 sorts of cell looks like: [256, scale, scale, 3].

  Args:
    scale: pixels a cell, at least 3.

  Raises:
    UsageError: too few pixels.
  """
  if scale < 3:
    raise UsageError(f'{scale} pixels a cell; at least 3 are possible')
  drawn = np.empty((256, scale, scale, 3), np.uint8)
  edge, middle = max(1, scale // 4), scale // 2
  for bits in range(256):
    on = {name for k, name in enumerate(PLANES) if bits >> k & 1}
    ground = [name for name in ('own base', 'their base', 'wall') if name in on]
    drawn[bits] = COLOURS[ground[-1] if ground else 'floor']
    for name in ('mate', 'opponent'):
      if name in on:
        drawn[bits, edge : scale - edge, edge : scale - edge] = COLOURS[name]
    for name in ('own flag', 'their flag'):
      if name in on:
        drawn[bits, :middle, scale - middle :] = COLOURS[name]
    if 'unseen' in on:
      drawn[bits] = COLOURS['unseen']
  return drawn


def game(rules: Rules) -> Environment:
  """The game as an environment of all its agents.

  Observations and actions have a leading axis A; an action is a number of
  ACTIONS or has four PARTS. The reward [A] is 1 for a capture of one's team
  and -1 for one of the other's; who wants the events calls `step` itself. The
  game ends for all after `rules.length` steps.
  """

  def first(key: Key) -> tuple[State, TimeStep]:
    state = reset(rules, key)
    reward = jnp.zeros(rules.agents, jnp.float32)
    return state, TimeStep(observe(rules, state), reward, jnp.float32(1))

  def then(state: State, action: Array, key: Key) -> tuple[State, TimeStep]:
    del key
    state, events = step(rules, state, action)
    happened = events.astype(jnp.float32)
    ours, theirs = happened[:, 0] + happened[:, 3], happened[:, 6]
    goes_on = jnp.float32(state.time < rules.length)
    return state, TimeStep(observe(rules, state), ours - theirs, goes_on)

  shape = (rules.agents, rules.view, rules.view)
  return Environment(first, then, len(ACTIONS), shape)


def result(state: State) -> Array:
  """[2] float32: 1 for the team that is ahead, -1 for the other; 0 if none."""
  ahead = jnp.sign(state.score[0] - state.score[1])
  return jnp.stack([ahead, -ahead]).astype(jnp.float32)


def to_text(state: State) -> str:
  """A position for people: players by their headings, bases A B, flags.

  Team 0 is ^ > v <, team 1 is n ] u [; a flag that is not home is F (of team
  0) or G, and who carries one stands for both.

  >>> print(to_text(reset(Rules(size=9), jax.random.key(1))).splitlines()[-1])
  step 0: 0 to 0
  """
  size = state.world.walls.shape[0]
  signs = np.where(np.asarray(state.world.walls), '#', '.').reshape(-1)
  signs[np.asarray(state.world.base)] = ('A', 'B')
  for team, cell in enumerate(np.asarray(state.flag)):
    if cell != state.world.base[team]:
      signs[cell] = 'FG'[team]
  players = len(state.place) // 2
  for agent, cell in enumerate(np.asarray(state.place)):
    if state.out[agent] == 0:
      signs[cell] = ('^>v<', 'n]u[')[agent // players][state.heading[agent]]
  lines = [' '.join(line) for line in signs.reshape(size, size)]
  score = f'{int(state.score[0])} to {int(state.score[1])}'
  return '\n'.join([*lines, f'step {int(state.time)}: {score}'])


def _facing(rules: Rules) -> np.ndarray:
  """[A] int32, where players look as they begin: into the field."""
  return np.repeat(np.array([SOUTH, NORTH], np.int32), rules.players)


def _signed(part: Array) -> Array:
  """0, 1, 2 -> 0, 1, -1."""
  return part - 3 * (part == 2)


def _frame(heading: Array) -> tuple[Array, Array]:
  """Rows down and columns to the right that one step ahead leads."""
  heading = heading % 4
  down = 1 * (heading == SOUTH) - 1 * (heading == NORTH)
  return down, 1 * (heading == EAST) - 1 * (heading == WEST)


def _ahead(rules: Rules, heading: Array) -> Array:
  """What one step ahead adds to the number of a cell."""
  down, along = _frame(heading)
  return rules.size * down + along


def _moved(rules: Rules, state: State, wanted: Array) -> Array:
  """[A] where all are after they wanted to go to these cells."""
  others = ~np.eye(len(wanted), dtype=bool)
  moves = wanted != state.place
  taken = wanted[:, None] == state.place[None]
  contested = (wanted[:, None] == wanted[None]) & moves[None]
  stopped = jnp.any((taken | contested) & others, axis=1)
  stopped |= (state.ground[wanted] & _WALL) > 0
  stopped |= jnp.any(wanted[:, None] == state.world.pad[None], axis=1)
  base = state.world.base
  theirs_is_there = jnp.repeat(state.flag[::-1] == base, rules.players)
  at_home = wanted == jnp.repeat(base, rules.players)
  stopped |= at_home & ~state.carries & ~theirs_is_there
  return jnp.where(stopped, state.place, wanted)


class _Flags(NamedTuple):
  """What becomes of the flags, as in State, and what was done: [2, n] bool."""

  carries: Array
  flag: Array
  lies: Array
  captures: Array
  picks: Array
  returns: Array


def _flags(
  rules: Rules,
  state: State,
  place: Array,
  present: Array,
  tags_carrier: Array,
) -> _Flags:
  """They are dropped, go home with time, are returned, picked up, captured.

  Args:
    rules: of the game.
    state: before the step.
    place: [A] where all are, the tagged where they were tagged.
    present: [A] bool, who plays and was not tagged.
    tags_carrier: [A] bool, who tagged a carrier.
  """
  team = functools.partial(jnp.reshape, shape=(2, rules.players))
  base, at = state.world.base, team(place)
  flag = _carried_to(state.flag, state.carries, place)
  carries = team(state.carries & present)
  dropped = jnp.any(team(state.carries & ~present), axis=1)[::-1]
  lies = jnp.maximum(state.lies - 1, 0)
  home = (state.lies > 0) & (lies == 0)
  lies = jnp.where(dropped, rules.return_after, lies)
  if rules.instant_return:
    returns, home = team(tags_carrier), home | dropped
  else:
    returns = team(present) & (at == flag[:, None]) & (lies > 0)[:, None]
    home |= jnp.any(returns, axis=1)
  flag = jnp.where(home, base, flag)
  lies = jnp.where(home, 0, lies)

  held = jnp.any(carries, axis=1, keepdims=True)
  picks = team(present) & ~held & (at == flag[::-1, None])
  carries |= picks
  lies = jnp.where(jnp.any(picks, axis=1)[::-1], 0, lies)
  is_home = (lies == 0) & ~jnp.any(carries, axis=1)[::-1]
  captures = carries & (at == base[:, None]) & is_home[:, None]
  carries &= ~captures
  flag = jnp.where(jnp.any(captures, axis=1)[::-1], base, flag)
  return _Flags(carries.reshape(-1), flag, lies, captures, picks, returns)


def _carried_to(flag: Array, carries: Array, place: Array) -> Array:
  """[2] cells of the flags: those that are carried are where their carrier is.

  Args:
    flag: [2] where they were.
    carries: [A] who carries the other team's.
    place: [A] where all are.
  """
  carries, place = carries.reshape(2, -1), place.reshape(2, -1)
  held = jnp.any(carries, axis=1)[::-1]
  carrier = jnp.sum(jnp.where(carries, place, 0), axis=1)[::-1]
  return jnp.where(held, carrier, flag)


def _flag_events(*deeds: Array) -> list[Array]:
  """Nine [A]: of three deeds [2, n] mine, then of mates, then of opponents."""
  count = [jnp.sum(deed, axis=1, keepdims=True) for deed in deeds]
  mates = [n > deed for n, deed in zip(count, deeds, strict=True)]
  foes = [
    jnp.broadcast_to(n[::-1] > 0, deed.shape)
    for n, deed in zip(count, deeds, strict=True)
  ]
  return [happened.reshape(-1) for happened in (*deeds, *mates, *foes)]


def _bits(state: State) -> Array:
  """[S * S] uint8, all that is on each cell, as team 0 sees it."""
  agents = len(state.place)
  player = np.where(np.arange(agents) < agents // 2, _PLAYER, 2 * _PLAYER)
  player = jnp.where(state.out == 0, player.astype(np.uint8), 0)
  # No two agents share a cell, nor do things of one sort: sums are unions.
  things = jnp.concatenate([player, np.array([_FLAG, 2 * _FLAG], np.uint8)])
  cells = jnp.concatenate([state.place, state.flag])
  return state.ground.at[cells].add(things)


def _scalars(rules: Rules, state: State) -> Array:
  """[A, 9] float32, SCALARS."""
  held = jnp.any(state.carries.reshape(2, -1), axis=1)[::-1]
  home = (state.lies == 0) & ~held
  passed = jnp.broadcast_to(state.time / rules.length, (2,))
  lead = (state.score - state.score[::-1]) / 3
  of_team = jnp.stack(
    [home, held, home[::-1], held[::-1], passed, lead],
    axis=1,
    dtype=jnp.float32,
  )
  own = [
    state.carries,
    state.out == 0,
    state.cooldown / max(rules.tag_cooldown, 1),
  ]
  own = jnp.stack(own, axis=1, dtype=jnp.float32)
  return jnp.concatenate([own, jnp.repeat(of_team, rules.players, 0)], axis=1)


def _compass(rules: Rules, state: State) -> Array:
  """[A, 20] float32: how far what is in COMPASS is ahead and to the right."""
  base, flag = state.world.base, state.flag
  of_team = jnp.stack([base, base[::-1], flag, flag[::-1]], axis=1)
  mate = jnp.roll(state.place.reshape(2, -1), -1, axis=1).reshape(-1, 1)
  goals = jnp.repeat(of_team, rules.players, axis=0)
  goals = jnp.concatenate([goals, mate], axis=1)  # [A, 5]
  size, place = rules.size, state.place[:, None]
  rows = goals // size - place // size
  columns = goals % size - place % size
  down, along = (x[:, None] for x in _frame(state.heading))
  way = jnp.stack(
    [rows * down + columns * along, rows * along - columns * down]
  )
  far = jnp.clip(way / 5, -2.0, 2.0)
  told = jnp.concatenate([far, jnp.sign(way).astype(jnp.float32)])
  return jnp.moveaxis(told, 0, -1).reshape(rules.agents, -1)


def _cells_of_view(view: int) -> tuple[np.ndarray, np.ndarray]:
  """[V * V] int32: how far ahead and to the right each cell of a view is."""
  row, column = np.divmod(np.arange(view * view, dtype=np.int32), view)
  return view - 2 - row, column - view // 2


@functools.cache
def _between(view: int) -> np.ndarray:
  """[V * V, V * V] float32: how much a cell (column) hides another (row).

  A line from the eye to a cell goes through one cell, or half through two, at
  each step of its longer side; a cell is hidden by one whole wall.
  """
  weight = np.zeros((view * view, view * view), np.float32)
  for cell, way in enumerate(zip(*_cells_of_view(view), strict=True)):
    longer = max(abs(x) for x in way)
    for k in range(1, longer):
      for nearly in (-1e-6, 1e-6):
        a, b = (round(x * k / longer + nearly) for x in way)
        weight[cell, (view - 2 - a) * view + b + view // 2] += 0.5
  return weight
