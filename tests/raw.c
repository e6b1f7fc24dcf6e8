/* raw - a client that speaks bytes, for what curl cannot do.
 *
 * test.sh uses it to send requests that no proper client would send, slowly, in pieces or all at
 * once, to stop reading, to reset connections and to open crowds of them. Everything that comes
 * back goes to stdout as it is. Built with SSE_TLS all of that goes over TLS, unless -p is given;
 * then the end of a connection counts as proper only if TLS said so before (close_notify).
 *
 *     make build/raw
 *
 *     raw [-6p] PORT STEP...        carries out the steps, in order, over a connection to loopback
 *     raw -t                        prints a monotonic clock in milliseconds
 *
 *     send:TEXT                     sends; \r \n \t \0 \\ and \xHH stand for what they do in C
 *     repeat:N:TEXT                 sends TEXT N times
 *     drip:MS:TEXT                  sends byte by byte, MS milliseconds apart, until the peer closes
 *     wait:TEXT                     reads until TEXT has come, after where the last wait ended
 *     eof                           reads until the peer closes
 *     quiet:MS                      reads: for MS milliseconds nothing may come, not even a close
 *     shut                          half-close: no more will be sent
 *     rst                           closes with a reset
 *     again                         closes, and connects anew for the steps that follow
 *     deaf                          reads nothing from here on, except where a step says so
 *     rcvbuf:BYTES                  receive buffer of the connections that follow
 *     until:FILE                    waits until there is such a file
 *     touch:FILE                    makes one
 *     clock                         prints "[N ms]": the time since the connection was made
 *     keyupdate:N                   over TLS 1.3: asks for new keys N times, and reads no answer
 *     patience:MS                   how long wait, eof, until and sending may take (20000)
 *     crowd:N:TEXT                  opens N more connections, sends TEXT on each, keeps them open
 *     storm:N:TEXT                  N times: connects, sends TEXT, closes; every other with a reset
 *
 * It connects at the first step that needs it. Exit status: 0, 1 if it cannot connect, 2 for bad
 * usage, 3 if what was waited for did not come, or came against expectation, 4 if the connection
 * was reset where `eof` or `wait` expected better.
 */

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
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef SSE_TLS
#include <openssl/ssl.h>
#else
typedef struct ssl_st SSL;
#endif

enum { RECEIVED_MAX = 1 << 20, CROWD_MAX = 4096, FILE_POLL_MS = 10 };

static struct {
    bool v6, plain, deaf;
    unsigned port;
    int rcvbuf, patience_ms;
    int fd;   /* -1 when not connected */
    SSL *tls; /* over it, or NULL */
    long long connected_ms;
    bool closed, was_reset, broken; /* the peer has closed; by a reset; sending failed */
    char received[RECEIVED_MAX];    /* what `wait` has not passed yet */
    size_t received_len;
    int crowd[CROWD_MAX];
    size_t crowd_len;
} me = {.patience_ms = 20000, .fd = -1};

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

__attribute__((noreturn)) static void give_up(int status, const char *what, const char *detail)
{
    fprintf(stderr, "raw: %s%s%s\n", what, *detail ? ": " : "", detail);
    exit(status);
}

/* A number at the start of *text, which moves past it and its colon. */
static int number(const char **text)
{
    char *end;
    long n = strtol(*text, &end, 10);
    if (end == *text || n < 0 || n > 100000000 || (*end != ':' && *end != 0))
        give_up(2, "a number is expected", *text);
    *text = *end ? end + 1 : end;
    return (int)n;
}

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* The bytes that an escaped text stands for, to be freed by the caller. */
static char *unescape(const char *text, size_t *len)
{
    char *out = malloc(strlen(text) + 1);
    size_t n = 0;
    if (!out)
        give_up(1, "no memory", "");
    for (; *text; text++) {
        if (*text != '\\') {
            out[n++] = *text;
            continue;
        }
        switch (*++text) {
        case 'r':
            out[n++] = '\r';
            break;
        case 'n':
            out[n++] = '\n';
            break;
        case 't':
            out[n++] = '\t';
            break;
        case '0':
            out[n++] = 0;
            break;
        case '\\':
            out[n++] = '\\';
            break;
        case 'x':
            if (hex(text[1]) < 0 || hex(text[2]) < 0)
                give_up(2, "\\x takes two hexadecimal digits", text);
            out[n++] = (char)(hex(text[1]) * 16 + hex(text[2]));
            text += 2;
            break;
        default:
            give_up(2, "unknown escape", text - 1);
        }
    }
    *len = n;
    return out;
}

