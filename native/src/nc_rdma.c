#include "nc_rdma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "nc_rdma_private.h"

/* Linux 5.12 copies pinned pages when a process forks; a fork in an older one can take the pages
 * that the device writes away from us. NovaCron forks (QEMU), and ibv_fork_init() as the remedy
 * splits a mapping for each registered range until max_map_count is reached, so an operator has to
 * ask for it. The library of rdma-core 35 and later asks the kernel; of an older one we look at the
 * kernel's version. */
static int check_fork(const struct nc_verbs *verbs, struct nc_err *err)
{
    int (*is_fork_initialized)(void) = NULL;
    struct utsname kernel;
    unsigned int major = 0;
    unsigned int minor = 0;

    if (nc_verbs_load(verbs->library, "ibv_is_fork_initialized", NC_RDMA_VERSION_FORK,
                      &is_fork_initialized, NULL) == NC_ERR_OK) {
        if (is_fork_initialized() != IBV_FORK_DISABLED)
            return NC_ERR_OK;
    } else if (uname(&kernel) == 0 && sscanf(kernel.release, "%u.%u", &major, &minor) == 2 &&
               (major > 5 || (major == 5 && minor >= 12))) {
        return NC_ERR_OK;
    }
    return nc_err_set(err, NC_ERR_UNAVAILABLE, 0,
                      "this kernel does not copy DMA pages on fork(): run Linux 5.12 or newer, or "
                      "start the node with RDMAV_FORK_SAFE=1");
}

static int is_zero(const union ibv_gid *gid)
{
    return gid->global.subnet_prefix == 0 && gid->global.interface_id == 0;
}

/* How good a GID is to be reached at: 3 routable RoCE v2, 2 other RoCE v2, 1 any, 0 none. */
static int rank_of(const union ibv_gid *gid, int roce_v2)
{
    const uint8_t *raw = gid->raw;
    int link_local = raw[0] == 0xfe && (raw[1] & 0xc0) == 0x80;
    int multicast = raw[0] == 0xff;

    if (is_zero(gid))
        return 0;
    return !roce_v2 ? 1 : link_local || multicast ? 2 : 3;
}

/* The type of a GID is in sysfs only: ibv_query_gid_type is private to the library. */
static int is_roce_v2(const struct nc_rdma *rdma, int index)
{
    char path[NC_VERBS_PATH_BYTES + 64];
    char text[32];
    ssize_t size;
    int fd;

    (void)snprintf(path, sizeof path, "%s/ports/%u/gid_attrs/types/%d", rdma->device.sysfs_path,
                   rdma->port_number, index);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    /* An empty entry of the table fails with EINVAL here. */
    size = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    return strncmp(text, "RoCE v2", 7) == 0;
}

static int choose_gid(struct nc_rdma *rdma, int wanted, struct nc_err *err)
{
    int first = wanted >= 0 ? wanted : 0;
    /* sgid_index has eight bits. */
    int end = rdma->port.gid_tbl_len < 256 ? rdma->port.gid_tbl_len : 256;
    int best = 0;

    if (wanted >= end)
        return nc_err_set(err, NC_ERR_NOT_FOUND, 0, "%s port %u has no GID %d, but %d of them",
                          rdma->device.name, rdma->port_number, wanted, end);
    if (wanted >= 0)
        end = wanted + 1;
    else if (rdma->port.link_layer == IBV_LINK_LAYER_INFINIBAND && end > 1)
        end = 1; /* the first is the port's own, the others are aliases */
    for (int index = first; index < end && best < 3; index++) {
        union ibv_gid gid;
        int rank;

        memset(&gid, 0, sizeof gid);
        if (rdma->query_gid(rdma->context, rdma->port_number, index, &gid) != 0)
            continue;
        rank = rank_of(&gid, is_roce_v2(rdma, index));
        if (rank > best) {
            best = rank;
            rdma->gid = gid;
            rdma->gid_index = (uint8_t)index;
        }
    }
    if (best == 0)
        return nc_err_set(err, wanted >= 0 ? NC_ERR_NOT_FOUND : NC_ERR_UNAVAILABLE, 0,
                          "%s port %u has no address (GID%s %d is empty)", rdma->device.name,
                          rdma->port_number, wanted >= 0 ? "" : "s from", first);
    return NC_ERR_OK;
}

