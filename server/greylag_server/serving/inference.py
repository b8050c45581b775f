"""The Open Inference Protocol (v2), as far as the lead serves it and a firm asks: gRPC's messages.

A subset in fields, not in form: names and numbers are the public protocol's, so that any client of
it can be used. The classes are built when this module is imported, from the table below and in a
pool of their own: no compiler is needed, and a client library in the same process may bring its
own classes by the same names. Only those who serve or ask import this; it wants protobuf.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = "inference.GRPCInferenceService"
INPUT = "features"  # float32 (batch, features): physical units, a category's number, NaN for a gap
OUTPUT = "prediction"  # float32 (batch, targets), or (batch, classes) of probabilities
FLAG = "out_of_range"  # bool (batch): a value lies outside its public range and was clamped to it
COLUMNS = "columns"  # in a model's properties: what the input's columns are, JSON
MAX_MESSAGE_BYTES = 32 << 20

# message: fields as "name type number"; "*" is repeated, "map<type>" has texts as keys.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool 1",
    "ModelReadyRequest": "name string 1, version string 2",
    "ModelReadyResponse": "ready bool 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string 1, version string 2, extensions *string 3",
    "ModelMetadataRequest": "name string 1, version string 2",
    "TensorMetadata": "name string 1, datatype string 2, shape *int64 3",
    "ModelMetadataResponse": "name string 1, versions *string 2, platform string 3, "
    "inputs *TensorMetadata 4, outputs *TensorMetadata 5, properties map<string> 6",
    "InferParameter": "bool_param bool 1, int64_param int64 2, string_param string 3",
    "InferTensorContents": "fp32_contents *float 6, fp64_contents *double 7",
    "InferInputTensor": "name string 1, datatype string 2, shape *int64 3, "
    "contents InferTensorContents 5",
    "InferRequestedOutputTensor": "name string 1",
    "ModelInferRequest": "model_name string 1, model_version string 2, id string 3, "
    "parameters map<InferParameter> 4, inputs *InferInputTensor 5, "
    "outputs *InferRequestedOutputTensor 6, raw_input_contents *bytes 7",
    "InferOutputTensor": "name string 1, datatype string 2, shape *int64 3",
    "ModelInferResponse": "model_name string 1, model_version string 2, id string 3, "
    "outputs *InferOutputTensor 5, raw_output_contents *bytes 6",
}
# These stand inside another message; the bytes on the wire would be the same anywhere.
_INSIDE = {
    "TensorMetadata": "ModelMetadataResponse",
    "InferInputTensor": "ModelInferRequest",
    "InferRequestedOutputTensor": "ModelInferRequest",
    "InferOutputTensor": "ModelInferResponse",
}
_Field = descriptor_pb2.FieldDescriptorProto


def _path(name: str) -> str:
    outer = _INSIDE.get(name)
    return f".{PACKAGE}.{outer}.{name}" if outer else f".{PACKAGE}.{name}"


def _add_field(message: Any, name: str, kind: str, number: int) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.startswith("map<"):
        entry = "".join(part.title() for part in name.split("_")) + "Entry"
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        _add_field(nested, "key", "string", 1)
        _add_field(nested, "value", kind[4:-1], 2)
        field.type_name = f".{PACKAGE}.{message.name}.{entry}"
    elif kind.lstrip("*") in _MESSAGES:
        field.type_name = _path(kind.lstrip("*"))
    else:
        field.type = getattr(_Field, f"TYPE_{kind.lstrip('*').upper()}")
    if field.type_name:
        field.type = _Field.TYPE_MESSAGE
    if kind.startswith(("*", "map<")):
        field.label = _Field.LABEL_REPEATED


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="greylag/inference.proto", package=PACKAGE, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for name in sorted(_MESSAGES, key=lambda item: item in _INSIDE):  # the outer ones first
        holder = made[_INSIDE[name]].nested_type if name in _INSIDE else file.message_type
        made[name] = holder.add(name=name)
    for name, fields in _MESSAGES.items():
        for field in filter(None, fields.split(", ")):
            label, kind, number = field.split()
            _add_field(made[name], label, kind, int(number))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(_path(name)[1:]))
        for name in _MESSAGES
    }


MESSAGES = _build()
# Each call of the service, with what it takes and gives.
CALLS = {
    name: (MESSAGES[f"{name}Request"], MESSAGES[f"{name}Response"])
    for name in (
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
        "ModelInfer",
    )
}
