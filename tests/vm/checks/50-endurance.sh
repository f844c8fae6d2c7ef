# Good and hostile jobs mixed, with cgroups: what there is of processes, descriptors, mounts, cgroups, keys and memory does not grow.
# patience: 3600 s
for who in as_service as_root; do
    echo "== $who"
    $who env WPOOL_BIN=/usr/bin/wpool WPOOL_ENDURANCE_JOBS=400 /payload/tests/endurance --nocapture --test-threads=1 >/tmp/said 2>&1 || { cat /tmp/said; fail "$who"; }
    cat /tmp/said
    expect "cgroups are counted" grep -q "cgroups: directories" /tmp/said
done
