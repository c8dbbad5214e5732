/* A libibverbs that needs no hardware. FAKE_VERBS in the environment says what goes wrong:
 * enosys, enoent, eperm, empty, noopen, nodevice, noport; anything else: two devices work.
 * FAKE_WITHOUT_QUERY_PORT builds a library that lacks a symbol. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../src/nc_verbs_abi.h"

struct ibv_context {
    int number;
};

static struct ibv_device first = {.node_type = 1,
                                  .transport_type = 0,
                                  .name = "mlx5_0",
                                  .ibdev_path = "/sys/class/infiniband/mlx5_0"};
static struct ibv_device second = {.node_type = 4,
                                   .transport_type = 1,
                                   .name = "rxe0",
                                   .ibdev_path = "/sys/class/infiniband/rxe0"};

#define X(name, type, parameters) type ibv_##name parameters;
NC_VERBS_SYMBOLS(X)
#undef X

static int fault(const char *name)
{
    const char *wanted = getenv("FAKE_VERBS");

    return wanted != NULL && strcmp(wanted, name) == 0;
}

struct ibv_device **ibv_get_device_list(int *count)
{
    struct ibv_device **devices;

    *count = 0;
    errno = fault("enosys") ? ENOSYS : fault("enoent") ? ENOENT : fault("eperm") ? EPERM : 0;
    if (errno != 0)
        return NULL;
    /* On the heap, so that the sanitizer sees a list that is not freed. */
    devices = calloc(3, sizeof *devices);
    if (devices == NULL || fault("empty"))
        return devices;
    devices[0] = &first;
    devices[1] = &second;
    *count = 2;
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
    return htobe64(device == &first ? 0x0002c903002ff0a0 : 1);
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    struct ibv_context *context;

    if (fault("noopen")) {
        errno = EACCES;
        return NULL;
    }
    context = calloc(1, sizeof *context);
    if (context != NULL)
        context->number = device == &first ? 0 : 1;
    return context;
}

int ibv_close_device(struct ibv_context *context)
{
    free(context);
    return 0;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attributes)
{
    if (fault("nodevice"))
        return EIO;
    attributes->phys_port_cnt = context->number == 0 ? 2 : 1;
    return 0;
}

#ifndef FAKE_WITHOUT_QUERY_PORT
int ibv_query_port(struct ibv_context *context, uint8_t number, struct ibv_port_attr *attributes)
{
    if (fault("noport"))
        return EPERM;
    attributes->state = context->number == 0 && number == 1 ? 4 : 1;
    attributes->active_mtu = 5;
    attributes->active_width = 2;
    attributes->active_speed = 32;
    attributes->link_layer = context->number == 0 ? 1 : 2;
    return 0;
}
#endif
