"""What the routes take: one model a route. It parses, says what cannot be done, and translates.

Each of OpenAI's own parameters is in one of three places: a field of the model; `harmless`, which may have any value
because it changes nothing of an answer; or `impossible`, which is refused unless it is empty.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from aiservice_api.tasks import Task
from aiservice_gateway.errors import ParameterError
from aiservice_gateway.services.openai.answers import Answered, Rewriter

UNKNOWN = "unknown_parameter"
UNSUPPORTED = "unsupported_parameter"
MISSING = "missing_required_parameter"

_SHOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Taken:
    """Stands in a service's request for a string that was taken out of the client's while it arrived."""

    number: int


class Parameters(BaseModel, ABC):
    """Base of the routes' models."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    task: ClassVar[Task]
    harmless: ClassVar[Set[str]] = frozenset({"user", "safety_identifier"})
    impossible: ClassVar[Mapping[str, str]] = {}
    """Why, as the end of a sentence, by name."""
    files: ClassVar[Mapping[str, str]] = {}
    """Parts of a form that are files, and their names in the services' forms; the first is needed. Empty: JSON."""
    taken: ClassVar[Set[bytes]] = frozenset()
    """Keys whose strings are taken out of a JSON body while it arrives (see `json_strings`)."""

    model: str | None = None
    """Name of the service, or an alias of it; left out: the task's default."""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """The model of a request.

        Args:
            given: By name; in forms all values are texts, or lists of them.

        Raises:
            ParameterError: names the first that is wrong.
        """
        asked = {name: value for name, value in given.items() if cls._asks(name, value)}
        try:
            return cls.model_validate(asked)
        except ValidationError as error:
            raise _explained(cls, error) from None

    @classmethod
    def check_name(cls, name: str) -> None:
        """Raises ParameterError where no parameter has that name, or only empty."""
        if name not in cls.model_fields and name not in cls.harmless and name not in cls.impossible:
            raise _unknown(cls, name)

    @classmethod
    def _asks(cls, name: str, value: object) -> bool:
        """Whether a parameter says something. Raises ParameterError where that cannot be done."""
        if name in cls.impossible and not _empty(value):
            raise ParameterError(f"{name} is not supported here: {cls.impossible[name]}.", name, UNSUPPORTED)
        return value is not None and name not in cls.harmless and name not in cls.impossible

    @abstractmethod
    def native(self) -> dict[str, Any]:
        """The fields of the service's request, files left out.

        Raises:
            ParameterError: parameters contradict each other.
        """

    @abstractmethod
    def rewriter(self, answered: Answered) -> Rewriter:
        """What makes OpenAI's answer of the service's."""


def only(*values: Any, why: str) -> AfterValidator:
    """Lets a field have some values only.

    Args:
        values: That can be done.
        why: The others cannot, as the end of a sentence.
    """

    def check(value: Any) -> Any:
        if value not in values:
            known = " or ".join(map(str, values))
            raise ValueError(f"only {known} is supported here: {why}")
        return value

    return AfterValidator(check)


def form_fields(native: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a service's JSON request as the texts of a form."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in native.items()}


def without_nothing(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _empty(value: object) -> bool:
    """Whether a parameter has a value that asks for nothing."""
    return value in (None, False, "", "false") or (isinstance(value, Collection) and not value)


def _explained(kind: type[Parameters], error: ValidationError) -> ParameterError:
    problem = error.errors(include_url=False, include_input=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "missing":
        return ParameterError(f"The parameter {name} is missing.", name, MISSING)
    if problem["type"] == "extra_forbidden":
        return _unknown(kind, name)
    return ParameterError(f"{name}: {problem['msg'].removeprefix('Value error, ')}.", name)


def _unknown(kind: type[Parameters], name: str) -> ParameterError:
    shown, known = name[:_SHOWN_CHARACTERS], ", ".join(sorted({*kind.model_fields, *kind.files}))
    return ParameterError(f"There is no parameter {shown!r} here; there are {known}.", shown, UNKNOWN)
