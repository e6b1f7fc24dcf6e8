#!/bin/sh
# The specification of sse, run against a real server: `make test`, or BUILD=build ./test.sh.
#
# One heading for each kind of promise, a few lines for each behaviour. Reading it needs the helpers
# below and one rule: whatever takes its time is begun in the first section and looked at in the last
# ones; all of it takes a minute and a half. Nothing sleeps to let something happen; it polls for what
# must happen.
#
#   BUILD=DIR     where unit, raw and embed were built (build); what has OpenSSL is in DIR/tls
#   SSE=FILE      the program under test (DIR/sse, or DIR/tls/sse)
#   HTTPS=1       the same over HTTPS, without what has nothing to do with that; HTTPS=0 leaves that
#                 out; if it is not set, both have their turn, at the same time
#   SANITIZED=1   it is a build with a sanitizer: memory is not measured
#   CC, CXX       what compiles the hosts in tests/ (cc, c++)
#   CI=true       a tool that is missing is a failure, not a skip
#   VERBOSE=1     also names what passed

set -u
cd "$(dirname "$0")" || exit 1
CC=${CC:-cc} CXX=${CXX:-c++}
BUILD=${BUILD:-build} SANITIZED=${SANITIZED:-} CI=${CI:-} VERBOSE=${VERBOSE:-} HTTPS=${HTTPS:-}
over_https() { [ "$HTTPS" = 1 ]; }
if over_https; then TOOLS=$BUILD/tls SSE=${SSE:-$BUILD/tls/sse} SCHEME=https
else TOOLS=$BUILD SSE=${SSE:-$BUILD/sse} SCHEME=http; fi
RAW=$TOOLS/raw
SLACK=0 # milliseconds that a sanitizer may add
BEAT='<3: Keep alive' # a keep-alive's text, as in sse.c
[ -z "$SANITIZED" ] || SLACK=4000
LC_ALL=C
export LC_ALL
passed=0 failed=0 skipped=0 section='' PORT='' URL=''
HOSTS=sse-test-$$ # network namespaces, HOSTS-a, HOSTS-b and HOSTS-p, where they can be made
tmp=$(mktemp -d "${TMPDIR:-/tmp}/sse-test.XXXXXX") || exit 1

# ---- Helpers: verdicts ---------------------------------------------------------------------------

section() { section=$1; [ -z "$VERBOSE" ] || printf '\n%s\n' "$1"; }
pass() { passed=$((passed + 1)); [ -z "$VERBOSE" ] || printf '    ok  %s\n' "$1"; }
skip() { # WHAT WHY
    skipped=$((skipped + 1))
    printf 'SKIPPED %s: %s (%s)\n' "$section" "$1" "$2"
}
fail() { # WHAT DETAIL...
    failed=$((failed + 1))
    printf 'FAILED  %s: %s\n' "$section" "$1"
    shift
    printf '        %s\n' "$@"
}
is() { # WHAT EXPECTED ACTUAL
    if [ "$2" = "$3" ]; then pass "$1"; else fail "$1" "expected: $2" "     got: $3"; fi
}
has() { # WHAT TEXT ACTUAL
    case $3 in *"$2"*) pass "$1" ;; *) fail "$1" "expected within: $2" "            got: $3" ;; esac
}
lacks() { # WHAT TEXT ACTUAL
    case $3 in *"$2"*) fail "$1" "not expected: $2" "         got: $3" ;; *) pass "$1" ;; esac
}
within() { # WHAT LEAST MOST ACTUAL
    if [ "${4:-x}" -ge "$2" ] 2>/dev/null && [ "$4" -le "$3" ]; then pass "$1"
    else fail "$1" "expected: $2 to $3" "     got: ${4:-nothing}"; fi
}
# Is the tool there? A check that needs it is skipped otherwise; in CI that is a failure.
have() { # TOOL WHAT
    if command -v "$1" >/dev/null 2>&1; then return 0; fi
    if [ "$CI" = true ]; then fail "$2" "$1 is missing"; else skip "$2" "$1 is missing"; fi
    return 1
}

# ---- Helpers: time -------------------------------------------------------------------------------

now() { "$RAW" -t; } # a monotonic clock, milliseconds
nap() { sleep 0.02 2>/dev/null || sleep 1; }

# Polls until COMMAND succeeds, for some 20 seconds at most.
await() { # COMMAND...
    _naps=0
    until "$@"; do
        _naps=$((_naps + 1))
        [ "$_naps" -lt 600 ] || return 1
        nap
    done
}
eventually() { # WHAT COMMAND...
    _what=$1
    shift
    if await "$@"; then pass "$_what"; else fail "$_what" "never came true: $*"; fi
}

# ---- Helpers: processes --------------------------------------------------------------------------
#
# Everything started has its $tmp/NAME.pid, and $tmp/NAME.exit once it has ended: only what has not
# ended is ever killed, since its number may be somebody else's by then.

end() { # NAME [SIGNAL]
    [ -e "$tmp/$1.exit" ] || kill "-${2:-TERM}" "$(cat "$tmp/$1.pid")" 2>/dev/null
}
cleanup() {
    trap '' INT TERM HUP
    for job in "$tmp"/*.pid; do
        job=${job##*/}
        [ "$job" = '*.pid' ] || end "${job%.pid}"
    done
    [ ! -e "$tmp/hosts" ] || { ip netns del "$HOSTS-a"; ip netns del "$HOSTS-b"; } 2>/dev/null
    [ ! -e "$tmp/proxied" ] || ip netns del "$HOSTS-p" 2>/dev/null
    if [ "$failed" -gt 0 ]; then echo "logs kept in $tmp"; else rm -rf "$tmp"; fi
}
trap cleanup EXIT
trap 'failed=$((failed + 1)); exit 1' INT TERM HUP

# Runs a program whose exit status can be waited for without waiting: $tmp/NAME.exit has it.
launch() { # NAME COMMAND...
    _job=$tmp/$1
    shift
    rm -f "$_job.exit" "$_job.pid"
    (
        "$@" >"$_job.out" 2>"$_job.err" &
        echo $! >"$_job.pid.new"
        mv "$_job.pid.new" "$_job.pid"
        wait $!
        echo $? >"$_job.exit.new"
        mv "$_job.exit.new" "$_job.exit"
    ) 2>/dev/null & # where the shell would tell how its child ended
    await test -s "$_job.pid"
}
ended() { # NAME: prints the exit status, once it has ended
    if await test -s "$tmp/$1.exit"; then
        cat "$tmp/$1.exit"
    else
        echo 'never ended'
    fi
}

# ---- Helpers: servers ----------------------------------------------------------------------------

ready() { grep -q '^listening on ' "$tmp/$1.out" || [ -s "$tmp/$1.exit" ]; } # NAME

# Starts a server and makes it the current one. Heartbeats are kept out of the way unless asked for.
start() { # NAME OPTIONS...
    _server=$1
    shift
    launch "$_server" "$SSE" --port 0 --heartbeat 3600 "$@"
    await ready "$_server"
    use "$_server"
    [ -n "$PORT" ] || fail "server '$_server' starts" "$(cat "$tmp/$_server.err")"
}
use() { # NAME
    PID=$(cat "$tmp/$1.pid")
    PORT=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$tmp/$1.out")
    URL=$SCHEME://127.0.0.1:$PORT
}
# Stops a server: it must exit 0 in time, and have said nothing but what it should.
stop() { # NAME [SIGNAL]
    use "$1"
    end "$1" "${2:-TERM}"
    is "server '$1' stops with status 0" 0 "$(ended "$1")"
    is "server '$1' printed its ready line and nothing else" 1 "$(grep -c '' "$tmp/$1.out")"
    is "server '$1' logged nothing out of the ordinary" '' "$(strange_lines "$1")"
}
# What is in a log beside the memory line and access lines: TIME PEER METHOD PATH STATUS
strange_lines() { # NAME
    sed -e '1{/^memory: at most [0-9]* MiB (.*)$/d;}' \
        -e '/^[0-9-]*T[0-9:]*Z [-0-9a-f.:]* [^ ]* [^ ?]* [1-5][0-9][0-9]$/d' \
        -e '/^warning: .* connections may need .* descriptors/d' \
        -e '/^warning: without --auth-secret whoever can reach /d' "$tmp/$1.err" | head -n 5
}

# ---- Helpers: requests with curl -----------------------------------------------------------------

# Prints "STATUS BODY"; the head is kept for `field`.
get() { # PATH [CURL OPTIONS...]
    _path=$1
    shift
    rm -f "$tmp/body" "$tmp/head"
    printf '%s ' "$(curl -qsg --noproxy '*' --path-as-is -m 20 -o "$tmp/body" -D "$tmp/head" \
        -w '%{http_code}' "$@" "$URL$_path")"
    [ ! -f "$tmp/body" ] || cat "$tmp/body"
}
post() { # PATH BODY [CURL OPTIONS...]
    _where=$1 _text=$2
    shift 2
    get "$_where" --data-binary "$_text" "$@"
}
status() { get "$@" | sed -n '1s/ .*//p'; }
field() { # NAME: of the last answer
    tr -d '\r' <"$tmp/head" | grep -i "^$1:" | sed 's/^[^:]*: *//'
}
problem() { # WHAT STATUS TITLE PATH [CURL OPTIONS...]: a problem document with a detail
    _what=$1 _code=$2 _title=$3
    shift 3
    is "$_what" "$_code {\"title\":\"$_title\",\"status\":$_code,\"detail\":\"…\"}" \
        "$(get "$@" | sed 's/"detail":"[^"][^"]*"/"detail":"…"/')"
    is "$_what: problem+json" application/problem+json "$(field content-type)"
}
health() { # NAME: a number that /health tells
    get /health | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"
}
health_is() { [ "$(health "$1")" = "$2" ]; }
status_is() { # USER CONNECTED|DISCONNECTED STREAMS
    case $(get "/sse/status/$1") in *"\"status\":\"$2\",\"streams\":$3,"*) return 0 ;; esac
    return 1
}

# ---- Helpers: streams ----------------------------------------------------------------------------

# Opens a stream, which is written to $tmp/NAME.out, and waits for its greeting.
open() { # NAME PATH [CURL OPTIONS...]
    _stream=$1 _path=$2
    shift 2
    launch "$_stream" curl -qsgN --noproxy '*' --path-as-is -m 100 "$@" "$URL/sse/connect/$_path"
    await saw "$_stream" "$BEAT" || fail "stream '$_stream' opens" "$(cat "$tmp/$_stream.out")"
}
saw() { grep -q -e "$2" "$tmp/$1.out"; }   # NAME PATTERN
count() { grep -c -e "$2" "$tmp/$1.out"; } # NAME PATTERN
over() { [ -s "$tmp/$1.exit" ]; }          # NAME: has the stream ended?
hang_up() {                                # NAME
    end "$1"
    ended "$1" >/dev/null
}
# The stream's text on one line, without what is different every time.
told() { sed -e 's/^id: [0-9a-f]*-/id: E-/' "$tmp/$1.out" | tr -d '\r' | tr '\n' '|'; } # NAME
# The same without the greeting and its keep-alive.
news() { told "$1" | sed "s/retry: [0-9]*|id: E-[0-9]*|data: User '.*' connected||data: $BEAT||//"; } # NAME
last_id() { sed -n 's/^id: //p' "$tmp/$1.out" | tail -n 1; } # NAME

# ---- Helpers: requests byte by byte --------------------------------------------------------------

H='Host: localhost\r\n'
GET="GET /health HTTP/1.1\r\n$H"
LAST="GET /health HTTP/1.1\r\n${H}Connection: close\r\n\r\n"

raw() { "$RAW" "$PORT" "$@" 2>>"$tmp/raw.err"; }
# The statuses of all answers, and whether the server closed properly.
answers() { # STEP...
    raw "$@" eof >"$tmp/answer"
    _end=$?
    sed -n 's/^.*HTTP\/1\.1 \([0-9][0-9][0-9]\) .*/\1/p' "$tmp/answer" | tr '\n' ' '
    case $_end in 0) echo closed ;; 3) echo open ;; *) echo "raw ended with $_end" ;; esac
}
next_served() {
    [ "$(raw "send:$LAST" eof | grep -c '^HTTP/1.1 200 ')" = 1 ] || echo ', the next is not served'
}
# This input gets that status in a problem document, then a close; and the next client is served.
refused() { # STATUS WHAT STEP...
    _code=$1 _what=$2
    shift 2
    _got=$(answers "$@")
    grep -q 'Content-Type: application/problem+json' "$tmp/answer" || _got="$_got, no problem+json"
    grep -q "\"status\":$_code,\"detail\":\"." "$tmp/answer" || _got="$_got, no detail"
    grep -q 'Connection: close' "$tmp/answer" || _got="$_got, no Connection: close"
    is "$_what" "$_code closed" "$_got$(next_served)"
}
# These bytes get these statuses, the last with a close, and the next client is served.
accepted() { # STATUSES WHAT STEP...
    _codes=$1 _what=$2
    shift 2
    is "$_what" "$_codes closed" "$(answers "$@")$(next_served)"
}

grep -qF "#define KEEP_ALIVE_TEXT \"$BEAT\"" sse.c || { echo "sse.c has another keep-alive: change BEAT here, too"; exit 1; }
for tool in curl sed grep awk; do
    command -v $tool >/dev/null 2>&1 || { echo "test.sh needs $tool"; exit 1; }
done
for program in "$SSE" "$RAW"; do
    [ -x "$program" ] || { echo "$program is not built; run: make test"; failed=1; exit 1; }
done

# A certificate, which curl is told to trust, and the program with it.
certificate() { # NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
        -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1,IP:10.99.0.1' \
        -keyout "$tmp/$1-key.pem" -out "$tmp/$1.pem" 2>"$tmp/openssl.err"
}
if over_https; then
    certificate first || { cat "$tmp/openssl.err"; failed=1; exit 1; }
    export CURL_CA_BUNDLE="$tmp/first.pem"
    case $SSE in /*) ;; *) SSE=$PWD/$SSE ;; esac
    BARE=$SSE SSE=$tmp/sse
    printf '#!/bin/sh\nexec "%s" --cert "%s" --key "%s" "$@"\n' "$BARE" "$tmp/first.pem" "$tmp/first-key.pem" >"$SSE"
    chmod +x "$SSE"
fi
is_linux() { [ "$(uname)" = Linux ] && [ -r /proc/self/status ]; }
linux_from() { # MAJOR MINOR
    uname -sr | awk -v major="$1" -v minor="$2" \
        '{ split($2, n, "."); exit !($1 == "Linux" && (n[1] > major || (n[1] == major && n[2] >= minor))) }'
}

# ==== What takes its time, begun here =============================================================

section 'Begun early'
[ -n "$HTTPS" ] || echo 'This takes a minute and a half; what fails or is skipped is told.'
if [ -z "$HTTPS" ] && [ -x "$BUILD/tls/sse" ]; then
    launch https env HTTPS=1 ./test.sh
fi
launch unit "$TOOLS/unit"
launch embed "$TOOLS/embed"

# What is installed, from a copy of the sources: it must not take the place of a ./sse that is here.
installs() { ! over_https && [ -z "$SANITIZED" ]; }
made() { # MAKE-ARGUMENTS...: there, and without what this make was told
    (
        unset MAKEFLAGS MFLAGS MAKELEVEL MANDIR UNITDIR
        make -C "$tmp/tree" BUILD=build "$@"
    )
}
DEST=$tmp/'a root'
if installs; then
    mkdir "$tmp/tree"
    cp -R sse.c Makefile packaging "$tmp/tree"
    launch installed made install DESTDIR="$DEST" PREFIX=/opt/sse
    ! command -v musl-gcc >/dev/null || launch static-build made static
fi

# The two demo tasks at full pace, with GET and with POST, on a server of their own.
start demo --quiet
for method in GET POST; do
    for task in task task-with-obj; do
        open "$task-$method" "$task-$method"
        launch "$task-$method-answer" curl -qs --noproxy '*' -m 60 -X $method \
            -w '%{http_code} %{time_total}' "$URL/sse/$task/$task-$method"
    done
done

# Connections that are left alone, and an answer that nobody takes.
launch idle-after "$RAW" "$PORT" patience:90000 "send:${GET}\r\n" 'wait:}\n' eof clock
launch idle-before "$RAW" "$PORT" patience:90000 eof clock
! over_https || launch idle-rekeyed "$RAW" "$PORT" patience:150000 "send:${GET}\r\n" 'wait:}\n' \
    quiet:40000 keyupdate:1 eof clock
launch untaken "$RAW" "$PORT" patience:90000 rcvbuf:4096 deaf "repeat:400000:${GET}\r\n" clock

# Heads and bodies that never end.
start slow
POST_HEAD="POST /sse/send/slow HTTP/1.1\r\n$H"
slow() { # NAME STEP...
    _name=$1
    shift
    launch "$_name" "$RAW" "$PORT" patience:50000 "$@" eof clock
}
slow slow-head "send:GET /health HT"
slow slow-fields "send:${GET}X: y\r\n"
slow slow-drip "drip:400:${GET}X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
slow slow-second "send:${GET}\r\n" 'wait:HTTP/1.1 200' 'wait:\r\n\r\n' 'send:G'
if over_https; then
    launch no-handshake "$RAW" -p "$PORT" patience:50000 eof clock
    launch half-handshake "$RAW" -p "$PORT" patience:50000 'drip:1000:\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaa' eof clock
fi
slow slow-moved "send:${GET}\r\nGET /a?SECRET HTTP/1.1\r\n${H}Authorization: Bearer SECRET\r\nX: SECRET"
slow slow-body "send:${POST_HEAD}Content-Length: 10\r\n\r\n12345"
slow slow-chunks "send:${POST_HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"
slow slow-drip-body "send:${POST_HEAD}Content-Length: 100\r\n\r\n" \
    'drip:500:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'

# A reader that reads nothing for many heartbeats, though its history would hold everything.
start paused --max-users 4 --heartbeat 1 --history 1000 --history-bytes 20000000
launch paused-reader "$RAW" "$PORT" patience:600000 rcvbuf:65536 \
    "send:GET /sse/connect/paused HTTP/1.1\r\n$H\r\n" "wait:$BEAT" "touch:$tmp/deaf" \
    "until:$tmp/reads-again" 'wait:the last one'
launch full-window "$RAW" "$PORT" patience:600000 rcvbuf:2048 \
    "send:GET /sse/connect/window HTTP/1.1\r\n$H\r\n" "wait:$BEAT" "touch:$tmp/deaf-too" \
    "until:$tmp/reads-again" 'wait:the last one'
await test -e "$tmp/deaf-too"
head -c 20000 /dev/zero | tr '\0' x >"$tmp/20000"
post /sse/send/window "@$tmp/20000" >/dev/null
post /sse/send/window "@$tmp/20000" >/dev/null
await test -e "$tmp/deaf"
head -c 60000 /dev/zero | tr '\0' x >"$tmp/60000"
n=0
while [ "$n" -lt 100 ]; do
    n=$((n + 1))
    printf 'next\nurl = %s/sse/send/paused\ndata-binary = @%s\nsilent\n' "$URL" "$tmp/60000"
done | sed 1d >"$tmp/flood"
curl -q --noproxy '*' -m 60 -K "$tmp/flood" >/dev/null 2>&1
post /sse/send/paused 'the last one' >"$tmp/last-receipt"

# A peer that vanishes without a word: a client on a host of its own, which loses its address.
two_hosts() {
    touch "$tmp/hosts"
    ip netns add "$HOSTS-a" && ip netns add "$HOSTS-b" &&
        ip link add sse-a netns "$HOSTS-a" type veth peer name sse-b netns "$HOSTS-b" &&
        ip -n "$HOSTS-a" addr add 10.99.0.1/24 dev sse-a &&
        ip -n "$HOSTS-b" addr add 10.99.0.2/24 dev sse-b &&
        ip -n "$HOSTS-a" link set lo up && ip -n "$HOSTS-a" link set sse-a up &&
        ip -n "$HOSTS-b" link set sse-b up
}
vanishing() { # URL USER
    ip netns exec "$HOSTS-a" curl -qs --noproxy '*' -m 5 "$1/sse/status/$2" | grep -q '"status":"Connected"'
}
vanished() { ! vanishing "$@"; }
window_closed() { # is the server's kernel asking the stuffed client in vain for room?
    ip netns exec "$HOSTS-a" ss -tin state established | grep -q 'backoff:[6-9]'
}
if command -v ip >/dev/null && two_hosts >"$tmp/hosts.err" 2>&1; then
    launch vanish ip netns exec "$HOSTS-a" "$SSE" --port 0 --bind 10.99.0.1 --heartbeat 2 --max-users 4 \
        --history-bytes 30000000
    await ready vanish
    use vanish
    launch ghost ip netns exec "$HOSTS-b" curl -qsN --noproxy '*' -m 100 "$SCHEME://10.99.0.1:$PORT/sse/connect/ghost"
    await saw ghost "$BEAT"
    launch stuffed ip netns exec "$HOSTS-b" curl -qsN --noproxy '*' -m 100 --limit-rate 1 \
        "$SCHEME://10.99.0.1:$PORT/sse/connect/stuffed"
    (
        at=$SCHEME://10.99.0.1:$PORT
        await vanishing "$at" stuffed
        head -c 60000 /dev/zero | tr '\0' x >"$tmp/stuffing"
        until grep -q '"delivered":0' "$tmp/stuffed.receipt" 2>/dev/null; do
            ip netns exec "$HOSTS-a" curl -qs --noproxy '*' -m 10 --data-binary "@$tmp/stuffing" \
                -o "$tmp/stuffed.receipt" "$at/sse/send/stuffed" || break
        done
        await window_closed
        ip -n "$HOSTS-b" addr del 10.99.0.2/24 dev sse-b
        began=$(now)
        await vanished "$at" ghost
        echo $(($(now) - began)) >"$tmp/vanish.took"
        await vanished "$at" stuffed
        echo $(($(now) - began)) >"$tmp/stuffed.took"
    ) &
fi

# Stopping while requests are half received.
start stopping-slowly
launch half-received "$RAW" "$PORT" patience:50000 crowd:3:GET \
    "send:${POST_HEAD}Content-Length: 10\r\n\r\n12" "touch:$tmp/half" eof
await test -e "$tmp/half"
await health_is connections 5
(
    began=$(now)
    kill -TERM "$PID"
    await test -s "$tmp/stopping-slowly.exit"
    echo $(($(now) - began)) >"$tmp/stopping-slowly.took"
) &

# ==== Command line ================================================================================

section 'Command line'
start main --retry 1234
is 'the ready line is all of stdout' "listening on $URL" "$(cat "$tmp/main.out")"
has 'the first line of the log tells the memory' 'memory: at most ' "$(head -n 1 "$tmp/main.err")"
is 'and how it adds up' 1 \
    "$(grep -c '^memory: at most [0-9]* MiB (1024 users x [0-9.]* KiB, 1040 connections x [0-9.]* KiB, 1024 threads x ' "$tmp/main.err")"
is 'an access line has time, peer, method, path and status' 1 "$(
    get '/health?token=secret' >/dev/null
    grep -c '^20[0-9-]*T[0-9:]*Z 127.0.0.1 GET /health 200$' "$tmp/main.err"
)"
lacks 'and never a query' secret "$(cat "$tmp/main.err")"
for what in '' ' HTTP/1.1' ' HTTP/3.0\r\n' ' HTTP/1.1\r\nHost: a b\r\n' ' HTTP/1.1\r\nX : y\r\n'; do
    raw patience:50 "send:GET /health?secret$what\r\n\r\n" eof >/dev/null
done
get '/health%3Faccess_token=secret' >/dev/null
get '/health;access_token=secret' >/dev/null
eventually 'what cannot be read is logged' grep -q ' - - 505$' "$tmp/main.err"
get '/health%3FACCESS%5FTOKEN=secret' >/dev/null
lacks 'without its query either' secret "$(cat "$tmp/main.err")"
has 'nor is one whose mark was escaped' '/health... 404' "$(cat "$tmp/main.err")"

brief() { # OPTIONS...: prints "STATUS LINES-ON-STDERR", and keeps both outputs
    launch brief "$SSE" "$@"
    _status=$(ended brief)
    [ "$_status" != 'never ended' ] || end brief
    echo "$_status $(grep -c '' "$tmp/brief.err")"
}
is '--help exits 0' '0 0' "$(brief --help)"
for option in '-p, --port N' '-b, --bind ADDR' '--max-users N' '--max-connections N' \
    '--max-streams N' '--history N' '--history-bytes BYTES' '--max-message BYTES' \
    '--heartbeat SECONDS' '--heartbeat-as ' '--greeting-as ' '--retry MS' '--cors ORIGIN' '--cert FILE' '--key FILE' \
    '--auth-secret FILE' '--no-demo' '-q, --quiet' '-V, --version' '-h, --help'; do
    is "--help lists $option" 1 "$(grep -c -e "^ .*$option" "$tmp/brief.out")"
done
for default in port:8080 bind:127.0.0.1 max-users:1024 max-connections:1024 max-streams:16 \
    history:64 history-bytes:131072 max-message:65536 heartbeat:5 heartbeat-as:message greeting-as:message retry:2000; do
    is "--help tells the default of --${default%%:*}" 1 \
        "$(grep -c -e "--${default%%:*} .*(${default#*:})$" "$tmp/brief.out")"
done
is 'the README shows it as it is' "$(cat "$tmp/brief.out")" "$(sed -n '/^Usage: sse/,/^```/p' README.md | sed '$d')"
is '-h is --help' '0 0' "$(brief -h)"
if [ -c /dev/full ]; then
    for option in --help --version '--port=0'; do
        launch full-disk sh -c 'exec "$@" >/dev/full' sh "$SSE" $option
        is "$option to a full disk: status 1" 1 "$(ended full-disk)"
    done
else
    skip 'output to a full disk: status 1' 'there is no /dev/full'
fi
is '--version exits 0' '0 0' "$(brief --version)"
is 'and names the version' 1 "$(grep -c '^sse [0-9.]*$' "$tmp/brief.out")"
is '-V is --version' '0 0' "$(brief -V)"

bad() { # MUST-SAY OPTIONS...: bad usage, told in one line
    _says=$1
    shift
    is "bad usage: $*" '2 1' "$(brief "$@")"
    has "$* is told what is right" "$_says" "$(cat "$tmp/brief.err")"
    is "$* prints nothing on stdout" '' "$(cat "$tmp/brief.out")"
}
for option in port:65535 max-users: max-connections: max-streams: history: history-bytes: \
    max-message: heartbeat:3600 retry:; do
    name=${option%%:*}
    bad "--$name takes a number" "--$name" x
    has "--$name tells its range" "to ${option#*:}" "$(cat "$tmp/brief.err")"
done
for value in -1 1.5 '' ' 80' 80x 65536 99999999999999999999; do bad '--port takes' --port "$value"; done
for value in 0 3601; do bad 'from 1 to 3600' "--heartbeat=$value"; done
for name in max-users max-connections max-streams history history-bytes max-message; do
    bad "--$name takes" "--$name=0"
done
bad '--port takes' -p
bad '--port takes' -px
bad '--port takes' -qpx
bad '--retry takes' --retry
bad '--bind takes an IPv4 or IPv6 address' --bind localhost
bad '--bind takes' --bind=
bad '--bind takes' -b 1.2.3.4.5
bad '--heartbeat-as takes message or comment' --heartbeat-as both
bad '--greeting-as takes message or event' --greeting-as=comment
for value in '' example.com http:// 'http://a b' http://a/path http://a:b ://a '*.com' null 1http://a +://a 'http://*.a.com'; do
    bad '--cors takes an origin' --cors "$value"
done
for name in no-demo quiet version help; do bad "--$name takes no value" "--$name=1"; done
bad '--nonsense' --nonsense
bad '-x' -x
bad extra extra
bad "'--'" --
if ! over_https && [ "$("$SSE" --cert '' --key x 2>&1)" = 'sse: --cert needs a build with OpenSSL: make TLS=1' ]; then
    for name in cert key auth-secret; do
        bad "--$name" "--$name" /dev/null
        has "--$name says how to build with OpenSSL" 'make TLS=1' "$(cat "$tmp/brief.err")"
    done
fi

is 'a port that is taken: status 1' '1 1' "$(brief --port "$PORT")"
has 'and it says which' "$PORT" "$(cat "$tmp/brief.err")"
is 'an address that is not ours: status 1' '1 1' "$(brief --port 0 --bind 192.0.2.1)"
if [ -n "$SANITIZED" ]; then
    skip 'more memory than there is' 'a sanitizer has its own way to say so'
else
    is 'more memory than there is: status 1' '1 1' \
        "$(brief --port 0 --max-users 1000000 --history-bytes 1073741824)"
    has 'and how much that is' 'these limits take up to 10' "$(cat "$tmp/brief.err")"
    has 'made of what' 'MiB (1000000 users x 1' "$(cat "$tmp/brief.err")"
fi
starved() { # DESCRIPTORS: a server that may have no more
    # shellcheck disable=SC2016 # it is that shell that expands
    launch starved sh -c 'ulimit -n "$1"; shift; exec "$@"' sh "$1" "$SSE" --port 0
    echo "$(ended starved) $(sed -e 's/: Too many open files$//' -e 's/: No file descriptors available$//' "$tmp/starved.err")"
}
if [ -z "$SANITIZED" ] && ! over_https; then
    is 'no descriptor for a pipe' '1 sse: cannot make a pipe or poller' "$(starved 4)"
    _said=$(starved 5)
    case $_said in *poller*) _said=$(starved 6) ;; esac # epoll takes one, poll() none
    is 'none for a socket: it says which address was asked for' '1 sse: cannot listen on 127.0.0.1 port 0' "$_said"
fi

start forms --max-users=7 -qp0 --max-connections 9 --no-demo --bind=0.0.0.0
has '--name=value, --name value and -qp0 are all understood' '(7 users x ' "$(cat "$tmp/forms.err")"
has 'the ready line names the address' "$SCHEME://0.0.0.0:" "$(cat "$tmp/forms.out")"
is 'it serves there' 200 "$(status /health)"
problem '--no-demo leaves out the task route' 404 'Not Found' /sse/task/alice
is '--no-demo leaves out task-with-obj' 404 "$(status /sse/task-with-obj/alice)"
is 'under -q there are the memory line and the warning that everyone may come, and nothing else' '2 1' \
    "$(grep -c '' "$tmp/forms.err") $(grep -c '^warning: without --auth-secret whoever can reach 0.0.0.0 may ' "$tmp/forms.err")"
has 'which is still told' 'memory: at most ' "$(cat "$tmp/forms.err")"
stop forms

launch v6 "$SSE" --port=0 -b ::1
await ready v6
if [ -s "$tmp/v6.exit" ]; then
    skip 'IPv6' 'this machine has none'
else
    use v6
    is 'an IPv6 address stands in brackets' "listening on $SCHEME://[::1]:$PORT" "$(cat "$tmp/v6.out")"
    is 'it serves over IPv6' 1 "$("$RAW" -6 "$PORT" "send:$LAST" eof | grep -c '^HTTP/1.1 200 ')"
    is 'and logs the peer' 1 "$(grep -c ' ::1 GET /health 200$' "$tmp/v6.err")"
    URL="$SCHEME://[::1]:$PORT"
    is 'its own address is no foreign host' 404 "$(status /sse/status/nobody)"
    stop v6
fi

# ==== Routes ======================================================================================

section 'Routes'
use main
is 'nobody is known at first' '200 {"users":[]}' "$(get /sse/users)"
has 'health tells the server is up' '200 {"status":"ok"' "$(get /health)"
is 'answers are JSON' application/json "$(field content-type)"
is 'and are not cached' no-store "$(field cache-control)"

problem 'status of a user never seen' 404 'Not Found' /sse/status/alice
problem 'disconnect of a user never seen' 404 'Not Found' /sse/disconnect/alice
open alice alice
is 'connect opens a stream' 1 "$(count alice "data: User 'alice' connected")"
is 'status tells Connected' '200 {"user":"alice","status":"Connected","streams":1,"queued":0}' \
    "$(get /sse/status/alice)"
has 'send gives a receipt' '"user":"alice","status":"Connected","streams":1,"delivered":1}' \
    "$(post /sse/send/alice hello)"
has 'with status 202 and the id' '202 {"id":"' "$(post '/sse/send/alice?event=news' 'hello again')"
id=$(sed 's/.*"id":"\([^"]*\)".*/\1/' "$tmp/body")
eventually 'the message arrives' saw alice 'hello again'
is 'and has the id of the receipt' "$id" "$(last_id alice)"
is 'disconnect closes the streams' '200 {"user":"alice","status":"Disconnected"}' \
    "$(get /sse/disconnect/alice)"
