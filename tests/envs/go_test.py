"""Go against pgx, against plain Python rules, and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import games, go, go_notation
from dl_lectures.types import UsageError

# White has just taken a stone in a ko.
KO = ('B4', 'C4', 'A3', 'D3', 'B2', 'C2', 'C3', 'B3')


class PlainGo:
  """Slow, plain rules: the independent oracle.

  A board is a tuple of 1 (Black), -1 (White) and 0; row 0 is the top.
  """

  def __init__(self, size, superko='positional', komi=0.5, max_plies=10_000):
    self.size, self.superko, self.komi = size, superko, komi
    self.max_plies = max_plies
    self.board = (0,) * size**2
    self.mover, self.passes, self.ply = 1, 0, 0
    self.past = {self.key(self.board, 1)}
    self.boards = [self.board]

  def copy(self):
    other = object.__new__(PlainGo)
    other.__dict__ = {**self.__dict__, 'past': set(self.past)}
    other.boards = list(self.boards)
    return other

  def key(self, board, to_play):
    return (board, to_play) if self.superko == 'situational' else board

  def near(self, cell):
    row, column = divmod(cell, self.size)
    for r, c in (
      (row - 1, column),
      (row + 1, column),
      (row, column - 1),
      (row, column + 1),
    ):
      if 0 <= r < self.size and 0 <= c < self.size:
        yield r * self.size + c

  def region(self, board, cell):
    """The cells joined to this one by cells of its kind, and their border."""
    seen, border, todo = {cell}, set(), [cell]
    while todo:
      for other in self.near(todo.pop()):
        if board[other] != board[cell]:
          border.add(other)
        elif other not in seen:
          seen.add(other)
          todo.append(other)
    return seen, border

  def breathes(self, board, cell):
    return any(board[x] == 0 for x in self.region(board, cell)[1])

  def after(self, cell):
    """The board after the mover's stone, None if that is illegal."""
    if self.board[cell]:
      return None
    board = list(self.board)
    board[cell] = self.mover
    for other in self.near(cell):
      if board[other] == -self.mover and not self.breathes(board, other):
        for stone in self.region(board, other)[0]:
          board[stone] = 0
    if not self.breathes(board, cell):
      return None
    board = tuple(board)
    return None if self.key(board, -self.mover) in self.past else board

  @property
  def over(self):
    return self.passes >= 2 or self.ply >= self.max_plies

  def legal(self):
    cells = range(self.size**2)
    if self.over:
      return [False] * (self.size**2 + 1)
    return [self.after(cell) is not None for cell in cells] + [True]

  def play(self, action):
    if action == self.size**2:
      self.passes += 1
    else:
      self.passes = 0
      self.board = self.after(action)
    self.mover = -self.mover
    self.ply += 1
    self.past.add(self.key(self.board, self.mover))
    self.boards.append(self.board)

  def margin(self):
    total = sum(self.board)
    cells = {x for x, stone in enumerate(self.board) if stone == 0}
    while cells:
      region, border = self.region(self.board, min(cells))
      colours = {self.board[x] for x in border}
      if len(colours) == 1:
        total += colours.pop() * len(region)
      cells -= region
    return total

  def result(self):
    return np.sign(self.margin() - self.komi) if self.over else 0

  def planes(self):
    """AlphaGo Zero's planes, [S, S, 17]."""
    boards = [(0,) * self.size**2] * 8 + self.boards
    planes = []
    for board in boards[:-9:-1]:
      planes += [np.equal(board, self.mover), np.equal(board, -self.mover)]
    planes.append(np.full(self.size**2, self.mover == 1))
    return np.stack(planes, -1).reshape(self.size, self.size, 17)


# What the rules say, and plain Python beside it.


def told(game, state):
  return (
    game.legal_mask(state),
    game.terminal(state),
    game.reward(state),
    game.observe(state).astype(bool),
  )


@functools.partial(jax.jit, static_argnums=0)
def children(game, states):
  """Steps every state by every action; what is told of each."""

  def expand(state):
    after = jax.vmap(lambda action: game.step(state, action))(
      jnp.arange(game.num_actions)
    )
    return after, jax.vmap(lambda child: told(game, child))(after)

  return jax.vmap(expand)(states)


