#!/bin/sh
# Find what the build needs, or say in one message what is missing and what to do.
#
#   check_setup.sh python     prints a Python of at least 3.11 with venv and headers
#   check_setup.sh compiler   prints a C++ compiler that understands C++20
#
# PYTHON and CXX, when set, are the only candidates. Exit status 1 if there is none.
set -eu

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# Prints "ok", or what this Python lacks; nothing if it does not run at all.
lacks() {
    "$1" - 2>/dev/null <<'PYTHON'
import sys

if sys.version_info < (3, 11):
    print("it is %d.%d" % sys.version_info[:2])
else:
    import importlib.util
    import os
    import sysconfig

    if importlib.util.find_spec("ensurepip") is None:
        print("it has no ensurepip, so it cannot make environments")
    elif not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        print("it has no Python.h, so no extension can be built")
    else:
        print("ok")
PYTHON
}

find_python() {
    seen=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        found=$(lacks "$candidate" || true)
        if [ "$found" = ok ]; then
            command -v "$candidate"
            return
        fi
        [ -z "$found" ] || seen="$seen; $candidate: $found"
    done
    fail "mobilemoe needs Python 3.11 or newer with venv and headers${seen}" \
        "install python3.11, python3.11-venv and python3.11-dev, or set PYTHON=/path/to/python"
}

understands_cxx20() {
    printf '%s\n' '#include <bit>' '#include <concepts>' '#include <span>' \
        'template <std::integral T> int ones(std::span<const T> s) { return std::popcount(s[0]); }' \
        'int main() { unsigned v[1] = {7}; return ones<unsigned>(v) - 3; }' >"$folder/probe.cc"
    "$1" -std=c++20 -c "$folder/probe.cc" -o "$folder/probe.o" >/dev/null 2>&1
}

find_compiler() {
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    seen=""
    for candidate in ${CXX:-c++ g++ clang++ g++-14 g++-13 g++-12 g++-11 clang++-18 clang++-16}; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if understands_cxx20 "$candidate"; then
            command -v "$candidate"
            return
        fi
        seen="$seen; $candidate does not compile C++20"
    done
    [ -n "$seen" ] || seen="; found none${CXX:+ called $CXX}"
    fail "mobilemoe needs a C++20 compiler${seen}" \
        "install g++ 11 or clang 14 or newer, or set CXX=/path/to/compiler"
}

case "${1:-}" in
    python) find_python ;;
    compiler) find_compiler ;;
    *) fail "unknown request '${1:-}'" "ask for python or compiler" ;;
esac
