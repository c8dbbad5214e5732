/* The AMST engine: moves objects and byte streams over many connections, in a few threads.
 *
 * An engine has threads; a link joins two nodes and owns streams (connections), objects and pipes.
 * Everything here may be called from any thread. Payload bytes are touched by the engine's threads
 * only; the caller learns what happened from one descriptor and nc_amst_poll. Descriptors of
 * sources and targets stay the caller's and must stay open until the object's ENDED event. */
#ifndef NC_AMST_H
#define NC_AMST_H

#include <stddef.h>
#include <stdint.h>

struct nc_err;
struct nc_amst;
struct nc_amst_link;
struct nc_amst_object;

/* --- Engine -------------------------------------------------------------------------------- */

struct nc_amst_options {
    uint32_t threads;   /* 1 to 16 */
    uint64_t limit_bps; /* bytes a second over all links; 0: none */
    uint32_t
        encode_cpu; /* hundredths of a core that encoding may use; 0: no bound but the threads */
};

int nc_amst_open(const struct nc_amst_options *options, struct nc_amst **ret_engine,
                 struct nc_err *err);
/* Ends every link that is left, waits for the threads, frees all. Takes NULL. */
void nc_amst_close(struct nc_amst *engine);
/* Readable when nc_amst_poll has something. */
int nc_amst_event_fd(const struct nc_amst *engine);
void nc_amst_limit(struct nc_amst *engine, uint64_t limit_bps);

enum nc_amst_event_kind {
    NC_AMST_STREAM_UP = 1, /* proven by keys on both ends */
    NC_AMST_STREAM_LOST,   /* died; its chunks were put back. code, os_errno: why */
    NC_AMST_STREAM_CLOSED, /* ended in order after nc_amst_link_retire, here or over there */
    NC_AMST_OBJECT_DONE,   /* sent: everything acknowledged; received: everything written */
    NC_AMST_OBJECT_FAILED, /* code, os_errno: why. Nothing more will happen to it */
    NC_AMST_OBJECT_ENDED,  /* after nc_amst_object_abort: no thread touches it any more */
    NC_AMST_LINK_ENDED,    /* after nc_amst_link_abort: no thread touches it any more */
    NC_AMST_EVENT_MAX
};

#define NC_AMST_WHY_BYTES 160

struct nc_amst_event {
    int kind;
    int code;
    int os_errno;
    int refused;     /* OBJECT_FAILED: the other side said so, and the code is its */
    uint32_t stream; /* of STREAM_ events */
    uint64_t link;   /* the tag given when it was opened */
    uint64_t object; /* likewise; 0 where it is about no object */
    /* STREAM_LOST over RDMA: the channel's own words; empty where the code says all there is. */
    char why[NC_AMST_WHY_BYTES];
};

/* Takes at most `capacity` events. Bounded without loss: an event is a bit on its subject, so the
 * subjects that exist bound how many there can be. */
size_t nc_amst_poll(struct nc_amst *engine, struct nc_amst_event *ret_events, size_t capacity);

/* --- Links --------------------------------------------------------------------------------- */

/* What objects and pipes are sent for. Control comes strictly first; the others share by weight,
 * over bytes of content; those of one class take turns. */
enum nc_amst_class {
    NC_AMST_CLASS_CONTROL,
    NC_AMST_CLASS_STATE,
    NC_AMST_CLASS_MIGRATION,
    NC_AMST_CLASS_BULK,
    NC_AMST_CLASSES
};
#define NC_AMST_WEIGHT_MAX 1000

struct nc_amst_link_options {
    uint64_t tag;
    uint8_t id[16];
    uint8_t secret[32]; /* wiped by the caller after the call */
    uint8_t context[32];
    int initiator;
    int encrypt;
    uint32_t max_chunk;      /* largest raw_size either side sends */
    uint64_t send_window;    /* bytes in flight the other side takes: its receive_window */
    uint64_t receive_window; /* bytes of payload we hold at most */
    uint32_t codecs;   /* bit per nc_codec_id both sides have, and NC_AMST_DELTA; raw always */
    uint64_t link_bps; /* bytes a second that the path is expected to take; 0: not known */
};

/* In nc_amst_link_options.codecs: both sides take deltas. */
#define NC_AMST_DELTA (1u << 8)

