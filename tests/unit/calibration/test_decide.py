import pytest
import torch

from noisyknn.calibration.decide import decide

POSTERIOR = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.45, 0.3], [0.45, 0.5, 0.05], [0.2, 0.35, 0.45]])
GIVEN = torch.tensor([0, 0, 0, 0, -1])
VOTED = torch.tensor([1, 1, 2, 0, 0])


@pytest.mark.parametrize(
    ("min_confidence", "labels"),
    [(0.5, [0, 1, 0, 0, 2]), (0.4, [0, 1, 1, 0, 2]), (0.9, [0, 0, 0, 0, 2]), (0.0, [0, 1, 1, 0, 2])],
)
def test_the_careful_correct_what_is_likely_enough_and_much_likelier_than_the_given_label(
    min_confidence: float, labels: list[int]
) -> None:
    verdict = decide(POSTERIOR, GIVEN, VOTED, "careful", min_confidence)
    assert verdict.labels.tolist() == labels  # a sample without a label gets one, however unsure
    assert verdict.confidence.tolist() == pytest.approx(
        [POSTERIOR[row, label].item() for row, label in enumerate(labels)]
    )
    assert verdict.label_score.tolist() == pytest.approx([0.7, 0.1, 0.25, 0.45, 0])


def test_the_paper_applies_every_vote_and_is_told_what_it_is_worth() -> None:
    verdict = decide(POSTERIOR, GIVEN, VOTED, "paper", 0.9)
    assert verdict.labels.tolist() == VOTED.tolist()
    assert verdict.confidence.tolist() == pytest.approx([0.2, 0.8, 0.3, 0.45, 0.2])
