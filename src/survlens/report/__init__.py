"""Figures and pages, drawn from a run folder alone."""

from survlens.report.content import read_content as read_content
from survlens.report.document import write_report as write_report
from survlens.report.records import RunContent as RunContent
from survlens.report.verdict import Verdict as Verdict
from survlens.report.verdict import verdict as verdict
