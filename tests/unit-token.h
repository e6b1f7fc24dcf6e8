/* unit-token - unit tests of what reads access tokens: base64url, JSON, claims, and where they stand.
 * Part of unit.c, which includes sse.c, defines check() and runs TOKEN_TESTS. */

/* A copy that may be written to, and one byte past which nothing may be read. */
static char *token_copy(const char *text, size_t *len)
{
    *len = strlen(text);
    char *copy = malloc(*len ? *len : 1);
    check(copy != NULL);
    if (copy)
        memcpy(copy, text, *len);
    return copy;
}

static void test_base64url(void)
{
    static const struct {
        const char *text, *decoded; /* NULL if it is none */
    } cases[] = {{"", ""},        {"Zg", "f"},        {"Zm8", "fo"},
                 {"Zm9v", "foo"}, {"Zm9vYg", "foob"}, {"-_-_", "\xfb\xff\xbf"},
                 {"Z", NULL},     {"Zm9vZ", NULL},    {"Zh", NULL},
                 {"Zm9", NULL},   {"Zg==", NULL},     {"Zm 8", NULL},
                 {"+/+/", NULL},  {"Zm8\n", NULL},    {"Zm8.", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len;
        char *at = token_copy(cases[i].text, &len);
        int n = base64url_decode(at, len);
        check(cases[i].decoded ? n == (int)strlen(cases[i].decoded) &&
                                     memcmp(at, cases[i].decoded, (size_t)n) == 0
                               : n == -1);
        free(at);
    }
}

/* Reads "a" and "n" from a copy, which the caller frees. */
static bool token_object(const char *json, struct member *a, struct member *n, char **at)
{
    struct member *const known[] = {a, n};
    size_t len;
    *a = (struct member){.name = "a"};
    *n = (struct member){.name = "n"};
    *at = token_copy(json, &len);
    return json_read_object(*at, len, known, 2);
}

/* The object's form, and that of its strings, whoever reads them. */
static void test_json_object(void)
{
    static const char *const good[] = {"{}",
                                       " { } ",
                                       "{\"a\":1}",
                                       "\t{\r\n\"a\" : 1 , \"b\" : [ ] }\n",
                                       "{\"a\":-0.5e+7,\"b\":0,\"c\":10E2}",
                                       "{\"a\":true,\"b\":false,\"c\":null}",
                                       "{\"a\":{\"a\":{\"a\":[1,[2,{}],\"]\"]}}}",
                                       "{\"b\":[[[[[[[[]]]]]]]],\"a\":1}",
                                       "{\"b\":{\"a\":\"}\\\"]\",\"a\":2},\"a\":1}",
                                       "{\"\":\"\"}",
                                       "{\"\\ud83d\\ude42\":1,\"\\u00e9\\\\\\/\\b\":2}"};
    static const char *const bad[] = {"",
                                      "{",
                                      "}",
                                      "[]",
                                      "{}{}",
                                      "{}x",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":,}",
                                      "{\"a\":]}",
                                      "{\"a\":1,}",
                                      "{,\"a\":1}",
                                      "{\"a\":1 \"b\":2}",
                                      "{\"a\":[1]2}",
                                      "{\"a\":1[2]}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "{\"a\":[1}",
                                      "{\"a\":[[[[[[[[[]]]]]]]]]}",
                                      "{\"a\":\"\\u12\"}",
                                      "{\"a\":\"\\u12",
                                      "{\"a\":\"\\u 123\"}",
                                      "{\"a\":\"\\ud83d\"}",
                                      "{\"a\":\"\\ud83d\\u0041\"}",
                                      "{\"a\":\"\\ud83d\\n\"}",
                                      "{\"a\":\"\\ude42\"}",
                                      "{\"a\":\"\\x\"}",
                                      "{\"a\":\"\\",
                                      "{\"a\":\"",
                                      "{\"a\":\"\n\"}",
                                      "{\"a\":[\"\\x\"]}",
                                      "{\"a\":\"\xff\"}",
                                      "{\"b\":\"\xff\"}",
                                      "{\"a\":1,\"a\":1}",
                                      "{\"a\":1,\"b\":2,\"\\u0061\":2}"};
    struct member a, n;
    char *at;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        check(token_object(good[i], &a, &n, &at));
        free(at);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check(!token_object(bad[i], &a, &n, &at));
        free(at);
    }
}

static void test_json_values(void)
{
    struct member a, n;
    char *at;
    check(token_object("{\"\\u0061\":\"\\u0041\\u00e9\\u20ac\\ud83d\\ude42\\n\\\"\",\"n\":-12.5}",
                       &a, &n, &at));
    check(a.is_string && slice_is(a.value, "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82\n\""));
    check(!n.is_string && slice_is(n.value, "-12.5"));
    free(at);
    check(
        token_object(" { \"n\" : 1 , \"A\" : true\n, \"a\" : { \"n\" : [ 1 ] }\t} ", &a, &n, &at));
    check(slice_is(n.value, "1") && !a.is_string && slice_is(a.value, "{ \"n\" : [ 1 ] }"));
    free(at);
    check(token_object("{\"a\":\"\"}", &a, &n, &at));
    check(a.is_string && a.value.at && a.value.len == 0 && !n.value.at);
    free(at);
}

static void test_token_dates(void)
{
    static const struct {
        const char *written;
        int64_t ms; /* -2 if it is no date */
    } cases[] = {{"0", 0},
                 {"1", 1000},
                 {"1.5", 1500},
                 {"1.0019", 1001},
                 {"1.9999", 1999},
                 {"-1", -1},
                 {"-0.1", -1},
                 {"1e3", 1000000},
                 {"1E3", 1000000},
                 {"1e+3", 1000000},
                 {"1e10", 10000000000000},
                 {"1.5e0", 1500},
                 {"1.7e9", 1700000000000},
                 {"17000000000000e-4", 1700000000000},
                 {"0.0000000017e18", 1700000000000},
                 {"1234567.891234e3", 1234567891234},
                 {"1999e-3", 1999},
                 {"19999e-4", 1999},
                 {"1e-4", 0},
                 {"1e-99999999999999999999", 0},
                 {"0e99999999999999999999", 0},
                 {"0.0e9", 0},
                 {"1e15", 1000000000000000000},
                 {"9e15", 9000000000000000000},
                 {"1e16", INT64_MAX},
                 {"1e400", INT64_MAX},
                 {"1e99999999999999999999", INT64_MAX},
                 {"-1e10", -1},
                 {"-1E-10", -1},
                 {"2000000000", 2000000000000},
                 {"", -2},
                 {"01", -2},
                 {"-01", -2},
                 {"1.", -2},
                 {".1", -2},
                 {"1.-1", -2},
                 {"+1", -2},
                 {"-", -2},
                 {"--1", -2},
                 {"1e", -2},
                 {"1e-", -2},
                 {"1e+-1", -2},
                 {"1e1.5", -2},
                 {"1E1e1", -2},
                 {"e1", -2},
                 {"0x1", -2},
                 {"NaN", -2},
                 {"true", -2},
                 {"[1]", -2},
                 {"9223372036854775.807", INT64_MAX},
                 {"9223372036854775.8069", 9223372036854775806},
                 {"9223372036854774", 9223372036854774000},
                 {"9223372036854776", INT64_MAX},
                 {"99999999999999999999999", INT64_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t ms;
        struct member m = {.value = slice_of(cases[i].written)};
        bool good = token_date(m, &ms);
        check(good ? ms == cases[i].ms : cases[i].ms == -2);
    }
    int64_t ms;
    check(!token_date((struct member){.is_string = true, .value = slice_of("1")}, &ms));
    check(!token_date((struct member){.is_string = false}, &ms));
}

static void test_token_claims(void)
{
    struct token token = {.publishes = false};
    size_t len;
    char *at = token_copy(
        "{\"sub\":\"al\\u0069ce\",\"exp\":100,\"nbf\":50,\"scope\":\"x sse:admin sse:publish\"}",
        &len);
    check(token_claims(at, len, 99999, &token) == NULL);
    check(slice_is(token.subject, "alice") && token.administers && token.publishes);
    check(token.expires_ms == 100000);
    free(at);
    static const struct {
        const char *claims;
        int64_t now;
        bool good;
    } cases[] = {{"{\"exp\":100}", 99999, true},
                 {"{\"exp\":100}", 100000, false},
                 {"{\"exp\":100.001}", 100000, true},
                 {"{\"exp\":100,\"nbf\":50}", 50000, true},
                 {"{\"exp\":200,\"nbf\":150}", 90000, true}, /* a minute for clocks that differ */
                 {"{\"exp\":200,\"nbf\":150}", 89999, false},
                 {"{\"exp\":1e10,\"nbf\":1.5E2}", 150000, true},
                 {"{\"exp\":100,\"nbf\":1e400}", 50000, false},
                 {"{\"exp\":100,\"aud\":null}", 0, false},
                 {"{\"exp\":100,\"sub\":null}", 0, false},
                 {"{\"exp\":\"100\"}", 0, false},
                 {"{\"exp\":100 }", 99999, true},
                 {"{\"exp\":100\n}", 100000, false},
                 {"{ \"exp\" : 100\t, \"nbf\" : 50 }", 100000, false},
                 {"{\"exp\":100.5 }", 100499, true},
                 {"{\"exp\":100.5\r\n}", 100500, false},
                 {"{\"exp\":100,\"nbf\":50 }", 50000, true},
                 {"{\"exp\":-1 }", 0, false},
                 {"{\"exp\": }", 0, false},
                 {"{\"exp\":01}", 0, false},
                 {"{\"exp\":100,\"exp\":100}", 0, false},
                 {"{\"exp\":100,\"nbf\":null}", 0, false},
                 {"{\"exp\":100,\"scope\":[\"sse:admin\"]}", 0, false},
                 {"{\"exp\":100,\"x\":1,\"x\":{\"exp\":\"1\"}}", 0, true},
                 {"{}", 0, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at = token_copy(cases[i].claims, &len);
        check((token_claims(at, len, cases[i].now, &token) == NULL) == cases[i].good);
        free(at);
    }
}

static void test_token_find(void)
{
    static const struct {
        const char *fields, *query, *found; /* NULL if there is none */
    } cases[] = {{"Authorization: Bearer a.b.c\r\n", "", "a.b.c"},
                 {"authorization:  bearer   a.b.c  \r\n", "", "a.b.c"},
                 {"Authorization: Bearer\r\n", "?access_token=q", ""},
                 {"Authorization: Bearera.b.c\r\n", "?access_token=q", "q"},
                 {"Authorization: Basic x\r\n", "", NULL},
                 {"Authorization: Basic x\r\nCookie: sse_token=c\r\n", "", "c"},
                 {"Authorization: Bearer h\r\nCookie: sse_token=c\r\n", "?access_token=q", "h"},
                 {"Cookie: sse_token=c\r\n", "?access_token=q%2Ex", "q.x"},
                 {"Cookie: sse_token=c\r\n", "?access_token=", "c"},
                 {"Cookie: sse_token=c\r\n", "?access_token=%zz", NULL},
                 {"Cookie: a=b; sse_token=c; d=e\r\n", "", "c"},
                 {"Cookie: a=b;sse_token=c=d\r\n", "", "c=d"},
                 {"Cookie: a=b\r\nCookie: c=d; sse_token=e\r\n", "", "e"},
                 {"Cookie: sse_token=c\r\nX: y\r\ncookie: sse_token=d\r\n", "", "c"},
                 {"Cookie: sse_token=\r\nCookie: sse_token=d\r\n", "", "d"},
                 {"XCookie: sse_token=c\r\n", "", NULL},
                 {"Cookie: sse_token\r\n", "", NULL},
                 {"Cookie: Sse_token=c; xsse_token=d\r\n", "", NULL},
                 {"", "?Access_token=q", NULL},
                 {"", "", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char head[512], to[SSE_TOKEN_BYTES];
        const char *why = NULL;
        struct http_request r;
        int len = snprintf(head, sizeof head, "GET /%s HTTP/1.1\r\nHost: a\r\n%s\r\n",
                           cases[i].query, cases[i].fields);
        check(head_parse(head, (size_t)len, &r) == len);
        bool is_cookie = strstr(cases[i].fields, "ookie: ") && cases[i].found;
        int n = token_find(&r, true, to, &why);
        check((cases[i].found == NULL) == (why != NULL));
        if (cases[i].found)
            check(n == (int)strlen(cases[i].found) && memcmp(to, cases[i].found, (size_t)n) == 0);
        why = NULL; /* a cookie that does not count */
        token_find(&r, false, to, &why);
        if (is_cookie && !strstr(cases[i].fields, "Bearer ") && !strstr(cases[i].query, "=q"))
            check(why != NULL);
    }
}

#define TOKEN_TESTS(ENTRY)                                                                         \
    ENTRY(test_base64url)                                                                          \
    ENTRY(test_json_object)                                                                        \
    ENTRY(test_json_values)                                                                        \
    ENTRY(test_token_dates)                                                                        \
    ENTRY(test_token_claims)                                                                       \
    ENTRY(test_token_find)
