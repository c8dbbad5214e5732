/* Queue pairs of the false libibverbs: a write is carried out by the thread that posts it. */
#include <errno.h>

#include "fake_rdma.h"

struct fake_qp *fake_queues;
static uint32_t next_qpn = 0x11;
static unsigned int starved;

struct guard {
    uintptr_t start;
    size_t size;
};
static struct guard guards[4096];

void fake_verbs_guard(const void *address, size_t size, int guarded)
{
    uintptr_t start = (uintptr_t)address;

    (void)pthread_mutex_lock(&fake_lock);
    for (size_t i = 0; i < sizeof guards / sizeof *guards; i++) {
        if (guarded ? guards[i].size == 0 : guards[i].start == start && guards[i].size != 0) {
            guards[i] = (struct guard){guarded ? start : 0, guarded ? size : 0};
            (void)pthread_mutex_unlock(&fake_lock);
            return;
        }
    }
    FAKE_DIE("%s", guarded ? "too many guards" : "no such guard");
}

unsigned int fake_verbs_starved(void)
{
    unsigned int count;

    (void)pthread_mutex_lock(&fake_lock);
    count = starved;
    (void)pthread_mutex_unlock(&fake_lock);
    return count;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *wanted)
{
    struct fake_qp *qp = fake_new(sizeof *qp, "noqp", ENOMEM);

    if (qp == NULL)
        return NULL;
    if (wanted->qp_type != IBV_QPT_RC || wanted->sq_sig_all)
        FAKE_DIE("an unexpected kind of queue pair");
    qp->base = (struct ibv_qp){
        .context = pd->context, .pd = pd, .send_cq = wanted->send_cq, .recv_cq = wanted->recv_cq};
    qp->cap = wanted->cap;
    qp->receives = calloc(wanted->cap.max_recv_wr, sizeof *qp->receives);
    if (qp->receives == NULL)
        FAKE_DIE("no memory");
    (void)pthread_mutex_lock(&fake_lock);
    qp->base.qp_num = next_qpn++;
    qp->next = fake_queues;
    fake_queues = qp;
    ((struct fake_pd *)pd)->objects++;
    ((struct fake_cq *)wanted->send_cq)->queues++;
    (void)pthread_mutex_unlock(&fake_lock);
    return &qp->base;
}

int ibv_destroy_qp(struct ibv_qp *base)
{
    struct fake_qp **link = &fake_queues;
    struct fake_qp *qp;

    (void)pthread_mutex_lock(&fake_lock);
    while (*link != NULL && &(*link)->base != base)
        link = &(*link)->next;
    qp = *link;
    if (qp == NULL)
        FAKE_DIE("no such queue pair");
    *link = qp->next;
    ((struct fake_pd *)base->pd)->objects--;
    ((struct fake_cq *)base->send_cq)->queues--;
    (void)pthread_mutex_unlock(&fake_lock);
    free(qp->receives);
    free(qp);
    return 0;
}

static int wants(int mask, int needed, int state, int from)
{
    if (state != from || (mask & needed) != needed)
        FAKE_DIE("a change of state from %d with mask 0x%x", state, (unsigned int)mask);
    return 1;
}

int ibv_modify_qp(struct ibv_qp *base, struct ibv_qp_attr *wanted, int mask)
{
    struct fake_qp *qp = (struct fake_qp *)base;

    if (fault("noinit") || (fault("nortr") && wanted->qp_state == IBV_QPS_RTR) ||
        (fault("norts") && wanted->qp_state == IBV_QPS_RTS))
        return EINVAL;
    (void)pthread_mutex_lock(&fake_lock);
    switch (wanted->qp_state) {
    case IBV_QPS_INIT:
        (void)wants(mask, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
                    qp->state, IBV_QPS_RESET);
        break;
    case IBV_QPS_RTR:
        (void)wants(mask,
                    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                        IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
                    qp->state, IBV_QPS_INIT);
        qp->attributes = *wanted;
        break;
    case IBV_QPS_RTS:
        (void)wants(mask,
                    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                        IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
                    qp->state, IBV_QPS_RTR);
        /* Soft-RoCE takes seven retries of either kind to mean for ever, InfiniBand one of them. */
        if (wanted->timeout == 0 || wanted->retry_cnt >= 7 || wanted->rnr_retry >= 7)
            FAKE_DIE("a queue pair that would wait for ever");
        qp->attributes.sq_psn = wanted->sq_psn;
        break;
    default:
        FAKE_DIE("an unexpected state %d", wanted->qp_state);
    }
    qp->state = wanted->qp_state;
    (void)pthread_mutex_unlock(&fake_lock);
    return 0;
}

int fake_post_recv(struct ibv_qp *base, struct ibv_recv_wr *request, struct ibv_recv_wr **bad)
{
    struct fake_qp *qp = (struct fake_qp *)base;
    int failure = 0;

    if (fault("recvfails"))
        return EINVAL;
    (void)pthread_mutex_lock(&fake_lock);
    for (; request != NULL && failure == 0; request = request->next) {
        *bad = request;
        if (qp->posted == qp->cap.max_recv_wr)
            failure = ENOMEM;
        else
            qp->receives[(qp->first + qp->posted++) % qp->cap.max_recv_wr] = request->wr_id;
    }
    (void)pthread_mutex_unlock(&fake_lock);
    return failure;
}

