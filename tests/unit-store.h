/* unit-store - unit tests of what the server keeps: the user table, the log, streams and the
 * receipts of messages, and of how a server is made and ended. Part of unit.c, which includes sse.c,
 * defines check() and runs STORE_TESTS.
 *
 * Table, log and streams are run against plain models by reproducible random steps; after every
 * step what the model says is compared with what the server holds, invariants included. Streams
 * write to socket pairs, so that every byte that a client would get is looked at. */

#include <sys/ioctl.h>

/* ==== Helpers ===================================================================================
 */

static uint64_t store_seed;

/* Reproducible: splitmix64. */
static uint64_t store_draw(void)
{
    uint64_t z = store_seed += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint32_t store_below(uint32_t limit)
{
    return (uint32_t)(store_draw() % limit);
}

static struct sse_config store_config(unsigned users, unsigned history, unsigned history_bytes)
{
    struct sse_config config;
    sse_config_init(&config);
    config.port = 0;
    config.max_users = users;
    config.max_connections = 8;
    config.history = history;
    config.history_bytes = history_bytes;
    return config;
}

static struct sse_server *store_server(const struct sse_config *config)
{
    struct sse_server *server;
    int code = sse_create(&server, config);
    if (code != SSE_OK) {
        fprintf(stderr, "sse_create: %d, errno %d\n", code, errno);
        abort(); /* nothing can be tested */
    }
    return server;
}

static int store_send(struct sse_server *server, const char *user, const char *data,
                      struct sse_receipt *receipt)
{
    return sse_send(server, user, NULL, data, strlen(data), receipt);
}

/* A buffer that grows, for what is expected. */
struct heap {
    char *at;
    size_t len, cap;
};

static void heap_put(struct heap *h, const char *bytes, size_t len)
{
    if (h->cap - h->len < len) {
        h->cap = h->cap * 2 + len;
        h->at = realloc(h->at, h->cap);
        if (!h->at)
            abort();
    }
    if (len)
        memcpy(h->at + h->len, bytes, len);
    h->len += len;
}

static void heap_string(struct heap *h, const char *string)
{
    heap_put(h, string, strlen(string));
}

static void heap_free(struct heap *h)
{
    free(h->at);
    *h = (struct heap){NULL, 0, 0};
}

/* A frame as the README describes it, made byte by byte rather than line by line. */
static void heap_frame(struct heap *h, uint64_t epoch, uint64_t seq, struct slice event,
                       struct slice body)
{
    char line[64];
    snprintf(line, sizeof line, "id: %" PRIx64 "-%" PRIu64 "\n", epoch, seq);
    heap_string(h, line);
    if (event.len) {
        heap_string(h, "event: ");
        heap_put(h, event.at, event.len);
        heap_string(h, "\n");
    }
    heap_string(h, "data: ");
    for (size_t i = 0; i < body.len; i++) {
        if (body.at[i] == '\n' && i > 0 && body.at[i - 1] == '\r')
            continue;
        if (body.at[i] == '\n' || body.at[i] == '\r')
            heap_string(h, "\ndata: ");
        else
            heap_put(h, body.at + i, 1);
    }
    heap_string(h, "\n\n");
}

/* A body with line ends of every kind in it. */
static struct slice store_body(char *at, size_t len)
{
    static const char bytes[] = "abc\n\r\r\n:d ";
    for (size_t i = 0; i < len; i++)
        at[i] = bytes[store_below(sizeof bytes - 1)];
    return (struct slice){at, len};
}

/* ==== Hash ======================================================================================
 */

static void test_sip_hash_known_answers(void)
{
    /* hash(b'...') of CPython 3.11 with PYTHONHASHSEED=0: SipHash-1-3 with a key of zeros */
    static const struct {
        const char *bytes;
        uint64_t hash;
    } known[] = {
        {"a", 0x407448d2b89b1813u},
        {"abc", 0xc03bc3a0042630f2u},
        {"1234567", 0xa33d651594fdae81u},
        {"12345678", 0x3489982430560a87u},
        {"123456789", 0x0fbc0f0007965fcfu},
        {"the quick brown fox jumps over the lazy dog", 0x80a65583f613da2du},
    };
    static const uint64_t zero[2] = {0, 0};
    char bytes[64];

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        check(sip_hash(zero, known[i].bytes, strlen(known[i].bytes)) == known[i].hash);
    for (int i = 0; i < 64; i++)
        bytes[i] = (char)i;
    check(sip_hash(zero, bytes, 64) == 0x75e05fd5bbc870c6u);
    for (int i = 0; i < 63; i++)
        bytes[i] = (char)(255 - i);
    check(sip_hash(zero, bytes, 63) == 0x6ccf53c0c91c31a5u);
}

static void test_sip_hash_depends_on_everything(void)
{
    static const uint64_t keys[3][2] = {{1, 2}, {1, 3}, {2, 2}};
    uint64_t seen[65];

    for (size_t len = 0; len <= 64; len++) {
        char *bytes = malloc(len + 1); /* its own block, so that a sanitizer sees reads past it */
        char *exact = malloc(len ? len : 1);
        if (!bytes || !exact)
            abort();
        memset(exact, 'x', len ? len : 1);
        memset(bytes + 1, 'x', len);
        seen[len] = sip_hash(keys[0], exact, len);
        check(seen[len] == sip_hash(keys[0], bytes + 1, len)); /* wherever it stands */
        check(seen[len] != sip_hash(keys[1], exact, len));
        check(seen[len] != sip_hash(keys[2], exact, len));
        for (size_t i = 0; i < len; i++) {
            check(seen[i] != seen[len]);
            exact[i] = (char)(exact[i] ^ 0x80);
            check(seen[len] != sip_hash(keys[0], exact, len));
            exact[i] = 'x';
        }
        free(bytes);
        free(exact);
    }
}

/* ==== Users =====================================================================================
 */

/* Every user in the index exactly once, and reachable from its home cell. */
static bool table_is_sound(struct sse_server *server, uint32_t expected_users)
{
    uint32_t mask = server->index_mask, found = 0;
    bool sound = true;
    char *seen = calloc(server->config.max_users, 1);

    if (!seen)
        abort();
    for (uint32_t cell = 0; cell <= mask; cell++) {
        uint32_t slot = server->index[cell];
        if (!slot)
            continue;
        if (slot > server->users_made || seen[slot - 1]++) {
            sound = false;
            break;
        }
        const struct user *user = &server->users[slot - 1];
        sound = sound && user->hash == sip_hash(server->hash_key, user->name, user->name_len);
        sound = sound && strlen(user->name) == user->name_len;
        for (uint32_t at = (uint32_t)user->hash & mask; at != cell; at = (at + 1) & mask)
            sound = sound && server->index[at];
        found++;
    }
    free(seen);
    return sound && found == expected_users;
}

/* The away list leads both ways, and has this many users, all of them without streams; all others
 * are in a list of the heartbeat. */
static bool away_is_sound(struct sse_server *server, uint32_t expected)
{
    uint32_t count = 0, connected = 0;
    const struct user *before = NULL;
    for (const struct user *u = server->away.first; u; before = u, u = u->list_next)
        if (count++ == expected || u->list_prev != before || u->list != &server->away ||
            u->stream_count)
            return false;
    for (int i = 0; i < HEARTBEAT_LISTS; i++)
        for (const struct user *u = server->heartbeat[i].first; u; u = u->list_next, connected++)
            if (u->list != &server->heartbeat[i] || !u->stream_count)
                return false;
    return count == expected && server->away.last == before && connected == server->connected;
}

static void user_connect(struct sse_server *server, struct user *user, struct conn *c)
{
    memset(c, 0, sizeof *c);
    c->server = server;
    c->user = user;
    pthread_mutex_lock(&user->lock);
    stream_enter_locked(c, CONN_OPEN);
    user_unlock(server, user);
}

static void user_disconnect(struct sse_server *server, struct conn *c)
{
    pthread_mutex_lock(&c->user->lock);
    if (stream_is_alive(c))
        stream_enter_locked(c, CONN_LOST);
    user_unlock(server, c->user);
}

static bool user_known(struct sse_server *server, const char *name)
{
    struct user *user = user_find(server, slice_of(name));
    if (user)
        user_unpin(user);
    return user != NULL;
}

static void test_table_fill_and_evict(void)
{
    struct sse_config config = store_config(4, 4, 1000);
    struct sse_server *server = store_server(&config);
    static const char *const names[] = {"a", "b", "c", "d"};
    struct user *users[4], *user;
    struct conn streams[4];

    check(!user_find(server, slice_of("a")));
    check(table_is_sound(server, 0));
    for (int i = 0; i < 4; i++) {
        users[i] = user_find_or_add(server, slice_of(names[i]));
        check(users[i] && atomic_load(&users[i]->pins) == 1);
        check(users[i] && strcmp(users[i]->name, names[i]) == 0);
        check(table_is_sound(server, (uint32_t)i + 1) && away_is_sound(server, (uint32_t)i + 1));
    }
    check(user_find(server, slice_of("c")) == users[2]);
    check(atomic_load(&users[2]->pins) == 2);
    user_unpin(users[2]);
    check(!user_find(server, slice_of("C"))); /* ids are opaque: case counts */

    /* all pinned: nobody makes room, and nothing changes */
    check(!user_find_or_add(server, slice_of("e")));
    check(table_is_sound(server, 4) && away_is_sound(server, 4));

    /* b and d go, in that order; a comes and leaves last */
    for (int i = 0; i < 4; i++)
        user_unpin(users[i]);
    user_connect(server, users[0], &streams[0]);
    user_connect(server, users[2], &streams[2]);
    check(away_is_sound(server, 2));
    user_disconnect(server, &streams[0]); /* away: b d a; c is Connected */
    check(away_is_sound(server, 3));
    uint64_t epoch = users[1]->epoch;
    user = user_find_or_add(server, slice_of("e"));
    check(user == users[1] && user->epoch != epoch && strcmp(user->name, "e") == 0);
    check(!user_known(server, "b") && user_known(server, "d") && user_known(server, "e"));
    user = user_find_or_add(server, slice_of("f")); /* e stays pinned */
    check(user == users[3] && !user_known(server, "d"));
    user_unpin(user);

    /* away: a e(pinned) f; the pin is skipped, not waited for */
    user = user_find_or_add(server, slice_of("g"));
    check(user == users[0]);
    user_unpin(user);
    user = user_find_or_add(server, slice_of("h"));
    check(user == users[3] && user_known(server, "e") && user_known(server, "g"));
    check(!user_known(server, "f"));
    user_unpin(user);

    /* all Connected: nobody makes room, whether pinned or not */
    user_unpin(users[1]);
    for (int i = 0; i < 4; i++)
        if (i != 2)
            user_connect(server, users[i], &streams[i]);
    check(away_is_sound(server, 0));
    check(!user_find_or_add(server, slice_of("i")));
    check(sse_send(server, "i", NULL, "x", 1, NULL) == SSE_EFULL);
    check(store_send(server, "e", "x", NULL) == SSE_OK);
    check(table_is_sound(server, 4));
    for (int i = 0; i < 4; i++)
        user_disconnect(server, &streams[i]);
    check(away_is_sound(server, 4) && atomic_load(&server->stream_count) == 0);
    sse_destroy(server);
}

/* What the table should hold, kept the simple way. */
enum { MODEL_NAMES = 200 };

struct table_model {
    struct {
        char name[16];
        struct user *user; /* NULL while not in the table */
        uint64_t epoch;
        unsigned pins;
        bool connected;
        struct conn stream;
    } of[MODEL_NAMES];
    int away[MODEL_NAMES]; /* who left longest ago first */
    int away_count, count;
};

static void model_away_remove(struct table_model *m, int at)
{
    m->away_count--;
    memmove(m->away + at, m->away + at + 1, (size_t)(m->away_count - at) * sizeof *m->away);
}

/* Whether there is room for a new user; whoever has to makes it. */
static bool model_make_room(struct table_model *m, int slots)
{
    if (m->count < slots) {
        m->count++;
        return true;
    }
    for (int i = 0; i < m->away_count; i++) {
        int who = m->away[i];
        if (m->of[who].pins)
            continue;
        m->of[who].user = NULL;
        model_away_remove(m, i);
        return true;
    }
    return false;
}

static void model_find_or_add(struct sse_server *server, struct table_model *m, int who)
{
    struct user *user = user_find_or_add(server, slice_of(m->of[who].name));

    if (m->of[who].user) {
        check(user == m->of[who].user && user->epoch == m->of[who].epoch);
    } else if (model_make_room(m, (int)server->config.max_users)) {
        check(user != NULL);
        if (!user)
            abort();
        check(user->log.first == 1 && user->log.next == 1 && user->max_delivered_seq == 0);
        m->of[who].user = user;
        m->of[who].epoch = user->epoch;
        m->away[m->away_count++] = who;
    } else {
        check(user == NULL);
    }
    if (!user)
        return;
    check(strcmp(user->name, m->of[who].name) == 0);
    if (store_below(20) == 0)
        m->of[who].pins++; /* keeps it for a while */
    else
        user_unpin(user);
}

static void model_find(struct sse_server *server, const struct table_model *m, int who)
{
    struct user *user = user_find(server, slice_of(m->of[who].name));
    check(user == m->of[who].user);
    if (user) {
        check(user->epoch == m->of[who].epoch);
        user_unpin(user);
    }
}

static void model_toggle(struct sse_server *server, struct table_model *m, int who)
{
    if (!m->of[who].user)
        return;
    if (m->of[who].connected) {
        user_disconnect(server, &m->of[who].stream);
        m->away[m->away_count++] = who;
    } else {
        int at = 0;
        user_connect(server, m->of[who].user, &m->of[who].stream);
        while (m->away[at] != who)
            at++;
        model_away_remove(m, at);
    }
    m->of[who].connected = !m->of[who].connected;
}

static bool model_agrees(struct sse_server *server, const struct table_model *m)
{
    int at = 0;
    if (!table_is_sound(server, (uint32_t)m->count) ||
        !away_is_sound(server, (uint32_t)m->away_count) || server->users_made != (uint32_t)m->count)
        return false;
    for (const struct user *u = server->away.first; u; u = u->list_next)
        if (u != m->of[m->away[at++]].user)
            return false;
    return true;
}

/* With `spread` cells that names may call home, the last and first of the table: the fewer, the
 * longer the runs. */
static void table_against_model(unsigned slots, uint32_t spread, int steps)
{
    struct sse_config config = store_config(slots, 1, 64);
    struct sse_server *server = store_server(&config);
    struct table_model *m = calloc(1, sizeof *m);
    bool agrees = true;
    unsigned candidate = 0;

    if (!m)
        abort();
    server->hash_key[0] = 0x0706050403020100u;
    server->hash_key[1] = 0x0f0e0d0c0b0a0908u;
    for (int i = 0; i < MODEL_NAMES; i++) {
        uint32_t home;
        do {
            int n = snprintf(m->of[i].name, sizeof m->of[i].name, "u%u", candidate++);
            home = (uint32_t)sip_hash(server->hash_key, m->of[i].name, (size_t)n);
        } while (((home + spread / 2) & server->index_mask) >= spread);
    }
    for (int step = 0; step < steps && agrees; step++) {
        int who = (int)store_below(MODEL_NAMES);
        uint32_t what = store_below(10);
        if (what < 5) {
            model_find_or_add(server, m, who);
        } else if (what < 7) {
            model_find(server, m, who);
        } else if (what < 9 && (m->of[who].connected || m->away_count > (int)slots / 4 ||
                                store_below(20) == 0)) {
            model_toggle(server, m, who);
        } else if (m->of[who].pins) {
            m->of[who].pins--;
            user_unpin(m->of[who].user);
        }
        agrees = model_agrees(server, m);
        check(agrees);
    }
    for (int i = 0; i < MODEL_NAMES; i++)
        if (m->of[i].connected)
            user_disconnect(server, &m->of[i].stream);
    check(atomic_load(&server->stream_count) == 0);
    free(m);
    sse_destroy(server);
}

static void test_table_against_model(void)
{
    store_seed = 1;
    table_against_model(64, 128, 4000);
    table_against_model(64, 16, 2000);
    table_against_model(64, 4, 1000);
    table_against_model(64, 1, 1000);
    table_against_model(8, 16, 2000);
    table_against_model(5, 2, 1000);
    table_against_model(3, 8, 1000);
    table_against_model(1, 2, 500);
}

/* ==== Log =======================================================================================
 */

static struct log log_new(uint32_t max_count, uint32_t max_bytes)
{
    struct log log = {.max_count = max_count, .max_bytes = max_bytes};
    log.ring = malloc(max_bytes);
    log.starts = malloc(max_count * sizeof *log.starts);
    log.times_us = malloc(max_count * sizeof *log.times_us);
    if (!log.ring || !log.starts || !log.times_us)
        abort();
    log_reset(&log);
    return log;
}

static void log_delete(struct log *log)
{
    free(log->ring);
    free(log->starts);
    free(log->times_us);
}

/* Does the ring hold exactly this? */
static bool log_holds(const struct log *log, const char *bytes, size_t len)
{
    if (log->head - log->tail != len || len > log->cap || log->cap > log->max_bytes)
        return false;
    if (len == 0)
        return true;
    size_t before_end = log->cap - log->first_at;
    if (before_end > len)
        before_end = len;
    return log->first_at < log->cap && !memcmp(log->ring + log->first_at, bytes, before_end) &&
           !memcmp(log->ring, bytes + before_end, len - before_end);
}

/* The newest frames, oldest first. */
struct log_model {
    struct heap frames;
    size_t lens[64];
    uint32_t count;
    uint64_t next;
};

static void log_model_drop(struct log_model *m)
{
    m->frames.len -= m->lens[0];
    memmove(m->frames.at, m->frames.at + m->lens[0], m->frames.len);
    m->count--;
    memmove(m->lens, m->lens + 1, m->count * sizeof *m->lens);
}

static bool log_model_append(struct log_model *m, const struct log *log, uint64_t epoch,
                             struct slice event, struct slice body)
{
    struct heap frame = {NULL, 0, 0};

    heap_frame(&frame, epoch, m->next, event, body);
    bool fits = frame.len <= log->max_bytes;
    if (fits) {
        while (m->count == log->max_count || m->frames.len + frame.len > log->max_bytes)
            log_model_drop(m);
        heap_put(&m->frames, frame.at, frame.len);
        m->lens[m->count++] = frame.len;
        m->next++;
    }
    heap_free(&frame);
    return fits;
}

static bool log_model_agrees(const struct log_model *m, const struct log *log)
{
    uint32_t at = log->tail;

    if (log->next != m->next || log->first != m->next - m->count ||
        !log_holds(log, m->frames.at, m->frames.len))
        return false;
    for (uint32_t i = 0; i < m->count; i++) {
        if (log_start(log, log->first + i) != at)
            return false;
        at += (uint32_t)m->lens[i];
    }
    return log_start(log, log->next) == log->head && at == log->head;
}

static void log_against_model(uint32_t max_count, uint32_t max_bytes, uint32_t position, int steps)
{
    struct log log = log_new(max_count, max_bytes);
    struct log_model m = {.next = 1};
    char *bytes = malloc(max_bytes + 64);
    bool agrees = true;

    if (!bytes)
        abort();
    log.tail = log.head = position;
    for (int step = 0; step < steps && agrees; step++) {
        uint64_t epoch = store_below(2) ? store_draw() : store_draw() >> store_below(64);
        uint32_t reach = store_below(4);
        uint32_t limit = reach == 0   ? max_bytes + 64
                         : reach == 1 ? max_bytes / 4 + 2
                                      : (max_bytes < 60 ? max_bytes + 1 : 60);
        char name[SSE_EVENT_BYTES];
        memset(name, 'e', sizeof name);
        struct slice event = {name, store_below(3) ? 0 : store_below(SSE_EVENT_BYTES + 1)};
        struct slice body = store_body(bytes, store_below(limit));
        if (store_below(8) == 0) /* about as large as can be */
            for (uint64_t n; body.len > 0 && (n = frame_data_bytes(body) + 30) > max_bytes;)
                body.len -= body.len < 8 ? 1
                            : (n - max_bytes) / 8 + 1 < body.len / 2
                                ? (size_t)(n - max_bytes) / 8 + 1
                                : body.len / 2;
        struct log before = log;
        bool fits = log_model_append(&m, &log, epoch, event, body);
        check(log_append(&log, epoch, event, body) == fits);
        if (!fits)
            check(memcmp(&log, &before, sizeof log) == 0);
        agrees = log_model_agrees(&m, &log);
        check(agrees);
    }
    heap_free(&m.frames);
    free(bytes);
    log_delete(&log);
}

static void test_log_against_model(void)
{
    static const uint32_t counts[] = {1, 2, 3, 64};
    static const uint32_t limits[] = {1, 40, 100, 700, 1024, 1025, 1500, 2048, 5000, 20000};

    store_seed = 2;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
            log_against_model(counts[i], limits[k], 0, 300);
            log_against_model(counts[i], limits[k], UINT32_MAX - limits[k] * 2, 200);
        }
}

