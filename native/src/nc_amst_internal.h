/* What the files of the AMST engine share.
 *
 * Locks: a link's lock guards everything of the link, its objects and the lists of its streams; the
 * engine's guards notices and its rate; a thread's guards what others hand to it. Taken in this
 * order, never the other way. Reading, sealing, sending, receiving, opening and writing happen
 * outside of all of them, in the thread that owns the stream. */
#ifndef NC_AMST_INTERNAL_H
#define NC_AMST_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "nc_amst.h"
#include "nc_amst_object.h"
#include "nc_err.h"
#include "nc_frame.h"
#include "nc_hde.h"

struct nc_codec;
struct nc_thread;
struct nc_stream;
struct nc_rdma_channel;

/* --- What is in flight
 * ---------------------------------------------------------------------------- */

enum nc_work_kind {
    NC_WORK_NONE,
    NC_WORK_CHUNK,   /* to be read, and sent as DATA or, with what follows, as ZERO */
    NC_WORK_SEGMENT, /* one that was read before, or (segment NULL) what the pipe has now */
    NC_WORK_END,
    NC_WORK_BYE,
};

struct nc_flight {
    struct nc_flight *next;
    struct nc_flight *previous;
    struct nc_amst_object *object;
    uint8_t frame; /* enum nc_frame_type */
    bool hedged;   /* a copy is on its way on another stream */
    bool building; /* its thread makes a frame of it outside of the lock */
    bool delta;    /* sent as the difference to a base */
    uint64_t offset;
    uint64_t bytes;   /* of content */
    uint64_t credit;  /* of the receiver's window */
    uint64_t wire;    /* payload as it was sent; 0: not yet */
    uint64_t charged; /* to the rate limits */
    uint64_t first;   /* chunk */
    uint64_t count;
    uint64_t sent_ns;
    struct nc_segment *segment;
};

struct nc_work {
    enum nc_work_kind kind;
    struct nc_amst_object *object;
    struct nc_flight *flight; /* already on the stream's list */
};

/* --- Streams
 * -------------------------------------------------------------------------------------- */

#define NC_ACKS_FRAME (NC_FRAME_MAX_CONTROL / NC_FRAME_ACK_BYTES - 1)
#define NC_ACKS_HELD 1024

/* A frame on its way out: header, content and tail, wherever they lie. */
struct nc_outgoing {
    bool active;
    struct iovec part[3];
    int parts;
    uint8_t *slab;
    struct nc_amst_object *lender; /* the content lies in its memory; we are its user */
    uint8_t small[NC_FRAME_HEADER_BYTES + NC_FRAME_MAX_CONTROL + NC_CRYPTO_TAG_BYTES];
};

struct nc_incoming {
    uint8_t header[NC_FRAME_HEADER_BYTES];
    size_t header_have;
    struct nc_frame frame;
    uint8_t *slab; /* NULL: the small one serves */
    size_t want;   /* payload and tag */
    size_t have;
    uint8_t small[NC_FRAME_MAX_CONTROL + NC_CRYPTO_TAG_BYTES];
};

struct nc_direction {
    struct nc_aead *aead;
    uint32_t epoch;
    uint64_t sequence;
    uint64_t bytes;
};

struct nc_stream {
    struct nc_notice notice; /* first */
    struct nc_watch watch;
    struct nc_amst_link *link;
    struct nc_thread *thread;
    struct nc_stream *next_in_thread;
    struct nc_stream *next_in_link;
    struct nc_stream *next_ready;
    struct nc_stream *next_kicked;
    struct nc_stream *next_idle;
    struct nc_stream *previous_idle;
    uint32_t id;
    int state;
    int fd; /* the socket, or the channel's completion descriptor */
    struct nc_rdma_channel *channel;
    uint32_t slot; /* of the channel, while out.slab is it */

    /* The thread's own. */
    bool ready; /* in the thread's queue */
    bool readable;
    bool blocked;     /* wait for the socket, or a slot, before sending */
    bool watches_out; /* what epoll is asked for */
    bool said_bye;
    bool heard_bye;
    bool broken;
    uint64_t deadline_ns; /* of the greeting; 0: none */
    uint64_t wake_ns;     /* look for work again then; 0: never */
    struct nc_outgoing out;
    struct nc_incoming in;
    struct nc_direction sending;
    struct nc_direction receiving;
    uint64_t spent_ns; /* sealing and sending, since the chooser was told last */
    uint64_t spent_wire;