eventually 'the stream ends' over alice
is 'messages came in their form, then the farewell' \
    'id: E-1|data: hello||id: E-2|event: news|data: hello again||event: disconnected|data: User '\''alice'\'' disconnected||' \
    "$(news alice)"
is 'status tells Disconnected' '200 {"user":"alice","status":"Disconnected","streams":0,"queued":0}' \
    "$(get /sse/status/alice)"
is 'disconnect of a user who is away is no error' '200 {"user":"alice","status":"Disconnected"}' \
    "$(post /sse/disconnect/alice '')"

has 'send adds a user never seen' '"user":"bob","status":"Disconnected","streams":0,"delivered":0}' \
    "$(post /sse/send/bob 'for later')"
is 'for whom the message waits' '200 {"user":"bob","status":"Disconnected","streams":0,"queued":1}' \
    "$(get /sse/status/bob)"
open alice1 alice
open alice2 alice
is 'broadcast reaches every known user' '202 {"users":2,"streams":2,"delivered":2}' \
    "$(post '/sse/broadcast?event=all' 'to all')"
eventually 'every stream of them' saw alice1 'to all'
eventually 'and the other' saw alice2 'to all'
is 'users lists them all' \
    '200 {"users":[{"user":"alice","status":"Connected","streams":2,"queued":0},{"user":"bob","status":"Disconnected","streams":0,"queued":2}]}' \
    "$(get /sse/users)"

section 'Routes: hold'
is 'disconnect with hold, by POST' 200 "$(status '/sse/disconnect/alice?hold=600' -X POST)"
eventually 'closes all streams' over alice1
eventually 'and the other too' over alice2
is 'connects are answered 204 meanwhile' '204 ' "$(get /sse/connect/alice)"
is 'which has no body and no type' '' "$(field content-type)$(field content-length)"
is 'HEAD of connect tells the same' '204' "$(status /sse/connect/alice -I)"
is 'messages are still taken' 202 "$(status /sse/send/alice -d x)"
open carol carol
is 'another user is not held' 1 "$(count carol "data: User 'carol' connected")"
is 'hold=0 lifts it' 200 "$(status '/sse/disconnect/alice?hold=0')"
open alice3 alice
is 'and connects are served' 1 "$(count alice3 "data: User 'alice' connected")"
is 'hold again' 200 "$(status '/sse/disconnect/alice?hold=86400')"
is 'held' 204 "$(status /sse/connect/alice)"
is 'the latest disconnect decides: without hold it lifts' 200 "$(status /sse/disconnect/alice)"
open alice4 alice
is 'a short hold' 200 "$(status '/sse/disconnect/alice?hold=1')"
held_out() { [ "$(status /sse/connect/alice -I)" = 200 ]; }
eventually 'runs out by itself' held_out
for hold in -1 86401 x 1.5 '%201' 99999999999999999999 0x1; do
    problem "hold=$hold" 400 'Bad Request' "/sse/disconnect/alice?hold=$hold"
done
is 'hold= counts as absent' 200 "$(status '/sse/disconnect/alice?hold=')"
hang_up carol

section 'Routes: the farewell'
start short-history --history 1
for n in 1 2 3 4 5 6 7 8; do open "leaver$n" leaver; done
send="POST /sse/send/leaver HTTP/1.1\r\n${H}Content-Length: 1\r\n\r\nx"
is 'whatever is sent right after a disconnect' '200 202 202 202 202 200 closed' \
    "$(answers "send:GET /sse/disconnect/leaver HTTP/1.1\r\n$H\r\n$send$send$send$send$LAST")"
for n in 1 2 3 4 5 6 7 8; do
    is 'a stream ends with its farewell' '0 1' \
        "$(ended "leaver$n") $(count "leaver$n" '^event: disconnected')"
done
stop short-history
use main

section 'Routes: HEAD, OPTIONS, methods'
for path in /health /sse/users /sse/status/bob /sse/disconnect/bob; do
    get_length=$(get "$path" >/dev/null; field content-length)
    is "HEAD $path is GET without its body" "200 $get_length" "$(status "$path" -I) $(field content-length)"
done
is 'HEAD of connect has the fields of a stream' '200 text/event-stream no-cache, no-transform no' \
    "$(status /sse/connect/dave -I) $(field content-type) $(field cache-control) $(field x-accel-buffering)"
is 'but opens none, and adds no user' 404 "$(status /sse/status/dave)"
open dave dave
is 'HEAD of disconnect' 200 "$(status '/sse/disconnect/dave?hold=60' -I)"
is 'disconnects nobody' '200 {"user":"dave","status":"Connected","streams":1,"queued":0}' \
    "$(get /sse/status/dave)"
is 'HEAD of a task' 200 "$(status /sse/task/erin -I)"
is 'HEAD of task-with-obj' 200 "$(status /sse/task-with-obj/erin -I)"
is 'runs none' 404 "$(status /sse/status/erin)"
accepted '404 200' 'the answer to HEAD of an error has no body either' "send:HEAD /nowhere HTTP/1.1\r\n$H\r\n$LAST"
hang_up dave

methods() { # ALLOWED PATH
    is "OPTIONS $2" "204 $1" "$(status "$2" -X OPTIONS) $(field allow)"
    is "OPTIONS $2 has no body" '' "$(cat "$tmp/body" 2>/dev/null)"
    is "DELETE $2" "405 $1" "$(status "$2" -X DELETE) $(field allow)"
}
methods 'GET, HEAD, OPTIONS' /sse/connect/alice
methods 'GET, HEAD, POST, OPTIONS' /sse/disconnect/alice
methods 'GET, HEAD, POST, OPTIONS' /sse/task/alice
methods 'GET, HEAD, POST, OPTIONS' /sse/task-with-obj/alice
methods 'POST, OPTIONS' /sse/send/alice
methods 'POST, OPTIONS' /sse/broadcast
methods 'GET, HEAD, OPTIONS' /sse/status/alice
methods 'GET, HEAD, OPTIONS' /sse/users
methods 'GET, HEAD, OPTIONS' /health
methods 'GET, HEAD, OPTIONS' /metrics
methods 'GET, HEAD, OPTIONS' /openapi.json
methods 'GET, HEAD, OPTIONS' /
is 'OPTIONS * speaks for the server' '204 GET, HEAD, POST, OPTIONS' \
    "$(status '' -X OPTIONS --request-target '*') $(field allow)"
problem 'GET of send' 405 'Method Not Allowed' /sse/send/alice
is 'HEAD of send' 405 "$(status /sse/send/alice -I)"
is 'POST of connect' 405 "$(status /sse/connect/alice -d x)"
is 'methods are case-sensitive' 405 "$(status /health -X get)"
for path in /nowhere /sse /sse/ /sse/connect /sse/connect/a/b /sse/sendx/a /SSE/users /health/ /sse/users/; do
    problem "$path" 404 'Not Found' "$path"
done
is 'OPTIONS of an unknown path' 404 "$(status /nowhere -X OPTIONS)"

# ==== Metrics, description, page ==================================================================

section 'Metrics'
metric() { # NAME[{LABELS}]: its value
    get /metrics | awk -v name="$1" '{ value = $NF; sub(/ [^ ]*$/, "") } $0 == name { print value }'
}
metric_is() { [ "$(metric "$1")" = "$2" ]; }
stand='' stood=0
stands() { # METRIC: for a while no more answers are written: the sockets are full
    _stand=$stand
    stand=$(metric "$1")
    if [ "${stand:-0}" -gt 100 ] && [ "$stand" = "$_stand" ]; then stood=$((stood + 1)); else stood=0; fi
    [ "$stood" -ge 20 ] && stood=0
}
start counted --max-users 2 --max-streams 1 --history 2
has 'text for Prometheus' '200 # HELP sse_users ' "$(get /metrics)"
is 'of its type' 'text/plain; version=0.0.4; charset=utf-8' "$(field content-type)"
is 'every number has its help and its type before it' '' "$(awk '
    /^# HELP / { help[$3]++ }
    /^# TYPE / { type[$3]++; kind[$3] = $4 }
    !/^#/ {
        name = $1; sub(/{.*/, "", name); family = name
        if (!(family in type)) sub(/_(bucket|sum|count)$/, "", family)
        if (help[family] != 1 || type[family] != 1) print "no help or type: " name
        if (kind[family] == "counter" && family !~ /_total$/) print "no _total: " name
        if ($NF !~ /^[0-9]+(\.[0-9]+)?$/) print "no number: " $0
    }' "$tmp/body")"
for name in sse_streams sse_messages_total sse_message_bytes_total sse_deliveries_total sse_stream_bytes_total \
    sse_streams_opened_total sse_replays_total sse_replayed_messages_total sse_gaps_total \
    sse_missed_messages_total sse_slow_streams_closed_total sse_delivery_duration_seconds_count \
    sse_evictions_total 'sse_users{state="connected"}' 'sse_users{state="disconnected"}' \
    'sse_refusals_total{reason="malformed"}' 'sse_refusals_total{reason="max_connections"}'; do
    is "$name begins at 0" 0 "$(metric "$name")"
done
for n in 1 2 3; do post /sse/send/m "héllo$n" >/dev/null; done
is 'messages' '3 21' "$(metric sse_messages_total) $(metric sse_message_bytes_total)"
is 'users by state' '0 1' "$(metric 'sse_users{state="connected"}') $(metric 'sse_users{state="disconnected"}')"
open m m -i
is 'a stream, and what was lost before it' '1 1 1 1' \
    "$(metric sse_streams) $(metric sse_streams_opened_total) $(metric sse_gaps_total) $(metric sse_missed_messages_total)"
is 'what it found waiting is delivered, and has no time' '2 0' \
    "$(metric sse_deliveries_total) $(metric sse_delivery_duration_seconds_count)"
post /sse/send/m live >/dev/null
await saw m live
is 'what comes live has one' '3 1 1' "$(metric sse_deliveries_total) $(metric sse_delivery_duration_seconds_count) $(
    metric 'sse_delivery_duration_seconds_bucket{le="+Inf"}')"
buckets() { awk '/^sse_delivery_duration_seconds_bucket/ { if ($NF < last) bad = 1; last = $NF } END { print last, bad + 0 }' "$tmp/body"; }
get /metrics >/dev/null
is 'and is counted in all buckets above it' '1 0' "$(buckets)"
is 'bytes of a stream: as many as its client got, head and all' "$(wc -c <"$tmp/m.out")" "$(metric sse_stream_bytes_total)"
is 'one stream too many' 429 "$(status /sse/connect/m)"
is 'is refused' 1 "$(metric 'sse_refusals_total{reason="max_streams"}')"
seen=$(last_id m)
hang_up m
eventually 'its client left' status_is m Disconnected 0
post /sse/send/m missed >/dev/null
open m m -H "Last-Event-ID: $seen"
is 'a stream that is resumed' '1 1 4' \
    "$(metric sse_replays_total) $(metric sse_replayed_messages_total) $(metric sse_deliveries_total)"
open n n
is 'a full table' 503 "$(status /sse/send/o -d x)"
is 'is a reason' 1 "$(metric 'sse_refusals_total{reason="max_users"}')"
hang_up n
eventually 'a user who left' status_is n Disconnected 0
is 'makes room' '202 1' "$(status /sse/send/o -d x) $(metric sse_evictions_total)"
is 'a slot counts on under its next user' 6 "$(metric sse_messages_total)"
is 'a hold' '200 204 1' "$(status '/sse/disconnect/o?hold=60') $(status /sse/connect/o) $(metric 'sse_refusals_total{reason="held"}')"
refused 400 'a malformed request' "send:GET /health HTTP/1.1\r\nHost: a b\r\n\r\n"
is 'is counted' 1 "$(metric 'sse_refusals_total{reason="malformed"}')"
head -c 65537 /dev/zero | tr '\0' x >"$tmp/65537"
is 'a body too large' '413 1' "$(status /sse/send/m --data-binary "@$tmp/65537") $(metric 'sse_refusals_total{reason="too_large"}')"
is 'a foreign page' '403 1' "$(status /sse/users -H 'Origin: http://evil.example') $(metric 'sse_refusals_total{reason="origin"}')"
is 'requests, by route and status' '6 1 1' "$(metric 'sse_http_requests_total{route="/sse/send/{userId}",code="202"}') $(
    metric 'sse_http_requests_total{route="/sse/send/{userId}",code="503"}') $(
    metric 'sse_http_requests_total{route="/sse/connect/{userId}",code="204"}')"
get '/nowhere?a=1' >/dev/null
is 'those of no route' 1 "$(metric 'sse_http_requests_total{route="none",code="404"}')"
sends="POST /sse/send/m HTTP/1.1\r\n${H}Content-Length: 1\r\n\r\nx"
is 'pipelined ones' '202 202 202 200 closed' "$(answers "send:$sends$sends$sends$LAST")"
is 'count each' '9 9' "$(metric 'sse_http_requests_total{route="/sse/send/{userId}",code="202"}') $(metric sse_messages_total)"
is 'HEAD' 200 "$(status /metrics -I)"
is 'a foreign page may not read them' 403 "$(status /metrics -H 'Origin: http://evil.example')"
if is_linux; then
    within 'resident memory' 65536 4000000000 "$(metric process_resident_memory_bytes)"
fi
is 'memory at most, as the first line of the log says' "$(sed -n '1s/^memory: at most \([0-9]*\) .*/\1/p' "$tmp/counted.err")" \
    "$(metric sse_memory_limit_bytes | awk '{ print int(($1 + 1048575) / 1048576) }')"
is 'the version' 1 "$(metric "sse_build_info{version=\"$("$SSE" --version | cut -d ' ' -f 2)\"}")"
if have promtool 'promtool checks them'; then
    get /metrics >/dev/null
    is 'promtool finds nothing' '0 ' "$(promtool check metrics <"$tmp/body" >"$tmp/promtool" 2>&1; echo "$? $(cat "$tmp/promtool")")"
fi
stop counted

section 'OpenAPI'
use main
has 'the description' '200 {"openapi":"3.1.0",' "$(get /openapi.json)"
is 'is JSON' application/json "$(field content-type)"
described() { grep -o '"/[^"]*":{"[gp][eo]' "$tmp/body" | cut -d '"' -f 2 | sort | tr '\n' ' '; } # paths
is 'all routes are in it' '/ /health /metrics /openapi.json /sse/broadcast /sse/connect/{userId} /sse/disconnect/{userId} /sse/send/{userId} /sse/status/{userId} /sse/task-with-obj/{userId} /sse/task/{userId} /sse/users ' \
    "$(described)"
has 'its server is whom the client asked' "\"servers\":[{\"url\":\"$URL\"}]" "$(cat "$tmp/body")"
for default in alice message hello; do
    has "a default that works: $default" "\"default\":\"$default\"" "$(cat "$tmp/body")"
done
get /openapi.json -H 'Host: localhost:99' >/dev/null
has 'by the name it was asked for' "\"url\":\"$SCHEME://localhost:99\"" "$(cat "$tmp/body")"
start proxied --cors https://push.example.org --cors http://plain.example.org:81
get /openapi.json -H 'Host: push.example.org' >/dev/null
has 'over HTTPS, if a listed origin of that host is' '"url":"https://push.example.org"' "$(cat "$tmp/body")"
get /openapi.json -H 'Host: push.example.org:81' >/dev/null
has 'but of that port' "\"url\":\"$SCHEME://push.example.org:81\"" "$(cat "$tmp/body")"
for proto in https HTTPS 'https, http'; do
    get /openapi.json -H "X-Forwarded-Proto: $proto" >/dev/null
    has "or if the proxy says so: $proto" "\"url\":\"https://127.0.0.1:$PORT\"" "$(cat "$tmp/body")"
done
for proto in http '' 'https://evil.example/' 'http, https'; do
    get /openapi.json -H "X-Forwarded-Proto: $proto" >/dev/null
    has "it says nothing else: '$proto'" "\"url\":\"$URL\"" "$(cat "$tmp/body")"
