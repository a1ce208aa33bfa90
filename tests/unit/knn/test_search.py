import sys

import pytest
import torch
from torch import Tensor

from noisyknn.errors import MachineError, UsageError
from noisyknn.knn import faiss_search, torch_search
from noisyknn.knn import search as search_module
from noisyknn.knn.faiss_search import FaissSearch
from noisyknn.knn.search import Neighbors, Search, angular_distances, fastest_search, find_search, nearest
from noisyknn.knn.torch_search import TorchSearch

NEEDS_FAISS = pytest.mark.skipif(not faiss_search.is_installed(), reason="faiss is not installed")
SEARCHES = pytest.mark.parametrize(
    "search",
    [
        pytest.param(TorchSearch, id="torch"),
        pytest.param(FaissSearch, id="faiss", marks=NEEDS_FAISS),
    ],
)
CPU = torch.device("cpu")


def slow(features: Tensor, references: list[int], k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Rows and distances of the k nearest references of every sample, ties by row, in float64."""
    points = features.double()
    all_rows, all_distances = [], []
    for sample in range(len(points)):
        others = [row for row in references if row != sample]
        pairs = [(float((points[sample] - points[row]).square().sum().sqrt()), row) for row in others]
        chosen = sorted(pairs)[: min(k, len(references) - 1)]
        all_rows.append([row for _, row in chosen])
        all_distances.append([distance for distance, _ in chosen])
    return all_rows, all_distances


def check(features: Tensor, references: list[int], k: int, search: Search) -> None:
    rows, distances = slow(features, references, k)
    tiles = list(nearest(features, torch.tensor(references), k, search))
    assert torch.cat([tile.samples for tile in tiles]).tolist() == list(range(len(features)))
    assert torch.cat([tile.rows for tile in tiles]).tolist() == rows
    expected = torch.tensor(distances, dtype=torch.float32)
    torch.testing.assert_close(torch.cat([tile.distances for tile in tiles]), expected, rtol=1e-5, atol=1e-6)


def draw(samples: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, dimensions, generator=torch.Generator().manual_seed(seed))


@SEARCHES
@pytest.mark.parametrize("k", [1, 5, 60])
def test_neighbours_equal_a_double_loop(search: Search, k: int) -> None:
    check(draw(70, 6), list(range(70)), k, search)


@SEARCHES
def test_a_subset_of_references_serves_all_samples(search: Search) -> None:
    check(draw(60, 5), [3, 4, 11, 12, 13, 27, 28, 29, 30, 31, 32, 44, 58, 59], 3, search)


@SEARCHES
def test_references_may_come_in_any_order(search: Search) -> None:
    features = torch.tensor([[0.0], [1.0], [1.0], [-1.0], [1.0], [5.0]])  # rows 1 to 4 are equally near to row 0
    check(features, [4, 5, 3, 2, 1, 0], 3, search)


@SEARCHES
@pytest.mark.parametrize("k", [4, 5, 6, 100])
def test_there_are_never_more_neighbours_than_other_references(search: Search, k: int) -> None:
    check(draw(12, 3), [1, 2, 5, 7, 11], k, search)


@SEARCHES
def test_two_references_are_enough(search: Search) -> None:
    check(draw(5, 3), [0, 3], 10, search)


@SEARCHES
def test_features_of_many_dimensions(search: Search) -> None:
    check(draw(40, 700).relu(), list(range(0, 40, 2)), 7, search)


@SEARCHES
def test_features_of_one_dimension(search: Search) -> None:
    check(draw(40, 1), list(range(40)), 7, search)


@SEARCHES
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_features_far_from_the_origin(search: Search, offset: float) -> None:
    features = offset + 0.1 * draw(80, 5)
    norms = features.square().sum(1)  # what a search that trusts |q|² - 2 q·r + |r|² would go by
    naive = (norms[:, None] - 2 * features @ features.T + norms).fill_diagonal_(torch.inf)
    rows, _ = slow(features, list(range(80)), 5)
    assert naive.argsort(1)[:, :5].tolist() != rows
    check(features, list(range(80)), 5, search)


@SEARCHES
def test_features_in_tight_clusters_far_apart(search: Search) -> None:
    check(10 * draw(4, 6).repeat(20, 1) + 0.02 * draw(80, 6, seed=1), list(range(80)), 5, search)


@SEARCHES
def test_no_queries_have_no_neighbours(search: Search) -> None:
    nobody = torch.empty(0, dtype=torch.int64)
    (tile,) = nearest(draw(50, 6), torch.arange(50), 5, search, nobody)
    assert tile.rows.shape == tile.distances.shape == (0, 5)


@SEARCHES
def test_half_precision_features(search: Search) -> None:
    check(draw(50, 6).bfloat16().float(), list(range(50)), 5, search)
    halves = torch.cat([tile.rows for tile in nearest(draw(50, 6).bfloat16(), torch.arange(50), 5, search)])
    assert halves.tolist() == slow(draw(50, 6).bfloat16(), list(range(50)), 5)[0]


@SEARCHES
def test_a_duplicate_is_a_neighbour_but_the_sample_itself_is_not(search: Search) -> None:
    features = draw(30, 4)
    features[[3, 9, 17, 25]] = features[0].clone()
    (tile,) = nearest(features, torch.arange(30), 4, search)
    assert tile.rows[[0, 3, 9, 17, 25]].tolist() == [
        [3, 9, 17, 25],
        [0, 9, 17, 25],
        [0, 3, 17, 25],
        [0, 3, 9, 25],
        [0, 3, 9, 17],
    ]
    assert tile.distances[[0, 3, 9, 17, 25]].count_nonzero() == 0
    check(features, list(range(30)), 4, search)


@SEARCHES
def test_equally_near_references_come_by_row(search: Search) -> None:
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))  # up to four at the same distance
    check(torch.cat([grid, grid]), list(range(32)), 6, search)


@SEARCHES
def test_with_more_duplicates_than_candidates_the_neighbours_are_still_others_and_nearest(search: Search) -> None:
    features = torch.cat([torch.zeros(40, 3), 1 + draw(20, 3).abs()])
    (tile,) = nearest(features, torch.arange(60), 5, search)
    assert tile.distances[:40].count_nonzero() == 0
    for sample, rows in enumerate(tile.rows.tolist()):
        assert sample not in rows
        assert len(set(rows)) == 5
        assert rows == sorted(rows) or sample >= 40


@SEARCHES
@pytest.mark.parametrize("elements", [1, 64, 500])
def test_tiles_change_nothing(search: Search, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "TILE_ELEMENTS", elements)
    monkeypatch.setattr(search_module, "QUERIES", 23)
    monkeypatch.setattr(torch_search, "REFERENCES_PER_TILE", 7)
    monkeypatch.setattr(torch_search, "CPU_ELEMENTS", 5 * 7)
    features = draw(50, 4)
    features[[5, 6, 30]] = features[49].clone()
    check(features, list(range(50)), 4, search)
    check(features, list(range(0, 50, 3)), 4, search)


@SEARCHES
@pytest.mark.parametrize("count", [1, 7, 12, 30])
def test_a_search_finds_the_nearest_rows(search: Search, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_search, "REFERENCES_PER_TILE", 11)
    references, queries = draw(30, 4), draw(9, 4, seed=1)
    found = search(references, count)(queries)
    assert found.dtype == torch.int64
    distances = (queries[:, None] - references).square().sum(2)
    assert found.shape == (9, count)
    for row, nearest_rows in enumerate(distances.argsort(1)[:, :count].tolist()):
        assert set(nearest_rows) <= set(found[row].tolist())
        assert len(set(found[row].tolist())) == found.shape[1]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_angular_distances_are_those_of_normalised_features(scale: float) -> None:
    features = draw(40, 6) * scale + scale
    features[7] = features[8] * 3  # of one direction
    norms = features.norm(dim=1)
    unit = features / norms[:, None]
    for near in nearest(features, torch.arange(40), 9, TorchSearch):
        counts = torch.arange(40) % 9 + 1
        found = angular_distances(norms, near, counts)
        direct = (unit[near.samples, None] - unit[near.rows]).norm(dim=2)
        expected = [row[:count].mean() for row, count in zip(direct, counts.tolist(), strict=True)]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-3)


def test_a_feature_vector_without_direction_is_at_distance_one() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    near = Neighbors(samples=torch.tensor([0]), rows=torch.tensor([[2, 1]]), distances=torch.tensor([[0.0, 5.0]]))
    norms = features.norm(dim=1)
    assert angular_distances(norms, near, torch.tensor([1])).tolist() == [0.0]
    assert angular_distances(norms, near, torch.tensor([2])).tolist() == [0.5]


@pytest.mark.parametrize(
    ("width", "count"), [(1, 1), (31, 1), (32, 1), (33, 1), (200, 3), (203, 6), (203, 7), (203, 203)]
)
def test_the_largest_by_groups_are_those_by_sorting(width: int, count: int) -> None:
    values = draw(9, width)
    values[0] = 1.0  # all equal
    found, places = torch_search.largest(values, count)
    assert torch.equal(values.gather(1, places), found)
    assert torch.equal(found.sort(1, descending=True).values, values.sort(1, descending=True).values[:, :count])
    assert all(len(set(row)) == count for row in places.tolist())


def test_tiles_cover_the_samples_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "QUERIES", 16)
    sizes = [len(tile.samples) for tile in nearest(draw(40, 3), torch.arange(40), 2, TorchSearch)]
    assert sizes == [16, 16, 8]


def test_features_and_references_are_left_alone() -> None:
    features, references = draw(30, 3), torch.arange(0, 30, 2)
    before = features.clone()
    list(nearest(features, references, 3, TorchSearch))
    assert torch.equal(features, before)
    assert torch.equal(references, torch.arange(0, 30, 2))


@NEEDS_FAISS
def test_auto_takes_faiss_on_a_cpu_only() -> None:
    gpu = torch.device("cuda")
    assert [find_search(name, CPU) for name in ("auto", "torch", "faiss")] == [FaissSearch, TorchSearch, FaissSearch]
    assert [find_search(name, gpu) for name in ("auto", "torch", "faiss")] == [TorchSearch, TorchSearch, FaissSearch]
    assert (fastest_search(CPU), fastest_search(gpu)) == ("faiss", "torch")


@NEEDS_FAISS
def test_faiss_stays_on_the_cpu_where_the_features_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: pytest.fail("a GPU was used"), raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    assert FaissSearch(points, 1)(points)[:, 0].tolist() == list(range(20))


def test_without_faiss_auto_takes_torch_and_faiss_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_search, "is_installed", lambda: False)
    assert find_search("auto", CPU) is TorchSearch
    with pytest.raises(UsageError, match=r"`search` faiss needs faiss: pip install 'noisyknn\[cpu\]'"):
        find_search("faiss", CPU)


def test_faiss_is_found_without_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "faiss" else pytest.fail(name))
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    faiss_search.is_installed.cache_clear()
    try:
        assert not faiss_search.is_installed()
        assert "faiss" not in sys.modules
    finally:
        faiss_search.is_installed.cache_clear()


def test_a_faiss_that_cannot_be_loaded_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_search, "is_installed", lambda: True)
    monkeypatch.setitem(sys.modules, "faiss", None)  # importing it raises ImportError
    with pytest.raises(MachineError, match=r"faiss is installed but cannot be loaded .*`search` torch"):
        find_search("auto", CPU)
    assert find_search("torch", CPU) is TorchSearch


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9")
def test_a_program_that_asks_for_tf32_itself_finds_its_choice_again() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        features = draw(200, 8)
        found = TorchSearch(features, 5)(features)
        assert (found == torch.arange(200)[:, None]).any(1).all()
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
