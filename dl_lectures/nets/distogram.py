"""AlphaFold's network of 2018: crops of pair features to crops of distograms.

Senior et al., "Improved protein structure prediction using potentials from deep
learning", Nature 577, 2020, Methods; google-deepmind/deepmind-research,
alphafold_casp13. Slides: deck 000, "AlphaFold System".

      pairs (i, j), (i, i'), (j, j')     residues i, residues j
                  |                              |
                  +-------- [S, S, .] -----------+
                                |
                   towers of dilated residual blocks
                     |                        |
           distogram of the crop     pooled along i and along j:
           + a bias for each j - i   torsions, structure, surface

Shapes: N crops, S residues along a side, P or Q features of a pair, C of a
residue.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from dl_lectures.nets.convolution import (
  BottleneckTower,
  Conv2D,
  Normalise,
  apply_norm,
)
from dl_lectures.nets.linear import Linear
from dl_lectures.types import Array


class Crop(NamedTuple):
  """S rows i and S columns j out of all pairs of a chain's residues.

  Where a crop reaches beyond the chain, all features are 0.

  Attributes:
    pairs: [N, S, S, P], of (i, j).
    row_pairs: [N, S, S, Q], of (i, i'), the rows among themselves: the first Q
      of the P features, or all.
    column_pairs: [N, S, S, Q], of (j, j').
    rows: [N, S, C], of i.
    columns: [N, S, C], of j.
    row_mask: [N, S] bool, whether there is such a residue.
    column_mask: [N, S] bool.
    offset: [N] int32, the first j minus the first i.
  """

  pairs: Array
  row_pairs: Array
  column_pairs: Array
  rows: Array
  columns: Array
  row_mask: Array
  column_mask: Array
  offset: Array


class Heads(NamedTuple):
  """What is said of single residues: logits, [..., classes].

  Attributes:
    torsions: B x B classes, of phi and psi.
    structure: classes of secondary structure.
    surface: classes of exposure.
  """

  torsions: Array
  structure: Array
  surface: Array


class Prediction(NamedTuple):
  """What the network says of a crop.

  Attributes:
    distogram: [N, S, S, bins], logits.
    rows: [N, S, ...] of the rows' residues; None without heads.
    columns: [N, S, ...] of the columns' residues; None without heads.
  """

  distogram: Array
  rows: Heads | None
  columns: Heads | None


class Tower(NamedTuple):
  """Of what size a tower is: blocks and channels."""

  num_blocks: int
  channels: int


class DistogramNet(hk.Module):
  """Crops to distograms, and what the heads say.

  >>> def forward(crop):
  ...   return DistogramNet([Tower(2, 8)], bins=4, heads=(9, 3, 5))(crop)
  >>> net = hk.transform(forward)
  >>> def zeros(*shape):
  ...   return jnp.zeros((2, *shape))
  >>> crop = Crop(zeros(6, 6, 3), zeros(6, 6, 3), zeros(6, 6, 3),
  ...   zeros(6, 7), zeros(6, 7), zeros(6) > 0, zeros(6) > 0,
  ...   jnp.zeros(2, jnp.int32))
  >>> said = net.apply(net.init(jax.random.key(0), crop), None, crop)
  >>> said.distogram.shape, said.rows.torsions.shape
  ((2, 6, 6, 4), (2, 6, 9))
  """

  def __init__(
    self,
    towers: Sequence[Tower],
    *,
    bins: int,
    heads: tuple[int, int, int] | None = None,
    num_biases: int = 64,
    residue_channels: int = 0,
    pair_channels: int = 0,
    norm: Callable[[], Normalise] | None = None,
    dropout: float = 0.0,
    name: str | None = None,
  ):
    """Makes the module.

    Args:
      towers: one after the other.
      bins: of the distogram.
      heads: how many classes torsions, structure and surface have; None for
        no heads.
      num_biases: how many |j - i| have their own bias of the distogram; what
        is farther apart has the last one.
      residue_channels: of a linear layer that residues pass before they are
        spread over the pairs, which makes the first convolution cheap; 0 for
        none.
      pair_channels: of a linear layer that the last P - Q features of pairs
        pass, of which there may be hundreds; 0 for none.
      norm: as for `BottleneckTower`.
      dropout: likewise.
      name: the module's name.
    """
    super().__init__(name=name)
    self.towers, self.bins, self.heads = towers, bins, heads
    self.num_biases, self.residue_channels = num_biases, residue_channels
    self.pair_channels = pair_channels
    self.norm, self.dropout = norm, dropout

  def __call__(self, crop: Crop, is_training: bool | None = None) -> Prediction:
    """Reads crops; `is_training` is needed with a norm or dropout."""
    mask = crop.row_mask[:, :, None] & crop.column_mask[:, None]
    if self.residue_channels:
      narrow = hk.Linear(self.residue_channels, name='residues')
      crop = crop._replace(rows=narrow(crop.rows), columns=narrow(crop.columns))
    few = crop.row_pairs.shape[-1]
    if self.pair_channels and few < crop.pairs.shape[-1]:
      narrow = Linear(self.pair_channels, name='pairs')
      many = narrow(crop.pairs[..., few:].astype(crop.rows.dtype))
      pairs = jnp.concatenate([crop.pairs[..., :few], many], axis=-1)
      crop = crop._replace(pairs=pairs)
    x = _stacked(crop) * mask[..., None]
    for tower in self.towers:
      x = BottleneckTower(
        tower.channels, tower.num_blocks, self.norm, dropout=self.dropout
      )(x, is_training)
      x = jax.nn.elu(apply_norm(self.norm, x, is_training=is_training))
    logits = Conv2D(self.bins, 1, name='distogram')(x)
    biases = hk.get_parameter(
      'biases', (self.num_biases, self.bins), x.dtype, init=jnp.zeros
    )
    apart = jnp.abs(_separation(crop))
    logits += biases[jnp.minimum(apart, self.num_biases - 1)]
    if self.heads is None:
      return Prediction(logits, None, None)
    # Both axes are read by the same layers.
    layers = [
      hk.Linear(size, name=name)
      for size, name in zip(self.heads, Heads._fields, strict=True)
    ]

    def read(axis: int) -> Heads:
      pooled = _pooled(x, mask, axis)
      return Heads(*(layer(pooled) for layer in layers))

    return Prediction(logits, read(2), read(1))


def _separation(crop: Crop) -> Array:
  """j - i of a crop's pairs, [N, S, S]."""
  place = jnp.arange(crop.rows.shape[1])
  return crop.offset[:, None, None] + (place[None] - place[:, None])[None]


def _stacked(crop: Crop) -> Array:
  """All that is known of a pair, [N, S, S, P + 2 Q + 2 C + 2]."""
  size = crop.rows.shape[1]
  rows = jnp.repeat(crop.rows[:, :, None], size, axis=2)
  columns = jnp.repeat(crop.columns[:, None], size, axis=1)
  apart = _separation(crop)[..., None].astype(rows.dtype)
  return jnp.concatenate(
    [
      crop.pairs,
      crop.row_pairs,
      crop.column_pairs,
      rows,
      columns,
      apart / 100,
      jnp.exp(-jnp.abs(apart) / 4),
    ],
    axis=-1,
  )


def _pooled(x: Array, mask: Array, axis: int) -> Array:
  """Maximum and mean along one axis of what is there: [N, S, 2 D]."""
  mask = mask[..., None]
  highest = jnp.max(jnp.where(mask, x, -1.0), axis=axis)  # ELU's least
  count = jnp.maximum(jnp.sum(mask, axis=axis), 1)
  mean = jnp.sum(jnp.where(mask, x, 0.0), axis=axis) / count
  return jnp.concatenate([highest, mean.astype(x.dtype)], axis=-1)
