/* skeleton - what a thread per connection costs at least, for tests/bench.c to measure against.
 *
 *     PORT=8000 CONNECTIONS=20000 [BATCH=1] [FAULT=...] build/peers/skeleton
 *
 * GET /sse/connect/USER and POST /sse/send/USER on 127.0.0.1, and next to nothing besides: one
 * recv() for what has come, one send() for each message and stream, one send() for all answers.
 * With BATCH=1, the messages of one recv() go out with one send() for each stream: that is what
 * many messages to one user with many streams cost at least.
 *
 * No example of a safe server. It believes what it reads: requests must be as bench.c writes them,
 * with bodies of one line. A reader that does not read holds up its user's senders for good. It
 * has no history, no timeouts, no TLS and no orderly end.
 *
 * FAULT makes it faulty on purpose, to prove bench.c on it. Of all messages, every 1000th is lost
 * (FAULT=lose), doubled (twice), put after the user's next one (swap), altered by a byte (alter),
 * given to another user, if there are two (wrong), or answered with 500 instead of being sent
 * (refuse); or before it one of the user's streams is closed (close). */

#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    STACK_BYTES = 64 * 1024,
    REQUEST_BYTES = 8 * 1024, /* that one recv() takes at most */
    REQUESTS = 256,           /* that can be in them: each has 32 bytes and more */
    FRAME_BYTES = 1024,       /* of one message as a stream gets it, and so of one body */
    FRAMES_BYTES = 8 * FRAME_BYTES,
    NAME_BYTES = 32
};

#define GREETING "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n"
#define TAKEN    "HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n{\"taken\": true}\n"
#define REFUSED  "HTTP/1.1 500 As FAULT says\r\nContent-Length: 0\r\n\r\n"

struct stream {
    int fd;
    struct stream *next; /* of the same user */
};

struct user {
    atomic_bool used;
    char name[NAME_BYTES]; /* never changes once it is used */
    pthread_mutex_t lock;  /* over what follows, and over writing to the streams */
    struct stream *streams;
    unsigned long seq;
    char *frames, *held; /* messages to be written; with FAULT=swap, one that has to wait */
    size_t frames_len, held_len;
};

/* What a connection works with. It lives on the stack of its thread, and what is not used of it is
 * never touched. */
struct connection {
    int fd;
    size_t len, answers_len;
    unsigned touched_len;
    char requests[REQUEST_BYTES + 1]; /* NUL-terminated */
    char answers[REQUESTS * sizeof TAKEN];
    struct user *touched[REQUESTS]; /* with BATCH: whose frames are to be written */
};

static struct stream *streams; /* by descriptor */
static struct user *users;     /* a hash table with open addressing; none is ever removed */
static size_t users_mask;
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;
static bool batch;
static char fault;            /* its first letter */
static atomic_ulong messages; /* counted with FAULT only */

static void fail(const char *what)
{
    fprintf(stderr, "skeleton: %s\n", what);
    exit(1);
}

static void send_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the thread that reads from it will notice */
        text += n;
        len -= (size_t)n;
    }
}

/* ---- Users ------------------------------------------------------------------------------------- */

/* Finds the user, or adds it; NULL if the table is full. */
static struct user *user_get(const char *name, size_t len)
{
    size_t hash = 2166136261; /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619;
    for (size_t i = 0; i <= users_mask; i++) {
        struct user *user = &users[(hash + i) & users_mask];
        if (!atomic_load(&user->used)) {
            pthread_mutex_lock(&adding);
            if (!atomic_load(&user->used))
                memcpy(user->name, name, len);
            atomic_store(&user->used, true);
            pthread_mutex_unlock(&adding);
        }
        if (memcmp(user->name, name, len) == 0 && !user->name[len])
            return user;
    }
    return NULL;
}

/* Writes the user's frames to all its streams; the lock must be held. */
static void user_flush(struct user *user)
{
    for (const struct stream *s = user->streams; s; s = s->next)
        send_all(s->fd, user->frames, user->frames_len);
    user->frames_len = 0;
}

/* ---- Messages ---------------------------------------------------------------------------------- */

