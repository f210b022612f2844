"""Command-line flags made from settings, so that each setting is declared once.

A command takes a parameter annotated with a settings class, as in `def serve(settings:
EngineSettings)`. `with_flags` replaces it by one flag per field of the class and gathers the flags
again when the command is called.
"""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import msgspec.inspect as introspect
import typer

from penstock.cli.grammar_flags import GRAMMAR_FLAGS
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams


class SamplingFlags(dict[str, Any]):
    """The sampling options given on the command line; the others are the model's business."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """One field as a flag. `parse` turns what typer read into the field's value.

    Several flags may be ways to give the same `field`, of which one may be used; by default each
    has a field of its own name. `env` is an environment variable that says it, too.
    """

    name: str
    type: Any
    default: Any
    help: str
    parse: Callable[[Any], Any] = lambda value: value
    spelling: str = ""
    env: str | None = None
    panel: str = ""
    field: str = ""

    def parameter(self) -> inspect.Parameter:
        spelled = self.spelling or "--" + self.name.replace("_", "-")
        is_switch = self.type in (bool, bool | None)
        option = typer.Option(
            self.default,
            f"{spelled}/{spelled.replace('--', '--no-')}" if is_switch else spelled,
            help=self.help,
            envvar=self.env,
            show_default=self.default is not None,
            rich_help_panel=self.panel,
        )
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=self.type
        )


def with_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with flags in place of its settings.

    Settings that share a field share its flag. A field that is also a parameter of the command's
    own, such as a positional `model`, gets no flag but the parameter's value.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if _is_settings(kind)}
    flags = {name: list(_flags(kind, _panel(kind))) for name, kind in groups.items()}
    own = set(inspect.signature(command).parameters) - set(groups)
    plain = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        made = {}
        for name, kind in groups.items():
            values = {flag.name: flag.parse(given[flag.name]) for flag in flags[name]}
            if kind is SamplingFlags:
                values = _given(flags[name], values)
            made[name] = kind(**values)
        return command(**made, **{name: given[name] for name in own})

    derived = {flag.name: flag for group in flags.values() for flag in group}
    parameters = plain + [flag.parameter() for name, flag in derived.items() if name not in own]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _given(flags: list[Flag], values: dict[str, Any]) -> dict[str, Any]:
    """The values of the fields that were given."""
    used: dict[str, str] = {}
    for flag in flags:
        if values[flag.name] is None:
            continue
        field = flag.field or flag.name
        if field in used:
            first, second = (f"--{name.replace('_', '-')}" for name in (used[field], flag.name))
            raise InvalidRequest(f"{first} and {second} exclude each other.", param=field)
        used[field] = flag.name
    return {field: values[name] for field, name in used.items()}


def _is_settings(kind: Any) -> bool:
    return kind is SamplingFlags or dataclasses.is_dataclass(kind)


def _panel(kind: Any) -> str:
    """The heading under which `--help` shows a group of flags."""
    subject = kind.__name__.removesuffix("Settings").removesuffix("Flags")
    return f"{subject} options"


def _flags(kind: Any, panel: str) -> Iterator[Flag]:
    if kind is SamplingFlags:
        for flag in _sampling_flags():
            yield dataclasses.replace(flag, panel=panel)
        return
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        flag = Flag(
            field.name,
            hints[field.name],
            field.default,
            field.metadata["help"],
            spelling=field.metadata.get("flag", ""),
            env=field.metadata.get("env"),
            panel=panel,
        )
        if _has_several_forms(flag.type):
            flag = dataclasses.replace(flag, type=str)
        if get_origin(flag.type) is tuple:
            flag = dataclasses.replace(
                flag,
                type=list[get_args(flag.type)[0]] | None,  # type: ignore[misc]
                default=list(flag.default) or None,
                parse=lambda given: tuple(given or ()),
            )
        yield flag


def _has_several_forms(kind: Any) -> bool:
    """Such a setting reads what it is given as text."""
    return isinstance(kind, UnionType) and len(set(get_args(kind)) - {type(None)}) > 1


def _sampling_flags() -> Iterator[Flag]:
    info = introspect.type_info(SamplingParams)
    assert isinstance(info, introspect.StructType)
    for field in info.fields:
        assert isinstance(field.type, introspect.Metadata), f"{field.name} has no help"
        help_ = (field.type.extra_json_schema or {})["description"]
        if field.default not in (None, msgspec.NODEFAULT):
            help_ += f" Usually {field.default}.".replace("True", "on").replace("False", "off")
        if field.name == "grammar":
            yield from (Flag(*each, field="grammar") for each in GRAMMAR_FLAGS)
            continue
        yield _sampling_flag(field.name, field.type, help_)


def _sampling_flag(name: str, type_: introspect.Type, help_: str) -> Flag:
    match _plain(type_):
        case introspect.BoolType():
            return Flag(name, bool | None, None, help_)
        case introspect.IntType():
            return Flag(name, int | None, None, help_)
        case introspect.FloatType():
            return Flag(name, float | None, None, help_)
        case introspect.ListType(item_type=item):
            of_text = isinstance(_plain(item), introspect.StrType)
            many = list[str] | None if of_text else list[int] | None
            return Flag(name, many, None, f"{help_} May be repeated.", lambda given: given or None)
        case introspect.DictType():
            return Flag(name, str | None, None, f"{help_} As JSON.", functools.partial(_json, name))
    raise TypeError(f"no flag can be made of {name}: {type_}")


def _plain(type_: introspect.Type) -> introspect.Type:
    """The type below annotations and optionality; of alternatives, the list, or else the switch."""
    if isinstance(type_, introspect.Metadata):
        return _plain(type_.type)
    if isinstance(type_, introspect.UnionType):
        kinds = [_plain(each) for each in type_.types]
        kinds.sort(key=lambda kind: isinstance(kind, introspect.BoolType), reverse=True)
        kinds.sort(key=lambda kind: isinstance(kind, introspect.ListType), reverse=True)
        return next(kind for kind in kinds if not isinstance(kind, introspect.NoneType))
    return type_


def _json(name: str, text: str | None) -> dict[int, Any] | None:
    if text is None:
        return None
    try:
        return {int(key): value for key, value in json.loads(text).items()}
    except (ValueError, AttributeError):
        raise InvalidRequest(
            f"--{name.replace('_', '-')} is not a JSON object of token ids: {text}", param=name
        ) from None
