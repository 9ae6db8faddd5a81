"""Which services make up a fleet."""

from __future__ import annotations

import importlib.util

import pytest

from bec_lib.errors import ConfigError
from deploy.services import SERVICES, fleet, parse_spec


def test_a_fleet_is_six_services() -> None:
    assert {spec.role for spec in fleet(["main"])} == {
        "scan_server",
        "device_server",
        "scan_bundler",
        "file_writer",
        "scihub",
        "data_pipeline",
    }


def test_every_service_is_a_package_that_can_be_run() -> None:
    for spec in SERVICES:
        assert importlib.util.find_spec(f"{spec.package}.__main__") is not None, spec.package


def test_further_device_servers_have_roles_of_their_own() -> None:
    specs = {spec.role: spec for spec in fleet(["main", "optics"])}
    assert specs["device_server"].arguments == ()
    assert specs["device_server.optics"].arguments == ("--name", "optics")
    assert specs["device_server.optics"].package == "device_server"


def test_only_takes_what_is_named() -> None:
    assert [spec.role for spec in fleet(["main"], ["file_writer"])] == ["file_writer"]


def test_an_unknown_service_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no service called writer .*it has .*file_writer"):
        fleet(["main"], ["writer"])


def test_the_scan_server_stops_before_what_it_needs_and_the_keepers_of_data_last() -> None:
    wave = {spec.role: spec.wave for spec in SERVICES}
    assert wave["scan_server"] > wave["device_server"] > wave["scan_bundler"] > wave["file_writer"]
    assert wave["file_writer"] == wave["scihub"] == 0


def test_a_service_can_be_given_as_text() -> None:
    spec = parse_spec("a=quiet:2")
    assert (spec.role, spec.package, spec.wave) == ("a", "quiet", 2)
