"""Capture the flag: a plain step in Python, fairness, rules by hand."""

import dataclasses
import functools
from typing import Any

import hypothesis
import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import capture_maps
from dl_lectures.envs import capture_the_flag as ctf
from dl_lectures.envs.capture_the_flag import (
  BACK,
  EAST,
  EVENTS,
  FORWARD,
  LEFT,
  NORTH,
  NOTHING,
  RIGHT,
  SOUTH,
  TAG,
  TURN_LEFT,
  TURN_RIGHT,
  WEST,
  Rules,
)
from dl_lectures.types import UsageError

BATCH = 64
RULES = Rules(size=9, length=24, compass=True, line_of_sight=True)
EVENT = {name: i for i, name in enumerate(EVENTS)}


@functools.cache
def compiled(rules: Rules) -> Any:
  """reset, step and observe of many games."""
  reset = functools.partial(ctf.reset, rules, random_start=0.7, carried=0.5)
  step = functools.partial(ctf.step, rules)
  observe = functools.partial(ctf.observe, rules)
  return tuple(jax.jit(jax.vmap(f)) for f in (reset, step, observe))


def drawn_parts(rng, agents, count=BATCH):
  """Actions in parts that walk and tag often: [count, A, 4]."""
  parts = [rng.choice(3, (count, agents), p=p) for p in _LIKELY[:3]]
  return np.stack([*parts, rng.random((count, agents)) < 0.3], -1).astype('i4')


_LIKELY = ((0.6, 0.2, 0.2), (0.6, 0.2, 0.2), (0.3, 0.5, 0.2))


def games(rules, seed, count=BATCH):
  """Steps of random play, some begun in the middle: before, action, after."""
  rng = np.random.default_rng(seed)
  reset, step, _ = compiled(rules)
  state = reset(jax.random.split(jax.random.key(seed), count))
  for _ in range(rules.length):
    action = drawn_parts(rng, rules.agents, count)
    after, events = step(state, action)
    yield jax.device_get((state, action, after, events))
    state = after


def one_of(tree, i):
  return jax.tree.map(lambda x: np.asarray(x)[i], tree)


# ------------------------------------------------------- an independent step


