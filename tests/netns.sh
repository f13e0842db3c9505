#!/bin/sh
# Three nodes in three network namespaces on one switch: the cable of one is pulled while devices publish on both sides, and is plugged in again;
# then the same over a line that loses 5 % and takes 100 ms. In the end every node gives the same answers, and they are complete.
#
#   tests/netns.sh [--seconds 60] [--millpond target/debug/millpond]
#
# Needs root, iproute2 and curl. Where namespaces cannot be made it says so and ends with 0. The bad line is made by netem, or, where the
# kernel has none, by a switch in Python (slow_switch.py), which needs /dev/net/tun.
set -eu

seconds=60
millpond=${CARGO_TARGET_DIR:-target}/debug/millpond
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=$2; shift 2 ;;
        --millpond) millpond=$2; shift 2 ;;
        *) echo "usage: tests/netns.sh [--seconds N] [--millpond FILE]" >&2; exit 2 ;;
    esac
done
millpond=$(realpath "$millpond")
here=$(dirname "$(realpath "$0")")

not_here() { echo "NOT TESTED: $1"; exit 0; }
[ "$(id -u)" = 0 ] || not_here "network namespaces need root"
command -v ip >/dev/null || not_here "there is no iproute2"
command -v curl >/dev/null || not_here "there is no curl"

