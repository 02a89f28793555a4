"""Facts by hand; probes of what is known, of noise, and of which game it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures.analysis import knowledge
from dl_lectures.envs import capture_bots, capture_games
from dl_lectures.envs.capture_the_flag import NORTH, SOUTH, Rules

RULES = Rules(size=11, length=32)


@pytest.fixture(scope='module')
def start():
  """One game on an empty map, nobody near anything."""
  starts = jax.jit(lambda key: capture_games.starts(RULES, key, jnp.zeros(1)))(
    jax.random.key(0)
  )
  state = jax.tree.map(lambda x: np.asarray(x[0]), starts)
  base = np.array([11 * 5 + 1, 11 * 5 + 9], np.int32)
  return state._replace(
    world=state.world._replace(base=base),
    ground=np.zeros_like(state.ground),
    flag=base,
    # Me, my mate, and two of the others: in the four corners.
    place=np.array([0, 10, 110, 120], np.int32),
    heading=np.full(4, NORTH, np.int32),
    score=np.zeros(2, np.int32),
  )


_facts = jax.jit(lambda state: knowledge.facts(RULES, state))


def true_of(state, **changes):
  told = np.asarray(_facts(state._replace(**changes)))
  return {
    name for name, true in zip(knowledge.FACTS, told, strict=True) if true
  }


QUIET = {'their flag is home', 'our flag is home', 'i may tag'}


def test_nothing_is_true_of_a_quiet_game_but_what_is(start):
  assert true_of(start) == QUIET


@pytest.mark.parametrize(
  ('changes', 'more', 'less'),
  [
    (
      {'carries': np.array([1, 0, 0, 0], bool)},
      {'i carry their flag', 'i could score at our base'},
      {'their flag is home'},
    ),
    (
      {'carries': np.array([0, 1, 1, 0], bool)},
      {'a mate carries their flag', 'our flag is carried'},
      {'their flag is home', 'our flag is home'},
    ),
    (
      {'lies': np.array([3, 0], np.int32)},
      {'our flag lies about'},
      {'our flag is home'},
    ),
    (
      {'lies': np.array([0, 3], np.int32)},
      {'their flag lies about'},
      {'their flag is home'},
    ),
    # Who is out is nowhere.
    (
      {
        'out': np.array([2, 0, 0, 1], np.int32),
        'place': np.array([11 * 5, 1, 110, 11 * 5 + 8], np.int32),
      },
      {'i am out', 'an opponent is out'},
      {'i may tag'},
    ),
    (
      {'out': np.array([0, 1, 2, 1], np.int32)},
      {'a mate is out', 'an opponent is out', 'all opponents are out'},
      set(),
    ),
    ({'cooldown': np.array([1, 0, 0, 0], np.int32)}, set(), {'i may tag'}),
    # Three steps from our base, and four.
    (
      {'place': np.array([11 * 4 + 3, 11 * 5 + 5, 110, 120], np.int32)},
      {'i am at our base', 'a mate is near'},
      set(),
    ),
    (
      {'place': np.array([0, 11 * 5 + 8, 11 * 5 + 2, 11 * 5 + 7], np.int32)},
      {
        'a mate is at their base',
        'an opponent is at our base',
        'an opponent is at their base',
      },
      set(),
    ),
    # I look away from who looks at me, two cells below.
    (
      {'place': np.array([4, 10, 26, 120], np.int32)},
      {'an opponent is near', 'an opponent would tag me'},
      set(),
    ),
    (
      {
        'place': np.array([4, 10, 26, 120], np.int32),
        'heading': np.array([SOUTH, NORTH, SOUTH, NORTH], np.int32),
      },
      {'an opponent is near', 'i would tag somebody'},
      set(),
    ),
    ({'score': np.array([2, 1], np.int32)}, {'we lead'}, set()),
    ({'score': np.array([0, 1], np.int32)}, {'we are behind'}, set()),
    ({'time': np.int32(23)}, set(), set()),
    ({'time': np.int32(24)}, {'the last quarter'}, set()),
  ],
)
def test_facts_are_told_by_hand(start, changes, more, less):
  assert true_of(start, **changes) == (QUIET | more) - less


def test_what_is_known_is_found_and_what_is_not_is_chance():
  draw = np.random.default_rng(0)
  truth = draw.random((40, 60, 4)) < 0.4
  truth[..., 2] = draw.random(60) < 0.5  # the same all game
  truth[..., 3] = True
  known = draw.normal(size=(40, 60, 70)).astype(np.float32)
  known[..., 5] -= 3 * truth[..., 0]
  known[..., 10:] = np.eye(60)  # which game it is
  areas = knowledge.probe(known, truth)
  assert areas[0] > 0.97
  assert abs(areas[1] - 0.5) < 0.1
  # Learned in some games, it says nothing of others.
  assert abs(areas[2] - 0.5) < 0.2
  assert np.isnan(areas[3])
  by_units = knowledge.units(known, truth)
  assert by_units[0] > 0.95
  assert abs(by_units[1] - 0.5) < 0.1
  assert np.isnan(by_units[3])


def test_a_bot_s_memory_is_kept_beside_what_it_saw_and_what_was_true():
  side = capture_games.bot(RULES, capture_bots.at_random)._replace(
    begin=lambda state: jnp.zeros(len(state.time), jnp.int32)
  )
  bot = capture_games.Side(
    side.begin,
    # It remembers the time and which game it is.
    lambda team, memory, state, seen, key: (
      jnp.zeros(seen.scalars.shape[:2], jnp.int32),
      memory + 1,
    ),
  )

  def memory_of(memory):
    number = jnp.arange(len(memory)) * 100 + memory
    return jnp.repeat(number, RULES.players)[:, None]

  live = knowledge.make_live(RULES, lambda params: bot, memory_of, bot, 4)
  lived = live((), jax.random.key(1))
  expected = np.arange(4)[None] * 100 + np.arange(1, 33)[:, None]
  np.testing.assert_array_equal(lived.memory[..., 0], expected)
  last = knowledge.FACTS.index('the last quarter')
  np.testing.assert_array_equal(
    lived.truth[..., last].T, [np.arange(32) >= 24] * 4
  )
  assert lived.seen.shape[:2] == (32, 4)


def test_the_figure_has_a_row_for_each_fact():
  areas = np.linspace(0.5, 1, len(knowledge.FACTS))
  figure = knowledge.draw({'trained': areas, 'untrained': areas - 0.1})
  (axes,) = figure.axes
  assert len(axes.get_yticklabels()) == len(knowledge.FACTS)


def test_what_goes_on_is_the_first_that_is_true(start):
  for changes, expected in (
    ({}, 'our flag is home'),
    ({'out': np.array([2, 0, 0, 0], np.int32)}, 'i am out'),
    ({'carries': np.array([1, 0, 1, 0], bool)}, 'i carry their flag'),
    ({'carries': np.array([0, 0, 1, 0], bool)}, 'our flag is carried'),
    ({'lies': np.array([0, 3], np.int32)}, 'their flag lies about'),
  ):
    told = np.asarray(_facts(start._replace(**changes)))
    found = knowledge.situations(told[None])
    assert [knowledge.SITUATIONS[i] for i in found] == [expected]


def test_a_map_tells_how_often_near_memories_are_alike():
  draw = np.random.default_rng(0)
  truth = np.zeros((10, 8, len(knowledge.FACTS)), bool)
  truth[..., knowledge.FACTS.index('our flag is home')] = True
  truth[..., knowledge.FACTS.index('i am out')] = draw.random((10, 8)) < 0.5
  noise = draw.normal(size=(10, 8, 3)).astype(np.float32)
  tells = noise + 20 * truth[..., knowledge.FACTS.index('i am out'), None]
  knows = knowledge.lay_out(tells, truth, 60)
  assert knows.point.shape == (60, 2)
  assert knows.alike == 1
  assert 0.4 < knows.chance < 0.6
  guesses = knowledge.lay_out(noise, truth, 60)
  assert 0.3 < guesses.alike < 0.7
  # The same positions are shown.
  np.testing.assert_array_equal(knows.situation, guesses.situation)
  figure = knowledge.draw_maps({'knows': knows, 'guesses': guesses})
  assert 'alike 1.00' in figure.axes[0].get_title()
  assert len(figure.legends[0].get_texts()) == len(knowledge.SITUATIONS)
