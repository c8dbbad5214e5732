/* The data path of the false libibverbs: writes with an immediate value between queue pairs of one
 * process, done by the thread that posts them. FAKE_VERBS may be
 *   nopd, nochannel, nocq, noqp (ENOMEM), regeperm, regenomem: the object cannot be made;
 *   regsecond: the second registration of a process fails (ENOMEM);
 *   noinit, nortr, norts: the queue pair does not change its state (EINVAL);
 *   recvfails, sendfails, notifyfails, pollfails, eventfails: that call fails;
 *   badstatus: a write completes with "remote operation error" and ends both queue pairs;
 *   race: what completes while the queue is not armed becomes visible just before it is armed. */
#define _GNU_SOURCE /* pipe2 */

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fake_rdma.h"

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fake_mr *regions;
static uint32_t next_key = 0x1000;

static void made(struct ibv_context *context, int change)
{
    (void)__atomic_fetch_add(&((struct fake_context *)context)->objects, (unsigned int)change,
                             __ATOMIC_RELAXED);
}

void *fake_new(size_t size, const char *failing, int os_errno)
{
    void *object;

    if (fault(failing)) {
        errno = os_errno;
        return NULL;
    }
    object = calloc(1, size);
    if (object == NULL)
        FAKE_DIE("no memory");
    return object;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    struct fake_pd *pd = fake_new(sizeof *pd, "nopd", ENOMEM);

    if (pd == NULL)
        return NULL;
    pd->base.context = context;
    made(context, 1);
    return &pd->base;
}

int ibv_dealloc_pd(struct ibv_pd *base)
{
    struct fake_pd *pd = (struct fake_pd *)base;

    if (pd->objects != 0)
        FAKE_DIE("a protection domain is freed with %u objects left", pd->objects);
    made(base->context, -1);
    free(pd);
    return 0;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
    struct fake_mr *region;

    if (fault("regsecond") && ((struct fake_pd *)pd)->objects > 0) {
        errno = ENOMEM;
        return NULL;
    }
    if (fault("regeperm")) {
        errno = EPERM;
        return NULL;
    }
    region = fake_new(sizeof *region, "regenomem", ENOMEM);
    if (region == NULL)
        return NULL;
    region->base =
        (struct ibv_mr){.context = pd->context, .pd = pd, .addr = address, .length = length};
    region->access = access;
    (void)pthread_mutex_lock(&fake_lock);
    region->base.lkey = next_key++;
    region->base.rkey = next_key++;
    region->next = regions;
    regions = region;
    ((struct fake_pd *)pd)->objects++;
    (void)pthread_mutex_unlock(&fake_lock);
    return &region->base;
}

int ibv_dereg_mr(struct ibv_mr *base)
{
    struct fake_mr **link = &regions;

    (void)pthread_mutex_lock(&fake_lock);
    while (*link != NULL && &(*link)->base != base)
        link = &(*link)->next;
    if (*link == NULL)
        FAKE_DIE("no such region");
    *link = (*link)->next;
    ((struct fake_pd *)base->pd)->objects--;
    (void)pthread_mutex_unlock(&fake_lock);
    free(base);
    return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    struct fake_channel *channel = fake_new(sizeof *channel, "nochannel", EMFILE);
    int ends[2];

    if (channel == NULL)
        return NULL;
    if (pipe2(ends, O_CLOEXEC) != 0)
        FAKE_DIE("no descriptors for a completion channel");
    channel->base.context = context;
    channel->base.fd = ends[0];
    channel->end = ends[1];
    made(context, 1);
    return &channel->base;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *base)
{
    if (base->refcnt != 0)
        FAKE_DIE("a completion channel is destroyed with %d queues left", base->refcnt);
    made(base->context, -1);
    (void)close(base->fd);
    (void)close(((struct fake_channel *)base)->end);
    free(base);
    return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int size, void *user,
                             struct ibv_comp_channel *channel, int vector)
{
    struct fake_cq *cq = fake_new(sizeof *cq, "nocq", ENOMEM);

