"""The metrics page and the log lines: what they tell, whom, at what cost, and what never stands in them."""

import json
import logging
import re
import time
from pathlib import Path

import pytest

from keyvault_lite.model.errors import Forbidden, InvalidState, Unauthenticated
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import DisableKey, Encrypt, ReadMetrics
from keyvault_lite.observe import JsonLines
from keyvault_lite.observe.logs import BURST, LogRateLimit
from keyvault_lite.observe.metrics import SECONDS, Histogram, Metrics
from tests.support.harness import Harness

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[0-9.e+-]+|[+-]Inf)')


def read(page: str) -> dict[str, float]:
    """The samples of a page that is well-formed: each family once, described, its samples together."""
    found: dict[str, float] = {}
    family, families = "", []
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            assert line.split()[3] in {"counter", "gauge", "histogram"}
        elif line.startswith("# HELP "):
            family = line.split()[2]
            families.append(family)
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1].removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") in {family, sample[1]}
            assert sample[1].startswith(family)
            name = sample[1] + (f"{{{sample[2]}}}" if sample[2] else "")
            assert name not in found
            found[name] = float(sample[3])
    assert len(families) == len(set(families))
    assert page.endswith("\n")
    return found


def test_what_was_done_is_counted(harness: Harness) -> None:
    key = KeyRef(harness.key("orders").id)
    before = read(harness.ask(ReadMetrics()))
    for _ in range(3):
        harness.ask(Encrypt(key, plaintext=b"canary-51c7"))
    harness.ask(DisableKey(key))
    harness.refusal(Encrypt(key, plaintext=b"canary-51c7"), InvalidState)
    page = harness.ask(ReadMetrics())
    after = read(page)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('keyvault_requests_total{action="encrypt",result="success"}') == 3
    assert grown('keyvault_requests_total{action="encrypt",result="error"}') == 1
    assert grown('keyvault_request_seconds_count{action="encrypt",result="success"}') == 3
    assert grown('keyvault_request_seconds_bucket{action="encrypt",result="success",le="+Inf"}') == 3
    assert grown("keyvault_commit_entries_sum") >= 5  # counted when all of them have their answers
    assert after["keyvault_log_entries"] == harness.size  # the second look is in the session of the first
    assert after["keyvault_quarantined"] == 0
    assert after["keyvault_queue_entries"] <= 1  # whoever was just answered leaves a moment later
    assert 0 <= after["keyvault_anchor_age_seconds"] < 60
    assert abs(time.time() - after["process_start_time_seconds"]) < 3600
    assert not [name for name in after if name.startswith("keyvault_fault{")]
    for secret in ("canary-51c7", key, "orders", harness.admin):
        assert secret not in page


def test_it_is_for_those_who_watch_over_the_vault_and_each_look_is_on_record(harness: Harness) -> None:
    _, auditor = harness.service("watcher", role=Role.AUDITOR)
    _, caller = harness.service("caller")
    assert read(harness.ask(ReadMetrics(), auditor))
    assert (harness.last.draft.action, harness.last.draft.result) == (Action.METRICS_READ, Result.SUCCESS)
    harness.refusal(ReadMetrics(), Forbidden, caller)
    harness.refusal(ReadMetrics(), Unauthenticated, None)


def test_a_fault_has_a_code(harness: Harness) -> None:
    harness.ledger._group_commit.availability.fault = InvalidState("x")
    assert "invalid_state" in str(harness.ledger._measure_fault())
    harness.ledger._group_commit.availability.fault = None


def test_buckets_hold_those_below_them() -> None:
    one = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        one.add(value)
    assert [(suffix, dict(labels).get("le"), value) for suffix, labels, value in one.samples()] == [
        ("_bucket", "1.0", 2),
        ("_bucket", "2.0", 3),
        ("_bucket", "+Inf", 4),
        ("_sum", None, 6.0),
        ("_count", None, 4),
    ]
    assert list(SECONDS) == sorted(SECONDS)


def test_workers_are_told_apart(tmp_path: Path) -> None:
    pages = []
    workers = [Metrics(), Metrics()]
    for number, one in enumerate(workers):
        one.share(tmp_path, str(number))
        one.gauge("odd", 'a "quoted" gauge', lambda: {'a"b\\c\nd': 1.0}, label="name")
        one.count_request("encrypt", "success", 0.1 * (number + 1))
        one.publish()
    (tmp_path / "9").write_text("{", encoding="ascii")
    for number, one in enumerate(workers):
        one.count_request("encrypt", "success", 0.5)
        pages.append(read(one.page()))
        name = 'keyvault_requests_total{{action="encrypt",result="success",worker="{}"}}'
        assert pages[-1][name.format(number)] == 2, "its own numbers are those of now"
        assert pages[-1][name.format(1 - number)] == 1
    assert pages[0].keys() == pages[1].keys()
    assert r'odd{name="a\"b\\c\nd",worker="0"}' in pages[0]


def test_counting_costs_less_than_a_microsecond() -> None:
    one = Metrics()
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(10_000):
            one.count_request(Action.ENCRYPT, Result.SUCCESS, 0.0017)
        best = min(best, (time.perf_counter() - began) / 10_000)
    assert best < 2e-6, "0.4 µs measured; twice the limit because the machine may be busy"


def record(line: int, message: str = "x", **more: object) -> logging.LogRecord:
    made = logging.LogRecord("keyvault_lite.test", logging.WARNING, "file.py", line, message, None, None)
    vars(made).update(more)
    return made


def test_whoever_repeats_himself_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    moderation = LogRateLimit()
    assert [moderation.filter(record(1)) for _ in range(BURST + 30)].count(True) == BURST
    assert moderation.filter(record(2)), "another place"
    now += 11
    next_one = record(1)
    assert moderation.filter(next_one)
    assert json.loads(JsonLines().format(next_one))["suppressed"] == 30


def test_a_line_is_json_and_knows_its_request() -> None:
    line = json.loads(
        JsonLines().format(record(1, "two\nlines", request_id="00ff", operation="encrypt", token="x-y-z"))
    )
    assert line["request_id"] == "00ff"
    assert line["operation"] == "encrypt"
    assert line["message"] == "two\nlines"
    assert "x-y-z" not in str(line)
