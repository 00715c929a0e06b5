"""Which addresses the service itself may connect to. Knows no connection and no HTTP.

Whoever may write a URL into the service (a webhook, a judge, an upstream) must not reach through it what only the
service's own machine can reach: its loopback, its private network, the metadata server of a cloud.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry.errors import AddressRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
         "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe"),
    )
)  # fmt: skip
"""Servers of clouds that give credentials to whoever is on the machine: AWS, ECS, EKS, Alibaba, Azure, Oracle, Google.
Azure's is a public address."""
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""Prefix behind which a gateway (NAT64) finds an IPv4 address in the last 32 bits."""
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


@dataclass(frozen=True)
class AddressPolicy:
    """Public addresses, and beside them what is named."""

    private: bool = False
    """Whether all private networks and the loopback are allowed, for a URL that the operator wrote."""
    networks: tuple[Network, ...] = ()
    """Private networks that are allowed."""

    def why_refused(self, address: Address) -> str | None:
        """The reason in words, or None. `private` never allows metadata, link-local and multicast addresses."""
        return next((kind for each in _meant(address) if (kind := _kind(each)) and not self._allows(each, kind)), None)

    def _allows(self, address: Address, kind: str) -> bool:
        if self.private and kind in ("private", "loopback"):
            return True
        named = (network for network in self.networks if network.version == address.version and address in network)
        # A wide network is named for what lives in it: a server of credentials has to be named by itself.
        return any(kind != "metadata" or network.num_addresses == 1 for network in named)

    def allowed(self, host: str, addresses: Iterable[str]) -> Sequence[str]:
        """The addresses of a host that may be connected to, in their order.

        Raises:
            AddressRefused: none of them.
        """
        reasons = {address: self.why_refused(ipaddress.ip_address(address)) for address in addresses}
        found = [address for address, reason in reasons.items() if reason is None]
        if not found:
            # Not which address: that would tell a stranger how this network is made.
            raise AddressRefused(
                f"{host[:253]!r} is at a {' or '.join(sorted({str(kind) for kind in reasons.values()})) or 'missing'} "
                "address, which the service does not connect to; expected a public one (MEMGEN_OUTBOUND_NETWORKS and "
                "`private` of an upstream allow others)"
            )
        return found


def check_literal(policy: AddressPolicy, host: str) -> None:
    """Refuse a host that is an address itself, or names the loopback, before anything is resolved.

    Raises:
        AddressRefused: the policy does not allow it. A name is checked when it is connected to, whatever this says.
    """
    bare = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if bare == "localhost" or bare.endswith(".localhost"):
            policy.allowed(host, ["127.0.0.1", "::1"])
        return
    policy.allowed(host, [str(address)])


def _meant(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses that an IPv6 one leads to."""
    yield address
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _TRANSLATED:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _kind(address: Address) -> str | None:
    """What is wrong with it; None for a public one."""
    if address in _METADATA:
        return "metadata"
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address in _TRANSLATED):
        return None  # what it leads to is looked at beside it
    kinds = {
        "loopback": address.is_loopback,
        "link-local": address.is_link_local,
        "multicast": address.is_multicast,
        "unspecified": address.is_unspecified or (address.version == 4 and int(address) < 2**24),
        "reserved": address.is_reserved,
        "private": not address.is_global or (address.version == 6 and address in _SITE_LOCAL),
    }
    return next((kind for kind, applies in kinds.items() if applies), None)
