"""Search by looks and times together, for ``reprism search --network``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reprism.cli.galleries import parse_moment
from reprism.cli.output import progress_bars
from reprism.terminal import did_you_mean

if TYPE_CHECKING:
    from reprism.evaluation.calibration import Calibration
    from reprism.gallery.filters import Filter
    from reprism.gallery.table import Gallery
    from reprism.linking.looks import Looks
    from reprism.linking.network_search import Seen, TimedMatch
    from reprism.linking.reasons import Site

KEPT = "kept"
"""Name of the transit times that are kept with a gallery."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a search by looks and times needs besides the query.

    Attributes:
        gallery: The gallery.
        site: The network of cameras.
        looks: What tells the probability by looks.
        where: The filter of rows.
        kept: Whether the network is the one that is kept with the gallery.
    """

    gallery: "Gallery"
    site: "Site"
    looks: "Looks"
    where: "Filter"
    kept: bool

    def seen(self, camera: str | None, time: str | None) -> "Seen":
        """Return where and when pictures were taken.

        Raises:
            ValueError: The network does not know the camera, or the time is no moment in ISO 8601.
        """
        from reprism.linking.network_search import Seen

        moment = parse_moment(str(time), "--query-time")
        cameras = sorted({view.camera for view in self.site.network.sightings})
        if camera not in cameras:
            raise ValueError(
                f"--query-camera {camera!r}: the network has no such camera; there are "
                f"{', '.join(cameras)}.{did_you_mean(str(camera), cameras)}"
            )
        return Seen(camera, moment)

    def search(
        self, descriptors: np.ndarray, seen: "Seen", top: int, *, exact: bool | None
    ) -> "Sequence[Sequence[TimedMatch]]":
        """Search for pictures, all taken at one time by one camera."""
        from reprism.linking.network_search import search_by_network

        queries = [seen] * len(descriptors)
        return search_by_network(
            self.gallery, descriptors, queries, self.site, self.looks, top, self.where, exact=exact
        )

    def like(self, row: str, top: int) -> "Sequence[TimedMatch]":
        """Search for the person of a row.

        Raises:
            ValueError: There is no such row, it has no camera or no time, or linking does not keep it any more.
        """
        from reprism.gallery.permission import require_linking
        from reprism.linking.network_search import search_like

        try:
            about = self.gallery.get(row)
        except KeyError:
            raise ValueError(
                f"--like {row!r}: {self.gallery.uri} has no row of this id; reprism search --json shows ids"
            ) from None
        if about.camid is None or about.time is None:
            missing = "camera" if about.camid is None else "time"
            raise ValueError(
                f"--like {row!r}: no {missing} of this row is known: search for its picture by looks alone"
            )
        if self.kept and about.time < require_linking(self.gallery.store).cutoff():
            raise ValueError(
                f"--like {row!r}: this row is older than linking keeps rows: search for its picture by looks alone"
            )
        return search_like(self.gallery, row, self.site, self.looks, top, self.where)


def plan_search(gallery: "Gallery", network: str, where: "Filter", calibration: "Calibration | None") -> Plan:
    """Read the network of cameras, and learn what looks tell where no calibration does.

    Args:
        gallery: The gallery.
        network: A file, or ``kept``.
        where: Filter of rows; without those that linking does not keep, if the network is the one that is kept.
        calibration: Of this gallery's distances; None: learn from its rows.

    Raises:
        LinkingError: Linking is off, and the network is the one kept, or there is no calibration.
        CameraNetworkError: The file holds no network.
        ValueError: None is kept, or too little can be learned.
    """
    from reprism.linking.learned import kept_learned, kept_network
    from reprism.linking.looks import learn_looks
    from reprism.linking.network_search import kept_rows
    from reprism.linking.reasons import Site
    from reprism.linking.transit import CameraNetwork

    found = kept_network(gallery) if network == KEPT else CameraNetwork.load(network)
    if found is None:
        raise ValueError(
            f"no transit times are kept with {gallery.uri}: learn them by reprism link learn {gallery.uri}"
        )
    if network == KEPT:
        where = kept_rows(gallery, where)
    looks: Looks | None = calibration
    if looks is None and network == KEPT and (learned := kept_learned(gallery)) is not None:
        looks = learned.looks
    if looks is None:
        with progress_bars() as progress:
            looks = learn_looks(gallery, found, progress=progress)
    return Plan(gallery, Site.of(found), looks, where, network == KEPT)
