"""What protects the process is said as it is: nothing is claimed that the system did not grant."""

import ctypes
import io
import os
import resource
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from keyvault_lite.crypto import hygiene
from keyvault_lite.crypto.hygiene import forget_environment_secrets, protect_process

NAME = "KEYVAULT_MASTER_KEY"


class System:
    """A system that grants what it is told to; this process is not changed."""

    def __init__(self) -> None:
        self.limit = resource.RLIM_INFINITY
        self.refuses: frozenset[str] = frozenset()
        self.calls: dict[str, tuple[object, ...]] = {}
        self.lacks: frozenset[str] = frozenset()
        self.swaps = "Filename Type Size Used Priority\n"

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name in self.lacks:
            raise AttributeError(name)

        def call(*given: object) -> int:
            self.calls[name] = given
            return -1 if name in self.refuses else 0

        return call


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System()

    def set_limit(*given: object) -> None:
        made.calls["setrlimit"] = given
        if "setrlimit" in made.refuses:
            raise ValueError("not allowed to raise maximum limit")

    def opened(path: str, **_: object) -> io.StringIO:
        assert path == "/proc/swaps"
        if "open" in made.refuses:
            raise FileNotFoundError(path)
        return io.StringIO(made.swaps)

    monkeypatch.setattr(hygiene, "ctypes", SimpleNamespace(CDLL=lambda *_, **__: made))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (made.limit, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    monkeypatch.setattr(hygiene, "open", opened, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return made


def test_memory_is_locked_where_all_of_it_can_be(system: System) -> None:
    assert protect_process().memory_locked
    system.refuses = frozenset({"mlockall"})
    assert not protect_process().memory_locked


def test_under_a_limit_memory_is_not_locked(system: System) -> None:
    system.limit = 8 << 20
    assert not protect_process().memory_locked
    assert "mlockall" not in system.calls


@pytest.mark.parametrize(("refused", "field"), [("setrlimit", "core_dumps_off"), ("prctl", "not_dumpable")])
def test_what_the_system_refuses_is_not_claimed(system: System, refused: str, field: str) -> None:
    assert getattr(protect_process(), field)
    system.refuses = frozenset({refused})
    assert not getattr(protect_process(), field)


def test_what_the_system_is_asked_for(system: System) -> None:
    protect_process()
    assert system.calls == {
        "mlockall": (3,),  # MCL_CURRENT | MCL_FUTURE
        "prctl": (4, 0, 0, 0, 0),  # PR_SET_DUMPABLE
        "setrlimit": (resource.RLIMIT_CORE, (0, 0)),
    }


def test_a_system_that_locks_no_memory(system: System) -> None:
    system.lacks = frozenset({"mlockall"})
    assert not protect_process().memory_locked


def test_elsewhere_there_is_no_prctl(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not protect_process().not_dumpable
    assert "prctl" not in system.calls


def test_swap_is_what_the_kernel_lists(system: System) -> None:
    assert protect_process().swap_in_use is False
    system.swaps += "/swapfile file 1048572 0 -2\n"
    assert protect_process().swap_in_use is True


def test_a_system_that_tells_of_no_swap(system: System) -> None:
    system.refuses = frozenset({"open"})
    assert not protect_process().swap_in_use


def test_the_master_key_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "secret")
    forget_environment_secrets()
    assert NAME not in os.environ
    forget_environment_secrets()


@pytest.mark.parametrize(
    ("name", "value", "stays"),
    [
        ("KEYVAULT_DATABASE_URL", "postgresql://vault:hush@127.0.0.1/vault", False),
        ("KEYVAULT_DATABASE_URL", "postgresql://vault@/vault?password=hush", False),
        ("KEYVAULT_DATABASE_URL", "sqlite:////var/lib/keyvault/keyvault.db", True),
        ("KEYVAULT_MIGRATE_TO", "postgresql://vault:hush@127.0.0.1/vault", False),
        ("PGPASSWORD", "hush", False),
    ],
)
def test_what_may_hold_a_password_leaves_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, *, stays: bool
) -> None:
    monkeypatch.setenv(name, value)
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(name.encode())
    forget_environment_secrets()
    assert (name in os.environ) is stays
    assert ctypes.string_at(place) == (value.encode() if stays else b"-" * len(value))


def test_the_bytes_of_the_master_key_are_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "secret")
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(NAME.encode())
    assert ctypes.string_at(place) == b"secret"
    forget_environment_secrets()
    assert ctypes.string_at(place) == b"------", "what /proc shows of a process is these bytes"


def test_a_master_key_that_the_system_has_forgotten_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "secret")
    os.unsetenv(NAME)  # the C library does not have it any more, Python does not know
    forget_environment_secrets()
    assert NAME not in os.environ
