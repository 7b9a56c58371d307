"""Encoders, fusion and head as one survival model; classical models behind the same face."""

from survlens.models.classical import (
    CoxRegression as CoxRegression,
)
from survlens.models.classical import (
    KaplanMeierModel as KaplanMeierModel,
)
from survlens.models.cnn_survival import cnn_survival as cnn_survival
from survlens.models.cnn_survival import half_life_grid as half_life_grid
from survlens.models.cox_inference import SurvivalLimits as SurvivalLimits
from survlens.models.cox_inference import TimeTransform as TimeTransform
from survlens.models.cox_inference import dfbeta_residuals as dfbeta_residuals
from survlens.models.cox_inference import likelihood_ratio_tests as likelihood_ratio_tests
from survlens.models.cox_inference import martingale_residuals as martingale_residuals
from survlens.models.cox_inference import proportional_hazards_test as proportional_hazards_test
from survlens.models.cox_inference import scaled_schoenfeld_residuals as scaled_schoenfeld_residuals
from survlens.models.cox_inference import schoenfeld_residuals as schoenfeld_residuals
from survlens.models.cox_inference import score_residuals as score_residuals
from survlens.models.cox_inference import survival_interval as survival_interval
from survlens.models.cox_vae import CoxVAE as CoxVAE
from survlens.models.estimator import (
    SurvivalEstimator as SurvivalEstimator,
)
from survlens.models.estimator_files import (
    load_estimator as load_estimator,
)
from survlens.models.estimator_files import (
    save_estimator as save_estimator,
)
from survlens.models.forest import RandomSurvivalForest as RandomSurvivalForest
from survlens.models.fusion import Concatenation as Concatenation
from survlens.models.fusion import GatedFusion as GatedFusion
from survlens.models.fusion import Missing as Missing
from survlens.models.late_fusion import FusedRisks as FusedRisks
from survlens.models.late_fusion import LateFusion as LateFusion
from survlens.models.late_fusion import fuse_risks as fuse_risks
from survlens.models.onnx_export import check_onnx as check_onnx
from survlens.models.onnx_export import export_onnx as export_onnx
from survlens.models.penalised import (
    LassoCox as LassoCox,
)
from survlens.models.penalised import (
    PartialRidgeCox as PartialRidgeCox,
)
from survlens.models.penalised import (
    PenaltyRule as PenaltyRule,
)
from survlens.models.penalised import (
    RidgeCox as RidgeCox,
)
from survlens.models.penalised import ridge_coefficients as ridge_coefficients
from survlens.models.saving import SavedModel as SavedModel
from survlens.models.saving import load_model as load_model
from survlens.models.saving import save_model as save_model
from survlens.models.survival_model import SurvivalModel as SurvivalModel
