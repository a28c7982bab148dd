"""Answers held to botocore's model of a service: members, types, bounds, patterns, enums.

Owns: the validator. The model is the one that the AWS SDK for Python ships, so what passes here is
what every SDK reads.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape

KMS: ServiceModel = botocore.session.get_session().get_service_model("kms")
# What AWS answers to any operation, whatever its model lists.
COMMON_ERRORS = frozenset({
    "AccessDeniedException", "InvalidSignatureException", "MissingAuthenticationTokenException",
    "SerializationException", "ThrottlingException", "UnrecognizedClientException",
    "UnknownOperationException", "UnsupportedOperationException", "ValidationException",
})


def operation(name: str) -> OperationModel:
    return KMS.operation_model(name)


def wrong(shape: Shape | None, value: Any, where: str = "") -> list[str]:
    """Everything in `value`, as JSON gave it, that the model does not allow."""
    if shape is None:
        return [] if value in ({}, None) else [f"{where}: the model has no answer, got {value!r}"]
    check = CHECKS.get(shape.type_name)
    if check is None:
        return [f"{where}: the validator has no type {shape.type_name}"]
    return list(check(shape, value, where))


def structure(shape: Any, value: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: {type(value).__name__} for a structure"]
    found = [f"{where}.{name}: missing" for name in shape.required_members if name not in value]
    names = {member.serialization.get("name", name): member
             for name, member in shape.members.items()}
    for name, inner in value.items():
        if name not in names:
            found.append(f"{where}.{name}: not in the model")
        else:
            found += wrong(names[name], inner, f"{where}.{name}")
    return found


def listing(shape: Any, value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{where}: {type(value).__name__} for a list"]
    found = bounds(shape, len(value), where)
    for at, inner in enumerate(value):
        found += wrong(shape.member, inner, f"{where}[{at}]")
    return found


def mapping(shape: Any, value: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: {type(value).__name__} for a map"]
    found: list[str] = []
    for name, inner in value.items():
        found += wrong(shape.key, name, f"{where} key")
        found += wrong(shape.value, inner, f"{where}[{name}]")
    return found


def string(shape: Any, value: Any, where: str) -> list[str]:
    if not isinstance(value, str):
        return [f"{where}: {type(value).__name__} for a string"]
    found = bounds(shape, len(value), where)
    if shape.enum and value not in shape.enum:
        found.append(f"{where}: {value!r} is none of {shape.enum}")
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(pattern.replace("\\p{", "\\w{"), value):
        found.append(f"{where}: {value!r} does not match {pattern}")
    return found


def blob(shape: Any, value: Any, where: str) -> list[str]:
    if not isinstance(value, str):
        return [f"{where}: {type(value).__name__} for a blob"]
    try:
        raw = base64.b64decode(value, validate=True)
    except binascii.Error:
        return [f"{where}: not base64: {value[:40]!r}"]
    return bounds(shape, len(raw), where)


def boolean(_: Any, value: Any, where: str) -> list[str]:
    return [] if isinstance(value, bool) else [f"{where}: {type(value).__name__} for a boolean"]


def integer(shape: Any, value: Any, where: str) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int):
        return [f"{where}: {type(value).__name__} for an integer"]
    return bounds(shape, value, where)


def timestamp(_: Any, value: Any, where: str) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return [f"{where}: {type(value).__name__} for a time, which is a number of seconds"]
    # 2020 to 2100: milliseconds would lie far beyond.
    return [] if 1.57e9 < value < 4.2e9 else [f"{where}: {value} is no time of these days"]


def bounds(shape: Any, value: int, where: str) -> list[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    found = []
    if least is not None and value < least:
        found.append(f"{where}: {value} is less than {least}")
    if most is not None and value > most:
        found.append(f"{where}: {value} is more than {most}")
    return found


CHECKS = {
    "blob": blob, "boolean": boolean, "integer": integer, "list": listing, "long": integer,
    "map": mapping, "string": string, "structure": structure, "timestamp": timestamp,
}
