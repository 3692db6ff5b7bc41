"""A file of tracklets, a line of JSON each: what a gallery's rows have no columns for."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from reprism.cameras.tracklets import Sight, Tracklet


class TrackletLines:
    """Appends tracklets to a file, each once, however often the work is begun again.

    A line that was cut off when the process was killed is removed on opening.

    Args:
        path: File to append to; made if absent.

    Raises:
        ValueError: The file holds something else.
        OSError: It cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path.open("a+b")
        self._ids = set()
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            end += len(line)
            try:
                self._ids.add(str(json.loads(line)["id"]))
            except (ValueError, LookupError, TypeError) as error:
                self._file.close()
                raise ValueError(
                    f"{self.path}:{number}: expected a tracklet as a line of JSON with an id: name a file that reprism "
                    "watch made, or a new one"
                ) from error

    def __enter__(self) -> TrackletLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: str, camera: str, source: str, tracklet: Tracklet[Any]) -> None:
        """Append a tracklet, unless there is one with the same id.

        Args:
            row: Id of its row in the gallery.
            camera, source: Of that row.
            tracklet: The tracklet.
        """
        if row in self._ids:
            return
        values = {
            "id": row,
            "camera": camera,
            "source": source,
            "first": _sight(tracklet.first),
            "last": _sight(tracklet.last),
            "boxes": tracklet.boxes,
            "crops": [{**_sight(crop.sight), "score": round(crop.score, 6)} for crop in tracklet.crops],
        }
        self._file.write(json.dumps(values).encode() + b"\n")
        self._file.flush()
        self._ids.add(row)


def _sight(sight: Sight) -> dict[str, Any]:
    height, width = sight.size
    return {
        "frame": sight.index,
        "time": None if sight.time is None else sight.time.isoformat(),
        "box": [round(float(value), 2) for value in sight.box],
        "of": [width, height],
    }
