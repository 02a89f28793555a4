"""What deck 004 says of networks, measured: the foundations.

Exclusive or by the slides' own weights and by learning; functions out of bumps
and out of polylines, and learned; the linear pieces of ReLU networks counted
exactly, against width and against depth; double descent of random features and
of an MLP; a product that is one multiplicative unit and that an MLP only comes
near to (`dl_lectures.analysis`: approximation, linear_regions,
double_descent).

Every part is kept in the workdir as soon as it is done: the same command goes
on where it was stopped.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from dl_lectures import types
from dl_lectures.analysis import (
  approximation,
  double_descent,
  linear_regions,
)
from dl_lectures.data import images, planar
from dl_lectures.training import report
from experiments import cli, parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of a run."""

  seed: int = 0  # of every random number
  xor_widths: tuple[int, ...] = (2, 3, 4)  # hidden units
  xor_seeds: int = 100  # networks of each width
  xor_steps: int = 2000  # updates
  # bumps of a function, pieces of a polyline, hidden units that learn
  widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
  function_steps: int = 3000  # updates of a network that learns a function
  lines: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # units of one layer
  depths: tuple[int, ...] = (1, 2, 3, 4, 5)  # layers of four units
  layouts: int = 10  # random networks whose pieces are counted
  images: str = 'digits'  # that random features classify
  examples: int = 500  # n that random features are fitted to
  feature_shares: tuple[float, ...] = (
    *(0.1, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15),
    *(1.2, 1.3, 1.5, 2.0, 3.0, 5.0),
  )  # N / n, in ascending order
  feature_draws: int = 3  # of features and of examples
  mlp_examples: int = 120  # n that an MLP is fitted to
  mlp_inputs: int = 10  # numbers of an example
  mlp_noise: float = 0.5  # of targets of variance 1
  # hidden units, in ascending order
  mlp_widths: tuple[int, ...] = (
    *(1, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 20, 30, 60),
  )
  mlp_sets: int = 4  # of examples
  mlp_starts: int = 2  # networks of each
  mlp_steps: int = 3000  # updates
  mlp_polish: int = 150  # steps of Levenberg and Marquardt after them
  product_size: int = 8  # numbers of x and of z
  product_examples: int = 2000
  product_widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
  product_steps: int = 2000  # updates

  def __post_init__(self):
    """Refuses what cannot be, in one line."""
    types.check_fields(
      self,
      'xor_seeds xor_steps function_steps layouts examples feature_draws '
      'mlp_examples mlp_inputs mlp_sets mlp_starts mlp_steps mlp_polish '
      'product_size product_examples product_steps',
      1,
    )
    types.check_fields(self, 'mlp_noise', 0)
    for field in dataclasses.fields(self):
      values = getattr(self, field.name)
      if isinstance(values, tuple) and (not values or min(values) <= 0):
        raise types.UsageError(
          f'config.{field.name}={values}; one or more numbers above 0 are '
          'possible'
        )
    if self.product_examples < self.product_size**2:
      raise types.UsageError(
        f'config.product_examples={self.product_examples}; at least '
        f'{self.product_size**2} are possible, the square of product_size'
      )


PRESETS = {
  'smoke': Config(
    xor_seeds=4,
    xor_steps=20,
    widths=(2, 8),
    function_steps=20,
    lines=(1, 2, 4),
    depths=(1, 2),
    layouts=2,
    examples=40,
    feature_shares=(0.5, 0.9, 1.0, 1.1, 2.0),
    feature_draws=1,
    mlp_examples=20,
    mlp_widths=(1, 2, 4),
    mlp_sets=1,
    mlp_starts=1,
    mlp_steps=20,
    mlp_polish=5,
    product_size=2,
    product_examples=64,
    product_widths=(2, 4),
    product_steps=20,
  ),
  'laptop': Config(),
}

ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
  'ReLU': jax.nn.relu,
  'sigmoid': jax.nn.sigmoid,
}
MLPS: Mapping[str, Callable[[Any], Any]] = {
  'tanh': jnp.tanh,
  'ReLU': jax.nn.relu,
}


