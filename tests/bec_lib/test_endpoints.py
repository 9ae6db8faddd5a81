"""The table of all keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from bec_lib.endpoints import Access, Kind, MessageEndpoints, all_endpoints
from bec_lib.messages import REGISTRY
from bec_lib.reference import endpoints_page

ROLES = {
    "client",
    "scan_server",
    "device_server",
    "scan_bundler",
    "file_writer",
    "data_pipeline",
    "scihub",
    "supervisor",
    "any",
}
PAGE = Path(__file__).parents[2] / "docs" / "endpoints.md"


def test_every_key_stands_once() -> None:
    keys = [endpoint.key for _, endpoint in all_endpoints()]
    assert len(keys) == len(set(keys))
    assert len(keys) > 30


@pytest.mark.parametrize(("name", "endpoint"), list(all_endpoints()))
def test_each_row_is_complete(name: str, endpoint) -> None:  # type: ignore[no-untyped-def]
    assert endpoint.writer in ROLES
    assert endpoint.doc.endswith(".")
    assert endpoint.access in Access
    assert endpoint.messages
    if endpoint.kind is Kind.LATEST:
        assert len(endpoint.messages) == 1
    if endpoint.kind is Kind.STREAM:
        assert endpoint.max_entries or endpoint.expires_s, f"{name} would grow for ever"


def test_every_message_has_an_endpoint() -> None:
    carried = {message for _, endpoint in all_endpoints() for message in endpoint.messages}
    assert {kind.__name__ for kind in REGISTRY.values()} - {kind.__name__ for kind in carried} == set()


def test_clients_write_only_where_clients_may() -> None:
    for name, endpoint in all_endpoints():
        if endpoint.writer == "client":
            assert endpoint.access in (Access.PERSONAL, Access.USER), name
        elif endpoint.writer != "any":
            assert endpoint.access in (Access.INTERNAL, Access.INFO, Access.PUBLIC), name


def test_placeholders_are_filled_in_order() -> None:
    assert MessageEndpoints.device_readback("samx").key == "info/devices/readback/samx"
    assert MessageEndpoints.scan_points("s1").placeholders == ()
    assert MessageEndpoints.account().key == MessageEndpoints.account.key


@pytest.mark.parametrize("value", ["", "a/b", "*", "{x}", "a b", "a\nb"])
def test_a_name_cannot_reach_another_key(value: str) -> None:
    with pytest.raises(ValueError, match="device"):
        MessageEndpoints.device_readback(value)


def test_a_wrong_number_of_names_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 1 names"):
        MessageEndpoints.device_readback()


def test_the_page_in_the_documentation_is_this_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == endpoints_page()
