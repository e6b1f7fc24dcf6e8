/* microhttpd - a push server on libmicrohttpd, for tests/bench.c to measure.
 *
 *     PORT=8000 CONNECTIONS=20000 build/peers/microhttpd
 *
 * GET /sse/connect/USER and POST /sse/send/USER on 127.0.0.1, as one would write them with that
 * library's thread for each connection: a stream is a response whose reader waits until its user
 * has a message for it. Each user has a log of 64 messages, and each stream its place in it; one
 * that falls out of the log is closed.
 *
 * No example of a safe server: whoever can reach it may send to anyone, users are never forgotten,
 * and slow clients have all the time they want. Nor does it resume streams (Last-Event-ID), speak
 * TLS or end in order, and a message is one line. As to descriptors, it takes `ulimit -n`. */

#define _GNU_SOURCE /* for POLLRDHUP */
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    LOG = 64,
    BEAT_S = 5,
    NAME_BYTES = 128,
    BODY_BYTES = 64 * 1024,
    POOL_BYTES = 16 * 1024, /* for each connection, to read and write */
    BLOCK_BYTES = 4 * 1024,
    STACK_BYTES = 64 * 1024,
    BUCKETS = 16384
};

struct message {
    size_t len;
    char text[]; /* the body of a POST as far as it has come, then what the streams get */
};

struct user {
    struct user *after; /* in its bucket */
    pthread_mutex_t lock;
    pthread_cond_t news;      /* a message has come, or a stream has gone */
    struct message *log[LOG]; /* message n is log[n % LOG]; the first one has number 1 */
    uint64_t newest;
    unsigned streams;
    char name[NAME_BYTES];
};

struct stream {
    struct user *user;
    int fd;
    uint64_t seen; /* number of the last message that was written whole */
    size_t offset; /* what was written of the next one */
};

static struct user *buckets[BUCKETS];
static pthread_mutex_t buckets_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_condattr_t monotonic;
static int watched; /* the epoll descriptor that tells which streams have gone */

static void fail(const char *what)
{
    fprintf(stderr, "microhttpd: %s\n", what);
    exit(1);
}

/* ---- Users and their messages ------------------------------------------------------------------ */

/* Finds the user, or adds it; NULL if there is no memory for it. */
static struct user *user_get(const char *name)
{
    size_t hash = 2166136261; /* FNV-1a */
    struct user **at;

    for (const char *c = name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619;
    pthread_mutex_lock(&buckets_lock);
    for (at = &buckets[hash % BUCKETS]; *at && strcmp((*at)->name, name) != 0;)
        at = &(*at)->after;
    if (!*at && (*at = calloc(1, sizeof **at))) {
        snprintf((*at)->name, sizeof(*at)->name, "%s", name);
        pthread_mutex_init(&(*at)->lock, NULL);
        pthread_cond_init(&(*at)->news, &monotonic);
    }
    struct user *user = *at;
    pthread_mutex_unlock(&buckets_lock);
    return user;
}

/* Hands a message to all streams of the user. Returns its number, 0 if there is no memory. */
static uint64_t user_send(struct user *user, const struct message *body, unsigned *streams)
{
    struct message *message = malloc(sizeof *message + body->len + 64);

    if (!message)
        return 0;
    pthread_mutex_lock(&user->lock);
    uint64_t number = ++user->newest;
    message->len = (size_t)snprintf(message->text, body->len + 64, "id: %llu\ndata: %.*s\n\n",
                                    (unsigned long long)number, (int)body->len, body->text);
    free(user->log[number % LOG]);
    user->log[number % LOG] = message;
    *streams = user->streams;
    pthread_cond_broadcast(&user->news);
    pthread_mutex_unlock(&user->lock);
    return number;
}

/* ---- Streams ----------------------------------------------------------------------------------- */

/* Waits, with the user's lock, for a message. 1: there is one, 0: none for so long that it is time
 * for a keep-alive, -1: the client has gone. */
static int stream_wait(const struct stream *stream)
{
    struct pollfd gone = {.fd = stream->fd, .events = POLLRDHUP};
    struct timespec until;
    int late = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += BEAT_S;
    while (stream->seen == stream->user->newest) {
        if (late)
            return 0;
        late = pthread_cond_timedwait(&stream->user->news, &stream->user->lock, &until);
        if (stream->seen == stream->user->newest && poll(&gone, 1, 0) != 0)
            return -1;
    }
    return 1;
}

/* Copies what fits of all messages that the stream has not had. */
static size_t stream_copy(struct stream *stream, char *to, size_t room)
{
    const struct user *user = stream->user;
    size_t done = 0;

    while (stream->seen < user->newest && done < room) {
        const struct message *message = user->log[(stream->seen + 1) % LOG];
        size_t n = message->len - stream->offset;
        if (n > room - done)
            n = room - done;
        memcpy(to + done, message->text + stream->offset, n);
        done += n;
        stream->offset += n;
        if (stream->offset == message->len) {
            stream->offset = 0;
            stream->seen++;
        }
    }
    return done;
}

/* The library asks for more of the stream, of which `at` bytes were written. It gives room for far
 * more than a keep-alive. */
static ssize_t stream_read(void *arg, uint64_t at, char *to, size_t room)
{
    struct stream *stream = arg;
    ssize_t n;

    if (at == 0)
        return snprintf(to, room, ": hi\n\n");
    pthread_mutex_lock(&stream->user->lock);
    int news = stream_wait(stream);
    if (news < 0 || stream->user->newest - stream->seen > LOG)
        n = MHD_CONTENT_READER_END_WITH_ERROR; /* closes the connection */
    else if (news)
        n = (ssize_t)stream_copy(stream, to, room);
    else
        n = snprintf(to, room, ": on\n\n");
    pthread_mutex_unlock(&stream->user->lock);
    return n;
}

static void stream_free(void *arg)
{
    struct stream *stream = arg;

    pthread_mutex_lock(&stream->user->lock);
    stream->user->streams--;
    pthread_mutex_unlock(&stream->user->lock);
    free(stream);
}

/* A stream begins with what is sent from now on. */
static struct stream *stream_new(struct user *user, struct MHD_Connection *connection)
{
    struct stream *stream = calloc(1, sizeof *stream);
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = user};

