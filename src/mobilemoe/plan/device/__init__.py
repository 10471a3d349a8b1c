"""How long a model takes on a device that is not at hand, and what a request costs there."""

from __future__ import annotations

from mobilemoe.plan.device.calibrate import Assumptions, Calibration, calibrate
from mobilemoe.plan.device.constant import Constant, Origin
from mobilemoe.plan.device.cost import Request, RequestCost, StatedRates, request_cost
from mobilemoe.plan.device.dump import dump_profile
from mobilemoe.plan.device.fit import Prediction, fit_costs, left_out, median_error
from mobilemoe.plan.device.latency import decode_seconds, prefill_seconds
from mobilemoe.plan.device.load import builtin_profiles, load_profile, parse_profile
from mobilemoe.plan.device.measurement import Measurement, measurements_of, median_of_runs
from mobilemoe.plan.device.profile import DeviceProfile

__all__ = [
    "Assumptions",
    "Calibration",
    "Constant",
    "DeviceProfile",
    "Measurement",
    "Origin",
    "Prediction",
    "Request",
    "RequestCost",
    "StatedRates",
    "builtin_profiles",
    "calibrate",
    "decode_seconds",
    "dump_profile",
    "fit_costs",
    "left_out",
    "load_profile",
    "measurements_of",
    "median_error",
    "median_of_runs",
    "parse_profile",
    "prefill_seconds",
    "request_cost",
]
