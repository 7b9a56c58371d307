"""Embedding to inputs and back."""

from survlens.generators.decoders import DenseDecoder as DenseDecoder
from survlens.generators.decoders import ResidualDecoder as ResidualDecoder
from survlens.generators.vae import Evidence as Evidence
from survlens.generators.vae import Likelihood as Likelihood
from survlens.generators.vae import VariationalAutoencoder as VariationalAutoencoder
from survlens.generators.vae import active_dimensions as active_dimensions
