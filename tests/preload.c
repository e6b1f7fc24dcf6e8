/* preload - makes what a program asks of the system fail, when and as often as told.
 *
 *     cc -std=c11 -shared -fPIC -o build/preload.so tests/preload.c
 *     FAULT_MALLOC=7 LD_PRELOAD=build/preload.so ./sse
 *
 *     FAULT_MALLOC=N     the Nth allocation fails, counted over all threads
 *     FAULT_THREADS=N-M  creating a thread fails from the Nth time to the Mth
 *     FAULT_ACCEPT=N-M   accepting fails likewise, with one network error of a client after the other
 *     FAULT_HIT=FILE     is made once something has failed
 *     FAULT_CLOCK=FILE   the date is what it is, and as many seconds later as FILE says; it may change
 *
 * Linux with glibc only. It stands between the program and the C library, and takes nothing else. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void *__libc_malloc(size_t size);               /* NOLINT: glibc's own name for it */
void *__libc_calloc(size_t count, size_t size); /* NOLINT */
void *__libc_realloc(void *at, size_t size);    /* NOLINT */

static atomic_long allocations, threads, accepts;

/* A number from the environment, from the first digit or after the first '-'; 0 if there is none. */
static long setting(const char *name, int second)
{
    const char *text = getenv(name);
    long value = 0;
    while (text && second && *text && *text++ != '-')
        ;
    while (text && *text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

static void hit(void)
{
    const char *file = getenv("FAULT_HIT");
    int fd = file ? open(file, O_CREAT | O_WRONLY, 0600) : -1;
    if (fd >= 0)
        close(fd);
}

/* Is this the allocation that is to fail? */
static int fails(void)
{
    static atomic_long which = -1;
    if (atomic_load(&which) < 0)
        atomic_store(&which, setting("FAULT_MALLOC", 0));
    if (atomic_load(&which) == 0 || atomic_fetch_add(&allocations, 1) + 1 != atomic_load(&which))
        return 0;
    hit();
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *at, size_t size)
{
    return fails() ? NULL : __libc_realloc(at, size);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    long n = atomic_fetch_add(&threads, 1) + 1;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (n < setting("FAULT_THREADS", 0) || n > setting("FAULT_THREADS", 1))
        return real(thread, attributes, run, arg);
    hit();
    return EAGAIN;
}

int accept4(int fd, __SOCKADDR_ARG address, socklen_t *restrict len, int flags)
{
    static const int errors[] = {EPROTO,    ENETDOWN,     ENOPROTOOPT, EHOSTDOWN,
                                 ENONET,    EHOSTUNREACH, EOPNOTSUPP,  ENETUNREACH,
                                 ETIMEDOUT, EPERM,        ECONNABORTED};
    static int (*real)(int, __SOCKADDR_ARG, socklen_t *restrict, int);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "accept4");
    long first = setting("FAULT_ACCEPT", 0), n = atomic_fetch_add(&accepts, 1) + 1;
    if (n < first || n > setting("FAULT_ACCEPT", 1))
        return real(fd, address, len, flags);
    hit();
    errno = errors[(size_t)(n - first) % (sizeof errors / sizeof *errors)];
    return -1;
}

/* How much later it is. */
static long shift(void)
{
    const char *file = getenv("FAULT_CLOCK");
    char text[24];
    int fd = file ? open(file, O_RDONLY) : -1;
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (clock == CLOCK_REALTIME)
        t->tv_sec += shift();
    return result;
}

time_t time(time_t *to)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (to)
        *to = t.tv_sec;
    return t.tv_sec;
}
