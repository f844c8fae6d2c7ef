# Every attack that a job can try, where the kernel keeps the limits and jobs have ids of their own: as job A and then as job B.
# patience: 3600 s
as_service env WPOOL_BIN=/usr/bin/wpool /payload/tests/escape --test-threads=1
