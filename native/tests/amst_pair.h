/* Two engines in one process, joined by real sockets on loopback. */
#ifndef AMST_PAIR_H
#define AMST_PAIR_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "nc_amst.h"
#include "nc_err.h"
#include "nc_frame.h"

#define CHUNK (64u * 1024)
#define PATIENCE_MS 20000

struct end {
    struct nc_amst *engine;
    struct nc_amst_link *link;
    unsigned seen[NC_AMST_EVENT_MAX];
    int code;                    /* of the last failure */
    char why[NC_AMST_WHY_BYTES]; /* of the last lost stream */
};

struct engines {
    struct end a; /* initiator */
    struct end b;
    int listener;
    struct sockaddr_in address;
};

static inline void open_end(struct end *end, int initiator, int encrypt, uint32_t threads)
{
    struct nc_amst_options options = {.threads = threads};
    struct nc_amst_link_options link = {.tag = 7,
                                        .initiator = initiator,
                                        .encrypt = encrypt,
                                        .max_chunk = 1024 * 1024,
                                        .send_window = 16u * 1024 * 1024,
                                        .receive_window = 16u * 1024 * 1024};
    struct nc_err err;

    memset(end, 0, sizeof *end);
    memset(link.id, 5, sizeof link.id);
    memset(link.secret, 6, sizeof link.secret);
    memset(link.context, 8, sizeof link.context);
    if (nc_amst_open(&options, &end->engine, &err) != NC_ERR_OK ||
        nc_amst_link_open(end->engine, &link, &end->link, &err) != NC_ERR_OK) {
        (void)fprintf(stderr, "no engine: %s\n", err.reason);
        exit(1);
    }
}

static inline void open_engines(struct engines *pair, int encrypt, uint32_t threads)
{
    socklen_t size = sizeof pair->address;

    open_end(&pair->a, 1, encrypt, threads);
    open_end(&pair->b, 0, encrypt, threads);
    pair->listener = socket(AF_INET, SOCK_STREAM, 0);
    memset(&pair->address, 0, sizeof pair->address);
    pair->address.sin_family = AF_INET;
    pair->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(pair->listener, (struct sockaddr *)&pair->address, sizeof pair->address) == 0);
    CHECK(listen(pair->listener, 300) == 0);
    CHECK(getsockname(pair->listener, (struct sockaddr *)&pair->address, &size) == 0);
}

/* Dials, and reads what the initiator says; the acceptor's end of the connection. */
static inline int greet(struct engines *pair, uint32_t id, uint8_t *ret_hello)
{
    int near = socket(AF_INET, SOCK_STREAM, 0);
    int far;
    size_t have = 0;
    struct nc_err err = {0};

    CHECK(connect(near, (struct sockaddr *)&pair->address, sizeof pair->address) == 0);
    far = accept(pair->listener, NULL, NULL);
    CHECK(nc_amst_link_dialled(pair->a.link, near, id, &err) == NC_ERR_OK);
    while (have < NC_FRAME_HELLO_BYTES) {
        ssize_t got = read(far, ret_hello + have, NC_FRAME_HELLO_BYTES - have);

        if (got <= 0)
            return -1;
        have += (size_t)got;
    }
    return far;
}

static inline int add_stream(struct engines *pair, uint32_t id)
{
    uint8_t hello[NC_FRAME_HELLO_BYTES];
    int far = greet(pair, id, hello);
    struct nc_err err = {0};

    CHECK(nc_amst_link_accepted(pair->b.link, far, hello, sizeof hello, &err) == NC_ERR_OK);
    return far;
}

/* Takes events until `kind` was seen `count` times; false when it takes too long. */
static inline int await(struct end *end, int kind, unsigned count)
{
    for (int rounds = 0; rounds < PATIENCE_MS / 100; rounds++) {
        struct nc_amst_event events[16];
        struct pollfd ready = {.fd = nc_amst_event_fd(end->engine), .events = POLLIN};
        size_t got;

        if (end->seen[kind] >= count)
            return 1;
        (void)poll(&ready, 1, 100);
        got = nc_amst_poll(end->engine, events, 16);
        for (size_t i = 0; i < got; i++) {
            end->seen[events[i].kind]++;
            if (events[i].kind == NC_AMST_OBJECT_FAILED)
                end->code = events[i].code;
            if (events[i].kind == NC_AMST_STREAM_LOST)
                memcpy(end->why, events[i].why, sizeof end->why);
        }
    }
    return end->seen[kind] >= count;
}

static inline void end_object(struct end *end, struct nc_amst_object *object)
{
    unsigned before = end->seen[NC_AMST_OBJECT_ENDED];

    nc_amst_object_abort(object);
    CHECK(await(end, NC_AMST_OBJECT_ENDED, before + 1));
    nc_amst_object_free(object);
}

static inline void close_engines(struct engines *pair)
{
    nc_amst_link_abort(pair->a.link);
    nc_amst_link_abort(pair->b.link);
    CHECK(await(&pair->a, NC_AMST_LINK_ENDED, 1));
    CHECK(await(&pair->b, NC_AMST_LINK_ENDED, 1));
    nc_amst_link_free(pair->a.link);
    nc_amst_link_free(pair->b.link);
    nc_amst_close(pair->a.engine);
    nc_amst_close(pair->b.engine);
    (void)close(pair->listener);
}

static inline void fill(uint8_t *data, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
}

/* Through a pipe from the first engine to the second. */
static inline void pump(struct engines *pair, size_t size)
{
    unsigned done = pair->a.seen[NC_AMST_OBJECT_DONE] + 1;
    int in[2];
    int out[2];
    uint8_t *from = malloc(size + 1);
    uint8_t *to = malloc(size + 1);
    size_t put = 0;
    size_t have = 0;
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
    struct nc_err err = {0};

    fill(from, size, 9);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, in) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, out) == 0);
    CHECK(nc_amst_pipe_receive(pair->b.link, 2, 1, out[1], 1024 * 1024, &received, &err) ==
          NC_ERR_OK);
    CHECK(nc_amst_pipe_send(pair->a.link, 2, 1, in[1], 256 * 1024, 0, 1024 * 1024, &sent, &err) ==
          NC_ERR_OK);
    (void)close(in[1]);
    (void)close(out[1]);
    for (int idle = 0; idle < 400 && have < size;) {
        struct pollfd ready[2] = {{.fd = in[0], .events = put < size ? POLLOUT : 0},
                                  {.fd = out[0], .events = POLLIN}};
        ssize_t got;

        if (poll(ready, 2, 50) == 0)
            idle++;
        if (put < size) {
            got = write(in[0], from + put, size - put);
            if (got > 0)
                put += (size_t)got;
            if (put == size)
                (void)shutdown(in[0], SHUT_WR);
        }
        got = read(out[0], to + have, size - have + 1);
        if (got > 0)
            have += (size_t)got;
    }
    if (size == 0)
        (void)shutdown(in[0], SHUT_WR);
    CHECK(have == size && memcmp(from, to, size) == 0);
    CHECK(await(&pair->a, NC_AMST_OBJECT_DONE, done));
    CHECK(await(&pair->b, NC_AMST_OBJECT_DONE, done));
    CHECK(read(out[0], to, 1) == 0);
    end_object(&pair->a, sent);
    end_object(&pair->b, received);
    (void)close(in[0]);
    (void)close(out[0]);
    free(from);
    free(to);
}

#endif
