#!/bin/bash
# AssemblyScript from the npm registry, as a package-lock.json pins it. Safe to run twice (the second run is a comparison of the lock).
#   PREFIX=/opt/assemblyscript LOCK=folder/of/package-lock.json bash assemblyscript.sh && /opt/assemblyscript/bin/asc ...
# Needs Node 20 and npm 10; 102 MB.
set -euo pipefail
PREFIX=$(realpath -m "${PREFIX:-/opt/assemblyscript}")
LOCK=${LOCK:-.}
asc=$PREFIX/node_modules/.bin/asc
if cmp -s "$LOCK/package-lock.json" "$PREFIX/.done" && "$asc" --version; then
  exit 0
fi
mkdir -p "$PREFIX/bin"; rm -rf "$PREFIX/.done" "$PREFIX/node_modules"
cp "$LOCK/package.json" "$LOCK/package-lock.json" "$LOCK/.npmrc" "$PREFIX/"
(cd "$PREFIX" && npm ci --silent --no-audit --no-fund --ignore-scripts)
ln -sfn ../node_modules/.bin/asc "$PREFIX/bin/asc"
"$asc" --version
cp "$LOCK/package-lock.json" "$PREFIX/.done"
