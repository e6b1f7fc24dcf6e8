/* wire - a client's end of a connection, plain or over TLS, for bench.c and torture.c, which define
 * fail() before they include it. Where SSE_TLS is defined and `cert` is set, all goes over TLS. */

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef SSE_TLS
#include <openssl/ssl.h>
#endif

enum { WIRES = 65536 };

static const char *cert, *key; /* NULL for plain HTTP */

#ifdef SSE_TLS

static SSL *wires[WIRES]; /* by descriptor */

static void secure(int fd)
{
    static _Atomic(SSL_CTX *) context;
    SSL_CTX *mine = atomic_load(&context), *none = NULL;
    if (!mine) {
        mine = SSL_CTX_new(TLS_client_method());
        if (!atomic_compare_exchange_strong(&context, &none, mine))
            mine = none;
    }
    if (fd >= WIRES || !(wires[fd] = SSL_new(mine)) || SSL_set_fd(wires[fd], fd) != 1 ||
        SSL_connect(wires[fd]) != 1)
        fail("the handshake failed");
    SSL_set_mode(wires[fd], SSL_MODE_RELEASE_BUFFERS);
}

/* As recv(); on a wire a record that has begun is waited for. */
static ssize_t get(int fd, char *to, size_t len, int flags)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (!cert)
        return recv(fd, to, len, flags);
    if (flags && SSL_pending(wires[fd]) == 0 && poll(&p, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    int n = SSL_read(wires[fd], to, (int)len);
    if (n <= 0 && SSL_get_error(wires[fd], n) == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = n < 0 ? ECONNRESET : errno;
    return n > 0 ? n : -1;
}

static ssize_t put(int fd, const char *bytes, size_t len)
{
    return cert ? SSL_write(wires[fd], bytes, (int)len) : send(fd, bytes, len, MSG_NOSIGNAL);
}

static bool is_pending(int fd)
{
    return cert && SSL_pending(wires[fd]) > 0;
}

static void hang_up(int fd)
{
    if (cert)
        SSL_free(wires[fd]);
    close(fd);
}

#else

static void secure(int fd)
{
    (void)fd;
    fail("this build has no OpenSSL");
}

static ssize_t get(int fd, char *to, size_t len, int flags)
{
    return recv(fd, to, len, flags);
}

static ssize_t put(int fd, const char *bytes, size_t len)
{
    return send(fd, bytes, len, MSG_NOSIGNAL);
}

static bool is_pending(int fd)
{
    (void)fd;
    return false;
}

static void hang_up(int fd)
{
    close(fd);
}

#endif
