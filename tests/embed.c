/* embed - a program with sse built in: read it to learn how to embed, run it to see that it works.
 *
 *     make build/embed && build/embed
 *
 * Two servers live in one process here, each on a free port of its own. Threads of the program push
 * to them, two routes of the program's own answer beside the usual ones, and a small client looks
 * at what really arrives. All of it is stopped and started again a few times, and must leave
 * nothing behind: descriptors are counted where there is /proc, memory is for a build with
 * -fsanitize=address (or thread; both need -DSSE_STACK_BYTES=262144) to judge.
 *
 * Prints `embed: ok` and exits 0, or says what went wrong and exits 1. */

#define SSE_NO_MAIN
#include "../sse.c" /* before any system header, since it says which POSIX it wants of them */

#include <dirent.h>

enum { ROUNDS = 5, PUSHERS = 4, PUSHES = 100, PATIENCE_S = 30 };

static void expect(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "embed: %s\n", what);
    exit(1);
}

/* ---- The host: what an embedding program writes ------------------------------------------------ */

struct host {
    const char *name;
    struct sse_server *server;
    pthread_t runner;
    atomic_uint logged; /* lines; the log is called from many threads */
};

/* GET /hello/{userId}?greeting=TEXT. What the client sent is written as a JSON string, never
 * printed: it may contain quotes. Runs on a connection's thread, whose stack is small. */
static int answer_hello(struct sse_exchange *exchange, void *arg)
{
    const struct host *host = arg;
    const char *user = sse_user(exchange);
    char greeting[32];
    int len = sse_query(exchange, "greeting", greeting, sizeof greeting);

    if (len < 0)
        return sse_fail(exchange, 400, "a greeting has at most %zu bytes", sizeof greeting - 1);
    if (len == 0)
        return sse_fail(exchange, 400, "what is the greeting?");
    sse_print(exchange, "{\"server\":\"%s\",\"to\":", host->name);
    sse_write_json_string(exchange, user, strlen(user));
    sse_print(exchange, ",\"greeting\":");
    sse_write_json_string(exchange, greeting, (size_t)len);
    sse_print(exchange, "}\n");
    return 200;
}

/* GET /old: it has moved. */
static int answer_old(struct sse_exchange *exchange, void *arg)
{
    (void)arg;
    expect(sse_field(exchange, "Location", "/hello/you?greeting=hi") == SSE_OK, "a field of ours");
    return 303;
}

/* POST /length: how long was the body? */
static int answer_length(struct sse_exchange *exchange, void *arg)
{
    size_t len;
    (void)arg;

    sse_body(exchange, &len);
    sse_print(exchange, "{\"bytes\":%zu}\n", len);
    return 200;
}

static void count_line(void *arg, const char *line)
{
    struct host *host = arg;
    (void)line;
    atomic_fetch_add(&host->logged, 1);
}

/* sse_run() keeps its thread until sse_stop(), so a server gets one. */
static void *run(void *arg)
{
    struct host *host = arg;
    expect(sse_run(host->server) == SSE_OK, "sse_run() failed");
    return NULL;
}

static void host_start(struct host *host, const char *name)
{
    struct sse_config config;

    *host = (struct host){.name = name};
    sse_config_init(&config); /* always first: then change what should differ */
    config.port = 0;          /* a free one; sse_port() tells which */
    config.max_users = 16;
    config.max_connections = 16;
    config.history = PUSHERS * PUSHES + 1;
    config.demo = false;
    config.log = count_line;
    config.log_arg = host;
    expect(sse_create(&host->server, &config) == SSE_OK, "sse_create() failed");
    expect(sse_route(host->server, "GET", "/hello/{userId}", SSE_SUBJECT, "greets", answer_hello,
                     host) == SSE_OK &&
               sse_route(host->server, "POST", "/length", SSE_PUBLISHER, "measures", answer_length,
                         host) == SSE_OK &&
               sse_route(host->server, "GET", "/old", SSE_ANYONE, "has moved", answer_old, NULL) ==
                   SSE_OK,
           "sse_route() failed");
    expect(pthread_create(&host->runner, NULL, run, host) == 0, "no thread for sse_run()");
}

/* Stop, wait until sse_run() has returned, destroy: in this order. */
static void host_stop(struct host *host)
{
    sse_stop(host->server);
    expect(pthread_join(host->runner, NULL) == 0, "pthread_join() failed");
    sse_destroy(host->server);
}

/* A thread that pushes to alice whenever it likes; here, as fast as it can. */
struct pusher {
    struct host *host;
    int number;
    pthread_t thread;
};

static void *push(void *arg)
{
    struct pusher *pusher = arg;
    struct sse_receipt receipt;
    char text[64];

    for (int i = 0; i < PUSHES; i++) {
        int len = snprintf(text, sizeof text, "%s %d %d", pusher->host->name, pusher->number, i);
        int code = sse_send(pusher->host->server, "alice", "push", text, (size_t)len, &receipt);
        expect(code == SSE_OK, "sse_send() failed");
        expect(receipt.streams == 1, "a receipt should tell of one stream");
    }
    return NULL;
}

/* ---- The client: what the test needs to see for itself ----------------------------------------- */

