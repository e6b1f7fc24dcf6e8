/* crowds - what many streams, busy users and strangers must not cost others.
 *
 *     make build/sse build/crowds
 *     build/crowds build/sse TEST [SIZE [CERT KEY]]     SIZE 0 is the default
 *
 * With CERT and KEY, and both programs built with OpenSSL (build/tls/...), all of it goes over HTTPS.
 * It starts the server itself, on a free port, and prints what it measured. The tests:
 *
 *     talk     A client says SIZE KiB (400) on its stream, garbage or, over TLS, requests for new keys,
 *              and half-closes: within a second its user is Disconnected, and others are served at once.
 *     crowd    Eight senders to one user with SIZE streams (3000), and the same to as many users with
 *              one stream each: new connections of other users come through as soon in the one case as
 *              in the other, and keep-alives as often; closes are noticed within a second.
 *     spread   SIZE streams (7000), each of its own user, and 32 senders at a pace: closes are noticed, and
 *              keep-alives come on time and are spread over the heartbeat.
 *     stall    SIZE connections (2000) that stall, in the handshake, in the head and in the body, and
 *              as many idle ones, at a server with 64 threads: other requests are served within a
 *              second, and a stream can be opened.
 *
 * Other programs may keep the machine busy: a test that fails is done again, up to three times in all.
 * Exit status: 0, 1 if a promise was broken each time, 77 if there are too few descriptors. */

#define _GNU_SOURCE /* epoll is Linux's */
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>

#define NAME "crowds"
#include "client.h"

enum { TRIES = 3, TIME_LIMIT_S = 150, SKIPPED = 77 };
enum { NOTICE_MS = 1000, OTHERS_MS = 250, SLACK_MS = 500 };

static const char *program;
static int broken; /* promises, in this try */

__attribute__((format(printf, 2, 3))) static void promise(bool kept, const char *format, ...)
{
    va_list args;
    if (kept)
        return;
    va_start(args, format);
    printf("BROKEN: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    broken++;
}

static void on_signal(int number)
{
    static const char text[] = NAME ": took too long, or was told to end\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    (void)number;
    kill_servers();
    _exit(1);
}

static void server_end(const struct server *s)
{
    kill(s->pid, SIGTERM);
    server_await_end(s);
}

/* How long the server's loop, its first thread, has been ready to run and had to wait for a processor:
 * what this machine adds to all that the loop does. */
static double starved_ms(const struct server *s)
{
    char path[64];
    double run_ns, wait_ns = 0;

    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", (int)s->pid, (int)s->pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%lf %lf", &run_ns, &wait_ns) != 2)
        wait_ns = 0;
    if (f)
        fclose(f);
    return wait_ns / 1e6;
}

/* ---- Requests ---- */

static void ask(int fd, const char *path)
{
    char request[128];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
    say(fd, request);
}

