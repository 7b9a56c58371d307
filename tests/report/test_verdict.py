"""The sentence at the top tells the truth."""

from dataclasses import replace

from survlens.core.score import Direction, Interval, Score
from survlens.report.records import Difference, Metrics, ModelResult, StudyFacts
from survlens.report.verdict import verdict


def model(name, inputs, c, ipa=0.1, half=0.03) -> ModelResult:
    scores = (
        Score("concordance_index", c, Interval(c - half, c + half)),
        Score("integrated_ipa", ipa, Interval(ipa - half, ipa + half), Direction.HIGHER),
    )
    return ModelResult(name, name.upper(), tuple(inputs), "", "", scores)


def study(*models, differences=(), clinical="clinical", primary=None) -> Metrics:
    facts = StudyFacts("s", "", "0", simulated=False, data_note="")
    known = (model("km", (), 0.5, 0.0, 0.0), *models)
    return Metrics(facts, "days", (), "test", 100, 60, primary, clinical, "km", None, known, tuple(differences))


CLINICAL = model("clinical", ("table",), 0.65)
FUSED = model("fused", ("image", "table"), 0.70)
IMAGE = model("image", ("image",), 0.62)


def gap(name, lower, upper, reference="clinical") -> Difference:
    return Difference("concordance_index", name, reference, (lower + upper) / 2, lower, upper)


def test_image_that_adds_is_said_to_add():
    said = verdict(study(CLINICAL, FUSED, differences=[gap("fused", 0.01, 0.09)])).headline
    assert said.startswith("The image added to the clinical table")
    assert "0.010 to 0.090" in said


def test_image_whose_interval_covers_zero_is_said_not_to_add():
    said = verdict(study(CLINICAL, FUSED, differences=[gap("fused", -0.01, 0.09)])).headline
    assert said.startswith("The image was not shown to add anything")


def test_with_few_events_it_is_said_how_large_a_gain_could_have_stayed_unseen():
    blunt = study(CLINICAL, FUSED, differences=[gap("fused", -0.06, 0.10)])
    said = next(remark for remark in verdict(blunt).remarks if "blunt" in remark)
    assert said.startswith("Only 60 scored patients had the event")
    assert "a gain of C below about 0.08" in said
    assert "the clinical table alone is the simpler model" in said
    for other in (
        replace(blunt, n_events=500),
        study(CLINICAL, FUSED, differences=[gap("fused", 0.01, 0.09)]),
        study(CLINICAL, FUSED),
    ):
        assert not any("blunt" in remark for remark in verdict(other).remarks)


def test_worse_image_is_said_to_be_worse():
    said = verdict(study(CLINICAL, FUSED, differences=[gap("fused", -0.09, -0.02)])).headline
    assert said.startswith("Image and table together did worse than the clinical table")


def test_difference_stored_the_other_way_round_reads_the_same():
    straight = verdict(study(CLINICAL, FUSED, differences=[gap("fused", 0.01, 0.09)])).headline
    turned = Difference("concordance_index", "clinical", "fused", -0.05, -0.09, -0.01)
    assert verdict(study(CLINICAL, FUSED, differences=[turned])).headline == straight


def test_missing_clinical_table_is_said():
    said = verdict(study(IMAGE, clinical=None)).headline
    assert "could not be tested" in said
    assert "no clinical table" in said


def test_missing_interval_is_not_read_as_a_gain():
    for differences in ([], [Difference("concordance_index", "fused", "clinical", 0.2, None, None)]):
        assert "unclear" in verdict(study(CLINICAL, FUSED, differences=differences)).headline


def test_no_skill_comes_before_everything_else():
    weak = model("fused", ("image", "table"), 0.51, -0.01)
    poor = model("clinical", ("table",), 0.50, 0.0)
    said = verdict(study(poor, weak, differences=[gap("fused", 0.001, 0.02)])).headline
    assert said.startswith("No model was shown to do better than the Kaplan-Meier curve")


def test_ranking_without_accuracy_is_remarked():
    ranks = model("fused", ("image", "table"), 0.70, -0.02)
    plain = model("clinical", ("table",), 0.65, 0.0)
    said = verdict(study(plain, ranks, differences=[gap("fused", 0.01, 0.09)]))
    assert any("more accurate than those of the Kaplan-Meier" in remark for remark in said.remarks)


def test_headline_is_the_primary_model_and_the_best_one_only_a_remark():
    found = study(
        CLINICAL, FUSED, IMAGE, differences=[gap("fused", 0.01, 0.09), gap("image", -0.2, 0.1)], primary="image"
    )
    said = verdict(found)
    assert said.headline.startswith("The image alone was not shown")
    assert "IMAGE" in said.headline
    assert any("highest C among 2 image models" in r and "FUSED" in r and "flattered" in r for r in said.remarks)


def test_headline_does_not_change_with_the_best_of_many_noise_models():
    noise = [model(f"noise{at}", ("image",), 0.5 + at / 20) for at in range(5)]
    gaps = [gap(each.name, 0.1, 0.2) for each in noise] + [gap("image", -0.1, 0.1)]
    plain = verdict(study(CLINICAL, IMAGE, differences=gaps, primary="image"))
    assert verdict(study(CLINICAL, IMAGE, *noise, differences=gaps, primary="image")).headline == plain.headline


def test_without_a_primary_image_model_image_and_table_together_come_first():
    said = verdict(study(CLINICAL, IMAGE, FUSED, differences=[gap("fused", 0.01, 0.09)]))
    assert said.headline.startswith("The image added to the clinical table: FUSED")


def test_image_alone_is_not_sold_as_an_addition():
    said = verdict(study(CLINICAL, IMAGE, differences=[gap("image", -0.08, 0.02)]))
    assert said.headline.startswith("The image alone was not shown to do better")
    assert any("together" in remark for remark in said.remarks)


def test_image_and_table_together_are_told_beside_a_better_image_alone():
    alone = model("alone", ("image",), 0.80)
    gaps = [gap("alone", 0.1, 0.2), gap("fused", 0.01, 0.09)]
    said = verdict(study(CLINICAL, FUSED, alone, differences=gaps, primary="alone"))
    assert said.headline.startswith("The image alone did better")
    assert any(r.startswith("Image and table together (FUSED)") and "0.010 to 0.090" in r for r in said.remarks)


def test_study_without_images_or_scores_still_has_a_sentence():
    assert "No model here used the image" in verdict(study(CLINICAL)).headline
    assert "No model was scored" in verdict(study()).headline


def test_without_images_the_primary_model_is_compared_with_the_clinical_one():
    table = model("lasso", ("table",), 0.66)
    for lower, upper, words in ((-0.02, 0.04, "not shown to do better"), (0.01, 0.04, "did better than CLINICAL")):
        best = study(CLINICAL, table, model("other", ("table",), 0.9), differences=[gap("lasso", lower, upper)])
        said = verdict(replace(best, primary="lasso")).headline
        assert words in said
        assert "LASSO had C 0.66" in said
        assert "OTHER" not in said