/* A new connection to loopback, non-blocking once it stands. -1 if there is none to be had. */
static int dial(void)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to;
    memset(&to, 0, sizeof to);
    socklen_t len = me.v6 ? sizeof to.v6 : sizeof to.v4;
    if (me.v6) {
        to.v6.sin6_family = AF_INET6;
        to.v6.sin6_port = htons((unsigned short)me.port);
        to.v6.sin6_addr = in6addr_loopback;
    } else {
        to.v4.sin_family = AF_INET;
        to.v4.sin_port = htons((unsigned short)me.port);
        to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    int fd = socket(to.any.sa_family, SOCK_STREAM, 0);
    if (fd >= 0 && me.rcvbuf)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &me.rcvbuf, sizeof me.rcvbuf);
    if (fd >= 0 && connect(fd, &to.any, len) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    if (fd >= 0)
        fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

#ifdef SSE_TLS

/* Shakes hands over a connection. NULL if the peer does not go along. */
static SSL *secure(int fd)
{
    static SSL_CTX *context;
    long long deadline = now_ms() + me.patience_ms;
    if (me.plain)
        return NULL;
    if (!context)
        context = SSL_CTX_new(TLS_client_method());
    SSL *tls = context ? SSL_new(context) : NULL;
    if (!tls || SSL_set_fd(tls, fd) != 1)
        give_up(1, "no memory", "");
    SSL_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    int n;
    while ((n = SSL_connect(tls)) != 1 && now_ms() < deadline) {
        int error = SSL_get_error(tls, n);
        struct pollfd p = {.fd = fd, .events = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            break;
        poll(&p, 1, 100);
    }
    if (n == 1)
        return tls;
    SSL_free(tls);
    return NULL;
}

/* As recv() and send() would. An end that TLS has not announced is as bad as a reset. */
static ssize_t tls_result(SSL *tls, int n)
{
    int error = SSL_get_error(tls, n);
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t get_bytes(SSL *tls, int fd, char *to, size_t len)
{
    int n = tls ? SSL_read(tls, to, (int)len) : 0;
    if (!tls)
        return recv(fd, to, len, 0);
    return n > 0 ? n : tls_result(tls, n);
}

static ssize_t put_bytes(SSL *tls, int fd, const char *bytes, size_t len)
{
    int n = tls ? SSL_write(tls, bytes, (int)len) : 0;
    if (!tls)
        return send(fd, bytes, len, 0);
    return n > 0 ? n : tls_result(tls, n);
}

/* Is there input that poll() does not see? */
static bool has_input(SSL *tls)
{
    return tls && SSL_pending(tls) > 0;
}

static void say_end(SSL *tls)
{
    if (tls)
        SSL_shutdown(tls);
}

static void drop(SSL *tls)
{
    SSL_free(tls);
}

#else

static SSL *secure(int fd)
{
    (void)fd;
    return NULL;
}

static ssize_t get_bytes(SSL *tls, int fd, char *to, size_t len)
{
    (void)tls;
    return recv(fd, to, len, 0);
}

static ssize_t put_bytes(SSL *tls, int fd, const char *bytes, size_t len)
{
    (void)tls;
    return send(fd, bytes, len, 0);
}

static bool has_input(SSL *tls)
{
    (void)tls;
    return false;
}

static void say_end(SSL *tls)
{
    (void)tls;
}

static void drop(SSL *tls)
{
    (void)tls;
}

#endif

/* Until the peer takes no more: then what is said stays half said. */
static void update_keys(int times)
{
#ifdef SSE_TLS
    struct pollfd p = {.fd = me.fd, .events = POLLOUT};
    for (int n = 1; me.tls && times-- > 0 && (n == 1 || poll(&p, 1, 300) > 0);)
        if (SSL_key_update(me.tls, SSL_KEY_UPDATE_REQUESTED) == 1 || n != 1)
            n = SSL_do_handshake(me.tls);
#else
    (void)times;
#endif
}

static bool wants_tls(void)
{
#ifdef SSE_TLS
    return !me.plain;
#else
    return false;
#endif
}

static void need_connection(void)
{
    if (me.fd >= 0)
        return;
    me.fd = dial();
    if (me.fd < 0)
        give_up(1, "cannot connect", strerror(errno));
    me.connected_ms = now_ms();
    me.tls = secure(me.fd);
    me.closed = me.was_reset = me.broken = wants_tls() && !me.tls;
    me.received_len = 0;
}

static void hang_up(bool with_reset)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (me.fd < 0)
        return;
    if (with_reset)
        setsockopt(me.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    drop(me.tls);
    me.tls = NULL;
    close(me.fd);
    me.fd = -1;
}

static void print_all(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, bytes, len);
        if (n < 0 && errno != EINTR)
            give_up(1, "cannot write", strerror(errno));
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
}

/* Takes what has come; keeps the newest of it for `wait`. */
static void take(void)
{
    char bytes[16384];
    ssize_t n = get_bytes(me.tls, me.fd, bytes, sizeof bytes);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        me.closed = true;
        me.was_reset = n < 0;
        return;
    }
    print_all(bytes, (size_t)n);
    if ((size_t)n > RECEIVED_MAX - me.received_len) {
        me.received_len = RECEIVED_MAX / 2;
        memmove(me.received, me.received + RECEIVED_MAX / 2, RECEIVED_MAX / 2);
    }
    memcpy(me.received + me.received_len, bytes, (size_t)n);
    me.received_len += (size_t)n;
}

/* Waits for events until the deadline and takes what comes, unless deaf. Returns the events. */
static short attend(short events, long long deadline_ms)
{
    struct pollfd p = {.fd = me.fd, .events = events};
    long long left = deadline_ms - now_ms();
    if ((events & POLLIN) && has_input(me.tls)) {
        take();
        return POLLIN;
    }
    int n = poll(&p, 1, left > 0 ? (int)left : 0);
    if (n <= 0)
        return 0;
    if ((events & POLLIN) && (p.revents & (POLLIN | POLLHUP | POLLERR)))
        take();
    return p.revents;
}

static short listening(void)
{
    return me.deaf || me.closed ? 0 : POLLIN;
}

static void send_bytes(const char *bytes, size_t len)
{
    long long deadline = now_ms() + me.patience_ms;
    need_connection();
    while (len > 0 && !me.broken) {
        ssize_t n = put_bytes(me.tls, me.fd, bytes, len);
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (now_ms() >= deadline)
                give_up(3, "the peer takes no more", "");
            attend((short)(POLLOUT | listening()), deadline);
        } else if (errno != EINTR) {
            me.broken = true; /* what the peer said before it closed can still be read */
        }
    }
}

