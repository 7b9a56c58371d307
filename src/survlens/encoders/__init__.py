"""Inputs to embedding."""

from survlens.encoders.cnn import CNN as CNN
from survlens.encoders.mlp import MLP as MLP
from survlens.encoders.residual import ResidualCNN as ResidualCNN