/* A ring that is emptied starts over, in memory that is in use already. */
static void test_log_stays_small(void)
{
    struct log log = log_new(1, 100000);
    for (int i = 0; i < 1000; i++) {
        check(log_append(&log, 7, (struct slice){"", 0}, slice_of("hello")));
        check(log.first_at == 0 && log.cap == LOG_FIRST_BYTES);
    }
    log_delete(&log);
}

/* The largest frame that fits, and one byte more. */
static void test_log_limit(void)
{
    for (uint32_t max_bytes = 16; max_bytes < 2100; max_bytes += 61) {
        struct log log = log_new(2, max_bytes);
        char body[2200];
        size_t overhead = strlen("id: 7-1\ndata: \n\n");

        memset(body, 'x', sizeof body);
        check(!log_append(&log, 7, (struct slice){"", 0},
                          (struct slice){body, max_bytes - overhead + 1}));
        check(log.first == 1 && log.next == 1 && log.head == log.tail);
        check(
            log_append(&log, 7, (struct slice){"", 0}, (struct slice){body, max_bytes - overhead}));
        check(log.first == 1 && log.next == 2 && log.head - log.tail == max_bytes);
        check(log.cap == max_bytes);
        check(
            log_append(&log, 7, (struct slice){"", 0}, (struct slice){body, max_bytes - overhead}));
        check(log.first == 2 && log.next == 3 && log.head - log.tail == max_bytes);
        log_delete(&log);
    }
}

static void test_log_framing(void)
{
    static const struct {
        const char *event, *body, *frame;
    } cases[] = {
        {"", "hello", "id: ab-1\ndata: hello\n\n"},
        {"news", "hello", "id: ab-1\nevent: news\ndata: hello\n\n"},
        {"", "", "id: ab-1\ndata: \n\n"},
        {"news", "", "id: ab-1\nevent: news\ndata: \n\n"},
        {"", "a\nb", "id: ab-1\ndata: a\ndata: b\n\n"},
        {"", "a\rb", "id: ab-1\ndata: a\ndata: b\n\n"},
        {"", "a\r\nb", "id: ab-1\ndata: a\ndata: b\n\n"},
        {"", "a\n\rb", "id: ab-1\ndata: a\ndata: \ndata: b\n\n"},
        {"", "a\r\r\nb", "id: ab-1\ndata: a\ndata: \ndata: b\n\n"},
        {"", "a\r\n\nb", "id: ab-1\ndata: a\ndata: \ndata: b\n\n"},
        {"", "a\n\nb", "id: ab-1\ndata: a\ndata: \ndata: b\n\n"},
        {"", "\n", "id: ab-1\ndata: \ndata: \n\n"},
        {"", "\r", "id: ab-1\ndata: \ndata: \n\n"},
        {"", "\r\n", "id: ab-1\ndata: \ndata: \n\n"},
        {"", "\n\r", "id: ab-1\ndata: \ndata: \ndata: \n\n"},
        {"", "a\n", "id: ab-1\ndata: a\ndata: \n\n"},
        {"", "a\r\nb\rc\nd\r\n", "id: ab-1\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"},
        {"", "a\nb\nc\n", "id: ab-1\ndata: a\ndata: b\ndata: c\ndata: \n\n"},
        {"", "x\n\ndata: forged\n\nid: 1",
         "id: ab-1\ndata: x\ndata: \ndata: data: forged\n"
         "data: \ndata: id: 1\n\n"},
        {"", " two spaces", "id: ab-1\ndata:  two spaces\n\n"},
        {"", "\xEF\xBB\xBF", "id: ab-1\ndata: \xEF\xBB\xBF\n\n"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct log log = log_new(1, 200);
        struct slice body = slice_of(cases[i].body);
        check(log_append(&log, 0xab, slice_of(cases[i].event), body));
        check(log_holds(&log, cases[i].frame, strlen(cases[i].frame)));
        log_delete(&log);
    }
}

/* n line ends make n + 1 lines, and the bytes that were counted are the bytes that are written. */
static void test_body_lines(void)
{
    store_seed = 3;
    for (int round = 0; round < 2000; round++) {
        char bytes[24];
        struct slice body = store_body(bytes, store_below(sizeof bytes)), rest = body;
        size_t ends = 0, lines = 0, len = 0;
        for (size_t i = 0; i < body.len; i++)
            ends += body.at[i] == '\r' || (body.at[i] == '\n' && !(i && body.at[i - 1] == '\r'));
        do {
            struct slice line = body_line(&rest);
            check(!memchr(line.at, '\n', line.len) && !memchr(line.at, '\r', line.len));
            len += line.len + 7;
            lines++;
        } while (rest.at);
        check(lines == ends + 1);
        check(frame_data_bytes(body) == len + 1);
    }
}

/* ==== Ids =======================================================================================
 */

static void test_id_parse(void)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "1",
                                      "1-",
                                      "-1",
                                      "01-1",
                                      "00-1",
                                      "1-01",
                                      "1-00",
                                      "A-1",
                                      "aB-1",
                                      "0x1-1",
                                      "g-1",
                                      "1-a",
                                      "1--1",
                                      "1-1-1",
                                      "1-1 ",
                                      " 1-1",
                                      "1- 1",
                                      "1-+1",
                                      "+1-1",
                                      "1_1",
                                      "10000000000000000-1",
                                      "ffffffffffffffff0-1",
                                      "1-18446744073709551615",
                                      "1-18446744073709551616",
                                      "1-99999999999999999999",
                                      "1-184467440737095516140",
                                      "1-100000000000000000000000000000000000000",
                                      "ffffffffffffffff-184467440737095516140",
                                      "0000000000000001-1",
                                      "00000000000000001-1",
                                      "1-1\n",
                                      "null",
                                      "\xC3\xA9-1"};
    static const struct {
        const char *id;
        uint64_t epoch, seq;
    } good[] = {{"0-0", 0, 0},
                {"0-1", 0, 1},
                {"a-10", 10, 10},
                {"abcdef0123456789-42", 0xabcdef0123456789u, 42},
                {"ffffffffffffffff-18446744073709551614", UINT64_MAX, UINT64_MAX - 1}};
    uint64_t epoch, seq;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bool taken = id_parse(slice_of(bad[i]), &epoch, &seq);
        if (taken)
            fprintf(stderr, "taken for an id: '%s'\n", bad[i]);
        check(!taken);
    }
    check(!id_parse((struct slice){"1-1\0", 4}, &epoch, &seq));
    check(!id_parse((struct slice){"1-\0", 3}, &epoch, &seq));
    check(!id_parse((struct slice){"\0-1", 3}, &epoch, &seq));
    check(!id_parse((struct slice){NULL, 0}, &epoch, &seq));
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        check(id_parse(slice_of(good[i].id), &epoch, &seq));
        check(epoch == good[i].epoch && seq == good[i].seq);
    }
}

