"""How good a distogram is, and pictures of it beside what others say.

A distogram is judged by its negative log-likelihood, nats per pair, and by the
precision of its likeliest contacts; scores of contacts by the latter alone.
Beside them stands what the chain's length and the pairs' separation tell, of
any protein (Senior et al., Nature 577, 2020, figure 2 and Methods; slides, deck
000, "Folding Proteins with AlphaFold").

>>> bins = np.full((8, 8), 40)
>>> told = fit_separations([bins])
>>> log_probs = by_separation(told, 8)
>>> log_probs.shape, int(log_probs[0, 7].argmax())
((8, 8, 64), 40)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dl_lectures.ops import distogram, structure_scores
from dl_lectures.types import Claim, at_least

# Shorter, in between, longer: chains of about the same number each.
_LENGTHS = (80, 105)
# As many pairs as weigh as much as what is known without the length.
_PRIOR = 64.0

# Contacts of L residues or more apart: the separations of CASP.
NEAREST = 6
DIVISORS = (1, 2, 5)


class Separations(NamedTuple):
  """Histograms of distances by separation.

  Attributes:
    log_probs: [3, S, 64], of short, middling and long chains; what is farther
      apart than S - 1 has the last one.
  """

  log_probs: np.ndarray


def fit_separations(bins: Sequence[np.ndarray]) -> Separations:
  """Counts the distances of known chains.

  Far separations are rare and alike: from 8 on, each is counted with its
  neighbours up to an eighth away. What is seen in chains of one length is mixed
  with what is seen in all, which weighs as 64 pairs.

  Args:
    bins: of each chain [L, L], the bins of its distances.
  """
  size = max(len(one) for one in bins)
  counts = np.zeros((len(_LENGTHS) + 1, size, distogram.BINS))
  for one in bins:
    group = np.searchsorted(_LENGTHS, len(one), side='right')
    i, j = np.triu_indices(len(one), 1)
    np.add.at(counts, (group, j - i, one[i, j]), 1)
  place = np.arange(size)
  near = np.abs(place[:, None] - place) <= place[:, None] // 8
  counts = np.einsum('st,gtb->gsb', near, counts)
  every = counts.sum(axis=0) + 1 / distogram.BINS
  every /= every.sum(axis=-1, keepdims=True)
  mixed = counts + _PRIOR * every[None]
  return Separations(np.log(mixed / mixed.sum(axis=-1, keepdims=True)))


def by_separation(told: Separations, length: int) -> np.ndarray:
  """The distogram of any chain of a length, [L, L, 64] log-probabilities."""
  place = np.arange(length)
  apart = np.abs(place[:, None] - place[None])
  group = np.searchsorted(_LENGTHS, length, side='right')
  table = told.log_probs[group]
  return table[np.minimum(apart, len(table) - 1)].astype(np.float32)


def nll(log_probs: np.ndarray, bins: np.ndarray) -> float:
  """Nats per pair i < j.

  Args:
    log_probs: [L, L, 64].
    bins: [L, L], what is true.

  >>> round(nll(np.full((4, 4, 64), -np.log(64)), np.zeros((4, 4), int)), 3)
  4.159
  """
  i, j = np.triu_indices(len(bins), 1)
  return -float(np.mean(log_probs[i, j, bins[i, j]]))


def precisions(score: np.ndarray, bins: np.ndarray) -> dict[str, float]:
  """Of the best L, L/2 and L/5 pairs, how many are contacts.

  Args:
    score: [L, L], higher is likelier.
    bins: [L, L], bins of the true distances.

  Returns:
    'L', 'L/2' and 'L/5' to shares; pairs at least 6 apart count.
  """
  length = len(score)
  pad = [(0, -length % 64)] * 2
  found = _precisions(
    jnp.asarray(np.pad(score, pad), jnp.float32),
    jnp.asarray(np.pad(bins < distogram.CONTACT_BINS, pad)),
    jnp.arange(length + pad[0][1]) < length,
  )
  names = ['L', *(f'L/{k}' for k in DIVISORS[1:])]
  return dict(zip(names, map(float, found), strict=True))


@jax.jit
def _precisions(score, contact, mask):
  return [
    structure_scores.contact_precision(
      score, contact, mask, divisor=divisor, nearest=NEAREST
    )
    for divisor in DIVISORS
  ]


def judge(log_probs: np.ndarray, bins: np.ndarray) -> dict[str, float]:
  """`nll` and `precisions` of a distogram."""
  contact = np.asarray(distogram.contact_probability(jnp.asarray(log_probs)))
  return {'nll': nll(log_probs, bins), **precisions(contact, bins)}


def bootstrap(values: ArrayLike) -> tuple[float, float]:
  """95% of the mean of some chains' values, by drawing chains anew.

  >>> low, high = bootstrap([0.0, 0.1, 0.2, 0.3])
  >>> 0 <= low < 0.15 < high <= 0.3
  True
  """
  random = np.random.default_rng(0)
  chains = np.asarray(values)
  drawn = random.choice(chains, (4000, len(chains)))
  low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
  return float(low), float(high)


def draw_maps(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
  """Maps side by side, a row for each chain.

  Args:
    rows: of each chain, title -> [L, L]; what ends in 'DCA' is drawn as a
      score, all else as distances.
  """
  titles = list(next(iter(rows.values())))
  figure = Figure(
    figsize=(3.1 * len(titles), 3.0 * len(rows)), layout='constrained'
  )
  grid = figure.subplots(len(rows), len(titles), squeeze=False)
  for number, (name, maps) in enumerate(rows.items()):
    line = grid[number]
    for axes, (title, values) in zip(line, maps.items(), strict=True):
      if title.endswith('DCA'):
        high = np.percentile(values, 99)
        axes.imshow(values, cmap='Greys', vmin=0, vmax=high)
      else:
        axes.imshow(values, cmap='viridis_r', vmin=2, vmax=22)
      axes.set_xticks([])
      axes.set_yticks([])
      if not number:
        axes.set_title(title)
    line[0].set_ylabel(name)
  scale = ScalarMappable(Normalize(2, 22), 'viridis_r')
  figure.colorbar(scale, ax=grid, label='angstrom', shrink=0.6)
  return figure


def draw_depths(rows: Sequence[Mapping[str, Any]]) -> Figure:
  """What more sequences tell: nats per pair, and precision.

  Args:
    rows: of chains at several depths, as for `distogram_claims`, with 'rows'.
  """
  depths = sorted({row['rows'] for row in rows})

  def curve(*names):
    return [
      float(_of([r for r in rows if r['rows'] == d], *names).mean())
      for d in depths
    ]

  curves = {
    'nats per pair': {
      'network': curve('network', 'nll'),
      'separation and length': curve('separation', 'nll'),
      'reference network': curve('reference', 'nll'),
    },
    'precision of the best L contacts': {
      'network': curve('network', 'L'),
      'mean-field DCA': curve('dca', 'L'),
      'separation': curve('separation', 'L'),
      'chance': curve('contacts'),
    },
  }
  figure = Figure(figsize=(9, 3.6), layout='constrained')
  for axes, (what, lines) in zip(
    figure.subplots(1, 2), curves.items(), strict=True
  ):
    for title, values in lines.items():
      axes.plot(depths, values, marker='o', label=title)
    axes.set_xscale('log')
    axes.set_xlabel('effective number of sequences')
    axes.set_ylabel(what)
    axes.grid(alpha=0.3)
    axes.legend()
  return figure


def summarise(
  rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, float]:
  """The means over chains, by name.

  Args:
    rows: of several kinds; each names its chain and how many 'rows' the
      alignment has, the rest as for the claims.
  """
  found: dict[str, list[float]] = {}
  for kind, some in rows.items():
    for row in some:
      told = f'{kind}, {row["rows"]} rows'
      for who in ('network', 'dca', 'separation', 'reference'):
        for what, value in row[who].items():
          found.setdefault(f'{told}: {what} of {who}', []).append(value)
      for what in ('q3', 'tm', 'first_tm', 'torsions_tm'):
        if what in row:
          found.setdefault(f'{told}: {what}', []).append(row[what])
  return {name: float(np.mean(values)) for name, values in found.items()}


def distogram_claims(
  rows: Sequence[Mapping[str, Any]],
  told: str,
  saved_bar: float | None = None,
) -> list[Claim]:
  """Nats and precision, means over chains.

  Args:
    rows: of chains; 'network' and 'separation' as `judge` makes them, 'dca' as
      `precisions`.
    told: of what, in words.
    saved_bar: how many nats below those of separations are to be reached.
  """
  nats, usual = (_of(rows, who, 'nll') for who in ('network', 'separation'))
  bar = None if saved_bar is None else float(usual.mean()) - saved_bar
  return [
    Claim(
      f'nats per pair, {told}',
      float(nats.mean()),
      interval=bootstrap(nats),
      baseline=float(usual.mean()),
      baseline_name='separation and length',
      bar=bar,
      met=None if bar is None else float(nats.mean()) <= bar,
    ),
    Claim(
      f'precision of the best L contacts, {told}',
      float(_of(rows, 'network', 'L').mean()),
      interval=bootstrap(_of(rows, 'network', 'L')),
      baseline=float(_of(rows, 'dca', 'L').mean()),
      baseline_name='mean-field DCA',
    ),
  ]


def gain_claim(rows: Sequence[Mapping[str, Any]], told: str) -> Claim:
  """Precision above that of DCA, chain by chain; to be no less than 0."""
  more = _of(rows, 'network', 'L') - _of(rows, 'dca', 'L')
  return at_least(
    f'precision gained over mean-field DCA, {told}',
    float(more.mean()),
    0.0,
    interval=bootstrap(more),
    baseline=0.0,
    baseline_name='mean-field DCA',
  )


def q3_claim(rows: Sequence[Mapping[str, Any]]) -> Claim:
  """The share of residues whose structure is right.

  Args:
    rows: of chains; 'q3', and 'majority' of saying always the same.
  """
  majority = float(_of(rows, 'majority').mean())
  values = _of(rows, 'q3')
  return at_least(
    'Q3, residues whose secondary structure is right',
    float(values.mean()),
    majority,
    interval=bootstrap(values),
    baseline=majority,
    baseline_name='all residues as most training residues are',
    paper=0.84,
  )


def fold_claims(
  rows: Sequence[Mapping[str, Any]], told: str, rounds: int
) -> list[Claim]:
  """What is folded from predictions, beside torsions alone.

  Args:
    rows: of chains; 'tm' and 'potential' of the lowest potential, 'first_tm'
      and 'first_potential' of the first round's, 'torsions_tm' without
      distances.
    told: from what predictions, in words.
    rounds: how many, the first included.
  """
  tm, alone = _of(rows, 'tm'), _of(rows, 'torsions_tm')
  gain = _of(rows, 'first_potential') - _of(rows, 'potential')
  return [
    at_least(
      f'TM-score over that of torsions only, medians of {len(rows)} chains, '
      + told,
      float(np.median(tm) - np.median(alone)),
      0.15,
      baseline=0.0,
      baseline_name='torsions only',
    ),
    Claim(
      f'TM-score, median, {told}',
      float(np.median(tm)),
      baseline=float(np.median(alone)),
      baseline_name='torsions only',
    ),
    Claim(
      f'chains of the right fold (TM-score of .5), share, {told}',
      float(np.mean(tm >= 0.5)),
      baseline=float(np.mean(alone >= 0.5)),
      baseline_name='torsions only',
    ),
    Claim(
      'chains whose lowest potential is higher after noisy restarts',
      int(np.sum(gain < -1e-3)),
      bar=0,
      met=bool(np.all(gain >= -1e-3)),
      exact=True,
    ),
    Claim(
      f'nats by which {rounds - 1} rounds of noisy restarts lower '
      'the potential, median',
      float(np.median(gain)),
      baseline=0.0,
      baseline_name='first round',
    ),
    Claim(
      'TM-score gained by noisy restarts, mean',
      float(np.mean(tm - _of(rows, 'first_tm'))),
      interval=bootstrap(tm - _of(rows, 'first_tm')),
      baseline=0.0,
      baseline_name='first round',
      paper=0.005,
    ),
  ]


def _of(rows: Sequence[Mapping[str, Any]], *names: str) -> np.ndarray:
  """One number of each row: [chains]."""
  found: Any = rows
  for name in names:
    found = [row[name] for row in found]
  return np.array(found)
