/* bench - measures what a push server does, beside others if they are named, and checks all of it.
 *
 *     make build/sse build/bench
 *     build/bench [OPTION...] NAME=COMMAND...
 *
 *     --workload NAME[,NAME...]   only these: a name of the list below, or the beginning of some
 *     --turns N                   how often each server is measured with each workload (5)
 *     --seconds N                 how long each time (2)
 *     --streams N                 how many streams `idle` and `recovery` open (10000)
 *     --tls CERT KEY              all of it over HTTPS, in a build with OpenSSL (build/tls/bench)
 *     --short                     3 turns of 1 second, and one of `idle`; fewer streams if the
 *                                 limit of descriptors is too low. Options after it change that
 *
 * For instance, in single quotes, since the server's own shell is to fill in the variables:
 *
 *     build/bench nchan=tests/peers/nchan sse='build/sse -q -p $PORT --max-users $CONNECTIONS \
 *         --max-connections $CONNECTIONS --max-streams $CONNECTIONS'
 *
 * What each workload does, with servers that are started afresh for every turn of it, and take
 * turns:
 *
 *     spread-PxD        1000 users with a stream each; P publishers that have D messages under way
 *                       each, and send to their users in turn
 *     fan-N-PxD         one user with N streams
 *     fan-paced-N       the same, at an even pace that makes 20,000 deliveries a second
 *     delay-RATE        1000 users with a stream each; so many messages a second at an even pace
 *     connects          64 clients that connect, read the first event, close and begin again
 *     idle              what a stream takes of memory, and of processor time while nothing is sent
 *     recovery          clients that come back all at once, for three messages that each has missed
 *
 * A delivery is one message on one stream. A message is under way until its answer and all its
 * deliveries have been read; what may be sent at once goes in one write. A delay runs until a
 * delivery was read: from the moment its request was written, or at an even pace from the moment it
 * should have been, whatever came in between. Server CPU is the processor time of all processes of
 * the server, for each delivery. Bench CPU is that of this program, in percent of one core: near
 * 100 a rate says more about this program than about the server. What the kernel does for a
 * connection counts for whoever made it do that, or was interrupted for it.
 *
 * The tables at the end have medians over the turns, some with least and most in brackets, and, for
 * all servers but the first, the first one's figure divided by theirs.
 *
 * Every stream must get every message of its user once, in order and byte for byte, and streams of
 * one user all in the same order; nothing else may come but keep-alives. Every answer must be a
 * 2xx, and no connection may close or fall silent. What was not so is said, and the exit status is
 * 1. No server is left behind.
 *
 * What a server has to do: sh runs its command in a process group of its own, with these variables:
 *
 *     PORT              the port on 127.0.0.1 to listen on; it is ready when it accepts connections
 *     CONNECTIONS       how many connections it must have room for, and as many users, and streams
 *                       of one user
 *     TMP               an empty folder, which is removed afterwards
 *     CERT, KEY         PEM files, if all goes over HTTPS
 *
 * GET /sse/connect/USER opens a stream, on which something comes at once, a comment or an event;
 * POST /sse/send/USER sends its body to the streams of that user. Users exist as soon as they are
 * named, and SIGTERM ends it. If messages have an id and a stream that is opened with Last-Event-ID
 * goes on after it, `recovery` applies, and otherwise not. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    USERS = 1000,
    CLIENTS = 64, /* at a time in `connects`, and while streams are opened */
    MISSED = 3,   /* messages in `recovery` */
    IDLE_S = 10,
    SETTLE_S = 7,   /* until streams that were opened together are at rest: before `idle`, */
    REST_MS = 2500, /* and before what is sent at an even pace */
    WARM_UP_MS = 250,
    QUIET_MS = 100, /* at the end of each run, in which nothing may come */
    PATIENCE_S = 30,
    STOP_S = 10,

    BODY_BYTES = 32,
    ID_BYTES = 64,
    REST_BYTES = 1024, /* of an incomplete head or block */
    READ_BYTES = 65536,
    ANSWERS_BYTES = 65536,
    REQUESTS_BYTES = 262144,
    RING = 65536, /* messages of one publisher that can be under way, a power of two */
    EVENTS = 256,

    PORTS_OF_ONE_ADDRESS = 20000, /* with more clients they come from several */
    ADDRESSES = 8,
    SPARE = 1024,      /* connections that a server has room for, beyond those that it needs */
    LINGERING = 16384, /* the same in `connects`, for clients that have gone unseen as yet */
    OWN_CONNECTIONS = 2000,
    MAX_SERVERS = 8,
    MAX_TURNS = 99,
    MAX_PROCESSES = 64
};

#define SECOND INT64_C(1000000000)
#define MS     INT64_C(1000000)
#define NEVER  INT64_MAX

enum shape { SPREAD, FAN, CONNECTS, IDLE, RECOVERY };

struct workload {
    const char *name;
    enum shape shape;
    unsigned streams, publishers, depth;
    unsigned rate; /* messages a second; 0: as soon as those under way allow */
};

static const struct workload workloads[] = {
    {"spread-1x1", SPREAD, USERS, 1, 1, 0},    {"spread-4x1", SPREAD, USERS, 4, 1, 0},
    {"spread-1x16", SPREAD, USERS, 1, 16, 0},  {"spread-4x16", SPREAD, USERS, 4, 16, 0},
    {"fan-100-1x16", FAN, 100, 1, 16, 0},      {"fan-100-16x1", FAN, 100, 16, 1, 0},
    {"fan-1000-1x16", FAN, 1000, 1, 16, 0},    {"fan-1000-16x1", FAN, 1000, 16, 1, 0},
    {"fan-paced-100", FAN, 100, 1, 0, 200},    {"fan-paced-1000", FAN, 1000, 1, 0, 20},
    {"delay-5000", SPREAD, USERS, 4, 0, 5000}, {"delay-20000", SPREAD, USERS, 4, 0, 20000},
    {"connects", CONNECTS, CLIENTS, 0, 0, 0},  {"idle", IDLE, 0, 0, 0, 0},
    {"recovery", RECOVERY, 0, 4, 16, 0},
};

enum { WORKLOADS = sizeof workloads / sizeof *workloads };

struct options {
    const char *only; /* workloads, NULL for all */
    unsigned turns, idle_turns, streams;
    double seconds;
    bool lower_streams; /* if the limit of descriptors asks for it */
};

/* --- The servers ------------------------------------------------------------------------------ */

struct server {
    const char *name, *command;
    pid_t pid; /* of its first process, and of the group; 0: it does not run */
    int port;
    pid_t pids[MAX_PROCESSES];
    unsigned processes;
    char folder[32]; /* of its log and of TMP */
};

static struct server *running;
static char doing[80]; /* for messages: which server, which workload */
static volatile sig_atomic_t stopped;

static void server_kill(struct server *s);
static void log_tail(const struct server *s);

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "%sbench: %s", doing[0] ? "\n" : "", doing);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    if (running) {
        log_tail(running);
        server_kill(running);
    }
    exit(1);
}

#include "wire.h"

static int64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t) != 0)
        return 0;
    return t.tv_sec * SECOND + t.tv_nsec;
}

static int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static void on_signal(int number)
{
    stopped = number;
}

/* Every wait comes by here. */
static void heed_signals(void)
{
    if (stopped)
        fail("stopped by signal %d", (int)stopped);
}

static void nap_ms(int ms)
{
    struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    while (nanosleep(&rest, &rest) != 0 && !stopped)
        ;
}

/* What comes last in its log, for one that fails. */
static void log_tail(const struct server *s)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "%s/log", s->folder);
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    if (fseek(f, -(long)sizeof text, SEEK_END) != 0)
        rewind(f);
    size_t n = fread(text, 1, sizeof text, f);
    if (n > 0)
        fprintf(stderr, "the end of the log of %s:\n%.*s\n", s->name, (int)n, text);
    fclose(f);
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *where)
{
    (void)about, (void)type, (void)where;
    return remove(path);
}

/* Is this process of the server's group, and alive? */
static bool is_of_group(const char *number, pid_t group)
{
    char path[300], text[512];
    snprintf(path, sizeof path, "/proc/%s/stat", number);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    char *after = strrchr(text, ')'); /* its name may have spaces, and brackets */
    if (!after || strlen(after) < 4 || after[2] == 'Z')
        return false;
    char *parent_end;
    strtol(after + 3, &parent_end, 10);
    return strtol(parent_end, NULL, 10) == group;
}

/* Finds the processes of the server. */
static unsigned server_processes(struct server *s)
{
    DIR *all = opendir("/proc");
    s->processes = 0;
    for (struct dirent *one; all && (one = readdir(all)) && s->processes < MAX_PROCESSES;)
        if (one->d_name[0] >= '1' && one->d_name[0] <= '9' && is_of_group(one->d_name, s->pid))
            s->pids[s->processes++] = (pid_t)strtol(one->d_name, NULL, 10);
    if (all)
        closedir(all);
    return s->processes;
}

