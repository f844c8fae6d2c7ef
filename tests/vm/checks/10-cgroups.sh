# The kernel's limits, account and verdicts, on the layer that reads and writes them.
# patience: 300 s
as_service /payload/tests/cgroups --nocapture --test-threads=1 >/tmp/said 2>&1 || { cat /tmp/said; fail "cgroups"; }
cat /tmp/said
! grep -q "^skipped" /tmp/said || fail "a test was skipped"
