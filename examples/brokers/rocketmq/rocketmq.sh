#!/usr/bin/env bash
# One real RocketMQ 5.3.3 name server (ns) and one broker on loopback.
#   rocketmq.sh fetch   download the jars (30 s, 83 MiB)   rocketmq.sh start [ns|broker]   start what is not running, wait for the broker's route
#   rocketmq.sh stop [ns|broker]   SIGTERM                 rocketmq.sh kill [ns|broker]    SIGKILL
#   rocketmq.sh status  exit 0 when both answer            rocketmq.sh wipe   kill both and remove the store
#   rocketmq.sh run ns|broker   as start, but in the foreground: this process becomes it
#   rocketmq.sh tool ARGS...    mqadmin, e.g. tool topicList -n 127.0.0.1:9876
# Variables: RMQ_RUN (folder), RMQ_LIB (jars), RMQ_NS_PORT (9876), RMQ_PORT (10911; takes PORT-2 and PORT+1, too), RMQ_JVM (heap of the broker),
# RMQ_EXTRA (lines for broker.conf), RMQ_ACL=1: only access key rocketmq with secret key rocketmq-secret may do anything
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HOME_OF=$HERE/../../../.toolchains/brokers/rocketmq
RUN=${RMQ_RUN:-$HOME_OF/run}; LIB=${RMQ_LIB:-$HOME_OF/lib}; NS=${RMQ_NS_PORT:-9876}; PORT=${RMQ_PORT:-10911}
mkdir -p "$RUN"; RUN=$(cd "$RUN" && pwd)
JVM=${RMQ_JVM:--Xms256m -Xmx512m -XX:MaxDirectMemorySize=512m}
OPENS="--add-exports java.base/jdk.internal.ref=ALL-UNNAMED --add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED"
export ROCKETMQ_HOME=$RUN

die() { echo "rocketmq.sh: $*" >&2; exit 1; }
class() { case $1 in ns) echo org.apache.rocketmq.namesrv.NamesrvStartup ;; broker) echo org.apache.rocketmq.broker.BrokerStartup ;; *) die "$1: it is ns or broker" ;; esac; }
alive() { [[ -f $RUN/$1.pid ]] && [[ "$(tr '\0' ' ' 2>/dev/null <"/proc/$(<"$RUN/$1.pid")/cmdline")" == *$(class "$1")* ]]; }
# one remoting frame by hand: frame PORT CODE BODY prints the answer
frame() { local h="{\"code\":$2,\"language\":\"JAVA\",\"version\":0,\"opaque\":1,\"flag\":0,\"extFields\":{}}"
  # shellcheck disable=SC2016
  timeout 2 bash -c 'h=$1; n=${#h}; exec 3<>"/dev/tcp/127.0.0.1/$0"; b() { printf "\\x%02x\\x%02x\\x%02x\\x%02x" $(($1>>24&255)) $(($1>>16&255)) $(($1>>8&255)) $(($1&255)); }
    printf "$(b $((n+4+${#2})))$(b $n)" >&3; printf %s "$h$2" >&3; n=$(head -c 4 <&3 | od -An -tu4 --endian=big); head -c $n <&3 | tr -d "\0"' "$1" "$h" "$3" 2>/dev/null || true; }
# the broker is there when the name server knows it (code 106: cluster info). A broker whose registration is missed comes again after
# 10 s: set its permission to what it is (code 25), and it registers at once.
registered() { [[ "$(frame "$NS" 106 '')" == *127.0.0.1:$PORT* ]] || { frame "$PORT" 25 brokerPermission=6 >/dev/null; return 1; }; }
open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
answers() { case $1 in ns) open "$NS" ;; broker) open "$PORT" && registered ;; esac; }
rss() { awk '/VmRSS/{print int($2/1024)}' "/proc/$(<"$RUN/$1.pid")/status"; }

fetch() { "$HERE/../jars.sh" "$HERE" "$LIB"; }

config() {
  mkdir -p "$RUN/tmp" # netty leaves a key and a certificate there at each start
  printf 'listenPort=%s\nbindAddress=127.0.0.1\nkvConfigPath=%s/kvConfig.json\n' "$NS" "$RUN" >"$RUN/namesrv.conf"
  cat >"$RUN/broker.conf" <<P
brokerClusterName=TestCluster
brokerName=broker-a
brokerId=0
brokerRole=ASYNC_MASTER
flushDiskType=ASYNC_FLUSH
brokerIP1=127.0.0.1
bindAddress=127.0.0.1
listenPort=$PORT
namesrvAddr=127.0.0.1:$NS
autoCreateTopicEnable=true
autoCreateSubscriptionGroup=true
defaultTopicQueueNums=8
storePathRootDir=$RUN/store
storePathCommitLog=$RUN/store/commitlog
mappedFileSizeCommitLog=33554432
mappedFileSizeConsumeQueue=600000
maxHashSlotNum=50000
maxIndexNum=200000
timerWheelEnable=false
warmMapedFileEnable=false
transientStorePoolEnable=false
transactionTimeOut=3000
transactionCheckInterval=3000
# the broker tells the name server again every 30 s by default (10 s at least): after a name server restart there is no route until then
registerNameServerPeriod=10000
diskMaxUsedSpaceRatio=95
enablePropertyFilter=true
P
  [[ -z ${RMQ_ACL:-} ]] || cat >>"$RUN/broker.conf" <<'P'
authenticationEnabled=true
authenticationProvider=org.apache.rocketmq.auth.authentication.provider.DefaultAuthenticationProvider
authenticationMetadataProvider=org.apache.rocketmq.auth.authentication.provider.LocalAuthenticationMetadataProvider
initAuthenticationUser={"username":"rocketmq","password":"rocketmq-secret"}
innerClientAuthenticationCredentials={"accessKey":"rocketmq","secretKey":"rocketmq-secret"}
authorizationEnabled=true
authorizationProvider=org.apache.rocketmq.auth.authorization.provider.DefaultAuthorizationProvider
authorizationMetadataProvider=org.apache.rocketmq.auth.authorization.provider.LocalAuthorizationMetadataProvider
P
  printf '%s\n' "${RMQ_EXTRA:-}" >>"$RUN/broker.conf"
}

