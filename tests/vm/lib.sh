# What checks can use.

# Ends the check.
fail() {
    echo "FAILED: $*"
    exit 1
}

# expect WHAT COMMAND…: the command must succeed.
expect() {
    what=$1
    shift
    "$@" || fail "$what: $*"
    echo "ok: $what"
}

# wait_for WHAT COMMAND…: until the command succeeds; the machine is slow.
wait_for() {
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 240 ] || fail "not so in time: $what: $*"
        sleep 0.25
    done
    echo "ok: $what"
}

# The JSON on standard input, asked a Python expression of `it`.
json() { python3 -c 'import json, sys; it = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

# as_root COMMAND…, as_service COMMAND…, as_ann COMMAND…: in a cgroup of their own with all controllers. The service's
# user is the one that the packaged unit runs as; ann is an ordinary user without further rights.
as_root() { systemd-run --quiet --wait --pipe --collect -p Delegate=yes -- "$@"; }
as_service() {
    id wpool >/dev/null 2>&1 || useradd --system --no-create-home wpool
    systemd-run --quiet --wait --pipe --collect -p Delegate=yes -p User=wpool -p PrivateTmp=yes -- "$@"
}
as_ann() {
    until [ -S /run/user/1000/systemd/private ]; do sleep 0.2; done
    runuser -u ann -- env -C /tmp XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
        systemd-run --quiet --user --scope --collect -p Delegate=yes -- "$@"
}
