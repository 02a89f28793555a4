"""Shogi against perft, pgx's rules, and positions made by hand."""

import pathlib
import re

import jax
import numpy as np
import pytest

from dl_lectures.envs import shogi, shogi_notation
from dl_lectures.types import UsageError

WIDTH = 32  # positions at a time, so that everything compiles once


@jax.jit
@jax.vmap
def play(state, action):
  after = shogi.step(state, action)
  return after, look(after)


def look(state):
  return (
    shogi.legal_mask(state),
    shogi.terminal(state),
    shogi.reward(state),
  )


look_all = jax.jit(jax.vmap(look))


def in_parts(function, *args):
  """Applies a function of WIDTH rows to any number of them, on the host."""
  count = len(jax.tree.leaves(args)[0])
  parts = []
  for first in range(0, count, WIDTH):
    rows = np.minimum(np.arange(first, first + WIDTH), count - 1)
    part = function(*jax.tree.map(lambda x, rows=rows: x[rows], args))
    here = min(WIDTH, count - first)
    parts.append(jax.tree.map(lambda x, n=here: np.asarray(x)[:n], part))
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def one(state):
  """A batch of one; on the host."""
  return jax.tree.map(lambda x: np.asarray(x)[None], state)


def legal(state):
  """The names of the legal moves, as the mover sees them."""
  mask = in_parts(look_all, one(state))[0][0]
  return {shogi.action_name(int(action)) for action in np.flatnonzero(mask)}


def after(state, *moves):
  """Plays USI moves, each of which must be legal."""
  for move in moves:
    action = shogi_notation.parse_usi(move, int(state.color))
    assert shogi.action_name(action) in legal(state), move
    state, _ = in_parts(play, one(state), np.array([action], np.int32))
    state = jax.tree.map(lambda x: x[0], state)
  return state


def perft(depth):
  states = one(shogi.init(jax.random.key(0)))
  mask = in_parts(look_all, states)[0]
  counts = []
  for left in range(depth, 0, -1):
    position, action = np.nonzero(mask)
    counts.append(len(action))
    if left > 1:
      parents = jax.tree.map(lambda x, p=position: x[p], states)
      states, (mask, _, _) = in_parts(play, parents, action.astype(np.int32))
  return counts


def test_perft():
  assert perft(3) == [30, 900, 25_470]


@pytest.mark.slow
def test_perft_deeper():
  states = one(shogi.init(jax.random.key(0)))
  count = jax.jit(jax.vmap(lambda s, a: play_count(s, a)))
  mask = in_parts(look_all, states)[0]
  for _ in range(2):
    position, action = np.nonzero(mask)
    parents = jax.tree.map(lambda x, p=position: x[p], states)
    states, (mask, _, _) = in_parts(play, parents, action.astype(np.int32))
  position, action = np.nonzero(mask)
  total = 0
  for first in range(0, len(action), 1024):
    rows = slice(first, first + 1024)
    parents = jax.tree.map(lambda x, r=rows: x[position[r]], states)
    total += int(in_parts(count, parents, action[rows].astype(np.int32)).sum())
  assert total == 719_731


def play_count(state, action):
  return shogi.legal_mask(shogi.step(state, action)).sum()


def in_pgx():
  """[11259] our actions as pgx's direction * 81 + target; -1 off the board."""
  pgx_direction = [0, 2, 4, 7, 5, 6, 3, 1, 8, 9]
  steps = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
  steps += [(-1, -1), (-2, -1), (-2, 1)]
  table = np.full((81, 139), -1)
  for origin in range(81):
    for plane in range(139):
      row, column = divmod(origin, 9)
      if plane >= 132:
        direction = 20 + plane - 132
      else:
        way, far = divmod(plane % 66, 8)
        if plane % 66 >= 64:
          way, far = 8 + plane % 66 - 64, 0
        row += (far + 1) * steps[way][0]
        column += (far + 1) * steps[way][1]
        direction = pgx_direction[way] + 10 * (plane >= 66)
      if 0 <= row < 9 and 0 <= column < 9:
        table[origin, plane] = direction * 81 + (8 - column) * 9 + row
  return table.reshape(-1)


