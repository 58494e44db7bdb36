#!/usr/bin/env bash
# One real Kafka 4.1 broker (KRaft, combined) on loopback.
#   kafka.sh fetch    download the jars (10 s, 54 MiB)      kafka.sh start    format once, start, wait until it answers
#   kafka.sh stop     SIGTERM, wait      kafka.sh kill   SIGKILL
#   kafka.sh status   exit 0 and one line when it answers   kafka.sh wipe     kill, remove data and certificates
#   kafka.sh run      as start, but in the foreground: this process becomes the broker
#   kafka.sh tool CLASS ARGS...   run a class of the jars, e.g. org.apache.kafka.tools.TopicCommand --bootstrap-server ...
# Listeners: PLAINTEXT $PORT, SASL_PLAINTEXT $PORT+2, SSL $PORT+3, SASL_SSL $PORT+4; controller $PORT+1.
# Users of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512: alice / alice-secret, bob / bob-secret.
# Certificates in $KAFKA_RUN/tls: ca.pem ca.key, server.crt server.key, client.crt client.key, other-ca.pem (signed nothing here)
# Variables: KAFKA_RUN (folder), KAFKA_LIB (jars), KAFKA_DATA (log.dirs), KAFKA_PORT (19092), KAFKA_PORTS (the six ports after it, if they
# are not the next ones: controller, SASL_PLAINTEXT, SSL, SASL_SSL, and for tests EXPIRED, a TLS listener whose certificate has
# expired, and PROXIED, plain), KAFKA_ADVERTISE (HOST:PORT that PROXIED tells its clients), KAFKA_JVM (heap), KAFKA_EXTRA (lines for
# server.properties, taken at each start, the last one wins)
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HOME_OF=$HERE/../../../.toolchains/brokers/kafka
RUN=${KAFKA_RUN:-$HOME_OF/run}; LIB=${KAFKA_LIB:-$HOME_OF/lib}; PORT=${KAFKA_PORT:-19092}
mkdir -p "$RUN"; RUN=$(cd "$RUN" && pwd)
DATA=${KAFKA_DATA:-$RUN/data}
JVM=${KAFKA_JVM:--Xms256m -Xmx512m -XX:+UseSerialGC}
PIDF=$RUN/kafka.pid
# shellcheck disable=SC2206
PORTS=(${KAFKA_PORTS:-$((PORT+1)) $((PORT+2)) $((PORT+3)) $((PORT+4))})
CONTROLLER=${PORTS[0]} SASL=${PORTS[1]} SSL=${PORTS[2]} SASL_SSL=${PORTS[3]} EXPIRED=${PORTS[4]:-} PROXIED=${PORTS[5]:-}