    (void)vector;
    if (cq == NULL)
        return NULL;
    cq->base =
        (struct ibv_cq){.context = context, .channel = channel, .cq_context = user, .cqe = size};
    cq->ring = calloc((size_t)size, sizeof *cq->ring);
    if (cq->ring == NULL)
        FAKE_DIE("no memory");
    channel->refcnt++;
    made(context, 1);
    return &cq->base;
}

int ibv_destroy_cq(struct ibv_cq *base)
{
    struct fake_cq *cq = (struct fake_cq *)base;

    if (cq->queues != 0)
        FAKE_DIE("a completion queue is destroyed while it is used");
    if (cq->reported != cq->acknowledged)
        FAKE_DIE("%u events were not acknowledged", cq->reported - cq->acknowledged);
    base->channel->refcnt--;
    made(base->context, -1);
    free(cq->ring);
    free(cq);
    return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user)
{
    if (fault("eventfails")) {
        errno = EIO;
        return -1;
    }
    if (read(channel->fd, cq, sizeof(struct ibv_cq *)) != (ssize_t)sizeof(struct ibv_cq *))
        return -1;
    (void)pthread_mutex_lock(&fake_lock);
    *user = (*cq)->cq_context;
    ((struct fake_cq *)*cq)->reported++;
    (void)pthread_mutex_unlock(&fake_lock);
    return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int count)
{
    (void)pthread_mutex_lock(&fake_lock);
    ((struct fake_cq *)cq)->acknowledged += count;
    (void)pthread_mutex_unlock(&fake_lock);
}

/* With the lock. */
void fake_complete(struct ibv_cq *base, const struct ibv_wc *completion)
{
    struct fake_cq *cq = (struct fake_cq *)base;

    if (cq->count == base->cqe)
        FAKE_DIE("a completion queue of %d overran", base->cqe);
    cq->ring[(cq->first + cq->count++) % base->cqe] = *completion;
    if (cq->armed) {
        cq->armed = 0;
        if (write(((struct fake_channel *)base->channel)->end, &base, sizeof base) !=
            (ssize_t)sizeof base)
            FAKE_DIE("an event cannot be raised");
    } else if (fault("race")) {
        return;
    }
    cq->visible = cq->count;
}

static int poll_cq(struct ibv_cq *base, int most, struct ibv_wc *completions)
{
    struct fake_cq *cq = (struct fake_cq *)base;
    int count;

    if (fault("pollfails"))
        return -1;
    (void)pthread_mutex_lock(&fake_lock);
    for (count = 0; count < most && cq->visible > 0; count++) {
        completions[count] = cq->ring[cq->first];
        cq->first = (cq->first + 1) % base->cqe;
        cq->count--;
        cq->visible--;
        for (struct fake_qp *qp = fake_queues; qp != NULL; qp = qp->next) {
            if (qp->base.qp_num == completions[count].qp_num &&
                completions[count].opcode == IBV_WC_RDMA_WRITE)
                qp->sends--;
        }
    }
    (void)pthread_mutex_unlock(&fake_lock);
    return count;
}

static int req_notify_cq(struct ibv_cq *base, int solicited)
{
    struct fake_cq *cq = (struct fake_cq *)base;

    if (fault("notifyfails"))
        return EIO;
    if (solicited)
        FAKE_DIE("nobody sends solicited writes");
    (void)pthread_mutex_lock(&fake_lock);
    cq->visible = cq->count;
    cq->armed = 1;
    (void)pthread_mutex_unlock(&fake_lock);
    return 0;
}

/* With the lock. */
const struct fake_mr *fake_region(const struct ibv_pd *pd, uint32_t key, int remote,
                                  uint64_t address, uint64_t length)
{
    for (const struct fake_mr *region = regions; region != NULL; region = region->next) {
        uint64_t start = (uint64_t)(uintptr_t)region->base.addr;

        if ((remote ? region->base.rkey : region->base.lkey) == key && region->base.pd == pd &&
            (!remote || region->access & IBV_ACCESS_REMOTE_WRITE) && address >= start &&
            length <= region->base.length && address - start <= region->base.length - length)
            return region;
    }
    return NULL;
}

void fake_rdma_ops(struct ibv_context_ops *ops)
{
    ops->poll_cq = poll_cq;
    ops->req_notify_cq = req_notify_cq;
    ops->post_send = fake_post_send;
    ops->post_recv = fake_post_recv;
}
