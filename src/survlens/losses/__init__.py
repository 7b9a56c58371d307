"""Likelihoods and evidence terms as pure, unreduced functions."""

from survlens.losses.adversarial import generated_loss as generated_loss
from survlens.losses.adversarial import path_length_penalty as path_length_penalty
from survlens.losses.adversarial import path_lengths as path_lengths
from survlens.losses.adversarial import photograph_loss as photograph_loss
from survlens.losses.adversarial import r1_penalty as r1_penalty
from survlens.losses.cox import cox_partial_likelihood as cox_partial_likelihood
from survlens.losses.cox_martingale import cox_martingale_loss as cox_martingale_loss
from survlens.losses.cox_time import cox_time_loss as cox_time_loss
from survlens.losses.cox_time import sampled_cox_time_loss as sampled_cox_time_loss
from survlens.losses.discrete import CensoredCredit as CensoredCredit
from survlens.losses.discrete import competing_pmf_loss as competing_pmf_loss
from survlens.losses.discrete import logistic_hazard_loss as logistic_hazard_loss
from survlens.losses.discrete import pmf_loss as pmf_loss
from survlens.losses.discrete import sequence_scores as sequence_scores
from survlens.losses.evidence import bernoulli_reconstruction as bernoulli_reconstruction
from survlens.losses.evidence import evidence_bound as evidence_bound
from survlens.losses.evidence import gaussian_reconstruction as gaussian_reconstruction
from survlens.losses.evidence import kl_to_standard_normal as kl_to_standard_normal
from survlens.losses.parametric import weibull_loss as weibull_loss
from survlens.losses.piecewise import piecewise_hazard_loss as piecewise_hazard_loss
from survlens.losses.ranking import ranking_loss as ranking_loss
from survlens.losses.reduction import reduce as reduce
