#!/bin/sh
# Installs the Codex CLI of npm into FOLDER, then touches STAMP.
# Usage: codex.sh FOLDER VERSION STAMP
set -eu
folder=$1 version=$2 stamp=$3

if ! command -v npm >/dev/null 2>&1; then
    printf 'error: the Codex CLI comes from npm, which is not here\n\n' >&2
    printf 'hint: install Node.js 20 or newer, or skip this: make test needs neither\n' >&2
    exit 1
fi

rm -rf "$folder"
mkdir -p "$folder"
echo "installing @openai/codex $version into $folder ..." >&2
npm install --prefix "$folder" --no-fund --no-audit --loglevel=error "@openai/codex@$version" >&2
touch "$stamp"
