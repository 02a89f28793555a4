"""The model layer: Haiku modules, and nothing else."""

from dl_lectures.nets.convolution import Conv2D as Conv2D
from dl_lectures.nets.convolution import ResidualTower as ResidualTower
from dl_lectures.nets.convolution import convolve as convolve
from dl_lectures.nets.heads import PolicyValue as PolicyValue
from dl_lectures.nets.heads import PolicyValueHead as PolicyValueHead
from dl_lectures.nets.mlp import MLP as MLP
from dl_lectures.nets.mlp import ResidualMLP as ResidualMLP
from dl_lectures.nets.mlp import SeluMLP as SeluMLP
from dl_lectures.nets.recurrent import GRU as GRU
from dl_lectures.nets.recurrent import LSTM as LSTM
from dl_lectures.nets.recurrent import RNN as RNN
from dl_lectures.nets.sequence import SequenceModel as SequenceModel
