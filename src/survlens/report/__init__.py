"""Figures and pages, drawn from a run folder alone."""

from survlens.report.content import read_content as read_content
from survlens.report.document import write_report as write_report
from survlens.report.figures.attribution_curves import draw_attribution_curves as draw_attribution_curves
from survlens.report.figures.attribution_curves import draw_explained_prediction as draw_explained_prediction
from survlens.report.figures.attribution_curves import draw_prediction as draw_prediction
from survlens.report.figures.attribution_force import draw_attribution_force as draw_attribution_force
from survlens.report.figures.attribution_interactions import draw_interactions as draw_interactions
from survlens.report.figures.attribution_maps import draw_attribution_maps as draw_attribution_maps
from survlens.report.figures.attribution_ranking import Importances as Importances
from survlens.report.figures.attribution_ranking import draw_attribution_ranking as draw_attribution_ranking
from survlens.report.figures.attribution_removal import RemovalLine as RemovalLine
from survlens.report.figures.attribution_removal import draw_removal as draw_removal
from survlens.report.figures.attribution_shares import draw_attribution_shares as draw_attribution_shares
from survlens.report.figures.attribution_shares import draw_attribution_stack as draw_attribution_stack
from survlens.report.figures.attribution_swarm import draw_attribution_swarm as draw_attribution_swarm
from survlens.report.figures.attribution_volumes import draw_attribution_slices as draw_attribution_slices
from survlens.report.over_time_records import ExplanationOverTime as ExplanationOverTime
from survlens.report.records import RunContent as RunContent
from survlens.report.verdict import Verdict as Verdict
from survlens.report.verdict import verdict as verdict
