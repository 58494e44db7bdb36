#!/usr/bin/env bash
# jars.sh FOLDER LIB: what pom.xml in FOLDER pins comes to LIB, once. Two at a time wait for each other.
set -euo pipefail
[[ $# -eq 2 ]] || { sed -n 2p "${BASH_SOURCE[0]}" >&2; exit 2; }
die() { echo "jars.sh: $*" >&2; exit 1; }
mkdir -p "$2" || die "cannot make $2"
LIB=$(cd "$2" && pwd)
sum=$(cksum <"$1/pom.xml")
done_() { [[ -f $LIB/.done && "$(<"$LIB/.done")" == "$sum" ]]; }
if ! done_; then
  exec 9>"$LIB/.lock"; flock 9
  if ! done_; then
    command -v mvn >/dev/null || die "no mvn (Maven) to fetch the jars with: run make brokers-fetch"
    rm -f "$LIB"/*.jar "$LIB/.done"
    mvn -q -B -f "$1/pom.xml" dependency:copy-dependencies -DoutputDirectory="$LIB" -DincludeScope=runtime || die "Maven could not fetch what $1/pom.xml names: its error is above"
    echo "$sum" >"$LIB/.done"
  fi
fi
compgen -G "$LIB/*.jar" >/dev/null || die "no jars in $LIB: remove that folder and run make brokers-fetch"