int nc_amst_link_open(struct nc_amst *engine, const struct nc_amst_link_options *options,
                      struct nc_amst_link **ret_link, struct nc_err *err);
/* Gives the engine a connected non-blocking TCP socket, which it closes in all cases. stream_id was
 * never used on this link. The initiator's end sends the HELLO. */
int nc_amst_link_dialled(struct nc_amst_link *link, int fd, uint32_t stream_id, struct nc_err *err);
/* The acceptor's end: `hello` is the NC_FRAME_HELLO_BYTES that were read from fd. DENIED where it
 * does not prove the keys or its stream id was used before; the socket is closed then as well. */
int nc_amst_link_accepted(struct nc_amst_link *link, int fd, const uint8_t *hello, size_t size,
                          struct nc_err *err);
struct nc_rdma_channel;
/* Either end: a connected RDMA channel, whose slots hold a frame of the link's largest chunk, and
 * which is closed in all cases. Its greetings travel on it like everything else. */
int nc_amst_link_rdma(struct nc_amst_link *link, struct nc_rdma_channel *channel,
                      uint32_t stream_id, struct nc_err *err);
/* Lets a stream finish what it carries, then ends it; NOT_FOUND if there is none of that id. */
int nc_amst_link_retire(struct nc_amst_link *link, uint32_t stream_id, struct nc_err *err);
void nc_amst_link_limit(struct nc_amst_link *link, uint64_t limit_bps);
/* Spreads what this end sends: each TCP stream that carries content gets its share of `pace_bps`
 * bytes a second from the kernel, now and when streams come or go, and a bucket bounds them
 * together. 0: none. Beside the limit, not instead of it; nothing to RDMA. */
void nc_amst_link_pace(struct nc_amst_link *link, uint64_t pace_bps);
/* Gives content to at most so many TCP streams, those with the smallest ids; 0: to all. The others
 * stay open, carry acknowledgements and what is of class control. */
void nc_amst_link_senders(struct nc_amst_link *link, uint32_t most);
/* Of what this end sends; 16, 4 and 1 unless set. INVALID: class control has none, and a weight is
 * 1 to 1000. */
int nc_amst_link_weight(struct nc_amst_link *link, uint32_t class, uint32_t weight,
                        struct nc_err *err);
/* Changes the congestion control of a live TCP stream, and reads it back; errors as nc_tcp_set, and
 * NOT_FOUND where there is no such stream. */
int nc_amst_link_congestion(struct nc_amst_link *link, uint32_t stream_id, const char *name,
                            struct nc_err *err);
/* Closes every stream and fails every object; then LINK_ENDED. Harmless when repeated. */
void nc_amst_link_abort(struct nc_amst_link *link);
/* After LINK_ENDED and after every object was freed. Wipes the keys. */
void nc_amst_link_free(struct nc_amst_link *link);

struct nc_amst_link_info {
    uint64_t sent_bytes;      /* payload acknowledged, over all objects */
    uint64_t received_bytes;  /* payload written */
    uint64_t wire_sent_bytes; /* with headers, tags and what was sent again */
    uint64_t wire_received_bytes;
    uint64_t resent_bytes;
    uint64_t duplicate_bytes; /* received twice and dropped */
    uint64_t in_flight_bytes;
    uint64_t hedged_chunks;
    uint64_t bad_frames; /* refused by tag, checksum or rule; each ended its stream */
    uint64_t limited_ns; /* time streams were ready and a rate limit held them */
    uint64_t starved_ns; /* time streams were ready and there was nothing to send */
    uint64_t window_ns;  /* time streams were ready and the receiver's window was full */
    uint32_t streams;
    uint32_t rekeys;
};
void nc_amst_link_info(struct nc_amst_link *link, struct nc_amst_link_info *ret_info);