    /* Under the link's lock. */
    bool kicked; /* in the thread's list of kicked ones (thread's lock) */
    bool idle;   /* in the link's idle list */
    _Atomic bool retiring;
    _Atomic bool killed;
    int lost_code;
    int lost_errno;
    char lost_why[NC_AMST_WHY_BYTES]; /* of a channel */
    struct nc_flight *first_flight;   /* oldest first */
    struct nc_flight *last_flight;
    struct nc_frame_ack acks[NC_ACKS_HELD];
    size_t ack_count;
    uint64_t in_flight_bytes;
    uint64_t sent_bytes;
    uint64_t received_bytes;
    uint64_t idle_since_ns;
    int idle_why;         /* enum nc_idle */
    uint64_t share_bps;   /* what the kernel paces it at; 0: it does not */
    uint64_t paced_bytes; /* of wire_sent_bytes, what the link's pace was charged for */

    _Atomic uint32_t lowat; /* it asks for a piece when less than this is unsent */

    _Atomic uint64_t wire_sent_bytes;
    _Atomic uint64_t wire_received_bytes;
};

enum nc_idle { NC_IDLE_EMPTY, NC_IDLE_LIMITED, NC_IDLE_WINDOW };

/* How far a greeting may come behind the highest id: several times the streams that a link may
 * have. */
#define NC_STREAM_IDS 1024

/* What was acknowledged since the chooser was told last. */
struct nc_link_window {
    uint64_t from_ns;
    uint64_t wire;
    uint64_t content;
    unsigned chunks;
    uint64_t held_ns;     /* of the link's figures, then */
    uint64_t idle_ns[16]; /* of the engine's threads, then */
};

struct nc_amst_link {
    struct nc_notice notice; /* first */
    pthread_mutex_t lock;
    struct nc_amst *engine;
    struct nc_amst_link *next;
    struct nc_amst_link_options options;
    uint32_t seed;
    struct nc_stream *streams;
    unsigned stream_count;
    uint32_t last_stream;             /* acceptor: the highest id that proved itself */
    uint64_t ids[NC_STREAM_IDS / 64]; /* acceptor: which of the last NC_STREAM_IDS did */
    struct nc_amst_object *outgoing;  /* by class, then by turn */
    struct nc_amst_object *incoming;
    struct nc_stream *idle_first;
    struct nc_stream *idle_last;
    struct nc_bucket bucket;
    uint64_t pace_bps; /* 0: none */
    struct nc_bucket pace;
    uint32_t senders; /* streams that are given content; 0: all */
    uint32_t weights[NC_AMST_CLASSES];
    double served[NC_AMST_CLASSES]; /* bytes by weight: a class's virtual time */
    double virtual_now;
    uint32_t backlogged; /* bit per class that had something to send when last asked */
    uint64_t borrowed;   /* what control sent since a rate holds the rest */
    uint64_t in_flight;
    double ack_ns; /* how long a chunk takes to be acknowledged, smoothed */
    struct nc_hde_chooser chooser;
    struct nc_link_window window;
    bool aborted;
    bool ended;
    struct nc_amst_link_info info;
};

/* What a thread encodes and decodes in. */
enum nc_work_area { NC_WORK_CONTENT, NC_WORK_BASE, NC_WORK_DELTA, NC_WORK_CODED, NC_WORKS };

struct nc_thread {
    struct nc_amst *engine;
    pthread_t thread;
    bool started;
    int epoll_fd;
    int wake_fd;
    struct nc_watch wake_watch;
    pthread_mutex_t lock;
    struct nc_stream *added;        /* under lock */
    struct nc_stream *kicked;       /* under lock */
    struct nc_amst_object *closing; /* under lock: aborted pipes */
    _Atomic unsigned streams;       /* for placing new ones */
    /* The thread's own. */
    struct nc_stream *all;
    struct nc_stream *ready_first;
    struct nc_stream *ready_last;
    uint64_t next_timer_ns;
    bool restless; /* it kicked a stream of its own */
    uint8_t *spare[8];
    unsigned spares;
    struct nc_codec *codec;
    uint8_t *work[NC_WORKS];  /* a slab each, when it was first needed */
    _Atomic uint64_t idle_ns; /* that it waited for anything to do */
};

struct nc_amst {
    pthread_mutex_t lock;
    struct nc_notice *first_notice;
    struct nc_notice *last_notice;
    int event_fd;
    struct nc_bucket bucket;
    struct nc_amst_link *links;
    _Atomic bool closing;
    _Atomic unsigned next_thread;
    uint32_t thread_count;
    uint32_t encode_cpu; /* hundredths of a core; 0: no bound */
    double encode_ns;    /* CPU time that may be used at once; under lock */
    uint64_t encode_at_ns;
    struct nc_thread threads[16];
};

uint64_t nc_now_ns(void);
uint64_t nc_cpu_ns(void); /* of this thread */

