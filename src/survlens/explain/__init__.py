"""What the model sees."""

from survlens.explain.latent import LatentDimension as LatentDimension
from survlens.explain.latent import PrincipalComponents as PrincipalComponents
from survlens.explain.latent import dimension_reliability as dimension_reliability
from survlens.explain.latent import latent_dimensions as latent_dimensions
from survlens.explain.traversal import Traversal as Traversal
from survlens.explain.traversal import traverse as traverse