struct nc_amst_stream_info {
    uint32_t id;
    int state; /* enum nc_amst_stream_state */
    int mover; /* enum nc_amst_mover */
    uint32_t epoch_sent;
    uint64_t sent_bytes; /* payload acknowledged that this stream carried */
    uint64_t received_bytes;
    uint64_t wire_sent_bytes;
    uint64_t wire_received_bytes;
    uint64_t in_flight_bytes;
    /* TCP_INFO; zero on RDMA */
    uint32_t rtt_us;
    uint32_t rttvar_us;
    uint32_t min_rtt_us;
    uint32_t base_rtt_us; /* without queues, within ten seconds; only BBR knows, else 0 */
    uint32_t snd_cwnd;
    uint32_t snd_mss;
    uint32_t unsent_bytes;
    uint32_t total_retrans;
    uint32_t segments_out;     /* with data, repeated ones included */
    uint32_t needless_retrans; /* those the other end had already */
    uint32_t delivered;        /* segments acknowledged */
    uint32_t delivered_ce;
    int ecn; /* negotiated */
    int app_limited;
    uint64_t acked_bytes;   /* by the other side's kernel */
    uint64_t delivery_rate; /* bytes a second */
    uint64_t pacing_rate;
    uint64_t busy_us;
    uint64_t rwnd_limited_us;
    uint64_t sndbuf_limited_us;
    char congestion[16];
};

enum nc_amst_stream_state {
    NC_AMST_STREAM_GREETING = 1,
    NC_AMST_STREAM_OPEN,
    NC_AMST_STREAM_RETIRING,
};
enum nc_amst_mover { NC_AMST_MOVER_TCP = 1, NC_AMST_MOVER_RDMA };

/* At most `capacity` streams; *ret_count is how many there are. */
void nc_amst_link_streams(struct nc_amst_link *link, struct nc_amst_stream_info *ret_streams,
                          size_t capacity, size_t *ret_count);

/* --- Objects: known size, any order ---------------------------------------------------------- */

enum nc_amst_policy {
    NC_AMST_CODING_OFF = 0,  /* as it is; not even zeros are looked for, but for holes */
    NC_AMST_CODING_ADAPTIVE, /* for each chunk what gets it over soonest, see nc_hde.h */
    NC_AMST_CODING_FIXED,    /* always the same, where it makes the chunk smaller */
};

struct nc_amst_coding {
    int policy;
    int codec; /* of FIXED: enum nc_codec_id */
    int level;
    int level_min; /* of ADAPTIVE: zstd levels that may be taken */
    int level_max;
};

struct nc_amst_range {
    uint64_t offset;
    uint64_t size;
};

struct nc_amst_source {
    uint64_t tag;
    uint32_t number;     /* unique on the link in this direction; not 0 */
    uint32_t generation; /* the receiver's object has the same */
    int fd;              /* read with pread; -1 where memory is given */
    const void *memory;  /* must stay until ENDED */
    uint64_t size;
    uint32_t chunk;      /* bytes; a multiple of 4096, at most max_chunk of the link */
    uint32_t priority;   /* enum nc_amst_class; what is above counts as the last */
    int sparse;          /* find holes with SEEK_DATA and send them as ZERO */
    int stable;          /* does not change while it is sent: may be sent from where it lies */
    uint64_t limit_bps;  /* 0: none */
    const uint8_t *have; /* bitmap of chunks the receiver holds already, or NULL; copied */
    const uint32_t
        *leaves; /* checksums of those chunks, one for each chunk of the object; copied */
    struct nc_amst_coding coding;
    /* What the receiver holds already, so that only the difference need be sent; base_id 0:
     * nothing. Either bytes of the object's size, in a file or in memory, which must stay like the
     * source, or, with neither, the content itself in the ranges `held` (sorted, apart; copied) and
     * zeros elsewhere. A receiver whose base is another one refuses the difference, chunk by chunk,
     * and gets the whole. */
    uint32_t base_id;
    int base_fd;
    const void *base_memory;
    const struct nc_amst_range *held;
    size_t held_count;
};
struct nc_amst_target {
    uint64_t tag;
    uint32_t number;
    uint32_t generation;
    int fd; /* written with pwrite; -1 where memory is given */
    void *memory;
    uint64_t size;
    uint32_t chunk;
    int sparse; /* the target reads as zero where nothing was written: write no 4 KiB block of zeros
                 */
    const uint8_t *have;
    const uint32_t *leaves;
    /* What differences are applied to, of the object's size; may be the target itself. */
    uint32_t base_id;
    int base_fd;
    const void *base_memory;
};

int nc_amst_send(struct nc_amst_link *link, const struct nc_amst_source *source,
                 struct nc_amst_object **ret_object, struct nc_err *err);
int nc_amst_receive(struct nc_amst_link *link, const struct nc_amst_target *target,
                    struct nc_amst_object **ret_object, struct nc_err *err);