done
has 'the field that a browser resumes with is described' '"name":"Last-Event-ID","in":"header"' "$(cat "$tmp/body")"
stop proxied
use main
raw 'send:GET /openapi.json HTTP/1.0\r\n\r\n' eof >"$tmp/answer"
has 'or its own, for a client that tells none' "\"url\":\"$SCHEME://localhost:$PORT\"" "$(cat "$tmp/answer")"
lacks 'no tokens are asked for' securitySchemes "$(cat "$tmp/answer")"
if have python3 'the description is JSON'; then
    get /openapi.json >/dev/null
    is 'to a strict reader, with no name twice' ok "$(python3 -c '
import json, sys
def unique(pairs):
    names = [name for name, value in pairs]
    assert len(names) == len(set(names)), names
    return dict(pairs)
api = json.load(open(sys.argv[1]), object_pairs_hook=unique)
ids = [o["operationId"] for p in api["paths"].values() for o in p.values()]
assert len(ids) == len(set(ids)) == 15, ids
assert all(o["summary"] and o["responses"] for p in api["paths"].values() for o in p.values())
print("ok")' "$tmp/body" 2>&1)"
fi

section 'The page'
has 'the page' '200 <!doctype html>' "$(get /)"
is 'is HTML' 'text/html; charset=utf-8 no-store nosniff no-referrer' \
    "$(field content-type) $(field cache-control) $(field x-content-type-options) $(field referrer-policy)"
nonce=$(field content-security-policy | sed "s/.*script-src 'nonce-\([0-9a-f]*\)'.*/\1/")
is 'lets only what it brings itself run' "default-src 'none'; connect-src 'self'; img-src data:; style-src 'nonce-$nonce'; script-src 'nonce-$nonce'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" \
    "$(field content-security-policy)"
within 'by a nonce of 128 bits' 32 32 "${#nonce}"
is 'which style and script carry' 2 "$(grep -c "^<s[a-z]* nonce='$nonce'>$" "$tmp/body")"
lacks 'nothing comes from elsewhere' '//' "$(grep -o "\(src\|href\|url\|import\)[=( ].*" "$tmp/body")"
get / >/dev/null
lacks 'the next one has another' "$nonce" "$(cat "$tmp/head" "$tmp/body")"
is 'HEAD' '200 text/html; charset=utf-8' "$(status / -I) $(field content-type)"
is 'POST' 405 "$(status / -d x)"
start plain --no-demo
is '--no-demo leaves it out' 404 "$(status /)"
get /openapi.json >/dev/null
is 'and the tasks, in the description as well' '/health /metrics /openapi.json /sse/broadcast /sse/connect/{userId} /sse/disconnect/{userId} /sse/send/{userId} /sse/status/{userId} /sse/users ' \
    "$(described)"
stop plain
use main

# ==== User ids and queries ========================================================================

section 'User ids'
named() { # PATH SEGMENT, NAME AS JSON
    has "a user may be called $1" "\"user\":\"$2\"," "$(post "/sse/send/$1" x)"
}
named a%20b 'a b'
named a+b a+b
named 'a%2Fb' a/b
named '%41lice' Alice
named 'caf%C3%A9' 'café'
named 'café' 'café'
named '%F0%9F%99%82' '🙂'
named 'a%22b%5Cc' 'a\"b\\c'
named '%3Cscript%3E' '<script>'
named ... ...
named .a .a
named 'a%3Fb' 'a?b'
named 'a%25b' a%b
named "%27" "'"
named '%C2%A0' "$(printf '\302\240')"
is 'ids are opaque: Alice is not alice' 404 "$(status /sse/status/aLICE)"
is 'escapes and bytes name the same user' 200 "$(status /sse/status/%63af%c3%a9)"
long=$(printf 'u%.0s' 1 2 3 4 5 6 7 8)
long=$long$long$long$long$long$long$long$long$long$long$long$long$long$long$long$long
named "$long" "$long"
is '128 bytes it was' 128 "${#long}"
for user in "${long}u" "%C3%A9${long%?}" '' . .. %2e %2E%2e .%2e %00 %0a %0D %1f %7f %C2%80 %C2%9f \
    %ff %C3 %C0%80 %ED%A0%80 %F4%90%80%80 % %4 %zz a%; do
    problem "user '$user'" 400 'Bad Request' "/sse/send/$user" -d x
done
for path in connect disconnect status task task-with-obj; do
    is "$path wants a user" 400 "$(status "/sse/$path/")"
    is "$path takes no control character" 400 "$(status "/sse/$path/a%01")"
done
is 'none of these was added' '' "$(get /sse/users | grep -o '"user":"[.]*"' | grep -vx '"user":"..."')"

section 'Queries'
event() { # STATUS QUERY
    is "send?$2" "$1" "$(status "/sse/send/events?$2" -d x)"
}
event 202 event=ok
event 202 'event=two+words'
event 202 'event=%C3%A9t%C3%A9'
event 202 event=
event 202 'other=x&event=b&more'
event 202 'event=message'
event 202 "event=$(echo "$long" | cut -c 1-64)"
event 400 "event=$(echo "$long" | cut -c 1-65)"
for name in open error gap connected disconnected; do
    event 400 "event=$name"
    is "broadcast?event=$name" 400 "$(status "/sse/broadcast?event=$name" -d x)"
done
event 400 event=%6Fpen
for bytes in %0a %0d a%0Ab %00 %09 %7f %C2%85 %ff %C3 % %g0; do event 400 "event=$bytes"; done
open events events
is 'names arrive decoded; an empty one is none' \
    'id: E-1|event: ok|data: x||id: E-2|event: two words|data: x||id: E-3|event: été|data: x||id: E-4|data: x||id: E-5|event: b|data: x||' \
    "$(await saw events '^event: message'; news events | sed 's/id: E-6.*//')"
hang_up events

# ==== The stream ==================================================================================

section 'The stream'
raw "send:GET /sse/connect/zoe HTTP/1.1\r\n$H\r\n" "wait:$BEAT\n\n" >"$tmp/greeting"
is 'the head is exactly this' \
    'HTTP/1.1 200 OK|Date: …|Content-Type: text/event-stream|Cache-Control: no-cache, no-transform|X-Accel-Buffering: no|Connection: close|' \
    "$(sed -e 's/^\(Date: \).*\r/\1…\r/' -e 's/\r$//' -e '/^$/,$d' "$tmp/greeting" | tr '\n' '|')"
is 'Date is a date' 1 \
    "$(grep -c '^Date: [A-Z][a-z][a-z], [0-3][0-9] [A-Z][a-z][a-z] 20[0-9][0-9] [0-2][0-9]:[0-5][0-9]:[0-6][0-9] GMT.$' "$tmp/greeting")"
printf "retry: 1234\nid: %s-0\ndata: User 'zoe' connected\n\ndata: $BEAT\n\n" \
    "$(sed -n 's/^id: \([0-9a-f]*\)-0$/\1/p' "$tmp/greeting")" >"$tmp/expected"
sed '1,/^.$/d' "$tmp/greeting" >"$tmp/actual"
if cmp -s "$tmp/expected" "$tmp/actual"; then pass 'the greeting, byte for byte'
else fail 'the greeting, byte for byte' "see expected and actual in $tmp"; fi

# Sends a body, and a mark after it; what the stream gets between their ids must be this.
open frames frames
sent=0
framed() { # WHAT BODY-FOR-PRINTF EXPECTED
    # shellcheck disable=SC2059 # the body is a format on purpose: it holds escapes
    printf "$2" >"$tmp/sent"
    post /sse/send/frames "@$tmp/sent" >/dev/null
    post /sse/send/frames "mark" >/dev/null
    sent=$((sent + 2))
    await saw frames "^id: .*-$sent\$"
    is "$1" "$3" "$(news frames | sed -e "s/.*id: E-$((sent - 1))|//" -e "s/||id: E-$sent|.*//")"
}
framed 'one line' 'hello' 'data: hello'
framed 'LF ends a line' 'a\nb' 'data: a|data: b'
framed 'CR ends a line' 'a\rb' 'data: a|data: b'
framed 'CR LF ends one line' 'a\r\nb' 'data: a|data: b'
framed 'LF CR ends two' 'a\n\rb' 'data: a|data: |data: b'
framed 'n ends make n + 1 lines' 'a\n' 'data: a|data: '
framed 'n ends make n + 1 lines, CR' 'a\r\r' 'data: a|data: |data: '
framed 'n ends make n + 1 lines, CR LF' '\r\n' 'data: |data: '
framed 'an empty body is one empty line' '' 'data: '
framed 'no body can forge a field' 'a\rid: 7\nevent: gap\r\ndata: x\n\nretry: 0' \
    'data: a|data: id: 7|data: event: gap|data: data: x|data: |data: retry: 0'
framed 'nor a comment, nor lose a space' ': c\n  two' 'data: : c|data:   two'
framed 'other bytes stay as they are' '\001\033\177 \303\251 \342\200\250 \\ "' \
    "$(printf 'data: \001\033\177 \303\251 \342\200\250 \\ "')"
framed 'the end may come as a CR whose LF never comes' 'x\r' 'data: x|data: '
is 'the content type is ignored' 202 "$(status /sse/send/frames -d x -H 'Content-Type: image/png')"
hang_up frames

start beating --heartbeat 1 --retry 0
launch beats "$RAW" "$PORT" "send:GET /sse/connect/amy HTTP/1.1\r\n$H\r\n" "wait:$BEAT" \
    "wait:$BEAT" "wait:$BEAT" 'wait:\n\n' clock
start commenting --heartbeat=1 --heartbeat-as=comment
launch comments "$RAW" "$PORT" "send:GET /sse/connect/amy HTTP/1.1\r\n$H\r\n" 'wait:\n: <3' \
    'wait:\n: <3' 'wait:alive\n'
start greeting --greeting-as event
open greeted amy
use main
is 'keep-alives are seen' 0 "$(ended beats)"
within 'the second comes after two heartbeats of one second' 1950 $((4000 + SLACK)) \
    "$(sed -n 's/^\[\([0-9]*\) ms\]$/\1/p' "$tmp/beats.out")"
is 'they are messages without an id' \
    "retry: 0|id: E-0|data: User 'amy' connected||data: $BEAT||data: $BEAT||data: $BEAT||" \
    "$(told beats | sed -e 's/.*|retry/retry/' -e 's/\[.*//')"
is 'keep-alives as comments are seen' 0 "$(ended comments)"
is 'also after the greeting, and no empty line makes a message of them' \
    "retry: 2000|id: E-0|data: User 'amy' connected||: $BEAT|: $BEAT|" \
    "$(told comments | sed -e 's/.*|retry/retry/')"
is 'the greeting as an event' \
    "retry: 2000|id: E-0|event: connected|data: User 'amy' connected||data: $BEAT||" "$(told greeted)"
hang_up greeted
stop greeting
use beating
health_is_idle() { health_is streams 0; }
eventually 'a stream whose client is gone is over' health_is_idle
stop beating
stop commenting

# ==== Delivery ====================================================================================

section 'Delivery'
use main
reset() { # USER: what Last-Event-ID was given last; prints the news of a stream with these options
    rm -f "$tmp/resumed.out"
    _user=$1
    shift
    open resumed "$_user" "$@"
    _end=$(post "/sse/send/${_user%%\?*}" 'the end' | sed 's/.*"id":"\([^"]*\).*/\1/')
    await saw resumed "^id: $_end\$" # one of before may be in the history
    hang_up resumed
    news resumed | sed 's/id: E-[0-9]*|data: the end||$//'
}
for text in one two; do post /sse/send/wanda $text >/dev/null; done
is 'messages wait for a user who is away' \
    '200 {"user":"wanda","status":"Disconnected","streams":0,"queued":2}' "$(get /sse/status/wanda)"
is 'and come with the first stream' 'id: E-1|data: one||id: E-2|data: two||' "$(reset wanda)"
is 'once' '' "$(reset wanda)"
open first wanda
open second wanda
for text in a b c; do post /sse/send/wanda $text >/dev/null; done
eventually 'all streams of a user get all messages' saw first '^data: c$'
eventually 'in the same order' saw second '^data: c$'
is 'and the same bytes' "$(news first)" "$(news second)"
hang_up second
eventually 'one that leaves' status_is wanda Connected 1
post /sse/send/wanda d >/dev/null
eventually 'does not disturb the other' saw first '^data: d$'
hang_up first
eventually 'with the last the user is Disconnected' status_is wanda Disconnected 0

open start viola
from=$(last_id start)
hang_up start
post /sse/send/viola one >/dev/null
is 'the starting point can be resumed from' 'id: E-1|data: one||' \
    "$(reset viola -H "Last-Event-ID: $from")"
id=$(post /sse/send/viola two | sed 's/.*"id":"\([^"]*\).*/\1/')
for text in three four; do post /sse/send/viola $text >/dev/null; done
resumed='id: E-4|data: three||id: E-5|data: four||id: E-6|data: the end||'
is 'Last-Event-ID resumes after that message' "${resumed%id: E-6*}" "$(reset viola -H "last-event-id: $id")"
is 'so does ?lastEventId=' "$resumed" "$(reset "viola?lastEventId=$id")"
resumed="${resumed}id: E-7|data: the end||"
is 'where both are present the header counts' "$resumed" \
    "$(reset "viola?lastEventId=$from" -H "Last-Event-ID: $id")"
whole='event: gap|data: {"missed":null}||id: E-1|data: one||id: E-2|data: the end||id: E-3|data: two||'
for unknown in nonsense 0-0 "${id%-*}-999" "${id%-*}-" "0${id}" "$(echo "$id" | tr a-f A-F)x" "$id$id$id$id"; do
    has "an unknown id ($unknown) gets gap null and all there is" "$whole" \
        "$(reset viola -H "Last-Event-ID: $unknown")"
done
has 'in the query too' "$whole" "$(reset "viola?lastEventId=nonsense")"

curl -qs --noproxy '*' -m 60 -d x "$URL/sse/send/ids?n=[1-50]" | sed 's/.*"id":"[0-9a-f]*-\([0-9]*\)".*/\1/' >"$tmp/ids"
is 'ids ascend and are unique' "$(sort -n -u "$tmp/ids" | tr '\n' ' ')" "$(tr '\n' ' ' <"$tmp/ids")"
is 'every message had one' 50 "$(grep -c . "$tmp/ids")"

closes_noticed() { # within a second; the best of three, for this machine may be busy
    for _try in 1 2 3; do
        open leaving leo
        end leaving
        _since=$(now)
        await status_is leo Disconnected 0
        _took=$(($(now) - _since))
        ended leaving >/dev/null
        [ $_took -gt $((1000 + SLACK)) ] || return 0
    done
    return 1
}
if closes_noticed; then pass 'a client that closes is noticed within a second'
else fail 'a client that closes is noticed within a second' "took $_took ms"; fi
raw "send:GET /sse/connect/rita HTTP/1.1\r\n$H\r\n" "wait:$BEAT" rst >/dev/null
eventually 'so is one that resets' status_is rita Disconnected 0
raw "send:GET /sse/connect/sid HTTP/1.1\r\n$H\r\n" "wait:$BEAT" shut eof >/dev/null
eventually 'and one that half-closes' status_is sid Disconnected 0

raw "send:GET /sse/connect/talker HTTP/1.1\r\n$H\r\n" "wait:$BEAT" "repeat:3000:x" \
    "send:\r\n" shut >/dev/null
began=$(now)
eventually 'and one that said much before' status_is talker Disconnected 0
within 'no later' 0 3000 "$(($(now) - began))"

awk 'BEGIN { for (i = 0; i < 3400; i++) printf "%d \303\251\342\202\254\360\237\230\200\357\273\277\001 %s", i, i % 9 ? "" : "\n" }' >"$tmp/any-text"
within 'a body near the limit' 60000 65536 "$(wc -c <"$tmp/any-text")"
open whole whole
is 'of any UTF-8 is taken' 202 "$(post /sse/send/whole "@$tmp/any-text" | sed 's/ .*//')"
post /sse/send/whole 'that was it' >/dev/null
await saw whole 'that was it'
sed -n '/^id: [0-9a-f]*-1$/,/^$/s/^data: //p' "$tmp/whole.out" >"$tmp/came"
echo >>"$tmp/any-text" # as sed ends its last line
is 'and arrives byte for byte' 0 "$(cmp "$tmp/any-text" "$tmp/came" >"$tmp/cmp" 2>&1; echo $?)"
hang_up whole

section 'Delivery: history and gaps'
start short --history 3 --history-bytes 200 --max-message 1000
id=$(post /sse/send/al 1 | sed 's/.*"id":"\([^"]*\).*/\1/')
epoch=${id%-*}
for text in 2 3 4 5; do post /sse/send/al $text >/dev/null; done
gap() { # MISSED LAST-EVENT-ID: HEAD of a user's news, without sending anything more
    open gap "$3" -H "Last-Event-ID: $2"
    await saw gap "$4"
    hang_up gap
    is "$1" "$5" "$(news gap)"
}
kept='id: E-3|data: 3||id: E-4|data: 4||id: E-5|data: 5||'
gap 'gap tells exactly how many are gone' "$epoch-1" al '^data: 5' "event: gap|data: {\"missed\":1}||$kept"
is 'a client that is cut off at the first id behind them has been told' "event: gap|data: {\"missed\":1}||retry: 2000|id: E-2|" \
    "$(sed -e 's/^id: .*-/id: E-/' -e '/^id: /q' "$tmp/gap.out" | tr -d '\r' | tr '\n' '|')"
gap 'counted from the starting point too' "$epoch-0" al '^data: 5' "event: gap|data: {\"missed\":2}||$kept"
gap 'an id whose successor is held gets none' "$epoch-2" al '^data: 5' "$kept"
gap 'an unknown one gets null' x al '^data: 5' "event: gap|data: {\"missed\":null}||$kept"
gap 'nor does the newest' "$epoch-5" al "$BEAT" ''
for text in 1 2 3 4 5; do post /sse/send/ann $text >/dev/null; done
is 'no more wait than history holds' '200 {"user":"ann","status":"Disconnected","streams":0,"queued":3}' \
    "$(get /sse/status/ann)"
open ann ann
await saw ann '^data: 5'
is 'a user who was away too long is told so' "event: gap|data: {\"missed\":2}||$kept" "$(news ann)"
hang_up ann
text=$(printf 'x%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)$(printf 'y%.0s' 1 2 3 4 5 6 7 8 9 10)
for n in 1 2 3; do post /sse/send/ben "$text$text$n" >/dev/null; done
gap 'history is bounded in bytes too' x ben "y3\$" \
    "event: gap|data: {\"missed\":null}||id: E-2|data: $text${text}2||id: E-3|data: $text${text}3||"
problem 'a message whose frame is over that' 413 'Content Too Large' /sse/send/ben -d "$text$text$text$text$text$text$text"
problem 'or when broadcast' 413 'Content Too Large' /sse/broadcast -d "$text$text$text$text$text$text$text"
gap 'takes no other away' x ben "y3\$" \
    "event: gap|data: {\"missed\":null}||id: E-2|data: $text${text}2||id: E-3|data: $text${text}3||"
stop short
start short-again --history 3
gap 'after a restart old ids are unknown' "$epoch-1" al 'missed' 'event: gap|data: {"missed":null}||'
id=$(post /sse/send/al 1 | sed 's/.*"id":"\([^"]*\).*/\1/')
is 'and new ones differ' different "$([ "${id%-*}" = "$epoch" ] || echo different)"
stop short-again

section 'Delivery: a slow reader'
start slow-reader --history-bytes 65536 --max-message 65536
launch stuck "$RAW" "$PORT" rcvbuf:4096 deaf patience:60000 \
    "send:GET /sse/connect/sam HTTP/1.1\r\n$H\r\n" "until:$tmp/read-on" eof
open quick sam
eventually 'a stuck reader and a quick one' status_is sam Connected 2
awk 'BEGIN { for (i = 0; i < 500; i++) printf "%060d", i }' >"$tmp/large" # 30,000 bytes
curl -qs --noproxy '*' -m 100 --data-binary "@$tmp/large" "$URL/sse/send/sam?n=[1-300]" >"$tmp/receipts"
is 'all is accepted' 300 "$(grep -c '"status":"Connected"' "$tmp/receipts")"
eventually 'the quick one gets everything' saw quick '^id: [0-9a-f]*-300$'
is 'without a hole' 300 "$(count quick '^data: 0000')"
has 'the receipts are honest: the stuck one is behind' '"streams":2,"delivered":1}' "$(cat "$tmp/receipts")"
eventually 'and is closed once it has fallen out of the history' status_is sam Connected 1
is 'which is counted' 1 "$(metric sse_slow_streams_closed_total)"
is 'as are all messages' 300 "$(metric sse_messages_total)"
: >"$tmp/read-on"
ended stuck >/dev/null
sed -n 's/^id: [0-9a-f]*-\([0-9]*\)$/\1/p' "$tmp/stuck.out" >"$tmp/stuck.ids"
got=$(tail -n 1 "$tmp/stuck.ids")
is 'what it got is without a hole' "$(awk -v n="$got" 'BEGIN { for (i = 0; i <= n; i++) print i }')" "$(cat "$tmp/stuck.ids")"
within 'and short of the end' 1 299 "$got"
hang_up quick
stop slow-reader

section 'Delivery: pipelines'
start pipelines --history 1 --max-users 1
to() { printf 'POST /sse/send/%s HTTP/1.1\\r\\n%sContent-Length: 1\\r\\n\\r\\n%s' "$1" "$H" "$2"; } # USER BODY
open piped pia
is 'twenty messages at once, for a history of one, are taken' \
    "$(printf '202 %.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)200 closed" \
    "$(answers "repeat:20:$(to pia x)" "send:$LAST")"
is 'each is answered for itself, in order, and delivered' \
    "$(for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo "$n delivered 1"; done)" \
    "$(sed -n 's/^{"id":"[0-9a-f]*-\([0-9]*\)".*"streams":1,"delivered":1}.*/\1 delivered 1/p' "$tmp/answer")"
eventually 'all arrive' saw piped '^id: .*-20$'
is 'without a hole' "$(for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do printf 'id: E-%s|data: x||' $n; done)" "$(news piped)"
is 'a disconnect among them comes in its turn' '202 202 200 202 200 closed' \
    "$(answers "send:$(to pia a)$(to pia b)GET /sse/disconnect/pia HTTP/1.1\r\n$H\r\n$(to pia c)$LAST")"
is 'those before it were told of the stream' '1 1 0' \
    "$(sed -n 's/^.*"streams":\([01]\),"delivered".*/\1/p' "$tmp/answer" | tr '\n' ' ' | sed 's/ $//')"
eventually 'which ends after them' over piped
has 'with its farewell' '-21|data: a||id: E-22|data: b||event: disconnected|' "$(news piped)"
is 'users that one pipeline names make room for each other' '202 202 202 200 closed' \
    "$(answers "send:$(to pia 1)$(to pib 2)$(to pic 3)$LAST")"
is 'and at its end' '202 202 closed' \
    "$(answers "send:$(to pic 1)$(to pid 2 | sed 's/Content-Length/Connection: close\\r\\nContent-Length/')")"
is 'refusals among them keep their place' '202 400 closed' "$(answers "send:$(to pid 1)$(to %00 2)$LAST")"
accepted '202 413' 'also of what is too large' "send:$(to pid 1)POST /sse/send/pid HTTP/1.1\r\n${H}Content-Length: 99999\r\n\r\nx"
accepted '202 202 408' 'half a request does not hold up those before it' patience:15000 "send:$(to pid 1)$(to pid 2)POST /sse" 'wait:-' 'wait:delivered' 'wait:delivered'
stop pipelines
start abandoned --max-users 100
users='1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20'
pipeline=''
for n in $users; do
    open "abandoned$n" "abandoned$n"
    pipeline=$pipeline$(to "abandoned$n" x)
done
nobody_waits() { get /sse/users | grep -q '"user":"abandoned1"' && ! grep -q '"queued":[1-9]' "$tmp/body"; }
for n in 1 2 3 4 5; do
    raw "send:$pipeline" rst >/dev/null
    raw "send:$pipeline" >/dev/null
done
eventually 'a sender that hangs up leaves no message unwritten' nobody_waits
eventually 'nor does one that reads no answers' test "$(
    raw rcvbuf:2048 deaf patience:200 "repeat:4000:$pipeline" >/dev/null
    await nobody_waits && echo yes)" = yes
stop abandoned

section 'Delivery: limits'
start full --max-users 2 --max-streams 2
open a1 ada
open a2 ada
problem 'more streams than one user may hold' 429 'Too Many Requests' /sse/connect/ada
is 'with Retry-After' 5 "$(field retry-after)"
is 'HEAD tells the same' 429 "$(status /sse/connect/ada -I)"
hang_up a2
eventually 'when one has gone' status_is ada Connected 1
open a3 ada
is 'there is room again' 1 "$(count a3 connected)"
open b1 bea
problem 'a full table of Connected users' 503 'Service Unavailable' /sse/connect/cal
is 'with Retry-After' 5 "$(field retry-after)"
is 'HEAD tells the same' 503 "$(status /sse/connect/cal -I)"
is 'for send too' 503 "$(status /sse/send/cal -d x)"
is 'and for a task' 503 "$(status /sse/task-with-obj/cal)"
is 'who is in it goes on' 202 "$(status /sse/send/bea -d x)"
hang_up b1
eventually 'bea leaves' status_is bea Disconnected 0
open c1 cal
is 'and makes room' '404 200' "$(status /sse/status/bea) $(status /sse/status/cal)"
stop full
for file in a1 a3 c1; do eventually 'the streams end' over $file; done

start eviction --max-users 3
for user in x y z; do open $user $user; done
hang_up y
eventually 'y leaves first' status_is y Disconnected 0
hang_up x
eventually 'then x' status_is x Disconnected 0
is 'a new user takes the place' 202 "$(status /sse/send/new1 -d x)"
is 'of who left longest ago' '404 200 200' "$(status /sse/status/y) $(status /sse/status/x) $(status /sse/status/z)"
is 'another one' 202 "$(status /sse/send/new2 -d x)"
is 'that of the next' '404 200 200' "$(status /sse/status/x) $(status /sse/status/z) $(status /sse/status/new1)"
is 'never that of one who is Connected' 202 "$(status /sse/send/new3 -d x)"
is 'even if it was first of all' '200 404' "$(status /sse/status/z) $(status /sse/status/new1)"
stop eviction

start one-user --max-users 1
launch lingering "$RAW" "$PORT" "send:GET /sse/connect/old HTTP/1.1\r\n$H\r\n" "wait:$BEAT" \
    'wait:disconnected\n\n' "until:$tmp/lingered"
await saw lingering "$BEAT"
is 'a user is disconnected' 200 "$(status /sse/disconnect/old)"
await saw lingering '^event: disconnected'
is 'and makes room at once, even if the client is slow to close' 202 "$(status /sse/send/new -d x)"
: >"$tmp/lingered"
ended lingering >/dev/null
stop one-user
start leaving --max-users 2 --history-bytes 4000000 --max-message 1000000
launch unread "$RAW" "$PORT" rcvbuf:4096 patience:60000 "send:GET /sse/connect/amy HTTP/1.1\r\n$H\r\n" \
    "wait:$BEAT" "until:$tmp/unread-on" eof
await saw unread "$BEAT"
head -c 900000 /dev/zero | tr '\0' x >"$tmp/900000"
stuck() { post /sse/send/amy "@$tmp/900000" | grep -q '"streams":1,"delivered":0}'; }
eventually 'a reader is stuck' stuck
is 'and disconnected' 200 "$(status /sse/disconnect/amy)"
is 'another user comes later' 202 "$(status /sse/send/zac -d keep)"
is 'a third has room at once' 202 "$(status /sse/send/new -d x)"
is 'that of who left first, though not all of its farewell was taken' '404 200' \
    "$(status /sse/status/amy) $(status /sse/status/zac)"
: >"$tmp/unread-on"
ended unread >/dev/null
stop leaving
start slow-to-read --max-users 2 --history-bytes 4000000 --max-message 1000000
launch late "$RAW" "$PORT" rcvbuf:4096 patience:60000 "send:GET /sse/connect/amy HTTP/1.1\r\n$H\r\n" \
    "wait:$BEAT" "until:$tmp/late-on" 'send:and something' eof
await saw late "$BEAT"
eventually 'a reader is stuck once more' stuck
get /sse/disconnect/amy >/dev/null
: >"$tmp/late-on"
is 'what it says after it was disconnected takes none of its stream away' '0 1' \
    "$(ended late) $(count late '^event: disconnected')"
stop slow-to-read
start piping --max-users 1
launch piper "$RAW" "$PORT" patience:60000 "repeat:3000:$(to amy 1)$(to amy 2)$(to amy 3)" "send:$LAST" eof
seq 1 100 | sed "s,.*,url = $URL/sse/send/new&," >"$tmp/urls"
is 'a pipeline of sends keeps nobody from making room' 100 \
    "$(curl -qs --noproxy '*' -m 60 -d x -K "$tmp/urls" -w '%{http_code}\n' -o /dev/null | grep -cx 202)"
is 'nor others the pipeline' '0 9000' "$(ended piper) $(count piper '^HTTP/1.1 202 ')"
stop piping
start listed --max-users 14 --max-connections 100
name=$(printf '%0124d' 7 | tr 7 x | sed 's/0/%22/g') # two bytes each once it is in JSON: 4 KiB end within the last
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do open "listed$n" "$name$n"; done
is 'a user who is away, among Connected ones' 202 "$(status "/sse/send/${name}0" -d x)"
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
    launch "unread-list$n" "$RAW" "$PORT" "rcvbuf:$((2048 + 512 * n))" deaf patience:60000 "repeat:$n:${GET}\r\n" "repeat:3000:GET /sse/users HTTP/1.1\r\n$H\r\n" \
        "until:$tmp/lists-are-read"
done
busy_lists() { health_is connections 26; }
eventually 'lists of users' busy_lists
eventually 'that nobody reads' stands 'sse_http_requests_total{route="/sse/users",code="200"}'
refused_newcomers() { for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do status "/sse/send/new$n" -d x; echo; done | grep -c 503; }
is 'keep nobody from making room' 0 "$(refused_newcomers)"
is 'while they are there' yes "$(busy_lists && echo yes)"
: >"$tmp/lists-are-read"
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do ended "unread-list$n" >/dev/null; done
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do hang_up "listed$n"; done
stop listed
start unheld --max-users 1
is 'a user that is held' '202 200' "$(status /sse/send/alice -d x) $(status '/sse/disconnect/alice?hold=600')"
launch unread-204 "$RAW" "$PORT" rcvbuf:4096 deaf patience:60000 "repeat:60000:GET /sse/connect/alice HTTP/1.1\r\n$H\r\n" "until:$tmp/204-are-read"
eventually 'whose answers nobody reads' stands 'sse_http_requests_total{route="/sse/connect/{userId}",code="204"}'
is 'makes room all the same, at once' '202 404' "$(status /sse/send/bob -d x -m 5) $(status /sse/status/alice)"
: >"$tmp/204-are-read"
ended unread-204 >/dev/null
stop unheld
start polite --max-users 1
for n in 1 2 3 4 5 6 7 8 9 10; do
    open reader "polite$n"
    is 'a user is disconnected, and somebody new comes at once' '200 202 200 closed' \
        "$(answers "send:GET /sse/disconnect/polite$n HTTP/1.1\r\n$H\r\n$(to "new$n" x)$LAST")"
    is 'a client that reads has its farewell all the same' '0 1' "$(ended reader) $(count reader '^event: disconnected')"
done
stop polite
start exact --history-bytes 200
id=$(post /sse/send/ida x | sed 's/.*"id":"\([^"]*\).*/\1/')
text=$(printf "%0$((200 - 13 - ${#id}))d" 7)
is 'a message whose frame has exactly --history-bytes' 202 "$(status /sse/send/ida -d "$text")"
is 'or is broadcast' 202 "$(status /sse/broadcast -d "$text")"
is 'one byte more' '413 413' "$(status /sse/send/ida -d "${text}x") $(status /sse/broadcast -d "${text}x")"
stop exact
start tiny --max-users 1 --history-bytes 100
is 'a message that is taken' 202 "$(status /sse/send/old -d keep)"
is 'one that does not fit, for somebody new' 413 "$(status /sse/send/new -d "$(printf '%080d' 7)")"
is 'makes nobody give way' '200 {"user":"old","status":"Disconnected","streams":0,"queued":1}' "$(get /sse/status/old)"
stop tiny

# ==== HTTP ========================================================================================

section 'HTTP: what is fine'
use main
P="POST /sse/send/http HTTP/1.1\r\n$H"
C="${P}Transfer-Encoding: chunked\r\n"
CLOSE='Connection: close\r\n'
accepted 200 'a plain request' "send:$LAST"
accepted '200 200 200' 'requests one after the other on one connection' \
    "send:${GET}\r\n" 'wait:}\n' "send:${GET}\r\n" 'wait:}\n' "send:$LAST"
accepted '202 202 200 200' 'pipelining: several in one send' \
    "send:${P}Content-Length: 3\r\n\r\none${P}Content-Length: 3\r\n\r\ntwo${GET}\r\n$LAST"
accepted "$(printf '200 %.0s' 1 2 3 4 5 6 7 8 9 10)$(printf '200 %.0s' 1 2 3 4 5 6 7 8 9 10)200" \
    'more of them than the input buffer holds' "repeat:20:${GET}X: $long$long$long$long$long$long$long\r\n\r\n" "send:$LAST"
accepted 200 'byte by byte' "drip:1:$LAST"
accepted 200 'case-insensitive names' "send:GET /health HTTP/1.1\r\nhOST: localhost\r\nCONNECTION: CLOSE\r\n\r\n"
accepted 200 'space around values, and empty values' \
    "send:GET /health HTTP/1.1\r\nHost:localhost\r\nConnection: \t close\t \r\nX:\r\nY: \r\n\r\n"
accepted 200 'a list in Connection' "send:${GET}Connection: x, close ,y\r\n\r\n"
accepted 200 'bytes above ASCII in a value' "send:${GET}X: \xc3\xa9\xff\r\n$CLOSE\r\n"
accepted 200 'one empty line before the request' "send:\r\n$LAST"
accepted 200 'absolute-form' "send:GET http://localhost/health HTTP/1.1\r\nHost: elsewhere\r\n$CLOSE\r\n"
accepted 200 'absolute-form with port and query' "send:GET HTTP://localhost:1/health?x HTTP/1.1\r\n$H$CLOSE\r\n"
accepted 204 'OPTIONS *' "send:OPTIONS * HTTP/1.1\r\n$H$CLOSE\r\n"
accepted 200 'HTTP/1.2 is served as 1.1' "send:GET /health HTTP/1.2\r\n$H$CLOSE\r\n"
accepted 200 'HTTP/1.9 too' "send:GET /health HTTP/1.9\r\n$H$CLOSE\r\n"
accepted 200 'HTTP/1.0 needs no Host and closes' 'send:GET /health HTTP/1.0\r\n\r\n'
accepted '200 200' 'HTTP/1.0 with keep-alive' \
    'send:GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n' 'wait:Connection: keep-alive' 'wait:}' \
    'send:GET /health HTTP/1.0\r\n\r\n'
accepted 202 'HTTP/1.0 with a body' 'send:POST /sse/send/http HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi'
accepted 200 'the client half-closes after its request' "send:${GET}\r\n" shut
accepted 202 'and after its body' "send:${P}Content-Length: 2\r\n\r\nhi" shut
accepted '200 200' 'the body of a GET is no request' \
    "send:${GET}Content-Length: 36\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: evil\r\n\r$LAST"
# whether a refused body is read or the connection closed is the server's choice
accepted '404' 'nor is the body of what was refused' \
    "send:POST /nowhere HTTP/1.1\r\n${H}${CLOSE}Content-Length: 36\r\n\r\nGET /health HTTP/1.1\r\nHost: evil\r\n\r\n"
accepted '404' 'nor a chunked one' \
    "send:POST /nowhere HTTP/1.1\r\n${H}${CLOSE}Transfer-Encoding: chunked\r\n\r\n24\r\nGET /health HTTP/1.1\r\nHost: evil\r\n\r\n\r\n0\r\n\r\n"
smuggled=$(answers "send:POST /nowhere HTTP/1.1\r\n${H}Content-Length: 37\r\n\r\nDELETE /health HTTP/1.1\r\nHost: evil\r\n$LAST")
case $smuggled in
'404 closed' | '404 200 closed') pass 'nor when the connection goes on' ;;
*) fail 'nor when the connection goes on' "got: $smuggled" ;;
esac
accepted '202 200' 'the same length twice' "send:${P}Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi$LAST"
accepted '202 200' 'no body at all' "send:${P}\r\n$LAST"
accepted '202 200' 'an empty one' "send:${P}Content-Length: 0\r\n\r\n$LAST"
accepted '202 200' 'a chunked body' "send:${C}\r\n3\r\nabc\r\n0003\r\ndef\r\n0\r\n\r\n$LAST"
accepted '202 200' 'with extensions and trailers' \
    "send:${C}\r\n3;a=b;c=\"d;e\"\r\nabc\r\nA ; x\r\n0123456789\r\n0;z\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n$LAST"
