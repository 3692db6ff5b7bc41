"""Reprism: person re-identification with spatial and channel parts.

The names below load on first use, so that ``import reprism`` costs nothing and pulls in no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reprism._version import __version__

if TYPE_CHECKING:
    from reprism import losses as losses
    from reprism.data import open_dataset as open_dataset
    from reprism.data.records import ReIDDataset as ReIDDataset
    from reprism.data.records import Sample as Sample
    from reprism.data.records import Tracklet as Tracklet
    from reprism.data.transforms import Preprocessing as Preprocessing
    from reprism.data.video import VideoSettings as VideoSettings
    from reprism.embedding import Embedder as Embedder
    from reprism.evaluation.calibration import Calibration as Calibration
    from reprism.evaluation.calibration import calibrate as calibrate
    from reprism.evaluation.camera_statistics import CameraStatistics as CameraStatistics
    from reprism.evaluation.distances import part_distances as part_distances
    from reprism.evaluation.protocol import Protocol as Protocol
    from reprism.evaluation.protocol import Reranking as Reranking
    from reprism.evaluation.ranking import RankingMetrics as RankingMetrics
    from reprism.evaluation.ranking import evaluate as evaluate
    from reprism.evaluation.reranking import rerank as rerank
    from reprism.evaluator import Evaluation as Evaluation
    from reprism.evaluator import evaluate_model as evaluate_model
    from reprism.gallery.table import Gallery as Gallery
    from reprism.imports import trust as trust
    from reprism.linking.answering import answer_link as answer_link
    from reprism.linking.answering import review_queue as review_queue
    from reprism.linking.answering import undo_change as undo_change
    from reprism.linking.answering import undo_link_answer as undo_link_answer
    from reprism.linking.gallery_people import link_gallery as link_gallery
    from reprism.linking.gallery_people import update_people as update_people
    from reprism.linking.transit import CameraNetwork as CameraNetwork
    from reprism.models.checkpoint import load as load
    from reprism.models.checkpoint import save as save
    from reprism.models.network import PartNet as PartNet
    from reprism.models.network import PartOutput as PartOutput
    from reprism.models.network import build_model as build_model
    from reprism.notation import Part as Part
    from reprism.notation import Partition as Partition
    from reprism.training.fit import fit as fit
    from reprism.training.ingredients import Ingredients as Ingredients
    from reprism.training.module import FitSettings as FitSettings
    from reprism.training.run import train as train

_HOMES = {
    "Calibration": "reprism.evaluation.calibration",
    "CameraNetwork": "reprism.linking.transit",
    "CameraStatistics": "reprism.evaluation.camera_statistics",
    "Embedder": "reprism.embedding",
    "Evaluation": "reprism.evaluator",
    "FitSettings": "reprism.training.module",
    "Gallery": "reprism.gallery.table",
    "Ingredients": "reprism.training.ingredients",
    "Part": "reprism.notation",
    "PartNet": "reprism.models.network",
    "PartOutput": "reprism.models.network",
    "Partition": "reprism.notation",
    "Preprocessing": "reprism.data.transforms",
    "Protocol": "reprism.evaluation.protocol",
    "RankingMetrics": "reprism.evaluation.ranking",
    "ReIDDataset": "reprism.data.records",
    "Reranking": "reprism.evaluation.protocol",
    "Sample": "reprism.data.records",
    "Tracklet": "reprism.data.records",
    "VideoSettings": "reprism.data.video",
    "build_model": "reprism.models.network",
    "calibrate": "reprism.evaluation.calibration",
    "evaluate": "reprism.evaluation.ranking",
    "evaluate_model": "reprism.evaluator",
    "fit": "reprism.training.fit",
    "answer_link": "reprism.linking.answering",
    "link_gallery": "reprism.linking.gallery_people",
    "review_queue": "reprism.linking.answering",
    "undo_change": "reprism.linking.answering",
    "undo_link_answer": "reprism.linking.answering",
    "update_people": "reprism.linking.gallery_people",
    "load": "reprism.models.checkpoint",
    "open_dataset": "reprism.data",
    "part_distances": "reprism.evaluation.distances",
    "rerank": "reprism.evaluation.reranking",
    "save": "reprism.models.checkpoint",
    "train": "reprism.training.run",
    "trust": "reprism.imports",
}

__all__ = ["__version__", "losses", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "losses":
        value = importlib.import_module("reprism.losses")
    else:
        raise AttributeError(f"module 'reprism' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