/* Whatever is taken is what id_print writes for it; whatever id_print writes is taken. */
static void test_id_round_trip(void)
{
    static const char bytes[] = "0123456789abcdefABF-x \n";

    store_seed = 4;
    for (int round = 0; round < 20000; round++) {
        char id[SSE_ID_BYTES + 2], again[SSE_ID_BYTES];
        struct text t = text_over(id, SSE_ID_BYTES), u = text_over(again, sizeof again);
        uint64_t epoch = store_draw() >> store_below(64), seq = store_draw() >> store_below(64);
        uint64_t epoch_read, seq_read;

        seq -= seq == UINT64_MAX;
        id_print(&t, epoch, seq);
        check(!t.full && t.len < SSE_ID_BYTES);
        check(id_parse((struct slice){id, t.len}, &epoch_read, &seq_read));
        check(epoch_read == epoch && seq_read == seq);

        uint32_t at = store_below((uint32_t)t.len), how = store_below(3);
        char byte = bytes[store_below(sizeof bytes - 1)];
        if (how == 0) {
            id[at] = byte;
        } else if (how == 1) { /* one more */
            memmove(id + at + 1, id + at, t.len - at);
            id[at] = byte;
            t.len++;
        } else { /* one less */
            memmove(id + at, id + at + 1, t.len - at - 1);
            t.len--;
        }
        if (id_parse((struct slice){id, t.len}, &epoch_read, &seq_read)) {
            id_print(&u, epoch_read, seq_read);
            check(u.len == t.len && memcmp(again, id, t.len) == 0);
        }
    }
}

/* ==== Streams ===================================================================================
 */

/* A stream with both ends of its connection. The test does the loop's part. */
struct peer {
    struct sse_server *server;
    struct user *user;
    int fd[2]; /* the server's end, the client's */
    struct conn *conn;
    char head[1024];
    struct heap got;
};

/* `room` bytes in the socket; 0 leaves it as it is. */
static int peer_open(struct peer *p, struct sse_server *server, const char *name,
                     const char *last_event_id, int room)
{
    memset(p, 0, sizeof *p);
    p->server = server;
    p->user = user_find_or_add(server, slice_of(name));
    if (!p->user || socketpair(AF_UNIX, SOCK_STREAM, 0, p->fd) != 0)
        abort();
    if (room)
        setsockopt(p->fd[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    p->conn = loop_claim(server, p->fd[0]);
    if (!p->conn)
        abort();
    atomic_store(&p->conn->state, CONN_SERVED);
    struct text out = text_over(p->head, sizeof p->head);
    int code = stream_open(p->conn, p->user, slice_of(last_event_id), &out);
    check(!out.full && (code == SSE_OK || out.len == 0));
    check((code == SSE_OK) == stream_is_open(p->conn));
    return code;
}

static void peer_close(struct peer *p)
{
    if (p->conn->user)
        user_disconnect(p->server, p->conn);
    conn_close(p->conn);
    user_unpin(p->user);
    close(p->fd[1]);
    heap_free(&p->got);
}

/* What the loop has done for a stream when something has happened to it. */
static void peer_act(struct peer *p, unsigned events)
{
    pthread_mutex_lock(&p->user->lock);
    stream_act_locked(p->conn, events);
    user_unlock(p->server, p->user);
}

static bool peer_is_lost(const struct peer *p)
{
    return atomic_load(&p->conn->state) == CONN_LOST;
}

/* Reads at most `most` bytes of what is there. */
static size_t peer_read(struct peer *p, size_t most)
{
    char bytes[4096];
    size_t total = 0;
    while (total < most) {
        size_t want = most - total < sizeof bytes ? most - total : sizeof bytes;
        ssize_t n = recv(p->fd[1], bytes, want, MSG_DONTWAIT);
        if (n <= 0)
            break;
        heap_put(&p->got, bytes, (size_t)n);
        total += (size_t)n;
    }
    return total;
}

static void peer_flush(struct peer *p)
{
    peer_act(p, WRITABLE);
}

/* Bytes that the operating system has taken for the client so far, read or not. */
static size_t peer_taken(const struct peer *p)
{
    int waiting = 0;
    if (ioctl(p->fd[1], FIONREAD, &waiting) != 0)
        abort();
    return p->got.len + (size_t)waiting;
}

static bool heap_same(const struct heap *a, const struct heap *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->at, b->at, a->len) == 0);
}

/* Reads all that is there; is it this? */
static bool peer_got(struct peer *p, const struct heap *expected)
{
    peer_read(p, SIZE_MAX);
    bool same = heap_same(&p->got, expected);
    if (!same)
        fprintf(stderr, "expected:\n%.*s\ngot:\n%.*s\n", (int)expected->len, expected->at,
                (int)p->got.len, p->got.at);
    return same;
}

/* A stream's beginning: `missed` is "" for no gap; where the keep-alive is a comment, the greeting is
 * an event. */
static void heap_greeting(struct heap *h, const struct user *user, unsigned retry, uint64_t seq,
                          const char *beat, const char *missed)
{
    char text[SSE_USER_BYTES + 256];
    if (*missed) {
        snprintf(text, sizeof text, "event: gap\ndata: {\"missed\":%s}\n\n", missed);
        heap_string(h, text);
    }
    snprintf(text, sizeof text,
             "retry: %u\nid: %" PRIx64 "-%" PRIu64 "\n%sdata: User '%s' connected\n\n", retry,
             user->epoch, seq, *beat == ':' ? "event: connected\n" : "", user->name);
    heap_string(h, text);
    heap_string(h, beat);
}

static const char STORE_BEAT[] = "data: <3: Keep alive\n\n";

/* The frames of the messages `from` to `to`, whose bodies are their numbers. */
static void heap_numbers(struct heap *h, uint64_t epoch, uint64_t from, uint64_t to)
{
    for (uint64_t seq = from; seq <= to; seq++) {
        char body[24];
        snprintf(body, sizeof body, "%" PRIu64, seq);
        heap_frame(h, epoch, seq, (struct slice){"", 0}, slice_of(body));
    }
}

static void send_numbers(struct sse_server *server, const char *name, int from, int to)
{
    for (int i = from; i <= to; i++) {
        char body[24];
        snprintf(body, sizeof body, "%d", i);
        check(store_send(server, name, body, NULL) == SSE_OK);
    }
}

/* Opens, compares all that comes, closes. */
static void greeting_is(struct sse_server *server, const char *name, const char *last_event_id,
                        uint64_t start, const char *missed, uint64_t from, uint64_t to)
{
    struct peer p;
    struct heap expected = {NULL, 0, 0};

    check(peer_open(&p, server, name, last_event_id, 0) == SSE_OK);
    heap_greeting(&expected, p.user, 2000, start, STORE_BEAT, missed);
    heap_numbers(&expected, p.user->epoch, from, to);
    bool same = peer_got(&p, &expected);
    if (!same)
        fprintf(stderr, "with Last-Event-ID '%s'\n", last_event_id);
    check(same);
    heap_free(&expected);
    peer_close(&p);
}

static void test_stream_greeting(void)
{
    struct sse_config config = store_config(4, 3, 10000);
    struct sse_server *server = store_server(&config);
    char id[SSE_ID_BYTES + 8];
    uint64_t epoch;

    greeting_is(server, "new", "", 0, "", 1, 0);
    greeting_is(server, "newer", "unknown", 0, "null", 1, 0);
    struct user *user = user_find(server, slice_of("new"));
    if (!user)
        abort();
    epoch = user->epoch;
    user_unpin(user);
    snprintf(id, sizeof id, "%" PRIx64 "-0", epoch);
    greeting_is(server, "new", id, 0, "", 1, 0);

    send_numbers(server, "new", 1, 5); /* held: 3 4 5 */
    for (unsigned seq = 0; seq <= 5; seq++) {
        char missed[8] = "";
        if (seq < 2)
            snprintf(missed, sizeof missed, "%u", 2 - seq);
        snprintf(id, sizeof id, "%" PRIx64 "-%u", epoch, seq);
        greeting_is(server, "new", id, seq < 2 ? 2 : seq, missed, seq < 2 ? 3 : seq + 1, 5);
    }
    snprintf(id, sizeof id, "%" PRIx64 "-6", epoch); /* never given out */
    greeting_is(server, "new", id, 2, "null", 3, 5);
    snprintf(id, sizeof id, "%" PRIx64 "-18446744073709551614", epoch);
    greeting_is(server, "new", id, 2, "null", 3, 5);
    snprintf(id, sizeof id, "%" PRIx64 "-18446744073709551615", epoch);
    greeting_is(server, "new", id, 2, "null", 3, 5);
    snprintf(id, sizeof id, "%" PRIx64 "-4", epoch + 1); /* somebody else's, or an earlier life's */
    greeting_is(server, "new", id, 2, "null", 3, 5);
    snprintf(id, sizeof id, "0%" PRIx64 "-4", epoch);
    greeting_is(server, "new", id, 2, "null", 3, 5);
    greeting_is(server, "new", "x", 2, "null", 3, 5);
    greeting_is(server, "new", "", 5, "", 1, 0); /* all were handed */
    send_numbers(server, "new", 6, 6);
    greeting_is(server, "new", "", 5, "", 6, 6);
    greeting_is(server, "new", "", 6, "", 1, 0);
    send_numbers(server, "new", 7, 13); /* two more than are held, plus two: 7 to 10 are lost */
    greeting_is(server, "new", "", 10, "4", 11, 13);

    send_numbers(server, "waiting", 1, 2);
    greeting_is(server, "waiting", "", 0, "", 1, 2);
    greeting_is(server, "waiting", "", 2, "", 1, 0);
    sse_destroy(server);
}

/* Whoever takes over a slot begins anew: nothing is left of the user before. */
static void test_slot_reused(void)
{
    struct sse_config config = store_config(1, 3, 10000);
    struct sse_server *server = store_server(&config);
    struct sse_user_status status;
    char id[SSE_ID_BYTES];

    send_numbers(server, "alice", 1, 5);
    greeting_is(server, "alice", "", 2, "2", 3, 5);
    snprintf(id, sizeof id, "%" PRIx64 "-4", server->users[0].epoch);
    send_numbers(server, "bob", 1, 2);
    check(sse_status(server, "alice", &status) == SSE_ENOUSER);
    check(sse_status(server, "bob", &status) == SSE_OK && status.queued == 2);
    greeting_is(server, "bob", "", 0, "", 1, 2);
    greeting_is(server, "bob", id, 0, "null", 1, 2);
    greeting_is(server, "alice", id, 0, "null", 1, 0); /* forgotten meanwhile */
    sse_destroy(server);
}

static void test_stream_greeting_options(void)
{
    struct sse_config config = store_config(1, 3, 10000);
    config.heartbeat_comment = config.greeting_event = true;
    config.retry_ms = 0;
    struct sse_server *server = store_server(&config);
    struct heap expected = {NULL, 0, 0};
    char name[SSE_USER_BYTES + 1];
    struct peer p;

    memset(name, '\'', sizeof name - 1);
    name[sizeof name - 1] = 0;
    check(peer_open(&p, server, name, "unknown", 0) == SSE_OK);
    heap_greeting(&expected, p.user, 0, 0, ": <3: Keep alive\n", "null");
    check(peer_got(&p, &expected));
    heap_free(&expected);
    peer_close(&p);
    sse_destroy(server);
}

