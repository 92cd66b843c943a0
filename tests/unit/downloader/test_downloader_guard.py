"""Which addresses may be connected to: by address, by name, and through proxies."""

from __future__ import annotations

import ipaddress
import socket
import threading

import pytest

from aiservice_downloader.errors import DownloadError, Reason, download_error_in
from aiservice_downloader.guard import (
    AllowedHosts,
    Guard,
    api_server,
    is_public,
    parse_allowed_hosts,
    parse_denied_networks,
    proxy_hosts,
)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",  # the metadata service of most clouds
        "fd00:ec2::254",  # and of AWS over IPv6
        "100.100.100.200",  # and of Alibaba, in the shared range of CGNAT
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "0.0.0.0",
        "::",
        "10.96.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "192.0.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "fe80::1",
        "fe80::1%2",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",  # the metadata service through NAT64
        "64:ff9b:1::1",
        "2002:7f00:1::",  # loopback through 6to4
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "18.164.174.23", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def connect(guard: Guard, host: str, address: str) -> None:
    """What the interpreter tells of a client that looks a name up and connects to what it found."""
    guard.audit("socket.getaddrinfo", (host, 443, 0, 0, 0))
    guard.audit("socket.connect", (None, (address, 443)))


def test_names_addresses_and_networks_can_be_allowed() -> None:
    guard = Guard(parse_allowed_hosts('["Mirror.corp", "*.models.corp", "10.1.0.0/16", "fd12::7"]'))
    connect(guard, "mirror.corp", "10.9.9.9")
    connect(guard, "MIRROR.CORP.", "10.9.9.9")
    connect(guard, "eu.models.corp", "192.168.0.1")
    connect(guard, "anything.example", "10.1.2.3")
    connect(guard, "fd12::7", "fd12::7")
    for host, address in [
        ("models.corp", "10.9.9.9"),
        ("mirror.corp.evil.example", "10.9.9.9"),
        ("notmirror.corp", "10.9.9.9"),
        ("anything.example", "10.2.0.1"),
        ("fd12::8", "fd12::8"),
    ]:
        with pytest.raises(DownloadError, match=r"not a public address.*download\.allowedHosts") as caught:
            connect(guard, host, address)
        assert caught.value.reason is Reason.FORBIDDEN_ADDRESS
        assert not caught.value.retryable
        assert host in caught.value.message
        assert address in caught.value.message


@pytest.mark.parametrize(
    "address", ["168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110", "2002:a83f:8110::1"]
)
def test_the_platform_of_azure_is_denied_without_a_word_in_any_form(address: str) -> None:
    assert ipaddress.ip_address("168.63.129.16").is_global, "it has to be denied by name, so to speak"
    with pytest.raises(DownloadError, match=r"where Azure serves its machines.*download\.allowedHosts") as caught:
        connect(Guard(AllowedHosts()), "files.example", address)
    assert caught.value.reason is Reason.FORBIDDEN_ADDRESS
    connect(Guard(AllowedHosts()), "files.example", "168.63.129.17")


def test_networks_on_public_addresses_can_be_denied() -> None:
    guard = Guard(AllowedHosts(), denied=parse_denied_networks('["2600:1f00:42::/48", "18.164.0.0/16"]'))
    for address in ("2600:1f00:42::7", "18.164.174.23", "::ffff:18.164.174.23", "64:ff9b::12a4:ae17"):
        with pytest.raises(DownloadError, match=r"in \S+, one of download\.deniedNetworks") as caught:
            connect(guard, "pod.example", address)
        assert caught.value.reason is Reason.FORBIDDEN_ADDRESS
    connect(guard, "hub.example", "2600:1f00:43::7")
    connect(guard, "hub.example", "18.165.0.1")
    proxied = Guard(AllowedHosts(), frozenset({"proxy.corp"}), parse_denied_networks('["18.164.0.0/16"]'))
    with pytest.raises(DownloadError, match=r"one of download\.deniedNetworks"):
        proxied.check_target("18.164.174.23")


def test_the_api_server_is_denied_wherever_it_is() -> None:
    guard = Guard(AllowedHosts(), denied=api_server({"KUBERNETES_SERVICE_HOST": "2600:1f00:42::1"}))
    with pytest.raises(DownloadError, match="is the API server of this cluster"):
        connect(guard, "2600:1f00:42::1", "2600:1f00:42::1")
    connect(guard, "2600:1f00:42::2", "2600:1f00:42::2")
    assert api_server({}) == ()
    assert api_server({"KUBERNETES_SERVICE_HOST": "api.example"}) == ()


