#!/bin/sh
# Makes the environment VENV and installs into it what ARGUMENTS tell pip, then touches STAMP.
# Usage: setup.sh VENV STAMP ARGUMENTS... PYTHON names the interpreter, if python3 is not the one.
set -eu
venv=$1 stamp=$2
shift 2

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

fail() {
    printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

python=$(find_python)
if [ -z "$python" ] && { [ -n "${PYTHON:-}" ] || ! command -v uv >/dev/null 2>&1; }; then
    found=$("${PYTHON:-python3}" --version 2>&1 | head -n 1) || found="none"
    fail "codexlb needs Python 3.11 or newer; ${PYTHON:-python3} here is: ${found:-none}" \
        "install a newer Python, or name it: make PYTHON=/path/to/python3.12 demo"
fi

# An environment whose interpreter is gone or too old is made anew.
if [ -e "$venv" ] && ! new_enough "$venv/bin/python"; then
    rm -rf "$venv"
fi

if command -v uv >/dev/null 2>&1; then
    [ -e "$venv" ] || uv venv --quiet --python "${python:->=3.11}" "$venv"
    echo "setting up $venv with uv ..." >&2
    uv pip install --quiet --python "$venv/bin/python" "$@"
else
    if [ ! -e "$venv" ]; then
        if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
            rm -rf "$venv"
            "$python" -m virtualenv --quiet "$venv" >/dev/null 2>&1 || fail \
                "$python can make no environment: it has neither venv nor virtualenv" \
                "install one of them (Debian: apt install python3-venv), or uv"
        fi
    fi
    echo "setting up $venv (a minute, the first time) ..." >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
fi
touch "$stamp"