    if (!stream)
        return NULL;
    stream->user = user;
    stream->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    pthread_mutex_lock(&user->lock);
    stream->seen = user->newest;
    user->streams++;
    pthread_mutex_unlock(&user->lock);
    epoll_ctl(watched, EPOLL_CTL_ADD, stream->fd, &event);
    return stream;
}

/* While a stream's thread waits for messages it does not look at its socket: this thread looks at
 * all of them, and wakes the streams of a user that has lost one. */
static void *watch(void *arg)
{
    struct epoll_event events[64];
    (void)arg;

    for (;;) {
        int n = epoll_wait(watched, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct user *user = events[i].data.ptr;
            pthread_mutex_lock(&user->lock);
            pthread_cond_broadcast(&user->news);
            pthread_mutex_unlock(&user->lock);
        }
    }
    return NULL;
}

/* ---- Requests ---------------------------------------------------------------------------------- */

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status,
                              struct MHD_Response *response, const char *type)
{
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", type);
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, char *text)
{
    return answer(connection, status,
                  MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY),
                  status == 202 ? "application/json" : "text/plain");
}

static enum MHD_Result answer_connect(struct MHD_Connection *connection, const char *name)
{
    struct user *user = user_get(name);
    struct stream *stream = user ? stream_new(user, connection) : NULL;

    if (!stream)
        return MHD_NO;
    return answer(connection, 200,
                  MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, stream_read,
                                                    stream, stream_free),
                  "text/event-stream");
}

static enum MHD_Result answer_send(struct MHD_Connection *connection, const char *name,
                                   const struct message *body)
{
    struct user *user = user_get(name);
    char receipt[96];
    unsigned streams = 0;

    if (memchr(body->text, '\n', body->len) || memchr(body->text, '\r', body->len) ||
        memchr(body->text, 0, body->len))
        return answer_text(connection, 400, "a message is one line\n");
    uint64_t number = user ? user_send(user, body, &streams) : 0;
    if (number == 0)
        return MHD_NO;
    snprintf(receipt, sizeof receipt, "{\"id\":\"%llu\",\"status\":\"%s\",\"streams\":%u}\n",
             (unsigned long long)number, streams ? "Connected" : "Disconnected", streams);
    return answer_text(connection, 202, receipt);
}

/* Takes another piece of a body. One that is too long ends the connection. */
static enum MHD_Result body_add(void **state, const char *data, size_t *len)
{
    struct message *body = *state;
    size_t had = body ? body->len : 0;

    if (had + *len > BODY_BYTES || !(body = realloc(body, sizeof *body + had + *len + 1)))
        return MHD_NO;
    if (*len > 0)
        memcpy(body->text + had, data, *len);
    body->len = had + *len;
    *len = 0;
    *state = body;
    return MHD_YES;
}

/* Called with the head (nothing in *state), for each piece of the body, and at the end. */
static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *data,
                              size_t *data_len, void **state)
{
    char name[NAME_BYTES], rest;
    (void)arg;
    (void)version;

    if (!*state || *data_len > 0)
        return body_add(state, data, data_len);
    if (strcmp(method, "POST") == 0 && sscanf(path, "/sse/send/%127[^/]%c", name, &rest) == 1)
        return answer_send(connection, name, *state);
    if (strcmp(method, "GET") == 0 && sscanf(path, "/sse/connect/%127[^/]%c", name, &rest) == 1)
        return answer_connect(connection, name);
    return answer_text(connection, 404, "there is /sse/connect/USER and /sse/send/USER\n");
}

static void completed(void *arg, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode how)
{
    (void)arg;
    (void)connection;
    (void)how;
    free(*state);
    *state = NULL;
}

static unsigned setting(const char *name)
{
    const char *text = getenv(name);
    unsigned long value = text ? strtoul(text, NULL, 10) : 0;

    if (value == 0)
        fail("it takes PORT and CONNECTIONS in the environment");
    return (unsigned)value;
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)setting("PORT")),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    pthread_t watcher;

    if (getenv("CERT"))
        fail("it speaks no TLS");
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    watched = epoll_create1(0);
    if (watched < 0 || pthread_create(&watcher, NULL, watch, NULL) != 0)
        fail("cannot watch for closing streams");
    if (!MHD_start_daemon(
            MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
                MHD_USE_TURBO,
            0, NULL, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, &at, MHD_OPTION_CONNECTION_LIMIT,
            setting("CONNECTIONS") + 64, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
            MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_LISTEN_BACKLOG_SIZE,
            4096U, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END))
        fail("cannot listen on the port");
    for (;;)
        pause();
}
