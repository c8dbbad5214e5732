/* A libibverbs that needs no hardware: three devices, of which the first two can move data between
 * the queue pairs of one process (fake_rdma.c). FAKE_VERBS in the environment says what goes wrong:
 * enosys, enoent, eperm, empty, noopen, nodevice, noport, down, nogid, fork; what it may be for the
 * data path stands in fake_rdma.c; anything else: all works. FAKE_VERBS_SYSFS is a directory in
 * which rxe0/ports/1/gid_attrs/types/ is looked for. FAKE_WITHOUT_QUERY_PORT builds a library that
 * lacks a symbol, FAKE_WITHOUT_FORK one as old libraries are. */
#define _GNU_SOURCE /* pipe2 */

#include "fake_verbs.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct ibv_device all[3] = {
    {.node_type = 1,
     .transport_type = 0,
     .name = "mlx5_0",
     .dev_name = "fake-uverbs0",
     .ibdev_path = "/sys/class/infiniband/mlx5_0"},
    {.node_type = 1,
     .transport_type = 0,
     .name = "rxe0",
     .dev_name = "fake-uverbs1",
     .ibdev_path = "/sys/class/infiniband/rxe0"},
    {.node_type = 4,
     .transport_type = 1,
     .name = "siw0",
     .dev_name = "fake-uverbs2",
     .ibdev_path = "/sys/class/infiniband/siw0"},
};

/* Link-local twice, then IPv4 twice. A real driver lists each address once for each RoCE version;
 * these differ, so that a test can see which was taken. */
static const uint8_t gids[4][16] = {
    {0xfe, 0x80, [8] = 2, [15] = 1},
    {0xfe, 0x80, [8] = 2, [15] = 2},
    {[10] = 0xff, 0xff, 10, 0, 0, 3},
    {[10] = 0xff, 0xff, 10, 0, 0, 4},
};

struct ibv_device **ibv_get_device_list(int *count)
{
    struct ibv_device **devices;

    *count = 0;
    errno = fault("enosys") ? ENOSYS : fault("enoent") ? ENOENT : fault("eperm") ? EPERM : 0;
    if (errno != 0)
        return NULL;
    /* On the heap, so that the sanitizer sees a list that is not freed. */
    devices = calloc(4, sizeof *devices);
    if (devices == NULL || fault("empty"))
        return devices;
    for (int i = 0; i < 3; i++)
        devices[i] = &all[i];
    if (getenv("FAKE_VERBS_SYSFS") != NULL)
        (void)snprintf(all[1].ibdev_path, sizeof all[1].ibdev_path, "%s/rxe0",
                       getenv("FAKE_VERBS_SYSFS"));
    *count = 3;
    return devices;
}

void ibv_free_device_list(struct ibv_device **devices)
{
    free(devices);
}

const char *ibv_get_device_name(struct ibv_device *device)
{
    return device->name;
}

uint64_t ibv_get_device_guid(struct ibv_device *device)
{
    return htobe64(device == &all[0] ? 0x0002c903002ff0a0 : 1);
}

static struct fake_context *contexts[16];

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    struct fake_context *context;
    int ends[2];

    if (fault("noopen")) {
        errno = EACCES;
        return NULL;
    }
    context = calloc(1, sizeof *context);
    if (context == NULL || pipe2(ends, O_CLOEXEC) != 0)
        FAKE_DIE("no memory or descriptors for a device");
    context->base.device = device;
    context->number = (int)(device - all);
    context->base.async_fd = ends[0];
    context->async_end = ends[1];
    fake_rdma_ops(&context->base.ops);
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        if (contexts[i] == NULL) {
            contexts[i] = context;
            return &context->base;
        }
    }
    FAKE_DIE("too many open devices");
}

int ibv_close_device(struct ibv_context *base)
{
    struct fake_context *context = (struct fake_context *)base;

    if (context->objects != 0)
        FAKE_DIE("a device is closed with %u objects left", context->objects);
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        if (contexts[i] == context)
            contexts[i] = NULL;
    }
    (void)close(base->async_fd);
    (void)close(context->async_end);
    free(context);
    return 0;
}

void fake_verbs_raise(int event_type)
{
    const struct ibv_async_event event = {.event_type = event_type};

    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        if (contexts[i] != NULL &&
            write(contexts[i]->async_end, &event, sizeof event) != (ssize_t)sizeof event)
            FAKE_DIE("an event cannot be raised");
    }
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
    return read(context->async_fd, event, sizeof *event) == (ssize_t)sizeof *event ? 0 : -1;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
    (void)event;
}

int ibv_query_gid(struct ibv_context *base, uint8_t port, int index, union ibv_gid *gid)
{
    const struct fake_context *context = (struct fake_context *)base;

    memset(gid, 0, sizeof *gid);
    if (port == 0 || index < 0 || index >= (context->number == 0 ? 8 : 4))
        return -1;
    if (fault("nogid"))
        return 0;
    /* An InfiniBand port has its own GID first; the others are whatever was added. */
    memcpy(gid->raw, gids[context->number == 0 ? 0 : index], sizeof gid->raw);
    return 0;
}

#ifndef FAKE_WITHOUT_FORK
int ibv_is_fork_initialized(void)
{
    return fault("fork") ? IBV_FORK_DISABLED : IBV_FORK_UNNEEDED;
}
#endif

int ibv_query_device(struct ibv_context *base, struct ibv_device_attr *attributes)
{
    const struct fake_context *context = (struct fake_context *)base;

    if (fault("nodevice"))
        return EIO;
    attributes->phys_port_cnt = context->number == 0 ? 2 : 1;
    return 0;
}

#ifndef FAKE_WITHOUT_QUERY_PORT
int ibv_query_port(struct ibv_context *base, uint8_t number, struct ibv_port_attr *attributes)
{
    const struct fake_context *context = (struct fake_context *)base;

    if (fault("noport"))
        return EPERM;
    attributes->state = number == 1 && !fault("down") ? 4 : 1;
    attributes->active_mtu = 5;
    attributes->active_width = 2;
    attributes->active_speed = 32;
    attributes->link_layer = context->number == 0 ? 1 : 2;
    attributes->gid_tbl_len = context->number == 0 ? 8 : 4;
    attributes->max_msg_sz = 8u << 20;
    attributes->lid = context->number == 0 ? 17 : 0;
    return 0;
}
#endif