def exclusive_or(config: Config, key: types.Key) -> dict[str, Any]:
  """Corners right by hand, and the share of networks right everywhere."""
  points = planar.corners()
  net = approximation.XOR_BY_HAND
  right = approximation.apply(net, points.x, jax.nn.sigmoid) > 0
  near = planar.corners(1.0)
  x, label = jnp.asarray(near.x), jnp.asarray(near.label)
  keys = jax.random.split(key, config.xor_seeds)

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def found(width: int, activation: Callable) -> Any:
    def one(key: types.Key) -> Any:
      return approximation.learn_xor(
        x, label, width, activation, key, steps=config.xor_steps
      )

    return jnp.mean(jax.vmap(one)(keys))

  return {
    'by_hand': int(np.sum(np.asarray(right) == (points.label == 1))),
    'linear': found(0, jax.nn.relu),
    **{
      name: [found(width, activation) for width in config.xor_widths]
      for name, activation in ACTIVATIONS.items()
    },
  }


def functions(config: Config, key: types.Key) -> dict[str, Any]:
  """The largest errors of bumps, polylines and learned networks."""
  grid = np.linspace(0, 1, 257)
  targets = jnp.stack(
    [jnp.float32(f(grid)) for f in approximation.FUNCTIONS.values()]
  )

  @functools.partial(jax.jit, static_argnums=0)
  def learn(width: int, key: types.Key) -> Any:
    def one(y: Any) -> Any:
      # Inputs of a deviation near 1.
      part = 4 * jnp.float32(grid[:, None]) - 2, y
      return approximation.mlp_error(
        part, part, width, key, steps=config.function_steps
      )

    return jnp.sqrt(jax.vmap(one)(targets) * jnp.var(targets, axis=1))

  found: dict[str, Any] = {name: {} for name in approximation.FUNCTIONS}
  learned = [learn(width, key) for width in config.widths]
  for i, (name, function) in enumerate(approximation.FUNCTIONS.items()):
    found[name] = {
      'bumps': [
        approximation.largest_error(
          function, approximation.bumps(function, n), approximation.sigmoid
        )
        for n in config.widths
      ],
      'polyline': [
        approximation.largest_error(
          function, approximation.polyline(function, n), approximation.relu
        )
        for n in config.widths
      ],
      'learned': [errors[i] for errors in learned],
      'constant': float(np.ptp(function(grid)) / 2),
    }
  return found


def regions(config: Config, key: types.Key) -> dict[str, Any]:
  """Linear pieces against width and depth."""
  random = np.random.default_rng(int(jax.random.bits(key)))
  lines, deep = [], []
  for units in config.lines:
    counts = []
    for _ in range(config.layouts):
      layers = linear_regions.random_layers([units], random)
      side = linear_regions.enclosing(layers) if units > 1 else 1.0
      counts.append(linear_regions.count(layers, side))
    lines.append(counts)
  for depth in config.depths:
    layouts = [
      linear_regions.random_layers([4] * depth, random)
      for _ in range(config.layouts)
    ]
    deep.append([linear_regions.count(layers, 10.0) for layers in layouts])
  return {
    'lines': lines,
    'folds': [
      linear_regions.count(linear_regions.folding(depth), 1.0)
      for depth in config.depths
    ],
    'random': deep,
  }


def random_features(config: Config, key: types.Key) -> dict[str, Any]:
  """The errors of random features, of each draw and size."""
  data = images.load(config.images)
  mean = data.train.mean(axis=0, dtype=np.float64)
  deviation = data.train.std(dtype=np.float64)
  count = min(config.examples, len(data.train))
  classes = np.eye(int(data.train_label.max()) + 1)

  def part(image: np.ndarray, label: np.ndarray) -> Any:
    # Centred: else many features would be off, or on, for all images.
    x = (image - mean) / deviation
    return x.reshape(len(x), -1), classes[label]

  train, test = [], []
  for draw in range(config.feature_draws):
    random = np.random.default_rng(
      int(jax.random.bits(jax.random.fold_in(key, draw)))
    )
    which = random.permutation(len(data.train))[:count]
    errors = double_descent.random_features(
      part(data.train[which], data.train_label[which]),
      part(data.test[:1000], data.test_label[:1000]),
      feature_sizes(config),
      random,
    )
    train.append([error.train for error in errors])
    test.append([error.test for error in errors])
  return {'train': train, 'test': test}


