"""Chess against published counts, python-chess, pgx, and by hand."""

import pathlib

import chess as python_chess
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.envs import bits, chess, chess_notation, games

GAME = chess.GAME
CHUNK = 256
PLAY = jax.jit(jax.vmap(chess.play_on))
SEEN = jax.jit(
  jax.vmap(
    lambda state: (
      chess.legal_mask(state),
      chess.terminal(state),
      chess.reward(state),
      chess.observe(state),
    )
  )
)
STEP = jax.jit(chess.step)
DATA = pathlib.Path(__file__).parents[2].parent / 'shared' / 'data' / 'chess'

# Chess Programming Wiki, "Perft Results": leaves at 1, 2, 3 half moves.
PERFT = {
  chess_notation.START: (20, 400, 8902),
  'r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq - 0 1': (
    48, 2039, 97862,
  ),
  '8/2p5/3p4/KP5r/1R3p1k/8/4P1P1/8 w - - 0 1': (14, 191, 2812),
  'r3k2r/Pppp1ppp/1b3nbN/nP6/BBP1P3/q4N2/Pp1P2PP/R2Q1RK1 w kq - 0 1': (
    6, 264, 9467,
  ),
  'r2q1rk1/pP1p2pp/Q4n2/bbp1p3/Np6/1B3NBn/pPPP1PPP/R3K2R b KQ - 0 1': (
    6, 264, 9467,
  ),
  'rnbq1k1r/pp1Pbppp/2p5/8/2B5/8/PPP1NnPP/RNBQK2R w KQ - 1 8': (
    44, 1486, 62379,
  ),
  'r4rk1/1pp1qppp/p1np1n2/2b1p1B1/2B1P1b1/P1NP1N2/1PP1QPPP/R4RK1 w - - 0 10': (
    46, 2079, 89890,
  ),
}  # fmt: skip

# Where random play soon meets what it rarely meets from the start.
CURIOUS = [
  *PERFT,
  'n1n5/PPPk4/8/8/8/8/4Kppp/5N1N b - - 0 1',
  'r3k2r/8/8/8/8/8/8/R3K2R w KQkq - 0 1',
  '8/8/8/1k6/3Pp3/8/8/4KQ2 b - d3 0 1',
  '4k3/2p1p1p1/8/1P1P1P1P/1p1p1p1p/8/2P1P1P1/4K3 w - - 0 1',
  '7k/RR6/8/8/8/8/rr6/7K w - - 90 80',
  '8/8/4kb2/8/8/3KB3/8/8 w - - 0 1',
  'k7/8/1K6/8/8/8/8/6Q1 w - - 0 1',
  '8/8/8/8/1p1p1p1p/kP1P1P1P/8/K7 w - - 0 1',
]


def position(fen):
  return jax.device_get(chess_notation.from_fen(fen))


def stack(states):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def take(states, which):
  return jax.tree.map(lambda x: x[which], states)


def play_all(states, actions):
  """Plays one action in each of any number of states, by chunks."""
  played = []
  for begin in range(0, len(actions), CHUNK):
    # The last chunk is filled up, so that one size is compiled.
    some = np.arange(begin, begin + CHUNK) % len(actions)
    after = jax.device_get(PLAY(take(states, some), actions[some]))
    played.append(take(after, slice(len(actions) - begin)))
  return jax.tree.map(lambda *parts: np.concatenate(parts), *played)


def moves_of(states):
  """Returns the indices of states and the actions of all their moves."""
  sets = np.ascontiguousarray(states.legal.transpose(0, 2, 1))
  on = np.unpackbits(sets.view(np.uint8), axis=-1, bitorder='little')
  which, plane, square = np.nonzero(on.reshape(*sets.shape[:2], 64))
  return which, (square * chess.NUM_PLANES + plane).astype(np.int32)


def perft(fens, depth):
  """Returns [positions, depth] counts, drawn positions played on."""
  states = stack([position(fen) for fen in fens])
  roots = np.arange(len(fens))
  counts = []
  for ply in range(1, depth + 1):
    if ply > 1:
      which, actions = moves_of(states)
      states = play_all(take(states, which), actions)
      roots = roots[which]
    leaves = np.bitwise_count(states.legal).sum(axis=(1, 2))
    counts.append(np.bincount(roots, weights=leaves, minlength=len(fens)))
  return np.stack(counts, axis=1).astype(int)


