"""Settings at the door of a command: typed by the signatures that they end in, and written so that Hydra reads them."""

import inspect
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from methyl_lightning.files import InputError

PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)  # what neither a shell nor Hydra's grammar reads as anything else
STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
Settings = TypeVar("Settings")  # a NamedTuple


def typed_settings(cfg: DictConfig, kind: Callable[..., Settings], typed: Iterable[str]) -> Settings:
    """Return those settings of a command that a NamedTuple lists, each of its type; see :func:`check_arguments`."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    own = {name: value for name, value in plain.items() if name in get_type_hints(kind)}
    check_arguments(own, kind, "", typed)
    return kind(**own)


def check_arguments(
    settings: dict[str, Any], called: Callable[..., Any], group: str, overrides: Iterable[str] | None = None
) -> None:
    """Refuse settings whose types are not those of the arguments that they become.

    Parameters
    ----------
    settings
        Names and plain values; names that are no arguments are left to the call.
    called
        Function, class or NamedTuple with annotations.
    group
        What the settings stand under, for the error; "" where they stand alone.
    overrides
        As they were typed. With them, what Hydra has read as a number where a text is wanted, such as the name of a
        file or a column, becomes the text again.

    Raises
    ------
    InputError
        Names the first such setting, its value and what it should be.
    """
    is_plain_class = inspect.isclass(called) and not hasattr(called, "_fields")
    types = get_type_hints(called.__init__ if is_plain_class else called, include_extras=True)
    texts = dict(override.lstrip("+").partition("=")[::2] for override in overrides or ())  # the last counts
    for name in [name for name in types if name in settings]:
        adapter = TypeAdapter(types[name], config=STRICT)
        place, value = f"{group}.{name}" if group else name, settings[name]
        text = texts.get(place, _shown(value))
        errors = _errors(adapter, value)
        if errors and overrides is not None and not _errors(adapter, text):
            if isinstance(value, list | dict):
                quoted = as_argument(place, text)
                raise InputError(f"{place}={text}: Hydra reads brackets otherwise; quote the value: {quoted}")
            if isinstance(value, int | float):
                settings[name], errors = text, []
        if errors:
            for part in errors[0]["loc"]:  # which ends in the type that was tried, where there are several
                if isinstance(value, dict) and part in value:
                    place, value = f"{place}.{part}", value[part]
            wanted = dict.fromkeys(error["msg"].lower().split(" or instance of ")[0] for error in errors)
            raise InputError(f"{place}={_shown(value)}: {' or '.join(wanted)}")


def _errors(adapter: TypeAdapter[Any], value: Any) -> list[Any]:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return error.errors()
    return []


def check_whole_number(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small a one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={_shown(value)}: must be a whole number of at least {least}")


def as_override(name: str, value: str) -> str:
    """Write a setting as Hydra reads it back: in quotes where its grammar needs them."""
    if not PLAIN.fullmatch(value):
        escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), value)
        value = f'"{escaped}"'
    return f"{name}={value}"


def as_argument(name: str, value: str) -> str:
    """Write a setting as one types it in a shell."""
    return shlex.quote(as_override(name, value))


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
