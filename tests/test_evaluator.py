"""One function tests a model on a data set: the same as its steps by hand, for whatever model and protocol."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reprism
from reprism import Embedder, Preprocessing, Protocol, Reranking, VideoSettings, evaluate_model
from reprism.data.records import DataError, ReIDDataset, Sample
from reprism.drawn.layouts import render_mars
from reprism.evaluation.items import average_boxes, average_queries, evaluate_items, expand_queries
from reprism.evaluation.lists import hardest, ranked_lists
from reprism.evaluation.ranking import RankingMetrics, evaluate_distances
from reprism.linking.ratios import TransitSettings

SIZE = (64, 32)


@pytest.fixture(scope="module")
def model() -> reprism.PartNet:
    torch.manual_seed(0)
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=16, size=SIZE)
    model.train()(torch.randn(8, 3, *SIZE))
    return model.eval()


@pytest.fixture(scope="module")
def dataset(people: Path) -> ReIDDataset:
    return reprism.open_dataset("market1501", people)


@pytest.fixture(scope="module")
def rows(model: reprism.PartNet, dataset: ReIDDataset) -> tuple[np.ndarray, np.ndarray]:
    embedder = Embedder(model, precision="fp32", device="cpu")
    return embedder.embed_samples(dataset.query), embedder.embed_samples(dataset.gallery)  # type: ignore[arg-type]


def same(one: RankingMetrics, other: RankingMetrics) -> bool:
    return one.as_dict() == other.as_dict() and np.array_equal(one.average_precision, other.average_precision, True)


def test_it_scores_what_its_steps_score_by_hand(
    model: reprism.PartNet, dataset: ReIDDataset, rows: Any, tmp_path: Path
) -> None:
    expected = evaluate_items(*rows, dataset.query, dataset.gallery)
    path = reprism.save(model, tmp_path / "net.safetensors")
    given = (model, path, str(path), Embedder(model, precision="fp32", device="cpu"))
    for one in given:
        found = evaluate_model(one, dataset, precision="fp32", device="cpu")
        assert same(found.metrics, expected)
        np.testing.assert_array_equal(found.query, rows[0])
        np.testing.assert_array_equal(found.gallery, rows[1])
        assert found.protocol == Protocol(flip=True, single_shot_trials=0)
    assert found.lost_queries == tuple(dataset.query[index] for index in expected.lost_queries)


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(ap="trapezoid", lost="zero", max_rank=7),
        Protocol(rerank=Reranking(5, 2, 0.5)),
        Protocol(single_shot_trials=3, seed=4),
        Protocol(multi_query=True, expand_queries=2),
    ],
)
def test_a_protocol_is_followed(
    model: reprism.PartNet, dataset: ReIDDataset, rows: tuple[Any, np.ndarray], protocol: Protocol
) -> None:
    query, gallery = rows
    queries: Any = dataset.query
    if protocol.multi_query:
        queries = (*queries, *(Sample(item.path, item.pid, item.camid) for item in queries))
        query = np.concatenate([query, query[::-1]])
        queries = (*dataset.query, *dataset.query[::-1])
        dataset = replace(dataset, query=queries)
        query, queries = average_queries(query, queries)
    if protocol.expand_queries:
        query = expand_queries(query, gallery, queries, dataset.gallery, protocol.expand_queries)
    again = protocol.rerank
    expected = evaluate_items(
        query,
        gallery,
        queries,
        dataset.gallery,
        ap=protocol.ap,
        lost=protocol.lost,
        max_rank=protocol.max_rank,
        single_shot_trials=protocol.single_shot_trials or 0,
        seed=protocol.seed,
        rerank=None if again is None else {"k1": again.k1, "k2": again.k2, "lambda_value": again.lambda_value},
    )
    found = evaluate_model(model, dataset, protocol, precision="fp32", device="cpu")
    assert same(found.metrics, expected)
    assert len(found.dataset.query) == len(found.query) == len(queries)


def test_camera_normalization_is_what_its_steps_do_by_hand(
    model: reprism.PartNet, dataset: ReIDDataset, rows: tuple[np.ndarray, np.ndarray]
) -> None:
    sides = ((rows[0], dataset.query), (rows[1], dataset.gallery))
    cameras = [[item.camid for item in items] for _, items in sides]
    statistics = reprism.CameraStatistics.fit(np.concatenate(rows), [*cameras[0], *cameras[1]])
    query, gallery = (statistics.apply(side, some) for (side, _), some in zip(sides, cameras, strict=True))
    found = evaluate_model(model, dataset, Protocol(camera_normalize=True), precision="fp32", device="cpu")
    np.testing.assert_array_equal(found.query, query)
    np.testing.assert_array_equal(found.gallery, gallery)
    assert same(found.metrics, evaluate_items(query, gallery, dataset.query, dataset.gallery))
    assert found.metrics.mAP != evaluate_items(*rows, dataset.query, dataset.gallery).mAP
    assert "descriptors normalized by camera, on the query and gallery images without labels" in found.describe()
    assert found.as_dict()["camera_normalize"]
    plain = Protocol()
    assert "normalized by camera" not in plain.describe()
    assert not plain.as_dict(dataset)["camera_normalize"]


def test_boxes_of_queries_are_normalized_by_their_cameras_too(
    model: reprism.PartNet, dataset: ReIDDataset, rows: tuple[np.ndarray, np.ndarray]
) -> None:
    boxes = dataset.query[::-1]
    given = replace(dataset, multi_query=boxes)
    plain = evaluate_model(model, dataset, Protocol(camera_normalize=True), precision="fp32", device="cpu")
    found = evaluate_model(
        model, given, Protocol(camera_normalize=True, multi_query=True), precision="fp32", device="cpu"
    )
    expected = average_boxes(plain.query, dataset.query, plain.query[::-1].copy(), boxes)
    np.testing.assert_allclose(found.query, expected, atol=1e-5)
    np.testing.assert_array_equal(found.gallery, plain.gallery)


def test_camera_normalization_needs_cameras(model: reprism.PartNet, dataset: ReIDDataset) -> None:
    unknown = replace(
        dataset,
        query=tuple(replace(item, camid=None) for item in dataset.query),
        gallery=tuple(replace(item, camid=None) for item in dataset.gallery),
    )
    with pytest.raises(ValueError, match="camera normalization needs the cameras, which are unknown in market1501"):
        evaluate_model(model, unknown, Protocol(camera_normalize=True))


def test_a_network_of_cameras_is_followed(
    model: reprism.PartNet, dataset: ReIDDataset, rows: tuple[np.ndarray, np.ndarray]
) -> None:
    sightings = [*dataset.query, *dataset.gallery]
    network = reprism.CameraNetwork.learn(
        np.concatenate(rows), sightings, settings=TransitSettings(least_pairs=3, weight=7.0)
    )
    found = evaluate_model(model, dataset, Protocol(network=network), precision="fp32", device="cpu")
    ratios = network.log_ratio(dataset.query, dataset.gallery)
    assert ratios.any()
    distances = 7 * (1 - rows[0] @ rows[1].T) - ratios
    expected = evaluate_distances(
        distances,
        *([item.pid for item in items] for items in (dataset.query, dataset.gallery)),
        *([item.camid for item in items] for items in (dataset.query, dataset.gallery)),
    )
    assert found.metrics.mAP == pytest.approx(expected.mAP, abs=1e-4)
    assert found.metrics.mAP != pytest.approx(evaluate_items(*rows, dataset.query, dataset.gallery).mAP, abs=1e-4)
    assert "ranked by 7 x cosine and transit times between 3 cameras, learned from" in found.describe()
    assert found.as_dict()["network"] == network.describe()
    assert Protocol().as_dict(dataset)["network"] is None
    with pytest.raises(ValueError, match="not with a network of cameras"):
        found.ranked_list(0)
    untimed = replace(dataset, query=tuple(replace(item, time=None) for item in dataset.query))
    with pytest.raises(ValueError, match=r"no query item of market1501 in .* has one"):
        evaluate_model(model, untimed, Protocol(network=network))
    for other in ({"rerank": Reranking()}, {"single_shot_trials": 2}, {"multi_query": True}):
        with pytest.raises(ValueError, match="a network of cameras ranks single queries"):
            Protocol(network=network, **other)
    with pytest.raises(ValueError, match="evidence beside appearance goes with neither"):
        evaluate_items(*rows, dataset.query, dataset.gallery, evidence=network, single_shot_trials=2)


def test_tracklets_are_compared_as_the_protocol_says(model: reprism.PartNet, tmp_path: Path) -> None:
    root = render_mars(tmp_path / "walks", train_identities=2, test_identities=3, size=SIZE)
    dataset = reprism.open_dataset("mars", root, protocol="without-queries")
    video = VideoSettings(frames=6, segments=2)
    embedder = Embedder(model, precision="fp32", device="cpu")
    rows = [embedder.embed_tracklets(items, video) for items in (dataset.query, dataset.gallery)]  # type: ignore[arg-type]
    scored = {}
    for comparison, segments in (("concatenate", 1), ("all-pairs", 2)):
        protocol = Protocol(video=video, comparison=comparison)  # type: ignore[arg-type]
        found = evaluate_model(embedder, dataset, protocol)
        expected = evaluate_items(*rows, dataset.query, dataset.gallery, all_pairs_segments=segments)
        assert same(found.metrics, expected)
        scored[comparison] = found
        words = f"6 frames of a tracklet (even) in 2 segments, mean of each, compared by {comparison}"
        assert words in found.describe()
    assert scored["concatenate"].segments == 2
    with pytest.raises(ValueError, match="not by all pairs"):
        scored["all-pairs"].ranked_list(0)


def test_anybodys_network_is_one_part(dataset: ReIDDataset) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.AdaptiveMaxPool2d(2), nn.Flatten()).train()
    about = Preprocessing(size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = evaluate_model(net, dataset, preprocessing=about, precision="fp32", device="cpu")
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert str(found.partition) == "p1"
    assert found.query.shape == (len(dataset.query), 32)
    image = reprism.data.images.read_image(dataset.query[0].path)[None].float() / 255
    image = torch.nn.functional.interpolate(image, SIZE) if image.shape[2:] != SIZE else image
    ready = (image - torch.tensor(about.mean)[:, None, None]) / torch.tensor(about.std)[:, None, None]
    with torch.inference_mode():
        expected = net.eval()(ready) + net(ready.flip(-1))
    np.testing.assert_allclose(found.query[0], torch.nn.functional.normalize(expected)[0], atol=1e-5)
    by_function = evaluate_model(lambda batch: net(batch), dataset, preprocessing=about, precision="fp32", device="cpu")
    np.testing.assert_allclose(by_function.gallery, found.gallery, atol=1e-6)
    embedder = Embedder(net, preprocessing=about, device="cpu")
    assert len(embedder.kind.fingerprint) == 64
    with torch.no_grad():
        net[0].bias += 1  # type: ignore[operator, union-attr]
    assert Embedder(net, preprocessing=about, device="cpu").kind.fingerprint != embedder.kind.fingerprint
    with pytest.raises(ValueError, match="no weights to be told"):
        _ = Embedder(lambda batch: net(batch), preprocessing=about, device="cpu").kind


@pytest.mark.parametrize(
    ("net", "options", "error", "words"),
    [
        (nn.Flatten(), {}, ValueError, "needs preprocessing"),
        (7, {}, TypeError, "got int"),
        (nn.Identity(), {"preprocessing": Preprocessing(size=SIZE)}, TypeError, r"1×D .* got \(1, 3, 64, 32\)"),
        (lambda batch: [batch], {"preprocessing": Preprocessing(size=SIZE)}, TypeError, "got list"),
    ],
)
def test_a_model_that_is_none_is_refused(
    dataset: ReIDDataset, net: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        evaluate_model(net, dataset, device="cpu", **options)


def test_what_does_not_go_together_is_refused(model: reprism.PartNet, dataset: ReIDDataset) -> None:
    with pytest.raises(ValueError, match="own preprocessing"):
        evaluate_model(model, dataset, preprocessing=Preprocessing())
    with pytest.raises(ValueError, match="flip=False and the embedder flip=True"):
        evaluate_model(Embedder(model, device="cpu"), dataset, Protocol(flip=False))
    with pytest.raises(DataError, match="cannot be used"):
        evaluate_model(model, replace(dataset, query=()))
    few = {(item.pid, item.camid): item for item in dataset.query}
    with pytest.raises(ValueError, match="nothing to average"):
        evaluate_model(model, replace(dataset, query=tuple(few.values()), multi_query=()), Protocol(multi_query=True))
    for wrong in ({"ap": "mean"}, {"expand_queries": -1}, {"rerank": Reranking(), "single_shot_trials": 2}):
        with pytest.raises(ValueError, match=r"expected|re-ranking"):
            Protocol(**wrong)


def test_without_the_mirrored_image(model: reprism.PartNet, dataset: ReIDDataset) -> None:
    found = evaluate_model(model, dataset, Protocol(flip=False), precision="fp32", device="cpu")
    plain = Embedder(model, flip=False, precision="fp32", device="cpu")
    np.testing.assert_array_equal(found.query, plain.embed_samples(dataset.query))  # type: ignore[arg-type]
    assert "without mirrored image" in found.describe()
    assert evaluate_model(plain, dataset).protocol.flip is False


def test_lists_and_hardest_queries(model: reprism.PartNet, dataset: ReIDDataset, rows: Any) -> None:
    found = evaluate_model(model, dataset, precision="fp32", device="cpu")
    assert found.hardest(3) == hardest(found.metrics, 3)
    (expected,) = ranked_lists(*rows, dataset.query, dataset.gallery, [2], 5)
    shown = found.ranked_list(2, top=5)
    np.testing.assert_array_equal(shown.gallery, expected.gallery)
    trials = evaluate_model(model, dataset, Protocol(single_shot_trials=2), precision="fp32", device="cpu")
    for ask in (trials.hardest, lambda: trials.ranked_list(0), trials.by_camera_pair):
        with pytest.raises(ValueError, match="no one ranked list"):
            ask()
    assert found.rescored(found.query[:, :8], found.gallery[:, :8]).query.shape[1] == 8


def test_camera_pairs_are_those_of_queries_and_gallery_cut_by_hand(
    model: reprism.PartNet, dataset: ReIDDataset, rows: Any
) -> None:
    found = evaluate_model(model, dataset, precision="fp32", device="cpu")
    pairs = found.by_camera_pair()
    cameras = sorted({item.camid for item in dataset.query})
    assert list(pairs) == [(one, other) for one in cameras for other in cameras if one != other]
    for (one, other), metrics in pairs.items():
        asked = [index for index, item in enumerate(dataset.query) if item.camid == one]
        shown = [index for index, item in enumerate(dataset.gallery) if item.camid == other and item.pid != -1]
        distances = np.linalg.norm(rows[0][asked][:, None] - rows[1][shown][None], axis=2)
        right = [
            dataset.gallery[shown[nearest]].pid == dataset.query[index].pid
            for index, nearest in zip(asked, distances.argmin(1), strict=True)
        ]
        valid = [any(dataset.gallery[row].pid == dataset.query[index].pid for row in shown) for index in asked]
        assert metrics.rank(1) == pytest.approx(
            np.mean([hit for hit, counts in zip(right, valid, strict=True) if counts])
        )
    blind = replace(
        dataset,
        query=tuple(replace(item, camid=None) for item in dataset.query),
        gallery=tuple(replace(item, camid=None) for item in dataset.gallery),
    )
    with pytest.raises(ValueError, match="unknown"):
        evaluate_model(model, blind, precision="fp32", device="cpu").by_camera_pair()


def test_what_is_saved_says_all(model: reprism.PartNet, dataset: ReIDDataset, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    protocol = Protocol(rerank=Reranking(5, 2))
    found = evaluate_model(
        model, dataset, protocol, precision="fp32", device="cpu", progress=lambda *each: seen.append(each)
    )
    saved = json.loads(found.save(tmp_path / "scores.json").read_text())
    assert saved == json.loads(json.dumps(found.as_dict()))
    assert saved["mAP"] == found.metrics.mAP
    assert saved["rerank"] == {"k1": 5, "k2": 2, "lambda_value": 0.3}
    assert saved["protocol"] == (
        "single query, same-camera matches ignored, Euclidean distance of L2-normalised descriptors, "
        "images at 64x32, with mirrored image, fp32, AP by step, mean over valid queries, "
        f"{len(found.lost_queries)} of {len(dataset.query)} queries lost, re-ranked (k1 5, k2 2, lambda 0.3)"
    )
    assert {what for what, _, _ in seen} == {"query", "gallery", "ranking"}
    assert f"mAP {found.metrics.mAP:.1%}" in repr(found)


def test_a_protocol_alone_says_what_it_knows() -> None:
    assert Protocol().describe() == (
        "single query, same-camera matches ignored, Euclidean distance of L2-normalised descriptors, AP by step, "
        "mean over valid queries, not re-ranked"
    )
    words = Protocol(lost="zero", flip=False, multi_query=True, single_shot_trials=10, expand_queries=3).describe()
    for part in ("averaged", "10 trials", "a lost one counting 0", "without mirrored", "their 3 nearest"):
        assert part in words