/* Processor time of the processes that server_processes() has found, with all their threads. It is
 * the utime and stime of /proc/PID/stat, which has them in hundredths of a second only. */
static int64_t server_cpu_ns(const struct server *s)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < s->processes; i++) {
        clockid_t id;
        if (clock_getcpuclockid(s->pids[i], &id) == 0)
            sum += clock_ns(id);
    }
    return sum;
}

/* Also of processes that have lost their parent: they are this program's then. */
static bool server_is_gone(struct server *s)
{
    pid_t child;
    while ((child = waitpid(-s->pid, NULL, WNOHANG)) > 0)
        ;
    return child < 0 && server_processes(s) == 0;
}

static void server_kill(struct server *s)
{
    running = NULL;
    kill(-s->pid, SIGKILL);
    for (int ms = 0; !server_is_gone(s) && ms < 2000; ms += 10)
        nap_ms(10);
    nftw(s->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    s->pid = 0;
}

static void server_stop(struct server *s)
{
    int64_t until = now_ns() + STOP_S * SECOND;
    kill(-s->pid, SIGTERM);
    while (!server_is_gone(s) && now_ns() < until) {
        heed_signals();
        nap_ms(5);
    }
    if (s->processes > 0)
        fprintf(stderr, "bench: %s has not stopped in %d s\n", s->name, STOP_S);
    server_kill(s);
}

static struct sockaddr_in loopback(int host, int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr = {htonl(INADDR_LOOPBACK + (uint32_t)host)}};
}

/* A port that nobody listens on. It is below those that the kernel gives to clients, or one of them
 * could get it, and connect to itself. */
static int free_port(void)
{
    static int last;
    for (int tries = 0; tries < 10000; tries++) {
        last = last ? last + 1 : 10000 + (int)getpid() % 10000;
        struct sockaddr_in at = loopback(0, last);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool is_free = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
        close(fd);
        if (is_free)
            return last;
    }
    fail("there is no free port");
}

static void set_number(const char *name, unsigned long value)
{
    char text[24];
    snprintf(text, sizeof text, "%lu", value);
    setenv(name, text, 1);
}

/* The child that becomes the server. */
__attribute__((noreturn)) static void become_server(const struct server *s, unsigned connections)
{
    char path[64], script[4096];
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    set_number("PORT", (unsigned long)s->port);
    set_number("CONNECTIONS", connections);
    snprintf(path, sizeof path, "%s/tmp", s->folder);
    setenv("TMP", path, 1);
    unsetenv("CERT");
    unsetenv("KEY");
    if (cert) {
        setenv("CERT", cert, 1);
        setenv("KEY", key, 1);
    }
    snprintf(path, sizeof path, "%s/log", s->folder);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (log >= 0) {
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
    }
    snprintf(script, sizeof script, "exec %s", s->command);
    execl("/bin/sh", "sh", "-c", script, (char *)NULL);
    _exit(127);
}

static void server_await(const struct server *s)
{
    struct sockaddr_in to = loopback(0, s->port);
    int64_t until = now_ns() + PATIENCE_S * SECOND;
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool accepts = fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
        close(fd);
        if (accepts)
            return;
        heed_signals();
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
            fail("the server has ended instead of listening on port %d", s->port);
        if (now_ns() > until)
            fail("nobody listens on port %d after %d s", s->port, PATIENCE_S);
        nap_ms(5);
    }
}

static void server_start(struct server *s, unsigned connections)
{
    char path[64];
    s->port = free_port();
    snprintf(s->folder, sizeof s->folder, "/tmp/bench-XXXXXX");
    if (!mkdtemp(s->folder))
        fail("cannot make a folder in /tmp: %s", strerror(errno));
    chmod(s->folder, 0755); /* for a server that changes its user */
    snprintf(path, sizeof path, "%s/tmp", s->folder);
    mkdir(path, 0777);
    s->pid = fork();
    if (s->pid == 0)
        become_server(s, connections);
    if (s->pid < 0)
        fail("cannot start anything: %s", strerror(errno));
    setpgid(s->pid, s->pid); /* as the child does: whoever comes first */
    running = s;
    server_await(s);
}

/* --- Delays ----------------------------------------------------------------------------------- */

/* How many there were of each size, in classes no wider than 1/128 of it. */
enum { CLASS_BITS = 7, CLASSES = (64 - CLASS_BITS) << CLASS_BITS };

struct delays {
    uint64_t count;
    int64_t most;
    uint32_t of_class[CLASSES];
};

static void delay_add(struct delays *d, int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    unsigned shift = v >> (CLASS_BITS + 1) ? 63U - (unsigned)__builtin_clzll(v) - CLASS_BITS : 0;
    d->of_class[(shift << CLASS_BITS) + (v >> shift)]++;
    d->count++;
    if (ns > d->most)
        d->most = ns;
}

/* The delay that this share of them does not exceed, in nanoseconds: the middle of its class. */
static double delay_at(const struct delays *d, double share)
{
    double wanted = share * (double)d->count;
    uint64_t seen = 0;
    for (unsigned i = 0; i < CLASSES; i++) {
        seen += d->of_class[i];
        if (seen == 0 || (double)seen < wanted)
            continue;
        unsigned shift = i >> (CLASS_BITS + 1) ? (i >> CLASS_BITS) - 1 : 0;
        uint64_t from = (uint64_t)(i - (shift << CLASS_BITS)) << shift;
        double middle = (double)from + (double)((UINT64_C(1) << shift) - 1) / 2;
        return middle < (double)d->most ? middle : (double)d->most;
    }
    return 0;
}

/* --- A run ------------------------------------------------------------------------------------ */

enum kind { NOTHING, STREAM, PUBLISHER };
enum phase { CLOSED, CONNECTING, SHAKING, HEAD, OPEN, DONE };
enum chunk { SIZE, SIZE_LINE, DATA, DATA_END };

/* What epoll hands back begins with its kind. */
struct stream {
    enum kind kind;
    int fd;
    enum phase phase;
    bool is_chunked, is_greeted, had_block;
    enum chunk chunk;
    size_t chunk_left;
    unsigned user;
    uint32_t next;  /* number of the message that has to come next */
    uint32_t first; /* and of the first one since it was opened */
    uint32_t held;  /* bytes of an incomplete head or block in `rest` */
    int64_t began;
    char id[ID_BYTES]; /* of the last message; kept for `recovery` only */
    char rest[REST_BYTES];
};

struct message {
    int64_t at;    /* when its request was written, or should have been */
    uint32_t left; /* deliveries that have not come yet */
    bool is_answered, is_under_way;
};

/* Sends its messages to its users in turn. Which message it is can so be told from its user and its
 * number among the messages to that user, and the other way round. */
struct publisher {
    enum kind kind;
    int fd;
    unsigned number, first_user, stride, users;
    uint64_t next, answered; /* messages so far */
    uint64_t limit;          /* of `next` */
    unsigned under_way;
    bool is_blocked; /* its socket takes no more */
    size_t requests_len, requests_sent, answers_len;
    struct message *ring; /* the newest RING messages */
    char requests[REQUESTS_BYTES], answers[ANSWERS_BYTES];
};

/* Which message came at some place of a user's streams. */
struct origin {
    unsigned publisher;
    uint32_t number;
};

struct run {
    const struct workload *workload;
    struct server *server;
    int epoll, timer;
    enum kind no_kind; /* of what needs nothing done */
    unsigned users, streams_count;
    struct stream *streams;
    struct publisher *publishers;
    unsigned begun, opened; /* clients, so far */
    uint32_t numbers[16];   /* FAN: next number of each publisher, */
    struct origin
        *order;       /* and the order in which messages came on the first stream to get them: */
    uint64_t ordered; /* so many. The others must have them in the same order */
    unsigned copies;  /* of each message, on streams that are open */
    uint64_t due, delivered;
    bool keep_ids, resuming;
    unsigned again;              /* clients that had to try again */
    int64_t now, progress;       /* progress: when something came that was waited for */
    int64_t pace_from, timer_at; /* at an even pace */
    int64_t from, until;         /* delays of messages from this time are counted */
    struct delays delays;
    int *ends; /* of connections of this program to itself */
    unsigned ends_count;
};

