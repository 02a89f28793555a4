"""Populations: the published toy and its traps, rules, ranges, lineages."""

import functools
import json

import hypothesis
import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dl_lectures.training import population, sharding
from dl_lectures.training.population import Range, linear, whole
from dl_lectures.types import UsageError

# -------------------------------------------- the toy of PBT, 2017, figure 2

HEIGHTS = {'h0': Range(0.0, 2.0, linear), 'h1': Range(0.0, 2.0, linear)}
# Differences with a deviation of 0.1.
explore_heights = functools.partial(population.explore, factor=1.1)


def quality(theta):
  return 1.2 - jnp.sum(theta**2, axis=-1)


def toy(exploit, explore, key):
  """Two workers climb 1.2 - h0 x^2 - h1 y^2, and are judged without h.

  Neither surrogate sees more than one of the two directions: h = (1, 0) and
  (0, 1). 200 steps with rate 0.01, ready every 4.
  """

  def generation(carry, key):
    theta, hyper = carry
    h = jnp.stack([hyper['h0'], hyper['h1']], axis=1)
    for _ in range(4):
      theta = theta - 0.01 * 2 * h * theta
    exploit_key, explore_key = jax.random.split(key)
    parent = exploit(quality(theta), exploit_key)
    theta, hyper = population.take((theta, hyper), parent)
    changes = parent != jnp.arange(2)
    return (theta, explore(HEIGHTS, hyper, explore_key, changes)), parent

  hyper = {'h0': jnp.array([1.0, 0.0]), 'h1': jnp.array([0.0, 1.0])}
  start = jnp.full((2, 2), 0.9), hyper
  keys = jax.random.split(key, 50)
  (theta, _), parents = jax.lax.scan(generation, start, keys)
  return jnp.max(quality(theta)), parents


def best_of_300(exploit, explore):
  keys = jax.random.split(jax.random.key(0), 300)
  run = jax.vmap(functools.partial(toy, exploit, explore))
  return np.asarray(jax.jit(run)(keys)[0])


def nobody(scores, key):
  del scores, key
  return jnp.arange(2)


def strictly_better(scores, key):
  """The trap: who is equal is never followed."""
  del key
  return jnp.where(scores[::-1] > scores, jnp.array([1, 0]), jnp.arange(2))


def by_factors_only(ranges, hyper, key, where):
  """The trap: what is zero stays so."""
  del ranges
  way = jax.random.bernoulli(key, 0.5, (2, 2))
  factor = jnp.where(way, 0.8, 1.2)
  return {
    name: jnp.where(where, value * factor[i], value)
    for i, (name, value) in enumerate(sorted(hyper.items()))
  }


def test_the_toy_is_solved_by_a_population_and_not_by_a_grid():
  grid = best_of_300(nobody, explore_heights)
  assert np.round(grid, 3).min() == np.round(grid, 3).max() == 0.39
  tried = best_of_300(population.binary_tournament, explore_heights)
  assert np.percentile(tried, 5) >= 1.19
  cut = best_of_300(population.truncation, explore_heights)
  assert np.percentile(cut, 5) >= 1.19


@pytest.mark.parametrize(
  ('exploit', 'explore'),
  [
    (strictly_better, explore_heights),
    (population.binary_tournament, by_factors_only),
  ],
  ids=('equals are never followed', 'zeros stay'),
)
def test_either_trap_leaves_the_toy_where_the_grid_is(exploit, explore):
  assert np.round(best_of_300(exploit, explore).max(), 3) == 0.39


# --------------------------------------------------------------------- rules


def many(rule, scores, count=4000):
  keys = jax.random.split(jax.random.key(1), count)
  return np.asarray(jax.jit(jax.vmap(lambda key: rule(scores, key)))(keys))


def test_truncation_replaces_the_worst_by_any_of_the_best():
  scores = jnp.array([5.0, 1, 9, 3, 8, 2, 7, 4, 6, 0])
  parents = many(population.truncation, scores)
  for worst in (9, 1):
    assert set(parents[:, worst]) == {2, 4}
    assert abs((parents[:, worst] == 2).mean() - 0.5) < 0.04
  others = [i for i in range(10) if i not in (9, 1)]
  assert (parents[:, others] == others).all()


def test_equals_are_ordered_by_chance():
  parents = many(population.truncation, jnp.zeros(5))
  follows = parents != np.arange(5)
  assert (follows.sum(1) == 1).all()
  np.testing.assert_allclose(follows.mean(0), 0.2, atol=0.03)
  # Of two equals, one follows the other, either with the same chance.
  parents = many(population.binary_tournament, jnp.zeros(2))
  assert ((parents == [0, 0]).all(1) | (parents == [1, 1]).all(1)).all()
  assert abs((parents == 0).all(1).mean() - 0.5) < 0.04


def test_in_a_tournament_the_better_is_followed_and_any_rival_met():
  scores = jnp.array([3.0, 1.0, 2.0])
  parents = many(population.binary_tournament, scores)
  assert (parents[:, 0] == 0).all()
  assert set(parents[:, 1]) == {0, 2}
  assert abs((parents[:, 2] == 0).mean() - 0.5) < 0.04


