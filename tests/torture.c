/* torture - holds the promises of delivery against senders, slow readers and broken connections.
 *
 *     make build/sse build/torture
 *     build/torture build/sse [SECONDS [SEED [CERT KEY]]]
 *
 * 10 seconds unless told, and a seed of its own, printed, if it is 0; with CERT and KEY, in a build
 * with OpenSSL (build/tls/torture), all of it over HTTPS.
 *
 * Starts the server itself, with a short history. Sender threads publish over persistent
 * connections, one message at a time or pipelined, to one user or to all, and now and then
 * disconnect a user. Reader threads hold several streams of each user: some only read, some pause
 * until their socket is full, close or reset, and come back with the last id they had, with none
 * or with one that was never given out.
 *
 * A message is a pure function of its tag, which names its sender and a count and which its body or
 * its event begins with: so every byte of what arrives is checked without knowing what was sent.
 * Checked are, for each chain of streams joined by Last-Event-ID: every id one above the one
 * before, but for a `gap` that says exactly how many are missing; greetings, framing, event names
 * and the order of each sender's messages; that the server closes a stream only when told to or
 * when the stream has fallen out of the log. For all of it: that one id is one message, on all
 * streams and in the receipt; that as many ids were given out as messages were taken. At the end
 * all streams have to reach the newest message, then the history must be exactly as long as its
 * bounds allow, and SIGTERM must end every stream with a word and the server with 0.
 *
 * The first violations are printed and the exit status is 1; otherwise counts, and `torture: ok`.
 * A server built with a sanitizer serves as well: its exit status tells what it found. */

#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    USERS = 24,
    HOT_USERS = 4,   /* that get every second message */
    QUIET_USERS = 8, /* the last ones: they get few, but large, so that a stream can be behind for
                        long without falling out */
    CHAINS = 3 * USERS,
    SENDERS = 4,
    READERS = 3,
    BURST = 16,
    MAX_STREAMS = 8,
    HISTORY = 32,
    HISTORY_BYTES = 65536,
    BODY_BYTES = 40000,          /* of the longest body */
    DATA_BYTES = 2 * BODY_BYTES, /* of the longest block on a stream */
    REQUEST_BYTES = 2 * BODY_BYTES,
    ANSWER_BYTES = 4096,
    MESSAGES = 1 << 20, /* of one user, that can be kept account of */
    COMPLAINTS = 10,    /* after as many it is over */
    PATIENCE_S = 120
};

/* What is known of a user, by receipts and streams together. */
struct user {
    char name[8];
    _Atomic uint64_t *tags;     /* of message seq */
    _Atomic uint64_t epoch;     /* first half of its ids; 0 before one was seen */
    _Atomic uint64_t newest;    /* newest message on any stream */
    _Atomic uint64_t receipts;  /* messages taken for this user alone */
    atomic_uint disconnections; /* that were asked for */
    atomic_uint answered;       /* of those: the others may come at any time */
};

enum ask { ASK_FRESH, ASK_LAST, ASK_UNKNOWN };
enum phase { CLOSED, HEAD, FIRST, GREETING, BEAT, OPEN, OVER };

/* Streams of one user, each resumed where the one before it ended. */
struct chain {
    struct user *user;
    unsigned index;
    uint64_t random;
    int fd;
    enum phase phase; /* what is expected next */
    enum ask ask;     /* how the stream was asked for */
    bool has_last;    /* `last` means something */
    bool fell;        /* the server closed the stream before: so the next one begins with a gap */
    uint64_t last;    /* newest message had, or starting point */
    const char *how;  /* the server closed it, as the client saw it */
    uint64_t greeting;
    bool null_gap;                 /* this one began with a gap of unknown size, */
    uint64_t missed;               /* or of so many messages; 0 for none */
    uint64_t floor;                /* a message that some stream had when this one was asked for */
    uint64_t last_of[SENDERS + 1]; /* count in the newest tag of each sender */
    unsigned disconnections;       /* of its user that were answered when it was asked for */
    double read_at, paused_s;      /* newest reading, and longest wait for it lately */
    double act_at, idle_until;     /* next whim; pausing, or closed, until then */
    atomic_bool ready;             /* the stream has begun */
    _Atomic uint64_t reached;      /* `last`, for others to read */
    size_t len;
    char bytes[DATA_BYTES];
};

/* One message, made from its tag. */
struct message {
    char event[48];
    size_t len;
    char body[BODY_BYTES + 128];
};

/* One block of a stream, taken apart as a client would. */
struct block {
    bool has_id, has_data, has_retry;
    uint64_t epoch, seq, retry;
    char event[80];
    size_t len;
    char data[DATA_BYTES];
};

struct sender {
    uint64_t number, count, random;
    double quiet_at, broadcast_at, disconnect_at; /* not before then */
    int fd;
    uint64_t seqs[USERS]; /* newest id in a receipt */
    char *requests, *answers;
    size_t answers_len;
};

struct reader {
    unsigned number;
    struct message wanted;
    struct block block;
};

static struct user users[USERS];
static struct chain *chains;
static uint64_t seed;
static int port;
static pid_t server = -1;
static atomic_bool sending = true, draining, settled, stopping;
static atomic_uint complaints;
static _Atomic uint64_t broadcasts;
static struct {
    _Atomic uint64_t sends, bytes, deliveries, beats, resumes, gaps, missed, nulls, fell, told, cut,
        closes, resets, pauses, refusals, unclear;
} counts;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "torture: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    if (server > 0)
        kill(server, SIGKILL);
    exit(1);
}

/* Notes a violation and prints it, if it is one of the first. */
__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (atomic_fetch_add(&complaints, 1) < COMPLAINTS)
        fprintf(stderr, "violation: %s\n", line);
    else
        atomic_store(&sending, false);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void rest(double seconds)
{
    struct timespec t = {.tv_sec = (time_t)seconds};
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    nanosleep(&t, NULL);
}

/* Splitmix64. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t *state, uint64_t n)
{
    return draw(state) % n;
}

/* ==== Messages ==== */