def in_chunks(game, states, chunk=512):
  """Yields (start, `children` of that chunk), all chunks of one shape."""
  count = len(jax.tree.leaves(states)[0])
  for start in range(0, count, chunk):
    index = np.minimum(np.arange(start, start + chunk), count - 1)
    part = jax.tree.map(lambda x, i=index: x[i], states)
    yield start, jax.device_get(children(game, part))


def check_every_line(size, superko, depth, max_plies):
  """Compares all lines of play to a depth with the oracle; their number."""
  game = go.make(size, komi=0.5, superko=superko, max_plies=max_plies)
  boards = [PlainGo(size, superko, 0.5, max_plies)]
  states = jax.tree.map(lambda x: x[None], game.init(jax.random.key(0)))
  states, lines = jax.device_get(states), 0
  for _ in range(depth):
    live, later_boards = [], []
    for start, (after, (legal, over, reward, planes)) in in_chunks(
      game, states
    ):
      rows, columns = [], []
      for row, board in enumerate(boards[start : start + len(legal)]):
        for action in np.flatnonzero(board.legal()):
          child = board.copy()
          child.play(int(action))
          lines += 1
          assert legal[row, action].tolist() == child.legal()
          assert over[row, action] == child.over
          result = child.result()
          assert reward[row, action].tolist() == [result, -result]
          if not child.over:
            assert (planes[row, action] == child.planes()).all()
            later_boards.append(child)
            rows.append(row)
            columns.append(action)
      live.append(jax.tree.map(lambda x, r=rows, c=columns: x[r, c], after))
    boards = later_boards
    states = jax.tree.map(lambda *parts: np.concatenate(parts), *live)
    if not boards:
      break
  return lines


def test_every_game_on_2x2_to_the_eighth_ply_equals_plain_rules():
  assert check_every_line(2, 'positional', 8, 8) == 4442


def test_every_line_on_3x3_to_the_fourth_ply_equals_plain_rules():
  assert check_every_line(3, 'positional', 3, 18) == 839


def random_action(game, state, key):
  """Any legal action, but seldom a pass, so that games are long."""
  logits = jnp.zeros(game.num_actions).at[-1].set(-4)
  legal = game.legal_mask(state)
  return jax.random.categorical(key, jnp.where(legal, logits, -1e9))


@functools.partial(jax.jit, static_argnums=0)
def random_games(game, key, lanes):
  """Plays at random; the actions and what was told after each, [L, P]."""

  def ply(state, key):
    action = random_action(game, state, key)
    after = game.step(state, action)
    return after, (action, told(game, after))

  def play(key):
    keys = jax.random.split(key, game.max_plies)
    return jax.lax.scan(ply, game.init(key), keys)[1]

  return jax.vmap(play)(jax.random.split(key, len(lanes)))


@pytest.mark.parametrize(
  ('size', 'superko', 'lanes', 'forbidden', 'quiet'),
  [
    (3, 'situational', 16, 20, 1),
    (4, 'positional', 8, 5, 0),
    pytest.param(5, 'positional', 64, 50, 5, marks=pytest.mark.slow),
    pytest.param(9, 'situational', 8, 10, 0, marks=pytest.mark.slow),
  ],
)
def test_random_games_equal_plain_rules(size, superko, lanes, forbidden, quiet):
  max_plies = 8 * size**2  # enough for superko to matter
  game = go.make(size, 0.5, superko, max_plies)
  actions, (legal, over, reward, planes) = jax.device_get(
    random_games(game, jax.random.key(1), np.zeros(lanes))
  )
  for lane in range(lanes):
    board = PlainGo(size, superko, 0.5, max_plies)
    for ply, action in enumerate(actions[lane]):
      board.play(int(action))
      assert legal[lane, ply].tolist() == board.legal()
      assert over[lane, ply] == board.over
      result = board.result()
      assert reward[lane, ply].tolist() == [result, -result]
      if board.over:
        break
      assert (planes[lane, ply] == board.planes()).all()
      # What superko alone forbids, and by a move that takes nothing.
      past, board.past = board.past, set()
      for cell in np.flatnonzero(~legal[lane, ply, :-1]):
        after = board.after(int(cell))
        if after is not None:
          forbidden -= 1
          quiet -= np.abs(after).sum() > np.abs(board.board).sum()
      board.past = past
    assert board.over
  assert forbidden <= 0  # the games had enough of them to tell
  assert quiet <= 0


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def beside_pgx(ours, theirs, plies, key, lanes):
  """Where the two differ, live positions, repetitions, [L, P] each."""

  def ply(states, key):
    mine, other = states
    live = ~ours.terminal(mine)
    action = random_action(ours, mine, key)
    mine, other = ours.step(mine, action), theirs.step(other, action)
    planes, their_planes = ours.observe(mine), theirs.observe(other)
    differ = {
      'legal mask': jnp.any(ours.legal_mask(mine) != theirs.legal_mask(other)),
      'terminal': ours.terminal(mine) != theirs.terminal(other),
      'reward': jnp.any(ours.reward(mine) != theirs.reward(other)),
      'to play': live & (ours.to_play(mine) != theirs.to_play(other)),
      'stones': live & jnp.any(planes[..., :16] != their_planes[..., :16]),
      # pgx has 1 for White, AlphaGo Zero 1 for Black.
      'colour': live & jnp.any(planes[..., 16] != 1 - their_planes[..., 16]),
    }
    ended = live & ours.terminal(mine)
    repeated = ended & (mine.passes < 2) & (mine.ply < ours.max_plies)
    return (mine, other), (differ, live, repeated)

  def play(key):
    keys = jax.random.split(key, plies)
    start = ours.init(key), theirs.init(key)
    return jax.lax.scan(ply, start, keys)[1]

  return jax.vmap(play)(jax.random.split(key, len(lanes)))


