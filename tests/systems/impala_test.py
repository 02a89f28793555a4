"""IMPALA on capture the flag: seats, groups, likelihoods; that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dl_lectures import training, types
from dl_lectures.analysis import capture_matches
from dl_lectures.systems import impala

# No bots: they compile for long.
ALONE = impala.Config(
  size=9,
  view=5,
  length=16,
  unroll=8,
  games=4,
  self_play=1.0,
  hidden=(16,),
  memory=4,
  batches=2,
  agent_steps=1000,
  num_games=128,
)
MIXED = dataclasses.replace(ALONE, games=8, self_play=0.5)
net = impala.network(ALONE)


def test_rows_are_seats_and_back():
  rows = jnp.arange(MIXED.rows)
  others = -1 - jnp.arange(8).reshape(4, 2)
  seats = impala.to_seats(MIXED, rows, others)
  assert seats.shape == (8, 4)
  # All seats of four games, and team 0 of the others.
  assert (seats[:4] >= 0).all()
  assert (seats[4:, :2] >= 0).all()
  assert (seats[4:, 2:] < 0).all()
  np.testing.assert_array_equal(impala.to_rows(MIXED, seats), rows)


def test_a_group_begins_anew_and_what_was_played_is_learned_from():
  """Through two unrolls: games, memories, and the actions' probabilities."""
  begin = jax.jit(functools.partial(impala.restart, ALONE))
  play = jax.jit(functools.partial(impala.play, ALONE, net))
  state = jax.jit(functools.partial(impala.init, ALONE, net))(jax.random.key(0))
  state, _ = play(begin(state, jax.random.key(1)), jax.random.key(2))
  before = state._replace(step=jnp.int32(1))
  state = begin(before, jax.random.key(3))
  # Games 1 and 3 are of group 1.
  assert state.games.time.tolist() == [8, 0, 8, 0]
  old, new = jax.device_get((before.memory, state.memory))
  anew = np.repeat([False, True, False, True], 4)
  assert (new.hidden[anew] == 0).all()
  assert (old.hidden[anew] != 0).any()
  np.testing.assert_array_equal(new.hidden[~anew], old.hidden[~anew])

  after, row = play(state, jax.random.key(4))
  assert after.games.time.tolist() == [16, 8, 16, 8]
  ends = np.repeat([0.0, 0.98, 0.0, 0.98], 4).astype(np.float32)
  np.testing.assert_array_equal(row.discount[-1], ends)
  assert (row.discount[:-1] == np.float32(0.98)).all()
  seen = jax.tree.map(lambda x: jnp.swapaxes(x[:-1], 0, 1), row.observation)
  logits, _, memory = jax.jit(net.apply)(state.train.params, seen, row.memory)
  log_probs = jax.nn.log_softmax(jnp.swapaxes(logits, 0, 1))
  chosen = jnp.take_along_axis(log_probs, row.action[..., None], axis=-1)
  np.testing.assert_allclose(chosen[..., 0], row.behaviour, atol=1e-5)
  np.testing.assert_allclose(memory.hidden, after.memory.hidden, atol=1e-5)


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit(tmp_path):
  def run(steps, workdir):
    config = dataclasses.replace(MIXED, agent_steps=steps * 8 * MIXED.rows)
    # The rates fall towards the end of the whole run.
    step = impala.make_step(
      dataclasses.replace(config, agent_steps=20 * 8 * MIXED.rows), net
    )
    return training.fit(
      step,
      lambda key: impala.init(config, net, key),
      config=dataclasses.replace(config, agent_steps=1),
      workdir=workdir,
      num_steps=steps,
      mesh=training.sharding.make_mesh(1),
      count_params=lambda state: state.train.params,
    ).state

  whole = run(20, None)
  run(10, tmp_path)
  resumed = run(20, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


@pytest.mark.slow
def test_it_learns_to_capture_and_reports(tmp_path):
  config = dataclasses.replace(
    impala.PRESETS['smoke'], games=64, agent_steps=1_200_000, num_games=128
  )
  metrics = impala.train(config, workdir=str(tmp_path))
  assert metrics['share_random'] > 0.8
  assert metrics['captures_random'] > 1
  summary = training.report.finished(tmp_path, config)
  assert summary is not None
  assert summary['claims'][0]['baseline'] < 0.6
  assert (tmp_path / 'figures' / 'game.gif').exists()
  assert 'data:image/gif' in (tmp_path / 'report.html').read_text()


def test_claims_count_draws_as_half_and_tell_styles_apart():
  won = np.tile([[2, 0], [1, 1]], (64, 1))  # outdoors won, indoors drawn
  trained = dict.fromkeys(capture_matches.BOTS, won)
  untrained = dict.fromkeys(capture_matches.BOTS, np.zeros((128, 2)))
  long = impala.make_claims(impala.Config(), trained, untrained)
  by_name = {claim.name: claim for claim in long}
  assert by_name['games won against random'].value == 0.75
  assert by_name['games won against random'].baseline == 0.5
  assert by_name['games won against tagger, outdoor maps'].value == 1
  assert by_name['games won against tagger, indoor maps'].value == 0.5
  assert not by_name['games won against roles, never met'].met
  assert long[-1].value == 1.5
  assert long[-1].met
  short = impala.make_claims(impala.PRESETS['smoke'], trained, untrained)
  assert [claim.met for claim in short[:4]] == [False, False, True, None]
  hidden = impala.make_claims(impala.PRESETS['in_sight'], trained, untrained)
  assert [claim.bar for claim in hidden[:4]] == [0.9, 0.85, 0.6, None]
  assert hidden[-1].bar is None


def test_parameters_of_the_large_network():
  config = impala.PRESETS['paper']
  model = impala.network(config)
  params = jax.eval_shape(
    functools.partial(impala.init_params, config, model), jax.random.key(0)
  )
  count = sum(x.size for x in jax.tree.leaves(params))
  seen = 9 * 9 * 8 + 9
  layers = (seen + 1) * 256 + 257 * 256
  assert count == layers + 4 * (2 * 256**2 + 256) + 513 * 9


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'size': 7}, 'a map of 7 x 7 cells'),
    ({'unroll': 30}, 'config.unroll=30; the divisors of config.length=128'),
    ({'games': 10}, 'config.games=10; multiples of .* = 4'),
    ({'self_play': 0.26}, r'config.self_play \* games=33; multiples'),
    ({'batches': 7}, 'config.batches=7; the divisors of the 384 seats'),
    (
      {'rewards': (1.0,)},
      'config.rewards has 1 numbers; one for each of the 13',
    ),
    ({'num_games': 100}, 'config.num_games=100; multiples of 128'),
    ({'discount': 1.5}, 'config.discount=1.5; 0 to 1'),
    ({'hidden': ()}, r'config.hidden=\(\); one layer or more'),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(types.UsageError, match=message):
    dataclasses.replace(impala.Config(), **changes)
