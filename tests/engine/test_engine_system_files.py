"""Small system files: lists of CPUs there and back, and files that say nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_system import write_file
from mobilemoe.engine.system_files import cpu_list, read_cpus, read_field, read_integer, read_text


@given(cpus=st.frozensets(st.integers(0, 300)))
def test_cpu_lists_there_and_back(tmp_path_factory, cpus):
    root = tmp_path_factory.mktemp("list")
    write_file(root, "cpus", cpu_list(cpus))
    assert read_cpus(root / "cpus") == cpus


def test_cpu_lists_as_linux_writes_them(tmp_path):
    write_file(tmp_path, "cpus", "0-3,8,10-11")
    assert read_cpus(tmp_path / "cpus") == {0, 1, 2, 3, 8, 10, 11}
    assert cpu_list({11, 10, 8, 3, 2, 1, 0}) == "0-3,8,10-11"


@pytest.mark.parametrize("text", ["", "all", "1-x", "-", "1,,2"])
def test_an_odd_list_says_nothing(tmp_path, text):
    write_file(tmp_path, "cpus", text)
    assert read_cpus(tmp_path / "cpus") == frozenset()


def test_what_cannot_be_read_says_nothing(tmp_path):
    assert read_text(tmp_path / "nowhere") == read_text(tmp_path) == ""
    assert read_cpus(tmp_path / "nowhere") == frozenset()
    write_file(tmp_path, "max", "max")
    assert read_integer(tmp_path / "max") is None


def test_fields_with_and_without_a_colon(tmp_path):
    write_file(tmp_path, "fields", "cache 7\nVmSize:\t  12 kB\nempty:\nVmSizeMore: 5")
    path = tmp_path / "fields"
    assert (read_field(path, "cache"), read_field(path, "VmSize")) == (7, 12)
    assert read_field(path, "empty") is read_field(path, "other") is None