static char *put(char *to, const char *text, size_t len)
{
    memcpy(to, text, len);
    return to + len;
}

static size_t put_frame(char *frame, unsigned long seq, const char *body, size_t len)
{
    char digits[24], *at = digits + sizeof digits, *end;

    do
        *--at = (char)('0' + seq % 10);
    while (seq /= 10);
    end = put(frame, "id: ", 4);
    end = put(end, at, (size_t)(digits + sizeof digits - at));
    end = put(end, "\ndata: ", 7);
    end = put(end, body, len);
    end = put(end, "\n\n", 2);
    return (size_t)(end - frame);
}

/* What FAULT makes of a frame that goes wrong; returns its new length. */
static size_t spoil_frame(struct user *user, char *frame, size_t len)
{
    if (fault == 't')
        put(frame + len, frame, len);
    if (fault == 'a')
        frame[len - 3] ^= 1; /* the last byte of its body */
    if (fault == 'c' && user->streams)
        shutdown(user->streams->fd, SHUT_RDWR);
    if (fault == 's' && user->held_len == 0) {
        put(user->held, frame, len);
        user->held_len = len;
        return 0;
    }
    return fault == 'l' ? 0 : fault == 't' ? 2 * len : len;
}

/* Appends the message to the user's frames; the lock must be held. */
static void user_append(struct user *user, const char *body, size_t len, bool spoilt)
{
    if (!user->frames && !(user->frames = malloc(FRAMES_BYTES + FRAME_BYTES)))
        fail("not enough memory");
    if (FRAMES_BYTES - user->frames_len < (size_t)2 * FRAME_BYTES)
        user_flush(user);
    char *frame = user->frames + user->frames_len;
    size_t n = put_frame(frame, ++user->seq, body, len);
    if (spoilt) {
        user->held = user->frames + FRAMES_BYTES;
        n = spoil_frame(user, frame, n);
    } else if (user->held_len > 0) {
        put(frame + n, user->held, user->held_len);
        n += user->held_len;
        user->held_len = 0;
    }
    user->frames_len += n;
}

/* ---- Connections ------------------------------------------------------------------------------- */

static void connection_flush(struct connection *c)
{
    for (unsigned i = 0; i < c->touched_len; i++) {
        pthread_mutex_lock(&c->touched[i]->lock);
        user_flush(c->touched[i]);
        pthread_mutex_unlock(&c->touched[i]->lock);
    }
    send_all(c->fd, c->answers, c->answers_len);
    c->touched_len = 0;
    c->answers_len = 0;
}

/* Sends it, or what FAULT makes of it; returns the answer. */
static const char *message_take(struct connection *c, struct user *user, const char *body,
                                size_t len)
{
    bool spoilt = fault && atomic_fetch_add(&messages, 1) % 1000 == 999;

    if (spoilt && fault == 'r')
        return REFUSED;
    if (spoilt && fault == 'w')
        do
            user = &users[(size_t)(user - users + 1) & users_mask];
        while (!atomic_load(&user->used));
    pthread_mutex_lock(&user->lock);
    user_append(user, body, len, spoilt);
    if (!batch)
        user_flush(user);
    pthread_mutex_unlock(&user->lock);
    if (batch && (c->touched_len == 0 || c->touched[c->touched_len - 1] != user))
        c->touched[c->touched_len++] = user;
    return TAKEN;
}

/* Keeps the user's stream until the client closes it. What the client sends is not looked at. */
static void stream_run(struct stream *stream, struct user *user)
{
    struct pollfd closing = {.fd = stream->fd, .events = POLLIN};
    struct stream **at = &user->streams;
    char sink[256];

    pthread_mutex_lock(&user->lock);
    send_all(stream->fd, GREETING, sizeof GREETING - 1);
    stream->next = user->streams;
    user->streams = stream;
    pthread_mutex_unlock(&user->lock);
    while (poll(&closing, 1, 5000) == 0 || recv(stream->fd, sink, sizeof sink, 0) > 0) {
        if (closing.revents)
            continue;
        pthread_mutex_lock(&user->lock);
        send_all(stream->fd, ":\n\n", 3);
        pthread_mutex_unlock(&user->lock);
    }
    pthread_mutex_lock(&user->lock);
    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    pthread_mutex_unlock(&user->lock);
}

