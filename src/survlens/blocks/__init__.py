"""Neural layers shared by encoders and generators."""

from survlens.blocks.dense import dense_stack as dense_stack
from survlens.blocks.residual import ResidualBlock as ResidualBlock
from survlens.blocks.spatial import channel_norm as channel_norm
from survlens.blocks.spatial import convolution as convolution
from survlens.blocks.spatial import global_mean as global_mean
