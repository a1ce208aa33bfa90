import pytest
import torch

from noisyknn.calibration import outliers


def foreign(distances: torch.Tensor, surprise: float = 1.0, sureness: float = 0.5) -> torch.Tensor:
    return outliers.foreign(distances, torch.full_like(distances, surprise), torch.full_like(distances, sureness))


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


def test_how_many_are_foreign_the_data_say() -> None:
    """The same image is of no class where many lie far out, and the oddest of its class where none does."""
    distances = torch.rand(5000, generator=torch.Generator().manual_seed(0)) + 0.5
    distances[0] = 3.6
    alone = float(foreign(distances)[0])
    distances[1:150] = 6.0
    among_others = float(foreign(distances)[0])
    assert alone < 0.2
    assert among_others > 0.5


@pytest.fixture
def known_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "USUAL_ROWS", 10**9)


@pytest.mark.usefixtures("known_share")
def test_a_label_that_the_image_explains_speaks_for_its_class() -> None:
    distances = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.5
    distances[0] = 3.0
    alone, explained, unexplained = (float(foreign(distances, surprise)[0]) for surprise in (1.0, 0.1, 10.0))
    odds = alone / (1 - alone)
    assert 0.1 < alone < 0.99
    assert explained / (1 - explained) == pytest.approx(odds / 10, rel=1e-3)
    assert unexplained / (1 - unexplained) == pytest.approx(odds * 10, rel=1e-3)


@pytest.mark.usefixtures("known_share")
def test_an_image_that_is_surely_of_a_class_is_not_of_none() -> None:
    distances = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.5
    distances[0] = 3.0
    like_none, even, like_one = (float(foreign(distances, sureness=sureness)[0]) for sureness in (0.2, 0.5, 0.9))
    odds = even / (1 - even)
    assert like_none / (1 - like_none) == pytest.approx(odds * 4, rel=1e-3)
    assert like_one / (1 - like_one) == pytest.approx(odds / 9, rel=1e-3)
    assert torch.isfinite(foreign(distances, sureness=1.0)).all()