die() { echo "kafka.sh: $*" >&2; exit 1; }
# shellcheck disable=SC2086
jk() { java $JVM -Dlog4j2.configurationFile="$HERE/log4j2.properties" -cp "$LIB/*" "$@"; }
alive() { [[ -f $PIDF ]] && [[ "$(tr '\0' ' ' 2>/dev/null <"/proc/$(<"$PIDF")/cmdline")" == *kafka.Kafka* ]]; }
# What a log says of its program's end.
causes() { grep -E '^[^[:space:]].*(ERROR|FATAL|Exception|Error)' "$1" | tail -5 >&2 || tail -5 "$1" >&2; }
open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# ApiVersions v0 written by hand: the broker answers with a length and a body
answers() { timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff" >&3 && [ "$(head -c 4 <&3 | wc -c)" = 4 ]' "$PORT" 2>/dev/null; }

certs() {
  [[ -f $RUN/tls/.done ]] && return
  rm -rf "$RUN/tls"; mkdir -p "$RUN/tls"; ( cd "$RUN/tls"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 3650 -subj "/CN=example ca"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout other-ca.key -out other-ca.pem -days 3650 -subj "/CN=other ca"
  # openssl ca takes dates of the past; x509 does not in every version
  mkdir issued; touch index.txt; echo 1000 >serial
  cat >ca.cnf <<'C'
[ca]
default_ca = own
[own]
new_certs_dir = issued
database = index.txt
serial = serial
certificate = ca.pem
private_key = ca.key
default_md = sha256
unique_subject = no
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost,IP:127.0.0.1
C
  for n in server client expired; do
    dates=(-days 3650); [[ $n != expired ]] || dates=(-startdate 20200101000000Z -enddate 20210101000000Z)
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $n.key -out $n.csr -subj "/CN=$n" # PKCS#8, as Kafka wants it
    openssl ca -batch -notext -config ca.cnf -in $n.csr -out $n.crt "${dates[@]}"
    cat $n.key $n.crt >$n.pem
  done
  rm -rf issued index.txt* serial* ca.cnf ./*.csr other-ca.key
  touch .done ) >"$RUN/tls.log" 2>&1 || { tail -5 "$RUN/tls.log" >&2; die "openssl made no certificates: see $RUN/tls.log"; }
}

config() {
  local listeners="PLAINTEXT://127.0.0.1:$PORT,SASL_PLAINTEXT://127.0.0.1:$SASL,SSL://127.0.0.1:$SSL,SASL_SSL://127.0.0.1:$SASL_SSL"
  [[ -z $EXPIRED ]] || listeners+=",EXPIRED://127.0.0.1:$EXPIRED"
  local advertised=$listeners
  [[ -z $PROXIED ]] || { listeners+=",PROXIED://127.0.0.1:$PROXIED"; advertised+=",PROXIED://${KAFKA_ADVERTISE:-127.0.0.1:$PROXIED}"; }
  local l m
  cat >"$RUN/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CONTROLLER
listeners=$listeners,CONTROLLER://127.0.0.1:$CONTROLLER
advertised.listeners=$advertised
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,EXPIRED:SSL,PROXIED:PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
$(for l in sasl_plaintext sasl_ssl; do
  echo "listener.name.$l.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"alice-secret\" user_bob=\"bob-secret\";"
  for m in scram-sha-256 scram-sha-512; do echo "listener.name.$l.$m.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"; done
done)
ssl.keystore.type=PEM
ssl.keystore.location=$RUN/tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$RUN/tls/ca.pem
listener.name.ssl.ssl.client.auth=requested
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location=$RUN/tls/expired.pem
log.dirs=$DATA
num.network.threads=2
num.io.threads=2
num.partitions=4
default.replication.factor=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# after kill -9 the controller refuses the new broker until the old session ends (default 9 s)
broker.session.timeout.ms=2500
broker.heartbeat.interval.ms=500
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=8388608
log.retention.hours=24
${KAFKA_EXTRA:-}
P
}

fetch() { "$HERE/../jars.sh" "$HERE" "$LIB"; }

# Everything before the broker's own start.
prepare() {
  fetch; certs; config
  local p id
  for p in "$PORT" "${PORTS[@]}"; do
    ! open "$p" || die "port $p is taken: stop what listens there (make brokers-status), or set KAFKA_PORT"
  done
  [[ ! -f $DATA/meta.properties ]] || return 0
  mkdir -p "$DATA" || die "cannot make $DATA: set KAFKA_DATA or KAFKA_RUN to a folder that can be written"
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' AB | tr -d =) # what "StorageTool random-uuid" prints, without a JVM
  local users=() u m
  for u in alice bob; do for m in 256 512; do users+=(--add-scram "SCRAM-SHA-$m=[name=$u,password=$u-secret]"); done; done
  jk kafka.tools.StorageTool format -t "$id" -c "$RUN/server.properties" "${users[@]}" >"$RUN/format.log" 2>&1 ||
    { causes "$RUN/format.log"; die "the data folder $DATA could not be formatted: see $RUN/format.log"; }
}
# The broker takes this process over.
broker() {
  cd "$RUN"; echo $$ >"$PIDF"
  # shellcheck disable=SC2086
  exec java $JVM -Dlog4j2.configurationFile="$HERE/log4j2.properties" -cp "$LIB/*" kafka.Kafka server.properties
}
start() {
  local pid="" end=$((SECONDS+60))
  if ! alive; then
    prepare
    (trap '' HUP; exec setsid "$HERE/kafka.sh" broker >"$RUN/kafka.log" 2>&1 </dev/null) &
    pid=$!
  fi
  while ((SECONDS < end)); do
    if alive && answers; then status; return; fi
    [[ -z $pid ]] || kill -0 "$pid" 2>/dev/null || { causes "$RUN/kafka.log"; die "the broker ended at its start: see $RUN/kafka.log"; }
    sleep 0.1
  done
  die "the broker did not answer in 60 s: see $RUN/kafka.log"
}
# a killed JVM shows no command line any more while its sockets still listen: wait for the process itself (a zombie has closed its files)
gone() { [[ ! -d /proc/$1 ]] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
finish() { # signal
  alive || { rm -f "$PIDF"; return 0; }
  local p; p=$(<"$PIDF"); kill -"$1" "$p"
  for _ in $(seq 1 300); do if gone "$p"; then rm -f "$PIDF"; return 0; fi; sleep 0.1; done
  kill -9 "$p"; rm -f "$PIDF"
}
status() {
  if alive && answers; then
    echo "kafka up: pid $(<"$PIDF"), PLAINTEXT 127.0.0.1:$PORT, SASL_PLAINTEXT 127.0.0.1:$SASL, SSL 127.0.0.1:$SSL, SASL_SSL 127.0.0.1:$SASL_SSL, $(awk '/VmRSS/{print int($2/1024)}' "/proc/$(<"$PIDF")/status") MiB"
  else echo "kafka down"; return 1; fi
}
case ${1:-} in
  fetch) fetch ;;
  start) start ;;
  run) prepare; broker ;;
  broker) broker ;; # what start starts
  stop) finish TERM ;;
  kill) finish KILL ;;
  status) status ;;
  wipe) finish KILL; rm -rf "$DATA" "$RUN/tls" "$RUN"/*.log "$RUN/server.properties" ;;
  tool) shift; fetch; jk "$@" ;;
  *) sed -n 2,16p "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
