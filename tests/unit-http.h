/* unit-http - unit tests of everything that reads what strangers send: text and JSON, the HTTP
 * parser, chunked bodies, queries, event names and origins. Part of unit.c, which includes sse.c,
 * defines check() and runs HTTP_TESTS.
 *
 * What a parser reads lies right against a page that may not be touched, so that one byte read too
 * many ends the program. Every request is parsed at every prefix: of a valid one each must say
 * "need more", and of another the first objection must be the right one, since a server answers as
 * soon as it sees one. */

#define BYTES(literal)                                                                             \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

#define HOST  "Host: h\r\n"
#define GET   "GET / HTTP/1.1\r\n"
#define POST  "POST / HTTP/1.1\r\nHost: h\r\n"
#define GET10 "GET / HTTP/1.0\r\n"
#define TE    "Transfer-Encoding: "
#define CL    "Content-Length: "

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { GUARDED_BYTES = 65536, HEAD_ROOM = 32768 };

/* ---- Helpers ----------------------------------------------------------------------------------
 */

/* Counts a failure and shows the bytes it happened with. */
static void check_row(bool ok, int line, const char *what, struct slice row)
{
    if (ok)
        return;
    unit_failures++;
    fprintf(stderr, "not ok: %s:%d %s: \"", __FILE__, line, what);
    for (size_t i = 0; i < row.len && i < 160; i++)
        if (row.at[i] >= ' ' && row.at[i] < 0x7F)
            fputc(row.at[i], stderr);
        else
            fprintf(stderr, "\\x%02x", (unsigned)(unsigned char)row.at[i]);
    fprintf(stderr, "\"%s\n", row.len > 160 ? "..." : "");
}

#define check_in(row, condition) check_row(condition, __LINE__, #condition, row)

/* The end of GUARDED_BYTES that can be used; what follows cannot even be read. */
static char *guard_end(void)
{
    static char *end;
    if (!end) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t size = (GUARDED_BYTES + page - 1) / page * page;
        void *area =
            mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED || mprotect((char *)area + size, page, PROT_NONE) != 0) {
            perror("unit-http: mmap");
            exit(1);
        }
        end = (char *)area + size;
    }
    return end;
}

/* A copy that ends at the guard. The next call overwrites it. */
static const char *guarded(const char *bytes, size_t len)
{
    char *at = guard_end() - len;
    if (len > 0)
        memcpy(at, bytes, len);
    return at;
}

static bool slice_equals(struct slice s, const char *expected)
{
    return expected ? s.at && slice_is(s, expected) : !s.at;
}

/* A head composed here: text, then `fill` times a letter, then more text. */
static struct slice filled(char *buffer, const char *before, size_t fill, const char *after)
{
    struct text t = text_over(buffer, HEAD_ROOM);
    text_string(&t, before);
    for (size_t i = 0; i < fill; i++)
        text_put(&t, "a", 1);
    text_string(&t, after);
    check(!t.full);
    return (struct slice){buffer, t.len};
}

/* ---- Heads ------------------------------------------------------------------------------------
 */

static bool inside(struct slice s, const char *in, size_t len)
{
    return !s.at || (s.at >= in && s.at + s.len <= in + len);
}

static bool slices_inside(const struct http_request *r, const char *in, size_t len)
{
    bool own_path = slice_is(r->path, "/"); /* may be a constant */
    return inside(r->method, in, len) && inside(r->target, in, len) &&
           (own_path || inside(r->path, in, len)) && inside(r->query, in, len) &&
           inside(r->authority, in, len) && inside(r->host, in, len) && inside(r->origin, in, len);
}

/* Parses a valid head at every prefix, whole, and with more behind it. *r is of the last. */
static void head_accept(struct slice head, struct http_request *r)
{
    static const char *const behind[] = {"\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "\n", "\x01",
                                         "\xFF\xFE"};
    char with[HEAD_ROOM + 64];

    for (size_t cut = 0; cut < head.len; cut++) {
        int n = head_parse(guarded(head.at, cut), cut, r);
        if (n != HTTP_MORE) {
            check_in(((struct slice){head.at, cut}), n == HTTP_MORE);
            fprintf(stderr, "        %d: %s\n", n, r->why ? r->why : "?");
            break;
        }
    }
    for (size_t i = 0; i < COUNT(behind); i++) {
        struct text t = text_over(with, sizeof with);
        text_put(&t, head.at, head.len);
        text_string(&t, behind[i]);
        check_in(head, head_parse(guarded(with, t.len), t.len, r) == (int)head.len);
    }
    const char *in = guarded(head.at, head.len);
    int n = head_parse(in, head.len, r);
    check_in(head, n == (int)head.len);
    check_in(head, n <= 0 || slices_inside(r, in, head.len));
}

/* Parses a head that is to be refused: the first objection is `status`, and it stands. */
static void head_refuse(struct slice head, int status)
{
    struct http_request r;
    bool refused = false;

    for (size_t cut = 0; cut <= head.len; cut++) {
        int n = head_parse(guarded(head.at, cut), cut, &r);
        if (n == -status && r.why && r.why[0])
            refused = true;
        else if (n != HTTP_MORE || refused) {
            check_in(((struct slice){head.at, cut}), n == -status);
            fprintf(stderr, "        %d instead of %d: %s\n", n, -status, r.why ? r.why : "?");
            return;
        }
    }
    check_in(head, refused);
}

struct valid_head {
    struct slice head;
    const char *method, *path, *query, *authority;
    int minor;
    bool persists;
};