struct client {
    int fd;
    size_t len;
    char seen[65536]; /* all that came, NUL-terminated */
};

static void client_open(struct client *client, const struct host *host, const char *request)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)sse_port(host->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    size_t len = strlen(request);

    client->len = 0;
    client->seen[0] = 0;
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    expect(setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
               connect(client->fd, (struct sockaddr *)(void *)&to, sizeof to) == 0 &&
               send(client->fd, request, len, MSG_NOSIGNAL) == (ssize_t)len,
           "the client cannot connect and ask");
}

/* Reads until `text` has come, or with NULL until the server closes; then closes as well. */
static void client_read(struct client *client, const char *text)
{
    while (!text || !strstr(client->seen, text)) {
        size_t room = sizeof client->seen - 1 - client->len;
        ssize_t n = recv(client->fd, client->seen + client->len, room, 0);
        expect(n >= 0 && room > 0, text ? text : "the server does not close");
        if (n == 0)
            break;
        client->len += (size_t)n;
        client->seen[client->len] = 0;
    }
    expect(!text || strstr(client->seen, text), text);
    if (!text)
        close(client->fd);
}

/* Asks on a connection of its own; the answer must contain `text`. */
static void client_check(const struct host *host, const char *request, const char *text)
{
    static struct client client;
    client_open(&client, host, request);
    client_read(&client, NULL);
    expect(strstr(client.seen, text), text);
}

/* Every push of this server, each pusher's in their order, and none twice or of anyone else. */
static void check_stream(const struct client *client, const struct host *host)
{
    char text[96];
    int events = 0;

    for (const char *at = client->seen; (at = strstr(at, "event: push\n")); at++)
        events++;
    expect(events == PUSHERS * PUSHES, "the stream has another number of messages");
    for (int number = 0; number < PUSHERS; number++) {
        const char *at = client->seen;
        for (int i = 0; i < PUSHES; i++) {
            snprintf(text, sizeof text, "\nevent: push\ndata: %s %d %d\n\n", host->name, number, i);
            at = strstr(at, text);
            expect(at, "a pushed message is missing, or out of order");
        }
    }
}

/* ---- The test ---------------------------------------------------------------------------------- */

/* Open descriptors of this process, or 0 where nobody tells. */
static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

/* Starts both servers, pushes to a stream of each from several threads at once, and stops. */
static void try_all(void)
{
    static const char *const names[2] = {"red", "blue"};
    static struct client streams[2];
    struct host hosts[2];
    struct pusher pushers[2 * PUSHERS];
    struct sse_receipt receipt;
    struct sse_user_status status;

    for (int h = 0; h < 2; h++) {
        host_start(&hosts[h], names[h]);
        client_open(&streams[h], &hosts[h],
                    "GET /sse/connect/alice HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client_read(&streams[h], "User 'alice' connected");
    }
    expect(sse_port(hosts[0].server) != sse_port(hosts[1].server), "both have one port");

    for (int p = 0; p < 2 * PUSHERS; p++) {
        pushers[p] = (struct pusher){.host = &hosts[p % 2], .number = p / 2};
        expect(pthread_create(&pushers[p].thread, NULL, push, &pushers[p]) == 0, "no thread");
    }
    for (int p = 0; p < 2 * PUSHERS; p++)
        expect(pthread_join(pushers[p].thread, NULL) == 0, "pthread_join() failed");

    for (int h = 0; h < 2; h++) {
        expect(sse_broadcast(hosts[h].server, NULL, "the end", 7, &receipt) == SSE_OK &&
                   receipt.users == 1 && receipt.streams == 1,
               "sse_broadcast() failed");
        client_read(&streams[h], "data: the end\n\n"); /* so everything before it has come too */
        check_stream(&streams[h], &hosts[h]);
        expect(sse_status(hosts[h].server, "alice", &status) == SSE_OK && status.connected,
               "alice should be Connected");
        client_check(&hosts[h],
                     "GET /hello/J%C3%BCrgen%22?greeting=Gr%C3%BC%C3%9F+Gott HTTP/1.1\r\n"
                     "Host: localhost\r\nConnection: close\r\n\r\n",
                     "\"to\":\"Jürgen\\\"\",\"greeting\":\"Grüß Gott\"}\n");
        client_check(&hosts[h],
                     "GET /hello/bob HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                     "what is the greeting?");
        client_check(&hosts[h],
                     "POST /length HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Length: 5\r\n\r\nhello",
                     "{\"bytes\":5}\n");
        client_check(&hosts[h], "GET /old HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                     "\r\nLocation: /hello/you?greeting=hi\r\n");
    }
    for (int h = 0; h < 2; h++) { /* the streams are still open: they are told, and end */
        sse_stop(hosts[h].server);
        client_read(&streams[h], NULL);
        host_stop(&hosts[h]); /* stopping twice does no harm */
        expect(atomic_load(&hosts[h].logged) == 5, "each of five requests should be logged");
    }
}

int main(void)
{
    int before = descriptors();

    for (int i = 0; i < ROUNDS; i++) {
        try_all();
        expect(descriptors() == before, "descriptors were left open");
    }
    puts("embed: ok");
    return 0;
}
