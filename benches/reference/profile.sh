#!/bin/sh
# Writes profile.txt: where the reference spends its time. A slow reference would prove nothing, so at depth 1 at least
# 90 % of it must be the kernel's.   usage: benches/reference/profile.sh > benches/reference/profile.txt
set -eu
cd "$(dirname "$0")/.."
out=out
mkdir -p $out
cc -O3 -Wall -Wextra -o $out/epoll reference/epoll.c
cc -O3 -Wall -Wextra -o $out/load load/load.c load/connection.c

echo "The bare epoll server under 100 connections, 64-byte bodies, closed loop; server and load on a core each."
echo "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(nproc) cores, Linux $(uname -r | cut -d- -f1), TCP" \
    "$(cat /proc/sys/net/ipv4/tcp_congestion_control), $(cc --version | head -1)"
for depth in 1 16 64; do
    taskset -c 0 $out/epoll >$out/port &
    server=$!
    until grep -q PORT $out/port; do sleep 0.05; done
    taskset -c 1 $out/load echo --port "$(cut -d' ' -f2 $out/port)" --pid $server --depth $depth --spin \
        --warmup 0.5 --seconds 2 >$out/load.json &
    load=$!
    sleep 0.7
    perf record -q -e cpu-clock -F 4999 -o $out/perf.data -p $server -- sleep 1.5
    wait $load
    kill $server
    printf '\n== depth %d: ' $depth
    sed 's/.*"messages":\([0-9]*\).*"server_cpu_ns":\([0-9]*\).*/\1 \2/' $out/load.json |
        awk '{ printf "%.3f us of CPU a message\n", $2 / $1 / 1000 }'
    perf report -i $out/perf.data --stdio --sort dso 2>/dev/null | grep '^ .*%' | sed 's, *$,,'
    echo "-- the first 25 functions"
    perf report -i $out/perf.data --stdio --sort dso,sym 2>/dev/null | grep '^ .*%' | sed 's, *$,,' | head -25
done
