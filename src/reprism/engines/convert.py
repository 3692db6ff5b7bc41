"""Turn a part network into an engine's model: from images B×3×H×W to descriptors B×D, for any B."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reprism.engines.session import one_line
from reprism.models.network import PartNet

if TYPE_CHECKING:
    import openvino


class ConversionError(ValueError):
    """A network that cannot be converted; the message gives the engine's reason, or the package that is missing."""


class _Descriptors(nn.Module):
    def __init__(self, model: PartNet, mirrored: bool) -> None:
        super().__init__()
        self.model = model
        self.mirrored = mirrored

    def forward(self, images: Tensor) -> Tensor:
        descriptor: Tensor = self.model(images).descriptor
        return descriptor + self.model(images.flip(-1)).descriptor if self.mirrored else descriptor


def to_onnx(model: PartNet, path: Path, *, mirrored: bool = False, half: bool = False) -> None:
    """Write an ONNX file.

    Args:
        model: A network in eval mode on the CPU, in float32.
        path: File to write.
        mirrored: Add the mirrored image's descriptor.
        half: Weights and computation in float16, input included.

    Raises:
        ConversionError: A package is missing, or torch cannot export the network.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConversionError(f"export needs the package {error.name}: pip install 'reprism[export]'") from error
    images = torch.zeros(2, 3, *model.preprocessing.size, dtype=torch.float16 if half else torch.float32)
    described = _Descriptors(copy.deepcopy(model).half() if half else model, mirrored).eval()
    batch = {0: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                described, (images,), dynamo=True, dynamic_shapes=[batch], verbose=False,
                input_names=["images"], output_names=["descriptors"],
            )  # fmt: skip
        if program is None:
            raise RuntimeError("the exporter returned nothing")
        program.save(path)
    except Exception as error:  # whatever torch raises about operations that ONNX does not have
        raise ConversionError(f"torch cannot export {model.backbone} to ONNX: {one_line(error)}") from error


def to_openvino(model: PartNet, *, mirrored: bool = False) -> openvino.Model:
    """Return an OpenVINO model in float32.

    Args:
        model: A network in eval mode on the CPU, in float32.
        mirrored: Add the mirrored image's descriptor.

    Raises:
        ConversionError: OpenVINO is not installed, or cannot convert the network.
    """
    try:
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    except ImportError as error:
        raise ConversionError("OpenVINO is not installed: pip install 'reprism[openvino]'") from error
    images = torch.zeros(2, 3, *model.preprocessing.size)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # That Python's numbers become constants is meant: all but the batch size are.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(_Descriptors(model, mirrored).eval(), images, check_trace=False)
            # Not by openvino.convert_model, which traces three times to compare, and reports its use.
            decoder = TorchScriptPythonDecoder(traced, shared_memory=False)
            frontend = FrontEndManager().load_by_framework("pytorch")
            converted = frontend.convert(frontend.load(decoder))
        converted.reshape([-1, *images.shape[1:]])
        converted.inputs[0].set_names({"images"})
        converted.outputs[0].set_names({"descriptors"})  # NNCF finds outputs by their names
    except Exception as error:  # OpenVINO and torch raise many kinds
        raise ConversionError(f"OpenVINO cannot convert {model.backbone}: {one_line(error)}") from error
    return converted
