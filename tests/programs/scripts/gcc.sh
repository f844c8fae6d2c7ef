# Compiles, links and runs: C, C with threads, C++, a shared library, an archive.
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
    program=$1
    shift
    [ "$("$program")" = "$*" ]
}

cat >plain.c <<'C'
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
    FILE *file = tmpfile();
    char text[16] = "";
    if (!file || fputs("written", file) < 0) return 1;
    rewind(file);
    if (!fgets(text, sizeof text, file)) return 2;
    char *memory = malloc(64 << 20);
    if (!memory) return 3;
    memset(memory, 1, 64 << 20);
    printf("%s %.3f %d\n", text, sqrt(2.0), memory[(64 << 20) - 1]);
    return 0;
}
C
cat >threads.c <<'C'
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static __thread long own;
static long sum;
static void *add(void *argument) {
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 10000; i++) own++;
    pthread_mutex_lock(&mutex);
    sum += own;
    pthread_mutex_unlock(&mutex);
    sem_post(&semaphore);
    return argument;
}
int main(void) {
    pthread_t threads[16];
    pthread_barrier_init(&barrier, NULL, 16);
    sem_init(&semaphore, 0, 0);
    for (int i = 0; i < 16; i++)
        if (pthread_create(&threads[i], NULL, add, NULL)) return 1;
    for (int i = 0; i < 16; i++) sem_wait(&semaphore);
    for (int i = 0; i < 16; i++) pthread_join(threads[i], NULL);
    printf("%ld\n", sum);
    return 0;
}
C
cat >shared.c <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>
int main(void) {
    int file = shm_open("/counter", O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file < 0 || ftruncate(file, 4096)) return 1;
    int *counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    shm_unlink("/counter");
    if (counter == MAP_FAILED) return 2;
    for (int i = 0; i < 8; i++)
        if (fork() == 0) {
            __sync_fetch_and_add(counter, i);
            _exit(0);
        }
    while (wait(NULL) > 0) {}
    printf("%d\n", *counter);
    return 0;
}
C
cat >plus.cc <<'C'
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>
int main() {
    std::filesystem::create_directories("folder/below");
    std::ofstream("folder/below/file") << "a-1 b-2";
    std::string text((std::istreambuf_iterator<char>(std::ifstream("folder/below/file").rdbuf())), {});
    std::regex pair("([a-z])-([0-9])");
    std::map<std::string, int> found;
    for (std::sregex_iterator it(text.begin(), text.end(), pair), end; it != end; ++it) found[(*it)[1]] = std::stoi((*it)[2]);
    std::vector<std::future<int>> parts;
    for (int i = 0; i < 4; i++) parts.push_back(std::async(std::launch::async, [i] { return i * i; }));
    int sum = 0;
    for (auto &part : parts) sum += part.get();
    try {
        found.at("c");
    } catch (const std::out_of_range &) {
        std::cout << found["a"] + found["b"] << ' ' << sum << '\n';
    }
}
C
cat >library.c <<'C'
int answer(void) { return 42; }
C
cat >loads.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *library = dlopen("./liblibrary.so", RTLD_NOW);
    int (*answer)(void) = library ? (int (*)(void))dlsym(library, "answer") : NULL;
    if (!answer) return 1;
    printf("%d\n", answer());
    return 0;
}
C
cat >linked.c <<'C'
#include <stdio.h>
int answer(void);
int main(void) { printf("%d\n", answer()); return 0; }
C
try "compile C" gcc -O2 -Wall -Werror -o plain plain.c -lm
try "run C" says ./plain written 1.414 1
try "compile threads" gcc -O2 -pthread -o threads threads.c
try "run threads" says ./threads 160000
try "compile shared memory" gcc -O2 -o shared shared.c
try "run shared memory" says ./shared 28
try "compile C++" g++ -std=c++17 -O1 -pthread -o plus plus.cc
try "run C++" says ./plus 3 14
try "compile a shared library" gcc -shared -fPIC -o liblibrary.so library.c
try "compile what loads it" gcc -o loads loads.c
try "run what loads it" says ./loads 42
try "compile an object" gcc -c library.c
try "make an archive" ar rcs liblibrary.a library.o
try "link with link time optimisation" gcc -flto -O2 -o lto linked.c library.c
try "run what was optimised" says ./lto 42
try "link statically" gcc -static -o static linked.c liblibrary.a
try "run what is static" says ./static 42
try "compile through pipes" gcc -pipe -O0 -g -o debug plain.c -lm
try "sanitize addresses" gcc -fsanitize=address -O1 -o sane linked.c library.c
try "run with sanitized addresses" says ./sane 42
try "sanitize undefined behaviour" gcc -fsanitize=undefined -O1 -o defined linked.c library.c
try "run with undefined behaviour sanitized" says ./defined 42
try "sanitize threads" gcc -fsanitize=thread -O1 -o racy threads.c
try "run with sanitized threads" says ./racy 160000
try "read symbols" sh -c 'nm library.o | grep -q answer'
try "strip" strip debug