def feature_sizes(config: Config) -> list[int]:
  """The numbers of random features."""
  return [round(share * config.examples) for share in config.feature_shares]


def mlp_widths(config: Config, key: types.Key) -> dict[str, Any]:
  """The errors of MLPs, of each width, set of examples and start."""
  random = np.random.default_rng(int(jax.random.bits(key)))
  trains, tests = [], []
  for _ in range(config.mlp_sets):
    net = double_descent.teacher(random, config.mlp_inputs)
    for part, count in ((trains, config.mlp_examples), (tests, 2000)):
      x = random.normal(size=(count, config.mlp_inputs))
      part.append((x, approximation.apply(net, x, approximation.relu)))
    deviation = tests[-1][1].std()
    x, y = trains[-1]
    noise = config.mlp_noise * random.normal(size=len(y))
    trains[-1] = x, y / deviation + noise
    tests[-1] = tests[-1][0], tests[-1][1] / deviation
  train, test = (
    tuple(jnp.float32(np.stack(each)) for each in zip(*some, strict=True))
    for some in (trains, tests)
  )
  keys = jax.random.split(key, config.mlp_starts)

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def errors(width: int, activation: Callable) -> Any:
    def one(train: Any, test: Any, key: types.Key) -> Any:
      return double_descent.mlp(
        train,
        test,
        width,
        activation,
        key,
        steps=config.mlp_steps,
        learning_rate=0.02,
        polish=config.mlp_polish,
      )

    starts = jax.vmap(one, (None, None, 0))
    return jax.vmap(starts, (0, 0, None))(train, test, keys)

  result = {}
  for name, activation in MLPS.items():
    found = [errors(width, activation) for width in config.mlp_widths]
    result[name] = {
      'train': [np.asarray(train).tolist() for train, _ in found],
      'test': [np.asarray(test).tolist() for _, test in found],
    }
  return result


def products(config: Config, key: types.Key) -> dict[str, Any]:
  """The errors of a bilinear layer, and of MLPs, on <x, z>."""
  random = np.random.default_rng(int(jax.random.bits(key)))
  train, test = (
    approximation.products(random, config.product_examples, config.product_size)
    for _ in range(2)
  )

  @functools.partial(jax.jit, static_argnums=0)
  def error(width: int) -> Any:
    return approximation.mlp_error(
      train, test, width, key, steps=config.product_steps
    )

  return {
    'bilinear': approximation.bilinear_error(train, test),
    'constant': float(np.abs(test[1] - train[1].mean()).max()),
    'mlp': [error(width) for width in config.product_widths],
  }


PARTS: dict[str, Callable[[Config, types.Key], dict[str, Any]]] = {
  'xor': exclusive_or,
  'functions': functions,
  'regions': regions,
  'random features': random_features,
  'mlp': mlp_widths,
  'products': products,
}


def train(config: Config, *, workdir: str | None) -> Mapping[str, Any]:
  """Measures everything, and reports.

  Args:
    config: the settings.
    workdir: where parts are kept; None keeps nothing.

  Returns:
    The final metrics.
  """
  found = parts.measure(
    config,
    workdir,
    (
      (name, functools.partial(measure, config))
      for name, measure in PARTS.items()
    ),
  )
  report.save_figure(draw(config, found), workdir, 'foundations')
  claims = list(make_claims(config, found))
  metrics = {
    **peaks(config, found),
    'xor_by_hand': found['xor']['by_hand'],
    'bilinear_error': found['products']['bilinear'],
  }
  report.write(
    workdir,
    title='Foundations: what networks can represent, and how they fit',
    config=config,
    claims=claims,
    metrics=metrics,
    figures={
      'foundations': 'Exclusive or; bumps; errors against width; linear '
      'pieces, and how many; double descent; products.'
    },
    minutes=parts.minutes(found),
  )
  return metrics


