/* client - starts a server, and speaks to it over connections that block, for siege.c and crowds.c,
 * which define NAME, their own, before they include it. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_BYTES = 8192, PATIENCE_MS = 30000, SERVERS = 2, MAX_OPTIONS = 24 };

struct server {
    pid_t pid;
    int port;
    double ready_ms;
};

static volatile pid_t started[SERVERS]; /* what must not outlive this program */

static void kill_servers(void)
{
    for (int i = 0; i < SERVERS; i++)
        if (started[i] > 0)
            kill(started[i], SIGKILL);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, NAME ": ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    kill_servers();
    fflush(stdout);
    _exit(1); /* other threads go on until then */
}

#include "wire.h"

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Starts the server with these options, which end with NULL, and waits for its ready line. */
static struct server server_start(const char *program, const char *const *options)
{
    struct server s = {.pid = -1};
    const char *args[MAX_OPTIONS] = {program, "-q", "-p", "0"};
    char line[128] = "";
    int ends[2], n = 4, at = 0;
    double began = now_ms();

    while (*options)
        args[n++] = *options++;
    if (cert)
        memcpy(args + n, (const char *[]){"--cert", cert, "--key", key}, 4 * sizeof *args);
    while (at < SERVERS && started[at] > 0)
        at++;
    if (at == SERVERS || pipe(ends) != 0 || (s.pid = fork()) < 0)
        fail("cannot start anything: %s", strerror(errno));
    if (s.pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execv(program, (char *const *)(uintptr_t)args);
        _exit(127);
    }
    started[at] = s.pid;
    close(ends[1]);
    ssize_t len = read(ends[0], line, sizeof line - 1);
    s.ready_ms = now_ms() - began;
    close(ends[0]);
    char *colon = len > 0 ? strrchr(line, ':') : NULL;
    if (!colon)
        fail("%s did not say where it listens", program);
    s.port = atoi(colon + 1);
    return s;
}

/* Waits for the end of a server that was sent SIGTERM. */
static void server_await_end(const struct server *s)
{
    int status;
    if (waitpid(s->pid, &status, 0) != s->pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail("the server did not exit with 0");
    for (int i = 0; i < SERVERS; i++)
        if (started[i] == s->pid)
            started[i] = 0;
}

/* As many descriptors as this process may have; is that enough? */
static bool raise_limit(unsigned wanted)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur >= wanted;
}

/* Waits for something to read. */
static bool is_readable(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return is_pending(fd) || poll(&p, 1, wait_ms) == 1;
}

/* With a receive buffer of that size, unless it is 0. */
static int dial_plain(const struct server *s, int buffer)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((unsigned short)s->port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail("cannot connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static int dial(const struct server *s)
{
    int fd = dial_plain(s, 0);
    if (cert)
        secure(fd);
    return fd;
}

static void say(int fd, const char *text)
{
    for (size_t left = strlen(text); left > 0;) { /* TLS takes a record at a time */
        ssize_t n = put(fd, text, left);
        if (n <= 0)
            fail("cannot send a request: %s", strerror(errno));
        text += n;
        left -= (size_t)n;
    }
}

/* Reads until `wanted` has come, whole lines only, and leaves all that came in `got`. A keep-alive may
 * stand before or after it. Returns the length. */
static size_t hear(int fd, const char *wanted, char *got)
{
    size_t len = 0;
    for (;;) {
        if (!is_readable(fd, PATIENCE_MS) || len == ANSWER_BYTES - 1)
            fail("waited in vain for: %s", wanted);
        ssize_t n = get(fd, got + len, ANSWER_BYTES - 1 - len, 0);
        if (n <= 0)
            fail("the server closed; waited for: %s", wanted);
        len += (size_t)n;
        got[len] = 0;
        if (got[len - 1] == '\n' && strstr(got, wanted))
            return len;
    }
}

/* Opens streams of as many users as are given, in turn. */
static void open_streams(const struct server *s, int *streams, int count, int users)
{
    char request[128], got[ANSWER_BYTES];
    for (int i = 0; i < count; i++) {
        streams[i] = dial(s);
        snprintf(request, sizeof request,
                 "GET /sse/connect/u%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", i % users);
        say(streams[i], request);
        if (i >= 64)
            hear(streams[i - 64], "data: <3: Keep alive\n\n", got);
    }
    for (int i = count > 64 ? count - 64 : 0; i < count; i++)
        hear(streams[i], "data: <3: Keep alive\n\n", got);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
