import pytest
import torch

from noisyknn.training.loss_tracker import LossTracker

CPU = torch.device("cpu")


def test_by_hand() -> None:
    tracker = LossTracker(4, CPU)
    rows = torch.tensor([0, 1, 3])
    for losses, mean in (([1.0, 2.0, 6.0], 3.0), ([0.0, 1.0, 2.0], 1.0)):
        tracker.record(torch.tensor([3, 0]), torch.tensor([losses[2], losses[0]]))
        tracker.record(torch.tensor([1]), torch.tensor([losses[1]]))
        assert float(tracker.end_epoch(rows)) == mean
    assert tracker.cumulative.tolist() == [-3.0, -1.0, 0.0, 4.0]


def test_it_equals_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(50, generator=generator)[:37].sort().values
    tracker, expected = LossTracker(50, CPU), [0.0] * 50
    for _ in range(6):
        losses = torch.rand(50, generator=generator) * 5
        for batch in rows[torch.randperm(37, generator=generator)].split(8):  # type: ignore[no-untyped-call]
            tracker.record(batch, losses[batch])
        mean = sum(losses[row].item() for row in rows) / 37
        assert tracker.end_epoch(rows).item() == pytest.approx(mean)
        for row in rows.tolist():
            expected[row] += losses[row].item() - mean
    torch.testing.assert_close(tracker.cumulative, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    untrained = [row for row in range(50) if row not in rows.tolist()]
    assert tracker.cumulative[untrained].tolist() == [0.0] * 13


def test_no_graph_is_kept() -> None:
    tracker = LossTracker(2, CPU)
    weight = torch.ones(2, requires_grad=True)
    tracker.record(torch.tensor([0, 1]), weight * 3)
    assert not tracker.end_epoch(torch.tensor([0, 1])).requires_grad
    assert not tracker.cumulative.requires_grad
