"""Which upstream addresses the hub calls, and how it says no."""

import pytest

from providers import egress
from providers.errors import UpstreamUnreachable


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_source", egress.Policy)


def allow(*entries: str, loopback: bool = False) -> None:
    egress.use(lambda: egress.Policy(entries, loopback=loopback))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f000001",
        "127.0.0.1.",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "%31%32%37.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "api.localhost",
        "0.0.0.0",
        "0",
        "10.0.0.5",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "198.18.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:8.8.8.8]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fd00:ec2::254]",
        "[fc00::1]",
        "[fe80::1]",
        "[ff02::1]",
    ],
)
def test_a_special_address_is_refused_in_any_spelling(host: str) -> None:
    assert "LLMHUB_EGRESS_ALLOW" in egress.refusal(f"http://{host}:8000/v1")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://8.8.8.8/v1",
        "https://[2606:4700::1111]/v1",
        "https://no-such-host.invalid/v1",
        "https://bücher.example/v1",
        "https://cafe.fade/v1",
    ],
)
def test_public_addresses_and_names_pass_without_dns(url: str) -> None:
    assert egress.refusal(url) == ""


def test_the_refusal_names_host_problem_and_fix() -> None:
    assert egress.refusal("http://10.0.0.5:8000/v1") == (
        "10.0.0.5 is a private address, which the hub may not call. If it is your own upstream, "
        "add 10.0.0.5:8000 to LLMHUB_EGRESS_ALLOW and restart."
    )
    assert "add 10.0.0.5:443 to" in egress.refusal("https://10.0.0.5/v1")
    assert "add [fc00::1]:80 to" in egress.refusal("http://[fc00::1]/v1")


def test_a_url_that_cannot_be_read_is_refused() -> None:
    assert "is not a URL" in egress.refusal("http://host:port/v1")


def test_an_allowed_host_and_port_may_be_called_and_no_other_port() -> None:
    allow("10.0.0.5:8000")
    assert egress.refusal("http://10.0.0.5:8000/v1") == ""
    assert egress.refusal("http://10.0.0.5:8001/v1") != ""


def test_a_star_allows_every_port_of_a_host() -> None:
    allow("10.0.0.5:*", "[fc00::1]:*")
    assert egress.refusal("http://10.0.0.5:9/v1") == ""
    assert egress.refusal("http://[fc00:0::1]:9/v1") == ""


def test_loopback_is_allowed_while_the_hub_listens_on_loopback_alone() -> None:
    allow(loopback=True)
    for host in ("127.0.0.1", "127.1", "localhost", "[::1]"):
        assert egress.refusal(f"http://{host}:8000/v1") == ""
    assert egress.refusal("http://10.0.0.5/v1") != ""
    assert egress.refusal("http://[::ffff:127.0.0.1]/v1") != ""


def test_a_name_that_leads_to_a_private_address_is_refused_at_connect() -> None:
    sentence = r"llm\.internal leads to 10\.0\.0\.5, a private address.*add llm\.internal:11434"
    with pytest.raises(UpstreamUnreachable, match=sentence):
        egress.check_address("llm.internal", 11434, "10.0.0.5")


def test_an_allowed_name_may_lead_anywhere() -> None:
    allow("LLM.internal:11434")
    egress.check_address("llm.internal", 11434, "10.0.0.5")
    with pytest.raises(UpstreamUnreachable):
        egress.check_address("llm.internal", 22, "10.0.0.5")


def test_an_allowed_address_may_be_reached_by_any_name() -> None:
    allow("10.0.0.5:8000")
    egress.check_address("llm.internal", 8000, "10.0.0.5")


def test_a_public_peer_passes_at_connect() -> None:
    egress.check_address("api.openai.com", 443, "104.18.7.192")
