"""A study: cohort, models, evaluation, explanation and report."""

from survlens.study.check import check_study as check_study
from survlens.study.check import check_table as check_table
from survlens.study.evaluate import evaluate_run as evaluate_run
from survlens.study.explain import explain_run as explain_run
from survlens.study.explain_settings import ExplainSettings as ExplainSettings
from survlens.study.explaining import explain_patients as explain_patients
from survlens.study.import_scans import ImportedScans as ImportedScans
from survlens.study.import_scans import ImportSettings as ImportSettings
from survlens.study.import_scans import import_dicom as import_dicom
from survlens.study.init import write_study as write_study
from survlens.study.report import report_run as report_run
from survlens.study.run import Prepared as Prepared
from survlens.study.run import prepare as prepare
from survlens.study.run import run_study as run_study
from survlens.study.settings import StudySettings as StudySettings
from survlens.study.toml_source import parse_study as parse_study
from survlens.study.toml_source import read_study as read_study
