/* sse - per-user push over Server-Sent Events, in one C file.
 *
 * A client opens  GET /sse/connect/{userId}  and keeps the answer open; from then on any part of
 * any program can send that user messages, by sse_send() or by an HTTP POST, and the server keeps
 * track of who is Connected and who is Disconnected.
 *
 * TRY IT
 *
 *     make run                                                  # builds, serves on port 8080
 *     curl -N http://127.0.0.1:8080/sse/connect/alice           # in a second terminal: the stream
 *     curl -d 'hello' http://127.0.0.1:8080/sse/send/alice      # in a third: a message to it
 *
 * THE LIFE OF A MESSAGE
 *
 * 1. loop_accept() accepts a connection, and loop_serve() gives it to a worker, a thread that waits
 *    for one or a new one: worker_serve(). Where HTTPS is spoken, conn_secure() sets up TLS first;
 *    from then on the transport functions encrypt, and nothing else knows.
 * 2. conn_read_head() reads; http_parse_head() turns the bytes into a struct http_request or
 *    a status; exchange_run() finds the route, checks who asks (origin_objection() for pages,
 *    exchange_authorize() where tokens are required), receives the body, calls the handler.
 * 3. handle_send() calls sse_send(), as any embedder could. The user is found in the table and
 *    pinned; log_append() frames the body for the wire, `id:` and `data:` lines and all, and puts
 *    the frame at the end of the user's log, a ring of bytes that keeps the newest messages.
 * 4. Every stream of the user is a cursor into that log. stream_flush_locked() writes from the
 *    cursor to the end of the log, never blocking, on the sender's own thread: a stream that had
 *    kept up has the message before the sender has its receipt, with no thread switch between.
 *    Messages that came together are written together, whether in one pipeline or from senders
 *    that meet at one user: they are pending sends of that user (user_complete_locked()).
 * 5. A stream whose socket is full stays behind with its cursor. When the poller tells that there
 *    is room, the loop goes on from there. If the ring overwrites what the stream still needed, it
 *    is closed: the client reconnects with Last-Event-ID and is told by `event: gap` how many are
 *    missing. An open stream never has a silent hole.
 *
 * THREADS AND LOCKS
 *
 * Work has threads, waiting has a loop. A worker serves one connection in plain blocking code: it
 * reads, parses, handles, answers. When no request follows within a moment, it hands the connection
 * to the loop (conn_hand_over()), as it does with a stream once that is open and greeted. The loop,
 * the thread that called sse_run(), holds all connections that wait: it accepts, gives workers what
 * has a request, writes keep-alives, drains sockets that were full, closes what is over. A
 * connection has one owner at a time, a worker or the loop, and the owner alone closes it and frees
 * its slot. Whichever thread holds its user's mutex may write to an open stream.
 *
 *     table   rwlock   which slot holds which user; held to look up, add and evict, not for I/O
 *     user    mutex    one user's log and streams, and the writes to those streams
 *     lists   mutex    which users are Disconnected, and when the others' keep-alives are due
 *     conns   mutex    connection slots, their states, what changes hands, workers, large bodies
 *
 * Lock order: table, user, lists, conns. The tag before a field's comment says what guards it:
 *
 *     [I] immutable once its owner is set up     [T] table     [U] its user's mutex     [L] lists
 *     [C] conns    [o] its owner's thread only    [a] atomic
 *
 * Until it stops, the loop waits for no user's mutex. What it wants done for a stream it leaves in
 * `wants`; the thread that has the mutex does it in user_unlock(). A user that was found is pinned
 * by a count until the caller is done, so that it is not evicted; no pin is held while a client is
 * waited for. A stream is unlinked from its user, and released, before its slot is free.
 *
 * MEMORY
 *
 * Everything but the threads' stacks is reserved when the server is created, and what is never used
 * is never touched: there is no allocation of ours afterwards, so there is nothing a client could
 * make grow, leak or fragment. A connection at rest costs its slot; buffers belong to workers. The
 * bound is users x (slot + log) + connections x slot + threads x (stack + buffers) + bodies + the
 * program itself; it is printed at the start. OpenSSL does allocate as connections come. The bound
 * counts a share for each, and that holds because OpenSSL is handed only so many bytes of a
 * handshake (tls_bio_read()). What the kernel needs for threads and sockets comes on top.
 *
 * SECURITY
 *
 * What strangers send is read by few functions, all pure and fuzzed: http_parse_head(),
 * http_decode_chunk(), percent_decode(), http_query(), origin_parse(), id_parse(), the framing of a
 * body (body_line()), and what reads tokens. Nothing in a token is looked at before its signature
 * is checked. OpenSSL does all cryptography, in the one block under SSE_TLS; without it the program
 * has neither HTTPS nor tokens, and refuses the options. Whatever runs out, memory in OpenSSL's
 * hands included, costs a connection and not the program.
 *
 * TO CHANGE SOMETHING
 *
 * The keep-alive's text is KEEP_ALIVE_TEXT, under Streams. A new route is a line of ROUTES and its
 * handler, a new option a line of OPTIONS and a field of struct sse_config, a new number in the
 * metrics a line in handle_metrics(), a field of struct tally, and what counts it. What shows
 * them (--help, the manual page, /openapi.json, the page at /) follows.
 *
 * LIMITS
 *
 * What a user may want to change is an option (OPTIONS, struct sse_config). What the protocol or
 * good sense fixes is a constant: SSE_HEAD_BYTES and its neighbours below. Left out on purpose:
 * HTTP/2 (a proxy in front can offer it), compression, files, a history that outlives the process.
 *
 * EMBEDDING
 *
 *     #define SSE_NO_MAIN                     // no main(), no signals, nothing printed
 *     #include "sse.c"
 *     struct sse_server *server;
 *     struct sse_config config;
 *     sse_config_init(&config);
 *     sse_create(&server, &config);           // binds; then run it on a thread of your own:
 *     sse_run(server);                        // returns after sse_stop(server)
 *     sse_send(server, "alice", NULL, "hello", 5, NULL);       // from any thread
 *
 * The include comes before any system header. A file that only calls the functions, C++ too,
 * defines SSE_API_ONLY before its include and links with sse.c compiled once, with SSE_NO_MAIN;
 * that also keeps the names in here to themselves. tests/embed.c is a whole example.
 *
 * CONTENTS
 *
 *     Public API ............ configuration, servers, messages, routes of your own
 *     Limits and types ...... the structures that threads share, with their locks
 *     Text and JSON ......... clocks, slices, bounded buffers, UTF-8, percent-decoding, dates
 *     Transport ............. the calls that move bytes over a connection, and all of OpenSSL
 *     HTTP parser ........... bytes in; a request, a status or "need more" out
 *     Origins ............... which web pages may use the server
 *     Tokens ................ who may do what, where --auth-secret asks for it
 *     Connections ........... their states, and how they change hands
 *     Log ................... one user's newest messages, framed, in a ring
 *     Users ................. the table, and who makes room
 *     Streams ............... cursors, delivery, keep-alives, final events
 *     Messaging ............. sse_send and its siblings
 *     Answers ............... status lines, fields, problem documents
 *     Exchanges ............. one request and its answer, from head to body to handler
 *     Handlers .............. what the routes do
 *     Demo .................. two long tasks, written as an embedder would
 *     Metrics ............... what was counted, for Prometheus
 *     OpenAPI ............... the routes, described for programs
 *     Page .................. what a browser shows at /
 *     Routes ................ one table of them, and those of an embedder
 *     Options ............... one table of them
 *     Workers ............... threads that serve requests
 *     Loop .................. accepts, and holds all connections that wait
 *     Server ................ create, run, stop, destroy
 *     Program ............... command line, signals, main
 */

/* ==== Public API ================================================================================
 *
 * The handle is struct sse_server; a program may hold several. Unless a function says otherwise it
 * may be called from any thread between sse_create() and sse_destroy(), and returns SSE_OK or a
 * negative SSE_E… code. Nothing here exits, prints, or touches signal dispositions. */

#ifndef SSE_API_ONLY
#if defined(__GLIBC__) && !defined(__USE_XOPEN2K8)
#error "include sse.c before any system header, or define _POSIX_C_SOURCE as 200809L first"
#endif
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* for struct tcp_info, accept4() and getentropy(), and nothing else */
#elif defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1 /* for MSG_DONTWAIT and its like */
#endif
#if !defined(_POSIX_C_SOURCE) && !defined(__FreeBSD__) && !defined(__NetBSD__) &&                  \
    !defined(__OpenBSD__) && !defined(__DragonFly__) /* which would hide what is not POSIX */
#define _POSIX_C_SOURCE 200809L
#endif
#endif

#ifndef SSE_H
#define SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SSE_VERSION "0.1.0"

#if defined(__GNUC__)
#define SSE_PRINTF(string, first) __attribute__((format(printf, string, first)))
#else
#define SSE_PRINTF(string, first)
#endif

enum {
    SSE_USER_BYTES = 128,      /* longest user id, in bytes of UTF-8 */
    SSE_EVENT_BYTES = 64,      /* longest event name */
    SSE_ID_BYTES = 38,         /* an event id with its NUL: 16 hex digits, '-', 20 digits */
    SSE_HOLD_MAX_S = 86400,    /* longest hold of a disconnect, seconds */
    SSE_OWN_ROUTES = 32,       /* routes an embedder may add */
    SSE_ROUTE_BYTES = 256,     /* longest path of such a route */
    SSE_OWN_FIELDS_BYTES = 512 /* fields a handler may add to an answer, with `: ` and CR LF */
};

enum {
    SSE_OK = 0,
    SSE_EINVAL = -1,    /* an argument is not what its function takes */
    SSE_ENOUSER = -2,   /* a user never seen */
    SSE_EFULL = -3,     /* the user table is full of Connected users; or no room for a route */
    SSE_ETOOBIG = -4,   /* the framed message alone is over history_bytes */
    SSE_ESTOPPING = -5, /* the server is stopping */
    SSE_ENOMEM = -6,    /* memory could not be reserved */
    SSE_EBIND = -7,     /* the address could not be bound; errno says why */
    SSE_ESYSTEM = -8,   /* another system call failed; errno says why */
    SSE_ECERT = -11,    /* no certificate chain could be read: errno, or 0 if the file has none */
    SSE_EKEY = -12,     /* no private key, likewise; or it belongs to another certificate */
    SSE_ENOTLS = -13,   /* HTTPS and tokens take a build with OpenSSL */
    SSE_ERANDOM = -14   /* there are no random bytes; errno is that of /dev/urandom */
};

/* Who may use a route, where tokens are required. */
enum sse_access {
    SSE_ANYONE,    /* no token is asked for */
    SSE_SUBJECT,   /* whose token's `sub` is the {userId}; any token where the path has none */
    SSE_PUBLISHER, /* whose scope holds sse:publish */
    SSE_ADMIN      /* whose scope holds sse:admin; it may do what all the others may */
};

struct sse_server;
struct sse_exchange;

/* What a server is created with. Fill it with sse_config_init() first, then change what differs.
 * Strings are borrowed and must stay valid until sse_destroy(). */
struct sse_config {
    const char *bind_address; /* IPv4 or IPv6, numeric */
    unsigned port;            /* 0 takes a free one; see sse_port() */
    unsigned max_users;       /* slots in the user table */
    unsigned max_connections; /* streams and other connections open at once */
    unsigned max_threads;     /* requests under way at once, each with a thread; at least 2 */
    unsigned max_streams;     /* streams one user may hold at once */
    unsigned history;         /* messages kept for each user */
    unsigned history_bytes;   /* and their bytes, framed for the wire */
    unsigned max_message;     /* largest request body, bytes */
    unsigned heartbeat_s;     /* seconds between keep-alives, 1 to 3600 */
    unsigned retry_ms;        /* reconnection time told to clients */
    /* Stack of a request's thread, 32 KiB, at least 16: raise it for hungry handlers, and with
     * glibc by the program's thread-local storage. */
    unsigned stack_bytes;
    bool heartbeat_comment;  /* keep-alives as comments rather than as messages */
    bool greeting_event;     /* the greeting as `event: connected` rather than as a message */
    bool demo;               /* serve the page and the demo tasks */
    bool access_log;         /* one line to log() per request */
    const char *const *cors; /* origins whose pages may use the server: cors_count, borrowed too */
    size_t cors_count;
    /* HTTPS, in a build with OpenSSL: PEM files of the certificate chain and its unencrypted key,
     * both or (NULL) neither. */
    const char *cert_file, *key_file;
    /* The bytes that access tokens are signed with, 32 to 4096; NULL asks for no tokens. Borrowed;
     * a build with OpenSSL only. */
    const char *auth_secret;
    size_t auth_secret_len;
    /* A line without its line feed. Called from many threads at once, the accepting one too: it
     * must not block, and may call anything here but sse_run() and sse_destroy(). */
    void (*log)(void *log_arg, const char *line);
    void *log_arg;
};

/* What became of one sse_send() or sse_broadcast(). */
struct sse_receipt {
    char id[SSE_ID_BYTES]; /* the message's id; empty for a broadcast */
    unsigned users;        /* users the message was added for */
    unsigned streams;      /* their open streams */
    unsigned delivered;    /* of those, how many the operating system took the whole message for */
};

struct sse_user_status {
    bool connected;   /* at least one stream is open */
    unsigned streams; /* open streams */
    unsigned queued;  /* messages held that no stream was ever handed */
};

/* Sets every field of *config to its default, as `sse --help` lists them. */
void sse_config_init(struct sse_config *config);

/* Creates a server and binds its address; nothing is served before sse_run(). On success *server is
 * the caller's, to be given to sse_destroy(); on failure it is NULL. SSE_EINVAL (a field is out of
 * range), SSE_EBIND, SSE_ENOMEM, SSE_ERANDOM, SSE_ESYSTEM (no pipe or poller), and where HTTPS or
 * tokens are asked for SSE_ECERT, SSE_EKEY, SSE_ENOTLS. */
int sse_create(struct sse_server **server, const struct sse_config *config);

/* The TCP port that the server listens on. */
unsigned sse_port(const struct sse_server *server);

/* The most bytes of memory that the server can use under its limits. If `how` is not NULL, the sum
 * is spelled out there in at most `size` bytes. */
uint64_t sse_memory(const struct sse_server *server, char *how, size_t size);

/* Serves until sse_stop(), on the calling thread, once per server (a server that was stopped is
 * destroyed, and another created). Returns when every connection has ended, or after five seconds
 * and a moment: streams are told when to come back and closed, requests under way are waited for.
 * Clients may connect before it is called; they wait. SSE_OK, or SSE_ESYSTEM. */
int sse_run(struct sse_server *server);

/* Makes sse_run() return, at once if it is called only later. Async-signal-safe: may be called from
 * a signal handler. */
void sse_stop(struct sse_server *server);

/* Makes sse_run() read certificate and key again, for the connections that come after: for when
 * they were renewed. Open ones go on with what they have. Whether it worked is logged; if not, the
 * old ones stay. Async-signal-safe. */
void sse_reload(struct sse_server *server);

/* Frees the server. sse_run() must have returned or never been called, and no other call may be
 * under way. It waits for your own handlers that have not returned yet, so a handler must not call
 * it. NULL is allowed. */
void sse_destroy(struct sse_server *server);

/* Adds a message to the user's log and writes it to every stream that has kept up.
 *   user     NUL-terminated UTF-8, 1 to SSE_USER_BYTES bytes; one never seen is added
 *   event    the event's name, or NULL or "" for none
 *   data     len bytes of UTF-8 without NUL; copied; CR LF, LF and CR each end a line
 *   receipt  filled in unless NULL; zeros if the message was refused
 * SSE_EINVAL, SSE_EFULL, SSE_ETOOBIG. Never blocks on a client. Works before sse_run() and while
 * stopping, too; what no stream had by then goes with the server. */
int sse_send(struct sse_server *server, const char *user, const char *event, const char *data,
             size_t len, struct sse_receipt *receipt);

/* sse_send() to every user in the table. A message too big for one of them, with its next id, is
 * sent to none. */
int sse_broadcast(struct sse_server *server, const char *event, const char *data, size_t len,
                  struct sse_receipt *receipt);

/* Closes the user's streams, each after what is due and an `event: disconnected`. Both are written
 * before this returns, as far as the sockets take them; a client that does not read has two seconds
 * for the rest, or less if its user is to make room. For hold_s seconds (0 to SSE_HOLD_MAX_S) the
 * user's connects are answered 204, which stops an EventSource; the latest call decides, 0 lifts a
 * hold, and it is forgotten when the user makes room for another. SSE_EINVAL, SSE_ENOUSER. */
int sse_disconnect(struct sse_server *server, const char *user, unsigned hold_s);

/* Reports on one user. SSE_EINVAL, SSE_ENOUSER. */
int sse_status(struct sse_server *server, const char *user, struct sse_user_status *status);

/* Waits ms milliseconds. SSE_OK, or SSE_ESTOPPING as soon as the server stops: a handler that
 * takes its time calls this, and gives up then. */
int sse_pause(struct sse_server *server, unsigned ms);

/* Adds a route before sse_run() is called: `methods` is "GET", "POST" or "GET|POST", `path` an
 * absolute path or one that ends in "/{userId}". For each request the handler gets the exchange,
 * writes its answer with the functions below and returns the HTTP status, 200 to 599. It runs on
 * the connection's thread, which serves other connections afterwards, for HEAD as for GET, and on
 * many at once with the same `arg`. As on the server's own routes, pages of foreign origins and a
 * Host that is not this server's are refused; where tokens are required, so is whoever has none for
 * that access. The strings are borrowed. SSE_EINVAL, also if the path is taken or one of the
 * server's own routes would answer; a path without {userId} goes before one with it. SSE_EFULL
 * after SSE_OWN_ROUTES. */
typedef int (*sse_handler)(struct sse_exchange *exchange, void *arg);
int sse_route(struct sse_server *server, const char *methods, const char *path,
              enum sse_access access, const char *summary, sse_handler handler, void *arg);

/* For handlers only, on the thread that called them. Pointers stay valid until the handler
 * returns. */
struct sse_server *sse_server_of(const struct sse_exchange *exchange);
const char *sse_user(const struct sse_exchange *exchange); /* {userId} decoded; "" if none */
/* The body of a POST: UTF-8, not NUL-terminated. */
const char *sse_body(const struct sse_exchange *exchange, size_t *len);
/* For a handler that takes its time: to be called before it begins. 0, or the status to return at
 * once: 503 where only the threads are left that are kept for quick requests. */
int sse_takes_time(struct sse_exchange *exchange);
bool sse_is_gone(const struct sse_exchange *exchange); /* the client takes no more of the answer */
bool sse_is_head(const struct sse_exchange *exchange); /* HEAD: the body will not be sent */
bool sse_is_post(const struct sse_exchange *exchange);

/* Copies the query parameter `name`, decoded and NUL-terminated. Returns its length, 0 if it is
 * absent or empty, or SSE_EINVAL if it is malformed, not UTF-8, holds NUL, or needs more than
 * `size` bytes; then the value is empty. */
int sse_query(const struct sse_exchange *exchange, const char *name, char *value, size_t size);

/* The answer's body, piece by piece; it starts out as application/json. A body of over 2 KiB is
 * sent as it grows, and its status is 200 whatever the handler returns; with 204, 205 and 304 it is
 * not sent. One call of sse_print() may write up to 1 KiB; longer text goes through sse_write(). (A
 * call of 2 KiB or more closes the connection: better no answer than one with a hole.) */
void sse_content_type(struct sse_exchange *exchange, const char *type); /* a literal: borrowed */
/* Adds a field to the answer's head, such as Location; both strings are copied, NULL is an empty
 * value. SSE_EINVAL for what is not a valid field, for those that the server writes itself
 * (framing, caching, CORS and their like) and once over 2 KiB of body have gone out; SSE_EFULL
 * after SSE_OWN_FIELDS_BYTES of them. */
int sse_field(struct sse_exchange *exchange, const char *name, const char *value);
void sse_write(struct sse_exchange *exchange, const char *bytes, size_t len);
SSE_PRINTF(2, 3) void sse_print(struct sse_exchange *exchange, const char *format, ...);
void sse_write_json_string(struct sse_exchange *exchange, const char *utf8, size_t len);

/* Makes the answer a problem document (RFC 9457) with this detail, of which 255 bytes are kept, and
 * returns `status` for the handler to return at once: nothing may be written after it. Once over
 * 2 KiB of an answer have gone out it is too late for that, and the connection is closed. */
SSE_PRINTF(3, 4) int sse_fail(struct sse_exchange *exchange, int status, const char *format, ...);

#ifdef __cplusplus
}
#endif
#endif /* SSE_H */

#ifndef SSE_API_ONLY

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <sys/prctl.h>
#elif defined(__APPLE__)
#include <sys/random.h>
#endif

/* ==== Limits and types ==========================================================================
 *
 * Constants carry their unit. The structures go from the smallest to the whole server; the tag
 * before each field's comment says which lock guards it (the legend is in THREADS AND LOCKS above).
 * Those without tags belong to one thread, or to the owner of what they are part of. */

/* Limits that messages name as well. */
#define SSE_HEAD_BYTES       16384 /* request line and fields */
#define SSE_TARGET_BYTES     4096  /* request target */
#define SSE_CHUNK_LINE_BYTES 256   /* chunk size with its extensions */
#define SSE_TRAILER_BYTES    4096  /* fields after a chunked body */
#define TEXT_OF(constant)    TEXT_OF_VALUE(constant)
#define TEXT_OF_VALUE(value) #value

enum {
    /* input buffer: a head, then a small body, a line of trailers, or pipelined requests */
    SSE_IN_BYTES = SSE_HEAD_BYTES + SSE_TRAILER_BYTES + 1024,
    SSE_OUT_BYTES = 4096,      /* output buffer: answers that go out together */
    SSE_FIELDS_BYTES = 1280,   /* status line and fields of an answer, with a listed origin */
    SSE_SCRATCH_BYTES = 2048,  /* an answer's body, before it turns chunked */
    SSE_BATCH = 16,            /* pipelined messages that are written together */
    SSE_SHARED_STREAMS = 8,    /* streams from which on a sender lets others join its write */
    SSE_IDLE_THREADS = 64,     /* threads that wait for a connection; beyond that they end */
    SSE_EAGER_THREADS = 8,     /* up to so many are started at once, beyond that a request waits */
    SSE_RESERVED = 16,         /* connections beyond max_connections, for requests alone */
    SSE_TOKEN_BYTES = 2048,    /* an access token; it is decoded in the answer's scratch */
    SSE_JSON_DEPTH = 8,        /* arrays and objects within one another in a token */
    SSE_SECRET_BYTES_MIN = 32, /* what tokens are signed with (RFC 7518 section 3.2) */
    SSE_SECRET_BYTES = 4096,   /* and at most */
    SSE_HANDSHAKE_BYTES = 16384, /* all that a client may say before TLS is set up */
    SSE_RECORD_BYTES = 17408,    /* more than the largest TLS record */
    SSE_READ_BYTES_MIN = 1024,   /* of TLS records that are read at once; a stream reads no more */
    SSE_STREAM_SAYS_BYTES = 65536, /* a client that sends more on its stream is cut off */
    SSE_BODY_BUDGET = 4194304,     /* bytes for bodies too large for the input buffer */
    SSE_BODY_SLOTS_MIN = 4,        /* but at least this many of max_message bytes */
    SSE_ORIGIN_BYTES = 512,        /* a listed origin: it is echoed in answers */
    SSE_LOG_LINE_BYTES = 512,
    SSE_LOG_PATH_BYTES = 256,    /* of a path in the access log */
    SSE_STATUSES = 24,           /* that requests are counted by */
    SSE_DELAYS = 14,             /* bounds of the histogram of delivery times */
    SSE_PROGRAM_BYTES = 2097152, /* the program itself, in the memory line */
    SSE_STACK_BYTES_MIN = 16384, /* of a connection's thread: deepest use is 10 KiB, with TLS 13 */

    SSE_IDLE_MS = 60000,       /* an idle persistent connection is closed */
    SSE_MOMENT_MS = 50,        /* a worker waits so long for a connection's next request */
    SSE_HEAD_MS = 10000,       /* first byte to end of head */
    SSE_BODY_MS = 30000,       /* end of head to end of body */
    SSE_HANDSHAKE_MS = 10000,  /* a TLS handshake, and the wait for its first byte */
    SSE_ANSWER_MS = 30000,     /* an answer that nobody takes is abandoned */
    SSE_QUEUE_MS = 1000,       /* a request waits so long for a worker, then it is answered 503 */
    SSE_THREAD_MS = 1,         /* a request waits so long before one more thread is started, */
    SSE_STALL_MS = 10,         /* a client must have stalled so long to lose its thread */
    SSE_THREAD_IDLE_MS = 500,  /* a thread that waits for a connection ends after that */
    SSE_FINAL_MS = 2000,       /* a stream's final event that nobody takes is abandoned */
    SSE_LINGER_MS = 1000,      /* wait for the client's own close after ours */
    SSE_EXPIRY_MS = 1000,      /* between sweeps for streams whose token has expired */
    SSE_STOP_MS = 4800,        /* requests under way get this long to finish */
    SSE_STOP_MORE_MS = 100,    /* and once cut off, this long to notice */
    SSE_BACKLOG = 65535,       /* connections that may wait for accept(), if the system allows */
    SSE_EVENTS = 128,          /* that the loop handles in one turn, */
    SSE_ACCEPTS = 16,          /* and connections that it accepts, */
    SSE_KEEP_ALIVES = 64,      /* and users or streams that it writes keep-alives to */
    SSE_HEARTBEAT_STEPS = 64,  /* that the users' keep-alives are spread over */
    SSE_ACCEPT_FAILURES = 16,  /* in a row, after which it pauses */
    SSE_ACCEPT_PAUSE_MS = 100, /* after running out of descriptors, threads or memory */
    SSE_RETRY_AFTER_S = 5
};

/* Of a user's next keep-alive the step is at most SSE_HEARTBEAT_STEPS ahead of the loop's, so that
 * with twice as many lists none holds users of two different steps. */
enum { HEARTBEAT_LISTS = 2 * SSE_HEARTBEAT_STEPS };

#ifndef SSE_STACK_BYTES /* default stack of a connection's thread; sanitizers need more */
#define SSE_STACK_BYTES 32768
#endif

#ifndef SSE_ROOM_MS /* how long a new user waits for one who is to make room, and is in use */
#define SSE_ROOM_MS 500
#endif

/* Bytes that are borrowed: not terminated, not owned. `at` is NULL where absent. */
struct slice {
    const char *at;
    size_t len;
};

/* A bounded buffer to compose text in. Once something did not fit, `full` stays set. */
struct text {
    char *at;
    size_t len, cap;
    bool full;
};

/* A socket, and TLS over it if there is any. */
struct transport {
    int fd;
    bool failed;        /* TLS: nothing more can be said */
    size_t allowance;   /* TLS: bytes that may be read from the socket, until further notice */
    struct ssl_st *tls; /* OpenSSL's; NULL for a plain connection */
};

/* Which sockets are ready; stands in Transport. */
struct poller {
    int fd;        /* [I] epoll's */
    int wakeup[2]; /* [I] a pipe, whose byte ends the wait */
    atomic_bool is_waiting;
    /* where there is no epoll: */
    pthread_mutex_t lock;
    struct pollfd *wanted, *polled; /* what to wait for, under the lock; the loop's copy of that */
    uint32_t count, next;           /* of both, and where the loop goes on; under the lock */
};

/* One user's newest messages: frames in a ring of bytes, oldest first. Positions count bytes ever
 * appended, modulo 2^32. All fields [U]. */
struct log {
    char *ring;              /* `cap` bytes in use of max_bytes reserved; grows, never shrinks */
    uint32_t *starts;        /* position of message seq's frame, at seq % max_count */
    int64_t *times_us;       /* when it was appended, likewise; monotonic */
    uint32_t cap, max_bytes; /* bytes */
    uint32_t max_count;      /* messages */
    uint32_t first_at;       /* index in `ring` of the oldest byte */
    uint32_t tail, head;     /* positions of the oldest byte and of the next one */
    uint64_t first, next;    /* sequence numbers of the oldest message and of the next one */
};

/* What became of messages, added up since the server was created: /metrics shows the sum over all
 * slots of the table. A slot keeps counting when it is given to another user. All fields are
 * uint64_t, and [U]. */
struct tally {
    uint64_t messages, message_bytes; /* taken, and the bytes of their bodies */
    uint64_t deliveries;              /* messages that a stream was handed whole */
    uint64_t stream_bytes;            /* written to streams, from the head of the answer on */
    uint64_t streams;                 /* that were opened */
    uint64_t replays, replayed;      /* of those, with Last-Event-ID; messages that were due then */
    uint64_t gaps, missed;           /* told to clients; messages, where their number is known */
    uint64_t slow;                   /* streams that fell out of their log */
    uint64_t delays[SSE_DELAYS + 1]; /* deliveries to streams open before, by their time */
    uint64_t delay_us;               /* the sum of those times */
};

/* A message on its way into a log, pending until a thread that holds its user's mutex completes it.
 * Lives on its sender's stack, or in the buffers of the connection that it came over. */
struct send {
    struct slice event, body;
    struct sse_receipt *receipt; /* [U] filled in on completion, unless the code is an error */
    struct send *next;           /* [o], then [U] once it is pending */
    int code;                    /* [U] what became of it */
    bool done;                   /* [U] completed: nobody but its sender touches it any more */
    uint64_t seq;                /* [U] its number, if it was appended */
};

struct user_list {
    struct user *first, *last;
};

/* A slot of the table: lives as long as the server, and holds one user after another. It is given
 * to another only while it is Disconnected, under the table's write lock with pins at 0, so that
 * nobody who found the one before can still hold it. */
struct user {
    char name[SSE_USER_BYTES + 1];      /* [T] */
    uint8_t name_len;                   /* [T] */
    uint64_t hash;                      /* [T] of the name, keyed */
    atomic_uint pins;                   /* [a] raised under the table lock */
    struct user_list *list;             /* [L] the one it is in: `away`, or a step of heartbeat */
    struct user *list_prev, *list_next; /* [L] */
    pthread_mutex_t lock;
    uint64_t epoch;                 /* [U] first half of its ids; no two entries ever share one */
    struct log log;                 /* [U] */
    uint64_t max_delivered_seq;     /* [U] newest message that any stream was handed whole */
    _Atomic(struct send *) pending; /* [a] newest first */
    _Atomic(struct conn *) wanted;  /* [a] streams that the loop has found something to do for */
    atomic_uint keep_alives_due;    /* [a] slices that the loop wants written */
    struct conn *streams;           /* [U] open ones */
    struct conn *closing;           /* [U] closed ones whose client has not taken all it is due */
    struct conn *next_keep_alive; /* [U] where the next keep-alive goes on; NULL: with the first */
    atomic_uint stream_count;     /* [a] written under [U] */
    int64_t hold_until_ms;        /* [U] monotonic; 0 is no hold */
    struct tally tally;           /* [U] the slot's, for one user after another */
};

/* Where a connection stands. A worker has it while it is SERVED, and when a stream is opened until
 * it is handed to the loop; in all other states the loop has it. */
enum conn_state {
    CONN_SERVED,    /* a worker reads, handles and answers its requests */
    CONN_NEW,       /* its client has said nothing yet */
    CONN_IDLE,      /* between two requests */
    CONN_READY,     /* its client has said something: it waits for a worker */
    CONN_OPEN,      /* an open stream, linked to its user */
    CONN_CLOSING,   /* a closed stream whose client has not taken all that it is due */
    CONN_COMPLETE,  /* a closed stream whose client has: the loop is to half-close it */
    CONN_LINGERING, /* half-closed: it waits for the client's own close */
    CONN_LOST,      /* nothing more to read or write: the loop is to close it */
    CONN_STATES
};

enum close_reason { NOT_CLOSED, CLOSE_DISCONNECTED, CLOSE_STOPPING, CLOSE_EXPIRED };

/* A connection slot: lives as long as the server. A stream is a cursor into its user's log: what it
 * is due are its control bytes (greeting, keep-alive, final event), then the log from `seq` on to
 * `end_seq`. */
struct conn {
    struct sse_server *server;  /* [I] */
    struct transport transport; /* [o], or [U] once it is a stream; fd changes under [C] */
    atomic_int state;           /* [a] a conn_state: its owner changes it, a stream's under [U] */
    bool is_held;               /* [C] the loop has it */
    bool is_polled;             /* [C] the poller knows its socket */
    bool is_misdirected;        /* [o] it speaks plain HTTP where HTTPS is spoken */
    bool was_blank;             /* [o] the one empty line that may precede a request has come */
    bool is_behind;             /* [U] the socket is full */
    atomic_bool is_released;    /* [a] no thread but the loop refers to it any more */
    bool is_stuck;              /* [U] TLS cannot read before it has written an answer of its own */
    bool is_asked;              /* [o] the loop has asked for it to be released */
    bool is_finished;           /* [U] its final event is written, or among its control bytes */
    int64_t since_ms;           /* [C] when it came into its state; monotonic */
    int64_t idle_ms;            /* [o] when its last request ended; 0 if one has begun since */
    struct conn *held_prev, *held_next; /* [C] in the loop's list of its state, or free ones */
    struct worker *worker;              /* [o] whose buffers it uses while it is served */

    struct user *user;               /* [I] while it is a stream: the slot */
    struct conn *prev, *next;        /* [U] */
    atomic_uint wants;               /* [a] what the loop wants done: READABLE, WRITABLE, ... */
    struct conn *wanted_next;        /* [a] in `wanted`, while `wants` is not 0 */
    enum close_reason reason;        /* [U] */
    uint64_t seq;                    /* [U] message to write next */
    uint32_t written;                /* [U] bytes of it that are already out */
    uint32_t said_bytes;             /* [U] that its client has sent on the stream */
    uint64_t live_seq;               /* [I] the first message that came after it was opened */
    uint64_t end_seq;                /* [U] where it ends; UINT64_MAX while it is open */
    int64_t expires_ms;              /* [I] its token does, in Unix time; 0 for never */
    struct slice control;            /* [U] bytes that are due before the log's */
    char final[SSE_USER_BYTES + 64]; /* [U] where the final event stands */
};

struct conn_list {
    struct conn *first, *last;
};

struct route {
    const char *methods; /* "GET", "POST" or "GET|POST" */
    const char *path;    /* exact, or ending in "/{userId}" */
    enum sse_access access;
    const char *summary;
    sse_handler handler;
    void *arg;
    const char *query; /* for OpenAPI: one of PARAMETERS, or NULL */
    const char *gives; /* and one of CONTENTS, or NULL if what it answers is not known */
    bool is_open;      /* any page may ask: it changes nothing, and tells nothing of a user */
    bool is_demo;
    bool takes_body; /* its POST does something with the body */
    bool is_stream;  /* its handler returns 0 when no request can follow */
    bool batches;    /* its handler may leave the answer to conn_complete_batch() */
};

enum { SSE_ROUTES = 16 + SSE_OWN_ROUTES }; /* room for the server's and an embedder's */

/* Why a request or a connection was refused, as /metrics counts it. */
enum refusal {
    REFUSED_MALFORMED,
    REFUSED_LATE,
    REFUSED_SIZE,
    REFUSED_ORIGIN,
    REFUSED_TOKEN,
    REFUSED_RIGHTS,
    REFUSED_HELD,
    REFUSED_STREAMS,
    REFUSED_USERS,
    REFUSED_BODIES,
    REFUSED_CONNECTIONS,
    REFUSED_THREADS,
    REFUSED_HANDSHAKE,
    REFUSED_MEMORY,
    REFUSED_STOPPING,
    REFUSALS
};

static const char *const REFUSAL_REASONS[REFUSALS] = {[REFUSED_MALFORMED] = "malformed",
                                                      [REFUSED_LATE] = "timeout",
                                                      [REFUSED_SIZE] = "too_large",
                                                      [REFUSED_ORIGIN] = "origin",
                                                      [REFUSED_TOKEN] = "token",
                                                      [REFUSED_RIGHTS] = "scope",
                                                      [REFUSED_HELD] = "held",
                                                      [REFUSED_STREAMS] = "max_streams",
                                                      [REFUSED_USERS] = "max_users",
                                                      [REFUSED_BODIES] = "bodies",
                                                      [REFUSED_CONNECTIONS] = "max_connections",
                                                      [REFUSED_THREADS] = "threads",
                                                      [REFUSED_HANDSHAKE] = "handshake",
                                                      [REFUSED_MEMORY] = "memory",
                                                      [REFUSED_STOPPING] = "stopping"};

struct origin {
    struct slice scheme, host;
    unsigned port;
};

/* A free list threaded through an array of bodies. */
struct bodies {
    char *area;           /* [I] count x max_message bytes */
    uint32_t *next;       /* [C] slot + 1; 0 is none */
    uint32_t count, free; /* [I], [C] */
};

struct sse_server {
    struct sse_config config; /* [I] */
    bool on_loopback;         /* [I] the address is not reachable from elsewhere */
    int listener;             /* the loop's, which closes it; -1 then */
    unsigned port;            /* [I] */
    struct ssl_ctx_st *tls;   /* [C] certificate and key, OpenSSL's; NULL without HTTPS */
    struct poller poller;
    atomic_bool stop_asked;   /* [a] by sse_stop() */
    atomic_bool reload_asked; /* [a] by sse_reload() */
    atomic_bool stopping;     /* [a] */

    pthread_rwlock_t table_lock;
    uint32_t *index;      /* [T] open addressing: slot + 1, 0 is empty */
    uint32_t index_mask;  /* [I] */
    struct user *users;   /* [I] max_users slots, each field with a tag of its own */
    uint32_t users_made;  /* [T] slots ever used */
    char *logs;           /* [I] max_users x log_bytes() */
    uint64_t hash_key[2]; /* [I] random */
    uint64_t next_epoch;  /* [T] begins at random */
    uint64_t evictions;   /* [T] users that made room */
    pthread_mutex_t lists_lock;
    struct user_list away; /* [L] Disconnected users, who left longest ago first */
    /* [L] Connected users, in the order in which their keep-alives are due: a list for each step of
     * the heartbeat. */
    struct user_list heartbeat[HEARTBEAT_LISTS];
    int64_t step;       /* [L] which the loop has come to; steps count from started_ms on */
    int64_t next_step;  /* [L] for which the loop wakes up */
    uint32_t joined;    /* [L] users that became Connected since the start */
    uint32_t connected; /* [L] those who are now */