def random_games_equal_pgx(count, plies, seed):
  """Plays both rules side by side; returns how many positions were live."""
  pgx = pytest.importorskip('pgx')
  with jax.numpy_rank_promotion('allow'):
    env = pgx.make('shogi')
    start = jax.jit(jax.vmap(env.init))
    theirs = start(jax.random.split(jax.random.key(0), count))

    @jax.jit
    @jax.vmap
    def play_theirs(state, action):
      # The rules alone: pgx's observation costs more than its move.
      state = env._step(state, action, None)
      return state, (state.legal_action_mask, state.terminated, state.rewards)

    table = in_pgx()
    rng = np.random.default_rng(seed)
    ours = jax.tree.map(
      lambda x: np.repeat(np.asarray(x)[None], count, 0),
      shogi.init(jax.random.key(0)),
    )
    mask = in_parts(look_all, ours)[0]
    black = np.asarray(theirs.current_player)  # pgx draws who begins
    live, compared = np.ones(count, bool), 0
    for _ in range(plies):
      choice = rng.random(mask.shape) * mask
      action = choice.argmax(axis=1).astype(np.int32)
      ours, (mask, over, reward) = in_parts(play, ours, action)
      theirs, (their_mask, their_over, their_reward) = play_theirs(
        theirs, np.maximum(table[action], 0).astype(np.int32)
      )
      # Repetitions and entering kings are unknown to pgx.
      shared = np.isin(ours.ending, (0, shogi.NO_MOVE))
      live &= shared
      mapped = np.zeros((count, 81 * 27), bool)
      game, move = np.nonzero(mask)
      assert (table[move] >= 0).all()
      mapped[game, table[move]] = True
      np.testing.assert_array_equal(mapped.sum(1), mask.sum(1))
      their_mask = np.array(their_mask)
      their_mask[np.asarray(their_over)] = False
      np.testing.assert_array_equal(mapped[live], their_mask[live])
      np.testing.assert_array_equal(over[live], np.asarray(their_over)[live])
      by_color = np.take_along_axis(
        np.asarray(their_reward), np.stack([black, 1 - black], 1), 1
      )
      np.testing.assert_array_equal(reward[live], by_color[live])
      compared += int(live.sum())
      live &= ~over
    return compared


# It compiles their rules for ten seconds; perft is what `make test` runs.
@pytest.mark.slow
def test_5000_positions_of_random_games_equal_pgx():
  assert random_games_equal_pgx(WIDTH, 250, seed=1) >= 5000


def at(sfen):
  return shogi_notation.from_sfen(sfen)


def of(piece, names):
  return {name for name in names if name.startswith(piece)}


@pytest.mark.parametrize(
  ('sfen', 'moves'),
  [
    # Double check by rook and bishop: nothing but the king, nor a drop.
    ('k8/9/9/9/b3r4/9/9/9/3GK4 b G 1', '5i4h 5i4i'),
    # A pinned silver moves on the pin's line alone, a pinned knight nowhere.
    ('k3r4/9/9/9/9/9/9/4S4/4K4 b - 1', '5h5g 5i4h 5i4i 5i6h 5i6i'),
    ('k8/9/9/9/b8/9/9/3S5/4K4 b - 1', '6h7g 5i4h 5i4i 5i5h 5i6i'),
    ('k3r4/9/9/9/9/9/9/4N4/4K4 b - 1', '5i4h 5i4i 5i6h 5i6i'),
    # A check: drop between, or step off the line.
    ('k8/9/9/9/9/9/4r4/9/4K4 b G 1', 'G*5h 5i4h 5i4i 5i6h 5i6i'),
    # A knight's check cannot be interposed.
    ('k8/9/9/9/9/9/3n5/9/4K4 b G 1', '5i4h 5i4i 5i5h 5i6h 5i6i'),
  ],
)
def test_checks_and_pins(sfen, moves):
  assert legal(at(sfen)) == set(moves.split())


