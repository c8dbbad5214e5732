#define _DEFAULT_SOURCE /* MADV_DONTFORK */

#include "nc_rdma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "nc_rdma_private.h"

/* How long a silent peer is waited for: 4.096 us * 2^16 = 0.27 s for one acknowledgement, seven
 * times, 1.9 s in all; a device may take up to four times as long for each. Shorter would give up
 * over a switch that reroutes for a second; longer would hold chunks that TCP could carry. Not the
 * seven retries that are possible: to Soft-RoCE seven means for ever. */
#define ACK_TIMEOUT 16
#define ACK_RETRIES 6
/* Each write has its receive posted before, so a peer that is not ready broke the rules or has a
 * device that is briefly behind with fetching receives: six times 0.64 ms bridge the second, and
 * seven, which means for ever, would hide the first. */
#define READY_RETRIES 6
#define READY_TIMER 12
/* With the retries, a peer is missed after three seconds at most. */
uint64_t nc_rdma_probe_ns = 1000000000;
/* A route through routers may be as long as IP allows. */
#define HOP_LIMIT 255

#define HUGE_PAGE (2u << 20)

static int locked_code(int os_errno)
{
    struct rlimit limit;

    if (os_errno == EPERM || os_errno == EACCES)
        return NC_ERR_DENIED;
    /* The kernel says ENOMEM when pages may not be locked. Without a limit it means what it says.
     */
    if ((os_errno == ENOMEM || os_errno == EAGAIN) && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY)
        return NC_ERR_DENIED;
    return (int)nc_verbs_code(os_errno);
}

/* Sets *err for a call that pins memory: slabs by ibv_reg_mr, rings by the two creating calls. */
static int locked_error(const struct nc_rdma_channel *channel, const char *call, size_t bytes,
                        int os_errno, struct nc_err *err)
{
    int code = locked_code(os_errno);
    struct rlimit limit;

    if (code == NC_ERR_DENIED && getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        if (limit.rlim_cur == RLIM_INFINITY)
            return nc_err_set(err, NC_ERR_DENIED, os_errno,
                              "%s may not lock %zu bytes, although RLIMIT_MEMLOCK is unlimited",
                              call, bytes);
        return nc_err_set(err, NC_ERR_DENIED, os_errno,
                          "%s may not lock %zu bytes: RLIMIT_MEMLOCK is %llu bytes; raise it "
                          "(LimitMEMLOCK= of the unit, ulimit -l)",
                          call, bytes, (unsigned long long)limit.rlim_cur);
    }
    return nc_err_set(err, (enum nc_err_code)code, os_errno, "%s failed for %zu bytes on %s", call,
                      bytes, channel->rdma->device.name);
}

/* No MAP_POPULATE: registering faults every page in, and a registration that is refused should not
 * have cost the pages first; nor could huge pages be asked for after it. */
static int open_slab(struct nc_rdma_channel *channel, int access, uint8_t **ret_slab,
                     struct ibv_mr **ret_region, struct nc_err *err)
{
    struct nc_rdma *rdma = channel->rdma;
    void *slab =
        mmap(NULL, channel->slab_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (slab == MAP_FAILED)
        return nc_err_set(err, NC_ERR_MEMORY, errno, "no memory for a slab of %zu bytes",
                          channel->slab_bytes);
    *ret_slab = slab;
    /* Hints both. A child has no use for the slabs, and the kernel would copy pinned pages for it.
     */
    (void)madvise(slab, channel->slab_bytes, MADV_DONTFORK);
    if (channel->slab_bytes >= HUGE_PAGE)
        (void)madvise(slab, channel->slab_bytes, MADV_HUGEPAGE);
    errno = 0;
    *ret_region = rdma->reg_mr(channel->pd, slab, channel->slab_bytes, access);
    if (*ret_region == NULL)
        return locked_error(channel, "ibv_reg_mr", channel->slab_bytes, errno, err);
    return NC_ERR_OK;
}

static int add(struct nc_rdma_channel *channel, int fd, struct nc_err *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};

