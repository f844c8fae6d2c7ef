# A life of a repository: commits, branches, merges, clones, packs, bisection, worktrees, hooks, archives.
set -u
try() {
    name=$1
    shift
    if "$@" >"$HOME/said" 2>&1; then
        printf 'verdict\t%s\tok\n' "$name"
    else
        printf 'verdict\t%s\tfailed: %s\n' "$name" "$(tail -n 1 "$HOME/said")"
    fi
}

export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
try "init" git init -q -b main one
cd one || exit 1
for number in $(seq 1 50); do
    echo "$number" >>file
    echo "$number" >"other$((number % 7))"
    git add -A && git commit -q -m "commit $number"
done
try "fifty commits" sh -c '[ "$(git rev-list --count HEAD)" = 50 ]'
# What git makes of the same content and times is the same everywhere: the name of the last commit says so.
printf 'verdict\thead\t%s\n' "$(git rev-parse HEAD)"
try "status" sh -c '[ -z "$(git status --porcelain)" ]'
try "log" sh -c 'git log --stat --graph | grep -q "commit 17"'
try "blame" sh -c '[ "$(git blame -s file | wc -l)" = 50 ]'
try "diff" sh -c 'git diff HEAD~3 HEAD -- file | grep -q "^+48"'
try "branch" git checkout -q -b side HEAD~5
echo side >side && git add side && git commit -q -m side
try "merge" git merge -q -m merge main
try "rebase" sh -c 'git checkout -q -b other HEAD~10 && echo o >o && git add o && git commit -q -m o && git rebase -q main'
try "stash" sh -c 'echo changed >>file && git stash -q && git stash pop -q && git checkout -q file'
try "tag" git tag -a -m first v1
try "gc" git gc -q --aggressive --prune=now
try "fsck" git fsck --full --strict
try "repack" git repack -q -a -d -f --threads=4
try "bisect" sh -c 'git checkout -q main && git bisect start HEAD HEAD~40 && git bisect run sh -c "[ \$(wc -l <file) -lt 30 ]" &&
    git show -s --format=%s refs/bisect/bad | grep -q "commit 30" && git bisect reset'
try "worktree" git worktree add -q ../tree side
try "archive" sh -c 'git archive HEAD | tar -t | grep -q file'
try "grep" git grep -q 17 -- file
try "hook" sh -c 'printf "#!/bin/sh\nexit 1\n" >.git/hooks/pre-commit && chmod +x .git/hooks/pre-commit && ! git commit -q --allow-empty -m no'
cd ..
try "clone" git clone -q one two
try "clone by links and without" sh -c 'git clone -q --no-hardlinks one three && git clone -q --shared one four'
try "clone through the protocol" git clone -q "file://$PWD/one" five
try "shallow clone" sh -c 'git clone -q --depth 1 "file://$PWD/one" six && [ "$(git -C six rev-list --count HEAD)" = 1 ]'
try "push" sh -c 'git init -q --bare bare && git -C one push -q ../bare main side'
try "fetch" sh -c 'git -C two fetch -q ../one side'
try "bundle" sh -c 'git -C one bundle create -q ../b main && git clone -q -b main b seven'
try "daemon on the loopback" sh -c 'git daemon --export-all --reuseaddr --listen=127.0.0.1 --port=19418 --base-path="$PWD" "$PWD" & daemon=$!
    for try in 1 2 3 4 5 6 7 8 9 10; do git clone -q git://127.0.0.1:19418/one eight && break; sleep 0.3; done; kill $daemon; [ -d eight/.git ]'
try "submodule" sh -c 'git -C two -c protocol.file.allow=always submodule add -q "file://$PWD/three" sub'