def test_what_is_allowed_wins_over_what_is_denied() -> None:
    denied = parse_denied_networks('["2600:1f00:42::/48"]') + api_server({"KUBERNETES_SERVICE_HOST": "18.164.0.1"})
    guard = Guard(
        parse_allowed_hosts('["mirror.corp", "2600:1f00:42:7::/64", "168.63.129.16", "18.164.0.1"]'), denied=denied
    )
    connect(guard, "mirror.corp", "2600:1f00:42::1")
    for address in ("2600:1f00:42:7::1", "168.63.129.16", "18.164.0.1"):
        connect(guard, address, address)
    with pytest.raises(DownloadError, match=r"one of download\.deniedNetworks"):
        connect(guard, "other.corp", "2600:1f00:42:8::1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/8", "no JSON"),
        ("[1]", "no JSON list"),
        ('["10.0.0.1/8"]', "'10.0.0.1/8'"),
        ('["a.corp"]', "'a.corp'"),
    ],
)
def test_entries_that_are_no_networks_are_named(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_denied_networks(text)


def test_a_name_allows_the_connection_of_its_own_thread_only() -> None:
    guard = Guard(parse_allowed_hosts('["mirror.corp"]'))
    guard.audit("socket.getaddrinfo", ("mirror.corp", 443, 0, 0, 0))
    failures: list[str] = []

    def other() -> None:
        try:
            guard.audit("socket.connect", (None, ("10.0.0.1", 443)))
        except DownloadError as error:
            failures.append(error.message)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(failures) == 1
    guard.audit("socket.connect", (None, ("10.0.0.1", 443)))


def test_names_and_sockets_of_the_machine_are_never_connected_to() -> None:
    guard = Guard(AllowedHosts())
    with pytest.raises(DownloadError, match=r"not a public address"):
        guard.audit("socket.connect", (None, ("kubernetes.default.svc", 443)))
    with pytest.raises(DownloadError, match="no Internet address"):
        guard.audit("socket.connect", (None, "/run/containerd.sock"))
    guard.audit("open", ("/etc/hosts", "r", 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mirror", "no JSON"),
        ('{"a": 1}', "no JSON list"),
        ("[1]", "no JSON list"),
        ('["10.0.0.1/8"]', "'10.0.0.1/8'"),
        ('["10.0.0"]', "'10.0.0'"),
        ('["*"]', r"'\*'"),
        ('["a.*.corp"]', "CIDR"),
        ('["https://mirror.corp"]', "CIDR"),
        ('["mirror.corp:443"]', "CIDR"),
        ('[""]', "''"),
    ],
)
def test_entries_that_are_no_hosts_are_named(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_allowed_hosts(text)


def test_hosts_of_proxies_are_read_from_the_environment() -> None:
    environ = {
        "HTTPS_PROXY": "http://user:pw@Proxy.corp:3128",
        "http_proxy": "proxy2.corp:80",
        "ALL_PROXY": "",
        "NO_PROXY": ".svc",
    }
    assert proxy_hosts(environ) == {"proxy.corp", "proxy2.corp"}


def test_through_a_proxy_the_target_is_looked_at_before(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"inside.corp": "10.0.0.5", "hub.example": "8.8.8.8", "mirror.corp": "10.0.0.6"}

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in places:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (places[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    guard = Guard(parse_allowed_hosts('["mirror.corp"]'), frozenset({"proxy.corp"}))
    connect(guard, "proxy.corp", "10.0.0.1")
    guard.check_target("hub.example")
    guard.check_target("mirror.corp")
    guard.check_target("only-the-proxy-knows.example")
    with pytest.raises(DownloadError, match=r"inside\.corp is at 10\.0\.0\.5"):
        guard.check_target("inside.corp")
    Guard(AllowedHosts()).check_target("inside.corp")  # without a proxy, the connection itself is looked at


def test_a_refusal_is_found_in_what_a_library_made_of_it() -> None:
    ours = DownloadError(Reason.FORBIDDEN_ADDRESS, "no")
    explicit, implicit = RuntimeError("wrapped"), RuntimeError("while handling")
    explicit.__cause__ = ours
    implicit.__context__ = explicit
    assert download_error_in(implicit) is ours
    assert download_error_in(RuntimeError()) is None