/* As dial(), but with a handshake that may fail. -1 then. */
static int dial_or_not(const struct server *s)
{
    struct timeval limit = {.tv_sec = 2};
    int fd = dial_plain(s, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (!cert || try_handshake(fd) == 1)
        return fd;
    hang_up(fd);
    return -1;
}

/* Asks for this on a connection, or on a new one where fd is -1. Returns how many milliseconds it took
 * to be answered 200, or -1. */
static double time_answer(const struct server *s, int fd, const char *path)
{
    static const char ok[] = "HTTP/1.1 200 ";
    char got[ANSWER_BYTES];
    double began = now_ms();
    int own = fd < 0 ? dial_or_not(s) : fd;
    ssize_t len = 0, n;

    if (own < 0)
        return -1;
    ask(own, path);
    do {
        n = is_readable(own, 5000) ? get(own, got + len, sizeof got - 1 - (size_t)len, 0) : 0;
        len += n > 0 ? n : 0;
        got[len] = 0;
    } while (n > 0 && !strstr(got, "}\n"));
    if (fd < 0)
        hang_up(own);
    return n > 0 && strncmp(got, ok, sizeof ok - 1) == 0 ? now_ms() - began : -1;
}

static bool is_disconnected(int fd, const char *user)
{
    char path[64], got[ANSWER_BYTES];
    snprintf(path, sizeof path, "/sse/status/%s", user);
    ask(fd, path);
    hear(fd, "}\n", got);
    return strstr(got, "\"Disconnected\"") != NULL;
}

static void post(int fd, const char *user, const char *body, size_t len)
{
    char head[128];
    snprintf(head, sizeof head,
             "POST /sse/send/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %zu\r\n\r\n%s", user,
             len, len < 16 ? body : "");
    say(fd, head);
    if (len >= 16)
        say(fd, body);
}

static void await_disconnected(int fd, const char *user)
{
    for (double began = now_ms(); !is_disconnected(fd, user); poll(NULL, 0, 1))
        if (now_ms() - began > PATIENCE_MS)
            fail("%s is Connected without a stream", user);
}

static void more(double *most, double value)
{
    if (value > *most)
        *most = value;
}

/* ---- talk: too much said on a stream ---- */

struct talk {
    const char *what;
    enum { GARBAGE, KEYS, KEYS_ASKED } says;
    bool is_slow, is_reading, is_behind;
    const struct server *server;
    char user[16];
    size_t bytes;
    size_t said;
    _Atomic bool opened, ended; /* the stream; the half-close */
    _Atomic bool seen;          /* that its user is Disconnected */
};

/* Says a piece of it, without waiting. Returns how much was taken, 0 if nothing can be at the moment,
 * -1 if the connection has failed. */
static ssize_t talk_on(const struct talk *t, int fd)
{
    static const char garbage[16384];
#ifdef SSE_TLS
    enum { RECORD = 27 };
    if (t->says != GARBAGE) {
        SSL_key_update(wires[fd],
                       t->says == KEYS ? SSL_KEY_UPDATE_NOT_REQUESTED : SSL_KEY_UPDATE_REQUESTED);
        int n = SSL_do_handshake(wires[fd]);
        return n == 1 ? RECORD : wire_result(fd, n) < 0 && errno == EAGAIN ? 0 : -1;
    }
#endif
    size_t left = t->bytes - t->said;
    size_t most = t->is_slow ? sizeof garbage / 8 : sizeof garbage;
    poll(NULL, 0, t->is_slow);
    ssize_t n = put(fd, garbage, left < most ? left : most);
    return n > 0 ? n : errno == EAGAIN ? 0 : -1;
}

/* Falls behind, since it reads nothing: until what is sent to it no longer fits its socket. */
static void fall_behind(const struct server *s, const char *user)
{
    static char body[60001];
    char got[ANSWER_BYTES];
    int sender = dial(s);

    memset(body, 'x', sizeof body - 1);
    do {
        post(sender, user, body, sizeof body - 1);
        hear(sender, "}\n", got);
        if (strstr(got, "\"streams\":0"))
            fail("the stream was closed for being behind");
    } while (!strstr(got, "\"delivered\":0"));
    hang_up(sender);
}

static void *talk_run(void *arg)
{
    struct talk *t = arg;
    char path[64], got[ANSWER_BYTES];
    int fd = dial_plain(t->server, t->is_reading ? 0 : 4096);
    ssize_t n = 0;

    if (cert)
        secure(fd);
    snprintf(path, sizeof path, "/sse/connect/%s", t->user);
    ask(fd, path);
    hear(fd, "<3: Keep alive\n\n", got);
    if (t->is_behind)
        fall_behind(t->server, t->user);
    atomic_store(&t->opened, true);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (double taken = now_ms(); t->said < t->bytes && n >= 0 && now_ms() - taken < 1000;) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        n = talk_on(t, fd);
        t->said += n > 0 ? (size_t)n : 0;
        if (n > 0)
            taken = now_ms();
        else if (n == 0)
            poll(&p, 1, 10);
        while (t->is_reading && get(fd, got, sizeof got, 0) > 0)
            ;
    }
    shutdown(fd, SHUT_WR);
    atomic_store(&t->ended, true);
    while (!atomic_load(&t->seen))
        poll(NULL, 0, 5);
    hang_up(fd);
    return NULL;
}