/* With the lock. Takes the oldest receive; 0 if there is none. */
static int take_receive(struct fake_qp *qp, struct ibv_wc *completion)
{
    if (qp->posted == 0)
        return 0;
    *completion = (struct ibv_wc){.wr_id = qp->receives[qp->first],
                                  .opcode = IBV_WC_RECV_RDMA_WITH_IMM,
                                  .qp_num = qp->base.qp_num};
    qp->first = (qp->first + 1) % qp->cap.max_recv_wr;
    qp->posted--;
    return 1;
}

/* With the lock. */
static void break_queue(struct fake_qp *qp)
{
    struct ibv_wc completion;

    qp->state = IBV_QPS_ERR;
    while (take_receive(qp, &completion)) {
        completion.status = IBV_WC_WR_FLUSH_ERR;
        fake_complete(qp->base.recv_cq, &completion);
    }
}

/* With the lock. */
static struct fake_qp *peer_of(const struct fake_qp *qp)
{
    for (struct fake_qp *peer = fake_queues; peer != NULL; peer = peer->next) {
        if (peer->base.qp_num == qp->attributes.dest_qp_num &&
            peer->attributes.dest_qp_num == qp->base.qp_num &&
            (peer->state == IBV_QPS_RTR || peer->state == IBV_QPS_RTS) &&
            peer->attributes.rq_psn == qp->attributes.sq_psn &&
            peer->attributes.path_mtu == qp->attributes.path_mtu)
            return peer;
    }
    return NULL;
}

/* With the lock. Carries out one write; the status that its completion gets. */
static int write_over(struct fake_qp *qp, struct fake_qp *peer, const struct ibv_send_wr *request)
{
    const struct ibv_sge *piece = request->num_sge > 0 ? request->sg_list : NULL;
    uint32_t length = piece != NULL ? piece->length : 0;
    uint64_t remote = request->wr.rdma.remote_addr;
    struct ibv_wc notice;

    if (peer == NULL)
        return IBV_WC_RETRY_EXC_ERR;
    if (fault("badstatus"))
        return IBV_WC_REM_OP_ERR;
    if (piece != NULL && fake_region(qp->base.pd, piece->lkey, 0, piece->addr, length) == NULL)
        return IBV_WC_LOC_PROT_ERR;
    if (fake_region(peer->base.pd, request->wr.rdma.rkey, 1, remote, length) == NULL)
        return IBV_WC_REM_ACCESS_ERR;
    for (size_t i = 0; i < sizeof guards / sizeof *guards; i++) {
        if (guards[i].size != 0 && guards[i].start < remote + length &&
            remote < guards[i].start + guards[i].size)
            FAKE_DIE("a slot is overwritten before it was released");
    }
    if (request->opcode == IBV_WR_RDMA_WRITE) {
        if (length > 0)
            FAKE_DIE("a write with bytes that nobody is told of");
        return IBV_WC_SUCCESS;
    }
    if (!take_receive(peer, &notice)) {
        starved++;
        return IBV_WC_RNR_RETRY_EXC_ERR;
    }
    if (length > 0)
        memcpy((void *)(uintptr_t)remote, (const void *)(uintptr_t)piece->addr, length);
    notice.byte_len = length;
    notice.imm_data = request->imm_data;
    notice.wc_flags = IBV_WC_WITH_IMM;
    fake_complete(peer->base.recv_cq, &notice);
    return IBV_WC_SUCCESS;
}

int fake_post_send(struct ibv_qp *base, struct ibv_send_wr *request, struct ibv_send_wr **bad)
{
    struct fake_qp *qp = (struct fake_qp *)base;
    struct ibv_wc completion = {.opcode = IBV_WC_RDMA_WRITE, .qp_num = base->qp_num};
    struct fake_qp *peer;

    *bad = request;
    if (fault("sendfails"))
        return EINVAL;
    if ((request->opcode != IBV_WR_RDMA_WRITE_WITH_IMM && request->opcode != IBV_WR_RDMA_WRITE) ||
        request->next != NULL || request->num_sge > 1 || !(request->send_flags & IBV_SEND_SIGNALED))
        FAKE_DIE("an unexpected kind of request");
    (void)pthread_mutex_lock(&fake_lock);
    if (qp->sends == qp->cap.max_send_wr || qp->state < IBV_QPS_RTS) {
        int failure = qp->state < IBV_QPS_RTS ? EINVAL : ENOMEM;

        (void)pthread_mutex_unlock(&fake_lock);
        return failure;
    }
    qp->sends++;
    completion.wr_id = request->wr_id;
    peer = peer_of(qp);
    completion.status =
        qp->state == IBV_QPS_RTS ? write_over(qp, peer, request) : IBV_WC_WR_FLUSH_ERR;
    fake_complete(base->send_cq, &completion);
    if (completion.status != IBV_WC_SUCCESS && qp->state == IBV_QPS_RTS) {
        break_queue(qp);
        if (peer != NULL)
            break_queue(peer);
    }
    (void)pthread_mutex_unlock(&fake_lock);
    return 0;
}