accepted '202 200' 'an empty chunked one' "send:${C}\r\n0\r\n\r\n$LAST"
accepted '202 200' 'byte by byte too' "drip:1:${C}\r\n3\r\nabc\r\n3;x\r\ndef\r\n0\r\n\r\n$LAST"
accepted '202 200' 'the coding in capitals' "send:${P}Transfer-Encoding:  CHUNKED \r\n\r\n0\r\n\r\n$LAST"
open http http
is 'the bodies came through' 'hello,abcdef,abc0123456789,abcdef' \
    "hello,$(post /sse/send/http stop >/dev/null; await saw http '^data: stop'; sed -n 's/^data: \(abc.*\)/\1/p' "$tmp/http.out" | tr '\n' , | sed 's/,$//')"
hang_up http
accepted 200 'two Cookie fields, as proxies for HTTP/2 send them' "send:${GET}Cookie: a=1\r\nCookie: b=2\r\n$CLOSE\r\n"
accepted '200 200' 'the members of Expect, too' "send:${GET}Expect: 100-continue\r\nExpect: 100-continue,\r\n\r\n$LAST"
for version in 1.0 1.1; do
    accepted 200 "HEAD of the page over HTTP/$version ends in order, though the client has sent more" \
        "send:HEAD / HTTP/$version\r\n$H$CLOSE\r\n" 'repeat:2000:more of it\r\n'
    accepted 200 "and GET" "send:GET / HTTP/$version\r\n$H$CLOSE\r\n" 'repeat:2000:more of it\r\n'
done
accepted '100 202' 'Expect: 100-continue is answered before the body' \
    "send:${P}Expect: 100-Continue\r\nContent-Length: 2\r\n$CLOSE\r\n" 'wait:HTTP/1.1 100 Continue\r\n\r\n' quiet:20 send:hi
accepted '100 202' 'for chunks too' \
    "send:${C}Expect: 100-continue\r\n$CLOSE\r\n" 'wait:100 Continue' 'send:2\r\nhi\r\n0\r\n\r\n'
accepted 404 'but an error comes instead where it is known' \
    "send:POST /nowhere HTTP/1.1\r\n${H}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
accepted 403 'foreign: no 100' \
    "send:${P}Origin: http://evil\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
accepted 413 'too large: no 100' "send:${P}Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n"
accepted '417 200' 'another expectation' "send:${GET}Expect: tea\r\n\r\n$LAST"
accepted '202' 'HTTP/1.0 knows no 100' \
    "send:POST /sse/send/http HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
accepted 404 'what is refused by its head does not wait for its body' \
    patience:5000 "send:POST /nowhere HTTP/1.1\r\n${H}Content-Length: 5\r\n\r\nab"
raw "send:${GET}\r\nGET /sse/task/http HTTP/1.1\r\n$H\r\n" 'wait:"status":"ok"' clock >"$tmp/answer"
within 'an answer does not wait for the one after it' 0 5000 \
    "$(sed -n 's/.*\[\([0-9]*\) ms\].*/\1/p' "$tmp/answer")"
head -c 65536 /dev/zero | tr '\0' m >"$tmp/most"
{ cat "$tmp/most"; printf y; } >"$tmp/too-large"
is 'a body of exactly --max-message' 202 "$(status /sse/send/most --data-binary "@$tmp/most" -H Expect:)"
is 'chunked' 202 "$(status /sse/send/most --data-binary "@$tmp/most" -H Expect: -H 'Transfer-Encoding: chunked')"
is 'and with an expectation' 202 "$(status /sse/send/most --data-binary "@$tmp/most" -H 'Expect: 100-continue')"

section 'HTTP: 400'
for line in GET 'GET /health' 'GET  /health HTTP/1.1' 'GET /health  HTTP/1.1' 'GET /health HTTP/1.1 ' ' GET /health HTTP/1.1' \
    'GET /health HTTP/1' 'GET /health http/1.1' 'GET /health HTTP/1.11' 'GET /health HTTP/1.x' 'GET /health HTTP/11' \
    'GET /health HTTPS/1.1' 'GE(T /health HTTP/1.1' '/health HTTP/1.1' 'GET health HTTP/1.1' 'GET * HTTP/1.1' \
    'GET\t/health\tHTTP/1.1' 'GET /health#x HTTP/1.1' 'GET /he\tlth HTTP/1.1' 'GET ftp://localhost/health HTTP/1.1' \
    'GET http:///health HTTP/1.1' 'GET http://a@b/health HTTP/1.1' 'GET /a b HTTP/1.1' 'CONNECT localhost:80 HTTP/1.1' \
    '\x16\x03\x01\x02\x00\x01' 'GET /he\x7flth HTTP/1.1' '\r\n'; do
    refused 400 "request line '$line'" "send:$line\r\n$H$CLOSE\r\n"
