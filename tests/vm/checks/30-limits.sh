# Every row of the limits table by cgroup, for one process and for ten, under three kinds of user.
# patience: 1500 s
for who in as_service as_ann as_root; do
    echo "== $who"
    $who env WPOOL_BIN=/usr/bin/wpool /payload/tests/e2e --test-threads=1 ends_a_job >/tmp/said 2>&1 || { cat /tmp/said; fail "$who"; }
    tail -n 3 /tmp/said
    $who env WPOOL_BIN=/usr/bin/wpool /payload/tests/e2e --test-threads=1 refused_and_told >/tmp/said 2>&1 || { cat /tmp/said; fail "$who"; }
    tail -n 3 /tmp/said
done