def test_by_rating_only_a_clear_winner_is_followed():
  # 400 Elo points are 10 to 1, 100 points 64%.
  parents = many(population.ftw, jnp.array([0.0, 400.0, 500.0]))
  assert set(parents[:, 0]) == {1, 2}
  assert (parents[:, 1:] == [1, 2]).all()
  # At exactly the threshold it is followed.
  even = functools.partial(population.ftw, threshold=0.5)
  assert (many(even, jnp.zeros(2), 8) == [1, 0]).all()


@pytest.mark.parametrize('shift', [0.9, 1.5, 2.0])
def test_the_t_test_is_that_of_scipy(shift):
  rng = np.random.default_rng(0)
  rows = rng.normal([[0.0], [shift]], [[1.0], [2.0]], (2, 12))
  expected = stats.ttest_ind(
    rows[1], rows[0], equal_var=False, alternative='greater'
  ).pvalue
  for level in (expected * 0.98, expected * 1.02):
    rule = functools.partial(population.t_test, level=level)
    parents = many(rule, jnp.array(rows, jnp.float32), 4)
    assert (parents[:, 1] == 1).all()
    assert (parents[:, 0] == (1 if level > expected else 0)).all()


def test_one_alone_cannot_compete():
  with pytest.raises(UsageError, match='a population of 1'):
    population.ftw(jnp.zeros(1), jax.random.key(0))


# -------------------------------------------------------------------- ranges

RANGES = {
  'rate': Range(1e-5, 5e-3),
  'weight': Range(-1.0, 1.0, linear),
  'period': Range(5, 19, whole),
}


@functools.cache
def explored():
  return jax.jit(functools.partial(population.explore, RANGES))


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
  some.integers(0, 2**31 - 1),
  some.lists(some.floats(-2, 2, width=32), min_size=4, max_size=4),
)
def test_explored_values_stay_in_range_and_the_others_as_they_are(seed, told):
  hyper = {
    'rate': jnp.array(told, jnp.float32),
    'weight': jnp.array([told] * 3, jnp.float32).T,
    'period': jnp.array([5, 9, 19, 12]),
  }
  where = jnp.array([True, False, True, True])
  after = explored()(hyper, jax.random.key(seed), where)
  for name, value in after.items():
    assert value.dtype == hyper[name].dtype
    np.testing.assert_array_equal(value[1], hyper[name][1])
    population.check(RANGES, {name: np.asarray(value)[np.asarray(where)]})


def test_values_go_up_as_often_as_down_and_zeros_leave_zero():
  hyper = {
    'rate': jnp.full(4000, 1e-3),
    'weight': jnp.zeros(4000),
    'period': jnp.full(4000, 12),
  }
  after = explored()(hyper, jax.random.key(0), jnp.ones(4000, bool))
  rate = np.asarray(after['rate'] / hyper['rate'])
  assert set(np.round(rate, 4)) == {np.float32(1.2), np.float32(0.8333)}
  assert abs((rate > 1).mean() - 0.5) < 0.03
  weight = np.asarray(after['weight'])
  assert (weight != 0).mean() > 0.99
  assert abs(weight.std() - 0.2) < 0.01
  assert set(np.asarray(after['period'])) == set(range(5, 20))
  # And a zero where no factor could move it.
  nothing = hyper | {'rate': jnp.zeros(4000)}
  after = explored()(nothing, jax.random.key(0), jnp.ones(4000, bool))
  assert (np.asarray(after['rate']) > 0).all()


def test_first_values_fill_their_ranges():
  hyper = population.draw(RANGES, jax.random.key(0), 4000)
  population.check(RANGES, hyper)
  logs = (np.log(hyper['rate']) - np.log(1e-5)) / np.log(500)
  for values in (logs, (np.asarray(hyper['weight']) + 1) / 2):
    assert stats.kstest(values, 'uniform').pvalue > 1e-3
  counts = np.bincount(hyper['period'], minlength=20)[5:]
  assert counts.min() > 200


def test_some_values_change_where_the_chance_is_small():
  hyper = population.draw(RANGES, jax.random.key(0), 4000)
  rarely = jax.jit(functools.partial(population.explore, RANGES, chance=0.05))
  after = rarely(hyper, jax.random.key(1), jnp.ones(4000, bool))
  share = np.mean(np.asarray(after['rate'] != hyper['rate']))
  assert 0.03 < share < 0.07


@pytest.mark.parametrize(
  ('ranges', 'hyper', 'told'),
  [
    ({'a': Range(0.0, 1.0)}, {}, 'a from 0.0 to 1.0 by factors'),
    ({'a': Range(2.0, 1.0)}, {}, 'a from 2.0 to 1.0'),
    (RANGES, {'rate': [1.0]}, 'rate=1; 1e-05 to 0.005'),
    (RANGES, {'tau': [1.0]}, 'no range of tau'),
  ],
)
def test_what_is_out_of_range_is_told_in_one_line(ranges, hyper, told):
  with pytest.raises(UsageError, match=told) as error:
    population.check(ranges, hyper)
  assert '\n' not in str(error.value)


