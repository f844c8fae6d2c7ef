# Builds a project of many files in parallel, with a job server that its sub-makes share.
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

mkdir part
for number in $(seq 1 40); do
    echo "int f$number(void) { return $number; }" >"part/f$number.c"
done
{
    for number in $(seq 1 40); do echo "int f$number(void);"; done
    echo '#include <stdio.h>'
    printf '%s\n' 'int main(void) { printf("%d\n", 0'
    for number in $(seq 1 40); do echo "+ f$number()"; done
    echo '); return 0; }'
} >main.c
printf 'OBJECTS := $(patsubst %%.c,%%.o,$(wildcard *.c))\nlib.a: $(OBJECTS)\n\tar rcs $@ $^\n' >part/Makefile
printf 'all: program\nprogram: main.o part/lib.a\n\t$(CC) -o $@ $^\npart/lib.a: force\n\t$(MAKE) -C part\nforce:\n.PHONY: all force\n' >Makefile
try "make -j8" make -j8
try "what was built" sh -c '[ "$(./program)" = 820 ]'
try "nothing to be done" make -j8 -q -C part
sleep 1
echo 'int f1(void) { return 101; }' >part/f1.c
try "what has changed" make -j8
try "what was built anew" sh -c '[ "$(./program)" = 920 ]'
printf 'all: a b c\na b c:\n\t@sleep 0.1; echo $@\nbad:\n\tfalse\n' >order.mk
try "output in groups" sh -c '[ "$(make -f order.mk -j3 -Otarget | sort | tr -d "\n")" = abc ]'
try "a load average" make -f order.mk -j3 -l 100
try "a failure" sh -c 'make -f order.mk bad; [ $? = 2 ]'