/* threads */
void *nc_thread_run(void *thread);
/* Room for a header, a chunk, its checksum and a tag, in whole pages. */
#define NC_SLAB_BYTES                                                                              \
    ((NC_FRAME_HEADER_BYTES + NC_FRAME_MAX_CHUNK + NC_FRAME_CHECKSUM_BYTES + NC_CRYPTO_TAG_BYTES + \
      4095u) &                                                                                     \
     ~4095u)
uint8_t *nc_slab_take(struct nc_thread *thread); /* NULL: no memory */
void nc_slab_give(struct nc_thread *thread, uint8_t *slab);
uint8_t *nc_thread_work(struct nc_thread *thread, enum nc_work_area area); /* NULL: no memory */
struct nc_codec *nc_thread_codec(struct nc_thread *thread);                /* likewise */
struct nc_thread *nc_thread_choose(struct nc_amst *engine); /* the one with the least to do */
void nc_thread_wake(struct nc_thread *thread);
void nc_thread_ready(struct nc_stream *stream); /* own thread only */
void nc_thread_timer(struct nc_thread *thread, uint64_t at_ns);

/* link; with its lock held */
/* Lets the stream's thread look at it. */
void nc_link_kick(struct nc_stream *stream);
void nc_link_wake(struct nc_amst_link *link, unsigned count);
void nc_link_idle(struct nc_stream *stream, enum nc_idle why, uint64_t now_ns);
void nc_link_not_idle(struct nc_stream *stream, uint64_t now_ns);
void nc_flight_charge(struct nc_stream *stream, struct nc_flight *flight);
/* It became `wire` bytes: the rest of what was charged for it is given back. What is charged when a
 * piece is picked is what pieces of its object became lately: with all of its bytes a rate limit
 * would keep other threads from encoding meanwhile. */
void nc_flight_shrink(struct nc_stream *stream, struct nc_flight *flight, uint64_t wire);
/* Likewise, of a chunk whose content was encoded. */
void nc_flight_built_as(struct nc_stream *stream, struct nc_flight *flight, uint64_t wire);
void nc_flight_remove(struct nc_stream *stream, struct nc_flight *flight);
/* Puts back what a stream carried. */
void nc_flight_requeue(struct nc_stream *stream);
void nc_link_acknowledge(struct nc_stream *stream, const struct nc_frame_ack *ack, uint64_t now_ns);

/* Whether the stream is one of those that are given content. */
bool nc_pace_sends(const struct nc_stream *stream);
/* Streams came or went: each gets its share of the pace. */
void nc_pace_share(struct nc_amst_link *link);
/* What the stream sent since the last time is taken from the link's pace. */
void nc_pace_charge(struct nc_stream *stream);
void nc_pace_begin(struct nc_amst_link *link);

/* Without it: the stream ended; what it carried goes back. It must not be touched afterwards. */
void nc_link_stream_gone(struct nc_stream *stream);
/* Frees what is left when no thread runs any more. */
void nc_link_drop_objects(struct nc_amst_link *link);

/* schedule; with the link's lock held. Fills work and puts its flight on the stream's list; else
 * says why there is none, and when to look again (0: when woken). */
enum nc_idle nc_schedule(struct nc_stream *stream, uint64_t now_ns, struct nc_work *ret_work,
                         uint64_t *ret_wake_ns);

/* stream; own thread only */
void nc_stream_start(struct nc_stream *stream);
void nc_stream_break(struct nc_stream *stream, int code, int os_errno);
void nc_stream_transmit(struct nc_stream *stream);
/* So many acknowledgements wait to be sent that nothing more is read: a peer that sends but does
 * not read must not make us keep ever more of them, and none may be dropped. */
bool nc_stream_owes(struct nc_stream *stream);
void nc_stream_receive(struct nc_stream *stream);
void nc_stream_free(struct nc_stream *stream);
/* Takes the frame in stream->in.frame with its payload, which it may overwrite. */
int nc_stream_take(struct nc_stream *stream, const uint8_t *header, uint8_t *payload);
int nc_stream_expect(struct nc_stream *stream);
bool nc_stream_next_frame(struct nc_stream *stream);
/* Where a frame is put together: a slab, or a slot of the channel. NULL: there is none. */
uint8_t *nc_stream_area(struct nc_stream *stream);
void nc_stream_area_back(struct nc_stream *stream);
int nc_stream_greet(struct nc_stream *stream, uint8_t type, uint8_t *ret_frame);
int nc_stream_check_greeting(struct nc_stream *stream, const uint8_t *bytes, uint8_t type,
                             struct nc_err *err);
int nc_stream_keys(struct nc_stream *stream, struct nc_err *err);
/* Takes the next sending key where this one has served its time. */
int nc_stream_rekey(struct nc_stream *stream, struct nc_err *err);