static void watch(const struct run *r, int how, int fd, uint32_t events, void *what)
{
    struct epoll_event e = {.events = events, .data.ptr = what};
    if (epoll_ctl(r->epoll, how, fd, &e) != 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* --- Messages --------------------------------------------------------------------------------- */

static void put_digits(char *to, unsigned count, uint32_t value)
{
    while (count-- > 0) {
        to[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

static void body_write(char *to, unsigned publisher, uint32_t number, unsigned user)
{
    memcpy(to, "p00 000000000 u00000 ...........", BODY_BYTES);
    put_digits(to + 1, 2, publisher);
    put_digits(to + 4, 9, number);
    put_digits(to + 15, 5, user);
}

static bool get_digits(const char *from, unsigned count, uint32_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < count; i++) {
        if (from[i] < '0' || from[i] > '9')
            return false;
        *value = *value * 10 + (uint32_t)(from[i] - '0');
    }
    return true;
}

/* A block on a stream, up to its empty line. */
struct block {
    const char *data, *id, *event;
    size_t data_len, id_len, event_len;
    unsigned data_lines;
};

/* Says what is wrong with a block, where another message was expected. */
__attribute__((noreturn)) static void wrong_block(const struct run *r, const struct stream *s,
                                                  const struct block *b, struct origin wanted)
{
    char body[BODY_BYTES];
    uint32_t publisher, number, user;
    const char *what = "altered, or nobody sent it";
    body_write(body, wanted.publisher, wanted.number, s->user);
    if (b->data_len == BODY_BYTES && get_digits(b->data + 1, 2, &publisher) &&
        get_digits(b->data + 4, 9, &number) && get_digits(b->data + 15, 5, &user)) {
        char again[BODY_BYTES];
        body_write(again, publisher, number, user);
        if (memcmp(again, b->data, BODY_BYTES) != 0)
            what = "altered";
        else if (user != s->user)
            what = "on the wrong stream";
        else if (publisher != wanted.publisher)
            what = "in another order than on another stream of this user";
        else
            what = number < wanted.number    ? "twice, or out of order"
                   : number == wanted.number ? "before it was sent, or twice"
                                             : "lost before it, or out of order";
    }
    fail("a message is wrong (%s) on stream %u of user u%05u, its message %u; expected \"%.*s\", "
         "got%s%.*s \"%.*s\"%s",
         what, (unsigned)(s - r->streams), s->user, s->next, BODY_BYTES, body,
         b->event_len ? " event " : "", (int)b->event_len, b->event_len ? b->event : "",
         (int)b->data_len, b->data_len ? b->data : "",
         b->data_lines > 1 ? " as the last of several lines" : "");
}

/* In which way does the user's next message come? */
static struct origin origin_expected(struct run *r, const struct stream *s, const struct block *b)
{
    if (r->workload->shape != FAN)
        return (struct origin){r->workload->publishers ? s->user % r->workload->publishers : 0,
                               s->next};
    struct origin *o = &r->order[s->next % RING];
    if (s->next == r->ordered) { /* the first stream to have it */
        uint32_t publisher;
        bool is_known = b->data_len == BODY_BYTES && get_digits(b->data + 1, 2, &publisher) &&
                        publisher < r->workload->publishers;
        o->publisher = is_known ? publisher : 0;
        o->number = r->numbers[o->publisher]++;
        r->ordered++;
    }
    return *o;
}

static void message_done(struct publisher *p, struct message *m)
{
    m->is_under_way = false;
    p->under_way--;
}

static void message_delivered(struct run *r, struct stream *s, struct publisher *p,
                              struct message *m)
{
    s->next++;
    r->delivered++;
    r->progress = r->now;
    if (r->resuming) { /* was answered, and done, long ago */
        if (s->next == s->first + MISSED)
            delay_add(&r->delays, r->now - s->began);
        return;
    }
    if (m->at >= r->from && m->at < r->until)
        delay_add(&r->delays, r->now - m->at);
    if (--m->left == 0 && m->is_answered)
        message_done(p, m);
}

static void block_message(struct run *r, struct stream *s, const struct block *b)
{
    char body[BODY_BYTES];
    struct origin o = origin_expected(r, s, b);
    body_write(body, o.publisher, o.number, s->user);
    if (b->data_lines != 1 || b->event || b->data_len != BODY_BYTES ||
        memcmp(b->data, body, BODY_BYTES) != 0 || o.publisher >= r->workload->publishers)
        wrong_block(r, s, b, o);
    struct publisher *p = &r->publishers[o.publisher];
    uint64_t place = p->stride ? (s->user - p->first_user) / p->stride : 0;
    uint64_t message = (uint64_t)o.number * p->users + place;
    if (message >= p->next)
        wrong_block(r, s, b, o);
    if (r->keep_ids) {
        if (b->id_len >= ID_BYTES)
            fail("an id of %zu bytes: %.*s", b->id_len, (int)b->id_len, b->id);
        memcpy(s->id, b->id_len ? b->id : "", b->id_len);
        s->id[b->id_len] = 0;
    }
    message_delivered(r, s, p, &p->ring[message % RING]);
}

/* A comment, a `retry:`, an id alone; what `sse` says; what nchan says. */
static bool is_keep_alive(const struct block *b)
{
    if (!b->event)
        return !b->data || (b->data_len >= 2 && memcmp(b->data, "<3", 2) == 0);
    return b->event_len == 4 && memcmp(b->event, "ping", 4) == 0 && b->data_len == 0;
}

/* What `sse` says once at the beginning of a stream. */
static bool is_greeting(const struct stream *s, const struct block *b)
{
    char text[32];
    if (s->is_greeted || s->next != s->first || b->data_lines != 1 || b->event)
        return false;
    int n = snprintf(text, sizeof text, "User 'u%05u' connected", s->user);
    return b->data_len == (size_t)n && memcmp(b->data, text, b->data_len) == 0;
}

static void first_block(struct run *r, struct stream *s)
{
    s->had_block = true;
    r->opened++;
    r->progress = r->now;
    if (r->workload->shape == CONNECTS) {
        s->phase = DONE;
        if (s->began >= r->from && s->began < r->until)
            delay_add(&r->delays, r->now - s->began);
    }
}

static void block_take(struct run *r, struct stream *s, const struct block *b)
{
    if (!s->had_block)
        first_block(r, s);
    if (is_keep_alive(b))
        return;
    if (is_greeting(s, b))
        s->is_greeted = true;
    else
        block_message(r, s, b);
}

static void block_line(struct block *b, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len < 8 ? len : 8);
    size_t name = colon ? (size_t)(colon - line) : len;
    const char *value = line + name + (name < len) + (name + 1 < len && line[name + 1] == ' ');
    size_t value_len = len - (size_t)(value - line);
    if (name == 4 && memcmp(line, "data", 4) == 0) {
        b->data = value;
        b->data_len = value_len;
        b->data_lines++;
    } else if (name == 2 && memcmp(line, "id", 2) == 0) {
        b->id = value;
        b->id_len = value_len;
    } else if (name == 5 && memcmp(line, "event", 5) == 0) {
        b->event = value;
        b->event_len = value_len;
    }
}

/* Takes the whole blocks, and returns how many bytes they have. */
static size_t blocks_take(struct run *r, struct stream *s, const char *bytes, size_t len)
{
    size_t taken = 0, at = 0;
    struct block b = {0};
    bool has_line = false;
    for (const char *end; s->phase == OPEN && (end = memchr(bytes + at, '\n', len - at));) {
        size_t next = (size_t)(end - bytes) + 1, n = next - 1 - at;
        if (n > 0 && bytes[at + n - 1] == '\r')
            n--;
        if (n > 0) {
            block_line(&b, bytes + at, n);
            has_line = true;
        } else {
            if (has_line)
                block_take(r, s, &b);
            b = (struct block){0};
            has_line = false;
            taken = next;
        }
        at = next;
    }
    return taken;
}

/* --- Streams ---------------------------------------------------------------------------------- */

/* A byte between the data of two chunks. */
static void chunk_byte(struct stream *s, char c)
{
    static const char hex[] = "0123456789abcdef";
    const char *digit = c ? strchr(hex, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
    if (s->chunk == DATA_END) {
        if (c == '\n') {
            s->chunk = SIZE;
            s->chunk_left = 0;
        }
    } else if (s->chunk == SIZE && digit && s->chunk_left < SIZE_MAX / 32) {
        s->chunk_left = s->chunk_left * 16 + (size_t)(digit - hex);
    } else if (c == '\n') {
        if (s->chunk_left == 0)
            fail("the server has ended a stream of user u%05u", s->user);
        s->chunk = DATA;
    } else if (s->chunk == SIZE && c != '\r' && c != ';') {
        fail("a stream of user u%05u has no size of a chunk where one should be", s->user);
    } else {
        s->chunk = SIZE_LINE;
    }
}

/* Takes what comes in chunks out of them, in place. Returns the length of what is left. */
static size_t unchunk(struct stream *s, char *bytes, size_t len)
{
    size_t out = 0;
    if (!s->is_chunked)
        return len;
    for (size_t i = 0; i < len;) {
        if (s->chunk != DATA) {
            chunk_byte(s, bytes[i++]);
            continue;
        }
        size_t n = len - i < s->chunk_left ? len - i : s->chunk_left;
        memmove(bytes + out, bytes + i, n);
        out += n;
        i += n;
        s->chunk_left -= n;
        if (s->chunk_left == 0)
            s->chunk = DATA_END;
    }
    return out;
}

/* The value of a field in a head, or NULL. */
static const char *head_field(const char *head, size_t len, const char *name, size_t *value_len)
{
    size_t n = strlen(name);
    for (const char *at = head, *end; (end = memchr(at, '\n', (size_t)(head + len - at)));
         at = end + 1) {
        if ((size_t)(end - at) <= n || at[n] != ':' || strncasecmp(at, name, n) != 0)
            continue;
        for (at += n + 1; *at == ' '; at++)
            ;
        *value_len = (size_t)(end - at) - (end > at && end[-1] == '\r');
        return at;
    }
    return NULL;
}

static bool head_says(const char *head, size_t len, const char *name, const char *value)
{
    size_t n;
    const char *field = head_field(head, len, name, &n);
    return field && n >= strlen(value) && strncasecmp(field, value, strlen(value)) == 0;
}

/* Returns the length of the whole head, or 0 if that has not come yet. */
static size_t head_take(struct stream *s, const char *bytes, size_t len)
{
    const char *end = memmem(bytes, len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - bytes) + 4;
    if (len < 12 || memcmp(bytes, "HTTP/1.1 200", 12) != 0 ||
        !head_says(bytes, head, "Content-Type", "text/event-stream"))
        fail("user u%05u wanted a stream, and was answered: %.*s", s->user, (int)len, bytes);
    s->is_chunked = head_says(bytes, head, "Transfer-Encoding", "chunked");
    s->phase = OPEN;
    return head;
}

static void stream_hold(struct stream *s, const char *bytes, size_t len)
{
    if (len > REST_BYTES)
        fail("over %d bytes with no end on a stream of user u%05u: %.100s...", REST_BYTES, s->user,
             bytes);
    memcpy(s->rest, bytes, len);
    s->held = (uint32_t)len;
}

/* Takes `got` new bytes, after `held` that are left from before. */
static void stream_take(struct run *r, struct stream *s, char *bytes, size_t held, size_t got)
{
    size_t from = 0, len = held;
    if (s->phase == HEAD) {
        len = from = head_take(s, bytes, held + got);
        if (from == 0) {
            stream_hold(s, bytes, held + got);
            return;
        }
        got = held + got - from;
    }
    len += unchunk(s, bytes + len, got);
    from += blocks_take(r, s, bytes + from, len - from);
    if (s->phase == OPEN)
        stream_hold(s, bytes + from, len - from);
}

static void stream_close(struct stream *s)
{
    if (s->phase != CLOSED)
        hang_up(s->fd);
    s->phase = CLOSED;
    s->fd = -1;
}

static int stream_socket(const struct run *r)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        fail("no socket for client %u: %s", r->begun, strerror(errno));
    if (r->workload->shape == CONNECTS || r->streams_count > PORTS_OF_ONE_ADDRESS) {
        struct sockaddr_in from = loopback((int)(r->begun % ADDRESSES), 0);
        /* The port is chosen when the address of the other end is known, too. */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0)
            fail("cannot bind to an address: %s", strerror(errno));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void stream_connect(struct run *r, struct stream *s)
{
    struct sockaddr_in to = loopback(0, r->server->port);
    s->fd = stream_socket(r);
    s->is_greeted = s->had_block = s->is_chunked = false;
    s->chunk = SIZE;
    s->chunk_left = 0;
    s->held = 0;
    s->first = s->next;
    s->phase = CONNECTING;
    if (connect(s->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        fail("cannot connect: %s", strerror(errno));
    watch(r, EPOLL_CTL_ADD, s->fd, EPOLLOUT, s);
}

/* Begins to open a stream, the next one that the run needs. */
static void stream_begin(struct run *r, struct stream *s)
{
    s->user = r->begun++ % r->users;
    s->began = now_ns();
    stream_connect(r, s);
}

/* The server has closed it, which it may not; but where so many come at once that the kernel's
 * queue of connections runs over, the kernel may reset one before the server has seen it. Then the
 * client tries again, as a browser does. */
static void stream_closed(struct run *r, struct stream *s, int error)
{
    if (!r->resuming || s->phase > HEAD || s->held > 0 || (error != ECONNRESET && error != EPIPE))
        fail("the server has closed stream %u of user u%05u after %u messages: %s",
             (unsigned)(s - r->streams), s->user, s->next,
             error ? strerror(error) : "end of stream");
    stream_close(s);
    stream_connect(r, s);
    r->again++;
}

static void stream_ask(struct run *r, struct stream *s)
{
    char request[256];
    int n = snprintf(request, sizeof request,
                     "GET /sse/connect/u%05u HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                     "Accept: text/event-stream\r\n%s%s%s\r\n",
                     s->user, r->resuming ? "Last-Event-ID: " : "", r->resuming ? s->id : "",
                     r->resuming ? "\r\n" : "");
    s->phase = HEAD;
    if (put(s->fd, request, (size_t)n) != n)
        stream_closed(r, s, errno);
}

static void stream_read(struct run *r, struct stream *s)
{
    static char bytes[REST_BYTES + READ_BYTES + 1];
    do {
        size_t held = s->held;
        memcpy(bytes, s->rest, held);
        ssize_t n = get(s->fd, bytes + held, READ_BYTES, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            stream_closed(r, s, n < 0 ? errno : 0);
            return;
        }
        r->now = now_ns();
        stream_take(r, s, bytes, held, (size_t)n);
    } while (s->phase != DONE && is_pending(s->fd));
}

/* Goes on with opening, or reads. */
static void stream_event(struct run *r, struct stream *s)
{
    if (s->phase == CONNECTING) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error) {
            stream_closed(r, s, error);
            return;
        }
        watch(r, EPOLL_CTL_MOD, s->fd, EPOLLIN, s);
        s->phase = SHAKING;
    }
    if (s->phase == SHAKING) {
        if (!cert || shake_hands(s->fd))
            stream_ask(r, s);
        return;
    }
    stream_read(r, s);
    if (s->phase == DONE) {
        stream_close(s);
        if (r->until == NEVER)
            stream_begin(r, s);
    }
}

/* --- Publishers ------------------------------------------------------------------------------- */

static void publisher_open(struct run *r, struct publisher *p, unsigned number)
{
    const struct workload *w = r->workload;
    struct sockaddr_in to = loopback(0, r->server->port);
    int on = 1;
    p->kind = PUBLISHER;
    p->number = number;
    p->limit = UINT64_MAX;
    p->users = 1;
    if (w->shape != FAN) {
        p->first_user = number;
        p->stride = w->publishers;
        p->users = (r->users - number + w->publishers - 1) / w->publishers;
    }
    p->ring = calloc(RING, sizeof *p->ring);
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!p->ring || p->fd < 0 || connect(p->fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail("publisher %u cannot connect: %s", number, strerror(errno));
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (cert)
        secure(p->fd);
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    watch(r, EPOLL_CTL_ADD, p->fd, EPOLLIN, p);
}

static void publisher_write(struct run *r, struct publisher *p)
{
    while (p->requests_sent < p->requests_len) {
        ssize_t n = put(p->fd, p->requests + p->requests_sent, p->requests_len - p->requests_sent);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            fail("publisher %u cannot send: %s", p->number, strerror(errno));
        p->requests_sent += (size_t)n;
    }
    bool is_blocked = p->requests_sent < p->requests_len;
    if (is_blocked != p->is_blocked)
        watch(r, EPOLL_CTL_MOD, p->fd, is_blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, p);
    p->is_blocked = is_blocked;
    if (!is_blocked)
        p->requests_len = p->requests_sent = 0;
}

/* When a publisher's next message is due, at an even pace of all publishers together. */
static int64_t due_at(const struct run *r, const struct publisher *p)
{
    if (p->next >= p->limit)
        return NEVER;
    uint64_t messages = p->next * r->workload->publishers + p->number;
    return r->pace_from + (int64_t)(messages * (uint64_t)SECOND / r->workload->rate);
}

static void request_add(struct run *r, struct publisher *p, int64_t at)
{
    static const char head[] = "POST /sse/send/u00000 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                               "Content-Length: 32\r\n\r\n";
    enum { HEAD_BYTES = sizeof head - 1, USER = 16 };
    unsigned user = p->first_user + (unsigned)(p->next % p->users) * p->stride;
    char *to = p->requests + p->requests_len;
    memcpy(to, head, HEAD_BYTES);
    put_digits(to + USER, 5, user);
    body_write(to + HEAD_BYTES, p->number, (uint32_t)(p->next / p->users), user);
    p->requests_len += HEAD_BYTES + BODY_BYTES;
    p->ring[p->next % RING] = (struct message){.at = at, .left = r->copies, .is_under_way = true};
    p->next++;
    p->under_way++;
    r->due += r->copies;
}

/* Sends all that may be sent now, in one piece. */
static void publish(struct run *r, struct publisher *p, int64_t now)
{
    while (p->next < p->limit && !p->ring[p->next % RING].is_under_way &&
           p->requests_len + 256 < REQUESTS_BYTES) {
        int64_t at = r->workload->rate ? due_at(r, p) : now;
        if (at > now || (!r->workload->rate && p->under_way == r->workload->depth))
            break;
        request_add(r, p, at);
    }
    if (p->requests_len > 0 && !p->is_blocked)
        publisher_write(r, p);
}

/* The length of a body in chunks, or 0 if it is not all there. */
static size_t chunks_length(const char *bytes, size_t len)
{
    size_t at = 0;
    for (;;) {
        const char *end = memchr(bytes + at, '\n', len - at);
        if (!end)
            return 0;
        size_t size = strtoul(bytes + at, NULL, 16);
        at = (size_t)(end - bytes) + 1;
        if (size > ANSWERS_BYTES || at + size + 2 > len)
            return 0;
        at += size + 2;
        if (size == 0)
            return at;
    }
}

/* The length of the first answer, or 0 if it is not all there. */
static size_t answer_length(const struct publisher *p, const char *bytes, size_t len)
{
    const char *end = memmem(bytes, len, "\r\n\r\n", 4), *value;
    size_t value_len;
    if (!end)
        return 0;
    size_t head = (size_t)(end - bytes) + 4, body = 0;
    if (len < 12 || memcmp(bytes, "HTTP/1.1 2", 10) != 0)
        fail("publisher %u was answered: %.*s", p->number, (int)(len < 500 ? len : 500), bytes);
    if ((value = head_field(bytes, head, "Content-Length", &value_len))) {
        body = strtoul(value, NULL, 10);
    } else if (head_says(bytes, head, "Transfer-Encoding", "chunked")) {
        body = chunks_length(bytes + head, len - head);
        if (body == 0)
            return 0;
    } else if (memcmp(bytes + 9, "204", 3) != 0) {
        fail("publisher %u was answered without a length: %.*s", p->number, (int)head, bytes);
    }
    return head + body <= len ? head + body : 0;
}

static void answer_take(struct run *r, struct publisher *p)
{
    if (p->answered == p->next)
        fail("publisher %u was answered once more than it has asked", p->number);
    struct message *m = &p->ring[p->answered++ % RING];
    m->is_answered = true;
    r->progress = r->now;
    if (m->left == 0)
        message_done(p, m);
}

static void answers_read(struct run *r, struct publisher *p)
{
    do {
        size_t at = 0, n;
        ssize_t got =
            get(p->fd, p->answers + p->answers_len, ANSWERS_BYTES - 1 - p->answers_len, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0)
            fail("the server has closed publisher %u after %llu answers", p->number,
                 (unsigned long long)p->answered);
        r->now = now_ns();
        p->answers_len += (size_t)got;
        p->answers[p->answers_len] = 0; /* where numbers end, at the latest */
        while ((n = answer_length(p, p->answers + at, p->answers_len - at)) > 0) {
            answer_take(r, p);
            at += n;
        }
        p->answers_len -= at;
        memmove(p->answers, p->answers + at, p->answers_len);
        if (p->answers_len == ANSWERS_BYTES - 1)
            fail("an answer to publisher %u has no end", p->number);
    } while (is_pending(p->fd));
}

static void publisher_event(struct run *r, struct publisher *p, uint32_t events)
{
    if (events & EPOLLOUT)
        publisher_write(r, p);
    if (events & ~(uint32_t)EPOLLOUT)
        answers_read(r, p);
}

/* --- The loop --------------------------------------------------------------------------------- */

/* Has anything to come? */
static bool is_awaiting(const struct run *r)
{
    if (r->opened < r->begun || r->delivered != r->due)
        return true;
    for (unsigned i = 0; i < r->workload->publishers; i++)
        if (r->publishers && r->publishers[i].answered < r->publishers[i].limit)
            return true;
    return false;
}

/* The oldest message that is missing something. */
static void say_missing(const struct run *r)
{
    for (unsigned i = 0; i < r->workload->publishers && r->publishers; i++) {
        const struct publisher *p = &r->publishers[i];
        for (uint64_t k = p->next > RING ? p->next - RING : 0; k < p->next; k++) {
            const struct message *m = &p->ring[k % RING];
            if (!m->is_under_way)
                continue;
            fail("waited %d s in vain: number %llu of publisher %u, to user u%05u: %s, and on "
                 "%u of %u streams it is missing",
                 PATIENCE_S, (unsigned long long)(k / p->users), i,
                 p->first_user + (unsigned)(k % p->users) * p->stride,
                 m->is_answered ? "answered" : "not answered", m->left, r->copies);
        }
    }
}

static void stalled(const struct run *r)
{
    static const char *const phases[] = {"not begun", "not connected",  "no handshake",
                                         "no answer", "no first event", "not closed"};
    say_missing(r);
    for (unsigned i = 0; i < r->streams_count; i++) {
        const struct stream *s = &r->streams[i];
        if (s->phase != CLOSED && !s->had_block)
            fail("waited %d s in vain: stream %u, of user u%05u: %s", PATIENCE_S, i, s->user,
                 phases[s->phase]);
        if (r->resuming && s->next < s->first + MISSED)
            fail("waited %d s in vain: stream %u, of user u%05u, resumed after id %s, has got "
                 "%u of %d messages",
                 PATIENCE_S, i, s->user, s->id, s->next - s->first, MISSED);
    }
    fail("waited %d s in vain", PATIENCE_S);
}

/* At an even pace: wakes the loop when the next message is due. */
static void set_timer(struct run *r)
{
    int64_t at = NEVER;
    for (unsigned i = 0; i < r->workload->publishers; i++)
        if (due_at(r, &r->publishers[i]) < at)
            at = due_at(r, &r->publishers[i]);
    if (at == r->timer_at)
        return;
    struct itimerspec when = {0};
    if (at != NEVER)
        when.it_value = (struct timespec){.tv_sec = at / SECOND, .tv_nsec = at % SECOND};
    timerfd_settime(r->timer, TFD_TIMER_ABSTIME, &when, NULL);
    r->timer_at = at;
}

static void dispatch(struct run *r, const struct epoll_event *e)
{
    enum kind *kind = e->data.ptr;
    if (*kind == STREAM)
        stream_event(r, e->data.ptr);
    else if (*kind == PUBLISHER)
        publisher_event(r, e->data.ptr, e->events);
}

/* Sends what is to be sent, then waits for what comes, until that time at the longest, and takes
 * it. */
static void step(struct run *r, int64_t until)
{
    struct epoll_event events[EVENTS];
    r->now = now_ns();
    for (unsigned i = 0; i < r->workload->publishers && r->publishers; i++)
        publish(r, &r->publishers[i], r->now);
    if (r->workload->rate && r->publishers)
        set_timer(r);
    int64_t wait = (until - r->now) / 1000000 + 1;
    int n = epoll_wait(r->epoll, events, EVENTS, wait < 0 ? 0 : wait > 100 ? 100 : (int)wait);
    heed_signals();
    if (n < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    r->now = now_ns();
    for (int i = 0; i < n; i++)
        dispatch(r, &events[i]);
    if (r->now - r->progress > PATIENCE_S * SECOND) {
        if (is_awaiting(r))
            stalled(r);
        r->progress = r->now;
    }
}

static void go_on(struct run *r, int64_t ns)
{
    int64_t until = now_ns() + ns;
    while ((r->now = now_ns()) < until)
        step(r, until);
}

/* Waits for all that has to come, and then a moment in which nothing may. */
static void finish(struct run *r)
{
    int64_t until = now_ns() + PATIENCE_S * SECOND;
    for (unsigned i = 0; i < r->workload->publishers; i++)
        r->publishers[i].limit = r->publishers[i].next;
    while (is_awaiting(r)) {
        if (now_ns() > until)
            stalled(r);
        step(r, until);
    }
    go_on(r, QUIET_MS * MS);
}

static void streams_open(struct run *r)
{
    while (r->opened < r->streams_count) {
        while (r->begun < r->streams_count && r->begun - r->opened < CLIENTS) {
            struct stream *s = &r->streams[r->begun];
            stream_begin(r, s);
        }
        step(r, now_ns() + SECOND);
    }
}

static void publishers_open(struct run *r)
{
    if (r->workload->publishers == 0)
        return;
    r->publishers = calloc(r->workload->publishers, sizeof *r->publishers);
    if (!r->publishers)
        fail("not enough memory");
    for (unsigned i = 0; i < r->workload->publishers; i++)
        publisher_open(r, &r->publishers[i], i);
    r->pace_from = now_ns();
}

static void run_begin(struct run *r, const struct workload *w, unsigned streams)
{
    r->workload = w;
    r->streams_count = streams;
    r->users = w->shape == FAN ? 1 : w->shape == CONNECTS ? USERS : streams;
    r->copies = w->shape == FAN ? streams : 1;
    r->until = r->from = r->timer_at = NEVER;
    r->streams = calloc(streams, sizeof *r->streams);
    r->order = calloc(RING, sizeof *r->order);
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!r->streams || !r->order || r->epoll < 0 || r->timer < 0)
        fail("not enough memory");
    for (unsigned i = 0; i < streams; i++) {
        memset(&r->streams[i], 1, sizeof r->streams[i]); /* to have the memory at once */
        r->streams[i] = (struct stream){.kind = STREAM, .fd = -1};
    }
    r->no_kind = NOTHING;
    watch(r, EPOLL_CTL_ADD, r->timer, EPOLLIN | EPOLLET, &r->no_kind);
    r->progress = now_ns();
}

static void run_end(struct run *r)
{
    for (unsigned i = 0; i < r->streams_count; i++)
        stream_close(&r->streams[i]);
    for (unsigned i = 0; i < r->workload->publishers && r->publishers; i++) {
        hang_up(r->publishers[i].fd);
        free(r->publishers[i].ring);
    }
    for (unsigned i = 0; i < r->ends_count; i++)
        close(r->ends[i]);
    close(r->timer);
    close(r->epoll);
    free(r->ends);
    free(r->publishers);
    free(r->streams);
    free(r->order);
}

/* --- Measuring -------------------------------------------------------------------------------- */

enum figure {
    RATE, /* a second */
    P50,  /* of delays */
    P99,
    P999,
    MOST,
    CPU,   /* of the server, for each delivery, or in percent */
    BENCH, /* CPU of this program, in percent */
    ALL,   /* memory, in KiB for each stream */
    RESIDENT,
    STACKS,
    TABLES,
    SLAB,
    REST,
    TOOK, /* ms */
    AGAIN,
    FIGURES
};

/* Of each workload, server and turn; NAN where there is none. */
static double results[WORKLOADS][MAX_SERVERS][MAX_TURNS][FIGURES];

struct mark {
    int64_t at, server_cpu, own_cpu;
    uint64_t done;
};

/* The processes are looked for before, because that takes a while. */
static void find_processes(const struct run *r)
{
    if (server_processes(r->server) == 0)
        fail("the server is not in /proc");
}

static struct mark mark_now(const struct run *r)
{
    return (struct mark){now_ns(), server_cpu_ns(r->server), clock_ns(CLOCK_PROCESS_CPUTIME_ID),
                         r->workload->shape == CONNECTS ? r->opened : r->delivered};
}

static void take_figures(const struct run *r, struct mark from, struct mark to, double *f)
{
    double took = (double)(to.at - from.at), done = (double)(to.done - from.done);
    f[RATE] = done / took * 1e9;
    f[P50] = delay_at(&r->delays, 0.5) / 1e3;
    f[P99] = delay_at(&r->delays, 0.99) / 1e3;
    f[P999] = delay_at(&r->delays, 0.999) / 1e3;
    f[MOST] = (double)r->delays.most / 1e3;
    f[CPU] = (double)(to.server_cpu - from.server_cpu) / 1e3 / done;
    f[BENCH] = (double)(to.own_cpu - from.own_cpu) / took * 100;
}

static void run_flow(struct run *r, double seconds, double *f)
{
    streams_open(r);
    if (r->workload->rate)
        go_on(r, REST_MS * MS);
    else if (r->workload->shape != CONNECTS)
        go_on(r, QUIET_MS * MS);
    find_processes(r);
    publishers_open(r);
    go_on(r, WARM_UP_MS * MS);
    struct mark from = mark_now(r);
    r->from = from.at;
    go_on(r, (int64_t)(seconds * 1e9));
    struct mark to = mark_now(r);
    r->until = to.at;
    finish(r);
    take_figures(r, from, to, f);
    fprintf(stderr, "%.0f/s, delay %.0f us, p99 %.0f us, server CPU %.1f us, bench CPU %.0f%%\n",
            f[RATE], f[P50], f[P99], f[CPU], f[BENCH]);
}

/* --- Memory ----------------------------------------------------------------------------------- */

/* In KiB. All that a machine uses for the streams of a server is what it uses more after they were
 * opened, less what this program uses more, less what the kernel needs for the client's end of
 * each. What else happens on the machine meanwhile falsifies it.
 *
 * Of this the parts are told that can be: what the processes have resident, the kernel's stacks of
 * threads, tables of pages, and slabs, which hold sockets, files and the records of threads. What
 * is left over is buffers. Linux, for one, leaves 32 KiB with each thread that has ever sent
 * something over TCP, from which it takes the room for what that thread sends next. */
struct memory {
    double used, stacks, tables, slab, resident, own_resident, own_tables;
};

/* The number in a line of a file in /proc. */
static double proc_number(const char *path, const char *name)
{
    char line[256];
    double value = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0) {
            value = strtod(line + strlen(name), NULL);
            break;
        }
    if (f)
        fclose(f);
    return value;
}

/* What processes share counts once: that is their Pss, which smaps_rollup has. */
static double server_resident(const struct server *s)
{
    double sum = 0;
    for (unsigned i = 0; i < s->processes; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)s->pids[i]);
        sum += proc_number(path, "Pss:");
    }
    return sum;
}

/* Pages that each processor keeps for itself, in KiB: they are free, but MemFree does not count
 * them, and after much was freed there are many. */
static double kept_free(void)
{
    char line[256];
    double pages = 0;
    FILE *f = fopen("/proc/zoneinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *at = line + strspn(line, " ");
        if (strncmp(at, "count:", 6) == 0)
            pages += strtod(at + 6, NULL);
    }
    if (f)
        fclose(f);
    return pages * (double)sysconf(_SC_PAGESIZE) / 1024;
}

/* Used is what is neither free nor a cache of files. MemAvailable will not do, because it takes
 * half of what could be reclaimed for free, and that is where the kernel has the inodes of
 * sockets. */
static struct memory memory_now(const struct server *s)
{
    static const char info[] = "/proc/meminfo";
    return (struct memory){
        .used = proc_number(info, "MemTotal:") - proc_number(info, "MemFree:") -
                proc_number(info, "Buffers:") - proc_number(info, "Cached:") +
                proc_number(info, "Shmem:") - kept_free(),
        .stacks = proc_number(info, "KernelStack:"),
        .tables = proc_number(info, "PageTables:"),
        .slab = proc_number(info, "Slab:"),
        .resident = s ? server_resident(s) : 0,
        .own_resident = proc_number("/proc/self/status", "VmRSS:"),
        .own_tables = proc_number("/proc/self/status", "VmPTE:"),
    };
}

/* From one time to another, and for each of so many. */
static struct memory memory_grown(struct memory from, struct memory to, double count)
{
    return (struct memory){(to.used - from.used) / count,
                           (to.stacks - from.stacks) / count,
                           (to.tables - from.tables) / count,
                           (to.slab - from.slab) / count,
                           (to.resident - from.resident) / count,
                           (to.own_resident - from.own_resident) / count,
                           (to.own_tables - from.own_tables) / count};
}

/* Opens so many connections to itself, and keeps them until the end of the run. */
static void connect_to_self(struct run *r, unsigned count)
{
    struct sockaddr_in at = loopback(0, 0);
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(listener, 16) != 0 || getsockname(listener, (struct sockaddr *)&at, &len) != 0)
        fail("cannot listen: %s", strerror(errno));
    for (unsigned i = 0; i < count; i++) {
        int *ends = &r->ends[r->ends_count];
        ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (ends[0] < 0 || connect(ends[0], (struct sockaddr *)&at, sizeof at) != 0)
            fail("cannot connect to myself: %s", strerror(errno));
        ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (ends[1] < 0)
            fail("cannot accept: %s", strerror(errno));
        watch(r, EPOLL_CTL_ADD, ends[0], EPOLLIN, &r->no_kind);
        watch(r, EPOLL_CTL_ADD, ends[1], EPOLLIN, &r->no_kind);
        r->ends_count += 2;
    }
    close(listener);
}

/* What the kernel takes for the client's end of a connection: half of what both ends take. A first
 * half of them fills up what earlier runs have left half empty, and all stay open for as long as is
 * measured, because the kernel does not return at once what sockets took. */
static struct memory client_end(struct run *r)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    size_t count = ((size_t)limit.rlim_cur - r->streams_count - SPARE / 2) / 4;
    if (count > OWN_CONNECTIONS)
        count = OWN_CONNECTIONS;
    r->ends = malloc(4 * count * sizeof *r->ends);
    if (!r->ends)
        fail("not enough memory");
    memset(r->ends, 1, 4 * count * sizeof *r->ends);
    connect_to_self(r, (unsigned)count);
    struct memory before = memory_now(NULL);
    connect_to_self(r, (unsigned)count);
    return memory_grown(before, memory_now(NULL), 2.0 * (double)count);
}