def make_claims(config: Config, found: parts.Found) -> Iterator[types.Claim]:
  """The rows of the report."""
  yield from _xor_claims(config, found['xor'])
  for name in approximation.FUNCTIONS:
    errors, most = found['functions'][name], config.widths[-1]
    for how, of_what in (
      ('bumps', f'{most} bumps of sigmoids'),
      ('polyline', f'{most} ReLUs set by hand'),
    ):
      yield types.Claim(
        f'{name}: largest error of {of_what}',
        errors[how][-1],
        baseline=errors['constant'],
        baseline_name='the best constant',
      )
  yield from _region_claims(config, found['regions'])
  yield from _descent_claims(config, found)
  result = found['products']
  size = config.product_size
  yield types.at_most(
    f'<x, z> of {size} numbers each: largest error of a bilinear layer',
    result['bilinear'],
    1e-10,
    baseline=result['constant'],
    baseline_name='the mean',
  )
  for width, error in zip(config.product_widths, result['mlp'], strict=True):
    yield types.Claim(
      f'<x, z>: mean squared error of an MLP of {width} units, by the variance',
      error,
      baseline=1.0,
      baseline_name='the mean',
    )


def _xor_claims(config: Config, result: Any) -> Iterator[types.Claim]:
  yield types.at_least(
    "exclusive or by the slides' weights: corners right",
    result['by_hand'],
    4,
    exact=True,
  )
  for name in ACTIVATIONS:
    for width, share in zip(config.xor_widths, result[name], strict=True):
      yield types.Claim(
        f'exclusive or, {width} hidden units, {name}: share of '
        f'{config.xor_seeds} networks that find it',
        share,
        interval=_wilson(share, config.xor_seeds),
        baseline=result['linear'],
        baseline_name='logistic regression',
      )


def _wilson(share: float, count: int) -> tuple[float, float]:
  """The 95% interval of a share (Wilson 1927).

  >>> low, high = _wilson(1.0, 100)
  >>> round(low, 3), round(high, 3)
  (0.963, 1.0)
  """
  z = 1.96
  middle = share + z**2 / (2 * count)
  half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
  scale = 1 + z**2 / count
  return float(middle - half) / scale, float(middle + half) / scale


def _region_claims(config: Config, result: Any) -> Iterator[types.Claim]:
  wanted = [linear_regions.most_of_lines(units) for units in config.lines]
  right = sum(
    count == most
    for counts, most in zip(result['lines'], wanted, strict=True)
    for count in counts
  )
  total = len(config.lines) * config.layouts
  yield types.at_least(
    f'linear pieces of one layer of up to {config.lines[-1]} units: networks, '
    f'of {total}, with 1 + n + C(n, 2)',
    right,
    total,
    exact=True,
  )
  depth, folds = config.depths[-1], result['folds'][-1]
  yield types.at_least(
    f'linear pieces of {depth} folding layers of 4 units',
    folds,
    4**depth,
    exact=True,
    baseline=linear_regions.most_of_lines(4 * depth),
    baseline_name=f'the most that one layer of {4 * depth} units has',
  )
  bound = linear_regions.upper_bound([4] * depth)
  yield types.at_most(
    f'linear pieces of {depth} random layers of 4 units, the most',
    max(result['random'][-1]),
    bound,
    exact=True,
  )


def _descent_claims(
  config: Config, found: parts.Found
) -> Iterator[types.Claim]:
  at = peaks(config, found)
  yield _peak_claim(
    'random features',
    at['random_features_peak'],
    feature_sizes(config),
    config.examples,
  )
  for name in MLPS:
    yield _peak_claim(
      f'an MLP of {name}, by all of its parameters',
      at[f'mlp_{name}_peak'],
      mlp_sizes(config),
      config.mlp_examples,
    )


