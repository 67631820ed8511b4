"""Settings at the door of a command: typed by the signatures that they end in, and written so that Hydra reads them."""

import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Self, cast, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from methyl_lightning.files import InputError

PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)  # what neither a shell nor Hydra's grammar reads as anything else
STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


class Settings(BaseModel):
    """Settings of a command, each of its type; a command lists its own, and leaves out what is checked elsewhere."""

    model_config = STRICT

    @classmethod
    def of(cls, cfg: DictConfig, typed: Iterable[str] = ()) -> Self:
        """Check the settings that were composed.

        Parameters
        ----------
        cfg
            The settings.
        typed
            What was typed, as ``name=value``: where text is wanted, a number is taken as it was typed.

        Raises
        ------
        InputError
            Names the first that is not of its type, its value and what it should be.
        """
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        texts = dict(override.lstrip("+").split("=", 1) for override in typed if "=" in override)  # the last counts
        cls._take_typed(plain, texts)
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            value, names = plain, []
            for part in error.errors()[0]["loc"]:  # which ends in the type that was tried, where there are several
                if isinstance(value, dict) and part in value:
                    value = value[part]
                    names.append(str(part))
            text = texts.get(names[0], "")
            if isinstance(value, list | dict) and text and _takes_text(cls.model_fields[names[0]].annotation):
                quoted = as_argument(names[0], text)
                raise InputError(
                    f"{names[0]}={text}: Hydra reads brackets otherwise; quote the value: {quoted}"
                ) from None
            wrong = [part for part in error.errors() if part["loc"][0] == names[0]]
            raise InputError(f"{'.'.join(names)}={_shown(value)}: {_wanted(wrong)}") from error

    @classmethod
    def _take_typed(cls, plain: dict[str, Any], texts: Mapping[str, str], group: str = "") -> None:
        """Put the text that was typed where Hydra has read a number, or true, and a text is wanted."""
        for name, field in cls.model_fields.items():
            value, kind = plain.get(name), cast(Any, field.annotation)
            if isinstance(kind, type) and issubclass(kind, Settings) and isinstance(value, dict):
                kind._take_typed(value, texts, f"{group}{name}.")
            elif f"{group}{name}" in texts and isinstance(value, int | float) and _takes_text(kind):
                fits = _fits(TypeAdapter[Any](kind, config=STRICT), value)
                plain[name] = value if fits else texts[f"{group}{name}"]


def _wanted(wrong: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys(part["msg"].lower().split(" or instance of ")[0] for part in wrong))


def _takes_text(annotation: Any) -> bool:
    return annotation is str or (isinstance(annotation, UnionType) and str in get_args(annotation))


def check_arguments(
    settings: dict[str, Any], called: Callable[..., Any], group: str, overrides: Sequence[str] | None = None
) -> None:
    """Refuse settings whose types are not those of the arguments that they become.

    Parameters
    ----------
    settings
        Names and plain values; names that are no arguments are left to the call.
    called
        Function or class with annotations.
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
    function = called.__init__ if inspect.isclass(called) else called
    types = get_type_hints(function)
    typed = dict(override.lstrip("+").partition("=")[::2] for override in overrides or ())
    for name in settings.keys() & types.keys():
        adapter = TypeAdapter(types[name], config=STRICT)
        place, value = f"{group}.{name}" if group else name, settings[name]
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            text = typed.get(place, _shown(value))
            if overrides is not None and _fits(adapter, text):
                if isinstance(value, list | dict):
                    quoted = as_argument(place, text)
                    raise InputError(
                        f"{place}={text}: Hydra reads brackets otherwise; quote the value: {quoted}"
                    ) from None
                settings[name] = text if isinstance(value, int | float) else value
            if settings[name] is value:
                raise InputError(f"{place}={_shown(value)}: {_wanted(error.errors())}") from error


def _fits(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


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
