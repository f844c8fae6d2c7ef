/* Holds memory in an address space that no task has for long: each hands it on to its successor and is gone.
 *
 * process  processes that share it (clone with CLONE_VM)
 * thread   threads of a process whose first thread has ended
 * kill     children of vfork that kill their parent, which waits for them
 * exec     processes that execute another program instead of ending
 *
 * Idle children make a look at the tree slow meanwhile. The first process waits to be stopped and continued, and says then whether a
 * child that has stopped itself before is still so. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static char stacks[512][16384] __attribute__((aligned(16)));
static const char *how;
static volatile char *held;
static size_t len;
static int is(const char *name) { return strcmp(how, name) == 0; }
static int hand_on(void *number) {
    size_t n = (size_t)number, from = n << 18;
    if (is("kill") && n > 0) kill(getppid(), SIGKILL);
    for (size_t more = 0; more < 1 << 18 && from + more < len; more += 4096) held[from + more] = 1;
    int flags = is("thread") ? CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
              : is("kill") ? CLONE_VM | CLONE_VFORK : CLONE_VM;
    while (clone(hand_on, stacks[n % 512] + sizeof stacks[0], flags, (void *)(n + 1)) < 0) sched_yield();
    if (is("exec")) execl("/bin/true", "true", (char *)0);
    syscall(SYS_exit, 0);
}
static volatile sig_atomic_t continued;
static void note(int signal) { continued = 1; }
int main(int argc, char **argv) {
    char path[40], stat[80] = {0};
    how = argv[1];
    len = strtoul(argv[2], 0, 10) << 20;
    int stopped = fork();
    if (stopped == 0) for (;;) raise(SIGSTOP);
    waitpid(stopped, 0, WUNTRACED);
    for (int n = 0; n < 300; n++)
        if (fork() == 0) for (;;) pause();
    signal(SIGCONT, note);
    if (fork() == 0) {
        held = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        hand_on((void *)0);
    }
    while (!continued) usleep(1000);
    sprintf(path, "/proc/%d/stat", stopped);
    read(open(path, O_RDONLY), stat, sizeof stat - 1);
    puts(strstr(stat, ") T ") ? "still stopped" : stat);
    fflush(stdout);
    if (len < 256UL << 20) return 0;
    for (;;) pause();
}
