/* siege - measures what strangers and stuck readers cost others, and how a server begins and ends.
 *
 *     make build/sse build/siege
 *     build/siege build/sse [STREAMS [CERT KEY]]     default 1000; each takes a descriptor at both ends
 *
 * With CERT and KEY, and both programs built with OpenSSL (build/tls/...), all of it goes over HTTPS.
 *
 * Starts the server itself on a free port, opens that many streams, each of a user of its own, and
 * reports:
 *
 *     time until ready, and resident memory before the first client
 *     the delay from request to stream, alone and beside a stuck reader, in turns, five times each
 *     the same while strangers throw garbage and slow requests at it, and what of that stays
 *     how long SIGTERM takes with everything open
 *
 * Every stream must have had its greeting, each message, and its farewell; otherwise it says so and
 * exits with 1. */

#define _POSIX_C_SOURCE 200809L
enum { SLOW = 1000, GARBAGE = 10000 };
enum { SENDS = 20000 };

#define NAME "siege"
#include "client.h"

/* A number from a line of /proc/PID/status. */
static long status_field(const struct server *s, const char *name)
{
    char path[64], line[256];
    long value = -1;

    snprintf(path, sizeof path, "/proc/%d/status", (int)s->pid);
    FILE *f = fopen(path, "r");
    while (f && value < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtol(line + strlen(name) + 1, NULL, 10);
    if (f)
        fclose(f);
    return value;
}

static int dial_stuck(const struct server *s)
{
    int fd = dial(s);
    say(fd, "GET /sse/connect/stuck HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    return fd;
}

/* A large message to the user whose reader reads nothing. It comes anew when the server has closed
 * it for falling out of its history. */
static int send_to_stuck(const struct server *s, int fd, int stuck)
{
    static char body[32001];
    char got[ANSWER_BYTES];

    memset(body, 'x', sizeof body - 1);
    say(fd, "POST /sse/send/stuck HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 32000\r\n\r\n");
    say(fd, body);
    hear(fd, "}\n", got);
    if (!strstr(got, "\"streams\":0"))
        return stuck;
    hang_up(stuck);
    return dial_stuck(s);
}

/* One sender goes round all users, each of whom reads; the time from request to stream. With `beside`
 * a stuck reader gets a large message before every tenth. Returns the 99th percentile, in
 * microseconds. */
static double round_robin(const struct server *s, const int *streams, int count, bool beside)
{
    static double delay_us[SENDS];
    char request[160], got[ANSWER_BYTES];
    int fd = dial(s), stuck = beside ? dial_stuck(s) : -1;

    for (int i = 0; i < SENDS; i++) {
        if (beside && i % 10 == 0)
            stuck = send_to_stuck(s, fd, stuck);
        snprintf(request, sizeof request,
                 "POST /sse/send/u%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nhi",
                 i % count);
        double began = now_ms();
        say(fd, request);
        hear(streams[i % count], "data: hi\n\n", got);
        delay_us[i] = (now_ms() - began) * 1e3;
        hear(fd, "\"streams\":1,\"delivered\":1}\n", got);
    }
    hang_up(fd);
    if (beside)
        hang_up(stuck);
    qsort(delay_us, SENDS, sizeof *delay_us, by_size);
    return delay_us[SENDS * 99 / 100];
}

/* The same alone and beside a stuck reader, in turns; medians of the 99th percentiles. */
static void stuck_reader(const struct server *s, const int *streams, int count)
{
    enum { TURNS = 5 };
    double alone[TURNS], beside[TURNS];

    for (int i = 0; i < TURNS; i++) {
        alone[i] = round_robin(s, streams, count, false);
        beside[i] = round_robin(s, streams, count, true);
    }
    qsort(alone, TURNS, sizeof *alone, by_size);
    qsort(beside, TURNS, sizeof *beside, by_size);
    printf(
        "one sender, %d users   %8.0f us p99 (%.0f to %.0f); beside a stuck reader %.0f (%.0f to "
        "%.0f)\n",
        count, alone[TURNS / 2], alone[0], alone[TURNS - 1], beside[TURNS / 2], beside[0],
        beside[TURNS - 1]);
}

static void drain(const int *streams, int count)
{
    char got[ANSWER_BYTES];
    for (int i = 0; i < count; i++)
        while (is_readable(streams[i], 0) && get(streams[i], got, sizeof got, 0) > 0)
            ;
}

/* The delay of one message, from request to stream. */
static double one_delay_us(int sender, int stream, int user)
{
    char request[160], got[ANSWER_BYTES];
    snprintf(request, sizeof request,
             "POST /sse/send/u%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nhi", user);
    double began = now_ms();
    say(sender, request);
    hear(stream, "data: hi\n\n", got);
    double took = (now_ms() - began) * 1e3;
    hear(sender, "\"streams\":1,\"delivered\":1}\n", got);
    return took;
}

/* Strangers, in a process of their own: slow requests that gain a byte a second, and garbage, evenly
 * spread over some seconds. */
static void besiege(const struct server *s, int seconds)
{
    static const char *const garbage[] = {"",
                                          "GET / HTTP/9.9\r\n\r\n",
                                          "\x16\x03\x01\x02",
                                          "\xff\xfe\xfd",
                                          "POST /sse/send/x HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
                                          "GET /sse/connect/%00 HTTP/1.1\r\nHost: a\r\n\r\n"};
    static int slow[SLOW];
    double began = now_ms(), second = 0;

    for (int i = 0; i < SLOW; i++)
        slow[i] = dial_plain(s, 0);
    for (int i = 0; i < GARBAGE; i++) {
        double due = began + (double)i * seconds * 1e3 / GARBAGE, left = due - now_ms();
        struct timespec rest = {.tv_nsec = left > 0 ? (long)(left * 1e6) % 1000000000 : 0};
        nanosleep(&rest, NULL);
        if (due >= began + second * 1e3) {
            for (int k = 0; k < SLOW; k++) /* "GETGETGET...", or as much of a handshake */
                send(slow[k], cert ? "\x16" : &"GET"[i % 3], 1, MSG_NOSIGNAL);
            second++;
        }
        const char *bytes = garbage[i % 6];
        int fd = dial_plain(s, 0);
        send(fd, bytes, strlen(bytes), MSG_NOSIGNAL);
        close(fd);
    }
    _exit(0);
}

/* Messages at an even pace for some seconds, with or without strangers. Leaves median and 99th
 * percentile of the delay, in microseconds. */
static void paced(const struct server *s, const int *streams, int count, int seconds, double out[2])
{
    enum { PER_SECOND = 500, MOST = 20 * PER_SECOND };
    static double delay_us[MOST];
    int n = seconds * PER_SECOND, sender = dial(s);
    double began = now_ms();

    for (int i = 0; i < n; i++) {
        double left = began + i * 1e3 / PER_SECOND - now_ms();
        struct timespec rest = {.tv_nsec = left > 0 ? (long)(left * 1e6) % 1000000000 : 0};
        nanosleep(&rest, NULL);
        delay_us[i] = one_delay_us(sender, streams[i % count], i % count);
    }
    hang_up(sender);
    qsort(delay_us, (size_t)n, sizeof *delay_us, by_size);
    out[0] = delay_us[n / 2];
    out[1] = delay_us[n * 99 / 100];
}

/* The same with strangers at a server. */
static void paced_besieged(const struct server *s, const struct server *besieged,
                           const int *streams, int count, int seconds, double out[2])
{
    int status;
    pid_t strangers = fork();
    if (strangers == 0)
        besiege(besieged, seconds);
    paced(s, streams, count, seconds, out);
    if (waitpid(strangers, &status, 0) != strangers || status != 0)
        fail("the strangers failed");
}

/* Strangers take the machine's time, too: so the same is measured while they are at another server of
 * the kind, beside this one. */
static void siege(const struct server *s, const struct server *other, const int *streams, int count)
{
    enum { SECONDS = 10 };
    double before[2], beside[2], during[2], after[2];
    long threads = status_field(s, "Threads:"), size = status_field(s, "VmRSS:");

    drain(streams, count);
    paced(s, streams, count, SECONDS / 2, before);
    paced_besieged(s, other, streams, count, SECONDS, beside);
    paced_besieged(s, s, streams, count, SECONDS, during);
    double since = now_ms();
    while (status_field(s, "Threads:") > threads)
        if (now_ms() - since > PATIENCE_MS)
            fail("%ld threads stay, of %ld", status_field(s, "Threads:"), threads);
        else
            poll(NULL, 0, 50);
    paced(s, streams, count, SECONDS / 2, after);
    printf("delay, quiet             %8.0f us median, %.0f us p99\n", before[0], before[1]);
    printf(
        "another is besieged      %8.0f us median, %.0f us p99 (%d slow and %d bad connections)\n",
        beside[0], beside[1], SLOW, GARBAGE);
    printf("this one is besieged     %8.0f us median, %.0f us p99\n", during[0], during[1]);
    printf("afterwards               %8.0f us median, %.0f us p99; %+ld KiB resident\n", after[0],
           after[1], status_field(s, "VmRSS:") - size);
}

/* SIGTERM: every stream is told when to come back, then closed; the server exits with 0. */
static void stop(const struct server *s, const int *streams, int count)
{
    char got[ANSWER_BYTES];
    double began = now_ms();

    kill(s->pid, SIGTERM);
    for (int i = 0; i < count; i++) {
        size_t len = 0;
        ssize_t n;
        while ((n = get(streams[i], got + len, sizeof got - 1 - len, 0)) > 0)
            len += (size_t)n;
        got[len] = 0;
        if (!strstr(got, "retry: "))
            fail("stream %d was closed without a word", i);
        hang_up(streams[i]);
    }
    server_await_end(s);
    printf("SIGTERM to exit          %8.0f ms\n", now_ms() - began);
}

int main(int argc, char **argv)
{
    int count = argc > 2 ? atoi(argv[2]) : 1000;
    char connections[16];
    const char *options[] = {"--max-connections", connections, "--max-users", connections, NULL};

    if (argc < 2 || count < 1 || argc == 4)
        fail("usage: siege ./sse [STREAMS [CERT KEY]]");
    if (argc > 4) {
        cert = argv[3];
        key = argv[4];
    }
    signal(SIGPIPE, SIG_IGN);
    if (!raise_limit((unsigned)count + 2 * SLOW))
        fail("%d streams need more descriptors than may be had", count);
    int *streams = calloc((size_t)count, sizeof *streams);
    if (!streams)
        fail("not enough memory");

    setvbuf(stdout, NULL, _IOLBF, 0); /* each figure as soon as it is there */
    snprintf(connections, sizeof connections, "%d", count + 2 * SLOW);
    struct server s = server_start(argv[1], options);
    printf("ready                    %8.1f ms\n", s.ready_ms);
    printf("resident, no client      %8ld KiB\n", status_field(&s, "VmRSS:"));
    open_streams(&s, streams, count, count);
    stuck_reader(&s, streams, count);
    struct server other = server_start(argv[1], options);
    siege(&s, &other, streams, count);
    kill(other.pid, SIGTERM);
    server_await_end(&other);
    stop(&s, streams, count);
    free(streams);
    return 0;
}