static void step_send(const char *arg)
{
    size_t len;
    char *bytes = unescape(arg, &len);
    send_bytes(bytes, len);
    free(bytes);
}

static void step_repeat(const char *arg)
{
    int times = number(&arg);
    size_t len;
    char *bytes = unescape(arg, &len), *all = malloc(len * (size_t)times + 1);
    if (!all)
        give_up(1, "no memory", "");
    for (int i = 0; i < times; i++)
        memcpy(all + len * (size_t)i, bytes, len);
    send_bytes(all, len * (size_t)times);
    free(bytes);
    free(all);
}

static void step_drip(const char *arg)
{
    int pause_ms = number(&arg);
    size_t len;
    char *bytes = unescape(arg, &len);
    need_connection();
    for (size_t i = 0; i < len && !me.broken && !me.closed; i++) {
        long long next = now_ms() + pause_ms;
        send_bytes(bytes + i, 1);
        while (!me.closed && now_ms() < next)
            attend(listening(), next);
    }
    free(bytes);
}

/* Where `what` begins in what was received, or NULL. */
static char *find(const char *what, size_t len)
{
    for (size_t i = 0; len <= me.received_len && i <= me.received_len - len; i++)
        if (memcmp(me.received + i, what, len) == 0)
            return me.received + i;
    return NULL;
}

static void step_wait(const char *arg)
{
    long long deadline = now_ms() + me.patience_ms;
    size_t len;
    char *text = unescape(arg, &len), *at;
    need_connection();
    while (!(at = find(text, len))) {
        if (me.closed)
            give_up(me.was_reset ? 4 : 3, "the peer closed before it sent", arg);
        if (now_ms() >= deadline)
            give_up(3, "this never came", arg);
        attend(POLLIN, deadline);
    }
    at += len;
    me.received_len -= (size_t)(at - me.received);
    memmove(me.received, at, me.received_len);
    free(text);
}

static void step_eof(const char *arg)
{
    long long deadline = now_ms() + me.patience_ms;
    (void)arg;
    need_connection();
    while (!me.closed) {
        if (now_ms() >= deadline)
            give_up(3, "the peer never closed", "");
        attend(POLLIN, deadline);
    }
    if (me.was_reset)
        give_up(4, "the connection was reset", "");
}

