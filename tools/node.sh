#!/bin/sh
# Installs what the package.json PINS names into FOLDER, from npm, then touches STAMP.
# Usage: node.sh FOLDER PINS STAMP
set -eu
folder=$1 pins=$2 stamp=$3

if ! command -v npm >/dev/null 2>&1; then
    printf 'error: %s comes from npm, which is not here\n\n' "$(basename "$folder")" >&2
    printf 'hint: install Node.js 20 or newer, or skip this: make test needs neither\n' >&2
    exit 1
fi

rm -rf "$folder"
mkdir -p "$folder"
cp "$pins" "$folder/package.json"
echo "installing $(basename "$folder") into $folder ..." >&2
npm install --prefix "$folder" --no-fund --no-audit --loglevel=error >&2
touch "$stamp"
