/* fuzz - libFuzzer driver for everything that parses what strangers send.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -DSSE_STACK_BYTES=262144 -pthread \
 *         -o build/fuzz tests/fuzz.c && mkdir -p build/corpus &&
 *         build/fuzz -max_total_time=60 -max_len=4096 build/corpus tests/corpus/request
 *
 * Each input is a request: its head is parsed, a body that follows is decoded if it is chunked,
 * the query is searched, the target percent-decoded, Origin, Last-Event-ID and the places where a
 * token may stand are read, and all of it is written as JSON and framed into a small log. Beyond
 * crashes it checks invariants: a verdict does not depend on how the input was cut into pieces, and
 * what is framed can be read back. */

#define SSE_NO_MAIN
#include "../sse.c"
#include "parse.h"

#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* The verdict on a prefix is "need more", or the same as on the whole. */
static void check_prefixes(const char *in, size_t len, int verdict, size_t step)
{
    struct http_request r;
    for (size_t cut = 0; cut < len; cut += step) {
        int n = head_parse(in, cut, &r);
        if (n != HTTP_MORE)
            require(n == verdict || n == -431 || n == -414);
    }
}

/* Decodes in pieces of `step` bytes; returns the verdict and the decoded length. */
static int decode_chunks(const char *in, size_t len, size_t step, size_t *total)
{
    struct http_chunks c = {.state = CHUNK_SIZE};
    struct http_request r = {.why = NULL};
    struct slice data;
    size_t at = 0, end = 0;

    *total = 0;
    while (c.state != CHUNK_DONE) {
        int n = chunk_decode(&c, in + at, end - at, &data, &r);
        require(n <= (int)(end - at));
        if (n < 0)
            return n;
        at += (size_t)n;
        *total += n > 0 ? data.len : 0;
        if (n == HTTP_MORE && end == len)
            return HTTP_MORE;
        if (n == HTTP_MORE)
            end = len - end < step ? len : end + step;
    }
    return (int)at + 1;
}

/* Frames the body and reads it back as a client would. */
static void check_frame(struct slice event, struct slice body)
{
    static char ring[512];
    static uint32_t starts[4];
    static int64_t times[4];
    static struct log log;
    if (!log.ring) {
        log = (struct log){.ring = ring,
                           .starts = starts,
                           .times_us = times,
                           .max_bytes = sizeof ring,
                           .max_count = 4};
        log_reset(&log);
    }
    uint64_t next = log.next;
    if (!log_append(&log, 0xABCu, event, body)) {
        require(log.next == next);
        return;
    }
    char frame[sizeof ring];
    uint32_t from = log_start(&log, next), len = log.head - from;
    for (uint32_t i = 0; i < len; i++)
        frame[i] = ring[log_index(&log, from + i)];
    require(len > 2 && frame[len - 1] == '\n' && frame[len - 2] == '\n');
    for (uint32_t i = 0; i + 2 < len; i++)
        require(frame[i] != '\r' && !(frame[i] == '\n' && frame[i + 1] == '\n'));
    require(memcmp(frame, "id: abc-", 8) == 0);
    for (char *line = frame; line < frame + len - 1;) {
        char *end = memchr(line, '\n', (size_t)(frame + len - line));
        require(!strncmp(line, "id: ", 4) || !strncmp(line, "event: ", 7) ||
                !strncmp(line, "data: ", 6));
        line = end + 1;
    }
}

static void check_text(struct slice s)
{
    char json[1024], value[64];
    struct text t = text_over(json, sizeof json);
    struct origin o;
    uint64_t epoch, seq;

    json_string(&t, s.at, s.len);
    require(t.full || text_is_utf8(t.at, t.len));
    http_query(s, "event", value, sizeof value);
    percent_decode(s, true, value, sizeof value);
    text_is_user_id(s.at, s.len);
    if (origin_parse(s, &o))
        require(o.host.len > 0);
    id_parse(s, &epoch, &seq);
}

/* A token that is found is part of the request, or was decoded from its query. */
static void check_token_find(const struct http_request *r)
{
    char *to = malloc(SSE_TOKEN_BYTES);
    const char *why = NULL;
    require(to != NULL);
    int n = token_find(r, true, to, &why);
    require(why || (n >= 0 && n <= SSE_TOKEN_BYTES));
    free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of exact size, so that one byte read too far is seen. */
    char *in = malloc(size ? size : 1);
    struct http_request r;
    size_t one, all;

    require(in != NULL);
    memcpy(in, data, size);
    int n = head_parse(in, size, &r);
    require(n <= (int)size);
    if (n < 0)
        require(r.why != NULL && strcmp(status_title(-n), "Status") != 0);
    check_prefixes(in, size, n, size > 512 ? 61 : 1);
    size_t head = n > 0 ? (size_t)n : 0;
    struct slice body = {in + head, size - head};
    int whole = decode_chunks(body.at, body.len, body.len + 1, &all);
    int pieces = decode_chunks(body.at, body.len, 1, &one);
    require(whole == pieces && (whole <= 0 || one == all));
    if (n > 0) {
        check_token_find(&r);
        check_text(r.path);
        if (r.query.at)
            check_text(r.query);
        if (r.origin.at)
            check_text(r.origin);
        if (r.last_event_id.at)
            check_text(r.last_event_id);
        if (text_is_utf8(body.at, body.len))
            check_frame(text_is_name(r.path.at, r.path.len) && r.path.len <= SSE_EVENT_BYTES
                            ? r.path
                            : slice_of(""),
                        body);
    }
    check_text(body);
    free(in);
    return 0;
}