/* Memory is looked at when the streams have been at rest and had keep-alives: what a server takes
 * while it greets them, and what it needs to write, would otherwise depend on the moment. */
static void run_idle(struct run *r, struct memory end, double *f)
{
    find_processes(r);
    struct memory before = memory_now(r->server);
    streams_open(r);
    go_on(r, SETTLE_S * SECOND);
    find_processes(r);
    struct mark from = mark_now(r);
    go_on(r, IDLE_S * SECOND);
    struct mark to = mark_now(r);
    struct memory grown = memory_grown(before, memory_now(r->server), r->streams_count);
    finish(r);
    f[ALL] = grown.used - grown.own_resident - grown.own_tables - end.used;
    f[RESIDENT] = grown.resident;
    f[STACKS] = grown.stacks;
    f[TABLES] = grown.tables - grown.own_tables;
    f[SLAB] = grown.slab - end.slab;
    f[REST] = f[ALL] - f[RESIDENT] - f[STACKS] - f[TABLES] - f[SLAB];
    f[CPU] = (double)(to.server_cpu - from.server_cpu) / (double)(to.at - from.at) * 100;
    fprintf(stderr, "%u streams, %.1f KiB each, idle %.1f%% of one core\n", r->streams_count,
            f[ALL], f[CPU]);
}