static uint64_t tag_of(uint64_t sender, uint64_t count, bool to_all, bool large)
{
    return (sender + 1) << 56 | (uint64_t)large << 49 | (uint64_t)to_all << 48 | count;
}

static uint64_t tag_sender(uint64_t tag)
{
    return (tag >> 56) - 1;
}

static uint64_t tag_count(uint64_t tag)
{
    return tag & 0xFFFFFFFFFFFF;
}

static bool tag_to_all(uint64_t tag)
{
    return tag >> 48 & 1;
}

static bool tag_large(uint64_t tag)
{
    return tag >> 49 & 1;
}

static void message_put(struct message *m, const char *bytes, size_t len)
{
    memcpy(m->body + m->len, bytes, len);
    m->len += len;
}

/* Letters, and from time to time what a server could trip over. */
static void message_fill(struct message *m, uint64_t *random, size_t len, unsigned line_ends)
{
    static const char *const oddities[] = {
        "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xEF\xBB\xBF", "\t",       "\x01",
        ": ",       "id: 7",        "data: x",          "event: gap",   "retry: 1", " "};
    static const char *const ends[] = {"\n", "\r", "\r\n", "\n\n", "\r\r", "\n\r", "\r\n\r\n"};

    while (m->len < len) {
        char run[64];
        size_t n = below(random, sizeof run);
        uint64_t letters = draw(random);
        for (size_t i = 0; i < n; i++)
            run[i] = (char)('a' + (letters >> (i & 31)) % 26);
        message_put(m, run, n < len - m->len ? n : len - m->len);
        if (below(random, 100) < line_ends) {
            const char *end = ends[below(random, sizeof ends / sizeof *ends)];
            message_put(m, end, strlen(end));
        }
        if (below(random, 8) == 0) {
            const char *odd = oddities[below(random, sizeof oddities / sizeof *oddities)];
            message_put(m, odd, strlen(odd));
        }
    }
}

static void message_make(struct message *m, uint64_t tag)
{
    uint64_t random = seed ^ tag, kind = below(&random, 8), size = below(&random, 1000);
    size_t len = (size_t)(size < 700   ? below(&random, 100)
                          : size < 920 ? below(&random, 2000)
                          : size < 985 ? below(&random, 9000)
                                       : below(&random, BODY_BYTES - 4000));
    if (tag_large(tag))
        len = 500 + (size_t)below(&random, 8000);
    m->len = 0;
    m->event[0] = 0;
    if (kind == 0) { /* the event carries the tag, and the body may be anything */
        snprintf(m->event, sizeof m->event, "t%016" PRIx64, tag);
        if (below(&random, 3) == 0)
            return;
    } else {
        char mark[24];
        snprintf(mark, sizeof mark, "%016" PRIx64, tag);
        message_put(m, mark, 16);
        if (kind == 1)
            snprintf(m->event, sizeof m->event, "e%016" PRIx64 " \xC3\xBC+&", tag);
    }
    message_fill(m, &random, len, len < 2000 && below(&random, 4) == 0 ? 90 : 12);
}

/* What a client gets of it: each line end has become a line feed. Returns the length. */
static size_t message_normalise(const struct message *m, char *to)
{
    size_t n = 0;
    for (size_t i = 0; i < m->len; i++) {
        to[n++] = m->body[i] == '\r' ? '\n' : m->body[i];
        if (m->body[i] == '\r' && i + 1 < m->len && m->body[i + 1] == '\n')
            i++;
    }
    return n;
}

/* Bytes of its frame on the wire. */
static size_t message_frame_bytes(const struct message *m, uint64_t epoch, uint64_t seq)
{
    static const char format[] = "id: %" PRIx64 "-%" PRIu64 "\n";
    size_t bytes = (size_t)snprintf(NULL, 0, format, epoch, seq) + strlen("data: \n") + 1;
    if (m->event[0])
        bytes += strlen("event: \n") + strlen(m->event);
    for (size_t i = 0; i < m->len; i++) {
        bool pair = m->body[i] == '\r' && i + 1 < m->len && m->body[i + 1] == '\n';
        bytes += m->body[i] == '\r' || m->body[i] == '\n' ? strlen("data: \n") : 1;
        i += pair;
    }
    return bytes;
}

/* One id is one message, whoever tells. */
static void user_note(struct user *u, uint64_t epoch, uint64_t seq, uint64_t tag, const char *who)
{
    uint64_t was = 0;
    if (!atomic_compare_exchange_strong(&u->epoch, &was, epoch) && was != epoch)
        complain("%s: %s has an id of epoch %" PRIx64 ", before it was %" PRIx64, u->name, who,
                 epoch, was);
    if (!tag)
        return;
    if (seq == 0 || seq >= MESSAGES) {
        complain("%s: %s has the id %" PRIu64, u->name, who, seq);
        return;
    }
    was = 0;
    if (!atomic_compare_exchange_strong(&u->tags[seq], &was, tag) && was != tag)
        complain("%s: message %" PRIu64 " is %016" PRIx64 " for %s, elsewhere %016" PRIx64, u->name,
                 seq, tag, who, was);
}

static void raise_to(_Atomic uint64_t *to, uint64_t value)
{
    uint64_t was = atomic_load(to);
    while (was < value && !atomic_compare_exchange_weak(to, &was, value))
        ;
}

#include "wire.h"

/* ==== Streams ==== */

static int dial(int receive_bytes, int segment_bytes)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((unsigned short)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0)
        fail("no socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_bytes)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
#ifdef TCP_MAXSEG /* makes the server's send buffer small, too */
    if (segment_bytes)
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment_bytes, sizeof segment_bytes);
#endif
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail("cannot connect: %s", strerror(errno));
    if (cert)
        secure(fd);
    return fd;
}

