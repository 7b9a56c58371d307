"""Inputs to embedding."""

from survlens.encoders.cnn import CNN as CNN
from survlens.encoders.mlp import MLP as MLP
from survlens.encoders.pooling import AttentionPooling as AttentionPooling
from survlens.encoders.pooling import MeanPooling as MeanPooling
from survlens.encoders.pooling import MultipleInstance as MultipleInstance
from survlens.encoders.pooling import WorstPooling as WorstPooling
from survlens.encoders.radiomics.extraction import RadiomicsTable as RadiomicsTable
from survlens.encoders.radiomics.extraction import radiomics_features as radiomics_features
from survlens.encoders.radiomics.extraction import radiomics_table as radiomics_table
from survlens.encoders.radiomics.filters import Exponential as Exponential
from survlens.encoders.radiomics.filters import Filter as Filter
from survlens.encoders.radiomics.filters import Gradient as Gradient
from survlens.encoders.radiomics.filters import LaplacianOfGaussian as LaplacianOfGaussian
from survlens.encoders.radiomics.filters import Logarithm as Logarithm
from survlens.encoders.radiomics.filters import Original as Original
from survlens.encoders.radiomics.filters import Square as Square
from survlens.encoders.radiomics.filters import SquareRoot as SquareRoot
from survlens.encoders.radiomics.filters import Wavelet as Wavelet
from survlens.encoders.radiomics.settings import FeatureClass as FeatureClass
from survlens.encoders.radiomics.settings import RadiomicsSettings as RadiomicsSettings
from survlens.encoders.residual import ResidualCNN as ResidualCNN