/* --- Recovery --------------------------------------------------------------------------------- */

/* Each publisher sends so many more messages to each of its users; these and their answers are
 * awaited, and their deliveries if there are streams. */
static void publish_to_each(struct run *r, unsigned count)
{
    for (unsigned i = 0; i < r->workload->publishers; i++)
        r->publishers[i].limit = r->publishers[i].next + (uint64_t)count * r->publishers[i].users;
    do
        step(r, now_ns() + SECOND);
    while (is_awaiting(r));
}

static void streams_close(struct run *r)
{
    for (unsigned i = 0; i < r->streams_count; i++)
        stream_close(&r->streams[i]);
    r->begun = r->opened = 0;
}

/* All streams come back, as fast as this program can, and get what they have missed. False if
 * nothing comes for so long. */
static bool resume_all(struct run *r, int64_t patience)
{
    r->resuming = true;
    r->due += (uint64_t)MISSED * r->streams_count;
    r->progress = now_ns();
    while (r->delivered < r->due) {
        for (int i = 0; i < CLIENTS && r->begun < r->streams_count; i++) {
            struct stream *s = &r->streams[r->begun];
            stream_begin(r, s);
        }
        step(r, r->begun < r->streams_count ? 0 : now_ns() + SECOND);
        if (now_ns() - r->progress > patience)
            return false;
    }
    return true;
}

