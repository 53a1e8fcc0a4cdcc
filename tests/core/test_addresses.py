"""Whom the servers of pages answer: hosts, origins, and links."""

from __future__ import annotations

import socket

import pytest

from zoo.addresses import Names, is_local


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]")),
        *((host, False) for host in ("0.0.0.0", "192.168.1.2", "example.org", "::")),
    ],
)
def test_what_counts_as_this_machine_alone(host: str, local: bool):
    assert is_local(host) == local


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        *(
            (host, True)
            for host in ("127.0.0.1:7860", "localhost", "LOCALHOST.:80", "[::1]:7860", "192.168.1.2", "a.localhost")
        ),
        *(
            (host, True)
            for host in ("desk:80", "desk.local", "desk.example.net", "zoo.example.org", "lab.example.org:1")
        ),
        *(
            (host, False)
            for host in ("example.org", "localhost.example.org", "127.0.0.1.example.org", "desk.example.org")
        ),
        *((host, False) for host in ("", "[::1", "a@[b", "notlocalhost", None)),
    ],
)
def test_only_addresses_and_the_own_names_are_answered_to(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, answered: bool
):
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk.example.net")
    names = Names("lab.example.org", ["Zoo.example.org"])
    refused = names.refusal({} if asked is None else {"host": asked})
    assert (refused is None) == answered
    assert refused is None or refused[0] == 421


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://127.0.0.1:8000"}, False),
        ({"origin": "http://localhost:7860"}, False),
        ({"origin": "https://example.org"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_other_sites_are_given_nothing(headers: dict[str, str], answered: bool):
    refused = Names("127.0.0.1").refusal({"host": "127.0.0.1:7860", **headers})
    assert (refused is None) == answered
    assert refused is None or refused[0] == 403


def test_a_link_from_anywhere_may_open_the_page_and_a_proxy_may_ask_under_its_own_name():
    names = Names("127.0.0.1", ["zoo.example.org"])
    assert names.refusal({"host": "127.0.0.1", "sec-fetch-site": "cross-site"}, opening=True) is None
    assert names.refusal({"host": "127.0.0.1:7860", "origin": "https://zoo.example.org"}) is None
