/* faults - runs the server again and again, with one thing failing each time, and talks to it.
 *
 *     make build/tls/faults build/preload.so build/tls/sse
 *     build/tls/faults build/preload.so CERT KEY SECRET TOKEN STEP build/tls/sse [OPTIONS]
 *
 * The Nth allocation fails, for N = 1, 2, 3 and so on until a run needs no more of them: all of the
 * first 200, then every STEP-th. Each time the program must either refuse to start, with status 1 and a
 * line that says why, or serve: of a few tries one must open a stream, send it a message and receive
 * it. Then SIGTERM must end it with status 0. With "" for CERT, KEY and SECRET it does all of that
 * over plain HTTP and without a token. Prints "faults: ok, N runs", or what went wrong, and exits
 * with 0 or 1. Two of them run at a time. */

#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef SSE_TLS
#include <openssl/ssl.h>
#else
typedef struct ssl_st SSL;
#endif

enum { ALL = 200, TRIES = 5, PATIENCE_S = 10, OPTIONS_MAX = 16 };

static const char *preload, *cert, *key, *secret, *token, **program;

struct wire {
    int fd;
    SSL *tls;
};

static void hang_up(struct wire *w)
{
#ifdef SSE_TLS
    SSL_free(w->tls);
#endif
    close(w->fd);
}

