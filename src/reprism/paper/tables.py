"""The paper's published figures, cell by cell, beside the experiments that measure the same here (paper section 4).

Figures are percent, rank-1 then mAP, as printed. Rows of other authors' systems are quoted: no experiment stands beside
them. Table 10 is ours: the network's relatives, which the notation names, trained alike; nothing is published for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reprism.data.video import VideoSettings
from reprism.training.recipes import SCR

# ImageNet weights of one kind, of the paper's time: plain SGD in steps, by torchvision and by the authors of SENet.
# timm's default for "seresnet50" is a recipe of 2021: Table 1 would compare recipes instead of attention and partition.
RESNET50, SENET = "resnet50.tv_in1k", "legacy_seresnet50.in1k"


@dataclass(frozen=True)
class Target:
    """A data set with its variant, as tables name it.

    Attributes:
        title: Name in tables.
        name: Name in ``reprism.open_dataset``.
        options: Options of its loader.
    """

    title: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)


TARGETS = {
    "market1501": Target("Market-1501", "market1501"),
    "dukemtmc": Target("DukeMTMC-reID", "dukemtmc"),
    "cuhk03-labelled": Target("CUHK03 labelled", "cuhk03", {"boxes": "labelled"}),
    "cuhk03-detected": Target("CUHK03 detected", "cuhk03", {"boxes": "detected"}),
    "mars": Target("MARS", "mars"),
}


@dataclass(frozen=True)
class Experiment:
    """A training and its test; everything else is as the recipe says.

    Attributes:
        partition: The network's partition.
        backbone: The network's backbone.
        ce_weight, triplet_weight: Weights of the total loss's terms.
        released: Take the released code's settings where they differ from the paper's.
        trained_on: Target to train on; None: the tested one.
        video: Settings by which tracklets are described.
    """

    partition: str = SCR
    backbone: str = RESNET50
    ce_weight: float = 2.0
    triplet_weight: float = 1.0
    released: bool = False
    trained_on: str | None = None
    video: VideoSettings = field(default_factory=VideoSettings)


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        method: Name in the paper.
        published: rank-1 and mAP in percent for each target; None where nothing was published.
        experiment: Experiment that measures it here; None for a system of other authors.
    """

    method: str
    published: Mapping[str, tuple[float, float] | None]
    experiment: Experiment | None = None


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    title: str
    rows: tuple[Row, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets of its rows, in the order in which they first occur."""
        return tuple(dict.fromkeys(target for row in self.rows for target in row.published))


def _on(*targets: str) -> _Columns:
    return _Columns(targets)


@dataclass(frozen=True)
class _Columns:
    """Makes rows of a table whose columns are rank-1 and mAP of some targets."""

    targets: tuple[str, ...]

    def row(self, method: str, figures: str, experiment: Experiment | None = None) -> Row:
        """Make a row from its figures as printed, two for each target; '-' where there are none."""
        printed = figures.split()
        pairs = list(zip(printed[::2], printed[1::2], strict=True))
        published = {
            target: None if "-" in pair else (float(pair[0]), float(pair[1]))
            for target, pair in zip(self.targets, pairs, strict=True)
        }
        return Row(method, published, experiment)


_SCR = Experiment()
_market = _on("market1501")
_market_duke = _on("market1501", "dukemtmc")
_cuhk = _on("cuhk03-labelled", "cuhk03-detected")
_three = _on("market1501", "dukemtmc", "cuhk03-detected")
_mars = _on("mars")
_random, _even = VideoSettings(sampling="random"), VideoSettings()

TABLES: dict[str, Table] = {
    "table1": Table(
        "Attention and partition",
        (
            _market.row("ResNet-50", "89.5 73.3", Experiment("p1")),
            _market.row("ResNet-50 + channel attention (SENet)", "90.8 75.6", Experiment("p1", SENET)),
            _market.row("ResNet-50 + spatial-channel partition", "94.4 85.8", Experiment("p2(s2c2)")),
        ),
    ),
    "table2": Table(
        "Types of partition",
        (
            _cuhk.row("Spatial p1+p2(s2)+p3(s3)", "75.9 72.1 75.6 71.8", Experiment("p1+p2(s2)+p3(s3)")),
            _cuhk.row("Channel p1+p2(c2)+p3(c3)", "81.5 77.4 77.9 73.9", Experiment("p1+p2(c2)+p3(c3)")),
            _cuhk.row("Spatial-Channel p1+p2(s2c2)+p3(s3c3)", "83.8 80.4 82.2 77.6", _SCR),
        ),
    ),
    "table3": Table(
        "Branches",
        tuple(
            _three.row(partition, figures, Experiment(partition))
            for partition, figures in (
                ("p1", "89.5 73.3 83.3 66.8 52.4 46.3"),
                ("p2(s2c2)", "94.4 85.8 89.6 77.6 73.7 68.4"),
                ("p3(s3c3)", "94.5 86.3 89.2 78.7 75.1 70.7"),
                ("p1+p2(s2c2)", "94.9 87.3 89.5 78.6 74.8 70.2"),
                (SCR, "95.7 89.0 91.1 81.4 82.2 77.6"),
            )
        ),
    ),
    "table4": Table(
        "Weight of the cross-entropy",
        (
            _cuhk.row("w/o triplet", "76.9 73.5 75.1 70.5", replace(_SCR, triplet_weight=0.0)),
            _cuhk.row("lambda = 1", "84.8 81.4 79.5 75.5", replace(_SCR, ce_weight=1.0)),
            _cuhk.row("lambda = 2", "83.8 80.4 82.2 77.6", _SCR),
            _cuhk.row("lambda = 3", "82.2 78.8 80.7 76.8", replace(_SCR, ce_weight=3.0)),
        ),
    ),
    "table5": Table(
        "Temporal pooling",
        (
            _mars.row("TP(R)", "84.5 78.9", replace(_SCR, video=replace(_random, segments=1))),
            _mars.row("TPP(R)", "86.6 80.8", replace(_SCR, video=_random)),
            _mars.row("TP(E)", "85.7 79.5", replace(_SCR, video=replace(_even, segments=1))),
            _mars.row("TPP(E)", "87.3 81.3", replace(_SCR, video=_even)),
        ),
    ),
    "table6": Table(
        "Market-1501 and DukeMTMC-reID",
        (
            _market_duke.row("HA-CNN", "91.2 75.7 80.5 63.8"),
            _market_duke.row("Mancs", "93.1 82.3 84.9 71.8"),
            _market_duke.row("PCB+RPP", "93.8 81.6 83.3 69.2"),
            _market_duke.row("SCPNet-a", "94.1 81.8 84.4 68.5"),
            _market_duke.row("HPM", "94.2 82.7 86.6 74.3"),
            _market_duke.row("CAMA", "94.7 84.5 85.8 72.9"),
            _market_duke.row("MGN", "95.7 86.9 88.7 78.4"),
            _market_duke.row("CPM", "95.7 88.2 89.0 79.0"),
            _market_duke.row("SCR", "95.7 89.0 91.1 81.4", _SCR),
        ),
    ),
    "table7": Table(
        "CUHK03, new protocol",
        (
            _cuhk.row("HA-CNN", "44.4 41.0 41.7 38.6"),
            _cuhk.row("PCB+RPP", "- - 63.7 57.5"),
            _cuhk.row("HPM", "- - 63.9 57.5"),
            _cuhk.row("MGN", "68.0 67.4 68.0 66.0"),
            _cuhk.row("CAMA", "70.1 66.5 66.6 64.2"),
            _cuhk.row("CPM", "78.9 76.9 78.9 74.8"),
            _cuhk.row("SCR", "83.8 80.4 82.2 77.6", _SCR),
        ),
    ),
    "table8": Table(
        "MARS",
        (
            _mars.row("IDE+Kissme", "68.3 49.3"),
            _mars.row("TriNet", "79.8 67.7"),
            _mars.row("DRSTA", "82.3 65.8"),
            _mars.row("M3D", "84.4 74.0"),
            _mars.row("SCR", "87.3 81.3", _SCR),
        ),
    ),
    "table9": Table(
        "Trained on the one, tested on the other",
        (
            *(
                _on("dukemtmc", "market1501").row(method, figures)
                for method, figures in (
                    ("SPGAN", "41.1 22.3 51.5 22.8"),
                    ("TJ-AIDL", "44.3 23.0 58.2 26.5"),
                    ("ATNet", "45.1 24.9 55.7 25.6"),
                    ("HHL", "46.9 27.2 62.2 31.4"),
                )
            ),
            _on("dukemtmc").row(
                "SCR, Market-1501 to DukeMTMC-reID", "53.6 32.4", replace(_SCR, trained_on="market1501")
            ),
            _on("market1501").row(
                "SCR, DukeMTMC-reID to Market-1501", "59.7 30.6", replace(_SCR, trained_on="dukemtmc")
            ),
        ),
    ),
    "table10": Table(
        "Relatives, trained alike (not in the paper)",
        tuple(
            _market.row(method, "- -", experiment)
            for method, experiment in (
                ("PCB p1[s6]", Experiment("p1[s6]")),
                ("HPM p1[s1s2s4s8]", Experiment("p1[s1s2s4s8]")),
                ("MGN's layout p1+p2(s2)+p3(s3)", Experiment("p1+p2(s2)+p3(s3)")),
                ("IDE (cross-entropy only)", Experiment("p1", triplet_weight=0.0)),
                ("TriNet (triplet only)", Experiment("p1", ce_weight=0.0)),
                (f"deeper: {SCR}+p4(s4c4)", Experiment(f"{SCR}+p4(s4c4)")),
                ("SCR, the released code's settings", replace(_SCR, released=True)),
            )
        ),
    ),
}
"""The paper's tables, by their name in ``reprism reproduce``."""