def test_a_king_does_not_shield_what_is_behind_him():
  # In check along the rank: 4i is as bad as 6i.
  moves = legal(at('k8/9/9/9/9/9/9/9/r3K3L b P 1'))
  assert of('5i', moves) == {'5i4h', '5i5h', '5i6h'}
  assert of('P*', moves) == {'P*6i', 'P*7i', 'P*8i'}
  assert of('1i', moves) == set()
  # With a gold between there is no check, and the gold is pinned.
  moves = legal(at('k8/9/9/9/9/9/9/9/r2GK3L b - 1'))
  assert of('6i', moves) == {'6i7i'}
  assert of('5i', moves) == {'5i4h', '5i4i', '5i5h', '5i6h'}
  assert len(of('1i', moves)) == 7 + 3  # the last square only promoting


def test_two_pawns_and_dead_drops():
  moves = legal(at('4k4/9/9/9/9/9/4P4/9/4K4 b PLN 1'))
  # 78 empty squares; 8 of them on rank a, 9 on rank b.
  assert len(of('P*', moves)) == 8 * 8
  assert not [move for move in of('P*', moves) if move[2] == '5']
  assert len(of('L*', moves)) == 78 - 8
  assert len(of('N*', moves)) == 78 - 8 - 9
  assert 'P*5e' in legal(at('4k4/9/9/9/9/9/4+P4/9/4K4 b P 1'))


@pytest.mark.parametrize(
  ('square', 'piece', 'moves'),
  [
    ('5b', 'P', '5b5a+'),
    ('5d', 'P', '5d5c 5d5c+'),
    ('5e', 'P', '5e5d'),
    ('5d', 'L', '5d5c 5d5c+ 5d5b 5d5b+ 5d5a+'),
    ('5d', 'N', '5d4b+ 5d6b+'),
    ('5e', 'N', '5e4c 5e4c+ 5e6c 5e6c+'),
    ('5f', 'N', '5f4d 5f6d'),
    # Out of the zone it may still promote.
    (
      '5c',
      'S',
      '5c4b 5c5b 5c6b 5c4d 5c6d 5c4b+ 5c5b+ 5c6b+ 5c4d+ 5c6d+',
    ),
    ('5c', 'G', '5c4b 5c5b 5c6b 5c4c 5c6c 5c5d'),
    ('5c', '+S', '5c4b 5c5b 5c6b 5c4c 5c6c 5c5d'),
  ],
)
def test_promotion(square, piece, moves):
  rows = ['k8', *['9'] * 7, '8K']
  rows['abcdefghi'.index(square[1])] = f'4{piece}4'
  found = legal(at('/'.join(rows) + ' b - 1'))
  assert of(square, found) == set(moves.split())


@pytest.mark.parametrize(
  ('rows', 'mated'),
  [
    ('7lk/9/7G1', True),
    ('7gk/9/7G1', False),  # the gold takes the pawn
    ('4R2gk/9/7G1', True),  # but not when it is pinned
    ('7lk/9/9', False),  # the king takes it
    ('8k/9/7G1', False),  # the king goes to 2a
    ('6nlk/9/7G1', True),
    ('7lk/9/6nG1', True),  # White's knight jumps the other way
    ('7lk/7r1/6G1N', False),  # the rook takes it
    # The pawn stands between the rook and 4b.
    ('3lkl3/R8/9', False),
    ('3lkl3/R8/5G3', True),
  ],
)
def test_mate_by_a_dropped_pawn(rows, mated):
  drop = 'P*5b' if 'lkl' in rows else 'P*1b'
  state = at(f'{rows}/9/9/9/9/9/4K4 b PL 1')
  moves = legal(state)
  assert (drop in moves) != mated
  assert 'P*9e' in moves
  if mated:  # a lance there mates, and may
    after_lance = after(state, drop.replace('P', 'L'))
    assert int(after_lance.ending) == shogi.NO_MOVE