static void test_head_valid(void)
{
    static const struct valid_head rows[] = {
        {BYTES(GET HOST "\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES("\r\n" GET HOST "\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES("GET /a/b?c=d&e HTTP/1.1\r\nHost: h:80\r\n\r\n"), "GET", "/a/b", "c=d&e", "h:80", 1,
         true},
        {BYTES("GET /a? HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "/a", "", "h", 1, true},
        {BYTES("GET /a?b?c HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "/a", "b?c", "h", 1, true},
        {BYTES("GET //a HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "//a", NULL, "h", 1, true},
        {BYTES("GET /%20:@ HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "/%20:@", NULL, "h", 1, true},
        {BYTES("get / HTTP/1.1\r\nHost: h\r\n\r\n"), "get", "/", NULL, "h", 1, true},
        {BYTES("!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\nHost: h\r\n\r\n"), "!#$%&'*+-.^_`|~09azAZ", "/",
         NULL, "h", 1, true},
        /* versions */
        {BYTES("GET / HTTP/1.2\r\nHost: h\r\n\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES("GET / HTTP/1.9\r\nHost: h\r\n\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES(GET10 "\r\n"), "GET", "/", NULL, NULL, 0, false},
        {BYTES(GET10 HOST "\r\n"), "GET", "/", NULL, "h", 0, false},
        {BYTES("POST / HTTP/1.0\r\n" CL "3\r\n\r\n"), "POST", "/", NULL, NULL, 0, false},
        /* absolute-form: its authority counts, whatever Host says */
        {BYTES("GET http://o:81/a?b HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "/a", "b", "o:81", 1,
         true},
        {BYTES("GET HTTP://o HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "/", NULL, "o", 1, true},
        {BYTES("GET https://o?b HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "/", "b", "o", 1, true},
        {BYTES("GET http://[::1]:8080/ HTTP/1.0\r\n\r\n"), "GET", "/", NULL, "[::1]:8080", 0,
         false},
        {BYTES("GET http://o/http://p HTTP/1.1\r\nHost: h\r\n\r\n"), "GET", "/http://p", NULL, "o",
         1, true},
        /* asterisk-form */
        {BYTES("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"), "OPTIONS", "*", NULL, "h", 1, true},
        {BYTES("OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n"), "OPTIONS", "/", NULL, "h", 1, true},
        /* fields: any case, any white space around the value, odd but lawful names and values */
        {BYTES(GET "hOST:h\r\n\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES(GET "HOST: \t h \t \r\n\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES(GET HOST "X:\r\nY: \r\nZ:\t\r\n!#$%&'*+-.^_`|~09: a\tb:c\x80\xFF\r\n\r\n"), "GET",
         "/", NULL, "h", 1, true},
        {BYTES(GET HOST "X: a\r\nX: b\r\nHosts: c\r\nX-Host: d\r\n\r\n"), "GET", "/", NULL, "h", 1,
         true},
        /* persistence */
        {BYTES(GET HOST "Connection: close\r\n\r\n"), "GET", "/", NULL, "h", 1, false},
        {BYTES(GET HOST "CONNECTION: CLOSE\r\n\r\n"), "GET", "/", NULL, "h", 1, false},
        {BYTES(GET HOST "Connection: keep-alive\r\n\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES(GET HOST "Connection: upgrade , Close\r\n\r\n"), "GET", "/", NULL, "h", 1, false},
        {BYTES(GET HOST "Connection: ,,keep-alive,close,\r\n\r\n"), "GET", "/", NULL, "h", 1,
         false},
        {BYTES(GET HOST "Connection: x\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"),
         "GET", "/", NULL, "h", 1, false},
        {BYTES(GET HOST "Connection: closed, not-close, clos\r\n\r\n"), "GET", "/", NULL, "h", 1,
         true},
        {BYTES(GET HOST "Connection:\r\n\r\n"), "GET", "/", NULL, "h", 1, true},
        {BYTES(GET10 "Connection: Keep-Alive\r\n\r\n"), "GET", "/", NULL, NULL, 0, true},
        {BYTES(GET10 "Connection: keep-alive, close\r\n\r\n"), "GET", "/", NULL, NULL, 0, false},
    };
    struct http_request r;

    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct valid_head *row = &rows[i];
        head_accept(row->head, &r);
        check_in(row->head, slice_equals(r.method, row->method));
        check_in(row->head, slice_equals(r.path, row->path));
        check_in(row->head, slice_equals(r.query, row->query));
        check_in(row->head, slice_equals(r.authority, row->authority));
        check_in(row->head, r.minor == row->minor);
        check_in(row->head, http_persists(&r) == row->persists);
        check_in(row->head, !r.chunked && !r.has_codings && !r.unknown_coding);
    }
}

/* The fields that mean something, each in odd case and with odd white space. */
static void test_head_fields(void)
{
    static const struct slice head =
        BYTES("POST /p HTTP/1.1\r\nhOsT:h:1\r\noRIGIN: http://a\t\r\nSEC-fetch-Site:\tnone\r\n"
              "last-EVENT-id:  7-8 \r\neXPECT: 100-Continue\r\ncontent-LENGTH: 12 \r\n\r\n");
    static const struct slice empty =
        BYTES(GET HOST "Origin:\r\nLast-Event-ID: \r\nSec-Fetch-Site:\t\r\nExpect:\r\n\r\n");
    struct http_request r;

    head_accept(head, &r);
    check(slice_is(r.host, "h:1") && slice_is(r.authority, "h:1"));
    check(slice_is(r.origin, "http://a"));
    check(slice_is(r.sec_fetch_site, "none"));
    check(slice_is(r.last_event_id, "7-8"));
    check(r.expects_continue && !r.expects_other);
    check(r.length.at && r.content_length == 12 && !r.chunked);
    check(slice_is(r.target, "/p"));

    head_accept(empty, &r); /* given, but empty: not the same as absent */
    check(r.origin.at && r.origin.len == 0);
    check(r.last_event_id.at && r.last_event_id.len == 0);
    check(r.sec_fetch_site.at && r.sec_fetch_site.len == 0);
    check(!r.expects_continue && !r.expects_other);

    /* lists, over several fields (RFC 9110 section 5.3) */
    static const struct slice lists = BYTES(
        GET HOST "Expect: 100-continue,\r\nCookie: a=1\r\nX: y\r\nExpect: 100-CONTINUE\r\n"
                 "cookie:b=2; c=3 \r\nConnection: x, Keep-Alive\r\nConnection: close\r\n\r\n");
    head_accept(lists, &r);
    check(r.expects_continue && !r.expects_other && r.wants_close && r.wants_keep_alive);
    struct slice rest = r.fields;
    check(slice_is(http_next_field(&rest, "cookie"), "a=1"));
    check(slice_is(http_next_field(&rest, "cookie"), "b=2; c=3"));
    check(!http_next_field(&rest, "cookie").at && !http_next_field(&rest, "cookie").at);
    rest = r.fields;
    check(slice_is(http_next_field(&rest, "HOST"), "h"));
    static const struct slice unknown = BYTES(GET HOST "Expect: 100-continue, more\r\n\r\n");
    head_accept(unknown, &r);
    check(r.expects_continue && r.expects_other);
    rest = r.fields;
    check(!http_next_field(&rest, "cookie").at);
}

static void test_head_request_line(void)
{
    static const struct slice rows[] = {
        BYTES("\r\n\r\n"),
        BYTES("\r\n\r\n" GET HOST "\r\n"),
        BYTES(" \r\n"),
        BYTES("GET\r\n" HOST "\r\n"),
        BYTES("GET \r\n" HOST "\r\n"),
        BYTES("GET /\r\n" HOST "\r\n"),
        BYTES("GET / \r\n" HOST "\r\n"),
        BYTES(" GET / HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET  / HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET /  HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/1.1 \r\n" HOST "\r\n"),
        BYTES("GET / x HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET\t/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET /\tHTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET /\ta HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/1.1\t\r\n" HOST "\r\n"),
        BYTES("/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES(": / HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("G(T / HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("G\xC3\x89T / HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("\"GET\" / HTTP/1.1\r\n" HOST "\r\n"),
        /* versions that are none */
        BYTES("GET / http/1.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/1.\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/1,1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/1.10\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/11.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/01.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/1.x\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/x.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP/-1.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTPS/1.1\r\n" HOST "\r\n"),
        BYTES("GET / HTTP 1.1\r\n" HOST "\r\n"),
        BYTES("GET / ICY/1.1\r\n" HOST "\r\n"),
        /* targets that are none */
        BYTES("GET a HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET ?a HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET * HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("options * HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("OPTIONS ** HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("OPTIONS *?a HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET /#a HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET /?a#b HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET h HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("CONNECT h:80 HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http: HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http:/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http:// HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http:/a/b HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http:///a HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http://?a HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http://:80/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http://u@o/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http://o:x/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http://o:65536/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http://[::1/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http://o/#a HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET http//o/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET ftp://o/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET ://o/ HTTP/1.1\r\n" HOST "\r\n"),
        BYTES("GET httpx://o/ HTTP/1.1\r\n" HOST "\r\n"),
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        head_refuse(rows[i], 400);
}

static void test_head_version(void)
{
    static const struct slice rows[] = {
        BYTES("GET / HTTP/0.9\r\n" HOST "\r\n"),         BYTES("GET / HTTP/0.0\r\n\r\n"),
        BYTES("GET / HTTP/2.0\r\n" HOST "\r\n"),         BYTES("GET / HTTP/2.1\r\n\r\n"),
        BYTES("GET / HTTP/3.0\r\n" HOST "\r\n"),         BYTES("GET / HTTP/9.9\r\n\r\n"),
        BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),       BYTES("\r\nGET / HTTP/2.0\r\n\r\n"),
        BYTES("GET http://o/ HTTP/2.0\r\n" HOST "\r\n"),
    };
    char line[] = "GET / HTTP/1.x\r\nHost: h\r\n\r\n";
    struct http_request r;

    for (size_t i = 0; i < COUNT(rows); i++)
        head_refuse(rows[i], 505);
    for (int minor = 0; minor <= 9; minor++) {
        line[13] = (char)('0' + minor);
        head_accept(slice_of(line), &r);
        check_in(slice_of(line), r.minor == (minor > 0));
    }
}

/* A byte that no line may hold, at every place of a head, instead of and between its bytes. */
static void test_head_controls(void)
{
    static const char head[] = "POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nX: y\r\n\r\n";
    enum { LEN = sizeof head - 1 };
    char bad[LEN + 1];

    for (unsigned byte = 0; byte < 0x80; byte++) {
        if ((byte >= 0x20 && byte < 0x7F) || byte == '\t')
            continue;
        for (size_t at = 0; at < LEN; at++) {
            memcpy(bad, head, at);
            bad[at] = (char)byte;
            memcpy(bad + at + 1, head + at, LEN - at);
            if (byte != '\n' || at < LEN - 1) /* there it would follow a whole head */
                head_refuse((struct slice){bad, LEN + 1}, 400);
            memcpy(bad, head, LEN);
            bad[at] = (char)byte;
            if ((char)byte != head[at])
                head_refuse((struct slice){bad, LEN}, 400);
        }
    }
}

static void test_head_malformed_fields(void)
{
    static const struct slice rows[] = {
        /* line ends */
        BYTES("GET / HTTP/1.1\n" HOST "\r\n"),
        BYTES("GET / HTTP/1.1\r" HOST "\r\n"),
        BYTES("GET / HTTP/1.1\r\r\n" HOST "\r\n"),
        BYTES("\n" GET HOST "\r\n"),
        BYTES("\r" GET HOST "\r\n"),
        BYTES(GET "Host: h\n\r\n"),
        BYTES(GET HOST "\n"),
        BYTES(GET HOST "\r\r\n"),
        BYTES(GET HOST "X: a\rY: b\r\n\r\n"),
        BYTES(GET HOST "X: a\nY: b\r\n\r\n"),
        BYTES(GET HOST "X: a\0b\r\n\r\n"),
        BYTES(GET HOST "X\0: a\r\n\r\n"),
        BYTES(GET HOST "X: \x7F\r\n\r\n"),
        BYTES(GET HOST "X: \x0B\r\n\r\n"),
        /* folding */
        BYTES(GET HOST "X: a\r\n b\r\n\r\n"),
        BYTES(GET HOST "X: a\r\n\tb\r\n\r\n"),
        BYTES(GET HOST "X: a\r\n b: c\r\n\r\n"),
        BYTES(GET HOST "X: a\r\n \r\n\r\n"),
        BYTES(GET " " HOST HOST "\r\n"),
        BYTES(GET "\t" HOST HOST "\r\n"),
        BYTES(GET "Host:\r\n h\r\n\r\n"),
        /* names */
        BYTES(GET "Host : h\r\n\r\n"),
        BYTES(GET "Host\t: h\r\n\r\n"),
        BYTES(GET HOST "X : a\r\n\r\n"),
        BYTES(GET HOST "X Y: a\r\n\r\n"),
        BYTES(GET HOST ": a\r\n\r\n"),
        BYTES(GET HOST ":\r\n\r\n"),
        BYTES(GET HOST "X\r\n\r\n"),
        BYTES(GET HOST "X a\r\n\r\n"),
        BYTES(GET HOST "(X): a\r\n\r\n"),
        BYTES(GET HOST "\"X\": a\r\n\r\n"),
        BYTES(GET HOST "X@Y: a\r\n\r\n"),
        BYTES(GET HOST "X\xC3\xA9: a\r\n\r\n"),
        BYTES(GET HOST "Content-Length : 3\r\n\r\n"),
        BYTES(GET HOST "Transfer-Encoding : chunked\r\n\r\n"),
        /* more than once, or not at all */
        BYTES(GET "\r\n"),
        BYTES(GET "X-Host: h\r\n\r\n"),
        BYTES("GET http://o/ HTTP/1.1\r\n\r\n"),
        BYTES("GET / HTTP/1.2\r\n\r\n"),
        BYTES("GET / HTTP/1.9\r\n\r\n"),
        BYTES("OPTIONS * HTTP/1.1\r\n\r\n"),
        BYTES(GET HOST HOST "\r\n"),
        BYTES(GET HOST "X: a\r\nhost: h\r\n\r\n"),
        BYTES(GET "Host:\r\n" HOST "\r\n"),
        BYTES(GET10 HOST HOST "\r\n"),
        BYTES("GET http://h/ HTTP/1.1\r\n" HOST HOST "\r\n"),
        BYTES(GET HOST "Origin: http://a\r\nOrigin: http://a\r\n\r\n"),
        BYTES(GET HOST "Origin:\r\nOrigin: http://a\r\n\r\n"),
        BYTES(GET HOST "Last-Event-ID: 1\r\nLast-Event-ID: 2\r\n\r\n"),
        BYTES(GET HOST "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n\r\n"),
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        head_refuse(rows[i], 400);
}

static const char *const good_hosts[] = {"h",
                                         "h:1",
                                         "h:",
                                         "H:65535",
                                         "h:00080",
                                         "a.b-c_d~e",
                                         "example.com",
                                         "example.com.",
                                         "1.2.3.4",
                                         "1.2.3.4:80",
                                         "999.1.1.1",
                                         "[::1]",
                                         "[::1]:80",
                                         "[::1]:",
                                         "[1:2:3:4:5:6:7:8]",
                                         "[::ffff:1.2.3.4]:8080",
                                         "[2001:DB8::A]:0",
                                         "a!$&'()*+,;=b",
                                         "%41%7a",
                                         "xn--bcher-kva.example",
                                         "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535"};

static const char *const bad_hosts[] = {
    "",
    ":",
    ":80",
    "h:65536",
    "h:99999999999999999999999",
    "h:-1",
    "h:+1",
    "h:x",
    "h:8x",
    "h: 80",
    "h :80",
    "h:80:",
    "h:80:80",
    "h::80",
    "a b",
    "a\tb",
    "a/b",
    "h/",
    "http://h",
    "u@h",
    "u:p@h",
    "h?q",
    "h#f",
    "h\\i",
    "\"h\"",
    "<h>",
    "{h}",
    "a|b",
    "a^b",
    "a`b",
    "a@",
    "@",
    "h\xC3\xA9",
    "\xFF",
    "::1",
    "::1:80",
    "[",
    "]",
    "[]",
    "[]:80",
    "[::1",
    "[::1:80",
    "::1]",
    "[::1]80",
    "[::1]x",
    "[::1]x:80",
    "[::1]:x",
    "[::1]:65536",
    "[::1]:80:80",
    "[::1]]",
    "[[::1]]",
    "h[::1]",
    "[::g]",
    "[1.2.3.4]",
    "[::1%25lo]",
    "[::1 ]",
    "[v1.a]",
    "[:]",
    "[1:2:3:4:5:6:7:8:9]",
    "[12345::]",
    "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.2555]",
    "[h]",
    "a[",
    "a]",
    "[0000000000000000000000000000000000000000000000000000000000000000::1]"};

/* RFC 3986 section 3.2.2: in a host name `%` begins an escape, or it is no host name. */
static const char *const bad_escapes[] = {"%", "a%", "a%4", "%zz", "a%4gb", "%%41"};

static struct slice head_with_host(char *buffer, const char *line, const char *host)
{
    struct text t = text_over(buffer, HEAD_ROOM);
    text_string(&t, line);
    text_string(&t, "Host: ");
    text_string(&t, host);
    text_string(&t, "\r\n\r\n");
    return (struct slice){buffer, t.len};
}

static void test_head_host(void)
{
    char buffer[HEAD_ROOM];
    struct http_request r;

    for (size_t i = 0; i < COUNT(good_hosts); i++) {
        head_accept(head_with_host(buffer, GET, good_hosts[i]), &r);
        check_in(slice_of(good_hosts[i]), slice_is(r.host, good_hosts[i]));
        check_in(slice_of(good_hosts[i]), slice_is(r.authority, good_hosts[i]));
    }
    for (size_t i = 0; i < COUNT(bad_hosts); i++) {
        head_refuse(head_with_host(buffer, GET, bad_hosts[i]), 400);
        head_refuse(head_with_host(buffer, GET10, bad_hosts[i]), 400);
        head_refuse(head_with_host(buffer, "GET http://o/ HTTP/1.1\r\n", bad_hosts[i]), 400);
    }
    for (size_t i = 0; i < COUNT(bad_escapes); i++)
        head_refuse(head_with_host(buffer, GET, bad_escapes[i]), 400);
}

static void test_head_length(void)
{
    static const struct {
        struct slice head;
        uint64_t length;
    } good[] = {
        {BYTES(POST CL "0\r\n\r\n"), 0},
        {BYTES(POST CL "5\r\n\r\n"), 5},
        {BYTES(POST CL " \t5 \t\r\n\r\n"), 5},
        {BYTES(POST "content-length:5\r\n\r\n"), 5},
        {BYTES(POST CL "0000000000000000000000000000000000000005\r\n\r\n"), 5},
        {BYTES(POST CL "5\r\n" CL "5\r\n\r\n"), 5},
        {BYTES(POST CL "5\r\nX: y\r\nCONTENT-LENGTH: 5\r\n" CL "5\r\n\r\n"), 5},
        {BYTES(POST CL "4294967296\r\n\r\n"), 4294967296},
        {BYTES(POST CL "18446744073709551614\r\n\r\n"), UINT64_MAX - 1},
        {BYTES(POST CL "18446744073709551615\r\n\r\n"), UINT64_MAX},
        {BYTES(POST CL "18446744073709551616\r\n\r\n"), UINT64_MAX},
        {BYTES(POST CL "18446744073709551621\r\n\r\n"), UINT64_MAX},
        {BYTES(POST CL "99999999999999999999999999999999999999999999\r\n\r\n"), UINT64_MAX},
    };
    static const struct slice bad[] = {
        BYTES(POST CL "\r\n\r\n"),
        BYTES(POST CL " \t\r\n\r\n"),
        BYTES(POST CL "-1\r\n\r\n"),
        BYTES(POST CL "+1\r\n\r\n"),
        BYTES(POST CL "0x5\r\n\r\n"),
        BYTES(POST CL "5x\r\n\r\n"),
        BYTES(POST CL "x\r\n\r\n"),
        BYTES(POST CL "1 2\r\n\r\n"),
        BYTES(POST CL "5, 5\r\n\r\n"),
        BYTES(POST CL "5,5\r\n\r\n"),
        BYTES(POST CL "5;\r\n\r\n"),
        BYTES(POST CL "5.0\r\n\r\n"),
        BYTES(POST CL "1e3\r\n\r\n"),
        BYTES(POST CL "\"5\"\r\n\r\n"),
        BYTES(POST CL "\xD9\xA5\r\n\r\n"),
        BYTES(POST CL "\xB2\r\n\r\n"),
        BYTES(POST CL "5\r\n" CL "6\r\n\r\n"),
        BYTES(POST CL "6\r\n" CL "5\r\n\r\n"),
        BYTES(POST CL "5\r\n" CL "5\r\n" CL "6\r\n\r\n"),
        BYTES(POST CL "0\r\n" CL "5\r\n\r\n"),
        BYTES(POST CL "5\r\n" CL "\r\n\r\n"),
        BYTES(POST CL "5\r\n" CL "99999999999999999999999\r\n\r\n"),
        BYTES(POST CL "99999999999999999999999\r\n" CL "5\r\n\r\n"),
        BYTES("POST / HTTP/1.0\r\n" CL "5\r\n" CL "6\r\n\r\n"),
        BYTES("POST / HTTP/1.0\r\n" CL "x\r\n\r\n"),
        /* with a coding, whichever comes first */
        BYTES(POST CL "5\r\n" TE "chunked\r\n\r\n"),
        BYTES(POST TE "chunked\r\n" CL "5\r\n\r\n"),
        BYTES(POST TE "chunked\r\n" CL "0\r\n\r\n"),
        BYTES(POST TE "gzip, chunked\r\n" CL "5\r\n\r\n"),
        BYTES(POST TE "identity\r\n" CL "5\r\n\r\n"),
        BYTES("POST / HTTP/1.0\r\n" TE "chunked\r\n" CL "5\r\n\r\n"),
    };
    struct http_request r;

    for (size_t i = 0; i < COUNT(good); i++) {
        head_accept(good[i].head, &r);
        check_in(good[i].head, r.length.at && r.content_length == good[i].length);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        head_refuse(bad[i], 400);
}

static void test_head_codings(void)
{
    static const struct slice chunked[] = {
        BYTES(POST TE "chunked\r\n\r\n"),
        BYTES(POST TE "\t Chunked \t\r\n\r\n"),
        BYTES(POST "transfer-encoding:CHUNKED\r\n\r\n"),
        BYTES("POST / HTTP/1.9\r\n" HOST TE "chunked\r\n\r\n"),
    };
    static const struct slice unknown[] = {
        BYTES(POST TE "gzip, chunked\r\n\r\n"),
        BYTES(POST TE "gzip,chunked\r\n\r\n"),
        BYTES(POST TE "identity, chunked\r\n\r\n"),
        BYTES(POST TE "gzip, deflate, x, chunked\r\n\r\n"),
        BYTES(POST TE "gzip;q=1, chunked\r\n\r\n"),
        BYTES(POST TE "gzip\r\n" TE "chunked\r\n\r\n"),
        BYTES(POST TE "gzip\r\nX: y\r\nTRANSFER-ENCODING: chunked\r\n\r\n"),
    };
    static const struct slice malformed[] = {
        BYTES(POST TE "\r\n\r\n"),
        BYTES(POST TE "gzip\r\n\r\n"),
        BYTES(POST TE "identity\r\n\r\n"),
        BYTES(POST TE "chunked, chunked\r\n\r\n"),
        BYTES(POST TE "chunked\r\n" TE "chunked\r\n\r\n"),
        BYTES(POST TE "chunked, gzip\r\n\r\n"),
        BYTES(POST TE "chunked\r\n" TE "gzip\r\n\r\n"),
        BYTES(POST TE "chunked\r\n" TE "identity\r\n\r\n"),
        BYTES(POST TE "chunked, gzip, chunked\r\n\r\n"),
        BYTES(POST TE "gzip, chunked, chunked\r\n\r\n"),
        BYTES(POST TE "chunked\r\n" TE "\r\n\r\n"),
        BYTES(POST TE "xchunked\r\n\r\n"),
        BYTES(POST TE "chunkedx\r\n\r\n"),
        BYTES(POST TE "chun ked\r\n\r\n"),
        BYTES(POST TE "\"chunked\"\r\n\r\n"),
        BYTES(POST TE "chunked;q=1\r\n\r\n"),
        BYTES(POST TE "chunked;\r\n\r\n"),
        BYTES(POST TE "chunked\x0B\r\n\r\n"),
        BYTES(POST TE "chunked\0\r\n\r\n"),
        BYTES(POST TE "chunked\xA0\r\n\r\n"),
        BYTES(POST TE ":chunked\r\n\r\n"),
        BYTES(POST TE "\r\n chunked\r\n\r\n"),
        /* HTTP/1.0 knows none */
        BYTES("POST / HTTP/1.0\r\n" TE "chunked\r\n\r\n"),
        BYTES("POST / HTTP/1.0\r\n" HOST TE "chunked\r\n\r\n"),
        BYTES("POST / HTTP/1.0\r\n" TE "gzip, chunked\r\n\r\n"),
        BYTES("POST / HTTP/1.0\r\n" TE "identity\r\n\r\n"),
    };
    struct http_request r;

    for (size_t i = 0; i < COUNT(chunked); i++) {
        head_accept(chunked[i], &r);
        check_in(chunked[i], r.chunked && !r.unknown_coding && !r.length.at);
    }
    for (size_t i = 0; i < COUNT(unknown); i++)
        head_refuse(unknown[i], 501);
    for (size_t i = 0; i < COUNT(malformed); i++)
        head_refuse(malformed[i], 400);
}

static void test_head_limits(void)
{
    static const size_t frame = sizeof(GET HOST "X: \r\n\r\n") - 1;
    char buffer[HEAD_ROOM];
    struct http_request r;

    /* targets of 4096 and 4097 bytes */
    head_accept(filled(buffer, "GET /", 4095, " HTTP/1.1\r\n" HOST "\r\n"), &r);
    check(r.target.len == SSE_TARGET_BYTES && r.path.len == SSE_TARGET_BYTES);
    head_accept(filled(buffer, "GET http://o/", 4087, " HTTP/1.1\r\n" HOST "\r\n"), &r);
    check(r.target.len == SSE_TARGET_BYTES);
    head_refuse(filled(buffer, "GET /", 4096, " HTTP/1.1\r\n" HOST "\r\n"), 414);
    head_refuse(filled(buffer, "GET http://o/", 4088, " HTTP/1.1\r\n" HOST "\r\n"), 414);
    head_refuse(filled(buffer, "GET /?", 4095, " HTTP/1.1\r\n" HOST "\r\n"), 414);
    head_refuse(filled(buffer, "GET /", 9000, ""), 414);
    head_refuse(filled(buffer, "GET /", 4097, " HTTP/2.0\r\n\r\n"), 414);

    /* heads of 16384 and 16385 bytes: one long field, then many short ones */
    struct slice head = filled(buffer, GET HOST "X: ", 16384 - frame, "\r\n\r\n");
    check(head.len == SSE_HEAD_BYTES);
    head_accept(head, &r);
    head_refuse(filled(buffer, GET HOST "X: ", 16385 - frame, "\r\n\r\n"), 431);
    head_refuse(filled(buffer, GET HOST "X: ", 16400 - frame, "\r\n\r\n"), 431);
    head_refuse(filled(buffer, GET HOST "X: ", 17000, ""), 431);
    head_refuse(filled(buffer, GET HOST, 17000, ""), 431);
    head_refuse(filled(buffer, "", 17000, " / HTTP/1.1\r\n" HOST "\r\n"), 431);

    struct text t = text_over(buffer, sizeof buffer);
    text_string(&t, GET HOST);
    while (t.len + 6 + 4 <= SSE_HEAD_BYTES)
        text_string(&t, "X: a\r\n");
    text_put(&t, "X: aaaaaaaa", 3 + SSE_HEAD_BYTES - t.len - 7);
    text_string(&t, "\r\n\r\n");
    check(t.len == SSE_HEAD_BYTES);
    head_accept((struct slice){buffer, t.len}, &r);
    t.len -= 2;
    text_string(&t, "Y: b\r\n\r\n");
    head_refuse((struct slice){buffer, t.len}, 431);
}

/* ---- Chunked bodies ---------------------------------------------------------------------------
 */

/* Decodes a body that arrives in pieces: up to `first` bytes, then `step` at a time. Returns bytes
 * consumed, HTTP_MORE if it is not complete, or minus a status. */
static int chunks_decode(struct slice body, size_t first, size_t step, struct text *out)
{
    struct http_chunks c = {.state = CHUNK_SIZE};
    struct http_request r = {.why = NULL};
    struct slice data;
    size_t at = 0, end = first < body.len ? first : body.len;

    while (c.state != CHUNK_DONE) {
        const char *in = guarded(body.at + at, end - at);
        int n = chunk_decode(&c, in, end - at, &data, &r);
        if (n < 0) {
            check_in(body, r.why && r.why[0]);
            return n;
        }
        check_in(body, (size_t)n <= end - at);
        if (n > 0 && data.len > 0) {
            check_in(body, inside(data, in, (size_t)n));
            text_put(out, data.at, data.len);
        }
        if (n == HTTP_MORE && end == body.len)
            return HTTP_MORE;
        if (n == HTTP_MORE)
            end = body.len - end < step ? body.len : end + step;
        at += (size_t)n;
    }
    return (int)at;
}

/* Once around: what was decoded must be `expected`, whatever came behind the body. */
static void chunks_accept_cut(struct slice body, size_t behind, size_t first, size_t step,
                              struct slice expected)
{
    static char buffer[HEAD_ROOM];
    struct text out = text_over(buffer, sizeof buffer);
    int n = chunks_decode(body, first, step, &out);
    check_in(body, n == (int)(body.len - behind));
    check_in(body, !out.full && out.len == expected.len);
    check_in(body, memcmp(buffer, expected.at, expected.len) == 0);
}

/* Whole, byte by byte, and at every split point; alone and with more behind it; and no proper
 * prefix of it is a body. */
static void chunks_accept(struct slice body, struct slice expected)
{
    static char with[HEAD_ROOM], out_buffer[HEAD_ROOM];
    static const char behind[] = "\r\nGET / HTTP/1.1\r\n";
    enum { BEHIND = sizeof behind - 1 };
    struct text t = text_over(with, sizeof with);

    text_put(&t, body.at, body.len);
    text_put(&t, behind, BEHIND);
    struct slice longer = {with, t.len};
    for (size_t cut = 0; cut <= body.len; cut++) {
        struct text out = text_over(out_buffer, sizeof out_buffer);
        chunks_accept_cut(body, 0, cut, body.len, expected);
        chunks_accept_cut(longer, BEHIND, cut, longer.len, expected);
        if (cut < body.len) {
            struct slice prefix = {body.at, cut};
            check_in(prefix, chunks_decode(prefix, cut, cut, &out) == HTTP_MORE);
        }
    }
    for (size_t step = 1; step < 5; step++) {
        chunks_accept_cut(body, 0, step, step, expected);
        chunks_accept_cut(longer, BEHIND, step, step, expected);
    }
}

static void chunks_refuse(struct slice body, int status)
{
    static char buffer[HEAD_ROOM];
    struct text out = text_over(buffer, sizeof buffer);
    bool refused = false;

    check_in(body, chunks_decode(body, 1, 1, &out) == -status);
    for (size_t cut = 0; cut <= body.len; cut++) {
        struct slice prefix = {body.at, cut};
        out = text_over(buffer, sizeof buffer);
        check_in(body, chunks_decode(body, cut, body.len, &out) == -status);
        out = text_over(buffer, sizeof buffer);
        int n = chunks_decode(prefix, cut, cut, &out);
        check_in(prefix, n == -status || (n == HTTP_MORE && !refused));
        refused |= n < 0;
    }
    check_in(body, refused);
}

static void test_chunks_valid(void)
{
    static const struct {
        struct slice body, data;
    } rows[] = {
        {BYTES("0\r\n\r\n"), BYTES("")},
        {BYTES("0000\r\n\r\n"), BYTES("")},
        {BYTES("5\r\nhello\r\n0\r\n\r\n"), BYTES("hello")},
        {BYTES("5\r\nhello\r\n1\r\n \r\n6\r\nworld!\r\n0\r\n\r\n"), BYTES("hello world!")},
        {BYTES("00000005\r\nhello\r\n000\r\n\r\n"), BYTES("hello")},
        {BYTES("a\r\n0123456789\r\n0\r\n\r\n"), BYTES("0123456789")},
        {BYTES("A\r\n0123456789\r\n0\r\n\r\n"), BYTES("0123456789")},
        {BYTES("1a\r\n01234567890123456789012345\r\n1B\r\nabcdefghijklmnopqrstuvwxyz!\r\n0\r\n"
               "\r\n"),
         BYTES("01234567890123456789012345abcdefghijklmnopqrstuvwxyz!")},
        /* data may be anything, the framing's own bytes included */
        {BYTES("5\r\n\r\n0\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n"), BYTES("\r\n0\r\n\r\n")},
        {BYTES("4\r\n\0\x01\x7F\xFF\r\n0\r\n\r\n"), BYTES("\0\x01\x7F\xFF")},
        {BYTES("1\r\n\n\r\n1\r\n\r\r\n0\r\n\r\n"), BYTES("\n\r")},
        /* extensions */
        {BYTES("5;a\r\nhello\r\n0;b\r\n\r\n"), BYTES("hello")},
        {BYTES("5;a=b;c=\"d e\";f\r\nhello\r\n0\r\n\r\n"), BYTES("hello")},
        {BYTES("5 ;a\r\nhello\r\n0\t ; b\r\n\r\n"), BYTES("hello")},
        {BYTES("5; a = \"b;c\xC3\xA9\"\r\nhello\r\n0\r\n\r\n"), BYTES("hello")},
        /* trailers */
        {BYTES("5\r\nhello\r\n0\r\nX: y\r\n\r\n"), BYTES("hello")},
        {BYTES("0\r\nX: y\r\nX: z\r\nEmpty:\r\n\r\n"), BYTES("")},
        {BYTES("0\r\nX: a\tb\xFF\r\n\r\n"), BYTES("")},
        {BYTES("0\r\nHost: a\r\nHost: b\r\n\r\n"), BYTES("")},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        chunks_accept(rows[i].body, rows[i].data);
}

static void test_chunks_malformed(void)
{
    static const struct slice rows[] = {
        /* sizes */
        BYTES("\r\nhello\r\n0\r\n\r\n"),
        BYTES("g\r\n0\r\n\r\n"),
        BYTES("5g\r\nhello\r\n0\r\n\r\n"),
        BYTES("-5\r\nhello\r\n0\r\n\r\n"),
        BYTES("+5\r\nhello\r\n0\r\n\r\n"),
        BYTES("0x5\r\nhello\r\n0\r\n\r\n"),
        BYTES("5h\r\nhello\r\n0\r\n\r\n"),
        BYTES("5.0\r\nhello\r\n0\r\n\r\n"),
        BYTES("5,5\r\nhello\r\n0\r\n\r\n"),
        BYTES(" 5\r\nhello\r\n0\r\n\r\n"),
        BYTES("\t5\r\nhello\r\n0\r\n\r\n"),
        BYTES("5 \r\nhello\r\n0\r\n\r\n"),
        BYTES("5\t\r\nhello\r\n0\r\n\r\n"),
        BYTES("5 5\r\nhello\r\n0\r\n\r\n"),
        BYTES("5 a\r\nhello\r\n0\r\n\r\n"),
        BYTES(" 5;a\r\nhello\r\n0\r\n\r\n"),
        BYTES(";a\r\nhello\r\n0\r\n\r\n"),
        BYTES(" ;a\r\nhello\r\n0\r\n\r\n"),
        BYTES("\"5\"\r\nhello\r\n0\r\n\r\n"),
        BYTES("\xEF\xBC\x95\r\nhello\r\n0\r\n\r\n"),
        /* line ends */
        BYTES("5\nhello\r\n0\r\n\r\n"),
        BYTES("5\rhello\r\n0\r\n\r\n"),
        BYTES("5\r\r\nhello\r\n0\r\n\r\n"),
        BYTES("\n5\r\nhello\r\n0\r\n\r\n"),
        BYTES("5;a\nhello\r\n0\r\n\r\n"),
        BYTES("5;a\rb\r\nhello\r\n0\r\n\r\n"),
        BYTES("5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        BYTES("5\r\nhello\n0\r\n\r\n"),
        BYTES("5\r\nhello\r0\r\n\r\n"),
        BYTES("5\r\nhello\r\r\n0\r\n\r\n"),
        BYTES("0\n\r\n"),
        BYTES("0\r\n\n"),
        BYTES("0\r\n\rX"),
        /* control characters */
        BYTES("5\0\r\nhello\r\n0\r\n\r\n"),
        BYTES("\0"
              "5\r\nhello\r\n0\r\n\r\n"),
        BYTES("5;\0\r\nhello\r\n0\r\n\r\n"),
        BYTES("5;\x01\r\nhello\r\n0\r\n\r\n"),
        BYTES("5;\x7F\r\nhello\r\n0\r\n\r\n"),
        BYTES("5\x0B\r\nhello\r\n0\r\n\r\n"),
        /* sizes that lie */
        BYTES("4\r\nhello\r\n0\r\n\r\n"),
        BYTES("5\r\nhello!\r\n0\r\n\r\n"),
        BYTES("6\r\nhello\r\n0\r\n\r\n"),
        BYTES("7\r\nhello\r\n0\r\n\r\n"),
        BYTES("5\r\nhello0\r\n\r\n"),
        BYTES("5\r\nhello\0\r\n0\r\n\r\n"),
        BYTES("5\r\nhello\r\n\r\n0\r\n\r\n"),
        /* trailers */
        BYTES("0\r\nX\r\n\r\n"),
        BYTES("0\r\n: y\r\n\r\n"),
        BYTES("0\r\nX : y\r\n\r\n"),
        BYTES("0\r\n X: y\r\n\r\n"),
        BYTES("0\r\nX: y\r\n z\r\n\r\n"),
        BYTES("0\r\nX: y\nZ: a\r\n\r\n"),
        BYTES("0\r\nX: y\rZ: a\r\n\r\n"),
        BYTES("0\r\nX: \0\r\n\r\n"),
        BYTES("0\r\nX: \x1F\r\n\r\n"),
        BYTES("0\r\n \r\n\r\n"),
        BYTES("0\r\nGET / HTTP/1.1\r\n\r\n"),
    };
    static const struct slice early[] = {BYTES("4\r\nhello"), BYTES("5\r\nhello0"),
                                         BYTES("5\r\nhello\0"), BYTES("0\r\n\n")};
    for (size_t i = 0; i < COUNT(rows); i++)
        chunks_refuse(rows[i], 400);
    for (size_t i = 0; i < COUNT(early); i++) /* told as soon as it can be seen */
        chunks_refuse(early[i], 400);
}

static void test_chunks_limits(void)
{
    static const struct slice too_large[] = {
        BYTES("4000000000000000\r\n"),
        BYTES("FFFFFFFFFFFFFFFF\r\n"),
        BYTES("10000000000000000\r\n"),
        BYTES("fffffffffffffffffffffffffffffffffffff;a\r\n"),
        BYTES("5\r\nhello\r\n8000000000000000\r\n"),
        BYTES("00000000000000000000010000000000000005\r\n"),
    };
    static const struct slice largest = BYTES("3fffffffffffffff\r\n"), hello = BYTES("hello");
    struct http_chunks c = {.state = CHUNK_SIZE};
    struct http_request r = {.why = NULL};
    struct slice data;
    char buffer[HEAD_ROOM];

    for (size_t i = 0; i < COUNT(too_large); i++)
        chunks_refuse(too_large[i], 413);
    check(chunk_decode(&c, guarded(largest.at, largest.len), largest.len, &data, &r) ==
          (int)largest.len);
    check(c.state == CHUNK_DATA && c.left == UINT64_C(0x3fffffffffffffff));
    check(chunk_decode(&c, guarded("x", 1), 1, &data, &r) == 1 && data.len == 1);
    check(c.left == UINT64_C(0x3ffffffffffffffe));

    /* size lines of 256 and 257 bytes */
    chunks_accept(filled(buffer, "5;", 254, "\r\nhello\r\n0\r\n\r\n"), hello);
    chunks_refuse(filled(buffer, "5;", 255, "\r\nhello\r\n0\r\n\r\n"), 400);
    chunks_refuse(filled(buffer, "5;", 255, ""), 400);
    struct slice zeros = filled(buffer, "", 255, "5\r\nhello\r\n0\r\n\r\n");
    memset(buffer, '0', 255);
    chunks_accept(zeros, hello);
}

/* Trailers of 4096 and 4097 bytes, in one field and in many. */
static void test_chunks_trailer_limits(void)
{
    static const struct slice nothing = BYTES("");
    char buffer[HEAD_ROOM];

    chunks_accept_cut(filled(buffer, "0\r\nX: ", 4096 - 5, "\r\n\r\n"), 0, 1, 1, nothing);
    chunks_accept_cut(filled(buffer, "0\r\nX: ", 4096 - 5, "\r\n\r\n"), 0, 9999, 1, nothing);
    struct slice body = filled(buffer, "0\r\nX: ", 4097 - 5, "\r\n\r\n");
    struct text out = text_over(NULL, 0);
    check(chunks_decode(body, 1, 1, &out) == -431);
    check(chunks_decode(body, body.len, 1, &out) == -431);
    body = filled(buffer, "0\r\nX: ", 9000, "");
    check(chunks_decode(body, body.len, 1, &out) == -431);
    body = filled(buffer, "0\r\n", 9000, "");
    check(chunks_decode(body, body.len, 1, &out) == -431);

    for (size_t fields = 1; fields <= 520; fields++) {
        struct text t = text_over(buffer, sizeof buffer);
        text_string(&t, "0\r\n");
        for (size_t i = 0; i < fields; i++)
            text_string(&t, "X: abc\r\n"); /* 8 bytes */
        text_string(&t, "\r\n");
        int expected = fields * 8 <= SSE_TRAILER_BYTES ? (int)t.len : -431;
        check(chunks_decode((struct slice){buffer, t.len}, t.len, 1, &out) == expected);
    }
}

/* ---- Queries ----------------------------------------------------------------------------------
 */

/* Decodes into exactly as much room as `cap`, against the guard. */
static int decode_into(struct slice in, bool in_query, size_t cap, const char **out)
{
    char *to = guard_end() - cap;
    *out = to;
    to[-1] = 'k';
    int n = percent_decode(in, in_query, to, cap);
    check_in(in, to[-1] == 'k' && n >= -1 && n <= (int)cap);
    return n;
}

static void check_decoded(struct slice in, bool in_query, struct slice expected)
{
    const char *out;
    for (size_t cap = 0; cap < expected.len; cap++)
        check_in(in, decode_into(in, in_query, cap, &out) == -1);
    for (size_t cap = expected.len; cap < expected.len + 3; cap++) {
        check_in(in, decode_into(in, in_query, cap, &out) == (int)expected.len);
        check_in(in, memcmp(out, expected.at, expected.len) == 0);
    }
}

static void test_percent_decode(void)
{
    static const struct {
        struct slice in, path, query;
    } rows[] = {
        {BYTES(""), BYTES(""), BYTES("")},
        {BYTES("alice"), BYTES("alice"), BYTES("alice")},
        {BYTES("a+b"), BYTES("a+b"), BYTES("a b")},
        {BYTES("%2B+%2b"), BYTES("+++"), BYTES("+ +")},
        {BYTES("%41%6a%6A"), BYTES("Ajj"), BYTES("Ajj")},
        {BYTES("%2541"), BYTES("%41"), BYTES("%41")},
        {BYTES("%252541"), BYTES("%2541"), BYTES("%2541")},
        {BYTES("%2F%3f&="), BYTES("/?&="), BYTES("/?&=")},
        {BYTES("%e2%82%AC"), BYTES("\xE2\x82\xAC"), BYTES("\xE2\x82\xAC")},
        {BYTES("%00\x80"), BYTES("\0\x80"), BYTES("\0\x80")},
    };
    static const struct slice bad[] = {
        BYTES("%"),      BYTES("%4"),   BYTES("a%"),    BYTES("a%4"),    BYTES("%g0"),
        BYTES("%0g"),    BYTES("%%41"), BYTES("%4%41"), BYTES("% 41"),   BYTES("%4 1"),
        BYTES("%+4"),    BYTES("%-1"),  BYTES("%0x41"), BYTES("%u0041"), BYTES("%\0000"),
        BYTES("%4\xC1"), BYTES("%G1"),  BYTES("%:0"),   BYTES("%0/"),    BYTES("%@0"),
        BYTES("%`0")};
    const char *out;

    for (size_t i = 0; i < COUNT(rows); i++) {
        check_decoded(rows[i].in, false, rows[i].path);
        check_decoded(rows[i].in, true, rows[i].query);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        for (size_t cap = 0; cap < 8; cap++) {
            check_in(bad[i], decode_into(bad[i], false, cap, &out) == -1);
            check_in(bad[i], decode_into(bad[i], true, cap, &out) == -1);
        }
    for (unsigned byte = 0; byte < 256; byte++) {
        char escape[4], expected[1] = {(char)byte};
        snprintf(escape, sizeof escape, "%%%02x", byte);
        check_decoded((struct slice){escape, 3}, false, (struct slice){expected, 1});
        snprintf(escape, sizeof escape, "%%%02X", byte);
        check_decoded((struct slice){escape, 3}, true, (struct slice){expected, 1});
        if (byte != '%' && byte != '+')
            check_decoded((struct slice){expected, 1}, true, (struct slice){expected, 1});
    }
    /* the input's end is respected: what would complete the escape is not part of it */
    check(decode_into((struct slice){"%41", 2}, false, 8, &out) == -1);
    check(decode_into((struct slice){"%41", 1}, false, 8, &out) == -1);
}

static void test_query(void)
{
    static const struct {
        const char *query, *value; /* NULL: malformed; empty: absent */
    } rows[] = {
        {"", ""},
        {"&", ""},
        {"=", ""},
        {"=x", ""},
        {"event", ""},
        {"event=", ""},
        {"event&event", ""},
        {"event=a", "a"},
        {"event=a&", "a"},
        {"&&event=a", "a"},
        {"x=y&event=a&z", "a"},
        {"event=a=b", "a=b"},
        {"event==", "="},
        {"event=a&event=b", "a"},
        {"event=&event=b", "b"},
        {"event&event=b", "b"},
        {"event=a+b", "a b"},
        {"event=+", " "},
        {"event=a%2Bb", "a+b"},
        {"event=a%20b%26c%3D", "a b&c="},
        {"event=a%3Fb?c", "a?b?c"},
        {"event=a;x=b", "a;x=b"},
        {"Event=a", ""},
        {"EVENT=a", ""},
        {"events=a", ""},
        {"even=a", ""},
        {"xevent=a", ""},
        {" event=a", ""},
        {"event =a", ""},
        {"x=event=a", ""},
        {"event=%", NULL},
        {"event=a%4", NULL},
        {"event=%zz", NULL},
        {"event=%zz&event=a", NULL},
        {"x=%zz&event=a", "a"},
        {"event=a&x=%zz", "a"},
        {"event=12345678", "12345678"},
        {"event=123456789", NULL},
        {"event=%31%32%33%34%35%36%37%38", "12345678"},
    };
    static const struct slice none = {NULL, 0};
    char value[8];

    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t len = strlen(rows[i].query);
        struct slice query = {guarded(rows[i].query, len), len};
        int n = http_query(query, "event", value, sizeof value);
        int expected = rows[i].value ? (int)strlen(rows[i].value) : -1;
        check_in(query, n == expected);
        check_in(query, n <= 0 || n != expected || memcmp(value, rows[i].value, (size_t)n) == 0);
    }
    check(http_query(none, "event", value, sizeof value) == 0);
    check(http_query(slice_of("event=a"), "event", value, 0) == -1);
}

/* ---- UTF-8 and names --------------------------------------------------------------------------
 */

/* Unicode 15, table 3-6: bit distribution, with no regard to what is well-formed. */
static size_t utf8_encode(uint32_t code, size_t len, unsigned char *out)
{
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = len; i-- > 1; code >>= 6)
        out[i] = (unsigned char)(0x80 | (code & 0x3F));
    out[0] = (unsigned char)(lead[len] | code);
    return len;
}

static size_t utf8_length(uint32_t code)
{
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

static bool is_surrogate(uint32_t code)
{
    return code >= 0xD800 && code <= 0xDFFF;
}

static void test_utf8_code_points(void)
{
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        char *in = guard_end() - utf8_length(code);
        unsigned char *bytes = (unsigned char *)in;
        size_t len = utf8_encode(code, utf8_length(code), bytes);
        bool whole = !is_surrogate(code);
        bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
        bool right = utf8_sequence(bytes, len) == (whole ? len : 0) &&
                     text_is_utf8(in, len) == (whole && code != 0) &&
                     text_is_name(in, len) == (whole && !control) &&
                     text_is_user_id(in, len) == (whole && !control && code != '.');
        if (!right)
            check_in(((struct slice){in, len}), right);
    }
}

/* Every proper prefix of a sequence, and its rest, alone. */
static void test_utf8_cut(void)
{
    for (uint32_t code = 0x80; code <= 0x10FFFF; code += code < 0x1000 ? 1 : 0x95) {
        unsigned char bytes[4];
        size_t len = utf8_encode(code, utf8_length(code), bytes);
        for (size_t cut = 1; cut < len; cut++) {
            const char *head = guarded((char *)bytes, cut);
            bool refused = utf8_sequence((const unsigned char *)head, cut) == 0 &&
                           !text_is_utf8(head, cut) && !text_is_name(head, cut) &&
                           !text_is_user_id(head, cut);
            const char *rest = guarded((char *)bytes + cut, len - cut);
            refused = refused && utf8_sequence((const unsigned char *)rest, len - cut) == 0 &&
                      !text_is_utf8(rest, len - cut) && !text_is_name(rest, len - cut);
            if (!refused)
                check_in(((struct slice){(char *)bytes, len}), refused);
        }
    }
}

/* Overlong forms, surrogates and what is above U+10FFFF: none is well-formed. */
static void test_utf8_malformed(void)
{
    static const struct slice rows[] = {
        BYTES("\x80"),
        BYTES("\xBF"),
        BYTES("\xC0\x80"),
        BYTES("\xC1\xBF"),
        BYTES("\xC2\x7F"),
        BYTES("\xC2\xC0"),
        BYTES("\xE0\x80\x80"),
        BYTES("\xE0\x9F\xBF"),
        BYTES("\xED\xA0\x80"),
        BYTES("\xED\xBF\xBF"),
        BYTES("\xED\xA0\x80\xED\xB0\x80"), /* CESU-8 */
        BYTES("\xF0\x80\x80\x80"),
        BYTES("\xF0\x8F\xBF\xBF"),
        BYTES("\xF4\x90\x80\x80"),
        BYTES("\xF5\x80\x80\x80"),
        BYTES("\xF7\xBF\xBF\xBF"),
        BYTES("\xF8\x88\x80\x80\x80"),
        BYTES("\xFC\x84\x80\x80\x80\x80"),
        BYTES("\xFE"),
        BYTES("\xFF"),
        BYTES("\xE2\x82\x41"),
        BYTES("\xE2\x41\xAC"),
        BYTES("\xF0\x9F\x98\xC0"),
        BYTES("\xF0\x9F\xC0\x80"),
    };
    char around[16];
    unsigned char bytes[4];

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *in = guarded(rows[i].at, rows[i].len);
        check_in(rows[i], utf8_sequence((const unsigned char *)in, rows[i].len) == 0);
        check_in(rows[i], !text_is_utf8(in, rows[i].len) && !text_is_name(in, rows[i].len));
        struct text t = text_over(around, sizeof around);
        text_string(&t, "ab");
        text_put(&t, rows[i].at, rows[i].len);
        text_string(&t, "c");
        check_in(rows[i], !text_is_utf8(around, t.len) && !text_is_name(around, t.len));
    }
    for (size_t len = 2; len <= 4; len++) /* every overlong form */
        for (uint32_t code = 0; utf8_length(code) < len; code++) {
            utf8_encode(code, len, bytes);
            if (utf8_sequence(bytes, len) != 0)
                check_in(((struct slice){(char *)bytes, len}), false);
        }
    for (uint32_t code = 0x110000; code <= 0x1FFFFF; code++) { /* and everything too large */
        utf8_encode(code, 4, bytes);
        if (utf8_sequence(bytes, 4) != 0)
            check_in(((struct slice){(char *)bytes, 4}), false);
    }
}

static void test_utf8_text(void)
{
    static const struct slice mixed =
        BYTES("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z\xEF\xBB\xBF\xEF\xBF\xBF\xC2\xA0");
    check(text_is_utf8(NULL, 0) && text_is_name(NULL, 0) && !text_is_user_id(NULL, 0));
    check(text_is_utf8(guarded(mixed.at, mixed.len), mixed.len));
    check(text_is_name(guarded(mixed.at, mixed.len), mixed.len));
    check(text_is_utf8("\x01\t\r\n\x1F\x7F\xC2\x80", 8));
    check(!text_is_utf8("\0", 1) && !text_is_utf8("a\0", 2) && !text_is_utf8("\0a", 2));
    check(!text_is_name("a\nb", 3) && !text_is_name("ab\t", 3) && !text_is_name("a\x7F", 2));
    check(!text_is_name("a\xC2\x85", 3) && !text_is_name("\0", 1));
}

static void test_user_names(void)
{
    static const char *const good[] = {"a",
                                       "...",
                                       "..a",
                                       "a..",
                                       ".a",
                                       "a.",
                                       "/",
                                       "a/b",
                                       " ",
                                       "%2e",
                                       "Alice",
                                       "\xC2\xA0",
                                       "\xF0\x9F\x98\x80",
                                       "<b>\"'&",
                                       "*"};
    static const char *const bad[] = {"",     ".",         "..",   "a\n",      "\t",
                                      "\x7F", "a\xC2\x9F", "\xFF", "\xC0\xAE", "a\xE2\x82"};
    char name[SSE_USER_BYTES + 4];

    for (size_t i = 0; i < COUNT(good); i++)
        check_in(slice_of(good[i]),
                 text_is_user_id(guarded(good[i], strlen(good[i])), strlen(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        check_in(slice_of(bad[i]),
                 !text_is_user_id(guarded(bad[i], strlen(bad[i])), strlen(bad[i])));
    memset(name, 'a', sizeof name);
    check(text_is_user_id(guarded(name, 128), 128) && !text_is_user_id(guarded(name, 129), 129));
    check(text_is_user_id(guarded(name, 127), 127) && !text_is_user_id(name, sizeof name));
    memset(name, '.', sizeof name);
    check(text_is_user_id(name, 128) && text_is_user_id(name, 3));
    for (size_t i = 0; i < 130; i++) /* it is bytes that count, not characters */
        name[i] = i % 2 ? '\xA9' : '\xC3';
    check(text_is_user_id(name, 128) && !text_is_user_id(name, 127) && !text_is_user_id(name, 130));
}

static void test_event_names(void)
{
    static const char *const good[] = {
        "message",         "a",     "gaps",  "ga",  "Gap",   "OPEN", "opened", "err",
        "disconnect",      " open", "open ", "a b", "id: 1", ":",    "data",   "\xC3\xA9",
        "\xF0\x9F\x98\x80"};
    static const char *const bad[] = {"open",      "error", "gap",     "disconnected", "a\nb",
                                      "a\rb",      "\n",    "\t",      "a\x7F",        "\xC2\x80",
                                      "a\xC2\x9F", "\xFF",  "\xE2\x82"};
    char name[SSE_EVENT_BYTES + 1];

    for (size_t i = 0; i < COUNT(good); i++)
        check_in(slice_of(good[i]), event_is_valid(slice_of(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        check_in(slice_of(bad[i]), !event_is_valid(slice_of(bad[i])));
    memset(name, 'e', sizeof name);
    check(event_is_valid((struct slice){guarded(name, 64), 64}));
    check(!event_is_valid((struct slice){guarded(name, 65), 65}));
    check(event_is_valid((struct slice){NULL, 0}) && event_is_valid((struct slice){"", 0}));
    check(!event_is_valid((struct slice){"a\0", 2}) && !event_is_valid((struct slice){"\0", 1}));
    check(event_is_valid((struct slice){"opens", 5}) &&
          !event_is_valid((struct slice){"opens", 4}));
}

/* ---- JSON -------------------------------------------------------------------------------------
 */

/* Writes a string into every size of buffer: complete and not full where it fits, full where not,
 * and never past the buffer's end (the guard) or before its start. */
static void json_expect(struct slice in, const char *expected)
{
    size_t need = strlen(expected);
    for (size_t cap = 0; cap <= need + 2; cap++) {
        char *at = guard_end() - cap;
        struct text t = text_over(at, cap);
        at[-1] = 'k';
        json_string(&t, in.at, in.len);
        check_in(in, at[-1] == 'k' && t.at == at && t.cap == cap && t.len <= cap);
        check_in(in, t.full == (cap < need));
        check_in(in, cap < need || (t.len == need && memcmp(at, expected, need) == 0));
        if (cap < need) { /* once full, it stays so */
            size_t len = t.len;
            text_put(&t, "", 0);
            text_print(&t, "%s", "");
            check_in(in, t.full && t.len == len);
        }
    }
}

static void test_json_strings(void)
{
    static const struct {
        struct slice in;
        const char *out;
    } rows[] = {
        {BYTES(""), "\"\""},
        {BYTES("alice"), "\"alice\""},
        {BYTES("\""), "\"\\\"\""},
        {BYTES("\\"), "\"\\\\\""},
        {BYTES("\\\"\\\""), "\"\\\\\\\"\\\\\\\"\""},
        {BYTES("a\"b\\c/d"), "\"a\\\"b\\\\c/d\""},
        {BYTES("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\""},
        {BYTES("\0a\0"), "\"\\u0000a\\u0000\""},
        {BYTES("\x01\x1F"), "\"\\u0001\\u001f\""},
        {BYTES("%s%n%d"), "\"%s%n%d\""},
        {BYTES("\x7F\xC2\x80"), "\"\x7F\xC2\x80\""},
        {BYTES("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
        {BYTES("\xF4\x8F\xBF\xBF\xE2\x80\xA8"), "\"\xF4\x8F\xBF\xBF\xE2\x80\xA8\""},
        /* what is not UTF-8 */
        {BYTES("\xFF"), "\"\xEF\xBF\xBD\""},
        {BYTES("a\x80z"), "\"a\xEF\xBF\xBDz\""},
        {BYTES("\xC0\xA2"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {BYTES("\xE2\x82"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {BYTES("\xE2\x82\""), "\"\xEF\xBF\xBD\xEF\xBF\xBD\\\"\""},
        {BYTES("\xF0\x9F\x98"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {BYTES("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {BYTES("\xC3\xC3\xA9"), "\"\xEF\xBF\xBD\xC3\xA9\""},
    };
    char *area = malloc(64);

    for (size_t i = 0; i < COUNT(rows); i++) {
        json_expect(rows[i].in, rows[i].out);
        if (area) { /* the input's end is respected */
            memset(area, '\xBF', 64);
            memcpy(area, rows[i].in.at, rows[i].in.len);
            json_expect((struct slice){area, rows[i].in.len}, rows[i].out);
        }
    }
    free(area);
}

/* Every byte alone, and every code point. */
static void test_json_code_points(void)
{
    static const char *const shorts[0x80] = {
        ['\b'] = "\\b", ['\f'] = "\\f", ['\n'] = "\\n", ['\r'] = "\\r",
        ['\t'] = "\\t", ['"'] = "\\\"", ['\\'] = "\\\\"};
    unsigned char bytes[4];
    char expected[16], out[16];

    for (unsigned byte = 0; byte < 256; byte++) {
        char in[1] = {(char)byte};
        if (byte < 0x80 && shorts[byte])
            snprintf(expected, sizeof expected, "\"%s\"", shorts[byte]);
        else if (byte < 0x20)
            snprintf(expected, sizeof expected, "\"\\u%04x\"", byte);
        else if (byte < 0x80)
            snprintf(expected, sizeof expected, "\"%c\"", (char)byte);
        else
            snprintf(expected, sizeof expected, "\"\xEF\xBF\xBD\"");
        json_expect((struct slice){in, 1}, expected);
    }
    for (uint32_t code = 0x80; code <= 0x10FFFF; code++) {
        size_t len = utf8_encode(code, utf8_length(code), bytes);
        struct text t = text_over(out, sizeof out);
        json_string(&t, guarded((char *)bytes, len), len);
        bool right = is_surrogate(code) ? t.len == 2 + 9
                                        : t.len == 2 + len && memcmp(out + 1, bytes, len) == 0;
        if (!right || t.full)
            check_in(((struct slice){(char *)bytes, len}), right);
    }
}

/* ---- Text -------------------------------------------------------------------------------------
 */

/* The parts that the rest is composed with: all of it or nothing, and `full` stays. */
static void test_text_bounds(void)
{
    for (size_t cap = 0; cap < 12; cap++) {
        char *at = guard_end() - cap;
        struct text put = text_over(at, cap), print = put;
        at[-1] = 'k';
        text_put(&put, "123456", 6);
        check(put.full == (cap < 6) && put.len == (cap < 6 ? 0 : 6));
        text_print(&print, "%s", "123456"); /* needs room for its NUL */
        check(print.full == (cap < 7) && print.len == (cap < 7 ? 0 : 6));
        text_put(&print, "", 0);
        check(print.full == (cap < 7));
        text_string(&print, "1");
        check(print.len == (cap < 7 ? 0 : 7) && print.full == (cap < 7));
        check(at[-1] == 'k');
    }
}

static void test_dates(void)
{
    char iso[64], written[64];
    struct date http = {.at = 0};
    time_t before, after;

    do {
        struct text t = text_over(iso, sizeof iso - 1);
        before = time(NULL);
        text_iso_date(&t);
        http = (struct date){.at = before - 1, .text = "of the second before"};
        check(date_now(&http) == http.text && strlen(http.text) == HTTP_DATE_BYTES);
        iso[t.len] = 0;
        check(!t.full);
        after = time(NULL);
    } while (before != after); /* time() may lag behind a tick, but not by a second */

    struct tm tm;
    bool iso_right = false, http_right = false;
    for (time_t at = before; at <= before + 1; at++) {
        gmtime_r(&at, &tm);
        strftime(written, sizeof written, "%Y-%m-%dT%H:%M:%SZ", &tm);
        iso_right |= strcmp(written, iso) == 0;
        strftime(written, sizeof written, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        http_right |= strcmp(written, http.text) == 0;
    }
    check_in(slice_of(iso), iso_right);
    check_in(slice_of(http.text), http_right);
}

static void test_digits(void)
{
    static const uint64_t numbers[] = {
        0, 1, 9, 10, 15, 16, 1000, UINT32_MAX, UINT64_MAX / 10, UINT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (unsigned base = 10; base <= 16; base += 6) {
            char got[32], wanted[32];
            struct text t = text_over(got, sizeof got - 1);
            text_digits(&t, numbers[i], base);
            got[t.len] = 0;
            snprintf(wanted, sizeof wanted, base == 10 ? "%" PRIu64 : "%" PRIx64, numbers[i]);
            check_in(slice_of(got), strcmp(got, wanted) == 0);
            struct text small = text_over(got, t.len - 1);
            text_digits(&small, numbers[i], base);
            check(small.full && small.len == 0);
        }
}

static void test_numbers(void)
{
    static const struct {
        const char *text;
        uint64_t max;
        bool good;
        uint64_t value;
    } rows[] = {
        {"", UINT64_MAX, false, 0},
        {"0", 0, true, 0},
        {"000", 0, true, 0},
        {"1", 0, false, 0},
        {"9", 0, false, 0},
        {"10", 0, false, 0},
        {"5", 5, true, 5},
        {"6", 5, false, 0},
        {"9", 5, false, 0},
        {"15", 5, false, 0},
        {"9", 9, true, 9},
        {"10", 9, false, 0},
        {"10", 10, true, 10},
        {"11", 10, false, 0},
        {"19", 10, false, 0},
        {"65535", 65535, true, 65535},
        {"65536", 65535, false, 0},
        {"65540", 65535, false, 0},
        {"00000000000000000000000000065535", 65535, true, 65535},
        {"86400", 86400, true, 86400},
        {"86401", 86400, false, 0},
        {"864000", 86400, false, 0},
        {"4294967296", UINT64_MAX, true, 4294967296},
        {"18446744073709551614", UINT64_MAX - 1, true, UINT64_MAX - 1},
        {"18446744073709551615", UINT64_MAX - 1, false, 0},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
        {"18446744073709551616", UINT64_MAX, false, 0},
        {"18446744073709551625", UINT64_MAX, false, 0},
        {"28446744073709551615", UINT64_MAX, false, 0},
        {"184467440737095516150", UINT64_MAX, false, 0},
        {"99999999999999999999999999999", UINT64_MAX, false, 0},
        {"-1", UINT64_MAX, false, 0},
        {"+1", UINT64_MAX, false, 0},
        {" 1", UINT64_MAX, false, 0},
        {"1 ", UINT64_MAX, false, 0},
        {"1x", UINT64_MAX, false, 0},
        {"x", UINT64_MAX, false, 0},
        {"0x1", UINT64_MAX, false, 0},
        {"1.0", UINT64_MAX, false, 0},
        {"1e3", UINT64_MAX, false, 0},
        {"/", UINT64_MAX, false, 0},
        {":", UINT64_MAX, false, 0},
        {"\xB1", UINT64_MAX, false, 0},
    };
    uint64_t value = 1;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct slice in = slice_of(rows[i].text);
        in.at = guarded(in.at, in.len);
        bool good = text_number(in, rows[i].max, &value);
        check_in(in, good == rows[i].good);
        check_in(in, !good || value == rows[i].value || !rows[i].good);
    }
    check(!text_number((struct slice){"1\0", 2}, UINT64_MAX, &value));
    check(!text_number((struct slice){NULL, 0}, UINT64_MAX, &value));
    for (uint64_t max = 0; max < 130; max++) { /* every small limit, and past it */
        bool right = true;
        char digits[24];
        for (uint64_t n = 0; n < 260 && right; n++) {
            snprintf(digits, sizeof digits, "%" PRIu64, n);
            bool good = text_number(slice_of(digits), max, &value);
            right = good == (n <= max) && (!good || value == n);
        }
        check_in(slice_of(digits), right);
    }
}

static void test_sizes(void)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 KiB"},
        {1, "0.1 KiB"},
        {102, "0.1 KiB"},
        {103, "0.2 KiB"},
        {1023, "1 KiB"},
        {1024, "1 KiB"},
        {1025, "1.1 KiB"},
        {1536, "1.5 KiB"},
        {10240, "10 KiB"},
        {131072, "128 KiB"},
        {1048575, "1024 KiB"},
        {1048576, "1 MiB"},
        {1048577, "1.1 MiB"},
        {2097152, "2 MiB"},
        {160431309, "153 MiB"},
        {1073741824, "1024 MiB"},
        {UINT64_C(1) << 50, "1073741824 MiB"},
    };
    char text[64];

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct text t = text_over(text, sizeof text - 1);
        text_size(&t, rows[i].bytes);
        text[t.len] = 0;
        check_in(slice_of(text), !t.full && strcmp(text, rows[i].text) == 0);
    }
    for (uint64_t bytes = 0; bytes < 3 << 20; bytes += 37) { /* never less, hardly more */
        struct text t = text_over(text, sizeof text - 1);
        uint64_t whole = 0, tenth = 0, unit = bytes < 1 << 20 ? 1 << 10 : 1 << 20;
        text_size(&t, bytes);
        text[t.len] = 0;
        struct slice number = slice_of(text), rest;
        rest = slice_cut(&number, ' ');
        check_in(slice_of(text), slice_is(number, unit == 1 << 10 ? "KiB" : "MiB"));
        number = slice_cut(&rest, '.');
        check_in(slice_of(text), text_number(number, UINT64_MAX, &whole) &&
                                     (!rest.at || text_number(rest, 9, &tenth)));
        uint64_t shown = (whole * 10 + tenth) * unit;
        check_in(slice_of(text), shown >= bytes * 10 && shown < bytes * 10 + unit);
    }
}

/* Where a Turkish locale is at hand: field names are ASCII, and I is i. */
static void test_locale(void)
{
    static const char head[] = "POST / HTTP/1.1\r\nHOST: a\r\nTRANSFER-ENCODING: CHUNKED\r\n"
                               "LAST-EVENT-ID: x\r\nORIGIN: http://a\r\n";
    static const char lengthy[] = "CONTENT-LENGTH: 5\r\n\r\n";
    struct http_request r;
    char both[256];

    if (!setlocale(LC_ALL, "tr_TR.UTF-8"))
        fprintf(stderr, "there is no Turkish locale: I and i are compared in C alone\n");
    snprintf(both, sizeof both, "%s\r\n", head);
    check(head_parse(both, strlen(both), &r) == (int)strlen(both));
    check(r.chunked && r.last_event_id.len == 1 && r.origin.len == 8);
    snprintf(both, sizeof both, "%s%s", head, lengthy);
    check(head_parse(both, strlen(both), &r) == -400);
    setlocale(LC_ALL, "C");
}

/* ---- Origins ----------------------------------------------------------------------------------
 */

static void test_origin_parse(void)
{
    static const struct {
        const char *text, *scheme, *host;
        unsigned port;
    } good[] = {
        {"http://h", "http", "h", 80},
        {"https://h", "https", "h", 443},
        {"HTTPS://H", "HTTPS", "H", 443},
        {"http://h:80", "http", "h", 80},
        {"http://h:8080", "http", "h", 8080},
        {"https://h:80", "https", "h", 80},
        {"https://a.example.com:65535", "https", "a.example.com", 65535},
        {"http://127.0.0.1:3000", "http", "127.0.0.1", 3000},
        {"http://[::1]", "http", "[::1]", 80},
        {"https://[2001:db8::1]:8443", "https", "[2001:db8::1]", 8443},
        {"chrome-extension://abcdefghijklmnop", "chrome-extension", "abcdefghijklmnop", 0},
        {"app+x.y-1://h", "app+x.y-1", "h", 0},
        {"capacitor://localhost", "capacitor", "localhost", 0},
        {"app://h:5", "app", "h", 5},
    };
    static const char *const bad[] = {"",
                                      "null",
                                      "h",
                                      "h:80",
                                      "http",
                                      "http:",
                                      "http://h:",
                                      "http://[::1]:",
                                      "http:/",
                                      "http://",
                                      "http:///",
                                      "http:h",
                                      "http:/h",
                                      "//h",
                                      "://h",
                                      "http://h/",
                                      "http://h/a",
                                      "http://h?a",
                                      "http://h#a",
                                      "http://u@h",
                                      "http://u:p@h",
                                      "http://:80",
                                      "http://h:x",
                                      "http://h:-1",
                                      "http://h:65536",
                                      "http://h:80:80",
                                      "http://h ",
                                      " http://h",
                                      "http ://h",
                                      "ht_tp://h",
                                      "http://a b",
                                      "http://a,http//b",
                                      "http://a http://b",
                                      "http://a, http://b",
                                      "http://[::1",
                                      "http://::1",
                                      "http://[::1]x",
                                      "http://[x]",
                                      "http:\\\\h",
                                      "**",
                                      "http://a\r\nX: y",
                                      "http://a\n",
                                      "http://h\xC3\xA9",
                                      "ht\xC3\xA9://h",
                                      "*://h/",
                                      "http//h"};
    static const char *const no_option[] = {"*:80", "* ", " *", "*.example.com", "null"};
    struct origin o;

    for (size_t i = 0; i < COUNT(good); i++) {
        struct slice in = slice_of(good[i].text);
        in.at = guarded(in.at, in.len);
        bool parsed = origin_parse(in, &o);
        check_in(in, parsed && slice_is(o.scheme, good[i].scheme));
        check_in(in, parsed && slice_is(o.host, good[i].host) && o.port == good[i].port);
        check_in(in, origin_is_valid(good[i].text));
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct slice in = slice_of(bad[i]);
        in.at = guarded(in.at, in.len);
        check_in(in, !origin_parse(in, &o) && !origin_is_valid(bad[i]));
    }
    for (size_t i = 0; i < COUNT(no_option); i++)
        check_in(slice_of(no_option[i]), !origin_is_valid(no_option[i]));
    check(origin_is_valid("*") && !origin_parse(slice_of("*"), &o));
}

static void test_origin_option_length(void)
{
    char text[HEAD_ROOM];
    struct slice s = filled(text, "https://", SSE_ORIGIN_BYTES - 8, "");
    text[s.len] = 0;
    check(s.len == SSE_ORIGIN_BYTES && origin_is_valid(text));
    s = filled(text, "https://", SSE_ORIGIN_BYTES - 7, "");
    text[s.len] = 0;
    check(s.len == SSE_ORIGIN_BYTES + 1 && !origin_is_valid(text));
}

/* A configuration that lists up to two origins. */
static struct sse_config config_listing(const char *list[2])
{
    struct sse_config config;
    sse_config_init(&config);
    config.cors = list;
    config.cors_count = (list[0] != NULL) + (size_t)(list[1] != NULL);
    return config;
}

static void test_origin_listed(void)
{
    static const struct {
        const char *list[2], *origin, *found; /* an origin of NULL is none */
    } rows[] = {
        {{NULL}, NULL, NULL},
        {{NULL}, "http://h", NULL},
        {{"http://h"}, NULL, NULL},
        {{"http://h"}, "", NULL},
        {{"http://h"}, "null", NULL},
        {{"http://h"}, "http://h", "http://h"},
        {{"http://h"}, "HTTP://H", "http://h"},
        {{"http://h"}, "http://h:80", "http://h"},
        {{"http://h:80"}, "http://h", "http://h:80"},
        {{"https://h:443"}, "https://h", "https://h:443"},
        {{"https://h"}, "http://h", NULL},
        {{"http://h"}, "https://h", NULL},
        {{"http://h:443"}, "https://h", NULL},
        {{"http://h"}, "http://h:81", NULL},
        {{"http://h:81"}, "http://h", NULL},
        {{"http://h"}, "http://h.evil", NULL},
        {{"http://h"}, "http://evil.h", NULL},
        {{"http://h"}, "http://hh", NULL},
        {{"http://h.a"}, "http://h", NULL},
        {{"http://h"}, "http://h/", NULL},
        {{"http://h"}, "http://h, http://h", NULL},
        {{"http://a", "http://b"}, "http://a", "http://a"},
        {{"http://a", "http://b"}, "http://b", "http://b"},
        {{"http://a", "http://b"}, "http://c", NULL},
        {{"app://h"}, "app://h", "app://h"},
        {{"app://h"}, "apq://h", NULL},
        {{"http://[::1]:3000"}, "http://[::1]:3000", "http://[::1]:3000"},
        {{"*"}, NULL, NULL},
        {{"*"}, "http://h", "*"},
        {{"*"}, "null", "*"},
        {{"http://a", "*"}, "http://a", "http://a"},
        {{"http://a", "*"}, "http://b", "*"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *list[2] = {rows[i].list[0], rows[i].list[1]};
        struct sse_config config = config_listing(list);
        struct slice none = {NULL, 0};
        const char *text = rows[i].origin;
        const char *found = origin_listed(&config, text ? slice_of(text) : none);
        check_in(slice_of(text ? text : "(none)"), found && rows[i].found
                                                       ? strcmp(found, rows[i].found) == 0
                                                       : found == rows[i].found);
    }
}

static void test_origin_own(void)
{
    static const struct {
        const char *origin, *authority;
        bool own;
    } rows[] = {
        {"http://h", "h", true},
        {"https://h", "h", true}, /* a proxy may speak TLS: whatever the scheme */
        {"http://h:80", "h", true},
        {"http://h", "h:80", true},
        {"https://h:443", "h", true},
        {"https://h", "h:443", true},
        {"http://h:8080", "h:8080", true},
        {"https://h:8080", "h:8080", true},
        {"https://h:80", "h:80", true},
        {"HTTP://H", "h", true},
        {"http://h", "H", true},
        {"http://[::1]:8080", "[::1]:8080", true},
        {"http://127.0.0.1:8080", "127.0.0.1:8080", true},
        {"http://h:8080", "h", false},
        {"http://h", "h:8080", false},
        {"http://h:8080", "h:8081", false},
        {"http://h:443", "h:80", false},
        {"https://h", "h:80", false},
        {"http://h", "h:443", false},
        {"http://h", "i", false},
        {"http://h", "h.evil", false},
        {"http://evil.h", "h", false},
        {"http://localhost:8080", "127.0.0.1:8080", false},
        {"http://[::1]:8080", "localhost:8080", false},
        {"null", "h", false},
        {"null", "null", false},
        {"", "h", false},
        {"", "", false},
        {"h", "h", false},
        {"http://h/", "h", false},
        {"*", "h", false},
        {"http://h", "", false},
        {"http://h", "h/", false},
    };
    static const struct slice none = {NULL, 0};

    for (size_t i = 0; i < COUNT(rows); i++)
        check_in(slice_of(rows[i].origin),
                 origin_is_own(slice_of(rows[i].origin), slice_of(rows[i].authority), false) ==
                     rows[i].own);
    check(!origin_is_own(slice_of("http://h"), none, false));
    /* where HTTPS is spoken, a Host without a port means 443 */
    check(origin_is_own(slice_of("https://h"), slice_of("h"), true));
    check(origin_is_own(slice_of("https://h:443"), slice_of("h"), true));
    check(origin_is_own(slice_of("http://h:8443"), slice_of("h:8443"), true));
    check(!origin_is_own(slice_of("http://h"), slice_of("h"), true));
    check(!origin_is_own(slice_of("x://h:80"), slice_of("h"), true));
    check(!origin_is_own(none, slice_of("h"), false));
}

static void test_authority_trusted(void)
{
    static const char *const always[] = {
        "localhost", "LocalHost",      "localhost:8080", "localhost:",
        "127.0.0.1", "127.0.0.1:8080", "1.2.3.4",        "255.255.255.255:65535",
        "0.0.0.0",   "[::1]",          "[::1]:8080",     "[2001:db8::1]"};
    static const char *const never[] = {"evil.example",
                                        "localhost.evil.example",
                                        "localhost.",
                                        "xlocalhost",
                                        "localhostx",
                                        "a.localhost",
                                        "127.0.0.1.evil.example",
                                        "127.0.0.1.",
                                        "127.0.0.256",
                                        "127.1",
                                        "2130706433",
                                        "0x7f.0.0.1",
                                        "1.2.3.4.5",
                                        "1.2.3",
                                        "h.listed",
                                        "listedh",
                                        "other",
                                        "local%68ost",
                                        "255.255.255.255.",
                                        "255.255.255.2555"};
    static const struct slice none = {NULL, 0};
    const char *nothing[2] = {NULL, NULL}, *any[2] = {"*", NULL};
    const char *some[2] = {"https://listed:8443", "http://[::1]"};
    struct sse_config plain = config_listing(nothing), listing = config_listing(some),
                      open = config_listing(any);

    for (size_t i = 0; i < COUNT(always); i++)
        check_in(slice_of(always[i]), authority_is_trusted(&plain, slice_of(always[i])) &&
                                          authority_is_trusted(&listing, slice_of(always[i])));
    for (size_t i = 0; i < COUNT(never); i++) {
        check_in(slice_of(never[i]), !authority_is_trusted(&plain, slice_of(never[i])) &&
                                         !authority_is_trusted(&listing, slice_of(never[i])));
        check_in(slice_of(never[i]), authority_is_trusted(&open, slice_of(never[i])));
    }
    check(!authority_is_trusted(&plain, slice_of("listed")));
    check(authority_is_trusted(&listing, slice_of("listed")));
    check(authority_is_trusted(&listing, slice_of("LISTED:1234"))); /* the host counts alone */
    check(authority_is_trusted(&plain, none)); /* HTTP/1.0 without Host is no browser */
}

struct origin_case {
    const char *list[2];
    bool on_loopback;
    const char *fields; /* after the request line */
    bool foreign;
};

static void test_origin_objection(void)
{
    static const struct origin_case rows[] = {
        /* programs */
        {{NULL}, true, "Host: localhost:8080\r\n", false},
        {{NULL}, true, "Host: 127.0.0.1\r\n", false},
        {{NULL}, false, "Host: sse.example\r\n", false},
        /* own pages */
        {{NULL}, true, "Host: localhost:8080\r\nOrigin: http://localhost:8080\r\n", false},
        {{NULL}, true, "Host: localhost:8080\r\nSec-Fetch-Site: same-origin\r\n", false},
        {{NULL}, true, "Host: localhost:8080\r\nSec-Fetch-Site: none\r\n", false},
        {{NULL}, false, "Host: sse.example\r\nOrigin: https://sse.example\r\n", false},
        {{NULL}, false, "Host: h\r\nOrigin: http://h\r\nSec-Fetch-Site: cross-site\r\n", false},
        /* foreign pages */
        {{NULL}, true, "Host: localhost:8080\r\nOrigin: http://localhost:3000\r\n", true},
        {{NULL}, true, "Host: localhost:8080\r\nOrigin: http://evil.example\r\n", true},
        {{NULL}, true, "Host: localhost:8080\r\nOrigin: null\r\n", true},
        {{NULL}, true, "Host: localhost:8080\r\nOrigin:\r\n", true},
        {{NULL}, true, "Host: localhost:8080\r\nSec-Fetch-Site: cross-site\r\n", true},
        {{NULL}, true, "Host: localhost:8080\r\nSec-Fetch-Site: same-site\r\n", true},
        {{NULL}, true, "Host: localhost:8080\r\nSec-Fetch-Site:\r\n", true},
        {{NULL}, true, "Host: localhost:8080\r\nSec-Fetch-Site: same-origin, none\r\n", true},
        {{NULL}, false, "Host: h\r\nOrigin: http://h:8080\r\n", true},
        {{NULL}, false, "Host: h\r\nSec-Fetch-Site: cross-site\r\n", true},
        {{NULL}, false, "Host: h\r\nOrigin: http://i\r\nSec-Fetch-Site: same-origin\r\n", true},
        /* a rebound name, with Origin or without */
        {{NULL}, true, "Host: evil.example\r\n", true},
        {{NULL}, true, "Host: evil.example:8080\r\nOrigin: http://evil.example:8080\r\n", true},
        {{NULL}, true, "Host: evil.example\r\nSec-Fetch-Site: same-origin\r\n", true},
        {{"http://a.example"}, true, "Host: evil.example\r\nOrigin: http://a.example\r\n", true},
        {{NULL}, false, "Host: evil.example\r\nOrigin: http://evil.example\r\n", false},
        /* listed ones */
        {{"http://a.example"}, true, "Host: localhost\r\nOrigin: http://a.example\r\n", false},
        {{"http://a.example"}, true, "Host: localhost\r\nOrigin: https://a.example\r\n", true},
        {{"http://a.example"}, true, "Host: localhost\r\nOrigin: http://b.example\r\n", true},
        {{"http://a.example", "http://b.example"},
         true,
         "Host: localhost\r\nOrigin: http://b.example\r\n",
         false},
        {{"https://a.example"}, true, "Host: a.example\r\nOrigin: https://a.example\r\n", false},
        {{"https://a.example"}, true, "Host: a.example\r\n", false},
        {{"https://a.example"}, true, "Host: a.example:8443\r\n", false},
        {{"http://a.example"}, true, "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", true},
        {{"*"}, true, "Host: evil.example\r\nOrigin: http://b.example\r\n", false},
        {{"*"}, false, "Host: h\r\nOrigin: null\r\n", false},
        {{"*"}, false, "Host: h\r\nSec-Fetch-Site: cross-site\r\n", true},
    };
    static struct sse_server server;
    struct http_request r;
    char head[512];

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *list[2] = {rows[i].list[0], rows[i].list[1]};
        server.config = config_listing(list);
        server.on_loopback = rows[i].on_loopback;
        struct text t = text_over(head, sizeof head);
        text_print(&t, GET "%s\r\n", rows[i].fields);
        check_in(slice_of(rows[i].fields),
                 head_parse(guarded(head, t.len), t.len, &r) == (int)t.len);
        const char *objection = origin_objection(&server, &r);
        check_in(slice_of(rows[i].fields), (objection != NULL) == rows[i].foreign);
    }
    server.config.cors = NULL;
}

/* Whom an absolute-form target asks for counts, and nobody may be asked in HTTP/1.0. */
static void test_origin_objection_targets(void)
{
    static const struct {
        struct slice head;
        bool foreign;
    } rows[] = {
        {BYTES("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n"), true},
        {BYTES("GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"), false},
        {BYTES("GET http://localhost/ HTTP/1.1\r\nHost: h\r\nOrigin: http://localhost\r\n\r\n"),
         false},
        {BYTES("GET http://localhost/ HTTP/1.1\r\nHost: h\r\nOrigin: http://h\r\n\r\n"), true},
        {BYTES("GET / HTTP/1.0\r\n\r\n"), false},
        {BYTES("GET / HTTP/1.0\r\nOrigin: http://localhost\r\n\r\n"), true},
        {BYTES("GET / HTTP/1.0\r\nSec-Fetch-Site: cross-site\r\n\r\n"), true},
        {BYTES("GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n"), true},
    };
    static struct sse_server server;
    struct http_request r;

    sse_config_init(&server.config);
    server.on_loopback = true;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct slice head = rows[i].head;
        check_in(head, head_parse(guarded(head.at, head.len), head.len, &r) == (int)head.len);
        check_in(head, (origin_objection(&server, &r) != NULL) == rows[i].foreign);
    }
}

/* ---- Options ----------------------------------------------------------------------------------
 */

static void test_config(void)
{
    static const char *const addresses[] = {"127.0.0.1", "0.0.0.0", "::1", "::", "10.0.0.1"};
    static const char *const no_addresses[] = {
        "",      "127.1", "2130706433", "localhost",  "256.0.0.1", "127.0.0.1:80",
        "[::1]", "::g",   " 127.0.0.1", "example.com"};
    const char *good[2] = {"http://a", "*"}, *bad[2] = {"http://a", "http://a/"};
    struct sse_config config, changed;

    sse_config_init(&config);
    check(config_is_valid(&config));
    check(config.port == 8080 && strcmp(config.bind_address, "127.0.0.1") == 0);
    check(config.max_users == 1024 && config.max_connections == 1024 && config.max_streams == 16);
    check(config.history == 64 && config.history_bytes == 131072 && config.max_message == 65536);
    check(config.heartbeat_s == 5 && config.retry_ms == 2000 && !config.heartbeat_comment);
    check(config.demo && config.access_log && config.cors_count == 0 && !config.log);

    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct config_option *o = &OPTIONS[i];
        check_in(slice_of(o->name), o->help && o->help[0] && strlen(o->name) > 1);
        for (int j = 0; j < i; j++)
            check_in(slice_of(o->name), strcmp(o->name, OPTIONS[j].name) != 0 &&
                                            (!o->letter || o->letter != OPTIONS[j].letter));
        if (o->kind != OPTION_NUMBER)
            continue;
        check_in(slice_of(o->name), o->min <= o->preset && o->preset <= o->max);
        const struct {
            unsigned value;
            bool valid;
        } at[] = {{o->min, true}, {o->max, true}, {o->max + 1, false}, {o->min - 1, false}};
        for (size_t j = 0; j < COUNT(at); j++) {
            changed = config;
            *(unsigned *)option_field(&changed, o) = at[j].value;
            check_in(slice_of(o->name), config_is_valid(&changed) == at[j].valid);
        }
    }
    for (size_t i = 0; i < COUNT(addresses); i++)
        check_in(slice_of(addresses[i]), address_is_valid(addresses[i]));
    for (size_t i = 0; i < COUNT(no_addresses); i++)
        check_in(slice_of(no_addresses[i]), !address_is_valid(no_addresses[i]));
    changed = config_listing(good);
    check(config_is_valid(&changed));
    changed = config_listing(bad);
    check(!config_is_valid(&changed));
    changed = config;
    changed.bind_address = NULL;
    check(!config_is_valid(&changed));
}

#define HTTP_TESTS(RUN)                                                                            \
    RUN(test_head_valid)                                                                           \
    RUN(test_head_fields)                                                                          \
    RUN(test_head_request_line)                                                                    \
    RUN(test_head_version)                                                                         \
    RUN(test_head_controls)                                                                        \
    RUN(test_head_malformed_fields)                                                                \
    RUN(test_head_host)                                                                            \
    RUN(test_head_length)                                                                          \
    RUN(test_head_codings)                                                                         \
    RUN(test_head_limits)                                                                          \
    RUN(test_chunks_valid)                                                                         \
    RUN(test_chunks_malformed)                                                                     \
    RUN(test_chunks_limits)                                                                        \
    RUN(test_chunks_trailer_limits)                                                                \
    RUN(test_percent_decode)                                                                       \
    RUN(test_query)                                                                                \
    RUN(test_utf8_code_points)                                                                     \
    RUN(test_utf8_cut)                                                                             \
    RUN(test_utf8_malformed)                                                                       \
    RUN(test_utf8_text)                                                                            \
    RUN(test_user_names)                                                                           \
    RUN(test_event_names)                                                                          \
    RUN(test_json_strings)                                                                         \
    RUN(test_json_code_points)                                                                     \
    RUN(test_text_bounds)                                                                          \
    RUN(test_dates)                                                                                \
    RUN(test_digits)                                                                               \
    RUN(test_numbers)                                                                              \
    RUN(test_sizes)                                                                                \
    RUN(test_locale)                                                                               \
    RUN(test_origin_parse)                                                                         \
    RUN(test_origin_option_length)                                                                 \
    RUN(test_origin_listed)                                                                        \
    RUN(test_origin_own)                                                                           \
    RUN(test_authority_trusted)                                                                    \
    RUN(test_origin_objection)                                                                     \
    RUN(test_origin_objection_targets)                                                             \
    RUN(test_config)
