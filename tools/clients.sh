#!/bin/sh
# Makes the environment VENV with codexlb and the newest openai-python, then touches STAMP.
# Usage: clients.sh VENV STAMP. PYTHON names the interpreter, as for setup.sh.
set -eu
venv=$1 stamp=$2

sh "$(dirname "$0")/setup.sh" "$venv" '.[dev]' "$venv/.ready-dev"
if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --python "$venv/bin/python" --upgrade openai
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade openai
fi
touch "$stamp"