# ------------------------------------------------------- a population of runs


def trained(over):
  """Four linear regressions, each with its rate, as one program."""
  optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
  x = jax.random.normal(jax.random.key(0), (32, 3))
  y = x @ jnp.array([1.0, -2.0, 0.5])

  def one(params, opt_state, rate):
    def update(carry, _):
      params, opt_state = carry
      opt_state = population.with_hyper(opt_state, learning_rate=rate)
      loss, grads = jax.value_and_grad(lambda w: jnp.mean((x @ w - y) ** 2))(
        params
      )
      updates, opt_state = optimizer.update(grads, opt_state)
      return (optax.apply_updates(params, updates), opt_state), loss

    return jax.lax.scan(update, (params, opt_state), None, 10)

  params = jnp.zeros((4, 3))
  opt_state = jax.vmap(optimizer.init)(params)
  rates = jnp.array([1e-3, 1e-2, 1e-1, 3e-1])
  return jax.jit(over(one))(params, opt_state, rates)


def test_all_ways_over_the_members_are_the_same():
  mesh = sharding.make_mesh(4)
  first = trained(population.mapped)
  for over in (jax.vmap, population.sharded(mesh)):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, trained(over), first)
  losses = np.asarray(first[1])[:, -1]
  assert losses.argmin() > losses.argmax()  # the rates were used


def test_who_follows_has_all_that_its_parent_had():
  (params, opt_state), _ = trained(population.mapped)
  parent = jnp.array([2, 1, 2, 3])
  after = population.take((params, opt_state), parent)
  for before, now in zip(
    jax.tree.leaves((params, opt_state)), jax.tree.leaves(after), strict=True
  ):
    np.testing.assert_array_equal(now, np.asarray(before)[[2, 1, 2, 3]])


def test_an_unknown_hyperparameter_is_told():
  state = optax.inject_hyperparams(optax.adam)(1e-3).init(jnp.zeros(2))
  with pytest.raises(UsageError, match='no rate; possible: '):
    population.with_hyper(state, rate=jnp.float32(1))


# ------------------------------------------------------------------- lineages


def test_a_lineage_tells_the_schedule_of_a_member(tmp_path):
  path = tmp_path / 'lineage.jsonl'
  hyper = {'rate': jnp.array([0.125, 0.25, 0.5])}
  population.append(path, population.begun(hyper, seed=7))
  # At 10, 0 follows 2. At 20, 2 follows 0 and 0 follows 1: both had been so.
  for step, parent, rates in (
    (10, [2, 1, 2], [0.75, 0.25, 0.5]),
    (20, [1, 1, 0], [0.3125, 0.25, 0.5]),
  ):
    after = {'rate': jnp.array(rates)}
    scores = jnp.array([0.0, 1.0, 2.0])
    lines = population.births(
      step, jnp.array(parent), scores, hyper, after, seed=7
    )
    population.append(path, lines)
    hyper = after
  lineage = population.read(path)
  assert len(lineage) == 3 + 1 + 2
  assert lineage[3] == population.Birth(
    10, 0, 2, (0.0, 2.0), {'rate': 0.125}, {'rate': 0.75}, 7
  )
  schedule = population.schedule(lineage, 2)
  assert schedule == [
    (0, {'rate': 0.5}),
    (10, {'rate': 0.75}),
    (20, {'rate': 0.5}),
  ]
  assert population.schedule(lineage, 0) == [
    (0, {'rate': 0.25}),
    (20, {'rate': 0.3125}),
  ]
  with pytest.raises(UsageError, match='member 5'):
    population.schedule(lineage, 5)


@pytest.mark.parametrize('end', ['{"step": 3, "chi', '[1]', '{"step": 3}'])
def test_a_lineage_that_is_cut_short_is_told(tmp_path, end):
  path = tmp_path / 'lineage.jsonl'
  population.append(path, population.begun({'rate': jnp.ones(2)}))
  with open(path, 'a') as file:
    file.write(end)
  with pytest.raises(UsageError, match='jsonl, line 3') as error:
    population.read(path)
  assert '\n' not in str(error.value)
  assert json.loads(path.read_text().splitlines()[1])['child'] == 1


def test_a_run_that_goes_on_forgets_what_it_makes_again(tmp_path):
  path = tmp_path / 'lineage.jsonl'
  hyper = {'rate': jnp.array([1.0, 2.0])}
  parent, scores = jnp.array([1, 1]), jnp.zeros(2)

  def write(step):
    lines = population.births(step, parent, scores, hyper, hyper)
    population.write_from(path, step, lines)

  population.write_from(path, 0, population.begun(hyper))
  write(5)
  write(10)
  text = path.read_text()
  # As a kill while it was written would leave it.
  (tmp_path / 'lineage.jsonl.tmp').write_text('{"st')
  for step in (5, 10):
    write(step)
  assert path.read_text() == text
  assert [line.step for line in population.read(path)] == [0, 0, 5, 10]
  assert [file.name for file in tmp_path.iterdir()] == ['lineage.jsonl']