static int choose_port(struct nc_rdma *rdma, int wanted, struct nc_err *err)
{
    struct ibv_device_attr attributes;
    int failure;
    int last;

    memset(&attributes, 0, sizeof attributes);
    failure = rdma->verbs->query_device(rdma->context, &attributes);
    if (failure != 0)
        return nc_err_set(err, nc_verbs_code(failure), failure, "ibv_query_device failed for %s",
                          rdma->device.name);
    last = wanted != 0 ? wanted : attributes.phys_port_cnt;
    if (last > attributes.phys_port_cnt)
        return nc_err_set(err, NC_ERR_NOT_FOUND, 0, "%s has no port %d, but %u of them",
                          rdma->device.name, wanted, attributes.phys_port_cnt);
    for (int number = wanted != 0 ? wanted : 1; number <= last; number++) {
        memset(&rdma->port, 0, sizeof rdma->port);
        failure = rdma->verbs->query_port(rdma->context, (uint8_t)number, &rdma->port);
        if (failure != 0)
            return nc_err_set(err, nc_verbs_code(failure), failure,
                              "ibv_query_port failed for %s port %d", rdma->device.name, number);
        rdma->port_number = (uint8_t)number;
        if (rdma->port.state == IBV_PORT_ACTIVE && nc_verbs_mtu_bytes(rdma->port.active_mtu) != 0)
            return NC_ERR_OK;
    }
    return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "%s has no active port", rdma->device.name);
}

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* A driver that can take its device from under its users says DEVICE_FATAL. One that cannot, such
 * as Soft-RoCE of Linux 6.1, removes the device file and then waits until every user has closed,
 * with the transfers going on: there, only the missing file says that we should let go. */
static int watch(struct nc_rdma *rdma, struct nc_err *err)
{
    const struct ibv_device *device = rdma->context->device;

    rdma->lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (rdma->lost_fd < 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "eventfd failed");
    if (set_nonblocking(rdma->context->async_fd) != 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "fcntl failed on %s's events",
                          rdma->device.name);
    (void)snprintf(rdma->node_path, sizeof rdma->node_path, "/dev/infiniband/%.*s",
                   (int)sizeof device->dev_name, device->dev_name);
    /* Without it (no device file under this name in a container, no inotify instance left), a
     * removed device of such a driver is noticed when its link stops answering. */
    rdma->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    /* ATTRIB: the link count changes at once; DELETE_SELF waits for the last who has it open. */
    if (rdma->watch_fd >= 0 &&
        inotify_add_watch(rdma->watch_fd, rdma->node_path, IN_ATTRIB | IN_DELETE_SELF) < 0) {
        (void)close(rdma->watch_fd);
        rdma->watch_fd = -1;
    }
    return NC_ERR_OK;
}

static void lose(struct nc_rdma *rdma, enum nc_rdma_loss loss)
{
    uint64_t one = 1;

    atomic_store(&rdma->lost, (int)loss);
    (void)!write(rdma->lost_fd, &one, sizeof one);
}

enum nc_rdma_loss nc_rdma_watch(struct nc_rdma *rdma)
{
    struct ibv_async_event event;
    char buffer[sizeof(struct inotify_event) + 256];

    memset(&event, 0, sizeof event);
    while (rdma->get_async_event(rdma->context, &event) == 0) {
        int type = event.event_type;

        /* At once: destroying the object the event is about waits for this. */
        rdma->ack_async_event(&event);
        if (type == IBV_EVENT_DEVICE_FATAL)
            lose(rdma, NC_RDMA_BROKEN);
    }
    while (rdma->watch_fd >= 0 && read(rdma->watch_fd, buffer, sizeof buffer) > 0) {
        if (access(rdma->node_path, F_OK) != 0 && errno == ENOENT)
            lose(rdma, NC_RDMA_REMOVED);
    }
    return (enum nc_rdma_loss)atomic_load(&rdma->lost);
}

static void close_device(struct nc_rdma *rdma)
{
    if (rdma->watch_fd >= 0)
        (void)close(rdma->watch_fd);
    if (rdma->lost_fd >= 0)
        (void)close(rdma->lost_fd);
    if (rdma->context != NULL)
        (void)rdma->verbs->close_device(rdma->context);
    rdma->watch_fd = -1;
    rdma->lost_fd = -1;
    rdma->context = NULL;
}

