/* fuzz-token - libFuzzer driver for all that is read of an access token.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -DSSE_TLS -DSSE_STACK_BYTES=262144 -pthread \
 *         -o build/fuzz-token tests/fuzz-token.c -lssl -lcrypto && mkdir -p build/corpus-token &&
 *         build/fuzz-token -max_total_time=60 -max_len=2048 build/corpus-token tests/corpus/token
 *
 * Each input is HEADER LF CLAIMS. Both are read as JSON as they are, and with white space wherever there
 * may be some, which must change nothing; and then as what they are for: a token of them, properly
 * signed, must get the verdict that they deserve, and the same token with one bit of it changed must be
 * refused. */

#define SSE_NO_MAIN
#include "../sse.c"

#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

enum { NOW_S = 1000000000 };

static const char SECRET[] = "0123456789abcdef0123456789abcdef";

/* A copy of exact size, so that one byte read too far is seen. */
static char *copy(const char *bytes, size_t len)
{
    char *to = malloc(len ? len : 1);
    require(to != NULL);
    memcpy(to, bytes, len);
    return to;
}

static size_t encode(const char *bytes, size_t len, char *to)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t n = 0, left = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | (unsigned char)bytes[i];
        for (left += 8; left >= 6; left -= 6)
            to[n++] = digits[bits >> (left - 6) & 63];
    }
    if (left)
        to[n++] = digits[bits << (6 - left) & 63];
    return n;
}

static const char *const KNOWN[] = {"a", "b", "exp", "sub"};
enum { KNOWN_COUNT = sizeof KNOWN / sizeof *KNOWN };

static bool read_object(char *at, size_t len, struct member members[KNOWN_COUNT])
{
    struct member *known[KNOWN_COUNT];
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        members[i] = (struct member){.name = KNOWN[i]};
        known[i] = &members[i];
    }
    return json_read_object(at, len, known, KNOWN_COUNT);
}

/* Reads it as an object; what it says of its members must be true. */
static void check_object(const char *bytes, size_t len)
{
    struct member members[KNOWN_COUNT];
    char *at = copy(bytes, len);
    bool good = read_object(at, len, members);

    for (int i = 0; good && i < KNOWN_COUNT; i++) {
        struct slice value = members[i].value;
        require(!value.at || (value.at >= at && value.at + value.len <= at + len));
        for (size_t k = 0; k < value.len; k++) /* decoded strings are UTF-8, but may hold \u0000 */
            require(!members[i].is_string || !value.at[k] ||
                    utf8_sequence((const unsigned char *)value.at + k, value.len - k) ||
                    ((unsigned char)value.at[k] & 0xC0) == 0x80);
    }
    free(at);
}

/* The same text with a space before and after all that is not within a string or a number. */
static size_t spread(const char *bytes, size_t len, char *to)
{
    bool quoted = false;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool mark = !quoted && bytes[i] && strchr("{}[],:", bytes[i]);
        if (mark)
            to[n++] = " \t\n\r"[i % 4];
        to[n++] = bytes[i];
        if (mark)
            to[n++] = ' ';
        if (quoted && bytes[i] == '\\' && i + 1 < len)
            to[n++] = bytes[++i];
        else if (bytes[i] == '"')
            quoted = !quoted;
    }
    return n;
}

/* White space changes neither what an object holds nor what its claims are worth. */
static void check_space(const char *bytes, size_t len)
{
    struct member members[KNOWN_COUNT], others[KNOWN_COUNT];
    struct token token = {.publishes = false}, other = token;
    char *at = copy(bytes, len), *wide = malloc(3 * len + 1);

    require(wide != NULL);
    size_t wide_len = spread(bytes, len, wide);
    bool good = read_object(at, len, members);
    char *again = copy(wide, wide_len);
    require(read_object(again, wide_len, others) == good);
    for (int i = 0; good && i < KNOWN_COUNT; i++) {
        struct slice value = members[i].value, same = others[i].value;
        require(members[i].is_string == others[i].is_string && !value.at == !same.at);
        if (value.len && (members[i].is_string || !strchr("{[", value.at[0])))
            require(slice_same(value, same));
    }
    free(at);
    free(again);
    at = copy(bytes, len);
    const char *why = token_claims(at, len, (int64_t)NOW_S * 1000, &token);
    require((why == NULL) == (token_claims(wide, wide_len, (int64_t)NOW_S * 1000, &other) == NULL));
    require(why || (token.expires_ms == other.expires_ms && token.publishes == other.publishes &&
                    token.administers == other.administers));
    free(at);
    free(wide);
}

/* There is one way only to write what base64url stands for. */
static void check_base64(const char *bytes, size_t len)
{
    char *at = copy(bytes, len), *again = malloc(len + 4);
    int n = base64url_decode(at, len);
    require(again != NULL && n <= (int)len);
    if (n >= 0)
        require(encode(at, (size_t)n, again) == len && memcmp(again, bytes, len) == 0);
    free(at);
    free(again);
}

/* What header and claims deserve, by themselves. */
static bool deserves(struct slice header, struct slice claims)
{
    struct token token = {.publishes = false};
    char *h = copy(header.at, header.len), *c = copy(claims.at, claims.len);
    bool good = token_header_is_valid(h, header.len) &&
                !token_claims(c, claims.len, (int64_t)NOW_S * 1000, &token);
    if (good)
        require(token.expires_ms > (int64_t)NOW_S * 1000);
    free(h);
    free(c);
    return good;
}

static bool accepts(const char *bytes, size_t len)
{
    struct sse_config config = {.auth_secret = SECRET, .auth_secret_len = sizeof SECRET - 1};
    struct token token;
    const char *why = NULL;
    char *at = copy(bytes, len);
    int code = token_read(&config, at, len, (int64_t)NOW_S * 1000, &token, &why);
    require((code == SSE_OK) == (why == NULL));
    if (code == SSE_OK && token.subject.at)
        require(token.subject.at >= at && token.subject.at + token.subject.len <= at + len);
    free(at);
    return code == SSE_OK;
}

static void check_token(struct slice header, struct slice claims, unsigned draw)
{
    char token[8192];
    unsigned char mac[32];
    size_t n = encode(header.at, header.len, token);
    token[n++] = '.';
    n += encode(claims.at, claims.len, token + n);
    require(hmac_sha256(slice_of(SECRET), (struct slice){token, n}, mac));
    token[n++] = '.';
    n += encode((const char *)mac, sizeof mac, token + n);
    require(accepts(token, n) == deserves(header, claims));
    token[draw % n] ^= (char)(1U << draw / n % 7);
    require(!accepts(token, n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice claims = {(const char *)data, size}, header = slice_cut(&claims, '\n');
    unsigned draw = 2166136261u;

    if (size > 2048)
        return -1;
    for (size_t i = 0; i < size; i++)
        draw = (draw ^ data[i]) * 16777619u;
    if (!claims.at)
        claims = slice_of("");
    check_object(header.at, header.len);
    check_object(claims.at, claims.len);
    check_space(claims.at, claims.len);
    check_base64((const char *)data, size);
    require(!accepts((const char *)data, size));
    check_token(header, claims, draw);
    return 0;
}