static void talk_one(const struct server *s, struct talk t)
{
    pthread_t thread;
    double ended = 0, most = 0, status = 0, starved = starved_ms(s), took;
    int kept = dial(s), failures = 0, requests = 0;

    t.server = s;
    if (pthread_create(&thread, NULL, talk_run, &t) != 0)
        fail("no thread");
    while (!atomic_load(&t.opened))
        poll(NULL, 0, 1);
    for (bool gone = false; !gone;) {
        if (ended == 0 && atomic_load(&t.ended))
            ended = now_ms();
        for (int anew = 0; anew < 2; anew++, requests++) {
            took = time_answer(s, anew ? -1 : kept, "/health");
            failures += took < 0;
            more(&most, took);
        }
        double asked = now_ms();
        gone = is_disconnected(kept, t.user) && ended > 0;
        more(&status, now_ms() - asked);
        if (ended > 0 && now_ms() - ended > 5 * NOTICE_MS)
            break;
    }
    took = now_ms() - ended;
    starved = starved_ms(s) - starved;
    atomic_store(&t.seen, true);
    pthread_join(thread, NULL);
    await_disconnected(kept, t.user);
    hang_up(kept);
    printf("%-42s %4zu KiB; Disconnected after %4.0f ms; %5d others' requests: %3.0f ms at most, a "
           "status %3.0f ms; loop's lag %.0f ms\n",
           t.what, t.said >> 10, took, requests, most, status, starved);
    promise(took <= NOTICE_MS + starved, "%s: its close is noticed after %.0f ms", t.what, took);
    promise(failures == 0, "%s: %d requests of others failed", t.what, failures);
    promise(most <= OTHERS_MS + starved, "%s: a request of others took %.0f ms", t.what, most);
    promise(status <= NOTICE_MS + starved, "%s: asking for the user's status took %.0f ms", t.what,
            status);
}

static void talk(int kib)
{
    static const struct talk all[] = {
        {.what = "garbage", .is_reading = true},
        {.what = "garbage, reading nothing"},
        {.what = "garbage, while behind", .is_behind = true},
        {.what = "garbage, a little at a time", .is_slow = true, .is_reading = true},
        {.what = "the same, while behind", .is_slow = true, .is_behind = true},
        {.what = "new keys", .says = KEYS, .is_reading = true},
        {.what = "new keys, reading nothing", .says = KEYS},
        {.what = "new keys, while behind", .says = KEYS, .is_behind = true},
        {.what = "new keys from both", .says = KEYS_ASKED, .is_reading = true},
        {.what = "new keys from both, reading nothing", .says = KEYS_ASKED},
        {.what = "new keys from both, while behind", .says = KEYS_ASKED, .is_behind = true}};
    static const char *const options[] = {"--max-users",     "16",       "--history", "1000",
                                          "--history-bytes", "20000000", NULL};
    struct server s = server_start(program, options);

    for (size_t i = 0; i < (cert ? sizeof all / sizeof *all : 5); i++) {
        struct talk t = all[i];
        t.bytes = (size_t)kib << 10;
        snprintf(t.user, sizeof t.user, "talker-%zu", i);
        talk_one(&s, t);
    }
    server_end(&s);
}

/* ---- Streams, read by a thread ---- */

enum { PARTS = 20, WARM_UP_MS = 500 };

struct stream {
    int fd;
    unsigned matched;     /* bytes of a keep-alive's text, at the end of what has come */
    double last_ms;       /* when the last keep-alive came */
    double longest_ms;    /* the longest time without one */
    unsigned keep_alives; /* that came while they were counted */
};

struct streams {
    struct server server;
    struct stream *all;
    int *fds;
    int count, users, heartbeat_ms;
    pthread_t reader;
    int epoll;
    _Atomic bool stop;
    double from_ms, until_ms; /* when keep-alives are counted */
    double lag_ms;            /* the longest that the reader was busy otherwise */
    unsigned parts[PARTS];    /* how many came in each part of the heartbeat */
    unsigned counted, closed;
};

static void keep_alive_came(struct streams *ss, struct stream *s, double now)
{
    more(&s->longest_ms, now - s->last_ms);
    s->last_ms = now;
    if (now < ss->from_ms || now >= ss->until_ms)
        return;
    s->keep_alives++;
    ss->counted++;
    double since = now - ss->from_ms;
    since -= ss->heartbeat_ms * (double)(int)(since / ss->heartbeat_ms);
    ss->parts[(int)(since * PARTS / ss->heartbeat_ms)]++;
}