void nc_amst_object_pause(struct nc_amst_object *object, int paused);
void nc_amst_object_limit(struct nc_amst_object *object, uint64_t limit_bps);
void nc_amst_object_priority(struct nc_amst_object *object, uint32_t priority);
/* Then ENDED, whatever state it was in, and exactly once. Harmless when repeated. */
void nc_amst_object_abort(struct nc_amst_object *object);
/* After ENDED. */
void nc_amst_object_free(struct nc_amst_object *object);

struct nc_amst_object_info {
    uint64_t done_bytes;  /* acknowledged or written, zeros and what was there before included */
    uint64_t moved_bytes; /* of those, payload that crossed the link */
    uint64_t zero_bytes;
    uint64_t resent_bytes;
    uint64_t done_chunks;
    uint64_t chunks;
    int finished; /* DONE or FAILED happened */
    int code;     /* of FAILED */
    int os_errno;
};
void nc_amst_object_info(struct nc_amst_object *object, struct nc_amst_object_info *ret_info);

enum nc_amst_stage {
    NC_AMST_STAGE_READ, /* the source, and the base; with the checksum */
    NC_AMST_STAGE_ZERO,
    NC_AMST_STAGE_SAMPLE,
    NC_AMST_STAGE_DELTA,
    NC_AMST_STAGE_ENCODE,
    NC_AMST_STAGE_SEAL,
    NC_AMST_STAGE_DECODE, /* of what is received: codec, delta, checksum */
    NC_AMST_STAGES
};

#define NC_AMST_CHANGES 16

/* The rung of the ladder changed. */
struct nc_amst_change {
    uint64_t at_ns; /* of the monotonic clock */
    int from;       /* enum nc_hde_rung */
    int to;
    int why; /* enum nc_hde_why */
    int content_class;
    uint64_t link_bps;   /* what the link was believed to take, bytes a second */
    uint64_t encode_bps; /* of one thread, with the new rung */
    double ratio;        /* likewise */
};

/* How an object was encoded, or decoded, so far. What is sent again counts again. */
struct nc_amst_coding_info {
    uint64_t zero_chunks;
    uint64_t zero_bytes;
    uint64_t delta_chunks; /* among those of a codec */
    uint64_t delta_bytes;  /* of content */
    uint64_t delta_wire_bytes;
    uint64_t chunks[3]; /* by codec */
    uint64_t bytes[3];  /* of content */
    uint64_t wire_bytes[3];
    uint64_t refused_bases; /* chunks sent whole because the other side's base was another one */
    uint64_t budget_chunks; /* chunks left as they were because the CPU for encoding was used up */
    uint64_t cpu_ns[NC_AMST_STAGES];
    uint64_t change_count; /* all there were; the last NC_AMST_CHANGES are kept */
    struct nc_amst_change changes[NC_AMST_CHANGES]; /* change i is at i % NC_AMST_CHANGES */
};
void nc_amst_object_coding(struct nc_amst_object *object, struct nc_amst_coding_info *ret_info);
/* Bit i (of byte i / 8, least significant first): chunk i is acknowledged or written. */
int nc_amst_object_bitmap(struct nc_amst_object *object, uint8_t *ret_bits, size_t size,
                          struct nc_err *err);
/* Checksums of chunks first to first + count - 1; only those of done chunks mean something. */
int nc_amst_object_leaves(struct nc_amst_object *object, uint64_t first, size_t count,
                          uint32_t *ret_leaves, struct nc_err *err);

/* --- Pipes: unknown length, in order -----------------------------------------------------------
 */

/* Reads fd (a non-blocking stream socket or pipe) to its end and sends what comes at once; at most
 * `window` bytes are unread by the other side. DONE when all of it, and the end, left the receiver.
 */
int nc_amst_pipe_send(struct nc_amst_link *link, uint64_t tag, uint32_t number, int fd,
                      uint32_t chunk, uint32_t priority, uint64_t window,
                      struct nc_amst_object **ret_object, struct nc_err *err);
/* Writes what comes to fd, in order. A stream socket is shut down for writing after the last byte;
 * then DONE. */
int nc_amst_pipe_receive(struct nc_amst_link *link, uint64_t tag, uint32_t number, int fd,
                         uint64_t window, struct nc_amst_object **ret_object, struct nc_err *err);

#endif
