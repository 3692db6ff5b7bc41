"""Engines other than PyTorch that run a network."""

import os
import sys

# OpenVINO and NNCF report their use to their makers, from a forked process, unless their reporter cannot be imported.
# What happens with people's pictures is nobody's business; and LanceDB's threads do not survive a fork.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("NNCF_CI", "1")