/* The text begins with the only < in it. */
static void stream_take(struct streams *ss, struct stream *s, const char *bytes, size_t len)
{
    static const char text[] = "<3: Keep alive";
    for (const char *at = bytes, *end = bytes + len; at < end; at++) {
        if (s->matched == 0 && !(at = memchr(at, '<', (size_t)(end - at))))
            return;
        s->matched = *at == text[s->matched] ? s->matched + 1 : *at == '<';
        if (s->matched == sizeof text - 1) {
            s->matched = 0;
            keep_alive_came(ss, s, now_ms());
        }
    }
}

static void stream_read(struct streams *ss, struct stream *s)
{
    char bytes[16384];
    ssize_t n;
    do {
        n = get(s->fd, bytes, sizeof bytes, 0);
        if (n > 0)
            stream_take(ss, s, bytes, (size_t)n);
    } while (n == sizeof bytes || (n > 0 && is_pending(s->fd)));
    if (n > 0 || (n < 0 && errno == EAGAIN))
        return;
    epoll_ctl(ss->epoll, EPOLL_CTL_DEL, s->fd, NULL);
    ss->closed++;
}

/* What is ready is read in one pass, so that a pass is the longest that a stream is left alone. */
static void *streams_read(void *arg)
{
    static const int wait_ms = 20;
    struct streams *ss = arg;
    struct epoll_event *ready = calloc((size_t)ss->count, sizeof *ready);
    double passed = now_ms();

    while (ready && !atomic_load(&ss->stop)) {
        int n = epoll_wait(ss->epoll, ready, ss->count, wait_ms);
        for (int i = 0; i < n; i++)
            stream_read(ss, ready[i].data.ptr);
        more(&ss->lag_ms, now_ms() - passed - wait_ms);
        passed = now_ms();
    }
    free(ready);
    return NULL;
}

/* Starts a server and opens the streams. */
static struct streams streams_open(int count, int users, int heartbeat_s)
{
    struct streams ss = {.count = count, .users = users, .heartbeat_ms = heartbeat_s * 1000};
    char most[16], connections[16], seconds[16];
    const char *options[] = {
        "--max-users", most,          "--max-streams", most, "--max-connections",
        connections,   "--heartbeat", seconds,         NULL};

    snprintf(most, sizeof most, "%d", count + 1000);
    snprintf(connections, sizeof connections, "%d", count + 2000);
    snprintf(seconds, sizeof seconds, "%d", heartbeat_s);
    ss.server = server_start(program, options);
    ss.all = calloc((size_t)count, sizeof *ss.all);
    ss.fds = calloc((size_t)count, sizeof *ss.fds);
    ss.epoll = epoll_create1(0);
    if (!ss.all || !ss.fds || ss.epoll < 0)
        fail("not enough memory");
    double began = now_ms();
    open_streams(&ss.server, ss.fds, count, users);
    printf("%d streams, %d users: open after %.0f ms\n", count, users, now_ms() - began);
    for (int i = 0; i < count; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &ss.all[i]};
        ss.all[i].fd = ss.fds[i];
        fcntl(ss.fds[i], F_SETFL, O_NONBLOCK);
        if (epoll_ctl(ss.epoll, EPOLL_CTL_ADD, ss.fds[i], &e) != 0)
            fail("epoll: %s", strerror(errno));
    }
    return ss;
}

static void streams_close(struct streams *ss)
{
    for (int i = 0; i < ss->count; i++)
        hang_up(ss->fds[i]);
    close(ss->epoll);
    server_end(&ss->server);
    free(ss->all);
    free(ss->fds);
}

/* ---- Senders ---- */

enum { MOST_SENDERS = 32 };

struct sender {
    pthread_t thread;
    const struct server *server;
    int user, step, users, rest_ms; /* from one message to the next, after the answer */
    unsigned sent;
    _Atomic bool *stop;
};

static void *sender_run(void *arg)
{
    struct sender *s = arg;
    char user[16], got[ANSWER_BYTES];
    int fd = dial(s->server);

    for (int at = s->user; !atomic_load(s->stop); at += s->step, s->sent++) {
        snprintf(user, sizeof user, "u%d", at %= s->users);
        post(fd, user, "hi", 2);
        hear(fd, "}\n", got);
        poll(NULL, 0, s->rest_ms);
    }
    hang_up(fd);
    return NULL;
}

