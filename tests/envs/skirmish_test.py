"""Skirmish: a plain step in Python, symmetry of the sides, rules by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import skirmish
from dl_lectures.envs.skirmish import ATTACK, MOVE, NOTHING, Command, State

BATCH = 128
play = jax.jit(jax.vmap(skirmish.step))
ended = jax.jit(jax.vmap(skirmish.over))


def drawn_commands(draw: np.random.Generator, n: int) -> Command:
  """Commands of both sides for n games, [n, 2, ...]."""
  return Command(
    jnp.asarray(draw.integers(0, 3, (n, 2)), jnp.int32),
    jnp.asarray(draw.random((n, 2, 5)) < 0.5),
    jnp.asarray(draw.integers(0, 64, (n, 2)), jnp.int32),
    jnp.asarray(draw.integers(0, 5, (n, 2)), jnp.int32),
  )


def games(seed: int, turns: int) -> list[tuple[Any, Any, Any, Any]]:
  """Turns of random play: before, commands, after, rewards."""
  draw = np.random.default_rng(seed)
  state = jax.vmap(skirmish.reset)(
    jax.random.split(jax.random.key(seed), BATCH)
  )
  found = []
  for _ in range(turns):
    commands = drawn_commands(draw, BATCH)
    after, reward = play(state, commands)
    found.append(
      (jax.device_get(state), commands, jax.device_get(after), reward)
    )
    state = after
  return found


def plain_step(state, commands):
  """One game, unit by unit."""
  place, health = state.place.copy(), state.health.copy()
  order, target = state.order.copy(), state.target.copy()
  for side in (0, 1):
    kind = commands.kind[side]
    for u in range(5):
      if kind != NOTHING and commands.units[side, u] and health[side, u] > 0:
        cell = commands.cell[side]
        cell = 63 - cell if side else cell
        order[side, u] = kind
        target[side, u] = cell if kind == MOVE else commands.enemy[side]
  blows, moved = np.zeros((2, 5), int), place.copy()
  for side in (0, 1):
    foe = 1 - side
    for u in range(5):
      if health[side, u] == 0:
        continue
      apart = [abs(place[side, u] - place[foe, v]).max() for v in range(5)]
      seen = [
        v
        for v in range(5)
        if health[foe, v] > 0 and apart[v] <= skirmish.RANGE[u]
      ]
      goal = None
      if order[side, u] == ATTACK and health[foe, target[side, u]] > 0:
        victim = target[side, u]
        if victim in seen:
          blows[foe, victim] += skirmish.DAMAGE[u]
        else:
          goal = place[foe, victim]
      elif order[side, u] == MOVE:
        goal = np.array(divmod(target[side, u], 8))
      elif seen:
        victim = min(seen, key=lambda v: (apart[v], v))
        blows[foe, victim] += skirmish.DAMAGE[u]
      if goal is not None:
        moved[side, u] = place[side, u] + np.sign(goal - place[side, u])
  health = np.maximum(health - blows, 0)
  for side in (0, 1):
    for u in range(5):
      there = order[side, u] == MOVE and tuple(moved[side, u]) == divmod(
        target[side, u], 8
      )
      dead = order[side, u] == ATTACK and health[1 - side, target[side, u]] == 0
      if there or dead:
        order[side, u] = target[side, u] = 0
  return State(moved, health, order, target, state.time + 1)


def exchanged(state: State) -> State:
  """The same position with the sides exchanged and the board turned."""
  cell = (state.order == MOVE) * (63 - 2 * state.target) + state.target
  return State(
    7 - state.place[:, ::-1],
    state.health[:, ::-1],
    state.order[:, ::-1],
    cell[:, ::-1],
    state.time,
  )


@pytest.fixture(scope='module')
def turns():
  return games(0, 24)


def test_a_turn_is_that_of_the_plain_rules(turns):
  struck = 0
  for before, commands, after, _ in turns[::3]:
    for i in range(0, BATCH, 8):
      one = jax.tree.map(lambda x, i=i: x[i], (before, commands, after))
      expected = plain_step(*one[:2])
      for name, ours in one[2]._asdict().items():
        # The dead may stand anywhere and want anything.
        alive = np.asarray(before.health[i]) > 0
        theirs = np.asarray(getattr(expected, name))
        if name in ('order', 'target'):
          ours, theirs = ours[alive], theirs[alive]
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
      struck += (one[2].health < one[0].health).sum()
  assert struck > 50


def test_turned_with_the_sides_exchanged_it_is_the_same_game(turns):
  for before, commands, after, reward in turns[::6]:
    other, paid = play(
      exchanged(before), jax.tree.map(lambda x: x[:, ::-1], commands)
    )
    jax.tree.map(np.testing.assert_array_equal, other, exchanged(after))
    np.testing.assert_array_equal(paid, reward[:, ::-1])
    np.testing.assert_array_equal(ended(other), ended(after))
    seen = jax.vmap(lambda s: skirmish.observe(s, 0))(after)
    mirrored = jax.vmap(lambda s: skirmish.observe(s, 1))(exchanged(after))
    jax.tree.map(np.testing.assert_array_equal, seen, mirrored)


def test_the_winner_is_who_is_left_or_has_more():
  state = skirmish.reset(jax.random.key(0))
  quiet = jax.tree.map(lambda x: jnp.stack([x, x]), skirmish.nothing())
  place = jnp.broadcast_to(jnp.array([[[0, 0]], [[7, 7]]]), (2, 5, 2))
  apart = state._replace(place=place)

  def after(health, time=0):
    state = apart._replace(health=jnp.array(health), time=jnp.int32(time))
    state, reward = skirmish.step(state, quiet)
    return bool(skirmish.over(state)), reward.tolist()

  some, more, none = [1] * 5, [2] * 5, [0] * 5
  assert after([some, more]) == (False, [0, 0])
  assert after([some, none]) == (True, [1, -1])
  assert after([some, more], 46) == (False, [0, 0])
  assert after([some, more], 47) == (True, [-1, 1])
  assert after([more, more], 47) == (True, [0, 0])
  assert after([none, none]) == (True, [0, 0])


def test_one_archer_shoots_from_three_cells_and_a_fighter_walks_there():
  place = np.full((2, 5, 2), 0)
  place[1] = 7
  place[1, 0] = 0, 4  # A fighter, four cells from all of side 0.
  state = skirmish.reset(jax.random.key(0))._replace(place=jnp.array(place))
  attack = Command(
    jnp.array([ATTACK, ATTACK]),
    jnp.array([[False] * 3 + [True, False], [True] + [False] * 4]),
    jnp.zeros(2, int),
    jnp.array([0, 3]),
  )
  state, _ = skirmish.step(state, attack)
  # Both step towards each other, then the archer shoots at two cells.
  assert state.place[0, 3].tolist() == [0, 1]
  assert state.place[1, 0].tolist() == [0, 3]
  quiet = jax.tree.map(lambda x: jnp.stack([x, x]), skirmish.nothing())
  state, _ = skirmish.step(state, quiet)
  # The other archer, idle, has it in range now and shoots too.
  assert state.health[1].tolist() == [16, 20, 20, 12, 12]
  assert state.place[1, 0].tolist() == [0, 2]
  assert state.health[0].tolist() == [20, 20, 20, 12, 12]


def test_an_episode_against_the_script_ends_and_two_scripts_are_equals():
  environment = skirmish.against(skirmish.charge)

  def turn(carry, key):
    state, paid, over = carry
    mine, theirs = jax.random.split(key)
    command = skirmish.charge(state, 0, mine)
    state, time_step = environment.step(state, command, theirs)
    paid += jnp.where(over, 0.0, time_step.reward)
    return (state, paid, over | (time_step.discount == 0)), None

  @jax.jit
  @jax.vmap
  def episode(key):
    start, play = jax.random.split(key)
    carry = environment.reset(start)[0], jnp.float32(0), jnp.bool_(False)
    keys = jax.random.split(play, skirmish.TIME_LIMIT)
    return jax.lax.scan(turn, carry, keys)[0]

  _, paid, over = episode(jax.random.split(jax.random.key(1), 1024))
  assert over.all()
  wins, losses = int((paid > 0).sum()), int((paid < 0).sum())
  assert wins + losses > 700
  assert abs(wins - losses) < 4 * np.sqrt(wins + losses)