    pthread_mutex_t conns_lock;
    pthread_cond_t conns_changed;       /* the server begins to stop, or a thread ends then */
    struct conn *conns;                 /* [I] max_connections + SSE_RESERVED slots, likewise */
    struct conn *conns_free;            /* [C] */
    uint32_t conns_made;                /* [C] slots ever used */
    atomic_uint conns_open;             /* [a] written under [C] */
    struct conn_list held[CONN_STATES]; /* [C] the loop's, in the order in which they came there */
    atomic_uint ready;           /* [a] how many of those wait for a worker; written under [C] */
    struct worker *workers;      /* [I] max_threads, and one that is the loop's */
    struct worker *workers_free; /* [C] those without a thread */
    struct worker *workers_idle; /* [C] those whose thread waits for a connection, latest first */
    uint32_t workers_made;       /* [C] ever used */
    uint32_t workers_idle_count; /* [C] */
    uint32_t threads;            /* [C] */
    atomic_uint tasks;           /* [a] requests under way that take their time */
    struct bodies bodies;
    struct route routes[SSE_ROUTES]; /* [I] once running: the server's, then an embedder's */
    size_t route_count;              /* [I] once running */
    size_t own_routes_at;            /* [I] where an embedder's begin */

    int64_t started_ms;        /* [I] monotonic */
    atomic_uint stream_count;  /* [a] open streams */
    uint64_t retry_seed;       /* [I] random */
    atomic_ulong retries;      /* [a] drawn */
    uint64_t nonce_keys[2][2]; /* [I] random */
    atomic_ulong nonces;       /* [a] given out */
    /* Where a long has 32 bits these two begin again after 2^32, as if after a restart. */
    atomic_ulong requests[SSE_ROUTES + 1][SSE_STATUSES]; /* [a] answered; the last row for none */
    atomic_ulong refusals[REFUSALS];                     /* [a] */
};

/* ==== Text and JSON =============================================================================
 *
 * Text is composed in buffers of fixed size. What does not fit is left out whole and sets `full`.
 * Most buffers are sized so that this cannot happen; sse_print(), where it can, looks. */

/* The monotonic clock, which nobody can set: for deadlines and durations. */
static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Milliseconds of the same clock. */
static int64_t now_ms(void)
{
    return now_us() / 1000;
}

/* The time of day, which an administrator can set: for when tokens expire. */
static int64_t unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* An empty text in the caller's buffer. */
static struct text text_over(char *at, size_t cap)
{
    return (struct text){.at = at, .cap = cap};
}

/* The slice of a C string; of NULL it is empty, with a non-NULL `at`. */
static struct slice slice_of(const char *string)
{
    return string ? (struct slice){string, strlen(string)} : (struct slice){"", 0};
}

/* An ASCII letter or digit, whatever the locale of the program around the server. */
static bool char_is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Compares two slices, byte for byte. */
static bool slice_same(struct slice a, struct slice b)
{
    return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

/* Compares a slice and a C string. */
static bool slice_is(struct slice s, const char *word)
{
    return slice_same(s, slice_of(word));
}

/* Of ASCII alone: tolower() follows the locale, and in Turkish I is not i. */
static int char_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* Compares two slices regardless of the case of ASCII letters. */
static bool slice_same_nocase(struct slice a, struct slice b)
{
    size_t same = 0;
    while (a.len == b.len && same < a.len && char_lower(a.at[same]) == char_lower(b.at[same]))
        same++;
    return a.len == b.len && same == a.len;
}

/* Compares a slice and a C string regardless of case. */
static bool slice_is_nocase(struct slice s, const char *word)
{
    return slice_same_nocase(s, slice_of(word));
}

/* Whether the slice begins with the word, in any case. */
static bool slice_begins(struct slice s, const char *word)
{
    size_t len = strlen(word);
    return s.len >= len && slice_is_nocase((struct slice){s.at, len}, word);
}

/* Cuts *s at the first `c`: returns what stands before it and leaves in *s what follows, or
 * returns all and leaves at = NULL if there is none. */
static struct slice slice_cut(struct slice *s, char c)
{
    struct slice head = *s;
    const char *at = s->len ? memchr(s->at, c, s->len) : NULL;
    *s = (struct slice){NULL, 0};
    if (at) {
        s->at = at + 1;
        s->len = head.len - (size_t)(at - head.at) - 1;
        head.len = (size_t)(at - head.at);
    }
    return head;
}

/* Returns the slice without optional white space (RFC 9110 section 5.6.3) at either end. */
static struct slice slice_trim(struct slice s)
{
    while (s.len && (s.at[0] == ' ' || s.at[0] == '\t'))
        s.at++, s.len--;
    while (s.len && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* How many bytes at the slice's front are ASCII letters, digits, or among the marks. */
static size_t slice_span(struct slice s, const char *marks)
{
    size_t n = 0;
    while (n < s.len && (char_is_alnum(s.at[n]) || (s.at[n] && strchr(marks, s.at[n]))))
        n++;
    return n;
}

/* Appends all of it or nothing. */
static void text_put(struct text *t, const char *bytes, size_t len)
{
    if (t->full || len > t->cap - t->len) {
        t->full = true;
        return;
    }
    if (len > 0)
        memcpy(t->at + t->len, bytes, len);
    t->len += len;
}

/* Appends a C string, likewise. */
static void text_string(struct text *t, const char *string)
{
    text_put(t, string, strlen(string));
}

/* Appends what printf() would write, likewise; it needs room for a NUL behind it. */
static void text_vprint(struct text *t, const char *format, va_list args)
{
    size_t room = t->cap - t->len;
    int n = vsnprintf(t->at + t->len, room, format, args);
    if (t->full || n < 0 || (size_t)n >= room)
        t->full = true;
    else
        t->len += (size_t)n;
}

/* Appends what printf() would write, like text_vprint(). */
SSE_PRINTF(2, 3) static void text_print(struct text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_vprint(t, format, args);
    va_end(args);
}

/* Appends a number in base 10 or 16, without printf(), which takes longer than all the rest of a
 * message's frame or an answer's fields. */
static void text_digits(struct text *t, uint64_t number, unsigned base)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = "0123456789abcdef"[number % base];
    while (number /= base);
    text_put(t, digits + at, sizeof digits - at);
}

/* Appends a number in base 10. */
static void text_decimal(struct text *t, uint64_t number)
{
    text_digits(t, number, 10);
}

/* Length in bytes of the UTF-8 sequence at `s`, or 0 if it is not well-formed (Unicode 15, table
 * 3-7: no overlong forms, no surrogates, nothing above U+10FFFF). */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* that takes so many bytes */
    size_t need = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xC0 || s[0] >= 0xF8 || len < need)
        return 0;
    uint32_t code = s[0] & (0x7FU >> need);
    for (size_t i = 1; i < need; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3F);
    }
    bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    return code < least[need] || code > 0x10FFFF || surrogate ? 0 : need;
}

/* Whether the bytes are UTF-8 without NUL, as a message must be. */
static bool text_is_utf8(const char *bytes, size_t len)
{
    const unsigned char *s = (const unsigned char *)bytes;
    for (size_t i = 0, n; i < len; i += n)
        if (s[i] == 0 || (n = utf8_sequence(s + i, len - i)) == 0)
            return false;
    return true;
}

/* Whether the bytes are UTF-8 without control characters (C0, DEL, C1), as a name must be. */
static bool text_is_name(const char *bytes, size_t len)
{
    const unsigned char *s = (const unsigned char *)bytes;
    for (size_t i = 0, n; i < len; i += n)
        if (s[i] < 0x20 || s[i] == 0x7F || (n = utf8_sequence(s + i, len - i)) == 0 ||
            (s[i] == 0xC2 && s[i + 1] < 0xA0))
            return false;
    return true;
}

/* Whether the bytes are a user id: a name, but not `.` or `..`, which browsers collapse in URLs. */
static bool text_is_user_id(const char *bytes, size_t len)
{
    return len >= 1 && len <= SSE_USER_BYTES && text_is_name(bytes, len) &&
           !(bytes[0] == '.' && (len == 1 || (len == 2 && bytes[1] == '.')));
}

/* Appends what stands between a JSON string's quotes (RFC 8259 section 7). Bytes that are not UTF-8
 * become U+FFFD, so that the output always is. */
static void json_escape(struct text *t, const char *utf8, size_t len)
{
    static const char shorts[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    const unsigned char *s = (const unsigned char *)utf8;

    for (size_t i = 0; i < len;) {
        size_t n = utf8_sequence(s + i, len - i);
        const char *quick = s[i] ? strchr(shorts, s[i]) : NULL;
        if (n == 0)
            text_string(t, "\xEF\xBF\xBD");
        else if (quick)
            text_print(t, "\\%c", letters[quick - shorts]);
        else if (s[i] < 0x20)
            text_print(t, "\\u%04x", s[i]);
        else
            text_put(t, utf8 + i, n);
        i += n ? n : 1;
    }
}

/* Appends a whole JSON string, with its quotes. */
static void json_string(struct text *t, const char *utf8, size_t len)
{
    text_put(t, "\"", 1);
    json_escape(t, utf8, len);
    text_put(t, "\"", 1);
}

/* The value of a hexadecimal digit, or -1. */
static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, char_lower(c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Decodes %XX (RFC 3986 section 2.1). Returns the decoded length, or -1 if an escape is malformed
 * or the result is over `cap`. In a query `+` stands for a space, as HTML forms write it. */
static int percent_decode(struct slice in, bool in_query, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++, n++) {
        char c = in.at[i];
        if (n == cap)
            return -1;
        if (c == '%') {
            int high = i + 1 < in.len ? hex_digit(in.at[i + 1]) : -1;
            int low = i + 2 < in.len ? hex_digit(in.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return -1;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && in_query) {
            c = ' ';
        }
        out[n] = c;
    }
    return (int)n;
}

/* Whether the slice holds decimal digits and nothing else. */
static bool text_is_digits(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
    return s.len > 0;
}

/* Reads a decimal number of digits only. False if it is none, or over `max`. */
static bool text_number(struct slice s, uint64_t max, uint64_t *value)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.at[i] - '0';
        if (digit > 9 || digit > max || v > (max - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *value = v;
    return s.len > 0;
}

/* Appends the current date as RFC 3339 has it: 2026-01-31T12:00:00Z */
static void text_iso_date(struct text *t)
{
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    text_print(t, "%04d-%02d-%02dT%02d:%02d:%02dZ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
               utc.tm_hour, utc.tm_min, utc.tm_sec);
}

enum { HTTP_DATE_BYTES = 29 };

/* The date of a second, written once for all the answers of that second. */
struct date {
    time_t at;
    char text[HTTP_DATE_BYTES + 1];
};

/* The current date as RFC 9110 section 5.6.7 has it: Sat, 31 Jan 2026 12:00:00 GMT */
static const char *date_now(struct date *d)
{
    static const char days[] = "SunMonTueWedThuFriSat"; /* in English whatever the locale */
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    struct text t = text_over(d->text, sizeof d->text);
    struct tm utc;

    if (now == d->at)
        return d->text;
    d->at = now;
    gmtime_r(&now, &utc);
    text_print(&t, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + (size_t)utc.tm_wday * 3,
               utc.tm_mday, months + (size_t)utc.tm_mon * 3, utc.tm_year + 1900, utc.tm_hour,
               utc.tm_min, utc.tm_sec);
    return d->text;
}

/* ==== Transport =================================================================================
 *
 * The only calls that move bytes over a connection: a plain socket, or TLS over one. None raises
 * SIGPIPE. What differs between platforms stands first, the poller last. Cryptography is OpenSSL's
 * alone, and stands in a block of its own: on a first reading, skip from #ifdef SSE_TLS to
 * transport_wait(). */

/* ---- Platforms: what goes beyond POSIX.1-2008, or is missing somewhere, with a fallback ---- */

#ifndef MSG_NOSIGNAL /* macOS before 15: SO_NOSIGPIPE does the same */
#define MSG_NOSIGNAL 0
#endif

/* With -DSSE_POLL the poller uses poll() on Linux, too. */
#if defined(__linux__) && !defined(SSE_POLL)
#define HAS_EPOLL
#include <sys/epoll.h>
#endif

/* The event by which poll() tells that the peer has closed, even with input still unread, or that
 * we have shut the socket for reading. Elsewhere a read has to find out. */
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* A condition whose waits run on the monotonic clock. */
static bool cond_init(pthread_cond_t *cond)
{
#ifdef __APPLE__ /* has no such clock for conditions: cond_wait() waits for a span of time */
    return pthread_cond_init(cond, NULL) == 0;
#else
    pthread_condattr_t monotonic;
    return pthread_condattr_init(&monotonic) == 0 &&
           pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
           pthread_cond_init(cond, &monotonic) == 0 && pthread_condattr_destroy(&monotonic) == 0;
#endif
}

/* Waits until the condition is signalled, now and then for no reason, or until the deadline (-1 is
 * none). False at the deadline. */
static bool cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline_ms)
{
    if (deadline_ms < 0)
        return pthread_cond_wait(cond, mutex) == 0;
    int64_t ms = deadline_ms + 1; /* now_ms() rounds down */
#ifdef __APPLE__
    int64_t now = now_ms();
    ms = ms > now ? ms - now : 0;
#endif
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
#ifdef __APPLE__
    return pthread_cond_timedwait_relative_np(cond, mutex, &t) == 0;
#else
    return pthread_cond_timedwait(cond, mutex, &t) == 0;
#endif
}

/* Fills `to` with at most 256 random bytes. False with errno set. Where getentropy() is declared,
 * it comes first, because it takes no file and works in an empty root directory as well. */
static bool random_fill(void *to, size_t len)
{
#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) ||                          \
    (defined(__linux__) && !defined(__GLIBC__)) ||                                                 \
    (defined(__USE_MISC) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 25))
    if (getentropy(to, len) == 0)
        return true;
#endif
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool filled = fd >= 0 && read(fd, to, len) == (ssize_t)len;
    if (fd >= 0)
        close(fd);
    return filled;
}

/* After a rush, gives whole pages of this area back to the system. They will read as zeros. */
static void memory_release(void *at, size_t len)
{
#ifdef __linux__
    size_t page = (size_t)sysconf(_SC_PAGESIZE), skipped = -(uintptr_t)at & (page - 1);
    if (skipped + page <= len)
        madvise((char *)at + skipped, (len - skipped) & ~(page - 1), MADV_DONTNEED);
#else
    (void)at, (void)len;
#endif
}

/* Sets what the server wants of the listener, which connections inherit on Linux, and elsewhere of
 * each connection. Where the platform can, the listener hands a connection over only when its
 * client has said something, or after a second: most need not wait in the loop. */
static void transport_prepare(int fd)
{
    struct timeval moment = {.tv_usec = SSE_MOMENT_MS * 1000L};
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
#ifdef TCP_DEFER_ACCEPT /* in seconds */
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof on);
#endif
}

/* A new connection, or -1. Programs that the one around us may start do not inherit it. */
static int transport_accept(int listener)
{
#if defined(__linux__) && (defined(__USE_GNU) || !defined(__GLIBC__)) /* else it is not declared */
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
#else
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return fd;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
#ifndef __linux__
    fcntl(fd, F_SETFL, 0); /* elsewhere it inherits O_NONBLOCK from the listener */
    transport_prepare(fd);
#endif
    return fd;
#endif
}

/* What a connection is set to when it becomes a stream: a peer that answers nothing, or whose
 * window is closed, is asked again at least every ask_ms (1 s at the least) rather than ever more
 * rarely. Linux can from 6.15 on; elsewhere one that vanishes with its window closed is noticed
 * late. */
static void transport_become_stream(int fd, unsigned ask_ms)
{
#ifdef __linux__
    enum { RTO_MAX_MS = 44 }; /* TCP_RTO_MAX_MS, which C libraries do not name yet */
    unsigned most = ask_ms > 1000 ? ask_ms : 1000;
    setsockopt(fd, IPPROTO_TCP, RTO_MAX_MS, &most, sizeof most);
#else
    (void)fd, (void)ask_ms;
#endif
}

/* Has the peer acknowledged nothing for so long, though it was asked again? One that merely reads
 * nothing does answer: its window is closed, but it is there. (TCP_USER_TIMEOUT would make no
 * difference between the two.) Where the platform cannot tell, its own timeout decides. */
static bool transport_is_silent(int fd, unsigned ms)
{
#if defined(__linux__) && (defined(_GNU_SOURCE) || defined(__GLIBC__))
    struct tcp_info info;
    socklen_t len = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
           info.tcpi_retransmits + info.tcpi_probes >= 2 && info.tcpi_last_ack_recv >= ms;
#else
    (void)fd, (void)ms;
    return false;
#endif
}

/* ---- Sockets ---- */

enum { IO_LATER = -1 }; /* nothing can be moved now */

/* Reads. Returns the bytes read, 0 when the peer has closed or the connection failed, or IO_LATER.
 */
static ssize_t socket_read(int fd, void *to, size_t len, int flags)
{
    ssize_t n;
    do
        n = recv(fd, to, len, flags);
    while (n < 0 && errno == EINTR);
    bool later = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    return later ? IO_LATER : n < 0 ? 0 : n;
}

/* Writes what fits without waiting. Returns the bytes written, 0 when the connection failed, or
 * IO_LATER. */
static ssize_t socket_write(int fd, struct iovec *parts, int count)
{
    struct msghdr message = {.msg_iov = parts};
    ssize_t n;

    for (int i = 0; i < count; i++)
        message.msg_iovlen++; /* its type differs between C libraries */
    do
        n = count == 1 /* the same, and quicker */
                ? send(fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                : sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    bool later = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    return later ? IO_LATER : n < 0 ? 0 : n;
}

#ifdef SSE_TLS

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum {
    TLS_IS_BUILT = 1,
    TLS_PROGRAM_BYTES = 8388608, /* OpenSSL itself, in the memory line */
    TLS_CONN_BYTES = 131072      /* and a connection's share: 14 KiB at rest, 90 in its handshake */
};

/* Reads for OpenSSL, without waiting, and no more than the transport's allowance: so a client can
 * make OpenSSL hold little, and keep it busy briefly. */
static int tls_bio_read(BIO *bio, char *to, int len)
{
    struct transport *t = BIO_get_data(bio);
    size_t most = (size_t)len < t->allowance ? (size_t)len : t->allowance;
    ssize_t n = most > 0 ? socket_read(t->fd, to, most, MSG_DONTWAIT) : IO_LATER;

    BIO_clear_retry_flags(bio);
    if (n == IO_LATER)
        BIO_set_retry_read(bio);
    else
        t->allowance -= (size_t)n;
    return (int)n;
}

/* Writes for OpenSSL, without waiting. */
static int tls_bio_write(BIO *bio, const char *bytes, int len)
{
    struct transport *t = BIO_get_data(bio);
    struct iovec part = {(void *)bytes, (size_t)len};
    ssize_t n = socket_write(t->fd, &part, 1);

    BIO_clear_retry_flags(bio);
    if (n == IO_LATER)
        BIO_set_retry_write(bio);
    return (int)n;
}

/* Answers what else OpenSSL asks. FLUSH succeeds, because nothing is kept here. EOF is asked only
 * after a read that failed for good, and then it is the end. */
static long tls_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_EOF;
}

/* Returns these three as OpenSSL wants them, made once for the process. NULL without memory. */
static BIO_METHOD *tls_bio_method(void)
{
    static _Atomic(BIO_METHOD *) kept;
    BIO_METHOD *method = atomic_load(&kept), *before = NULL;

    if (method)
        return method;
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sse transport");
    if (method && BIO_meth_set_read(method, tls_bio_read) &&
        BIO_meth_set_write(method, tls_bio_write) && BIO_meth_set_ctrl(method, tls_bio_control) &&
        atomic_compare_exchange_strong(&kept, &before, method))
        return method;
    BIO_meth_free(method);
    return before; /* of another server that was quicker, if there is one */
}

/* ALPN (RFC 7301): HTTP/1.1, or else 1.0; a client that speaks only others is told so. */
static int tls_choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                               const unsigned char *offers, unsigned offers_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";
    (void)ssl, (void)arg;
    int found = SSL_select_next_proto((unsigned char **)out, out_len, ours, sizeof ours - 1, offers,
                                      offers_len);
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Before all else of OpenSSL's. Threads may still run when the program exits: nothing is to be
 * cleaned up under them. */
static void tls_init(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
}

/* Shakes hands with itself. What OpenSSL could not set up, for lack of memory or because of a kind
 * of key that it has no use for, would otherwise show only when clients come. */
static bool tls_works(SSL_CTX *context)
{
    SSL_CTX *client_context = SSL_CTX_new(TLS_client_method());
    SSL *client = client_context ? SSL_new(client_context) : NULL, *server = SSL_new(context);
    BIO *here = NULL, *there = NULL;
    bool done = false;

    if (client && server && BIO_new_bio_pair(&here, 0, &there, 0) == 1) {
        SSL_set_bio(client, here, here);
        SSL_set_bio(server, there, there);
        SSL_set_connect_state(client);
        SSL_set_accept_state(server);
        for (int turns = 0; turns < 10 && !done; turns++) {
            int far = SSL_do_handshake(client), near = SSL_do_handshake(server);
            done = far == 1 && near == 1;
        }
    }
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(client_context);
    return done;
}

/* Makes a context, the caller's, with this certificate chain and its key: TLS 1.2 and 1.3,
 * ephemeral keys and authenticated ciphers only; no renegotiation, no sessions kept here (clients
 * keep their tickets). SSE_OK, SSE_ENOMEM, SSE_ECERT or SSE_EKEY; errno is then that of the file,
 * or 0 if its content is wrong. */
static int tls_load(const char *cert_file, const char *key_file, struct ssl_ctx_st **out)
{
    SSL_CTX *context = tls_bio_method() ? SSL_CTX_new(TLS_server_method()) : NULL;
    int code = SSE_OK;

    *out = NULL;
    if (!context)
        return SSE_ENOMEM;
    /* A client that closes without close_notify has closed, too: every HTTP message says its
     * length, so nothing can be cut off unnoticed. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, tls_choose_protocol, NULL);
    /* The password of an encrypted key is not asked for at the terminal: the key is rejected. */
    SSL_CTX_set_default_passwd_cb_userdata(context, "");
    ERR_clear_error();
    errno = 0;
    /* These three groups are quick. Some that OpenSSL allows by default cost 100 ms of processor
     * time for each client that asks. */
    if (SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") != 1 ||
        SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1)
        code = SSE_ENOMEM;
    else if (SSL_CTX_use_certificate_chain_file(context, cert_file) != 1)
        code = SSE_ECERT;
    else if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1 ||
             SSL_CTX_check_private_key(context) != 1)
        code = SSE_EKEY;
    if (code == SSE_OK && !tls_works(context))
        code = SSE_ECERT;
    unsigned long error = ERR_peek_error();
    errno = ERR_SYSTEM_ERROR(error) ? ERR_GET_REASON(error) : 0;
    if (code == SSE_OK)
        *out = context;
    else
        SSL_CTX_free(context);
    return code != SSE_OK && ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE ? SSE_ENOMEM : code;
}

/* Gives back one share of a context, or NULL. */
static void tls_free(struct ssl_ctx_st *context)
{
    SSL_CTX_free(context);
}

/* Returns the context with one more share, for tls_free(), or NULL. */
static struct ssl_ctx_st *tls_share(struct ssl_ctx_st *context)
{
    return context && SSL_CTX_up_ref(context) == 1 ? context : NULL;
}

enum tls_call { TLS_HANDSHAKE, TLS_READ, TLS_WRITE };

/* Calls OpenSSL. Returns the bytes moved, 1 for a handshake that is done, 0 when the peer has
 * closed or the connection failed, or IO_LATER. Never waits. */
static ssize_t tls_call(struct transport *t, enum tls_call call, void *bytes, size_t len)
{
    size_t n = 1;

    if (t->failed)
        return 0;
    ERR_clear_error();
    int returned = call == TLS_READ    ? SSL_read_ex(t->tls, bytes, len, &n)
                   : call == TLS_WRITE ? SSL_write_ex(t->tls, bytes, len, &n)
                                       : SSL_accept(t->tls);
    if (returned == 1)
        return (ssize_t)n;
    int error = SSL_get_error(t->tls, returned);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return IO_LATER;
    t->failed = error != SSL_ERROR_ZERO_RETURN; /* else the peer said that it was the end */
    return 0;
}

/* Puts TLS over the socket at the first call, and goes on with the handshake as far as it can
 * without waiting. 1 when it is done, 0 if it failed, or IO_LATER. */
static ssize_t tls_handshake(struct transport *t, struct ssl_ctx_st *context)
{
    if (!t->tls) {
        BIO *bio = BIO_new(tls_bio_method());
        t->tls = bio ? SSL_new(context) : NULL;
        if (!t->tls) {
            BIO_free(bio);
            return 0;
        }
        BIO_set_data(bio, t);
        BIO_set_init(bio, 1);
        SSL_set_bio(t->tls, bio, bio);
        SSL_set_accept_state(t->tls);
        t->allowance = SSE_HANDSHAKE_BYTES;
    }
    ssize_t result = tls_call(t, TLS_HANDSHAKE, NULL, 0);
    if (result == IO_LATER && SSL_want_read(t->tls) && t->allowance == 0)
        return 0; /* no client has that much to say */
    return result;
}

/* Is there input that poll() cannot see, since it is decrypted already? */
static bool tls_has_input(const struct transport *t)
{
    return t->tls && SSL_pending(t->tls) > 0;
}

/* Can TLS not read on because its own answer does not fit the socket? */
static bool transport_is_stuck(const struct transport *t)
{
    return t->tls && SSL_want_write(t->tls);
}

/* Reads and decrypts, as tls_call() says. */
static ssize_t tls_read(struct transport *t, void *to, size_t len)
{
    t->allowance = len < SSE_READ_BYTES_MIN ? SSE_READ_BYTES_MIN : len;
    return tls_call(t, TLS_READ, to, len);
}

/* Encrypts and writes what fits, like socket_write(). A record that is encrypted but did not fit
 * the socket stays with OpenSSL, and does not count as written. The next call must begin with the
 * same bytes, as every caller's does: they go on from what was counted. */
static ssize_t tls_write(struct transport *t, struct iovec *parts, int count)
{
    size_t total = 0;

    for (int i = 0; i < count; i++)
        for (size_t done = 0; done < parts[i].iov_len;) {
            char *at = (char *)parts[i].iov_base + done;
            ssize_t n = tls_call(t, TLS_WRITE, at, parts[i].iov_len - done);
            if (n <= 0)
                return total > 0 ? (ssize_t)total : n;
            done += (size_t)n;
            total += (size_t)n;
        }
    return (ssize_t)total;
}

/* Says that nothing more will come (close_notify), if there is TLS and it has not failed. */
static void tls_say_end(struct transport *t)
{
    ERR_clear_error();
    if (t->tls && !t->failed && SSL_is_init_finished(t->tls) &&
        !(SSL_get_shutdown(t->tls) & SSL_SENT_SHUTDOWN))
        SSL_shutdown(t->tls);
}

/* Ends TLS, if there is any; the socket stays open. */
static void transport_end(struct transport *t)
{
    tls_say_end(t);
    SSL_free(t->tls);
    t->tls = NULL;
    t->failed = false;
}

