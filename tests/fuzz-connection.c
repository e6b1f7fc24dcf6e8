/* fuzz-connection - libFuzzer driver for the whole of a connection, over a socket pair.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -DSSE_TLS -DSSE_STACK_BYTES=262144 -pthread \
 *         -o build/fuzz-connection tests/fuzz-connection.c -lssl -lcrypto &&
 *         mkdir -p build/corpus-connection && build/fuzz-connection -max_total_time=60 -max_len=8192 \
 *         build/corpus-connection tests/corpus/connection
 *
 * The first byte of an input chooses the server: open with listed origins (a), with tokens (b), or,
 * where SSE_TLS is defined, HTTPS (c). What follows is sent to it by a client with a thread of its own,
 * in pieces that end at each byte of 255; in "@@" the client puts a token that is valid. What comes
 * back must be answers as HTTP has them, one after the other; without a token there must be nothing of
 * what takes one; and afterwards nothing may be left:
 * no stream, no connection, no pin, no body, no buffer. */

#define SSE_NO_MAIN
#include "../sse.c"

#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { OUTPUT_MAX = 1 << 20, SERVERS = 3 };

static struct sse_server *servers[SERVERS];

#ifdef SSE_TLS
static const char SECRET[] = "0123456789abcdef0123456789abcdef";
/* {"alg":"HS256"} {"sub":"a","exp":99999999999,"scope":"sse:publish"}, signed */
static char TOKEN[256];

static void make_token(void)
{
    unsigned char mac[32];
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    int n = snprintf(TOKEN, sizeof TOKEN,
                     "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5"
                     "OTk5OSwic2NvcGUiOiJzc2U6cHVibGlzaCJ9");
    require(hmac_sha256(slice_of(SECRET), (struct slice){TOKEN, (size_t)n}, mac));
    TOKEN[n++] = '.';
    unsigned bits = 0;
    int left = 0;
    for (int i = 0; i < 32; i++) {
        bits = bits << 8 | mac[i];
        for (left += 8; left >= 6; left -= 6)
            TOKEN[n++] = digits[bits >> (left - 6) & 63];
    }
    TOKEN[n++] = digits[bits << (6 - left) & 63];
}
#else
static const char TOKEN[] = "none";
#endif

/* A line of the log is one line of printable ASCII, however the request was. */
static void check_line(void *arg, const char *line)
{
    (void)arg;
    for (; *line; line++)
        require(*line >= ' ' && *line < 0x7F);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const listed[] = {"https://app.example"};
    (void)argc, (void)argv;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < SERVERS; i++) {
        struct sse_config config;
        sse_config_init(&config);
        config.port = 0;
        config.demo = false;
        config.log = check_line;
        config.max_users = 3;
        config.max_streams = 2;
        config.history = 4;
        config.history_bytes = 300;
        config.max_message = 400;
        config.max_connections = 4;
        config.cors = listed;
        config.cors_count = 1;
#ifdef SSE_TLS
        if (i == 1) {
            config.auth_secret = SECRET;
            config.auth_secret_len = sizeof SECRET - 1;
            make_token();
        }
        if (i == 2) {
            char dir[] = "/tmp/sse-fuzz-XXXXXX", cert[64], key[64], command[512];
            require(mkdtemp(dir) != NULL);
            snprintf(cert, sizeof cert, "%s/cert.pem", dir);
            snprintf(key, sizeof key, "%s/key.pem", dir);
            snprintf(command, sizeof command,
                     "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 "
                     "-subj /CN=localhost -out %s -keyout %s 2>/dev/null",
                     cert, key);
            require(system(command) == 0); /* NOLINT(cert-env33-c) its words are ours */
            config.cert_file = cert;
            config.key_file = key;
            require(sse_create(&servers[i], &config) == SSE_OK);
            unlink(cert);
            unlink(key);
            rmdir(dir);
            servers[i]->config.cert_file = servers[i]->config.key_file =
                ""; /* only asked whether */
            continue;
        }
#endif
        require(sse_create(&servers[i], &config) == SSE_OK);
    }
    return 0;
}

struct client {
    int fd;
    struct sse_server *server;
    const char *at;
    size_t len;
    size_t got;
    char *output;
};

static bool client_read(struct client *c, int wait_ms)
{
    struct pollfd on = {.fd = c->fd, .events = POLLIN};
    while (poll(&on, 1, wait_ms) > 0) {
        ssize_t n = recv(c->fd, c->output + c->got, OUTPUT_MAX - c->got, MSG_DONTWAIT);
        if (n <= 0)
            return false;
        c->got += (size_t)n;
        require(c->got < OUTPUT_MAX);
    }
    return true;
}

static void client_write(struct client *c, const char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = send(c->fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno != EAGAIN || !client_read(c, 1)))
            return;
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

