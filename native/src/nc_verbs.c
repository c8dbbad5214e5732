#define _GNU_SOURCE /* dlvsym */

#include "nc_verbs.h"

#include <dlfcn.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc_verbs_private.h"

/* ISO C has no cast from void * to a function pointer; POSIX guarantees the representation. */
static_assert(sizeof(void *) == sizeof(void (*)(void)), "dlsym");

int nc_verbs_load(void *library, const char *symbol, const char *version, void *ret_function,
                  struct nc_err *err)
{
    void *address = dlvsym(library, symbol, version);

    if (address == NULL)
        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "libibverbs has no %s@%s", symbol, version);
    memcpy(ret_function, &address, sizeof address);
    return NC_ERR_OK;
}

enum nc_err_code nc_verbs_code(int os_errno)
{
    switch (os_errno) {
    case ENOSYS: /* the kernel has no RDMA subsystem, or its modules are not loaded */
    case ENOENT:
    case ENODEV:
    case ENXIO:
    case 0:
        return NC_ERR_UNAVAILABLE;
    case EPERM:
    case EACCES:
        return NC_ERR_DENIED;
    case ENOMEM:
        return NC_ERR_MEMORY;
    default:
        return NC_ERR_SYSTEM;
    }
}

int nc_verbs_open(const char *soname, struct nc_verbs **ret_verbs, struct nc_err *err)
{
    struct nc_verbs *verbs = calloc(1, sizeof *verbs);
    int count = 0;
    int code;

    *ret_verbs = NULL;
    if (verbs == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for the device list");
    /* NODELETE: providers register with the library and may keep threads; unmapping it under
     * them is not worth the address space. */
    verbs->library =
        dlopen(soname != NULL ? soname : NC_VERBS_SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (verbs->library == NULL) {
        const char *reason = dlerror();

        code = nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "%s",
                          reason != NULL ? reason : "libibverbs cannot be loaded");
        goto fail;
    }
#define X(name, type, parameters)                                                                  \
    code = nc_verbs_load(verbs->library, "ibv_" #name, NC_VERBS_VERSION, &verbs->name, err);       \
    if (code != NC_ERR_OK)                                                                         \
        goto fail;
    NC_VERBS_SYMBOLS(X)
#undef X

    errno = 0;
    verbs->devices = verbs->get_device_list(&count);
    if (verbs->devices == NULL) {
        int saved = errno;

        code = nc_err_set(err, nc_verbs_code(saved), saved, "ibv_get_device_list failed");
        goto fail;
    }
    if (count <= 0) {
        code = nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "libibverbs lists no device");
        goto fail;
    }
    verbs->count = (size_t)count;
    *ret_verbs = verbs;
    return NC_ERR_OK;

fail:
    nc_verbs_close(verbs);
    return code;
}

void nc_verbs_close(struct nc_verbs *verbs)
{
    if (verbs == NULL)
        return;
    if (verbs->devices != NULL)
        verbs->free_device_list(verbs->devices);
    if (verbs->library != NULL)
        dlclose(verbs->library);
    free(verbs);
}

size_t nc_verbs_count(const struct nc_verbs *verbs)
{
    return verbs->count;
}

int nc_verbs_device(const struct nc_verbs *verbs, size_t index, struct nc_verbs_device *ret_device,
                    struct nc_err *err)
{
    struct ibv_device *device;
    const char *name;

    memset(ret_device, 0, sizeof *ret_device);
    if (index >= verbs->count)
        return nc_err_set(err, NC_ERR_INVALID, 0, "device %zu of %zu", index, verbs->count);
    device = verbs->devices[index];
    name = verbs->get_device_name(device);
    if (name == NULL)
        return nc_err_set(err, NC_ERR_SYSTEM, 0, "device %zu has no name", index);
    (void)snprintf(ret_device->name, sizeof ret_device->name, "%s", name);
    (void)snprintf(ret_device->sysfs_path, sizeof ret_device->sysfs_path, "%.*s",
                   (int)sizeof device->ibdev_path, device->ibdev_path);
    ret_device->guid = be64toh(verbs->get_device_guid(device));
    ret_device->node_type = device->node_type;
    ret_device->transport = device->transport_type;
    return NC_ERR_OK;
}

uint64_t nc_verbs_speed_bps(int width_code, int speed_code)
{
    uint64_t lanes;
    uint64_t lane_mbps;

    switch (width_code) {
    case 1:
        lanes = 1;
        break;
    case 2:
        lanes = 4;
        break;
    case 4:
        lanes = 8;
        break;
    case 8:
        lanes = 12;
        break;
    case 16:
        lanes = 2;
        break;
    default:
        return 0;
    }
    /* The kernel's nominal rates (the "rate" file in sysfs), so that 4X EDR is 100 Gbit/s. */
    switch (speed_code) {
    case 1: /* SDR */
        lane_mbps = 2500;
        break;
    case 2: /* DDR */
        lane_mbps = 5000;
        break;
    case 4: /* QDR */
    case 8: /* FDR10 */
        lane_mbps = 10000;
        break;
    case 16: /* FDR */
        lane_mbps = 14000;
        break;
    case 32: /* EDR */
        lane_mbps = 25000;
        break;
    case 64: /* HDR */
        lane_mbps = 50000;
        break;
    case 128: /* NDR */
        lane_mbps = 100000;
        break;
    default:
        return 0;
    }
    return lanes * lane_mbps * 1000000;
}

int nc_verbs_mtu_bytes(int code)
{
    /* 1 is 256 bytes, each next one doubles, 5 is 4096. */
    return code >= 1 && code <= 5 ? 128 << code : 0;
}

static int query_port(const struct nc_verbs *verbs, struct ibv_context *context, int number,
                      struct nc_verbs_port *ret_port, struct nc_err *err)
{
    struct ibv_port_attr attributes;
    int failure;

    memset(&attributes, 0, sizeof attributes);
    failure = verbs->query_port(context, (uint8_t)number, &attributes);
    if (failure != 0)
        return nc_err_set(err, nc_verbs_code(failure), failure, "ibv_query_port %d failed", number);
    memset(ret_port, 0, sizeof *ret_port);
    ret_port->number = number;
    ret_port->state = attributes.state;
    ret_port->link_layer = attributes.link_layer;
    ret_port->active_mtu = nc_verbs_mtu_bytes(attributes.active_mtu);
    ret_port->speed_bps = nc_verbs_speed_bps(attributes.active_width, attributes.active_speed);
    return NC_ERR_OK;
}

int nc_verbs_ports(const struct nc_verbs *verbs, size_t index, struct nc_verbs_port *ret_ports,
                   size_t capacity, size_t *ret_count, struct nc_err *err)
{
    struct ibv_device_attr attributes;
    struct ibv_context *context;
    int code = NC_ERR_OK;
    int failure;

    *ret_count = 0;
    if (index >= verbs->count)
        return nc_err_set(err, NC_ERR_INVALID, 0, "device %zu of %zu", index, verbs->count);
    errno = 0;
    context = verbs->open_device(verbs->devices[index]);
    if (context == NULL) {
        int saved = errno;

        return nc_err_set(err, nc_verbs_code(saved), saved, "ibv_open_device failed");
    }
    memset(&attributes, 0, sizeof attributes);
    failure = verbs->query_device(context, &attributes);
    if (failure != 0) {
        code = nc_err_set(err, nc_verbs_code(failure), failure, "ibv_query_device failed");
    } else {
        /* Ports count from 1. */
        for (int number = 1; number <= attributes.phys_port_cnt && code == NC_ERR_OK; number++) {
            if ((size_t)number <= capacity)
                code = query_port(verbs, context, number, &ret_ports[number - 1], err);
        }
        if (code == NC_ERR_OK)
            *ret_count = attributes.phys_port_cnt;
    }
    (void)verbs->close_device(context);
    return code;
}