@pytest.mark.parametrize(
  ('size', 'plies', 'lanes', 'positions', 'repetitions'),
  [
    (3, 18, 512, 5000, 5),
    (9, 162, 4, 400, 0),
    pytest.param(9, 162, 64, 5000, 0, marks=pytest.mark.slow),
    pytest.param(13, 338, 24, 5000, 0, marks=pytest.mark.slow),
    pytest.param(19, 722, 12, 5000, 0, marks=pytest.mark.slow),
  ],
)
def test_random_games_equal_pgx(size, plies, lanes, positions, repetitions):
  ours = go.make(size, komi=7.5, superko='loses')
  theirs = games.make('pgx_go', size)
  differ, live, repeated = jax.device_get(
    beside_pgx(ours, theirs, plies, jax.random.key(2), np.zeros(lanes))
  )
  assert [name for name, where in differ.items() if where.any()] == []
  assert live.sum() >= positions
  assert repeated.sum() >= repetitions


def test_3x3_has_12675_legal_positions():
  """Every one can be reached, and nothing else.

  The number: Tromp and Farneback, "Combinatorics of Go", 2007.
  """
  size = 3
  game = go.make(size)
  blank = game.init(jax.random.key(0))

  @jax.jit
  @jax.vmap
  def after(chains, white):
    # A position without a past, so that superko forbids nothing.
    stones = blank._replace(
      chains=chains, to_play=white, legal=blank.legal & False
    )
    start = go._look_ahead(
      go.rules(size), stones, jnp.zeros(2, jnp.uint32), jnp.int32(-1)
    )
    actions = jnp.arange(size**2)
    later = jax.vmap(lambda action: game.step(start, action).chains)(actions)
    return later, start.legal[:-1]

  seen = {(0,) * size**2}
  todo = [np.zeros(size**2, np.int16)]
  chunk = 4096
  while todo:
    found = []
    for first in range(0, len(todo), chunk):
      part = np.array(todo[first : first + chunk])
      padded = np.zeros((chunk, size**2), np.int16)
      padded[: len(part)] = part
      for white in (0, 1):
        later, legal = after(padded, np.full(chunk, white, np.int32))
        later = np.asarray(later)[: len(part)]
        found.append(later[np.asarray(legal)[: len(part)]])
    todo = []
    for chains in np.concatenate(found):
      position = tuple(np.sign(chains).tolist())
      if position not in seen:
        seen.add(position)
        todo.append(chains)
  assert len(seen) == 12_675


# By hand.


def on_board(diagram, to_play=0, **options):
  size, black, white = go_notation.read_diagram(diagram)
  rules = go.rules(size, **options)
  return go.make(*rules), go.setup(rules, black, white, to_play)


def board_of(state):
  size, *stones = go_notation.read_diagram(go.render(state))
  cells = np.full(size**2, '.')
  for colour, where in zip('XO', stones, strict=True):
    cells[list(where)] = colour
  return [''.join(row) for row in cells.reshape(size, size)]