static int open_device(struct nc_rdma *rdma, size_t index, const struct nc_rdma_options *options,
                       struct nc_err *err)
{
    int code;

    /* Queue pairs of iWARP are connected through the connection manager only, and its writes carry
     * no immediate value. */
    if (rdma->device.transport != IBV_TRANSPORT_IB)
        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "%s is neither InfiniBand nor RoCE",
                          rdma->device.name);
    errno = 0;
    rdma->context = rdma->verbs->open_device(rdma->verbs->devices[index]);
    if (rdma->context == NULL) {
        int saved = errno;

        return nc_err_set(err, nc_verbs_code(saved), saved, "ibv_open_device failed for %s",
                          rdma->device.name);
    }
    code = choose_port(rdma, options->port, err);
    if (code == NC_ERR_OK)
        code = choose_gid(rdma, options->gid_index, err);
    if (code == NC_ERR_OK)
        code = watch(rdma, err);
    if (code != NC_ERR_OK)
        close_device(rdma);
    return code;
}

static int choose_device(struct nc_rdma *rdma, const struct nc_rdma_options *options,
                         struct nc_err *err)
{
    const char *wanted = options->device != NULL ? options->device : "";
    struct nc_err failure = {0};

    (void)nc_err_set(&failure, NC_ERR_NOT_FOUND, 0, "there is no RDMA device %s", wanted);
    for (size_t index = 0; index < nc_verbs_count(rdma->verbs); index++) {
        struct nc_err one = {0};
        int code = nc_verbs_device(rdma->verbs, index, &rdma->device, &one);

        if (code == NC_ERR_OK) {
            if (wanted[0] != '\0' && strcmp(rdma->device.name, wanted) != 0)
                continue;
            code = open_device(rdma, index, options, &one);
        }
        if (code == NC_ERR_OK)
            return NC_ERR_OK;
        /* A device that is forbidden says more than another one that is down; else the first. */
        if (failure.code == NC_ERR_NOT_FOUND ||
            (failure.code == NC_ERR_UNAVAILABLE && one.code != NC_ERR_UNAVAILABLE))
            failure = one;
    }
    if (err != NULL)
        *err = failure;
    return failure.code;
}

int nc_rdma_open(const struct nc_rdma_options *options, struct nc_rdma **ret_rdma,
                 struct nc_err *err)
{
    struct nc_rdma *rdma;
    int code;

    *ret_rdma = NULL;
    if (options->port < 0 || options->port > 255 || options->gid_index < -1 ||
        options->gid_index > 255)
        return nc_err_set(err, NC_ERR_INVALID, 0, "port %d or GID index %d is out of range",
                          options->port, options->gid_index);
    rdma = calloc(1, sizeof *rdma);
    if (rdma == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for an RDMA device");
    atomic_init(&rdma->users, 1);
    rdma->watch_fd = -1;
    rdma->lost_fd = -1;
    code = nc_verbs_open(options->library, &rdma->verbs, err);
    if (code != NC_ERR_OK)
        goto fail;
#define X(name, version, type, parameters)                                                         \
    code = nc_verbs_load(rdma->verbs->library, "ibv_" #name, version, &rdma->name, err);           \
    if (code != NC_ERR_OK)                                                                         \
        goto fail;
    NC_RDMA_SYMBOLS(X)
#undef X
    code = check_fork(rdma->verbs, err);
    if (code == NC_ERR_OK)
        code = choose_device(rdma, options, err);
    if (code != NC_ERR_OK)
        goto fail;
    *ret_rdma = rdma;
    return NC_ERR_OK;

fail:
    nc_rdma_close(rdma);
    return code;
}

void nc_rdma_release(struct nc_rdma *rdma)
{
    if (atomic_fetch_sub(&rdma->users, 1) != 1)
        return;
    close_device(rdma);
    nc_verbs_close(rdma->verbs);
    free(rdma);
}

void nc_rdma_close(struct nc_rdma *rdma)
{
    if (rdma != NULL)
        nc_rdma_release(rdma);
}

int nc_rdma_lost(struct nc_rdma *rdma)
{
    return nc_rdma_watch(rdma) != NC_RDMA_PRESENT;
}

const char *nc_rdma_device_name(const struct nc_rdma *rdma)
{
    return rdma->device.name;
}
