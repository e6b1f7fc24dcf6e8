/* wire - a client's end of a connection, plain or over TLS, for bench.c, torture.c and client.h, which
 * define fail() before they include it. Where SSE_TLS is defined and `cert` is set, all goes over TLS. */

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

static SSL_CTX *wire_context(void)
{
    static _Atomic(SSL_CTX *) context;
    SSL_CTX *mine = atomic_load(&context), *none = NULL;
    if (!mine) {
        mine = SSL_CTX_new(TLS_client_method());
        if (!atomic_compare_exchange_strong(&context, &none, mine))
            mine = none;
    }
    return mine;
}

/* What OpenSSL says of a call that got n, as recv() and send() would. */
static ssize_t wire_result(int fd, int n)
{
    int why = n > 0 ? SSL_ERROR_NONE : SSL_get_error(wires[fd], n);
    if (why == SSL_ERROR_NONE || why == SSL_ERROR_ZERO_RETURN)
        return n > 0 ? n : 0;
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        errno = EAGAIN;
    else if (n < 0)
        errno = ECONNRESET;
    return -1;
}

/* Begins the handshake, or goes on with it: 1 when it is done, 0 if a socket that does not block has
 * to become readable first, -1 if it failed. */
static int try_handshake(int fd)
{
    if (fd >= WIRES ||
        (!wires[fd] && (!(wires[fd] = SSL_new(wire_context())) || SSL_set_fd(wires[fd], fd) != 1)))
        fail("no memory for a handshake");
    int n = SSL_connect(wires[fd]);
    if (n != 1 && (wire_result(fd, n) == 0 || errno != EAGAIN))
        return -1;
    SSL_set_mode(wires[fd], SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return n == 1;
}

/* As recv(); on a wire whose socket blocks a record that has begun is waited for. */
static ssize_t get(int fd, char *to, size_t len, int flags)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (!cert)
        return recv(fd, to, len, flags);
    if (flags && SSL_pending(wires[fd]) == 0 && poll(&p, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return wire_result(fd, SSL_read(wires[fd], to, (int)len));
}

static ssize_t put(int fd, const char *bytes, size_t len)
{
    if (!cert)
        return send(fd, bytes, len, MSG_NOSIGNAL);
    return wire_result(fd, SSL_write(wires[fd], bytes, (int)len));
}

static bool is_pending(int fd)
{
    return cert && SSL_pending(wires[fd]) > 0;
}

static void hang_up(int fd)
{
    if (cert) {
        SSL_free(wires[fd]);
        wires[fd] = NULL;
    }
    close(fd);
}

#else

static int try_handshake(int fd)
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

/* The same, for whom it must not fail. */
static bool shake_hands(int fd)
{
    int n = try_handshake(fd);
    if (n < 0)
        fail("the handshake failed");
    return n > 0;
}

/* The whole handshake, on a socket that blocks. */
static void secure(int fd)
{
    if (!shake_hands(fd))
        fail("the handshake failed");
}
