"""The times between cameras that are kept with a gallery, ready for searches of a service."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from fastapi import HTTPException

from reprism.evaluation.calibration import Calibration
from reprism.gallery.filters import Filter
from reprism.gallery.permission import Linking
from reprism.gallery.table import Gallery
from reprism.linking.learned import kept_learned
from reprism.linking.looks import Looks, learn_looks
from reprism.linking.network_search import Seen, TimedMatch, kept_rows, search_by_network
from reprism.linking.odds import OddsError
from reprism.linking.reasons import Site
from reprism.linking.transit import CameraNetwork, CameraNetworkError

OFF = (
    "linking is off for this gallery: nobody in it is followed from camera to camera. Whoever runs the service can "
    "switch it on: reprism link enable"
)
NOT_LEARNED = (
    "no times between the cameras of this gallery are known, as after an erasure. Whoever runs the service can learn "
    "them: reprism link learn"
)


class _Known(NamedTuple):
    """What was made of kept times: it holds as long as they are the same, learned under the same permission."""

    text: str
    site: Site
    looks: Looks


class KeptTimes:
    """The transit times that are kept with a gallery. What was made of them is let go when they change.

    Args:
        gallery: The gallery.
        calibration: Tells the probability by looks; None: it is learned from the gallery's rows when it is first asked
            for, in seconds.
    """

    def __init__(self, gallery: Gallery, calibration: Calibration | None) -> None:
        self._gallery, self._calibration = gallery, calibration
        self._known: _Known | None = None
        self._site: tuple[str, Site] | None = None
        self._lock = threading.Lock()  # Several searches at once are to learn once.

    def forget(self) -> None:
        """Let go of what was made of them, as when rows are erased."""
        self._known = self._site = None

    def site(self) -> Site | None:
        """Return what is known of the cameras, made once of the times that are kept; None if there are none.

        Raises:
            CameraNetworkError: A newer Reprism wrote them.
        """
        linking = self._gallery.linking()
        if linking is None or linking.network is None:
            self.forget()
            return None
        return self._site_of(linking.network)

    def cameras(self) -> list[str]:
        """Return the cameras between which times are known; none if linking is off, or none are learned."""
        linking = self._gallery.linking()
        if linking is None or linking.network is None:
            self.forget()
            return []
        known = self._known
        try:
            same = known is not None and known.text == linking.network
            network = known.site.network if known is not None and same else CameraNetwork.from_json(linking.network)
        except CameraNetworkError:
            return []
        return sorted({view.camera for view in network.sightings})

    def search(self, descriptor: np.ndarray, seen: Seen, top: int, where: Filter) -> list[TimedMatch]:
        """Find the rows that are likeliest of a picture's person, by looks and times, among those that linking keeps.

        Raises:
            HTTPException: 409: linking is off, no times are kept, too little is known of looks, or the camera has no
                part in the network.
        """
        linking = self._gallery.linking()
        if linking is None:
            self.forget()
            raise HTTPException(409, OFF)
        known = self._made_of(linking)
        cameras = sorted({view.camera for view in known.site.network.sightings})
        if seen.camera not in cameras:
            raise HTTPException(
                409, f"query_camera: no times are known of {seen.camera!r}; they are of {', '.join(cameras)}"
            )
        kept = kept_rows(self._gallery, where)
        return search_by_network(self._gallery, descriptor, [seen], known.site, known.looks, top, kept)[0]

    def _made_of(self, linking: Linking) -> _Known:
        if linking.network is None:
            self.forget()
            raise HTTPException(409, NOT_LEARNED)
        with self._lock:
            known = self._known
            if known is None or known.text != linking.network:
                try:
                    site = self._site_of(linking.network)
                    looks = self._calibration or self._looks(site.network)
                except (CameraNetworkError, OddsError):
                    raise HTTPException(
                        409, "too little is known to search by times: give the service a calibration, or learn again"
                    ) from None
                known = self._known = _Known(linking.network, site, looks)
        return known

    def _site_of(self, text: str) -> Site:
        known = self._site
        if known is None or known[0] != text:
            known = self._site = text, Site.of(CameraNetwork.from_json(text))
        return known[1]

    def _looks(self, network: CameraNetwork) -> Looks:
        learned = kept_learned(self._gallery)
        return learn_looks(self._gallery, network) if learned is None else learned.looks
