"""The page about the device model, and the profile of the machine, are what the data give."""

from __future__ import annotations

from device_model import MACHINE, REPORT, TARGET, machine, phones, report

from mobilemoe.plan.device import load_profile, median_error


def test_the_report_and_the_profile_follow_from_the_measurements() -> None:
    found, cells = machine(), phones()
    assert load_profile(MACHINE) == found.profile
    assert REPORT.read_text(encoding="utf-8") == report(found, cells)
    for what, predictions in {**found.left_out, **cells}.items():
        assert median_error(predictions) < TARGET, what