def test_perft_of_the_known_positions():
  np.testing.assert_array_equal(perft([*PERFT], 3), [*PERFT.values()])


@pytest.mark.slow
def test_perft_of_the_start_to_four():
  assert perft([chess_notation.START], 4)[0, 3] == 197_281


def perft_lines(step):
  path = DATA / 'perft.epd'
  if not path.exists():
    pytest.skip(f'{path} is not here')
  lines = [line.split(';') for line in path.read_text().splitlines()[::step]]
  fens = [line[0] for line in lines]
  counts = [[int(field.split()[1]) for field in line[1:]] for line in lines]
  return fens, counts


def test_perft_of_a_tenth_of_the_published_lines():
  fens, counts = perft_lines(10)
  np.testing.assert_array_equal(perft(fens, 3), [c[:3] for c in counts])


@pytest.mark.slow
def test_perft_of_all_published_lines():
  fens, counts = perft_lines(1)
  assert len(fens) == 127
  np.testing.assert_array_equal(perft(fens, 3), [c[:3] for c in counts])
  small = [i for i, c in enumerate(counts) if c[3] < 20_000]
  assert len(small) > 60
  np.testing.assert_array_equal(
    perft([fens[i] for i in small], 4), [counts[i][:4] for i in small]
  )


@pytest.mark.slow
def test_perft_of_tricky_positions():
  path = DATA / 'tricky.perft'
  if not path.exists():
    pytest.skip(f'{path} is not here')
  cases = []
  for line in path.read_text().splitlines():
    if line.startswith('epd '):
      cases.append((line[4:], []))
    elif line.startswith('perft '):
      cases[-1][1].append(int(line.split()[2]))
  # Those of other starting positions are not our chess.
  cases = [case for case in cases if case[0] not in _CHESS960]
  assert len(cases) == 13
  got = perft([fen for fen, _ in cases], 3)
  np.testing.assert_array_equal(got, [counts[:3] for _, counts in cases])


_CHESS960 = {
  'r1k1r2q/p1ppp1pp/8/8/8/8/P1PPP1PP/R1K1R2Q w KQkq -',
  'r1k2r1q/p1ppp1pp/8/8/8/8/P1PPP1PP/R1K2R1Q w KQkq -',
  '8/8/8/4B2b/6nN/8/5P2/2R1K2k w Q -',
  '2r5/8/8/8/8/8/6PP/k2KR3 w K -',
  '4r3/3k4/8/8/8/8/6PP/qR1K1R2 w KQ -',
  'r2r3k/p7/3p4/8/8/P6P/8/R3K2R b KQq -',
}


def random_games(fens, plies, seed):
  """Yields (boards of python-chess, our states) along random games.

  A game that has ended is left out of what follows.
  """
  rng = np.random.default_rng(seed)
  states = stack([position(fen) for fen in fens])
  boards = [python_chess.Board(fen) for fen in fens]
  for _ in range(plies):
    yield boards, states
    live = [i for i, end in enumerate(states.ending) if end == chess.PLAYING]
    if not live:
      return
    states = take(states, np.array(live))
    boards = [boards[i] for i in live]
    which, actions = moves_of(states)
    chosen = np.array(
      [rng.choice(actions[which == i]) for i in range(len(boards))]
    )
    for i, board in enumerate(boards):
      board.push_uci(
        chess_notation.move_name(
          take(states, i),
          chosen[i],
        )
      )
    states = play_all(states, chosen)


def ending_of(board):
  """Python-chess's word on how a game ended."""
  if board.is_checkmate():
    return chess.CHECKMATE
  if board.is_stalemate():
    return chess.STALEMATE
  if board.is_insufficient_material():
    return chess.MATERIAL
  if board.halfmove_clock >= 100:
    return chess.FIFTY_MOVES
  return chess.REPETITION if board.is_repetition(3) else chess.PLAYING


def assert_equal_to_python_chess(board, state):
  names = {
    chess_notation.move_name(state, action)
    for action in moves_of(take(state, None))[1]
  }
  assert names == {move.uci() for move in board.legal_moves}, board.fen()
  assert state.ending == ending_of(board), board.fen()
  assert state.check == board.is_check()
  assert chess_notation.to_fen(state) == board.fen()