/* All of a user's streams get all messages, and the receipts say so. */
static void test_stream_receipts(void)
{
    struct sse_config config = store_config(2, 8, 10000);
    struct sse_server *server = store_server(&config);
    struct sse_receipt receipt;
    struct sse_user_status status;
    struct peer a, b;
    struct heap expected = {NULL, 0, 0};
    char id[SSE_ID_BYTES];

    check(store_send(server, "alice", "1", &receipt) == SSE_OK);
    check(receipt.users == 1 && receipt.streams == 0 && receipt.delivered == 0);
    check(peer_open(&a, server, "alice", "", 0) == SSE_OK);
    heap_greeting(&expected, a.user, 2000, 0, STORE_BEAT, "");
    heap_numbers(&expected, a.user->epoch, 1, 1);
    check(peer_got(&a, &expected));
    check(peer_open(&b, server, "alice", "", 0) == SSE_OK);
    check(store_send(server, "alice", "2", &receipt) == SSE_OK);
    check(receipt.users == 1 && receipt.streams == 2 && receipt.delivered == 2);
    snprintf(id, sizeof id, "%" PRIx64 "-2", a.user->epoch);
    check(strcmp(receipt.id, id) == 0);
    heap_numbers(&expected, a.user->epoch, 2, 2);
    check(peer_got(&a, &expected)); /* not disturbed by the second */
    expected.len = 0;
    heap_greeting(&expected, b.user, 2000, 1, STORE_BEAT, "");
    heap_numbers(&expected, b.user->epoch, 2, 2);
    check(peer_got(&b, &expected));
    check(sse_status(server, "alice", &status) == SSE_OK);
    check(status.connected && status.streams == 2 && status.queued == 0);

    /* b's client closes: the next message finds out */
    shutdown(b.fd[1], SHUT_RDWR);
    check(store_send(server, "alice", "3", &receipt) == SSE_OK);
    check(receipt.streams == 1 && receipt.delivered == 1);
    check(peer_is_lost(&b) && stream_is_open(a.conn) && a.user->streams == a.conn);
    shutdown(a.fd[1], SHUT_RDWR);
    check(store_send(server, "alice", "4", &receipt) == SSE_OK);
    check(receipt.streams == 0 && receipt.delivered == 0 && !a.user->streams);
    check(sse_status(server, "alice", &status) == SSE_OK);
    check(!status.connected && status.streams == 0 && status.queued == 1);

    check(store_send(server, "bob", "1", NULL) == SSE_OK);
    check(sse_broadcast(server, "e", "5", 1, &receipt) == SSE_OK);
    check(receipt.users == 2 && receipt.streams == 0 && receipt.id[0] == 0);
    heap_free(&expected);
    peer_close(&a);
    peer_close(&b);
    check(away_is_sound(server, 2) && atomic_load(&server->stream_count) == 0);
    sse_destroy(server);
}

enum { WALK_PEERS = 3 };

/* Streams that read at their own pace, next to what each of them should get. */
struct walk {
    struct sse_server *server;
    struct peer peers[WALK_PEERS];
    struct heap expected[WALK_PEERS];
    char body[3000];
};

static void walk_send(struct walk *w)
{
    struct slice body = store_body(w->body, store_below(sizeof w->body >> store_below(8)));
    struct slice event = slice_of(store_below(2) ? "e" : "");
    struct user *user = w->peers[0].user;
    struct sse_receipt receipt = {.users = 0};
    struct send send = {.event = event, .body = body, .receipt = &receipt};
    unsigned open = 0, whole = 0;

    uint64_t seq = user->log.next;
    send_begin(user, &send);
    check(send_finish(w->server, user, &send) == SSE_OK);
    for (int i = 0; i < WALK_PEERS; i++) {
        struct peer *p = &w->peers[i];
        heap_frame(&w->expected[i], user->epoch, seq, event, body);
        open += stream_is_open(p->conn);
        whole += stream_is_open(p->conn) && peer_taken(p) == w->expected[i].len;
    }
    check(receipt.users == 1 && receipt.streams == open && receipt.delivered == whole);
}

/* The loop's part: now and then a keep-alive for all of them, then room in a socket. */
static void walk_turn(struct walk *w, int i)
{
    struct user *user = w->peers[i].user;

    if (store_below(4) == 0) {
        for (int k = 0; k < WALK_PEERS; k++) /* none in the middle of a frame */
            if (stream_is_open(w->peers[k].conn) && peer_taken(&w->peers[k]) == w->expected[k].len)
                heap_string(&w->expected[k], STORE_BEAT);
        pthread_mutex_lock(&user->lock);
        user_keep_alive_locked(w->server, user);
        user_unlock(w->server, user);
    }
    peer_act(&w->peers[i], WRITABLE);
    check(peer_taken(&w->peers[i]) <= w->expected[i].len);
}

static bool walk_is_prefix(const struct walk *w, int i)
{
    const struct heap *got = &w->peers[i].got, *expected = &w->expected[i];
    return got->len <= expected->len && (!got->len || !memcmp(got->at, expected->at, got->len));
}

static void walk_open(struct walk *w, const struct sse_config *config)
{
    memset(w, 0, sizeof *w);
    w->server = store_server(config);
    for (int i = 0; i < WALK_PEERS; i++) {
        /* the first has room enough; the others fall behind all the time */
        check(peer_open(&w->peers[i], w->server, "walker", "", i == 0 ? 1 << 20 : 1) == SSE_OK);
        heap_greeting(&w->expected[i], w->peers[i].user, 2000, 0, STORE_BEAT, "");
    }
}

static void walk_close(struct walk *w)
{
    for (int i = 0; i < WALK_PEERS; i++) {
        heap_free(&w->expected[i]);
        peer_close(&w->peers[i]);
    }
    sse_destroy(w->server);
}

/* Partial writes: every byte comes exactly once and in order, across growth and wrap-around. */
static void stream_partial_writes(uint32_t position)
{
    struct sse_config config = store_config(1, 64, 100000);
    static struct walk w;
    unsigned behind = 0;

    walk_open(&w, &config);
    struct log *log = &w.peers[0].user->log;
    log->tail = log->head = position;
    for (int step = 0; step < 3000; step++) {
        uint32_t what = store_below(4);
        int i = (int)store_below(WALK_PEERS);
        bool room = true; /* nobody is to fall out of the log here */
        for (int k = 0; k < WALK_PEERS; k++) {
            room = room && w.peers[k].got.len + 60000 > w.expected[k].len &&
                   log->next - w.peers[k].conn->seq < 50;
            behind += w.peers[k].conn->is_behind;
        }
        if (what < 2 && room)
            walk_send(&w);
        else if (what == 2)
            peer_read(&w.peers[i], 1 + store_below(6000u >> store_below(12)));
        else
            walk_turn(&w, i);
    }
    for (int i = 0; i < WALK_PEERS; i++) {
        struct peer *p = &w.peers[i];
        while (peer_read(p, 1 + store_below(3000)) > 0)
            peer_flush(p);
        check(stream_is_open(p->conn) && !p->conn->is_behind);
        check(heap_same(&p->got, &w.expected[i]));
    }
    check(behind > 100); /* or else nothing was tested */
    walk_close(&w);
}

static void test_stream_partial_writes(void)
{
    store_seed = 5;
    stream_partial_writes(0);
    stream_partial_writes(UINT32_MAX - 50000);
}

/* A stream that falls out of the log is closed; what it got until then has no hole. */
static void stream_falls_out(unsigned history, unsigned history_bytes)
{
    struct sse_config config = store_config(1, history, history_bytes);
    static struct walk w;
    struct sse_user_status status;

    walk_open(&w, &config);
    for (int step = 0; step < 2000 && stream_is_open(w.peers[1].conn); step++) {
        walk_send(&w);
        peer_read(&w.peers[0], SIZE_MAX); /* keeps up; 1 reads nothing, 2 now and then */
        if (store_below(3) == 0)
            peer_read(&w.peers[2], store_below(5000));
        if (stream_is_open(w.peers[2].conn) && store_below(2) == 0)
            walk_turn(&w, 2);
    }
    check(peer_is_lost(&w.peers[1]) && stream_is_open(w.peers[0].conn));
    check(sse_status(w.server, "walker", &status) == SSE_OK);
    check(status.connected && status.queued == 0);
    check(status.streams == 1u + stream_is_open(w.peers[2].conn));
    for (int i = 0; i < WALK_PEERS; i++) {
        peer_read(&w.peers[i], SIZE_MAX);
        check(walk_is_prefix(&w, i));
    }
    check(heap_same(&w.peers[0].got, &w.expected[0]));
    size_t got = w.peers[1].got.len; /* and nothing after that */
    walk_turn(&w, 1);
    walk_send(&w);
    peer_flush(&w.peers[1]);
    peer_read(&w.peers[1], SIZE_MAX);
    check(w.peers[1].got.len == got);
    walk_close(&w);
}

static void test_stream_falls_out(void)
{
    store_seed = 6;
    for (int round = 0; round < 10; round++) {
        stream_falls_out(1, 100000);
        stream_falls_out(4, 100000);
        stream_falls_out(64, 25000);
        stream_falls_out(1000, 50000);
    }
}

/* ==== Leaving ===================================================================================
 */

static void test_disconnect(void)
{
    struct sse_config config = store_config(2, 8, 10000);
    struct sse_server *server = store_server(&config);
    struct sse_receipt receipt;
    struct sse_user_status status;
    struct peer peers[2];
    struct heap expected = {NULL, 0, 0};

    check(sse_disconnect(server, "alice", 0) == SSE_ENOUSER);
    for (int i = 0; i < 2; i++)
        check(peer_open(&peers[i], server, "alice", "", 0) == SSE_OK);
    send_numbers(server, "alice", 1, 1);
    check(sse_disconnect(server, "alice", 0) == SSE_OK);
    for (int i = 0; i < 2; i++) {
        check(peers[i].conn->reason == CLOSE_DISCONNECTED && peers[i].conn->end_seq == 2);
        check(atomic_load(&peers[i].conn->state) == CONN_COMPLETE);
    }
    check(sse_status(server, "alice", &status) == SSE_OK);
    check(!status.connected && status.streams == 0 && status.queued == 0);
    check(store_send(server, "alice", "2", &receipt) == SSE_OK);
    check(receipt.streams == 0 && receipt.delivered == 0);
    check(sse_status(server, "alice", &status) == SSE_OK && status.queued == 1);

    heap_greeting(&expected, peers[0].user, 2000, 0, STORE_BEAT, "");
    heap_numbers(&expected, peers[0].user->epoch, 1, 1);
    heap_string(&expected, "event: disconnected\ndata: User 'alice' disconnected\n\n");
    for (int i = 0; i < 2; i++) {
        check(peer_got(&peers[i], &expected));
        peer_close(&peers[i]);
    }
    check(sse_disconnect(server, "alice", 0) == SSE_OK); /* nobody there: fine */
    check(away_is_sound(server, 1));
    heap_free(&expected);
    sse_destroy(server);
}

/* A stream that had kept up needs nothing more of the log: later messages may push out all of it,
 * and its final event still comes. */
static void test_disconnect_then_many_messages(void)
{
    struct sse_config config = store_config(2, 1, 10000);
    struct sse_server *server = store_server(&config);
    struct heap expected = {NULL, 0, 0};
    struct peer p;

    check(peer_open(&p, server, "alice", "", 0) == SSE_OK);
    send_numbers(server, "alice", 1, 1);
    heap_greeting(&expected, p.user, 2000, 0, STORE_BEAT, "");
    heap_numbers(&expected, p.user->epoch, 1, 1);
    heap_string(&expected, "event: disconnected\ndata: User 'alice' disconnected\n\n");
    check(sse_disconnect(server, "alice", 0) == SSE_OK);
    send_numbers(server, "alice", 2, 4); /* before the loop has seen it */
    check(peer_got(&p, &expected));
    heap_free(&expected);
    peer_close(&p);
    sse_destroy(server);
}

/* Reads until `len` bytes have come, for at most some seconds. */
static void peer_await(struct peer *p, size_t len)
{
    for (int64_t end = now_ms() + 10000; p->got.len < len && now_ms() < end;) {
        struct pollfd on = {.fd = p->fd[1], .events = POLLIN};
        if (poll(&on, 1, 100) > 0 && peer_read(p, 1 + store_below(4000)) == 0)
            return;
        peer_act(p, WRITABLE);
    }
}

/* One that is behind when it is closed gets what it was due first, as its socket drains. */
static void stream_leaves_behind(enum close_reason reason)
{
    struct sse_config config = store_config(1, 64, 200000);
    config.retry_ms = 1000;
    config.heartbeat_s = 3600;
    struct sse_server *server = store_server(&config);
    struct heap expected = {NULL, 0, 0};
    struct peer p;
    char body[3000];
    size_t final;

    memset(body, 'x', sizeof body);
    check(peer_open(&p, server, "alice", "", 1) == SSE_OK);
    heap_greeting(&expected, p.user, 1000, 0, STORE_BEAT, "");
    for (uint64_t seq = 1; seq <= 50; seq++) {
        check(sse_send(server, "alice", NULL, body, sizeof body, NULL) == SSE_OK);
        heap_frame(&expected, p.user->epoch, seq, (struct slice){"", 0},
                   (struct slice){body, sizeof body});
    }
    check(p.conn->is_behind && stream_is_open(p.conn));
    peer_await(&p, expected.len / 3);
    check(p.got.len >= expected.len / 3);
    pthread_mutex_lock(&p.user->lock);
    user_close_locked(p.user, reason);
    user_unlock(server, p.user);
    check(atomic_load(&p.conn->state) == CONN_CLOSING && p.user->closing == p.conn);
    send_numbers(server, "alice", 51, 51);
    if (reason == CLOSE_DISCONNECTED)
        heap_string(&expected, "event: disconnected\ndata: User 'alice' disconnected\n\n");
    final = expected.len;
    if (reason == CLOSE_STOPPING)
        final += strlen("retry: 1000\n");
    peer_await(&p, final);
    peer_act(&p, WRITABLE);
    peer_read(&p, SIZE_MAX);
    check(atomic_load(&p.conn->state) == CONN_COMPLETE && !p.user->closing);
    check(p.got.len >= expected.len && memcmp(p.got.at, expected.at, expected.len) == 0);
    if (reason == CLOSE_STOPPING && p.got.len >= expected.len) {
        unsigned retry = 0;
        int used = 0;
        heap_put(&p.got, "", 1);
        check(sscanf(p.got.at + expected.len, "retry: %u\n%n", &retry, &used) == 1);
        check(retry >= 1000 && retry <= 5000);
        check(p.got.len - 1 - expected.len == final - expected.len);
    } else {
        check(p.got.len == expected.len);
    }
    heap_free(&expected);
    peer_close(&p);
    sse_destroy(server);
}