# Everything before the start of ns or broker.
prepare() {
  fetch; config
  local p ports=("$NS"); [[ $1 == ns ]] || ports=($((PORT-2)) "$PORT" $((PORT+1)))
  for p in "${ports[@]}"; do
    ! open "$p" || die "port $p is taken: stop what listens there (make brokers-status), or set RMQ_NS_PORT or RMQ_PORT"
  done
}
# What is named takes this process over.
program() {
  local mem=$JVM conf=broker.conf
  [[ $1 == broker ]] || { mem="-Xms64m -Xmx256m"; conf=namesrv.conf; }
  cd "$RUN"; echo $$ >"$RUN/$1.pid"
  # shellcheck disable=SC2086
  exec java $OPENS $mem -XX:+UseSerialGC -Duser.home="$RUN" -Djava.io.tmpdir="$RUN/tmp" -Drocketmq.broker.diskSpaceWarningLevelRatio=0.97 \
    -cp "$LIB/*" "$(class "$1")" -c "$conf"
}
launch() { # ns or broker
  local pid="" end=$((SECONDS+60))
  if ! alive "$1"; then
    prepare "$1"
    (trap '' HUP; exec setsid "$HERE/rocketmq.sh" program "$1" >"$RUN/$1.log" 2>&1 </dev/null) &
    pid=$!
  fi
  while ((SECONDS < end)); do
    if alive "$1" && answers "$1"; then return; fi
    [[ -z $pid ]] || kill -0 "$pid" 2>/dev/null || { tail -5 "$RUN/$1.log" >&2; die "$1 ended at its start: see $RUN/$1.log and $RUN/logs"; }
    sleep 0.1
  done
  die "$1 did not answer in 60 s: see $RUN/$1.log and $RUN/logs"
}
start() {
  [[ ${1:-ns} != ns ]] || launch ns
  [[ ${1:-broker} != broker ]] || launch broker
  [[ $# -gt 0 ]] || status
}
# a killed JVM shows no command line any more while its sockets still listen: wait for the process itself (a zombie has closed its files)
gone() { [[ ! -d /proc/$1 ]] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
finish() { # signal name
  alive "$2" || { rm -f "$RUN/$2.pid"; return 0; }
  local p; p=$(<"$RUN/$2.pid"); kill -"$1" "$p"
  for _ in $(seq 1 300); do if gone "$p"; then rm -f "$RUN/$2.pid"; return 0; fi; sleep 0.1; done
  kill -9 "$p"; rm -f "$RUN/$2.pid"
}
each() { local s=$1 w; shift; for w in ${1:-broker ns}; do finish "$s" "$w"; done; }
status() {
  if alive ns && answers ns && alive broker && answers broker; then
    echo "rocketmq up: name server 127.0.0.1:$NS pid $(<"$RUN/ns.pid") $(rss ns) MiB, broker 127.0.0.1:$PORT pid $(<"$RUN/broker.pid") $(rss broker) MiB"
  else echo "rocketmq down (name server $(alive ns && echo up || echo down), broker $(alive broker && echo up || echo down))"; return 1; fi
}
cmd=${1:-}; [[ $# -eq 0 ]] || shift
case $cmd in
  fetch) fetch ;;
  start) start "$@" ;;
  run) class "${1:-}" >/dev/null; prepare "$1"; program "$1" ;;
  program) program "$1" ;; # what start starts
  stop) each TERM "$@" ;;
  kill) each KILL "$@" ;;
  status) status ;;
  wipe) each KILL; rm -rf "$RUN/store" "$RUN/logs" "$RUN/tmp" "$RUN"/*.log "$RUN"/*.conf* "$RUN"/kvConfig.json* ;;
  # shellcheck disable=SC2086
  tool) fetch; java $OPENS -Duser.home="$RUN" -cp "$LIB/*" org.apache.rocketmq.tools.command.MQAdminStartup "$@" ;;
  *) sed -n 2,9p "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