static bool dial(struct wire *w, unsigned port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    w->tls = NULL;
    w->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (w->fd < 0)
        return false;
    setsockopt(w->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bool good = connect(w->fd, (struct sockaddr *)(void *)&to, sizeof to) == 0;
#ifdef SSE_TLS
    static SSL_CTX *context;
    if (good && *cert) {
        if (!context)
            context = SSL_CTX_new(TLS_client_method());
        w->tls = SSL_new(context);
        good = SSL_set_fd(w->tls, w->fd) == 1 && SSL_connect(w->tls) == 1;
    }
#endif
    if (!good)
        hang_up(w);
    return good;
}

static bool say(struct wire *w, const char *text)
{
    int len = (int)strlen(text);
#ifdef SSE_TLS
    if (w->tls)
        return SSL_write(w->tls, text, len) == len;
#endif
    return send(w->fd, text, (size_t)len, MSG_NOSIGNAL) == len;
}

/* Reads until `text` has come. */
static bool hear(struct wire *w, const char *text)
{
    char got[8192];
    size_t n = 0;
    while (n < sizeof got - 1) {
        long more = -1;
#ifdef SSE_TLS
        if (w->tls)
            more = SSL_read(w->tls, got + n, (int)(sizeof got - 1 - n));
        else
#endif
            more = recv(w->fd, got + n, sizeof got - 1 - n, 0);
        if (more <= 0)
            return false;
        n += (size_t)more;
        got[n] = 0;
        if (strstr(got, text))
            return true;
    }
    return false;
}

/* A stream, a message to it, and the message on the stream. */
static bool converse(unsigned port)
{
    struct wire stream, sender;
    char request[4096];
    bool good = false;

    if (!dial(&stream, port))
        return false;
    snprintf(
        request, sizeof request,
        "GET /sse/connect/alice HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n",
        token);
    if (say(&stream, request) && hear(&stream, "Keep alive\n\n") && dial(&sender, port)) {
        snprintf(request, sizeof request,
                 "POST /sse/send/alice?access_token=%s HTTP/1.1\r\nHost: localhost\r\n"
                 "Content-Length: 5\r\nConnection: close\r\n\r\nhello",
                 token);
        good = say(&sender, request) && hear(&sender, "\"streams\":") &&
               hear(&stream, "data: hello\n\n");
        hang_up(&sender);
    }
    hang_up(&stream);
    return good;
}

/* Starts the program with its Nth allocation failing. */
static pid_t start(long n, const char *hit, int *out, int *err)
{
    int o[2], e[2];
    if (pipe(o) != 0 || pipe(e) != 0)
        exit(2);
    pid_t pid = fork();
    if (pid == 0) {
        char number[32];
        const char *args[OPTIONS_MAX + 16];
        int count = 0;
        for (int i = 0; program[i] && i < OPTIONS_MAX; i++)
            args[count++] = program[i];
        args[count++] = "--port=0";
        if (*cert) {
            args[count++] = "--cert";
            args[count++] = cert;
            args[count++] = "--key";
            args[count++] = key;
        }
        if (*secret) {
            args[count++] = "--auth-secret";
            args[count++] = secret;
        }
        args[count] = NULL;
        snprintf(number, sizeof number, "%ld", n);
        setenv("FAULT_MALLOC", number, 1);
        setenv("FAULT_HIT", hit, 1);
        setenv("LD_PRELOAD", preload, 1);
        dup2(o[1], 1);
        dup2(e[1], 2);
        for (int i = 0; i < 2; i++) {
            close(o[i]);
            close(e[i]);
        }
        execv(args[0], (char **)(void *)args);
        _exit(127);
    }
    close(o[1]);
    close(e[1]);
    *out = o[0];
    *err = e[0];
    return pid;
}

/* Its exit status; -1 if a signal ended it, or it never ended. */
static int ended(pid_t pid)
{
    int status;
    for (int i = 0; i < PATIENCE_S * 100; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        poll(NULL, 0, 10);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

static size_t slurp(int fd, char *to, size_t cap)
{
    size_t n = 0;
    ssize_t more;
    while (n < cap - 1 && (more = read(fd, to + n, cap - 1 - n)) > 0)
        n += (size_t)more;
    to[n] = 0;
    return n;
}

/* One run. NULL if all was well, else what was not. */
static const char *run(long n, const char *hit)
{
    char line[256] = "", log[4096];
    int out, err;
    pid_t pid = start(n, hit, &out, &err);
    const char *wrong = NULL;

    for (size_t at = 0; at < sizeof line - 1 && read(out, line + at, 1) == 1 && line[at] != '\n';
         at++)
        line[at + 1] = 0;
    const char *port = strrchr(line, ':');
    if (!port) {
        int status = ended(pid);
        slurp(err, log, sizeof log);
        wrong = status != 1      ? "it did not start, and its status is not 1"
                : log[0] == '\0' ? "it did not start, and did not say why"
                                 : NULL;
    } else {
        int tries = 0;
        while (tries < TRIES && !converse((unsigned)atoi(port + 1)))
            tries++;
        kill(pid, SIGTERM);
        int status = ended(pid);
        wrong = tries == TRIES ? "it does not serve"
                : status != 0  ? "SIGTERM did not end it with status 0"
                               : NULL;
        slurp(err, log, sizeof log);
    }
    if (wrong)
        fprintf(stderr, "allocation %ld: %s (%s; %s)\n", n, wrong, line, log);
    close(out);
    close(err);
    return wrong;
}

/* Every other run, from the first or the second on. The number of runs is the exit status's affair of
 * the parent: it comes through the pipe, negative if something was wrong. */
static long work(long first, long step)
{
    char hit[256];
    long runs = 0, i = first - 1;
    const char *dir = getenv("TMPDIR");
    pid_t parent = getppid();
    bool good = true;
    snprintf(hit, sizeof hit, "%s/sse-faults-%ld", dir ? dir : "/tmp", (long)getpid());
    while (getppid() == parent) { /* nobody wants to know any more */
        long n = i < ALL ? i + 1 : ALL + (i - ALL) * step + 1;
        unlink(hit);
        good = !run(n, hit) && good;
        runs++;
        i += 2;
        if (access(hit, F_OK) != 0)
            break;
    }
    unlink(hit);
    return good ? runs : -runs;
}

int main(int argc, char **argv)
{
    if (argc < 8) {
        fprintf(stderr, "usage: faults PRELOAD CERT KEY SECRET TOKEN STEP PROGRAM [OPTIONS]\n");
        return 2;
    }
    preload = argv[1];
    cert = argv[2];
    key = argv[3];
    secret = argv[4];
    token = argv[5];
    long step = strtol(argv[6], NULL, 10), total = 0;
    program = (const char **)(void *)(argv + 7);
    signal(SIGPIPE, SIG_IGN);
    int results[2];
    if (step < 1 || pipe(results) != 0)
        return 2;
    for (long worker = 1; worker <= 2; worker++)
        if (fork() == 0) {
            long runs = work(worker, step);
            _exit(write(results[1], &runs, sizeof runs) != sizeof runs);
        }
    bool good = true;
    for (int i = 0; i < 2; i++) {
        long runs = 0;
        good = read(results[0], &runs, sizeof runs) == sizeof runs && runs > 0 && good;
        total += labs(runs);
    }
    while (wait(NULL) > 0)
        ;
    printf("faults: %s, %ld runs\n", good ? "ok" : "FAILED", total);
    return !good;
}