static void test_stream_leaves_behind(void)
{
    store_seed = 7;
    stream_leaves_behind(CLOSE_DISCONNECTED);
    stream_leaves_behind(CLOSE_STOPPING);
}

/* A closing stream does not keep its user from making room, nor does it outlast that. */
static void test_closing_makes_room(void)
{
    struct sse_config config = store_config(1, 64, 200000);
    struct sse_server *server = store_server(&config);
    struct peer p;
    char body[3000];

    memset(body, 'x', sizeof body);
    check(peer_open(&p, server, "alice", "", 1) == SSE_OK);
    for (int i = 0; i < 50; i++)
        check(sse_send(server, "alice", NULL, body, sizeof body, NULL) == SSE_OK);
    check(sse_disconnect(server, "alice", 0) == SSE_OK);
    check(atomic_load(&p.conn->state) == CONN_CLOSING);
    user_unpin(p.user);
    check(store_send(server, "bob", "x", NULL) == SSE_OK && !user_known(server, "alice"));
    check(peer_is_lost(&p) && !p.user->closing);
    atomic_fetch_add(&p.user->pins, 1);
    peer_close(&p);
    sse_destroy(server);
}

/* What a client says on a stream is dropped; that it closes, or says far too much at once, ends the
 * stream, and its user is Disconnected. */
static void test_stream_client_closes(void)
{
    struct sse_config config = store_config(1, 4, 1000);
    struct sse_server *server = store_server(&config);
    static const char much[70000];
    struct sse_user_status status;
    struct peer p;
    int left = 1;

    for (int i = 0; i < 3; i++) {
        check(peer_open(&p, server, "alice", "", 0) == SSE_OK);
        check(send(p.fd[1], "hello?", 6, MSG_NOSIGNAL) == 6);
        peer_act(&p, READABLE);
        check(ioctl(p.fd[0], FIONREAD, &left) == 0 && left == 0);
        check(sse_status(server, "alice", &status) == SSE_OK && status.connected);
        if (i == 2)
            check(send(p.fd[1], much, sizeof much, MSG_NOSIGNAL) == (ssize_t)sizeof much);
        else
            shutdown(p.fd[1], SHUT_WR);
        for (int turns = i == 2 ? 70 : 1; turns > 0; turns--)
            peer_act(&p, i == 0 ? CLOSED : READABLE); /* not all platforms tell of the end */
        check(sse_status(server, "alice", &status) == SSE_OK && !status.connected);
        check(peer_is_lost(&p) && away_is_sound(server, 1));
        peer_close(&p);
    }
    sse_destroy(server);
}

/* What the loop wants of a stream whose user's mutex is held is done by the thread that has it, and
 * the loop does not wait. */
static void test_loop_waits_for_no_mutex(void)
{
    struct sse_config config = store_config(1, 4, 1000);
    struct sse_server *server = store_server(&config);
    struct peer a, b;

    check(peer_open(&a, server, "alice", "", 0) == SSE_OK);
    check(peer_open(&b, server, "alice", "", 0) == SSE_OK);
    pthread_mutex_lock(&a.user->lock);
    stream_want(a.conn, READABLE);
    stream_want(b.conn, READABLE);
    stream_want(a.conn, CLOSED);
    check(stream_is_open(a.conn) && atomic_load(&a.conn->wants) == (READABLE | CLOSED));
    user_unlock(server, a.user);
    check(peer_is_lost(&a) && stream_is_open(b.conn));
    check(atomic_load(&a.conn->wants) == 0 && atomic_load(&b.conn->wants) == 0);
    stream_want(b.conn, CLOSED); /* with the mutex free it is done at once */
    check(peer_is_lost(&b) && atomic_load(&b.conn->wants) == 0);
    peer_close(&a);
    peer_close(&b);
    sse_destroy(server);
}

/* A slot knows nothing of the connection that it held before. */
static void test_slot_is_fresh(void)
{
    struct sse_config config = store_config(1, 4, 1000);
    struct sse_server *server = store_server(&config);
    struct peer p;

    check(peer_open(&p, server, "alice", "", 0) == SSE_OK);
    struct conn *c = p.conn;
    c->idle_ms = 1;
    c->was_blank = c->is_misdirected = true;
    peer_close(&p);
    check(peer_open(&p, server, "bob", "", 0) == SSE_OK && p.conn == c);
    check(c->idle_ms == 0 && !c->was_blank && !c->is_misdirected && !c->is_stuck);
    peer_close(&p);
    sse_destroy(server);
}

/* Users who come at the same moment have their keep-alives spread over the heartbeat, and one with
 * very many streams has them in slices. */
static void test_keep_alives_are_spread(void)
{
    struct sse_config config = store_config(640, 4, 1000);
    struct sse_server *server = store_server(&config);
    struct conn *streams = calloc(640, sizeof *streams);
    char name[16];

    for (int i = 0; i < 640 && streams; i++) {
        snprintf(name, sizeof name, "u%d", i);
        struct user *user = user_find_or_add(server, slice_of(name));
        user_connect(server, user, &streams[i]);
        user_unpin(user);
    }
    check(away_is_sound(server, 0));
    int least = INT_MAX, most = 0;
    for (int64_t step = server->step + 2; step <= server->step + SSE_HEARTBEAT_STEPS; step++) {
        int count = 0;
        for (struct user *u = server->heartbeat[step % HEARTBEAT_LISTS].first; u; u = u->list_next)
            count++;
        least = count < least ? count : least;
        most = count > most ? count : most;
    }
    check(least >= 5 && most <= 20); /* of ten on the average, if the clock goes on meanwhile */
    struct user crowded = {.stream_count = 1};
    check(user_slices(&crowded) == 1);
    crowded.stream_count = 3000;
    check(user_slices(&crowded) == 64);
    crowded.stream_count = 1000000;
    check(user_slices(&crowded) == SSE_HEARTBEAT_STEPS);
    for (int i = 0; i < 640 && streams; i++)
        user_disconnect(server, &streams[i]);
    check(away_is_sound(server, 640));
    free(streams);
    sse_destroy(server);
}

static void test_retry_spread(void)
{
    struct sse_config config = store_config(1, 1, 64);
    struct sse_server *server = store_server(&config);
    uint64_t low = UINT64_MAX, high = 0;

    for (int i = 0; i < 10000; i++) {
        uint64_t retry = retry_spread(server);
        low = retry < low ? retry : low;
        high = retry > high ? retry : high;
    }
    check(low >= 2000 && low < 2100 && high <= 10000 && high > 9900);
    server->config.retry_ms = 0;
    check(retry_spread(server) == 0);
    sse_destroy(server);
}

static void test_admission(void)
{
    struct sse_config config = store_config(2, 4, 1000);
    config.max_streams = 2;
    struct sse_server *server = store_server(&config);
    struct peer peers[2], extra;

    for (int i = 0; i < 2; i++)
        check(peer_open(&peers[i], server, "alice", "", 0) == SSE_OK);
    check(peer_open(&extra, server, "alice", "", 0) == SSE_EBUSY);
    peer_close(&extra);
    check(peer_open(&extra, server, "bob", "", 0) == SSE_OK); /* the limit is each user's own */
    peer_close(&extra);
    peer_close(&peers[0]);
    check(peer_open(&peers[0], server, "alice", "", 0) == SSE_OK);

    check(sse_disconnect(server, "alice", SSE_HOLD_MAX_S) == SSE_OK);
    check(peer_open(&extra, server, "alice", "", 0) == SSE_EHELD);
    peer_close(&extra);
    check(sse_disconnect(server, "alice", 1) == SSE_OK); /* the latest decides */
    check(peer_open(&extra, server, "alice", "", 0) == SSE_EHELD);
    peer_close(&extra);
    check(sse_disconnect(server, "alice", 0) == SSE_OK); /* and lifts it */
    check(peer_open(&extra, server, "alice", "", 0) == SSE_OK);
    peer_close(&extra);
    check(store_send(server, "alice", "x", NULL) == SSE_OK); /* a hold stops no messages */

    check(sse_disconnect(server, "alice", 60) == SSE_OK);
    peers[0].user->hold_until_ms = now_ms(); /* runs out */
    check(peer_open(&extra, server, "alice", "", 0) == SSE_OK);
    peer_close(&extra);
    peer_close(&peers[0]);
    peer_close(&peers[1]);

    /* a hold ends with its user's place in the table */
    check(sse_disconnect(server, "alice", 60) == SSE_OK);
    check(store_send(server, "c", "", NULL) == SSE_OK &&
          store_send(server, "d", "", NULL) == SSE_OK);
    check(!user_known(server, "alice"));
    check(peer_open(&extra, server, "c", "", 0) == SSE_OK);
    peer_close(&extra);
    check(peer_open(&extra, server, "d", "", 0) == SSE_OK); /* one of the two has its slot */
    peer_close(&extra);

    atomic_store(&server->stopping, true);
    check(peer_open(&extra, server, "alice", "", 0) == SSE_ESTOPPING);
    peer_close(&extra);
    sse_destroy(server);
}

/* ==== Arguments =================================================================================
 */