def check_random_games(copies, plies, seed):
  positions, endings = 0, set()
  for boards, states in random_games(CURIOUS * copies, plies, seed):
    for i, board in enumerate(boards):
      state = take(states, i)
      assert_equal_to_python_chess(board, state)
      endings.add(int(state.ending))
      positions += 1
  return positions, endings


def test_random_games_equal_python_chess():
  positions, _ = check_random_games(copies=1, plies=30, seed=0)
  assert positions > 250


@pytest.mark.slow
def test_5000_positions_of_random_games_equal_python_chess():
  positions, endings = check_random_games(copies=4, plies=200, seed=1)
  assert positions > 5000
  assert endings == {
    chess.PLAYING, chess.CHECKMATE, chess.STALEMATE, chess.MATERIAL,
    chess.FIFTY_MOVES, chess.REPETITION,
  }  # fmt: skip


def pgx_actions():
  """Returns [4672] pgx's number of each of our actions."""
  # pgx counts a file's squares upwards, a1 = 0, and lists planes otherwise:
  # underpromotions rook, bishop, knight; straight on, right, left.
  from pgx._src.games import chess as pgx_chess

  to_plane = np.asarray(pgx_chess.TO_PLANE)

  def number(square):
    return square % 8 * 8 + 7 - square // 8

  actions = np.full(chess.NUM_ACTIONS, -1)
  for action in range(chess.NUM_ACTIONS):
    source, plane = divmod(action, chess.NUM_PLANES)
    target = chess_notation.target_of(source, plane)
    if target is None:
      continue
    theirs = to_plane[number(source), number(target)]
    if plane >= 64:
      what, way = divmod(plane - 64, 3)
      theirs = 3 * (2 - what) + (2, 0, 1)[way]
    actions[action] = 73 * number(source) + theirs
  return actions


def check_against_pgx(num_games, plies, seed):
  ours_to_pgx = pgx_actions()
  possible = ours_to_pgx >= 0
  peer = games.make('pgx_chess')

  @jax.jit
  @jax.vmap
  def peer_step(state, action):
    state = peer.step(state, action)
    return state, (
      peer.legal_mask(state),
      peer.terminal(state),
      peer.reward(state),
      peer.observe(state),
    )

  keys = jax.random.split(jax.random.key(0), num_games)
  theirs = jax.vmap(peer.init)(keys)
  ours = stack([position(chess_notation.START)] * num_games)
  over = np.zeros(num_games, bool)
  rng = np.random.default_rng(seed)
  seen = 0
  for ply in range(1, plies + 1):
    which, actions = moves_of(ours)
    chosen = np.array(
      [
        rng.choice(actions[which == i]) if not over[i] else 0
        for i in range(num_games)
      ]
    )
    after = play_all(ours, chosen)
    # What was played on after an end is put back.
    both = jax.tree.map(lambda *x: np.concatenate(x), ours, after)
    ours = take(both, np.arange(num_games) + num_games * ~over)
    legal, over, reward, planes = jax.device_get(SEEN(ours))
    theirs, (pgx_legal, pgx_over, pgx_reward, pgx_planes) = jax.device_get(
      peer_step(theirs, ours_to_pgx[chosen])
    )
    np.testing.assert_array_equal(over, pgx_over)
    np.testing.assert_array_equal(reward, pgx_reward)
    np.testing.assert_array_equal(
      legal[:, possible], pgx_legal[:, ours_to_pgx[possible]]
    )
    assert not legal[:, ~possible].any()
    # pgx counts as repetitions also what came later, and calls the boards
    # before the start new.
    boards = planes[..., :112].reshape(num_games, 8, 8, 8, 14)
    pgx_boards = pgx_planes[..., :112].reshape(boards.shape)
    live = ~over
    np.testing.assert_array_equal(
      boards[live][..., :12], pgx_boards[live][..., :12]
    )
    np.testing.assert_array_equal(
      boards[live][..., 0, 12:], pgx_boards[live][..., 0, 12:]
    )
    np.testing.assert_allclose(
      planes[live][..., 112:], pgx_planes[live][..., 112:], rtol=1e-6
    )
    assert not boards[..., ply + 1 :, :].any()
    seen += int(live.sum())
  return seen


