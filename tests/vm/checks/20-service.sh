# The packaged service, as somebody new installs it: what it is, what it keeps, what it survives.
# patience: 1200 s

# The commands at the head of the unit.
id wpool >/dev/null 2>&1 || useradd --system --no-create-home wpool
install -m 644 /payload/packaging/wpool.service /etc/systemd/system/
# A secret of the service's, as an administrator might leave one there.
mkdir -p /etc/systemd/system/wpool.service.d
printf '[Service]\nEnvironment=DATABASE_PASSWORD=sesame\n' >/etc/systemd/system/wpool.service.d/secret.conf
systemctl daemon-reload
systemctl enable --now wpool
usermod --append --groups wpool ann
ann() { runuser -u ann -- "$@"; }
status() { wpool status --json; }
tree() { systemctl show --value --property ControlGroup wpool; }

expect "it runs" systemctl is-active wpool
expect "and says that it is ready" test "$(systemctl show --value --property StatusText wpool | grep -c .)" = 1
systemctl show --property StatusText wpool
expect "a member of its group submits" ann wpool submit --wait -- id
if runuser -u bob -- wpool submit -- id; then fail "a stranger submits, too"; fi
status
expect "jobs have ids of their own" test "$(status | json 'it["isolation"]["identity"]')" = own
expect "with every layer" test "$(status | json 'it["isolation"]["level"], it["isolation"]["missing"]')" = "('full', [])"
outcome=$(wpool submit --wait --json -- sh -c 'cat /proc/self/cgroup /proc/self/uid_map; env')
printf '%s\n' "$outcome"
expect "limits are the kernel's" test "$(printf '%s\n' "$outcome" | json 'it["usage"]["measured_by"]')" = cgroup
main=$(systemctl show --value --property MainPID wpool)
grep Cap /proc/$main/status
for set in CapInh CapPrm CapEff CapAmb; do
    expect "no capability is kept by any thread: $set" sh -c "! grep -h '^$set:' /proc/$main/task/*/status | grep -qv 0000000000000000"
done
if printf '%s\n' "$outcome" | grep -q sesame; then fail "a secret of the service's reached a job"; fi
for pid in $(cat /sys/fs/cgroup"$(tree)"/slot-*/worker/cgroup.procs); do
    if tr '\0' '\n' </proc/$pid/environ | grep -q .; then fail "a worker has an environment"; fi
    uid=$(awk '/^Uid:/ {print $2}' /proc/$pid/status)
    expect "a worker's uid is nobody's" test "$uid" -ge 2013265920
done
expect "slots have different ids" sh -c "[ \$(stat -c %u /sys/fs/cgroup$(tree)/slot-* | sort -u | wc -l) = \$(ls -d /sys/fs/cgroup$(tree)/slot-* | wc -l) ]"

systemd-analyze security wpool --no-pager | tail -n 3 || true

# Memory: the job's end, not the service's.
outcome=$(wpool submit --wait --json --memory 64M -- python3 -c 'kept = bytes([1]) * (200 << 20)' || true)
printf '%s\n' "$outcome" | json 'it["cause"]'
expect "an OOM kill is told as such" test "$(printf '%s\n' "$outcome" | json 'it["state"], it["cause"]["limit"]')" = "('limit_exceeded', 'memory')"
outcome=$(wpool submit --wait --json -- sh -c 'kill -9 $$' || true)
expect "and a SIGKILL of its own is not" test "$(printf '%s\n' "$outcome" | json 'it["state"], it["signal"]')" = "('failed', 'SIGKILL')"
expect "the service is the same" test "$(systemctl show --value --property MainPID wpool)" = "$main"

# Reload.
mkdir -p /etc/wpool
printf '[limits]\ntimeout_ms = "7s"\n' >/etc/wpool/wpool.toml
expect "it reloads" systemctl reload wpool
wait_for "and the new default holds" sh -c 'wpool submit --wait --json -- sleep 30 | python3 -c "import json, sys; sys.exit(json.load(sys.stdin)[\"cause\"][\"allowed\"] != 7000)"'
echo 'nonsense' >/etc/wpool/wpool.toml
systemctl reload wpool || true
wait_for "a bad config is told" sh -c 'journalctl -u wpool --no-pager | grep -q "the config is refused"'
expect "and the old one kept" test "$(wpool submit --wait --json -- sleep 30 | json 'it["cause"]["allowed"]')" = 7000
rm /etc/wpool/wpool.toml

# A worker that somebody has taken over: it shuts its cgroup, and would fill it. Its slot comes back all the same.
slot=/sys/fs/cgroup$(tree)/slot-0
worker=$(cat "$slot/worker/cgroup.procs")
uid=$(awk '/^Uid:/ {print $2}' /proc/$worker/status)
as_worker() { setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"; }
expect "the slot's cgroup is its worker's" as_worker mkdir "$slot/mine"
if as_worker mkdir "$slot/mine/deeper" 2>/dev/null; then fail "cgroups of a slot lie in each other"; fi
for n in $(seq 100); do as_worker mkdir "$slot/mine-$n" 2>/dev/null || break; done
expect "and there are no more than so many" test "$n" -lt 64
as_worker chmod 0 "$slot/mine"
as_worker chmod 0 "$slot"
kill -KILL "$worker"
is_another() { now=$(cat "$slot/worker/cgroup.procs") && [ -n "$now" ] && [ "$now" != "$worker" ]; }
wait_for "the slot has another worker" is_another
expect "and works" wpool submit --wait -- true

# Death and hanging. Nothing of the old one may remain.
of_it() { systemd-cgls --no-pager --unit wpool >/dev/null; cat $(find /sys/fs/cgroup"$(tree)" -name cgroup.procs) | sort -n; }
wpool submit -- sleep 600 >/dev/null
wait_for "a job runs" sh -c 'wpool status --json | grep -q "\"active\": *1"'
for how in KILL STOP; do
    main=$(systemctl show --value --property MainPID wpool)
    old=$(of_it)
    kill -$how "$main"
    wait_for "after SIG$how there is another" sh -c "main=\$(systemctl show --value --property MainPID wpool); [ \$main != $main ] && [ \$main != 0 ] && wpool status"
    new=" $(of_it | tr '\n' ' ') "
    for pid in $old; do
        [ ! -e /proc/$pid ] || case $new in *" $pid "*) ;; *) fail "$pid of the old one is still there: $(cat /proc/$pid/comm)" ;; esac
    done
    expect "and it works" wpool submit --wait -- true
done
journalctl -u wpool --no-pager | grep -i watchdog
expect "the second end was the watchdog's" sh -c 'journalctl -u wpool --no-pager | grep -qi "watchdog timeout"'

# Its end.
wpool submit -- sh -c 'sleep 1; echo done' >/dev/null
expect "it stops" systemctl stop wpool
expect "cleanly" test "$(systemctl show --value --property Result wpool)" = success
expect "and nothing is left of its cgroup" test ! -e "/sys/fs/cgroup/system.slice/wpool.service"