static bool say(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = put(fd, bytes, len);
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

__attribute__((format(printf, 2, 3))) static void chain_complain(struct chain *c,
                                                                 const char *format, ...)
{
    char what[300];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    complain("%s, stream %u, last %" PRIu64 "%s: %s", c->user->name, c->index % 3, c->last,
             c->ask == ASK_FRESH     ? ", opened afresh"
             : c->ask == ASK_UNKNOWN ? ", opened with an unknown id"
                                     : "",
             what);
    c->has_last = c->fell = false; /* it starts anew */
    c->phase = OVER;
}

static void chain_close(struct chain *c, bool reset)
{
    struct linger at_once = {.l_onoff = 1};
    if (reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    hang_up(c->fd);
    c->fd = -1;
    c->phase = CLOSED;
    c->len = 0;
}

/* Asks for the stream: after `last`, or in another way. */
static void chain_open(struct chain *c, enum ask ask)
{
    char query[80] = "", field[96] = "", id[64], request[400];
    uint64_t epoch = atomic_load(&c->user->epoch), way = below(&c->random, 20);
    bool slow = c->index % 3 == 2;

    c->ask = ask;
    c->floor = atomic_load(&c->user->newest);
    c->disconnections = atomic_load(&c->user->answered);
    snprintf(id, sizeof id, "%" PRIx64 "-%" PRIu64, epoch, c->last);
    if (ask == ASK_UNKNOWN) {
        if (way < 7)
            snprintf(id, sizeof id, "%" PRIx64 "-%d", epoch, MESSAGES + 7);
        else if (way < 14)
            snprintf(id, sizeof id, "%" PRIx64 "-%" PRIu64, epoch ^ 1, c->last);
        else
            snprintf(id, sizeof id, "nonsense");
    }
    if (ask != ASK_FRESH && way % 4 == 0)
        snprintf(query, sizeof query, "?lastEventId=%s", id);
    else if (ask != ASK_FRESH)
        snprintf(field, sizeof field, "Last-Event-ID: %s\r\n", id);
    if (field[0] && way % 4 == 1) /* the header counts */
        snprintf(query, sizeof query, "?lastEventId=%" PRIx64 "-1", epoch);
    snprintf(request, sizeof request, "GET /sse/connect/%s%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n",
             c->user->name, query, field);
    c->fd = dial(slow ? 4096 : 0, slow || c->index % 6 == 1 ? 536 : 0);
    if (!say(c->fd, request, strlen(request)))
        fail("cannot ask for a stream: %s", strerror(errno));
    c->phase = HEAD;
    c->len = 0;
    atomic_fetch_add(&counts.resumes, ask == ASK_LAST);
}

static bool id_read(const char *at, size_t len, uint64_t *epoch, uint64_t *seq)
{
    char text[48], again[48];
    if (len >= sizeof text)
        return false;
    memcpy(text, at, len);
    text[len] = 0;
    if (sscanf(text, "%" SCNx64 "-%" SCNu64, epoch, seq) != 2)
        return false;
    snprintf(again, sizeof again, "%" PRIx64 "-%" PRIu64, *epoch, *seq);
    return strcmp(text, again) == 0;
}

/* Takes a block apart, line by line. What no client would understand is false. */
static bool block_read(struct block *b, const char *at, size_t len)
{
    b->has_id = b->has_data = b->has_retry = false;
    b->len = 0;
    b->event[0] = 0;
    while (len > 0) {
        const char *end = memchr(at, '\n', len), *colon;
        size_t line = end ? (size_t)(end - at) : len;
        if (memchr(at, '\r', line) || !(colon = memchr(at, ':', line)) || colon[1] != ' ')
            return false;
        const char *value = colon + 2;
        size_t name = (size_t)(colon - at), n = line - name - 2;
        if (name == 4 && memcmp(at, "data", 4) == 0) {
            if (b->has_data)
                b->data[b->len++] = '\n';
            memcpy(b->data + b->len, value, n);
            b->len += n;
            b->has_data = true;
        } else if (name == 2 && memcmp(at, "id", 2) == 0) {
            if (b->has_id || !id_read(value, n, &b->epoch, &b->seq))
                return false;
            b->has_id = true;
        } else if (name == 5 && memcmp(at, "event", 5) == 0) {
            if (b->event[0] || n >= sizeof b->event)
                return false;
            memcpy(b->event, value, n);
            b->event[n] = 0;
        } else if (name == 5 && memcmp(at, "retry", 5) == 0) {
            b->has_retry = true;
            b->retry = strtoull(value, NULL, 10);
        } else {
            return false;
        }
        at += line + (end != NULL);
        len -= line + (end != NULL);
    }
    return true;
}

static bool block_says(const struct block *b, const char *event, const char *data)
{
    return b->has_data && !b->has_id && !b->has_retry && strcmp(b->event, event) == 0 &&
           b->len == strlen(data) && memcmp(b->data, data, b->len) == 0;
}

static bool block_is_beat(const struct block *b)
{
    return block_says(b, "", "<3: Keep alive");
}

/* The first block may be a gap; the greeting follows. */
static void chain_gap(struct chain *c, const struct block *b)
{
    char words[40];

    c->null_gap = block_says(b, "gap", "{\"missed\":null}");
    if (c->null_gap) {
        atomic_fetch_add(&counts.nulls, 1);
        return;
    }
    memcpy(words, b->data, b->len < 39 ? b->len : 39);
    words[b->len < 39 ? b->len : 39] = 0;
    if (sscanf(words, "{\"missed\":%" SCNu64, &c->missed) != 1 || c->missed == 0)
        chain_complain(c, "not a gap: %s", words);
    snprintf(words, sizeof words, "{\"missed\":%" PRIu64 "}", c->missed);
    if (!block_says(b, "gap", words))
        chain_complain(c, "not a gap: %.*s", (int)(b->len < 99 ? b->len : 99), b->data);
    atomic_fetch_add(&counts.gaps, 1);
    atomic_fetch_add(&counts.missed, c->missed);
}

/* A gap must have come where one is due, and none where none is. */
static void chain_greeting(struct chain *c, const struct block *b)
{
    char words[40];
    snprintf(words, sizeof words, "User '%s' connected", c->user->name);
    if (!b->has_id || !b->has_retry || b->retry != 2000 || b->event[0] || b->len != strlen(words) ||
        memcmp(b->data, words, b->len)) {
        chain_complain(c, "not a greeting: %.*s", (int)(b->len < 99 ? b->len : 99), b->data);
        return;
    }
    user_note(c->user, b->epoch, b->seq, 0, "a greeting");
    c->greeting = b->seq;
    c->phase = BEAT;
    if (c->ask == ASK_UNKNOWN && !c->null_gap)
        chain_complain(c, "no gap with null");
    else if (c->ask != ASK_UNKNOWN && c->null_gap)
        chain_complain(c, "a gap with null, though its id is known");
    else if (c->ask == ASK_UNKNOWN)
        memset(c->last_of, 0, sizeof c->last_of); /* history comes once more */
    else if (c->ask == ASK_LAST && b->seq < c->last)
        chain_complain(c, "resumed after %" PRIu64 ", so messages come twice", b->seq);
    else if (c->ask == ASK_LAST && c->fell && b->seq == c->last)
        chain_complain(c,
                       "the stream before was closed though it had not fallen out of the log (%s, "
                       "after the client had not read for %.1f s)",
                       c->how, c->paused_s);
    else if (c->ask == ASK_LAST && c->last + c->missed != b->seq)
        chain_complain(c, "gap of %" PRIu64 ", but it goes on after %" PRIu64, c->missed, b->seq);
    else if (c->ask == ASK_FRESH && b->seq - c->missed < c->floor)
        chain_complain(c, "goes on after %" PRIu64 ", but a stream already had %" PRIu64,
                       b->seq - c->missed, c->floor);
    if (c->phase != BEAT)
        return;
    c->last = b->seq;
    atomic_store(&c->reached, c->last); /* opened afresh, it may begin at the newest already */
    c->has_last = true;
    c->fell = false;
}

static void chain_message(struct chain *c, struct reader *r)
{
    struct block *b = &r->block;
    uint64_t tag;
    char mark[17] = "", *end;

    if (!b->has_id || !b->has_data || b->has_retry) {
        chain_complain(c, "unexpected block, event '%.70s', data: %.*s", b->event,
                       (int)(b->len < 99 ? b->len : 99), b->data);
        return;
    }
    if (b->event[0] == 't')
        memcpy(mark, b->event + 1, 16);
    else if (b->len >= 16)
        memcpy(mark, b->data, 16);
    tag = strtoull(mark, &end, 16);
    if (end != mark + 16 || tag_sender(tag) > SENDERS) {
        chain_complain(c, "message %" PRIu64 " has no tag: %s", b->seq, mark);
        return;
    }
    if (b->seq != c->last + 1) {
        chain_complain(c, "message %" PRIu64 " comes next", b->seq);
        return;
    }
    message_make(&r->wanted, tag);
    static _Thread_local char data[BODY_BYTES + 128];
    size_t len = message_normalise(&r->wanted, data);
    if (strcmp(b->event, r->wanted.event) != 0 || b->len != len || memcmp(b->data, data, len)) {
        size_t at = 0;
        while (at < len && at < b->len && b->data[at] == data[at])
            at++;
        chain_complain(c, "message %" PRIu64 " of %zu bytes has %zu and differs from byte %zu on",
                       b->seq, len, b->len, at);
        return;
    }
    if (tag_count(tag) <= c->last_of[tag_sender(tag)])
        chain_complain(c, "message %" PRIu64 " is number %" PRIu64 " of its sender, after %" PRIu64,
                       b->seq, tag_count(tag), c->last_of[tag_sender(tag)]);
    c->last_of[tag_sender(tag)] = tag_count(tag);
    user_note(c->user, b->epoch, b->seq, tag, "a stream");
    raise_to(&c->user->newest, b->seq);
    c->last = b->seq;
    atomic_store(&c->reached, c->last);
    atomic_fetch_add(&counts.deliveries, 1);
}

static void chain_block(struct chain *c, struct reader *r, const char *at, size_t len)
{
    struct block *b = &r->block;
    char words[40];

    snprintf(words, sizeof words, "User '%s' disconnected", c->user->name);
    if (!block_read(b, at, len)) {
        chain_complain(c, "cannot read: %.*s", (int)(len < 150 ? len : 150), at);
    } else if (c->phase == FIRST && strcmp(b->event, "gap") == 0) {
        c->phase = GREETING;
        chain_gap(c, b);
    } else if (c->phase == FIRST || c->phase == GREETING) {
        chain_greeting(c, b);
    } else if (c->phase == BEAT) {
        c->phase = OPEN;
        if (!block_is_beat(b))
            chain_complain(c, "no keep-alive after the greeting");
        else
            atomic_store(&c->ready, true);
    } else if (c->phase == OVER) {
        chain_complain(c, "goes on after its end: %.*s", (int)(len < 150 ? len : 150), at);
    } else if (block_is_beat(b)) {
        atomic_fetch_add(&counts.beats, 1);
    } else if (block_says(b, "disconnected", words)) {
        c->phase = OVER;
        atomic_fetch_add(&counts.told, 1);
        if (atomic_load(&c->user->disconnections) == c->disconnections)
            chain_complain(c, "disconnected, but nobody asked for that");
    } else {
        chain_message(c, r);
    }
}

/* What the server says when it stops: one line, and no empty line after it. */
static void chain_retry(struct chain *c)
{
    uint64_t retry;
    int used = 0;

    c->bytes[c->len] = 0;
    if (sscanf(c->bytes, "retry: %" SCNu64 "%n", &retry, &used) != 1 ||
        c->len != (size_t)used + 1 || c->bytes[used] != '\n')
        return;
    c->phase = OVER;
    if (!atomic_load(&stopping) || retry < 2000 || retry > 10000)
        chain_complain(c, "told to retry in %" PRIu64 " ms", retry);
}

/* The server has closed. What it had not finished saying does not count. */
static void chain_ended(struct chain *c, const char *how)
{
    bool asked_for = atomic_load(&c->user->disconnections) != c->disconnections;

    if (c->phase == OPEN)
        chain_retry(c);
    if (c->phase == HEAD) {
        chain_complain(c, "closed without an answer");
    } else if (c->phase != OVER && atomic_load(&stopping)) {
        if (atomic_load(&settled)) /* else it may have been closed before */
            chain_complain(c, "closed without a word when the server stopped");
    } else if (c->phase != OVER && asked_for) {
        atomic_fetch_add(&counts.cut,
                         1); /* its farewell was given up: it may or may not be whole */
    } else if (c->phase != OVER) {
        atomic_fetch_add(&counts.fell, 1);
        c->fell = c->has_last;
        c->how = how;
    }
    chain_close(c, false);
}

/* Finds the head of the answer. False if it is not there yet, or not one of a stream. */
static bool chain_head(struct chain *c, size_t *from)
{
    c->bytes[c->len] = 0;
    char *end = strstr(c->bytes, "\r\n\r\n");
    if (!end)
        return false;
    *end = 0;
    if (strncmp(c->bytes, "HTTP/1.1 429 ", 13) == 0) { /* closed ones are noticed soon */
        atomic_fetch_add(&counts.refusals, 1);
        chain_close(c, false);
        c->idle_until = now_s() + 0.1;
        return false;
    }
    if (strncmp(c->bytes, "HTTP/1.1 200 ", 13) != 0 || strstr(c->bytes, "ransfer-") ||
        !strstr(c->bytes, "text/event-stream"))
        chain_complain(c, "not a stream: %.200s", c->bytes);
    else
        c->phase = FIRST;
    c->null_gap = false;
    c->missed = 0;
    *from = (size_t)(end + 4 - c->bytes);
    return c->phase == FIRST;
}

/* Reads once, up to so many bytes, and takes all whole blocks. */
static void chain_read(struct chain *c, struct reader *r, size_t most)
{
    size_t room = sizeof c->bytes - 1 - c->len, from = 0;
    ssize_t n = get(c->fd, c->bytes + c->len, most < room ? most : room, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        chain_ended(c, n < 0 ? strerror(errno) : "end of stream");
        return;
    }
    size_t scan = c->len ? c->len - 1 : 0;
    double now = now_s();
    if (now - c->read_at > 0.1)
        c->paused_s = now - c->read_at;
    c->read_at = now;
    c->len += (size_t)n;
    if (c->phase == HEAD) {
        if (!chain_head(c, &from))
            return;
        scan = from;
    }
    while (c->fd >= 0 && scan < c->len) {
        const char *end = memchr(c->bytes + scan, '\n', c->len - scan);
        if (!end || (size_t)(end - c->bytes) + 1 == c->len)
            break;
        scan = (size_t)(end - c->bytes) + 1;
        if (end[1] != '\n')
            continue;
        bool was_over = c->phase == OVER;
        chain_block(c, r, c->bytes + from, scan - from);
        scan = from = scan + 1;
        if (c->phase == OVER && !c->has_last) { /* it had cause for complaint */
            chain_close(c, true);
            return;
        }
        if (was_over)
            break;
    }
    c->len -= from;
    memmove(c->bytes, c->bytes + from, c->len);
    if (c->len == sizeof c->bytes - 1) {
        chain_complain(c, "a block without an end");
        chain_close(c, true);
    }
}

/* Pauses, closes or resets, each stream in its manner: the first of each user only reads, the
 * second is restless, the third is slow. */
static void chain_whim(struct chain *c, double now)
{
    static const double pauses[] = {0.05, 0.3, 2.0, 6.0};
    uint64_t what = below(&c->random, 100), manner = c->index % 3;

    c->act_at = now + 0.001 * (double)below(&c->random, manner == 1 ? 500 : 300);
    if (manner == 0)
        return;
    if (what < (manner == 1 ? 45 : 5)) {
        bool reset = below(&c->random, 2);
        atomic_fetch_add(reset ? &counts.resets : &counts.closes, 1);
        chain_close(c, reset);
        c->idle_until = now + 0.001 * (double)below(&c->random, 300);
    } else if (what < 90) {
        double most = pauses[below(&c->random, 4)];
        c->idle_until = now + most * (double)below(&c->random, 1000) / 1000;
        atomic_fetch_add(&counts.pauses, 1);
    }
}

static enum ask chain_wish(struct chain *c)
{
    uint64_t what = below(&c->random, 100);
    if (!c->has_last)
        return ASK_FRESH;
    if (c->fell || atomic_load(&draining) || what < 94)
        return ASK_LAST;
    return what < 97 ? ASK_FRESH : ASK_UNKNOWN;
}

static void *reader_thread(void *arg)
{
    struct reader *r = arg;
    double stop_by = 0;

    for (;;) {
        struct pollfd polled[CHAINS];
        struct chain *of[CHAINS];
        nfds_t n = 0;
        double now = now_s();
        bool calm = atomic_load(&draining), ending = atomic_load(&stopping);

        if (ending && stop_by == 0)
            stop_by = now + 8;
        for (unsigned i = r->number; i < CHAINS; i += READERS) {
            struct chain *c = &chains[i];
            if (!calm && c->fd >= 0 && c->phase == OPEN && now >= c->act_at && now >= c->idle_until)
                chain_whim(c, now);
            if (!calm && now < c->idle_until)
                continue;
            if (c->fd < 0 && !ending)
                chain_open(c, chain_wish(c));
            if (c->fd < 0)
                continue;
            of[n] = c;
            polled[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
        }
        if (ending && (n == 0 || now > stop_by)) {
            for (nfds_t i = 0; i < n; i++)
                chain_complain(of[i], "still open long after SIGTERM");
            return NULL;
        }
        bool pending = false;
        for (nfds_t i = 0; i < n; i++)
            pending |= is_pending(of[i]->fd);
        if (poll(polled, n, pending ? 0 : 5) <= 0 && !pending)
            continue;
        for (nfds_t i = 0; i < n; i++) {
            struct chain *c = of[i];
            uint64_t small = below(&c->random, 4);
            if (polled[i].revents || is_pending(c->fd))
                chain_read(c, r, c->index % 3 && small == 0 ? 1 + below(&c->random, 700) : 65536);
        }
    }
}

/* ==== Senders ==== */

/* Something asked for in a burst, whose answer is still to come. */
struct errand {
    enum { SEND, BROADCAST, DISCONNECT } kind;
    struct user *user;
    uint64_t tag;
};

static size_t put_event(char *to, const char *event)
{
    size_t n = 0;
    if (*event)
        n += (size_t)sprintf(to, "?event=");
    for (; *event; event++)
        n += (size_t)sprintf(to + n, *event == ' ' ? "+" : "%%%02X", (unsigned char)*event);
    return n;
}

/* The body with its length, or in chunks. */
static size_t put_body(char *to, const struct message *m, uint64_t *random)
{
    size_t n = 0, done = 0;
    if (below(random, 6)) {
        n = (size_t)sprintf(to, "Content-Length: %zu\r\n\r\n", m->len);
        memcpy(to + n, m->body, m->len);
        return n + m->len;
    }
    n = (size_t)sprintf(to, "Transfer-Encoding: chunked\r\n\r\n");
    while (done < m->len) {
        size_t chunk = 1 + below(random, m->len / 4 + 40);
        chunk = chunk < m->len - done ? chunk : m->len - done;
        n += (size_t)sprintf(to + n, "%zx\r\n", chunk);
        memcpy(to + n, m->body + done, chunk);
        n += chunk + (size_t)sprintf(to + n + chunk, "\r\n");
        done += chunk;
    }
    return n + (size_t)sprintf(to + n, "0\r\n\r\n");
}

static size_t put_errand(char *to, struct sender *s, struct errand *e, struct message *m)
{
    double now = now_s();
    bool quiet = false;
    size_t n;

    e->kind = SEND;
    e->user = &users[below(&s->random, below(&s->random, 2) ? HOT_USERS : USERS - QUIET_USERS)];
    if (now >= s->disconnect_at) {
        e->kind = DISCONNECT;
        e->user = &users[below(&s->random, USERS)];
        s->disconnect_at = now + 0.001 * (double)below(&s->random, 2000);
    } else if (now >= s->broadcast_at) {
        e->kind = BROADCAST;
        s->broadcast_at = now + 0.001 * (double)below(&s->random, 1000);
    } else if (now >= s->quiet_at) {
        quiet = true;
        e->user = &users[USERS - 1 - below(&s->random, QUIET_USERS)];
        s->quiet_at = now + 0.001 * (double)below(&s->random, 100);
    }
    if (e->kind == DISCONNECT) {
        atomic_fetch_add(&e->user->disconnections, 1);
        return (size_t)sprintf(to,
                               "POST /sse/disconnect/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                               "Content-Length: 0\r\n\r\n",
                               e->user->name);
    }
    e->tag = tag_of(s->number, ++s->count, e->kind == BROADCAST, quiet);
    message_make(m, e->tag);
    if (e->kind == SEND)
        n = (size_t)sprintf(to, "POST /sse/send/%s", e->user->name);
    else
        n = (size_t)sprintf(to, "POST /sse/broadcast");
    n += put_event(to + n, m->event);
    n += (size_t)sprintf(to + n, " HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    atomic_fetch_add(&counts.bytes, m->len);
    return n + put_body(to + n, m, &s->random);
}

/* Waits for one whole answer; it stays at the front of s->answers. Returns its status. */
static int sender_hear(struct sender *s, char **body, size_t *whole)
{
    for (;;) {
        s->answers[s->answers_len] = 0;
        char *end = strstr(s->answers, "\r\n\r\n");
        char *length = end ? strstr(s->answers, "Content-Length: ") : NULL;
        if (length && length < end) {
            *body = end + 4;
            *whole = (size_t)(*body - s->answers) + strtoul(length + 16, NULL, 10);
            if (*whole <= s->answers_len)
                return atoi(s->answers + 9);
        }
        size_t room = ANSWER_BYTES - 1 - s->answers_len;
        ssize_t n = room ? get(s->fd, s->answers + s->answers_len, room, 0) : 0;
        if (n <= 0)
            fail("sender %" PRIu64 ": no answer, but: %.300s", s->number, s->answers);
        s->answers_len += (size_t)n;
    }
}

static void sender_receipt(struct sender *s, const struct errand *e)
{
    char *body, copy[300], user[16], status[16], id[48];
    size_t whole;
    uint64_t epoch, seq;
    unsigned count, streams, delivered;
    int code = sender_hear(s, &body, &whole);

    snprintf(copy, sizeof copy, "%.*s", (int)(whole - (size_t)(body - s->answers)), body);
    s->answers_len -= whole;
    memmove(s->answers, s->answers + whole, s->answers_len);
    if (e->kind == DISCONNECT)
        atomic_fetch_add(&e->user->answered, 1);
    if (code != (e->kind == DISCONNECT ? 200 : 202)) {
        complain("%s: answered %d: %.250s", e->user->name, code, copy);
    } else if (e->kind == BROADCAST) {
        atomic_fetch_add(&broadcasts, 1);
        atomic_fetch_add(&counts.sends, 1);
        if (sscanf(copy, "{\"users\":%u,\"streams\":%u,\"delivered\":%u}", &count, &streams,
                   &delivered) != 3 ||
            count != USERS || streams > USERS * MAX_STREAMS || delivered > streams)
            complain("receipt of a broadcast: %s", copy);
    } else if (e->kind == SEND) {
        atomic_fetch_add(&counts.sends, 1);
        atomic_fetch_add(&e->user->receipts, 1);
        if (sscanf(copy,
                   "{\"id\":\"%47[^\"]\",\"user\":\"%15[^\"]\",\"status\":\"%15[^\"]\","
                   "\"streams\":%u,\"delivered\":%u}",
                   id, user, status, &streams, &delivered) != 5 ||
            !id_read(id, strlen(id), &epoch, &seq) || strcmp(user, e->user->name) != 0 ||
            strcmp(status, streams ? "Connected" : "Disconnected") != 0 || streams > MAX_STREAMS ||
            delivered > streams) {
            complain("receipt: %s", copy);
            return;
        }
        uint64_t *before = &s->seqs[e->user - users];
        if (seq <= *before)
            complain("%s: a sender's receipt has %" PRIu64 " after %" PRIu64, e->user->name, seq,
                     *before);
        *before = seq;
        user_note(e->user, epoch, seq, e->tag, "a receipt");
        if (seq > MESSAGES - 4096)
            atomic_store(&sending, false); /* no more can be kept account of */
    }
}

static void *sender_thread(void *arg)
{
    struct sender *s = arg;
    struct message *m = malloc(sizeof *m);
    struct errand errands[BURST];

    s->requests = malloc((size_t)BURST * REQUEST_BYTES);
    s->answers = malloc(ANSWER_BYTES);
    if (!m || !s->requests || !s->answers)
        fail("not enough memory");
    s->fd = dial(0, 0);
    while (atomic_load(&sending)) {
        unsigned n = below(&s->random, 2) ? 1 : 1 + (unsigned)below(&s->random, BURST);
        size_t len = 0, done = 0;
        for (unsigned i = 0; i < n; i++)
            len += put_errand(s->requests + len, s, &errands[i], m);
        while (done < len) { /* sometimes in pieces */
            size_t piece = below(&s->random, 4) ? len - done : 1 + below(&s->random, len - done);
            if (!say(s->fd, s->requests + done, piece))
                fail("sender %" PRIu64 ": cannot send: %s", s->number, strerror(errno));
            done += piece;
        }
        for (unsigned i = 0; i < n; i++)
            sender_receipt(s, &errands[i]);
        if (below(&s->random, 100) == 0) {
            hang_up(s->fd);
            s->fd = dial(0, 0);
        }
        uint64_t pause = below(&s->random, 64);
        if (pause < 20)
            rest((double)below(&s->random, pause == 0 ? 100000 : 2000) / 1e6);
    }
    hang_up(s->fd);
    free(s->requests);
    free(s->answers);
    free(m);
    return NULL;
}

/* ==== The end ==== */

/* How many ids the user's messages took. */
static uint64_t user_total(const struct user *u)
{
    return atomic_load(&u->receipts) + atomic_load(&broadcasts);
}

/* All streams must reach the newest message. */
static void drain(void)
{
    double until = now_s() + PATIENCE_S;
    atomic_store(&draining, true);
    for (unsigned i = 0; i < CHAINS && atomic_load(&complaints) == 0; i++) {
        struct chain *c = &chains[i];
        uint64_t total = user_total(c->user), reached;
        while ((reached = atomic_load(&c->reached)) < total && now_s() < until &&
               atomic_load(&complaints) == 0)
            rest(0.002);
        if (reached < total && atomic_load(&complaints) == 0)
            complain("%s, stream %u: has %" PRIu64 " of %" PRIu64 " messages at the end",
                     c->user->name, i % 3, reached, total);
    }
}

/* Was every message taken once? Those that nobody ever saw can only be broadcasts. */
static void take_stock(const struct user *u)
{
    uint64_t total = user_total(u), to_all = 0, unseen = 0;
    for (uint64_t seq = 1; seq <= total && seq < MESSAGES; seq++) {
        uint64_t tag = atomic_load(&u->tags[seq]);
        unseen += tag == 0;
        to_all += tag != 0 && tag_to_all(tag);
    }
    if (to_all + unseen != atomic_load(&broadcasts))
        complain("%s: of %" PRIu64 " broadcasts, %" PRIu64 " have an id, and %" PRIu64
                 " ids are of messages nobody knows",
                 u->name, atomic_load(&broadcasts), to_all, unseen);
    atomic_fetch_add(&counts.unclear, unseen);
    if (total + 1 < MESSAGES && atomic_load(&u->tags[total + 1]))
        complain("%s: an id above the number of messages, %" PRIu64, u->name, total);
}

/* Number of the oldest message that the history's bounds leave; 0 if that cannot be told. */
static uint64_t user_first(const struct user *u, struct message *m)
{
    uint64_t total = user_total(u), first = total + 1, bytes = 0;
    while (first > 1 && total + 1 - first < HISTORY) {
        uint64_t tag = atomic_load(&u->tags[first - 1]);
        if (!tag)
            return 0;
        message_make(m, tag);
        bytes += message_frame_bytes(m, atomic_load(&u->epoch), first - 1);
        if (bytes > HISTORY_BYTES)
            break;
        first--;
    }
    return first;
}

/* Opens one more stream, and reads until it has all. */
static void probe(struct chain *c, struct reader *r, enum ask ask, uint64_t last, uint64_t wanted)
{
    double until = now_s() + PATIENCE_S;
    uint64_t total = user_total(c->user);

    c->last = last;
    c->has_last = ask == ASK_LAST;
    memset(c->last_of, 0, sizeof c->last_of);
    do {
        c->idle_until = 0;
        chain_open(c, ask);
        while (c->fd >= 0 && (c->phase != OPEN || c->last < total) && now_s() < until) {
            struct pollfd p = {.fd = c->fd, .events = POLLIN};
            if (is_pending(c->fd) || poll(&p, 1, 100) == 1)
                chain_read(c, r, 65536);
        }
        if (c->idle_until > 0)
            rest(0.1); /* it was one stream too many */
    } while (c->idle_until > 0 && now_s() < until);
    if (c->fd >= 0 && c->last != total)
        chain_complain(c, "a probe waited in vain for %" PRIu64, total);
    else if (c->fd >= 0 && c->greeting != wanted)
        chain_complain(c,
                       "asked for what follows %" PRIu64 ", it goes on after %" PRIu64
                       ", though the history goes back to %" PRIu64,
                       last, c->greeting, wanted + 1);
    if (c->fd >= 0)
        chain_close(c, true);
}

/* Is the history as long as its bounds allow, and each gap as long as it must be? */
static void probe_all(struct reader *r)
{
    struct chain *c = calloc(1, sizeof *c);
    uint64_t random = seed;

    for (unsigned i = 0; c && i < USERS && atomic_load(&complaints) == 0; i++) {
        uint64_t first = user_first(&users[i], &r->wanted);
        c->user = &users[i];
        c->fd = -1;
        c->random = draw(&random);
        if (first < 3)
            continue;
        probe(c, r, ASK_UNKNOWN, 1, first - 1);
        probe(c, r, ASK_LAST, first - 1, first - 1);
        probe(c, r, ASK_LAST, first - 2, first - 1);
        probe(c, r, ASK_LAST, below(&random, first - 1), first - 1);
    }
    free(c);
}

/* Starts the server and waits for its ready line. */
static void server_start(const char *program)
{
    char history[16], bytes[16], streams[16], line[128] = "";
    int ends[2];

    snprintf(history, sizeof history, "%d", HISTORY);
    snprintf(bytes, sizeof bytes, "%d", HISTORY_BYTES);
    snprintf(streams, sizeof streams, "%d", MAX_STREAMS);
    if (pipe(ends) != 0 || (server = fork()) < 0)
        fail("cannot start anything: %s", strerror(errno));
    if (server == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "-q", "-p", "0", "--history", history, "--history-bytes", bytes,
              "--max-streams", streams, "--max-users", "64", "--max-connections", "512",
              "--heartbeat", "1", cert ? "--cert" : (char *)NULL, cert, "--key", key, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], line, sizeof line - 1);
    close(ends[0]);
    char *colon = n > 0 ? strrchr(line, ':') : NULL;
    if (!colon)
        fail("%s did not say where it listens", program);
    port = atoi(colon + 1);
}

static void server_stop(void)
{
    double until = now_s() + 15;
    int status;
    pid_t ended;

    atomic_store(&stopping, true);
    kill(server, SIGTERM);
    while ((ended = waitpid(server, &status, WNOHANG)) == 0 && now_s() < until)
        rest(0.01);
    if (ended == 0) {
        complain("the server did not stop");
        kill(server, SIGKILL);
        waitpid(server, &status, 0);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        complain("the server ended with %s %d", WIFEXITED(status) ? "status" : "signal",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    }
    server = -1;
}

static void prepare(void)
{
    uint64_t random = seed;
    chains = calloc(CHAINS, sizeof *chains);
    for (unsigned i = 0; i < USERS; i++) {
        snprintf(users[i].name, sizeof users[i].name, "u%u", i);
        users[i].tags = calloc(MESSAGES, sizeof *users[i].tags);
        if (!users[i].tags || !chains)
            fail("not enough memory");
    }
    for (unsigned i = 0; i < CHAINS; i++) {
        chains[i].user = &users[i / 3];
        chains[i].index = i;
        chains[i].fd = -1;
        chains[i].random = draw(&random);
    }
}

static void report(void)
{
#define SHOW(name) #name " %" PRIu64 ", "
    printf(SHOW(sends) SHOW(bytes) SHOW(deliveries) "keep-alives %" PRIu64 "\n", counts.sends,
           counts.bytes, counts.deliveries, counts.beats);
    printf(SHOW(resumes) SHOW(gaps) SHOW(missed) "gaps of null %" PRIu64 "\n", counts.resumes,
           counts.gaps, counts.missed, counts.nulls);
    printf(SHOW(closes) SHOW(resets)
               SHOW(pauses) "closed for falling out %" PRIu64 ", disconnected %" PRIu64 " (%" PRIu64
                            " before the farewell), refused %" PRIu64 ", ids nobody saw %" PRIu64
                            "\n",
           counts.closes, counts.resets, counts.pauses, counts.fell, counts.told, counts.cut,
           counts.refusals, counts.unclear);
#undef SHOW
}

int main(int argc, char **argv)
{
    static struct reader readers[READERS], prober;
    static struct sender senders[SENDERS];
    pthread_t reading[READERS], publishing[SENDERS];
    double seconds = argc > 2 ? atof(argv[2]) : 10, until;

    if (argc < 2 || seconds <= 0)
        fail("usage: torture ./sse [SECONDS [SEED [CERT KEY]]]");
    seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    if (seed == 0)
        seed = (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
    if (argc > 5) {
        cert = argv[4];
        key = argv[5];
    }
    signal(SIGPIPE, SIG_IGN);
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    prepare();
    server_start(argv[1]);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i].number = i;
        if (pthread_create(&reading[i], NULL, reader_thread, &readers[i]) != 0)
            fail("cannot start a thread");
    }
    until = now_s() + PATIENCE_S;
    for (unsigned i = 0; i < CHAINS; i++) /* so that all users are known */
        while (!atomic_load(&chains[i].ready) && now_s() < until)
            rest(0.002);
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i].number = i;
        senders[i].random = seed + 1 + i;
        if (pthread_create(&publishing[i], NULL, sender_thread, &senders[i]) != 0)
            fail("cannot start a thread");
    }
    until = now_s() + seconds;
    while (now_s() < until && atomic_load(&sending))
        rest(0.02);
    atomic_store(&sending, false);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(publishing[i], NULL);
    drain();
    for (unsigned i = 0; i < USERS && atomic_load(&complaints) == 0; i++)
        take_stock(&users[i]);
    atomic_store(&settled, atomic_load(&complaints) == 0);
    probe_all(&prober);
    server_stop();
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(reading[i], NULL);
    report();
    for (unsigned i = 0; i < USERS; i++)
        free(users[i].tags);
    free(chains);
    if (atomic_load(&complaints) > 0)
        fail("%u violations, seed %" PRIu64, atomic_load(&complaints), seed);
    printf("torture: ok\n");
    return 0;
}