/* ---- Others, while streams are busy ---- */

enum { MOST_SAMPLES = 100000 };

struct figures {
    unsigned newcomers, sent;
    double p99_ms, worst_ms; /* from connect to greeting, of users that are not busy */
    double notice_ms;        /* the longest until a close was noticed */
    double gap_ms;           /* the longest without a keep-alive */
    double starved_ms;       /* that the loop waited for a processor */
    double share;            /* of keep-alives in the fullest part of the heartbeat, 1 is even */
};

/* New streams of other users, one after the other, each closed when it was greeted. */
static void newcomers(const struct server *s, double until_ms, struct figures *f)
{
    static double took[MOST_SAMPLES];
    char user[32], path[64], got[ANSWER_BYTES];
    int kept = dial(s);
    unsigned n = 0;

    for (; now_ms() < until_ms && n < MOST_SAMPLES; n++) {
        snprintf(user, sizeof user, "other-%u", n % 64);
        snprintf(path, sizeof path, "/sse/connect/%s", user);
        double began = now_ms();
        int fd = dial(s);
        ask(fd, path);
        hear(fd, " connected\n\n", got);
        took[n] = now_ms() - began;
        hang_up(fd);
        double left = now_ms();
        await_disconnected(kept, user);
        more(&f->notice_ms, now_ms() - left);
    }
    hang_up(kept);
    qsort(took, n, sizeof *took, by_size);
    f->newcomers = n;
    f->p99_ms = took[n * 99 / 100];
    f->worst_ms = took[n - 1];
}

/* Measures for a while, with this many senders, who rest between two messages. */
static struct figures measure(struct streams *ss, int senders, int rest_ms, double ms)
{
    static struct sender all[MOST_SENDERS];
    struct figures f = {.starved_ms = -starved_ms(&ss->server)};
    double began = now_ms();
    _Atomic bool stop = false;
    unsigned fullest = 0;

    ss->from_ms = began + WARM_UP_MS;
    ss->until_ms = ss->from_ms + ms;
    ss->lag_ms = 0;
    ss->counted = 0;
    memset(ss->parts, 0, sizeof ss->parts);
    for (int i = 0; i < ss->count; i++) {
        ss->all[i].last_ms = began;
        ss->all[i].longest_ms = 0;
        ss->all[i].keep_alives = 0;
    }
    atomic_store(&ss->stop, false);
    if (pthread_create(&ss->reader, NULL, streams_read, ss) != 0)
        fail("no thread");
    for (int i = 0; i < senders; i++) {
        all[i] = (struct sender){.server = &ss->server,
                                 .user = i,
                                 .step = senders,
                                 .users = ss->users,
                                 .rest_ms = rest_ms,
                                 .stop = &stop};
        if (pthread_create(&all[i].thread, NULL, sender_run, &all[i]) != 0)
            fail("no thread");
    }
    newcomers(&ss->server, ss->until_ms, &f);
    atomic_store(&stop, true);
    for (int i = 0; i < senders; i++) {
        pthread_join(all[i].thread, NULL);
        f.sent += all[i].sent;
    }
    atomic_store(&ss->stop, true);
    pthread_join(ss->reader, NULL);
    double ended = now_ms();
    f.starved_ms += starved_ms(&ss->server);
    for (int i = 0; i < ss->count; i++) {
        more(&f.gap_ms, ss->all[i].longest_ms);
        more(&f.gap_ms, ended - ss->all[i].last_ms);
    }
    for (int i = 0; i < PARTS; i++)
        fullest = ss->parts[i] > fullest ? ss->parts[i] : fullest;
    f.share = ss->counted ? (double)fullest * PARTS / ss->counted : 0;
    printf("%d streams, %4d users: %4u new connections: %.1f ms p99, %.1f at most; closes %.0f ms; "
           "keep-alives %.0f ms apart, %.1f times the share; %.0f sends/s; lags: reader %.0f, loop "
           "%.0f ms\n",
           ss->count, ss->users, f.newcomers, f.p99_ms, f.worst_ms, f.notice_ms, f.gap_ms, f.share,
           f.sent * 1e3 / (ended - began), ss->lag_ms, f.starved_ms);
    promise(ss->closed == 0, "%u streams were closed", ss->closed);
    ss->closed = 0;
    promise(f.notice_ms <= NOTICE_MS, "a close was noticed after %.0f ms", f.notice_ms);
    return f;
}