def test_mate_by_a_moved_pawn():
  state = after(at('7lk/9/7GP/9/9/9/9/9/4K4 b - 1'), '1c1b')
  assert int(state.ending) == shogi.NO_MOVE
  np.testing.assert_array_equal(shogi.reward(state), [1, -1])
  assert legal(state) == set()


def test_crowded_positions():
  # The most moves any position has, and a middle game.
  most = at('R8/2K1S1SSk/4B4/9/9/9/9/9/1L1L1L3 b RBGSNLP3g3n17p 1')
  assert len(legal(most)) == 593
  middle = at(MIDDLE)
  assert len(legal(middle)) == 207
  mask = in_parts(look_all, one(middle))[0][0]
  action = np.flatnonzero(mask).astype(np.int32)
  parents = jax.tree.map(lambda x: np.repeat(x, len(action), 0), one(middle))
  assert in_parts(play, parents, action)[1][0].sum() == 28_684


MIDDLE = 'l6nl/5+P1gk/2np1S3/p1p4Pp/3P2Sp1/1PPb2P1P/P5GS1/R8/LN4bKL w RGgsn5p 1'


def test_who_cannot_move_loses():
  state = at('k8/9/1GN6/9/9/9/9/9/4K4 w - 2')
  assert not bool(jax.jit(shogi.in_check)(state))
  assert int(state.ending) == shogi.NO_MOVE
  np.testing.assert_array_equal(shogi.reward(state), [1, -1])


def test_fourth_occurrence_is_a_draw():
  state = at(shogi_notation.START)
  loop = ('4i4h', '4a4b', '4h4i', '4b4a')
  for times in range(3):
    assert int(state.repetitions) == times
    assert int(state.ending) == 0
    state = after(state, *loop)
  assert int(state.repetitions) == 3
  assert int(state.ending) == shogi.REPEATED
  np.testing.assert_array_equal(shogi.reward(state), [0, 0])
  assert legal(state) == set()
  # A finished game stays as it is.
  again, _ = in_parts(play, one(state), np.zeros(1, np.int32))
  for old, new in zip(one(state), again, strict=True):
    np.testing.assert_array_equal(old, new)


def test_hands_and_mover_belong_to_a_position():
  # The same board with another hand, and the board turned round with the
  # other to move, are other positions.
  state = at('4k4/9/9/9/9/9/9/9/4K4 b 2P2p 1')
  state = after(state, '5i5h', '5a5b')  # looks alike for its mover
  assert int(state.repetitions) == 0
  state = after(state, '5h5i', '5b5a')
  assert int(state.repetitions) == 1
  state = after(state, 'P*9e', 'P*1e', '9e9d', '1e1f')
  assert int(state.repetitions) == 0


CHECKING = '4k4/9/9/9/9/9/9/9/K4R3 b - 1'


@pytest.mark.parametrize(
  ('sfen', 'loop', 'ending', 'reward'),
  [
    (CHECKING, '4i5i 5a4a 5i4i 4a5a', shogi.MOVER_CHECKED, [-1, 1]),
    (
      '4k4/9/9/9/9/9/9/9/K3R4 w - 2',
      '5a4a 5i4i 4a5a 4i5i',
      shogi.OTHER_CHECKED,
      [-1, 1],
    ),
    # One quiet move in the loop, and it is a draw.
    (
      CHECKING,
      '4i5i 5a4a 5i6i 4a5a 6i5i 5a4a 5i4i 4a5a',
      shogi.REPEATED,
      [0, 0],
    ),
  ],
)
def test_perpetual_check_loses(sfen, loop, ending, reward):
  state = at(sfen)
  moves = loop.split() * 3
  while int(state.ending) == 0:
    state = after(state, moves.pop(0))
  assert int(state.repetitions) == 3
  assert int(state.ending) == ending
  np.testing.assert_array_equal(shogi.reward(state), reward)


def turned(sfen):
  """The same position with the colours exchanged."""
  board, mover, hands, number = sfen.split()
  other = 'w' if mover == 'b' else 'b'
  rows = [re.findall(r'\+?.', row)[::-1] for row in board.split('/')]
  board = '/'.join(''.join(row) for row in rows[::-1])
  return f'{board.swapcase()} {other} {hands.swapcase()} {number}'