/* Sends the pieces, then reads to the end. */
static void *client_run(void *arg)
{
    struct client *c = arg;
    struct slice rest = {c->at, c->len};
    bool open = true;

    while (rest.at && open) {
        struct slice piece = slice_cut(&rest, (char)255);
        while (piece.at) {
            const char *mark = NULL;
            for (size_t i = 0; i + 1 < piece.len && !mark; i++)
                if (piece.at[i] == '@' && piece.at[i + 1] == '@')
                    mark = piece.at + i;
            client_write(c, piece.at, mark ? (size_t)(mark - piece.at) : piece.len);
            if (!mark)
                break;
            client_write(c, TOKEN, strlen(TOKEN));
            piece = (struct slice){mark + 2, piece.len - (size_t)(mark + 2 - piece.at)};
        }
        open = client_read(c, 0);
    }
    shutdown(c->fd, SHUT_WR);
    while (open && client_read(c, 1000))
        ;
    close(c->fd);
    return NULL;
}

/* One answer off the front of what came. False at the end, or where a body is as long as the rest. */
static bool take_answer(struct slice *s, bool may_be_cut)
{
    struct http_request ignored;
    struct slice line;
    size_t at = 0;
    uint64_t length = 0;
    bool bare = false, to_end = true, chunked = false;

    if (s->len == 0)
        return false;
    for (int i = 0;; i++) {
        size_t used;
        int status = http_line(s->at + at, s->len - at, &ignored, &line, &used);
        if (status == 0 && used == 0 && may_be_cut)
            return false;
        require(status == 0 && used > 0);
        at += used;
        if (i == 0) {
            require(line.len > 12 && memcmp(line.at, "HTTP/1.1 ", 9) == 0);
            bare = memcmp(line.at + 9, "204", 3) == 0 || memcmp(line.at + 9, "100", 3) == 0;
            continue;
        }
        if (line.len == 0)
            break;
        require(memchr(line.at, ':', line.len) != NULL);
        struct slice value = line, name = slice_cut(&value, ':');
        if (slice_is(name, "Content-Length")) {
            require(text_number(slice_trim(value), OUTPUT_MAX, &length));
            to_end = false;
        }
        chunked |= slice_is(name, "Transfer-Encoding");
    }
    *s = (struct slice){s->at + at, s->len - at};
    if (bare)
        return true;
    if (chunked || to_end) /* one is a stream, the other a list of users: the last we look at */
        return false;
    if (s->len > 4 && memcmp(s->at, "HTTP", 4) == 0)
        return true; /* an answer to HEAD */
    if (s->len == 0)
        return false;
    require(length <= s->len || may_be_cut);
    if (length > s->len)
        return false;
    *s = (struct slice){s->at + length, s->len - length};
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char output[OUTPUT_MAX + 1];
    int fd[2];
    pthread_t thread;

    if (size == 0)
        return -1;
    struct sse_server *server = servers[(data[0] + 2U) % SERVERS]; /* 'a' is the first */
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    struct client client = {.fd = fd[1],
                            .server = server,
                            .at = (const char *)data + 1,
                            .len = size - 1,
                            .output = output};
    struct conn *c = loop_claim(server, fd[0]);
    require(c && pthread_create(&thread, NULL, client_run, &client) == 0);
    pthread_mutex_lock(&server->conns_lock);
    struct worker *w = worker_new_locked(server);
    worker_take_locked(w, c);
    pthread_mutex_unlock(&server->conns_lock);
    worker_serve(w);
    pthread_mutex_lock(&server->conns_lock);
    worker_release_locked(w);
    pthread_mutex_unlock(&server->conns_lock);
    struct loop loop = {.paused_until_ms = 0};
    while (atomic_load(&server->conns_open) > 0) /* a stream, or a connection that lingers */
        require(loop_turn(server, &loop));
    pthread_join(thread, NULL);

    /* Of an answer only the start may have come, where the client had gone. */
    struct slice answers = {output, client.got};
    while (!server->tls && take_answer(&answers, true))
        ;
    output[client.got] = 0;
    bool token_sent = false;
    for (size_t i = 1; i + 1 < size; i++)
        token_sent |= data[i] == '@' && data[i + 1] == '@';
    if (server == servers[1] && server->config.auth_secret && !token_sent)
        for (const char *what = output; what && what < output + client.got;) {
            require(strncmp(what, "HTTP/1.1 202", 12) != 0 && strncmp(what, "event: ", 7) != 0 &&
                    strncmp(what, "data: ", 6) != 0 && strncmp(what, "{\"users\":[", 10) != 0 &&
                    strncmp(what, "{\"user\":", 8) != 0);
            what = memchr(what, '\n', client.got - (size_t)(what - output));
            what = what ? what + 1 : NULL;
        }
    require(atomic_load(&server->tasks) == 0 && atomic_load(&server->stream_count) == 0);
    uint32_t free_bodies = 0;
    for (uint32_t slot = server->bodies.free; slot; slot = server->bodies.next[slot - 1])
        free_bodies++;
    require(free_bodies == server->bodies.count);
    for (uint32_t i = 0; i < server->users_made; i++)
        require(atomic_load(&server->users[i].pins) == 0 && !server->users[i].streams &&
                !server->users[i].closing && !atomic_load(&server->users[i].pending));
    return 0;
}