    if (fd >= 0 && epoll_ctl(channel->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "epoll_ctl failed");
    return NC_ERR_OK;
}

/* One descriptor for all that can happen, so that the caller needs to know of one. */
static int open_events(struct nc_rdma_channel *channel, struct nc_err *err)
{
    struct nc_rdma *rdma = channel->rdma;
    int code;
    int flags;

    channel->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    channel->more_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (channel->epoll_fd < 0 || channel->more_fd < 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "epoll_create1 or eventfd failed");
    errno = 0;
    channel->events = rdma->create_comp_channel(rdma->context);
    if (channel->events == NULL)
        return nc_err_set(err, nc_verbs_code(errno), errno, "ibv_create_comp_channel failed for %s",
                          rdma->device.name);
    flags = fcntl(channel->events->fd, F_GETFL);
    if (flags < 0 || fcntl(channel->events->fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "fcntl failed on a completion channel");
    code = add(channel, channel->events->fd, err);
    if (code == NC_ERR_OK)
        code = add(channel, channel->more_fd, err);
    if (code == NC_ERR_OK)
        code = add(channel, rdma->context->async_fd, err);
    if (code == NC_ERR_OK)
        code = add(channel, rdma->watch_fd, err);
    if (code == NC_ERR_OK)
        code = add(channel, rdma->lost_fd, err);
    return code;
}

static int open_queue(struct nc_rdma_channel *channel, struct nc_err *err)
{
    struct nc_rdma *rdma = channel->rdma;
    /* Sends: each transmit slot once, and as many writes that only return credits. Receives: the
     * peer has outstanding at most a write into each of our slots and, as each write without a
     * message returns one slot at least, as many of those as it has slots, which is at most the
     * maximum. One more send is a probe, which takes no receive. */
    uint32_t sends = 2 * channel->slots + 1;
    uint32_t receives = channel->slots + NC_RDMA_MAX_SLOTS;
    struct ibv_qp_init_attr wanted = {
        .cap = {.max_send_wr = sends,
                .max_recv_wr = receives,
                .max_send_sge = 1,
                .max_recv_sge = 1}, /* receives have none, but not every driver takes 0 */
        .qp_type = IBV_QPT_RC,
    };
    struct ibv_qp_attr attributes = {
        .qp_state = IBV_QPS_INIT,
        .qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
        .port_num = rdma->port_number,
    };
    int failure;

    errno = 0;
    channel->cq =
        rdma->create_cq(rdma->context, (int)(sends + receives), channel, channel->events, 0);
    if (channel->cq == NULL)
        return locked_error(channel, "ibv_create_cq", (size_t)(sends + receives) * 64, errno, err);
    /* Before anything can complete, so that the descriptor can be trusted from the beginning. */
    failure = rdma->context->ops.req_notify_cq(channel->cq, 0);
    if (failure != 0)
        return nc_err_set(err, nc_verbs_code(failure), failure, "ibv_req_notify_cq failed on %s",
                          rdma->device.name);
    channel->armed = 1;
    wanted.send_cq = channel->cq;
    wanted.recv_cq = channel->cq;
    errno = 0;
    channel->qp = rdma->create_qp(channel->pd, &wanted);
    if (channel->qp == NULL)
        return locked_error(channel, "ibv_create_qp", (size_t)(sends + receives) * 64, errno, err);
    failure = rdma->modify_qp(channel->qp, &attributes,
                              IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    if (failure != 0)
        return nc_err_set(err, nc_verbs_code(failure), failure,
                          "ibv_modify_qp to INIT failed on %s port %u", rdma->device.name,
                          rdma->port_number);
    return NC_ERR_OK;
}

static int build(struct nc_rdma_channel *channel, struct nc_err *err)
{
    struct nc_rdma *rdma = channel->rdma;
    uint8_t psn[3];
    int code;

    if (getrandom(psn, sizeof psn, 0) != (ssize_t)sizeof psn)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "getrandom failed");
    channel->psn = (uint32_t)psn[0] | (uint32_t)psn[1] << 8 | (uint32_t)psn[2] << 16;
    for (uint32_t slot = 0; slot < channel->slots; slot++)
        channel->idle.slots[channel->idle.count++] = (uint16_t)slot;
    code = open_events(channel, err);
    if (code != NC_ERR_OK)
        return code;
    /* A domain for each channel: a key works in its own domain only, so a peer that learned the key
     * of another peer's slots could not write them. */
    errno = 0;
    channel->pd = rdma->alloc_pd(rdma->context);
    if (channel->pd == NULL)
        return nc_err_set(err, nc_verbs_code(errno), errno, "ibv_alloc_pd failed for %s",
                          rdma->device.name);
    code = open_slab(channel, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
                     &channel->receive_slab, &channel->receive_mr, err);
    /* The device only reads this one, but pages of a mapping that was never written to are pinned
     * as private ones for certain only when it may write. The peer never learns the key. */
    if (code == NC_ERR_OK)
        code = open_slab(channel, IBV_ACCESS_LOCAL_WRITE, &channel->transmit_slab,
                         &channel->transmit_mr, err);
    return code == NC_ERR_OK ? open_queue(channel, err) : code;
}

int nc_rdma_channel_open(struct nc_rdma *rdma, uint32_t slots, uint32_t slot_bytes,
                         struct nc_rdma_channel **ret_channel, struct nc_err *err)
{
    struct nc_rdma_channel *channel;
    size_t slab_bytes;
    int code;

    *ret_channel = NULL;
    if (slots < NC_RDMA_MIN_SLOTS || slots > NC_RDMA_MAX_SLOTS || slot_bytes == 0 ||
        slot_bytes % 4096 != 0 || __builtin_mul_overflow(slots, slot_bytes, &slab_bytes))
        return nc_err_set(
            err, NC_ERR_INVALID, 0,
            "%u slots of %u bytes: 2 to 1024 slots of a multiple of 4096 are possible", slots,
            slot_bytes);
    if (nc_rdma_lost(rdma))
        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "RDMA device %s was removed or failed",
                          rdma->device.name);
    if (rdma->port.max_msg_sz != 0 && slot_bytes > rdma->port.max_msg_sz)
        return nc_err_set(err, NC_ERR_INVALID, 0, "slots of %u bytes: %s moves at most %u at once",
                          slot_bytes, rdma->device.name, rdma->port.max_msg_sz);
    channel = calloc(1, sizeof *channel);
    if (channel == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for an RDMA channel");
    channel->rdma = rdma;
    channel->slots = slots;
    channel->slot_bytes = slot_bytes;
    (void)atomic_fetch_add(&rdma->users, 1);
    channel->slab_bytes = slab_bytes;
    channel->epoll_fd = -1;
    channel->more_fd = -1;
    channel->timer_fd = -1;
    code = build(channel, err);
    if (code != NC_ERR_OK) {
        nc_rdma_channel_close(channel);
        return code;
    }
    *ret_channel = channel;
    return NC_ERR_OK;
}

void nc_rdma_channel_close(struct nc_rdma_channel *channel)
{
    struct nc_rdma *rdma;

    if (channel == NULL)
        return;
    rdma = channel->rdma;
    if (channel->qp != NULL)
        (void)rdma->destroy_qp(channel->qp);
    if (channel->cq != NULL)
        (void)rdma->destroy_cq(channel->cq);
    if (channel->transmit_mr != NULL)
        (void)rdma->dereg_mr(channel->transmit_mr);
    if (channel->transmit_slab != NULL)
        (void)munmap(channel->transmit_slab, channel->slab_bytes);
    if (channel->receive_mr != NULL)
        (void)rdma->dereg_mr(channel->receive_mr);
    if (channel->receive_slab != NULL)
        (void)munmap(channel->receive_slab, channel->slab_bytes);
    if (channel->pd != NULL)
        (void)rdma->dealloc_pd(channel->pd);
    /* The set goes before what is in it: the completion channel closes its own descriptor. */
    if (channel->epoll_fd >= 0)
        (void)close(channel->epoll_fd);
    if (channel->events != NULL)
        (void)rdma->destroy_comp_channel(channel->events);
    if (channel->timer_fd >= 0)
        (void)close(channel->timer_fd);
    if (channel->more_fd >= 0)
        (void)close(channel->more_fd);
    free(channel);
    nc_rdma_release(rdma);
}

void nc_rdma_channel_local(const struct nc_rdma_channel *channel, struct nc_rdma_peer *ret_peer)
{
    const struct nc_rdma *rdma = channel->rdma;

    memset(ret_peer, 0, sizeof *ret_peer);
    memcpy(ret_peer->gid, rdma->gid.raw, sizeof ret_peer->gid);
    ret_peer->qpn = channel->qp->qp_num;
    ret_peer->psn = channel->psn;
    ret_peer->rkey = channel->receive_mr->rkey;
    ret_peer->slots = channel->slots;
    ret_peer->slot_bytes = channel->slot_bytes;
    ret_peer->mtu = (uint32_t)nc_verbs_mtu_bytes(rdma->port.active_mtu);
    ret_peer->address = (uint64_t)(uintptr_t)channel->receive_slab;
    ret_peer->lid = rdma->port.lid;
}

/* The enum ibv_mtu of so many bytes; 0 if there is none. */
static int mtu_code(uint32_t bytes)
{
    for (int code = 1; code <= 5; code++) {
        if ((uint32_t)nc_verbs_mtu_bytes(code) == bytes)
            return code;
    }
    return 0;
}

static int check_peer(const struct nc_rdma_channel *channel, const struct nc_rdma_peer *peer,
                      struct nc_err *err)
{
    const struct nc_rdma *rdma = channel->rdma;
    uint64_t bytes = (uint64_t)peer->slots * peer->slot_bytes;
    static const uint8_t zero[16];
    int has_gid = memcmp(peer->gid, zero, sizeof zero) != 0;
    const char *wrong = NULL;

    if (peer->slots < NC_RDMA_MIN_SLOTS || peer->slots > NC_RDMA_MAX_SLOTS)
        wrong = "number of slots";
    else if (peer->slot_bytes != channel->slot_bytes)
        wrong = "slot size, which must be ours,"; /* else acquire would promise too much */
    else if (peer->address == 0 || peer->address > UINT64_MAX - bytes)
        wrong = "address";
    else if (peer->qpn == 0 || peer->qpn > 0xffffff)
        wrong = "queue pair number";
    else if (peer->psn > 0xffffff)
        wrong = "packet sequence number";
    else if (mtu_code(peer->mtu) == 0)
        wrong = "MTU";
    else if (rdma->port.link_layer == IBV_LINK_LAYER_INFINIBAND ? !has_gid && peer->lid == 0
                                                                : !has_gid)
        wrong = "address (GID, LID)";
    if (wrong != NULL)
        return nc_err_set(err, NC_ERR_INVALID, 0, "the peer's %s makes no sense", wrong);
    return NC_ERR_OK;
}

static struct ibv_ah_attr route_to(const struct nc_rdma *rdma, const struct nc_rdma_peer *peer)
{
    struct ibv_ah_attr route = {.port_num = rdma->port_number, .dlid = peer->lid};

    memcpy(route.grh.dgid.raw, peer->gid, sizeof peer->gid);
    /* RoCE is always global; InfiniBand inside one subnet goes by LID alone. */
    route.is_global = rdma->port.link_layer != IBV_LINK_LAYER_INFINIBAND || peer->lid == 0 ||
                      route.grh.dgid.global.subnet_prefix != rdma->gid.global.subnet_prefix;
    if (route.is_global) {
        route.grh.sgid_index = rdma->gid_index;
        route.grh.hop_limit = HOP_LIMIT;
    }
    return route;
}

static int modify(struct nc_rdma_channel *channel, struct ibv_qp_attr *attributes, int mask,
                  const char *state, struct nc_err *err)
{
    int failure = channel->rdma->modify_qp(channel->qp, attributes, mask);

    if (failure != 0)
        return nc_err_set(err, nc_verbs_code(failure), failure,
                          "ibv_modify_qp to %s failed on %s with GID index %u", state,
                          channel->rdma->device.name, channel->rdma->gid_index);
    return NC_ERR_OK;
}

/* Only a write tells whether the peer is there, and whoever receives, or has no credit left because
 * the peer died with all of them, has none to make. */
static int start_probing(struct nc_rdma_channel *channel, struct nc_err *err)
{
    const struct timespec period = {.tv_sec = (time_t)(nc_rdma_probe_ns / 1000000000),
                                    .tv_nsec = (long)(nc_rdma_probe_ns % 1000000000)};
    const struct itimerspec timer = {.it_interval = period, .it_value = period};

    if (nc_rdma_probe_ns == 0)
        return NC_ERR_OK;
    channel->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (channel->timer_fd < 0 || timerfd_settime(channel->timer_fd, 0, &timer, NULL) != 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "timerfd_create or timerfd_settime failed");
    return add(channel, channel->timer_fd, err);
}

int nc_rdma_channel_connect(struct nc_rdma_channel *channel, const struct nc_rdma_peer *peer,
                            struct nc_err *err)
{
    const struct nc_rdma *rdma = channel->rdma;
    struct ibv_qp_attr attributes = {
        .qp_state = IBV_QPS_RTR,
        .rq_psn = peer->psn,
        .dest_qp_num = peer->qpn,
        .ah_attr = route_to(rdma, peer),
        .max_dest_rd_atomic = 1,
        .min_rnr_timer = READY_TIMER,
    };
    int code;

    if (channel->connected || channel->failed)
        return nc_err_set(err, NC_ERR_INVALID, 0, "this RDMA channel was connected before");
    code = check_peer(channel, peer, err);
    if (code != NC_ERR_OK)
        return code;
    channel->connected = 1; /* also where it fails: the queue pair is then of no more use */
    channel->peer = *peer;
    attributes.path_mtu = mtu_code(peer->mtu);
    if (attributes.path_mtu > rdma->port.active_mtu)
        attributes.path_mtu = rdma->port.active_mtu;
    /* Before the other side can write: its first write finds a receive. */
    code = nc_rdma_receive_more(channel, channel->slots + peer->slots, err);
    if (code == NC_ERR_OK)
        code = modify(channel, &attributes,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
                      "RTR", err);
    if (code != NC_ERR_OK)
        return code;
    attributes = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS,
        .sq_psn = channel->psn,
        .max_rd_atomic = 1,
        .timeout = ACK_TIMEOUT,
        .retry_cnt = ACK_RETRIES,
        .rnr_retry = READY_RETRIES,
    };
    code = modify(channel, &attributes,
                  IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                      IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
                  "RTS", err);
    if (code == NC_ERR_OK)
        code = start_probing(channel, err);
    if (code != NC_ERR_OK)
        return code;
    for (uint32_t slot = 0; slot < peer->slots; slot++)
        channel->credits.slots[channel->credits.count++] = (uint16_t)slot;
    return NC_ERR_OK;
}

int nc_rdma_channel_fd(const struct nc_rdma_channel *channel)
{
    return channel->epoll_fd;
}
