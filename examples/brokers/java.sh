#!/usr/bin/env bash
# java.sh: what the brokers need, and kcat for looking at Kafka: a Java 17 or newer, Maven, openssl, kcat. As root on Debian what is missing is
# installed by apt-get; elsewhere it says what is missing. kcat is optional unless CI=true.
set -euo pipefail
old() { ! command -v java >/dev/null || [[ $(java -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p;T;q') -lt 17 ]]; }
missing() {
  ! old || echo openjdk-17-jre-headless
  command -v mvn >/dev/null || echo maven
  command -v openssl >/dev/null || echo openssl
  command -v kcat >/dev/null || echo kcat
}
packages=$(missing)
[[ -n $packages ]] || exit 0
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages >/dev/null 2>&1 || {
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages >/dev/null; } ||
    { echo "java.sh: apt-get could not install: ${packages//$'\n'/ }" >&2; }
fi
packages=$(missing)
[[ -n $packages ]] || exit 0
[[ $packages != kcat || ${CI:-} == true ]] || { echo "java.sh: kcat is missing; only the comparison with another client needs it" >&2; exit 0; }
echo "java.sh: missing: ${packages//$'\n'/ }. Install it (Java 17 or newer), or run this as root on Debian 12 or newer" >&2
exit 1