# It compiles their rules for many seconds; perft is what `make test` runs.
@pytest.mark.slow
def test_random_games_equal_pgx():
  assert check_against_pgx(num_games=16, plies=25, seed=2) > 300


@pytest.mark.slow
def test_5000_positions_of_random_games_equal_pgx():
  assert check_against_pgx(num_games=64, plies=120, seed=3) > 5000


def test_the_start_by_hand_is_the_start_computed():
  start = jax.device_get(jax.jit(chess.init)(jax.random.key(0)))
  for field, by_hand, computed in zip(
    chess.State._fields, start, position(chess_notation.START), strict=True
  ):
    np.testing.assert_array_equal(by_hand, computed, err_msg=field)
    assert by_hand.dtype == computed.dtype, field
  sizes = [leaf.nbytes for leaf in jax.tree.leaves(start)]
  assert sum(sizes) <= 46_266 / 20  # pgx's chess state
  small = jax.tree.leaves(chess.compact(start))
  assert sum(leaf.nbytes for leaf in small) == sum(sizes) - 2 * 73 * 4


KNIGHTS = ['Nf3', 'Nf6', 'Ng1', 'Ng8']


@pytest.mark.parametrize(
  ('moves', 'ply'),
  [
    # The start comes up for the third time after two rounds.
    (KNIGHTS * 3, 8),
    # The double step leaves nothing to capture, so the position after e5 is
    # the first of three.
    (['e4', 'e5', *KNIGHTS * 3], 10),
    # Here e5xd6 could be played, once: the position after d5 does not count,
    # and the one after Nf3 comes up for the third time first.
    (['e4', 'a6', 'e5', 'd5', *KNIGHTS * 4], 13),
    # It could not: the pawn is pinned by the queen on the e file.
    (
      ['e4', 'e5', 'f4', 'exf4', 'e5', 'Qe7', 'Nc3', 'd5']
      + ['Nb1', 'Nc6', 'Nc3', 'Nb8'] * 2,
      16,
    ),
    # The right to castle is gone after the king has moved: the position
    # before is not the same.
    (['e4', 'e5', *['Ke2', 'Ke7', 'Ke1', 'Ke8'] * 3], 12),
  ],
)
def test_threefold_repetition(moves, ply):
  state, board = position(chess_notation.START), python_chess.Board()
  for number, move in enumerate(moves[:ply], start=1):
    state = chess_notation.play([move], state)
    board.push_san(move)
    over = bool(chess.terminal(state))
    assert over == board.is_repetition(3) == (number == ply), number
  assert int(state.ending) == chess.REPETITION
  np.testing.assert_array_equal(chess.reward(state), [0, 0])


