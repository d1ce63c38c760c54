#!/bin/sh
# Runs the tests with real clients, and writes docs/conformance.md from what became of them.
# Usage: clients.sh BIN CLIENTS ARGUMENTS... ARGUMENTS go to pytest; a part of the tests writes no page.
set -u
bin=$1 clients=$2
shift 2
results=$clients/results.json
failed=0

run() {
    "$@"
    code=$?
    # 5: the arguments chose none of these tests.
    [ $code -eq 0 ] || [ $code -eq 5 ] || failed=1
}

rm -f "$results"
CLIENTS_RESULTS=$results run "$bin/python" -m pytest -q -n 2 \
    tests/clients/conformance tests/clients/test_codex*.py "$@"
[ ! -e "$results" ] || run "$bin/python" -m tests.clients.conformance.table "$results"
run "$clients/openai-python/bin/python" -m pytest -q -n 2 tests/clients/test_openai_python*.py "$@"
exit $failed
