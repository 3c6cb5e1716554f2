"""Models of what comes in over HTTP, derived from the library's records: their fields, defaults, ranges and meanings.

Types and choices are checked here, so that an answer lists all that are wrong. Ranges are checked by the records, whose
messages name the remedy; here they are only described.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import MISSING
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict
from pydantic.fields import Field, FieldInfo

from keepmore.spec.fields import INFO
from keepmore.spec.fields import FieldInfo as SpecInfo


def example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RecordModel(Strict):
    """A model whose fields are those of a record, except those that the class itself declares or leaves out.

    `class SelectionIn(RecordModel, record=Selection)`; a field that is a record itself has the model of that record.
    """

    _record: ClassVar[type[Any]]
    # What reads a field once all types are right: gives its value, or raises InvalidRequest.
    _readers: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    _models: ClassVar[dict[type[Any], type[RecordModel]]] = {}

    def __init_subclass__(cls, record: type[Any] | None = None, without: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if record is None:
            return
        cls._record = record
        cls._models.setdefault(record, cls)
        declared = inspect.get_annotations(cls)
        hints = get_type_hints(record)
        for field in dataclasses.fields(record):
            if field.name not in (*declared, *without):
                cls.__annotations__[field.name] = cls._annotation(hints[field.name], field.metadata.get(INFO))
                setattr(cls, field.name, cls._default(field, hints[field.name]))
        # In the record's order, which is that of the errors in an answer.
        names = [field.name for field in dataclasses.fields(record) if field.name in cls.__annotations__]
        cls.__annotations__ = {name: cls.__annotations__[name] for name in names} | cls.__annotations__

    @classmethod
    def _annotation(cls, hint: Any, info: SpecInfo | None) -> Any:
        """The type of a record's field, with the models of records in it, and of a text its choices."""
        if get_origin(hint) in (Union, UnionType):
            return Union[tuple(cls._annotation(one, info) for one in get_args(hint))]  # noqa: UP007
        if info and info.choices and hint is str:
            return Literal[info.choices]
        return cls._models.get(hint, hint)

    @classmethod
    def _default(cls, field: dataclasses.Field[Any], hint: Any) -> FieldInfo:
        model = cls._models.get(hint)
        if model and field.default is MISSING:
            default: dict[str, Any] = {"default": model()}
        else:
            default = {} if field.default is MISSING else {"default": field.default}
        info: SpecInfo | None = field.metadata.get(INFO)
        field_info: FieldInfo = Field(
            **default,
            description=info.description if info else None,
            json_schema_extra=_schema(info, NoneType in get_args(hint)) if info else None,
        )
        return field_info

    def record(self) -> Any:
        """The record, checked. Raises InvalidRequest."""
        return self._record(**self.values())

    def values(self) -> dict[str, Any]:
        """The record's fields by name, in its order. Raises InvalidRequest."""
        names = [field.name for field in dataclasses.fields(self._record) if field.name in type(self).model_fields]
        return {name: self._value(name) for name in names}

    def _value(self, name: str) -> Any:
        value, reader = getattr(self, name), self._readers.get(name)
        if isinstance(value, RecordModel):
            return value.record()
        if reader and value is not None:
            return reader(value)
        return tuple(value) if isinstance(value, list) else value


def _schema(info: SpecInfo, nullable: bool) -> dict[str, Any]:
    """The JSON Schema of the range; nothing for numbers that may be null, because it would apply to null too."""
    if nullable:
        return {}
    bounds = {"minimum": info.least, "exclusiveMinimum": info.above, "maximum": info.most}
    return {name: value for name, value in bounds.items() if value is not None}
