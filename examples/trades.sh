#!/usr/bin/env bash
# Trades with curl and bash, one JSON a line: trades.sh [server] [symbol]. After a cut it goes on after the last one.
url="${1:-http://localhost:8000}/api/ws/sse/trades?symbol=${2:-BTCUSDT}"
last="" id="" name="" data=""

while true; do
    exec {events}< <(exec curl -sN --fail-with-body -H "Last-Event-ID: $last" "$url")
    curl=$!
    while IFS= read -r -t 45 line <&"$events"; do  # 45 s: three of komas's heartbeats
        line=${line%$'\r'}
        case $line in
            "id: "*) id=${line#id: } ;;
            "event: "*) name=${line#event: } ;;
            "data: "*) data=${line#data: } ;;
            "")  # the end of an event
                case $name in
                    "") [ -z "$data" ] || printf '%s\n' "$data" ;;
                    gap | lagged) printf 'missing: %s\n' "$data" >&2 ;;
                    *) printf '%s: %s\n' "$name" "$data" >&2 ;;
                esac
                last=$id name="" data=""
                ;;
            [!:]*) [[ $line == retry:* ]] || printf '%s\n' "$line" >&2 ;;  # a refusal, in the server's words
        esac
    done
    kill "$curl" 2>/dev/null
    exec {events}<&-
    name="" data=""
    sleep $((1 + RANDOM % 4))  # not all clients in the same second
done