/* All streams get a message each, close, miss some, and come back. */
static bool leave_and_resume(struct run *r, int64_t patience, struct mark *from, struct mark *to)
{
    r->keep_ids = true;
    streams_open(r);
    go_on(r, QUIET_MS * MS);
    publishers_open(r);
    publish_to_each(r, 1);
    streams_close(r);
    r->copies = 0;
    if (r->streams[0].id[0] == 0)
        return false;
    go_on(r, QUIET_MS * MS); /* in which the server sees it */
    publish_to_each(r, MISSED);
    find_processes(r);
    *from = mark_now(r);
    if (!resume_all(r, patience))
        return false;
    *to = mark_now(r);
    return true;
}

static void run_recovery(struct run *r, double *f)
{
    struct mark from, to;
    if (!leave_and_resume(r, NEVER, &from, &to))
        fail("there are no ids to resume after");
    finish(r);
    take_figures(r, from, to, f);
    f[AGAIN] = r->again;
    f[TOOK] = (double)(to.at - from.at) / 1e6;
    f[RATE] = r->streams_count / f[TOOK] * 1e3;
    f[CPU] *= MISSED;
    f[P50] /= 1e3; /* in ms */
    f[P99] /= 1e3;
    f[MOST] /= 1e3;
    fprintf(stderr, "%u clients in %.0f ms, delay %.0f ms, p99 %.0f ms, server CPU %.0f us each\n",
            r->streams_count, f[TOOK], f[P50], f[P99], f[CPU]);
}

