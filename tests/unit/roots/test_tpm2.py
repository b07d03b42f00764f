"""The TPM root on a software TPM: one chip, one state, and tpm2-tools as the oracle."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from keyvault_lite.crypto.root import RootError, SlotKey
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace
from keyvault_lite.roots.root import Enrolled, RootRefused, RootUnavailable, Wanted
from keyvault_lite.roots.tpm2.commands import Chip
from keyvault_lite.roots.tpm2.root import Tpm2Root
from keyvault_lite.roots.tpm2.transport import Transport
from tests.support.devices import SoftwareTpm, needs_tpm, needs_tpm_tools

pytestmark = needs_tpm
PLACE = SlotPlace(b"i" * 16, "00000000-0000-4000-8000-000000000001")
OTHER = SlotPlace(b"j" * 16, PLACE.slot_id)


@pytest.fixture
def chip(tmp_path: Path) -> SoftwareTpm:
    return SoftwareTpm(tmp_path / "tpm")


def enroll(device: str, *pcrs: int) -> Enrolled:
    return Tpm2Root(device, pcrs).enroll(PLACE, os.urandom)


def key_of(device: str, made: Enrolled, place: SlotPlace = PLACE) -> bytes:
    return Tpm2Root(device).unlock_one(Wanted(made.parameters, place)).reveal()


@pytest.mark.parametrize("pcrs", [(), (7,), (0, 7, 23)])
def test_it_opens_after_every_boot(chip: SoftwareTpm, pcrs: tuple[int, ...]) -> None:
    with chip.running() as device:
        made = enroll(device, *pcrs)
        assert key_of(device, made) == made.key.reveal()
    with chip.running() as device:
        assert key_of(device, made) == made.key.reveal()
        assert key_of(device, made, OTHER) != made.key.reveal(), "bound to one slot of one vault"
        assert len(made.parameters.write()) < 1024


def test_another_chip_opens_nothing(chip: SoftwareTpm, tmp_path: Path) -> None:
    with chip.running() as device:
        made = enroll(device)
    with SoftwareTpm(tmp_path / "other").running() as device, pytest.raises(RootRefused, match="another TPM"):
        key_of(device, made)


@needs_tpm_tools
def test_another_state_opens_nothing_and_says_what_to_do(chip: SoftwareTpm) -> None:
    with chip.running() as device:
        made, other = enroll(device, 7), enroll(device, 8)
        chip.tool("tpm2_pcrextend", "7:sha256=" + "ab" * 32)
        with pytest.raises(RootRefused, match=r"PCR 7.*kvl root reseal"):
            key_of(device, made)
        results = Tpm2Root(device).unlock([Wanted(made.parameters, PLACE), Wanted(other.parameters, PLACE)])
        assert isinstance(results[0], RootRefused)
        assert isinstance(results[1], SlotKey), "one slot that is closed keeps no other closed"
        again = enroll(device, 7)
        assert key_of(device, again) == again.key.reveal()
    with chip.running() as device:
        assert key_of(device, made) == made.key.reveal(), "the next boot is in the first state"


@needs_tpm_tools
def test_a_cleared_chip_opens_nothing(chip: SoftwareTpm) -> None:
    with chip.running() as device:
        made = enroll(device)
        chip.tool("tpm2_clear", "-c", "platform")
        with pytest.raises(RootRefused, match="cleared"):
            key_of(device, made)


@needs_tpm_tools
def test_the_policy_is_the_one_that_the_tools_make(chip: SoftwareTpm) -> None:
    """TPM 2.0 library, part 3, TPM2_PolicyPCR: the tools compute the digest, and the sealed object has it."""
    with chip.running() as device:
        public = enroll(device, 7, 16).parameters.raw("public", longest=512)
        chip.tool("tpm2_createpolicy", "--policy-pcr", "-l", "sha256:7,16", "-L", "policy")
        assert (chip.folder / "policy").read_bytes() in public


@needs_tpm_tools
def test_what_is_loaded_is_flushed(chip: SoftwareTpm) -> None:
    """A chip has room for three objects and as many sessions."""
    with chip.running() as device:
        made, closed = enroll(device, 7), enroll(device, 7)
        chip.tool("tpm2_pcrextend", "7:sha256=" + "ab" * 32)
        for _ in range(8):
            with pytest.raises(RootRefused):
                key_of(device, closed)
            enroll(device, 7)
        for kind in ("handles-transient", "handles-loaded-session"):
            assert chip.tool("tpm2_getcap", kind).strip() == ""
        assert made.key.reveal() != closed.key.reveal()


def test_a_state_that_was_put_back_opens_it(chip: SoftwareTpm, tmp_path: Path) -> None:
    """An honest limit: the chip of a virtual machine goes back with its disk."""
    with chip.running() as device:
        made = enroll(device)
    shutil.copytree(chip.folder, tmp_path / "snapshot")
    shutil.rmtree(chip.folder)
    with pytest.raises(RootUnavailable, match="cannot be opened"):
        key_of(chip.device, made)
    with SoftwareTpm(tmp_path / "snapshot").running() as device:
        assert key_of(device, made) == made.key.reveal()


def test_planted_parameters_are_refused_one_by_one(chip: SoftwareTpm) -> None:
    with chip.running() as device:
        made = enroll(device, 7)
        values = made.parameters.values
        planted = [
            {},
            {**values, "pcrs": [24]},
            {**values, "pcrs": [True]},
            {**values, "pcrs": []},
            {**values, "pcrs": [8]},
            {**values, "private": "A" * 4000},
            {**values, "private": "AAAA"},
            {**values, "public": values["private"]},
        ]
        wanted = [Wanted(SlotParameters("tpm2", one), PLACE) for one in planted]
        results = Tpm2Root(device).unlock([*wanted, Wanted(made.parameters, PLACE)])
        assert all(isinstance(one, RootError) for one in results[:-1])
        last = results[-1]
        assert isinstance(last, SlotKey)
        assert last.reveal() == made.key.reveal()


def test_the_session_is_encrypted(chip: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes between process and chip has the secret in no direction."""
    passed: list[bytes] = []
    exchange = Transport.exchange

    def listen(self: Transport, command: bytes) -> bytes:
        answer = exchange(self, command)
        passed.extend((command, answer))
        return answer

    monkeypatch.setattr(Transport, "exchange", listen)
    secret = bytes(range(64, 96))
    with chip.running() as device:
        made = Tpm2Root(device, [7]).enroll(PLACE, lambda size: secret[:size])
        assert key_of(device, made) == made.key.reveal()
    assert len(passed) > 10
    assert not any(secret in one for one in passed)


def test_a_device_that_says_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RootUnavailable, match="cannot be opened"):
        Tpm2Root(str(tmp_path / "tpm0")).check()
    monkeypatch.setattr("keyvault_lite.roots.tpm2.transport.TIMEOUT_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(RootUnavailable, match="does not answer"):
            Tpm2Root(f"swtpm:{tmp_path / 'silent'}").check()


def test_check_reads_the_registers(chip: SoftwareTpm) -> None:
    with chip.running() as device:
        assert Tpm2Root(device, [7]).check() == "the chip answers"
        with Transport(device) as transport:
            assert len(Chip(transport).read_pcrs((7,))) > 0
