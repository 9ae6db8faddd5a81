"""Variables that all clients of a deployment share: `bec.set_global_var("sample_name", "gold")`.

They outlive the clients. A name that was ever used stands in one stream, so that listing them needs no search among
all keys; whether it still has a value is seen by looking.
"""

from __future__ import annotations

import re
from typing import Any

from bec_client.scans import plain_argument
from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import MessageError, ParameterError
from bec_lib.messages import GlobalVariableMessage, GlobalVariableNameMessage
from bec_lib.scans.signature import did_you_mean

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class GlobalVariables:
    """The shared variables, under BEC's names; `BECClient` offers its methods."""

    def __init__(self, broker: Broker):
        self._broker = broker

    def set_global_var(self, name: str, val: Any) -> None:
        """Give a variable a value, for all clients.

        Raises ParameterError for a name that is none, or a value that cannot be kept: None, numbers, text, lists, dicts
        and numeric arrays can.
        """
        endpoint = Endpoints.global_variable(_checked(name))
        batch = self._broker.batch()
        if self._broker.get(endpoint) is None:
            batch.append(Endpoints.global_variable_names, GlobalVariableNameMessage(name=name))
        try:
            batch.put(endpoint, GlobalVariableMessage(value=plain_argument(val)))
        except MessageError:
            raise ParameterError(
                f"the global variable {name!r} cannot hold a {type(val).__name__}: None, numbers, text, lists, dicts and "
                "numeric arrays of up to 64 KiB can be kept"
            ) from None
        batch.commit()

    def get_global_var(self, name: str) -> Any:
        """Its value; None if there is no such variable."""
        found = self._broker.get(Endpoints.global_variable(_checked(name)))
        return None if found is None else found.message.value

    def delete_global_var(self, name: str) -> None:
        """Raises ParameterError if there is no such variable."""
        endpoint = Endpoints.global_variable(_checked(name))
        if self._broker.get(endpoint) is None:
            raise ParameterError(
                f"there is no global variable {name!r}.{did_you_mean(name, self.global_vars())} "
                "bec.show_global_vars() lists them"
            )
        self._broker.batch().delete(endpoint).commit()

    def global_vars(self) -> dict[str, Any]:
        """Name -> value of all of them, by name."""
        return {name: value for name, (value, _, _) in self._all().items()}

    def show_global_vars(self) -> None:
        """Print them: name, value, who set it and when."""
        from bec_client.tables import show, variable_table

        show(variable_table(self._all()))

    def _all(self) -> dict[str, tuple[Any, str, float]]:
        """Name -> value, user, seconds UTC."""
        entries = self._broker.entries(Endpoints.global_variable_names)
        names = sorted({item.message.name for item in entries if isinstance(item, Delivery)})
        found = self._broker.get_many(Endpoints.global_variable(name) for name in names)
        return {
            name: (item.message.value, item.envelope.user, item.envelope.sent)
            for name, item in zip(names, found, strict=True)
            if item is not None
        }


def _checked(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ParameterError(
            f"{name!r} cannot be the name of a global variable: it may have letters, digits, '_', '-' and '.' only"
        )
    return name
