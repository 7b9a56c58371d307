"""Neural layers shared by encoders and generators."""

from survlens.blocks.dense import dense_stack as dense_stack
from survlens.blocks.modulated import EqualisedLinear as EqualisedLinear
from survlens.blocks.modulated import demodulation as demodulation
from survlens.blocks.modulated import modulated_convolution as modulated_convolution
from survlens.blocks.resampling import doubled as doubled
from survlens.blocks.resampling import doubling_convolution as doubling_convolution
from survlens.blocks.resampling import halved as halved
from survlens.blocks.resampling import halving_convolution as halving_convolution
from survlens.blocks.resampling import smoothing_filter as smoothing_filter
from survlens.blocks.residual import ResidualBlock as ResidualBlock
from survlens.blocks.spatial import channel_norm as channel_norm
from survlens.blocks.spatial import convolution as convolution
from survlens.blocks.spatial import global_mean as global_mean
