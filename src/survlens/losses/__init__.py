"""Likelihoods and evidence terms as pure, unreduced functions."""

from survlens.losses.cox import cox_partial_likelihood as cox_partial_likelihood
from survlens.losses.discrete import CensoredCredit as CensoredCredit
from survlens.losses.discrete import logistic_hazard_loss as logistic_hazard_loss
from survlens.losses.evidence import bernoulli_reconstruction as bernoulli_reconstruction
from survlens.losses.evidence import evidence_bound as evidence_bound
from survlens.losses.evidence import gaussian_reconstruction as gaussian_reconstruction
from survlens.losses.evidence import kl_to_standard_normal as kl_to_standard_normal
from survlens.losses.reduction import reduce as reduce
