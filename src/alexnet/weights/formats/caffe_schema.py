"""Caffe's messages: the part of its `caffe.proto` that AlexNet needs, as classes of the `protobuf`
library.

A caffemodel is one message, `NetParameter`: a list of layers, each with its settings, the names of
the blobs it reads (bottoms) and writes (tops), and its parameters. The layout of 2014, in which the
published AlexNet and CaffeNet came, keeps layers under field 2 with an enumeration for their type
and four numbers for a blob's shape; later files keep them under field 100 with a word and a list.
The numbers are the same in both: float32, convolutions as (out, in / groups, height, width), the
inputs of fc6 in C, H, W order. So nothing is turned round on the way in.
"""

from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from alexnet.weights.formats.wire import BYTES, VARINT

#: Message -> fields as "name number type [default]"; `*` marks a repeated field, `+` one
#: whose numbers are packed.
_SCHEMA: dict[str, tuple[str, ...]] = {
    "Shape": ("dim 1 int64+",),
    "Blob": ("num 1 int32", "channels 2 int32", "height 3 int32", "width 4 int32", "shape 7 Shape"),
    "Transform": ("scale 1 float 1", "crop_size 3 uint32", "mean_file 4 string", "mean_value 5 float*"),
    "Data": ("crop_size 5 uint32",),
    "Input": ("shape 1 Shape*",),
    "Convolution": (
        "num_output 1 uint32", "bias_term 2 bool true", "pad 3 uint32*", "kernel_size 4 uint32*", "group 5 uint32 1",
        "stride 6 uint32*", "pad_h 9 uint32", "pad_w 10 uint32", "kernel_h 11 uint32", "kernel_w 12 uint32",
        "stride_h 13 uint32", "stride_w 14 uint32", "axis 16 int32 1", "dilation 18 uint32*",
    ),
    "InnerProduct": ("num_output 1 uint32", "bias_term 2 bool true", "axis 5 int32 1", "transpose 6 bool"),
    "LRN": ("local_size 1 uint32 5", "alpha 2 float 1", "beta 3 float 0.75", "norm_region 4 int32", "k 5 float 1"),
    "Pooling": (
        "pool 1 int32", "kernel_size 2 uint32", "stride 3 uint32 1", "pad 4 uint32", "kernel_h 5 uint32", "kernel_w 6 uint32",
        "stride_h 7 uint32", "stride_w 8 uint32", "pad_h 9 uint32", "pad_w 10 uint32", "global_pooling 12 bool",
    ),
    "ReLU": ("negative_slope 1 float",),
    "Dropout": ("dropout_ratio 1 float 0.5",),
    "Layer": (
        "name 1 string", "type 2 string", "bottom 3 string*", "top 4 string*", "transform_param 100 Transform",
        "convolution_param 106 Convolution", "data_param 107 Data", "dropout_param 108 Dropout",
        "inner_product_param 117 InnerProduct", "lrn_param 118 LRN", "pooling_param 121 Pooling", "relu_param 123 ReLU",
        "input_param 143 Input",
    ),
    "OldLayer": (
        "bottom 2 string*", "top 3 string*", "name 4 string", "type 5 int32", "convolution_param 10 Convolution",
        "data_param 11 Data", "dropout_param 12 Dropout", "inner_product_param 17 InnerProduct", "lrn_param 18 LRN",
        "pooling_param 19 Pooling", "relu_param 30 ReLU", "transform_param 36 Transform",
    ),
    "Net": ("name 1 string", "input 3 string*", "input_dim 4 int32*", "input_shape 8 Shape*", "layer 100 Layer*"),
}  # fmt: skip

#: The layout of 2014's layer types, by today's names.
OLD_TYPES = {
    1: "Accuracy",
    2: "BNLL",
    3: "Concat",
    4: "Convolution",
    5: "Data",
    6: "Dropout",
    7: "EuclideanLoss",
    8: "Flatten",
    9: "HDF5Data",
    10: "HDF5Output",
    11: "Im2col",
    12: "ImageData",
    13: "InfogainLoss",
    14: "InnerProduct",
    15: "LRN",
    16: "MultinomialLogisticLoss",
    17: "Pooling",
    18: "ReLU",
    19: "Sigmoid",
    20: "Softmax",
    21: "SoftmaxWithLoss",
    22: "Split",
    23: "TanH",
    24: "WindowData",
    25: "Eltwise",
    26: "Power",
    27: "SigmoidCrossEntropyLoss",
    28: "HingeLoss",
    29: "MemoryData",
    30: "ArgMax",
    31: "Threshold",
    32: "DummyData",
    33: "Slice",
    34: "MVN",
    35: "AbsVal",
    36: "Silence",
    37: "ContrastiveLoss",
    38: "Exp",
    39: "Deconvolution",
}


NEW, OLD = 100, 2  # where NetParameter keeps its layers
BLOBS = {NEW: 7, OLD: 6}  # where a layer keeps its parameters
DATA, DIFF, DOUBLES, DOUBLE_DIFF = 5, 6, 8, 9  # where a blob keeps its numbers
#: NetParameter's fields and how each is encoded; a file that begins otherwise is not a caffemodel.
NET_WIRE = {1: BYTES, 2: BYTES, 3: BYTES, 4: VARINT, 5: VARINT, 6: BYTES, 7: VARINT, 8: BYTES, 100: BYTES}


def _field(spec: str, package: str) -> FieldDescriptorProto:
    name, number, kind, *default = spec.split()
    field = FieldDescriptorProto(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind[-1] in "*+":
        field.label = FieldDescriptorProto.LABEL_REPEATED
        if kind[-1] == "+":
            field.options.packed = True
    kind = kind.rstrip("*+")
    if kind in _SCHEMA:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if default:
        field.default_value = default[0]
    return field


def _messages() -> dict[str, Any]:
    """`_SCHEMA` as message classes, in a pool of their own: a `caffe_pb2` that is
    imported too does not collide."""
    file = FileDescriptorProto(name="alexnet/caffe.proto", package="caffe", syntax="proto2")
    for name, fields in _SCHEMA.items():
        file.message_type.add(name=name, field=[_field(spec, file.package) for spec in fields])
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}")) for name in _SCHEMA}


MESSAGE = _messages()


def decimal(value: float) -> float:
    """A float32 as the decimal that somebody wrote: 9.9999997e-05 is 0.0001."""
    return float(str(np.float32(value)))