def test_repetitions_are_seen_in_the_history():
  state = chess_notation.play(['e4', 'e5', *KNIGHTS, 'Nf3'])
  # Latest first: after Nf3 (again), Ng8 (again), Ng1, Nf6, Nf3, e5, e4, start.
  np.testing.assert_array_equal(state.repeats, [1, 1, 0, 0, 0, 0, 0, 0])
  planes = np.asarray(jax.jit(chess.observe)(state))
  planes = planes[..., :112].reshape(64, 8, 14)
  np.testing.assert_array_equal(planes[0, :, 12], [0, 0, 1, 1, 1, 1, 1, 1])
  np.testing.assert_array_equal(planes[0, :, 13], [1, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
  ('fen', 'move', 'ending', 'reward'),
  [
    # A mate on the hundredth half move is a mate, anything else is a draw.
    ('7k/8/6K1/8/8/8/8/R7 w - - 99 80', 'Ra8#', chess.CHECKMATE, 1),
    ('7k/8/6K1/8/8/8/8/R7 w - - 99 80', 'Ra7', chess.FIFTY_MOVES, 0),
    ('7k/8/6K1/8/8/8/8/R7 w - - 98 80', 'Ra7', chess.PLAYING, 0),
    ('7k/8/6K1/8/8/8/P7/R7 w - - 99 80', 'a3', chess.PLAYING, 0),
    ('7k/8/6K1/8/8/8/r7/R7 w - - 99 80', 'Rxa2', chess.PLAYING, 0),
    # Fool's mate, and a stalemate.
    (
      'rnbqkbnr/pppp1ppp/8/4p3/6P1/5P2/PPPPP2P/RNBQKBNR b KQkq - 0 2',
      'Qh4#', chess.CHECKMATE, -1,
    ),
    ('k7/8/1K6/8/8/8/8/6Q1 w - - 0 1', 'Qg7', chess.PLAYING, 0),
    ('k7/8/K7/8/8/8/8/6Q1 w - - 0 1', 'Qb6', chess.STALEMATE, 0),
    # The last man that could mate is taken.
    ('8/8/4k3/8/8/3K4/4r3/8 w - - 0 1', 'Kxe2', chess.MATERIAL, 0),
    ('8/8/4k3/8/8/3KB3/4r3/8 w - - 0 1', 'Kxe2', chess.MATERIAL, 0),
    ('8/8/4k3/8/8/3KN3/4r3/8 w - - 0 1', 'Kxe2', chess.MATERIAL, 0),
    ('8/8/4kn2/8/8/3KN3/4r3/8 w - - 0 1', 'Kxe2', chess.PLAYING, 0),
    ('8/8/4k3/8/8/3KNN2/4r3/8 w - - 0 1', 'Kxe2', chess.PLAYING, 0),
    ('8/8/4kn2/8/8/3KB3/4r3/8 w - - 0 1', 'Kxe2', chess.PLAYING, 0),
    # e3 and d4 are dark, f4 is dark, f5 is light.
    ('8/8/4k3/8/5b2/3KB3/4r3/8 w - - 0 1', 'Kxe2', chess.MATERIAL, 0),
    ('8/8/4k3/8/3B1b2/3KB3/4r3/8 w - - 0 1', 'Kxe2', chess.MATERIAL, 0),
    ('8/8/4k3/5b2/8/4B3/3Kr3/8 w - - 0 1', 'Kxe2', chess.PLAYING, 0),
    ('8/8/4k3/8/7p/3K4/4r3/8 w - - 0 1', 'Kxe2', chess.PLAYING, 0),
  ],
)  # fmt: skip
def test_endings(fen, move, ending, reward):
  state = chess_notation.play([move], position(fen))
  assert int(state.ending) == ending
  np.testing.assert_array_equal(chess.reward(state), [reward, -reward])
  assert bool(chess.terminal(state)) == (ending != chess.PLAYING)
  assert chess_notation.legal_moves(state) or chess.terminal(state)


def test_512_half_moves_are_a_draw_unless_they_mate():
  late = position('7k/8/6K1/8/8/8/8/R7 w - - 0 1')._replace(ply=np.int32(510))
  moved = chess_notation.play(['Ra2'], late)
  assert int(moved.ending) == chess.PLAYING
  after = chess_notation.play(['Kg8'], moved)
  assert int(after.ending) == chess.LENGTH
  mated = chess_notation.play(['Ra8'], late._replace(ply=np.int32(512)))
  assert int(mated.ending) == chess.CHECKMATE


def test_a_finished_game_stays_and_a_compact_state_plays_the_same():
  drawn = position('7k/8/6K1/8/8/8/8/R7 b - - 100 80')
  assert int(drawn.ending) == chess.FIFTY_MOVES
  assert drawn.legal.any()  # for those who play on
  assert not np.asarray(chess.legal_mask(drawn)).any()
  after = jax.device_get(STEP(chess.compact(drawn), np.int32(7 * 73 + 6)))
  for field, before, now in zip(chess.State._fields, drawn, after, strict=True):
    np.testing.assert_array_equal(before, now, err_msg=field)
  kiwipete = position([*PERFT][1])
  small = chess.compact(kiwipete)
  assert small.legal is None
  np.testing.assert_array_equal(
    chess_notation._packed_moves(small), kiwipete.legal
  )
  castles = np.int32(chess_notation.parse_move(kiwipete, 'O-O-O'))
  for field, big, little in zip(
    chess.State._fields,
    chess_notation.play(['O-O-O'], kiwipete),
    STEP(small, castles),
    strict=True,
  ):
    np.testing.assert_array_equal(big, little, err_msg=field)


def test_an_observation_by_python_chess():
  line = 'e4 c5 Nf3 d6 d4 cxd4 Nxd4 Nf6 Nc3 g6 Be2 Bg7 O-O Kf8'
  moves = line.split()
  state = chess_notation.play(moves)
  boards = [python_chess.Board()]
  for move in moves:
    boards.append(boards[-1].copy())
    boards[-1].push_san(move)
  for number in (14, 13):
    if number == 13:
      state = chess_notation.play(moves[:13])
    mover = boards[number].turn
    planes = np.asarray(jax.jit(chess.observe)(state))
    assert planes.shape == GAME.observation_shape
    assert planes.dtype == np.float32
    for past in range(8):
      board = boards[number - past]
      expected = np.zeros((8, 8, 14))
      for square, piece in board.piece_map().items():
        row, column = divmod(square, 8)
        row = 7 - row if mover else row
        side = 0 if piece.color == mover else 6
        expected[row, column, side + piece.piece_type - 1] = 1
      expected[..., 12] = 1
      np.testing.assert_array_equal(
        planes[..., 14 * past : 14 * past + 14], expected
      )
    rights = {
      14: [0, 14 / 512, 0, 0, 0, 0, 4 / 100],
      13: [1, 13 / 512, 1, 1, 0, 0, 3 / 100],
    }[number]
    np.testing.assert_allclose(
      planes[..., 112:], np.broadcast_to(rights, (8, 8, 7)), rtol=1e-6
    )


def test_keys_tell_positions_apart_by_all_that_counts():
  hashed = jax.jit(chess._hash)
  board = jnp.asarray(position(chess_notation.START).boards[0])
  all_rights = np.ones(4, bool)

  def key(board=board, castling=all_rights, passing=-1, ply=0):
    found = hashed(board, castling, np.int32(passing), np.int32(ply))
    return tuple(np.asarray(found).tolist())

  keys = [key(), key(ply=1)]
  keys += [key(castling=~np.eye(4, dtype=bool)[i]) for i in range(4)]
  keys += [key(passing=file) for file in range(8)]
  keys += [
    key(board=board ^ jnp.asarray(bits.place([s], 64))[None]) for s in range(64)
  ]
  assert len(set(keys)) == len(keys)
  assert key(ply=2) == key()


def test_random_words_share_no_key_and_spread_their_bits():
  rng = np.random.default_rng(0)
  boards = rng.integers(0, 1 << 32, (2000, 4, 2), dtype=np.uint32)
  flipped = boards.copy()
  flipped[:, 1, 0] ^= 1

  @jax.jit
  @jax.vmap
  def hashed(board):
    return chess._hash(board, jnp.ones(4, bool), jnp.int32(-1), jnp.int32(0))

  first, second = np.asarray(hashed(boards)), np.asarray(hashed(flipped))
  for half in (0, 1):
    assert len(np.unique(np.concatenate([first, second])[:, half])) == 4000
  # One bit of a board turns about half of the 64.
  turned = np.bitwise_count(first ^ second).sum(axis=1)
  assert abs(turned.mean() - 32) < 0.5


def test_names_without_a_position():
  names = [chess.action_name(action) for action in range(chess.NUM_ACTIONS)]
  assert len(set(names)) == chess.NUM_ACTIONS
  assert [chess.parse_action(name) for name in names] == list(range(4672))
  # From e2 (52): two ahead; a knight's leap from g1 (62) to f3; a new rook.
  assert names[52 * 73 + 8] == 'e2e4'
  assert names[62 * 73 + 63] == 'g1f3'
  assert names[8 * 73 + 64 + 3 * 2 + 1] == 'a7a8r'
  assert chess.parse_action('a7a8q') == chess.parse_action('a7a8')
  state = position(chess_notation.START)
  for name in ('e2e4', 'e2e4', 'g1f3'):  # e4 e5 Nf3
    state = chess_notation._play_on(state, np.int32(chess.parse_action(name)))
  assert chess_notation.to_fen(state) == (
    'rnbqkbnr/pppp1ppp/8/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R b KQkq - 1 2'
  )
  assert chess.render(state) == chess_notation.text(state)