static void test_send_arguments(void)
{
    struct sse_config config = store_config(2, 4, 1000);
    struct sse_server *server = store_server(&config);
    static const char *const bad_users[] = {
        "",         ".",    "..",   "a\nb",     "\x7f",         "a\x01",           "\xC2\x80",
        "\xC2\x9F", "\xFF", "\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80"};
    static const char *const good_users[] = {
        "...", ".a", "a/b", "%41", " ", "\xC2\xA0", "\xF4\x8F\xBF\xBF"};
    static const char *const bad_events[] = {"open",  "error",  "gap",  "disconnected",
                                             "a\nb",  "a\rb",   "\x7f", "\xC2\x85",
                                             "\xFFx", "tab\tx", "\x1b"};
    static const char *const good_events[] = {"message", "Open",     "gaps", "",
                                              "a b",     "\xC3\xA9", ":"};
    char longest[SSE_USER_BYTES + 2], event[SSE_EVENT_BYTES + 2];
    struct sse_receipt receipt;
    struct sse_user_status status;

    memset(longest, 'u', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    memset(event, 'e', sizeof event - 1);
    event[sizeof event - 1] = 0;
    for (size_t i = 0; i < sizeof bad_users / sizeof *bad_users; i++) {
        check(store_send(server, bad_users[i], "x", NULL) == SSE_EINVAL);
        check(sse_disconnect(server, bad_users[i], 0) == SSE_EINVAL);
        check(sse_status(server, bad_users[i], &status) == SSE_EINVAL);
    }
    check(store_send(server, longest, "x", NULL) == SSE_EINVAL);
    check(sse_send(server, "a", event, "x", 1, NULL) == SSE_EINVAL);
    for (size_t i = 0; i < sizeof bad_events / sizeof *bad_events; i++) {
        check(sse_send(server, "a", bad_events[i], "x", 1, NULL) == SSE_EINVAL);
        check(sse_broadcast(server, bad_events[i], "x", 1, NULL) == SSE_EINVAL);
    }
    check(sse_send(server, "a", NULL, "a\0b", 3, NULL) == SSE_EINVAL);
    check(sse_send(server, "a", NULL, "\xC3\xA9", 1, NULL) == SSE_EINVAL); /* cut in two */
    check(sse_send(server, "a", NULL, "\xFF", 1, NULL) == SSE_EINVAL);
    check(sse_send(server, "a", NULL, NULL, 1, NULL) == SSE_EINVAL);
    check(store_send(server, NULL, "x", NULL) == SSE_EINVAL);
    check(sse_disconnect(server, NULL, 0) == SSE_EINVAL);
    check(sse_status(server, NULL, &status) == SSE_EINVAL);
    check(sse_broadcast(server, NULL, NULL, 1, NULL) == SSE_EINVAL);
    check(sse_broadcast(server, NULL, "\xFF", 1, NULL) == SSE_EINVAL);
    check(table_is_sound(server, 0)); /* nobody was added by any of that */
    check(sse_status(server, "a", &status) == SSE_ENOUSER);
    check(sse_disconnect(server, "a", 0) == SSE_ENOUSER);
    check(sse_broadcast(server, NULL, "x", 1, &receipt) == SSE_OK && receipt.users == 0);

    longest[SSE_USER_BYTES] = 0;
    event[SSE_EVENT_BYTES] = 0;
    check(sse_send(server, longest, event, "x", 1, &receipt) == SSE_OK && receipt.users == 1);
    check(user_known(server, longest));
    check(sse_send(server, "a", NULL, NULL, 0, NULL) == SSE_OK);
    for (size_t i = 0; i < sizeof good_events / sizeof *good_events; i++)
        check(sse_send(server, "a", good_events[i], "x", 1, NULL) == SSE_OK);
    for (size_t i = 0; i < sizeof good_users / sizeof *good_users; i++)
        check(store_send(server, good_users[i], "\n\t\x01\x7f", NULL) == SSE_OK);
    check(sse_disconnect(server, good_users[0], SSE_HOLD_MAX_S + 1) == SSE_EINVAL);
    sse_destroy(server);
}

static void test_send_too_big(void)
{
    struct sse_config config = store_config(3, 4, 200);
    struct sse_server *server = store_server(&config);
    struct sse_receipt receipt;
    struct sse_user_status status;
    struct peer p;
    char body[256];

    memset(body, 'x', sizeof body);
    server->next_epoch = 1; /* so that ids are short: `id: 1-1` */
    check(store_send(server, "alice", "1", NULL) == SSE_OK);
    check(peer_open(&p, server, "alice", "", 0) == SSE_OK);
    check(store_send(server, "bob", "1", NULL) == SSE_OK);
    size_t most = 200 - strlen("id: 1-2\ndata: \n\n");
    check(sse_send(server, "alice", NULL, body, most + 1, &receipt) == SSE_ETOOBIG);
    check(receipt.users == 0 && receipt.streams == 0 && receipt.delivered == 0);
    check(p.user->log.next == 2 && stream_is_open(p.conn));
    check(sse_send(server, "alice", NULL, body, most, &receipt) == SSE_OK);
    check(receipt.delivered == 1 && p.user->log.next == 3 && p.user->log.first == 2);

    /* to all: the user with the longest id decides for all */
    for (int i = 0; i < 9; i++)
        check(store_send(server, "carol", "1", NULL) == SSE_OK); /* her next is 3-10 */
    size_t most_to_all = 200 - strlen("id: 3-10\ndata: \n\n");
    check(sse_broadcast(server, NULL, body, most_to_all + 1, &receipt) == SSE_ETOOBIG);
    check(p.user->log.next == 3);
    check(sse_status(server, "bob", &status) == SSE_OK && status.queued == 1);
    check(sse_broadcast(server, "e", body, most_to_all - strlen("event: e\n") + 1, NULL) ==
          SSE_ETOOBIG);
    check(p.user->log.next == 3);
    check(sse_broadcast(server, NULL, body, most_to_all, &receipt) == SSE_OK);
    check(receipt.users == 3 && receipt.streams == 1 && receipt.delivered == 1);
    peer_close(&p);

    /* and with ids as long as they get */
    most_to_all = 200 - strlen("id: \nevent: e\ndata: \n\n") - (SSE_ID_BYTES - 1);
    server->next_epoch = UINT64_MAX;
    check(store_send(server, "dave", "1", NULL) == SSE_OK);
    struct user *dave = user_find(server, slice_of("dave"));
    if (!dave)
        abort();
    log_reset(&dave->log);
    dave->log.first = dave->log.next = UINT64_MAX - 1;
    check(sse_broadcast(server, "e", body, most_to_all, &receipt) == SSE_OK);
    check(receipt.users == 3 && dave->log.head - dave->log.tail == 200);
    user_unpin(dave);
    sse_destroy(server);
}

static void test_status_queued(void)
{
    struct sse_config config = store_config(2, 3, 150);
    struct sse_server *server = store_server(&config);
    struct sse_user_status status;
    struct peer p;
    char body[100];

    memset(body, 'x', sizeof body);
    for (unsigned i = 1; i <= 5; i++) {
        check(store_send(server, "alice", "m", NULL) == SSE_OK);
        check(sse_status(server, "alice", &status) == SSE_OK);
        check(!status.connected && status.streams == 0 && status.queued == (i < 3 ? i : 3));
    }
    check(sse_send(server, "alice", NULL, body, sizeof body, NULL) == SSE_OK); /* pushes out all */
    check(sse_status(server, "alice", &status) == SSE_OK && status.queued == 1);
    check(peer_open(&p, server, "alice", "", 0) == SSE_OK);
    check(sse_status(server, "alice", &status) == SSE_OK);
    check(status.connected && status.streams == 1 && status.queued == 0);
    check(store_send(server, "alice", "m", NULL) == SSE_OK);
    check(sse_status(server, "alice", &status) == SSE_OK && status.queued == 0);
    peer_close(&p);
    check(store_send(server, "alice", "m", NULL) == SSE_OK);
    check(sse_status(server, "alice", &status) == SSE_OK);
    check(!status.connected && status.streams == 0 && status.queued == 1);
    sse_destroy(server);
}

/* ==== Server ====================================================================================
 */

static void test_config_defaults(void)
{
    struct sse_config c;
    memset(&c, 0xff, sizeof c);
    sse_config_init(&c);
    check(c.port == 8080 && strcmp(c.bind_address, "127.0.0.1") == 0);
    check(c.max_users == 1024 && c.max_connections == 1024 && c.max_streams == 16);
    check(c.history == 64 && c.history_bytes == 131072 && c.max_message == 65536);
    check(c.heartbeat_s == 5 && c.retry_ms == 2000 && !c.heartbeat_comment && !c.greeting_event);
    check(c.demo && c.access_log && !c.cors && c.cors_count == 0 && !c.log && !c.log_arg);
    check(c.stack_bytes == SSE_STACK_BYTES);
}

static bool config_is_refused(const struct sse_config *config)
{
    struct sse_server *server = (struct sse_server *)(void *)(uintptr_t)8;
    int code = sse_create(&server, config);
    if (code == SSE_OK)
        sse_destroy(server);
    return code == SSE_EINVAL && server == NULL;
}

static void test_config_refused(void)
{
    static const struct {
        size_t offset;
        unsigned least, most;
    } numbers[] = {
        {offsetof(struct sse_config, port), 0, 65535},
        {offsetof(struct sse_config, max_users), 1, 1000000},
        {offsetof(struct sse_config, max_connections), 1, 1000000},
        {offsetof(struct sse_config, max_streams), 1, 1000000},
        {offsetof(struct sse_config, history), 1, 1000000},
        {offsetof(struct sse_config, history_bytes), 1, 1 << 30},
        {offsetof(struct sse_config, max_message), 1, 1 << 30},
        {offsetof(struct sse_config, heartbeat_s), 1, 3600},
        {offsetof(struct sse_config, retry_ms), 0, 3600000},
    };
    static const char *const addresses[] = {NULL,        "",          "localhost",    "example.com",
                                            "1.2.3.4.5", "256.0.0.1", "127.0.0.1:80", "[::1]",
                                            ":::",       "1.2.3.4 "};
    static const char *const bad_origins[] = {
        "",          "example.com", "http:",      "http://",    "http:///",
        "http://a/", "http://a/b",  "http://a b", "http://a:x", "http://a:65536",
        "://a",      "ht tp://a",   "null",       "**",         " *"};
    static const char *const good_origins[] = {"*", "http://a", "https://a.example:8443",
                                               "http://[::1]:80", "app+x.y-z://a"};
    struct sse_config base = store_config(4, 4, 1000), c;

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        c = base;
        unsigned *number = (unsigned *)(void *)((char *)&c + numbers[i].offset);
        *number = numbers[i].most + 1;
        check(config_is_refused(&c));
        *number = UINT_MAX;
        check(config_is_refused(&c));
        *number = numbers[i].least - 1; /* of 0 it is UINT_MAX once more */
        check(config_is_refused(&c));
        *number = numbers[i].least;
        check(!config_is_refused(&c));
    }
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        c = base;
        c.bind_address = addresses[i];
        check(config_is_refused(&c));
    }
    c = base;
    c.cors_count = 2;
    for (size_t i = 0; i < sizeof bad_origins / sizeof *bad_origins; i++) {
        const char *const origins[] = {"http://fine", bad_origins[i]};
        c.cors = origins;
        bool refused = config_is_refused(&c);
        if (!refused)
            fprintf(stderr, "taken for an origin: '%s'\n", bad_origins[i]);
        check(refused);
    }
    for (size_t i = 0; i < sizeof good_origins / sizeof *good_origins; i++) {
        const char *const origins[] = {"http://fine", good_origins[i]};
        c.cors = origins;
        check(!config_is_refused(&c));
    }
    char origin[SSE_ORIGIN_BYTES + 2] = "http://";
    memset(origin + 7, 'a', sizeof origin - 8);
    origin[sizeof origin - 1] = 0;
    const char *const origins[] = {origin, "*"};
    c.cors = origins;
    check(config_is_refused(&c));
    c = base;
    c.stack_bytes = SSE_STACK_BYTES_MIN - 1;
    check(config_is_refused(&c));
    c = base;
    c.cors = NULL;
    c.cors_count = 1;
    check(config_is_refused(&c));
    c = base;
    c.stack_bytes = SSE_STACK_BYTES_MIN; /* raised to what a thread needs here */
    struct sse_server *server = store_server(&c);
    check(server->config.stack_bytes >= (unsigned)PTHREAD_STACK_MIN);
    sse_destroy(server);
    sse_destroy(NULL);
}

static void test_port_in_use(void)
{
    struct sse_config config = store_config(1, 1, 64);
    struct sse_server *server = store_server(&config), *second = server;

    check(sse_port(server) != 0);
    config.port = sse_port(server);
    errno = 0;
    check(sse_create(&second, &config) == SSE_EBIND);
    check(second == NULL && errno == EADDRINUSE);
    sse_destroy(server);
    check(sse_create(&second, &config) == SSE_OK); /* free again */
    check(second && sse_port(second) == config.port);
    sse_destroy(second);
    config = store_config(1, 1, 64);
    config.bind_address = "192.0.2.1"; /* nobody has it: RFC 5737 */
    check(sse_create(&second, &config) == SSE_EBIND && second == NULL);
}

/* Bytes that a size like `1.5 MiB` stands for. */
static double size_read(double n, const char *unit)
{
    check(strcmp(unit, "KiB") == 0 || strcmp(unit, "MiB") == 0);
    return n * (unit[0] == 'M' ? 1048576.0 : 1024.0);
}

/* The parts that are spelled out make up the sum, but for their rounding up. */
static void memory_adds_up(const struct sse_config *config)
{
    struct sse_server *server = store_server(config);
    uint64_t bytes = sse_memory(server, NULL, 0);
    char how[256], cut[256];
    unsigned users, conns, threads, bodies;
    double size[5], sum, slack;
    char unit[5][4];
    int used = 0;

    memset(how, '#', sizeof how);
    check(sse_memory(server, how, sizeof how) == bytes);
    check(memchr(how, 0, sizeof how) != NULL);
    sscanf(
        how, /* a unit has three letters: %3s leaves the comma behind it alone */
        "%u users x %lf %3s, %u connections x %lf %3s, %u threads x %lf %3s, %u bodies x %lf %3s, "
        "program %lf %3s%n",
        &users, &size[0], unit[0], &conns, &size[1], unit[1], &threads, &size[4], unit[4], &bodies,
        &size[2], unit[2], &size[3], unit[3], &used);
    check(used > 0 && how[used] == 0);
    if (used <= 0) {
        fprintf(stderr, "%s\n", how);
        sse_destroy(server);
        return;
    }
    check(users == config->max_users && threads == config->max_threads);
    check(conns == config->max_connections + SSE_RESERVED);
    check(bodies == server->bodies.count);
    sum = users * size_read(size[0], unit[0]) + conns * size_read(size[1], unit[1]) +
          threads * size_read(size[4], unit[4]) + bodies * size_read(size[2], unit[2]) +
          size_read(size[3], unit[3]);
    slack = 0.1 * (users * size_read(1, unit[0]) + conns * size_read(1, unit[1]) +
                   threads * size_read(1, unit[4]) + bodies * size_read(1, unit[2]));
    check(sum >= (double)bytes && sum <= (double)bytes + slack + 1);
    check(bytes >= (uint64_t)users * config->history_bytes +
                       (uint64_t)bodies * config->max_message +
                       (uint64_t)threads * config->stack_bytes);
    for (size_t room = 0; room < sizeof cut; room++) { /* never more than there is room for */
        memset(cut, '#', sizeof cut);
        check(sse_memory(server, cut, room) == bytes);
        check(cut[room] == '#');
        check(room == 0 || memchr(cut, 0, room) != NULL);
        check(room == 0 || strncmp(cut, how, strlen(cut)) == 0);
    }
    sse_destroy(server);
}

static void test_memory(void)
{
    struct sse_config config;
    sse_config_init(&config);
    config.port = 0;
    memory_adds_up(&config);
    config = store_config(1, 1, 1);
    config.max_connections = 1;
    config.max_message = 1;
    memory_adds_up(&config);
    config = store_config(3, 1000, 10000000);
    config.max_message = 1048575;
    memory_adds_up(&config);
    config.history_bytes = 1048576 - 1;
    config.max_message = 8 << 20;
    memory_adds_up(&config);
}

static void test_text_size(void)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 KiB"},         {1, "0.1 KiB"},          {1024, "1 KiB"},       {1025, "1.1 KiB"},
        {1536, "1.5 KiB"},    {10240, "10 KiB"},       {1048575, "1024 KiB"}, {1048576, "1 MiB"},
        {1048577, "1.1 MiB"}, {1073741824, "1024 MiB"}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        struct text t = text_over(text, sizeof text);
        text_size(&t, cases[i].bytes);
        check(t.len == strlen(cases[i].text) && !memcmp(text, cases[i].text, t.len));
    }
}

static int store_handler(struct sse_exchange *exchange, void *arg)
{
    (void)exchange, (void)arg;
    return 200;
}

