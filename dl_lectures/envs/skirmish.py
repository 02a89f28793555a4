"""Skirmish: a strategy game that fits on 8 x 8 cells, played by commands.

Two sides of three fighters and two archers. A player sees all units and gives
one command a turn, to any of its units at once: go to that cell, or attack that
unit. Units keep their orders until they get others, so that what was commanded
five turns ago still happens.

             step   range   damage   health
    fighter    1      1        3       20
    archer     1      3        2       12

A turn: both commands are given, every unit moves or strikes, all at once. A
unit whose target is in range strikes it, else it takes a step towards it, in
eight directions; any number of units may stand on one cell. One without orders,
or whose target is dead, stands and strikes the nearest enemy in range. Who has
no units left has lost; after 48 turns who has less health left.

It asks of a network what StarCraft asked of AlphaStar's (Vinyals et al.,
"Grandmaster level in StarCraft II using multi-agent reinforcement learning",
Nature 575, 2019): a set of entities and a map go in, an action of several parts
comes out, and one part is a set of units. Slides: deck 003, "AlphaStar".

Each side sees the board from its own end: turned by 180 degrees and with the
sides exchanged the game is the same, bit for bit.

>>> import jax
>>> environment = against(charge)
>>> state, time_step = environment.reset(jax.random.key(0))
>>> time_step.observation.entities.shape
(10, 14)
>>> state, time_step = environment.step(state, nothing(), jax.random.key(1))
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dl_lectures.types import Array, Environment, Key, TimeStep

SIZE = 8
NUM_CELLS = SIZE * SIZE
NUM_UNITS = 5  # of a side
TIME_LIMIT = 48
# What a command may say.
NOTHING, MOVE, ATTACK = range(3)
KINDS = ('nothing', 'move', 'attack')
# Of each unit: 0 for a fighter, 1 for an archer.
ARCHER = np.array([0, 0, 0, 1, 1])
RANGE = np.where(ARCHER, 3, 1)
DAMAGE = np.where(ARCHER, 2, 3)
HEALTH = np.where(ARCHER, 12, 20)
NUM_FEATURES = 14
# Columns from one's own edge in which a side begins.
_DEPTH = 3


class State(NamedTuple):
  """A position. The first axis is the side, the second the unit.

  Attributes:
    place: [2, 5, 2] int32, row and column.
    health: [2, 5] int32; 0 is dead.
    order: [2, 5] int32, NOTHING, MOVE or ATTACK.
    target: [2, 5] int32, of the order: a cell, row * 8 + column, or the number
      of an enemy.
    time: [] int32, turns played.
  """

  place: Array
  health: Array
  order: Array
  target: Array
  time: Array


class Command(NamedTuple):
  """What a player may say in one turn, as it sees the board.

  Attributes:
    kind: [] int32, NOTHING, MOVE or ATTACK.
    units: [5] bool, of one's own, to whom it is said. The dead do not hear it.
    cell: [] int32, where to move.
    enemy: [] int32 in 0 ... 4, whom to attack.
  """

  kind: Array
  units: Array
  cell: Array
  enemy: Array


class Observation(NamedTuple):
  """The board as one side sees it: one's own units first.

  Attributes:
    entities: [10, 14] float32; 0 for the dead.
    cell: [10] int32, where each stands.
    alive: [10] bool.
    time: [1] float32, the share of the turns that has passed.
  """

  entities: Array
  cell: Array
  alive: Array
  time: Array


# (state, side, key) -> command
Script = Callable[[State, int, Key], Command]


def nothing() -> Command:
  """The command that commands nothing."""
  zero = jnp.int32(0)
  return Command(zero, jnp.zeros(NUM_UNITS, bool), zero, zero)


def reset(key: Key) -> State:
  """Places both sides at random, within three columns of their edges.

  Args:
    key: consumed.
  """
  shape = (2, NUM_UNITS, 2)
  within = jnp.broadcast_to(jnp.array([SIZE, _DEPTH]), shape)
  place = jax.random.randint(key, shape, 0, within)
  zeros = jnp.zeros((2, NUM_UNITS), jnp.int32)
  return State(
    place=jnp.stack([place[0], _turned(place[1])]),
    health=jnp.broadcast_to(jnp.int32(HEALTH), (2, NUM_UNITS)),
    order=zeros,
    target=zeros,
    time=jnp.int32(0),
  )


def step(state: State, commands: Command) -> tuple[State, Array]:
  """Plays a turn.

  Args:
    state: not over.
    commands: of both sides, [2, ...], each as its side sees the board.

  Returns:
    The state after it, and the reward [2] float32: 1 and -1 where one has won,
    0 otherwise.
  """
  state = _heard(state, commands)
  place, health = state.place, state.health
  alive = health > 0
  foe_place, foe_alive = place[::-1], alive[::-1]
  apart = jnp.max(
    jnp.abs(place[:, :, None] - foe_place[:, None]), axis=-1
  )  # [2, 5, 5], unit by enemy
  reach = foe_alive[:, None] & (apart <= jnp.asarray(RANGE)[None, :, None])

  chosen = state.target % NUM_UNITS
  hunts = (state.order == ATTACK) & _of(foe_alive, chosen)
  marches = state.order == MOVE
  nearest = jnp.argmin(jnp.where(reach, apart, SIZE), axis=-1)
  idle = ~hunts & ~marches
  victim = jnp.where(hunts, chosen, nearest)
  in_reach = jnp.take_along_axis(reach, victim[..., None], axis=-1)[..., 0]
  strikes = alive & in_reach & (hunts | idle)
  blow = jnp.where(strikes, jnp.asarray(DAMAGE)[None], 0)
  hit = jax.nn.one_hot(victim, NUM_UNITS, dtype=jnp.int32)
  suffered = jnp.sum(blow[..., None] * hit, axis=1)[::-1]

  goal = jnp.stack([state.target // SIZE, state.target % SIZE], axis=-1)
  prey = jnp.take_along_axis(foe_place, chosen[..., None], axis=1)
  goal = jnp.where(hunts[..., None], prey, goal)
  walks = alive & ((hunts & ~strikes) | marches)
  place = place + jnp.where(walks[..., None], jnp.sign(goal - place), 0)

  # Who has arrived, or whose prey is dead, stands.
  arrived = marches & jnp.all(place == goal, axis=-1)
  health = jnp.maximum(health - suffered, 0)
  done = arrived | ((state.order == ATTACK) & ~_of(health[::-1] > 0, chosen))
  state = State(
    place,
    health,
    jnp.where(done, NOTHING, state.order),
    jnp.where(done, 0, state.target),
    state.time + 1,
  )
  return state, _reward(state)


def over(state: State) -> Array:
  """[] bool, whether a side is dead or time is up."""
  gone = jnp.any(jnp.all(state.health == 0, axis=1))
  return gone | (state.time >= TIME_LIMIT)


def observe(state: State, side: int) -> Observation:
  """The board as a side sees it.

  Args:
    state: any.
    side: 0 or 1.
  """
  me, foe = side, 1 - side
  place = jnp.concatenate([state.place[me], state.place[foe]])
  place = _turned(place) if side else place
  health = jnp.concatenate([state.health[me], state.health[foe]])
  order = jnp.concatenate([state.order[me], state.order[foe]])
  archer = jnp.asarray(np.tile(ARCHER, 2))
  mine = jnp.arange(2 * NUM_UNITS) < NUM_UNITS
  # How many attack this one.
  aimed = jnp.concatenate([_aimed(state, foe), _aimed(state, me)])
  alive = health > 0
  columns = [
    mine,
    ~mine,
    archer == 0,
    archer == 1,
    health / 20,
    health <= 5,
    place[:, 0] / (SIZE - 1),
    place[:, 1] / (SIZE - 1),
    jnp.sin(np.pi * place[:, 0] / (SIZE - 1)),
    jnp.sin(np.pi * place[:, 1] / (SIZE - 1)),
    order == NOTHING,
    order == MOVE,
    order == ATTACK,
    aimed / NUM_UNITS,
  ]
  entities = jnp.stack([c.astype(jnp.float32) for c in columns], axis=-1)
  return Observation(
    jnp.where(alive[:, None], entities, 0.0),
    place[:, 0] * SIZE + place[:, 1],
    alive,
    jnp.float32(state.time / TIME_LIMIT)[None],
  )


def charge(state: State, side: int, key: Key) -> Command:
  """The scripted player: whoever has no target attacks the nearest enemy.

  One of these is drawn; the others near it, within two cells, go with it.

  Args:
    state: any.
    side: for which it plays.
    key: consumed.
  """
  alive, foes = state.health[side] > 0, state.health[1 - side] > 0
  place, theirs = state.place[side], state.place[1 - side]
  needs = alive & (state.order[side] != ATTACK)
  noise = jax.random.uniform(key, (NUM_UNITS,))
  leader = jnp.argmax(jnp.where(needs, noise, -1.0))
  apart = jnp.max(jnp.abs(theirs - place[leader][None]), axis=-1)
  enemy = jnp.argmin(jnp.where(foes, apart, SIZE))
  near = jnp.max(jnp.abs(place - place[leader][None]), axis=-1) <= 2
  units = needs & near
  return Command(
    jnp.where(jnp.any(units), ATTACK, NOTHING).astype(jnp.int32),
    units,
    jnp.int32(0),
    enemy.astype(jnp.int32),
  )


def against(script: Script) -> Environment:
  """The game of side 0 against a scripted side 1.

  Args:
    script: plays side 1.

  Returns:
    An environment whose actions are commands and whose `num_actions` counts
    their kinds; its observation's shape is that of the entities.
  """

  def begin(key: Key) -> tuple[State, TimeStep]:
    state = reset(key)
    return state, TimeStep(observe(state, 0), jnp.float32(0), jnp.float32(1))

  def turn(state: State, command: Command, key: Key) -> tuple[State, TimeStep]:
    both = jax.tree.map(
      lambda *sides: jnp.stack(sides), command, script(state, 1, key)
    )
    state, reward = step(state, both)
    discount = jnp.float32(~over(state))
    return state, TimeStep(observe(state, 0), reward[0], discount)

  return Environment(begin, turn, len(KINDS), (2 * NUM_UNITS, NUM_FEATURES))


def to_text(state: State) -> str:
  """The board as side 0 sees it, for people.

  Letters: f and a are fighters and archers of side 0, F and A of side 1; a
  digit says how many stand on one cell.

  >>> print(to_text(reset(jax.random.key(3))).splitlines()[-1])
  turn 0: health 20 20 20 12 12 against 20 20 20 12 12
  """
  cells: dict[tuple[int, int], list[str]] = {}
  place, health = np.asarray(state.place), np.asarray(state.health)
  for side, unit in np.argwhere(health > 0):
    letter = ('fa', 'FA')[side][ARCHER[unit]]
    where = int(place[side, unit, 0]), int(place[side, unit, 1])
    cells.setdefault(where, []).append(letter)
  lines = []
  for row in range(SIZE):
    there = [cells.get((row, column), []) for column in range(SIZE)]
    lines.append(
      ' '.join(str(len(x)) if len(x) > 1 else (*x, '.')[0] for x in there)
    )
  ours, theirs = (' '.join(map(str, side)) for side in health)
  return '\n'.join(
    [*lines, f'turn {int(state.time)}: health {ours} against {theirs}']
  )


def _heard(state: State, commands: Command) -> State:
  """Those who are spoken to and alive take the new orders."""
  # Side 1 names cells as it sees them.
  cell = jnp.stack([commands.cell[0], NUM_CELLS - 1 - commands.cell[1]])
  target = jnp.where(commands.kind == MOVE, cell, commands.enemy)
  spoken = (commands.kind != NOTHING)[:, None] & commands.units
  spoken &= state.health > 0
  return state._replace(
    order=jnp.where(spoken, commands.kind[:, None], state.order),
    target=jnp.where(spoken, target[:, None], state.target),
  )


def _reward(state: State) -> Array:
  left = jnp.sum(state.health, axis=1)
  won = jnp.sign(left[0] - left[1]) * over(state)
  return jnp.float32(jnp.stack([won, -won]))


def _of(flags: Array, number: Array) -> Array:
  """[2, 5]: the flag [2, 5] of the unit that each names."""
  return jnp.take_along_axis(flags, number, axis=1)


def _aimed(state: State, side: int) -> Array:
  """[5] how many units of that side attack each of the other side's."""
  hunts = (state.order[side] == ATTACK) & (state.health[side] > 0)
  hit = jax.nn.one_hot(state.target[side], NUM_UNITS, dtype=jnp.int32)
  return jnp.sum(hunts[:, None] * hit, axis=0)


def _turned(place: Array) -> Array:
  return SIZE - 1 - place