/* movers; own thread only. Send what stream->out holds: 1 all gone, 0 blocked, -1 broken. */
int nc_tcp_send(struct nc_stream *stream);
void nc_tcp_receive(struct nc_stream *stream);
int nc_tcp_prepare(int fd, struct nc_err *err);
/* A stream asks for a piece when less than this is unsent: late enough that a slow one does not
 * hoard work, early enough that the kernel never runs dry before a thread comes round. */
#define NC_TCP_LOWAT_BYTES (256u * 1024)
/* Lets the kernel send at most `rate` bytes a second (0: as it likes), `lowat` of them unsent. */
void nc_tcp_pace(int fd, uint64_t rate, uint32_t lowat);
bool nc_tcp_roomy(const struct nc_stream *stream);

bool nc_amst_rdma_roomy(struct nc_stream *stream);
int nc_amst_rdma_send(struct nc_stream *stream);
void nc_amst_rdma_receive(struct nc_stream *stream);

/* frames out: one piece from `area` on, its payload `content` (which may lie there already) and
 * `tail`. Own thread only. */
int nc_stream_seal(struct nc_stream *stream, struct nc_frame *frame, uint8_t *area,
                   const uint8_t *content, size_t size, const uint8_t *tail, size_t tail_size);
/* The flight will not be sent; its object may be gone with it. Link's lock held, as in the next. */
void nc_flight_drop(struct nc_stream *stream, struct nc_flight *flight);
/* After the content is in memory. False: the object was aborted meanwhile, and the flight is gone.
 */
bool nc_flight_built(struct nc_stream *stream, struct nc_flight *flight, bool keep_user);
bool nc_stream_build_chunk(struct nc_stream *stream, struct nc_flight *flight);

/* encoding; own thread only */
struct nc_coded {
    const uint8_t *data; /* NULL: as it is */
    size_t size;
    uint8_t codec;
    uint8_t flags;
    uint32_t base;
    bool zero; /* nothing but zeros: no bytes are sent */
};
/* Says what the chunk's content becomes on the wire; `data` lies in the thread's work areas. */
void nc_encode(struct nc_stream *stream, struct nc_flight *flight, const uint8_t *content,
               size_t size, struct nc_coded *ret_coded);
/* Counts `ns` of CPU time; with the link's lock held. */
void nc_encode_charge(struct nc_amst_object *object, enum nc_amst_stage stage, uint64_t ns);
/* Link's lock held: `flight` was acknowledged. */
void nc_encode_acknowledged(struct nc_amst_link *link, const struct nc_flight *flight,
                            uint64_t now_ns);

/* What a DATA frame carries, when its codec is undone. */
struct nc_decoded {
    const uint8_t *data; /* the content, or the delta stream */
    size_t size;
    uint32_t checksum; /* of the content */
    uint32_t base_checksum;
    uint64_t cpu_ns;
};
/* Undoes the codec; checks the content where it is not a delta. */
int nc_decode(struct nc_stream *stream, const struct nc_frame *frame, const uint8_t *payload,
              struct nc_decoded *ret_decoded, struct nc_err *err);
/* Applies the delta stream to the object's base, and checks the content, which lies in a work area
 * of the thread afterwards. NC_ERR_NOT_FOUND: it is not that base. Outside of the lock. */
int nc_decode_delta(struct nc_stream *stream, const struct nc_amst_object *object,
                    const struct nc_frame *frame, struct nc_decoded *decoded, struct nc_err *err);

/* receiving side of objects and pipes */
/* Not OK: the stream is to be broken. */
int nc_receive_chunk(struct nc_stream *stream, const struct nc_frame *frame,
                     struct nc_decoded *decoded, struct nc_err *err);
void nc_receive_zero(struct nc_stream *stream, const struct nc_frame *frame, uint64_t length);
/* The object a frame is for, or NULL after the sender was told that there is none. */
struct nc_amst_object *nc_object_of_frame(struct nc_stream *stream, const struct nc_frame *frame);
int nc_receive_segment(struct nc_stream *stream, const struct nc_frame *frame, const uint8_t *data);
void nc_ack_queue(struct nc_stream *stream, int kind, const struct nc_frame *frame, uint64_t offset,
                  uint64_t value); /* link's lock held */

/* pipes */
struct nc_segment *nc_pipe_read(struct nc_amst_object *object, struct nc_stream *stream);
void nc_pipe_pump(
    struct nc_amst_object *object); /* receiver; link's lock held, released meanwhile */
void nc_pipe_event(struct nc_amst_object *object);         /* home thread */
void nc_pipe_acknowledge_again(struct nc_amst_link *link); /* link's lock held */
void nc_pipe_read_ack(struct nc_amst_object *object);      /* link's lock held */
void nc_pipe_close(struct nc_amst_object *object);
int nc_pipe_wait(struct nc_amst_object *object, uint32_t events); /* link's lock held */

#endif
