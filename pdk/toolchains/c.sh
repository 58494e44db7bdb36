#!/bin/bash
# clang 19 and lld for wasm32 and wasm32-wasi, from Debian's packages: those that the other two toolchains link with. Safe to run
# twice (the second run is a version check).
#   bash c.sh && clang-19 --target=wasm32 -O3 -mbulk-memory -c -o stage.o stage.c
set -euo pipefail
LLVM=19
export DEBIAN_FRONTEND=noninteractive
pkgs="clang-$LLVM lld-$LLVM wasi-libc libclang-rt-$LLVM-dev-wasm32"
dpkg -s $pkgs >/dev/null 2>&1 || { apt-get update -qq; apt-get install -y -qq --no-install-recommends $pkgs >/dev/null; }
clang-$LLVM --version | head -1
