"""Connect Four against two independent sets of rules, and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import connect_four, games
from dl_lectures.types import UsageError

GAME = connect_four.GAME
NUM_GAMES = 10_000


def rows_of_four():
  """[69, 4] cells (row * 7 + column): every row of four there is."""
  rows = []
  for row in range(6):
    for column in range(7):
      for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        cells = [(row + i * down, column + i * right) for i in range(4)]
        if all(0 <= r < 6 and 0 <= c < 7 for r, c in cells):
          rows.append([7 * r + c for r, c in cells])
  return np.array(rows)


ROWS_OF_FOUR = rows_of_four()


class Boards:
  """Many boards of slow, plain rules: an array of cells, 1 and -1 the stones.

  The independent oracle; row 0 is the top.
  """

  def __init__(self, count):
    self.cells = np.zeros((count, 6, 7), np.int8)
    self.over = np.zeros(count, bool)
    self.result = np.zeros(count, int)  # for the first player
    self.rows_seen = np.zeros(69, int)

  def legal(self):
    return (self.cells[:, 0] == 0) & ~self.over[:, None]

  def play(self, columns, stone):
    for board in np.flatnonzero(~self.over):
      column = self.cells[board, :, columns[board]]
      column[np.flatnonzero(column == 0)[-1]] = stone
    four = self.cells.reshape(-1, 42)[:, ROWS_OF_FOUR] == stone
    complete = four.all(axis=-1) & ~self.over[:, None]
    self.rows_seen += complete.sum(axis=0)
    won = complete.any(axis=-1)
    self.result[won] = stone
    self.over |= won | (self.cells[:, 0] != 0).all(axis=-1)


def ply_of_all(game):
  @functools.partial(jax.vmap, in_axes=(0, 0))
  def play(state, choice):
    legal = game.legal_mask(state)
    nth = choice % jnp.maximum(legal.sum(), 1) + 1
    action = jnp.argmax(jnp.cumsum(legal) == nth)
    after = game.step(state, action)
    seen = (
      game.legal_mask(after),
      game.terminal(after),
      game.reward(after),
      game.to_play(after),
      game.observe(after).astype(bool),
    )
    return after, (action.astype(jnp.int8), seen)

  return play


@pytest.fixture(scope='module')
def played():
  """What our rules say of 10,000 random games, each to its 42nd ply."""

  @jax.jit
  def play_all(choices):
    start = jax.vmap(GAME.init)(jax.random.split(jax.random.key(0), NUM_GAMES))
    return jax.lax.scan(ply_of_all(GAME), start, choices)[1]

  choices = jax.random.randint(
    jax.random.key(1), (42, NUM_GAMES), 0, 420, jnp.int32
  )
  return choices, jax.device_get(play_all(choices))


def test_10000_random_games_equal_pgx(played):
  choices, (actions, ours) = played
  pgx_game = games.make('pgx_connect_four')

  @jax.jit
  def play_all(choices):
    keys = jax.random.split(jax.random.key(0), NUM_GAMES)
    return jax.lax.scan(
      ply_of_all(pgx_game), jax.vmap(pgx_game.init)(keys), choices
    )[1]

  their_actions, theirs = jax.device_get(play_all(choices))
  np.testing.assert_array_equal(actions, their_actions)
  names = ('legal mask', 'terminal', 'reward', 'to play', 'observation')
  for name, mine, other in zip(names, ours, theirs, strict=True):
    np.testing.assert_array_equal(mine, other, err_msg=name)
  assert ours[1][-1].all()


def test_10000_random_games_equal_plain_rules(played):
  _, (actions, (legal, over, reward, _, observation)) = played
  boards = Boards(NUM_GAMES)
  for ply in range(42):
    live = ~boards.over
    assert boards.legal()[live, actions[ply][live]].all()
    boards.play(actions[ply], 1 if ply % 2 == 0 else -1)
    np.testing.assert_array_equal(legal[ply], boards.legal())
    np.testing.assert_array_equal(over[ply], boards.over)
    np.testing.assert_array_equal(reward[ply, :, 0], boards.result)
    np.testing.assert_array_equal(reward[ply, :, 1], -boards.result)
    mover = -1 if ply % 2 == 0 else 1
    np.testing.assert_array_equal(
      observation[ply][live],
      np.stack([boards.cells == mover, boards.cells == -mover], -1)[live],
    )
  assert boards.rows_seen.min() > 0  # every row of four ended some game
  assert (boards.result == 0).sum() > 10  # and some were drawn


def test_every_row_of_four_wins_and_nothing_else():
  """Crowded boards too: no row runs over an edge or is lost between words."""

  @jax.jit
  @jax.vmap
  def wins(low, high):
    return connect_four._has_four(low, high)

  def words(cells):
    bits = [0, 0]
    for cell in cells:
      row, column = divmod(int(cell), 7)
      bits[column // 4] |= 1 << (column % 4 * 7 + 5 - row)
    return bits

  fours = np.array([words(row) for row in ROWS_OF_FOUR], np.uint32)
  assert np.asarray(wins(fours[:, 0], fours[:, 1])).all()
  rng = np.random.default_rng(0)
  sets = rng.permuted(np.tile(np.arange(42), (20_000, 1)), axis=1)[:, :12]
  expected = np.zeros((20_000, 42), bool)
  np.put_along_axis(expected, sets, True, axis=1)
  expected = expected[:, ROWS_OF_FOUR].all(axis=-1).any(axis=-1)
  assert 0.1 < expected.mean() < 0.9
  some = np.array([words(cells) for cells in sets], np.uint32)
  np.testing.assert_array_equal(wins(some[:, 0], some[:, 1]), expected)


def test_positions_and_lines_of_play_by_plain_rules():
  """The counts that games_test asks of our rules, from the oracle."""
  boards, ways = Boards(1), np.ones(1, np.int64)
  perft, distinct = [1], [1]
  for ply in range(7):
    board, column = np.nonzero(boards.legal())
    after = Boards(len(board))
    after.cells = boards.cells[board]
    after.play(column, 1 if ply % 2 == 0 else -1)
    keys = np.ascontiguousarray(after.cells.reshape(-1, 42))
    keys = keys.view(np.dtype((np.void, 42)))[:, 0]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    boards = Boards(len(first))
    boards.cells, boards.over = after.cells[first], after.over[first]
    merged = np.zeros(len(first), np.int64)
    np.add.at(merged, which, ways[board])
    ways = merged
    perft.append(int(ways.sum()))
    distinct.append(len(ways))
  perft.append(int((ways * boards.legal().sum(axis=-1)).sum()))
  assert perft == [1, 7, 49, 343, 2401, 16807, 117649, 823536, 5673234]
  assert distinct == [1, 7, 49, 238, 1120, 4263, 16422, 54859]


def test_observation_has_the_top_row_first():
  state = connect_four.from_moves('4457')
  expected = np.zeros((6, 7, 2))
  # X: 4 and 5, O: 4 (on top) and 7; X is to move.
  expected[5, 3, 0] = expected[5, 4, 0] = 1
  expected[4, 3, 1] = expected[5, 6, 1] = 1
  np.testing.assert_array_equal(connect_four.observe(state), expected)
  np.testing.assert_array_equal(
    connect_four.MIRROR.observation(connect_four.observe(state)),
    connect_four.observe(connect_four.from_moves('4431')),
  )


@pytest.mark.parametrize(
  ('moves', 'reward', 'last_line'),
  [
    ('1212121', [1, -1], 'X wins'),  # a column
    ('1122334', [1, -1], 'X wins'),  # a row
    ('71122334', [-1, 1], 'O wins'),
    ('12233434474', [1, -1], 'X wins'),  # upwards to the right
    ('76655454414', [1, -1], 'X wins'),  # upwards to the left
    ('4455667', [1, -1], 'X wins'),  # a row across both words
    ('', [0, 0], 'X to move'),
    ('4', [0, 0], 'O to move'),
    ('123456', [0, 0], 'X to move'),
  ],
)
def test_results(moves, reward, last_line):
  state = connect_four.from_moves(moves)
  np.testing.assert_array_equal(connect_four.reward(state), reward)
  assert bool(connect_four.terminal(state)) == last_line.endswith('wins')
  assert connect_four.render(state).split('\n')[-1] == last_line


@pytest.mark.parametrize(
  ('moves', 'message'),
  [
    ('44x', "move 3: 'x' is not a column; possible: 1 to 7"),
    ('448', "move 3: '8' is not a column; possible: 1 to 7"),
    ('4444444', 'move 7, 4: illegal here; possible: 1, 2, 3, 5, 6, 7'),
    ('12121213', 'move 8, 3: the game was over after move 7'),
    ('4' * 60, 'move 7, 4: illegal here; possible: 1, 2, 3, 5, 6, 7'),
  ],
)
def test_from_moves_tells_what_is_wrong(moves, message):
  with pytest.raises(UsageError) as error:
    connect_four.from_moves(moves)
  assert str(error.value) == message


def test_render_marks_the_last_stone_in_either_corner():
  assert connect_four.render(connect_four.from_moves('17')).split('\n') == [
    ' 1 2 3 4 5 6 7',
    ' . . . . . . .',
    ' . . . . . . .',
    ' . . . . . . .',
    ' . . . . . . .',
    ' . . . . . . .',
    ' X . . . . .[O]',
    'X to move',
  ]
  line = connect_four.render(connect_four.from_moves('171')).split('\n')[5]
  assert line == '[X]. . . . . .'


@pytest.mark.parametrize('action', [-1, 3, 7, 100])
def test_an_illegal_action_changes_nothing(action):
  state = connect_four.from_moves('444444')  # column 4 is full
  after = connect_four.step(state, jnp.int32(action))
  for before, now in zip(state, after, strict=True):
    np.testing.assert_array_equal(before, now)
