"""Models of what comes in over HTTP, derived from the library's records: their fields, defaults, ranges and meanings.

Types are checked here. Ranges are checked by the records, whose messages name the remedy; here they are only described.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import MISSING
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

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
                cls.__annotations__[field.name] = cls._annotation(hints[field.name])
                setattr(cls, field.name, cls._default(field, hints[field.name]))

    @classmethod
    def _annotation(cls, hint: Any) -> Any:
        """The type of a record's field, with the models of records in it."""
        if get_origin(hint) in (Union, UnionType):
            return Union[tuple(cls._annotation(one) for one in get_args(hint))]  # noqa: UP007
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
        names = [field.name for field in dataclasses.fields(self._record) if field.name in type(self).model_fields]
        return self._record(**{name: _plain(getattr(self, name)) for name in names})


def _schema(info: SpecInfo, nullable: bool) -> dict[str, Any]:
    """The JSON Schema of the values; nothing for numbers that may be null, because it would apply to null too."""
    if info.choices:
        return {"enum": [*info.choices, *([None] if nullable else [])]}
    if nullable:
        return {}
    bounds = {"minimum": info.least, "exclusiveMinimum": info.above, "maximum": info.most}
    return {name: value for name, value in bounds.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, RecordModel):
        return value.record()
    return tuple(value) if isinstance(value, list) else value
