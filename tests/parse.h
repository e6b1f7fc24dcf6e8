/* parse - for tests that include sse.c: what its parsers say, in one number. */

enum { HTTP_MORE = 0 }; /* else the bytes used, or minus a status */

static int head_parse(const char *in, size_t len, struct http_request *r)
{
    size_t used;
    int status = http_parse_head(in, len, r, &used);
    return status ? -status : (int)used;
}

static int chunk_decode(struct http_chunks *c, const char *in, size_t len, struct slice *data,
                        struct http_request *r)
{
    size_t used;
    int status = http_decode_chunk(c, in, len, data, r, &used);
    return status ? -status : (int)used;
}
