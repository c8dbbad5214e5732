/* Objects and pipes of the AMST engine, and how they tell what happens to them. A part of
 * nc_amst_internal.h, which says what the locks are. */
#ifndef NC_AMST_OBJECT_H
#define NC_AMST_OBJECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "nc_amst.h"
#include "nc_err.h"

struct nc_stream;
struct nc_thread;

/* --- Notices: how a subject tells the caller something -------------------------------------- */

enum nc_subject { NC_SUBJECT_LINK, NC_SUBJECT_STREAM, NC_SUBJECT_OBJECT };

struct nc_notice {
    struct nc_notice *next;
    enum nc_subject subject;
    bool queued;
    uint32_t mask; /* bit per nc_amst_event_kind */
    int code;      /* of STREAM_LOST or OBJECT_FAILED */
    int os_errno;
};

/* Engine's lock is taken inside. */
void nc_notice_post(struct nc_amst *engine, struct nc_notice *notice, int kind, int code,
                    int os_errno);

/* --- Rates ------------------------------------------------------------------------------------ */

struct nc_bucket {
    uint64_t rate; /* bytes a second; 0: none */
    double tokens;
    uint64_t last_ns;
};

void nc_bucket_set(struct nc_bucket *bucket, uint64_t rate, uint64_t now_ns);
/* Nanoseconds until something may be sent; 0: now. */
uint64_t nc_bucket_wait(struct nc_bucket *bucket, uint64_t now_ns);
/* May go into debt, so that a chunk larger than the burst passes at all. */
void nc_bucket_take(struct nc_bucket *bucket, int64_t bytes);

/* --- Objects and pipes --------------------------------------------------------------------------
 */

/* A piece of a byte stream that is kept until the other side has it, or until it is written. */
struct nc_segment {
    struct nc_segment *next;
    uint64_t offset;
    size_t size;
    size_t taken; /* receiver: bytes already written */
    uint8_t data[];
};

struct nc_watch {
    enum { NC_WATCH_WAKE, NC_WATCH_STREAM, NC_WATCH_PIPE } kind;
    void *subject;
};

struct nc_pipe {
    struct nc_watch watch;
    int fd; /* our own duplicate */
    uint64_t window;
    struct nc_thread *home; /* whose epoll watches fd */
    struct nc_amst_object *next_closing;
    struct nc_segment *segments; /* sender: to send again; receiver: by offset, not yet written */
    bool busy;                   /* a thread reads from or writes to fd */
    bool registered;
    bool socket;
    bool waiting; /* epoll tells when fd can be used again */
    bool end_known;
    bool end_sent;
    bool end_acked;
    uint64_t end;
    uint64_t next; /* sender: offset of what is read next; receiver: of what is written next */
    uint64_t read; /* sender: what left the receiver; receiver: what the sender was told of that */
};

enum nc_object_role { NC_OBJECT_SEND, NC_OBJECT_RECEIVE };

struct nc_amst_object {
    struct nc_notice notice; /* first: a notice is cast back to its subject */
    struct nc_amst_link *link;
    struct nc_amst_object *next; /* in the link's list of its role */
    enum nc_object_role role;
    uint64_t tag;
    uint32_t number;
    uint32_t generation;
    uint32_t chunk;
    uint32_t class; /* enum nc_amst_class */
    int fd;
    const uint8_t *source;
    uint8_t *target;
    uint64_t size;
    uint64_t chunks;
    bool sparse;
    bool stable;
    bool paused;
    bool finished;
    _Atomic bool refused;
    bool aborted;
    bool ended;
    unsigned users; /* threads, and frames sent from its memory, that use it outside of the lock */
    uint64_t *todo; /* sender: to be sent; receiver: being written */
    uint64_t *done;
    uint64_t cursor; /* sender: no word before this one has a bit in todo */
    uint32_t *leaves;
    uint32_t zero_leaf;
    struct nc_bucket bucket;
    struct nc_pipe *pipe;
    struct nc_amst_object_info info;
    struct nc_amst_coding coding;
    bool used; /* receiver: something may lie in the target already, its base */
    uint32_t base_id;
    int base_fd;
    const uint8_t *base;
    struct nc_amst_range *held;
    size_t held_count;
    uint64_t *whole;    /* sender, with a base: chunks whose difference was refused */
    uint8_t classes[4]; /* of the last samples */
    uint32_t samples;
    double saved_share;      /* of its bytes, by encoding, lately */
    double sample_credit_ns; /* that the next one may take */
    double sample_ns;        /* what the last one took */
    int rung;                /* of the last chunk, if it was not just tried */
    struct nc_amst_coding_info coded;
};

/* Where bit i of a bitmap is. */
static inline bool nc_bit(const uint64_t *bits, uint64_t i)
{
    return (bits[i / 64] >> (i % 64) & 1) != 0;
}
static inline void nc_bit_set(uint64_t *bits, uint64_t i)
{
    bits[i / 64] |= UINT64_C(1) << (i % 64);
}
static inline void nc_bit_clear(uint64_t *bits, uint64_t i)
{
    bits[i / 64] &= ~(UINT64_C(1) << (i % 64));
}

static inline uint32_t nc_class_of(uint32_t priority)
{
    return priority < NC_AMST_CLASSES ? priority : NC_AMST_CLASSES - 1;
}
uint32_t nc_object_chunk_size(const struct nc_amst_object *object, uint64_t index);
/* All with the link's lock held. */
void nc_object_finish(struct nc_amst_object *object, int code, int os_errno);
void nc_object_chunks_done(struct nc_amst_object *object, uint64_t first, uint64_t count,
                           uint64_t bytes);
void nc_object_release(struct nc_amst_object *object); /* one user less */
/* In its place among the link's outgoing ones. */
void nc_object_sort(struct nc_amst_link *link, struct nc_amst_object *object);
/* Without the lock: makes a complete object the link's. */
int nc_object_enlist(struct nc_amst_object *object, struct nc_err *err);
struct nc_amst_object *nc_object_find(struct nc_amst_object *list, uint32_t number,
                                      uint32_t generation);

/* Outside of the lock. Reads the chunk into `area`, or says why it cannot. */
int nc_object_read(const struct nc_amst_object *object, uint64_t offset, size_t size, uint8_t *area,
                   struct nc_err *err);
int nc_object_write(const struct nc_amst_object *object, uint64_t offset, size_t size,
                    const uint8_t *data, struct nc_err *err);
/* Makes a part read as zero; where it does so already nothing is written. */
int nc_object_clear(const struct nc_amst_object *object, uint64_t offset, uint64_t length,
                    struct nc_err *err);
/* Where the next data at or after offset is; size of the object where there is none. */
uint64_t nc_object_next_data(const struct nc_amst_object *object, uint64_t offset);

#endif