done
for what in 'bare CR:\r' 'bare LF:\n' 'NUL:\0' 'control character:\x01' 'DEL:\x7f'; do
    byte=${what#*:} what=${what%%:*}
    refused 400 "$what in the request line" "send:GET /health${byte}x HTTP/1.1\r\n$H\r\n"
    refused 400 "$what in the method" "send:G${byte}ET /health HTTP/1.1\r\n$H\r\n"
    refused 400 "$what in a field's name" "send:${GET}X${byte}Y: z\r\n\r\n"
    refused 400 "$what in its value" "send:${GET}X: y${byte}z\r\n\r\n"
    refused 400 "$what in a chunk's size" "send:${C}\r\n3${byte}\r\nabc\r\n0\r\n\r\n"
    refused 400 "$what in its extension" "send:${C}\r\n3;x${byte}y\r\nabc\r\n0\r\n\r\n"
    refused 400 "$what after a chunk" "send:${C}\r\n3\r\nabc${byte}0\r\n\r\n"
    refused 400 "$what in a trailer" "send:${C}\r\n0\r\nX: y${byte}z\r\n\r\n"
done
refused 400 'lines that end in LF only' "send:GET /health HTTP/1.1\nHost: localhost\n\n"
refused 400 'the empty line as LF only' "send:${GET}\n"
for field in 'no colon' ': no name' 'X : y' 'X\t: y' ' X: y' 'X Y: z' 'X(: y' 'X\xc3\xa9: y' '"X": y' 'X\r\n : y'; do
    refused 400 "field '$field'" "send:${GET}$field\r\n\r\n"
    [ "$field" = 'X\r\n : y' ] || refused 400 "trailer '$field'" "send:${C}\r\n0\r\n$field\r\n\r\n"
done
refused 400 'obs-fold' "send:${GET}X: a\r\n b\r\n\r\n"
refused 400 'obs-fold with a tab' "send:${GET}X: a\r\n\tb\r\n\r\n"
refused 400 'obs-fold of the first field' "send:GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n"
refused 400 'space before the colon of Content-Length' "send:${P}Content-Length : 2\r\n\r\nhi"
refused 400 'no Host' 'send:GET /health HTTP/1.1\r\n\r\n'
refused 400 'two Host' "send:${GET}Host: localhost\r\n\r\n"
refused 400 'two Host in HTTP/1.0' "send:GET /health HTTP/1.0\r\n$H$H\r\n"
for host in '' 'a b' a/b a:b a:65536 a:1:2 user@a '[::1' '[zz]' '[::1]x' '[::1]:x' ':80' 'a,b c' 'http://a' 'a\\b' 'a"b' 'é'; do
    refused 400 "Host '$host'" "send:GET /health HTTP/1.1\r\nHost: $host\r\n\r\n"
done
for host in a a.b:80 '[::1]' '[::1]:80' 127.0.0.1 a_b localhost:; do
    accepted 200 "Host '$host'" "send:GET /health HTTP/1.1\r\nHost: $host\r\n$CLOSE\r\n"
done
refused 400 'Content-Length with Transfer-Encoding' "send:${C}Content-Length: 5\r\n\r\n0\r\n\r\n"
refused 400 'in the other order' "send:${P}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
refused 400 'differing lengths' "send:${P}Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi"
for length in '' +2 -2 2x x 0x2 2.0 '2 2' '2,2' '2, 2' '2;' '٢'; do
    refused 400 "Content-Length '$length'" "send:${P}Content-Length: $length\r\n\r\nhi"
done
refused 400 'Transfer-Encoding in HTTP/1.0' "send:POST /sse/send/http HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
for chunk in '' x -3 +3 0x3 ' 3' '3 ' 3,3 '"3"' '3\t' 'g3'; do
    refused 400 "chunk size '$chunk'" "send:${C}\r\n$chunk\r\nabc\r\n0\r\n\r\n"
done
refused 400 'a chunk longer than its size' "send:${C}\r\n3\r\nabcd\r\n0\r\n\r\n"
refused 400 'a chunk shorter than its size' "send:${C}\r\n5\r\nabc\r\n0\r\n\r\n"
refused 400 'an endless chunk line' "send:${C}\r\n3;" "repeat:600:x"
for body in '1:\xff' '1:\x80' '1:\xc3' '2:\xc0\x80' '3:\xe0\x80\x80' '3:\xed\xa0\x80' '3:\xe2\x82x' \
    '4:\xf4\x90\x80\x80' '4:\xf0\x80\x80\x80' '5:\xf8\x88\x80\x80\x80' '3:a\0b' '1:\0'; do
    refused 400 "body ${body#*:}" "send:${P}Content-Length: ${body%%:*}\r\n\r\n${body#*:}"
    refused 400 "body ${body#*:} in a chunk" "send:${C}\r\n${body%%:*}\r\n${body#*:}\r\n0\r\n\r\n"
done
accepted '202 200' 'a character that spans two chunks' "send:${C}\r\n1\r\n\xc3\r\n1\r\n\xa9\r\n0\r\n\r\n$LAST"
refused 400 'a broadcast that is not UTF-8' "send:POST /sse/broadcast HTTP/1.1\r\n${H}Content-Length: 1\r\n\r\n\xff"
refused 400 'a reserved event name' "send:POST /sse/send/http?event=gap HTTP/1.1\r\n${H}Content-Length: 1\r\n\r\nx"
refused 400 'a user id that is none' "send:POST /sse/send/%00 HTTP/1.1\r\n${H}Content-Length: 1\r\n\r\nx"
refused 400 'a bad escape in the path' "send:GET /sse/status/%g0 HTTP/1.1\r\n$H\r\n"
refused '400' 'after a 400 nothing more is served' "send:GET /health HTTP/1.1\r\n\r\n$LAST"
accepted '200 400' 'what came before it is' "send:${GET}\r\nGET /health HTTP/1.1\r\n\r\n$LAST"

bare() { # STATUS WHAT STEP...: refused, and as it was HEAD, without a body
    _code=$1 _what=$2
    shift 2
    is "$_what" "$_code closed" "$(answers "$@")"
    is "$_what: no body" '' "$(sed '1,/^.$/d' "$tmp/answer")"
}
bare 400 'HEAD without Host' 'send:HEAD /health HTTP/1.1\r\n\r\n'
bare 505 'HEAD of another version' "send:HEAD /health HTTP/2.0\r\n$H\r\n"
bare 414 'HEAD of a long target' 'send:HEAD /' 'repeat:4100:a' "send: HTTP/1.1\r\n$H\r\n"
bare 431 'HEAD with long fields' "send:HEAD /health HTTP/1.1\r\n${H}X: " 'repeat:20000:a'
refused 400 'two empty lines before the request' "send:\r\n\r\n$LAST"
refused 400 'the second after a while' 'send:\r\n' quiet:50 "send:\r\n$LAST"
accepted 200 'one, and the request after a while' 'send:\r\n' quiet:50 "send:$LAST"
for extension in ';' ';;x' ';=' ';=x' ';x=' ';x="' ';x="a' ';x="a\\"' ';x y' ';x=a b' ';x="a"b' ';(' ';x,y'; do
    refused 400 "chunk extension '$extension'" "send:${C}\r\n3$extension\r\nabc\r\n0\r\n\r\n"
done
for extension in ';x' ' ; x = y' ';x="a\\"b;c"' ';x;y=z' ';x="";y'; do
    accepted '202 200' "chunk extension '$extension'" "send:${C}\r\n3$extension\r\nabc\r\n0\r\n\r\n$LAST"
done
refused 400 'differing lengths beyond all numbers' \
    "send:${P}Content-Length: 99999999999999999999\r\nContent-Length: 99999999999999999998\r\n\r\nhi"

refused 400 'also where the body is not used' \
    "send:POST /sse/disconnect/http HTTP/1.1\r\n${H}Content-Length: 2\r\n\r\n\xff\0"

section 'HTTP: other refusals'
problem 'unknown path' 404 'Not Found' /nowhere
accepted '404 405 200' 'after 404 and 405 the connection goes on' \
    "send:GET /nowhere HTTP/1.1\r\n$H\r\nDELETE /health HTTP/1.1\r\n$H\r\n$LAST"
refused 413 'a body over --max-message, by its length' "send:${P}Content-Length: 65537\r\n\r\nxxx"
refused 413 'by a length beyond all numbers' "send:${P}Content-Length: 99999999999999999999999\r\n\r\nxxx"
refused 413 'by a chunk, at its size line' "send:${C}\r\n10001\r\n"
refused 413 'by the second' "send:${C}\r\n8000\r\n" 'repeat:32768:x' 'send:\r\n8001\r\n'
for length in 4294967296 4294967297 4294967351 18446744073709551615 18446744073709551616; do
    refused 404 "no part of a body of $length bytes is a request" "send:POST /nowhere HTTP/1.1\r\n${H}Content-Length: $length\r\n\r\n$LAST"
    refused 413 "nor one that is too large" "send:${P}Content-Length: $length\r\n\r\n$LAST"
done
for length in 100000000 100000001 100000037 10000000000000000 ffffffffffffffff; do
    refused 404 "nor of a chunk of $length" "send:POST /nowhere HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n$length\r\n$LAST"
    refused 413 "nor of one that is too large" "send:${C}\r\n$length\r\n$LAST"
done
refused 413 'by its chunks' "send:${C}\r\n10001\r\n" 'repeat:65537:x' 'send:\r\n0\r\n\r\n'
refused 413 'by one chunk too many' "send:${C}\r\n10000\r\n" 'repeat:65536:x' 'send:\r\n1\r\ny\r\n0\r\n\r\n'
refused 413 'by a chunk size beyond all numbers' "send:${C}\r\nfffffffffffffffff\r\nabc"
refused 413 'the answer is readable though the upload goes on' "send:${P}Content-Length: 300000\r\n\r\n" 'repeat:300000:x'
problem 'curl, which waits for 100, too' 413 'Content Too Large' /sse/send/http --data-binary "@$tmp/too-large" -H 'Expect: 100-continue'
refused 414 'a target over 4096 bytes' 'send:GET /' 'repeat:4096:a' "send: HTTP/1.1\r\n$H\r\n"
accepted 404 'one of exactly 4096' 'send:GET /' 'repeat:4095:a' "send: HTTP/1.1\r\n$H$CLOSE\r\n"
refused 414 'a target that never ends' 'send:GET /' 'repeat:10000:a'
accepted 200 'a long query within that' 'send:GET /health?' 'repeat:4000:a' "send: HTTP/1.1\r\n$H$CLOSE\r\n"
refused 431 'fields over 16384 bytes' "send:${GET}" 'repeat:1800:X: abcdefg\r\n' 'send:\r\n'
refused 431 'a field that never ends' "send:${GET}X: " 'repeat:20000:a'
refused 431 'a method that never ends' 'repeat:20000:A'
used=$(printf "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: \r\n\r\n" | wc -c)
accepted 200 'exactly 16384 bytes' "send:${GET}${CLOSE}X: " "repeat:$((16384 - used)):a" 'send:\r\n\r\n'
accepted 200 'after an empty line' "send:\r\n${GET}${CLOSE}X: " "repeat:$((16384 - used)):a" 'send:\r\n\r\n'
refused 431 'one more' "send:${GET}${CLOSE}X: " "repeat:$((16385 - used)):a" 'send:\r\n\r\n'
used=$(printf "POST /sse/send/http HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nX: \r\n\r\n" | wc -c)
accepted '202 200' 'and a body of chunks, with 4096 bytes of trailers, after such a head' \
    "send:${C}X: " "repeat:$((16384 - used)):a" 'send:\r\n\r\n300\r\n' 'repeat:768:a' 'send:\r\n1000\r\n' \
    'repeat:4096:b' 'send:\r\n0\r\nX: ' 'repeat:4091:c' "send:\r\n\r\n$LAST"
accepted 431 'trailers without end' "send:${C}\r\n0\r\n" 'repeat:1000:X: abc\r\n'
for coding in 'chunked, gzip' 'chunked, chunked' gzip identity 'chunked;q=1' '"chunked"' '' 'gzip;x=chunked' ', ,'; do
    refused 400 "Transfer-Encoding: $coding" "send:${P}Transfer-Encoding: $coding\r\n\r\n0\r\n\r\n"
done
refused 400 'chunked twice, in two fields' "send:${C}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
refused 400 'chunked not last, in two fields' "send:${C}Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n"
for coding in 'gzip, chunked' 'xchunked, chunked' 'identity,chunked' 'gzip;level=1 , chunked'; do
    refused 501 "Transfer-Encoding: $coding" "send:${P}Transfer-Encoding: $coding\r\n\r\n0\r\n\r\n"
done
refused 501 'in two fields' "send:${P}Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
for version in 2.0 0.9 3.0 9.9; do
    refused 505 "HTTP/$version" "send:GET /health HTTP/$version\r\n$H\r\n"
done
refused 505 'the preface of HTTP/2' 'send:PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
refused 403 'a foreign origin' "send:${P}Origin: http://evil\r\n$CLOSE\r\n"
long_path=$(printf '\\xc3\\xa9%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
accepted 404 'a long path of bytes above ASCII' \
    "send:GET /$long_path$long_path$long_path$long_path HTTP/1.1\r\n$H$CLOSE\r\n"
is 'has its line in the log, with its status' 1 "$(grep -c '%C3%A9%C3%A9.* 404$' "$tmp/main.err")"
accepted 404 'a path with quotes and escapes' "send:GET /%0aGET\"\\\\ HTTP/1.1\r\n$H$CLOSE\r\n"

section 'HTTP: too many connections'
start few --max-connections 3
hold() { # NAME STEP...: a connection that stays open
    _name=$1
    shift
    rm -f "$tmp/$_name.ready"
    launch "$_name" "$RAW" "$PORT" patience:60000 "$@" "touch:$tmp/$_name.ready" patience:60000 eof
    await test -e "$tmp/$_name.ready"
}
for idle in idle1 idle2 idle3; do hold $idle "send:${GET}\r\n" 'wait:}\n'; done
is 'one more is served' 200 "$(status /health)"
is 'the one idle longest has made room' 0 "$(ended idle1)"
is 'the others have not' '' "$(cat "$tmp/idle2.exit" "$tmp/idle3.exit" 2>/dev/null)"
for stream in held1 held2 held3; do
    hold $stream "send:GET /sse/connect/$stream HTTP/1.1\r\n$H\r\n" "wait:$BEAT"
done
is 'streams do not make room: 503 in a problem document' 1 \
    "$(get /sse/connect/held4 | grep -c '^503 {"title":"Service Unavailable","status":503,"detail":".*"}$')"
is 'with Retry-After' 5 "$(field retry-after)"
is 'and its type' application/problem+json "$(field content-type)"
is 'while all streams that may be are open, health is answered' 200 "$(status /health)"
is 'and metrics' 200 "$(status /metrics)"
is 'and sends, large ones too' 202 "$(status /sse/send/held1 --data-binary "@$tmp/large")"
is 'and HEAD' 200 "$(status /sse/connect/held4 -I)"
is 'on one connection after the other' '202 closed' "$(answers "send:$(to held1 1)" eof)"
is 'and disconnects' 200 "$(status /sse/disconnect/held3)"
ended held3 >/dev/null
hold held3 "send:GET /sse/connect/held3 HTTP/1.1\r\n$H\r\n" "wait:$BEAT"
is 'after which there is room for a stream' 1 "$(grep -c "held3' connected" "$tmp/held3.out")"
# of 16 more each has sent half a request, or half a handshake: no connection is left
if over_https; then
    hello='\x16\x03\x01\x00\x2c\x01\x00\x00\x28\x03\x03'
    is 'a handshake in two pieces gets no plain answer' 0 \
        "$("$RAW" -p "$PORT" "send:$hello" quiet:100 send:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA eof | grep -c HTTP)"
    rm -f "$tmp/reserve.ready"
    launch reserve "$RAW" -p "$PORT" patience:60000 "send:$hello" "crowd:15:$hello" "touch:$tmp/reserve.ready" eof
    await test -e "$tmp/reserve.ready"
    told='raw ended with [1-9]*'
else
    hold reserve "send:$P" "crowd:15:$P"
    told='503 closed'
fi
refused_all() { answers "send:$LAST" 2>/dev/null | grep -q "^$told"; }
eventually 'where no connection is left: 503, which can be read, though the request was not' refused_all
over_https || is 'with Retry-After' 1 "$(grep -c '^Retry-After: 5' "$tmp/answer")"
over_https || is 'and its type' 1 "$(grep -c '^Content-Type: application/problem+json' "$tmp/answer")"
end reserve
ended reserve >/dev/null
end held2
ended held2 >/dev/null
room() { [ "$(status /health)" = 200 ]; }
eventually 'when one leaves there is room' room
is 'the streams go on' 1 "$(post /sse/send/held1 news | grep -c '"delivered":1}')"
end held1
end held3
ended held1 >/dev/null
ended held3 >/dev/null
stop few

start crowded --max-connections 2
hold only1 "send:GET /sse/connect/a HTTP/1.1\r\n$H\r\n" "wait:$BEAT"
hold only2 "send:GET /sse/connect/a HTTP/1.1\r\n$H\r\n" "wait:$BEAT"
seq 1 100 | sed "s,.*,url = $URL/sse/connect/b?&," >"$tmp/urls"
over_https || is 'a hundred at once can read it too' '100 503' \
    "$(curl -qsZ --noproxy '*' --parallel-max 100 -m 30 -K "$tmp/urls" -w '%{http_code}\n' 2>/dev/null |
        grep -o '[0-9]*$' | sort | uniq -c | sed 's/^ *//' | tr '\n' ' ' | sed 's/ $//')"
end only1
end only2
ended only1 >/dev/null
ended only2 >/dev/null
turned_away() { [ "$(metric 'sse_refusals_total{reason="max_connections"}')" -ge 100 ] 2>/dev/null; } # asking may be, too
over_https || eventually 'and is counted' turned_away
stop crowded

start large-bodies --max-message 2000000 # the budget of 4 MiB then holds the least there is, four
hold streams "crowd:5:GET /sse/connect/with-body HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" \
    "send:${GET}\r\n" 'wait:}\n'
eventually 'five streams whose requests had bodies' status_is with-body Connected 5
is 'take none of it' 202 "$(status /sse/send/http --data-binary "@$tmp/too-large")"
end streams
ended streams >/dev/null
hold bodies "crowd:4:${P}Content-Length: 65537\r\n\r\nab" "send:${GET}\r\n" 'wait:}\n'
fifth() { answers "send:${P}Content-Length: 65537\r\n\r\nab" patience:2000 | grep -q '^503 closed'; }
eventually 'beyond the budget for large bodies: 503' fifth
is 'with Retry-After' 1 "$(grep -c '^Retry-After: 5' "$tmp/answer")"
is 'small ones are taken' 202 "$(status /sse/send/http -d small)"
within 'it is counted' 1 1000 "$(metric 'sse_refusals_total{reason="bodies"}')"
end bodies
ended bodies >/dev/null
sixth() { [ "$(status /sse/send/http --data-binary "@$tmp/too-large")" = 202 ]; }
eventually 'when they have gone, large ones too' sixth
stop large-bodies

# ==== Origins =====================================================================================

section 'Origins'
use main
origin() { # STATUS WHAT PATH CURL-OPTIONS...
    _want=$1 _what=$2
    shift 2
    is "$_what" "$_want" "$(status "$@")"
}
for path in /sse/connect/alice /sse/disconnect/alice /sse/status/alice /sse/users /sse/task/alice /sse/task-with-obj/alice; do
    problem "GET $path from a foreign page" 403 Forbidden "$path" -H 'Origin: http://evil.example'
    origin 403 "GET $path by another site" "$path" -H 'Sec-Fetch-Site: cross-site'
    origin 403 "GET $path by a rebound name" "$path" -H 'Host: evil.example'
done
for path in /sse/send/alice /sse/broadcast /sse/disconnect/alice /sse/task/alice; do
    origin 403 "POST $path from a foreign page" "$path" -d x -H 'Origin: http://evil.example'
done
is 'no CORS field is sent where nothing is listed' '' "$(grep -i -e '^access-control' -e '^vary' "$tmp/head")"
origin 200 'health is open to all' /health -H 'Origin: http://evil.example' -H 'Host: evil.example'
for from in "http://127.0.0.1:$PORT" "https://127.0.0.1:$PORT"; do
    origin 200 "own: $from" /sse/users -H "Origin: $from"
done
origin 200 'own, by name' /sse/users -H "Origin: http://localhost:$PORT" -H "Host: LOCALHOST:$PORT"
origin 200 'own, with the default port' /sse/users -H 'Origin: http://localhost' -H 'Host: localhost:80'
over_https && origin 403 'the plain page of the same host is not' /sse/users -H 'Origin: http://localhost' -H 'Host: localhost'
origin 200 'own, with that of https' /sse/users -H 'Origin: https://localhost:443' -H 'Host: localhost'
accepted 403 'an empty Origin' "send:GET /sse/users HTTP/1.1\r\n${H}Origin:\r\n$CLOSE\r\n"
for from in "http://127.0.0.1:1" http://127.0.0.1 "http://localhost:$PORT" null "http://127.0.0.1:$PORT.evil" \
    "http://127.0.0.1:$PORT/" "http://evil@127.0.0.1:$PORT" "127.0.0.1:$PORT" "http://127.0.0.1:${PORT}0"; do
    origin 403 "not own: '$from'" /sse/users -H "Origin: $from"
done
for site in same-origin none; do origin 200 "Sec-Fetch-Site: $site" /sse/users -H "Sec-Fetch-Site: $site"; done
for site in same-site cross-site x; do origin 403 "Sec-Fetch-Site: $site" /sse/users -H "Sec-Fetch-Site: $site"; done
for host in localhost 127.0.0.1 '[::1]' 10.1.2.3:99 "localhost:1"; do
    origin 200 "on loopback, Host $host" /sse/users -H "Host: $host"
done
for host in evil.example localhost.evil.example 127.0.0.1.evil.example 127.1 localhost. 1; do
    origin 403 "on loopback, Host $host" /sse/users -H "Host: $host"
done
origin 403 'a rebound name, although the page is its own' /sse/users -H 'Host: evil.example' -H 'Origin: http://evil.example'
origin 403 'the same with Sec-Fetch-Site' /sse/users -H 'Host: evil.example' -H 'Sec-Fetch-Site: same-origin'
accepted 403 'a rebound name in absolute-form' "send:GET http://evil.example/sse/users HTTP/1.1\r\n$H$CLOSE\r\n"
has 'the 403 says what to do' '--cors' "$(get /sse/users -H 'Host: evil.example')"
is 'a preflight of a foreign page allows nothing' '204 ' \
    "$(status /sse/users -X OPTIONS -H 'Origin: http://evil.example' -H 'Access-Control-Request-Method: GET') $(field access-control-allow-origin)"

section 'Origins: listed'
start listing --cors https://app.example --cors=http://other.example:81
APP='Origin: https://app.example'
cors() { # PATH [CURL OPTIONS...]: the fields a browser looks at
    status "$@" >/dev/null
    grep -i -e '^access-control' -e '^vary' "$tmp/head" | tr -d '\r' | tr '\n' '|'
}
echoed='Vary: Origin|Access-Control-Allow-Origin: https://app.example|Access-Control-Allow-Credentials: true|Access-Control-Expose-Headers: Retry-After|'
origin 200 'a listed origin' /sse/users -H "$APP"
is 'is echoed' "$echoed" "$(cors /sse/users -H "$APP")"
is 'on errors too' "$echoed" "$(cors /nowhere -H "$APP")"
is 'and on 405' "$echoed" "$(cors /sse/send/alice -H "$APP")"
is 'and on health' "$echoed" "$(cors /health -H "$APP")"
open cors alice -i -H "$APP"
is 'and on streams' 1 "$(tr -d '\r' <"$tmp/cors.out" | grep -c '^Access-Control-Allow-Origin: https://app.example$')"
hang_up cors
origin 200 'the other' /sse/users -H 'Origin: http://other.example:81'
origin 200 'with its default port' /sse/users -H 'Origin: https://app.example:443'
has 'is echoed as it was sent' 'Origin: https://APP.example:443|' "$(cors /sse/users -H 'Origin: https://APP.example:443')"
for from in http://app.example https://app.example:444 https://app.example.evil https://xapp.example http://other.example; do
    origin 403 "not listed: $from" /sse/users -H "Origin: $from"
done
is 'who is not listed gets Vary alone' 'Vary: Origin|' "$(cors /sse/users -H 'Origin: http://evil.example')"
is 'as do programs' 'Vary: Origin|' "$(cors /sse/users)"
origin 200 'the host of a listed origin is a name for this machine' /sse/users -H 'Host: app.example'
origin 403 'others are not' /sse/users -H 'Host: evil.example'
is 'a preflight is answered' \
    "204 ${echoed}Access-Control-Allow-Headers: Authorization, Cache-Control, Content-Type, Last-Event-ID, Pragma, X-Requested-With|Access-Control-Max-Age: 600|Access-Control-Allow-Methods: POST, OPTIONS|" \
    "$(status /sse/send/alice -X OPTIONS -H "$APP" -H 'Access-Control-Request-Method: POST') $(cors /sse/send/alice -X OPTIONS -H "$APP")"
stop listing
start any-origin --cors '*'
origin 200 'with * every origin' /sse/users -H 'Origin: http://evil.example'
is 'gets the star, without credentials' \
    'Vary: Origin|Access-Control-Allow-Origin: *|Access-Control-Expose-Headers: Retry-After|' "$(cors /sse/users -H 'Origin: null')"
origin 200 'and every Host' /sse/users -H 'Host: any.example'
origin 403 'but not without an Origin' /sse/users -H 'Sec-Fetch-Site: cross-site'
stop any-origin
start everywhere --bind 0.0.0.0
origin 200 'beyond loopback every Host is served' /sse/users -H 'Host: my.example'
origin 200 'and is own' /sse/users -H 'Host: my.example' -H "Origin: $SCHEME://my.example"
origin 403 'a foreign page is not' /sse/users -H 'Host: my.example' -H 'Origin: http://evil.example'
stop everywhere

# ==== HTTPS =======================================================================================

if over_https; then
section 'HTTPS'
use main
shake() { # OPTIONS...: what openssl s_client tells of a handshake; nothing is said after it
    openssl s_client -connect "127.0.0.1:$PORT" -CAfile "$tmp/first.pem" "$@" </dev/null 2>&1
}
shakes() { shake "$@" | grep -q '^ *Verify return code: 0 (ok)'; }
ciphers() { shake "$@" | sed -n 's/^New, [^,]*, Cipher is \(.*\)$/\1/p'; }
for version in tls1_2 tls1_3; do
    is "$version is spoken" yes "$(shakes "-$version" && echo yes)"
done
for version in tls1 tls1_1; do
    is "$version is not" '(NONE)' "$(ciphers "-$version" -cipher 'ALL:@SECLEVEL=0')"
done
for cipher in ECDHE-ECDSA-AES256-SHA ECDHE-ECDSA-AES128-SHA256 ECDHE-ECDSA-AES128-CCM; do
    is "without $cipher" '(NONE)' "$(ciphers -tls1_2 -cipher "$cipher:@SECLEVEL=0")"
done
for cipher in ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305; do
    is "with $cipher" "$cipher" "$(ciphers -tls1_2 -cipher "$cipher")"
done
for group in ffdhe2048 ffdhe8192; do
    is "without $group, which is dear" '(NONE)' "$(ciphers -tls1_3 -groups "$group")"
done
for group in X25519 P-256 P-384; do
    is "with $group" TLS_AES_256_GCM_SHA384 "$(ciphers -tls1_3 -groups "$group")"
done
is 'without renegotiation' 1 "$(printf 'R\n' | openssl s_client -connect "127.0.0.1:$PORT" -tls1_2 2>&1 | grep -c 'no renegotiation')"
for protocol in http/1.1 http/1.0 'h2,http/1.1' 'http/1.0,http/1.1'; do
    expected=http/1.1
    [ "$protocol" != http/1.0 ] || expected=http/1.0
    is "ALPN $protocol" "ALPN protocol: $expected" "$(shake -alpn "$protocol" | grep '^ALPN protocol')"
done
has 'ALPN h2 alone is refused' 'no application protocol' "$(shake -alpn h2)"
is 'without ALPN' 'No ALPN negotiated' "$(shake | grep '^No ALPN')"
eventually 'a client that has closed is forgotten' health_is connections 1
shake -tls1_2 -sess_out "$tmp/session" >/dev/null
is 'a session is resumed by its ticket' 1 "$(shake -tls1_2 -sess_in "$tmp/session" | grep -c '^Reused')"

plainly() { "$RAW" -p "$PORT" "$@" 2>/dev/null; }
plainly "send:$GET\r\n" eof >"$tmp/answer"
is 'plain HTTP: 400, and closed' '0 1' "$? $(grep -c '^HTTP/1.1 400 ' "$tmp/answer")"
is 'in a problem document that says https' 1 "$(grep -c '^{"title":"Bad Request","status":400,"detail":".*https://"}' "$tmp/answer")"
is 'HEAD without a body' 1 "$(plainly "send:HEAD /health HTTP/1.1\r\n$H\r\n" eof | grep -c '^HTTP/1.1 400 \|^{')"
is 'POST with one' 1 "$(plainly "send:POST /sse/send/plain HTTP/1.1\r\n${H}Content-Length: 2\r\n\r\nhi" eof | grep -c '^HTTP/1.1 400 ')"
is 'curl is told so' 400 "$(SCHEME=http; use main; status /health)"
is 'and nothing was done' 404 "$(status /sse/status/plain)"
for bytes in '\0' '\x80\x2e\x01\x03\x01' '\xff\xff\xff\xff' '\x16\x03\x01\x00\x05hello' '\x16\x03\x01\xff\xff' '\x15\x03\x01\x00\x02\x02\x28' '\r\n\r\n'; do
    plainly patience:15000 "send:$bytes" shut eof >/dev/null
    is "garbage ($bytes) ends" yes "$(case $? in 0 | 4) echo yes ;; esac)"
done
is 'and the next client is served' 200 "$(status /health)"
long=$(awk 'BEGIN { for (i = 0; i < 90; i++) { for (n = 0; n < 230; n++) printf "a"; printf "," } print "http/1.1" }')
is 'a greeting of 20 KB is refused' '(NONE)' "$(ciphers -alpn "$long")"
failures=$(metric 'sse_refusals_total{reason="handshake"}')
within 'handshakes that fail are counted' 1 1000 "$failures"
for n in 1 2 3; do plainly shut eof >/dev/null; done
is 'a connection that only looks whether somebody is there is none' "$failures" "$(metric 'sse_refusals_total{reason="handshake"}')"
is 'one of 10 KB is not' yes "$(shakes -alpn "$(echo "$long" | cut -c 1-9900),http/1.1" && echo yes)"

start stalled --max-connections 40
plainly "crowd:39:\x16\x03\x01\x02\x00\x01\x00" "touch:$tmp/stalling" "until:$tmp/stalled" >/dev/null &
await test -e "$tmp/stalling"
is 'handshakes that stall delay nobody' 200 "$(status /health)"
seq 1 20 | sed "s,.*,url = $URL/health?&," >"$tmp/urls"
served() { # how many of 20 at once are served
    curl -qsZ --noproxy '*' --parallel-max 20 -m 30 -K "$tmp/urls" -w '%{http_code}\n' 2>/dev/null | grep -c '200$'
}
eventually 'nor do they keep their places: they make room' test "$(await served >/dev/null; served)" -ge 1
twenty_served() { [ "$(served)" = 20 ]; }
eventually 'for twenty at once' twenty_served
touch "$tmp/stalled"
stop stalled

section 'HTTPS: new keys, again and again'
start rekeyed --max-connections 2 --max-users 4 --history 1000 --history-bytes 20000000
for name in rekeys rekeys-too; do
    launch $name "$RAW" "$PORT" rcvbuf:4096 deaf patience:60000 keyupdate:1000000 "touch:$tmp/$name.blocked" "until:$tmp/nobody-makes-this"
done
await test -e "$tmp/rekeys.blocked"
await test -e "$tmp/rekeys-too.blocked"
ticks() { awk '{ print $14 + $15 }' "/proc/$PID/stat"; }
calm() { # for a second; there may be some of it left to read before
    _before=$(ticks) _began=$(now)
    while [ $(($(now) - _began)) -lt 1000 ]; do nap; done
    [ $(($(ticks) - _before)) -le 10 ]
}
if is_linux && [ -z "$SANITIZED" ]; then
    is 'whoever asks for them and reads no answer costs nothing, once it can say no more' calm \
        "$(for _try in 1 2 3 4 5 6 7 8 9 10; do if calm; then echo calm; break; fi; done)"
fi
is 'and makes room' 200 "$(status /health)"
end rekeys
end rekeys-too
ended rekeys >/dev/null
ended rekeys-too >/dev/null
launch rekeyed-stream "$RAW" "$PORT" rcvbuf:4096 deaf patience:60000 "send:GET /sse/connect/keys HTTP/1.1\r\n$H\r\n" \
    "until:$tmp/behind" keyupdate:3 "touch:$tmp/asked" "until:$tmp/all-sent" 'wait:the last one\n\n'
await status_is keys Connected 1
n=0
until post /sse/send/keys "@$tmp/60000" >/dev/null && grep -q '"delivered":0' "$tmp/body" || [ $n -gt 200 ]; do n=$((n + 1)); done
: >"$tmp/behind"
await test -e "$tmp/asked"
post /sse/send/keys 'the last one' >/dev/null
: >"$tmp/all-sent"
await over rekeyed-stream || await over rekeyed-stream # megabytes, through a window of 4 KiB
is 'a stream that asks for them while it is behind' 0 "$(ended rekeyed-stream)"
is 'gets everything' "$((n + 2))" "$(grep -c '^id: .*-[1-9][0-9]*$' "$tmp/rekeyed-stream.out")"
rekeying_noticed() { # while others are served, each within a second; the best of three
    for _try in 1 2 3; do
        rm -f "$tmp/rekeyed"
        launch rekeying "$RAW" "$PORT" patience:60000 "send:GET /sse/connect/rekeying HTTP/1.1\r\n$H\r\n" \
            "wait:$BEAT" keyupdate:15000 shut "touch:$tmp/rekeyed" eof
        _most=0
        until [ -e "$tmp/rekeyed" ] || over rekeying; do
            _since=$(now)
            [ "$(status /health)" = 200 ] || return 1
            _took=$(($(now) - _since))
            [ $_took -le $_most ] || _most=$_took
        done
        _since=$(now)
        await status_is rekeying Disconnected 0
        _took=$(($(now) - _since))
        ended rekeying >/dev/null
        if [ -e "$tmp/rekeyed" ] && [ $_took -le $((1000 + SLACK)) ] && [ $_most -le $((1000 + SLACK)) ]; then return 0; fi
    done
    return 1
}
if rekeying_noticed; then pass 'one that asks 15,000 times and half-closes is noticed within a second'
else fail 'one that asks 15,000 times and half-closes is noticed within a second' "took $_took ms; a request of another $_most ms"; fi
stop rekeyed

section 'HTTPS: certificates'
for name in second third; do certificate $name; done
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=rsa -keyout "$tmp/rsa-key.pem" -out "$tmp/rsa.pem" 2>"$tmp/openssl.err"
cp "$tmp/second.pem" "$tmp/cert.pem"
cp "$tmp/second-key.pem" "$tmp/key.pem"
with_cert() { launch brief "$BARE" --port 0 "$@"; _status=$(ended brief); echo "$_status $(grep -c '' "$tmp/brief.err")"; }
bad_cert() { # STATUS WHAT MUST-SAY CERT KEY
    is "$2" "$1 1" "$(with_cert --cert "$4" --key "$5")"
    has "$2: is told" "$3" "$(cat "$tmp/brief.err")"
}
printf 'no certificate\n' >"$tmp/none.pem"
launch rsa "$BARE" --port 0 --cert "$tmp/rsa.pem" --key "$tmp/rsa-key.pem"
await ready rsa
use rsa
for cipher in AES128-SHA AES256-GCM-SHA384 ECDHE-RSA-AES256-SHA DHE-RSA-AES128-GCM-SHA256 NULL-SHA256; do
    is "with an RSA key, without $cipher" '(NONE)' "$(ciphers -tls1_2 -cipher "$cipher:@SECLEVEL=0")"
done
for cipher in ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-CHACHA20-POLY1305; do
    is "with $cipher" "$cipher" "$(ciphers -tls1_2 -cipher "$cipher")"
done
end rsa
ended rsa >/dev/null
openssl pkcs8 -topk8 -v2 aes128 -passout pass:secret -in "$tmp/second-key.pem" -out "$tmp/locked.pem"
bad_cert 1 'a certificate that is not there' "cannot read $tmp/nowhere.pem: No such file" "$tmp/nowhere.pem" "$tmp/key.pem"
bad_cert 1 'a key that is not there' "cannot read $tmp/nowhere.pem: No such file" "$tmp/cert.pem" "$tmp/nowhere.pem"
bad_cert 1 'a file that holds no certificate' "$tmp/none.pem holds no chain of certificates" "$tmp/none.pem" "$tmp/key.pem"
bad_cert 1 'a file that holds no key' "$tmp/none.pem holds no unencrypted key" "$tmp/cert.pem" "$tmp/none.pem"
bad_cert 1 'the key of another certificate' 'belongs to the certificate' "$tmp/cert.pem" "$tmp/third-key.pem"
bad_cert 1 'an encrypted key' 'holds no unencrypted key' "$tmp/cert.pem" "$tmp/locked.pem"
is '--cert without --key' '2 1' "$(with_cert --cert "$tmp/cert.pem")"
has '--cert without --key: is told' '--key' "$(cat "$tmp/brief.err")"
is '--key without --cert' '2 1' "$(with_cert --key "$tmp/key.pem")"
is '--cert with nothing' '2 1' "$(with_cert --cert '' --key "$tmp/key.pem")"

launch renewed "$BARE" --port 0 --heartbeat 3600 --cert "$tmp/cert.pem" --key "$tmp/key.pem"
await ready renewed
CURL_CA_BUNDLE=$tmp/second.pem
use renewed
open lasting lasting
serial() { openssl s_client -connect "127.0.0.1:$PORT" </dev/null 2>/dev/null | openssl x509 -noout -subject; }
is 'it serves its certificate' 'subject=CN = second' "$(serial)"
logged() { [ "$(grep -c "$1" "$tmp/renewed.err")" = "$2" ]; }
cp "$tmp/third.pem" "$tmp/cert.pem"
end renewed HUP
eventually 'SIGHUP when only half is renewed: it is told' logged '^the old certificate and key stay: .* belongs to the certificate$' 1
is 'and the old one stays' 'subject=CN = second' "$(serial)"
mv "$tmp/key.pem" "$tmp/key.old"
end renewed HUP
eventually 'SIGHUP when a file is missing' logged 'stay: cannot read .*key.pem: No such file' 1
cp "$tmp/third-key.pem" "$tmp/key.pem"
end renewed HUP
eventually 'SIGHUP when both are renewed' logged '^certificate and key were read again$' 1
is 'the new one is served' 'subject=CN = third' "$(serial)"
CURL_CA_BUNDLE=$tmp/third.pem
is 'the stream of before goes on' '"streams":1,"delivered":1' "$(post /sse/send/lasting on | grep -o '"streams":1,"delivered":1')"
eventually 'with what is sent now' saw lasting '^data: on$'
n=0
while [ $n -lt 50 ]; do
    n=$((n + 1))
    end renewed HUP
    [ $((n % 10)) -ne 0 ] || status /health >/dev/null
done
is 'fifty more do no harm' 200 "$(status /health)"
hang_up lasting
end renewed
is 'and it stops in order' 0 "$(ended renewed)"
CURL_CA_BUNDLE=$tmp/first.pem

# ==== Tokens ======================================================================================

section 'Tokens'
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
signed() { # HEADER CLAIMS [SECRET], encoded
    printf '%s.%s.%s' "$1" "$2" "$(printf '%s' "$1.$2" | openssl dgst -sha256 -hmac "${3-$SECRET}" -binary | base64url)"
}
token() { # CLAIMS [HEADER [SECRET]]
    signed "$(printf '%s' "${2-$JWT}" | base64url)" "$(printf '%s' "$1" | base64url)" "${3-$SECRET}"
}
JWT='{"alg":"HS256","typ":"JWT"}'
SECRET=$(openssl rand -hex 32)
printf '%s\n' "$SECRET" >"$tmp/secret"
later=$(($(date +%s) + 3600))
alice=$(token "{\"sub\":\"alice\",\"exp\":$later}")
publisher=$(token "{\"exp\":$later,\"scope\":\"openid sse:publish\"}")
admin=$(token "{\"sub\":\"root\",\"exp\":$later,\"scope\":\"sse:admin\"}")
WITH_TLS=$SSE
SSE=$BARE SCHEME=http
start guarded --auth-secret "$tmp/secret" --cors https://app.example

problem 'without a token' 401 Unauthorized /sse/status/alice
is 'the challenge is Bearer' Bearer "$(field www-authenticate)"
has 'and says where it goes' 'Authorization: Bearer TOKEN' "$(cat "$tmp/body")"
bearer() { # TOKEN PATH [CURL OPTIONS...]: the status
    _token=$1
    shift
    status "$@" -H "Authorization: Bearer $_token"
}
is 'a token that is good lets its user read the status' 404 "$(bearer "$alice" /sse/status/alice)"
is 'in the query' 404 "$(status "/sse/status/alice?access_token=$alice")"
is 'as a cookie' 404 "$(status /sse/status/alice -b "a=b; sse_token=$alice; c=d")"
is 'the scheme in any case' 404 "$(status /sse/status/alice -H "Authorization: bEARER   $alice")"
one_of() { # STATUS WHAT CURL-OPTIONS...
    _want=$1 _what=$2
    shift 2
    is "$_what" "$_want" "$(status "$@")"
}
one_of 401 'the header counts before the query' "/sse/status/alice?access_token=$alice" -H 'Authorization: Bearer x'
one_of 401 'an empty one too' "/sse/status/alice?access_token=$alice" -H 'Authorization: Bearer'
one_of 404 'and the other way round' '/sse/status/alice?access_token=x' -H "Authorization: Bearer $alice"
one_of 404 'another scheme is none of ours' "/sse/status/alice?access_token=$alice" -H 'Authorization: Basic eDp5'
one_of 401 'the query counts before the cookie' '/sse/status/alice?access_token=x' -b "sse_token=$alice"
one_of 404 'and the other way round' "/sse/status/alice?access_token=$alice" -b sse_token=x
one_of 404 'an empty parameter is none' '/sse/status/alice?access_token=' -b "sse_token=$alice"
one_of 404 'an empty cookie is none' /sse/status/alice -b "sse_token=; sse_token=$alice"
one_of 401 'a cookie of another name' /sse/status/alice -b "xsse_token=$alice; SSE_TOKEN=$alice"
one_of 400 'two Authorization fields' /sse/status/alice -H "Authorization: Bearer $alice" -H 'Authorization: Bearer x'
one_of 404 'two Cookie fields, the token in the first' /sse/status/alice -H "Cookie: sse_token=$alice" -H 'Cookie: x=y'
one_of 404 'or in the last' /sse/status/alice -H 'Cookie: x=y' -H 'Cookie: z' -H "Cookie: a=b; sse_token=$alice"

unsigned='this server'\''s secret'
invalid() { # WHAT TOKEN [MUST-SAY]
    is "$1: 401" '401 Bearer' "$(bearer "$2" /sse/status/alice) $(field www-authenticate)"
    has "$1: is told" "${3-$unsigned}" "$(cat "$tmp/body")"
}
with() { token "{\"sub\":\"alice\",\"exp\":$later}" "$1"; } # HEADER
invalid 'alg none' "$(with '{"alg":"none"}')"
invalid 'alg none, unsigned' "$(with '{"alg":"none"}' | sed 's/[^.]*$//')"
for alg in '"HS512"' '"RS256"' '"hs256"' '"HS256 "' '""' null 1 '["HS256"]' '{"HS256":1}'; do
    invalid "alg $alg" "$(with "{\"alg\":$alg}")"
done
invalid 'no alg' "$(with '{"typ":"JWT"}')"
invalid 'alg twice' "$(with '{"alg":"HS256","alg":"HS256"}')"
invalid 'alg twice, once escaped' "$(with '{"alg":"HS256","\u0061lg":"none"}')"
invalid 'crit' "$(with '{"alg":"HS256","crit":["exp"]}')"
invalid 'crit and b64' "$(with '{"alg":"HS256","b64":false,"crit":["b64"]}')"
invalid 'another typ' "$(with '{"alg":"HS256","typ":"JOSE"}')"
invalid 'a typ that is no string' "$(with '{"alg":"HS256","typ":7}')"
for header in '' '[]' '"HS256"' '{' '{}' '{"alg":"HS256"}x' "{'alg':'HS256'}" '{"alg":"HS256",}' '{"alg" "HS256"}' '{alg:"HS256"}'; do
    invalid "header '$header'" "$(with "$header")"
done
is 'other members of the header are nobody'\''s business' 404 "$(bearer "$(with ' { "kid" : [1, {"a":"b"}], "typ":"at+JWT", "alg" : "\u0048S256" } ')" /sse/status/alice)"
part() { printf '%s' "$alice" | cut -d . -f "$1"; } # N
changed=$(printf '{"sub":"alice","exp":%s,"scope":"sse:admin"}' "$later" | base64url)
invalid 'claims that were changed' "$(part 1).$changed.$(part 3)"
invalid 'the secret of somebody else' "$(token "{\"sub\":\"alice\",\"exp\":$later}" "$JWT" "$(openssl rand -hex 32)")"
invalid 'no signature' "$(part 1).$(part 2)."
invalid 'two parts' "$(part 1).$(part 2)"
invalid 'four parts' "$alice."
invalid 'five, as a JWE has' "$alice.$(part 1).$(part 2)"
invalid 'padding' "$alice="
invalid 'half a signature' "$(printf '%s' "$alice" | sed 's/.\{20\}$//')"
invalid 'a character more' "${alice}A"
last=$(printf '%s' "$alice" | sed 's/.*\(.\)$/\1/')
invalid 'bits that are left over' "$(printf '%s' "$alice" | sed 's/.$//')$(printf '%s' "$last" | tr 'AEIMQUYcgkosw048' 'BFJNRVZdhlptx159')"
invalid 'base64 of the other kind' "$(part 1).$(part 2).$(printf '%s' "$alice" | openssl dgst -sha256 -hmac "$SECRET" -binary | openssl base64 -A)"
invalid 'padding within' "$(signed "$(part 1)" "$(part 2)==")"
invalid 'spaces within' "$(part 1). $(part 2).$(part 3)"
for text in x . .. ... 'a.b.c' '"' "Bearer $alice"; do invalid "token '$text'" "$text"; done
longest() { token "{\"sub\":\"alice\",\"exp\":$later,\"x\":\"$(printf "%0$1d" 0)\"}"; } # DIGITS
n=$(longest 1400 | wc -c)
fill=$((1400 + (2048 - n) * 3 / 4))
within 'a token of almost 2048 bytes' 2040 2048 "$(longest $fill | wc -c)"
is 'is taken' 404 "$(bearer "$(longest $fill)" /sse/status/alice)"
invalid 'one that is longer' "$(longest $((fill + 9)))" 'too long'
is 'in the query too' '401 1' "$(status "/sse/status/alice?access_token=$(longest $((fill + 9)))") $(grep -c 'too long' "$tmp/body")"

claim() { # WHAT MUST-SAY CLAIMS
    invalid "$1" "$(token "$3")" "$2"
}
claim 'no exp' 'must have an exp' '{"sub":"alice"}'
for exp in '"'$later'"' null true '['$later']' '{}'; do
    claim "exp $exp" 'must have an exp, and it and nbf must be numbers' "{\"sub\":\"alice\",\"exp\":$exp}"
done
for exp in 0 1 -1 -99999999999 $((later - 3601)) $((later - 3601)).9; do
    claim "exp $exp" 'has expired' "{\"sub\":\"alice\",\"exp\":$exp}"
done
for exp in 01 +$later .5 5. 0x1 $later.; do
    claim "exp $exp" 'must be numbers' "{\"sub\":\"alice\",\"exp\":$exp}"
done
for exp in $later.5 99999999999 99999999999999999999999999 1e10 1E+10 25000000000e-1; do
    is "exp $exp" 404 "$(bearer "$(token "{\"sub\":\"alice\",\"exp\":$exp}")" /sse/status/alice)"
done
claim 'nbf to come' 'not valid yet' "{\"sub\":\"alice\",\"exp\":$later,\"nbf\":$((later - 60))}"
claim 'nbf to come, in another notation' 'not valid yet' "{\"sub\":\"alice\",\"exp\":1e11,\"nbf\":1e10}"
is 'nbf by a clock that is somewhat ahead' 404 "$(bearer "$(token "{\"sub\":\"alice\",\"exp\":$later,\"nbf\":$((later - 3600 + 30))}")" /sse/status/alice)"
claim 'nbf as a string' 'must be numbers' "{\"sub\":\"alice\",\"exp\":$later,\"nbf\":\"1\"}"
is 'nbf past' 404 "$(bearer "$(token "{\"sub\":\"alice\",\"exp\":$later,\"nbf\":$((later - 3700)),\"iat\":1,\"iss\":\"x\",\"jti\":\"y\"}")" /sse/status/alice)"
for sub in 7 null '["alice"]' true '{}'; do claim "sub $sub" 'must be strings' "{\"sub\":$sub,\"exp\":$later}"; done
for scope in 7 null '["sse:admin"]'; do claim "scope $scope" 'must be strings' "{\"sub\":\"alice\",\"exp\":$later,\"scope\":$scope}"; done
claim 'aud' 'audience' "{\"sub\":\"alice\",\"exp\":$later,\"aud\":\"sse\"}"
claim 'sub twice' 'comes once' "{\"sub\":\"alice\",\"sub\":\"alice\",\"exp\":$later}"
claim 'sub twice, once escaped' 'comes once' "{\"sub\":\"bob\",\"\\u0073ub\":\"alice\",\"exp\":$later}"
claim 'exp twice' 'comes once' "{\"sub\":\"alice\",\"exp\":1,\"exp\":$later}"
for claims in '' '[]' null 7 '"x"' "{\"exp\":$later}}" "{\"exp\":$later},{}" "{\"exp\":$later,\"a\":\"\\x\"}" "{\"exp\":$later,\"a\":\"\\ud800\"}" \
    "{\"exp\":$later,\"a\":[[[[[[[[[[1]]]]]]]]]]}" "{\"exp\":$later,\"a\":[1}" "{\"exp\":$later,}" \
    "{\"exp\":$later,\"a\":\"$(printf '\001')\"}" "{\"exp\":$later,\"a\":\"$(printf '\377')\"}" "$(printf '\357\273\277'){\"exp\":$later}"; do
    claim "claims $claims" 'not a JSON object' "$claims"
done
for space in ' ' "$(printf '\t')" '
'; do
    claim "exp past, and white space" 'has expired' "{\"sub\":\"alice\",\"exp\":1$space}"
    claim "exp past, and more of it" 'has expired' "{$space\"exp\"$space:$space$((later - 3601))$space,$space\"sub\"$space:$space\"alice\"$space}"
    claim 'nbf to come, and white space' 'not valid yet' "{\"sub\":\"alice\",\"exp\":$later,\"nbf\":$later$space}"
    is 'a good one, and white space' 404 "$(bearer "$(token "{$space\"exp\"$space:$space$later$space,\"nbf\":1$space,\"sub\":\"alice\"$space}")" /sse/status/alice)"
done
many=$(awk 'BEGIN { for (i = 0; i < 100; i++) printf "\"m%d\":1,", i }')
is 'other claims, however many' 404 "$(bearer "$(token "{$many\"sub\":\"alice\",\"exp\":$later}")" /sse/status/alice)"
is 'sub may be escaped' 404 "$(bearer "$(token "{\"sub\":\"\\u0061\\u006cice\",\"exp\":$later}")" /sse/status/alice)"
cafe=$(token "{\"sub\":\"caf\\u00e9 \\ud83d\\ude42\",\"exp\":$later}")
is 'and hold any character' 404 "$(bearer "$cafe" '/sse/status/caf%C3%A9%20%F0%9F%99%82')"

section 'Tokens: who may do what'
may() { # STATUS WHO TOKEN PATH [CURL OPTIONS...]
    _want=$1 _who=$2 _token=$3
    shift 3
    is "$_who: $*" "$_want" "$(bearer "$_token" "$@")"
}
bearer "$admin" /sse/send/alice -d x >/dev/null
bearer "$admin" /sse/send/bob -d x >/dev/null
may 200 'the user' "$alice" /sse/status/alice
may 200 'the user' "$alice" /sse/connect/alice -I
may 200 'the user' "$alice" /sse/disconnect/alice
may 403 'the user' "$alice" /sse/status/bob
may 403 'the user' "$alice" /sse/status/Alice
may 403 'the user' "$alice" /sse/status/alic
may 403 'the user' "$alice" /sse/status/never-seen
may 403 'the user' "$alice" /sse/connect/bob
may 403 'the user' "$alice" /sse/disconnect/bob
may 403 'the user' "$alice" /sse/users
may 403 'the user' "$alice" /metrics
may 200 'the user' "$alice" /openapi.json
may 403 'the user' "$alice" /sse/send/alice -d x
may 403 'the user' "$alice" /sse/broadcast -d x
may 403 'the user' "$alice" /sse/task/alice
may 403 'the user' "$alice" /sse/task-with-obj/alice -X POST
may 202 'a publisher' "$publisher" /sse/send/alice -d x
may 202 'a publisher' "$publisher" /sse/broadcast -d x
may 200 'a publisher' "$publisher" /sse/task/alice -I
may 200 'a publisher' "$publisher" /sse/task-with-obj/alice -I
may 403 'a publisher' "$publisher" /sse/status/alice
may 403 'a publisher' "$publisher" /sse/connect/alice
may 403 'a publisher' "$publisher" /sse/disconnect/alice
may 403 'a publisher' "$publisher" /sse/users
may 403 'a publisher' "$publisher" /metrics
may 200 'an admin' "$admin" /sse/users
may 200 'an admin' "$admin" /metrics
may 200 'an admin' "$admin" /sse/status/bob
may 200 'an admin' "$admin" /sse/connect/bob -I
may 200 'an admin' "$admin" /sse/disconnect/bob
may 202 'an admin' "$admin" /sse/send/bob -d x
may 202 'an admin' "$admin" /sse/broadcast -d x
may 200 'an admin' "$admin" /sse/task/bob -I
for scope in 'sse:publisher' 'xsse:admin' 'sse:admin,sse:publish' 'SSE:ADMIN' 'sse: admin' ''; do
    may 403 "scope '$scope'" "$(token "{\"sub\":\"alice\",\"exp\":$later,\"scope\":\"$scope\"}")" /sse/send/alice -d x
done
both=$(token "{\"sub\":\"alice\",\"exp\":$later,\"scope\":\" sse:publish  x\"}")
may 202 'a user who publishes' "$both" /sse/send/bob -d x
may 200 'a user who publishes' "$both" /sse/status/alice
may 403 'a user who publishes' "$both" /sse/status/bob
problem 'valid, but not for this' 403 Forbidden /sse/users -H "Authorization: Bearer $alice"
has 'is told what it lacks' 'sse:admin' "$(cat "$tmp/body")"
is 'health needs none' 200 "$(status /health)"
is 'nor does what is not there' 404 "$(status /nowhere)"
is 'nor a method that is not' 405 "$(status /sse/send/alice -X DELETE)"
is 'nor OPTIONS' '204 POST, OPTIONS' "$(status /sse/send/alice -X OPTIONS) $(field allow)"
is 'HEAD does' 401 "$(status /sse/status/alice -I)"
is 'a user id that is none is told to nobody without a token' 401 "$(status /sse/status/%00)"
is 'and to others' 400 "$(bearer "$admin" /sse/status/%00)"
preflight=$(status /sse/send/alice -X OPTIONS -H 'Origin: https://app.example' -H 'Access-Control-Request-Method: POST' -H 'Access-Control-Request-Headers: authorization')
is 'a preflight needs none, and allows Authorization' '204 Authorization, Cache-Control, Content-Type, Last-Event-ID, Pragma, X-Requested-With' "$preflight $(field access-control-allow-headers)"
is 'a page of a listed origin can read the 401' '401 https://app.example true Origin' \
    "$(status /sse/users -H 'Origin: https://app.example') $(field access-control-allow-origin) $(field access-control-allow-credentials) $(field vary)"
is 'and the 403' '403 https://app.example' "$(bearer "$alice" /sse/users -H 'Origin: https://app.example') $(field access-control-allow-origin)"
is 'a foreign one is kept out, token or not' '403 ' "$(bearer "$admin" /sse/users -H 'Origin: https://evil.example') $(field access-control-allow-origin)"
is 'a body is not received in vain' '401' "$(status /sse/send/alice --data-binary "@$tmp/too-large" -H 'Expect: 100-continue')"
is 'pipelined sends are each asked' '202 401 202 closed' "$(
    to_token() { printf 'POST /sse/send/alice HTTP/1.1\\r\\n%sContent-Length: 1\\r\\nAuthorization: Bearer %s\\r\\n%s\\r\\nx' "$H" "$1" "${2-}"; }
    "$RAW" -p "$PORT" "send:$(to_token "$publisher")$(to_token x)$(to_token "$publisher" 'Connection: close\r\n')" eof >"$tmp/answer" && _end=closed
    echo "$(sed -n 's/^.*HTTP\/1\.1 \([0-9][0-9][0-9]\) .*/\1/p' "$tmp/answer" | tr '\n' ' ')$_end")"