/* --- All runs --------------------------------------------------------------------------------- */

static void no_figures(double *f)
{
    for (int i = 0; i < FIGURES; i++)
        f[i] = NAN;
}

/* Has this server a history? A few clients try it; a server without one is none the worse for
 * it. */
static bool has_history(struct server *s, const struct workload *w)
{
    static struct run r;
    struct mark from, to;
    memset(&r, 0, sizeof r);
    r.server = s;
    server_start(s, SPARE);
    run_begin(&r, w, w->publishers);
    bool has = leave_and_resume(&r, 2 * SECOND, &from, &to);
    run_end(&r);
    server_stop(s);
    return has;
}

static void run_one(const struct options *o, struct server *s, const struct workload *w, double *f)
{
    static struct run r;
    unsigned streams = w->streams ? w->streams : o->streams;
    struct memory end = {0};

    memset(&r, 0, sizeof r);
    r.server = s;
    no_figures(f);
    if (w->shape == RECOVERY && !has_history(s, w)) {
        fprintf(stderr, "not applicable: it has no history\n");
        return;
    }
    run_begin(&r, w, streams);
    if (w->shape == IDLE)
        end = client_end(&r);
    server_start(s, streams + (w->shape == CONNECTS ? LINGERING : SPARE));
    if (w->shape == IDLE)
        run_idle(&r, end, f);
    else if (w->shape == RECOVERY)
        run_recovery(&r, f);
    else
        run_flow(&r, o->seconds, f);
    run_end(&r);
    server_stop(s);
}

static unsigned turns_of(const struct options *o, const struct workload *w)
{
    return w->shape == IDLE ? o->idle_turns : o->turns;
}

/* Is it named, or begins as one that is named? */
/* Is there a workload of just this name? */
static bool is_whole_name(const char *at, size_t n)
{
    for (unsigned i = 0; i < WORKLOADS; i++)
        if (strlen(workloads[i].name) == n && memcmp(workloads[i].name, at, n) == 0)
            return true;
    return false;
}

static bool is_wanted(const struct options *o, const struct workload *w)
{
    if (!o->only)
        return true;
    for (const char *at = o->only; *at; at += strcspn(at, ","), at += *at == ',') {
        size_t n = strcspn(at, ",");
        if (n > 0 && strncmp(w->name, at, n) == 0 && (!w->name[n] || !is_whole_name(at, n)))
            return true;
    }
    return false;
}

static void check_names(const char *only)
{
    for (const char *at = only; *at; at += strcspn(at, ","), at += *at == ',') {
        int n = (int)strcspn(at, ","), w = 0;
        while (w < WORKLOADS && (n == 0 || strncmp(workloads[w].name, at, (size_t)n) != 0))
            w++;
        if (w == WORKLOADS)
            fail("there is no workload %.*s", n, at);
    }
}

static void run_all(const struct options *o, struct server *servers, unsigned count)
{
    for (int w = 0; w < WORKLOADS; w++) {
        unsigned turns = turns_of(o, &workloads[w]);
        for (unsigned turn = 0; turn < turns && is_wanted(o, &workloads[w]); turn++)
            for (unsigned s = 0; s < count; s++) {
                fprintf(stderr, "%-14s %u/%u  %-12s ", workloads[w].name, turn + 1, turns,
                        servers[s].name);
                snprintf(doing, sizeof doing, "%.20s, %s: ", servers[s].name, workloads[w].name);
                run_one(o, &servers[s], &workloads[w], results[w][s][turn]);
            }
    }
    doing[0] = 0;
}

/* --- Tables ----------------------------------------------------------------------------------- */

struct column {
    const char *title;
    enum figure figure;
    int decimals;
    bool has_spread, has_ratio;
};

struct table {
    const char *heading;
    enum shape from, to;
    unsigned columns;
    const struct column *column;
};

static const struct column flow_columns[] = {
    {"deliveries/s", RATE, 0, true, true},   {"p50 us", P50, 0, false, false},
    {"p99 us", P99, 0, false, false},        {"p99.9 us", P999, 0, false, false},
    {"max us", MOST, 0, false, false},       {"server CPU us", CPU, 2, true, true},
    {"bench CPU %", BENCH, 0, false, false},
};

static const struct column idle_columns[] = {
    {"KiB a stream", ALL, 1, true, true}, {"processes", RESIDENT, 1, false, false},
    {"stacks", STACKS, 1, false, false},  {"page tables", TABLES, 1, false, false},
    {"slabs", SLAB, 1, false, false},     {"other", REST, 1, false, false},
    {"server CPU %", CPU, 1, true, true},
};

static const struct column recovery_columns[] = {
    {"all back after ms", TOOK, 0, true, true},
    {"clients/s", RATE, 0, false, false},
    {"p50 ms", P50, 0, false, false},
    {"p99 ms", P99, 0, false, false},
    {"max ms", MOST, 0, false, false},
    {"reset", AGAIN, 0, false, false},
    {"server CPU us a client", CPU, 0, true, true},
};

#define COLUMNS(list) sizeof(list) / sizeof *(list), list