static bool try_again(int done)
{
    if (done > 0 && broken > 0)
        printf("try %d of %d: %d promises broken\n", done, TRIES, broken);
    if (done == 0 || (broken > 0 && done < TRIES)) {
        broken = 0;
        return true;
    }
    return false;
}

static void crowd(int count)
{
    enum { SENDERS = 8, MEASURE_MS = 5000, MORE_MS = 100, MOST_MS = 400 };
    struct streams one = streams_open(count, 1, 1), each = streams_open(count, count, 1);

    for (int i = 0; try_again(i); i++) {
        struct figures crowded = measure(&one, SENDERS, 0, MEASURE_MS);
        struct figures even = measure(&each, SENDERS, 0, MEASURE_MS);
        promise(crowded.p99_ms <= even.p99_ms + MORE_MS,
                "beside one user with %d streams a new connection takes %.0f ms, beside %d users "
                "%.0f (p99)",
                count, crowded.p99_ms, count, even.p99_ms);
        promise(crowded.worst_ms <= even.worst_ms + MOST_MS,
                "beside one user with %d streams a new connection takes %.0f ms, beside %d users "
                "%.0f (at most)",
                count, crowded.worst_ms, count, even.worst_ms);
        promise(crowded.gap_ms <= even.gap_ms + one.lag_ms + SLACK_MS,
                "one user's %d streams have no keep-alive for %.0f ms, those of %d users for %.0f",
                count, crowded.gap_ms, count, even.gap_ms);
    }
    streams_close(&one);
    streams_close(&each);
}

static void spread(int count)
{
    enum { HEARTBEAT_S = 2, MOST_SHARES = 3, REST_MS = 20 };
    struct streams ss = streams_open(count, count, HEARTBEAT_S);

    for (int i = 0; try_again(i); i++) {
        struct figures f = measure(&ss, MOST_SENDERS, REST_MS, 2000.0 * HEARTBEAT_S);
        promise(f.gap_ms <= ss.heartbeat_ms + ss.lag_ms + f.starved_ms + SLACK_MS,
                "a stream had no keep-alive for %.0f ms", f.gap_ms);
        promise(f.share <= MOST_SHARES, "a part of the heartbeat has %.1f times its share",
                f.share);
    }
    streams_close(&ss);
}

/* ---- stall: connections that say nothing, or half of something ---- */

struct stall {
    const struct server *server;
    int *fds; /* -1 where there is none */
    int count;
    _Atomic int opened, again; /* how many; how often one that was closed came anew */
    _Atomic bool stop;
};

static int stall_one(const struct server *s, int i)
{
    int fd = i % 3 == 0 ? dial_plain(s, 0) : dial_or_not(s);
    const char *text = i % 3 == 1 ? "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
                                  : "POST /sse/send/stall HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                    "Content-Length: 10\r\n\r\nabc";
    if (fd >= 0 && i % 3 == 0) /* as much of a handshake, or of a method */
        send(fd, cert ? "\x16\x03\x01\x02" : "G", cert ? 4 : 1, MSG_NOSIGNAL);
    else if (fd >= 0)
        put(fd, text, strlen(text));
    return fd;
}

/* Opens them, and those that the server closes again, at a pace. */
static void *stall_run(void *arg)
{
    struct stall *st = arg;
    for (int i = 0; !atomic_load(&st->stop); i = (i + 1) % st->count) {
        char bytes[256];
        int *fd = &st->fds[i];
        bool closed = *fd >= 0 && recv(*fd, bytes, sizeof bytes, MSG_DONTWAIT) >= 0;
        if (closed)
            hang_up(*fd);
        if (closed || *fd < 0)
            *fd = stall_one(st->server, i);
        if (atomic_load(&st->opened) < st->count) {
            atomic_fetch_add(&st->opened, 1);
        } else {
            atomic_fetch_add(&st->again, closed);
            poll(NULL, 0, closed || i % 64 == 0 ? 2 : 0);
        }
    }
    for (int i = 0; i < st->count; i++)
        if (st->fds[i] >= 0)
            hang_up(st->fds[i]);
    return NULL;
}

