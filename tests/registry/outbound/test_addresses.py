"""Addresses that the service may connect to."""

from ipaddress import ip_address, ip_network

import pytest

from registry.errors import AddressRefused
from registry.outbound.addresses import AddressPolicy, check_literal

PUBLIC = AddressPolicy()
PRIVATE = AddressPolicy(private=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert PUBLIC.why_refused(ip_address(address)) is None


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.5.5", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("198.18.0.1", "private"),
        ("fd12::1", "private"),
        ("fec0::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::a00:1", "private"),
        ("2002:a00:1::", "private"),
    ],
)
def test_private_addresses_are_allowed_only_by_name(address: str, kind: str) -> None:
    found = ip_address(address)
    assert PUBLIC.why_refused(found) in (kind, "reserved", "private")
    if not address.startswith(("64:", "2002:")):
        assert PUBLIC.why_refused(found) == kind
    assert PRIVATE.why_refused(found) is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",  # most clouds' metadata
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "169.254.1.1",
        "fe80::1",
        "100.100.100.200",  # Alibaba's, in a range that is private otherwise
        "fd00:ec2::254",
        "168.63.129.16",  # Azure's, a public address
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
        "::7f00:1",
    ],
)
def test_some_are_never_allowed_as_private(address: str) -> None:
    assert PUBLIC.why_refused(ip_address(address)) is not None
    assert PRIVATE.why_refused(ip_address(address)) is not None


def test_a_named_network_is_allowed_and_none_beside_it() -> None:
    policy = AddressPolicy(networks=(ip_network("10.1.0.0/16"), ip_network("127.0.0.1")))
    assert policy.why_refused(ip_address("10.1.2.3")) is None
    assert policy.why_refused(ip_address("::ffff:10.1.2.3")) is None
    assert policy.why_refused(ip_address("127.0.0.1")) is None
    assert policy.why_refused(ip_address("10.2.0.1")) == "private"
    assert policy.why_refused(ip_address("127.0.0.2")) == "loopback"


def test_a_metadata_server_has_to_be_named_by_itself() -> None:
    metadata = ip_address("169.254.169.254")
    assert AddressPolicy(networks=(ip_network("0.0.0.0/0"),)).why_refused(metadata) == "metadata"
    assert AddressPolicy(networks=(ip_network("169.254.169.254"),)).why_refused(metadata) is None


def test_of_a_host_with_several_addresses_the_allowed_ones_remain() -> None:
    assert PUBLIC.allowed("mixed.example", ["10.0.0.1", "8.8.8.8"]) == ["8.8.8.8"]
    with pytest.raises(AddressRefused) as caught:
        PUBLIC.allowed("inside.example", ["10.0.0.7", "127.0.0.1"])
    assert "inside.example" in str(caught.value)
    assert "10.0.0.7" not in str(caught.value), "a stranger learns nothing of the network"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "LOCALHOST.", "a.localhost", "169.254.169.254"])
def test_a_literal_is_refused_at_once(host: str) -> None:
    with pytest.raises(AddressRefused):
        check_literal(PUBLIC, host)


def test_a_name_is_left_to_the_connection() -> None:
    check_literal(PUBLIC, "example.com")
    check_literal(PRIVATE, "localhost")