section 'Tokens: their end'
soon=$(($(date +%s) + 4))
short=$(token "{\"sub\":\"brief\",\"exp\":$soon}")
open expiring "brief?access_token=$short"
open staying "brief?access_token=$(token "{\"sub\":\"brief\",\"exp\":$later}")"
bearer "$publisher" /sse/send/brief -d 'in time' >/dev/null
eventually 'a stream is closed when its token expires' over expiring
within 'then, and not before' "$soon" $((soon + 1 + SLACK / 1000)) "$(date +%s)"
is 'in order' 0 "$(ended expiring)"
is 'with what was due' 'id: E-1|data: in time||' "$(news expiring)"
is 'another of the user goes on' '{"user":"brief","status":"Connected","streams":1,"queued":0}' "$(get /sse/status/brief -H "Authorization: Bearer $admin" | cut -d ' ' -f 2)"
invalid 'coming back' "$short" 'has expired'
soon=$(($(date +%s) + 4))
short=$(token "{\"sub\":\"late\",\"exp\":$soon}")
launch late "$RAW" -p "$PORT" "send:GET /sse/connect/late?access_token=$short HTTP/1.1\r\n${H}Connection: close\r\nContent-Length: 1\r\n\r\n" \
    "until:$tmp/expired" send:x eof
