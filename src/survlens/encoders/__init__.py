"""Inputs to embedding."""

from survlens.encoders.cnn import CNN as CNN
from survlens.encoders.mlp import MLP as MLP
from survlens.encoders.pooling import AttentionPooling as AttentionPooling
from survlens.encoders.pooling import MeanPooling as MeanPooling
from survlens.encoders.pooling import MultipleInstance as MultipleInstance
from survlens.encoders.pooling import WorstPooling as WorstPooling
from survlens.encoders.residual import ResidualCNN as ResidualCNN
