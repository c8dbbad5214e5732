/* What the two files of the false data path share: fake_rdma.c has memory and completions,
 * fake_queue.c has queue pairs. */
#ifndef FAKE_RDMA_H
#define FAKE_RDMA_H

#include <pthread.h>

#include "fake_verbs.h"

struct fake_pd {
    struct ibv_pd base;
    unsigned int objects;
};

struct fake_mr {
    struct ibv_mr base;
    int access;
    struct fake_mr *next;
};

struct fake_channel {
    struct ibv_comp_channel base;
    int end;
};

struct fake_cq {
    struct ibv_cq base;
    struct ibv_wc *ring;
    int first;
    int count;   /* that are there */
    int visible; /* that polling finds */
    int armed;
    unsigned int reported;
    unsigned int acknowledged;
    unsigned int queues;
};

struct fake_qp {
    struct ibv_qp base;
    struct ibv_qp_cap cap;
    struct ibv_qp_attr attributes;
    int state;
    uint64_t *receives;
    uint32_t first;
    uint32_t posted;
    uint32_t sends; /* whose completion was not polled */
    struct fake_qp *next;
};

/* One lock for everything: what it orders is what a real device orders, and no more. Functions
 * that say so are called with it. */
extern pthread_mutex_t fake_lock;
extern struct fake_qp *fake_queues;

/* NULL with errno set where FAKE_VERBS is `failing`. */
void *fake_new(size_t size, const char *failing, int os_errno);
/* With the lock. */
void fake_complete(struct ibv_cq *cq, const struct ibv_wc *completion);
/* With the lock. The region of that domain which a key opens for those bytes. */
const struct fake_mr *fake_region(const struct ibv_pd *pd, uint32_t key, int remote,
                                  uint64_t address, uint64_t length);
int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *request, struct ibv_send_wr **bad);
int fake_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *request, struct ibv_recv_wr **bad);

#endif
