"""What several verbs take: the types of their options, which name no module that loads PyTorch."""

from typing import Literal

#: As in `alexnet.engines`.
Engine = Literal["auto", "openvino", "onnxruntime", "torch"]