static void test_route(void)
{
    struct sse_config config = store_config(1, 1, 64);
    struct sse_server *server = store_server(&config);
    static const char *const bad_methods[] = {"",     "get",      "PUT", "POST|GET",
                                              "GET|", "GET,POST", "HEAD"};
    static const char *const bad_paths[] = {"",        "a",          "{userId}",
                                            "/{user}", "/a{userId}", "/{userId}/b",
                                            "/a/{",    "/{userId} ", "/{userId}{userId}"};
    int marker;

    for (size_t i = 0; i < sizeof bad_methods / sizeof *bad_methods; i++)
        check(sse_route(server, bad_methods[i], "/a", SSE_SUBJECT, "s", store_handler, NULL) ==
              SSE_EINVAL);
    for (size_t i = 0; i < sizeof bad_paths / sizeof *bad_paths; i++)
        check(sse_route(server, "GET", bad_paths[i], SSE_SUBJECT, "s", store_handler, NULL) ==
              SSE_EINVAL);
    check(sse_route(server, "GET", "/a", SSE_SUBJECT, "s", NULL, NULL) == SSE_EINVAL);
    static const char *const taken[] = {"/health", "/sse/status/me", "/sse/status/{userId}",
                                        "/sse/task/me", "/sse/users"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        check(sse_route(server, "GET", taken[i], SSE_SUBJECT, "s", store_handler, NULL) ==
              SSE_EINVAL);
    char long_path[SSE_ROUTE_BYTES + 2] = "/";
    memset(long_path + 1, 'a', SSE_ROUTE_BYTES);
    check(sse_route(server, "GET", long_path, SSE_SUBJECT, "s", store_handler, NULL) == SSE_EINVAL);
    long_path[SSE_ROUTE_BYTES] = 0;
    check(sse_route(server, "GET", long_path, SSE_SUBJECT, "s", store_handler, NULL) == SSE_OK);
    server->route_count--;
    static const char *const unmatched[] = {"/a b", "/a\tb", "/\xC3\xA9", "/a\"", "/a?", "/a#"};
    for (size_t i = 0; i < sizeof unmatched / sizeof *unmatched; i++)
        check(sse_route(server, "GET", unmatched[i], SSE_SUBJECT, "s", store_handler, NULL) ==
              SSE_EINVAL);
    check(sse_route(server, NULL, "/a", SSE_SUBJECT, "s", store_handler, NULL) == SSE_EINVAL);
    check(sse_route(server, "GET", NULL, SSE_SUBJECT, "s", store_handler, NULL) == SSE_EINVAL);
    check(server->route_count == server->own_routes_at);
    sse_destroy(server);
    config.demo = false; /* what is not served is free */
    server = store_server(&config);
    const struct route *own = server->routes + server->own_routes_at;
    check(sse_route(server, "GET", "/sse/task/{userId}", SSE_SUBJECT, "s", store_handler, NULL) ==
          SSE_OK);
    check(route_find(server, slice_of("/sse/task/me")) == own);
    check(sse_route(server, "GET", "/sse/task/{userId}", SSE_SUBJECT, "s", store_handler, NULL) ==
          SSE_EINVAL);
    check(sse_route(server, "GET", "/exact/a", SSE_SUBJECT, "s", store_handler, NULL) == SSE_OK);
    check(sse_route(server, "GET", "/e/{userId}", SSE_SUBJECT, "s", store_handler, NULL) == SSE_OK);
    check(sse_route(server, "GET", "/e/a", SSE_SUBJECT, "s", store_handler, NULL) == SSE_OK);
    check(route_find(server, slice_of("/e/a")) == own + 3);
    check(route_find(server, slice_of("/e/b")) == own + 2);
    server->route_count = server->own_routes_at;
    check(sse_route(server, "GET", "/own", SSE_SUBJECT, "s", store_handler, &marker) == SSE_OK);
    check(sse_route(server, "POST", "/own/{userId}", SSE_SUBJECT, "s", store_handler, NULL) ==
          SSE_OK);
    check(sse_route(server, "GET|POST", "/{userId}", SSE_SUBJECT, "s", store_handler, NULL) ==
          SSE_OK);
    const struct route *route = route_find(server, slice_of("/own"));
    check(route && route->handler == store_handler && route->arg == &marker);
    check(route && !route->is_open);
    check(route_find(server, slice_of("/own/alice")) == own + 1);
    check(route_find(server, slice_of("/alice")) == own + 2);
    check(!route_find(server, slice_of("/own/alice/x")) && !route_find(server, slice_of("/x/y")));
    static char more[SSE_OWN_ROUTES][16];
    size_t most = server->own_routes_at + SSE_OWN_ROUTES;
    for (int i = 0; server->route_count < most && i < SSE_OWN_ROUTES; i++) {
        snprintf(more[i], sizeof more[i], "/more%d", i);
        check(sse_route(server, "GET", more[i], SSE_SUBJECT, "s", store_handler, NULL) == SSE_OK);
        check(sse_route(server, "POST", more[i], SSE_SUBJECT, "s", store_handler, NULL) ==
              SSE_EINVAL);
    }
    check(sse_route(server, "GET", "/health", SSE_SUBJECT, "s", store_handler, NULL) == SSE_EINVAL);
    check(sse_route(server, "GET", "/a?b", SSE_SUBJECT, "s", store_handler, NULL) == SSE_EINVAL);
    check(server->route_count == most);
    check(sse_route(server, "GET", "/more", SSE_SUBJECT, "s", store_handler, NULL) == SSE_EFULL);
    check(sse_route(server, "GET", "more", SSE_SUBJECT, "s", store_handler, NULL) == SSE_EINVAL);
    sse_destroy(server);
}

/* What tables name must be there: a slip would go unnoticed. */
static void test_tables(void)
{
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++) {
        bool query = !ROUTES[i].query, gives = false;
        for (size_t k = 0; k < sizeof PARAMETERS / sizeof *PARAMETERS; k++)
            query |= ROUTES[i].query && strcmp(PARAMETERS[k].name, ROUTES[i].query) == 0;
        for (size_t k = 0; k < sizeof CONTENTS / sizeof *CONTENTS; k++)
            gives |= ROUTES[i].gives && strcmp(CONTENTS[k].name, ROUTES[i].gives) == 0;
        check(query);
        check(gives);
    }
    for (size_t i = 0; i < REFUSALS; i++)
        check(REFUSAL_REASONS[i] != NULL);
    for (size_t i = 1; i < SSE_DELAYS; i++)
        check(DELAYS_US[i] > DELAYS_US[i - 1]);
}

struct running {
    struct sse_server *server;
    pthread_t thread;
    int code;
};

static void *run_server(void *arg)
{
    struct running *r = arg;
    r->code = sse_run(r->server);
    return NULL;
}

static void run_start(struct running *run)
{
    if (pthread_create(&run->thread, NULL, run_server, run) != 0)
        abort();
}

static void run_end(struct running *run)
{
    sse_stop(run->server);
    pthread_join(run->thread, NULL);
    sse_destroy(run->server);
}

static void *run_pause(void *arg)
{
    struct running *r = arg;
    r->code = sse_pause(r->server, 60000);
    return NULL;
}

/* A client's connection over TCP; the request is sent at once. */
static int store_request(unsigned port, const char *request)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)(void *)&to, sizeof to) != 0 ||
        send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        abort();
    return fd;
}

/* Reads until `word` has come or, if it is NULL, to the end; at most ten seconds. */
static bool store_read_until(int fd, struct heap *got, const char *word)
{
    for (int64_t end = now_ms() + 10000; now_ms() < end;) {
        char bytes[1024];
        struct pollfd on = {.fd = fd, .events = POLLIN};
        if (poll(&on, 1, 100) <= 0)
            continue;
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n <= 0)
            return n == 0 && !word;
        heap_put(got, bytes, (size_t)n);
        heap_put(got, "", 1); /* for strstr; not part of it */
        got->len--;
        if (word && strstr(got->at, word))
            return true;
    }
    return false;
}

/* Runs a server on a thread, opens a stream, sends, pauses, stops. */
static void run_once(void)
{
    struct sse_config config = store_config(4, 4, 1000);
    struct running run = {.server = store_server(&config), .code = 1}, pausing = run;
    struct heap got = {NULL, 0, 0};
    struct sse_receipt receipt;
    int64_t begin;

    if (pthread_create(&run.thread, NULL, run_server, &run) != 0 ||
        pthread_create(&pausing.thread, NULL, run_pause, &pausing) != 0)
        abort();
    int fd = store_request(sse_port(run.server),
                           "GET /sse/connect/alice HTTP/1.1\r\nHost: localhost\r\n\r\n");
    check(store_read_until(fd, &got, "Keep alive\n\n"));
    check(store_send(run.server, "alice", "hello", &receipt) == SSE_OK);
    check(receipt.streams == 1 && receipt.delivered == 1);
    check(store_read_until(fd, &got, "data: hello\n\n"));
    begin = now_ms();
    check(sse_pause(run.server, 30) == SSE_OK);
    check(now_ms() - begin >= 30);
    begin = now_ms();
    sse_stop(run.server);
    sse_stop(run.server); /* once more does no harm */
    pthread_join(pausing.thread, NULL);
    check(pausing.code == SSE_ESTOPPING);
    check(store_read_until(fd, &got, NULL)); /* the stream is closed in order */
    check(got.at && strstr(got.at, "data: hello\n\nretry: "));
    close(fd);
    pthread_join(run.thread, NULL);
    check(run.code == SSE_OK);
    check(now_ms() - begin < SSE_STOP_MS);
    check(sse_pause(run.server, 60000) == SSE_ESTOPPING);
    heap_free(&got);
    sse_destroy(run.server);
}

static int answer_bare(struct sse_exchange *exchange, void *arg)
{
    sse_write(exchange, NULL, 0);
    sse_print(exchange, "HTTP/1.1 200 OK");
    return *(int *)arg;
}

/* What has no content by its status gets none, or the next answer could be forged. */
static void test_bare_answers(void)
{
    static const int statuses[] = {204, 205, 304};
    struct sse_config config = store_config(4, 4, 1000);
    struct running run = {.server = store_server(&config), .code = 1};

    check(sse_route(run.server, "GET", "/0", SSE_SUBJECT, "s", answer_bare, (void *)&statuses[0]) ==
          SSE_OK);
    check(sse_route(run.server, "GET", "/1", SSE_SUBJECT, "s", answer_bare, (void *)&statuses[1]) ==
          SSE_OK);
    check(sse_route(run.server, "GET", "/2", SSE_SUBJECT, "s", answer_bare, (void *)&statuses[2]) ==
          SSE_OK);
    run_start(&run);
    for (int i = 0; i < 3; i++) {
        struct heap got = {NULL, 0, 0};
        char request[80], line[16];
        snprintf(request, sizeof request,
                 "GET /%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", i);
        snprintf(line, sizeof line, "HTTP/1.1 %d ", statuses[i]);
        int fd = store_request(sse_port(run.server), request);
        check(store_read_until(fd, &got, NULL));
        check(got.at && strncmp(got.at, line, strlen(line)) == 0);
        check(got.len > 4 && memcmp(got.at + got.len - 4, "\r\n\r\n", 4) == 0);
        check(got.at && !strstr(got.at + 4, "HTTP/1.1"));
        check(got.at && (strstr(got.at, "Content-Length: 0\r\n") != NULL) == (statuses[i] == 205));
        close(fd);
        heap_free(&got);
    }
    run_end(&run);
}

/* Fields of a handler's own: what would break the head, or is the server's to write, is refused. */
static int answer_fields(struct sse_exchange *exchange, void *arg)
{
    static const char *const bad_names[] = {"",
                                            "a b",
                                            "a:",
                                            "a\r\nb",
                                            "\xC3\xA9",
                                            "date",
                                            "VARY",
                                            "Allow",
                                            "te",
                                            "keep-alive",
                                            "access-control-allow-origin"};
    static const char *const bad_values[] = {"a\r\nb", "a\nb", "a\rb", "\x01", "\x7F", " a", "a\t"};
    char long_value[SSE_OWN_FIELDS_BYTES];

    (void)arg;
    for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++)
        check(sse_field(exchange, bad_names[i], "x") == SSE_EINVAL);
    for (size_t i = 0; i < sizeof bad_values / sizeof *bad_values; i++)
        check(sse_field(exchange, "X-Bad", bad_values[i]) == SSE_EINVAL);
    check(sse_field(exchange, NULL, "x") == SSE_EINVAL);
    if (sse_is_post(exchange)) {
        check(sse_field(exchange, "X-Null", NULL) == SSE_OK);
        return sse_fail(exchange, 409, "they belonged to another answer");
    }
    check(sse_field(exchange, "X-Empty", "") == SSE_OK);
    check(sse_field(exchange, "X-A", "b \xC3\xA9\t\"c\"") == SSE_OK);
    memset(long_value, 'z', sizeof long_value);
    long_value[SSE_OWN_FIELDS_BYTES - sizeof "X-Empty: \r\nX-A: b \xC3\xA9\t\"c\"\r\nX-L: \r\n" +
               2] = 0;
    check(sse_field(exchange, "X-L", long_value) == SSE_EFULL);
    long_value[strlen(long_value) - 1] = 0;
    check(sse_field(exchange, "X-L", long_value) == SSE_OK);
    check(sse_field(exchange, "X", "") == SSE_EFULL);
    for (int i = 0; i < 300; i++)
        sse_print(exchange, "0123456789");
    check(sse_field(exchange, "X-Late", "x") == SSE_EINVAL);
    return 200;
}

