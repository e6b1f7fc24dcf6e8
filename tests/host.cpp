/* host - a C++ program that calls sse, to see that the public API is C++ as well.
 *
 *     mkdir -p build && cc -std=c11 -pthread -DSSE_NO_MAIN -c -o build/sse.o sse.c
 *     c++ -std=c++17 -pthread -o build/host tests/host.cpp build/sse.o && build/host
 *
 * SSE_API_ONLY leaves of sse.c what a header would hold. How to embed is told in embed.c.
 * Prints `host: ok` and exits 0, or says what went wrong and exits 1. */

#define SSE_API_ONLY
#include "../sse.c"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

static void expect(bool good, const char *what)
{
    if (good)
        return;
    std::fprintf(stderr, "host: %s\n", what);
    std::exit(1);
}

struct destroyer {
    void operator()(sse_server *server) const
    {
        sse_destroy(server);
    }
};

/* Creates a server, runs it on a thread, sends, stops and destroys it. */
static void try_server()
{
    sse_config config;
    sse_config_init(&config);
    config.port = 0;
    config.max_users = 16;
    config.max_connections = 16;

    sse_server *created = nullptr;
    expect(sse_create(&created, &config) == SSE_OK, "sse_create() failed");
    std::unique_ptr<sse_server, destroyer> server(created);
    expect(sse_port(created) > 0, "sse_port() tells no port");

    sse_handler greet = [](sse_exchange *exchange, void *) {
        sse_print(exchange, "{\"hello\":true}\n");
        return 200;
    };
    expect(sse_route(created, "GET", "/hello", SSE_ANYONE, "greets", greet, nullptr) == SSE_OK,
           "sse_route() failed");

    int code = SSE_ESYSTEM;
    std::thread runner([&] { code = sse_run(created); });

    const std::string text = "hello from C++";
    sse_receipt receipt;
    sse_user_status status;
    expect(sse_send(created, "alice", nullptr, text.data(), text.size(), &receipt) == SSE_OK &&
               receipt.users == 1 && receipt.streams == 0 && receipt.id[0] != 0,
           "sse_send() failed");
    expect(sse_status(created, "alice", &status) == SSE_OK, "sse_status() failed");
    expect(!status.connected && status.queued == 1, "one message should wait for alice");

    sse_stop(created);
    runner.join();
    expect(code == SSE_OK, "sse_run() failed");
}

int main()
{
    for (int round = 0; round < 3; round++)
        try_server();
    std::puts("host: ok");
    return 0;
}
