import pytest
import torch

from noisyknn.trust import outliers
from noisyknn.trust.outliers import foreign


def test_what_is_far_beyond_the_spread_of_all_is_foreign() -> None:
    distances = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.5
    distances[:10] = 20.0
    found = foreign(distances)
    assert (found[:10] > 0.99).all()
    assert (found[10:] < 0.05).all()


def test_the_nearer_half_is_never_foreign() -> None:
    distances = torch.arange(1, 101).float()
    found = foreign(distances)
    assert (found[:75] == 0).all()
    assert torch.equal(found, found.sort().values)


@pytest.mark.parametrize("distances", [torch.ones(5), torch.zeros(5), torch.tensor([0.0, 0, 0, 0, 1]), torch.ones(1)])
def test_distances_without_spread_give_probabilities(distances: torch.Tensor) -> None:
    assert foreign(distances).isfinite().all()
    assert ((foreign(distances) >= 0) & (foreign(distances) <= 1)).all()


def test_copies_do_not_make_all_others_foreign() -> None:
    distances = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.5
    distances[:900] = 0.0
    distances[-1] = 20.0
    found = foreign(distances)
    assert (found[:-1] < 0.05).all()
    assert found[-1] > 0.99


def test_quartiles_of_very_many_are_those_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    distances = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) + 0.5
    whole = foreign(distances)
    monkeypatch.setattr(outliers, "QUANTILE_ROWS", 1000)
    torch.testing.assert_close(foreign(distances), whole, atol=0.02, rtol=0)