@pytest.mark.parametrize(
  ('sfen', 'black', 'white'),
  [
    # In the zone R, B and 8 small ones are 18 points; R and B in hand 10.
    ('R1B1K4/GGGG1SSSS/9/9/9/9/9/9/4k4 b RB 1', True, True),
    ('R1B1K4/GGGG1SSSS/9/9/9/9/9/9/4k4 b R4P 1', False, True),  # 27
    ('R1B1K4/GGGG1SSSS/9/9/9/9/9/9/4k4 b R3P 1', False, False),  # 26
    ('R1B1K4/GGGG1SSS1/8S/9/9/9/9/9/4k4 b RB 1', True, True),
    ('R1B1K4/GGGG1SSS1/9/8S/9/9/9/9/4k4 b RB6P 1', False, False),  # 9
    ('R1B6/GGGG1SSSS/9/4K4/9/9/9/9/4k4 b RB 1', False, False),
    ('R1B1K4/GGGG1SSSS/9/9/9/9/9/4r4/4k4 b B9P 1', False, False),  # check
    ('R3K4/GGGG1SSSS/1+B7/9/9/9/9/9/4k4 b RB 1', True, True),
  ],
)
def test_entering_king(sfen, black, white):
  assert (int(at(sfen).ending) == shogi.DECLARED) == black
  other = at(turned(sfen))
  assert (int(other.ending) == shogi.DECLARED) == white
  if white:
    np.testing.assert_array_equal(shogi.reward(other), [-1, 1])


def test_512_plies_are_a_draw():
  state = after(at(shogi_notation.START[:-1] + '511'), '7g7f')
  assert int(state.ending) == 0
  state = after(state, '3c3d')
  assert int(state.ply) == shogi.MAX_PLIES
  assert int(state.ending) == shogi.TOO_LONG
  np.testing.assert_array_equal(shogi.reward(state), [0, 0])


def planes_of(states):
  """The observation of the last state, from the boards as people see them."""
  now, planes = states[-1], []
  color = int(now.color)
  own = [x.lower() if color else x for x in 'PLNSBRGK']
  own += [f'+{x}' for x in own[:6]]
  most = np.array([18, 4, 4, 4, 2, 2, 4])
  for state in [*reversed(states[-8:]), *[None] * 8][:8]:
    if state is None:
      planes += [np.zeros((9, 9))] * 45
      continue
    cells = shogi.squares(state)
    cells = cells[::-1, ::-1] if color else cells
    for pieces in (own, [x.swapcase() for x in own]):
      planes += [cells == piece for piece in pieces]
    scalars = [int(state.repetitions) >= times for times in (1, 2, 3)]
    hands = shogi.hand_counts(state) / most
    scalars += [*hands[color], *hands[1 - color]]
    planes += [np.full((9, 9), x) for x in scalars]
  planes += [np.full((9, 9), x) for x in (color, int(now.ply) / 512)]
  return np.stack(planes, axis=-1)


def test_observation_is_the_last_eight_boards():
  observe = jax.jit(jax.vmap(shogi.observe))
  rng = np.random.default_rng(3)
  for sfen, moves in (
    (MIDDLE, None),
    (shogi_notation.START, '4i4h 4a4b 4h4i 4b4a ' * 2 + '2g2f 4a4b'),
  ):
    states = [at(sfen)]
    mask = in_parts(look_all, one(states[0]))[0]
    moves = None if moves is None else moves.split()
    for ply in range(20 if moves is None else len(moves)):
      if moves is None:
        action = rng.choice(np.flatnonzero(mask[0]))
      else:
        action = shogi_notation.parse_usi(moves[ply], int(states[-1].color))
      batch, (mask, _, _) = in_parts(
        play, one(states[-1]), np.array([action], np.int32)
      )
      states.append(jax.tree.map(lambda x: x[0], batch))
      expected = planes_of(states)
      seen = np.asarray(observe(batch))[0]
      np.testing.assert_allclose(seen, expected, atol=1e-7)
  history = expected[..., :-2].reshape(81, 8, 45)
  assert history[:, :, 28:31].any()  # repetitions were among them