# Short, because the name of a network interface has 15 characters.
run=mp$$
dir=$(mktemp -d)
pids=""
clean() {
    trap - EXIT INT TERM
    for pid in $pids; do kill -9 "$pid" 2>/dev/null || :; done
    for space in lan a b c; do ip netns del "$run-$space" 2>/dev/null || :; done
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 1' INT TERM

fail() {
    echo "FAILED: $1" >&2
    for node in a b c; do echo "--- $node"; tail -n 15 "$dir/$node.log" 2>/dev/null; done >&2
    exit 1
}

inside() { space=$1; shift; ip netns exec "$run-$space" "$@"; }

ip netns add "$run-lan" 2>/dev/null || not_here "network namespaces cannot be made"
if ! inside lan ip link add switch type bridge 2>/dev/null; then not_here "the kernel has no bridge"; fi
inside lan ip link set switch up
number=0
for node in a b c; do
    number=$((number + 1))
    ip netns add "$run-$node"
    inside lan ip link add "port-$node" type veth peer name cable netns "$run-$node" || not_here "the kernel has no veth"
    inside lan ip link set "port-$node" master switch up
    inside "$node" ip link set lo up
    inside "$node" ip addr add "10.77.0.$number/24" dev cable
    inside "$node" ip link set cable up
done

cat >"$dir/edge.toml" <<'TOML'
[[windows]]
name = "ten"
size = "10s"
lateness = "10h"
idle_after = "2s"
aggregates = ["count", "sum", "min", "max"]
TOML

start() {
    node=$1 number=$2
    ip netns exec "$run-$node" "$millpond" edge --config "$dir/edge.toml" --set node.name="$node" --set node.data="$dir/$node" \
        --set mqtt.anonymous=true --set http.anonymous=true --set site.listen="10.77.0.$number:7800" \
        >"$dir/$node.out" 2>"$dir/$node.log" &
    pids="$pids $!"
    soon "$node is ready" grep -q ready "$dir/$node.out"
}

# Waits up to a minute until a command succeeds.
soon() {
    what=$1; shift
    tries=300
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "waited a minute: $what"
        sleep 0.2
    done
}

get() { inside "$1" curl -sS --max-time 30 "http://127.0.0.1:8080$2"; }
metric() { get "$1" /metrics | awk -v name="millpond_site_$2" '{ split($1, part, "{") } part[1] == name { sum += $2 } END { print sum + 0 }'; }
sees() { [ "$(metric "$1" members)" = "$2" ] && [ "$(metric "$1" links)" = $(($2 - 1)) ]; }
# Of events only some nodes keep a copy; of results all do.
complete() { ! get "$1" /metrics | grep 'millpond_site_missing_records.*results' | grep -qv ' 0$'; }

base=1760000000000
# Sends events FROM..TO of a device to a node; they are on its disk when this returns.
publish() {
    seq "$3" "$4" | awk -v device="$2" -v base=$base \
        '{ printf "{\"device\":\"%s\",\"ts\":%.0f,\"seq\":%d,\"v\":%d}\n", device, base + $1 * 50, $1, $1 % 97 }' >"$dir/body-$2"
    code=$(inside "$1" curl -sS --max-time 30 -o "$dir/answer-$2" -w '%{http_code}' -H 'content-type: application/x-ndjson' \
        --data-binary "@$dir/body-$2" http://127.0.0.1:8080/v1/telemetry) || fail "$2 could not publish to $1"
    [ "$code" = 200 ] || fail "$1 answered $2 with $code: $(cat "$dir/answer-$2")"
}

# Events of a device as a node counts them over the whole site: one that is there twice counts twice.
count() {
    get "$1" "/v1/query?device_id=$2&metric=v&start=$base&end=$((base + 40000000))&aggregate=count&step=87600h" |
        sed 's/.*\[\[[0-9.]*,\([0-9]*\).*/\1/'
}
has() { [ "$(count "$1" "$2")" = "$3" ]; }
panes() { get "$1" "/v1/windows/ten?limit=10000&start=$base&end=$((base + 40000000))"; }
in_panes() { panes "$1" | grep -o '"count":[0-9]*' | awk -F: '{ sum += $2 } END { print sum + 0 }'; }
same_panes() { [ "$(panes a)" = "$(panes b)" ] && [ "$(panes b)" = "$(panes c)" ]; }
counts_panes() { [ "$(in_panes "$1")" = "$2" ]; }

sent=0
# Pulls the cable of a, publishes on both sides for so long, plugs it in, and compares.
partition() {
    how=$1
    for node in a b c; do soon "$node sees all, $how" sees "$node" 3; done
    publish a dev-a $((sent + 1)) $((sent + 100))
    publish a roam $((sent + 1)) $((sent + 100))
    publish b dev-b $((sent + 1)) $((sent + 100))
    publish c dev-c $((sent + 1)) $((sent + 100))
    sent=$((sent + 100))
    inside lan ip link set port-a down
    begun=$(date +%s)
    soon "a is alone, $how" sees a 1
    soon "b and c are two, $how" sees b 2
    soon "b and c are two, $how" sees c 2
    noticed=$(($(date +%s) - begun))
    rounds=0
    while [ $(($(date +%s) - begun)) -lt "$seconds" ] || [ $rounds = 0 ]; do
        publish a dev-a $((sent + 1)) $((sent + 20))
        publish b dev-b $((sent + 1)) $((sent + 20))
        publish c dev-c $((sent + 1)) $((sent + 20))
        # It was at home at a, and has gone over to the others.
        publish b roam $((sent + 1)) $((sent + 20))
        sent=$((sent + 20)) rounds=$((rounds + 1))
        sleep 0.2
    done
    inside lan ip link set port-a up
    healed=$(date +%s)
    for node in a b c; do soon "$node sees all again, $how" sees "$node" 3; done
    for node in a b c; do soon "$node has everything, $how" complete "$node"; done
    one=$(($(date +%s) - healed))
    for node in a b c; do
        for device in dev-a dev-b dev-c roam; do
            soon "$node counts $sent events of $device, not $(count $node $device), $how" has "$node" "$device" "$sent"
        done
    done
    soon "all say the same panes, $how" same_panes
    echo "$how: noticed after $noticed s, $rounds rounds on both sides in $seconds s, one again after $one s, 4 x $sent events everywhere"
}

"$millpond" site init lab --node a --data "$dir/a" >/dev/null 2>&1 || fail "no site can be founded"
start a 1
number=1
for node in b c; do
    number=$((number + 1))
    token=$(inside a "$millpond" node invite --data "$dir/a" 2>/dev/null) || fail "no invitation"
    inside "$node" "$millpond" node join "$token" --name "$node" --data "$dir/$node" >/dev/null 2>"$dir/$node.log" || fail "$node cannot join"
    start "$node" $number
done

partition "a good line"

# Every frame that leaves a node waits 100 ms, and one in twenty is lost. Says by what.
netem_line() {
    for node in a b c; do
        inside "$node" tc qdisc add dev cable root netem loss 5% delay 100ms 2>/dev/null || return 1
    done
    by="netem"
}

# The same without netem: each cable goes to a bridge of its own, and between the three bridges there is a switch that is a program.
slow_switch_line() {
    command -v python3 >/dev/null || return 1
    ip netns exec "$run-lan" python3 "$here/slow_switch.py" --loss 0.05 --delay 0.1 line-a line-b line-c \
        >"$dir/switch.out" 2>"$dir/switch.log" &
    switch=$!
    pids="$pids $switch"
    tries=50
    until grep -qs ready "$dir/switch.out"; do
        tries=$((tries - 1))
        kill -0 $switch 2>/dev/null && [ $tries -gt 0 ] || { switch="" && return 1; }
        sleep 0.1
    done
    for node in a b c; do
        inside lan ip link add "behind-$node" type bridge
        inside lan ip link set "behind-$node" up
        inside lan ip link set "line-$node" master "behind-$node" up
        inside lan ip link set "port-$node" master "behind-$node"
    done
    by="slow_switch.py"
}

# A line that only says that it is bad would prove nothing.
slow() {
    get "$1" /v1/site/members | grep -o '"rtt_ms":[0-9.]*' |
        awk -F: '{ if ($2 > most) most = $2 } END { printf "%.0f\n", most; exit !(most >= 190) }' >"$dir/rtt"
}
switch_worked() {
    kill -TERM $switch
    wait $switch || fail "the switch failed: $(cat "$dir/switch.log")"
    awk '/carried/ { print "the switch: " $0; share = $4 / ($1 + $4); exit !(share > 0.03 && share < 0.07) }' "$dir/switch.out" ||
        fail "it did not lose one frame in twenty: $(cat "$dir/switch.out")"
}

switch="" by=""
if netem_line || slow_switch_line; then
    echo "a line that loses and delays, made by $by"
    partition "5 % lost, 100 ms late"
    soon "words between nodes take 200 ms there and back" slow a
    echo "the nodes measure $(cat "$dir/rtt") ms there and back"
else
    echo "NOT TESTED: a line that loses and delays, because there is neither netem nor python3 with /dev/net/tun"
fi

# An event far ahead closes every window, and the panes are complete.
for device in dev-a dev-b dev-c roam; do publish c "$device" 1000000 1000000; done
for node in a b c; do soon "the panes of $node hold $((4 * sent)) events, not $(in_panes $node)" counts_panes "$node" $((4 * sent)); done
soon "all say the same panes in the end" same_panes
if [ -n "$switch" ]; then switch_worked; fi
echo "ok: $((4 * sent)) events, in the panes of all three nodes"
