# Journals, a write-ahead log, locks between processes, a large transaction, full text, a backup.
set -u
try() {
    name=$1
    shift
    if "$@" >said 2>&1; then
        printf 'verdict\t%s\tok\n' "$name"
    else
        printf 'verdict\t%s\tfailed: %s\n' "$name" "$(tail -n 1 said)"
    fi
}

says() {
    expected=$1
    shift
    [ "$(sqlite3 "$@" 2>&1)" = "$expected" ]
}

try "write-ahead log" says wal wal.db "PRAGMA journal_mode = wal;"
try "a large transaction" sqlite3 wal.db "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT); BEGIN;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
    INSERT INTO t SELECT i, hex(i * 7919) FROM n; COMMIT;"
try "all of it is there" says 200000 wal.db "SELECT count(*) FROM t;"
try "an index" sqlite3 wal.db "CREATE INDEX by_text ON t(text); ANALYZE;"
try "checkpoint" says "0|0|0" wal.db "PRAGMA wal_checkpoint(TRUNCATE);"
try "vacuum" sqlite3 wal.db "DELETE FROM t WHERE id % 3 = 0; VACUUM;"
try "integrity" says ok wal.db "PRAGMA integrity_check;"
try "mapped into memory" sh -c '[ "$(sqlite3 -cmd "PRAGMA mmap_size = 268435456;" wal.db "SELECT count(*) FROM t WHERE text NOT NULL;" | tail -n 1)" = 133334 ]'
try "writers at one time" sh -c 'sqlite3 many.db "PRAGMA journal_mode = wal; CREATE TABLE t (i);" >/dev/null
    for writer in 1 2 3 4 5 6; do
        (for i in 1 2 3 4 5 6 7 8 9 10; do sqlite3 -cmd ".timeout 60000" many.db "BEGIN IMMEDIATE; INSERT INTO t VALUES ($i); COMMIT;"; done) &
    done
    wait; [ "$(sqlite3 many.db "SELECT count(*) FROM t;")" = 60 ]'
try "a lock holds others up" sh -c 'sqlite3 lock.db "CREATE TABLE t (i);"
    mkfifo hold; sqlite3 lock.db <hold & exec 3>hold; echo "BEGIN EXCLUSIVE; INSERT INTO t VALUES (1);" >&3; echo ".shell touch held" >&3
    while [ ! -e held ]; do sleep 0.05; done
    sqlite3 lock.db "INSERT INTO t VALUES (2);" 2>&1 | grep -q "database is locked" || exit 1
    echo "COMMIT;" >&3; exec 3>&-; wait; [ "$(sqlite3 lock.db "SELECT count(*) FROM t;")" = 1 ]'
for journal in delete truncate persist memory; do
    try "journal $journal" sh -c "[ \"\$(sqlite3 $journal.db 'PRAGMA journal_mode = $journal; CREATE TABLE t (i); BEGIN; INSERT INTO t VALUES (1); ROLLBACK; SELECT count(*) FROM t;' | tail -n 1)\" = 0 ]"
done
try "full text" says 1 text.db "CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('a brown fox'), ('a red dog'); SELECT count(*) FROM f WHERE f MATCH 'fox';"
try "backup" sh -c 'sqlite3 wal.db ".backup copy.db" && [ "$(sqlite3 copy.db "SELECT count(*) FROM t;")" = 133334 ]'
try "dump and read" sh -c 'sqlite3 many.db .dump | sqlite3 again.db && [ "$(sqlite3 again.db "SELECT count(*) FROM t;")" = 60 ]'
try "a temporary file" sh -c '[ "$(sqlite3 "" "PRAGMA temp_store = file; CREATE TABLE t (i); INSERT INTO t VALUES (1); SELECT * FROM t;")" = 1 ]'