def legal_names(game, state):
  return {
    game.action_name(int(x)) for x in np.flatnonzero(game.legal_mask(state))
  }


def test_one_stone_takes_three_chains():
  game, state = on_board("""
    . . X . .
    . X O X .
    X O . O X
    . X . X .
    . . . . .
  """)
  state = games.play_moves(game, ['C3'], state)
  assert board_of(state) == ['..X..', '.X.X.', 'X.X.X', '.X.X.', '.....']
  # An eye that White may not fill.
  assert 'C4' not in legal_names(game, state)


def test_snapback():
  game, state = on_board("""
    X O . . X
    X O O O X
    . X X X .
    . . . . .
    . . . . .
  """)
  state = games.play_moves(game, ['C5', 'D5'], state)
  assert board_of(state)[0] == 'XO.OX'
  # One stone took one, but five are taken back: no ko.
  state = games.play_moves(game, ['C5'], state)
  assert board_of(state) == ['X.X.X', 'X...X', '.XXX.', '.....', '.....']


# Situational superko is compared with the plain rules.
@pytest.mark.parametrize('superko', ['positional', 'loses'])
def test_ko_is_retaken_after_a_threat(superko):
  game = go.make(5, superko=superko)
  ko = games.play_moves(game, KO)
  assert legal_names(game, ko) == {
    *(f'{column}{row}' for column in 'ABCDE' for row in range(1, 6)),
    'pass',
  } - {'A3', 'B2', 'B3', 'B4', 'C2', 'C3', 'C4', 'D3'}
  later = games.play_moves(game, ['A5', 'E1'], ko)
  later = games.play_moves(game, ['C3'], later)
  assert board_of(later) == ['X....', '.XO..', 'X.XO.', '.XO..', '....O']
  assert 'B3' not in legal_names(game, later)
  # White's own stone elsewhere makes it another position, too.
  passed = games.play_moves(game, ['pass', 'A1'], ko)
  assert 'C3' in legal_names(game, passed)


def test_positional_superko_forbids_what_situational_allows():
  # Black sends two stones with the third, White takes all three; A2 then
  # takes nothing and makes the board of ply 2 again, with White to move.
  moves = ['A2', 'B2', 'A1', 'pass', 'B1', 'B2']
  allowed = {}
  for superko in go.SUPERKO:
    game = go.make(2, superko=superko)
    allowed[superko] = legal_names(game, games.play_moves(game, moves))
  assert allowed == {
    'positional': {'A1', 'B1', 'pass'},
    'situational': {'A1', 'A2', 'B1', 'pass'},
    'loses': {'A1', 'A2', 'B1', 'pass'},
  }
  game = go.make(2, superko='loses')
  lost = games.play_moves(game, [*moves, 'A2'])
  assert game.terminal(lost)
  assert game.reward(lost).tolist() == [-1, 1]
  assert game.render(lost).endswith('White wins: a position came back')


def test_suicide_is_illegal_for_one_stone_and_for_many():
  diagram = """
    . X O . .
    X X O . .
    O O O . O
    . . . O .
    . O . . .
  """
  game, black = on_board(diagram)
  assert 'A5' not in legal_names(game, black)  # four stones
  assert 'E2' in legal_names(game, black)  # one liberty is left
  game, white = on_board(diagram, to_play=1)
  assert 'A5' in legal_names(game, white)  # takes three
  game, black = on_board("""
    . O .
    O . .
    . . .
  """)
  assert 'A3' not in legal_names(game, black)
  assert len(legal_names(game, black)) == 7


def test_a_position_set_up_can_not_come_back():
  """The ko of a diagram: what was before it is not known."""
  game, state = on_board(
    """
    . X O . .
    X . X O .
    . X O . .
    . . . . .
    . . . . .
    """,
    to_play=1,
  )
  taken = games.play_moves(game, ['B4'], state)
  assert board_of(taken)[1] == 'XO.O.'
  assert 'C4' not in legal_names(game, taken)