launch late-behind "$RAW" -p "$PORT" rcvbuf:2048 deaf patience:30000 "send:GET /sse/connect/stuck?access_token=$(token "{\"sub\":\"stuck\",\"exp\":$soon}") HTTP/1.1\r\n$H\r\n" \
    "until:$tmp/nobody-makes-this"
stuck_is() { get /sse/status/stuck -H "Authorization: Bearer $admin" | grep -q "\"status\":\"$1\""; }
await stuck_is Connected
n=0
until bearer "$publisher" /sse/send/stuck --data-binary "@$tmp/60000" >/dev/null && grep -q '"delivered":0' "$tmp/body" || [ $n -gt 200 ]; do n=$((n + 1)); done
is_late() { [ "$(date +%s)" -gt "$soon" ]; }
await is_late
eventually 'a stream that is stuck ends with its token, too' stuck_is Disconnected
: >"$tmp/expired"
is 'a body that comes when the token has expired opens no stream' '0 1 0' \
    "$(ended late) $(grep -c '^HTTP/1.1 401 ' "$tmp/late.out") $(grep -c 'connected' "$tmp/late.out")"
end late-behind
ended late-behind >/dev/null
hang_up staying
is 'admins may read the metrics' 200 "$(bearer "$admin" /metrics)"
within 'tokens that were refused are counted' 10 10000 "$(sed -n 's/^sse_refusals_total{reason="token"} //p' "$tmp/body")"
within 'and those that did not suffice' 10 10000 "$(sed -n 's/^sse_refusals_total{reason="scope"} //p' "$tmp/body")"
is 'what was logged holds no token' 0 "$(grep -c -e "$(part 1)" -e "$(part 3)" -e access_token -e Bearer "$tmp/guarded.err")"
stop guarded

start guarded-any --auth-secret "$tmp/secret" --cors '*'
one_of 404 'with --cors * a page of any site may come with a token' /sse/status/alice -H 'Origin: https://any.example' -H "Authorization: Bearer $alice"
one_of 401 'but a cookie, which its browser adds by itself, does not count' /sse/status/alice -H 'Origin: https://any.example' -b "sse_token=$alice"
one_of 404 'it does for its own pages' /sse/status/alice -H "Origin: http://127.0.0.1:$PORT" -b "sse_token=$alice"
stop guarded-any

section 'Tokens: the secret'
use_secret() { # WHAT MUST-SAY FILE
    is "$1: refused at the start" '1 1' "$(with_cert --auth-secret "$3")"
    has "$1: is told" "$2" "$(cat "$tmp/brief.err")"
}
printf '%31d' 0 >"$tmp/secret31"
printf '%31d\n' 0 >"$tmp/secret31lf"
printf '%32d\n' 0 >"$tmp/secret32"
printf '%4097d' 0 >"$tmp/secret4097"
: >"$tmp/secret0"
use_secret '31 bytes' '32 to 4096 bytes' "$tmp/secret31"
use_secret '31 bytes and a line feed' '32 to 4096 bytes' "$tmp/secret31lf"
use_secret '4097 bytes' '32 to 4096 bytes' "$tmp/secret4097"
use_secret 'an empty file' '32 to 4096 bytes' "$tmp/secret0"
use_secret 'no file' 'No such file' "$tmp/nowhere"
use_secret 'a folder' 'cannot read' "$tmp"
is 'no name' '2 1' "$(with_cert --auth-secret '')"
start secret32 --auth-secret "$tmp/secret32"
SECRET=$(printf '%32d' 0)
is '32 bytes will do, and the line feed is none of them' 404 "$(bearer "$(token "{\"sub\":\"a\",\"exp\":$later}")" /sse/status/a)"
stop secret32
start tokenless
is 'without --auth-secret tokens are nobody'\''s business' 404 "$(status '/sse/status/a?access_token=x' -H 'Authorization: Bearer x')"
stop tokenless
start guarded-everywhere --auth-secret "$tmp/secret" --bind 0.0.0.0
lacks 'with it there is nothing to warn of' warning: "$(grep -v connections "$tmp/guarded-everywhere.err")"
stop guarded-everywhere
SSE=$WITH_TLS SCHEME=https
SECRET=$(cat "$tmp/secret")
start guarded-https --auth-secret "$tmp/secret"
is 'the same over HTTPS' '401 404' "$(status /sse/status/alice) $(bearer "$alice" /sse/status/alice)"

section 'Tokens: what the README shows'
readme() { # LANGUAGE: the block of it that makes a token
    awk -v start="\`\`\`$1" '$0 == start { text = ""; on = 1; next } /^```$/ { if (on && text ~ /exp/) printf "%s", text; on = 0 } on { text = text $0 "\n" }' README.md
}
minted() { # LANGUAGE COMMAND...
    _language=$1
    shift
    if have "$1" "a token made with $_language"; then
        is "a token made with $_language" 200 \
            "$(bearer "$(readme "$_language" | (cd "$tmp" && "$@" 2>&1))" /sse/connect/alice -I)"
    fi
}
minted sh sh
minted js node -
minted python python3 -
stop guarded-https
fi

# ==== Behind a proxy ==============================================================================

if ! over_https; then
section 'Behind a proxy'
# A host of its own, so that the README's configurations can be used as they stand, ports and all.
proxy_host() {
    touch "$tmp/proxied"
    ip netns add "$HOSTS-p" && ip -n "$HOSTS-p" link set lo up
}
PUSH=https://push.example.org
inside() { ip netns exec "$HOSTS-p" "$@"; }
through() { inside curl -qK "$tmp/through" "$@"; } # CURL OPTIONS...
# Opens a stream through the proxy, or several.
open_through() { # NAME URL [CURL OPTIONS...]
    _stream=$1
    shift
    launch "$_stream" ip netns exec "$HOSTS-p" curl -qNK "$tmp/through" -m 100 "$@"
}
# Prints "STATUS CONTENT-TYPE"; body and head are kept.
outcome() { through -o "$tmp/body" -D "$tmp/head" -w '%{http_code} %{content_type}' "$@"; } # CURL OPTIONS...
answers_200() { case $(outcome "$front/health") in 200*) return 0 ;; *) return 1 ;; esac; }
counts_streams() { through "$front/health" | grep -q "\"streams\":$1,"; } # N
# On port 8080, once there is no other.
start_behind() { # NAME OPTIONS...
    _server=$1
    shift
    launch "$_server" ip netns exec "$HOSTS-p" "$SSE" "$@"
    await ready "$_server"
}
stop_behind() { # NAME
    end "$1"
    is "server '$1' stops in order" 0 "$(ended "$1")"
    is "server '$1' logged nothing out of the ordinary" '' "$(strange_lines "$1")"
}
# front: where the server is; http: the version spoken; error: the proxy's own
behind() { # PROXY
    start_behind proxied --cors $PUSH --heartbeat 1
    launch "$1" ip netns exec "$HOSTS-p" tests/proxy "$1" "$tmp"
    if ! await answers_200; then
        fail "$1 starts" "$(cat "$tmp/$1.err")"
        return
    fi
    is "it speaks HTTP/$http" "$http" "$(through -o /dev/null -w '%{http_version}' "$front/health")"
    user=$1%2F%252F%25%20%C3%BC
    open_through "$1-stream" "$front/sse/connect/$user?n=hidden"
    eventually 'a stream opens' saw "$1-stream" "$BEAT"
    has 'a message is delivered' "\"user\":\"$1/%2F% ü\",\"status\":\"Connected\",\"streams\":1,\"delivered\":1" \
        "$(through -d hello "$front/sse/send/$user")"
    eventually 'and comes' saw "$1-stream" '^data: hello$'
    id=$(last_id "$1-stream")
    twice() { [ "$(count "$1" "$BEAT")" -ge 3 ]; }
    eventually 'keep-alives come' twice "$1-stream"
    hang_up "$1-stream"
    eventually 'that the client has closed is noticed' counts_streams 0
    through -d again "$front/sse/send/$user" >/dev/null
    open_through "$1-resumed" "$front/sse/connect/$user" -H "Last-Event-ID: $id"
    eventually 'a stream is resumed' saw "$1-resumed" '^data: again$'
    is 'without what it had' 0 "$(count "$1-resumed" '^data: hello$')"
    hang_up "$1-resumed"
    is 'a page of the public origin may use it' '200 application/json' "$(outcome -H "Origin: $PUSH" "$front/sse/status/$user")"
    is 'another may not' '403 application/problem+json' "$(outcome -H 'Origin: https://evil.example' "$front/sse/status/$user")"
    is 'errors come as they are' '404 application/problem+json' "$(outcome "$front/sse/status/nobody")"
    eventually 'all that was before has left' counts_streams 0
    open_through "$1-many" -Z --parallel-max 20 -w '%{num_connects} connects\n' "$front/sse/connect/$1[1-12]"
    eventually 'twelve streams' counts_streams 12
    for n in 1 2 3 4 5 6 7 8 9 10 11 12; do through "$front/sse/disconnect/$1$n" >/dev/null; done
    ended "$1-many" >/dev/null
    is 'have their farewell each' 12 "$(count "$1-many" '^event: disconnected$')"
    [ "$http" = 1.1 ] || is 'over one connection of the browser' 1 "$(count "$1-many" '^1 connects$')"
    is 'no query is in its log' '' "$(grep -rh hidden "$tmp/$1/log")"
    stop_behind proxied

    # While there is no server; haproxy tries for three seconds.
    launch "$1-others" ip netns exec "$HOSTS-p" curl -qZK "$tmp/through" -d '' -o /dev/null -o /dev/null \
        -w '%{http_code} ' "$front/sse/connect/$user" "$front/sse/send/$user"
    if [ "$1" != apache ]; then
        is 'while the server is away a connect is told when to come back' '200 text/event-stream retry: 3000|' \
            "$(outcome -H 'Origin: http://localhost:3000' "$front/sse/connect/$user?n=1") $(tr '\n' '|' <"$tmp/body")"
        is 'for pages of any origin' 'no-cache, no-transform http://localhost:3000 true' \
            "$(field cache-control) $(field access-control-allow-origin) $(field access-control-allow-credentials)"
    fi
    ended "$1-others" >/dev/null
    is 'what is no connect is not' "$error $error " "$(cat "$tmp/$1-others.out")"

    # What the server itself refuses. As it is started, only the field says that the client speaks HTTPS.
    start_behind refusing --cors http://push.example.org --heartbeat 3600 --max-users 1 --max-streams 1
    open_through "$1-only" "$front/sse/connect/only"
    eventually 'when it is back a stream opens' saw "$1-only" "$BEAT"
    through -d 'at once' "$front/sse/send/only" >/dev/null
    eventually 'a message comes without another behind it' saw "$1-only" '^data: at once$'
    is 'that the table is full comes as it is' '503 application/problem+json' "$(outcome "$front/sse/connect/other")"
    is 'too many streams' '429 application/problem+json' "$(outcome "$front/sse/connect/only")"
    is 'a page that is not listed' '403 application/problem+json' "$(outcome -H 'Origin: https://evil.example' "$front/sse/connect/only")"
    is '/openapi.json says https' $PUSH "$(through "$front/openapi.json" | sed 's/.*"servers":\[{"url":"\([^"]*\)".*/\1/')"
    through "$front/sse/disconnect/only?hold=60" >/dev/null
    is 'one that is held' '204 ' "$(outcome "$front/sse/connect/only")"
    stop_behind refusing
    end "$1"
    ended "$1" >/dev/null
}
if ! have openssl 'a proxy in front' || ! have ip 'a proxy in front'; then
    :
elif ! proxy_host >"$tmp/proxied.err" 2>&1; then
    if [ "$CI" = true ]; then fail 'a proxy in front' "$(cat "$tmp/proxied.err")"
    else skip 'a proxy in front' 'no network namespaces here: run as root'; fi
else
    printf '%s\n' silent 'noproxy = *' 'max-time = 20' http2 "cacert = \"$tmp/push.pem\"" \
        'resolve = push.example.org:443:127.0.0.1' >"$tmp/through"
    while read -r proxy program front http error; do
        section "Behind a proxy: $proxy"
        ! have "$program" 'all of it' || behind "$proxy"
    done <<END
nginx nginx $PUSH 2 502
nginx-path nginx $PUSH/push 2 502
haproxy haproxy $PUSH 2 503
caddy caddy $PUSH 2 502
apache apache2 $PUSH 1.1 503
END
fi
fi

# ==== Stopping ====================================================================================

section 'Stopping'
start stopping --retry 1000
for n in 1 2 3 4 5 6 7 8; do open bye$n user$n; done
launch bye-task curl -qs --noproxy '*' -w ' %{http_code}' "$URL/sse/task-with-obj/user1"
await saw bye1 'in 5\.\.\.'
hold bye-idle "send:${GET}\r\n" 'wait:}\n'
before=$(now)
kill -TERM "$PID"
code=$(ended stopping)
took=$(($(now) - before))
is 'SIGTERM: exit status 0' 0 "$code"
within 'soon, when nothing is in the way' 0 $((4000 + SLACK)) $took
for n in 1 2 3 4 5 6 7 8; do
    eventually "stream $n is closed" over bye$n
    tail -n 2 "$tmp/bye$n.out" | sed -n 's/^retry: //p' >>"$tmp/retries"
done
is 'each was told when to come back' 8 "$(grep -c . "$tmp/retries")"
within 'not before --retry' 1000 5000 "$(sort -n "$tmp/retries" | head -n 1)"
within 'nor after five times that' 1000 5000 "$(sort -n "$tmp/retries" | tail -n 1)"
within 'and not all at once' 2 8 "$(sort -u "$tmp/retries" | grep -c .)"
is 'the task was told to stop' 0 "$(ended bye-task)"
has 'and answered 503' '{"title":"Service Unavailable","status":503,' "$(cat "$tmp/bye-task.out")"
is 'as its status' 503 "$(sed 's/.* //' "$tmp/bye-task.out" | tail -n 1)"
is 'the idle connection was closed' 0 "$(ended bye-idle)"
is 'nothing was logged out of the ordinary' '' "$(strange_lines stopping)"

start interrupted --retry 0
open int int
stop interrupted INT
eventually 'SIGINT does the same' over int
is 'with --retry 0 five times that is 0, in one line without a block' 'retry: 0|' "$(news int)"

for second in TERM INT; do
    start impatient
    launch impatient-task curl -qs --noproxy '*' -m 60 "$URL/sse/task/int"
    hold impatient-half "send:${P}Content-Length: 10\r\n\r\n12"
    open impatient-stream int
    kill -TERM "$PID"
    eventually 'it stops' over impatient-stream
    before=$(now)
    kill -$second "$PID"
    is "a second signal, $second, ends it at once with 1" 1 "$(ended impatient)"
    within 'and does not wait for requests' 0 $((2000 + SLACK)) $(($(now) - before))
    ended impatient-task >/dev/null
    ended impatient-half >/dev/null
done

start refusing
hold half "send:${P}Content-Length: 10\r\n\r\n12"
open last last
kill -TERM "$PID"
eventually 'streams end first' over last
"$RAW" "$PORT" "send:$LAST" eof >/dev/null 2>&1
is 'while a request is under way no new connection is taken' 1 $?
is 'and it has not ended yet' 0 "$(kill -0 "$PID" 2>/dev/null; echo $?)"

# ==== Robustness ==================================================================================

section 'Robustness'
start tough --max-connections 600
threads() { sed -n 's/^Threads:[^0-9]*//p' "/proc/$PID/status"; }
files() { find "/proc/$PID/fd" -type l | grep -c .; }
at_rest() { health_is connections 1 && health_is streams 0; }
threads_rest() { [ "$(threads)" -le $((threads_before + ${SANITIZED:-0})) ]; } # one is a sanitizer's
files_are() { [ "$(files)" = "$1" ]; }
if is_linux; then
    threads_before=$(threads) files_before=$(files)
fi
S="GET /sse/connect/storm HTTP/1.1\r\n$H\r\n"
is 'a storm of connects and closes' 0 "$(raw storm:300: >/dev/null; echo $?)"
is 'with requests' 0 "$(raw "storm:300:${GET}\r\n" >/dev/null; echo $?)"
is 'with halves of requests' 0 "$(raw "storm:200:$P" >/dev/null; echo $?)"
is 'with streams' 0 "$(raw "storm:300:$S" >/dev/null; echo $?)"
is 'with pipelined requests and no reader' 0 "$(raw "storm:100:$GET\r\n$GET\r\n$GET\r\n$S" >/dev/null; echo $?)"
eventually 'the server is there' room
eventually 'and all of that is over' at_rest
hold crowd "crowd:16:$S" "crowd:200:GET /sse/connect/other HTTP/1.1\r\n$H\r\n" "crowd:100:$P" "crowd:50:${C}\r\n5\r\nab" \
    "send:${GET}\r\n" 'wait:}\n'
# of the 216 streams 200 are for one user, who may have 16: so 32 are open, and 184 were told 429
crowded() { health_is streams 32; }
eventually 'a crowd of streams and slow senders' crowded
is 'delays nobody' 202 "$(status /sse/send/storm -d x)"
end crowd KILL
ended crowd >/dev/null
eventually 'resets in mid-stream leave nothing behind: connections and streams' at_rest
if is_linux; then
    eventually 'threads' threads_rest
    eventually 'descriptors' files_are "$files_before"
else
    skip 'threads and descriptors are as before' 'needs /proc'
fi
stop tough

start scarce-more --max-users 1
kill -TERM "$PID"
is 'stopping at once after starting' 0 "$(ended scarce-more)"

launch scarce sh -c 'ulimit -n 24 && exec "$@"' sh "$SSE" --port 0 --max-users 50
await ready scarce
use scarce
if [ -z "$PORT" ]; then
    skip 'running out of descriptors' 'ulimit -n 24 does not work here'
    ended scarce >/dev/null
else
    is 'too low a limit of descriptors is told' 1 "$(grep -c '^warning: 1024 connections may need [0-9]* descriptors, and the limit is 24' "$tmp/scarce.err")"
    if is_linux; then
        hold last patience:1000 "crowd:$((23 - $(files))):GET /sse/connect/u HTTP/1.1\r\n"
        eventually 'the last descriptor is taken' files_are 24
        end last
        ended last >/dev/null
        eventually 'and given back' room
        is 'and that was no shortage' 0 "$(grep -c 'accepting goes on' "$tmp/scarce.err")"
    fi
    hold takers patience:1000 "crowd:40:GET /sse/connect/u HTTP/1.1\r\n"
    complained() { grep -q 'accepting goes on' "$tmp/scarce.err"; }
    eventually 'running out of descriptors is logged' complained
    within 'once a second at most' 1 3 "$(grep -c 'accepting goes on' "$tmp/scarce.err")"
    end takers
    ended takers >/dev/null
    eventually 'and ends nothing: when there are some, it goes on' room
    kill -TERM "$PID"
    is 'and stops in order' 0 "$(ended scarce)"
fi

if [ -n "$SANITIZED" ]; then
    skip 'memory stays under what was told' 'a sanitizer needs its own'
elif ! is_linux; then
    skip 'memory stays under what was told' 'needs /proc'
else
    start bounded --max-users 20 --max-connections 40 --history-bytes 65536
    most=$(sed -n '1s/^memory: at most \([0-9]*\) MiB.*/\1/p' "$tmp/bounded.err")
    hold eaters "crowd:16:GET /sse/connect/u HTTP/1.1\r\n$H\r\n" "crowd:18:${P}Content-Length: 65536\r\n\r\nxx"
    curl -qs --noproxy '*' -m 60 --data-binary "@$tmp/large" "$URL/sse/send/user[1-40]?n=[1-5]" >"$tmp/receipts"
    is 'messages for more users than the table holds' 200 "$(grep -c '"id":' "$tmp/receipts")"
    within "memory stays under the $most MiB that were told" 1 $((most * 1024)) \
        "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$PID/status")"
    end eaters KILL
    ended eaters >/dev/null
    eventually 'all of them leave' health_is connections 1
    stop bounded
fi

# ==== Faults ======================================================================================

section 'Faults'
for where in /dev/full '&-'; do
    if [ "$where" = /dev/full ] && [ ! -c /dev/full ]; then skip 'a log on a full disk' 'there is no /dev/full'; continue; fi
    launch logless sh -c "exec \"\$@\" 2>$where" sh "$SSE" --port 0
    await ready logless
    use logless
    is "a log that cannot be written ($where) is no reason to stop" 202 "$(status /sse/send/a -d x)"
    end logless
    is 'nor to end with an error' 0 "$(ended logless)"
done
mkfifo "$tmp/log"
exec 9<>"$tmp/log" # somebody has it open, and nobody reads
# shellcheck disable=SC2016 # it is that shell that expands
launch unread sh -c 'exec "$@" 2>"$0"' "$tmp/log" "$SSE" --port 0 --max-users 20000 --history-bytes 100
await ready unread
use unread
seq 1 3000 | sed "s,.*,url = $URL/health?&," >"$tmp/urls"
is 'a log that nobody reads holds up nobody' 3000 \
    "$(curl -qs --noproxy '*' -m 60 -K "$tmp/urls" -w '%{http_code}\n' | grep -c '200$')"
end unread
is 'nor the end' 0 "$(ended unread)"
exec 9>&-

start suspended --heartbeat 1
open sleeper sleeper
end suspended STOP
end suspended CONT
for signal in WINCH CHLD URG CONT; do end suspended $signal; done
is 'stopped, continued and signalled it serves on' 202 "$(status /sse/send/sleeper -d awake)"
eventually 'streams, too' saw sleeper '^data: awake$'
hang_up sleeper
stop suspended
if ! over_https; then
    start hung-up
    open hung-up-stream hung-up
    stop hung-up HUP
    has 'a terminal that closes stops it in order' 'retry: ' "$(news hung-up-stream)"
    launch nohup nohup "$SSE" --port 0
    await ready nohup
    use nohup
    end nohup HUP
    is 'but for nohup' 200 "$(status /health)"
    end nohup
    is 'which ends otherwise' 0 "$(ended nohup)"
fi

PRELOAD=''
if [ -n "$SANITIZED" ]; then
    skip 'what fails on demand' 'a sanitizer stands there itself'
elif [ ! -e "$BUILD/preload.so" ]; then
    skip 'what fails on demand' 'needs Linux with glibc'
else
    PRELOAD=$PWD/$BUILD/preload.so
    preloaded() { # NAME SETTING OPTIONS...
        _name=$1 _setting=$2
        shift 2
        launch "$_name" env "$_setting" "FAULT_HIT=$tmp/$_name.hit" "LD_PRELOAD=$PRELOAD" "$SSE" --port 0 "$@"
        await ready "$_name"
        use "$_name"
    }
    preloaded threadless FAULT_THREADS=1-3
    is 'where threads are short, a request waits for one' 200 "$(status /health)"
    is 'and they were' yes "$(test -e "$tmp/threadless.hit" && echo yes)"
    is 'as was logged' 1 "$(grep -c '^out of threads: accepting goes on more slowly$' "$tmp/threadless.err")"
    end threadless
    ended threadless >/dev/null
    preloaded threadless FAULT_THREADS=1-15
    if over_https; then statuses='000'; else statuses=503; fi
    is 'but for a second only' "$statuses" "$(status /health)"
    eventually 'when there are some, it goes on' room
    end threadless
    is 'and stops in order' 0 "$(ended threadless)"
    preloaded unreachable FAULT_ACCEPT=2-12 --max-connections 2
    hold stays-idle "send:${GET}\r\n" 'wait:}\n'
    is 'network errors of those who want to connect delay nobody' 200 "$(status /health)"
    is 'and there were some' yes "$(test -e "$tmp/unreachable.hit" && echo yes)"
    is 'they are no shortage' '' "$(strange_lines unreachable)"
    is 'and cut no connection' '' "$(cat "$tmp/stays-idle.exit" 2>/dev/null)"
    end stays-idle
    ended stays-idle >/dev/null
    stop unreachable
    preloaded unacceptable FAULT_ACCEPT=1-20
    is 'but if they do not end' 200 "$(status /health)"
    within 'accepting pauses, and says so once a second at most' 1 2 \
        "$(grep -c '^[A-Z].*: accepting goes on more slowly$' "$tmp/unacceptable.err")"
    end unacceptable
    is 'and stops in order' 0 "$(ended unacceptable)"
    if over_https; then
        launch faults env "TMPDIR=$tmp" "$TOOLS/faults" "$PRELOAD" "$tmp/first.pem" "$tmp/first-key.pem" "$tmp/secret" \
            "$(token "{\"sub\":\"alice\",\"exp\":$later,\"scope\":\"sse:publish\"}")" "${FAULT_STEP:-97}" "$BARE" -q
    else
        launch faults env "TMPDIR=$tmp" "$TOOLS/faults" "$PRELOAD" '' '' '' '' 1 "$SSE" -q
    fi
    over faults || await over faults || await over faults || await over faults
    is 'whatever allocation fails, it refuses clearly or goes on' 0 "$(ended faults)"
    has 'as was tried' 'faults: ok, ' "$(cat "$tmp/faults.out" "$tmp/faults.err")"

    echo 0 >"$tmp/shift"
    preloaded shifted "FAULT_CLOCK=$tmp/shift" --heartbeat 1
    get '/sse/connect/later?x' -I >/dev/null
    post /sse/send/later x >/dev/null
    get '/sse/disconnect/later?hold=1' >/dev/null
    echo -7200 >"$tmp/shift"
    is 'the clock is set back' yes "$([ "$(get /health -I >/dev/null; field date)" != "$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')" ] && echo yes)"
    not_held() { [ "$(status /sse/connect/later -I)" = 200 ]; }
    eventually 'a hold of a second is over in time' not_held
    open clocked clocked
    beats() { [ "$(count clocked "$BEAT")" -ge "$1" ]; } # N
    eventually 'and hearts beat' beats 3
    echo 7200 >"$tmp/shift"
    eventually 'when it is set forward, too' beats 5
    hang_up clocked
    end shifted
    is 'and it stops in order' 0 "$(ended shifted)"
    if over_https; then
        echo 0 >"$tmp/shift"
        preloaded expiring-clock "FAULT_CLOCK=$tmp/shift" --heartbeat 1 --auth-secret "$tmp/secret"
        open hour "alice?access_token=$alice"
        open moment "brief?access_token=$(token "{\"sub\":\"brief\",\"exp\":$(($(date +%s) + 5))}")"
        echo -7200 >"$tmp/shift"
        moment_beats() { [ "$(count moment "$BEAT")" -ge "$1" ]; } # N
        eventually 'a token lives longer when the clock is set back' moment_beats 8
        is 'its stream is open' '' "$(cat "$tmp/moment.exit" 2>/dev/null)"
        echo 7200 >"$tmp/shift"
        eventually 'and ends with it when it is set forward' over moment
        eventually 'as does one that had an hour' over hour
        end expiring-clock
        is 'and the server stops in order' 0 "$(ended expiring-clock)"
    fi
fi

if over_https; then
    start hup
    # shellcheck disable=SC2016 # it is that shell that expands
    launch hups sh -c 'while kill -HUP "$1" 2>/dev/null; do sleep 0.02; done' sh "$PID"
    is 'certificates that are read again and again keep nobody out' '100' \
        "$(seq 1 100 | sed "s,.*,url = $URL/health?&," | curl -qs --noproxy '*' -m 60 -H 'Connection: close' -K - -w '%{http_code}\n' | grep -c '200$')"
    end hups
    ended hups >/dev/null
    is 'and each time it is logged' yes "$(grep -q '^certificate and key were read again$' "$tmp/hup.err" && echo yes)"
    end hup
    is 'and it stops in order' 0 "$(ended hup)"
fi

section 'Stopping'
is 'half a request: exit status 0' 0 "$(ended refusing)"
ended half >/dev/null
is 'three half heads and half a body: exit status 0' 0 "$(ended stopping-slowly)"
await test -s "$tmp/stopping-slowly.took"
within 'within six seconds' 4500 $((6000 + SLACK)) "$(cat "$tmp/stopping-slowly.took")"
is 'the half-received request was cut off' closed "$(ended half-received >/dev/null; echo closed)"

# ==== What was begun early ========================================================================

section 'Demo tasks'
use demo
for method in GET POST; do
    user=task-$method
    is "$method task: done" 0 "$(ended "$user-answer")"
    has "$method task: its completion" "{\"message\":\"Task completed\",\"data\":\"User '$user' completed the task at: 20" \
        "$(cat "$tmp/$user-answer.out")"
    is "$method task: the date" 1 "$(grep -c 'at: 20[0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z\."}$' "$tmp/$user-answer.out")"
    within "$method task: ten steps of one second" 9950 $((14000 + SLACK)) "$(sed -n 's/^200 \([0-9]*\)\.\([0-9][0-9][0-9]\).*/\1\2/p' "$tmp/$user-answer.out")"
    is "$method task: the stream" "$(awk -v u="$user" 'BEGIN {
        for (i = 1; i <= 10; i++) printf "id: E-%d|data: User '\''%s'\'', attempt %d / 10||", i, u, i }')" "$(news "$user")"
    user=task-with-obj-$method
    is "$method task-with-obj: done" 0 "$(ended "$user-answer")"
    has "$method task-with-obj: its completion" "{\"message\":\"Task completed\",\"data\":\"User '$user' completed" \
        "$(cat "$tmp/$user-answer.out")"
    within "$method task-with-obj: five seconds" 4950 $((9000 + SLACK)) "$(sed -n 's/^200 \([0-9]*\)\.\([0-9][0-9][0-9]\).*/\1\2/p' "$tmp/$user-answer.out")"
    is "$method task-with-obj: the stream" "$(awk -v u="$user" 'BEGIN {
        for (i = 5; i >= 1; i--) printf "id: E-%d|data: Object sent to user '\''%s'\'' in %d...||", 6 - i, u, i
        printf "id: E-6|data: {\"Name\":\"Victor\",\"Age\":30,\"Country\":\"Spain\",\"IsActive\":true}||" }')" "$(news "$user")"
    hang_up "task-$method"
    hang_up "task-with-obj-$method"