static void step_quiet(const char *arg)
{
    long long deadline = now_ms() + number(&arg);
    size_t before = me.received_len;
    need_connection();
    while (now_ms() < deadline) {
        attend(POLLIN, deadline);
        if (me.closed || me.received_len != before)
            give_up(3, me.closed ? "the peer closed" : "something came", "");
    }
}

static void step_shut(const char *arg)
{
    (void)arg;
    need_connection();
    say_end(me.tls);
    shutdown(me.fd, SHUT_WR);
}

static void step_rst(const char *arg)
{
    (void)arg;
    hang_up(true);
}

static void step_again(const char *arg)
{
    (void)arg;
    hang_up(false);
    need_connection();
}

static void step_deaf(const char *arg)
{
    (void)arg;
    me.deaf = true;
}

static void step_rcvbuf(const char *arg)
{
    me.rcvbuf = number(&arg);
}

static void step_until(const char *arg)
{
    long long deadline = now_ms() + me.patience_ms;
    while (access(arg, F_OK) != 0) {
        if (now_ms() >= deadline)
            give_up(3, "there never was a file", arg);
        poll(NULL, 0, FILE_POLL_MS);
    }
}

static void step_touch(const char *arg)
{
    int fd = open(arg, O_CREAT | O_WRONLY, 0666);
    if (fd < 0)
        give_up(1, arg, strerror(errno));
    close(fd);
}

static void step_clock(const char *arg)
{
    char line[48];
    int n = snprintf(line, sizeof line, "[%lld ms]\n", now_ms() - me.connected_ms);
    (void)arg;
    print_all(line, (size_t)n);
}

static void step_keyupdate(const char *arg)
{
    need_connection();
    update_keys(number(&arg));
}

static void step_patience(const char *arg)
{
    me.patience_ms = number(&arg);
}

static void step_crowd(const char *arg)
{
    int times = number(&arg);
    size_t len;
    char *bytes = unescape(arg, &len);
    while (times-- > 0) {
        int fd = me.crowd_len < CROWD_MAX ? dial() : -1;
        if (fd < 0)
            give_up(1, "cannot connect", strerror(errno));
        me.crowd[me.crowd_len++] = fd;
        SSL *tls = secure(fd); /* kept open, like the connection, until the end */
        if ((wants_tls() && !tls) || put_bytes(tls, fd, bytes, len) < 0)
            break; /* refused already: no matter here */
    }
    free(bytes);
}

static void step_storm(const char *arg)
{
    int times = number(&arg);
    size_t len;
    char *bytes = unescape(arg, &len);
    while (times-- > 0) {
        hang_up(false);
        need_connection();
        send_bytes(bytes, len);
        hang_up(times % 2 == 0);
    }
    free(bytes);
}

static const struct {
    const char *name;
    void (*run)(const char *arg);
} STEPS[] = {
    {"send", step_send},   {"repeat", step_repeat}, {"drip", step_drip},
    {"wait", step_wait},   {"eof", step_eof},       {"quiet", step_quiet},
    {"shut", step_shut},   {"rst", step_rst},       {"again", step_again},
    {"deaf", step_deaf},   {"rcvbuf", step_rcvbuf}, {"until", step_until},
    {"touch", step_touch}, {"clock", step_clock},   {"patience", step_patience},
    {"crowd", step_crowd}, {"storm", step_storm},   {"keyupdate", step_keyupdate},
};

static void carry_out(const char *step)
{
    size_t len = strcspn(step, ":");
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS; i++) {
        if (strlen(STEPS[i].name) == len && strncmp(STEPS[i].name, step, len) == 0) {
            STEPS[i].run(step[len] ? step + len + 1 : "");
            return;
        }
    }
    give_up(2, "unknown step", step);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    int at = 1;

    if (argc == 2 && strcmp(argv[1], "-t") == 0) {
        printf("%lld\n", now_ms());
        return 0;
    }
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "-6") != 0 && strcmp(argv[at], "-p") != 0)
            give_up(2, "unknown option", argv[at]);
        me.v6 |= argv[at][1] == '6';
        me.plain |= argv[at][1] == 'p';
    }
    if (at >= argc)
        give_up(2, "usage: raw [-6p] PORT STEP...", "");
    const char *port = argv[at++];
    me.port = (unsigned)number(&port);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* for a crowd */
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    for (; at < argc; at++)
        carry_out(argv[at]);
    return 0;
}