def plain_step(rules, state, action):
  """The rules once more, agent by agent, for one game."""
  size, n = rules.size, rules.players
  walls = state.world.walls.reshape(-1)
  ahead_of = {NORTH: -size, EAST: 1, SOUTH: size, WEST: -1}
  sign = (0, 1, -1)
  team = [i // n for i in range(2 * n)]
  plays = [state.out[i] == 0 for i in range(2 * n)]
  heading, place = list(state.heading), list(state.place)
  for i in range(2 * n):
    if plays[i]:
      heading[i] = (heading[i] + sign[action[i][0]]) % 4
  wanted = list(place)
  for i in range(2 * n):
    if plays[i]:
      wanted[i] += sign[action[i][2]] * ahead_of[heading[i]]
      wanted[i] += sign[action[i][1]] * ahead_of[(heading[i] + 1) % 4]
  for i in range(2 * n):
    others = [j for j in range(2 * n) if j != i]
    free = not walls[wanted[i]] and wanted[i] not in state.world.pad
    if wanted[i] == state.world.base[team[i]] and not state.carries[i]:
      free = free and wanted[i] == state.flag[1 - team[i]]
    free = free and all(wanted[i] != state.place[j] for j in others)
    free = free and all(wanted[i] != wanted[j] for j in others)
    if free:
      place[i] = wanted[i]

  events = np.zeros((2 * n, 13), np.uint8)
  cooldown = [max(c - 1, 0) for c in state.cooldown]
  tagged = set()
  for i in range(2 * n):
    if not (plays[i] and action[i][3] and state.cooldown[i] == 0):
      continue
    cooldown[i] = rules.tag_cooldown
    for k in range(1, rules.tag_range + 1):
      cell = place[i] + k * ahead_of[heading[i]]
      if walls[cell]:
        break
      met = [j for j in range(2 * n) if place[j] == cell]
      met = [j for j in met if team[j] != team[i] and plays[j]]
      if met:
        tagged |= set(met)
        what = 'carrier' if state.carries[met[0]] else 'nother'
        events[i, EVENT[f'i tagged a {what}'.replace('a n', 'an')]] = 1
        if state.carries[met[0]] and rules.instant_return:
          events[i, EVENT['i returned']] = 1
        break
  out = [max(o - 1, 0) for o in state.out]
  carries = [bool(c) for c in state.carries]
  flag, lies = list(state.flag), list(state.lies)
  for f in range(2):
    if lies[f] > 0:
      lies[f] -= 1
      if lies[f] == 0:
        flag[f] = state.world.base[f]
  for i in range(2 * n):
    if carries[i]:
      flag[1 - team[i]] = place[i]
    if i in tagged:
      what = 'with the flag' if carries[i] else 'without'
      events[i, EVENT[f'was tagged {what}']] = 1
      if carries[i]:
        lies[1 - team[i]] = rules.return_after
        if rules.instant_return:
          lies[1 - team[i]] = 0
          flag[1 - team[i]] = state.world.base[1 - team[i]]
      carries[i], out[i] = False, rules.respawn
      place[i], heading[i] = state.world.pad[i], (SOUTH, NORTH)[team[i]]
  present = [i for i in range(2 * n) if plays[i] and i not in tagged]
  for i in present:
    own = team[i]
    if lies[own] > 0 and place[i] == flag[own]:
      lies[own], flag[own] = 0, state.world.base[own]
      events[i, EVENT['i returned']] = 1
  for i in present:
    other = 1 - team[i]
    held = any(carries[j] for j in range(2 * n) if team[j] == team[i])
    if place[i] == flag[other] and not held:
      carries[i], lies[other] = True, 0
      events[i, EVENT['i picked up']] = 1
  score = list(state.score)
  for i in present:
    own = team[i]
    away = any(carries[j] for j in range(2 * n) if team[j] != own)
    there = carries[i] and place[i] == state.world.base[own]
    if there and lies[own] == 0 and not away:
      score[own] += 1
      carries[i] = False
      flag[1 - own] = state.world.base[1 - own]
      events[i, EVENT['i captured']] = 1
  for i in range(2 * n):
    for k, deed in enumerate(('captured', 'picked up', 'returned')):
      for j in range(2 * n):
        if events[j, k] and j != i:
          who = 'mate' if team[i] == team[j] else 'opponent'
          events[i, EVENT[f'{who} {deed}']] = 1
  return state._replace(
    place=place,
    heading=heading,
    out=out,
    cooldown=cooldown,
    carries=carries,
    flag=flag,
    lies=lies,
    score=score,
    time=state.time + 1,
  ), events


def plain_observe(rules, state, agent):
  """What one agent sees, cell by cell: sets of names."""
  size, n, v = rules.size, rules.players, rules.view
  own = agent // n
  down, along = {
    NORTH: (-1, 0), EAST: (0, 1), SOUTH: (1, 0), WEST: (0, -1),
  }[int(state.heading[agent])]  # fmt: skip
  row, column = divmod(int(state.place[agent]), size)
  seen = {}
  for a in range(-1, v - 1):
    for b in range(-(v // 2), v // 2 + 1):
      r = row + a * down + b * along
      c = column + a * along - b * down
      inside = 0 <= r < size and 0 <= c < size
      names = set()
      if not inside or state.world.walls[r, c]:
        names.add('wall')
      cell = r * size + c if inside else -1
      for j in range(2 * n):
        if state.place[j] == cell and state.out[j] == 0 and j != agent:
          names.add('mate' if j // n == own else 'opponent')
      for f in range(2):
        if state.flag[f] == cell:
          names.add('own flag' if f == own else 'their flag')
        if state.world.base[f] == cell:
          names.add('own base' if f == own else 'their base')
      seen[a, b] = names
  return seen


# ------------------------------------------------------------------ the rules

VARIANTS = [
  Rules(size=9, length=24),
  Rules(size=10, length=24, players=3, tag_cooldown=0, respawn=2),
  Rules(size=9, length=24, players=1, instant_return=True, return_after=3),
  Rules(size=9, length=24, instant_return=True, tag_range=3),
]


def assert_same(state, expected, events, expected_events):
  for name, value in state._asdict().items():
    theirs = getattr(expected, name)
    jax.tree.map(
      functools.partial(np.testing.assert_array_equal, err_msg=name),
      value,
      jax.tree.map(np.asarray, theirs) if name == 'world' else theirs,
    )
  np.testing.assert_array_equal(events, expected_events)


@pytest.mark.parametrize('rules', VARIANTS, ids=range(len(VARIANTS)))
def test_a_step_is_that_of_the_plain_rules(rules):
  happened = np.zeros(13, int)
  for before, action, after, events in games(rules, 0):
    for i in range(0, BATCH, 4):
      expected, told = plain_step(rules, one_of(before, i), action[i])
      assert_same(one_of(after, i), expected, events[i], told)
    happened += events.sum((0, 1), dtype=int)
  # All that can happen did, or the test says nothing.
  alone = rules.players == 1
  possible = [not (alone and 'mate' in name) for name in EVENTS]
  assert (happened[possible] > 0).all(), happened


@some.composite
def positions(draw, rules):
  """Any position that keeps the rules' promises, and an action."""
  key = jax.random.key(draw(some.integers(0, 3)))
  state = jax.device_get(_begun(rules, key))
  agents, n = rules.agents, rules.players
  pads = [int(p) for p in state.world.pad]
  walls = state.world.walls.reshape(-1)
  free = [c for c in np.flatnonzero(~walls) if c not in pads]
  # Close together, so that they meet.
  near = draw(some.integers(0, len(free) - 1))
  free = (free + free)[near : near + draw(some.integers(agents, 12))]
  cells = draw(some.permutations(free))
  timers = some.integers(0, 3)
  out = [draw(timers) if draw(some.booleans()) else 0 for _ in range(agents)]
  place = [pads[i] if out[i] else int(cells[i]) for i in range(agents)]
  carries = np.zeros(agents, bool)
  flag, lies = [int(b) for b in state.world.base], [0, 0]
  for f in range(2):
    what = draw(some.sampled_from(('home', 'carried', 'lies')))
    carrier = (1 - f) * n + draw(some.integers(0, n - 1))
    if what == 'carried' and not out[carrier]:
      carries[carrier] = True
      flag[f] = place[carrier]
    elif what == 'lies':
      flag[f] = int(draw(some.sampled_from(free)))
      lies[f] = 1 + draw(timers)
  numbers = some.lists(timers, min_size=agents, max_size=agents)
  state = state._replace(
    place=np.array(place, np.int32),
    heading=np.array(draw(numbers), np.int32),
    out=np.array(out, np.int32),
    cooldown=np.array(draw(numbers), np.int32) // 2,
    carries=carries,
    flag=np.array(flag, np.int32),
    lies=np.array(lies, np.int32),
  )
  parts = [[draw(some.integers(0, p - 1)) for p in ctf.PARTS] for _ in place]
  return state, np.array(parts, np.int32)


_begun = jax.jit(ctf.reset, static_argnums=0)
_step = jax.jit(ctf.step, static_argnums=0)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(positions(VARIANTS[0]))
def test_a_step_from_any_position_is_that_of_the_plain_rules(drawn):
  state, action = drawn
  after, events = jax.device_get(_step(VARIANTS[0], state, action))
  expected, told = plain_step(VARIANTS[0], state, action)
  assert_same(after, expected, events, told)


def test_flags_agents_and_events_are_kept():
  rules = VARIANTS[1]
  n, carried, lying, scored = rules.players, 0, 0, 0
  for before, _, after, events in games(rules, 1):
    flag, base = after.flag, after.world.base
    holders = after.carries.reshape(-1, 2, n)[:, ::-1]
    held, lies = holders.any(2), after.lies > 0
    # Each flag is home, or is carried by one who plays, or lies somewhere.
    assert (holders.sum(2) <= 1).all()
    assert not (held & lies).any()
    np.testing.assert_array_equal(flag[~held & ~lies], base[~held & ~lies])
    assert not (after.carries & (after.out > 0)).any()
    where = after.place.reshape(-1, 2, n)[:, ::-1]
    np.testing.assert_array_equal(flag[held], where[holders])
    carried, lying = carried + held.sum(), lying + lies.sum()
    # Nobody is in a wall or where another is.
    cells = np.sort(after.place, axis=1)
    assert (np.diff(cells) > 0).all()
    walls = after.world.walls.reshape(BATCH, -1)
    assert not np.take_along_axis(walls, after.place, 1).any()
    # Points are captures, and need the own flag home.
    mine = events[..., :3].reshape(BATCH, 2, n, 3)
    np.testing.assert_array_equal(
      after.score - before.score, mine[..., 0].sum(2)
    )
    scores = mine[..., 0].any(2)
    assert not (scores & (held | lies)).any()
    scored += scores.sum()
    # What one does is told to its mates, and to all opponents.
    team = mine.sum(2, keepdims=True)
    mates = events[..., 3:6].reshape(BATCH, 2, n, 3)
    foes = events[..., 6:9].reshape(BATCH, 2, n, 3)
    np.testing.assert_array_equal(mates, team - mine > 0)
    np.testing.assert_array_equal(foes, (team[:, ::-1] > 0) & (foes >= 0))
    tags, tagged = (
      events[..., k : k + 2].reshape(BATCH, 2, n, 2) for k in (9, 11)
    )
    np.testing.assert_array_equal(tags.any(2)[:, ::-1], tagged.any(2)[..., :])
    np.testing.assert_array_equal(
      tagged.any(3), (after.out == rules.respawn).reshape(BATCH, 2, n)
    )
    np.testing.assert_array_equal(after.time, before.time + 1)
  assert carried > 100
  assert lying > 20
  assert scored > 0


# ---------------------------------------------------------------- both teams


def exchanged(state):
  """The same positions, turned by 180 degrees, with the teams exchanged."""
  size = state.world.walls.shape[-1]
  n = state.place.shape[-1] // 2

  def cells(x):
    return size * size - 1 - x

  return state._replace(
    world=capture_maps.Map(
      state.world.walls[..., ::-1, ::-1],
      cells(state.world.base[..., ::-1]),
      cells(np.roll(state.world.pad, n, -1)),
    ),
    ground=_exchanged_bits(state.ground[..., ::-1]),
    place=cells(np.roll(state.place, n, -1)),
    heading=(np.roll(state.heading, n, -1) + 2) % 4,
    out=np.roll(state.out, n, -1),
    cooldown=np.roll(state.cooldown, n, -1),
    carries=np.roll(state.carries, n, -1),
    flag=cells(state.flag[..., ::-1]),
    lies=state.lies[..., ::-1],
    score=state.score[..., ::-1],
  )


def _exchanged_bits(bits):
  first = ((bits >> 5) & 1).astype(bool)
  second = ((bits >> 6) & 1).astype(bool)
  return ((bits & 1) | first << 6 | second << 5).astype(np.uint8)


@pytest.mark.parametrize('rules', [RULES, VARIANTS[1]], ids=('two', 'three'))
def test_turned_with_the_teams_exchanged_it_is_the_same_bit_for_bit(rules):
  _, step, observe = compiled(rules)
  n = rules.players
  for before, action, after, events in games(rules, 2):
    other, told = step(exchanged(before), np.roll(action, n, 1))
    jax.tree.map(np.testing.assert_array_equal, other, exchanged(after))
    np.testing.assert_array_equal(told, np.roll(events, n, 1))
    seen, turned = observe(after), observe(exchanged(after))
    for ours, theirs in zip(seen, turned, strict=True):
      assert ours.dtype == theirs.dtype
      np.testing.assert_array_equal(ours, np.roll(theirs, n, 1))


# ------------------------------------------------------------- what is seen


def test_a_view_is_what_is_round_the_agent():
  rules = Rules(size=9, length=12, view=5)
  observe = compiled(rules)[2]
  for _, _, after, _ in games(rules, 3, 16):
    view = observe(after).view
    assert view.dtype == jnp.uint8
    bits = np.asarray(ctf.planes(view), bool)
    for i in range(0, 16, 3):
      for agent in range(4):
        expected = plain_observe(rules, one_of(after, i), agent)
        for (a, b), names in expected.items():
          seen = bits[i, agent, rules.view - 2 - a, rules.view // 2 + b]
          assert {p for p, on in zip(ctf.PLANES, seen, strict=True) if on} == (
            names
          )


def test_what_walls_hide_is_not_seen():
  free, near = np.zeros((2, 9, 9), np.uint8)
  between = ctf._between(9)
  assert (between[free.reshape(-1) > 0] == 0).all()
  near[6, 4] = 1  # a wall right ahead of the eye, which is at (7, 4)
  hidden = (between @ near.reshape(-1) >= 1).reshape(9, 9)
  assert hidden[:6, 4].all()
  assert not hidden[6:].any()
  assert not hidden[5, [3, 5]].any()
  np.testing.assert_array_equal(hidden, hidden[:, ::-1])
  # A shadow widens by half a column on either side with each row; what the
  # edge of a wall touches is seen.
  assert hidden.sum(1).tolist() == [7, 5, 5, 3, 3, 1, 0, 0, 0]

  rules, clear = RULES, Rules(size=9, length=24, compass=True)
  state = compiled(rules)[0](jax.random.split(jax.random.key(5), BATCH))
  shadowed = np.asarray(compiled(rules)[2](state).view)
  full = np.asarray(compiled(clear)[2](state).view)
  unseen = shadowed == 128
  np.testing.assert_array_equal(shadowed[~unseen], full[~unseen])
  assert 0.1 < unseen.mean() < 0.9


def test_the_compass_points_from_the_own_heading():
  board = Board()
  # At the own pad, two rows above the middle of the field.
  assert board.state.heading.tolist() == [SOUTH, SOUTH, NORTH, NORTH]
  far = np.asarray(board.observe().scalars)[0, 9:].reshape(5, 4)
  # Looking south from (1, 3): the base is at (2, 4), its left and ahead.
  ahead = {'own base': (1, -1), 'their base': (5, -1), 'mate': (0, -2)}
  for name, way in ahead.items():
    told = far[ctf.COMPASS.index(name)]
    np.testing.assert_allclose(told[:2], np.array(way) / 5)
    np.testing.assert_array_equal(told[2:], np.sign(way))


def test_scalars_tell_what_is_known():
  board = Board()
  board.state = board.state._replace(
    carries=jnp.array([False, True, False, False]),
    cooldown=jnp.array([3, 0, 0, 0]),
    lies=jnp.array([5, 0]),
    out=jnp.array([0, 0, 4, 0]),
    score=jnp.array([3, 0]),
    time=jnp.int32(12),
  )
  rows = np.asarray(board.observe().scalars)[:, :9]
  assert rows.dtype == np.float32
  assert rows[0].tolist() == [0, 1, 1, 0, 0, 0, 1, 0.5, 1]
  assert rows[1].tolist() == [1, 1, 0, 0, 0, 0, 1, 0.5, 1]
  assert rows[2].tolist() == [0, 0, 0, 0, 1, 0, 0, 0.5, -1]


def test_pixels_are_the_view_in_colours():
  sprites = ctf.sprites(5)
  assert sprites.shape == (256, 5, 5, 3)
  view = jnp.uint8([[[1, 2], [4, 8]]])
  picture = np.asarray(ctf.pixels(view, 5))
  assert picture.shape == (1, 10, 10, 3)
  for row in (0, 1):
    for column in (0, 1):
      part = picture[0, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
      np.testing.assert_array_equal(part, sprites[view[0, row, column]])
  # All that can be told apart in the bits can be told apart in the picture.
  kinds = [0, 1, 2, 4, 8, 16, 32, 64, 128, 2 | 16, 4 | 8, 32 | 8, 64 | 16]
  assert len({sprites[kind].tobytes() for kind in kinds}) == len(kinds)


# ------------------------------------------------------------- rules by hand


def open_world(size):
  """A field without rocks, bases in the middle column."""
  walls = np.zeros((size, size), bool)
  walls[[0, -1]] = walls[:, [0, -1]] = True
  middle, last = size // 2, size * size - 1
  base = np.array([2 * size + middle])
  pad = np.array([size + middle - 1, size + middle + 1])
  walls.reshape(-1)[[size + middle, last - size - middle]] = True
  return capture_maps.Map(
    jnp.array(walls),
    jnp.int32(np.concatenate([base, last - base])),
    jnp.int32(np.concatenate([pad, last - pad])),
  )


BY_HAND = Rules(size=9, length=24, compass=True, respawn=2, return_after=3)


@functools.cache
def opening():
  begin = jax.jit(ctf.begin, static_argnums=0)
  return begin(BY_HAND, open_world(9), jax.random.key(0))


class Board:
  """One game on an open field of 9 x 9, moved by hand."""

  def __init__(self, rules=BY_HAND):
    self.rules = rules
    self.state = opening()

  def observe(self):
    return jax.jit(ctf.observe, static_argnums=0)(self.rules, self.state)

  def put(self, agent, row, column, heading):
    self.state = self.state._replace(
      place=self.state.place.at[agent].set(9 * row + column),
      heading=self.state.heading.at[agent].set(heading),
    )

  def play(self, *actions):
    actions = [*actions, *[NOTHING] * (4 - len(actions))]
    self.state, events = _step(
      self.rules, self.state, jnp.array(actions, jnp.int32)
    )
    return [
      {name for name, on in zip(EVENTS, row, strict=True) if on}
      for row in np.asarray(events)
    ]

  def at(self, agent):
    return divmod(int(self.state.place[agent]), 9)


def test_moves_are_made_from_the_own_heading():
  board = Board()
  for heading, (down, along) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
    ways = {
      FORWARD: (down, along),
      BACK: (-down, -along),
      RIGHT: (along, -down),
      LEFT: (-along, down),
    }
    for action, (by_row, by_column) in ways.items():
      board.put(0, 5, 5, heading)
      board.play(action)
      assert board.at(0) == (5 + by_row, 5 + by_column)
  board.put(0, 5, 5, NORTH)
  board.play(TURN_LEFT)
  assert int(board.state.heading[0]) == WEST
  board.play(TURN_RIGHT)
  assert int(board.state.heading[0]) == NORTH


def test_two_who_want_one_cell_both_stay_and_pads_are_never_entered():
  board = Board()
  board.put(0, 4, 3, EAST)
  board.put(2, 4, 5, WEST)
  board.play(FORWARD, NOTHING, FORWARD)
  assert (board.at(0), board.at(2)) == ((4, 3), (4, 5))
  # One stays, so the other may go, but not onto it.
  board.play(FORWARD)
  assert board.at(0) == (4, 4)
  board.play(FORWARD)
  assert board.at(0) == (4, 4)
  # From the cell under one's own pad.
  board.put(0, 2, 3, NORTH)
  board.play(FORWARD)
  assert board.at(0) == (2, 3)


def test_parts_are_done_in_one_step():
  board = Board()
  board.put(0, 4, 3, NORTH)
  board.put(2, 3, 6, NORTH)
  # Turn right, go ahead and to the left, and tag to the east.
  parts = jnp.zeros((4, 4), jnp.int32).at[0].set(jnp.array([1, 2, 1, 1]))
  board.state, events = _step(board.rules, board.state, parts)
  assert board.at(0) == (3, 4)
  assert int(board.state.heading[0]) == EAST
  assert events[0, EVENT['i tagged another']] == 1


def test_the_first_opponent_ahead_is_tagged_and_begins_again():
  board = Board()
  board.put(0, 4, 1, EAST)
  board.put(1, 4, 2, EAST)  # a mate in the way does not matter
  board.put(2, 4, 4, WEST)
  board.put(3, 4, 6, WEST)
  told = board.play(TAG)
  assert told[0] == {'i tagged another'}
  assert told[2] == {'was tagged without'}
  assert told[3] == set()
  assert board.at(2) == (7, 5)
  board.put(3, 4, 5, WEST)
  assert board.play(TAG)[0] == set()  # not yet again
  assert int(board.state.cooldown[0]) == 2
  assert int(board.state.out[2]) == 1
  # Still out, it does nothing; after that it plays.
  board.play(NOTHING, NOTHING, FORWARD)
  assert board.at(2) == (7, 5)
  board.play(NOTHING, NOTHING, FORWARD)
  assert board.at(2) == (6, 5)
  assert board.play(TAG)[0] == {'i tagged another'}


def test_too_far_or_behind_a_wall_nobody_is_tagged_and_two_can_tag_at_once():
  board = Board()
  board.put(0, 4, 1, EAST)
  board.put(2, 4, 7, WEST)
  assert board.play(TAG)[0] == set()
  board = Board()
  board.put(0, 4, 1, EAST)
  board.put(2, 4, 4, WEST)
  walls = board.state.ground.at[4 * 9 + 2].set(1)
  board.state = board.state._replace(ground=walls)
  assert board.play(TAG)[0] == set()
  board = Board()
  board.put(0, 4, 1, EAST)
  board.put(2, 4, 4, WEST)
  told = board.play(TAG, NOTHING, TAG)
  assert told[0] == told[2] == {'i tagged another', 'was tagged without'}


def carrying():
  """Agent 0 has taken the flag of team 1 and is one step from its base."""
  board = Board()
  board.put(0, 6, 3, EAST)
  told = board.play(FORWARD)
  assert told[0] == {'i picked up'}
  assert told[1] == {'mate picked up'}
  assert told[2] == told[3] == {'opponent picked up'}
  board.put(0, 3, 4, NORTH)
  return board


def test_a_flag_that_is_brought_home_is_a_point():
  board = carrying()
  told = board.play(FORWARD)
  assert told[0] == {'i captured'}
  assert told[1] == {'mate captured'}
  assert told[2] == told[3] == {'opponent captured'}
  assert board.state.score.tolist() == [1, 0]
  assert board.state.flag.tolist() == board.state.world.base.tolist()
  assert ctf.result(board.state).tolist() == [1, -1]


def test_no_point_while_the_own_flag_is_away():
  board = carrying()
  board.put(2, 2, 3, EAST)
  assert board.play(NOTHING, NOTHING, FORWARD)[2] == {'i picked up'}
  board.play(NOTHING, NOTHING, FORWARD)
  assert board.play(FORWARD)[0] == set()
  assert board.state.score.tolist() == [0, 0]
  # Its carrier is tagged two cells away; a mate touches it: now it counts.
  board.put(1, 2, 7, WEST)
  told = board.play(NOTHING, TAG)
  assert told[1] == {'i tagged a carrier'}
  assert told[2] == {'was tagged with the flag'}
  assert board.state.lies.tolist() == [3, 0]
  board.play(NOTHING, FORWARD)
  told = board.play(NOTHING, FORWARD)
  assert told[1] == {'i returned', 'mate captured'}
  assert told[0] == {'mate returned', 'i captured'}
  assert board.state.score.tolist() == [1, 0]


def test_a_dropped_flag_goes_home_after_a_time_or_at_once():
  at_once = dataclasses.replace(BY_HAND, instant_return=True)
  for rules in (BY_HAND, at_once):
    board = Board(rules)
    base = board.state.world.base.tolist()
    board.put(2, 2, 3, EAST)
    board.play(NOTHING, NOTHING, FORWARD)
    board.put(2, 4, 6, EAST)
    board.put(0, 4, 4, EAST)
    told = board.play(TAG)
    assert ('i returned' in told[0]) is rules.instant_return
    away = 0
    while board.state.flag.tolist() != base:
      assert int(board.state.flag[0]) == 4 * 9 + 6
      told = board.play()
      away += 1
    assert away == (0 if rules.instant_return else 3)


def test_random_starts_are_apart_and_only_on_demand():
  rules = Rules(size=9)
  keys = jax.random.split(jax.random.key(0), 512)
  reset = jax.jit(jax.vmap(functools.partial(ctf.reset, rules), (0, None)))
  plain, start = jax.device_get((reset(keys, 0.0), reset(keys, 0.5)))
  np.testing.assert_array_equal(plain.place, plain.world.pad)
  assert not plain.carries.any()
  moved = np.asarray(start.place != start.world.pad).all(1)
  assert 0.4 < moved.mean() < 0.6
  np.testing.assert_array_equal(start.place[~moved], start.world.pad[~moved])
  held = np.any(start.carries.reshape(512, 2, 2), axis=2)
  assert not held[~moved].any()
  assert 0.2 < held[moved].mean() < 0.4


# --------------------------------------------------------------- as a program


def test_a_game_is_compiled_once_and_is_as_long_as_it_says():
  rules = Rules(size=9, length=5)
  environment = ctf.game(rules)
  traced = []

  @jax.jit
  def step(state, action, key):
    traced.append(None)
    return environment.step(state, action, key)

  state, time_step = jax.jit(environment.reset)(jax.random.key(2))
  assert time_step.observation.view.shape == environment.observation_shape
  assert environment.num_actions == len(ctf.ACTIONS) == 8
  discounts = []
  for _ in range(rules.length):
    state, time_step = step(state, jnp.zeros(4, jnp.int32), jax.random.key(0))
    discounts.append(float(time_step.discount))
  assert discounts == [1, 1, 1, 1, 0]
  # What a step returns is of the types that it takes.
  assert len(traced) == 1
  assert not any(x.weak_type for x in jax.tree.leaves((state, time_step)))


@pytest.mark.slow  # Each operation is compiled on its own.
def test_compiled_it_plays_as_it_does_operation_by_operation():
  environment = ctf.game(RULES)
  state, _ = environment.reset(jax.random.key(2))
  step, eager = jax.jit(environment.step), state
  for action in drawn_parts(np.random.default_rng(0), 4, RULES.length):
    state, time_step = step(state, action, jax.random.key(0))
    eager, expected = environment.step(eager, action, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state, eager)
    # A division by a constant may be rounded in two ways.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(close, time_step, expected)


def test_the_reward_is_one_for_a_capture():
  board = carrying()
  step = jax.jit(ctf.game(board.rules).step)
  action = jnp.array([FORWARD, 0, 0, 0], jnp.int32)
  _, time_step = step(board.state, action, jax.random.key(0))
  assert time_step.reward.tolist() == [1, 1, -1, -1]


def test_a_position_can_be_read():
  board = carrying()
  lines = ctf.to_text(board.state).splitlines()
  assert lines[2] == '# . . . A . . . #'
  assert lines[3] == '# . . . ^ . . . #'
  assert lines[1] == '# . . . # v . . #'
  assert lines[-1] == 'step 1: 0 to 0'


@pytest.mark.parametrize(
  ('settings', 'told'),
  [
    ({'size': 8}, 'at least 9 x 9'),
    ({'players': 0}, 'teams of 0'),
    ({'view': 4}, 'a view of 4 x 4'),
    ({'length': 0}, 'length=0'),
    ({'respawn': 0}, 'respawn=0'),
    ({'tag_cooldown': -1}, 'tag_cooldown=-1'),
    ({'indoor': 1.5}, 'indoor=1.5'),
  ],
)
def test_what_cannot_be_is_told_in_one_line(settings, told):
  with pytest.raises(UsageError, match=told) as error:
    Rules(**settings)
  assert '\n' not in str(error.value)


def test_too_few_pixels_are_told():
  with pytest.raises(UsageError, match='2 pixels'):
    ctf.pixels(jnp.zeros((9, 9), jnp.uint8), 2)


def test_flat_observations_are_the_planes_and_scalars():
  state = ctf.reset(RULES, jax.random.key(0))
  seen = jax.jit(ctf.observe, static_argnums=0)(RULES, state)
  cells = RULES.view**2
  clear = dataclasses.replace(RULES, line_of_sight=False)
  for rules, planes in ((RULES, 8), (clear, 7)):
    found = ctf.flat(rules, seen)
    assert found.shape == (RULES.agents, cells * planes + 29)
    np.testing.assert_array_equal(found[:, cells * planes :], seen.scalars)
  assert ctf.is_alive(seen).all()