static const struct table tables[] = {
    {"Deliveries (`connects`: clients)", SPREAD, CONNECTS, COLUMNS(flow_columns)},
    {"Idle streams", IDLE, IDLE, COLUMNS(idle_columns)},
    {"Recovery", RECOVERY, RECOVERY, COLUMNS(recovery_columns)},
};

enum { MOST_COLUMNS = 16, MOST_ROWS = WORKLOADS * MAX_SERVERS + 1, CELL = 56 };

static char cells[MOST_ROWS][MOST_COLUMNS][CELL];

/* With commas between thousands. */
static int number_write(char *to, double value, int decimals)
{
    char plain[32];
    int n = snprintf(plain, sizeof plain, "%.*f", decimals, value), len = 0;
    int whole = n - (decimals ? decimals + 1 : 0);
    for (int i = 0; i < n; i++) {
        to[len++] = plain[i];
        if (i < whole - 1 && (whole - 1 - i) % 3 == 0 && plain[i] != '-')
            to[len++] = ',';
    }
    to[len] = 0;
    return len;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Least, median and most over the turns. */
struct spread {
    double least, median, most;
};

static struct spread spread_of(int w, unsigned server, enum figure figure, unsigned turns)
{
    double sorted[MAX_TURNS] = {0};
    for (unsigned i = 0; i < turns; i++)
        sorted[i] = results[w][server][i][figure];
    qsort(sorted, turns, sizeof *sorted, by_size);
    double median = (sorted[(turns - 1) / 2] + sorted[turns / 2]) / 2;
    return (struct spread){sorted[0], median, sorted[turns - 1]};
}

static void cell_write(char *cell, const struct column *c, struct spread s, unsigned turns)
{
    char *at = cell;
    if (isnan(s.median)) {
        snprintf(cell, CELL, "n/a");
        return;
    }
    at += number_write(at, s.median, c->decimals);
    if (!c->has_spread || turns == 1)
        return;
    at += snprintf(at, 8, " (");
    at += number_write(at, s.least, c->decimals);
    at += snprintf(at, 8, "-");
    at += number_write(at, s.most, c->decimals);
    snprintf(at, 8, ")");
}

static void row_write(char row[][CELL], const struct table *t, const struct options *o, int w,
                      const struct server *servers, unsigned server, bool has_ratios)
{
    unsigned turns = turns_of(o, &workloads[w]), at = 2 + t->columns;
    snprintf(row[0], CELL, "%s", workloads[w].name);
    snprintf(row[1], CELL, "%s", servers[server].name);
    for (unsigned i = 0; i < t->columns; i++) {
        const struct column *c = &t->column[i];
        struct spread s = spread_of(w, server, c->figure, turns);
        cell_write(row[2 + i], c, s, turns);
        if (!has_ratios || !c->has_ratio)
            continue;
        bool says_nothing = c->figure == RATE && workloads[w].rate; /* all keep that pace */
        double ratio = spread_of(w, 0, c->figure, turns).median / s.median;
        if (server > 0 && isfinite(ratio) && !says_nothing)
            snprintf(row[at], CELL, "%.2f", ratio);
        at++;
    }
}

static unsigned heads_write(char row[][CELL], const struct table *t, const char *first,
                            bool has_ratios)
{
    unsigned at = 2 + t->columns;
    snprintf(row[0], CELL, "workload");
    snprintf(row[1], CELL, "server");
    for (unsigned i = 0; i < t->columns; i++) {
        snprintf(row[2 + i], CELL, "%s", t->column[i].title);
        if (has_ratios && t->column[i].has_ratio)
            snprintf(row[at++], CELL, "%.16s / it, %s", first,
                     t->column[i].figure == CPU    ? "CPU"
                     : t->column[i].figure == RATE ? "rate"
                     : t->column[i].figure == ALL  ? "memory"
                                                   : "time");
    }
    return at;
}

static void cells_print(unsigned rows, unsigned columns)
{
    size_t width[MOST_COLUMNS] = {0};
    char dashes[CELL];
    memset(dashes, '-', sizeof dashes);
    for (unsigned i = 0; i < rows; i++)
        for (unsigned k = 0; k < columns; k++)
            if (strlen(cells[i][k]) > width[k])
                width[k] = strlen(cells[i][k]);
    for (unsigned i = 0; i < rows; i++) {
        for (unsigned k = 0; k < columns; k++)
            printf(k < 2 ? "| %-*s " : "| %*s ", (int)width[k], cells[i][k]);
        printf("|\n");
        for (unsigned k = 0; i == 0 && k < columns; k++)
            printf("| %.*s%s ", (int)width[k] - 1, dashes, k < 2 ? "-" : ":");
        if (i == 0)
            printf("|\n");
    }
}

static void table_print(const struct table *t, const struct options *o,
                        const struct server *servers, unsigned count)
{
    unsigned rows = 1, columns = heads_write(cells[0], t, servers[0].name, count > 1);
    memset(cells[1], 0, sizeof cells - sizeof cells[0]);
    for (int w = 0; w < WORKLOADS; w++)
        if (is_wanted(o, &workloads[w]) && workloads[w].shape >= t->from &&
            workloads[w].shape <= t->to)
            for (unsigned s = 0; s < count; s++)
                row_write(cells[rows++], t, o, w, servers, s, count > 1);
    if (rows == 1)
        return;
    printf("\n%s\n\n", t->heading);
    cells_print(rows, columns);
}

/* --- The command line ------------------------------------------------------------------------- */

/* Raises the limit of descriptors, for this program and the servers. Returns it. */
static rlim_t raise_limit(rlim_t wanted)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    struct rlimit higher = {.rlim_cur = wanted, .rlim_max = wanted};
    if (limit.rlim_max < wanted && setrlimit(RLIMIT_NOFILE, &higher) == 0)
        return wanted;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

/* A stream takes a descriptor here, and one in the server. */
static void check_limit(struct options *o)
{
    const rlim_t spare = SPARE, least = LINGERING + CLIENTS + SPARE, all = o->streams + 2 * spare;
    rlim_t limit = raise_limit(all > least ? all : least);
    if (limit >= all)
        return;
    if (!o->lower_streams || limit < 3 * spare)
        fail("%u streams take %ju descriptors, and the limit is %ju", o->streams, (uintmax_t)all,
             (uintmax_t)limit);
    o->streams = (unsigned)(limit - 2 * spare);
    printf("The limit of descriptors is %ju: `idle` and `recovery` have only %u streams.\n",
           (uintmax_t)limit, o->streams);
}

__attribute__((noreturn)) static void usage(void)
{
    fail("usage: bench [--workload NAME[,NAME...]] [--turns N] [--seconds N] [--streams N] "
         "[--tls CERT KEY] [--short] NAME=COMMAND...");
}

static double option_number(const char *text, double least, double most)
{
    char *end = NULL;
    double value = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end || !(value >= least && value <= most))
        fail("a number from %g to %g is wanted, not: %s", least, most, text ? text : "nothing");
    return value;
}

static unsigned parse_servers(char **args, struct server *servers)
{
    unsigned count = 0;
    for (; args[count]; count++) {
        char *equals = strchr(args[count], '=');
        if (count == MAX_SERVERS)
            fail("at most %d servers", MAX_SERVERS);
        if (!equals || equals == args[count])
            usage();
        *equals = 0;
        servers[count] = (struct server){.name = args[count], .command = equals + 1};
    }
    if (count == 0)
        usage();
    return count;
}

/* Returns the arguments after the options. */
static char **parse_options(char **args, struct options *o)
{
    for (; *args && strncmp(*args, "--", 2) == 0; args++) {
        const char *name = *args + 2;
        if (strcmp(name, "short") == 0) {
            o->turns = 3;
            o->idle_turns = 1;
            o->seconds = 1;
            o->lower_streams = true;
            continue;
        }
        if (!args[1])
            usage();
        args++;
        if (strcmp(name, "workload") == 0)
            o->only = *args;
        else if (strcmp(name, "turns") == 0)
            o->turns = o->idle_turns = (unsigned)option_number(*args, 1, MAX_TURNS);
        else if (strcmp(name, "seconds") == 0)
            o->seconds = option_number(*args, 0.1, 3600);
        else if (strcmp(name, "streams") == 0)
            o->streams = (unsigned)option_number(*args, 1, 60000);
        else if (strcmp(name, "tls") == 0 && args[1]) {
            cert = *args++;
            key = *args;
        } else
            usage();
    }
    return args;
}

int main(int argc, char **argv)
{
    static struct server servers[MAX_SERVERS];
    struct options o = {.turns = 5, .idle_turns = 5, .seconds = 2, .streams = 10000};
    struct sigaction act = {.sa_handler = on_signal};

    (void)argc;
    unsigned count = parse_servers(parse_options(argv + 1, &o), servers);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    check_names(o.only ? o.only : "");
    check_limit(&o);
    run_all(&o, servers, count);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        table_print(&tables[i], &o, servers, count);
    return 0;
}