def mlp_sizes(config: Config) -> list[int]:
  """The numbers of an MLP's parameters."""
  return [(config.mlp_inputs + 2) * width + 1 for width in config.mlp_widths]


def peaks(config: Config, found: parts.Found) -> dict[str, int]:
  """The sizes at which test errors are largest."""
  features = np.mean(found['random features']['test'], axis=0)
  result = {
    'random_features_peak': double_descent.peak(
      feature_sizes(config), features.tolist()
    )
  }
  for name in MLPS:
    test = np.median(_flat(found['mlp'][name]['test']), axis=1)
    peak = double_descent.peak(mlp_sizes(config), test.tolist())
    result[f'mlp_{name}_peak'] = peak
  return result


def _peak_claim(which: str, at: int, sizes: list[int], n: int) -> types.Claim:
  return types.at_most(
    f'double descent of {which}: distance of the peak from N = n, by n',
    round(abs(at / n - 1), 9),
    0.1,
    baseline=float(np.mean([abs(size / n - 1) for size in sizes])),
    baseline_name='a size drawn from those tried',
  )


def _flat(errors: Any) -> np.ndarray:
  """[widths, sets, starts] to [widths, sets times starts]."""
  errors = np.asarray(errors)
  return errors.reshape(len(errors), -1)


def draw(config: Config, found: parts.Found) -> Figure:
  """Nine panels, three of each kind of claim."""
  page = Figure(figsize=(13, 11), layout='constrained')
  axes: Any = page.subplots(3, 3)
  _draw_xor(axes[0, 0], config, found['xor'])
  _draw_bumps(axes[0, 1])
  _draw_errors(axes[0, 2], config, found['functions'])
  _draw_pieces(axes[1, 0])
  _draw_counts(axes[1, 1:], config, found['regions'])
  _draw_features(axes[2, 0], config, found['random features'])
  _draw_mlp(axes[2, 1], config, found['mlp'])
  axes[2, 2].loglog(
    config.product_widths, found['products']['mlp'], 'o-', label='MLP'
  )
  axes[2, 2].set(
    title='<x, z>: a bilinear layer is off by '
    f'{found["products"]["bilinear"]:.0e}',
    xlabel='hidden units of an MLP',
    ylabel='its squared error, by the variance',
  )
  for panel in axes.ravel():
    panel.spines[['top', 'right']].set_visible(False)
  return page


def _draw_xor(axes: Any, config: Config, result: Any) -> None:
  for i, name in enumerate(ACTIVATIONS):
    place = np.arange(len(config.xor_widths)) + 0.4 * (i - 0.5)
    axes.bar(place, result[name], width=0.36, label=name)
  axes.set_xticks(range(len(config.xor_widths)), map(str, config.xor_widths))
  axes.set(
    title='exclusive or is found',
    xlabel='hidden units',
    ylabel=f'share of {config.xor_seeds} networks',
    ylim=(0, 1.15),
  )
  axes.legend(frameon=False, ncols=2, loc='upper left')


def _draw_bumps(axes: Any) -> None:
  x = np.linspace(0, 1, 1001)
  function = approximation.FUNCTIONS['sine']
  net = approximation.bumps(function, 12, steepness=25.0)
  for k in range(12):
    pair = approximation.Hidden(
      net.w[:, [k, k + 12]], net.b[[k, k + 12]], net.v[[k, k + 12]], 0.0
    )
    bump = approximation.apply(pair, x[:, None], approximation.sigmoid)
    axes.fill_between(x, bump, color=f'C{k % 10}', alpha=0.35, lw=0)
  axes.plot(x, function(x), 'k', lw=1)
  axes.plot(
    x, approximation.apply(net, x[:, None], approximation.sigmoid), 'C3', lw=1.5
  )
  axes.set(title='a sine of 12 bumps, 24 sigmoids', xlabel='x')


