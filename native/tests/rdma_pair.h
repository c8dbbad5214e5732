/* Two channels of one process on the false library, connected with each other. */
#ifndef RDMA_PAIR_H
#define RDMA_PAIR_H

#include <dlfcn.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>

#include "check.h"
#include "nc_err.h"
#include "nc_rdma.h"

#define FAKE BUILD_DIRECTORY "/libfake_verbs.so"

struct pair {
    struct nc_rdma *rdma;
    struct nc_rdma_channel *channels[2];
};

static inline void set_fault(const char *name)
{
    CHECK(setenv("FAKE_VERBS", name, 1) == 0);
}

static inline int open_rdma(const char *device, struct nc_rdma **ret_rdma, struct nc_err *err)
{
    const struct nc_rdma_options options = {.library = FAKE, .device = device, .gid_index = -1};

    return nc_rdma_open(&options, ret_rdma, err);
}

/* Ends the test program where it does not work: nothing else would make sense then. */
static inline struct pair open_pair(uint32_t slots_0, uint32_t slots_1, uint32_t slot_bytes)
{
    struct nc_err err = {0};
    struct pair pair = {0};
    struct nc_rdma_peer peers[2];

    if (open_rdma("rxe0", &pair.rdma, &err) != NC_ERR_OK ||
        nc_rdma_channel_open(pair.rdma, slots_0, slot_bytes, &pair.channels[0], &err) !=
            NC_ERR_OK ||
        nc_rdma_channel_open(pair.rdma, slots_1, slot_bytes, &pair.channels[1], &err) !=
            NC_ERR_OK) {
        (void)fprintf(stderr, "no pair: %s\n", err.reason);
        exit(1);
    }
    nc_rdma_channel_local(pair.channels[0], &peers[0]);
    nc_rdma_channel_local(pair.channels[1], &peers[1]);
    if (nc_rdma_channel_connect(pair.channels[0], &peers[1], &err) != NC_ERR_OK ||
        nc_rdma_channel_connect(pair.channels[1], &peers[0], &err) != NC_ERR_OK) {
        (void)fprintf(stderr, "no connection: %s\n", err.reason);
        exit(1);
    }
    return pair;
}

static inline void close_pair(struct pair *pair)
{
    nc_rdma_channel_close(pair->channels[0]);
    nc_rdma_channel_close(pair->channels[1]);
    nc_rdma_close(pair->rdma);
}

static inline void find(void *library, const char *name, void *ret_function)
{
    void *address = dlsym(library, name);

    CHECK(address != NULL);
    memcpy(ret_function, &address, sizeof address);
}

static inline int is_readable(const struct nc_rdma_channel *channel, int timeout_ms)
{
    struct pollfd waiting = {.fd = nc_rdma_channel_fd(channel), .events = POLLIN};

    return poll(&waiting, 1, timeout_ms) == 1;
}

static inline int poll_one(struct nc_rdma_channel *channel, struct nc_rdma_message *ret_message,
                           size_t *ret_count, int *ret_room, struct nc_err *err)
{
    return nc_rdma_channel_poll(channel, ret_message, 1, ret_count, ret_room, err);
}

static inline int send_one(struct nc_rdma_channel *channel, uint32_t size, struct nc_err *err)
{
    uint32_t slot;
    uint8_t *data = nc_rdma_channel_acquire(channel, &slot);

    CHECK(data != NULL);
    if (data == NULL)
        return NC_ERR_MAX;
    memset(data, 7, size);
    return nc_rdma_channel_post(channel, slot, size, err);
}

#endif