@pytest.mark.parametrize(
  ('diagram', 'margin'),
  [
    ('. . .\n. . .\n. . .', 0),
    ('. . .\n. X .\n. . .', 9),
    ('. X .\n. X O\n. X .', 3 + 3 - 1),  # both right corners touch both
    ('. X O\nX O .\nO . .', 3 - 6),
    ('X . O\nX . O\nX . O', 0),
    ('. O . O .\nO O O O O\n. . X . .\nX X X X X\nX . X X .', 11 - 10),
  ],
)
def test_area_scoring(diagram, margin):
  game, state = on_board(diagram, komi=0)
  assert not game.reward(state).any()
  state = games.play_moves(game, ['pass', 'pass'], state)
  assert game.terminal(state)
  assert state.margin == margin
  assert game.reward(state).tolist() == [np.sign(margin), -np.sign(margin)]
  assert not game.legal_mask(state).any()


def test_the_default_komi_lets_black_win_small_boards_but_only_just():
  assert [go.rules(size).komi for size in (2, 3, 4, 5, 6, 7, 8, 9, 19)] == [
    *(0.5, 8.5, 1.5, 7.5, 3.5, 8.5),
    *(7.5, 7.5, 7.5),
  ]
  own_all = games.play_moves(go.make(5), ['C3', 'pass', 'pass'])
  assert go.make(5).reward(own_all).tolist() == [1, -1]
  all_but_one = games.play_moves(go.make(5), ['C3', 'A1', 'pass', 'pass'])
  assert go.make(5).reward(all_but_one).tolist() == [-1, 1]


@pytest.mark.parametrize('name', ['C3', 'B3', None])
def test_an_illegal_action_changes_nothing(name):
  game = go.make(5)
  state = games.play_moves(game, KO)
  actions = [-1, 26, 1000] if name is None else [game.parse_action(name)]
  step = jax.jit(game.step)
  for action in actions:
    after = step(state, jnp.int32(action))
    for before, now in zip(state, after, strict=True):
      np.testing.assert_array_equal(before, now)


def test_white_begins_a_handicap_game():
  game, state = on_board('. . .\n. X .\n. . .', to_play=1)
  assert game.to_play(state) == 1
  planes = np.asarray(game.observe(state))
  assert planes[1, 1].tolist() == [0, 1] + [0] * 15
  state = games.play_moves(game, ['A1'], state)
  assert game.to_play(state) == 0
  planes = np.asarray(game.observe(state))
  assert planes[1, 1].tolist() == [1, 0, 1, 0] + [0] * 12 + [1]
  assert planes[2, 0].tolist() == [0, 1] + [0] * 14 + [1]


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: go.make(1), 'go: board_size 1; possible: 2 to 25'),
    (lambda: go.make(26), 'go: board_size 26; possible: 2 to 25'),
    (
      lambda: go.make(9, superko='none'),
      "go: superko 'none'; possible: positional, situational, loses",
    ),
    (lambda: go.make(9, max_plies=0), 'go: max_plies 0; possible: from 1'),
    (lambda: go.setup(go.rules(3), [9]), 'no cell 9; possible: 0 to 8'),
    (lambda: go.setup(go.rules(3), [4], [4]), 'two stones on B2'),
    (
      lambda: go.setup(go.rules(3), [1, 3], [0]),
      'the chain of A3 has no liberty',
    ),
    (
      lambda: go.parse_action(9, 'I5'),
      "'I5' is no point; possible: A1 to J9 (no letter I), pass",
    ),
    (
      lambda: go.parse_action(5, 'C0'),
      "'C0' is no point; possible: A1 to E5, pass",
    ),
    (
      lambda: games.play_moves(go.make(5), ['C3', 'c3']),
      'move 2, c3: illegal here; possible: A5, B5, C5, D5, E5, A4, B4, C4, '
      'D4, E4, ..., pass',
    ),
  ],
)
def test_what_is_wrong_is_told_in_one_line(call, message):
  with pytest.raises(UsageError) as error:
    call()
  assert str(error.value) == message


def test_render():
  state = games.play_moves(go.make(3), ['B2', 'A1'])
  assert go.render(state).splitlines() == [
    '   A B C',
    ' 3 . . . 3',
    ' 2 . X . 2',
    ' 1[O]. . 1',
    '   A B C',
    'Black to move',
  ]
  over = games.play_moves(go.make(3), ['B2', 'pass', 'pass'])
  assert go.render(over).endswith('\nBlack wins; area: Black +9')
  over = games.play_moves(go.make(3), ['pass', 'pass'])
  assert go.render(over).endswith('\nWhite wins; area: Black +0')
  drawn = over._replace(winner=jnp.int32(0))
  assert go.render(drawn).endswith('\ndraw; area: Black +0')