static void test_fields(void)
{
    struct sse_config config = store_config(4, 4, 1000);
    struct running run = {.server = store_server(&config), .code = 1};
    struct heap got = {NULL, 0, 0}, failed = {NULL, 0, 0};

    check(sse_route(run.server, "GET|POST", "/f", SSE_ANYONE, "s", answer_fields, NULL) == SSE_OK);
    run_start(&run);
    int fd = store_request(sse_port(run.server),
                           "GET /f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    check(store_read_until(fd, &got, NULL));
    check(got.at && strstr(got.at, "\r\nX-Empty: \r\nX-A: b \xC3\xA9\t\"c\"\r\nX-L: zzz"));
    check(got.at && strstr(got.at, "zzz\r\n\r\n") && !strstr(got.at, "X-Late"));
    close(fd);
    fd = store_request(sse_port(run.server), "POST /f HTTP/1.1\r\nHost: localhost\r\n"
                                             "Content-Length: 0\r\nConnection: close\r\n\r\n");
    check(store_read_until(fd, &failed, NULL));
    check(failed.at && strncmp(failed.at, "HTTP/1.1 409 ", 13) == 0 && !strstr(failed.at, "X-"));
    close(fd);
    heap_free(&got);
    heap_free(&failed);
    run_end(&run);
}

/* Over HTTP/1.0 the end of the connection is that of the answer: one that was given up must not end
 * like a whole one. */
static int answer_broken(struct sse_exchange *exchange, void *arg)
{
    (void)arg;
    for (int i = 0; i < 400; i++)
        sse_print(exchange, "0123456789");
    return sse_fail(exchange, 500, "too late");
}

static void test_broken_answer(void)
{
    struct sse_config config = store_config(4, 4, 1000);
    struct running run = {.server = store_server(&config), .code = 1};
    struct heap got = {NULL, 0, 0}, chunked = {NULL, 0, 0};

    check(sse_route(run.server, "GET", "/b", SSE_ANYONE, "s", answer_broken, NULL) == SSE_OK);
    run_start(&run);
    int fd = store_request(sse_port(run.server), "GET /b HTTP/1.0\r\n\r\n");
    check(!store_read_until(fd, &got, NULL)); /* a reset */
    close(fd);
    fd = store_request(sse_port(run.server), "GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n");
    check(store_read_until(fd, &chunked, NULL));
    check(chunked.at && strstr(chunked.at, "chunked") && !strstr(chunked.at, "\r\n0\r\n"));
    close(fd);
    heap_free(&got);
    heap_free(&chunked);
    run_end(&run);
}

/* The same where the last of an answer could not be written. */
static void test_broken_flush(void)
{
    char out[64];
    int ends[2];
    static struct worker w;
    struct conn c = {.worker = &w};
    struct linger linger = {.l_onoff = 0};
    socklen_t len = sizeof linger;

    w.out = text_over(out, sizeof out);
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    c.transport.fd = ends[0];
    text_string(&w.out, "whole");
    check(conn_flush(&c) && w.out.len == 0);
    check(getsockopt(ends[0], SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && !linger.l_onoff);
    close(ends[1]);
    text_string(&w.out, "broken");
    check(!conn_flush(&c) && w.out.len == 0);
    check(getsockopt(ends[0], SOL_SOCKET, SO_LINGER, &linger, &len) == 0);
    check(linger.l_onoff && linger.l_linger == 0);
    close(ends[0]);
}

/* A handler that takes its time, and says so if `arg` is not NULL. */
static int answer_late(struct sse_exchange *exchange, void *arg)
{
    int status = arg ? sse_takes_time(exchange) : 0;
    if (status == 0)
        sse_pause(sse_server_of(exchange), 2500);
    return status ? status : 200;
}

static void late_is(struct running *run, const char *path, const char *status)
{
    struct heap got = {NULL, 0, 0};
    char request[128];
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    int fd = store_request(sse_port(run->server), request);
    check(store_read_until(fd, &got, NULL));
    check(got.at && strstr(got.at, status));
    heap_free(&got);
    close(fd);
}

/* With two threads one task is under way at most; where both threads are busy a request waits for a
 * second and is answered 503; one whose client stalls is cut off for it. */
static void test_threads(void)
{
    struct sse_config config = store_config(4, 4, 1000);
    static const char post[] = "POST /sse/send/a HTTP/1.1\r\nHost: localhost\r\n";
    static const char late[] = "GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static const char task[] = "GET /task HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd[3], saying;

    config.max_threads = 2;
    struct running run = {.server = store_server(&config), .code = 1};
    struct heap got = {NULL, 0, 0};
    check(sse_route(run.server, "GET", "/late", SSE_ANYONE, "s", answer_late, NULL) == SSE_OK);
    check(sse_route(run.server, "GET", "/task", SSE_ANYONE, "s", answer_late, &saying) == SSE_OK);
    run_start(&run);

    fd[0] = store_request(sse_port(run.server), task);
    while (atomic_load(&run.server->tasks) < 1)
        sched_yield();
    late_is(&run, "/task", "HTTP/1.1 503 ");
    late_is(&run, "/health", "HTTP/1.1 200 ");
    fd[1] = store_request(sse_port(run.server), post); /* the other thread waits for the rest */
    int64_t begin = now_ms();
    late_is(&run, "/health", "HTTP/1.1 200 ");
    check(now_ms() - begin < 900);
    check(store_read_until(fd[1], &got, NULL) && got.len == 0); /* it was cut off */
    fd[2] = store_request(sse_port(run.server), late);
    begin = now_ms();
    late_is(&run, "/health", "HTTP/1.1 503 "); /* comes behind `late`, or waits beside it */
    check(now_ms() - begin >= 900);
    check(store_read_until(fd[0], &got, "HTTP/1.1 200 "));
    late_is(&run, "/health", "HTTP/1.1 200 ");
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    heap_free(&got);
    run_end(&run);
}

static void test_run_twice(void)
{
    run_once();
    run_once();
}

static void test_stop_before_run(void)
{
    struct sse_config config = store_config(1, 1, 64);
    struct sse_server *server = store_server(&config);
    sse_stop(server);
    check(sse_run(server) == SSE_OK);
    check(sse_pause(server, 60000) == SSE_ESTOPPING);
    sse_destroy(server);
}

static void body_give(struct sse_server *server, uint32_t slot)
{
    struct sse_exchange x = {.server = server, .body_slot = slot};
    exchange_drop_body(&x);
}

static void test_bodies(void)
{
    static const struct {
        unsigned max_message, max_threads, count;
    } cases[] = {{1 << 20, 1000, 4}, {4 << 20, 1000, 4}, {65536, 1000, 64},
                 {65536, 3, 3},      {1000, 1000, 1000}, {8 << 20, 2, 2}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sse_config config = store_config(1, 1, 64);
        uint32_t max = config.max_message = cases[i].max_message, count = cases[i].count;
        char seen[1001];
        config.max_threads = cases[i].max_threads;
        struct sse_server *server = store_server(&config);
        check(server->bodies.count == count);
        if (server->bodies.count == count)
            for (int round = 0; round < 3; round++) {
                memset(seen, 0, sizeof seen);
                for (uint32_t k = 0; k < count; k++) {
                    uint32_t slot = body_take(server);
                    check(slot >= 1 && slot <= count && !seen[slot]++);
                    if (slot) { /* both ends of it are there */
                        server->bodies.area[(size_t)(slot - 1) * max] = 'x';
                        server->bodies.area[(size_t)slot * max - 1] = 'x';
                    }
                }
                check(body_take(server) == 0 && body_take(server) == 0);
                body_give(server, 0);
                check(body_take(server) == 0);
                body_give(server, (count + 1) / 2);
                check(body_take(server) == (count + 1) / 2 && body_take(server) == 0);
                for (uint32_t k = 0; k < count; k++) /* in another order each time */
                    body_give(server, round == 1 ? count - k : k + 1);
            }
        sse_destroy(server);
    }
}

/* ==== All at once ===============================================================================
 */

struct crowd {
    struct sse_server *server;
    pthread_t thread;
    uint64_t draw;
    unsigned sent, refused;
};

static uint32_t crowd_below(struct crowd *c, uint32_t limit)
{
    c->draw = c->draw * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(c->draw >> 33) % limit;
}

/* Opens a stream, reads what it is sent, closes it: a receipt must never count on it any more. */
static void crowd_stream(struct crowd *c, const char *name)
{
    char head[512], sink[512];
    struct text out = text_over(head, sizeof head);
    int fd[2];

    struct user *user = user_find_or_add(c->server, slice_of(name));
    if (!user) {
        c->refused++;
        return;
    }
    struct conn *stream =
        socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0 ? loop_claim(c->server, fd[0]) : NULL;
    if (!stream)
        abort();
    atomic_store(&stream->state, CONN_SERVED);
    if (stream_open(stream, user, (struct slice){NULL, 0}, &out) == SSE_OK) {
        for (uint32_t i = crowd_below(c, 8); i > 0; i--) {
            sse_send(c->server, name, NULL, "to myself", 9, NULL);
            while (recv(fd[1], sink, sizeof sink, MSG_DONTWAIT) > 0)
                ;
        }
        user_disconnect(c->server, stream);
    }
    user_unpin(user);
    conn_close(stream);
    close(fd[1]);
}

static void *crowd_run(void *arg)
{
    struct crowd *c = arg;
    for (int i = 0; i < 3000; i++) {
        char name[16];
        struct sse_user_status status;
        struct sse_receipt receipt = {.users = 0};
        snprintf(name, sizeof name, "user%u", crowd_below(c, 40));
        switch (crowd_below(c, 12)) {
        case 0:
            crowd_stream(c, name);
            break;
        case 1:
            sse_status(c->server, name, &status);
            break;
        case 2:
            sse_disconnect(c->server, name, 0);
            break;
        case 3:
            if (sse_broadcast(c->server, "all", "to all", 6, &receipt) == SSE_OK)
                c->sent += receipt.users;
            break;
        default:
            if (sse_send(c->server, name, NULL, "hello\nthere", 11, &receipt) == SSE_OK)
                c->sent++;
            else
                c->refused++;
        }
        if (receipt.delivered > receipt.streams)
            c->sent = 0; /* seen below */
    }
    return NULL;
}

static void test_crowd(void)
{
    struct sse_config config = store_config(12, 4, 300);
    struct sse_server *server = store_server(&config);
    struct crowd crowd[4];
    uint32_t at = 0, users = 0;
    struct user *user;

    for (unsigned i = 0; i < 4; i++) {
        crowd[i] = (struct crowd){.server = server, .draw = i + 1};
        if (pthread_create(&crowd[i].thread, NULL, crowd_run, &crowd[i]) != 0)
            abort();
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(crowd[i].thread, NULL);
        check(crowd[i].sent > 1000 && crowd[i].refused == 0); /* four hold at most four users */
    }
    while ((user = user_each(server, &at))) {
        check(atomic_load(&user->pins) == 1 && !user->streams && user->stream_count == 0);
        user_unpin(user);
        users++;
    }
    check(users == 12 && table_is_sound(server, 12) && away_is_sound(server, 12));
    check(atomic_load(&server->stream_count) == 0);
    sse_destroy(server);
}

/* ==== The list ==================================================================================
 */

#define STORE_TESTS(RUN)                                                                           \
    RUN(test_sip_hash_known_answers)                                                               \
    RUN(test_sip_hash_depends_on_everything)                                                       \
    RUN(test_table_fill_and_evict)                                                                 \
    RUN(test_table_against_model)                                                                  \
    RUN(test_log_against_model)                                                                    \
    RUN(test_log_stays_small)                                                                      \
    RUN(test_log_limit)                                                                            \
    RUN(test_log_framing)                                                                          \
    RUN(test_body_lines)                                                                           \
    RUN(test_id_parse)                                                                             \
    RUN(test_id_round_trip)                                                                        \
    RUN(test_stream_greeting)                                                                      \
    RUN(test_slot_reused)                                                                          \
    RUN(test_stream_greeting_options)                                                              \
    RUN(test_stream_receipts)                                                                      \
    RUN(test_stream_partial_writes)                                                                \
    RUN(test_stream_falls_out)                                                                     \
    RUN(test_disconnect)                                                                           \
    RUN(test_disconnect_then_many_messages)                                                        \
    RUN(test_stream_leaves_behind)                                                                 \
    RUN(test_closing_makes_room)                                                                   \
    RUN(test_stream_client_closes)                                                                 \
    RUN(test_loop_waits_for_no_mutex)                                                              \
    RUN(test_slot_is_fresh)                                                                        \
    RUN(test_keep_alives_are_spread)                                                               \
    RUN(test_retry_spread)                                                                         \
    RUN(test_admission)                                                                            \
    RUN(test_send_arguments)                                                                       \
    RUN(test_send_too_big)                                                                         \
    RUN(test_status_queued)                                                                        \
    RUN(test_config_defaults)                                                                      \
    RUN(test_config_refused)                                                                       \
    RUN(test_port_in_use)                                                                          \
    RUN(test_memory)                                                                               \
    RUN(test_text_size)                                                                            \
    RUN(test_route)                                                                                \
    RUN(test_tables)                                                                               \
    RUN(test_bare_answers)                                                                         \
    RUN(test_fields)                                                                               \
    RUN(test_broken_answer)                                                                        \
    RUN(test_broken_flush)                                                                         \
    RUN(test_threads)                                                                              \
    RUN(test_run_twice)                                                                            \
    RUN(test_stop_before_run)                                                                      \
    RUN(test_bodies)                                                                               \
    RUN(test_crowd)