static void stall_try(const struct server *s, int count, int *idle)
{
    enum { REQUESTS = 50, SECOND_MS = 1000 };
    struct stall st = {.server = s, .count = count, .fds = malloc((size_t)count * sizeof(int))};
    double most = 0, most_opening = 0, took;
    int failures = 0, requests = 0;
    char got[ANSWER_BYTES];
    pthread_t thread;

    if (!st.fds)
        fail("not enough memory");
    for (int i = 0; i < count; i++)
        st.fds[i] = -1;
    if (pthread_create(&thread, NULL, stall_run, &st) != 0)
        fail("no thread");
    for (int calm = 0; calm < REQUESTS && failures < 5; requests++) {
        bool opening = atomic_load(&st.opened) < count;
        took = time_answer(s, -1, "/health");
        failures += took < 0;
        more(opening ? &most_opening : &most, took);
        if (requests % 2 == 0) {
            took = time_answer(s, idle[(requests * 7) % count], "/health");
            failures += took < 0;
            more(opening ? &most_opening : &most, took);
        }
        calm += !opening;
    }
    double began = now_ms();
    int stream = dial_or_not(s), kept = dial_or_not(s);
    promise(stream >= 0 && kept >= 0, "no stream can be opened");
    if (stream >= 0 && kept >= 0) {
        ask(stream, "/sse/connect/calm");
        hear(stream, " connected\n\n", got);
        post(kept, "calm", "hi", 2);
        hear(stream, "data: hi\n\n", got);
        hang_up(stream);
        hang_up(kept);
    }
    took = now_ms() - began;
    atomic_store(&st.stop, true);
    pthread_join(thread, NULL);
    free(st.fds);
    printf(
        "%d stall, %d are idle, 64 threads: %d others' requests, %.0f ms at most while they come, "
        "%.0f then; %d came again; a stream and a message %.0f ms\n",
        count, count, requests, most_opening, most, atomic_load(&st.again), took);
    promise(failures == 0, "%d requests were not answered", failures);
    promise(most <= SECOND_MS, "a request took %.0f ms", most);
    promise(most_opening <= SECOND_MS, "a request took %.0f ms", most_opening);
    promise(took <= SECOND_MS, "a stream and its message took %.0f ms", took);
}

static void stall(int count)
{
    char connections[16];
    const char *options[] = {"--max-threads", "64", "--max-connections", connections, NULL};
    int *idle = calloc((size_t)count, sizeof *idle);
    char got[ANSWER_BYTES];

    snprintf(connections, sizeof connections, "%d", 2 * count + 1000);
    struct server s = server_start(program, options);
    for (int i = 0; idle && i < count; i++) {
        idle[i] = dial(&s);
        ask(idle[i], "/health");
        hear(idle[i], "}\n", got);
    }
    for (int i = 0; idle && try_again(i); i++)
        stall_try(&s, count, idle);
    for (int i = 0; idle && i < count; i++)
        hang_up(idle[i]);
    free(idle);
    server_end(&s);
}

static void talk_tries(int kib)
{
    for (int i = 0; try_again(i); i++)
        talk(kib);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(int size);
        int size, descriptors; /* so many for each of the size */
    } tests[] = {{"talk", talk_tries, 400, 0},
                 {"crowd", crowd, 3000, 2},
                 {"spread", spread, 7000, 1},
                 {"stall", stall, 2000, 2}};
    size_t n = 0;

    while (argc > 2 && n < 4 && strcmp(tests[n].name, argv[2]) != 0)
        n++;
    int size = argc > 3 ? atoi(argv[3]) : 0;
    if (argc < 3 || n == 4 || size < 0 || argc == 5)
        fail("usage: crowds ./sse talk|crowd|spread|stall [SIZE [CERT KEY]]");
    if (argc > 5) {
        cert = argv[4];
        key = argv[5];
    }
    program = argv[1];
    size = size ? size : tests[n].size;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    alarm(TIME_LIMIT_S);
    if (!raise_limit((unsigned)(size * tests[n].descriptors) + 2200)) {
        printf("SKIPPED: %s of %d needs more descriptors than may be had\n", argv[2], size);
        return SKIPPED;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* each figure as soon as it is there */
    tests[n].run(size);
    return broken > 0;
}
