"""The fit loop and what it needs."""

from survlens.training.batches import event_balanced_batches as event_balanced_batches
from survlens.training.batches import shuffled_batches as shuffled_batches
from survlens.training.estimator import NeuralSurvival as NeuralSurvival
from survlens.training.fit import fit as fit
from survlens.training.history import EpochRow as EpochRow
from survlens.training.history import FitHistory as FitHistory
from survlens.training.image_estimators import CoxVAESurvival as CoxVAESurvival
from survlens.training.image_estimators import ImageSurvival as ImageSurvival
from survlens.training.objectives import CoxVAEObjective as CoxVAEObjective
from survlens.training.objectives import Objective as Objective
from survlens.training.objectives import ObjectiveValue as ObjectiveValue
from survlens.training.objectives import SurvivalObjective as SurvivalObjective
from survlens.training.objectives import TrainingProgress as TrainingProgress
from survlens.training.progress import ConsoleProgress as ConsoleProgress
from survlens.training.progress import training_progress as training_progress
from survlens.training.repeatability import Interrupted as Interrupted
from survlens.training.risk_set import gather_outcome as gather_outcome
from survlens.training.risk_set import gather_rows as gather_rows
from survlens.training.risk_set import gathered_loss as gathered_loss
from survlens.training.settings import Device as Device
from survlens.training.settings import FitSettings as FitSettings
from survlens.training.settings import Precision as Precision
from survlens.training.table_estimators import DeepHazard as DeepHazard
from survlens.training.table_estimators import DeepSurv as DeepSurv
