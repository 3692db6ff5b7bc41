"""From cameras to people: frames of videos and streams, people in them, their tracklets, and how good those are.

:mod:`reprism.cameras.watching` puts tracklets into a gallery. Nothing else here
imports torch, OpenCV or PyAV until a detector or a source that needs it is opened.
"""

from reprism.cameras.box_files import BoxTable, read_boxes
from reprism.cameras.boxes import Boxes, Detector, detect
from reprism.cameras.frames import Source, describe_source, read_frames, start_time
from reprism.cameras.motion import motion_detector
from reprism.cameras.opening import open_detector
from reprism.cameras.records import DetectorError, Frame, SourceError, SourceFacts, Timeouts, TrackerError
from reprism.cameras.regions import leave_out, read_regions
from reprism.cameras.track_files import TracksError, read_tracks
from reprism.cameras.track_metrics import (
    IdentityFigures,
    TrackFigures,
    TrackMetrics,
    evaluate_identities,
    evaluate_tracks,
)
from reprism.cameras.track_people import name_people, read_people
from reprism.cameras.tracklets import Crop, Sight, Tracklet, find_tracklets
from reprism.cameras.tracks import Tracker, open_tracker, track

__all__ = [
    "BoxTable",
    "Boxes",
    "Crop",
    "Detector",
    "DetectorError",
    "Frame",
    "IdentityFigures",
    "Sight",
    "Source",
    "SourceError",
    "SourceFacts",
    "Timeouts",
    "TrackFigures",
    "TrackMetrics",
    "Tracker",
    "TrackerError",
    "Tracklet",
    "TracksError",
    "describe_source",
    "detect",
    "evaluate_identities",
    "evaluate_tracks",
    "find_tracklets",
    "leave_out",
    "motion_detector",
    "name_people",
    "open_detector",
    "open_tracker",
    "read_boxes",
    "read_frames",
    "read_people",
    "read_regions",
    "read_tracks",
    "start_time",
    "track",
]
