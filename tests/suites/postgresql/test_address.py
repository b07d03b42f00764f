"""Which URLs may be used: what goes to another host is encrypted, and the host's name verified."""

import sys

import pytest
from psycopg.conninfo import conninfo_to_dict

from keyvault_lite.ledger.opening import open_database
from keyvault_lite.ledger.storage.postgresql.address import read_address
from keyvault_lite.model.errors import InvalidRequest


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSSLMODE", "PGUSER", "PGSERVICE", "PGREQUIREAUTH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///vault",
        "postgresql://kvl@localhost/vault",
        "postgresql://kvl@127.0.0.1:5433/vault",
        "postgresql://kvl@[::1]/vault",
        "postgresql:///vault?host=/run/postgresql",
        "postgresql://kvl@db.example/vault?hostaddr=127.0.0.1",
        "postgres://kvl@localhost/vault",
    ],
)
def test_this_host_needs_no_tls(url: str) -> None:
    assert "sslmode" not in read_address(url, allow_plain=False).conninfo


def test_another_host_is_verified_without_being_told() -> None:
    conninfo = read_address("postgresql://kvl@db.example/vault", allow_plain=False).conninfo
    assert "sslmode=verify-full" in conninfo
    assert "gssencmode=disable" in conninfo


HOSTS = [
    "db.example",
    "10.0.0.1",
    "localhost,db.example",
    "127.0.0.1&hostaddr=10.0.0.1",
    # An address that is left empty is that of the name in its place.
    "localhost,db.example&hostaddr=127.0.0.1,",
    "localhost,db.example&hostaddr=",
]


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
@pytest.mark.parametrize("host", HOSTS)
def test_less_is_refused_but_on_request(mode: str, host: str) -> None:
    url = f"postgresql:///vault?host={host}&sslmode={mode}"
    with pytest.raises(InvalidRequest, match="verify-full"):
        read_address(url, allow_plain=False)
    assert f"sslmode={mode}" in read_address(url, allow_plain=True).conninfo


def test_what_the_library_would_read_from_the_environment_is_judged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGSSLMODE", "prefer")
    with pytest.raises(InvalidRequest, match="verify-full"):
        read_address("postgresql:///vault", allow_plain=False)
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    with pytest.raises(InvalidRequest, match="service"):
        read_address("postgresql:///vault", allow_plain=False)
    monkeypatch.delenv("PGSERVICE")
    with pytest.raises(InvalidRequest, match="service"):
        read_address("postgresql:///vault?service=elsewhere", allow_plain=False)


OF_HOME = {
    "passfile": "PGPASSFILE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslrootcert": "PGSSLROOTCERT",
}
"""Where libpq would look in HOME for a file that it is not told of, and the variables that tell it."""
URLS = [
    "postgresql://kvl@db.example/vault",
    "postgresql://kvl@db.example/vault?sslmode=require",
    "postgresql://kvl@localhost/vault?sslmode=verify-full",
    "postgresql://kvl@localhost/vault?sslmode=verify-ca",
    "postgresql:///vault?host=/run/postgresql",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("option", OF_HOME)
def test_the_library_looks_for_no_file_in_home(monkeypatch: pytest.MonkeyPatch, url: str, option: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    monkeypatch.delenv(OF_HOME[option], raising=False)
    chosen = conninfo_to_dict(read_address(url, allow_plain=True).conninfo)
    if option == "sslrootcert" and chosen.get("sslmode") == "verify-full":
        assert chosen[option] == "system"
    else:
        assert chosen[option] == "/nonexistent"
    more = "&" if "?" in url else "?"
    given = read_address(f"{url}{more}{option}=/given", allow_plain=True).conninfo
    assert conninfo_to_dict(given)[option] == "/given"
    monkeypatch.setenv(OF_HOME[option], "/of/the/environment")
    assert option not in conninfo_to_dict(read_address(url, allow_plain=True).conninfo), "libpq reads its own variable"


def test_a_verified_connection_trusts_the_system_and_no_file_in_home() -> None:
    assert "sslrootcert=system" in read_address("postgresql://kvl@db.example/vault", allow_plain=False).conninfo


def test_these_are_all_that_the_library_looks_for_in_home() -> None:
    """Options that libpq has today: what is new may be another file."""
    from psycopg import pq

    files = {
        one.keyword.decode()
        for one in pq.Conninfo.get_defaults()
        if any(word in one.keyword for word in (b"file", b"cert", b"key", b"crl", b"dir", b"ca"))
    }
    harmless = {
        # What is not a file; what is read only if it is named; a service is refused.
        "sslcertmode", "channel_binding", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
        "sslcrldir", "sslkeylogfile", "servicefile", "application_name", "fallback_application_name",
        "scram_client_key", "scram_server_key", "oauth_ca_file", "replication",
    }  # fmt: skip
    assert files - harmless <= OF_HOME.keys()


def test_the_password_is_shown_nowhere() -> None:
    address = read_address("postgresql://kvl:hush@db.example:5433/vault", allow_plain=False)
    assert address.place == "postgresql://db.example:5433/vault"
    assert "hush" not in repr(address)
    for malformed in ("postgresql://kvl:hush@h/v?nonsense=1", "postgresql://kvl:hush@[::1/v"):
        with pytest.raises(InvalidRequest) as refused:
            read_address(malformed, allow_plain=False)
        assert "hush" not in str(refused.value)


def test_without_the_driver_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("keyvault_lite.ledger.storage.postgresql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'psycopg\[binary\]"):
        open_database("postgresql:///vault")


def test_a_password_goes_to_an_identified_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def required(url: str, **how: bool) -> str | None:
        found = conninfo_to_dict(read_address(url, **{"allow_plain": False, **how}).conninfo)
        return str(found["require_auth"]) if "require_auth" in found else None

    for url in ("postgresql://kvl@localhost/vault", "postgresql:///vault?host=/tmp"):
        assert required(url) == "!password,!md5"
    assert required("postgresql://kvl@db.example/vault", allow_plain=True) == "!password,!md5"
    assert required("postgresql://kvl@db.example/vault") is None, "its certificate says who it is"
    assert required("postgresql://kvl@localhost/vault?require_auth=md5") == "md5", "where it was asked for"
    monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")
    assert required("postgresql://kvl@localhost/vault") == "scram-sha-256"