/* Serves the request if it is all there. Its length; 0 if it is not, -1 if none can come after it
 * or if it is a strange one. */
static long request_run(struct connection *c, const char *at)
{
    const char *body = strstr(at, "\r\n\r\n"), *space, *field;
    bool sends = strncmp(at, "POST /sse/send/", 15) == 0;

    if (!body)
        return 0;
    if (!sends && strncmp(at, "GET /sse/connect/", 17) != 0)
        return -1;
    const char *name = at + (sends ? 15 : 17);
    if (!(space = strchr(name, ' ')) || space - name >= NAME_BYTES)
        return -1;
    struct user *user = user_get(name, (size_t)(space - name));
    if (user && !sends) {
        connection_flush(c);
        stream_run(&streams[c->fd], user);
    }
    if (!user || !sends || !(field = strstr(space, "Content-Length: ")))
        return -1;
    body += 4;
    size_t len = strtoul(field + 16, NULL, 10);
    if (len > FRAME_BYTES - 64)
        return -1;
    if ((size_t)(c->requests + c->len - body) < len)
        return 0;
    const char *answer = message_take(c, user, body, len);
    c->answers_len =
        (size_t)(put(c->answers + c->answers_len, answer, strlen(answer)) - c->answers);
    return body - at + (long)len;
}

static void *connection_run(void *arg)
{
    struct connection c;
    ssize_t got;
    long n = 0;

    c.fd = ((struct stream *)arg)->fd;
    c.len = c.answers_len = c.touched_len = 0;
    while (n >= 0 && (got = recv(c.fd, c.requests + c.len, REQUEST_BYTES - c.len, 0)) > 0) {
        const char *at = c.requests;
        c.len += (size_t)got;
        c.requests[c.len] = 0;
        while ((n = request_run(&c, at)) > 0)
            at += n;
        connection_flush(&c);
        c.len -= (size_t)(at - c.requests);
        memmove(c.requests, at, c.len);
    }
    close(c.fd);
    return NULL;
}

/* ---- The start --------------------------------------------------------------------------------- */

static size_t setting(const char *name)
{
    const char *text = getenv(name);
    size_t value = text ? strtoul(text, NULL, 10) : 0;

    if (value == 0)
        fail("it takes PORT and CONNECTIONS in the environment");
    return value;
}

static void prepare(size_t connections)
{
    struct rlimit files;
    const char *said = getenv("FAULT");

    if (said && !strchr("ltsawrc", *said))
        fail("there is no such FAULT");
    if (said)
        fault = *said;
    said = getenv("BATCH");
    batch = said && *said == '1';
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < connections + 64 ? files.rlim_max : connections + 64;
    setrlimit(RLIMIT_NOFILE, &files);
    streams = calloc((size_t)files.rlim_cur, sizeof *streams);
    while (users_mask < connections + connections / 4)
        users_mask = 2 * users_mask + 1;
    users = calloc(users_mask + 1, sizeof *users);
    if (!users || !streams)
        fail("not enough memory");
    for (size_t i = 0; i < files.rlim_cur; i++)
        streams[i].fd = (int)i;
    for (size_t i = 0; i <= users_mask; i++)
        pthread_mutex_init(&users[i].lock, NULL);
}

/* TCP_NODELAY is passed on to the sockets that it accepts. */
static int listen_on(size_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) != 0 ||
        bind(fd, (struct sockaddr *)(void *)&at, sizeof at) != 0 || listen(fd, 4096) != 0)
        fail("cannot listen on the port");
    return fd;
}

int main(void)
{
    pthread_attr_t attr;
    pthread_t thread;

    if (getenv("CERT"))
        fail("it speaks no TLS");
    prepare(setting("CONNECTIONS"));
    int listener = listen_on(setting("PORT"));
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && pthread_create(&thread, &attr, connection_run, &streams[fd]) != 0)
            close(fd);
    }
}