/* After a rush: malloc() keeps what connections have freed, unless it is told. */
static void tls_tidy(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/* HMAC with SHA-256 (RFC 2104). False without memory. */
static bool hmac_sha256(struct slice key, struct slice message, unsigned char mac[32])
{
    const unsigned char *bytes = (const unsigned char *)message.at;
    return HMAC(EVP_sha256(), key.at, (int)key.len, bytes, message.len, mac, NULL) != NULL;
}

/* Compares in a time that does not depend on where they differ. */
static bool mac_is(const unsigned char mac[32], const char *other)
{
    return CRYPTO_memcmp(mac, other, 32) == 0;
}

#else /* without OpenSSL: sse_create() rejects what would need it, and none of this is reached */

enum { TLS_IS_BUILT = 0, TLS_PROGRAM_BYTES = 0, TLS_CONN_BYTES = 0 };

/* clang-format off */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter" /* NOLINTBEGIN(misc-unused-parameters) */
static void tls_init(void) {}
static int tls_load(const char *cert, const char *key, struct ssl_ctx_st **out) { return SSE_ENOTLS; }
static void tls_free(struct ssl_ctx_st *context) {}
static struct ssl_ctx_st *tls_share(struct ssl_ctx_st *context) { return context; }
static ssize_t tls_handshake(struct transport *t, struct ssl_ctx_st *context) { return 0; }
static bool tls_has_input(const struct transport *t) { return false; }
static bool transport_is_stuck(const struct transport *t) { return false; }
static ssize_t tls_read(struct transport *t, void *to, size_t len) { return 0; }
static ssize_t tls_write(struct transport *t, struct iovec *parts, int count) { return 0; }
static void tls_say_end(struct transport *t) {}
static void transport_end(struct transport *t) {}
static void tls_tidy(void) {}
static bool hmac_sha256(struct slice key, struct slice message, unsigned char *mac) { return false; }
static bool mac_is(const unsigned char *mac, const char *other) { return false; }
#pragma GCC diagnostic pop /* NOLINTEND(misc-unused-parameters) */
/* clang-format on */

#endif

/* Waits for POLLIN or POLLOUT until the deadline. False if that did not come. Before TLS can read
 * on it may have to write, an answer of its own; a peer that has closed by then is not waited
 * for. */
static bool transport_wait(struct transport *t, short events, int64_t deadline_ms)
{
    bool reads = events & POLLIN, writes = reads && transport_is_stuck(t);
    struct pollfd p = {.fd = t->fd, .events = events};
    int n;

    if (writes)
        p.events = (short)(POLLOUT | POLLRDHUP);
    if (reads && tls_has_input(t))
        return true;
    do {
        int64_t left = deadline_ms - now_ms();
        n = left > 0 ? poll(&p, 1, (int)left) : 0;
    } while (n < 0 && errno == EINTR);
    t->failed |= n > 0 && writes && (p.revents & ~POLLOUT);
    return n > 0;
}

/* Reads at most len bytes, after waiting for them for SSE_MOMENT_MS if that is asked for. Returns
 * the bytes read, 0 when the peer has closed or the connection failed, or IO_LATER: over TLS also
 * if what came held nothing for us. */
static ssize_t transport_read(struct transport *t, void *to, size_t len, bool waits)
{
    if (!t->tls)
        return socket_read(t->fd, to, len, waits ? 0 : MSG_DONTWAIT);
    ssize_t n = tls_read(t, to, len);
    if (n == IO_LATER && waits && transport_wait(t, POLLIN, now_ms() + SSE_MOMENT_MS))
        n = tls_read(t, to, len);
    return n;
}

/* Sets how many bytes must have come for the poller to tell of them; of the end it tells anyway. */
static void transport_expect(struct transport *t, int bytes)
{
    setsockopt(t->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

/* Writes what fits without waiting. Returns the bytes written, 0 when the connection failed, or
 * IO_LATER. */
static ssize_t transport_write(struct transport *t, struct iovec *parts, int count)
{
    return t->tls ? tls_write(t, parts, count) : socket_write(t->fd, parts, count);
}

/* Writes all of it, waiting for the peer until the deadline. False if it could not. */
static bool transport_write_all(struct transport *t, const char *bytes, size_t len,
                                int64_t deadline_ms)
{
    for (size_t done = 0; done < len;) {
        struct iovec part = {(void *)(bytes + done), len - done};
        ssize_t n = transport_write(t, &part, 1);
        if (n == 0 || (n == IO_LATER && !transport_wait(t, POLLOUT, deadline_ms)))
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* Closes our side only. RFC 9112 section 9.6: closing both while the peer still sends would reset
 * the connection, and could take our last answer with it. False if the connection has failed. */
static bool transport_half_close(struct transport *t)
{
    tls_say_end(t);
    return shutdown(t->fd, SHUT_WR) == 0;
}

/* Drops what a half-closed connection still sends, a few KiB of it; nobody needs to decrypt that.
 * With `waits` it waits a moment for the end. False when the peer has closed, too. */
static bool transport_drop(struct transport *t, bool waits)
{
    char sink[1024];
    ssize_t n = 1;
    for (int reads = 0; reads < 16 && n > 0; reads++)
        n = socket_read(t->fd, sink, sizeof sink, waits && reads == 0 ? 0 : MSG_DONTWAIT);
    return n != 0;
}

/* Has the client said something that is not read yet, or closed? IO_LATER if it has done neither, 0
 * if it has closed. */
static ssize_t transport_peek(const struct transport *t)
{
    char first;
    return socket_read(t->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
}

/* Does the client speak plain HTTP where TLS is expected? A TLS handshake begins with the byte 22
 * (RFC 8446 section 5.1), a request in plain HTTP with a letter. */
static bool transport_hears_plain(const struct transport *t)
{
    char first;
    return socket_read(t->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 &&
           ((first >= 'A' && first <= 'Z') || (first >= 'a' && first <= 'z'));
}

/* Sets up TLS over a socket that has none of it yet. False if that failed, or took too long. */
static bool transport_secure(struct transport *t, struct ssl_ctx_st *context, int64_t deadline_ms)
{
    ssize_t n;
    while ((n = tls_handshake(t, context)) == IO_LATER)
        if (now_ms() >= deadline_ms || !transport_wait(t, POLLIN, deadline_ms))
            return false;
    return n > 0;
}

/* Makes the connection end with a reset, so that the peer does not take its end for a proper
 * one. */
static void transport_abort(struct transport *t)
{
    struct linger at_once = {.l_onoff = 1};
    setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    t->failed = true; /* TLS says nothing more either */
}

/* ---- Poller: which of many sockets are ready ----
 *
 * Each socket has a slot, a small number by which it is reported. What is asked of it is reported
 * once; to hear of it again, ask again with poller_change(). A report may be out of date: whoever
 * acts on it must not wait for the socket. */

enum { READABLE = 1, WRITABLE = 2, CLOSED = 4 };

struct poller_event {
    uint32_t slot;
    unsigned events;
};

enum { POLLER_WAKEUP, POLLER_LISTENER, POLLER_CONNS }; /* slots: the connections' come last */

/* Ends poller_wait() if the loop is in it, or about to be. Async-signal-safe. */
static void poller_wake(struct poller *p)
{
    int error = errno;
    if (atomic_exchange(&p->is_waiting, false))
        while (write(p->wakeup[1], "", 1) < 0 && errno == EINTR)
            ; /* a pipe that is full wakes it, too */
    errno = error;
}

#ifdef HAS_EPOLL

/* Asks for the events with EPOLL_CTL_ADD or EPOLL_CTL_MOD. */
static bool poller_ask(struct poller *p, int operation, uint32_t slot, int fd, unsigned events)
{
    struct epoll_event e = {.events = EPOLLONESHOT, .data.u32 = slot};
    e.events |= events & READABLE ? (uint32_t)(EPOLLIN | EPOLLRDHUP) : 0;
    e.events |= events & WRITABLE ? (uint32_t)EPOLLOUT : 0;
    return epoll_ctl(p->fd, operation, fd, &e) == 0;
}

/* From now on the poller waits for these events of a socket it did not know. False without
 * memory. */
static bool poller_add(struct poller *p, uint32_t slot, int fd, unsigned events)
{
    return poller_ask(p, EPOLL_CTL_ADD, slot, fd, events);
}

/* Likewise of one it knows. */
static bool poller_change(struct poller *p, uint32_t slot, int fd, unsigned events)
{
    return poller_ask(p, EPOLL_CTL_MOD, slot, fd, events);
}

/* To be called before the socket is closed, which is all that epoll needs. */
static void poller_remove(struct poller *p, uint32_t slot)
{
    (void)p, (void)slot;
}

/* Waits for at most timeout_ms (-1: for good). Writes up to `max` events, and returns how many, or
 * -1 with errno set. */
static int poller_wait(struct poller *p, struct poller_event *out, int max, int timeout_ms)
{
    struct epoll_event ready[SSE_EVENTS];
    int n = epoll_wait(p->fd, ready, max < SSE_EVENTS ? max : SSE_EVENTS, timeout_ms);

    for (int i = 0; i < n; i++) {
        uint32_t e = ready[i].events;
        out[i].slot = ready[i].data.u32;
        out[i].events = (e & EPOLLIN ? READABLE : 0) | (e & EPOLLOUT ? WRITABLE : 0) |
                        (e & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? CLOSED : 0);
    }
    return n;
}

#else /* the same with poll(), whose loop keeps a list of the sockets */

static bool poller_change(struct poller *p, uint32_t slot, int fd, unsigned events)
{
    short asked =
        (short)((events & READABLE ? POLLIN | POLLRDHUP : 0) | (events & WRITABLE ? POLLOUT : 0));
    pthread_mutex_lock(&p->lock);
    for (; p->count <= slot; p->count++)
        p->wanted[p->count].fd = -1;
    p->wanted[slot] = (struct pollfd){.fd = fd, .events = asked};
    pthread_mutex_unlock(&p->lock);
    poller_wake(p);
    return true;
}

static bool poller_add(struct poller *p, uint32_t slot, int fd, unsigned events)
{
    return poller_change(p, slot, fd, events);
}

static void poller_remove(struct poller *p, uint32_t slot)
{
    poller_change(p, slot, -1, 0);
}

static int poller_wait(struct poller *p, struct poller_event *out, int max, int timeout_ms)
{
    static const short closed = POLLRDHUP | POLLHUP | POLLERR | POLLNVAL;
    int n = 0;

    pthread_mutex_lock(&p->lock);
    uint32_t count = p->count;
    memcpy(p->polled, p->wanted, count * sizeof *p->polled);
    pthread_mutex_unlock(&p->lock);
    int ready = poll(p->polled, count, timeout_ms);
    pthread_mutex_lock(&p->lock);
    for (uint32_t k = 0; k < count && n < ready && n < max; k++) {
        uint32_t i = p->next = (p->next + 1) % count; /* goes on where it ended the last time */
        short e = p->polled[i].revents;
        if (p->polled[i].fd < 0 || !e)
            continue;
        p->wanted[i].fd = -1;
        out[n].slot = i;
        out[n++].events = (e & POLLIN ? READABLE : 0U) | (e & POLLOUT ? WRITABLE : 0U) |
                          (e & closed ? CLOSED : 0U);
    }
    pthread_mutex_unlock(&p->lock);
    return ready < 0 ? -1 : n;
}

#endif

/* Reserves what `slots` sockets need. False with errno set. */
static bool poller_init(struct poller *p, uint32_t slots)
{
    p->fd = p->wakeup[0] = p->wakeup[1] = -1;
    if (pthread_mutex_init(&p->lock, NULL) != 0 || pipe(p->wakeup) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fcntl(p->wakeup[i], F_SETFD, FD_CLOEXEC);
        fcntl(p->wakeup[i], F_SETFL, O_NONBLOCK);
    }
#ifdef HAS_EPOLL
    (void)slots;
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->fd < 0)
        return false;
#else
    p->wanted = calloc(slots, sizeof *p->wanted);
    p->polled = calloc(slots, sizeof *p->polled);
    if (!p->wanted || !p->polled)
        return false;
#endif
    return poller_add(p, POLLER_WAKEUP, p->wakeup[0], READABLE);
}

/* Frees what poller_init() has reserved, be it only a part. */
static void poller_free(struct poller *p)
{
    for (int i = 0; i < 2; i++)
        if (p->wakeup[i] >= 0)
            close(p->wakeup[i]);
    if (p->fd >= 0)
        close(p->fd);
    free(p->wanted);
    free(p->polled);
    pthread_mutex_destroy(&p->lock);
}

/* ==== HTTP parser ===============================================================================
 *
 * Pure: bytes in; out comes a request, an HTTP status, or "need more". No I/O, no allocation, no
 * copy: the request's slices point into the input. It takes the strict reading of RFC 9112 wherever
 * leniency would let two parsers see two different messages (request smuggling). What is wrong is
 * told as soon as it can be seen; every prefix of a valid head says "need more".
 *
 * From here to the last handler an int that a step returns has one meaning: 0 to go on, an HTTP
 * status when the answer is known and its detail is written, or CLOSE for a connection that can
 * only be closed. A parser says besides how many bytes it has used: with 0 and none it needs
 * more. */

enum { CLOSE = -1 };

struct http_request {
    struct slice method, target, path;
    struct slice query;     /* without its `?`; at is NULL if there is none */
    struct slice authority; /* whom the client asked: of an absolute-form target, or Host */
    struct slice fields;    /* all field lines, as they came: see http_next_field() */
    /* fields that may come once only */
    struct slice host, origin, sec_fetch_site, last_event_id, authorization;
    int minor;                            /* HTTP/1.minor, 0 or 1 */
    bool wants_close, wants_keep_alive;   /* Connection */
    bool expects_continue, expects_other; /* Expect */
    bool has_codings; /* Transfer-Encoding given; then either chunked is the last ... */
    bool chunked;
    bool unknown_coding;     /* ... and something else may come before it */
    struct slice length;     /* Content-Length as written */
    uint64_t content_length; /* bytes; UINT64_MAX if it was more than fits */
    const char *why;         /* detail of a status: what is wrong, and what would be right */
};

/* Returns the status, having said why. */
static int http_reject(struct http_request *r, int status, const char *why)
{
    r->why = why;
    return status;
}

static const char HTTP_TOKEN_MARKS[] = "!#$%&'*+-.^_`|~";

/* Whether it is a token (RFC 9110 section 5.6.2), as methods and field names are. */
static bool http_is_token(struct slice s)
{
    return s.len > 0 && slice_span(s, HTTP_TOKEN_MARKS) == s.len;
}

/* Whether it is a field's value (RFC 9110 section 5.5): without control characters, and without
 * white space around it. */
static bool http_is_field_value(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] == 0x7F || ((unsigned char)s.at[i] < ' ' && s.at[i] != '\t'))
            return false;
    return s.len == 0 || (!strchr(" \t", s.at[0]) && !strchr(" \t", s.at[s.len - 1]));
}

/* Reads one line that ends in CR LF, and nothing less: a bare CR or LF, a NUL or another control
 * character but a tab is rejected. *used is its length with the CR LF, 0 if its end is missing. */
static int http_line(const char *in, size_t len, struct http_request *r, struct slice *line,
                     size_t *used)
{
    size_t end = 0;
    while (end < len && in[end] != 0x7F && ((unsigned char)in[end] >= ' ' || in[end] == '\t'))
        end++;
    *line = (struct slice){in, end};
    *used = 0;
    if (end == len || (in[end] == '\r' && end + 1 == len))
        return 0;
    if (in[end] == '\n')
        return http_reject(r, 400, "an LF without its CR; lines end in CR LF");
    if (in[end] != '\r')
        return http_reject(r, 400, "a control character where text is expected");
    if (in[end + 1] != '\n')
        return http_reject(r, 400, "a CR without its LF; lines end in CR LF");
    *used = end + 2;
    return 0;
}

/* Whether it is an address of this family, as inet_pton() reads it. */
static bool host_is_address(struct slice s, int family)
{
    char address[INET6_ADDRSTRLEN] = "";
    struct in6_addr ignored;
    if (s.len >= sizeof address)
        return false;
    memcpy(address, s.at, s.len);
    return inet_pton(family, address, &ignored) == 1;
}

/* Splits host[:port] (RFC 3986 section 3.2.2), and returns false if it is none. The port is 0 where
 * none is given. The scheme is left alone. */
static bool host_split(struct slice s, struct origin *o)
{
    uint64_t port = 0;
    struct slice host, digits = s;

    if (s.len && s.at[0] == '[') {
        host = slice_cut(&digits, ']');
        if (!digits.at || !host_is_address((struct slice){host.at + 1, host.len - 1}, AF_INET6) ||
            (digits.len && slice_cut(&digits, ':').len > 0))
            return false;
        host.len++; /* with its bracket */
    } else {
        host = slice_cut(&digits, ':');
        for (size_t i = 0; i < host.len; i++) {
            bool escape = host.at[i] == '%' && i + 2 < host.len && hex_digit(host.at[i + 1]) >= 0 &&
                          hex_digit(host.at[i + 2]) >= 0;
            if (!char_is_alnum(host.at[i]) && !escape && !strchr("-._~!$&'()*+,;=", host.at[i]))
                return false;
        }
    }
    if (digits.len && !text_number(digits, 65535, &port))
        return false;
    o->host = host;
    o->port = (unsigned)port;
    return host.len > 0;
}

/* Parses the request line (RFC 9112 section 3): method SP target SP HTTP/1.x, parted by exactly
 * one space each. The target has origin-form, absolute-form, or is `*` for OPTIONS (section
 * 3.2). */
static int http_parse_request_line(struct slice line, struct http_request *r)
{
    struct slice version = line;
    struct origin ignored;

    r->method = slice_cut(&version, ' ');
    r->target = slice_cut(&version, ' ');
    struct slice rest = r->target, after = rest, scheme = slice_cut(&after, ':');
    bool is_options = slice_is(r->method, "OPTIONS");
    if (!http_is_token(r->method) || rest.len == 0 || !version.at)
        return http_reject(r, 400, "the request line must read: METHOD TARGET HTTP/1.1");
    if (version.len != 8 || memcmp(version.at, "HTTP/", 5) != 0 || version.at[6] != '.' ||
        version.at[5] < '0' || version.at[5] > '9' || version.at[7] < '0' || version.at[7] > '9')
        return http_reject(r, 400, "the request line must end in HTTP/1.1 or HTTP/1.0");
    if (version.at[5] != '1')
        return http_reject(r, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    r->minor = version.at[7] > '0'; /* 1.2 to 1.9 are served as 1.1: RFC 9110 section 2.5 */
    if (memchr(rest.at, '#', rest.len) || memchr(rest.at, '\t', rest.len))
        return http_reject(r, 400, "a request target has neither a tab nor a #fragment");
    if (rest.at[0] != '/' && !(is_options && slice_is(rest, "*"))) { /* absolute-form */
        size_t end = 2;                                              /* past the two slashes */
        if (!(slice_is_nocase(scheme, "http") || slice_is_nocase(scheme, "https")) ||
            after.len < end || memcmp(after.at, "//", end) != 0)
            return http_reject(r, 400, "the request target must begin with / or http://");
        while (end < after.len && after.at[end] != '/' && after.at[end] != '?')
            end++;
        r->authority = (struct slice){after.at + 2, end - 2};
        if (!host_split(r->authority, &ignored))
            return http_reject(r, 400, "an absolute request target must name host[:port]");
        rest = (struct slice){after.at + end, after.len - end};
    }
    r->query = rest;
    r->path = slice_cut(&r->query, '?');
    if (r->path.len == 0) /* RFC 9112 sections 3.2.1 and 3.2.4 */
        r->path = slice_of(is_options && !r->query.at ? "*" : "/");
    return 0;
}

/* Parses a field that is a list, and may come several times (RFC 9110 section 5.3). */
static int http_parse_list(struct http_request *r, struct slice name, struct slice list)
{
    bool codings = slice_is_nocase(name, "transfer-encoding");
    bool options = slice_is_nocase(name, "connection");
    bool expectations = slice_is_nocase(name, "expect");

    r->has_codings |= codings;
    while ((codings || options || expectations) && list.at) {
        struct slice parameters = slice_trim(slice_cut(&list, ',')), whole = parameters;
        struct slice coding = slice_trim(slice_cut(&parameters, ';'));
        bool is_chunked = slice_is_nocase(coding, "chunked");
        /* RFC 9112 section 6.1: chunked stands last, once, without parameters */
        if (codings && (!http_is_token(coding) || r->chunked || (is_chunked && parameters.at)))
            return http_reject(r, 400, "chunked must be the last transfer coding, and only once");
        r->chunked |= codings && is_chunked;
        r->unknown_coding |= codings && !is_chunked;
        r->wants_close |= options && slice_is_nocase(whole, "close");
        r->wants_keep_alive |= options && slice_is_nocase(whole, "keep-alive");
        /* RFC 9110 section 10.1.1 defines 100-continue alone */
        r->expects_continue |= expectations && slice_is_nocase(whole, "100-continue");
        r->expects_other |=
            expectations && whole.len > 0 && !slice_is_nocase(whole, "100-continue");
    }
    return 0;
}

/* Parses a field (RFC 9112 section 5): name, colon, value, with no space before the colon and no
 * line folding. Fields that decide something and are no lists stand in the table, and may come
 * once only. Cookie may come several times (RFC 9113 section 8.2.3), and is looked for only when
 * it is needed. */
static int http_parse_field(struct slice line, struct http_request *r)
{
    struct slice value = line, name = slice_cut(&value, ':');
    const struct { /* where the value of a field goes that may come once */
        const char *name;
        struct slice *into;
    } once[] = {{"host", &r->host},
                {"origin", &r->origin},
                {"sec-fetch-site", &r->sec_fetch_site},
                {"last-event-id", &r->last_event_id},
                {"authorization", &r->authorization}};

    if (!value.at || !http_is_token(name))
        return http_reject(r, 400, "a field must read NAME: VALUE, on one line, no space in NAME");
    value = slice_trim(value);
    if (slice_is_nocase(name, "content-length")) { /* RFC 9112 section 6.3 */
        if (!text_is_digits(value))
            return http_reject(r, 400, "Content-Length takes digits only");
        if (r->length.at && !slice_same(r->length, value))
            return http_reject(r, 400, "two Content-Length fields differ");
        r->length = value;
        if (!text_number(value, UINT64_MAX - 1, &r->content_length))
            r->content_length = UINT64_MAX; /* more than fits is over every limit */
        return 0;
    }
    for (size_t i = 0; i < sizeof once / sizeof *once; i++) {
        if (!slice_is_nocase(name, once[i].name))
            continue;
        if (once[i].into->at)
            return http_reject(r, 400, "a field that must come once comes twice");
        *once[i].into = value;
    }
    return http_parse_list(r, name, value);
}

/* Checks what takes all fields to check: that Host is there and valid, and that the body's length
 * is told in one way only (RFC 9112 sections 3.2 and 6.3), since two ways are how requests are
 * smuggled. */
static int http_validate(struct http_request *r)
{
    struct origin ignored;

    if (r->minor > 0 && !r->host.at)
        return http_reject(r, 400, "an HTTP/1.1 request must have a Host field");
    if (r->host.at && !host_split(r->host, &ignored))
        return http_reject(r, 400, "Host must read host or host:port");
    if (r->has_codings && r->length.at)
        return http_reject(r, 400, "Content-Length and Transfer-Encoding exclude each other");
    if (r->has_codings && r->minor == 0)
        return http_reject(r, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (r->has_codings && !r->chunked)
        return http_reject(r, 400, "chunked must be the last transfer coding");
    if (r->unknown_coding)
        return http_reject(r, 501, "of all transfer codings only chunked is known here");
    if (!r->authority.at) /* RFC 9112 section 3.2.2: an absolute target overrides Host */
        r->authority = r->host;
    return 0;
}

/* Parses the head of a request: request line, fields, empty line. *used is its length. */
static int http_parse_head(const char *in, size_t len, struct http_request *r, size_t *used)
{
    struct slice line;
    /* RFC 9112 section 2.2: an empty line before the request is ignored */
    size_t empty = len >= 2 && in[0] == '\r' && in[1] == '\n' ? 2 : 0, at = empty, fields_at = 0, n;
    int status = 0;

    *r = (struct http_request){.why = NULL};
    *used = 0;
    for (bool in_request_line = true;; in_request_line = false) {
        status = http_line(in + at, len - at, r, &line, &n);
        if (status)
            return status;
        if (in_request_line) { /* be it whole or not: a long target is rejected before it ends */
            struct slice rest = line;
            r->method = slice_cut(&rest, ' '); /* if it is HEAD the answer has no body */
            if (slice_cut(&rest, ' ').len > SSE_TARGET_BYTES)
                return http_reject(
                    r, 414, "the request target is over " TEXT_OF(SSE_TARGET_BYTES) " bytes");
        }
        if ((n ? at + n : len) - empty > SSE_HEAD_BYTES)
            return http_reject(
                r, 431, "the request line and fields are over " TEXT_OF(SSE_HEAD_BYTES) " bytes");
        if (n == 0)
            return 0;
        at += n;
        if (line.len == 0 && !in_request_line)
            break;
        fields_at = in_request_line ? at : fields_at;
        status = in_request_line ? http_parse_request_line(line, r) : http_parse_field(line, r);
        if (status)
            return status;
    }
    r->fields = (struct slice){in + fields_at, at - fields_at};
    *used = at;
    return http_validate(r);
}

/* Returns the value of the next field of that name; at is NULL if there is none. *rest begins as
 * r->fields, and is what follows then. */
static struct slice http_next_field(struct slice *rest, const char *name)
{
    while (rest->at) {
        struct slice value = slice_cut(rest, '\r'), line_name = slice_cut(&value, ':');
        if (rest->len > 0 && rest->at[0] == '\n')
            rest->at++, rest->len--;
        if (value.at && slice_is_nocase(line_name, name))
            return slice_trim(value);
    }
    return (struct slice){NULL, 0};
}

/* Whether the connection persists: unless told otherwise in HTTP/1.1, and only if told so in 1.0
 * (RFC 9112 section 9.3). */
static bool http_persists(const struct http_request *r)
{
    return !r->wants_close && (r->minor > 0 || r->wants_keep_alive);
}

/* A chunked body (RFC 9112 section 7.1), decoded as it comes. */
struct http_chunks {
    enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER, CHUNK_DONE } state;
    uint64_t left;   /* bytes of this chunk still to come */
    size_t trailers; /* bytes of trailer fields so far */
};

/* Takes a token, or a quoted-string (RFC 9110 section 5.6.4) if that may be, off the front. False
 * if none stands there. */
static bool http_take_word(struct slice *s, bool may_be_quoted)
{
    size_t n = slice_span(*s, HTTP_TOKEN_MARKS);
    if (may_be_quoted && s->len > 0 && s->at[0] == '"') {
        for (n = 1; n < s->len && s->at[n] != '"'; n++)
            n += s->at[n] == '\\';
        n++;
    }
    if (n == 0 || n > s->len)
        return false;
    *s = slice_trim((struct slice){s->at + n, s->len - n});
    return true;
}

/* Takes this byte, and white space behind it, off the front. False if the byte is not there. */
static bool http_take_mark(struct slice *s, char mark)
{
    if (s->len == 0 || s->at[0] != mark)
        return false;
    *s = slice_trim((struct slice){s->at + 1, s->len - 1});
    return true;
}

/* Reads the line before a chunk's data: its size in hexadecimal, then any number of ;NAME or
 * ;NAME=VALUE, which mean nothing here, with "bad" white space between (RFC 9112 section 7.1.1). */
static int http_chunk_size(struct http_chunks *c, struct slice line, struct http_request *r)
{
    struct slice rest = line, digits = slice_cut(&rest, ';');
    bool good = true;
    size_t n = 0;

    if (rest.at) {
        digits = slice_trim(digits); /* white space may stand before an extension */
        rest = slice_trim(rest);
        do
            good = http_take_word(&rest, false) &&
                   (!http_take_mark(&rest, '=') || http_take_word(&rest, true));
        while (good && http_take_mark(&rest, ';'));
    }
    if (!good || rest.len > 0)
        return http_reject(r, 400, "a chunk's extension must read ;NAME or ;NAME=VALUE");
    /* No body may have 2^58 bytes or more, so that the next digit always fits. */
    for (c->left = 0; n < digits.len && hex_digit(digits.at[n]) >= 0; n++) {
        if (c->left >> 58)
            return http_reject(r, 413, "a chunk is larger than any body may be");
        c->left = c->left * 16 + (unsigned)hex_digit(digits.at[n]);
    }
    if (n == 0 || n < digits.len || digits.at != line.at)
        return http_reject(r, 400, "a chunk must begin with its size in hexadecimal");
    c->state = c->left ? CHUNK_DATA : CHUNK_TRAILER;
    return 0;
}

/* Decodes as much of in[0..len) as it can, handing stretches of data to *data: one call returns
 * after one stretch, or one line of the framing: a size, the end of a chunk, or a trailer. Done
 * when c->state is CHUNK_DONE. */
static int http_decode_chunk(struct http_chunks *c, const char *in, size_t len, struct slice *data,
                             struct http_request *r, size_t *used)
{
    struct http_request ignored = {.why = NULL};
    struct slice line;

    *data = (struct slice){in, 0};
    if (c->state == CHUNK_DATA) {
        *used = data->len = c->left < len ? (size_t)c->left : len;
        c->left -= data->len;
        c->state = c->left ? CHUNK_DATA : CHUNK_END;
        return 0;
    }
    int status = http_line(in, len, r, &line, used);
    size_t whole = *used > 0 ? *used : line.len;
    if (status)
        return status;
    if (c->state == CHUNK_END && line.len > 0)
        return http_reject(r, 400, "a chunk is longer than its size says");
    if (c->state == CHUNK_SIZE && line.len > SSE_CHUNK_LINE_BYTES)
        return http_reject(r, 400,
                           "a chunk's size line is over " TEXT_OF(SSE_CHUNK_LINE_BYTES) " bytes");
    if (line.len > 0 && c->trailers + whole > SSE_TRAILER_BYTES)
        return http_reject(r, 431,
                           "the trailer fields are over " TEXT_OF(SSE_TRAILER_BYTES) " bytes");
    if (*used == 0)
        return 0;
    if (c->state == CHUNK_SIZE)
        return http_chunk_size(c, line, r);
    if (c->state == CHUNK_END) {
        c->state = CHUNK_SIZE;
    } else if (line.len == 0) {
        c->state = CHUNK_DONE;
    } else {
        c->trailers += whole;
        status = http_parse_field(line, &ignored);
        r->why = ignored.why;
    }
    return status;
}

/* Finds the parameter `name` of a query, and decodes it (RFC 3986 section 3.4; `+` is a space).
 * Returns its length, 0 if it is absent or empty, or -1 if it is malformed or over `cap`. */
static int http_query(struct slice query, const char *name, char *value, size_t cap)
{
    while (query.at) {
        struct slice pair = slice_cut(&query, '&'), key = slice_cut(&pair, '=');
        if (slice_is(key, name) && pair.len > 0)
            return percent_decode(pair, true, value, cap);
    }
    return 0;
}

/* ==== Origins ===================================================================================
 *
 * Every page that a browser shows can make it send requests, to a server on the same machine too.
 * The browser says which page it was, in Origin or Sec-Fetch-Site: such a request is served only if
 * the page is the server's own or listed by --cors. On loopback the Host must be a name of this
 * machine, as well. Programs send none of these fields and are not concerned. */

/* Splits scheme://host[:port] (RFC 6454 section 6.1), and returns false if it is none. The port is
 * the scheme's own where none is given. */
static bool origin_parse(struct slice s, struct origin *o)
{
    struct slice rest = s;
    if (s.len == 0 || s.len > SSE_ORIGIN_BYTES || s.at[s.len - 1] == ':')
        return false;
    o->scheme = slice_cut(&rest, ':');
    if (o->scheme.len == 0 || char_lower(o->scheme.at[0]) < 'a' ||
        char_lower(o->scheme.at[0]) > 'z' || slice_span(o->scheme, "+-.") < o->scheme.len ||
        rest.len < 3 || memcmp(rest.at, "//", 2) != 0 ||
        !host_split((struct slice){rest.at + 2, rest.len - 2}, o))
        return false;
    if (o->port == 0)
        o->port = slice_is_nocase(o->scheme, "https")  ? 443
                  : slice_is_nocase(o->scheme, "http") ? 80
                                                       : 0;
    return true;
}

/* Whether it is fit for --cors: an origin or `*`, but none that looks like a pattern. */
static bool origin_is_valid(const char *value)
{
    struct origin ignored;
    return strcmp(value, "*") == 0 ||
           (!strchr(value, '*') && origin_parse(slice_of(value), &ignored));
}

/* Returns the --cors entry that covers this origin, `*` only if none names it, or NULL. */
static const char *origin_listed(const struct sse_config *config, struct slice origin)
{
    struct origin asked, listed;
    bool parsed = origin.at && origin_parse(origin, &asked);
    const char *any = NULL;
    for (size_t i = 0; origin.at && i < config->cors_count; i++) {
        if (strcmp(config->cors[i], "*") == 0)
            any = config->cors[i];
        if (parsed && origin_parse(slice_of(config->cors[i]), &listed) &&
            asked.port == listed.port && slice_same_nocase(asked.host, listed.host) &&
            slice_same_nocase(asked.scheme, listed.scheme))
            return config->cors[i];
    }
    return any;
}

/* Whether the origin's host and port equal those the client asked for, whatever the scheme. A
 * client that names no port means that of HTTPS if the server speaks it; otherwise a proxy may
 * stand in front of the server, and the origin's scheme tells. */
static bool origin_is_own(struct slice origin, struct slice authority, bool https)
{
    struct origin o, own;
    if (!origin_parse(origin, &o) || !host_split(authority, &own))
        return false;
    if (own.port == 0)
        own.port = https || slice_is_nocase(o.scheme, "https") ? 443 : 80;
    return own.port == o.port && slice_same_nocase(own.host, o.host);
}

/* Whether a client on this machine may ask for that host. A DNS name that was made to point at
 * loopback ("rebinding") must be no way in: only localhost, an IP literal, and the host of a listed
 * origin are names for this machine. */
static bool authority_is_trusted(const struct sse_config *config, struct slice authority)
{
    struct origin asked, listed;
    bool trusted = !authority.at || !host_split(authority, &asked) || /* HTTP/1.0: no browser */
                   slice_is_nocase(asked.host, "localhost") || asked.host.at[0] == '[' ||
                   host_is_address(asked.host, AF_INET);

    for (size_t i = 0; i < config->cors_count && !trusted; i++)
        trusted = strcmp(config->cors[i], "*") == 0 ||
                  (origin_parse(slice_of(config->cors[i]), &listed) &&
                   slice_same_nocase(listed.host, asked.host));
    return trusted;
}

/* Whether `*` alone lets the page in, since no --cors names its origin. Such a page has no
 * credentials: a cookie, which its browser adds by itself, does not count. */
static bool origin_is_anyone(const struct sse_server *server, const struct http_request *r)
{
    const char *listed = origin_listed(&server->config, r->origin);
    return listed && strcmp(listed, "*") == 0 &&
           !origin_is_own(r->origin, r->authority, server->config.cert_file);
}

/* Returns why the request counts as a foreign page's, or NULL if it does not. */
static const char *origin_objection(const struct sse_server *server, const struct http_request *r)
{
    if (server->on_loopback && !authority_is_trusted(&server->config, r->authority))
        return "this server listens on loopback and does not answer to that Host; behind a proxy "
               "on the same machine, list the public origin with --cors";
    if (r->origin.at && !origin_is_own(r->origin, r->authority, server->config.cert_file) &&
        !origin_listed(&server->config, r->origin))
        return "pages of that origin may not use this server; --cors would list it";
    if (!r->origin.at && r->sec_fetch_site.at && !slice_is(r->sec_fetch_site, "same-origin") &&
        !slice_is(r->sec_fetch_site, "none"))
        return "another site's page may not use this server; --cors would list its origin";
    return NULL;
}

/* ==== Tokens ====================================================================================
 *
 * Who may do what, where --auth-secret asks for it: a JSON Web Token (RFC 7519), signed with HMAC
 * and SHA-256 by whoever knows the secret. The signature is checked before anything inside is read,
 * so strangers learn one thing only: not valid. What is read then comes from an issuer whom the
 * server trusts: the JSON is read in place, the known members exactly, the unknown ones only as far
 * as it takes to skip them. Nothing known may be ambiguous: no name comes twice, and no claim has
 * another type than it should have. */

struct token {
    struct slice subject; /* `sub`; at is NULL without one */
    bool publishes;       /* its scope holds sse:publish */
    bool administers;     /* its scope holds sse:admin */
    int64_t expires_ms;   /* Unix time */
};

/* Decodes base64url without padding (RFC 4648 section 5) in place. Returns the decoded length, or
 * -1: bits left over at the end must be zero, so that there is one way only to write it. */
static int base64url_decode(char *at, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    static const unsigned left_over[] = {0, 0, 0x0F, 0x03}; /* bits after so many digits */
    unsigned bits = 0;
    int n = 0;

    for (size_t i = 0; i < len; i++) {
        const char *digit = at[i] ? strchr(digits, at[i]) : NULL;
        if (!digit)
            return -1;
        bits = (bits << 6 | (unsigned)(digit - digits)) & 0xFFF;
        if (i % 4 > 0) /* the first digit of four is no byte yet */
            at[n++] = (char)(bits >> (6 - i % 4 * 2));
    }
    return len % 4 == 1 || (bits & left_over[len % 4]) ? -1 : n;
}

/* What is left of a JSON text (RFC 8259). */
struct json {
    char *at, *end;
};

/* A member of an object, looked for by its name. The value of a string is what the string stands
 * for; any other value is as it was written. */
struct member {
    const char *name;
    struct slice value; /* at is NULL until the member is found */
    bool is_string;
};

/* Takes white space, and then the next byte if it is this one. */
static bool json_take(struct json *j, char c)
{
    while (j->at < j->end && *j->at && strchr(" \t\r\n", *j->at))
        j->at++;
    bool there = j->at < j->end && *j->at == c;
    j->at += there;
    return there;
}

/* Takes \uXXXX. Returns its UTF-16 code unit, or -1 if none stands there. */
static long json_take_unit(struct json *j)
{
    long unit = 0;
    if (j->end - j->at < 6 || memcmp(j->at, "\\u", 2) != 0)
        return -1;
    for (int i = 2; i < 6; i++) {
        int digit = hex_digit(j->at[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    j->at += 6;
    return unit;
}

/* Decodes an escape to `to` (RFC 8259 section 7): as UTF-8 it is shorter, so it fits. Returns its
 * length, or 0 if it is none, or half of a surrogate pair. */
static size_t json_take_escape(struct json *j, char *to)
{
    static const char letters[] = "bfnrt\"\\/", meant[] = "\b\f\n\r\t\"\\/";
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    const char *letter = j->end - j->at > 1 && j->at[1] ? strchr(letters, j->at[1]) : NULL;

    if (letter) {
        *to = meant[letter - letters];
        j->at += 2;
        return 1;
    }
    long code = json_take_unit(j);
    if (code >= 0xD800 && code <= 0xDBFF) {
        long low = json_take_unit(j);
        code =
            low >= 0xDC00 && low <= 0xDFFF ? 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00 : -1;
    }
    if (code < 0 || (code >= 0xDC00 && code <= 0xDFFF))
        return 0;
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len; i-- > 1; code >>= 6)
        to[i] = (char)(0x80 | (code & 0x3F));
    to[0] = (char)(lead[len] | code);
    return len;
}

/* Takes the rest of a string, whose first quote is taken, and decodes it over itself. */
static bool json_take_string(struct json *j, struct slice *value)
{
    char *to = j->at;

    value->at = to;
    while (j->at < j->end && *j->at != '"') {
        size_t n = 1;
        if ((unsigned char)*j->at < 0x20)
            return false;
        if (*j->at == '\\')
            n = json_take_escape(j, to);
        else
            *to = *j->at++;
        if (n == 0)
            return false;
        to += n;
    }
    value->len = (size_t)(to - value->at);
    return json_take(j, '"');
}

/* Takes a value. A string is decoded, a number or a word is what its letters are, and an array or
 * object is skipped to its end: what it holds is read by nobody. */
static bool json_take_value(struct json *j, struct member *m)
{
    struct slice ignored;
    int depth = 0;

    m->is_string = json_take(j, '"');
    if (m->is_string)
        return json_take_string(j, &m->value);
    /* A number or a word is one stretch. Of an array or object only strings are looked into,
     * because a bracket in one does not count. */
    char *from = j->at;
    j->at += slice_span((struct slice){from, (size_t)(j->end - from)}, "+-.");
    for (bool inside = j->at == from; inside; inside = depth > 0) {
        char c = '\0';
        if (j->at < j->end)
            c = *j->at++;
        bool opens = c == '{' || c == '[', closes = c == '}' || c == ']';
        if (c == 0 || (depth == 0 && !opens) || (depth == SSE_JSON_DEPTH && opens) ||
            (c == '"' && !json_take_string(j, &ignored)))
            return false;
        depth += opens - closes;
    }
    m->value = (struct slice){from, (size_t)(j->at - from)};
    return true;
}

/* Reads an object that is all of the text, and in it the members that are `known`. False if it is
 * not well-formed, or one of them comes twice. */
static bool json_read_object(char *at, size_t len, struct member *const *known, size_t count)
{
    struct json j = {at, at + len};

    if (!text_is_utf8(at, len) || !json_take(&j, '{'))
        return false;
    if (!json_take(&j, '}')) {
        do {
            struct member m = {.name = NULL};
            struct slice name;
            if (!json_take(&j, '"') || !json_take_string(&j, &name) || !json_take(&j, ':') ||
                !json_take_value(&j, &m))
                return false;
            for (size_t i = 0; i < count; i++) {
                if (!slice_is(name, known[i]->name))
                    continue;
                if (known[i]->value.at)
                    return false;
                m.name = known[i]->name;
                *known[i] = m;
            }
        } while (json_take(&j, ','));
        if (!json_take(&j, '}'))
            return false;
    }
    json_take(&j, ' '); /* with all white space before it */
    return j.at == j.end;
}

/* Reads a NumericDate (RFC 7519 section 2), a JSON number in any notation (RFC 8259 section 6), as
 * milliseconds, rounded down. False if it is no number. One before 1970 counts as -1, long ago; one
 * too large to hold as INT64_MAX, never. */
static bool token_date(struct member m, int64_t *ms)
{
    enum { EXPONENT_MAX = 10000 }; /* beyond the length of any token */
    bool capital = m.value.len > 0 && memchr(m.value.at, 'E', m.value.len);
    struct slice exponent = m.value, fraction = slice_cut(&exponent, capital ? 'E' : 'e');
    struct slice whole = slice_cut(&fraction, '.');
    /* 17.5e8: whole is 17, fraction 5, exponent 8 */
    bool negative = whole.len > 0 && whole.at[0] == '-';
    bool down = exponent.len > 0 && exponent.at[0] == '-';
    uint64_t shift = 0;

    if (negative)
        whole = (struct slice){whole.at + 1, whole.len - 1};
    if (down || (exponent.len > 0 && exponent.at[0] == '+'))
        exponent = (struct slice){exponent.at + 1, exponent.len - 1};
    if (m.is_string || !text_is_digits(whole) || (whole.len > 1 && whole.at[0] == '0') ||
        (fraction.at && !text_is_digits(fraction)) || (exponent.at && !text_is_digits(exponent)))
        return false;
    if (exponent.at && !text_number(exponent, EXPONENT_MAX, &shift))
        shift = EXPONENT_MAX;
    /* How many digits stand before the point, once it has moved by the exponent and by the three
     * places from seconds to milliseconds. Zeros stand beyond the last digit written. */
    int64_t places = (int64_t)whole.len + 3 + (down ? -(int64_t)shift : (int64_t)shift);
    *ms = 0;
    for (size_t i = 0; (int64_t)i < places && *ms < INT64_MAX; i++) {
        size_t behind = i - whole.len; /* in the fraction */
        int digit = i < whole.len           ? whole.at[i] - '0'
                    : behind < fraction.len ? fraction.at[behind] - '0'
                                            : 0;
        *ms = *ms > (INT64_MAX - digit) / 10 ? INT64_MAX : *ms * 10 + digit;
    }
    if (negative)
        *ms = -1;
    return true;
}

/* Whether the header (RFC 7515 section 4.1) says HS256, and nothing that the server would have to
 * understand: no `crit`, and no other `typ` than that of a token. */
static bool token_header_is_valid(char *at, size_t len)
{
    struct member alg = {.name = "alg"}, typ = {.name = "typ"}, crit = {.name = "crit"};
    struct member *const known[] = {&alg, &typ, &crit};

    return json_read_object(at, len, known, 3) && !crit.value.at && alg.is_string &&
           slice_is(alg.value, "HS256") &&
           (!typ.value.at || (typ.is_string && (slice_is_nocase(typ.value, "JWT") ||
                                                slice_is_nocase(typ.value, "at+jwt"))));
}

static const char TOKEN_EXPIRED[] = "the token has expired";

enum { TOKEN_LEEWAY_MS = 60000 }; /* for nbf: the clock that it was written by may be ahead */

/* Reads the claims (RFC 7519 section 4.1). Returns why they make no valid token, or NULL. */
static const char *token_claims(char *at, size_t len, int64_t now, struct token *token)
{
    struct member sub = {.name = "sub"}, scope = {.name = "scope"}, aud = {.name = "aud"};
    struct member exp = {.name = "exp"}, nbf = {.name = "nbf"};
    struct member *const known[] = {&sub, &scope, &aud, &exp, &nbf};
    int64_t not_before = 0;

    if (!json_read_object(at, len, known, 5))
        return "the token's claims are not a JSON object in which every name comes once";
    if (aud.value.at)
        return "the token is for an audience (aud), and this server has no name as one";
    if ((sub.value.at && !sub.is_string) || (scope.value.at && !scope.is_string))
        return "the token's sub and scope must be strings";
    if (!token_date(exp, &token->expires_ms) || (nbf.value.at && !token_date(nbf, &not_before)))
        return "the token must have an exp, and it and nbf must be numbers of seconds";
    if (token->expires_ms <= now)
        return TOKEN_EXPIRED;
    if (not_before > now + TOKEN_LEEWAY_MS)
        return "the token is not valid yet";
    token->subject = sub.value;
    for (struct slice rest = scope.value; rest.at;) {
        struct slice word = slice_cut(&rest, ' ');
        token->publishes |= slice_is(word, "sse:publish");
        token->administers |= slice_is(word, "sse:admin");
    }
    return NULL;
}

/* Checks a token and reads it, decoding it over itself. Nothing but the dots is looked at before
 * the signature is checked. Returns SSE_OK; SSE_EINVAL, with *why; SSE_ENOMEM. */
static int token_read(const struct sse_config *config, char *at, size_t len, int64_t now,
                      struct token *token, const char **why)
{
    struct slice signature = {at, len}, header = slice_cut(&signature, '.');
    struct slice claims = slice_cut(&signature, '.');
    struct slice secret = {config->auth_secret, config->auth_secret_len};
    unsigned char mac[32];

    *token = (struct token){.publishes = false};
    *why = "the token is not a JSON Web Token that is signed with HS256 and this server's secret";
    if (!signature.at || memchr(signature.at, '.', signature.len))
        return SSE_EINVAL;
    /* The header and the claims are signed as they are written, so they are decoded afterwards. */
    char *claims_at = at + header.len + 1, *mac_at = claims_at + claims.len + 1;
    if (!hmac_sha256(secret, (struct slice){at, header.len + 1 + claims.len}, mac))
        return SSE_ENOMEM;
    if (base64url_decode(mac_at, signature.len) != sizeof mac || !mac_is(mac, mac_at))
        return SSE_EINVAL;
    int header_len = base64url_decode(at, header.len);
    int claims_len = base64url_decode(claims_at, claims.len);
    if (header_len < 0 || claims_len < 0 || !token_header_is_valid(at, (size_t)header_len))
        return SSE_EINVAL;
    *why = token_claims(claims_at, (size_t)claims_len, now, token);
    return *why ? SSE_EINVAL : SSE_OK;
}

/* Returns the cookie of that name (RFC 6265 section 4.2.1) in any of the request's Cookie fields,
 * or absent; an empty one counts as absent. */
static struct slice cookie_find(const struct http_request *r, const char *name)
{
    struct slice rest = r->fields, cookies;
    while ((cookies = http_next_field(&rest, "cookie")).at)
        while (cookies.at) {
            struct slice value = slice_trim(slice_cut(&cookies, ';')), key = slice_cut(&value, '=');
            if (value.len > 0 && slice_is(key, name))
                return value;
        }
    return (struct slice){NULL, 0};
}

/* Finds the request's token and copies it to `to`, of SSE_TOKEN_BYTES: that of Authorization, if
 * its scheme is Bearer (RFC 6750 section 2.1); else of the query; else, if cookies count, of the
 * cookie. Returns its length, or sets *why. */
static int token_find(const struct http_request *r, bool cookies_count, char *to, const char **why)
{
    struct slice found = r->authorization, scheme = slice_cut(&found, ' ');

    bool is_bearer = slice_is_nocase(scheme, "Bearer");
    int n = is_bearer ? 0 : http_query(r->query, "access_token", to, SSE_TOKEN_BYTES);

    *why = n < 0 ? "the access_token of the query is too long, or escaped wrongly" : NULL;
    if (n != 0)
        return n;
    if (is_bearer)
        found = slice_trim(found.at ? found : slice_of(""));
    else
        found = cookies_count ? cookie_find(r, "sse_token") : (struct slice){NULL, 0};
    if (!found.at)
        *why = "this takes a token, as Authorization: Bearer TOKEN, as ?access_token=TOKEN or as "
               "the cookie sse_token";
    else if (found.len > SSE_TOKEN_BYTES)
        *why = "the token is too long";
    else
        memcpy(to, found.at, found.len);
    return (int)found.len;
}

/* Returns what the token lacks to be used on this route for this user, or NULL if it lacks nothing.
 * The user's own token is enough where the route names a user; sse:admin is enough everywhere. */
static const char *token_lacks(const struct token *token, const struct route *route,
                               struct slice user)
{
    if (token->administers || route->access == SSE_ANYONE)
        return NULL;
    if (route->access == SSE_PUBLISHER)
        return token->publishes ? NULL : "the token's scope must hold sse:publish or sse:admin";
    if (route->access == SSE_ADMIN)
        return "the token's scope must hold sse:admin";
    if (!strchr(route->path, '{') || (token->subject.at && slice_same(token->subject, user)))
        return NULL;
    return "the token is not this user's: its sub must be the user id, or its scope hold sse:admin";
}

/* ==== Connections ===============================================================================
 *
 * A connection belongs to a worker while it is served, and to the loop while it waits; `is_held`
 * tells which. A worker takes it in worker_take_locked(), and hands it to the loop in
 * conn_hand_over(). Only its owner closes it and frees its slot. Any thread that holds its user's
 * mutex reads from a stream, writes to it and changes its state. At rest a connection costs its
 * slot and its socket: buffers are its worker's. */

/* One request and its answer. */
struct sse_exchange {
    struct sse_server *server;
    struct conn *conn;
    struct http_request request;
    const struct route *route;
    char user[SSE_USER_BYTES + 1]; /* {userId} decoded */
    struct slice body;
    uint32_t body_slot; /* slot + 1 of a body that did not fit the input buffer; 0 is none */
    bool is_head;       /* the answer has no body */
    bool is_options;    /* the answer says what is allowed */
    bool close;         /* the connection ends with this answer */
    bool lost;          /* the client no longer takes the answer */
    bool is_task;       /* it takes its time: see sse_takes_time() */
    bool chunked;       /* the head is out, the body follows in chunks */
    int64_t expires_ms; /* its token does, in Unix time; 0 without one */
    const char *type;   /* Content-Type */
    struct text fields; /* a handler's own, as they go over the wire */
    struct text answer; /* body so far, or since the last chunk */
};

/* A send of a pipeline that is pending while more of the pipeline is read. */
struct batched {
    struct user *user; /* pinned */
    struct send send;  /* its body stands in the input buffer */
    char event[SSE_EVENT_BYTES + 1];
    char name[SSE_USER_BYTES + 1]; /* for the answer, when the user is no longer pinned */
    struct sse_receipt receipt;
};

/* A thread that serves one connection after another, and what it needs for that. Lives as long as
 * the server, though the thread ends when there is nothing to do. */
struct worker {
    struct sse_server *server; /* [I] */
    struct conn *conn;         /* [C] which it serves; NULL while it waits for one */
    struct worker *next;       /* [C] in the list of those that wait, or have no thread */
    pthread_cond_t called;     /* it is given a connection, or the server begins to stop */
    atomic_uint stalled_since; /* [a] it waits for bytes of its client since then; 0: it does not */
    size_t in_start, in_end;   /* [o] unread input */
    struct text out;           /* [o] answers not written yet */
    struct sse_exchange exchange; /* [o], like all that follows */
    struct batched batch[SSE_BATCH];
    unsigned batch_count;
    bool has_served; /* a request of this connection, since it has it */
    struct date date;
    char peer[INET6_ADDRSTRLEN]; /* the client's address, for the log */
    char in[SSE_IN_BYTES];
    char out_bytes[SSE_OUT_BYTES];
    char scratch[SSE_SCRATCH_BYTES];
    char fields[SSE_OWN_FIELDS_BYTES];
};

static uint32_t conn_slot(const struct conn *c)
{
    return (uint32_t)(c - c->server->conns) + POLLER_CONNS;
}

/* The loop's lists: each connection that it holds is in the list of its state. What the loop is to
 * end at once wakes it up. */
static void held_add_locked(struct conn *c)
{
    int state = atomic_load(&c->state);
    struct conn_list *list = &c->server->held[state];
    struct conn *before = list->last;

    c->is_held = true;
    c->since_ms = now_ms();
    if (state == CONN_READY)
        atomic_fetch_add(&c->server->ready, 1);
    if (state == CONN_COMPLETE || state == CONN_LOST)
        poller_wake(&c->server->poller);
    if (state == CONN_IDLE) { /* what TLS says meanwhile does not count: its time goes on */
        c->since_ms = c->idle_ms = c->idle_ms ? c->idle_ms : c->since_ms;
        while (before && before->since_ms > c->since_ms)
            before = before->held_prev;
    }
    c->held_prev = before;
    c->held_next = before ? before->held_next : list->first;
    *(before ? &before->held_next : &list->first) = c;
    *(c->held_next ? &c->held_next->held_prev : &list->last) = c;
}

static void held_remove_locked(struct conn *c)
{
    struct conn_list *list = &c->server->held[atomic_load(&c->state)];
    *(c->held_prev ? &c->held_prev->held_next : &list->first) = c->held_next;
    *(c->held_next ? &c->held_next->held_prev : &list->last) = c->held_prev;
    c->is_held = false;
    if (atomic_load(&c->state) == CONN_READY)
        atomic_fetch_sub(&c->server->ready, 1);
}

/* The connection is in this state from now on. Its owner may call this, and for a stream the thread
 * that holds its user's mutex. */
static void conn_enter(struct conn *c, enum conn_state state)
{
    pthread_mutex_lock(&c->server->conns_lock);
    bool held = c->is_held;
    if (held)
        held_remove_locked(c);
    atomic_store(&c->state, state);
    if (held)
        held_add_locked(c);
    pthread_mutex_unlock(&c->server->conns_lock);
}

/* Has the poller report what a connection that the loop holds waits for. Its owner may call this,
 * and for a stream the thread that holds its user's mutex. */
static bool conn_poll(struct conn *c)
{
    static const unsigned char EVENTS[CONN_STATES] = {[CONN_NEW] = READABLE,
                                                      [CONN_IDLE] = READABLE,
                                                      [CONN_OPEN] = READABLE,
                                                      [CONN_CLOSING] = WRITABLE,
                                                      [CONN_LINGERING] = READABLE};
    struct poller *p = &c->server->poller;
    int state = atomic_load(&c->state);
    unsigned events =
        EVENTS[state] | (state == CONN_OPEN && (c->is_behind || c->is_stuck) ? WRITABLE : 0U);

    if (events == 0)
        return true;
    if (c->is_polled)
        return poller_change(p, conn_slot(c), c->transport.fd, events);
    return c->is_polled = poller_add(p, conn_slot(c), c->transport.fd, events);
}

/* The loop has the connection from now on, in the state that it is in. The caller had it until
 * here, and holds its user's mutex if it is a stream. False if the poller has no memory for it:
 * then the state is CONN_LOST, which for a stream the caller has to enter. */
static bool conn_hand_over(struct conn *c)
{
    pthread_mutex_lock(&c->server->conns_lock);
    if (c->worker)
        c->worker->conn = NULL;
    c->worker = NULL;
    bool polled = conn_poll(c);
    if (!polled && !c->user)
        atomic_store(&c->state, CONN_LOST);
    held_add_locked(c);
    pthread_mutex_unlock(&c->server->conns_lock);
    return polled;
}

/* ==== Log =======================================================================================
 *
 * A ring of bytes with the user's newest messages, each framed as it goes over the wire, so that
 * writing any number of them to a stream is one call over at most two stretches of memory.
 * Invariants: the bytes from tail to head are whole frames, head - tail <= cap <= max_bytes,
 * next - first <= max_count. The caller holds the user's mutex. */

enum { LOG_FIRST_BYTES = 1024 }; /* a ring begins this small, and doubles when it must */

static void log_reset(struct log *log)
{
    log->cap = log->max_bytes < LOG_FIRST_BYTES ? log->max_bytes : LOG_FIRST_BYTES;
    log->first_at = log->tail = log->head = 0;
    log->first = log->next = 1;
}

/* Position where message seq's frame begins, for first <= seq <= next. */
static uint32_t log_start(const struct log *log, uint64_t seq)
{
    return seq == log->next ? log->head : log->starts[seq % log->max_count];
}

/* Index in the ring of the byte at a position. */
static uint32_t log_index(const struct log *log, uint32_t position)
{
    uint64_t index = (uint64_t)log->first_at + (position - log->tail);
    return (uint32_t)(index < log->cap ? index : index - log->cap);
}

static void log_drop_oldest(struct log *log)
{
    uint32_t second = log_start(log, log->first + 1);
    log->first_at = log_index(log, second);
    log->tail = second;
    log->first++;
}

/* Makes room for one more frame: drops the oldest ones, and lets the ring grow. */
static void log_make_room(struct log *log, uint32_t need)
{
    uint64_t cap = log->cap;

    while (log->next - log->first == log->max_count ||
           (uint64_t)(log->head - log->tail) + need > log->max_bytes)
        log_drop_oldest(log);
    need += log->head - log->tail;
    while (cap < need)
        cap = cap * 2 < log->max_bytes ? cap * 2 : log->max_bytes;
    if (cap != log->cap && (uint64_t)log->first_at + (log->head - log->tail) > log->cap) {
        uint32_t old_end = log->cap - log->first_at; /* wrapped: its older part moves to the end */
        memmove(log->ring + cap - old_end, log->ring + log->first_at, old_end);
        log->first_at = (uint32_t)cap - old_end;
    }
    log->cap = (uint32_t)cap;
    if (log->head == log->tail)
        log->first_at = 0; /* empty: start over, in memory already touched */
}

static void log_put(struct log *log, const char *bytes, size_t len)
{
    uint32_t at = log_index(log, log->head);
    size_t before_end = log->cap - at < len ? log->cap - at : len;
    if (len == 0)
        return;
    memcpy(log->ring + at, bytes, before_end);
    memcpy(log->ring, bytes + before_end, len - before_end);
    log->head += (uint32_t)len;
}

/* Takes the next line off a body: CR LF, LF and CR each end one, and after the last end there is
 * one line more. rest->at is NULL when all are taken. */
static struct slice body_line(struct slice *rest)
{
    struct slice line = {rest->at, 0};
    while (line.len < rest->len && line.at[line.len] != '\n' && line.at[line.len] != '\r')
        line.len++;
    size_t used = line.len;
    if (used == rest->len) {
        *rest = (struct slice){NULL, 0};
        return line;
    }
    used += line.at[used] == '\r' && used + 1 < rest->len && line.at[used + 1] == '\n' ? 2 : 1;
    *rest = (struct slice){rest->at + used, rest->len - used};
    return line;
}

/* Bytes of the frame's `data:` lines and the empty line that ends it. */
static uint64_t frame_data_bytes(struct slice body)
{
    uint64_t bytes = 1;
    do
        bytes += body_line(&body).len + strlen("data: \n");
    while (body.at);
    return bytes;
}

/* Bytes of a whole frame with an id of that many bytes. */
static uint64_t frame_bytes(size_t id_bytes, struct slice event, struct slice body)
{
    size_t name_bytes = event.len ? strlen("event: \n") + event.len : 0;
    return strlen("id: \n") + id_bytes + name_bytes + frame_data_bytes(body);
}

static void id_print(struct text *t, uint64_t epoch, uint64_t seq)
{
    text_digits(t, epoch, 16);
    text_put(t, "-", 1);
    text_decimal(t, seq);
}

/* Reads an id exactly as id_print writes it. */
static bool id_parse(struct slice id, uint64_t *epoch, uint64_t *seq)
{
    struct slice rest = id, hex = slice_cut(&rest, '-');
    char canonical[SSE_ID_BYTES];
    struct text again = text_over(canonical, sizeof canonical);

    *epoch = 0;
    for (size_t i = 0; i < hex.len && i < 16 && hex_digit(hex.at[i]) >= 0; i++)
        *epoch = *epoch * 16 + (unsigned)hex_digit(hex.at[i]);
    if (!text_number(rest, UINT64_MAX - 1, seq))
        return false;
    id_print(&again, *epoch, *seq);
    return again.len == id.len && memcmp(canonical, id.at, id.len) == 0;
}

/* Frames a message (WHATWG HTML section 9.2.5) and appends it. `event` may be empty, `body` must
 * have a non-NULL at. False if the frame alone is over max_bytes; then nothing has changed. */
static bool log_append(struct log *log, uint64_t epoch, struct slice event, struct slice body)
{
    char prefix[SSE_ID_BYTES + SSE_EVENT_BYTES + 16];
    struct text t = text_over(prefix, sizeof prefix);

    text_string(&t, "id: ");
    id_print(&t, epoch, log->next);
    text_string(&t, "\n");
    if (event.len) {
        text_string(&t, "event: ");
        text_put(&t, event.at, event.len);
        text_string(&t, "\n");
    }
    uint64_t bytes = t.len + frame_data_bytes(body);
    if (bytes > log->max_bytes)
        return false;
    log_make_room(log, (uint32_t)bytes);
    log->starts[log->next % log->max_count] = log->head;
    log->times_us[log->next % log->max_count] = now_us();
    log_put(log, prefix, t.len);
    do {
        struct slice line = body_line(&body);
        log_put(log, "data: ", 6);
        log_put(log, line.at, line.len);
        log_put(log, "\n", 1);
    } while (body.at);
    log_put(log, "\n", 1);
    log->next++;
    return true;
}

/* ==== Users =====================================================================================
 *
 * A table of fixed size: open addressing with linear probing over twice as many cells as users,
 * so that a look-up, hit or miss, ends after a few cells. The hash is keyed with random bytes, so
 * that nobody can choose names that pile up. Invariant: a cell's user is reachable from its home
 * cell without crossing an empty one. */

#define ROTATE(x, by) (((x) << (by)) | ((x) >> (64 - (by))))

static void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = ROTATE(v[1], 13) ^ v[0], v[0] = ROTATE(v[0], 32);
    v[2] += v[3], v[3] = ROTATE(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = ROTATE(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = ROTATE(v[1], 17) ^ v[2], v[2] = ROTATE(v[2], 32);
}

#undef ROTATE

/* SipHash-1-3 (Aumasson and Bernstein 2012): a keyed hash for tables that strangers fill. */
static uint64_t sip_hash(const uint64_t key[2], const char *bytes, size_t len)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                     key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    for (size_t i = 0; i <= len; i += 8) {
        size_t n = len - i < 8 ? len - i : 8;
        uint64_t word = 0;
        for (size_t k = 0; k < n; k++)
            word |= (uint64_t)(unsigned char)bytes[i + k] << (8 * k);
        if (n < 8)
            word |= (uint64_t)len << 56;
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The cell that holds this name, or the empty one where it would go. */
static uint32_t table_cell_locked(struct sse_server *server, struct slice name, uint64_t hash)
{
    uint32_t cell = (uint32_t)hash & server->index_mask;
    for (; server->index[cell]; cell = (cell + 1) & server->index_mask) {
        const struct user *u = &server->users[server->index[cell] - 1];
        if (u->hash == hash && u->name_len == name.len && !memcmp(u->name, name.at, name.len))
            break;
    }
    return cell;
}

/* Empties a cell and closes the gap: a later user of the same run moves into it unless that would
 * put it before its home cell. */
static void table_remove_locked(struct sse_server *server, const struct user *user)
{
    uint32_t mask = server->index_mask;
    uint32_t gap =
        table_cell_locked(server, (struct slice){user->name, user->name_len}, user->hash);

    for (uint32_t cell = (gap + 1) & mask; server->index[cell]; cell = (cell + 1) & mask) {
        uint32_t home = (uint32_t)server->users[server->index[cell] - 1].hash & mask;
        if (((cell - home) & mask) >= ((cell - gap) & mask)) {
            server->index[gap] = server->index[cell];
            gap = cell;
        }
    }
    server->index[gap] = 0;
}

static int64_t heartbeat_ms(const struct sse_server *server)
{
    return (int64_t)server->config.heartbeat_s * 1000;
}

/* Moves a user to the end of a list, or out of all of them if that is NULL. */
static void lists_move_locked(struct user *user, struct user_list *to)
{
    struct user_list *from = user->list;
    if (from) {
        *(user->list_prev ? &user->list_prev->list_next : &from->first) = user->list_next;
        *(user->list_next ? &user->list_next->list_prev : &from->last) = user->list_prev;
    }
    user->list = to;
    if (!to)
        return;
    user->list_prev = to->last;
    user->list_next = NULL;
    *(to->last ? &to->last->list_next : &to->first) = user;
    to->last = user;
}

/* The user is Disconnected from now on, and will make room after those who left before. */
static void user_leave(struct sse_server *server, struct user *user)
{
    pthread_mutex_lock(&server->lists_lock);
    server->connected--;
    lists_move_locked(user, &server->away);
    pthread_mutex_unlock(&server->lists_lock);
}

/* Steps of the heartbeat since the server was created. */
static int64_t heartbeat_step(const struct sse_server *server)
{
    return (now_ms() - server->started_ms) * SSE_HEARTBEAT_STEPS / heartbeat_ms(server);
}

/* The user is Connected from now on. The step of its first keep-alive is at most a heartbeat ahead;
 * since 39 has no factor in common with 64, 64 users who come at the same moment get 64 different
 * steps, and fewer get steps far from each other. */
static void user_join(struct sse_server *server, struct user *user)
{
    pthread_mutex_lock(&server->lists_lock);
    int64_t now = heartbeat_step(server);
    if (server->connected++ == 0)
        server->step = now;
    int64_t step = now + SSE_HEARTBEAT_STEPS - server->joined++ * 39 % SSE_HEARTBEAT_STEPS;
    lists_move_locked(user, &server->heartbeat[step % HEARTBEAT_LISTS]);
    bool is_first = step < server->next_step;
    pthread_mutex_unlock(&server->lists_lock);
    if (is_first)
        poller_wake(&server->poller);
}

/* Takes the user who left longest ago out of the table. NULL if everyone is Connected, or if that
 * user is in use at this moment; with `any`, the next one not in use goes instead. The caller holds
 * the table's write lock, so that nobody can be pinned meanwhile. */
static struct user *table_evict_locked(struct sse_server *server, bool any)
{
    pthread_mutex_lock(&server->lists_lock);
    struct user *user = server->away.first;
    while (user && atomic_load(&user->pins) > 0)
        user = any ? user->list_next : NULL;
    if (user)
        lists_move_locked(user, NULL);
    pthread_mutex_unlock(&server->lists_lock);
    if (user) {
        table_remove_locked(server, user);
        server->evictions++;
    }
    return user;
}

/* One user's share of memory for its history: times, starts, then the ring, in whole numbers of 8
 * bytes. */
static size_t log_bytes(const struct sse_config *c)
{
    size_t bytes = c->history * (sizeof(int64_t) + sizeof(uint32_t)) + c->history_bytes;
    return (bytes + 7) / 8 * 8;
}

/* A slot never used before, with what it keeps for good: its mutex and its share of memory. */
static struct user *table_new_slot_locked(struct sse_server *server)
{
    struct user *user = &server->users[server->users_made];
    char *memory = server->logs + server->users_made * log_bytes(&server->config);

    if (pthread_mutex_init(&user->lock, NULL) != 0)
        return NULL;
    size_t count = server->config.history, times = count * sizeof(int64_t);
    user->log = (struct log){.times_us = (int64_t *)(void *)memory,
                             .starts = (uint32_t *)(void *)(memory + times),
                             .ring = memory + times + count * sizeof(uint32_t),
                             .max_count = server->config.history,
                             .max_bytes = server->config.history_bytes};
    server->users_made++;
    return user;
}

static void user_cut_closing_locked(struct user *user);
static void user_unlock(struct sse_server *server, struct user *user);

/* Puts a new user into the empty cell that was found for it. Streams that the user before had may
 * still be closing, so its mutex is held, too. */
static struct user *table_add_locked(struct sse_server *server, struct slice name, uint64_t hash,
                                     bool any)
{
    struct user *user = server->users_made < server->config.max_users
                            ? table_new_slot_locked(server)
                            : table_evict_locked(server, any);
    if (!user)
        return NULL;
    pthread_mutex_lock(&user->lock);
    user_cut_closing_locked(user);
    memcpy(user->name, name.at, name.len);
    user->name[name.len] = 0;
    user->name_len = (uint8_t)name.len;
    user->hash = hash;
    user->epoch = server->next_epoch++;
    user->max_delivered_seq = 0;
    user->hold_until_ms = 0;
    log_reset(&user->log);
    user_unlock(server, user);
    /* The cell is looked up only now: eviction may have moved it. */
    server->index[table_cell_locked(server, name, hash)] = (uint32_t)(user - server->users) + 1;
    pthread_mutex_lock(&server->lists_lock);
    lists_move_locked(user, &server->away);
    pthread_mutex_unlock(&server->lists_lock);
    return user;
}

/* Is there a slot never used, or a user who could make room? */
static bool table_has_room(struct sse_server *server)
{
    pthread_rwlock_rdlock(&server->table_lock);
    pthread_mutex_lock(&server->lists_lock);
    bool room = server->users_made < server->config.max_users || server->away.first;
    pthread_mutex_unlock(&server->lists_lock);
    pthread_rwlock_unlock(&server->table_lock);
    return room;
}

/* Finds a user and pins it; the caller unpins. NULL if there is none. */
static struct user *user_find(struct sse_server *server, struct slice name)
{
    uint64_t hash = sip_hash(server->hash_key, name.at, name.len);
    struct user *user = NULL;

    pthread_rwlock_rdlock(&server->table_lock);
    uint32_t slot = server->index[table_cell_locked(server, name, hash)];
    if (slot) {
        user = &server->users[slot - 1];
        atomic_fetch_add(&user->pins, 1);
    }
    pthread_rwlock_unlock(&server->table_lock);
    return user;
}

static void user_unpin(struct user *user)
{
    atomic_fetch_sub(&user->pins, 1);
}

/* Like user_find(), but adds a user never seen. The one who is to make room may be in use for a
 * moment, by a sender for instance: that is waited for a little. NULL if nobody can make room:
 * everyone is Connected. */
static struct user *user_find_or_add(struct sse_server *server, struct slice name)
{
    enum { YIELDS = 32, TRIES = YIELDS + SSE_ROOM_MS };
    const struct timespec moment = {.tv_nsec = 1000000};
    uint64_t hash = sip_hash(server->hash_key, name.at, name.len);
    struct user *user = user_find(server, name);

    for (int tries = 1; !user && tries <= TRIES; tries++) {
        pthread_rwlock_wrlock(&server->table_lock);
        uint32_t slot = server->index[table_cell_locked(server, name, hash)];
        user =
            slot ? &server->users[slot - 1] : table_add_locked(server, name, hash, tries == TRIES);
        if (user)
            atomic_fetch_add(&user->pins, 1);
        pthread_rwlock_unlock(&server->table_lock);
        if (user || !table_has_room(server))
            break;
        if (tries < YIELDS)
            sched_yield();
        else
            nanosleep(&moment, NULL);
    }
    return user;
}

/* Walks all users: pins the next one from slot *at on and moves *at past it. NULL at the end. */
static struct user *user_each(struct sse_server *server, uint32_t *at)
{
    struct user *user = NULL;
    pthread_rwlock_rdlock(&server->table_lock);
    if (*at < server->users_made) {
        user = &server->users[(*at)++];
        atomic_fetch_add(&user->pins, 1);
    }
    pthread_rwlock_unlock(&server->table_lock);
    return user;
}

/* ==== Streams ===================================================================================
 *
 * A stream is a cursor into its user's log, and everything it is ever sent goes through
 * stream_flush_locked(): its control bytes first, then the log from the cursor on. Any thread that
 * holds the user's mutex may call that, and none waits for a socket there: a sender does for a
 * stream that has kept up; for one that has not, the loop leaves in `wants` that there is room, and
 * the thread that has the mutex acts on it in user_unlock(). Invariant: an open stream is in its
 * user's `streams`, a closing one in `closing`, any other in neither. A thread that has the mutex
 * may still use a stream that it has just unlinked: so before the loop closes one it wants it
 * RELEASED, and user_unlock() does that as the last access to it. */

#define KEEP_ALIVE_TEXT "<3: Keep alive"

/* As a message, or as a comment (WHATWG HTML section 9.2.5), which a browser shows to nobody. No
 * empty line follows the comment: some clients take an empty line without data for a message. */
static struct slice keep_alive_frame(const struct sse_config *config)
{
    return slice_of(config->heartbeat_comment ? ": " KEEP_ALIVE_TEXT "\n"
                                              : "data: " KEEP_ALIVE_TEXT "\n\n");
}

static void stream_list_add(struct conn **list, struct conn *c)
{
    c->prev = NULL;
    c->next = *list;
    if (c->next)
        c->next->prev = c;
    *list = c;
}

static void stream_list_remove(struct conn **list, struct conn *c)
{
    *(c->prev ? &c->prev->next : list) = c->next;
    if (c->next)
        c->next->prev = c->prev;
}

/* The stream of a user whose mutex is held comes into another state. The first open one makes its
 * user Connected, the last one to go Disconnected. */
static void stream_enter_locked(struct conn *c, enum conn_state state)
{
    struct sse_server *server = c->server;
    struct user *user = c->user;
    int before = atomic_load(&c->state);

    if (before == CONN_OPEN) {
        if (user->next_keep_alive == c)
            user->next_keep_alive = c->next;
        stream_list_remove(&user->streams, c);
        atomic_fetch_sub(&server->stream_count, 1);
        if (atomic_fetch_sub(&user->stream_count, 1) == 1)
            user_leave(server, user);
    } else if (before == CONN_CLOSING) {
        stream_list_remove(&user->closing, c);
    }
    if (state == CONN_OPEN) {
        stream_list_add(&user->streams, c);
        atomic_fetch_add(&server->stream_count, 1);
        if (atomic_fetch_add(&user->stream_count, 1) == 0)
            user_join(server, user);
    } else if (state == CONN_CLOSING) {
        stream_list_add(&user->closing, c);
    }
    conn_enter(c, state);
}

static bool stream_is_open(const struct conn *c)
{
    return atomic_load(&c->state) == CONN_OPEN;
}

/* Is it open, or closing? Else there is nothing more to write. */
static bool stream_is_alive(const struct conn *c)
{
    return stream_is_open(c) || atomic_load(&c->state) == CONN_CLOSING;
}

/* The user makes room: closing streams whose clients have not taken all end now, without it. */
static void user_cut_closing_locked(struct user *user)
{
    while (user->closing)
        stream_enter_locked(user->closing, CONN_LOST);
}

/* What is due: its control bytes, then the log from the cursor to its end. */
static int stream_gather_locked(const struct conn *c, struct iovec parts[3], size_t *total)
{
    const struct log *log = &c->user->log;
    uint64_t end = c->end_seq < log->next ? c->end_seq : log->next;
    int n = 0;

    *total = c->control.len;
    if (c->control.len)
        parts[n++] = (struct iovec){(void *)c->control.at, c->control.len};
    if (c->seq < end) {
        uint32_t from = log_start(log, c->seq) + c->written;
        size_t len = log_start(log, end) - from, at = log_index(log, from);
        size_t before_end = log->cap - at < len ? log->cap - at : len;
        *total += len;
        parts[n++] = (struct iovec){log->ring + at, before_end};
        if (len > before_end)
            parts[n++] = (struct iovec){log->ring, len - before_end};
    }
    return n;
}

/* Upper bounds of the histogram of delivery times, in microseconds. */
static const uint32_t DELAYS_US[SSE_DELAYS] = {
    50, 100, 250, 500, 1000, 2500, 5000, 10000, 50000, 100000, 500000, 1000000, 5000000, 30000000};

static void tally_delay(struct tally *tally, int64_t us)
{
    int i = 0;
    while (i < SSE_DELAYS && us > DELAYS_US[i])
        i++;
    tally->delays[i]++;
    tally->delay_us += (uint64_t)us;
}

/* The stream was handed all of its next message. */
static void stream_step_locked(struct conn *c, int64_t *us)
{
    struct tally *tally = &c->user->tally;
    const struct log *log = &c->user->log;

    tally->deliveries++;
    if (c->seq >= c->live_seq) {
        *us = *us ? *us : now_us();
        tally_delay(tally, *us - log->times_us[c->seq % log->max_count]);
    }
    if (c->seq > c->user->max_delivered_seq)
        c->user->max_delivered_seq = c->seq;
    c->seq++;
    c->written = 0;
}

/* Moves the cursor past n bytes that the operating system has taken. */
static void stream_advance_locked(struct conn *c, size_t n)
{
    const struct log *log = &c->user->log;
    size_t control = n < c->control.len ? n : c->control.len;
    int64_t us = 0; /* the clock is read once, when the first message is through */

    c->user->tally.stream_bytes += n;
    c->control.at += control;
    c->control.len -= control;
    n -= control;
    while (n > 0) {
        size_t left = log_start(log, c->seq + 1) - log_start(log, c->seq) - c->written;
        if (n < left) {
            c->written += (uint32_t)n;
            return;
        }
        n -= left;
        stream_step_locked(c, &us);
    }
}

/* TLS cannot read while it still has to write. Meanwhile the poller tells of what the client says
 * only if that is far too much, or the end. */
static void stream_stick_locked(struct conn *c, bool is_stuck)
{
    if (c->is_stuck != is_stuck)
        transport_expect(&c->transport, is_stuck ? SSE_RECORD_BYTES : 1);
    c->is_stuck = is_stuck;
}

/* Writes all that is due, as far as the socket takes it without waiting. One that has fallen out of
 * the log, or whose socket has failed, is lost. */
static void stream_flush_locked(struct conn *c)
{
    struct iovec parts[3];
    size_t total;
    bool was_behind = c->is_behind;

    if (c->seq < c->user->log.first && c->seq < c->end_seq) { /* what it needs next is gone */
        c->user->tally.slow += stream_is_open(c);
        stream_enter_locked(c, CONN_LOST);
        return;
    }
    int count = stream_gather_locked(c, parts, &total);
    ssize_t n = count > 0 ? transport_write(&c->transport, parts, count) : IO_LATER;
    if (n == 0) {
        stream_enter_locked(c, CONN_LOST);
        return;
    }
    c->is_behind = count > 0 && n != (ssize_t)total; /* a short write means a full socket */
    if (n > 0)
        stream_advance_locked(c, (size_t)n);
    if (c->is_behind && !was_behind) {
        stream_stick_locked(c, c->transport.tls != NULL);
        if (c->is_held)
            conn_poll(c);
    }
}

/* Why a connect is refused, beside SSE_ESTOPPING: no public function returns these. */
enum {
    SSE_EBUSY = -9, /* the user holds max_streams streams already */
    SSE_EHELD = -10 /* a hold of the user has not run out */
};

/* May this user open one more stream? SSE_OK, SSE_ESTOPPING, SSE_EHELD or SSE_EBUSY. */
static int user_admits_locked(struct sse_server *server, struct user *user)
{
    if (atomic_load(&server->stopping))
        return SSE_ESTOPPING;
    if (user->hold_until_ms > now_ms())
        return SSE_EHELD;
    return atomic_load(&user->stream_count) < server->config.max_streams ? SSE_OK : SSE_EBUSY;
}

/* Sets the cursor: after the message that the client names as its last, or else after the newest
 * that any stream was handed. Appends to `out` what must be said about messages lost between. */
static void stream_start_locked(struct conn *c, struct slice last_event_id, struct text *out)
{
    const struct log *log = &c->user->log;
    uint64_t epoch, seq = c->user->max_delivered_seq;
    size_t before = out->len;

    if (last_event_id.len &&
        (!id_parse(last_event_id, &epoch, &seq) || epoch != c->user->epoch || seq >= log->next)) {
        seq = log->first - 1;
        text_string(out, "event: gap\ndata: {\"missed\":null}\n\n");
    }
    c->seq = seq + 1 > log->first ? seq + 1 : log->first;
    c->live_seq = log->next;
    if (c->seq > seq + 1) {
        text_print(out, "event: gap\ndata: {\"missed\":%" PRIu64 "}\n\n", c->seq - (seq + 1));
        c->user->tally.missed += c->seq - (seq + 1);
    }
    c->user->tally.streams++;
    c->user->tally.gaps += out->len > before;
    if (last_event_id.len) {
        c->user->tally.replays++;
        c->user->tally.replayed += c->live_seq - c->seq;
    }
}

/* Opens a stream: appends its first blocks to `out`, which holds the head of the answer and must
 * live until c->control is written, and links it to its user, which the caller has pinned. From
 * here on senders write to it. The gap comes before the greeting, whose id lies behind the missing
 * messages: a client that is cut off between the two still names its old id, and is told again. On
 * failure `out` is as it was. SSE_ESTOPPING, SSE_EHELD, SSE_EBUSY. */
static int stream_open(struct conn *c, struct user *user, struct slice last_event_id,
                       struct text *out)
{
    struct sse_server *server = c->server;

    pthread_mutex_lock(&user->lock);
    int code = user_admits_locked(server, user);
    if (code == SSE_OK) {
        c->user = user;
        c->end_seq = UINT64_MAX;
        c->written = c->said_bytes = 0;
        c->reason = NOT_CLOSED;
        c->is_behind = c->is_stuck = c->is_finished = false;
        atomic_store(&c->is_released, false);
        c->is_asked = false;
        stream_start_locked(c, last_event_id, out);
        text_print(out, "retry: %u\nid: ", server->config.retry_ms);
        id_print(out, user->epoch, c->seq - 1);
        text_print(out, "\n%sdata: User '%s' connected\n\n",
                   server->config.greeting_event ? "event: connected\n" : "", user->name);
        struct slice keep_alive = keep_alive_frame(&server->config);
        text_put(out, keep_alive.at, keep_alive.len);
        c->control = (struct slice){out->at, out->len};
        stream_enter_locked(c, CONN_OPEN);
        stream_flush_locked(c);
    }
    user_unlock(server, user);
    return code;
}

/* Between one and five times the configured retry, so that clients come back spread out. */
static uint64_t retry_spread(struct sse_server *server)
{
    uint64_t draw =
        server->retry_seed + atomic_fetch_add(&server->retries, 1) * 0x9E3779B97F4A7C15u;
    draw = (draw ^ (draw >> 31)) * 0xBF58476D1CE4E5B9u; /* scatters a counter: splitmix64 */
    draw ^= draw >> 27;
    return server->config.retry_ms + draw % (4 * (uint64_t)server->config.retry_ms + 1);
}

/* Goes on with a closing stream: writes what it is due, then the final event, if there is one. When
 * its client has taken all of that, it is complete. */
static void stream_finish_locked(struct conn *c)
{
    struct text t = text_over(c->final, sizeof c->final);

    stream_flush_locked(c);
    if (!stream_is_alive(c) || c->control.len > 0 || c->seq != c->end_seq)
        return;
    if (!c->is_finished && c->reason == CLOSE_DISCONNECTED)
        text_print(&t, "event: disconnected\ndata: User '%s' disconnected\n\n", c->user->name);
    else if (!c->is_finished && c->reason == CLOSE_STOPPING)
        text_print(&t, "retry: %" PRIu64 "\n",
                   retry_spread(c->server)); /* takes effect by itself */
    c->is_finished = true;
    c->control = (struct slice){t.at, t.len};
    if (t.len > 0)
        stream_flush_locked(c);
    if (stream_is_alive(c) && c->control.len == 0)
        stream_enter_locked(c, CONN_COMPLETE);
}

/* Closes an open stream, after what it is due up to now: writes that and the final event as far as
 * the socket takes them without waiting. For the rest its client has SSE_FINAL_MS, or until the
 * user makes room for another. */
static void stream_close_locked(struct conn *c, enum close_reason reason)
{
    c->reason = reason;
    c->end_seq = c->user->log.next;
    stream_enter_locked(c, CONN_CLOSING);
    stream_finish_locked(c);
}

/* How often in a heartbeat the loop writes keep-alives to a part of the user's streams, so that
 * many streams of one user hold nobody up. It divides the steps of the heartbeat. */
static unsigned user_slices(const struct user *user)
{
    unsigned streams = atomic_load(&user->stream_count), slices = 1;
    while (slices < SSE_HEARTBEAT_STEPS && slices * SSE_KEEP_ALIVES < streams)
        slices *= 2;
    return slices;
}

/* Writes keep-alives to the next slice of a user's streams. A peer that vanished just after one has
 * acknowledged nothing for almost two heartbeats when the second comes, so silence for one and a
 * half means that it is gone. */
static void user_keep_alive_locked(struct sse_server *server, struct user *user)
{
    unsigned limit_ms = (unsigned)heartbeat_ms(server) / 2 * 3, slices = user_slices(user);
    unsigned count = (atomic_load(&user->stream_count) + slices - 1) / slices;
    struct conn *c = user->next_keep_alive ? user->next_keep_alive : user->streams, *next;

    for (; c && count > 0; c = next, count--) {
        next = c->next; /* a stream that fails is unlinked */
        if (!c->is_behind) {
            c->control = keep_alive_frame(&server->config);
            stream_flush_locked(c);
        }
        if (stream_is_open(c) && transport_is_silent(c->transport.fd, limit_ms))
            stream_enter_locked(c, CONN_LOST);
    }
    user->next_keep_alive = c;
}

/* Reads and drops what a client says on its stream, a little of it at once, since decrypting takes
 * its time. False if it has closed, or has said too much in all. */
static bool stream_drop_input_locked(struct conn *c)
{
    struct pollfd on = {.fd = c->transport.fd, .events = POLLIN};
    char sink[SSE_READ_BYTES_MIN];

    if (c->is_stuck)
        return poll(&on, 1, 0) == 0;
    ssize_t n = transport_read(&c->transport, sink, sizeof sink, false);
    if (n > 0)
        c->said_bytes += (uint32_t)n;
    if (c->transport.tls) /* what it says to TLS itself counts as well */
        c->said_bytes += (uint32_t)(sizeof sink - c->transport.allowance);
    if (n == IO_LATER)
        stream_stick_locked(c, transport_is_stuck(&c->transport));
    return n != 0 && c->said_bytes <= SSE_STREAM_SAYS_BYTES;
}

/* What the loop wants done, beside READABLE, WRITABLE and CLOSED. */
enum { EXPIRED = 8, RELEASED = 16 };

/* Does for a stream what the loop wants done. A stream that is over is released here, where the
 * thread that has the mutex is about to let go of it, and so refers to no stream any more. */
static void stream_act_locked(struct conn *c, unsigned wants)
{
    bool open = stream_is_open(c);

    if (!stream_is_alive(c)) {
        if (wants & RELEASED)
            atomic_store(&c->is_released, true); /* the last access: the loop may close it now */
        return;
    }
    if ((wants & CLOSED) || (open && (wants & READABLE) && !stream_drop_input_locked(c)))
        stream_enter_locked(c, CONN_LOST);
    else if (!open)
        stream_finish_locked(c);
    else if (wants & EXPIRED)
        stream_close_locked(c, CLOSE_EXPIRED);
    else if (wants & WRITABLE)
        stream_flush_locked(c);
    if (stream_is_open(c) && c->is_stuck && !c->is_behind && (wants & WRITABLE)) {
        stream_stick_locked(c, false); /* there is room: TLS may read on */
        if (!stream_drop_input_locked(c))
            stream_enter_locked(c, CONN_LOST);
    }
    if (stream_is_alive(c))
        conn_poll(c);
}

/* Unlocks a user, after doing what the loop wants done for its streams. Every thread that has
 * locked a user unlocks it in this way. */
static void user_unlock(struct sse_server *server, struct user *user)
{
    do {
        struct conn *c = atomic_load(&user->wanted), *next;
        for (c = c ? atomic_exchange(&user->wanted, NULL) : NULL; c; c = next) {
            next = c->wanted_next; /* the loop may add it again as soon as `wants` is 0 */
            stream_act_locked(c, atomic_exchange(&c->wants, 0));
        }
        unsigned due = atomic_load(&user->keep_alives_due);
        for (due = due ? atomic_exchange(&user->keep_alives_due, 0) : 0; due > 0; due--)
            user_keep_alive_locked(server, user);
        pthread_mutex_unlock(&user->lock);
        /* The loop may have added something and failed to lock just before the unlock. No other
         * thread would act on that, so this one looks again. */
    } while ((atomic_load(&user->wanted) || atomic_load(&user->keep_alives_due) > 0) &&
             pthread_mutex_trylock(&user->lock) == 0);
}

/* Has the thread that holds the user's mutex do what is wanted, or does it here if there is none.
 * Never waits. */
static void user_try(struct sse_server *server, struct user *user)
{
    if (pthread_mutex_trylock(&user->lock) == 0)
        user_unlock(server, user);
}

/* The loop wants this done for a stream. */
static void stream_want(struct conn *c, unsigned wants)
{
    struct user *user = c->user;
    if (atomic_fetch_or(&c->wants, wants) == 0) {
        c->wanted_next = atomic_load(&user->wanted);
        while (!atomic_compare_exchange_weak(&user->wanted, &c->wanted_next, c))
            ;
    }
    user_try(c->server, user);
}

/* Hands a stream that was opened to the loop, once the greeting, which stands in the worker's
 * buffer, is written. */
static void stream_hand_over(struct conn *c)
{
    struct pollfd on = {.fd = c->transport.fd, .events = POLLOUT};
    struct sse_server *server = c->server;
    struct user *user = c->user;
    int64_t deadline = now_ms() + SSE_ANSWER_MS, left;

    pthread_mutex_lock(&user->lock);
    while (stream_is_alive(c) && c->control.len > 0 && !c->is_finished) {
        user_unlock(server, user);
        bool ready = (left = deadline - now_ms()) > 0 && poll(&on, 1, (int)left) != 0;
        pthread_mutex_lock(&user->lock);
        stream_act_locked(c, ready ? WRITABLE : CLOSED);
    }
    if (!conn_hand_over(c) && stream_is_alive(c))
        stream_enter_locked(c, CONN_LOST);
    user_unlock(server, user);
}

/* ==== Messaging =================================================================================
 *
 * What embedders call, and what the routes are built on. Every message takes one way: it joins the
 * list of its user's pending sends, and the thread that has the user's mutex completes that list.
 * All of its messages are appended, each stream that keeps up is written once, and the receipts are
 * read off the cursors. Invariant: while nobody holds the mutex, no stream that keeps up is due
 * anything. */

/* Names of events that browsers and this server use themselves. */
#define EVENTS_RESERVED "open, error, gap, connected, disconnected"

/* Whether a message may have this event name, or none. */
static bool event_is_valid(struct slice event)
{
    for (struct slice rest = slice_of(EVENTS_RESERVED); rest.at;)
        if (slice_same(event, slice_trim(slice_cut(&rest, ','))))
            return false;
    return event.len <= SSE_EVENT_BYTES && text_is_name(event.at, event.len);
}

/* Writes to all streams that keep up, each once, whatever the log has got for them. One that has
 * fallen out of the log is lost here. */
static void user_flush_locked(struct user *user)
{
    for (struct conn *c = user->streams, *next; c; c = next) {
        next = c->next; /* a stream that fails is unlinked */
        if (!c->is_behind || c->seq < user->log.first)
            stream_flush_locked(c);
    }
}

/* Would one more message push out any of the log's from `seq` on? */
static bool log_would_drop(const struct log *log, uint64_t seq, const struct send *send)
{
    return seq < log->next &&
           (log->next - seq >= log->max_count ||
            log->head - log_start(log, seq) + frame_bytes(SSE_ID_BYTES, send->event, send->body) >
                log->max_bytes);
}

/* Completes all pending sends, oldest first. A message that would push out one which no stream was
 * written yet has that one written first: so no stream falls behind without
 * one attempt to write to it. */
static void user_complete_locked(struct user *user)
{
    struct send *send = atomic_exchange(&user->pending, NULL), *oldest = NULL;
    struct log *log = &user->log;
    uint64_t unwritten = log->next; /* from this message on, streams were not written to */

    while (send) {
        struct send *next = send->next;
        send->next = oldest;
        oldest = send;
        send = next;
    }
    for (send = oldest; send; send = send->next) {
        if (log_would_drop(log, unwritten, send)) {
            user_flush_locked(user);
            unwritten = log->next;
        }
        send->seq = log->next;
        send->code = SSE_ETOOBIG;
        if (log_append(log, user->epoch, send->event, send->body)) {
            send->code = SSE_OK;
            user->tally.messages++;
            user->tally.message_bytes += send->body.len;
        }
    }
    user_flush_locked(user);
    for (send = oldest; send; send = send->next) {
        struct sse_receipt *receipt = send->receipt;
        struct text id = text_over(receipt->id, sizeof receipt->id - 1);
        for (const struct conn *c = user->streams; c && send->code == SSE_OK; c = c->next) {
            receipt->streams++;
            receipt->delivered += c->seq > send->seq;
        }
        if (send->code == SSE_OK) {
            id_print(&id, user->epoch, send->seq);
            receipt->id[id.len] = 0;
            receipt->users++;
        }
        send->done = true; /* its sender may go on as soon as it has the mutex */
    }
}

/* Adds a send to the pending ones of a pinned user. Any sender to the user may complete it from now
 * on, so event, body and receipt must stay until send_finish() has returned. */
static void send_begin(struct user *user, struct send *send)
{
    send->next = atomic_load(&user->pending);
    while (!atomic_compare_exchange_weak(&user->pending, &send->next, send))
        ;
}

/* Completes a pending send, and all that are pending with it, unless another sender has. Returns
 * SSE_OK or SSE_ETOOBIG. Senders that meet at one user so share one write to each stream. Where the
 * machine is busy they would hardly ever meet, since each runs until it is done: so if there are
 * many streams to write, this one lets others run first, which add theirs. */
static int send_finish(struct sse_server *server, struct user *user, struct send *send)
{
    pthread_mutex_lock(&user->lock);
    if (!send->done && atomic_load(&user->stream_count) >= SSE_SHARED_STREAMS) {
        user_unlock(server, user);
        sched_yield();
        pthread_mutex_lock(&user->lock);
    }
    if (!send->done)
        user_complete_locked(user);
    user_unlock(server, user);
    return send->code;
}

/* Sends a message to a pinned user, and unpins it. Returns SSE_OK or SSE_ETOOBIG. */
static int user_send(struct sse_server *server, struct user *user, struct send send)
{
    send_begin(user, &send);
    int code = send_finish(server, user, &send);
    user_unpin(user);
    return code;
}

/* Makes a send of what the public functions take, and empties its receipt. False if the event name
 * or the data is invalid. */
static bool send_make(struct send *send, const char *event, const char *data, size_t len,
                      struct sse_receipt *receipt)
{
    *receipt = (struct sse_receipt){.users = 0};
    *send = (struct send){
        .event = slice_of(event), .body = {data ? data : "", len}, .receipt = receipt};
    return event_is_valid(send->event) && (data || len == 0) && text_is_utf8(send->body.at, len);
}

/* Whether a message's frame fits a history, with an id of that many bytes. */
static bool send_fits(const struct sse_server *server, size_t id_bytes, const struct send *send)
{
    return frame_bytes(id_bytes, send->event, send->body) <= server->config.history_bytes;
}

int sse_send(struct sse_server *server, const char *user, const char *event, const char *data,
             size_t len, struct sse_receipt *receipt)
{
    struct sse_receipt unasked;
    struct slice name = slice_of(user);
    struct send send;

    if (!send_make(&send, event, data, len, receipt ? receipt : &unasked) ||
        !text_is_user_id(name.at, name.len))
        return SSE_EINVAL;
    struct user *found = user_find(server, name);
    if (!found) { /* nobody is added, or has to make room, for what does not fit */
        if (!send_fits(server, strlen("ffffffffffffffff-1"), &send))
            return SSE_ETOOBIG;
        found = user_find_or_add(server, name);
    }
    return found ? user_send(server, found, send) : SSE_EFULL;
}

/* Returns the bytes of the longest id that the next message of a user can have. */
static size_t longest_id(struct sse_server *server)
{
    char id[SSE_ID_BYTES];
    struct user *user;
    uint32_t at = 0;
    size_t longest = 0;

    while ((user = user_each(server, &at))) {
        struct text t = text_over(id, sizeof id);
        pthread_mutex_lock(&user->lock);
        id_print(&t, user->epoch, user->log.next);
        user_unlock(server, user);
        user_unpin(user);
        longest = t.len > longest ? t.len : longest;
    }
    return longest;
}

int sse_broadcast(struct sse_server *server, const char *event, const char *data, size_t len,
                  struct sse_receipt *receipt)
{
    struct sse_receipt unasked;
    struct send send;
    struct user *found;
    uint32_t at = 0;

    if (!send_make(&send, event, data, len, receipt ? receipt : &unasked))
        return SSE_EINVAL;
    /* Ids differ in length between users: if the longest fits, all get the message, else nobody. */
    if (!send_fits(server, SSE_ID_BYTES - 1, &send) &&
        !send_fits(server, longest_id(server), &send))
        return SSE_ETOOBIG;
    while ((found = user_each(server, &at)))
        user_send(server, found, send);
    send.receipt->id[0] = 0;
    return SSE_OK;
}

/* Closes all streams of a user, after what they are due up to now. */
static void user_close_locked(struct user *user, enum close_reason reason)
{
    while (user->streams)
        stream_close_locked(user->streams, reason);
}

/* Finds a user for a public function, and pins it. SSE_OK, SSE_EINVAL or SSE_ENOUSER. */
static int user_named(struct sse_server *server, const char *user, struct user **found)
{
    struct slice name = slice_of(user);
    if (!text_is_user_id(name.at, name.len))
        return SSE_EINVAL;
    *found = user_find(server, name);
    return *found ? SSE_OK : SSE_ENOUSER;
}

int sse_disconnect(struct sse_server *server, const char *user, unsigned hold_s)
{
    struct user *found;
    int code = hold_s > SSE_HOLD_MAX_S ? SSE_EINVAL : user_named(server, user, &found);

    if (code != SSE_OK)
        return code;
    pthread_mutex_lock(&found->lock);
    found->hold_until_ms = hold_s ? now_ms() + (int64_t)hold_s * 1000 : 0;
    user_close_locked(found, CLOSE_DISCONNECTED);
    user_unlock(server, found);
    user_unpin(found);
    return SSE_OK;
}

/* Returns the status of a pinned user: queued are the messages that no stream was handed yet. */
static struct sse_user_status user_status(struct sse_server *server, struct user *user)
{
    pthread_mutex_lock(&user->lock);
    const struct log *log = &user->log;
    uint64_t fresh =
        user->max_delivered_seq + 1 > log->first ? user->max_delivered_seq + 1 : log->first;
    unsigned streams = atomic_load(&user->stream_count);
    struct sse_user_status status = {
        .connected = streams > 0, .streams = streams, .queued = (unsigned)(log->next - fresh)};
    user_unlock(server, user);
    return status;
}

int sse_status(struct sse_server *server, const char *user, struct sse_user_status *status)
{
    struct user *found;
    int code = user_named(server, user, &found);

    if (code != SSE_OK)
        return code;
    *status = user_status(server, found);
    user_unpin(found);
    return SSE_OK;
}

int sse_pause(struct sse_server *server, unsigned ms)
{
    int64_t deadline = now_ms() + ms;

    pthread_mutex_lock(&server->conns_lock);
    while (!atomic_load(&server->stopping) &&
           cond_wait(&server->conns_changed, &server->conns_lock, deadline))
        ;
    pthread_mutex_unlock(&server->conns_lock);
    return atomic_load(&server->stopping) ? SSE_ESTOPPING : SSE_OK;
}

/* ==== Answers ===================================================================================
 *
 * Handlers return a status and write a body; here it becomes bytes in the worker's output buffer,
 * where the answers to pipelined requests wait to go out in one write. A body that outgrows its
 * scratch turns chunked. Every answer is counted and logged here, too. Invariant: answer_head()
 * alone writes a status line and fields. */

/* How the answer's body is framed where it has no Content-Length. */
enum { FRAMED_CHUNKED = -1, FRAMED_BY_CLOSE = -2, FRAMED_STREAM = -3, FRAMED_EMPTY = -4 };

static const struct {
    int status;
    const char *title;
} STATUSES[] = {{200, "OK"},
                {201, "Created"},
                {202, "Accepted"},
                {204, "No Content"},
                {303, "See Other"},
                {400, "Bad Request"},
                {401, "Unauthorized"},
                {403, "Forbidden"},
                {404, "Not Found"},
                {405, "Method Not Allowed"},
                {408, "Request Timeout"},
                {409, "Conflict"},
                {413, "Content Too Large"},
                {414, "URI Too Long"},
                {417, "Expectation Failed"},
                {422, "Unprocessable Content"},
                {429, "Too Many Requests"},
                {431, "Request Header Fields Too Large"},
                {500, "Internal Server Error"},
                {501, "Not Implemented"},
                {503, "Service Unavailable"},
                {505, "HTTP Version Not Supported"}};

enum { STATUS_COUNT = sizeof STATUSES / sizeof *STATUSES };
_Static_assert((int)STATUS_COUNT < (int)SSE_STATUSES,
               "raise SSE_STATUSES: one more counts all others");

/* Index of a status in the table; STATUS_COUNT if the table does not have it. */
static size_t status_index(int status)
{
    size_t i = 0;
    while (i < STATUS_COUNT && STATUSES[i].status != status)
        i++;
    return i;
}

/* The words that go with a status. */
static const char *status_title(int status)
{
    size_t i = status_index(status);
    return i < STATUS_COUNT ? STATUSES[i].title : "Status";
}

/* Adds one to a counter that /metrics shows. */
static void counter_add(atomic_ulong *of)
{
    atomic_fetch_add_explicit(of, 1, memory_order_relaxed);
}

/* Writes out the output buffer, however long the client takes up to SSE_ANSWER_MS. False if it no
 * longer takes it. */
static bool conn_write_out(struct conn *c)
{
    struct text *out = &c->worker->out;
    bool written = transport_write_all(&c->transport, out->at, out->len, now_ms() + SSE_ANSWER_MS);
    out->len = 0;
    if (!written)
        transport_abort(&c->transport); /* part of an answer must not look like one */
    return written;
}

static bool conn_complete_batch(struct conn *c);

/* Completes the batch of pending sends, and writes out all answers. False if the client no longer
 * takes them. */
static bool conn_flush(struct conn *c)
{
    return conn_complete_batch(c) && (c->worker->out.len == 0 || conn_write_out(c));
}

/* Makes room for `need` bytes in the output buffer, behind the answers that come before. Sets
 * x->lost if the client no longer takes those. */
static void exchange_make_room(struct sse_exchange *x, size_t need)
{
    struct conn *c = x->conn;
    const struct text *out = &c->worker->out;
    if (!conn_complete_batch(c) || (out->cap - out->len < need && !conn_write_out(c)))
        x->lost = x->close = true;
}

/* Appends the methods that a route takes and the end of the line; without a route, all methods. */
static void answer_methods(struct text *t, const struct route *route)
{
    const char *methods = route ? route->methods : "GET|POST";
    text_string(t, strcmp(methods, "POST") == 0 ? "POST" : "GET, HEAD");
    text_string(t, strcmp(methods, "GET|POST") == 0 ? ", POST, OPTIONS\r\n" : ", OPTIONS\r\n");
}

/* Appends the fields by which a browser learns what pages may do (WHATWG Fetch section 3.3). */
static void answer_cors(struct sse_exchange *x, struct text *t)
{
    const char *listed = origin_listed(&x->server->config, x->request.origin);

    if (x->server->config.cors_count > 0)
        text_string(t, "Vary: Origin\r\n");
    if (!listed)
        return;
    /* With credentials a browser takes the origin itself and no asterisk. */
    bool is_any = strcmp(listed, "*") == 0;
    struct slice origin = is_any ? slice_of("*") : x->request.origin;
    text_print(
        t, "Access-Control-Allow-Origin: %.*s\r\n%sAccess-Control-Expose-Headers: Retry-After\r\n",
        (int)origin.len, origin.at, is_any ? "" : "Access-Control-Allow-Credentials: true\r\n");
    if (!x->is_options)
        return;
    /* Polyfills of EventSource send Cache-Control, Pragma and X-Requested-With. */
    text_string(t, "Access-Control-Allow-Headers: Authorization, Cache-Control, Content-Type, "
                   "Last-Event-ID, Pragma, X-Requested-With\r\n"
                   "Access-Control-Max-Age: 600\r\nAccess-Control-Allow-Methods: ");
    answer_methods(t, x->route);
}

/* Appends the status line and all fields. `length` is the body's, or one of FRAMED_…. What every
 * answer has is written without printf(), which takes longer than all the rest. */
static void answer_head(struct sse_exchange *x, int status, int64_t length)
{
    struct text *t = &x->conn->worker->out;

    text_string(t, "HTTP/1.1 ");
    text_decimal(t, (unsigned)status);
    text_string(t, " ");
    text_string(t, status_title(status));
    text_string(t, "\r\nDate: ");
    text_put(t, date_now(&x->conn->worker->date), HTTP_DATE_BYTES);
    if (length != FRAMED_EMPTY) {
        text_string(t, "\r\nContent-Type: ");
        text_string(t, x->type);
    }
    if (length >= 0) {
        text_string(t, "\r\nContent-Length: ");
        text_decimal(t, (uint64_t)length);
    }
    text_string(t, length == FRAMED_CHUNKED ? "\r\nTransfer-Encoding: chunked\r\n" : "\r\n");
    text_string(t, length == FRAMED_STREAM
                       ? "Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
                       : "Cache-Control: no-store\r\n");
    if (x->close || x->request.minor == 0)
        text_string(t, x->close ? "Connection: close\r\n" : "Connection: keep-alive\r\n");
    if (status == 503 || status == 429)
        text_print(t, "Retry-After: %d\r\n", SSE_RETRY_AFTER_S);
    if (status == 401)
        text_string(t, "WWW-Authenticate: Bearer\r\n");
    if (status == 405 || x->is_options) {
        text_string(t, "Allow: ");
        answer_methods(t, x->route);
    }
    answer_cors(x, t);
    text_put(t, x->fields.at, x->fields.len);
    text_string(t, "\r\n");
}

/* Sends what the answer holds as a chunk; the head goes first. HTTP/1.0 knows no chunks: there the
 * body ends with the connection. */
static void answer_chunk(struct sse_exchange *x)
{
    struct text *out = &x->conn->worker->out;
    bool frames = x->request.minor > 0;

    exchange_make_room(x, SSE_OUT_BYTES);
    if (!x->chunked) {
        x->chunked = true;
        x->close |= !frames;
        answer_head(x, 200, frames ? FRAMED_CHUNKED : FRAMED_BY_CLOSE);
    }
    if (x->answer.len > 0 && !x->is_head && !x->lost) {
        if (frames)
            text_print(out, "%zx\r\n", x->answer.len);
        text_put(out, x->answer.at, x->answer.len);
        text_string(out, frames ? "\r\n" : "");
    }
    x->answer.len = 0;
}

/* Hands the answer over to the output buffer, whole or as its last chunk. */
static void answer_finish(struct sse_exchange *x, int status)
{
    struct text *out = &x->conn->worker->out;

    if (x->chunked) {
        answer_chunk(x);
        text_string(out, x->request.minor > 0 && !x->is_head ? "0\r\n\r\n" : "");
        return;
    }
    /* RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5: these have no content */
    bool bare = status == 204 || status == 304;
    if (bare || status == 205)
        x->answer.len = 0;
    exchange_make_room(x, SSE_FIELDS_BYTES + x->fields.len + x->answer.len);
    answer_head(x, status, bare ? FRAMED_EMPTY : (int64_t)x->answer.len);
    if (!x->is_head)
        text_put(out, x->answer.at, x->answer.len);
}

void sse_write(struct sse_exchange *x, const char *bytes, size_t len)
{
    while (len > x->answer.cap - x->answer.len) {
        size_t part = x->answer.cap - x->answer.len;
        text_put(&x->answer, bytes, part);
        bytes += part;
        len -= part;
        answer_chunk(x);
    }
    text_put(&x->answer, bytes, len);
}

void sse_print(struct sse_exchange *x, const char *format, ...)
{
    for (int tries = 0; tries < 2; tries++) {
        va_list args;
        va_start(args, format);
        text_vprint(&x->answer, format, args);
        va_end(args);
        if (!x->answer.full)
            return;
        x->answer.full = false;
        answer_chunk(x);
    }
    x->lost = x->close = true; /* better no answer than one with a hole */
}

void sse_write_json_string(struct sse_exchange *x, const char *utf8, size_t len)
{
    char escaped[8];

    sse_write(x, "\"", 1);
    for (size_t i = 0, n; i < len;
         i += n) { /* one character after another, as json_escape() does */
        struct text t = text_over(escaped, sizeof escaped);
        n = utf8_sequence((const unsigned char *)utf8 + i, len - i);
        n = n ? n : 1;
        json_escape(&t, utf8 + i, n);
        sse_write(x, t.at, t.len);
    }
    sse_write(x, "\"", 1);
}

void sse_content_type(struct sse_exchange *x, const char *type)
{
    x->type = type;
}

int sse_field(struct sse_exchange *x, const char *name, const char *value)
{
    /* Written by the server itself, or of the connection; those with a dash begin many. */
    static const char *const ours[] = {
        "Keep-Alive",  "Proxy-Connection",  "TE",           "Trailer",
        "Upgrade",     "Access-Control-",   "Allow",        "Cache-Control",
        "Connection",  "Content-Length",    "Content-Type", "Date",
        "Retry-After", "Transfer-Encoding", "Vary",         "WWW-Authenticate"};
    struct slice n = slice_of(name), v = slice_of(value);

    if (!http_is_token(n) || !http_is_field_value(v) || x->chunked)
        return SSE_EINVAL;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (ours[i][strlen(ours[i]) - 1] == '-' ? slice_begins(n, ours[i])
                                                : slice_is_nocase(n, ours[i]))
            return SSE_EINVAL;
    if (x->fields.cap - x->fields.len < n.len + v.len + strlen(": \r\n"))
        return SSE_EFULL;
    text_string(&x->fields, name);
    text_string(&x->fields, ": ");
    text_put(&x->fields, v.at, v.len);
    text_string(&x->fields, "\r\n");
    return SSE_OK;
}

/* Makes the answer a problem document (RFC 9457) with this detail. Returns the status. */
static int exchange_vfail(struct sse_exchange *x, int status, const char *format, va_list args)
{
    char detail[256];

    if (vsnprintf(detail, sizeof detail, format, args) < 0)
        detail[0] = 0;
    x->type = "application/problem+json";
    x->lost |= x->chunked; /* too late to say so: the answer has begun as another */
    x->close |= x->lost;
    x->fields.len = 0; /* they belonged to the other answer, as what was written so far */
    x->answer = text_over(x->answer.at, x->answer.cap);
    text_print(&x->answer, "{\"title\":\"%s\",\"status\":%d,\"detail\":", status_title(status),
               status);
    json_string(&x->answer, detail, strlen(detail));
    text_string(&x->answer, "}\n");
    return status;
}

int sse_fail(struct sse_exchange *x, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    exchange_vfail(x, status, format, args);
    va_end(args);
    return status;
}

/* Fails an exchange like sse_fail(), and counts why. Returns the status. */
SSE_PRINTF(4, 5)
static int exchange_reject(struct sse_exchange *x, enum refusal why, int status, const char *format,
                           ...)
{
    va_list args;
    va_start(args, format);
    exchange_vfail(x, status, format, args);
    va_end(args);
    counter_add(&x->server->refusals[why]);
    return status;
}

/* The status and the words for what a function of the messaging layer returned. */
static int exchange_fail(struct sse_exchange *x, int code)
{
    const struct sse_config *config = &x->server->config;
    switch (code) {
    case SSE_ENOUSER:
        return sse_fail(x, 404, "user '%s' was never seen here", x->user);
    case SSE_EFULL:
        return exchange_reject(x, REFUSED_USERS, 503,
                               "the user table is full, and none of its %u users can make room",
                               config->max_users);
    case SSE_ETOOBIG:
        return exchange_reject(x, REFUSED_SIZE, 413,
                               "framed, the message is over the %u bytes of history a user has",
                               config->history_bytes);
    case SSE_ESTOPPING:
        return exchange_reject(x, REFUSED_STOPPING, 503, "the server is stopping");
    case SSE_EBUSY:
        return exchange_reject(x, REFUSED_STREAMS, 429,
                               "user '%s' holds as many streams as one may (%u)", x->user,
                               config->max_streams);
    case SSE_EHELD:
        counter_add(&x->server->refusals[REFUSED_HELD]);
        return 204; /* tells an EventSource to stay away (WHATWG HTML section 9.2.2) */
    default:
        return sse_fail(x, 500, "unexpected error %d", code);
    }
}

/* Appends how every answer about a user begins, behind the brace: `"user":…,"status":…`. */
static void user_write(struct text *t, const char *user, bool connected)
{
    text_string(t, "\"user\":");
    json_string(t, user, strlen(user));
    text_string(t, connected ? ",\"status\":\"Connected\"" : ",\"status\":\"Disconnected\"");
}

/* Appends what a sender is told: it fits any answer's scratch. */
static void receipt_write(struct text *t, const char *user, const struct sse_receipt *receipt)
{
    text_string(t, "{\"id\":\"");
    text_string(t, receipt->id);
    text_string(t, "\",");
    user_write(t, user, receipt->streams > 0);
    text_string(t, ",\"streams\":");
    text_decimal(t, receipt->streams);
    text_string(t, ",\"delivered\":");
    text_decimal(t, receipt->delivered);
    text_string(t, "}\n");
}

/* Completes the pending sends of a pipeline, before their bodies in the input buffer are written
 * over. Then none of their users is pinned any more, and the answers follow in order, which may
 * take as long as the client does. False if it no longer takes them. */
static bool conn_complete_batch(struct conn *c)
{
    struct worker *w = c->worker;
    unsigned count = w->batch_count;
    char scratch[SSE_SCRATCH_BYTES / 2];

    w->batch_count = 0;
    for (struct batched *b = w->batch; b < w->batch + count; b++) {
        send_finish(c->server, b->user, &b->send);
        memcpy(b->name, b->user->name, sizeof b->name);
        user_unpin(b->user);
    }
    for (struct batched *b = w->batch; b < w->batch + count; b++) {
        struct sse_exchange x = {.server = c->server,
                                 .conn = c,
                                 .request.minor = 1,
                                 .type = "application/json",
                                 .answer = text_over(scratch, sizeof scratch)};
        receipt_write(&x.answer, b->name, &b->receipt);
        if (w->out.cap - w->out.len < SSE_FIELDS_BYTES + x.answer.len && !conn_write_out(c))
            return false;
        answer_head(&x, 202, (int64_t)x.answer.len);
        text_put(&w->out, x.answer.at, x.answer.len);
    }
    return true;
}

/* Hands a line to the program's log, if it has one. */
static void server_log(struct sse_server *server, const char *line)
{
    if (server->config.log)
        server->config.log(server->config.log_arg, line);
}

/* Counts a request that is answered with this status, and logs it: TIME PEER METHOD PATH STATUS,
 * parted by single spaces. The query stays out, because tokens travel there; bytes that are not
 * printable ASCII are percent-encoded. */
static void exchange_note(struct sse_exchange *x, int status)
{
    char line[SSE_LOG_LINE_BYTES];
    struct text t = text_over(line, sizeof line - 1);
    struct slice path = x->request.path, method = x->request.method;
    size_t row = x->route ? (size_t)(x->route - x->server->routes) : SSE_ROUTES, logged = 0;

    counter_add(&x->server->requests[row][status_index(status)]);
    if (!x->server->config.access_log)
        return;
    if (!path.at)
        method = path = slice_of("-"); /* not a request that could be read */
    text_iso_date(&t);
    text_print(&t, " %s %.*s ", x->conn->worker->peer, (int)(method.len < 16 ? method.len : 16),
               method.at);
    for (size_t end = t.len + SSE_LOG_PATH_BYTES; logged < path.len && t.len < end; logged++) {
        struct slice rest = {path.at + logged, path.len - logged};
        if (slice_begins(rest, "%3f") || slice_begins(rest, "access_token"))
            break; /* a query whose `?` was escaped */
        if (*rest.at > 0x20 && *rest.at < 0x7F)
            text_put(&t, rest.at, 1);
        else
            text_print(&t, "%%%02X", (unsigned char)*rest.at);
    }
    text_print(&t, "%s %d", logged < path.len ? "..." : "", status);
    line[t.len] = 0;
    server_log(x->server, line);
}

/* ==== Exchanges =================================================================================
 *
 * From a connection's bytes to an answer: read the head, find the route, check who asks, receive
 * the body, call the handler. Checks come before the body, so that nobody uploads in vain. Each
 * step returns 0 to go on, a status, or CLOSE; a handler returns a status from 200 on, or 0 if its
 * answer is written, or will be by conn_complete_batch(). */

/* Finds the route of a path: equal, or equal up to {userId}, which stands for one segment. A route
 * without {userId} goes before one with it, of which there is one at most: up to {userId} it is the
 * path's own beginning. */
static const struct route *route_find(const struct sse_server *server, struct slice path)
{
    const struct route *with_user = NULL, *end = server->routes + server->route_count;
    for (const struct route *r = server->routes; r < end; r++) {
        size_t fixed = strcspn(r->path, "{");
        if (slice_is(path, r->path) && r->path[fixed] == 0)
            return r;
        if (r->path[fixed] == '{' && path.len >= fixed && memcmp(path.at, r->path, fixed) == 0 &&
            !memchr(path.at + fixed, '/', path.len - fixed))
            with_user = r;
    }
    return with_user;
}

enum { IDLE = -2 }; /* what reading a head returns besides: no request has begun */

/* A time in milliseconds modulo 2^32, since some machines have no atomics of 64 bits; never 0. */
static unsigned time_stamp(void)
{
    return (unsigned)now_ms() | 1;
}

/* Sets up TLS where it is spoken and not set up yet; a client that speaks plain HTTP instead is
 * served a 400. False if that failed. */
static bool conn_secure(struct conn *c)
{
    struct sse_server *server = c->server;

    if (!server->config.cert_file || c->transport.tls)
        return true;
    c->is_misdirected = transport_hears_plain(&c->transport);
    if (c->is_misdirected)
        return true;
    pthread_mutex_lock(&server->conns_lock);
    struct ssl_ctx_st *context = tls_share(server->tls);
    pthread_mutex_unlock(&server->conns_lock);
    atomic_store(&c->worker->stalled_since, time_stamp());
    bool secured = context && transport_secure(&c->transport, context, now_ms() + SSE_HANDSHAKE_MS);
    atomic_store(&c->worker->stalled_since, 0);
    tls_free(context);
    if (!secured && c->transport.tls && c->transport.allowance < SSE_HANDSHAKE_BYTES)
        counter_add(&server->refusals[REFUSED_HANDSHAKE]); /* it had said something */
    return secured;
}

/* Moves unread input down to `base`, so that there is room behind it. */
static void worker_move_input(struct worker *w, size_t base)
{
    if (w->in_start > base) {
        memmove(w->in + base, w->in + w->in_start, w->in_end - w->in_start);
        w->in_end -= w->in_start - base;
        w->in_start = base;
    }
}

/* Reads more input behind `base`, where the head of the request under way ends. Meanwhile the
 * worker counts as stalled: the loop may shut the socket for reading, if its thread is needed. 0 if
 * there is some, 408, or CLOSE if the client has closed. */
static int exchange_read_more(struct sse_exchange *x, size_t base, int64_t deadline_ms)
{
    struct conn *c = x->conn;
    struct worker *w = c->worker;

    if (!conn_flush(c))
        return CLOSE;
    worker_move_input(w, base);
    atomic_store(&w->stalled_since, time_stamp());
    bool came = now_ms() < deadline_ms && transport_wait(&c->transport, POLLIN, deadline_ms);
    atomic_store(&w->stalled_since, 0);
    if (!came)
        return exchange_reject(x, REFUSED_LATE, 408,
                               "the request did not arrive in time: %d s for its head, %d s for "
                               "its body",
                               SSE_HEAD_MS / 1000, SSE_BODY_MS / 1000);
    ssize_t n = transport_read(&c->transport, w->in + w->in_end, SSE_IN_BYTES - w->in_end, false);
    if (n > 0)
        w->in_end += (size_t)n;
    return n == 0 ? CLOSE : 0;
}

/* Rejects a request that cannot be read to its end, with the parser's status and detail. */
static int exchange_malformed(struct sse_exchange *x, int status)
{
    return exchange_reject(x, status == 400 || status > 499 ? REFUSED_MALFORMED : REFUSED_SIZE,
                           status, "%s", x->request.why);
}

/* Waits a moment for the first bytes of a request: one read, which on a busy connection is all that
 * waiting costs. Where connections wait for a worker it does not wait. 0 if there are some, IDLE if
 * none came, CLOSE if the client has closed. */
static int conn_await(struct conn *c)
{
    struct worker *w = c->worker;
    bool waits = atomic_load(&c->server->ready) == 0 && !atomic_load(&c->server->stopping);

    if (!conn_flush(c))
        return CLOSE;
    w->in_start = w->in_end = 0;
    if (w->has_served && !waits && !tls_has_input(&c->transport))
        return IDLE; /* others have waited for longer than its next request */
    ssize_t n = transport_read(&c->transport, w->in, SSE_IN_BYTES, waits);
    w->in_end = n > 0 ? (size_t)n : 0;
    return n > 0 ? 0 : n == 0 ? CLOSE : IDLE;
}

/* Reads until a head is complete, or cannot become a valid one. 0, a status, CLOSE or IDLE. */
static int conn_read_head(struct conn *c, struct sse_exchange *x)
{
    struct worker *w = c->worker;
    struct http_request *request = &x->request;
    int64_t deadline = 0;
    for (;;) {
        const char *in = w->in + w->in_start;
        size_t have = w->in_end - w->in_start, used;
        bool is_blank = have >= 2 && memcmp(in, "\r\n", 2) == 0;
        int status = http_parse_head(in, have, request, &used);
        if (c->was_blank && is_blank)
            status = http_reject(request, 400, "more than one empty line before the request");
        if (c->is_misdirected && (status || used > 0))
            status = http_reject(request, 400, "this port speaks HTTPS: begin with https://");
        if (status)
            return exchange_malformed(x, status);
        bool has_body = used > 0 && (request->chunked || request->content_length > have - used);
        if (used > 0 && !(has_body && w->in_start > 0)) {
            w->in_start += used;
            return 0;
        }
        if (used > 0) { /* its body is to come: give it the room, and read the head again there */
            status = conn_complete_batch(c) ? 0 : CLOSE;
            worker_move_input(w, 0);
        } else if (have == 0 || (have == 2 && is_blank)) {
            c->was_blank |= is_blank;
            status = conn_await(c);
        } else {
            deadline = deadline ? deadline : now_ms() + SSE_HEAD_MS;
            status = exchange_read_more(x, 0, deadline);
            if (status) /* the bytes may have moved: read again as much as there is */
                http_parse_head(w->in + w->in_start, w->in_end - w->in_start, request, &used);
        }
        if (status)
            return status;
    }
}

/* Takes a free slot for a large body. Returns its number from 1 on, or 0 if there is none. */
static uint32_t body_take(struct sse_server *server)
{
    struct bodies *b = &server->bodies;
    pthread_mutex_lock(&server->conns_lock);
    uint32_t slot = b->free;
    if (slot)
        b->free = b->next[slot - 1];
    pthread_mutex_unlock(&server->conns_lock);
    return slot;
}

/* The body is not needed any more: its slot, if it has one, is free for another. */
static void exchange_drop_body(struct sse_exchange *x)
{
    struct bodies *b = &x->server->bodies;
    if (x->body_slot) {
        pthread_mutex_lock(&x->server->conns_lock);
        b->next[x->body_slot - 1] = b->free;
        b->free = x->body_slot;
        pthread_mutex_unlock(&x->server->conns_lock);
    }
    x->body_slot = 0;
    x->body = (struct slice){NULL, 0};
}

/* How a body comes: in chunks, or, where Content-Length tells its size, like the data of one. */
static struct http_chunks body_chunks(const struct http_request *r)
{
    return (struct http_chunks){.state = r->chunked ? CHUNK_SIZE : CHUNK_DATA,
                                .left = r->content_length};
}

/* Does more of the body follow? */
static bool body_goes_on(const struct http_request *r, const struct http_chunks *chunks)
{
    return r->chunked ? chunks->state != CHUNK_DONE : chunks->left > 0;
}

/* Skips a body that is all in the input buffer. False if it is not. */
static bool body_skip(struct sse_exchange *x)
{
    struct worker *w = x->conn->worker;
    struct http_chunks chunks = body_chunks(&x->request);
    struct http_request ignored;
    struct slice data;

    for (size_t used; body_goes_on(&x->request, &chunks); w->in_start += used)
        if (http_decode_chunk(&chunks, w->in + w->in_start, w->in_end - w->in_start, &data,
                              &ignored, &used) != 0 ||
            used == 0)
            return false;
    return true;
}

/* Receives the body, stretch by stretch, having invited the client to send it where it waits for
 * that. The body stays in the input buffer, behind the head, if it fits there (with room for the
 * lines of chunks), as almost every message does; else it moves to a slot of its own. That of
 * another method than POST goes nowhere. Its size is compared as soon as it is known, at each
 * chunk's size line, since what is too large need not be waited for. 0, a status or CLOSE. */
static int exchange_receive(struct sse_exchange *x)
{
    struct http_request *r = &x->request;
    struct worker *w = x->conn->worker;
    struct http_chunks chunks = body_chunks(r);
    int64_t deadline = now_ms() + SSE_BODY_MS;
    uint32_t max = x->server->config.max_message;
    size_t base = w->in_start, got = 0, used;
    size_t room = SSE_IN_BYTES - base - (r->chunked ? SSE_TRAILER_BYTES + 2 : 0);
    bool keep = slice_is(r->method, "POST"), in_place = keep && chunks.left <= room;
    bool invites = r->expects_continue && r->minor > 0 && base == w->in_end;
    char *to = w->in + base;
    struct slice data;

    while (body_goes_on(r, &chunks)) {
        if (chunks.left > max - got)
            return exchange_reject(x, REFUSED_SIZE, 413, "the body may have %u bytes", max);
        int status = http_decode_chunk(&chunks, w->in + w->in_start, w->in_end - w->in_start, &data,
                                       r, &used);
        if (status)
            return exchange_malformed(x, status);
        w->in_start += used;
        if (used == 0) {
            if (invites)
                exchange_make_room(x, SSE_FIELDS_BYTES);
            if (x->lost)
                return CLOSE;
            text_string(&w->out, invites ? "HTTP/1.1 100 Continue\r\n\r\n" : "");
            invites = false;
            status = exchange_read_more(x, base + (in_place ? got : 0), deadline);
            if (status)
                return status;
            continue;
        }
        if (keep && !x->body_slot && (!in_place || got + data.len > room)) {
            if ((x->body_slot = body_take(x->server)) == 0)
                return exchange_reject(x, REFUSED_BODIES, 503,
                                       "too many large bodies are being received");
            to = memcpy(x->server->bodies.area + (size_t)(x->body_slot - 1) * max, to, got);
            in_place = false;
        }
        if (keep && data.len > 0)
            memmove(to + got, data.at, data.len);
        got += data.len;
    }
    if (keep)
        x->body = (struct slice){to, got};
    if (!text_is_utf8(x->body.at, x->body.len))
        return exchange_malformed(x, http_reject(r, 400, "the body must be UTF-8 without NUL"));
    return 0;
}

/* Where tokens are required: reads the one that the request carries. 0, 401, or 503. */
static int exchange_authorize(struct sse_exchange *x, struct token *token)
{
    char *at = x->conn->worker->scratch; /* free until there is an answer */
    const char *why = NULL;
    int len = token_find(&x->request, !origin_is_anyone(x->server, &x->request), at, &why);
    int code =
        why ? SSE_EINVAL : token_read(&x->server->config, at, (size_t)len, unix_ms(), token, &why);

    if (code == SSE_ENOMEM)
        return exchange_reject(x, REFUSED_MEMORY, 503, "the server has run out of memory");
    if (code != SSE_OK)
        return exchange_reject(x, REFUSED_TOKEN, 401, "%s", why);
    x->expires_ms = token->expires_ms;
    return 0;
}

/* Has its token expired since it was checked? */
static bool exchange_is_late(const struct sse_exchange *x)
{
    return x->expires_ms && x->expires_ms <= unix_ms();
}

/* Does everything that can be answered from the head alone: finds the route, checks who asks, and
 * decodes {userId}, the path's last segment. What a user may do goes by the token's `sub`. 0 to go
 * on, or the status. */
static int exchange_check(struct sse_exchange *x)
{
    const struct http_request *r = &x->request;
    struct slice method = slice_is(r->method, "HEAD") ? slice_of("GET") : r->method;
    const char *why = NULL;
    struct token token;
    bool is_allowed = false;
    int status = 0;

    x->is_options = slice_is(r->method, "OPTIONS");
    x->route = route_find(x->server, r->path);
    if (!x->route && !(x->is_options && slice_is(r->path, "*"))) {
        x->is_options = false;
        return sse_fail(x, 404, "there is no such path here; /openapi.json lists those there are");
    }
    if (r->expects_other && r->minor > 0)
        return sse_fail(x, 417, "of all expectations only 100-continue is known here");
    if (x->is_options)
        return 0;
    for (struct slice methods = slice_of(x->route->methods); methods.at && !is_allowed;)
        is_allowed = slice_same(method, slice_cut(&methods, '|'));
    if (!is_allowed)
        return sse_fail(x, 405, "this path takes %s", x->route->methods);
    if (!x->route->is_open && (why = origin_objection(x->server, r)))
        return exchange_reject(x, REFUSED_ORIGIN, 403, "%s", why);
    bool guarded = x->server->config.auth_secret && x->route->access != SSE_ANYONE;
    if (guarded && (status = exchange_authorize(x, &token)))
        return status;
    size_t before = strcspn(x->route->path, "{");
    struct slice segment = {r->path.at + before, r->path.len - before};
    if (x->route->path[before]) {
        int n = percent_decode(segment, false, x->user, SSE_USER_BYTES);
        if (n < 0 || !text_is_user_id(x->user, (size_t)n))
            return exchange_reject(x, REFUSED_MALFORMED, 400,
                                   "a user id is 1 to %d bytes of UTF-8, percent-encoded, without "
                                   "control characters, and not . or ..",
                                   SSE_USER_BYTES);
        x->user[n] = 0;
    }
    why = guarded ? token_lacks(&token, x->route, slice_of(x->user)) : NULL;
    return why ? exchange_reject(x, REFUSED_RIGHTS, 403, "%s", why) : 0;
}

/* Checks, receives the body and calls the handler. Returns the status; 0 if the answer is written,
 * or will be by conn_complete_batch(); or CLOSE. */
static int exchange_answer(struct sse_exchange *x)
{
    int status = exchange_check(x);

    if (status) { /* a body that is not here yet need not come: then the connection closes */
        x->close |= !body_skip(x);
        return status;
    }
    status = exchange_receive(x);
    if (status) { /* what follows in the connection is unknown */
        x->close = true;
        return status;
    }
    if (exchange_is_late(x)) /* receiving takes its time */
        return exchange_reject(x, REFUSED_TOKEN, 401, "%s", TOKEN_EXPIRED);
    if (x->is_options)
        return 204; /* all it says is in its fields */
    const struct route *route = x->route;
    if (!route->takes_body)
        exchange_drop_body(x);
    if (!route->batches && !conn_complete_batch(x->conn)) /* messages before it come before it */
        return CLOSE;
    status = route->handler(x, route->arg);
    if (status == 0 && (route->is_stream || route->batches))
        return 0;
    if (status < 200 || status > 599)
        return sse_fail(x, 500, "the handler returned %d, which is no HTTP status", status);
    return x->chunked ? 200 : status;
}

/* Are more than --max-connections open? Then every answer closes its connection, and no stream
 * opens: the reserved ones are for other requests. */
static bool server_is_over_limit(const struct sse_server *server)
{
    return atomic_load(&server->conns_open) > server->config.max_connections;
}

/* A new exchange on a connection that is served. */
static struct sse_exchange *exchange_begin(struct conn *c)
{
    struct worker *w = c->worker;
    w->exchange = (struct sse_exchange){.server = c->server,
                                        .conn = c,
                                        .type = "application/json",
                                        .answer = text_over(w->scratch, SSE_SCRATCH_BYTES),
                                        .fields = text_over(w->fields, SSE_OWN_FIELDS_BYTES)};
    return &w->exchange;
}

/* Runs one exchange, whose head was read with this outcome: a status, or 0. False if the connection
 * is to close. */
static bool exchange_run(struct sse_exchange *x, int status)
{
    struct conn *c = x->conn;

    c->worker->has_served = true;
    c->was_blank = false;
    c->idle_ms = 0;
    x->is_head = slice_is(x->request.method, "HEAD");
    x->close = status != 0 || !http_persists(&x->request) || server_is_over_limit(c->server);
    status = status ? status : exchange_answer(x);
    exchange_drop_body(x);
    if (x->is_task)
        atomic_fetch_sub(&c->server->tasks, 1);
    if (status == CLOSE || status == 0)
        return status == 0 && !x->close;
    x->close |= status == 400 || atomic_load(&x->server->stopping);
    answer_finish(x, status);
    if (x->lost)
        c->worker->out.len = 0; /* what was abandoned is not taken up again */
    if (x->lost && x->chunked && x->request.minor == 0) /* its end would look like the answer's */
        transport_abort(&c->transport);
    exchange_note(x, status);
    return !x->close;
}

int sse_takes_time(struct sse_exchange *x)
{
    unsigned max = x->server->config.max_threads, kept = max / 8 > 0 ? max / 8 : 1;

    if (!x->is_task && atomic_fetch_add(&x->server->tasks, 1) >= max - kept) {
        atomic_fetch_sub(&x->server->tasks, 1);
        return exchange_reject(x, REFUSED_THREADS, 503,
                               "as many long requests are under way as may be (%u)", max - kept);
    }
    x->is_task = true;
    if (!conn_flush(x->conn)) /* earlier answers of a pipeline do not wait for it */
        x->lost = x->close = true;
    return x->lost ? 503 : 0;
}

struct sse_server *sse_server_of(const struct sse_exchange *x)
{
    return x->server;
}

const char *sse_user(const struct sse_exchange *x)
{
    return x->user;
}

const char *sse_body(const struct sse_exchange *x, size_t *len)
{
    *len = x->body.len;
    return x->body.at ? x->body.at : "";
}

bool sse_is_head(const struct sse_exchange *x)
{
    return x->is_head;
}

bool sse_is_gone(const struct sse_exchange *x)
{
    return x->lost;
}

bool sse_is_post(const struct sse_exchange *x)
{
    return slice_is(x->request.method, "POST");
}

int sse_query(const struct sse_exchange *x, const char *name, char *value, size_t size)
{
    int n = size ? http_query(x->request.query, name, value, size - 1) : -1;
    bool is_valid = n >= 0 && text_is_utf8(value, (size_t)n);
    if (size)
        value[is_valid ? n : 0] = 0;
    return is_valid ? n : SSE_EINVAL;
}

/* ==== Handlers ==================================================================================
 *
 * What the routes do. A handler reads the request, calls what stands above, writes a body and
 * returns the status. Which route calls it is told under Routes. */

/* GET opens a stream, which takes the connection over: senders write to it from stream_open() on,
 * though the worker owns it until stream_hand_over(). HEAD tells what a GET would be told, without
 * opening anything. */
static int handle_connect(struct sse_exchange *x, void *arg)
{
    struct conn *c = x->conn;
    struct text *out = &c->worker->out;
    struct slice last = x->request.last_event_id;
    struct user *user;
    char id[SSE_ID_BYTES + 17];
    bool closes = x->close;
    int code = SSE_EFULL;
    (void)arg;

    /* Earlier answers of a pipeline go out before the user is pinned: the client decides how long
     * that takes, and a pinned user cannot make room. */
    exchange_make_room(x, SSE_OUT_BYTES);
    if (x->lost)
        return 0;
    if (!x->is_head && exchange_is_late(x))
        return exchange_reject(x, REFUSED_TOKEN, 401, "%s", TOKEN_EXPIRED);
    if (!x->is_head && server_is_over_limit(c->server))
        return exchange_reject(x, REFUSED_CONNECTIONS, 503,
                               "the server has as many connections as it may (%u)",
                               x->server->config.max_connections);
    x->close = true;
    x->type = "text/event-stream";
    answer_head(x, 200, FRAMED_STREAM);
    if (x->is_head) {
        user = user_find(x->server, slice_of(x->user));
        code = table_has_room(x->server) ? SSE_OK : SSE_EFULL;
        if (user) {
            pthread_mutex_lock(&user->lock);
            code = user_admits_locked(x->server, user);
            user_unlock(x->server, user);
        }
    } else if ((user = user_find_or_add(x->server, slice_of(x->user)))) {
        /* A browser sends the field when it reconnects; with the parameter a page can begin. What
         * is too long to be an id is unknown like any other. */
        if (last.len == 0)
            last = slice_of(sse_query(x, "lastEventId", id, sizeof id) < 0 ? "unknown" : id);
        c->expires_ms = x->expires_ms;
        code = stream_open(c, user, last, out);
    }
    if (user)
        user_unpin(user); /* with an open stream it is Connected, and makes room for nobody */
    if (code != SSE_OK || !x->is_head)
        out->len = 0; /* the stream writes what it holds; without one nobody does */
    if (code != SSE_OK) {
        x->close = closes;
        return exchange_fail(x, code);
    }
    exchange_note(x, 200);
    if (!x->is_head)
        transport_become_stream(c->transport.fd, (unsigned)heartbeat_ms(x->server) / 2);
    return 0;
}

/* Closes the user's streams, and holds the user off for `hold` seconds. HEAD changes nothing. */
static int handle_disconnect(struct sse_exchange *x, void *arg)
{
    char text[17];
    uint64_t hold_s = 0;
    int n = sse_query(x, "hold", text, sizeof text);
    struct sse_user_status status;
    (void)arg;

    if (n < 0 || (n > 0 && !text_number(slice_of(text), SSE_HOLD_MAX_S, &hold_s)))
        return exchange_reject(x, REFUSED_MALFORMED, 400, "hold takes seconds, from 0 to %d",
                               SSE_HOLD_MAX_S);
    int code = x->is_head ? sse_status(x->server, x->user, &status)
                          : sse_disconnect(x->server, x->user, (unsigned)hold_s);
    if (code != SSE_OK)
        return exchange_fail(x, code);
    sse_print(x, "{");
    user_write(&x->answer, x->user, false);
    sse_print(x, "}\n");
    return 200;
}

/* Reads the `event` parameter; without it the name is empty. Returns 0, or 400 if it is invalid. */
static int exchange_event(struct sse_exchange *x, char event[SSE_EVENT_BYTES + 1])
{
    if (sse_query(x, "event", event, SSE_EVENT_BYTES + 1) >= 0 && event_is_valid(slice_of(event)))
        return 0;
    return exchange_reject(
        x, REFUSED_MALFORMED, 400,
        "an event name is at most %d bytes of UTF-8 without control characters, and none "
        "of " EVENTS_RESERVED,
        SSE_EVENT_BYTES);
}

/* Sends the body to the user. Where more follows in a pipeline, the message is only added to the
 * user's pending sends, and conn_complete_batch() completes and answers it. */
static int handle_send(struct sse_exchange *x, void *arg)
{
    struct worker *w = x->conn->worker;
    char event[SSE_EVENT_BYTES + 1];
    struct sse_receipt receipt;
    struct send send = {.body = x->body.at ? x->body : slice_of("")};
    struct user *user = NULL;
    int status = exchange_event(x, event);
    (void)arg;

    if (status)
        return status;
    send.event = slice_of(event);
    /* Only answers that are all alike can wait: a browser's, which may need CORS fields, are not,
     * nor is the last of a connection, nor an error. And the body must stay where it is. */
    bool batches = w->in_end > w->in_start && w->batch_count < SSE_BATCH && x->request.minor > 0 &&
                   !x->close && !x->request.origin.at && !x->body_slot &&
                   send_fits(x->server, SSE_ID_BYTES, &send);
    if (batches || w->batch_count > 0)
        user = user_find(x->server, slice_of(x->user));
    if (user && batches) {
        struct batched *b = &w->batch[w->batch_count++];
        *b = (struct batched){.user = user, .send = send};
        b->send.event = (struct slice){memcpy(b->event, event, send.event.len), send.event.len};
        b->send.receipt = &b->receipt;
        send_begin(user, &b->send);
        exchange_note(x, 202);
        return 0;
    }
    if (user)
        user_unpin(user);
    else if (!conn_complete_batch(x->conn)) /* whom it keeps pinned could not make room */
        x->lost = x->close = true;
    int code = sse_send(x->server, x->user, event, x->body.at, x->body.len, &receipt);
    if (code != SSE_OK)
        return exchange_fail(x, code);
    receipt_write(&x->answer, x->user, &receipt);
    return 202;
}

/* Sends the body to every user that the server knows. */
static int handle_broadcast(struct sse_exchange *x, void *arg)
{
    char event[SSE_EVENT_BYTES + 1];
    struct sse_receipt receipt;
    int status = exchange_event(x, event);
    (void)arg;

    if (status)
        return status;
    int code = sse_broadcast(x->server, event, x->body.at, x->body.len, &receipt);
    if (code != SSE_OK)
        return exchange_fail(x, code);
    sse_print(x, "{\"users\":%u,\"streams\":%u,\"delivered\":%u}\n", receipt.users, receipt.streams,
              receipt.delivered);
    return 202;
}

/* Appends what is told about one user, without the end of the line. */
static void status_write(struct text *t, const char *user, const struct sse_user_status *status)
{
    text_string(t, "{");
    user_write(t, user, status->connected);
    text_print(t, ",\"streams\":%u,\"queued\":%u}", status->streams, status->queued);
}

/* Tells about one user. */
static int handle_status(struct sse_exchange *x, void *arg)
{
    struct sse_user_status status;
    int code = sse_status(x->server, x->user, &status);
    (void)arg;

    if (code != SSE_OK)
        return exchange_fail(x, code);
    status_write(&x->answer, x->user, &status);
    sse_print(x, "\n");
    return 200;
}

/* Tells about all users, in no order. */
static int handle_users(struct sse_exchange *x, void *arg)
{
    char bytes[SSE_SCRATCH_BYTES / 4];
    struct user *user;
    uint32_t at = 0;
    (void)arg;

    sse_print(x, "{\"users\":[");
    for (const char *comma = ""; !x->lost && (user = user_each(x->server, &at)); comma = ",") {
        struct sse_user_status status = user_status(x->server, user);
        struct text t = text_over(bytes, sizeof bytes);
        text_string(&t, comma);
        status_write(&t, user->name, &status);
        user_unpin(user); /* before writing, which may take as long as the client does */
        sse_write(x, t.at, t.len);
    }
    sse_print(x, "]}\n");
    return 200;
}

/* Tells that the server runs, since when, and how much it holds. */
static int handle_health(struct sse_exchange *x, void *arg)
{
    struct sse_server *server = x->server;
    (void)arg;

    pthread_rwlock_rdlock(&server->table_lock);
    unsigned users = server->users_made;
    pthread_rwlock_unlock(&server->table_lock);
    sse_print(x,
              "{\"status\":\"ok\",\"version\":\"" SSE_VERSION "\",\"uptime_seconds\":%" PRId64
              ",\"users\":%u,\"streams\":%u,\"connections\":%u}\n",
              (now_ms() - server->started_ms) / 1000, users, atomic_load(&server->stream_count),
              atomic_load(&server->conns_open));
    return 200;
}

/* ==== Demo ======================================================================================
 *
 * Two tasks that take several seconds and report their progress to a user. They use the public
 * functions alone, as an embedder's handler would. */

/* Pauses for `ms` milliseconds, then sends `message` to the user of the exchange. Returns 0, or the
 * status that the handler must return. */
static int demo_step(struct sse_exchange *x, unsigned ms, const char *message)
{
    if (ms > 0 && sse_pause(sse_server_of(x), ms) != SSE_OK)
        return sse_fail(x, 503, "the server is stopping; the task was not completed");
    switch (sse_send(sse_server_of(x), sse_user(x), NULL, message, strlen(message), NULL)) {
    case SSE_OK:
        return 0;
    case SSE_EFULL:
        return sse_fail(x, 503, "the user table is full of Connected users");
    default:
        return sse_fail(x, 413, "the task's messages do not fit the history");
    }
}

/* Answers that the task is completed. HEAD gets this answer at once, without the task. */
static int demo_complete(struct sse_exchange *x)
{
    char line[SSE_USER_BYTES + 96], date[32];
    time_t now = time(NULL);
    struct tm utc;

    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    snprintf(line, sizeof line, "User '%s' completed the task at: %s.", sse_user(x), date);
    sse_print(x, "{\"message\":\"Task completed\",\"data\":");
    sse_write_json_string(x, line, strlen(line));
    sse_print(x, "}\n");
    return 200;
}

/* Sends ten messages, each after a pause of one second. */
static int handle_task(struct sse_exchange *x, void *arg)
{
    char line[SSE_USER_BYTES + 48];
    int status = sse_is_head(x) ? 0 : sse_takes_time(x);
    (void)arg;

    for (int step = 1; step <= 10 && status == 0 && !sse_is_head(x); step++) {
        snprintf(line, sizeof line, "User '%s', attempt %d / 10", sse_user(x), step);
        status = demo_step(x, 1000, line);
    }
    return status ? status : demo_complete(x);
}

/* Counts down from five, one second apart, then sends an object as the last message. */
static int handle_task_with_obj(struct sse_exchange *x, void *arg)
{
    static const char object[] =
        "{\"Name\":\"Victor\",\"Age\":30,\"Country\":\"Spain\",\"IsActive\":true}";
    char line[SSE_USER_BYTES + 48];
    int status = sse_is_head(x) ? 0 : sse_takes_time(x);
    (void)arg;

    for (int left = 5; left >= 0 && status == 0 && !sse_is_head(x); left--) {
        snprintf(line, sizeof line, "Object sent to user '%s' in %d...", sse_user(x), left);
        status = demo_step(x, left < 5 ? 1000 : 0, left > 0 ? line : object);
    }
    return status ? status : demo_complete(x);
}

/* ==== Metrics ===================================================================================
 *
 * GET /metrics answers in the text format 0.0.4 of Prometheus. To add a number, add a line to the
 * table in handle_metrics(), and a field to struct tally if it is counted for each user. */

/* Adds up what was counted of all users. Returns how many there are; *connected of them are
 * Connected. */
static uint64_t metrics_sum(struct sse_server *server, struct tally *sum, uint64_t *connected)
{
    uint64_t *sums = (uint64_t *)(void *)sum, users = 0;
    struct user *user;

    *sum = (struct tally){.messages = *connected = 0};
    for (uint32_t at = 0; (user = user_each(server, &at)); users++) {
        pthread_mutex_lock(&user->lock);
        const uint64_t *counts = (const uint64_t *)(const void *)&user->tally;
        for (size_t i = 0; i < sizeof *sum / sizeof *sums; i++)
            sums[i] += counts[i];
        *connected += user->stream_count > 0;
        user_unlock(server, user);
        user_unpin(user);
    }
    return users;
}

/* Reads fields 20 (threads) and 24 (resident pages) of /proc/self/stat; proc(5) counts from 1. Both
 * stay as they are where the platform has no such file. */
static void metrics_of_process(uint64_t *threads, uint64_t *pages)
{
    char stat[512];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, stat, sizeof stat - 1) : 0;

    if (fd >= 0)
        close(fd);
    stat[n > 0 ? n : 0] = 0;
    const char *at = strrchr(stat, ')'); /* ends the second field, which may hold anything */
    for (int field = 3; field <= 24 && at && (at = strchr(at + 1, ' ')); field++)
        if (field == 20 || field == 24)
            *(field == 20 ? threads : pages) = strtoull(at, NULL, 10);
}

/* Writes the lines that announce a metric. What stands behind a { in its name are labels. */
static void metric_head(struct sse_exchange *x, const char *name, const char *type,
                        const char *help)
{
    int len = (int)strcspn(name, "{");
    sse_print(x, "# HELP %.*s %s\n# TYPE %.*s %s\n", len, name, help, len, name, type);
}

/* Seconds have a point whatever the locale: the format takes METRIC_SECONDS(microseconds). */
#define METRIC_SECONDS_FORMAT "%" PRIu64 ".%06u"
#define METRIC_SECONDS(us)    (us) / 1000000, (unsigned)((us) % 1000000)

/* A metric that is one number. A name with _total in it is a counter, any other a gauge; the value
 * of a name with _seconds in it is in microseconds. UINT64_MAX stands for one that is not known. */
struct metric {
    const char *name;
    uint64_t value;
    const char *help; /* NULL where the line before has announced the metric */
};

/* Writes the `count` metrics of a table, then those with a value for each time, route or reason. */
static void metrics_write(struct sse_exchange *x, const struct metric *m, size_t count,
                          const struct tally *sum)
{
    static const char delays[] = "sse_delivery_duration_seconds";
    struct sse_server *server = x->server;
    uint64_t deliveries = 0;

    for (const struct metric *end = m + count; m < end; m++) {
        if (m->value == UINT64_MAX)
            continue;
        if (m->help)
            metric_head(x, m->name, strstr(m->name, "_total") ? "counter" : "gauge", m->help);
        if (strstr(m->name, "_seconds"))
            sse_print(x, "%s " METRIC_SECONDS_FORMAT "\n", m->name, METRIC_SECONDS(m->value));
        else
            sse_print(x, "%s %" PRIu64 "\n", m->name, m->value);
    }
    metric_head(x, delays, "histogram",
                "From a message's place in the history to its last byte on a stream that was open "
                "before.");
    for (size_t i = 0; i <= SSE_DELAYS; i++) {
        char bound[32] = "+Inf";
        if (i < SSE_DELAYS)
            snprintf(bound, sizeof bound, METRIC_SECONDS_FORMAT,
                     METRIC_SECONDS((uint64_t)DELAYS_US[i]));
        deliveries += sum->delays[i];
        sse_print(x, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", delays, bound, deliveries);
    }
    sse_print(x, "%s_sum " METRIC_SECONDS_FORMAT "\n", delays, METRIC_SECONDS(sum->delay_us));
    sse_print(x, "%s_count %" PRIu64 "\n", delays, deliveries);
    metric_head(
        x, "sse_http_requests_total", "counter",
        "Requests answered, by route and status; those that fit no route are of route none.");
    for (size_t r = 0; r <= SSE_ROUTES; r++)
        for (size_t i = 0; i <= STATUS_COUNT; i++) {
            unsigned long requests = atomic_load(&server->requests[r][i]);
            char code[8] = "other";
            if (i < STATUS_COUNT)
                snprintf(code, sizeof code, "%d", STATUSES[i].status);
            if (requests > 0)
                sse_print(x, "sse_http_requests_total{route=\"%s\",code=\"%s\"} %lu\n",
                          r < SSE_ROUTES ? server->routes[r].path : "none", code, requests);
        }
    metric_head(x, "sse_refusals_total", "counter",
                "Requests, connections and handshakes that were refused, by reason.");
    for (size_t i = 0; i < REFUSALS; i++)
        sse_print(x, "sse_refusals_total{reason=\"%s\"} %lu\n", REFUSAL_REASONS[i],
                  atomic_load(&server->refusals[i]));
}

/* Answers with everything that is counted or measured. */
static int handle_metrics(struct sse_exchange *x, void *arg)
{
    struct sse_server *server = x->server;
    uint64_t connected, threads = UINT64_MAX, pages = 0;
    struct tally sum;
    struct timespec cpu = {.tv_sec = 0};
    (void)arg;

    uint64_t users = metrics_sum(server, &sum, &connected);
    metrics_of_process(&threads, &pages);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    pthread_rwlock_rdlock(&server->table_lock);
    uint64_t evictions = server->evictions;
    pthread_rwlock_unlock(&server->table_lock);
    const struct metric metrics[] = {
        {"sse_users{state=\"connected\"}", connected, "Users in the table, by their state."},
        {"sse_users{state=\"disconnected\"}", users - connected, NULL},
        {"sse_streams", atomic_load(&server->stream_count), "Open streams."},
        {"sse_messages_total", sum.messages,
         "Messages taken into a user's history; a broadcast is one for each user."},
        {"sse_message_bytes_total", sum.message_bytes, "Bytes of their bodies."},
        {"sse_deliveries_total", sum.deliveries,
         "Messages that a stream was handed whole, as far as the operating system."},
        {"sse_stream_bytes_total", sum.stream_bytes,
         "Bytes written to streams, from the head of the answer on."},
        {"sse_streams_opened_total", sum.streams, "Streams opened."},
        {"sse_replays_total", sum.replays, "Streams opened with Last-Event-ID."},
        {"sse_replayed_messages_total", sum.replayed,
         "Messages of the history that were due to those."},
        {"sse_gaps_total", sum.gaps, "Streams told that messages were lost."},
        {"sse_missed_messages_total", sum.missed,
         "Messages that those had lost, where the number was known."},
        {"sse_slow_streams_closed_total", sum.slow,
         "Streams closed because their client read too slowly and fell out of the history."},
        {"sse_evictions_total", evictions, "Users that made room for others."},
        {"sse_users_limit", server->config.max_users, "Users that the table has room for."},
        {"sse_connections", atomic_load(&server->conns_open), "Open connections."},
        {"sse_connections_limit", server->config.max_connections,
         "Connections that may be open at once."},
        {"sse_memory_limit_bytes", sse_memory(server, NULL, 0),
         "Memory that the server can need at most."},
        {"sse_uptime_seconds", (uint64_t)(now_ms() - server->started_ms) * 1000,
         "Time since the server was created."},
        {"process_cpu_seconds_total", (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000,
         "Processor time of the process."},
        {"process_threads", threads, "Threads of the process."},
        {"process_resident_memory_bytes",
         pages ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : UINT64_MAX,
         "Resident memory of the process."},
        {"sse_build_info{version=\"" SSE_VERSION "\"}", 1, "The version that runs; always 1."},
    };
    sse_content_type(x, "text/plain; version=0.0.4; charset=utf-8");
    metrics_write(x, metrics, sizeof metrics / sizeof *metrics, &sum);
    return 200;
}

/* ==== OpenAPI ===================================================================================
 *
 * GET /openapi.json describes the routes for programs (OpenAPI 3.1.0), from the table that requests
 * are dispatched by. JSON stands here with ` for its quotes; openapi_write() replaces them. */

#define JSON_TEXT               "`type`:`string`"
#define JSON_COUNT              "{`type`:`integer`,`minimum`:0}"
#define JSON_OBJECT(properties) "`type`:`object`,`properties`:{" properties "}"
#define JSON_USER                                                                                  \
    "`user`:{" JSON_TEXT "},`status`:{" JSON_TEXT ",`enum`:[`Connected`,`Disconnected`]}"
#define JSON_STATUS JSON_USER ",`streams`:" JSON_COUNT ",`queued`:" JSON_COUNT

/* What struct route refers to by name. */
struct part {
    const char *name, *json;
};

/* A parameter, and where it stands: in the path, the query or a field. */
#define PARAMETER(name, place, description, schema)                                                \
    name, "{`name`:`" name "`,`in`:" place ",`description`:`" description "`,`schema`:{" schema "}}"

static const struct part PARAMETERS[] = {
    {PARAMETER("userId", "`path`,`required`:true", "the user, a name of your choice",
               JSON_TEXT ",`maxLength`:128,`default`:`alice`")},
    {PARAMETER("lastEventId", "`query`",
               "go on after the message with this id; the field Last-Event-ID counts before it",
               JSON_TEXT ",`default`:``")},
    {PARAMETER("Last-Event-ID", "`header`", "the same, as a browser says it when it comes back",
               JSON_TEXT ",`default`:``")},
    {PARAMETER("hold", "`query`",
               "seconds for which the user is to stay away: connects are answered 204",
               "`type`:`integer`,`minimum`:0,`maximum`:86400,`default`:0")},
    {PARAMETER("event", "`query`", "the name of the event that a browser sees",
               JSON_TEXT ",`maxLength`:64,`default`:`message`")},
};

/* What a route answers when all goes well: of some media type, or a JSON object. */
#define CONTENT(name, status, description, media, schema)                                          \
    name, "`" status "`:{`description`:`" description "`,`content`:{`" media                       \
          "`:{`schema`:{" schema "}}}},"
#define OBJECT(name, status, description, properties)                                              \
    CONTENT(name, status, description, "application/json", JSON_OBJECT(properties))

static const struct part CONTENTS[] = {
    {CONTENT("Stream", "200", "the stream: a greeting, keep-alives, and messages as they are sent",
             "text/event-stream", JSON_TEXT)},
    {OBJECT("Closed", "200", "all streams are closed", JSON_USER)},
    {OBJECT("Receipt", "202", "the message is in the history; to how many streams it was written",
            "`id`:{" JSON_TEXT "}," JSON_USER ",`streams`:" JSON_COUNT ",`delivered`:" JSON_COUNT)},
    {OBJECT("Totals", "202", "the message is in the history of so many users",
            "`users`:" JSON_COUNT ",`streams`:" JSON_COUNT ",`delivered`:" JSON_COUNT)},
    {OBJECT("Status", "200", "the user's state", JSON_STATUS)},
    {OBJECT("Users", "200", "all known users",
            "`users`:{`type`:`array`,`items`:{" JSON_OBJECT(JSON_STATUS) "}}")},
    {OBJECT("Done", "200", "the task is completed",
            "`message`:{" JSON_TEXT "},`data`:{" JSON_TEXT "}")},
    {OBJECT("Health", "200", "the server is up", "`status`:{" JSON_TEXT "}")},
    {CONTENT("Metrics", "200", "Prometheus text format 0.0.4", "text/plain", JSON_TEXT)},
    {CONTENT("Page", "200", "the page", "text/html", JSON_TEXT)},
    {CONTENT("Description", "200", "this description", "application/json", "`type`:`object`")},
};

/* Writes JSON: " for every `, and for every % the next string, which may hold anything. */
static void openapi_write(struct sse_exchange *x, const char *json, ...)
{
    va_list strings;

    va_start(strings, json);
    for (; *json; json++) {
        const char *string = *json == '%' ? va_arg(strings, const char *) : NULL;
        if (string)
            sse_write_json_string(x, string, strlen(string));
        else
            sse_write(x, *json == '`' ? "\"" : json, 1);
    }
    va_end(strings);
}

/* Writes `lead` and the part of that name, or nothing for NULL. The unit tests check that the parts
 * which ROUTES names are there. */
static void openapi_part(struct sse_exchange *x, const char *lead, const struct part *part,
                         const char *name)
{
    if (!name)
        return;
    while (strcmp(part->name, name) != 0)
        part++;
    openapi_write(x, lead);
    openapi_write(x, part->json);
}

/* Writes one method of a route. What the handler of an embedder answers is not known. */
static void openapi_operation(struct sse_exchange *x, const struct route *route, const char *method)
{
    const char *user = strchr(route->path, '{') ? "userId" : NULL;
    size_t number = (size_t)(route - x->server->routes);

    openapi_write(x, "%:{`summary`:%,`operationId`:`", method,
                  route->summary ? route->summary : "");
    sse_print(x, "%s", method);
    for (const char *at = route->path; *at; at++)
        sse_write(x, char_is_alnum(*at) ? at : "_", 1);
    if (number >= x->server->own_routes_at) /* /a-b and /a_b may be two */
        sse_print(x, "_%zu", number);

    openapi_write(x, "`,`parameters`:[");
    openapi_part(x, "", PARAMETERS, user);
    openapi_part(x, user ? "," : "", PARAMETERS, route->query);
    openapi_part(x, ",", PARAMETERS, route->is_stream ? "Last-Event-ID" : NULL);
    openapi_write(x, "]");
    if (strcmp(method, "post") == 0 && route->takes_body)
        openapi_write(
            x, ",`requestBody`:{`required`:true,`content`:{`text/plain`:{`schema`:{" JSON_TEXT
               ",`default`:`hello`}}}}");
    if (x->server->config.auth_secret)
        openapi_write(x, route->access == SSE_ANYONE
                             ? ",`security`:[]"
                             : ",`security`:[{`bearer`:[]},{`query`:[]},{`cookie`:[]}]");

    openapi_write(x, ",`responses`:{");
    openapi_part(x, "", CONTENTS, route->gives);
    if (route->is_stream)
        openapi_write(x, "`204`:{`description`:`the user is to stay away: see hold`},");
    if (!route->gives)
        openapi_write(x, "`default`:{`description`:`whatever its handler answers`},");
    openapi_write(x, "`4XX`:{`$ref`:`#/components/responses/Problem`},`5XX`:{`$ref`:`#/components/"
                     "responses/Problem`}}}");
}

/* Returns the scheme that the client uses: https if this server speaks it, or if a proxy in front
 * does, as X-Forwarded-Proto or a listed origin of the same host tells. */
static const char *openapi_scheme(const struct sse_config *config, const struct http_request *r)
{
    struct slice rest = r->fields, forwarded = http_next_field(&rest, "x-forwarded-proto");
    struct slice clients = slice_trim(slice_cut(&forwarded, ',')); /* the first of a list */
    bool secure = config->cert_file || slice_is_nocase(clients, "https");
    struct origin listed;

    for (size_t i = 0; i < config->cors_count; i++)
        secure |= origin_parse(slice_of(config->cors[i]), &listed) &&
                  slice_is_nocase(listed.scheme, "https") &&
                  origin_is_own(slice_of(config->cors[i]), r->authority, true);
    return secure ? "https" : "http";
}

/* Answers with the description. The URL of the server is the one that the client has asked. */
static int handle_openapi(struct sse_exchange *x, void *arg)
{
    const struct sse_server *server = x->server;
    struct slice authority = x->request.authority;
    (void)arg;

    openapi_write(x, "{`openapi`:`3.1.0`,`info`:{`title`:`sse`,`version`:`" SSE_VERSION "`,"
                     "`summary`:`Per-user push over Server-Sent Events`,"
                     "`license`:{`name`:`MIT`,`identifier`:`MIT`}},`servers`:[{`url`:`");
    sse_print(x, "%s://", openapi_scheme(&server->config, &x->request));
    if (authority.len) /* host and port, which the parser has validated */
        sse_write(x, authority.at, authority.len);
    else
        sse_print(x, "localhost:%u", server->port);
    openapi_write(x, "`}],`security`:[],`paths`:{");
    for (const struct route *r = server->routes; r < server->routes + server->route_count; r++) {
        bool get = strstr(r->methods, "GET") != NULL, post = strstr(r->methods, "POST") != NULL;
        openapi_write(x, r > server->routes ? ",%:{" : "%:{", r->path);
        if (get)
            openapi_operation(x, r, "get");
        openapi_write(x, get && post ? "," : "");
        if (post)
            openapi_operation(x, r, "post");
        openapi_write(x, "}");
    }
    openapi_write(x,
                  "},`components`:{`responses`:{`Problem`:{`description`:`what was wrong, and what "
                  "would be right`,`content`:{`application/problem+json`:{`schema`:{" JSON_OBJECT(
                      "`title`:{" JSON_TEXT "},`status`:{`type`:`integer`},`detail`:{" JSON_TEXT
                      "}") "}}}}}");
    if (server->config.auth_secret)
        openapi_write(x, ",`securitySchemes`:{"
                         "`bearer`:{`type`:`http`,`scheme`:`bearer`,`bearerFormat`:`JWT`},"
                         "`query`:{`type`:`apiKey`,`in`:`query`,`name`:`access_token`},"
                         "`cookie`:{`type`:`apiKey`,`in`:`cookie`,`name`:`sse_token`}}");
    openapi_write(x, "}}\n");
    return 200;
}

/* ==== Page ======================================================================================
 *
 * What a browser shows at `/`: HTML, style and script stand here line by line as they are sent, and
 * nothing comes from elsewhere. NULL stands for the nonce of the answer: a browser runs nothing
 * without it (Content Security Policy Level 3 section 2.3.1). /openapi.json lists the routes. */

static const char *const PAGE[] = {
    "<!doctype html>\n<html lang='en'>\n<meta charset='utf-8'>\n"
    "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
    "<title>sse</title>\n<link rel='icon' href='data:,'>\n<style nonce='",
    NULL,
    "'>\nhtml { color-scheme: light dark; --dim: #5a5a5a; --good: #05620f; --bad: #a31515 }\n"
    "@media (prefers-color-scheme: dark) { html { --dim: #bbb; --good: #7fdc8a; --bad: #ff9c9c } "
    "}\n"
    "body { font: 1rem/1.45 system-ui, sans-serif; max-width: 80rem; margin: 0 auto;\n"
    "  padding: 0 1rem; background: Canvas } [hidden] { display: none !important }\n"
    "h3 { margin: 0; font-size: 1rem } p { margin: .3rem 0 .7rem; max-width: 65ch }\n"
    "h3, code, output, .log, td:first-child { overflow-wrap: anywhere }\n"
    "code, output, .log { font: .85rem/1.4 ui-monospace, monospace } label { display: grid }\n"
    "form, .row { display: flex; flex-wrap: wrap; gap: .6rem; align-items: end; margin: .5rem 0 }\n"
    ".row { align-items: center; margin: 0 } .row > span { flex: 1 } table { font-size: .9rem }\n"
    "input, textarea, button, label.row { font: inherit; max-width: 100%; min-height: 2.5rem }\n"
    "input, textarea, button { padding: .4rem .6rem; box-sizing: border-box }\n"
    ".row input, a { display: inline-block; min-width: 24px; min-height: 24px }\n"
    ".cards { display: grid; gap: .8rem; align-items: start; margin-bottom: .8rem;\n"
    "  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)) }\n"
    "article { border: 1px solid #8888; border-radius: .5rem; padding: .7rem; min-width: 0 }\n"
    ".log, output { display: block; overflow: auto; white-space: pre-wrap; margin: .5rem 0 0;\n"
    "  padding: 0; list-style: none; max-height: 15rem } .log { height: 15rem }\n"
    ".log li, td { border-top: 1px solid #8888 } .log div { margin: 0 1rem }\n"
    "table { border-collapse: collapse } th, td { text-align: left; padding: 0 .4rem 0 0 }\n"
    "i, .dim, .keep-alive, .retry { color: var(--dim) } .quiet .keep-alive { display: none }\n"
    ".good, .message b { color: var(--good) } .bad, .gap b, .refused b { color: var(--bad) }\n"
    ".said { position: absolute; width: 1px; overflow: hidden; clip-path: inset(50%) }\n"
    ":focus-visible { outline: 3px solid #48f }\n</style>\n<header>\n<h1>sse</h1>\n",
    "<p>What is sent to a user arrives on all streams that are open for that user.</p>\n"
    "<p id='server' role='status'>Asking for the server ...</p>\n"
    "<label id='auth' hidden>Access token, which this server asks for (sse:admin shows all)\n"
    "<input id='token' autocomplete='off' spellcheck='false'></label>\n"
    "</header>\n<main>\n<h2>Streams</h2>\n"
    "<p>A stream that breaks off goes on after its last id (Last-Event-ID).</p>\n<form "
    "id='opener'>\n"
    "<label>User <input id='who' value='alice' required autocomplete='off'></label>\n"
    "<button>Open a stream</button>\n"
    "<label class='row'><input type='checkbox' id='beats' checked> show keep-alives</label>\n"
    "</form>\n<p id='full' role='status' class='bad'></p>\n"
    "<div id='sender' class='cards'></div>\n<div id='streams' class='cards'></div>\n"
    "<h2>Users</h2>\n<p>Everyone seen so far. Queued messages wait for the user.</p>\n"
    "<table><thead><tr><th>User<th>State<th>Streams<th>Queued</thead><tbody id='users'></table>\n"
    "<p id='listed' class='dim'></p>\n<h2>Routes</h2>\n"
    "<p>Try each here or in a shell; <a href='openapi.json'>openapi.json</a> has them all.</p>\n"
    "<div id='routes' class='cards'></div>\n</main>\n"
    "<p id='said' class='said' role='status'></p>\n<script nonce='",
    NULL,
    /* `soon` has the users asked for at once; `running` counts the requests of cards. */
    "'>\nconst $ = (id) => document.getElementById(id);\n"
    "const make = (tag, properties, ...children) => {\n"
    "  const element = Object.assign(document.createElement(tag), properties);\n"
    "  element.append(...children);\n"
    "  return element;\n"
    "};\n"
    "const clean = (text) => text?.replace(/[^!-~]/g, '');\n"
    "const token = () => clean($('token').value);\n"
    "const home = new URL('.', location);\n"
    "const ask = (url, options) => fetch(url, { cache: 'no-store', ...options, headers: {\n"
    "  ...options.headers, ...(token() && { Authorization: `Bearer ${token()}` }) } });\n"
    "const explain = async (answer) => answer.status + ': ' +\n"
    "  ((await answer.json().catch(() => {}))?.detail ?? answer.statusText);\n"
    "let soon = false, running = 0;\n"
    /* A stream. An EventSource would hide comments, ids, refusals and events of any name. */
    "const meanings = {\n"
    "  retry: 'How long the client is to wait before it asks again.',\n"
    "  connected: 'The stream begins, after the message with this id.',\n"
    "  'keep-alive': 'Nothing new: the connection still stands.',\n"
    "  message: 'Somebody sent this to the user.',\n"
    "  gap: 'Messages are missing before the next one, or, with null, may be missing.',\n"
    "  disconnected: 'Somebody had all streams of the user closed; clients may come back.',\n"
    "  refused: 'The server did not open the stream, and says why.',\n"
    "};\n"
    "const open = new Set();\n"
    "class Stream {\n"
    "  constructor(user, last) {\n"
    "    Object.assign(this, { user, last, retry: 2000, end: new AbortController() });\n"
    "    this.state = make('span', { role: 'status' });\n"
    "    this.log = make('ol', { className: 'log', tabIndex: 0, ariaLabel: `Log of ${user}` });\n"
    "    const close = () => [this.end.abort(), this.wake?.()];\n"
    "    this.button = make('button', { onclick: close }, 'Close');\n"
    "    this.card = make('article', {}, make('div', { className: 'row' }, make('h3', {}, user),\n"
    "      this.state, this.button), this.log);\n"
    "    $('streams').prepend(this.card);\n"
    "    open.add(this);\n"
    "    this.run();\n"
    "  }\n"
    "  tell(state, reconnects) {\n"
    "    this.state.className = { open: 'good', closed: 'dim' }[state] ?? 'bad';\n"
    "    this.state.textContent = `${state}, reconnects: ${reconnects}`;\n"
    "    soon = true;\n"
    "  }\n"
    /* Follows the end of the log, unless somebody reads further up. */
    "  show(kind, data, id, event) {\n"
    "    const now = new Date(), ms = String(now % 1000).padStart(3, '0'), { log } = this;\n"
    "    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 50;\n"
    "    log.append(make('li', { className: kind, title: meanings[kind] },\n"
    "      `${now.toTimeString().slice(0, 8)}.${ms} `, make('b', {}, kind),\n"
    "      id ? ` id ${id}` : '', event ? ` event ${event}` : '', make('div', {}, data),\n"
    "      log.getElementsByClassName(kind)[0] ? '' : make('i', {}, meanings[kind])));\n"
    "    if (log.children.length > 500) log.firstChild.remove();\n"
    "    if (follows) log.scrollTop = log.scrollHeight;\n"
    "    if (kind === 'keep-alive') return;\n"
    "    $('said').textContent = `${this.user}: ${kind} ${data}`;\n"
    "    soon = true;\n"
    "  }\n",
    /* Takes a line (WHATWG HTML, 9.2.6): a comment or retry counts at once, all else at the empty
     * line. Only the greeting, which comes first, and messages have ids. */
    "  take(line) {\n"
    "    const [name, value = ''] = line.split(/: ?(.*)/s);\n"
    "    const { id, event, data } = this.block;\n"
    "    if (name === 'retry') this.show(name, `${this.retry = Number(value)} ms`);\n"
    "    else if (name === 'data') this.block.data = data?.concat('\\n', value) ?? value;\n"
    "    else if (name) this.block[name] = value;\n"
    "    else if (line) this.show('keep-alive', value);\n"
    "    else this.block = {};\n"
    "    if (line || data === undefined) return;\n"
    "    if (!id) return this.show(event ?? 'keep-alive', data);\n"
    "    this.show(this.kind, data, id, event);\n"
    "    [this.kind, this.last] = ['message', id];\n"
    "  }\n"
    /* Asks for the stream and reads it. How long to wait before the next try, or why not to. */
    "  async once(reconnects) {\n"
    "    const timer = setTimeout(() => this.tell('waiting for a connection', reconnects), 3000);\n"
    "    const answer = await ask(`${home}sse/connect/${encodeURIComponent(this.user)}`, {\n"
    "      signal: this.end.signal, headers: this.last ? { 'Last-Event-ID': this.last } : {},\n"
    "    }).finally(() => clearTimeout(timer));\n"
    "    if (answer.status === 204) return { why: 'held: the user is to stay away for a while' };\n"
    "    if (!answer.ok) {\n"
    "      this.show('refused', await explain(answer));\n"
    "      const wait = parseFloat(answer.headers.get('Retry-After')) * 1000;\n"
    "      return wait >= 0 ? { wait } : { why: `refused: ${answer.status}` };\n"
    "    }\n"
    "    this.tell('open', reconnects);\n"
    "    [this.kind, this.block] = ['connected', {}];\n"
    "    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();\n"
    "    for (let text = '', part; !(part = await reader.read()).done;) {\n"
    "      const lines = (text + part.value).split('\\n');\n"
    "      text = lines.pop();\n"
    "      lines.forEach((line) => this.take(line));\n"
    "    }\n"
    "    return { wait: this.retry };\n"
    "  }\n"
    "  async run() {\n"
    "    let why, reconnects = 0;\n"
    "    for (; !why; reconnects += !why) {\n"
    "      this.tell('connecting', reconnects);\n"
    "      const end = await this.once(reconnects).catch(() => ({ wait: this.retry }));\n"
    "      if (!end.why && !this.end.signal.aborted) {\n"
    "        this.tell(`broken off, asks again in ${end.wait / 1000} s`, reconnects);\n"
    "        await new Promise((done) => setTimeout(this.wake = done, Math.max(end.wait, 200)));\n"
    "      }\n"
    "      why = this.end.signal.aborted ? 'closed' : end.why;\n"
    "    }\n"
    "    open.delete(this);\n"
    "    this.tell(why, reconnects);\n"
    "    this.button.textContent = 'Remove';\n"
    "    this.button.onclick = () => this.card.remove();\n"
    "  }\n"
    "}\n"
    /* Over HTTP/1.1 a browser keeps six connections to a server, and this page needs two. */
    "const start = (user, query, last) => {\n"
    "  const [{ nextHopProtocol }] = performance.getEntriesByType('navigation');\n"
    "  const full = nextHopProtocol === 'http/1.1' && open.size + running >= 4;\n"
    "  $('full').textContent = full ? 'Four streams or tasks are under way: a browser keeps ' +\n"
    "    'six connections to a server at most. Close a stream, or wait.' : '';\n"
    "  if (!full) new Stream(user, clean(last || query)).log.focus();\n"
    "};\n"
    "$('opener').onsubmit = (event) => (event.preventDefault(), start($('who').value));\n"
    "$('beats').onchange = () => $('streams').classList.toggle('quiet', !$('beats').checked);\n",
    /* The users, and whether the server is there: asked for every few seconds, and as soon as a
     * stream shows that something has happened. */
    "let shown, gone = false, whenThere = 'The server is there.';\n"
    "const showUsers = async (answer) => {\n"
    "  const text = answer.ok ? await answer.text() : '{\"users\":[]}';\n"
    "  const { users } = JSON.parse(text);\n"
    "  const more = users.length > 200 ? `and ${users.length - 200} more` : '';\n"
    "  $('listed').textContent = answer.ok ? more : await explain(answer);\n"
    "  if (text === shown) return;\n"
    "  shown = text;\n"
    "  $('users').replaceChildren(...users.slice(0, 200).map((u) => make('tr', {},\n"
    "    make('td', {}, u.user), make('td', { className: u.streams ? 'good' : '' }, u.status),\n"
    "    make('td', {}, u.streams), make('td', {}, u.queued))));\n"
    "};\n"
    "const watch = async () => {\n"
    "  for (let text;;) {\n"
    "    soon = false;\n"
    "    try {\n"
    "      const signal = AbortSignal.timeout(5000);\n"
    "      if (!$('routes').firstChild) await list(signal);\n"
    "      await showUsers(await ask(home + 'sse/users', { signal }));\n"
    "      if (gone) whenThere = `The server is back since ${new Date().toLocaleTimeString()}.`;\n"
    "      gone = false;\n"
    "      text = whenThere;\n"
    "    } catch (error) {\n"
    "      const silent = error.name === 'TimeoutError';\n"
    "      gone ||= !silent;\n"
    "      text = silent ? 'No answer for five seconds: it is silent, or other tabs and ' +\n"
    "        'tasks hold all connections.' : 'The server is gone: this page goes on asking.';\n"
    "    }\n"
    "    $('server').className = text === whenThere ? 'good' : 'bad';\n"
    "    if ($('server').textContent !== text) $('server').textContent = text;\n"
    "    for (let i = 0; i < 1 || document.hidden || (!soon && i < 12); i++)\n"
    "      await new Promise((done) => setTimeout(done, 250));\n"
    "  }\n"
    "};\n"
    /* A card for each operation of openapi.json, which has one parameter in its query at most. */
    "const quote = (text) => `'${text.replaceAll(\"'\", \"'\\\\''\")}'`;\n"
    "const card = (path, method, { parameters, requestBody, responses, summary }) => {\n"
    "  const name = `${method.toUpperCase()} ${path}`, row = make('form', {});\n"
    "  const inputs = parameters.map((p) => ({ ...p, input: make('input',\n"
    "    { value: p.schema.default ?? '', autocomplete: 'off' }) }));\n"
    "  const sample = requestBody?.content['text/plain'].schema.default;\n"
    "  const body = sample && make('textarea', { rows: 1, value: sample });\n"
    "  const isStream = responses[200]?.content['text/event-stream'];\n"
    "  const curl = make('code', {}), output = make('output', {});\n"
    "  let at, headers;\n"
    "  const update = () => {\n"
    "    [at, headers] = [home + path.slice(1), {}];\n"
    "    for (const { name, in: place, input: { value } } of inputs)\n"
    "      if (place === 'path') at = at.replace(`{${name}}`, encodeURIComponent(value));\n"
    "      else if (place === 'header' && value) headers[name] = clean(value);\n"
    "      else if (value) at += `?${name}=${encodeURIComponent(value)}`;\n"
    "    curl.textContent = ['curl', isStream && '-N', method === 'post' && !body && '-X POST',\n"
    "      body && `--data-raw ${quote(body.value)}`,\n"
    "      token() && '-H \"Authorization: Bearer $TOKEN\"',\n"
    "      ...Object.entries(headers).map((field) => `-H ${quote(field.join(': '))}`),\n"
    "      quote(at)].filter(Boolean).join(' ');\n"
    "  };\n"
    "  const run = async (event) => {\n"
    "    event.preventDefault();\n"
    "    if (isStream) return start(...inputs.map(({ input }) => input.value));\n"
    "    output.textContent = 'asked, and waiting ...';\n"
    "    running++;\n"
    "    const answer = await ask(at, { method, headers, body: body?.value }).catch(() => {});\n"
    "    running--;\n"
    "    const text = await answer?.text().catch(() => 'and an answer that broke off');\n"
    "    output.textContent = answer ? `${answer.status} ${text}` : 'no answer';\n"
    "    output.tabIndex = 0;\n"
    "    soon = true;\n"
    "  };\n",
    /* navigator.clipboard would not be there on plain HTTP beyond loopback. */
    "  const copy = ({ target }) => {\n"
    "    getSelection().selectAllChildren(curl);\n"
    "    target.textContent = document.execCommand('copy') ? 'Copied' : 'Not copied';\n"
    "    $('said').textContent = target.textContent;\n"
    "    setTimeout(() => (target.textContent = 'Copy'), 2000);\n"
    "  };\n"
    "  row.append(...inputs.map((p) => make('label', { title: p.description }, p.name, p.input)),\n"
    "    body ? make('label', {}, 'body', body) : '',\n"
    "    make('button', { ariaLabel: `Try ${name}` }, 'Try'), make('button',\n"
    "    { type: 'button', onclick: copy, ariaLabel: `Copy the curl line of ${name}` }, 'Copy'));\n"
    "  Object.assign(row, { oninput: update, onsubmit: run });\n"
    "  $('token').addEventListener('input', update);\n"
    "  update();\n"
    "  const head = [make('h3', {}, name), make('p', {}, summary)];\n"
    "  return make('article', {}, ...head, row, curl, output);\n"
    "};\n"
    "const list = async (signal) => {\n"
    "  const answer = await fetch(home + 'openapi.json', { signal });\n"
    "  if (!answer.ok) return;\n"
    "  const api = await answer.json();\n"
    "  $('auth').hidden = !api.components.securitySchemes;\n"
    "  for (const [path, methods] of Object.entries(api.paths))\n"
    "    $(path.startsWith('/sse/send/') ? 'sender' : 'routes').append(\n"
    "      ...Object.keys(methods).map((method) => card(path, method, methods[method])));\n"
    "};\n"
    "watch();\n</script>\n",
};

/* Answers with the page, and allows only what has the nonce of this answer. */
static int handle_page(struct sse_exchange *x, void *arg)
{
    struct sse_server *server = x->server;
    char nonce[33], policy[256];
    (void)arg;

    /* The draw only grows, also where the counter has 32 bits and begins again. */
    uint64_t draw = ((uint64_t)now_us() << 8) + atomic_fetch_add(&server->nonces, 1);
    for (size_t half = 0; half < 2; half++)
        snprintf(nonce + 16 * half, 17, "%016" PRIx64,
                 sip_hash(server->nonce_keys[half], (char *)&draw, sizeof draw));
    snprintf(policy, sizeof policy,
             "default-src 'none'; connect-src 'self'; img-src data:; style-src 'nonce-%s'; "
             "script-src 'nonce-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
             nonce, nonce);
    if (sse_field(x, "Content-Security-Policy", policy) != SSE_OK ||
        sse_field(x, "X-Content-Type-Options", "nosniff") != SSE_OK ||
        sse_field(x, "Referrer-Policy", "no-referrer") != SSE_OK)
        return sse_fail(x, 500, "the page's fields do not fit");
    sse_content_type(x, "text/html; charset=utf-8");
    for (size_t i = 0; i < sizeof PAGE / sizeof *PAGE; i++) {
        const char *part = PAGE[i] ? PAGE[i] : nonce;
        sse_write(x, part, strlen(part));
    }
    return 200;
}

/* ==== Routes ====================================================================================
 *
 * One table: it feeds dispatch, `Allow`, the checks of who may ask, OpenAPI, and through that the
 * page. To add a route, write its handler and add a line: methods, path, who may use it, a summary,
 * the handler; then what it takes and gives, as OpenAPI names that, and the flags of struct route:
 *
 *     {"GET", "/hello/{userId}", SSE_SUBJECT, "greets the user", handle_hello, .gives = NULL}, */

static const struct route ROUTES[] = {
    {"GET", "/sse/connect/{userId}", SSE_SUBJECT, "opens the user's event stream", handle_connect,
     .query = "lastEventId", .gives = "Stream", .is_stream = true},
    {"GET|POST", "/sse/disconnect/{userId}", SSE_SUBJECT, "closes all of the user's streams",
     handle_disconnect, .query = "hold", .gives = "Closed"},
    {"POST", "/sse/send/{userId}", SSE_PUBLISHER, "sends the body as one message", handle_send,
     .query = "event", .gives = "Receipt", .takes_body = true, .batches = true},
    {"POST", "/sse/broadcast", SSE_PUBLISHER, "sends the body to every known user",
     handle_broadcast, .query = "event", .gives = "Totals", .takes_body = true},
    {"GET", "/sse/status/{userId}", SSE_SUBJECT, "tells whether the user is Connected",
     handle_status, .gives = "Status"},
    {"GET", "/sse/users", SSE_ADMIN, "tells the state of every known user", handle_users,
     .gives = "Users"},
    {"GET|POST", "/sse/task/{userId}", SSE_PUBLISHER,
     "ten steps of one second, a message after each", handle_task, .gives = "Done",
     .is_demo = true},
    {"GET|POST", "/sse/task-with-obj/{userId}", SSE_PUBLISHER, "counts down, then sends an object",
     handle_task_with_obj, .gives = "Done", .is_demo = true},
    {"GET", "/health", SSE_ANYONE, "tells that the server is up", handle_health, .gives = "Health",
     .is_open = true},
    {"GET", "/", SSE_ANYONE, "shows a page to watch streams and try the routes", handle_page,
     .gives = "Page", .is_open = true, .is_demo = true},
    {"GET", "/openapi.json", SSE_ANYONE, "describes the routes for programs (OpenAPI 3.1)",
     handle_openapi, .gives = "Description", .is_open = true},
    {"GET", "/metrics", SSE_ADMIN, "tells what was counted, for Prometheus", handle_metrics,
     .gives = "Metrics"},
};

_Static_assert(sizeof ROUTES / sizeof *ROUTES + SSE_OWN_ROUTES <= SSE_ROUTES, "raise SSE_ROUTES");

/* Adds the server's own routes to its table; those of an embedder come behind. */
static void server_add_routes(struct sse_server *server)
{
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++)
        if (server->config.demo || !ROUTES[i].is_demo)
            server->routes[server->route_count++] = ROUTES[i];
    server->own_routes_at = server->route_count;
}

/* Tells whether a path is "/", or segments of what may stand in a path unescaped, the last of which
 * may be {userId}. */
static bool route_path_is_valid(const char *path)
{
    size_t fixed = strcspn(path, "{");
    bool valid = path[0] == '/' && strlen(path) <= SSE_ROUTE_BYTES;

    for (size_t i = 0; i < fixed && valid; i++)
        valid = char_is_alnum(path[i]) || strchr("/-._~!$&'()*+,;=:@%", path[i]);
    return valid &&
           (!path[fixed] || (path[fixed - 1] == '/' && strcmp(path + fixed, "{userId}") == 0));
}

int sse_route(struct sse_server *server, const char *methods, const char *path,
              enum sse_access access, const char *summary, sse_handler handler, void *arg)
{
    const struct route *own = server->routes + server->own_routes_at, *found;
    struct slice m = slice_of(methods);

    if ((!slice_is(m, "GET") && !slice_is(m, "POST") && !slice_is(m, "GET|POST")) || !path ||
        !handler || !route_path_is_valid(path))
        return SSE_EINVAL;
    found = route_find(server, slice_of(path));
    if (found && (found < own || strcmp(found->path, path) == 0))
        return SSE_EINVAL; /* no request would ever reach the new route */
    if (server->route_count == server->own_routes_at + SSE_OWN_ROUTES)
        return SSE_EFULL;
    server->routes[server->route_count++] =
        (struct route){methods, path, access, summary, handler, arg, .takes_body = true};
    return SSE_OK;
}

/* ==== Options ===================================================================================
 *
 * One table feeds the defaults, the checks of sse_create(), the command line and --help. To add a
 * number, a file or a switch, add a field to struct sse_config and a line to OPTIONS; an option of
 * another kind also needs a case in option_set(). */

enum option_kind {
    OPTION_NUMBER,
    OPTION_FILE,
    OPTION_OFF, /* a switch that turns off what is on by default */
    OPTION_ADDRESS,
    OPTION_WORD, /* `message`, or the other word, which sets the field */
    OPTION_ORIGIN,
    OPTION_SECRET,
    OPTION_VERSION,
    OPTION_HELP
};

struct config_option {
    char letter;                     /* 0 for none */
    const char *name, *takes, *help; /* `takes` is NULL for a switch */
    enum option_kind kind;
    size_t offset; /* in struct sse_config: of an unsigned, a const char * or a bool, by kind */
    unsigned min, max, preset; /* of an OPTION_NUMBER */
    const char *other;         /* of an OPTION_WORD */
};

#define AT(field)                             .offset = offsetof(struct sse_config, field)
#define NUMBER(field, least, most, otherwise) OPTION_NUMBER, AT(field), least, most, otherwise

static const struct config_option OPTIONS[] = {
    {'p', "port", "N", "TCP port; 0 takes a free one", NUMBER(port, 0, 65535, 8080)},
    {'b', "bind", "ADDR", "IPv4 or IPv6 address to listen on (127.0.0.1)", .kind = OPTION_ADDRESS},
    {0, "max-users", "N", "slots in the user table", NUMBER(max_users, 1, 1000000, 1024)},
    {0, "max-connections", "N", "streams and other connections open at once",
     NUMBER(max_connections, 1, 1000000, 1024)},
    {0, "max-threads", "N", "requests under way at once", NUMBER(max_threads, 2, 1000000, 1024)},
    {0, "max-streams", "N", "streams one user may hold at once",
     NUMBER(max_streams, 1, 1000000, 16)},
    {0, "history", "N", "messages kept for each user", NUMBER(history, 1, 1000000, 64)},
    {0, "history-bytes", "BYTES", "and their bytes, framed for the wire",
     NUMBER(history_bytes, 1, 1 << 30, 131072)},
    {0, "max-message", "BYTES", "largest request body", NUMBER(max_message, 1, 1 << 30, 65536)},
    {0, "heartbeat", "SECONDS", "time between keep-alives on a stream",
     NUMBER(heartbeat_s, 1, 3600, 5)},
    {0, "heartbeat-as", "KIND", "the keep-alive as a message or a comment (message)", OPTION_WORD,
     AT(heartbeat_comment), .other = "comment"},
    {0, "greeting-as", "KIND", "the greeting as a message or as event: connected (message)",
     OPTION_WORD, AT(greeting_event), .other = "event"},
    {0, "retry", "MS", "reconnection time told to clients", NUMBER(retry_ms, 0, 3600000, 2000)},
    {0, "cors", "ORIGIN", "an origin whose pages may use the server; repeat it, or * for any",
     .kind = OPTION_ORIGIN},
    {0, "cert", "FILE", "PEM certificate chain, to serve HTTPS; needs a build with OpenSSL",
     OPTION_FILE, AT(cert_file)},
    {0, "key", "FILE", "its private key, in PEM form too; likewise", OPTION_FILE, AT(key_file)},
    {0, "auth-secret", "FILE", "require JSON Web Tokens signed with the file's bytes; likewise",
     .kind = OPTION_SECRET},
    {0, "no-demo", NULL, "leave out the page and the demo tasks", OPTION_OFF, AT(demo)},
    {'q', "quiet", NULL, "no access log", OPTION_OFF, AT(access_log)},
    {'V', "version", NULL, "print the version and exit", .kind = OPTION_VERSION},
    {'h', "help", NULL, "print this and exit", .kind = OPTION_HELP},
};

#undef AT
#undef NUMBER

enum { OPTION_COUNT = sizeof OPTIONS / sizeof *OPTIONS };

/* Returns the field of *config that the option sets. */
static void *option_field(struct sse_config *config, const struct config_option *o)
{
    return (char *)config + o->offset;
}

void sse_config_init(struct sse_config *config)
{
    *config = (struct sse_config){.bind_address = "127.0.0.1", .stack_bytes = SSE_STACK_BYTES};
    for (const struct config_option *o = OPTIONS; o < OPTIONS + OPTION_COUNT; o++)
        if (o->kind == OPTION_NUMBER)
            *(unsigned *)option_field(config, o) = o->preset;
        else if (o->kind == OPTION_OFF)
            *(bool *)option_field(config, o) = true;
}

/* Parses a numeric address, without DNS. Returns a list of one, which the caller frees, or NULL. */
static struct addrinfo *address_parse(const char *address, const char *port)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    return getaddrinfo(address, port, &hints, &found) == 0 ? found : NULL;
}

/* Tells whether a numeric address is valid: getaddrinfo() alone would take 127.1 for 127.0.0.1. */
static bool address_is_valid(const char *address)
{
    if (!strchr(address, ':'))
        return host_is_address(slice_of(address), AF_INET);
    struct addrinfo *found = address_parse(address, "0");
    if (found)
        freeaddrinfo(found);
    return found != NULL;
}

/* Tells whether every field of *config is in its range, and what belongs together is there. */
static bool config_is_valid(struct sse_config *config)
{
    for (const struct config_option *o = OPTIONS; o < OPTIONS + OPTION_COUNT; o++) {
        unsigned value = o->kind == OPTION_NUMBER ? *(unsigned *)option_field(config, o) : 0;
        if (value < o->min || value > o->max)
            return false;
    }
    for (size_t i = 0; i < config->cors_count; i++)
        if (!config->cors || !config->cors[i] || !origin_is_valid(config->cors[i]))
            return false;
    bool is_long = config->auth_secret_len >= SSE_SECRET_BYTES_MIN;
    return !config->cert_file == !config->key_file &&
           (config->auth_secret ? is_long : !config->auth_secret_len) &&
           config->auth_secret_len <= SSE_SECRET_BYTES &&
           config->stack_bytes >= SSE_STACK_BYTES_MIN && config->bind_address &&
           address_is_valid(config->bind_address);
}

/* ==== Workers ===================================================================================
 *
 * A worker is a thread with a small stack. It serves one connection, request after request, as long
 * as those come within a moment of each other; then it hands the connection to the loop or ends it,
 * and takes the next one, waits a while for one, or ends. Invariant: a worker serves a connection,
 * is among the idle ones, or has no thread. */

/* The connection has ended: its slot is free. */
static void conn_close(struct conn *c)
{
    struct sse_server *server = c->server;

    transport_end(&c->transport);
    pthread_mutex_lock(&server->conns_lock);
    int fd = c->transport.fd;
    if (c->is_held)
        held_remove_locked(c);
    if (c->is_polled)
        poller_remove(&server->poller, conn_slot(c));
    if (c->worker)
        c->worker->conn = NULL;
    c->transport.fd = -1;
    c->is_polled = false;
    c->worker = NULL;
    c->user = NULL;
    c->held_next = server->conns_free;
    server->conns_free = c;
    atomic_fetch_sub(&server->conns_open, 1);
    pthread_mutex_unlock(&server->conns_lock);
    close(fd);
}

/* The peer's address, for the log. */
static void worker_name_peer(struct worker *w)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {.v6 = {.sin6_port = 0}};
    socklen_t len = sizeof address;

    memcpy(w->peer, "-", 2);
    if (w->server->config.access_log && getpeername(w->conn->transport.fd, &address.any, &len) == 0)
        inet_ntop(address.any.sa_family,
                  address.any.sa_family == AF_INET ? (void *)&address.v4.sin_addr
                                                   : (void *)&address.v6.sin6_addr,
                  w->peer, sizeof w->peer);
}

/* Serves request after request. Then the loop has the connection, as a stream, as an idle one, or
 * to linger; or it has ended. Where the server is the one to end it, it lingers after its last
 * answer: the client may have sent more. */
static void worker_serve(struct worker *w)
{
    struct conn *c = w->conn;
    bool goes_on = conn_secure(c), was_answered = false;
    int status = CLOSE;

    worker_name_peer(w);
    w->in_start = w->in_end = 0;
    w->has_served = false;
    w->out = text_over(w->out_bytes, SSE_OUT_BYTES);
    while (goes_on) {
        struct sse_exchange *x = exchange_begin(c);
        status = conn_read_head(c, x);
        was_answered = status >= 0;
        goes_on = was_answered && exchange_run(x, status);
    }
    if (atomic_load(&c->state) != CONN_SERVED) {
        stream_hand_over(c);
        return;
    }
    bool flushed = conn_complete_batch(c);
    was_answered |= w->out.len > 0;
    flushed = flushed && conn_flush(c) && !c->transport.failed;
    if (flushed && status == IDLE)
        conn_enter(c, CONN_IDLE);
    else if (flushed && was_answered && transport_half_close(&c->transport) &&
             transport_drop(&c->transport, true))
        conn_enter(c, CONN_LINGERING);
    if (atomic_load(&c->state) == CONN_SERVED)
        conn_close(c);
    else
        conn_hand_over(c);
}

/* The worker serves this connection from now on. */
static void worker_take_locked(struct worker *w, struct conn *c)
{
    if (c->is_held)
        held_remove_locked(c);
    atomic_store(&c->state, CONN_SERVED);
    c->worker = w;
    w->conn = c;
}

/* Takes the next connection, or waits a while for one. False if the thread is to end. */
static bool worker_next(struct worker *w)
{
    struct sse_server *server = w->server;
    int64_t deadline = now_ms() + SSE_THREAD_IDLE_MS;

    pthread_mutex_lock(&server->conns_lock);
    if (server->held[CONN_READY].first) {
        worker_take_locked(w, server->held[CONN_READY].first);
    } else if (!atomic_load(&server->stopping) && server->workers_idle_count < SSE_IDLE_THREADS) {
        w->next = server->workers_idle;
        server->workers_idle = w;
        server->workers_idle_count++;
        while (!w->conn && !atomic_load(&server->stopping) &&
               cond_wait(&w->called, &server->conns_lock, deadline))
            ;
        struct worker **at = &server->workers_idle;
        while (!w->conn && *at != w)
            at = &(*at)->next;
        if (!w->conn) {
            *at = w->next;
            server->workers_idle_count--;
        }
    }
    bool goes_on = w->conn != NULL;
    pthread_mutex_unlock(&server->conns_lock);
    return goes_on;
}

/* The worker has no thread from now on. */
static void worker_release_locked(struct worker *w)
{
    struct sse_server *server = w->server;
    w->next = server->workers_free;
    server->workers_free = w;
    server->threads--;
    if (atomic_load(&server->stopping))
        pthread_cond_broadcast(&server->conns_changed);
}

/* A worker whose thread could not be started gives its connection back: it waits as before. */
static void worker_give_back(struct worker *w, int64_t waited_ms)
{
    struct conn *c = w->conn;

    pthread_mutex_lock(&w->server->conns_lock);
    worker_release_locked(w);
    w->conn = NULL;
    c->worker = NULL;
    atomic_store(&c->state, CONN_READY);
    held_add_locked(c);
    c->since_ms -= waited_ms;
    pthread_mutex_unlock(&w->server->conns_lock);
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    struct sse_server *server = w->server;

    do
        worker_serve(w);
    while (worker_next(w));
    memory_release(&w->exchange, sizeof *w - offsetof(struct worker, exchange));
    pthread_mutex_lock(&server->conns_lock);
    worker_release_locked(w);
    pthread_mutex_unlock(&server->conns_lock);
    return NULL;
}

/* Starts the thread of a worker that has a connection, with every signal blocked: they are the
 * program's affair. */
static bool worker_start(struct worker *w)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;

    if (pthread_attr_init(&attributes) != 0)
        return false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
                   pthread_attr_setstacksize(&attributes, w->server->config.stack_bytes) == 0 &&
                   pthread_create(&thread, &attributes, worker_run, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

/* A worker without a thread, or NULL if there are as many threads as may be. */
static struct worker *worker_new_locked(struct sse_server *server)
{
    struct worker *w = server->workers_free;

    if (w) {
        server->workers_free = w->next;
    } else if (server->workers_made < server->config.max_threads) {
        w = &server->workers[server->workers_made];
        if (!cond_init(&w->called))
            return NULL;
        w->server = server;
        server->workers_made++;
    } else {
        return NULL;
    }
    server->threads++;
    return w;
}

/* ==== Loop ======================================================================================
 *
 * The thread that calls sse_run(): it accepts connections, and holds all that wait. It waits for no
 * client and for no user's mutex, and what it does in one turn is bounded. Whatever runs out,
 * descriptors, threads or memory, slows accepting down and is logged; it never ends the program. */

/* What the loop keeps to itself. */
struct loop {
    bool has_callers;        /* the listener is ready; else the poller waits for that */
    int64_t paused_until_ms; /* accepting pauses for want of something; 0 if it does not */
    int64_t complained_ms;   /* when that was logged last */
    unsigned failures;       /* of accept() in a row, other than for want of something */
    int64_t start_ms;        /* no thread is started before */
    int64_t swept_ms;        /* when it last looked for expired tokens */
    uint32_t most;           /* connections at once, since memory was last given back */
};

/* Logs at most once a second what keeps it from accepting, and pauses that. */
static void loop_pause(struct sse_server *server, struct loop *loop, const char *why)
{
    char line[SSE_LOG_LINE_BYTES];
    struct text t = text_over(line, sizeof line - 1);
    int64_t now = now_ms();

    loop->paused_until_ms = now + SSE_ACCEPT_PAUSE_MS;
    if (loop->complained_ms && now - loop->complained_ms < 1000)
        return;
    loop->complained_ms = now;
    text_print(&t, "%s: accepting goes on more slowly", why);
    line[t.len] = 0;
    server_log(server, line);
}

/* Answers 503 without having read the request, and without waiting: the answer fits any socket that
 * nothing was written to. Over TLS that is not set up yet, nothing can be said. False if the
 * connection is to be closed at once. */
static bool loop_refuse(struct conn *c, enum refusal why, const char *detail)
{
    struct worker *w = &c->server->workers[c->server->config.max_threads]; /* the loop's own */
    struct iovec part;

    c->worker = w;
    w->out = text_over(w->out_bytes, SSE_OUT_BYTES);
    struct sse_exchange *x = exchange_begin(c);
    x->close = true;
    answer_finish(x, exchange_reject(x, why, 503, "%s", detail));
    c->worker = NULL;
    part = (struct iovec){w->out.at, w->out.len};
    return (c->transport.tls || !c->server->config.cert_file) &&
           transport_write(&c->transport, &part, 1) > 0 && transport_half_close(&c->transport);
}

/* The loop has done its part for a connection that it holds: what follows is up to its client. */
static void loop_await(struct conn *c, enum conn_state state)
{
    conn_enter(c, state);
    if (!conn_poll(c))
        conn_enter(c, CONN_LOST);
}

/* Gives the connections that are ready to workers, those that wait or, up to a limit, new ones: a
 * few threads are started at once, more only for a connection that has waited. One that cannot have
 * a worker waits its turn, for SSE_QUEUE_MS at most. */
static void loop_serve(struct sse_server *server, struct loop *loop)
{
    while (atomic_load(&server->ready) > 0) {
        int64_t now = now_ms();
        pthread_mutex_lock(&server->conns_lock);
        struct conn *c = server->held[CONN_READY].first;
        struct worker *w = c ? server->workers_idle : NULL, *fresh = NULL;
        int64_t waited = c ? now - c->since_ms : 0;
        bool eager = server->threads < SSE_EAGER_THREADS;
        if (w) {
            server->workers_idle = w->next;
            server->workers_idle_count--;
        } else if (c && now >= loop->start_ms && (eager || waited >= SSE_THREAD_MS)) {
            w = fresh = worker_new_locked(server);
            loop->start_ms = now + (eager ? 0 : SSE_THREAD_MS);
        }
        bool late = c && !w && waited >= SSE_QUEUE_MS;
        if (w)
            worker_take_locked(w, c);
        if (w && !fresh)
            pthread_cond_signal(&w->called);
        if (late) { /* from here on no worker takes it */
            held_remove_locked(c);
            atomic_store(&c->state, CONN_SERVED);
        }
        pthread_mutex_unlock(&server->conns_lock);
        if (fresh && !worker_start(fresh)) {
            loop_pause(server, loop, "out of threads");
            loop->start_ms = loop->paused_until_ms;
            worker_give_back(fresh, waited);
            return;
        }
        if (late) {
            bool told = loop_refuse(c, REFUSED_THREADS, "the server has no thread to spare");
            atomic_store(&c->state, told ? CONN_LINGERING : CONN_LOST);
            conn_hand_over(c);
        } else if (!w) {
            return;
        }
    }
}

/* Where all threads are busy and connections wait: shuts those for reading whose workers have
 * waited longest for bytes of their client. */
static void loop_cut_stalled(struct sse_server *server)
{
    if (atomic_load(&server->ready) == 0)
        return;
    pthread_mutex_lock(&server->conns_lock);
    bool busy = server->threads == server->config.max_threads && !server->workers_idle;
    for (unsigned cuts = atomic_load(&server->ready); busy && cuts > 0; cuts--) {
        struct worker *longest = NULL;
        unsigned now = time_stamp(), waited = SSE_STALL_MS;
        for (struct worker *w = server->workers; w < server->workers + server->workers_made; w++) {
            unsigned since = atomic_load(&w->stalled_since);
            if (since == 0 || !w->conn || now - since < waited)
                continue;
            waited = now - since;
            longest = w;
        }
        if (!longest)
            break;
        atomic_store(&longest->stalled_since, 0);
        shutdown(longest->conn->transport.fd, SHUT_RD); /* its worker reads the end */
    }
    pthread_mutex_unlock(&server->conns_lock);
}

/* Closes a connection that waits for a request. False if that has just come: then it is served. */
static bool loop_close_idle(struct conn *c)
{
    bool came = transport_peek(&c->transport) > 0;
    if (came)
        conn_enter(c, CONN_READY);
    else
        conn_close(c);
    return !came;
}

/* Of the connections that wait for a request, ends the one that has waited longest, if there is
 * one. */
static void loop_evict(struct sse_server *server)
{
    struct conn *c, *fresh;

    do {
        pthread_mutex_lock(&server->conns_lock);
        c = server->held[CONN_IDLE].first;
        fresh = server->held[CONN_NEW].first;
        if (!c || (fresh && fresh->since_ms < c->since_ms))
            c = fresh;
        pthread_mutex_unlock(&server->conns_lock);
    } while (c && !loop_close_idle(c));
}

/* A free slot for a new connection, or NULL. */
static struct conn *loop_claim(struct sse_server *server, int fd)
{
    pthread_mutex_lock(&server->conns_lock);
    struct conn *c = server->conns_free;
    if (c) {
        server->conns_free = c->held_next;
    } else if (server->conns_made < server->config.max_connections + SSE_RESERVED) {
        c = &server->conns[server->conns_made++];
        c->server = server;
    }
    if (c) {
        c->transport = (struct transport){.fd = fd};
        c->is_misdirected = c->was_blank = false;
        c->idle_ms = 0;
        atomic_fetch_add(&server->conns_open, 1);
    }
    pthread_mutex_unlock(&server->conns_lock);
    return c;
}

/* Takes a new connection in. At --max-connections one that is idle makes room; those beyond are
 * there for requests that open no stream; and when they are used up too, the answer is 503. */
static void loop_admit(struct sse_server *server, int fd)
{
    if (atomic_load(&server->conns_open) >= server->config.max_connections)
        loop_evict(server);
    struct conn *c = loop_claim(server, fd);
    if (c) {
        ssize_t said = transport_peek(&c->transport);
        atomic_store(&c->state, said == 0 ? CONN_LOST : said > 0 ? CONN_READY : CONN_NEW);
        conn_hand_over(c);
        return;
    }
    struct conn refused = {.server = server, .transport.fd = fd};
    if (loop_refuse(&refused, REFUSED_CONNECTIONS, "the server has as many connections as it may"))
        transport_drop(&refused.transport, false); /* else closing would reset it */
    close(fd);
}

/* Accepts the connections that have come. Four errors mean that the system has run out of
 * something; when a connection was taken before, they are no news, since Linux finds no descriptor
 * before it looks whether there is another. All other errors, such as EPROTO or EHOSTUNREACH,
 * belong to a connection that failed before it was taken (accept(2)); only many in a row may come
 * from something that lasts, such as a rule of the system's. */
static void loop_accept(struct sse_server *server, struct loop *loop)
{
    for (int taken = 0; taken < SSE_ACCEPTS; taken++) {
        int fd = transport_accept(server->listener), error = errno;
        if (fd >= 0) {
            loop->failures = 0;
            loop_admit(server, fd);
            continue;
        }
        const char *shortage = error == EMFILE || error == ENFILE    ? "out of descriptors"
                               : error == ENOBUFS || error == ENOMEM ? "out of memory"
                                                                     : NULL;
        if (error != EINTR)
            loop->has_callers = false;
        if (error == EAGAIN || error == EWOULDBLOCK || error == EINTR)
            return;
        if (shortage && taken == 0) {
            loop_pause(server, loop, shortage);
            loop_evict(server);
        } else if (!shortage && ++loop->failures >= SSE_ACCEPT_FAILURES) {
            loop_pause(server, loop, strerror(error));
        }
        return;
    }
}

/* Something has happened on a connection. Its state says what that means; a report for one that a
 * worker has in the meantime, or that is to be closed anyway, means nothing. */
static void loop_event(struct conn *c, unsigned events)
{
    pthread_mutex_lock(&c->server->conns_lock);
    bool held = c->is_held;
    pthread_mutex_unlock(&c->server->conns_lock);
    if (!held)
        return; /* what it asks for when it is handed over is reported again */
    switch (atomic_load(&c->state)) {
    case CONN_NEW:
    case CONN_IDLE:
        if (transport_peek(&c->transport) == 0)
            conn_close(c);
        else
            conn_enter(c, CONN_READY);
        break;
    case CONN_OPEN:
    case CONN_CLOSING:
        stream_want(c, events);
        break;
    case CONN_LINGERING:
        if (transport_drop(&c->transport, false) && conn_poll(c))
            break;
        conn_close(c);
        break;
    default:
        break;
    }
}

/* Of the connections that the loop holds in a state, the one that came into it first, if that was
 * so long ago. */
static struct conn *loop_late(struct sse_server *server, enum conn_state state, int64_t limit_ms)
{
    pthread_mutex_lock(&server->conns_lock);
    struct conn *c = server->held[state].first;
    if (c && now_ms() - c->since_ms < limit_ms)
        c = NULL;
    pthread_mutex_unlock(&server->conns_lock);
    return c;
}

/* Does the loop alone refer to a connection that it holds? A thread that has the mutex of a
 * stream's user may still do so, until it has released it. */
static bool loop_has_alone(struct conn *c)
{
    if (c->user && !c->is_asked) {
        c->is_asked = true; /* once only: it may be released at any moment from now on */
        stream_want(c, RELEASED);
    }
    if (c->user && (atomic_load(&c->wants) != 0 || !atomic_load(&c->is_released)))
        return false;
    c->user = NULL;
    return true;
}

/* Ends what is over: streams whose clients have taken all are half-closed, to linger; connections
 * that are lost are closed. */
static void loop_end(struct sse_server *server, enum conn_state state)
{
    struct conn *c, *next;

    for (c = loop_late(server, state, 0); c; c = next) {
        pthread_mutex_lock(&server->conns_lock);
        next = c->held_next;
        pthread_mutex_unlock(&server->conns_lock);
        if (!loop_has_alone(c))
            continue;
        if (state == CONN_COMPLETE && transport_half_close(&c->transport))
            loop_await(c, CONN_LINGERING);
        else
            conn_close(c);
    }
}

/* Closes connections whose time is up. While the server stops, that is all those without a request;
 * what has come is still served. */
static void loop_time_out(struct sse_server *server)
{
    bool stopping = atomic_load(&server->stopping);
    int64_t new_ms = server->config.cert_file ? SSE_HANDSHAKE_MS : SSE_IDLE_MS;
    struct conn *c;

    while ((c = loop_late(server, CONN_LINGERING, SSE_LINGER_MS)) != NULL)
        conn_close(c);
    while ((c = loop_late(server, CONN_IDLE, stopping ? 0 : SSE_IDLE_MS)) != NULL ||
           (c = loop_late(server, CONN_NEW, stopping ? 0 : new_ms)) != NULL)
        loop_close_idle(c);
    while ((c = loop_late(server, CONN_CLOSING, SSE_FINAL_MS)) != NULL) {
        stream_want(c, CLOSED);
        if (atomic_load(&c->state) == CONN_CLOSING)
            break; /* its user's mutex is held */
    }
}

/* Closes the streams whose token has expired. */
static void loop_expire(struct sse_server *server, struct loop *loop)
{
    int64_t now = now_ms(), unix_now = unix_ms();

    if (!server->config.auth_secret || now - loop->swept_ms < SSE_EXPIRY_MS)
        return;
    loop->swept_ms = now;
    for (uint32_t i = 0; i < server->conns_made; i++) {
        struct conn *c = &server->conns[i];
        if (atomic_load(&c->state) == CONN_OPEN && c->expires_ms && c->expires_ms <= unix_now)
            stream_want(c, EXPIRED);
    }
}

/* Writes the keep-alives that are due. */
static void loop_keep_alives(struct sse_server *server)
{
    int64_t now = heartbeat_step(server);

    for (int users = 0; users < SSE_KEEP_ALIVES; users++) {
        pthread_mutex_lock(&server->lists_lock);
        while (server->connected > 0 && server->step < now &&
               !server->heartbeat[server->step % HEARTBEAT_LISTS].first)
            server->step++;
        struct user *user = server->heartbeat[server->step % HEARTBEAT_LISTS].first;
        int64_t next = user ? server->step + SSE_HEARTBEAT_STEPS / user_slices(user) : 0;
        if (user && server->step <= now)
            lists_move_locked(user, &server->heartbeat[next % HEARTBEAT_LISTS]);
        else
            user = NULL;
        pthread_mutex_unlock(&server->lists_lock);
        if (!user)
            return;
        atomic_fetch_add(&user->keep_alives_due, 1);
        user_try(server, user);
    }
}

/* Milliseconds until the next keep-alive is due: at most `most`. */
static int64_t loop_keep_alive_in(struct sse_server *server, int64_t most)
{
    int64_t step, wait = most;

    pthread_mutex_lock(&server->lists_lock);
    step = server->step;
    while (server->connected > 0 && step < server->step + HEARTBEAT_LISTS &&
           !server->heartbeat[step % HEARTBEAT_LISTS].first)
        step++;
    server->next_step = server->connected > 0 ? step : INT64_MAX;
    pthread_mutex_unlock(&server->lists_lock);
    if (server->next_step < INT64_MAX)
        wait = server->started_ms - now_ms() +
               (step * heartbeat_ms(server) + SSE_HEARTBEAT_STEPS - 1) / SSE_HEARTBEAT_STEPS;
    return wait < 0 ? 0 : wait < most ? wait : most;
}

/* How long the loop may sleep: for good if there is no connection. loop_turn() has set is_waiting
 * before, so that what changes from here on wakes it up. */
static int loop_rest_ms(struct sse_server *server, const struct loop *loop)
{
    int64_t rest = 1000; /* connections come into their states at any time */

    pthread_mutex_lock(&server->conns_lock);
    bool ends = server->held[CONN_COMPLETE].first || server->held[CONN_LOST].first;
    pthread_mutex_unlock(&server->conns_lock);
    if ((atomic_load(&server->stop_asked) && !atomic_load(&server->stopping)) ||
        atomic_load(&server->reload_asked) || (loop->has_callers && !loop->paused_until_ms))
        return 0;
    if (ends || atomic_load(&server->ready) > 0)
        rest = 1;
    else if (atomic_load(&server->stopping))
        rest = 10;
    else if (loop->paused_until_ms)
        rest = SSE_ACCEPT_PAUSE_MS;
    else if (atomic_load(&server->conns_open) == 0)
        return -1;
    return (int)loop_keep_alive_in(server, rest);
}

/* The words for what tls_load() has just returned. */
static void config_explain(struct text *t, const struct sse_config *config, int code)
{
    bool cert = code == SSE_ECERT;
    const char *file = cert ? config->cert_file : config->key_file;
    int error = errno;

    if (code != SSE_ECERT && code != SSE_EKEY)
        text_string(t, "there is not enough memory");
    else if (error)
        text_print(t, "cannot read %s: %s", file, strerror(error));
    else
        text_print(t,
                   cert ? "%s holds no chain of certificates in PEM form that TLS can use"
                        : "%s holds no unencrypted key in PEM form that belongs to the certificate",
                   file);
}

/* Takes certificate and key anew. Connections keep the old ones for as long as they need them. */
static void server_reload(struct sse_server *server)
{
    const struct sse_config *config = &server->config;
    struct ssl_ctx_st *fresh = NULL;
    char line[SSE_LOG_LINE_BYTES];

    int code = config->cert_file ? tls_load(config->cert_file, config->key_file, &fresh) : SSE_OK;
    if (fresh) {
        pthread_mutex_lock(&server->conns_lock);
        struct ssl_ctx_st *old = server->tls;
        server->tls = fresh;
        pthread_mutex_unlock(&server->conns_lock);
        tls_free(old);
        server_log(server, "certificate and key were read again");
    } else if (code != SSE_OK) {
        struct text t = text_over(line, sizeof line - 1);
        text_string(&t, "the old certificate and key stay: ");
        config_explain(&t, config, code);
        line[t.len] = 0;
        server_log(server, line);
    }
}

/* After a peak, what libraries keep of its memory goes back to the system. */
static void loop_tidy(struct sse_server *server, struct loop *loop)
{
    uint32_t open = atomic_load(&server->conns_open);
    if (open > loop->most)
        loop->most = open;
    if (loop->most < SSE_IDLE_THREADS || open >= loop->most / 2)
        return;
    tls_tidy();
    loop->most = open;
}

/* One turn of the loop: waits until something is to be done, and does it. False with errno set if
 * it cannot wait. */
static bool loop_turn(struct sse_server *server, struct loop *loop)
{
    struct poller *p = &server->poller;
    struct poller_event events[SSE_EVENTS];
    char ignored[64];

    atomic_store(&p->is_waiting, true);
    int n = poller_wait(p, events, SSE_EVENTS, loop_rest_ms(server, loop));
    atomic_store(&p->is_waiting, false);
    if (n < 0 && errno != EINTR)
        return false;
    for (int i = 0; i < n; i++) {
        if (events[i].slot == POLLER_LISTENER) {
            loop->has_callers = server->listener >= 0;
        } else if (events[i].slot == POLLER_WAKEUP) {
            while (read(p->wakeup[0], ignored, sizeof ignored) > 0)
                ; /* what woke it is told by flags and states, which were set before */
            poller_change(p, POLLER_WAKEUP, p->wakeup[0], READABLE);
        } else {
            loop_event(&server->conns[events[i].slot - POLLER_CONNS], events[i].events);
        }
    }
    if (atomic_exchange(&server->reload_asked, false))
        server_reload(server);
    loop_keep_alives(server);
    loop_expire(server, loop);
    loop_time_out(server);
    loop_end(server, CONN_COMPLETE);
    loop_end(server, CONN_LOST);
    loop_tidy(server, loop);
    if (loop->paused_until_ms <= now_ms())
        loop->paused_until_ms = 0;
    /* Slots are reused by accepting alone: since that comes last, this turn's reports are valid. */
    if (loop->has_callers && !loop->paused_until_ms) {
        loop_accept(server, loop);
        if (!loop->has_callers)
            poller_change(p, POLLER_LISTENER, server->listener, READABLE);
    }
    loop_serve(server, loop);
    loop_cut_stalled(server);
    return true;
}

/* ==== Server ====================================================================================
 *
 * How it all begins and ends. What sse_create() reserves is all there will be; sse_run() returns
 * when the last connection has ended, or been given up. */

/* Waits until no worker has a thread, or the deadline. */
static bool server_wait(struct sse_server *server, int64_t ms)
{
    int64_t deadline = now_ms() + ms;

    pthread_mutex_lock(&server->conns_lock);
    while (server->threads > 0 && cond_wait(&server->conns_changed, &server->conns_lock, deadline))
        ;
    bool none = server->threads == 0;
    pthread_mutex_unlock(&server->conns_lock);
    return none;
}

/* Ends what is still open: shuts the sockets of requests under way, and closes the connections that
 * the loop holds. */
static void server_cut(struct sse_server *server)
{
    pthread_mutex_lock(&server->conns_lock);
    for (uint32_t i = 0; i < server->workers_made; i++)
        if (server->workers[i].conn)
            shutdown(server->workers[i].conn->transport.fd, SHUT_RDWR);
    for (struct conn *c; (c = server->held[CONN_READY].first) != NULL; held_add_locked(c)) {
        held_remove_locked(c); /* no worker is to take it any more */
        atomic_store(&c->state, CONN_LOST);
    }
    pthread_mutex_unlock(&server->conns_lock);
    server_wait(server, SSE_STOP_MORE_MS);
    for (struct conn *c = server->conns; c < server->conns + server->conns_made; c++) {
        struct user *user = stream_is_alive(c) ? c->user : NULL;
        if (user)
            pthread_mutex_lock(&user->lock);
        if (user && stream_is_alive(c))
            stream_enter_locked(c, CONN_LOST);
        if (user)
            user_unlock(server, user);
        if (c->is_held)
            conn_close(c);
    }
}

/* No new connections; streams are told when to come back; requests under way get their time. */
static void server_shut_down(struct sse_server *server, struct loop *loop)
{
    int64_t deadline = now_ms() + SSE_STOP_MS;
    struct user *user;
    uint32_t at = 0;

    atomic_store(&server->stopping, true);
    poller_remove(&server->poller, POLLER_LISTENER);
    close(server->listener);
    server->listener = -1;
    loop->has_callers = false;
    pthread_mutex_lock(&server->conns_lock);
    pthread_cond_broadcast(&server->conns_changed);
    for (struct worker *w = server->workers_idle; w; w = w->next)
        pthread_cond_signal(&w->called);
    pthread_mutex_unlock(&server->conns_lock);
    while ((user = user_each(server, &at))) {
        pthread_mutex_lock(&user->lock);
        user_close_locked(user, CLOSE_STOPPING);
        user_unlock(server, user);
        user_unpin(user);
    }
    while (atomic_load(&server->conns_open) > 0 && now_ms() < deadline && loop_turn(server, loop))
        ;
    if (atomic_load(&server->conns_open) > 0 || !server_wait(server, SSE_STOP_MORE_MS))
        server_cut(server);
}

int sse_run(struct sse_server *server)
{
    struct loop loop = {.paused_until_ms = 0};

    bool goes_on = poller_add(&server->poller, POLLER_LISTENER, server->listener, READABLE);
    while (goes_on && !atomic_load(&server->stop_asked))
        goes_on = loop_turn(server, &loop);
    int error = errno;
    server_shut_down(server, &loop);
    errno = error;
    return atomic_load(&server->stop_asked) ? SSE_OK : SSE_ESYSTEM;
}

/* Sets a flag that the loop looks at, and wakes it up. */
static void server_ask(struct sse_server *server, atomic_bool *flag)
{
    atomic_store(flag, true);
    poller_wake(&server->poller);
}

void sse_stop(struct sse_server *server)
{
    server_ask(server, &server->stop_asked);
}

void sse_reload(struct sse_server *server)
{
    server_ask(server, &server->reload_asked);
}

unsigned sse_port(const struct sse_server *server)
{
    return server->port;
}

/* Large bodies share a budget, in slots of the largest size: so many. */
static uint32_t body_slots(const struct sse_config *c)
{
    uint32_t count = SSE_BODY_BUDGET / c->max_message;
    if (count < SSE_BODY_SLOTS_MIN)
        count = SSE_BODY_SLOTS_MIN;
    return count < c->max_threads ? count : c->max_threads;
}

/* Bytes with a unit, rounded up to one decimal. */
static void text_size(struct text *t, uint64_t bytes)
{
    bool mega = bytes >= 1 << 20;
    uint64_t unit = mega ? 1 << 20 : 1 << 10, tenths = (bytes * 10 + unit - 1) / unit;
    text_print(t, tenths % 10 ? "%" PRIu64 ".%" PRIu64 " %s" : "%" PRIu64 "%.0" PRIu64 " %s",
               tenths / 10, tenths % 10, mega ? "MiB" : "KiB");
}

/* What sse_memory() tells, of a server with these limits. A user has at most four cells of the
 * index; the program's share includes what the loop needs. */
static uint64_t config_memory(const struct sse_config *c, char *how, size_t size)
{
    const struct {
        uint64_t count, bytes;
        const char *names;
    } terms[] = {
        {c->max_users, sizeof(struct user) + 4 * sizeof(uint32_t) + log_bytes(c), "users"},
        {(uint64_t)c->max_connections + SSE_RESERVED,
         sizeof(struct conn) + 2 * sizeof(struct pollfd) + (c->cert_file ? TLS_CONN_BYTES : 0),
         "connections"},
        {c->max_threads, sizeof(struct worker) + c->stack_bytes, "threads"},
        {body_slots(c), c->max_message, "bodies"},
    };
    char none[1];
    struct text t = text_over(how ? how : none, how && size ? size - 1 : 0);
    uint64_t program = SSE_PROGRAM_BYTES + TLS_PROGRAM_BYTES, bytes = program;

    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        bytes += terms[i].count * terms[i].bytes;
        text_print(&t, "%" PRIu64 " %s x ", terms[i].count, terms[i].names);
        text_size(&t, terms[i].bytes);
        text_string(&t, ", ");
    }
    text_string(&t, "program ");
    text_size(&t, program);
    if (how && size)
        how[t.len] = 0;
    return bytes;
}

uint64_t sse_memory(const struct sse_server *server, char *how, size_t size)
{
    return config_memory(&server->config, how, size);
}

/* Reserves everything the server will ever use. What is never used is never touched: for large
 * areas calloc() hands out fresh pages of the kernel's, which take no memory until then. */
static bool server_reserve(struct sse_server *server)
{
    const struct sse_config *c = &server->config;
    struct bodies *b = &server->bodies;
    uint32_t cells = 2;

    while (cells < 2 * c->max_users)
        cells *= 2;
    server->index_mask = cells - 1;
    server->index = calloc(cells, sizeof *server->index);
    server->users = calloc(c->max_users, sizeof *server->users);
    server->logs = calloc(c->max_users, log_bytes(c));
    server->conns = calloc(c->max_connections + SSE_RESERVED, sizeof *server->conns);
    server->workers = calloc(c->max_threads + 1, sizeof *server->workers); /* one is the loop's */
    b->count = b->free = body_slots(c);
    b->area = calloc(b->count, c->max_message);
    b->next = calloc(b->count, sizeof *b->next);
    for (uint32_t i = 0; b->next && i < b->count; i++)
        b->next[i] = i;
    return server->index && server->users && server->logs && server->conns && server->workers &&
           b->area && b->next;
}

/* Random bytes: the hash key, the first epoch, the spread of retries, the keys of the page's
 * nonces. */
static bool server_seed(struct sse_server *server)
{
    uint64_t random[8];

    if (!random_fill(random, sizeof random))
        return false;
    server->hash_key[0] = random[0];
    server->hash_key[1] = random[1];
    server->next_epoch = random[2] | 1ULL << 63; /* so that all have sixteen digits */
    server->retry_seed = random[3];
    memcpy(server->nonce_keys, random + 4, sizeof server->nonce_keys);
    return true;
}

static bool address_is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET6) {
        const struct in6_addr *v6 =
            &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
    }
    const struct sockaddr_in *v4 = (const void *)address;
    return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
}

/* Opens the listening socket and learns its port. SSE_OK, SSE_EBIND or SSE_ENOMEM. */
static int server_listen(struct sse_server *server)
{
    char port[8];
    struct sockaddr_in6 bound = {.sin6_port = 0}; /* the port stands in the same place for IPv4 */
    socklen_t bound_len = sizeof bound;
    int on = 1;

    snprintf(port, sizeof port, "%u", server->config.port);
    struct addrinfo *address = address_parse(server->config.bind_address, port);
    if (!address) /* it is a valid one */
        return SSE_ENOMEM;
    server->on_loopback = address_is_loopback(address->ai_addr);
    int fd = server->listener = socket(address->ai_family, SOCK_STREAM, 0);
    bool ready = fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 &&
                 fcntl(fd, F_SETFL, O_NONBLOCK) == 0 &&
                 setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0;
    if (ready)
        transport_prepare(fd);
    ready = ready && bind(fd, address->ai_addr, address->ai_addrlen) == 0 &&
            listen(fd, SSE_BACKLOG) == 0 &&
            getsockname(fd, (struct sockaddr *)(void *)&bound, &bound_len) == 0;
    freeaddrinfo(address);
    server->port = ntohs(bound.sin6_port);
    return ready ? SSE_OK : SSE_EBIND;
}

int sse_create(struct sse_server **out, const struct sse_config *config)
{
    struct sse_config checked = *config;
    struct sse_server *server;

    *out = NULL;
    if (!config_is_valid(&checked))
        return SSE_EINVAL;
    if (!TLS_IS_BUILT && (checked.cert_file || checked.auth_secret))
        return SSE_ENOTLS;
    server = calloc(1, sizeof *server);
    if (!server)
        return SSE_ENOMEM;
    if (checked.stack_bytes < (unsigned)PTHREAD_STACK_MIN)
        checked.stack_bytes = (unsigned)PTHREAD_STACK_MIN;
    unsigned page = (unsigned)sysconf(_SC_PAGESIZE); /* macOS takes whole pages only */
    checked.stack_bytes = (checked.stack_bytes + page - 1) / page * page;
    server->config = checked;
    server->listener = -1;
    server->started_ms = now_ms();
    server_add_routes(server);
    tls_init();
    tzset(); /* reads its file and allocates now rather than on a connection's thread */
    if (pthread_rwlock_init(&server->table_lock, NULL) != 0 ||
        pthread_mutex_init(&server->lists_lock, NULL) != 0 ||
        pthread_mutex_init(&server->conns_lock, NULL) != 0 || !cond_init(&server->conns_changed)) {
        free(server);
        return SSE_ENOMEM;
    }
    uint32_t slots = POLLER_CONNS + checked.max_connections + SSE_RESERVED;
    int code = !poller_init(&server->poller, slots) ? SSE_ESYSTEM
               : !server_reserve(server)            ? SSE_ENOMEM
               : !server_seed(server)               ? SSE_ERANDOM
                                                    : SSE_OK;
    if (code == SSE_OK && checked.cert_file)
        code = tls_load(checked.cert_file, checked.key_file, &server->tls);
    if (code == SSE_OK)
        code = server_listen(server);
    if (code != SSE_OK) {
        int error = errno;
        sse_destroy(server);
        errno = error;
        return code;
    }
    *out = server;
    return SSE_OK;
}

void sse_destroy(struct sse_server *server)
{
    if (!server)
        return;
    while (!server_wait(server, 1000))
        ;
    for (uint32_t i = 0; i < server->conns_made; i++) /* what workers handed over too late */
        if (server->conns[i].transport.fd >= 0)
            conn_close(&server->conns[i]);
    for (uint32_t i = 0; server->users && i < server->users_made; i++)
        pthread_mutex_destroy(&server->users[i].lock);
    for (uint32_t i = 0; server->workers && i < server->workers_made; i++)
        pthread_cond_destroy(&server->workers[i].called);
    pthread_cond_destroy(&server->conns_changed);
    pthread_mutex_destroy(&server->conns_lock);
    pthread_mutex_destroy(&server->lists_lock);
    pthread_rwlock_destroy(&server->table_lock);
    poller_free(&server->poller);
    if (server->listener >= 0)
        close(server->listener);
    tls_free(server->tls);
    free(server->bodies.area);
    free(server->bodies.next);
    free(server->workers);
    free(server->conns);
    free(server->logs);
    free(server->users);
    free(server->index);
    free(server);
}

/* ==== Program ===================================================================================
 *
 * The command line over the library. Only this section prints, exits or handles signals. */

#ifndef SSE_NO_MAIN

static struct sse_server *the_server; /* for the signal handler */
static const char **the_origins;      /* what --cors listed; as long as the command line */

/* Prints one line and exits: with 1 for a failure at run time, with 2 for bad usage. */
SSE_PRINTF(2, 3) _Noreturn static void die(int status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("sse: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
    va_end(args);
    exit(status);
}

/* The first SIGTERM or SIGINT begins a graceful shutdown; a second one ends the process at once. */
static void on_signal(int signal_number)
{
    if (signal_number == SIGHUP && the_server->config.cert_file)
        sse_reload(the_server);
    else if (signal_number != SIGHUP && atomic_load(&the_server->stopping))
        _exit(1);
    else
        sse_stop(the_server);
}

/* Writes a line to the log. A line that stderr has no room for is dropped, because a log that
 * nobody reads must not block the threads that write to it. */
static void log_to_stderr(void *arg, const char *line)
{
    struct iovec parts[2] = {{(void *)line, strlen(line)}, {(void *)"\n", 1}};
    struct pollfd on = {.fd = STDERR_FILENO, .events = POLLOUT};
    (void)arg;
    if (poll(&on, 1, 0) == 1 && writev(STDERR_FILENO, parts, 2) < 0)
        return;
}

/* Writes out what was printed, or exits because that failed. */
static void flush_stdout(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        die(1, "cannot write to standard output: %s", strerror(errno));
}

/* Prints a line for each option, with its default. */
static void print_help(void)
{
    printf("Usage: sse [options]\n"
           "Serves event streams on /sse/connect/{userId}, and sends to them.\n\n");
    for (const struct config_option *o = OPTIONS; o < OPTIONS + OPTION_COUNT; o++) {
        int width = printf("  %c%c%c --%s %s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
                           o->letter ? ',' : ' ', o->name, o->takes ? o->takes : "");
        printf("%*s%s", width < 32 ? 32 - width : 1, "", o->help);
        if (o->kind == OPTION_NUMBER)
            printf(" (%u)", o->preset);
        printf("\n");
    }
}

/* Exits because the value of an option is missing or invalid, and says what the option takes. */
_Noreturn static void usage_error(const struct config_option *o)
{
    static const char *const takes[OPTION_HELP + 1] = {
        [OPTION_ADDRESS] = "an IPv4 or IPv6 address",
        [OPTION_ORIGIN] = "an origin, scheme://host[:port], or *",
    };

    if (!TLS_IS_BUILT && (o->kind == OPTION_FILE || o->kind == OPTION_SECRET))
        die(2, "--%s needs a build with OpenSSL: make TLS=1", o->name);
    if (o->kind == OPTION_NUMBER)
        die(2, "--%s takes a number from %u to %u", o->name, o->min, o->max);
    if (o->kind == OPTION_WORD)
        die(2, "--%s takes message or %s", o->name, o->other);
    const char *others = o->takes ? "a file" : "no value";
    die(2, "--%s takes %s", o->name, takes[o->kind] ? takes[o->kind] : others);
}

/* Reads the secret that tokens are signed with. One line feed at the end of the file is not part of
 * the secret. */
static void read_secret(struct sse_config *config, const char *file)
{
    static char secret[SSE_SECRET_BYTES + 2];
    FILE *in = fopen(file, "rb");
    size_t len = in ? fread(secret, 1, sizeof secret, in) : 0;

    if (!in || ferror(in))
        die(1, "cannot read %s: %s", file, strerror(errno));
    fclose(in);
    if (len > 0 && secret[len - 1] == '\n')
        len--;
    if (len < SSE_SECRET_BYTES_MIN || len > SSE_SECRET_BYTES)
        die(1, "the secret in %s must have %d to %d bytes; this makes one: openssl rand -hex 32",
            file, SSE_SECRET_BYTES_MIN, SSE_SECRET_BYTES);
    config->auth_secret = secret;
    config->auth_secret_len = len;
}

/* Applies one option; `value` is NULL if the command line has none. Returns whether the option
 * takes that value. --version and --help exit. */
static bool option_set(struct sse_config *config, const struct config_option *o, const char *value)
{
    void *field = option_field(config, o);
    uint64_t number = 0;

    if ((o->takes != NULL) != (value != NULL))
        return false;
    value = value ? value : "";
    switch (o->kind) {
    case OPTION_NUMBER:
        if (!text_number(slice_of(value), o->max, &number) || number < o->min)
            return false;
        *(unsigned *)field = (unsigned)number;
        return true;
    case OPTION_FILE:
        *(const char **)field = value;
        return TLS_IS_BUILT && *value;
    case OPTION_OFF:
        *(bool *)field = false;
        return true;
    case OPTION_ADDRESS:
        config->bind_address = value;
        return address_is_valid(value);
    case OPTION_WORD:
        *(bool *)field = strcmp(value, o->other) == 0;
        return *(bool *)field || strcmp(value, "message") == 0;
    case OPTION_ORIGIN:
        the_origins[config->cors_count++] = value;
        return origin_is_valid(value);
    case OPTION_SECRET:
        if (!TLS_IS_BUILT || !*value)
            return false;
        read_secret(config, value);
        return true;
    case OPTION_VERSION:
        printf("sse " SSE_VERSION "\n");
        break;
    case OPTION_HELP:
        print_help();
    }
    flush_stdout();
    exit(0);
}

/* Applies the words of the command line: --name value, --name=value, -x value, -xvalue, and
 * switches in one word as in -qp 80. Exits at what is no option, and at a value that its option
 * does not take. */
static void parse_arguments(struct sse_config *config, char **words)
{
    while (*words) {
        const char *word = *words++;
        bool is_long = strncmp(word, "--", 2) == 0;
        if (word[0] != '-' || !word[is_long ? 2 : 1])
            die(2, "'%s' is not an option; sse --help lists them", word);
        /* A long word holds one option, a short one as many switches as it has letters, the last of
         * which may take the rest of the word, or the next word, as its value. */
        for (const char *at = word + (is_long ? 2 : 1); *at;) {
            struct slice value = {at[1] ? at + 1 : NULL, 0}, name = {at, 1};
            const struct config_option *o = OPTIONS, *end = OPTIONS + OPTION_COUNT;
            if (is_long) {
                value = slice_of(at);
                name = slice_cut(&value, '=');
            }
            while (o < end && !(is_long ? slice_is(name, o->name) : o->letter == *at))
                o++;
            if (o == end)
                die(2, "%.*s%.*s is no option; sse --help lists them", is_long ? 2 : 1, "--",
                    (int)name.len, name.at);
            if (!is_long && !o->takes)
                value.at = NULL;
            bool is_next = o->takes && !value.at;
            if (!option_set(config, o, is_next ? *words : value.at))
                usage_error(o);
            words += is_next;
            at = is_long || o->takes ? "" : at + 1;
        }
    }
    if (!config->cert_file != !config->key_file)
        die(2, "--cert takes a file, and --key the file of its key: both or neither");
}

/* Raises the limit of open descriptors as far as the system allows, and warns if that is less than
 * all connections may need. */
static void raise_descriptor_limit(const struct sse_config *config)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)config->max_connections + 64;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && need < limit.rlim_max) {
        limit.rlim_cur = need; /* macOS rejects what is beyond a limit of its own */
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < need)
        fprintf(stderr,
                "warning: %u connections may need %ju descriptors, and the limit is %ju; raise it "
                "with: ulimit -n %ju\n",
                config->max_connections, (uintmax_t)need, (uintmax_t)limit.rlim_cur,
                (uintmax_t)need);
}

/* Returns a number of bytes in MiB, rounded up. */
static uint64_t mebibytes(uint64_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

/* Exits because sse_create() has returned this code; errno is still what that has left. */
_Noreturn static void start_error(const struct sse_config *config, int code)
{
    char line[SSE_LOG_LINE_BYTES];
    struct text t = text_over(line, sizeof line);

    if (code == SSE_EBIND)
        die(1, "cannot listen on %s port %u: %s", config->bind_address, config->port,
            strerror(errno));
    if (code == SSE_ENOMEM)
        die(1,
            "not enough memory: these limits take up to %" PRIu64 " MiB (%s); lower --max-users, "
            "--history, --history-bytes, --max-message or --max-connections",
            mebibytes(config_memory(config, line, sizeof line)), line);
    if (code == SSE_ERANDOM)
        die(1, "no random bytes: cannot read /dev/urandom: %s", strerror(errno));
    if (code != SSE_ECERT && code != SSE_EKEY)
        die(1, "cannot make a pipe or poller: %s", strerror(errno));
    config_explain(&t, config, code);
    die(1, "%.*s", (int)t.len, t.at);
}

int main(int argc, char **argv)
{
    struct sigaction handle = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN}, before;
    struct sse_config config;
    char how[160];
    int fd;

    /* 1. The command line */
    sse_config_init(&config);
    config.log = log_to_stderr;
    config.cors = the_origins = calloc((size_t)argc, sizeof *the_origins);
    if (!the_origins)
        start_error(&config, SSE_ENOMEM);
    parse_arguments(&config, argv + 1);

    /* 2. The process: a standard descriptor that is closed would be given to a socket. */
    do
        if ((fd = open("/dev/null", O_RDWR)) < 0)
            fd = socket(AF_UNIX, SOCK_STREAM, 0); /* as mute, and there in an empty root, too */
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
#ifdef PR_SET_THP_DISABLE
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* huge pages would use memory that nothing needs */
#endif

    /* 3. The server: memory, port */
    int code = sse_create(&the_server, &config);
    if (code != SSE_OK)
        start_error(&config, code);
    uint64_t bytes = sse_memory(the_server, how, sizeof how);
    fprintf(stderr, "memory: at most %" PRIu64 " MiB (%s)\n", mebibytes(bytes), how);
    if (!the_server->on_loopback && !config.auth_secret)
        fprintf(stderr,
                "warning: without --auth-secret whoever can reach %s may send to every user and "
                "read every stream\n",
                config.bind_address);
    raise_descriptor_limit(&config);

    /* 4. Signals, from which sse_run() returns, and the ready line */
    sigaction(SIGTERM, &handle, NULL);
    sigaction(SIGINT, &handle, NULL);
    if (config.cert_file || sigaction(SIGHUP, NULL, &before) != 0 || before.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &handle, NULL); /* else nohup has started the program */
    sigaction(SIGPIPE, &ignore, NULL);    /* a log that nobody reads must not end the program */
    /* The ready line: whoever reads it may connect. An IPv6 address stands in brackets in a URL. */
    bool v6 = strchr(config.bind_address, ':') != NULL;
    printf("listening on %s://%s%s%s:%u\n", config.cert_file ? "https" : "http", v6 ? "[" : "",
           config.bind_address, v6 ? "]" : "", sse_port(the_server));
    flush_stdout();

    /* 5. Until it is told to stop. Threads that have not returned end with the process. */
    code = sse_run(the_server);
    if (code != SSE_OK)
        die(1, "stopped: %s", strerror(errno));
    return 0;
}

#endif /* SSE_NO_MAIN */
#endif /* SSE_API_ONLY */
