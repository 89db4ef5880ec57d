"""Which words may stand at a place of a message: the types of a request, the values of an enumeration. For whoever sent another."""

import functools
import re
from collections.abc import Callable
from typing import Any

from msgspec import inspect

_STEP = re.compile(r"(\w+)|\[[^\]]*\]")


def allowed_at(kind: Any, path: str, value_at: Callable[[str], object]) -> list[str]:
    """The words that may stand at ``path`` (``request.role``) of a ``kind``; none: any may, or it is not known.

    ``value_at``: what the message has at a path: where a ``kind`` is one of many, its tag says which.
    """
    before, types = "", _choices(_described(kind))
    for step in _STEP.finditer(path):
        structs = [item for item in types if isinstance(item, inspect.StructType)]
        tag_field = structs[0].tag_field if structs else None
        if step[1] is None:
            types = [choice for item in types for choice in _choices(_element(item))]
        elif step[1] == tag_field:
            return [str(item.tag) for item in structs] if step.end() == len(path) else []
        else:
            if len(structs) > 1:
                tag = value_at(f"{before}.{tag_field}".lstrip("."))
                structs = [item for item in structs if item.tag == tag]
            types = [choice for item in structs for field in item.fields if field.encode_name == step[1] for choice in _choices(field.type)]
        before = path[: step.end()]
    return [word for item in types for word in _words(item)]


@functools.lru_cache(maxsize=64)  # half a millisecond for the control requests; whoever sends rubbish may send much of it
def _described(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _choices(of: inspect.Type | None) -> list[inspect.Type]:
    if of is None:
        return []
    return list(of.types) if isinstance(of, inspect.UnionType) else [of]


def _element(of: inspect.Type) -> inspect.Type | None:
    if isinstance(of, inspect.ListType):
        return of.item_type
    return of.value_type if isinstance(of, inspect.DictType) else None


def _words(of: inspect.Type) -> list[str]:
    if isinstance(of, inspect.EnumType):
        return [str(item.value) for item in of.cls]
    return [str(item) for item in of.values] if isinstance(of, inspect.LiteralType) else []