def test_a_state_is_small():
  state = shogi.init(jax.random.key(0))
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  assert size == 632
  assert 20 * size <= 14_463  # pgx's, of version 2.6.0


def test_names_of_actions_return():
  off = 0
  for action in range(shogi.GAME.num_actions):
    name = shogi.action_name(action)
    off += name.startswith('off')
    assert shogi.parse_action(name) == action
  # Ways along a line of k squares: k (k - 1) / 2 in each direction.
  lines = ([9] * 9, [*range(1, 10), *range(1, 9)])
  straight, diagonal = (sum(k * (k - 1) // 2 for k in line) for line in lines)
  moves = 2 * (4 * straight + 4 * diagonal + 2 * 8 * 7) + 7 * 81
  assert off == shogi.GAME.num_actions - moves
  for text in ('', '7g', '7g7fx', '0a1b', '5i3f', 'K*5e', 'P*5e+', '7g7g'):
    with pytest.raises(UsageError, match='is not a move; possible'):
      shogi.parse_action(text)


def test_moves_by_name_and_board_as_text():
  state = shogi.from_moves('7g7f 7g7f 8h2b+')
  lines = shogi.render(state).split('\n')
  assert lines[2] == '  .  r  .  .  .  .  . +B* .  b'
  assert lines[-2:] == ['in hand: Black B, White -', 'White to move']
  with pytest.raises(UsageError, match='move 2, 2b3c: illegal here'):
    shogi.from_moves('7g7f 2b3c')
  lost = at('k8/9/1GN6/9/9/9/9/9/4K4 w - 2')
  last = shogi.render(lost).split('\n')[-1]
  assert last == 'Black wins: White has no legal move'


RECORDS = pathlib.Path(__file__).parents[2].parent / 'shared/data/shogi/wcsc28'


def replay(files):
  """Plays recorded games side by side, each to its end."""
  records = [shogi_notation.read_csa(file.read_text('utf-8')) for file in files]
  start = shogi.init(jax.random.key(0))
  for first in range(0, len(records), WIDTH):
    some = records[first : first + WIDTH]
    states = jax.tree.map(
      lambda x: np.repeat(np.asarray(x)[None], WIDTH, 0), start
    )
    mask, _, _ = look_all(states)
    for ply in range(max(len(record.moves) for record in some)):
      actions = np.zeros(WIDTH, np.int32)
      going = np.zeros(WIDTH, bool)
      for game, record in enumerate(some):
        if ply < len(record.moves):
          going[game] = True
          actions[game] = shogi_notation.parse_usi(record.moves[ply], ply % 2)
      legal_now = np.asarray(mask)[np.arange(WIDTH), actions]
      assert legal_now[going].all(), (ply, np.flatnonzero(~legal_now & going))
      played, (mask, _, _) = play(states, actions)
      states = jax.tree.map(
        lambda new, old, g=going: np.where(
          g.reshape(-1, *(1,) * (old.ndim - 1)), new, old
        ),
        played,
        states,
      )
    for record, ending in zip(some, states.ending, strict=False):
      expected = {
        'SENNICHITE': (shogi.REPEATED,),
        'KACHI': (shogi.DECLARED,),
      }.get(record.end, (0, shogi.NO_MOVE))
      assert ending in expected, record
  return records


def recorded():
  if not RECORDS.is_dir():
    pytest.skip(f'no recorded games: {RECORDS} is absent')
  return sorted(RECORDS.glob('*.csa'))


def test_recorded_games_are_legal_and_end_as_recorded():
  files = [
    file
    for file in recorded()
    if re.search('%(SENNICHITE|KACHI)', file.read_text('utf-8'))
  ]
  assert len(files) == 8
  replay(files)


@pytest.mark.slow
def test_all_recorded_games_are_legal_and_end_as_recorded():
  records = replay(recorded())
  assert len(records) == 262
  assert sum(record.end == 'TORYO' for record in records) == 228
