"""From cameras to people: frames out of videos and streams, and the boxes of the people in them.

Nothing here imports torch, OpenCV or PyAV until a detector or a source that needs it is opened.
"""

from reprism.cameras.box_files import BoxTable, read_boxes
from reprism.cameras.boxes import Boxes, Detector, detect
from reprism.cameras.frames import Source, describe_source, read_frames, start_time
from reprism.cameras.motion import motion_detector
from reprism.cameras.opening import open_detector
from reprism.cameras.records import DetectorError, Frame, SourceError, SourceFacts, Timeouts

__all__ = [
    "BoxTable",
    "Boxes",
    "Detector",
    "DetectorError",
    "Frame",
    "Source",
    "SourceError",
    "SourceFacts",
    "Timeouts",
    "describe_source",
    "detect",
    "motion_detector",
    "open_detector",
    "read_boxes",
    "read_frames",
    "start_time",
]