done

section 'HTTP: 408'
use slow
late() { # NAME WHAT LEAST MOST: it got a 408, closed, in that time
    is "$2: the server closes" 0 "$(ended "$1")"
    is "$2: 408 with a problem document" 1 "$(grep -c '^{"title":"Request Timeout","status":408,"detail":".*"}$' "$tmp/$1.out")"
    within "$2: in time" "$3" "$4" "$(sed -n 's/^\[\([0-9]*\) ms\]$/\1/p' "$tmp/$1.out")"
}
late slow-head 'half a request line' 9900 16000
late slow-fields 'fields without end' 9900 16000
late slow-drip 'a head that drips in' 9900 16000
late slow-second 'the second request of a connection' 9900 16000
late slow-body 'half a body' 29900 40000
late slow-chunks 'chunks without end' 29900 40000
late slow-drip-body 'a body that drips in' 29900 40000
is 'the next client is served' 200 "$(status /health)"
late slow-moved 'the second half of a head' 9900 16000
is 'it counted them' 8 "$(metric 'sse_refusals_total{reason="timeout"}')"
is 'and its log has the answers' 8 "$(grep -c ' 408$' "$tmp/slow.err")"
lacks 'and nothing that was in a head' SECRET "$(cat "$tmp/slow.err")"
if over_https; then
    for name in no-handshake half-handshake; do
        ended $name >/dev/null
        within "$name is abandoned after ten seconds" 9900 16000 "$(sed -n 's/^\[\([0-9]*\) ms\]$/\1/p' "$tmp/$name.out")"
    done
fi
stop slow

section 'A peer that vanishes'
if [ -e "$tmp/vanish.pid" ]; then
    await test -s "$tmp/vanish.took"
    within 'is noticed within three heartbeats of two seconds' 100 7000 "$(cat "$tmp/vanish.took")"
    await test -s "$tmp/stuffed.took" || await test -s "$tmp/stuffed.took"
    if linux_from 6 15; then
        within 'also where its window was closed' 100 7000 "$(cat "$tmp/stuffed.took")"
    else
        skip 'also where its window was closed' 'needs Linux 6.15'
    fi
    end stuffed
    ended stuffed >/dev/null
    stop vanish
    hang_up ghost
elif have ip 'is noticed within three heartbeats'; then
    if [ "$CI" = true ]; then fail 'network namespaces can be made' "$(cat "$tmp/hosts.err")"
    else skip 'is noticed within three heartbeats' 'no network namespaces here: run as root'; fi
fi

section 'A reader that paused'
use paused
has 'was behind' '"streams":1,"delivered":0' "$(cat "$tmp/last-receipt")"
is 'is still there after many heartbeats' yes "$(status_is paused Connected 1 && echo yes)"
is 'so is one whose messages wait in the kernel' yes "$(status_is window Connected 1 && echo yes)"
post /sse/send/window 'the last one' >/dev/null
touch "$tmp/reads-again"
is 'which gets them too' 0 "$(ended full-window)"
await over paused-reader || await over paused-reader || await over paused-reader # six megabytes, in small pieces
is 'and gets everything' '0 101' "$(ended paused-reader) $(grep -c '^id: ' "$tmp/paused-reader.out" | sed 's/^102$/101/')"
stop paused

section 'HTTP: connections left alone'
use demo
idle() { # NAME WHAT LEAST MOST: how long it lasted
    await over "$1" || await over "$1" # a minute is long
    is "$2: the server ends it" 0 "$(ended "$1")"
    within "$2: in time" "$3" "$4" "$(sed -n 's/^\[\([0-9]*\) ms\]$/\1/p' "$tmp/$1.out")"
}
idle untaken 'an answer that nobody takes' 29900 50000
idle idle-after 'a persistent connection that is idle' 59900 75000
idle idle-before 'one that never said a word' 59900 75000
! over_https || idle idle-rekeyed 'one that asked for new keys meanwhile' 59900 75000
is 'which is not told that it is late' 1 "$(grep -c '' "$tmp/idle-before.out")"
stop demo

section 'At the end'
use main
if have python3 'all that claims to be JSON is JSON'; then
    for path in /health /sse/users /sse/status/caf%C3%A9 /sse/status/a%22b%5Cc /nowhere /sse/status/%00; do
        get "$path" >/dev/null
        is "$path is JSON" 0 "$(python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$tmp/body" 2>/dev/null; echo $?)"
    done
fi
stop main

section 'Unit tests'
is 'unit tests pass' 0 "$(ended unit)"
[ "$(cat "$tmp/unit.exit")" = 0 ] || cat "$tmp/unit.out" "$tmp/unit.err"

section 'In a program of your own'
is 'a C host of two servers' '0 embed: ok' "$(ended embed) $(cat "$tmp/embed.out")"
cat "$tmp/embed.err"
if [ -n "$SANITIZED" ]; then
    skip 'a C++ host' 'the sanitizers have their turn with the C host'
elif have "${CC%% *}" 'a host that is compiled apart'; then
    # shellcheck disable=SC2086 # CC and CXX may be several words, as for make
    launch object $CC -std=c11 -O2 -pthread -DSSE_NO_MAIN -c -o "$tmp/sse.o" sse.c
    is 'compiles without main' 0 "$(ended object)"
    printf '%s\n' '#define SSE_API_ONLY' '#include "sse.c"' \
        'int main(void) { struct sse_config c; sse_config_init(&c); return c.port != 8080; }' >"$tmp/host.c"
    # shellcheck disable=SC2086
    launch c-host $CC -std=c11 -O2 -pthread -I. -o "$tmp/c-host" "$tmp/host.c" "$tmp/sse.o"
    is 'a C11 host that sees only the declarations is built' 0 "$(ended c-host)"
    is 'and runs' 0 "$("$tmp/c-host"; echo $?)"
    case $CC in
    *musl*) skip 'a C++ host' 'a C++ compiler has another C library' ;;
    *)
        if have "${CXX%% *}" 'a C++ host'; then
            # shellcheck disable=SC2086
            launch host-build $CXX -std=c++17 -pthread -Wall -Wextra -Wpedantic -Wshadow -Wconversion \
                -Werror -o "$tmp/host" tests/host.cpp "$tmp/sse.o"
            is 'a C++ host is built without a warning' 0 "$(ended host-build)"
            cat "$tmp/host-build.err"
            launch host "$tmp/host"
            is 'and runs' '0 host: ok' "$(ended host) $(cat "$tmp/host.out")"
        fi
        ;;
    esac
fi

section 'What measures'
measures() { # NAME=COMMAND: a second of it; prints what was said of it
    TMPDIR=$tmp "$TOOLS/bench" --turns 1 --seconds 1 --workload spread-4x16 "$1" 2>&1
}
catches() { # FAULT WHAT IS SAID
    is "it catches a server that does this: $1" 1 "$(FAULT=$1 measures "skeleton=$TOOLS/peers/skeleton" >"$tmp/caught"; echo $?)"
    has "and says so" "$2" "$(tr '\n' ' ' <"$tmp/caught")"
}
if [ -n "$SANITIZED" ]; then
    skip 'the load generator finds faults' 'what it is tried on is no good for sanitizers'
elif ! over_https; then
    is 'a server without faults passes' 1 "$(measures "skeleton=$TOOLS/peers/skeleton" | grep -c '^| spread-4x16 | skeleton | *[0-9,]* |')"
    is 'and so does this one' 1 \
        "$(measures "sse=$SSE -q -p \$PORT --max-connections \$CONNECTIONS --max-users \$CONNECTIONS" | grep -c '^| spread-4x16 | sse ')"
    catches lose ' a message is wrong (lost before it'
    catches twice ' a message is wrong (twice'
    catches swap ' a message is wrong (lost before it, or out of order)'
    catches alter ' a message is wrong (altered)'
    catches wrong ' a message is wrong (on the wrong stream)'
    catches refuse ' was answered: HTTP/1.1 500 '
    catches close ': the server has closed stream '
fi

section 'Installed'
in_dest() { (cd "$DEST" && find . -type f | sort | tr '\n' ' '); }
remade() { made "$@" >"$tmp/remade" 2>&1; echo $?; } # MAKE-ARGUMENTS...
page=$DEST/opt/sse/share/man/man1/sse.1 service=$DEST/opt/sse/lib/systemd/system/sse.service
three='./opt/sse/bin/sse ./opt/sse/lib/systemd/system/sse.service ./opt/sse/share/man/man1/sse.1 '
if installs; then
    is 'make install, to a folder with a space' 0 "$(ended installed)"
    is 'puts the program, its page and its unit there' "$three" "$(in_dest)"
    "$DEST/opt/sse/bin/sse" --help >"$tmp/help"
    is 'the page has the options of --help' "$(sed -n 's/^  ... --\([a-z-]*\).*/\1/p' "$tmp/help")" \
        "$(sed -n 's/^\.It .*Fl Fl \\&\([a-z\\-]*\).*/\1/p' "$page" | sed 's/\\//g')"
    is 'and what it says of each' "$(sed -n 's/^  ... --.\{24\}//p' "$tmp/help")" "$(sed -n 's/^\\&//p' "$page")"
    is 'whatever an option to come is called' '.It Fl \&x , Fl Fl \&an\-option Ar \&FILE|\&.a \e -- b|' \
        "$(printf '  -x, --an-option FILE          .a \\ -- b\n' | awk -f packaging/options.awk | tr '\n' '|')"
    is 'page and unit name the folder of the program' '1 1' \
        "$(grep -c '^\.Pa /opt/sse/bin/sse ' "$page") $(grep -c '^ExecStart=/opt/sse/bin/sse ' "$service")"
    is 'and the page that of the unit' 1 "$(grep -c '^\.It Pa /opt/sse/lib/systemd/system/sse.service$' "$page")"
    is 'nothing is left to fill in' '' "$(grep '@[A-Z]' "$page" "$service")"
    if have mandoc 'the page is clean for mandoc'; then
        is 'the page is clean for mandoc' '' "$(mandoc -Tlint -W warning "$page" 2>&1)"
        has 'and shows an option as --help does' '-p, --port N' "$(mandoc -Tascii "$page" | awk '{ gsub(/.\010/, ""); print }')"
    fi
    if have groff 'the page is clean for groff'; then
        is 'the page is clean for groff' '' "$(groff -mdoc -Tutf8 -ww "$page" 2>&1 >/dev/null)"
    fi
    if have systemd-analyze 'systemd takes the unit'; then
        if systemd-analyze --help | grep -q -e --offline; then
            is 'make install to another prefix' 0 "$(remade install PREFIX="$tmp/prefix")"
            cp "$tmp/prefix/lib/systemd/system/sse.service" "$tmp"
            is 'systemd takes the unit' '' \
                "$(systemd-analyze verify --man=no --recursive-errors=no "$tmp/sse.service" 2>&1 | grep -e sse)"
            is 'which exposes little' 0 \
                "$(systemd-analyze security --offline=true --threshold=15 "$tmp/sse.service" >"$tmp/exposure" 2>&1; echo $?)"
        else
            skip 'systemd takes the unit' 'it takes systemd 250'
        fi
    fi

    touch "$tmp/since"
    mv "$tmp/tree/build/sse.1" "$tmp/kept" && ln "$tmp/kept" "$tmp/tree/build/sse.1"
    is 'make install once more' 0 "$(remade install DESTDIR="$DEST" PREFIX=/opt/sse)"
    is 'with the same result' "$three" "$(in_dest)"
    is 'builds no program' '' "$(find "$tmp/tree/sse" -newer "$tmp/since")"
    is 'and makes the page anew, since it may be owned by root' "$tmp/tree/build/sse.1" \
        "$(find "$tmp/tree/build/sse.1" -links 1)"
    is 'make uninstall' 0 "$(remade uninstall DESTDIR="$DEST" PREFIX=/opt/sse)"
    is 'leaves nothing' '' "$(in_dest)"
    echo 'exit 1' >"$tmp/tree/sse"
    is 'a program that does not run here' 0 "$(remade install DESTDIR="$DEST" PREFIX=/opt/sse)"
    is 'is installed without a page' "${three% ./*}" "$(in_dest | sed 's/ $//')"
    is 'which is told' 1 "$(grep -c '^no man page: ' "$tmp/remade")"

    is 'make static without its compiler fails' 2 "$(remade static CC=no-such-cc)"
    is 'and says what to install' 1 "$(grep -c 'install musl-tools' "$tmp/remade")"
    if have musl-gcc 'make static'; then
        static=$tmp/tree/build/sse-static
        is 'make static' 0 "$(ended static-build)"
        has 'tells the size' "build/sse-static: $(wc -c <"$static" | tr -d ' ') bytes" "$(cat "$tmp/static-build.out")"
        ! have readelf 'it is static' || is 'it is static' '' "$(readelf -lW "$static" 2>&1 | grep -e INTERP -e DYNAMIC -e rror)"
        dynamic=$SSE SSE=$static
        start static
        is 'and serves' 200 "$(status /health)"
        stop static
        mkdir "$tmp/empty"
        cp "$static" "$tmp/empty/sse"
        if [ "$(id -u)" = 0 ]; then
            launch jailed chroot "$tmp/empty" /sse --port 0
            await ready jailed
            use jailed
            is 'in an empty root directory, too' 202 "$(status /sse/send/alice -d x)"
            stop jailed
        else
            skip 'in an empty root directory' 'run as root'
        fi
        SSE=$dynamic
    fi
fi

section 'Over HTTPS'
if [ -e "$tmp/https.pid" ]; then
    over https || await over https || await over https || await over https || await over https
    counts=$(grep '^[0-9]* passed, [0-9]* failed, [0-9]* skipped$' "$tmp/https.out")
    counts=${counts:-0 passed, 1 failed, 0 skipped} # it ended before it could say
    grep -v -x "$counts" "$tmp/https.out"
    is 'the same holds' 0 "$(ended https)"
    # shellcheck disable=SC2086 # split into words on purpose
    set -- $counts
    passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
elif [ -z "$HTTPS" ]; then
    case $CC in
    *musl*) skip 'the same holds' 'OpenSSL is built for another C library' ;;
    *)
        if [ "$CI" = true ]; then fail 'the same holds' 'there is no build with OpenSSL'
        else skip 'the same holds' 'there is no OpenSSL to build with: libssl-dev'; fi
        ;;
    esac
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