def _draw_errors(axes: Any, config: Config, result: Any) -> None:
  for i, name in enumerate(approximation.FUNCTIONS):
    for how, style in (('bumps', '-'), ('polyline', '--'), ('learned', ':')):
      errors = np.maximum(result[name][how], 1e-7)  # a polyline is a corner
      axes.loglog(
        config.widths, errors, style, color=f'C{i}', label=f'{name}, {how}'
      )
  axes.set(
    title='error against width',
    xlabel='bumps, or hidden units',
    ylabel='largest error (learned: root mean square)',
  )
  axes.legend(frameon=False, fontsize=7, ncols=3, loc='lower left')
  axes.set_ylim(bottom=1e-9)


def _draw_pieces(axes: Any) -> None:
  layers = linear_regions.random_layers([8, 8], np.random.default_rng(0))
  found = linear_regions.pieces(layers, 3.0)
  colors = np.random.default_rng(0).uniform(size=len(found))
  polygons = PolyCollection(
    [piece.corners for piece in found],
    array=colors,
    cmap='viridis',
    edgecolors='w',
    linewidths=0.6,
  )
  axes.add_collection(polygons)
  axes.set(
    title=f'{len(found)} linear pieces of two layers of 8',
    xlim=(-3, 3),
    ylim=(-3, 3),
    aspect='equal',
  )


def _draw_counts(axes: Any, config: Config, result: Any) -> None:
  wide, deep = axes
  for counts in np.transpose(result['lines']):
    wide.loglog(config.lines, counts, 'C0o', alpha=0.5)
  dense = np.arange(1, config.lines[-1] + 1)
  wide.loglog(dense, list(map(linear_regions.most_of_lines, dense)), 'k', lw=1)
  wide.set(
    title='one layer: 1 + n + C(n, 2)', xlabel='units', ylabel='linear pieces'
  )
  depths = np.array(config.depths)
  one = [linear_regions.most_of_lines(4 * depth) for depth in depths]
  most = [linear_regions.upper_bound([4] * depth) for depth in depths]
  deep.semilogy(depths, result['folds'], 'o-', label='folding layers')
  deep.semilogy(
    depths, np.mean(result['random'], axis=1), 's-', label='random layers'
  )
  deep.semilogy(depths, one, 'k--', label='one layer, at most')
  deep.semilogy(depths, most, 'k:', label='so many layers, at most')
  deep.set(title='layers of 4 units', xlabel='layers', ylabel='linear pieces')
  deep.legend(frameon=False)


def _draw_features(axes: Any, config: Config, result: Any) -> None:
  share = np.array(feature_sizes(config)) / config.examples
  axes.loglog(share, np.mean(result['test'], axis=0), 'o-', label='test')
  train = np.maximum(np.mean(result['train'], axis=0), 1e-5)
  axes.loglog(share, train, '.-', label='train')
  axes.axvline(1, color='k', ls=':')
  axes.set(
    title='double descent: random features',
    xlabel='features by examples',
    ylabel='mean squared error',
    ylim=(0.5e-5, None),
  )
  axes.legend(frameon=False)


def _draw_mlp(axes: Any, config: Config, result: Any) -> None:
  share = np.array(mlp_sizes(config)) / config.mlp_examples
  for i, name in enumerate(MLPS):
    for part, style in (('test', 'o-'), ('train', '.:')):
      errors = np.median(_flat(result[name][part]), axis=1)
      axes.loglog(
        share,
        np.maximum(errors, 1e-5),
        style,
        color=f'C{i}',
        ms=4,
        label=f'{name}, {part}',
      )
  axes.axvline(1, color='k', ls=':')
  axes.set(
    title="double descent: an MLP's width",
    xlabel='parameters by examples',
    ylabel='mean squared error',
    ylim=(0.5e-5, None),
  )
  axes.legend(frameon=False, fontsize=8)


if __name__ == '__main__':
  cli.run(
    train,
    config=Config,
    presets=PRESETS,
    doc=__doc__ or '',
    examples=(
      'python -m experiments.foundations --workdir=runs/foundations',
      'python -m experiments.foundations --config.images=mnist',
      'python -m experiments.foundations --preset=smoke --workdir=/tmp/smoke',
    ),
  )
